//! Frames at a pace, so that windows of any camera, at 4 Hz or at 60, span the same time. The robot and the trainer take the
//! same frames of a drive.

use std::time::Duration;

use geometry::Stamp;

/// Takes of a stream the frames that are about a period apart.
///
/// The first frame is taken, and then each time the first that is a period behind the last one taken, or so little short of
/// it that the next frame would be further off: by no more than half the least step between frames since that one. A frame
/// that is lost is therefore stood in for by the next, and a camera slower than the period has all its frames taken.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    period_nanos: i64,
    since: Option<Since>,
}

/// What has come since a frame was taken.
#[derive(Clone, Copy, Debug)]
struct Since {
    taken: Stamp,
    newest: Stamp,
    /// Between neighbouring frames, nanoseconds.
    least_step: i64,
}

impl Pace {
    /// Before the first frame; with a period of zero every frame is taken.
    pub fn new(period: Duration) -> Self {
        Self { period_nanos: i64::try_from(period.as_nanos()).unwrap_or(i64::MAX), since: None }
    }

    /// The stream begins anew: its next frame is the first.
    pub fn restart(&mut self) {
        self.since = None;
    }

    /// Whether the next frame is taken. Stamps rise, but for the first one behind [`Self::restart`].
    pub fn takes(&mut self, stamp: Stamp) -> bool {
        let is_taken = self.since.as_mut().is_none_or(|since| {
            since.least_step = since.least_step.min(stamp.nanos_since(since.newest));
            since.newest = stamp;
            stamp.nanos_since(since.taken) >= self.period_nanos.saturating_sub(since.least_step / 2)
        });
        if is_taken {
            self.since = Some(Since { taken: stamp, newest: stamp, least_step: i64::MAX });
        }
        is_taken
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use geometry::Stamp;

    use super::Pace;

    /// Which of the frames at these milliseconds are taken.
    fn taken(period_millis: u64, stamps: &[i64]) -> Vec<usize> {
        let mut pace = Pace::new(Duration::from_millis(period_millis));
        (0..stamps.len()).filter(|i| pace.takes(Stamp::from_nanos(stamps[*i] * 1_000_000))).collect()
    }

    /// A regular camera.
    fn every(step: i64, frames: i64) -> Vec<i64> {
        (0..frames).map(|i| i * step).collect()
    }

    #[test]
    fn frames_are_taken_a_period_apart_at_any_rate() {
        let rows: [(&str, u64, Vec<i64>, Vec<usize>); 7] = [
            ("each", 0, vec![0, 1, 5, 90, 400], vec![0, 1, 2, 3, 4]),
            ("a camera of that rate, unsteady", 250, vec![0, 246, 502, 748, 1003], vec![0, 1, 2, 3, 4]),
            ("a slower one", 250, every(400, 3), vec![0, 1, 2]),
            ("a fifth of one", 250, every(50, 11), vec![0, 5, 10]),
            // 99 is nearer to 100 than 132 is.
            ("a third of one, a little short each time", 100, every(33, 10), vec![0, 3, 6, 9]),
            ("of two that are as near the earlier", 250, every(100, 6), vec![0, 2, 4]),
            ("one that is quicker than twice, not yet", 250, vec![0, 110, 220, 330, 440], vec![0, 2, 4]),
        ];
        for (what, period, stamps, expected) in rows {
            assert_eq!(taken(period, &stamps), expected, "{what}");
        }
    }

    #[test]
    fn a_lost_frame_is_stood_in_for_by_the_next_and_no_earlier_one() {
        // 100, 200 and 250 are lost.
        assert_eq!(taken(100, &[0, 50, 150, 300, 350, 400]), [0, 2, 3, 5]);
        // One before the frame that is due: half of the longer step is no reason to take an earlier one.
        assert_eq!(taken(200, &[0, 40, 80, 160, 200, 240]), [0, 4]);
    }

    #[test]
    fn behind_a_restart_the_first_frame_is_taken_whatever_its_stamp() {
        let mut pace = Pace::new(Duration::from_millis(100));
        let mut takes = |millis: i64| pace.takes(Stamp::from_nanos(millis * 1_000_000));
        assert!(takes(5000) && !takes(5040));
        pace.restart();
        let mut takes = |millis: i64| pace.takes(Stamp::from_nanos(millis * 1_000_000));
        assert!(takes(0) && !takes(50) && takes(100));
        let mut longest = Pace::new(Duration::MAX);
        assert!(longest.takes(Stamp::from_nanos(i64::MIN)) && longest.takes(Stamp::from_nanos(i64::MAX)));
    }
}
