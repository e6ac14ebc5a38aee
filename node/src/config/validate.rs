//! Raw file to [`Config`]: what keys owe each other, and the types that the rest of the node sees.

use std::path::{Path, PathBuf};
use std::time::Duration;

use camera::optics::CameraRules;

use super::{
    CheckRules, Config, Covariance, DiagnosticsConfig, Error, ImageRules, ModelConfig, Mount, OdometryRules,
    OdometrySource, PublishConfig, Sanity, ScaleRules, StatusRules, TrustRules, WindowRules, choices,
};
use geometry::{Base, Camera, Intrinsics, Transform};
use model::answer::fill::Fill;
use nalgebra::{Isometry3, Translation3, UnitQuaternion, Vector3};
use odometry::fused::CameraHeight;

use super::keys::{self, Raw};
use super::rules::{Check, Rule, quoted};
use crate::ros::transport::error::Error as NameError;
use crate::ros::transport::topics::Topics;

impl Check<'_> {
    fn at_least(&self, key: &'static str, value: f64, least: f64, name: &str) -> Result<f64, Error> {
        if value.is_finite() && value >= least {
            Ok(value)
        } else {
            Err(self.error(key, format!("a finite number, {name} or more"), &value))
        }
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
}

/// A number whose range the table of keys has held it against.
fn whole<T: TryFrom<i64>>(value: i64) -> T {
    T::try_from(value).unwrap_or_else(|_| unreachable!("its range is that of a smaller type"))
}

/// The same of a time.
fn millis(value: i64) -> Duration {
    Duration::from_millis(whole(value))
}

/// A list whose length the table of keys has held it against.
fn list<const N: usize>(values: &[f64]) -> [f64; N] {
    values.try_into().unwrap_or_else(|_| unreachable!("its length was checked"))
}

/// Checks everything; `path` is named in errors, and relative paths start at its folder.
pub(super) fn config(raw: Raw, path: &Path) -> Result<Config, Error> {
    let check = Check { path };
    raw.check(&check)?;
    Ok(Config {
        transport: choices::TRANSPORT.of(&raw.node.transport),
        topics: topics(&check, &raw)?,
        odom_frame: raw.frames.odom.clone(),
        mount: mount(&raw.frames),
        window: WindowRules {
            period: millis(raw.window.period_millis),
            stride: whole(raw.window.stride),
            hop: whole(raw.window.hop),
            max_gap: millis(raw.window.max_gap_millis),
        },
        odometry: odometry(&check, &raw)?,
        scale: scale(&raw),
        model: model(&check, raw.model, &raw.odometry.source)?,
        camera: camera(&check, &raw.camera)?,
        trust: TrustRules {
            sanity: Sanity {
                max_step_metres: raw.sanity.max_step_metres,
                max_step_radians: raw.sanity.max_step_degrees.to_radians(),
            },
            checks: checks(&raw.trust),
            images: images(&raw.trust),
            status: status(&check, &raw.trust)?,
            covariance: covariance(&raw.covariance),
        },
        publish: publish(&check, &raw.publish, &raw.frames.base)?,
        diagnostics: DiagnosticsConfig {
            period: millis(raw.diagnostics.period_millis),
            silent_after: millis(raw.diagnostics.silent_after_millis),
        },
        use_sim_time: raw.node.use_sim_time,
        autostart: raw.node.autostart,
    })
}

fn checks(trust: &keys::Trust) -> CheckRules {
    CheckRules {
        procrustes_rotation_deg: trust.procrustes_rotation_degrees,
        procrustes_translation: trust.procrustes_translation,
        epipolar_px: trust.epipolar_pixels,
        overlap_rotation_deg: trust.overlap_rotation_degrees,
        overlap_translation: trust.overlap_translation,
        tracks_rotation_deg: trust.tracks_rotation_degrees,
        tracks_direction_deg: trust.tracks_direction_degrees,
        least_motion_metres: trust.least_motion_metres,
    }
}

fn images(trust: &keys::Trust) -> ImageRules {
    let frozen = choices::FROZEN_IMAGES.of(&trust.frozen_images);
    ImageRules { least_contrast: trust.least_contrast, frozen }
}

fn status(check: &Check<'_>, trust: &keys::Trust) -> Result<StatusRules, Error> {
    let bad_ratio =
        check.at_least("trust.bad_ratio", trust.bad_ratio, trust.consistent_ratio, "trust.consistent_ratio")?;
    if trust.degraded_span < trust.degraded_windows {
        return Err(check.error("trust.degraded_span", "trust.degraded_windows or more", &trust.degraded_span));
    }
    Ok(StatusRules {
        consistent_ratio: trust.consistent_ratio,
        bad_ratio,
        gross_ratio: check.at_least("trust.gross_ratio", trust.gross_ratio, bad_ratio, "trust.bad_ratio")?,
        degraded_windows: whole(trust.degraded_windows),
        degraded_span: whole(trust.degraded_span),
        degraded_widening: trust.degraded_widening,
        lost_windows: whole(trust.lost_windows),
        lost_after: millis(trust.lost_after_millis),
        recover_windows: whole(trust.recover_windows),
    })
}

fn covariance(covariance: &keys::Covariance) -> Covariance {
    Covariance {
        position_stddev_metres: list(&covariance.position_stddev_metres),
        rotation_stddev_radians: list(&covariance.rotation_stddev_degrees).map(f64::to_radians),
        break_position_stddev_metres: covariance.break_position_stddev_metres,
        break_rotation_stddev_radians: covariance.break_rotation_stddev_degrees.to_radians(),
    }
}

/// What the odometry is made of.
fn source(odometry: &keys::Odometry) -> OdometrySource {
    choices::ODOMETRY_SOURCE.of(&odometry.source)
}

/// The topic that gives the scale, where one does.
fn reference_odometry(check: &Check<'_>, Raw { scale, odometry, .. }: &Raw) -> Result<Option<String>, Error> {
    let (key, topic) = ("scale.odometry_topic", scale.odometry_topic.as_str());
    if topic.is_empty() {
        return Ok(None);
    }
    if scale.metric && source(odometry) == OdometrySource::Model {
        let expected = "\"\", since scale.metric is true and odometry.source \"model\"";
        return Err(check.error(key, expected, &quoted(topic)));
    }
    check.holds(key, &Rule::Topic, &scale.odometry_topic)?;
    Ok(Some(topic.to_owned()))
}

/// The topic of the program that is followed, where one is.
fn followed_odometry(check: &Check<'_>, Raw { scale, odometry, .. }: &Raw) -> Result<Option<String>, Error> {
    let (key, topic) = ("odometry.topic", odometry.topic.as_str());
    if source(odometry) != OdometrySource::Topic {
        return Ok(None);
    }
    if topic.is_empty() {
        return Err(check.error(key, "a topic, since odometry.source is \"topic\"", &quoted(topic)));
    }
    if topic == scale.odometry_topic {
        let expected =
            "another odometry than scale.odometry_topic; where it has metres itself, odometry.topic_metric says so";
        return Err(check.error(key, expected, &quoted(topic)));
    }
    check.holds(key, &Rule::Topic, &odometry.topic)?;
    Ok(Some(topic.to_owned()))
}

/// What a window's translations are multiplied by. Tracks have a scale of their own.
fn scale(Raw { scale, odometry, .. }: &Raw) -> ScaleRules {
    match (scale.metric, scale.odometry_topic.is_empty() || source(odometry) != OdometrySource::Model) {
        (true, _) => ScaleRules::Metric,
        (false, true) => ScaleRules::Arbitrary,
        (false, false) => {
            ScaleRules::Measured { least_motion_metres: scale.least_motion_metres, windows: whole(scale.windows) }
        }
    }
}

fn odometry(check: &Check<'_>, Raw { odometry, scale, model, frames, .. }: &Raw) -> Result<OdometryRules, Error> {
    let source = source(odometry);
    if source == OdometrySource::Model && model.weights.is_empty() {
        return Err(check.error("model.weights", "a folder, since odometry.source is \"model\"", &quoted("")));
    }
    let has_points = matches!(source, OdometrySource::Fused | OdometrySource::Tracks);
    if !has_points && scale.camera_height_metres > 0.0 {
        let expected = format!("0, since odometry.source is {:?}, which has no points on the ground", odometry.source);
        return Err(check.error("scale.camera_height_metres", &expected, &scale.camera_height_metres));
    }
    Ok(OdometryRules {
        source,
        most_coast: millis(odometry.most_coast_millis),
        camera_height: (scale.camera_height_metres > 0.0).then(|| CameraHeight {
            metres: scale.camera_height_metres,
            down: base_from_camera(frames).rotation().inverse() * -Vector3::z_axis(),
        }),
        least_motion_metres: scale.least_motion_metres,
        is_model_metric: scale.metric && matches!(source, OdometrySource::Fused | OdometrySource::Topic),
        is_topic_metric: odometry.topic_metric,
    })
}

fn topics(check: &Check<'_>, raw: &Raw) -> Result<Topics, Error> {
    let (node, topics) = (&raw.node, &raw.topics);
    let named = Topics {
        node_name: node.name.clone(),
        namespace: node.namespace.clone(),
        domain_id: u16::try_from(node.domain_id).ok(),
        image: topics.image.clone(),
        image_compressed: choices::IMAGE_TRANSPORT.of(&topics.image_transport),
        image_reliable: choices::IMAGE_RELIABILITY.of(&topics.image_reliability),
        image_queue_depth: whole(topics.image_queue_depth),
        camera_info: topics.camera_info.clone(),
        reference_odometry: reference_odometry(check, raw)?,
        followed_odometry: followed_odometry(check, raw)?,
        trajectory: topics.trajectory.clone(),
        odometry: topics.odometry.clone(),
        pose: topics.pose.clone(),
        scale: topics.scale.clone(),
        diagnostics: topics.diagnostics.clone(),
        reasoning: topics.reasoning.clone(),
        status: topics.status.clone(),
        renames: Vec::new(),
        qos: Vec::new(),
    };
    match named.refuse_own_odometry() {
        Err(NameError::OwnOdometry { key, topic, own }) => {
            let expected = format!("another odometry than the node's own, {own} (topics.odometry)");
            Err(check.error(key, expected, &quoted(&topic)))
        }
        // Other faults of names the transport tells, which knows the names of the command line too.
        _ => Ok(named),
    }
}

fn mount(frames: &keys::Frames) -> Option<Mount> {
    (!frames.base.is_empty()).then(|| Mount { base: frames.base.clone(), base_from_camera: base_from_camera(frames) })
}

/// Whether the body has a name or not.
fn base_from_camera(frames: &keys::Frames) -> Transform<Base, Camera> {
    let [x, y, z] = list(&frames.base_from_camera_xyz_metres);
    let [roll, pitch, yaw] = list(&frames.base_from_camera_rpy_degrees).map(f64::to_radians);
    let rotation = UnitQuaternion::from_euler_angles(roll, pitch, yaw);
    Transform::from_isometry_unchecked(Isometry3::from_parts(Translation3::new(x, y, z), rotation))
}

fn publish(check: &Check<'_>, publish: &keys::Publish, base: &str) -> Result<PublishConfig, Error> {
    for (key, is_on) in [("publish.tf", publish.tf), ("publish.static_tf", publish.static_tf)] {
        if is_on && base.is_empty() {
            return Err(check.error(key, "false, since frames.base is empty", &is_on));
        }
    }
    Ok(PublishConfig { reasoning: publish.reasoning, tf: publish.tf, static_tf: publish.static_tf })
}

fn model(check: &Check<'_>, model: keys::Model, source: &str) -> Result<Option<ModelConfig>, Error> {
    let beside = check.path.parent().unwrap_or(Path::new(""));
    if choices::FILL.of(&model.fill) == Fill::Measured {
        // Nothing is measured elsewhere, and nothing else has a place for it.
        for (key, expected, got) in
            [("model.mode", "full_chain", model.mode.as_str()), ("odometry.source", "fused", source)]
        {
            if got != expected {
                return Err(check.error(key, format!("{expected}, since model.fill is measured"), &quoted(got)));
            }
        }
    }
    Ok((!model.weights.is_empty()).then(|| ModelConfig {
        weights: beside.join(PathBuf::from(model.weights)),
        adapter: (!model.adapter.is_empty()).then(|| beside.join(PathBuf::from(model.adapter))),
        device: model.device,
        mode: choices::MODE.of(&model.mode),
        max_tokens: model.max_tokens,
        constrained: model.constrained,
        fill: choices::FILL.of(&model.fill),
        speculate: model.speculate,
    }))
}

fn camera(check: &Check<'_>, camera: &keys::Camera) -> Result<CameraRules, Error> {
    let (width, height) = (whole(camera.width), whole(camera.height));
    let intrinsics = Intrinsics::new(camera.fx, camera.fy, camera.cx, camera.cy, width, height);
    Ok(CameraRules {
        images: choices::IMAGES.of(&camera.images),
        use_fixed: choices::FIXED.of(&camera.fixed),
        intrinsics: intrinsics.map_err(|e| check.intrinsics(&e))?,
    })
}
