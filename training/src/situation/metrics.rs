//! How well frames are localised, and the surfaces of vision tokens, beside predictors that have seen no image.

use geometry::metrics::rotation_error_deg;
use model::pose_head::{ASKED, FramePose};
use nalgebra::Vector3;

use super::loss::wrap;

/// Names of the figures, of the heads and of the mean pose. The shares are those of SQA3D's localisation; lengths are
/// scene units, metres only where the source is metric.
const NAMES: [[&str; 2]; 8] = [
    ["within_0.5", "mean_pose_within_0.5"],
    ["within_1.0", "mean_pose_within_1.0"],
    ["within_15_deg", "mean_pose_within_15_deg"],
    ["within_30_deg", "mean_pose_within_30_deg"],
    ["position_median", "mean_pose_position_median"],
    ["yaw_median_deg", "mean_pose_yaw_median_deg"],
    ["translation_median", "mean_pose_translation_median"],
    ["rotation_median_deg", "mean_pose_rotation_median_deg"],
];
/// Of these, those that need no full pose.
const PLANAR: usize = 6;

/// What the heads say of a frame.
#[derive(Debug, Clone, Copy)]
pub struct Estimate {
    /// The pose; y, pitch and roll are 0 where they are not asked for.
    pub pose: FramePose,
    /// Standard deviation of the place on the ground plane, both axes together; scene units.
    pub sigma: f64,
}

/// The mean of poses: for each frame of a window its own, since later frames are further away.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MeanPose(pub [FramePose; ASKED]);

impl MeanPose {
    /// Mean positions and circular mean angles of at least one window.
    pub fn of(windows: &[[FramePose; ASKED]]) -> Self {
        let circular = |frame: usize, angle: fn(&FramePose) -> f64| {
            let sum = |of: fn(f64) -> f64| windows.iter().map(|poses| of(angle(&poses[frame]))).sum::<f64>();
            sum(f64::sin).atan2(sum(f64::cos))
        };
        Self(std::array::from_fn(|frame| FramePose {
            position: windows.iter().map(|poses| poses[frame].position).sum::<Vector3<f64>>() / windows.len() as f64,
            yaw: circular(frame, |pose| pose.yaw),
            pitch: circular(frame, |pose| pose.pitch),
            roll: circular(frame, |pose| pose.roll),
        }))
    }
}

/// Shares and medians of the heads and of the mean pose, and how well sigma ranks the errors. `truth` and `estimates`
/// are frames 1 to 4 of each window in turn.
pub fn figures(
    truth: &[FramePose],
    estimates: &[Estimate],
    mean: &MeanPose,
    full_pose: bool,
) -> Vec<(&'static str, f64)> {
    let said: Vec<FramePose> = estimates.iter().map(|estimate| estimate.pose).collect();
    let guessed: Vec<FramePose> = (0..truth.len()).map(|i| mean.0[i % ASKED]).collect();
    let shown = if full_pose { NAMES.len() } else { PLANAR };
    let columns = [localisation(truth, &said), localisation(truth, &guessed)];
    let mut figures: Vec<_> =
        (0..2).flat_map(|who| (0..shown).map(move |i| (NAMES[i][who], columns[who][i]))).collect();
    let errors: Vec<f64> = truth.iter().zip(&said).map(|(a, b)| planar_error(a, b)).collect();
    let sigmas: Vec<f64> = estimates.iter().map(|estimate| estimate.sigma).collect();
    figures.extend(spearman(&sigmas, &errors).map(|value| ("sigma_spearman", value)));
    figures
}

/// Where the surface of a vision token is on the ground plane, (x, z), scene units.
#[derive(Debug, Clone, Copy)]
pub struct TokenPlace {
    /// By the depth that is known.
    pub truth: [f64; 2],
    /// By the head.
    pub said: [f64; 2],
    /// Standard deviation of that, both axes together.
    pub sigma: f64,
    /// The mean place of this token in windows that were trained on.
    pub mean: [f64; 2],
    /// On the token's ray from the anchor, at the median depth of those windows: what the camera alone tells.
    pub ray: [f64; 2],
}

/// Names of the layout's figures, of the head, of the mean and of the ray.
const LAYOUT_NAMES: [[&str; 3]; 3] = [
    ["layout_within_0.5", "mean_layout_within_0.5", "ray_layout_within_0.5"],
    ["layout_within_1.0", "mean_layout_within_1.0", "ray_layout_within_1.0"],
    ["layout_median", "mean_layout_median", "ray_layout_median"],
];

/// Shares and medians of the distances on the ground plane, of the head and of both guesses, and how well sigma ranks those of the
/// head; nothing of no tokens.
pub fn layout_figures(places: &[TokenPlace]) -> Vec<(&'static str, f64)> {
    if places.is_empty() {
        return Vec::new();
    }
    let errors = |of: fn(&TokenPlace) -> [f64; 2]| -> Vec<f64> {
        let error = |place: &TokenPlace| (of(place)[0] - place.truth[0]).hypot(of(place)[1] - place.truth[1]);
        places.iter().map(error).collect()
    };
    let columns = [errors(|place| place.said), errors(|place| place.mean), errors(|place| place.ray)];
    let sigmas: Vec<f64> = places.iter().map(|place| place.sigma).collect();
    let ranked = spearman(&sigmas, &columns[0]);
    let mut figures = Vec::new();
    for (who, errors) in columns.into_iter().enumerate() {
        let values = [within(&errors, 0.5), within(&errors, 1.0), median(errors)];
        figures.extend(LAYOUT_NAMES.iter().zip(values).map(|(names, value)| (names[who], value)));
    }
    figures.extend(ranked.map(|value| ("layout_sigma_spearman", value)));
    figures
}

/// Share of errors up to a limit.
fn within(errors: &[f64], limit: f64) -> f64 {
    errors.iter().filter(|error| **error <= limit).count() as f64 / errors.len().max(1) as f64
}

/// Distance on the ground plane, scene units.
fn planar_error(truth: &FramePose, estimate: &FramePose) -> f64 {
    (truth.position - estimate.position).xz().norm()
}

/// In the order of [`NAMES`].
fn localisation(truth: &[FramePose], estimates: &[FramePose]) -> [f64; NAMES.len()] {
    let of = |error: fn(&FramePose, &FramePose) -> f64| -> Vec<f64> {
        truth.iter().zip(estimates).map(|(truth, estimate)| error(truth, estimate)).collect()
    };
    let position = of(planar_error);
    let yaw = of(|a, b| wrap(a.yaw - b.yaw).abs().to_degrees());
    let translation = of(|a, b| (a.position - b.position).norm());
    let rotation =
        of(|a, b| rotation_error_deg(&a.anchor_from_camera().rotation(), &b.anchor_from_camera().rotation()));
    [
        within(&position, 0.5),
        within(&position, 1.0),
        within(&yaw, 15.0),
        within(&yaw, 30.0),
        median(position),
        median(yaw),
        median(translation),
        median(rotation),
    ]
}

/// The mean of the two middle values of an even number; NaN of none.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        n if n.is_multiple_of(2) => 0.5 * (values[middle - 1] + values[middle]),
        _ => values[middle],
    }
}

/// Spearman's rank correlation; ties share the mean of their ranks. Nothing where either is constant.
fn spearman(a: &[f64], b: &[f64]) -> Option<f64> {
    let (a, b) = (centred_ranks(a), centred_ranks(b));
    let product = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    let norm = (product(&a, &a) * product(&b, &b)).sqrt();
    (norm > 0.0).then(|| product(&a, &b) / norm)
}

/// Ranks less their mean.
fn centred_ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&i, &j| values[i].total_cmp(&values[j]));
    let mut ranks = vec![0.0; values.len()];
    let (mut first, middle) = (0, (values.len() as f64 - 1.0) / 2.0);
    for tied in order.chunk_by(|&i, &j| values[i].total_cmp(&values[j]).is_eq()) {
        let rank = first as f64 + (tied.len() as f64 - 1.0) / 2.0;
        tied.iter().for_each(|&i| ranks[i] = rank - middle);
        first += tied.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pose(x: f64, y: f64, z: f64, yaw_deg: f64) -> FramePose {
        FramePose { position: Vector3::new(x, y, z), yaw: yaw_deg.to_radians(), pitch: 0.0, roll: 0.0 }
    }

    fn near(got: f64, expected: f64) {
        assert!((got - expected).abs() < 1e-9, "{got}, expected {expected}");
    }

    #[test]
    fn ranks_are_correlated_with_ties_and_without() {
        near(spearman(&[1.0, 2.0, 3.0], &[10.0, 200.0, 3000.0]).unwrap(), 1.0);
        near(spearman(&[1.0, 2.0, 3.0], &[3.0, 2.0, 1.0]).unwrap(), -1.0);
        // As scipy.stats.spearmanr: 4.5 / sqrt(4.5 * 5).
        near(spearman(&[1.0, 2.0, 2.0, 3.0], &[1.0, 2.0, 3.0, 4.0]).unwrap(), (0.9f64).sqrt());
        assert!(spearman(&[1.0, 1.0], &[1.0, 2.0]).is_none() && spearman(&[], &[]).is_none());
    }

    #[test]
    fn the_mean_pose_is_of_each_frame_and_goes_round_the_circle() {
        let window = |x: f64, yaw_deg: f64| std::array::from_fn(|i| pose(x * (i + 1) as f64, 0.0, 1.0, yaw_deg));
        let mean = MeanPose::of(&[window(1.0, 170.0), window(3.0, -150.0)]).0;
        for (i, mean) in mean.iter().enumerate() {
            assert!((mean.position - Vector3::new(2.0 * (i + 1) as f64, 0.0, 1.0)).norm() < 1e-12);
            near(wrap(mean.yaw - (-170f64).to_radians()), 0.0);
        }
    }

    #[test]
    fn the_layout_is_judged_beside_the_mean_and_the_ray() {
        assert!(layout_figures(&[]).is_empty());
        // Off by 0.3, 0.75 and 3; the guesses by 1 and by 0.5 on each axis.
        let place = |x: f64, error: f64, sigma: f64| TokenPlace {
            truth: [x, 4.0],
            said: [x + 0.6 * error, 4.0 - 0.8 * error],
            sigma,
            mean: [x, 5.0],
            ray: [x - 0.5, 4.5],
        };
        let all = layout_figures(&[place(0.0, 0.3, 0.1), place(-2.0, 3.0, 0.9), place(1.0, 0.75, 0.4)]);
        let figure = |name: &str| all.iter().find(|(n, _)| *n == name).unwrap().1;
        for (name, expected) in [
            ("layout_median", 0.75),
            ("layout_within_0.5", 1.0 / 3.0),
            ("layout_within_1.0", 2.0 / 3.0),
            ("layout_sigma_spearman", 1.0),
            ("mean_layout_median", 1.0),
            ("mean_layout_within_0.5", 0.0),
            ("mean_layout_within_1.0", 1.0),
            ("ray_layout_median", 0.5f64.sqrt()),
            ("ray_layout_within_1.0", 1.0),
        ] {
            near(figure(name), expected);
        }
        assert_eq!(all.len(), 3 * 3 + 1);
    }

    #[test]
    fn figures_are_of_the_ground_plane_and_of_the_whole_pose() {
        // Off by 0.3 and 0.4 on the plane, 1.2 in height; by 20 degrees across the wrap.
        let truth = vec![pose(1.0, 2.0, 3.0, 170.0); ASKED];
        let mut estimates = vec![Estimate { pose: pose(1.3, 0.8, 3.4, -170.0), sigma: 0.1 }; ASKED];
        // One is right but for its position, and knows that it is wrong.
        estimates[3] = Estimate { pose: pose(1.0, 2.0, 5.0, 170.0), sigma: 0.9 };
        let mean = MeanPose([pose(1.0, 2.0, 3.0, 150.0); ASKED]);
        let all = figures(&truth, &estimates, &mean, true);
        let figure = |name: &str| all.iter().find(|(n, _)| *n == name).unwrap().1;
        // 0.5 to the last bit is not asked for.
        near(figure("position_median"), 0.5);
        near(figure("within_1.0"), 0.75);
        near(figure("within_15_deg"), 0.25);
        near(figure("within_30_deg"), 1.0);
        near(figure("yaw_median_deg"), 20.0);
        near(figure("translation_median"), 1.3);
        near(figure("rotation_median_deg"), 20.0);
        near(figure("sigma_spearman"), 1.0);
        near(figure("mean_pose_within_0.5"), 1.0);
        near(figure("mean_pose_within_15_deg"), 0.0);
        near(figure("mean_pose_yaw_median_deg"), 20.0);
        let planar = figures(&truth, &estimates, &mean, false);
        assert_eq!(planar.len(), 2 * PLANAR + 1);
        assert!(planar.iter().all(|(name, _)| !name.contains("translation") && !name.contains("rotation")));
    }
}
