//! What can be told from a picture before any model reads it: that it shows nothing, and that it is one seen before.
//!
//! A driver whose sensor hangs, a lens that is covered, an exposure that runs away: images go on coming in good form, and a
//! model answers for them with poses that look like any other.

use std::hash::{DefaultHasher, Hasher};

use image::RgbImage;

/// Means below the first are black to a person, those above the second white.
const BLACK_BELOW: f64 = 32.0;
const SATURATED_ABOVE: f64 = 224.0;

/// A picture without anything in it.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("image is {name}: expected a contrast of at least {least} grey levels, got {contrast:.2} about {mean:.1}")]
pub struct Blank {
    /// What a person would call it.
    pub name: &'static str,
    /// The least that was asked for.
    pub least: f64,
    /// Standard deviation of its grey levels.
    pub contrast: f64,
    /// Their mean.
    pub mean: f64,
}

/// Holds the contrast of a picture against the least that it must have; 0 lets all pass. A grey level is the mean of red,
/// green and blue, 0 to 255.
///
/// # Errors
///
/// [`Blank`], where it has less.
pub fn check(image: &RgbImage, least: f64) -> Result<(), Blank> {
    let (mut count, mut sum, mut squares) = (0_u64, 0_u64, 0_u64);
    for pixel in image.pixels() {
        let level: u64 = pixel.0.iter().map(|value| u64::from(*value)).sum();
        count += 1;
        sum += level;
        squares += level * level;
    }
    // In sums of three colours: whole numbers, so that a picture of one colour has a deviation of exactly nothing.
    let spread = (u128::from(count) * u128::from(squares)).saturating_sub(u128::from(sum) * u128::from(sum));
    let pixels = count.max(1) as f64;
    let (mean, contrast) = (sum as f64 / pixels / 3.0, (spread as f64).sqrt() / pixels / 3.0);
    if contrast >= least {
        return Ok(());
    }
    let name = match mean {
        mean if mean < BLACK_BELOW => "black",
        mean if mean > SATURATED_ABOVE => "saturated",
        _ => "empty",
    };
    Err(Blank { name, least, contrast, mean })
}

/// Equal for equal pixels, and for no others as far as a camera goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest(u64);

impl Digest {
    /// Of these pixels.
    pub fn of(image: &RgbImage) -> Self {
        let mut hasher = DefaultHasher::new();
        hasher.write(image.as_raw());
        Self(hasher.finish())
    }
}

#[cfg(test)]
mod tests {
    use image::{Rgb, RgbImage};
    use proptest::prelude::*;

    use super::{Digest, check};

    #[test]
    fn what_shows_nothing_is_named_and_a_wall_with_a_shadow_passes() {
        for (level, name) in [(0, "black"), (31, "black"), (128, "empty"), (225, "saturated"), (255, "saturated")] {
            let blank = check(&RgbImage::from_pixel(64, 48, Rgb([level; 3])), 2.0).unwrap_err();
            assert!(blank.to_string().starts_with(&format!("image is {name}: ")), "{level}: {blank}");
            assert!(blank.contrast.abs() < 1e-12 && (blank.mean - f64::from(level)).abs() < 1e-9, "{blank}");
        }
        let noise = |x: u32, y: u32| (x * 7 + y * 13) % 3;
        let covered = RgbImage::from_fn(64, 48, |x, y| Rgb([noise(x, y) as u8; 3]));
        assert_eq!(check(&covered, 2.0).unwrap_err().name, "black", "the noise of a sensor is nothing to see");
        let shadow = RgbImage::from_fn(64, 48, |x, _| Rgb([if x < 32 { 120 } else { 126 }; 3]));
        assert_eq!(check(&shadow, 2.0), Ok(()));
        let black = RgbImage::new(64, 48);
        assert_eq!(check(&black, 0.0), Ok(()), "it can be switched off");
        assert_eq!(check(&RgbImage::new(0, 0), 0.0), Ok(()));
    }

    #[test]
    fn the_contrast_of_two_halves_is_half_their_difference() {
        let halves = RgbImage::from_fn(10, 4, |x, _| Rgb(if x < 5 { [10, 20, 30] } else { [30, 40, 50] }));
        let blank = check(&halves, 10.1).unwrap_err();
        assert!((blank.contrast - 10.0).abs() < 1e-9 && (blank.mean - 30.0).abs() < 1e-9, "{blank}");
        assert_eq!(check(&halves, 9.9), Ok(()));
    }

    proptest! {
        #[test]
        fn one_changed_value_is_another_picture_and_none_is_not(
            bytes in prop::collection::vec(any::<u8>(), 8 * 6 * 3),
            at in 0_usize..8 * 6 * 3,
            by in 1_u8..=255,
        ) {
            let image = RgbImage::from_raw(8, 6, bytes.clone()).unwrap();
            let mut changed = bytes;
            let same = RgbImage::from_raw(8, 6, changed.clone()).unwrap();
            prop_assert_eq!(Digest::of(&image), Digest::of(&same));
            changed[at] = changed[at].wrapping_add(by);
            prop_assert_ne!(Digest::of(&image), Digest::of(&RgbImage::from_raw(8, 6, changed).unwrap()));
        }

        #[test]
        fn light_that_is_added_everywhere_changes_no_contrast(
            bytes in prop::collection::vec(0_u8..200, 8 * 6 * 3),
            light in 0_u8..=55,
        ) {
            let lit = bytes.iter().map(|value| value + light).collect();
            let contrast = |bytes: Vec<u8>| check(&RgbImage::from_raw(8, 6, bytes).unwrap(), 1e3).unwrap_err().contrast;
            prop_assert!((contrast(bytes) - contrast(lit)).abs() < 1e-9);
        }
    }
}
