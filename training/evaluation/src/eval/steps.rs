//! Errors of the single steps of a chain: which of them the final poses owe their own error to.

use geometry::epipolar::{fundamental, rotation_homography, symmetric_distance, symmetric_transfer_distance};
use geometry::metrics::{Interval, Statistic};
use geometry::{Anchor, Camera, Intrinsics, SceneScale, WINDOW, kabsch};
use model::answer::chain::Parsed;
use nalgebra::{Point2, UnitQuaternion, Vector3};
use serde::{Deserialize, Serialize};

use training_data::WindowSample;
use training_data::chains::DepthMap;

/// The relative error up to which a depth or a point counts as found.
const FOUND: f64 = 0.1;

/// Errors of one window's steps; empty where a step does not parse or the truth does not tell.
#[derive(Debug, Clone, Default)]
pub struct StepErrors {
    epipolar_px: Vec<f64>,
    depth_abs_rel: Vec<f64>,
    point_rel: Vec<f64>,
    own: PoseErrors,
    printed: PoseErrors,
    /// 1 for a printed pixel outside its picture, 0 for one inside.
    outside: Vec<f64>,
    /// 1 for a depth within [`FOUND`], 0 for another and for that of a pixel outside.
    depth_found: Vec<f64>,
    /// The same of points.
    point_found: Vec<f64>,
}

/// Errors of the relative poses of step 4.
#[derive(Debug, Clone, Default)]
struct PoseErrors {
    rre_deg: Vec<f64>,
    rte_abs: Vec<f64>,
    /// Of pairs that are not still.
    rte_rel: Vec<f64>,
}

/// The same over all windows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepSummary {
    /// Step 1: symmetric distance to the true epipolar lines, or to the true homography's point where the camera only
    /// turned, pixels of the model's grid.
    pub epipolar_px: Statistic,
    /// Step 1: printed pixels.
    pub points: usize,
    /// The share of them that are outside their picture, where nothing is known of depth.
    pub outside: Option<Interval>,
    /// Step 2: `|d - d_gt| / d_gt` at the printed pixel, where that is in the picture.
    pub depth_abs_rel: Statistic,
    /// Share of the depths within 10 %; those at pixels outside the picture are misses.
    pub depth_within_10: Option<Interval>,
    /// Step 3: distance from the true point at the printed pixel, over its distance from the camera.
    pub point_rel: Statistic,
    /// Share of the points within 10 %; those at pixels outside the picture are misses.
    pub point_within_10: Option<Interval>,
    /// Step 4 from the model's own points by Procrustes: rotation error, degrees.
    pub own_rre_deg: Statistic,
    /// The same: translation error, scene units.
    pub own_rte_abs: Statistic,
    /// The same over the true length, of pairs that are not still.
    pub own_rte_rel: Statistic,
    /// Step 4 as printed: rotation error, degrees.
    pub printed_rre_deg: Statistic,
    /// The same: translation error, scene units.
    pub printed_rte_abs: Statistic,
    /// The same over the true length, of pairs that are not still.
    pub printed_rte_rel: Statistic,
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
        let still = SceneScale { metric: sample.metric, median_depth: sample.median_depth }.still_threshold();
        let add = |to: &mut PoseErrors, i: usize, rotation: &UnitQuaternion<f64>, translation: &Vector3<f64>| {
            let truth = poses[i].inverse();
            let (off, length) = ((translation - truth.translation()).norm(), truth.translation().norm());
            to.rre_deg.push(truth.rotation().angle_to(rotation).to_degrees());
            to.rte_abs.push(off);
            to.rte_rel.extend((length >= still).then(|| off / length));
        };
        if let Ok(points) = &parsed.points {
            for i in 1..WINDOW {
                let [from, to] = [0, i].map(|frame| points.iter().map(|p| p[frame]).collect::<Vec<_>>());
                // Points on a line have no rotation: as little an answer as none.
                if let Ok(pose) = kabsch(&from, &to) {
                    add(&mut errors.own, i, &pose.rotation, &pose.translation.vector);
                }
            }
        }
        if let Ok(printed) = &parsed.camera_from_anchor {
            for (i, stated) in (1..).zip(printed) {
                if let Ok(pose) = stated.nearest::<Camera, Anchor>() {
                    add(&mut errors.printed, i, &pose.rotation(), &pose.translation());
                }
            }
        }
        errors
    }

    fn depths(&mut self, parsed: &Parsed, tracks: &[[Point2<f64>; WINDOW]], sample: &WindowSample, grid: &Intrinsics) {
        let (from, to) = (grid, &sample.intrinsics);
        let maps = sample.depth.as_ref().map(|depth| DepthMap::window(depth, to.width, sample.metric));
        // Pixel centres keep their place in the image when it is resized.
        let scale = |v: f64, from: u32, to: u32| (v + 0.5) * f64::from(to) / f64::from(from) - 0.5;
        for (p, track) in tracks.iter().enumerate() {
            for (frame, pixel) in track.iter().enumerate() {
                let seen = Point2::new(scale(pixel.x, from.width, to.width), scale(pixel.y, from.height, to.height));
                let is_within = |v: f64, size: u32| (-0.5..f64::from(size) - 0.5).contains(&v);
                let is_inside = is_within(seen.x, to.width) && is_within(seen.y, to.height);
                self.outside.push(share_of(!is_inside));
                let Some(maps) = &maps else { continue };
                let truth = maps[frame].at(&seen).filter(|_| is_inside);
                // A hole in the depth says nothing of the answer; a pixel outside does.
                if is_inside && truth.is_none() {
                    continue;
                }
                if let Ok(depths) = &parsed.depths {
                    let error = truth.map(|truth| (depths[p][frame] - truth).abs() / truth);
                    self.depth_abs_rel.extend(error);
                    self.depth_found.push(share_of(error.is_some_and(|error| error <= FOUND)));
                }
                if let Ok(points) = &parsed.points {
                    let point = truth.map(|truth| grid.back_project(pixel, truth));
                    let error = point.map(|point| (points[p][frame] - point).norm() / point.coords.norm());
                    self.point_rel.extend(error);
                    self.point_found.push(share_of(error.is_some_and(|error| error <= FOUND)));
                }
            }
        }
    }
}

/// What a share is the mean of.
fn share_of(hit: bool) -> f64 {
    f64::from(u8::from(hit))
}

/// Joins windows; nothing where no step of any of them has an error.
pub fn summary(windows: &[StepErrors], seed: u64) -> Option<StepSummary> {
    let join = |of: fn(&StepErrors) -> &Vec<f64>| {
        let all: Vec<f64> = windows.iter().flat_map(|w| of(w).iter().copied()).collect();
        Statistic::new(&all, seed)
    };
    let outside = join(|w| &w.outside);
    let summary = StepSummary {
        epipolar_px: join(|w| &w.epipolar_px),
        points: outside.count,
        outside: outside.mean,
        depth_abs_rel: join(|w| &w.depth_abs_rel),
        depth_within_10: join(|w| &w.depth_found).mean,
        point_rel: join(|w| &w.point_rel),
        point_within_10: join(|w| &w.point_found).mean,
        own_rre_deg: join(|w| &w.own.rre_deg),
        own_rte_abs: join(|w| &w.own.rte_abs),
        own_rte_rel: join(|w| &w.own.rte_rel),
        printed_rre_deg: join(|w| &w.printed.rre_deg),
        printed_rte_abs: join(|w| &w.printed.rte_abs),
        printed_rte_rel: join(|w| &w.printed.rte_rel),
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
    fn lengths_of_step_4_are_judged_and_points_outside_the_picture_are_misses() {
        let source = parse_source("synth:seed=11,windows=6,size=160x96").unwrap();
        let (mut exact, mut wrong, mut windows) = (Vec::new(), Vec::new(), 0);
        for index in 0..source.len() {
            let sample = source.sample(index).unwrap();
            let maps = DepthMap::window(sample.depth.as_ref().unwrap(), 160, sample.metric);
            let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(index);
            let Ok(mut chain) = chains::chain(&sample.ground_truth, &sample.intrinsics, &maps, &mut rng) else {
                continue;
            };
            windows += 1;
            let judge = |chain: &model::answer::chain::Chain| {
                let parsed = model::answer::chain::parse(&model::answer::chain::write(chain));
                StepErrors::new(&parsed, &sample, &sample.intrinsics)
            };
            exact.push(judge(&chain));
            // All but frame 0 of the first point are outside, one way or the other.
            let outside = [[-3.0, 5.0], [170.0, 5.0], [5.0, -3.0], [5.0, 100.0]];
            for (pixel, [x, y]) in chain.tracks[0].pixels[1..].iter_mut().zip(outside) {
                *pixel = Point2::new(x, y);
            }
            let shift = nalgebra::Isometry3::translation(0.0, 0.0, 0.5);
            chain.camera_from_anchor =
                chain.camera_from_anchor.map(|t| Transform::from_isometry_unchecked(shift * t.isometry()));
            wrong.push(judge(&chain));
        }
        assert!(windows >= 3);
        let (exact, wrong) = (summary(&exact, 0).unwrap(), summary(&wrong, 0).unwrap());
        let median = |s: &Statistic| s.median.as_ref().unwrap().value;
        assert!(median(&exact.printed_rte_abs) < 0.1 && median(&exact.own_rte_abs) < 0.1, "{exact:?}");
        assert!((median(&wrong.printed_rte_abs) - 0.5).abs() < 0.1, "{wrong:?}");
        assert!((median(&wrong.own_rte_abs) - median(&exact.own_rte_abs)).abs() < 1e-9, "its points are as they were");
        assert!(median(&wrong.printed_rte_rel) > median(&exact.printed_rte_rel), "{wrong:?}");
        let share = |interval: &Option<Interval>| interval.as_ref().unwrap().value;
        assert_eq!((exact.points, wrong.points), (25 * windows, 25 * windows));
        assert!(share(&exact.outside) < 1e-12 && share(&exact.depth_within_10) > 0.95, "{exact:?}");
        assert!((share(&wrong.outside) - 4.0 / 25.0).abs() < 1e-12, "{wrong:?}");
        for (right, wrong) in
            [(&exact.depth_within_10, &wrong.depth_within_10), (&exact.point_within_10, &wrong.point_within_10)]
        {
            assert!((share(right) - share(wrong) - 4.0 / 25.0).abs() < 0.05, "{right:?} {wrong:?}");
        }
        // Errors are of the points inside, and those are as they were.
        assert!(
            median(&wrong.depth_abs_rel) < 0.02 && wrong.depth_abs_rel.count < exact.depth_abs_rel.count,
            "{wrong:?}"
        );
    }

    #[test]
    fn no_step_no_summary() {
        assert!(summary(&[StepErrors::default()], 0).is_none());
    }
}
