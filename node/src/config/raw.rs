//! The config file as it is written, before anything is checked. Every key is required and no other key is accepted, so
//! that a file says all that the node does and a typing error cannot be a silent default.

use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    pub node: Node,
    pub topics: Topics,
    pub frames: Frames,
    pub window: Window,
    pub model: Model,
    pub camera: Camera,
    pub scale: Scale,
    pub sanity: Sanity,
    pub trust: Trust,
    pub covariance: Covariance,
    pub publish: Publish,
    pub diagnostics: Diagnostics,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Node {
    pub name: String,
    pub namespace: String,
    pub transport: String,
    pub domain_id: i64,
    pub use_sim_time: bool,
    pub autostart: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Topics {
    pub image: String,
    pub image_transport: String,
    pub image_reliability: String,
    pub image_queue_depth: i64,
    pub camera_info: String,
    pub trajectory: String,
    pub odometry: String,
    pub diagnostics: String,
    pub reasoning: String,
    pub status: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Frames {
    pub odom: String,
    pub base: String,
    pub base_from_camera_xyz_metres: Vec<f64>,
    pub base_from_camera_rpy_degrees: Vec<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Window {
    pub stride: i64,
    pub hop: i64,
    pub max_gap_millis: i64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Model {
    pub weights: String,
    pub adapter: String,
    pub device: String,
    pub mode: String,
    pub max_tokens: i64,
    pub constrained: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Camera {
    pub images: String,
    pub fixed: String,
    pub width: i64,
    pub height: i64,
    pub fx: f64,
    pub fy: f64,
    pub cx: f64,
    pub cy: f64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Scale {
    pub metric: bool,
    pub odometry_topic: String,
    pub least_motion_metres: f64,
    pub windows: i64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sanity {
    pub max_step_metres: f64,
    pub max_step_degrees: f64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Trust {
    pub procrustes_rotation_degrees: f64,
    pub procrustes_translation: f64,
    pub epipolar_pixels: f64,
    pub overlap_rotation_degrees: f64,
    pub overlap_translation: f64,
    pub least_motion_metres: f64,
    pub least_contrast: f64,
    pub frozen_images: String,
    pub consistent_ratio: f64,
    pub bad_ratio: f64,
    pub gross_ratio: f64,
    pub degraded_windows: i64,
    pub degraded_span: i64,
    pub degraded_widening: f64,
    pub lost_windows: i64,
    pub lost_after_millis: i64,
    pub recover_windows: i64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Covariance {
    pub position_stddev_metres: Vec<f64>,
    pub rotation_stddev_degrees: Vec<f64>,
    pub break_position_stddev_metres: f64,
    pub break_rotation_stddev_degrees: f64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Publish {
    pub reasoning: bool,
    pub tf: bool,
    pub static_tf: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Diagnostics {
    pub period_millis: i64,
    pub silent_after_millis: i64,
}
