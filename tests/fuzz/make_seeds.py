#!/usr/bin/env python3
"""Writes the seeds of the fuzz targets: `cargo xtask ros2 -- python3 tests/fuzz/make_seeds.py`.

Samples are serialized by rclpy, so that they are what another ROS 2 implementation sends, and recordings written by MCAP's own
package for Python. Needs Pillow, NumPy and `mcap` too. The seeds are committed, and so are the pictures that one target damages;
a name that starts with `bad-` says that the target must not let it through.
"""

import io
import struct
from pathlib import Path

import numpy as np
import zstandard
from mcap.writer import CompressionType, Writer
from PIL import Image as Pil
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, RegionOfInterest

SEEDS = Path(__file__).parent / "seeds"
PICTURES = Path(__file__).parent / "pictures"
WIDTH, HEIGHT = 8, 6
# Bytes a row by encoding; nv12 and nv21 have half as many rows again.
ROWS = {"rgb": 3, "bgr": 3, "rgba": 4, "bgra": 4, "mono": 1, "bayer_rggb": 1, "bayer_bggr": 1, "bayer_gbrg": 1, "bayer_grbg": 1}
ENCODINGS = {f"{name}{8 * size}": count * size for name, count in ROWS.items() for size in (1, 2)}
ENCODINGS |= {"uyvy": 2, "yuv422": 2, "yuyv": 2, "yuv422_yuy2": 2, "nv12": 1, "nv21": 1}
BIG_ENDIAN, FITTED = 1, 2
FORMATS = ["jpeg", "png", "rgb8; jpeg compressed bgr8", "bayer_rggb8; jpeg compressed "]


def write(target, name, data):
    folder = SEEDS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(bytes(data))


def noise(count):
    return np.random.default_rng(1).integers(0, 256, count, dtype=np.uint8)


def raw_images():
    def image(encoding, flags, step, data):
        header = struct.pack("<BIII", flags, WIDTH, HEIGHT, step)
        return bytes([len(encoding)]) + encoding.encode() + header + bytes(data)

    for encoding, size in ENCODINGS.items():
        step = WIDTH * size
        rows = HEIGHT // 2 * 3 if encoding.startswith("nv") else HEIGHT
        write("raw_image", encoding, image(encoding, 0, step, noise(rows * step)))
    write("raw_image", "fitted", image("rgb8", FITTED, 3 * WIDTH + 5, noise(20)))
    write("raw_image", "big_endian", image("mono16", BIG_ENDIAN, 2 * WIDTH, noise(HEIGHT * 2 * WIDTH)))
    write("raw_image", "bad-encoding", image("32FC1", 0, 4 * WIDTH, noise(HEIGHT * 4 * WIDTH)))
    write("raw_image", "bad-length", image("rgb8", 0, 3 * WIDTH, noise(7)))
    write("raw_image", "bad-step", image("rgb8", 0, 2, noise(2 * HEIGHT)))


def files():
    rgb = Pil.fromarray(noise(WIDTH * HEIGHT * 3).reshape(HEIGHT, WIDTH, 3))
    grey = rgb.convert("L")
    deep = Pil.fromarray(noise(WIDTH * HEIGHT * 2).view(np.uint16).reshape(HEIGHT, WIDTH))
    return {
        "baseline.jpg": (0, saved(rgb, "JPEG")),
        "progressive.jpg": (2, saved(rgb, "JPEG", progressive=True)),
        "bayer.jpg": (3, saved(grey, "JPEG")),
        "rgb.png": (1, saved(rgb, "PNG")),
        "rgba.png": (1, saved(rgb.convert("RGBA"), "PNG")),
        "palette.png": (1, saved(rgb.quantize(8), "PNG")),
        "deep.png": (1, saved(deep, "PNG")),
    }


def saved(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def compressed_images():
    for name, (form, data) in files().items():
        write("compressed_image", name, bytes([form]) + data)
    jpeg = files()["baseline.jpg"][1]
    write("compressed_image", "bad-truncated.jpg", b"\0" + jpeg[: len(jpeg) // 2])
    write("compressed_image", "bad-kind", b"\0GIF89a")


def pictures():
    """What a camera sees: soft changes, edges, and a little noise, so that blocks take a few bytes each."""
    y, x = np.mgrid[0:72, 0:96].astype(float)
    base = 128 + 60 * np.sin(x / 17 + y / 29) + 40 * np.cos(y / 11 - x / 41) + 30 * ((x // 12 + y // 9) % 2)
    rgb = np.stack([base, base * 0.8 + 20 * np.sin(x / 9), 200 - base * 0.6], -1)
    rgb = np.clip(rgb + np.random.default_rng(1).normal(0, 4, rgb.shape), 0, 255).astype(np.uint8)
    image, deep = Pil.fromarray(rgb), Pil.fromarray(rgb[..., 0].astype(np.uint16) * 13 + np.arange(96, dtype=np.uint16))
    return {
        "baseline.jpg": saved(image, "JPEG", quality=80),
        "restarts.jpg": saved(image, "JPEG", quality=80, restart_marker_blocks=4),
        "progressive.jpg": saved(image, "JPEG", quality=80, progressive=True),
        "rgb.png": saved(image, "PNG"),
        "deep.png": saved(deep, "PNG"),
    }


def damaged_images():
    nothing, flip, cut, cut_before_end, zeros, drop = range(6)
    PICTURES.mkdir(exist_ok=True)
    for index, (name, data) in enumerate(pictures().items()):
        (PICTURES / name).write_bytes(data)

        def seed(label, kind, at, length=0):
            write("damaged_image", label, struct.pack("<BBII", index, kind, at, length))

        name = name.replace(".", "_")
        seed(f"whole-{name}", nothing, 0)
        begin = data.find(b"\xff\xda") + 14 if name.endswith("jpg") else 41
        size = len(data) - begin
        seed(f"bad-cut-{name}", cut, begin + size // 2)
        seed(f"bad-second-half-{name}", cut_before_end, begin + size // 2)
        if name.endswith("png"):
            seed(f"bad-flip-{name}", flip, begin + size // 2, 3)
        if name != "progressive_jpg":
            seed(f"bad-zeros-{name}", zeros, begin + size // 4, 300)
            seed(f"bad-middle-third-{name}", drop, begin + size // 3, size // 3)


def recordings():
    def recording(compression, chunking=True, packed=False):
        buffer = io.BytesIO()
        writer = Writer(buffer, 1024, compression, use_chunking=chunking, enable_data_crcs=chunking)
        writer.start("ros2", "make_seeds")
        schema = writer.register_schema("sensor_msgs/msg/CompressedImage", "ros2msg", b"")
        topics = [writer.register_channel(f"/camera{i}", "cdr", schema, {"offered_qos_profiles": ""}) for i in range(2)]
        data = serialize_message(CompressedImage(format="png", data=noise(200).tobytes()))
        data = zstandard.compress(data) if packed else data
        for i in range(12):
            time = 1_700_000_000_000_000_000 + i * 100_000_000
            writer.add_message(topics[i % 2], time, data, time, i)
        writer.finish()
        return buffer.getvalue()

    zstd, none = recording(CompressionType.ZSTD), recording(CompressionType.NONE)
    loose = recording(CompressionType.NONE, chunking=False)
    write("mcap", "zstd", zstd)
    write("mcap", "lz4", recording(CompressionType.LZ4))
    write("mcap", "none", none)
    write("mcap", "loose", loose)
    write("mcap", "packed", recording(CompressionType.NONE, packed=True))
    chunk, message = (next(at for at, found, _ in records(data) if found == kind) for data, kind in [(zstd, 6), (loose, 5)])
    write("mcap", "bad-cut", zstd[: len(zstd) * 2 // 3])
    write("mcap", "bad-kind", changed(zstd, chunk, b"\x07"))
    write("mcap", "bad-count", changed(loose, message, b"\x0c"))
    write("mcap", "bad-size", changed(zstd, chunk + 9 + 16, struct.pack("<Q", 200 << 20)))
    write("mcap", "bad-name", changed(loose, next(at for at, kind, _ in records(loose) if kind == 4) + 9 + 4, b"\xff" * 4))


def records(data):
    """Where each record begins, what it is, and how many bytes it takes."""
    at = 8
    while at < len(data) - 8:
        kind, length = struct.unpack_from("<BQ", data, at)
        yield at, kind, 9 + length
        at += 9 + length


def changed(data, at, new):
    return data[:at] + new + data[at + len(new) :]


def samples():
    image = Image(width=WIDTH, height=HEIGHT, encoding="bgr8", step=3 * WIDTH, data=noise(HEIGHT * 3 * WIDTH).tobytes())
    image.header.frame_id = "camera_optical"
    write("cdr", "image", serialize_message(image))
    form, data = files()["baseline.jpg"]
    write("cdr", "compressed_image", serialize_message(CompressedImage(format=FORMATS[form], data=data)))
    write("cdr", "big_endian", big_endian(FORMATS[form], data))
    write("cdr", "bad-short", serialize_message(image)[:30])


def big_endian(form, data):
    """The same CompressedImage from a machine of the other byte order, which rclpy does not write."""
    message = struct.pack(">iI", 1, 2)
    for block in [b"camera_optical\0", form.encode() + b"\0", data]:
        message += b"\0" * (-len(message) % 4) + struct.pack(">I", len(block)) + block
    return b"\0\0\0\0" + message


def camera_infos():
    def info(model, d, **more):
        fields = {"width": 64, "height": 48, "k": [60.0, 0.0, 32.0, 0.0, 60.0, 24.0, 0.0, 0.0, 1.0]} | more
        message = CameraInfo(distortion_model=model, d=d, r=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0], **fields)
        message.header.frame_id = "camera_optical"
        return serialize_message(message)

    p = [50.0, 0.0, 32.0, 0.0, 0.0, 50.0, 24.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    write("camera_info", "pinhole", info("plumb_bob", [0.0] * 5))
    write("camera_info", "plumb_bob", info("plumb_bob", [-0.1, 0.01, 0.001, 0.001, 0.0]))
    write("camera_info", "plumb_bob_p", info("plumb_bob", [-0.1, 0.01, 0.0, 0.0, 0.0], p=p))
    write("camera_info", "rational", info("rational_polynomial", [0.1, 0.01, 0.0, 0.0, 0.0, 0.2, 0.02, 0.0]))
    write("camera_info", "equidistant", info("equidistant", [0.01, 0.001, 0.0, 0.0]))
    roi = RegionOfInterest(x_offset=8, y_offset=8, width=32, height=32)
    write("camera_info", "roi", info("plumb_bob", [0.0] * 5, roi=roi, binning_x=2, binning_y=2))
    tiny = [60.0, 0.0, 32.0, 0.0, 5e-324, 24.0, 0.0, 0.0, 1.0]
    write("camera_info", "bad-focal-length", info("plumb_bob", [0.0] * 5, k=tiny, roi=roi, binning_x=2, binning_y=2))
    write("camera_info", "bad-uncalibrated", info("plumb_bob", [0.0] * 5, k=[0.0] * 9))


def chains():
    def pose(i):
        return f"{i} R 1.000000 0.000000 0.000000 0.000000 1.000000 0.000000 0.000000 0.000000 1.000000 t 0.{i}00000 0.000000 0.000000"

    poses = "<poses>\n" + "\n".join(pose(i) for i in range(5)) + "\n</poses>"
    steps = [
        "Points.\n" + "\n".join(f"p{i}" + " |".join([" 12.3 45.6"] * 5) for i in range(5)),
        "Depths.\n" + "\n".join(f"p{i}" + " 1.234" * 5 for i in range(5)),
        "Cameras.\n" + "\n".join(f"p{i}" + " |".join([" 0.1234 -0.2345 1.2340"] * 5) for i in range(5)),
        "Motion.\n" + "\n".join(pose(i) for i in range(1, 5)),
        "The camera moves to the right.",
    ]
    chain = "".join(f"<step{i}>\n{text}\n</step{i}>\n" for i, text in enumerate(steps, 1)) + poses
    write("chain_text", "answer", poses.encode())
    write("chain_text", "chain", chain.encode())
    write("chain_text", "begun_twice", b"<poses>\n0 R 1.0\n" + poses.encode())
    write("chain_text", "bad-cut", chain.encode()[:-20])
    write("chain_text", "bad-mirror", poses.replace("0 R 1.0", "0 R -1.0").encode())
    write("chain_write", "zeros", b"")
    write("chain_write", "noise", noise(1500))


if __name__ == "__main__":
    raw_images()
    compressed_images()
    damaged_images()
    recordings()
    samples()
    camera_infos()
    chains()
