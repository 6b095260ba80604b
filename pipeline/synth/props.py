"""Small and hanging things: lamps, screens, plants, boxes, bins, pictures, rugs, clocks, vases."""

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
    jitter,
    move,
    paint,
    panel,
    pick,
    rounded,
    shade,
    tilt,
    turn,
    wood,
)
from pipeline.synth.scene import COLORS, Material, Part

PROP_COLORS = ("red", "blue", "green", "yellow", "white", "orange", "black", "purple", "pink", "gray")


def _glow(color: str, strength: float) -> Material:
    return Material("plain", COLORS[color], emission=strength)


def floor_lamp(rng: np.random.Generator, color: str) -> Item:
    pole = pick(rng, DARK, STEEL)
    parts = (
        cylinder(pole, (0.28, 0.28, 0.025), (0, 0, 0), 0.95),
        cylinder(pole, (0.025, 0.025, 1.35), (0, 0, 0.02)),
        cylinder(_glow(color, 0.5), (0.40, 0.40, 0.27), (0, 0, 1.30), 0.72),
    )
    return Item("lamp", color, "metal", parts, lights=((0, 0, 1.66, 0.9),))


def table_lamp(rng: np.random.Generator, color: str) -> Item:
    base = paint(pick(rng, "white", "blue", "green", "brown", "black"), rng)
    parts = (
        cylinder(base, (0.12, 0.12, 0.02), (0, 0, 0)),
        ball(base, (0.13, 0.13, 0.18), (0, 0, 0.105)),
        cylinder(CHROME, (0.02, 0.02, 0.10), (0, 0, 0.18)),
        cylinder(_glow(color, 0.5), (0.25, 0.25, 0.17), (0, 0, 0.24), 0.68),
    )
    return Item("lamp", color, "ceramic", parts, lights=((0, 0, 0.47, 0.35),))


def monitor(rng: np.random.Generator, width_m: float = 0.54) -> Item:
    height = width_m * 0.58
    screen = Material("screen", (30, 60, 120), (230, 230, 226), height, int(rng.integers(1 << 16)), 0.55)
    parts = (
        rounded(DARK, (0.20, 0.26, 0.015), (0, 0, 0), 0.005),
        box(DARK, (0.03, 0.06, 0.16), (-0.03, 0, 0.01)),
        rounded(DARK, (0.035, width_m, height), (0, 0, 0.11), 0.008),
        panel(screen, (width_m - 0.024, height - 0.024), (0.0185, 0, 0.11 + height / 2), (1, 0, 0)),
    )
    return Item("monitor", "black", "plastic", parts)


def tv(rng: np.random.Generator) -> Item:
    item = monitor(rng, float(rng.uniform(0.95, 1.25)))
    return Item("tv", item.color, item.material, item.parts)


def keyboard(rng: np.random.Generator) -> Item:
    color = pick(rng, "black", "white")
    keys = Material("keys", COLORS[color], shade(COLORS[color], 0.6 if color == "white" else 1.9), 0.019)
    return Item("keyboard", color, "plastic", (rounded(keys, (0.14, 0.44, 0.022), (0, 0, 0), 0.005),))


def laptop(rng: np.random.Generator) -> Item:
    keys = Material("keys", (60, 60, 64), (30, 30, 32), 0.019)
    screen = Material("screen", (40, 90, 140), (235, 235, 230), 0.21, int(rng.integers(1 << 16)), 0.55)
    lid = (
        rounded(STEEL, (0.012, 0.34, 0.23), (-0.12, 0, 0.012), 0.004),
        panel(screen, (0.32, 0.21), (-0.1135, 0, 0.127), (1, 0, 0)),
    )
    lean = turn("y", math.radians(-18))
    parts = [
        rounded(STEEL, (0.24, 0.34, 0.018), (0, 0, 0), 0.005),
        box(keys, (0.11, 0.30, 0.003), (-0.04, 0, 0.018)),
    ]
    parts += [move(part, lean, (0, 0, 0), (-0.12, 0, 0.015)) for part in lid]
    return Item("laptop", "gray", "metal", tuple(parts))


def trash_can(rng: np.random.Generator, color: str) -> Item:
    body, inside = paint(color, rng), Material("plain", (24, 24, 26))
    if rng.random() < 0.5:
        size = float(rng.uniform(0.24, 0.30))
        parts = [
            cylinder(body, (size, size, size * 1.25), (0, 0, 0), 1.15),
            cylinder(inside, (size * 1.08, size * 1.08, 0.004), (0, 0, size * 1.25)),
        ]
    else:
        parts = [
            rounded(body, (0.24, 0.34, 0.46), (0, 0, 0), 0.03),
            rounded(DARK, (0.25, 0.35, 0.07), (0, 0, 0.44), 0.03),
        ]
    return Item("trash can", color, "plastic", tuple(parts))


def picture(rng: np.random.Generator, size: tuple[float, float] | None = None) -> Item:
    """Its back at x = 0, its middle at z = 0."""
    width, height = size or pick(rng, (0.7, 0.5), (0.5, 0.7), (0.9, 0.6), (0.45, 0.45), (1.2, 0.5))
    frame = pick(rng, wood("walnut", rng), wood("oak", rng), DARK, paint("white", rng))
    color = pick(rng, "red", "blue", "green", "yellow", "orange", "purple")
    other = pick(rng, *(c for c in PROP_COLORS if c not in (color, "black", "gray")))
    art = Material(
        "picture", jitter(COLORS[color], rng), jitter(COLORS[other], rng), height, int(rng.integers(1 << 16))
    )
    mat = Material("plain", (236, 234, 228))
    parts = (
        rounded(frame, (0.025, width, height), (0.0125, 0, -height / 2), 0.006),
        panel(mat, (width - 0.06, height - 0.06), (0.0255, 0, 0), (1, 0, 0)),
        panel(art, (width - 0.16, height - 0.16), (0.0265, 0, 0), (1, 0, 0)),
    )
    return Item("picture", color, "paper", parts)


def mirror(rng: np.random.Generator) -> Item:
    glass = Material("mirror", (196, 208, 214), (232, 238, 240), 0.5)
    frame = pick(rng, wood("oak", rng), DARK, CHROME)
    parts = (
        rounded(frame, (0.03, 0.62, 0.84), (0.015, 0, -0.42), 0.008),
        panel(glass, (0.56, 0.78), (0.0305, 0, 0), (1, 0, 0)),
    )
    return Item("mirror", "", "glass", parts)


def whiteboard(rng: np.random.Generator, width_m: float) -> Item:
    board = Material(
        "scribble",
        (238, 239, 240),
        COLORS[pick(rng, "blue", "black", "red", "green")],
        1.1,
        int(rng.integers(1 << 16)),
    )
    parts = (
        box(STEEL, (0.025, width_m, 1.15), (0.0125, 0, -0.575)),
        panel(board, (width_m - 0.05, 1.10), (0.0255, 0, 0), (1, 0, 0)),
        box(STEEL, (0.06, width_m * 0.5, 0.015), (0.03, 0, -0.575)),
    )
    return Item("whiteboard", "white", "metal", parts)


def clock(rng: np.random.Generator, color: str) -> Item:
    face = Material("clock", (240, 240, 236), (24, 24, 26), 0.27, int(rng.integers(1 << 16)))
    ring = move(
        cylinder(paint(color, rng), (0.32, 0.32, 0.035), (0, 0, 0)), turn("y", math.pi / 2), (0, 0, 0)
    )
    dial = panel(face, (0.27 * 0.7071, 0.27 * 0.7071), (0.036, 0, 0), (1, 0, 0))
    return Item("clock", color, "plastic", (ring, dial))


def rug(rng: np.random.Generator, color: str, size: tuple[float, float], label: str = "rug") -> Item:
    other = pick(rng, *(c for c in ("beige", "white", "blue", "red", "gray", "orange") if c != color))
    pile = Material(
        "rug", jitter(COLORS[color], rng), jitter(COLORS[other], rng), min(size), int(rng.integers(1 << 16))
    )
    plain = Material("carpet", pile.color, scale_m=0.05)
    parts = [box(plain, (size[0], size[1], 0.012), (0, 0, 0))]
    edge = 0.05 * min(size)
    for inset, material in (
        (edge, Material("carpet", pile.second, scale_m=0.05)),
        (1.5 * edge, plain),
        (2.2 * edge, pile),
    ):
        level = 0.0125 + 0.0004 * len(parts)
        parts.append(Part("panel", (size[0] - 2 * inset, size[1] - 2 * inset, 0.0), (0, 0, level), material))
    return Item(label, color, "fabric", tuple(parts))


def plant(rng: np.random.Generator, height_m: float = 1.0) -> Item:
    """Leaves on stems in a pot; its colour word is the leaves'."""
    pot_color = pick(rng, "white", "brown", "gray", "blue", "orange")
    wide = 0.30 if height_m > 0.5 else 0.13
    pot = cylinder(paint(pot_color, rng), (wide * 0.75, wide * 0.75, wide), (0, 0, 0), 1.33)
    soil = cylinder(Material("plain", (58, 42, 32)), (wide * 0.92, wide * 0.92, 0.006), (0, 0, wide))
    green = (jitter((64, 118, 56), rng, 14), jitter((88, 140, 66), rng, 14), jitter((44, 92, 50), rng, 10))
    stem = Material("plain", (96, 84, 50))
    parts = [pot, soil]
    count = int(rng.integers(22, 34)) if height_m > 0.5 else int(rng.integers(9, 14))
    reach = (height_m - wide) * 0.75
    for k in range(count):
        turn_z, rise = k * 2.39996, 0.25 + 0.75 * (k + 0.5) / count
        lean = (1.05 - 0.8 * rise) * float(rng.uniform(0.8, 1.15))
        length = reach * float(rng.uniform(0.42, 0.6))
        z = wide + (height_m - wide) * rise * 0.55
        leaf = ball(
            Material("leaf", green[k % 3], shade(green[k % 3], 0.75), length),
            (length, length * 0.34, 0.016),
            (length / 2 + 0.03, 0, 0),
        )
        leaf = move(leaf, turn("y", -(math.pi / 2 - lean)), (0, 0, z))
        parts.append(move(leaf, turn("z", turn_z), (0, 0, 0)))
    parts.append(cylinder(stem, (0.035, 0.035, (height_m - wide) * 0.6), (0, 0, wide), 0.5))
    return Item("plant", "green", "", tuple(parts))


def cardboard_box(rng: np.random.Generator, color: str = "brown") -> Item:
    size = tuple(float(v) for v in rng.uniform((0.28, 0.32, 0.22), (0.42, 0.55, 0.42)))
    rgb = jitter((172, 132, 88), rng) if color == "brown" else jitter(COLORS[color], rng)
    card = Material("carton", rgb, shade(rgb, 0.82), 0.05, int(rng.integers(1 << 16)))
    tape = Material("plain", shade(rgb, 1.18))
    parts = (
        box(card, size, (0, 0, 0)),
        box(tape, (0.05, size[1] + 0.002, size[2] * 0.0 + 0.002), (0, 0, size[2])),
    )
    return Item("box", color, "paper", parts, supports=((-0.1, -0.12, 0.1, 0.12, size[2] + 0.002),))


def book_stack(rng: np.random.Generator) -> Item:
    parts, z = [], 0.0
    colors = [pick(rng, *PROP_COLORS) for _ in range(int(rng.integers(2, 6)))]
    for color in colors:
        size = (
            float(rng.uniform(0.20, 0.27)),
            float(rng.uniform(0.15, 0.19)),
            float(rng.uniform(0.02, 0.045)),
        )
        cover = paint(color, rng)
        page = Material("plain", (228, 222, 206))
        stack = [
            box(cover, size, (0, 0, z)),
            box(page, (size[0] - 0.01, size[1] + 0.002, size[2] - 0.008), (0.0, 0.0, z + 0.004)),
        ]
        angle = turn("z", float(rng.uniform(-0.35, 0.35)))
        parts += [move(part, angle, (0, 0, 0)) for part in stack]
        z += size[2] + 0.0005
    return Item("books", colors[-1], "paper", tuple(parts))


def vase(rng: np.random.Generator, color: str) -> Item:
    clay = paint(color, rng)
    parts = [
        cylinder(clay, (0.09, 0.09, 0.14), (0, 0, 0), 1.55),
        cylinder(clay, (0.14, 0.14, 0.09), (0, 0, 0.14), 0.5),
        cylinder(clay, (0.07, 0.07, 0.03), (0, 0, 0.23), 1.25),
    ]
    blossom = paint(pick(rng, "red", "yellow", "pink", "purple", "white"), rng)
    green = Material("plain", (76, 116, 60))
    for k in range(7):
        stalk = cylinder(green, (0.007, 0.007, 0.2), (0, 0, 0.25))
        flower = ball(blossom, (0.055, 0.055, 0.045), (0, 0, 0.46))
        lean = turn("z", k * 0.9) @ turn("y", math.radians(6 + 4 * k))
        parts += [move(part, lean, (0, 0, 0), (0, 0, 0.24)) for part in (stalk, flower)]
    return Item("vase", color, "ceramic", tuple(parts))


def cup(rng: np.random.Generator, color: str) -> Item:
    glaze = paint(color, rng)
    coffee = Material("plain", (66, 44, 30))
    parts = (
        cylinder(glaze, (0.075, 0.075, 0.095), (0, 0, 0), 1.08),
        cylinder(coffee, (0.07, 0.07, 0.002), (0, 0, 0.095)),
        box(glaze, (0.012, 0.03, 0.05), (0, 0.05, 0.025)),
    )
    return Item("cup", color, "ceramic", parts)


def bowl(rng: np.random.Generator, color: str) -> Item:
    """A bowl of fruit."""
    parts = [cylinder(paint(color, rng), (0.12, 0.12, 0.09), (0, 0, 0), 2.2)]
    for k in range(7):
        fruit = Material("plain", jitter(COLORS[pick(rng, "orange", "red", "yellow", "green")], rng))
        angle, reach = k * 1.05, 0.0 if k == 6 else 0.075
        parts.append(
            ball(
                fruit,
                (0.075, 0.075, 0.075),
                (reach * math.cos(angle), reach * math.sin(angle), 0.105 + (0.03 if k == 6 else 0)),
            )
        )
    return Item("bowl", color, "ceramic", tuple(parts))


def backpack(rng: np.random.Generator, color: str) -> Item:
    cloth = fabric(color, rng)
    parts = (
        rounded(cloth, (0.20, 0.32, 0.44), (0, 0, 0), 0.08),
        rounded(cloth, (0.10, 0.25, 0.22), (0.12, 0, 0.04), 0.045),
        tilt(box(DARK, (0.01, 0.05, 0.36), (-0.105, 0.09, 0.05)), "y", 3),
        tilt(box(DARK, (0.01, 0.05, 0.36), (-0.105, -0.09, 0.05)), "y", 3),
    )
    return Item("backpack", color, "fabric", parts)
