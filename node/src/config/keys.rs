//! The keys of the config, each in one place: its type, what it must hold by itself, whether it may be set while the node
//! runs, and what it is. The struct that a file is read into, the parameters that ROS tools see, and the first check are
//! made of this table; what keys owe each other is checked in `validate`.
//!
//! Every key is required and no other key is accepted, so that a file says all that the node does and a typing error
//! cannot be a silent default.

use serde::Deserialize;

use model::answer::budget::Budget;

use super::Error;
use super::choices;
use super::rules::{Check, Holds, Kind, Rule};

/// A key as a parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spec {
    /// `section.name`.
    pub key: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// What it must hold by itself.
    pub rule: Rule,
    /// Whether it may be set while the node runs.
    pub is_live: bool,
    /// What it is, with its unit.
    pub description: &'static str,
}

impl Spec {
    /// The parameter's name: the key, but for the one that every ROS node has without a section.
    #[must_use]
    pub fn name(&self) -> &'static str {
        if self.key == "node.use_sim_time" { "use_sim_time" } else { self.key }
    }

    /// Smallest and largest value of an integer.
    #[must_use]
    pub fn range(&self) -> Option<(i64, i64)> {
        if let Rule::Range(least, most) = self.rule { Some((least, most)) } else { None }
    }
}

/// The key of the parameter of this name.
#[must_use]
pub fn spec(name: &str) -> Option<&'static Spec> {
    TABLE.iter().find(|spec| spec.name() == name)
}

/// `section: Struct { key: type = rule; ... }`; a key that may be set while the node runs has `, live` behind its rule.
macro_rules! keys {
    ($($section:ident: $Section:ident {
        $($(#[doc = $about:literal])+ $key:ident: $type:ty = $rule:expr $(, $live:ident)?;)+
    })+) => {
        /// A file as it is written.
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(super) struct Raw {
            $(pub $section: $Section,)+
        }

        $(
            #[derive(Debug, Deserialize)]
            #[serde(deny_unknown_fields)]
            pub(super) struct $Section {
                $($(#[doc = $about])+ pub $key: $type,)+
            }
        )+

        /// All keys, in the order of config/node.toml.
        pub const TABLE: &[Spec] = &[
            $($(Spec {
                key: concat!(stringify!($section), ".", stringify!($key)),
                kind: <$type as Holds>::KIND,
                rule: $rule,
                is_live: !([$(stringify!($live))?] as [&str; count!($($live)?)]).is_empty(),
                description: concat!($($about),+).trim_ascii(),
            },)+)+
        ];

        impl Raw {
            /// Holds every value against its rule.
            pub(super) fn check(&self, check: &Check<'_>) -> Result<(), Error> {
                $($(check.holds(
                    concat!(stringify!($section), ".", stringify!($key)),
                    &$rule,
                    &self.$section.$key,
                )?;)+)+
                Ok(())
            }
        }
    };
}

macro_rules! count {
    () => {
        0
    };
    ($one:ident) => {
        1
    };
}

const HOUR_MILLIS: i64 = 3_600_000;

keys! {
    node: Node {
        /// ROS node name
        name: String = Rule::NodeName;
        /// ROS namespace
        namespace: String = Rule::Namespace;
        /// What carries the topics
        transport: String = Rule::Choice(choices::TRANSPORT.words);
        /// ROS domain; -1 takes it from ROS_DOMAIN_ID
        domain_id: i64 = Rule::Range(-1, 232);
        /// Stamps reports by the newest image in place of the system's clock
        use_sim_time: bool = Rule::Any, live;
        /// Whether the node configures and activates itself
        autostart: bool = Rule::Any;
    }
    topics: Topics {
        /// Camera topic
        image: String = Rule::Topic;
        /// Type of the camera topic
        image_transport: String = Rule::Choice(choices::IMAGE_TRANSPORT.words);
        /// Reliability asked of the camera
        image_reliability: String = Rule::Choice(choices::IMAGE_RELIABILITY.words);
        /// Images that may wait before the node looks at them
        image_queue_depth: i64 = Rule::Range(1, 1000);
        /// CameraInfo of the same camera
        camera_info: String = Rule::Topic;
        /// Path out: the poses of one window
        trajectory: String = Rule::Topic;
        /// Odometry out: a pose for each image
        odometry: String = Rule::Topic;
        /// PoseStamped out: the same without covariance
        pose: String = Rule::Topic;
        /// DiagnosticStatus out: metres for a unit of the tracks, how sure, and who says so
        scale: String = Rule::Topic;
        /// DiagnosticArray out
        diagnostics: String = Rule::Topic;
        /// String out: the text of each answer
        reasoning: String = Rule::Topic;
        /// DiagnosticStatus out: OK, DEGRADED or LOST, and why
        status: String = Rule::Topic;
    }
    frames: Frames {
        /// frame_id of the odometry
        odom: String = Rule::Frame;
        /// frame_id of the robot's body; empty where the camera's place on it is not known
        base: String = Rule::FrameOrNothing;
        /// Position of the camera in frames.base, metres
        base_from_camera_xyz_metres: Vec<f64> = Rule::Triple;
        /// Orientation of the camera's optical frame in frames.base: roll, pitch, yaw about fixed axes, degrees
        base_from_camera_rpy_degrees: Vec<f64> = Rule::Triple;
    }
    window: Window {
        /// Time between the camera frames that count for windows, ms; 0 where all do
        period_millis: i64 = Rule::Range(0, HOUR_MILLIS);
        /// Camera frames between neighbouring members of a window
        stride: i64 = Rule::Range(1, 1000);
        /// New camera frames between the starts of two windows
        hop: i64 = Rule::Range(1, 1000);
        /// A longer silence between two frames starts the window afresh, ms
        max_gap_millis: i64 = Rule::Range(1, HOUR_MILLIS);
    }
    odometry: Odometry {
        /// What the odometry is made of
        source: String = Rule::Choice(choices::ODOMETRY_SOURCE.words);
        /// With source "topic": odometry in, of the program that is followed
        topic: String = Rule::Said("a ROS topic name, or nothing");
        /// Whether its lengths are metres
        topic_metric: bool = Rule::Any;
        /// A motion that nothing tells any more is taken to go on for so long, ms
        most_coast_millis: i64 = Rule::Range(0, HOUR_MILLIS);
    }
    model: Model {
        /// Folder of the weights, relative to the config file; empty for none
        weights: String = Rule::Any;
        /// Folder of a LoRA adapter to put beside them; empty for none
        adapter: String = Rule::Any;
        /// Where the model runs
        device: String = Rule::Device;
        /// How the model is asked for poses
        mode: String = Rule::Choice(choices::MODE.words);
        /// An answer that is longer is cut off; auto is what the longest one of the mode takes with the weights' tokenizer
        max_tokens: Budget = Rule::Said("\"auto\", or a whole number above 0");
        /// Whether the model may only write what follows the grammar of answers
        constrained: bool = Rule::Any;
        /// What the program writes of an answer in place of the model
        fill: String = Rule::Choice(choices::FILL.words);
        /// Whether tokens that the last answer makes likely are read ahead
        speculate: bool = Rule::Any;
    }
    camera: Camera {
        /// Whether the camera topic is as the lens makes it or rectified already (image_rect)
        images: String = Rule::Choice(choices::IMAGES.words);
        /// When the intrinsics below stand in for CameraInfo
        fixed: String = Rule::Choice(choices::FIXED.words);
        /// Columns of the pixel grid that they are for
        width: i64 = Rule::Range(1, 65_535);
        /// Rows of the pixel grid that they are for
        height: i64 = Rule::Range(1, 65_535);
        /// Focal length along the rows, pixels
        fx: f64 = Rule::Said("above 0");
        /// Focal length along the columns, pixels
        fy: f64 = Rule::Said("above 0");
        /// Column of the principal point, pixels
        cx: f64 = Rule::Said("finite");
        /// Row of the principal point, pixels
        cy: f64 = Rule::Said("finite");
    }
    scale: Scale {
        /// Whether the weights' translations are metres
        metric: bool = Rule::Any;
        /// Odometry in, which says what is a metre; empty for none
        odometry_topic: String = Rule::Said("a ROS topic name, or nothing");
        /// Of the camera over the ground, metres; 0 where it is not known
        camera_height_metres: f64 = Rule::AtLeast(0.0);
        /// A window that moves less by that odometry says nothing, metres
        least_motion_metres: f64 = Rule::Positive;
        /// The scale is the median over so many windows
        windows: i64 = Rule::Range(1, 1000);
    }
    sanity: Sanity {
        /// Answers that move further between neighbouring frames are refused, metres
        max_step_metres: f64 = Rule::Positive, live;
        /// Answers that turn further between neighbouring frames are refused, degrees
        max_step_degrees: f64 = Rule::Positive, live;
    }
    trust: Trust {
        /// Typical: poses against the chain's own points, degrees
        procrustes_rotation_degrees: f64 = Rule::Positive, live;
        /// Typical: the same for translations, over the motion
        procrustes_translation: f64 = Rule::Positive, live;
        /// Typical: the chain's pixels to the epipolar lines of the poses, pixels
        epipolar_pixels: f64 = Rule::Positive, live;
        /// Typical: neighbouring windows on the frames they share, degrees
        overlap_rotation_degrees: f64 = Rule::Positive, live;
        /// Typical: the same for translations, over the motion
        overlap_translation: f64 = Rule::Positive, live;
        /// An answer that is further from the tracks in its rotations contradicts them, degrees
        tracks_rotation_degrees: f64 = Rule::Positive, live;
        /// The same of the direction of its motion, degrees
        tracks_direction_degrees: f64 = Rule::Positive, live;
        /// A shorter motion counts as this long, metres
        least_motion_metres: f64 = Rule::Positive, live;
        /// Images of a smaller standard deviation, in grey levels, show nothing
        least_contrast: f64 = Rule::AtLeast(0.0), live;
        /// What five images make that are the same bit for bit
        frozen_images: String = Rule::Choice(choices::FROZEN_IMAGES.words), live;
        /// Up to this multiple of what is typical a window is consistent
        consistent_ratio: f64 = Rule::AtLeast(1.0), live;
        /// Above this multiple it is bad
        bad_ratio: f64 = Rule::Said("trust.consistent_ratio or more"), live;
        /// Above this multiple the node is LOST at once
        gross_ratio: f64 = Rule::Said("trust.bad_ratio or more"), live;
        /// As many bad windows among the last degraded_span are DEGRADED
        degraded_windows: i64 = Rule::Range(1, 1000), live;
        /// Windows that are looked back over; trust.degraded_windows or more
        degraded_span: i64 = Rule::Range(1, 1000), live;
        /// Standard deviations grow at least so much while DEGRADED
        degraded_widening: f64 = Rule::AtLeast(1.0), live;
        /// As many bad windows in a row are LOST
        lost_windows: i64 = Rule::Range(1, 1000), live;
        /// A bad window so long behind the last good one is LOST, ms
        lost_after_millis: i64 = Rule::Range(1, HOUR_MILLIS), live;
        /// As many consistent windows in a row are OK again
        recover_windows: i64 = Rule::Range(1, 1000), live;
    }
    covariance: Covariance {
        /// Standard deviation of each axis, one to four frames from where a window joins the odometry, metres
        position_stddev_metres: Vec<f64> = Rule::Growing, live;
        /// The same about each axis, degrees
        rotation_stddev_degrees: Vec<f64> = Rule::Growing, live;
        /// What a break of the odometry adds, metres
        break_position_stddev_metres: f64 = Rule::Positive, live;
        /// The same about each axis, degrees
        break_rotation_stddev_degrees: f64 = Rule::Positive, live;
    }
    publish: Publish {
        /// The text of each answer, on topics.reasoning
        reasoning: bool = Rule::Any, live;
        /// The odometry as transforms from frames.odom to frames.base, on /tf
        tf: bool = Rule::Any, live;
        /// The camera's place on frames.base, on /tf_static
        static_tf: bool = Rule::Any, live;
    }
    diagnostics: Diagnostics {
        /// Time between two reports, ms
        period_millis: i64 = Rule::Range(1, HOUR_MILLIS), live;
        /// A camera silent for longer is stale, ms
        silent_after_millis: i64 = Rule::Range(1, HOUR_MILLIS), live;
    }
}
