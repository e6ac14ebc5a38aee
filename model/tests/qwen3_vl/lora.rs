//! Adapters that cross the border to and from `peft` (`tests/fixtures/qwen3vl/make_adapter.py`).

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor, Var};
use model::lora::{self, Lora, LoraConfig, Site, Targets};
use model::nn::Kernels;

use crate::reference::{close, difference, fixtures, golden, load, logits, loss};

fn adapter() -> Lora {
    Lora::load(&fixtures().join("adapter"), DType::F32, &Device::Cpu).unwrap()
}

#[test]
fn an_adapter_of_peft_gives_its_logits() {
    let mut model = load(Kernels::Fused);
    let before = logits(&model, None);
    adapter().attach(&mut model).unwrap();
    let reference = golden("adapter_golden");
    close("logits", &logits(&model, None), &reference["logits"]);
    assert!(difference(&before, &reference["logits"]) > 1e-3, "the adapter must matter");
}

#[test]
fn merged_equals_unmerged() {
    let mut model = load(Kernels::Fused);
    adapter().attach(&mut model).unwrap();
    let apart = logits(&model, None);
    lora::merge(&mut model).unwrap();
    assert!(model.linears_mut().iter().all(|l| l.adapter().is_none()));
    close("logits", &logits(&model, None), &apart);
}

#[test]
fn gradients_of_an_adapter_agree_with_peft() {
    let mut model = load(Kernels::Differentiable);
    let stored = adapter();
    let mut vars: BTreeMap<String, Var> = BTreeMap::new();
    let path = fixtures().join("adapter/adapter_model.safetensors");
    let weights = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
    let mut make = |site: &Site<'_>| {
        let mut var = |half: &str| {
            let name = format!("base_model.model.{}.lora_{half}.weight", site.module);
            let var = Var::from_tensor(&weights[&name]).unwrap();
            vars.insert(name, var.clone());
            var.into_inner()
        };
        Ok((var("A"), var("B")))
    };
    Lora::add(stored.config().clone(), &mut model, &mut make).unwrap();
    let reference = golden("adapter_golden");
    let loss = loss(&logits(&model, None));
    close("loss", &loss.reshape(1).unwrap(), &reference["loss"]);
    let store = loss.backward().unwrap();
    let mut checked = 0;
    for (name, expected) in &reference {
        let Some(key) = name.strip_prefix("grad.") else { continue };
        let gradient = store.get(&vars[&format!("base_model.model.{key}")]).unwrap_or_else(|| panic!("{key}: none"));
        let error = difference(gradient, expected);
        assert!(error < 1e-3, "{name}: {error}");
        checked += 1;
    }
    assert_eq!(checked, vars.len());
    // No frozen matrix has a gradient. (candle keeps those of constant activations.)
    let matrices: Vec<_> = model.linears_mut().iter().map(|l| l.matrix().dims().unwrap()).collect();
    for id in store.get_ids().filter(|id| !vars.values().any(|v| v.id() == **id)) {
        let dims = store.get_id(*id).unwrap().dims();
        assert!(
            !matrices.iter().any(|(o, i)| dims == [*o, *i]),
            "{dims:?}: a gradient of something that is not trained"
        );
    }
}

#[test]
fn an_adapter_survives_the_round_trip() {
    let dir = tempfile::tempdir().unwrap();
    let first = adapter();
    first.save(dir.path()).unwrap();
    let second = Lora::load(dir.path(), DType::F32, &Device::Cpu).unwrap();
    assert_eq!(first.config(), second.config());
    let mut models = [first, second].map(|lora| {
        let mut model = load(Kernels::Fused);
        lora.attach(&mut model).unwrap();
        model
    });
    let [a, b] = models.each_mut().map(|m| logits(m, None).to_vec2::<f32>().unwrap());
    assert_eq!(a, b);
}

/// Writes what `make_adapter.py` reads, to `target/tmp/adapter_for_peft`; here it is read back.
#[test]
fn an_adapter_for_peft() {
    let dir = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("adapter_for_peft");
    let mut model = load(Kernels::Fused);
    let mut config =
        LoraConfig::new(3, 5.0, Targets::Names(vec!["o_proj".into(), "up_proj".into(), "attn.proj".into()]));
    config.rank_pattern.insert(r"layers\.2\.mlp\.up_proj".to_owned(), 5);
    config.use_rslora = true;
    let mut seed = 0f32;
    let mut make = |site: &Site<'_>| {
        let mut wave = |rows: usize, columns: usize| {
            seed += 1.0;
            let values = (0..rows * columns).map(|i| (0.7 * i as f32 + seed).sin() * 0.1).collect::<Vec<_>>();
            Tensor::from_vec(values, (rows, columns), &Device::Cpu)
        };
        Ok((wave(site.rank, site.input)?, wave(site.output, site.rank)?))
    };
    Lora::add(config, &mut model, &mut make).unwrap().save(&dir).unwrap();
    let expected = logits(&model, None).unsqueeze(0).unwrap();
    expected.save_safetensors("logits", dir.join("logits.safetensors")).unwrap();
    let mut again = load(Kernels::Fused);
    Lora::load(&dir, DType::F32, &Device::Cpu).unwrap().attach(&mut again).unwrap();
    close("logits", &logits(&again, None), &expected);
}

#[test]
fn patterns_are_read_as_peft_reads_them() {
    let mut config = LoraConfig::new(8, 16.0, Targets::Names(vec!["q_proj".into()]));
    config.rank_pattern.insert("layers.1.self_attn.q_proj".to_owned(), 2);
    config.alpha_pattern.insert("q_proj".to_owned(), 4.0);
    let path = |layer: usize| format!("model.language_model.layers.{layer}.self_attn.q_proj");
    assert!(config.targets(&path(1)).unwrap());
    assert!(!config.targets("model.language_model.layers.1.self_attn.xq_proj").unwrap(), "an end of a name is no name");
    assert_eq!((config.rank(&path(1)).unwrap(), config.rank(&path(11)).unwrap()), (2, 8));
    assert!((config.scale(&path(1)).unwrap() - 2.0).abs() < 1e-12);
    config.use_rslora = true;
    assert!((config.scale(&path(11)).unwrap() - 4.0 / 8f64.sqrt()).abs() < 1e-12);
    config.target_modules = Targets::Pattern(r".*language_model.*\.(q|v)_proj".to_owned());
    assert!(config.targets(&path(0)).unwrap());
    assert!(!config.targets("model.visual.blocks.0.attn.qkv").unwrap());
}

#[test]
fn an_adapter_that_does_not_fit_says_where() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |change: &dyn Fn(&mut serde_json::Value), expected: &str| {
        let from = fixtures().join("adapter");
        let text = std::fs::read_to_string(from.join("adapter_config.json")).unwrap();
        let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
        change(&mut config);
        std::fs::write(dir.path().join("adapter_config.json"), config.to_string()).unwrap();
        std::fs::copy(from.join("adapter_model.safetensors"), dir.path().join("adapter_model.safetensors")).unwrap();
        let error = Lora::load(dir.path(), DType::F32, &Device::Cpu).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    refused(&|c| c["use_dora"] = true.into(), "use_dora");
    refused(&|c| c["bias"] = "all".into(), "bias");
    refused(&|c| c["modules_to_save"] = serde_json::json!(["lm_head"]), "lm_head");
    refused(&|c| c["r"] = 3.into(), "expected lora_A of [3, in]");
    refused(&|c| c["rank_pattern"] = serde_json::json!({"(": 2}), "regular expression");
    let mut model = load(Kernels::Fused);
    let pair = |rows: usize| {
        (
            Tensor::zeros((2, 9), DType::F32, &Device::Cpu).unwrap(),
            Tensor::zeros((rows, 2), DType::F32, &Device::Cpu).unwrap(),
        )
    };
    let lora = |module: &str| {
        let config = LoraConfig::new(2, 2.0, Targets::Names(vec!["q_proj".into()]));
        Lora::new(config, BTreeMap::from([(module.to_owned(), pair(64))])).unwrap()
    };
    let error = lora("model.nothing").attach(&mut model).unwrap_err().to_string();
    assert!(error.contains("model.nothing"), "{error}");
    let error = lora("model.language_model.layers.0.self_attn.q_proj").attach(&mut model).unwrap_err().to_string();
    assert!(error.contains("layers.0.self_attn.q_proj") && error.contains("[2, 64]"), "{error}");
}

/// What is said of the fixture with some keys of its config changed.
fn loaded_with(keys: serde_json::Value) -> model::Result<Lora> {
    let (from, dir) = (fixtures().join("adapter"), tempfile::tempdir().unwrap());
    let text = std::fs::read_to_string(from.join("adapter_config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
    for (key, value) in keys.as_object().unwrap() {
        config[key] = value.clone();
    }
    std::fs::write(dir.path().join("adapter_config.json"), config.to_string()).unwrap();
    std::fs::copy(from.join("adapter_model.safetensors"), dir.path().join("adapter_model.safetensors")).unwrap();
    Lora::load(dir.path(), DType::F32, &Device::Cpu)
}

#[test]
fn an_adapter_whose_start_took_a_part_out_of_the_base_is_refused_with_a_cure() {
    for start in ["pissa", "pissa_niter_4", "olora", "corda", "lora_ga", "loftq", "a_start_to_come"] {
        let error = loaded_with(serde_json::json!({"init_lora_weights": start})).unwrap_err().to_string();
        let words = ["init_lora_weights", start, "path_initial_model_for_weight_conversion", "merge_and_unload"];
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
    // What peft writes of an adapter that it has converted, and starts that leave the base as it is.
    for start in [serde_json::json!(true), false.into(), serde_json::Value::Null, "gaussian".into(), "eva".into()] {
        loaded_with(serde_json::json!({"init_lora_weights": start, "eva_config": {"rho": 2.0}})).unwrap();
    }
}

#[test]
fn a_key_of_an_adapter_that_changes_what_is_computed_is_refused_by_name() {
    for keys in [
        serde_json::json!({"alora_invocation_tokens": [151_644, 77_091]}),
        serde_json::json!({"use_dora": true}),
        serde_json::json!({"use_qalora": true}),
        serde_json::json!({"use_bdlora": {"nblocks": 2}}),
        serde_json::json!({"arrow_config": {"top_k": 3}}),
        serde_json::json!({"kasa_config": {"beta": 1e-4}}),
        serde_json::json!({"monteclora_config": {"num_samples": 8}}),
        serde_json::json!({"modules_to_save": ["lm_head"]}),
        serde_json::json!({"bias": "lora_only"}),
        serde_json::json!({"lora_bias": true}),
        serde_json::json!({"fan_in_fan_out": true}),
        serde_json::json!({"trainable_token_indices": [5]}),
        serde_json::json!({"target_parameters": ["mlp.experts.gate_up_proj"]}),
        serde_json::json!({"layer_replication": [[0, 2], [1, 3]]}),
        serde_json::json!({"megatron_config": {"tensor_model_parallel_size": 2}}),
        serde_json::json!({"ensure_weight_tying": true}),
        serde_json::json!({"lora_alpha": 0.0}),
        serde_json::json!({"alpha_pattern": {"q_proj": -1.0}}),
        serde_json::json!({"a_key_to_come": {"gamma": 0.5}}),
    ] {
        let error = loaded_with(keys.clone()).unwrap_err().to_string();
        let key = keys.as_object().unwrap().keys().next().unwrap();
        assert!(error.contains(key) && error.contains("expected"), "{keys}: {error}");
    }
    let harmless = serde_json::json!({
        "a_key_to_come": null, "another": false, "velora_config": {"num_groups": 64}, "task_type": "CAUSAL_LM",
        "auto_mapping": {"unsloth_fixed": true}, "corda_config": {"cache_file": "x"}, "qalora_group_size": 32,
    });
    loaded_with(harmless).unwrap();
}

#[test]
fn layers_and_exceptions_are_read_as_peft_reads_them() {
    let mut config = LoraConfig::new(8, 16.0, Targets::Names(vec!["q_proj".into(), "qkv".into()]));
    let text = |layer: usize| format!("model.language_model.layers.{layer}.self_attn.q_proj");
    config.layers_to_transform = Some(lora::Layers::Many(vec![1, 11]));
    let targets = |config: &LoraConfig| [0, 1, 11].map(|layer| config.targets(&text(layer)).unwrap());
    assert_eq!(targets(&config), [false, true, true]);
    assert!(config.targets("model.visual.blocks.1.attn.qkv").unwrap());
    config.layers_pattern = Some(Targets::Names(vec!["layers".to_owned()]));
    assert_eq!(targets(&config), [false, true, true]);
    assert!(!config.targets("model.visual.blocks.1.attn.qkv").unwrap());
    config.layers_to_transform = Some(lora::Layers::One(0));
    assert_eq!(targets(&config), [true, false, false]);
    config.exclude_modules = Some(Targets::Pattern(r".*layers\.0\..*".to_owned()));
    assert_eq!(targets(&config), [false; 3]);
    // Pairs that peft would leave out.
    for keys in [serde_json::json!({"layers_to_transform": [1]}), serde_json::json!({"exclude_modules": ["q_proj"]})] {
        let error = loaded_with(keys).unwrap_err().to_string();
        assert!(error.contains("a target of adapter_config.json"), "{error}");
    }
}

#[test]
fn a_path_that_is_no_folder_of_an_adapter_says_what_is_wanted() {
    let file = fixtures().join("adapter/adapter_model.safetensors");
    let error = Lora::load(&file, DType::F32, &Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("expected a folder, got a file") && error.ends_with("adapter"), "{error}");
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(fixtures().join("adapter/adapter_config.json"), dir.path().join("adapter_config.json")).unwrap();
    std::fs::write(dir.path().join("adapter_model.bin"), "").unwrap();
    let error = Lora::load(dir.path(), DType::F32, &Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("adapter_model.bin is a pickle"), "{error}");
    let error = model::weights::config(dir.path()).unwrap_err().to_string();
    assert!(error.contains("the folder holds an adapter"), "{error}");
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n";
    std::fs::write(dir.path().join("adapter_model.safetensors"), pointer).unwrap();
    let error = Lora::load(dir.path(), DType::F32, &Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("adapter_model.safetensors") && error.contains("git lfs pull"), "{error}");
}
