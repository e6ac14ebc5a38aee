//! Frames that are lost, doubled or out of order; cameras that change in the middle of a window; pictures of nothing.

use camera::message::{CameraInfoMessage, ImageMessage};
use geometry::Stamp;
use node::config::Frozen;
use node::ros::message::DiagnosticLevel::{Error, Warn};
use node::ros::message::Input;
use node::status::counters::Fate;
use node::trust::state::Status;

use crate::case::{Case, Expect, from, grey, image, picture, settings};
use crate::rig::{K, PERIOD, camera_info, parsed};

#[test]
fn frames_that_are_lost_on_the_way() {
    let mut case = Case::new();
    for i in [0, 1, 4, 5, 6] {
        case.frames(i..i + 1);
    }
    case.end(&Expect { used: 5, held: 1, answered: 1, paths: vec![[0, 1, 4, 5, 6]], ..Expect::default() });
}

#[test]
fn frames_that_all_come_twice() {
    let mut case = Case::new();
    for i in 0..5 {
        case.frames(i..i + 1);
        case.frames(i..i + 1);
    }
    case.end(&Expect {
        used: 5,
        dropped: &[(Fate::Repeated, 5)],
        held: 1,
        answered: 1,
        level: Warn,
        message: "frames_dropped_repeated +5",
        paths: vec![from(0)],
        ..Expect::default()
    });
}

#[test]
fn frames_that_come_in_swapped_pairs() {
    let mut case = Case::new();
    for i in [1, 0, 3, 2, 5, 4, 7, 6, 9, 8] {
        case.frames(i..i + 1);
    }
    case.end(&Expect {
        used: 5,
        dropped: &[(Fate::Backward, 5)],
        held: 1,
        answered: 1,
        level: Warn,
        message: "frames_dropped_backward +5",
        paths: vec![[1, 3, 5, 7, 9]],
        ..Expect::default()
    });
}

/// Two windows, on either side of a change that two frames of the first camera had waited in front of.
fn changed_camera() -> Expect {
    Expect {
        used: 10,
        dropped: &[(Fate::CameraChanged, 2)],
        held: 1,
        answered: 2,
        breaks: 1,
        level: Warn,
        message: "frames_dropped_camera_changed +2",
        paths: vec![from(0), from(7)],
        ..Expect::default()
    }
}

#[test]
fn a_resolution_that_changes_inside_a_window() {
    let mut case = Case::new();
    case.frames(0..7);
    case.info = camera_info([18.0, 0.0, 8.0, 0.0, 9.0, 3.0, 0.0, 0.0, 1.0], 16);
    (7..12).for_each(|i| case.image(image(i, grey(16, i as u8))));
    case.end(&changed_camera());
}

#[test]
fn a_camera_matrix_that_changes_inside_a_window() {
    let mut case = Case::new();
    case.frames(0..7);
    let mut zoomed = K;
    (zoomed[0], zoomed[4]) = (10.0, 10.0);
    case.info = camera_info(zoomed, 8);
    case.frames(7..12);
    case.end(&changed_camera());
}

#[test]
fn an_optical_frame_that_changes_inside_a_window() {
    let mut case = Case::new();
    case.frames(0..7);
    for i in 7..12 {
        let stamp = Stamp::from_nanos(i * PERIOD);
        let payload = grey(8, i as u8);
        case.image(Input::Image(ImageMessage { stamp, frame_id: "rear_optical".to_owned(), payload }));
    }
    let outputs = case.end(&changed_camera());
    let frames: Vec<&str> = outputs.odometries.iter().map(|odometry| odometry.child_frame_id.as_str()).collect();
    assert_eq!(frames, [["optical"; 5], ["rear_optical"; 5]].concat());
}

#[test]
fn a_resolution_that_changes_without_a_word_of_the_camera() {
    let mut case = Case::new();
    case.frames(0..5);
    (5..10).for_each(|i| case.image(image(i, grey(16, i as u8))));
    case.frames(10..15);
    case.end(&Expect {
        used: 10,
        dropped: &[(Fate::CameraInfoMismatch, 5)],
        held: 1,
        answered: 2,
        breaks: 1,
        level: Warn,
        message: "frames_dropped_camera_info_mismatch +5; last: intrinsics are for 8 x 6 pixels, the image has 16 x 6",
        paths: vec![from(0), from(10)],
        ..Expect::default()
    });
}

#[test]
fn a_calibration_that_is_lost_and_comes_back() {
    let mut case = Case::new();
    case.frames(0..5);
    let good = std::mem::replace(&mut case.info, camera_info([0.0; 9], 8));
    case.frames(5..8);
    case.info = good;
    case.frames(8..13);
    case.end(&Expect {
        used: 9,
        dropped: &[(Fate::CameraInfoInvalid, 3)],
        waiting: 1,
        held: 2,
        answered: 2,
        level: Warn,
        message: "frames_dropped_camera_info_invalid +3",
        paths: vec![from(0), [4, 8, 9, 10, 11]],
        ..Expect::default()
    });
}

#[test]
fn a_camera_that_says_nothing_of_itself() {
    let case = Case::new();
    case.burst(0..6);
    case.end(&Expect {
        dropped: &[(Fate::NoCameraInfo, 6)],
        level: Error,
        message: "every image is refused: no CameraInfo yet",
        ..Expect::default()
    });
}

#[test]
fn a_camera_matrix_that_is_not_a_number() {
    let mut case = Case::new();
    case.info = Input::CameraInfo(CameraInfoMessage { width: 8, height: 6, k: [f64::NAN; 9], ..Default::default() });
    case.frames(0..6);
    case.end(&Expect {
        dropped: &[(Fate::CameraInfoInvalid, 6)],
        level: Error,
        message: "every image is refused: CameraInfo cannot be used",
        ..Expect::default()
    });
}

/// Frames of one grey.
fn plain(case: &mut Case, frames: std::ops::Range<i64>, value: u8) {
    for i in frames {
        case.image(crate::rig::grey(i * PERIOD, value));
    }
}

#[test]
fn frames_that_are_black_for_a_while() {
    let mut case = Case::new();
    case.frames(0..5);
    plain(&mut case, 5..9, 0);
    case.frames(9..17);
    // The window behind the black one begins with its last frame.
    case.end(&Expect {
        used: 10,
        dropped: &[(Fate::Blank, 2), (Fate::BrokenWindow, 5)],
        held: 1,
        answered: 2,
        broken: 2,
        breaks: 1,
        level: Warn,
        message: "frames_dropped_blank +2; last: image is black",
        paths: vec![from(0), from(12)],
        ..Expect::default()
    });
}

#[test]
fn frames_that_are_all_saturated() {
    let mut case = Case::new();
    plain(&mut case, 0..9, 255);
    case.end(&Expect {
        dropped: &[(Fate::Blank, 2), (Fate::BrokenWindow, 7)],
        held: 1,
        broken: 2,
        level: Error,
        message: "every image is refused: image is saturated",
        ..Expect::default()
    });
}

#[test]
fn frames_that_are_black_for_longer_than_poses_can_be_missed() {
    let mut settings = settings();
    settings.live.trust.status.lost_after = std::time::Duration::from_millis(1000);
    let mut case = Case::with(settings, Box::new(|_| parsed()));
    case.frames(0..5);
    plain(&mut case, 5..17, 0);
    case.end(&Expect {
        used: 5,
        // The first behind the good ones, and those that the next windows begin with.
        dropped: &[(Fate::Blank, 3), (Fate::BrokenWindow, 9)],
        held: 1,
        answered: 1,
        broken: 3,
        status: Status::Lost,
        reason: "no usable answer for 1.2 s, the last: image is black",
        level: Error,
        message: "LOST, nothing comes out",
        paths: vec![from(0)],
        ..Expect::default()
    });
}

/// Frames of one and the same picture.
fn frozen(case: &mut Case, frames: std::ops::Range<i64>) {
    frames.for_each(|i| case.image(picture(i, 7)));
}

#[test]
fn frames_that_are_frozen_make_poses_less_sure() {
    let mut case = Case::new();
    frozen(&mut case, 0..9);
    let outputs = case.end(&Expect {
        used: 9,
        held: 1,
        answered: 2,
        status: Status::Degraded,
        reason: "image is frozen",
        level: Warn,
        message: "DEGRADED: image is frozen",
        paths: vec![from(0), from(4)],
        ..Expect::default()
    });
    // Three times the standard deviation of 0.5 m.
    assert!((outputs.odometries[0].pose_covariance[14] - 2.25).abs() < 1e-9);
}

#[test]
fn frames_that_thaw_are_believed_again() {
    let mut case = Case::new();
    frozen(&mut case, 0..5);
    case.frames(8..16);
    case.end(&Expect {
        used: 13,
        held: 1,
        answered: 3,
        paths: vec![from(0), [4, 8, 9, 10, 11], from(11)],
        ..Expect::default()
    });
}

#[test]
fn frames_that_are_frozen_are_withheld_where_the_config_says_so() {
    let mut settings = settings();
    settings.live.trust.images.frozen = Frozen::Withheld;
    let mut case = Case::with(settings, Box::new(|_| parsed()));
    frozen(&mut case, 0..17);
    case.end(&Expect {
        used: 17,
        held: 1,
        answered: 4,
        withheld: 4,
        status: Status::Lost,
        reason: "4 bad windows in a row, the last: image is frozen",
        level: Error,
        message: "LOST, nothing comes out",
        ..Expect::default()
    });
}

#[test]
fn four_equal_frames_of_five_are_a_camera_that_stands_still() {
    let mut case = Case::new();
    frozen(&mut case, 0..4);
    case.image(picture(4, 8));
    case.end(&Expect { used: 5, held: 1, answered: 1, paths: vec![from(0)], ..Expect::default() });
}

#[test]
fn black_and_frozen_frames_pass_where_nobody_looks() {
    let mut settings = settings();
    settings.live.trust.images = crate::rig::settings(1, 4).live.trust.images;
    let mut case = Case::with(settings, Box::new(|_| parsed()));
    plain(&mut case, 0..5, 0);
    case.end(&Expect { used: 5, held: 1, answered: 1, paths: vec![from(0)], ..Expect::default() });
}

/// Five images whose header calls their frame so; what comes out, and that it is told.
fn frames_called(name: &str, info: Input, message: &'static str) -> Vec<String> {
    let mut case = Case::new();
    case.info = info;
    for i in 0..5 {
        let stamp = Stamp::from_nanos(i * PERIOD);
        case.image(Input::Image(ImageMessage { stamp, frame_id: name.to_owned(), payload: grey(8, i as u8) }));
    }
    let outputs = case.end(&Expect {
        used: 5,
        held: 1,
        answered: 1,
        level: Warn,
        message,
        paths: vec![from(0)],
        ..Expect::default()
    });
    let (.., values) = outputs.diagnostics.last().unwrap();
    assert!(values["doubt_frame_id"].contains("/camera"), "{values:?}");
    let paths = outputs.trajectories.iter().map(|path| path.frame_id.clone());
    paths.chain(outputs.odometries.iter().map(|odometry| odometry.child_frame_id.clone())).collect()
}

#[test]
fn a_frame_with_a_leading_slash_goes_out_without_it() {
    let message = "header.frame_id `/eye` of /camera has a leading slash, which tf2 refuses: outputs say `eye`";
    assert_eq!(frames_called("/eye", camera_info(K, 8), message), ["eye"; 6]);
}

#[test]
fn a_frame_without_a_name_is_that_of_camera_info() {
    let message = "images of /camera have no header.frame_id: outputs take that of CameraInfo, `optical`";
    assert_eq!(frames_called("", camera_info(K, 8), message), ["optical"; 6]);
    let Input::CameraInfo(info) = camera_info(K, 8) else { unreachable!() };
    let nameless = Input::CameraInfo(CameraInfoMessage { frame_id: "/".to_owned(), ..info });
    let message = "images of /camera have no header.frame_id, and CameraInfo has none: tf2 refuses what comes out";
    assert_eq!(frames_called("", nameless, message), [""; 6]);
}

#[test]
fn a_frame_with_a_space_in_its_name_is_told() {
    let message = "header.frame_id \"my eye\" of /camera has spaces or control characters";
    assert_eq!(frames_called("my eye", camera_info(K, 8), message), ["my eye"; 6]);
}

/// Binned by four, with the matrix of the image in place of the sensor's.
#[test]
fn a_principal_point_that_no_camera_has() {
    let Input::CameraInfo(info) = camera_info(K, 32) else { unreachable!() };
    let mut case = Case::new();
    case.info = Input::CameraInfo(CameraInfoMessage { height: 24, binning: [4, 4], ..info });
    case.frames(0..5);
    let outputs = case.end(&Expect {
        used: 5,
        held: 1,
        answered: 1,
        level: Warn,
        message: "the camera of /camera is hard to believe, and so are its poses: K principal point: expected one at 0.3 to \
                  0.7 of width and height, got (4.0, 3.0) of 32 x 24 pixels, binning 4 x 4",
        paths: vec![from(0)],
        ..Expect::default()
    });
    let (.., values) = outputs.diagnostics.last().unwrap();
    assert!(values["doubt_camera"].contains("of the 8 x 6 pixels of an image"), "{values:?}");
}
