"""The colour of any mix of surfaces: picks the texture of each point and evaluates them kind by kind."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pipeline.synth.artwork import ARTWORK
from pipeline.synth.scene import Material
from pipeline.synth.textures import F32, PATTERNS, Points, plain

KINDS: dict[str, Callable[[Points], F32]] = {**PATTERNS, **ARTWORK}
"""Every value that `Material.kind` may have."""


class Palette:
    """Materials as arrays, for look-up by row."""

    def __init__(self, materials: tuple[Material, ...]) -> None:
        self.functions = [KINDS[name] for name in sorted(KINDS)]
        numbers = {name: number for number, name in enumerate(sorted(KINDS))}
        self.kind = np.array([numbers[m.kind] for m in materials])
        self.color = np.array([m.color for m in materials], np.float32)
        self.second = np.array([m.second for m in materials], np.float32)
        self.scale_m = np.array([m.scale_m for m in materials], np.float32)
        self.seed = np.array([m.seed for m in materials], np.int64)
        self.emission = np.array([m.emission for m in materials], np.float32)

    def albedo(self, index: NDArray[np.int32], uv: F32, width_m: F32) -> F32:
        """(N, 3) float32 sRGB, about 0..255, of points with texture coordinates `uv` (N, 2) m.

        `index` (N,) picks the material; `width_m` (N,) is the size of a pixel on the surface.
        """
        kind = self.kind[index]
        result = self.color[index]
        for number in np.flatnonzero(np.bincount(kind)):
            function = self.functions[number]
            if function is plain:
                continue
            rows = np.flatnonzero(kind == number)
            at = index[rows]
            points = Points(
                uv[rows, 0],
                uv[rows, 1],
                width_m[rows],
                result[rows],
                self.second[at],
                self.scale_m[at],
                self.seed[at],
                at.astype(np.int64),
            )
            result[rows] = function(points)
        return result
