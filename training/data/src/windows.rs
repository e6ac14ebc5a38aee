//! Which frames of a sequence make windows.

use super::sequence::{Frame, Sequence};
use camera::pace::Pace;
use geometry::WINDOW;
use std::time::Duration;

/// How far the frames of a window are apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Spacing {
    /// In frames of the sequence; none of its windows where it is 0.
    Stride(usize),
    /// The same in those frames alone that are a time apart ([`Pace`]), as the node takes them with `window.period_millis`.
    Paced {
        /// The time; every frame is taken where it is zero.
        period: Duration,
        /// In frames that are taken; no window where it is 0.
        stride: usize,
    },
    /// In motion: films of fast and slow cameras give windows alike.
    Motion(Motion),
}

/// The next frame of a window is the first that has turned or moved by more than this from the one before.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Motion {
    /// Angle between the orientations, degrees; `None` where rotation does not count.
    pub angle_deg: Option<f64>,
    /// Distance between the camera centres, scene units; `None` where translation does not count.
    pub distance: Option<f64>,
    /// Frames after which the search for the next one is given up, and the window with it.
    pub reach: usize,
}

impl Spacing {
    /// Its part of a window's id: `s2`, `t250s2`, `m5`, `u0.3` or `m5u0.3`.
    pub(super) fn tag(&self) -> String {
        match self {
            Self::Stride(stride) => format!("s{stride}"),
            Self::Paced { period, stride } => format!("t{}s{stride}", period.as_millis()),
            Self::Motion(Motion { angle_deg, distance, .. }) => {
                let part = |letter: &str, value: &Option<f64>| value.map_or(String::new(), |v| format!("{letter}{v}"));
                part("m", angle_deg) + &part("u", distance)
            }
        }
    }

    /// What a sequence must have for at least one window.
    pub(super) fn needs(&self) -> String {
        match self {
            Self::Stride(stride) => {
                format!("{} or more for windows of stride {stride}", (WINDOW - 1) * stride + 1)
            }
            Self::Paced { period, stride } => {
                let (least, millis) = ((WINDOW - 1) * stride + 1, period.as_millis());
                format!("{least} or more that are {millis} ms apart for windows of stride {stride}")
            }
            Self::Motion(Motion { reach, .. }) => {
                format!("{} steps of the motion asked for, each within {reach} frames", WINDOW - 1)
            }
        }
    }

    /// Of the frames of a sequence those that count.
    fn taken(&self, frames: &[Frame]) -> Vec<usize> {
        let Self::Paced { period, .. } = self else { return (0..frames.len()).collect() };
        let mut pace = Pace::new(*period);
        let mut takes = |frame: &Frame| {
            if frame.gap_before {
                pace.restart();
            }
            pace.takes(frame.stamp)
        };
        (0..frames.len()).filter(|&at| takes(&frames[at])).collect()
    }

    /// The frame that follows frame `at` in a window.
    fn next(&self, frames: &[&Frame], at: usize) -> Option<usize> {
        let reach = match self {
            Self::Stride(stride) | Self::Paced { stride, .. } => *stride,
            Self::Motion(motion) => motion.reach,
        };
        let whole = frames.iter().skip(at + 1).take(reach).take_while(|frame| !frame.gap_before).count();
        match self {
            Self::Stride(stride) | Self::Paced { stride, .. } => (*stride > 0 && whole == *stride).then(|| at + stride),
            Self::Motion(motion) => (at + 1..=at + whole).find(|&next| motion.exceeded(frames[at], frames[next])),
        }
    }
}

impl Motion {
    fn exceeded(&self, a: &Frame, b: &Frame) -> bool {
        let (a, b) = (a.world_from_camera, b.world_from_camera);
        self.angle_deg.is_some_and(|limit| a.rotation().angle_to(&b.rotation()).to_degrees() > limit)
            || self.distance.is_some_and(|limit| (a.translation() - b.translation()).norm() > limit)
    }
}

/// Frame numbers of the windows that start at every `every`-th frame that counts (0 is as 1), from the first and from each
/// behind a gap, as the node's do; none goes across one.
pub(super) fn windows(frames: &[Frame], spacing: Spacing, every: usize) -> Vec<[usize; WINDOW]> {
    let taken = spacing.taken(frames);
    let left: Vec<&Frame> = taken.iter().map(|&at| &frames[at]).collect();
    let window = |first: usize| {
        let mut window = [first; WINDOW];
        for place in 1..WINDOW {
            window[place] = spacing.next(&left, window[place - 1])?;
        }
        Some(window.map(|at| taken[at]))
    };
    let mut begun = 0;
    let is_start = |&at: &usize| {
        begun = if left[at].gap_before { at } else { begun };
        (at - begun).is_multiple_of(every.max(1))
    };
    (0..left.len()).filter(is_start).filter_map(window).collect()
}

impl Sequence {
    /// Frame numbers of every window whose frames are `stride` apart; none where `stride` is 0.
    pub fn windows(&self, stride: usize) -> impl Iterator<Item = [usize; WINDOW]> + use<> {
        self.spaced_windows(Spacing::Stride(stride), 1).into_iter()
    }

    /// Frame numbers of the windows that start at every `every`-th frame that counts; none goes across a gap.
    pub fn spaced_windows(&self, spacing: Spacing, every: usize) -> Vec<[usize; WINDOW]> {
        windows(&self.frames, spacing, every)
    }
}

#[cfg(test)]
mod tests {
    use super::super::picture::Image;
    use super::*;
    use geometry::{Stamp, Transform};
    use nalgebra::{Isometry3, Vector3};
    use std::path::PathBuf;

    /// Frames on the x axis that turn about y: (metres, degrees) of each.
    fn film(path: &[(f64, f64)]) -> Vec<Frame> {
        let pose = |&(x, degrees): &(f64, f64)| {
            let turn = Vector3::new(0.0, f64::to_radians(degrees), 0.0);
            Transform::from_isometry_unchecked(Isometry3::new(Vector3::new(x, 0.0, 0.0), turn))
        };
        let frame = |place| Frame {
            stamp: Stamp::default(),
            world_from_camera: pose(place),
            image: Image::File(PathBuf::new()),
            depth: None,
            gap_before: false,
        };
        path.iter().map(frame).collect()
    }

    #[test]
    fn no_window_goes_across_a_gap() {
        let mut frames = film(&[(0.0, 0.0); 11]);
        frames[0].gap_before = true;
        frames[6].gap_before = true;
        let got = windows(&frames, Spacing::Stride(1), 1);
        assert_eq!(got, [[0, 1, 2, 3, 4], [1, 2, 3, 4, 5], [6, 7, 8, 9, 10]]);
        assert_eq!(windows(&frames, Spacing::Stride(1), 2), [[0, 1, 2, 3, 4], [6, 7, 8, 9, 10]]);
        assert!(windows(&frames, Spacing::Stride(2), 1).is_empty());
        assert_eq!(windows(&film(&[(0.0, 0.0); 9]), Spacing::Stride(2), 1), [[0, 2, 4, 6, 8]]);
        assert!(windows(&frames, Spacing::Stride(0), 1).is_empty() && windows(&[], Spacing::Stride(1), 1).is_empty());
    }

    #[test]
    fn windows_start_anew_behind_a_gap() {
        let mut frames = film(&[(0.0, 0.0); 13]);
        frames[7].gap_before = true;
        // Counted from the first of all, 6 and 9 would be starts, and 7 none.
        assert_eq!(windows(&frames, Spacing::Stride(1), 3), [[0, 1, 2, 3, 4], [7, 8, 9, 10, 11]]);
        assert_eq!(windows(&frames, Spacing::Stride(1), 2), [[0, 1, 2, 3, 4], [2, 3, 4, 5, 6], [7, 8, 9, 10, 11]]);
    }

    #[test]
    fn frames_a_time_apart_make_windows_of_any_rate_alike() {
        // At 30 Hz, without frame 6, and with a gap before frame 20.
        let mut frames = film(&[(0.0, 0.0); 40]);
        for (frame, at) in frames.iter_mut().zip((0..).filter(|at| *at != 6)) {
            frame.stamp = Stamp::from_nanos(at * 33_333_333);
        }
        frames[20].gap_before = true;
        let paced = |millis, stride| Spacing::Paced { period: Duration::from_millis(millis), stride };
        let expected: [[usize; WINDOW]; 3] = [[0, 3, 6, 9, 12], [3, 6, 9, 12, 15], [6, 9, 12, 15, 18]];
        let behind: [[usize; WINDOW]; 3] = [[20, 23, 26, 29, 32], [23, 26, 29, 32, 35], [26, 29, 32, 35, 38]];
        assert_eq!(windows(&frames, paced(100, 1), 1), [expected, behind].concat());
        assert_eq!(windows(&frames, paced(100, 1), 2), [expected[0], expected[2], behind[0], behind[2]]);
        assert_eq!(windows(&frames, paced(66, 2), 8)[0], [0, 4, 8, 12, 16]);
        assert_eq!(windows(&frames, paced(0, 1), 1), windows(&frames, Spacing::Stride(1), 1));
        assert!(windows(&frames, paced(1000, 1), 1).is_empty() && windows(&frames, paced(100, 0), 1).is_empty());
        assert_eq!(paced(250, 2).tag(), "t250s2");
    }

    #[test]
    fn motion_sets_the_pace_within_its_reach() {
        // Two degrees a frame, then ten; a metre in the last step alone.
        let path = [0.0, 2.0, 4.0, 6.0, 16.0, 26.0, 36.0, 46.0].map(|angle| (0.0, angle));
        let turning = |angle_deg, distance, reach| Spacing::Motion(Motion { angle_deg, distance, reach });
        let mut frames = film(&path);
        assert_eq!(
            windows(&frames, turning(Some(5.0), None, 48), 1),
            [[0, 3, 4, 5, 6], [1, 4, 5, 6, 7], [2, 4, 5, 6, 7], [3, 4, 5, 6, 7]]
        );
        assert_eq!(windows(&frames, turning(Some(5.0), None, 2), 1), [[2, 4, 5, 6, 7], [3, 4, 5, 6, 7]]);
        assert!(windows(&frames, turning(None, Some(0.1), 48), 1).is_empty());
        // Either of the two is enough.
        frames = film(&[(0.0, 0.0), (0.2, 0.0), (0.2, 6.0), (0.4, 6.0), (0.4, 12.0)]);
        assert_eq!(windows(&frames, turning(Some(5.0), Some(0.1), 1), 1), [[0, 1, 2, 3, 4]]);
        frames[2].gap_before = true;
        assert!(windows(&frames, turning(Some(5.0), Some(0.1), 48), 1).is_empty());
        assert_eq!(turning(Some(5.0), Some(0.1), 1).tag(), "m5u0.1");
    }
}
