//! How far a long replay has come, for a person who waits: a line on standard error now and then, with rate and time left.

use std::time::{Duration, Instant};

use model::process;

/// From one line to the next.
const PERIOD: Duration = Duration::from_secs(2);

/// Tells of one stage.
#[derive(Debug)]
pub struct Progress {
    what: String,
    begun: Instant,
    told: Instant,
}

impl Progress {
    /// Of what begins now, such as `film.mp4: decoding`.
    pub fn begin(what: String) -> Self {
        let begun = Instant::now();
        Self { what, begun, told: begun }
    }

    /// So many images are done, and such a share of all, where that is known.
    pub fn tell(&mut self, images: u64, share: Option<f64>) {
        if self.told.elapsed() >= PERIOD {
            self.told = Instant::now();
            process::say(&line(&self.what, images, share, self.begun.elapsed()));
        }
    }
}

fn line(what: &str, images: u64, share: Option<f64>, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64().max(1e-9);
    let rate = images as f64 / seconds;
    let left = share.filter(|share| *share > 0.0).map(|share| (seconds * (1.0 / share - 1.0)).max(0.0));
    let left = left.map_or_else(String::new, |left| format!(", {left:.0} s left"));
    format!("node: {what}: {images} images, {rate:.1} a second{left}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::line;

    #[test]
    fn rate_and_time_left_are_those_of_what_is_done() {
        let at = |images, share| line("film.mp4: decoding", images, share, Duration::from_secs(4));
        assert_eq!(at(50, Some(0.25)), "node: film.mp4: decoding: 50 images, 12.5 a second, 12 s left");
        assert_eq!(at(50, None), "node: film.mp4: decoding: 50 images, 12.5 a second");
        assert_eq!(at(0, Some(0.0)), "node: film.mp4: decoding: 0 images, 0.0 a second");
        assert_eq!(at(50, Some(1.1)), "node: film.mp4: decoding: 50 images, 12.5 a second, 0 s left");
    }
}
