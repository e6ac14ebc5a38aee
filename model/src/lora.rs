//! LoRA adapters in the layout of `peft`: `adapter_config.json` and `adapter_model.safetensors`.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::json::read_json;
use crate::nn::{Adapter, Linear};
use crate::qwen3_vl::Qwen3Vl;
use crate::{Error, Result};

pub(crate) const CONFIG: &str = "adapter_config.json";
pub(crate) const WEIGHTS: &str = "adapter_model.safetensors";
/// What peft puts before the path of every module.
const PREFIX: &str = "base_model.model.";

/// Modules to adapt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Targets {
    /// Ends of module paths, such as `q_proj`.
    Names(Vec<String>),
    /// A regular expression for whole module paths, or `all-linear`.
    Pattern(String),
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
        if !(0.0..1.0).contains(&self.lora_dropout) {
            return fail("lora_dropout", "a share of [0, 1)", self.lora_dropout.to_string());
        }
        // Variants whose weights mean something else.
        for key in ["use_dora", "use_qalora", "fan_in_fan_out", "lora_bias"] {
            if self.other.get(key).is_some_and(|v| v == &serde_json::Value::Bool(true)) {
                return fail(key, "false", "true".to_owned());
            }
        }
        for key in ["modules_to_save", "layer_replication", "target_parameters", "trainable_token_indices"] {
            let set =
                |v: &serde_json::Value| !v.is_null() && v != &serde_json::json!([]) && v != &serde_json::json!({});
            if let Some(value) = self.other.get(key).filter(|v| set(v)) {
                return fail(key, "nothing", value.to_string());
            }
        }
        Ok(())
    }

    /// Whether a module is to be adapted.
    ///
    /// # Errors
    /// A pattern that is no regular expression.
    pub fn targets(&self, module: &str) -> Result<bool> {
        match &self.target_modules {
            Targets::Pattern(all) if all == "all-linear" => Ok(module != "lm_head"),
            Targets::Pattern(pattern) => matches(&format!("^(?:{pattern})$"), module),
            Targets::Names(names) => Ok(names.iter().any(|n| ends_at(module, n))),
        }
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

fn matches(pattern: &str, module: &str) -> Result<bool> {
    let regex = regex::Regex::new(pattern).map_err(|e| Error::Adapter {
        module: CONFIG.to_owned(),
        expected: "a regular expression".to_owned(),
        got: e.to_string(),
    })?;
    Ok(regex.is_match(module))
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
        let config: LoraConfig = read_json(&dir.join(CONFIG))?;
        let path = dir.join(WEIGHTS);
        std::fs::metadata(&path).map_err(|source| Error::Io { path: path.clone(), source })?;
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
        let (part, whole) = (dir.join(format!("{WEIGHTS}.part")), dir.join(WEIGHTS));
        candle_core::safetensors::save(&tensors, &part)
            .map_err(|source| Error::Weights { path: whole.clone(), source })?;
        std::fs::rename(&part, &whole).map_err(io(&whole))?;
        let path = dir.join(CONFIG);
        let text =
            serde_json::to_string_pretty(&self.config).map_err(|source| Error::Json { path: path.clone(), source })?;
        std::fs::write(&path, text + "\n").map_err(io(&path))
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
