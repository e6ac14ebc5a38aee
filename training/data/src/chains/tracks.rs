//! What a correspondence head learns from (GASP, arXiv 2605.30231): sets of frames around an anchor, and which patch of
//! one frame shows what a patch of another shows.

use geometry::{Camera, Intrinsics, Transform, World};
use nalgebra::Point2;
use rand::Rng;
use rand::seq::index;

use super::{DepthMap, MIN_DEPTH_METRES, MIN_DEPTH_SHARE, OCCLUSION_TOLERANCE, quantile};

/// Bounds of a set of frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameSets {
    /// Fewest frames of a set, the anchor among them.
    pub fewest: usize,
    /// Most frames of a set.
    pub most: usize,
    /// How far from the anchor the others may be, frames of the recording.
    pub reach: usize,
}

impl Default for FrameSets {
    /// 8 to 24 frames within 48 of the anchor (section 5.2).
    fn default() -> Self {
        Self { fewest: 8, most: 24, reach: 48 }
    }
}

impl FrameSets {
    /// Ascending numbers of a random set around frame `anchor` of `frames`; nothing where too few are in reach.
    pub fn draw(&self, frames: usize, anchor: usize, rng: &mut impl Rng) -> Option<Vec<usize>> {
        let first = anchor.saturating_sub(self.reach);
        let end = (anchor + self.reach + 1).min(frames);
        let others: Vec<usize> = (first..end).filter(|&frame| frame != anchor).collect();
        if anchor >= frames || self.fewest > self.most || others.len() + 1 < self.fewest.max(2) {
            return None;
        }
        let count = rng.random_range(self.fewest.max(2)..=self.most.min(others.len() + 1));
        let mut set: Vec<usize> = index::sample(rng, others.len(), count - 1).iter().map(|i| others[i]).collect();
        set.push(anchor);
        set.sort_unstable();
        Some(set)
    }
}

/// One view of a set.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// Where the camera was.
    pub world_from_camera: &'a Transform<World, Camera>,
    /// Depth on the grid of the intrinsics.
    pub depth: DepthMap<'a>,
}

/// A patch of one view and the patch of another that shows the same point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Match {
    /// View, and patch of it in rows.
    pub from: (usize, usize),
    /// View, and patch of it in rows.
    pub to: (usize, usize),
    /// The point in the other view, pixels.
    pub pixel: Point2<f64>,
    /// Its depth there, scene units.
    pub depth: f64,
}

/// Depth of a patch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pooled {
    /// Mean over the pixels that have one, scene units; 0 where none has.
    pub depth: f64,
    /// Share of the pixels that have one.
    pub known: f64,
    /// Standard deviation as a share of the mean: large where the patch lies across an edge.
    pub spread: f64,
}

/// The maps of a set, `width` pixels a row, with the bound of [`DepthMap::window`] on what is too near to count; the
/// median is that of the first frame that has depth.
pub fn maps(depth: &[Vec<f32>], width: u32, metric: bool) -> Vec<DepthMap<'_>> {
    let median = || depth.iter().map(|values| quantile(values, 0.5)).find(|&median| median > 0.0).unwrap_or(0.0);
    let nearest = if metric { MIN_DEPTH_METRES } else { MIN_DEPTH_SHARE * median() };
    depth.iter().map(|values| DepthMap { values, width: width as usize, nearest }).collect()
}

/// Depth of every patch of a view, averaged over the pixels that have one, on a grid of `columns` x `rows`.
pub fn pooled(depth: &DepthMap<'_>, columns: usize, rows: usize) -> Vec<Pooled> {
    let width = depth.width.max(1);
    let height = depth.values.len() / width;
    // Pixels, those with depth, and the sums of it and of its square.
    let mut sums = vec![(0.0, 0.0, 0.0, 0.0); columns * rows];
    for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
        // Twice the centre of the pixel, in whole numbers.
        let patch = (2 * y + 1) * rows / (2 * height) * columns + (2 * x + 1) * columns / (2 * width);
        let sum = &mut sums[patch];
        sum.0 += 1.0;
        if let Some(d) = depth.at(&Point2::new(x as f64, y as f64)) {
            (sum.1, sum.2, sum.3) = (sum.1 + 1.0, sum.2 + d, sum.3 + d * d);
        }
    }
    let of = |(pixels, known, sum, squares): (f64, f64, f64, f64)| {
        if known < 1.0 {
            return Pooled { depth: 0.0, known: 0.0, spread: 0.0 };
        }
        let mean = sum / known;
        Pooled { depth: mean, known: known / pixels, spread: (squares / known - mean * mean).max(0.0).sqrt() / mean }
    };
    sums.into_iter().map(of).collect()
}

/// Matches of the patch centres of every view in every other, on a grid of `columns` x `rows` patches a view (the paper
/// trains on 8 x 8 and 24 x 24 of each set, section 5.2, and evaluates on 8 x 8, section 5.3). A centre without depth has
/// none; nor has a point that the other view does not see, since it is outside or its own surface there is nearer or
/// farther by more than 5 %.
pub fn matches(views: &[View<'_>], intrinsics: &Intrinsics, columns: usize, rows: usize) -> Vec<Match> {
    let (width, height) = (f64::from(intrinsics.width), f64::from(intrinsics.height));
    let centre = |patch: usize| {
        let (x, y) = ((patch % columns) as f64 + 0.5, (patch / columns) as f64 + 0.5);
        // The image reaches from half a pixel before the first centre to half a pixel behind the last.
        Point2::new(x * width / columns as f64 - 0.5, y * height / rows as f64 - 0.5)
    };
    let patch_at = |pixel: &Point2<f64>| {
        let x = ((pixel.x + 0.5) * columns as f64 / width) as usize;
        let y = ((pixel.y + 0.5) * rows as f64 / height) as usize;
        y.min(rows - 1) * columns + x.min(columns - 1)
    };
    let mut found = Vec::new();
    for (a, from) in views.iter().enumerate() {
        for patch in 0..columns * rows {
            let pixel = centre(patch);
            let Some(depth) = from.depth.near(&pixel) else { continue };
            let point = from.world_from_camera.transform_point(&intrinsics.back_project(&pixel, depth));
            for (b, to) in views.iter().enumerate().filter(|(b, _)| *b != a) {
                let seen = to.world_from_camera.inverse().transform_point(&point);
                let Some(place) = intrinsics.project(&seen).filter(|p| intrinsics.contains(p)) else { continue };
                let surface = to.depth.near(&place);
                if surface.is_some_and(|s| (s - seen.z).abs() <= OCCLUSION_TOLERANCE * seen.z) {
                    found.push(Match { from: (a, patch), to: (b, patch_at(&place)), pixel: place, depth: seen.z });
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synth;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn a_set_has_its_anchor_and_stays_in_reach() {
        let sets = FrameSets::default();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut sizes = std::collections::BTreeSet::new();
        for _ in 0..300 {
            let set = sets.draw(200, 60, &mut rng).unwrap();
            assert!(set.contains(&60) && set.windows(2).all(|w| w[0] < w[1]));
            assert!(set.iter().all(|f| f.abs_diff(60) <= 48));
            sizes.insert(set.len());
        }
        assert_eq!((sizes.first(), sizes.last()), (Some(&8), Some(&24)));
        assert_eq!(sets.draw(7, 3, &mut rng), None, "too few frames");
        assert_eq!(sets.draw(8, 0, &mut rng).unwrap().len(), 8);
        assert_eq!(sets.draw(8, 8, &mut rng), None, "no such anchor");
        let again = |seed| sets.draw(100, 50, &mut ChaCha8Rng::seed_from_u64(seed));
        assert_eq!(again(4), again(4));
        assert_ne!(again(4), again(5));
    }

    #[test]
    fn matches_lead_back_to_where_they_came_from_and_hidden_points_have_none() {
        let film = synth::sequence(3, 5, 6, (160, 96));
        let view = |i: usize, depth: &'_ [f32]| (i, depth.to_vec());
        let depths: Vec<(usize, Vec<f32>)> = (0..6).map(|i| view(i, &film.depth[i])).collect();
        let views = |depths: &[(usize, Vec<f32>)], run: &mut dyn FnMut(&[View<'_>])| {
            let views: Vec<View<'_>> = depths
                .iter()
                .map(|(i, values)| View {
                    world_from_camera: &film.world_from_camera[*i],
                    depth: DepthMap { values, width: 160, nearest: 0.1 },
                })
                .collect();
            run(&views);
        };
        for (columns, rows) in [(8, 8), (24, 24)] {
            views(&depths, &mut |views| {
                let found = matches(views, &film.intrinsics, columns, rows);
                assert!(found.len() > columns * rows, "{columns} x {rows}: {}", found.len());
                for m in &found {
                    assert!(m.from.0 != m.to.0 && m.from.1 < columns * rows && m.to.1 < columns * rows);
                    // The other view's own depth there leads back to the patch's centre, within the tolerance in depth.
                    let (a, b) = (&views[m.from.0], &views[m.to.0]);
                    let depth = b.depth.near(&m.pixel).unwrap();
                    assert!((m.depth - depth).abs() <= 0.051 * m.depth, "{m:?}: {depth}");
                    let point = b.world_from_camera.transform_point(&film.intrinsics.back_project(&m.pixel, depth));
                    let back = a.world_from_camera.inverse().transform_point(&point);
                    let pixel = film.intrinsics.project(&back).unwrap();
                    let x = ((m.from.1 % columns) as f64 + 0.5) * 160.0 / columns as f64 - 0.5;
                    let y = ((m.from.1 / columns) as f64 + 0.5) * 96.0 / rows as f64 - 0.5;
                    assert!((pixel.x - x).abs() < 3.0 && (pixel.y - y).abs() < 3.0, "{m:?}: {pixel} {x} {y}");
                }
            });
        }
        // A wall right before the last camera hides everything from it, and it sees nothing of the others.
        let mut walled = depths.clone();
        walled[5].1.iter_mut().for_each(|d| *d = 0.15);
        views(&walled, &mut |views| {
            let found = matches(views, &film.intrinsics, 8, 8);
            assert!(!found.is_empty() && found.iter().all(|m| m.from.0 != 5 && m.to.0 != 5));
        });
        // A view matched with itself, seen twice, has every patch in its own place.
        views(&[depths[0].clone(), depths[0].clone()], &mut |views| {
            let found = matches(views, &film.intrinsics, 24, 24);
            assert!(found.iter().all(|m| m.from.1 == m.to.1) && found.len() > 24 * 24);
        });
    }

    #[test]
    fn depth_is_pooled_over_the_pixels_that_have_one() {
        // Two patches of 4 x 2 pixels: one flat with a hole, one across an edge.
        let values = [2.0, 2.0, 0.0, 2.0, 1.0, 1.0, 3.0, 3.0, 2.0, 2.0, f32::NAN, 2.0, 1.0, 1.0, 3.0, 3.0];
        let map = DepthMap { values: &values, width: 8, nearest: 0.5 };
        let of = |map: &DepthMap<'_>| pooled(map, 2, 1);
        let [flat, edge] = of(&map)[..] else { panic!("two patches") };
        assert!((flat.depth - 2.0).abs() < 1e-12 && (flat.known - 0.75).abs() < 1e-12 && flat.spread < 1e-6);
        assert!((edge.depth - 2.0).abs() < 1e-12 && (edge.known - 1.0).abs() < 1e-12);
        assert!((edge.spread - 0.5).abs() < 1e-12, "{}", edge.spread);
        let none = of(&DepthMap { nearest: 10.0, ..map });
        assert!(none.iter().all(|patch| *patch == Pooled { depth: 0.0, known: 0.0, spread: 0.0 }));
        // Every pixel belongs to the patch that its centre is in, also where sizes do not divide.
        let ramp: Vec<f32> = (0..7).map(|x| 1.0 + x as f32).collect();
        let thirds = pooled(&DepthMap { values: &ramp, width: 7, nearest: 0.5 }, 3, 1);
        assert!(thirds.iter().zip([1.5, 4.0, 6.5]).all(|(p, depth)| (p.depth - depth).abs() < 1e-12), "{thirds:?}");
    }

    #[test]
    fn what_is_too_near_depends_on_the_unit() {
        let depth = [vec![0.0; 4], vec![4.0, 0.05, 4.0, 4.0]];
        let at = |metric: bool| maps(&depth, 2, metric)[1].at(&Point2::new(1.0, 0.0));
        assert_eq!(at(true), None, "5 cm");
        let nearest = maps(&depth, 2, false)[1].nearest;
        assert!((nearest - 0.08).abs() < 1e-12, "2 % of the median of the first frame that has depth: {nearest}");
        assert_eq!(at(false), None);
        assert!(maps(&[vec![0.0; 4]], 2, false)[0].at(&Point2::new(0.0, 0.0)).is_none());
    }
}
