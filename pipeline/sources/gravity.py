"""Which way is up in a recording that does not say: from how a person holds a camera.

People look up, down and around, but they hardly tilt their heads: the camera's x axis (to the right) stays
level. So up is the direction that is most perpendicular to the x axes of all cameras. It does not matter
whether they look at the floor most of the time. Only if the x axes all point one way, or every way, is up
taken as the mean of the directions that are up in the pictures (-y), which a downward look bends.

A picture that was recorded on its side (x axis upright) defeats this; `SCAN.txt` with `axisAlignment` then
helps.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MIN_SPREAD = 0.01
"""Mean square sine of the x axes to their main direction, below which all point one way (6 degrees)."""
MIN_RATIO = 4.0
"""They lie near a plane if they reach so many times farther along it than out of it (mean squares)."""
MAX_LEAN_DEG = 30.0
DECIMALS = 9
"""Results are rounded: the last bits differ from one processor to another."""


def world_from_scan(poses: NDArray[np.float64]) -> NDArray[np.float64]:
    """(4, 4) the smallest rotation that turns up to +z; `poses` (N, 4, 4) scan_from_cam, all usable.

    Identity if there is no pose. The rotation about z is left as it comes, and so is the origin.
    """
    matrix = np.eye(4)
    if len(poses):
        matrix[:3, :3] = np.round(_to_z(up_direction(poses)), DECIMALS)
    return matrix


def world_unless_upright(poses: NDArray[np.float64]) -> NDArray[np.float64]:
    """(4, 4) as `world_from_scan`, but identity unless the x axes say that z is not up.

    For frames that should have z up: within `MAX_LEAN_DEG` what the recording says is the better guess.
    """
    lean = lean_deg(poses)
    return np.eye(4) if lean is None or lean <= MAX_LEAN_DEG else world_from_scan(poses)


def lean_deg(poses: NDArray[np.float64]) -> float | None:
    """Degrees between z and the up direction that the x axes say; None where they say nothing."""
    if _level_normal(poses) is None:
        return None
    return float(np.degrees(np.arccos(np.clip(up_direction(poses)[2], -1, 1))))


def up_direction(poses: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3,) unit vector, scan frame; `poses` (N, 4, 4) scan_from_cam, N > 0, finite and invertible."""
    mean_up = -_axes(poses)[..., 1].mean(axis=0)
    axis = _level_normal(poses)
    if axis is not None:
        return axis if axis @ mean_up >= 0 else -axis
    length = np.linalg.norm(mean_up)
    return mean_up / length if length > 0 else np.array([0.0, 0.0, 1.0])


def _level_normal(poses: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """(3,) unit normal, of either sign, of the plane in which the x axes lie; None if they lie in none."""
    if len(poses) == 0:
        return None
    right = _axes(poses)[..., 0]
    spread, directions = np.linalg.eigh(right.T @ right / len(right))  # ascending
    return directions[:, 0] if spread[1] >= max(MIN_SPREAD, MIN_RATIO * spread[0]) else None


def _axes(poses: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 3, 3) the poses' camera axes in columns, of unit length."""
    return poses[:, :3, :3] / np.linalg.norm(poses[:, :3, :3], axis=1, keepdims=True)


def _to_z(up: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3, 3) smallest rotation with R @ up = z (Rodrigues' formula); half a turn about x if up is -z."""
    x, y, z = up
    level = x * x + y * y
    if z < 0 and level == 0:
        return np.diag([1.0, -1.0, -1.0])
    cross = np.array([[0, 0, -x], [0, 0, -y], [x, y, 0]])  # cross product with up x z
    # (1 - cos) / sin^2, written so that nothing cancels
    return np.eye(3) + cross + cross @ cross * (1 / (1 + z) if z >= 0 else (1 - z) / level)
