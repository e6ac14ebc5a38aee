//! The exact window: poses of five pictures from the points that they share, up to scale.
//!
//! Tracks; starts from robust two-view geometry and from whatever is believed beforehand; a robust adjustment of five
//! cameras and all points; a test whether translation explains more than noise would, else rotation alone.

use geometry::adjust::{Bundle, Observations, Options, PosePrior, View, inverse, step_between};
use geometry::pnp::estimate_pose;
use geometry::two_view::{alternatives, estimate_essential, euclidean, rotation_between, triangulate};
use geometry::{Anchor, Camera, Intrinsics, RobustOptions, Transform, WINDOW, WindowTrajectory};
use nalgebra::{
    DMatrix, DVector, Isometry3, Matrix2, Matrix6, Point2, Translation3, UnitQuaternion, Vector2, Vector3, Vector4,
};

use crate::Error;
use crate::picture::Picture;
use crate::tracks::{self, Tracks, expected, realign, slope};

/// Scale of the Cauchy loss, pixels: tracks are precise to a fifth of one or so.
const LOSS_PX: f64 = 0.5;
/// Scale of the loss over the standard deviation of what is not an outlier, at which Cauchy's loses 5 % to least squares
/// (Huber, Robust Statistics), and its bounds.
const EFFICIENT: f64 = 2.385;
const LEAST_LOSS_PX: f64 = 0.15;
const MOST_LOSS_PX: f64 = 1.0;
/// Errors of tracks that residuals do not show, pixels, such as an interpolation's: what the test for a translation takes
/// for noise at least.
const SYSTEMATIC_PX: f64 = 0.15;
/// How much more another start may cost to be followed to the end, and by how much of the noise's variance two ends must
/// differ so that the better one is the only answer.
const RIVALS: usize = 2;
const RIVAL_COST: f64 = 1.5;
const RIVAL_MARGIN: f64 = 20.0;
const RIVAL_SHARE: f64 = 0.05;
/// Variance of poses over what their residuals say: tracks that are near to each other err alike. Fitted on synthetic
/// windows (`synth`, strata texture, noise, dark, exposure and plane).
pub(crate) const ALIKE: f64 = 2.0;
/// Largest Sampson error of a pair, pixels; largest reprojection error of an observation that stays.
const EPIPOLAR_PX: f64 = 1.0;
const OUTLIER_PX: f64 = 3.0;
/// Deviation of a pair from a rotation, pixels.
const ROTATION_PX: f64 = 2.0;
/// Points that a picture must show to be registered and to stay.
const LEAST_POINTS: usize = 8;
/// Tracks that a window needs.
const LEAST_TRACKS: usize = 15;
/// Pairs of pictures that starts are made from, tracks that they are judged on, and how they are adjusted.
const START_PAIRS: usize = 3;
const START_ALTERNATIVES: usize = 3;
/// Length of the starts along the axes, of the unit that is the longest way of the others.
const START_WAY: f64 = 0.5;
const START_TRACKS: usize = 80;
const FIRST_ITERATIONS: usize = 4;
const BEST_STARTS: usize = 8;
const START_ITERATIONS: usize = 8;
/// Iterations of a final adjustment, and the relative gain below which any stops.
const ITERATIONS: usize = 20;
const MIN_GAIN: f64 = 1e-5;
const MIN_GAIN_BEFORE: f64 = 1e-4;
/// The least standard deviation of a coordinate, pixels, and that where too few points tell it.
const LEAST_SIGMA_PX: f64 = 0.05;
pub(crate) const FEW_SIGMA_PX: f64 = 0.3;
/// How far, pixels, points may be from where a prior alone puts them.
const NEAR_PX: f64 = 12.0;
/// Squared Mahalanobis distance of a pose from the prior's, from which the prior is left out: six degrees of freedom go
/// beyond it once in ten thousand times.
const CONTRADICTION: f64 = 27.9;
/// Parallax, pixels, below which alignment's own errors, which are the same for all that a patch sees, may be all of it.
const LEAST_PARALLAX_PX: f64 = 0.3;
/// Parallax, pixels, from which the camera surely moved (few pairs that are followed wrongly can show less), and what each
/// unknown of a motion gains, pixels, from which it did; below, F must be at least so large.
const SURE_PARALLAX_PX: f64 = 24.0;
const SURE_GAIN_PX: f64 = 1.0;
const MIN_F: f64 = 2.5;

/// Change of a patch's shape (Frobenius norm) from which it is aligned anew; how far, pixels, it may then be from where
/// the motion expects it, and how far where it was recognised only.
const LEAST_CHANGE: f32 = 0.06;
const LEAST_CHANGE_OF_TURN: f32 = 0.01;
const REACH_PX: f32 = 3.0;
const COARSE_REACH_PX: f32 = 6.0;

/// What is believed of a window's motion before its pictures are looked at.
#[derive(Clone, Debug, PartialEq)]
pub struct Prior {
    /// The poses; their unit becomes that of the answer.
    pub trajectory: WindowTrajectory,
    /// Covariance of each pose but the first: rotation (radians) before translation, in the axes of the camera.
    pub covariance: [Matrix6<f64>; WINDOW - 1],
}

/// What the poses stand on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carried {
    /// Points alone.
    Tracks,
    /// The prior alone.
    Prior,
    /// Points, with a prior.
    Both,
}

/// What moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Motion {
    /// The camera went somewhere: translation explains more than noise would.
    Moved,
    /// It turned, or stood still: no translation can be told from noise.
    Turned,
}

/// Poses of a window.
#[derive(Clone, Debug, PartialEq)]
pub struct Solved {
    /// The poses, in units of the prior, or else of the median depth of the points that frame 0 sees.
    pub trajectory: WindowTrajectory,
    /// Covariance of frames 1 to 4, six unknowns each (24 x 24): rotation (radians) before translation, of a step
    /// from the left of `camera_from_anchor`. Without a prior the scale is held, so that it has rank 23.
    pub covariance: DMatrix<f64>,
    /// What the poses stand on.
    pub carried: Carried,
    /// What moved.
    pub motion: Motion,
    /// Points that the poses stand on, and the observations of them.
    pub points: usize,
    /// How many observations there are of them.
    pub observations: usize,
    /// Standard deviation of an image coordinate, pixels of the working grid.
    pub sigma_px: f64,
    /// Largest over pairs of pictures of the median motion that no rotation explains, pixels.
    pub parallax_px: f64,
    /// Median over the points of the angle, radians, between the rays of the first and the last picture that see it: what
    /// depths are known from.
    pub angle: f64,
}

/// Why a window has no poses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Too few points were followed.
    #[error("{got} tracks, of {LEAST_TRACKS} that it takes")]
    FewTracks {
        /// How many.
        got: usize,
    },
    /// A picture shares too few points with the others.
    #[error("picture {index} shows {got} of the points that the others show, of {LEAST_POINTS} that it takes")]
    FewPoints {
        /// Which picture.
        index: usize,
        /// How many.
        got: usize,
    },
    /// No two pictures give a start that fits all five.
    #[error("no motion fits the tracks")]
    NoStart,
}

/// The poses of five pictures.
///
/// # Errors
/// [`Error::Camera`] where the pictures are not of one camera, [`Error::Stamp`] where their stamps do not increase,
/// [`Error::Prior`]. What the pictures do not show is a [`Refusal`].
pub fn solve(pictures: &[Picture; WINDOW], prior: Option<&Prior>) -> Result<Result<Solved, Refusal>, Error> {
    check(pictures, prior)?;
    let tracks = tracks::of_window(pictures)?;
    let points = Points::new(&tracks, pictures[0].intrinsics());
    Ok(with_prior(points, Some(pictures), prior))
}

fn check(pictures: &[Picture; WINDOW], prior: Option<&Prior>) -> Result<(), Error> {
    for index in 1..WINDOW {
        let (last, own) = (&pictures[index - 1], &pictures[index]);
        if own.given_intrinsics() != last.given_intrinsics() {
            let (expected, got) = (last.given_intrinsics(), own.given_intrinsics());
            return Err(Error::Camera { index, expected: format!("{expected:?}"), got: format!("{got:?}") });
        }
        if own.stamp() <= last.stamp() {
            let (last_nanos, got_nanos) = (last.stamp().nanos, own.stamp().nanos);
            return Err(Error::Stamp { index, last_nanos, got_nanos });
        }
    }
    let Some(prior) = prior else { return Ok(()) };
    for (index, pose) in prior.trajectory.anchor_from_camera().iter().enumerate() {
        if pose.isometry().translation.vector.iter().chain(pose.to_xyzw().iter()).any(|value| !value.is_finite()) {
            return Err(Error::Prior { what: format!("pose {index}"), expected: "finite numbers" });
        }
    }
    for (index, covariance) in prior.covariance.iter().enumerate() {
        if covariance.iter().any(|value| !value.is_finite()) || nalgebra::Cholesky::new(*covariance).is_none() {
            let what = format!("covariance of pose {}", index + 1);
            return Err(Error::Prior { what, expected: "a finite positive matrix" });
        }
    }
    Ok(())
}

/// Normalised places of the tracks.
#[derive(Clone)]
struct Points {
    xy: Vec<[Option<Vector2<f64>>; WINDOW]>,
    /// Picture that defines each, and whether its places are coarse.
    origins: Vec<(usize, bool)>,
    focal: Vector2<f64>,
    camera: Intrinsics,
}

impl Points {
    fn new(tracks: &Tracks, camera: &Intrinsics) -> Self {
        let focal = Vector2::new(camera.fx, camera.fy);
        let normalised = |p: Point2<f32>| {
            Vector2::new((f64::from(p.x) - camera.cx) / focal.x, (f64::from(p.y) - camera.cy) / focal.y)
        };
        Self {
            xy: tracks.points.iter().map(|track| track.places.map(|place| place.map(normalised))).collect(),
            origins: tracks.points.iter().map(|track| (track.origin, track.is_coarse)).collect(),
            focal,
            camera: *camera,
        }
    }

    /// The place as a pixel.
    fn pixel(&self, xy: &Vector2<f64>) -> Point2<f32> {
        let k = &self.camera;
        Point2::new((xy.x * k.fx + k.cx) as f32, (xy.y * k.fy + k.cy) as f32)
    }

    /// Some of them.
    fn only(&self, indices: &[usize]) -> Self {
        Self {
            xy: indices.iter().map(|k| self.xy[*k]).collect(),
            origins: indices.iter().map(|k| self.origins[*k]).collect(),
            ..*self
        }
    }

    fn pairs(&self, i: usize, j: usize) -> (Vec<Point2<f64>>, Vec<Point2<f64>>) {
        let both = |track: &[Option<Vector2<f64>>; WINDOW]| Some((Point2::from(track[i]?), Point2::from(track[j]?)));
        self.xy.iter().filter_map(both).unzip()
    }

    fn mean_focal(&self) -> f64 {
        0.5 * (self.focal.x + self.focal.y)
    }

    fn observations(&self) -> Observations {
        let mut observations = Observations::new();
        for track in &self.xy {
            observations.push(track.iter().enumerate().filter_map(|(view, xy)| Some((view, (*xy)?))));
        }
        observations
    }

    /// Points in the world of these poses; those that cannot be are put on the ray of the picture that sees them first.
    fn triangulated(&self, poses: &[Isometry3<f64>; WINDOW]) -> Vec<Vector4<f64>> {
        let one = |track: &[Option<Vector2<f64>>; WINDOW]| {
            let (mut views, mut xy) = (Vec::with_capacity(WINDOW), Vec::with_capacity(WINDOW));
            for (pose, place) in poses.iter().zip(track) {
                if let Some(place) = place {
                    views.push(*pose);
                    xy.push(Point2::from(*place));
                }
            }
            triangulate(&views, &xy).unwrap_or_else(|| far(&views[0], &xy[0]))
        };
        self.xy.iter().map(one).collect()
    }

    fn bundle(&self, poses: &[Isometry3<f64>; WINDOW]) -> Bundle {
        let views =
            poses.iter().enumerate().map(|(k, pose)| if k == 0 { View::held(*pose) } else { View::free(*pose) });
        Bundle { views: views.collect(), points: self.triangulated(poses), observations: self.observations() }
    }

    /// The tracks whose places lie within so many pixels of where poses put them, as far as two pictures still show them.
    fn within(&self, poses: &[Isometry3<f64>; WINDOW], px: f64) -> Self {
        let squares = self.bundle(poses).squares(&self.focal);
        let mut square = squares.iter();
        let mut near = self.clone();
        for xy in near.xy.iter_mut().flatten().filter(|xy| xy.is_some()) {
            if square.next().is_none_or(|square| *square >= px * px) {
                *xy = None;
            }
        }
        let kept: Vec<usize> = (0..near.xy.len()).filter(|k| near.xy[*k].iter().flatten().count() >= 2).collect();
        near.only(&kept)
    }

    fn options(&self, iterations: usize) -> Options {
        Options { focal: self.focal, loss_px: LOSS_PX, iterations, min_gain: MIN_GAIN, turn_only: false }
    }

    /// Those for residuals of this standard deviation.
    fn options_for(&self, sigma_px: f64) -> Options {
        Options { loss_px: loss_px(sigma_px), ..self.options(ITERATIONS) }
    }

    /// At most `count` of the tracks, those that most pictures show, in their order.
    fn longest(&self, count: usize) -> Self {
        let mut order: Vec<usize> = (0..self.xy.len()).collect();
        let length = |k: &usize| self.xy[*k].iter().flatten().count();
        // Tracks are in the order of cells and strength: every n-th is spread over the picture.
        order.sort_by_key(|k| std::cmp::Reverse(length(k)));
        let full = order.iter().take_while(|k| length(k) == WINDOW).count();
        let chosen: Vec<usize> = if full > count {
            (0..count).map(|k| order[k * full / count]).collect()
        } else {
            order.into_iter().take(count).collect()
        };
        self.only(&chosen)
    }
}

/// The point at infinity on a ray.
fn far(camera_from_world: &Isometry3<f64>, xy: &Point2<f64>) -> Vector4<f64> {
    let ray = camera_from_world.rotation.inverse() * xy.to_homogeneous().normalize();
    ray.push(0.0)
}

/// The poses that tracks tell, of pixels of a camera; see [`solve`].
///
/// # Errors
/// A [`Refusal`] where they do not tell them.
pub fn solve_tracks(tracks: &Tracks, intrinsics: &Intrinsics, prior: Option<&Prior>) -> Result<Solved, Refusal> {
    with_prior(Points::new(tracks, intrinsics), None, prior)
}

/// The poses that tracks of these pictures tell; see [`solve`].
pub(crate) fn solve_tracks_of(tracks: &Tracks, pictures: &[Picture; WINDOW]) -> Result<Solved, Refusal> {
    with_prior(Points::new(tracks, pictures[0].intrinsics()), Some(pictures), None)
}

/// The points' own answer and what was believed, joined by their information.
fn with_prior(points: Points, pictures: Option<&[Picture; WINDOW]>, prior: Option<&Prior>) -> Result<Solved, Refusal> {
    let Some(prior) = prior else { return solve_points(points, pictures, None).map(|(solved, ..)| solved) };
    let believed = prior.trajectory.anchor_from_camera().map(|pose| pose.isometry().inverse());
    let informations = prior.covariance.map(|own| own.try_inverse().unwrap_or_else(Matrix6::zeros));
    let from_tracks = solve_points(points.clone(), pictures, Some(&believed));
    let (poses, used, sigma_px, parallax_px, motion) = match from_tracks {
        Ok((solved, bundle, used)) => {
            let mut poses: [Isometry3<f64>; WINDOW] = std::array::from_fn(|k| bundle.views[k].camera_from_world);
            let factor = length_of(&believed, &poses, &informations);
            for pose in &mut poses {
                pose.translation.vector *= factor;
            }
            let in_unit = solved.in_unit_of(&poses);
            if solved.motion == Motion::Moved && contradicts(&in_unit, &poses, &believed, &prior.covariance) {
                return Ok(in_unit);
            }
            (poses, used, solved.sigma_px, solved.parallax_px, solved.motion)
        }
        Err(_) => {
            // Points near where the prior puts them; a coarse prior is some pixels off.
            let used = points.within(&believed, NEAR_PX);
            if used.xy.is_empty() {
                return Ok(of_prior(prior));
            }
            (believed, used, FEW_SIGMA_PX, f64::NAN, Motion::Moved)
        }
    };
    let variance = sigma_px * sigma_px;
    let mut bundle = used.bundle(&poses);
    for (k, view) in bundle.views.iter_mut().enumerate().skip(1) {
        view.prior = Some(PosePrior { camera_from_world: believed[k], information: informations[k - 1] * variance });
    }
    bundle.adjust(&used.options_for(sigma_px));
    let mut solved = finish(&bundle, &used, motion, parallax_px, Some(variance));
    let scarce = solved.observations < 2 * WINDOW * LEAST_POINTS;
    solved.carried = if scarce { Carried::Prior } else { Carried::Both };
    Ok(solved)
}

/// The factor that brings the lengths of `poses` to those believed, by their information.
fn length_of(
    believed: &[Isometry3<f64>; WINDOW],
    poses: &[Isometry3<f64>; WINDOW],
    informations: &[Matrix6<f64>; WINDOW - 1],
) -> f64 {
    let (mut top, mut bottom) = (0.0, 0.0);
    for k in 1..WINDOW {
        let weight = informations[k - 1].fixed_view::<3, 3>(3, 3);
        let (t, b) = (poses[k].translation.vector, believed[k].translation.vector);
        top += t.dot(&(weight * b));
        bottom += t.dot(&(weight * t));
    }
    let factor = if bottom > 0.0 { top / bottom } else { 1.0 };
    // The wrong way round: the lengths alone.
    let length = |poses: &[Isometry3<f64>; WINDOW]| -> f64 {
        poses.iter().map(|pose| pose.translation.vector.norm_squared()).sum::<f64>().sqrt()
    };
    if factor > 0.0 { factor } else { length(believed) / length(poses).max(1e-12) }
}

/// Whether the tracks' poses, in the prior's unit, differ from it by more than both their covariances allow.
fn contradicts(
    solved: &Solved,
    poses: &[Isometry3<f64>; WINDOW],
    believed: &[Isometry3<f64>; WINDOW],
    covariance: &[Matrix6<f64>; WINDOW - 1],
) -> bool {
    (1..WINDOW).any(|k| {
        let step = step_between(&believed[k], &poses[k]);
        let at = 6 * (k - 1);
        let both = covariance[k - 1] + solved.covariance.fixed_view::<6, 6>(at, at);
        both.try_inverse().is_none_or(|inverse| step.dot(&(inverse * step)) > CONTRADICTION)
    })
}

fn of_prior(prior: &Prior) -> Solved {
    let mut covariance = DMatrix::zeros(6 * (WINDOW - 1), 6 * (WINDOW - 1));
    for (k, own) in prior.covariance.iter().enumerate() {
        covariance.fixed_view_mut::<6, 6>(6 * k, 6 * k).copy_from(own);
    }
    Solved {
        trajectory: prior.trajectory,
        covariance,
        carried: Carried::Prior,
        motion: Motion::Moved,
        points: 0,
        observations: 0,
        sigma_px: f64::NAN,
        parallax_px: f64::NAN,
        angle: 0.0,
    }
}

fn solve_points(
    points: Points,
    pictures: Option<&[Picture; WINDOW]>,
    believed: Option<&[Isometry3<f64>; WINDOW]>,
) -> Result<(Solved, Bundle, Points), Refusal> {
    if points.xy.len() < LEAST_TRACKS {
        return Err(Refusal::FewTracks { got: points.xy.len() });
    }
    for index in 0..WINDOW {
        let got = points.xy.iter().filter(|track| track[index].is_some()).count();
        if got < LEAST_POINTS {
            return Err(Refusal::FewPoints { index, got });
        }
    }
    let few = points.longest(START_TRACKS);
    let pairs = ranked_pairs(&points);
    let parallax_px = pairs.iter().map(|pair| pair.parallax_px).fold(0.0, f64::max);
    let mut starts = starts(&few, &pairs);
    starts.extend(believed);
    // All a little way, then the best to where they can be told apart.
    let mut tried: Vec<(f64, [Isometry3<f64>; WINDOW])> = starts.iter().map(|poses| (0.0, *poses)).collect();
    for (count, iterations) in [(usize::MAX, FIRST_ITERATIONS), (BEST_STARTS, START_ITERATIONS)] {
        tried.truncate(count);
        for (cost, poses) in &mut tried {
            let mut bundle = few.bundle(poses);
            *cost = bundle.adjust(&few.options(iterations));
            *poses = std::array::from_fn(|k| bundle.views[k].camera_from_world);
        }
        tried.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    let (least, best) = *tried.first().ok_or(Refusal::NoStart)?;
    let mut chosen = refined(&points, pictures, &best)?;
    // Other motions that explain the points about as well go the whole way too.
    let mut followed = vec![best];
    let mut doubt = None;
    for (_, poses) in tried.iter().skip(1).filter(|(cost, _)| *cost < RIVAL_COST * least) {
        if followed.len() > RIVALS || !followed.iter().all(|other| differ(other, poses)) {
            continue;
        }
        followed.push(*poses);
        let Ok(other) = refined(&points, pictures, poses) else { continue };
        if !differ(&chosen.poses(), &other.poses()) {
            continue;
        }
        // At one scale of the loss, and with what each leaves out at the price of the worst that stays.
        let loss_px = chosen.loss_px.max(other.loss_px);
        let (own, theirs) = (chosen.cost_of_all(loss_px), other.cost_of_all(loss_px));
        let is_better = theirs < own;
        let margin = RIVAL_MARGIN * chosen.sigma_px * chosen.sigma_px + RIVAL_SHARE * own.min(theirs);
        let (better, worse) = if is_better { (other, chosen) } else { (chosen, other) };
        if (own - theirs).abs() < margin {
            doubt = Some(worse.poses());
        } else if is_better {
            doubt = None;
        }
        chosen = better;
    }
    if parallax_px < SURE_PARALLAX_PX
        && let Some((turned, used)) = only_turned(&chosen, pictures, parallax_px)
    {
        return Ok((finish(&turned, &used, Motion::Turned, parallax_px, None), turned, used));
    }
    let Refined { bundle, used, .. } = chosen;
    let mut solved = finish(&bundle, &used, Motion::Moved, parallax_px, None);
    if let Some(other) = doubt {
        solved.doubted(&bundle, &other);
    }
    Ok((solved, bundle, used))
}

/// The window as a turn alone, where translation explains no more than noise and the tracks' own errors do. Alignment in
/// a shape that is not quite that of the surface shifts all tracks by some hundredths of a pixel, as a motion would. Were
/// there only a turn, the shape of each patch would be known exactly: before a motion is believed, patches are aligned in it.
fn only_turned(chosen: &Refined, pictures: Option<&[Picture; WINDOW]>, parallax_px: f64) -> Option<(Bundle, Points)> {
    // Of the pixels that the camera has, where they were made more.
    let enlarged = pictures.map_or(1.0, |[first, ..]| first.intrinsics().fx / first.given_intrinsics().fx);
    let systematic_px = SYSTEMATIC_PX * enlarged.max(1.0);
    let (turned, turned_cost) = turn_only(&chosen.bundle, &chosen.used, chosen.loss_px);
    if parallax_px < LEAST_PARALLAX_PX || is_noise(&chosen.bundle, chosen.cost, turned_cost, systematic_px) {
        return Some((turned, chosen.used.clone()));
    }
    if gained(&chosen.bundle, chosen.cost, turned_cost) > SURE_GAIN_PX * SURE_GAIN_PX {
        return None;
    }
    let mut points = chosen.used.clone();
    let poses: [Isometry3<f64>; WINDOW] = std::array::from_fn(|k| turned.views[k].camera_from_world);
    realigned(&mut points, pictures?, &poses, &turned.points, LEAST_CHANGE_OF_TURN);
    let mut moved = Bundle { observations: points.observations(), ..chosen.bundle.clone() };
    let options = Options { loss_px: chosen.loss_px, ..points.options(ITERATIONS) };
    let cost = moved.adjust(&options);
    let (turned, turned_cost) = turn_only(&moved, &points, chosen.loss_px);
    is_noise(&moved, cost, turned_cost, systematic_px).then_some((turned, points))
}

/// What a depth for each point and eleven parameters of translation gain, each, square pixels.
fn gained(moved: &Bundle, cost: f64, turned_cost: f64) -> f64 {
    (turned_cost - cost) / (moved.points.len() as f64 + 11.0)
}

/// Whether what a depth for each point and eleven parameters of translation gain is no more than noise would give them.
fn is_noise(moved: &Bundle, cost: f64, turned_cost: f64, systematic_px: f64) -> bool {
    let (observed, sought) = freedom(moved);
    // What noise costs is not less than what the tracks' own errors do that are the same in all residuals.
    let noise = (cost / (observed - sought).max(1.0)).max(systematic_px * systematic_px);
    gained(moved, cost, turned_cost) < MIN_F * noise
}

/// A window that was adjusted to the end.
struct Refined {
    bundle: Bundle,
    used: Points,
    cost: f64,
    loss_px: f64,
    sigma_px: f64,
    /// Observations that are not in it.
    left_out: usize,
}

impl Refined {
    /// The robust cost at a scale of the loss, with that of what was left out.
    fn cost_of_all(&self, loss_px: f64) -> f64 {
        let square = loss_px * loss_px;
        let worst = square * (OUTLIER_PX * OUTLIER_PX / square).ln_1p();
        self.bundle.cost(&Options { loss_px, ..self.used.options(0) }) + self.left_out as f64 * worst
    }

    fn poses(&self) -> [Isometry3<f64>; WINDOW] {
        std::array::from_fn(|k| self.bundle.views[k].camera_from_world)
    }
}

/// From a start to the end: adjusted, places aligned anew, outliers chosen anew, adjusted with a loss that fits.
fn refined(
    points: &Points,
    pictures: Option<&[Picture; WINDOW]>,
    start: &[Isometry3<f64>; WINDOW],
) -> Result<Refined, Refusal> {
    let (bundle, used, _) = settled(points, start, LOSS_PX, MIN_GAIN_BEFORE)?;
    let sigma_px = sigma_px(&bundle, &used);
    let poses = std::array::from_fn(|k| bundle.views[k].camera_from_world);
    let mut points = points.clone();
    if let Some(pictures) = pictures {
        let solid = points.triangulated(&poses);
        realigned(&mut points, pictures, &poses, &solid, LEAST_CHANGE);
    }
    let loss_px = points.options_for(sigma_px).loss_px;
    let (bundle, used, cost) = settled(&points, &poses, loss_px, MIN_GAIN)?;
    let count = |points: &Points| points.xy.iter().flatten().flatten().count();
    let left_out = count(&points) - count(&used);
    Ok(Refined { bundle, used, cost, loss_px, sigma_px, left_out })
}

/// Whether two motions are different answers: the same turn to a degree and the same way to ten are one.
fn differ(a: &[Isometry3<f64>; WINDOW], b: &[Isometry3<f64>; WINDOW]) -> bool {
    (1..WINDOW).any(|k| {
        let way = |poses: &[Isometry3<f64>; WINDOW]| (poses[k].inverse()).translation.vector;
        a[k].rotation.angle_to(&b[k].rotation) > 1_f64.to_radians() || way(a).angle(&way(b)) > 10_f64.to_radians()
    })
}

/// Adjusted cameras and points, the tracks that they stand on, and the cost that is left.
fn settled(
    points: &Points,
    poses: &[Isometry3<f64>; WINDOW],
    loss_px: f64,
    min_gain: f64,
) -> Result<(Bundle, Points, f64), Refusal> {
    let used = points.within(poses, OUTLIER_PX);
    for index in 0..WINDOW {
        let got = used.xy.iter().filter(|track| track[index].is_some()).count();
        if got < LEAST_POINTS {
            return Err(Refusal::FewPoints { index, got });
        }
    }
    let mut bundle = used.bundle(poses);
    let cost = bundle.adjust(&Options { loss_px, min_gain, ..used.options(ITERATIONS) });
    Ok((bundle, used, cost))
}

/// Aligns places anew where the motion says that a patch changes its shape, where a point was recognised only, and where
/// it was lost although it should be seen.
fn realigned(
    points: &mut Points,
    pictures: &[Picture; WINDOW],
    poses: &[Isometry3<f64>; WINDOW],
    solid: &[Vector4<f64>],
    least_change: f32,
) {
    // Where each is in the picture that defines it, and how near.
    let seen: Vec<Option<Vector3<f64>>> = solid
        .iter()
        .enumerate()
        .map(|(index, point)| {
            let origin = points.origins[index].0;
            let own = points.xy[index][origin]?;
            let inside = poses[origin].rotation * point.xyz() + poses[origin].translation.vector * point.w;
            (inside.z > 1e-6).then(|| own.push(point.w / inside.z))
        })
        .collect();
    for index in 0..solid.len() {
        let (origin, is_coarse) = points.origins[index];
        let Some(near) = seen[index] else { continue };
        let (own, nearness) = (near.xy(), near.z);
        let others = (0..solid.len()).filter(|k| *k != index && points.origins[*k].0 == origin);
        let slope = slope(&near, others.filter_map(|k| seen[k]), points.mean_focal());
        for k in (0..WINDOW).filter(|k| *k != origin) {
            let Some((expected, shape)) =
                expected(&points.camera, &(poses[k] * poses[origin].inverse()), &own, nearness, &slope)
            else {
                continue;
            };
            let seen = points.xy[index][k];
            let change = (shape - Matrix2::identity()).norm();
            if seen.is_some() && !is_coarse && change < least_change {
                continue;
            }
            let at = points.pixel(&own);
            let reach = if is_coarse { COARSE_REACH_PX } else { REACH_PX };
            let found = realign(&pictures[origin], at, &pictures[k], expected, &shape, reach);
            match found {
                Some(place) => points.xy[index][k] = Some(pictures[k].normalised(&place)),
                // What was recognised and cannot be aligned is too coarse to stay.
                None if is_coarse => points.xy[index][k] = None,
                None => (),
            }
        }
    }
}

impl Solved {
    /// Widens the covariance so that it reaches another motion that explains the points as well.
    fn doubted(&mut self, bundle: &Bundle, other: &[Isometry3<f64>; WINDOW]) {
        let length = |poses: &dyn Fn(usize) -> f64| (1..WINDOW).map(|k| poses(k).powi(2)).sum::<f64>().sqrt();
        let own = length(&|k| self.trajectory.anchor_from_camera()[k].translation().norm());
        let (before, theirs) = (
            length(&|k| bundle.views[k].camera_from_world.translation.vector.norm()),
            length(&|k| other[k].translation.vector.norm()),
        );
        let mut step = DVector::zeros(6 * (WINDOW - 1));
        for (k, other) in other.iter().enumerate().skip(1) {
            let scaled = |pose: &Isometry3<f64>, length: f64| {
                let mut pose = *pose;
                pose.translation.vector *= own / length.max(1e-12);
                pose
            };
            let difference = step_between(&scaled(&bundle.views[k].camera_from_world, before), &scaled(other, theirs));
            step.rows_mut(6 * (k - 1), 6).copy_from(&difference);
        }
        // Each is as likely: half of the way between them squared, on both sides.
        self.covariance += &step * step.transpose() * 0.5;
    }

    /// The same in the unit of other poses, which differ by a factor of their translations.
    fn in_unit_of(&self, camera_from_anchor: &[Isometry3<f64>; WINDOW]) -> Self {
        let length = |t: &dyn Fn(usize) -> f64| (1..WINDOW).map(t).sum::<f64>();
        let own = length(&|k| self.trajectory.anchor_from_camera()[k].translation().norm());
        let other = length(&|k| camera_from_anchor[k].translation.vector.norm());
        let factor = if own > 0.0 { other / own } else { 1.0 };
        let mut covariance = self.covariance.clone();
        for k in (0..covariance.nrows()).filter(|k| k % 6 >= 3) {
            covariance.row_mut(k).scale_mut(factor);
            covariance.column_mut(k).scale_mut(factor);
        }
        Self { trajectory: self.trajectory.scaled(factor), covariance, ..self.clone() }
    }
}

/// The adjusted cameras in their final unit, with what is known of their errors; `known_variance` is that of a pixel
/// where there is a prior, which also gives the unit.
fn finish(bundle: &Bundle, points: &Points, motion: Motion, parallax_px: f64, known_variance: Option<f64>) -> Solved {
    let variance = known_variance.unwrap_or_else(|| sigma_px(bundle, points).powi(2));
    let options = points.options_for(variance.sqrt());
    let (scale, mut covariance) = match (motion, known_variance) {
        (Motion::Moved, None) => {
            let along = DVector::from_fn(6 * (WINDOW - 1), |k, _| {
                let way = bundle.views[k / 6 + 1].camera_from_world.translation.vector;
                if k % 6 >= 3 { way[k % 6 - 3] } else { 0.0 }
            });
            (nearness(bundle, points), bundle.covariance(&options, variance, Some(&along)) * ALIKE)
        }
        // Where the camera only turned, points are a unit away for all that is known: so far it may have gone.
        (Motion::Turned, None) => {
            let mut bundle = bundle.clone();
            for point in &mut bundle.points {
                *point = (point.xyz().normalize()).push(1.0).normalize();
            }
            (1.0, inverse(bundle.information_of_poses(&points.options(0)), None) * variance)
        }
        (_, Some(_)) => (1.0, inverse(bundle.information(&options), None) * variance),
    };
    for k in (0..covariance.nrows()).filter(|k| k % 6 >= 3) {
        covariance.row_mut(k).scale_mut(scale);
        covariance.column_mut(k).scale_mut(scale);
    }
    let mut trajectory = WindowTrajectory::identity();
    for (pose, view) in trajectory.later_mut().iter_mut().zip(&bundle.views[1..]) {
        let mut camera_from_anchor = view.camera_from_world;
        camera_from_anchor.translation.vector *= scale;
        *pose = Transform::<Anchor, Camera>::from_isometry_unchecked(camera_from_anchor.inverse());
    }
    Solved {
        trajectory,
        covariance,
        carried: Carried::Tracks,
        motion,
        points: bundle.points.len(),
        observations: bundle.observations.len(),
        sigma_px: variance.sqrt(),
        parallax_px,
        angle: median_angle(bundle, points),
    }
}

/// Scale of the Cauchy loss, pixels, for residuals of this standard deviation.
pub(crate) fn loss_px(sigma_px: f64) -> f64 {
    (EFFICIENT * sigma_px).clamp(LEAST_LOSS_PX, MOST_LOSS_PX)
}

/// Numbers that are observed and numbers that are sought.
fn freedom(bundle: &Bundle) -> (f64, f64) {
    (2.0 * bundle.observations.len() as f64, 3.0 * bundle.points.len() as f64 + 23.0)
}

/// Standard deviation of an image coordinate, pixels. Robust: of residuals that are Gaussian in two dimensions, with what
/// the unknowns took of them.
fn sigma_px(bundle: &Bundle, points: &Points) -> f64 {
    let squares = bundle.squares(&points.focal);
    if squares.is_empty() {
        return FEW_SIGMA_PX;
    }
    let (observed, sought) = freedom(bundle);
    robust_sigma_px(squares, observed, sought)
}

/// The standard deviation that squared errors, not none, tell by their median, of so many numbers observed and sought.
pub(crate) fn robust_sigma_px(mut squares: Vec<f64>, observed: f64, sought: f64) -> f64 {
    let middle = squares.len() / 2;
    let median = *squares.select_nth_unstable_by(middle, f64::total_cmp).1;
    let variance = median / (2.0 * std::f64::consts::LN_2) * observed / (observed - sought).max(1.0);
    variance.sqrt().max(LEAST_SIGMA_PX)
}

/// The inverse of the median depth of the points that frame 0 sees.
fn nearness(bundle: &Bundle, points: &Points) -> f64 {
    let seen = bundle.points.iter().zip(&points.xy).filter(|(_, track)| track[0].is_some());
    let mut inverse: Vec<f64> = seen.map(|(point, _)| point.w / point.z.max(1e-6)).collect();
    let middle = inverse.len() / 2;
    if inverse.is_empty() { 1.0 } else { inverse.select_nth_unstable_by(middle, f64::total_cmp).1.max(1e-3) }
}

fn median_angle(bundle: &Bundle, points: &Points) -> f64 {
    let ray = |view: usize, xy: &Vector2<f64>| {
        bundle.views[view].camera_from_world.rotation.inverse() * Point2::from(*xy).to_homogeneous()
    };
    let mut angles: Vec<f64> = points
        .xy
        .iter()
        .filter_map(|track| {
            let first = track.iter().position(Option::is_some)?;
            let last = track.iter().rposition(Option::is_some)?;
            Some(ray(first, track[first].as_ref()?).angle(&ray(last, track[last].as_ref()?)))
        })
        .collect();
    let middle = angles.len() / 2;
    if angles.is_empty() { 0.0 } else { *angles.select_nth_unstable_by(middle, f64::total_cmp).1 }
}

/// Two pictures, and what their tracks say.
struct Pair {
    i: usize,
    j: usize,
    common: usize,
    parallax_px: f64,
    turn: UnitQuaternion<f64>,
}

/// Pairs of pictures, those with many points and a large parallax first.
fn ranked_pairs(points: &Points) -> Vec<Pair> {
    let mut pairs = Vec::new();
    for (i, j) in [(0, 4), (0, 3), (1, 4), (0, 2), (2, 4), (1, 3), (0, 1), (1, 2), (2, 3), (3, 4)] {
        let (a, b) = points.pairs(i, j);
        if a.len() < LEAST_POINTS {
            continue;
        }
        let rays =
            |xy: &[Point2<f64>]| xy.iter().map(|p| p.to_homogeneous().normalize()).collect::<Vec<Vector3<f64>>>();
        let (rays_a, rays_b) = (rays(&a), rays(&b));
        let focal = points.mean_focal();
        let Some(found) = rotation_between(&rays_a, &rays_b, ROTATION_PX / focal, 7) else { continue };
        let mut left: Vec<f64> =
            rays_a.iter().zip(&rays_b).map(|(a, b)| (found.b_from_a * a - b).norm() * focal).collect();
        let middle = left.len() / 2;
        let parallax_px = *left.select_nth_unstable_by(middle, f64::total_cmp).1;
        pairs.push(Pair { i, j, common: a.len(), parallax_px, turn: found.b_from_a });
    }
    let worth = |pair: &Pair| pair.common as f64 * pair.parallax_px.min(20.0);
    pairs.sort_by(|a, b| worth(b).total_cmp(&worth(a)));
    pairs
}

/// Poses of all five pictures to start from: `camera_from_anchor`, the largest translation 1.
fn starts(points: &Points, pairs: &[Pair]) -> Vec<[Isometry3<f64>; WINDOW]> {
    let threshold = EPIPOLAR_PX / points.mean_focal();
    let options = RobustOptions { threshold, max_iterations: 400, confidence: 0.999, seed: 7 };
    let turn = |k: usize| {
        let pair = pairs.iter().find(|pair| pair.i == 0 && pair.j == k);
        pair.map_or_else(UnitQuaternion::identity, |pair| pair.turn)
    };
    let mut starts = Vec::new();
    for pair in pairs.iter().take(START_PAIRS) {
        let (a, b) = points.pairs(pair.i, pair.j);
        let Some(found) = estimate_essential(&a, &b, &options, &[]) else { continue };
        if found.inlier_count() < LEAST_POINTS {
            continue;
        }
        for ranked in alternatives(&found, &a, &b, threshold).iter().take(START_ALTERNATIVES) {
            starts.extend(registered(points, pair, &ranked.b_from_a, &turn));
        }
    }
    // Along each axis, turning as far points do: where noise and a small motion leave two pictures with no answer.
    for axis in [Vector3::x_axis(), Vector3::y_axis(), Vector3::z_axis()] {
        for side in [START_WAY, -START_WAY] {
            let way = |k: usize| Translation3::from(axis.into_inner() * (side * k as f64 / (WINDOW - 1) as f64));
            starts.push(std::array::from_fn(|k| Isometry3::from_parts(way(k), turn(k))));
        }
    }
    starts
}

/// All poses from the pose of picture j in picture i.
fn registered(
    points: &Points,
    pair: &Pair,
    j_from_i: &Isometry3<f64>,
    turn: &impl Fn(usize) -> UnitQuaternion<f64>,
) -> Option<[Isometry3<f64>; WINDOW]> {
    // The world is picture i's camera.
    let (mut known, mut tracks) = (Vec::new(), Vec::new());
    for track in &points.xy {
        let (Some(a), Some(b)) = (track[pair.i], track[pair.j]) else { continue };
        let point = triangulate(&[Isometry3::identity(), *j_from_i], &[a.into(), b.into()]);
        if let Some(point) = point.as_ref().filter(|p| p.w > 1e-4).and_then(euclidean) {
            known.push(point);
            tracks.push(track);
        }
    }
    let threshold = OUTLIER_PX / points.mean_focal();
    let options = RobustOptions { threshold, max_iterations: 60, confidence: 0.99, seed: 7 };
    let mut poses = [Isometry3::identity(); WINDOW];
    poses[pair.j] = *j_from_i;
    for k in (0..WINDOW).filter(|k| *k != pair.i && *k != pair.j) {
        let (seen, xy): (Vec<_>, Vec<_>) =
            known.iter().zip(&tracks).filter_map(|(p, track)| Some((*p, Point2::from(track[k]?)))).unzip();
        let share = (k as f64 - pair.i as f64) / (pair.j as f64 - pair.i as f64);
        let rotation = turn(k) * turn(pair.i).inverse();
        let guess = Isometry3::from_parts(Translation3::from(j_from_i.translation.vector * share), rotation);
        let found = estimate_pose(&seen, &xy, &options, &[guess])?;
        if found.inlier_count() < 6 {
            return None;
        }
        poses[k] = found.camera_from_world;
    }
    let anchor = poses[0].inverse();
    let poses = poses.map(|pose| pose * anchor);
    let longest = poses.iter().map(|pose| pose.translation.vector.norm()).fold(1e-12, f64::max);
    Some(poses.map(|mut pose| {
        pose.translation.vector /= longest;
        pose
    }))
}

/// The same cameras turning alone, with all points at infinity, and their cost.
fn turn_only(bundle: &Bundle, points: &Points, loss_px: f64) -> (Bundle, f64) {
    let mut turned = bundle.clone();
    for view in &mut turned.views {
        view.camera_from_world.translation.vector = Vector3::zeros();
    }
    for (point, track) in turned.points.iter_mut().zip(&points.xy) {
        if let Some((view, xy)) = track.iter().enumerate().find_map(|(k, xy)| Some((k, (*xy)?))) {
            *point = far(&turned.views[view].camera_from_world, &xy.into());
        }
    }
    let cost = turned.adjust(&Options { turn_only: true, loss_px, ..points.options(ITERATIONS) });
    (turned, cost)
}
