//! Clocks that stand still, run back, jump, or are exchanged.

use camera::message::ImageMessage;
use geometry::Stamp;
use node::ros::message::DiagnosticLevel::{Error, Stale, Warn};
use node::ros::message::Input;
use node::status::counters::Fate;

use crate::case::{Case, Expect, from, grey, picture, settings};
use crate::rig::{PERIOD, parsed};

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

/// An image with a far stamp among thirteen regular ones: it is lost, and nothing else.
fn one_stray(first: i64, stray: i64, dropped: &'static [(Fate, u64)], message: &'static str) {
    let mut case = Case::new();
    case.frames(first..first + 7);
    case.image(picture(stray, 7));
    case.frames(first + 7..first + 13);
    let [one, two, three] = [0, 4, 8].map(|i| from(first + i));
    case.end(&Expect {
        used: 13,
        dropped,
        held: 1,
        answered: 3,
        level: Warn,
        message,
        paths: vec![one, two, three],
        ..Expect::default()
    });
}

#[test]
fn a_single_stamp_from_the_future() {
    one_stray(
        0,
        10_000,
        &[(Fate::Ahead, 1)],
        "frames_dropped_ahead +1; last: stamp 1000000000000 ns is more than window.max_gap_millis from 600000000 ns",
    );
}

#[test]
fn a_single_stamp_from_the_past() {
    one_stray(
        10_000,
        9_000,
        &[(Fate::Backward, 1)],
        "frames_dropped_backward +1; last: stamp 900000000000 ns is more than window.max_gap_millis from 1000600000000 ns",
    );
}

#[test]
fn single_stamps_of_many_clocks_in_one_stream() {
    let mut case = Case::new();
    for i in 0..9 {
        case.image(picture(100 + i, i as u8));
        if i < 8 {
            let stray = [0, 1_000, -500, i64::MAX, 50, i64::MIN, 300, 0][i as usize];
            case.image(picture(stray, i as u8));
        }
    }
    case.end(&Expect {
        used: 9,
        dropped: &[(Fate::Backward, 5), (Fate::Ahead, 3)],
        held: 1,
        answered: 2,
        level: Warn,
        message: "frames_dropped_backward +5, frames_dropped_ahead +3",
        paths: vec![from(100), from(104)],
        ..Expect::default()
    });
}

#[test]
fn a_far_stamp_that_is_the_last_of_all_waits_for_the_next() {
    let mut case = Case::new();
    case.frames(0..5);
    case.image(picture(10_000, 5));
    case.end(&Expect { used: 5, waiting: 1, held: 2, answered: 1, paths: vec![from(0)], ..Expect::default() });
}

#[test]
fn a_far_stamp_before_the_clock_really_jumps() {
    let mut case = Case::new();
    case.frames(0..7);
    case.image(picture(10_000, 7));
    case.frames(100..105);
    case.end(&Expect {
        used: 10,
        dropped: &[(Fate::Ahead, 1), (Fate::GapReset, 2)],
        held: 1,
        answered: 2,
        breaks: 1,
        level: Warn,
        message: "frames_dropped_ahead +1, frames_dropped_gap_reset +2",
        paths: vec![from(0), from(100)],
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
    one_stray(
        10,
        0,
        &[(Fate::Backward, 1)],
        "frames_dropped_backward +1; last: stamp 0 ns is more than window.max_gap_millis from 1600000000 ns before it",
    );
}

#[test]
fn a_zero_stamp_that_comes_first() {
    let mut case = Case::new();
    case.image(picture(0, 0));
    case.frames(100..105);
    case.end(&Expect {
        used: 5,
        dropped: &[(Fate::GapReset, 1)],
        held: 1,
        answered: 1,
        level: Warn,
        message: "frames_dropped_gap_reset +1",
        paths: vec![from(100)],
        ..Expect::default()
    });
}

#[test]
fn stamps_that_are_zero_from_some_image_on() {
    let mut case = Case::new();
    case.frames(10..15);
    (0..20).for_each(|i| case.image(picture(0, i)));
    case.end(&Expect {
        used: 5,
        dropped: &[(Fate::Repeated, 19)],
        waiting: 1,
        held: 2,
        answered: 1,
        level: Warn,
        message: "frames_dropped_repeated +19; last: stamp 0 ns does not come after the frame before it",
        paths: vec![from(10)],
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
        dropped: &[(Fate::Ahead, 1), (Fate::GapReset, 1)],
        held: 1,
        answered: 1,
        level: Warn,
        message: "frames_dropped_ahead +1, frames_dropped_gap_reset +1",
        paths: vec![from(0)],
        ..Expect::default()
    });
}

#[test]
fn a_camera_slower_than_the_longest_gap() {
    let mut case = Case::new();
    (0..8).for_each(|i| case.image(picture(6 * i, i as u8)));
    case.end(&Expect {
        dropped: &[(Fate::Ahead, 6)],
        waiting: 2,
        held: 2,
        level: Error,
        message: "every image is refused: stamp 3600000000 ns is more than window.max_gap_millis from 0 ns before it",
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

#[test]
fn stamps_ahead_of_the_machine_s_clock_are_told() {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let first = (now.as_secs() as i64 + 3_600) * 10;
    let mut case = Case::new();
    (0..5).for_each(|i| case.image(picture(first + i, i as u8)));
    let outputs = case.end(&Expect {
        used: 5,
        held: 1,
        answered: 1,
        level: Warn,
        message: "stamps of /camera are more than a second ahead of this machine's clock",
        paths: vec![from(first)],
        ..Expect::default()
    });
    let (.., values) = outputs.diagnostics.last().unwrap();
    assert!(values["doubt_clock"].contains("use_sim_time"), "{values:?}");
}

/// Microseconds where nanoseconds belong: 100 ms come out as 100 us.
#[test]
fn stamps_of_another_unit_are_told() {
    let mut case = Case::new();
    for i in 0..9 {
        let stamp = Stamp::from_nanos(i * PERIOD / 1_000);
        let payload = grey(8, i as u8);
        case.image(Input::Image(ImageMessage { stamp, frame_id: "optical".to_owned(), payload }));
    }
    case.end(&Expect {
        used: 9,
        held: 1,
        answered: 2,
        level: Warn,
        message: "stamps of /camera are 100000 ns apart, which no camera is",
        paths: vec![[0; 5], [0; 5]],
        ..Expect::default()
    });
}
