//! What a step of training an adapter costs.

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Tensor, Var};
use model::Qwen3Vl;
use model::autograd::recompute::Recomputation;
use model::lora::{Lora, LoraConfig, Targets};
use model::nn::Kernels;
use model::qwen3_vl::text::DecoderInput;
use serde_json::{Value, json};

use crate::sft::loss::{Target, cross_entropy};
use crate::trainer::config::OptimizerConfig;
use crate::trainer::optimizer::AdamW;
use training_evaluation::bench::{peak_mib, rounded};

/// What to measure.
#[derive(Debug, Clone, clap::Args)]
pub struct Train {
    /// 2b, 4b or 8b, with random weights.
    #[arg(long)]
    pub shape: String,
    /// First decoder layers alone, so that it fits the machine; all without it.
    #[arg(long)]
    pub layers: Option<usize>,
    /// Type of the frozen matrices: f32, f16, q8_0, q6_k, q5_k_m or q4_k_m.
    #[arg(long, default_value = "f16")]
    pub quant: String,
    /// Rank of the adapter beside every matrix of the decoder.
    #[arg(long, default_value_t = 16)]
    pub rank: usize,
    /// Tokens a step, one sequence; the loss is on the second half.
    #[arg(long, default_value_t = 512)]
    pub tokens: usize,
    /// Steps that are timed, behind one that is not.
    #[arg(long, default_value_t = 3)]
    pub steps: usize,
    /// Compute the inside of decoder layers again on the way back.
    #[arg(long)]
    pub checkpointing: bool,
    #[arg(long, default_value_t = 2)]
    pub threads: usize,
    /// cpu (f32) or cuda (bf16, the adapter in f32).
    #[arg(long, default_value = "cpu")]
    pub device: String,
}

/// The random checkpoint, made by another process: making it is no part of the memory that is measured.
fn weights(t: &Train) -> Result<PathBuf> {
    let layers = t.layers.map(|n| format!("-{n}")).unwrap_or_default();
    let dir = PathBuf::from(format!("target/bench/{}{layers}-{}", t.shape, t.quant));
    if !dir.join("config.json").is_file() {
        tracing::info!(dir = %dir.display(), "writing a random checkpoint");
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["bench", "checkpoint", "--shape", &t.shape, "--quant", &t.quant, "--out"]).arg(&dir);
        if let Some(layers) = t.layers {
            command.args(["--layers", &layers.to_string()]);
        }
        ensure!(command.status()?.success(), "the random checkpoint could not be written");
    }
    Ok(dir)
}

/// Trains an adapter for a few steps: forward, backward and optimizer over one sequence of text.
///
/// # Errors
/// Weights that can't be made, a step that fails, an adapter without a gradient.
pub fn train(t: &Train) -> Result<Value> {
    ensure!(t.tokens >= 4 && t.steps > 0, "--tokens: at least 4, --steps: at least 1");
    let dir = weights(t)?;
    let device = model::device(&t.device).context("--device")?;
    let dtype = if device.is_cpu() { DType::F32 } else { DType::BF16 };
    let mut model = Qwen3Vl::load(&dir, Kernels::Differentiable, dtype, &device)?;
    let names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
    let lora = LoraConfig::new(t.rank, 2.0 * t.rank as f64, Targets::Names(names.map(str::to_owned).to_vec()));
    let mut variables: Vec<(String, Var)> = Vec::new();
    Lora::add(lora, &mut model, &mut |site| {
        let mut var = |half: &str, dims: (usize, usize)| -> model::Result<Tensor> {
            let bound = 1.0 / (site.input as f64).sqrt();
            let var = Var::rand_f64(-bound, bound, dims, DType::F32, &device)?;
            variables.push((format!("{}.{half}", site.module), var.clone()));
            Ok(var.into_inner())
        };
        Ok((var("lora_A", (site.rank, site.input))?, var("lora_B", (site.output, site.rank))?))
    })?;
    let config = OptimizerConfig {
        learning_rate: 1e-4,
        warmup_share: 0.0,
        final_share: 1.0,
        heads_rate: 1.0,
        beta_1: 0.9,
        beta_2: 0.999,
        weight_decay: 0.0,
        max_grad_norm: 1.0,
    };
    let mut optimizer = AdamW::new(&variables, &config)?;
    let ids: Vec<u32> = (0..t.tokens as u32).map(|i| 5 + i * 7919 % 50_000).collect();
    let positions: Vec<[u32; 3]> = (0..t.tokens as u32).map(|i| [i; 3]).collect();
    let rows: Vec<u32> = (t.tokens as u32 / 2..t.tokens as u32 - 1).collect();
    let mut seconds = Vec::new();
    let mut losses = Vec::new();
    for step in 0..=t.steps {
        let begin = Instant::now();
        let recomputation = Recomputation::new(variables.iter().map(|(_, var)| var.as_tensor()));
        let input = DecoderInput {
            embeddings: model.embed(&Tensor::new(ids.as_slice(), &device)?)?.unsqueeze(0)?,
            positions: &positions,
            deepstack: &[],
            cache: None,
            recomputation: t.checkpointing.then_some(&recomputation),
        };
        let hidden = model.decoder().forward(input)?.squeeze(0)?;
        let hidden = hidden.index_select(&Tensor::new(rows.as_slice(), &device)?, 0)?;
        let targets =
            rows.iter().map(|&r| Target { ids: vec![(ids[r as usize + 1], 1.0)], weight: 1.0 }).collect::<Vec<_>>();
        let loss = (cross_entropy(&model.logits(&hidden)?, targets)? / rows.len() as f64)?;
        losses.push(f64::from(loss.to_scalar::<f32>()?));
        let store = loss.backward()?;
        let mut grads = Vec::with_capacity(variables.len());
        for (name, var) in &variables {
            let grad = recomputation.gradient(&store, var)?;
            let grad = grad.ok_or_else(|| anyhow::anyhow!("{name} has no gradient"))?;
            grads.push(Some(grad));
        }
        optimizer.step(&variables, &grads, 1.0, config.learning_rate)?;
        if step > 0 {
            seconds.push(begin.elapsed().as_secs_f64());
        }
    }
    seconds.sort_by(f64::total_cmp);
    let median = seconds[seconds.len() / 2];
    Ok(json!({
        "shape": t.shape, "layers": model.config().text_config.num_hidden_layers, "quant": t.quant, "rank": t.rank,
        "trained_parameters": variables.iter().map(|(_, v)| v.elem_count()).sum::<usize>(),
        "tokens": t.tokens, "checkpointing": t.checkpointing, "threads": t.threads, "device": t.device,
        "step_s": (median * 1e3).round() / 1e3, "tokens_per_s": rounded(t.tokens as f64 / median),
        "first_loss": losses[0], "last_loss": losses[losses.len() - 1],
        "peak_mib": rounded(peak_mib()?),
    }))
}
