//! A chain comes back from its text; a text that is not one is told so.

use geometry::{Camera, Transform, WINDOW, WindowTrajectory, World};
use model::answer::chain::{self, Chain, POINTS, ParseError, Track};
use nalgebra::{Isometry3, Point2, Point3, Translation3, UnitQuaternion, Vector3};
use proptest::prelude::*;

fn pose() -> impl Strategy<Value = Transform<World, Camera>> {
    (prop::array::uniform3(-3.0..3.0f64), prop::array::uniform3(-2.0..2.0f64)).prop_map(|(r, t)| {
        Transform::from_isometry_unchecked(Isometry3::from_parts(
            Translation3::from(Vector3::from(t)),
            UnitQuaternion::from_scaled_axis(Vector3::from(r)),
        ))
    })
}

fn a_chain() -> impl Strategy<Value = Chain> {
    let track = (
        prop::array::uniform5((0.0..640.0f64, 0.0..480.0f64)),
        prop::array::uniform5(0.1..80.0f64),
        prop::array::uniform5(prop::array::uniform3(-20.0..20.0f64)),
    );
    (prop::array::uniform5(pose()), prop::array::uniform5(track)).prop_map(|(poses, tracks)| {
        let trajectory = WindowTrajectory::from_world(&poses);
        let [_, relative @ ..] = trajectory.anchor_from_camera().map(|p| p.inverse());
        Chain {
            prose: ["One <b>.", "Two\nlines.", "", "p0 0.1", "The end."].map(str::to_owned),
            tracks: tracks.map(|(pixels, depths, points)| Track {
                pixels: pixels.map(|(u, v)| Point2::new(u, v)),
                depths,
                points_in_camera: points.map(|[x, y, z]| Point3::new(x, y, z)),
            }),
            camera_from_anchor: relative,
            trajectory,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_step_comes_back(chain in a_chain()) {
        let parsed = chain::parse(&chain::write(&chain));
        prop_assert_eq!(parsed.steps(), [true; 5]);
        let (pixels, depths, points) = (parsed.pixels.unwrap(), parsed.depths.unwrap(), parsed.points.unwrap());
        for p in 0..POINTS {
            for i in 0..WINDOW {
                prop_assert!((pixels[p][i] - chain.tracks[p].pixels[i]).norm() < 0.08);
                prop_assert!((depths[p][i] / chain.tracks[p].depths[i] - 1.0).abs() < 6e-4);
                prop_assert!((points[p][i] - chain.tracks[p].points_in_camera[i]).norm() < 1e-4);
            }
        }
        let trajectory = parsed.trajectory.unwrap();
        for (got, expected) in trajectory.anchor_from_camera().iter().zip(chain.trajectory.anchor_from_camera()) {
            prop_assert!(got.rotation().angle_to(&expected.rotation()).to_degrees() < 0.05);
            prop_assert!((got.translation() - expected.translation()).norm() < 1e-3);
        }
        for (got, expected) in parsed.camera_from_anchor.unwrap().iter().zip(&chain.camera_from_anchor) {
            prop_assert!((got.rotation - expected.rotation_matrix()).norm() < 1e-5);
        }
    }

    #[test]
    fn no_text_panics(text in "(<step[1-5]>|</step[1-5]>|<poses>|</poses>|\n|p[0-4]| R| t|[ 0-9.|-]{0,20}|é){0,40}") {
        let _ = chain::parse(&text);
    }

    #[test]
    fn a_cut_answer_does_not_parse(chain in a_chain(), share in 0.0..0.999f64) {
        let text = chain::write_poses(&chain.trajectory);
        let cut = (text.len() as f64 * share) as usize;
        prop_assert!(chain::parse_poses(&text[..cut]).is_err());
    }
}

fn identity_text() -> String {
    chain::write_poses(&WindowTrajectory::identity())
}

#[test]
fn the_answer_is_bit_exact_for_the_identity() {
    let text = identity_text();
    assert!(text.starts_with("<poses>\n0 R 1.000000 0.000000 0.000000 0.000000 1.000000"), "{text}");
    assert!(!text.contains('-'), "no negative zero: {text}");
    assert_eq!(chain::parse_poses(&text).unwrap(), WindowTrajectory::identity());
}

#[test]
fn what_is_wrong_is_named() {
    let good = identity_text();
    type Case = (&'static str, String, fn(&ParseError) -> bool);
    let cases: [Case; 7] = [
        ("nothing", String::new(), |e| matches!(e, ParseError::Block { block: "poses" })),
        ("a line too few", good.replacen("1 R", "1 R 1.0\n1 R", 1), |e| {
            matches!(e, ParseError::Lines { expected: 5, got: 6, .. })
        }),
        ("a number too few", good.replacen(" 0.000000", "", 1), |e| matches!(e, ParseError::Line { line: 0, .. })),
        ("not a number", good.replacen("1.000000", "1.0e0", 1), |e| matches!(e, ParseError::Line { .. })),
        ("NaN", good.replacen("1.000000", "NaN", 1), |e| matches!(e, ParseError::Line { .. })),
        ("no rotation", good.replacen("4 R 1.0", "4 R 9.0", 1), |e| {
            matches!(e, ParseError::NotARotation { pose: 4, .. })
        }),
        (
            "a mirror image",
            good.replacen("2 R 1.0", "2 R -1.0", 1),
            |e| matches!(e, ParseError::NotARotation { pose: 2, defect } if defect.is_infinite()),
        ),
    ];
    for (name, text, expected) in cases {
        let error = chain::parse_poses(&text).unwrap_err();
        assert!(expected(&error), "{name}: {error}");
    }
    let moved = good.replacen("t 0.000000", "t 0.500000", 1);
    assert_eq!(chain::parse_poses(&moved).unwrap_err(), ParseError::Anchor);
}
