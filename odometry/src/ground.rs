//! The ground under a camera: the plane of points that lies lowest.

use nalgebra::{Point3, Unit, Vector3};

/// Points on the plane that it takes, and their share of those below the camera's horizon.
const LEAST_POINTS: usize = 12;
const LEAST_SHARE: f64 = 0.25;
/// Farthest from the plane, of its distance.
const TOLERANCE: f64 = 0.03;
/// Share of the points below the horizon that may lie under it: a table is no ground.
const MOST_UNDER: f64 = 0.1;
/// Largest angle between its normal and what is taken for down, radians.
const MOST_TILT: f64 = 0.3;
/// Points are asked that lie so far below the camera, of their distance: what is seen at a flat angle tells nothing.
const LEAST_SLOPE: f64 = 0.08;
/// Planes that are tried, and the seed of their choice.
const TRIALS: usize = 400;
const SEED: u64 = 0x9E37_79B9_7F4A_7C15;
/// The least standard deviation of the logarithm of a height: what is flat at this scale is not known better.
const LEAST_SIGMA: f64 = 0.01;

/// The ground as a camera sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ground {
    /// Of the camera over it, in the unit of the points.
    pub height: f64,
    /// Standard deviation of its logarithm.
    pub sigma: f64,
    /// Its normal in the camera's frame, downwards.
    pub down: Unit<Vector3<f64>>,
    /// Points that lie on it.
    pub points: usize,
}

/// The ground among points in the camera's frame, of which `down` points to it within 17 degrees; `None` where too few of the
/// points lie on one plane, or others under it. The same points give the same plane.
pub fn find(points: &[Point3<f64>], down: &Unit<Vector3<f64>>) -> Option<Ground> {
    let below: Vec<Vector3<f64>> = points
        .iter()
        .map(|point| point.coords)
        .filter(|point| point.iter().all(|v| v.is_finite()) && point.dot(down) > LEAST_SLOPE * point.norm())
        .collect();
    if below.len() < LEAST_POINTS {
        return None;
    }
    let on = |normal: Vector3<f64>, height: f64| {
        below.iter().filter(move |point| (point.dot(&normal) - height).abs() < TOLERANCE * height)
    };
    let mut random = SEED;
    let mut pick = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        below[(random % below.len() as u64) as usize]
    };
    let mut best: Option<(usize, Vector3<f64>, f64)> = None;
    for _ in 0..TRIALS {
        let (a, b, c) = (pick(), pick(), pick());
        let Some((normal, height)) = plane(&[a, b, c], down) else { continue };
        let count = on(normal, height).count();
        let under = below.iter().filter(|point| point.dot(&normal) > height * (1.0 + TOLERANCE)).count();
        let is_ground = under as f64 <= MOST_UNDER * below.len() as f64;
        if is_ground && best.as_ref().is_none_or(|(most, ..)| count > *most) {
            best = Some((count, normal, height));
        }
    }
    let (_, normal, height) = best?;
    let inliers: Vec<Vector3<f64>> = on(normal, height).copied().collect();
    let (normal, height) = fitted(&inliers, down).unwrap_or((normal, height));
    let inliers: Vec<Vector3<f64>> = on(normal, height).copied().collect();
    let count = inliers.len();
    if count < LEAST_POINTS || (count as f64) < LEAST_SHARE * below.len() as f64 {
        return None;
    }
    let squares: f64 = inliers.iter().map(|point| (point.dot(&normal) / height - 1.0).powi(2)).sum();
    // Errors of neighbours are alike, since the same poses made them: a tenth of the points counts.
    let sigma = (squares / (count - 3) as f64 / (0.1 * count as f64)).sqrt().max(LEAST_SIGMA);
    Some(Ground { height, sigma, down: Unit::new_normalize(normal), points: count })
}

/// Normal, downwards, and distance of the plane through three points that is a ground.
fn plane([a, b, c]: &[Vector3<f64>; 3], down: &Unit<Vector3<f64>>) -> Option<(Vector3<f64>, f64)> {
    oriented((b - a).cross(&(c - a)), a, down)
}

/// The plane that fits best: `n . p / h = 1` by least squares.
fn fitted(points: &[Vector3<f64>], down: &Unit<Vector3<f64>>) -> Option<(Vector3<f64>, f64)> {
    let mut normal_matrix = nalgebra::Matrix3::zeros();
    let mut sum = Vector3::zeros();
    for point in points {
        // Of relative distance, so that the far ones do not outweigh the near.
        let weight = point.norm_squared().recip();
        normal_matrix += point * point.transpose() * weight;
        sum += point * weight;
    }
    let scaled = normal_matrix.try_inverse()? * sum;
    let norm = scaled.norm();
    (norm > 0.0).then(|| oriented(scaled, &(scaled / (norm * norm)), down)).flatten()
}

fn oriented(normal: Vector3<f64>, on_it: &Vector3<f64>, down: &Unit<Vector3<f64>>) -> Option<(Vector3<f64>, f64)> {
    let normal = normal.try_normalize(1e-12)?;
    let normal = if normal.dot(down) < 0.0 { -normal } else { normal };
    let height = normal.dot(on_it);
    (normal.dot(down) > MOST_TILT.cos() && height > 0.0).then_some((normal, height))
}
