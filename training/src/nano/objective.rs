//! SFT with crutches: what makes training a small model from nothing possible in hours on two cores. Soft targets for
//! numbers, a linear head that reads from each vision token how the surface under it moved, one that reads poses from the
//! text, and layers that stand still. None outlives the training, and each can be switched off.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use candle_core::Tensor;
use candle_nn::Init;
use model::autograd::recompute::Recomputation;
use model::qwen3_vl::text::{DecoderInput, Tapped};
use serde_json::Value;

use super::config::Config;
use crate::batch::{self, Batch, scalar, select};
use crate::sft::example::{Example, FLOW_TARGETS};
use crate::sft::loss::{Targets, cross_entropy};
use crate::sft::{Parts, Sft, SftTerms};
use crate::student::{Adapter, HEAD_PREFIX, Shape, Student};
use crate::trainer::config::{OptimizerConfig, RunConfig};
use crate::trainer::stage::{self, Stage};
use crate::trainer::{Finished, Job, Objective, Share, Sources, named_terms};

/// Trains a stage of nano.
///
/// # Errors
/// Those of [`stage::run`].
pub fn run(config: &Config, init: Option<&Path>, out: &Path, job: &Job) -> Result<Finished> {
    stage::run(config, init, out, job)
}

impl Stage for Config {
    const NAME: &'static str = "nano";

    type Objective<'a> = Nano<'a>;

    fn common(&self) -> (&RunConfig, &OptimizerConfig) {
        (&self.run, &self.optimizer)
    }

    fn student(&self) -> (Option<&Shape>, Option<&Adapter>) {
        (self.shape.as_ref(), None)
    }

    fn check(&self) -> Result<()> {
        self.check()
    }

    fn objective<'a>(&'a self, student: &'a Student, init: Option<&Path>) -> Result<Nano<'a>> {
        self.fits(student.model.decoder().depth())?;
        let objective = Nano::new(self, student)?;
        init.map_or(Ok(()), |dir| student.load_heads(dir))?;
        Ok(objective)
    }
}

/// A linear head on hidden states; kept beside the model for the next stage, no part of it.
struct Head {
    weight: Tensor,
    bias: Tensor,
}

impl Head {
    fn new(student: &Student, name: &str, outputs: usize, weight: f64) -> Result<Option<Self>> {
        if weight <= 0.0 {
            return Ok(None);
        }
        let (vb, hidden) = (student.heads().pp(name), student.model.config().text_config.hidden_size);
        Ok(Some(Self {
            weight: vb.get_with_hints((outputs, hidden), "weight", Init::Const(0.0))?,
            bias: vb.get_with_hints(outputs, "bias", Init::Const(0.0))?,
        }))
    }

    /// `[n, d] -> [n, outputs]`
    fn read(&self, hidden: &Tensor) -> candle_core::Result<Tensor> {
        hidden.to_dtype(self.weight.dtype())?.matmul(&self.weight.t()?)?.broadcast_add(&self.bias)
    }
}

named_terms! {
    /// What is logged of nano.
    pub struct NanoTerms {
        /// Cross-entropy of the responses' tokens.
        loss,
        /// Distance of the displacements that the head reads from those that are.
        flow,
        /// The same for a head that says that nothing moves.
        still,
        /// Error of the poses that the other head reads.
        pose,
    }
}

/// The objective of nano.
pub struct Nano<'a> {
    config: &'a Config,
    sft: Sft<'a>,
    flow_head: Option<Head>,
    pose_head: Option<Head>,
}

impl<'a> Nano<'a> {
    /// Opens the data, reads the hold-out, and adds the heads to the student.
    ///
    /// # Errors
    /// Data that can't be read.
    pub fn new(config: &'a Config, student: &'a Student) -> Result<Self> {
        let (n, vocabulary) = (&config.nano, student.model.config().text_config.vocab_size);
        let targets = Targets::new(&student.tokenizer, vocabulary, n.number_sigma, n.tail_weight);
        let Config { run, sft, data, eval, .. } = config;
        let sft = Sft::new(Parts { run, sft, data, eval: eval.as_ref() }, student, targets)?;
        let flow_head = Head::new(student, "flow", FLOW_TARGETS, n.flow_weight)?;
        let pose_head = Head::new(student, "pose", 6, n.pose_weight)?;
        Ok(Self { config, sft, flow_head, pose_head })
    }

    /// Hidden states, and those of the layer that the displacement head reads.
    fn forward(
        &self,
        batch: &Batch,
        examples: &[Example],
        recomputation: Option<&Recomputation>,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let (model, frozen) = (&self.sft.student.model, self.config.nano.frozen_layers);
        let flow_only = is_flow_only(examples);
        let embeddings = batch::embed(model, batch, examples.iter().map(|e| &e.sequence), frozen > 0 || flow_only)?;
        let mut tapped = None;
        let mut tap = |layer: usize, seen: Tapped<'_>| {
            if let (true, Tapped::Hidden(x)) = (layer == self.config.nano.flow_layer, seen) {
                tapped = Some(x.clone());
            }
        };
        let mut input = DecoderInput {
            embeddings: embeddings.tokens,
            positions: &batch.positions,
            deepstack: &embeddings.deepstack,
            cache: None,
            recomputation,
        };
        let (decoder, first) = (model.decoder(), if flow_only { 0 } else { frozen });
        if first > 0 {
            input.embeddings = decoder.layers(&mut input, 0..first, &mut tap)?.detach();
        }
        let hidden = decoder.layers(&mut input, first..decoder.depth(), &mut tap)?;
        Ok((decoder.normalise(&hidden)?, tapped))
    }

    /// Sum of the absolute errors of the poses that the head reads.
    fn pose_loss(&self, batch: &Batch, examples: &[Example], head: &Head, hidden: &Tensor) -> Result<Tensor> {
        let places = examples.iter().enumerate().flat_map(|(b, e)| e.poses.iter().map(move |p| (b, p)));
        let (rows, poses): (Vec<u32>, Vec<[f32; 6]>) = places.map(|(b, (i, pose))| (batch.row(b, *i), *pose)).unzip();
        ensure!(!rows.is_empty(), "no response of the batch has poses");
        let poses = Tensor::from_vec(poses.concat(), (rows.len(), 6), hidden.device())?;
        Ok((head.read(&select(hidden, &rows)?)? - poses)?.abs()?.sum_all()?)
    }

    /// Sum of the Charbonnier distances of the displacements that the head reads from those that are; the same for a head
    /// that says that nothing moves.
    fn flow_loss(&self, batch: &Batch, examples: &[Example], head: &Head, hidden: &Tensor) -> Result<(Tensor, f64)> {
        let rows = batch.rows_of(self.sft.student.model.config().image_token_id);
        let values: Vec<f32> = examples.iter().flat_map(|e| e.flow.iter().copied()).collect();
        ensure!(values.len() == rows.len() * FLOW_TARGETS, "displacements of another grid");
        let mask: Vec<f32> = values.iter().map(|v| if v.is_nan() { 0.0 } else { 1.0 }).collect();
        let still: f32 = values.iter().filter(|v| !v.is_nan()).map(|v| (v * v + 1e-4).sqrt()).sum();
        let (shape, device) = ((rows.len(), FLOW_TARGETS), hidden.device());
        let values: Vec<f32> = values.iter().map(|v| if v.is_nan() { 0.0 } else { *v }).collect();
        let (values, mask) = (Tensor::from_vec(values, shape, device)?, Tensor::from_vec(mask, shape, device)?);
        let distance = (((head.read(&select(hidden, &rows)?)? - values)?.sqr()? + 1e-4)?.sqrt()? * mask)?;
        Ok((distance.sum_all()?, f64::from(still)))
    }
}

/// Whether the examples are prompts without response.
fn is_flow_only(examples: &[Example]) -> bool {
    examples.iter().all(|e| e.sequence.ids.len() == e.sequence.response)
}

impl Objective for Nano<'_> {
    type Batch = Vec<Example>;
    type Terms = NanoTerms;

    fn inputs(&self) -> Value {
        self.sft.inputs()
    }

    fn sources(&self) -> Sources {
        self.sft.sources()
    }

    fn epoch(&self) -> Option<u64> {
        self.sft.epoch()
    }

    fn length(&self, example: u64) -> usize {
        self.sft.length(example)
    }

    fn batch(&self, step: usize, examples: &[u64]) -> Result<Vec<Example>> {
        let mut batch = self.sft.batch(step, examples)?;
        if step < self.config.nano.flow_only_steps {
            batch.iter_mut().for_each(Example::drop_response);
        }
        Ok(batch)
    }

    fn counts(&self, examples: &Vec<Example>) -> NanoTerms {
        let known = |e: &Example| e.flow.iter().filter(|v| !v.is_nan()).count() as f64;
        let known: f64 = examples.iter().map(known).sum();
        let pose = examples.iter().map(|e| 6.0 * e.poses.len() as f64).sum();
        let SftTerms { loss } = self.sft.counts(examples);
        NanoTerms { loss, flow: known, still: known, pose }
    }

    fn loss(
        &self,
        examples: &Vec<Example>,
        totals: &NanoTerms,
        recomputation: Option<&Recomputation>,
    ) -> Result<Share<NanoTerms>> {
        let (mut terms, c) = (NanoTerms::default(), &self.config.nano);
        if examples.is_empty() {
            return Ok(Share { loss: None, terms });
        }
        let batch = Batch::new(examples.iter().map(|e| &e.sequence), self.sft.student.tokenizer.pad);
        let (hidden, tapped) = self.forward(&batch, examples, recomputation)?;
        let mut losses = Vec::new();
        if let (Some(head), Some(tapped)) = (&self.flow_head, tapped) {
            let (flow, still) = self.flow_loss(&batch, examples, head, &tapped)?;
            let flow = (flow / totals.flow)?;
            (terms.flow, terms.still) = (scalar(&flow)?, still / totals.still);
            losses.push((flow * c.flow_weight)?);
        }
        let (rows, targets) = self.sft.responses(&batch, examples);
        if !rows.is_empty() {
            let text =
                (cross_entropy(&self.sft.student.model.logits(&select(&hidden, &rows)?)?, targets)? / totals.loss)?;
            terms.loss = scalar(&text)?;
            losses.push(text);
            if let Some(head) = &self.pose_head {
                let pose = (self.pose_loss(&batch, examples, head, &hidden)? / totals.pose)?;
                terms.pose = scalar(&pose)?;
                losses.push((pose * c.pose_weight)?);
            }
        }
        let loss = losses.into_iter().map(Ok).reduce(|a, b| a? + b?).transpose()?;
        Ok(Share { loss: Some(loss.context("neither a response nor displacements to learn from")?), terms })
    }

    fn tokens(&self, examples: &Vec<Example>) -> usize {
        self.sft.tokens(examples)
    }

    fn describe(&self, examples: &Vec<Example>) -> Value {
        self.sft.describe(examples)
    }

    fn trains(&self, step: usize, variable: &str) -> bool {
        let (c, layer) = (&self.config.nano, |i: usize| format!("layers.{i}."));
        if step < c.flow_only_steps {
            // Few windows have few motions: whatever tells them apart would learn those by heart. What is trained is
            // the MLPs between the tokens and the head.
            let below = |i: usize| {
                let layer = layer(i);
                variable.contains(&format!("{layer}mlp")) || variable.contains(&format!("{layer}post_attention"))
            };
            return variable.starts_with("aux.flow.") || (0..=c.flow_layer).any(below);
        }
        let frozen = c.frozen_layers > 0
            && (variable.contains("visual.") || (0..c.frozen_layers).any(|i| variable.contains(&layer(i))));
        // Heads of earlier stages that this one does not ask.
        let idle = variable.starts_with(HEAD_PREFIX)
            && !(variable.starts_with("aux.flow.") && self.flow_head.is_some())
            && !(variable.starts_with("aux.pose.") && self.pose_head.is_some());
        !frozen && !idle
    }

    fn evaluate(&self, step: usize) -> Result<Vec<(&'static str, f64)>> {
        self.sft.evaluate(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trainer::config::path_of;
    use crate::trainer::{self, Settings};
    use candle_core::{DType, Device};
    use candle_nn::VarBuilder;
    use model::Qwen3Vl;
    use model::nn::Kernels;

    /// candle's fused kernels have no backward and say nothing: the trainer must.
    #[test]
    fn a_kernel_that_cuts_the_graph_is_an_error_and_not_a_variable_that_never_learns() {
        let mut config = super::super::config::read_config(&path_of("nano-3-all.toml")).unwrap();
        (config.run.steps, config.run.batch, config.run.micro_batch, config.run.workers) = (1, 1, 1, 1);
        (config.nano.pose_weight, config.eval) = (0.0, None);
        let mut student = Student::new(&Shape::tiny(), 0).unwrap();
        let vb = VarBuilder::from_varmap(&student.variables, DType::F32, &Device::Cpu);
        student.model = Qwen3Vl::new(&student.model.config().clone(), Kernels::Fused, vb).unwrap();
        let objective = Nano::new(&config, &student).unwrap();
        let settings = Settings {
            stage: "nano",
            run: &config.run,
            optimizer: &config.optimizer,
            config: Value::Null,
            init: None,
            job: &Job::default(),
        };
        let out = tempfile::tempdir().unwrap();
        let error = trainer::run(&objective, &student, &settings, out.path()).unwrap_err().to_string();
        assert!(error.contains("has no gradient"), "{error}");
    }
}
