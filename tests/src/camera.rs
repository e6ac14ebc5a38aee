//! A camera driver: publishes whatever images and CameraInfo it is given, with whatever stamps.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use camera::message::{CameraInfoMessage, ImageMessage, ImagePayload};
use camera::ros::{ByteBuf, CameraInfo, CompressedImage, Header, Image};
use ros2_client::Publisher;
use ros2_client::qos::{History, QosProfile, WhenFull};

use crate::peer::Peer;

/// A reliable publisher whose readers are behind waits this long before it gives up.
const READERS_ARE_BEHIND: Duration = Duration::from_secs(5);

/// Topics and QoS of a camera.
#[derive(Debug, Clone)]
pub struct Topics {
    /// Absolute.
    pub image: String,
    /// Absolute.
    pub camera_info: String,
    /// Whether `image` carries `sensor_msgs/CompressedImage`.
    pub compressed: bool,
    /// Of both.
    pub qos: QosProfile,
}

impl Default for Topics {
    /// What config/node.toml listens to, reliable.
    fn default() -> Self {
        Self {
            image: "/camera/image_raw".to_owned(),
            camera_info: "/camera/camera_info".to_owned(),
            compressed: false,
            qos: reliable(10),
        }
    }
}

/// Loses nothing: a node has to be configured to `topics.image_reliability=reliable` to hear it so.
pub fn reliable(depth: usize) -> QosProfile {
    sensor_data(depth).reliability_reliable(WhenFull::Wait(READERS_ARE_BEHIND))
}

/// As camera drivers publish: best effort.
pub fn sensor_data(depth: usize) -> QosProfile {
    QosProfile::subscription_default().history(History::KeepLast { depth })
}

enum Images {
    Raw(Publisher<Image>),
    Compressed(Publisher<CompressedImage>),
}

/// A camera in the graph until it is dropped. Fields go in this order: publishers first, then the node that they are of.
pub struct Camera {
    images: Images,
    infos: Publisher<CameraInfo>,
    peer: Peer,
}

impl Camera {
    /// Joins the graph.
    ///
    /// # Errors
    ///
    /// A name that is none, or a network that cannot be opened.
    pub fn start(domain: u16, topics: &Topics) -> Result<Self> {
        let mut peer = Peer::join(domain, "camera_of_the_test")?;
        let Topics { image, camera_info, compressed, qos } = topics;
        let images = if *compressed {
            Images::Compressed(peer.publisher(image, "sensor_msgs", "CompressedImage", qos)?)
        } else {
            Images::Raw(peer.publisher(image, "sensor_msgs", "Image", qos)?)
        };
        let infos = peer.publisher(camera_info, "sensor_msgs", "CameraInfo", qos)?;
        Ok(Self { images, infos, peer })
    }

    /// Whether somebody listened to both topics within `timeout`. The listener's own side of the match cannot be seen from
    /// here: it may miss what is published at once.
    pub fn wait_for_listener(&self, timeout: Duration) -> bool {
        let begun = Instant::now();
        loop {
            let node = &self.peer.node;
            let images = match &self.images {
                Images::Raw(images) => images.get_subscription_count(node),
                Images::Compressed(images) => images.get_subscription_count(node),
            };
            if images > 0 && self.infos.get_subscription_count(node) > 0 {
                return true;
            }
            if begun.elapsed() >= timeout {
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Publishes an image.
    ///
    /// # Errors
    ///
    /// A payload of the type that is not the topic's, and what the middleware refuses.
    pub fn publish_image(&self, image: ImageMessage) -> Result<()> {
        let header = Header::new(image.stamp, image.frame_id);
        match (&self.images, image.payload) {
            (Images::Raw(images), ImagePayload::Raw { width, height, encoding, is_bigendian, step, data }) => {
                let (is_bigendian, data) = (u8::from(is_bigendian), ByteBuf::from(data));
                let image = Image { header, height, width, encoding, is_bigendian, step, data };
                images.publish(image).map_err(|e| anyhow!("an Image was not published: {e}"))
            }
            (Images::Compressed(images), ImagePayload::Compressed { format, data }) => images
                .publish(CompressedImage { header, format, data: ByteBuf::from(data) })
                .map_err(|e| anyhow!("a CompressedImage was not published: {e}")),
            (Images::Raw(_), ImagePayload::Compressed { .. }) => bail!("expected a raw image for this topic"),
            (Images::Compressed(_), ImagePayload::Raw { .. }) => bail!("expected a compressed image for this topic"),
        }
    }

    /// Publishes intrinsics.
    ///
    /// # Errors
    ///
    /// What the middleware refuses.
    pub fn publish_info(&self, info: CameraInfoMessage) -> Result<()> {
        self.infos.publish((&info).into()).map_err(|e| anyhow!("a CameraInfo was not published: {e}"))
    }
}
