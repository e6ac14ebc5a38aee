//! The picture of a film: the path that was found on the true one, from above.

use std::path::Path;

use anyhow::{Context, Result};
use geometry::{Camera, Odom, Transform, World, umeyama};
use image::RgbImage;
use nalgebra::{Point3, Vector3};
use plotters::prelude::{RGBColor, SeriesLabelPosition};

use crate::curves::{Area, COLOURS, Frame, Line, chart, picture};

const SIZE: (u32, u32) = (1000, 1000);
const FOUND: RGBColor = COLOURS[0];
const TRUE: RGBColor = COLOURS[1];

/// Draws both paths to a PNG file; `found` are poses of the frames of `truth` with these numbers.
pub(super) fn path(
    file: &Path,
    title: &str,
    unit: &str,
    truth: &[Transform<World, Camera>],
    found: &[(usize, Transform<Odom, Camera>)],
) -> Result<()> {
    draw(title, unit, truth, found)?.save(file).with_context(|| file.display().to_string())
}

fn draw(
    title: &str,
    unit: &str,
    truth: &[Transform<World, Camera>],
    found: &[(usize, Transform<Odom, Camera>)],
) -> Result<RgbImage> {
    let (right, ahead) = axes(truth);
    let flat = |point: &Point3<f64>| (right.dot(&point.coords), ahead.dot(&point.coords));
    let lines = [
        (TRUE, "truth".to_owned(), truth.iter().map(|pose| flat(&pose.origin())).collect::<Vec<_>>()),
        (FOUND, "found".to_owned(), aligned(truth, found).iter().map(flat).collect()),
    ];
    let all = || lines.iter().flat_map(|(_, _, points)| points);
    let (left, width) = span(all().map(|point| point.0));
    let (below, height) = span(all().map(|point| point.1));
    // A circle stays one.
    let side = 1.1 * width.max(height).max(1e-3);
    let bounds = |low: f64, length: f64| low + 0.5 * (length - side)..low + 0.5 * (length + side);
    let frame = Frame {
        title,
        x: &format!("to the right of the first frame, {unit}"),
        y: &format!("ahead of the first frame, {unit}"),
        bounds: (bounds(left, width), bounds(below, height)),
        legend: SeriesLabelPosition::UpperRight,
    };
    let lines: Vec<Line> =
        lines.into_iter().map(|(colour, name, points)| Line { name, points, colour, dot: 0 }).collect();
    picture(SIZE, |area: &Area<'_>| chart(area, frame, &lines))
}

/// Centres in the true world: by Sim(3), or where that is not determined with the first frame on its own.
fn aligned(truth: &[Transform<World, Camera>], found: &[(usize, Transform<Odom, Camera>)]) -> Vec<Point3<f64>> {
    let own: Vec<Point3<f64>> = found.iter().map(|(_, pose)| pose.origin()).collect();
    let to: Vec<Point3<f64>> = found.iter().map(|(frame, _)| truth[*frame].origin()).collect();
    if let Ok(similarity) = umeyama(&own, &to) {
        return own.iter().map(|point| similarity.transform_point(point)).collect();
    }
    let Some((frame, first)) = found.first() else { return own };
    let world_from_odom = truth[*frame] * first.inverse();
    own.iter().map(|point| world_from_odom.transform_point(point)).collect()
}

/// Directions of the page, to the right and ahead: level, where level is across what is up in the pictures on average.
fn axes(truth: &[Transform<World, Camera>]) -> (Vector3<f64>, Vector3<f64>) {
    let down: Vector3<f64> = truth.iter().map(|pose| pose.transform_vector(&Vector3::y())).sum();
    let down = down.try_normalize(1e-6).unwrap_or_else(Vector3::y);
    let first = truth.first().copied().unwrap_or_default();
    let level = |direction: Vector3<f64>| (direction - down * down.dot(&direction)).try_normalize(1e-3);
    let own = level(first.transform_vector(&Vector3::z()));
    let ahead = own.or_else(|| level(first.transform_vector(&-Vector3::y()))).or_else(|| level(Vector3::x()));
    let ahead = ahead.unwrap_or_else(Vector3::z);
    // y (down) x z (ahead) = x (right).
    (down.cross(&ahead), ahead)
}

fn span(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    if low.is_finite() && high.is_finite() { (low, high - low) } else { (0.0, 0.0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nalgebra::Isometry3;

    /// A camera that looks along world x, z up, and walks straight on, then to its left.
    fn walk() -> Vec<Transform<World, Camera>> {
        let rotation = nalgebra::Rotation3::from_matrix_unchecked(nalgebra::Matrix3::from_columns(&[
            -Vector3::y(),
            -Vector3::z(),
            Vector3::x(),
        ]));
        let place = |k: usize| if k < 10 { (k as f64, 0.0) } else { (9.0, k as f64 - 9.0) };
        (0..16)
            .map(|k| {
                let (x, y) = place(k);
                Transform::from_isometry_unchecked(Isometry3::from_parts(
                    Vector3::new(x, y, 1.0).into(),
                    rotation.into(),
                ))
            })
            .collect()
    }

    #[test]
    fn ahead_is_up_on_the_page_and_right_is_right() {
        let (right, ahead) = axes(&walk());
        assert!((ahead - Vector3::x()).norm() < 1e-9 && (right + Vector3::y()).norm() < 1e-9, "{right} {ahead}");
    }

    #[test]
    fn both_paths_are_seen_and_a_unit_of_its_own_does_not_matter() {
        let truth = walk();
        let found: Vec<(usize, Transform<Odom, Camera>)> = truth
            .iter()
            .enumerate()
            .map(|(k, pose)| {
                let off = if k % 2 == 0 { 0.4 } else { -0.4 };
                let mut isometry = *pose.isometry();
                isometry.translation.vector += Vector3::new(off, off, 0.0);
                isometry.translation.vector *= 7.0;
                (k, Transform::from_isometry_unchecked(isometry))
            })
            .collect();
        let image = draw("walk", "m", &truth, &found).unwrap();
        let seen = |colour: RGBColor| image.pixels().filter(|p| p.0 == [colour.0, colour.1, colour.2]).count();
        assert!(seen(TRUE) > 500 && seen(FOUND) > 500, "{} {}", seen(TRUE), seen(FOUND));
        for (got, truth) in aligned(&truth, &found).iter().zip(&truth) {
            assert!((got - truth.origin()).norm() < 1.0, "{got}");
        }
        // One pose, and none, are drawn too.
        assert!(draw("one", "m", &truth, &found[..1]).is_ok() && draw("none", "m", &[], &[]).is_ok());
    }
}
