//! What the robust estimators share: options, a locally optimised RANSAC, losses and a Levenberg-Marquardt method.
//!
//! Chum, Matas and Kittler, "Locally optimized RANSAC", DAGM 2003; Torr and Zisserman, "MLESAC", CVIU 78, 2000 (the
//! truncated score, MSAC).

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::linear::solve_positive;

/// How a robust estimator searches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RobustOptions {
    /// The largest error of an inlier, in normalised image units: pixels divided by the focal length.
    pub threshold: f64,
    /// The most minimal samples to draw.
    pub max_iterations: usize,
    /// The probability with which one sample of inliers alone has been drawn before the search ends early.
    pub confidence: f64,
    /// The seed of the samples: the same input gives the same output.
    pub seed: u64,
}

impl Default for RobustOptions {
    /// Two pixels at a focal length of 1000, and at most 2000 samples.
    fn default() -> Self {
        Self { threshold: 2e-3, max_iterations: 2000, confidence: 0.9999, seed: 0 }
    }
}

impl RobustOptions {
    /// Whether the threshold can tell inliers from outliers.
    pub(crate) fn usable(&self) -> bool {
        self.threshold > 0.0 && self.threshold.is_finite()
    }

    /// Samples after which the search ends, where `inliers` of `count` agree: `log(1 - p) / log(1 - w^k)`.
    fn enough(&self, inliers: f64, count: usize, sample: usize) -> usize {
        let clean = (inliers / count as f64).powi(sample as i32);
        if clean.is_nan() || clean <= 0.0 {
            return self.max_iterations;
        }
        let needed = (1.0 - self.confidence.clamp(0.0, 1.0 - 1e-12)).ln() / (-clean).ln_1p();
        ((SAFETY * needed).ceil() as usize).max(MIN_ITERATIONS).min(self.max_iterations)
    }
}

/// Not every sample of inliers gives a good model where there is noise: so many times the theory's iterations.
const SAFETY: f64 = 2.0;
/// The fewest samples: a wrong model may have won by luck so far.
const MIN_ITERATIONS: usize = 30;

/// A model that RANSAC can search for.
pub(crate) trait Search<const K: usize> {
    type Model: Copy;

    /// The data.
    fn count(&self) -> usize;
    /// The models of a minimal sample.
    fn solve(&self, sample: &[usize; K], found: &mut dyn FnMut(Self::Model));
    /// The MSAC cost, in squared thresholds: at most 1 a datum. May stop early at any number of at least `limit`.
    fn cost(&self, model: &Self::Model, limit: f64) -> f64;
    /// The cost by which polished models are compared: [`Self::cost`] and what is too slow for each sample.
    fn full_cost(&self, model: &Self::Model) -> f64 {
        self.cost(model, f64::INFINITY)
    }
    /// A model near this one that fits better.
    fn polish(&self, model: &Self::Model) -> Option<Self::Model>;
}

/// The best model and its cost; `None` without data or models. Priors are tried first.
pub(crate) fn ransac<const K: usize, S: Search<K>>(
    search: &S,
    options: &RobustOptions,
    priors: impl Iterator<Item = S::Model>,
) -> Option<(S::Model, f64)> {
    let count = search.count();
    if count < K || !options.usable() {
        return None;
    }
    let mut best: Option<(S::Model, f64)> = None;
    // What a sample gave before polishing: samples are compared with samples, since all gain by polishing.
    let mut best_raw = count as f64;
    let consider = |model: S::Model, best: &mut Option<(S::Model, f64)>, best_raw: &mut f64| {
        let raw = search.cost(&model, *best_raw);
        if raw.is_nan() || raw >= *best_raw {
            return;
        }
        *best_raw = raw;
        for candidate in search.polish(&model).into_iter().chain([model]) {
            let cost = search.full_cost(&candidate);
            if best.as_ref().is_none_or(|(_, least)| cost < *least) {
                *best = Some((candidate, cost));
            }
        }
    };
    for prior in priors {
        let mut alone = count as f64;
        consider(prior, &mut best, &mut alone);
    }
    let mut random = ChaCha8Rng::seed_from_u64(options.seed);
    let mut iteration = 0;
    let mut last = options.max_iterations;
    if let Some((_, cost)) = &best {
        last = options.enough(count as f64 - cost, count, K);
    }
    while iteration < last {
        iteration += 1;
        let Some(sample) = draw::<K>(&mut random, count) else { break };
        let mut improved = false;
        search.solve(&sample, &mut |model| {
            let before = best_raw;
            consider(model, &mut best, &mut best_raw);
            improved |= best_raw < before;
        });
        if improved && let Some((_, cost)) = &best {
            last = options.enough(count as f64 - cost, count, K);
        }
    }
    best
}

/// `K` different numbers below `count`.
fn draw<const K: usize>(random: &mut ChaCha8Rng, count: usize) -> Option<[usize; K]> {
    if count < K {
        return None;
    }
    let mut sample = [usize::MAX; K];
    for k in 0..K {
        loop {
            let next = random.random_range(0..count as u64) as usize;
            if !sample[..k].contains(&next) {
                sample[k] = next;
                break;
            }
        }
    }
    Some(sample)
}

/// A robust loss of a squared residual.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Loss {
    /// `min(s, c^2)`.
    Truncated(f64),
    /// `c^2 log(1 + s / c^2)`.
    Cauchy(f64),
}

impl Loss {
    /// The loss and its derivative by the squared residual: the weight of the residual.
    #[inline]
    pub(crate) fn apply(self, square: f64) -> (f64, f64) {
        match self {
            Self::Truncated(c2) if square < c2 => (square, 1.0),
            Self::Truncated(c2) => (c2, 0.0),
            Self::Cauchy(c2) => (c2 * (square / c2).ln_1p(), 1.0 / (1.0 + square / c2)),
        }
    }
}

/// A robust least-squares problem over a manifold of `N` dimensions.
pub(crate) trait Problem<const N: usize> {
    type State: Copy;

    /// The cost.
    fn cost(&self, state: &Self::State) -> f64;
    /// The cost, `J^T W J` (its lower triangle) and `J^T W r`.
    fn linearise(&self, state: &Self::State) -> (f64, [[f64; N]; N], [f64; N]);
    /// The state after a step in the tangent space.
    fn retract(&self, state: &Self::State, step: &[f64; N]) -> Self::State;
}

/// Damping at the start, and the one at which there is no way down.
const DAMPING: f64 = 1e-4;
const MAX_DAMPING: f64 = 1e6;
/// The relative gain of a step below which iterations end: of a local optimisation, which only has to tell models
/// apart, and of a last one.
pub(crate) const ROUGH: f64 = 1e-3;
pub(crate) const CONVERGED: f64 = 1e-9;

/// Levenberg-Marquardt from `start`, until a step gains less than a part `gain` of the cost; the state and its cost.
pub(crate) fn minimise<const N: usize, P: Problem<N>>(
    problem: &P,
    start: &P::State,
    iterations: usize,
    gain: f64,
) -> (P::State, f64) {
    let mut state = *start;
    let mut damping = DAMPING;
    let mut cost = f64::INFINITY;
    for _ in 0..iterations {
        let (now, normal, gradient) = problem.linearise(&state);
        cost = now;
        if !now.is_finite() {
            break;
        }
        let mut accepted = None;
        while accepted.is_none() && damping < MAX_DAMPING {
            let mut damped = normal;
            for (k, row) in damped.iter_mut().enumerate() {
                row[k] += damping * row[k] + 1e-30;
            }
            if let Some(step) = solve_positive(&damped, &gradient.map(|g| -g)) {
                let next = problem.retract(&state, &step);
                let least = problem.cost(&next);
                if least < now {
                    accepted = Some((next, least));
                }
            }
            damping *= if accepted.is_some() { 0.1 } else { 10.0 };
        }
        damping = damping.max(1e-10);
        let Some((next, least)) = accepted else { break };
        state = next;
        cost = least;
        if now - least <= gain * now {
            break;
        }
    }
    (state, cost)
}

/// Adds `weight * j j^T` to the lower triangle, and `weight * r * j` to the gradient.
#[inline]
pub(crate) fn accumulate<const N: usize>(
    normal: &mut [[f64; N]; N],
    gradient: &mut [f64; N],
    jacobian: &[f64; N],
    residual: f64,
    weight: f64,
) {
    for i in 0..N {
        let factor = weight * jacobian[i];
        for j in 0..=i {
            normal[i][j] += factor * jacobian[j];
        }
        gradient[i] += factor * residual;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn iterations_fall_with_the_share_of_inliers() {
        let options = RobustOptions { confidence: 0.99, ..RobustOptions::default() };
        // Half of the data, samples of five: log(0.01) / log(1 - 1/32) = 145.05.
        assert_eq!(options.enough(50.0, 100, 5), 291);
        assert_eq!(options.enough(100.0, 100, 5), MIN_ITERATIONS);
        assert_eq!(options.enough(0.0, 100, 5), options.max_iterations);
        assert_eq!(options.enough(f64::NAN, 100, 5), options.max_iterations);
    }

    proptest! {
        #[test]
        fn samples_have_different_members(seed in any::<u64>(), count in 5..12_usize) {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            let mut sample = draw::<5>(&mut random, count).unwrap();
            sample.sort_unstable();
            prop_assert!(sample.windows(2).all(|pair| pair[0] < pair[1]) && sample[4] < count);
            prop_assert!(draw::<5>(&mut random, 4).is_none());
        }

        #[test]
        fn weights_are_the_slopes_of_losses(square in 0.0..5.0_f64, c2 in 0.1..3.0_f64) {
            for loss in [Loss::Cauchy(c2), Loss::Truncated(c2)] {
                prop_assume!((square - c2).abs() > 1e-4);
                let slope = (loss.apply(square + 1e-6).0 - loss.apply((square - 1e-6).abs()).0) / 2e-6;
                prop_assume!(square > 1e-6);
                prop_assert!((slope - loss.apply(square).1).abs() < 1e-6);
            }
        }
    }
}
