//! Figures of answers that come from pictures by adjustment, and numbers as tables show them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use geometry::metrics::Interval;
use odometry::window::Carried;
use serde::{Deserialize, Serialize};

use super::Outcome;
use super::covariance::{Invented, OwnCoverage};

/// What a report says of answers that were adjusted; nothing of others.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Adjusted {
    /// Windows whose pictures tell no poses, by the reason.
    pub refusals: BTreeMap<String, usize>,
    /// Windows with poses, by what these stand on: `tracks`, `prior`, `both`.
    pub carried: BTreeMap<String, usize>,
    /// How well the answers' own covariances fit their errors.
    pub own_covariance: Option<OwnCoverage>,
    /// Answers that move where the camera does not.
    pub invented_translation: Option<Invented>,
}

impl Adjusted {
    pub(super) fn new(outcomes: &[Outcome]) -> Self {
        let mut adjusted = Self {
            own_covariance: OwnCoverage::new(outcomes),
            invented_translation: Invented::new(outcomes),
            ..Self::default()
        };
        for outcome in outcomes {
            if let Some(reason) = outcome.estimate.refusal {
                *adjusted.refusals.entry(reason.to_owned()).or_default() += 1;
            }
            if let Some(carried) = outcome.estimate.carried {
                let name = match carried {
                    Carried::Tracks => "tracks",
                    Carried::Prior => "prior",
                    Carried::Both => "both",
                };
                *adjusted.carried.entry(name.to_owned()).or_default() += 1;
            }
        }
        adjusted
    }

    /// What a person reads of it.
    pub(super) fn sentences(&self, text: &mut String) {
        let listed = |counts: &BTreeMap<String, usize>| {
            counts.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
        };
        // Writing to a String cannot fail.
        if !self.carried.is_empty() {
            let _ = writeln!(text, "\nWindows by what their poses stand on: {}.", listed(&self.carried));
        }
        if !self.refusals.is_empty() {
            let _ = writeln!(text, "\nWindows whose pictures tell no poses, by reason: {}.", listed(&self.refusals));
        }
        if let Some(Invented { still_windows, answered, invented, share }) = &self.invented_translation {
            let share = share.as_ref().map_or_else(|| "-".to_owned(), shown);
            let _ = writeln!(
                text,
                "\nInvented translations: {invented} of {answered} answers (share {share}) to the {still_windows} windows \
                 whose camera stays exactly where it is have a translation beyond the 99 % region of their own covariance."
            );
        }
    }
}

/// A number with as many digits as a table has room for.
pub(super) fn digits(value: f64) -> String {
    match value.abs() {
        size if size >= 1e6 => format!("{value:.2e}"),
        size if size >= 100.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

/// A number, or a dash.
pub(super) fn or_dash(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), digits)
}

/// `value [low, high]`.
pub(super) fn shown(interval: &Interval) -> String {
    format!("{} [{}, {}]", digits(interval.value), digits(interval.low), digits(interval.high))
}

/// The same, or a dash.
pub(super) fn shown_or_dash(interval: Option<&Interval>) -> String {
    interval.map_or_else(|| "-".to_owned(), shown)
}
