//! Windows with what the heads shall say of them.
//!
//! The ground plane of the layout is level where gravity is known, as that of the notes on Loc3R-VLM is: z where camera 0 looks. The generator knows it;
//! recordings do not say it, and there the plane is the x-z plane of camera 0, as tilted as that was. Manifests say which it is. Poses
//! are those of camera 0's axes in both cases, since the node's are.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use geometry::{Intrinsics, WINDOW, WindowTrajectory};
use image::RgbImage;
use model::Processor;
use model::answer::chain;
use model::answer::prompt::Mode;
use model::pose_head::{ASKED, FramePose};
use nalgebra::{Matrix3, Point2, Vector3};
use serde_json::{Value, json};

use crate::depth::Maps;
use crate::sft::example::{Builder, Example, Source};
use training_data::depth::Given;
use training_data::{Order, WindowSample, WindowSource, parse_source};

/// A camera that is nearer to looking straight up or down than this (the sine of the angle) says nothing of where ahead is.
const STEEP: f64 = 0.01;

/// What the ground plane is, as manifests have it.
fn ground_plane(source: &WindowSource) -> &'static str {
    if source.knows_gravity() { "level, z where camera 0 looks" } else { "x-z plane of camera 0" }
}

/// Windows of a source in an order that changes from epoch to epoch.
pub struct Data {
    /// The windows.
    pub source: WindowSource,
    order: Order,
}

impl Data {
    /// # Errors
    /// A text that names no source, or one that can't be opened.
    pub fn open(spec: &str, seed: u64) -> Result<Self> {
        let source = parse_source(spec)?;
        let order = Order::new(source.len(), seed);
        Ok(Self { source, order })
    }

    /// Windows of one pass over the source.
    pub fn epoch(&self) -> u64 {
        self.order.len()
    }

    /// Window k of the stream.
    ///
    /// # Errors
    /// A window that can't be read.
    pub fn sample(&self, k: u64) -> Result<WindowSample> {
        let index = self.order.at(k);
        self.source.sample(index).with_context(|| format!("window {index}"))
    }
}

/// What a manifest says of a source.
pub fn describe(source: &WindowSource) -> Value {
    json!({
        "windows": source.len(), "skipped": source.skipped().len(), "sources": source.sources(),
        "ground_plane": ground_plane(source),
    })
}

/// At most `n` windows, spread evenly over a source.
///
/// # Errors
/// A window that can't be read.
pub fn spread(source: &WindowSource, n: u64) -> impl Iterator<Item = Result<WindowSample>> + '_ {
    let (len, n) = (source.len(), n.min(source.len()));
    let indices = (0..n).map(move |i| i * len / n);
    indices.map(move |index| source.sample(index).with_context(|| format!("window {index}")))
}

/// Gives a window without depth what `estimate` says of its frames, told their poses; perhaps nothing.
pub fn fill(sample: &mut WindowSample, estimate: impl FnOnce(&[RgbImage], &[Given]) -> Option<Maps>) {
    if sample.depth.is_some() {
        return;
    }
    let intrinsics = sample.intrinsics;
    // The world is the anchor's frame: any will do.
    let given =
        sample.ground_truth.anchor_from_camera().map(|pose| Given { world_from_camera: pose.relabel(), intrinsics });
    sample.depth = estimate(&sample.images, &given)
        .filter(|maps| maps.depth.len() == WINDOW)
        .map(|maps| std::array::from_fn(|frame| maps.on(frame, &intrinsics)));
}

/// A window ready for the trainer.
#[derive(Debug, Clone)]
pub struct Window {
    /// Frames, prompt and poses as text.
    pub example: Example,
    /// (x, z) of the surface at the centre of each vision token, frame after frame, on the ground plane under the anchor and in
    /// `layout.unit`s; nothing where there is no depth.
    pub layout: Vec<Option<[f32; 2]>>,
    /// The same of one unit of depth, seen from the anchor, for each token of a frame.
    pub rays: Vec<[f32; 2]>,
    /// Of frames 1 to 4.
    pub poses: [FramePose; ASKED],
}

impl Window {
    /// `unit`: scene units that the layout calls 1.
    ///
    /// # Errors
    /// Of the tokenizer or the processor.
    pub fn new(builder: &Builder<'_>, sample: &WindowSample, unit: f64) -> Result<Self> {
        let source = Source {
            id: sample.id.clone(),
            images: &sample.images,
            intrinsics: sample.intrinsics,
            ground_truth: sample.ground_truth,
            response: chain::write_poses(&sample.ground_truth),
        };
        let example = builder.example(source, Mode::AnswerOnly)?;
        let Places { layout, rays } = Places::of(builder.processor, sample, unit)?;
        Ok(Self { example, layout, rays, poses: FramePose::of_window(&sample.ground_truth) })
    }
}

/// Where the vision tokens of a window are on the ground plane, as [`Window`] has it.
#[derive(Debug, Clone)]
pub struct Places {
    /// Of each token.
    pub layout: Vec<Option<[f32; 2]>>,
    /// Of each token of a frame.
    pub rays: Vec<[f32; 2]>,
}

impl Places {
    /// # Errors
    /// A size that can't be resized.
    pub fn of(processor: &Processor, sample: &WindowSample, unit: f64) -> Result<Self> {
        let (width, height) = processor.camera_size(&sample.intrinsics)?;
        let seen = sample.intrinsics.rescale(width, height);
        let side = processor.patch_size * processor.merge_size;
        let cells = Cells { rows: height as usize / side, columns: width as usize / side, side };
        let plane = plane_from_anchor(sample.up_in_anchor);
        let surface = sample.depth.as_ref().map(|depth| Surface {
            depth,
            stored: &sample.intrinsics,
            seen: &seen,
            trajectory: &sample.ground_truth,
        });
        let ray = |pixel: Point2<f64>| on_plane(&plane, &seen.back_project(&pixel, 1.0).coords, 1.0);
        Ok(Self { layout: layout(surface.as_ref(), cells, &plane, unit), rays: cells.centres().map(ray).collect() })
    }
}

/// Turns the anchor's axes so that y points down and z is as far ahead as the anchor looks; none where gravity is not known.
fn plane_from_anchor(up_in_anchor: Option<Vector3<f64>>) -> Matrix3<f64> {
    let Some(down) = up_in_anchor.and_then(|up| (-up).try_normalize(0.0)) else { return Matrix3::identity() };
    let level = |axis: Vector3<f64>| (axis - down * axis.dot(&down)).try_normalize(STEEP);
    // Of a camera that looks up or down, what is on the right tells where the top of its image is.
    let ahead = level(Vector3::z()).or_else(|| Some(level(Vector3::x())?.cross(&down)));
    let ahead = ahead.unwrap_or_else(Vector3::z);
    Matrix3::from_rows(&[down.cross(&ahead).transpose(), down.transpose(), ahead.transpose()])
}

/// (x, z) of a point of the anchor's frame, in units.
fn on_plane(plane_from_anchor: &Matrix3<f64>, point_in_anchor: &Vector3<f64>, unit: f64) -> [f32; 2] {
    let point = plane_from_anchor * point_in_anchor / unit;
    [point.x as f32, point.z as f32]
}

/// What could be said of the layout without having seen an image, learned from some windows.
#[derive(Debug, Clone, Default)]
pub struct Guesses {
    /// Sum and number of the places of each token, by how many tokens the windows have: grids differ with cameras.
    sums: BTreeMap<usize, Vec<([f64; 2], f64)>>,
    /// Depths of the anchor's tokens, units.
    depths: Vec<f64>,
}

impl Guesses {
    /// Learns from one more window.
    pub fn add(&mut self, places: &Places) {
        let sums = self.sums.entry(places.layout.len()).or_insert_with(|| vec![([0.0; 2], 0.0); places.layout.len()]);
        for ((sum, count), place) in sums.iter_mut().zip(&places.layout) {
            let Some(place) = place else { continue };
            (0..2).for_each(|axis| sum[axis] += f64::from(place[axis]));
            *count += 1.0;
        }
        let length = |[x, z]: [f32; 2]| f64::from(x).hypot(f64::from(z));
        // Of frame 0 alone a place is its ray times the depth.
        for (place, &ray) in places.layout.iter().zip(&places.rays) {
            let depth = place.map(|place| length(place) / length(ray));
            self.depths.extend(depth.filter(|depth| depth.is_finite()));
        }
    }

    /// The mean place of token `token` of a window of `tokens`; that of all tokens where windows of that size were not seen.
    pub fn mean(&self, tokens: usize, token: usize) -> [f64; 2] {
        let over = |(sum, count): ([f64; 2], f64)| (count > 0.0).then(|| sum.map(|sum| sum / count));
        let own = self.sums.get(&tokens).and_then(|sums| over(*sums.get(token)?));
        let all = || {
            let sums = self.sums.values().flatten();
            sums.fold(([0.0; 2], 0.0), |(sum, count), (more, n)| ([sum[0] + more[0], sum[1] + more[1]], count + n))
        };
        own.or_else(|| over(all())).unwrap_or_default()
    }

    /// The median depth, at which a guess without depth sees everything; 0 of none.
    pub fn depth(&self) -> f64 {
        let mut depths = self.depths.clone();
        let middle = depths.len() / 2;
        if depths.is_empty() { 0.0 } else { *depths.select_nth_unstable_by(middle, f64::total_cmp).1 }
    }
}

/// The vision tokens of a frame on its pixels.
#[derive(Clone, Copy)]
struct Cells {
    rows: usize,
    columns: usize,
    /// Pixels.
    side: usize,
}

impl Cells {
    /// Their centres, row after row, pixels.
    fn centres(self) -> impl Iterator<Item = Point2<f64>> {
        let centre = move |cell: usize| (cell * self.side) as f64 + (self.side as f64 - 1.0) / 2.0;
        (0..self.rows)
            .flat_map(move |row| (0..self.columns).map(move |column| Point2::new(centre(column), centre(row))))
    }
}

/// What the frames of a window show, in three dimensions.
struct Surface<'a> {
    /// Z-depth on the stored images.
    depth: &'a [Vec<f32>; WINDOW],
    /// Camera of the stored images.
    stored: &'a Intrinsics,
    /// Camera of the grid that the model sees.
    seen: &'a Intrinsics,
    trajectory: &'a WindowTrajectory,
}

impl Surface<'_> {
    /// What is seen at a pixel of the model's grid; nothing without depth. The depth is that of the nearest stored
    /// pixel, since a mean of two surfaces is on neither.
    fn point_in_anchor(&self, frame: usize, pixel: &Point2<f64>) -> Option<Vector3<f64>> {
        let nearest = |u: f64, seen: u32, stored: u32| {
            let place = (u + 0.5) * f64::from(stored) / f64::from(seen) - 0.5;
            (place.round().max(0.0) as usize).min(stored as usize - 1)
        };
        let row = nearest(pixel.y, self.seen.height, self.stored.height);
        let column = nearest(pixel.x, self.seen.width, self.stored.width);
        let depth = f64::from(*self.depth[frame].get(row * self.stored.width as usize + column)?);
        let point_in_camera = (depth.is_finite() && depth > 0.0).then(|| self.seen.back_project(pixel, depth))?;
        Some(self.trajectory.anchor_from_camera()[frame].transform_point(&point_in_camera).coords)
    }
}

/// (x, z) of each vision token of five frames.
fn layout(surface: Option<&Surface<'_>>, cells: Cells, plane: &Matrix3<f64>, unit: f64) -> Vec<Option<[f32; 2]>> {
    let place = |frame: usize, pixel: Point2<f64>| {
        let point_in_anchor = surface.and_then(|surface| surface.point_in_anchor(frame, &pixel));
        point_in_anchor.map(|point| on_plane(plane, &point, unit))
    };
    (0..WINDOW).flat_map(|frame| cells.centres().map(move |pixel| (frame, pixel))).map(|(f, p)| place(f, p)).collect()
}

#[cfg(test)]
mod tests {
    use geometry::Transform;
    use nalgebra::{Isometry3, Rotation3};

    use super::*;

    const SIDE: usize = 128;

    /// A wall two units ahead, seen by five cameras; no depth in the upper left token of frame 0.
    fn wall() -> [Vec<f32>; WINDOW] {
        let mut depth: [Vec<f32>; WINDOW] = std::array::from_fn(|_| vec![2.0; SIDE * SIDE]);
        for row in 0..SIDE / 2 {
            depth[0][row * SIDE..row * SIDE + SIDE / 2].fill(0.0);
        }
        // Further away on the right.
        for row in 0..SIDE {
            depth[4][row * SIDE + SIDE / 2..(row + 1) * SIDE].fill(4.0);
        }
        depth
    }

    #[test]
    fn the_layout_of_a_wall_is_what_it_is_by_hand() {
        // The model sees 128x128 pixels as 64x64: two by two tokens of 32, whose centres are f / 2 off the middle.
        let stored = Intrinsics::new(64.0, 64.0, 63.5, 63.5, 128, 128).unwrap();
        let seen = stored.rescale(64, 64);
        let mut trajectory = WindowTrajectory::identity();
        // Frame 1: half a unit to the right. Frame 2: a quarter turn to the right, about y.
        trajectory.later_mut()[0] = Transform::from_isometry_unchecked(Isometry3::translation(0.5, 0.1, 0.0));
        let turn = Vector3::y() * std::f64::consts::FRAC_PI_2;
        trajectory.later_mut()[1] =
            Transform::from_isometry_unchecked(Isometry3::new(Vector3::new(0.0, 0.0, 3.0), turn));
        let depth = wall();
        let surface = Surface { depth: &depth, stored: &stored, seen: &seen, trajectory: &trajectory };
        let cells = Cells { rows: 2, columns: 2, side: 32 };
        let none = Matrix3::identity();
        let got = layout(Some(&surface), cells, &none, 0.5);
        // In halves of a unit. Pixels 15.5 and 47.5 are 16 off the middle, f is 32: x = -1 and 1 at depth 2.
        let (left, right) = (Some([-2.0, 4.0]), Some([2.0, 4.0]));
        let expected: [[Option<[f32; 2]>; 4]; WINDOW] = [
            [None, right, left, right],
            [Some([-1.0, 4.0]), Some([3.0, 4.0]), Some([-1.0, 4.0]), Some([3.0, 4.0])],
            // What is ahead is to the right of the anchor, and what is on the left is ahead of it.
            [Some([4.0, 8.0]), Some([4.0, 4.0]), Some([4.0, 8.0]), Some([4.0, 4.0])],
            [left, right, left, right],
            [left, Some([4.0, 8.0]), left, Some([4.0, 8.0])],
        ];
        assert_eq!(got.len(), WINDOW * 4);
        for (i, (got, expected)) in got.iter().zip(expected.concat()).enumerate() {
            let near = match (got, expected) {
                (Some(got), Some(expected)) => got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5),
                (got, expected) => got.is_none() && expected.is_none(),
            };
            assert!(near, "token {i}: {got:?}, expected {expected:?}");
        }
        assert_eq!(layout(None, cells, &none, 1.0), vec![None; WINDOW * 4]);
    }

    #[test]
    fn a_plane_under_a_tilted_camera_is_level() {
        // A camera that looks 30 degrees down, and rolls: what is ahead of it lies lower and less far ahead.
        for roll in [0.0, 0.4, -2.0] {
            let tilt = f64::to_radians(30.0);
            let turned = Rotation3::from_axis_angle(&Vector3::z_axis(), roll)
                * Rotation3::from_axis_angle(&Vector3::x_axis(), tilt);
            let plane = plane_from_anchor(Some(turned * Vector3::new(0.0, -2.5, 0.0)));
            let is_rotation =
                (plane * plane.transpose() - Matrix3::identity()).norm() < 1e-12 && plane.determinant() > 0.0;
            assert!(is_rotation, "{plane}");
            let ahead = plane * Vector3::z();
            assert!(ahead.x.abs() < 1e-12 && (ahead.z - tilt.cos()).abs() < 1e-12, "{roll}: {ahead}");
            // The height of a point is how far it is along gravity, and nothing of it stays on the plane.
            let below = on_plane(&plane, &(turned * Vector3::y() * 3.0), 1.0);
            assert!(below.iter().all(|v| v.abs() < 1e-6), "{below:?}");
        }
        // Straight down: the top of the image is ahead.
        let down = plane_from_anchor(Some(-Vector3::z()));
        assert!((down * -Vector3::y() - Vector3::z()).norm() < 1e-12, "{down}");
        assert_eq!(plane_from_anchor(None), Matrix3::identity());
    }

    /// The generator knows where up is, recordings do not say it.
    #[test]
    fn windows_of_the_generator_have_a_level_plane_and_recordings_their_cameras() {
        let source = parse_source("synth:seed=3,windows=6,size=64x48").unwrap();
        assert!(describe(&source)["ground_plane"].as_str().unwrap().starts_with("level"));
        let mut tilted = 0;
        for index in 0..6 {
            let sample = source.sample(index).unwrap();
            let up = sample.up_in_anchor.unwrap();
            assert!((up.norm() - 1.0).abs() < 1e-9 && up.y < 0.0, "{up}: y of a camera is down");
            tilted += usize::from(up.y > -0.999);
            let places = Places::of(&Processor::with_pixel_limits(1024, 3072), &sample, 1.0).unwrap();
            let level = places.layout.clone();
            let untold = WindowSample { up_in_anchor: None, ..sample };
            let camera = Places::of(&Processor::with_pixel_limits(1024, 3072), &untold, 1.0).unwrap();
            assert_eq!(level != camera.layout, up.y > -1.0 + 1e-12);
        }
        assert!(tilted > 0, "no camera of these looks up or down");
        let recorded = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/amazon_box");
        let recorded = parse_source(&recorded.display().to_string()).unwrap();
        assert!(describe(&recorded)["ground_plane"] == "x-z plane of camera 0");
        assert!(recorded.sample(0).unwrap().up_in_anchor.is_none());
    }

    /// A recorded window whose depth nobody recorded: the layout is that of the estimate, on the poses that it was told.
    #[test]
    fn a_window_without_depth_takes_that_of_the_network() {
        let recorded = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/amazon_box");
        let mut sample = parse_source(&recorded.display().to_string()).unwrap().sample(0).unwrap();
        assert!(sample.depth.is_none());
        let processor = Processor::with_pixel_limits(1024, 20_480);
        let known = |sample: &WindowSample| Places::of(&processor, sample, 1.0).unwrap().layout;
        assert!(known(&sample).iter().all(Option::is_none));
        fill(&mut sample, |_, _| None);
        assert!(sample.depth.is_none(), "the network has no scale");
        let (mut half, poses) = (sample.intrinsics, *sample.ground_truth.anchor_from_camera());
        half = half.rescale(half.width / 2, half.height / 2);
        fill(&mut sample, |images, given| {
            assert_eq!((images.len(), given.len()), (WINDOW, WINDOW));
            let apart = |(given, pose): (&Given, &geometry::Transform<_, _>)| {
                (given.world_from_camera.translation() - pose.translation()).norm()
            };
            assert!(given.iter().zip(&poses).map(apart).all(|apart| apart < 1e-12));
            let pixels = (half.width * half.height) as usize;
            Some(Maps { depth: vec![vec![2.0; pixels]; WINDOW], intrinsics: half })
        });
        let pixels = (sample.intrinsics.width * sample.intrinsics.height) as usize;
        assert!(sample.depth.as_ref().unwrap().iter().all(|depth| depth.len() == pixels));
        let layout = known(&sample);
        let frame = layout.len() / WINDOW;
        assert!(layout[..frame].iter().all(|place| place.is_some_and(|[_, z]| (z - 2.0).abs() < 1e-5)));
        // What is recorded stays.
        fill(&mut sample, |_, _| panic!("there is depth"));
    }

    #[test]
    fn guesses_are_the_mean_of_a_token_and_its_ray_at_the_median_depth() {
        let places = |x: f32, depth: f32| Places {
            layout: vec![Some([0.5 * depth, depth]), None, Some([x, 3.0]), Some([x, 5.0])],
            rays: vec![[0.5, 1.0], [-0.5, 1.0]],
        };
        let mut guesses = Guesses::default();
        assert_eq!((guesses.mean(4, 0), guesses.depth()), ([0.0; 2], 0.0));
        for (x, depth) in [(1.0, 2.0), (2.0, 4.0), (6.0, 40.0)] {
            guesses.add(&places(x, depth));
        }
        assert!((guesses.depth() - 4.0).abs() < 1e-6);
        let near = |got: [f64; 2], expected: [f64; 2]| {
            assert!(got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{got:?}, expected {expected:?}");
        };
        near(guesses.mean(4, 2), [3.0, 3.0]);
        near(guesses.mean(4, 0), [23.0 / 3.0, 46.0 / 3.0]);
        // Nothing is known of that token, or of windows of another size: the mean of all.
        let all = [(23.0 + 9.0 + 9.0) / 9.0, (46.0 + 9.0 + 15.0) / 9.0];
        near(guesses.mean(4, 1), all);
        near(guesses.mean(60, 7), all);
    }

    #[test]
    fn windows_are_spread_over_the_source() {
        let source = parse_source("synth:seed=3,windows=7,size=8x8").unwrap();
        let ids = |n| spread(&source, n).map(|sample| sample.unwrap().id).collect::<Vec<_>>();
        assert_eq!(ids(3), ["synth-3-0", "synth-3-2", "synth-3-4"]);
        assert_eq!(ids(9).len(), 7);
    }
}
