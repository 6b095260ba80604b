"""What a synthetic room is: frozen records that the mesh, the pictures and the texts are all made from.

World frame of a scene: metres, z up, floor at z = 0; it is the frame that `axisAlignment` leads to.
`pipeline.synth.layout.sample_scene(scan_id, seed)` makes a `Scene`; everything else is a pure function of it.

    from pipeline.synth.layout import sample_scene
    scene = sample_scene("scene8000_00", seed=0)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Vec3 = tuple[float, float, float]

PartKind = Literal["box", "rounded", "cylinder", "ellipsoid", "drape", "panel"]
"""box: flat faces; rounded: a box with edges of radius `detail[0]`; cylinder: upright, its top `detail[0]`
times as wide as its bottom; ellipsoid: with a squarish plan if `detail[0]` < 1; drape: a hanging cloth, folds
of depth `detail[0]` every `detail[1]` metres; panel: one flat face towards +z without a back, with rectangles
x0 y0 x1 y1 … of `detail` cut out."""

COLORS: dict[str, tuple[int, int, int]] = {
    "white": (226, 224, 218),
    "gray": (128, 130, 134),
    "black": (36, 36, 40),
    "red": (172, 40, 38),
    "orange": (214, 118, 40),
    "yellow": (222, 184, 62),
    "green": (70, 122, 66),
    "blue": (46, 86, 150),
    "purple": (104, 66, 126),
    "pink": (214, 142, 156),
    "brown": (112, 74, 46),
    "beige": (204, 184, 150),
}
"""The basic colour words and the sRGB they stand for; `SceneObject.color` is one of them or empty."""


@dataclass(frozen=True)
class Material:
    """Texture `kind` (a key of surface.KINDS) with two sRGB colours and a size."""

    kind: str
    color: tuple[int, int, int]
    second: tuple[int, int, int] = (0, 0, 0)
    scale_m: float = 0.1
    """Period of the pattern, metres."""
    seed: int = 0
    emission: float = 0.0
    """Light that the surface itself gives, in units of a well lit white wall."""


@dataclass(frozen=True)
class Part:
    """One primitive, centred on `center`, `size` along its own axes; `rotation` (row-major) = a_from_part.

    Built in its object's frame (front towards +x, stands on z = 0), stored in a scene in the world frame.
    """

    kind: PartKind
    size: Vec3
    center: Vec3
    material: Material
    rotation: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    detail: tuple[float, ...] = ()


@dataclass(frozen=True)
class SceneObject:
    """One instance. Its axis-aligned box (center, size) is that of its mesh vertices, to rounding."""

    instance_id: int
    """`objectId` in the aggregation file, from 0."""
    label: str
    """ScanNet's raw category."""
    nyu40_id: int
    color: str
    """A basic colour word (a key of COLORS); empty: none worth naming."""
    material: str
    """A plain word: wood, metal, fabric, plastic, leather, glass, stone, ceramic, paper; empty: none."""
    center: Vec3
    size: Vec3
    yaw_rad: float
    """Its front faces the world direction (cos yaw, sin yaw)."""
    on: int = -1
    """Instance that it stands or lies on, hangs on (a picture: its wall); -1: the floor, or none."""
    parts: tuple[Part, ...] = field(default=(), repr=False, compare=False)
    """In the world frame."""


@dataclass(frozen=True)
class Scene:
    scan_id: str
    room_type: str
    """A ScanNet scene type, e.g. `Bedroom / Hotel`; see layout.ROOM_TYPES."""
    size_m: Vec3
    """Extent of the floor along x and y, and the height of the room."""
    outline: tuple[tuple[float, float], ...]
    """Floor polygon, world, counter-clockwise from above."""
    objects: tuple[SceneObject, ...]
    """Floor, ceiling, walls, doors and windows included; objects[i].instance_id == i."""
    seed: int = 0
    lights: tuple[tuple[float, ...], ...] = field(default=(), repr=False, compare=False)
    """Rectangles that give light: corner xyz, edge xyz, edge xyz, strength rgb (12 numbers each)."""
