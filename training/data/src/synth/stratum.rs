//! Kinds of difficulty for judging an odometry: each changes one thing of the default generator.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A kind of difficulty. What a stratum doesn't name is as the default generator draws it, but that the camera moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stratum {
    /// Motion blur: the shutter is open for a third to two thirds of the time between frames, and the hand is quick.
    Blur,
    /// Little light: the mean of frame 0 is 10 to 30 of 255, with noise of 2 to 5 levels.
    Dark,
    /// Sensor noise with a standard deviation of 8 to 20 levels of 255.
    Noise,
    /// Surfaces of weak contrast in nearly one colour, and few things on the walls.
    LowTexture,
    /// Nothing to track: a surface of one colour under even light; only noise and vignetting are seen.
    NoTexture,
    /// One textured plane fills the view in all frames.
    Plane,
    /// The camera turns by 2 to 25 degrees over a window and stays exactly where it is.
    Rotation,
    /// The camera doesn't move at all; only noise and brightness change.
    Still,
    /// Steps of 8 to 20 degrees, or of 15 to 40 % of the median depth, between frames that share half of their view.
    Fast,
    /// Each frame has an exposure of its own: 0.5 to 2 times the camera's.
    Exposure,
    /// The easy control: normal motion among surfaces of strong texture.
    Texture,
}

impl Stratum {
    /// Every stratum.
    pub const ALL: [Self; 11] = [
        Self::Blur,
        Self::Dark,
        Self::Noise,
        Self::LowTexture,
        Self::NoTexture,
        Self::Plane,
        Self::Rotation,
        Self::Still,
        Self::Fast,
        Self::Exposure,
        Self::Texture,
    ];
    /// What an error lists.
    pub(crate) const NAMES: &'static str = "a stratum: blur, dark, noise, low_texture, no_texture, plane, rotation, \
                                            still, fast, exposure or texture";

    /// Its name in the text of a source.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Blur => "blur",
            Self::Dark => "dark",
            Self::Noise => "noise",
            Self::LowTexture => "low_texture",
            Self::NoTexture => "no_texture",
            Self::Plane => "plane",
            Self::Rotation => "rotation",
            Self::Still => "still",
            Self::Fast => "fast",
            Self::Exposure => "exposure",
            Self::Texture => "texture",
        }
    }

    /// What it is, in one line for a report.
    pub const fn definition(self) -> &'static str {
        match self {
            Self::Blur => "motion blur: exposures of a third to two thirds of the time between frames, quick motion",
            Self::Dark => "mean grey level of frame 0 from 10 to 30 of 255, noise of 2 to 5 levels",
            Self::Noise => "sensor noise of 8 to 20 levels of 255 (standard deviation)",
            Self::LowTexture => "surfaces of weak contrast in nearly one colour",
            Self::NoTexture => "one colour under even light: only noise and vignetting",
            Self::Plane => "one textured plane fills the view",
            Self::Rotation => "the camera only turns, by 2 to 25 degrees over a window",
            Self::Still => "the camera doesn't move; noise and flicker",
            Self::Fast => "steps of 8 to 20 degrees or 15 to 40 % of the median depth, half of the view shared",
            Self::Exposure => "each frame has an exposure of its own, 0.5 to 2 times the camera's",
            Self::Texture => "normal motion, surfaces of strong texture",
        }
    }

    /// The stratum of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stratum| stratum.name() == name)
    }
}

impl fmt::Display for Stratum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
