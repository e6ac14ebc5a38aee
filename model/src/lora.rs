//! LoRA adapters in the layout of `peft`: `adapter_config.json` and `adapter_model.safetensors`.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::foreign::{Keys, Only, folder, refuse_pointer, short};
use crate::json::read_json;
use crate::nn::{Adapter, Linear};
use crate::qwen3_vl::Qwen3Vl;
use crate::{Error, Result, output};

pub(crate) const CONFIG: &str = "adapter_config.json";
pub(crate) const WEIGHTS: &str = "adapter_model.safetensors";
/// What peft puts before the path of every module.
const PREFIX: &str = "base_model.model.";

/// Keys of peft's `LoraConfig` beside the fields of [`LoraConfig`]. `init_lora_weights` is checked by itself: the settings of a
/// start (`eva_config` and its like) matter only where it names that start.
const KEYS: Keys = Keys {
    known: &[
        "auto_mapping",
        "base_model_name_or_path",
        "corda_config",
        "eva_config",
        "inference_mode",
        "init_lora_weights",
        "loftq_config",
        "lora_dtype",
        "lora_ga_config",
        "lorap_emb_lr",
        "lorap_lr_ratio",
        "megatron_core",
        "merge_weights",
        "peft_version",
        "qalora_group_size",
        "revision",
        "runtime_config",
        "task_type",
        // Of the backward pass.
        "velora_config",
    ],
    only: &[
        ("alora_invocation_tokens", Only::Off),
        ("arrow_config", Only::Off),
        ("enable_lora", Only::Off),
        ("ensure_weight_tying", Only::Off),
        ("fan_in_fan_out", Only::Off),
        ("kasa_config", Only::Off),
        ("layer_replication", Only::Off),
        ("lora_bias", Only::Off),
        ("megatron_config", Only::Off),
        ("modules_to_save", Only::Off),
        ("monteclora_config", Only::Off),
        ("target_parameters", Only::Off),
        ("trainable_token_indices", Only::Off),
        ("use_bdlora", Only::Off),
        ("use_dora", Only::Off),
        ("use_qalora", Only::Off),
    ],
};
/// Values of `init_lora_weights` that leave the base as it is. The others (`pissa`, `olora`, `corda`, `lora_ga`, `loftq`) take a
/// part out of it, which the adapter gives back.
const PLAIN_STARTS: [&str; 6] = ["true", "false", "gaussian", "eva", "orthogonal", "mica"];

/// Modules to adapt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Targets {
    /// Ends of module paths, such as `q_proj`.
    Names(Vec<String>),
    /// A regular expression for whole module paths, or `all-linear`.
    Pattern(String),
}

impl Targets {
    fn name(&self, module: &str) -> Result<bool> {
        match self {
            Self::Pattern(pattern) => matches(&format!("^(?:{pattern})$"), module),
            Self::Names(names) => Ok(names.iter().any(|name| ends_at(module, name))),
        }
    }
}

/// Numbers of layers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Layers {
    /// Some.
    Many(Vec<usize>),
    /// One.
    One(usize),
}

/// `adapter_config.json`. Keys that change nothing here are kept as they are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoraConfig {
    /// `LORA`.
    pub peft_type: String,
    /// Rank, where no pattern says otherwise.
    pub r: usize,
    /// Numerator of the scale, where no pattern says otherwise.
    pub lora_alpha: f64,
    /// Modules.
    pub target_modules: Targets,
    /// Modules that are left as they are although `target_modules` names them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclude_modules: Option<Targets>,
    /// The layers whose modules are adapted, where not all of them are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers_to_transform: Option<Layers>,
    /// What stands before a layer's number, where that is not any name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers_pattern: Option<Targets>,
    /// Dropout on the adapter's input while training.
    #[serde(default)]
    pub lora_dropout: f64,
    /// Ranks of some modules: ends of paths, or regular expressions for them.
    #[serde(default)]
    pub rank_pattern: BTreeMap<String, usize>,
    /// Alphas of some modules.
    #[serde(default)]
    pub alpha_pattern: BTreeMap<String, f64>,
    /// Scale by 1 / sqrt(rank) in place of 1 / rank.
    #[serde(default)]
    pub use_rslora: bool,
    /// `none`.
    #[serde(default = "none")]
    pub bias: String,
    /// The other keys.
    #[serde(flatten)]
    pub other: serde_json::Map<String, serde_json::Value>,
}

fn none() -> String {
    "none".to_owned()
}

impl LoraConfig {
    /// An adapter of one rank for some modules.
    pub fn new(r: usize, lora_alpha: f64, target_modules: Targets) -> Self {
        Self {
            peft_type: "LORA".to_owned(),
            r,
            lora_alpha,
            target_modules,
            exclude_modules: None,
            layers_to_transform: None,
            layers_pattern: None,
            lora_dropout: 0.0,
            rank_pattern: BTreeMap::new(),
            alpha_pattern: BTreeMap::new(),
            use_rslora: false,
            bias: none(),
            other: serde_json::Map::new(),
        }
    }

    /// Refuses what this implementation would silently compute otherwise.
    ///
    /// # Errors
    /// The key, what was expected and got.
    pub fn check(&self) -> Result<()> {
        let fail = |key: &str, expected: &str, got: String| {
            Err(Error::Adapter { module: format!("{CONFIG}: {key}"), expected: expected.to_owned(), got })
        };
        if self.peft_type != "LORA" {
            return fail("peft_type", "LORA", self.peft_type.clone());
        }
        if self.bias != "none" {
            return fail("bias", "none", self.bias.clone());
        }
        if self.r == 0 || self.rank_pattern.values().any(|&r| r == 0) {
            return fail("r", "at least 1", "0".to_owned());
        }
        let mut alphas = [self.lora_alpha].into_iter().chain(self.alpha_pattern.values().copied());
        if let Some(alpha) = alphas.find(|alpha| !(alpha.is_finite() && *alpha > 0.0)) {
            return fail("lora_alpha or alpha_pattern", "a number over 0", alpha.to_string());
        }
        if !(0.0..1.0).contains(&self.lora_dropout) {
            return fail("lora_dropout", "a share of [0, 1)", self.lora_dropout.to_string());
        }
        let start = self.other.get("init_lora_weights").filter(|start| !start.is_null() && !start.is_boolean());
        if let Some(start) = start
            && !start.as_str().is_some_and(|name| PLAIN_STARTS.contains(&name.to_lowercase().as_str()))
        {
            let expected = format!(
                "a start that leaves the base as it is ({}); convert the adapter in peft, by save_pretrained with \
                 path_initial_model_for_weight_conversion, or merge it there with merge_and_unload",
                PLAIN_STARTS.join(", ")
            );
            return fail("init_lora_weights", &expected, short(start));
        }
        // Variants whose weights mean something else.
        if let Some(refused) = KEYS.refused(&self.other).next() {
            return fail(refused.key, &refused.expected, refused.got);
        }
        if let Some((key, value)) = KEYS.unknown(&self.other).next() {
            let expected = "a key that is known here; where it changes nothing, set it to null";
            return fail(key, expected, short(value));
        }
        Ok(())
    }

    /// Whether a module is to be adapted.
    ///
    /// # Errors
    /// A pattern that is no regular expression.
    pub fn targets(&self, module: &str) -> Result<bool> {
        if let Some(excluded) = &self.exclude_modules
            && excluded.name(module)?
        {
            return Ok(false);
        }
        match &self.target_modules {
            Targets::Pattern(all) if all == "all-linear" => Ok(module != "lm_head"),
            Targets::Names(names) if !names.iter().any(|name| name == module) => {
                Ok(self.target_modules.name(module)? && self.adapts_layer_of(module)?)
            }
            targets => targets.name(module),
        }
    }

    /// Whether a module stands in one of the layers that are adapted.
    fn adapts_layer_of(&self, module: &str) -> Result<bool> {
        let layers = match &self.layers_to_transform {
            None => return Ok(true),
            Some(Layers::Many(all)) if all.is_empty() => return Ok(true),
            Some(Layers::Many(all)) => all.as_slice(),
            Some(Layers::One(layer)) => std::slice::from_ref(layer),
        };
        let before = match &self.layers_pattern {
            Some(Targets::Pattern(name)) if !name.is_empty() => name.clone(),
            Some(Targets::Names(names)) if !names.is_empty() => names.join("|"),
            _ => "[^.]*".to_owned(),
        };
        let number = regex(&format!(r"^.*\.(?:{before})\.(\d+)\."))?;
        let layer = number.captures(module).and_then(|found| found.get(1)?.as_str().parse().ok());
        Ok(layer.is_some_and(|layer| layers.contains(&layer)))
    }

    /// Rank of a module.
    ///
    /// # Errors
    /// A pattern that is no regular expression.
    pub fn rank(&self, module: &str) -> Result<usize> {
        Ok(pattern_value(&self.rank_pattern, module)?.unwrap_or(self.r))
    }

    /// Factor of a module's change.
    ///
    /// # Errors
    /// A pattern that is no regular expression.
    pub fn scale(&self, module: &str) -> Result<f64> {
        let rank = self.rank(module)? as f64;
        let alpha = pattern_value(&self.alpha_pattern, module)?.unwrap_or(self.lora_alpha);
        Ok(alpha / if self.use_rslora { rank.sqrt() } else { rank })
    }
}

/// Whether `name` is the module's path or its last parts.
fn ends_at(module: &str, name: &str) -> bool {
    module.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

fn regex(pattern: &str) -> Result<regex::Regex> {
    regex::Regex::new(pattern).map_err(|e| Error::Adapter {
        module: CONFIG.to_owned(),
        expected: "a regular expression".to_owned(),
        got: e.to_string(),
    })
}

fn matches(pattern: &str, module: &str) -> Result<bool> {
    Ok(regex(pattern)?.is_match(module))
}

/// The value of the first pattern that a module's path ends with.
fn pattern_value<T: Copy>(patterns: &BTreeMap<String, T>, module: &str) -> Result<Option<T>> {
    for (pattern, value) in patterns {
        if matches(&format!(r"^(?:.*\.)?(?:{pattern})$"), module)? {
            return Ok(Some(*value));
        }
    }
    Ok(None)
}

/// A module about to be adapted.
#[derive(Debug, Clone, Copy)]
pub struct Site<'a> {
    /// Its path.
    pub module: &'a str,
    /// Rows of A, columns of B.
    pub rank: usize,
    /// Columns of A.
    pub input: usize,
    /// Rows of B.
    pub output: usize,
}

/// An adapter at hand.
#[derive(Debug, Clone)]
pub struct Lora {
    config: LoraConfig,
    /// (`[rank, in]`, `[out, rank]`) by module path.
    pairs: BTreeMap<String, (Tensor, Tensor)>,
}

impl Lora {
    /// From matrices at hand: (A `[rank, in]`, B `[out, rank]`) by module path.
    ///
    /// # Errors
    /// A config that [`LoraConfig::check`] refuses, or a pair of another rank than the config's.
    pub fn new(config: LoraConfig, pairs: BTreeMap<String, (Tensor, Tensor)>) -> Result<Self> {
        config.check()?;
        for (module, (a, b)) in &pairs {
            let rank = config.rank(module)?;
            if a.rank() != 2 || b.rank() != 2 || a.dim(0)? != rank || b.dim(1)? != rank {
                return Err(Error::Adapter {
                    module: module.clone(),
                    expected: format!("lora_A of [{rank}, in] and lora_B of [out, {rank}]"),
                    got: format!("{:?} and {:?}", a.dims(), b.dims()),
                });
            }
        }
        Ok(Self { config, pairs })
    }

    /// Reads an adapter folder.
    ///
    /// # Errors
    /// A file that is missing or broken, a variant of LoRA that is not supported, half a pair.
    pub fn load(dir: &Path, dtype: DType, device: &Device) -> Result<Self> {
        folder(dir)?;
        let config: LoraConfig = read_json(&dir.join(CONFIG))?;
        config.check()?;
        let path = dir.join(WEIGHTS);
        std::fs::metadata(&path).map_err(|source| {
            let pickle = "not there; adapter_model.bin is a pickle, which is not read: save the adapter as safetensors";
            let is_pickle = dir.join("adapter_model.bin").is_file();
            let source = if is_pickle { std::io::Error::new(source.kind(), pickle) } else { source };
            Error::Io { path: path.clone(), source }
        })?;
        refuse_pointer(&path)?;
        let broken = |source| Error::Weights { path: path.clone(), source };
        let mut halves: BTreeMap<String, [Option<Tensor>; 2]> = BTreeMap::new();
        for (key, tensor) in candle_core::safetensors::load(&path, device).map_err(broken)? {
            let place = key.strip_prefix(PREFIX).and_then(|rest| {
                let module = rest.strip_suffix(".weight")?;
                let a = module.strip_suffix(".lora_A").map(|m| (m, 0));
                a.or_else(|| module.strip_suffix(".lora_B").map(|m| (m, 1)))
            });
            let Some((module, half)) = place else {
                return Err(Error::Adapter {
                    module: path.display().to_string(),
                    expected: format!("names like {PREFIX}MODULE.lora_A.weight"),
                    got: key,
                });
            };
            halves.entry(module.to_owned()).or_default()[half] = Some(tensor.to_dtype(dtype)?);
        }
        let mut pairs = BTreeMap::new();
        for (module, halves) in halves {
            match halves {
                [Some(a), Some(b)] => pairs.insert(module, (a, b)),
                [a, _] => {
                    let got = if a.is_some() { "lora_A alone" } else { "lora_B alone" };
                    let expected = "lora_A and lora_B".to_owned();
                    return Err(Error::Adapter { module, expected, got: got.to_owned() });
                }
            };
        }
        for module in pairs.keys() {
            match config.targets(module) {
                Ok(true) => {}
                Ok(false) => {
                    return Err(Error::Adapter {
                        module: module.clone(),
                        expected: "a target of adapter_config.json, since peft leaves other pairs out".to_owned(),
                        got: "a module that target_modules, exclude_modules or layers_to_transform leaves out"
                            .to_owned(),
                    });
                }
                // Not every pattern of Python's is one here; peft writes pairs of targets alone.
                Err(error) => tracing::warn!("{error}: the adapter's pairs are taken as its targets"),
            }
        }
        Self::new(config, pairs)
    }

    /// Writes an adapter folder that `peft` reads.
    ///
    /// # Errors
    /// A file that can't be written.
    pub fn save(&self, dir: &Path) -> Result<()> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Io { path, source }
        };
        std::fs::create_dir_all(dir).map_err(io(dir))?;
        let mut tensors = HashMap::new();
        for (module, (a, b)) in &self.pairs {
            for (part, tensor) in [("lora_A", a), ("lora_B", b)] {
                tensors.insert(format!("{PREFIX}{module}.{part}.weight"), tensor.contiguous()?);
            }
        }
        output::tensors(&tensors, None, &dir.join(WEIGHTS))?;
        let path = dir.join(CONFIG);
        let text =
            serde_json::to_string_pretty(&self.config).map_err(|source| Error::Json { path: path.clone(), source })?;
        output::replace(&path, |part| std::fs::write(part, text + "\n").map_err(io(&path)))
    }

    /// The config.
    pub fn config(&self) -> &LoraConfig {
        &self.config
    }

    /// Paths of the modules that it adapts.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.pairs.keys().map(String::as_str)
    }

    /// `scale * B A` in f32 for a module, `[out, in]`; nothing for a module that is not adapted.
    ///
    /// # Errors
    /// A change of another shape than `dims`.
    pub fn change(&self, module: &str, dims: &[usize]) -> Result<Option<Tensor>> {
        let Some((a, b)) = self.pairs.get(module) else { return Ok(None) };
        let change =
            Adapter { a: a.clone(), b: b.clone(), scale: self.config.scale(module)?, dropout: 0.0 }.change()?;
        if change.dims() != dims {
            return Err(Error::Adapter {
                module: module.to_owned(),
                expected: format!("a change of {dims:?}"),
                got: format!("{:?}", change.dims()),
            });
        }
        Ok(Some(change))
    }

    /// Puts the adapter into a model.
    ///
    /// # Errors
    /// A module that the model lacks or has in another shape.
    pub fn attach(&self, model: &mut Qwen3Vl) -> Result<()> {
        let mut left = self.pairs.clone();
        for linear in model.linears_mut() {
            if let Some((a, b)) = left.remove(linear.name()) {
                let scale = self.config.scale(linear.name())?;
                linear.adapt(Adapter { a, b, scale, dropout: self.config.lora_dropout })?;
            }
        }
        match left.into_keys().next() {
            None => Ok(()),
            Some(module) => Err(Error::Adapter {
                module,
                expected: "a linear layer of the model".to_owned(),
                got: "none".to_owned(),
            }),
        }
    }

    /// Puts a new, trainable adapter into a model: `make` gives A and B of a module. peft draws
    /// A from a uniform distribution of width 1/sqrt(in) about 0 and sets B to 0, so that the model begins as it was.
    ///
    /// # Errors
    /// A config that [`LoraConfig::check`] refuses or that targets no module.
    pub fn add(
        config: LoraConfig,
        model: &mut Qwen3Vl,
        make: &mut dyn FnMut(&Site<'_>) -> Result<(Tensor, Tensor)>,
    ) -> Result<Self> {
        config.check()?;
        let mut pairs = BTreeMap::new();
        for linear in model.linears_mut() {
            let module = linear.name().to_owned();
            if config.targets(&module)? {
                let (output, input) = linear.matrix().dims()?;
                let (a, b) = make(&Site { module: &module, rank: config.rank(&module)?, input, output })?;
                let (scale, dropout) = (config.scale(&module)?, config.lora_dropout);
                linear.adapt(Adapter { a: a.clone(), b: b.clone(), scale, dropout })?;
                pairs.insert(module, (a, b));
            }
        }
        if pairs.is_empty() {
            return Err(Error::Adapter {
                module: format!("{CONFIG}: target_modules"),
                expected: "at least one linear layer of the model".to_owned(),
                got: format!("{:?}", config.target_modules),
            });
        }
        Self::new(config, pairs)
    }
}

/// Adds every adapter of a model to the matrix beside it.
///
/// # Errors
/// A tensor operation's.
pub fn merge(model: &mut Qwen3Vl) -> Result<()> {
    model.linears_mut().into_iter().try_for_each(Linear::merge)
}
