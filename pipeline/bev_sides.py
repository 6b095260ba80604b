"""Whether a mesh shows the sides of its surfaces that are seen from inside the room.

A picture from above shows what faces up. That is the room only if fronts look into it: floors up, ceilings
down. Turned inside out, a room shows its ceiling and the undersides of tables; with two-sided faces, its
ceiling. Nothing in such a picture looks wrong, so the mesh is asked: how do the surfaces over one spot lie
above each other?
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.bev_frame import REACH_M, doubled_plan_areas, inside_cells, plan_middle, spread
from pipeline.mesh import Mesh

SPOT_M = 0.1
"""Edge of a spot of the plan."""
LEVEL = 0.7
"""A face is level if its normal is within 45 degrees of the vertical."""
MIN_GAP_M = 0.3
"""A surface that faces down belongs to the one above it (a slab, a table top) if it is closer than this."""
SAME_M = 0.02
"""Two surfaces closer than this are the two sides of one."""
CEILING_M = 1.5
"""What is so far above the floor over most of the plan is a ceiling."""
MAX_INVERTED = 0.2
"""Of rooms about 0.01 is inverted (an object above a hole in the floor), of rooms inside out 0.3 to 1."""
MAX_COVERED = 0.5


@dataclass(frozen=True)
class Spots:
    """Heights of level surfaces over each spot of the plan, metres; inf or -inf where there are none."""

    lowest_up: NDArray[np.float64]
    lowest_down: NDArray[np.float64]
    highest_up: NDArray[np.float64]
    highest_down: NDArray[np.float64]


def wrong_side(mesh: Mesh) -> str:
    """Why the picture of a mesh (world frame) from above would not show the room, else ""."""
    spots = _spots(mesh)
    shown = np.isfinite(spots.lowest_up)
    if not shown.any():
        if not np.isfinite(spots.lowest_down).any():
            return ""
        return "no level surface faces up, but some face down: the mesh is inside out, or shows only ceilings"
    lowest_up, lowest_down = spots.lowest_up[shown], spots.lowest_down[shown]
    inverted = (lowest_down < lowest_up - MIN_GAP_M).mean()
    if inverted > MAX_INVERTED:
        return (
            f"over {inverted:.0%} of the plan the lowest surface faces down: the mesh is inside out; "
            "expected faces whose corners run counter-clockwise seen from inside the room"
        )
    highest_up, highest_down = spots.highest_up[shown], spots.highest_down[shown]
    two_sided = (np.abs(lowest_up - lowest_down) <= SAME_M) & (np.abs(highest_up - highest_down) <= SAME_M)
    covered = (two_sided & (highest_up - lowest_up >= CEILING_M)).mean()
    if covered > MAX_COVERED:
        return (
            f"over {covered:.0%} of the plan a ceiling hides the room: the faces are two-sided; expected "
            "faces that are seen from inside the room only"
        )
    return ""


def _spots(mesh: Mesh) -> Spots:
    """The surfaces over each spot that any of them covers."""
    corners = mesh.vertices[mesh.faces]
    normals_z, normals_y, normals_x = (doubled_plan_areas(corners[..., a]) for a in ([0, 1], [0, 2], [1, 2]))
    lengths = np.sqrt(normals_x**2 + normals_y**2 + normals_z**2)
    level = (np.abs(normals_z) >= LEVEL * lengths) & (lengths > 0)
    corners, up = corners[level].astype(np.float64), normals_z[level] > 0
    if len(corners) == 0:
        nothing = np.zeros(0)
        return Spots(nothing, nothing, nothing, nothing)
    first = plan_middle(corners[..., :2]) - REACH_M
    side = round(2 * REACH_M / SPOT_M)
    lows, highs = np.full((2, side * side), np.inf), np.full((2, side * side), -np.inf)
    for faces, points, n in spread(corners, SPOT_M):
        cells = np.floor((points[..., :2].reshape(-1, 2) - first) / SPOT_M)
        columns, rows, inside = inside_cells(cells, side, side)
        heights = points[..., 2].reshape(-1)[inside]
        where = (np.repeat(up[faces], n**2)[inside].astype(np.int64), rows * side + columns)
        np.minimum.at(lows, where, heights)
        np.maximum.at(highs, where, heights)
    return Spots(lows[1], lows[0], highs[1], highs[0])
