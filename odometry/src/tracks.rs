//! Where points of one picture are in others.

use geometry::WINDOW;
use nalgebra::{Point2, Vector2};

use crate::align::{Found, Patch};
use crate::corners::corners;
use crate::picture::Picture;

/// Least normalised cross-correlation of a patch with where it was found.
const LEAST_CORRELATION: f32 = 0.8;
/// Farthest, pixels, that a point found forwards and then backwards may be from where it began.
const FORWARD_BACKWARD: f32 = 0.5;
/// Levels that the way back starts on: the way there has told where it is.
const BACK_LEVELS: usize = 2;
/// Neighbours whose motion is asked where a point was lost.
const NEIGHBOURS: usize = 5;
/// Corners that are looked for in the middle picture of a window, and in the first and the last where the middle one's
/// have left the view.
const MIDDLE_CORNERS: usize = 260;
const OUTER_CORNERS: usize = 100;
/// Pictures that a track must be seen in.
const LEAST_SEEN: usize = 3;

/// Points seen in the pictures of a window, pixels of the working grid.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tracks {
    /// Where each point is in each picture; `None` where it is not seen.
    pub points: Vec<[Option<Point2<f32>>; WINDOW]>,
}

impl Tracks {
    /// How many points picture `index` shows.
    pub fn seen_in(&self, index: usize) -> usize {
        self.points.iter().filter(|point| point[index].is_some()).count()
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
    let back = Patch::new(to, found.at, BACK_LEVELS);
    let returned = back.find(from, at, BACK_LEVELS - 1)?;
    ((returned.at - at).norm() < FORWARD_BACKWARD).then_some(found)
}

/// The median motion of the points nearest to a place among those that were followed.
fn motion_near(place: Point2<f32>, followed: &[(Point2<f32>, Vector2<f32>)]) -> Option<Vector2<f32>> {
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
        let patches = at.iter().map(|&place| Patch::new(picture, place, usize::MAX)).collect();
        Self { pictures, start, patches, tracks }
    }

    /// One step, from picture `near` to `far`, which is farther from the start.
    fn step(&mut self, near: usize, far: usize) {
        let (first, to) = (&self.pictures[self.start], &self.pictures[far]);
        let before = if near == self.start { None } else { Some(2 * near - far) };
        let mut followed: Vec<(Point2<f32>, Vector2<f32>)> = Vec::new();
        let mut lost = Vec::new();
        for (k, track) in self.tracks.iter_mut().enumerate() {
            let (Some(at), Some(origin)) = (track[near], track[self.start]) else { continue };
            // As it went from the picture before.
            let went = before.and_then(|b| track[b]).map_or(Vector2::zeros(), |b| at - b);
            match follow(&self.patches[k], first, origin, to, at + went, usize::MAX) {
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
            self.step(far + 1, far);
        }
        for far in self.start + 1..WINDOW {
            self.step(far - 1, far);
        }
        self.tracks
    }
}

/// Tracks of five pictures: corners of the middle one, followed to both sides, and of the outer ones where those are
/// not seen.
pub fn of_window(pictures: &[Picture; WINDOW]) -> Tracks {
    let mut all: Vec<[Option<Point2<f32>>; WINDOW]> = Vec::new();
    for (start, count) in [(WINDOW / 2, MIDDLE_CORNERS), (0, OUTER_CORNERS), (WINDOW - 1, OUTER_CORNERS)] {
        let taken: Vec<Point2<f32>> = all.iter().filter_map(|track| track[start]).collect();
        let places: Vec<Point2<f32>> = corners(&pictures[start], count, &taken).iter().map(|c| c.at).collect();
        all.extend(Walk::new(pictures, start, &places).run());
    }
    all.retain(|track| track.iter().flatten().count() >= LEAST_SEEN);
    Tracks { points: all }
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
        let (a, b) = (shown(0.0, 0.0), shown(5.3, -3.6));
        let found = corners(&a, 100, &[]);
        assert!(found.len() > 60, "{}", found.len());
        let mut errors = Vec::new();
        for corner in &found {
            let patch = Patch::new(&a, corner.at, usize::MAX);
            if let Some(found) = follow(&patch, &a, corner.at, &b, corner.at, usize::MAX) {
                errors.push((found.at - corner.at - Vector2::new(5.3, -3.6)).norm());
            }
        }
        errors.sort_by(f32::total_cmp);
        assert!(errors.len() * 10 >= found.len() * 8, "{} of {}", errors.len(), found.len());
        assert!(errors[errors.len() / 2] < 0.05, "{}", errors[errors.len() / 2]);
    }
}
