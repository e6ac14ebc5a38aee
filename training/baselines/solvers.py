#!/usr/bin/env python3
"""Writes the problems and PoseLib's answers that `geometry/tests/suite/solvers.rs` holds the crate's solvers against.

    python training/baselines/solvers.py [--out geometry/tests/fixtures/solvers.json]

Draws seeded problems, relative poses of two views and absolute poses, with normal noise and outliers; solves them with
PoseLib, and writes problems, truths and answers. A second run gives the same file. Prints PoseLib's median errors.

Pixels are rounded to 0.01 and points to 0.0001 before anyone sees them, and stored as whole numbers of those: the file
stays below 100 kB.
"""
# /// script
# requires-python = ">=3.11"
# dependencies = ["poselib==2.0.5", "numpy==2.4.6", "scipy==1.17.1"]
# ///

import argparse
import json
from pathlib import Path

import numpy as np
import poselib
from scipy.spatial.transform import Rotation

POSELIB = "2.0.5"
ROOT = Path(__file__).resolve().parents[2]
SEED = 20261128
WIDTH, HEIGHT, FOCAL = 640, 480, 500.0
CENTRE = np.array([319.5, 239.5])
NOISE_PX = 0.5
THRESHOLD_PX = 2.0
PAIRS, POINTS = 60, 40
PROBLEMS = 30
CAMERA = {"model": "PINHOLE", "width": WIDTH, "height": HEIGHT, "params": [FOCAL, FOCAL, *CENTRE]}
# How the camera moves, in turns: along its own axes, and a plane in front of it.
KINDS = ["any", "sideways", "forward", "plane"]


def visible(pixels: np.ndarray, depth: np.ndarray) -> np.ndarray:
    return (depth > 0.3) & (pixels > -0.5).all(1) & (pixels < [WIDTH - 0.5, HEIGHT - 0.5]).all(1)


def project(points: np.ndarray) -> np.ndarray:
    return points[:, :2] / points[:, 2:] * FOCAL + CENTRE


def random_pixels(random: np.random.Generator, count: int) -> np.ndarray:
    return random.uniform([0.0, 0.0], [WIDTH - 1.0, HEIGHT - 1.0], (count, 2))


def back_project(pixels: np.ndarray, depth: np.ndarray) -> np.ndarray:
    return np.column_stack([(pixels - CENTRE) / FOCAL, np.ones(len(pixels))]) * depth[:, None]


def relative_problem(random: np.random.Generator, kind: str) -> dict:
    """One pair of views: pixels, and the rotation vector and direction of b_from_a."""
    turn = Rotation.from_rotvec(random.uniform(-0.15, 0.15, 3))
    t = {"sideways": [1.0, 0.0, 0.1], "forward": [0.05, 0.1, -1.0]}.get(kind, random.normal(0.0, 1.0, 3))
    t = np.array(t) / np.linalg.norm(t) * random.uniform(0.3, 1.0)
    a = np.zeros((0, 2))
    b = np.zeros((0, 2))
    while len(a) < PAIRS:
        pixels = random_pixels(random, 4 * PAIRS)
        depth = random.uniform(2.0, 8.0, len(pixels))
        if kind == "plane":
            rays = back_project(pixels, np.ones(len(pixels)))
            depth = 4.0 / (rays @ np.array([0.2, 0.3, 1.0]))
        inside = turn.apply(back_project(pixels, depth)) + t
        moved = project(inside)
        good = visible(moved, inside[:, 2])
        a, b = np.vstack([a, pixels[good]]), np.vstack([b, moved[good]])
    a, b = a[:PAIRS] + random.normal(0.0, NOISE_PX, (PAIRS, 2)), b[:PAIRS] + random.normal(0.0, NOISE_PX, (PAIRS, 2))
    wrong = random.random(PAIRS) < 0.3
    b[wrong] = random_pixels(random, wrong.sum())
    a, b = np.round(a, 2), np.round(b, 2)
    pose, info = poselib.estimate_relative_pose(
        a, b, CAMERA, CAMERA, {"max_epipolar_error": THRESHOLD_PX, "seed": SEED}, {}
    )
    return {
        "kind": kind,
        "a": centi(a),
        "b": centi(b),
        "truth": rounded(turn, t / np.linalg.norm(t)),
        "poselib": answer(pose, info),
    }


def absolute_problem(random: np.random.Generator, kind: str) -> dict:
    """One view of known points: points, pixels, and the rotation vector and translation of camera_from_world."""
    turn, t = Rotation.random(random_state=random), random.uniform(-2.0, 2.0, 3)
    pixels = random_pixels(random, POINTS)
    depth = random.uniform(2.0, 8.0, POINTS)
    if kind == "plane":
        depth = 4.0 / (back_project(pixels, np.ones(POINTS)) @ np.array([0.2, 0.3, 1.0]))
    points = np.round(turn.inv().apply(back_project(pixels, depth) - t), 4)
    pixels = pixels + random.normal(0.0, NOISE_PX, (POINTS, 2))
    wrong = random.random(POINTS) < 0.4
    pixels[wrong] = random_pixels(random, wrong.sum())
    pixels = np.round(pixels, 2)
    pose, info = poselib.estimate_absolute_pose(
        pixels, points, CAMERA, {"max_reproj_error": THRESHOLD_PX, "seed": SEED}, {}
    )
    return {
        "kind": kind,
        "points": np.round(1e4 * points).astype(int).ravel().tolist(),
        "xy": centi(pixels),
        "truth": rounded(turn, t),
        "poselib": answer(pose, info),
    }


def centi(pixels: np.ndarray) -> list[int]:
    return np.round(100.0 * pixels).astype(int).ravel().tolist()


def answer(pose: "poselib.CameraPose", info: dict) -> dict:
    turn = Rotation.from_matrix(pose.R)
    return {**rounded(turn, np.asarray(pose.t)), "inliers": int(np.sum(info["inliers"]))}


def rounded(turn: Rotation, t: np.ndarray) -> dict:
    return {"rotation": np.round(turn.as_rotvec(), 9).tolist(), "translation": np.round(t, 9).tolist()}


def errors(problem: dict, directions: bool) -> tuple[float, float]:
    """The rotation's error in radians, and that of the direction (radians) or of the camera's position."""
    truth, got = problem["truth"], problem["poselib"]
    turns = [Rotation.from_rotvec(pose["rotation"]) for pose in (truth, got)]
    shifts = [np.array(pose["translation"]) for pose in (truth, got)]
    turned = (turns[1] * turns[0].inv()).magnitude()
    if directions:
        return turned, float(np.arctan2(np.linalg.norm(np.cross(*shifts)), np.dot(*shifts)))
    centres = [turn.inv().apply(-t) for turn, t in zip(turns, shifts)]
    return turned, float(np.linalg.norm(centres[0] - centres[1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "geometry/tests/fixtures/solvers.json")
    parser.add_argument("--problems", type=int, default=PROBLEMS, help="of each kind; the test expects the default")
    arguments = parser.parse_args()
    if poselib.__version__ != POSELIB:
        raise SystemExit(f"expected poselib {POSELIB}, got {poselib.__version__}")
    random = np.random.default_rng(SEED)
    result = {
        "poselib": POSELIB,
        "focal": FOCAL,
        "centre": CENTRE.tolist(),
        "threshold_px": THRESHOLD_PX,
        "relative": [relative_problem(random, KINDS[k % len(KINDS)]) for k in range(arguments.problems)],
        "absolute": [absolute_problem(random, ["any", "plane"][k % 2]) for k in range(arguments.problems)],
    }
    arguments.out.write_text(json.dumps(result, separators=(",", ":")) + "\n")
    for name, directions in [("relative", True), ("absolute", False)]:
        medians = np.median([errors(problem, directions) for problem in result[name]], axis=0)
        part = "direction" if directions else "position"
        print(f"{name}: median rotation {medians[0]:.3e} rad, {part} {medians[1]:.3e}")


if __name__ == "__main__":
    main()
