//! The model's text: what parses must be written as what parses again.

use geometry::{Transform, WINDOW, WindowTrajectory};
use model::answer::chain::{self, Chain, POINTS, Track, parse, parse_poses, round_depth, stated_poses, write_poses};
use nalgebra::{Isometry3, Point2, Point3, Translation3, UnitQuaternion, Vector3};

use crate::memory::within;
use crate::reader::Reader;

/// Larger numbers are written with more digits than the grammar has: twelve.
const MOST: f64 = 1e11;
/// What six decimals keep of an angle, radians, and of a length, scene units.
const SAME_ANGLE: f64 = 1e-5;
const SAME_LENGTH: f64 = 1e-6;

/// Any text: parsed without a panic, each step for itself; poses survive being written and parsed again.
pub fn chain_text(data: &[u8]) -> bool {
    let text = String::from_utf8_lossy(data);
    // References to lines, of which a text of line ends has as many as bytes.
    let parsed = within(256 * text.len() + (64 << 10), || parse(&text));
    let stated = stated_poses(&text);
    let poses = parse_poses(&text);
    assert_eq!(poses, parsed.trajectory);
    assert!(stated.is_ok() || poses.is_err(), "poses without numbers: {poses:?}");
    let Ok(trajectory) = poses else { return false };
    if trajectory.anchor_from_camera().iter().any(|pose| pose.translation().amax() >= MOST) {
        return false;
    }
    let written = write_poses(&trajectory);
    match parse_poses(&written) {
        Ok(again) => check_same(&trajectory, &again),
        Err(e) => panic!("{e}\n{written}"),
    }
    true
}

/// Any chain: all that is written parses, to the numbers that were written.
pub fn chain_write(data: &[u8]) -> bool {
    let chain = any_chain(&mut Reader(data));
    let text = chain::write(&chain);
    let parsed = parse(&text);
    assert_eq!(parsed.steps(), [true; 5], "{parsed:?}\n{text}");
    let (Ok(pixels), Ok(depths), Ok(points)) = (&parsed.pixels, &parsed.depths, &parsed.points) else { return false };
    for (i, track) in chain.tracks.iter().enumerate() {
        for frame in 0..WINDOW {
            assert!(
                (pixels[i][frame] - track.pixels[frame]).amax() <= 0.05 + rounding(track.pixels[frame].coords.amax())
            );
            assert_eq!(depths[i][frame].to_bits(), round_depth(track.depths[frame]).to_bits());
            let point = track.points_in_camera[frame];
            assert!((points[i][frame] - point).amax() <= 5e-5 + rounding(point.coords.amax()));
        }
    }
    let summary = parsed.summary.as_deref().unwrap_or_default();
    assert_eq!(summary, chain.prose[4].replace(['\n', '<', '>'], " "));
    match &parsed.trajectory {
        Ok(again) => check_same(&chain.trajectory, again),
        Err(e) => panic!("{e}\n{text}"),
    }
    true
}

fn check_same(one: &WindowTrajectory, other: &WindowTrajectory) {
    for (one, other) in one.anchor_from_camera().iter().zip(other.anchor_from_camera()) {
        let length = (one.translation() - other.translation()).amax();
        let angle = one.rotation().angle_to(&other.rotation());
        assert!(angle <= SAME_ANGLE, "{one:?} {other:?}");
        assert!(length <= SAME_LENGTH + rounding(one.translation().amax()), "{one:?} {other:?}");
    }
}

/// What a number of this size loses as an `f64`.
fn rounding(size: f64) -> f64 {
    4.0 * f64::EPSILON * size
}

/// A number of any size that a scene may have; never too large for the grammar.
fn number(reader: &mut Reader<'_>) -> f64 {
    const SCALES: [f64; 4] = [1.0, 1e-3, 1e-6, 1e-9];
    let scale = SCALES[usize::from(reader.byte()) % SCALES.len()];
    f64::from(i32::from_le_bytes(reader.array())) * scale
}

fn vector(reader: &mut Reader<'_>) -> Vector3<f64> {
    Vector3::from_fn(|_, _| number(reader))
}

fn pose<To, From>(reader: &mut Reader<'_>) -> Transform<To, From> {
    // A large number of turns is no other rotation, and less exact.
    let rotation = UnitQuaternion::from_scaled_axis(vector(reader).map(|angle| angle % 4.0));
    Transform::from_isometry_unchecked(Isometry3::from_parts(Translation3::from(vector(reader)), rotation))
}

fn any_chain(reader: &mut Reader<'_>) -> Chain {
    let mut trajectory = WindowTrajectory::identity();
    trajectory.later_mut().fill_with(|| pose(reader));
    let camera_from_anchor = std::array::from_fn(|_| pose(reader));
    let tracks: [Track; POINTS] = std::array::from_fn(|_| Track {
        pixels: std::array::from_fn(|_| Point2::new(number(reader), number(reader))),
        depths: std::array::from_fn(|_| number(reader)),
        points_in_camera: std::array::from_fn(|_| Point3::from(vector(reader))),
    });
    Chain { prose: std::array::from_fn(|_| reader.text()), tracks, camera_from_anchor, trajectory }
}
