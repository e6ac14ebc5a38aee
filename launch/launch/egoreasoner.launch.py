"""Starts the node on a robot: `ros2 launch egoreasoner egoreasoner.launch.py image_topic:=/front/image_raw`.

Arguments that stand for a key of the TOML config become parameters on the node's command line, which both transports
read alike; one that is left empty leaves the config as it is. Remaps of a launch file around this one (SetRemap) and
relative topic names under a namespace hold for both transports too. `ros2 launch -s` lists the arguments.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import EnvironmentVariable, LaunchConfiguration
from launch_ros.actions import Node

PACKAGE = "egoreasoner"
SHARE = Path(get_package_share_directory(PACKAGE))
PROFILES = "FASTRTPS_DEFAULT_PROFILES_FILE"  # Fast DDS 2: Humble, Jazzy

# Argument -> key of the config that it sets, and what it is.
KEYS = {
    "image_topic": ("topics.image", "camera topic; a relative name is under the namespace, as for all topics"),
    "image_transport": ("topics.image_transport", "raw where image_topic is an Image, compressed for CompressedImage"),
    "images": ("camera.images", "raw, or rectified where image_topic is image_proc's image_rect"),
    "image_reliability": ("topics.image_reliability", "best_effort hears every driver, reliable loses no frame"),
    "camera_info_topic": ("topics.camera_info", "CameraInfo topic of the same camera"),
    "scale_metric": ("scale.metric", "false where the weights' translations are not metres"),
    "scale_odometry_topic": ("scale.odometry_topic", "Odometry in, such as the wheels', which gives metres"),
    "camera_height": ("scale.camera_height_metres", "height of the camera over the ground, which gives metres; metres"),
    "odometry_source": ("odometry.source", "fused, tracks, model or topic: what the odometry is made of"),
    "followed_topic": ("odometry.topic", "with odometry_source:=topic: Odometry in, of the program that is followed"),
    "followed_metric": ("odometry.topic_metric", "true where its lengths are metres"),
    "trajectory_topic": ("topics.trajectory", "Path out"),
    "odometry_topic": ("topics.odometry", "Odometry out, a pose for each image"),
    "pose_topic": ("topics.pose", "PoseStamped out: the same without covariance"),
    "scale_topic": ("topics.scale", "DiagnosticStatus out: who gives metres, and how sure"),
    "diagnostics_topic": ("topics.diagnostics", "DiagnosticArray out"),
    "status_topic": ("topics.status", "DiagnosticStatus out: OK, DEGRADED or LOST, and why"),
    "reasoning_topic": ("topics.reasoning", "String out: the text of each answer"),
    "odom_frame": ("frames.odom", "frame_id of the odometry"),
    "base_frame": ("frames.base", "frame_id of the body, where the config says how the camera sits on it"),
    "publish_tf": ("publish.tf", "true: the odometry on /tf as well; needs base_frame"),
    "publish_static_tf": ("publish.static_tf", "true: the camera's place on the body, on /tf_static"),
    "weights": ("model.weights", "folder with the model's weights"),
    "adapter": ("model.adapter", "folder of a LoRA adapter beside them"),
    "device": ("model.device", "cpu, cuda or cuda:N"),
    "mode": ("model.mode", "full_chain: all steps; answer_only: the poses straight away; pose_head: one pass, no text"),
    "fill": ("model.fill", "none, arithmetic or measured: what of an answer the program writes in place of the model"),
    "autostart": ("node.autostart", "true: active at once; false: a lifecycle manager asks for each transition"),
    "transport": ("node.transport", "r2r: the sourced ROS 2's middleware; ros2-client: DDS without it"),
}
# Those that are paths: the config's own are relative to its file, the command line's to where one stands.
PATHS = ["weights", "adapter"]


def key_arguments():
    """The arguments of KEYS. The installed node is built for the sourced ROS 2, hence the one default."""
    defaults = {"transport": "r2r"}
    return [
        DeclareLaunchArgument(name, default_value=defaults.get(name, ""), description=f"{text}; empty: from the config")
        for name, (_, text) in KEYS.items()
    ]


def node_arguments():
    """The arguments that are ROS's or the process's."""
    return [
        DeclareLaunchArgument(
            "config", default_value=str(SHARE / "config/node.toml"), description="TOML file with every parameter"
        ),
        DeclareLaunchArgument(
            "params_file", default_value="", description="YAML file of ROS parameters, over the config; empty: none"
        ),
        DeclareLaunchArgument(
            "overrides", default_value="", description="further keys of the config, as key=value parted by spaces"
        ),
        DeclareLaunchArgument("name", default_value="", description="name of the node; empty: from the config"),
        DeclareLaunchArgument(
            "namespace",
            default_value="",
            description="its namespace, which the poses' topics are under, and no absolute name; empty: from the config",
        ),
        DeclareLaunchArgument(
            "record", default_value="", description="MCAP file to record to, which must not be there yet; empty: none"
        ),
        DeclareLaunchArgument(
            "log_level",
            default_value="info",
            choices=["debug", "info", "warn", "error", "fatal"],
            description="least level that is logged; RUST_LOG wins",
        ),
        DeclareLaunchArgument(
            "use_sim_time",
            default_value="",
            choices=["", "true", "false"],
            description="true: reports get the images' time, as poses always do; empty: from the config",
        ),
        DeclareLaunchArgument(
            "enclave", default_value="", description="SROS2 enclave of the node; empty: none is named"
        ),
        DeclareLaunchArgument(
            "respawn",
            default_value="false",
            choices=["true", "false"],
            description="start the node again when it ends by itself",
        ),
        DeclareLaunchArgument("respawn_delay", default_value="2.0", description="seconds before that"),
        # On by default, since best-effort images get lost without; a file that the user has set stays.
        DeclareLaunchArgument(
            "fastdds_profiles",
            default_value=EnvironmentVariable(PROFILES, default_value=str(SHARE / "config/fastdds.xml")),
            description="Fast DDS profiles with shared memory for images, which the camera's process needs too; "
            "empty: Fast DDS as it is",
        ),
        DeclareLaunchArgument(
            "rviz", default_value="false", choices=["true", "false"], description="start RViz beside the node"
        ),
    ]


def start(context):
    """The node, with the arguments that were given on its command line."""

    def value(name):
        return LaunchConfiguration(name).perform(context)

    def absolute(name):
        return str(Path(value(name)).absolute()) if name in PATHS else value(name)

    arguments = ["record", "--out", value("record")] if value("record") else ["run"]
    # launch hands on SIGINT; on SIGTERM it ends at once, without a word to its nodes or to handlers of this file.
    arguments += ["--end-with-parent", "--config", value("config")]
    for override in value("overrides").split():
        arguments += ["--set", override]
    ros_arguments = ["--log-level", value("log_level")]
    if value("params_file"):
        ros_arguments += ["--params-file", value("params_file")]
    if value("use_sim_time"):
        ros_arguments += ["-p", f"use_sim_time:={value('use_sim_time')}"]
    for name, (key, _) in KEYS.items():
        if value(name):
            ros_arguments += ["-p", f"{key}:={absolute(name)}"]
    if value("enclave"):
        ros_arguments += ["--enclave", value("enclave")]
    actions = [SetEnvironmentVariable(PROFILES, value("fastdds_profiles"))] if value("fastdds_profiles") else []
    actions.append(
        Node(
            package=PACKAGE,
            executable="egoreasoner_node",
            name=value("name") or None,
            namespace=value("namespace") or None,
            arguments=arguments,
            ros_arguments=ros_arguments,
            respawn=value("respawn") == "true",
            respawn_delay=float(value("respawn_delay")),
            output="screen",
            emulate_tty=True,
        )
    )
    if value("rviz") == "true":
        config = str(SHARE / "rviz/egoreasoner.rviz")
        actions.append(Node(package="rviz2", executable="rviz2", name="rviz", arguments=["-d", config]))
    return actions


def generate_launch_description():
    return LaunchDescription([*key_arguments(), *node_arguments(), OpaqueFunction(function=start)])
