//! The model under training: its variables, and what else a checkpoint folder holds.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use anyhow::{Context, Result, bail};
use candle_core::{DType, Device, Var};
use candle_nn::{VarBuilder, VarMap};
use model::lora::{Lora, LoraConfig, Targets};
use model::nn::Kernels;
use model::tokenizer::Tokenizer;
use model::{Config, EgoModel, Processor, Qwen3Vl, output};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use training_data::json::{read_json, write_json, write_whole};
use training_data::vocabulary;

mod shape;
mod start;

pub use shape::Shape;

/// Where heads beside the model lie: no part of the checkpoint, but later stages go on with them.
pub(crate) const HEADS: &str = "aux_heads.safetensors";
/// What the names of heads begin with.
pub const HEAD_PREFIX: &str = "aux.";

/// A LoRA adapter to train.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adapter {
    /// Rank.
    pub r: usize,
    /// Scale is alpha / r.
    pub alpha: f64,
    /// Share of each adapted layer's input that the adapter does not see in a step.
    #[serde(default)]
    pub dropout: f64,
    /// Ends of the paths of the modules that it sits beside, such as `q_proj`.
    pub targets: Vec<String>,
}

/// A model under training: its variables by the names of the checkpoint, or those of the adapter beside it.
pub struct Student {
    /// The network over `variables`.
    pub model: Qwen3Vl,
    /// What is trained, heads included; always f32.
    pub variables: VarMap,
    /// `tokenizer.json`.
    pub tokenizer_json: Value,
    /// The same, ready for use.
    pub tokenizer: Tokenizer,
    /// `preprocessor_config.json`.
    pub processor: Processor,
    /// What is trained in place of the model's own weights, where it is an adapter.
    pub adapter: Option<Lora>,
    /// Folder of the weights that the adapter is beside.
    pub base: Option<PathBuf>,
}

impl Student {
    /// A new model of `shape`, or the checkpoint `init`: all of it, or an adapter beside it.
    ///
    /// # Errors
    /// Neither shape nor checkpoint, an adapter without a checkpoint, a file that is missing or broken.
    pub fn open(
        init: Option<&Path>,
        shape: Option<&Shape>,
        adapter: Option<&Adapter>,
        seed: u64,
        device: &Device,
    ) -> Result<Self> {
        let student = match (init, adapter) {
            (Some(dir), Some(adapter)) => {
                let targets = Targets::Names(adapter.targets.clone());
                let config = LoraConfig::new(adapter.r, adapter.alpha, targets);
                Self::adapted(dir, LoraConfig { lora_dropout: adapter.dropout, ..config }, seed, device)?
            }
            (None, Some(_)) => bail!("lora: expected --init, the checkpoint that the adapter is for"),
            (Some(dir), None) => Self::load(dir, device)?,
            (None, None) => {
                let shape = shape.context("shape: expected a model's sizes, or --init with a model")?;
                Self::new(shape, seed)?.moved(device)?
            }
        };
        Ok(student)
    }

    /// A model with random weights that depend on `seed` alone.
    ///
    /// # Errors
    /// A shape that the architecture does not allow.
    pub fn new(shape: &Shape, seed: u64) -> Result<Self> {
        let corpus = shape::corpus();
        let tokenizer_json = vocabulary::build(corpus.iter().map(String::as_str));
        let inner = tokenizer_json.to_string().parse().map_err(|e| anyhow::anyhow!("tokenizer: {e}"))?;
        let tokenizer = Tokenizer::new(inner).map_err(anyhow::Error::msg)?;
        let size = tokenizer_json["model"]["vocab"].as_object().map_or(0, serde_json::Map::len);
        // Rows beyond the vocabulary keep the matrix a multiple of 64 wide; nothing ever points to them.
        let config = shape::config(shape, size.next_multiple_of(64), &tokenizer)?;
        config.check()?;
        let (model, variables) = blank(&config, &Device::Cpu)?;
        let student = Self {
            model,
            variables,
            processor: Processor::with_pixel_limits(shape.min_pixels, shape.max_pixels),
            tokenizer_json,
            tokenizer,
            adapter: None,
            base: None,
        };
        student.initialise(seed)?;
        Ok(student)
    }

    fn moved(self, device: &Device) -> Result<Self> {
        if device.is_cpu() {
            return Ok(self);
        }
        let (model, variables) = blank(self.model.config(), device)?;
        let values: HashMap<String, Var> = named(&self.variables).into_iter().collect();
        for (name, var) in named(&variables) {
            var.set(&values[&name].to_device(device)?)?;
        }
        Ok(Self { model, variables, ..self })
    }

    /// Loads a checkpoint folder for further training, in f32.
    ///
    /// # Errors
    /// A file that is missing or broken.
    pub fn load(dir: &Path, device: &Device) -> Result<Self> {
        let config = Config::from_dir(dir)?;
        let (model, variables) = blank(&config, device)?;
        let source = model::weights::builder(dir, DType::F32, device)?;
        for (name, var) in named(&variables) {
            let tensor = source.get(var.dims(), &name).with_context(|| format!("{}: {name}", dir.display()))?;
            var.set(&tensor)?;
        }
        Self::with_files(dir, &config, model, variables, None)
    }

    /// Loads a checkpoint folder, safetensors or GGUF, whose weights stay as they are (f32 on a CPU, bf16 on a GPU), with
    /// a new adapter in f32 beside them: A uniform within 1/sqrt(in), B zero, as peft begins.
    ///
    /// # Errors
    /// A file that is missing or broken, an adapter without a module to sit beside.
    pub fn adapted(dir: &Path, lora: LoraConfig, seed: u64, device: &Device) -> Result<Self> {
        let dtype = if device.is_cpu() { DType::F32 } else { DType::BF16 };
        let (config, loader) = model::weights::open(dir, dtype, device)?;
        let mut model = Qwen3Vl::new(&config, Kernels::Differentiable, loader)?;
        let variables = VarMap::new();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let adapter = Lora::add(lora, &mut model, &mut |site| {
            let bound = 1.0 / (site.input as f32).sqrt();
            let draws = (0..site.rank * site.input).map(|_| (rng.random::<f32>() * 2.0 - 1.0) * bound).collect();
            let a = Var::from_vec(draws, (site.rank, site.input), device)?;
            let b = Var::zeros((site.output, site.rank), DType::F32, device)?;
            let mut all = variables.data().lock().unwrap_or_else(PoisonError::into_inner);
            for (half, var) in [("lora_A", &a), ("lora_B", &b)] {
                all.insert(format!("{}.{half}", site.module), var.clone());
            }
            Ok((a.into_inner(), b.into_inner()))
        })?;
        Self::with_files(dir, &config, model, variables, Some(adapter))
    }

    fn with_files(
        dir: &Path,
        config: &Config,
        model: Qwen3Vl,
        variables: VarMap,
        adapter: Option<Lora>,
    ) -> Result<Self> {
        Ok(Self {
            model,
            variables,
            tokenizer_json: read_json(&dir.join("tokenizer.json"))?,
            tokenizer: Tokenizer::from_dir(dir, config)?,
            processor: Processor::from_dir(dir, &config.vision_config)?,
            base: adapter.is_some().then(|| dir.to_owned()),
            adapter,
        })
    }

    /// Where the model lies.
    pub fn device(&self) -> &Device {
        self.model.device()
    }

    /// Builder of heads beside the model: f32, trained and checkpointed with it, no part of what is deployed.
    pub fn heads(&self) -> VarBuilder<'_> {
        VarBuilder::from_varmap(&self.variables, DType::F32, self.device()).pp(HEAD_PREFIX.trim_end_matches('.'))
    }

    /// Sets the heads to those that an earlier stage left in `dir`; others stay as they are.
    ///
    /// # Errors
    /// A file that is broken, or a head of another shape.
    pub fn load_heads(&self, dir: &Path) -> Result<()> {
        let path = dir.join(HEADS);
        if !path.is_file() {
            return Ok(());
        }
        let stored =
            candle_core::safetensors::load(&path, self.device()).with_context(|| path.display().to_string())?;
        for (name, var) in named(&self.variables) {
            if let Some(tensor) = stored.get(&name) {
                var.set(tensor).with_context(|| format!("{}: {name}", path.display()))?;
            }
        }
        Ok(())
    }

    /// The model as it is now, for answering: the same variables without a graph over them.
    ///
    /// # Errors
    /// A tensor operation's.
    pub fn policy(&self) -> Result<EgoModel> {
        let model = self.model.for_inference();
        Ok(EgoModel::new(model, self.tokenizer.clone(), self.processor.clone(), self.device())?)
    }

    /// A model that does not move: the adapter switched off, or a copy of all weights where there is none.
    ///
    /// # Errors
    /// A tensor operation's.
    pub fn reference(&self) -> Result<Qwen3Vl> {
        if self.adapter.is_some() {
            let mut model = self.model.for_inference();
            model.linears_mut().into_iter().for_each(model::nn::Linear::unadapt);
            return Ok(model);
        }
        let copy = |(name, var): (String, Var)| Ok((name, var.as_tensor().copy()?.detach()));
        let tensors = named(&self.variables).into_iter().map(copy).collect::<Result<HashMap<_, _>>>()?;
        let vb = VarBuilder::from_tensors(tensors, DType::F32, self.device());
        Ok(Qwen3Vl::new(self.model.config(), Kernels::Fused, vb)?)
    }

    /// Writes a checkpoint folder in f16, or the adapter where one is trained; the heads beside it in f32.
    ///
    /// # Errors
    /// A file that can't be written.
    pub fn save(&self, dir: &Path) -> Result<()> {
        std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        let (mut tensors, mut heads) = (HashMap::new(), HashMap::new());
        for (name, var) in named(&self.variables) {
            if name.starts_with(HEAD_PREFIX) {
                heads.insert(name, var.as_tensor().clone());
            } else if self.adapter.is_none() {
                tensors.insert(name, var.to_dtype(DType::F16)?);
            }
        }
        if let Some(adapter) = &self.adapter {
            adapter.save(dir)?;
        }
        for (tensors, file) in [(&tensors, "model.safetensors"), (&heads, HEADS)] {
            if tensors.is_empty() {
                continue;
            }
            output::tensors(tensors, None, &dir.join(file))?;
        }
        if self.adapter.is_some() {
            return Ok(());
        }
        write_json(&dir.join("config.json"), &serde_json::to_value(self.model.config())?)?;
        write_json(&dir.join("preprocessor_config.json"), &serde_json::to_value(&self.processor)?)?;
        let path = dir.join("tokenizer.json");
        write_whole(&path, serde_json::to_string(&self.tokenizer_json)?.as_bytes())
    }
}

/// A trainable model with values yet to be set.
fn blank(config: &Config, device: &Device) -> Result<(Qwen3Vl, VarMap)> {
    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, DType::F32, device);
    let model = Qwen3Vl::new(config, Kernels::Differentiable, vb)?;
    Ok((model, variables))
}

/// Variables by name, in the order of their names.
pub fn named(variables: &VarMap) -> Vec<(String, Var)> {
    let data = variables.data().lock().unwrap_or_else(PoisonError::into_inner);
    let mut all: Vec<(String, Var)> = data.iter().map(|(n, v)| (n.clone(), v.clone())).collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

/// How many numbers the variables hold, heads left out.
pub fn parameters(variables: &VarMap) -> usize {
    named(variables).iter().filter(|(n, _)| !n.starts_with(HEAD_PREFIX)).map(|(_, v)| v.elem_count()).sum()
}
