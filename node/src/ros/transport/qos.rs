//! QoS: overrides, as rclcpp has them (parameters such as `qos_overrides./camera/image_raw.subscription.reliability`),
//! and ends of a topic that do not hear each other, of which the topic itself shows silence alone.

use std::fmt;

use super::error::RosArgsError;

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

/// An end of a topic, with those of its policies that the other end has to fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// By its name in the graph.
    pub topic: String,
    /// Which one.
    pub end: End,
    /// The type of its messages, as `sensor_msgs/msg/Image`.
    pub message_type: String,
    /// Of an end of the node's own, the key of the config that names the topic; empty where none does, and of others' ends.
    pub key: &'static str,
    /// As in [`Qos`].
    pub is_reliable: bool,
    /// As in [`Qos`].
    pub is_transient_local: bool,
}

/// A publisher and a subscription on one topic that do not hear each other, since less is offered than is requested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// By its name in the graph.
    pub topic: String,
    /// Which of the two is the node's own.
    pub ours: End,
    /// `reliability` or `durability`.
    pub policy: &'static str,
    /// What the publisher offers, as an override's value.
    pub offered: &'static str,
    /// What the subscription requests, as an override's value.
    pub requested: &'static str,
}

impl Mismatch {
    /// What is wrong.
    #[must_use]
    pub fn what(&self) -> String {
        let Self { topic, ours, policy, offered, requested } = self;
        let who = match ours {
            End::Publisher => format!("this node offers {offered}, a subscription requests {requested}"),
            End::Subscription => format!("a publisher offers {offered}, this node requests {requested}"),
        };
        format!("QoS mismatch on {topic}: {policy}: {who}")
    }

    /// What helps.
    #[must_use]
    pub fn remedy(&self) -> String {
        let Self { topic, ours, policy, offered, requested } = self;
        match ours {
            End::Publisher => format!(
                "start the node with -p {PREFIX}{topic}.publisher.{policy}:={requested}, or let the subscription \
                 request {offered}"
            ),
            End::Subscription => format!(
                "start the node with -p {PREFIX}{topic}.subscription.{policy}:={offered}, or let the publisher offer \
                 {requested}"
            ),
        }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what(), self.remedy())
    }
}

/// What keeps ends of this node and ends of others from hearing each other, each thing once.
pub(super) fn mismatches(ours: &[Endpoint], theirs: &[Endpoint]) -> Vec<Mismatch> {
    let mut found = Vec::new();
    for our in ours {
        let is_other_end = |their: &&Endpoint| {
            their.topic == our.topic && their.end != our.end && their.message_type == our.message_type
        };
        for their in theirs.iter().filter(is_other_end) {
            let (offer, request) = match our.end {
                End::Publisher => (our, their),
                End::Subscription => (their, our),
            };
            for [policy, offered, requested] in unmet(offer, request) {
                let mismatch = Mismatch { topic: our.topic.clone(), ours: our.end, policy, offered, requested };
                if !found.contains(&mismatch) {
                    found.push(mismatch);
                }
            }
        }
    }
    found
}

/// The policies of which `offer` has less than `request` wants, each with what is offered and what is requested.
pub(super) fn unmet(offer: &Endpoint, request: &Endpoint) -> impl Iterator<Item = [&'static str; 3]> {
    let reliability = request.is_reliable && !offer.is_reliable;
    let durability = request.is_transient_local && !offer.is_transient_local;
    let rows = [
        (reliability, ["reliability", "best_effort", "reliable"]),
        (durability, ["durability", "volatile", "transient_local"]),
    ];
    rows.into_iter().filter_map(|(is_unmet, words)| is_unmet.then_some(words))
}

#[cfg(test)]
mod tests {
    use super::{End, Endpoint, Mismatch, Override, Qos, mismatches, overridden};

    fn endpoint(topic: &str, end: End, is_reliable: bool, is_transient_local: bool) -> Endpoint {
        let message_type = "sensor_msgs/msg/Image".to_owned();
        Endpoint { topic: topic.to_owned(), end, message_type, key: "", is_reliable, is_transient_local }
    }

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
    fn ends_are_heard_where_no_less_is_offered_than_requested() {
        let bits = [(false, false), (false, true), (true, false), (true, true)];
        for offered in bits {
            for requested in bits {
                let publisher = [endpoint("/t", End::Publisher, offered.0, offered.1)];
                let subscription = [endpoint("/t", End::Subscription, requested.0, requested.1)];
                let policies = |found: Vec<Mismatch>| found.into_iter().map(|m| m.policy).collect::<Vec<_>>();
                let mut expected = Vec::new();
                if !offered.0 && requested.0 {
                    expected.push("reliability");
                }
                if !offered.1 && requested.1 {
                    expected.push("durability");
                }
                let ours = policies(mismatches(&subscription, &publisher));
                assert_eq!(ours, expected, "{offered:?} offered, {requested:?} requested");
                assert_eq!(policies(mismatches(&publisher, &subscription)), expected, "whichever end is ours");
            }
        }
    }

    #[test]
    fn a_mismatch_is_of_the_two_ends_of_one_topic_and_told_once() {
        let ours = [endpoint("/t", End::Subscription, true, false)];
        let deaf = endpoint("/t", End::Publisher, false, false);
        let other_topic = endpoint("/u", End::Publisher, false, false);
        let same_end = endpoint("/t", End::Subscription, false, false);
        assert!(mismatches(&ours, &[other_topic, same_end]).is_empty());
        assert_eq!(mismatches(&ours, &[deaf.clone(), deaf]).len(), 1);
    }

    #[test]
    fn a_mismatch_says_what_to_change_and_that_parameter_is_one() {
        let rows = [
            (
                End::Subscription,
                "QoS mismatch on /cam: reliability: a publisher offers best_effort, this node requests reliable: start \
                 the node with -p qos_overrides./cam.subscription.reliability:=best_effort, or let the publisher offer \
                 reliable",
                ("qos_overrides./cam.subscription.reliability", "best_effort"),
            ),
            (
                End::Publisher,
                "QoS mismatch on /cam: reliability: this node offers best_effort, a subscription requests reliable: \
                 start the node with -p qos_overrides./cam.publisher.reliability:=reliable, or let the subscription \
                 request best_effort",
                ("qos_overrides./cam.publisher.reliability", "reliable"),
            ),
        ];
        for (ours, told, (name, value)) in rows {
            let (policy, offered, requested) = ("reliability", "best_effort", "reliable");
            let mismatch = Mismatch { topic: "/cam".to_owned(), ours, policy, offered, requested };
            assert_eq!(mismatch.to_string(), told);
            assert!(told.contains(&format!("{name}:={value},")));
            assert!(parse(name, value).unwrap().is_some());
        }
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
