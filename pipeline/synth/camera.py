"""The hand-held camera: intrinsics like ScanNet's, and a smooth walk through the free floor of a room."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.synth.outline import Outline
from pipeline.synth.placing import CELL_M, Box, clearance
from pipeline.synth.scene import Scene, SceneObject

F64 = NDArray[np.float64]
MARGINS_M = (0.35, 0.3, 0.25, 0.2, 0.15)
"""Distances that the camera keeps from things: the first that still leads through the room."""
HOLD = 4
"""Frames between two things to look at."""
REACH_M = 2.5
"""Distance of the point that the camera looks at."""
ON_WALLS = frozenset({"door", "window", "curtain", "picture", "clock", "mirror", "towel", "radiator"})
"""Looked at less often than what stands on the floor."""


@dataclass(frozen=True)
class Camera:
    """Pinhole; integer pixel coordinates are pixel centres."""

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float

    def rays(self) -> NDArray[np.float32]:
        """(H, W, 3) directions with z = 1."""
        u = (np.arange(self.width) - self.cx) / self.fx
        v = (np.arange(self.height) - self.cy) / self.fy
        return np.stack(np.broadcast_arrays(u, v[:, None], 1.0), axis=-1).astype(np.float32)

    @property
    def matrix(self) -> F64:
        """(3, 3)."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1.0]])


SCANNET = {
    "color": Camera(1296, 968, 1170.187988, 1170.187988, 647.75, 483.75),
    "depth": Camera(640, 480, 571.623718, 571.623718, 319.5, 239.5),
}
"""Focal lengths of ScanNet's meta files; the principal points are the middles, so that both see alike."""


def scaled_camera(kind: Literal["color", "depth"], width: int, height: int) -> Camera:
    """ScanNet's camera at another size: rays through the same relative places of the image.

    ScanNet's convention has (0, 0) at the first pixel's centre and matches pixels by u·width ratio, so the
    principal point scales about the pixel's corner: cx' = (cx + 0.5) · s - 0.5.
    """
    base = SCANNET[kind]
    sx, sy = width / base.width, height / base.height
    focal = max(sx, sy)
    if abs(sx / sy - 1) > 0.05:  # another aspect: keep square pixels and crop
        return Camera(width, height, base.fx * focal, base.fy * focal, (width - 1) / 2, (height - 1) / 2)
    return Camera(
        width, height, base.fx * sx, base.fy * sy, (base.cx + 0.5) * sx - 0.5, (base.cy + 0.5) * sy - 0.5
    )


def look_at(position: F64, target: F64, roll_rad: float = 0.0) -> F64:
    """(4, 4) world_from_cam of an OpenCV camera (x right, y down, z forward), z of the world upwards."""
    forward = target - position
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, (0.0, 0.0, 1.0))
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    c, s = math.cos(roll_rad), math.sin(roll_rad)
    pose = np.eye(4)
    pose[:3, 0], pose[:3, 1], pose[:3, 2] = c * right + s * down, c * down - s * right, forward
    pose[:3, 3] = position
    return pose


def walk(scene: Scene, num_frames: int, seed: int) -> F64:
    """(num_frames, 4, 4) world_from_cam along a smooth loop through the free floor, at 1.2 to 1.7 m.

    The camera turns to one piece after another, those least looked at first, with a small tremor.
    """
    rng = np.random.default_rng([scene.seed, seed, 11])
    outline = plan_of(scene)
    free, (xs, ys) = walkable(scene, outline)
    stops = _stops(free, max(4, min(9, int(free.sum() * CELL_M**2 / 0.8))), rng)
    route = _route(free, stops)
    route_m = np.column_stack([xs[route[:, 0]], ys[route[:, 1]]])
    track = _even(_blur(route_m, 9), num_frames)
    height = 1.45 + 0.2 * _tremor(num_frames, 30, rng)[:, 0]
    positions = np.column_stack([track, np.clip(height, 1.2, 1.7)])
    targets = _targets(scene, positions, rng)
    shake = np.radians((1.2, 1.0, 0.7)) * _tremor(num_frames, 4, rng, 3)
    poses = []
    for position, target, (yaw, pitch, roll) in zip(positions, targets, shake, strict=True):
        away = target - position
        distance = float(np.linalg.norm(away))
        shaken = (
            target + distance * np.array([-math.sin(yaw) * away[1], math.sin(yaw) * away[0], 0]) / distance
        )
        shaken[2] += distance * math.tan(pitch)
        poses.append(look_at(position, shaken, float(roll)))
    return np.stack(poses)


def plan_of(scene: Scene) -> Outline:
    """The outline with the cutouts that its corners imply."""
    floor = next(obj for obj in scene.objects if obj.label == "floor")
    cuts = np.array(floor.parts[0].detail).reshape(-1, 4)
    return Outline(scene.size_m[:2], scene.outline, tuple(map(tuple, cuts.tolist())))


def walkable(scene: Scene, outline: Outline) -> tuple[NDArray[np.bool_], tuple[F64, F64]]:
    """The connected piece of floor, on a grid of CELL_M, where the camera may be; the grid's x and y."""
    boxes = []
    for obj in scene.objects:
        if obj.label not in ("floor", "ceiling", "wall", "rug", "mat"):
            boxes.append(_box(obj))
    space = clearance(outline, boxes, low_m=0.1, high_m=2.0)
    xs = (np.arange(space.shape[0]) + 0.5) * CELL_M - outline.size[0] / 2
    ys = (np.arange(space.shape[1]) + 0.5) * CELL_M - outline.size[1] / 2
    widest = _largest_region(space >= MARGINS_M[-1])
    for margin in MARGINS_M:
        region = _largest_region(space >= margin)
        if region.sum() > 0.4 * widest.sum():  # else it is one side of a passage
            break
    return region, (xs, ys)


def _box(obj: SceneObject) -> Box:
    low = np.array(obj.center) - np.array(obj.size) / 2
    return (*map(float, low), *map(float, low + obj.size))


def _largest_region(grid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    count, regions = cv2.connectedComponents(grid.astype(np.uint8), connectivity=4)
    if count < 2:
        return grid
    sizes = np.bincount(regions.ravel())
    sizes[0] = 0
    return regions == sizes.argmax()


def _stops(free: NDArray[np.bool_], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """(count, 2) cells spread over the free floor (each the farthest from those before), by angle."""
    cells = np.argwhere(free)
    chosen = [cells[int(rng.integers(len(cells)))]]
    distance = np.full(len(cells), np.inf)
    while len(chosen) < min(count, len(cells)):
        distance = np.minimum(distance, np.linalg.norm(cells - chosen[-1], axis=1))
        chosen.append(cells[int(distance.argmax())])
    stops = np.array(chosen)
    away = stops - stops.mean(axis=0)
    return stops[np.argsort(np.arctan2(away[:, 1], away[:, 0]), kind="stable")]


def _route(free: NDArray[np.bool_], stops: NDArray[np.int64]) -> NDArray[np.int64]:
    """(K, 2) cells of shortest walks from stop to stop and back to the first."""
    pieces = [_shortest(free, a, b) for a, b in zip(stops, np.roll(stops, -1, axis=0), strict=True)]
    return np.concatenate([piece[:-1] if len(piece) > 1 else piece for piece in pieces])


def _shortest(free: NDArray[np.bool_], start: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.int64]:
    """Cells of a shortest walk, by a flood from the end; moves to any of eight neighbours."""
    steps = np.full(free.shape, -1)
    steps[tuple(end)] = 0
    front, number = np.zeros_like(free), 0
    front[tuple(end)] = True
    while steps[tuple(start)] < 0:
        number += 1
        padded = np.pad(front, 1)
        spread = np.zeros_like(free)
        for i in range(3):
            for j in range(3):
                spread |= padded[i : i + free.shape[0], j : j + free.shape[1]]
        front = spread & free & (steps < 0)
        steps[front] = number
    path = [np.array(start)]
    while steps[tuple(path[-1])] > 0:
        i, j = path[-1]
        near = [(a, b) for a in (i - 1, i, i + 1) for b in (j - 1, j, j + 1)]
        inside = [c for c in near if 0 <= c[0] < free.shape[0] and 0 <= c[1] < free.shape[1]]
        path.append(np.array(next(c for c in inside if steps[c] == steps[i, j] - 1)))
    return np.array(path)


def _blur(points: F64, reach: int) -> F64:
    """A closed track averaged over 2·reach + 1 neighbours."""
    window = np.hanning(2 * reach + 3)[1:-1]
    wrapped = np.concatenate([points[-reach:], points, points[:reach]]) if len(points) > reach else points
    if len(wrapped) < len(window):
        return points
    columns = [np.convolve(wrapped[:, k], window / window.sum(), "valid") for k in range(points.shape[1])]
    return np.column_stack(columns)


def _even(track: F64, count: int) -> F64:
    """`count` points at equal distances along the track, from its start almost to its end."""
    lengths = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(track, axis=0), axis=1))])
    at = np.linspace(0, lengths[-1] * 0.97, count)
    return np.column_stack([np.interp(at, lengths, track[:, k]) for k in range(2)])


def _tremor(count: int, period: int, rng: np.random.Generator, channels: int = 1) -> F64:
    """(count, channels) smooth random values of about unit size."""
    knots = rng.normal(size=(count // period + 4, channels))
    at = np.arange(count) / period + 1
    return np.column_stack([np.interp(at, np.arange(len(knots)), knots[:, k]) for k in range(channels)])


def _targets(scene: Scene, positions: F64, rng: np.random.Generator) -> F64:
    """(N, 3) points to look at: a new one every few frames, blended as the head turns."""
    things = [
        o for o in scene.objects if o.label not in ("floor", "ceiling", "wall", "rug", "mat", "ceiling light")
    ]
    centers = np.array([o.center for o in things])
    weights = np.array([0.3 + float(np.prod(np.sort(o.size)[1:])) for o in things])
    weights *= [0.3 if o.label in ON_WALLS else 1.0 for o in things]
    tall = [_box(o) for o in things if o.center[2] + o.size[2] / 2 > 1.2 and o.size[2] > 0.6]
    sight = clearance(plan_of(scene), tall) > 0
    looked = np.zeros(len(things))
    chosen, previous = [], None
    for k in range(0, len(positions) + HOLD, HOLD):
        position = positions[min(k, len(positions) - 1)]
        away = centers - position
        distance = np.linalg.norm(away[:, :2], axis=1)
        direction = away[:, :2] / np.maximum(distance, 1e-6)[:, None]
        score = (
            np.minimum(weights, 2.0) ** 0.5 / (1 + 2.5 * looked) * np.exp(-(((distance - 3.0) / 1.7) ** 2))
        )
        score *= _open_distance(sight, scene, position, direction) ** 1.5
        score[distance < 0.9] *= 0.05
        if previous is not None:
            score *= 0.35 + (1 + direction @ previous) / 2  # small turns of the head are likelier
        best = int(np.argmax(score * rng.uniform(0.7, 1.0, len(score))))
        looked += np.clip(direction @ direction[best] - 0.8, 0, 1) * 5 * (distance > 0.9)
        previous = direction[best]
        slope = (0.85 * away[best, 2] - 0.2) / max(distance[best], 1.2)
        chosen.append(
            [*(position[:2] + REACH_M * previous), position[2] + REACH_M * float(np.clip(slope, -0.6, 0.05))]
        )
    return _turning(positions, np.array(chosen))


def _open_distance(sight: NDArray[np.bool_], scene: Scene, position: F64, direction: F64) -> F64:
    """(N,) how far one sees along each direction until a wall or something tall, at most 4 m."""
    steps = np.arange(0.1, 4.01, 0.1)
    points = position[:2] + steps[None, :, None] * direction[:, None]
    cells = np.floor((points + np.array(scene.size_m[:2]) / 2) / CELL_M).astype(int)
    inside = ((cells >= 0) & (cells < sight.shape)).all(axis=-1)
    cells = np.clip(cells, 0, np.array(sight.shape) - 1)
    seen = np.logical_and.accumulate(inside & sight[cells[..., 0], cells[..., 1]], axis=1)
    return np.maximum(seen.sum(axis=1), 1) * 0.1


def _turning(positions: F64, targets: F64) -> F64:
    """Blend headings (unwrapped, so that the head turns the short way) and heights between targets."""
    at_stops = positions[np.minimum(np.arange(len(targets)) * HOLD, len(positions) - 1)]
    away = targets - at_stops
    heading = np.unwrap(np.arctan2(away[:, 1], away[:, 0]))
    rise = away[:, 2] / REACH_M
    when = np.arange(len(positions)) / HOLD
    knots = np.arange(len(targets))
    blend = np.floor(when) + (1 - np.cos(np.pi * (when % 1))) / 2
    yaw, slope = np.interp(blend, knots, heading), np.interp(blend, knots, rise)
    return positions + REACH_M * np.column_stack([np.cos(yaw), np.sin(yaw), slope])
