//! Whether r2r will have tf2_msgs: robots' ROS 2 has it, the Python wheels that the tests use do not.

use std::path::Path;

fn main() {
    println!("cargo::rustc-check-cfg=cfg(tf2_msgs)");
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE_ROS").is_none() {
        return;
    }
    println!("cargo::rerun-if-env-changed=AMENT_PREFIX_PATH");
    println!("cargo::rerun-if-env-changed=IDL_PACKAGE_FILTER");
    let prefixes = std::env::var_os("AMENT_PREFIX_PATH").unwrap_or_default();
    let interfaces = Path::new("share/ament_index/resource_index/rosidl_interfaces/tf2_msgs");
    let is_there = std::env::split_paths(&prefixes).any(|prefix| prefix.join(interfaces).exists());
    // r2r makes bindings for these packages alone.
    let is_wanted = match std::env::var("IDL_PACKAGE_FILTER") {
        Ok(packages) => packages.split(';').any(|package| package == "tf2_msgs"),
        Err(_) => true,
    };
    if is_there && is_wanted {
        println!("cargo::rustc-cfg=tf2_msgs");
    }
}
