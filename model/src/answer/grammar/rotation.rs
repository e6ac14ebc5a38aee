//! Which numbers a rotation matrix may go on with.
//!
//! Entries come row by row. The first row is any unit vector, the second any unit vector normal to it, the third is
//! their cross product. Behind each entry, what is left for the next is an interval or two; a number under way may go on
//! as long as one of the numbers that it can become lies in them.

/// How far an entry may be from what the others ask for. Rows then are off by some thrice of this, a tenth of what the
/// parser accepts ([`crate::answer::chain::MAX_ROTATION_DEFECT`]).
const SLACK: f64 = 0.004;
/// Decimals of an entry.
const DECIMALS: usize = 6;

/// Whether a line of the final block, `N R nine numbers t three numbers`, may still become a pose.
pub(super) fn may_become_a_pose(line: &[u8]) -> bool {
    let Ok(line) = std::str::from_utf8(line) else { return false };
    let Some((_, entries)) = line.split_once(" R") else { return true };
    let rotation = entries.split_once(" t").map_or(entries, |(rotation, _)| rotation);
    let done = rotation.len() < entries.len();
    let mut before: Vec<f64> = Vec::with_capacity(9);
    for part in rotation.split(' ').skip(1).take(9) {
        let intervals = allowed(&before);
        let (low, high) = reach(part);
        if !intervals.iter().any(|i| i.0 <= high && low <= i.1) {
            return false;
        }
        match part.parse() {
            Ok(value) => before.push(value),
            Err(_) => return !done,
        }
    }
    true
}

/// Smallest and largest number that a text can become.
fn reach(part: &str) -> (f64, f64) {
    let (sign, digits) = match part.strip_prefix('-') {
        Some(digits) => (-1.0, digits),
        None => (1.0, part),
    };
    let (least, most) = match digits.split_once('.') {
        // Nothing yet: without a sign, one may still come.
        None if digits.is_empty() && sign > 0.0 => (-2.0, 2.0),
        None if digits.is_empty() => (0.0, 2.0),
        None => {
            let whole: f64 = digits.parse().unwrap_or(0.0);
            (whole, whole + 1.0)
        }
        Some((_, fraction)) => {
            let least: f64 = digits.parse().unwrap_or(0.0);
            let open = DECIMALS.saturating_sub(fraction.len()) as i32;
            // All nines behind what is there.
            (least, least + (10f64.powi(open) - 1.0).max(0.0) * 10f64.powi(-(DECIMALS as i32)))
        }
    };
    if sign > 0.0 { (least, most) } else { (-most, -least) }
}

type Interval = (f64, f64);

fn around(value: f64) -> Interval {
    (value - SLACK, value + SLACK)
}

/// Root of what is left of a sum of squares.
fn rest(squares: f64) -> f64 {
    squares.max(0.0).sqrt()
}

/// Where the entry behind `r` may lie.
fn allowed(r: &[f64]) -> Vec<Interval> {
    match *r {
        [] => vec![(-1.0, 1.0)],
        [a] => {
            let most = rest(1.0 - a * a);
            vec![(-most, most)]
        }
        [a, b] => {
            let c = rest(1.0 - a * a - b * b);
            vec![around(c), around(-c)]
        }
        [a, b, c] => {
            // The largest first entry of a unit vector normal to the first row.
            let most = rest((b * b + c * c) / (a * a + b * b + c * c));
            vec![(-most, most)]
        }
        [_, _, _, d] => match second_row(r, d) {
            Some(pair) => pair.iter().map(|p| around(p[0])).collect(),
            None => {
                let most = rest(1.0 - d * d);
                vec![(-most, most)]
            }
        },
        [_, _, _, d, e] => match second_row(r, d) {
            Some(pair) => pair.iter().filter(|p| (p[0] - e).abs() <= 2.0 * SLACK).map(|p| around(p[1])).collect(),
            None => {
                let f = rest(1.0 - d * d - e * e);
                vec![around(f), around(-f)]
            }
        },
        _ => {
            let [a, b, c, d, e, f] = [r[0], r[1], r[2], r[3], r[4], r[5]];
            let cross = [b * f - c * e, c * d - a * f, a * e - b * d];
            let norm = cross.iter().map(|v| v * v).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
            cross.get(r.len() - 6).map(|v| vec![around(v / norm)]).unwrap_or_default()
        }
    }
}

/// The two ways (e, f) to complete a second row that begins with `d`: where the circle of unit vectors with that entry
/// meets the plane normal to the first row. Nothing where the whole circle lies in the plane.
fn second_row(r: &[f64], d: f64) -> Option<[[f64; 2]; 2]> {
    let (a, b, c) = (r[0], r[1], r[2]);
    let plane = b * b + c * c;
    if plane < SLACK {
        return None;
    }
    let level = -a * d;
    let root = rest((1.0 - d * d) * plane - level * level);
    Some([1.0, -1.0].map(|sign| [(level * b + sign * c * root) / plane, (level * c - sign * b * root) / plane]))
}
