//! Errors of the single steps of a chain: which of them the final poses owe their own error to.

use geometry::epipolar::{fundamental, rotation_homography, symmetric_distance, symmetric_transfer_distance};
use geometry::metrics::Statistic;
use geometry::{Anchor, Camera, Intrinsics, WINDOW, kabsch};
use model::answer::chain::Parsed;
use nalgebra::Point2;
use serde::{Deserialize, Serialize};

use training_data::WindowSample;
use training_data::chains::DepthMap;

/// Errors of one window's steps; empty where a step does not parse or the truth does not tell.
#[derive(Debug, Clone, Default)]
pub struct StepErrors {
    epipolar_px: Vec<f64>,
    depth_abs_rel: Vec<f64>,
    point_rel: Vec<f64>,
    own_rre_deg: Vec<f64>,
    printed_rre_deg: Vec<f64>,
}

/// The same over all windows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepSummary {
    /// Step 1: symmetric distance to the true epipolar lines, or to the true homography's point where the camera only
    /// turned, pixels of the model's grid.
    pub epipolar_px: Statistic,
    /// Step 2: `|d - d_gt| / d_gt` at the printed pixel.
    pub depth_abs_rel: Statistic,
    /// Step 3: distance from the true point at the printed pixel, over its distance from the camera.
    pub point_rel: Statistic,
    /// Step 4 from the model's own points by Procrustes: rotation error, degrees.
    pub own_rre_deg: Statistic,
    /// Step 4 as printed: rotation error, degrees.
    pub printed_rre_deg: Statistic,
}

impl StepErrors {
    /// Of a parsed answer; `grid` are the intrinsics of the pixel grid that the model saw.
    pub fn new(parsed: &Parsed, sample: &WindowSample, grid: &Intrinsics) -> Self {
        let mut errors = Self::default();
        let poses = sample.ground_truth.anchor_from_camera();
        if let Ok(tracks) = &parsed.pixels {
            for i in 1..WINDOW {
                let lines = fundamental(&poses[0], &poses[i], grid, grid);
                let turned = rotation_homography(&poses[0], &poses[i], grid, grid);
                errors.epipolar_px.extend(tracks.iter().filter_map(|track| match &lines {
                    Ok(f) => symmetric_distance(f, &track[0], &track[i]),
                    Err(_) => symmetric_transfer_distance(&turned, &track[0], &track[i]),
                }));
            }
            errors.depths(parsed, tracks, sample, grid);
        }
        let angle = |i: usize, estimate: &nalgebra::UnitQuaternion<f64>| {
            poses[i].inverse().rotation().angle_to(estimate).to_degrees()
        };
        if let Ok(points) = &parsed.points {
            for i in 1..WINDOW {
                let [from, to] = [0, i].map(|frame| points.iter().map(|p| p[frame]).collect::<Vec<_>>());
                // Points on a line have no rotation: as little an answer as none.
                errors.own_rre_deg.extend(kabsch(&from, &to).ok().map(|pose| angle(i, &pose.rotation)));
            }
        }
        if let Ok(printed) = &parsed.camera_from_anchor {
            let nearest = printed.iter().map(|stated| stated.nearest::<Camera, Anchor>());
            let found = (1..).zip(nearest).filter_map(|(i, pose)| Some(angle(i, &pose.ok()?.rotation())));
            errors.printed_rre_deg.extend(found);
        }
        errors
    }

    fn depths(&mut self, parsed: &Parsed, tracks: &[[Point2<f64>; WINDOW]], sample: &WindowSample, grid: &Intrinsics) {
        let Some(depth) = &sample.depth else { return };
        let (from, to) = (grid, &sample.intrinsics);
        let maps = DepthMap::window(depth, to.width, sample.metric);
        // Pixel centres keep their place in the image when it is resized.
        let scale = |v: f64, from: u32, to: u32| (v + 0.5) * f64::from(to) / f64::from(from) - 0.5;
        for (p, track) in tracks.iter().enumerate() {
            for (frame, pixel) in track.iter().enumerate() {
                let seen = Point2::new(scale(pixel.x, from.width, to.width), scale(pixel.y, from.height, to.height));
                let Some(truth) = maps[frame].at(&seen) else { continue };
                if let Ok(depths) = &parsed.depths {
                    self.depth_abs_rel.push((depths[p][frame] - truth).abs() / truth);
                }
                if let Ok(points) = &parsed.points {
                    let point = grid.back_project(pixel, truth);
                    self.point_rel.push((points[p][frame] - point).norm() / point.coords.norm());
                }
            }
        }
    }
}

/// Joins windows; nothing where no step of any of them has an error.
pub fn summary(windows: &[StepErrors], seed: u64) -> Option<StepSummary> {
    let join = |of: fn(&StepErrors) -> &Vec<f64>| {
        let all: Vec<f64> = windows.iter().flat_map(|w| of(w).iter().copied()).collect();
        Statistic::new(&all, seed)
    };
    let summary = StepSummary {
        epipolar_px: join(|w| &w.epipolar_px),
        depth_abs_rel: join(|w| &w.depth_abs_rel),
        point_rel: join(|w| &w.point_rel),
        own_rre_deg: join(|w| &w.own_rre_deg),
        printed_rre_deg: join(|w| &w.printed_rre_deg),
    };
    let any = [&summary.epipolar_px, &summary.own_rre_deg, &summary.printed_rre_deg].iter().any(|s| s.count > 0);
    any.then_some(summary)
}

#[cfg(test)]
mod tests {
    use super::*;
    use geometry::Transform;
    use rand::SeedableRng;
    use training_data::chains;
    use training_data::parse_source;

    #[test]
    fn a_true_chain_has_no_errors_but_rounding_and_a_false_one_has_those_that_were_put_in() {
        let source = parse_source("synth:seed=11,windows=6,size=160x96").unwrap();
        let (mut exact, mut wrong) = (Vec::new(), Vec::new());
        for index in 0..source.len() {
            let sample = source.sample(index).unwrap();
            let depth = sample.depth.as_ref().unwrap();
            let maps = DepthMap::window(depth, 160, sample.metric);
            let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(index);
            let Ok(mut chain) = chains::chain(&sample.ground_truth, &sample.intrinsics, &maps, &mut rng) else {
                continue;
            };
            let judge = |chain: &model::answer::chain::Chain| {
                let parsed = model::answer::chain::parse(&model::answer::chain::write(chain));
                StepErrors::new(&parsed, &sample, &sample.intrinsics)
            };
            exact.push(judge(&chain));
            for track in &mut chain.tracks {
                track.depths = track.depths.map(|d| d * 1.1);
            }
            let turn = nalgebra::Isometry3::rotation(nalgebra::Vector3::new(0.0, 0.1, 0.0));
            chain.camera_from_anchor =
                chain.camera_from_anchor.map(|t| Transform::from_isometry_unchecked(turn * t.isometry()));
            wrong.push(judge(&chain));
        }
        assert!(exact.len() >= 3);
        let median = |s: &Statistic| s.median.as_ref().unwrap().value;
        let (exact, wrong) = (summary(&exact, 0).unwrap(), summary(&wrong, 0).unwrap());
        assert!(median(&exact.epipolar_px) < 0.1, "{exact:?}");
        assert!(median(&exact.depth_abs_rel) < 0.02 && median(&exact.point_rel) < 0.02, "{exact:?}");
        assert!(median(&exact.own_rre_deg) < 1.0 && median(&exact.printed_rre_deg) < 0.05, "{exact:?}");
        assert!((median(&wrong.depth_abs_rel) - 0.1).abs() < 0.02, "{wrong:?}");
        assert!((median(&wrong.printed_rre_deg) - 0.1f64.to_degrees()).abs() < 0.05, "{wrong:?}");
        assert!((median(&wrong.epipolar_px) - median(&exact.epipolar_px)).abs() < 1e-9, "pixels are as they were");
    }

    #[test]
    fn no_step_no_summary() {
        assert!(summary(&[StepErrors::default()], 0).is_none());
    }
}
