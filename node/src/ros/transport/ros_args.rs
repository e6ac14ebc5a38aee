//! `--ros-args` for a process without rcl: the flags that `ros2 run` and `ros2 launch` add, parsed before anything
//! starts, so that a mistake is a message and not a panic inside the middleware.
//!
//! rcl parses the same line itself when the transport is r2r, and renames what is created there; the parameters are ours on
//! both.

use std::path::PathBuf;

use super::error::{Error, RosArgsError};
use super::names::{absolute_name, absolute_namespace};
use super::params_file;
pub use super::params_file::Given;
use super::qos::{self, Override};
use super::topics::Topics;
use crate::config::keys;

/// What stood between `--ros-args` and `--`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RosArgs {
    /// Rules of `-r from:=to`, in order; `__node` and `__ns` among them.
    pub remaps: Vec<Remap>,
    /// `-p` and `--params-file`, in order.
    pub params: Vec<Params>,
    /// `--log-level`, as given.
    pub log_level: Option<String>,
    /// Flags of rcl that have no meaning without it; a caller may say so.
    pub only_for_rcl: Vec<String>,
}

/// Parameters of the command line.
#[derive(Debug, Clone, PartialEq)]
pub enum Params {
    /// `-p [node:]name:=value`.
    One {
        /// It is for the node of this name only.
        node: Option<String>,
        /// The parameter.
        name: String,
        /// What YAML makes of the value.
        value: toml::Value,
    },
    /// `--params-file`.
    File(PathBuf),
}

/// One rule of `-r [node:]from:=to`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remap {
    /// The rule holds for the node of this name only.
    pub node: Option<String>,
    /// A topic name, `__node`, `__name` or `__ns`.
    pub from: String,
    /// What it becomes.
    pub to: String,
}

impl RosArgs {
    /// Takes the `--ros-args` sections out of a command line; returns the rest and what was in them.
    ///
    /// # Errors
    ///
    /// [`RosArgsError`] for a flag that is unknown or not complete.
    pub fn split(args: impl IntoIterator<Item = String>) -> Result<(Vec<String>, Self), RosArgsError> {
        let mut rest = Vec::new();
        let mut ros = Self::default();
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            if arg != "--ros-args" {
                rest.push(arg);
                continue;
            }
            while let Some(flag) = args.next() {
                if flag == "--" {
                    break;
                }
                if flag != "--ros-args" {
                    ros.take(flag, &mut args)?;
                }
            }
        }
        Ok((rest, ros))
    }

    fn take(&mut self, flag: String, args: &mut impl Iterator<Item = String>) -> Result<(), RosArgsError> {
        let mut value = |flag: &str| args.next().ok_or_else(|| RosArgsError::MissingValue { flag: flag.to_owned() });
        match flag.as_str() {
            "-r" | "--remap" => {
                let rule = value(&flag)?;
                self.remaps.push(Remap::parse(&flag, &rule)?);
            }
            "-p" | "--param" => {
                let rule = value(&flag)?;
                let Some((left, text)) = rule.split_once(":=").filter(|(left, _)| !left.is_empty()) else {
                    return Err(RosArgsError::BadRule { flag, value: rule, expected: "name:=value" });
                };
                let (node, name) = match left.split_once(':') {
                    Some((node, name)) => (Some(node.to_owned()), name.to_owned()),
                    None => (None, left.to_owned()),
                };
                match params_file::value(text) {
                    Ok(value) => self.params.push(Params::One { node, name, value }),
                    Err(reason) => return Err(RosArgsError::BadValue { flag, name, value: text.to_owned(), reason }),
                }
            }
            "--params-file" => self.params.push(Params::File(value(&flag)?.into())),
            "--log-level" => self.log_level = Some(value(&flag)?),
            "--log-config-file" | "-e" | "--enclave" | "--log-file-name" => {
                let value = value(&flag)?;
                self.only_for_rcl.push(format!("{flag} {value}"));
            }
            "--enable-rosout-logs"
            | "--disable-rosout-logs"
            | "--enable-stdout-logs"
            | "--disable-stdout-logs"
            | "--enable-external-lib-logs"
            | "--disable-external-lib-logs" => self.only_for_rcl.push(flag),
            _ => return Err(RosArgsError::UnknownFlag { flag }),
        }
        Ok(())
    }

    /// The parameters that are for the node with these names, in the order of the line: the last one of a name counts.
    ///
    /// # Errors
    ///
    /// [`Error::Name`] for a name that ROS 2 does not allow, [`RosArgsError::File`] for a file that cannot be used.
    pub fn parameters(&self, topics: &Topics) -> Result<Vec<Given>, Error> {
        let mut renamed = topics.clone();
        self.apply(&mut renamed)?;
        let full_name = absolute_name(&renamed.node_name, &renamed.namespace, "")?;
        let mut all = Vec::new();
        for params in &self.params {
            match params {
                Params::One { node, name, value } => {
                    if node.as_ref().is_none_or(|node| *node == renamed.node_name || *node == full_name) {
                        all.push(Given { name: name.clone(), value: value.clone(), is_shared: false });
                    }
                }
                Params::File(path) => {
                    let text = std::fs::read_to_string(path).map_err(|e| e.to_string());
                    let given = text.and_then(|text| params_file::parameters(&text, &full_name));
                    all.extend(given.map_err(|reason| RosArgsError::File { path: path.clone(), reason })?);
                }
            }
        }
        Ok(all)
    }

    /// Renames the node and its namespace as the rules say, and notes the rules for its topics and services. The first rule
    /// that matches wins, as in rcl.
    ///
    /// # Errors
    ///
    /// [`Error::Name`] for a name that ROS 2 does not allow.
    pub fn apply(&self, topics: &mut Topics) -> Result<(), Error> {
        let configured = topics.node_name.clone();
        let rules = || self.remaps.iter().filter(|rule| rule.node.as_ref().is_none_or(|node| *node == configured));
        if let Some(rule) = rules().find(|rule| matches!(rule.from.as_str(), "__node" | "__name")) {
            topics.node_name.clone_from(&rule.to);
        }
        if let Some(rule) = rules().find(|rule| rule.from == "__ns") {
            topics.namespace.clone_from(&rule.to);
        }
        topics.namespace = absolute_namespace(&topics.namespace)?;
        let absolute = |name: &str| absolute_name(name, &topics.namespace, &topics.node_name);
        let renames = rules()
            .filter(|rule| !rule.from.starts_with("__"))
            .map(|rule| Ok((absolute(&rule.from)?, absolute(&rule.to)?)))
            .collect::<Result<_, Error>>()?;
        topics.renames = renames;
        let mut names = topics.names().into_iter().chain(topics.odometries().map(String::as_str));
        names.try_for_each(|name| topics.resolve(name).map(drop))
    }
}

/// Dotted keys of the config with their values.
pub type Settings = Vec<(String, String)>;

/// What parameters are for: keys of the config with values in TOML, and QoS.
///
/// # Errors
///
/// [`RosArgsError::BadRule`] for a QoS override that is none.
pub fn sorted(given: &[Given]) -> Result<(Settings, Vec<Override>), RosArgsError> {
    let (mut overrides, mut qos) = (Vec::new(), Vec::new());
    for Given { name, value, is_shared } in given {
        if name.starts_with(qos::PREFIX) {
            qos.extend(Override::parse(name, value)?);
        } else if let Some(spec) = keys::spec(name) {
            overrides.push((spec.key.to_owned(), value.to_string()));
        } else if *is_shared || !name.contains('.') {
            // For other nodes, or one of those that ROS gives to every node.
            tracing::debug!(name, "not a parameter of this node");
        } else {
            overrides.push((name.clone(), value.to_string()));
        }
    }
    Ok((overrides, qos))
}

impl Remap {
    fn parse(flag: &str, rule: &str) -> Result<Self, RosArgsError> {
        let bad = || RosArgsError::BadRule {
            flag: flag.to_owned(),
            value: rule.to_owned(),
            expected: "from:=to or node:from:=to",
        };
        let (left, to) = rule.split_once(":=").ok_or_else(bad)?;
        let left = left.strip_prefix("rostopic://").unwrap_or(left);
        let (node, from) = match left.split_once(':') {
            Some((node, from)) => (Some(node.to_owned()), from),
            None => (None, left),
        };
        if from.is_empty() || to.is_empty() || node.as_deref() == Some("") {
            return Err(bad());
        }
        Ok(Self { node, from: from.to_owned(), to: to.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topics() -> Topics {
        Topics {
            node_name: "egoreasoner".into(),
            namespace: "/".into(),
            domain_id: None,
            image: "/camera/image_raw".into(),
            image_compressed: false,
            image_reliable: false,
            image_queue_depth: 5,
            camera_info: "camera/camera_info".into(),
            reference_odometry: Some("wheels/odometry".into()),
            followed_odometry: None,
            trajectory: "/ego/trajectory".into(),
            odometry: "~/odometry".into(),
            pose: "~/pose".into(),
            scale: "~/scale".into(),
            diagnostics: "/diagnostics".into(),
            reasoning: "~/reasoning".into(),
            status: "~/status".into(),
            renames: Vec::new(),
            qos: Vec::new(),
        }
    }

    fn split(line: &str) -> Result<(Vec<String>, RosArgs), RosArgsError> {
        RosArgs::split(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn what_stands_outside_is_left_alone() {
        let (rest, ros) = split("node run --ros-args -p a:=1 --remap b:=c -- --config x.toml").expect("valid line");
        assert_eq!(rest, ["node", "run", "--config", "x.toml"]);
        assert_eq!(ros.params, [Params::One { node: None, name: "a".into(), value: 1.into() }]);
        assert_eq!(ros.remaps, [Remap { node: None, from: "b".into(), to: "c".into() }]);
    }

    #[test]
    fn what_launch_adds_is_understood() {
        let line = "node --ros-args --log-level info --disable-rosout-logs --ros-args -r __node:=ego -r __ns:=/front";
        let (rest, ros) = split(line).expect("valid line");
        assert_eq!(rest, ["node"]);
        assert_eq!(ros.log_level.as_deref(), Some("info"));
        assert_eq!(ros.only_for_rcl, ["--disable-rosout-logs"]);
        let mut topics = topics();
        ros.apply(&mut topics).expect("valid names");
        assert_eq!((topics.node_name.as_str(), topics.namespace.as_str()), ("ego", "/front"));
        let resolved = |name: &str| topics.resolve(name).expect("a valid name");
        assert_eq!(resolved(&topics.image), "/camera/image_raw");
        assert_eq!(resolved(&topics.camera_info), "/front/camera/camera_info");
        assert_eq!(resolved(&topics.odometry), "/front/ego/odometry");
        assert_eq!(resolved("~/change_state"), "/front/ego/change_state");
    }

    #[test]
    fn the_first_rule_that_matches_the_whole_name_wins() {
        let line = "--ros-args -r other:/camera/image_raw:=/no -r image_raw:=/no -r /camera/image_raw:=left \
                    -r /camera/image_raw:=/no -r rostopic:///ego/trajectory:=/t -r egoreasoner:/diagnostics:=~/d";
        let (_, ros) = split(line).expect("valid line");
        let mut topics = topics();
        ros.apply(&mut topics).expect("valid names");
        let resolved = |name: &str| topics.resolve(name).expect("a valid name");
        assert_eq!(resolved(&topics.image), "/left");
        assert_eq!(resolved(&topics.trajectory), "/t");
        assert_eq!(resolved(&topics.diagnostics), "/egoreasoner/d");
        assert_eq!(resolved("~/d"), "/egoreasoner/d", "a rule is applied once");
    }

    #[test]
    fn a_rule_to_a_name_that_ros_does_not_allow_is_refused() {
        let (_, ros) = split("--ros-args -r /camera/image_raw:=/2d").expect("valid line");
        assert!(ros.apply(&mut topics()).is_err_and(|e| e.to_string().contains("\"/2d\"")));
    }

    #[test]
    fn parameters_come_in_the_order_of_the_line_and_only_for_this_node() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("params.yaml");
        let yaml = "/**: {ros__parameters: {use_sim_time: true}}\n\
                    front: {ego: {ros__parameters: {window.stride: 2, model: {adapter: lora}}}}\n\
                    egoreasoner: {ros__parameters: {window.stride: 3}}\n";
        std::fs::write(&file, yaml).expect("a file");
        let line = format!(
            "--ros-args -r __node:=ego -r __ns:=/front -p window.stride:=1 --params-file {} -p ego:window.hop:=4 \
             -p other:window.hop:=5 -p topics.image:=/cam",
            file.display()
        );
        let (_, ros) = split(&line).expect("valid line");
        let given = |name: &str, value: toml::Value, is_shared| Given { name: name.into(), value, is_shared };
        let expected = [
            given("window.stride", 1.into(), false),
            given("use_sim_time", true.into(), true),
            given("window.stride", 2.into(), false),
            given("model.adapter", "lora".into(), false),
            given("window.hop", 4.into(), false),
            given("topics.image", "/cam".into(), false),
        ];
        assert_eq!(ros.parameters(&topics()).expect("usable"), expected);
    }

    #[test]
    fn parameters_are_for_the_config_for_qos_or_for_others() {
        let line = "--ros-args -p use_sim_time:=true -p window.stride:=2 -p model.adapter:=lora -p some_ros_thing:=1 \
                    -p qos_overrides./camera/image_raw.subscription.depth:=3 -p window.strid:=2 \
                    -p covariance.position_stddev_metres:=[1,2,3,4.5]";
        let (_, ros) = split(line).expect("valid line");
        let (overrides, qos) = sorted(&ros.parameters(&topics()).expect("usable")).expect("usable");
        let expected = [
            ("node.use_sim_time", "true"),
            ("window.stride", "2"),
            ("model.adapter", "\"lora\""),
            // The config says that it has no such key.
            ("window.strid", "2"),
            ("covariance.position_stddev_metres", "[1, 2, 3, 4.5]"),
        ];
        assert_eq!(overrides, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
        let topics = Topics { qos, image_reliable: true, ..topics() };
        assert!(topics.sensor_qos("/camera/image_raw").expect("a name").is_reliable);
        assert!(!topics.sensor_qos("wheels/odometry").expect("a name").is_reliable, "as the camera is asked to be");
        assert_eq!(topics.sensor_qos("/camera/image_raw").expect("a name").depth, 3);
        assert_eq!(topics.sensor_qos("camera/camera_info").expect("a name").depth, super::super::KEEP_LAST);
        let shared = Given { name: "camera.fps".into(), value: 30.into(), is_shared: true };
        assert_eq!(sorted(&[shared]), Ok((vec![], vec![])), "of another node");
    }

    #[test]
    fn endpoints_have_the_names_of_the_graph_and_the_policies_that_count() {
        let line = "--ros-args -r /camera/image_raw:=/front -p qos_overrides./front.subscription.reliability:=reliable";
        let (_, ros) = split(line).expect("valid line");
        let (_, qos) = sorted(&ros.parameters(&topics()).expect("usable")).expect("usable");
        let mut topics = Topics { qos, ..topics() };
        ros.apply(&mut topics).expect("valid names");
        let endpoints = topics.endpoints().expect("valid names");
        for (topic, end, message_type, key, [is_reliable, is_transient_local]) in [
            ("/front", qos::End::Subscription, "sensor_msgs/msg/Image", "topics.image", [true, false]),
            (
                "/wheels/odometry",
                qos::End::Subscription,
                "nav_msgs/msg/Odometry",
                "scale.odometry_topic",
                [false, false],
            ),
            ("/egoreasoner/odometry", qos::End::Publisher, "nav_msgs/msg/Odometry", "topics.odometry", [true, false]),
            ("/tf_static", qos::End::Publisher, "tf2_msgs/msg/TFMessage", "", [true, true]),
        ] {
            let (topic, message_type) = (topic.to_owned(), message_type.to_owned());
            let expected = qos::Endpoint { topic, end, message_type, key, is_reliable, is_transient_local };
            assert!(endpoints.contains(&expected), "{expected:?} in {endpoints:#?}");
        }
        assert_eq!(endpoints.len(), 14);
    }

    #[test]
    fn an_odometry_that_a_rule_makes_the_nodes_own_is_refused() {
        let refused = |line| {
            let (_, ros) = split(line).expect("valid line");
            let mut topics = topics();
            ros.apply(&mut topics).expect("valid names");
            topics.refuse_own_odometry()
        };
        assert!(refused("--ros-args -r wheels/odometry:=/wheels").is_ok());
        let error = refused("--ros-args -r wheels/odometry:=~/odometry").expect_err("its own").to_string();
        assert_eq!(
            error,
            "scale.odometry_topic: expected another odometry than the node's own, /egoreasoner/odometry \
             (topics.odometry), got \"wheels/odometry\""
        );
    }

    #[test]
    fn mistakes_are_named() {
        let message = |line| split(line).expect_err("must fail").to_string();
        assert_eq!(message("--ros-args --remip a:=b"), "unknown flag \"--remip\" after --ros-args");
        assert_eq!(message("--ros-args -r"), "-r needs a value");
        assert_eq!(message("--ros-args -r a=b"), "-r \"a=b\": expected from:=to or node:from:=to");
        assert_eq!(message("--ros-args -p a"), "-p \"a\": expected name:=value");
        assert_eq!(message("--ros-args --params-file"), "--params-file needs a value");
        assert!(message("--ros-args -p a:=[1").starts_with("-p a:=[1: "));
        let (_, ros) = split("--ros-args --params-file /nowhere/x.yaml").expect("valid line");
        let missing = ros.parameters(&topics()).expect_err("must fail").to_string();
        assert!(missing.starts_with("--params-file /nowhere/x.yaml: No such file"), "{missing}");
    }

    #[test]
    fn names_that_ros_does_not_allow_are_refused() {
        for bad in ["/a//b", "/a/", "2d", "a__b", "a b", "/", ""] {
            assert!(absolute_name(bad, "/", "node").is_err(), "{bad:?}");
        }
        assert_eq!(absolute_name("a/b", "/ns", "node").ok().as_deref(), Some("/ns/a/b"));
    }
}
