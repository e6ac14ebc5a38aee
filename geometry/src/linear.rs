//! Small dense linear algebra that the solvers of two views and of poses share, on arrays.

/// The squared length below which a vector has no direction.
const NOTHING: f64 = 1e-300;

/// An orthonormal basis of the vectors that are orthogonal to all `rows`: `N` of them, with `N = C - R`.
///
/// By Householder reflections, so it is as accurate as a singular value decomposition where the rows are independent;
/// where they are not, it is a part of the null space. Any of the sizes must agree: `R + N = C`.
pub(crate) fn null_space<const R: usize, const C: usize, const N: usize>(rows: &[[f64; C]; R]) -> [[f64; C]; N] {
    const { assert!(R + N == C) };
    let mut reflectors = *rows;
    let mut factors = [0.0; R];
    for k in 0..R {
        // Reflects the rest of row k onto axis k.
        let norm = reflectors[k][k..].iter().map(|x| x * x).sum::<f64>().sqrt();
        let head = reflectors[k][k];
        reflectors[k][..k].fill(0.0);
        reflectors[k][k] = head + norm.copysign(head);
        let square = 2.0 * norm * (norm + head.abs());
        factors[k] = if square > NOTHING { 2.0 / square } else { 0.0 };
        let reflector = reflectors[k];
        for row in &mut reflectors[k + 1..] {
            reflect(&reflector[k..], factors[k], &mut row[k..]);
        }
    }
    let mut basis = [[0.0; C]; N];
    for (n, vector) in basis.iter_mut().enumerate() {
        vector[R + n] = 1.0;
        for k in (0..R).rev() {
            reflect(&reflectors[k][k..], factors[k], &mut vector[k..]);
        }
    }
    basis
}

fn reflect(reflector: &[f64], factor: f64, vector: &mut [f64]) {
    let dot: f64 = reflector.iter().zip(&*vector).map(|(a, b)| a * b).sum();
    let amount = factor * dot;
    for (x, r) in vector.iter_mut().zip(reflector) {
        *x -= amount * r;
    }
}

/// The solution of `matrix x = right` by Cholesky's decomposition; `None` unless the matrix is positive definite.
/// The lower triangle is read.
pub(crate) fn solve_positive<const N: usize>(matrix: &[[f64; N]; N], right: &[f64; N]) -> Option<[f64; N]> {
    let x = substitute(&cholesky(matrix)?, right);
    x.iter().all(|value| value.is_finite()).then_some(x)
}

/// The lower factor, with the inverses of its diagonal in place of the diagonal.
fn cholesky<const N: usize>(matrix: &[[f64; N]; N]) -> Option<[[f64; N]; N]> {
    let mut l = [[0.0; N]; N];
    for i in 0..N {
        let mut square = matrix[i][i];
        for j in 0..i {
            let dot: f64 = l[i][..j].iter().zip(&l[j][..j]).map(|(a, b)| a * b).sum();
            l[i][j] = (matrix[i][j] - dot) * l[j][j];
            square -= l[i][j] * l[i][j];
        }
        if square.is_nan() || square <= 0.0 {
            return None;
        }
        l[i][i] = 1.0 / square.sqrt();
    }
    Some(l)
}

fn substitute<const N: usize>(l: &[[f64; N]; N], right: &[f64; N]) -> [f64; N] {
    let mut x = *right;
    for i in 0..N {
        for k in 0..i {
            x[i] -= l[i][k] * x[k];
        }
        x[i] *= l[i][i];
    }
    for i in (0..N).rev() {
        for k in i + 1..N {
            x[i] -= l[k][i] * x[k];
        }
        x[i] *= l[i][i];
    }
    x
}

/// Sweeps of Jacobi rotations; six are enough in practice.
const SWEEPS: usize = 20;

/// The eigenvalues of a symmetric matrix and the eigenvectors as rows, both in no order, by cyclic Jacobi rotations.
pub(crate) fn symmetric_eigen<const N: usize>(matrix: &[[f64; N]; N]) -> ([f64; N], [[f64; N]; N]) {
    let mut a = *matrix;
    let mut vectors: [[f64; N]; N] = std::array::from_fn(|i| std::array::from_fn(|j| f64::from(u8::from(i == j))));
    let size: f64 = a.iter().flatten().map(|x| x * x).sum();
    for _ in 0..SWEEPS {
        let mut off = 0.0;
        for p in 0..N {
            for q in p + 1..N {
                let apq = a[p][q];
                off += apq * apq;
                if apq == 0.0 {
                    continue;
                }
                // Golub and Van Loan, section 8.5.2.
                let tau = (a[q][q] - a[p][p]) / (2.0 * apq);
                let t = 1.0_f64.copysign(tau) / (tau.abs() + (1.0 + tau * tau).sqrt());
                let cosine = 1.0 / (1.0 + t * t).sqrt();
                let sine = t * cosine;
                for row in &mut a {
                    let (x, y) = (row[p], row[q]);
                    row[p] = cosine * x - sine * y;
                    row[q] = sine * x + cosine * y;
                }
                for k in 0..N {
                    let (x, y) = (a[p][k], a[q][k]);
                    a[p][k] = cosine * x - sine * y;
                    a[q][k] = sine * x + cosine * y;
                    let (x, y) = (vectors[p][k], vectors[q][k]);
                    vectors[p][k] = cosine * x - sine * y;
                    vectors[q][k] = sine * x + cosine * y;
                }
            }
        }
        if off.is_nan() || off <= 1e-34 * size {
            break;
        }
    }
    (std::array::from_fn(|k| a[k][k]), vectors)
}

/// Inverse iterations before Jacobi rotations take over, and the squared change that ends them.
const INVERSE_ITERATIONS: usize = 12;
const STILL: f64 = 1e-28;

/// The eigenvector of the smallest eigenvalue of a positive semidefinite matrix, of norm 1.
///
/// By inverse iteration, which takes a handful of rounds where the smallest eigenvalue stands out; else by
/// [`symmetric_eigen`].
pub(crate) fn smallest_eigenvector<const N: usize>(matrix: &[[f64; N]; N]) -> [f64; N] {
    let trace: f64 = (0..N).map(|k| matrix[k][k]).sum();
    let mut shifted = *matrix;
    for (k, row) in shifted.iter_mut().enumerate() {
        // So that rounding does not make it indefinite; eigenvectors stay.
        row[k] += 1e-14 * trace;
    }
    if let Some(l) = cholesky(&shifted) {
        let mut vector: [f64; N] = std::array::from_fn(|k| 1.0 + 0.1 * k as f64);
        for _ in 0..INVERSE_ITERATIONS {
            let mut next = substitute(&l, &vector);
            let inverse = 1.0 / next.iter().map(|x| x * x).sum::<f64>().sqrt();
            next = next.map(|x| x * inverse);
            let change: f64 = next.iter().zip(&vector).map(|(x, y)| (x - y) * (x - y)).sum();
            vector = next;
            if change < STILL {
                return vector;
            }
        }
    }
    let (values, vectors) = symmetric_eigen(matrix);
    (0..N).min_by(|&i, &j| values[i].total_cmp(&values[j])).map_or([0.0; N], |k| vectors[k])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn dot<const N: usize>(a: &[f64; N], b: &[f64; N]) -> f64 {
        a.iter().zip(b).map(|(a, b)| a * b).sum()
    }

    proptest! {
        #[test]
        fn null_spaces_are_orthonormal_and_orthogonal_to_the_rows(
            rows in prop::array::uniform5(prop::array::uniform9(-1.0..1.0_f64)),
        ) {
            let basis: [[f64; 9]; 4] = null_space(&rows);
            for (i, a) in basis.iter().enumerate() {
                for row in &rows {
                    prop_assert!(dot(a, row).abs() < 1e-14);
                }
                for (j, b) in basis.iter().enumerate() {
                    prop_assert!((dot(a, b) - f64::from(u8::from(i == j))).abs() < 1e-14);
                }
            }
        }

        #[test]
        fn positive_systems_and_eigenvectors(rows in prop::array::uniform6(prop::array::uniform4(-1.0..1.0_f64))) {
            let mut normal = [[0.0; 4]; 4];
            for row in &rows {
                for i in 0..4 {
                    for j in 0..4 {
                        normal[i][j] += row[i] * row[j];
                    }
                }
            }
            let (values, vectors) = symmetric_eigen(&normal);
            for (value, vector) in values.iter().zip(&vectors) {
                prop_assert!((dot(vector, vector) - 1.0).abs() < 1e-14);
                for k in 0..4 {
                    prop_assert!((dot(&normal[k], vector) - value * vector[k]).abs() < 1e-13);
                }
            }
            let least = values.iter().copied().fold(f64::INFINITY, f64::min);
            let smallest = smallest_eigenvector(&normal);
            prop_assert!(normal.iter().map(|row| dot(row, &smallest).powi(2)).sum::<f64>().sqrt() < least + 1e-13);
            prop_assume!(least > 1e-6);
            let x = solve_positive(&normal, &[1.0, -2.0, 3.0, 0.5]).unwrap();
            for (row, right) in normal.iter().zip([1.0, -2.0, 3.0, 0.5]) {
                prop_assert!((dot(row, &x) - right).abs() < 1e-8);
            }
        }
    }

    #[test]
    fn rows_that_depend_on_each_other_and_indefinite_systems() {
        let rows = [[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]];
        let [only]: [[f64; 3]; 1] = null_space(&rows);
        assert!(dot(&only, &rows[0]).abs() < 1e-15 && (dot(&only, &only) - 1.0).abs() < 1e-15);
        assert!(solve_positive(&[[1.0, 0.0], [2.0, 1.0]], &[1.0, 1.0]).is_none());
        assert!(solve_positive(&[[f64::NAN]], &[1.0]).is_none());
    }
}
