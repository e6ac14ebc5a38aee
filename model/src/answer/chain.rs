//! The text of an answer, written and parsed in one place: the training target and the node's parser can't drift apart.
//!
//! ```text
//! <step1>            five points and their pixels in all five frames
//! prose
//! p0 12.3 45.6 | 13.1 45.2 | 14.0 44.9 | 15.2 44.0 | 16.0 43.8
//! ...
//! </step1>
//! <step2>            their depths, per frame
//! p0 1.234 1.231 1.229 1.226 1.220
//! </step2>
//! <step3>            X = d K^-1 [u v 1]^T, in each camera
//! p0 0.1234 -0.2345 1.2340 | ...
//! </step3>
//! <step4>            camera_i_from_anchor, i = 1..4, by Procrustes on those points
//! 1 R r11 r12 r13 r21 r22 r23 r31 r32 r33 t tx ty tz
//! </step4>
//! <step5>            prose
//! </step5>
//! <poses>            anchor_from_camera_i, i = 0..4
//! 0 R 1.000000 0.000000 ... t 0.000000 0.000000 0.000000
//! </poses>
//! ```
//! Pixels have one decimal, depths four significant digits, points four decimals, rotations and translations six.

use std::fmt::Write as _;

use geometry::{Anchor, Camera, Intrinsics, StatedPose, Transform, WINDOW, WindowTrajectory};
use nalgebra::{Matrix3, Point2, Point3, Vector3};

/// Points that a chain follows.
pub const POINTS: usize = 5;
/// Largest Frobenius norm of `R^T R - I` that still counts as a rotation written with errors.
pub const MAX_ROTATION_DEFECT: f64 = 0.1;

/// One point followed through the window.
#[derive(Debug, Clone, PartialEq)]
pub struct Track {
    /// Pixel in each frame, of the grid that the model sees.
    pub pixels: [Point2<f64>; WINDOW],
    /// Depth in each frame, scene units.
    pub depths: [f64; WINDOW],
    /// Point in each camera, scene units.
    pub points_in_camera: [Point3<f64>; WINDOW],
}

/// A whole answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Chain {
    /// Prose of each step.
    pub prose: [String; 5],
    /// The points.
    pub tracks: [Track; POINTS],
    /// `camera_i_from_anchor`, i = 1..4.
    pub camera_from_anchor: [Transform<Camera, Anchor>; WINDOW - 1],
    /// `anchor_from_camera_i`, i = 0..4.
    pub trajectory: WindowTrajectory,
}

/// Why a text is not an answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ParseError {
    /// A block is missing or never closed.
    #[error("no complete <{block}> block")]
    Block {
        /// Its name.
        block: &'static str,
    },
    /// A block has another number of data lines.
    #[error("<{block}>: expected {expected} lines, got {got}")]
    Lines {
        /// The block.
        block: &'static str,
        /// Lines it must have.
        expected: usize,
        /// Lines it has.
        got: usize,
    },
    /// A line does not follow the grammar.
    #[error("<{block}> line {line}: expected {expected}, got {got:?}")]
    Line {
        /// The block.
        block: &'static str,
        /// Line in the block, from 0.
        line: usize,
        /// What it must be.
        expected: &'static str,
        /// The line.
        got: String,
    },
    /// Nine numbers that are not nearly a rotation.
    #[error("pose {pose}: expected a rotation within {MAX_ROTATION_DEFECT} (Frobenius), got a defect of {defect:.3}")]
    NotARotation {
        /// Its number.
        pose: usize,
        /// `|R^T R - I|`, infinite for a mirror image.
        defect: f64,
    },
    /// The first pose is not the identity.
    #[error("pose 0: expected the identity")]
    Anchor,
}

/// A parsed text: every step apart, so that each can be scored apart.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    /// Step 1: pixels, point by point.
    pub pixels: Result<[[Point2<f64>; WINDOW]; POINTS], ParseError>,
    /// Step 2: depths.
    pub depths: Result<[[f64; WINDOW]; POINTS], ParseError>,
    /// Step 3: points in each camera.
    pub points: Result<[[Point3<f64>; WINDOW]; POINTS], ParseError>,
    /// Step 4: `camera_i_from_anchor` as printed.
    pub camera_from_anchor: Result<[StatedPose; WINDOW - 1], ParseError>,
    /// Step 5: prose.
    pub summary: Result<String, ParseError>,
    /// The final poses.
    pub trajectory: Result<WindowTrajectory, ParseError>,
}

impl Parsed {
    /// Which of the five steps parse.
    pub fn steps(&self) -> [bool; 5] {
        [
            self.pixels.is_ok(),
            self.depths.is_ok(),
            self.points.is_ok(),
            self.camera_from_anchor.is_ok(),
            self.summary.is_ok(),
        ]
    }
}

/// Writes a whole chain.
pub fn write(chain: &Chain) -> String {
    let mut out = String::with_capacity(4096);
    let _ = writeln!(out, "<step1>\n{}", one_line(&chain.prose[0]));
    write_pixels(&mut out, &chain.tracks.each_ref().map(|track| track.pixels));
    let _ = writeln!(out, "</step1>\n<step2>\n{}", one_line(&chain.prose[1]));
    for (i, track) in chain.tracks.iter().enumerate() {
        let _ = writeln!(out, "p{i}{}", track.depths.map(|d| format!(" {}", significant(d))).concat());
    }
    let _ = writeln!(out, "</step2>");
    let _ = writeln!(out, "<step3>\n{}", one_line(&chain.prose[2]));
    write_points(&mut out, &chain.tracks.each_ref().map(|track| track.points_in_camera));
    let _ = writeln!(out, "</step3>\n<step4>\n{}", one_line(&chain.prose[3]));
    write_relative(&mut out, &chain.camera_from_anchor);
    let _ = writeln!(out, "</step4>\n<step5>\n{}\n</step5>", one_line(&chain.prose[4]));
    out.push_str(&write_poses(&chain.trajectory));
    out
}

/// Writes the numbers of step 1.
pub(super) fn write_pixels(out: &mut String, pixels: &[[Point2<f64>; WINDOW]; POINTS]) {
    for (i, of_point) in pixels.iter().enumerate() {
        let group = |p: &Point2<f64>| format!(" {} {}", decimal(p.x, 1), decimal(p.y, 1));
        let _ = writeln!(out, "p{i}{}", join(&of_point.each_ref().map(group)));
    }
}

/// Writes the numbers of step 3.
pub(super) fn write_points(out: &mut String, points: &[[Point3<f64>; WINDOW]; POINTS]) {
    for (i, of_point) in points.iter().enumerate() {
        let group = |p: &Point3<f64>| format!(" {} {} {}", decimal(p.x, 4), decimal(p.y, 4), decimal(p.z, 4));
        let _ = writeln!(out, "p{i}{}", join(&of_point.each_ref().map(group)));
    }
}

/// Writes the numbers of step 4.
pub(super) fn write_relative(out: &mut String, camera_from_anchor: &[Transform<Camera, Anchor>; WINDOW - 1]) {
    for (i, pose) in camera_from_anchor.iter().enumerate() {
        pose_line(out, i + 1, &pose.rotation_matrix(), &pose.translation());
    }
}

/// Step 3 as a program computes it: `X = d K^-1 [u v 1]^T` of what steps 1 and 2 print, rounded to what step 3 prints.
pub fn back_projected(
    pixels: &[[Point2<f64>; WINDOW]; POINTS],
    depths: &[[f64; WINDOW]; POINTS],
    camera: &Intrinsics,
) -> [[Point3<f64>; WINDOW]; POINTS] {
    std::array::from_fn(|point| {
        std::array::from_fn(|frame| {
            let exact = camera.back_project(&pixels[point][frame], depths[point][frame]);
            exact.map(|v| decimal(v, 4).parse().unwrap_or(v))
        })
    })
}

/// Step 4 as a program computes it: the rigid motions (Kabsch) that bring the points of step 3 in the anchor's camera to those in
/// the others.
///
/// # Errors
/// Points on a line, or that are no numbers.
pub fn aligned(
    points: &[[Point3<f64>; WINDOW]; POINTS],
) -> Result<[Transform<Camera, Anchor>; WINDOW - 1], geometry::Error> {
    let in_camera = |frame: usize| points.each_ref().map(|of_point| of_point[frame]);
    let mut poses = [Transform::identity(); WINDOW - 1];
    for (i, pose) in poses.iter_mut().enumerate() {
        *pose = Transform::from_isometry_unchecked(geometry::kabsch(&in_camera(0), &in_camera(i + 1))?);
    }
    Ok(poses)
}

/// Writes the final block alone: the answer without its reasoning.
pub fn write_poses(trajectory: &WindowTrajectory) -> String {
    let mut out = String::from("<poses>\n");
    for (i, pose) in trajectory.anchor_from_camera().iter().enumerate() {
        pose_line(&mut out, i, &pose.rotation_matrix(), &pose.translation());
    }
    out.push_str("</poses>");
    out
}

fn pose_line(out: &mut String, i: usize, r: &Matrix3<f64>, t: &Vector3<f64>) {
    let _ = write!(out, "{i} R");
    for value in r.transpose().iter() {
        let _ = write!(out, " {}", decimal(*value, 6));
    }
    let _ = write!(out, " t");
    for value in t {
        let _ = write!(out, " {}", decimal(*value, 6));
    }
    out.push('\n');
}

fn join(parts: &[String; WINDOW]) -> String {
    parts.join(" |")
}

/// Prose may not open or close a block, nor look like data.
fn one_line(prose: &str) -> String {
    prose.replace(['\n', '<', '>'], " ")
}

/// Fixed decimals, without the sign of a zero.
fn decimal(value: f64, places: usize) -> String {
    let text = format!("{value:.places$}");
    if text.starts_with('-') && text.bytes().all(|b| matches!(b, b'-' | b'0' | b'.')) {
        text[1..].to_owned()
    } else {
        text
    }
}

/// Four significant digits, never an exponent.
fn significant(value: f64) -> String {
    let magnitude = if value == 0.0 { 0 } else { value.abs().log10().floor() as i32 };
    decimal(value, (3 - magnitude).clamp(0, 9) as usize)
}

/// The value that [`write`] prints for a pixel.
pub fn round_pixel(pixel: &Point2<f64>) -> Point2<f64> {
    pixel.map(|v| (v * 10.0).round() / 10.0)
}

/// The value that [`write`] prints for a depth.
pub fn round_depth(depth: f64) -> f64 {
    significant(depth).parse().unwrap_or(depth)
}

/// Parses every step and the final poses; each stands or falls alone.
pub fn parse(text: &str) -> Parsed {
    Parsed {
        pixels: pixels(text),
        depths: depths(text),
        points: points(text),
        camera_from_anchor: pose_block::<{ WINDOW - 1 }>(text, "step4", 1, 1),
        summary: block(text, "step5").map(|lines| lines.join("\n")),
        trajectory: parse_poses(text),
    }
}

/// Parses the pixels of step 1.
pub(super) fn pixels(text: &str) -> Result<[[Point2<f64>; WINDOW]; POINTS], ParseError> {
    point_block(text, "step1", |numbers| Some(Point2::new(*numbers.first()?, *numbers.get(1)?)), 2)
}

/// Parses the points of step 3.
pub(super) fn points(text: &str) -> Result<[[Point3<f64>; WINDOW]; POINTS], ParseError> {
    point_block(text, "step3", |numbers| Some(Point3::new(*numbers.first()?, *numbers.get(1)?, *numbers.get(2)?)), 3)
}

/// Parses the final poses.
///
/// # Errors
/// A block that is missing or does not follow the grammar, or numbers that are not poses.
pub fn parse_poses(text: &str) -> Result<WindowTrajectory, ParseError> {
    let stated = stated_poses(text)?;
    let mut poses = [Transform::identity(); WINDOW];
    for (i, (pose, stated)) in poses.iter_mut().zip(&stated).enumerate() {
        let defect = stated.defect();
        let nearest = stated.nearest().ok().filter(|_| defect < MAX_ROTATION_DEFECT);
        *pose = nearest.ok_or(ParseError::NotARotation { pose: i, defect })?;
    }
    let isometry = poses[0].isometry();
    if isometry.rotation.angle() > 1e-3 || isometry.translation.vector.norm() > 1e-3 {
        return Err(ParseError::Anchor);
    }
    poses[0] = Transform::identity();
    WindowTrajectory::new(poses).map_err(|_| ParseError::Anchor)
}

/// The final poses as printed, for rewards that judge how good the rotations are.
///
/// # Errors
/// A block that is missing or does not follow the grammar.
pub fn stated_poses(text: &str) -> Result<[StatedPose; WINDOW], ParseError> {
    pose_block::<WINDOW>(text, "poses", 0, 0)
}

/// Lines of the last block of that name, so that a model which starts over is read at its word.
fn block<'a>(text: &'a str, name: &'static str) -> Result<Vec<&'a str>, ParseError> {
    let missing = ParseError::Block { block: name };
    let (open, close) = (format!("<{name}>\n"), format!("\n</{name}>"));
    let start = text.rfind(&open).ok_or(missing.clone())? + open.len();
    let end = text[start..].find(&close).ok_or(missing)? + start;
    Ok(text[start..end].split('\n').collect())
}

/// Data lines behind `prose` lines of prose.
fn data_lines<'a>(
    text: &'a str,
    name: &'static str,
    prose: usize,
    expected: usize,
) -> Result<Vec<&'a str>, ParseError> {
    let lines = block(text, name)?;
    let got = lines.len().saturating_sub(prose);
    if got != expected {
        return Err(ParseError::Lines { block: name, expected, got });
    }
    Ok(lines[prose..].to_vec())
}

/// A plain decimal: the grammar has no exponents, signs of plus, NaN or infinities.
fn number(text: &str) -> Option<f64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let plain = |s: &str| !s.is_empty() && s.len() <= 12 && s.bytes().all(|b| b.is_ascii_digit());
    (plain(whole) && plain(fraction)).then(|| text.parse().ok()).flatten()
}

fn numbers(text: &str, expected: usize) -> Option<Vec<f64>> {
    let values: Option<Vec<f64>> = text.split(' ').filter(|s| !s.is_empty()).map(number).collect();
    values.filter(|v| v.len() == expected)
}

fn array<T, const N: usize>(values: Vec<T>) -> Option<[T; N]> {
    values.try_into().ok()
}

fn point_block<T>(
    text: &str,
    name: &'static str,
    build: impl Fn(&[f64]) -> Option<T>,
    width: usize,
) -> Result<[[T; WINDOW]; POINTS], ParseError> {
    let lines = data_lines(text, name, 1, POINTS)?;
    let row = |(i, line): (usize, &&str)| {
        let bad = || ParseError::Line {
            block: name,
            line: i,
            expected: "pN, then five groups of numbers parted by |",
            got: (*line).to_owned(),
        };
        let rest = line.strip_prefix(&format!("p{i} ")).ok_or_else(bad)?;
        let groups: Option<Vec<T>> = rest.split('|').map(|g| build(&numbers(g, width)?)).collect();
        groups.and_then(array).ok_or_else(bad)
    };
    let rows = lines.iter().enumerate().map(row).collect::<Result<Vec<[T; WINDOW]>, _>>()?;
    array(rows).ok_or(ParseError::Lines { block: name, expected: POINTS, got: 0 })
}

/// Parses the depths of step 2.
pub(super) fn depths(text: &str) -> Result<[[f64; WINDOW]; POINTS], ParseError> {
    let name = "step2";
    let lines = data_lines(text, name, 1, POINTS)?;
    let row = |(i, line): (usize, &&str)| {
        line.strip_prefix(&format!("p{i} ")).and_then(|rest| numbers(rest, WINDOW)).and_then(array).ok_or_else(|| {
            ParseError::Line { block: name, line: i, expected: "pN, then five depths", got: (*line).to_owned() }
        })
    };
    let rows = lines.iter().enumerate().map(row).collect::<Result<Vec<[f64; WINDOW]>, _>>()?;
    array(rows).ok_or(ParseError::Lines { block: name, expected: POINTS, got: 0 })
}

fn pose_block<const N: usize>(
    text: &str,
    name: &'static str,
    prose: usize,
    first: usize,
) -> Result<[StatedPose; N], ParseError> {
    let lines = data_lines(text, name, prose, N)?;
    let row = |(i, line): (usize, &&str)| {
        let bad = || ParseError::Line {
            block: name,
            line: i,
            expected: "N R and nine numbers, t and three numbers",
            got: (*line).to_owned(),
        };
        let rest = line.strip_prefix(&format!("{} R ", i + first)).ok_or_else(bad)?;
        let (rotation, translation) = rest.split_once(" t ").ok_or_else(bad)?;
        let rotation = numbers(rotation, 9).ok_or_else(bad)?;
        let translation = numbers(translation, 3).ok_or_else(bad)?;
        Ok(StatedPose {
            rotation: Matrix3::from_row_slice(&rotation),
            translation: Vector3::from_row_slice(&translation),
        })
    };
    let rows = lines.iter().enumerate().map(row).collect::<Result<Vec<StatedPose>, _>>()?;
    array(rows).ok_or(ParseError::Lines { block: name, expected: N, got: 0 })
}
