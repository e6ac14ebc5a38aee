//! Supervised fine-tuning on chains and answers; the loss is on the response alone.
//!
//! Plain next-token loss, as in EgoReasoner's paper (section 3.3). What nano needs beside it is in [`crate::nano`].

mod config;
mod data;
pub mod example;
pub mod loss;
#[cfg(test)]
mod tests;

use std::path::Path;

use anyhow::{Context as _, Result};
use candle_core::Tensor;
use model::answer::budget::{self, Budget};
use model::answer::prompt::Mode;
use model::autograd::recompute::Recomputation;
use model::{AnswerOptions, FrameEmbedding};
use serde_json::{Value, json};

use crate::batch::{self, Batch, Sequence, predictions, scalar, select};
use crate::student::{Adapter, HEAD_PREFIX, Shape, Student};
use crate::trainer::config::{OptimizerConfig, RunConfig};
use crate::trainer::stage::{self, Stage};
use crate::trainer::{Finished, HOLD_OUT, Job, Objective, Share, Sources, named_terms};
pub use config::{Config, DataConfig, EvalConfig, SftConfig, read_config};
use data::Data;
use example::{Builder, Example};
use loss::{Target, cross_entropy};

/// Trains a model.
///
/// # Errors
/// A config out of bounds, data or a checkpoint that can't be read, a folder that can't be written, a loss or gradient
/// that is not a number.
pub fn run(config: &Config, init: Option<&Path>, out: &Path, job: &Job) -> Result<Finished> {
    stage::run(config, init, out, job)
}

impl Stage for Config {
    const NAME: &'static str = "sft";

    type Objective<'a> = Sft<'a>;

    fn common(&self) -> (&RunConfig, &OptimizerConfig) {
        (&self.run, &self.optimizer)
    }

    fn student(&self) -> (Option<&Shape>, Option<&Adapter>) {
        (self.shape.as_ref(), self.lora.as_ref())
    }

    fn check(&self) -> Result<()> {
        self.check()
    }

    fn objective<'a>(&'a self, student: &'a Student, init: Option<&Path>) -> Result<Sft<'a>> {
        let Self { run, sft, data, eval, .. } = self;
        let vocabulary = student.model.config().text_config.vocab_size;
        let plain = loss::Targets::new(&student.tokenizer, vocabulary, 0.0, 1.0);
        let objective = Sft::new(Parts { run, sft, data, eval: eval.as_ref() }, student, plain)?;
        init.map_or(Ok(()), |dir| student.load_heads(dir))?;
        Ok(objective)
    }
}

/// The settings that the objective needs.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    /// `[run]`
    pub run: &'a RunConfig,
    /// `[sft]`
    pub sft: &'a SftConfig,
    /// `[data]`
    pub data: &'a DataConfig,
    /// `[eval]`
    pub eval: Option<&'a EvalConfig>,
}

named_terms! {
    /// The only term.
    pub struct SftTerms {
        /// Cross-entropy of the responses' tokens.
        loss,
    }
}

/// The objective of SFT.
pub struct Sft<'a> {
    parts: Parts<'a>,
    /// What is trained.
    pub student: &'a Student,
    data: Data,
    targets: loss::Targets,
    hold_out: Vec<Example>,
    hold_out_inputs: Value,
    held_out: Vec<String>,
}

impl<'a> Sft<'a> {
    /// Opens the data and reads the hold-out. `targets` say what each token of a response is worth.
    ///
    /// # Errors
    /// Data that can't be read.
    pub fn new(parts: Parts<'a>, student: &'a Student, targets: loss::Targets) -> Result<Self> {
        let seed = parts.run.seed;
        let mut objective = Self {
            parts,
            student,
            data: Data::open(parts.data, seed)?,
            targets,
            hold_out: Vec::new(),
            hold_out_inputs: Value::Null,
            held_out: Vec::new(),
        };
        if let Some(eval) = parts.eval {
            let data = match &eval.shards {
                Some(dir) => Data::shards(dir, seed)?,
                None => Data::open(parts.data, seed ^ HOLD_OUT)?,
            };
            let mode = hold_out_mode(parts.sft);
            if eval.answers > 0 {
                // One that is cut off in each answer would read as weights that do not parse.
                eval.max_tokens.tokens(budget::needed(&student.tokenizer, mode)?, mode).context("eval")?;
            }
            let all = data.epoch().unwrap_or(u64::MAX);
            for k in 0..all.min(4 * eval.examples as u64) {
                if objective.hold_out.len() < eval.examples {
                    objective.hold_out.extend(data.example(&Builder::of(student), k, mode)?);
                }
            }
            objective.hold_out_inputs = data.describe();
            objective.held_out = data.sources();
        }
        Ok(objective)
    }

    fn mode(&self, step: usize) -> Mode {
        let every = self.parts.sft.full_chain_every;
        if every > 0 && step % every == every - 1 { Mode::FullChain } else { Mode::AnswerOnly }
    }

    /// Rows of the flattened hidden states that predict a token of a response, and those tokens.
    pub fn responses(&self, batch: &Batch, examples: &[Example]) -> (Vec<u32>, Vec<Target>) {
        let sequences: Vec<&Sequence> = examples.iter().map(|e| &e.sequence).collect();
        predictions(batch, sequences).map(|(row, token)| (row, self.targets.of(token))).unzip()
    }

    /// Hidden states behind the last layer's norm.
    fn forward(&self, batch: &Batch, examples: &[Example], recomputation: Option<&Recomputation>) -> Result<Tensor> {
        let model = &self.student.model;
        let embeddings = batch::embed(model, batch, examples.iter().map(|e| &e.sequence), false)?;
        batch::decode(model, batch, &embeddings, recomputation, &mut |_, _| {})
    }

    /// Share of the hold-out's windows whose answer parses, as the model stands.
    fn parse_rate(&self, windows: &[Example], max_tokens: Budget) -> Result<f64> {
        let policy = self.student.policy()?;
        let mode = hold_out_mode(self.parts.sft);
        let options = AnswerOptions { mode, max_tokens, ..AnswerOptions::default() };
        let mut parsed = 0;
        for window in windows {
            let frames: Vec<FrameEmbedding> = window
                .frames()?
                .into_iter()
                .map(|mut frame| {
                    frame.values = frame.values.to_device(self.student.device())?;
                    policy.encode(&frame)
                })
                .collect::<model::Result<_>>()?;
            let answer = policy.answer(&frames.iter().collect::<Vec<_>>(), &options)?;
            parsed += usize::from(answer.trajectory.is_ok());
        }
        Ok(parsed as f64 / windows.len() as f64)
    }
}

/// What the hold-out is asked for: the chain where nothing else is trained.
fn hold_out_mode(config: &SftConfig) -> Mode {
    if config.full_chain_every == 1 { Mode::FullChain } else { Mode::AnswerOnly }
}

impl Objective for Sft<'_> {
    type Batch = Vec<Example>;
    type Terms = SftTerms;

    fn inputs(&self) -> Value {
        json!({"data": self.data.describe(), "hold_out": self.hold_out_inputs})
    }

    fn sources(&self) -> Sources {
        Sources { trained: self.data.sources(), held_out: self.held_out.clone() }
    }

    fn epoch(&self) -> Option<u64> {
        self.data.epoch()
    }

    fn length(&self, example: u64) -> usize {
        self.data.length(example, self.mode((example / self.parts.run.batch as u64) as usize))
    }

    fn batch(&self, step: usize, examples: &[u64]) -> Result<Vec<Example>> {
        let (builder, mut batch) = (Builder::of(self.student), Vec::with_capacity(examples.len()));
        for &k in examples {
            batch.extend(self.data.example(&builder, k, self.mode(step))?);
        }
        Ok(batch)
    }

    fn counts(&self, examples: &Vec<Example>) -> SftTerms {
        let weight = |e: &Example| {
            let response = &e.sequence.ids[e.sequence.response..];
            response.iter().map(|&id| f64::from(self.targets.of(id).weight)).sum::<f64>()
        };
        SftTerms { loss: examples.iter().map(weight).sum() }
    }

    fn loss(
        &self,
        examples: &Vec<Example>,
        totals: &SftTerms,
        recomputation: Option<&Recomputation>,
    ) -> Result<Share<SftTerms>> {
        let nothing = || Ok(Share { loss: None, terms: SftTerms::default() });
        if examples.is_empty() {
            return nothing();
        }
        let batch = Batch::new(examples.iter().map(|e| &e.sequence), self.student.tokenizer.pad);
        let (rows, targets) = self.responses(&batch, examples);
        if rows.is_empty() {
            return nothing();
        }
        let hidden = self.forward(&batch, examples, recomputation)?;
        let loss = (cross_entropy(&self.student.model.logits(&select(&hidden, &rows)?)?, targets)? / totals.loss)?;
        Ok(Share { terms: SftTerms { loss: scalar(&loss)? }, loss: Some(loss) })
    }

    fn tokens(&self, examples: &Vec<Example>) -> usize {
        examples.iter().map(|e| e.sequence.ids.len()).sum()
    }

    fn describe(&self, examples: &Vec<Example>) -> Value {
        let text =
            |e: &Example| self.student.tokenizer.decode(&e.sequence.ids[e.sequence.response..]).unwrap_or_default();
        examples.iter().map(|e| json!({"id": e.id, "ids": e.sequence.ids, "response": text(e)})).collect()
    }

    /// Heads of other stages are not asked.
    fn trains(&self, _step: usize, variable: &str) -> bool {
        !variable.starts_with(HEAD_PREFIX)
    }

    fn evaluate(&self, _step: usize) -> Result<Vec<(&'static str, f64)>> {
        let Some(eval) = self.parts.eval.filter(|_| !self.hold_out.is_empty()) else { return Ok(Vec::new()) };
        let (mut sum, mut weight) = (0.0, 0.0);
        for examples in self.hold_out.chunks(self.parts.run.micro_batch) {
            let examples = examples.to_vec();
            let count = self.counts(&examples).loss;
            if count > 0.0 {
                let batch = Batch::new(examples.iter().map(|e| &e.sequence), self.student.tokenizer.pad);
                let hidden = self.forward(&batch, &examples, None)?;
                let (rows, targets) = self.responses(&batch, &examples);
                sum += scalar(&cross_entropy(&self.student.model.logits(&select(&hidden, &rows)?)?, targets)?)?;
                weight += count;
            }
        }
        let mut figures = vec![("loss", sum / weight)];
        if eval.answers > 0 {
            let windows = &self.hold_out[..eval.answers.min(self.hold_out.len())];
            figures.push(("parse", self.parse_rate(windows, eval.max_tokens)?));
        }
        Ok(figures)
    }
}
