//! What each key of the config is to a ROS tool: one line a key, beside the raw struct that has the same keys. A test holds
//! the two against each other; the rules themselves are those of `validate`, and are only told here.

/// What a parameter holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// true or false.
    Bool,
    /// A whole number.
    Integer,
    /// A number; whole ones are taken for it.
    Double,
    /// A string.
    Text,
    /// A list of numbers.
    Doubles,
}

/// A key as a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spec {
    /// `section.name`.
    pub key: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// Smallest and largest value of an integer.
    pub range: Option<(i64, i64)>,
    /// Whether it may be set while the node runs.
    pub is_live: bool,
    /// What it is, with its unit.
    pub description: &'static str,
    /// What else must hold, in words; empty where the kind and the range say all.
    pub constraints: &'static str,
}

impl Spec {
    /// The parameter's name: the key, but for the one that every ROS node has without a section.
    #[must_use]
    pub fn name(&self) -> &'static str {
        if self.key == "node.use_sim_time" { "use_sim_time" } else { self.key }
    }

    const fn live(mut self) -> Self {
        self.is_live = true;
        self
    }
}

/// The key of the parameter of this name.
#[must_use]
pub fn spec(name: &str) -> Option<&'static Spec> {
    TABLE.iter().find(|spec| spec.name() == name)
}

const fn text(key: &'static str, description: &'static str, constraints: &'static str) -> Spec {
    Spec { key, kind: Kind::Text, range: None, is_live: false, description, constraints }
}

const fn switch(key: &'static str, description: &'static str) -> Spec {
    Spec { key, kind: Kind::Bool, range: None, is_live: false, description, constraints: "" }
}

const fn integer(key: &'static str, least: i64, most: i64, description: &'static str) -> Spec {
    Spec { key, kind: Kind::Integer, range: Some((least, most)), is_live: false, description, constraints: "" }
}

const fn double(key: &'static str, description: &'static str, constraints: &'static str) -> Spec {
    Spec { key, kind: Kind::Double, range: None, is_live: false, description, constraints }
}

const fn doubles(key: &'static str, description: &'static str, constraints: &'static str) -> Spec {
    Spec { key, kind: Kind::Doubles, range: None, is_live: false, description, constraints }
}

const HOUR_MILLIS: i64 = 3_600_000;
const TOPIC: &str = "a ROS topic name";
const POSITIVE: &str = "above 0";
const GROWING: &str = "4 numbers above 0, none less than the one before it";

/// All keys, in the order of config/node.toml.
pub const TABLE: &[Spec] = &[
    text("node.name", "ROS node name", "letters, digits, underscores"),
    text("node.namespace", "ROS namespace", "\"/\" or a name such as /robot1"),
    text("node.transport", "What carries the topics", "\"ros2-client\" or \"r2r\""),
    integer("node.domain_id", -1, 232, "ROS domain; -1 takes it from ROS_DOMAIN_ID"),
    switch("node.use_sim_time", "Stamps reports by the newest image in place of the system's clock").live(),
    switch("node.autostart", "Whether the node configures and activates itself"),
    text("topics.image", "Camera topic", TOPIC),
    text("topics.image_transport", "Type of the camera topic", "\"raw\" or \"compressed\""),
    text("topics.image_reliability", "Reliability asked of the camera", "\"best_effort\" or \"reliable\""),
    integer("topics.image_queue_depth", 1, 1000, "Images that may wait before the node looks at them"),
    text("topics.camera_info", "CameraInfo of the same camera", TOPIC),
    text("topics.trajectory", "Path out: the poses of one window", TOPIC),
    text("topics.odometry", "Odometry out: the windows stitched together", TOPIC),
    text("topics.diagnostics", "DiagnosticArray out", TOPIC),
    text("topics.reasoning", "String out: the text of each answer", TOPIC),
    text("topics.status", "DiagnosticStatus out: OK, DEGRADED or LOST, and why", TOPIC),
    text("frames.odom", "frame_id of the odometry", "no leading slash, no spaces"),
    text(
        "frames.base",
        "frame_id of the robot's body; empty where the camera's place on it is not known",
        "no leading slash",
    ),
    doubles("frames.base_from_camera_xyz_metres", "Position of the camera in frames.base, metres", "3 numbers"),
    doubles(
        "frames.base_from_camera_rpy_degrees",
        "Orientation of the camera's optical frame in frames.base: roll, pitch, yaw about fixed axes, degrees",
        "3 numbers",
    ),
    integer("window.stride", 1, 1000, "Camera frames between neighbouring members of a window"),
    integer("window.hop", 1, 1000, "New camera frames between the starts of two windows"),
    integer(
        "window.max_gap_millis",
        1,
        HOUR_MILLIS,
        "A longer silence between two frames starts the window afresh, ms",
    ),
    text("model.weights", "Folder of the weights, relative to the config file", "not empty"),
    text("model.adapter", "Folder of a LoRA adapter to put beside them; empty for none", ""),
    text("model.device", "Where the model runs", "cpu, cuda or cuda:N"),
    text("model.mode", "How the model is asked for poses", "\"full_chain\", \"answer_only\" or \"pose_head\""),
    integer("model.max_tokens", 1, 1_000_000, "An answer that is longer is cut off"),
    switch("model.constrained", "Whether the model may only write what follows the grammar of answers"),
    text(
        "camera.images",
        "Whether the camera topic is as the lens makes it or rectified already (image_rect)",
        "\"raw\" or \"rectified\"",
    ),
    text(
        "camera.fixed",
        "When the intrinsics below stand in for CameraInfo",
        "\"never\", \"until_camera_info\" or \"always\"",
    ),
    integer("camera.width", 1, 65_535, "Columns of the pixel grid that they are for"),
    integer("camera.height", 1, 65_535, "Rows of the pixel grid that they are for"),
    double("camera.fx", "Focal length along the rows, pixels", POSITIVE),
    double("camera.fy", "Focal length along the columns, pixels", POSITIVE),
    double("camera.cx", "Column of the principal point, pixels", "finite"),
    double("camera.cy", "Row of the principal point, pixels", "finite"),
    switch("scale.metric", "Whether the weights' translations are metres"),
    text(
        "scale.odometry_topic",
        "Odometry in, which says what they are in metres; empty for none",
        "a ROS topic name; empty where scale.metric is true",
    ),
    double("scale.least_motion_metres", "A window that moves less by that odometry says nothing, metres", POSITIVE),
    integer("scale.windows", 1, 1000, "The scale is the median over so many windows"),
    double(
        "sanity.max_step_metres",
        "Answers that move further between neighbouring frames are refused, metres",
        POSITIVE,
    )
    .live(),
    double(
        "sanity.max_step_degrees",
        "Answers that turn further between neighbouring frames are refused, degrees",
        POSITIVE,
    )
    .live(),
    double("trust.procrustes_rotation_degrees", "Typical: poses against the chain's own points, degrees", POSITIVE)
        .live(),
    double("trust.procrustes_translation", "Typical: the same for translations, over the motion", POSITIVE).live(),
    double("trust.epipolar_pixels", "Typical: the chain's pixels to the epipolar lines of the poses, pixels", POSITIVE)
        .live(),
    double(
        "trust.overlap_rotation_degrees",
        "Typical: neighbouring windows on the frames they share, degrees",
        POSITIVE,
    )
    .live(),
    double("trust.overlap_translation", "Typical: the same for translations, over the motion", POSITIVE).live(),
    double("trust.least_motion_metres", "A shorter motion counts as this long, metres", POSITIVE).live(),
    double("trust.least_contrast", "Images of a smaller standard deviation, in grey levels, show nothing", "0 or more")
        .live(),
    text(
        "trust.frozen_images",
        "What five images make that are the same bit for bit",
        "\"ignored\", \"degraded\" or \"withheld\"",
    )
    .live(),
    double("trust.consistent_ratio", "Up to this multiple of what is typical a window is consistent", "1 or more")
        .live(),
    double("trust.bad_ratio", "Above this multiple it is bad", "trust.consistent_ratio or more").live(),
    double("trust.gross_ratio", "Above this multiple the node is LOST at once", "trust.bad_ratio or more").live(),
    integer("trust.degraded_windows", 1, 1000, "As many bad windows among the last degraded_span are DEGRADED").live(),
    integer("trust.degraded_span", 1, 1000, "Windows that are looked back over; trust.degraded_windows or more").live(),
    double("trust.degraded_widening", "Standard deviations grow at least so much while DEGRADED", "1 or more").live(),
    integer("trust.lost_windows", 1, 1000, "As many bad windows in a row are LOST").live(),
    integer("trust.lost_after_millis", 1, HOUR_MILLIS, "A bad window so long behind the last good one is LOST, ms")
        .live(),
    integer("trust.recover_windows", 1, 1000, "As many consistent windows in a row are OK again").live(),
    doubles(
        "covariance.position_stddev_metres",
        "Standard deviation of each axis, one to four frames from where a window joins the odometry, metres",
        GROWING,
    )
    .live(),
    doubles("covariance.rotation_stddev_degrees", "The same about each axis, degrees", GROWING).live(),
    double("covariance.break_position_stddev_metres", "What a break of the odometry adds, metres", POSITIVE).live(),
    double("covariance.break_rotation_stddev_degrees", "The same about each axis, degrees", POSITIVE).live(),
    switch("publish.reasoning", "The text of each answer, on topics.reasoning").live(),
    switch("publish.tf", "The odometry as transforms from frames.odom to frames.base, on /tf").live(),
    switch("publish.static_tf", "The camera's place on frames.base, on /tf_static").live(),
    integer("diagnostics.period_millis", 1, HOUR_MILLIS, "Time between two reports, ms").live(),
    integer("diagnostics.silent_after_millis", 1, HOUR_MILLIS, "A camera silent for longer is stale, ms").live(),
];
