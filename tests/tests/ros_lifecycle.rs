//! The node's services against rclpy, with each transport: `lifecycle.py` is the manager. It runs as `ros_roundtrip` does.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tests::process::{PATIENCE, Place, from_environment};
use tests::root;

#[test]
fn ros2_client_is_led_through_its_life_by_rclpy() {
    // All at once does not fit its datagrams (docs/interface.md).
    let config = std::fs::read_to_string(root().join("config/node.toml")).expect("the config can be read");
    let config: toml::Table = config.parse().expect("the config is TOML");
    let prefixes: Vec<&str> = config.keys().map(String::as_str).chain(["use_sim_time"]).collect();
    led_through_its_life("ros2-client", &prefixes);
}

#[test]
fn r2r_is_led_through_its_life_by_rclpy() {
    led_through_its_life("r2r", &[]);
}

/// The manager asks for the parameters under each of the prefixes, or for everything at once.
fn led_through_its_life(transport: &str, prefixes: &[&str]) {
    let place = Place::new(Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("ros_{transport}_lifecycle")));
    let json = place.folder.join("seen.json");
    let _ = std::fs::remove_file(&json); // of an earlier run
    let params = place.folder.join("params.yaml");
    let yaml = "/**:\n  ros__parameters: {node.autostart: false, some.other: 1}\n\
                /robot/ego_under_test:\n  ros__parameters:\n    sanity: {max_step_metres: 3}\n";
    std::fs::write(&params, yaml).expect("the folder can be written");
    let mut node = place.node(transport);
    node.args(["--ros-args", "-r", "__node:=ego_under_test", "-r", "__ns:=/robot", "--params-file"]).arg(&params);
    node.args(["-p", "trust.lost_windows:=5"]);
    let mut node = place.start(node);

    let mut manager = Command::new(from_environment("EGOREASONER_PYTHON"));
    place.put_in_domain(&mut manager);
    manager.arg(root().join("tests/ros/lifecycle.py")).arg("--out").arg(&json);
    manager.args(["--node", "/robot/ego_under_test"]);
    prefixes.iter().for_each(|prefix| {
        manager.args(["--prefix", prefix]);
    });
    let status = manager.status().expect("the manager starts");
    assert!(status.success(), "manager: {status}; the node said:\n{}", place.log());
    let (status, _) = node.stop(PATIENCE).unwrap_or_else(|e| panic!("{e}; the node said:\n{}", place.log()));
    assert!(status.success(), "the node ended with {status}:\n{}", place.log());
    let text = std::fs::read_to_string(&json).expect("the manager wrote its JSON");
    let seen: Value = serde_json::from_str(&text).expect("the manager writes JSON");
    check_states(&seen);
    check_parameters(&seen);
    assert_eq!(seen["graph"].is_null(), !prefixes.is_empty());
}

fn check_states(seen: &Value) {
    let expected = json!([
        {"asked": "start", "success": true, "state": "unconfigured", "id": 1,
         "available": ["configure", "shutdown"]},
        {"asked": "activate", "success": false, "state": "unconfigured", "id": 1,
         "available": ["configure", "shutdown"]},
        {"asked": "configure", "success": true, "state": "inactive", "id": 2,
         "available": ["cleanup", "activate", "shutdown"]},
        {"asked": "activate", "success": true, "state": "active", "id": 3, "available": ["deactivate", "shutdown"]},
        {"asked": "reset", "success": true, "state": "active", "id": 3, "available": ["deactivate", "shutdown"]},
        {"asked": "deactivate", "success": true, "state": "inactive", "id": 2,
         "available": ["cleanup", "activate", "shutdown"]},
        {"asked": "cleanup", "success": true, "state": "unconfigured", "id": 1, "available": ["configure", "shutdown"]},
        {"asked": "reset", "success": false, "state": "unconfigured", "id": 1, "available": ["configure", "shutdown"]},
        {"asked": "configure", "success": true, "state": "inactive", "id": 2,
         "available": ["cleanup", "activate", "shutdown"]},
        {"asked": "shutdown", "success": true, "state": "finalized", "id": 4, "available": []},
    ]);
    assert_eq!(seen["steps"], expected, "{:#}", seen["steps"]);
    let goals: Vec<&str> = seen["events"].as_array().into_iter().flatten().filter_map(|e| e[1].as_str()).collect();
    let expected = [
        "configuring",
        "inactive",
        "activating",
        "active",
        "deactivating",
        "inactive",
        "cleaningup",
        "unconfigured",
        "configuring",
        "inactive",
        "shuttingdown",
        "finalized",
    ];
    assert_eq!(goals, expected);
    assert_eq!(seen["states"], json!(10));
    assert!(seen["graph"].is_null() || seen["graph"] == json!(25), "{}", seen["graph"]);
    // The node says where it stands, also to those who only listen.
    let statuses = seen["statuses"].as_array().expect("a list");
    assert!(statuses.iter().any(|s| s["lifecycle"] == "active" && s["name"] == "robot/ego_under_test: trajectory"));
}

fn check_parameters(seen: &Value) {
    let values: BTreeMap<&str, &Value> =
        seen["values"].as_object().expect("an object").iter().map(|(name, value)| (name.as_str(), value)).collect();
    for (name, value) in [
        ("sanity.max_step_metres", json!(3.0)), // of the file, for this node
        ("trust.lost_windows", json!(5)),       // of the command line
        ("node.autostart", json!(false)),       // of the file, for all nodes
        ("topics.image", json!("/camera/image_raw")),
        ("covariance.position_stddev_metres", json!([0.025, 0.05, 0.07, 0.09])),
        ("use_sim_time", json!(false)),
    ] {
        assert_eq!(values.get(name), Some(&&value), "{name}");
    }
    assert!(!values.contains_key("some.other"));
    let described = &seen["described"];
    assert_eq!(described["topics.image"]["read_only"], json!(true));
    assert_eq!(described["sanity.max_step_metres"]["read_only"], json!(false));
    assert_eq!(described["trust.lost_windows"]["integer_range"], json!([1, 1000]));
    assert!(described.as_object().is_some_and(|all| all.len() == values.len()));
    let descriptions = described.as_object().into_iter().flatten();
    assert!(descriptions.into_iter().all(|(_, d)| d["description"].as_str().is_some_and(|text| !text.is_empty())));

    let rows = [
        ("sanity.max_step_metres", true, ""),
        ("sanity.max_step_metres", false, "above 0"),
        ("topics.image", false, "when the node starts"),
        ("publish.tf", false, "frames.base is empty"),
        ("no.such", false, "not a parameter"),
    ];
    let results = seen["set"].as_array().expect("a list");
    assert_eq!(results.len(), rows.len(), "{results:?}");
    for (result, (name, is_set, reason)) in results.iter().zip(rows) {
        assert_eq!((&result["name"], &result["successful"]), (&json!(name), &json!(is_set)), "{result}");
        assert!(result["reason"].as_str().is_some_and(|text| text.contains(reason)), "{result}");
    }
    assert_eq!(seen["value_after_set"], json!(1.5));
}
