"""A small scene with a picture known in advance: what a renderer must draw before it is trusted."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.bev_frame import BevFrame
from pipeline.mesh import Mesh
from scanshards.schema import BEV_SIZE

FRAME = BevFrame(left_m=-2.0, top_m=2.0, metres_per_pixel=4.0 / (BEV_SIZE - 1))
"""Pixel centres from -2 m to 2 m both ways."""
RECTANGLES = (
    # x from, x to, y from, y to, height, RGB
    (-1.51, 0.013, -1.51, 0.013, 0.0, (200, 30, 30)),
    (0.013, 1.51, -1.51, 0.013, 0.1, (30, 200, 30)),
    (-1.51, 0.013, 0.013, 1.51, 0.2, (30, 30, 200)),
    (-0.51, 1.01, -0.51, 0.21, 0.8, (0, 0, 0)),
)
"""Three quarters of a floor, and a black table that hides parts of them and of the missing quarter."""
CEILING = (-1.8, 1.8, -1.8, 1.8, 2.5, (255, 255, 255))
"""Above all, but its front looks down."""


def golden_mesh() -> Mesh:
    """The scene, world frame."""
    parts = [_rectangle(*rectangle) for rectangle in RECTANGLES]
    ceiling, (front, color) = _rectangle(*CEILING)
    parts.append((ceiling, (front[:, ::-1], color)))
    return Mesh(
        np.concatenate([vertices for vertices, _ in parts]),
        np.concatenate([faces + 4 * i for i, (_, (faces, _)) in enumerate(parts)]).astype(np.int32),
        np.concatenate([colors for _, (_, colors) in parts]),
    )


def golden_picture() -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Colours (S, S, 3) and heights (S, S) in metres, NaN where nothing is, worked out without triangles."""
    rgb = np.zeros((BEV_SIZE, BEV_SIZE, 3), np.uint8)
    heights = np.full((BEV_SIZE, BEV_SIZE), np.nan, np.float32)
    x = FRAME.left_m + FRAME.metres_per_pixel * np.arange(BEV_SIZE)
    y = (FRAME.top_m - FRAME.metres_per_pixel * np.arange(BEV_SIZE))[:, None]
    for x_from, x_to, y_from, y_to, height, color in RECTANGLES:
        inside = (x >= x_from) & (x <= x_to) & (y >= y_from) & (y <= y_to)
        rgb[inside], heights[inside] = color, height
    return rgb, heights


def difference(rgb: NDArray[np.uint8], heights: NDArray[np.float32]) -> str:
    """What is wrong with a picture of the golden scene; empty: nothing."""
    golden_rgb, golden_heights = golden_picture()
    wrong = np.count_nonzero(np.isfinite(heights) != np.isfinite(golden_heights))
    if wrong:
        return f"golden picture: {wrong} pixels covered wrongly"
    step = int(np.abs(rgb.astype(np.int16) - golden_rgb).max())
    if step > 1:
        return f"golden picture: colours differ by up to {step} of 255"
    error_m = float(np.nanmax(np.abs(heights - golden_heights)))
    return f"golden picture: heights differ by up to {error_m:.4f} m" if error_m > 1e-3 else ""


def _rectangle(
    x_from: float, x_to: float, y_from: float, y_to: float, height: float, color: tuple[int, int, int]
) -> tuple[NDArray[np.float32], tuple[NDArray[np.int32], NDArray[np.uint8]]]:
    """Four vertices, and two faces that look up with the colours of the vertices."""
    corners = [(x_from, y_from), (x_to, y_from), (x_to, y_to), (x_from, y_to)]
    vertices = np.array([(x, y, height) for x, y in corners], np.float32)
    return vertices, (np.array([[0, 1, 2], [0, 2, 3]], np.int32), np.tile(np.array(color, np.uint8), (4, 1)))
