//! How often errors lie within what a covariance says of them.

use geometry::WINDOW;
use geometry::metrics::{Interval, Statistic};
use serde::{Deserialize, Serialize};

/// Frames of a window that have a covariance.
const FRAMES: usize = WINDOW - 1;

/// A pose error held against the covariance that was claimed for it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Judged {
    /// `e^T P^-1 e`, brought to six degrees of freedom where fewer were judged.
    pub nees: f64,
    /// The share of poses that the covariance says are nearer than this one.
    pub level: f64,
}

/// How well a covariance fits the errors.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Coverage {
    /// Mean NEES of six degrees of freedom: 6 where the covariance is right.
    pub nees: Interval,
    /// The same of each frame index.
    pub nees_of_frame: [Interval; FRAMES],
    /// Share of the poses within the 68 % region.
    pub within_68: Interval,
    /// Share of the poses within the 95 % region.
    pub within_95: Interval,
}

impl Coverage {
    /// Of what each frame of each window came to; `None` without windows.
    pub(super) fn of(judged: &[[Judged; FRAMES]], seed: u64) -> Option<Self> {
        let mean = |of: &dyn Fn(&[Judged; FRAMES]) -> f64| {
            let values: Vec<f64> = judged.iter().map(of).collect();
            Statistic::new(&values, seed).mean
        };
        let share = |region: f64| {
            mean(&move |window| window.iter().filter(|pose| pose.level <= region).count() as f64 / FRAMES as f64)
        };
        let mut nees_of_frame = [mean(&|window| window[0].nees)?; FRAMES];
        for (k, slot) in nees_of_frame.iter_mut().enumerate().skip(1) {
            *slot = mean(&|window| window[k].nees)?;
        }
        Some(Self {
            nees: mean(&|window| window.iter().map(|pose| pose.nees).sum::<f64>() / FRAMES as f64)?,
            nees_of_frame,
            within_68: share(0.68)?,
            within_95: share(0.95)?,
        })
    }
}
