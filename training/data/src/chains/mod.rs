//! Five-step chains from windows with known poses and depth. Every number is computed here; the prose is not.

pub mod depth;
pub mod manifest;
pub mod rewrite;
pub mod shards;
pub mod tracks;
pub mod write;

use geometry::{Anchor, Camera, Intrinsics, Transform, WINDOW, WindowTrajectory};
use model::answer::chain::{self, Chain, POINTS, Track, round_depth, round_pixel};
use nalgebra::{Point2, Point3};
use rand::Rng;

use crate::prose;

/// Candidates that must pass every guard before five are chosen of them.
const MIN_CANDIDATES: usize = 12;
/// Draws after which a window is given up.
const MAX_DRAWS: usize = 1000;
/// Candidates after which drawing stops.
const ENOUGH_CANDIDATES: usize = 40;
/// A point is hidden where the surface seen at its pixel is elsewhere by more than this share of its depth.
const OCCLUSION_TOLERANCE: f64 = 0.05;
/// Nearest depth that counts where scene units are metres.
const MIN_DEPTH_METRES: f64 = 0.1;
/// The same where they are arbitrary, as a share of the median depth of frame 0: 0.1 m in a scene of 5 m.
const MIN_DEPTH_SHARE: f64 = 0.02;
/// Share of the depth map beyond which points are too far to trust.
const FAR_QUANTILE: f64 = 0.99;
/// Smallest ratio of the second to the first singular value of the chosen points.
const MIN_SPREAD: f64 = 1e-3;
/// Distance from the border, pixels.
const BORDER: f64 = 1.0;

/// Why a window gives no chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Reject {
    /// Too few points are seen by all frames.
    #[error("fewer than {MIN_CANDIDATES} points are seen by all frames")]
    FewPoints,
    /// The points are nearly on a line.
    #[error("the points are nearly on a line")]
    Collinear,
}

/// z-depth of one frame, scene units, row-major; not positive where there is none.
#[derive(Debug, Clone, Copy)]
pub struct DepthMap<'a> {
    /// `intrinsics.width * intrinsics.height` values.
    pub values: &'a [f32],
    /// Pixels a row.
    pub width: usize,
    /// Nearest depth that counts, scene units.
    pub nearest: f64,
}

impl<'a> DepthMap<'a> {
    /// The maps of a window, `width` pixels a row. What is nearer than 0.1 m does not count where scene units are
    /// metres (`metric`), else what is nearer than 2 % of the median depth of frame 0.
    pub fn window(depth: &'a [Vec<f32>; WINDOW], width: u32, metric: bool) -> [Self; WINDOW] {
        let nearest = if metric { MIN_DEPTH_METRES } else { MIN_DEPTH_SHARE * quantile(&depth[0], 0.5) };
        depth.each_ref().map(|values| Self { values, width: width as usize, nearest })
    }

    /// Depth at the pixel nearest to a place; nothing outside the image or where there is none.
    pub fn at(&self, pixel: &Point2<f64>) -> Option<f64> {
        let (x, y) = (pixel.x.round(), pixel.y.round());
        if x < 0.0 || y < 0.0 || x as usize >= self.width {
            return None;
        }
        let depth = f64::from(*self.values.get(y as usize * self.width + x as usize)?);
        (depth.is_finite() && depth > 0.0 && depth >= self.nearest).then_some(depth)
    }

    /// Depth at the place, or where the map has a hole there at the nearest place that has one, at most two pixels away
    /// each way: depth cameras that were aligned to a colour camera know every third pixel or so.
    pub(crate) fn near(&self, pixel: &Point2<f64>) -> Option<f64> {
        let offsets = (-2i32..=2).flat_map(|y| (-2i32..=2).map(move |x| (f64::from(x), f64::from(y))));
        let around = offsets.filter_map(|(x, y)| {
            let place = Point2::new(pixel.x.round() + x, pixel.y.round() + y);
            self.at(&place).map(|depth| (nalgebra::distance_squared(&place, pixel), depth))
        });
        around.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, depth)| depth)
    }

    fn far(&self) -> f64 {
        quantile(self.values, FAR_QUANTILE)
    }
}

/// The depth that a share of the known ones is below; 0 where none is known.
fn quantile(depth: &[f32], share: f64) -> f64 {
    let mut known: Vec<f32> = depth.iter().copied().filter(|d| d.is_finite() && *d > 0.0).collect();
    let Some(last) = known.len().checked_sub(1) else { return 0.0 };
    let index = (known.len() as f64 * share) as usize;
    f64::from(*known.select_nth_unstable_by(index.min(last), f32::total_cmp).1)
}

/// Writes the chain of a window.
///
/// # Errors
/// A window in which too few points can be followed.
pub fn chain(
    trajectory: &WindowTrajectory,
    intrinsics: &Intrinsics,
    depth: &[DepthMap<'_>; WINDOW],
    rng: &mut impl Rng,
) -> Result<Chain, Reject> {
    let camera_from_anchor = trajectory.anchor_from_camera().map(|pose| pose.inverse());
    let far = depth[0].far();
    let mut candidates = Vec::new();
    for _ in 0..MAX_DRAWS {
        if candidates.len() >= ENOUGH_CANDIDATES {
            break;
        }
        let pixel = Point2::new(
            rng.random_range(BORDER..f64::from(intrinsics.width) - 1.0 - BORDER),
            rng.random_range(BORDER..f64::from(intrinsics.height) - 1.0 - BORDER),
        );
        candidates.extend(follow(&round_pixel(&pixel), &camera_from_anchor, intrinsics, depth, far));
    }
    if candidates.len() < MIN_CANDIDATES {
        return Err(Reject::FewPoints);
    }
    let tracks = spread(&candidates).ok_or(Reject::FewPoints)?;
    let anchor_points: Vec<Point3<f64>> = tracks.iter().map(|t| t.points_in_camera[0]).collect();
    if !geometry::singular_ratio(&anchor_points).is_ok_and(|ratio| ratio > MIN_SPREAD) {
        return Err(Reject::Collinear);
    }
    let last = &trajectory.anchor_from_camera()[WINDOW - 1];
    let motion = prose::Motion {
        translation: last.translation().into(),
        rotation: last.rotation().scaled_axis().into(),
        still: 0.005 * depth[0].far().max(depth[0].nearest),
    };
    // Of the points as they are printed: what a program computes when it fills the step in is what was learned from.
    let pixels = tracks.each_ref().map(|track| track.pixels);
    let depths = tracks.each_ref().map(|track| track.depths);
    let points = chain::back_projected(&pixels, &depths, intrinsics);
    let relative = chain::aligned(&points).map_err(|_| Reject::Collinear)?;
    Ok(Chain { prose: prose::sample(rng, &motion), tracks, camera_from_anchor: relative, trajectory: *trajectory })
}

/// One point through all frames, or nothing where a frame does not see it.
fn follow(
    pixel: &Point2<f64>,
    camera_from_anchor: &[Transform<Camera, Anchor>; WINDOW],
    intrinsics: &Intrinsics,
    depth: &[DepthMap<'_>; WINDOW],
    far: f64,
) -> Option<Track> {
    let anchor_depth = depth[0].at(pixel).filter(|d| *d <= far)?;
    let point_in_anchor = intrinsics.back_project(pixel, anchor_depth);
    let mut track =
        Track { pixels: [*pixel; WINDOW], depths: [0.0; WINDOW], points_in_camera: [Point3::origin(); WINDOW] };
    for i in 0..WINDOW {
        let point = camera_from_anchor[i].transform_point(&point_in_anchor);
        let projected = intrinsics.project(&point)?;
        let inside = projected.x >= BORDER
            && projected.y >= BORDER
            && projected.x <= f64::from(intrinsics.width) - 1.0 - BORDER
            && projected.y <= f64::from(intrinsics.height) - 1.0 - BORDER;
        if !inside || point.z < depth[i].nearest {
            return None;
        }
        let seen = depth[i].near(&projected)?;
        if (seen - point.z).abs() > OCCLUSION_TOLERANCE * point.z {
            return None;
        }
        // The printed numbers are the ones that the next step computes with.
        track.pixels[i] = round_pixel(&projected);
        track.depths[i] = round_depth(point.z);
        track.points_in_camera[i] = intrinsics.back_project(&track.pixels[i], track.depths[i]);
    }
    Some(track)
}

/// Farthest-point choice over pixels and inverse depth, so that the five are neither in a heap nor in one plane.
fn spread(candidates: &[Track]) -> Option<[Track; POINTS]> {
    let feature = |t: &Track| [t.pixels[0].x / 100.0, t.pixels[0].y / 100.0, 1.0 / t.depths[0]];
    let distance =
        |a: &Track, b: &Track| -> f64 { feature(a).iter().zip(feature(b)).map(|(a, b)| (a - b) * (a - b)).sum() };
    let mut chosen: Vec<&Track> = vec![candidates.first()?];
    while chosen.len() < POINTS {
        let gap = |t: &Track| chosen.iter().map(|c| distance(c, t)).fold(f64::INFINITY, f64::min);
        chosen.push(candidates.iter().max_by(|a, b| gap(a).total_cmp(&gap(b)))?);
    }
    chosen.into_iter().cloned().collect::<Vec<_>>().try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse_source;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn the_nearest_depth_is_in_metres_or_a_share_of_what_frame_0_sees() {
        let known = |depth: &[Vec<f32>; WINDOW], frame: usize, metric| {
            let map = DepthMap::window(depth, 6, metric)[frame];
            (0..6_i32).filter(|&x| map.at(&Point2::new(f64::from(x), 0.0)).is_some()).collect::<Vec<_>>()
        };
        // The median of what is known is 50, and 2 % of that are 1.
        let first = vec![0.0, 90.0, 0.5, 50.0, 70.0, 1.5];
        let mut depth: [Vec<f32>; WINDOW] =
            std::array::from_fn(|_| vec![0.05, 0.11, f32::NAN, 0.99, 1.01, f32::INFINITY]);
        depth[0] = first;
        assert_eq!(known(&depth, 0, true), [1, 2, 3, 4, 5]);
        assert_eq!(known(&depth, 0, false), [1, 3, 4, 5]);
        assert_eq!(known(&depth, 3, true), [1, 3, 4]);
        assert_eq!(known(&depth, 3, false), [4]);
        // Without a median, all that is a depth counts, and 0 is none.
        depth[0] = vec![0.0; 6];
        assert_eq!(known(&depth, 3, false), [0, 1, 3, 4]);
        assert!(known(&depth, 0, false).is_empty());
    }

    #[test]
    fn a_scene_in_arbitrary_units_gives_chains_as_one_in_metres_does() {
        let source = parse_source("synth:seed=11,windows=6,size=160x96").unwrap();
        let mut made = 0;
        for index in 0..source.len() {
            let sample = source.sample(index).unwrap();
            let chain_at = |scale: f32, metric: bool| {
                let depth = sample.depth.clone().unwrap();
                let depth = depth.map(|map| map.into_iter().map(|d| d * scale).collect::<Vec<f32>>());
                let maps = DepthMap::window(&depth, sample.intrinsics.width, metric);
                let trajectory = sample.ground_truth.scaled(f64::from(scale));
                chain(&trajectory, &sample.intrinsics, &maps, &mut ChaCha8Rng::seed_from_u64(index))
            };
            if chain_at(1.0, true).is_err() {
                continue;
            }
            made += 1;
            // A power of two takes no digit away; metres would all be too near.
            let small = chain_at(1.0 / 1024.0, false);
            assert!(small.is_ok_and(|chain| chain.tracks.iter().all(|t| t.depths[0] < 0.1)), "window {index}");
            assert_eq!(chain_at(1.0 / 1024.0, true), Err(Reject::FewPoints), "window {index}");
            assert!(chain_at(1024.0, false).is_ok(), "window {index}");
        }
        assert!(made >= 3, "{made} of 6 windows");
    }
}
