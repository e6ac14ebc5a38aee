//! The essential matrices of five correspondences between two calibrated views.
//!
//! Nistér, "An efficient solution to the five-point relative pose problem", IEEE PAMI 26(6), 2004: the null space of
//! the epipolar constraints (section 3.1), ten cubic constraints on it, their elimination (section 3.2), and the real
//! roots of a polynomial of degree ten.

use nalgebra::{Matrix3, Vector3};

use crate::linear::{null_space, solve_positive};
use crate::polynomial::real_roots;
use crate::up_to::UpTo;

/// Exponents of x, y, z of a polynomial of degree one.
const LINEAR: [[u8; 3]; 4] = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]];
/// Of degree two.
const QUADRATIC: [[u8; 3]; 10] =
    [[2, 0, 0], [1, 1, 0], [1, 0, 1], [1, 0, 0], [0, 2, 0], [0, 1, 1], [0, 1, 0], [0, 0, 2], [0, 0, 1], [0, 0, 0]];
/// Of degree three, in the order of the elimination: x and y^3, then what is left with powers of z (Nistér's table).
const CUBIC: [[u8; 3]; 20] = [
    [3, 0, 0],
    [0, 3, 0],
    [2, 1, 0],
    [1, 2, 0],
    [2, 0, 1],
    [2, 0, 0],
    [0, 2, 1],
    [0, 2, 0],
    [1, 1, 1],
    [1, 1, 0],
    [1, 0, 2],
    [1, 0, 1],
    [1, 0, 0],
    [0, 1, 2],
    [0, 1, 1],
    [0, 1, 0],
    [0, 0, 3],
    [0, 0, 2],
    [0, 0, 1],
    [0, 0, 0],
];
/// Where the product of two linear terms, and of a quadratic and a linear term, goes.
const LINEAR_LINEAR: [[usize; 4]; 4] = products(&LINEAR, &QUADRATIC);
const QUADRATIC_LINEAR: [[usize; 4]; 10] = products(&QUADRATIC, &CUBIC);

const fn products<const A: usize, const B: usize>(left: &[[u8; 3]; A], terms: &[[u8; 3]; B]) -> [[usize; 4]; A] {
    let mut table = [[0; 4]; A];
    let mut i = 0;
    while i < A {
        let mut j = 0;
        while j < 4 {
            let mut k = 0;
            while left[i][0] + LINEAR[j][0] != terms[k][0]
                || left[i][1] + LINEAR[j][1] != terms[k][1]
                || left[i][2] + LINEAR[j][2] != terms[k][2]
            {
                k += 1;
            }
            table[i][j] = k;
            j += 1;
        }
        i += 1;
    }
    table
}

/// Steps that polish a root, at most; and the length of one after which the next would change nothing.
const MAX_POLISHES: usize = 5;
const POLISHED: f64 = 1e-8;
/// The longest such step, in weights of norm 1: a longer one leaves for another root.
const MAX_STEP: f64 = 0.1;

/// Pivots below this one ask for another basis.
const SMALL_PIVOT: f64 = 1e-4;
/// That basis: an orthogonal matrix.
const MIXING: [[f64; 4]; 4] =
    [[0.1, 0.3, 0.3, 0.9], [0.3, -0.1, 0.9, -0.3], [0.3, -0.9, -0.1, 0.3], [0.9, 0.3, -0.3, -0.1]];

type Linear = [f64; 4];
type Quadratic = [f64; 10];
type Cubic = [f64; 20];

#[inline]
fn add_product(sum: &mut Quadratic, a: &Linear, b: &Linear, sign: f64) {
    for i in 0..4 {
        let factor = sign * a[i];
        for j in 0..4 {
            sum[LINEAR_LINEAR[i][j]] += factor * b[j];
        }
    }
}

#[inline]
fn add_cubic_product(sum: &mut Cubic, a: &Quadratic, b: &Linear) {
    for i in 0..10 {
        for j in 0..4 {
            sum[QUADRATIC_LINEAR[i][j]] += a[i] * b[j];
        }
    }
}

/// The up to ten real essential matrices with `b^T E a = 0` for five pairs of rays, of any length but zero, in the
/// camera frames a and b. Each has the Frobenius norm sqrt(2) of `[t]_x R` with a unit t, and either sign.
///
/// Empty where the rays are not finite or so degenerate that the elimination breaks down. Answers of nearly degenerate
/// rays are finite, and as inaccurate as the problem is.
pub fn five_point(rays_a: &[Vector3<f64>; 5], rays_b: &[Vector3<f64>; 5]) -> UpTo<Matrix3<f64>, 10> {
    let mut matrices = UpTo::new();
    let mut rows = [[0.0; 9]; 5];
    for (row, (a, b)) in rows.iter_mut().zip(rays_a.iter().zip(rays_b)) {
        let size = a.norm() * b.norm();
        if !(size.is_finite() && size > 0.0) {
            return matrices;
        }
        for i in 0..3 {
            for j in 0..3 {
                row[3 * i + j] = b[i] * a[j] / size;
            }
        }
    }
    let basis = null_space(&rows);
    let pivot = solve(&basis, &mut matrices);
    // Complex roots come in pairs, so a real one is missing where the count is odd; and a small pivot loses digits.
    // Another basis of the same space has other pivots.
    if pivot < SMALL_PIVOT || matrices.len() % 2 == 1 {
        let mut again = UpTo::new();
        solve(&MIXING.map(|mix| std::array::from_fn(|k| (0..4).map(|n| mix[n] * basis[n][k]).sum())), &mut again);
        if again.len() >= matrices.len() {
            return again;
        }
    }
    matrices
}

/// The matrices in the span of `basis`, and the smallest pivot of the elimination.
fn solve(basis: &[[f64; 9]; 4], matrices: &mut UpTo<Matrix3<f64>, 10>) -> f64 {
    let Some((reduced, pivot)) = eliminate(constraints(basis)) else { return 0.0 };

    // Rows k, l, m of B(z) (x, y, 1)^T = 0: each a pair of reduced rows, the second times z taken off.
    let mut b = [[[0.0; 5]; 3]; 3];
    for (row, out) in b.iter_mut().enumerate() {
        let (first, second) = (&reduced[2 * row], &reduced[2 * row + 1]);
        for (entry, (start, terms)) in out.iter_mut().zip([(0, 3), (3, 3), (6, 4)]) {
            for k in 0..terms {
                // Coefficients are stored by falling power of z.
                entry[terms - 1 - k] += first[start + k];
                entry[terms - k] -= second[start + k];
            }
        }
    }
    let mut determinant = [0.0; 11];
    for (i, j, k) in [(0, 1, 2), (1, 2, 0), (2, 0, 1)] {
        // (row i) x (row j) along the third axis, times the third entry of row k.
        let mut minor = [0.0; 7];
        for p in 0..4 {
            for q in 0..4 {
                minor[p + q] += b[i][0][p] * b[j][1][q] - b[i][1][p] * b[j][0][q];
            }
        }
        for (p, m) in minor.iter().enumerate() {
            for (q, c) in b[k][2].iter().enumerate() {
                determinant[p + q] += m * c;
            }
        }
    }
    for &z in &real_roots(&determinant) {
        let rows = b.map(|row| Vector3::from(row.map(|entry| entry.iter().rev().fold(0.0, |sum, c| sum * z + c))));
        let rows = rows.map(|row| row / row.norm().max(f64::MIN_POSITIVE));
        let crosses = [rows[0].cross(&rows[1]), rows[1].cross(&rows[2]), rows[2].cross(&rows[0])];
        let longest = crosses.iter().fold(crosses[0], |best, v| if v.norm() > best.norm() { *v } else { best });
        let mut weights = [longest.x, longest.y, longest.z * z, longest.z];
        for _ in 0..MAX_POLISHES {
            if polish(basis, &mut weights) < POLISHED {
                break;
            }
        }
        let e = combine(basis, &weights);
        let norm = e.norm();
        if norm.is_finite() && norm > 0.0 {
            let e = e * (std::f64::consts::SQRT_2 / norm);
            if e.iter().all(|x| x.is_finite()) {
                matrices.push(e);
            }
        }
    }
    pivot
}

fn combine(basis: &[[f64; 9]; 4], weights: &[f64; 4]) -> Matrix3<f64> {
    let mut e = Matrix3::zeros();
    for (vector, weight) in basis.iter().zip(weights) {
        for k in 0..9 {
            e[(k / 3, k % 3)] += weight * vector[k];
        }
    }
    e
}

/// A step of Gauss-Newton on the ten constraints, over the weights of the basis as a point of the unit sphere: it
/// takes back what the elimination and a polynomial of degree ten lose. Returns its length.
fn polish(basis: &[[f64; 9]; 4], weights: &mut [f64; 4]) -> f64 {
    let norm = weights.iter().map(|w| w * w).sum::<f64>().sqrt();
    *weights = weights.map(|w| w / norm);
    let e = combine(basis, weights);
    let products = e * e.transpose();
    let shifted = products - Matrix3::from_diagonal_element(0.5 * products.trace());
    let residual = shifted * e;
    let cofactors = Matrix3::from_columns(&[
        e.column(1).cross(&e.column(2)),
        e.column(2).cross(&e.column(0)),
        e.column(0).cross(&e.column(1)),
    ]);
    let determinant = cofactors.column(0).dot(&e.column(0));
    let mut jacobian = [[0.0; 10]; 4];
    for (row, vector) in jacobian.iter_mut().zip(basis) {
        let d = Matrix3::from_row_slice(vector);
        let half = d * e.transpose();
        let change = half + half.transpose() - Matrix3::from_diagonal_element(half.trace());
        let derivative = change * e + shifted * d;
        row[..9].copy_from_slice(derivative.as_slice());
        row[9] = cofactors.dot(&d);
    }
    let mut normal = [[0.0; 4]; 4];
    let mut right = [0.0; 4];
    for i in 0..4 {
        for j in 0..=i {
            let dot: f64 = jacobian[i].iter().zip(&jacobian[j]).map(|(a, b)| a * b).sum();
            normal[i][j] = dot + weights[i] * weights[j];
        }
        let dot: f64 = jacobian[i][..9].iter().zip(residual.as_slice()).map(|(a, b)| a * b).sum();
        right[i] = -dot - jacobian[i][9] * determinant;
    }
    let Some(step) = solve_positive(&normal, &right) else { return 0.0 };
    let length = step.iter().map(|x| x * x).sum::<f64>().sqrt();
    if length > MAX_STEP {
        return 0.0;
    }
    for (weight, step) in weights.iter_mut().zip(step) {
        *weight += step;
    }
    length
}

/// `det E = 0` and `2 E E^T E - tr(E E^T) E = 0` (eq. 7 and 8) for `E = x X + y Y + z Z + W`, halved.
fn constraints(basis: &[[f64; 9]; 4]) -> [Cubic; 10] {
    let e: [Linear; 9] = std::array::from_fn(|k| std::array::from_fn(|n| basis[n][k]));
    let mut rows = [[0.0; 20]; 10];
    for (i, j, k) in [(0, 1, 2), (1, 2, 0), (2, 0, 1)] {
        let mut minor = [0.0; 10];
        add_product(&mut minor, &e[3 + i], &e[6 + j], 1.0);
        add_product(&mut minor, &e[3 + j], &e[6 + i], -1.0);
        add_cubic_product(&mut rows[9], &minor, &e[k]);
    }
    let mut products = [[[0.0; 10]; 3]; 3];
    for i in 0..3 {
        for j in i..3 {
            let mut sum = [0.0; 10];
            for k in 0..3 {
                add_product(&mut sum, &e[3 * i + k], &e[3 * j + k], 1.0);
            }
            products[i][j] = sum;
            products[j][i] = sum;
        }
    }
    let half_trace: Quadratic =
        std::array::from_fn(|k| 0.5 * (products[0][0][k] + products[1][1][k] + products[2][2][k]));
    for (i, row) in products.iter_mut().enumerate() {
        for (x, half) in row[i].iter_mut().zip(&half_trace) {
            *x -= half;
        }
    }
    for i in 0..3 {
        for j in 0..3 {
            for k in 0..3 {
                add_cubic_product(&mut rows[3 * i + j], &products[i][k], &e[3 * k + j]);
            }
        }
    }
    rows
}

/// Gauss-Jordan elimination with partial pivoting: the rows of x^2 z, x^2, y^2 z, y^2, xyz, xy, without the columns
/// that are the identity; and the smallest pivot.
fn eliminate(mut rows: [Cubic; 10]) -> Option<([[f64; 10]; 6], f64)> {
    let mut smallest = f64::INFINITY;
    for k in 0..10 {
        let pivot = (k..10).max_by(|&i, &j| rows[i][k].abs().total_cmp(&rows[j][k].abs()))?;
        rows.swap(k, pivot);
        smallest = smallest.min(rows[k][k].abs());
        let inverse = 1.0 / rows[k][k];
        if !inverse.is_finite() {
            return None;
        }
        let top = rows[k];
        for row in &mut rows[k + 1..] {
            let factor = row[k] * inverse;
            for c in k + 1..20 {
                row[c] -= factor * top[c];
            }
        }
        for x in &mut rows[k][k + 1..] {
            *x *= inverse;
        }
    }
    // Upwards, for the six rows that are used.
    for k in (5..10).rev() {
        let low = rows[k];
        for row in &mut rows[4..k] {
            let factor = row[k];
            for c in 10..20 {
                row[c] -= factor * low[c];
            }
        }
    }
    Some((std::array::from_fn(|i| std::array::from_fn(|j| rows[4 + i][10 + j])), smallest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nalgebra::{Isometry3, Rotation3, Unit};
    use proptest::prelude::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    /// The smallest distance of the true essential matrix to an answer, up to sign.
    fn error(b_from_a: &Isometry3<f64>, points: &[Vector3<f64>; 5]) -> f64 {
        let t = Unit::new_normalize(b_from_a.translation.vector);
        let truth = t.cross_matrix() * b_from_a.rotation.to_rotation_matrix().into_inner();
        let b = points.map(|p| b_from_a.rotation * p + b_from_a.translation.vector);
        let answers = five_point(points, &b);
        answers.iter().map(|e| (e - truth).norm().min((e + truth).norm())).fold(f64::INFINITY, f64::min)
    }

    /// Whether five points are far from the configurations that leave E undetermined.
    fn well_posed(b_from_a: &Isometry3<f64>, points: &[Vector3<f64>; 5]) -> bool {
        // The derivative of the constraints by the motion has rank five.
        let t = b_from_a.translation.vector.normalize();
        let r = b_from_a.rotation.to_rotation_matrix().into_inner();
        let (u, v) = {
            let u = t.cross(&Vector3::ith(t.iamin(), 1.0)).normalize();
            (u, t.cross(&u))
        };
        let jacobian = nalgebra::Matrix5::from_fn(|i, k| {
            let (a, b) = (points[i].normalize(), (b_from_a * nalgebra::Point3::from(points[i])).coords.normalize());
            let derivative = match k {
                0..3 => t.cross_matrix() * Vector3::ith(k, 1.0).cross_matrix() * r,
                3 => u.cross_matrix() * r,
                _ => v.cross_matrix() * r,
            };
            b.dot(&(derivative * a))
        });
        jacobian.singular_values().min() > 1e-2
    }

    /// Of 3000 seeded problems: those whose true E is not among the answers, and the largest error of the rest.
    fn lost(mut problem: impl FnMut(&mut ChaCha8Rng) -> Option<(Isometry3<f64>, [Vector3<f64>; 5])>) -> (usize, f64) {
        let mut random = ChaCha8Rng::seed_from_u64(5);
        let (mut lost, mut largest, mut count) = (0, 0.0_f64, 0);
        while count < 3000 {
            let Some((b_from_a, points)) = problem(&mut random) else { continue };
            if !well_posed(&b_from_a, &points) {
                continue;
            }
            count += 1;
            let error = error(&b_from_a, &points);
            if error < 1e-6 {
                largest = largest.max(error);
            } else {
                lost += 1;
            }
        }
        (lost, largest)
    }

    fn vector(random: &mut ChaCha8Rng) -> Vector3<f64> {
        Vector3::from(std::array::from_fn(|_| random.random_range(-1.0..1.0)))
    }

    fn cloud(random: &mut ChaCha8Rng) -> [Vector3<f64>; 5] {
        std::array::from_fn(|_| {
            let v = vector(random);
            let z = 5.0 + 3.0 * v.z;
            Vector3::new(v.x * z, v.y * z, z)
        })
    }

    #[test]
    fn the_true_matrix_is_among_the_answers() {
        let any = lost(|random| Some((Isometry3::new(vector(random), 0.4 * vector(random)), cloud(random))));
        let sideways = lost(|random| Some((Isometry3::new(Vector3::x(), 0.4 * vector(random)), cloud(random))));
        let forward = lost(|random| Some((Isometry3::translation(0.0, 0.0, -1.0), cloud(random))));
        let plane = lost(|random| {
            let n = Rotation3::new(0.3 * vector(random)) * Vector3::z();
            let points = cloud(random).map(|p| p * (5.0 / n.dot(&p)));
            let ahead = points.iter().all(|p| p.z > 0.5);
            ahead.then(|| (Isometry3::new(vector(random), 0.4 * vector(random)), points))
        });
        for (name, (lost, largest)) in [("any", any), ("sideways", sideways), ("forward", forward), ("plane", plane)] {
            // Two roots that nearly coincide turn complex by rounding: one problem in ten thousand.
            assert!(lost <= 3 && largest < 1e-9, "{name}: {lost} lost, the others within {largest}");
        }
    }

    proptest! {
        #[test]
        fn answers_are_essential_matrices_of_the_rays(numbers in prop::collection::vec(-1.0..1.0_f64, 20)) {
            let ray = |k: usize| Vector3::new(numbers[2 * k], numbers[2 * k + 1], 1.0);
            let (a, b): ([_; 5], [_; 5]) = (std::array::from_fn(ray), std::array::from_fn(|k| ray(5 + k)));
            for e in &five_point(&a, &b) {
                prop_assert!((e.norm() - std::f64::consts::SQRT_2).abs() < 1e-12);
                prop_assert!(a.iter().zip(&b).all(|(a, b)| b.dot(&(e * a)).abs() < 1e-12));
                let constraint = 2.0 * e * e.transpose() * e - (e * e.transpose()).trace() * e;
                prop_assert!(constraint.norm() < 1e-5 && e.determinant().abs() < 1e-5);
            }
        }

        #[test]
        fn any_rays_do_no_harm(numbers in prop::collection::vec(prop::num::f64::ANY, 30)) {
            let ray = |k: usize| Vector3::new(numbers[3 * k], numbers[3 * k + 1], numbers[3 * k + 2]);
            let answers = five_point(&std::array::from_fn(ray), &std::array::from_fn(|k| ray(5 + k)));
            prop_assert!(answers.iter().all(|e| e.iter().all(|x| x.is_finite())));
        }
    }

    #[test]
    #[ignore = "measures: cargo test --release -p geometry five_point -- --ignored --nocapture"]
    fn time_of_a_call() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let problems: Vec<_> = (0..1000)
            .map(|_| {
                let b_from_a = Isometry3::new(vector(&mut random), 0.4 * vector(&mut random));
                let a = cloud(&mut random);
                (a, a.map(|p| b_from_a.rotation * p + b_from_a.translation.vector))
            })
            .collect();
        // The best of ten: others may share the machine.
        let once = |_| {
            let start = std::time::Instant::now();
            let answers: usize = problems.iter().map(|(a, b)| five_point(a, b).len()).sum();
            (start.elapsed() / 1000, answers as f64 / 1000.0)
        };
        let (time, answers) = (0..10).map(once).min_by_key(|(time, _)| *time).unwrap();
        println!("five_point: {time:?}, {answers} answers");
    }

    #[test]
    fn degenerate_rays_do_no_harm() {
        let same = [Vector3::z(); 5];
        let line: [Vector3<f64>; 5] = std::array::from_fn(|k| Vector3::new(k as f64, 0.0, 1.0));
        let some = [
            Vector3::new(0.1, 0.3, 1.0),
            Vector3::new(-0.4, 0.2, 1.0),
            Vector3::new(0.6, -0.1, 1.0),
            Vector3::new(-0.2, -0.5, 1.0),
            Vector3::new(0.3, 0.4, 1.0),
        ];
        for (a, b) in
            [(same, same), (line, line), (line, same), (some, some), (some, same), ([Vector3::zeros(); 5], some)]
        {
            for e in &five_point(&a, &b) {
                assert!(e.iter().all(|x| x.is_finite()));
            }
        }
    }
}
