//! How an endpoint is asked for a window, and told the form of the answer where it was not trained on it.

use anyhow::Result;
use geometry::{Intrinsics, Transform, WINDOW, WindowTrajectory};
use model::Mode;
use model::answer::budget::{self, Budget};
use model::answer::chain::{self, Chain, POINTS, Track, round_pixel};
use model::answer::prompt::Wording;
use nalgebra::Point2;

use training_data::WindowSample;
use training_data::endpoint::Part;

/// How an endpoint is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// What for.
    pub mode: Mode,
    /// After which an answer is given up.
    pub max_tokens: Budget,
    /// Say which form the answer has, and of a chain how each step follows from the one before: for models that were not trained on
    /// it.
    pub explain: bool,
}

impl Question {
    /// Tokens after which an answer is given up. Of a model whose tokenizer is not at hand it is known that no token is shorter
    /// than a byte.
    pub(super) fn most_tokens(&self) -> usize {
        match self.max_tokens {
            Budget::Auto => budget::longest(self.mode).len(),
            Budget::Tokens(tokens) => tokens,
        }
    }
}

impl Default for Question {
    fn default() -> Self {
        Self { mode: Mode::AnswerOnly, max_tokens: Budget::Auto, explain: false }
    }
}

/// The question of the images as they are stored.
pub(super) fn parts(question: &Question, sample: &WindowSample) -> Result<Vec<Part>> {
    let Wording { camera, labels, mut task } = Wording::new(question.mode, &sample.intrinsics);
    let mut parts = vec![Part::Text(camera)];
    for (label, image) in labels.into_iter().zip(&sample.images) {
        parts.extend([Part::Text(label), Part::image(image)?]);
    }
    if question.explain {
        task.push_str(&explanation(question.mode, &sample.intrinsics, sample.metric));
    }
    parts.push(Part::Text(task));
    Ok(parts)
}

/// The form of an answer, for a model that does not know it: what each number is, the unit of lengths (metres where the data are
/// `metric`), and at the end the answer to a camera of these intrinsics that never moves.
fn explanation(mode: Mode, intrinsics: &Intrinsics, metric: bool) -> String {
    let unit = if metric { METRES } else { SCENE_UNITS };
    let (steps, block, example) = match mode {
        Mode::AnswerOnly => (" ", "that block", chain::write_poses(&WindowTrajectory::identity())),
        Mode::FullChain => (STEPS, "these blocks", chain::write(&still(intrinsics))),
    };
    format!("\n{FRAMES} Lengths are {unit}.{steps}{POSES} Answer with nothing but {block}. {EXAMPLE}\n{example}")
}

/// The chain of a camera that never moves: five points far from each other, which stay where they are.
fn still(intrinsics: &Intrinsics) -> Chain {
    let (width, height) = (f64::from(intrinsics.width), f64::from(intrinsics.height));
    let track = |(x, y, depth): (f64, f64, f64)| {
        let pixel = round_pixel(&Point2::new(x * width, y * height));
        Track {
            pixels: [pixel; WINDOW],
            depths: [depth; WINDOW],
            points_in_camera: [intrinsics.back_project(&pixel, depth); WINDOW],
        }
    };
    let prose = [
        "Five corners, far from each other, are followed through all frames.",
        "Nothing comes nearer or goes away.",
        "Each pixel is put on its ray at its depth.",
        "The points are aligned, and nothing is left to turn or move.",
        "The camera stands still.",
    ];
    Chain {
        prose: prose.map(str::to_owned),
        tracks: PLACES.map(track),
        camera_from_anchor: [Transform::identity(); WINDOW - 1],
        trajectory: WindowTrajectory::identity(),
    }
}

/// Where the points of [`still`] are, as shares of the width and the height, and their depths.
const PLACES: [(f64, f64, f64); POINTS] =
    [(0.2, 0.25, 2.0), (0.8, 0.2, 3.5), (0.5, 0.55, 2.5), (0.25, 0.8, 4.0), (0.75, 0.75, 3.0)];

const METRES: &str = "metres";
/// As of RealEstate10K, each clip of which has a scale of its own.
const SCENE_UNITS: &str =
    "scene units of this recording, one and the same for all depths, points and translations, of unknown size";

const FRAMES: &str = "One moving camera took them, in this order; fx, fy, cx and cy are its intrinsics in pixels. Camera \
    axes are x right, y down, z forward. Numbers are plain decimals, no exponents.";

/// What the program that writes the chains computes, in words.
const STEPS: &str = " The answer is five steps and the poses, each in a block whose tags stand on lines of their own. In \
    steps 1 to 4 one line of prose, without < and >, comes first, then the lines of numbers, with | between frames in steps \
    1 and 3.
Step 1: choose five points p0 to p4 of the rigid scene that all five frames show, corners far from each other in the picture \
    and in depth, and follow each: u and v in frames 0 to 4, one decimal. Each lies on the epipolar line of its pixel in frame \
    0; where the camera moves sideways, near points move more than far ones, and where it only turns, all move alike.
Step 2: the depth z of each point in each of the five cameras, four significant digits. A point that the camera goes \
    towards has less depth from frame to frame.
Step 3: each point in each camera, X = d K^-1 [u v 1]^T, which is x = (u - cx) d / fx, y = (v - cy) d / fy, z = d, four \
    decimals.
Step 4: for i = 1 to 4 the rigid motion with X_i = R X_0 + t, from the points of camera 0 to those of camera i, by \
    Procrustes: the SVD of the covariance of the centred points gives R with determinant 1, and t is the mean of the X_i less \
    R times that of the X_0. Lines as those of the poses.
Step 5: how the camera moves, in one line of prose. The poses are the inverses of step 4: R^T and -R^T t.
";

const POSES: &str = "Line i of the poses is the pose of camera i in camera 0: its number, R and the nine numbers of the rotation \
    matrix row by row, t and the three of the translation, so that a point X of camera i is R X + t in camera 0. Six \
    decimals. Line 0 is the identity.";

const EXAMPLE: &str = "For a camera that never moves it would be:";

#[cfg(test)]
mod tests {
    use super::*;

    fn camera() -> Intrinsics {
        Intrinsics::new(150.0, 151.0, 79.5, 47.5, 160, 96).unwrap()
    }

    fn stands(poses: &WindowTrajectory) -> bool {
        let poses = poses.anchor_from_camera();
        poses.iter().all(|pose| pose.rotation().angle() < 1e-6 && pose.translation().norm() < 1e-9)
    }

    #[test]
    fn what_a_model_is_told_ends_in_an_answer_that_parses_in_each_step() {
        let camera = camera();
        let told = explanation(Mode::FullChain, &camera, true);
        // Of several blocks of one name the last counts: all of it is that of the example.
        let parsed = chain::parse(&told);
        assert_eq!(parsed.steps(), [true; 5], "{told}");
        assert!(stands(&parsed.trajectory.unwrap()));
        let (pixels, depths) = (parsed.pixels.unwrap(), parsed.depths.unwrap());
        assert!(pixels.iter().flatten().all(|pixel| camera.contains(pixel)), "{pixels:?}");
        assert_eq!(parsed.points.unwrap(), chain::back_projected(&pixels, &depths, &camera), "step 3 is computed");
        assert!(chain::aligned(&chain::back_projected(&pixels, &depths, &camera)).is_ok(), "not on a line");
        let answer = explanation(Mode::AnswerOnly, &camera, true);
        assert!(stands(&chain::parse_poses(&answer).unwrap()));
        assert!(!answer.contains("<step") && !answer.contains("Step 1"), "{answer}");
    }

    #[test]
    fn lengths_are_metres_where_the_data_are_and_nowhere_else() {
        for mode in [Mode::FullChain, Mode::AnswerOnly] {
            let [metric, other] = [true, false].map(|metric| explanation(mode, &camera(), metric));
            assert!(metric.contains("Lengths are metres.") && !metric.contains("scene units"), "{metric}");
            assert!(other.contains("Lengths are scene units") && !other.contains("metre"), "{other}");
        }
    }
}
