//! Bad input: each is named, and none panics.

use std::array::from_fn;

use geometry::{Intrinsics, Stamp, Transform, WINDOW, WindowTrajectory};
use nalgebra::{Isometry3, Matrix6, Vector3};
use odometry::stream::{Options, Stream};
use odometry::window::{Prior, solve};
use odometry::{Error, Grey, Picture};

use crate::render::{camera, even, noise, stamp};

fn named(error: &Error) -> &'static str {
    match error {
        Error::Bytes { .. } => "bytes",
        Error::TooSmall { .. } => "too small",
        Error::Size { .. } => "size",
        Error::Camera { .. } => "camera",
        Error::Stamp { .. } => "stamp",
        Error::Prior { .. } => "prior",
        _ => "other",
    }
}

fn pictures(stamps: [i64; WINDOW], cameras: [Intrinsics; WINDOW]) -> [Picture; WINDOW] {
    from_fn(|k| Picture::new(Stamp::from_nanos(stamps[k]), &cameras[k], &noise(&cameras[k], 1)).unwrap())
}

#[test]
fn wrong_pictures_are_named() {
    fn check<T: std::fmt::Debug>(got: Result<T, Error>, expected: &str) {
        let error = got.unwrap_err();
        assert_eq!(named(&error), expected, "{error}");
        assert!(!error.to_string().is_empty());
    }
    check(Grey::new(10, 10, vec![0; 99]), "bytes");
    check(Grey::new(10, 10, vec![0; 101]), "bytes");
    check(Grey::new(0, 10, vec![0; 1]), "bytes");
    check(Grey::from_rgb(10, 10, &[0; 299]), "bytes");
    check(Grey::from_rgb(10, 10, &[0; 100]), "bytes");
    check(Grey::from_rgb(10, 10, &[0; 303]), "bytes");
    for (width, height) in [(1, 1), (1, 500), (500, 1), (23, 24), (24, 23)] {
        let camera = camera(width, height);
        check(Picture::new(stamp(0), &camera, &even(&camera, 9)), "too small");
    }
    check(Picture::new(stamp(0), &camera(64, 48), &even(&camera(48, 64), 9)), "size");
    check(Picture::new(stamp(0), &camera(64, 48), &Grey::new(0, 0, vec![]).unwrap()), "size");
}

#[test]
fn surplus_bytes_of_rgb_are_named() {
    for surplus in [1, 2] {
        let got = Grey::from_rgb(10, 10, &vec![0; 300 + surplus]);
        assert_eq!(named(&got.unwrap_err()), "bytes", "{surplus}");
    }
}

#[test]
fn sizes_that_overflow_are_told() {
    let error = Grey::new(usize::MAX, 2, vec![]).unwrap_err();
    let text = error.to_string();
    // 2^65 - 2 wraps to 2^64 - 2.
    assert!(!text.contains("= 18446744073709551614 bytes"), "{text}");
}

#[test]
fn wrong_windows_are_named() {
    let (own, small) = (camera(160, 120), camera(120, 160));
    let other = Intrinsics { fx: own.fx + 1.0, ..own };
    let check = |stamps, cameras, expected: &str, expected_index: usize| {
        let error = solve(&pictures(stamps, cameras), None).unwrap_err();
        assert_eq!(named(&error), expected, "{error}");
        let (Error::Camera { index, .. } | Error::Stamp { index, .. }) = error else { panic!("{error}") };
        assert_eq!(index, expected_index);
    };
    check([0, 1, 2, 2, 4], [own; WINDOW], "stamp", 3);
    check([0, 0, 2, 3, 4], [own; WINDOW], "stamp", 1);
    check([0, 1, 2, 3, -4], [own; WINDOW], "stamp", 4);
    check([4, 3, 2, 1, 0], [own; WINDOW], "stamp", 1);
    check([i64::MAX, i64::MIN, 2, 3, 4], [own; WINDOW], "stamp", 1);
    check([0, 1, 2, 3, 4], [own, own, small, small, small], "camera", 2);
    check([0, 1, 2, 3, 4], [own, own, own, own, other], "camera", 4);
    check([0, 1, 2, 3, 4], [other, own, own, own, own], "camera", 1);
}

#[test]
fn wrong_priors_are_named() {
    let good = Prior { trajectory: WindowTrajectory::identity(), covariance: [Matrix6::identity(); WINDOW - 1] };
    let pictures = pictures([0, 1, 2, 3, 4], [camera(160, 120); WINDOW]);
    let check = |name: &str, change: &dyn Fn(&mut Prior)| {
        let mut prior = good.clone();
        change(&mut prior);
        let error = solve(&pictures, Some(&prior)).unwrap_err();
        assert_eq!(named(&error), "prior", "{name}: {error}");
    };
    let at = |x: f64| Transform::from_isometry_unchecked(Isometry3::new(Vector3::new(x, 0.0, 0.0), Vector3::zeros()));
    check("NaN", &|prior| prior.trajectory.later_mut()[1] = at(f64::NAN));
    check("infinite", &|prior| prior.trajectory.later_mut()[3] = at(f64::INFINITY));
    check("NaN rotation", &|prior| {
        let wrong = Isometry3::new(Vector3::zeros(), Vector3::new(f64::NAN, 0.0, 0.0));
        prior.trajectory.later_mut()[0] = Transform::from_isometry_unchecked(wrong);
    });
    check("zero", &|prior| prior.covariance[1] = Matrix6::zeros());
    check("negative", &|prior| prior.covariance[3] = -Matrix6::identity());
    check("not positive", &|prior| {
        (prior.covariance[0][(0, 1)], prior.covariance[0][(1, 0)]) = (2.0, 2.0);
    });
    check("NaN covariance", &|prior| prior.covariance[2][(5, 5)] = f64::NAN);
    check("infinite covariance", &|prior| prior.covariance[2][(5, 5)] = f64::INFINITY);
    assert!(solve(&pictures, Some(&good)).is_ok());
}

/// Poses or refusals, no panic: pictures of every shape, full of noise and of nothing.
#[test]
fn pictures_of_every_shape_are_worked_on() {
    for (width, height) in
        [(24, 24), (25, 24), (24, 700), (1900, 24), (511, 33), (512, 32), (801, 25), (100, 100), (47, 333)]
    {
        let camera = camera(width, height);
        for seed in 0..2 {
            let of = |k: usize| if seed == 0 { even(&camera, 77) } else { noise(&camera, k as u64 / 2) };
            let made = || from_fn(|k| Picture::new(stamp(k), &camera, &of(k)).unwrap());
            let _ = solve(&made(), None).unwrap();
            let prior =
                Prior { trajectory: WindowTrajectory::identity(), covariance: [Matrix6::identity(); WINDOW - 1] };
            let solved = solve(&made(), Some(&prior)).unwrap().unwrap();
            for pose in solved.trajectory.anchor_from_camera() {
                assert!(pose.isometry().translation.vector.iter().all(|value| value.is_finite()), "{width} x {height}");
            }
            let mut stream = Stream::new(Options::default());
            for k in 0..4 {
                let pose = stream.push(Picture::new(stamp(k), &camera, &of(k)).unwrap()).unwrap();
                assert!(
                    pose.odom_from_camera.translation().iter().all(|value| value.is_finite()),
                    "{width} x {height}"
                );
            }
        }
    }
}

#[test]
fn options_of_nothing_are_worked_with() {
    let camera = camera(160, 120);
    for options in [
        Options { points: 0, keyframes: 0 },
        Options { points: 1, keyframes: 1 },
        Options { points: 400, keyframes: usize::MAX },
    ] {
        let mut stream = Stream::new(options);
        for k in 0..4 {
            stream.push(Picture::new(stamp(k), &camera, &noise(&camera, 1)).unwrap()).unwrap();
        }
    }
}
