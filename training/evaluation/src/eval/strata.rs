//! Kinds of windows, from the ground truth and the pixels alone: where an estimator is good, and where it is not.
//!
//! Each window has one label of each group (texture, sharpness, parallax, motion), so that a group adds up to all
//! windows. Thresholds are fixed: a stratum means the same on every data set.

use geometry::{WINDOW, WindowErrors};
use image::RgbImage;
use nalgebra::Point2;

use super::Outcome;
use training_data::WindowSample;
use training_data::synth::Stratum;

/// Longest side, pixels, that images are made smaller to before their texture is measured: noise is averaged away, and
/// cameras of different sizes compare.
const TEXTURE_SIDE: u32 = 160;
/// Mean length of the grey image's gradient, grey levels of 255 a pixel, below which a window has low texture. The
/// recorded frames at hand (a kitchen, a box, a fox, six RealEstate10K clips) have 5.9 to 21, synthetic rooms of plain
/// walls 2 to 5.
const LOW_TEXTURE: f64 = 6.0;
/// Longest side, pixels, that images are made smaller to before their sharpness is measured.
const BLUR_SIDE: u32 = 320;
/// Variance of the Laplacian, squared grey levels of 255, below which a frame is blurred (or shows too little to
/// tell). The customary 100: the recorded frames at hand have 136 and more, and 21 at most once blurred by a Gaussian
/// of 2 pixels.
const BLURRED: f64 = 100.0;
/// Longest side, pixels, of the image that parallaxes are given for.
const PARALLAX_SIDE: f64 = 640.0;
/// Pixels along the longest side at which parallax is measured.
const PARALLAX_SAMPLES: u32 = 32;
/// Parallax, pixels, below which it is low: there, a match that is one pixel off turns the direction of translation
/// by more than the 15 degrees up to which one counts as found (1 / tan 15 deg).
const LOW_PARALLAX: f64 = 3.7;
/// Parallax, pixels, from which it is high: a match that is one pixel off turns the direction by 5 degrees at most, the
/// threshold of AUC@5 (1 / tan 5 deg).
const HIGH_PARALLAX: f64 = 11.4;
/// Rotation from frame 0, degrees, up to which a camera that stays where it is counts as nearly still: what a hand that
/// tries to hold it does.
const STILL_ROTATION_DEG: f64 = 1.0;

/// Every label with its definition, group after group.
pub(super) fn definitions() -> [(&'static str, String); 11] {
    let texture = format!("mean gradient of the grey image at {TEXTURE_SIDE} px");
    let laplacian = format!("variance of the Laplacian at {BLUR_SIDE} px");
    let parallax = format!("median displacement but rotation's, at {PARALLAX_SIDE} px");
    let unmoved = "no frame is farther from frame 0 than the still threshold of TDE";
    [
        ("texture_low", format!("{texture} below {LOW_TEXTURE}")),
        ("texture_high", format!("{texture} from {LOW_TEXTURE}")),
        ("blur", format!("{laplacian} below {BLURRED} in a frame")),
        ("sharp", format!("{laplacian} from {BLURRED} in all frames")),
        ("parallax_low", format!("{parallax}, below {LOW_PARALLAX} px")),
        ("parallax_medium", format!("{parallax}, {LOW_PARALLAX} to {HIGH_PARALLAX} px")),
        ("parallax_high", format!("{parallax}, from {HIGH_PARALLAX} px")),
        ("parallax_unknown", "no depth is known".to_owned()),
        ("moving", "a frame is farther from frame 0 than the still threshold of TDE".to_owned()),
        ("rotation_only", format!("{unmoved}, rotation above {STILL_ROTATION_DEG} deg")),
        ("near_still", format!("{unmoved}, rotation up to {STILL_ROTATION_DEG} deg")),
    ]
}

/// The label of windows of a stratum of the generator, which is apart from that of the same word above.
pub(super) fn synth_label(stratum: Stratum) -> String {
    format!("synth:{stratum}")
}

/// Windows that have something in common.
pub(super) struct Members {
    pub name: String,
    pub definition: String,
    /// Their places in the list, rising; at least one.
    pub members: Vec<usize>,
}

/// Every stratum that has a window, in the order of [`definitions`], then those of the generator.
pub(super) fn grouped(outcomes: &[Outcome]) -> Vec<Members> {
    let places = |holds: &dyn Fn(&Outcome) -> bool| -> Vec<usize> {
        outcomes.iter().enumerate().filter(|(_, outcome)| holds(outcome)).map(|(k, _)| k).collect()
    };
    let own = definitions().into_iter().map(|(name, definition)| {
        let members = places(&|outcome| outcome.strata.contains(&name));
        Members { name: name.to_owned(), definition, members }
    });
    let synth = Stratum::ALL.into_iter().map(|stratum| {
        let members = places(&|outcome| outcome.synth == Some(stratum));
        Members { name: synth_label(stratum), definition: stratum.definition().to_owned(), members }
    });
    own.chain(synth).filter(|group| !group.members.is_empty()).collect()
}

/// The labels of a window; `still` are the errors of a camera that never moves.
pub(super) fn labels(sample: &WindowSample, still: &WindowErrors) -> Vec<&'static str> {
    let gradients = sample.images.iter().map(|image| Grey::new(image, TEXTURE_SIDE).mean_gradient());
    let texture = gradients.sum::<f64>() / WINDOW as f64;
    let laplacians = sample.images.iter().map(|image| Grey::new(image, BLUR_SIDE).laplacian_variance());
    let sharpness = laplacians.fold(f64::INFINITY, f64::min);
    let rotation = still.pairs[..WINDOW - 1].iter().map(|pair| pair.rre_deg).fold(0.0, f64::max);
    vec![
        if texture < LOW_TEXTURE { "texture_low" } else { "texture_high" },
        if sharpness < BLURRED { "blur" } else { "sharp" },
        match parallax(sample) {
            None => "parallax_unknown",
            Some(pixels) if pixels < LOW_PARALLAX => "parallax_low",
            Some(pixels) if pixels < HIGH_PARALLAX => "parallax_medium",
            Some(_) => "parallax_high",
        },
        match still.is_still() {
            false => "moving",
            true if rotation > STILL_ROTATION_DEG => "rotation_only",
            true => "near_still",
        },
    ]
}

/// The largest over frames 1 to 4 of the median distance between where a point of frame 0 is seen and where it would
/// be had the camera only turned, pixels of an image of [`PARALLAX_SIDE`]. Points have their own depth, or the median
/// depth where only that is known; `None` where neither is.
fn parallax(sample: &WindowSample) -> Option<f64> {
    let camera = &sample.intrinsics;
    let side = camera.width.max(camera.height);
    let step = (side / PARALLAX_SAMPLES).max(1) as usize;
    let depth = |x: u32, y: u32| {
        let depth = match &sample.depth {
            Some(maps) => f64::from(*maps[0].get(y as usize * camera.width as usize + x as usize)?),
            None => sample.median_depth?,
        };
        (depth.is_finite() && depth > 0.0).then_some(depth)
    };
    let mut points = Vec::new();
    for y in (0..camera.height).step_by(step) {
        for x in (0..camera.width).step_by(step) {
            let pixel = Point2::new(f64::from(x), f64::from(y));
            points.extend(depth(x, y).map(|depth| camera.back_project(&pixel, depth)));
        }
    }
    let displacements = sample.ground_truth.anchor_from_camera()[1..].iter().filter_map(|anchor_from_camera| {
        let camera_from_anchor = anchor_from_camera.inverse();
        let turn = camera_from_anchor.rotation();
        let mut moved: Vec<f64> = points
            .iter()
            .filter_map(|point_in_anchor| {
                let seen = camera.project(&camera_from_anchor.transform_point(point_in_anchor))?;
                let turned = camera.project(&turn.transform_point(point_in_anchor))?;
                Some((seen - turned).norm())
            })
            .collect();
        let middle = moved.len() / 2;
        (!moved.is_empty()).then(|| *moved.select_nth_unstable_by(middle, f64::total_cmp).1)
    });
    Some(displacements.reduce(f64::max)? * PARALLAX_SIDE / f64::from(side))
}

/// A grey image, 0 to 255, row-major.
struct Grey {
    values: Vec<f64>,
    width: usize,
    height: usize,
}

impl Grey {
    /// Of an image, made smaller (by averaging) where its longest side is over `side` pixels.
    fn new(image: &RgbImage, side: u32) -> Self {
        let (width, height) = image.dimensions();
        let longest = width.max(height);
        let smaller = (longest > side).then(|| {
            let fit = |length: u32| (f64::from(length) * f64::from(side) / f64::from(longest)).round().max(1.0) as u32;
            image::imageops::thumbnail(image, fit(width), fit(height))
        });
        let image = smaller.as_ref().unwrap_or(image);
        // ITU-R BT.601.
        let grey = |p: &image::Rgb<u8>| 0.299 * f64::from(p[0]) + 0.587 * f64::from(p[1]) + 0.114 * f64::from(p[2]);
        Self {
            values: image.pixels().map(grey).collect(),
            width: image.width() as usize,
            height: image.height() as usize,
        }
    }

    /// Mean of `of(centre, left, right, above, below)` over all pixels but those on the border; 0 where there are none.
    fn mean(&self, of: impl Fn([f64; 5]) -> f64) -> f64 {
        let (mut sum, mut count) = (0.0, 0usize);
        for y in 1..self.height.saturating_sub(1) {
            for x in 1..self.width.saturating_sub(1) {
                let at = |dx: usize, dy: usize| self.values[(y + dy - 1) * self.width + x + dx - 1];
                sum += of([at(1, 1), at(0, 1), at(2, 1), at(1, 0), at(1, 2)]);
                count += 1;
            }
        }
        sum / count.max(1) as f64
    }

    fn mean_gradient(&self) -> f64 {
        self.mean(|[_, left, right, above, below]| (right - left).hypot(below - above) / 2.0)
    }

    fn laplacian_variance(&self) -> f64 {
        let laplacian = |[centre, left, right, above, below]: [f64; 5]| left + right + above + below - 4.0 * centre;
        let mean = self.mean(laplacian);
        self.mean(|around| (laplacian(around) - mean).powi(2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use geometry::{Intrinsics, SceneScale, Transform, WindowTrajectory};
    use image::Rgb;
    use nalgebra::{Isometry3, Vector3};
    use training_data::parse_source;

    fn sample(index: u64) -> WindowSample {
        parse_source("synth:seed=5,windows=6,size=320x240").unwrap().sample(index).unwrap()
    }

    fn of(sample: &WindowSample) -> Vec<&'static str> {
        let scale = SceneScale { metric: sample.metric, median_depth: sample.median_depth };
        labels(sample, &WindowErrors::new(&sample.ground_truth, &WindowTrajectory::identity(), scale))
    }

    fn moved(t: [f64; 3], r: [f64; 3]) -> WindowTrajectory {
        WindowTrajectory::from_later(std::array::from_fn(|k| {
            let share = (k + 1) as f64 / (WINDOW - 1) as f64;
            let motion = Isometry3::new(Vector3::from(t) * share, Vector3::from(r) * share);
            Transform::from_isometry_unchecked(motion)
        }))
    }

    #[test]
    fn every_window_has_one_label_of_each_group_and_every_label_a_definition() {
        let names = definitions().map(|(name, _)| name);
        let groups = [&names[..2], &names[2..4], &names[4..8], &names[8..]];
        for index in 0..6 {
            let labels = of(&sample(index));
            for group in groups {
                assert_eq!(labels.iter().filter(|label| group.contains(label)).count(), 1, "{labels:?} {group:?}");
            }
        }
    }

    #[test]
    fn parallax_is_what_translation_moves_and_rotation_is_not() {
        let mut sample = sample(0);
        sample.depth = None;
        sample.median_depth = Some(2.0);
        let focal = 300.0;
        sample.intrinsics = Intrinsics::new(focal, focal, 159.5, 119.5, 320, 240).unwrap();
        // Sideways in front of a wall, turning on the way does not matter: f t / Z in the last frame.
        for turn in [0.0, 0.1] {
            sample.ground_truth = moved([0.1, 0.0, 0.0], [0.0, 0.0, turn]);
            let expected = focal * 0.1 / 2.0 * PARALLAX_SIDE / 320.0;
            assert!((parallax(&sample).unwrap() - expected).abs() < 1e-6 * expected, "{expected}");
        }
        sample.ground_truth = moved([0.0; 3], [0.05, 0.3, 0.0]);
        assert!(parallax(&sample).unwrap() < 1e-9);
        // Depths of the pixels come before the median: twice as far, half as much.
        sample.depth = Some(std::array::from_fn(|_| vec![4.0; 320 * 240]));
        sample.ground_truth = moved([0.1, 0.0, 0.0], [0.0; 3]);
        let half = focal * 0.1 / 4.0 * PARALLAX_SIDE / 320.0;
        assert!((parallax(&sample).unwrap() - half).abs() < 1e-6 * half);
        sample.depth = Some(std::array::from_fn(|_| vec![0.0; 320 * 240]));
        assert_eq!(parallax(&sample), None, "no pixel has a depth");
        (sample.depth, sample.median_depth) = (None, None);
        assert!(of(&sample).contains(&"parallax_unknown"));
    }

    #[test]
    fn motions_are_told_apart() {
        let mut sample = sample(0);
        (sample.metric, sample.depth, sample.median_depth) = (true, None, Some(1.0));
        for (t, r, label) in [
            ([0.009, 0.0, 0.0], [0.0, 0.0, 0.01], "near_still"),
            ([0.009, 0.0, 0.0], [0.0, 0.02, 0.0], "rotation_only"),
            ([0.011, 0.0, 0.0], [0.0, 0.0, 0.0], "moving"),
            ([0.2, 0.0, 0.0], [0.0, 0.3, 0.0], "moving"),
        ] {
            sample.ground_truth = moved(t, r);
            assert!(of(&sample).contains(&label), "{label}: {:?}", of(&sample));
        }
    }

    #[test]
    fn grey_walls_have_no_texture_and_blurred_boards_are_not_sharp() {
        let mut sample = sample(0);
        sample.images = std::array::from_fn(|_| RgbImage::from_pixel(320, 240, Rgb([90, 120, 30])));
        assert!(of(&sample).contains(&"texture_low") && of(&sample).contains(&"blur"));
        let board = RgbImage::from_fn(320, 240, |x, y| Rgb([if (x / 8 + y / 8) % 2 == 0 { 40 } else { 220 }; 3]));
        sample.images = std::array::from_fn(|_| board.clone());
        assert!(of(&sample).contains(&"texture_high") && of(&sample).contains(&"sharp"), "{:?}", of(&sample));
        // One frame out of focus is enough.
        sample.images[3] = image::imageops::blur(&board, 4.0);
        assert!(of(&sample).contains(&"texture_high") && of(&sample).contains(&"blur"), "{:?}", of(&sample));
    }

    #[test]
    fn measures_of_a_ramp_and_of_a_dot() {
        let ramp = RgbImage::from_fn(20, 10, |x, _| Rgb([3 * x as u8; 3]));
        let ramp = Grey::new(&ramp, TEXTURE_SIDE);
        assert!((ramp.mean_gradient() - 3.0).abs() < 1e-9 && ramp.laplacian_variance() < 1e-9);
        let dot = RgbImage::from_fn(5, 5, |x, y| Rgb([if (x, y) == (2, 2) { 100 } else { 0 }; 3]));
        // Nine pixels: -400 once, 100 four times, 0 four times; their mean is 0.
        let expected = (400.0f64.powi(2) + 4.0 * 100.0f64.powi(2)) / 9.0;
        assert!((Grey::new(&dot, TEXTURE_SIDE).laplacian_variance() - expected).abs() < 1e-6);
        assert!(Grey::new(&RgbImage::new(2, 2), TEXTURE_SIDE).mean_gradient().abs() < 1e-12);
        let large = Grey::new(&RgbImage::new(640, 480), TEXTURE_SIDE);
        assert_eq!((large.width, large.height), (160, 120));
    }
}
