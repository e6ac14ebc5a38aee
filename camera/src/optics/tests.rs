use geometry::Intrinsics;

use super::{CameraRules, CameraState, Refusal, UseFixed};
use crate::info::Images;
use crate::message::{CameraInfoMessage, RegionOfInterest};
use crate::rectify::CameraModel;

fn fixed(use_fixed: UseFixed) -> CameraRules {
    let intrinsics = Intrinsics::new(50.0, 50.0, 32.0, 24.0, 64, 48).unwrap();
    CameraRules { use_fixed, intrinsics, images: Images::Raw }
}

fn info(k: [f64; 9], width: u32, height: u32) -> CameraInfoMessage {
    let distortion_model = "plumb_bob".to_owned();
    CameraInfoMessage { width, height, distortion_model, d: vec![0.0; 5], k, ..CameraInfoMessage::default() }
}

fn distorted() -> CameraInfoMessage {
    CameraInfoMessage { d: vec![-0.3, 0.1, 0.0, 0.0, 0.0], ..info(K, 64, 48) }
}

const K: [f64; 9] = [70.0, 0.0, 32.0, 0.0, 70.0, 24.0, 0.0, 0.0, 1.0];
const IDENTITY: [f64; 9] = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0];

fn fx(camera: &CameraState) -> u64 {
    camera.optics(64, 48).unwrap().intrinsics.fx.to_bits()
}

/// The refusal of an image after this CameraInfo, in words.
fn refusal(info: &CameraInfoMessage) -> String {
    let mut camera = CameraState::new(&fixed(UseFixed::UntilCameraInfo));
    camera.update(info);
    camera.optics(64, 48).unwrap_err().to_string()
}

#[test]
fn without_camera_info_there_are_no_intrinsics_unless_the_config_has_them() {
    let never = CameraState::new(&fixed(UseFixed::Never));
    assert_eq!(never.optics(64, 48).unwrap_err(), Refusal::NoCameraInfo);
    let mut until = CameraState::new(&fixed(UseFixed::UntilCameraInfo));
    assert_eq!(fx(&until), 50.0_f64.to_bits());
    assert!(until.update(&info(K, 64, 48)));
    assert!(!until.update(&info(K, 64, 48)), "the same again is no news");
    assert_eq!(fx(&until), 70.0_f64.to_bits());
    let mut always = CameraState::new(&fixed(UseFixed::Always));
    always.update(&distorted());
    assert_eq!(fx(&always), 50.0_f64.to_bits());
    assert!(always.optics(64, 48).unwrap().rectifier.is_none());
}

#[test]
fn camera_info_that_is_no_pinhole_is_refused_and_says_why() {
    let rows = [
        ([0.0; 9], 64, "not calibrated"),
        ([f64::NAN, 0.0, 32.0, 0.0, 70.0, 24.0, 0.0, 0.0, 1.0], 64, "K fx"),
        ([-70.0, 0.0, 32.0, 0.0, 70.0, 24.0, 0.0, 0.0, 1.0], 64, "K fx"),
        ([70.0, 9.0, 32.0, 0.0, 70.0, 24.0, 0.0, 0.0, 1.0], 64, "K: expected [fx 0 cx"),
        ([70.0, 0.0, 32.0, 0.0, 70.0, 24.0, 0.0, 0.0, 0.0], 64, "K: expected [fx 0 cx"),
        ([70.0, 0.0, 1e9, 0.0, 70.0, 24.0, 0.0, 0.0, 1.0], 64, "K cx"),
        (K, 0, "K width"),
    ];
    for (k, width, wanted) in rows {
        let message = refusal(&info(k, width, 48));
        assert!(message.contains(wanted), "`{wanted}` is not in: {message}");
    }
}

#[test]
fn intrinsics_for_another_grid_are_refused() {
    let mut camera = CameraState::new(&fixed(UseFixed::Never));
    camera.update(&info(K, 128, 96));
    let refusal = camera.optics(64, 48).unwrap_err();
    assert_eq!(refusal, Refusal::OtherGrid { expected: (128, 96), got: (64, 48) });
}

#[test]
fn distortion_brings_a_rectifier_with_its_own_intrinsics_until_it_goes() {
    let mut camera = CameraState::new(&fixed(UseFixed::Never));
    assert!(camera.update(&distorted()));
    let first = camera.optics(64, 48).unwrap().clone();
    let rectifier = first.rectifier.unwrap();
    assert_eq!(first.intrinsics, rectifier.intrinsics());
    assert!(first.intrinsics.fx < 70.0, "a barrel shows more than K says: {:?}", first.intrinsics);
    assert!(!camera.update(&distorted()), "the same again is no news");
    let again = camera.optics(64, 48).unwrap().rectifier.clone().unwrap();
    assert!(std::sync::Arc::ptr_eq(&rectifier, &again), "nor a reason for another table");
    assert!(camera.update(&info(K, 64, 48)));
    assert!(camera.optics(64, 48).unwrap().rectifier.is_none());
    assert_eq!(fx(&camera), 70.0_f64.to_bits());
}

#[test]
fn p_is_what_a_rectified_image_has_and_nothing_to_an_image_without_distortion() {
    let p = [60.0, 0.0, 31.0, -5.0, 0.0, 61.0, 23.0, 0.0, 0.0, 0.0, 1.0, 0.0];
    let mut camera = CameraState::new(&fixed(UseFixed::Never));
    camera.update(&CameraInfoMessage { p, r: IDENTITY, ..distorted() });
    let wanted = Intrinsics::new(60.0, 61.0, 31.0, 23.0, 64, 48).unwrap();
    assert_eq!(camera.optics(64, 48).unwrap().intrinsics, wanted);
    camera.update(&CameraInfoMessage { p: [f64::NAN; 12], r: [7.0; 9], ..info(K, 64, 48) });
    assert_eq!(fx(&camera), 70.0_f64.to_bits());
}

#[test]
fn of_images_that_are_rectified_already_p_alone_counts() {
    let mut camera = CameraState::new(&CameraRules { images: Images::Rectified, ..fixed(UseFixed::Never) });
    // The CameraInfo of a stereo pair's raw image, which image_proc sends along.
    let turned = [0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0];
    let p = [60.0, 0.0, 31.0, -5.0, 0.0, 61.0, 23.0, 0.0, 0.0, 0.0, 1.0, 0.0];
    assert!(camera.update(&CameraInfoMessage { p, r: turned, ..distorted() }));
    let optics = camera.optics(64, 48).unwrap();
    assert!(optics.rectifier.is_none(), "nothing is rectified twice");
    assert_eq!(optics.intrinsics, Intrinsics::new(60.0, 61.0, 31.0, 23.0, 64, 48).unwrap());

    // On the grid of the part that is shown, and whatever a driver says of what it did not make.
    let roi = RegionOfInterest { x_offset: 10, y_offset: 4, width: 41, height: 32 };
    let strange =
        CameraInfoMessage { d: vec![f64::NAN], k: [0.0; 9], distortion_model: "new".to_owned(), ..distorted() };
    camera.update(&CameraInfoMessage { p, roi, binning: [2, 4], ..strange });
    let wanted = Intrinsics::new(30.0, 15.25, 10.25, 4.375, 20, 8).unwrap();
    assert_eq!(camera.optics(20, 8).unwrap().intrinsics, wanted);

    for (p, wanted) in
        [([0.0; 12], "P: expected the matrix of the rectified image"), ([1.0; 12], "P: expected [fx 0 cx")]
    {
        camera.update(&CameraInfoMessage { p, ..distorted() });
        let message = camera.optics(64, 48).unwrap_err().to_string();
        assert!(message.contains(wanted), "`{wanted}` is not in: {message}");
    }
}

#[test]
fn distortion_that_cannot_be_corrected_is_refused_and_says_why() {
    let with =
        |model: &str, d: &[f64]| CameraInfoMessage { distortion_model: model.to_owned(), d: d.to_vec(), ..distorted() };
    let turned = [0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0];
    let p = |fx: f64, skew: f64| [fx, skew, 32.0, 0.0, 0.0, 70.0, 24.0, 0.0, 0.0, 0.0, 1.0, 0.0];
    let rows: [(CameraInfoMessage, &[&str]); 13] = [
        (with("kannala_brandt", &[0.1; 4]), &["distortion_model", "plumb_bob, rational", "\"kannala_brandt\""]),
        (with("", &[0.1; 5]), &["distortion_model", "got \"\""]),
        (with("plumb_bob", &[0.1; 8]), &["D", "4 or 5", "plumb_bob", "got 8"]),
        (with("plumb_bob", &[0.1]), &["D", "4 or 5", "got 1"]),
        (with("rational_polynomial", &[0.1; 5]), &["D", "8 coefficients", "got 5"]),
        (with("equidistant", &[0.1; 5]), &["D", "4 coefficients", "got 5"]),
        (with("plumb_bob", &[0.1, f64::NAN, 0.0, 0.0]), &["D", "finite", "NaN"]),
        (with("plumb_bob", &[-1e9, 0.0, 0.0, 0.0]), &["D", "a quarter of the view", "0.0 deg"]),
        (CameraInfoMessage { r: turned, ..distorted() }, &["R", "identity", "stereo"]),
        (CameraInfoMessage { p: p(-1.0, 0.0), ..distorted() }, &["P fx"]),
        (CameraInfoMessage { p: p(70.0, 5.0), ..distorted() }, &["P: expected [fx 0 cx"]),
        (CameraInfoMessage { p: p(f64::NAN, 0.0), ..distorted() }, &["P fx"]),
        (CameraInfoMessage { p: p(7.0, 0.0), ..distorted() }, &["P: expected at least 50 %"]),
    ];
    for (info, wanted) in rows {
        let message = refusal(&info);
        for part in wanted {
            assert!(message.contains(part), "`{part}` is not in: {message}");
        }
    }
}

#[test]
fn coefficients_that_are_all_zero_are_no_distortion_whatever_the_model_is() {
    for (model, d) in [("", vec![]), ("plumb_bob", vec![]), ("equidistant", vec![0.0; 4]), ("new", vec![0.0; 12])] {
        let info = CameraInfoMessage { distortion_model: model.to_owned(), d, ..info(K, 64, 48) };
        assert_eq!(CameraModel::new(&info, Images::Raw).unwrap().lens, None, "{model}");
    }
}

#[test]
fn binning_and_region_of_interest_move_the_intrinsics_to_the_images_grid() {
    let roi = RegionOfInterest { x_offset: 10, y_offset: 4, width: 41, height: 32 };
    let info = CameraInfoMessage { binning: [2, 4], roi, ..info(K, 64, 48) };
    let mut camera = CameraState::new(&fixed(UseFixed::Never));
    camera.update(&info);
    // (32 - 10 + 0.5) / 2 - 0.5 and (24 - 4 + 0.5) / 4 - 0.5; the 41st column fills no pixel.
    let wanted = Intrinsics::new(35.0, 17.5, 10.75, 4.625, 20, 8).unwrap();
    assert_eq!(camera.optics(20, 8).unwrap().intrinsics, wanted);
    assert_eq!(camera.optics(64, 48).unwrap_err(), Refusal::OtherGrid { expected: (20, 8), got: (64, 48) });

    let p = [60.0, 0.0, 31.0, 0.0, 0.0, 61.0, 23.0, 0.0, 0.0, 0.0, 1.0, 0.0];
    let d = vec![-0.3, 0.1, 0.0, 0.0];
    let model = CameraModel::new(&CameraInfoMessage { p, d, ..info }, Images::Raw).unwrap();
    assert_eq!(model.raw, wanted);
    assert_eq!(model.rectified, Some(Intrinsics::new(30.0, 15.25, 10.25, 4.375, 20, 8).unwrap()));
}

#[test]
fn regions_that_are_not_inside_the_full_grid_are_refused() {
    let whole = RegionOfInterest { x_offset: 0, y_offset: 0, width: 64, height: 48 };
    let rows = [
        RegionOfInterest { width: 65, ..whole },
        RegionOfInterest { y_offset: 1, ..whole },
        RegionOfInterest { x_offset: u32::MAX, ..whole },
    ];
    for roi in rows {
        let message = refusal(&CameraInfoMessage { roi, ..info(K, 64, 48) });
        assert!(message.contains("roi: expected a part of 64 x 48"), "{message}");
    }
    let empty = RegionOfInterest { x_offset: 3, ..RegionOfInterest::default() };
    assert!(refusal(&CameraInfoMessage { roi: empty, ..info(K, 64, 48) }).contains("K width"));
    assert!(refusal(&CameraInfoMessage { binning: [100, 1], ..info(K, 64, 48) }).contains("K width"));
    let mut camera = CameraState::new(&fixed(UseFixed::Never));
    camera.update(&CameraInfoMessage { roi: whole, binning: [1, 0], ..info(K, 64, 48) });
    assert_eq!(fx(&camera), 70.0_f64.to_bits());
}

#[test]
fn a_focal_length_that_is_zero_once_binned_is_refused() {
    let tiny = [70.0, 0.0, 32.0, 0.0, 5e-324, 24.0, 0.0, 0.0, 1.0];
    let message = refusal(&CameraInfoMessage { binning: [2, 2], ..info(tiny, 64, 48) });
    assert!(message.contains("K fy: expected a focal length from 0.001"), "{message}");
}
