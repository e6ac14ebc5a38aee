//! How often something is tried, and with what numbers.

use std::io::Write;
use std::time::{Duration, Instant};

/// Seconds for each test, in the long form.
const SECONDS: &str = "EGOREASONER_BREAK_SECONDS";

/// Calls `each` with the number of the round: `short` times, or until the time of the long form is over.
pub fn rounds(short: u64, mut each: impl FnMut(u64)) {
    let long = std::env::var(SECONDS).ok().map(|seconds| Duration::from_secs(seconds.parse().expect(SECONDS)));
    let begun = Instant::now();
    let mut round = 0;
    while round < short || long.is_some_and(|long| begun.elapsed() < long) {
        each(round);
        round += 1;
    }
}

/// Says on standard output, past the harness that would hold it back, what `cargo xtask test` has in its last lines.
pub fn not_run_here(test: &str, why: &str) {
    let mut output = std::io::stdout().lock();
    writeln!(output, "\nnot run here: {test}: {why}").expect("standard output");
}

/// Numbers that a seed decides: SplitMix64, so that a round is the same on every machine.
pub struct Draw(u64);

impl Draw {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to below `end`, which is over 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.word() % end as u64) as usize
    }

    /// From 0 to below 1.
    pub fn share(&mut self) -> f64 {
        self.below(1 << 20) as f64 / f64::from(1 << 20)
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.word() as u8).collect()
    }
}
