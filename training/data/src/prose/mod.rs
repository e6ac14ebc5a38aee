//! The words of a chain. Numbers never come from here.

mod pool;

use rand::Rng;
use rand::seq::IndexedRandom;

/// A component of the translation that is at least this share of the largest is told too.
const ALSO: f64 = 0.5;
/// Moves from how many times [`Motion::still`] on are no longer slight, and are long.
const MOVE_BOUNDS: [f64; 2] = [4.0, 20.0];
/// Radians up to which a turn counts as none.
const STILL_TURN: f64 = 0.01;
/// Turns from how many radians on are no longer slight, and are sharp.
const TURN_BOUNDS: [f64; 2] = [0.05, 0.17];

/// Sizes of a move: slight, neither, long.
const MOVE_SIZES: [&[&str]; 3] = [&["slightly ", "a little "], &[""], &["a long way "]];
/// Sizes of a turn: slight, neither, sharp.
const TURN_SIZES: [&[&str]; 3] = [&["slightly ", "gently ", "a little "], &[""], &["sharply ", "strongly "]];

const LEFT: &[&str] = &["left", "to the left"];
const RIGHT: &[&str] = &["right", "to the right"];
const UP: &[&str] = &["up", "upward"];
const DOWN: &[&str] = &["down", "downward"];
const BACK: &[&str] = &["back", "backward"];
const FORWARD: &[&str] = &["forward", "ahead"];

/// Ways by axis and sign: x right, y down, z forward.
const WAYS: [[&[&str]; 2]; 3] = [[LEFT, RIGHT], [UP, DOWN], [BACK, FORWARD]];
/// Turns by axis: about x the view tilts, about y it turns, about z it rolls.
const TURNS: [Turn; 3] = [
    Turn { turns: &["tilts", "pitches"], turning: &["tilting", "pitching"], sides: [DOWN, UP] },
    Turn { turns: &["turns", "pans", "swings"], turning: &["turning", "panning", "swinging"], sides: [LEFT, RIGHT] },
    Turn { turns: &["rolls"], turning: &["rolling"], sides: [LEFT, RIGHT] },
];

/// What a turn about one axis is called.
struct Turn {
    turns: &'static [&'static str],
    turning: &'static [&'static str],
    /// By sign.
    sides: [&'static [&'static str]; 2],
}

/// How the last camera of a window stands against the first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Motion {
    /// Its place in the anchor frame (x right, y down, z forward), scene units.
    pub translation: [f64; 3],
    /// Rotation vector of its `anchor_from_camera`, radians: +x tilts up, +y turns right, +z rolls right.
    pub rotation: [f64; 3],
    /// Length up to which a translation counts as none, scene units, positive.
    pub still: f64,
}

/// Words of the slots that depend on the motion.
#[derive(Default)]
struct Course {
    /// Where the camera goes and how far; empty where it hardly moves.
    way: Vec<String>,
    /// Where it turns and how much; empty where it hardly turns.
    side: Vec<String>,
    turns: Vec<String>,
    turning: Vec<String>,
}

impl Course {
    fn of(motion: &Motion) -> Self {
        let mut course = Self::default();
        let (axis, length) = largest(&motion.translation);
        if length.abs() > motion.still {
            let size = MOVE_SIZES[size(length, MOVE_BOUNDS.map(|bound| bound * motion.still))];
            let way = by_sign(&WAYS[axis], length);
            let mut others = motion.translation;
            others[axis] = 0.0;
            let (second, part) = largest(&others);
            course.way = if part.abs() < ALSO * length.abs() {
                phrases(&[size, way])
            } else {
                phrases(&[size, &way[..1], &[" and "], &by_sign(&WAYS[second], part)[..1]])
            };
        }
        let (axis, angle) = largest(&motion.rotation);
        if angle.abs() > STILL_TURN {
            let turn = &TURNS[axis];
            course.side = phrases(&[TURN_SIZES[size(angle, TURN_BOUNDS)], by_sign(&turn.sides, angle)]);
            course.turns = phrases(&[turn.turns]);
            course.turning = phrases(&[turn.turning]);
        }
        course
    }

    /// The words of all motions at once, for the vocabulary.
    fn any() -> Self {
        let all = |lists: &[&[&str]]| {
            let words = lists.concat().into_iter().map(str::trim).filter(|word| !word.is_empty());
            words.map(str::to_owned).collect()
        };
        Self {
            way: all(&[MOVE_SIZES.as_slice(), WAYS.as_flattened()].concat()),
            side: all(&[TURN_SIZES.as_slice(), WAYS.as_flattened()].concat()),
            turns: all(&TURNS.map(|turn| turn.turns)),
            turning: all(&TURNS.map(|turn| turn.turning)),
        }
    }

    /// Templates of the sentence that tells it.
    fn templates(&self) -> &'static [&'static str] {
        match (self.way.is_empty(), self.side.is_empty()) {
            (false, false) => pool::MOVE_AND_TURN,
            (false, true) => pool::MOVE,
            (true, false) => pool::TURN,
            (true, true) => pool::STILL,
        }
    }

    /// Words that may fill a slot; none for a name that no slot has.
    fn words(&self, slot: &str) -> Vec<&str> {
        let own = match slot {
            "way" => &self.way,
            "side" => &self.side,
            "turns" => &self.turns,
            "turning" => &self.turning,
            _ => {
                let list = pool::WORDS.iter().find(|(name, _)| *name == slot);
                return list.map(|(_, words)| words.to_vec()).unwrap_or_default();
            }
        };
        own.iter().map(String::as_str).collect()
    }
}

/// The axis of the largest component, and that component.
fn largest(vector: &[f64; 3]) -> (usize, f64) {
    let larger = |best: (usize, f64), (i, v): (usize, f64)| if v.abs() > best.1.abs() { (i, v) } else { best };
    vector.iter().copied().enumerate().fold((0, 0.0), larger)
}

/// How many of the bounds a value reaches.
fn size(value: f64, bounds: [f64; 2]) -> usize {
    bounds.iter().filter(|bound| value.abs() >= **bound).count()
}

fn by_sign<'a>(pair: &[&'a [&'a str]; 2], value: f64) -> &'a [&'a str] {
    pair[usize::from(value > 0.0)]
}

/// One of each list behind one another, in every combination.
fn phrases(parts: &[&[&str]]) -> Vec<String> {
    parts.iter().fold(vec![String::new()], |heads, part| {
        heads.iter().flat_map(|head| part.iter().map(move |tail| format!("{head}{tail}"))).collect()
    })
}

/// Names of a template's slots.
fn slots(template: &str) -> impl Iterator<Item = &str> {
    template.split('{').filter_map(|part| Some(part.split_once('}')?.0))
}

/// A sentence from a template; `choose` says which of so many words a slot gets.
fn fill(template: &str, course: &Course, mut choose: impl FnMut(usize) -> usize) -> String {
    let mut text = String::new();
    for part in template.split('{') {
        let Some((slot, rest)) = part.split_once('}') else {
            text.push_str(part);
            continue;
        };
        let words = course.words(slot);
        text.push_str(words.get(choose(words.len().max(1))).copied().unwrap_or(slot));
        text.push_str(rest);
    }
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    text
}

/// Prose of one chain.
pub fn sample(rng: &mut impl Rng, motion: &Motion) -> [String; 5] {
    let course = Course::of(motion);
    let mut write = |templates: &[&str]| {
        let template = templates.choose(rng).copied().unwrap_or_default();
        fill(template, &course, |n| rng.random_range(0..n))
    };
    let [selection, depth, back_projection, alignment, closing] = pool::STEPS.map(&mut write);
    let how = write(course.templates());
    let summary = if rng.random() { format!("{how} {closing}") } else { format!("{closing} {how}") };
    [selection, depth, back_projection, alignment, summary]
}

/// Texts that hold every word and mark that [`sample`] can write, for the vocabulary: at the beginning of a text, behind
/// a space, and in the case that they have there.
pub fn corpus() -> Vec<String> {
    let course = Course::any();
    let written = |template: &&str| -> Vec<String> {
        let longest = slots(template).map(|slot| course.words(slot).len()).max().unwrap_or(1);
        (0..longest).map(|i| fill(template, &course, |n| i % n)).collect()
    };
    let [lone @ .., closings] = pool::STEPS;
    let in_pairs = [closings, pool::MOVE_AND_TURN, pool::MOVE, pool::TURN, pool::STILL].concat();
    let mut texts: Vec<String> = lone.concat().iter().flat_map(written).collect();
    texts.extend(in_pairs.iter().flat_map(written).flat_map(|text| [format!(" {text}"), text]));
    texts
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use geometry::{Transform, WINDOW, WindowTrajectory};
    use model::answer::chain::{Chain, POINTS, Track, parse, write};
    use model::answer::grammar::{Grammar, MAX_PROSE};
    use model::tokenizer::Tokenizer;
    use nalgebra::{Point2, Point3, UnitQuaternion, Vector3};
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    const NONE: [f64; 3] = [0.0; 3];
    /// Words that tell a direction, each with what it stands for.
    const DIRECTIONS: [(&str, &str); 10] = [
        ("left", "left"),
        ("right", "right"),
        ("up", "up"),
        ("upward", "up"),
        ("down", "down"),
        ("downward", "down"),
        ("back", "back"),
        ("backward", "back"),
        ("forward", "forward"),
        ("ahead", "forward"),
    ];

    fn rng(seed: u64) -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(seed)
    }

    fn motion(translation: [f64; 3], rotation: [f64; 3]) -> Motion {
        Motion { translation, rotation, still: 0.01 }
    }

    /// Each of move and turn, or none.
    fn random_motion(rng: &mut ChaCha8Rng) -> Motion {
        let mut vector = |scales: [f64; 3]| {
            let scale = scales[rng.random_range(0..3)];
            [0; 3].map(|_| scale * rng.random_range(-1.0..1.0f64))
        };
        motion(vector([0.0, 0.03, 0.4]), vector([0.0, 0.06, 0.4]))
    }

    fn words(text: &str) -> Vec<&str> {
        text.split(|c: char| !c.is_ascii_alphabetic()).filter(|word| !word.is_empty()).collect()
    }

    /// The sentence that tells a motion, with several choices of its words.
    fn told(motion: &Motion) -> Vec<String> {
        let (course, mut rng) = (Course::of(motion), rng(0));
        let mut texts = Vec::new();
        for template in course.templates() {
            texts.extend((0..30).map(|_| fill(template, &course, |n| rng.random_range(0..n))));
        }
        texts
    }

    /// Asserts that every telling names these directions and no others.
    fn assert_directions(motion: &Motion, expected: &[&str]) {
        let expected: HashSet<&str> = expected.iter().copied().collect();
        let direction = |word: &str| Some(DIRECTIONS.iter().find(|(name, _)| *name == word)?.1);
        for text in told(motion) {
            let named: HashSet<&str> = words(&text).into_iter().filter_map(direction).collect();
            assert_eq!(named, expected, "{motion:?}: {text}");
        }
    }

    fn assert_well_written(text: &str, sentences: usize) {
        let plain = |c: char| c.is_ascii_alphabetic() || matches!(c, ' ' | ',' | '.');
        assert!(text.chars().all(plain), "{text}");
        assert!(text.len() <= MAX_PROSE, "{text}");
        assert!(!text.contains("  ") && !text.contains(" .") && !text.contains(" ,"), "{text}");
        let each: Vec<&str> = text.strip_suffix('.').expect(text).split(". ").collect();
        assert_eq!(each.len(), sentences, "{text}");
        for sentence in each {
            let words = words(sentence);
            assert!((6..=20).contains(&words.len()), "{sentence}");
            assert!(sentence.starts_with(|c: char| c.is_ascii_uppercase()), "{sentence}");
            for pair in words.windows(2) {
                let vowel = pair[1].starts_with(['a', 'e', 'i', 'o', 'u']);
                let article = match pair[0] {
                    "a" | "A" => !vowel,
                    "an" | "An" => vowel,
                    _ => true,
                };
                assert!(article && pair[0] != pair[1], "{sentence}");
            }
        }
    }

    #[test]
    fn every_step_has_many_templates_whose_slots_are_known() {
        let motions = [pool::MOVE_AND_TURN, pool::MOVE, pool::TURN, pool::STILL];
        assert!(motions.iter().all(|templates| templates.len() >= 10));
        let motions = motions.concat();
        for templates in pool::STEPS.iter().copied().chain([motions.as_slice()]) {
            assert!(templates.iter().collect::<HashSet<_>>().len() >= 40);
            assert_eq!(templates.iter().collect::<HashSet<_>>().len(), templates.len());
            for template in templates {
                let names: Vec<&str> = slots(template).collect();
                assert!(names.iter().all(|name| !Course::any().words(name).is_empty()), "{template}");
                assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len(), "{template}");
                assert!(!template.starts_with("{way}") && !template.starts_with("{side}"), "{template}");
            }
        }
    }

    #[test]
    fn every_step_has_a_thousand_texts() {
        let course = Course::of(&motion(NONE, NONE));
        let texts = |templates: &[&str]| {
            let mut texts = HashSet::new();
            for template in templates {
                let count: usize = slots(template).map(|slot| course.words(slot).len()).product();
                for i in 0..count {
                    let mut rest = i;
                    texts.insert(fill(template, &course, |n| {
                        let digit = rest % n;
                        rest /= n;
                        digit
                    }));
                }
            }
            texts
        };
        let [lone @ .., closings] = pool::STEPS;
        for templates in lone {
            let texts = texts(templates);
            assert!(texts.len() >= 1000, "{}", texts.len());
            texts.iter().for_each(|text| assert_well_written(text, 1));
        }
        // Step 5 has the fewest where there is nothing to tell.
        let (closings, still) = (texts(closings), texts(pool::STILL));
        assert!(2 * closings.len() * still.len() >= 1000);
        closings.iter().chain(&still).for_each(|text| assert_well_written(text, 1));
    }

    #[test]
    fn samples_are_well_written() {
        let mut rng = rng(0);
        for _ in 0..2000 {
            let motion = random_motion(&mut rng);
            let steps = sample(&mut rng, &motion);
            steps[..4].iter().for_each(|text| assert_well_written(text, 1));
            assert_well_written(&steps[4], 2);
        }
    }

    #[test]
    fn the_longest_telling_of_a_motion_is_short_enough() {
        for (rotation, translation) in [([0.0, 0.3, 0.0], [0.5, 0.3, -0.4]), ([0.0, -0.3, 0.0], [-0.5, 0.0, 0.0])] {
            told(&motion(translation, rotation)).iter().for_each(|text| assert_well_written(text, 1));
        }
    }

    #[test]
    fn directions_are_those_of_the_motion() {
        let cases: [([f64; 3], [f64; 3], &[&str]); 18] = [
            ([-0.1, 0.02, 0.01], NONE, &["left"]),
            ([0.1, -0.02, 0.01], NONE, &["right"]),
            ([0.0, -0.1, 0.04], NONE, &["up"]),
            ([0.02, 0.1, 0.0], NONE, &["down"]),
            ([0.0, 0.0, -0.1], NONE, &["back"]),
            ([0.03, 0.0, 0.1], NONE, &["forward"]),
            ([-0.1, 0.0, 0.07], NONE, &["left", "forward"]),
            ([0.12, -0.2, 0.05], NONE, &["up", "right"]),
            (NONE, [0.0, 0.1, 0.0], &["right"]),
            (NONE, [0.02, -0.1, 0.0], &["left"]),
            (NONE, [0.1, 0.0, 0.05], &["up"]),
            (NONE, [-0.1, 0.05, 0.0], &["down"]),
            (NONE, [0.0, 0.0, 0.1], &["right"]),
            (NONE, [0.0, 0.0, -0.1], &["left"]),
            ([0.0, 0.0, 0.3], [0.0, -0.02, 0.0], &["forward", "left"]),
            ([0.0, 0.1, 0.0], [0.3, 0.0, 0.0], &["down", "up"]),
            ([0.009, 0.0, -0.009], [0.0, 0.009, 0.0], &[]),
            (NONE, NONE, &[]),
        ];
        for (translation, rotation, expected) in cases {
            assert_directions(&motion(translation, rotation), expected);
        }
    }

    #[test]
    fn turns_are_told_as_the_view_goes() {
        for axis in 0..3 {
            for angle in [-0.1, 0.1] {
                let mut rotation = NONE;
                rotation[axis] = angle;
                let anchor_from_camera = UnitQuaternion::from_scaled_axis(Vector3::from(rotation));
                // Optical axes: where forward points, and for a roll whether the right side sinks.
                let forward = anchor_from_camera * Vector3::z();
                let right_side = anchor_from_camera * Vector3::x();
                let (verbs, expected): (&[&str], _) = match axis {
                    0 => (&["tilt", "pitch"], if forward.y < 0.0 { "up" } else { "down" }),
                    1 => (&["turn", "pan", "swing"], if forward.x > 0.0 { "right" } else { "left" }),
                    _ => (&["roll"], if right_side.y > 0.0 { "right" } else { "left" }),
                };
                for (translation, ahead) in [(NONE, None), ([0.0, 0.0, 0.2], Some("forward"))] {
                    let motion = motion(translation, rotation);
                    for text in told(&motion) {
                        assert!(verbs.iter().any(|verb| text.to_lowercase().contains(verb)), "{text}");
                    }
                    assert_directions(&motion, &ahead.into_iter().chain([expected]).collect::<Vec<_>>());
                }
            }
        }
    }

    #[test]
    fn sizes_are_told() {
        let sizes = ["slightly", "gently", "little", "long", "sharply", "strongly"];
        let cases: [(f64, f64, &[&str]); 6] = [
            (0.02, 0.0, &["slightly", "little"]),
            (0.1, 0.0, &[]),
            (0.4, 0.0, &["long"]),
            (0.0, 0.03, &["slightly", "gently", "little"]),
            (0.0, 0.1, &[]),
            (0.0, -0.3, &["sharply", "strongly"]),
        ];
        for (length, angle, expected) in cases {
            for text in told(&motion([length, 0.0, 0.0], [0.0, angle, 0.0])) {
                let named: Vec<&str> = words(&text).into_iter().filter(|word| sizes.contains(word)).collect();
                assert_eq!(named.len(), usize::from(!expected.is_empty()), "{text}");
                assert!(named.iter().all(|word| expected.contains(word)), "{text}");
            }
        }
    }

    #[test]
    fn the_motion_is_told_before_or_behind_the_closing() {
        let left = motion([-0.1, 0.0, 0.0], NONE);
        let first = |seed| sample(&mut rng(seed), &left)[4].split_once(". ").unwrap().0.contains("left");
        let told_first = (0..100).filter(|seed| first(*seed)).count();
        assert!((20..=80).contains(&told_first), "{told_first}");
    }

    #[test]
    fn a_seed_gives_one_text() {
        let motion = motion([0.1, 0.2, 0.3], [0.0, 0.1, 0.0]);
        assert_eq!(sample(&mut rng(7), &motion), sample(&mut rng(7), &motion));
        let different: HashSet<[String; 5]> = (0..100).map(|seed| sample(&mut rng(seed), &motion)).collect();
        assert_eq!(different.len(), 100);
    }

    #[test]
    fn prose_comes_back_is_allowed_and_has_a_token_for_every_word() {
        let corpus = corpus();
        let vocabulary = crate::vocabulary::build(corpus.iter().map(String::as_str)).to_string();
        let tokenizer = Tokenizer::new(vocabulary.parse().unwrap()).unwrap();
        let grammar = Grammar::new(&tokenizer, 1 << 13, model::Mode::FullChain).unwrap();
        let track = Track {
            pixels: [Point2::new(12.3, 45.6); WINDOW],
            depths: [1.5; WINDOW],
            points_in_camera: [Point3::new(0.1, 0.2, 1.5); WINDOW],
        };
        let mut rng = rng(1);
        for i in 0..500 {
            let motion = random_motion(&mut rng);
            let chain = Chain {
                prose: sample(&mut rng, &motion),
                tracks: [(); POINTS].map(|()| track.clone()),
                camera_from_anchor: [Transform::identity(); WINDOW - 1],
                trajectory: WindowTrajectory::identity(),
            };
            for text in &chain.prose {
                let pieces = text.split(' ').count() + text.matches([',', '.']).count();
                assert_eq!(tokenizer.encode(text).unwrap().len(), pieces, "{text}");
            }
            let text = write(&chain);
            let parsed = parse(&text);
            assert_eq!(parsed.steps(), [true; 5], "{text}");
            assert_eq!(parsed.summary.as_ref(), Ok(&chain.prose[4]));
            if i < 3 {
                let mut place = grammar.start();
                for id in tokenizer.encode(&text).unwrap() {
                    assert!(grammar.allowed(&place).contains(&id), "{:?} in {text}", tokenizer.token(id));
                    place = grammar.advance(&place, id);
                }
                assert_eq!(*grammar.allowed(&place), [tokenizer.end]);
            }
        }
    }
}
