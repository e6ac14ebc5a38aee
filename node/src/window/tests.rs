use std::collections::HashMap;
use std::time::Duration;

use geometry::{Intrinsics, Stamp};
use proptest::prelude::*;

use super::{Cause, Push, Restart, View, Window, WindowBuffer};
use crate::config::WindowRules;

const GAP_MILLIS: i64 = 500;

fn rules(stride: u32, hop: u32) -> WindowRules {
    WindowRules { period: Duration::ZERO, stride, hop, max_gap: Duration::from_millis(GAP_MILLIS as u64) }
}

fn view(width: u32) -> View {
    let intrinsics = Intrinsics::new(100.0, 100.0, 50.0, 40.0, width, 80).unwrap();
    View { frame_id: "camera".into(), intrinsics }
}

fn millis(t: i64) -> Stamp {
    Stamp::from_nanos(t * 1_000_000)
}

/// Pushes frames at these times, each named by its place in the list.
fn push_all(buffer: &mut WindowBuffer<usize>, times: &[i64]) -> Vec<Push<usize>> {
    times.iter().enumerate().map(|(i, &t)| buffer.push(millis(t), &view(100), i)).collect()
}

fn windows(pushes: &[Push<usize>]) -> Vec<[usize; 5]> {
    pushes.iter().filter_map(|p| p.window.as_ref()).map(|w| w.frames).collect()
}

fn steady(n: i64) -> Vec<i64> {
    (0..n).map(|i| i * 100).collect()
}

#[test]
fn windows_follow_stride_and_hop() {
    let rows: [(u32, u32, Vec<[usize; 5]>); 5] = [
        (1, 1, vec![[0, 1, 2, 3, 4], [1, 2, 3, 4, 5], [2, 3, 4, 5, 6]]),
        (1, 2, vec![[0, 1, 2, 3, 4], [2, 3, 4, 5, 6]]),
        (1, 4, vec![[0, 1, 2, 3, 4]]),
        (1, 6, vec![[0, 1, 2, 3, 4]]),
        (2, 1, vec![]),
    ];
    for (stride, hop, expected) in rows {
        let pushes = push_all(&mut WindowBuffer::new(rules(stride, hop)), &steady(7));
        assert_eq!(windows(&pushes), expected, "stride {stride} hop {hop}");
    }
    let pushes = push_all(&mut WindowBuffer::new(rules(2, 4)), &steady(13));
    assert_eq!(windows(&pushes), [[0, 2, 4, 6, 8], [4, 6, 8, 10, 12]]);
}

#[test]
fn frames_between_members_are_handed_back_at_once() {
    let pushes = push_all(&mut WindowBuffer::new(rules(2, 4)), &steady(5));
    let dropped: Vec<_> = pushes.into_iter().flat_map(|p| p.dropped).collect();
    assert_eq!(dropped, [(1, Cause::SkippedByStride), (3, Cause::SkippedByStride)]);
}

#[test]
fn with_a_period_only_frames_that_far_apart_count() {
    let paced = |stride, hop| WindowRules { period: Duration::from_millis(100), ..rules(stride, hop) };
    // At 30 Hz each third counts.
    let times: Vec<i64> = (0..26).map(|i| i * 100 / 3).collect();
    let mut buffer = WindowBuffer::new(paced(1, 4));
    let pushes = push_all(&mut buffer, &times);
    assert_eq!(windows(&pushes), [[0, 3, 6, 9, 12], [12, 15, 18, 21, 24]]);
    let skipped: Vec<usize> = pushes.iter().flat_map(|p| &p.dropped).map(|(frame, _)| *frame).collect();
    assert_eq!(skipped, (0..26).filter(|i| i % 3 != 0).collect::<Vec<_>>(), "at once");
    assert!(pushes.iter().flat_map(|p| &p.dropped).all(|(_, cause)| *cause == Cause::SkippedByStride));
    assert_eq!((pushes.iter().all(|p| p.accepted.len() == 1), buffer.waiting()), (true, 0));
    // stride and hop are in frames that count.
    assert_eq!(windows(&push_all(&mut WindowBuffer::new(paced(2, 1)), &times[..25]))[0], [0, 6, 12, 18, 24]);

    // Frame 6 is lost: the next one counts in its place, and the one after that is a period behind it.
    let lost: Vec<i64> = times.iter().enumerate().filter(|(i, _)| *i != 6).map(|(_, t)| *t).collect();
    assert_eq!(windows(&push_all(&mut WindowBuffer::new(paced(1, 4)), &lost))[0], [0, 3, 6, 9, 12]);
    // A camera slower than the period is read as it comes.
    let slow: Vec<i64> = (0..5).map(|i| i * 300).collect();
    assert_eq!(windows(&push_all(&mut WindowBuffer::new(paced(1, 4)), &slow)), [[0, 1, 2, 3, 4]]);
    // A silence, and a clock that goes back: the first frame behind it counts, held back or not.
    for jump in [2000, -2000] {
        let again: Vec<i64> = times[..5].iter().copied().chain(times.iter().map(|t| 140 + jump + t)).collect();
        let pushes = push_all(&mut WindowBuffer::new(paced(1, 4)), &again);
        assert_eq!(windows(&pushes)[0], [5, 8, 11, 14, 17], "{jump}");
    }
    // So does the first behind a reset.
    push_all(&mut buffer, &[900]);
    buffer.clear();
    assert_eq!(windows(&push_all(&mut buffer, &times))[0], [0, 3, 6, 9, 12]);
}

#[test]
fn a_repeated_or_late_frame_is_dropped_and_harms_nothing() {
    let times = [0, 100, 100, 200, 150, 300, 400];
    let pushes = push_all(&mut WindowBuffer::new(rules(1, 4)), &times);
    assert_eq!(pushes[2].dropped, [(2, Cause::Repeated)]);
    assert_eq!(pushes[4].dropped, [(4, Cause::Backward)]);
    assert_eq!(windows(&pushes), [[0, 1, 3, 5, 6]]);
}

#[test]
fn restarts_hand_back_what_waited_and_never_mix() {
    let mut buffer = WindowBuffer::new(rules(1, 4));
    let times = [0, 100, 1000, 1100, 1200, 1300, 1400];
    let pushes = push_all(&mut buffer, &times);
    assert_eq!((pushes[2].restart, &pushes[2].dropped), (None, &vec![]), "one frame does not make a clock");
    assert_eq!(pushes[3].restart, Some(Restart::Gap));
    let gap = Cause::Restarted(Restart::Gap);
    assert_eq!(pushes[3].dropped, [(0, gap), (1, gap)]);
    assert_eq!(windows(&pushes), [[2, 3, 4, 5, 6]], "what was held back is the first");

    // The log starts again from its beginning; frame 6 was in a window and is not handed back.
    let held = buffer.push(millis(0), &view(100), 7);
    assert_eq!((held.restart, held.dropped), (None, vec![]));
    let back = buffer.push(millis(100), &view(100), 8);
    assert_eq!((back.restart, back.dropped), (Some(Restart::ClockWentBack), vec![]));
    let changed = buffer.push(millis(200), &view(200), 9);
    assert_eq!(changed.restart, Some(Restart::CameraChanged));
    let cause = Cause::Restarted(Restart::CameraChanged);
    assert_eq!(changed.dropped, [(7, cause), (8, cause)]);
    for (i, t) in (10..).zip([300, 400, 500, 600]) {
        let push = buffer.push(millis(t), &view(200), i);
        if let Some(window) = push.window {
            assert_eq!(window.frames, [9, 10, 11, 12, 13]);
            assert_eq!((window.id, window.epoch), (1, 1), "the clock jumped once");
            assert_eq!(window.view, view(200));
            return;
        }
    }
    panic!("no window after the restart");
}

/// What is dropped as no clock's, with its time and that of the frame before it.
fn strays(pushes: &[Push<usize>]) -> Vec<(usize, i64, i64)> {
    let dropped = pushes.iter().flat_map(|push| &push.dropped);
    let strays = dropped.filter_map(|(frame, cause)| match cause {
        Cause::Stray { stamp, newest } => Some((*frame, stamp.nanos / 1_000_000, newest.nanos / 1_000_000)),
        _ => None,
    });
    strays.collect()
}

#[test]
fn one_far_stamp_is_as_one_lost_frame_wherever_it_comes() {
    for far in [-1_000_000, 0, 9_999, 11_900, 1_000_000] {
        // Not as the first frame of all, which there is nothing to hold against.
        for place in 1..9 {
            let mut times: Vec<i64> = (0..9).map(|i| 10_500 + i * 100).collect();
            times.insert(place, far);
            let mut buffer = WindowBuffer::new(rules(1, 4));
            let pushes = push_all(&mut buffer, &times);
            assert!(pushes.iter().all(|push| push.restart.is_none()), "{far} at {place}");
            assert_eq!(strays(&pushes), [(place, far, times[place - 1])]);
            assert_eq!(pushes[place + 1].dropped.len(), 1, "as soon as the next frame has come");
            let without: Vec<usize> = (0..10).filter(|i| *i != place).collect();
            let expected: [[usize; 5]; 2] = [0, 4].map(|first| std::array::from_fn(|i| without[first + i]));
            assert_eq!(windows(&pushes), expected, "{far} at {place}");
            assert_eq!(buffer.waiting(), 0);
        }
    }
}

#[test]
fn far_stamps_that_do_not_agree_are_each_dropped() {
    let pushes = push_all(&mut WindowBuffer::new(rules(1, 4)), &[0, 100, 50_000, -70_000, 90_000, 200, 300, 400]);
    assert_eq!(strays(&pushes), [(2, 50_000, 100), (3, -70_000, 100), (4, 90_000, 100)]);
    assert_eq!(windows(&pushes), [[0, 1, 5, 6, 7]]);
    // A camera slower than the longest gap: none goes on from another.
    let mut buffer = WindowBuffer::new(rules(1, 4));
    let slow: Vec<i64> = (0..8).map(|i| i * (GAP_MILLIS + 1)).collect();
    let pushes = push_all(&mut buffer, &slow);
    assert_eq!((strays(&pushes).len(), windows(&pushes).len(), buffer.waiting()), (6, 0, 2));
}

#[test]
fn what_repeats_or_comes_late_decides_nothing_of_a_frame_that_is_held_back() {
    // The clock of before goes on.
    let pushes = push_all(&mut WindowBuffer::new(rules(1, 4)), &[5000, 5100, 0, 0, 5050, 5100, 5200, 5300, 5400]);
    assert_eq!(pushes[3].dropped, [(3, Cause::Repeated)]);
    assert_eq!(pushes[4].dropped, [(4, Cause::Backward)]);
    assert_eq!(pushes[5].dropped, [(5, Cause::Repeated)]);
    assert_eq!(strays(&pushes), [(2, 0, 5100)]);
    assert_eq!(windows(&pushes), [[0, 1, 6, 7, 8]]);
    // The new one does, out of order.
    let pushes = push_all(&mut WindowBuffer::new(rules(1, 4)), &[0, 100, 5000, 4900, 5100, 5200, 5300, 5400]);
    assert_eq!(pushes[3].dropped, [(3, Cause::Backward)]);
    assert_eq!(pushes[4].restart, Some(Restart::Gap));
    assert_eq!(windows(&pushes), [[2, 4, 5, 6, 7]]);
}

#[test]
fn a_frame_that_is_held_back_is_forgotten_with_the_others() {
    let mut buffer = WindowBuffer::new(rules(1, 4));
    push_all(&mut buffer, &[0, 100, 9000]);
    assert_eq!((buffer.waiting(), buffer.clear(), buffer.waiting()), (3, vec![0, 1, 2], 0));
    assert_eq!(windows(&push_all(&mut buffer, &[9100, 9200, 9300, 9400, 9500])), [[0, 1, 2, 3, 4]]);
}

#[test]
fn extreme_stamps_do_not_overflow() {
    let mut buffer = WindowBuffer::new(rules(1, 1));
    for (i, nanos) in [0, i64::MAX, i64::MIN, i64::MAX, -1, i64::MIN, 0].into_iter().enumerate() {
        let push = buffer.push(Stamp::from_nanos(nanos), &view(100), i);
        assert!(push.window.is_none());
    }
}

/// Steps between frames in milliseconds: mostly regular, at times repeated, late, silent or jumping; how far the stamp alone
/// is from there, and the width.
fn stream() -> impl Strategy<Value = Vec<(i64, i64, u32)>> {
    let step = prop_oneof![
        12 => 1..=GAP_MILLIS,
        1 => Just(0_i64),
        1 => -GAP_MILLIS..0,
        1 => GAP_MILLIS + 1..5000_i64,
        1 => -100_000..-GAP_MILLIS,
    ];
    let width = prop_oneof![20 => Just(100_u32), 1 => Just(200_u32)];
    let stray = prop_oneof![14 => Just(0_i64), 1 => -100_000..100_000_i64];
    proptest::collection::vec((step, stray, width), 0..120)
}

proptest! {
    #[test]
    fn every_frame_is_accounted_for_and_windows_keep_their_promises(
        steps in stream(),
        stride in 1..5_u32,
        hop in 1..12_u32,
    ) {
        let mut buffer = WindowBuffer::new(rules(stride, hop));
        let mut emitted: Vec<Window<usize>> = Vec::new();
        let mut dropped: HashMap<usize, Cause> = HashMap::new();
        let mut stamps = Vec::new();
        let mut now = 1_000_000;
        for (i, &(step, stray, width)) in steps.iter().enumerate() {
            now += step;
            stamps.push(millis(now + stray));
            let push = buffer.push(millis(now + stray), &view(width), i);
            if push.dropped.contains(&(i, Cause::Repeated)) || push.dropped.contains(&(i, Cause::Backward)) {
                now -= step; // the stream goes on from the newest frame
            }
            for (frame, cause) in push.dropped {
                prop_assert!(dropped.insert(frame, cause).is_none(), "frame {frame} was dropped twice");
            }
            if let Some(window) = push.window {
                prop_assert_eq!(window.frames[4], i, "a window is emitted with its last frame");
                emitted.push(window);
            }
        }
        let members: std::collections::HashSet<usize> = emitted.iter().flat_map(|w| w.frames).collect();
        for frame in &members {
            prop_assert!(!dropped.contains_key(frame), "frame {frame} was used and dropped");
        }
        prop_assert_eq!(members.len() + dropped.len() + buffer.waiting(), steps.len());

        let is_refused = |cause: &Cause| matches!(cause, Cause::Repeated | Cause::Backward | Cause::Stray { .. });
        let accepted: Vec<usize> = (0..steps.len()).filter(|i| !dropped.get(i).is_some_and(is_refused)).collect();
        // Index in the stream of accepted frames since the last restart, and which restart.
        let mut places: Vec<Option<(u32, u64)>> = vec![None; steps.len()];
        let mut segment = 0;
        for (k, &i) in accepted.iter().enumerate() {
            let Some(&before) = k.checked_sub(1).and_then(|k| accepted.get(k)) else {
                places[i] = Some((0, 0));
                continue;
            };
            let step = stamps[i].nanos_since(stamps[before]);
            let goes_on = (1..=GAP_MILLIS * 1_000_000).contains(&step) && steps[i].2 == steps[before].2;
            segment += u32::from(!goes_on);
            places[i] = Some((segment, if goes_on { places[before].unwrap().1 + 1 } else { 0 }));
        }
        for (k, window) in emitted.iter().enumerate() {
            prop_assert_eq!(window.id, k as u64);
            for (frame, stamp) in window.frames.iter().zip(window.stamps) {
                prop_assert_eq!(stamps[*frame], stamp);
                prop_assert_eq!(view(steps[*frame].2), window.view.clone());
            }
            for pair in window.stamps.windows(2) {
                prop_assert!(pair[0] < pair[1]);
            }
            let start = places[window.frames[0]].unwrap();
            prop_assert_eq!(start.1 % u64::from(hop), 0);
            for (n, frame) in window.frames.iter().enumerate() {
                prop_assert_eq!(places[*frame], Some((start.0, start.1 + n as u64 * u64::from(stride))));
            }
            let span = accepted.iter().filter(|&&i| window.frames[0] <= i && i <= window.frames[4]);
            let inside: Vec<Stamp> = span.map(|&i| stamps[i]).collect();
            for pair in inside.windows(2) {
                prop_assert!(pair[1].nanos_since(pair[0]) <= GAP_MILLIS * 1_000_000);
            }
        }
        // Each segment yields all the windows that fit into it.
        for s in 0..=segment {
            let length = places.iter().flatten().filter(|p| p.0 == s).count() as u64;
            let span = 4 * u64::from(stride) + 1;
            let expected = if length < span { 0 } else { (length - span) / u64::from(hop) + 1 };
            let got = emitted.iter().filter(|w| places[w.frames[0]].unwrap().0 == s).count() as u64;
            prop_assert_eq!(got, expected);
        }
    }
}
