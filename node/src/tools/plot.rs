//! The picture of a trajectory as SVG, which every browser shows and which asks for no font: x to the right, z up the
//! page, the same scale on both.

use std::path::Path;

use svg::Document;
use svg::node::element::{Circle, Line, Polyline, Rectangle, Text};

/// Of the page, and of the margins around what is drawn: left, right, top, bottom.
const PAGE: (f64, f64) = (900.0, 780.0);
const MARGINS: [f64; 4] = [90.0, 20.0, 55.0, 70.0];
const INK: &str = "#282828";
const FAINT: &str = "#e1e1e1";
/// Told apart by people who see no red or green too.
const TRUTH: &str = "#0072b2";
const ESTIMATE: &str = "#d55e00";
/// Lines of the grid along the longer axis, about.
const GRID_LINES: f64 = 8.0;

/// What is drawn; all points are (x, z).
pub(crate) struct Drawing {
    pub title: String,
    pub unit: &'static str,
    /// Empty where it is not known.
    pub truth: Vec<(f64, f64)>,
    /// One line for each stretch without a break.
    pub estimate: Vec<Vec<(f64, f64)>>,
}

/// Draws to a file.
pub(crate) fn top_view(path: &Path, drawing: &Drawing) -> std::io::Result<()> {
    svg::save(path, &document(drawing))
}

fn document(drawing: &Drawing) -> Document {
    let view = View::of(drawing);
    let (width, height) = PAGE;
    let [left, right, top, bottom] = MARGINS;
    let page = Rectangle::new().set("width", width).set("height", height).set("fill", "white");
    let mut document = Document::new()
        .set("viewBox", (0, 0, width, height))
        .set("font-family", "sans-serif")
        .set("font-size", 15)
        .set("fill", INK)
        .add(page)
        .add(text(&drawing.title, (width / 2.0, top / 2.0), "middle").set("font-size", 21));
    let (middle_x, middle_y) = ((left + width - right) / 2.0, (top + height - bottom) / 2.0);
    for x in view.grid(view.x) {
        let at = view.place((x, view.z.0)).0;
        document = document.add(rule((at, top), (at, height - bottom))).add(text(
            &tick(x, view.step),
            (at, height - bottom + 22.0),
            "middle",
        ));
    }
    for z in view.grid(view.z) {
        let at = view.place((view.x.0, z)).1;
        document = document.add(rule((left, at), (width - right, at))).add(text(
            &tick(z, view.step),
            (left - 8.0, at + 5.0),
            "end",
        ));
    }
    let sideways = format!("rotate(-90 20 {middle_y})");
    document = document
        .add(text(&format!("x, right ({})", drawing.unit), (middle_x, height - 18.0), "middle"))
        .add(text(&format!("z, forward ({})", drawing.unit), (20.0, middle_y), "middle").set("transform", sideways));
    for (points, colour) in
        std::iter::once((&drawing.truth, TRUTH)).chain(drawing.estimate.iter().map(|l| (l, ESTIMATE)))
    {
        let places: Vec<(f64, f64)> = finite(points).map(|point| view.place(point)).collect();
        let line: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let line = Polyline::new().set("points", line.join(" ")).set("fill", "none");
        document = document.add(line.set("stroke", colour).set("stroke-width", 2));
        for (x, y) in places {
            document = document.add(Circle::new().set("cx", x).set("cy", y).set("r", 3).set("fill", colour));
        }
    }
    let known =
        [(!drawing.truth.is_empty(), TRUTH, "ground truth"), (!drawing.estimate.is_empty(), ESTIMATE, "estimate")];
    let mut at = left;
    for (_, colour, name) in known.into_iter().filter(|(is_known, ..)| *is_known) {
        let line = rule((at, top - 10.0), (at + 24.0, top - 10.0)).set("stroke", colour).set("stroke-width", 3);
        document = document.add(line).add(text(name, (at + 30.0, top - 5.0), "start"));
        at += 140.0;
    }
    if !drawing.estimate.is_empty() {
        let (x, y) = view.place((0.0, 0.0));
        let start = Circle::new().set("cx", x).set("cy", y).set("r", 6).set("fill", INK);
        document = document.add(start).add(text("start", (x + 10.0, y - 8.0), "start"));
    }
    document
}

fn text(words: &str, (x, y): (f64, f64), anchor: &str) -> Text {
    Text::new(words).set("x", x).set("y", y).set("text-anchor", anchor)
}

fn rule((x1, y1): (f64, f64), (x2, y2): (f64, f64)) -> Line {
    Line::new().set("x1", x1).set("y1", y1).set("x2", x2).set("y2", y2).set("stroke", FAINT)
}

/// A number of the grid, with the digits that its step has.
fn tick(value: f64, step: f64) -> String {
    let digits = (-step.log10().floor()).clamp(0.0, 9.0) as usize;
    format!("{value:.digits$}")
}

fn finite(points: &[(f64, f64)]) -> impl Iterator<Item = (f64, f64)> {
    points.iter().copied().filter(|(x, z)| x.is_finite() && z.is_finite())
}

/// Which part of the scene the page shows.
struct View {
    x: (f64, f64),
    z: (f64, f64),
    /// Of the grid.
    step: f64,
}

impl View {
    /// All points with a margin, and the same length of scene for the same length of page.
    fn of(drawing: &Drawing) -> Self {
        let (mut low, mut high) = ((0.0_f64, 0.0_f64), (0.0_f64, 0.0_f64));
        for (x, z) in drawing.estimate.iter().flat_map(|line| finite(line)).chain(finite(&drawing.truth)) {
            low = (low.0.min(x), low.1.min(z));
            high = (high.0.max(x), high.1.max(z));
        }
        let (width, height) = Self::size();
        let per_pixel = ((high.0 - low.0) / width).max((high.1 - low.1) / height).max(1e-6) * 1.15;
        let around = |low: f64, high: f64, pixels: f64| {
            let (middle, half) = ((low + high) / 2.0, per_pixel * pixels / 2.0);
            (middle - half, middle + half)
        };
        let rough = per_pixel * width.max(height) / GRID_LINES;
        let ten = 10.0_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|times| times * ten).into_iter().find(|step| *step >= rough);
        Self { x: around(low.0, high.0, width), z: around(low.1, high.1, height), step: step.unwrap_or(rough) }
    }

    /// Of the page without its margins.
    fn size() -> (f64, f64) {
        let [left, right, top, bottom] = MARGINS;
        (PAGE.0 - left - right, PAGE.1 - top - bottom)
    }

    fn place(&self, (x, z): (f64, f64)) -> (f64, f64) {
        let share = |value: f64, (low, high): (f64, f64)| (value - low) / (high - low);
        let ((width, height), [left, _, top, _]) = (Self::size(), MARGINS);
        (left + share(x, self.x) * width, top + (1.0 - share(z, self.z)) * height)
    }

    fn grid(&self, (low, high): (f64, f64)) -> impl Iterator<Item = f64> {
        let (first, last) = ((low / self.step).ceil() as i64, (high / self.step).floor() as i64);
        let step = self.step;
        (first..=last).map(move |i| i as f64 * step)
    }
}

#[cfg(test)]
mod tests {
    use super::{Drawing, ESTIMATE, TRUTH, View, document};

    #[test]
    fn a_trajectory_is_seen_and_none_is_no_reason_to_fail() {
        let line: Vec<(f64, f64)> = (0..20).map(|i| (f64::from(i) * 0.1, f64::from(i * i) * 0.01)).collect();
        let mut drawing =
            Drawing { title: "a <test>".to_owned(), unit: "m", truth: line.clone(), estimate: vec![line] };
        drawing.estimate[0].truncate(10);
        let text = document(&drawing).to_string();
        assert_eq!(text.matches("r=\"3\"").count(), 30, "a dot for each pose");
        assert!(text.contains(TRUTH) && text.contains(ESTIMATE) && text.contains("a &lt;test&gt;"), "{text}");
        assert!(text.contains("\n2\n") && text.contains("\n-1\n"), "numbers on the axes: {text}");
        for (truth, estimate) in [
            (vec![], vec![]),
            (vec![], vec![vec![(0.0, 0.0)]]),
            (vec![], vec![vec![(0.0, 0.0), (1e9, -1e9)], vec![(1.0, 1.0)]]),
            (vec![(f64::NAN, 1.0)], vec![vec![(f64::INFINITY, 0.0)]]),
        ] {
            let empty = Drawing { title: String::new(), unit: "m", truth, estimate };
            let text = document(&empty).to_string();
            assert!(text.starts_with("<svg") && text.len() < 20_000 && !text.contains("NaN"), "{text}");
        }
    }

    #[test]
    fn a_metre_is_as_long_up_the_page_as_across_and_all_of_it_is_on_the_page() {
        let points = vec![(0.0, 0.0), (3.0, 40.0)];
        let view = View::of(&Drawing { title: String::new(), unit: "m", truth: points.clone(), estimate: vec![] });
        let (origin, right, up) = (view.place((0.0, 0.0)), view.place((1.0, 0.0)), view.place((0.0, 1.0)));
        assert!((right.0 - origin.0 - (origin.1 - up.1)).abs() < 1e-9 && right.0 > origin.0 && up.1 < origin.1);
        for point in points {
            let (x, y) = view.place(point);
            assert!((90.0..880.0).contains(&x) && (55.0..710.0).contains(&y), "{x} {y}");
        }
        let lines = view.grid(view.z).count();
        assert!((4..=9).contains(&lines), "{lines} lines");
    }
}
