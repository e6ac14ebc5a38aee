//! The yaw as shares of the parts of the circle.

use std::f64::consts::{PI, TAU};

/// The circle in equal parts; bin 0 is centred at -180 degrees, so that one of an even number is centred at 0.
#[derive(Debug, Clone, Copy)]
pub struct Bins {
    count: usize,
}

impl Bins {
    /// `count` parts.
    pub fn new(count: usize) -> Self {
        Self { count }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Centre of a bin, radians.
    pub fn centre(&self, bin: usize) -> f64 {
        TAU * bin as f64 / self.count as f64 - PI
    }

    /// Circular soft-argmax of the bins' shares: atan2(sum p sin, sum p cos), radians.
    pub fn angle(&self, shares: &[f64]) -> f64 {
        let weighted = |of: fn(f64) -> f64| -> f64 {
            shares.iter().enumerate().map(|(bin, share)| share * of(self.centre(bin))).sum()
        };
        weighted(f64::sin).atan2(weighted(f64::cos))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_argmax_is_exact_for_one_bin_and_across_the_wrap() {
        let bins = Bins::new(36);
        let wrap = |angle: f64| angle.sin().atan2(angle.cos());
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
}
