"""What a picture from above shows: the faces that can be seen, and the square of floor that it covers.

The plan of the room (what of the ground is covered by surface that faces up) decides the square, not the
extent of the vertices: loose bits behind a window would shrink the room to a stamp.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.mesh import Mesh, compact
from scanshards.schema import BEV_SIZE

CELL_M = 0.05
"""Edge of a cell of the plan."""
MIN_CELL_COVER = 0.25
"""A cell counts when surface covers this share of it; dust does not."""
GAP_M = 0.2
"""Holes up to this wide (legs of a table, missing depth) are closed first."""
NARROW_M = 0.5
"""Parts narrower than this (a sill, a streak of noise) do not widen the square. A corridor is wider."""
MIN_CLUSTER = 0.05
"""A separate part of the plan counts when it has this share of the largest one's area."""
MIN_KEPT = 0.8
"""If less of the plan than this is left, the scan consists of narrow parts, and all of it counts."""
MARGIN_M = 0.2
"""Around the plan: the walls stand outside it, and rounding by NARROW_M takes 0.1 m off a corner."""
REACH_M = 50.0
"""The plan ends this far from the middle of the surface, and so do heights; what is beyond is noise."""
PADDING = round(NARROW_M / CELL_M)
MAX_SPLIT = 256
MAX_POINTS = 1 << 20
"""Points per step: bounds the memory, whatever the mesh."""


@dataclass(frozen=True)
class BevFrame:
    """A square of the floor and its pixels: columns grow with +x, rows with -y, integers at pixel centres."""

    left_m: float
    """x of column 0."""
    top_m: float
    """y of row 0."""
    metres_per_pixel: float

    def world_from_bev(self) -> NDArray[np.float64]:
        """(4, 4): world point of (column, row, height in metres, 1)."""
        m = self.metres_per_pixel
        return np.array([[m, 0, 0, self.left_m], [0, -m, 0, self.top_m], [0, 0, 1, 0], [0, 0, 0, 1]])


def facing_up(mesh: Mesh) -> Mesh:
    """The faces whose front can be seen from straight above.

    From above all rays are parallel, so culling back faces is a property of the face alone: it stays if its
    normal has a positive z. Both renderers get what is left here, so they cull alike to the last face.
    """
    return compact(mesh, mesh.faces[doubled_plan_areas(mesh.vertices[mesh.faces, :2]) > 0])


def bev_frame(mesh: Mesh) -> BevFrame | None:
    """The square that fits the room, for a mesh of faces that look up; None if there is nothing to fit."""
    if len(mesh.faces) == 0:
        return None
    corners = mesh.vertices[mesh.faces, :2].astype(np.float64)
    cover, first_cell = _plan_cover(corners, plan_middle(corners))
    plan = _room_plan((cover >= MIN_CELL_COVER).astype(np.uint8))
    if not plan.any():
        return None
    columns, rows = (np.flatnonzero(plan.any(axis=axis)) for axis in (0, 1))
    low = CELL_M * (first_cell + [columns[0], rows[0]])
    high = CELL_M * (first_cell + [columns[-1] + 1, rows[-1] + 1])
    side = float((high - low).max()) + 2 * MARGIN_M
    (x, y), m = (low + high) / 2, side / BEV_SIZE
    # Half a pixel inwards: the square's edges are the outer edges of the outer pixels.
    return BevFrame(float(x - side / 2 + m / 2), float(y + side / 2 - m / 2), m)


def to_pixels(mesh: Mesh, frame: BevFrame) -> Mesh:
    """The part of a mesh that overlaps the square, vertices as (column, row, height in metres) float32."""
    m = frame.metres_per_pixel
    x, y, z = mesh.vertices.astype(np.float64).T
    bev = np.stack([(x - frame.left_m) / m, (frame.top_m - y) / m, z], axis=1).astype(np.float32)
    corners = bev[mesh.faces]
    low, high = corner_range(corners)
    overlaps = (
        (high[:, 0] >= 0) & (high[:, 1] >= 0) & (low[:, 0] <= BEV_SIZE - 1) & (low[:, 1] <= BEV_SIZE - 1)
    )
    # A stray face far above or below would take the precision of all heights: a depth buffer has 24 bits.
    middle = np.median(high[overlaps, 2]) if overlaps.any() else 0.0
    overlaps &= (low[:, 2] >= middle - REACH_M) & (high[:, 2] <= middle + REACH_M)
    return compact(Mesh(bev, mesh.faces, mesh.colors), mesh.faces[overlaps])


def spread(
    corners: NDArray[np.float64], edge_m: float
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64], int]]:
    """Points all over the faces, whose corners are (F, 3, D) m.

    A face is cut into n * n equal triangles with edges of at most `edge_m` along every axis, and gives their
    centres. Yields (rows of `corners` (f,), points (f, n * n, D), n), some faces at a time.
    """
    low, high = corner_range(corners)
    widest = functools.reduce(np.maximum, (high - low).T)
    splits = np.clip(np.ceil(widest / edge_m), 1, MAX_SPLIT).astype(np.int64)
    for n in np.unique(splits).tolist():
        centres, picked = _split_centres(n), np.flatnonzero(splits == n)
        step = max(1, MAX_POINTS // n**2)
        for rows in (picked[i : i + step] for i in range(0, len(picked), step)):
            yield rows, np.einsum("sc,fcd->fsd", centres, corners[rows]), n


def _room_plan(plan: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Cells (S, S) 0/1 that make up the room: holes closed, narrow parts and far small islands dropped."""
    closed = cv2.morphologyEx(plan, cv2.MORPH_CLOSE, _disc(GAP_M / 2))
    opened = cv2.morphologyEx(closed, cv2.MORPH_OPEN, _disc(NARROW_M / 2))
    for candidate in (opened, closed):
        _, labels, stats, _ = cv2.connectedComponentsWithStats(candidate)
        sizes = stats[:, cv2.CC_STAT_AREA]
        sizes[0] = 0
        kept = (sizes >= max(1.0, MIN_CLUSTER * sizes.max()))[labels]
        if np.count_nonzero(kept & (plan > 0)) >= MIN_KEPT * np.count_nonzero(plan):
            break
    return kept


def _disc(radius_m: float) -> NDArray[np.uint8]:
    radius = round(radius_m / CELL_M)
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return (x * x + y * y <= radius * radius).astype(np.uint8)


def doubled_plan_areas(corners: NDArray[np.floating]) -> NDArray[np.float64]:
    """(F, 3, 2) corners -> (F,) twice the signed area seen from above, positive if the face looks up."""
    edges = corners[:, 1:].astype(np.float64) - corners[:, :1]
    return edges[:, 0, 0] * edges[:, 1, 1] - edges[:, 0, 1] * edges[:, 1, 0]


def _plan_cover(
    corners: NDArray[np.float64], middle: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """(F, 3, 2) m -> surface over each cell, in cells, (H, W), rows growing with y; and its first cell.

    Cell (i, j) of the world starts at (i, j) * CELL_M.
    """
    low, high = corner_range(corners)
    bounds = np.clip([low.min(axis=0), high.max(axis=0)], middle - REACH_M, middle + REACH_M)
    # Free cells all around: smoothing must not see the end of the array.
    first_cell, last_cell = np.floor(bounds / CELL_M).astype(np.int64) + [[-PADDING], [PADDING]]
    width, height = last_cell - first_cell + 1
    cover = np.zeros(height * width)
    areas = doubled_plan_areas(corners) / (2 * CELL_M**2)
    for faces, points, n in spread(corners, CELL_M):
        cells = np.floor(points.reshape(-1, 2) / CELL_M) - first_cell
        columns, rows, inside = inside_cells(cells, width, height)
        weights = np.repeat(areas[faces] / n**2, n**2)[inside]
        cover += np.bincount(rows * width + columns, weights, minlength=cover.size)
    return cover.reshape(height, width), first_cell


def inside_cells(
    cells: NDArray[np.float64], width: int, height: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Columns and rows of the cells (N, 2) that lie inside a grid, and which those are (N,)."""
    columns, rows = cells.T
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    return columns[inside].astype(np.int64), rows[inside].astype(np.int64), inside


def corner_range(corners: NDArray[np.floating]) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """(F, 3, D) -> least and greatest of each face's corners, (F, D); numpy is slow along short axes."""
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    return np.minimum(np.minimum(a, b), c), np.maximum(np.maximum(a, b), c)


def _split_centres(n: int) -> NDArray[np.float64]:
    """Barycentric centres (n * n, 3) of the equal triangles that n cuts per edge make."""
    i, j = (index.ravel() for index in np.mgrid[0:n, 0:n])
    upright, inverted = i + j < n, i + j < n - 1
    first = np.concatenate([i[upright] + 1 / 3, i[inverted] + 2 / 3]) / n
    second = np.concatenate([j[upright] + 1 / 3, j[inverted] + 2 / 3]) / n
    return np.column_stack([1 - first - second, first, second])


def plan_middle(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """(2,) median per axis of the faces' centres, weighted by area."""
    centres, areas = (corners[:, 0] + corners[:, 1] + corners[:, 2]) / 3, np.abs(doubled_plan_areas(corners))
    order = np.argsort(centres, axis=0, kind="stable")
    halves = [np.searchsorted(np.cumsum(areas[rows]), areas.sum() / 2) for rows in order.T]
    return np.array([centres[order[min(h, len(order) - 1), a], a] for a, h in enumerate(halves)])
