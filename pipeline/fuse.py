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
from pipeline.timing import part

TRUNCATION_VOXELS = 4.0
"""The signed distance is kept this far around the surface; sensor noise at 4 m is about 0.05 m."""
MIN_COMPONENT_M2 = 0.02
"""Loose surface below this area is noise of single frames; a cup has more."""
MAX_POSITION_M = 10_000.0
"""A camera farther from the origin is a lost one; the voxel index would overflow."""
BLOCK_VOXELS = 8
"""Space is stored in cubes of this many voxels a side; of Open3D's 16 most are far from any surface."""
MAX_SAMPLE_BLOCKS = 0.5
"""Pixels around which blocks are opened lie at most this share of a block apart: none is missed."""
MAX_STRIDE = 4
"""Open3D's own; fewer pixels make nothing faster."""
MM_PER_M = 1000.0


@dataclass(frozen=True)
class Fusion:
    mesh: Mesh
    num_frames: int
    num_skipped_frames: int


@dataclass(frozen=True)
class PixelGrid:
    """Every `step`-th pixel of a depth picture, as a camera of its own."""

    size: tuple[int, int]
    """(width, height)."""
    focals: tuple[float, float]
    centre: tuple[float, float]
    step: int
    stride: int
    """Blocks are opened around every stride-th pixel of the grid."""


def build(entry: ScanEntry, group: zarr.Group, config: Config, inputs: dict[str, zarr.Group]) -> None:
    """Fill the scan's group. ScanError: its own mesh cannot be used, or its recording cannot be opened."""
    path = entry.path("mesh")
    if path is not None:
        with part("read mesh"):
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
    frames = _frames(source, config.max_frames)
    cam_from_world = np.linalg.inv(source.alignment @ source.poses[frames])
    grid = pixel_grid(source.depth_size, source.depth_intrinsics, config)
    num_skipped = 0
    with one_thread():
        o3d = open3d()
        camera = o3d.camera.PinholeCameraIntrinsic(*grid.size, *grid.focals, *grid.centre)
        volume = o3d.pipelines.integration.ScalableTSDFVolume(
            config.voxel_m,
            TRUNCATION_VOXELS * config.voxel_m,
            o3d.pipelines.integration.TSDFVolumeColorType.RGB8,
            BLOCK_VOXELS,
            grid.stride,
        )
        for frame, pose in zip(frames.tolist(), cam_from_world, strict=True):
            try:
                with part("decode"):
                    color, depth = _decoded(source, frame, grid)
            except ScanError:
                num_skipped += 1
                continue
            with part("integrate"):
                image = o3d.geometry.RGBDImage.create_from_color_and_depth(
                    o3d.geometry.Image(color),
                    o3d.geometry.Image(depth),
                    depth_scale=MM_PER_M,
                    depth_trunc=config.max_depth_m,
                    convert_rgb_to_intensity=False,
                )
                volume.integrate(image, camera, pose)
        with part("extract surface"):
            mesh = without_specks(_surface(volume), MIN_COMPONENT_M2)
    return Fusion(mesh, len(frames) - num_skipped, num_skipped)


def pixel_grid(size: tuple[int, int], intrinsics: NDArray[np.float64], config: MeshesConfig) -> PixelGrid:
    """The pixels that fusion reads, of a depth picture of `size` (width, height); intrinsics (3, 3) px.

    A frame gives each voxel the one pixel that it falls on. So every second row and column do as long as a
    pixel stays smaller than a voxel: the surface is as exact, and faster (docs/benchmarks.md).
    """
    (width, height), k = size, intrinsics
    finest_m = config.max_depth_m / min(k[0, 0], k[1, 1])
    halves = width % 2 == 0 and height % 2 == 0 and 2 * finest_m <= config.voxel_m
    step = 2 if halves else 1
    offset = step // 2
    stride = int(MAX_SAMPLE_BLOCKS * BLOCK_VOXELS * config.voxel_m / (step * finest_m))
    return PixelGrid(
        size=(width // step, height // step),
        focals=(k[0, 0] / step, k[1, 1] / step),
        centre=((k[0, 2] - offset) / step, (k[1, 2] - offset) / step),
        step=step,
        stride=min(max(stride, 1), MAX_STRIDE),
    )


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


def _decoded(source: Source, frame: int, grid: PixelGrid) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """Colour (h, w, 3) and depth (h, w) mm at the pixels of the grid. ScanError: not decodable.

    The cameras are taken as one, as in all of ScanNet's code.
    """
    small_color = getattr(source, "small_color", None)  # not every layout can: see `Source`
    color = small_color(frame, grid.size) if small_color else source.color(frame)
    depth = source.depth(frame)[grid.step // 2 :: grid.step, grid.step // 2 :: grid.step]
    if color.shape[1::-1] != grid.size:
        shrinks = color.shape[0] > grid.size[1]
        color = cv2.resize(color, grid.size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return np.ascontiguousarray(color), np.ascontiguousarray(depth)


def _surface(volume: Any) -> Mesh:
    """The zero surface of an Open3D volume."""
    surface = volume.extract_triangle_mesh()
    return Mesh(
        np.asarray(surface.vertices).astype(np.float32),
        np.asarray(surface.triangles).astype(np.int32),
        np.rint(np.asarray(surface.vertex_colors) * 255).astype(np.uint8),
    )
