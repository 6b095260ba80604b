"""How living and working rooms are furnished, in the order in which a person would place things."""

from __future__ import annotations

import math
from collections.abc import Callable

from pipeline.synth import props, seating, storage
from pipeline.synth.arranging import (
    against_wall,
    around,
    freely,
    hang,
    on_top,
    seat_before,
    spread_rug,
)
from pipeline.synth.parts import Item, pick, wood_or_paint
from pipeline.synth.placing import Room
from pipeline.synth.props import PROP_COLORS
from pipeline.synth.seating import SEAT_COLORS


def bedroom(room: Room) -> None:
    rng = room.rng
    width = pick(rng, 1.0, 1.5, 1.7)
    bed = against_wall(room, seating.bed(rng, pick(rng, *SEAT_COLORS), width), 0.5)
    if bed is not None:
        surface = wood_or_paint(rng, "white", "black")
        sides = (-1, 1) if width > 1.2 else (pick(rng, -1, 1),)
        for side in sides:
            _beside_bed(room, bed, storage.nightstand(rng, surface), side, width)
        colors = [pick(rng, *SEAT_COLORS) for _ in range(2)]
        for k, y in enumerate((-width / 4, width / 4) if width > 1.2 else (0.0,)):
            on_top(room, seating.pillow(rng, colors[k]), bed, (-0.72, y))
        if width > 1.2 and rng.random() < 0.6:
            on_top(room, seating.pillow(rng, pick(rng, *SEAT_COLORS), upright=True), bed, (-0.38, 0.0))
        x, y, yaw = room.origins[bed]
        center = (x + 0.55 * math.cos(yaw), y + 0.55 * math.sin(yaw))
        spread_rug(room, pick(rng, *SEAT_COLORS), (1.7, width + 1.1), center, yaw)
        hang(room, props.picture(rng, (0.9, 0.5)), 1.62, near=bed)
    against_wall(room, storage.cabinet(rng), 0.6, corner=True)
    chest = against_wall(room, storage.dresser(rng), 0.6)
    if chest is not None:
        on_top(room, pick(rng, props.vase(rng, pick(rng, *PROP_COLORS)), props.plant(rng, 0.4)), chest)
        on_top(room, props.book_stack(rng), chest)
        hang(room, props.mirror(rng), 1.6, near=chest)
    workplace(room, pick(rng, 1.0, 1.2))
    if rng.random() < 0.6:
        against_wall(room, seating.armchair(rng, pick(rng, *SEAT_COLORS)), 0.5, corner=True)
    clutter(room, ("trash can", "plant", "lamp", "backpack", "box", "ottoman"))
    wall_decoration(room, 2)


def _beside_bed(room: Room, bed: int, stand: Item, side: int, width_m: float) -> None:
    x, y, yaw = room.origins[bed]
    c, s = math.cos(yaw), math.sin(yaw)
    dx, dy = -1.07 - stand.low[0] + 0.02, side * (width_m / 2 + 0.30)
    at = (x + c * dx - s * dy, y + s * dx + c * dy, 0.0)
    if not room.fits(stand, at, yaw):
        return
    instance = room.add(stand, at, yaw)
    if on_top(
        room,
        props.table_lamp(room.rng, pick(room.rng, "white", "yellow", "beige", "orange")),
        instance,
        (-0.04, 0.0),
    ):
        on_top(room, props.cup(room.rng, pick(room.rng, *PROP_COLORS)), instance)


def workplace(room: Room, width_m: float = 1.5) -> int | None:
    """A desk with a chair, a screen, a keyboard and small things."""
    rng = room.rng
    desk = against_wall(room, storage.desk(rng, width_m), 0.85)
    if desk is None:
        return None
    seat = (
        seating.office_chair(rng, pick(rng, *SEAT_COLORS))
        if rng.random() < 0.75
        else seating.chair(rng, pick(rng, *SEAT_COLORS))
    )
    seat_before(
        room,
        seat,
        desk,
        float(rng.uniform(-0.1, 0.1)),
        float(rng.uniform(0.0, 0.1)),
        float(rng.uniform(-0.5, 0.5)),
    )
    if rng.random() < 0.3:
        on_top(room, props.laptop(rng), desk, (0.08, 0.0))
    elif width_m > 1.3 and rng.random() < 0.5:
        for y in (-0.29, 0.29):
            on_top(room, props.monitor(rng, 0.54), desk, (-0.15, y))
        on_top(room, props.keyboard(rng), desk, (0.17, 0.0))
    else:
        on_top(room, props.monitor(rng, float(rng.uniform(0.5, 0.62))), desk, (-0.15, 0.0))
        on_top(room, props.keyboard(rng), desk, (0.17, 0.0))
    extras = (
        props.cup(rng, pick(rng, *PROP_COLORS)),
        props.book_stack(rng),
        props.table_lamp(rng, pick(rng, "white", "yellow", "green")),
        props.plant(rng, 0.32),
    )
    for k in rng.permutation(len(extras))[: int(rng.integers(1, 4))]:
        on_top(room, extras[k], desk)
    return desk


def office(room: Room) -> None:
    rng = room.rng
    for _ in range(pick(rng, 2, 3, 4)):
        workplace(room, pick(rng, 1.3, 1.5, 1.6))
    for _ in range(pick(rng, 1, 2)):
        shelf = against_wall(room, storage.bookshelf(rng), 0.5)
        if shelf is not None and rng.random() < 0.5:
            on_top(room, props.cardboard_box(rng), shelf)
    for _ in range(pick(rng, 1, 2)):
        drawer = against_wall(
            room,
            storage.file_cabinet(rng, pick(rng, "gray", "white", "blue", "black", "green")),
            0.5,
            corner=True,
        )
        if drawer is not None:
            on_top(
                room,
                pick(rng, props.plant(rng, 0.4), props.book_stack(rng), props.cardboard_box(rng)),
                drawer,
            )
    hang(room, props.whiteboard(rng, pick(rng, 1.5, 1.8)), 1.5)
    if min(room.outline.size) > 4.0:
        table = freely(room, storage.round_table(rng, 1.0), 1.0)
        if table is not None:
            colors = [pick(rng, *SEAT_COLORS) for _ in range(2)]
            around(room, lambda: seating.chair(rng, pick(rng, *colors)), table, 3)
            on_top(room, props.cup(rng, pick(rng, *PROP_COLORS)), table)
    against_wall(room, storage.cabinet(rng), 0.6)
    clutter(room, ("trash can", "trash can", "plant", "box", "box", "backpack", "coat rack"))
    wall_decoration(room, 2)


def living_room(room: Room) -> None:
    rng = room.rng
    color = pick(rng, *SEAT_COLORS)
    stand = against_wall(room, storage.tv_stand(rng), 1.2)
    couch = against_wall(room, seating.couch(rng, color, pick(rng, 2, 3)), 1.15)
    if stand is not None:
        on_top(room, props.tv(rng), stand, (0.0, 0.0))
    if couch is not None:
        for k in range(pick(rng, 2, 3)):
            spread = room.supports[couch][0][3] * 0.72
            spot = (-0.01, (spread, -spread, 0.0)[k])
            on_top(
                room,
                seating.pillow(rng, pick(rng, *(c for c in SEAT_COLORS if c != color)), upright=True),
                couch,
                spot,
            )
        x, y, yaw = room.origins[couch]
        c, s = math.cos(yaw), math.sin(yaw)
        spread_rug(room, pick(rng, *SEAT_COLORS), (1.9, 2.6), (x + 1.15 * c, y + 1.15 * s), yaw)
        low = storage.coffee_table(rng)
        at = (x + c * (0.44 + 0.42 - low.low[0]), y + s * (0.44 + 0.42 - low.low[0]), 0.0)
        zones, room.zones = room.zones, room.zones[:1]
        fits = room.fits(low, at, yaw)
        room.zones = zones
        if fits:
            table = room.add(low, at, yaw)
            on_top(
                room,
                pick(
                    rng,
                    props.bowl(rng, pick(rng, "white", "blue", "green")),
                    props.vase(rng, pick(rng, *PROP_COLORS)),
                ),
                table,
            )
            on_top(room, props.book_stack(rng), table)
        hang(room, props.picture(rng, (1.2, 0.6)), 1.6, near=couch)
    second = pick(rng, color, pick(rng, *SEAT_COLORS))
    for _ in range(pick(rng, 1, 2)):
        against_wall(room, seating.armchair(rng, second), 0.5, corner=True)
    for _ in range(pick(rng, 1, 2)):
        against_wall(room, storage.bookshelf(rng), 0.5)
    if min(room.outline.size) > 4.2:
        dining_group(room)
    clutter(room, ("lamp", "lamp", "plant", "plant", "ottoman", "box", "trash can"))
    wall_decoration(room, 3)


def dining_group(room: Room) -> None:
    """A table in the free part of the room, with chairs of one or two colours around it."""
    rng = room.rng
    if rng.random() < 0.3:
        item = storage.round_table(rng, float(rng.uniform(1.0, 1.25)))
    else:
        item = storage.table(rng, (float(rng.uniform(0.8, 0.95)), float(rng.uniform(1.3, 1.8)), 0.74))
    table = freely(room, item, 0.75)
    if table is None:
        return
    first = pick(rng, *SEAT_COLORS)
    colors = (first, first, pick(rng, *SEAT_COLORS))
    around(room, lambda: seating.chair(rng, pick(rng, *colors)), table, pick(rng, 4, 4, 6))
    on_top(
        room,
        pick(
            rng, props.bowl(rng, pick(rng, "white", "blue", "red")), props.vase(rng, pick(rng, *PROP_COLORS))
        ),
        table,
    )
    for _ in range(2):
        on_top(room, props.cup(rng, pick(rng, *PROP_COLORS)), table)


def meeting_room(room: Room) -> None:
    rng = room.rng
    table = freely(
        room, storage.table(rng, (float(rng.uniform(1.0, 1.2)), float(rng.uniform(2.0, 2.8)), 0.74)), 0.9
    )
    colors = [pick(rng, *SEAT_COLORS) for _ in range(2)]
    if table is not None:
        make = pick(rng, seating.office_chair, seating.chair)
        around(room, lambda: make(rng, pick(rng, colors[0], colors[0], colors[1])), table, 8)
        for _ in range(pick(rng, 2, 3)):
            on_top(room, props.laptop(rng), table, turn_rad=pick(rng, 0.0, math.pi))
            on_top(room, props.cup(rng, pick(rng, *PROP_COLORS)), table)
    hang(room, props.whiteboard(rng, 2.0), 1.5)
    shelf = against_wall(room, storage.tv_stand(rng), 0.6)
    if shelf is not None:
        on_top(room, props.tv(rng), shelf, (0.0, 0.0))
    against_wall(room, storage.bookshelf(rng), 0.5)
    against_wall(room, storage.cabinet(rng), 0.6)
    against_wall(room, seating.couch(rng, pick(rng, *SEAT_COLORS), 2), 0.6)
    clutter(room, ("plant", "plant", "trash can", "coat rack", "box", "trash can"))
    wall_decoration(room, 3)


def clutter(room: Room, names: tuple[str, ...]) -> None:
    """Small pieces along the walls; what does not fit is left out."""
    rng = room.rng
    make: dict[str, Callable[[], Item]] = {
        "trash can": lambda: props.trash_can(rng, pick(rng, *PROP_COLORS)),
        "plant": lambda: props.plant(rng, float(rng.uniform(0.8, 1.35))),
        "lamp": lambda: props.floor_lamp(rng, pick(rng, "white", "yellow", "beige", "orange")),
        "box": lambda: props.cardboard_box(rng, pick(rng, "brown", "brown", "blue", "white", "red")),
        "backpack": lambda: props.backpack(rng, pick(rng, *PROP_COLORS)),
        "ottoman": lambda: seating.ottoman(rng, pick(rng, *SEAT_COLORS)),
        "bench": lambda: seating.bench(rng, pick(rng, *SEAT_COLORS)),
        "coat rack": lambda: storage.coat_rack(rng),
    }
    for name in names:
        instance = against_wall(room, make[name](), gap_m=0.04, front_m=0.0, corner=rng.random() < 0.4)
        if name == "box" and instance is not None and rng.random() < 0.4:
            on_top(room, props.book_stack(rng), instance)


def wall_decoration(room: Room, pictures: int) -> None:
    rng = room.rng
    if rng.random() < 0.7:
        hang(room, props.clock(rng, pick(rng, *PROP_COLORS)), 1.95)
    for _ in range(pictures):
        hang(room, props.picture(rng), float(rng.uniform(1.5, 1.7)))
