"""Camera poses of five-frame windows from classical geometry, without learning.

SIFT, MAGSAC essential matrices, PnP and a five-view bundle adjustment: what a robotics engineer would use instead of a
vision-language model, hence the baseline to compare one with.

    python training/baselines/classical.py WINDOWS_JSON --out DIR [--limit N] [--threads 1]

WINDOWS_JSON: {"windows": [{"id", "intrinsics": {"fx", "fy", "cx", "cy", "width", "height"}, "frames": [five paths, absolute
or relative to the file's folder], "stamps": [five, seconds], "metric"}]}. Images are undistorted and have exactly the
intrinsics' size; pixel (0, 0) is the centre of the top-left pixel, which is also OpenCV's convention.

DIR/<id>.tum: five lines `stamp tx ty tz qx qy qz qw`, anchor_from_camera_i: camera to world, where the world is the camera
frame of frame 0 (x right, y down, z forward); the first line is the identity. A window that could not be estimated has no
file. DIR/report.json: counts, reasons, times, and a line per window. One camera cannot see scale: a window's translations are
right up to one factor, chosen so that the median depth seen from frame 0 is 1.

Method, per window:
 1. RootSIFT (images with a longest side under 512 pixels are enlarged twice first: at 160x120 that halves the errors),
    mutual nearest neighbours with a ratio test, for all ten pairs of frames.
 2. MAGSAC essential matrix for each pair; the inliers of all pairs are joined into tracks over the five frames.
 3. Pairs with many inliers and a large parallax (what a robust rotation leaves unexplained) start a reconstruction: each
    plausible decomposition of E, and of a homography where one explains most matches (a plane has two solutions), is
    triangulated; PnP adds the other frames. The start with the lowest robust cost after a short adjustment wins.
 4. Bundle adjustment with a Cauchy loss over all tracks; all points are triangulated anew and outliers chosen anew; again.
    It is Levenberg-Marquardt with the points eliminated (Schur complement), many times faster here than a sparse
    `scipy.optimize.least_squares`. Points are homogeneous unit vectors, so that points at infinity do no harm.
 5. Guard: cameras that only rotate, with all points at infinity, are fitted to the same observations. Unless an F-test says
    that translation explains more than noise would, the answer is that rotation, with t = 0.
Deterministic: fixed seeds for each window.

Exit status: 0; 1 if a window's input was bad (named, counted under "reasons", the others are estimated); 2 if WINDOWS_JSON is
unusable.
"""
import argparse
import json
import os
import platform
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
# Images with a shorter longest side are enlarged twice.
SMALL_SIDE = 512
MAX_FEATURES = 1500
# Low, for weak texture: what is not repeatable fails the ratio test or MAGSAC.
CONTRAST = 0.01
RATIO = 0.8
# MAGSAC's threshold, pixels.
EPIPOLAR_PX = 1.0
# A pair with fewer or a smaller share of inliers is taken for chance: MAGSAC finds 8 of 30 random matches.
MIN_INLIERS, MIN_INLIER_SHARE = 12, 0.4
MIN_PNP = 8
# Errors above this are outliers, pixels.
OUTLIER_PX = 3.0
# Scale of the Cauchy loss, pixels; SIFT is precise to 0.3 to 0.5.
LOSS_PX = 0.5
START_PAIRS, START_TRACKS, STARTS_ADJUSTED = 4, 100, 4
# Parallax above which the guard is not needed, pixels, and F below which translation is noise.
SURE_PARALLAX_PX, MIN_F = 4.0, 2.0


class NotEstimated(Exception):
    """The frames do not give the poses; the message is the reason counted."""


class BadInput(Exception):
    """The window cannot be read: (reason counted, message)."""


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
    """Connected components of the matches: pixels (M, 5, 2) and where seen. Two features in one frame: not seen there."""
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
    """Unit homogeneous points (M, 4), not behind the cameras; where one view spoils a point, without that view."""

    def linear(part: Tracks) -> np.ndarray:
        rows = part.xy[..., None] * poses[:, 2:3] - poses[:, :2]
        rows = (rows * part.seen[..., None, None]).reshape(-1, 2 * VIEWS, 4)
        points = np.linalg.eigh(rows.transpose(0, 2, 1) @ rows)[1][..., 0]
        in_front = (np.sign(points @ poses[:, 2].T) * part.seen).sum(1)
        points *= np.where(in_front < 0, -1.0, 1.0)[:, None]
        points[:, 3] = np.maximum(points[:, 3], 0.0)
        return points / np.linalg.norm(points, axis=1, keepdims=True)

    points = linear(tracks)
    squares = project(poses, points, tracks)[2]
    spoilt = (squares.max(1) > OUTLIER_PX**2) & (tracks.seen.sum(1) >= 3)
    if spoilt.any():
        without = tracks.select(spoilt)
        without.seen[np.arange(len(without.seen)), squares[spoilt].argmax(1)] = False
        points[spoilt] = linear(without)
    return points


def truncated_cost(poses: np.ndarray, points: np.ndarray, tracks: Tracks) -> float:
    return float(np.minimum(project(poses, points, tracks)[2], OUTLIER_PX**2).sum())


def adjust(
    poses: np.ndarray, points: np.ndarray, tracks: Tracks, iterations: int, at_infinity: bool = False
) -> tuple[np.ndarray, np.ndarray, float]:
    """Bundle adjustment; camera 0 stays. `at_infinity` keeps all points there: the cameras only rotate.

    Scale needs no gauge: the damping keeps it, and homogeneous points and translations are scaled in the end.
    """
    squared = LOSS_PX**2

    def cost_of(squares: np.ndarray) -> float:
        return squared * float(np.log1p(squares / squared).sum())

    inside, residuals, squares = project(poses, points, tracks)
    cost, damping = cost_of(squares), 1e-3
    unknowns = 6 * (VIEWS - 1)
    diagonal = np.arange(unknowns)
    for _ in range(iterations):
        weight = tracks.seen / np.sqrt(1.0 + squares / squared)
        # Derivatives of the pixel: by camera coordinates; by a rotation and a shift of the camera; by a point's tangent.
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
        tangent = np.eye(4)[:, 1:] - mirror[:, :, None] * (2.0 * mirror[:, None, 1:] / (mirror**2).sum(1)[:, None, None])
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
            new_cost = cost_of(new[2])
            if new_cost < cost:
                break
            damping *= 8.0
        else:
            break
        gain, damping = cost - new_cost, max(damping / 5.0, 1e-8)
        poses, points, (inside, residuals, squares), cost = new_poses, new_points, new, new_cost
        if gain < 1e-5 * cost:
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
        scored.append((truncated_cost(poses, triangulate(poses, tracks), tracks), poses[1]))
    scored.sort(key=lambda option: option[0])
    # The wrong side of a plane, or of small parallax, costs little more; what costs much more is wrong.
    limit = 1.5 * scored[0][0] + 0.1 * len(a)
    return [pose for cost, pose in scored[:3] if cost <= limit]


def register(
    i: int, j: int, pose: np.ndarray, tracks: Tracks, pixels: np.ndarray, camera: np.ndarray
) -> np.ndarray | None:
    """All poses from the pose of j relative to i: triangulation and PnP of one frame after the other."""
    poses = np.tile(np.eye(3, 4), (VIEWS, 1, 1))
    poses[j] = pose
    known = np.isin(np.arange(VIEWS), (i, j))
    while not known.all():
        usable = tracks.only(known)
        points = triangulate(poses, usable)
        good = (usable.seen & (project(poses, points, usable)[2] < OUTLIER_PX**2)).sum(1) >= 2
        good &= points[:, 3] > 1e-4
        k = int(np.where(known, -1, (tracks.seen & good[:, None]).sum(0)).argmax())
        use = good & tracks.seen[:, k]
        if use.sum() < MIN_PNP:
            return None
        solid, flat = points[use, :3] / points[use, 3:], pixels[use, k]
        found, turn, shift, inliers = cv2.solvePnPRansac(
            solid, flat, camera, None, iterationsCount=200, reprojectionError=OUTLIER_PX, confidence=0.999,
            flags=cv2.SOLVEPNP_SQPNP,
        )
        if not found or inliers is None or len(inliers) < MIN_PNP:
            return None
        inliers = inliers.ravel()
        turn, shift = cv2.solvePnPRefineLM(solid[inliers], flat[inliers], camera, None, turn, shift)
        poses[k] = np.hstack([cv2.Rodrigues(turn)[0], shift])
        known[k] = True
    poses = poses @ np.linalg.inv(np.vstack([poses[0], [0, 0, 0, 1]]))
    poses[:, :, 3] /= max(np.linalg.norm(poses[:, :, 3], axis=1).max(), 1e-12)
    return poses


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
    points, descriptors = zip(*map(features, images))
    T=time.process_time()
    info["features"] = min(map(len, points))
    matches, starts, parallaxes = {}, [], []
    for i, j in PAIRS:
        matched = match(descriptors[i], descriptors[j])
        if len(matched) < MIN_INLIERS:
            continue
        essential, inliers = cv2.findEssentialMat(
            points[i][matched[:, 0]], points[j][matched[:, 1]], camera, cv2.USAC_MAGSAC, 0.999, EPIPOLAR_PX, 2000
        )
        if essential is None or essential.shape != (3, 3):
            continue
        matched = matched[inliers.ravel() > 0]
        if len(matched) < max(MIN_INLIERS, MIN_INLIER_SHARE * len(inliers)):
            continue
        rays = [np.insert((points[k][m] - centre) / focal, 2, 1.0, 1) for k, m in zip((i, j), matched.T)]
        a, b = (r / np.linalg.norm(r, axis=1, keepdims=True) for r in rays)
        rotation = robust_rotation(a, b, 2.0 / focal.mean(), rng)
        parallax = float(np.median(np.linalg.norm(a @ rotation.T - b, axis=1)) * focal.mean())
        matches[i, j] = matched
        parallaxes.append(parallax)
        starts.append((len(matched) * min(parallax, 20.0), i, j, essential))
    info["t_match"] = time.process_time()-T
    if not matches:
        raise NotEstimated("few matches")
    pixels, seen = join_tracks(list(points), matches)
    tracks = Tracks((pixels - centre) / focal * seen[..., None], seen, focal)
    info["parallax_px"] = round(max(parallaxes), 3)
    info["tracks"] = len(seen)
    if (seen.sum(0) < MIN_PNP).any():
        raise NotEstimated("a frame without matches")

    T=time.process_time()
    some = longest(tracks, START_TRACKS, rng)
    few, few_pixels = tracks.select(some), pixels[some]
    options = []
    for _, i, j, essential in sorted(starts, key=lambda start: -start[0])[:START_PAIRS]:
        a, b = points[i][matches[i, j][:, 0]], points[j][matches[i, j][:, 1]]
        for pose in decompositions(essential, a, b, camera, focal):
            poses = register(i, j, pose, few, few_pixels, camera)
            if poses is not None:
                options.append((truncated_cost(poses, triangulate(poses, few), few), poses))
    if not options:
        raise NotEstimated("a frame not registered")
    info["t_reg"] = time.process_time()-T
    info["n_cand"] = len(options)
    T=time.process_time()
    options.sort(key=lambda option: option[0])
    best = np.inf
    for _, start in options[:STARTS_ADJUSTED]:
        start, solid, _ = adjust(start, triangulate(start, few), few, 8)
        cost = truncated_cost(start, solid, few)
        if cost < best:
            best, poses = cost, start
    info["t_cand"] = time.process_time()-T
    T=time.process_time()

    for _ in range(2):
        solid = triangulate(poses, tracks)
        inliers = tracks.seen & (project(poses, solid, tracks)[2] < OUTLIER_PX**2)
        keep = inliers.sum(1) >= 2
        used = tracks.only(inliers).select(keep)
        if (used.seen.sum(0) < MIN_PNP).any():
            raise NotEstimated("a frame without inliers")
        poses, solid, cost = adjust(poses, solid[keep], used, 30)
    info["t_ba"] = time.process_time()-T
    T=time.process_time()
    info["inliers"] = len(solid)
    freedom = 2 * int(used.seen.sum()) - 3 * len(solid) - 23
    info["status"] = "ba"
    if True:
        turning = poses.copy()
        turning[:, :, 3] = 0.0
        first = used.seen.argmax(1)
        rays = np.insert(used.xy[np.arange(len(first)), first], 2, 1.0, 1)
        rays = np.einsum("mji,mj->mi", poses[first, :, :3], rays)
        rays = np.insert(rays / np.linalg.norm(rays, axis=1, keepdims=True), 3, 0.0, 1)
        turning, _, turning_cost = adjust(turning, rays, used, 15, at_infinity=True)
        # What noise gains by a depth for each point and eleven parameters of translation.
        info["F"] = (turning_cost - cost) / (len(solid) + 11) / (max(cost, 1e-9) / max(freedom, 1))
        info["Pr"] = turning
    info["t_rot"] = time.process_time()-T
    info["sigma"] = float(np.sqrt(cost / max(freedom, 1)))
    if "dbg" in info: info["dbg"](tracks, poses, used)
    poses[:, :, 3] *= max(np.median(solid[:, 3] / np.maximum(solid[:, 2], 1e-6)), 1e-9)
    return poses
