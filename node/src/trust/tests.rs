use geometry::{Outcome, Stamp, WindowTrajectory};

use super::state::Status;
use super::synthetic::{chain, estimate, motion, poses_alone, rules};
use super::{Judge, Judged, NoPoses};
use crate::config::Frozen;
use crate::solve::estimator::Estimate;

const PERIOD: i64 = 100_000_000;

/// Frames `first` to `first + 4` of a camera that goes 0.1 m forward a frame, answered with these poses.
fn push_in(judge: &mut Judge, epoch: u32, first: i64, trajectory: &WindowTrajectory) -> Judged {
    let stamps = std::array::from_fn(|i| Stamp::from_nanos((first + i as i64) * PERIOD));
    judge.answer(epoch, &stamps, &poses_alone(trajectory), 1.0, false)
}

fn push(judge: &mut Judge, first: i64, trajectory: &WindowTrajectory) -> Judged {
    push_in(judge, 0, first, trajectory)
}

fn walk() -> WindowTrajectory {
    motion(0.1, 0.0)
}

/// Frames and z of the poses that go out, in centimetres.
fn published(judged: &Judged) -> Vec<(i64, i64)> {
    let poses = judged.poses.iter().flat_map(|poses| &poses.push.poses);
    poses.map(|p| (p.stamp.nanos / PERIOD, (p.value.translation().z * 100.0).round() as i64)).collect()
}

#[test]
fn windows_that_contradict_each_other_grossly_are_withheld_until_two_agree() {
    let mut judge = Judge::new(&rules());
    assert_eq!(published(&push(&mut judge, 0, &walk())), [(0, 0), (1, 10), (2, 20), (3, 30), (4, 40)]);
    let second = push(&mut judge, 1, &walk());
    assert_eq!(published(&second), [(5, 50)]);
    assert_eq!(second.evidence.unwrap().checks(), ["parse", "rotation", "sanity", "overlap"]);

    // Backwards: 0.6 m of difference over a motion of 0.3.
    let lost = push(&mut judge, 2, &motion(-0.1, 0.0));
    assert!(lost.verdict.is_loss() && lost.reason.contains("overlap_translation 2.000"), "{lost:?}");
    assert_eq!(lost.poses, Err(NoPoses::Withheld(lost.reason.clone())));
    // The next contradicts that one, though not what was published: which of the two is right is not known.
    assert!(push(&mut judge, 3, &walk()).poses.is_err());
    assert!(push(&mut judge, 4, &walk()).poses.is_err(), "one that agrees is not enough");
    assert_eq!(judge.reset_counter(), 0);

    let found = push(&mut judge, 5, &walk());
    assert!(found.verdict.is_recovery() && found.reason.is_empty());
    // Frame 5 is the last that was published: the segment starts there, although it is shared.
    assert_eq!(published(&found), [(6, 60), (7, 70), (8, 80), (9, 90)]);
    let push_of_found = found.poses.unwrap().push;
    assert!(matches!(push_of_found.outcome, Outcome::NewSegment { .. }));
    assert_eq!(push_of_found.reset_counter, 1, "a jump is never taken for motion");
    let next = push(&mut judge, 6, &walk());
    assert_eq!((published(&next), judge.reset_counter()), (vec![(10, 100)], 1));
}

#[test]
fn a_small_contradiction_widens_and_goes_out() {
    let mut judge = Judge::new(&rules());
    push(&mut judge, 0, &walk());
    // A third longer: 0.09 m over 0.39 at frame 1, 4.6 times what is typical.
    let judged = push(&mut judge, 1, &motion(0.13, 0.0));
    assert_eq!(judged.verdict.status, Status::Ok);
    let expected = 0.09 / 0.39 / 0.05;
    assert!((judged.verdict.widening - expected).abs() < 1e-6, "{judged:?}");
    let poses = judged.poses.unwrap();
    assert_eq!(poses.covariances.len(), 1);
    let rotation = 0.04_f64.powi(2) + (expected * 0.01).powi(2);
    assert!((poses.covariances[0][35] - rotation).abs() < 1e-9);
}

#[test]
fn one_wrong_window_speaks_against_itself_and_the_next_and_no_more() {
    let mut judge = Judge::new(&rules());
    push(&mut judge, 0, &walk());
    let ratio = |judged: Judged| judged.evidence.unwrap().worst().unwrap().ratio;
    assert!(ratio(push(&mut judge, 1, &motion(0.13, 0.0))) > 4.0);
    assert!(ratio(push(&mut judge, 2, &walk())) > 4.0);
    for first in 3..6 {
        assert!(ratio(push(&mut judge, first, &walk())) < 1e-6, "window {first}");
    }
    // Nor is a window forgotten behind one that does not parse.
    let stamps = std::array::from_fn(|i| Stamp::from_nanos((6 + i as i64) * PERIOD));
    judge.answer(0, &stamps, &Estimate { trajectory: Err("cut off".to_owned()), ..poses_alone(&walk()) }, 1.0, false);
    assert!(ratio(push(&mut judge, 7, &motion(0.13, 0.0))) > 4.0);
}

#[test]
fn a_clock_that_jumps_back_while_lost_is_one_break() {
    let mut judge = Judge::new(&rules());
    push(&mut judge, 100, &walk());
    assert!(push(&mut judge, 101, &motion(-0.1, 0.0)).verdict.is_loss());
    assert!(push_in(&mut judge, 1, 0, &walk()).poses.is_err());
    let found = push_in(&mut judge, 1, 1, &walk());
    assert!(found.verdict.is_recovery());
    assert_eq!(published(&found), [(1, 0), (2, 10), (3, 20), (4, 30), (5, 40)]);
    assert_eq!(judge.reset_counter(), 1);
}

#[test]
fn windows_without_poses_are_named_and_lead_to_lost() {
    let mut judge = Judge::new(&rules());
    let stamps = std::array::from_fn(|i| Stamp::from_nanos(i as i64 * PERIOD));
    let silent = Estimate { trajectory: Err("no complete <poses> block".to_owned()), ..poses_alone(&walk()) };
    let absurd = poses_alone(&motion(3.0, 0.0));
    for (estimate, problem, status) in [
        (&silent, "no complete <poses> block", Status::Ok),
        (&absurd, "expected a step of at most 1 m, got 3.000", Status::Degraded),
        (&silent, "no complete <poses> block", Status::Lost),
        (&silent, "no complete <poses> block", Status::Lost),
    ] {
        let judged = judge.answer(0, &stamps, estimate, 1.0, false);
        assert_eq!(judged.evidence, None);
        assert_eq!(judged.verdict.status, status);
        let Err(NoPoses::Unusable(reason)) = &judged.poses else { panic!("{judged:?}") };
        assert!(reason.contains(problem), "{reason}");
    }
    assert!(judge.reason().contains("3 bad windows in a row"), "{}", judge.reason());
    assert_eq!(judge.gap(stamps[4], "cannot be decoded").status, Status::Lost);
    // Two windows that agree; nothing had been published that it could jump from.
    assert!(push(&mut judge, 10, &walk()).poses.is_err());
    let found = push(&mut judge, 11, &walk());
    assert_eq!(published(&found).len(), 5);
    assert_eq!((found.poses.unwrap().push.outcome, judge.reset_counter()), (Outcome::Started, 0));
}

#[test]
fn what_is_scaled_agrees_with_its_reasoning_and_is_bounded_in_metres() {
    // Steps of 0.2 units, which are 0.1 m: the chain is held against the poses in units, all else in metres.
    let said = estimate(&chain(&motion(0.2, 0.0)));
    let mut judge = Judge::new(&rules());
    let stamps = |first: i64| std::array::from_fn(|i| Stamp::from_nanos((first + i as i64) * PERIOD));
    let first = judge.answer(0, &stamps(0), &said, 0.5, false);
    assert_eq!(published(&first), [(0, 0), (1, 10), (2, 20), (3, 30), (4, 40)]);
    assert!(first.verdict.is_consistent, "{first:?}");
    assert_eq!(published(&judge.answer(0, &stamps(1), &said, 0.5, false)), [(5, 50)]);
    let poses = first.poses.unwrap();
    assert!((poses.covariances[4][0] - 0.2_f64.powi(2)).abs() < 1e-6, "0.4 units: {:?}", poses.covariances[4]);
    let far = judge.answer(0, &stamps(2), &said, 6.0, false);
    assert!(matches!(&far.poses, Err(NoPoses::Unusable(reason)) if reason.contains("got 1.200")), "{far:?}");
}

#[test]
fn an_answer_without_a_scale_is_withheld_and_neither_good_nor_bad() {
    let mut judge = Judge::new(&rules());
    for before in [Status::Ok, Status::Degraded] {
        let judged = judge.unscaled(Stamp::default(), "no scale yet".to_owned());
        assert_eq!((judged.verdict.before, judged.verdict.status), (before, Status::Degraded));
        assert_eq!((judged.reason.as_str(), judged.evidence), ("no scale yet", None));
        assert_eq!(judged.poses, Err(NoPoses::Unscaled("no scale yet".to_owned())));
    }
    // Nothing was published that it could break with.
    let first = push(&mut judge, 10, &walk());
    assert_eq!((first.verdict.status, published(&first).len(), judge.reset_counter()), (Status::Ok, 5, 0));
    // What is lost stays lost, and says both.
    assert!(push(&mut judge, 11, &motion(-0.1, 0.0)).verdict.is_loss());
    let judged = judge.unscaled(Stamp::default(), "no scale yet".to_owned());
    assert_eq!((judged.verdict.before, judged.verdict.status), (Status::Lost, Status::Lost));
    assert!(judged.reason.contains("overlap_translation") && judged.reason.ends_with("; no scale yet"), "{judged:?}");
}

#[test]
fn a_node_that_waits_for_its_scale_says_so_whatever_else_its_windows_are() {
    let mut judge = Judge::new(&rules());
    let second = |at: i64| Stamp::from_nanos(at * 1_000_000_000);
    let unparsed = Estimate { trajectory: Err("no block".to_owned()), ..poses_alone(&walk()) };
    // Hours of waiting are not hours without a usable answer.
    judge.gap(second(0), "image is black");
    for hour in 1..5 {
        let verdict = judge.unscaled(second(3600 * hour), "no scale yet".to_owned()).verdict;
        assert_eq!(verdict.status, Status::Degraded);
        let verdict = judge.gap(second(3600 * hour + 1), "image is black");
        assert_eq!((verdict.before, verdict.status), (Status::Degraded, Status::Degraded), "it does not flicker");
        assert!(judge.reason().ends_with("no scale yet"), "{}", judge.reason());
        let stamps = std::array::from_fn(|i| second(3600 * hour + 2 + i as i64));
        let failed = judge.answer(0, &stamps, &unparsed, 1.0, false);
        assert_eq!(failed.verdict.status, Status::Degraded, "hour {hour}: {}", failed.reason);
        assert!(failed.reason.ends_with("no scale yet"), "{}", failed.reason);
    }
    let found = push(&mut judge, 1_000_000, &walk());
    assert!(found.poses.is_ok() && !judge.reason().contains("no scale yet"), "{found:?}");
    let freed = push(&mut judge, 1_000_001, &walk());
    assert_eq!((freed.verdict.status, judge.reason().as_str()), (Status::Ok, ""));
}

#[test]
fn frozen_images_are_what_the_rules_make_of_them() {
    let stamps = |first: i64| std::array::from_fn(|i| Stamp::from_nanos((first + i as i64) * PERIOD));
    let rules = |frozen| {
        let mut rules = rules();
        rules.images.frozen = frozen;
        rules
    };
    let still = poses_alone(&motion(0.0, 0.0));
    for (frozen, statuses, published) in [
        (Frozen::Ignored, [Status::Ok; 4], [5, 1, 1, 1]),
        (Frozen::Degraded, [Status::Degraded; 4], [5, 1, 1, 1]),
        (Frozen::Withheld, [Status::Ok, Status::Degraded, Status::Lost, Status::Lost], [0; 4]),
    ] {
        let mut judge = Judge::new(&rules(frozen));
        for ((first, status), count) in (0..).zip(statuses).zip(published) {
            let judged = judge.answer(0, &stamps(first), &still, 1.0, true);
            assert_eq!(judged.verdict.status, status, "{frozen:?}, window {first}");
            assert_eq!(self::published(&judged).len(), count, "{frozen:?}, window {first}");
            assert_eq!(judged.reason.contains("image is frozen"), status != Status::Ok, "{}", judged.reason);
            assert_eq!(judged.poses == Err(NoPoses::Frozen), frozen == Frozen::Withheld);
            let widening = if status == Status::Degraded { 3.0 } else { 1.0 };
            assert!((judged.verdict.widening - widening).abs() < 1e-12 || frozen == Frozen::Withheld);
        }
        // It moves again.
        push(&mut judge, 14, &walk());
        let last = push(&mut judge, 15, &walk());
        assert_eq!((last.verdict.status, last.poses.is_ok()), (Status::Ok, true), "{frozen:?}");
    }
}
