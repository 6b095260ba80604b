"""`sample_scene(scan_id, seed)`: a furnished room, a pure function of its arguments.

First the shell (plan, walls, door, windows, floor, ceiling, light), then the furniture of rooms.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pipeline.synth import fixtures, rooms, wet_rooms
from pipeline.synth.arranging import dress_windows, lay_rug
from pipeline.synth.outline import Outline, Wall, sample_outline
from pipeline.synth.parts import Item, box, jitter, panel, pick, shade, wood
from pipeline.synth.placing import Box, Room
from pipeline.synth.scene import COLORS, Material, Part, Scene


@dataclass(frozen=True)
class RoomKind:
    scene_type: str
    """ScanNet's `sceneType`."""
    low: tuple[float, float]
    high: tuple[float, float]
    """Smallest and largest plan, metres."""
    floors: tuple[str, ...]
    lamps: tuple[str, ...]
    furnish: Callable[[Room], None]


ROOM_KINDS: dict[str, RoomKind] = {
    "bedroom": RoomKind(
        "Bedroom / Hotel", (3.8, 3.6), (5.2, 4.8), ("planks", "carpet"), ("globe", "pendant"), rooms.bedroom
    ),
    "office": RoomKind(
        "Office", (4.2, 3.8), (6.4, 5.2), ("carpet", "planks", "tiles"), ("panel",), rooms.office
    ),
    "living room": RoomKind(
        "Living room / Lounge",
        (4.6, 4.2),
        (6.6, 5.6),
        ("planks", "carpet"),
        ("globe", "pendant"),
        rooms.living_room,
    ),
    "kitchen": RoomKind(
        "Kitchen",
        (4.2, 3.8),
        (5.8, 5.0),
        ("tiles", "chess", "planks"),
        ("globe", "panel", "pendant"),
        wet_rooms.kitchen,
    ),
    "bathroom": RoomKind(
        "Bathroom", (2.6, 2.4), (3.4, 3.2), ("tiles", "chess"), ("globe",), wet_rooms.bathroom
    ),
    "meeting room": RoomKind(
        "Conference Room", (5.0, 4.4), (7.0, 5.6), ("carpet", "planks"), ("panel",), rooms.meeting_room
    ),
}
"""Kinds of room; `sample_scene` takes one of these names."""
ROOM_TYPES = tuple(ROOM_KINDS)


def sample_scene(scan_id: str, seed: int, room_type: str | None = None) -> Scene:
    """A furnished room; its kind is drawn unless `room_type` (a key of ROOM_KINDS) names one.

    ValueError: unknown room_type.
    """
    rng = np.random.default_rng([seed, 7])
    if room_type is None:
        room_type = ROOM_TYPES[int(rng.choice(len(ROOM_TYPES), p=(0.22, 0.2, 0.22, 0.16, 0.08, 0.12)))]
    if room_type not in ROOM_KINDS:
        raise ValueError(f"room_type: got {room_type!r}, expected one of {', '.join(ROOM_TYPES)}")
    kind = ROOM_KINDS[room_type]
    size = tuple(float(v) for v in np.round(rng.uniform(kind.low, kind.high), 2))
    height = round(float(rng.uniform(2.45, 2.95)), 2)
    room = Room(rng, sample_outline(rng, size), height)
    build_shell(room, room_type)
    kind.furnish(room)
    return Scene(
        scan_id,
        kind.scene_type,
        (*size, height),
        room.outline.corners,
        tuple(room.objects),
        seed,
        tuple(room.lights),
    )


@dataclass(frozen=True)
class Opening:
    """A hole in a wall: row of the wall, middle along it, width, lower edge, height."""

    row: int
    t_m: float
    width_m: float
    low_m: float
    height_m: float


def build_shell(room: Room, room_type: str) -> None:
    """Floor, ceiling, walls with their holes, door, windows, ceiling lights, doormat, curtains."""
    rng, kind = room.rng, ROOM_KINDS[room_type]
    door, windows = choose_openings(room, high=room_type in ("kitchen", "bathroom"))
    slab = tuple(v for cut in room.outline.cutouts for v in cut)
    floor = Part(
        "panel",
        (*room.outline.size, 0.0),
        (0, 0, 0),
        floor_material(rng, pick(rng, *kind.floors)),
        detail=slab,
    )
    room.add(Item("floor", "", "", (floor,)), (0, 0, 0))
    room.add(Item("ceiling", "white", "", (ceiling_part(room.outline, room.height_m),)), (0, 0, 0))
    paint, accent = wall_materials(rng, room_type)
    accent_row = int(rng.integers(len(room.walls)))
    for row, wall in enumerate(room.walls):
        holes = [o for o in (door, *windows) if o.row == row]
        item = wall_item(wall, room.height_m, accent if row == accent_row else paint, holes)
        room.wall_ids[row] = room.add_parts(item, item.parts, wall.yaw_rad, -1)
    add_door(room, door)
    dress_windows(
        room, [add_window(room, window) for window in windows], windows[0].low_m if windows else 0.0
    )
    add_ceiling_lights(room, pick(rng, *kind.lamps))
    if rng.random() < 0.5:
        wall = room.walls[door.row]
        lay_rug(room, fixtures.doormat(rng), wall.at(door.t_m, 0.42), wall.yaw_rad)


def choose_openings(room: Room, high: bool) -> tuple[Opening, list[Opening]]:
    """A door and one to three windows on other walls, or beside the door where a wall is long."""
    rng, walls = room.rng, room.walls
    width, height = fixtures.DOOR_SIZE
    fit = [row for row, wall in enumerate(walls) if wall.length_m > width + 0.5]
    row = fit[int(rng.integers(len(fit)))]
    margin = width / 2 + 0.2
    t = margin if rng.random() < 0.4 else walls[row].length_m - margin
    if rng.random() < 0.3:
        t = float(rng.uniform(margin, walls[row].length_m - margin))
    door = Opening(row, t, width, 0.0, height)
    low, top = (
        (1.2, 2.15) if high else (0.55, 2.2) if rng.random() < 0.25 else (float(rng.uniform(0.85, 1.0)), 2.15)
    )
    rows = [r for r in np.argsort([-wall.length_m for wall in walls]) if r != row and walls[r].length_m > 1.4]
    rng.shuffle(rows)
    windows = []
    for r in rows[: pick(rng, 1, 2, 2)]:
        length = walls[r].length_m
        wide = float(min(rng.uniform(1.0, 1.9), length - 0.5))
        middle = length / 2 + float(rng.uniform(-0.5, 0.5)) * (length - wide - 0.5)
        windows.append(Opening(int(r), middle, wide, low, top - low))
    return door, windows


def wall_item(wall: Wall, height_m: float, paint: Material, holes: list[Opening]) -> Item:
    """The wall's face with its holes, and a skirting board with a gap at the door."""
    x, y = wall.at(wall.length_m / 2)
    face = panel(paint, (wall.length_m, height_m), (x, y, height_m / 2), (*wall.normal, 0.0))
    cuts: list[float] = []
    for hole in holes:
        # The panel's x axis runs against `along`.
        middle, half = wall.length_m / 2 - hole.t_m, hole.width_m / 2
        cuts += [
            middle - half,
            hole.low_m - height_m / 2,
            middle + half,
            hole.low_m + hole.height_m - height_m / 2,
        ]
    parts = [Part(face.kind, face.size, face.center, face.material, face.rotation, tuple(cuts))]
    doors = [hole for hole in holes if hole.low_m == 0.0]
    edges = [
        0.0,
        *(v for d in doors for v in (d.t_m - d.width_m / 2 - 0.085, d.t_m + d.width_m / 2 + 0.085)),
        wall.length_m,
    ]
    board = Material("plain", (228, 226, 220))
    for a, b in zip(edges[::2], edges[1::2], strict=True):
        if b - a > 0.06:
            across = (abs(wall.along[0]) * (b - a) or 0.012, abs(wall.along[1]) * (b - a) or 0.012, 0.08)
            parts.append(box(board, across, (*wall.at((a + b) / 2, 0.006), 0.0)))
    return Item("wall", _color_word(paint.color), "", tuple(parts))


def _color_word(rgb: tuple[int, int, int]) -> str:
    return min(COLORS, key=lambda name: sum((a - b) ** 2 for a, b in zip(COLORS[name], rgb, strict=True)))


def ceiling_part(outline: Outline, height_m: float) -> Part:
    """The floor's plan turned face down."""
    flipped = tuple(v for x0, y0, x1, y1 in outline.cutouts for v in (x0, -y1, x1, -y0))
    face_down = (1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, -1.0)
    white = Material("plaster", (238, 237, 233), scale_m=1.0)
    return Part("panel", (*outline.size, 0.0), (0.0, 0.0, height_m), white, face_down, flipped)


def floor_material(rng: np.random.Generator, kind: str) -> Material:
    seed = int(rng.integers(1 << 16))
    if kind == "planks":
        tone = wood(pick(rng, "oak", "beech", "walnut", "cherry", "oak"), rng).color
        return Material("planks", shade(tone, 1.05), shade(tone, 0.78), float(rng.uniform(0.09, 0.15)), seed)
    if kind == "carpet":
        return Material(
            "carpet",
            jitter(pick(rng, (120, 122, 128), (92, 104, 124), (150, 138, 118), (112, 92, 84)), rng),
            scale_m=0.05,
            seed=seed,
        )
    if kind == "tiles":
        tile = jitter(pick(rng, (200, 194, 184), (168, 160, 150), (196, 170, 140), (120, 124, 128)), rng)
        return Material("tiles", tile, shade(tile, 0.6), pick(rng, 0.3, 0.4, 0.6), seed)
    light, dark = pick(
        rng,
        ((224, 222, 214), (60, 62, 66)),
        ((222, 212, 196), (132, 72, 58)),
        ((220, 222, 220), (76, 100, 118)),
    )
    return Material("chess", light, dark, pick(rng, 0.25, 0.33), seed)


def wall_materials(rng: np.random.Generator, room_type: str) -> tuple[Material, Material]:
    """Paint of most walls, and of one accent wall (often the same)."""
    base = pick(
        rng,
        (226, 222, 212),
        (222, 226, 226),
        (228, 220, 200),
        (206, 216, 222),
        (210, 220, 206),
        (230, 214, 204),
    )
    paint = Material("plaster", jitter(base, rng, 6), scale_m=1.0)
    if room_type == "bathroom":
        tile = jitter(pick(rng, (226, 230, 230), (188, 208, 214), (214, 220, 204)), rng)
        paint = Material("tiles", tile, shade(tile, 0.75), pick(rng, 0.15, 0.2), 5)
    roll = rng.random()
    if roll < 0.4:
        return paint, paint
    strong = jitter(
        pick(
            rng,
            (126, 150, 168),
            (168, 112, 92),
            (132, 150, 118),
            (196, 168, 104),
            (110, 108, 130),
            (186, 138, 136),
        ),
        rng,
    )
    if roll < 0.7:
        return paint, Material("plaster", strong, scale_m=1.0)
    if roll < 0.85:
        return paint, Material("bricks", (158, 92, 72), (196, 188, 176), 0.07, 11)
    return paint, Material("wallpaper", shade(strong, 1.2), shade(strong, 1.02), 0.24, 3)


def add_door(room: Room, opening: Opening) -> int:
    wall = room.walls[opening.row]
    x, y = wall.at(opening.t_m)
    instance = room.add(fixtures.door(room.rng), (x, y, 0.0), wall.yaw_rad, room.wall_ids[opening.row])
    a, b = wall.at(opening.t_m - 0.5, 0.05), wall.at(opening.t_m + 0.5, 0.95)
    zone = (min(a[0], b[0]), min(a[1], b[1]), max(a[0], b[0]), max(a[1], b[1]))
    room.zones.append(zone)
    return instance


def add_window(room: Room, opening: Opening) -> int:
    """The window, and the daylight that comes through it."""
    wall = room.walls[opening.row]
    x, y = wall.at(opening.t_m)
    item = fixtures.window(room.rng, (opening.width_m, opening.height_m))
    half = opening.width_m / 2
    corner = (*wall.at(opening.t_m + half, -0.02), opening.low_m)
    across = (-wall.along[0] * opening.width_m, -wall.along[1] * opening.width_m, 0.0)
    room.lights.append((*corner, *across, 0.0, 0.0, opening.height_m, 3.2, 3.4, 3.7))
    return room.add(item, (x, y, opening.low_m), wall.yaw_rad, room.wall_ids[opening.row])


def add_ceiling_lights(room: Room, style: str) -> None:
    """On a grid of about 2.4 m; a spot outside an L-shaped plan is left out."""
    counts = [max(1, round(side / 2.6)) for side in room.outline.size] if style == "panel" else [1, 1]
    for i in range(counts[0]):
        for j in range(counts[1]):
            item = fixtures.ceiling_light(room.rng, style)
            x = ((i + 0.5) / counts[0] - 0.5) * room.outline.size[0]
            y = ((j + 0.5) / counts[1] - 0.5) * room.outline.size[1]
            box_: Box = room.box_of(item, (x, y, room.height_m), 0.0)
            if not room.outline.holds((box_[0], box_[1], box_[3], box_[4])):
                continue
            ceiling = next(o.instance_id for o in room.objects if o.label == "ceiling")
            room.add(item, (x, y, room.height_m), 0.0, ceiling)
            below = room.height_m + item.low[2] - 0.05
            strength = 2.6 if style == "panel" else 4.2
            room.lights.append((x, y, below, *(0.0,) * 6, strength, strength * 0.95, strength * 0.86))
