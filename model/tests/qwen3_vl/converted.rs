//! Files that llama.cpp's own converter wrote (`tests/fixtures/qwen3vl/make_converted.py`).

use std::collections::HashMap;
use std::fs::File;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use candle_core::quantized::gguf_file::{Content, Value, write};
use candle_core::{DType, Device};
use model::nn::Kernels;
use model::weights::gguf::{Pair, Recipe, export};
use model::{EgoModel, Qwen3Vl};

use crate::reference::{difference, fixtures, golden, logits};

fn converted() -> PathBuf {
    fixtures().join("converted")
}

/// The two files alone, as somebody downloads them.
fn alone() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in ["model.gguf", "mmproj.gguf"] {
        std::fs::copy(converted().join(name), dir.path().join(name)).unwrap();
    }
    dir
}

fn expected() -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(converted().join("expected.json")).unwrap()).unwrap()
}

#[test]
fn they_are_the_same_model() {
    let dir = alone();
    let model = Qwen3Vl::load(dir.path(), Kernels::Fused, DType::F32, &Device::Cpu).unwrap();
    let error = difference(&logits(&model, None), &golden("text_golden")["logits"]);
    assert!(error < 1e-2, "{error}");
}

#[test]
fn they_stand_alone() {
    let dir = alone();
    let model = EgoModel::load(dir.path(), &Device::Cpu).unwrap();
    assert_eq!(model.tokenizer().token(508), None, "an unused row is no token");
}

#[test]
fn our_files_hold_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    export(&fixtures().join("tiny"), None, Recipe::F16, dir.path()).unwrap();
    for name in ["model.gguf", "mmproj.gguf"] {
        let read = |path: PathBuf| {
            let bytes = std::fs::read(path).unwrap();
            (Content::read(&mut Cursor::new(&bytes)).unwrap(), bytes)
        };
        let ((theirs, their_bytes), (ours, our_bytes)) = (read(converted().join(name)), read(dir.path().join(name)));
        let names = |c: &Content| {
            let mut names: Vec<_> = c.tensor_infos.keys().cloned().collect();
            names.sort();
            names
        };
        assert_eq!(names(&theirs), names(&ours), "{name}");
        for (tensor, info) in &theirs.tensor_infos {
            let own = &ours.tensor_infos[tensor];
            assert_eq!((&info.shape, info.ggml_dtype), (&own.shape, own.ggml_dtype), "{tensor}");
            let size = info.shape.elem_count() / info.ggml_dtype.block_size() * info.ggml_dtype.type_size();
            let at = |c: &Content, offset: u64| (c.tensor_data_offset + offset) as usize;
            let (a, b) = (at(&theirs, info.offset), at(&ours, own.offset));
            assert!(their_bytes[a..a + size] == our_bytes[b..b + size], "{name}: {tensor}");
        }
    }
}

#[test]
fn their_vocabulary_gives_the_ids_of_tokenizer_json() {
    let expected = expected();
    let pair = Pair::find(alone().path()).unwrap().unwrap();
    let of_gguf = pair.tokenizer().unwrap();
    let of_json = tokenizers::Tokenizer::from_file(converted().join("tokenizer.json")).unwrap();
    let texts = expected["texts"].as_array().unwrap();
    assert!(texts.len() >= 20);
    for entry in texts.iter().chain(std::iter::once(&expected["padding"])) {
        let (text, ids) = (entry["text"].as_str().unwrap(), entry["ids"].as_array().unwrap());
        let ids: Vec<u32> = ids.iter().map(|id| id.as_u64().unwrap() as u32).collect();
        for tokenizer in [&of_gguf, &of_json] {
            assert_eq!(tokenizer.encode_fast(text, false).unwrap().get_ids(), ids, "{text:?}");
        }
        assert_eq!(of_gguf.decode(&ids, false).unwrap(), of_json.decode(&ids, false).unwrap(), "{text:?}");
    }
}

#[test]
fn their_chat_template_is_used() {
    let expected = expected();
    let template = Pair::find(alone().path()).unwrap().unwrap().template().unwrap().unwrap();
    let parts: Vec<model::answer::chat::Part> = expected["chat"]["content"]
        .as_array()
        .unwrap()
        .iter()
        .map(|part| match part["text"].as_str() {
            Some(text) => model::answer::chat::Part::Text(text.to_owned()),
            None => model::answer::chat::Part::Image,
        })
        .collect();
    let rendered = template.render(&[model::answer::chat::Message::user(parts)], "<|image_pad|>").unwrap();
    assert_eq!(rendered, expected["chat"]["text"].as_str().unwrap());
}

/// Writes a file anew with other metadata.
fn with_metadata(path: &Path, change: &dyn Fn(&mut HashMap<String, Value>)) {
    let bytes = std::fs::read(path).unwrap();
    let content = Content::read(&mut Cursor::new(&bytes)).unwrap();
    let tensors: Vec<_> = content
        .tensor_infos
        .keys()
        .map(|name| (name.clone(), content.tensor(&mut Cursor::new(&bytes), name, &Device::Cpu).unwrap()))
        .collect();
    let tensors: Vec<_> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let mut metadata = content.metadata;
    change(&mut metadata);
    let metadata: Vec<_> = metadata.iter().map(|(key, value)| (key.as_str(), value)).collect();
    write(&mut File::create(path).unwrap(), &metadata, &tensors).unwrap();
}

/// What this reader would compute otherwise than the file says.
#[test]
fn what_is_not_supported_is_refused_by_name() {
    let refused = |key: &str, value: Value, says: &str| {
        let dir = alone();
        let path = dir.path().join(if key.starts_with("clip") { "mmproj.gguf" } else { "model.gguf" });
        with_metadata(&path, &|metadata| drop(metadata.insert(key.to_owned(), value.clone())));
        let error = EgoModel::load(dir.path(), &Device::Cpu).unwrap_err().to_string();
        assert!(error.contains(key) && error.contains(says), "{error}");
    };
    let text = |t: &str| Value::String(t.to_owned());
    refused("tokenizer.ggml.pre", text("llama-bpe"), "expected qwen2, got llama-bpe");
    refused("tokenizer.ggml.model", text("llama"), "expected gpt2, got llama");
    refused("tokenizer.ggml.token_type", Value::Array(vec![Value::I32(1)]), "got 1");
    refused("tokenizer.ggml.add_bos_token", Value::Bool(true), "expected false, got true");
    refused("qwen3vl.rope.scaling.type", text("yarn"), "expected none, got yarn");
    refused("qwen3vl.rope.scaling.factor", Value::F32(4.0), "expected 1, got 4");
    refused("qwen3vl.rope.dimension_count", Value::U32(8), "expected 16, got 8");
    refused("qwen3vl.attention.sliding_window", Value::U32(4096), "expected 0 or nothing, got 4096");
    refused("qwen3vl.attention.scale", Value::F32(0.5), "got 0.5");
    refused("qwen3vl.attention.value_length", Value::U32(8), "expected 16, got 8");
    let heads = Value::Array(vec![Value::U32(4), Value::U32(4), Value::U32(2)]);
    refused("qwen3vl.attention.head_count", heads, "expected the same for all layers, got 4 and 2");
    refused("qwen3vl.expert_count", Value::U32(8), "got 8");
    refused("qwen3vl.final_logit_softcapping", Value::F32(30.0), "got 30");
    refused("clip.vision.attention.layer_norm_epsilon", Value::F32(1e-5), "0.00001");
    refused("clip.projector_type", text("ldp"), "qwen3vl_merger");
    refused("clip.use_gelu", Value::Bool(false), "expected true, got false");
    refused("clip.vision.n_wa_pattern", Value::U32(8), "got 8");
}

#[test]
fn pixel_limits_of_the_file_are_taken() {
    let dir = alone();
    with_metadata(&dir.path().join("mmproj.gguf"), &|metadata| {
        metadata.insert("clip.vision.image_min_pixels".to_owned(), Value::U32(1024));
        metadata.insert("clip.vision.image_max_pixels".to_owned(), Value::U32(4096));
    });
    let processor = Pair::find(dir.path()).unwrap().unwrap().processor().unwrap();
    let (width, height) = processor.target_size(640, 480).unwrap();
    assert!((1024..=4096).contains(&(width * height)), "{width}x{height}");
}

#[test]
fn files_that_do_not_make_one_model_are_told_apart() {
    let error = |dir: &Path| Pair::find(dir).unwrap_err().to_string();
    let contains = |error: &str, words: &[&str]| assert!(words.iter().all(|word| error.contains(word)), "{error}");

    let dir = alone();
    std::fs::copy(dir.path().join("model.gguf"), dir.path().join("model-Q4_K_M.gguf")).unwrap();
    let words = ["2 decoders (model-Q4_K_M.gguf, model.gguf)", "one vision tower (mmproj.gguf)", "keep one of each"];
    contains(&error(dir.path()), &words);

    let dir = alone();
    let parts = ["model-00001-of-00002.gguf", "model-00002-of-00002.gguf"];
    std::fs::rename(dir.path().join("model.gguf"), dir.path().join(parts[0])).unwrap();
    std::fs::copy(dir.path().join(parts[0]), dir.path().join(parts[1])).unwrap();
    for (number, part) in parts.iter().enumerate() {
        with_metadata(&dir.path().join(part), &|metadata| {
            // The second of them says nothing of the model.
            if number == 1 {
                metadata.clear();
            }
            metadata.insert("split.no".to_owned(), Value::U16(number as u16));
            metadata.insert("split.count".to_owned(), Value::U16(2));
        });
    }
    let merge = format!("llama-gguf-split --merge {} ", parts[0]);
    contains(&error(dir.path()), &["split", parts[0], parts[1], &merge]);

    let dir = alone();
    with_metadata(&dir.path().join("model.gguf"), &|metadata| {
        metadata.insert("general.type".to_owned(), Value::String("adapter".to_owned()));
    });
    contains(&error(dir.path()), &["model.gguf", "general.type", "got adapter"]);

    let dir = alone();
    let file = dir.path().join("model.gguf");
    contains(&error(&file), &["model.gguf: expected a folder, got a file", dir.path().to_str().unwrap()]);
}

#[test]
fn a_type_of_tensor_that_is_not_read_is_named() {
    let dir = alone();
    let path = dir.path().join("model.gguf");
    let mut bytes = std::fs::read(&path).unwrap();
    let name = b"blk.0.attn_q.weight";
    let at = bytes.windows(name.len()).position(|window| window == name).unwrap() + name.len();
    // Behind the name: how many dimensions, each, and the type.
    let dims = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let kind = at + 4 + 8 * dims;
    bytes[kind..kind + 4].copy_from_slice(&23u32.to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    let error = EgoModel::load(dir.path(), &Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("model.gguf") && error.contains("type IQ4_XS") && error.contains("Q4_K_M"), "{error}");
}
