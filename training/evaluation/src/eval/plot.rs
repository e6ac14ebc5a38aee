//! The picture of a run: the share of windows whose error is at most so large, and that of a camera that never moves.

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
/// Share of the errors that the axis of RRE has room for: a few wild answers would flatten the rest.
const SHOWN: f64 = 0.95;
/// Letters of an estimator's name in the legend; the end tells more than the beginning of a path.
const LABEL: usize = 40;

/// Points of a curve: one every second pixel or so, beyond which thick lines fray.
const POINTS: usize = 301;

/// One distribution.
struct Panel {
    title: &'static str,
    unit: &'static str,
    /// End of the axis.
    limit: f64,
    /// How many windows the shares are of: those that do not parse are among them, and never below a curve.
    windows: usize,
    estimate: Vec<f64>,
    identity: Vec<f64>,
}

/// Draws the distributions of RRE and TDE to a PNG file.
pub(super) fn errors(path: &Path, label: &str, outcomes: &[Outcome]) -> Result<()> {
    let mut panels = [
        Panel {
            title: "rotation error",
            unit: "RRE, deg",
            limit: 180.0,
            windows: outcomes.len(),
            estimate: outcomes.iter().filter_map(|o| Some(o.errors.as_ref()?.rre_deg)).collect(),
            identity: outcomes.iter().map(|o| o.still.rre_deg).collect(),
        },
        Panel {
            title: "direction error of windows that move",
            unit: "TDE, deg",
            limit: 180.0,
            windows: outcomes.iter().filter(|o| o.still.tde_deg.is_some()).count(),
            estimate: outcomes.iter().filter_map(|o| o.errors.as_ref()?.tde_deg).collect(),
            identity: outcomes.iter().filter_map(|o| o.still.tde_deg).collect(),
        },
    ];
    for panel in &mut panels {
        panel.estimate.sort_by(f64::total_cmp);
        panel.identity.sort_by(f64::total_cmp);
    }
    let [rotation, _] = &mut panels;
    let most = |sorted: &[f64]| sorted.get((sorted.len() as f64 * SHOWN) as usize).copied().unwrap_or(0.0);
    rotation.limit = most(&rotation.estimate).max(most(&rotation.identity)).clamp(1.0, 180.0);
    let letters = label.chars().count();
    let label: String = match letters > LABEL {
        true => std::iter::once('…').chain(label.chars().skip(letters - LABEL)).collect(),
        false => label.to_owned(),
    };
    draw(&label, &panels)?.save(path).with_context(|| path.display().to_string())
}

fn draw(label: &str, panels: &[Panel; 2]) -> Result<RgbImage> {
    picture((WIDTH, HEIGHT), |area| {
        let halves = area.split_evenly((1, 2));
        halves.iter().zip(panels).try_for_each(|(half, panel)| shares(half, label, panel))
    })
}

fn shares(area: &Area<'_>, label: &str, panel: &Panel) -> Result<()> {
    let y = format!("share of {} windows", panel.windows);
    let (bounds, legend) = ((0.0..panel.limit, 0.0..1.0), SeriesLabelPosition::LowerRight);
    let line = |(sorted, colour, name): (&Vec<f64>, RGBColor, &str)| Line {
        name: name.to_owned(),
        points: cumulative(sorted, panel.windows, panel.limit),
        colour,
        dot: 0,
    };
    let lines = [(&panel.identity, IDENTITY, "never moves"), (&panel.estimate, ESTIMATE, label)].map(line);
    chart(area, Frame { title: panel.title, x: panel.unit, y: &y, bounds, legend }, &lines)
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
        let panel = |limit, identity| Panel { title: "t", unit: "u", limit, windows: 20, estimate: errors(), identity };
        let image = draw("us", &[panel(20.0, vec![10.0; 20]), panel(180.0, Vec::new())]).unwrap();
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
