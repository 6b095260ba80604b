"""Tables and case furniture: tables, desks, night stands, dressers, cabinets, bookshelves, TV stands."""

from __future__ import annotations

import numpy as np

from pipeline.synth.parts import (
    CHROME,
    DARK,
    STEEL,
    Item,
    box,
    cylinder,
    jitter,
    legs,
    paint,
    pick,
    rounded,
    tilt,
    wood,
    wood_or_paint,
)
from pipeline.synth.scene import COLORS, Material, Part, Vec3


def table(rng: np.random.Generator, size: Vec3 = (0.9, 1.5, 0.74), label: str = "table") -> Item:
    top, color, word = wood_or_paint(rng, "white", "black", "white")
    depth, width, height = size
    frame = pick(rng, top, DARK, STEEL)
    parts = [rounded(top, (depth, width, 0.04), (0, 0, height - 0.04), 0.01)]
    parts += legs(frame, (depth - 0.08, width - 0.08), height - 0.04, 0.06 if height > 0.5 else 0.05)
    for x in (-1, 1):
        parts.append(box(frame, (0.02, width - 0.16, 0.07), (x * (depth / 2 - 0.07), 0, height - 0.11)))
    inset = 0.06
    support = (-depth / 2 + inset, -width / 2 + inset, depth / 2 - inset, width / 2 - inset, height)
    return Item(label, color, word, tuple(parts), supports=(support,))


def round_table(
    rng: np.random.Generator, diameter_m: float = 1.1, height_m: float = 0.74, label: str = "table"
) -> Item:
    top, color, word = wood_or_paint(rng, "white", "black")
    parts = (
        cylinder(top, (diameter_m * 0.98, diameter_m * 0.98, 0.035), (0, 0, height_m - 0.035), 1.02),
        cylinder(pick(rng, top, DARK, CHROME), (0.09, 0.09, height_m - 0.05), (0, 0, 0.02), 0.8),
        cylinder(DARK, (diameter_m * 0.5, diameter_m * 0.5, 0.03), (0, 0, 0), 0.9),
    )
    half = diameter_m * 0.32
    return Item(label, color, word, parts, supports=((-half, -half, half, half, height_m),))


def coffee_table(rng: np.random.Generator) -> Item:
    if rng.random() < 0.35:
        return round_table(rng, float(rng.uniform(0.7, 0.9)), 0.40, "coffee table")
    item = table(rng, (float(rng.uniform(0.5, 0.6)), float(rng.uniform(0.9, 1.2)), 0.42), "coffee table")
    shelf = box(item.parts[0].material, (0.42, 0.78, 0.02), (0, 0, 0.12))
    return Item(item.label, item.color, item.material, (*item.parts, shelf), item.supports)


def drawers(
    front: Material, size: tuple[float, float], foot: Vec3, rows: int, columns: int = 1
) -> list[Part]:
    """Drawer fronts with knobs on a face that looks towards +x; `size` is its width and height."""
    width, height = size[0] / columns, size[1] / rows
    parts = []
    for row in range(rows):
        for column in range(columns):
            y = foot[1] + (column - (columns - 1) / 2) * width
            z = foot[2] + row * height
            parts.append(
                rounded(front, (0.02, width - 0.014, height - 0.014), (foot[0] + 0.01, y, z + 0.007), 0.005)
            )
            parts.append(
                box(STEEL, (0.022, min(0.12, width * 0.35), 0.014), (foot[0] + 0.03, y, z + height * 0.55))
            )
    return parts


def doors(front: Material, size: tuple[float, float], foot: Vec3, count: int) -> list[Part]:
    """Door fronts with upright handles on a face that looks towards +x."""
    width = size[0] / count
    parts = []
    for k in range(count):
        y = foot[1] + (k - (count - 1) / 2) * width
        grip = y + (0.5 - k % 2) * 2 * (width / 2 - 0.05) if count > 1 else y + width / 2 - 0.05
        parts.append(
            rounded(
                front, (0.02, width - 0.012, size[1] - 0.012), (foot[0] + 0.01, y, foot[2] + 0.006), 0.005
            )
        )
        handle = (foot[0] + 0.03, grip, foot[2] + size[1] * 0.5 - 0.07)
        parts.append(box(STEEL, (0.022, 0.016, 0.14), handle))
    return parts


def desk(rng: np.random.Generator, width_m: float = 1.4) -> Item:
    top, color, word = wood_or_paint(rng, "white", "black")
    depth, height = 0.68, 0.74
    frame = pick(rng, DARK, STEEL, top)
    parts = [rounded(top, (depth, width_m, 0.035), (0, 0, height - 0.035), 0.008)]
    side = pick(rng, -1, 1)
    pedestal = (0.0, side * (width_m / 2 - 0.23), 0.06)
    parts.append(box(top, (depth - 0.1, 0.40, height - 0.10), pedestal))
    parts.append(box(DARK, (depth - 0.14, 0.36, 0.06), (0.0, pedestal[1], 0.0)))
    parts += drawers(top, (0.40, height - 0.10), (depth / 2 - 0.05, pedestal[1], 0.06), 3)
    for x in (-1, 1):
        parts.append(
            box(
                frame, (0.05, 0.05, height - 0.035), (x * (depth / 2 - 0.06), -side * (width_m / 2 - 0.05), 0)
            )
        )
    parts.append(box(frame, (0.018, width_m - 0.5, 0.32), (-depth / 2 + 0.05, -side * 0.2, height - 0.36)))
    support = (-depth / 2 + 0.04, -width_m / 2 + 0.05, depth / 2 - 0.05, width_m / 2 - 0.05, height)
    return Item("desk", color, word, tuple(parts), supports=(support,))


def nightstand(rng: np.random.Generator, surface: tuple[Material, str, str]) -> Item:
    body, color, word = surface
    parts = legs(body, (0.38, 0.44), 0.14, 0.04)
    parts.append(box(body, (0.38, 0.44, 0.38), (0, 0, 0.13)))
    parts.append(rounded(body, (0.42, 0.48, 0.025), (0, 0, 0.51), 0.008))
    parts += drawers(body, (0.42, 0.36), (0.19, 0, 0.14), 2)
    return Item("nightstand", color, word, tuple(parts), supports=((-0.16, -0.19, 0.16, 0.19, 0.535),))


def dresser(rng: np.random.Generator) -> Item:
    body, color, word = wood_or_paint(rng, "white", "gray")
    width, height = float(rng.uniform(1.0, 1.4)), float(rng.uniform(0.78, 0.95))
    parts = [
        box(DARK, (0.38, width - 0.06, 0.07), (-0.02, 0, 0)),
        box(body, (0.44, width, height - 0.09), (0, 0, 0.06)),
        rounded(body, (0.48, width + 0.03, 0.03), (0.005, 0, height - 0.03), 0.008),
    ]
    parts += drawers(body, (width, height - 0.11), (0.22, 0, 0.07), 3, 2)
    support = (-0.18, -width / 2 + 0.05, 0.18, width / 2 - 0.05, height)
    return Item("dresser", color, word, tuple(parts), supports=(support,))


def cabinet(rng: np.random.Generator, size: Vec3 | None = None, label: str = "cabinet") -> Item:
    """Tall, with doors: a wardrobe or an office cupboard."""
    body, color, word = wood_or_paint(rng, "white", "gray", "beige")
    depth, width, height = size or (0.55, float(rng.uniform(0.9, 1.5)), float(rng.uniform(1.7, 2.05)))
    count = 2 if width < 1.15 else 3
    parts = [
        box(DARK, (depth - 0.06, width - 0.04, 0.08), (-0.01, 0, 0)),
        box(body, (depth, width, height - 0.08), (0, 0, 0.07)),
        rounded(body, (depth + 0.05, width + 0.03, 0.03), (0.01, 0, height - 0.03), 0.008),
    ]
    parts += doors(body, (width, height - 0.12), (depth / 2, 0, 0.08), count)
    support = (-depth / 2 + 0.05, -width / 2 + 0.05, depth / 2 - 0.05, width / 2 - 0.05, height)
    return Item(label, color, word, tuple(parts), supports=(support,))


def file_cabinet(rng: np.random.Generator, color: str) -> Item:
    body = paint(color, rng)
    rows = pick(rng, 2, 3, 4)
    height = 0.05 + 0.32 * rows
    parts = [
        box(body, (0.58, 0.44, height), (0, 0, 0)),
        *drawers(body, (0.44, height - 0.06), (0.29, 0, 0.04), rows),
    ]
    return Item("file cabinet", color, "metal", tuple(parts), supports=((-0.2, -0.16, 0.2, 0.16, height),))


def books(rng: np.random.Generator, span_m: float, room: tuple[float, float], foot: Vec3) -> list[Part]:
    """A row of upright books along y, at most `room` = (depth, height) big, from foot towards +y."""
    parts: list[Part] = []
    y = 0.0
    while True:
        thick = float(rng.uniform(0.018, 0.05))
        if y + thick > span_m:
            return parts
        height = room[1] * float(rng.uniform(0.62, 0.92))
        depth = room[0] * float(rng.uniform(0.65, 0.9))
        color = pick(rng, *COLORS)
        cover = Material(
            "spine",
            jitter(COLORS[color], rng, 18),
            COLORS[pick(rng, "white", "yellow", "black")],
            height,
            int(rng.integers(1 << 16)),
        )
        at = (foot[0] + depth / 2, foot[1] + y + thick / 2, foot[2])
        parts.append(box(cover, (depth, thick * 0.96, height), at))
        y += thick
        if rng.random() < 0.06:
            y += float(rng.uniform(0.03, 0.12))


def bookshelf(
    rng: np.random.Generator, width_m: float | None = None, filled: float = 0.85, label: str = "bookshelf"
) -> Item:
    """Open shelves with books and a few boxes and vases; the books belong to it."""
    body, color, word = wood_or_paint(rng, "white", "black")
    width = width_m or float(rng.uniform(0.8, 1.2))
    rows = pick(rng, 4, 5, 5) if label == "bookshelf" else 3
    depth, pitch, thick = 0.30, 0.36, 0.022
    height = 0.07 + rows * pitch + thick
    parts = [box(body, (depth, thick, height), (0, s * (width - thick) / 2, 0)) for s in (-1, 1)]
    parts.append(box(body, (0.01, width - 2 * thick, height - 0.02), (-depth / 2 + 0.005, 0, 0.01)))
    inside = width - 2 * thick
    for row in range(rows + 1):
        z = 0.07 + row * pitch
        parts.append(box(body, (depth - 0.006, inside, thick), (0.0, 0, z)))
        if row == rows:
            continue
        y, end = -inside / 2 + 0.01, inside / 2 - 0.01
        while y < end - 0.12:
            span = min(end - y, float(rng.uniform(0.2, 0.6)))
            at = (-depth / 2 + 0.015, y, z + thick)
            roll = rng.random()
            if roll < filled:
                parts += books(rng, span, (0.26, pitch - thick - 0.02), at)
            elif roll < filled + 0.08:
                parts += _shelf_thing(rng, (at[0] + 0.13, y + span / 2, at[2]))
            y += span + 0.02
    support = (-depth / 2 + 0.04, -width / 2 + 0.06, depth / 2 - 0.04, width / 2 - 0.06, height)
    return Item(label, color, word, tuple(parts), supports=(support,))


def _shelf_thing(rng: np.random.Generator, foot: Vec3) -> list[Part]:
    color = paint(pick(rng, "white", "blue", "orange", "green", "red"), rng)
    if rng.random() < 0.5:
        return [
            cylinder(color, (0.09, 0.09, 0.12), foot, 1.3),
            cylinder(color, (0.117, 0.117, 0.08), (foot[0], foot[1], foot[2] + 0.12), 0.5),
        ]
    return [box(color, (0.18, 0.16, 0.15), foot)]


def tv_stand(rng: np.random.Generator) -> Item:
    body, color, word = wood_or_paint(rng, "white", "black")
    width = float(rng.uniform(1.2, 1.6))
    parts = legs(body, (0.36, width - 0.06), 0.10, 0.04)
    parts += [box(body, (0.40, width, 0.36), (0, 0, 0.09)), *doors(body, (width, 0.34), (0.20, 0, 0.10), 3)]
    return Item(
        "tv stand",
        color,
        word,
        tuple(parts),
        supports=((-0.15, -width / 2 + 0.05, 0.15, width / 2 - 0.05, 0.45),),
    )


def coat_rack(rng: np.random.Generator) -> Item:
    """A free-standing coat rack."""
    pole = wood(pick(rng, "oak", "walnut"), rng)
    parts = [
        cylinder(pole, (0.40, 0.40, 0.03), (0, 0, 0), 0.9),
        cylinder(pole, (0.045, 0.045, 1.7), (0, 0, 0.02)),
    ]
    for k in range(4):
        hook = tilt(box(pole, (0.02, 0.22, 0.02), (0.0, 0.0, 1.55 + 0.02 * k)), "x", 25)
        parts.append(tilt(hook, "z", 90 * k))
    return Item("coat rack", "brown", "wood", tuple(parts))
