//! The loss of GRPO (Shao et al. 2024, "DeepSeekMath", eq. 3 and 4), token by token.
//!
//! Probabilities are those of the distribution that answers are drawn from: of the logits over the temperature, without
//! the tokens that are never written, and without those that the grammar forbade where there was one. The ratio then compares two
//! policies that sample, and is 1 where they are one. What the program filled in was not drawn and is no part of anything here.

use std::sync::Arc;

use anyhow::Result;
use candle_core::{D, DType, Tensor};
use candle_nn::ops::log_softmax;
use model::autograd::recompute::Recomputation;
use model::{EgoModel, Qwen3Vl};

use super::config::{GrpoConfig, Normalisation};
use super::rollout::{Choice, Group};
use crate::batch::{Batch, Embeddings, decode, embed, predictions, scalar, select};

/// Rows of logits that exist at once under checkpointing: 150 MiB of a vocabulary of 150,000, in f32.
const ROWS: usize = 256;
/// Added to the logits of what is never written; finite, since a gradient of infinities is none.
const BANNED: f32 = -1e30;

/// Finds the log-probabilities of rollouts.
#[derive(Clone)]
pub(super) struct Scorer {
    /// 0 for what may be written, [`BANNED`] for what may not; `[vocab]`, f32.
    mask: Tensor,
    temperature: f64,
    chunk: usize,
    pad: u32,
}

impl Scorer {
    pub fn new(policy: &EgoModel, config: &GrpoConfig) -> Result<Self> {
        let network = policy.network();
        let mut mask = vec![0f32; network.config().text_config.vocab_size];
        for &id in policy.banned() {
            if let Some(value) = mask.get_mut(id as usize) {
                *value = BANNED;
            }
        }
        Ok(Self {
            mask: Tensor::new(mask, network.device())?,
            temperature: config.temperature,
            chunk: config.chunk,
            pad: policy.tokenizer().pad,
        })
    }

    /// Log-probabilities of all tokens that were drawn, rollout after rollout, `[n]` in f32. The prompt's images go
    /// through the tower once, its tokens through the decoder once a rollout. `frozen`: without a graph over the tower.
    ///
    /// # Errors
    /// A tensor operation's.
    pub fn log_probs(
        &self,
        model: &Qwen3Vl,
        group: &Group,
        frozen: bool,
        recomputation: Option<&Recomputation>,
    ) -> Result<Tensor> {
        let prompt = embed(model, &Batch::new([&group.prompt], self.pad), [&group.prompt], frozen)?;
        let network = Arc::new(model.clone());
        let mut parts = Vec::new();
        for rollouts in group.rollouts.chunks(self.chunk) {
            let sequences: Vec<_> = rollouts.iter().map(|rollout| &rollout.sequence).collect();
            let batch = Batch::new(sequences.iter().copied(), self.pad);
            let embeddings = behind(model, &prompt, &batch)?;
            let hidden = decode(model, &batch, &embeddings, recomputation, &mut |_, _| {})?;
            let choices = rollouts.iter().flat_map(|rollout| &rollout.choices);
            let drawn =
                predictions(&batch, sequences).zip(choices).filter(|(_, choice)| !matches!(choice, Choice::Forced));
            let (at, choices): (Vec<(u32, u32)>, Vec<Choice>) = drawn.map(|(at, choice)| (at, choice.clone())).unzip();
            let (rows, tokens): (Vec<u32>, Vec<u32>) = at.into_iter().unzip();
            if rows.is_empty() {
                continue;
            }
            let hidden = select(&hidden, &rows)?; // [n, d]
            for (i, (tokens, choices)) in tokens.chunks(ROWS).zip(choices.chunks(ROWS)).enumerate() {
                let hidden = hidden.narrow(0, i * ROWS, tokens.len())?;
                let tokens = Tensor::new(tokens, model.device())?;
                let (scorer, network, choices) = (self.clone(), network.clone(), choices.to_vec());
                let score = move |hidden: &Tensor| scorer.score(&network, hidden, &tokens, &choices);
                parts.push(match recomputation {
                    Some(recomputation) => recomputation.run(&hidden, score)?,
                    None => score(&hidden)?,
                });
            }
        }
        Ok(Tensor::cat(&parts, 0)?)
    }

    /// Log-probabilities of `tokens` `[n]` behind hidden states `[n, d]`, `[n]`.
    fn score(&self, model: &Qwen3Vl, hidden: &Tensor, tokens: &Tensor, choices: &[Choice]) -> model::Result<Tensor> {
        let mut logits = model.logits(hidden)?.to_dtype(DType::F32)?.broadcast_add(&self.mask)?;
        if let Some(forbidden) = self.forbidden(choices)? {
            logits = (logits + forbidden)?;
        }
        let all = log_softmax(&(logits / self.temperature)?, D::Minus1)?; // [n, vocab]
        Ok(all.gather(&tokens.unsqueeze(1)?, 1)?.squeeze(1)?)
    }

    /// 0 for what the grammar left to each token, [`BANNED`] for the rest, `[n, vocab]`; `None` where there was no grammar.
    fn forbidden(&self, choices: &[Choice]) -> candle_core::Result<Option<Tensor>> {
        if choices.iter().all(|choice| matches!(choice, Choice::Free)) {
            return Ok(None);
        }
        let vocabulary = self.mask.elem_count();
        let mut mask = vec![0f32; choices.len() * vocabulary];
        for (row, choice) in mask.chunks_exact_mut(vocabulary).zip(choices) {
            let Choice::Of(ids) = choice else { continue };
            row.fill(BANNED);
            for &id in ids.iter() {
                row[id as usize] = 0.0;
            }
        }
        Tensor::from_vec(mask, (choices.len(), vocabulary), self.mask.device()).map(Some)
    }
}

/// What was written behind the prompt, behind the prompt's embeddings: the same for each sequence of the batch.
fn behind(model: &Qwen3Vl, prompt: &Embeddings, batch: &Batch) -> Result<Embeddings> {
    let (_, t, d) = prompt.tokens.dims3()?;
    let (n, rest) = (batch.size, batch.width - t);
    let ids: Vec<u32> = batch.ids.chunks_exact(batch.width).flat_map(|row| &row[t..]).copied().collect();
    let written = model.embed(&Tensor::new(ids, model.device())?)?.reshape((n, rest, d))?;
    let shared = |x: &Tensor| x.broadcast_as((n, t, d))?.contiguous();
    let deepstack = prompt.deepstack.iter().map(|x| shared(x)?.pad_with_zeros(1, 0, rest));
    Ok(Embeddings {
        deepstack: deepstack.collect::<candle_core::Result<_>>()?,
        tokens: Tensor::cat(&[&shared(&prompt.tokens)?, &written], 1)?,
    })
}

/// `min(ratio * A, clip(ratio, 1 - clip, 1 + clip) * A)` of each token, to be maximised (eq. 3).
fn surrogate(now: &Tensor, old: &Tensor, advantage: &Tensor, clip: f64) -> candle_core::Result<Tensor> {
    let ratio = (now - old)?.exp()?;
    let clipped = (ratio.clamp(1.0 - clip, 1.0 + clip)? * advantage)?;
    (ratio * advantage)?.minimum(&clipped)
}

/// `q / p - log(q / p) - 1` of each token, p the policy and q the reference (eq. 4; k3 of Schulman 2020): at least 0,
/// and on average over what p writes the divergence of p from q.
fn k3(now: &Tensor, reference: &Tensor) -> candle_core::Result<Tensor> {
    let log_ratio = (reference - now)?;
    (log_ratio.exp()? - log_ratio)? - 1.0
}

/// A group's part of the loss.
pub(super) struct Part {
    /// Its share of the step's.
    pub loss: Tensor,
    /// Sum over tokens of the divergence from the reference.
    pub kl: f64,
    /// Tokens whose ratio is clipped: they have no gradient but the divergence's.
    pub clipped: f64,
    /// Sum over tokens of `-log p` of what was written, which estimates the entropy of what may be.
    pub entropy: f64,
}

/// A group's part of the loss from the log-probabilities of its tokens that were drawn. `total`: what the step's mean is over, answers
/// or tokens as the normalisation has it.
///
/// # Errors
/// Another number of log-probabilities than tokens.
pub(super) fn of_group(
    now: &Tensor,
    group: &Group,
    advantages: &[f64],
    config: &GrpoConfig,
    total: f64,
) -> Result<Part> {
    let (mut advantage, mut weight) = (Vec::new(), Vec::new());
    for (rollout, a) in group.rollouts.iter().zip(advantages) {
        let n = rollout.drawn();
        let share = match config.normalisation {
            Normalisation::Sequence => 1.0 / n as f64,
            Normalisation::Token => 1.0,
        };
        advantage.extend(std::iter::repeat_n(*a as f32, n));
        weight.extend(std::iter::repeat_n((share / total) as f32, n));
    }
    let values = now.to_vec1::<f32>()?;
    // Where the policy has not moved since, it is its own old one.
    let old = group.old.as_ref().unwrap_or(&values);
    let is_clipped = |((now, old), a): ((&f32, &f32), &f32)| {
        let ratio = f64::from(now - old).exp();
        if *a > 0.0 { ratio > 1.0 + config.clip } else { *a < 0.0 && ratio < 1.0 - config.clip }
    };
    let clipped = values.iter().zip(old).zip(&advantage).map(is_clipped).filter(|is| *is).count() as f64;
    let entropy = -values.iter().map(|&p| f64::from(p)).sum::<f64>();
    let tensor = |values: &[f32]| Tensor::new(values, now.device());
    let mut loss = surrogate(now, &tensor(old)?, &tensor(&advantage)?, config.clip)?.neg()?;
    let mut kl = 0.0;
    if let Some(reference) = &group.reference {
        let tokens = k3(now, &tensor(reference)?)?;
        kl = scalar(&tokens.sum_all()?)?;
        loss = (loss + (tokens * config.kl_weight)?)?;
    }
    Ok(Part { loss: (loss * tensor(&weight)?)?.sum_all()?, kl, clipped, entropy })
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    fn row(values: &[f32]) -> Tensor {
        Tensor::new(values, &Device::Cpu).unwrap()
    }

    /// Gradient of the surrogate's sum by the log-probabilities.
    fn gradient(now: &[f32], old: &[f32], advantage: &[f32]) -> Vec<f32> {
        let now = Var::from_tensor(&row(now)).unwrap();
        let gain = surrogate(&now, &row(old), &row(advantage), 0.2).unwrap().sum_all().unwrap();
        gain.backward().unwrap().get(&now).unwrap().to_vec1().unwrap()
    }

    fn close(got: &[f32], expected: &[f32]) -> bool {
        got.len() == expected.len() && got.iter().zip(expected).all(|(g, e)| (g - e).abs() < 1e-5)
    }

    #[test]
    fn the_divergence_of_equal_policies_is_zero_and_of_others_positive() {
        let k3 = |now: &[f32], other: &[f32]| k3(&row(now), &row(other)).unwrap().to_vec1::<f32>().unwrap();
        let now = [-0.1, -2.0, -7.5, -3.0];
        assert!(close(&k3(&now, &now), &[0.0; 4]));
        let got = k3(&now, &[-0.4, -1.0, -7.4, -9.0]);
        assert!(got.iter().all(|k| *k > 0.0), "{got:?}");
        assert!(close(&got, &[-0.3f32, 1.0, 0.1, -6.0].map(|d| d.exp() - d - 1.0)), "{got:?}");
    }

    #[test]
    fn its_mean_over_what_the_policy_writes_is_the_divergence() {
        let (p, q) = ([0.5f64, 0.3, 0.2], [0.2f64, 0.3, 0.5]);
        let log = |p: [f64; 3]| row(&p.map(|v| v.ln() as f32));
        let k3 = k3(&log(p), &log(q)).unwrap().to_vec1::<f32>().unwrap();
        let mean: f64 = k3.iter().zip(p).map(|(k, p)| f64::from(*k) * p).sum();
        let exact: f64 = p.iter().zip(q).map(|(p, q)| p * (p / q).ln()).sum();
        assert!((mean - exact).abs() < 1e-6, "{mean} {exact}");
    }

    #[test]
    fn on_the_policy_that_wrote_it_the_gradient_is_the_advantage() {
        let now = [-0.5, -1.0, -2.0];
        let got = gradient(&now, &now, &[1.5, -0.5, 0.0]);
        assert!(close(&got, &[1.5, -0.5, 0.0]), "{got:?}");
    }

    #[test]
    fn the_clip_stops_what_went_too_far_already_and_never_the_way_back() {
        let (up, down) = (1.3f32.ln(), 0.7f32.ln());
        let got = gradient(&[up, up, down, down, 0.1], &[0.0; 5], &[1.0, -1.0, 1.0, -1.0, 1.0]);
        assert!(close(&got, &[0.0, -1.3, 0.7, 0.0, 0.1f32.exp()]), "{got:?}");
    }
}
