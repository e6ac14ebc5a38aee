//! Bundle adjustment of a few cameras: poses and points that leave the least robust reprojection error.
//!
//! Levenberg-Marquardt on the Cauchy loss, with the points eliminated from the normal equations (the Schur complement;
//! Triggs et al., "Bundle Adjustment: A Modern Synthesis", 2000, sections 6 and 10), so that an iteration solves one dense system
//! of six unknowns a free camera. Points are homogeneous and of unit norm, which keeps those at infinity harmless;
//! their three unknowns are steps in the tangent space of the sphere (Hartley and Zisserman, 2nd ed., A6.9.3).
//!
//! What it leaves out: intrinsics are known, all views share one camera, and cameras are few (the system is dense).

use nalgebra::{
    DMatrix, DVector, Isometry3, Matrix2x3, Matrix3, Matrix4x3, Matrix6, Matrix6x3, Translation3, UnitQuaternion,
    Vector2, Vector3, Vector4, Vector6,
};

/// Depth, in units of a point's norm, at or below which a point counts as behind the camera.
const MIN_DEPTH: f64 = 1e-6;
/// The squared error of an observation whose point is behind its camera, pixels.
const BEHIND: f64 = 1e8;
/// What is added to each diagonal of the normal equations, so that unknowns without observations stay where they are.
const FLOOR: f64 = 1e-9;
/// The same of a point's share that the other points have to tell: one that nothing but itself tells counts a hundredfold.
const LEVERAGE_FLOOR: f64 = 0.01;
/// The same of an information matrix, of its mean; and the variance where it has no inverse.
const INFORMATION_FLOOR: f64 = 1e-12;
const UNKNOWN: f64 = 1e6;
/// Dampings that are tried before an iteration gives up.
const TRIALS: usize = 8;

/// Where points are seen, point after point.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observations {
    /// Where the observations of each point begin; one entry more than there are points.
    starts: Vec<u32>,
    /// View and place of each observation, normalised image coordinates (`(u - cx) / fx`, `(v - cy) / fy`).
    seen: Vec<(u32, Vector2<f64>)>,
}

impl Observations {
    /// Of no point.
    pub fn new() -> Self {
        Self { starts: vec![0], seen: Vec::new() }
    }

    /// Adds a point that is seen at these places, in normalised coordinates, of these views.
    pub fn push(&mut self, seen: impl IntoIterator<Item = (usize, Vector2<f64>)>) {
        if self.starts.is_empty() {
            self.starts.push(0);
        }
        self.seen.extend(seen.into_iter().map(|(view, xy)| (view as u32, xy)));
        self.starts.push(self.seen.len() as u32);
    }

    /// How many points there are.
    pub fn points(&self) -> usize {
        self.starts.len().saturating_sub(1)
    }

    /// How many observations there are.
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// Views and places of a point.
    ///
    /// # Panics
    /// Where there is no such point.
    pub fn of(&self, point: usize) -> &[(u32, Vector2<f64>)] {
        &self.seen[self.starts[point] as usize..self.starts[point + 1] as usize]
    }

    /// Where the observations of a point begin in the list of all of them.
    pub fn start(&self, point: usize) -> usize {
        self.starts[point] as usize
    }
}

/// What is believed of a camera before its pictures are seen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PosePrior {
    /// The pose.
    pub camera_from_world: Isometry3<f64>,
    /// Inverse covariance of a step from it, rotation (radians) before translation (units of the world), in the
    /// camera's axes, times the variance of a pixel: residuals are in pixels.
    pub information: Matrix6<f64>,
}

/// A camera of the problem.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct View {
    /// Its pose.
    pub camera_from_world: Isometry3<f64>,
    /// Whether the pose may change.
    pub is_free: bool,
    /// What is believed of it.
    pub prior: Option<PosePrior>,
}

impl View {
    /// A camera whose pose may change and of which nothing is believed.
    pub fn free(camera_from_world: Isometry3<f64>) -> Self {
        Self { camera_from_world, is_free: true, prior: None }
    }

    /// A camera that stays.
    pub fn held(camera_from_world: Isometry3<f64>) -> Self {
        Self { camera_from_world, is_free: false, prior: None }
    }
}

/// How it is adjusted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// Focal lengths, pixels.
    pub focal: Vector2<f64>,
    /// Scale of the Cauchy loss, pixels.
    pub loss_px: f64,
    /// Most iterations.
    pub iterations: usize,
    /// Relative gain below which it ends.
    pub min_gain: f64,
    /// Keep all points at infinity and all translations: the cameras only turn.
    pub turn_only: bool,
}

/// Cameras and points.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bundle {
    /// The cameras.
    pub views: Vec<View>,
    /// Homogeneous points in the world, of unit norm and `w >= 0`.
    pub points: Vec<Vector4<f64>>,
    /// Where they are seen; as many points.
    pub observations: Observations,
}

/// The error of one observation.
#[derive(Clone, Copy)]
struct Seen {
    /// The point in the camera.
    inside: Vector3<f64>,
    /// Error in pixels.
    residual: Vector2<f64>,
    /// Its square.
    square: f64,
}

#[inline(always)]
fn seen(
    pose: &Isometry3<f64>,
    rotation: &Matrix3<f64>,
    point: &Vector4<f64>,
    xy: &Vector2<f64>,
    focal: &Vector2<f64>,
) -> Seen {
    let inside = rotation * point.xyz() + pose.translation.vector * point.w;
    let depth = inside.z.max(MIN_DEPTH);
    let residual = Vector2::new(
        ((inside.x / depth - xy.x) * focal.x).clamp(-1e4, 1e4),
        ((inside.y / depth - xy.y) * focal.y).clamp(-1e4, 1e4),
    );
    let square = if inside.z > MIN_DEPTH { residual.norm_squared() } else { BEHIND };
    Seen { inside, residual, square }
}

/// A step of three unknowns on the unit sphere of four: the last columns of the Householder reflection that takes the
/// point to the first axis (Hartley and Zisserman, A6.9.3).
fn tangent(point: &Vector4<f64>) -> Matrix4x3<f64> {
    let mut mirror = *point;
    mirror.x += if point.x < 0.0 { -1.0 } else { 1.0 };
    let scale = 2.0 / mirror.norm_squared();
    Matrix4x3::from_fn(|row, column| {
        let own = if row == column + 1 { 1.0 } else { 0.0 };
        own - scale * mirror[row] * mirror[column + 1]
    })
}

/// `pose` after a step: `[exp(w) R | exp(w) t + v]`, for a step of rotation `w` before translation `v`.
pub fn stepped(pose: &Isometry3<f64>, step: &Vector6<f64>) -> Isometry3<f64> {
    let turn = UnitQuaternion::from_scaled_axis(step.fixed_rows::<3>(0).into_owned());
    let mut rotation = turn * pose.rotation;
    rotation.renormalize_fast();
    let translation = turn * pose.translation.vector + step.fixed_rows::<3>(3);
    Isometry3::from_parts(Translation3::from(translation), rotation)
}

/// The step, rotation before translation, that [`stepped`] takes from `from` to `to`.
pub fn step_between(from: &Isometry3<f64>, to: &Isometry3<f64>) -> Vector6<f64> {
    let turn = to.rotation * from.rotation.inverse();
    let w = turn.scaled_axis();
    let v = to.translation.vector - turn * from.translation.vector;
    Vector6::new(w.x, w.y, w.z, v.x, v.y, v.z)
}

/// What second derivatives are of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    /// Squares with the robust weights held.
    Squares,
    /// The loss itself.
    Loss,
}

/// Derivatives of an observation, weighted by its robust weight.
struct Derivatives {
    by_pose: nalgebra::Matrix2x6<f64>,
    by_point: Matrix2x3<f64>,
    residual: Vector2<f64>,
    /// Root of the robust weight.
    weight: f64,
}

impl Derivatives {
    #[inline(always)]
    fn new(
        pose: &Isometry3<f64>,
        rotation: &Matrix3<f64>,
        point: &Vector4<f64>,
        tangent: &Matrix4x3<f64>,
        xy: &Vector2<f64>,
        options: &Options,
    ) -> Self {
        let focal = &options.focal;
        let Seen { inside, residual, square } = seen(pose, rotation, point, xy, focal);
        let weight = (1.0 / (1.0 + square / (options.loss_px * options.loss_px))).sqrt();
        let inverse = weight / inside.z.max(MIN_DEPTH);
        let (a, b) = (focal.x * inverse, focal.y * inverse);
        // By the depth: the residual added to the place is the projection, which clamps far ones.
        let c = -(xy.x * focal.x + residual.x) * inverse;
        let d = -(xy.y * focal.y + residual.y) * inverse;
        let by_inside = Matrix2x3::new(a, 0.0, c, 0.0, b, d);
        let world = rotation * tangent.fixed_rows::<3>(0) + pose.translation.vector * tangent.row(3);
        let (x, y, z, w) = (inside.x, inside.y, inside.z, point.w);
        #[rustfmt::skip]
        let by_pose = nalgebra::Matrix2x6::new(
            y * c, z * a - x * c, -y * a, a * w, 0.0, c * w,
            y * d - z * b, -x * d, x * b, 0.0, b * w, d * w,
        );
        Self { by_pose, by_point: by_inside * world, residual: residual * weight, weight }
    }
}

/// A point as a view sees it whose pose is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Known {
    /// Homogeneous, of unit norm.
    pub point: Vector4<f64>,
    /// How well it is known from elsewhere: see [`Bundle::point_information`].
    pub information: Matrix3<f64>,
    /// Where it is seen, normalised.
    pub xy: Vector2<f64>,
}

/// The information matrix of one pose (rotation before translation, a step from the left) by points that are themselves
/// known as well as other views tell: its inverse times the variance of a pixel is the covariance against those views.
pub fn pose_information(camera_from_world: &Isometry3<f64>, points: &[Known], options: &Options) -> Matrix6<f64> {
    let rotation = camera_from_world.rotation.to_rotation_matrix().into_inner();
    let mut information = Matrix6::zeros();
    for known in points {
        let tangent = tangent(&known.point);
        let own = Derivatives::new(camera_from_world, &rotation, &known.point, &tangent, &known.xy, options);
        let mixed = own.by_pose.transpose() * own.by_point;
        let mut of_point = known.information + own.by_point.transpose() * own.by_point;
        for k in 0..3 {
            of_point[(k, k)] += FLOOR;
        }
        let inverse = of_point.try_inverse().unwrap_or_else(Matrix3::zeros);
        information += own.by_pose.transpose() * own.by_pose - mixed * inverse * mixed.transpose();
    }
    information
}

/// The normal equations with the points eliminated.
struct Normal {
    /// Before damping and elimination: six by six for each free view.
    poses: Vec<Matrix6<f64>>,
    gradient: DVector<f64>,
    /// Of each point: its 3 x 3 matrix and gradient.
    points: Vec<(Matrix3<f64>, Vector3<f64>)>,
    /// Of each observation: pose against point; zero where the view is held.
    mixed: Vec<Matrix6x3<f64>>,
    tangents: Vec<Matrix4x3<f64>>,
}

fn rotations(views: &[View]) -> Vec<Matrix3<f64>> {
    views.iter().map(|view| view.camera_from_world.rotation.to_rotation_matrix().into_inner()).collect()
}

/// The robust cost of views and points: Cauchy's loss of the reprojection errors, and the priors, square pixels.
fn cost(views: &[View], points: &[Vector4<f64>], observations: &Observations, options: &Options) -> f64 {
    let scale = options.loss_px * options.loss_px;
    let rotations = rotations(views);
    // The logarithm of a product in place of a sum of logarithms: one for eight factors, each below 1e14.
    let (mut sum, mut product, mut factors) = (0.0, 1.0_f64, 0);
    for (index, point) in points.iter().enumerate() {
        for (view, xy) in observations.of(index) {
            let pose = &views[*view as usize].camera_from_world;
            product *= 1.0 + seen(pose, &rotations[*view as usize], point, xy, &options.focal).square / scale;
            factors += 1;
            if factors == 8 {
                sum += product.ln();
                (product, factors) = (1.0, 0);
            }
        }
    }
    let of = |view: &View| {
        let prior = view.prior.as_ref().filter(|_| view.is_free)?;
        let step = step_between(&prior.camera_from_world, &view.camera_from_world);
        Some(step.dot(&(prior.information * step)))
    };
    scale * (sum + product.ln()) + views.iter().filter_map(of).sum::<f64>()
}

/// The inverse of an information matrix, along one direction (`held`) of which nothing is known and nothing sought; a huge
/// multiple of the identity where it has none.
pub fn inverse(mut information: DMatrix<f64>, held: Option<&DVector<f64>>) -> DMatrix<f64> {
    let size = information.nrows();
    let mean = information.trace() / size.max(1) as f64;
    let held = held.filter(|held| held.norm() > 0.0).map(|held| held / held.norm());
    if let Some(held) = &held {
        information.ger(mean, held, held, 1.0);
    }
    for k in 0..size {
        information[(k, k)] += INFORMATION_FLOOR * mean;
    }
    let Some(cholesky) = nalgebra::Cholesky::new(information) else {
        return DMatrix::identity(size, size) * UNKNOWN;
    };
    let mut inverse = cholesky.inverse();
    if let Some(held) = &held {
        inverse.ger(-1.0 / mean, held, held, 1.0);
    }
    inverse
}

// Products that are taken tens of thousands of times: nalgebra's are calls, which cost as much as they compute.

#[inline(always)]
fn times(a: &Matrix6x3<f64>, b: &Matrix3<f64>) -> Matrix6x3<f64> {
    let mut out = Matrix6x3::zeros();
    for column in 0..3 {
        for k in 0..3 {
            for row in 0..6 {
                out[(row, column)] += a[(row, k)] * b[(k, column)];
            }
        }
    }
    out
}

#[inline(always)]
fn times_transposed(a: &Matrix6x3<f64>, b: &Matrix6x3<f64>) -> Matrix6<f64> {
    let mut out = Matrix6::zeros();
    for column in 0..6 {
        for k in 0..3 {
            for row in 0..6 {
                out[(row, column)] += a[(row, k)] * b[(column, k)];
            }
        }
    }
    out
}

/// `a` transposed times `b`, of the two rows of an observation.
#[inline(always)]
fn squared<const R: usize, const C: usize>(
    a: &nalgebra::SMatrix<f64, 2, R>,
    b: &nalgebra::SMatrix<f64, 2, C>,
) -> nalgebra::SMatrix<f64, R, C> {
    nalgebra::SMatrix::from_fn(|row, column| a[(0, row)] * b[(0, column)] + a[(1, row)] * b[(1, column)])
}

impl Bundle {
    /// The squared reprojection error of each observation, pixels; 1e8 where the point is behind the camera.
    pub fn squares(&self, focal: &Vector2<f64>) -> Vec<f64> {
        let mut squares = Vec::with_capacity(self.observations.len());
        let rotations = rotations(&self.views);
        for (index, point) in self.points.iter().enumerate() {
            for (view, xy) in self.observations.of(index) {
                let pose = &self.views[*view as usize].camera_from_world;
                squares.push(seen(pose, &rotations[*view as usize], point, xy, focal).square);
            }
        }
        squares
    }

    /// The robust cost: Cauchy's loss of the reprojection errors, and the priors, square pixels.
    pub fn cost(&self, options: &Options) -> f64 {
        cost(&self.views, &self.points, &self.observations, options)
    }

    /// Place of each free view among the unknowns.
    fn places(&self) -> (Vec<Option<usize>>, usize) {
        let mut count = 0;
        let places = self.views.iter().map(|view| {
            view.is_free.then(|| {
                count += 1;
                count - 1
            })
        });
        (places.collect(), count)
    }

    /// Adjusts free views and points; returns the robust cost that is left.
    ///
    /// Without a prior and with one view held the scale is free; it stays about where it is, since damping keeps what
    /// no observation moves.
    ///
    /// # Panics
    /// Where an observation names a view that is not there, or there are fewer points than observed ones.
    pub fn adjust(&mut self, options: &Options) -> f64 {
        let (places, free) = self.places();
        let mut cost = self.cost(options);
        let mut damping = 1e-3;
        let mut reduced = DMatrix::zeros(6 * free, 6 * free);
        for _ in 0..options.iterations {
            let normal = self.normal(options, &places, free, Of::Squares);
            let mut taken = None;
            for _ in 0..TRIALS {
                if let Some((views, points)) = self.next(&normal, damping, options, &places, &mut reduced) {
                    let next_cost = self::cost(&views, &points, &self.observations, options);
                    if next_cost < cost {
                        taken = Some((views, points, next_cost));
                        break;
                    }
                }
                damping *= 8.0;
            }
            let Some((views, points, next_cost)) = taken else { break };
            let gain = cost - next_cost;
            (self.views, self.points, cost) = (views, points, next_cost);
            damping = (damping / 5.0_f64).max(1e-8);
            if gain < options.min_gain * cost {
                break;
            }
        }
        cost
    }

    fn normal(&self, options: &Options, places: &[Option<usize>], free: usize, of: Of) -> Normal {
        let rotations = rotations(&self.views);
        let mut normal = Normal {
            poses: vec![Matrix6::zeros(); free],
            gradient: DVector::zeros(6 * free),
            points: Vec::with_capacity(self.points.len()),
            mixed: Vec::with_capacity(self.observations.len()),
            tangents: Vec::with_capacity(self.points.len()),
        };
        for (index, point) in self.points.iter().enumerate() {
            let mut tangent = tangent(point);
            if options.turn_only {
                tangent.row_mut(3).fill(0.0);
            }
            let (mut own, mut own_gradient) = (Matrix3::zeros(), Vector3::zeros());
            for (view, xy) in self.observations.of(index) {
                let view = *view as usize;
                let pose = &self.views[view].camera_from_world;
                let Derivatives { mut by_pose, mut by_point, residual, weight } =
                    Derivatives::new(pose, &rotations[view], point, &tangent, xy, options);
                if of == Of::Loss {
                    by_pose *= weight;
                    by_point *= weight;
                }
                own += squared(&by_point, &by_point);
                own_gradient += squared(&by_point, &residual);
                let Some(place) = places[view] else {
                    normal.mixed.push(Matrix6x3::zeros());
                    continue;
                };
                normal.poses[place] += squared(&by_pose, &by_pose);
                let gradient = squared(&by_pose, &residual);
                for (k, value) in gradient.iter().enumerate() {
                    normal.gradient[6 * place + k] += value;
                }
                normal.mixed.push(squared(&by_pose, &by_point));
            }
            normal.points.push((own, own_gradient));
            normal.tangents.push(tangent);
        }
        for (view, place) in self.views.iter().zip(places) {
            if let (Some(prior), Some(place)) = (&view.prior, place) {
                let step = step_between(&prior.camera_from_world, &view.camera_from_world);
                normal.poses[*place] += prior.information;
                let gradient = prior.information * step;
                for (k, value) in gradient.iter().enumerate() {
                    normal.gradient[6 * place + k] += value;
                }
            }
        }
        normal
    }

    /// Fills `reduced` with the system of the poses alone; its right-hand side, and the inverse of each point's matrix.
    fn reduce(
        &self,
        normal: &Normal,
        damping: f64,
        places: &[Option<usize>],
        reduced: &mut DMatrix<f64>,
    ) -> (DVector<f64>, Vec<Matrix3<f64>>) {
        let free = normal.poses.len();
        let mut right = normal.gradient.clone();
        // Blocks of the upper triangle, row after row, in one list: a fixed size is what makes their products fast.
        let mut blocks = vec![Matrix6::zeros(); free * free];
        for (place, own) in normal.poses.iter().enumerate() {
            let mut own = *own;
            for k in 0..6 {
                own[(k, k)] += damping * own[(k, k)] + FLOOR;
            }
            blocks[place * free + place] = own;
        }
        let mut inverses = Vec::with_capacity(normal.points.len());
        for (index, (own, own_gradient)) in normal.points.iter().enumerate() {
            let mut damped = *own;
            for k in 0..3 {
                damped[(k, k)] += damping * damped[(k, k)] + FLOOR;
            }
            let inverse = damped.try_inverse().unwrap_or_else(Matrix3::zeros);
            let start = self.observations.start(index);
            let list = self.observations.of(index);
            for (i, (view_i, _)) in list.iter().enumerate() {
                let Some(a) = places[*view_i as usize] else { continue };
                let solved = times(&normal.mixed[start + i], &inverse);
                let change = solved * own_gradient;
                for (k, value) in change.iter().enumerate() {
                    right[6 * a + k] -= value;
                }
                for (j, (view_j, _)) in list.iter().enumerate().skip(i) {
                    let Some(b) = places[*view_j as usize] else { continue };
                    let block = times_transposed(&solved, &normal.mixed[start + j]);
                    if a <= b {
                        blocks[a * free + b] -= block;
                    } else {
                        blocks[b * free + a] -= block.transpose();
                    }
                }
            }
            inverses.push(inverse);
        }
        for row in 0..free {
            for column in row..free {
                let block = &blocks[row * free + column];
                reduced.fixed_view_mut::<6, 6>(6 * row, 6 * column).copy_from(block);
                reduced.fixed_view_mut::<6, 6>(6 * column, 6 * row).copy_from(&block.transpose());
            }
        }
        (right, inverses)
    }

    /// Views and points after one damped step; `None` where the system has no solution.
    fn next(
        &self,
        normal: &Normal,
        damping: f64,
        options: &Options,
        places: &[Option<usize>],
        reduced: &mut DMatrix<f64>,
    ) -> Option<(Vec<View>, Vec<Vector4<f64>>)> {
        let (right, inverses) = self.reduce(normal, damping, places, reduced);
        let step = if right.is_empty() { right } else { -nalgebra::Cholesky::new(reduced.clone())?.solve(&right) };
        let mut views = self.views.clone();
        for (view, place) in views.iter_mut().zip(places) {
            let Some(place) = place else { continue };
            let mut own = Vector6::from_fn(|k, _| step[6 * place + k]);
            if options.turn_only {
                own.fixed_rows_mut::<3>(3).fill(0.0);
            }
            view.camera_from_world = stepped(&view.camera_from_world, &own);
        }
        let mut points = Vec::with_capacity(self.points.len());
        for (index, point) in self.points.iter().enumerate() {
            let start = self.observations.start(index);
            let mut gradient = normal.points[index].1;
            for (i, (view, _)) in self.observations.of(index).iter().enumerate() {
                if let Some(place) = places[*view as usize] {
                    gradient += normal.mixed[start + i].transpose() * step.fixed_rows::<6>(6 * place);
                }
            }
            let mut moved = point - normal.tangents[index] * (inverses[index] * gradient);
            moved.w = moved.w.max(0.0);
            let norm = moved.norm();
            points.push(if norm > 0.0 { moved / norm } else { *point });
        }
        Some((views, points))
    }

    /// The covariance of the free poses (six unknowns each, as [`Self::information`]), in the variance that the residuals
    /// show: whatever they are distributed like, and however those of one point go together (White 1980; Liang and Zeger
    /// 1986: the "sandwich" with points as clusters). Each point's residuals are those that the others would leave it (the
    /// jackknife; Bell and McCaffrey, Survey Methodology 2002, CR3), so that few points that decide a pose do not look
    /// surer than they are. With few points it is mixed with what `variance`, that of a coordinate in square pixels, and
    /// [`Self::information`] say, which counts as many points as there are unknowns. `held` is a direction of the unknowns
    /// that no observation tells, as the scale: it has no variance. Call it where [`Self::adjust`] has come to rest.
    pub fn covariance(&self, options: &Options, variance: f64, held: Option<&DVector<f64>>) -> DMatrix<f64> {
        let (places, free) = self.places();
        let rotations = rotations(&self.views);
        let normal = self.normal(options, &places, free, Of::Loss);
        let mut curvature = DMatrix::zeros(6 * free, 6 * free);
        self.reduce(&normal, 0.0, &places, &mut curvature);
        let inverse = inverse(curvature, held);
        let mut sum = DMatrix::zeros(6 * free, 6 * free);
        let mut own: Vec<(Option<usize>, Derivatives)> = Vec::new();
        for (index, point) in self.points.iter().enumerate() {
            let tangent = tangent(point);
            own.clear();
            for (view, xy) in self.observations.of(index) {
                let view = *view as usize;
                let pose = &self.views[view].camera_from_world;
                own.push((places[view], Derivatives::new(pose, &rotations[view], point, &tangent, xy, options)));
            }
            // Residuals and derivatives of the loss: by the weight, where those of the squares have its root.
            let rows = 2 * own.len();
            let mut residual = DVector::zeros(rows);
            let mut by_point = DMatrix::zeros(rows, 3);
            for (row, (_, of)) in own.iter_mut().enumerate() {
                of.by_pose *= of.weight;
                residual.fixed_rows_mut::<2>(2 * row).copy_from(&(of.residual / of.weight));
                by_point.fixed_view_mut::<2, 3>(2 * row, 0).copy_from(&(of.by_point * of.weight));
            }
            let mut of_point = normal.points[index].0;
            for k in 0..3 {
                of_point[(k, k)] += FLOOR;
            }
            let solved = &by_point * of_point.try_inverse().unwrap_or_else(Matrix3::zeros);
            // What a change of the point does not explain.
            let without_point = |left: DVector<f64>| {
                let explained = &solved * (by_point.transpose() * &left);
                left - explained
            };
            let mut spread = DMatrix::zeros(rows, rows);
            for (row, (a, of_a)) in own.iter().enumerate() {
                for (column, (b, of_b)) in own.iter().enumerate() {
                    if let (Some(a), Some(b)) = (a, b) {
                        let block = of_a.by_pose * inverse.fixed_view::<6, 6>(6 * a, 6 * b) * of_b.by_pose.transpose();
                        spread.fixed_view_mut::<2, 2>(2 * row, 2 * column).copy_from(&block);
                    }
                }
            }
            spread -= &solved * (by_point.transpose() * &spread);
            spread -= (&spread * &by_point) * solved.transpose();
            let left_out = DMatrix::identity(rows, rows) * (1.0 + LEVERAGE_FLOOR) - spread;
            let residual = without_point(residual);
            let residual = match nalgebra::Cholesky::new(left_out) {
                Some(left_out) => without_point(left_out.solve(&residual)),
                None => residual / LEVERAGE_FLOOR,
            };
            let pull = |row: usize| own[row].1.by_pose.transpose() * residual.fixed_rows::<2>(2 * row);
            for (row, a) in own.iter().enumerate().filter_map(|(row, (a, _))| Some((row, (*a)?))) {
                let pull_a = pull(row);
                for (column, b) in own.iter().enumerate().filter_map(|(row, (b, _))| Some((row, (*b)?))) {
                    let mut block = sum.fixed_view_mut::<6, 6>(6 * a, 6 * b);
                    block += pull_a * pull(column).transpose();
                }
            }
        }
        let shown = &inverse * sum * &inverse;
        let said = self::inverse(self.information(options), held) * variance;
        let (points, unknowns) = (self.points.len() as f64, 6.0 * free as f64);
        (shown * points + said * unknowns) / (points + unknowns).max(1.0)
    }

    /// The information matrix of each point's step in its tangent space, as if the poses were known.
    pub fn point_information(&self, options: &Options) -> Vec<Matrix3<f64>> {
        let (places, free) = self.places();
        self.normal(options, &places, free, Of::Squares).points.into_iter().map(|(own, _)| own).collect()
    }

    /// [`Self::information`] as if the points were known.
    pub fn information_of_poses(&self, options: &Options) -> DMatrix<f64> {
        let (places, free) = self.places();
        let normal = self.normal(options, &places, free, Of::Squares);
        let mut information = DMatrix::zeros(6 * free, 6 * free);
        for (place, own) in normal.poses.iter().enumerate() {
            information.fixed_view_mut::<6, 6>(6 * place, 6 * place).copy_from(own);
        }
        information
    }

    /// The information matrix of the free poses, six unknowns each (rotation, radians, before translation, in the
    /// camera's axes), with the points eliminated: its inverse times the variance of a pixel is their covariance.
    /// Without a prior it is singular along the scale.
    pub fn information(&self, options: &Options) -> DMatrix<f64> {
        let (places, free) = self.places();
        let normal = self.normal(options, &places, free, Of::Squares);
        let mut reduced = DMatrix::zeros(6 * free, 6 * free);
        self.reduce(&normal, 0.0, &places, &mut reduced);
        reduced
    }
}
