//! Files that llama.cpp's own converter wrote (`tests/fixtures/qwen3vl/make_converted.py`).

use std::fs::File;
use std::io::Cursor;
use std::path::PathBuf;

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

/// What this reader would compute otherwise than the file says.
#[test]
fn what_is_not_supported_is_refused_by_name() {
    let refused = |key: &str, value: Value, says: &str| {
        let dir = alone();
        let path = dir.path().join(if key.starts_with("clip") { "mmproj.gguf" } else { "model.gguf" });
        let bytes = std::fs::read(&path).unwrap();
        let content = Content::read(&mut Cursor::new(&bytes)).unwrap();
        let tensors: Vec<_> = content
            .tensor_infos
            .keys()
            .map(|name| (name.clone(), content.tensor(&mut Cursor::new(&bytes), name, &Device::Cpu).unwrap()))
            .collect();
        let tensors: Vec<_> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        let mut metadata = content.metadata;
        metadata.insert(key.to_owned(), value);
        let metadata: Vec<_> = metadata.iter().map(|(key, value)| (key.as_str(), value)).collect();
        write(&mut File::create(&path).unwrap(), &metadata, &tensors).unwrap();
        let error = EgoModel::load(dir.path(), &Device::Cpu).unwrap_err().to_string();
        assert!(error.contains(key) && error.contains(says), "{error}");
    };
    let text = |t: &str| Value::String(t.to_owned());
    refused("tokenizer.ggml.pre", text("llama-bpe"), "expected qwen2, got llama-bpe");
    refused("tokenizer.ggml.model", text("llama"), "expected gpt2, got llama");
    refused("tokenizer.ggml.token_type", Value::Array(vec![Value::I32(1)]), "got 1");
    refused("qwen3vl.rope.scaling.type", text("yarn"), "yarn");
    refused("clip.vision.attention.layer_norm_epsilon", Value::F32(1e-5), "0.00001");
    refused("clip.projector_type", text("ldp"), "qwen3vl_merger");
}
