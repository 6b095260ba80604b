"""A room while it is being furnished: what stands where, what may stand where, and whether one can walk.

Boxes are (x0, y0, z0, x1, y1, z1), world, metres. Every piece that needs room in front of it keeps a zone
free; a piece is refused when it would cut any zone off from the door.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.synth.labels import NYU40
from pipeline.synth.meshing import bounds
from pipeline.synth.outline import Outline, Rect, Wall, overlap
from pipeline.synth.parts import Item, move, turn
from pipeline.synth.scene import Part, SceneObject

Box = tuple[float, float, float, float, float, float]
GAP_M = 0.015
CELL_M = 0.05
WALK_M = 0.24
"""Half the width that a person needs."""
FLAT = frozenset({"rug", "mat", "floor", "ceiling", "wall"})


@dataclass
class Room:
    rng: np.random.Generator
    outline: Outline
    height_m: float
    objects: list[SceneObject] = field(default_factory=list)
    lights: list[tuple[float, ...]] = field(default_factory=list)
    boxes: dict[int, Box] = field(default_factory=dict)
    """instance -> what takes room: all objects but floor, ceiling, walls and rugs."""
    zones: list[Rect] = field(default_factory=list)
    """Floor that stays free: the first is the door's."""
    supports: dict[int, list[tuple[float, float, float, float, float]]] = field(default_factory=dict)
    """instance -> places on it, in the frame of its item."""
    origins: dict[int, tuple[float, float, float]] = field(default_factory=dict)
    """instance -> x, y, yaw of its item's frame."""
    wall_ids: dict[int, int] = field(default_factory=dict)
    """Row of the outline's walls -> instance."""

    @property
    def walls(self) -> tuple[Wall, ...]:
        return self.outline.walls

    def add(self, item: Item, at: tuple[float, float, float], yaw_rad: float = 0.0, on: int = -1) -> int:
        """Put the item's origin at `at`; returns its instance id. The caller has checked that it fits."""
        rotation = turn("z", yaw_rad)
        parts = tuple(move(part, rotation, at) for part in item.parts)
        instance = self.add_parts(item, parts, yaw_rad, on)
        self.supports[instance] = list(item.supports)
        self.origins[instance] = (at[0], at[1], yaw_rad)
        for x, y, z, strength in item.lights:
            spot = rotation @ (x, y, z) + at
            self.lights.append((*map(float, spot), *(0.0,) * 6, strength, strength * 0.86, strength * 0.64))
        return instance

    def add_parts(self, item: Item, parts: tuple[Part, ...], yaw_rad: float, on: int) -> int:
        """The same for parts that are in the world frame already."""
        low, high = bounds(parts)
        low, high = low.astype(np.float64), high.astype(np.float64)
        instance = len(self.objects)
        center, size = tuple(map(float, (low + high) / 2)), tuple(map(float, high - low))
        yaw_rad = math.remainder(yaw_rad, 2 * math.pi)
        self.objects.append(
            SceneObject(
                instance,
                item.label,
                NYU40[item.label],
                item.color,
                item.material,
                center,
                size,
                yaw_rad,
                on,
                parts,
            )
        )
        if item.label not in FLAT:
            self.boxes[instance] = (*map(float, low), *map(float, high))
        return instance

    def box_of(self, item: Item, at: tuple[float, float, float], yaw_rad: float) -> Box:
        """Box of the item if it stood there; for odd angles a little larger than the true one."""
        low, high = item.low, item.high
        corners = np.array([(x, y) for x in (low[0], high[0]) for y in (low[1], high[1])])
        flat = corners @ turn("z", yaw_rad)[:2, :2].T + at[:2]
        (x0, y0), (x1, y1) = flat.min(axis=0), flat.max(axis=0)
        return (float(x0), float(y0), at[2] + low[2], float(x1), float(y1), at[2] + high[2])

    def free(self, box: Box, gap_m: float = GAP_M, ignore_zones: bool = False, on: int = -1) -> bool:
        """Whether the box is inside the room, touches nothing but the instance `on`, leaves zones free."""
        rect = (box[0], box[1], box[3], box[4])
        if not self.outline.holds(rect, 1e-6) or box[5] > self.height_m + 1e-6:
            return False
        if not ignore_zones and box[2] < 1.9 and any(overlap(rect, zone) for zone in self.zones):
            return False
        for instance, other in self.boxes.items():
            if instance == on:
                continue
            apart = box[2] >= other[5] - 1e-6 or other[2] >= box[5] - 1e-6
            if not apart and overlap(rect, (other[0], other[1], other[3], other[4]), gap_m):
                return False
        return True

    def fits(self, item: Item, at: tuple[float, float, float], yaw_rad: float, front_m: float = 0.0) -> bool:
        """Whether the item, with `front_m` before it, can stand there and all zones stay reachable."""
        box = self.box_of(item, at, yaw_rad)
        if not self.free(box):
            return False
        zone = front_zone(box, yaw_rad, front_m)
        if zone is not None and not self._zone_is_free(zone):
            return False
        return self.reachable([*self.boxes.values(), box], [*self.zones, *([zone] if zone else [])])

    def stand(self, item: Item, at: tuple[float, float, float], yaw_rad: float, front_m: float = 0.0) -> int:
        """Add the item and keep the zone in front of it free."""
        zone = front_zone(self.box_of(item, at, yaw_rad), yaw_rad, front_m)
        if zone is not None:
            self.zones.append(zone)
        return self.add(item, at, yaw_rad)

    def _zone_is_free(self, zone: Rect) -> bool:
        if not self.outline.holds(zone, 1e-6):
            return False
        return not any(b[2] < 1.9 and overlap(zone, (b[0], b[1], b[3], b[4])) for b in self.boxes.values())

    def reachable(self, boxes: list[Box], zones: list[Rect]) -> bool:
        """Whether a person can walk from the first zone to every other."""
        if not zones:
            return True
        walkable = walk_map(self.outline, boxes)
        _, regions = cv2.connectedComponents(walkable.astype(np.uint8), connectivity=4)
        found = [set(np.unique(_crop(regions, self.outline, zone))) - {0} for zone in zones]
        return all(found) and all(found[0] & other for other in found[1:])


def front_zone(box: Box, yaw_rad: float, front_m: float) -> Rect | None:
    """The floor of depth `front_m` before a box that faces `yaw_rad` (nearest right angle)."""
    if front_m <= 0:
        return None
    quarter = round(yaw_rad / (math.pi / 2)) % 4
    x0, y0, x1, y1 = box[0], box[1], box[3], box[4]
    return (
        (x1, y0, x1 + front_m, y1),
        (x0, y1, x1, y1 + front_m),
        (x0 - front_m, y0, x0, y1),
        (x0, y0 - front_m, x1, y0),
    )[quarter]


def _cells(outline: Outline) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Middles of the grid cells along x and y."""
    num_x, num_y = (math.ceil(side / CELL_M) for side in outline.size)
    return (
        (np.arange(num_x) + 0.5) * CELL_M - outline.size[0] / 2,
        (np.arange(num_y) + 0.5) * CELL_M - outline.size[1] / 2,
    )


def _inside(outline: Outline, rect: Rect) -> tuple[slice, slice]:
    xs, ys = _cells(outline)
    i = np.searchsorted(xs, (rect[0], rect[2]))
    j = np.searchsorted(ys, (rect[1], rect[3]))
    return slice(int(i[0]), int(i[1])), slice(int(j[0]), int(j[1]))


def _crop(grid: NDArray, outline: Outline, rect: Rect) -> NDArray:
    return grid[_inside(outline, rect)]


def clearance(
    outline: Outline, boxes: list[Box], low_m: float = 0.05, high_m: float = 1.9
) -> NDArray[np.float32]:
    """(X, Y) distance in metres from each grid cell to the next wall or box between the two heights."""
    xs, ys = _cells(outline)
    open_floor = np.zeros((len(xs) + 2, len(ys) + 2), np.uint8)
    inner = open_floor[1:-1, 1:-1]
    inner[:] = 1
    for cut in outline.cutouts:
        inner[_inside(outline, cut)] = 0
    for box in boxes:
        if box[2] < high_m and box[5] > low_m:
            inner[_inside(outline, (box[0], box[1], box[3], box[4]))] = 0
    return cv2.distanceTransform(open_floor, cv2.DIST_L2, 5)[1:-1, 1:-1] * np.float32(CELL_M)


def walk_map(outline: Outline, boxes: list[Box], half_width_m: float = WALK_M) -> NDArray[np.bool_]:
    """(X, Y) grid: True where a person's middle can be."""
    return clearance(outline, boxes) >= half_width_m
