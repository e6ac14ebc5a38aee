#!/usr/bin/env python3
"""Writes the problem and pycolmap's answer that `geometry/tests/suite/adjust.rs` holds the crate's bundle adjustment against.

    python training/baselines/adjust.py [--out geometry/tests/fixtures/adjust.json]

Draws five seeded views of points, with normal noise and outliers, and a start that is off; adjusts it with pycolmap's
Ceres (Cauchy loss, intrinsics constant, first pose constant), and writes problem, start and answer. A second run gives the
same file. Prints both costs.

Pixels are rounded to 0.01 before anyone sees them, and stored as whole numbers of those.
"""
# /// script
# requires-python = ">=3.11"
# dependencies = ["pycolmap==4.2.1", "numpy==2.4.6", "scipy==1.17.1"]
# ///

import argparse
import json
from pathlib import Path

import numpy as np
import pycolmap
from scipy.spatial.transform import Rotation

PYCOLMAP = "4.2.1"
ROOT = Path(__file__).resolve().parents[2]
SEED = 20261128
WIDTH, HEIGHT, FOCAL = 640, 480, 500.0
VIEWS, POINTS = 5, 120
NOISE_PX, LOSS_PX = 0.4, 0.5
OUTLIERS = 0.04


def project(pose: tuple[Rotation, np.ndarray], points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    inside = pose[0].apply(points) + pose[1]
    return inside[:, :2] / inside[:, 2:] * FOCAL, inside[:, 2]


def problem(random: np.random.Generator) -> tuple[list, np.ndarray, list]:
    """True poses and points, and observations: point, view, hundredths of pixels from the principal point."""
    poses = [(Rotation.identity(), np.zeros(3))]
    for _ in range(VIEWS - 1):
        turn = Rotation.from_rotvec(random.uniform(-0.06, 0.06, 3))
        step = np.array([0.15, 0.0, -0.1]) + random.uniform(-0.1, 0.1, 3)
        poses.append((turn * poses[-1][0], turn.apply(poses[-1][1]) + step))
    points = np.zeros((0, 3))
    while len(points) < POINTS:
        rays = np.column_stack([random.uniform(-0.6, 0.6, 50), random.uniform(-0.45, 0.45, 50), np.ones(50)])
        new = rays * random.uniform(2.0, 8.0, 50)[:, None]
        inside = [project(pose, new) for pose in poses]
        good = np.all([(depth > 0.3) & (np.abs(xy) < [WIDTH / 2, HEIGHT / 2]).all(1) for xy, depth in inside], axis=0)
        points = np.vstack([points, new[good]])
    points = points[:POINTS]
    seen = []
    for k in range(POINTS):
        views = sorted(random.choice(VIEWS, random.integers(3, VIEWS + 1), replace=False))
        for view in views:
            xy = project(poses[view], points[k : k + 1])[0][0] + random.normal(0.0, NOISE_PX, 2)
            if random.random() < OUTLIERS:
                xy += random.uniform(-30.0, 30.0, 2)
            seen.append([k, int(view), *np.round(100.0 * xy).astype(int).tolist()])
    return poses, points, seen


def start(random: np.random.Generator, poses: list, points: np.ndarray) -> tuple[list, np.ndarray]:
    moved = [poses[0]]
    for rotation, t in poses[1:]:
        turn = Rotation.from_rotvec(random.uniform(-0.004, 0.004, 3))
        moved.append((turn * rotation, turn.apply(t) + random.uniform(-0.01, 0.01, 3)))
    return moved, np.round(points * random.uniform(0.98, 1.02, (len(points), 1)), 6)


def cost(poses: list, points: np.ndarray, seen: list) -> float:
    total = 0.0
    for k, view, x, y in seen:
        xy, _ = project(poses[view], points[k : k + 1])
        square = ((xy[0] - np.array([x, y]) / 100.0) ** 2).sum()
        total += LOSS_PX**2 * np.log1p(square / LOSS_PX**2)
    return float(total)


def adjusted(poses: list, points: np.ndarray, seen: list) -> tuple[list, np.ndarray]:
    scene = pycolmap.Reconstruction()
    camera = pycolmap.Camera(
        model="PINHOLE", width=WIDTH, height=HEIGHT, params=[FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2], camera_id=1
    )
    scene.add_camera_with_trivial_rig(camera)
    tracks = [pycolmap.Track() for _ in points]
    for view, (rotation, t) in enumerate(poses):
        own = [s for s in seen if s[1] == view]
        pixels = np.array([[x / 100.0 + WIDTH / 2, y / 100.0 + HEIGHT / 2] for _, _, x, y in own])
        image = pycolmap.Image(name=f"{view}", keypoints=pixels, camera_id=1, image_id=view + 1)
        pose = pycolmap.Rigid3d(pycolmap.Rotation3d(rotation.as_quat()), t)
        scene.add_image_with_trivial_frame(image, pose)
        for index, (k, *_) in enumerate(own):
            tracks[k].add_element(view + 1, index)
    for point, track in zip(points, tracks, strict=True):
        scene.add_point3D(point, track)
    options = pycolmap.BundleAdjustmentOptions()
    options.refine_focal_length = options.refine_extra_params = options.refine_principal_point = False
    options.print_summary = False
    ceres = options.ceres
    ceres.loss_function_type = pycolmap.LossFunctionType.CAUCHY
    ceres.loss_function_scale = LOSS_PX
    ceres.solver_options.max_num_iterations = 1000
    ceres.solver_options.function_tolerance = 1e-14
    ceres.solver_options.gradient_tolerance = 1e-12
    ceres.solver_options.parameter_tolerance = 1e-14
    ceres.solver_options.num_threads = 1
    config = pycolmap.BundleAdjustmentConfig()
    for view in range(VIEWS):
        config.add_image(view + 1)
    config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    pycolmap.create_default_bundle_adjuster(options, config, scene).solve()
    ids = sorted(scene.points3D)
    solved = np.array([scene.points3D[k].xyz for k in ids])
    found = []
    for view in range(VIEWS):
        pose = scene.images[view + 1].cam_from_world()
        found.append((Rotation.from_quat(pose.rotation.quat), np.array(pose.translation)))
    # The first camera may have been left free: the world is again its own.
    rotation, t = found[0]
    solved = rotation.apply(solved) + t
    found = [(r * rotation.inv(), p - (r * rotation.inv()).apply(t)) for r, p in found]
    return found, solved


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "geometry/tests/fixtures/adjust.json")
    args = parser.parse_args()
    if pycolmap.__version__ != PYCOLMAP:
        raise SystemExit(f"pycolmap {PYCOLMAP} made the file, this is {pycolmap.__version__}")
    random = np.random.default_rng(SEED)
    truth, points, seen = problem(random)
    poses, moved = start(random, truth, points)
    found, solved = adjusted(poses, moved, seen)
    left = cost(found, solved, seen)
    print(f"cost {cost(poses, moved, seen):.3f} at the start, {cost(truth, points, seen):.3f} at the truth, {left:.6f} left")

    def numbers(poses: list) -> list:
        return [[round(float(v), 9) for v in (*r.as_rotvec(), *t)] for r, t in poses]

    out = {
        "program": "training/baselines/adjust.py",
        "pycolmap_version": PYCOLMAP,
        "seed": SEED,
        "focal": FOCAL,
        "loss_px": LOSS_PX,
        "start": numbers(poses),
        "pycolmap": numbers(found),
        "cost": left,
        "points": moved.tolist(),
        "seen": seen,
    }
    args.out.write_text(json.dumps(out, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
