//! Where points of one picture are in others.

use geometry::two_view::estimate_essential;
use geometry::{Intrinsics, RobustOptions, WINDOW};
use nalgebra::{Isometry3, Matrix2, Point2, Vector2, Vector3};

use crate::Error;
use crate::align::{Found, Patch};
use crate::corners::corners;
use crate::descriptors::{Features, matches};
use crate::picture::Picture;

/// Least normalised cross-correlation of a patch with where it was found.
const LEAST_CORRELATION: f32 = 0.8;
/// Farthest, pixels, that a point found forwards and then backwards may be from where it began.
const FORWARD_BACKWARD: f32 = 0.5;
/// Finest levels that a place is aligned on which the motion has told.
const FINE_LEVELS: usize = 2;
/// Finest levels that a point is looked for on where its motion is known about.
const NEAR_LEVELS: usize = 3;
/// Neighbours whose motion is asked where a point was lost.
const NEIGHBOURS: usize = 5;
/// Corners that are looked for in the middle picture of a window, and in the first and the last where the middle one's
/// have left the view.
const MIDDLE_CORNERS: usize = 350;
const OUTER_CORNERS: usize = 120;
/// Pictures that a track must be seen in.
const LEAST_SEEN: usize = 3;

/// Points that two neighbouring pictures share, below which points are recognised too.
const LEAST_COMMON: usize = 40;
/// Pictures between which points are recognised, at most so far apart.
const FARTHEST_PAIR: usize = 3;
/// Pairs that a motion must explain, and their share, to be no chance; how well, pixels.
const LEAST_RECOGNISED: usize = 12;
const RECOGNISED_SHARE: f64 = 0.3;
const RECOGNISED_PX: f64 = 2.0;
/// Least distance of a recognised point from the others, pixels: patches that lie over each other err alike.
const APART_PX: f32 = 8.0;

/// Neighbours that tell how a surface is slanted, and how many it takes; how far, pixels, they may be; how far off a plane,
/// of a point's nearness, they lie that are on it about; their share; and steps to find it.
const ON_SURFACE: usize = 8;
const LEAST_ON_SURFACE: usize = 4;
const SURFACE_PX: f64 = 80.0;
const PLANE_DEVIATION: f64 = 0.03;
const FITTING_SHARE: f64 = 0.6;
const SURFACE_STEPS: usize = 4;

/// A point of a window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Track {
    /// Where it is in each picture, pixels of the working grid; `None` where it is not seen.
    pub places: [Option<Point2<f32>>; WINDOW],
    /// The picture that it was chosen in, whose place defines it.
    pub origin: usize,
    /// Whether it was recognised and not yet aligned: a pixel or two are missing to precision.
    pub is_coarse: bool,
}

/// Points seen in the pictures of a window.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tracks {
    /// The points.
    pub points: Vec<Track>,
}

impl Tracks {
    /// How many points picture `index` shows.
    pub fn seen_in(&self, index: usize) -> usize {
        self.points.iter().filter(|point| point.places[index].is_some()).count()
    }

    /// Where each of the points that all pictures show is in each, on the plane at depth 1; `camera` is that of the working grid.
    pub fn in_all(&self, camera: &Intrinsics) -> Vec<[Point2<f64>; WINDOW]> {
        let place = |pixel: Point2<f32>| camera.back_project(&pixel.cast(), 1.0).xy();
        let whole = |track: &Track| {
            let mut places = [Point2::origin(); WINDOW];
            for (to, from) in places.iter_mut().zip(track.places) {
                *to = place(from?);
            }
            Some(places)
        };
        self.points.iter().filter_map(whole).collect()
    }

    /// How many points two pictures share.
    pub fn common(&self, i: usize, j: usize) -> usize {
        self.points.iter().filter(|point| point.places[i].is_some() && point.places[j].is_some()).count()
    }
}

/// Where a point of one picture is in another: found from a guess, and found back from there.
pub(crate) fn follow(
    patch: &Patch,
    from: &Picture,
    at: Point2<f32>,
    to: &Picture,
    guess: Point2<f32>,
    coarsest: usize,
) -> Option<Found> {
    let found = patch.find(to, guess, coarsest)?;
    if found.correlation < LEAST_CORRELATION {
        return None;
    }
    let back = Patch::new(to, found.at, 1);
    let returned = back.find(from, at, 0)?;
    ((returned.at - at).norm() < FORWARD_BACKWARD).then_some(found)
}

/// The median motion of the points nearest to a place among those that were followed.
pub(crate) fn motion_near(place: Point2<f32>, followed: &[(Point2<f32>, Vector2<f32>)]) -> Option<Vector2<f32>> {
    if followed.len() < NEIGHBOURS {
        return None;
    }
    let mut by_distance: Vec<(f32, usize)> =
        followed.iter().enumerate().map(|(k, (p, _))| ((p - place).norm_squared(), k)).collect();
    by_distance.select_nth_unstable_by(NEIGHBOURS - 1, |a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let median = |of: fn(&Vector2<f32>) -> f32| {
        let mut values: Vec<f32> = by_distance[..NEIGHBOURS].iter().map(|&(_, k)| of(&followed[k].1)).collect();
        values.sort_by(f32::total_cmp);
        values[NEIGHBOURS / 2]
    };
    Some(Vector2::new(median(|m| m.x), median(|m| m.y)))
}

/// Follows points from picture to picture: `places[k]` holds where they are in `from`, and gets where they are in `to`.
struct Walk<'a> {
    pictures: &'a [Picture; WINDOW],
    start: usize,
    patches: Vec<Patch>,
    tracks: Vec<[Option<Point2<f32>>; WINDOW]>,
}

impl<'a> Walk<'a> {
    fn new(pictures: &'a [Picture; WINDOW], start: usize, at: &[Point2<f32>]) -> Self {
        let picture = &pictures[start];
        let tracks = at
            .iter()
            .map(|&place| {
                let mut track = [None; WINDOW];
                track[start] = Some(place);
                track
            })
            .collect();
        let patches = at.iter().map(|&place| Patch::new(picture, place, NEAR_LEVELS)).collect();
        Self { pictures, start, patches, tracks }
    }

    /// One step, from picture `near` to `far`, which is farther from the start; `before` is a picture on the other side of
    /// `near`, as far from it, where points may be known already.
    fn step(&mut self, near: usize, far: usize, before: Option<usize>) {
        let (first, to) = (&self.pictures[self.start], &self.pictures[far]);
        let mut followed: Vec<(Point2<f32>, Vector2<f32>)> = Vec::new();
        let mut lost = Vec::new();
        for (k, track) in self.tracks.iter_mut().enumerate() {
            let (Some(at), Some(origin)) = (track[near], track[self.start]) else { continue };
            // As it went from the picture before: then the finest levels will do.
            let went = before.and_then(|b| track[b]).map(|b| at - b);
            let found = went
                .and_then(|went| follow(&self.patches[k], first, origin, to, at + went, NEAR_LEVELS - 1))
                .or_else(|| {
                    let patch = Patch::new(first, origin, usize::MAX);
                    follow(&patch, first, origin, to, at, usize::MAX)
                });
            match found {
                Some(found) => {
                    track[far] = Some(found.at);
                    followed.push((at, found.at - at));
                }
                None => lost.push((k, at, origin)),
            }
        }
        for (k, at, origin) in lost {
            let Some(motion) = motion_near(at, &followed) else { break };
            if let Some(found) = follow(&self.patches[k], first, origin, to, at + motion, 1) {
                self.tracks[k][far] = Some(found.at);
            }
        }
    }

    fn run(mut self) -> Vec<[Option<Point2<f32>>; WINDOW]> {
        for far in (0..self.start).rev() {
            let before = (far + 2 <= self.start).then_some(far + 2);
            self.step(far + 1, far, before);
        }
        for far in self.start + 1..WINDOW {
            self.step(far - 1, far, far.checked_sub(2));
        }
        self.tracks
    }
}

/// Tracks of five pictures: corners of the middle one, followed to both sides, and of the outer ones where those are
/// not seen; where neighbours share too few, points that are recognised.
///
/// # Errors
/// [`Error::Resize`].
pub fn of_window(pictures: &[Picture; WINDOW]) -> Result<Tracks, Error> {
    let mut tracks = Tracks::default();
    // The few of the outer pictures are chosen on half of the grid, for a quarter of the time.
    for (start, level, count) in
        [(WINDOW / 2, 0, MIDDLE_CORNERS), (0, 1, OUTER_CORNERS), (WINDOW - 1, 1, OUTER_CORNERS)]
    {
        let taken: Vec<Point2<f32>> = tracks.points.iter().filter_map(|track| track.places[start]).collect();
        let places: Vec<Point2<f32>> = corners(&pictures[start], level, count, &taken).iter().map(|c| c.at).collect();
        let walked = Walk::new(pictures, start, &places).run();
        tracks.points.extend(walked.into_iter().map(|places| Track { places, origin: start, is_coarse: false }));
    }
    tracks.points.retain(|track| track.places.iter().flatten().count() >= LEAST_SEEN);
    if (1..WINDOW).any(|k| tracks.common(k - 1, k) < LEAST_COMMON) {
        let mut points = recognised(pictures)?;
        points.sort_by_key(|track| std::cmp::Reverse(track.places.iter().flatten().count()));
        for track in points {
            let is_near = |other: &Track| {
                let (Some(own), Some(other)) = (track.places[track.origin], other.places[track.origin]) else {
                    return false;
                };
                (own - other).norm_squared() < APART_PX * APART_PX
            };
            if !tracks.points.iter().any(is_near) {
                tracks.points.push(track);
            }
        }
    }
    Ok(tracks)
}

/// Points that are recognised between pictures whose motion explains them, joined over all pictures.
fn recognised(pictures: &[Picture; WINDOW]) -> Result<Vec<Track>, Error> {
    let features = pictures.iter().map(Features::new).collect::<Result<Vec<_>, _>>()?;
    let starts: Vec<usize> = features
        .iter()
        .scan(0, |sum, own| {
            let start = *sum;
            *sum += own.at.len();
            Some(start)
        })
        .collect();
    let total: usize = features.iter().map(|own| own.at.len()).sum();
    // Disjoint sets of features: each names its parent.
    let mut parents: Vec<usize> = (0..total).collect();
    fn root(parents: &mut [usize], mut k: usize) -> usize {
        while parents[k] != k {
            parents[k] = parents[parents[k]];
            k = parents[k];
        }
        k
    }
    let k = pictures[0].intrinsics();
    let threshold = RECOGNISED_PX / (0.5 * (k.fx + k.fy));
    let options = RobustOptions { threshold, max_iterations: 1000, confidence: 0.999, seed: 7 };
    for i in 0..WINDOW {
        for j in i + 1..WINDOW.min(i + FARTHEST_PAIR + 1) {
            let pairs = matches(&features[i], &features[j]);
            let place = |view: usize, k: usize| Point2::from(pictures[view].normalised(&features[view].at[k]));
            let (a, b): (Vec<_>, Vec<_>) = pairs.iter().map(|(p, q)| (place(i, *p), place(j, *q))).unzip();
            let Some(found) = estimate_essential(&a, &b, &options, &[]) else { continue };
            let least = LEAST_RECOGNISED.max((RECOGNISED_SHARE * pairs.len() as f64) as usize);
            if found.inlier_count() < least {
                continue;
            }
            for ((p, q), _) in pairs.iter().zip(&found.inliers).filter(|(_, inlier)| **inlier) {
                let (p, q) = (root(&mut parents, starts[i] + p), root(&mut parents, starts[j] + q));
                parents[p.max(q)] = p.min(q);
            }
        }
    }
    let mut places: Vec<Option<[Vec<Point2<f32>>; WINDOW]>> = vec![None; total];
    for (view, own) in features.iter().enumerate() {
        for (k, at) in own.at.iter().enumerate() {
            let set = root(&mut parents, starts[view] + k);
            places[set].get_or_insert_with(Default::default)[view].push(*at);
        }
    }
    let track = |places: &[Vec<Point2<f32>>; WINDOW]| {
        // Two places in one picture: it is not known which.
        let places: [Option<Point2<f32>>; WINDOW] =
            std::array::from_fn(|view| places[view].first().copied().filter(|_| places[view].len() == 1));
        let seen: Vec<usize> = (0..WINDOW).filter(|view| places[*view].is_some()).collect();
        let origin = *seen.get(seen.len() / 2)?;
        (seen.len() >= 2).then_some(Track { places, origin, is_coarse: true })
    };
    Ok(places.iter().flatten().filter_map(track).collect())
}

/// How recognised points moved from one picture to another: where they were, and the motion; `None` where no motion of
/// the camera explains enough of them.
pub(crate) fn recognised_motion(
    (from, a): (&Picture, &Features),
    (to, b): (&Picture, &Features),
) -> Option<Vec<(Point2<f32>, Vector2<f32>)>> {
    let pairs = matches(a, b);
    let (xa, xb): (Vec<_>, Vec<_>) = pairs
        .iter()
        .map(|(p, q)| (Point2::from(from.normalised(&a.at[*p])), Point2::from(to.normalised(&b.at[*q]))))
        .unzip();
    let k = from.intrinsics();
    let threshold = RECOGNISED_PX / (0.5 * (k.fx + k.fy));
    let options = RobustOptions { threshold, max_iterations: 1000, confidence: 0.999, seed: 7 };
    let found = estimate_essential(&xa, &xb, &options, &[])?;
    let least = LEAST_RECOGNISED.max((RECOGNISED_SHARE * pairs.len() as f64) as usize);
    let moved = pairs.iter().zip(&found.inliers).filter(|(_, inlier)| **inlier);
    (found.inlier_count() >= least).then(|| moved.map(|((p, q), _)| (a.at[*p], b.at[*q] - a.at[*p])).collect())
}

/// Where a point is expected in another picture, and how its patch changes its shape: from its normalised place, the
/// inverse of its depth, and how that changes along x and y, as it does on a plane (0 on one that faces the first camera).
/// `None` where it is not on the picture.
pub(crate) fn expected(
    camera: &Intrinsics,
    to_from_from: &Isometry3<f64>,
    xy: &Vector2<f64>,
    nearness: f64,
    slope: &Vector2<f64>,
) -> Option<(Point2<f32>, Matrix2<f32>)> {
    let rotation = to_from_from.rotation.to_rotation_matrix();
    let pixel = |dx: f64, dy: f64| {
        let (dx, dy) = (dx / camera.fx, dy / camera.fy);
        let offset = to_from_from.translation.vector * (nearness + slope.x * dx + slope.y * dy);
        let inside = rotation * Vector3::new(xy.x + dx, xy.y + dy, 1.0) + offset;
        let pixel =
            Point2::new(inside.x / inside.z * camera.fx + camera.cx, inside.y / inside.z * camera.fy + camera.cy);
        (inside.z > 1e-6).then_some(pixel)
    };
    let centre = pixel(0.0, 0.0).filter(|pixel| camera.contains(pixel))?;
    let shape = Matrix2::from_columns(&[pixel(1.0, 0.0)? - centre, pixel(0.0, 1.0)? - centre]);
    Some((centre.cast(), shape.cast()))
}

/// How the nearness of a surface changes along x and y around a point (x, y, nearness): that of the plane through it that
/// its neighbours lie on, or none where they lie on no plane.
pub(crate) fn slope(own: &Vector3<f64>, others: impl Iterator<Item = Vector3<f64>>, focal: f64) -> Vector2<f64> {
    let mut near: Vec<(f64, Vector3<f64>)> = others
        .map(|other| ((other.xy() - own.xy()).norm_squared(), other - own))
        .filter(|(square, _)| *square < (SURFACE_PX / focal).powi(2))
        .collect();
    near.sort_by(|a, b| a.0.total_cmp(&b.0));
    near.truncate(ON_SURFACE);
    if near.len() < LEAST_ON_SURFACE {
        return Vector2::zeros();
    }
    let scale = PLANE_DEVIATION * own.z;
    let mut slope = Vector2::zeros();
    let mut fitting = 0.0;
    for _ in 0..SURFACE_STEPS {
        let (mut square, mut right) = (Matrix2::identity() * 1e-12, Vector2::zeros());
        let mut sum = 0.0;
        for (_, other) in &near {
            let (at, rise) = (other.xy(), other.z);
            let error = (rise - at.dot(&slope)) / scale;
            let weight = 1.0 / (1.0 + error * error);
            square += at * at.transpose() * weight;
            right += at * (rise * weight);
            sum += weight;
        }
        fitting = sum / near.len() as f64;
        slope = square.try_inverse().map_or_else(Vector2::zeros, |inverse| inverse * right);
    }
    if fitting > FITTING_SHARE { slope } else { Vector2::zeros() }
}

/// Where a point of `from` is in `to`, whose shape changes as `to_from_from` says, near where it is expected.
pub(crate) fn realign(
    from: &Picture,
    at: Point2<f32>,
    to: &Picture,
    expected: Point2<f32>,
    to_from_from: &Matrix2<f32>,
    reach_px: f32,
) -> Option<Point2<f32>> {
    let patch = Patch::warped(from, at, to_from_from, FINE_LEVELS)?;
    let found = patch.find(to, expected, FINE_LEVELS - 1)?;
    (found.correlation >= LEAST_CORRELATION && (found.at - expected).norm() <= reach_px).then_some(found.at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picture::Grey;
    use geometry::{Intrinsics, Stamp};

    /// A smooth random texture, moved by some pixels.
    fn shown(dx: f64, dy: f64) -> Picture {
        let waves: Vec<[f64; 4]> = (0..60)
            .map(|k| {
                let k = f64::from(k);
                [0.35 * (k * 1.7).sin(), 0.35 * (k * 2.9 + 1.0).sin(), k * 0.7, 1.0]
            })
            .collect();
        let mut pixels = Vec::new();
        for y in 0..240 {
            for x in 0..320 {
                let (x, y) = (f64::from(x) - dx, f64::from(y) - dy);
                let sum: f64 = waves.iter().map(|[a, b, phase, size]| size * (a * x + b * y + phase).sin()).sum();
                pixels.push((128.0 + 12.0 * sum).clamp(0.0, 255.0) as u8);
            }
        }
        let camera = Intrinsics::new(300.0, 300.0, 159.5, 119.5, 320, 240).unwrap();
        Picture::new(Stamp::default(), &camera, &Grey::new(320, 240, pixels).unwrap()).unwrap()
    }

    #[test]
    fn a_moved_texture_is_followed_to_hundredths_of_a_pixel() {
        let (a, b) = (shown(0.0, 0.0), shown(2.3, -1.6));
        let found = corners(&a, 0, 100, &[]);
        assert!(found.len() > 60, "{}", found.len());
        let mut errors = Vec::new();
        for corner in &found {
            let patch = Patch::new(&a, corner.at, usize::MAX);
            if let Some(found) = follow(&patch, &a, corner.at, &b, corner.at, usize::MAX) {
                // Small pictures are worked on at twice their size.
                errors.push((found.at - corner.at - Vector2::new(4.6, -3.2)).norm());
            }
        }
        errors.sort_by(f32::total_cmp);
        assert!(errors.len() * 10 >= found.len() * 8, "{} of {}", errors.len(), found.len());
        assert!(errors[errors.len() / 2] < 0.05, "{}", errors[errors.len() / 2]);
    }
}
