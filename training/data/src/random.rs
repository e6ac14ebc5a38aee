//! Random numbers.

use std::f64::consts::TAU;

use rand::Rng;

/// One standard normal draw (Box-Muller).
pub fn normal(rng: &mut impl Rng) -> f64 {
    let (u, v): (f64, f64) = (1.0 - rng.random::<f64>(), rng.random());
    (-2.0 * u.ln()).sqrt() * (TAU * v).cos()
}
