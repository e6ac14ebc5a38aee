use std::path::{Path, PathBuf};
use std::time::Duration;

use camera::info::Images;
use camera::optics::UseFixed;
use model::Mode;
use model::answer::fill::Fill;

use super::keys::{self, TABLE};
use super::rules::{Kind as Holds, Rule};
use super::{Ask, Config, OdometrySource, ScaleRules, Sheet};
use crate::ros::transport::Kind;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn default_text() -> String {
    std::fs::read_to_string(repository().join("config/node.toml")).unwrap()
}

/// The default file with one piece replaced.
fn edited(from: &str, to: &str) -> Result<Config, super::Error> {
    let text = default_text();
    assert!(text.contains(from), "{from} is not in node.toml");
    Config::parse(&text.replace(from, to), Path::new("/etc/ego/node.toml"), &[])
}

fn with(key: &str, value: &str) -> Result<Config, super::Error> {
    Config::parse(&default_text(), Path::new("/etc/ego/node.toml"), &[(key.to_owned(), value.to_owned())])
}

#[test]
fn every_node_config_of_the_repository_is_usable() {
    let mut seen = 0;
    for entry in std::fs::read_dir(repository().join("config")).unwrap() {
        let path = entry.unwrap().path();
        let is_ours = path.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with("node"));
        if is_ours && path.extension().is_some_and(|e| e == "toml") {
            let config = Config::load(&path, &[]).unwrap_or_else(|e| panic!("{e}"));
            assert!(config.model.unwrap().weights.starts_with(path.parent().unwrap()));
            seen += 1;
        }
    }
    assert!(seen >= 1);
}

#[test]
fn paths_start_at_the_config_file() {
    let config = with("model.weights", "weights/nano").unwrap();
    assert_eq!(config.model.unwrap().weights, Path::new("/etc/ego/weights/nano"));
    let config = with("model.weights", "/opt/nano").unwrap();
    assert_eq!(config.model.unwrap().weights, Path::new("/opt/nano"));
}

#[test]
fn overrides_replace_values_and_keep_their_type() {
    assert_eq!(with("window.stride", "3").unwrap().window.stride, 3);
    assert_eq!(with("window.period_millis", "250").unwrap().window.period, Duration::from_millis(250));
    assert_eq!(with("frames.odom", "123").unwrap().odom_frame, "123");
    assert_eq!(with("frames.odom", "\"map\"").unwrap().odom_frame, "map");
    assert_eq!(with("topics.image", "/cam0/image").unwrap().topics.image, "/cam0/image");
    assert_eq!(with("node.transport", "r2r").unwrap().transport, Kind::R2r);
    assert_eq!(with("model.mode", "answer_only").unwrap().model.unwrap().mode, Ask::Answer(Mode::AnswerOnly));
    assert_eq!(with("model.mode", "pose_head").unwrap().model.unwrap().mode, Ask::PoseHead);
    assert_eq!(with("camera.fixed", "always").unwrap().camera.use_fixed, UseFixed::Always);
    assert_eq!(with("camera.images", "rectified").unwrap().camera.images, Images::Rectified);
    assert_eq!(with("camera.fx", "600").unwrap().camera.intrinsics.fx.to_bits(), 600.0f64.to_bits());
    assert_eq!(with("node.domain_id", "-1").unwrap().topics.domain_id, None);
    assert_eq!(with("node.domain_id", "7").unwrap().topics.domain_id, Some(7));
    let sigmas = with("covariance.position_stddev_metres", "[1, 2, 3, 4.5]").unwrap().trust.covariance;
    assert_eq!(sigmas.position_stddev_metres.map(f64::to_bits), [1.0f64, 2.0, 3.0, 4.5].map(f64::to_bits));
}

#[test]
fn errors_name_the_file_the_key_what_was_expected_and_what_came() {
    let rows: Vec<(Result<Config, super::Error>, &[&str])> = vec![
        (edited("stride = 1", "stride = 1\nstrid = 2"), &["/etc/ego/node.toml", "strid", "unknown", "stride"]),
        (edited("hop = 4\n", ""), &["/etc/ego/node.toml", "missing", "hop"]),
        (edited("hop = 4\n", "hop = \"4\"\n"), &["/etc/ego/node.toml", "hop = \"4\"", "string", "expected i64"]),
        (edited("[frames]", "[frame]"), &["/etc/ego/node.toml", "frame", "frames"]),
        (edited("[frames]", "[frames"), &["/etc/ego/node.toml", "frames"]),
        (with("window.strid", "2"), &["window.strid=2", "unknown key `strid`", "stride"]),
        (with("windw.stride", "2"), &["unknown section `windw`", "window"]),
        (with("stride", "2"), &["section.key"]),
        (with("window.stride", "two"), &["window.stride=two", "stride", "string \"two\""]),
        (with("window.stride", "0"), &["`window.stride`", "from 1", "got 0"]),
        (with("window.period_millis", "-1"), &["`window.period_millis`", "from 0", "got -1"]),
        (with("window.max_gap_millis", "-5"), &["`window.max_gap_millis`", "got -5"]),
        (with("node.transport", "zenoh"), &["`node.transport`", "\"ros2-client\", \"r2r\"", "got \"zenoh\""]),
        (with("node.name", "ego reasoner"), &["`node.name`", "got \"ego reasoner\""]),
        (with("node.namespace", "robot"), &["`node.namespace`", "got \"robot\""]),
        (with("node.domain_id", "233"), &["`node.domain_id`", "got 233"]),
        (with("topics.image", "/cam era"), &["`topics.image`", "got \"/cam era\""]),
        (with("topics.image_transport", "theora"), &["`topics.image_transport`", "\"raw\", \"compressed\""]),
        (with("model.device", "tpu"), &["`model.device`", "cpu, cuda or cuda:N", "got \"tpu\""]),
        (with("model.mode", "fast"), &["`model.mode`", "\"answer_only\", \"pose_head\"", "got \"fast\""]),
        (with("model.max_tokens", "0"), &["model.max_tokens=0", "\"auto\" or a whole number above 0"]),
        (with("model.max_tokens", "all"), &["model.max_tokens=all", "\"auto\" or a whole number above 0"]),
        (with("camera.images", "undistorted"), &["`camera.images`", "\"raw\", \"rectified\"", "got \"undistorted\""]),
        (with("camera.fx", "0.0"), &["`camera.fx`", "a focal length from", "got 0"]),
        (with("camera.cx", "nan"), &["`camera.cx`", "NaN"]),
        (with("scale.odometry_topic", "/ego/odometry"), &["`scale.odometry_topic`", "the node's own"]),
        (with("scale.camera_height_metres", "-0.3"), &["`scale.camera_height_metres`", "0 or more", "got -0.3"]),
        (with("odometry.source", "slam"), &["`odometry.source`", "\"fused\", \"tracks\", \"model\"", "got \"slam\""]),
        (with("odometry.most_coast_millis", "-1"), &["`odometry.most_coast_millis`", "got -1"]),
        (with("trust.tracks_direction_degrees", "0"), &["`trust.tracks_direction_degrees`", "above 0"]),
        (with("scale.least_motion_metres", "0"), &["`scale.least_motion_metres`", "above 0"]),
        (with("scale.windows", "0"), &["`scale.windows`", "from 1", "got 0"]),
        (with("sanity.max_step_metres", "inf"), &["`sanity.max_step_metres`", "inf"]),
        (with("covariance.break_position_stddev_metres", "-1.0"), &["`covariance.break_position_stddev_metres`", "-1"]),
        (
            with("covariance.position_stddev_metres", "[0.1, 0.2, 0.3]"),
            &["`covariance.position_stddev_metres`", "4 finite numbers", "got [0.1, 0.2, 0.3]"],
        ),
        (
            edited("[1.1, 2.1, 3.1, 4.0]", "[1.1, 2.1, 3.1, 4.0, 5.0]"),
            &["`covariance.rotation_stddev_degrees`", "4 finite numbers"],
        ),
        (
            with("covariance.position_stddev_metres", "[0.2, 0.1, 0.3, 0.4]"),
            &["`covariance.position_stddev_metres`", "none less", "got [0.2, 0.1, 0.3, 0.4]"],
        ),
        (
            with("covariance.rotation_stddev_degrees", "[0, 1, 2, 3]"),
            &["`covariance.rotation_stddev_degrees`", "above 0"],
        ),
        (
            with("covariance.rotation_stddev_degrees", "[1, 2, 3, inf]"),
            &["`covariance.rotation_stddev_degrees`", "inf"],
        ),
        (
            with("covariance.rotation_stddev_degrees", "[1, nan, 3, 4]"),
            &["`covariance.rotation_stddev_degrees`", "NaN"],
        ),
        (with("trust.epipolar_pixels", "0.0"), &["`trust.epipolar_pixels`", "above 0", "got 0"]),
        (with("trust.least_contrast", "-1.0"), &["`trust.least_contrast`", "0 or more", "got -1"]),
        (with("trust.frozen_images", "lost"), &["`trust.frozen_images`", "\"degraded\"", "got \"lost\""]),
        (with("trust.consistent_ratio", "0.5"), &["`trust.consistent_ratio`", "1 or more", "got 0.5"]),
        (with("trust.bad_ratio", "1.5"), &["`trust.bad_ratio`", "trust.consistent_ratio or more", "got 1.5"]),
        (with("trust.gross_ratio", "3.0"), &["`trust.gross_ratio`", "trust.bad_ratio or more", "got 3"]),
        (with("trust.degraded_span", "1"), &["`trust.degraded_span`", "trust.degraded_windows or more", "got 1"]),
        (with("trust.lost_windows", "0"), &["`trust.lost_windows`", "from 1", "got 0"]),
        (with("trust.lost_after_millis", "0"), &["`trust.lost_after_millis`", "got 0"]),
        (with("frames.odom", "/odom"), &["`frames.odom`", "got \"/odom\""]),
        (with("frames.base", "base link"), &["`frames.base`", "got \"base link\""]),
        (with("frames.base_from_camera_xyz_metres", "[1, 2]"), &["`frames.base_from_camera_xyz_metres`", "3 finite"]),
        (with("frames.base_from_camera_rpy_degrees", "[1, 2, inf]"), &["_rpy_degrees`", "3 finite", "inf"]),
        (with("publish.tf", "true"), &["`publish.tf`", "frames.base is empty", "got true"]),
        (with("publish.static_tf", "true"), &["`publish.static_tf`", "frames.base is empty"]),
    ];
    for (result, wanted) in rows {
        let message = result.err().map(|e| e.to_string()).unwrap_or_else(|| panic!("accepted, but {wanted:?}"));
        for part in wanted {
            assert!(message.contains(part), "`{part}` is not in: {message}");
        }
    }
}

#[test]
fn an_odometry_gives_the_scale_of_weights_that_are_not_metric() {
    let with_topic = |metric: &str, topic: &str| {
        let overrides = [("odometry.source", "model"), ("scale.metric", metric), ("scale.odometry_topic", topic)];
        let overrides = overrides.map(|(k, v)| (k.to_owned(), v.to_owned()));
        Config::parse(&default_text(), Path::new("node.toml"), &overrides).map_err(|e| e.to_string())
    };
    let measured = ScaleRules::Measured { least_motion_metres: 0.05, windows: 10 };
    for (metric, topic, rules) in
        [("true", "", ScaleRules::Metric), ("false", "", ScaleRules::Arbitrary), ("false", "wheels/odometry", measured)]
    {
        let config = with_topic(metric, topic).unwrap();
        assert_eq!(config.scale, rules);
        assert_eq!(config.topics.reference_odometry.as_deref(), Some(topic).filter(|topic| !topic.is_empty()));
    }
    for (topic, wanted) in [("/ego/odometry", "the node's own"), ("/whe els", "a ROS topic name")] {
        let message = with_topic("false", topic).unwrap_err();
        assert!(message.contains("`scale.odometry_topic`") && message.contains(wanted), "{message}");
    }
}

#[test]
fn the_nodes_own_odometry_is_known_by_whatever_name() {
    let parse = |overrides: &[(&str, &str)]| {
        let overrides: Vec<_> = overrides.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Config::parse(&default_text(), Path::new("node.toml"), &overrides).map_err(|e| e.to_string())
    };
    for (own, heard) in [("ego/odometry", "/robot/ego/odometry"), ("~/odometry", "/robot/egoreasoner/odometry")] {
        let message = parse(&[("node.namespace", "/robot"), ("topics.odometry", own), ("scale.odometry_topic", heard)])
            .unwrap_err();
        for part in ["`scale.odometry_topic`", "the node's own", heard] {
            assert!(message.contains(part), "`{part}` is not in: {message}");
        }
    }
    assert!(parse(&[("node.namespace", "/robot"), ("scale.odometry_topic", "/ego/odometry")]).is_ok());
}

#[test]
fn poses_of_two_nodes_under_two_namespaces_come_out_on_topics_of_their_own() {
    let resolved = |namespace: &str| {
        let topics = with("node.namespace", namespace).unwrap().topics.resolved().unwrap();
        [topics.trajectory, topics.odometry, topics.pose, topics.status]
    };
    assert_eq!(resolved("/"), ["/ego/trajectory", "/ego/odometry", "/ego/pose", "/egoreasoner/status"]);
    assert_eq!(
        resolved("/robot1"),
        ["/robot1/ego/trajectory", "/robot1/ego/odometry", "/robot1/ego/pose", "/robot1/egoreasoner/status"]
    );
}

#[test]
fn tracks_may_have_several_sources_of_a_scale_and_the_model_alone_has_one() {
    let parse = |overrides: &[(&str, &str)]| {
        let overrides: Vec<_> = overrides.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Config::parse(&default_text(), Path::new("node.toml"), &overrides).map_err(|e| e.to_string())
    };
    let all = [("scale.odometry_topic", "/wheels"), ("scale.camera_height_metres", "0.4")];
    let config = parse(&all).unwrap();
    assert_eq!((config.odometry.source, config.odometry.is_model_metric), (OdometrySource::Fused, true));
    assert_eq!(config.scale, ScaleRules::Metric, "what the windows are multiplied by is another matter");
    let height = config.odometry.camera_height.unwrap();
    assert!((height.metres - 0.4).abs() < 1e-12);
    assert!(
        (height.down.into_inner() - nalgebra::Vector3::y()).norm() < 1e-9,
        "a camera that looks ahead: {:?}",
        height.down
    );
    assert!(!parse(&[("odometry.source", "tracks")]).unwrap().odometry.is_model_metric, "the model only judges");
    assert_eq!(parse(&[("model.weights", "")]).unwrap().model, None);
    for (overrides, wanted) in [
        ([("odometry.source", "model"), ("model.weights", "")], "`model.weights`: expected a folder"),
        ([("odometry.source", "model"), ("scale.camera_height_metres", "0.4")], "`scale.camera_height_metres`"),
        ([("odometry.source", "model"), ("scale.odometry_topic", "/wheels")], "`scale.odometry_topic`"),
        ([("odometry.source", "wheels"), ("scale.metric", "true")], "`odometry.source`"),
        ([("odometry.source", "topic"), ("odometry.topic", "")], "`odometry.topic`: expected a topic"),
        (
            [("model.fill", "measured"), ("model.mode", "answer_only")],
            "`model.mode`: expected full_chain, since model.fill",
        ),
        ([("odometry.source", "topic"), ("odometry.topic", "/ego/odometry")], "`odometry.topic`: expected another"),
        ([("odometry.source", "topic"), ("odometry.topic", "/sl am")], "`odometry.topic`: expected a ROS topic name"),
    ] {
        let message = parse(&overrides).unwrap_err();
        assert!(message.contains(wanted), "{message}");
    }
    let measured = [("model.fill", "measured"), ("model.mode", "full_chain")];
    assert_eq!(parse(&measured).unwrap().model.unwrap().fill, Fill::Measured);
    let message = parse(&[&measured[..], &[("odometry.source", "tracks")]].concat()).unwrap_err();
    assert!(message.contains("`odometry.source`: expected fused, since model.fill is measured"), "{message}");
}

#[test]
fn windows_share_frames_where_the_hop_is_on_the_stride() {
    let shared = |stride: &str, hop: &str| {
        let overrides = [("window.stride", stride), ("window.hop", hop)].map(|(k, v)| (k.to_owned(), v.to_owned()));
        Config::parse(&default_text(), Path::new("node.toml"), &overrides).unwrap().window.shared_frames()
    };
    let rows = [("1", "1", 4), ("1", "4", 1), ("1", "5", 0), ("2", "4", 3), ("2", "3", 0), ("3", "12", 1)];
    for (stride, hop, expected) in rows {
        assert_eq!(shared(stride, hop), expected, "stride {stride} hop {hop}");
    }
}

#[test]
fn the_mount_of_a_camera_that_looks_ahead_turns_optical_axes_into_those_of_the_body() {
    assert_eq!(edited("base = \"\"", "base = \"\"").unwrap().mount, None);
    let overrides = [("frames.base", "base_link"), ("frames.base_from_camera_xyz_metres", "[0.2, 0.0, 0.5]")];
    let overrides = overrides.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let config = Config::parse(&default_text(), Path::new("node.toml"), &overrides).unwrap();
    let mount = config.mount.unwrap();
    assert_eq!(mount.base, "base_link");
    for (optical, body) in [([0.0, 0.0, 1.0], [1.2, 0.0, 0.5]), ([1.0, 0.0, 0.0], [0.2, -1.0, 0.5])] {
        let got = mount.base_from_camera.transform_point(&optical.into());
        assert!((got - nalgebra::Point3::from(body)).norm() < 1e-12, "{optical:?} -> {got}");
    }
}

/// Every dotted key of the file.
fn written_keys(sheet: &toml::Table) -> Vec<String> {
    let sections = sheet.iter().flat_map(|(section, keys)| {
        let keys = keys.as_table().unwrap_or_else(|| panic!("{section} is not a section"));
        keys.keys().map(move |key| format!("{section}.{key}"))
    });
    sections.collect()
}

#[test]
fn every_key_is_a_parameter_of_its_type_with_a_description() {
    let table: toml::Table = toml::from_str(&default_text()).unwrap();
    let mut described: Vec<String> = TABLE.iter().map(|spec| spec.key.to_owned()).collect();
    described.sort();
    let mut written = written_keys(&table);
    written.sort();
    assert_eq!(described, written);
    for spec in TABLE {
        let (section, name) = spec.key.split_once('.').unwrap();
        let holds = match &table[section][name] {
            toml::Value::Boolean(_) => Holds::Bool,
            toml::Value::Integer(_) => Holds::Integer,
            toml::Value::Float(_) => Holds::Double,
            toml::Value::String(_) => Holds::Text,
            toml::Value::Array(_) => Holds::Doubles,
            other => panic!("{}: {other}", spec.key),
        };
        assert_eq!(spec.kind, holds, "{}", spec.key);
        assert!(spec.description.len() > 5, "{} is not described", spec.key);
        assert_eq!(keys::spec(spec.name()), Some(spec));
    }
    assert_eq!(keys::spec("use_sim_time").map(|spec| spec.key), Some("node.use_sim_time"));
    assert_eq!(keys::spec("node.use_sim_time"), None);
}

#[test]
fn only_what_a_running_node_can_take_is_live() {
    let live = TABLE.iter().filter(|spec| spec.is_live);
    let sections: std::collections::BTreeSet<&str> = live.filter_map(|spec| spec.key.split('.').next()).collect();
    let expected = ["covariance", "diagnostics", "node", "publish", "sanity", "trust"];
    assert_eq!(sections.into_iter().collect::<Vec<_>>(), expected);
    for frozen in ["node.autostart", "topics.image", "window.stride", "model.weights", "model.device", "camera.fx"] {
        assert!(!keys::spec(frozen).unwrap().is_live, "{frozen}");
    }
}

#[test]
fn the_ranges_that_are_told_are_those_that_hold() {
    for spec in TABLE {
        let Some((least, most)) = spec.range() else { continue };
        let said = format!("a whole number from {least} to {most}");
        for (value, fits) in [(least - 1, false), (least, true), (most, true), (most + 1, false)] {
            // One that fits may still be refused for another key's sake.
            let refused = with(spec.key, &value.to_string()).err().map(|e| e.to_string());
            let out_of_range = refused.as_ref().is_some_and(|message| message.contains(&said));
            assert_eq!(out_of_range, !fits, "{} = {value}: {refused:?}", spec.key);
        }
    }
}

fn with_what_it_needs(key: &str, value: &str) -> Config {
    let mut overrides = vec![(key.to_owned(), value.to_owned())];
    if value == "topic" {
        overrides.push(("odometry.topic".to_owned(), "/slam/odometry".to_owned()));
    }
    if value == "measured" {
        overrides.push(("model.mode".to_owned(), "full_chain".to_owned()));
    }
    overrides.reverse();
    Config::parse(&default_text(), Path::new("node.toml"), &overrides).unwrap()
}

/// So that none is told to a ROS tool and then taken for another.
#[test]
fn each_of_several_choices_is_another_config() {
    let mut seen = 0;
    for spec in TABLE {
        let Rule::Choice(names) = spec.rule else { continue };
        let configs: Vec<Config> = names.iter().map(|name| with_what_it_needs(spec.key, name)).collect();
        for (i, config) in configs.iter().enumerate() {
            assert!(configs[..i].iter().all(|other| other != config), "{}: {}", spec.key, names[i]);
            seen += 1;
        }
        let refused = with(spec.key, "another").unwrap_err().to_string();
        assert!(names.iter().all(|name| refused.contains(&format!("\"{name}\""))), "{refused}");
    }
    assert!(seen > 10, "{seen}");
}

#[test]
fn a_sheet_with_other_values_is_another_config_or_none() {
    let (sheet, before) = Sheet::parse(&default_text(), Path::new("node.toml"), &[]).unwrap();
    let (changed, after) = sheet.with(&[("sanity.max_step_metres", toml::Value::Float(2.5))]).unwrap();
    assert_eq!(changed.get("sanity.max_step_metres").and_then(toml::Value::as_float), Some(2.5));
    assert_eq!(after.trust.sanity.max_step_metres.to_bits(), 2.5_f64.to_bits());
    assert_ne!(before, after);
    let rows = [
        ("sanity.max_step_metres", toml::Value::Float(-1.0), "above 0"),
        ("sanity.max_step_metres", toml::Value::Boolean(true), "max_step_metres"),
        ("sanity.no_such_key", toml::Value::Float(1.0), "unknown key `sanity.no_such_key`"),
    ];
    for (key, value, wanted) in rows {
        let message = sheet.with(&[(key, value)]).unwrap_err().to_string();
        assert!(message.contains(wanted), "{key}: {message}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let error = Config::load(Path::new("/nowhere/node.toml"), &[]).unwrap_err();
    assert!(error.to_string().contains("/nowhere/node.toml"), "{error}");
}
