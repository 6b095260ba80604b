"""Textures with content: pictures, the view from a window, screens, rugs, book spines, clocks, scribbles.

They see texture coordinates from the middle of their face; `scale` is the height of the picture (of a rug:
its shorter side).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pipeline.synth.textures import F32, Points, band, fade, hash01, mix, noise, step, tone


def _rgb(p: Points, *values: float) -> F32:
    return np.broadcast_to(np.array(values, np.float32), p.color.shape)


def _unit(p: Points) -> tuple[F32, F32, F32]:
    """(x, y, pixel) in heights of the picture, y upwards, 0 in the middle."""
    return p.u / p.scale, p.v / p.scale, p.width / p.scale


def _r(p: Points, number: int) -> F32:
    """(N,) random number `number` of each picture."""
    return hash01(p.seed, np.full_like(p.seed, number))


def _landscape(p: Points) -> F32:
    """Sky, sun and three ranges of hills."""
    x, y, px = _unit(p)
    color = mix(mix(p.second, _rgb(p, 250, 240, 220), np.full_like(x, 0.6)), p.color, np.clip(0.4 + y, 0, 1))
    sun = np.hypot(x - 0.5 * (_r(p, 1) - 0.5), y - 0.2)
    color = mix(color, _rgb(p, 255, 226, 150), step(0.10 - sun, px))
    for k in range(3):
        rise = 0.12 * np.sin(x * (4 + 3 * _r(p, 2 + k)) + 6 * _r(p, 5 + k)) + 0.05 * np.sin(x * 17 + k)
        hill = tone(mix(p.color, p.second, np.full_like(x, 0.3 * k)), np.full_like(x, 0.85 - 0.25 * k))
        color = mix(color, hill, step(rise - 0.02 - 0.14 * k - y, px))
    return color


def _blocks(p: Points) -> F32:
    """Coloured rectangles between black lines."""
    x, y, px = _unit(p)
    color = _rgb(p, 240, 236, 226)
    for k in range(4):
        left, low = (_r(p, 10 + k) - 0.7) * 1.0, (_r(p, 20 + k) - 0.7) * 0.9
        wide, tall = 0.2 + 0.35 * _r(p, 30 + k), 0.15 + 0.35 * _r(p, 40 + k)
        fill = (p.color, p.second, _rgb(p, 226, 190, 60), _rgb(p, 40, 70, 140))[k]
        outer = step(
            np.minimum(np.minimum(x - left, left + wide - x), np.minimum(y - low, low + tall - y)) + 0.015, px
        )
        inner = step(
            np.minimum(np.minimum(x - left, left + wide - x), np.minimum(y - low, low + tall - y)), px
        )
        color = mix(mix(color, _rgb(p, 26, 26, 28), outer), fill, inner)
    return color


def _circles(p: Points) -> F32:
    """Overlapping discs on a light ground."""
    x, y, px = _unit(p)
    color = mix(_rgb(p, 246, 240, 228), p.second, np.full_like(x, 0.15))
    for k in range(6):
        radius = 0.08 + 0.22 * _r(p, 50 + k)
        away = np.hypot(x - 1.2 * (_r(p, 60 + k) - 0.5), y - 0.9 * (_r(p, 70 + k) - 0.5))
        fill = mix(p.color, p.second, np.full_like(x, 0.33 * (k % 4)))
        color = mix(color, fill, 0.85 * step(radius - away, px))
        color = mix(color, _rgb(p, 250, 246, 238), 0.8 * step(0.012 - np.abs(away - 0.7 * radius), px))
    return color


def _flower(p: Points) -> F32:
    """One large blossom on a stem."""
    x, y, px = _unit(p)
    color = mix(p.second, _rgb(p, 244, 236, 216), np.clip(0.75 + 0.4 * y, 0, 1))
    color = mix(
        color, _rgb(p, 62, 104, 52), step(0.018 - np.abs(x - 0.05 * np.sin(6 * y)), px) * step(0.1 - y, px)
    )
    leaf = np.hypot((x - 0.11) / 0.12, (y + 0.25) / 0.05)
    color = mix(color, _rgb(p, 84, 132, 62), step(1 - leaf, px / 0.05))
    away, angle = np.hypot(x, y - 0.14), np.arctan2(y - 0.14, x)
    petals = 0.19 + 0.06 * np.cos(angle * np.floor(5 + 4 * _r(p, 3)))
    color = mix(color, tone(p.color, 0.75 + 1.6 * away), step(petals - away, px))
    return mix(color, _rgb(p, 232, 190, 66), step(0.06 - away, px))


def _picture(p: Points) -> F32:
    """One of four kinds of picture, by seed."""
    style = (_r(p, 0) * 4).astype(np.int64)
    color = np.empty_like(p.color)
    for k, draw in enumerate((_landscape, _blocks, _circles, _flower)):
        rows = np.flatnonzero(style == k)
        if len(rows):
            part = Points(*(getattr(p, name)[rows] for name in Points.__dataclass_fields__))
            color[rows] = draw(part)
    return color


def _outdoor(p: Points) -> F32:
    """Sky with clouds over trees and a lawn, sometimes a house."""
    x, y, px = _unit(p)
    sky = mix(_rgb(p, 226, 236, 244), p.color, np.clip(y + 0.35, 0, 1))
    cloud = np.clip(noise(x * 1.2, y * 2.6, 0.9, p.seed) * 3 - 1.5, 0, 1)
    color = mix(sky, _rgb(p, 248, 249, 250), 0.8 * cloud)
    house = step(
        np.minimum(
            0.20 - np.abs(x - (_r(p, 1) - 0.5)),
            0.16 - y - np.maximum(0, np.abs(x - (_r(p, 1) - 0.5)) - 0.05) * 0.9,
        ),
        px,
    )
    color = mix(
        color,
        mix(_rgb(p, 196, 172, 142), _rgb(p, 150, 84, 66), step(y - 0.03, px)),
        house * step(_r(p, 2) - 0.4, px),
    )
    for k in range(3):
        edge = (noise(x + 3.1 * k, np.zeros_like(x), 0.5, p.seed + k) - 0.5) * 0.5
        edge += (noise(x + 7.7 * k, y, 0.08, p.seed) - 0.5) * 0.10
        leaves = tone(p.second, 0.72 + 0.5 * noise(x, y, 0.08, p.seed + 5 * k) + 0.12 * (2 - k))
        color = mix(color, leaves, step(0.02 - 0.13 * k + edge - y, px))
    lawn = tone(_rgb(p, 118, 158, 78), 0.9 + 0.25 * (noise(x, y * 4, 0.3, p.seed) - 0.5))
    return mix(color, lawn, step(-0.40 - y, px))


def _screen(p: Points) -> F32:
    """A desktop with a window of text, or a chart, or a film."""
    x, y, px = _unit(p)
    color = mix(p.color, _rgb(p, 120, 170, 210), np.clip(0.5 + 0.5 * y + 0.3 * x, 0, 1))
    page = step(np.minimum(0.42 - np.abs(x + 0.18), 0.38 - np.abs(y)), px)
    color = mix(color, _rgb(p, 240, 240, 238), page)
    line = np.floor((0.32 - y) / 0.055).astype(np.int64)
    length = 0.75 * (0.35 + 0.65 * hash01(line, p.seed))
    text = (
        band((0.32 - y) / 0.055, 0.25, 0.7, px / 0.055) * step(x + 0.56, px) * step(length - (x + 0.56), px)
    )
    color = mix(color, _rgb(p, 84, 88, 96), 0.8 * text * page * step(0.32 - np.abs(y), px))
    color = mix(
        color, p.second * 0.25 + 30, step(np.minimum(0.42 - np.abs(x + 0.18), 0.025 - np.abs(y - 0.355)), px)
    )
    pane = step(np.minimum(0.24 - np.abs(x - 0.56), 0.28 - np.abs(y)), px)
    bar = np.floor((x - 0.32) / 0.08).astype(np.int64)
    filled = band((x - 0.32) / 0.08, 0.2, 0.8, px / 0.08) * step(
        -0.24 + 0.45 * hash01(bar, p.seed + 1) - y, px
    )
    chart = mix(_rgb(p, 36, 40, 52), _rgb(p, 240, 170, 60), filled)
    return mix(color, chart, pane)


def _rug(p: Points) -> F32:
    """Diamonds, or rings, or stripes, by seed."""
    x, y, px = _unit(p)
    style = _r(p, 0)
    diamonds = band((np.abs(x) + np.abs(y)) * 4, 0, 0.4, px * 4)
    rings = band(np.hypot(x, y) * 4.5, 0, 0.45, px * 4.5)
    stripes = band(y * 7, 0, 0.4, px * 7) * 0.8 + 0.2 * band(y * 21, 0, 0.4, px * 21)
    field = np.where(style < 0.4, diamonds, np.where(style < 0.7, rings, stripes))
    color = mix(p.color, p.second, 0.85 * field)
    return tone(color, 1 + 0.35 * (noise(p.u, p.v, 0.041, p.seed) - 0.5) * fade(p, 0.01))


def _spine(p: Points) -> F32:
    """The back of a book: two bands and a title of blocks."""
    _, y, px = _unit(p)
    bands = step(0.012 - np.abs(np.abs(y) - 0.36), px)
    row = np.floor(y * 22).astype(np.int64)
    title = band(y * 22, 0.1, 0.9, px * 22) * (hash01(row, p.seed) > 0.25) * (np.abs(y - 0.08) < 0.17)
    across = np.abs(p.u) < 0.006
    return mix(p.color, p.second, np.clip(0.9 * bands + 0.75 * title * across * fade(p, 0.01), 0, 1))


def _clock(p: Points) -> F32:
    """A round dial with twelve marks and two hands, on a square face."""
    x, y, px = _unit(p)
    away, angle = np.hypot(x, y), np.arctan2(x, y)
    marks = step(np.cos(angle * 12) - 0.93, px * 12) * step(away - 0.26, px) * step(0.33 - away, px)
    ink = marks
    for k, (length, wide) in enumerate(((0.18, 0.020), (0.27, 0.012))):
        turn = 2 * np.pi * _r(p, k)
        along = x * np.sin(turn) + y * np.cos(turn)
        aside = np.abs(x * np.cos(turn) - y * np.sin(turn))
        ink = np.maximum(ink, step(wide - aside, px) * step(along, px) * step(length - along, px))
    return mix(p.color, p.second, np.clip(ink, 0, 1))


def _scribble(p: Points) -> F32:
    """Lines of handwriting and a diagram on a whiteboard."""
    line = np.floor(p.v / 0.13).astype(np.int64)
    wave = 0.5 + 0.3 * np.sin(p.u * 70 + 6 * hash01(line, p.seed)) * np.sin(p.u * 23 + line)
    writing = step(0.05 - np.abs(p.v / 0.13 - line - wave), p.width / 0.13)
    words = (
        (hash01(line, np.floor(p.u / 0.11).astype(np.int64), p.seed) > 0.25)
        * (p.u < 0.1)
        * (p.v > -0.35)
        * (p.v < 0.4)
    )
    start = -0.75 + 0.3 * hash01(line, p.seed + 2)
    writing = writing * words * (p.u > start)
    across, up = np.abs(p.u - 0.5), np.abs(p.v)
    frame = step(0.008 - np.abs(np.maximum(across / 1.3, up) - 0.22), p.width)
    curve = step(0.010 - np.abs(p.v - 0.14 * np.sin(9 * (p.u - 0.5))), p.width) * (across < 0.26)
    ink = np.clip(writing + frame + curve, 0, 1)
    return mix(p.color, p.second, 0.85 * ink)


def _keys(p: Points) -> F32:
    key = band(p.u / p.scale, 0.1, 0.9, p.width / p.scale) * band(p.v / p.scale, 0.1, 0.9, p.width / p.scale)
    return mix(p.color, p.second, key)


def _mirror(p: Points) -> F32:
    """No reflection: light streaks over a pale ground."""
    streak = band((p.u + 0.6 * p.v) / p.scale, 0.1, 0.35, p.width / p.scale)
    return mix(p.color, p.second, np.clip(0.7 * streak + 0.4 * p.v / p.scale, 0, 1))


ARTWORK: dict[str, Callable[[Points], F32]] = {
    "picture": _picture,
    "outdoor": _outdoor,
    "screen": _screen,
    "rug": _rug,
    "spine": _spine,
    "clock": _clock,
    "scribble": _scribble,
    "keys": _keys,
    "mirror": _mirror,
}
