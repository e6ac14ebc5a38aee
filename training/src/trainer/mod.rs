//! The loop of every stage of training: examples dealt out to micro-batches, threads and ranks, gradients added up,
//! AdamW, hold-out, checkpoints.
//!
//! A run is a function of its settings and the number of the step: example k of the stream is the same wherever it is
//! read, and dropout draws from the number of its micro-batch. What is stored beside the weights is therefore little, and
//! a run that goes on from a checkpoint is the run that was never stopped.

mod checkpoint;
pub mod config;
mod objective;
pub mod optimizer;
mod progress;
mod record;
pub mod stage;
pub mod tensorboard;
mod terms;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use candle_core::{DType, Device, Tensor, Var};
use model::autograd::recompute::Recomputation;
use model::nn::Dropout;
use model::weights::manifest::{Best, Point};
use serde_json::{Value, json};

use crate::batch::scalar;
use crate::parallel::{self, Alone, Collective};
use crate::student::{Student, named, parameters};
use checkpoint::State;
use config::{OptimizerConfig, RunConfig};
pub use objective::{Objective, Share, Sources};
use optimizer::AdamW;
use progress::Progress;
pub use terms::Terms;
pub(crate) use terms::named_terms;
use training_data::json::write_json;

/// What turns the seed of a run into that of a hold-out that is drawn.
pub(crate) const HOLD_OUT: u64 = 0x686f_6c64;

/// What the loop needs to know of a stage.
pub struct Settings<'a> {
    /// Name of the stage in the manifest.
    pub stage: &'static str,
    /// `[run]`
    pub run: &'a RunConfig,
    /// `[optimizer]`
    pub optimizer: &'a OptimizerConfig,
    /// All settings, resolved, and what was read, with hashes: what a checkpoint must have been made with, and what the
    /// manifest says.
    pub config: Value,
    /// The checkpoint that the stage starts from, whose manifest is gone on with.
    pub init: Option<&'a Path>,
    /// How the process was started.
    pub job: &'a Job,
}

/// How the process was started.
#[derive(Debug, Clone)]
pub struct Job {
    /// Whether to go on from the newest checkpoint of the run.
    pub resume: bool,
    /// Set from outside to stop behind the step at hand, with a checkpoint.
    pub stop: Arc<AtomicBool>,
    /// Where this rank computes.
    pub device: Device,
    /// The ranks of the job.
    pub collective: Arc<dyn Collective>,
}

impl Default for Job {
    /// One process on the CPU, from its first step.
    fn default() -> Self {
        Self { resume: false, stop: Arc::default(), device: Device::Cpu, collective: Arc::new(Alone) }
    }
}

impl Job {
    /// Joins the ranks that the launcher started. `cuda` is the GPU of the rank's place on its machine.
    ///
    /// # Errors
    /// A device that is not there, ranks that can't be joined.
    pub fn start(device: &str, resume: bool, stop: Arc<AtomicBool>) -> Result<Self> {
        let device = match device {
            "cuda" => model::device(&format!("cuda:{}", parallel::local_rank()?)),
            other => model::device(other),
        }
        .context("run.device")?;
        let collective = parallel::start(&device)?;
        Ok(Self { resume, stop, device, collective })
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finished {
    /// With its last step.
    Done,
    /// Stopped from outside; `--resume` goes on.
    Stopped {
        /// Steps that are done.
        steps: usize,
    },
}

/// Trains `student` on `objective` and writes into `out`: the model (or adapter) and `manifest.json` at the end, the best
/// on the hold-out in `best/`, checkpoints in `checkpoints/`, curves for TensorBoard in `events/`.
///
/// # Errors
/// Settings out of bounds, a folder that holds another run, a checkpoint that is not what was written or is behind the
/// settings' last step, a loss or gradient that is not a number (with the batch in
/// `nan-step-N.json`), a variable that gets no gradient.
pub fn run<O: Objective>(objective: &O, student: &Student, settings: &Settings<'_>, out: &Path) -> Result<Finished> {
    settings.run.check()?;
    settings.optimizer.check()?;
    let steps = settings.run.steps(objective.epoch())?;
    let ranks = settings.job.collective.size();
    let micro_batches = settings.run.batch / settings.run.micro_batch;
    ensure!(
        micro_batches.is_multiple_of(ranks),
        "run.batch: expected micro-batches for each of {ranks} ranks, got {micro_batches}"
    );
    let variables = named(&student.variables);
    // What candle starts inside a worker runs in its pool.
    let threads = if settings.run.workers == 1 { rayon::current_num_threads() } else { 1 };
    let pools = (0..settings.run.workers)
        .map(|_| Ok(rayon::ThreadPoolBuilder::new().num_threads(threads).stack_size(64 << 20).build()?))
        .collect::<Result<Vec<_>>>()?;
    let optimizer = AdamW::new(&variables, settings.optimizer)?;
    let seen = vec![false; variables.len()];
    let mut run = Run {
        objective,
        student,
        settings,
        out,
        steps,
        variables,
        pools,
        optimizer,
        seen,
        taught: 0,
        first: 0,
        state: State::default(),
    };
    run.start()?;
    // Ranks wait for each other: one that fails ends them all.
    run.train().map_err(|error| settings.job.collective.abort(error))
}

/// Whether a folder has checkpoints to go on from.
///
/// # Errors
/// A folder that can't be read.
pub(crate) fn is_begun(out: &Path) -> Result<bool> {
    Ok(checkpoint::newest(out)?.is_some())
}

struct Run<'a, O: Objective> {
    objective: &'a O,
    student: &'a Student,
    settings: &'a Settings<'a>,
    out: &'a Path,
    steps: usize,
    variables: Vec<(String, Var)>,
    /// One thread each: candle's own parallel loops would else meet in one shared pool.
    pools: Vec<rayon::ThreadPool>,
    optimizer: AdamW,
    /// Variables that had a gradient since the process began, and steps in which some had.
    seen: Vec<bool>,
    taught: usize,
    /// The step that the process began with.
    first: usize,
    state: State,
}

/// Gradients of the variables; nothing where there is none.
type Gradients = Vec<Option<Tensor>>;

/// What one step came to.
struct Stepped<T> {
    terms: T,
    norm: f64,
    tokens: f64,
    stop: bool,
}

impl<O: Objective> Run<'_, O> {
    fn lead(&self) -> bool {
        self.settings.job.collective.rank() == 0
    }

    /// Loads the newest checkpoint, or makes sure that there is none.
    fn start(&mut self) -> Result<()> {
        let newest = checkpoint::newest(self.out)?;
        match (self.settings.job.resume, newest) {
            (true, Some(dir)) => {
                let (config, variables) = (&self.settings.config, &self.variables);
                self.state = checkpoint::load(&dir, self.steps, config, variables, &mut self.optimizer)?;
                self.first = self.state.step;
                tracing::info!(checkpoint = %dir.display(), step = self.state.step, "resuming");
            }
            (true, None) => bail!("--resume: {}: expected checkpoints, got none", self.out.display()),
            (false, Some(dir)) => {
                bail!("{}: a run is there already; --resume goes on with it, or use another --out", dir.display())
            }
            (false, None) => {}
        }
        std::fs::create_dir_all(self.out).with_context(|| self.out.display().to_string())?;
        // Each rank drew or read the same; this makes sure of it.
        if self.settings.job.collective.size() > 1 {
            for (_, var) in &self.variables {
                let mut values = var.flatten_all()?.to_vec1::<f32>()?;
                self.settings.job.collective.broadcast(&mut values)?;
                var.set(&Tensor::from_vec(values, var.shape(), var.device())?)?;
            }
        }
        tracing::info!(
            parameters = parameters(&self.student.variables),
            tensors = self.variables.len(),
            steps = self.steps,
            batch = self.settings.run.batch,
            ranks = self.settings.job.collective.size(),
            "training"
        );
        Ok(())
    }

    fn train(&mut self) -> Result<Finished> {
        let run = self.settings.run;
        let mut progress = Progress::new(self.out, self.steps, self.state.step, self.settings.job.resume, self.lead())?;
        let begun = (Instant::now(), self.state.seconds);
        let names = O::Terms::NAMES;
        if self.state.step == 0 && run.eval_every > 0 {
            self.evaluate(&mut progress)?;
        }
        while self.state.step < self.steps {
            let step = self.state.step;
            let done = self.step(step)?;
            self.state.step += 1;
            self.state.examples += run.batch as u64;
            self.state.tokens += done.tokens as u64;
            self.state.seconds = begun.1 + begun.0.elapsed().as_secs_f64();
            let rate = self.settings.optimizer.rate_at(step, self.steps);
            if let Some(point) =
                progress.step(step + 1, names, &done.terms.values(), done.norm, rate, done.tokens, run.log_every)?
            {
                self.state.curve.push(point);
            }
            let last = step + 1 == self.steps;
            if self.taught == run.log_every || (last && (1..run.log_every).contains(&self.taught)) {
                self.all_have_gradients()?;
            }
            let due = |every: usize| every > 0 && (step + 1).is_multiple_of(every);
            if due(run.eval_every) || last {
                self.evaluate(&mut progress)?;
            }
            if due(run.save_every) || last || done.stop {
                self.save()?;
            }
            if done.stop && !last {
                progress.close("stopped");
                return Ok(Finished::Stopped { steps: step + 1 });
            }
        }
        progress.close("done");
        if self.lead() {
            self.deploy(self.out)?;
            self.draw()?;
        }
        self.settings.job.collective.barrier()?;
        Ok(Finished::Done)
    }

    /// Numbers of a step's examples, micro-batch after micro-batch.
    fn deal(&self, step: usize) -> Vec<Vec<u64>> {
        let run = self.settings.run;
        let first = (step * run.batch) as u64;
        let mut examples: Vec<u64> = (first..first + run.batch as u64).collect();
        examples.sort_by_key(|&example| self.objective.length(example));
        examples.chunks(run.micro_batch).map(<[u64]>::to_vec).collect()
    }

    /// Has every worker do its share, each in its own pool.
    fn workers<T: Send>(&self, share: impl Fn(usize) -> Result<T> + Sync) -> Result<Vec<T>> {
        std::thread::scope(|scope| {
            let (share, pools) = (&share, &self.pools);
            let workers: Vec<_> =
                pools.iter().enumerate().map(|(w, pool)| scope.spawn(move || pool.install(|| share(w)))).collect();
            let lost = || bail!("a worker panicked");
            workers.into_iter().map(|worker| worker.join().unwrap_or_else(|_| lost())).collect()
        })
    }

    fn step(&mut self, step: usize) -> Result<Stepped<O::Terms>> {
        let (collective, workers) = (&self.settings.job.collective, self.pools.len());
        let dealt = self.deal(step);
        // Micro-batch j is rank j mod ranks'; of a rank's, the k-th is worker k mod workers'.
        let mine: Vec<usize> = (collective.rank()..dealt.len()).step_by(collective.size()).collect();
        let turns = |worker: usize| (worker..mine.len()).step_by(workers).map(|k| mine[k]);
        let batches = self.workers(|worker| {
            turns(worker).map(|j| Ok((j, self.objective.batch(step, &dealt[j])?))).collect::<Result<Vec<_>>>()
        })?;

        let (mut counts, mut tokens) = (O::Terms::default(), 0.0);
        for (_, batch) in batches.iter().flatten() {
            counts = counts.plus(self.objective.counts(batch));
            tokens += self.objective.tokens(batch) as f64;
        }
        let stop = f64::from(u8::from(self.settings.job.stop.load(Ordering::Relaxed)));
        let mut of_ranks = counts.values();
        of_ranks.extend([tokens, stop]);
        collective.sum_f64(&mut of_ranks)?;
        let (counts, of_step) = of_ranks.split_at(O::Terms::NAMES.len());
        let (tokens, stop) = (of_step[0], of_step[1] > 0.0);
        let totals = O::Terms::of(counts).or_one();

        let shares = self.workers(|worker| {
            let mut sums = (vec![None; self.variables.len()], O::Terms::default());
            for (j, batch) in &batches[worker] {
                self.add(step, *j, batch, &totals, &mut sums)?;
            }
            Ok(sums)
        })?;
        let (mut gradients, mut means) = (vec![None; self.variables.len()], O::Terms::default());
        for (worker, mean) in shares {
            merge(&mut gradients, worker)?;
            means = means.plus(mean);
        }
        let mut of_ranks = means.values();
        collective.sum_f64(&mut of_ranks)?;
        self.reduce(&mut gradients)?;

        let squares = gradients.iter().flatten().map(|g| scalar(&g.sqr()?.sum_all()?)).sum::<Result<f64>>()?;
        let norm = squares.sqrt();
        if !norm.is_finite() {
            let seen = batches.iter().flatten().map(|(_, batch)| self.objective.describe(batch)).collect();
            return Err(self.dump(step, "the gradient", norm, seen));
        }
        let scale = if norm > 0.0 { (self.settings.optimizer.max_grad_norm / norm).min(1.0) } else { 1.0 };
        self.seen.iter_mut().zip(&gradients).for_each(|(seen, gradient)| *seen |= gradient.is_some());
        self.taught += usize::from(gradients.iter().any(Option::is_some));
        let rate = self.settings.optimizer.rate_at(step, self.steps);
        self.optimizer.step(&self.variables, &gradients, scale, rate)?;
        if self.lead() {
            let batches: Vec<O::Batch> = batches.into_iter().flatten().map(|(_, batch)| batch).collect();
            self.objective.keep(step, &batches, self.out)?;
        }
        Ok(Stepped { terms: O::Terms::of(&of_ranks), norm, tokens, stop })
    }

    /// Adds a micro-batch's gradients and terms.
    fn add(
        &self,
        step: usize,
        micro_batch: usize,
        batch: &O::Batch,
        totals: &O::Terms,
        sums: &mut (Gradients, O::Terms),
    ) -> Result<()> {
        let number = (step * self.settings.run.batch + micro_batch) as u64;
        let _dropout = Dropout::with_seed(self.settings.run.seed.rotate_left(32) ^ number);
        let recomputation = Recomputation::new(self.variables.iter().map(|(_, var)| var.as_tensor()));
        let share = self.objective.loss(batch, totals, self.settings.run.checkpointing.then_some(&recomputation))?;
        sums.1 = sums.1.plus(share.terms);
        let Some(loss) = share.loss else { return Ok(()) };
        let value = scalar(&loss)?;
        if !value.is_finite() {
            return Err(self.dump(step, "the loss", value, vec![self.objective.describe(batch)]));
        }
        let store = loss.backward()?;
        let mut gradients = Vec::with_capacity(self.variables.len());
        for (name, var) in &self.variables {
            let gradient = if self.objective.trains(step, name) { recomputation.gradient(&store, var)? } else { None };
            gradients.push(gradient.map(|g| g.to_dtype(DType::F32)).transpose()?);
        }
        merge(&mut sums.0, gradients)
    }

    /// Sums gradients over the ranks. A rank whose examples gave a variable none adds zeros.
    fn reduce(&self, gradients: &mut Gradients) -> Result<()> {
        let collective = &self.settings.job.collective;
        if collective.size() == 1 {
            return Ok(());
        }
        let mut there: Vec<f64> = gradients.iter().map(|g| f64::from(u8::from(g.is_some()))).collect();
        collective.sum_f64(&mut there)?;
        for ((gradient, (_, var)), there) in gradients.iter_mut().zip(&self.variables).zip(there) {
            if there > 0.0 {
                let mine = match gradient.take() {
                    Some(mine) => mine,
                    None => var.zeros_like()?,
                };
                *gradient = Some(collective.sum_tensor(&mine)?);
            }
        }
        Ok(())
    }

    /// A kernel without a backward cuts the graph in silence; this is where it shows.
    fn all_have_gradients(&self) -> Result<()> {
        let mut pairs = self.variables.iter().zip(&self.seen);
        let trained = |name: &str| (self.first..self.state.step).any(|step| self.objective.trains(step, name));
        match pairs.find(|((name, _), seen)| !**seen && trained(name)) {
            Some(((name, _), _)) => bail!("{name} has no gradient: an operation above it cut the graph"),
            None => Ok(()),
        }
    }

    /// Writes down what made no number, and says where.
    fn dump(&self, step: usize, what: &str, got: f64, batches: Vec<Value>) -> anyhow::Error {
        let path = self.out.join(format!("nan-step-{step}.json"));
        let seen = json!({"step": step, "rank": self.settings.job.collective.rank(), "batches": batches});
        match write_json(&path, &seen) {
            Ok(()) => anyhow::anyhow!("step {step}: {what} is {got}; its examples are in {}", path.display()),
            Err(error) => anyhow::anyhow!("step {step}: {what} is {got}; its examples could not be written: {error:#}"),
        }
    }

    fn evaluate(&mut self, progress: &mut Progress) -> Result<()> {
        if self.lead() {
            let figures = self.objective.evaluate(self.state.step)?;
            progress.figures(self.state.step, &figures)?;
            if let Some(&(_, loss)) = figures.first() {
                self.state.evaluations.push(Point::new(self.state.step, figures.iter().copied()));
                if loss.is_finite() && self.state.best.is_none_or(|best| loss < best.loss) {
                    self.state.best = Some(Best { step: self.state.step, loss });
                    self.deploy(&self.out.join("best"))?;
                }
            }
        }
        self.settings.job.collective.barrier()
    }

    fn save(&self) -> Result<()> {
        if self.lead() {
            let write = |dir: &Path| self.deploy(dir);
            let config = &self.settings.config;
            checkpoint::save(self.out, &self.state, config, &self.variables, &self.optimizer, &write)?;
            checkpoint::prune(self.out, self.settings.run.keep)?;
        }
        self.settings.job.collective.barrier()
    }

    /// Writes what would be deployed, with its manifest.
    fn deploy(&self, dir: &Path) -> Result<()> {
        self.student.save(dir)?;
        self.objective.save(dir)?;
        self.manifest(dir)
    }
}

/// Adds gradients to sums.
fn merge(sums: &mut Gradients, gradients: Gradients) -> Result<()> {
    for (sum, gradient) in sums.iter_mut().zip(gradients) {
        let Some(gradient) = gradient else { continue };
        *sum = Some(match sum.take() {
            Some(sum) => (sum + gradient)?,
            None => gradient,
        });
    }
    Ok(())
}
