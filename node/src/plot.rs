//! The picture of a trajectory: x to the right, z up the page, the same scale on both.

use std::path::Path;
use std::sync::OnceLock;

use image::RgbImage;
use plotters::chart::SeriesLabelPosition;
use plotters::prelude::{
    BitMapBackend, ChartBuilder, Color, EmptyElement, FontStyle, IntoDrawingArea, LineSeries, PathElement, PointSeries,
    RGBColor, TriangleMarker,
};
use plotters::style::register_font;

const WIDTH: u32 = 900;
const HEIGHT: u32 = 780;
const INK: RGBColor = RGBColor(40, 40, 40);
const PAPER: RGBColor = RGBColor(255, 255, 255);
const FAINT: RGBColor = RGBColor(225, 225, 225);
/// Told apart by people who see no red or green too.
const TRUTH: RGBColor = RGBColor(0, 114, 178);
const ESTIMATE: RGBColor = RGBColor(213, 94, 0);
const FONT: &str = "sans-serif";

/// What is drawn; all points are (x, z).
pub(crate) struct Drawing {
    pub title: String,
    pub unit: &'static str,
    /// Empty where it is not known.
    pub truth: Vec<(f64, f64)>,
    /// One line for each stretch without a break.
    pub estimate: Vec<Vec<(f64, f64)>>,
}

/// Draws to a PNG file.
pub(crate) fn top_view(path: &Path, drawing: &Drawing) -> Result<(), String> {
    let mut pixels = vec![0; (WIDTH * HEIGHT * 3) as usize];
    draw(&mut pixels, drawing)?;
    let image = RgbImage::from_raw(WIDTH, HEIGHT, pixels).expect("three bytes for each pixel");
    image.save(path).map_err(|e| e.to_string())
}

fn draw(pixels: &mut [u8], drawing: &Drawing) -> Result<(), String> {
    fonts()?;
    let text = |e: &dyn std::fmt::Display| e.to_string();
    let root = BitMapBackend::with_buffer(pixels, (WIDTH, HEIGHT)).into_drawing_area();
    root.fill(&PAPER).map_err(|e| text(&e))?;
    let (x, z) = ranges(drawing);
    let mut chart = ChartBuilder::on(&root)
        .caption(&drawing.title, (FONT, 22, &INK))
        .margin(20)
        .x_label_area_size(50)
        .y_label_area_size(70)
        .build_cartesian_2d(x.0..x.1, z.0..z.1)
        .map_err(|e| text(&e))?;
    chart
        .configure_mesh()
        .x_desc(format!("x, right ({})", drawing.unit))
        .y_desc(format!("z, forward ({})", drawing.unit))
        .axis_style(INK)
        .bold_line_style(FAINT)
        .light_line_style(PAPER)
        .label_style((FONT, 15, &INK))
        .axis_desc_style((FONT, 17, &INK))
        .draw()
        .map_err(|e| text(&e))?;

    let mut line = |points: &[(f64, f64)], colour: RGBColor, name: Option<&str>| -> Result<(), String> {
        let series = LineSeries::new(points.iter().copied(), colour.stroke_width(2)).point_size(3);
        let drawn = chart.draw_series(series).map_err(|e| text(&e))?;
        if let Some(name) = name {
            drawn.label(name).legend(move |(x, y)| PathElement::new([(x, y), (x + 24, y)], colour.stroke_width(3)));
        }
        Ok(())
    };
    if !drawing.truth.is_empty() {
        line(&drawing.truth, TRUTH, Some("ground truth"))?;
    }
    for (i, stretch) in drawing.estimate.iter().enumerate() {
        line(stretch, ESTIMATE, (i == 0).then_some("estimate"))?;
    }
    if !drawing.estimate.is_empty() {
        chart
            .draw_series(PointSeries::of_element([(0.0, 0.0)], 7, INK.filled(), &|at, size, style| {
                EmptyElement::at(at) + TriangleMarker::new((0, 0), size, style)
            }))
            .map_err(|e| text(&e))?
            .label("start")
            .legend(|(x, y)| TriangleMarker::new((x + 12, y), 7, INK.filled()));
        chart
            .configure_series_labels()
            .position(emptiest_corner(drawing, x, z))
            .background_style(PAPER.mix(0.85))
            .border_style(FAINT)
            .label_font((FONT, 16, &INK))
            .draw()
            .map_err(|e| text(&e))?;
    }
    drop(chart);
    root.present().map_err(|e| text(&e))
}

/// Registers the letters, once in a process.
fn fonts() -> Result<(), String> {
    static DONE: OnceLock<bool> = OnceLock::new();
    match *DONE.get_or_init(|| register_font(FONT, FontStyle::Normal, dejavu::sans::regular()).is_ok()) {
        true => Ok(()),
        false => Err("the embedded font cannot be read".to_owned()),
    }
}

/// The corner of the plot with the fewest points, for the legend.
fn emptiest_corner(drawing: &Drawing, x: (f64, f64), z: (f64, f64)) -> SeriesLabelPosition {
    let share = |value: f64, (low, high): (f64, f64)| (value - low) / (high - low);
    let points = || drawing.estimate.iter().flatten().chain(&drawing.truth);
    let inside = |right: bool, upper: bool| {
        let near = |share: f64, far_end: bool| if far_end { share > 0.7 } else { share < 0.3 };
        points().filter(|p| near(share(p.0, x), right) && near(share(p.1, z), upper)).count()
    };
    [
        (inside(true, true), SeriesLabelPosition::UpperRight),
        (inside(false, true), SeriesLabelPosition::UpperLeft),
        (inside(true, false), SeriesLabelPosition::LowerRight),
        (inside(false, false), SeriesLabelPosition::LowerLeft),
    ]
    .into_iter()
    .min_by_key(|(points, _)| *points)
    .map_or(SeriesLabelPosition::UpperRight, |(_, corner)| corner)
}

/// Bounds of the axes: all points with a margin, and the same length of scene for the same length of page.
fn ranges(drawing: &Drawing) -> ((f64, f64), (f64, f64)) {
    let all = drawing.estimate.iter().flatten().chain(&drawing.truth).chain(&[(0.0, 0.0)]);
    let finite = all.filter(|(x, z)| x.is_finite() && z.is_finite());
    let (mut low, mut high) = ((0.0_f64, 0.0_f64), (0.0_f64, 0.0_f64));
    for &(x, z) in finite {
        low = (low.0.min(x), low.1.min(z));
        high = (high.0.max(x), high.1.max(z));
    }
    // The plot area without margins, labels and caption.
    let (width, height) = (f64::from(WIDTH - 110), f64::from(HEIGHT - 125));
    let per_pixel = ((high.0 - low.0) / width).max((high.1 - low.1) / height).max(1e-6) * 1.15;
    let around = |low: f64, high: f64, pixels: f64| {
        let (middle, half) = ((low + high) / 2.0, per_pixel * pixels / 2.0);
        (middle - half, middle + half)
    };
    (around(low.0, high.0, width), around(low.1, high.1, height))
}

#[cfg(test)]
mod tests {
    use super::{Drawing, TRUTH, top_view};

    fn colours(drawing: &Drawing) -> image::RgbImage {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.png");
        top_view(&path, drawing).unwrap();
        image::open(path).unwrap().into_rgb8()
    }

    #[test]
    fn a_trajectory_is_seen_and_none_is_no_reason_to_fail() {
        let line: Vec<(f64, f64)> = (0..20).map(|i| (f64::from(i) * 0.1, f64::from(i * i) * 0.01)).collect();
        let mut drawing = Drawing { title: "test".to_owned(), unit: "m", truth: line.clone(), estimate: vec![line] };
        drawing.estimate[0].truncate(10);
        let image = colours(&drawing);
        let truth = image.pixels().filter(|p| p.0 == [TRUTH.0, TRUTH.1, TRUTH.2]).count();
        assert!(truth > 300, "{truth} pixels of ground truth");
        for (truth, estimate) in [
            (vec![], vec![]),
            (vec![], vec![vec![(0.0, 0.0)]]),
            (vec![], vec![vec![(0.0, 0.0), (1e9, -1e9)], vec![(1.0, 1.0)]]),
        ] {
            let empty = Drawing { title: String::new(), unit: "m", truth, estimate };
            assert!(colours(&empty).width() > 0);
        }
    }
}
