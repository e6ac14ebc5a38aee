//! Definitions of the messages in a recording, in the language of `.msg` files.
//!
//! They are those of ROS 2 without their comments: what a viewer needs to take a message apart.

use std::collections::BTreeSet;

const RULE: &str = "================================================================================";

const PRIMITIVES: [&str; 14] = [
    "bool", "byte", "char", "float32", "float64", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64",
    "uint64", "string",
];

/// By name, each with its fields; a type without a package is of the same package.
const DEFINITIONS: [(&str, &str); 23] = [
    ("builtin_interfaces/Time", "int32 sec\nuint32 nanosec\n"),
    ("std_msgs/Header", "builtin_interfaces/Time stamp\nstring frame_id\n"),
    (
        "sensor_msgs/Image",
        "std_msgs/Header header\nuint32 height\nuint32 width\nstring encoding\nuint8 is_bigendian\nuint32 step\n\
         uint8[] data\n",
    ),
    ("sensor_msgs/CompressedImage", "std_msgs/Header header\nstring format\nuint8[] data\n"),
    (
        "sensor_msgs/CameraInfo",
        "std_msgs/Header header\nuint32 height\nuint32 width\nstring distortion_model\nfloat64[] d\nfloat64[9] k\n\
         float64[9] r\nfloat64[12] p\nuint32 binning_x\nuint32 binning_y\nRegionOfInterest roi\n",
    ),
    (
        "sensor_msgs/RegionOfInterest",
        "uint32 x_offset\nuint32 y_offset\nuint32 height\nuint32 width\nbool do_rectify\n",
    ),
    ("nav_msgs/Path", "std_msgs/Header header\ngeometry_msgs/PoseStamped[] poses\n"),
    (
        "nav_msgs/Odometry",
        "std_msgs/Header header\nstring child_frame_id\ngeometry_msgs/PoseWithCovariance pose\n\
         geometry_msgs/TwistWithCovariance twist\n",
    ),
    ("geometry_msgs/PoseStamped", "std_msgs/Header header\nPose pose\n"),
    ("geometry_msgs/Pose", "Point position\nQuaternion orientation\n"),
    ("geometry_msgs/Point", "float64 x\nfloat64 y\nfloat64 z\n"),
    ("geometry_msgs/Quaternion", "float64 x 0\nfloat64 y 0\nfloat64 z 0\nfloat64 w 1\n"),
    ("geometry_msgs/PoseWithCovariance", "Pose pose\nfloat64[36] covariance\n"),
    ("geometry_msgs/PoseWithCovarianceStamped", "std_msgs/Header header\nPoseWithCovariance pose\n"),
    ("geometry_msgs/TwistWithCovariance", "Twist twist\nfloat64[36] covariance\n"),
    ("geometry_msgs/Twist", "Vector3 linear\nVector3 angular\n"),
    ("geometry_msgs/Vector3", "float64 x\nfloat64 y\nfloat64 z\n"),
    ("geometry_msgs/TransformStamped", "std_msgs/Header header\nstring child_frame_id\nTransform transform\n"),
    ("geometry_msgs/Transform", "Vector3 translation\nQuaternion rotation\n"),
    ("tf2_msgs/TFMessage", "geometry_msgs/TransformStamped[] transforms\n"),
    ("diagnostic_msgs/DiagnosticArray", "std_msgs/Header header\nDiagnosticStatus[] status\n"),
    (
        "diagnostic_msgs/DiagnosticStatus",
        "byte OK=0\nbyte WARN=1\nbyte ERROR=2\nbyte STALE=3\nbyte level\nstring name\nstring message\n\
         string hardware_id\nKeyValue[] values\n",
    ),
    ("diagnostic_msgs/KeyValue", "string key\nstring value\n"),
];

/// The definition of `package/msg/Name` and, behind a rule each, of all types that it is made of: a type's own, by name,
/// before those of the next, each once. That is rosbag2's order.
pub(super) fn full_text(type_name: &str) -> String {
    let mut text = String::new();
    append(&type_name.replacen("/msg/", "/", 1), &mut BTreeSet::new(), &mut text);
    text
}

fn append(name: &str, seen: &mut BTreeSet<String>, text: &mut String) {
    let fields = fields_of(name).expect("every type that is recorded, and what it is made of, is defined");
    text.push_str(fields);
    for part in parts(name, fields) {
        if seen.insert(part.clone()) {
            text.push_str(&format!("\n{RULE}\nMSG: {part}\n"));
            append(&part, seen, text);
        }
    }
}

fn fields_of(name: &str) -> Option<&'static str> {
    DEFINITIONS.iter().find(|(known, _)| *known == name).map(|(_, fields)| *fields)
}

/// Names of the types of the fields, but for primitive ones.
fn parts(name: &str, fields: &str) -> BTreeSet<String> {
    let package = name.split('/').next().unwrap_or_default();
    let types = fields.lines().filter_map(|line| line.split([' ', '[']).next());
    types
        .filter(|part| !PRIMITIVES.contains(part))
        .map(|part| if part.contains('/') { part.to_owned() } else { format!("{package}/{part}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{PRIMITIVES, RULE, full_text};
    use crate::ros::Type;

    /// Type and name of each field of each type in a text, as a viewer takes it apart.
    fn parse(root: &str, text: &str) -> BTreeMap<String, Vec<(String, String)>> {
        let mut types = BTreeMap::new();
        for (i, section) in text.split(&format!("\n{RULE}\n")).enumerate() {
            let (name, body) = match i {
                0 => (root.to_owned(), section),
                _ => {
                    let (head, body) = section.split_once('\n').unwrap();
                    (head.strip_prefix("MSG: ").unwrap().to_owned(), body)
                }
            };
            let fields = body.lines().filter(|line| !line.contains('='));
            let fields = fields.map(|line| {
                let mut words = line.split(' ');
                (words.next().unwrap().to_owned(), words.next().unwrap().to_owned())
            });
            assert!(types.insert(name.clone(), fields.collect()).is_none(), "{name} is defined twice");
        }
        types
    }

    #[test]
    fn an_image_has_the_fields_of_ros() {
        let types = parse("sensor_msgs/Image", &full_text("sensor_msgs/msg/Image"));
        let fields = |name: &str| types[name].iter().map(|(kind, name)| format!("{kind} {name}")).collect::<Vec<_>>();
        assert_eq!(
            fields("sensor_msgs/Image"),
            [
                "std_msgs/Header header",
                "uint32 height",
                "uint32 width",
                "string encoding",
                "uint8 is_bigendian",
                "uint32 step",
                "uint8[] data"
            ]
        );
        assert_eq!(fields("std_msgs/Header"), ["builtin_interfaces/Time stamp", "string frame_id"]);
        assert_eq!(fields("builtin_interfaces/Time"), ["int32 sec", "uint32 nanosec"]);
        assert_eq!(types.len(), 3);
    }

    #[test]
    fn every_type_that_a_text_names_is_in_it() {
        for known in Type::ALL {
            let root = known.name().replacen("/msg/", "/", 1);
            let types = parse(&root, &full_text(known.name()));
            for (name, fields) in &types {
                let package = name.split('/').next().unwrap();
                for (field, _) in fields {
                    let part = field.split('[').next().unwrap();
                    let found = PRIMITIVES.contains(&part)
                        || types.contains_key(part)
                        || types.contains_key(&format!("{package}/{part}"));
                    assert!(found, "{root}: {name} has a field of {field}, which is not defined");
                }
            }
        }
    }

    #[test]
    fn definitions_are_joined_as_rosbag2_joins_them() {
        let header = "builtin_interfaces/Time stamp\nstring frame_id\n";
        let expected = format!(
            "std_msgs/Header header\nstring format\nuint8[] data\n\n{RULE}\nMSG: std_msgs/Header\n{header}\n{RULE}\n\
             MSG: builtin_interfaces/Time\nint32 sec\nuint32 nanosec\n"
        );
        assert_eq!(full_text("sensor_msgs/msg/CompressedImage"), expected);
        let path = full_text("nav_msgs/msg/Path");
        let order: Vec<&str> = path.lines().filter_map(|line| line.strip_prefix("MSG: ")).collect();
        let expected = [
            "geometry_msgs/PoseStamped",
            "geometry_msgs/Pose",
            "geometry_msgs/Point",
            "geometry_msgs/Quaternion",
            "std_msgs/Header",
            "builtin_interfaces/Time",
        ];
        assert_eq!(order, expected);
    }
}
