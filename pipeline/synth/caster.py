"""Rays against the triangles of a scene: Open3D's RaycastingScene (Embree), on one thread.

Needs no GL context; distances are exact to float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import open3d as o3d
from numpy.typing import NDArray

F32 = NDArray[np.float32]


@dataclass(frozen=True)
class Hits:
    """One row per ray; `face` is -1 where a ray leaves the scene (its other values are then meaningless)."""

    distance: F32  # (N,) in lengths of the ray's direction
    face: NDArray[np.int32]  # (N,)
    uv: F32  # (N, 2) barycentric weights of the face's second and third corner
    normal: F32  # (N, 3) of unit length, of the face


class Caster:
    """Holds the Embree tree of one mesh."""

    def __init__(self, vertices: F32, faces: NDArray[np.int32]) -> None:
        self._scene = o3d.t.geometry.RaycastingScene(nthreads=1)
        self._scene.add_triangles(
            o3d.core.Tensor(np.ascontiguousarray(vertices, np.float32)),
            o3d.core.Tensor(np.ascontiguousarray(faces, np.uint32)),
        )

    def cast(self, origins: F32, directions: F32) -> Hits:
        """First hit of each ray; (N, 3) each, or (3,) for one common origin; directions of any length."""
        found = self._scene.cast_rays(_rays(origins, directions), nthreads=1)
        return Hits(
            found["t_hit"].numpy(),
            _face(found),
            found["primitive_uvs"].numpy(),
            found["primitive_normals"].numpy(),
        )

    def faces_hit(self, origins: F32, directions: F32) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """(face or -1, whether its front was hit) of each ray."""
        found = self._scene.cast_rays(_rays(origins, directions), nthreads=1)
        front = np.einsum("ij,ij->i", found["primitive_normals"].numpy(), directions) < 0
        return _face(found), front

    def blocked(self, origins: F32, directions: F32, far: F32) -> NDArray[np.bool_]:
        """Whether anything lies within `far` (N,) lengths of each ray."""
        rays = np.concatenate([origins, directions * far[:, None]], axis=1).astype(np.float32)
        return self._scene.test_occlusions(o3d.core.Tensor(rays), 0.0, 1.0, nthreads=1).numpy()


def _face(found: dict[str, o3d.core.Tensor]) -> NDArray[np.int32]:
    """Embree's "no hit" is 0xFFFFFFFF, which is -1 as int32."""
    return found["primitive_ids"].numpy().view(np.int32)


def _rays(origins: F32, directions: F32) -> o3d.core.Tensor:
    rays = np.empty((len(directions), 6), np.float32)
    rays[:, :3], rays[:, 3:] = origins, directions
    return o3d.core.Tensor(rays)
