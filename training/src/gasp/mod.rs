//! GASP (arXiv 2605.30231): correspondence heads on the layers of the decoder teach its vision tokens which of them
//! show the same point, while language examples keep what the model can say.
//!
//! total = language + `correspondence_weight` x correspondence + `depth_weight` x depth, the last two as means over the
//! layers with a head. The heads are variables named `aux.gasp..`: trained and checkpointed with the model, read again
//! by the next run and by [`analyse`], and no part of what `export` writes. Departures from the paper:
//! docs/training.md.

pub mod analyse;
mod config;
mod frames;
mod head;
mod instruct;
mod judged;
mod language;
mod loss;
mod pck;
mod pixels;
mod probe;
mod set;
mod stream;
pub mod sweep;
pub mod tracks;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};
use candle_core::Tensor;
use model::autograd::recompute::Recomputation;
use model::qwen3_vl::text::Tapped;
use model::{Processor, Qwen3Vl};
use serde_json::{Value, json};

use crate::batch::{self, Batch, Sequence, predictions, scalar, select};
use crate::sft::example::Builder;
use crate::sft::loss::{self as text_loss, Target, cross_entropy};
use crate::student::{Adapter, HEAD_PREFIX, Shape, Student};
use crate::trainer::config::{OptimizerConfig, RunConfig};
use crate::trainer::stage::{self, Stage};
use crate::trainer::{Finished, HOLD_OUT, Job, Objective, Share, Sources, Terms, named_terms};
pub use config::{Config, DataConfig, DepthConfig, EvalConfig, GaspConfig, MixConfig, Negatives, read_config};
use head::{Head, Heads};
use loss::Prepared;
use probe::{Features, Probe, Tallies};
use set::{FrameSet, Targets};
use stream::{Example, Stream};

/// Names of [`Figures`].
pub const FIGURES: &[&str] = <Figures as Terms>::NAMES;

named_terms! {
    /// Figures on the hold-out; the best checkpoint is chosen by the first.
    pub struct Figures {
        /// The weighted sum of the next three.
        loss,
        /// Cross-entropy of the responses' tokens.
        lm,
        /// InfoNCE of the matches.
        correspondence,
        /// Relative difference in depth.
        depth,
        /// Share of the matches that the heads find, over all layers.
        pck_head,
        /// The same of queries and keys.
        pck_qk,
        /// What a guess would find.
        chance,
    }
}

named_terms! {
    /// Terms of the loss, and the head's share of matches found.
    pub struct GaspTerms {
        /// Cross-entropy of the responses' tokens.
        lm,
        /// InfoNCE of the matches.
        correspondence,
        /// Relative difference in depth.
        depth,
        /// Share of the matches that the heads find.
        pck,
    }
}

/// Trains an adapter, or all weights, with heads beside them, from the checkpoint `init`.
///
/// # Errors
/// A config out of bounds, data or a checkpoint that can't be read, a folder that can't be written, a loss or gradient
/// that is not a number.
pub fn run(config: &Config, init: &Path, out: &Path, job: &Job) -> Result<Finished> {
    stage::run(config, Some(init), out, job)
}

impl Stage for Config {
    const NAME: &'static str = "gasp";

    type Objective<'a> = Gasp<'a>;

    fn common(&self) -> (&RunConfig, &OptimizerConfig) {
        (&self.run, &self.optimizer)
    }

    fn student(&self) -> (Option<&Shape>, Option<&Adapter>) {
        (None, self.lora.as_ref())
    }

    fn check(&self) -> Result<()> {
        self.check()
    }

    fn objective<'a>(&'a self, student: &'a Student, init: Option<&Path>) -> Result<Gasp<'a>> {
        Gasp::new(self, student, init)
    }
}

/// The objective of GASP.
pub struct Gasp<'a> {
    config: &'a Config,
    student: &'a Student,
    heads: Heads,
    /// Of the frames of sets, one for each grid.
    processors: Vec<Processor>,
    stream: Stream,
    text: text_loss::Targets,
    hold_out: Vec<Example>,
    hold_out_inputs: Value,
    held_out: Vec<String>,
}

/// Sums over a set's matches, as means over the layers with a head.
struct SetTerms {
    correspondence: Tensor,
    depth: Option<Tensor>,
    hits: f64,
}

impl<'a> Gasp<'a> {
    /// Opens the data, reads the hold-out, and adds the heads to the student: those that an earlier stage left in
    /// `init`, or new ones.
    ///
    /// # Errors
    /// Layers that the model has not, data that can't be read.
    pub fn new(config: &'a Config, student: &'a Student, init: Option<&Path>) -> Result<Self> {
        let (c, seed) = (&config.gasp, config.run.seed);
        let heads = Heads::new(student, &c.layers(student.model.decoder().depth())?, c.width)?;
        if let Some(dir) = init {
            student.load_heads(dir)?;
        }
        heads.start(student)?;
        tracing::info!(heads = heads.layers().count(), width = heads.width(), "correspondence heads");
        let vocabulary = student.model.config().text_config.vocab_size;
        let grids = config.data.grids().into_iter().map(|size| pixels::sized(&student.processor, size));
        let mut objective = Self {
            config,
            student,
            heads,
            processors: grids.collect::<Result<_>>().context("data.sizes")?,
            stream: Stream::open(&config.data, &config.mix, seed)?,
            text: text_loss::Targets::new(&student.tokenizer, vocabulary, c.number_sigma, c.tail_weight),
            hold_out: Vec::new(),
            hold_out_inputs: Value::Null,
            held_out: Vec::new(),
        };
        // In the run, what can't be read is left out; here it is an error.
        for number in [0, config.mix.every - 1] {
            objective.example(&objective.stream, number)?;
        }
        if let Some(eval) = &config.eval {
            let data = DataConfig { sets: eval.sets.clone(), ..config.data.clone() };
            let (instruct, windows) = (eval.instruct.clone(), eval.windows.clone());
            // Sets and language by turns.
            let mix = MixConfig { instruct, windows, every: 2, ..config.mix.clone() };
            let kinds = if mix.instruct.is_some() || mix.windows.is_some() { 2 } else { 1 };
            let stream = Stream::open(&data, &mix, seed ^ HOLD_OUT)?;
            for number in 0..kinds * eval.examples as u64 {
                let example = objective.example(&stream, number)?;
                objective.hold_out.push(example);
            }
            objective.hold_out_inputs = stream.describe();
            objective.held_out = stream.sources();
        }
        Ok(objective)
    }

    fn example(&self, stream: &Stream, number: u64) -> Result<Example> {
        let words = Builder::of(self.student);
        let sets: Vec<Builder<'_>> = self.processors.iter().map(|processor| Builder { processor, ..words }).collect();
        stream.example(&sets, &words, &self.config.gasp, number)
    }

    /// Terms of a set with matches. With `tallies`, queries and keys are looked at too, which checkpointed layers hide.
    fn set(
        &self,
        model: &Qwen3Vl,
        (set, targets): &(FrameSet, Targets),
        recomputation: Option<&Recomputation>,
        tallies: Option<&mut Tallies>,
    ) -> Result<SetTerms> {
        let c = &self.config.gasp;
        let batch = Batch::new([&set.sequence], self.student.tokenizer.pad);
        let rows = batch.rows_of(model.config().image_token_id);
        ensure!(
            rows.len() == targets.depth.len(),
            "expected {} vision tokens, got {}",
            targets.depth.len(),
            rows.len()
        );
        let embeddings = batch::embed(model, &batch, [&set.sequence], false)?;
        let mut probe = tallies.map(|t| Probe::new(set, rows.clone(), c.tau, Some(&self.heads), &|_, _| true, t));
        let mut hidden = Vec::new();
        let mut tap = |layer: usize, seen: Tapped<'_>| {
            if let (true, Tapped::Hidden(x)) = (self.heads.layers().any(|of| of == layer), seen) {
                hidden.push((layer, x.clone()));
            }
            if let Some(probe) = &mut probe {
                probe.look(layer, seen);
            }
        };
        batch::decode(model, &batch, &embeddings, recomputation, &mut tap)?;
        probe.map_or(Ok(()), Probe::done)?;
        let prepared = Arc::new(Prepared::new(targets, c.negatives, c.tau, model.device())?);
        let (mut correspondence, mut depth, mut hits) = (Vec::new(), Vec::new(), 0);
        for (layer, x) in &hidden {
            let head = self.heads.head(*layer).context("a layer without a head")?;
            let terms = terms(head, &prepared, &select(x, &rows)?, recomputation)?;
            correspondence.push(terms.correspondence);
            depth.extend(terms.depth);
            hits += terms.hits;
        }
        let layers = hidden.len() as f64;
        let mean = |terms: Vec<Tensor>| -> Result<Option<Tensor>> {
            let sum = terms.into_iter().map(Ok).reduce(|a, b| a? + b?).transpose()?;
            Ok(sum.map(|sum| sum / layers).transpose()?)
        };
        Ok(SetTerms {
            correspondence: mean(correspondence)?.context("gasp.layers: expected at least one layer")?,
            depth: mean(depth)?,
            hits: hits as f64 / layers,
        })
    }

    /// Weighted sum of the cross-entropies of a response.
    fn language(&self, model: &Qwen3Vl, sequence: &Sequence, recomputation: Option<&Recomputation>) -> Result<Tensor> {
        let batch = Batch::new([sequence], self.student.tokenizer.pad);
        let embeddings = batch::embed(model, &batch, [sequence], false)?;
        let hidden = batch::decode(model, &batch, &embeddings, recomputation, &mut |_, _| {})?;
        let of = |(row, token): (u32, u32)| (row, self.text.of(token));
        let (rows, targets): (Vec<u32>, Vec<Target>) = predictions(&batch, [sequence]).map(of).unzip();
        Ok(cross_entropy(&model.logits(&select(&hidden, &rows)?)?, targets)?)
    }

    /// What an example adds to the counts.
    fn count(&self, example: &Example) -> GaspTerms {
        match example {
            Example::Language(sequence) => {
                let weight = |id: &u32| f64::from(self.text.of(*id).weight);
                let lm = sequence.ids[sequence.response..].iter().map(weight).sum();
                GaspTerms { lm, ..GaspTerms::default() }
            }
            Example::Set(set) => {
                let matches = set.1.positives.len() as f64;
                GaspTerms { lm: 0.0, correspondence: matches, depth: set.1.depths() as f64, pck: matches }
            }
        }
    }
}

/// Terms of a layer whose vision tokens are `x` `[n, d]`. Where layers are recomputed, similarities are too: they are anchors x tokens
/// each, in every layer.
fn terms(
    head: &Head,
    prepared: &Arc<Prepared>,
    x: &Tensor,
    recomputation: Option<&Recomputation>,
) -> Result<loss::Terms> {
    let Some(recomputation) = recomputation else { return Ok(prepared.terms(&head.forward(x)?)?) };
    let hits = Arc::new(AtomicUsize::new(0));
    let (head, prepared, noted) = (head.clone(), prepared.clone(), hits.clone());
    let sums = recomputation.run(x, move |x: &Tensor| {
        let terms = prepared.terms(&head.forward(x)?)?;
        noted.store(terms.hits, Ordering::Relaxed);
        let sums: Vec<Tensor> = [Some(terms.correspondence), terms.depth].into_iter().flatten().collect();
        Ok(Tensor::stack(&sums, 0)?)
    })?;
    let depth = if sums.dim(0)? > 1 { Some(sums.get(1)?) } else { None };
    Ok(loss::Terms { correspondence: sums.get(0)?, depth, hits: hits.load(Ordering::Relaxed) })
}

impl Objective for Gasp<'_> {
    type Batch = Vec<Example>;
    type Terms = GaspTerms;

    fn inputs(&self) -> Value {
        json!({"data": self.stream.describe(), "hold_out": self.hold_out_inputs})
    }

    fn sources(&self) -> Sources {
        Sources { trained: self.stream.sources(), held_out: self.held_out.clone() }
    }

    fn batch(&self, _step: usize, examples: &[u64]) -> Result<Vec<Example>> {
        let mut batch = Vec::with_capacity(examples.len());
        for &number in examples {
            match self.example(&self.stream, number) {
                Ok(example) => batch.push(example),
                Err(error) => tracing::warn!("left out: {error:#}"),
            }
        }
        Ok(batch)
    }

    fn counts(&self, batch: &Vec<Example>) -> GaspTerms {
        batch.iter().fold(GaspTerms::default(), |sum, example| sum.plus(self.count(example)))
    }

    fn loss(
        &self,
        batch: &Vec<Example>,
        totals: &GaspTerms,
        recomputation: Option<&Recomputation>,
    ) -> Result<Share<GaspTerms>> {
        let (model, c) = (&self.student.model, &self.config.gasp);
        let (mut terms, mut losses) = (GaspTerms::default(), Vec::new());
        let mut add = |term: &mut f64, total: f64, sum: Tensor, weight: f64| -> Result<()> {
            let share = (sum / total)?;
            *term += scalar(&share)?;
            losses.push((share * weight)?);
            Ok(())
        };
        let mut hits = 0.0;
        for example in batch {
            match example {
                Example::Language(sequence) => {
                    add(&mut terms.lm, totals.lm, self.language(model, sequence, recomputation)?, 1.0)?;
                }
                // Frames that nobody knows the depth of, or that share nothing.
                Example::Set(set) if set.1.positives.is_empty() => {}
                Example::Set(set) => {
                    let set = self.set(model, set, recomputation, None)?;
                    let (term, total) = (&mut terms.correspondence, totals.correspondence);
                    add(term, total, set.correspondence, c.correspondence_weight)?;
                    if let Some(depth) = set.depth {
                        add(&mut terms.depth, totals.depth, depth, c.depth_weight)?;
                    }
                    hits += set.hits;
                }
            }
        }
        terms.pck = hits / totals.pck;
        let loss = losses.into_iter().map(Ok).reduce(|a, b| a? + b?).transpose()?;
        Ok(Share { loss, terms })
    }

    fn tokens(&self, batch: &Vec<Example>) -> usize {
        let tokens = |example: &Example| match example {
            Example::Set(set) => set.0.sequence.ids.len(),
            Example::Language(sequence) => sequence.ids.len(),
        };
        batch.iter().map(tokens).sum()
    }

    fn describe(&self, batch: &Vec<Example>) -> Value {
        let text = |ids: &[u32]| self.student.tokenizer.decode(ids).unwrap_or_default();
        let describe = |example: &Example| match example {
            Example::Set(set) => json!({
                "frames": set.0.numbers, "tokens": [set.0.grid.columns, set.0.grid.rows],
                "matches": set.1.positives.len(), "depths": set.1.depths(),
            }),
            Example::Language(s) => json!({"ids": s.ids, "response": text(&s.ids[s.response..])}),
        };
        batch.iter().map(describe).collect()
    }

    fn trains(&self, _step: usize, variable: &str) -> bool {
        // Heads of other stages are not asked, nor are its own where neither of their terms counts.
        let c = &self.config.gasp;
        let asked = c.correspondence_weight > 0.0 || c.depth_weight > 0.0;
        !variable.starts_with(HEAD_PREFIX) || (asked && variable.starts_with(&format!("{HEAD_PREFIX}{}.", head::NAME)))
    }

    fn evaluate(&self, _step: usize) -> Result<Vec<(&'static str, f64)>> {
        if self.hold_out.is_empty() {
            return Ok(Vec::new());
        }
        let (model, c) = (self.student.model.for_inference(), &self.config.gasp);
        let (mut sums, counts) = (GaspTerms::default(), self.counts(&self.hold_out));
        let (mut chance, mut looks) = (0.0, 0.0);
        let mut tallies = Tallies::new();
        for example in &self.hold_out {
            match example {
                Example::Language(sequence) => sums.lm += scalar(&self.language(&model, sequence, None)?)?,
                Example::Set(set) if set.1.positives.is_empty() => {}
                Example::Set(set) => {
                    let terms = self.set(&model, set, None, Some(&mut tallies))?;
                    sums.correspondence += scalar(&terms.correspondence)?;
                    sums.depth += terms.depth.as_ref().map_or(Ok(0.0), scalar)?;
                    let chances = set.0.grid.chances();
                    chance += set.0.matches.iter().map(|m| chances[m.to.1]).sum::<f64>();
                    looks += set.0.matches.len() as f64;
                }
            }
        }
        let pck = |features: Features| {
            let all: Vec<f64> =
                tallies.iter().filter(|((of, _), _)| *of == features).filter_map(|(_, t)| t.all.pck()).collect();
            all.iter().sum::<f64>() / all.len().max(1) as f64
        };
        let GaspTerms { lm, correspondence, depth, .. } =
            sums.zip(counts, |sum, count| if count > 0.0 { sum / count } else { 0.0 });
        let loss = lm + c.correspondence_weight * correspondence + c.depth_weight * depth;
        let chance = if looks > 0.0 { chance / looks } else { 0.0 };
        let (pck_head, pck_qk) = (pck(Features::Head), pck(Features::QueryKey));
        Ok(Figures { loss, lm, correspondence, depth, pck_head, pck_qk, chance }.named())
    }
}

#[cfg(test)]
mod tests;
