"""Floor plans: rectangles, L-shapes, rooms with a chimney breast, a corner pillar or a bay; their walls."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

Rect = tuple[float, float, float, float]


@dataclass(frozen=True)
class Wall:
    """One straight piece of wall; `along` runs counter-clockwise around the room, `normal` points inside."""

    start: tuple[float, float]
    along: tuple[float, float]
    normal: tuple[float, float]
    length_m: float

    @property
    def yaw_rad(self) -> float:
        """Direction into the room."""
        return math.atan2(self.normal[1], self.normal[0])

    def at(self, t_m: float, out_m: float = 0.0) -> tuple[float, float]:
        """The floor point `t_m` along the wall and `out_m` in front of it."""
        return (
            self.start[0] + t_m * self.along[0] + out_m * self.normal[0],
            self.start[1] + t_m * self.along[1] + out_m * self.normal[1],
        )


@dataclass(frozen=True)
class Outline:
    """A floor with right angles, its bounding rectangle centred on the origin."""

    size: tuple[float, float]
    corners: tuple[tuple[float, float], ...]
    """Counter-clockwise from above."""
    cutouts: tuple[Rect, ...]
    """Rectangles of the bounding rectangle that are not floor: x0, y0, x1, y1."""

    @property
    def walls(self) -> tuple[Wall, ...]:
        pieces = []
        for a, b in zip(self.corners, (*self.corners[1:], self.corners[0]), strict=True):
            length = math.dist(a, b)
            along = (round((b[0] - a[0]) / length), round((b[1] - a[1]) / length))
            pieces.append(Wall(a, along, (-along[1], along[0]), length))
        return tuple(pieces)

    def holds(self, rect: Rect, slack_m: float = 0.0) -> bool:
        """Whether the rectangle lies on the floor, up to `slack_m`."""
        x0, y0, x1, y1 = rect
        half_x, half_y = self.size[0] / 2 + slack_m, self.size[1] / 2 + slack_m
        if x0 < -half_x or x1 > half_x or y0 < -half_y or y1 > half_y:
            return False
        return not any(overlap(rect, cut, -slack_m) for cut in self.cutouts)


def overlap(a: Rect, b: Rect, margin_m: float = 0.0) -> bool:
    """Whether two rectangles come closer than `margin_m` along both axes."""
    return (
        a[0] < b[2] + margin_m
        and b[0] < a[2] + margin_m
        and a[1] < b[3] + margin_m
        and b[1] < a[3] + margin_m
    )


def sample_outline(rng: np.random.Generator, size: tuple[float, float]) -> Outline:
    """A plan inside `size`; small rooms (a side below 3 m) get a rectangle or a small notch."""
    width, depth = size
    kinds = (
        ("rectangle", "corner", "breast")
        if min(size) < 3.0
        else ("rectangle", "corner", "breast", "ell", "bay")
    )
    weights = np.array((0.22, 0.18, 0.2, 0.22, 0.18)[: len(kinds)])
    kind = kinds[int(rng.choice(len(kinds), p=weights / weights.sum()))]
    share = rng.uniform(0.25, 0.4, 2)
    if kind == "ell":
        cuts = [(width * (1 - share[0]), depth * (1 - share[1]), width, depth)]
    elif kind == "corner":
        side = float(rng.uniform(0.35, 0.6))
        cuts = [(width - side, depth - side, width, depth)]
    elif kind == "breast":
        middle, half, out = (
            width * float(rng.uniform(0.4, 0.6)),
            float(rng.uniform(0.4, 0.7)),
            float(rng.uniform(0.25, 0.4)),
        )
        cuts = [(middle - half, depth - out, middle + half, depth)]
    elif kind == "bay":
        out = float(rng.uniform(0.5, 0.8))
        cuts = [
            (0.0, depth - out, width * share[0], depth),
            (width * (1 - share[1]), depth - out, width, depth),
        ]
    else:
        cuts = []
    flip_x, flip_y = rng.random() < 0.5, rng.random() < 0.5
    placed = []
    for x0, y0, x1, y1 in cuts:
        x0, x1 = (width - x1, width - x0) if flip_x else (x0, x1)
        y0, y1 = (depth - y1, depth - y0) if flip_y else (y0, y1)
        centred = (x0 - width / 2, y0 - depth / 2, x1 - width / 2, y1 - depth / 2)
        placed.append(tuple(float(v) for v in centred))
    return Outline(size, _corners(size, placed), tuple(placed))


def _corners(size: tuple[float, float], cuts: list[Rect]) -> tuple[tuple[float, float], ...]:
    """Walk around the floor: edges between floor and no-floor cells of the grid that the cuts make."""
    xs = sorted({-size[0] / 2, size[0] / 2, *(c[0] for c in cuts), *(c[2] for c in cuts)})
    ys = sorted({-size[1] / 2, size[1] / 2, *(c[1] for c in cuts), *(c[3] for c in cuts)})

    def floor(i: int, j: int) -> bool:
        if not (0 <= i < len(xs) - 1 and 0 <= j < len(ys) - 1):
            return False
        x, y = (xs[i] + xs[i + 1]) / 2, (ys[j] + ys[j + 1]) / 2
        return not any(c[0] < x < c[2] and c[1] < y < c[3] for c in cuts)

    following = {}
    for i in range(len(xs) - 1):
        for j in range(len(ys) - 1):
            if floor(i, j):
                sides = (((i, j), (i + 1, j), floor(i, j - 1)), ((i + 1, j), (i + 1, j + 1), floor(i + 1, j)))
                sides += (
                    ((i + 1, j + 1), (i, j + 1), floor(i, j + 1)),
                    ((i, j + 1), (i, j), floor(i - 1, j)),
                )
                following.update({a: b for a, b, inner in sides if not inner})
    loop = [min(following)]
    while following[loop[-1]] != loop[0]:
        loop.append(following[loop[-1]])
    points = [(xs[i], ys[j]) for i, j in loop]
    turns = zip(points[-1:] + points[:-1], points, points[1:] + points[:1], strict=True)
    return tuple(b for a, b, c in turns if (b[0] - a[0]) * (c[1] - b[1]) != (b[1] - a[1]) * (c[0] - b[0]))
