//! The shape of `nano`, and a checkpoint folder of it before training.

mod start;

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result};
use candle_core::{DType, Device, Var};
use candle_nn::{VarBuilder, VarMap};
use model::config::{Config, Rope, TextConfig, VisionConfig};
use model::lora::{Lora, LoraConfig};
use model::nn::Kernels;
use model::tokenizer::{IM_END, IM_START, IMAGE_PAD, Tokenizer, VIDEO_PAD, VISION_END, VISION_START};
use model::{Processor, Qwen3Vl};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{prose, vocabulary};

/// Sizes of a small model of the Qwen3-VL architecture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// Width of the decoder.
    pub hidden_size: usize,
    /// Layers of the decoder.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of the decoder's MLP.
    pub intermediate_size: usize,
    /// Width of the vision tower.
    pub vision_hidden_size: usize,
    /// Blocks of the vision tower.
    pub vision_depth: usize,
    /// Heads of the vision tower.
    pub vision_heads: usize,
    /// Width of the vision tower's MLP.
    pub vision_intermediate_size: usize,
    /// Blocks whose output is added to the decoder's first layers.
    pub deepstack: Vec<usize>,
    /// Fewest pixels of a frame after resizing.
    pub min_pixels: u64,
    /// Most pixels of a frame after resizing.
    pub max_pixels: u64,
}

/// Where the auxiliary heads lie: no part of the checkpoint, but the next stage goes on with them.
const HEADS: &str = "aux_heads.safetensors";

/// Side of the learned position grid.
const POSITION_SIDE: usize = 12;

/// A model under training: its variables by the names of the checkpoint, or those of the adapter beside it.
pub struct Fresh {
    /// The network over `variables`.
    pub model: Qwen3Vl,
    /// The variables.
    pub variables: VarMap,
    /// `tokenizer.json`.
    pub tokenizer_json: Value,
    /// The same, ready for use.
    pub tokenizer: Tokenizer,
    /// `preprocessor_config.json`.
    pub processor: Processor,
    /// What is trained in place of the model's own weights, where it is an adapter.
    pub adapter: Option<Lora>,
}

/// The model's config for a vocabulary of `vocab_size` tokens.
fn config(shape: &Shape, vocab_size: usize, tokenizer: &Tokenizer) -> Result<Config> {
    let head_dim = shape.hidden_size / shape.heads;
    let third = head_dim / 6;
    let id = |token: &str| tokenizer.id(token).with_context(|| format!("no token {token}"));
    Ok(Config {
        architectures: vec!["Qwen3VLForConditionalGeneration".to_owned()],
        model_type: "qwen3_vl".to_owned(),
        text_config: TextConfig {
            hidden_size: shape.hidden_size,
            intermediate_size: shape.intermediate_size,
            num_hidden_layers: shape.layers,
            num_attention_heads: shape.heads,
            num_key_value_heads: shape.kv_heads,
            head_dim,
            vocab_size,
            rms_norm_eps: 1e-6,
            max_position_embeddings: 4096,
            // Windows are a few hundred tokens: slow frequencies would be wasted.
            rope_theta: Some(100.0),
            rope_scaling: Some(Rope {
                mrope_section: [head_dim / 2 - 2 * third, third, third],
                rope_theta: None,
                mrope_interleaved: true,
                rope_type: "default".to_owned(),
            }),
            rope_parameters: None,
        },
        vision_config: VisionConfig {
            depth: shape.vision_depth,
            hidden_size: shape.vision_hidden_size,
            intermediate_size: shape.vision_intermediate_size,
            num_heads: shape.vision_heads,
            in_channels: 3,
            patch_size: 16,
            spatial_merge_size: 2,
            temporal_patch_size: 2,
            out_hidden_size: shape.hidden_size,
            num_position_embeddings: POSITION_SIDE * POSITION_SIDE,
            deepstack_visual_indexes: shape.deepstack.clone(),
        },
        image_token_id: id(IMAGE_PAD)?,
        video_token_id: id(VIDEO_PAD)?,
        vision_start_token_id: id(VISION_START)?,
        vision_end_token_id: id(VISION_END)?,
        tie_word_embeddings: true,
    })
}

/// Words that nano's vocabulary must hold beside the numbers: those of the prompt and of the chain.
fn corpus() -> Vec<String> {
    let mut corpus = prose::corpus();
    corpus.extend(
        [
            "user\nfx fy cx cy size\n",
            " fx fy cx cy size",
            "Frame : ",
            "\nReason in five steps, then give the poses of the five frames.",
            "Give the poses of the five frames.",
            "assistant\n",
            " R t | p",
            IM_START,
            IM_END,
        ]
        .map(str::to_owned),
    );
    corpus
}

impl Fresh {
    /// A model with random weights that depend on `seed` alone.
    ///
    /// # Errors
    /// A shape that the architecture does not allow.
    pub fn new(shape: &Shape, seed: u64) -> Result<Self> {
        let corpus = corpus();
        let tokenizer_json = vocabulary::build(corpus.iter().map(String::as_str));
        let inner = tokenizer_json.to_string().parse().map_err(|e| anyhow::anyhow!("tokenizer: {e}"))?;
        let tokenizer = Tokenizer::new(inner).map_err(anyhow::Error::msg)?;
        let size = tokenizer_json["model"]["vocab"].as_object().map_or(0, serde_json::Map::len);
        // Rows beyond the vocabulary keep the matrix a multiple of 64 wide; nothing ever points to them.
        let config = config(shape, size.next_multiple_of(64), &tokenizer)?;
        config.check()?;
        let variables = VarMap::new();
        let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
        let model = Qwen3Vl::new(&config, Kernels::Differentiable, vb)?;
        let fresh = Self {
            model,
            variables,
            processor: Processor::with_pixel_limits(shape.min_pixels, shape.max_pixels),
            tokenizer_json,
            tokenizer,
            adapter: None,
        };
        fresh.initialise(seed)?;
        Ok(fresh)
    }

    /// Loads a checkpoint folder for further training.
    ///
    /// # Errors
    /// A file that is missing or broken.
    pub fn load(dir: &Path) -> Result<Self> {
        let config = Config::from_dir(dir)?;
        let variables = VarMap::new();
        let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
        let model = Qwen3Vl::new(&config, Kernels::Differentiable, vb)?;
        let source = model::weights::builder(dir, DType::F32, &Device::Cpu)?;
        for (name, var) in named(&variables) {
            let tensor = source.get(var.dims(), &name).with_context(|| format!("{}: {name}", dir.display()))?;
            var.set(&tensor)?;
        }
        Ok(Self {
            model,
            variables,
            tokenizer_json: read_json(&dir.join("tokenizer.json"))?,
            tokenizer: Tokenizer::from_dir(dir, &config)?,
            processor: Processor::from_dir(dir, &config.vision_config)?,
            adapter: None,
        })
    }

    /// Loads a checkpoint folder, safetensors or GGUF, whose weights stay as they are, with a new adapter beside them:
    /// A uniform within 1/sqrt(in), B zero, as peft begins.
    ///
    /// # Errors
    /// A file that is missing or broken, an adapter without a module to sit beside.
    pub fn adapted(dir: &Path, lora: LoraConfig, seed: u64) -> Result<Self> {
        let (config, loader) = model::weights::open(dir, DType::F32, &Device::Cpu)?;
        let mut model = Qwen3Vl::new(&config, Kernels::Differentiable, loader)?;
        let variables = VarMap::new();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let adapter = Lora::add(lora, &mut model, &mut |site| {
            let bound = 1.0 / (site.input as f32).sqrt();
            let draws = (0..site.rank * site.input).map(|_| (rng.random::<f32>() * 2.0 - 1.0) * bound).collect();
            let a = Var::from_vec(draws, (site.rank, site.input), &Device::Cpu)?;
            let b = Var::zeros((site.output, site.rank), DType::F32, &Device::Cpu)?;
            let mut all = variables.data().lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            for (half, var) in [("lora_A", &a), ("lora_B", &b)] {
                all.insert(format!("{}.{half}", site.module), var.clone());
            }
            Ok((a.into_inner(), b.into_inner()))
        })?;
        Ok(Self {
            model,
            variables,
            tokenizer_json: read_json(&dir.join("tokenizer.json"))?,
            tokenizer: Tokenizer::from_dir(dir, &config)?,
            processor: Processor::from_dir(dir, &config.vision_config)?,
            adapter: Some(adapter),
        })
    }

    /// Sets the auxiliary heads to those that an earlier stage left in `dir`; others stay as they are.
    ///
    /// # Errors
    /// A file that is broken, or a head of another shape.
    pub fn load_heads(&self, dir: &Path) -> Result<()> {
        let path = dir.join(HEADS);
        if !path.is_file() {
            return Ok(());
        }
        let stored = candle_core::safetensors::load(&path, &Device::Cpu).with_context(|| path.display().to_string())?;
        for (name, var) in named(&self.variables) {
            if let Some(tensor) = stored.get(&name) {
                var.set(tensor).with_context(|| format!("{}: {name}", path.display()))?;
            }
        }
        Ok(())
    }

    /// Writes a checkpoint folder in f16, or the adapter where one is trained; the auxiliary heads beside it in f32.
    ///
    /// # Errors
    /// A file that can't be written.
    pub fn save(&self, dir: &Path) -> Result<()> {
        std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        let (mut tensors, mut heads) = (HashMap::new(), HashMap::new());
        for (name, var) in named(&self.variables) {
            if name.starts_with("aux.") {
                heads.insert(name, var.as_tensor().clone());
            } else {
                tensors.insert(name, var.to_dtype(DType::F16)?);
            }
        }
        if let Some(adapter) = &self.adapter {
            adapter.save(dir)?;
            tensors.clear();
        }
        // A reader never sees half a file: weights take their place by renaming.
        for (tensors, file) in [(&tensors, "model.safetensors"), (&heads, HEADS)] {
            if tensors.is_empty() {
                continue;
            }
            let (part, whole) = (dir.join(format!("{file}.part")), dir.join(file));
            candle_core::safetensors::save(tensors, &part)?;
            std::fs::rename(&part, &whole).with_context(|| whole.display().to_string())?;
        }
        if self.adapter.is_some() {
            return Ok(());
        }
        write_json(&dir.join("config.json"), &serde_json::to_value(self.model.config())?)?;
        write_json(&dir.join("preprocessor_config.json"), &serde_json::to_value(&self.processor)?)?;
        let path = dir.join("tokenizer.json");
        std::fs::write(&path, serde_json::to_string(&self.tokenizer_json)?).with_context(|| path.display().to_string())
    }
}

/// Variables by name, in the order of their names.
pub fn named(variables: &VarMap) -> Vec<(String, Var)> {
    let data = variables.data().lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut all: Vec<(String, Var)> = data.iter().map(|(n, v)| (n.clone(), v.clone())).collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

/// A JSON file, with its name in the error.
pub fn read_json(path: &Path) -> Result<Value> {
    let text = std::fs::read(path).with_context(|| path.display().to_string())?;
    serde_json::from_slice(&text).with_context(|| path.display().to_string())
}

/// Pretty JSON with a newline at its end.
pub fn write_json(path: &Path, value: &Value) -> Result<()> {
    std::fs::write(path, format!("{value:#}\n")).with_context(|| path.display().to_string())
}
