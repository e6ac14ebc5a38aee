//! PCK: how often the place of a point in another frame is found, how often a guess finds it, and whether the features
//! know when they do.

use std::collections::BTreeMap;

use model::qwen3_vl::processor::Grid;

/// A place counts as found up to this distance, tokens (PCK@2: two feature patches, section 5.3).
pub const RADIUS: usize = 2;

/// Tokens of a frame, row after row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenGrid {
    /// Tokens of a row.
    pub columns: usize,
    /// Rows.
    pub rows: usize,
}

impl TokenGrid {
    /// Of an image of `grid` patches, `merge` x `merge` of which make a token.
    pub fn new(grid: Grid, merge: usize) -> Self {
        Self { columns: grid.width / merge, rows: grid.height / merge }
    }

    /// Tokens of a frame.
    pub fn tokens(self) -> usize {
        self.columns * self.rows
    }

    /// Whether two tokens are at most [`RADIUS`] apart, centre to centre.
    pub fn near(self, a: usize, b: usize) -> bool {
        let (x, y) = ((a % self.columns).abs_diff(b % self.columns), (a / self.columns).abs_diff(b / self.columns));
        x * x + y * y <= RADIUS * RADIUS
    }

    /// Centre of a token, tokens from the upper left corner of the frame.
    pub fn centre(self, token: usize) -> [f64; 2] {
        [(token % self.columns) as f64 + 0.5, (token / self.columns) as f64 + 0.5]
    }

    /// Whether a token's centre is at most [`RADIUS`] from a place.
    pub fn reaches(self, token: usize, place: [f64; 2]) -> bool {
        let [x, y] = self.centre(token);
        (x - place[0]).powi(2) + (y - place[1]).powi(2) <= (RADIUS * RADIUS) as f64
    }

    /// How often a guess finds each token: 13 / tokens where the border is far.
    pub fn chances(self) -> Vec<f64> {
        let found = |token: usize| (0..self.tokens()).filter(|&guess| self.near(guess, token)).count();
        (0..self.tokens()).map(|token| found(token) as f64 / self.tokens() as f64).collect()
    }
}

/// Pearson's correlation, one pair after another (Welford).
#[derive(Debug, Clone, Copy, Default)]
pub struct Correlation {
    n: f64,
    means: [f64; 2],
    squares: [f64; 2],
    product: f64,
}

impl Correlation {
    /// Adds a pair.
    pub fn push(&mut self, x: f64, y: f64) {
        self.n += 1.0;
        let before = [x - self.means[0], y - self.means[1]];
        self.means[0] += before[0] / self.n;
        self.means[1] += before[1] / self.n;
        let after = [x - self.means[0], y - self.means[1]];
        self.squares[0] += before[0] * after[0];
        self.squares[1] += before[1] * after[1];
        self.product += before[0] * after[1];
    }

    /// The correlation; undefined where either side never changes.
    pub fn value(&self) -> Option<f64> {
        let scale = (self.squares[0] * self.squares[1]).sqrt();
        (scale > 0.0).then(|| self.product / scale)
    }
}

/// How often places were found.
#[derive(Debug, Clone, Copy, Default)]
pub struct Found {
    /// Times that they were.
    pub hits: u64,
    /// Times that they were looked for.
    pub matches: u64,
}

impl Found {
    /// PCK; undefined where nothing was looked for.
    pub fn pck(&self) -> Option<f64> {
        (self.matches > 0).then(|| self.hits as f64 / self.matches as f64)
    }

    fn push(&mut self, hit: bool) {
        self.hits += u64::from(hit);
        self.matches += 1;
    }
}

/// What one kind of features of one layer finds.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// All matches.
    pub all: Found,
    /// By the distance of the two frames.
    pub by_distance: BTreeMap<usize, Found>,
    /// Of confidence and success.
    pub correlation: Correlation,
}

impl Tally {
    /// Notes one match between frames that are `distance` apart.
    pub fn push(&mut self, distance: usize, hit: bool, confidence: f64) {
        self.all.push(hit);
        self.by_distance.entry(distance).or_default().push(hit);
        self.correlation.push(confidence, f64::from(u8::from(hit)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guess_finds_13_places_inside_and_fewer_at_the_border() {
        let grid = TokenGrid::new(Grid { height: 24, width: 32 }, 2);
        assert_eq!((grid.columns, grid.rows, grid.tokens()), (16, 12, 192));
        let found: Vec<f64> = grid.chances().iter().map(|chance| (chance * 192.0).round()).collect();
        let at = |x: usize, y: usize| found[y * 16 + x] as usize;
        assert_eq!((at(0, 0), at(15, 11), at(5, 5), at(2, 0)), (6, 6, 13, 9));
        assert!(grid.near(0, 2) && grid.near(0, 17) && grid.near(0, 32), "inclusive");
        assert!(!grid.near(0, 3) && !grid.near(0, 18), "(2, 1) is farther than 2");
        assert!(!grid.near(15, 16), "the end of a row and the start of the next are far apart");
        for (a, b) in [(0, 2), (0, 3), (0, 17), (0, 18), (0, 32), (15, 16), (40, 73)] {
            assert_eq!(grid.reaches(a, grid.centre(b)), grid.near(a, b), "{a} {b}");
        }
        // Between two tokens: 2 to the left of 2.5, and more.
        assert!(grid.reaches(0, [2.5, 0.5]) && !grid.reaches(0, [2.51, 0.5]));
    }

    #[test]
    fn correlation_agrees_with_its_definition_and_is_undefined_for_a_constant() {
        let pairs: Vec<(f64, f64)> = (0..50).map(|i| (f64::from(i % 7) * 0.1, f64::from(i % 3 + i % 7))).collect();
        let of = |pairs: &[(f64, f64)]| {
            let mut correlation = Correlation::default();
            pairs.iter().for_each(|&(x, y)| correlation.push(x, y));
            correlation.value()
        };
        let mean = |of: &dyn Fn(&(f64, f64)) -> f64| pairs.iter().map(of).sum::<f64>() / 50.0;
        let (x, y) = (mean(&|p| p.0), mean(&|p| p.1));
        let covariance = mean(&|p| (p.0 - x) * (p.1 - y));
        let expected = covariance / (mean(&|p| (p.0 - x).powi(2)) * mean(&|p| (p.1 - y).powi(2))).sqrt();
        assert!((of(&pairs).unwrap() - expected).abs() < 1e-12);
        assert!(of(&pairs.iter().map(|p| (p.0, -2.0 * p.0)).collect::<Vec<_>>()).unwrap() < -0.999_999);
        assert_eq!(of(&pairs.iter().map(|p| (0.3, p.1)).collect::<Vec<_>>()), None);
        assert_eq!(of(&pairs.iter().map(|p| (p.0, 1.0)).collect::<Vec<_>>()), None);
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn a_tally_counts_by_distance() {
        let mut tally = Tally::default();
        for (distance, hit) in [(1, true), (1, true), (1, false), (4, false)] {
            tally.push(distance, hit, if hit { 0.9 } else { 0.2 });
        }
        assert_eq!((tally.all.hits, tally.all.matches), (2, 4));
        assert_eq!(tally.by_distance[&1].pck().map(|p| (p * 3.0).round()), Some(2.0));
        assert_eq!(tally.by_distance[&4].hits, 0);
        assert!(tally.correlation.value().unwrap() > 0.999);
        assert_eq!(Tally::default().all.pck(), None);
    }
}
