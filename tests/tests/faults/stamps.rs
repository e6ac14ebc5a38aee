//! Clocks that stand still, run back, jump, or are exchanged.

use node::message::DiagnosticLevel::{Error, Stale, Warn};
use node::stats::Fate;

use crate::case::{Case, Expect, from, picture, settings};
use crate::rig::parsed;

#[test]
fn stamps_that_repeat() {
    let mut case = Case::new();
    case.frames(0..5);
    (0..3).for_each(|_| case.frames(4..5));
    case.frames(5..9);
    case.end(&Expect {
        used: 9,
        dropped: &[(Fate::Repeated, 3)],
        held: 1,
        answered: 2,
        level: Warn,
        message: "frames_dropped_repeated +3; last: stamp 400000000 ns does not come after",
        paths: vec![from(0), from(4)],
        ..Expect::default()
    });
}

#[test]
fn a_stamp_that_runs_back_a_little() {
    let mut case = Case::new();
    for i in [0, 1, 3, 2, 4, 5] {
        case.frames(i..i + 1);
    }
    case.end(&Expect {
        used: 5,
        dropped: &[(Fate::Backward, 1)],
        held: 1,
        answered: 1,
        level: Warn,
        message: "frames_dropped_backward +1",
        paths: vec![[0, 1, 3, 4, 5]],
        ..Expect::default()
    });
}

#[test]
fn a_clock_that_jumps_back_starts_the_odometry_over() {
    let mut case = Case::new();
    case.frames(100..107);
    case.frames(0..5);
    let outputs = case.end(&Expect {
        used: 10,
        dropped: &[(Fate::ClockReset, 2)],
        held: 1,
        answered: 2,
        breaks: 1,
        level: Warn,
        message: "frames_dropped_clock_reset +2",
        paths: vec![from(100), from(0)],
        ..Expect::default()
    });
    assert!(outputs.odometries[5].pose.position[2].abs() < 1e-12, "at its origin");
}

#[test]
fn a_clock_that_jumps_ahead() {
    let mut case = Case::new();
    case.frames(0..7);
    case.frames(100..105);
    case.end(&Expect {
        used: 10,
        dropped: &[(Fate::GapReset, 2)],
        held: 1,
        answered: 2,
        breaks: 1,
        level: Warn,
        message: "frames_dropped_gap_reset +2",
        paths: vec![from(0), from(100)],
        ..Expect::default()
    });
}

#[test]
fn a_single_stamp_from_the_future() {
    let mut case = Case::new();
    case.frames(0..7);
    case.image(picture(10_000, 7));
    case.frames(8..13);
    case.end(&Expect {
        used: 10,
        dropped: &[(Fate::GapReset, 2), (Fate::ClockReset, 1)],
        held: 1,
        answered: 2,
        breaks: 1,
        level: Warn,
        message: "frames_dropped_gap_reset +2, frames_dropped_clock_reset +1",
        paths: vec![from(0), from(8)],
        ..Expect::default()
    });
}

#[test]
fn stamps_that_are_all_zero() {
    let mut case = Case::new();
    (0..10).for_each(|i| case.image(picture(0, i)));
    case.end(&Expect {
        dropped: &[(Fate::Repeated, 9)],
        waiting: 1,
        held: 1,
        level: Error,
        message: "every image is refused: stamp 0 ns does not come after the frame before it",
        ..Expect::default()
    });
}

#[test]
fn a_zero_stamp_among_good_ones() {
    let mut case = Case::new();
    case.frames(10..17);
    case.image(picture(0, 17));
    case.frames(18..23);
    case.end(&Expect {
        used: 10,
        dropped: &[(Fate::ClockReset, 2), (Fate::GapReset, 1)],
        held: 1,
        answered: 2,
        breaks: 1,
        level: Warn,
        message: "frames_dropped_gap_reset +1, frames_dropped_clock_reset +2",
        paths: vec![from(10), from(18)],
        ..Expect::default()
    });
}

#[test]
fn stamps_of_the_first_and_the_last_moment() {
    let mut case = Case::new();
    case.image(picture(i64::MIN, 0));
    case.image(picture(i64::MAX, 0));
    case.frames(0..5);
    case.end(&Expect {
        used: 5,
        dropped: &[(Fate::GapReset, 1), (Fate::ClockReset, 1)],
        held: 1,
        answered: 1,
        breaks: 1,
        level: Warn,
        message: "frames_dropped_gap_reset +1, frames_dropped_clock_reset +1",
        paths: vec![from(0)],
        ..Expect::default()
    });
}

#[test]
fn a_camera_slower_than_the_longest_gap() {
    let mut case = Case::new();
    (0..8).for_each(|i| case.image(picture(6 * i, i as u8)));
    case.end(&Expect {
        dropped: &[(Fate::GapReset, 7)],
        waiting: 1,
        held: 1,
        level: Warn,
        message: "frames_dropped_gap_reset +7",
        ..Expect::default()
    });
}

/// The clock of the system, in periods.
const TODAY: i64 = 17_000_000_000;

#[test]
fn a_clock_source_that_changes_to_a_simulation_and_back() {
    let mut case = Case::new();
    for (first, count) in [(TODAY, 7), (0, 7), (TODAY + 100, 5)] {
        (0..count).for_each(|i| case.image(picture(first + i, i as u8)));
    }
    case.end(&Expect {
        used: 15,
        dropped: &[(Fate::ClockReset, 2), (Fate::GapReset, 2)],
        held: 1,
        answered: 3,
        breaks: 2,
        level: Warn,
        message: "frames_dropped_gap_reset +2, frames_dropped_clock_reset +2",
        paths: vec![from(TODAY), from(0), from(TODAY + 100)],
        ..Expect::default()
    });
}

#[test]
fn a_camera_that_falls_silent_and_comes_back() {
    let mut settings = settings();
    settings.live.diagnostics.period = std::time::Duration::from_millis(20);
    settings.live.diagnostics.silent_after = std::time::Duration::from_millis(300);
    let mut case = Case::with(settings, Box::new(|_| parsed()));
    case.frames(0..5);
    let (message, _) = case.rig.report(Stale);
    assert!(message.contains("no image on /camera"), "{message}");
    case.frames(30..35);
    case.end(&Expect {
        used: 10,
        held: 1,
        answered: 2,
        breaks: 1,
        message: "2 windows answered",
        // The report before took the first path with it.
        paths: vec![from(30)],
        ..Expect::default()
    });
}
