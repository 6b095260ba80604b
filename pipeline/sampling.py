"""Which frames of a scan make up a clip: pure functions of poses and of a verdict on each frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MIN_VOLUME = 0.1
"""Determinant of a pose's 3x3 part below which it is no rotation, however inexact."""


@dataclass(frozen=True)
class Choice:
    """Outcome of `choose_frames`."""

    frames: list[int]
    """Chosen frame indices, ascending; with too few candidates some repeat. Empty: no frame was good."""
    rejected: dict[int, str]
    """Reason for each frame that was examined and found unusable."""


def has_pose(poses: NDArray[np.floating]) -> NDArray[np.bool_]:
    """(N,) whether each of the (N, 4, 4) poses is finite everywhere and can be inverted (zeros cannot)."""
    finite = np.isfinite(poses).all(axis=(1, 2))
    volume = np.linalg.det(np.where(finite[:, None, None], poses, 0.0)[:, :3, :3])  # 1 for a rotation
    return finite & (np.abs(volume) > MIN_VOLUME)


def candidate_frames(poses: NDArray[np.floating], stride: int = 1) -> NDArray[np.int64]:
    """Indices of frames that have a pose and whose raw index is a multiple of `stride`.

    Stride 10 repeats the published frame lists (EmbodiedScan: every 10th raw frame, those without a pose
    dropped). The raw index counts, not the position among posed frames.
    """
    indices = np.flatnonzero(has_pose(poses))
    return indices[indices % stride == 0]


def uniform_positions(num_candidates: int, count: int) -> NDArray[np.int64]:
    """`count` positions in [0, num_candidates): linspace truncated to int; fewer candidates repeat."""
    return np.linspace(0, num_candidates - 1, count, dtype=np.int64)


def choose_frames(candidates: NDArray[np.int64], count: int, verdict: Callable[[int], str | None]) -> Choice:
    """Uniform choice of `count` frames out of ascending `candidates`, replacing those that turn out unusable.

    `verdict(frame)` says why a frame is unusable, None if it is good; it is called at most once per frame,
    first for all frames of the uniform choice. A bad one is then replaced by the nearest candidate (in frame
    index, the lower on ties) that was not examined yet, until one is good. If none is left, the nearest good
    frame is repeated.
    """
    if len(candidates) == 0:
        return Choice([], {})
    wanted = candidates[uniform_positions(len(candidates), count)].tolist()
    rejected: dict[int, str] = {}
    good: set[int] = set()
    examined: set[int] = set()

    def examine(frame: int) -> bool:
        examined.add(frame)
        reason = verdict(frame)
        if reason is None:
            good.add(frame)
        else:
            rejected[frame] = reason
        return reason is None

    for frame in sorted(set(wanted)):
        examine(frame)
    replacement: dict[int, int] = {}
    for frame in sorted(set(wanted) - good):
        for other in nearest_first(candidates, frame):
            if other not in examined and examine(other):
                replacement[frame] = other
                break
    if not good:
        return Choice([], rejected)
    usable = np.array(sorted(good), np.int64)
    frames = [f if f in good else replacement.get(f, next(nearest_first(usable, f))) for f in wanted]
    return Choice(sorted(frames), rejected)


def nearest_first(candidates: NDArray[np.int64], frame: int) -> Iterator[int]:
    """Ascending `candidates` in order of distance to `frame`, the lower index first on ties."""
    high = int(np.searchsorted(candidates, frame))
    low = high - 1
    while low >= 0 or high < len(candidates):
        take_low = high == len(candidates) or (
            low >= 0 and frame - candidates[low] <= candidates[high] - frame
        )
        if take_low:
            yield int(candidates[low])
            low -= 1
        else:
            yield int(candidates[high])
            high += 1
