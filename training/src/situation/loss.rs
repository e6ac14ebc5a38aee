//! The two losses of Loc3R-VLM (arXiv 2603.18002): a Gaussian of learned width for lengths, bins on the circle for the
//! yaw.

use std::f64::consts::{PI, TAU};

use anyhow::Result;
use candle_core::Tensor;

/// Independent Gaussians, one a coordinate.
#[derive(Debug, Clone)]
pub struct Gaussian {
    /// `[n, k]`
    pub mean: Tensor,
    /// `[n, k]`, within its bounds.
    pub log_variance: Tensor,
}

impl Gaussian {
    /// Of a head's output: k means, then k log variances, which are clamped to `bounds`.
    ///
    /// # Shapes
    /// `output` `[n, 2k]`
    ///
    /// # Errors
    /// A tensor operation's.
    pub fn of(output: &Tensor, bounds: [f64; 2]) -> Result<Self> {
        let k = output.dim(1)? / 2;
        let log_variance = output.narrow(1, k, k)?.clamp(bounds[0], bounds[1])?;
        Ok(Self { mean: output.narrow(1, 0, k)?, log_variance })
    }

    /// Negative log-likelihood of `target` `[n, k]` without its constant, summed over rows and coordinates:
    /// 1/2 [(x - mean)^2 / sigma^2 + log sigma^2].
    ///
    /// # Errors
    /// A target of another shape.
    pub fn nll(&self, target: &Tensor) -> Result<Tensor> {
        let squares = ((&self.mean - target)?.sqr()? * self.log_variance.neg()?.exp()?)?;
        Ok(((squares + &self.log_variance)? * 0.5)?.sum_all()?)
    }
}

/// The circle in equal parts; bin 0 is centred at -180 degrees, so that one of an even number is centred at 0.
#[derive(Debug, Clone, Copy)]
pub struct Bins {
    count: usize,
    /// Of the wrapped Gaussian, radians.
    sigma: f64,
}

impl Bins {
    /// `sigma` in bins.
    pub fn new(count: usize, sigma: f64) -> Self {
        Self { count, sigma: sigma * TAU / count as f64 }
    }

    /// Centre of a bin, radians.
    pub fn centre(&self, bin: usize) -> f64 {
        TAU * bin as f64 / self.count as f64 - PI
    }

    /// Wrapped Gaussian around `angle` (radians) at the centres of the bins; adds up to 1.
    pub fn target(&self, angle: f64) -> Vec<f64> {
        let density = |bin: usize| {
            let difference = wrap(self.centre(bin) - angle);
            // A turn more than where the widest Gaussian that a config allows has ended.
            (-3..=3).map(|turn| (-0.5 * ((difference + TAU * f64::from(turn)) / self.sigma).powi(2)).exp()).sum::<f64>()
        };
        let densities: Vec<f64> = (0..self.count).map(density).collect();
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
        let targets = Tensor::from_vec(targets, (angles.len(), self.count), logits.device())?;
        let crossed = (candle_nn::ops::log_softmax(logits, 1)? * targets)?.sum_all()?;
        Ok((crossed.neg()? + certain)?)
    }

    /// Circular soft-argmax of the bins' shares: atan2(sum p sin, sum p cos), radians.
    pub fn angle(&self, shares: &[f64]) -> f64 {
        let weighted = |of: fn(f64) -> f64| -> f64 {
            shares.iter().enumerate().map(|(bin, share)| share * of(self.centre(bin))).sum()
        };
        weighted(f64::sin).atan2(weighted(f64::cos))
    }
}

/// The same angle within half a turn of 0, radians.
pub fn wrap(angle: f64) -> f64 {
    angle.sin().atan2(angle.cos())
}

#[cfg(test)]
mod tests {
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
        let nll = Gaussian::of(output.as_tensor(), BOUNDS).unwrap().nll(&target).unwrap();
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
        let bins = Bins::new(36, 1.0);
        for degrees in [-180.0, -179.0, -90.0, -3.0, 0.0, 4.9, 45.0, 180.0, 540.0] {
            let angle = f64::to_radians(degrees);
            let target = bins.target(angle);
            assert!((target.iter().sum::<f64>() - 1.0).abs() < 1e-12, "{degrees}");
            assert!(wrap(bins.angle(&target) - angle).abs() < 1e-6, "{degrees}: decodes to where it was put");
        }
        let target = bins.target(PI);
        assert!((target[1] - target[35]).abs() < 1e-12, "-170 and 170 degrees are as far from 180");
        assert!(target[0] > target[1] && target[1] > 100.0 * target[18]);
        // One bin of sigma: the neighbour has exp(-1/2) of the middle.
        assert!((target[1] / target[0] - (-0.5f64).exp()).abs() < 1e-9);
    }

    #[test]
    fn the_soft_argmax_is_exact_for_one_bin_and_across_the_wrap() {
        let bins = Bins::new(36, 1.0);
        let shares = |of: &[(usize, f64)]| {
            let mut shares = vec![0.0; 36];
            of.iter().for_each(|&(bin, share)| shares[bin] = share);
            shares
        };
        for bin in 0..36 {
            let angle = bins.angle(&shares(&[(bin, 1.0)]));
            assert!(wrap(angle - bins.centre(bin)).abs() < 1e-12, "{bin}");
        }
        // 170 and -180 degrees; 170 and -170 degrees.
        for (pair, degrees) in [([35, 0], 175.0), ([35, 1], 180.0)] {
            let angle = bins.angle(&shares(&pair.map(|bin| (bin, 0.5))));
            assert!(wrap(angle - f64::to_radians(degrees)).abs() < 1e-12, "{degrees}");
        }
    }

    #[test]
    fn the_divergence_is_zero_at_the_target_and_over_zero_elsewhere() {
        let (bins, angles) = (Bins::new(36, 1.0), [0.4, -3.1]);
        let logits: Vec<f32> = angles.iter().flat_map(|&a| bins.target(a)).map(|p| p.ln() as f32).collect();
        let logits = Tensor::from_vec(logits, (2, 36), &Device::Cpu).unwrap();
        assert!(value(&bins.kl(&logits, &angles).unwrap()).abs() < 1e-4);
        let flat = value(&bins.kl(&logits.zeros_like().unwrap(), &angles).unwrap());
        let entropy: f64 = bins.target(0.0).iter().filter(|p| **p > 0.0).map(|p| -p * p.ln()).sum();
        assert!((flat - 2.0 * ((36f64).ln() - entropy)).abs() < 1e-2, "{flat}");
    }
}
