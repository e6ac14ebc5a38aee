//! GGUF files written here are read as the same model.

use std::path::Path;

use candle_core::{DType, Device};
use model::nn::Kernels;
use model::weights::gguf::{Gguf, Recipe, export};
use model::{Config, Qwen3Vl};

use crate::reference::{close, difference, fixtures, golden, logits};

fn written(recipe: Recipe, adapter: Option<&Path>) -> (tempfile::TempDir, Qwen3Vl) {
    let dir = tempfile::tempdir().unwrap();
    let (text, vision) = export(&fixtures().join("tiny"), adapter, recipe, dir.path()).unwrap();
    assert!(text > 0 && vision > 0);
    let model = Qwen3Vl::load(dir.path(), Kernels::Fused, DType::F32, &Device::Cpu).unwrap();
    (dir, model)
}

#[test]
fn the_config_survives() {
    let (_dir, model) = written(Recipe::F32, None);
    let original = Config::from_dir(&fixtures().join("tiny")).unwrap();
    let (mine, its) = (model.config(), &original);
    assert_eq!(mine.vision_config, its.vision_config);
    assert_eq!(mine.text_config.rope().unwrap().mrope_section, its.text_config.rope().unwrap().mrope_section);
    assert_eq!(mine.text_config.theta(), its.text_config.theta());
    assert_eq!(mine.tie_word_embeddings, its.tie_word_embeddings);
    assert_eq!(mine.image_token_id, its.image_token_id);
    let sizes = |c: &Config| {
        let t = &c.text_config;
        [t.hidden_size, t.intermediate_size, t.num_hidden_layers, t.num_key_value_heads, t.head_dim, t.vocab_size]
    };
    assert_eq!(sizes(mine), sizes(its));
}

#[test]
fn logits_survive_as_well_as_the_type_allows() {
    let expected = &golden("text_golden")["logits"];
    for (recipe, least, most) in [(Recipe::F32, 0.0, 1e-4), (Recipe::F16, 1e-7, 1e-2), (Recipe::Q8_0, 1e-4, 0.1)] {
        let (_dir, model) = written(recipe, None);
        let error = difference(&logits(&model, None), expected);
        assert!((least..most).contains(&error), "{recipe:?}: {error}");
    }
}

#[test]
fn an_adapter_is_merged_on_the_way() {
    let (_dir, model) = written(Recipe::F32, Some(&fixtures().join("adapter")));
    close("logits", &logits(&model, None), &golden("adapter_golden")["logits"]);
}

#[test]
fn what_spells_prompts_is_taken_along() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(fixtures().join("tiny").join(name), from.path().join(name)).unwrap();
    }
    let processor = std::fs::read_to_string(fixtures().join("tiny/preprocessor_config.json")).unwrap();
    std::fs::write(from.path().join("processor_config.json"), format!("{{\"image_processor\": {processor}}}")).unwrap();
    std::fs::write(from.path().join("chat_template.jinja"), "{{ messages }}").unwrap();
    export(from.path(), None, Recipe::F16, to.path()).unwrap();
    for name in ["processor_config.json", "chat_template.jinja"] {
        assert!(to.path().join(name).is_file(), "{name}");
    }
    let vision = Config::from_dir(to.path()).unwrap().vision_config;
    let original = model::Processor::from_dir(&fixtures().join("tiny"), &vision).unwrap();
    assert_eq!(model::Processor::from_dir(to.path(), &vision).unwrap(), original);
}

#[test]
fn quantized_matrices_stay_quantized() {
    let (_dir, mut model) = written(Recipe::Q8_0, None);
    let quantized = |m: &model::nn::Matrix| matches!(m, model::nn::Matrix::Quantized(_));
    assert!(model.linears_mut().iter().all(|l| quantized(l.matrix())));
}

#[test]
fn a_broken_file_says_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    export(&fixtures().join("tiny"), None, Recipe::F32, dir.path()).unwrap();
    let load =
        || Qwen3Vl::load(dir.path(), Kernels::Fused, DType::F32, &Device::Cpu).map(|_| ()).unwrap_err().to_string();
    let path = dir.path().join("model.gguf");
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 5000]).unwrap();
    let error = load();
    assert!(error.contains("model.gguf") && error.contains("is not in a file of"), "{error}");
    std::fs::write(&path, &whole[..40]).unwrap();
    assert!(load().contains("model.gguf"));
    std::fs::write(&path, &whole).unwrap();
    std::fs::remove_file(dir.path().join("mmproj.gguf")).unwrap();
    let error = load();
    assert!(error.contains("one vision tower"), "{error}");
    assert!(Gguf::open(Path::new("/nonexistent.gguf")).unwrap_err().to_string().contains("nonexistent.gguf"));
}
