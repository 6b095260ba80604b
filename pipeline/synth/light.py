"""Light baked per vertex: lamps and windows with soft shadows, then three bounces between all surfaces.

Radiosity by gathering: from each vertex a fixed set of cosine-distributed rays finds what it sees once; the
bounces then reuse those hits. The result is smoothed over neighbouring vertices and scaled so that the
middle of the room is well exposed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.synth.caster import Caster
from pipeline.synth.meshing import Mesh

F32 = NDArray[np.float32]
GATHER_RAYS = 20
LIGHT_RAYS = 9
BOUNCES = 3
LAMP_RADIUS_M = 0.12
NEAREST_M = 0.45
"""Light falls off with the square of the distance from here on: no burnt spots around lamps."""
EXPOSURE = 0.5
"""Median irradiance after scaling, in units where 1 shows a white wall as white."""


@dataclass(frozen=True)
class Samples:
    """Where light is computed: a little above each vertex, drawn away from the rim of its face."""

    origins: F32  # (V, 3) m
    normals: F32  # (V, 3)


def bake(mesh: Mesh, albedo: F32, lights: tuple[tuple[float, ...], ...], caster: Caster) -> F32:
    """(V, 3) float32 irradiance; `albedo` (V, 3) linear reflectance in [0, 1] of each vertex."""
    samples = _samples(mesh)
    direct = np.zeros_like(samples.origins)
    rng = np.random.default_rng(9)
    for light in lights:
        direct += _from_light(samples, np.array(light, np.float32).reshape(4, 3), caster, rng)
    direct = smooth(mesh, direct, 3)
    seen, weight = _gather(mesh, samples, caster)
    face_albedo = albedo[mesh.faces].mean(axis=1)
    total, bounced = direct.copy(), direct
    for _ in range(BOUNCES):
        leaving = face_albedo * bounced[mesh.faces].mean(axis=1)
        leaving = np.concatenate([leaving, np.zeros((1, 3), np.float32)])
        gathered = np.zeros_like(direct)
        for hits in seen:
            gathered += leaving[hits]
        bounced = smooth(mesh, gathered * weight, 4)
        total += bounced
    return total * np.float32(EXPOSURE / max(float(np.median(total.mean(axis=1))), 1e-6))


def _samples(mesh: Mesh) -> Samples:
    corners = mesh.vertices[mesh.faces]
    middle = corners.mean(axis=1)
    total = np.zeros_like(mesh.vertices, dtype=np.float64)
    count = np.bincount(mesh.faces.ravel(), minlength=len(mesh.vertices))
    for axis in range(3):
        weights = np.repeat(middle[:, axis], 3)
        total[:, axis] = np.bincount(mesh.faces.ravel(), weights, len(mesh.vertices))
    inner = total / np.maximum(count, 1)[:, None]
    origins = mesh.vertices + 0.25 * (inner - mesh.vertices) + 0.004 * mesh.normals
    return Samples(origins.astype(np.float32), mesh.normals)


def _from_light(samples: Samples, light: F32, caster: Caster, rng: np.random.Generator) -> F32:
    """(V, 3) irradiance from a rectangle (one-sided, normal = edge × edge) or a small ball (no edges)."""
    corner, edge_u, edge_v, strength = light
    normal = np.cross(edge_u, edge_v)
    area = float(np.linalg.norm(normal))
    side = math.ceil(math.sqrt(LIGHT_RAYS))
    grid = np.stack(np.meshgrid(np.arange(side), np.arange(side)), axis=-1).reshape(-1, 2)[:LIGHT_RAYS]
    result = np.zeros(len(samples.origins), np.float32)
    facing = np.einsum("ij,ij->i", corner + (edge_u + edge_v) / 2 - samples.origins, samples.normals)
    reach = LAMP_RADIUS_M + (np.linalg.norm(edge_u) + np.linalg.norm(edge_v)) / 2
    lit = np.flatnonzero(facing > -reach)
    origins, normals = samples.origins[lit], samples.normals[lit]
    for cell in grid:
        if area > 0:
            share = (np.float32(cell) + rng.random((len(lit), 2), np.float32)) / np.float32(side)
            target = corner + share[:, :1] * edge_u + share[:, 1:] * edge_v
        else:
            ball = rng.random((len(lit), 3), np.float32) - np.float32(0.5)
            target = corner + 2 * LAMP_RADIUS_M * ball
        toward = target - origins
        distance = np.sqrt(np.einsum("ij,ij->i", toward, toward))
        toward /= distance[:, None]
        falloff = (
            np.clip(np.einsum("ij,ij->i", toward, normals), 0, None) / np.maximum(distance, NEAREST_M) ** 2
        )
        if area > 0:
            falloff *= np.clip(-(toward @ (normal / area)), 0, None) * area
        rows = np.flatnonzero(falloff > 1e-4)
        blocked = caster.blocked(origins[rows], toward[rows], distance[rows] - 0.02)
        result[lit[rows]] += np.where(blocked, 0, falloff[rows])
    return result[:, None] / len(grid) * strength / np.float32(np.pi)


def _gather(mesh: Mesh, samples: Samples, caster: Caster) -> tuple[list[NDArray[np.int32]], F32]:
    """For each of the rays the face that each vertex sees (num_faces: a back side), and 1 / rays that hit."""
    tangent = np.where(np.abs(samples.normals[:, :1]) < 0.6, np.float32([[1, 0, 0]]), np.float32([[0, 1, 0]]))
    tangent = np.cross(samples.normals, tangent)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    bitangent = np.cross(samples.normals, tangent)
    # Golden-ratio turns: neighbours differ most, so that smoothing over them takes the noise out.
    spin = ((np.arange(len(tangent)) * 0.6180339887) % 1).astype(np.float32)
    seen = []
    hit_count = np.zeros(len(tangent), np.float32)
    for k in range(GATHER_RAYS):
        # A Fibonacci disc lifted to the hemisphere is cosine-distributed.
        radius = np.float32(np.sqrt((k + 0.5) / GATHER_RAYS))
        angle = 2 * np.pi * (k * 0.6180340 + spin)
        out = np.cos(angle)[:, None] * tangent + np.sin(angle)[:, None] * bitangent
        ray = radius * out + np.sqrt(1 - radius**2) * samples.normals
        faces, front = caster.faces_hit(samples.origins, ray.astype(np.float32))
        hit_count += faces >= 0
        seen.append(np.where(front & (faces >= 0), faces, len(mesh.faces)).astype(np.int32))
    return seen, (1 / np.maximum(hit_count, 1))[:, None]


def smooth(mesh: Mesh, values: F32, rounds: int) -> F32:
    """(V, C) averaged with the neighbours along edges, several times; parts do not mix."""
    edges = np.concatenate([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]], mesh.faces[:, [2, 0]]])
    a, b = np.concatenate([edges, edges[:, ::-1]]).T
    degree = np.bincount(a, minlength=len(values)).astype(np.float32)
    for _ in range(rounds):
        around = np.column_stack([np.bincount(a, values[b, c], len(values)) for c in range(values.shape[1])])
        values = (0.4 * values + 0.6 * around / np.maximum(degree, 1)[:, None]).astype(np.float32)
    return values
