//! Writes a checkpoint folder as a pair of GGUF files under llama.cpp's names.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use candle_core::Tensor;
use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};

use super::names::{Part, stored};
use super::vocabulary;
use crate::qwen3_vl::config::Config;
use crate::qwen3_vl::processor::Processor;
use crate::weights::digest::KEY;
use crate::weights::{Merged, parameters};
use crate::{Error, Result, output};

/// Which type each tensor gets. Norms, biases and positions are f32 in all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recipe {
    /// All matrices f32.
    F32,
    /// All matrices f16.
    F16,
    /// All matrices `Q8_0`.
    Q8_0,
    /// All matrices `Q6_K`; those of the vision tower `Q8_0`.
    Q6K,
    /// `Q5_K`, with `Q6_K` where llama.cpp's mixture of that name has it; the vision tower `Q8_0`.
    Q5KM,
    /// `Q4_K`, with `Q6_K` where llama.cpp's mixture of that name has it; the vision tower `Q8_0`.
    Q4KM,
}

impl std::str::FromStr for Recipe {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "f32" => Ok(Self::F32),
            "f16" => Ok(Self::F16),
            "q8_0" => Ok(Self::Q8_0),
            "q6_k" => Ok(Self::Q6K),
            "q5_k" | "q5_k_m" => Ok(Self::Q5KM),
            "q4_k" | "q4_k_m" => Ok(Self::Q4KM),
            other => Err(format!("expected f32, f16, q8_0, q6_k, q5_k, q5_k_m, q4_k or q4_k_m, got {other}")),
        }
    }
}

impl std::fmt::Display for Recipe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Q8_0 => "q8_0",
            Self::Q6K => "q6_k",
            Self::Q5KM => "q5_k_m",
            Self::Q4KM => "q4_k_m",
        })
    }
}

impl Recipe {
    /// llama.cpp's number of the mixture (`general.file_type`).
    fn file_type(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q8_0 => 7,
            Self::Q4KM => 15,
            Self::Q5KM => 17,
            Self::Q6K => 18,
        }
    }

    /// Type of a tensor under its stored name, shape `dims`.
    pub fn type_of(self, name: &str, dims: &[usize], config: &Config) -> GgmlDType {
        let vision = name.starts_with("v.") || name.starts_with("mm.");
        let matrix = dims.len() == 2 && !name.contains("position_embd");
        if !matrix {
            // llama.cpp's convolution reads patch filters as f16.
            let filter = dims.len() > 2 && self != Self::F32;
            return if filter { GgmlDType::F16 } else { GgmlDType::F32 };
        }
        let wanted = match self {
            Self::F32 => return GgmlDType::F32,
            Self::F16 => return GgmlDType::F16,
            Self::Q8_0 => GgmlDType::Q8_0,
            _ if vision => GgmlDType::Q8_0,
            Self::Q6K => GgmlDType::Q6K,
            Self::Q5KM if more_bits(name, config) => GgmlDType::Q6K,
            Self::Q5KM => GgmlDType::Q5K,
            Self::Q4KM if more_bits(name, config) => GgmlDType::Q6K,
            Self::Q4KM => GgmlDType::Q4K,
        };
        // A row that is not whole blocks takes the next type with smaller ones, as llama.cpp does.
        let row = dims.last().copied().unwrap_or(0);
        let smaller = match wanted {
            GgmlDType::Q4K => GgmlDType::Q5_0,
            GgmlDType::Q5K => GgmlDType::Q5_1,
            _ => GgmlDType::Q8_0,
        };
        let fits = |kind: &GgmlDType| row.is_multiple_of(kind.block_size());
        [wanted, smaller].into_iter().find(fits).unwrap_or(GgmlDType::F16)
    }
}

/// Where the mixtures spend more: the output matrix, and values and `ffn_down` in the first and last eighth of the
/// layers and every third between.
fn more_bits(name: &str, config: &Config) -> bool {
    if name == "output.weight" {
        return true;
    }
    if name == "token_embd.weight" {
        return config.tie_word_embeddings;
    }
    let Some((number, part)) = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) else { return false };
    let (Ok(layer), depth) = (number.parse::<usize>(), config.text_config.num_hidden_layers) else { return false };
    let eighth = depth / 8;
    let here = layer < eighth || layer >= 7 * depth / 8 || (layer - eighth) % 3 == 2;
    here && matches!(part, "attn_v.weight" | "ffn_down.weight")
}

/// Writes `out/model.gguf`, `out/mmproj.gguf` and the folder's JSON files, from the safetensors of `dir` with the
/// adapter of a folder merged into them where one is given. Returns the bytes of the two files.
///
/// # Errors
/// A checkpoint that is missing or broken, an adapter that does not fit it, a file that can't be written.
pub fn export(dir: &Path, adapter: Option<&Path>, recipe: Recipe, out: &Path) -> Result<(u64, u64)> {
    let config = Config::from_dir(dir)?;
    let processor = Processor::from_dir(dir, &config.vision_config)?;
    let tensors = Merged::open(dir, adapter)?;
    tensors.check(&config)?;
    std::fs::create_dir_all(out).map_err(|source| Error::Io { path: out.to_owned(), source })?;
    let vocabulary = vocabulary::written(dir, config.text_config.vocab_size)?;
    let header = Header { config: &config, processor: &processor, vocabulary, identity: Some(tensors.identity()) };
    let sizes = write(header, recipe, out, &mut |name, _| tensors.load(name))?;
    crate::weights::merged::copy_json(dir, out)?;
    Ok(sizes)
}

/// What the two files say of the model beside its tensors.
#[derive(Debug)]
pub struct Header<'a> {
    /// Shapes and token ids.
    pub config: &'a Config,
    /// Mean and deviation of pixels.
    pub processor: &'a Processor,
    /// Metadata of the vocabulary; where it is empty the file says that it has none.
    pub vocabulary: Vec<(String, Value)>,
    /// That of the weights that the tensors are of, where they are of any.
    pub identity: Option<&'a str>,
}

/// Writes the two files with tensors from `tensor`, which is asked for each by its checkpoint name and shape.
///
/// # Errors
/// `tensor`'s, and a file that can't be written.
pub fn write(
    Header { config, processor, vocabulary, identity }: Header<'_>,
    recipe: Recipe,
    out: &Path,
    tensor: &mut dyn FnMut(&str, &[usize]) -> Result<Tensor>,
) -> Result<(u64, u64)> {
    let mut parts: BTreeMap<Part, Vec<(String, QTensor)>> = BTreeMap::new();
    for (name, dims) in parameters(config) {
        let (part, place) = stored(&name, config).ok_or_else(|| Error::Gguf {
            path: out.to_owned(),
            message: format!("{name} has no name in a GGUF file"),
        })?;
        let list = parts.entry(part).or_default();
        let mut push = |name: String, tensor: &Tensor| -> Result<()> {
            let kind = recipe.type_of(&name, tensor.dims(), config);
            list.push((name, QTensor::quantize(tensor, kind)?));
            Ok(())
        };
        let tensor = tensor(&name, &dims)?;
        if place == "v.patch_embd.weight" {
            push(place.clone(), &tensor.narrow(2, 0, 1)?.squeeze(2)?.contiguous()?)?;
            push(format!("{place}.1"), &tensor.narrow(2, 1, 1)?.squeeze(2)?.contiguous()?)?;
        } else {
            push(place, &tensor)?;
        }
    }
    let mut text = text_metadata(config, recipe);
    let none = || vec![("tokenizer.ggml.model".to_owned(), Value::String("none".to_owned()))];
    text.extend(if vocabulary.is_empty() { none() } else { vocabulary });
    let mut vision = vision_metadata(config, recipe, processor);
    for metadata in [&mut text, &mut vision] {
        metadata.extend(identity.map(|identity| (KEY.to_owned(), Value::String(identity.to_owned()))));
    }
    let mut sizes = [0; 2];
    for (slot, (part, file, metadata)) in
        [(Part::Text, "model.gguf", text), (Part::Vision, "mmproj.gguf", vision)].into_iter().enumerate()
    {
        let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(k, v)| (k.as_str(), v)).collect();
        let tensors = parts.remove(&part).unwrap_or_default();
        let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(n, t)| (n.as_str(), t)).collect();
        let path = out.join(file);
        let io = |source| Error::Io { path: path.clone(), source };
        output::replace(&path, |part| {
            let mut writer = BufWriter::new(File::create(part).map_err(io)?);
            let weights = |source| Error::Weights { path: path.clone(), source };
            gguf_file::write(&mut writer, &metadata, &tensors).map_err(weights)?;
            let file = writer.into_inner().map_err(|e| io(e.into_error()))?;
            sizes[slot] = file.metadata().map_err(io)?.len();
            Ok(())
        })?;
    }
    Ok((sizes[0], sizes[1]))
}

/// Bytes of the two files' tensors, without writing them.
pub fn bytes(config: &Config, recipe: Recipe) -> (u64, u64) {
    let (mut text, mut vision) = (0, 0);
    for (name, dims) in parameters(config) {
        let Some((part, place)) = stored(&name, config) else { continue };
        let filter = place == "v.patch_embd.weight";
        let kind = recipe.type_of(&place, if filter { &dims[1..] } else { &dims }, config);
        let size = (dims.iter().product::<usize>() / kind.block_size() * kind.type_size()) as u64;
        match part {
            Part::Text => text += size,
            Part::Vision => vision += size,
        }
    }
    (text, vision)
}

fn text_metadata(config: &Config, recipe: Recipe) -> Vec<(String, Value)> {
    let c = &config.text_config;
    let section = c.rope().map(|r| r.mrope_section).unwrap_or_default();
    let mut all: Vec<(String, Value)> = vec![
        ("general.architecture".into(), Value::String("qwen3vl".into())),
        ("general.type".into(), Value::String("model".into())),
        ("general.file_type".into(), Value::U32(recipe.file_type())),
        ("general.quantization_version".into(), Value::U32(2)),
    ];
    let whole = |key: &str, value: usize| (format!("qwen3vl.{key}"), Value::U32(value as u32));
    all.extend([
        whole("block_count", c.num_hidden_layers),
        whole("context_length", c.max_position_embeddings),
        whole("embedding_length", c.hidden_size),
        whole("feed_forward_length", c.intermediate_size),
        whole("attention.head_count", c.num_attention_heads),
        whole("attention.head_count_kv", c.num_key_value_heads),
        whole("attention.key_length", c.head_dim),
        whole("attention.value_length", c.head_dim),
        whole("vocab_size", c.vocab_size),
        whole("n_deepstack_layers", config.vision_config.deepstack_visual_indexes.len()),
        ("qwen3vl.attention.layer_norm_rms_epsilon".into(), Value::F32(c.rms_norm_eps as f32)),
        ("qwen3vl.rope.freq_base".into(), Value::F32(c.theta().unwrap_or_default() as f32)),
        (
            "qwen3vl.rope.dimension_sections".into(),
            Value::Array(section.iter().map(|s| Value::I32(*s as i32)).chain([Value::I32(0)]).collect()),
        ),
    ]);
    all
}

fn vision_metadata(config: &Config, recipe: Recipe, processor: &Processor) -> Vec<(String, Value)> {
    let c = &config.vision_config;
    let whole = |key: &str, value: usize| (format!("clip.vision.{key}"), Value::U32(value as u32));
    let numbers = |v: [f32; 3]| Value::Array(v.iter().map(|v| Value::F32(*v)).collect());
    let flags = (0..c.depth).map(|i| Value::Bool(c.deepstack_visual_indexes.contains(&i))).collect();
    vec![
        ("general.architecture".into(), Value::String("clip".into())),
        ("general.type".into(), Value::String("mmproj".into())),
        ("general.file_type".into(), Value::U32(recipe.file_type())),
        ("general.quantization_version".into(), Value::U32(2)),
        ("clip.has_vision_encoder".into(), Value::Bool(true)),
        ("clip.projector_type".into(), Value::String("qwen3vl_merger".into())),
        ("clip.use_gelu".into(), Value::Bool(true)),
        whole("image_size", c.position_side() * c.patch_size),
        whole("patch_size", c.patch_size),
        whole("embedding_length", c.hidden_size),
        whole("feed_forward_length", c.intermediate_size),
        whole("projection_dim", c.out_hidden_size),
        whole("block_count", c.depth),
        whole("attention.head_count", c.num_heads),
        whole("spatial_merge_size", c.spatial_merge_size),
        ("clip.vision.attention.layer_norm_epsilon".into(), Value::F32(crate::qwen3_vl::config::LAYER_NORM_EPS)),
        ("clip.vision.image_mean".into(), numbers(processor.image_mean)),
        ("clip.vision.image_std".into(), numbers(processor.image_std)),
        ("clip.vision.is_deepstack_layers".into(), Value::Array(flags)),
    ]
}
