//! Pictures of runs: the share of windows whose error is at most so large.

use std::path::Path;

use anyhow::{Context, Result};
use image::RgbImage;
use plotters::prelude::{RGBColor, SeriesLabelPosition};

use super::Outcome;
use crate::curves::{Area, COLOURS, Frame, Line, chart, picture};

const WIDTH: u32 = 1500;
const HEIGHT: u32 = 640;
const ESTIMATE: RGBColor = COLOURS[0];
const IDENTITY: RGBColor = COLOURS[1];
/// Share of the errors that an axis has room for at least: a few wild answers would flatten the rest.
const SHOWN: f64 = 0.95;
/// Letters of an estimator's name in the legend; the end tells more than the beginning of a path.
const LABEL: usize = 40;

/// Points of a curve: one every second pixel or so, beyond which thick lines fray.
const POINTS: usize = 301;

/// Distributions of one error.
pub(super) struct Panel {
    pub(super) title: &'static str,
    pub(super) unit: &'static str,
    /// The axis ends here, or where the error is that [`SHOWN`] of every run's windows are below.
    pub(super) least: f64,
    /// How many windows the shares are of: those that do not parse are among them, and never below a curve.
    pub(super) windows: usize,
    pub(super) curves: Vec<Errors>,
}

/// The errors of one run.
pub(super) struct Errors {
    /// In the legend.
    pub(super) name: String,
    pub(super) colour: RGBColor,
    /// In any order.
    pub(super) values: Vec<f64>,
}

/// Draws the distributions of RRE and TDE to a PNG file.
pub(super) fn errors(path: &Path, label: &str, outcomes: &[Outcome]) -> Result<()> {
    let curves = |identity, estimate| {
        vec![
            Errors { name: "never moves".to_owned(), colour: IDENTITY, values: identity },
            Errors { name: label.to_owned(), colour: ESTIMATE, values: estimate },
        ]
    };
    let panels = [
        Panel {
            title: "rotation error",
            unit: "RRE, deg",
            least: 1.0,
            windows: outcomes.len(),
            curves: curves(
                outcomes.iter().map(|o| o.still.rre_deg).collect(),
                outcomes.iter().filter_map(|o| Some(o.errors.as_ref()?.rre_deg)).collect(),
            ),
        },
        Panel {
            title: "direction error of windows that move",
            unit: "TDE, deg",
            least: 180.0,
            windows: outcomes.iter().filter(|o| o.still.tde_deg.is_some()).count(),
            curves: curves(
                outcomes.iter().filter_map(|o| o.still.tde_deg).collect(),
                outcomes.iter().filter_map(|o| o.errors.as_ref()?.tde_deg).collect(),
            ),
        },
    ];
    distributions(path, (1, 2), &panels)
}

/// Draws panels, so many rows and columns of them, to a PNG file.
pub(super) fn distributions(path: &Path, grid: (usize, usize), panels: &[Panel]) -> Result<()> {
    draw(grid, panels)?.save(path).with_context(|| path.display().to_string())
}

fn draw((rows, columns): (usize, usize), panels: &[Panel]) -> Result<RgbImage> {
    picture((WIDTH, HEIGHT * rows as u32), |area| {
        let parts = area.split_evenly((rows, columns));
        parts.iter().zip(panels).try_for_each(|(part, panel)| shares(part, panel))
    })
}

fn shares(area: &Area<'_>, panel: &Panel) -> Result<()> {
    let sorted: Vec<Vec<f64>> = panel.curves.iter().map(|curve| in_order(&curve.values)).collect();
    let most = |sorted: &Vec<f64>| sorted.get((sorted.len() as f64 * SHOWN) as usize).copied().unwrap_or(0.0);
    let limit = sorted.iter().map(most).fold(panel.least, f64::max);
    let y = format!("share of {} windows", panel.windows);
    let (bounds, legend) = ((0.0..limit, 0.0..1.0), SeriesLabelPosition::LowerRight);
    let line = |(curve, sorted): (&Errors, &Vec<f64>)| Line {
        name: short(&curve.name),
        points: cumulative(sorted, panel.windows, limit),
        colour: curve.colour,
        dot: 0,
    };
    let lines: Vec<Line> = panel.curves.iter().zip(&sorted).map(line).collect();
    chart(area, Frame { title: panel.title, x: panel.unit, y: &y, bounds, legend }, &lines)
}

fn in_order(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// A name as the legend has room for it.
fn short(name: &str) -> String {
    let letters = name.chars().count();
    match letters > LABEL {
        true => std::iter::once('…').chain(name.chars().skip(letters - LABEL)).collect(),
        false => name.to_owned(),
    }
}

/// The share of `windows` with an error of at most x, at [`POINTS`] places from 0 to `limit`; `sorted` rises.
fn cumulative(sorted: &[f64], windows: usize, limit: f64) -> Vec<(f64, f64)> {
    let point = |k: usize| {
        let x = limit * k as f64 / (POINTS - 1) as f64;
        let below = sorted.partition_point(|error| *error <= x);
        (x, below as f64 / windows.max(1) as f64)
    };
    (0..POINTS).map(point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_rises_at_each_error_and_ends_where_the_answers_do() {
        let curve = cumulative(&[1.0, 2.0, 50.0], 4, 10.0);
        let at = |x: f64| curve.iter().rev().find(|point| point.0 <= x + 1e-9).unwrap().1;
        let shares = [0.0, 0.9, 1.0, 1.9, 2.0, 10.0].map(at);
        assert!(
            shares.iter().zip([0.0, 0.0, 0.25, 0.25, 0.5, 0.5]).all(|(got, expected)| (got - expected).abs() < 1e-12)
        );
        assert!(cumulative(&[], 0, 1.0).iter().all(|point| point.1.abs() < 1e-12), "no windows, no share");
        assert!(cumulative(&[0.0; 3], 3, 1.0)[0].1 > 0.99, "no error at all is at most nothing");
    }

    #[test]
    fn both_curves_are_seen() {
        let errors = || (1..=20).map(f64::from).collect::<Vec<_>>();
        let panel = |least, identity| {
            let curve = |name: &str, colour, values| Errors { name: name.to_owned(), colour, values };
            let curves = vec![curve("still", IDENTITY, identity), curve("us", ESTIMATE, errors())];
            Panel { title: "t", unit: "u", least, windows: 20, curves }
        };
        let image = draw((1, 2), &[panel(1.0, vec![10.0; 20]), panel(180.0, Vec::new())]).unwrap();
        let count = |from: u32, to: u32, colour: RGBColor| {
            let inside = image.enumerate_pixels().filter(|(x, _, _)| (from..to).contains(x));
            inside.filter(|(_, _, p)| p.0 == [colour.0, colour.1, colour.2]).count()
        };
        for colour in [ESTIMATE, IDENTITY] {
            assert!(count(0, WIDTH / 2, colour) > 300, "{colour:?}");
            assert!(count(WIDTH / 2, WIDTH, colour) > 300, "{colour:?}");
        }
    }
}
