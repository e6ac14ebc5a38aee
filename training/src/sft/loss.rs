//! Cross-entropy against soft targets, in one pass forward and one backward.

use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor, bail};
use model::autograd::{exp, parallel, rows};
use model::tokenizer::Tokenizer;
use rayon::prelude::*;

use training_data::vocabulary::{is_tail, leading_value};

/// Target of one place: token ids with probabilities that add up to one, and the weight of the place.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// (id, probability)
    pub ids: Vec<(u32, f32)>,
    /// Weight in the mean.
    pub weight: f32,
}

/// Turns token ids into targets. The first token of a number is a value, not a name: its target is a Gaussian over the
/// tokens of neighbouring values. Its tail weighs less.
#[derive(Debug)]
pub struct Targets {
    /// (centre of the token's values, id), in the order of the values.
    numbers: Vec<(f64, u32)>,
    place: std::collections::HashMap<u32, usize>,
    tails: Vec<u32>,
    sigma: f64,
    tail_weight: f32,
}

impl Targets {
    /// `sigma` in the unit of the numbers; 0 makes every target a single token.
    pub fn new(tokenizer: &Tokenizer, vocabulary: usize, sigma: f64, tail_weight: f32) -> Self {
        let mut numbers = Vec::new();
        let mut tails = Vec::new();
        for id in 0..vocabulary as u32 {
            let Some(token) = tokenizer.token(id) else { continue };
            if let Some(value) = leading_value(&token) {
                // 0.123 stands for 0.1230 to 0.1239..; -0.000 for what rounds up to zero.
                let half = if token.contains('-') { -0.0005 } else { 0.0005 };
                numbers.push((value + half, id));
            } else if is_tail(&token) {
                tails.push(id);
            }
        }
        numbers.sort_by(|a, b| a.0.total_cmp(&b.0));
        let place = numbers.iter().enumerate().map(|(i, (_, id))| (*id, i)).collect();
        Self { numbers, place, tails, sigma, tail_weight }
    }

    /// Target of one token.
    pub fn of(&self, id: u32) -> Target {
        if self.tails.binary_search(&id).is_ok() {
            return Target { ids: vec![(id, 1.0)], weight: self.tail_weight };
        }
        let Some(&at) = self.place.get(&id).filter(|_| self.sigma > 0.0) else {
            return Target { ids: vec![(id, 1.0)], weight: 1.0 };
        };
        let centre = self.numbers[at].0;
        let reach = 3.0 * self.sigma;
        let near = |i: &usize| (self.numbers[*i].0 - centre).abs() <= reach;
        let first = (0..at).rev().take_while(near).last().unwrap_or(at);
        let last = (at..self.numbers.len()).take_while(near).last().unwrap_or(at);
        let density = |v: f64| (-0.5 * ((v - centre) / self.sigma).powi(2)).exp();
        let window = &self.numbers[first..=last];
        let sum: f64 = window.iter().map(|(v, _)| density(*v)).sum();
        Target { ids: window.iter().map(|(v, id)| (*id, (density(*v) / sum) as f32)).collect(), weight: 1.0 }
    }
}

/// Weighted sum of the cross-entropies of `logits` `[m, vocab]` against `m` targets, in f32; divide by the sum of weights
/// for the mean.
///
/// # Errors
/// Another number of targets than rows.
pub fn cross_entropy(logits: &Tensor, targets: Vec<Target>) -> Result<Tensor> {
    if !logits.device().is_cpu() {
        return composite(logits, &targets);
    }
    let logits = &logits.to_dtype(DType::F32)?;
    if logits.dim(0)? != targets.len() {
        bail!("cross-entropy: expected a target for each row of {:?} logits, got {}", logits.dims(), targets.len());
    }
    logits.contiguous()?.apply_op1(CrossEntropy { targets })
}

/// The same of candle's own operations, for devices that have no kernel here.
fn composite(logits: &Tensor, targets: &[Target]) -> Result<Tensor> {
    let (rows, width) = (targets.len(), targets.iter().map(|t| t.ids.len()).max().unwrap_or(1));
    let (mut ids, mut weights) = (vec![0u32; rows * width], vec![0f32; rows * width]);
    for (row, target) in targets.iter().enumerate() {
        for (k, &(id, p)) in target.ids.iter().enumerate() {
            (ids[row * width + k], weights[row * width + k]) = (id, p * target.weight);
        }
    }
    let device = logits.device();
    let (ids, weights) =
        (Tensor::from_vec(ids, (rows, width), device)?, Tensor::from_vec(weights, (rows, width), device)?);
    let likely = candle_nn::ops::log_softmax(&logits.to_dtype(DType::F32)?, 1)?.gather(&ids, 1)?;
    (likely * weights)?.sum_all()?.neg()
}

struct CrossEntropy {
    targets: Vec<Target>,
}

/// Largest value and sum of exponentials relative to it.
fn normaliser(row: &[f32]) -> (f32, f32) {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    // In lanes, which the compiler turns into vectors; a sum in order it may not.
    let (chunks, rest) = row.as_chunks::<16>();
    let mut lanes = [0f32; 16];
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(lane, v)| *lane += exp(v - max));
    }
    (max, lanes.iter().sum::<f32>() + rest.iter().map(|v| exp(v - max)).sum::<f32>())
}

fn numbers<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<(&'a [f32], usize)> {
    let (CpuStorage::F32(data), Some((start, end))) = (storage, layout.contiguous_offsets()) else {
        bail!("cross-entropy: expected contiguous f32 on the CPU")
    };
    Ok((&data[start..end], layout.dims().last().copied().unwrap_or(1)))
}

impl CustomOp1 for CrossEntropy {
    fn name(&self) -> &'static str {
        "soft-cross-entropy"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (data, width) = numbers(storage, layout)?;
        let of = |(row, target): (&[f32], &Target)| {
            let (max, sum) = normaliser(row);
            let log_sum = max + sum.ln();
            let loss: f32 = target.ids.iter().map(|&(id, p)| p * (log_sum - row[id as usize])).sum();
            f64::from(loss * target.weight)
        };
        let losses: Vec<f64> = if parallel(data.len()) {
            data.par_chunks_exact(width).zip(&self.targets).map(of).collect()
        } else {
            data.chunks_exact(width).zip(&self.targets).map(of).collect()
        };
        let total: f64 = losses.iter().sum();
        Ok((CpuStorage::F32(vec![total as f32]), Shape::from(())))
    }

    fn bwd(&self, logits: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let scale = grad.to_scalar::<f32>()?;
        let backward = CrossEntropyBackward { targets: &self.targets, scale };
        let (storage, layout) = logits.storage_and_layout();
        let candle_core::Storage::Cpu(storage) = &*storage else { bail!("cross-entropy: expected the CPU") };
        Ok(Some(backward.run(storage, layout)?))
    }
}

struct CrossEntropyBackward<'a> {
    targets: &'a [Target],
    scale: f32,
}

impl CrossEntropyBackward<'_> {
    /// `weight * (softmax - target)`
    fn run(&self, storage: &CpuStorage, layout: &Layout) -> Result<Tensor> {
        let (data, width) = numbers(storage, layout)?;
        let mut out = vec![0f32; data.len()];
        rows(&mut out, width, |at, out| {
            let (row, target) = (&data[at..at + out.len()], &self.targets[at / width]);
            let weight = target.weight * self.scale;
            let (max, sum) = normaliser(row);
            let share = weight / sum;
            for (o, v) in out.iter_mut().zip(row) {
                *o = exp(v - max) * share;
            }
            for &(id, p) in &target.ids {
                out[id as usize] -= weight * p;
            }
        });
        Tensor::from_vec(out, layout.shape().clone(), &candle_core::Device::Cpu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    #[test]
    fn agrees_with_the_composite_in_value_and_gradient() {
        let logits = Var::randn(0f32, 2.0, (3, 7), &Device::Cpu).unwrap();
        let targets = vec![
            Target { ids: vec![(2, 1.0)], weight: 1.0 },
            Target { ids: vec![(0, 0.25), (6, 0.75)], weight: 0.5 },
            Target { ids: vec![(5, 1.0)], weight: 2.0 },
        ];
        let mut dense = vec![0f32; 21];
        for (r, t) in targets.iter().enumerate() {
            t.ids.iter().for_each(|&(id, p)| dense[r * 7 + id as usize] = p * t.weight);
        }
        let dense = Tensor::from_vec(dense, (3, 7), &Device::Cpu).unwrap();
        let expected = candle_nn::ops::log_softmax(&logits, 1).unwrap().mul(&dense).unwrap().sum_all().unwrap();
        let expected = expected.neg().unwrap();
        let value = |t: &Tensor| t.to_scalar::<f32>().unwrap();
        assert!((value(&composite(&logits, &targets).unwrap()) - value(&expected)).abs() < 1e-5);
        let got = cross_entropy(&logits, targets).unwrap();
        assert!((value(&got) - value(&expected)).abs() < 1e-5);
        let (a, b) = ((got * 3.0).unwrap().backward().unwrap(), (expected * 3.0).unwrap().backward().unwrap());
        let difference = (a.get(&logits).unwrap() - b.get(&logits).unwrap()).unwrap();
        assert!(value(&difference.abs().unwrap().max_all().unwrap()) < 1e-5);
    }

    #[test]
    fn many_rows_are_the_sum_of_single_ones() {
        let (rows, width) = (40, 2003);
        let logits = Var::randn(0f32, 2.0, (rows, width), &Device::Cpu).unwrap();
        let target = |row: usize| Target { ids: vec![((row * 31 % width) as u32, 1.0)], weight: 1.0 };
        let whole = cross_entropy(&logits, (0..rows).map(target).collect()).unwrap();
        let single = |row: usize| cross_entropy(&logits.narrow(0, row, 1).unwrap(), vec![target(row)]).unwrap();
        let sum: f32 = (0..rows).map(|row| single(row).to_scalar::<f32>().unwrap()).sum();
        assert!((whole.to_scalar::<f32>().unwrap() - sum).abs() < 1e-2);
        let (whole, row) = (whole.backward().unwrap(), single(17).backward().unwrap());
        let of = |store: &candle_core::backprop::GradStore| store.get(&logits).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(of(&whole)[17], of(&row)[17]);
    }
}
