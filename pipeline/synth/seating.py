"""Things to sit and lie on: chairs, office chairs, armchairs, couches, stools, beds, pillows."""

from __future__ import annotations

import math

import numpy as np

from pipeline.synth.meshing import bounds
from pipeline.synth.parts import (
    CHROME,
    DARK,
    Item,
    ball,
    box,
    cylinder,
    fabric,
    legs,
    move,
    paint,
    patterned,
    pick,
    rounded,
    tilt,
    turn,
    wood,
    wood_or_paint,
)
from pipeline.synth.scene import Part

SEAT_COLORS = (
    "red",
    "blue",
    "green",
    "gray",
    "black",
    "white",
    "orange",
    "yellow",
    "purple",
    "pink",
    "brown",
)


def chair(rng: np.random.Generator, color: str) -> Item:
    """A dining chair: wooden legs, coloured seat and back."""
    frame = wood(pick(rng, "oak", "beech", "walnut"), rng)
    cover = paint(color, rng)
    height = 0.45
    parts = legs(frame, (0.40, 0.40), height - 0.035, 0.035)
    parts.append(rounded(cover, (0.43, 0.43, 0.04), (0.0, 0.0, height - 0.04), 0.015))
    for y in (-0.18, 0.18):
        parts.append(tilt(box(frame, (0.03, 0.035, 0.46), (-0.215, y, height - 0.03)), "y", -5))
    if rng.random() < 0.5:
        parts.append(tilt(rounded(cover, (0.022, 0.38, 0.20), (-0.225, 0, height + 0.22), 0.01), "y", -5))
    else:
        for z in (0.12, 0.24, 0.36):
            parts.append(tilt(box(cover, (0.018, 0.34, 0.055), (-0.222, 0, height + z)), "y", -5))
    return Item("chair", color, "wood", tuple(parts))


def office_chair(rng: np.random.Generator, color: str) -> Item:
    cloth = fabric(color, rng)
    parts: list[Part] = []
    for k in range(5):
        angle = 2 * math.pi * k / 5
        spoke = box(DARK, (0.27, 0.045, 0.03), (0.15, 0.0, 0.065))
        wheel = move(
            cylinder(DARK, (0.055, 0.055, 0.04), (0.0, 0.0, -0.02)), turn("x", math.pi / 2), (0.28, 0, 0.03)
        )
        parts += [move(spoke, turn("z", angle), (0, 0, 0)), move(wheel, turn("z", angle), (0, 0, 0))]
    parts += [
        cylinder(CHROME, (0.05, 0.05, 0.33), (0, 0, 0.08)),
        box(DARK, (0.20, 0.24, 0.04), (-0.02, 0, 0.39)),
        rounded(cloth, (0.48, 0.50, 0.09), (0.02, 0, 0.42), 0.04),
        tilt(rounded(cloth, (0.08, 0.46, 0.54), (-0.25, 0, 0.56), 0.038), "y", -8),
        tilt(box(DARK, (0.025, 0.08, 0.30), (-0.27, 0, 0.40)), "y", -10),
    ]
    if rng.random() < 0.7:
        for y in (-0.28, 0.28):
            parts += [
                box(DARK, (0.04, 0.03, 0.22), (0.0, y, 0.44)),
                rounded(DARK, (0.24, 0.06, 0.03), (0.02, y, 0.66), 0.012),
            ]
    return Item("office chair", color, "fabric", tuple(parts))


def couch(rng: np.random.Generator, color: str, seats: int = 3, label: str = "couch") -> Item:
    """A couch of some seats; one seat makes an armchair."""
    cloth = fabric(color, rng)
    foot = wood("walnut", rng)
    seat_w, arm, depth = 0.62 if seats > 1 else 0.58, float(rng.uniform(0.14, 0.22)), 0.88
    width = seats * seat_w + 2 * arm
    base = 0.13
    parts = [
        cylinder(foot, (0.05, 0.05, base), (sx * (depth / 2 - 0.06), sy * (width / 2 - 0.07), 0), 1.1)
        for sx in (-1, 1)
        for sy in (-1, 1)
    ]
    parts.append(rounded(cloth, (depth, width - 0.02, 0.16), (0, 0, base), 0.03))
    back = rounded(cloth, (0.20, width - 0.04, 0.62), (-depth / 2 + 0.12, 0, base + 0.05), 0.07)
    parts.append(back)
    arm_height = float(rng.uniform(0.40, 0.48))
    for sy in (-1, 1):
        foot_at = (0.0, sy * (width - arm) / 2, base)
        parts.append(rounded(cloth, (depth, arm, arm_height), foot_at, min(0.06, arm / 2 - 0.005)))
    for k in range(seats):
        y = (k - (seats - 1) / 2) * seat_w
        parts.append(rounded(cloth, (0.66, seat_w - 0.012, 0.17), (0.10, y, base + 0.15), 0.05))
        cushion = rounded(cloth, (0.17, seat_w - 0.03, 0.42), (-0.20, y, base + 0.31), 0.07)
        parts.append(tilt(cushion, "y", -12))
    support = (0.02, -width / 2 + arm + 0.04, 0.34, width / 2 - arm - 0.04, base + 0.32)
    return Item(label, color, "fabric", tuple(parts), supports=(support,))


def armchair(rng: np.random.Generator, color: str) -> Item:
    return couch(rng, color, 1, "armchair")


def stool(rng: np.random.Generator, color: str) -> Item:
    height = float(rng.uniform(0.45, 0.65))
    parts = [
        tilt(
            tilt(cylinder(CHROME, (0.025, 0.025, height), (sx * 0.12, sy * 0.12, 0)), "x", sy * 6),
            "y",
            -sx * 6,
        )
        for sx in (-1, 1)
        for sy in (-1, 1)
    ]
    parts = [move(part, np.eye(3), (0, 0, 0.003)) for part in parts]
    parts.append(cylinder(paint(color, rng), (0.36, 0.36, 0.05), (0, 0, height - 0.01), 0.97))
    return Item("stool", color, "plastic", tuple(parts))


def ottoman(rng: np.random.Generator, color: str) -> Item:
    cloth = fabric(color, rng)
    if rng.random() < 0.5:
        return Item("ottoman", color, "fabric", (rounded(cloth, (0.5, 0.6, 0.4), (0, 0, 0), 0.06),))
    parts = (cylinder(cloth, (0.5, 0.5, 0.3), (0, 0, 0), 1.05), ball(cloth, (0.525, 0.525, 0.2), (0, 0, 0.3)))
    return Item("ottoman", color, "fabric", parts)


def bed(rng: np.random.Generator, color: str, width_m: float = 1.6) -> Item:
    """Its head at -x, against the wall; the colour is the blanket's."""
    frame, _, _ = wood_or_paint(rng, "white", "black")
    length, mattress = 2.02, paint("white", rng)
    cover = patterned(color, rng) if rng.random() < 0.5 else fabric(color, rng)
    parts = legs(frame, (length, width_m), 0.2, 0.07)
    headboard = float(rng.uniform(0.9, 1.15))
    parts += [
        box(frame, (length, width_m, 0.14), (0, 0, 0.16)),
        rounded(frame, (0.06, width_m + 0.04, headboard), (-length / 2 - 0.03, 0, 0), 0.015),
        rounded(mattress, (length - 0.04, width_m - 0.04, 0.22), (0, 0, 0.28), 0.05),
        rounded(cover, (length * 0.68, width_m + 0.05, 0.27), (length * 0.16 + 0.01, 0, 0.27), 0.05),
        rounded(mattress, (0.24, width_m + 0.03, 0.275), (-length * 0.22, 0, 0.27), 0.05),
    ]
    return Item(
        "bed", color, "fabric", tuple(parts), supports=((-0.92, -width_m / 2, -0.56, width_m / 2, 0.5),)
    )


def pillow(rng: np.random.Generator, color: str, upright: bool = False) -> Item:
    """Lying flat, or leaning against what is behind it."""
    cloth = patterned(color, rng) if rng.random() < 0.5 else fabric(color, rng)
    size = (0.40, float(rng.uniform(0.52, 0.64)), 0.17) if not upright else (0.44, 0.44, 0.17)
    lying = Part("ellipsoid", size, (0.0, 0.0, size[2] / 2), cloth, detail=(0.45,))
    if not upright:
        return Item("pillow", color, "fabric", (lying,))
    leaning = move(lying, turn("y", math.radians(72)), (0.0, 0.0, 0.0), lying.center)
    low = float(bounds((leaning,))[0][2])
    return Item("pillow", color, "fabric", (move(leaning, np.eye(3), (0.0, 0.0, -low)),))


def bench(rng: np.random.Generator, color: str) -> Item:
    frame = wood(pick(rng, "oak", "walnut"), rng)
    width = float(rng.uniform(1.0, 1.3))
    parts = legs(frame, (0.36, width), 0.40, 0.05)
    parts.append(rounded(frame, (0.40, width + 0.04, 0.04), (0, 0, 0.39), 0.01))
    parts.append(rounded(fabric(color, rng), (0.38, width, 0.05), (0, 0, 0.43), 0.022))
    return Item("bench", color, "fabric", tuple(parts))
