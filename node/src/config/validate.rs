//! Raw file to [`Config`]: ranges, choices and names.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::Duration;

use camera::info::Images;
use camera::optics::{CameraRules, UseFixed};

use super::{
    Ask, CheckRules, Config, Covariance, DiagnosticsConfig, Error, Frozen, ImageRules, ModelConfig, Mount,
    PublishConfig, Sanity, ScaleRules, StatusRules, TrustRules, WindowRules, raw,
};
use geometry::{Intrinsics, Transform, WINDOW};
use model::Mode;
use nalgebra::{Isometry3, Translation3, UnitQuaternion};

use crate::ros::transport::kind::Kind;
use crate::ros::transport::topics::Topics;

/// Frames that a window may span at most: what the buffer holds follows from it.
const MAX_STRIDE: i64 = 1000;
/// Windows that the state of trust may count to.
const MAX_WINDOWS: i64 = 1000;

struct Check<'a> {
    path: &'a Path,
}

impl Check<'_> {
    fn error(&self, key: &'static str, expected: impl Into<String>, got: &dyn Display) -> Error {
        Error::Value { path: self.path.to_owned(), key, expected: expected.into(), got: got.to_string() }
    }

    fn integer<T: TryFrom<i64>>(&self, key: &'static str, value: i64, least: i64, most: i64) -> Result<T, Error> {
        let error = || self.error(key, format!("a whole number from {least} to {most}"), &value);
        if !(least..=most).contains(&value) {
            return Err(error());
        }
        T::try_from(value).map_err(|_| error())
    }

    fn millis(&self, key: &'static str, value: i64) -> Result<Duration, Error> {
        Ok(Duration::from_millis(self.integer(key, value, 1, 3_600_000)?))
    }

    fn positive(&self, key: &'static str, value: f64) -> Result<f64, Error> {
        if value.is_finite() && value > 0.0 {
            Ok(value)
        } else {
            Err(self.error(key, "a finite number above 0", &value))
        }
    }

    fn at_least(&self, key: &'static str, value: f64, least: f64, name: &str) -> Result<f64, Error> {
        if value.is_finite() && value >= least {
            Ok(value)
        } else {
            Err(self.error(key, format!("a finite number, {name} or more"), &value))
        }
    }

    /// One for each frame behind the first: none less than the one before it.
    fn growing(&self, key: &'static str, values: &[f64]) -> Result<[f64; WINDOW - 1], Error> {
        <[f64; WINDOW - 1]>::try_from(values)
            .ok()
            .filter(|all| all.is_sorted() && all[0] > 0.0 && all[WINDOW - 2].is_finite())
            .ok_or_else(|| {
                let expected = format!("{} finite numbers above 0, none less than the one before it", WINDOW - 1);
                self.error(key, expected, &format!("{values:?}"))
            })
    }

    fn triple(&self, key: &'static str, values: &[f64]) -> Result<[f64; 3], Error> {
        let finite = <[f64; 3]>::try_from(values).ok().filter(|all| all.iter().all(|value| value.is_finite()));
        finite.ok_or_else(|| self.error(key, "3 finite numbers", &format!("{values:?}")))
    }

    fn intrinsics(&self, error: &geometry::Error) -> Error {
        match error {
            geometry::Error::Intrinsics { field, expected, got } => {
                let key = match *field {
                    "fx" => "camera.fx",
                    "fy" => "camera.fy",
                    "cx" => "camera.cx",
                    _ => "camera.cy",
                };
                self.error(key, expected.as_str(), got)
            }
            other => self.error("camera", "a pinhole camera", other),
        }
    }

    fn choice<T: Copy>(&self, key: &'static str, value: &str, choices: &[(&str, T)]) -> Result<T, Error> {
        choices.iter().find(|(name, _)| *name == value).map(|&(_, choice)| choice).ok_or_else(|| {
            let names: Vec<String> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
            self.error(key, format!("one of {}", names.join(", ")), &quoted(value))
        })
    }

    fn topic(&self, key: &'static str, value: &str) -> Result<String, Error> {
        let body = value.strip_prefix("~/").or_else(|| value.strip_prefix('/')).unwrap_or(value);
        if body.split('/').all(is_name) {
            Ok(value.to_owned())
        } else {
            Err(self.error(key, "a ROS topic name such as /camera/image_raw", &quoted(value)))
        }
    }

    fn frame_id(&self, key: &'static str, value: &str) -> Result<String, Error> {
        if value.is_empty() || value.starts_with('/') || value.contains(char::is_whitespace) {
            return Err(self.error(key, "a frame name without leading slash or spaces", &quoted(value)));
        }
        Ok(value.to_owned())
    }
}

fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

/// A single segment of a ROS name.
fn is_name(segment: &str) -> bool {
    let mut chars = segment.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Checks everything; `path` is named in errors, and relative paths start at its folder.
pub(super) fn config(raw: raw::Raw, path: &Path) -> Result<Config, Error> {
    let check = Check { path };
    let stride = check.integer("window.stride", raw.window.stride, 1, MAX_STRIDE)?;
    Ok(Config {
        transport: check.choice(
            "node.transport",
            &raw.node.transport,
            &[("ros2-client", Kind::Ros2Client), ("r2r", Kind::R2r)],
        )?,
        topics: topics(&check, &raw.node, &raw.topics, reference_odometry(&check, &raw.scale, &raw.topics)?)?,
        odom_frame: check.frame_id("frames.odom", &raw.frames.odom)?,
        mount: mount(&check, &raw.frames)?,
        window: WindowRules {
            stride,
            hop: check.integer("window.hop", raw.window.hop, 1, MAX_STRIDE)?,
            max_gap: check.millis("window.max_gap_millis", raw.window.max_gap_millis)?,
        },
        model: model(&check, raw.model)?,
        camera: camera(&check, &raw.camera)?,
        scale: scale(&check, &raw.scale)?,
        trust: TrustRules {
            sanity: Sanity {
                max_step_metres: check.positive("sanity.max_step_metres", raw.sanity.max_step_metres)?,
                max_step_radians: check.positive("sanity.max_step_degrees", raw.sanity.max_step_degrees)?.to_radians(),
            },
            checks: checks(&check, &raw.trust)?,
            images: images(&check, &raw.trust)?,
            status: status(&check, &raw.trust)?,
            covariance: covariance(&check, &raw.covariance)?,
        },
        publish: publish(&check, &raw.publish, &raw.frames.base)?,
        diagnostics: DiagnosticsConfig {
            period: check.millis("diagnostics.period_millis", raw.diagnostics.period_millis)?,
            silent_after: check.millis("diagnostics.silent_after_millis", raw.diagnostics.silent_after_millis)?,
        },
        use_sim_time: raw.node.use_sim_time,
        autostart: raw.node.autostart,
    })
}

fn checks(check: &Check<'_>, trust: &raw::Trust) -> Result<CheckRules, Error> {
    Ok(CheckRules {
        procrustes_rotation_deg: check
            .positive("trust.procrustes_rotation_degrees", trust.procrustes_rotation_degrees)?,
        procrustes_translation: check.positive("trust.procrustes_translation", trust.procrustes_translation)?,
        epipolar_px: check.positive("trust.epipolar_pixels", trust.epipolar_pixels)?,
        overlap_rotation_deg: check.positive("trust.overlap_rotation_degrees", trust.overlap_rotation_degrees)?,
        overlap_translation: check.positive("trust.overlap_translation", trust.overlap_translation)?,
        least_motion_metres: check.positive("trust.least_motion_metres", trust.least_motion_metres)?,
    })
}

fn images(check: &Check<'_>, trust: &raw::Trust) -> Result<ImageRules, Error> {
    Ok(ImageRules {
        least_contrast: check.at_least("trust.least_contrast", trust.least_contrast, 0.0, "0")?,
        frozen: check.choice(
            "trust.frozen_images",
            &trust.frozen_images,
            &[("ignored", Frozen::Ignored), ("degraded", Frozen::Degraded), ("withheld", Frozen::Withheld)],
        )?,
    })
}

fn status(check: &Check<'_>, trust: &raw::Trust) -> Result<StatusRules, Error> {
    let consistent_ratio = check.at_least("trust.consistent_ratio", trust.consistent_ratio, 1.0, "1")?;
    let bad_ratio = check.at_least("trust.bad_ratio", trust.bad_ratio, consistent_ratio, "trust.consistent_ratio")?;
    let windows = |key: &'static str, value: i64| -> Result<usize, Error> { check.integer(key, value, 1, MAX_WINDOWS) };
    let degraded_windows = windows("trust.degraded_windows", trust.degraded_windows)?;
    let degraded_span = windows("trust.degraded_span", trust.degraded_span)?;
    if degraded_span < degraded_windows {
        return Err(check.error("trust.degraded_span", "trust.degraded_windows or more", &degraded_span));
    }
    Ok(StatusRules {
        consistent_ratio,
        bad_ratio,
        gross_ratio: check.at_least("trust.gross_ratio", trust.gross_ratio, bad_ratio, "trust.bad_ratio")?,
        degraded_windows,
        degraded_span,
        degraded_widening: check.at_least("trust.degraded_widening", trust.degraded_widening, 1.0, "1")?,
        lost_windows: windows("trust.lost_windows", trust.lost_windows)?,
        lost_after: check.millis("trust.lost_after_millis", trust.lost_after_millis)?,
        recover_windows: windows("trust.recover_windows", trust.recover_windows)?,
    })
}

fn covariance(check: &Check<'_>, covariance: &raw::Covariance) -> Result<Covariance, Error> {
    let rotation = check.growing("covariance.rotation_stddev_degrees", &covariance.rotation_stddev_degrees)?;
    Ok(Covariance {
        position_stddev_metres: check
            .growing("covariance.position_stddev_metres", &covariance.position_stddev_metres)?,
        rotation_stddev_radians: rotation.map(f64::to_radians),
        break_position_stddev_metres: check
            .positive("covariance.break_position_stddev_metres", covariance.break_position_stddev_metres)?,
        break_rotation_stddev_radians: check
            .positive("covariance.break_rotation_stddev_degrees", covariance.break_rotation_stddev_degrees)?
            .to_radians(),
    })
}

/// The topic that gives the scale, where one does.
fn reference_odometry(check: &Check<'_>, scale: &raw::Scale, topics: &raw::Topics) -> Result<Option<String>, Error> {
    let (key, topic) = ("scale.odometry_topic", scale.odometry_topic.as_str());
    if topic.is_empty() {
        return Ok(None);
    }
    if scale.metric {
        return Err(check.error(key, "\"\", since scale.metric is true", &quoted(topic)));
    }
    if topic == topics.odometry {
        return Err(check.error(key, "another odometry than the node's own, topics.odometry", &quoted(topic)));
    }
    check.topic(key, topic).map(Some)
}

/// Where it is not measured, the numbers are checked all the same.
fn scale(check: &Check<'_>, scale: &raw::Scale) -> Result<ScaleRules, Error> {
    let least_motion_metres = check.positive("scale.least_motion_metres", scale.least_motion_metres)?;
    let windows = check.integer("scale.windows", scale.windows, 1, MAX_WINDOWS)?;
    Ok(match (scale.metric, scale.odometry_topic.is_empty()) {
        (true, _) => ScaleRules::Metric,
        (false, true) => ScaleRules::Arbitrary,
        (false, false) => ScaleRules::Measured { least_motion_metres, windows },
    })
}

fn topics(
    check: &Check<'_>,
    node: &raw::Node,
    topics: &raw::Topics,
    reference_odometry: Option<String>,
) -> Result<Topics, Error> {
    if !is_name(&node.name) {
        let expected = "a ROS node name (letters, digits, underscores)";
        return Err(check.error("node.name", expected, &quoted(&node.name)));
    }
    let namespace = &node.namespace;
    if namespace != "/" && !namespace.strip_prefix('/').is_some_and(|body| body.split('/').all(is_name)) {
        return Err(check.error("node.namespace", "\"/\" or a name such as /robot1", &quoted(namespace)));
    }
    let domain: i64 = check.integer("node.domain_id", node.domain_id, -1, 232)?;
    Ok(Topics {
        node_name: node.name.clone(),
        namespace: namespace.clone(),
        domain_id: u16::try_from(domain).ok(),
        image: check.topic("topics.image", &topics.image)?,
        image_compressed: check.choice(
            "topics.image_transport",
            &topics.image_transport,
            &[("raw", false), ("compressed", true)],
        )?,
        image_reliable: check.choice(
            "topics.image_reliability",
            &topics.image_reliability,
            &[("best_effort", false), ("reliable", true)],
        )?,
        image_queue_depth: check.integer("topics.image_queue_depth", topics.image_queue_depth, 1, 1000)?,
        camera_info: check.topic("topics.camera_info", &topics.camera_info)?,
        reference_odometry,
        trajectory: check.topic("topics.trajectory", &topics.trajectory)?,
        odometry: check.topic("topics.odometry", &topics.odometry)?,
        diagnostics: check.topic("topics.diagnostics", &topics.diagnostics)?,
        reasoning: check.topic("topics.reasoning", &topics.reasoning)?,
        status: check.topic("topics.status", &topics.status)?,
        renames: Vec::new(),
        qos: Vec::new(),
    })
}

/// Where `base` is empty, the numbers are checked all the same.
fn mount(check: &Check<'_>, frames: &raw::Frames) -> Result<Option<Mount>, Error> {
    let [x, y, z] = check.triple("frames.base_from_camera_xyz_metres", &frames.base_from_camera_xyz_metres)?;
    let rpy = check.triple("frames.base_from_camera_rpy_degrees", &frames.base_from_camera_rpy_degrees)?;
    if frames.base.is_empty() {
        return Ok(None);
    }
    let [roll, pitch, yaw] = rpy.map(f64::to_radians);
    let rotation = UnitQuaternion::from_euler_angles(roll, pitch, yaw);
    Ok(Some(Mount {
        base: check.frame_id("frames.base", &frames.base)?,
        base_from_camera: Transform::from_isometry(Isometry3::from_parts(Translation3::new(x, y, z), rotation)),
    }))
}

fn publish(check: &Check<'_>, publish: &raw::Publish, base: &str) -> Result<PublishConfig, Error> {
    for (key, is_on) in [("publish.tf", publish.tf), ("publish.static_tf", publish.static_tf)] {
        if is_on && base.is_empty() {
            return Err(check.error(key, "false, since frames.base is empty", &is_on));
        }
    }
    Ok(PublishConfig { reasoning: publish.reasoning, tf: publish.tf, static_tf: publish.static_tf })
}

fn model(check: &Check<'_>, model: raw::Model) -> Result<ModelConfig, Error> {
    if model.weights.is_empty() {
        return Err(check.error("model.weights", "a folder", &quoted("")));
    }
    let device = model.device;
    let is_gpu = |n: &str| n.parse::<u16>().is_ok();
    if device != "cpu" && device != "cuda" && !device.strip_prefix("cuda:").is_some_and(is_gpu) {
        return Err(check.error("model.device", "cpu, cuda or cuda:N", &quoted(&device)));
    }
    let beside = check.path.parent().unwrap_or(Path::new(""));
    Ok(ModelConfig {
        weights: beside.join(PathBuf::from(model.weights)),
        adapter: (!model.adapter.is_empty()).then(|| beside.join(PathBuf::from(model.adapter))),
        device,
        mode: check.choice(
            "model.mode",
            &model.mode,
            &[
                ("full_chain", Ask::Answer(Mode::FullChain)),
                ("answer_only", Ask::Answer(Mode::AnswerOnly)),
                ("pose_head", Ask::PoseHead),
            ],
        )?,
        max_tokens: check.integer("model.max_tokens", model.max_tokens, 1, 1_000_000)?,
        constrained: model.constrained,
    })
}

fn camera(check: &Check<'_>, camera: &raw::Camera) -> Result<CameraRules, Error> {
    let width = check.integer("camera.width", camera.width, 1, 65_535)?;
    let height = check.integer("camera.height", camera.height, 1, 65_535)?;
    let intrinsics = Intrinsics::new(camera.fx, camera.fy, camera.cx, camera.cy, width, height);
    Ok(CameraRules {
        images: check.choice(
            "camera.images",
            &camera.images,
            &[("raw", Images::Raw), ("rectified", Images::Rectified)],
        )?,
        use_fixed: check.choice(
            "camera.fixed",
            &camera.fixed,
            &[
                ("never", UseFixed::Never),
                ("until_camera_info", UseFixed::UntilCameraInfo),
                ("always", UseFixed::Always),
            ],
        )?,
        intrinsics: intrinsics.map_err(|e| check.intrinsics(&e))?,
    })
}
