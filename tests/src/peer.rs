//! A node of the ROS graph with nothing in it yet.

use anyhow::{Result, anyhow};
use futures::executor::block_on;
use ros2_client::dds::rustdds::{DomainParticipant, Topic};
use ros2_client::qos::QosProfile;
use ros2_client::{
    Context, ContextOptions, MessageTypeName, Name, Node, NodeName, NodeOptions, Publisher, Subscription,
};
use serde::Serialize;

/// Fields go in this order: the participant outlives the node's writers, which say goodbye through it.
pub struct Peer {
    pub node: Node,
    _participant: DomainParticipant,
}

impl Peer {
    pub fn join(domain: u16, name: &str) -> Result<Self> {
        let context = Context::with_options(ContextOptions::new().domain_id(domain))
            .map_err(|e| anyhow!("cannot join ROS domain {domain}: {e}"))?;
        let node_name = NodeName::new("/", name).map_err(|e| anyhow!("{name} is not a node's name: {e}"))?;
        let options = NodeOptions::new().enable_rosout(false).start_parameter_services(false);
        let mut node = context.new_node(node_name, options).map_err(|e| anyhow!("cannot create node {name}: {e}"))?;
        let spinner = node.spinner().map_err(|e| anyhow!("cannot spin node {name}: {e}"))?;
        std::thread::spawn(move || block_on(spinner.spin())); // ends with the node
        Ok(Self { node, _participant: context.domain_participant() })
    }

    fn topic(&self, name: &str, package: &str, message: &str, qos: &QosProfile) -> Result<Topic> {
        let topic = Name::parse(name).map_err(|e| anyhow!("{name} is not a topic's name: {e}"))?;
        self.node
            .create_topic(&topic, MessageTypeName::new(package, message), qos)
            .map_err(|e| anyhow!("cannot create topic {name}: {e}"))
    }

    pub fn publisher<Wire: Serialize>(
        &mut self,
        name: &str,
        package: &str,
        message: &str,
        qos: &QosProfile,
    ) -> Result<Publisher<Wire>> {
        let topic = self.topic(name, package, message, qos)?;
        self.node.create_publisher(&topic, Some(qos.clone())).map_err(|e| anyhow!("cannot publish {name}: {e}"))
    }

    pub fn subscription<Wire: 'static>(
        &mut self,
        name: &str,
        package: &str,
        message: &str,
        qos: &QosProfile,
    ) -> Result<Subscription<Wire>> {
        let topic = self.topic(name, package, message, qos)?;
        self.node.create_subscription(&topic, Some(qos.clone())).map_err(|e| anyhow!("cannot subscribe to {name}: {e}"))
    }
}
