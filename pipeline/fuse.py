"""Stage `meshes`: a scan without a mesh gets one by TSDF fusion of its frames (Open3D's door).

Group of a scan: attributes `source` ("scannet": the scan's own file, nothing is copied; "fusion"),
`num_vertices`, `num_faces`; for fusion also `num_frames` (fused), `num_skipped_frames` (not decodable),
`reason` (why the mesh is empty, else "") and arrays `vertices` (V, 3) float32 world m, `faces` (F, 3) int32,
`colors` (V, 3) uint8.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import zarr
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pipeline.config import Config, MeshesConfig
from pipeline.errors import ScanError
from pipeline.mesh import Mesh, compact, read_ply
from pipeline.sampling import candidate_frames, uniform_positions
from pipeline.scans import ScanEntry, file_fingerprint
from pipeline.sources import Source, open_source

TRUNCATION_VOXELS = 4.0
"""The signed distance is kept this far around the surface; sensor noise at 4 m is about 0.05 m."""
MIN_COMPONENT_M2 = 0.02
"""Loose surface below this area is noise of single frames; a cup has more."""
MAX_POSITION_M = 10_000.0
"""A camera farther from the origin is a lost one; the voxel index would overflow."""
MM_PER_M = 1000.0


@dataclass(frozen=True)
class Fusion:
    mesh: Mesh
    num_frames: int
    num_skipped_frames: int


def build(entry: ScanEntry, group: zarr.Group, config: Config, inputs: dict[str, zarr.Group]) -> None:
    """Fill the scan's group. ScanError: its own mesh cannot be used, or its recording cannot be opened."""
    path = entry.path("mesh")
    if path is not None:
        mesh = read_ply(path)
        group.attrs.update(
            {
                "source": "scannet",
                "num_vertices": len(mesh.vertices),
                "num_faces": len(mesh.faces),
                "inputs": [file_fingerprint(path)],
            }
        )
        return
    with open_source(entry) as source:
        fusion = fuse(source, config.meshes)
    mesh = fusion.mesh
    for name, array in (("vertices", mesh.vertices), ("faces", mesh.faces), ("colors", mesh.colors)):
        group.create_array(name, data=array, chunks=(max(1, len(array)), 3))
    reason = ""
    if len(mesh.faces) == 0:
        reason = f"no surface from {fusion.num_frames} frames ({fusion.num_skipped_frames} not decodable)"
    group.attrs.update(
        {
            "source": "fusion",
            "num_vertices": len(mesh.vertices),
            "num_faces": len(mesh.faces),
            "num_frames": fusion.num_frames,
            "num_skipped_frames": fusion.num_skipped_frames,
            "reason": reason,
        }
    )


def fuse(source: Source, config: MeshesConfig) -> Fusion:
    """Fuse the posed frames of a recording, at most `config.max_frames` of them, evenly spread.

    The mesh is in the world frame and faces the cameras: floors up, ceilings down. Same frames, same bytes,
    whatever the number of threads (a VoxelBlockGrid is not so, and sees less at the same voxel size).
    """
    world_from_cam = source.alignment @ source.poses[frames := _frames(source, config.max_frames)]
    num_skipped = 0
    with one_thread():
        o3d = open3d()
        integration = o3d.pipelines.integration
        volume = integration.ScalableTSDFVolume(
            config.voxel_m, TRUNCATION_VOXELS * config.voxel_m, integration.TSDFVolumeColorType.RGB8
        )
        width, height = source.depth_size
        k = source.depth_intrinsics
        camera = o3d.camera.PinholeCameraIntrinsic(width, height, k[0, 0], k[1, 1], k[0, 2], k[1, 2])
        for frame, pose in zip(frames.tolist(), world_from_cam, strict=True):
            try:
                color, depth = source.color(frame), source.depth(frame)
            except ScanError:
                num_skipped += 1
                continue
            image = o3d.geometry.RGBDImage.create_from_color_and_depth(
                o3d.geometry.Image(_resized(color, width, height)),
                o3d.geometry.Image(np.ascontiguousarray(depth)),
                depth_scale=MM_PER_M,
                depth_trunc=config.max_depth_m,
                convert_rgb_to_intensity=False,
            )
            volume.integrate(image, camera, np.linalg.inv(pose))
        surface = volume.extract_triangle_mesh()
    mesh = Mesh(
        np.asarray(surface.vertices).astype(np.float32),
        np.asarray(surface.triangles).astype(np.int32),
        np.rint(np.asarray(surface.vertex_colors) * 255).astype(np.uint8),
    )
    return Fusion(without_specks(mesh, MIN_COMPONENT_M2), len(frames) - num_skipped, num_skipped)


def without_specks(mesh: Mesh, min_area_m2: float) -> Mesh:
    """Drop connected pieces of less surface than `min_area_m2`, and vertices that no face uses."""
    faces, num_vertices = mesh.faces, len(mesh.vertices)
    if len(faces) == 0:
        return Mesh(mesh.vertices[:0], faces, mesh.colors[:0])
    edges = (faces[:, [0, 1]].ravel(), faces[:, [1, 2]].ravel())
    links = coo_array((np.ones(len(edges[0]), np.bool_), edges), shape=(num_vertices, num_vertices))
    _, vertex_piece = connected_components(links, directed=False)
    face_piece = vertex_piece[faces[:, 0]]
    corners = mesh.vertices[faces].astype(np.float64)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    areas_m2 = np.bincount(face_piece, weights=np.linalg.norm(normals, axis=1) / 2)
    return compact(mesh, faces[areas_m2[face_piece] >= min_area_m2])


def first_hits(
    vertices: NDArray[np.float32], faces: NDArray[np.int32], rays: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]:
    """Nearest face that each ray meets, from either side.

    Rays: (..., 6) float32 origin and direction. Returns distance (...) in lengths of the direction (inf:
    nothing hit), face (...) and the barycentric weights (..., 3) of its corners.
    """
    o3d = open3d()
    scene = o3d.t.geometry.RaycastingScene(nthreads=1)
    scene.add_triangles(o3d.core.Tensor(vertices), o3d.core.Tensor(faces.astype(np.uint32)))
    hits = scene.cast_rays(o3d.core.Tensor(rays), nthreads=1)
    uv = hits["primitive_uvs"].numpy()
    weights = np.concatenate([1 - uv.sum(axis=-1, keepdims=True), uv], axis=-1)
    return hits["t_hit"].numpy(), hits["primitive_ids"].numpy().astype(np.int64), weights


def open3d() -> Any:
    """Import Open3D (seconds, once per process). ImportError names a missing system library."""
    with one_thread():
        import open3d

    return open3d


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep Open3D's OpenMP loops on one thread, unless the user set OMP_NUM_THREADS.

    Scans run in parallel processes, one per core; with more threads than free cores its loops spin, and
    fusion was measured up to 50 times slower. Open3D reads the variable at each call; others must not find it
    changed.
    """
    if "OMP_NUM_THREADS" in os.environ:
        yield
        return
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        del os.environ["OMP_NUM_THREADS"]


def _frames(source: Source, max_frames: int) -> NDArray[np.int64]:
    """Indices of the frames to fuse."""
    posed = candidate_frames(source.poses)
    near = np.abs(source.poses[posed, :3, 3]).max(axis=1, initial=0) <= MAX_POSITION_M
    posed = posed[near]
    return posed if len(posed) <= max_frames else posed[uniform_positions(len(posed), max_frames)]


def _resized(color: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Colour at the size of the depth picture: the cameras are taken as one, as in all of ScanNet's code."""
    if color.shape[:2] == (height, width):
        return np.ascontiguousarray(color)
    shrinks = color.shape[0] > height
    return cv2.resize(color, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
