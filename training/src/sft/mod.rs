//! Supervised fine-tuning on chains and answers; the loss is on the response alone.
//!
//! Two things beside plain next-token loss make training a small model from nothing possible in hours on two cores,
//! and neither outlives it: soft targets for numbers ([`loss`]), and a linear head that reads from each vision token
//! how the surface under it moved. Both can be switched off in the config.

mod config;
pub mod example;
pub mod loss;

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{Init, VarBuilder};
use model::Qwen3Vl;
use model::checkpoint::Checkpoints;
use model::lora::{LoraConfig, Targets};
use model::nn::Dropout;
use model::prompt::Mode;
use model::text::{DecoderInput, Tapped};
use serde_json::json;

use crate::nano::{Fresh, named, read_json, write_json};
use crate::optimizer::AdamW;
pub use config::{Adapter, Config, read_config};
use example::{Builder, Example, FLOW_TARGETS};
use loss::cross_entropy;

/// AdamW's second decay: shorter than usual, since runs are.
const BETA_2: f32 = 0.99;

/// A linear head on hidden states; kept beside the model for the next stage, no part of it.
struct Head {
    weight: Tensor,
    bias: Tensor,
}

/// Sums over one micro-batch.
#[derive(Debug, Clone, Copy, Default)]
struct Losses {
    text: f64,
    flow: f64,
    /// What `flow` is for a head that says that nothing moves.
    still: f64,
    /// Mean absolute error of the pose head, radians and scene units alike.
    pose: f64,
    tokens: usize,
}

/// Trains a model.
///
/// # Errors
/// A config out of bounds, a folder that can't be written, a loss or gradient that is not a number.
pub fn run(config: &Config, init: Option<&Path>, out: &Path) -> Result<()> {
    config.check()?;
    let fresh = match (init, &config.lora) {
        (Some(dir), Some(lora)) => {
            let targets = Targets::Names(lora.targets.clone());
            let lora = LoraConfig { lora_dropout: lora.dropout, ..LoraConfig::new(lora.r, lora.alpha, targets) };
            Fresh::adapted(dir, lora, config.seed)?
        }
        (None, Some(_)) => bail!("lora: expected --init, the checkpoint that the adapter is for"),
        (Some(dir), None) => Fresh::load(dir)?,
        (None, None) => {
            let shape = config.shape.as_ref().context("shape: expected a model's sizes, or --init with a model")?;
            Fresh::new(shape, config.seed)?
        }
    };
    config.fits(fresh.model.decoder().depth())?;
    let hidden = fresh.model.config().text_config.hidden_size;
    let vocabulary = fresh.model.config().text_config.vocab_size;
    let aux = VarBuilder::from_varmap(&fresh.variables, DType::F32, &Device::Cpu).pp("aux");
    let head = |name: &str, outputs: usize, weight: f64| -> Result<Option<Head>> {
        if weight <= 0.0 {
            return Ok(None);
        }
        let vb = aux.pp(name);
        Ok(Some(Head {
            weight: vb.get_with_hints((outputs, hidden), "weight", Init::Const(0.0))?,
            bias: vb.get_with_hints(outputs, "bias", Init::Const(0.0))?,
        }))
    };
    let flow_head = head("flow", FLOW_TARGETS, config.flow_weight)?;
    let pose_head = head("pose", 6, config.pose_weight)?;
    if let Some(dir) = init {
        fresh.load_heads(dir)?;
    }
    let variables = named(&fresh.variables);
    let parameters: usize = variables.iter().filter(|(n, _)| !n.starts_with("aux.")).map(|(_, v)| v.elem_count()).sum();
    tracing::info!(parameters, tensors = variables.len(), "model");
    let targets = loss::Targets::new(&fresh.tokenizer, vocabulary, config.number_sigma, config.tail_weight);
    let mut optimizer = AdamW::new(&variables, BETA_2, config.weight_decay as f32);
    let pools = (0..config.workers)
        .map(|_| Ok(rayon::ThreadPoolBuilder::new().num_threads(1).stack_size(64 << 20).build()?))
        .collect::<Result<Vec<_>>>()?;
    let trainer = Trainer {
        config,
        fresh: &fresh,
        targets: &targets,
        flow_head: flow_head.as_ref(),
        pose_head: pose_head.as_ref(),
        pools: &pools,
    };
    std::fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    let earlier = init.map(stages).transpose()?.unwrap_or_default();
    let (mut seen, start) = (Losses::default(), Instant::now());
    let mut curve = Vec::new();
    for step in 0..config.steps {
        let (grads, losses) = trainer.step(step, &variables)?;
        let norm = grads.iter().flatten().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
        ensure!(norm.is_finite(), "step {step}: the gradient is not a number");
        let scale = (config.max_grad_norm / norm).min(1.0);
        optimizer.step(&variables, &grads, scale as f32, config.learning_rate_at(step) as f32)?;
        seen.text += losses.text / config.log_every as f64;
        seen.flow += losses.flow / config.log_every as f64;
        seen.still += losses.still / config.log_every as f64;
        seen.pose += losses.pose / config.log_every as f64;
        seen.tokens += losses.tokens;
        if (step + 1) % config.log_every == 0 {
            ensure!(seen.text.is_finite(), "step {step}: the loss is not a number");
            let seconds = start.elapsed().as_secs_f64();
            tracing::info!(
                step = step + 1,
                loss = format!("{:.4}", seen.text),
                flow = format!("{:.4}", seen.flow),
                still = format!("{:.4}", seen.still),
                pose = format!("{:.4}", seen.pose),
                lr = format!("{:.2e}", config.learning_rate_at(step)),
                tokens_per_s = (seen.tokens as f64 / seconds) as u64,
                eta_s = (seconds / (step + 1) as f64 * (config.steps - step - 1) as f64) as u64,
            );
            curve.push(json!({"step": step + 1, "loss": seen.text, "flow": seen.flow, "still": seen.still}));
            seen = Losses { tokens: seen.tokens, ..Losses::default() };
        }
        if (step + 1) % config.save_every == 0 || step + 1 == config.steps {
            fresh.save(out)?;
            let stage = json!({
                "stage": "sft", "config": config, "steps_done": step + 1,
                "windows_seen": (step + 1) * config.micro_batch * config.workers,
                "seconds": start.elapsed().as_secs(), "curve": curve,
            });
            let stages: Vec<_> = earlier.iter().chain([&stage]).collect();
            write_json(&out.join("manifest.json"), &json!({ "parameters": parameters, "stages": stages }))?;
        }
    }
    Ok(())
}

/// What a checkpoint's manifest says of how it was made.
fn stages(dir: &Path) -> Result<Vec<serde_json::Value>> {
    let path = dir.join("manifest.json");
    if !path.is_file() {
        return Ok(Vec::new());
    }
    let manifest = read_json(&path)?;
    Ok(manifest["stages"].as_array().cloned().unwrap_or_default())
}

struct Trainer<'a> {
    config: &'a Config,
    fresh: &'a Fresh,
    targets: &'a loss::Targets,
    flow_head: Option<&'a Head>,
    pose_head: Option<&'a Head>,
    /// One thread each: candle's own parallel loops would else meet in one shared pool.
    pools: &'a [rayon::ThreadPool],
}

impl Trainer<'_> {
    /// Mean gradients of one step, one flat vector a variable: every worker draws its own windows and takes its own
    /// share of the batch.
    fn step(&self, step: usize, variables: &[(String, Var)]) -> Result<(Vec<Vec<f32>>, Losses)> {
        let results: Vec<Result<(Vec<Vec<f32>>, Losses)>> = std::thread::scope(|scope| {
            let workers: Vec<_> = (self.pools.iter().enumerate())
                .map(|(worker, pool)| scope.spawn(move || pool.install(|| self.micro_batch(step, worker, variables))))
                .collect();
            let lost = || bail!("a worker panicked");
            workers.into_iter().map(|w| w.join().unwrap_or_else(|_| lost())).collect()
        });
        let share = 1.0 / self.config.workers as f32;
        let mut sums: Vec<Vec<f32>> = vec![Vec::new(); variables.len()];
        let mut losses = Losses::default();
        for result in results {
            let (grads, l) = result?;
            for (sum, grad) in sums.iter_mut().zip(&grads) {
                // Empty where a variable stays as it is.
                sum.resize(grad.len(), 0.0);
                sum.iter_mut().zip(grad).for_each(|(s, g)| *s += g * share);
            }
            losses.text += l.text * f64::from(share);
            losses.flow += l.flow * f64::from(share);
            losses.still += l.still * f64::from(share);
            losses.pose += l.pose * f64::from(share);
            losses.tokens += l.tokens;
        }
        Ok((sums, losses))
    }

    fn micro_batch(&self, step: usize, worker: usize, variables: &[(String, Var)]) -> Result<(Vec<Vec<f32>>, Losses)> {
        let c = self.config;
        let flow_only = step < c.flow_only_steps;
        let full = !flow_only && c.full_chain_every > 0 && step % c.full_chain_every == c.full_chain_every - 1;
        let (mode, size) =
            if full { (Mode::FullChain, c.full_chain_micro_batch) } else { (Mode::AnswerOnly, c.micro_batch) };
        let builder = Builder {
            tokenizer: &self.fresh.tokenizer,
            processor: &self.fresh.processor,
            config: self.fresh.model.config(),
            synth: &c.synth,
        };
        // Windows are counted through: no two steps or workers see the same one.
        let first = ((step * c.workers + worker) * c.micro_batch.max(c.full_chain_micro_batch)) as u64;
        let mut examples = Vec::with_capacity(size);
        for index in first..first + size as u64 {
            examples.extend(builder.synthetic(c.seed, index, mode)?);
        }
        if flow_only {
            examples.iter_mut().for_each(Example::drop_response);
        }
        ensure!(!examples.is_empty(), "step {step}: no window of the batch gives a chain");
        let _dropout = Dropout::with_seed(c.seed.rotate_left(32) ^ first);
        let checkpoints = Checkpoints::new(variables.iter().map(|(_, var)| var.as_tensor()));
        let (loss, losses) = self.loss(&examples, c.checkpointing.then_some(&checkpoints))?;
        let store = loss.backward()?;
        let flat = |(name, var): &(String, Var)| match checkpoints.gradient(&store, var)? {
            // Four windows have four motions: whatever tells them apart would learn those by heart.
            _ if flow_only && !self.reads_motion(name) => Ok(Vec::new()),
            _ if !flow_only && self.is_frozen(name) => Ok(Vec::new()),
            Some(grad) => Ok(grad.flatten_all()?.to_vec1::<f32>()?),
            // A kernel without a backward cuts the graph in silence; this is where it would show.
            None => bail!("{name} has no gradient: an operation above it cut the graph"),
        };
        Ok((variables.iter().map(flat).collect::<Result<_>>()?, losses))
    }

    /// Whether a variable belongs to the layers that stay as they are.
    fn is_frozen(&self, name: &str) -> bool {
        let frozen = self.config.frozen_layers;
        frozen > 0 && (name.contains("visual.") || (0..frozen).any(|i| name.contains(&format!("layers.{i}."))))
    }

    /// Whether a variable is trained while the displacement head is alone: the MLPs between it and the tokens.
    fn reads_motion(&self, name: &str) -> bool {
        name.starts_with("aux.")
            || (0..=self.config.flow_layer).any(|i| {
                let layer = format!("layers.{i}.");
                name.contains(&format!("{layer}mlp")) || name.contains(&format!("{layer}post_attention"))
            })
    }

    /// Mean loss of a batch whose frames have one size.
    fn loss(&self, examples: &[Example], checkpoints: Option<&Checkpoints>) -> Result<(Tensor, Losses)> {
        let batch = Batch::new(examples, self.fresh.tokenizer.pad);
        let (model, device) = (&self.fresh.model, &Device::Cpu);
        let mut vision = model.visual().forward(&batch.patches(examples)?, examples[0].grid)?; // [5b, n, d]
        if self.config.frozen_layers > 0 || examples.iter().all(|e| e.ids.len() == e.response) {
            vision.tokens = vision.tokens.detach();
            vision.deepstack.iter_mut().for_each(|d| *d = d.detach());
        }
        let images = vision.tokens.flatten_to(1)?;
        let deepstack = vision.deepstack.iter().map(|d| d.flatten_to(1)).collect::<candle_core::Result<Vec<_>>>()?;
        let embedded = model.embed_batch(&batch.ids, examples.len(), &images, &deepstack)?;
        let mut tapped = None;
        let mut tap = |layer: usize, seen: Tapped<'_>| {
            if let (true, Tapped::Hidden(x)) = (layer == self.config.flow_layer, seen) {
                tapped = Some(x.clone());
            }
        };
        let mut input = DecoderInput {
            embeddings: embedded.embeddings,
            positions: &batch.positions,
            deepstack: &embedded.deepstack,
            cache: None,
            checkpoints,
        };
        let (frozen, depth) = (self.config.frozen_layers, model.decoder().depth());
        let flow_only = examples.iter().all(|e| e.ids.len() == e.response);
        if !flow_only && frozen > 0 {
            input.embeddings = model.decoder().layers(&mut input, 0..frozen, &mut tap)?.detach();
            input.embeddings = model.decoder().layers(&mut input, frozen..depth, &mut tap)?;
        } else {
            input.embeddings = model.decoder().layers(&mut input, 0..depth, &mut tap)?;
        }
        let hidden = model.decoder().normalise(&input.embeddings)?;
        let mut losses = Losses { tokens: batch.ids.len(), ..Losses::default() };
        let flow = match (self.flow_head, tapped) {
            (Some(head), Some(tapped)) => {
                let (flow, still) = batch.flow_loss(examples, head, &tapped, model)?;
                losses.flow = f64::from(flow.to_scalar::<f32>()?);
                losses.still = still;
                Some((flow * self.config.flow_weight)?)
            }
            _ => None,
        };
        let (rows, targets) = batch.targets(examples, self.targets);
        if rows.is_empty() {
            return Ok((flow.context("flow_only_steps without flow_weight")?, losses));
        }
        let pose = match self.pose_head {
            Some(head) => Some(batch.pose_loss(examples, head, &hidden)?),
            None => None,
        };
        let weight: f32 = targets.iter().map(|t| t.weight).sum();
        let hidden = hidden.flatten_to(1)?.index_select(&Tensor::new(rows.as_slice(), device)?, 0)?;
        let text = (cross_entropy(&model.logits(&hidden)?, targets)? / f64::from(weight))?;
        losses.text = f64::from(text.to_scalar::<f32>()?);
        let mut total = text;
        if let Some(flow) = flow {
            total = (total + flow)?;
        }
        if let Some(pose) = pose {
            losses.pose = f64::from(pose.to_scalar::<f32>()?);
            total = (total + (pose * self.config.pose_weight)?)?;
        }
        Ok((total, losses))
    }
}

/// Examples side by side, padded on the right: a causal decoder never looks there.
struct Batch {
    ids: Vec<u32>,
    positions: Vec<[u32; 3]>,
    width: usize,
}

impl Batch {
    fn new(examples: &[Example], pad: u32) -> Self {
        let width = examples.iter().map(|e| e.ids.len()).max().unwrap_or(0);
        let (mut ids, mut positions) = (Vec::new(), Vec::new());
        for example in examples {
            ids.extend(&example.ids);
            positions.extend(&example.positions);
            let padding = width - example.ids.len();
            ids.extend(std::iter::repeat_n(pad, padding));
            positions.extend(std::iter::repeat_n([0; 3], padding));
        }
        Self { ids, positions, width }
    }

    /// `[5b, n, patch_dim]`
    fn patches(&self, examples: &[Example]) -> Result<Tensor> {
        Ok(Tensor::cat(&examples.iter().map(|e| &e.patches).collect::<Vec<_>>(), 0)?)
    }

    /// Rows of the flattened hidden states that predict a token of a response, and those tokens.
    fn targets(&self, examples: &[Example], targets: &loss::Targets) -> (Vec<u32>, Vec<loss::Target>) {
        let places = examples.iter().enumerate().flat_map(|(b, e)| (e.response..e.ids.len()).map(move |i| (b, e, i)));
        places.map(|(b, e, i)| ((b * self.width + i - 1) as u32, targets.of(e.ids[i]))).unzip()
    }

    /// Mean absolute error of the poses that the head reads.
    fn pose_loss(&self, examples: &[Example], head: &Head, hidden: &Tensor) -> Result<Tensor> {
        let device = &Device::Cpu;
        let places = examples.iter().enumerate().flat_map(|(b, e)| e.poses.iter().map(move |p| (b, p)));
        let (rows, poses): (Vec<u32>, Vec<[f32; 6]>) =
            places.map(|(b, (i, pose))| ((b * self.width + i) as u32, *pose)).unzip();
        ensure!(!rows.is_empty(), "no response of the batch has poses");
        let poses = Tensor::from_vec(poses.concat(), (rows.len(), 6), device)?;
        let hidden = hidden.flatten_to(1)?.index_select(&Tensor::new(rows, device)?, 0)?;
        let read = hidden.matmul(&head.weight.t()?)?.broadcast_add(&head.bias)?;
        Ok((read - poses)?.abs()?.mean_all()?)
    }

    /// Mean Charbonnier distance of the displacements that the head reads from those that are.
    fn flow_loss(&self, examples: &[Example], head: &Head, hidden: &Tensor, model: &Qwen3Vl) -> Result<(Tensor, f64)> {
        let device = &Device::Cpu;
        let image_token = model.config().image_token_id;
        let rows: Vec<u32> =
            self.ids.iter().enumerate().filter(|(_, id)| **id == image_token).map(|(i, _)| i as u32).collect();
        let values: Vec<f32> = examples.iter().flat_map(|e| e.flow.iter().copied()).collect();
        ensure!(values.len() == rows.len() * FLOW_TARGETS, "displacements of another grid");
        let mask: Vec<f32> = values.iter().map(|v| if v.is_nan() { 0.0 } else { 1.0 }).collect();
        let known = mask.iter().sum::<f32>().max(1.0);
        let still: f32 = values.iter().filter(|v| !v.is_nan()).map(|v| (v * v + 1e-4).sqrt()).sum();
        let shape = (rows.len(), FLOW_TARGETS);
        let values: Vec<f32> = values.iter().map(|v| if v.is_nan() { 0.0 } else { *v }).collect();
        let (values, mask) = (Tensor::from_vec(values, shape, device)?, Tensor::from_vec(mask, shape, device)?);
        let hidden = hidden.flatten_to(1)?.index_select(&Tensor::new(rows, device)?, 0)?;
        let read = hidden.matmul(&head.weight.t()?)?.broadcast_add(&head.bias)?;
        let distance = (((read - values)?.sqr()? + 1e-4)?.sqrt()? * mask)?;
        Ok(((distance.sum_all()? / f64::from(known))?, f64::from(still / known)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nano::Shape;
    use model::nn::Kernels;

    /// candle's fused kernels have no backward and say nothing: the trainer must.
    #[test]
    fn a_kernel_that_cuts_the_graph_is_an_error_and_not_a_variable_that_never_learns() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/training/nano-3-all.toml");
        let mut config = read_config(&path).unwrap();
        config.micro_batch = 1;
        config.shape = Some(Shape {
            hidden_size: 48,
            layers: 2,
            heads: 2,
            kv_heads: 1,
            intermediate_size: 64,
            vision_hidden_size: 32,
            vision_depth: 2,
            vision_heads: 2,
            vision_intermediate_size: 32,
            deepstack: vec![0],
            min_pixels: 1024,
            max_pixels: 3 * 1024,
        });
        let mut fresh = Fresh::new(config.shape.as_ref().unwrap(), 0).unwrap();
        let vb = VarBuilder::from_varmap(&fresh.variables, DType::F32, &Device::Cpu);
        fresh.model = Qwen3Vl::new(&fresh.model.config().clone(), Kernels::Fused, vb).unwrap();
        let targets = loss::Targets::new(&fresh.tokenizer, fresh.model.config().text_config.vocab_size, 0.0, 1.0);
        let trainer =
            Trainer { config: &config, fresh: &fresh, targets: &targets, flow_head: None, pose_head: None, pools: &[] };
        let error = trainer.micro_batch(0, 0, &named(&fresh.variables)).unwrap_err().to_string();
        assert!(error.contains("has no gradient"), "{error}");
    }
}
