//! Curves over steps, layers and distances, as PNG files.

use std::path::Path;
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, ensure};
use image::RgbImage;
use plotters::prelude::{
    BitMapBackend, ChartBuilder, Color, FontStyle, IntoDrawingArea, LineSeries, PathElement, RGBColor,
    SeriesLabelPosition,
};
use plotters::style::register_font;

const WIDTH: u32 = 900;
const HEIGHT: u32 = 560;
const INK: RGBColor = RGBColor(40, 40, 40);
const PAPER: RGBColor = RGBColor(255, 255, 255);
const FAINT: RGBColor = RGBColor(225, 225, 225);
const FONT: &str = "sans-serif";
/// Of the curves, in their order; told apart by people who see no red or green too.
const COLOURS: [RGBColor; 4] =
    [RGBColor(213, 94, 0), RGBColor(0, 114, 178), RGBColor(0, 158, 115), RGBColor(120, 120, 120)];

/// One curve.
#[derive(Debug, Clone)]
pub struct Curve {
    /// In the legend.
    pub name: String,
    /// From left to right.
    pub points: Vec<(f64, f64)>,
}

/// Draws curves; the axis of y begins at 0 where all are above it.
///
/// # Errors
/// A file that can't be written.
pub fn curves(path: &Path, title: &str, axes: (&str, &str), curves: &[Curve]) -> Result<()> {
    let mut pixels = vec![0; (WIDTH * HEIGHT * 3) as usize];
    draw(&mut pixels, title, axes, curves)?;
    let image = RgbImage::from_raw(WIDTH, HEIGHT, pixels).context("three bytes for each pixel")?;
    image.save(path).with_context(|| path.display().to_string())
}

fn draw(pixels: &mut [u8], title: &str, axes: (&str, &str), curves: &[Curve]) -> Result<()> {
    fonts()?;
    let root = BitMapBackend::with_buffer(pixels, (WIDTH, HEIGHT)).into_drawing_area();
    root.fill(&PAPER).map_err(|e| anyhow!("{e}"))?;
    let all = || curves.iter().flat_map(|curve| &curve.points);
    let (left, right) = bounds(all().map(|point| point.0));
    let (low, high) = bounds(all().map(|point| point.1).chain([0.0]));
    let mut chart = ChartBuilder::on(&root)
        .caption(title, (FONT, 22, &INK))
        .margin(20)
        .x_label_area_size(50)
        .y_label_area_size(70)
        .build_cartesian_2d(left..right, low..high)
        .map_err(|e| anyhow!("{e}"))?;
    chart
        .configure_mesh()
        .x_desc(axes.0)
        .y_desc(axes.1)
        .axis_style(INK)
        .bold_line_style(FAINT)
        .light_line_style(PAPER)
        .label_style((FONT, 15, &INK))
        .axis_desc_style((FONT, 17, &INK))
        .draw()
        .map_err(|e| anyhow!("{e}"))?;
    for (curve, colour) in curves.iter().zip(COLOURS.into_iter().cycle()) {
        // One layer is a point, not a line.
        let style = colour.filled().stroke_width(3);
        let line = LineSeries::new(curve.points.iter().copied(), style).point_size(3);
        chart
            .draw_series(line)
            .map_err(|e| anyhow!("{e}"))?
            .label(&curve.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 24, y)], colour.stroke_width(3)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(PAPER.mix(0.85))
        .border_style(FAINT)
        .label_font((FONT, 16, &INK))
        .draw()
        .map_err(|e| anyhow!("{e}"))?;
    root.present().map_err(|e| anyhow!("{e}"))
}

/// What an axis reaches over: never nothing.
fn bounds(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    match high - low {
        span if span > 0.0 && span.is_finite() => (low, high + 0.05 * span),
        _ if low.is_finite() => (low - 0.5, low + 0.5),
        _ => (0.0, 1.0),
    }
}

/// Registers the letters, once in a process.
fn fonts() -> Result<()> {
    static DONE: OnceLock<bool> = OnceLock::new();
    let done = DONE.get_or_init(|| register_font(FONT, FontStyle::Normal, dejavu::sans::regular()).is_ok());
    ensure!(*done, "the embedded font cannot be read");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_curve_is_seen_also_one_of_a_single_point() {
        let curve = |points: &[(f64, f64)]| Curve { name: "c".to_owned(), points: points.to_vec() };
        let line = curve(&[(0.0, 0.2), (1.0, 0.5), (2.0, 0.3)]);
        for curves in [vec![line.clone(), curve(&[(1.0, 0.1)])], vec![curve(&[(0.0, 0.4)])], vec![line, curve(&[])]] {
            let mut pixels = vec![0; (WIDTH * HEIGHT * 3) as usize];
            draw(&mut pixels, "title", ("x", "y"), &curves).unwrap();
            // Left of the legend.
            let seen = |colour: RGBColor| {
                let image = RgbImage::from_raw(WIDTH, HEIGHT, pixels.clone()).unwrap();
                let inside = image.enumerate_pixels().filter(|(x, _, _)| *x < 700);
                inside.filter(|(_, _, p)| p.0 == [colour.0, colour.1, colour.2]).count()
            };
            for (curve, colour) in curves.iter().zip(COLOURS) {
                assert_eq!(seen(colour) > 4, !curve.points.is_empty(), "{curves:?}");
            }
        }
    }

    #[test]
    fn an_axis_is_never_empty() {
        for values in [vec![], vec![0.0], vec![2.0, 2.0], vec![-1.0, 3.0]] {
            let (low, high) = bounds(values.iter().copied());
            assert!(low < high && values.iter().all(|v| (low..=high).contains(v)), "{values:?}: {low} {high}");
        }
    }
}
