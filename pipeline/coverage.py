"""Maximum coverage: the frames that together see most of a scan's surface (after Video-3D-LLM's sampling).

Surface is counted in voxels of 0.1 m: voxel (i, j, k) holds the points whose coordinates, divided by 0.1 and
rounded half to even, are i, j, k. A voxel is one int64 key, so that a frame is a sorted array of keys. Unlike
the published code, a pixel without depth adds nothing (there it adds the camera's own voxel), and ties go to
the lower frame index (there to chance).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from pipeline.mesh import read_ply, transform
from pipeline.sampling import Choice, uniform_positions
from pipeline.scans import ScanEntry
from pipeline.sources import Source
from scanshards.geometry import unproject

VOXEL_M = 0.1
KEY_BITS = 21
KEY_OFFSET = 1 << (KEY_BITS - 1)
"""Indices from -KEY_OFFSET fit a key; a point 100 km away is no surface and is left out."""


def voxel_keys(points: NDArray[np.float32]) -> NDArray[np.int64]:
    """Sorted keys of the voxels that hold any of (..., 3) float32 world points, metres; NaN is no point."""
    columns = points.reshape(-1, 3)
    index = [np.rint(columns[:, axis] / np.float32(VOXEL_M)) for axis in range(3)]
    inside = np.abs(index[0]) < KEY_OFFSET  # NaN compares false
    for axis in (1, 2):
        inside &= np.abs(index[axis]) < KEY_OFFSET
    i, j, k = (along[inside].astype(np.int64) + KEY_OFFSET for along in index)
    return _unique((i << KEY_BITS | j) << KEY_BITS | k)


def frame_voxels(source: Source, frame: int, depth: NDArray[np.uint16]) -> NDArray[np.int64]:
    """Keys of the voxels that a frame sees, from its (H, W) uint16 depth in mm at full size."""
    height, width = depth.shape
    world_from_cam = source.alignment @ source.poses[frame]
    points = unproject(
        depth, source.depth_intrinsics, world_from_cam, np.arange(width, dtype=np.int64), np.arange(height)
    )
    return voxel_keys(points)


def mesh_voxels(entry: ScanEntry, alignment: NDArray[np.float64]) -> NDArray[np.int64] | None:
    """Voxels of the vertices of the scan's own mesh; None if it has none. ScanError: a bad file."""
    path = entry.path("mesh")
    return None if path is None else voxel_keys(transform(read_ply(path), alignment).vertices)


def _unique(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sorted, each key once. Neighbouring pixels mostly share their voxel: dropping these first is cheap."""
    if len(keys) == 0:
        return keys
    fresh = np.ones(len(keys), np.bool_)
    fresh[1:] = keys[1:] != keys[:-1]
    return np.unique(keys[fresh])


class Coverage:
    """Which voxels of the scene each candidate frame sees."""

    def __init__(self, seen: Mapping[int, NDArray[np.int64]], scene: NDArray[np.int64] | None) -> None:
        """`seen`: voxel keys by frame; `scene`: keys of what counts as surface, None = all that is seen."""
        everything = _unique(np.sort(np.concatenate([np.empty(0, np.int64), *seen.values()])))
        known = everything if scene is None else scene
        self.num_scene = len(known)
        self.num_seen = len(everything if scene is None else np.intersect1d(everything, scene))
        self._rows = {frame: _rows_of(keys, known) for frame, keys in seen.items()}

    @property
    def frames(self) -> list[int]:
        return sorted(self._rows)

    def covered(self, frames: list[int]) -> int:
        """How many voxels of the scene these frames see together."""
        return int(np.count_nonzero(self._mask(frames)))

    def pick(
        self, candidates: list[int], count: int, verdict: Callable[[int], str | None], num_clips: int = 1
    ) -> Choice:
        """Greedy: each pick is the candidate that sees most voxels not seen yet, the lower frame on ties.

        `verdict(frame)` is asked once the frame is picked; a bad one is rejected, and the next best takes its
        place. Frames that add nothing are picked too, up to `count`, and up to an even share of the
        candidates if `num_clips` clips are still to be made of them; with fewer good ones some repeat,
        evenly, as in the uniform choice. Gains only fall, so that an old gain is a bound: a candidate is
        counted anew only when it comes up.
        """
        covered = self._mask([])
        heap = [(-len(self._rows[frame]), frame) for frame in candidates]
        heapq.heapify(heap)
        picked: list[int] = []
        rejected: dict[int, str] = {}
        most = min(count, math.ceil(len(candidates) / num_clips))
        while heap and len(picked) < most:
            _, frame = heapq.heappop(heap)
            rows = self._rows[frame]
            gain = len(rows) - int(np.count_nonzero(covered[rows]))
            if heap and (-gain, frame) > heap[0]:
                heapq.heappush(heap, (-gain, frame))
            elif (reason := verdict(frame)) is not None:
                rejected[frame] = reason
            else:
                picked.append(frame)
                covered[rows] = True
        picked.sort()
        if picked:
            picked = [picked[p] for p in uniform_positions(len(picked), count)]
        return Choice(picked, rejected)

    def _mask(self, frames: list[int]) -> NDArray[np.bool_]:
        covered = np.zeros(self.num_scene, np.bool_)
        for frame in frames:
            covered[self._rows[frame]] = True
        return covered


def _rows_of(keys: NDArray[np.int64], known: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows of the sorted `known` that hold one of the `keys`; keys that are not known are dropped."""
    rows = np.searchsorted(known, keys)
    found = rows < len(known)
    found[found] = known[rows[found]] == keys[found]
    return rows[found]
