//! The binary as a person or a launch file meets it: exit codes and messages.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

mod common;
use common::{repository, tiny_weights};

fn node(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_node"));
    command.args(args).current_dir(repository()).env_remove("RUST_LOG").env_remove("ROS_DOMAIN_ID");
    command
}

fn output(args: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = node(args).output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

fn weights_key(dir: &Path) -> String {
    format!("model.weights={}", dir.display())
}

fn assert_contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
    assert!(!text.contains("panicked"), "{text}");
}

#[test]
fn an_unknown_config_key_is_named_with_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("node.toml");
    let text = std::fs::read_to_string(repository().join("config/node.toml")).unwrap();
    std::fs::write(&file, text.replace("stride = 1", "stride = 1\nstrid = 2")).unwrap();
    let path = file.to_str().unwrap();
    for verb in ["run", "replay /nowhere", "doctor"] {
        let args: Vec<&str> = verb.split(' ').chain(["--config", path]).collect();
        let (code, stdout, stderr) = output(&args);
        assert_eq!(code, Some(1), "{verb}");
        assert_contains(&(stdout + &stderr), &[path, "strid", "expected one of"]);
    }
}

#[test]
fn a_missing_weight_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (code, _, stderr) = output(&["run", "--set", &weights_key(&dir.path().join("none"))]);
    assert_eq!(code, Some(1));
    assert_contains(&stderr, &["/none: No such file"]);
    for name in ["config.json", "model.safetensors", "tokenizer.json", "preprocessor_config.json"] {
        tiny_weights(dir.path());
        std::fs::remove_file(dir.path().join(name)).unwrap();
        let key = weights_key(dir.path());
        let (code, _, stderr) = output(&["run", "--set", &key]);
        assert_eq!(code, Some(1), "{name}");
        assert_contains(&stderr, &[name]);
        let (code, stdout, _) = output(&["doctor", "--set", &key]);
        assert_eq!(code, Some(1));
        assert_contains(&stdout, &["FAIL  weights", name, "-> set model.weights"]);
    }
}

#[test]
fn a_file_in_place_of_the_folder_of_weights_is_told() {
    let dir = tempfile::tempdir().unwrap();
    tiny_weights(dir.path());
    let key = weights_key(&dir.path().join("model.safetensors"));
    let (code, _, stderr) = output(&["run", "--set", &key]);
    assert_eq!(code, Some(1));
    assert_contains(&stderr, &["model.safetensors: expected a folder, got a file", dir.path().to_str().unwrap()]);
    let (code, stdout, _) = output(&["doctor", "--set", &key]);
    assert_eq!(code, Some(1));
    assert_contains(&stdout, &["FAIL  weights", "model.safetensors is a file", "-> set model.weights"]);
}

#[test]
fn a_tensor_of_the_wrong_shape_is_named_with_both_shapes() {
    let dir = tempfile::tempdir().unwrap();
    tiny_weights(dir.path());
    let path = dir.path().join("config.json");
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    config["text_config"]["intermediate_size"] = json!(96);
    std::fs::write(&path, config.to_string()).unwrap();
    let key = weights_key(dir.path());
    let (code, _, stderr) = output(&["run", "--set", &key]);
    assert_eq!(code, Some(1));
    assert_contains(&stderr, &["mlp", "96", "128"]);
    let (code, stdout, _) = output(&["doctor", "--set", &key]);
    assert_eq!(code, Some(1));
    assert_contains(&stdout, &["OK    weights", "FAIL  answer", "96", "128"]);
}

#[test]
fn a_camera_of_the_config_that_is_hard_to_believe_is_found_by_the_doctor() {
    let always = ["doctor", "--set", "camera.fixed=always"];
    let (_, stdout, _) = output(&always);
    assert_contains(&stdout, &["OK    camera", "principal point (320, 240) of 640 x 480 pixels"]);
    let (code, stdout, _) = output(&[&always[..], &["--set", "camera.cx=80.0"]].concat());
    assert_eq!(code, Some(0), "it may be so");
    assert_contains(&stdout, &["WARN  camera", "camera principal point", "got (80.0, 240.0) of 640 x 480 pixels"]);
}

#[test]
fn the_doctor_finds_nothing_wrong_with_a_model_that_answers() {
    let dir = tempfile::tempdir().unwrap();
    tiny_weights(dir.path());
    let (code, stdout, stderr) = output(&["doctor", "--set", &weights_key(dir.path())]);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    assert_contains(&stdout, &["OK    config", "OK    transport", "OK    device", "OK    answer", " tokens"]);
    // What each mode takes at most: five poses, and the chain before them.
    let most = |mode: &str| -> usize {
        let line = stdout.lines().find(|line| line.contains(&format!("OK    {mode}"))).unwrap();
        line.split_once("at most ").unwrap().1.split_once(" tokens").unwrap().0.parse().unwrap()
    };
    let (poses, chain) = (most("answer_only"), most("full_chain"));
    assert!(poses >= 560 && chain >= 2434, "{poses} {chain}");
    assert_contains(&stdout, &["OK    pose_head", "MiB of cache"]);
    // Fewer are refused at the start, by both numbers.
    let key = weights_key(dir.path());
    for (mode, needed) in [("answer_only", poses), ("full_chain", chain)] {
        let mode_key = format!("model.mode={mode}");
        for command in ["doctor", "run"] {
            let (code, stdout, stderr) =
                output(&[command, "--set", &key, "--set", &mode_key, "--set", "model.max_tokens=400"]);
            assert_eq!(code, Some(1), "{stdout}{stderr}");
            assert_contains(&(stdout + &stderr), &["max_tokens", "got 400", &needed.to_string(), mode]);
        }
    }
    let (code, stdout, _) = output(&["doctor", "--set", &weights_key(dir.path()), "--set", "model.device=cuda:77"]);
    assert_eq!(code, Some(1));
    assert_contains(&stdout, &["FAIL  device", "-> set model.device"]);
}

#[test]
fn the_doctor_names_the_topics_that_nobody_publishes_and_lets_the_node_wait_for_them() {
    let (code, stdout, stderr) = output(&["doctor", "--set", "model.weights=", "--set", "node.domain_id=79"]);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    let image = "WARN  graph       nobody publishes /camera/image_raw (topics.image)";
    assert_contains(&stdout, &[image, "nobody publishes /camera/camera_info (topics.camera_info)", "-> start what"]);
}

#[test]
fn a_domain_that_is_none_is_found_by_the_doctor() {
    let output = node(&["doctor"]).env("ROS_DOMAIN_ID", "four").output().unwrap();
    assert_contains(&String::from_utf8(output.stdout).unwrap(), &["FAIL  domain", "`four`"]);
}

#[test]
fn parameters_of_ros_reach_the_node_that_they_are_for() {
    let dir = tempfile::tempdir().unwrap();
    let (weights, file) = (dir.path().join("w"), dir.path().join("params.yaml"));
    tiny_weights(&weights);
    let yaml = "/**: {ros__parameters: {window.stride: 3, camera.fps: 30}}\n\
                ego: {ros__parameters: {window: {hop: 6}, model.max_tokens: 4321}}\n\
                other: {ros__parameters: {window.hop: 9}}\n";
    std::fs::write(&file, yaml).unwrap();
    let key = weights_key(&weights);
    let rest = ["--set", key.as_str(), "--ros-args", "-r", "__node:=ego", "--params-file", file.to_str().unwrap()];
    let (code, stdout, stderr) = output(&[&["doctor"][..], &rest].concat());
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    assert_contains(&stdout, &["stride 3, hop 6", "for 4621 tokens"]);
    let (code, stdout, _) = output(&[&["doctor"][..], &rest, &["-p", "window.strid:=2"]].concat());
    assert_eq!(code, Some(1));
    assert_contains(&stdout, &["window.strid=2", "unknown key `strid`"]);
    let (code, _, stderr) = output(&[&["run"][..], &rest, &["-p", "qos_overrides./t.publisher.depth:=0"]].concat());
    assert_eq!(code, Some(1));
    assert_contains(&stderr, &["qos_overrides./t.publisher.depth", "1 to 1000"]);
}

/// A sequence of eight frames, each a ramp of grey, that moves 0.1 to the right each time.
fn sequence(dir: &Path) {
    std::fs::create_dir_all(dir.join("frames")).unwrap();
    for i in 0..8 {
        let image = image::RgbImage::from_fn(64, 48, |x, _| image::Rgb([20 * i + x as u8; 3]));
        image.save(dir.join(format!("frames/{i:06}.jpg"))).unwrap();
    }
    let pose = |i: usize| json!([1, 0, 0, 0.1 * i as f64, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]);
    let poses: Vec<Value> = (0..8).map(pose).collect();
    let json = json!({
        "name": "grey", "width": 64, "height": 48, "num_frames": 8, "metric": true,
        "intrinsics": {"fx": 60, "fy": 60, "cx": 32, "cy": 24}, "timestamps": null,
        "pose_convention": "camera_to_world", "camera_axes": "opencv", "poses": poses,
    });
    std::fs::write(dir.join("sequence.json"), json.to_string()).unwrap();
}

#[test]
fn a_replay_of_a_model_that_says_nothing_is_honest_about_it() {
    let dir = tempfile::tempdir().unwrap();
    let (weights, data, out) = (dir.path().join("w"), dir.path().join("s"), dir.path().join("out"));
    tiny_weights(&weights);
    sequence(&data);
    let [data, out_arg] = [&data, &out].map(|p| p.to_str().unwrap());
    let key = weights_key(&weights);
    let args =
        ["replay", data, "--out", out_arg, "--set", &key, "--set", "window.hop=1", "--set", "odometry.source=model"];
    let (code, stdout, stderr) = output(&args);
    assert_eq!(code, Some(0), "{stderr}");
    assert_contains(&stdout, &["answers_unparsed 4", "frames_used 8", "parse 0.000", "no complete"]);
    let report: Value = serde_json::from_str(&std::fs::read_to_string(out.join("report.json")).unwrap()).unwrap();
    assert_eq!(
        (&report["windows"], &report["paths_received"], &report["poses_per_path"]),
        (&json!(4), &json!(0), &json!(0))
    );
    assert_eq!((&report["final_parse"], &report["rre_deg_median"]), (&json!(0.0), &Value::Null));
    assert!(report["latency_ms_median"].as_f64().unwrap() > 0.0);
    assert!(out.join("trajectory.svg").is_file() && out.join("trajectory.tum").is_file());

    std::fs::remove_file(Path::new(data).join("frames/000003.jpg")).unwrap();
    let (code, _, stderr) = output(&args);
    assert_eq!(code, Some(1));
    assert_contains(&stderr, &["000003.jpg"]);
}

/// Paths over frames `start..start + 5`, `step` metres to the right each.
fn received(starts: &[usize], step: f64) -> Value {
    let stamp = |i: usize| 5_000_000_000 + i as i64 * 100_000_000;
    let path = |start: &usize| {
        let pose = |i: usize| {
            json!({"stamp_nanos": stamp(start + i), "frame_id": "c", "position": [step * i as f64, 0, 0],
                   "orientation_xyzw": [0, 0, 0, 1]})
        };
        json!({"stamp_nanos": stamp(*start), "frame_id": "c", "latency_ms": 12.5,
               "poses": (0..5).map(pose).collect::<Vec<_>>()})
    };
    json!({
        "published_stamps_nanos": (0..8).map(stamp).collect::<Vec<_>>(),
        "paths": starts.iter().map(path).collect::<Vec<_>>(),
        "diagnostics_last": {"values": {"windows_answered": "3", "answers_unparsed": "1", "latency_ms_median": "9.5",
                                        "node_rss_mib_max": "100.0", "last_problem": "none"}},
        "odometry": [],
    })
}

#[test]
fn a_report_of_received_paths_has_the_numbers_of_geometry() {
    let dir = tempfile::tempdir().unwrap();
    sequence(dir.path());
    let (json_path, out) = (dir.path().join("received.json"), dir.path().join("out"));
    let [json_arg, data, out_arg] = [&json_path, dir.path(), &out].map(|p| p.to_str().unwrap());
    let args = ["report", "--received", json_arg, "--sequence", data, "--out", out_arg];
    std::fs::write(&json_path, received(&[0, 2], 0.15).to_string()).unwrap();
    let (code, stdout, stderr) = output(&args);
    assert_eq!(code, Some(0), "{stderr}");
    assert_contains(&stdout, &["0 1 2 3 4", "2 3 4 5 6", "0.50"]);
    let report: Value = serde_json::from_str(&std::fs::read_to_string(out.join("report.json")).unwrap()).unwrap();
    assert_eq!(
        (&report["windows"], &report["paths_received"], &report["poses_per_path"]),
        (&json!(3), &json!(2), &json!(5))
    );
    let close = |key: &str, expected: f64| {
        let got = report[key].as_f64().unwrap();
        assert!((got - expected).abs() < 1e-6, "{key}: {got}");
    };
    close("final_parse", 2.0 / 3.0);
    close("rre_deg_median", 0.0);
    close("tde_deg_median", 0.0);
    close("rte_rel_median", 0.5);
    close("latency_ms_median", 9.5);
    close("node_rss_mib_max", 100.0);
    let tum = std::fs::read_to_string(out.join("trajectory.tum")).unwrap();
    let poses: Vec<&str> = tum.lines().filter(|l| !l.starts_with('#')).collect();
    assert_eq!(poses.len(), 7, "frames 0 to 6 once each");
    assert!(poses[0].starts_with("5.000000000 0 0 0"), "{}", poses[0]);

    // Nothing that came is no report.
    std::fs::write(&json_path, received(&[], 0.15).to_string()).unwrap();
    let (code, _, stderr) = output(&args);
    assert_eq!(code, Some(1), "{stderr}");
    assert_contains(&stderr, &["received.json: expected a Path or an Odometry of the node, got none"]);

    // What a node must never send is an error of the report, not a row in it.
    let spoil = |change: &dyn Fn(&mut Value), wanted: &str| {
        let mut bad = received(&[0, 2], 0.1);
        change(&mut bad["paths"][1]);
        std::fs::write(&json_path, bad.to_string()).unwrap();
        let (code, _, stderr) = output(&args);
        assert_eq!(code, Some(1));
        assert_contains(&stderr, &["received.json", "path 1", wanted]);
    };
    spoil(&|p| p["poses"][3]["stamp_nanos"] = json!(17), "the stamp of an image");
    spoil(&|p| p["stamp_nanos"] = json!(17), "the stamp of its first pose");
    spoil(&|p| p["poses"] = json!([]), "expected 5 poses");
    spoil(&|p| p["poses"][0]["position"] = json!([0.1, 0, 0]), "identity");
    spoil(&|p| p["poses"][2]["orientation_xyzw"] = json!([0, 0, 0, 0]), "quaternion");
}

#[test]
fn sigint_sigterm_and_sighup_end_the_node_in_time_with_success() {
    let dir = tempfile::tempdir().unwrap();
    tiny_weights(dir.path());
    // A process that ignores SIGHUP, as nohup's does, has children that do.
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let ignored = own.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    let is_ignored = u64::from_str_radix(ignored.trim(), 16).unwrap() & 1 == 1;
    for signal in ["-INT", "-TERM", "-HUP"].into_iter().filter(|signal| *signal != "-HUP" || !is_ignored) {
        let mut child = node(&["--set", &weights_key(dir.path()), "--set", "node.domain_id=77"])
            .args(["--ros-args", "-r", "__node:=stops", "-p", "window.stride:=2"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let ready = lines.by_ref().map_while(Result::ok).any(|line| line.contains("ready"));
        assert!(ready, "{:?}", child.wait());
        std::thread::sleep(Duration::from_millis(500));
        let begun = Instant::now();
        let sent = Command::new("sh").args(["-c", &format!("kill {signal} {}", child.id())]).status().unwrap();
        assert!(sent.success());
        let status = child.wait().unwrap();
        let rest: Vec<String> = lines.map_while(Result::ok).collect();
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}: {rest:?}", begun.elapsed());
        assert_eq!(status.code(), Some(0), "{rest:?}");
        assert!(rest.iter().any(|line| line.contains("stopped")), "{rest:?}");
    }
}

#[test]
fn a_node_ends_with_the_process_that_started_it_where_it_is_told_to() {
    let dir = tempfile::tempdir().unwrap();
    tiny_weights(dir.path());
    // As `ros2 launch` is on SIGTERM: it ends, and says nothing to its children.
    let mut launch = Command::new("sh")
        .args(["-c", "\"$@\" & wait", "sh", env!("CARGO_BIN_EXE_node"), "--end-with-parent"])
        .args(["--set", &weights_key(dir.path()), "--set", "node.domain_id=78"])
        .current_dir(repository())
        .env_remove("RUST_LOG")
        .env_remove("ROS_DOMAIN_ID")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(launch.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("ready")));
    launch.kill().unwrap();
    launch.wait().unwrap();
    let (last, ended) = std::sync::mpsc::channel();
    // The lines end with the node.
    std::thread::spawn(move || last.send(lines.collect::<Vec<String>>()));
    let rest = ended.recv_timeout(Duration::from_secs(10)).expect("the node ends");
    for part in ["the process that started this one has ended", "stopped"] {
        assert!(rest.iter().any(|line| line.contains(part)), "`{part}` is not in: {rest:?}");
    }
}

#[test]
fn a_set_of_two_lines_is_refused_as_one_value() {
    for (set, key) in [
        ("window.stride=2\nwindow.hop=3", "window.stride"),
        ("window.stride=2\n[model]", "window.stride"),
        ("topics.image=/a\n/b", "topics.image"),
    ] {
        let (code, stdout, _) = output(&["doctor", "--set", set]);
        assert_eq!(code, Some(1), "{set}");
        assert_contains(&stdout, &[key, "expected one value, got 2 lines"]);
    }
}

#[test]
fn words_that_cannot_be_written_change_nothing_of_how_the_node_ends() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("s");
    sequence(&data);
    let full = || Stdio::from(std::fs::File::options().write(true).open("/dev/full").unwrap());
    // Of a pipe whose other end is closed.
    let closed = || Stdio::from(std::io::pipe().unwrap().1);
    let out = dir.path().join("out");
    let [data, out] = [&data, &out].map(|path| path.to_str().unwrap());
    let plays = ["replay", data, "--out", out, "--set", "model.weights="];
    for log in [full(), closed()] {
        let refused = node(&["run", "--set", "model.weights=/nowhere/at/all"]).stderr(log).status().unwrap();
        assert_eq!(refused.code(), Some(1));
    }
    let code =
        |log: Stdio| node(&plays).env("RUST_LOG", "trace").stdout(Stdio::null()).stderr(log).status().unwrap().code();
    let expected = code(Stdio::null());
    assert_eq!([code(full()), code(closed())], [expected, expected]);
    let weights = dir.path().join("w");
    tiny_weights(&weights);
    let key = weights_key(&weights);
    for verb in [&["doctor"][..], &["replay", data, "--out", out, "--texts", "--set", "odometry.source=model"]] {
        let unread = node(verb).args(["--set", &key]).env("RUST_LOG", "off").stdout(closed()).output().unwrap();
        assert_eq!(
            (unread.status.code(), String::from_utf8(unread.stderr).unwrap().as_str()),
            (Some(1), ""),
            "{verb:?}"
        );
    }
}

#[test]
fn systemd_hears_of_a_node_that_is_ready_alive_and_about_to_stop() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut child = node(&["--set", "model.weights=", "--set", "node.domain_id=76"])
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "400000")
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let hear = || {
        let mut words = [0; 64];
        let length = manager.recv(&mut words).unwrap();
        String::from_utf8(words[..length].to_vec()).unwrap()
    };
    assert_eq!([hear(), hear(), hear()], ["READY=1", "WATCHDOG=1", "WATCHDOG=1"]);
    let sent = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let last = (0..10).map(|_| hear()).find(|words| words != "WATCHDOG=1");
    assert_eq!(last.as_deref(), Some("STOPPING=1"));
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
