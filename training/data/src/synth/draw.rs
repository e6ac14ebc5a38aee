//! Random draws that depend on nothing but the seed: ChaCha8 words turned into numbers here, so that no version of a
//! distribution crate can change a data set.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// What a stream of draws is for. Streams are independent: a change of the sensor model leaves every scene as it was.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stream {
    Scene = 1,
    Motion = 2,
    Camera = 3,
    Sensor = 4,
    Stratum = 5,
    Exposure = 6,
}

pub(super) struct Draw(ChaCha8Rng);

impl Draw {
    pub fn new(seed: u64, index: u64, stream: Stream, attempt: u64) -> Self {
        let mut key = [0u8; 32];
        for (chunk, word) in key.chunks_exact_mut(8).zip([seed, index, stream as u64, attempt]) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        Self(ChaCha8Rng::from_seed(key))
    }

    pub fn word(&mut self) -> u32 {
        self.0.next_u32()
    }

    /// Uniform in [0, 1).
    pub fn unit(&mut self) -> f64 {
        f64::from(self.word()) / 4_294_967_296.0
    }

    pub fn range(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    pub fn range32(&mut self, low: f32, high: f32) -> f32 {
        self.range(f64::from(low), f64::from(high)) as f32
    }

    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    pub fn sign(&mut self) -> f64 {
        if self.chance(0.5) { 1.0 } else { -1.0 }
    }

    /// Uniform in `low..=high`.
    pub fn count(&mut self, low: usize, high: usize) -> usize {
        (low + (self.unit() * (high - low + 1) as f64) as usize).min(high)
    }

    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.count(0, items.len() - 1)]
    }

    /// Index drawn with these weights (they need not sum to 1).
    pub fn weighted(&mut self, weights: &[f64]) -> usize {
        let mut left = self.unit() * weights.iter().sum::<f64>();
        for (index, weight) in weights.iter().enumerate() {
            left -= weight;
            if left < 0.0 {
                return index;
            }
        }
        weights.len() - 1
    }

    /// Standard normal (Box-Muller).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// Log-normal around `median`; `spread` is the standard deviation of the logarithm. Cut at two spreads.
    pub fn log_normal(&mut self, median: f64, spread: f64) -> f64 {
        median * (spread * self.normal().clamp(-2.0, 2.0)).exp()
    }

    /// Uniform on the unit sphere.
    pub fn direction(&mut self) -> [f64; 3] {
        let z = self.range(-1.0, 1.0);
        let angle = self.range(0.0, std::f64::consts::TAU);
        let radius = (1.0 - z * z).sqrt();
        [radius * angle.cos(), radius * angle.sin(), z]
    }
}
