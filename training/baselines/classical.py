"""Camera poses of five-frame windows from classical geometry, without learning.

SIFT, MAGSAC essential matrices, PnP and a five-view bundle adjustment: what a robotics engineer would use instead of a
vision-language model, hence the baseline to compare one with.

    python training/baselines/classical.py WINDOWS_JSON --out DIR [--limit N] [--threads 1]

WINDOWS_JSON: {"windows": [{"id", "intrinsics": {"fx", "fy", "cx", "cy", "width", "height"}, "frames": [five paths,
absolute or relative to the file's folder], "stamps": [five, seconds]}]}; other keys are ignored. Images are undistorted
and have exactly the intrinsics' size; pixel (0, 0) is the centre of the top-left pixel, as OpenCV has it too.

DIR/<id>.tum: five lines `stamp tx ty tz qx qy qz qw`, anchor_from_camera_i: camera to world, where the world is the
camera frame of frame 0 (x right, y down, z forward); the first line is the identity. A window that is not estimated
has no file. DIR/report.json: counts, reasons, times from grey images to poses, and an entry for each window. One camera
cannot see scale: a window's translations share one unknown factor, chosen so that the median depth from frame 0 is 1.

For each window:
 1. RootSIFT (small images are enlarged twice first: at 160x120 that halves the errors), mutual nearest neighbours with
    a ratio test, for all ten pairs of frames.
 2. A MAGSAC essential matrix for each pair; the inliers of all pairs are joined into tracks over the five frames.
 3. Pairs with many inliers and a large parallax (what a robust rotation leaves unexplained) start reconstructions: each
    plausible decomposition of E, and of a homography where one explains most matches (a plane has two solutions), is
    triangulated, and PnP adds the other frames. A short adjustment finds the start with the lowest robust cost. A frame
    that shares points with one other frame only is joined by that pair's E, at a guessed length ("linked").
 4. Bundle adjustment with a Cauchy loss over all tracks, triangulated anew and with outliers chosen anew; twice.
    Levenberg-Marquardt with analytic derivatives and the points eliminated (Schur complement): a few milliseconds an
    iteration for a thousand tracks. Points are homogeneous, so those at infinity do no harm.
 5. Guard: a camera that only turns, with all points at infinity, is fitted to the same observations. Unless an F-test
    says that translation explains more than noise would, the answer is that rotation with t = 0 ("rotation_only").
Seeds are fixed for each window: the same input gives the same output.

Exit status: 0; 1 if a window's input was bad (named, counted under "reasons"; the others are estimated); 2 if nothing
could be read or written.
"""

import argparse
import json
import math
import os
import platform
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # Read when numpy is loaded. The matrices are small.

import cv2
import numpy as np
import scipy
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial.transform import Rotation

VIEWS = 5
PAIRS = [(i, j) for i in range(VIEWS) for j in range(i + 1, VIEWS)]
SEED = 7
# Images whose longest side is shorter are enlarged twice.
SMALL_SIDE = 512
MAX_FEATURES = 1500
# Low, for weak texture: what does not repeat fails the ratio test or MAGSAC.
CONTRAST = 0.01
RATIO = 0.8
# Thresholds in pixels: MAGSAC's, that of a rotation alone, that of reprojection errors.
EPIPOLAR_PX, ROTATION_PX, OUTLIER_PX = 1.0, 2.0, 3.0
# A pair with fewer, or a smaller share, is chance: MAGSAC finds 8 inliers among 30 random matches.
MIN_INLIERS, MIN_INLIER_SHARE = 12, 0.4
# Points that a frame needs to be registered and to stay.
MIN_POINTS = 8
# Scale of the Cauchy loss: SIFT is precise to a third of a pixel or so.
LOSS_PX = 0.5
# Pairs to start from, tracks of each frame there, starts adjusted, and iterations of that.
START_PAIRS, START_TRACKS, STARTS, START_ITERATIONS = 4, 100, 4, 8
# Iterations of a final adjustment, and the relative gain below which any stops: more changes no median here.
ITERATIONS, MIN_GAIN = 10, 1e-4
# With more parallax the camera surely moved. Below MIN_F it did not: of 144 simulated turning cameras,
# 142 were below, the median at 0.8; the ten real windows below it moved by less than 1 cm.
SURE_PARALLAX_PX, MIN_F = 4.0, 1.8


class NotEstimated(Exception):
    """The frames do not give the poses; the message is the reason counted."""


class BadInput(Exception):
    """The window cannot be read: the reason counted, and what exactly."""


@dataclass
class Tracks:
    """Points seen in several frames: normalised coordinates (M, 5, 2), where seen (M, 5), focal lengths (2)."""

    xy: np.ndarray
    seen: np.ndarray
    focal: np.ndarray

    def select(self, keep: np.ndarray) -> "Tracks":
        return Tracks(self.xy[keep], self.seen[keep], self.focal)

    def only(self, seen: np.ndarray) -> "Tracks":
        return Tracks(self.xy, self.seen & seen, self.focal)


def features(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixel positions (N, 2) and RootSIFT descriptors (N, 128)."""
    zoom = 2 if max(image.shape) < SMALL_SIDE else 1
    if zoom > 1:
        image = cv2.resize(image, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_CUBIC)
    # Without the precise upscale, SIFT's positions are off by a quarter of a pixel.
    sift = cv2.SIFT_create(MAX_FEATURES, contrastThreshold=CONTRAST, enable_precise_upscale=True)
    keypoints, descriptors = sift.detectAndCompute(image, None)
    if descriptors is None:
        return np.zeros((0, 2)), np.zeros((0, 128), np.float32)
    descriptors /= np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-9)
    return (np.array([k.pt for k in keypoints]) + 0.5) / zoom - 0.5, np.sqrt(descriptors)


def match(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Mutual nearest neighbours that pass the ratio test: index pairs (N, 2)."""
    if len(a) < 2 or len(b) < 2:
        return np.zeros((0, 2), int)
    similarity = a @ b.T  # Of unit vectors: the squared distance is 2 - 2 s.
    best = similarity.argmax(1)
    rows = np.flatnonzero(similarity.argmax(0)[best] == np.arange(len(a)))
    best, similarity, order = best[rows], similarity[rows], np.arange(len(rows))
    first = similarity[order, best]
    similarity[order, best] = -1.0
    keep = 1.0 - first < RATIO**2 * (1.0 - similarity.max(1))
    return np.stack([rows[keep], best[keep]], 1)


def join_tracks(points: list[np.ndarray], matches: dict[tuple[int, int], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Connected components of the matches: pixels (M, 5, 2) and where seen. Two features in a frame: not seen."""
    start = np.cumsum([0] + [len(p) for p in points])
    a = np.concatenate([m[:, 0] + start[i] for (i, _), m in matches.items()])
    b = np.concatenate([m[:, 1] + start[j] for (_, j), m in matches.items()])
    graph = coo_matrix((np.ones(len(a)), (a, b)), (start[-1], start[-1]))
    count, label = connected_components(graph, directed=False)
    pixels, times = np.zeros((count, VIEWS, 2)), np.zeros((count, VIEWS), int)
    for i in range(VIEWS):
        labels = label[start[i] : start[i + 1]]
        pixels[labels, i] = points[i]
        np.add.at(times[:, i], labels, 1)
    seen = times == 1
    keep = seen.sum(1) >= 2
    return pixels[keep], seen[keep]


def robust_rotation(a: np.ndarray, b: np.ndarray, threshold: float, rng: np.random.Generator) -> np.ndarray:
    """R with b = R a for most of the unit vectors (N, 3): two-point RANSAC, then reweighted Kabsch."""
    pick = rng.integers(0, len(a), (64, 2))

    def axes(v: np.ndarray) -> np.ndarray:
        along, up = v[:, 0] + v[:, 1], np.cross(v[:, 0], v[:, 1])
        along /= np.linalg.norm(along, axis=1, keepdims=True) + 1e-12
        up /= np.linalg.norm(up, axis=1, keepdims=True) + 1e-12
        return np.stack([along, up, np.cross(along, up)], 2)

    tried = axes(b[pick]) @ axes(a[pick]).transpose(0, 2, 1)
    some = rng.permutation(len(a))[:200]
    errors = np.linalg.norm(a[some] @ tried.transpose(0, 2, 1) - b[some], axis=2)
    best = tried[np.minimum(errors, threshold).sum(1).argmin()]
    for _ in range(5):
        weight = 1.0 / (1.0 + (np.linalg.norm(a @ best.T - b, axis=1) / threshold) ** 2) ** 2
        u, _, vt = np.linalg.svd((b * weight[:, None]).T @ a)
        best = u @ np.diag([1.0, 1.0, np.linalg.det(u @ vt)]) @ vt
    return best


def project(poses: np.ndarray, points: np.ndarray, tracks: Tracks) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Camera coordinates (M, 5, 3), residuals in pixels (M, 5, 2), and their squares (M, 5), huge behind a camera."""
    inside = (points @ poses.reshape(-1, 4).T).reshape(-1, VIEWS, 3)
    depth = np.maximum(inside[..., 2:], 1e-6)
    residuals = np.clip((inside[..., :2] / depth - tracks.xy) * tracks.focal, -1e4, 1e4) * tracks.seen[..., None]
    squares = (residuals**2).sum(2)
    squares[tracks.seen & (inside[..., 2] <= 1e-6)] = 1e8
    return inside, residuals, squares


def triangulate(poses: np.ndarray, tracks: Tracks) -> np.ndarray:
    """Unit homogeneous points (M, 4) by DLT, not behind the cameras."""
    rows = tracks.xy[..., None] * poses[:, 2:3] - poses[:, :2]
    rows = (rows * tracks.seen[..., None, None]).reshape(-1, 2 * VIEWS, 4)
    points = np.linalg.eigh(rows.transpose(0, 2, 1) @ rows)[1][..., 0]
    ahead = (np.sign(points @ poses[:, 2].T) * tracks.seen).sum(1)
    points *= np.where(ahead < 0, -1.0, 1.0)[:, None]
    points[:, 3] = np.maximum(points[:, 3], 0.0)
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def robust_cost(squares: np.ndarray) -> float:
    """The Cauchy loss of squared pixel errors."""
    return LOSS_PX**2 * float(np.log1p(squares / LOSS_PX**2).sum())


def adjust(
    poses: np.ndarray, points: np.ndarray, tracks: Tracks, iterations: int, at_infinity: bool = False
) -> tuple[np.ndarray, np.ndarray, float]:
    """Bundle adjustment; camera 0 stays. `at_infinity` keeps all points there: the cameras only rotate.

    Scale needs no gauge: the damping keeps it, and homogeneous points and translations are scaled in the end.
    """
    inside, residuals, squares = project(poses, points, tracks)
    cost, damping = robust_cost(squares), 1e-3
    unknowns = 6 * (VIEWS - 1)
    diagonal = np.arange(unknowns)
    for _ in range(iterations):
        weight = tracks.seen / np.sqrt(1.0 + squares / LOSS_PX**2)
        # Derivatives of the pixel: by camera coordinates, a turn and a shift of the camera, a point's tangent.
        by_inside = np.zeros((*inside.shape[:2], 2, 3))
        scale = weight / np.maximum(inside[..., 2], 1e-6)
        by_inside[..., 0, 0], by_inside[..., 1, 1] = tracks.focal[0] * scale, tracks.focal[1] * scale
        by_inside[..., 2] = -(tracks.xy * tracks.focal + residuals) * scale[..., None]
        by_pose = np.zeros((len(points), VIEWS, 2, VIEWS - 1, 6))
        for i in range(1, VIEWS):
            (x, y, z), (a, c), (b, d) = inside[:, i].T, by_inside[:, i, 0, ::2].T, by_inside[:, i, 1, 1:].T
            by_pose[:, i, 0, i - 1, :3] = np.stack([y * c, z * a - x * c, -y * a], 1)
            by_pose[:, i, 1, i - 1, :3] = np.stack([y * d - z * b, -x * d, x * b], 1)
            by_pose[:, i, :, i - 1, 3:] = by_inside[:, i] * points[:, 3, None, None]
        by_pose = by_pose.reshape(len(points), 2 * VIEWS, unknowns)
        mirror = points.copy()  # Householder: the columns but the first are orthogonal to the point.
        mirror[:, 0] += np.where(points[:, 0] < 0, -1.0, 1.0)
        normal = mirror / np.linalg.norm(mirror, axis=1, keepdims=True)
        tangent = np.eye(4)[:, 1:] - 2.0 * normal[:, :, None] * normal[:, None, 1:]
        if at_infinity:
            tangent[:, 3] = 0.0
        by_point = (by_inside @ poses).reshape(-1, 2 * VIEWS, 4) @ tangent
        errors = (residuals * weight[..., None]).reshape(-1, 2 * VIEWS, 1)

        flat = by_pose.reshape(-1, unknowns)
        hessian, gradient = flat.T @ flat, flat.T @ errors.ravel()
        transposed = by_point.transpose(0, 2, 1)
        point_hessian, point_gradient, mixed = transposed @ by_point, transposed @ errors, transposed @ by_pose
        for _ in range(8):
            damped = point_hessian + np.eye(3) * (damping * point_hessian + 1e-9)
            solved = np.linalg.solve(damped, np.concatenate([mixed, point_gradient], 2))
            reduced = np.concatenate([hessian, gradient[:, None]], 1)
            reduced[diagonal, diagonal] += damping * hessian[diagonal, diagonal] + 1e-9
            reduced -= mixed.reshape(-1, unknowns).T @ solved.reshape(-1, unknowns + 1)
            step = -np.linalg.solve(reduced[:, :-1], reduced[:, -1])
            point_step = -(solved[..., -1] + solved[..., :-1] @ step)
            new_poses = poses.copy()
            new_poses[1:] = Rotation.from_rotvec(step.reshape(-1, 6)[:, :3]).as_matrix() @ poses[1:]
            new_poses[1:, :, 3] += step.reshape(-1, 6)[:, 3:]
            new_points = points + (tangent @ point_step[..., None])[..., 0]
            new_points[:, 3] = np.maximum(new_points[:, 3], 0.0)
            new_points /= np.linalg.norm(new_points, axis=1, keepdims=True)
            new = project(new_poses, new_points, tracks)
            new_cost = robust_cost(new[2])
            if new_cost < cost:
                break
            damping *= 8.0
        else:
            break
        gain, damping = cost - new_cost, max(damping / 5.0, 1e-8)
        poses, points, (inside, residuals, squares), cost = new_poses, new_points, new, new_cost
        if gain < MIN_GAIN * cost:
            break
    return poses, points, cost


def decompositions(
    essential: np.ndarray, a: np.ndarray, b: np.ndarray, camera: np.ndarray, focal: np.ndarray
) -> list[np.ndarray]:
    """The plausible poses (3, 4) of the second of two views, |t| = 1, from matched pixels (N, 2), best first."""
    r1, r2, t = cv2.decomposeEssentialMat(essential)
    options = [(r, sign * t) for r in (r1, r2) for sign in (1.0, -1.0)]
    homography, inliers = cv2.findHomography(a, b, cv2.USAC_MAGSAC, 2.0 * EPIPOLAR_PX)
    if homography is not None and inliers.mean() > 0.6:
        _, rotations, shifts, _ = cv2.decomposeHomographyMat(homography, camera)
        options += [(r, t / max(np.linalg.norm(t), 1e-12)) for r, t in zip(rotations, shifts)]
    xy = np.zeros((len(a), VIEWS, 2))
    xy[:, 0], xy[:, 1] = (a - camera[:2, 2]) / focal, (b - camera[:2, 2]) / focal
    tracks = Tracks(xy, np.tile(np.arange(VIEWS) < 2, (len(a), 1)), focal)
    scored = []
    for r, t in options:
        poses = np.tile(np.eye(3, 4), (VIEWS, 1, 1))
        poses[1] = np.hstack([r, t])
        scored.append((robust_cost(project(poses, triangulate(poses, tracks), tracks)[2]), poses[1]))
    scored.sort(key=lambda option: option[0])
    # The wrong side of a plane, or of small parallax, costs little more; what costs much more is wrong.
    limit = 1.5 * scored[0][0] + 0.05 * len(a)
    return [pose for cost, pose in scored[:3] if cost <= limit]


def register(
    i: int,
    j: int,
    pose: np.ndarray,
    tracks: Tracks,
    pixels: np.ndarray,
    camera: np.ndarray,
    links: dict[tuple[int, int], np.ndarray],
) -> np.ndarray | None:
    """All poses from the pose of j relative to i: triangulation and PnP of one frame after the other.

    `links`: poses of j relative to i, best pairs first, for frames that have too few points for PnP.
    """
    poses = np.tile(np.eye(3, 4), (VIEWS, 1, 1))
    poses[j] = pose
    known = np.isin(np.arange(VIEWS), (i, j))
    while not known.all():
        usable = tracks.only(known)
        points = triangulate(poses, usable)
        good = (usable.seen & (project(poses, points, usable)[2] < OUTLIER_PX**2)).sum(1) >= 2
        good &= points[:, 3] > 1e-4
        k = int(np.where(known, -1, (tracks.seen & good[:, None]).sum(0)).argmax())
        found = perspective(points, pixels[:, k], good & tracks.seen[:, k], camera)
        if found is None:
            link = next((pair for pair in links if known[pair[0]] != known[pair[1]]), None)
            if link is None:
                return None
            relative = square(links[link])
            centres = np.stack([np.linalg.inv(square(p))[:3, 3] for p in poses[known]])
            # Nothing tells its length: that of the typical step.
            relative[:3, 3] *= np.median(np.linalg.norm(np.diff(centres, axis=0), axis=1))
            a, k = link if known[link[0]] else link[::-1]
            found = ((relative if known[link[0]] else np.linalg.inv(relative)) @ square(poses[a]))[:3]
        poses[k] = found
        known[k] = True
    poses = poses @ np.linalg.inv(square(poses[0]))
    poses[:, :, 3] /= max(np.linalg.norm(poses[:, :, 3], axis=1).max(), 1e-12)
    return poses


def square(pose: np.ndarray) -> np.ndarray:
    return np.vstack([pose, [0.0, 0.0, 0.0, 1.0]])


def perspective(points: np.ndarray, pixels: np.ndarray, use: np.ndarray, camera: np.ndarray) -> np.ndarray | None:
    """The pose (3, 4) of a camera that sees the homogeneous points in use at those pixels: PnP."""
    if use.sum() < MIN_POINTS:
        return None
    solid, flat = points[use, :3] / points[use, 3:], pixels[use]
    found, turn, shift, inliers = cv2.solvePnPRansac(
        solid, flat, camera, None, None, None, False, 200, OUTLIER_PX, 0.999, None, cv2.SOLVEPNP_SQPNP
    )
    if not found or inliers is None or len(inliers) < MIN_POINTS:
        return None
    inliers = inliers.ravel()
    turn, shift = cv2.solvePnPRefineLM(solid[inliers], flat[inliers], camera, None, turn, shift)
    return np.hstack([cv2.Rodrigues(turn)[0], shift])


def turn_only(poses: np.ndarray, tracks: Tracks, iterations: int) -> tuple[np.ndarray, float]:
    """Adjusts rotations, from those of `poses`, with t = 0 and all points at infinity; poses and cost."""
    first = tracks.seen.argmax(1)
    rays = np.insert(tracks.xy[np.arange(len(first)), first], 2, 1.0, 1)
    rays = np.einsum("mji,mj->mi", poses[first, :, :3], rays)
    points = np.insert(rays / np.linalg.norm(rays, axis=1, keepdims=True), 3, 0.0, 1)
    still = poses * [1.0, 1.0, 1.0, 0.0]
    poses, _, cost = adjust(still, points, tracks, iterations, at_infinity=True)
    return poses, cost


def longest(tracks: Tracks, count: int, rng: np.random.Generator) -> np.ndarray:
    """A mask of the tracks that are among the `count` longest ones of a frame."""
    order = np.lexsort([rng.random(len(tracks.seen)), -tracks.seen.sum(1)])
    rank = np.cumsum(tracks.seen[order], axis=0)
    mask = np.zeros(len(order), bool)
    mask[order] = (tracks.seen[order] & (rank <= count)).any(1)
    return mask


def estimate(images: list[np.ndarray], camera: np.ndarray, info: dict[str, Any]) -> np.ndarray:
    """Poses camera_i_from_anchor (5, 3, 4) of five grey images; `info` takes what the report says of the window."""
    cv2.setRNGSeed(SEED)
    rng = np.random.default_rng(SEED)
    focal, centre = camera[[0, 1], [0, 1]], camera[:2, 2]
    began = time.perf_counter()
    points, descriptors = map(list, zip(*map(features, images)))
    info["ms_features"] = round(1e3 * (time.perf_counter() - began), 1)
    info["features"] = min(map(len, points))

    rays = [np.insert((p - centre) / focal, 2, 1.0, 1) for p in points]
    rays = [r / np.linalg.norm(r, axis=1, keepdims=True) for r in rays]
    matches, starts = {}, []
    for i, j in PAIRS:
        matched = match(descriptors[i], descriptors[j])
        if len(matched) < MIN_INLIERS:
            continue
        a, b = points[i][matched[:, 0]], points[j][matched[:, 1]]
        essential, mask = cv2.findEssentialMat(a, b, camera, cv2.USAC_MAGSAC, 0.999, EPIPOLAR_PX, 2000)
        if essential is None or mask.sum() < max(MIN_INLIERS, MIN_INLIER_SHARE * len(matched)):
            continue
        inlier = mask.ravel() > 0
        matches[i, j], a, b = matched[inlier], a[inlier], b[inlier]
        from_ray, to_ray = rays[i][matches[i, j][:, 0]], rays[j][matches[i, j][:, 1]]
        turn = robust_rotation(from_ray, to_ray, ROTATION_PX / focal.mean(), rng)
        parallax = float(np.median(np.linalg.norm(from_ray @ turn.T - to_ray, axis=1)) * focal.mean())
        starts.append((parallax, i, j, essential, a, b))
    if not matches:
        raise NotEstimated("no two frames match")
    info["parallax_px"] = round(max(start[0] for start in starts), 3)
    pixels, seen = join_tracks(points, matches)
    tracks = Tracks((pixels - centre) / focal * seen[..., None], seen, focal)
    if (seen.sum(0) < MIN_POINTS).any():
        raise NotEstimated("a frame matches no other")

    few = longest(tracks, START_TRACKS, rng)
    few, few_pixels = tracks.select(few), pixels[few]
    starts.sort(key=lambda start: -len(start[4]) * min(start[0], 20.0))
    relative = {(i, j): decompositions(e, a, b, camera, focal) for _, i, j, e, a, b in starts[:START_PAIRS]}

    def registered(links: dict[tuple[int, int], np.ndarray]) -> list[tuple[float, np.ndarray]]:
        every = [register(i, j, p, few, few_pixels, camera, links) for (i, j), ps in relative.items() for p in ps]
        every = [(robust_cost(project(p, triangulate(p, few), few)[2]), p) for p in every if p is not None]
        return sorted(every, key=lambda option: option[0])

    info["status"] = "ba"
    options = registered({})
    if not options:
        starts.sort(key=lambda start: -len(start[4]))
        options = registered({(i, j): decompositions(e, a, b, camera, focal)[0] for _, i, j, e, a, b in starts})
        info["status"] = "linked"
    if not options:
        raise NotEstimated("a frame not registered")
    adjusted = []
    for _, poses in options[:STARTS]:
        poses, _, cost = adjust(poses, triangulate(poses, few), few, START_ITERATIONS)
        adjusted.append((cost, poses))
    poses = min(adjusted, key=lambda option: option[0])[1]

    for _ in range(2):
        solid = triangulate(poses, tracks)
        inliers = tracks.seen & (project(poses, solid, tracks)[2] < OUTLIER_PX**2)
        keep = inliers.sum(1) >= 2
        used = tracks.only(inliers).select(keep)
        if (used.seen.sum(0) < MIN_POINTS).any():
            raise NotEstimated("a frame without inliers")
        poses, solid, cost = adjust(poses, solid[keep], used, ITERATIONS)
    info["inliers"] = len(solid)

    if info["parallax_px"] < SURE_PARALLAX_PX:
        turning, turning_cost = turn_only(poses, used, ITERATIONS)
        # What noise gains by a depth for each point and eleven parameters of translation, over what noise costs.
        gained = (turning_cost - cost) / (len(solid) + 11)
        info["f"] = round(gained * max(2 * int(used.seen.sum()) - 3 * len(solid) - 23, 1) / max(cost, 1e-9), 2)
        if info["f"] < MIN_F:
            info["status"] = "rotation_only"
            return turning
    ahead = solid[used.seen[:, 0]]
    poses[:, :, 3] *= max(float(np.median(ahead[:, 3] / np.maximum(ahead[:, 2], 1e-6))), 1e-3)
    return poses


def get(window: Any, kind: type, *path: str | int) -> Any:
    """The value at a path of keys, of that kind; a float is finite."""
    name, value = ".".join(map(str, path)), window
    try:
        for key in path:
            value = value[key]
    except (KeyError, IndexError, TypeError):
        raise BadInput("malformed window", f"{name}: missing") from None
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (kind is float and not math.isfinite(value)):
        raise BadInput("malformed window", f"{name}: {value!r} is not a {kind.__name__}")
    return value


def load(window: Any, folder: Path) -> tuple[list[np.ndarray], np.ndarray, list[float]]:
    """Grey images, camera matrix and stamps of a window, checked."""
    keys = ("fx", "fy", "cx", "cy", "width", "height")
    fx, fy, cx, cy, width, height = (get(window, float, "intrinsics", key) for key in keys)
    if fx <= 0.0 or fy <= 0.0:
        raise BadInput("malformed window", f"intrinsics.fx, fy: {fx}, {fy} are not positive")
    for key in ("frames", "stamps"):
        if len(get(window, list, key)) != VIEWS:
            raise BadInput("malformed window", f"{key}: {len(window[key])}, not {VIEWS}")
    stamps = [get(window, float, "stamps", i) for i in range(VIEWS)]
    images = []
    for i in range(VIEWS):
        path = folder / get(window, str, "frames", i)
        if not path.is_file():
            raise BadInput("missing image", str(path))
        # As stored, whatever EXIF says of turning it: the intrinsics are those of the stored grid.
        image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION)
        if image is None:
            raise BadInput("unreadable image", str(path))
        if image.shape != (height, width):
            size = f"{image.shape[1]}x{image.shape[0]}, but intrinsics {width:g}x{height:g}"
            raise BadInput("image size", f"{path}: {size}")
        images.append(image)
    return images, np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]]), stamps


def tum(poses: np.ndarray, stamps: list[float]) -> str:
    """The file: camera to world, from poses camera_i_from_anchor."""
    turns = Rotation.from_matrix(poses[:, :, :3]).inv()
    quaternions, centres = turns.as_quat(canonical=True), turns.apply(-poses[:, :, 3]) + 0.0  # + 0.0: no -0.
    rows = zip(stamps, centres, quaternions + 0.0)
    return "".join(f"{stamp!r} " + " ".join(f"{v:.12g}" for v in (*t, *q)) + "\n" for stamp, t, q in rows)


def main() -> int:
    parser = argparse.ArgumentParser(description="Camera poses of five-frame windows from classical geometry.")
    parser.add_argument("windows", type=Path, metavar="WINDOWS_JSON")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--limit", type=int, metavar="N", help="the first N windows only")
    parser.add_argument("--threads", type=int, default=1, help="OpenCV's; numpy has one")
    args = parser.parse_args()
    if args.threads < 1 or (args.limit is not None and args.limit < 0):
        parser.error("--threads is at least 1, --limit at least 0")
    try:
        windows = json.loads(args.windows.read_text(encoding="utf-8"))["windows"]
        if not isinstance(windows, list):
            raise TypeError("windows is not a list")
        args.out.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"classical: {args.windows}: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    cv2.setNumThreads(args.threads)

    details: dict[str, dict[str, Any]] = {}
    reasons: dict[str, int] = {}
    times, bad = [], False
    for index, window in enumerate(windows[: args.limit]):
        name = f"windows[{index}]"
        info: dict[str, Any] = {"status": "failed"}
        try:
            identifier = get(window, str, "id")
            if not re.fullmatch(r"[\w-][\w.-]*", identifier):
                raise BadInput("malformed window", f"id: {identifier!r} cannot name a file")
            if identifier in details:
                raise BadInput("malformed window", f"id: {identifier} again")
            name = identifier
            (args.out / f"{name}.tum").unlink(missing_ok=True)  # That of an earlier run.
            images, camera, stamps = load(window, args.windows.parent)
            began = time.perf_counter()
            try:
                poses = estimate(images, camera, info)
                if not np.isfinite(poses).all():
                    raise NotEstimated("not finite")
            except (cv2.error, np.linalg.LinAlgError) as error:
                raise NotEstimated("numerical failure") from error
            finally:
                info["ms"] = round(1e3 * (time.perf_counter() - began), 1)
                times.append(info["ms"])
            (args.out / f"{name}.tum").write_text(tum(poses, stamps))
        except NotEstimated as error:
            info |= {"status": "failed", "reason": str(error)}
        except BadInput as error:
            bad = True
            info |= {"reason": error.args[0], "message": error.args[1]}
            print(f"classical: {name}: {error.args[0]}: {error.args[1]}", file=sys.stderr)
        if "reason" in info:
            reasons[info["reason"]] = reasons.get(info["reason"], 0) + 1
        details[name] = info

    report = {
        "windows": len(details),
        "answered": len(details) - sum(reasons.values()),
        "reasons": reasons,
        "ms_median": float(np.median(times)) if times else None,
        "ms_p95": float(np.percentile(times, 95)) if times else None,
        "scale": "each window's translations are up to one scale",
        "windows_detail": details,
        "versions": {
            "python": platform.python_version(),
            "opencv": cv2.__version__,
            "numpy": np.__version__,
            "scipy": scipy.__version__,
        },
        "seed": SEED,
    }
    (args.out / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    print(f"classical: {report['answered']} of {report['windows']} windows; reasons: {reasons}", file=sys.stderr)
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
