//! What the graph tells of why nothing comes in: nobody publishes, another type, a QoS that does not fit, messages that were
//! sent before this node came; and who else publishes what the node does. A topic itself shows silence alone.
//!
//! Architecture Invariant: a transport says which ends there are, this module what follows from them; whether it matters, the
//! node's counters say.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fmt;

use camera::ros::Type;

use super::qos::{End, Endpoint, Mismatch, PREFIX, mismatches, unmet};

/// The key of the camera's images.
pub(crate) const IMAGE: &str = "topics.image";
/// The key of what the camera says of itself.
pub(crate) const CAMERA_INFO: &str = "topics.camera_info";
/// The key of the odometry that gives the scale.
pub(crate) const REFERENCE: &str = "scale.odometry_topic";
/// The key of the program that is followed.
pub(crate) const FOLLOWED: &str = "odometry.topic";

/// Outputs of which two publishers make one that is of neither.
const POSES: [&str; 3] = ["topics.trajectory", "topics.odometry", "topics.pose"];

/// Topics of the same type that a remark names; the nearest by name come first.
const MOST_NAMED: usize = 5;

/// What the graph tells of a topic of the node's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remark {
    /// Two ends that do not hear each other.
    Qos(Mismatch),
    /// A publisher of another type than the node reads.
    Type {
        /// By its name in the graph.
        topic: String,
        /// The key of the config that names it.
        key: &'static str,
        /// What the node reads.
        expected: String,
        /// What is published.
        got: String,
    },
    /// Nobody publishes what the node waits for.
    Alone {
        /// By its name in the graph.
        topic: String,
        /// The key of the config that names it.
        key: &'static str,
        /// What the node reads.
        expected: String,
        /// Where messages that it could read are published, the nearest by name first.
        others: Vec<String>,
    },
    /// What was sent before this node came is kept for those who ask for it, and the node does not.
    Kept {
        /// By its name in the graph.
        topic: String,
        /// The key of the config that names it.
        key: &'static str,
    },
    /// Publishers that the node would hear.
    Fitting {
        /// By its name in the graph.
        topic: String,
        /// The key of the config that names it.
        key: &'static str,
        /// How many.
        publishers: usize,
    },
    /// Others publish where the node does.
    Shared {
        /// By their names in the graph.
        topics: Vec<String>,
    },
}

impl Remark {
    /// The key of the topic in, where it is about one that the node may or may not hear.
    #[must_use]
    pub fn waits_for(&self) -> Option<&'static str> {
        match self {
            Self::Alone { key, .. } | Self::Kept { key, .. } | Self::Fitting { key, .. } => Some(*key),
            Self::Qos(_) | Self::Type { .. } | Self::Shared { .. } => None,
        }
    }

    /// Whether it is wrong whatever comes: others of the node's inputs, or another's words among its own.
    #[must_use]
    pub fn is_fault(&self) -> bool {
        match self {
            // What others do not hear is theirs.
            Self::Qos(mismatch) => mismatch.ours == End::Subscription,
            Self::Type { .. } | Self::Shared { .. } => true,
            Self::Alone { .. } | Self::Kept { .. } | Self::Fitting { .. } => false,
        }
    }

    /// Whether it is the same, told again: where else messages are published may change meanwhile.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Alone { key, .. }, Self::Alone { key: other, .. }) => key == other,
            _ => self == other,
        }
    }

    /// What is seen.
    #[must_use]
    pub fn what(&self) -> String {
        match self {
            Self::Qos(mismatch) => mismatch.what(),
            Self::Type { topic, key, expected, got } => {
                format!("{topic} ({key}) is published as {got}, and this node reads {expected}")
            }
            Self::Alone { topic, key, expected, others } if others.is_empty() => {
                format!("nobody publishes {topic} ({key}), nor {expected} on a topic that this node knows of")
            }
            Self::Alone { topic, key, others, .. } => {
                format!("nobody publishes {topic} ({key}), but there is {}", named(others))
            }
            Self::Kept { topic, key } => format!(
                "{topic} ({key}) is kept for those who come late (the publisher offers transient_local), and this node asks \
                 for new messages alone (volatile)"
            ),
            Self::Fitting { topic, key, publishers } => {
                let publishers =
                    if *publishers == 1 { "1 publisher".to_owned() } else { format!("{publishers} publishers") };
                format!("{topic} ({key}) has {publishers} of the right type and QoS, and no message comes")
            }
            Self::Shared { topics } => format!("another node publishes on {} too", topics.join(", ")),
        }
    }

    /// What helps.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Self::Qos(mismatch) => mismatch.remedy(),
            Self::Type { key: IMAGE, got, .. } if got == Type::CompressedImage.name() => {
                "set topics.image_transport = \"compressed\"".to_owned()
            }
            Self::Type { key: IMAGE, got, .. } if got == Type::Image.name() => {
                "set topics.image_transport = \"raw\"".to_owned()
            }
            Self::Type { key, .. } => format!("set {key} to a topic of the type that is read"),
            Self::Alone { key, others, .. } if others.is_empty() => {
                format!("start what publishes it, in this ROS_DOMAIN_ID, or set {key}")
            }
            Self::Alone { key: CAMERA_INFO, .. } => {
                format!("set {CAMERA_INFO} to the one of the camera of {IMAGE}, or remap it")
            }
            Self::Alone { key: IMAGE, .. } => {
                format!("set {IMAGE} (with topics.image_transport) and {CAMERA_INFO}, or remap them")
            }
            Self::Alone { key, .. } => format!("set {key}, or remap it"),
            Self::Kept { topic, .. } => format!(
                "start the node with -p {PREFIX}{topic}.subscription.durability:=transient_local \
                 -p {PREFIX}{topic}.subscription.reliability:=reliable"
            ),
            Self::Fitting { .. } => {
                "look whether the publisher sends (ros2 topic hz); large best-effort images get lost without \
                 config/fastdds.xml"
                    .to_owned()
            }
            Self::Shared { .. } => {
                "give each node a namespace (-r __ns:=/NAME) and relative names in [topics], or end the other"
                    .to_owned()
            }
        }
    }
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what(), self.remedy())
    }
}

/// A few names, and how many there are beside them.
fn named(topics: &[String]) -> String {
    let first = topics.iter().take(MOST_NAMED).cloned().collect::<Vec<_>>().join(", ");
    match topics.len().saturating_sub(MOST_NAMED) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

/// Everything that can be told of the node's own ends, by the ends of others.
pub(super) fn remarks(ours: &[Endpoint], theirs: &[Endpoint]) -> Vec<Remark> {
    let mut found: Vec<Remark> = mismatches(ours, theirs).into_iter().map(Remark::Qos).collect();
    let image = ours.iter().find(|our| our.key == IMAGE).map_or("", |our| our.topic.as_str());
    for our in ours.iter().filter(|our| our.end == End::Subscription && !our.key.is_empty()) {
        found.extend(heard(our, theirs, image));
    }
    let shared = ours.iter().filter(|our| POSES.contains(&our.key) && publishers(&our.topic, theirs).next().is_some());
    let topics: Vec<String> = shared.map(|our| our.topic.clone()).collect();
    if !topics.is_empty() {
        found.push(Remark::Shared { topics });
    }
    found
}

/// Names that may be asked for where a graph cannot be listed: what the camera of the images, or of another form of them, is
/// called by image_transport.
#[cfg(any(feature = "ros", test))]
pub(super) fn nearby(ours: &[Endpoint]) -> BTreeSet<String> {
    let Some(image) = ours.iter().find(|our| our.key == IMAGE).map(|our| our.topic.as_str()) else {
        return BTreeSet::new();
    };
    let raw = image.strip_suffix("/compressed").unwrap_or(image);
    let camera = raw.rsplit_once('/').map_or("", |(camera, _)| camera);
    let names =
        ["image_raw", "image", "image_rect", "image_rect_color", "image_color", "color/image_raw", "camera_info"];
    let names = names.map(|name| format!("{camera}/{name}"));
    let compressed = names.iter().map(|name| format!("{name}/compressed")).collect::<Vec<_>>();
    let all = names.into_iter().chain(compressed).chain([raw.to_owned(), format!("{raw}/compressed")]);
    all.filter(|name| ours.iter().all(|our| our.topic != *name)).collect()
}

fn publishers<'a>(topic: &'a str, theirs: &'a [Endpoint]) -> impl Iterator<Item = &'a Endpoint> {
    theirs.iter().filter(move |their| their.end == End::Publisher && their.topic == topic)
}

/// What is known of a topic that the node listens to.
fn heard(our: &Endpoint, theirs: &[Endpoint], image: &str) -> Vec<Remark> {
    let (topic, key) = (our.topic.clone(), our.key);
    if publishers(&our.topic, theirs).next().is_none() {
        let others = others(our, theirs, image);
        return vec![Remark::Alone { topic, key, expected: our.message_type.clone(), others }];
    }
    let (right, wrong): (Vec<_>, Vec<_>) =
        publishers(&our.topic, theirs).partition(|their| their.message_type == our.message_type);
    let wrong: BTreeSet<&str> = wrong.into_iter().map(|their| their.message_type.as_str()).collect();
    let of_another_type = |got: &str| {
        let (expected, got) = (our.message_type.clone(), got.to_owned());
        Remark::Type { topic: topic.clone(), key, expected, got }
    };
    let mut found: Vec<Remark> = wrong.into_iter().map(of_another_type).collect();
    let fitting: Vec<&Endpoint> = right.into_iter().filter(|their| unmet(their, our).next().is_none()).collect();
    // Of images and poses the last one is worth nothing; CameraInfo may come once.
    if key == CAMERA_INFO && !our.is_transient_local && fitting.iter().any(|their| their.is_transient_local) {
        found.push(Remark::Kept { topic, key });
    } else if !fitting.is_empty() {
        found.push(Remark::Fitting { topic, key, publishers: fitting.len() });
    }
    found
}

/// Topics that could be meant instead, the nearest by name first: of CameraInfo, to the images'.
fn others(our: &Endpoint, theirs: &[Endpoint], image: &str) -> Vec<String> {
    let images = [Type::Image.name(), Type::CompressedImage.name()];
    let is_meant = |their: &&Endpoint| {
        let of = their.message_type.as_str();
        their.end == End::Publisher && (of == our.message_type || (our.key == IMAGE && images.contains(&of)))
    };
    let near = if our.key == CAMERA_INFO { image } else { our.topic.as_str() };
    let names: BTreeSet<(Reverse<usize>, &str)> = theirs
        .iter()
        .filter(is_meant)
        .map(|their| (Reverse(in_common(&their.topic, near)), their.topic.as_str()))
        .collect();
    names.into_iter().map(|(_, name)| name.to_owned()).collect()
}

/// Parts that two names begin with.
fn in_common(a: &str, b: &str) -> usize {
    a.split('/').zip(b.split('/')).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::{CAMERA_INFO, IMAGE, Remark, nearby, remarks};
    use crate::ros::transport::qos::{End, Endpoint};

    const IMAGE_TYPE: &str = "sensor_msgs/msg/Image";
    const COMPRESSED: &str = "sensor_msgs/msg/CompressedImage";
    const INFO: &str = "sensor_msgs/msg/CameraInfo";
    const ODOMETRY: &str = "nav_msgs/msg/Odometry";

    fn subscription(key: &'static str, topic: &str, of: &str) -> Endpoint {
        Endpoint { key, end: End::Subscription, ..publisher(topic, of) }
    }

    /// Of another node: best effort, volatile.
    fn publisher(topic: &str, of: &str) -> Endpoint {
        Endpoint {
            topic: topic.to_owned(),
            end: End::Publisher,
            message_type: of.to_owned(),
            key: "",
            is_reliable: false,
            is_transient_local: false,
        }
    }

    fn camera() -> Vec<Endpoint> {
        vec![
            subscription(IMAGE, "/front/image_raw", IMAGE_TYPE),
            subscription(CAMERA_INFO, "/camera/camera_info", INFO),
            Endpoint { key: "topics.odometry", ..publisher("/ego/odometry", ODOMETRY) },
        ]
    }

    fn told(theirs: &[Endpoint]) -> Vec<String> {
        remarks(&camera(), theirs).iter().map(Remark::to_string).collect()
    }

    #[test]
    fn a_camera_info_that_nobody_publishes_is_named_with_the_one_beside_the_images() {
        let theirs = [
            publisher("/front/image_raw", IMAGE_TYPE),
            publisher("/rear/camera_info", INFO),
            publisher("/front/camera_info", INFO),
        ];
        let told = told(&theirs);
        assert_eq!(
            told[1],
            "nobody publishes /camera/camera_info (topics.camera_info), but there is /front/camera_info, \
             /rear/camera_info: set topics.camera_info to the one of the camera of topics.image, or remap it"
        );
        assert!(told[0].starts_with("/front/image_raw (topics.image) has 1 publisher of the right type"), "{told:?}");
        assert_eq!(told.len(), 2);
    }

    #[test]
    fn images_that_nobody_publishes_are_looked_for_in_both_types() {
        let theirs = [publisher("/left/image/compressed", COMPRESSED), publisher("/wheels", ODOMETRY)];
        let told = told(&theirs);
        assert_eq!(
            told[0],
            "nobody publishes /front/image_raw (topics.image), but there is /left/image/compressed: set topics.image \
             (with topics.image_transport) and topics.camera_info, or remap them"
        );
        assert!(told[1].contains("nor sensor_msgs/msg/CameraInfo on a topic"), "{told:?}");
        assert!(told[1].contains("in this ROS_DOMAIN_ID"), "{told:?}");
    }

    #[test]
    fn another_type_on_the_image_topic_names_the_key_that_reads_it() {
        for (reads, published, value) in [(IMAGE_TYPE, COMPRESSED, "compressed"), (COMPRESSED, IMAGE_TYPE, "raw")] {
            let ours = [subscription(IMAGE, "/front", reads)];
            let told = remarks(&ours, &[publisher("/front", published)]);
            let expected = format!(
                "/front (topics.image) is published as {published}, and this node reads {reads}: set \
                 topics.image_transport = \"{value}\""
            );
            assert_eq!(told.iter().map(Remark::to_string).collect::<Vec<_>>(), [expected]);
            assert!(told[0].is_fault());
        }
        let ours = [subscription("odometry.topic", "/slam", ODOMETRY)];
        let told = remarks(&ours, &[publisher("/slam", "geometry_msgs/msg/PoseStamped")]);
        assert!(told[0].to_string().contains("set odometry.topic to a topic of the type"), "{told:?}");
    }

    #[test]
    fn a_camera_info_that_is_sent_once_and_kept_names_the_parameters_that_ask_for_it() {
        let kept = Endpoint { is_reliable: true, is_transient_local: true, ..publisher("/info", INFO) };
        let asks = |is_transient_local| {
            let ours = [Endpoint { is_transient_local, is_reliable: true, ..subscription(CAMERA_INFO, "/info", INFO) }];
            remarks(&ours, std::slice::from_ref(&kept))
        };
        let told = asks(false);
        assert_eq!(told, [Remark::Kept { topic: "/info".to_owned(), key: CAMERA_INFO }]);
        let words = told[0].to_string();
        for part in ["/info", "transient_local", "-p qos_overrides./info.subscription.durability:=transient_local"] {
            assert!(words.contains(part), "`{part}` is not in: {words}");
        }
        assert!(words.ends_with("-p qos_overrides./info.subscription.reliability:=reliable"), "{words}");
        let fitting = Remark::Fitting { topic: "/info".to_owned(), key: CAMERA_INFO, publishers: 1 };
        assert_eq!(asks(true), [fitting], "who asks gets it");
    }

    #[test]
    fn an_output_with_another_publisher_is_named() {
        let theirs = [publisher("/ego/odometry", ODOMETRY)];
        let told = told(&theirs);
        let shared = told.last().map(String::as_str);
        assert_eq!(
            shared,
            Some(
                "another node publishes on /ego/odometry too: give each node a namespace (-r __ns:=/NAME) and relative names \
                 in [topics], or end the other"
            )
        );
    }

    #[test]
    fn a_publisher_that_does_not_fit_is_not_called_fitting() {
        let ours = [Endpoint { is_reliable: true, ..subscription(IMAGE, "/front", IMAGE_TYPE) }];
        let told = remarks(&ours, &[publisher("/front", IMAGE_TYPE)]);
        assert!(matches!(told[..], [Remark::Qos(_)]), "{told:?}");
    }

    #[test]
    fn what_else_a_camera_may_be_called_can_be_asked_for() {
        let names = nearby(&camera());
        for name in ["/front/camera_info", "/front/image_raw/compressed", "/front/image_rect"] {
            assert!(names.contains(name), "{name} is not in {names:?}");
        }
        assert!(!names.contains("/front/image_raw"), "it is the node's own");
    }
}
