//! What crosses the node's ends: plain data, free of any ROS type, so that the logic between them can be tested
//! without a transport. The transports convert their own types to and from these and do nothing else.

use camera::message::{CameraInfoMessage, ImageMessage};
use geometry::Stamp;

use crate::ros::lifecycle::Edge;
use crate::ros::parameters::Value;

/// What a transport hands to the pipeline.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// An image of the camera topic.
    Image(ImageMessage),
    /// Its intrinsics.
    CameraInfo(CameraInfoMessage),
    /// Where the robot is by another odometry, which gives the scale.
    Odometry(OdometryMessage),
    /// Where another program has the camera, which the odometry follows.
    Followed(OdometryMessage),
}

/// `geometry_msgs/PoseStamped` without its frame, which the trajectory states once.
#[derive(Debug, Clone, PartialEq)]
pub struct StampedPose {
    /// The stamp of the frame whose pose this is.
    pub stamp: Stamp,
    /// Metres (scene units where the weights are not metric).
    pub position: [f64; 3],
    /// Unit quaternion, order x y z w.
    pub orientation_xyzw: [f64; 4],
}

/// `geometry_msgs/PoseStamped` on `/ego/pose`.
#[derive(Debug, Clone, PartialEq)]
pub struct PoseMessage {
    /// The frame that the pose is given in.
    pub frame_id: String,
    /// As in the odometry.
    pub pose: StampedPose,
}

/// `nav_msgs/Path` on `/ego/trajectory`: the five poses of one window.
#[derive(Debug, Clone, PartialEq)]
pub struct TrajectoryMessage {
    /// Stamp of the window's first frame, the anchor.
    pub stamp: Stamp,
    /// The frame that the poses are given in: the camera's optical frame at `stamp`.
    pub frame_id: String,
    /// `anchor_from_camera`, in the order of time, the identity first.
    pub poses: Vec<StampedPose>,
}

/// `nav_msgs/Odometry`: on `/ego/odometry`, a pose for each image; coming in, another odometry. Its twist is left out:
/// the node neither has one nor needs one.
#[derive(Debug, Clone, PartialEq)]
pub struct OdometryMessage {
    /// The frame that the pose is given in, for example `odom`.
    pub frame_id: String,
    /// The frame whose pose this is: the camera's optical frame, or the body of the other odometry.
    pub child_frame_id: String,
    /// `odom_from_camera`, or `odom_from_base`, at its stamp.
    pub pose: StampedPose,
    /// Row-major 6x6, order x y z rotation-x rotation-y rotation-z.
    pub pose_covariance: [f64; 36],
}

/// Level of a [`DiagnosticsMessage`], with the numbers of `diagnostic_msgs/DiagnosticStatus`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiagnosticLevel {
    /// Poses come out as configured.
    Ok = 0,
    /// Poses come out, but something is counted that should not happen.
    Warn = 1,
    /// No pose comes out.
    Error = 2,
    /// The camera is silent.
    Stale = 3,
}

/// One status of `diagnostic_msgs/DiagnosticArray` on `/diagnostics`.
#[derive(Debug, Clone, PartialEq)]
pub struct DiagnosticsMessage {
    /// Time of the report.
    pub stamp: Stamp,
    /// How things stand.
    pub level: DiagnosticLevel,
    /// One sentence for a person.
    pub message: String,
    /// Counters and latencies by name.
    pub values: Vec<(String, String)>,
}

/// `geometry_msgs/TransformStamped` on `/tf` or `/tf_static`.
#[derive(Debug, Clone, PartialEq)]
pub struct TransformMessage {
    /// When it holds.
    pub stamp: Stamp,
    /// The parent.
    pub frame_id: String,
    /// The child.
    pub child_frame_id: String,
    /// Where the child's origin is in the parent, metres (scene units where the weights are not metric).
    pub translation: [f64; 3],
    /// From the child's axes to the parent's: unit quaternion, order x y z w.
    pub rotation_xyzw: [f64; 4],
}

/// `lifecycle_msgs/TransitionEvent` on `~/transition_event`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransitionMessage {
    /// When it happened.
    pub stamp: Stamp,
    /// What happened.
    pub edge: Edge,
}

/// `rcl_interfaces/ParameterEvent` on `/parameter_events`, without the node's name, which the transport knows.
#[derive(Debug, Clone, PartialEq)]
pub struct ParameterEventMessage {
    /// When it happened.
    pub stamp: Stamp,
    /// Parameters that there are from now on: all of them, when the node starts.
    pub new: Vec<(String, Value)>,
    /// Parameters that were set, with what they hold now.
    pub changed: Vec<(String, Value)>,
}

/// What the pipeline hands to a transport.
#[expect(clippy::large_enum_variant, reason = "the large one, odometry, is the most frequent")]
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// For `/ego/trajectory`.
    Trajectory(TrajectoryMessage),
    /// For `/ego/odometry`.
    Odometry(OdometryMessage),
    /// For `/ego/pose`.
    Pose(PoseMessage),
    /// For `~/scale`.
    Scale(DiagnosticsMessage),
    /// For `/diagnostics`.
    Diagnostics(DiagnosticsMessage),
    /// For `~/status`.
    Status(DiagnosticsMessage),
    /// For `~/reasoning`: the text of an answer.
    Reasoning(String),
    /// For `/tf`.
    Transform(TransformMessage),
    /// For `/tf_static`.
    StaticTransform(TransformMessage),
    /// For `~/transition_event`.
    Transition(TransitionMessage),
    /// For `/parameter_events`.
    ParameterEvent(ParameterEventMessage),
}
