//! The singular value decomposition of a 3x3 matrix by one-sided Jacobi rotations (Hestenes 1958).
//!
//! nalgebra's own for this size goes through `A^T A`, which squares the ratio of the singular values: a cloud that
//! is a thousand times longer than wide would lose its width to rounding. Here each factor keeps full precision.

use nalgebra::{Matrix3, Vector3};

/// Sweeps over the three pairs of columns; six are enough in practice.
const SWEEPS: usize = 30;

/// `U`, `V^T` and the singular values, largest first, of a finite matrix: `matrix = U diag(s) V^T`.
///
/// Both factors are orthogonal, also where the matrix is singular; each may be a reflection.
pub(crate) fn svd(matrix: &Matrix3<f64>) -> (Matrix3<f64>, Matrix3<f64>, Vector3<f64>) {
    let size = matrix.amax();
    if size.is_nan() || size <= 0.0 {
        return (Matrix3::identity(), Matrix3::identity(), Vector3::zeros());
    }
    // Scaled, so that squares neither overflow nor vanish.
    let mut a = matrix / size;
    let mut v = Matrix3::identity();
    for _ in 0..SWEEPS {
        let mut rotated = false;
        for (p, q) in [(0, 1), (0, 2), (1, 2)] {
            let alpha = a.column(p).norm_squared();
            let beta = a.column(q).norm_squared();
            let gamma = a.column(p).dot(&a.column(q));
            if gamma == 0.0 || gamma.abs() <= f64::EPSILON * (alpha * beta).sqrt() {
                continue;
            }
            rotated = true;
            let zeta = (beta - alpha) / (2.0 * gamma);
            let t = zeta.signum() / (zeta.abs() + (1.0 + zeta * zeta).sqrt());
            let cosine = 1.0 / (1.0 + t * t).sqrt();
            let sine = cosine * t;
            for matrix in [&mut a, &mut v] {
                for row in 0..3 {
                    let (x, y) = (matrix[(row, p)], matrix[(row, q)]);
                    matrix[(row, p)] = cosine * x - sine * y;
                    matrix[(row, q)] = sine * x + cosine * y;
                }
            }
        }
        if !rotated {
            break;
        }
    }
    let norms = [0, 1, 2].map(|k| a.column(k).norm());
    let mut order = [0, 1, 2];
    order.sort_by(|&left, &right| norms[right].total_cmp(&norms[left]));
    let singular = Vector3::from(order.map(|k| norms[k]));
    let columns = order.map(|k| a.column(k).into_owned());
    let v = Matrix3::from_columns(&order.map(|k| v.column(k).into_owned()));

    // A column without length has no direction of its own: any that completes the basis will do.
    let floor = f64::EPSILON * singular[0];
    let u0 = columns[0] / singular[0];
    let u1 = if singular[1] > floor {
        columns[1] / singular[1]
    } else {
        let axis = Vector3::ith(u0.iamin(), 1.0);
        u0.cross(&axis).normalize()
    };
    let u2 = if singular[2] > floor { columns[2] / singular[2] } else { u0.cross(&u1) };
    (Matrix3::from_columns(&[u0, u1, u2]), v.transpose(), singular * size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(matrix: &Matrix3<f64>) -> Vector3<f64> {
        let (u, v_t, singular) = svd(matrix);
        let back = u * Matrix3::from_diagonal(&singular) * v_t;
        assert!((back - matrix).norm() <= 1e-14 * matrix.norm());
        for factor in [u, v_t] {
            let deviation = (factor.transpose() * factor - Matrix3::identity()).norm();
            assert!(deviation < 1e-13, "{factor} is off by {deviation}");
        }
        assert!(singular[0] >= singular[1] && singular[1] >= singular[2] && singular[2] >= 0.0);
        singular
    }

    #[test]
    fn singular_matrices_have_orthogonal_factors() {
        let a = Vector3::new(1.0, 2.0, -3.0);
        let b = Vector3::new(0.5, 0.0, 4.0);
        assert!(check(&(a * b.transpose()))[1] < 1e-15 * a.norm() * b.norm());
        check(&Matrix3::zeros());
        check(&Matrix3::new(1e-200, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1e-205));
        check(&Matrix3::new(1e200, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 3e199, 0.0));
    }

    #[test]
    fn small_singular_values_keep_their_precision() {
        let turn = nalgebra::Rotation3::from_euler_angles(0.3, -1.1, 2.0).into_inner();
        // Scaled columns: each small value is known to its last digits, which A^T A would not keep.
        let singular = check(&(turn * Matrix3::from_diagonal(&Vector3::new(1.0, 1e-6, 1e-12))));
        assert!((singular[1] / 1e-6 - 1.0).abs() < 1e-12);
        assert!((singular[2] / 1e-12 - 1.0).abs() < 1e-12);
    }

    proptest! {
        #[test]
        fn factors_multiply_back(entries in prop::array::uniform9(-10.0..10.0_f64)) {
            check(&Matrix3::from_row_slice(&entries));
        }
    }
}
