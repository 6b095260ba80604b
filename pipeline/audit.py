"""The full audit (`scans.full_audit`): jumps of the pose, and blur, found by comparing a frame with its scan.

**Pose jump.** Two posed frames in a row are *apart* when the camera moved or turned faster than
`jump_factor` times the scan's median, and faster than an absolute floor (both per frame: lost frames between
them allow for more). Such breaks cut the track into runs. A run of at most `jump_max_frames` frames is a jump
if some run is longer. A break between two long runs says nothing about which is wrong: both stay.

**Blur.** Sharpness in one direction is the energy of the second differences of the grey picture divided by
that of the first differences: the contrast cancels out, so that a white wall is as sharp as a bookshelf (its
noise even raises it). The picture is shrunk to 240 pixels first: what is sharp there is sharp enough for 384.
A frame is as sharp as its less sharp direction (motion blurs one only), each relative to the scan's median. A
direction with less than one grey level of step, root mean square, holds nothing to judge; a frame without any
counts as sharp.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.config import AuditConfig

SHORT_SIDE_PX = 240
MIN_STEP_GREY = 1.0
"""Blurred pictures of furnished rooms have 1.3 or more, a shaded wall without noise has 0.1."""


def jumps(poses: NDArray[np.float64], frames: NDArray[np.int64], config: AuditConfig) -> list[int]:
    """Those of `frames` (ascending, all posed) whose pose jumps away from the track.

    poses (N, 4, 4) scan_from_cam of all frames of the recording.
    """
    if len(frames) < 3:
        return []
    gap = np.diff(frames)
    step_m, turn_deg = _steps(poses[frames])
    limit_m = max(config.jump_min_m, config.jump_factor * float(np.median(step_m / gap)))
    limit_deg = max(config.jump_min_deg, config.jump_factor * float(np.median(turn_deg / gap)))
    apart = (step_m > limit_m * gap) | (turn_deg > limit_deg * gap)
    runs = np.split(frames, np.flatnonzero(apart) + 1)
    if max(map(len, runs)) <= config.jump_max_frames:
        return []
    return [frame for run in runs if len(run) <= config.jump_max_frames for frame in run.tolist()]


def _steps(poses: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(n-1,) metres and (n-1,) degrees from each of (n, 4, 4) poses to the next."""
    step_m = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1)
    trace = np.einsum("nij,nij->n", poses[1:, :3, :3], poses[:-1, :3, :3])
    return step_m, np.degrees(np.arccos(np.clip((trace - 1) / 2, -1, 1)))


def sharpness(rgb: NDArray[np.uint8]) -> tuple[float, float]:
    """Sharpness along rows and along columns of a (H, W, 3) uint8 picture; NaN: nothing to judge."""
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    height, width = grey.shape
    if min(height, width) > SHORT_SIDE_PX:
        scale = SHORT_SIDE_PX / min(height, width)
        size = (round(width * scale), round(height * scale))
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    grey = grey.astype(np.float32)
    return _sharpness_along(grey, 1), _sharpness_along(grey, 0)


def _sharpness_along(grey: NDArray[np.float32], axis: int) -> float:
    first = np.diff(grey, axis=axis)
    second = np.diff(first, axis=axis)
    if second.size == 0 or (energy := float(np.mean(first * first))) < MIN_STEP_GREY**2:
        return np.nan
    return float(np.mean(second * second)) / energy


def relative_sharpness(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) sharpness of each frame in units of its scan's median, from (n, 2) results of `sharpness`.

    1 where neither direction can be judged.
    """
    relative = np.full_like(values, np.inf)
    for axis in range(values.shape[1]):
        judged = np.isfinite(values[:, axis])
        if judged.any() and (median := np.median(values[judged, axis])) > 0:
            relative[judged, axis] = values[judged, axis] / median
    least = relative.min(axis=1)
    return np.where(np.isfinite(least), least, 1.0)
