//! Rollouts: what the policy answers to a window, sampled several times, and what each answer is worth.

use std::ops::Range;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor};
use geometry::SceneScale;
use geometry::reward::Reward;
use model::answer::chain;
use model::answer::decode::{Ended, Sampling};
use model::answer::fill::Fill;
use model::answer::grammar::Grammar;
use model::answer::prompt;
use model::{AnswerOptions, EgoModel, Patches};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use super::config::GrpoConfig;
use crate::batch::Sequence;
use training_data::WindowSample;
use training_evaluation::measured;

/// Added to the standard deviation of a group's rewards.
const EPSILON: f64 = 1e-4;
/// Standard deviation up to which rewards are alike: that of equal numbers is their rounding.
const ALIKE: f64 = 1e-9;

/// The answers to one prompt.
#[derive(Debug)]
pub struct Group {
    /// Number of the prompt in the stream.
    pub(super) number: u64,
    /// Name of the window.
    pub(super) window: String,
    /// The prompt with its images.
    pub(super) prompt: Sequence,
    pub(super) rollouts: Vec<Rollout>,
    /// One a rollout; nothing where rewards are all alike: there is nothing to learn from.
    pub(super) advantages: Option<Vec<f64>>,
    /// Log-probabilities of all tokens that were drawn, rollout after rollout, under the policy that wrote them; where that is another
    /// one than the one that learns from them.
    pub(super) old: Option<Vec<f32>>,
    /// The same under the reference, where there is one.
    pub(super) reference: Option<Vec<f32>>,
}

/// What a token was drawn from.
#[derive(Debug, Clone)]
pub(super) enum Choice {
    /// All that may ever be written.
    Free,
    /// What the grammar left there, ascending.
    Of(Arc<Vec<u32>>),
    /// It was not: the program wrote it.
    Forced,
}

/// One sampled answer.
#[derive(Debug)]
pub(super) struct Rollout {
    /// The prompt's tokens and what was written behind them, with the token that ended it. The images are the group's.
    pub sequence: Sequence,
    /// Of each token that was written.
    pub choices: Vec<Choice>,
    pub text: String,
    pub reward: Reward,
    /// Whether it ended by itself.
    pub ended: bool,
    /// Whether it ended by itself with five poses that the node would take.
    pub parses: bool,
}

impl Rollout {
    /// `grammar`: that under which the answer was written, where there was one.
    fn new(prompt: &Sequence, answer: model::Answer, sample: &WindowSample, grammar: Option<&Grammar>) -> Result<Self> {
        let fine = matches!(answer.ended, Ended::Stop | Ended::Length);
        ensure!(fine, "an answer of {} tokens: the policy's logits are not numbers", answer.ids.len());
        let (reward, ended) = (reward(&answer, sample), answer.ended == Ended::Stop);
        // Behind the prompt's last token, which is text: its three places are one.
        let next = prompt.positions.last().map_or(0, |place| place[0] + 1);
        let written: Vec<u32> = answer.ids.into_iter().chain(answer.end).collect();
        let choices = choices(&written, &answer.runs, grammar);
        let places = (0..written.len() as u32).map(|i| [next + i; 3]);
        let sequence = Sequence {
            images: Vec::new(),
            positions: prompt.positions.iter().copied().chain(places).collect(),
            ids: prompt.ids.iter().copied().chain(written).collect(),
            response: prompt.ids.len(),
        };
        Ok(Self { sequence, choices, text: answer.text, reward, ended, parses: ended && answer.trajectory.is_ok() })
    }

    /// Tokens that were written.
    pub fn length(&self) -> usize {
        self.sequence.ids.len() - self.sequence.response
    }

    /// Tokens that the policy drew: the loss is over these.
    pub fn drawn(&self) -> usize {
        self.choices.iter().filter(|choice| !matches!(choice, Choice::Forced)).count()
    }

    /// What is logged of it.
    pub fn figures(&self) -> Figures {
        let reward = &self.reward;
        let of_poses = |part: f64| (reward.format > 0.0).then_some(part);
        let share = |is: bool| f64::from(u8::from(is));
        Figures {
            reward: reward.total,
            format: reward.format,
            valid: of_poses(reward.valid),
            rotation: of_poses(reward.rotation),
            direction: reward.direction,
            magnitude: of_poses(reward.magnitude),
            length: self.length() as f64,
            parse: share(self.parses),
            truncated: share(!self.ended),
        }
    }
}

/// What is logged of a rollout. The parts of the reward that judge poses are there where there are poses, direction where
/// there is one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Figures {
    pub reward: f64,
    pub format: f64,
    pub valid: Option<f64>,
    pub rotation: Option<f64>,
    pub direction: Option<f64>,
    pub magnitude: Option<f64>,
    /// Tokens that were written.
    pub length: f64,
    /// 1 where it parses.
    pub parse: f64,
    /// 1 where it was cut off.
    pub truncated: f64,
}

impl Group {
    /// Tokens that were read and written.
    pub(super) fn tokens(&self) -> usize {
        self.prompt.ids.len() + self.rollouts.iter().map(Rollout::length).sum::<usize>()
    }

    /// What is written down of it, an object a rollout.
    pub(super) fn lines(&self) -> Vec<Value> {
        let line = |(i, rollout): (usize, &Rollout)| {
            json!({
                "prompt": self.number, "window": self.window, "rollout": i, "text": rollout.text,
                "reward": rollout.reward, "advantage": self.advantages.as_ref().map(|a| a[i]),
                "tokens": rollout.length(), "filled": rollout.length() - rollout.drawn(), "ended": rollout.ended, "parses": rollout.parses,
            })
        };
        self.rollouts.iter().enumerate().map(line).collect()
    }
}

/// The model that answers: the one under training, as it is at the time.
pub(super) struct Sampler<'a> {
    pub policy: EgoModel,
    pub config: &'a GrpoConfig,
    /// Of the run.
    pub seed: u64,
}

impl Sampler<'_> {
    /// Samples a group. What is drawn depends on the policy, the seed of the run and the number of the prompt alone.
    ///
    /// # Errors
    /// A window that the model can't read, a policy whose logits are not numbers.
    pub fn draw(&self, number: u64, sample: &WindowSample) -> Result<Group> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(number);
        let sampling = Sampling { temperature: self.config.temperature, top_p: 1.0, seed: rng.random() };
        let (patches, answers) = self.ask(sample, sampling, self.config.group_size)?;
        let prompt = self.prompt(&patches)?;
        let grammar = match self.config.fill {
            Fill::None => None,
            Fill::Arithmetic | Fill::Measured => Some(self.policy.grammar(self.config.mode)?),
        };
        let rollout = |answer| Rollout::new(&prompt, answer, sample, grammar.as_deref());
        let rollouts = answers.into_iter().map(rollout).collect::<Result<Vec<_>>>()?;
        let rewards: Vec<f64> = rollouts.iter().map(|rollout| rollout.reward.total).collect();
        let advantages = advantages(&rewards);
        Ok(Group { number, window: sample.id.clone(), prompt, rollouts, advantages, old: None, reference: None })
    }

    /// The frames as the model sees them, and `n` answers, which share the cache of the prompt.
    ///
    /// # Errors
    /// A window that the model can't read.
    pub fn ask(
        &self,
        sample: &WindowSample,
        sampling: Sampling,
        n: usize,
    ) -> Result<(Vec<Patches>, Vec<model::Answer>)> {
        let frame = |image| self.policy.preprocess(image, &sample.intrinsics);
        let patches = sample.images.iter().map(frame).collect::<model::Result<Vec<_>>>()?;
        let frames = patches.iter().map(|p| self.policy.encode(p)).collect::<model::Result<Vec<_>>>()?;
        let measured = match self.config.fill {
            Fill::Measured => measured::of_images(&sample.images, &sample.intrinsics, &sample.stamps)?,
            Fill::None | Fill::Arithmetic => None,
        };
        let &GrpoConfig { mode, max_tokens, fill, .. } = self.config;
        let options = AnswerOptions { mode, max_tokens, fill, measured, sampling, ..AnswerOptions::default() };
        let answers = self.policy.answers(&frames.iter().collect::<Vec<_>>(), &options, n)?;
        Ok((patches, answers))
    }

    /// What the policy was asked, for replay.
    fn prompt(&self, patches: &[Patches]) -> Result<Sequence> {
        let config = self.policy.network().config();
        let first = patches.first().context("a window without frames")?;
        let grids: Vec<_> = patches.iter().map(|p| p.grid).collect();
        let prompt = prompt::window(
            self.policy.tokenizer(),
            config.image_token_id,
            config.vision_config.spatial_merge_size,
            self.config.mode,
            &first.intrinsics,
            &grids,
        )?;
        let images =
            Tensor::stack(&patches.iter().map(|p| &p.values).collect::<Vec<_>>(), 0)?.to_device(&Device::Cpu)?;
        let response = prompt.ids.len();
        Ok(Sequence { images: vec![(images, first.grid)], ids: prompt.ids, positions: prompt.positions, response })
    }
}

/// What each of the tokens was drawn from, where those of `runs` were not.
fn choices(written: &[u32], runs: &[Range<usize>], grammar: Option<&Grammar>) -> Vec<Choice> {
    let mut place = grammar.map(|grammar| (grammar, grammar.start()));
    let choice = |(at, id): (usize, &u32)| {
        let choice = match &place {
            _ if runs.iter().any(|run| run.contains(&at)) => Choice::Forced,
            Some((grammar, place)) => Choice::Of(grammar.allowed(place)),
            None => Choice::Free,
        };
        if let Some((grammar, place)) = &mut place {
            *place = grammar.advance(place, *id);
        }
        choice
    };
    written.iter().enumerate().map(choice).collect()
}

/// What is known of the unit of a window.
pub(super) fn scale(sample: &WindowSample) -> SceneScale {
    SceneScale { metric: sample.metric, median_depth: sample.median_depth }
}

/// The reward of an answer. One that was cut off is a parse failure, though its poses be there already.
pub(super) fn reward(answer: &model::Answer, sample: &WindowSample) -> Reward {
    let poses = chain::stated_poses(&answer.text).ok().filter(|_| answer.ended == Ended::Stop);
    Reward::new(poses.as_ref(), &sample.ground_truth, scale(sample))
}

/// `(r - mean) / (std + 1e-4)` over a group (Shao et al. 2024, section 4.1.2), with the standard deviation of a sample
/// (n - 1); nothing where rewards are all alike.
fn advantages(rewards: &[f64]) -> Option<Vec<f64>> {
    let n = rewards.len() as f64;
    let mean = rewards.iter().sum::<f64>() / n;
    let std = (rewards.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
    (std > ALIKE).then(|| rewards.iter().map(|r| (r - mean) / (std + EPSILON)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::answer::speculate::Drafted;
    use training_data::{WindowSample, parse_source};

    #[test]
    fn advantages_are_rewards_in_units_of_their_spread() {
        let got = advantages(&[1.0, 0.0, 0.5, 0.5]).unwrap();
        let std = (0.5f64 / 3.0).sqrt();
        for (got, centred) in got.iter().zip([0.5, -0.5, 0.0, 0.0]) {
            assert!((got - centred / (std + 1e-4)).abs() < 1e-12, "{got}");
        }
        // A tiny spread is not blown up to a whole one.
        let small = advantages(&[0.5, 0.5 + 1e-6]).unwrap();
        assert!(small[1] > 0.0 && small[1] < 0.01, "{small:?}");
        assert!(advantages(&[-1.0; 4]).is_none());
        assert!(advantages(&[0.1 + 0.2, 0.3, 0.1 + 0.2]).is_none(), "no spread but rounding");
    }

    #[test]
    fn a_true_answer_earns_all_and_one_that_was_cut_off_or_does_not_parse_minus_one() {
        let windows = parse_source("synth:seed=11,windows=20,size=64x48").unwrap();
        let moved = |sample: &WindowSample| sample.ground_truth.anchor_from_camera()[1].translation().norm() > 0.02;
        let sample = (0..windows.len()).map(|k| windows.sample(k).unwrap()).find(moved).unwrap();
        let truth = chain::write_poses(&sample.ground_truth);
        let judge = |text: &str, ended| {
            let trajectory = chain::parse_poses(text);
            let answer = model::Answer {
                text: text.to_owned(),
                trajectory,
                ids: Vec::new(),
                filled: 0,
                runs: Vec::new(),
                by_program: Vec::new(),
                passes: 0,
                drafted: Drafted::default(),
                reused: 0,
                ended,
                end: None,
            };
            reward(&answer, &sample).total
        };
        assert!(judge(&truth, Ended::Stop) > 0.99);
        assert!((judge(&truth, Ended::Length) + 1.0).abs() < 1e-12);
        assert!((judge("<poses>\n", Ended::Stop) + 1.0).abs() < 1e-12);
    }
}
