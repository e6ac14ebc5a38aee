//! Real roots of polynomials of small degree.
//!
//! Sturm's theorem isolates the roots; Newton's method, kept inside the bracket by bisection, finds each. The line is
//! cut into four pieces, `[0, 1]`, `[-1, 0]` and what is beyond under `u = 1/z`, so that every evaluation is at an
//! argument of at most one and far roots cost no more than near ones.

use crate::up_to::UpTo;

/// The highest degree.
pub(crate) const MAX_DEGREE: usize = 10;
const SIZE: usize = MAX_DEGREE + 1;
/// A coefficient this small beside the largest is rounding.
const NEGLIGIBLE: f64 = 1e-15;
/// A remainder of a Sturm sequence this small beside its terms is zero.
const REMAINDER: f64 = 4e-15;
/// Halvings after which what is left of an interval counts as one multiple root.
const MAX_DEPTH: u32 = 46;
/// Steps of Newton's method or bisection for one root.
const MAX_STEPS: usize = 80;

/// The real roots of `sum_i coefficients[i] z^i`, in no order; a multiple root is given once.
///
/// Empty for a constant, for numbers that are not finite, and for a degree above [`MAX_DEGREE`]. Leading coefficients
/// that are rounding beside the largest are taken as zero.
pub(crate) fn real_roots(coefficients: &[f64]) -> UpTo<f64, MAX_DEGREE> {
    let mut roots = UpTo::new();
    let Some(sequence) = Sturm::new(coefficients) else { return roots };
    for negative in [false, true] {
        let zero = sequence.variations(0.0, negative, false);
        let one = sequence.variations(1.0, negative, false);
        let infinity = sequence.variations(0.0, negative, true);
        for (reversed, at_zero) in [(false, zero), (true, infinity)] {
            if at_zero != one {
                sequence.isolate(negative, reversed, at_zero, one, &mut roots);
            }
        }
    }
    roots
}

struct Sturm {
    chain: [[f64; SIZE]; SIZE],
    degrees: [usize; SIZE],
    length: usize,
}

impl Sturm {
    fn new(coefficients: &[f64]) -> Option<Self> {
        let largest = coefficients.iter().fold(0.0, |largest: f64, c| largest.max(c.abs()));
        if !(largest > 0.0 && coefficients.iter().all(|c| c.is_finite())) {
            return None;
        }
        let degree = coefficients.iter().rposition(|c| c.abs() > NEGLIGIBLE * largest)?;
        if degree == 0 || degree > MAX_DEGREE {
            return None;
        }
        let mut chain = [[0.0; SIZE]; SIZE];
        let mut degrees = [0; SIZE];
        for (slot, c) in chain[0].iter_mut().zip(&coefficients[..=degree]) {
            *slot = c / largest;
        }
        for k in 1..=degree {
            chain[1][k - 1] = k as f64 * chain[0][k] / degree as f64;
        }
        (degrees[0], degrees[1]) = (degree, degree - 1);
        let mut length = 2;
        while degrees[length - 1] > 0 {
            let (before, last) = (chain[length - 2], chain[length - 1]);
            let (m, n) = (degrees[length - 2], degrees[length - 1]);
            // f_{k+1} = -(f_{k-1} mod f_k), up to a positive factor.
            let mut rest = before;
            let mut size = 1.0;
            for top in (n..=m).rev() {
                let quotient = rest[top] / last[n];
                size += quotient.abs();
                for k in 0..=n {
                    rest[top - n + k] -= quotient * last[k];
                }
                rest[top] = 0.0;
            }
            let Some(degree) = rest[..n].iter().rposition(|c| c.abs() > REMAINDER * size) else { break };
            let largest = rest[..=degree].iter().fold(0.0, |largest: f64, c| largest.max(c.abs()));
            for (slot, c) in chain[length].iter_mut().zip(&rest[..=degree]) {
                *slot = -c / largest;
            }
            degrees[length] = degree;
            length += 1;
        }
        Some(Self { chain, degrees, length })
    }

    /// Changes of sign along the sequence at `z = u`, or `z = 1/u` where `reversed`; at `-z` where `negative`.
    fn variations(&self, u: f64, negative: bool, reversed: bool) -> u32 {
        let argument = if negative { -u } else { u };
        let mut changes = 0;
        let mut previous = 0.0;
        for (coefficients, &degree) in self.chain.iter().zip(&self.degrees).take(self.length) {
            let coefficients = &coefficients[..=degree];
            let mut value = if reversed {
                coefficients.iter().fold(0.0, |value, c| value * argument + c)
            } else {
                coefficients.iter().rev().fold(0.0, |value, c| value * argument + c)
            };
            if reversed && negative && degree % 2 == 1 {
                value = -value;
            }
            if value != 0.0 {
                changes += u32::from(previous * value < 0.0);
                previous = value.signum();
            }
        }
        changes
    }

    /// The roots of one quarter of the line; `at_zero` and `at_one` are the changes of sign at `u = 0` and `u = 1`.
    fn isolate(&self, negative: bool, reversed: bool, at_zero: u32, at_one: u32, roots: &mut UpTo<f64, MAX_DEGREE>) {
        // The polynomial in u.
        let degree = self.degrees[0];
        let mut polynomial = [0.0; SIZE];
        for (k, c) in self.chain[0][..=degree].iter().enumerate() {
            let slot = if reversed { degree - k } else { k };
            polynomial[slot] = if negative && k % 2 == 1 { -c } else { *c };
        }
        let polynomial = &polynomial[..=degree];
        // A halving keeps one half and stacks the other: never more than one interval a level.
        let mut stack = [(0.0, 1.0, at_zero, at_one, 0_u32); MAX_DEPTH as usize + 2];
        let mut height = 1;
        while height > 0 {
            height -= 1;
            let (low, high, at_low, at_high, depth) = stack[height];
            let count = at_low.abs_diff(at_high);
            if count == 0 {
                continue;
            }
            let (f_low, f_high) = (evaluate(polynomial, low).0, evaluate(polynomial, high).0);
            let root = if count == 1 && f_low * f_high < 0.0 {
                Some(bracketed(polynomial, low, high, f_low))
            } else if depth >= MAX_DEPTH {
                Some(0.5 * (low + high))
            } else {
                None
            };
            if let Some(u) = root {
                let z = if reversed { 1.0 / u } else { u };
                if z.is_finite() {
                    roots.push(if negative { -z } else { z });
                }
                continue;
            }
            let middle = 0.5 * (low + high);
            let at_middle = self.variations(middle, negative, reversed);
            for half in [(low, middle, at_low, at_middle, depth + 1), (middle, high, at_middle, at_high, depth + 1)] {
                if half.2 != half.3 && height < stack.len() {
                    stack[height] = half;
                    height += 1;
                }
            }
        }
    }
}

/// The value and the derivative.
fn evaluate(polynomial: &[f64], u: f64) -> (f64, f64) {
    polynomial.iter().rev().fold((0.0, 0.0), |(value, slope), c| (value * u + c, slope * u + value))
}

/// The root between `low` and `high`, where the signs differ.
fn bracketed(polynomial: &[f64], mut low: f64, mut high: f64, f_low: f64) -> f64 {
    let rising = f_low < 0.0;
    let mut u = 0.5 * (low + high);
    for _ in 0..MAX_STEPS {
        let (value, slope) = evaluate(polynomial, u);
        if value == 0.0 {
            return u;
        }
        if (value < 0.0) == rising {
            low = u;
        } else {
            high = u;
        }
        let newton = u - value / slope;
        let next = if newton > low && newton < high { newton } else { 0.5 * (low + high) };
        let step = (next - u).abs();
        u = next;
        if step <= 2.0 * f64::EPSILON * u.abs() || high - low <= f64::EPSILON * high {
            break;
        }
    }
    u
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `product (z - root) * product (z^2 - 2 re z + re^2 + im^2)`, ascending.
    fn expand(roots: &[f64], pairs: &[(f64, f64)]) -> Vec<f64> {
        let mut result = vec![1.0];
        let factors = roots.iter().map(|root| vec![-root, 1.0]);
        let pairs = pairs.iter().map(|(re, im)| vec![re * re + im * im, -2.0 * re, 1.0]);
        for factor in factors.chain(pairs) {
            let mut next = vec![0.0; result.len() + factor.len() - 1];
            for (i, a) in result.iter().enumerate() {
                for (j, b) in factor.iter().enumerate() {
                    next[i + j] += a * b;
                }
            }
            result = next;
        }
        result
    }

    fn sorted(coefficients: &[f64]) -> Vec<f64> {
        let mut roots = real_roots(coefficients).to_vec();
        roots.sort_by(f64::total_cmp);
        roots
    }

    #[test]
    fn known_roots() {
        let cases: [(&[f64], &[f64]); 9] = [
            (&[-6.0, 11.0, -6.0, 1.0], &[1.0, 2.0, 3.0]),
            (&[1.0, 0.0, 1.0], &[]),
            (&[0.0, -1.0, 0.0, 1.0], &[-1.0, 0.0, 1.0]),
            // Leading zeros.
            (&[-4.0, 0.0, 1.0, 0.0, 0.0, 1e-18], &[-2.0, 2.0]),
            // Roots far apart.
            (&[1e6, -1_000_001.0, 1.0], &[1.0, 1e6]),
            (&[2.0, -1.0], &[2.0]),
            // A double root once: (z - 0.5)^2 (z + 3).
            (&[0.75, -2.75, 2.0, 1.0], &[-3.0, 0.5]),
            (&[3.0], &[]),
            (&[], &[]),
        ];
        for (coefficients, expected) in cases {
            let got = sorted(coefficients);
            assert_eq!(got.len(), expected.len(), "{coefficients:?}: {got:?}");
            for (got, expected) in got.iter().zip(expected) {
                assert!((got - expected).abs() < 1e-7 * (1.0 + expected.abs()), "{coefficients:?}: {got} {expected}");
            }
        }
        for bad in [f64::NAN, f64::INFINITY] {
            assert!(real_roots(&[1.0, bad, 2.0]).is_empty());
        }
        assert!(real_roots(&[0.0; 11]).is_empty());
        assert!(real_roots(&[1.0; 12]).is_empty());
    }

    proptest! {
        #[test]
        fn all_real_roots_are_found_and_no_other(
            steps in prop::collection::vec(0.05..1.0_f64, 0..=6),
            pairs in prop::collection::vec((-1.5..1.5_f64, 0.2..2.0_f64), 0..=2),
            start in -2.0..0.0_f64,
            scale in -8..8_i32,
        ) {
            let mut roots = Vec::new();
            let mut at = start;
            for step in steps {
                at += step;
                roots.push(at);
            }
            let factor = 10.0_f64.powi(scale);
            let coefficients: Vec<f64> = expand(&roots, &pairs).iter().map(|c| -c * factor).collect();
            let got = sorted(&coefficients);
            prop_assert_eq!(got.len(), roots.len(), "{:?} for {:?}", got, roots);
            for (got, root) in got.iter().zip(&roots) {
                prop_assert!((got - root).abs() < 1e-6, "{} for {}", got, root);
            }
        }

        #[test]
        fn any_numbers_do_no_harm(numbers in prop::collection::vec(prop::num::f64::ANY, 0..14)) {
            prop_assert!(real_roots(&numbers).iter().all(|root| root.is_finite()));
        }
    }
}
