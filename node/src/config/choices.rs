//! The keys that hold one of a few words, each word beside what it stands for: what the table of keys allows is what is made
//! of it.

use camera::info::Images;
use camera::optics::UseFixed;
use model::Mode;
use model::answer::fill::Fill;

use super::{Ask, Frozen, OdometrySource};
use crate::ros::transport::kind::Kind;

/// Words, and what each stands for.
pub(super) struct Choices<T: 'static> {
    /// As a file has them.
    pub words: &'static [&'static str],
    values: &'static [T],
}

impl<T: Copy + 'static> Choices<T> {
    /// What a word stands for that the table of keys has held against these.
    pub fn of(&self, word: &str) -> T {
        let at = self.words.iter().position(|known| *known == word);
        self.values[at.unwrap_or_else(|| unreachable!("the table of keys allows no other word"))]
    }
}

/// `NAME: Type = { word => value, ... };`
macro_rules! choices {
    ($($(#[doc = $about:literal])+ $NAME:ident: $type:ty = { $($word:literal => $value:expr),+ };)+) => {
        $(
            $(#[doc = $about])+
            pub(super) const $NAME: Choices<$type> = Choices { words: &[$($word),+], values: &[$($value),+] };
        )+
    };
}

choices! {
    /// node.transport
    TRANSPORT: Kind = { "ros2-client" => Kind::Ros2Client, "r2r" => Kind::R2r };
    /// topics.image_transport: whether images are compressed
    IMAGE_TRANSPORT: bool = { "raw" => false, "compressed" => true };
    /// topics.image_reliability: whether it is reliable
    IMAGE_RELIABILITY: bool = { "best_effort" => false, "reliable" => true };
    /// odometry.source
    ODOMETRY_SOURCE: OdometrySource = {
        "fused" => OdometrySource::Fused,
        "tracks" => OdometrySource::Tracks,
        "model" => OdometrySource::Model,
        "topic" => OdometrySource::Topic
    };
    /// model.mode
    MODE: Ask = {
        "full_chain" => Ask::Answer(Mode::FullChain),
        "answer_only" => Ask::Answer(Mode::AnswerOnly),
        "pose_head" => Ask::PoseHead
    };
    /// model.fill
    FILL: Fill = { "none" => Fill::None, "arithmetic" => Fill::Arithmetic, "measured" => Fill::Measured };
    /// camera.images
    IMAGES: Images = { "raw" => Images::Raw, "rectified" => Images::Rectified };
    /// camera.fixed
    FIXED: UseFixed = {
        "never" => UseFixed::Never,
        "until_camera_info" => UseFixed::UntilCameraInfo,
        "always" => UseFixed::Always
    };
    /// trust.frozen_images
    FROZEN_IMAGES: Frozen = { "ignored" => Frozen::Ignored, "degraded" => Frozen::Degraded, "withheld" => Frozen::Withheld };
}

#[cfg(test)]
mod tests {
    use super::{ODOMETRY_SOURCE, TRANSPORT};
    use crate::config::OdometrySource;
    use crate::ros::transport::kind::Kind;

    #[test]
    fn a_word_stands_for_the_value_beside_it() {
        assert_eq!(ODOMETRY_SOURCE.words, ["fused", "tracks", "model", "topic"]);
        assert_eq!(ODOMETRY_SOURCE.of("model"), OdometrySource::Model);
        // The words are those by which the transports call themselves.
        for kind in [Kind::Ros2Client, Kind::R2r] {
            assert_eq!(TRANSPORT.of(&kind.to_string()), kind);
        }
    }
}
