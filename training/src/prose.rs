//! The words of a chain. Numbers never come from here.

use rand::Rng;
use rand::seq::IndexedRandom;

const STEP_1: &[&str] = &[
    "Pick corners that every frame shows and follow them.",
    "These points have clear texture and stay in view.",
    "Five spread points are matched over all frames.",
    "Follow five marks that no frame hides.",
    "The same five places are found in each frame.",
    "Well spread points are easy to match here.",
];
const STEP_2: &[&str] = &[
    "Depth of each point in each frame.",
    "Read how far each point is from the camera.",
    "Distance along the view axis for every point.",
    "Near things move more and tell their depth.",
    "The depth of the points changes as the camera moves.",
];
const STEP_3: &[&str] = &[
    "Lift the pixels with their depth and the intrinsics.",
    "Back project every point into its camera.",
    "Pixels and depths give points in space.",
    "Each point is depth times the viewing ray.",
];
const STEP_4: &[&str] = &[
    "Align the points of each frame with those of the first.",
    "The rigid motion that maps the first set onto each other set.",
    "Procrustes on the matched points gives the motion.",
    "Solve for rotation and translation by least squares.",
];
/// Endings of step 5, behind words that say how the camera moved.
const STEP_5: &[&str] = &[
    "The poses follow from the inverse motions.",
    "Inverting the motions gives the path.",
    "These are the poses in the first camera.",
    "The path is given in the frame of the first camera.",
];
/// Motion words by axis and sign: x right, y down, z forward.
const MOVES: [[&str; 2]; 3] = [["left", "right"], ["up", "down"], ["back", "forward"]];
const STILL: &str = "The camera hardly moves.";

/// Prose of one chain; `motion` is the last camera's place in the anchor frame, scene units, and `still` below what
/// length it counts as none.
pub fn sample(rng: &mut impl Rng, motion: [f64; 3], still: f64) -> [String; 5] {
    let mut pick = |pool: &[&'static str]| (*pool.choose(rng).unwrap_or(&"")).to_owned();
    let (axis, value) = motion
        .iter()
        .copied()
        .enumerate()
        .fold((0, 0.0f64), |best, (i, v)| if v.abs() > best.1.abs() { (i, v) } else { best });
    let how = if value.abs() < still {
        STILL.to_owned()
    } else {
        format!("The camera moves {}.", MOVES[axis][usize::from(value > 0.0)])
    };
    [pick(STEP_1), pick(STEP_2), pick(STEP_3), pick(STEP_4), format!("{how} {}", pick(STEP_5))]
}

/// Every text that [`sample`] can write, for the vocabulary.
pub fn corpus() -> Vec<String> {
    let moves = MOVES.iter().flatten().map(|m| format!("The camera moves {m}. The"));
    [STEP_1, STEP_2, STEP_3, STEP_4, STEP_5]
        .iter()
        .flat_map(|pool| pool.iter().map(|s| (*s).to_owned()))
        .chain([STILL.to_owned() + " The"])
        .chain(moves)
        .collect()
}
