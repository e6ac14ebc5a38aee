"""Plays a recording to the node: `ros2 launch egoreasoner replay.launch.py bag:=DRIVE image_topic:=/front/image_raw`.

Two ways. With `ros2 bag play --clock` beside the node, as on the robot: windows for which there is no time give way.
Or, with `in_process:=true`, by the node alone (`node replay`): every window is answered in order, without topics.
Every argument of egoreasoner.launch.py is one here too; simulated time is on.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
    TimerAction,
)
from launch.conditions import IfCondition, UnlessCondition
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

PACKAGE = "egoreasoner"
SHARE = Path(get_package_share_directory(PACKAGE))

# Argument -> its default, None where one must be given, and what it is.
ARGUMENTS = {
    "bag": (None, "folder of a rosbag2, or an MCAP file; if in_process, an MCAP file or a folder with sequence.json"),
    "rate": ("1.0", "speed; 1.0 is that of the recording"),
    "clock_rate": ("100", "messages a second on /clock"),
    "start_offset": ("0.0", "seconds of the bag to leave out at its start"),
    "loop": ("false", "true: start over at the end, for ever"),
    "storage": ("", "mcap or sqlite3; empty: as the bag says"),
    "remaps": ("", "topics of the bag to rename, as from:=to parted by spaces"),
    "delay": ("5.0", "seconds before the first message, in which the node loads its weights"),
    "drain": ("5.0", "seconds after the last message, for the model's last answers"),
    "in_process": ("false", "true: no topics; then only bag, out, config and overrides count"),
    "out": ("", "if in_process, where `node replay` writes: an MCAP file or a folder, as it reads; empty: its default"),
    "config": (str(SHARE / "config/node.toml"), "TOML file with every parameter of the node"),
    "overrides": ("", "further keys of the config, as key=value parted by spaces"),
}


def value(context, name):
    return LaunchConfiguration(name).perform(context)


def play(context):
    """The player, and what ends the launch after it."""
    bag = str(Path(value(context, "bag")).absolute())
    command = ["ros2", "bag", "play", bag, "--disable-keyboard-controls"]
    for flag in ["rate", "delay", "start_offset", "storage"]:
        if value(context, flag):
            command += [f"--{flag.replace('_', '-')}", value(context, flag)]
    command += ["--clock", value(context, "clock_rate")]
    if value(context, "loop") == "true":
        command.append("--loop")
    if value(context, "remaps"):
        command += ["--remap", *value(context, "remaps").split()]
    player = ExecuteProcess(cmd=command, output="screen")
    end = TimerAction(
        period=float(value(context, "drain")), actions=[EmitEvent(event=Shutdown(reason="the bag is over"))]
    )
    return [player, RegisterEventHandler(OnProcessExit(target_action=player, on_exit=[end]))]


def replay(context):
    """The node alone."""
    bag = str(Path(value(context, "bag")).absolute())
    arguments = ["replay", bag, "--end-with-parent", "--config", value(context, "config")]
    if value(context, "out"):
        arguments += ["--out", value(context, "out")]
    for override in value(context, "overrides").split():
        arguments += ["--set", override]
    return [Node(package=PACKAGE, executable="egoreasoner_node", arguments=arguments, output="screen")]


def generate_launch_description():
    in_process = LaunchConfiguration("in_process")
    node = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(SHARE / "launch/egoreasoner.launch.py")),
        launch_arguments={"use_sim_time": "true"}.items(),
        condition=UnlessCondition(in_process),
    )
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=default, description=text)
                for name, (default, text) in ARGUMENTS.items()
            ),
            node,
            OpaqueFunction(function=play, condition=UnlessCondition(in_process)),
            OpaqueFunction(function=replay, condition=IfCondition(in_process)),
        ]
    )
