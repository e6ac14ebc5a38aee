//! The two losses of Loc3R-VLM (arXiv 2603.18002), by third-party notes: a Gaussian of learned width for lengths,
//! bins on the circle for the yaw.

use std::f64::consts::TAU;

use anyhow::Result;
use candle_core::Tensor;
use model::pose_head::{Bins, Gaussian};

/// Negative log-likelihood of `target` `[n, k]` without its constant, summed over rows and coordinates:
/// 1/2 [(x - mean)^2 / sigma^2 + log sigma^2].
///
/// # Errors
/// A target of another shape.
pub fn nll(said: &Gaussian, target: &Tensor) -> Result<Tensor> {
    let squares = ((&said.mean - target)?.sqr()? * said.log_variance.neg()?.exp()?)?;
    Ok(((squares + &said.log_variance)? * 0.5)?.sum_all()?)
}

/// What the bins of a yaw should say.
#[derive(Debug, Clone, Copy)]
pub struct YawTargets {
    bins: Bins,
    /// Of the wrapped Gaussian, radians.
    sigma: f64,
}

impl YawTargets {
    /// `sigma` in bins.
    pub fn new(bins: Bins, sigma: f64) -> Self {
        Self { bins, sigma: sigma * TAU / bins.count() as f64 }
    }

    /// Wrapped Gaussian around `angle` (radians) at the centres of the bins; adds up to 1.
    pub fn target(&self, angle: f64) -> Vec<f64> {
        let density = |bin: usize| {
            let difference = wrap(self.bins.centre(bin) - angle);
            // A turn more than where the widest Gaussian that a config allows has ended.
            (-3..=3).map(|turn| (-0.5 * ((difference + TAU * f64::from(turn)) / self.sigma).powi(2)).exp()).sum::<f64>()
        };
        let densities: Vec<f64> = (0..self.bins.count()).map(density).collect();
        let sum: f64 = densities.iter().sum();
        densities.into_iter().map(|density| density / sum).collect()
    }

    /// KL divergence of the bins that `logits` `[n, bins]` stand for from the targets of n angles (radians), summed.
    ///
    /// # Errors
    /// Another number of angles than rows.
    pub fn kl(&self, logits: &Tensor, angles: &[f64]) -> Result<Tensor> {
        let targets: Vec<f64> = angles.iter().flat_map(|&angle| self.target(angle)).collect();
        let certain: f64 = targets.iter().filter(|p| **p > 0.0).map(|p| p * p.ln()).sum();
        let targets: Vec<f32> = targets.into_iter().map(|p| p as f32).collect();
        let targets = Tensor::from_vec(targets, (angles.len(), self.bins.count()), logits.device())?;
        let crossed = (candle_nn::ops::log_softmax(logits, 1)? * targets)?.sum_all()?;
        Ok((crossed.neg()? + certain)?)
    }
}

/// The same angle within half a turn of 0, radians.
pub fn wrap(angle: f64) -> f64 {
    angle.sin().atan2(angle.cos())
}

#[cfg(test)]
mod tests {
    use std::f64::consts::PI;

    use super::*;
    use candle_core::{Device, Var};

    const BOUNDS: [f64; 2] = [-7.0, 5.0];

    fn value(tensor: &Tensor) -> f64 {
        f64::from(tensor.to_scalar::<f32>().unwrap())
    }

    #[test]
    fn the_gaussian_has_the_value_and_the_gradient_of_its_formula() {
        let (means, log_variances, targets) = ([1.0, -2.0, 0.3], [0.5, -1.0, 9.0], [0.2, -1.5, 0.9]);
        let output: Vec<f32> = means.iter().chain(&log_variances).map(|v| *v as f32).collect();
        let output = Var::from_vec(output, (1, 6), &Device::Cpu).unwrap();
        let target: Vec<f32> = targets.iter().map(|v| *v as f32).collect();
        let target = Tensor::from_vec(target, (1, 3), &Device::Cpu).unwrap();
        let nll = nll(&Gaussian::of(output.as_tensor(), BOUNDS).unwrap(), &target).unwrap();
        let (mut expected, mut gradient) = (0.0, [0.0; 6]);
        for i in 0..3 {
            let (difference, log_variance): (f64, f64) = (means[i] - targets[i], f64::min(log_variances[i], 5.0));
            let precision = (-log_variance).exp();
            expected += 0.5 * (difference.powi(2) * precision + log_variance);
            gradient[i] = difference * precision;
            gradient[3 + i] = 0.5 * (1.0 - difference.powi(2) * precision);
        }
        gradient[5] = 0.0; // beyond the clamp
        assert!((value(&nll) - expected).abs() < 1e-5, "{} {expected}", value(&nll));
        let store = nll.backward().unwrap();
        let got = store.get(output.as_tensor()).unwrap().to_vec2::<f32>().unwrap();
        for (got, expected) in got[0].iter().zip(gradient) {
            assert!((f64::from(*got) - expected).abs() < 1e-5, "{got} {expected}");
        }
    }

    #[test]
    fn the_wrapped_gaussian_adds_up_to_one_and_wraps() {
        let bins = Bins::new(36);
        let targets = YawTargets::new(bins, 1.0);
        for degrees in [-180.0, -179.0, -90.0, -3.0, 0.0, 4.9, 45.0, 180.0, 540.0] {
            let angle = f64::to_radians(degrees);
            let target = targets.target(angle);
            assert!((target.iter().sum::<f64>() - 1.0).abs() < 1e-12, "{degrees}");
            assert!(wrap(bins.angle(&target) - angle).abs() < 1e-6, "{degrees}: decodes to where it was put");
        }
        let target = targets.target(PI);
        assert!((target[1] - target[35]).abs() < 1e-12, "-170 and 170 degrees are as far from 180");
        assert!(target[0] > target[1] && target[1] > 100.0 * target[18]);
        // One bin of sigma: the neighbour has exp(-1/2) of the middle.
        assert!((target[1] / target[0] - (-0.5f64).exp()).abs() < 1e-9);
    }

    #[test]
    fn the_divergence_is_zero_at_the_target_and_over_zero_elsewhere() {
        let (targets, angles) = (YawTargets::new(Bins::new(36), 1.0), [0.4, -3.1]);
        let logits: Vec<f32> = angles.iter().flat_map(|&a| targets.target(a)).map(|p| p.ln() as f32).collect();
        let logits = Tensor::from_vec(logits, (2, 36), &Device::Cpu).unwrap();
        assert!(value(&targets.kl(&logits, &angles).unwrap()).abs() < 1e-4);
        let flat = value(&targets.kl(&logits.zeros_like().unwrap(), &angles).unwrap());
        let entropy: f64 = targets.target(0.0).iter().filter(|p| **p > 0.0).map(|p| -p * p.ln()).sum();
        assert!((flat - 2.0 * ((36f64).ln() - entropy)).abs() < 1e-2, "{flat}");
    }
}
