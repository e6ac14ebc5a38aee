//! What an answer says of itself: its poses against its own reasoning, and against the windows that it shares frames with.
//!
//! Nothing is decided here. A check that could not run leaves no residual, and [`Evidence::checks`] says which did: of an
//! answer without reasoning there are those of its text, its bounds and its overlap alone.

use std::fmt;

use geometry::epipolar::{fundamental, rotation_homography, symmetric_distance, symmetric_transfer_distance};
use geometry::{Anchor, Camera, Intrinsics, Outcome, WINDOW, WindowTrajectory, kabsch};
use model::answer::chain::{self, MAX_ROTATION_DEFECT, Parsed};
use nalgebra::{Isometry3, UnitQuaternion, Vector3};

use crate::config::{CheckRules, Sanity};

/// A check that measures something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// Angle between a printed rotation and Procrustes on the chain's points, degrees; the largest over frames.
    ProcrustesRotation,
    /// Distance between a printed translation and the same, over the motion; the largest over frames.
    ProcrustesTranslation,
    /// Mean symmetric distance of the pixels of frame i to the epipolar lines of the final poses, pixels of the model's
    /// grid; the largest over frames.
    Epipolar,
    /// Angle between the orientations that two windows give a frame, degrees; the largest over frames.
    OverlapRotation,
    /// Distance between the positions that they give it, over the motion between such frames.
    OverlapTranslation,
}

impl Check {
    /// Its name with its unit; without one it is a ratio.
    pub fn name(self) -> &'static str {
        match self {
            Self::ProcrustesRotation => "procrustes_rotation_deg",
            Self::ProcrustesTranslation => "procrustes_translation",
            Self::Epipolar => "epipolar_px",
            Self::OverlapRotation => "overlap_rotation_deg",
            Self::OverlapTranslation => "overlap_translation",
        }
    }

    /// What is compared with what.
    fn group(self) -> &'static str {
        match self {
            Self::ProcrustesRotation | Self::ProcrustesTranslation => "procrustes",
            Self::Epipolar => "epipolar",
            Self::OverlapRotation | Self::OverlapTranslation => "overlap",
        }
    }
}

/// What a check measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Residual {
    /// Which check.
    pub check: Check,
    /// In the unit of its name.
    pub value: f64,
    /// Over what it measures in an answer that can be believed.
    pub ratio: f64,
}

impl fmt::Display for Residual {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:.3} is {:.1} times what is typical", self.check.name(), self.value, self.ratio)
    }
}

/// What the checks of an answer found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Evidence {
    /// What was measured, in the order of the checks.
    pub residuals: Vec<Residual>,
    /// What the reasoning lacks to be measured: an answer that was asked for it and gives none cannot be checked.
    pub faults: Vec<String>,
    /// The largest standard deviation that the model itself states of a position, metres; `None` where it states none.
    /// It widens the covariance and is no check: the model may be wrong about itself too.
    pub stated_stddev_metres: Option<f64>,
}

impl Evidence {
    /// The checks that ran. Poses that there is evidence of have parsed, as rotations, within the bounds.
    pub fn checks(&self) -> Vec<&'static str> {
        let mut all = vec!["parse", "rotation", "sanity"];
        all.extend(self.residuals.iter().map(|residual| residual.check.group()));
        all.dedup();
        all
    }

    /// The residual with the largest ratio.
    pub fn worst(&self) -> Option<&Residual> {
        self.residuals.iter().max_by(|a, b| a.ratio.total_cmp(&b.ratio))
    }

    /// What speaks against the answer most, in words.
    pub fn problem(&self) -> String {
        let worst = self.worst().filter(|residual| residual.ratio > 1.0).map(Residual::to_string);
        self.faults.iter().cloned().chain(worst).collect::<Vec<_>>().join("; ")
    }

    /// Holds the window against the one before, to which it was attached like this. Without two common frames there is
    /// nothing to hold.
    pub fn add_overlap(&mut self, outcome: &Outcome, rules: &CheckRules) {
        let Outcome::Continued { disagreement: Some(found), .. } = outcome else { return };
        let motion = found.span.max(rules.least_motion_metres);
        self.add(Check::OverlapRotation, found.rotation.as_degrees(), rules.overlap_rotation_deg);
        self.add(Check::OverlapTranslation, found.translation / motion, rules.overlap_translation);
    }

    fn add(&mut self, check: Check, value: f64, typical: f64) {
        self.residuals.push(Residual { check, value, ratio: value / typical });
    }

    /// Steps 3 and 4 of the chain: Procrustes on its points against `camera_i_from_anchor` as printed and against the
    /// final poses, i = 1..4.
    fn add_procrustes(&mut self, trajectory: &WindowTrajectory, parsed: &Parsed, rules: &CheckRules) {
        let (points, printed) = match (&parsed.points, &parsed.camera_from_anchor) {
            (Ok(points), Ok(printed)) => (points, printed),
            (Err(e), _) | (_, Err(e)) => return self.faults.push(e.to_string()),
        };
        let (mut rotation, mut translation) = (0.0_f64, 0.0_f64);
        for (i, raw) in (1..WINDOW).zip(printed) {
            let [from, to] = [0, i].map(|frame| points.each_ref().map(|track| track[frame]));
            let own = match kabsch(&from, &to) {
                Ok(camera_from_anchor) => camera_from_anchor,
                Err(e) => return self.faults.push(format!("<step3> frame {i}: {e}")),
            };
            let defect = raw.defect();
            let step4 = raw.nearest::<Camera, Anchor>().ok().filter(|_| defect < MAX_ROTATION_DEFECT);
            let Some(step4) = step4 else {
                return self
                    .faults
                    .push(format!("<step4> frame {i}: expected a rotation, got a defect of {defect:.3}"));
            };
            let last = trajectory.anchor_from_camera()[i].inverse();
            for (r, t) in [(step4.rotation(), step4.translation()), (last.rotation(), last.translation())] {
                let (angle, distance) = apart(&own, &r, &t, rules.least_motion_metres);
                rotation = rotation.max(angle);
                translation = translation.max(distance);
            }
        }
        self.add(Check::ProcrustesRotation, rotation, rules.procrustes_rotation_deg);
        self.add(Check::ProcrustesTranslation, translation, rules.procrustes_translation);
    }

    /// Step 1 of the chain against the final poses; where the camera only turns, against the homography of the turn.
    fn add_epipolar(&mut self, trajectory: &WindowTrajectory, parsed: &Parsed, grid: &Intrinsics, rules: &CheckRules) {
        let tracks = match &parsed.pixels {
            Ok(tracks) => tracks,
            Err(e) => return self.faults.push(e.to_string()),
        };
        let poses = trajectory.anchor_from_camera();
        let of_frame = |i: usize| {
            let lines = fundamental(&poses[0], &poses[i], grid, grid);
            let turned = rotation_homography(&poses[0], &poses[i], grid, grid);
            let distances = tracks.iter().filter_map(|track| match &lines {
                Ok(f) => symmetric_distance(f, &track[0], &track[i]),
                Err(_) => symmetric_transfer_distance(&turned, &track[0], &track[i]),
            });
            let distances: Vec<f64> = distances.collect();
            (!distances.is_empty()).then(|| distances.iter().sum::<f64>() / distances.len() as f64)
        };
        match (1..WINDOW).filter_map(of_frame).reduce(f64::max) {
            Some(pixels) => self.add(Check::Epipolar, pixels, rules.epipolar_px),
            None => self.faults.push("<step1>: no pixel has an epipolar line".to_owned()),
        }
    }
}

/// Degrees between rotations, and the distance between translations over the longer of them.
fn apart(own: &Isometry3<f64>, rotation: &UnitQuaternion<f64>, translation: &Vector3<f64>, least: f64) -> (f64, f64) {
    let own_translation = own.translation.vector;
    let motion = own_translation.norm().max(translation.norm()).max(least);
    (own.rotation.angle_to(rotation).to_degrees(), (own_translation - translation).norm() / motion)
}

/// Holds an answer's poses against its reasoning. `grid` are the intrinsics of the pixel grid that the model saw, where
/// it was asked to reason; where the poses are those of the tracks (`by_tracks`), so are the pixels, and only its depths are held
/// against them.
pub fn of_answer(
    trajectory: &WindowTrajectory,
    text: &str,
    grid: Option<&Intrinsics>,
    by_tracks: bool,
    rules: &CheckRules,
) -> Evidence {
    let mut evidence = Evidence::default();
    if let Some(grid) = grid {
        let parsed = chain::parse(text);
        evidence.add_procrustes(trajectory, &parsed, rules);
        if !by_tracks {
            evidence.add_epipolar(trajectory, &parsed, grid, rules);
        }
    }
    evidence
}

/// Whether poses can be believed at all.
///
/// # Errors
/// The step or the turn that is too large, in words.
pub fn sane(trajectory: &WindowTrajectory, sanity: &Sanity) -> Result<(), String> {
    for i in 1..WINDOW {
        let step = trajectory.relative(i - 1, i);
        let metres = step.translation().norm();
        let radians = step.rotation().angle();
        if metres.is_nan() || metres > sanity.max_step_metres {
            return Err(format!(
                "frame {} to {i}: expected a step of at most {} m, got {metres:.3}",
                i - 1,
                sanity.max_step_metres
            ));
        }
        if radians.is_nan() || radians > sanity.max_step_radians {
            return Err(format!(
                "frame {} to {i}: expected a turn of at most {:.1} deg, got {:.1}",
                i - 1,
                sanity.max_step_radians.to_degrees(),
                radians.to_degrees()
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use geometry::{Disagreement, Outcome, Radians, Stamp, Transform, WindowTrajectory};
    use model::answer::chain;
    use nalgebra::{Isometry3, Point3, Vector3};

    use super::{Evidence, of_answer, sane};
    use crate::config::Sanity;
    use crate::trust::synthetic::{self, grid, motion, moved, rules, shifted, turned};

    fn judge(chain: &chain::Chain) -> Evidence {
        of_answer(&chain.trajectory, &chain::write(chain), Some(&grid()), false, &rules().checks)
    }

    fn value(evidence: &Evidence, name: &str) -> f64 {
        let found = evidence.residuals.iter().find(|residual| residual.check.name() == name);
        found.unwrap_or_else(|| panic!("no {name} in {evidence:?}")).value
    }

    const NAMES: [&str; 3] = ["procrustes_rotation_deg", "procrustes_translation", "epipolar_px"];
    /// What the digits of a text leave of an exact chain.
    const ROUNDING: [f64; 3] = [0.05, 0.02, 0.2];

    #[test]
    fn exact_chains_agree_with_their_poses_and_changed_ones_do_not() {
        let forward = synthetic::chain(&motion(0.1, 0.02));
        let still = synthetic::chain(&motion(0.0, 0.02));
        let mut other_pose = forward.clone();
        let wrong = Isometry3::rotation(Vector3::new(0.0, 0.05, 0.0));
        let last = other_pose.trajectory.anchor_from_camera()[4];
        other_pose.trajectory.later_mut()[3] = Transform::from_isometry_unchecked(last.isometry() * wrong);
        let mut farther = forward.clone();
        for track in &mut farther.tracks {
            track.points_in_camera[3] *= 1.1;
        }
        // The residuals that must move, each with what it must be within.
        type Bounds = [Option<(f64, f64)>; 3];
        let rows: [(&str, &chain::Chain, Bounds); 8] = [
            ("forward", &forward, [None, None, None]),
            ("turning on the spot", &still, [None, None, None]),
            ("step 4 turned", &turned(&forward, 5.0), [Some((4.9, 5.1)), None, None]),
            // 0.1 m of 0.14 in frame 1.
            ("step 4 moved", &moved(&forward, 0.1), [None, Some((0.6, 0.8)), None]),
            ("points of frame 3 farther away", &farther, [None, Some((0.5, 1.2)), None]),
            // The translation is seen from a camera that is turned.
            ("last pose turned", &other_pose, [Some((2.8, 2.9)), Some((0.04, 0.06)), Some((1.0, 9.0))]),
            ("pixels of frame 2 higher", &shifted(&forward, 2, [0.0, 6.0]), [None, None, Some((1.0, 6.5))]),
            // Without a baseline there is no direction in which a match may lie.
            ("pixels of a turn aside", &shifted(&still, 2, [6.0, 0.0]), [None, None, Some((5.5, 6.5))]),
        ];
        for (what, chain, expected) in rows {
            let evidence = judge(chain);
            assert_eq!(evidence.faults, [""; 0], "{what}");
            assert_eq!(evidence.checks(), ["parse", "rotation", "sanity", "procrustes", "epipolar"], "{what}");
            for ((name, rounding), expected) in NAMES.into_iter().zip(ROUNDING).zip(expected) {
                let got = value(&evidence, name);
                let (low, high) = expected.unwrap_or((0.0, rounding));
                assert!((low..=high).contains(&got), "{what}: {name} {got}");
            }
        }
    }

    #[test]
    fn ratios_are_to_what_is_typical() {
        let evidence = judge(&turned(&synthetic::chain(&motion(0.1, 0.0)), 5.0));
        let worst = evidence.worst().unwrap();
        assert_eq!(worst.check.name(), "procrustes_rotation_deg");
        assert!((worst.ratio - 5.0).abs() < 0.1, "{worst}");
        assert!(evidence.problem().starts_with("procrustes_rotation_deg 5.0"), "{}", evidence.problem());
        assert_eq!(judge(&synthetic::chain(&motion(0.1, 0.0))).problem(), "", "nothing speaks against it");
    }

    #[test]
    fn reasoning_that_cannot_be_measured_is_a_fault() {
        let exact = synthetic::chain(&motion(0.1, 0.02));
        let text = chain::write(&exact);
        let mut mirrored = text.clone();
        let begin = mirrored.find("\n1 R").unwrap() + 1;
        let end = begin + mirrored[begin..].find('\n').unwrap();
        mirrored.replace_range(begin..end, "1 R 1 0 0 0 1 0 0 0 -1 t 0 0 0");
        let mut one_place = exact.clone();
        for track in &mut one_place.tracks {
            track.points_in_camera = [Point3::new(0.0, 0.0, 2.0); 5];
        }
        let rows = [
            (text.replace("<step3>", "<step>"), "<step3>", vec!["epipolar"]),
            (text.replace("<step4>", "<step>"), "<step4>", vec!["epipolar"]),
            (text.replace("<step1>", "<step>"), "<step1>", vec!["procrustes"]),
            (mirrored, "<step4> frame 1: expected a rotation, got a defect of inf", vec!["epipolar"]),
            (chain::write(&one_place), "<step3> frame 1", vec!["epipolar"]),
            (chain::write_poses(&exact.trajectory), "<step3>", vec![]),
        ];
        for (text, fault, ran) in rows {
            let evidence = of_answer(&exact.trajectory, &text, Some(&grid()), false, &rules().checks);
            assert!(evidence.faults.first().is_some_and(|f| f.contains(fault)), "{fault}: {evidence:?}");
            assert_eq!(evidence.checks()[3..], ran, "{fault}");
            assert!(evidence.problem().contains(fault), "{}", evidence.problem());
        }
    }

    #[test]
    fn an_answer_without_reasoning_is_held_against_its_neighbours_alone() {
        let trajectory = motion(0.1, 0.02);
        let rules = rules().checks;
        let overlap = |disagreement| Outcome::Continued { common: Stamp::default(), overlap: 2, disagreement };
        let found =
            |translation, span| Some(Disagreement { rotation: Radians(4.0_f64.to_radians()), translation, span });
        let rows = [
            (Outcome::Started, None),
            (Outcome::NewSegment { gap_nanos: 5 }, None),
            (overlap(None), None),
            (overlap(found(0.3, 0.6)), Some(0.5)),
            // Next to no motion is no reason for next to no tolerance.
            (overlap(found(0.01, 0.0)), Some(0.2)),
        ];
        for (outcome, expected) in rows {
            let mut evidence = of_answer(&trajectory, &chain::write_poses(&trajectory), None, false, &rules);
            assert_eq!(evidence.checks(), ["parse", "rotation", "sanity"]);
            evidence.add_overlap(&outcome, &rules);
            match expected {
                None => assert_eq!(evidence, Evidence::default(), "{outcome:?}"),
                Some(expected) => {
                    assert_eq!(evidence.checks(), ["parse", "rotation", "sanity", "overlap"]);
                    assert!((value(&evidence, "overlap_rotation_deg") - 4.0).abs() < 1e-9);
                    assert!((value(&evidence, "overlap_translation") - expected).abs() < 1e-9);
                }
            }
        }
    }

    #[test]
    fn absurd_answers_are_refused() {
        let sanity = Sanity { max_step_metres: 1.0, max_step_radians: 0.5 };
        let rows = [
            (Vector3::new(0.1, 0.0, 0.2), Vector3::new(0.0, 0.1, 0.0), None),
            (Vector3::new(1.1, 0.0, 0.0), Vector3::zeros(), Some("step")),
            (Vector3::zeros(), Vector3::new(0.0, 0.6, 0.0), Some("turn")),
            (Vector3::new(f64::NAN, 0.0, 0.0), Vector3::zeros(), Some("step")),
            (Vector3::new(0.0, f64::INFINITY, 0.0), Vector3::zeros(), Some("step")),
            (Vector3::zeros(), Vector3::new(f64::NAN, 0.0, 0.0), Some("turn")),
        ];
        for (translation, rotation, wanted) in rows {
            let mut trajectory = WindowTrajectory::identity();
            trajectory.later_mut()[3] = Transform::from_isometry_unchecked(Isometry3::new(translation, rotation));
            let got = sane(&trajectory, &sanity).err();
            let fits = match wanted {
                None => got.is_none(),
                Some(part) => got.as_ref().is_some_and(|message| message.contains(part)),
            };
            assert!(fits, "{translation} {rotation}: {got:?}");
        }
    }
}
