"""Parts -> triangles: a fine mesh (edges of 3 to 7 cm) with normals, texture coordinates and instance ids.

Triangles wind counter-clockwise seen from the side that can be seen: furniture outwards, floor up, walls and
ceiling into the room (open surfaces without outer faces, as in ScanNet), so that culling back faces from
above removes the ceiling. Texture coordinates are metres from the middle of each face, v upwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.synth.scene import Part, Scene

EDGE_M = 0.055
PANEL_EDGE_M = 0.07
FLOOR_EDGE_M = 0.033
"""Finer: the floor is what a picture from above shows."""
FINE_EDGE_M = 0.025
COARSE_EDGE_M = 0.12
FINE_TEXTURES = frozenset({"picture", "rug", "screen", "outdoor", "clock"})
COARSE_TEXTURES = frozenset({"spine", "keys"})
ALONG_LENGTH = frozenset({"wood"})
"""Textures whose u axis runs along the longer side of a face."""
SEGMENT_M = 0.6
"""Over-segments are cut from each part in cells of about this size."""


@dataclass(frozen=True)
class PartMesh:
    vertices: NDArray[np.float64]  # (V, 3) m
    normals: NDArray[np.float64]  # (V, 3)
    uv: NDArray[np.float64]  # (V, 2) m
    faces: NDArray[np.int64]  # (F, 3)


@dataclass(frozen=True)
class Mesh:
    """The mesh of a whole scene, world frame."""

    vertices: NDArray[np.float32]  # (V, 3) m
    normals: NDArray[np.float32]  # (V, 3) of unit length
    uv: NDArray[np.float32]  # (V, 2) m
    faces: NDArray[np.int32]  # (F, 3)
    vertex_part: NDArray[np.int32]  # (V,) row of `parts`
    face_part: NDArray[np.int32]  # (F,)
    part_instance: NDArray[np.int32]  # (P,) instance_id
    segments: NDArray[np.int32]  # (V,) over-segment, named by its first vertex
    parts: tuple[Part, ...]

    @property
    def vertex_instance(self) -> NDArray[np.int32]:
        """(V,) int32: the instance that each vertex belongs to."""
        return self.part_instance[self.vertex_part]


def mesh_part(part: Part) -> PartMesh:
    """Triangles of one part, in the frame that its `center` and `rotation` lead to."""
    kind = part.material.kind
    edge_m = FINE_EDGE_M if kind in FINE_TEXTURES else COARSE_EDGE_M if kind in COARSE_TEXTURES else EDGE_M
    points, normals, uv, faces = _join(_SHAPES[part.kind](part, edge_m))
    rotation = np.array(part.rotation, np.float64).reshape(3, 3)
    return PartMesh(points @ rotation.T + np.array(part.center), normals @ rotation.T, uv, faces)


def bounds(parts: tuple[Part, ...]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(min, max), each (3,) float32, over the mesh vertices of the parts."""
    vertices = np.concatenate([mesh_part(part).vertices for part in parts]).astype(np.float32)
    return vertices.min(axis=0), vertices.max(axis=0)


def mesh_scene(scene: Scene) -> Mesh:
    """All parts of all objects, in order of instance and part."""
    parts = tuple(part for obj in scene.objects for part in obj.parts)
    instances = [obj.instance_id for obj in scene.objects for _ in obj.parts]
    pieces = [mesh_part(part) for part in parts]
    num_vertices = [len(piece.vertices) for piece in pieces]
    starts = np.concatenate([[0], np.cumsum(num_vertices)[:-1]])
    vertex_part = np.repeat(np.arange(len(parts), dtype=np.int32), num_vertices)
    vertices = np.concatenate([piece.vertices for piece in pieces])
    normals = np.concatenate([piece.normals for piece in pieces])
    return Mesh(
        vertices=vertices.astype(np.float32),
        normals=normals.astype(np.float32),
        uv=np.concatenate([piece.uv for piece in pieces]).astype(np.float32),
        faces=np.concatenate([p.faces + s for p, s in zip(pieces, starts, strict=True)]).astype(np.int32),
        vertex_part=vertex_part,
        face_part=np.repeat(np.arange(len(parts), dtype=np.int32), [len(piece.faces) for piece in pieces]),
        part_instance=np.array(instances, np.int32),
        segments=_over_segments(vertices, normals, vertex_part),
        parts=parts,
    )


def _over_segments(
    vertices: NDArray[np.float64], normals: NDArray[np.float64], vertex_part: NDArray[np.int32]
) -> NDArray[np.int32]:
    """Segments split by part, by the main direction of the normal and by cells of SEGMENT_M."""
    cells = np.floor(vertices / SEGMENT_M + 0.25).astype(np.int64)
    axis = np.abs(normals).argmax(axis=1)
    side = 2 * axis + (np.take_along_axis(normals, axis[:, None], axis=1)[:, 0] > 0)
    keys = np.column_stack([vertex_part, side, cells])
    _, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    return first[inverse.ravel()].astype(np.int32)


def _steps(length_m: float, edge_m: float) -> int:
    return max(1, math.ceil(length_m / edge_m - 1e-6))


def _grid_faces(rows: int, columns: int) -> NDArray[np.int64]:
    """Triangles of a (rows, columns) vertex grid, counter-clockwise where rows × columns is the normal."""
    start = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).ravel()
    a, b, c, d = start, start + columns, start + columns + 1, start + 1
    return np.concatenate([np.column_stack([a, b, c]), np.column_stack([a, c, d])])


Patch = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]


def _join(patches: list[Patch]) -> Patch:
    starts = np.cumsum([0] + [len(patch[0]) for patch in patches[:-1]])
    points, normals, uv, _ = (np.concatenate(column) for column in zip(*patches, strict=True))
    return points, normals, uv, np.concatenate([p[3] + s for p, s in zip(patches, starts, strict=True)])


def _face_uv(points: NDArray[np.float64], axis: int, sign: int, part: Part) -> NDArray[np.float64]:
    """Seen from outside, u to the right and v up; on level faces u = x, v = y."""
    if axis == 2:
        pair, flip = (0, 1), 1
    else:
        pair, flip = ((1, 2), sign) if axis == 0 else ((0, 2), -sign)
    uv = points[:, pair] * np.array([flip, 1.0])
    lengthwise = part.material.kind in ALONG_LENGTH and part.size[pair[1]] > part.size[pair[0]]
    return uv[:, ::-1] if lengthwise else uv


def _ticks(half_m: float, radius_m: float, edge_m: float) -> NDArray[np.float64]:
    """Grid lines over [-half, half]; with a radius, rings of an edge rounded at equal angles."""
    core = half_m - radius_m
    inner = np.linspace(-core, core, _steps(2 * core, edge_m) + 1) if core > 1e-9 else np.zeros(1)
    if radius_m == 0:
        return inner
    rings = np.arange(1, 3) if radius_m > 0.02 else np.array([2])
    ring = core + radius_m * np.tan(rings / 2 * np.pi / 4)
    return np.concatenate([-ring[::-1], inner, ring])


def _box(part: Part, edge_m: float) -> list[Patch]:
    half = np.array(part.size) / 2
    radius = min(part.detail[0], float(half.min())) if part.kind == "rounded" else 0.0
    ticks = [_ticks(h, radius, edge_m) for h in half]
    patches = []
    for axis in range(3):
        for sign in (1, -1):
            rows, columns = ((axis + 1) % 3, (axis + 2) % 3)[::sign]
            points = np.empty((len(ticks[rows]), len(ticks[columns]), 3))
            points[..., rows] = ticks[rows][:, None]
            points[..., columns] = ticks[columns]
            points[..., axis] = sign * half[axis]
            points = points.reshape(-1, 3)
            normals = np.zeros_like(points)
            normals[:, axis] = sign
            if radius:
                core = np.clip(points, radius - half, half - radius)
                normals = points - core
                normals /= np.linalg.norm(normals, axis=1, keepdims=True)
                points = core + radius * normals
            uv = _face_uv(points, axis, sign, part)
            patches.append((points, normals, uv, _grid_faces(len(ticks[rows]), len(ticks[columns]))))
    return patches


def _cylinder(part: Part, edge_m: float) -> list[Patch]:
    rx, ry, height = part.size[0] / 2, part.size[1] / 2, part.size[2]
    taper = part.detail[0] if part.detail else 1.0
    around = int(np.clip(_steps(2 * math.pi * max(rx, ry), edge_m), 10, 40))
    angle = np.linspace(0, 2 * np.pi, around + 1)
    circle = np.column_stack([rx * np.cos(angle), ry * np.sin(angle)])
    level = np.linspace(0, 1, _steps(height, 1.5 * edge_m) + 1)
    width = 1 + (taper - 1) * level
    side = np.empty((len(angle), len(level), 3))
    side[..., :2] = circle[:, None] * width[None, :, None]
    side[..., 2] = (level - 0.5) * height
    slope = (1 - taper) * max(rx, ry) / max(height, 1e-6)
    normal = np.column_stack([np.cos(angle) / rx, np.sin(angle) / ry])
    normal = np.column_stack(
        [normal / np.linalg.norm(normal, axis=1, keepdims=True), np.full_like(angle, slope)]
    )
    normal = normal / np.linalg.norm(normal, axis=1, keepdims=True)
    uv = np.stack(np.broadcast_arrays((angle * max(rx, ry))[:, None], side[..., 2]), axis=-1)
    if part.material.kind in ALONG_LENGTH:
        uv = uv[..., ::-1]
    normals = np.repeat(normal, len(level), axis=0)
    patches = [(side.reshape(-1, 3), normals, uv.reshape(-1, 2), _grid_faces(len(angle), len(level)))]
    for sign, share in ((1, taper), (-1, 1.0)):
        if share > 0.01:
            patches.append(_disc(circle[::-sign] * share, sign * height / 2, sign, edge_m))
    return patches


def _disc(circle: NDArray[np.float64], z_m: float, sign: int, edge_m: float) -> Patch:
    """A cap: rings between its middle and `circle` (n, 2), which runs clockwise for the upper side."""
    rings = np.linspace(0, 1, _steps(float(np.abs(circle).max()), edge_m) + 1)
    flat = (circle[:, None] * rings[None, :, None]).reshape(-1, 2)
    points = np.column_stack([flat, np.full(len(flat), z_m)])
    normals = np.broadcast_to([0.0, 0.0, float(sign)], points.shape)
    faces = _grid_faces(len(circle), len(rings))
    at_middle = faces % len(rings) == 0
    return points, normals, flat, faces[at_middle.sum(axis=1) < 2]


def _ellipsoid(part: Part, edge_m: float) -> list[Patch]:
    half = np.array(part.size) / 2
    around = int(np.clip(_steps(2 * math.pi * float(half.max()), edge_m), 8, 36))
    angle = np.linspace(0, 2 * np.pi, around + 1)
    rise = np.linspace(-np.pi / 2, np.pi / 2, max(4, around // 2) + 1)
    square = part.detail[0] if part.detail else 1.0  # below 1 the plan is a rounded square (a superellipse)
    circle = np.column_stack([np.cos(angle), np.sin(angle)])
    plan, plan_normal = (np.sign(circle) * np.abs(circle) ** e for e in (square, 2 - square))
    unit, normals = np.empty((2, len(angle), len(rise), 3))
    unit[..., :2] = plan[:, None] * np.cos(rise)[None, :, None]
    normals[..., :2] = plan_normal[:, None] * np.cos(rise)[None, :, None]
    unit[..., 2] = normals[..., 2] = np.sin(rise)
    points = (unit * half).reshape(-1, 3)
    normals = (normals / half).reshape(-1, 3)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    if square < 1:  # a cushion: the cloth lies flat on it
        uv = points[:, :2]
    else:
        uv = np.stack(np.broadcast_arrays((angle * half[:2].max())[:, None], rise * half[2]), axis=-1)
    faces = _grid_faces(len(angle), len(rise))
    at_bottom = (faces % len(rise) == 0).sum(axis=1) == 2
    at_top = (faces % len(rise) == len(rise) - 1).sum(axis=1) == 2
    return [(points, normals, uv.reshape(-1, 2), faces[~(at_bottom | at_top)])]


def _drape(part: Part, edge_m: float) -> list[Patch]:
    """A box, thin along x, whose two large faces follow a wave along y."""
    depth_m, period_m = part.detail
    patches = _box(part, min(edge_m, period_m / 6))
    waved = []
    for points, normals, uv, faces in patches:
        phase = points[:, 1] * 2 * np.pi / period_m
        moved = points + np.column_stack([depth_m * np.sin(phase), np.zeros((len(points), 2))])
        tilt = -depth_m * 2 * np.pi / period_m * np.cos(phase)
        turned = normals + np.column_stack([np.zeros_like(phase), tilt * normals[:, 0], np.zeros_like(phase)])
        waved.append((moved, turned / np.linalg.norm(turned, axis=1, keepdims=True), uv, faces))
    return waved


def _panel(part: Part, edge_m: float) -> list[Patch]:
    half = np.array(part.size[:2]) / 2
    holes = np.array(part.detail, np.float64).reshape(-1, 4)
    if part.material.kind not in FINE_TEXTURES:
        edge_m = FLOOR_EDGE_M if part.rotation[8] > 0.5 else PANEL_EDGE_M
    lines = []
    for axis in range(2):
        stops = np.unique(np.concatenate([[-half[axis], half[axis]], holes[:, axis], holes[:, axis + 2]]))
        pairs = zip(stops[:-1], stops[1:], strict=True)
        spans = [np.linspace(a, b, _steps(b - a, edge_m) + 1)[:-1] for a, b in pairs]
        lines.append(np.concatenate([*spans, stops[-1:]]))
    flat = np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1).reshape(-1, 2)
    faces = _grid_faces(len(lines[0]), len(lines[1]))
    middle = flat[faces].mean(axis=1)
    for x0, y0, x1, y1 in holes:
        inside = (middle > (x0, y0)).all(axis=1) & (middle < (x1, y1)).all(axis=1)
        faces, middle = faces[~inside], middle[~inside]
    used, faces = np.unique(faces, return_inverse=True)
    flat = flat[used]
    points = np.column_stack([flat, np.zeros(len(flat))])
    normals = np.broadcast_to([0.0, 0.0, 1.0], points.shape)
    return [(points, normals, flat, faces.reshape(-1, 3))]


_SHAPES: dict[str, Callable[[Part, float], list[Patch]]] = {
    "box": _box,
    "rounded": _box,
    "cylinder": _cylinder,
    "ellipsoid": _ellipsoid,
    "drape": _drape,
    "panel": _panel,
}
