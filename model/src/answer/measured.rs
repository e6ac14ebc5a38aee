//! What a program measured of a window, for it to write in place of the model ([`super::fill::Fill::Measured`]).

use geometry::two_view::triangulate;
use geometry::{Intrinsics, WINDOW, WindowTrajectory};
use nalgebra::{Isometry3, Point2, Point3, Vector3};

use super::chain::POINTS;

/// Least angle, radians, between two of a point's rays: below it the depth is not known.
const LEAST_ANGLE: f64 = 0.0087;
/// Most median distance of the logarithms of said over measured depths from their own median.
const MOST_SPREAD: f64 = 0.5;
/// Least motion, in the unit of the answer, whose direction six decimals hold to a tenth of a degree.
const LEAST_MOTION: f64 = 1e-3;
/// Most distance between where a point is and where its depth has it, of the focal length.
const MOST_MISS: f64 = 0.005;

/// Points that were followed through a window, and its poses.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// Where each point is in each frame, on the plane at depth 1 (`x / z`, `y / z` in camera axes).
    pub places: [[Point2<f64>; WINDOW]; POINTS],
    /// Its depth in each frame, unit of `trajectory`.
    pub depths: [[f64; WINDOW]; POINTS],
    /// The poses, up to scale.
    pub trajectory: WindowTrajectory,
}

/// A point and its depths.
#[derive(Clone, Copy)]
struct Candidate {
    places: [Point2<f64>; WINDOW],
    depths: [f64; WINDOW],
    /// The largest angle between its ray in frame 0 and another, radians.
    angle: f64,
}

impl Measured {
    /// Five of the points, far from each other on the picture and in depth; `points` are places as in [`Self::places`] of what all
    /// five frames show. `None` where fewer than five have a depth, as where the camera only turns.
    pub fn choose(points: &[[Point2<f64>; WINDOW]], trajectory: &WindowTrajectory) -> Option<Self> {
        let camera_from_anchor = trajectory.anchor_from_camera().map(|pose| *pose.inverse().isometry());
        let mut candidates: Vec<Candidate> =
            points.iter().filter_map(|places| Candidate::new(places, &camera_from_anchor)).collect();
        candidates.sort_by(|a, b| b.angle.total_cmp(&a.angle));
        let nearness = |c: &Candidate| candidates[0].depths[0] / c.depths[0];
        let mut chosen: Vec<Candidate> = vec![*candidates.first()?];
        while chosen.len() < POINTS {
            let apart = |a: &Candidate, b: &Candidate| {
                (a.places[0] - b.places[0]).norm_squared() + (nearness(a) - nearness(b)).powi(2)
            };
            let gap = |c: &Candidate| chosen.iter().map(|known| apart(known, c)).fold(f64::INFINITY, f64::min);
            let next = candidates.iter().max_by(|a, b| gap(a).total_cmp(&gap(b)))?;
            if gap(next) <= 0.0 {
                return None;
            }
            chosen.push(*next);
        }
        let chosen: [Candidate; POINTS] = chosen.try_into().ok()?;
        Some(Self { places: chosen.map(|c| c.places), depths: chosen.map(|c| c.depths), trajectory: *trajectory })
    }

    /// Pixels of the points on the grid of a camera.
    pub fn pixels(&self, camera: &Intrinsics) -> [[Point2<f64>; WINDOW]; POINTS] {
        let pixel = |place: Point2<f64>| Point2::new(camera.fx * place.x + camera.cx, camera.fy * place.y + camera.cy);
        self.places.map(|of_point| of_point.map(pixel))
    }

    /// The poses in the unit that `depths` of the same points are said in: by the median of what is said over what is measured.
    /// `None` where half of them are no depths or contradict the others, and where six decimals would not hold the motion.
    pub fn scaled(&self, depths: &[[f64; WINDOW]; POINTS]) -> Option<WindowTrajectory> {
        let pairs = depths.iter().flatten().zip(self.depths.iter().flatten());
        let mut logs: Vec<f64> =
            pairs.map(|(said, measured)| (said / measured).ln()).filter(|l| l.is_finite()).collect();
        if 2 * logs.len() <= POINTS * WINDOW {
            return None;
        }
        let median = |values: &mut Vec<f64>| {
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        let log = median(&mut logs);
        let spread = median(&mut logs.iter().map(|l| (l - log).abs()).collect());
        let scaled = self.trajectory.scaled(log.exp());
        let longest = scaled.anchor_from_camera().map(|pose| pose.translation().norm()).into_iter().fold(0.0, f64::max);
        (spread < MOST_SPREAD && longest > LEAST_MOTION).then_some(scaled)
    }
}

impl Candidate {
    fn new(places: &[Point2<f64>; WINDOW], camera_from_anchor: &[Isometry3<f64>; WINDOW]) -> Option<Self> {
        let ray = |i: usize| camera_from_anchor[i].rotation.inverse() * Vector3::new(places[i].x, places[i].y, 1.0);
        let angle = (1..WINDOW).map(|i| ray(0).angle(&ray(i))).fold(0.0, f64::max);
        let point = triangulate(camera_from_anchor, places)?;
        let point = Point3::from(point.xyz() / point.w);
        let in_camera = camera_from_anchor.map(|pose| pose * point);
        let is_seen = |(seen, place): (&Point3<f64>, &Point2<f64>)| {
            seen.z > 0.0 && (seen.xy() / seen.z - place.coords).coords.norm() < MOST_MISS
        };
        let fits = angle > LEAST_ANGLE && in_camera.iter().zip(places).all(is_seen);
        fits.then(|| Self { places: *places, depths: in_camera.map(|p| p.z), angle })
    }
}

#[cfg(test)]
mod tests {
    use geometry::Transform;
    use nalgebra::{Translation3, UnitQuaternion};

    use super::*;

    /// A camera that goes to the right and turns a little, and points before it.
    fn window(step: f64) -> (WindowTrajectory, Vec<[Point2<f64>; WINDOW]>) {
        let mut trajectory = WindowTrajectory::identity();
        for (i, pose) in trajectory.later_mut().iter_mut().enumerate() {
            let k = (i + 1) as f64;
            let turn = UnitQuaternion::from_scaled_axis(Vector3::new(0.0, 0.01 * k, 0.0));
            let isometry = Isometry3::from_parts(Translation3::new(step * k, 0.0, 0.0), turn);
            *pose = Transform::from_isometry_unchecked(isometry);
        }
        let points = (0..40).map(|n| {
            let (x, y) = (f64::from(n % 8) / 8.0 - 0.45, f64::from(n / 8) / 5.0 - 0.4);
            let point = Point3::new(3.0 * x, 3.0 * y, 2.0 + f64::from(n % 3));
            trajectory.anchor_from_camera().map(|pose| {
                let seen = pose.inverse().isometry() * point;
                Point2::from(seen.xy().coords / seen.z)
            })
        });
        let points = points.collect();
        (trajectory, points)
    }

    #[test]
    fn five_points_far_from_each_other_have_their_depths() {
        let (trajectory, mut points) = window(0.05);
        // One that was followed to another place.
        points[0][3].x += 0.1;
        let measured = Measured::choose(&points, &trajectory).unwrap();
        let camera = Intrinsics::new(100.0, 110.0, 79.5, 47.5, 160, 96).unwrap();
        for (places, depths) in measured.places.iter().zip(&measured.depths) {
            assert!(points[1..].contains(places));
            assert!((1.999..4.001).contains(&depths[0]), "{depths:?}");
        }
        let pixels = measured.pixels(&camera);
        assert!((pixels[2][1].x - (100.0 * measured.places[2][1].x + 79.5)).abs() < 1e-9);
        for (a, b) in (0..POINTS).flat_map(|a| (0..a).map(move |b| (a, b))) {
            assert!((measured.places[a][0] - measured.places[b][0]).norm() > 0.2, "{a} and {b}");
        }
        // Depths that are said in other units, one of them by far, say what the unit is.
        let mut said = measured.depths.map(|of_point| of_point.map(|d| 2.5 * d));
        (said[0][0], said[1][1]) = (900.0, 0.0);
        let scaled = measured.scaled(&said).unwrap();
        let steps = scaled.anchor_from_camera()[4].translation().norm() / (0.05 * 4.0);
        assert!((steps - 2.5).abs() < 1e-9, "{steps}");
        assert_eq!(measured.scaled(&[[0.0; WINDOW]; POINTS]), None);
        // A tenth of a millimetre a unit; and depths of which each says another unit.
        assert_eq!(measured.scaled(&measured.depths.map(|of_point| of_point.map(|d| 1e-4 * d))), None);
        let mut unlike = measured.depths;
        unlike
            .iter_mut()
            .enumerate()
            .for_each(|(k, of_point)| of_point[..].iter_mut().for_each(|d| *d *= 4f64.powi(k as i32)));
        assert_eq!(measured.scaled(&unlike), None);
    }

    #[test]
    fn where_the_camera_only_turns_no_point_has_a_depth() {
        let (trajectory, points) = window(0.0);
        assert_eq!(Measured::choose(&points, &trajectory), None);
        assert_eq!(Measured::choose(&points[..4], &window(0.05).0), None);
        assert_eq!(Measured::choose(&[], &trajectory), None);
    }
}
