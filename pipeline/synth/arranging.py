"""Moves that furnish a room: against a wall, on a table, around a table, on a wall, somewhere free."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from pipeline.synth.fixtures import curtain, radiator
from pipeline.synth.outline import Wall, overlap
from pipeline.synth.parts import Item
from pipeline.synth.placing import Room
from pipeline.synth.props import rug
from pipeline.synth.seating import SEAT_COLORS

TRIES = 40


def against_wall(
    room: Room, item: Item, front_m: float = 0.5, corner: bool = False, gap_m: float = 0.02
) -> int | None:
    """Back to a wall, at a random spot (or near a corner); the instance, or None if there is no room."""
    width, back = item.high[1] - item.low[1], -item.low[0]
    walls = [wall for wall in room.walls if wall.length_m >= width + 0.02]
    if not walls:
        return None
    chances = np.array([wall.length_m for wall in walls])
    for _ in range(TRIES):
        wall = walls[int(room.rng.choice(len(walls), p=chances / chances.sum()))]
        low, high = width / 2 + 0.02, wall.length_m - width / 2 - 0.02
        if low > high:
            continue
        t = float(room.rng.uniform(low, high))
        if corner or room.rng.random() < 0.3:
            t = low if room.rng.random() < 0.5 else high
        t += (item.low[1] + item.high[1]) / 2
        at = (*wall.at(t, back + gap_m), 0.0)
        if room.fits(item, at, wall.yaw_rad, front_m):
            return room.stand(item, at, wall.yaw_rad, front_m)
    return None


def freely(room: Room, item: Item, from_wall_m: float = 0.0, front_m: float = 0.0) -> int | None:
    """Anywhere on the floor, at least `from_wall_m` from the sides of the plan, turned by right angles."""
    half = np.array(room.outline.size) / 2 - from_wall_m - 0.1
    for _ in range(TRIES):
        at = (*map(float, room.rng.uniform(-half, half)), 0.0)
        yaw = float(room.rng.integers(4)) * math.pi / 2
        if room.fits(item, at, yaw, front_m):
            return room.stand(item, at, yaw, front_m)
    return None


def on_top(
    room: Room, item: Item, below: int, spot: tuple[float, float] | None = None, turn_rad: float = 0.0
) -> int | None:
    """On a support of another instance, at `spot` (x, y of that item's frame) or a random free one."""
    base = room.objects[below]
    for x0, y0, x1, y1, z in room.supports.get(below, []):
        for _ in range(TRIES if spot is None else 1):
            low, high = item.low, item.high
            if spot is None:
                ranges = ((x0 - low[0], x1 - high[0]), (y0 - low[1], y1 - high[1]))
                if any(a > b for a, b in ranges):
                    break
                x, y = (float(room.rng.uniform(a, b)) for a, b in ranges)
            else:
                x, y = spot
            at = (*to_world(room, below, x, y), z + 0.0005)
            yaw = base.yaw_rad + turn_rad
            if room.free(room.box_of(item, at, yaw), 0.005, ignore_zones=True, on=below):
                return room.add(item, at, yaw, on=below)
    return None


def to_world(room: Room, instance: int, x: float, y: float) -> tuple[float, float]:
    """A floor point given in the frame of an instance."""
    ox, oy, yaw = room.origins[instance]
    c, s = math.cos(yaw), math.sin(yaw)
    return ox + c * x - s * y, oy + s * x + c * y


def seat_before(
    room: Room, item: Item, target: int, side: float = 0.0, distance_m: float = 0.0, turn_rad: float = 0.0
) -> int | None:
    """A seat before an instance, facing it; `side` shifts it along the front, `distance_m` away from it."""
    base = room.objects[target]
    yaw = room.origins[target][2]
    front = base.size[0] / 2 if abs(math.cos(yaw)) > 0.5 else base.size[1] / 2
    facing = yaw + math.pi + turn_rad
    zones, room.zones = room.zones, room.zones[:1]  # it may stand in the zone of what it belongs to
    spots = [front + item.high[0] + 0.02 + distance_m + step for step in (0.0, 0.06, 0.12, 0.18)]
    places = [(*to_world(room, target, away, side), 0.0) for away in spots]
    at = next((place for place in places if room.fits(item, place, facing)), None)
    room.zones = zones
    return None if at is None else room.add(item, at, facing)


def around(room: Room, make: Callable[[], Item], target: int, seats: int) -> list[int]:
    """Seats around a table, evenly on its sides, each a little turned; those that fit."""
    base = room.objects[target]
    ox, oy, _ = room.origins[target]
    half = (base.size[0] / 2, base.size[1] / 2)
    long_x = half[0] > half[1]
    spots: list[tuple[float, float, float]] = []  # where on the edge, and the direction towards the table
    per_side = max(1, int(max(half) * 2 / 0.62))
    for k in range(per_side):
        s = (k - (per_side - 1) / 2) * (2 * max(half) / per_side)
        spots += [(s, half[1], -90), (s, -half[1], 90)] if long_x else [(half[0], s, 180), (-half[0], s, 0)]
    spots += [(half[0], 0, 180), (-half[0], 0, 0)] if long_x else [(0, half[1], -90), (0, -half[1], 90)]
    placed = []
    for x, y, degrees in spots:
        if len(placed) == seats:
            break
        item = make()
        back = item.high[0] + 0.03 + float(room.rng.uniform(0, 0.12))
        yaw = math.radians(degrees)
        at = (ox + x - back * math.cos(yaw), oy + y - back * math.sin(yaw), 0.0)
        if room.fits(item, at, yaw):
            placed.append(room.add(item, at, yaw))
    return placed


def hang(room: Room, item: Item, height_m: float, near: int | None = None) -> int | None:
    """On a wall at `height_m`, over the instance `near` if given."""
    half = (item.high[1] - item.low[1]) / 2
    for _ in range(TRIES):
        row = int(room.rng.integers(len(room.walls)))
        wall = room.walls[row]
        if near is not None:
            row, t = wall_behind(room, near)
            wall = room.walls[row]
        elif wall.length_m > 2 * half + 0.3:
            t = float(room.rng.uniform(half + 0.1, wall.length_m - half - 0.1))
        else:
            continue
        at = (*wall.at(t, 0.001), height_m)
        box = room.box_of(item, at, wall.yaw_rad)
        if half < t < wall.length_m - half and room.free(box, 0.06, ignore_zones=True):
            return room.add(item, at, wall.yaw_rad, on=room.wall_ids[row])
        if near is not None:
            return None
    return None


def wall_behind(room: Room, instance: int) -> tuple[int, float]:
    """(row of the wall, place along it) behind an instance that stands with its back to a wall."""
    obj = room.objects[instance]
    x, y, _ = obj.center
    best = min(
        (row for row, wall in enumerate(room.walls) if math.cos(wall.yaw_rad - obj.yaw_rad) > 0.9),
        key=lambda row: _wall_distance(room.walls[row], x, y),
    )
    wall = room.walls[best]
    return best, (x - wall.start[0]) * wall.along[0] + (y - wall.start[1]) * wall.along[1]


def _wall_distance(wall: Wall, x: float, y: float) -> float:
    t = (x - wall.start[0]) * wall.along[0] + (y - wall.start[1]) * wall.along[1]
    beside = max(0.0, -t, t - wall.length_m)
    return abs((x - wall.start[0]) * wall.normal[0] + (y - wall.start[1]) * wall.normal[1]) + 10 * beside


def spread_rug(
    room: Room, color: str, size: tuple[float, float], at: tuple[float, float], yaw_rad: float
) -> int | None:
    """A rug of that size, or a smaller one if it does not fit; it may lie a little aside."""
    for scale in (1.0, 0.9, 0.8, 0.7):
        item = rug(room.rng, color, (round(size[0] * scale, 2), round(size[1] * scale, 2)))
        for aside in (0.0, 0.25, -0.25, 0.5, -0.5):
            spot = (at[0] - aside * math.sin(yaw_rad), at[1] + aside * math.cos(yaw_rad))
            instance = lay_rug(room, item, spot, yaw_rad)
            if instance is not None:
                return instance
    return None


def lay_rug(room: Room, item: Item, at: tuple[float, float], yaw_rad: float) -> int | None:
    """Flat on the floor, under furniture or not, off the walls and off other rugs."""
    box = room.box_of(item, (*at, 0.0), yaw_rad)
    rect = (box[0], box[1], box[3], box[4])
    if not room.outline.holds((rect[0] - 0.1, rect[1] - 0.1, rect[2] + 0.1, rect[3] + 0.1)):
        return None
    for obj in room.objects:
        half = (obj.size[0] / 2, obj.size[1] / 2)
        other = (
            obj.center[0] - half[0],
            obj.center[1] - half[1],
            obj.center[0] + half[0],
            obj.center[1] + half[1],
        )
        if obj.label in ("rug", "mat") and overlap(rect, other):
            return None
    return room.add(item, (*at, 0.0), yaw_rad)


def dress_windows(room: Room, windows: list[int], low_m: float) -> None:
    """Curtains beside windows and a radiator below, where there is room."""
    cloth = str(room.rng.choice(SEAT_COLORS + ("beige", "white")))
    for window in windows:
        row, t = wall_behind(room, window)
        wall, obj = room.walls[row], room.objects[window]
        width = max(obj.size[0], obj.size[1])
        if low_m > 0.7 and room.rng.random() < 0.6:
            heater = radiator(room.rng, min(1.2, width - 0.2))
            at = (*wall.at(t, 0.0), 0.0)
            if room.fits(heater, at, wall.yaw_rad):
                room.add(heater, at, wall.yaw_rad)
        if room.rng.random() < 0.65:
            for side in (-1, 1):
                drape = curtain(room.rng, cloth, (0.36, min(room.height_m - 0.15, 2.35)))
                spot = t + side * (width / 2 + 0.20)
                at = (*wall.at(spot, 0.0), 0.04)
                if 0.2 < spot < wall.length_m - 0.2 and room.free(room.box_of(drape, at, wall.yaw_rad), 0.0):
                    room.add(drape, at, wall.yaw_rad, on=room.wall_ids[row])
