//! The node's settings: TOML to a raw struct to [`Config`], the only form that the rest of the node sees.
//!
//! Architecture Invariant: whoever holds a [`Config`] need not check it again. Numbers are in range, names are names
//! that ROS takes, and the weights path is absolute or relative to the working directory. Whether the folder exists is
//! not a matter of the config; loading says so.

use std::path::PathBuf;
use std::time::Duration;

use camera::optics::CameraRules;
use geometry::{Base, Camera, Transform, WINDOW};
use model::Mode;
use model::answer::budget::Budget;
use model::answer::fill::Fill;
use odometry::fused::CameraHeight;

use crate::ros::transport::kind::Kind;
use crate::ros::transport::topics::Topics;

mod choices;
pub mod keys;
pub mod rules;
mod sheet;
mod validate;

pub use sheet::Sheet;

/// Why a config cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("config {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It is not TOML, a key is unknown or missing, or a value has the wrong type.
    #[error("config {}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and what, from the TOML reader.
        message: String,
    },
    /// An override does not fit the file.
    #[error("config {}, override `{key}={value}`: {message}", path.display())]
    Override {
        /// The file that it was laid over.
        path: PathBuf,
        /// Dotted key.
        key: String,
        /// The value as given.
        value: String,
        /// What is wrong.
        message: String,
    },
    /// A value is of the right type but cannot be used.
    #[error("config {}: `{key}`: expected {expected}, got {got}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// Dotted key.
        key: &'static str,
        /// What would be right.
        expected: String,
        /// What is there.
        got: String,
    },
}

/// When and how windows are cut from the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowRules {
    /// Time between the frames that count; zero where all do.
    pub period: Duration,
    /// Frames from one member of a window to the next.
    pub stride: u32,
    /// Frames from the start of one window to the start of the next.
    pub hop: u32,
    /// Longest time between neighbouring frames of the stream.
    pub max_gap: Duration,
}

impl WindowRules {
    /// Frames that two neighbouring windows share. Without any, the odometry cannot join them.
    pub fn shared_frames(&self) -> u32 {
        let members = WINDOW as u32;
        if self.hop.is_multiple_of(self.stride) { members.saturating_sub(self.hop / self.stride) } else { 0 }
    }
}

/// How the model is asked for poses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// In words.
    Answer(Mode),
    /// Of the pose head beside its weights, after one pass over the prompt: nothing is written.
    PoseHead,
}

/// What is loaded, where, and how it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelConfig {
    /// Folder of the weights.
    pub weights: PathBuf,
    /// Folder of a LoRA adapter to put beside them.
    pub adapter: Option<PathBuf>,
    /// Where it runs: `cpu`, `cuda` or `cuda:N`.
    pub device: String,
    /// How it is asked.
    pub mode: Ask,
    /// Longest answer.
    pub max_tokens: Budget,
    /// Whether the model may only write what follows the grammar of answers.
    pub constrained: bool,
    /// What the program writes of them.
    pub fill: Fill,
    /// Whether tokens that the last answer makes likely are read ahead.
    pub speculate: bool,
}

/// What the weights' translations are multiplied by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ScaleRules {
    /// Nothing: they are metres.
    Metric,
    /// Nothing, since nobody knows what they are.
    Arbitrary,
    /// What another odometry measures: [`Topics::reference_odometry`].
    Measured {
        /// A window in which that one moves less says nothing.
        least_motion_metres: f64,
        /// Windows of which the median counts.
        windows: usize,
    },
}

/// What the odometry is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OdometrySource {
    /// The tracks, at the camera's rate, with what the model says.
    Fused,
    /// The tracks alone; the model's windows are read and held against them, no more.
    Tracks,
    /// The model's windows, stitched together.
    Model,
    /// Another program's poses: [`Topics::followed_odometry`].
    Topic,
}

/// How the odometry is made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OdometryRules {
    /// Of what.
    pub source: OdometrySource,
    /// How long a motion that nothing tells any more is taken to go on.
    pub most_coast: Duration,
    /// How high the camera is over the ground, where that is known.
    pub camera_height: Option<CameraHeight>,
    /// A way of the other odometry that is shorter says nothing of the scale, metres.
    pub least_motion_metres: f64,
    /// Whether the weights' translations are metres, and give the scale.
    pub is_model_metric: bool,
    /// Whether the poses of [`OdometrySource::Topic`] are metres.
    pub is_topic_metric: bool,
}

/// The bounds beyond which an answer is not believed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sanity {
    /// Between neighbouring frames of a window.
    pub max_step_metres: f64,
    /// Between neighbouring frames of a window.
    pub max_step_radians: f64,
}

/// What the checks of an answer measure in one that can be believed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CheckRules {
    /// Between a printed rotation and Procrustes on the chain's own points.
    pub procrustes_rotation_deg: f64,
    /// Between a printed translation and the same, over the motion.
    pub procrustes_translation: f64,
    /// From the chain's pixels to the epipolar lines of the poses, pixels of the model's grid.
    pub epipolar_px: f64,
    /// Between the orientations that neighbouring windows give a frame.
    pub overlap_rotation_deg: f64,
    /// Between the positions that they give it, over the motion.
    pub overlap_translation: f64,
    /// Between the rotations of an answer and those of the tracks, from which it contradicts them.
    pub tracks_rotation_deg: f64,
    /// The same of the directions of their motions.
    pub tracks_direction_deg: f64,
    /// A shorter motion counts as this long where something is measured over it.
    pub least_motion_metres: f64,
}

/// What images must be for their window to be believed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ImageRules {
    /// Standard deviation of grey levels, 0 to 255, below which an image shows nothing; 0 for none.
    pub least_contrast: f64,
    /// Five that are the same bit for bit.
    pub frozen: Frozen,
}

/// What is made of a window whose images are the same bit for bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frozen {
    /// Nothing.
    Ignored,
    /// The node is DEGRADED.
    Degraded,
    /// Its poses do not come out.
    Withheld,
}

/// What follows from the checks. A ratio is what a check measured over what it measures in an answer that can be
/// believed; the largest of a window counts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StatusRules {
    /// Up to this ratio a window speaks for the node.
    pub consistent_ratio: f64,
    /// Above this one it speaks against it.
    pub bad_ratio: f64,
    /// Above this one it alone says that the node is lost.
    pub gross_ratio: f64,
    /// As many bad windows among the last `degraded_span` are DEGRADED.
    pub degraded_windows: usize,
    /// Windows that are looked back over.
    pub degraded_span: usize,
    /// By which standard deviations are widened at least while DEGRADED.
    pub degraded_widening: f64,
    /// As many bad windows in a row are LOST.
    pub lost_windows: usize,
    /// A bad window so long behind the last good one is LOST.
    pub lost_after: Duration,
    /// As many consistent windows in a row are OK again.
    pub recover_windows: usize,
}

/// Standard deviations of poses, of each axis.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Covariance {
    /// One to four frames from the frame at which a window joins the odometry.
    pub position_stddev_metres: [f64; WINDOW - 1],
    /// The same, about x, y and z.
    pub rotation_stddev_radians: [f64; WINDOW - 1],
    /// What a break of the odometry adds.
    pub break_position_stddev_metres: f64,
    /// The same, about x, y and z.
    pub break_rotation_stddev_radians: f64,
}

/// When an answer is believed, and how far.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrustRules {
    /// What is absurd.
    pub sanity: Sanity,
    /// What is inconsistent.
    pub checks: CheckRules,
    /// What shows nothing.
    pub images: ImageRules,
    /// What follows from it.
    pub status: StatusRules,
    /// What poses claim about themselves.
    pub covariance: Covariance,
}

/// How the camera sits on the robot.
#[derive(Debug, Clone, PartialEq)]
pub struct Mount {
    /// frame_id of the robot's body.
    pub base: String,
    /// From the camera's optical frame to it.
    pub base_from_camera: Transform<Base, Camera>,
}

/// What comes out beside poses and reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublishConfig {
    /// The text of each answer.
    pub reasoning: bool,
    /// The odometry as a transform; needs a [`Mount`].
    pub tf: bool,
    /// The [`Mount`] as a transform.
    pub static_tf: bool,
}

/// Rhythm of the diagnostics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiagnosticsConfig {
    /// Between two reports.
    pub period: Duration,
    /// A camera silent for longer is stale.
    pub silent_after: Duration,
}

/// Everything that the node can be told, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Which transport carries the topics.
    pub transport: Kind,
    /// Names and policies of the topics.
    pub topics: Topics,
    /// frame_id of the odometry.
    pub odom_frame: String,
    /// How the camera sits on the robot, where that is known.
    pub mount: Option<Mount>,
    /// The window buffer's rules.
    pub window: WindowRules,
    /// How the odometry is made.
    pub odometry: OdometryRules,
    /// The model, where there is one.
    pub model: Option<ModelConfig>,
    /// What its images are.
    pub camera: CameraRules,
    /// What the weights' translations are.
    pub scale: ScaleRules,
    /// What is made of answers.
    pub trust: TrustRules,
    /// What comes out beside poses and reports.
    pub publish: PublishConfig,
    /// The reports.
    pub diagnostics: DiagnosticsConfig,
    /// Whether the clock is the images' own, as in a simulation.
    pub use_sim_time: bool,
    /// Whether the node configures and activates itself.
    pub autostart: bool,
}

#[cfg(test)]
mod tests;
