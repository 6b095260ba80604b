"""The mesh of a scan in the world frame: its own file, or what `fuse.py` made of it (trimesh's door)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zarr
from numpy.typing import NDArray

from pipeline.errors import ScanError
from pipeline.scans import ScanEntry

MAX_MESH_BYTES = 4 << 30
MAX_VERTICES = 1 << 24
"""ScanNet's largest mesh has about a million. pyrender keeps indices as float32: exact up to here only."""
MAX_FACES = 1 << 26


@dataclass(frozen=True, eq=False)
class Mesh:
    """Coloured triangles. The front of a face is the side from which its corners run counter-clockwise."""

    vertices: NDArray[np.float32]
    """(V, 3) world, metres; file order (segment files depend on it)."""
    faces: NDArray[np.int32]
    """(F, 3) rows of `vertices`."""
    colors: NDArray[np.uint8]
    """(V, 3) RGB."""


def load_mesh(entry: ScanEntry, meshes_group: zarr.Group | None, alignment: NDArray[np.float64]) -> Mesh:
    """The scan's mesh: its own file where it brings one, else the arrays that stage `meshes` fused.

    `alignment`: (4, 4) world_from_scan, applied to a file's vertices; fused arrays are in the world already.
    ScanError: no mesh at all, or a file that cannot be used.
    """
    path = entry.path("mesh")
    if path is not None:
        return transform(read_ply(path), alignment)
    if meshes_group is None or meshes_group.attrs.get("source") != "fusion":
        raise ScanError(f"{entry.scan_id}: no mesh file and no fused mesh, expected one; run stage meshes")
    return Mesh(*(np.asarray(meshes_group[name][:]) for name in ("vertices", "faces", "colors")))


def transform(mesh: Mesh, world_from_scan: NDArray[np.float64]) -> Mesh:
    """The mesh in another frame; (4, 4), applied in float64 and then rounded to float32."""
    rotation, translation = world_from_scan[:3, :3], world_from_scan[:3, 3]
    vertices = mesh.vertices.astype(np.float64) @ rotation.T + translation
    return Mesh(vertices.astype(np.float32), mesh.faces, mesh.colors)


def compact(mesh: Mesh, faces: NDArray[np.int32]) -> Mesh:
    """The mesh with only these faces and the vertices that they use, both in their old order."""
    used = np.zeros(len(mesh.vertices), np.bool_)
    used[faces] = True
    new_row = np.cumsum(used, dtype=np.int32) - 1
    return Mesh(mesh.vertices[used], new_row[faces], mesh.colors[used])


def read_ply(path: Path) -> Mesh:
    """Read a coloured PLY file, vertices and faces in file order. ScanError: unreadable, or of no use."""
    import trimesh
    from trimesh.exchange.ply import load_ply

    try:
        size = path.stat().st_size
        if size > MAX_MESH_BYTES:
            raise ScanError(f"{path.name}: got {size} bytes, expected at most {MAX_MESH_BYTES}")
        # `trimesh.load_mesh` would copy all of it twice, and open what the file names as its texture.
        with path.open("rb") as file:
            found = load_ply(file, fix_texture=False, skip_materials=True)
        # `process` would merge and drop vertices, and segment files count them.
        loaded = trimesh.Trimesh(
            found.get("vertices"),
            found.get("faces"),
            vertex_colors=found.get("vertex_colors"),
            process=False,
        )
    except OSError as error:
        raise ScanError(f"{path.name}: cannot be read ({error.strerror})") from None
    except ScanError:
        raise
    except Exception as error:  # whatever a damaged file makes the parser raise
        raise ScanError(f"{path.name}: cannot be read as PLY ({type(error).__name__}: {error})") from None
    if len(loaded.faces) == 0:
        raise ScanError(f"{path.name}: got no triangles, expected a mesh")
    if loaded.visual.kind != "vertex":
        raise ScanError(f"{path.name}: got no vertex colours, expected red, green, blue per vertex")
    _check(path.name, loaded.vertices, loaded.faces)
    return Mesh(
        np.asarray(loaded.vertices, np.float32),
        np.asarray(loaded.faces, np.int32),
        np.ascontiguousarray(loaded.visual.vertex_colors[:, :3], np.uint8),
    )


def _check(name: str, vertices: NDArray[np.floating], faces: NDArray[np.integer]) -> None:
    """ScanError unless sizes are sane, coordinates finite and every face points at vertices."""
    for what, count, most in (("vertices", len(vertices), MAX_VERTICES), ("faces", len(faces), MAX_FACES)):
        if count > most:
            raise ScanError(f"{name}: got {count} {what}, expected at most {most}")
    finite = np.isfinite(np.asarray(vertices, np.float32)).all(axis=1)
    if not finite.all():
        count = np.count_nonzero(~finite)
        raise ScanError(f"{name}: got {count} vertices that are not finite, expected none")
    low, high, last = int(faces.min()), int(faces.max()), len(vertices) - 1
    if low < 0 or high > last:
        raise ScanError(f"{name}: got vertex index {low if low < 0 else high}, expected 0 to {last}")
