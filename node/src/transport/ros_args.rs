//! `--ros-args` for a process without rcl: the flags that `ros2 run` and `ros2 launch` add, parsed before anything
//! starts, so that a mistake is a message and not a panic inside the middleware.
//!
//! rcl parses the same line itself when the transport is r2r; then only [`RosArgs::params`] are for us, and
//! [`RosArgs::apply`] is for `ros2-client` alone.

use super::Topics;

/// What stood between `--ros-args` and `--`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RosArgs {
    /// Rules of `-r from:=to`, in order; `__node` and `__ns` among them.
    pub remaps: Vec<Remap>,
    /// `-p name:=value`, in order; the value is text, as YAML would have it.
    pub params: Vec<(String, String)>,
    /// `--log-level`, as given.
    pub log_level: Option<String>,
    /// Flags of rcl that have no meaning without it; a caller may say so.
    pub only_for_rcl: Vec<String>,
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

/// What is wrong with the line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RosArgsError {
    /// A flag that ROS 2 does not have, or that this node does not take.
    #[error("unknown flag {flag:?} after --ros-args{}", .hint.map(|hint| format!(" ({hint})")).unwrap_or_default())]
    UnknownFlag {
        /// As given.
        flag: String,
        /// What to use instead.
        hint: Option<&'static str>,
    },
    /// The flag stands last.
    #[error("{flag} needs a value")]
    MissingValue {
        /// The flag.
        flag: String,
    },
    /// Not of the form `a:=b`.
    #[error("{flag} {value:?}: expected {expected}")]
    BadRule {
        /// The flag.
        flag: String,
        /// As given.
        value: String,
        /// The form.
        expected: &'static str,
    },
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
                let Some((name, text)) = rule.split_once(":=").filter(|(name, _)| !name.is_empty()) else {
                    return Err(RosArgsError::BadRule { flag, value: rule, expected: "name:=value" });
                };
                self.params.push((name.to_owned(), text.to_owned()));
            }
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
            "--params-file" => {
                let hint = Some("this node reads TOML: use --config FILE, or -p name:=value");
                return Err(RosArgsError::UnknownFlag { flag, hint });
            }
            _ => return Err(RosArgsError::UnknownFlag { flag, hint: None }),
        }
        Ok(())
    }

    /// Renames the node, its namespace and its topics as the rules say, and makes every topic name absolute. The
    /// first rule that matches wins, as in rcl.
    ///
    /// # Errors
    ///
    /// [`super::Error::Name`] for a name that ROS 2 does not allow.
    pub fn apply(&self, topics: &mut Topics) -> Result<(), super::Error> {
        let configured = topics.node_name.clone();
        let rules = || self.remaps.iter().filter(|rule| rule.node.as_ref().is_none_or(|node| *node == configured));
        if let Some(rule) = rules().find(|rule| matches!(rule.from.as_str(), "__node" | "__name")) {
            topics.node_name.clone_from(&rule.to);
        }
        if let Some(rule) = rules().find(|rule| rule.from == "__ns") {
            topics.namespace.clone_from(&rule.to);
        }
        topics.namespace = absolute_namespace(&topics.namespace)?;
        let (node, namespace) = (topics.node_name.clone(), topics.namespace.clone());
        for topic in [
            &mut topics.image,
            &mut topics.camera_info,
            &mut topics.trajectory,
            &mut topics.odometry,
            &mut topics.diagnostics,
        ] {
            *topic = absolute_name(topic, &namespace, &node)?;
            for rule in rules().filter(|rule| !rule.from.starts_with("__")) {
                if *topic == absolute_name(&rule.from, &namespace, &node)? {
                    *topic = absolute_name(&rule.to, &namespace, &node)?;
                    break;
                }
            }
        }
        Ok(())
    }
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

/// `namespace` with its slash in front and none behind.
fn absolute_namespace(namespace: &str) -> Result<String, super::Error> {
    let tokens = namespace.trim_matches('/');
    if tokens.is_empty() {
        return Ok("/".to_owned());
    }
    check_tokens(namespace, tokens)?;
    Ok(format!("/{tokens}"))
}

/// `name` as seen from everywhere: `/x` as it is, `~/x` under the node, `x` under the namespace.
///
/// # Errors
///
/// [`super::Error::Name`] for a name that ROS 2 does not allow.
pub(super) fn absolute_name(name: &str, namespace: &str, node: &str) -> Result<String, super::Error> {
    let root = namespace.trim_end_matches('/');
    let absolute = if name.starts_with('/') {
        name.to_owned()
    } else if let Some(private) = name.strip_prefix("~/") {
        format!("{root}/{node}/{private}")
    } else {
        format!("{root}/{name}")
    };
    check_tokens(name, &absolute[1..])?;
    Ok(absolute)
}

/// The rules of ROS 2 for the slash-separated parts of a name.
fn check_tokens(name: &str, tokens: &str) -> Result<(), super::Error> {
    for token in tokens.split('/') {
        let reason = if token.is_empty() {
            "it has an empty part"
        } else if token.starts_with(|c: char| c.is_ascii_digit()) {
            "a part starts with a digit"
        } else if token.contains("__") {
            "it has two underscores in a row"
        } else if !token.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            "only letters, digits, _ and / are allowed"
        } else {
            continue;
        };
        return Err(super::Error::Name { name: name.to_owned(), reason: reason.to_owned() });
    }
    Ok(())
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
            trajectory: "/ego/trajectory".into(),
            odometry: "~/odometry".into(),
            diagnostics: "/diagnostics".into(),
        }
    }

    fn split(line: &str) -> Result<(Vec<String>, RosArgs), RosArgsError> {
        RosArgs::split(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn what_stands_outside_is_left_alone() {
        let (rest, ros) = split("node run --ros-args -p a:=1 --remap b:=c -- --config x.toml").expect("valid line");
        assert_eq!(rest, ["node", "run", "--config", "x.toml"]);
        assert_eq!(ros.params, [("a".to_owned(), "1".to_owned())]);
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
        assert_eq!(topics.image, "/camera/image_raw");
        assert_eq!(topics.camera_info, "/front/camera/camera_info");
        assert_eq!(topics.odometry, "/front/ego/odometry");
    }

    #[test]
    fn the_first_rule_that_matches_the_whole_name_wins() {
        let line = "--ros-args -r other:/camera/image_raw:=/no -r image_raw:=/no -r /camera/image_raw:=left \
                    -r /camera/image_raw:=/no -r rostopic:///ego/trajectory:=/t -r egoreasoner:/diagnostics:=~/d";
        let (_, ros) = split(line).expect("valid line");
        let mut topics = topics();
        ros.apply(&mut topics).expect("valid names");
        assert_eq!(topics.image, "/left");
        assert_eq!(topics.trajectory, "/t");
        assert_eq!(topics.diagnostics, "/egoreasoner/d");
    }

    #[test]
    fn mistakes_are_named() {
        let message = |line| split(line).expect_err("must fail").to_string();
        assert_eq!(message("--ros-args --remip a:=b"), "unknown flag \"--remip\" after --ros-args");
        assert_eq!(message("--ros-args -r"), "-r needs a value");
        assert_eq!(message("--ros-args -r a=b"), "-r \"a=b\": expected from:=to or node:from:=to");
        assert_eq!(message("--ros-args -p a"), "-p \"a\": expected name:=value");
        assert!(message("--ros-args --params-file x.yaml").contains("use --config FILE"));
    }

    #[test]
    fn names_that_ros_does_not_allow_are_refused() {
        for bad in ["/a//b", "/a/", "2d", "a__b", "a b", "/", ""] {
            assert!(absolute_name(bad, "/", "node").is_err(), "{bad:?}");
        }
        assert_eq!(absolute_name("a/b", "/ns", "node").ok().as_deref(), Some("/ns/a/b"));
    }
}
