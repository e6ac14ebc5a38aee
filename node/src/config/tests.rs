use std::path::{Path, PathBuf};

use model::Mode;

use super::{Config, UseFixed};
use crate::transport::Kind;

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
            assert!(config.model.weights.starts_with(path.parent().unwrap()));
            seen += 1;
        }
    }
    assert!(seen >= 1);
}

#[test]
fn paths_start_at_the_config_file() {
    let config = with("model.weights", "weights/nano").unwrap();
    assert_eq!(config.model.weights, Path::new("/etc/ego/weights/nano"));
    let config = with("model.weights", "/opt/nano").unwrap();
    assert_eq!(config.model.weights, Path::new("/opt/nano"));
}

#[test]
fn overrides_replace_values_and_keep_their_type() {
    assert_eq!(with("window.stride", "3").unwrap().window.stride, 3);
    assert_eq!(with("frames.odom", "123").unwrap().odom_frame, "123");
    assert_eq!(with("frames.odom", "\"map\"").unwrap().odom_frame, "map");
    assert_eq!(with("topics.image", "/cam0/image").unwrap().topics.image, "/cam0/image");
    assert_eq!(with("node.transport", "r2r").unwrap().transport, Kind::R2r);
    assert_eq!(with("model.mode", "answer_only").unwrap().model.mode, Mode::AnswerOnly);
    assert_eq!(with("camera.fixed", "always").unwrap().camera.use_fixed, UseFixed::Always);
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
        (with("window.max_gap_millis", "-5"), &["`window.max_gap_millis`", "got -5"]),
        (with("node.transport", "zenoh"), &["`node.transport`", "\"ros2-client\", \"r2r\"", "got \"zenoh\""]),
        (with("node.name", "ego reasoner"), &["`node.name`", "got \"ego reasoner\""]),
        (with("node.namespace", "robot"), &["`node.namespace`", "got \"robot\""]),
        (with("node.domain_id", "233"), &["`node.domain_id`", "got 233"]),
        (with("topics.image", "/cam era"), &["`topics.image`", "got \"/cam era\""]),
        (with("topics.image_transport", "theora"), &["`topics.image_transport`", "\"raw\", \"compressed\""]),
        (with("model.device", "tpu"), &["`model.device`", "cpu, cuda or cuda:N", "got \"tpu\""]),
        (with("model.mode", "fast"), &["`model.mode`", "got \"fast\""]),
        (with("model.max_tokens", "0"), &["`model.max_tokens`", "got 0"]),
        (with("camera.fx", "0.0"), &["`camera.fx`", "positive", "got 0"]),
        (with("camera.cx", "nan"), &["`camera.cx`", "NaN"]),
        (with("sanity.max_step_metres", "inf"), &["`sanity.max_step_metres`", "inf"]),
        (with("covariance.break_position_stddev_metres", "-1.0"), &["`covariance.break_position_stddev_metres`", "-1"]),
        (
            with("covariance.position_stddev_metres", "[0.1, 0.2, 0.3]"),
            &["`covariance.position_stddev_metres`", "4 finite numbers", "got [0.1, 0.2, 0.3]"],
        ),
        (
            edited("[2.0, 4.0, 6.0, 8.0]", "[2.0, 4.0, 6.0, 8.0, 9.0]"),
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
        (with("trust.consistent_ratio", "0.5"), &["`trust.consistent_ratio`", "1 or more", "got 0.5"]),
        (with("trust.bad_ratio", "1.5"), &["`trust.bad_ratio`", "trust.consistent_ratio or more", "got 1.5"]),
        (with("trust.gross_ratio", "3.0"), &["`trust.gross_ratio`", "trust.bad_ratio or more", "got 3"]),
        (with("trust.degraded_span", "1"), &["`trust.degraded_span`", "trust.degraded_windows or more", "got 1"]),
        (with("trust.lost_windows", "0"), &["`trust.lost_windows`", "from 1", "got 0"]),
        (with("trust.lost_after_millis", "0"), &["`trust.lost_after_millis`", "got 0"]),
        (with("frames.odom", "/odom"), &["`frames.odom`", "got \"/odom\""]),
    ];
    for (result, wanted) in rows {
        let message = result.err().map(|e| e.to_string()).unwrap_or_else(|| panic!("accepted, but {wanted:?}"));
        for part in wanted {
            assert!(message.contains(part), "`{part}` is not in: {message}");
        }
    }
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
fn a_missing_file_is_named() {
    let error = Config::load(Path::new("/nowhere/node.toml"), &[]).unwrap_err();
    assert!(error.to_string().contains("/nowhere/node.toml"), "{error}");
}
