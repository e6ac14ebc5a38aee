//! Charts as PNG files: curves over steps, layers and distances, and what every other chart of lines is drawn with.

use std::ops::Range;
use std::path::Path;
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, ensure};
use image::RgbImage;
use plotters::coord::Shift;
use plotters::prelude::{
    BitMapBackend, ChartBuilder, Color, DrawingArea, FontStyle, IntoDrawingArea, LineSeries, PathElement, Polygon,
    RGBColor, SeriesLabelPosition,
};
use plotters::style::register_font;

const WIDTH: u32 = 900;
const HEIGHT: u32 = 560;
const INK: RGBColor = RGBColor(40, 40, 40);
const PAPER: RGBColor = RGBColor(255, 255, 255);
const FAINT: RGBColor = RGBColor(225, 225, 225);
const FONT: &str = "sans-serif";
/// Of lines, in their order; told apart by people who see no red or green too.
pub const COLOURS: [RGBColor; 8] = [
    RGBColor(213, 94, 0),
    RGBColor(0, 114, 178),
    RGBColor(0, 158, 115),
    RGBColor(120, 120, 120),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
];

/// One curve.
#[derive(Debug, Clone)]
pub struct Curve {
    /// In the legend.
    pub name: String,
    /// From left to right.
    pub points: Vec<(f64, f64)>,
}

/// A curve with the standard deviation around each of its points.
#[derive(Debug, Clone)]
pub struct SpreadCurve {
    /// The means.
    pub curve: Curve,
    /// Of each point; those that are missing are 0.
    pub deviations: Vec<f64>,
    /// Of [`COLOURS`], which: curves of one thing share theirs.
    pub colour: usize,
    /// Paler than the others, for what stands beside another curve of its colour.
    pub is_pale: bool,
}

/// A chart beside others.
#[derive(Debug, Clone)]
pub struct Panel<'a> {
    /// Above it.
    pub title: &'a str,
    /// What the axes say.
    pub axes: (&'a str, &'a str),
    /// What is drawn.
    pub curves: Vec<SpreadCurve>,
}

/// Draws charts side by side, each curve in a band of one standard deviation.
///
/// # Errors
/// A file that can't be written.
pub fn panels(path: &Path, panels: &[Panel<'_>]) -> Result<()> {
    side_by_side(panels)?.save(path).with_context(|| path.display().to_string())
}

fn side_by_side(panels: &[Panel<'_>]) -> Result<RgbImage> {
    picture((WIDTH * panels.len().max(1) as u32, HEIGHT), |page| {
        let parts = page.split_evenly((1, panels.len().max(1)));
        parts.iter().zip(panels).try_for_each(|(area, panel)| panel.draw(area))
    })
}

impl Panel<'_> {
    fn draw(&self, area: &Area<'_>) -> Result<()> {
        let edges: Vec<Edges> = self.curves.iter().map(SpreadCurve::edges).collect();
        let points = || edges.iter().flat_map(|edges| edges.low.iter().chain(&edges.high));
        let (left, right) = bounds(points().map(|point| point.0));
        let (low, high) = bounds(points().map(|point| point.1).chain([0.0]));
        let line = |spread: &SpreadCurve| Line {
            name: spread.curve.name.clone(),
            points: spread.curve.points.clone(),
            colour: spread.shown(),
            dot: 3,
        };
        let lines: Vec<Line> = self.curves.iter().map(line).collect();
        let band = |(spread, edges): (&SpreadCurve, Edges)| Band {
            outline: edges.low.into_iter().chain(edges.high.into_iter().rev()).collect(),
            colour: spread.shown(),
        };
        let bounds = (left..right, low..high);
        let bands: Vec<Band> = self.curves.iter().zip(edges.clone()).map(band).collect();
        let legend = SeriesLabelPosition::UpperRight;
        banded(area, Frame { title: self.title, x: self.axes.0, y: self.axes.1, bounds, legend }, &lines, &bands)
    }
}

/// What a band reaches from and to.
#[derive(Clone)]
struct Edges {
    low: Vec<(f64, f64)>,
    high: Vec<(f64, f64)>,
}

impl SpreadCurve {
    fn edges(&self) -> Edges {
        let deviations = self.deviations.iter().copied().chain(std::iter::repeat(0.0));
        let points = self.curve.points.iter().zip(deviations);
        let (low, high) = points.map(|(&(x, y), deviation)| ((x, y - deviation), (x, y + deviation))).unzip();
        Edges { low, high }
    }

    fn shown(&self) -> RGBColor {
        let colour = COLOURS[self.colour % COLOURS.len()];
        let pale = |part: u8| 255 - (255 - part) / 2;
        if self.is_pale { RGBColor(pale(colour.0), pale(colour.1), pale(colour.2)) } else { colour }
    }
}

/// Draws curves; the axis of y begins at 0 where all are above it.
///
/// # Errors
/// A file that can't be written.
pub fn curves(path: &Path, title: &str, axes: (&str, &str), curves: &[Curve]) -> Result<()> {
    draw(title, axes, curves)?.save(path).with_context(|| path.display().to_string())
}

fn draw(title: &str, (x, y): (&str, &str), curves: &[Curve]) -> Result<RgbImage> {
    let all = || curves.iter().flat_map(|curve| &curve.points);
    let (left, right) = bounds(all().map(|point| point.0));
    let (low, high) = bounds(all().map(|point| point.1).chain([0.0]));
    let legend = SeriesLabelPosition::UpperRight;
    let frame = Frame { title, x, y, bounds: (left..right, low..high), legend };
    // One layer is a point, not a line.
    let line = |(curve, colour): (&Curve, RGBColor)| Line {
        name: curve.name.clone(),
        points: curve.points.clone(),
        colour,
        dot: 3,
    };
    let lines: Vec<Line> = curves.iter().zip(COLOURS.into_iter().cycle()).map(line).collect();
    picture((WIDTH, HEIGHT), |area| chart(area, frame, &lines))
}

/// Where a chart is drawn.
pub type Area<'a> = DrawingArea<BitMapBackend<'a>, Shift>;

/// A page of `size` (width, height) pixels with what `draw` puts on it.
///
/// # Errors
/// Those of `draw`.
pub fn picture(size: (u32, u32), draw: impl FnOnce(&Area<'_>) -> Result<()>) -> Result<RgbImage> {
    fonts()?;
    let mut pixels = vec![0; (size.0 * size.1 * 3) as usize];
    {
        let page = BitMapBackend::with_buffer(&mut pixels, size).into_drawing_area();
        page.fill(&PAPER).map_err(|e| anyhow!("{e}"))?;
        draw(&page)?;
        page.present().map_err(|e| anyhow!("{e}"))?;
    }
    RgbImage::from_raw(size.0, size.1, pixels).context("three bytes for each pixel")
}

/// What is around the lines of a chart.
pub struct Frame<'a> {
    pub title: &'a str,
    /// What the axes say.
    pub x: &'a str,
    pub y: &'a str,
    /// What they reach over.
    pub bounds: (Range<f64>, Range<f64>),
    pub legend: SeriesLabelPosition,
}

/// A line of a chart.
pub struct Line {
    /// In the legend.
    pub name: String,
    /// From left to right.
    pub points: Vec<(f64, f64)>,
    pub colour: RGBColor,
    /// Radius of the points, pixels; 0 for a line alone.
    pub dot: u32,
}

/// An area behind the lines.
struct Band {
    outline: Vec<(f64, f64)>,
    colour: RGBColor,
}

/// Draws a chart.
///
/// # Errors
/// The backend's.
pub fn chart(area: &Area<'_>, frame: Frame<'_>, lines: &[Line]) -> Result<()> {
    banded(area, frame, lines, &[])
}

fn banded(area: &Area<'_>, frame: Frame<'_>, lines: &[Line], bands: &[Band]) -> Result<()> {
    let (across, up) = frame.bounds;
    let mut chart = ChartBuilder::on(area)
        .caption(frame.title, (FONT, 22, &INK))
        .margin(20)
        .x_label_area_size(50)
        .y_label_area_size(70)
        .build_cartesian_2d(across, up)
        .map_err(|e| anyhow!("{e}"))?;
    chart
        .configure_mesh()
        .x_desc(frame.x)
        .y_desc(frame.y)
        .axis_style(INK)
        .bold_line_style(FAINT)
        .light_line_style(PAPER)
        .label_style((FONT, 15, &INK))
        .axis_desc_style((FONT, 17, &INK))
        .draw()
        .map_err(|e| anyhow!("{e}"))?;
    for band in bands.iter().filter(|band| band.outline.len() > 2) {
        let area = Polygon::<(f64, f64)>::new(band.outline.clone(), band.colour.mix(0.15));
        chart.draw_series(std::iter::once(area)).map_err(|e| anyhow!("{e}"))?;
    }
    for line in lines {
        let colour = line.colour;
        let series = LineSeries::new(line.points.iter().copied(), colour.filled().stroke_width(3)).point_size(line.dot);
        chart
            .draw_series(series)
            .map_err(|e| anyhow!("{e}"))?
            .label(&line.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 24, y)], colour.stroke_width(3)));
    }
    chart
        .configure_series_labels()
        .position(frame.legend)
        .background_style(PAPER.mix(0.85))
        .border_style(FAINT)
        .label_font((FONT, 16, &INK))
        .draw()
        .map_err(|e| anyhow!("{e}"))
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
            let image = draw("title", ("x", "y"), &curves).unwrap();
            // Left of the legend.
            let seen = |colour: RGBColor| {
                let inside = image.enumerate_pixels().filter(|(x, _, _)| *x < 700);
                inside.filter(|(_, _, p)| p.0 == [colour.0, colour.1, colour.2]).count()
            };
            for (curve, colour) in curves.iter().zip(COLOURS) {
                assert_eq!(seen(colour) > 4, !curve.points.is_empty(), "{curves:?}");
            }
        }
    }

    /// The band is seen where the deviation is, and not where there is none.
    #[test]
    fn panels_stand_side_by_side_with_bands_around_their_curves() {
        let curve = |y: f64| Curve { name: "c".to_owned(), points: vec![(0.0, y), (1.0, y), (2.0, y)] };
        let spread = |deviation: f64, is_pale: bool| SpreadCurve {
            curve: curve(0.5),
            deviations: vec![deviation; 3],
            colour: 1,
            is_pale,
        };
        let panel = |spread: SpreadCurve| Panel { title: "t", axes: ("x", "y"), curves: vec![spread] };
        let image = side_by_side(&[panel(spread(0.2, false)), panel(spread(0.0, false)), panel(spread(0.0, true))]);
        let image = image.unwrap();
        assert_eq!(image.dimensions(), (3 * WIDTH, HEIGHT));
        let count = |part: u32, is: &dyn Fn([u8; 3]) -> bool| {
            let inside = image.enumerate_pixels().filter(|(x, _, _)| x / WIDTH == part && x % WIDTH < 700);
            inside.filter(|(_, _, pixel)| is(pixel.0)).count()
        };
        let full = |p: [u8; 3]| p == [COLOURS[1].0, COLOURS[1].1, COLOURS[1].2];
        // Blue and light, as no ink, mesh or paper is.
        let faint = |p: [u8; 3]| p[0] > 200 && p[2].saturating_sub(p[0]) > 15;
        assert!(count(0, &full) > 100 && count(1, &full) > 100 && count(2, &full) == 0);
        assert!(count(0, &faint) > 10_000, "{}", count(0, &faint));
        assert!(count(1, &faint) < 2000, "{}", count(1, &faint));
    }

    #[test]
    fn an_axis_is_never_empty() {
        for values in [vec![], vec![0.0], vec![2.0, 2.0], vec![-1.0, 3.0]] {
            let (low, high) = bounds(values.iter().copied());
            assert!(low < high && values.iter().all(|v| (low..=high).contains(v)), "{values:?}: {low} {high}");
        }
    }
}
