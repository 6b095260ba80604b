"""Procedural patterns: the colour of a surface at texture coordinates in metres, evaluated where a ray hits.

Each is a function of `Points` that returns (N, 3) sRGB in [0, 255]. `width` is the size of a pixel on the
surface: patterns are box-filtered by it, so they fade to their mean in the distance instead of flickering.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
NOISE_SIZE = 1024


@dataclass(frozen=True)
class Points:
    u: F32  # (N,) m
    v: F32  # (N,) m
    width: F32  # (N,) m
    color: F32  # (N, 3) sRGB 0..255
    second: F32  # (N, 3)
    scale: F32  # (N,) m
    seed: NDArray[np.int64]  # (N,)
    salt: NDArray[np.int64]  # (N,) differs from part to part


def _make_noise() -> F32:
    """(1024, 1024) tileable noise in [0, 1]: sums of smooth random lattices, amplitude halved per octave."""
    rng = np.random.default_rng(20240501)
    total = np.zeros((NOISE_SIZE, NOISE_SIZE), np.float32)
    for octave in range(3, 9):
        cells = 1 << octave
        lattice = rng.random((cells, cells), dtype=np.float32)
        at = np.arange(NOISE_SIZE) * cells / NOISE_SIZE
        low = at.astype(int)
        blend = (at - low).astype(np.float32)
        blend = blend * blend * (3 - 2 * blend)
        high = (low + 1) % cells
        rows = lattice[low] * (1 - blend)[:, None] + lattice[high] * blend[:, None]
        total += (rows[:, low] * (1 - blend) + rows[:, high] * blend - 0.5) * np.float32(0.5 ** (octave - 3))
    return np.clip(0.5 + total * 0.62, 0, 1)


_NOISE = _make_noise()


def noise(u: F32, v: F32, period_m: float | F32, salt: NDArray[np.int64]) -> F32:
    """(N,) in [0, 1]; its largest features are about `period_m`; nearest texel of a fixed table."""
    texel = period_m / (NOISE_SIZE / 8)
    i = (u / texel).astype(np.int64) + salt * 389
    j = (v / texel).astype(np.int64) + salt * 619
    return _NOISE[i & (NOISE_SIZE - 1), j & (NOISE_SIZE - 1)]


def hash01(*values: NDArray[np.int64]) -> F32:
    """(N,) float32 in [0, 1): a fixed scramble of integers."""
    state = np.full(values[0].shape, 0x9E3779B9, np.uint32)
    for value in values:
        state ^= value.astype(np.uint32)
        state *= np.uint32(0x85EBCA6B)
        state ^= state >> np.uint32(13)
        state *= np.uint32(0xC2B2AE35)
        state ^= state >> np.uint32(16)
    return (state >> np.uint32(8)).astype(np.float32) / np.float32(1 << 24)


def step(distance: F32, width: F32) -> F32:
    """0 below, 1 above zero, with a ramp one pixel wide."""
    return np.clip(distance / np.maximum(width, 1e-5) + 0.5, 0, 1)


def band(phase: F32, low: float, high: float, width: F32) -> F32:
    """Share of a pixel inside low..high of a pattern with period 1; phase and width in periods."""
    phase = phase - np.floor(phase)
    inside = step(phase - low, width) * step(high - phase, width)
    faded = np.clip(2 * width - 0.6, 0, 1)
    return inside * (1 - faded) + (high - low) * faded


def mix(a: F32, b: F32, share: F32) -> F32:
    return a + (b - a) * share[:, None]


def tone(color: F32, factor: F32) -> F32:
    return color * factor[:, None]


def fade(p: Points, period_m: float | F32) -> F32:
    """1 near, 0 where a pixel covers a period or more."""
    return np.clip(1.4 - 1.4 * p.width / period_m, 0, 1)


def plain(p: Points) -> F32:
    return p.color


def _plaster(p: Points) -> F32:
    large = noise(p.u, p.v, 1.6, p.salt) - 0.5
    fine = (noise(p.u, p.v, 0.06, p.salt) - 0.5) * fade(p, 0.02)
    return tone(p.color, 1 + 0.02 * large + 0.035 * fine)


def _grain(p: Points, u: F32, v: F32, salt: NDArray[np.int64]) -> F32:
    """(N,) around 0: streaks along u."""
    wave = noise(u * 0.12, v, 0.22, salt)
    streak = noise(u * 0.05, v, 0.035, salt + 7) - 0.5
    rings = np.abs(((wave * 5 + v * 6) % 1) - 0.5) * 2 - 0.5
    return 0.6 * rings * fade(p, 0.05) + 0.9 * streak * fade(p, 0.012)


def _wood(p: Points) -> F32:
    return mix(p.color, p.second, np.clip(0.4 + 0.55 * _grain(p, p.u, p.v, p.salt), 0, 1))


def _planks(p: Points) -> F32:
    """A wooden floor: boards of width `scale`, ten times as long, shifted row by row."""
    row = np.floor(p.v / p.scale).astype(np.int64)
    length = p.scale * 10
    u = p.u + hash01(row, p.seed) * length
    board = np.floor(u / length).astype(np.int64)
    own = hash01(row, board, p.seed)
    grain = _grain(p, p.u, p.v, (own * 997).astype(np.int64))
    color = mix(p.color, p.second, np.clip(0.15 + 0.6 * own + 0.3 * grain, 0, 1))
    gap = np.maximum(
        1 - band(p.v / p.scale, 0.015, 0.985, p.width / p.scale),
        1 - band(u / length, 0.0015, 0.9985, p.width / length),
    )
    return tone(color, 1 - 0.55 * np.clip(gap, 0, 1))


def _tiles(p: Points) -> F32:
    """Square tiles of size `scale`; the second colour is the joints'."""
    i, j = (np.floor(x / p.scale).astype(np.int64) for x in (p.u, p.v))
    own = hash01(i, j, p.seed) - 0.5
    marble = noise(p.u, p.v, 0.5, (own * 997).astype(np.int64) + p.seed) - 0.5
    width = p.width / p.scale
    tile = band(p.u / p.scale, 0.015, 0.985, width) * band(p.v / p.scale, 0.015, 0.985, width)
    return mix(p.second, tone(p.color, 1 + 0.06 * own + 0.08 * marble * fade(p, 0.1)), tile)


def _chess(p: Points) -> F32:
    """Tiles in two colours."""
    width = p.width / p.scale / 2
    a = band(p.u / p.scale / 2, 0, 0.5, width)
    b = band(p.v / p.scale / 2, 0, 0.5, width)
    return mix(p.color, p.second, a * (1 - b) + b * (1 - a))


def _bricks(p: Points) -> F32:
    height = p.scale
    row = np.floor(p.v / height).astype(np.int64)
    u = p.u + (row % 2) * height * 1.5
    own = hash01(row, np.floor(u / (3 * height)).astype(np.int64), p.seed)
    rough = noise(p.u, p.v, 0.08, p.seed) - 0.5
    brick = band(p.v / height, 0.07, 0.93, p.width / height) * band(
        u / (3 * height), 0.025, 0.975, p.width / (3 * height)
    )
    return mix(p.second, tone(p.color, 0.82 + 0.36 * own + 0.2 * rough * fade(p, 0.03)), brick)


def _carpet(p: Points) -> F32:
    """Pile: two grains whose tables repeat at different lengths, so that no pattern shows from above."""
    fine = (noise(p.u, p.v, 0.031, p.seed) - 0.5) * fade(p, 0.008)
    tufts = (noise(p.v, p.u, 0.113, p.seed + 5) - 0.5) * fade(p, 0.03)
    large = noise(p.u, p.v, 2.3, p.seed) - 0.5
    return tone(p.color, 1 + 0.4 * fine + 0.12 * tufts + 0.05 * large)


def _fabric(p: Points) -> F32:
    weave = (
        band(p.u / p.scale, 0, 0.5, p.width / p.scale) * band(p.v / p.scale, 0, 0.5, p.width / p.scale) - 0.25
    )
    fine = (noise(p.u, p.v, 0.06, p.salt) - 0.5) * fade(p, 0.012)
    return tone(p.color, 1 - 0.07 * weave + 0.2 * fine)


def _stripes(p: Points) -> F32:
    stripe = band(p.u / p.scale, 0, 0.32, p.width / p.scale)
    return mix(_cloth(p), p.second, stripe)


def _checks(p: Points) -> F32:
    a = band(p.u / p.scale, 0, 0.4, p.width / p.scale)
    b = band(p.v / p.scale, 0, 0.4, p.width / p.scale)
    return mix(_cloth(p), p.second, 0.42 * (a + b))


def _dots(p: Points) -> F32:
    row = np.floor(p.v / p.scale)
    du = ((p.u / p.scale + 0.5 * (row % 2)) % 1) - 0.5
    dv = ((p.v / p.scale) % 1) - 0.5
    width = p.width / p.scale
    dot = step(0.24 - np.hypot(du, dv), width)
    return mix(_cloth(p), p.second, dot * fade(p, p.scale) + 0.18 * (1 - fade(p, p.scale)))


def _zigzag(p: Points) -> F32:
    wave = np.abs(((p.u / p.scale) % 1) - 0.5) * 0.8
    return mix(_cloth(p), p.second, band(p.v / p.scale + wave, 0, 0.3, p.width / p.scale * 1.3))


def _cloth(p: Points) -> F32:
    return tone(p.color, 1 + 0.14 * (noise(p.u, p.v, 0.06, p.salt) - 0.5) * fade(p, 0.012))


def _stone(p: Points) -> F32:
    """Worktops: speckles, and now and then a vein."""
    speck = (noise(p.u, p.v, 0.04, p.seed) - 0.5) * fade(p, 0.015)
    vein = np.abs(noise(p.u, p.v, 0.7, p.seed + 3) - 0.5)
    return mix(tone(p.color, 1 + 0.5 * speck), p.second, np.clip(0.5 - vein * 14, 0, 0.5))


def _wallpaper(p: Points) -> F32:
    """Broad tone-in-tone stripes with a small motif between them."""
    stripe = band(p.u / p.scale, 0, 0.5, p.width / p.scale)
    du = ((p.u / p.scale * 2) % 1) - 0.5
    dv = ((p.v / p.scale * 2 + 0.5 * (np.floor(p.u / p.scale * 2) % 2)) % 1) - 0.5
    leaf = step(0.16 - np.abs(du) - 0.6 * np.abs(dv), 2 * p.width / p.scale) * fade(p, p.scale / 2)
    return mix(mix(p.color, p.second, 0.5 * stripe), p.second, leaf)


def _carton(p: Points) -> F32:
    flute = noise(p.u * 0.1, p.v, 0.03, p.seed) - 0.5
    printed = step(0.03 - np.abs(p.u - 0.05), p.width) * step(0.02 - np.abs(p.v + 0.03), p.width)
    return mix(tone(p.color, 1 + 0.08 * flute * fade(p, 0.02)), p.second, 0.6 * printed)


def _leaf(p: Points) -> F32:
    return mix(p.color, p.second, noise(p.u, p.v, 0.15, p.salt))


PATTERNS: dict[str, Callable[[Points], F32]] = {
    "plain": plain,
    "plaster": _plaster,
    "wood": _wood,
    "planks": _planks,
    "tiles": _tiles,
    "chess": _chess,
    "bricks": _bricks,
    "carpet": _carpet,
    "fabric": _fabric,
    "stripes": _stripes,
    "checks": _checks,
    "dots": _dots,
    "zigzag": _zigzag,
    "stone": _stone,
    "wallpaper": _wallpaper,
    "carton": _carton,
    "leaf": _leaf,
}
