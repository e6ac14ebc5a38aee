"""Starts the node on a robot: `ros2 launch egoreasoner egoreasoner.launch.py image_topic:=/front/image_raw`.

Every argument is a shorthand for a key of the TOML config; one that is left empty leaves the config as it is.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import EnvironmentVariable, LaunchConfiguration
from launch_ros.actions import Node

PACKAGE = "egoreasoner"

# Argument -> key of the config that it sets.
KEYS = {
    "image_topic": "topics.image",
    "camera_info_topic": "topics.camera_info",
    "weights": "model.weights",
    "transport": "node.transport",
}


def start(context):
    """The node, with the arguments that were given as parameters on its command line."""

    def value(name):
        return LaunchConfiguration(name).perform(context)

    parameters = {key: value(name) for name, key in KEYS.items() if value(name)}
    if value("compressed"):
        compressed = value("compressed").lower() in ("true", "1", "yes")
        parameters["topics.image_transport"] = "compressed" if compressed else "raw"
    if "model.weights" in parameters:
        parameters["model.weights"] = str(Path(parameters["model.weights"]).absolute())
    ros_arguments = [word for key, text in parameters.items() for word in ("-p", f"{key}:={text}")]
    return [
        Node(
            package=PACKAGE,
            executable="egoreasoner_node",
            name=PACKAGE,
            namespace=value("namespace"),
            arguments=["run", "--config", value("config")],
            ros_arguments=ros_arguments,
            output="screen",
            emulate_tty=True,
        )
    ]


def generate_launch_description():
    config = Path(get_package_share_directory(PACKAGE)) / "config"
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "config", default_value=str(config / "node.toml"), description="TOML file with every parameter"
            ),
            DeclareLaunchArgument("image_topic", default_value="", description="camera topic; empty: from the config"),
            DeclareLaunchArgument(
                "camera_info_topic", default_value="", description="CameraInfo topic; empty: from the config"
            ),
            DeclareLaunchArgument(
                "compressed",
                default_value="",
                description="true where image_topic is a CompressedImage, false for Image; empty: from the config",
            ),
            DeclareLaunchArgument(
                "weights", default_value="", description="folder with the model's weights; empty: from the config"
            ),
            DeclareLaunchArgument("namespace", default_value="", description="namespace of the node; topics are absolute names"),
            DeclareLaunchArgument(
                "transport",
                default_value="r2r",
                description="r2r: the sourced ROS 2's middleware; ros2-client: DDS without it",
            ),
            # Fast DDS alone reads it. Best-effort images need its larger shared memory, on the camera's side too.
            SetEnvironmentVariable(
                "FASTRTPS_DEFAULT_PROFILES_FILE",
                EnvironmentVariable("FASTRTPS_DEFAULT_PROFILES_FILE", default_value=str(config / "fastdds.xml")),
            ),
            OpaqueFunction(function=start),
        ]
    )
