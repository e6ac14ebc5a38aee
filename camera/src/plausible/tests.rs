use geometry::Intrinsics;

use super::{doubts, doubts_of_pinhole};
use crate::info::Images;
use crate::message::{CameraInfoMessage, RegionOfInterest};

const K: [f64; 9] = [615.0, 0.0, 320.0, 0.0, 615.0, 240.0, 0.0, 0.0, 1.0];
const K_OF_A_QUARTER: [f64; 9] = [153.75, 0.0, 79.6, 0.0, 153.75, 59.6, 0.0, 0.0, 1.0];

fn info(k: [f64; 9]) -> CameraInfoMessage {
    let distortion_model = "plumb_bob".to_owned();
    CameraInfoMessage { width: 640, height: 480, distortion_model, k, ..CameraInfoMessage::default() }
}

fn p(k: [f64; 9]) -> [f64; 12] {
    [k[0], 0.0, k[2], 0.0, 0.0, k[4], k[5], 0.0, 0.0, 0.0, 1.0, 0.0]
}

fn told(info: &CameraInfoMessage) -> String {
    doubts(info, Images::Raw).iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

#[test]
fn cameras_that_are_built_are_believed() {
    let roi = RegionOfInterest { x_offset: 400, y_offset: 300, width: 160, height: 120 };
    let barrel = vec![-0.3, 0.1, 0.0, 0.0, 0.0];
    let fisheye = [203.7, 0.0, 320.0, 0.0, 203.7, 240.0, 0.0, 0.0, 1.0];
    let rows = [
        info(K),
        CameraInfoMessage { p: p(K), d: barrel, ..info(K) },
        // A stated region cuts the middle off: its image has the principal point outside.
        CameraInfoMessage { roi, ..info(K) },
        CameraInfoMessage { roi, binning: [2, 2], ..info(K) },
        CameraInfoMessage { binning: [4, 4], ..info(K) },
        // Binned along one side alone: pixels of the image are oblong, those of the sensor are not.
        CameraInfoMessage { binning: [4, 1], ..info(K) },
        CameraInfoMessage { distortion_model: "equidistant".to_owned(), d: vec![0.01, 0.0, 0.0, 0.0], ..info(fisheye) },
    ];
    for info in rows {
        assert_eq!(told(&info), "", "{info:?}");
    }
}

#[test]
fn a_matrix_of_the_binned_image_is_doubted_with_the_point_the_size_and_the_binning() {
    let told = told(&CameraInfoMessage { binning: [4, 4], ..info(K_OF_A_QUARTER) });
    for part in [
        "K principal point: expected one at 0.3 to 0.7 of width and height, got (79.6, 59.6) of 640 x 480 pixels",
        "binning 4 x 4",
        "(19.5, 14.5) of the 160 x 120 pixels of an image",
    ] {
        assert!(told.contains(part), "`{part}` is not in: {told}");
    }
}

#[test]
fn numbers_that_no_camera_has_are_doubted_by_name() {
    let k = |fx: f64, fy: f64, cx: f64, cy: f64| [fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0];
    let roi = RegionOfInterest { x_offset: 0, y_offset: 0, width: 160, height: 120 };
    let rows: [(CameraInfoMessage, &[&str]); 10] = [
        // Of an image of half the size and of twice.
        (info(k(307.5, 307.5, 159.75, 119.75)), &["K principal point", "(159.8, 119.8) of 640 x 480"]),
        (info(k(1230.0, 1230.0, 640.5, 480.5)), &["K principal point", "(640.5, 480.5)"]),
        (info(k(615.0, 615.0, 0.0, 0.0)), &["K principal point", "(0.0, 0.0)"]),
        (CameraInfoMessage { roi, ..info(K_OF_A_QUARTER) }, &["K principal point", "roi 160 x 120 at (0, 0)"]),
        // In metres and millimetres, in place of pixels.
        (info(k(4.0, 4.0, 320.0, 240.0)), &["K focal length", "a field of view of 5 to 170 degrees", "178.6 degrees"]),
        (info(k(61_500.0, 61_500.0, 320.0, 240.0)), &["K focal length", "0.6 degrees: fx 61500.0"]),
        (info(k(615.0, 240.0, 320.0, 240.0)), &["fx and fy within a factor of 2", "fx 615.0, fy 240.0"]),
        (CameraInfoMessage { d: vec![-1.2, 0.0, 0.0, 0.0], ..info(k(300.0, 300.0, 320.0, 240.0)) }, &["D: ", "folds"]),
        (CameraInfoMessage { p: p(K_OF_A_QUARTER), ..info(K) }, &["P fx", "near that of K, 615.0", "153.8"]),
        (
            CameraInfoMessage { p: p(k(500.0, 500.0, 100.0, 240.0)), d: vec![-0.1, 0.0, 0.0, 0.0], ..info(K) },
            &["P principal point", "(100.0, 240.0)"],
        ),
    ];
    for (info, wanted) in rows {
        let told = told(&info);
        for part in wanted {
            assert!(told.contains(part), "`{part}` is not in: {told}");
        }
    }
}

#[test]
fn of_rectified_images_p_is_doubted_and_of_fixed_ones_the_camera() {
    let info = CameraInfoMessage { p: p(K_OF_A_QUARTER), ..info(K) };
    let told = doubts(&info, Images::Rectified).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert!(told.len() == 1 && told[0].starts_with("P principal point"), "{told:?}");
    let fixed = Intrinsics::new(615.0, 615.0, 160.0, 240.0, 640, 480).unwrap();
    let told = doubts_of_pinhole(&fixed).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert!(told.len() == 1 && told[0].starts_with("camera principal point"), "{told:?}");
}
