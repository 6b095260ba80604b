"""What belongs to the building, the kitchen and the bathroom: doors, windows, curtains, counters, sinks …"""

from __future__ import annotations

import math

import numpy as np

from pipeline.synth.parts import (
    CHROME,
    DARK,
    STEEL,
    Item,
    ball,
    box,
    cylinder,
    fabric,
    move,
    paint,
    panel,
    pick,
    rounded,
    tilt,
    turn,
    wood,
    wood_or_paint,
)
from pipeline.synth.scene import COLORS, Material, Part
from pipeline.synth.storage import doors, drawers

RECESS_M = 0.14
"""Depth of window and door niches behind the wall's face."""
DOOR_SIZE = (0.94, 2.06)
CERAMIC = Material("plain", (236, 236, 232))


def door(rng: np.random.Generator) -> Item:
    """A closed leaf in its niche and the frame around it; x = 0 is the wall's face."""
    color = pick(rng, "white", "brown", "gray", "blue", "white", "brown")
    leaf = wood(pick(rng, "oak", "walnut", "cherry"), rng) if color == "brown" else paint(color, rng)
    trim = leaf if rng.random() < 0.4 else paint("white", rng)
    width, height = DOOR_SIZE
    parts = [
        panel(DARK, (width, height), (-0.0995, 0, height / 2), (1, 0, 0)),  # nothing is seen through the gaps
        box(DARK, (0.10, width, 0.003), (-0.05, 0, 0.0)),
        box(trim, (0.10, width, 0.02), (-0.05, 0, height - 0.02)),
        box(leaf, (0.045, width - 0.045, height - 0.03), (-0.055, 0, 0.006)),
    ]
    for low, tall in ((0.14, 0.62), (0.86, 1.06)):
        for y in (-0.2, 0.2):
            parts.append(rounded(leaf, (0.014, 0.30, tall), (-0.03, y, low), 0.006))
    for y in (-1, 1):
        parts.append(box(trim, (0.10, 0.02, height), (-0.05, y * (width / 2 - 0.01), 0)))
        parts.append(rounded(trim, (0.022, 0.08, height + 0.078), (0.011, y * (width / 2 + 0.038), 0), 0.005))
    parts.append(rounded(trim, (0.024, width + 0.156, 0.08), (0.012, 0, height), 0.005))
    handle = move(
        cylinder(CHROME, (0.02, 0.02, 0.06), (0, 0, -0.03)), turn("y", math.pi / 2), (0.0, 0.38, 1.02)
    )
    parts += [handle, box(CHROME, (0.016, 0.13, 0.018), (0.03, 0.33, 1.01))]
    return Item("door", color, "wood", tuple(parts))


def window(rng: np.random.Generator, size: tuple[float, float]) -> Item:
    """Frame, niche, sill and the view outside; x = 0 is the wall's face, z = 0 the lower edge of its hole."""
    width, height = size
    frame = pick(rng, paint("white", rng), paint("white", rng), wood("oak", rng))
    reveal = Material("plaster", (222, 220, 214), scale_m=0.5)
    view = Material("outdoor", (150, 190, 232), (84, 120, 66), height, int(rng.integers(1 << 16)), 1.5)
    deep = RECESS_M
    parts: list[Part] = [
        panel(view, (width, height), (-deep + 0.002, 0, height / 2), (1, 0, 0)),
        box(reveal, (deep, 0.012, height), (-deep / 2, -width / 2 + 0.006, 0)),
        box(reveal, (deep, 0.012, height), (-deep / 2, width / 2 - 0.006, 0)),
        box(reveal, (deep, width, 0.012), (-deep / 2, 0, height - 0.012)),
        rounded(frame, (deep + 0.10, width + 0.10, 0.03), (-deep / 2 + 0.05, 0, -0.015), 0.008),
    ]
    bars = max(1, round(width / 0.75))
    for k in range(bars + 1):
        y = -width / 2 + 0.03 + k * (width - 0.06) / bars
        parts.append(box(frame, (0.05, 0.055, height), (-deep + 0.045, y, 0)))
    for z in (0.015, height - 0.06):
        parts.append(box(frame, (0.048, width, 0.055), (-deep + 0.045, 0, z)))
    parts.append(box(frame, (0.046, width, 0.04), (-deep + 0.045, 0, height * 0.68)))
    return Item("window", "", "glass", tuple(parts))


def curtain(rng: np.random.Generator, color: str, size: tuple[float, float]) -> Item:
    """One hanging cloth, its back at x = 0, `size` wide and high from z = 0."""
    cloth = fabric(color, rng)
    drape = Part("drape", (0.02, size[0], size[1]), (0.045, 0, size[1] / 2), cloth, detail=(0.028, 0.12))
    return Item("curtain", color, "fabric", (drape,))


def radiator(rng: np.random.Generator, width_m: float) -> Item:
    metal = paint("white", rng)
    count = int(width_m / 0.07)
    parts = [
        rounded(metal, (0.07, 0.055, 0.50), (0.075, (k - (count - 1) / 2) * 0.07, 0.12), 0.012)
        for k in range(count)
    ]
    parts.append(box(metal, (0.03, width_m - 0.04, 0.04), (0.03, 0, 0.50)))
    parts += [box(metal, (0.05, 0.03, 0.14), (0.075, s * (width_m / 2 - 0.1), 0)) for s in (-1, 1)]
    return Item("radiator", "white", "metal", tuple(parts))


def ceiling_light(rng: np.random.Generator, style: str) -> Item:
    """Hangs from z = 0 downwards."""
    glow = Material("plain", (255, 248, 232), emission=1.25)
    if style == "panel":
        parts = (
            box(Material("plain", (232, 232, 230)), (0.62, 1.22, 0.03), (0, 0, -0.03)),
            box(glow, (0.56, 1.16, 0.006), (0, 0, -0.036)),
        )
    elif style == "globe":
        parts = (
            cylinder(CHROME, (0.14, 0.14, 0.03), (0, 0, -0.03)),
            ball(glow, (0.40, 0.40, 0.16), (0, 0, -0.09)),
        )
    else:
        cord, hood = (
            float(rng.uniform(0.5, 0.75)),
            paint(pick(rng, "black", "white", "red", "yellow", "green"), rng),
        )
        parts = (
            cylinder(DARK, (0.01, 0.01, cord), (0, 0, -cord)),
            cylinder(hood, (0.40, 0.40, 0.20), (0, 0, -cord - 0.2), 0.35),
            ball(glow, (0.13, 0.13, 0.1), (0, 0, -cord - 0.18)),
        )
    return Item("ceiling light", "white", "plastic", parts)


def counter(
    rng: np.random.Generator, width_m: float, front: tuple[Material, str, str], top: Material
) -> Item:
    """Kitchen base units under one worktop, against the wall at -x."""
    body, color, word = front
    depth, height = 0.60, 0.90
    parts = [
        box(DARK, (depth - 0.08, width_m, 0.10), (-0.03, 0, 0)),
        box(body, (depth - 0.03, width_m, height - 0.14), (-0.015, 0, 0.10)),
    ]
    parts.append(rounded(top, (depth + 0.02, width_m, 0.04), (0.01, 0, height - 0.04), 0.008))
    units = max(1, round(width_m / 0.6))
    step = width_m / units
    for k in range(units):
        y = (k - (units - 1) / 2) * step
        face = (depth / 2 - 0.03, y, 0.10)
        parts += (
            drawers(body, (step, 0.76), face, 3)
            if rng.random() < 0.4
            else doors(body, (step, 0.76), face, 2 if step > 0.55 else 1)
        )
    support = (-depth / 2 + 0.05, -width_m / 2 + 0.08, depth / 2 - 0.1, width_m / 2 - 0.08, height)
    return Item("kitchen counter", color, word, tuple(parts), supports=(support,))


def wall_cabinet(rng: np.random.Generator, width_m: float, front: tuple[Material, str, str]) -> Item:
    """Hangs on the wall at x = 0, from z = 0 up."""
    body, color, word = front
    parts = [
        box(body, (0.32, width_m, 0.68), (0.16, 0, 0)),
        *doors(body, (width_m, 0.68), (0.32, 0, 0), max(2, round(width_m / 0.5))),
    ]
    return Item("kitchen cabinet", color, word, tuple(parts))


def basin(rng: np.random.Generator, size: tuple[float, float], metal: bool) -> Item:
    """A sink that stands on a counter: a raised rim around a hollow, and a tap behind it."""
    glaze = Material("plain", (172, 174, 178)) if metal else CERAMIC
    depth, width = size
    rim, tall = 0.035, 0.05 if metal else 0.12
    parts = [rounded(glaze, (rim, width, tall), (s * (depth - rim) / 2, 0, 0), 0.01) for s in (-1, 1)]
    parts += [rounded(glaze, (depth, rim, tall), (0, s * (width - rim) / 2, 0), 0.01) for s in (-1, 1)]
    parts += [
        box(glaze, (depth - 0.03, width - 0.03, 0.012), (0, 0, 0)),
        cylinder(DARK, (0.04, 0.04, 0.002), (0, 0, 0.012)),
    ]
    parts += tap(-depth / 2 - 0.03, tall)
    return Item("sink", "gray" if metal else "white", "metal" if metal else "ceramic", tuple(parts))


def tap(x: float, z: float) -> list[Part]:
    spout = move(
        cylinder(CHROME, (0.022, 0.022, 0.16), (0, 0, -0.08)), turn("y", math.pi / 2), (x + 0.07, 0, z + 0.18)
    )
    return [
        cylinder(CHROME, (0.03, 0.03, z + 0.19), (x, 0, 0)),
        spout,
        cylinder(CHROME, (0.02, 0.02, 0.03), (x + 0.14, 0, z + 0.15)),
    ]


def washstand(rng: np.random.Generator) -> Item:
    """A bathroom sink on its cabinet, against the wall at -x."""
    body, _, _ = wood_or_paint(rng, "white", "gray")
    parts = [box(body, (0.44, 0.74, 0.70), (0, 0, 0.08)), *doors(body, (0.74, 0.68), (0.22, 0, 0.09), 2)]
    parts += [
        box(DARK, (0.40, 0.70, 0.08), (-0.01, 0, 0)),
        rounded(CERAMIC, (0.50, 0.80, 0.04), (0.01, 0, 0.78), 0.012),
    ]
    bowl = basin(rng, (0.34, 0.50), metal=False)
    parts += [move(part, np.eye(3), (0.05, 0, 0.82)) for part in bowl.parts]
    return Item("sink", "white", "ceramic", tuple(parts))


def stove(rng: np.random.Generator) -> Item:
    color = pick(rng, "white", "black", "gray")
    body, glass = paint(color, rng), Material("plain", (26, 26, 30))
    parts = [box(body, (0.58, 0.60, 0.88), (0, 0, 0)), box(glass, (0.56, 0.58, 0.02), (0, 0, 0.88))]
    ring = Material("plain", (92, 40, 36))
    parts += [
        cylinder(ring, (d, d, 0.003), (x, y, 0.90))
        for x, y, d in ((-0.13, -0.14, 0.15), (-0.13, 0.14, 0.19), (0.13, -0.14, 0.19), (0.13, 0.14, 0.15))
    ]
    parts += [
        box(glass, (0.012, 0.48, 0.34), (0.295, 0, 0.26)),
        box(STEEL, (0.03, 0.46, 0.02), (0.315, 0, 0.66)),
    ]
    for k in range(5):
        knob = move(
            cylinder(STEEL, (0.045, 0.045, 0.025), (0, 0, 0)),
            turn("y", math.pi / 2),
            (0.29, (k - 2) * 0.1, 0.79),
        )
        parts.append(knob)
    return Item("stove", color, "metal", tuple(parts))


def refrigerator(rng: np.random.Generator, color: str) -> Item:
    body = paint(color, rng)
    parts = [box(body, (0.62, 0.70, 1.76), (0, 0, 0.03)), box(DARK, (0.58, 0.66, 0.03), (0, 0, 0))]
    for z, tall in ((0.05, 1.10), (1.17, 0.60)):
        parts.append(rounded(body, (0.05, 0.69, tall), (0.335, 0, z), 0.015))
        parts.append(box(STEEL, (0.03, 0.025, min(0.5, tall * 0.6)), (0.375, 0.28, z + tall * 0.2)))
    return Item("refrigerator", color, "metal", tuple(parts), supports=((-0.25, -0.3, 0.2, 0.3, 1.79),))


def microwave(rng: np.random.Generator) -> Item:
    color = pick(rng, "black", "white", "gray")
    body, glass = paint(color, rng), Material("plain", (24, 24, 28))
    parts = (
        rounded(body, (0.34, 0.48, 0.27), (0, 0, 0.01), 0.01),
        box(glass, (0.008, 0.32, 0.20), (0.172, -0.05, 0.045)),
        box(STEEL, (0.02, 0.02, 0.2), (0.18, 0.13, 0.045)),
        box(DARK, (0.3, 0.44, 0.012), (0, 0, 0)),
    )
    return Item("microwave", color, "metal", parts)


def toilet(rng: np.random.Generator) -> Item:
    """Its tank against the wall at -x."""
    parts = (
        cylinder(CERAMIC, (0.34, 0.24, 0.38), (0.06, 0, 0), 1.25),
        rounded(CERAMIC, (0.20, 0.22, 0.36), (-0.18, 0, 0), 0.03),
        cylinder(CERAMIC, (0.47, 0.37, 0.04), (0.08, 0, 0.37), 0.97),
        cylinder(Material("plain", (246, 246, 244)), (0.45, 0.36, 0.025), (0.08, 0, 0.41), 0.96),
        rounded(CERAMIC, (0.19, 0.40, 0.36), (-0.24, 0, 0.40), 0.03),
        rounded(CERAMIC, (0.21, 0.42, 0.04), (-0.24, 0, 0.75), 0.012),
        cylinder(CHROME, (0.05, 0.05, 0.012), (-0.24, 0, 0.79)),
    )
    return Item("toilet", "white", "ceramic", parts)


def bathtub(rng: np.random.Generator, length_m: float) -> Item:
    """Its long side along y, against the wall at -x; filled with water."""
    width, height, rim = 0.76, 0.56, 0.075
    water = Material("plain", (150, 190, 196))
    parts = [rounded(CERAMIC, (rim, length_m, height), (s * (width - rim) / 2, 0, 0), 0.025) for s in (-1, 1)]
    parts += [
        rounded(CERAMIC, (width, rim * 1.6, height), (0, s * (length_m - rim * 1.6) / 2, 0), 0.025)
        for s in (-1, 1)
    ]
    parts += [box(water, (width - 0.1, length_m - 0.15, 0.30), (0, 0, 0.0))]
    parts += [move(part, turn("z", -math.pi / 2), (0, 0, 0)) for part in tap(-length_m / 2 + 0.05, height)]
    return Item("bathtub", "white", "ceramic", tuple(parts))


def towel(rng: np.random.Generator, color: str) -> Item:
    """On its bar, back at x = 0, its middle at z = 0."""
    bar = move(cylinder(CHROME, (0.018, 0.018, 0.6), (0, 0, -0.3)), turn("x", math.pi / 2), (0.06, 0, 0.28))
    hooks = [box(CHROME, (0.06, 0.015, 0.015), (0.03, s * 0.29, 0.272)) for s in (-1, 1)]
    cloth = rounded(fabric(color, rng), (0.035, 0.44, 0.60), (0.06, 0, -0.30), 0.016)
    return Item("towel", color, "fabric", (bar, *hooks, tilt(cloth, "y", 0)))


def doormat(rng: np.random.Generator) -> Item:
    color = pick(rng, "gray", "brown", "black", "green")
    mat = Material("carpet", COLORS[color], COLORS["black"], 0.05)
    return Item("mat", color, "fabric", (box(mat, (0.45, 0.72, 0.014), (0, 0, 0)),))
