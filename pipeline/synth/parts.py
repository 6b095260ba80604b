"""Building blocks of furniture: materials by name, primitives placed by their foot, and how parts move.

An `Item` is a piece of furniture in its own frame: front towards +x, standing on z = 0 around the origin
(wall-mounted ones have their back at x = 0).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from pipeline.synth.meshing import bounds
from pipeline.synth.scene import COLORS, Material, Part, Vec3

WOODS = {
    "oak": (186, 144, 98),
    "beech": (206, 170, 126),
    "walnut": (104, 68, 44),
    "cherry": (138, 78, 48),
    "ebony": (58, 44, 38),
}
STEEL = Material("plain", (150, 152, 156))
CHROME = Material("plain", (186, 188, 192))
DARK = Material("plain", (42, 42, 46))


@dataclass(frozen=True)
class Item:
    label: str
    color: str
    material: str
    parts: tuple[Part, ...]
    supports: tuple[tuple[float, float, float, float, float], ...] = ()
    """Level places where small things can stand: x0, y0, x1, y1, z in the item's frame."""
    lights: tuple[tuple[float, float, float, float], ...] = ()
    """Lamps: x, y, z and strength."""

    @cached_property
    def _bounds(self) -> tuple[Vec3, Vec3]:
        low, high = bounds(self.parts)
        return tuple(map(float, low)), tuple(map(float, high))

    @property
    def low(self) -> Vec3:
        """Smallest x, y, z over the mesh."""
        return self._bounds[0]

    @property
    def high(self) -> Vec3:
        """Largest x, y, z over the mesh."""
        return self._bounds[1]


def jitter(rgb: tuple[int, int, int], rng: np.random.Generator, spread: int = 10) -> tuple[int, int, int]:
    """The colour, a little lighter or darker and a little off in each channel."""
    shift = rng.integers(-spread, spread + 1) + rng.integers(-4, 5, 3)
    return tuple(int(v) for v in np.clip(np.array(rgb) + shift, 12, 244))


def pick(rng: np.random.Generator, *choices):
    """One of the choices."""
    return choices[int(rng.integers(len(choices)))]


def paint(color: str, rng: np.random.Generator) -> Material:
    """Lacquer, plastic or painted wood."""
    return Material("plain", jitter(COLORS[color], rng))


def fabric(color: str, rng: np.random.Generator) -> Material:
    """Woven cloth; now and then striped or checked."""
    base = jitter(COLORS[color], rng)
    return Material("fabric", base, shade(base, 0.8), 0.007, seed=int(rng.integers(1 << 16)))


def patterned(color: str, rng: np.random.Generator) -> Material:
    """Cloth with a pattern in two colours, the first of which covers most of it."""
    base = jitter(COLORS[color], rng)
    other = COLORS["white"] if sum(base) < 480 else shade(base, 0.55)
    kind = pick(rng, "stripes", "checks", "dots", "fabric", "zigzag")
    return Material(kind, base, other, float(rng.uniform(0.06, 0.12)), seed=int(rng.integers(1 << 16)))


def wood(tone: str, rng: np.random.Generator) -> Material:
    base = jitter(WOODS[tone], rng, 8)
    return Material("wood", base, shade(base, 0.72), 0.05, seed=int(rng.integers(1 << 16)))


def wood_or_paint(rng: np.random.Generator, *paints: str) -> tuple[Material, str, str]:
    """A surface for case furniture: (material, colour word, material word)."""
    if rng.random() < 0.6 or not paints:
        tone = pick(rng, "oak", "beech", "walnut", "cherry")
        return wood(tone, rng), "beige" if tone == "beech" else "brown", "wood"
    color = pick(rng, *paints)
    return paint(color, rng), color, "wood"


def shade(rgb: tuple[int, int, int], factor: float) -> tuple[int, int, int]:
    return tuple(int(min(250, v * factor)) for v in rgb)


def box(material: Material, size: Vec3, foot: Vec3) -> Part:
    """`foot`: the middle of the lower side."""
    return Part("box", size, (foot[0], foot[1], foot[2] + size[2] / 2), material)


def rounded(material: Material, size: Vec3, foot: Vec3, radius_m: float = 0.012) -> Part:
    center = (foot[0], foot[1], foot[2] + size[2] / 2)
    return Part("rounded", size, center, material, detail=(radius_m,))


def cylinder(material: Material, size: Vec3, foot: Vec3, taper: float = 1.0) -> Part:
    """`size`: lower diameters along x and y, height."""
    center = (foot[0], foot[1], foot[2] + size[2] / 2)
    return Part("cylinder", size, center, material, detail=(taper,))


def ball(material: Material, size: Vec3, center: Vec3) -> Part:
    return Part("ellipsoid", size, center, material)


def panel(material: Material, size: tuple[float, float], center: Vec3, facing: Vec3) -> Part:
    """A flat face without a back, `size` wide and high, upright, that looks along the level `facing`."""
    x = (-facing[1], facing[0], 0.0)
    rotation = (x[0], 0.0, facing[0], x[1], 0.0, facing[1], 0.0, 1.0, 0.0)
    return Part("panel", (size[0], size[1], 0.0), center, material, rotation)


def turn(axis: str, angle_rad: float) -> np.ndarray:
    """(3, 3) rotation about x, y or z."""
    c, s = math.cos(angle_rad), math.sin(angle_rad)
    i, j = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    matrix = np.eye(3)
    matrix[i, i] = matrix[j, j] = c
    matrix[i, j], matrix[j, i] = -s, s
    return matrix


def move(part: Part, rotation: np.ndarray, offset: Vec3, pivot: Vec3 = (0.0, 0.0, 0.0)) -> Part:
    """The part turned about `pivot`, then shifted; right angles stay exact."""
    rotation = np.where(np.abs(rotation) < 1e-12, 0.0, rotation)
    turned = rotation @ np.array(part.rotation).reshape(3, 3)
    center = rotation @ (np.array(part.center) - pivot) + pivot + offset
    return replace(part, rotation=tuple(map(float, turned.ravel())), center=tuple(float(v) for v in center))


def tilt(part: Part, axis: str, degrees: float) -> Part:
    """The part turned about its own middle."""
    return move(part, turn(axis, math.radians(degrees)), (0.0, 0.0, 0.0), part.center)


def legs(material: Material, width: tuple[float, float], height_m: float, thick_m: float) -> list[Part]:
    """Four square legs under a top that spans `width` along x and y."""
    x, y = (width[0] - thick_m) / 2, (width[1] - thick_m) / 2
    size = (thick_m, thick_m, height_m)
    return [box(material, size, (sx * x, sy * y, 0.0)) for sx in (-1, 1) for sy in (-1, 1)]
