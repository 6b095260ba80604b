"""The view from above by Open3D ray casting: one ray per pixel, straight down (the way without OpenGL)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.fuse import first_hits

NAME = "raycast"


def render(
    vertices: NDArray[np.float32], faces: NDArray[np.int32], colors: NDArray[np.uint8], size: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """`bev_process.Picture` of a mesh with vertices (column, row, height), whole at pixel centres."""
    top = float(vertices[:, 2].max()) + 1.0
    rays = np.zeros((size, size, 6), np.float32)
    rays[..., 1], rays[..., 0] = np.mgrid[0:size, 0:size]
    rays[..., 2], rays[..., 5] = top, -1.0
    distances, hit_faces, weights = first_hits(vertices, faces, rays)
    covered = np.isfinite(distances)
    corners = colors[faces[hit_faces[covered]]].astype(np.float32)  # (n, 3 corners, 3)
    rgb = np.zeros((size, size, 3), np.uint8)
    rgb[covered] = np.rint(np.einsum("nk,nkc->nc", weights[covered], corners))
    return rgb, np.where(covered, top - distances, np.nan).astype(np.float32)
