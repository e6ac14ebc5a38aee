//! What the hold-out of SFT asks of a tokenizer that has each digit apart.

use std::path::Path;

use candle_core::Device;
use model::answer::chain;
use training_data::synth::SynthConfig;

use super::*;
use crate::trainer::config::path_of;

/// A tiny Qwen3-VL with a tokenizer of Qwen's kind.
fn qwen() -> Student {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/qwen3vl");
    let dir = tempfile::tempdir().unwrap();
    for file in
        ["tiny/config.json", "tiny/model.safetensors", "tiny/preprocessor_config.json", "converted/tokenizer.json"]
    {
        let from = fixtures.join(file);
        std::fs::copy(&from, dir.path().join(from.file_name().unwrap())).unwrap();
    }
    Student::load(dir.path(), &Device::Cpu).unwrap()
}

#[test]
fn a_perfect_model_with_qwens_tokenizer_ends_each_chain_of_the_hold_out_within_the_budget() {
    let (student, config) = (qwen(), read_config(&path_of("sft.toml")).unwrap());
    assert_eq!(hold_out_mode(&config.sft), Mode::FullChain);
    let data = DataConfig { shards: None, synth: Some(SynthConfig::default()) };
    let Some(EvalConfig { max_tokens, .. }) = config.eval else { panic!("sft.toml has a hold-out") };
    let vocabulary = student.model.config().text_config.vocab_size;
    let open = |max_tokens| {
        let eval = EvalConfig { shards: None, examples: 3, answers: 3, max_tokens };
        let parts = Parts { run: &config.run, sft: &config.sft, data: &data, eval: Some(&eval) };
        let targets = loss::Targets::new(&student.tokenizer, vocabulary, 0.0, 1.0);
        Sft::new(parts, &student, targets).map(|objective| objective.hold_out)
    };
    let hold_out = open(max_tokens).unwrap();
    assert_eq!(hold_out.len(), 3);
    let policy = student.policy().unwrap();
    let needed = policy.budget(max_tokens, Mode::FullChain).unwrap();
    let context = policy.network().config().text_config.max_position_embeddings;
    for example in &hold_out {
        let (prompt, response) = example.sequence.ids.split_at(example.sequence.response);
        // As an answer is decoded: up to the budget, as far as the context goes.
        let limit = needed.min(context - prompt.len());
        let written = &response[..response.len().min(limit)];
        let (end, written) = written.split_last().unwrap();
        assert_eq!(*end, student.tokenizer.end, "cut at {limit} of {}", response.len());
        let parsed = chain::parse(&student.tokenizer.decode(written).unwrap());
        assert_eq!((parsed.steps(), parsed.trajectory.is_ok()), ([true; 5], true));
        assert!(response.len() > 2048, "{}: what was allowed before would do", response.len());
    }
    let refused = format!("{:#}", open(Budget::Tokens(2048)).unwrap_err());
    assert!(refused.starts_with("eval: ") && refused.contains("2048"), "{refused}");
    assert!(refused.contains(&needed.to_string()), "{refused}");
}
