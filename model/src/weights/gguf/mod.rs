//! GGUF as llama.cpp reads and writes it for Qwen3-VL: one file for the decoder (architecture `qwen3vl`), one for the
//! vision tower (`clip` with the projector `qwen3vl_merger`, usually called mmproj).

mod export;
mod header;
mod keys;
mod mapped;
mod names;
mod vocabulary;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Cursor;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::quantized::gguf_file::{Content, Value};
use candle_core::quantized::{GgmlDType, QStorage, QTensor, QuantizedType, k_quants};
use candle_core::{DType, Device, Shape, Tensor};
use memmap2::Mmap;

use crate::foreign::{folder, refuse_pointer};
use crate::nn::Quantized;
use crate::qwen3_vl::config::{Config, LAYER_NORM_EPS, Rope, TextConfig, VisionConfig};
use crate::qwen3_vl::processor::Processor;
use crate::weights::digest::{KEY, digest, united};
use crate::weights::mapping::forget;
use crate::weights::parameters::parameters;
use crate::{Error, Result};
pub use export::{Header, Recipe, bytes, export, write};
use mapped::Mapped;
pub use names::{Part, stored};

/// Pixel limits of the published preprocessor_config.json.
const PIXELS: (u64, u64) = (65_536, 16_777_216);

/// Longest header that is read; that of a published model, with its vocabulary, is a fifth of it.
const HEADER: usize = 32 << 20;

/// One file, mapped.
pub struct Gguf {
    path: PathBuf,
    map: Arc<Mmap>,
    content: Content,
}

impl std::fmt::Debug for Gguf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gguf").field("path", &self.path).field("tensors", &self.content.tensor_infos.len()).finish()
    }
}

impl Gguf {
    /// Maps a file and reads its header.
    ///
    /// # Errors
    /// A file that is missing or whose header is broken.
    pub fn open(path: &Path) -> Result<Self> {
        refuse_pointer(path)?;
        let io = |source| Error::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(io)?;
        // SAFETY: read-only; see `weights::safetensors`.
        #[expect(unsafe_code, reason = "memory maps are unsafe by their nature")]
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        let header = &map[..map.len().min(HEADER)];
        if unaligned(header) {
            return Err(Error::Gguf { path: path.to_owned(), message: "general.alignment is 0".to_owned() });
        }
        if header::has_too_many_values(header) {
            let message = format!("its lists have more than {} values, which no model's have", header::VALUES);
            return Err(Error::Gguf { path: path.to_owned(), message });
        }
        let content = Content::read(&mut Cursor::new(header))
            .map_err(|e| Error::Gguf { path: path.to_owned(), message: keys::type_named(&e.to_string()) })?;
        Ok(Self { path: path.to_owned(), map: Arc::new(map), content })
    }

    fn wrong(&self, message: String) -> Error {
        Error::Gguf { path: self.path.clone(), message }
    }

    /// The header: metadata and the list of tensors.
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// A value of the metadata.
    fn value(&self, key: &str) -> Result<&Value> {
        self.content.metadata.get(key).ok_or_else(|| self.wrong(format!("no {key}")))
    }

    /// A whole number of the metadata; llama.cpp repeats some of them per layer.
    fn whole(&self, key: &str) -> Result<usize> {
        let value = self.value(key)?;
        let value = match value {
            Value::Array(all) => {
                let first = all.first().ok_or_else(|| self.wrong(format!("{key} is empty")))?;
                let first_text = format!("{first:?}");
                if let Some(other) = all.iter().find(|other| format!("{other:?}") != first_text) {
                    let (first, other) = (keys::short(first), keys::short(other));
                    return Err(self.wrong(format!("{key}: expected the same for all layers, got {first} and {other}")));
                }
                first
            }
            one => one,
        };
        let number = match value {
            Value::I32(v) => u64::try_from(*v).ok(),
            Value::I64(v) => u64::try_from(*v).ok(),
            other => other.to_u64().ok(),
        };
        number
            .and_then(|n| usize::try_from(n).ok())
            .ok_or_else(|| self.wrong(format!("{key}: expected a whole number, got {}", keys::short(value))))
    }

    fn number(&self, key: &str) -> Result<f64> {
        match self.value(key)? {
            Value::F32(v) => Ok(f64::from(*v)),
            Value::F64(v) => Ok(*v),
            other => Err(self.wrong(format!("{key}: expected a number, got {}", keys::short(other)))),
        }
    }

    fn text(&self, key: &str) -> Result<&str> {
        match self.value(key)? {
            Value::String(text) => Ok(text),
            other => Err(self.wrong(format!("{key}: expected a text, got {}", keys::short(other)))),
        }
    }

    /// Type, shape and bytes of a tensor.
    fn find(&self, name: &str) -> Result<(GgmlDType, &Shape, Range<usize>)> {
        let Some(info) = self.content.tensor_infos.get(name) else {
            return Err(self.wrong(format!("no tensor {name}")));
        };
        let elements = info.shape.dims().iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        let (kind, last) = (info.ggml_dtype, info.shape.dims().last().copied().unwrap_or(1));
        let range = elements.filter(|_| last.is_multiple_of(kind.block_size())).and_then(|n| {
            let bytes = (n / kind.block_size()).checked_mul(kind.type_size())?;
            let start = usize::try_from(self.content.tensor_data_offset.checked_add(info.offset)?).ok()?;
            Some(start..start.checked_add(bytes)?)
        });
        match range {
            Some(range) if range.end <= self.map.len() => Ok((kind, &info.shape, range)),
            _ => Err(self.wrong(format!(
                "{name}: {:?} of {kind:?} at {} is not in a file of {} bytes",
                info.shape.dims(),
                info.offset,
                self.map.len()
            ))),
        }
    }

    /// A tensor as numbers: f32, or what the file has where that is f16 or bf16.
    ///
    /// # Errors
    /// One that is missing, or reaches beyond the file.
    pub fn tensor(&self, name: &str, device: &Device) -> Result<Tensor> {
        let (kind, shape, range) = self.find(name)?;
        let plain = |dtype| Tensor::from_raw_buffer(&self.map[range.clone()], dtype, shape.dims(), device);
        let tensor = match kind {
            GgmlDType::F32 => plain(DType::F32),
            GgmlDType::F16 => plain(DType::F16),
            GgmlDType::BF16 => plain(DType::BF16),
            _ => self.quantized(kind, shape.clone(), range.clone(), device).and_then(|q| q.dequantize(device)),
        };
        forget(&self.map, range);
        tensor.map_err(|e| self.wrong(format!("{name}: {e}")))
    }

    /// A quantized tensor; nothing where the file has plain numbers.
    ///
    /// # Errors
    /// As [`Self::tensor`].
    pub fn matrix(&self, name: &str, device: &Device) -> Result<Option<Quantized>> {
        let (kind, shape, range) = self.find(name)?;
        if matches!(kind, GgmlDType::F32 | GgmlDType::F16 | GgmlDType::BF16) {
            return Ok(None);
        }
        let wrong = |e: candle_core::Error| self.wrong(format!("{name}: {e}"));
        let matrix = Quantized::from(self.quantized(kind, shape.clone(), range.clone(), device).map_err(wrong)?);
        // Lets go of the file's pages where they are no longer needed (they come back where they are).
        if shape.rank() == 2 && matrix.lay_out().map_err(wrong)? {
            forget(&self.map, range);
        }
        Ok(Some(matrix))
    }

    fn quantized(
        &self,
        kind: GgmlDType,
        shape: Shape,
        range: Range<usize>,
        device: &Device,
    ) -> candle_core::Result<QTensor> {
        if !device.is_cpu() {
            let storage = QStorage::from_data(self.map[range].into(), device, kind)?;
            return QTensor::new(storage, shape);
        }
        fn boxed<T: candle_core::quantized::GgmlType + 'static>(
            map: &Arc<Mmap>,
            range: Range<usize>,
        ) -> candle_core::Result<Box<dyn QuantizedType>> {
            Ok(Box::new(Mapped::<T>::new(map.clone(), range)?))
        }
        let map = &self.map;
        let storage = match kind {
            GgmlDType::Q4_0 => boxed::<k_quants::BlockQ4_0>(map, range),
            GgmlDType::Q4_1 => boxed::<k_quants::BlockQ4_1>(map, range),
            GgmlDType::Q5_0 => boxed::<k_quants::BlockQ5_0>(map, range),
            GgmlDType::Q5_1 => boxed::<k_quants::BlockQ5_1>(map, range),
            GgmlDType::Q8_0 => boxed::<k_quants::BlockQ8_0>(map, range),
            GgmlDType::Q2K => boxed::<k_quants::BlockQ2K>(map, range),
            GgmlDType::Q3K => boxed::<k_quants::BlockQ3K>(map, range),
            GgmlDType::Q4K => boxed::<k_quants::BlockQ4K>(map, range),
            GgmlDType::Q5K => boxed::<k_quants::BlockQ5K>(map, range),
            GgmlDType::Q6K => boxed::<k_quants::BlockQ6K>(map, range),
            GgmlDType::Q8K => boxed::<k_quants::BlockQ8K>(map, range),
            other => candle_core::bail!("{other:?} is no weight type"),
        };
        QTensor::new(QStorage::Cpu(storage?), shape)
    }
}

/// Whether the header says that tensors are aligned to 0 bytes, which candle's reader divides by.
fn unaligned(bytes: &[u8]) -> bool {
    const KEY: &[u8] = b"general.alignment";
    let Some(at) = bytes.windows(KEY.len()).position(|w| w == KEY) else { return false };
    bytes.get(at + KEY.len() + 4..at + KEY.len() + 8).is_some_and(|value| value == [0; 4])
}

/// A file's name in its folder.
fn name(file: &Gguf) -> String {
    file.path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// Files of a kind, counted and named.
fn counted(kind: &str, files: &[Gguf]) -> String {
    let names: Vec<String> = files.iter().map(name).collect();
    match names.as_slice() {
        [] => format!("no {kind}"),
        [one] => format!("one {kind} ({one})"),
        all => format!("{} {kind}s ({})", all.len(), all.join(", ")),
    }
}

/// Refuses parts of a file that llama.cpp has split. All but the first of them say nothing of the model.
fn refuse_split(dir: &Path, files: &[Gguf]) -> Result<()> {
    let is_part = |file: &&Gguf| file.whole("split.count").is_ok_and(|count| count > 1);
    let parts: Vec<String> = files.iter().filter(is_part).map(name).collect();
    let Some(first) = parts.first() else { return Ok(()) };
    let message = format!(
        "a split file is not read, got {} (split.count over 1): join the parts with `llama-gguf-split --merge {first} \
         JOINED.gguf`, and keep the joined file in their place",
        parts.join(", ")
    );
    Err(Error::Gguf { path: dir.to_owned(), message })
}

/// The two files of a model.
#[derive(Debug)]
pub struct Pair {
    text: Gguf,
    vision: Gguf,
}

impl Pair {
    /// The pair in a folder; nothing where there is no GGUF file at all.
    ///
    /// # Errors
    /// A file that is broken, or a folder that does not hold exactly one of each kind.
    pub fn find(dir: &Path) -> Result<Option<Self>> {
        folder(dir)?;
        let io = |source| Error::Io { path: dir.to_owned(), source };
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(io)? {
            let path = entry.map_err(io)?.path();
            if path.extension().is_some_and(|e| e == "gguf") {
                paths.push(path);
            }
        }
        paths.sort();
        if paths.is_empty() {
            return Ok(None);
        }
        let files = paths.iter().map(|path| Gguf::open(path)).collect::<Result<Vec<_>>>()?;
        refuse_split(dir, &files)?;
        let (mut text, mut vision) = (Vec::new(), Vec::new());
        for file in files {
            if let Ok(kind @ ("adapter" | "imatrix")) = file.text("general.type") {
                return Err(file.wrong(format!(
                    "general.type: expected model or mmproj, got {kind}: take the file out of the folder of the weights"
                )));
            }
            match file.text("general.architecture")? {
                "qwen3vl" => text.push(file),
                "clip" => vision.push(file),
                other => return Err(file.wrong(format!("architecture: expected qwen3vl or clip, got {other}"))),
            }
        }
        let found = format!("{} and {}", counted("decoder", &text), counted("vision tower", &vision));
        let many = text.len() > 1 || vision.len() > 1;
        match (text.pop(), vision.pop()) {
            (Some(text), Some(vision)) if !many => Ok(Some(Self { text, vision })),
            _ => {
                let cure = if many { "keep one of each in the folder" } else { "put the missing file beside it" };
                let message =
                    format!("expected one decoder (qwen3vl) and one vision tower (clip), got {found}: {cure}");
                Err(Error::Gguf { path: dir.to_owned(), message })
            }
        }
    }

    fn file(&self, part: Part) -> &Gguf {
        match part {
            Part::Text => &self.text,
            Part::Vision => &self.vision,
        }
    }

    fn place(&self, config: &Config, name: &str) -> Result<(&Gguf, String)> {
        let (part, stored) =
            stored(name, config).ok_or_else(|| self.text.wrong(format!("{name} is no tensor of Qwen3-VL")))?;
        Ok((self.file(part), stored))
    }

    /// Whether a tensor is there; `name` is the checkpoint's.
    pub fn contains(&self, config: &Config, name: &str) -> bool {
        self.place(config, name).is_ok_and(|(file, stored)| file.content.tensor_infos.contains_key(&stored))
    }

    /// A tensor as numbers; `name` is the checkpoint's.
    ///
    /// # Errors
    /// As [`Gguf::tensor`].
    pub fn tensor(&self, config: &Config, name: &str, device: &Device) -> Result<Tensor> {
        let (file, stored) = self.place(config, name)?;
        let tensor = file.tensor(&stored, device)?;
        if stored != "v.patch_embd.weight" {
            return Ok(tensor);
        }
        // [d, channels, side, side] for each frame of the temporal pair.
        let second = file.tensor("v.patch_embd.weight.1", device)?.to_dtype(tensor.dtype())?;
        Ok(Tensor::stack(&[tensor, second], 2)?)
    }

    /// That of [`crate::weights::identity()`].
    pub(super) fn identity(&self) -> Result<String> {
        let (mut stated, mut tensors) = (BTreeSet::new(), BTreeMap::new());
        for file in [&self.text, &self.vision] {
            stated.insert(file.text(KEY).ok().map(str::to_owned));
            for name in file.content.tensor_infos.keys() {
                let (kind, shape, range) = file.find(name)?;
                tensors.insert(name.clone(), digest(kind, shape.dims(), &file.map[range]));
            }
        }
        Ok(united(&stated, &tensors))
    }

    /// A quantized matrix of a shape; nothing where the file has plain numbers.
    ///
    /// # Errors
    /// As [`Gguf::tensor`], and another shape.
    pub fn matrix(
        &self,
        config: &Config,
        name: &str,
        shape: (usize, usize),
        device: &Device,
    ) -> Result<Option<Quantized>> {
        let (file, stored) = self.place(config, name)?;
        let Some(matrix) = file.matrix(&stored, device)? else { return Ok(None) };
        if matrix.shape().dims() != [shape.0, shape.1] {
            return Err(file.wrong(format!("{stored}: expected {shape:?}, got {:?}", matrix.shape().dims())));
        }
        Ok(Some(matrix))
    }

    /// The model's config, from the metadata and the shapes of the tensors. Token ids come from the vocabulary.
    ///
    /// # Errors
    /// A key that is missing, or values that do not make a Qwen3-VL.
    pub fn config(&self, dir: &Path) -> Result<Config> {
        let (text, vision) = (&self.text, &self.vision);
        let projector = vision.text("clip.projector_type")?;
        if projector != "qwen3vl_merger" {
            return Err(vision.wrong(format!("clip.projector_type: expected qwen3vl_merger, got {projector}")));
        }
        let hidden_size = text.whole("qwen3vl.embedding_length")?;
        let heads = text.whole("qwen3vl.attention.head_count")?;
        let head_dim = match text.whole("qwen3vl.attention.key_length") {
            Ok(width) => width,
            Err(_) => hidden_size / heads.max(1),
        };
        let rows = |file: &Gguf, name: &str| Ok::<_, Error>(file.find(name)?.1.dims().first().copied().unwrap_or(0));
        let Value::Array(sections) = text.value("qwen3vl.rope.dimension_sections")? else {
            return Err(text.wrong("qwen3vl.rope.dimension_sections: expected a list".to_owned()));
        };
        let section = |i: usize| {
            let value = sections.get(i).map(|v| {
                v.to_i32().ok().and_then(|v| usize::try_from(v).ok()).or_else(|| v.to_u64().ok().map(|v| v as usize))
            });
            value
                .flatten()
                .ok_or_else(|| text.wrong("qwen3vl.rope.dimension_sections: expected three numbers".to_owned()))
        };
        let deepstack: Vec<usize> = match vision.value("clip.vision.is_deepstack_layers")? {
            Value::Array(flags) => {
                flags.iter().enumerate().filter(|(_, v)| v.to_bool().is_ok_and(|b| b)).map(|(i, _)| i).collect()
            }
            _ => return Err(vision.wrong("clip.vision.is_deepstack_layers: expected a list".to_owned())),
        };
        let patch = vision.find("v.patch_embd.weight")?.1.dims();
        keys::TEXT.check(&text.path, "qwen3vl.", &keys::below("qwen3vl.", &text.content.metadata))?;
        keys::VISION.check(&vision.path, "clip.", &keys::below("clip.", &vision.content.metadata))?;
        for (file, key, expected) in [
            (text, "qwen3vl.attention.value_length", head_dim),
            (text, "qwen3vl.rope.dimension_count", head_dim),
            (text, "qwen3vl.n_deepstack_layers", deepstack.len()),
            (text, "qwen3vl.vocab_size", rows(text, "token_embd.weight")?),
            (vision, "clip.vision.projection_dim", hidden_size),
        ] {
            if file.content.metadata.contains_key(key) && file.whole(key)? != expected {
                return Err(file.wrong(format!("{key}: expected {expected}, got {}", file.whole(key)?)));
            }
        }
        let eps = vision.number("clip.vision.attention.layer_norm_epsilon").unwrap_or(LAYER_NORM_EPS.into()) as f32;
        if (eps - LAYER_NORM_EPS).abs() > 1e-3 * LAYER_NORM_EPS {
            let expected = format!("expected {LAYER_NORM_EPS}, got {eps}");
            return Err(vision.wrong(format!("clip.vision.attention.layer_norm_epsilon: {expected}")));
        }
        let tokens = self.special_tokens(dir)?;
        let config = Config {
            architectures: vec!["Qwen3VLForConditionalGeneration".to_owned()],
            model_type: "qwen3_vl".to_owned(),
            text_config: TextConfig {
                hidden_size,
                intermediate_size: text.whole("qwen3vl.feed_forward_length")?,
                num_hidden_layers: text.whole("qwen3vl.block_count")?,
                num_attention_heads: heads,
                num_key_value_heads: text.whole("qwen3vl.attention.head_count_kv")?,
                head_dim,
                vocab_size: rows(text, "token_embd.weight")?,
                rms_norm_eps: text.number("qwen3vl.attention.layer_norm_rms_epsilon")?,
                max_position_embeddings: text.whole("qwen3vl.context_length")?,
                rope_theta: Some(text.number("qwen3vl.rope.freq_base")?),
                rope_scaling: Some(Rope {
                    mrope_section: [section(0)?, section(1)?, section(2)?],
                    rope_theta: None,
                    mrope_interleaved: true,
                    rope_type: "default".to_owned(),
                }),
                rope_parameters: None,
            },
            vision_config: VisionConfig {
                depth: vision.whole("clip.vision.block_count")?,
                hidden_size: vision.whole("clip.vision.embedding_length")?,
                intermediate_size: vision.whole("clip.vision.feed_forward_length")?,
                num_heads: vision.whole("clip.vision.attention.head_count")?,
                in_channels: patch.get(1).copied().unwrap_or(3),
                patch_size: vision.whole("clip.vision.patch_size")?,
                spatial_merge_size: vision.whole("clip.vision.spatial_merge_size").unwrap_or(2),
                temporal_patch_size: 2,
                out_hidden_size: hidden_size,
                num_position_embeddings: rows(vision, "v.position_embd.weight")?,
                deepstack_visual_indexes: deepstack,
            },
            image_token_id: tokens[0],
            video_token_id: tokens[1],
            vision_start_token_id: tokens[2],
            vision_end_token_id: tokens[3],
            tie_word_embeddings: !text.content.tensor_infos.contains_key("output.weight"),
        };
        config.check()?;
        self.warn_of_others(&config);
        Ok(config)
    }

    /// Names tensors that no layer reads, such as biases and factors of the rotary embedding.
    fn warn_of_others(&self, config: &Config) {
        let mut read: BTreeSet<String> =
            parameters(config).iter().filter_map(|(name, _)| stored(name, config)).map(|(_, place)| place).collect();
        read.insert("v.patch_embd.weight.1".to_owned());
        for file in [&self.text, &self.vision] {
            for tensor in file.content.tensor_infos.keys().filter(|tensor| !read.contains(*tensor)) {
                tracing::warn!(
                    "{}: {tensor} is read by no layer here: what it changes is left out",
                    file.path.display()
                );
            }
        }
    }

    /// Mean and deviation of pixels from the file, for folders without a `preprocessor_config.json`; so are the
    /// pixel limits, else those of the published checkpoints.
    ///
    /// # Errors
    /// A key that is missing or broken.
    pub fn processor(&self) -> Result<Processor> {
        let channels = |key: &str| -> Result<[f32; 3]> {
            let Value::Array(values) = self.vision.value(key)? else {
                return Err(self.vision.wrong(format!("{key}: expected a list")));
            };
            let values: Vec<f32> = values.iter().filter_map(|v| v.to_f32().ok()).collect();
            values.try_into().map_err(|_| self.vision.wrong(format!("{key}: expected three numbers")))
        };
        let limit = |key: &str, published: u64| {
            if !self.vision.content.metadata.contains_key(key) {
                return Ok(published);
            }
            self.vision.whole(key).map(|pixels| pixels as u64)
        };
        let min = limit("clip.vision.image_min_pixels", PIXELS.0)?;
        let max = limit("clip.vision.image_max_pixels", PIXELS.1)?;
        let mut processor = Processor::with_pixel_limits(min, max);
        processor.image_mean = channels("clip.vision.image_mean")?;
        processor.image_std = channels("clip.vision.image_std")?;
        processor.patch_size = self.vision.whole("clip.vision.patch_size")?;
        processor.merge_size = self.vision.whole("clip.vision.spatial_merge_size").unwrap_or(2);
        Ok(processor)
    }
}
