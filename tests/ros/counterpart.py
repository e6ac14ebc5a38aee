#!/usr/bin/env python3
"""The other side of the wire: an rclpy camera and an rclpy reader of what the node publishes.

It exists because a node that only talks to itself proves nothing: this is another ROS 2 implementation. It publishes
images (a moving pattern, or the files of a folder) with their CameraInfo, receives Path, Odometry and diagnostics, and
writes all of it as JSON. It judges nothing; whoever runs it reads the JSON.

Exit status: 0 when all images went out, 3 when the node did not show up in time.
"""

import argparse
import array
import io
import json
import sys
import threading
import time
from pathlib import Path as FilePath

import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from nav_msgs.msg import Odometry, Path
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

NANOS = 1_000_000_000
SUFFIXES = {".jpg", ".jpeg", ".png"}


def arguments():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--out", required=True, type=FilePath, help="JSON file to write")
    source = p.add_argument_group("images")
    source.add_argument("--frames", type=FilePath, help="folder of JPEG or PNG files, played in the order of their names")
    source.add_argument("--stamps", type=FilePath, help="file with one stamp a line for --frames, in seconds")
    source.add_argument("--count", type=int, default=40, help="images of the pattern (default 40), or at most of --frames")
    source.add_argument("--width", type=int, default=1280)
    source.add_argument("--height", type=int, default=720)
    source.add_argument("--k", type=float, nargs=4, metavar=("FX", "FY", "CX", "CY"), help="default: 60 degrees wide")
    source.add_argument("--rate", type=float, default=10.0, help="images a second (default 10)")
    source.add_argument("--compressed", action="store_true", help="publish CompressedImage (JPEG) in place of Image")
    source.add_argument("--frame-id", default="camera_optical")
    qos = p.add_argument_group("QoS")
    qos.add_argument("--best-effort", action="store_true", help="images as sensor data; reliable otherwise")
    names = p.add_argument_group("topics")
    names.add_argument("--image-topic", default="/camera/image_raw")
    names.add_argument("--camera-info-topic", default="/camera/camera_info")
    names.add_argument("--trajectory-topic", default="/ego/trajectory")
    names.add_argument("--odometry-topic", default="/ego/odometry")
    names.add_argument("--diagnostics-topic", default="/diagnostics")
    waits = p.add_argument_group("waits, in seconds")
    waits.add_argument("--discovery", type=float, default=30.0, help="for the node to match every topic and to be active")
    waits.add_argument("--settle", type=float, default=1.0, help="between the match and the first image")
    waits.add_argument("--drain", type=float, default=30.0, help="at most, after the last image")
    waits.add_argument("--quiet", type=float, default=3.0, help="drain ends after so long without a Path")
    args = p.parse_args()
    if args.rate <= 0 or args.count < 1 or args.width < 1 or args.height < 1:
        p.error("--rate, --count, --width and --height must be positive")
    return args


class Pattern:
    """A checkered plane that moves a few pixels a frame: cheap to make, and no two frames alike."""

    def __init__(self, width, height, count):
        self.size = (width, height)
        self.count = count
        y, x = np.mgrid[0:height, 0 : width + 8 * count]
        checks = ((x // 40 + y // 40) % 2 * 120).astype(np.uint8)
        noise = np.random.default_rng(1).integers(0, 100, checks.shape, dtype=np.uint8)
        self.plane = np.stack([checks + noise, noise, checks], axis=-1)

    def rgb(self, i):
        return np.ascontiguousarray(self.plane[:, 8 * i : 8 * i + self.size[0]])

    def jpeg(self, i):
        from PIL import Image as Pil

        buffer = io.BytesIO()
        Pil.fromarray(self.rgb(i)).save(buffer, "JPEG", quality=90)
        return "jpeg", buffer.getvalue()


class Folder:
    """Image files, in the order of their names."""

    def __init__(self, folder, limit):
        from PIL import Image as Pil

        self.files = sorted(f for f in folder.iterdir() if f.suffix.lower() in SUFFIXES)[:limit]
        if not self.files:
            sys.exit(f"counterpart: no JPEG or PNG file in {folder}")
        self.count = len(self.files)
        with Pil.open(self.files[0]) as first:
            self.size = first.size

    def rgb(self, i):
        from PIL import Image as Pil

        with Pil.open(self.files[i]) as image:
            return np.asarray(image.convert("RGB"))

    def jpeg(self, i):
        return ("png" if self.files[i].suffix.lower() == ".png" else "jpeg"), self.files[i].read_bytes()


def nanos_of(stamp):
    return stamp.sec * NANOS + stamp.nanosec


def time_of(nanos):
    return Time(sec=nanos // NANOS, nanosec=nanos % NANOS)


def pose_of(pose):
    p, q = pose.position, pose.orientation
    return {"position": [p.x, p.y, p.z], "orientation_xyzw": [q.x, q.y, q.z, q.w]}


class Counterpart(Node):
    def __init__(self, args):
        super().__init__("egoreasoner_counterpart")
        self.args = args
        sensor = QoSProfile(
            history=HistoryPolicy.KEEP_LAST,
            depth=10,
            durability=DurabilityPolicy.VOLATILE,
            reliability=ReliabilityPolicy.BEST_EFFORT if args.best_effort else ReliabilityPolicy.RELIABLE,
        )
        reliable = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=100, reliability=ReliabilityPolicy.RELIABLE)
        image_type = CompressedImage if args.compressed else Image
        self.images = self.create_publisher(image_type, args.image_topic, sensor)
        self.camera_infos = self.create_publisher(CameraInfo, args.camera_info_topic, sensor)
        self.create_subscription(Path, args.trajectory_topic, self.on_path, reliable)
        self.create_subscription(Odometry, args.odometry_topic, self.on_odometry, reliable)
        self.create_subscription(DiagnosticArray, args.diagnostics_topic, self.on_diagnostics, reliable)
        self.published = []  # stamps in nanoseconds
        self.sent_at = {}  # stamp -> monotonic seconds
        self.paths, self.odometry, self.diagnostics = [], [], []
        self.last_path_at = 0.0

    def matched(self):
        """Whether both sides see each other on every topic."""
        return (
            self.images.get_subscription_count() > 0
            and self.camera_infos.get_subscription_count() > 0
            and all(
                self.count_publishers(t) > 0
                for t in (self.args.trajectory_topic, self.args.odometry_topic, self.args.diagnostics_topic)
            )
        )

    def active(self):
        """Whether the node answers, as its last report says: images that come while it loads its weights are dropped."""
        return bool(self.diagnostics) and self.diagnostics[-1]["values"].get("lifecycle", "active") == "active"

    def on_path(self, path):
        now = time.monotonic()
        self.last_path_at = now
        poses = [
            {"stamp_nanos": nanos_of(p.header.stamp), "frame_id": p.header.frame_id, **pose_of(p.pose)}
            for p in path.poses
        ]
        sent = self.sent_at.get(poses[-1]["stamp_nanos"]) if poses else None
        self.paths.append(
            {
                "stamp_nanos": nanos_of(path.header.stamp),
                "frame_id": path.header.frame_id,
                "latency_ms": None if sent is None else (now - sent) * 1e3,
                "poses": poses,
            }
        )

    def on_odometry(self, odometry):
        self.odometry.append(
            {
                "stamp_nanos": nanos_of(odometry.header.stamp),
                "frame_id": odometry.header.frame_id,
                "child_frame_id": odometry.child_frame_id,
                "covariance": list(odometry.pose.covariance),
                **pose_of(odometry.pose.pose),
            }
        )

    def on_diagnostics(self, diagnostics):
        for status in diagnostics.status:
            self.diagnostics.append(
                {
                    "stamp_nanos": nanos_of(diagnostics.header.stamp),
                    "name": status.name,
                    "level": int.from_bytes(status.level, "little"),
                    "message": status.message,
                    "values": {v.key: v.value for v in status.values},
                }
            )

    def camera_info(self, stamp, size):
        width, height = size
        default_focal = width / 2 / np.tan(np.radians(30))
        fx, fy, cx, cy = self.args.k or (default_focal, default_focal, (width - 1) / 2, (height - 1) / 2)
        info = CameraInfo(width=width, height=height, distortion_model="plumb_bob", d=[0.0] * 5)
        info.header.stamp, info.header.frame_id = stamp, self.args.frame_id
        info.k = [fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0]
        info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
        info.p = [fx, 0.0, cx, 0.0, 0.0, fy, cy, 0.0, 0.0, 0.0, 1.0, 0.0]
        return info

    def image(self, source, i, stamp):
        if self.args.compressed:
            form, data = source.jpeg(i)
            message = CompressedImage(format=form)
        else:
            rgb = source.rgb(i)
            message = Image(height=rgb.shape[0], width=rgb.shape[1], encoding="rgb8", step=rgb.shape[1] * 3)
            data = rgb.tobytes()
        message.header.stamp, message.header.frame_id = stamp, self.args.frame_id
        message.data = array.array("B", data)  # the one assignment that rclpy does not check byte by byte
        return message

    def play(self, source, stamps):
        """Publishes at the rate; images are made ahead of their time, so that the interval is the rate's."""
        begin = time.monotonic()
        for i in range(source.count):
            message = self.image(source, i, time_of(0))
            due = begin + i / self.args.rate
            time.sleep(max(0.0, due - time.monotonic()))
            nanos = stamps[i] if stamps else time.time_ns()
            message.header.stamp = time_of(nanos)
            self.published.append(nanos)
            self.sent_at[nanos] = time.monotonic()
            self.camera_infos.publish(self.camera_info(message.header.stamp, source.size))
            self.images.publish(message)

    def received_by_node(self):
        if not self.diagnostics:
            return -1
        return int(self.diagnostics[-1]["values"].get("frames_received", -1))


def main():
    args = arguments()
    source = Folder(args.frames, args.count if "--count" in sys.argv else None) if args.frames else Pattern(
        args.width, args.height, args.count
    )
    stamps = None
    if args.stamps:
        lines = args.stamps.read_text().split()
        stamps = [int(whole) * NANOS + int(part.ljust(9, "0")[:9]) for whole, _, part in (x.partition(".") for x in lines)]
        if len(stamps) < source.count:
            sys.exit(f"counterpart: {len(stamps)} stamps for {source.count} images")
    rclpy.init()
    node = Counterpart(args)
    executor = SingleThreadedExecutor()
    executor.add_node(node)

    def spin():
        try:
            executor.spin()
        except ExternalShutdownException:
            pass

    spinning = threading.Thread(target=spin, daemon=True)
    spinning.start()

    started = time.monotonic()
    while not (node.matched() and node.active()) and time.monotonic() - started < args.discovery:
        time.sleep(0.05)
    discovered = node.matched() and node.active()
    discovery = time.monotonic() - started
    if discovered:
        time.sleep(args.settle)  # the node's side of the match cannot be seen from here
        node.play(source, stamps)
        end = time.monotonic()
        node.last_path_at = max(node.last_path_at, end)
        while time.monotonic() - end < args.drain:
            quiet = time.monotonic() - node.last_path_at >= args.quiet
            if quiet and node.received_by_node() >= source.count:
                break
            time.sleep(0.05)

    report = {
        "discovered": discovered,
        "discovery_s": discovery,
        "image_size": list(source.size),
        "published_stamps_nanos": node.published,
        "paths": node.paths,
        "odometry": node.odometry,
        "diagnostics_received": len(node.diagnostics),
        "diagnostics_last": node.diagnostics[-1] if node.diagnostics else None,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(report, indent=1))
    latencies = sorted(p["latency_ms"] for p in node.paths if p["latency_ms"] is not None)
    print(
        f"counterpart: {len(node.published)} images out, {len(node.paths)} paths, {len(node.odometry)} odometry, "
        f"{len(node.diagnostics)} diagnostics in; latency median "
        + (f"{latencies[len(latencies) // 2]:.1f} ms, max {latencies[-1]:.1f} ms" if latencies else "unknown")
    )
    if not discovered:
        print(f"counterpart: the node did not match every topic, or is not active, within {args.discovery} s", file=sys.stderr)
    executor.shutdown()
    spinning.join(timeout=2)
    node.destroy_node()
    rclpy.try_shutdown()
    return 0 if discovered else 3


if __name__ == "__main__":
    sys.exit(main())
