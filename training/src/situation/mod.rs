//! Layout and situation (Loc3R-VLM, arXiv 2603.18002): the decoder learns where on the ground plane the surface of each
//! vision token lies, and two learned tokens a frame, `<Pos>` and `<Ori>`, learn to say where the frame was taken. The
//! second is the one-prefill pose head of the node's fast mode; the first is there to teach and is dropped.
//!
//! The tokens, their heads and where they stand are [`model::pose_head`]'s, so that what is trained is what the node asks.
//! Beside a response they can't stand in one sequence: in front of it they would change the prompt that the deployed
//! model is asked with, and behind it they would read the poses off it. So a window is two sequences while the text has
//! a weight: prompt and response, and prompt and tokens. The vision tower runs once for both.

mod config;
mod data;
mod heads;
mod loss;
mod metrics;

use std::path::Path;

use anyhow::{Context, Result, ensure};
use candle_core::Tensor;
use model::Qwen3Vl;
use model::autograd::recompute::Recomputation;
use model::pose_head::{ASKED, Bins, FrameEstimate, FramePose, Gaussian, NotFinite, PoseReading, TOKENS};
use serde_json::{Value, json};

use crate::batch::{self, Batch, Embeddings, Sequence, predictions, scalar, select};
use crate::depth::DepthEstimator;
use crate::sft::example::Builder;
use crate::sft::loss::{Target, Targets, cross_entropy};
use crate::student::{Adapter, HEAD_PREFIX, Shape, Student};
use crate::trainer::config::{OptimizerConfig, RunConfig};
use crate::trainer::stage::{self, Stage};
use crate::trainer::{Finished, Job, Objective, Share, Sources, Terms, named_terms};
pub use config::{Config, DataConfig, EvalConfig, LayoutConfig, SituationConfig, TextConfig, read_config};
use data::{Data, Guesses, Places, Window, fill};
use heads::{Heads, question};
use loss::{YawTargets, nll};
use metrics::{Estimate, MeanPose, TokenPlace};
use training_data::{WindowSample, parse_source};

named_terms! {
    /// The weighted sum first; each of the others is a mean.
    pub struct SituationTerms {
        /// The weighted sum of the others.
        loss,
        /// Cross-entropy of the responses' tokens.
        ce,
        /// Negative log-likelihood of the places of the vision tokens.
        layout,
        /// Negative log-likelihood of the frames' positions.
        position,
        /// Divergence of the bins of the yaw.
        orientation,
        /// Negative log-likelihood of pitch and roll.
        tilt,
    }
}

/// Trains a model, or an adapter beside one, with the heads.
///
/// # Errors
/// A config out of bounds, data or a checkpoint that can't be read, a folder that can't be written, a loss or gradient
/// that is not a number.
pub fn run(config: &Config, init: Option<&Path>, out: &Path, job: &Job) -> Result<Finished> {
    stage::run(config, init, out, job)
}

impl Stage for Config {
    const NAME: &'static str = "situation";

    type Objective<'a> = Situation<'a>;

    fn common(&self) -> (&RunConfig, &OptimizerConfig) {
        (&self.run, &self.optimizer)
    }

    fn student(&self) -> (Option<&Shape>, Option<&Adapter>) {
        (self.shape.as_ref(), self.lora.as_ref())
    }

    fn check(&self) -> Result<()> {
        self.check()
    }

    fn objective<'a>(&'a self, student: &'a Student, init: Option<&Path>) -> Result<Situation<'a>> {
        let objective = Situation::new(self, student)?;
        init.map_or(Ok(()), |dir| student.load_heads(dir))?;
        Ok(objective)
    }
}

/// The objective: CE + 0.05 layout + 0.075 (position + 3.5 orientation), each weight a key of the config, and pitch and
/// roll beside the orientation where the full pose is asked for.
pub struct Situation<'a> {
    config: &'a Config,
    student: &'a Student,
    heads: Heads,
    yaw: YawTargets,
    targets: Targets,
    data: Data,
    mean_pose: MeanPose,
    guesses: Guesses,
    estimator: Option<DepthEstimator>,
    hold_out: Vec<Window>,
    hold_out_inputs: Value,
    held_out: Vec<String>,
}

/// What the heads and the decoder say of some windows; row `ASKED * w + i` is of frame i + 1 of window w.
struct Reading {
    /// Logits of the responses' tokens `[m, vocab]`, where the text has a weight.
    text: Option<(Tensor, Vec<Target>)>,
    /// Of the vision tokens with a known place, and these places.
    layout: Option<(Gaussian, Tensor)>,
    pose: PoseReading,
}

impl<'a> Situation<'a> {
    /// Opens the data, reads the hold-out, and adds the heads to the student.
    ///
    /// # Errors
    /// Data that can't be read, a layout without any depth.
    pub fn new(config: &'a Config, student: &'a Student) -> Result<Self> {
        let (text, s) = (&config.text, &config.situation);
        let data = Data::open(&config.data.source, config.run.seed).context("data.source")?;
        let estimator = config.data.depth.as_ref().map(DepthEstimator::open).transpose()?;
        let (mut poses, mut depth, mut guesses) = (Vec::new(), false, Guesses::default());
        for sample in data::spread(&data.source, config.data.sample) {
            let mut sample = sample.context("data.source")?;
            filled(estimator.as_ref(), &mut sample);
            poses.push(FramePose::of_window(&sample.ground_truth));
            depth |= sample.depth.is_some();
            if config.layout.weight > 0.0 {
                guesses.add(&Places::of(&student.processor, &sample, config.layout.unit).context("data.source")?);
            }
        }
        ensure!(
            depth || config.layout.weight <= 0.0,
            "layout.weight: expected 0, since none of {} windows of data.source has depth",
            poses.len()
        );
        let vocabulary = student.model.config().text_config.vocab_size;
        let mut objective = Self {
            config,
            student,
            heads: Heads::new(config, student)?,
            yaw: YawTargets::new(Bins::new(s.bins), s.bin_sigma),
            targets: Targets::new(&student.tokenizer, vocabulary, text.number_sigma, text.tail_weight),
            data,
            mean_pose: MeanPose::of(&poses),
            guesses,
            estimator,
            hold_out: Vec::new(),
            hold_out_inputs: Value::Null,
            held_out: Vec::new(),
        };
        if let Some(eval) = &config.eval {
            let source = parse_source(&eval.source).context("eval.source")?;
            for sample in data::spread(&source, eval.windows) {
                let window = objective.window(sample.context("eval.source")?)?;
                objective.hold_out.push(window);
            }
            objective.hold_out_inputs = data::describe(&source);
            objective.held_out = source.sources();
        }
        Ok(objective)
    }

    /// A window; without its response where the text has no weight.
    fn window(&self, mut sample: WindowSample) -> Result<Window> {
        let builder = Builder::of(self.student);
        filled(self.estimator.as_ref(), &mut sample);
        let mut window = Window::new(&builder, &sample, self.config.layout.unit).with_context(|| sample.id.clone())?;
        if !self.speaks() {
            window.example.drop_response();
        }
        Ok(window)
    }

    /// Whether the text has a weight.
    fn speaks(&self) -> bool {
        self.config.text.weight > 0.0
    }

    /// One pass over the answers, where the text has a weight, and one over the questions, both on the same frames.
    fn read(&self, model: &Qwen3Vl, windows: &[Window], recomputation: Option<&Recomputation>) -> Result<Reading> {
        let pad = self.student.tokenizer.pad;
        let answers: Vec<&Sequence> = windows.iter().map(|window| &window.example.sequence).collect();
        let questions: Vec<Sequence> = answers.iter().map(|answer| question(answer, pad)).collect();
        let (answered, asked) = (Batch::new(answers.iter().copied(), pad), Batch::new(&questions, pad));
        let frozen = self.config.situation.freeze_vision;
        let embedded = batch::embed(model, &answered, answers.iter().copied(), frozen)?;
        let text = if self.speaks() {
            let hidden = batch::decode(model, &answered, &embedded, recomputation, &mut |_, _| {})?;
            let predictions = predictions(&answered, answers.iter().copied());
            let (rows, targets): (Vec<u32>, Vec<Target>) =
                predictions.map(|(row, token)| (row, self.targets.of(token))).unzip();
            Some((model.logits(&select(&hidden, &rows)?)?, targets))
        } else {
            None
        };

        let beyond = (answered.size * answered.width) as u32;
        let mut places = Vec::with_capacity(asked.ids.len());
        for (w, question) in questions.iter().enumerate() {
            let prompt = question.ids.len() - TOKENS;
            places.extend((0..asked.width).map(|token| match token {
                token if token < prompt => answered.row(w, token),
                token if token < question.ids.len() => beyond + (token - prompt) as u32,
                _ => beyond, // padding, which nothing looks at
            }));
        }
        let embeddings = rearranged(&embedded, &self.heads.pose.tokens()?, &places, asked.size)?;
        let hidden = batch::decode(model, &asked, &embeddings, recomputation, &mut |_, _| {})?;
        let learned = questions.iter().enumerate().flat_map(|(w, question)| {
            let begin = question.ids.len() - TOKENS;
            (begin..question.ids.len()).map(move |token| (w, token))
        });
        let learned: Vec<u32> = learned.map(|(w, token)| asked.row(w, token)).collect();
        let pose = self.heads.pose.read(&select(&hidden, &learned)?)?;
        Ok(Reading { text, layout: self.read_layout(&hidden, &asked, windows)?, pose })
    }

    fn read_layout(&self, hidden: &Tensor, asked: &Batch, windows: &[Window]) -> Result<Option<(Gaussian, Tensor)>> {
        let rows = asked.rows_of(self.student.model.config().image_token_id);
        let places: Vec<Option<[f32; 2]>> = windows.iter().flat_map(|window| window.layout.iter().copied()).collect();
        ensure!(rows.len() == places.len(), "{} vision tokens, {} places", rows.len(), places.len());
        let known = rows.into_iter().zip(places).filter_map(|(row, place)| place.map(|place| (row, place)));
        let (rows, places): (Vec<u32>, Vec<[f32; 2]>) = known.unzip();
        if rows.is_empty() {
            return Ok(None);
        }
        let places = Tensor::from_vec(places.concat(), (rows.len(), 2), hidden.device())?;
        Ok(self.heads.layout(&select(hidden, &rows)?)?.map(|said| (said, places)))
    }

    /// What windows add to a step whose counts are `totals`.
    fn share(&self, reading: Reading, windows: &[Window], totals: &SituationTerms) -> Result<Share<SituationTerms>> {
        let (c, s) = (self.config, &self.config.situation);
        let poses: Vec<FramePose> = windows.iter().flat_map(|window| window.poses).collect();
        let table = |columns: usize, values: Vec<f64>| {
            let values: Vec<f32> = values.into_iter().map(|v| v as f32).collect();
            Tensor::from_vec(values, (poses.len(), columns), self.student.device())
        };
        let axes = if s.full_pose { 3 } else { 2 };
        let positions = poses.iter().flat_map(|pose| {
            let p = pose.position / s.unit;
            [p.x, p.z, p.y].into_iter().take(axes)
        });
        let yaws: Vec<f64> = poses.iter().map(|pose| pose.yaw).collect();
        let (mut terms, mut sum, mut loss) = (SituationTerms::default(), 0.0, None::<Tensor>);
        let mut add = |term: &mut f64, total: f64, weight: f64, of_windows: Tensor| -> Result<()> {
            let mean = (of_windows / total)?;
            *term = scalar(&mean)?;
            sum += weight * *term;
            let weighted = (mean * weight)?;
            loss = Some(match loss.take() {
                Some(loss) => (weighted + loss)?,
                None => weighted,
            });
            Ok(())
        };
        let position = nll(&reading.pose.position, &table(axes, positions.collect())?)?;
        add(&mut terms.position, totals.position, s.weight, position)?;
        let orientation = self.yaw.kl(&reading.pose.yaw, &yaws)?;
        add(&mut terms.orientation, totals.orientation, s.weight * s.orientation_weight, orientation)?;
        if let Some(tilt) = &reading.pose.tilt {
            let unit = s.tilt_unit_deg.to_radians();
            let tilts = poses.iter().flat_map(|pose| [pose.pitch / unit, pose.roll / unit]).collect();
            add(&mut terms.tilt, totals.tilt, s.weight * s.tilt_weight, nll(tilt, &table(2, tilts)?)?)?;
        }
        if let Some((said, places)) = &reading.layout {
            add(&mut terms.layout, totals.layout, c.layout.weight, nll(said, places)?)?;
        }
        if let Some((logits, targets)) = reading.text {
            add(&mut terms.ce, totals.ce, c.text.weight, cross_entropy(&logits, targets)?)?;
        }
        terms.loss = sum;
        Ok(Share { loss, terms })
    }

    /// Where the head puts the tokens of some windows that have a known place, beside where guesses would; scene units.
    fn token_places(&self, reading: &Reading, windows: &[Window]) -> Result<Vec<TokenPlace>> {
        /// Mean and logarithm of the variance, along x and z.
        type Said = (Vec<f32>, Vec<f32>);
        /// A token of a window, and its place.
        type Known<'a> = (&'a Window, usize, [f32; 2]);
        let (Some((said, _)), unit) = (&reading.layout, self.config.layout.unit) else { return Ok(Vec::new()) };
        let rows = |x: &Tensor| x.to_dtype(candle_core::DType::F32)?.to_vec2::<f32>();
        let said: Vec<_> = rows(&said.mean)?.into_iter().zip(rows(&said.log_variance)?).collect();
        let depth = self.guesses.depth();
        let known = windows.iter().flat_map(|window| {
            let places = window.layout.iter().enumerate();
            places.filter_map(move |(token, place)| Some((window, token, (*place)?)))
        });
        let place = |((mean, log_variance), (window, token, truth)): (Said, Known<'_>)| {
            let ray = window.rays[token % window.rays.len()].map(f64::from);
            TokenPlace {
                truth: truth.map(|v| unit * f64::from(v)),
                said: [0, 1].map(|axis: usize| unit * f64::from(mean[axis])),
                sigma: unit * log_variance.iter().map(|v| f64::from(*v).exp()).sum::<f64>().sqrt(),
                mean: self.guesses.mean(window.layout.len(), token).map(|v| unit * v),
                ray: ray.map(|v| unit * depth * v),
            }
        };
        Ok(said.into_iter().zip(known).map(place).collect())
    }

    /// What a reading says in scene units and radians.
    fn estimates(&self, reading: &Reading) -> Result<Vec<Estimate>> {
        let frames = self.heads.pose.decode(&reading.pose)?.into_iter();
        let estimate = |frame: Result<FrameEstimate, NotFinite>| -> Result<Estimate> {
            let FrameEstimate { pose, stddev } = frame?;
            Ok(Estimate { pose, sigma: stddev.xz().norm() })
        };
        frames.map(estimate).collect()
    }
}

/// Gives a window without depth that of the network, where there is one.
fn filled(estimator: Option<&DepthEstimator>, sample: &mut WindowSample) {
    if let Some(estimator) = estimator {
        fill(sample, |images, given| estimator.maps(images, given));
    }
}

/// Rows of `embedded` and of `learned` behind them in another order, as a batch of `size` sequences: one gather, which
/// has a gradient. What is not of `embedded` takes nothing from the vision tower.
fn rearranged(embedded: &Embeddings, learned: &Tensor, places: &[u32], size: usize) -> Result<Embeddings> {
    let (rows, width, d) = embedded.tokens.dims3()?;
    let (beyond, device) = ((rows * width) as u32, embedded.tokens.device());
    let gather = |from: &Tensor, behind: &Tensor, places: &[u32]| -> Result<Tensor> {
        let table = Tensor::cat(&[&from.flatten_to(1)?, &behind.to_dtype(from.dtype())?], 0)?;
        let index = Tensor::new(places, device)?;
        Ok(table.index_select(&index, 0)?.reshape((size, places.len() / size, d))?)
    };
    let tokens = gather(&embedded.tokens, learned, places)?;
    let zero = Tensor::zeros((1, d), tokens.dtype(), device)?;
    let places: Vec<u32> = places.iter().map(|place| (*place).min(beyond)).collect();
    let deepstack = embedded.deepstack.iter().map(|features| gather(features, &zero, &places));
    Ok(Embeddings { tokens, deepstack: deepstack.collect::<Result<_>>()? })
}

impl Objective for Situation<'_> {
    type Batch = Vec<Window>;
    type Terms = SituationTerms;

    fn inputs(&self) -> Value {
        json!({
            "data": data::describe(&self.data.source), "hold_out": self.hold_out_inputs,
        })
    }

    fn sources(&self) -> Sources {
        Sources { trained: self.data.source.sources(), held_out: self.held_out.clone() }
    }

    fn epoch(&self) -> Option<u64> {
        Some(self.data.epoch())
    }

    fn batch(&self, _step: usize, examples: &[u64]) -> Result<Vec<Window>> {
        let window = |k: &u64| self.window(self.data.sample(*k).context("data.source")?);
        examples.iter().map(window).collect()
    }

    fn counts(&self, windows: &Vec<Window>) -> SituationTerms {
        let weight = |window: &Window| {
            let sequence = &window.example.sequence;
            sequence.ids[sequence.response..].iter().map(|&id| f64::from(self.targets.of(id).weight)).sum::<f64>()
        };
        let frames = (windows.len() * ASKED) as f64;
        SituationTerms {
            loss: windows.len() as f64,
            ce: windows.iter().map(weight).sum(),
            layout: windows.iter().flat_map(|window| &window.layout).flatten().count() as f64,
            position: frames,
            orientation: frames,
            tilt: frames,
        }
    }

    fn loss(
        &self,
        windows: &Vec<Window>,
        totals: &SituationTerms,
        recomputation: Option<&Recomputation>,
    ) -> Result<Share<SituationTerms>> {
        self.share(self.read(&self.student.model, windows, recomputation)?, windows, totals)
    }

    fn tokens(&self, windows: &Vec<Window>) -> usize {
        let of = |sequence: &Sequence| {
            let answer = if self.speaks() { sequence.ids.len() } else { 0 };
            answer + sequence.response + TOKENS
        };
        windows.iter().map(|window| of(&window.example.sequence)).sum()
    }

    fn describe(&self, windows: &Vec<Window>) -> Value {
        let poses = |window: &Window| window.poses.map(|p| [p.position.x, p.position.y, p.position.z, p.yaw]);
        let of = |w: &Window| json!({"id": w.example.id, "ids": w.example.sequence.ids, "xyz_yaw": poses(w)});
        windows.iter().map(of).collect()
    }

    fn trains(&self, _step: usize, variable: &str) -> bool {
        if variable.starts_with(HEAD_PREFIX) {
            return heads::NAMES.iter().any(|own| variable.starts_with(own));
        }
        let frozen = self.config.situation.freeze_vision && variable.contains("visual.");
        // A head that is not the embedding has nothing to say without the text.
        let idle = !self.speaks() && variable.starts_with("lm_head.");
        !frozen && !idle
    }

    fn save(&self, dir: &Path) -> Result<()> {
        let base = self.student.base.as_deref();
        Ok(self.heads.pose.save(base.unwrap_or(dir), base.map(|_| dir))?)
    }

    fn evaluate(&self, _step: usize) -> Result<Vec<(&'static str, f64)>> {
        if self.hold_out.is_empty() {
            return Ok(Vec::new());
        }
        let model = self.student.model.for_inference();
        // A mean over nothing is nothing.
        let totals = self.counts(&self.hold_out).or_one();
        let (mut terms, mut estimates, mut places) = (SituationTerms::default(), Vec::new(), Vec::new());
        for windows in self.hold_out.chunks(self.config.run.micro_batch) {
            let reading = self.read(&model, windows, None)?;
            estimates.extend(self.estimates(&reading)?);
            places.extend(self.token_places(&reading, windows)?);
            terms = terms.plus(self.share(reading, windows, &totals)?.terms);
        }
        let truth: Vec<FramePose> = self.hold_out.iter().flat_map(|window| window.poses).collect();
        let mut figures = terms.named();
        figures.extend(metrics::figures(&truth, &estimates, &self.mean_pose, self.config.situation.full_pose));
        figures.extend(metrics::layout_figures(&places));
        Ok(figures)
    }
}

#[cfg(test)]
mod tests;
