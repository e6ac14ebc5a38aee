//! The node's messages as ROS 2 has them ([`camera::ros`]), for what speaks CDR: `ros2_client` and recordings.

use camera::ros::{
    DiagnosticArray, DiagnosticStatus, Header, KeyValue, Odometry, Path, Pose, PoseStamped, PoseWithCovariance,
    TfMessage, TransformStamped, TwistWithCovariance,
};

use crate::ros::message::{
    DiagnosticsMessage, OdometryMessage, PoseMessage, StampedPose, TrajectoryMessage, TransformMessage,
};

pub(super) mod service;

fn pose(pose: &StampedPose) -> Pose {
    Pose { position: pose.position, orientation_xyzw: pose.orientation_xyzw }
}

/// `nav_msgs/Path`.
pub(crate) fn path(trajectory: TrajectoryMessage) -> Path {
    let frame_id = trajectory.frame_id;
    let stamped = |at: &StampedPose| PoseStamped { header: Header::new(at.stamp, frame_id.as_str()), pose: pose(at) };
    let poses = trajectory.poses.iter().map(stamped).collect();
    Path { header: Header::new(trajectory.stamp, frame_id), poses }
}

/// `geometry_msgs/PoseStamped`.
pub(crate) fn pose_stamped(message: PoseMessage) -> PoseStamped {
    PoseStamped { header: Header::new(message.pose.stamp, message.frame_id), pose: pose(&message.pose) }
}

/// `nav_msgs/Odometry`, whose twist nobody measured.
pub(crate) fn odometry(odometry: OdometryMessage) -> Odometry {
    let mut covariance = [[0.0; 6]; 6];
    for (row, values) in covariance.iter_mut().zip(odometry.pose_covariance.chunks_exact(6)) {
        row.copy_from_slice(values);
    }
    let mut unmeasured = [[0.0; 6]; 6];
    for (i, row) in unmeasured.iter_mut().enumerate() {
        row[i] = super::TWIST_VARIANCE;
    }
    Odometry {
        header: Header::new(odometry.pose.stamp, odometry.frame_id),
        child_frame_id: odometry.child_frame_id,
        pose: PoseWithCovariance { pose: pose(&odometry.pose), covariance },
        twist: TwistWithCovariance { linear: [0.0; 3], angular: [0.0; 3], covariance: unmeasured },
    }
}

impl From<Odometry> for OdometryMessage {
    fn from(odometry: Odometry) -> Self {
        let Pose { position, orientation_xyzw } = odometry.pose.pose;
        let covariance = odometry.pose.covariance;
        Self {
            pose: StampedPose { stamp: odometry.header.stamp(), position, orientation_xyzw },
            frame_id: odometry.header.frame_id,
            child_frame_id: odometry.child_frame_id,
            pose_covariance: std::array::from_fn(|i| covariance[i / 6][i % 6]),
        }
    }
}

/// `diagnostic_msgs/DiagnosticStatus` about `what`, of the node of this name.
pub(super) fn diagnostic_status(diagnostics: DiagnosticsMessage, full_name: &str, what: &str) -> DiagnosticStatus {
    let values = diagnostics.values.into_iter().map(|(key, value)| KeyValue { key, value }).collect();
    let DiagnosticsMessage { level, message, .. } = diagnostics;
    let (name, hardware_id) = (super::status_name(full_name, what), full_name.to_owned());
    DiagnosticStatus { level: level as u8, name, message, hardware_id, values }
}

/// `diagnostic_msgs/DiagnosticArray`: the one status of the node of this name.
pub(crate) fn diagnostic_array(diagnostics: DiagnosticsMessage, full_name: &str) -> DiagnosticArray {
    DiagnosticArray {
        header: Header::new(diagnostics.stamp, ""),
        status: vec![diagnostic_status(diagnostics, full_name, super::TRAJECTORY)],
    }
}

/// `tf2_msgs/TFMessage`.
pub(super) fn tf_message(transform: TransformMessage) -> TfMessage {
    let pose = Pose { position: transform.translation, orientation_xyzw: transform.rotation_xyzw };
    TfMessage {
        transforms: vec![TransformStamped {
            header: Header::new(transform.stamp, transform.frame_id),
            child_frame_id: transform.child_frame_id,
            transform: pose,
        }],
    }
}
