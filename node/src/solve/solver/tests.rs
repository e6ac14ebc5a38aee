use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use geometry::{Intrinsics, Stamp};
use image::RgbImage;

use super::{Answered, Solved, Solver};
use crate::config::ScaleRules;
use crate::publish;
use crate::solve::estimator::{Error, Estimate, Estimator};
use crate::solve::scale::Scaler;
use crate::status::counters::Stats;
use crate::trust::state::Status;
use crate::trust::synthetic::{chain, estimate, motion, rules, turned};
use crate::window::frame::Frame;
use crate::window::{View, Window};
use camera::decode::SampleRange;
use camera::message::ImagePayload;
use camera::optics::Optics;

const PERIOD: i64 = 100_000_000;

/// Says what it was told to.
struct Parrot(VecDeque<Estimate>);

impl Estimator for Parrot {
    type Frame = ();

    fn encode(&mut self, _: &RgbImage, _: &Intrinsics) -> Result<(), Error> {
        Ok(())
    }

    fn estimate(&mut self, _: [&(); 5]) -> Result<Estimate, Error> {
        self.0.pop_front().ok_or_else(|| Error::Other("nothing left to say".to_owned()))
    }
}

struct Rig {
    solver: Solver<Parrot>,
    stats: Arc<Stats>,
    windows: u64,
}

impl Rig {
    fn new(answers: impl IntoIterator<Item = Estimate>) -> Self {
        let stats = Stats::new();
        let scaler = Scaler::new(ScaleRules::Metric, Arc::default());
        let solver = Solver::new(Parrot(answers.into_iter().collect()), scaler, &rules(), Arc::clone(&stats));
        Self { solver, stats, windows: 0 }
    }

    /// The window over frames `first` to `first + 4`, all of so many bytes.
    fn solve(&mut self, first: i64, bytes: usize) -> Solved {
        let intrinsics = Intrinsics::new(9.0, 9.0, 4.0, 3.0, 8, 6).unwrap();
        let optics = Optics { intrinsics, rectifier: None };
        let frame = |_| {
            let encoding = "mono8".to_owned();
            let payload =
                ImagePayload::Raw { width: 8, height: 6, encoding, is_bigendian: false, step: 8, data: vec![0; bytes] };
            Arc::new(Frame::new(payload, SampleRange::FULL, optics.clone(), self.stats.receive(Instant::now())))
        };
        let window = Window {
            id: self.windows,
            epoch: 0,
            stamps: std::array::from_fn(|i| Stamp::from_nanos((first + i as i64) * PERIOD)),
            view: View { frame_id: "optical".into(), intrinsics },
            frames: std::array::from_fn(frame),
        };
        self.windows += 1;
        self.solver.solve(window, None, &AtomicBool::new(false)).unwrap()
    }

    fn answer(&mut self, first: i64) -> Box<Answered> {
        match self.solve(first, 48) {
            Solved::Answered(answered) => answered,
            other => panic!("{other:?}"),
        }
    }
}

/// A window, and what it must bring about.
struct Row {
    bad: bool,
    status: Status,
    /// Frames that go out on the odometry, with what their variance of rotation has more than that of the pose which the
    /// window joins, in units of 1e-4.
    odometry: &'static [(i64, f64)],
}

#[test]
fn good_then_bad_then_good_comes_out_widened_then_not_at_all_then_behind_a_break() {
    let exact = chain(&motion(0.1, 0.0));
    let (good, bad) = (estimate(&exact), estimate(&turned(&exact, 6.0)));
    let row = |bad, status, odometry: &'static [(i64, f64)]| Row { bad, status, odometry };
    let rows = [
        row(false, Status::Ok, &[(0, 1.0), (1, 1.0), (2, 4.0), (3, 9.0), (4, 16.0)]),
        // Six times what is typical: six times the standard deviation.
        row(true, Status::Ok, &[(5, 36.0)]),
        row(true, Status::Degraded, &[(6, 36.0)]),
        row(true, Status::Lost, &[]),
        row(false, Status::Lost, &[]),
        // Frame 6 is put where it was, frames 7 to 9 hang on it; the break adds 0.5 rad.
        row(false, Status::Ok, &[(7, 2501.0), (8, 2504.0), (9, 2509.0)]),
        row(false, Status::Ok, &[(10, 1.0)]),
    ];
    let mut rig = Rig::new(rows.iter().map(|row| if row.bad { bad.clone() } else { good.clone() }));
    let mut joined = 0.0;
    for (first, row) in (0..).zip(&rows) {
        let answered = rig.answer(first);
        let judged = &answered.judged;
        assert_eq!(judged.verdict.status, row.status, "window {first}: {}", judged.reason);
        let evidence = judged.evidence.as_ref().unwrap();
        assert!(evidence.checks().starts_with(&["parse", "rotation", "sanity", "procrustes", "epipolar"]));
        assert_eq!(evidence.checks().contains(&"overlap"), first > 0, "window {first}");
        assert_eq!(publish::trajectory(&answered).is_some(), !row.odometry.is_empty(), "window {first}");
        let odometry = publish::odometry(&answered, "odom", None);
        let frames: Vec<i64> = odometry.iter().map(|message| message.pose.stamp.nanos / PERIOD).collect();
        assert_eq!(frames, row.odometry.iter().map(|(frame, _)| *frame).collect::<Vec<_>>(), "window {first}");
        for (message, (frame, share)) in odometry.iter().zip(row.odometry) {
            assert!((message.pose.position[2] - 0.1 * *frame as f64).abs() < 1e-9, "{message:?}");
            let covariance = &message.pose_covariance;
            let expected = joined + share * 1e-4;
            assert!((covariance[35] - expected).abs() < 1e-6, "frame {frame}: {} {expected}", covariance[35]);
            assert!((0..6).all(|axis| covariance[7 * axis] > 0.0), "zero would say that it is not known");
        }
        joined = odometry.last().map_or(joined, |message| message.pose_covariance[35]);
    }
    let s = rig.stats.snapshot();
    assert_eq!((s.windows_answered, s.answers_unparsed), (7, 0));
    assert_eq!((s.windows_degraded, s.windows_withheld, s.losses, s.recoveries), (1, 2, 1, 1));
    assert_eq!(s.odometry_breaks, 1, "the reset counter has grown with the jump");
    assert_eq!((s.status, s.status_reason.as_str()), (Status::Ok, ""));
    let problem = s.last_problem.unwrap();
    assert!(problem.contains("window 4: withheld") && problem.contains("procrustes_rotation_deg 6.0"), "{problem}");
}

#[test]
fn windows_that_cannot_be_read_for_long_are_lost() {
    let good = estimate(&chain(&motion(0.1, 0.0)));
    let mut rig = Rig::new([good]);
    rig.answer(0);
    for (first, status) in [(10, Status::Ok), (500, Status::Ok), (601, Status::Lost)] {
        assert!(matches!(rig.solve(first, 47), Solved::Broken(_)));
        assert_eq!(rig.stats.snapshot().status, status, "frame {first}");
    }
    let s = rig.stats.snapshot();
    assert_eq!((s.windows_broken, s.losses, s.recoveries), (3, 1, 0));
    assert!(s.status_reason.contains("no usable answer for 60.1 s"), "{}", s.status_reason);
}
