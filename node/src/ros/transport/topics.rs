//! Names and policies of the node's topics.

use camera::ros::Type;

use super::error::Error;
use super::names::absolute_name;
use super::qos::{self, End, Endpoint, Override, Qos};

/// Depth of the history of the node's publishers, and of CameraInfo.
pub(crate) const KEEP_LAST: u32 = 10;

/// Transforms that change.
pub(crate) const TF: &str = "/tf";
/// Transforms that do not.
pub(crate) const TF_STATIC: &str = "/tf_static";
/// Changes of the lifecycle's state.
pub(crate) const TRANSITION_EVENT: &str = "~/transition_event";

/// Parameters of all nodes.
pub(crate) const PARAMETER_EVENTS: &str = "/parameter_events";
/// Depth of the history of that topic, as rclcpp has it: a change must not be missed.
pub(crate) const KEEP_PARAMETER_EVENTS: u32 = 1000;

/// Names and policies of the node's topics. Names are as configured; [`Topics::resolve`] says what they are in the graph.
#[derive(Debug, Clone, PartialEq)]
pub struct Topics {
    /// ROS node name.
    pub node_name: String,
    /// ROS namespace, `/` at the root.
    pub namespace: String,
    /// ROS domain; `None` reads `ROS_DOMAIN_ID`, 0 where that is unset.
    pub domain_id: Option<u16>,
    /// Image topic.
    pub image: String,
    /// Whether `image` carries `sensor_msgs/CompressedImage`.
    pub image_compressed: bool,
    /// Whether the image subscription is reliable; best effort (sensor data) otherwise.
    pub image_reliable: bool,
    /// Depth of the image subscription's history.
    pub image_queue_depth: u32,
    /// CameraInfo topic.
    pub camera_info: String,
    /// Topic of the odometry that gives the scale, where one does.
    pub reference_odometry: Option<String>,
    /// Topic of the program whose poses the odometry follows, where it does.
    pub followed_odometry: Option<String>,
    /// Path topic.
    pub trajectory: String,
    /// Odometry topic.
    pub odometry: String,
    /// Topic of the same poses without covariance.
    pub pose: String,
    /// Topic of the scale.
    pub scale: String,
    /// Diagnostics topic.
    pub diagnostics: String,
    /// Topic of the answers' text.
    pub reasoning: String,
    /// Topic of the node's status.
    pub status: String,
    /// Rules of the command line, names as seen from everywhere: from, to.
    pub renames: Vec<(String, String)>,
    /// QoS overrides of the command line.
    pub qos: Vec<Override>,
}

impl Topics {
    /// What a name is in the graph: absolute, and renamed by the first rule that matches it.
    ///
    /// # Errors
    ///
    /// [`Error::Name`] for a name that ROS 2 does not allow.
    pub fn resolve(&self, name: &str) -> Result<String, Error> {
        let absolute = absolute_name(name, &self.namespace, &self.node_name)?;
        let renamed = self.renames.iter().find(|(from, _)| *from == absolute);
        Ok(renamed.map_or(absolute, |(_, to)| to.clone()))
    }

    /// The same with the names of the graph in place of those that are configured.
    ///
    /// # Errors
    ///
    /// [`Error::Name`] for a name that ROS 2 does not allow.
    pub fn resolved(&self) -> Result<Self, Error> {
        let [image, camera_info, trajectory, odometry, pose, scale, diagnostics, reasoning, status] = self.names();
        Ok(Self {
            image: self.resolve(image)?,
            camera_info: self.resolve(camera_info)?,
            reference_odometry: self.reference_odometry.as_deref().map(|name| self.resolve(name)).transpose()?,
            followed_odometry: self.followed_odometry.as_deref().map(|name| self.resolve(name)).transpose()?,
            trajectory: self.resolve(trajectory)?,
            odometry: self.resolve(odometry)?,
            pose: self.resolve(pose)?,
            scale: self.resolve(scale)?,
            diagnostics: self.resolve(diagnostics)?,
            reasoning: self.resolve(reasoning)?,
            status: self.resolve(status)?,
            renames: Vec::new(),
            ..self.clone()
        })
    }

    /// All names that must be configured.
    pub(super) fn names(&self) -> [&str; 9] {
        [
            &self.image,
            &self.camera_info,
            &self.trajectory,
            &self.odometry,
            &self.pose,
            &self.scale,
            &self.diagnostics,
            &self.reasoning,
            &self.status,
        ]
    }

    /// The odometries that the node hears.
    pub(super) fn odometries(&self) -> impl Iterator<Item = &String> {
        self.reference_odometry.iter().chain(&self.followed_odometry)
    }

    /// The policies of a subscription: of the image, of CameraInfo, which comes with the image, and of the odometries, which
    /// are as good with a position less.
    pub(super) fn sensor_qos(&self, name: &str) -> Result<Qos, Error> {
        let depth = if name == self.image { self.image_queue_depth } else { KEEP_LAST };
        let is_reliable = self.image_reliable && !self.odometries().any(|odometry| odometry == name);
        let qos = Qos { is_reliable, is_transient_local: false, depth };
        Ok(qos::overridden(&self.qos, &self.resolve(name)?, End::Subscription, qos))
    }

    /// The policies of a publisher.
    pub(super) fn publisher_qos(&self, name: &str) -> Result<Qos, Error> {
        let qos = match name {
            // Whoever comes later must get it: it is not sent again.
            TF_STATIC => Qos { is_reliable: true, is_transient_local: true, depth: 1 },
            PARAMETER_EVENTS => Qos { is_reliable: true, is_transient_local: false, depth: KEEP_PARAMETER_EVENTS },
            _ => Qos { is_reliable: true, is_transient_local: false, depth: KEEP_LAST },
        };
        Ok(qos::overridden(&self.qos, &self.resolve(name)?, End::Publisher, qos))
    }

    /// The type of the images' messages.
    fn image_type(&self) -> Type {
        if self.image_compressed { Type::CompressedImage } else { Type::Image }
    }

    /// The node's own ends of topics. Those of services, which cannot be chosen, are left out.
    pub(super) fn endpoints(&self) -> Result<Vec<Endpoint>, Error> {
        const STATUS: &str = "diagnostic_msgs/msg/DiagnosticStatus";
        let heard = [
            ("topics.image", Some(&self.image), self.image_type()),
            ("topics.camera_info", Some(&self.camera_info), Type::CameraInfo),
            ("scale.odometry_topic", self.reference_odometry.as_ref(), Type::Odometry),
            ("odometry.topic", self.followed_odometry.as_ref(), Type::Odometry),
        ];
        let said: [(&'static str, &str, &str); 11] = [
            ("topics.trajectory", &self.trajectory, Type::Path.name()),
            ("topics.odometry", &self.odometry, Type::Odometry.name()),
            ("topics.pose", &self.pose, Type::PoseStamped.name()),
            ("topics.scale", &self.scale, STATUS),
            ("topics.diagnostics", &self.diagnostics, Type::DiagnosticArray.name()),
            ("topics.reasoning", &self.reasoning, "std_msgs/msg/String"),
            ("topics.status", &self.status, STATUS),
            ("", TF, Type::TfMessage.name()),
            ("", TF_STATIC, Type::TfMessage.name()),
            ("", TRANSITION_EVENT, "lifecycle_msgs/msg/TransitionEvent"),
            ("", PARAMETER_EVENTS, "rcl_interfaces/msg/ParameterEvent"),
        ];
        let endpoint =
            |(key, name, message_type): (&'static str, &str, &str), end: End, qos: Qos| -> Result<_, Error> {
                let Qos { is_reliable, is_transient_local, .. } = qos;
                let (topic, message_type) = (self.resolve(name)?, message_type.to_owned());
                Ok(Endpoint { topic, end, message_type, key, is_reliable, is_transient_local })
            };
        let heard = heard.into_iter().filter_map(|(key, name, of)| Some((key, name?.as_str(), of.name())));
        let heard = heard.map(|row| endpoint(row, End::Subscription, self.sensor_qos(row.1)?));
        let said = said.into_iter().map(|row| endpoint(row, End::Publisher, self.publisher_qos(row.1)?));
        heard.chain(said).collect()
    }

    /// The node's own odometry is none to hear, by whatever names: of itself it would learn that it is right.
    ///
    /// # Errors
    ///
    /// [`Error::OwnOdometry`] with the key that names it, [`Error::Name`] for a name that ROS 2 does not allow.
    pub fn refuse_own_odometry(&self) -> Result<(), Error> {
        let own = self.resolve(&self.odometry)?;
        let heard = [("scale.odometry_topic", &self.reference_odometry), ("odometry.topic", &self.followed_odometry)];
        for (key, name) in heard {
            let Some(name) = name else { continue };
            if self.resolve(name)? == own {
                return Err(Error::OwnOdometry { key, topic: name.clone(), own });
            }
        }
        Ok(())
    }

    /// The node's name with its namespace.
    #[must_use]
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.namespace.trim_end_matches('/'), self.node_name)
    }

    /// The configured domain, else `ROS_DOMAIN_ID`, else 0.
    pub(super) fn domain(&self) -> Result<u16, Error> {
        match self.domain_id {
            Some(id) => Ok(id),
            None => environment_domain(),
        }
    }
}

/// `ROS_DOMAIN_ID`, 0 where it is unset or empty.
pub(super) fn environment_domain() -> Result<u16, Error> {
    const MAX_DOMAIN: u16 = 232; // the ports of 233 would pass 65535
    match std::env::var("ROS_DOMAIN_ID") {
        Ok(text) if !text.trim().is_empty() => {
            text.trim().parse().ok().filter(|&id| id <= MAX_DOMAIN).ok_or(Error::DomainId { got: text })
        }
        _ => Ok(0),
    }
}
