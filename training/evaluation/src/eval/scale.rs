//! How far the lengths that an estimator says are off: the noise of a window, which averages out along a film, and the bias
//! of a film, which does not. The node reads both from the manifest of the weights.

use std::collections::BTreeMap;

use geometry::metrics::log_length;
use serde::{Deserialize, Serialize};

use super::Outcome;

/// Answers that turn or go further than this from the truth are not asked: the node does not believe them either
/// (`[trust]` tracks_rotation_degrees, tracks_direction_degrees).
const MOST_ROTATION_DEG: f64 = 12.0;
const MOST_DIRECTION_DEG: f64 = 45.0;
/// Windows that a film must have for a bias of its own.
const LEAST_WINDOWS: usize = 5;
/// Films that a bias needs.
const LEAST_FILMS: usize = 3;
/// Standard deviation of a Gaussian over the median of its size.
const SIGMA_OF_MEDIAN: f64 = 1.4826;

/// Errors of `log(length said / true length)`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ScaleFigures {
    /// Standard deviation among the windows of a film, by their median size.
    pub noise: f64,
    /// Root mean square of the films' medians; where there are too few films, that of the medians and zero alike.
    pub bias: f64,
    /// Windows whose answer goes where the camera goes, of metric films in motion.
    pub windows: usize,
    /// Films of five of them or more.
    pub films: usize,
}

impl ScaleFigures {
    /// `None` where no film has enough windows.
    pub(super) fn new(outcomes: &[Outcome]) -> Option<Self> {
        let mut films = BTreeMap::<&str, Vec<f64>>::new();
        for outcome in outcomes.iter().filter(|outcome| outcome.metric) {
            let (Some(said), Some(errors)) = (&outcome.estimate.trajectory, &outcome.errors) else { continue };
            let goes_along = errors.tde_deg.is_some_and(|tde| tde < MOST_DIRECTION_DEG);
            if goes_along && errors.rre_deg < MOST_ROTATION_DEG {
                films.entry(outcome.film.as_str()).or_default().extend(log_length(said, &outcome.truth));
            }
        }
        Self::of(films.into_values().collect())
    }

    /// From the logarithms of each film.
    fn of(mut films: Vec<Vec<f64>>) -> Option<Self> {
        films.retain(|logs| logs.len() >= LEAST_WINDOWS);
        let windows = films.iter().map(Vec::len).sum();
        let medians: Vec<f64> = films.iter_mut().filter_map(|logs| middle(logs)).collect();
        let mut left: Vec<f64> = films
            .iter()
            .zip(&medians)
            .flat_map(|(logs, median)| logs.iter().map(move |log| (log - median).abs()))
            .collect();
        let noise = SIGMA_OF_MEDIAN * middle(&mut left)?;
        // Few films say little of others: each that is missing counts as one that is off by a factor of e.
        let missing = LEAST_FILMS.saturating_sub(medians.len());
        let squares: f64 = medians.iter().map(|median| median * median).sum::<f64>() + missing as f64;
        let bias = (squares / (medians.len() + missing) as f64).sqrt();
        Some(Self { noise, bias, windows, films: medians.len() })
    }
}

fn middle(values: &mut [f64]) -> Option<f64> {
    let middle = values.len() / 2;
    (!values.is_empty()).then(|| *values.select_nth_unstable_by(middle, f64::total_cmp).1)
}

#[cfg(test)]
mod tests {
    use super::ScaleFigures;

    #[test]
    fn noise_is_within_films_and_bias_between_them() {
        let film = |bias: f64| (0..101).map(|k| bias + 0.2 * (f64::from(k) / 50.0 - 1.0)).collect::<Vec<f64>>();
        let figures = ScaleFigures::of(vec![film(0.5), film(-0.5), film(0.5), vec![9.0; 4]]).unwrap();
        assert!((figures.noise - 1.4826 * 0.1).abs() < 0.01, "{figures:?}");
        assert!((figures.bias - 0.5).abs() < 1e-9, "{figures:?}");
        assert_eq!((figures.windows, figures.films), (303, 3));
        let one = ScaleFigures::of(vec![film(0.0)]).unwrap();
        assert!((one.bias - (2.0_f64 / 3.0).sqrt()).abs() < 1e-9, "one film says little: {one:?}");
        assert_eq!(ScaleFigures::of(vec![vec![0.0; 4]]), None);
    }
}
