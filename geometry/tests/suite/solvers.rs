//! The robust estimators are as accurate as the public library PoseLib on the same problems, and succeed as often;
//! `training/baselines/solvers.py` drew the problems and ran PoseLib.
//!
//! Thirty problems leave medians uncertain by a tenth or so. On a thousand of each kind (`--problems 1000`) ours were
//! 1.04 and 1.02 times PoseLib's for relative poses (rotation, direction), and 0.98 and 0.95 for absolute ones; both
//! succeeded on all but planes between two views, where 171 and 179 of 250 single answers were the right twin.

use std::path::PathBuf;

use geometry::RobustOptions;
use geometry::pnp::estimate_pose;
use geometry::two_view::{alternatives, estimate_essential};
use nalgebra::{Isometry3, Point2, Point3, Vector3};
use serde::Deserialize;

/// Our median errors may be this many times PoseLib's.
const RATIO: f64 = 1.15;
/// What both medians may differ by in any case, radians or scene units.
const EPSILON: f64 = 1e-4;
/// An answer is a success within these: radians, and radians of the direction or scene units.
const SUCCESS: (f64, f64) = (0.05, 0.15);

#[derive(Deserialize)]
struct Fixture {
    focal: f64,
    centre: [f64; 2],
    threshold_px: f64,
    relative: Vec<Relative>,
    absolute: Vec<Absolute>,
}

#[derive(Deserialize)]
struct Relative {
    kind: String,
    /// Hundredths of pixels.
    a: Vec<i32>,
    b: Vec<i32>,
    truth: Pose,
    poselib: Pose,
}

#[derive(Deserialize)]
struct Absolute {
    kind: String,
    /// Ten-thousandths of scene units.
    points: Vec<i32>,
    xy: Vec<i32>,
    truth: Pose,
    poselib: Pose,
}

#[derive(Deserialize)]
struct Pose {
    rotation: [f64; 3],
    translation: [f64; 3],
}

impl Pose {
    fn isometry(&self) -> Isometry3<f64> {
        Isometry3::new(Vector3::from(self.translation), Vector3::from(self.rotation))
    }
}

impl Fixture {
    fn read() -> Self {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/solvers.json");
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    fn options(&self) -> RobustOptions {
        RobustOptions { threshold: self.threshold_px / self.focal, ..RobustOptions::default() }
    }

    fn normalised(&self, pixels: &[i32]) -> Vec<Point2<f64>> {
        let point = |p: &[i32]| {
            let [x, y] = [0, 1].map(|k| (f64::from(p[k]) / 100.0 - self.centre[k]) / self.focal);
            Point2::new(x, y)
        };
        pixels.chunks(2).map(point).collect()
    }
}

/// The error of the rotation, and that of the direction.
fn relative_errors(got: &Isometry3<f64>, truth: &Isometry3<f64>) -> (f64, f64) {
    (got.rotation.angle_to(&truth.rotation), got.translation.vector.angle(&truth.translation.vector))
}

/// The error of the rotation, and that of the camera's position.
fn absolute_errors(got: &Isometry3<f64>, truth: &Isometry3<f64>) -> (f64, f64) {
    let centre = |pose: &Isometry3<f64>| pose.inverse().translation.vector;
    (got.rotation.angle_to(&truth.rotation), (centre(got) - centre(truth)).norm())
}

/// Fails where we are worse; the numbers.
fn compare(name: &str, ours: &[(f64, f64)], theirs: &[(f64, f64)]) -> String {
    let mut report = String::new();
    let median = |errors: &[(f64, f64)], second: bool| {
        let mut values: Vec<f64> = errors.iter().map(|(r, t)| if second { *t } else { *r }).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    for (second, part) in [(false, "rotation"), (true, "translation")] {
        let (got, bound) = (median(ours, second), median(theirs, second));
        report += &format!("{name}: {part}: {got:.3e}, PoseLib has {bound:.3e}\n");
        assert!(got <= RATIO * bound + EPSILON, "{name}: {part}: median {got}, PoseLib has {bound}");
    }
    let succeeded = |errors: &[(f64, f64)]| errors.iter().filter(|(r, t)| *r < SUCCESS.0 && *t < SUCCESS.1).count();
    let (got, expected) = (succeeded(ours), succeeded(theirs));
    assert!(expected * 10 >= ours.len() * 8, "the problems are too hard to compare on");
    assert!(got >= expected, "{name}: {got} succeed, PoseLib's {expected}");
    report + &format!("{name}: {got} of {} succeed, PoseLib's {expected}", ours.len())
}

#[test]
fn relative_poses_are_as_good_as_poselibs() {
    let fixture = Fixture::read();
    let (mut ours, mut theirs) = (vec![], vec![]);
    for problem in &fixture.relative {
        let truth = problem.truth.isometry();
        let (a, b) = (fixture.normalised(&problem.a), fixture.normalised(&problem.b));
        let options = fixture.options();
        let got = estimate_essential(&a, &b, &options, &[]);
        let mut error = (f64::INFINITY, f64::INFINITY);
        if let Some(got) = got {
            error = relative_errors(&got.b_from_a, &truth);
            if problem.kind == "plane" {
                // A plane has two answers that nothing tells apart: PoseLib gives either, we give both.
                let all = alternatives(&got, &a, &b, options.threshold);
                let all = all.iter().map(|ranked| relative_errors(&ranked.b_from_a, &truth));
                error = all.min_by(|x, y| x.1.total_cmp(&y.1)).unwrap_or(error);
            }
        }
        let other = relative_errors(&problem.poselib.isometry(), &truth);
        println!("{}: {:.2e} {:.2e}, PoseLib {:.2e} {:.2e}", problem.kind, error.0, error.1, other.0, other.1);
        ours.push(error);
        theirs.push(other);
    }
    assert_eq!(ours.len(), 30);
    println!("{}", compare("relative", &ours, &theirs));
}

#[test]
fn absolute_poses_are_as_good_as_poselibs() {
    let fixture = Fixture::read();
    let (mut ours, mut theirs) = (vec![], vec![]);
    for problem in &fixture.absolute {
        let truth = problem.truth.isometry();
        let points: Vec<_> = problem
            .points
            .chunks(3)
            .map(|p| Point3::new(f64::from(p[0]), f64::from(p[1]), f64::from(p[2])) / 1e4)
            .collect();
        let got = estimate_pose(&points, &fixture.normalised(&problem.xy), &fixture.options(), &[]);
        let error = got.map_or((f64::INFINITY, f64::INFINITY), |got| absolute_errors(&got.camera_from_world, &truth));
        let other = absolute_errors(&problem.poselib.isometry(), &truth);
        println!("{}: {:.2e} {:.2e}, PoseLib {:.2e} {:.2e}", problem.kind, error.0, error.1, other.0, other.1);
        ours.push(error);
        theirs.push(other);
    }
    assert_eq!(ours.len(), 30);
    println!("{}", compare("absolute", &ours, &theirs));
}
