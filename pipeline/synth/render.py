"""Pictures and depth of a synthetic room by ray casting, and the look of its mesh.

    from pipeline.synth.layout import sample_scene
    from pipeline.synth.render import render_views
    images = render_views(sample_scene("any", seed=3), num_views=16, width=384, height=384, seed=0)  # uint8

`Rendering(scene)` bakes the light once (a few seconds); `color` and `depth` then take any camera.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.synth.camera import Camera, scaled_camera, walk
from pipeline.synth.caster import Caster, Hits
from pipeline.synth.light import bake
from pipeline.synth.meshing import Mesh, mesh_scene
from pipeline.synth.scene import Scene
from pipeline.synth.surface import Palette

F32 = NDArray[np.float32]
GAMMA = 2.2
BLOCK = 1 << 15
"""Rays handled at once."""
SUBPIXELS = np.array([[-0.33, -0.2], [0.33, 0.2]], np.float32)
"""Where an edge pixel is sampled besides its middle."""
_LINEAR = ((np.arange(256) / 255) ** GAMMA).astype(np.float32)
_TONE_STEPS = 4096
_TONE_MAX = 8.0


def _make_tone() -> NDArray[np.float32]:
    """sRGB 0..255 of linear light 0..8: rolls off towards white instead of clipping."""
    light = (np.arange(_TONE_STEPS + 1) / _TONE_STEPS) ** 2 * _TONE_MAX
    mapped = 1.25 * light / (light + 0.75)
    return (255 * np.clip(mapped, 0, 1) ** (1 / GAMMA)).astype(np.float32)


_TONE = _make_tone()


def tone_map(linear: F32) -> F32:
    """Linear light (1 = a well lit white surface) -> sRGB 0..255, float32."""
    at = np.sqrt(np.clip(linear, 0, _TONE_MAX) / _TONE_MAX) * _TONE_STEPS
    return _TONE[at.astype(np.int32)]


@dataclass(frozen=True)
class DepthView:
    z_m: F32  # (H, W) along the optical axis, 0 = nothing hit
    cosine: F32  # (H, W) between the ray and the surface's normal, 0..1
    instance: NDArray[np.int32]  # (H, W), -1 = nothing hit


class Rendering:
    """A scene's mesh, its ray caster and its baked light."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.mesh: Mesh = mesh_scene(scene)
        self._caster = Caster(self.mesh.vertices, self.mesh.faces)
        self._palette = Palette(tuple(part.material for part in self.mesh.parts))
        vertex_rgb = self._palette.albedo(self.mesh.vertex_part, self.mesh.uv, _edge_lengths(self.mesh))
        self._vertex_albedo = to_linear(vertex_rgb)
        self.light = bake(self.mesh, self._vertex_albedo, scene.lights, self._caster)
        attributes = np.concatenate([self.mesh.uv, self.light], axis=1)
        self._face_attributes = attributes[self.mesh.faces].reshape(-1, 15)  # one look-up per hit

    def without(self, *labels: str) -> Rendering:
        """The same lit room with the faces of some classes taken out."""
        hidden = [obj.instance_id for obj in self.scene.objects if obj.label in labels]
        shown = ~np.isin(self.mesh.part_instance[self.mesh.face_part], hidden)
        other = copy.copy(self)
        other.mesh = replace(self.mesh, faces=self.mesh.faces[shown], face_part=self.mesh.face_part[shown])
        other._caster = Caster(other.mesh.vertices, other.mesh.faces)
        other._face_attributes = self._face_attributes[shown]
        return other

    def vertex_colors(self) -> NDArray[np.uint8]:
        """(V, 3) sRGB of the lit mesh vertices."""
        glow = self._palette.emission[self.mesh.vertex_part, None]
        return np.rint(tone_map(self._vertex_albedo * (self.light + glow))).astype(np.uint8)

    def color(self, camera: Camera, world_from_cam: NDArray[np.float64]) -> NDArray[np.uint8]:
        """(H, W, 3) sRGB picture; edges between surfaces get three samples per pixel."""
        directions = camera.rays().reshape(-1, 3)
        picture = np.empty((len(directions), 3), np.float32)
        part = np.empty(len(directions), np.int32)
        normal = np.empty((len(directions), 3), np.float32)
        for rows, hits in self._cast(directions, world_from_cam):
            picture[rows] = tone_map(self._shade(hits, camera))
            part[rows], normal[rows] = self.mesh.face_part[hits.face], hits.normal
        shape = (camera.height, camera.width)
        rough = np.flatnonzero(_edges(part.reshape(shape), normal.reshape(*shape, 3)))
        for offset in SUBPIXELS / np.float32((camera.fx, camera.fy)):
            shifted = directions[rough]
            shifted[:, :2] += offset
            for rows, hits in self._cast(shifted, world_from_cam):
                picture[rough[rows]] += tone_map(self._shade(hits, camera))
        picture[rough] /= len(SUBPIXELS) + 1
        return np.rint(picture).astype(np.uint8).reshape(*shape, 3)

    def depth(self, camera: Camera, world_from_cam: NDArray[np.float64]) -> DepthView:
        """Exact depth at pixel centres: the rays have z = 1 along the optical axis, so distance is depth."""
        directions = camera.rays().reshape(-1, 3)
        z_m, cosine = np.empty((2, len(directions)), np.float32)
        instance = np.empty(len(directions), np.int32)
        turned = directions @ world_from_cam[:3, :3].astype(np.float32).T
        lengths = np.sqrt(np.einsum("ij,ij->i", turned, turned))
        for rows, hits in self._cast(directions, world_from_cam):
            hit = hits.face >= 0
            z_m[rows] = np.where(hit, hits.distance, 0)
            cosine[rows] = np.abs(np.einsum("ij,ij->i", hits.normal, turned[rows])) / lengths[rows]
            instance[rows] = np.where(hit, self.mesh.part_instance[self.mesh.face_part[hits.face]], -1)
        shape = (camera.height, camera.width)
        return DepthView(z_m.reshape(shape), cosine.reshape(shape), instance.reshape(shape))

    def _cast(self, directions: F32, world_from_cam: NDArray[np.float64]) -> Iterator[tuple[slice, Hits]]:
        """Hits of rays given in the camera's frame, a block at a time: what fits the cache is fastest."""
        rotation = world_from_cam[:3, :3].astype(np.float32)
        origin = world_from_cam[:3, 3].astype(np.float32)
        for start in range(0, len(directions), BLOCK):
            rows = slice(start, start + BLOCK)
            yield rows, self._caster.cast(origin, directions[rows] @ rotation.T)

    def _shade(self, hits: Hits, camera: Camera) -> F32:
        """(N, 3) linear light of the hits."""
        face = np.maximum(hits.face, 0)
        corners = np.take(self._face_attributes, face, axis=0, mode="clip")
        second, third = hits.uv[:, :1], hits.uv[:, 1:]
        values = corners[:, :5] * (1 - second - third) + corners[:, 5:10] * second + corners[:, 10:] * third
        part = self.mesh.face_part[face]
        width = np.where(hits.face >= 0, hits.distance, 1.0).astype(np.float32) / np.float32(camera.fx)
        color = to_linear(self._palette.albedo(part, values[:, :2], width))
        linear = color * (values[:, 2:] + self._palette.emission[part][:, None])
        linear[hits.face < 0] = 0
        return linear


def _edges(part: NDArray[np.int32], normal: F32) -> NDArray[np.bool_]:
    """(H, W) pixels with a neighbour that shows another part or a face turned otherwise."""
    edge = np.zeros(part.shape, bool)
    for a, b in ((np.s_[:, 1:], np.s_[:, :-1]), (np.s_[1:], np.s_[:-1])):
        differs = (part[a] != part[b]) | (np.einsum("ijk,ijk->ij", normal[a], normal[b]) < 0.7)
        edge[a] |= differs
        edge[b] |= differs
    return edge


def to_linear(srgb: F32) -> F32:
    """sRGB 0..255 (any float) -> linear reflectance in [0, 1]."""
    return _LINEAR[np.clip(srgb, 0, 255).astype(np.uint8)]


def _edge_lengths(mesh: Mesh) -> F32:
    """(V,) a typical edge at each vertex, metres: the blur of textures in vertex colours."""
    a, b, c = (mesh.vertices[mesh.faces[:, k]] for k in range(3))
    length = np.sqrt(np.linalg.norm(np.cross(b - a, c - a), axis=1))
    total = np.bincount(mesh.faces.ravel(), np.repeat(length, 3), len(mesh.vertices))
    count = np.bincount(mesh.faces.ravel(), minlength=len(mesh.vertices))
    return (0.7 * total / np.maximum(count, 1)).astype(np.float32)


def render_views(scene: Scene, num_views: int, width: int, height: int, seed: int) -> NDArray[np.uint8]:
    """(num_views, height, width, 3) uint8 RGB along a walk through the room."""
    rendering = Rendering(scene)
    camera = scaled_camera("color", width, height)
    poses = walk(scene, num_views, seed)
    return np.stack([rendering.color(camera, pose) for pose in poses])


def from_above(rendering: Rendering, size_px: int = 800) -> NDArray[np.uint8]:
    """(size, size, 3) uint8: the room from high above, without its ceiling and the lamps on it."""
    away_m = 12.0
    focal = size_px * away_m / (max(rendering.scene.size_m[:2]) * 1.06)
    middle = (size_px - 1) / 2
    camera = Camera(size_px, size_px, focal, focal, middle, middle)
    world_from_cam = np.diag((1.0, -1.0, -1.0, 1.0))
    world_from_cam[2, 3] = away_m
    return rendering.without("ceiling", "ceiling light").color(camera, world_from_cam)
