//! GRPO (Shao et al. 2024, "DeepSeekMath"): the policy answers each window several times, each answer is rewarded for
//! the poses that it states, and answers that earn more than their group's mean become likelier.
//!
//! The reward is [`geometry::reward::Reward`], on the errors that an evaluation prints. An example of the loop is a
//! prompt; its group is sampled when a step asks for its batch. What that costs beside sampling, a rollout: one pass
//! forward and one backward of the policy; one forward of the reference where `kl_weight` is not 0; one more forward of
//! the policy where `updates` is over 1. Groups whose rewards are all alike cost their sampling alone.

mod config;
mod loss;
mod rollout;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use candle_core::Tensor;
use geometry::WindowErrors;
use geometry::metrics::Statistic;
use model::Qwen3Vl;
use model::answer::decode::{Ended, Sampling};
use model::autograd::recompute::Recomputation;
use serde_json::{Value, json};

use crate::batch::scalar;
use crate::student::{Adapter, Shape, Student, named};
use crate::trainer::config::{OptimizerConfig, RunConfig};
use crate::trainer::stage::{self, Stage};
use crate::trainer::{Finished, Job, Objective, Share, Sources, Terms, named_terms};
pub use config::{Config, DataConfig, EvalConfig, GrpoConfig, Normalisation, read_config};
use loss::{Part, Scorer, of_group};
pub use rollout::Group;
use rollout::{Figures, Sampler, reward, scale};
use training_data::{Order, WindowSource, parse_source};

named_terms! {
    /// What is logged: of the loss and its tokens, of groups, and from `reward` on of rollouts.
    pub struct GrpoTerms {
        /// What is minimised.
        loss,
        /// Divergence from the reference, a token.
        kl,
        /// Share of the tokens whose ratio is clipped.
        clip_fraction,
        /// Estimated entropy, a token.
        entropy,
        /// Share of the groups whose rewards are all alike.
        skipped,
        /// The whole reward.
        reward,
        /// Its part for the form.
        format,
        /// Its part for valid rotations.
        valid,
        /// Its part for the turn.
        rotation,
        /// Its part for the direction.
        direction,
        /// Its part for the lengths.
        magnitude,
        /// Tokens that were written.
        length,
        /// Share of the answers that parse.
        parse,
        /// Share of the answers that were cut off.
        truncated,
    }
}

/// Trains the checkpoint `init`, or an adapter beside it.
///
/// # Errors
/// A config out of bounds, data or a checkpoint that can't be read, a folder that can't be written, logits, a loss or a
/// gradient that are not numbers.
pub fn run(config: &Config, init: &Path, out: &Path, job: &Job) -> Result<Finished> {
    stage::run(config, Some(init), out, job)
}

impl Stage for Config {
    const NAME: &'static str = "grpo";

    type Objective<'a> = Grpo<'a>;

    fn common(&self) -> (&RunConfig, &OptimizerConfig) {
        (&self.run, &self.optimizer)
    }

    fn student(&self) -> (Option<&Shape>, Option<&Adapter>) {
        (None, self.lora.as_ref())
    }

    fn check(&self) -> Result<()> {
        self.check()
    }

    fn objective<'a>(&'a self, student: &'a Student, _init: Option<&Path>) -> Result<Grpo<'a>> {
        let grpo = Grpo::new(self, student)?;
        // One that is cut off in each answer would teach that all answers are wrong.
        grpo.sampler.policy.budget(self.grpo.max_tokens, self.grpo.mode).context("grpo")?;
        Ok(grpo)
    }
}

/// The objective of GRPO.
pub struct Grpo<'a> {
    config: &'a Config,
    student: &'a Student,
    windows: WindowSource,
    order: Order,
    hold_out: Option<(&'a EvalConfig, WindowSource)>,
    sampler: Sampler<'a>,
    scorer: Scorer,
    reference: Option<Qwen3Vl>,
    /// Whether nothing of the vision tower is trained.
    frozen: bool,
    /// Groups by the number of their prompt, where more than one update is made on them.
    held: Mutex<BTreeMap<u64, Arc<Group>>>,
}

impl<'a> Grpo<'a> {
    /// Opens the windows. The reference is the student as it is now, so this comes before the loop goes on from a
    /// checkpoint.
    ///
    /// # Errors
    /// Windows that can't be read.
    pub fn new(config: &'a Config, student: &'a Student) -> Result<Self> {
        let windows = parse_source(&config.data.windows).context("data.windows")?;
        let hold_out = match &config.eval {
            Some(eval) => Some((eval, parse_source(&eval.windows).context("eval.windows")?)),
            None => None,
        };
        let (grpo, seed) = (&config.grpo, config.run.seed);
        // Its weights are those of the student also when these change.
        let policy = student.policy()?;
        Ok(Self {
            order: Order::new(windows.len(), seed),
            windows,
            hold_out,
            scorer: Scorer::new(&policy, grpo)?,
            sampler: Sampler { policy, config: grpo, seed },
            reference: if grpo.kl_weight > 0.0 { Some(student.reference()?) } else { None },
            frozen: named(&student.variables).iter().all(|(name, _)| !name.contains("visual.")),
            held: Mutex::default(),
            config,
            student,
        })
    }

    /// Samples the group of prompt `number` of the stream, and what its loss needs that later updates do not change.
    fn draw(&self, number: u64) -> Result<Group> {
        let sample = self.windows.sample(self.order.at(number))?;
        let mut group = self.sampler.draw(number, &sample).with_context(|| sample.id.clone())?;
        if group.advantages.is_none() {
            return Ok(group);
        }
        if let Some(reference) = &self.reference {
            group.reference = Some(self.scorer.log_probs(reference, &group, true, None)?.to_vec1()?);
        }
        if self.config.grpo.updates > 1 {
            // By the kernels of the updates, so that the first ratio is 1; nothing is kept for a way back.
            let forward = Recomputation::new(std::iter::empty());
            group.old = Some(self.scorer.log_probs(&self.student.model, &group, true, Some(&forward))?.to_vec1()?);
        }
        Ok(group)
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Group>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sums of what there is of each figure of the rollouts, and how many there are; the other terms are 0.
fn figures(groups: &[Arc<Group>]) -> (GrpoTerms, GrpoTerms) {
    let (mut sums, mut counts) = (GrpoTerms::default(), GrpoTerms::default());
    let add = |sum: &mut f64, count: &mut f64, figure: Option<f64>| {
        if let Some(figure) = figure {
            *sum += figure;
            *count += 1.0;
        }
    };
    for rollout in groups.iter().flat_map(|group| &group.rollouts) {
        let Figures { reward, format, valid, rotation, direction, magnitude, length, parse, truncated } =
            rollout.figures();
        add(&mut sums.reward, &mut counts.reward, Some(reward));
        add(&mut sums.format, &mut counts.format, Some(format));
        add(&mut sums.valid, &mut counts.valid, valid);
        add(&mut sums.rotation, &mut counts.rotation, rotation);
        add(&mut sums.direction, &mut counts.direction, direction);
        add(&mut sums.magnitude, &mut counts.magnitude, magnitude);
        add(&mut sums.length, &mut counts.length, Some(length));
        add(&mut sums.parse, &mut counts.parse, Some(parse));
        add(&mut sums.truncated, &mut counts.truncated, Some(truncated));
    }
    (sums, counts)
}

impl Objective for Grpo<'_> {
    type Batch = Vec<Arc<Group>>;
    type Terms = GrpoTerms;

    fn inputs(&self) -> Value {
        let hold_out = self.hold_out.as_ref().map(|(_, windows)| windows.len());
        json!({"windows": self.windows.len(), "hold_out": hold_out})
    }

    fn sources(&self) -> Sources {
        let held_out = self.hold_out.as_ref().map(|(_, windows)| windows.sources()).unwrap_or_default();
        Sources { trained: self.windows.sources(), held_out }
    }

    fn epoch(&self) -> Option<u64> {
        Some(self.order.len() * self.config.grpo.updates as u64)
    }

    /// Samples groups, or takes those of the first of `updates` steps. Where a run was stopped between two of them, the
    /// next step samples its own.
    fn batch(&self, step: usize, examples: &[u64]) -> Result<Vec<Arc<Group>>> {
        let (size, updates) = (self.config.run.batch as u64, self.config.grpo.updates);
        let first = (step / updates) as u64 * size;
        let group = |example: &u64| -> Result<Arc<Group>> {
            let number = first + example % size;
            if updates == 1 {
                return Ok(Arc::new(self.draw(number)?));
            }
            let known = self.held().get(&number).cloned();
            if let Some(group) = known {
                return Ok(group);
            }
            let group = Arc::new(self.draw(number)?);
            let mut held = self.held();
            *held = held.split_off(&first);
            held.insert(number, group.clone());
            Ok(group)
        };
        examples.iter().map(group).collect()
    }

    /// Groups that are skipped, and tokens that were not drawn, are no part of any mean over the loss or its tokens.
    fn counts(&self, groups: &Vec<Arc<Group>>) -> GrpoTerms {
        let learned: Vec<usize> = groups
            .iter()
            .filter(|group| group.advantages.is_some())
            .flat_map(|group| group.rollouts.iter().map(rollout::Rollout::drawn))
            .filter(|drawn| *drawn > 0)
            .collect();
        let tokens = learned.iter().sum::<usize>() as f64;
        let loss = match self.config.grpo.normalisation {
            Normalisation::Sequence => learned.len() as f64,
            Normalisation::Token => tokens,
        };
        let (_, counts) = figures(groups);
        GrpoTerms { loss, kl: tokens, clip_fraction: tokens, entropy: tokens, skipped: groups.len() as f64, ..counts }
    }

    fn loss(
        &self,
        groups: &Vec<Arc<Group>>,
        totals: &GrpoTerms,
        recomputation: Option<&Recomputation>,
    ) -> Result<Share<GrpoTerms>> {
        let (mut loss, (mut sums, _)): (Option<Tensor>, _) = (None, figures(groups));
        for group in groups {
            let Some(advantages) = &group.advantages else {
                sums.skipped += 1.0;
                continue;
            };
            let now = self.scorer.log_probs(&self.student.model, group, self.frozen, recomputation)?;
            let Part { loss: part, kl, clipped, entropy } =
                of_group(&now, group, advantages, &self.config.grpo, totals.loss)?;
            sums.loss += scalar(&part)? * totals.loss;
            sums.kl += kl;
            sums.clip_fraction += clipped;
            sums.entropy += entropy;
            loss = Some(match loss {
                Some(loss) => (loss + part)?,
                None => part,
            });
        }
        Ok(Share { loss, terms: sums.over(*totals) })
    }

    fn tokens(&self, groups: &Vec<Arc<Group>>) -> usize {
        groups.iter().map(|group| group.tokens()).sum()
    }

    fn describe(&self, groups: &Vec<Arc<Group>>) -> Value {
        groups.iter().flat_map(|group| group.lines()).collect()
    }

    /// One answer a window of the hold-out. The loss is the mean reward with its sign turned; medians are of answers
    /// that parse.
    fn evaluate(&self, _step: usize) -> Result<Vec<(&'static str, f64)>> {
        let Some((config, windows)) = &self.hold_out else { return Ok(Vec::new()) };
        let (mut rewards, mut parsed, mut tokens) = (Vec::new(), 0.0, 0.0);
        let (mut rotations, mut directions) = (Vec::new(), Vec::new());
        for index in 0..windows.len() {
            let sample = windows.sample(index)?;
            let sampling = Sampling { temperature: config.temperature, top_p: 1.0, seed: index };
            let (_, answers) = self.sampler.ask(&sample, sampling, 1).with_context(|| sample.id.clone())?;
            for answer in answers {
                rewards.push(reward(&answer, &sample).total);
                tokens += answer.ids.len() as f64;
                let Some(trajectory) = answer.trajectory.ok().filter(|_| answer.ended == Ended::Stop) else { continue };
                parsed += 1.0;
                let errors = WindowErrors::new(&sample.ground_truth, &trajectory, scale(&sample));
                rotations.push(errors.rre_deg);
                directions.extend(errors.tde_deg);
            }
        }
        let n = windows.len() as f64;
        let Some(mean) = Statistic::new(&rewards, 0).mean else { return Ok(Vec::new()) };
        let mut figures = vec![
            ("loss", -mean.value),
            ("reward", mean.value),
            // Bootstrap 95 % interval over windows.
            ("reward_low", mean.low),
            ("reward_high", mean.high),
            ("parse", parsed / n),
            ("length", tokens / n),
        ];
        for (name, values) in [("rre_deg", rotations), ("tde_deg", directions)] {
            figures.extend(Statistic::new(&values, 0).median.map(|median| (name, median.value)));
        }
        Ok(figures)
    }

    /// `rollouts/step-000123.jsonl`, a line a rollout.
    fn keep(&self, step: usize, batches: &[Vec<Arc<Group>>], run: &Path) -> Result<()> {
        let every = self.config.grpo.rollouts_every * self.config.grpo.updates;
        if every == 0 || !step.is_multiple_of(every) {
            return Ok(());
        }
        let mut groups: Vec<_> = batches.iter().flatten().collect();
        groups.sort_by_key(|group| group.number);
        let lines = groups.iter().flat_map(|group| group.lines()).map(|line| format!("{line}\n"));
        let folder = run.join("rollouts");
        std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let path = folder.join(format!("step-{:06}.jsonl", step + 1));
        std::fs::write(&path, lines.collect::<String>()).with_context(|| path.display().to_string())
    }
}
