"""Stored depth numbers -> millimetres."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MM_PER_M = 1000.0


def depth_mm_from_units(depth: NDArray[np.uint16], depth_shift: float) -> NDArray[np.uint16]:
    """(H, W) uint16 millimetres from stored units (metres = value / shift); beyond 65.535 m is missing."""
    if depth_shift == MM_PER_M:
        return depth
    depth_mm = np.rint(depth * (MM_PER_M / depth_shift))
    return np.where(depth_mm <= np.iinfo(np.uint16).max, depth_mm, 0).astype(np.uint16)
