"""Meshes and recordings with known geometry, for the tests of fusion and of the view from above."""

import functools
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pipeline.config import MeshesConfig
from pipeline.errors import ScanError
from pipeline.fuse import fuse
from pipeline.mesh import Mesh
from pipeline.scans import FileStamp, ScanEntry
from pipeline.sources import open_source

FLOOR, CEILING, WALL, CRATE = (120, 80, 40), (250, 250, 250), (60, 120, 180), (20, 200, 60)


def join(*meshes: Mesh) -> Mesh:
    starts = np.cumsum([0, *(len(m.vertices) for m in meshes)])
    return Mesh(
        np.concatenate([m.vertices for m in meshes]).astype(np.float32),
        np.concatenate([m.faces + s for m, s in zip(meshes, starts, strict=False)]).astype(np.int32),
        np.concatenate([m.colors for m in meshes]),
    )


def quad(corners, color, cuts: int = 1) -> Mesh:
    """A flat piece with `cuts` × `cuts` cells; its corners run counter-clockwise seen from the front."""
    a, b, c, d = np.array(corners, np.float64)
    s, t = np.meshgrid(np.linspace(0, 1, cuts + 1), np.linspace(0, 1, cuts + 1))
    s, t = s[..., None], t[..., None]
    vertices = ((1 - s) * (1 - t) * a + s * (1 - t) * b + s * t * c + (1 - s) * t * d).reshape(-1, 3)
    index = np.arange((cuts + 1) ** 2).reshape(cuts + 1, cuts + 1)
    p, q, r, o = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]
    faces = np.concatenate([np.stack([p, q, r], -1).reshape(-1, 3), np.stack([p, r, o], -1).reshape(-1, 3)])
    colors = np.tile(np.array(color, np.uint8), (len(vertices), 1))
    return Mesh(vertices.astype(np.float32), faces.astype(np.int32), colors)


def level(x0, x1, y0, y1, z, color, cuts: int = 1) -> Mesh:
    """A level rectangle that faces up."""
    return quad([(x0, y0, z), (x1, y0, z), (x1, y1, z), (x0, y1, z)], color, cuts)


def flipped(mesh: Mesh) -> Mesh:
    return Mesh(mesh.vertices, np.ascontiguousarray(mesh.faces[:, ::-1]), mesh.colors)


def crate(x0, x1, y0, y1, z0, z1, color=CRATE) -> Mesh:
    """A closed box that faces outwards."""
    sides = [
        quad([(x0, y0, z0), (x1, y0, z0), (x1, y0, z1), (x0, y0, z1)], color),
        quad([(x1, y0, z0), (x1, y1, z0), (x1, y1, z1), (x1, y0, z1)], color),
        quad([(x1, y1, z0), (x0, y1, z0), (x0, y1, z1), (x1, y1, z1)], color),
        quad([(x0, y1, z0), (x0, y0, z0), (x0, y0, z1), (x0, y1, z1)], color),
    ]
    return join(*sides, level(x0, x1, y0, y1, z1, color), flipped(level(x0, x1, y0, y1, z0, color)))


def room(width, depth, height=2.5, cuts: int = 1) -> Mesh:
    """Floor, ceiling and walls that face inwards, from (0, 0, 0)."""
    shell = flipped(crate(0, width, 0, depth, 0, height, WALL))
    floor = level(0, width, 0, depth, 0.0, FLOOR, cuts)
    ceiling = flipped(level(0, width, 0, depth, height, CEILING, cuts))
    walls = Mesh(shell.vertices, shell.faces[:8], shell.colors)
    return join(walls, floor, ceiling)


def turned(mesh: Mesh, angle_rad: float, shift=(0.0, 0.0, 0.0)) -> Mesh:
    c, s = np.cos(angle_rad), np.sin(angle_rad)
    rotation = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    vertices = mesh.vertices.astype(np.float64) @ rotation.T + shift
    return Mesh(vertices.astype(np.float32), mesh.faces, mesh.colors)


def clutter(seed: int) -> Mesh:
    """A turned room full of coloured crates, with smoothly varying colours and a rough floor."""
    random = np.random.default_rng(seed)
    width, depth = random.uniform(3, 7, 2)
    parts = [room(width, depth, cuts=40)]
    for _ in range(12):
        x, y = random.uniform(0.3, width - 1), random.uniform(0.3, depth - 1)
        dx, dy, height = random.uniform(0.1, 0.7, 3)
        box = crate(0, dx, 0, dy, 0, height, random.integers(0, 256, 3))
        parts.append(turned(box, random.uniform(0, 6.28), (x, y, random.uniform(0, 1))))
    mesh = turned(join(*parts), random.uniform(0, 6.28), random.uniform(-3, 3, 3))
    noise = random.normal(0, 0.01, mesh.vertices.shape)
    colors = np.clip(mesh.colors + random.normal(0, 20, mesh.colors.shape), 0, 255).astype(np.uint8)
    return Mesh((mesh.vertices + noise).astype(np.float32), mesh.faces, colors)


@dataclass
class BoxRecording:
    """A `Source` that turns around in a room of `size_m`; exact depth, one colour per surface."""

    size_m: tuple = (4.0, 3.0, 2.4)
    steps: int = 12
    broken: tuple = ()
    lost: tuple = ()
    depth_size: tuple = (160, 120)
    color_size: tuple = (320, 240)
    alignment: np.ndarray = field(default_factory=lambda: np.eye(4))

    def __post_init__(self):
        self.depth_intrinsics = np.array([[90.0, 0, 79.5], [0, 90.0, 59.5], [0, 0, 1]])
        self.color_intrinsics = self.depth_intrinsics * 2
        yaws = np.linspace(0, 2 * np.pi, self.steps, endpoint=False)
        self.poses = np.stack([self._pose(yaw, pitch) for yaw in yaws for pitch in (-0.7, 0.6)])
        self.num_frames = self.num_frames_declared = len(self.poses)
        self.poses[list(self.lost)] = -np.inf
        self.seen: list[int] = []

    def _pose(self, yaw, pitch):
        forward = np.array([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)])
        right = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
        pose = np.eye(4)
        pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
        pose[:3, 3] = np.array(self.size_m) / 2
        return np.linalg.inv(self.alignment) @ pose

    def _cast(self, index, size):
        """Distance along the axis and the surface's number (0 x, 1 y, 2 floor, 3 ceiling) per pixel."""
        width, height = size
        k = self.depth_intrinsics.copy()
        scale = width / self.depth_size[0]
        u, v = np.meshgrid((np.arange(width) + 0.5) / scale - 0.5, (np.arange(height) + 0.5) / scale - 0.5)
        rays = np.stack([(u - k[0, 2]) / k[0, 0], (v - k[1, 2]) / k[1, 1], np.ones_like(u)], axis=-1)
        pose = self.alignment @ self.poses[index]
        directions = rays @ pose[:3, :3].T
        with np.errstate(divide="ignore"):
            limits = np.where(directions > 0, np.array(self.size_m) - pose[:3, 3], -pose[:3, 3]) / directions
        axis = limits.argmin(axis=-1)
        surface = np.where((axis == 2) & (directions[..., 2] > 0), 3, axis)
        return limits.min(axis=-1), surface

    def color(self, index):
        if index in self.broken:
            raise ScanError(f"frame {index} color: broken")
        self.seen.append(index)
        palette = np.array([WALL, WALL, FLOOR, CEILING], np.uint8)
        return palette[self._cast(index, self.color_size)[1]]

    def depth(self, index):
        return np.rint(self._cast(index, self.depth_size)[0] * 1000).astype(np.uint16)

    def close(self):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def real_entry(shared_dir: Path) -> ScanEntry:
    folder = shared_dir / "scans" / "scene9000_00"
    names = {"sens": "scene9000_00.sens", "meta": "scene9000_00.txt"}
    files = {role: FileStamp.of(folder / name, folder) for role, name in names.items()}
    return ScanEntry("scene9000_00", str(folder), files, "train", "scannet")


@functools.cache
def real_room(shared_dir: Path) -> Mesh:
    """The real room, fused at 2.5 cm."""
    with open_source(real_entry(shared_dir)) as source:
        return fuse(source, MeshesConfig(voxel_m=0.025)).mesh
