//! A chain comes back from its text; a text that is not one is told so; what a program fills in is what a chain holds.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests are tests too; clippy.toml covers the #[test] functions alone"
)]

use std::path::Path;
use std::sync::LazyLock;

use geometry::{Camera, Intrinsics, Transform, WINDOW, WindowTrajectory, World};
use model::answer::chain::{self, Chain, POINTS, ParseError, Track};
use model::answer::fill::{Draft, Filler, Part, Run};
use model::answer::grammar::Grammar;
use model::answer::measured::Measured;
use model::answer::prompt::Mode;
use model::tokenizer::Tokenizer;
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

/// A chain whose steps 3 and 4 a program has computed.
fn computed(mut chain: Chain, camera: &Intrinsics) -> Option<Chain> {
    chain.prose = ["One, then 2.", "12 points lie near", " p0 0.1", "-3 degrees | more", "The end."].map(str::to_owned);
    for track in &mut chain.tracks {
        track.pixels = track.pixels.map(|pixel| chain::round_pixel(&pixel));
        track.depths = track.depths.map(chain::round_depth);
    }
    let (pixels, depths) = (chain.tracks.each_ref().map(|t| t.pixels), chain.tracks.each_ref().map(|t| t.depths));
    let points = chain::back_projected(&pixels, &depths, camera);
    for (track, points) in chain.tracks.iter_mut().zip(points) {
        track.points_in_camera = points;
    }
    chain.camera_from_anchor = chain::aligned(&points).ok()?;
    Some(chain)
}

fn tokenizer(at: &str) -> Tokenizer {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(at).join("tokenizer.json");
    Tokenizer::new(tokenizers::Tokenizer::from_file(path).unwrap()).unwrap()
}

/// Its own, and one that has each digit apart as Qwen's.
static TOKENIZERS: LazyLock<[(Tokenizer, Grammar); 2]> = LazyLock::new(|| {
    ["weights/nano", "../tests/fixtures/qwen3vl/converted"].map(|at| {
        let tokenizer = tokenizer(at);
        let grammar = Grammar::new(&tokenizer, 1 << 16, Mode::FullChain).unwrap();
        (tokenizer, grammar)
    })
});

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]

    /// Whoever writes a true chain, the program has its numbers and its tokens right wherever it takes over.
    #[test]
    fn what_the_program_fills_in_is_what_a_true_chain_holds(chain in a_chain()) {
        let camera = Intrinsics::new(500.0, 490.0, 320.0, 240.0, 640, 480).unwrap();
        let Some(chain) = computed(chain, &camera) else { return Ok(()) };
        let text = chain::write(&chain);
        let place = |pixel: Point2<f64>| camera.back_project(&pixel, 1.0).xy();
        // Measured in another unit, as it always is.
        let measured = Measured {
            places: chain.tracks.each_ref().map(|track| track.pixels.map(place)),
            depths: chain.tracks.each_ref().map(|track| track.depths.map(|depth| depth / 4.0)),
            trajectory: chain.trajectory.scaled(0.25),
        };
        for (tokenizer, grammar) in &*TOKENIZERS {
            // Points, depths, prose and the four poses that end it; or depths and prose.
            for (measured, most, parts) in [(None, 0.62, 2), (Some(&measured), 0.16, 4)] {
                let filler = Filler::new(grammar, tokenizer, camera, measured);
                let ids = tokenizer.encode(&text).unwrap();
                let (mut draft, mut at, mut left, mut by_program) = (Draft::new(grammar), 0, 0, Vec::new());
                while at < ids.len() {
                    let Run { ids: run, part } = filler.next(&draft).unwrap();
                    prop_assert!(ids[at..].starts_with(&run), "{:?} behind {:?}", tokenizer.decode(&run), tokenizer.decode(&ids[..at]));
                    left += usize::from(run.is_empty());
                    by_program.extend(part.filter(|part| !by_program.contains(part)));
                    for id in &ids[at..at + run.len().max(1)] {
                        draft.push(grammar, *id);
                        at += 1;
                    }
                }
                prop_assert!((left as f64) < most * ids.len() as f64, "{left} of {}", ids.len());
                let all = [Part::Points, Part::BackProjection, Part::Alignment, Part::Poses];
                prop_assert_eq!(by_program, if parts == 4 { &all[..] } else { &all[1..3] });
            }
        }
    }
}

#[test]
fn points_on_a_line_are_left_to_the_model() {
    let (tokenizer, grammar) = &TOKENIZERS[0];
    let camera = Intrinsics::new(500.0, 490.0, 320.0, 240.0, 640, 480).unwrap();
    let line = |n: &str| format!("p{n} 1.0 2.0 | 1.0 2.0 | 1.0 2.0 | 1.0 2.0 | 1.0 2.0\n");
    let depths = |n: &str| format!("p{n} 1.000 1.000 1.000 1.000 1.000\n");
    let each = |of: &dyn Fn(&str) -> String| ["0", "1", "2", "3", "4"].map(of).concat();
    let text = format!("<step1>\na\n{}</step1>\n<step2>\nb\n{}</step2>\n<step3>\nc\n", each(&line), each(&depths));
    let mut draft = Draft::new(grammar);
    tokenizer.encode(&text).unwrap().into_iter().for_each(|id| draft.push(grammar, id));
    let filler = Filler::new(grammar, tokenizer, camera, None);
    let run = filler.next(&draft).unwrap().ids;
    let step3 = tokenizer.decode(&run).unwrap();
    assert!(step3.starts_with("p0 -0.6380 -0.4857 1.0000 | ") && step3.ends_with("</step3>\n<step4>\n"), "{step3}");
    for id in run.into_iter().chain(tokenizer.encode("d\n").unwrap()) {
        draft.push(grammar, id);
    }
    // One point five times has no rotation: only the number of the line is sure.
    assert_eq!(tokenizer.decode(&filler.next(&draft).unwrap().ids).unwrap().trim_end(), "1 R");
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
