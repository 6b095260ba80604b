"""A mesh keeps its file's order, lands in the world frame exactly, and bad files are refused by name."""

import numpy as np
import pytest
import zarr
from mesh_rooms import clutter

from pipeline import mesh as mesh_module
from pipeline.errors import ScanError
from pipeline.mesh import Mesh, compact, load_mesh, read_ply, transform
from pipeline.scans import FileStamp, ScanEntry

VERTEX = np.dtype([("xyz", "<f4", 3), ("rgba", "u1", 4)])
FACE = np.dtype([("count", "u1"), ("corners", "<i4", 3)])


def ply(vertices, faces, colors, colored=True) -> bytes:
    """ScanNet's PLY layout: binary little-endian, float x y z, uchar red green blue alpha."""
    fields = ("red", "green", "blue", "alpha")
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(vertices)}"]
    header += [f"property float {axis}" for axis in "xyz"]
    header += [f"property uchar {name}" for name in fields] if colored else []
    header += [f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header", ""]
    rows = np.zeros(len(vertices), VERTEX if colored else VERTEX["xyz"].base)
    if colored:
        rows["xyz"], rows["rgba"] = vertices, np.column_stack([colors, np.full(len(vertices), 255)])
    else:
        rows = np.asarray(vertices, "<f4")
    triangles = np.zeros(len(faces), FACE)
    triangles["count"], triangles["corners"] = 3, faces
    return "\n".join(header).encode() + rows.tobytes() + triangles.tobytes()


@pytest.fixture
def rough():
    """A mesh with what cleaners like to remove: repeated and unused vertices, faces without area."""
    mesh = clutter(3)
    vertices = np.concatenate([mesh.vertices[::-1], mesh.vertices[:5], np.zeros((3, 3), np.float32)])
    faces = np.concatenate([len(mesh.vertices) - 1 - mesh.faces, [[0, 0, 1], [7, 7, 7]]]).astype(np.int32)
    colors = np.random.default_rng(0).integers(0, 256, (len(vertices), 3), np.uint8)
    return Mesh(vertices, faces, colors)


@pytest.fixture
def entry(tmp_path):
    def make(data: bytes) -> ScanEntry:
        path = tmp_path / "s_vh_clean_2.ply"
        path.write_bytes(data)
        return ScanEntry("s", str(tmp_path), {"mesh": FileStamp.of(path, tmp_path)}, "train", "scannet")

    return make


def write(tmp_path, data: bytes):
    path = tmp_path / "s_vh_clean_2.ply"
    path.write_bytes(data)
    return path


def test_vertices_faces_and_colours_come_back_in_file_order(tmp_path, rough):
    read = read_ply(write(tmp_path, ply(rough.vertices, rough.faces, rough.colors)))
    assert (read.vertices.dtype, read.faces.dtype, read.colors.dtype) == (np.float32, np.int32, np.uint8)
    np.testing.assert_array_equal(read.vertices, rough.vertices)
    np.testing.assert_array_equal(read.faces, rough.faces)
    np.testing.assert_array_equal(read.colors, rough.colors)


def test_texture_coordinates_and_a_named_texture_change_nothing(tmp_path, caplog):
    """Vertices stay in file order (a texture loader splits and sorts them), and no other file is opened."""
    header = ["ply", "format ascii 1.0", "comment TextureFile ../secret.png", "element vertex 5"]
    header += [f"property float {name}" for name in ("x", "y", "z", "s", "t")]
    header += [f"property uchar {name}" for name in ("red", "green", "blue")]
    header += ["element face 2", "property list uchar int vertex_indices", "end_header"]
    rows = [[i, i % 2, i // 2, 0.1 * i, 0.5, 10 * i, 2, 3] for i in range(5)]
    lines = [*header, *(" ".join(map(str, row)) for row in rows), "3 4 1 0", "4 0 1 3 2", ""]
    read = read_ply(write(tmp_path, "\n".join(lines).encode()))
    np.testing.assert_array_equal(read.vertices, np.array(rows, np.float32)[:, :3])
    np.testing.assert_array_equal(read.colors[:, 0], [0, 10, 20, 30, 40])
    assert sorted(map(sorted, read.faces.tolist())) == [[0, 1, 3], [0, 1, 4], [0, 2, 3]]
    assert not caplog.records


def test_alignment_is_applied_in_float64_and_rounded_once(entry, rough):
    angle = 0.3
    alignment = np.eye(4)
    alignment[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    alignment[:3, 3] = (-5.123456789, 7.3, 0.0456)
    loaded = load_mesh(entry(ply(rough.vertices, rough.faces, rough.colors)), None, alignment)
    slow = [(alignment @ [*map(float, vertex), 1.0])[:3] for vertex in rough.vertices]
    np.testing.assert_allclose(loaded.vertices, np.array(slow), rtol=6e-8, atol=1e-12)
    assert loaded.vertices.dtype == np.float32


def test_fused_arrays_are_in_the_world_already(tmp_path, rough):
    group = zarr.open_group(tmp_path / "z", mode="w")
    group.attrs["source"] = "fusion"
    for name in ("vertices", "faces", "colors"):
        group.create_array(name, data=getattr(rough, name))
    loaded = load_mesh(ScanEntry("s", str(tmp_path), {}, "train", "scannet"), group, np.diag([2.0, 2, 2, 1]))
    np.testing.assert_array_equal(loaded.vertices, rough.vertices)
    np.testing.assert_array_equal(loaded.faces, rough.faces)
    np.testing.assert_array_equal(loaded.colors, rough.colors)


def test_a_scan_without_any_mesh_is_named(tmp_path):
    with pytest.raises(ScanError, match=r"scene1: no mesh file and no fused mesh"):
        load_mesh(ScanEntry("scene1", str(tmp_path), {}, "train", "scannet"), None, np.eye(4))


def test_every_truncation_is_refused_by_name(tmp_path, rough):
    data = ply(rough.vertices, rough.faces, rough.colors)
    for stop in [*range(0, 320, 9), *np.linspace(320, len(data) - 1, 30, dtype=int).tolist()]:
        with pytest.raises(ScanError, match=r"s_vh_clean_2\.ply: "):
            read_ply(write(tmp_path, data[:stop]))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"faces": [[0, 1, 4]]}, ".*index 4"),
        ({"faces": [[0, 1, -1]]}, "got vertex index -1, expected 0 to 3"),
        ({"faces": np.zeros((0, 3))}, "got no triangles"),
        ({"bad": np.nan}, "got 1 vertices that are not finite"),
        ({"bad": np.inf}, "got 1 vertices that are not finite"),
        ({"colored": False}, "got no vertex colours"),
    ],
)
def test_unusable_content_is_refused(tmp_path, damage, message):
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    vertices[1, 2] = damage.get("bad", 0.0)
    faces = damage.get("faces", [[0, 1, 2]])
    data = ply(vertices, faces, np.zeros((4, 3), np.uint8), damage.get("colored", True))
    with pytest.raises(ScanError, match=rf"s_vh_clean_2\.ply: {message}"):
        read_ply(write(tmp_path, data))


def test_a_file_that_is_too_large_is_not_parsed(tmp_path, monkeypatch):
    monkeypatch.setattr(mesh_module, "MAX_MESH_BYTES", 10)
    with pytest.raises(ScanError, match="got 11 bytes, expected at most 10"):
        read_ply(write(tmp_path, b"x" * 11))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ScanError, match=r"gone\.ply: cannot be read"):
        read_ply(tmp_path / "gone.ply")


def test_compact_keeps_the_geometry_of_the_kept_faces(rough):
    kept = rough.faces[::7]
    small = compact(rough, kept)
    np.testing.assert_array_equal(small.vertices[small.faces], rough.vertices[kept])
    np.testing.assert_array_equal(small.colors[small.faces], rough.colors[kept])
    assert set(small.faces.ravel()) == set(range(len(small.vertices)))


def test_transform_leaves_faces_and_colours(rough):
    moved = transform(rough, np.eye(4))
    np.testing.assert_array_equal(moved.vertices, rough.vertices)
    assert moved.faces is rough.faces
    assert moved.colors is rough.colors
