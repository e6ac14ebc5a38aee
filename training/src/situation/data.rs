//! Windows with what the heads shall say of them.
//!
//! The ground plane is the x-z plane of camera 0. The plane of the notes on Loc3R-VLM is level; no source here knows
//! gravity, so plans are as tilted as the first camera was, and every manifest says so.

use anyhow::{Context, Result};
use geometry::{Intrinsics, WINDOW, WindowTrajectory};
use model::answer::chain;
use model::answer::prompt::Mode;
use model::pose_head::{ASKED, FramePose};
use nalgebra::{Point2, Point3};
use serde_json::{Value, json};

use crate::sft::example::{Builder, Example, Source};
use training_data::{Order, WindowSample, WindowSource, parse_source};

/// What the ground plane is, as manifests have it.
pub const GROUND_PLANE: &str = "x-z plane of camera 0";

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
    json!({"windows": source.len(), "skipped": source.skipped().len(), "sources": source.sources()})
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

/// A window ready for the trainer.
#[derive(Debug, Clone)]
pub struct Window {
    /// Frames, prompt and poses as text.
    pub example: Example,
    /// (x, z) of the surface at the centre of each vision token, frame after frame, in the anchor's frame and
    /// `layout.unit`s; nothing where there is no depth.
    pub layout: Vec<Option<[f32; 2]>>,
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
        let merge = builder.config.vision_config.spatial_merge_size;
        let grid = example.sequence.images.first().context("no image")?.1;
        let side = builder.processor.patch_size * merge;
        let cells = Cells { rows: grid.height / merge, columns: grid.width / merge, side };
        let surface = sample.depth.as_ref().map(|depth| Surface {
            depth,
            stored: &sample.intrinsics,
            seen: &example.intrinsics,
            trajectory: &sample.ground_truth,
        });
        let layout = layout(surface.as_ref(), cells, unit);
        Ok(Self { example, layout, poses: FramePose::of_window(&sample.ground_truth) })
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
    fn point_in_anchor(&self, frame: usize, pixel: &Point2<f64>) -> Option<Point3<f64>> {
        let nearest = |u: f64, seen: u32, stored: u32| {
            let place = (u + 0.5) * f64::from(stored) / f64::from(seen) - 0.5;
            (place.round().max(0.0) as usize).min(stored as usize - 1)
        };
        let row = nearest(pixel.y, self.seen.height, self.stored.height);
        let column = nearest(pixel.x, self.seen.width, self.stored.width);
        let depth = f64::from(*self.depth[frame].get(row * self.stored.width as usize + column)?);
        let point_in_camera = (depth.is_finite() && depth > 0.0).then(|| self.seen.back_project(pixel, depth))?;
        Some(self.trajectory.anchor_from_camera()[frame].transform_point(&point_in_camera))
    }
}

/// (x, z) of each vision token of five frames.
fn layout(surface: Option<&Surface<'_>>, cells: Cells, unit: f64) -> Vec<Option<[f32; 2]>> {
    let centre = |cell: usize| (cell * cells.side) as f64 + (cells.side as f64 - 1.0) / 2.0;
    let mut layout = Vec::with_capacity(WINDOW * cells.rows * cells.columns);
    for frame in 0..WINDOW {
        for row in 0..cells.rows {
            for column in 0..cells.columns {
                let pixel = Point2::new(centre(column), centre(row));
                let point_in_anchor = surface.and_then(|surface| surface.point_in_anchor(frame, &pixel));
                layout.push(point_in_anchor.map(|point| [(point.x / unit) as f32, (point.z / unit) as f32]));
            }
        }
    }
    layout
}

#[cfg(test)]
mod tests {
    use geometry::Transform;
    use nalgebra::{Isometry3, Vector3};

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
        let got = layout(Some(&surface), cells, 0.5);
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
        assert_eq!(layout(None, cells, 1.0), vec![None; WINDOW * 4]);
    }

    #[test]
    fn windows_are_spread_over_the_source() {
        let source = parse_source("synth:seed=3,windows=7,size=8x8").unwrap();
        let ids = |n| spread(&source, n).map(|sample| sample.unwrap().id).collect::<Vec<_>>();
        assert_eq!(ids(3), ["synth-3-0", "synth-3-2", "synth-3-4"]);
        assert_eq!(ids(9).len(), 7);
    }
}
