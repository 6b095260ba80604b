"""How kitchens and bathrooms are furnished."""

from __future__ import annotations

import math

from pipeline.synth import fixtures, props, seating, storage
from pipeline.synth.arranging import against_wall, hang, lay_rug, on_top
from pipeline.synth.parts import pick, wood, wood_or_paint
from pipeline.synth.placing import Room
from pipeline.synth.props import PROP_COLORS
from pipeline.synth.rooms import clutter, dining_group, wall_decoration
from pipeline.synth.scene import Material
from pipeline.synth.seating import SEAT_COLORS


def kitchen(room: Room) -> None:
    rng = room.rng
    front = wood_or_paint(rng, "white", "blue", "green", "gray", "beige")
    top = pick(
        rng,
        Material("stone", (70, 70, 74), (150, 150, 150), seed=3),
        Material("stone", (206, 200, 190), (140, 130, 120), seed=5),
        wood("oak", rng),
    )
    kitchen_line(room, front, top)
    if (
        against_wall(
            room, fixtures.refrigerator(rng, pick(rng, "white", "gray", "red", "black")), 0.7, corner=True
        )
        is None
    ):
        against_wall(room, storage.cabinet(rng, (0.5, 0.8, 1.9)), 0.6)
    dining_group(room)
    side = against_wall(room, fixtures.counter(rng, 1.2, front, top), 0.7)
    if side is not None:
        on_top(room, fixtures.microwave(rng), side, (-0.08, 0.25))
        on_top(room, props.bowl(rng, pick(rng, "white", "red", "blue")), side)
    for _ in range(pick(rng, 1, 2)):
        against_wall(room, storage.cabinet(rng, (0.42, 0.9, 1.1)), 0.6)
    color = pick(rng, *SEAT_COLORS)
    for _ in range(pick(rng, 1, 2, 3)):
        against_wall(room, seating.stool(rng, color))
    clutter(room, ("trash can", "plant", "box", "bench", "trash can"))
    wall_decoration(room, 2)


def kitchen_line(room: Room, front: tuple[Material, str, str], top: Material) -> None:
    """Counter with sink beside a stove, wall cabinets above."""
    rng = room.rng
    for width in (2.4, 1.8, 1.2):
        counter = against_wall(room, fixtures.counter(rng, width, front, top), 0.8, gap_m=0.0)
        if counter is not None:
            break
    else:
        return
    on_top(room, fixtures.basin(rng, (0.38, 0.48), metal=True), counter, (0.03, -width / 4))
    on_top(room, props.cup(rng, pick(rng, *PROP_COLORS)), counter)
    on_top(room, props.vase(rng, pick(rng, *PROP_COLORS)), counter)
    x, y, yaw = room.origins[counter]
    c, s = math.cos(yaw), math.sin(yaw)
    for side in (1, -1):
        dy = side * (width / 2 + 0.32)
        at = (x - s * dy - c * 0.01, y + c * dy - s * 0.01, 0.0)
        oven = fixtures.stove(rng)
        if room.fits(oven, at, yaw, 0.7):
            room.stand(oven, at, yaw, 0.7)
            break
    hang(room, fixtures.wall_cabinet(rng, width, front), 1.45, near=counter)


def bathroom(room: Room) -> None:
    rng = room.rng
    for length in (1.7, 1.5):
        if against_wall(room, fixtures.bathtub(rng, length), 0.5, corner=True, gap_m=0.0) is not None:
            break
    sink = against_wall(room, fixtures.washstand(rng), 0.6)
    if sink is not None:
        hang(room, props.mirror(rng), 1.62, near=sink)
        x, y, yaw = room.origins[sink]
        lay_rug(
            room,
            props.rug(rng, pick(rng, *SEAT_COLORS), (0.55, 0.85), "mat"),
            (x + 0.62 * math.cos(yaw), y + 0.62 * math.sin(yaw)),
            yaw,
        )
    against_wall(room, fixtures.toilet(rng), 0.5)
    against_wall(room, storage.cabinet(rng, (0.36, 0.6, 1.5)), 0.5, corner=True)
    for _ in range(2):
        hang(room, fixtures.towel(rng, pick(rng, *SEAT_COLORS)), 1.35)
    against_wall(room, seating.stool(rng, pick(rng, *SEAT_COLORS)))
    clutter(room, ("trash can", "plant", "box"))
    wall_decoration(room, 1)
