//! `/tf` and `/tf_static`, where the ROS 2 that the node was built with has their type. Robots have it; the Python wheels
//! that the tests use do not, which the build script finds out.

use r2r::{Node, Result};

use super::{Error, Topics};
use crate::ros::message::TransformMessage;

#[cfg(tf2_msgs)]
pub(super) struct Transforms {
    tf: r2r::Publisher<r2r::tf2_msgs::msg::TFMessage>,
    tf_static: r2r::Publisher<r2r::tf2_msgs::msg::TFMessage>,
}

#[cfg(tf2_msgs)]
impl Transforms {
    pub(super) fn new(node: &mut Node, topics: &Topics) -> std::result::Result<Self, Error> {
        use super::super::{TF, TF_STATIC};
        let tf = super::publisher(node, topics, TF)?;
        Ok(Self { tf, tf_static: super::publisher(node, topics, TF_STATIC)? })
    }

    pub(super) fn publish(&self, transform: TransformMessage) -> Result<()> {
        self.tf.publish(&message(transform))
    }

    pub(super) fn publish_static(&self, transform: TransformMessage) -> Result<()> {
        self.tf_static.publish(&message(transform))
    }
}

#[cfg(tf2_msgs)]
fn message(transform: TransformMessage) -> r2r::tf2_msgs::msg::TFMessage {
    use r2r::geometry_msgs::msg::{Quaternion, Transform, TransformStamped, Vector3};
    let [x, y, z] = transform.translation;
    let translation = Vector3 { x, y, z };
    let [x, y, z, w] = transform.rotation_xyzw;
    let stamped = TransformStamped {
        header: super::header(transform.stamp, transform.frame_id),
        child_frame_id: transform.child_frame_id,
        transform: Transform { translation, rotation: Quaternion { x, y, z, w } },
    };
    r2r::tf2_msgs::msg::TFMessage { transforms: vec![stamped] }
}

/// Nothing to publish with.
#[cfg(not(tf2_msgs))]
pub(super) struct Transforms;

#[cfg(not(tf2_msgs))]
impl Transforms {
    pub(super) fn new(_: &mut Node, _: &Topics) -> std::result::Result<Self, Error> {
        Ok(Self)
    }

    pub(super) fn publish(&self, transform: TransformMessage) -> Result<()> {
        drop(transform);
        tracing::warn!("no transforms: the ROS 2 that the node was built with has no tf2_msgs");
        Ok(())
    }

    pub(super) fn publish_static(&self, transform: TransformMessage) -> Result<()> {
        self.publish(transform)
    }
}
