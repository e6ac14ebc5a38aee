//! QoS overrides, as rclcpp has them: parameters such as `qos_overrides./camera/image_raw.subscription.reliability`.

use super::ros_args::RosArgsError;

/// What parameters that override a QoS start with.
pub(super) const PREFIX: &str = "qos_overrides.";

/// The policies of a publisher or subscription that this node lets be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Qos {
    /// Lost messages are sent again; a best-effort publisher is not heard by a reliable subscription.
    pub is_reliable: bool,
    /// Subscriptions that come later get the last messages.
    pub is_transient_local: bool,
    /// Messages that are kept.
    pub depth: u32,
}

/// Which end of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The sending one.
    Publisher,
    /// The receiving one.
    Subscription,
}

/// One policy of one end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    topic: String,
    end: End,
    policy: Policy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Policy {
    Reliability { is_reliable: bool },
    Durability { is_transient_local: bool },
    Depth(u32),
}

impl Override {
    /// Reads a parameter; `None` where it is about something else.
    ///
    /// # Errors
    ///
    /// [`RosArgsError::BadRule`] for an end, a policy or a value that ROS 2 or this node does not have.
    pub fn parse(name: &str, value: &toml::Value) -> Result<Option<Self>, RosArgsError> {
        let Some(rest) = name.strip_prefix(PREFIX) else { return Ok(None) };
        let bad = |expected| RosArgsError::BadRule { flag: name.to_owned(), value: value.to_string(), expected };
        let form = "qos_overrides./TOPIC.publisher|subscription.reliability|durability|history|depth";
        let mut parts = rest.rsplitn(3, '.');
        let (Some(policy), Some(end), Some(topic)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(bad(form));
        };
        let end = match end {
            "publisher" => End::Publisher,
            "subscription" => End::Subscription,
            _ => return Err(bad(form)),
        };
        let policy = match (policy, value.as_str()) {
            ("reliability", Some("reliable")) => Policy::Reliability { is_reliable: true },
            ("reliability", Some("best_effort")) => Policy::Reliability { is_reliable: false },
            ("reliability", _) => return Err(bad("reliable or best_effort")),
            ("durability", Some("volatile")) => Policy::Durability { is_transient_local: false },
            ("durability", Some("transient_local")) => Policy::Durability { is_transient_local: true },
            ("durability", _) => return Err(bad("volatile or transient_local")),
            // All that this node has: nothing to override.
            ("history", Some("keep_last")) => return Ok(None),
            ("history", _) => return Err(bad("keep_last")),
            ("depth", _) => {
                match value.as_integer().and_then(|n| u32::try_from(n).ok()).filter(|n| (1..=1000).contains(n)) {
                    Some(depth) => Policy::Depth(depth),
                    None => return Err(bad("a whole number from 1 to 1000")),
                }
            }
            _ => return Err(bad(form)),
        };
        Ok(Some(Self { topic: topic.to_owned(), end, policy }))
    }
}

/// `qos` with what the overrides say of this end of `topic`, a name as seen from everywhere; the last one counts.
pub(super) fn overridden(overrides: &[Override], topic: &str, end: End, qos: Qos) -> Qos {
    let ours = overrides.iter().filter(|o| o.end == end && o.topic == topic);
    ours.fold(qos, |qos, o| match o.policy {
        Policy::Reliability { is_reliable } => Qos { is_reliable, ..qos },
        Policy::Durability { is_transient_local } => Qos { is_transient_local, ..qos },
        Policy::Depth(depth) => Qos { depth, ..qos },
    })
}

#[cfg(test)]
mod tests {
    use super::{End, Override, Qos, overridden};

    fn parse(name: &str, value: impl Into<toml::Value>) -> Result<Option<Override>, String> {
        Override::parse(name, &value.into()).map_err(|e| e.to_string())
    }

    #[test]
    fn the_last_override_of_an_end_counts_and_others_do_not() {
        let plain = Qos { is_reliable: false, is_transient_local: false, depth: 10 };
        let overrides: Vec<Override> = [
            parse("qos_overrides./cam/image.subscription.reliability", "reliable"),
            parse("qos_overrides./cam/image.subscription.depth", 3),
            parse("qos_overrides./cam/image.subscription.depth", 4),
            parse("qos_overrides./cam/image.subscription.history", "keep_last"),
            parse("qos_overrides./ego/trajectory.publisher.durability", "transient_local"),
            parse("window.stride", 2),
        ]
        .into_iter()
        .filter_map(|parsed| parsed.unwrap())
        .collect();
        assert_eq!(overrides.len(), 4);
        let of = |topic, end| overridden(&overrides, topic, end, plain);
        assert_eq!(of("/cam/image", End::Subscription), Qos { is_reliable: true, depth: 4, ..plain });
        assert_eq!(of("/cam/image", End::Publisher), plain);
        assert_eq!(of("/ego/trajectory", End::Publisher), Qos { is_transient_local: true, ..plain });
        assert_eq!(of("/ego/odometry", End::Publisher), plain);
    }

    #[test]
    fn mistakes_are_named() {
        let rows: [(&str, toml::Value, &str); 7] = [
            ("qos_overrides./t.subscription.reliability", "sure".into(), "reliable or best_effort"),
            ("qos_overrides./t.publisher.durability", 1.into(), "volatile or transient_local"),
            ("qos_overrides./t.publisher.history", "keep_all".into(), "keep_last"),
            ("qos_overrides./t.publisher.depth", 0.into(), "1 to 1000"),
            ("qos_overrides./t.publisher.depth", "many".into(), "1 to 1000"),
            ("qos_overrides./t.reader.depth", 1.into(), "publisher|subscription"),
            ("qos_overrides.reliability", "reliable".into(), "publisher|subscription"),
        ];
        for (name, value, wanted) in rows {
            let message = parse(name, value).unwrap_err();
            assert!(message.contains(name) && message.contains(wanted), "{message}");
        }
    }
}
