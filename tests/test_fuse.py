"""Fusion rebuilds a known room, faces its cameras, gives the same bytes, and accounts for every frame."""

import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from mesh_rooms import CEILING, FLOOR, BoxRecording, crate, join, level
from scipy.spatial import cKDTree

from pipeline import fuse as fuse_module
from pipeline import timing
from pipeline.config import Config, MeshesConfig
from pipeline.fuse import build, first_hits, fuse, one_thread, pixel_grid, without_specks
from pipeline.mesh import load_mesh
from pipeline.scans import ScanEntry

CONFIG = MeshesConfig(voxel_m=0.04)
ENTRY = ScanEntry("s", "nowhere", {}, "train", "scannet")
ALIGNMENT = np.array([[0, -1, 0, 3.0], [1, 0, 0, -2.0], [0, 0, 1, 1.5], [0, 0, 0, 1]], np.float64)


@pytest.fixture(scope="module")
def box():
    recording = BoxRecording(alignment=ALIGNMENT)
    return recording, fuse(recording, CONFIG).mesh


def normals(mesh):
    corners = mesh.vertices[mesh.faces].astype(np.float64)
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return corners.mean(axis=1), cross / np.linalg.norm(cross, axis=1, keepdims=True).clip(1e-12)


def test_surface_lies_on_the_walls_of_the_room_in_the_world_frame(box):
    recording, mesh = box
    to_walls = np.abs(mesh.vertices[:, :, None] - np.stack([np.zeros(3), recording.size_m], -1)).min(
        axis=(1, 2)
    )
    assert np.median(to_walls) < 0.003
    assert np.quantile(to_walls, 0.99) < CONFIG.voxel_m
    np.testing.assert_allclose(mesh.vertices.min(axis=0), 0, atol=CONFIG.voxel_m)
    np.testing.assert_allclose(mesh.vertices.max(axis=0), recording.size_m, atol=CONFIG.voxel_m)


def test_faces_look_at_the_cameras_so_floors_look_up_and_ceilings_down(box):
    recording, mesh = box
    centres, directions = normals(mesh)
    assert (((recording.alignment @ recording.poses)[0, :3, 3] - centres) * directions).sum(axis=1).min() > 0
    inner = (np.abs(centres[:, :2] - np.array(recording.size_m[:2]) / 2) < 1.0).all(axis=1)
    floor, ceiling = inner & (centres[:, 2] < 0.1), inner & (centres[:, 2] > 2.3)
    assert directions[floor, 2].min() > 0.9
    assert directions[ceiling, 2].max() < -0.9


def test_colours_are_those_of_the_surfaces(box):
    recording, mesh = box
    inner = (np.abs(mesh.vertices[:, :2] - np.array(recording.size_m[:2]) / 2) < 1.0).all(axis=1)
    assert (np.abs(mesh.colors[inner & (mesh.vertices[:, 2] < 0.1)] - np.array(FLOOR)) <= 1).all()
    assert (np.abs(mesh.colors[inner & (mesh.vertices[:, 2] > 2.3)].astype(int) - CEILING) <= 1).all()


@pytest.mark.parametrize("threads", ["1", "2"])
def test_same_frames_give_the_same_bytes_whatever_the_threads(box, monkeypatch, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    again = fuse(BoxRecording(alignment=ALIGNMENT), CONFIG).mesh
    for name in ("vertices", "faces", "colors"):
        assert getattr(again, name).tobytes() == getattr(box[1], name).tobytes()


def test_broken_frames_are_skipped_and_counted_and_lost_ones_not_tried():
    recording = BoxRecording(steps=6, broken=(2, 5), lost=(0, 7))
    fusion = fuse(recording, CONFIG)
    assert (fusion.num_frames, fusion.num_skipped_frames) == (8, 2)
    assert set(recording.seen) == set(range(12)) - {0, 7, 2, 5}


def test_at_most_max_frames_are_fused_evenly_spread():
    recording = BoxRecording(steps=12, lost=(1,))
    assert fuse(recording, MeshesConfig(voxel_m=0.08, max_frames=5)).num_frames == 5
    posed = [i for i in range(24) if i != 1]
    assert recording.seen == [posed[int(x)] for x in np.linspace(0, 22, 5)]


def test_a_camera_at_an_absurd_place_is_not_fused():
    recording = BoxRecording(steps=2)
    recording.poses[1, :3, 3] = 1e30
    assert fuse(recording, CONFIG).num_frames == 3


def test_depth_beyond_the_limit_is_not_fused():
    mesh = fuse(
        BoxRecording(size_m=(9.0, 3.0, 2.4), steps=6), MeshesConfig(voxel_m=0.05, max_depth_m=2.0)
    ).mesh
    reach_m = 2.0 * np.hypot(1.0, 80 / 90)
    assert np.abs(mesh.vertices[:, 0] - 4.5).max() < reach_m + 0.05


def fine_recording(kind=BoxRecording):
    """Depth pictures whose pixels at 4 m are half as large as a voxel of `FINE`."""
    recording = kind(depth_size=(320, 240), color_size=(640, 480))
    recording.depth_intrinsics = np.array([[180.0, 0, 159.5], [0, 180.0, 119.5], [0, 0, 1]])
    return recording


FINE = MeshesConfig(voxel_m=0.05)


@given(
    sides=st.tuples(st.integers(1, 700), st.integers(1, 700)),
    focals=st.tuples(st.floats(50, 2000), st.floats(50, 2000)),
    centre=st.tuples(st.floats(0, 700), st.floats(0, 700)),
    voxel_m=st.floats(0.005, 0.1),
)
def test_the_grid_takes_rays_of_whole_pixels_fine_enough_for_the_voxels(sides, focals, centre, voxel_m):
    k = np.array([[focals[0], 0, centre[0]], [0, focals[1], centre[1]], [0, 0, 1]])
    grid = pixel_grid(sides, k, MeshesConfig(voxel_m=voxel_m))
    for axis in (0, 1):
        picked = np.arange(sides[axis])[grid.step // 2 :: grid.step]
        assert len(picked) == grid.size[axis]
        rays = (np.arange(len(picked)) - grid.centre[axis]) / grid.focals[axis]
        np.testing.assert_allclose(rays, (picked - k[axis, 2]) / k[axis, axis], atol=1e-12)
    pixel_m = 4.0 / min(grid.focals)
    assert grid.step == 1 or pixel_m <= voxel_m
    assert grid.stride == 1 or grid.stride * pixel_m <= fuse_module.BLOCK_VOXELS * voxel_m / 2


def test_every_second_pixel_gives_the_surface_of_all_pixels(monkeypatch):
    recording = fine_recording()
    assert pixel_grid(recording.depth_size, recording.depth_intrinsics, FINE).step == 2
    half = fuse(recording, FINE).mesh
    grid = pixel_grid((320, 240), recording.depth_intrinsics, MeshesConfig(voxel_m=0.04))
    assert grid.step == 1
    monkeypatch.setattr(fuse_module, "pixel_grid", lambda *_: grid)
    whole = fuse(recording, FINE).mesh
    for mesh in (half, whole):
        to_walls = np.abs(mesh.vertices[:, :, None] - np.stack([np.zeros(3), recording.size_m], -1))
        assert np.quantile(to_walls.min(axis=(1, 2)), 0.99) < 0.01
    for mesh, other in ((half, whole), (whole, half)):
        nearest = cKDTree(other.vertices).query(mesh.vertices)[0]
        assert np.quantile(nearest, 0.99) < 0.01
        assert nearest.max() < 2 * FINE.voxel_m


def test_no_block_is_missed_between_the_sampled_pixels(monkeypatch, box):
    monkeypatch.setattr(fuse_module, "MAX_STRIDE", 1)
    every = fuse(BoxRecording(alignment=ALIGNMENT), CONFIG).mesh
    assert pixel_grid((160, 120), box[0].depth_intrinsics, CONFIG).stride == 1
    assert len(every.vertices) == pytest.approx(len(box[1].vertices), rel=1e-3)


def test_a_source_that_decodes_small_pictures_is_asked_for_the_size_of_the_grid():
    asked = []

    class Small(BoxRecording):
        def small_color(self, index, at_least):
            asked.append(at_least)
            return cv2.resize(self.color(index), at_least, interpolation=cv2.INTER_AREA)

    ours = fuse(fine_recording(Small), FINE).mesh
    theirs = fuse(fine_recording(), FINE).mesh
    assert asked == [(160, 120)] * 24
    for name in ("vertices", "faces", "colors"):
        assert getattr(ours, name).tobytes() == getattr(theirs, name).tobytes()


def test_the_time_of_a_fusion_goes_to_its_parts():
    timing.take()
    fuse(BoxRecording(steps=2, broken=(1,)), CONFIG)
    assert set(timing.take()) == {"decode", "integrate", "extract surface"}


@pytest.mark.parametrize("recording", [BoxRecording(steps=2, lost=range(4)), BoxRecording(broken=range(24))])
def test_nothing_to_fuse_is_an_empty_mesh_with_a_reason_not_a_rejection(tmp_path, monkeypatch, recording):
    monkeypatch.setattr(fuse_module, "open_source", lambda entry: recording)
    group = zarr.open_group(tmp_path, mode="w")
    build(ENTRY, group, Config(meshes=CONFIG), {})
    assert (group.attrs["source"], group.attrs["num_vertices"], group.attrs["num_faces"]) == ("fusion", 0, 0)
    assert group.attrs["reason"].startswith("no surface from 0 frames")
    assert load_mesh(ENTRY, group, np.eye(4)).faces.shape == (0, 3)


def test_the_stage_stores_what_load_mesh_gives_back(tmp_path, monkeypatch, box):
    monkeypatch.setattr(fuse_module, "open_source", lambda entry: BoxRecording(alignment=ALIGNMENT))
    group = zarr.open_group(tmp_path, mode="w")
    build(ENTRY, group, Config(meshes=CONFIG), {})
    loaded = load_mesh(ENTRY, group, np.eye(4))
    for name, dtype in (("vertices", np.float32), ("faces", np.int32), ("colors", np.uint8)):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(box[1], name))
        assert getattr(loaded, name).dtype == dtype
    assert group.attrs["num_faces"] == len(loaded.faces)
    assert group.attrs["reason"] == ""


def test_specks_go_by_area_and_the_rest_stays_as_it_is():
    large, small = level(0, 1, 0, 1, 0.0, FLOOR, cuts=3), level(5, 5.1, 0, 0.1, 0.0, FLOOR, cuts=9)
    kept = without_specks(join(small, large, small), 0.02)
    np.testing.assert_array_equal(kept.vertices, large.vertices)
    np.testing.assert_array_equal(kept.faces, large.faces)
    both = without_specks(join(small, large), 0.009)
    np.testing.assert_array_equal(both.faces, join(small, large).faces)


def test_ray_hits_equal_a_slow_search_over_all_faces():
    mesh = join(crate(0, 1, 0, 2, 0, 1), level(-3, 3, -3, 3, -0.5, FLOOR, cuts=2), crate(-2, -1, -2, 0, 1, 3))
    random = np.random.default_rng(0)
    rays = np.concatenate([random.uniform(-3, 3, (200, 3)), random.normal(0, 1, (200, 3))], axis=1)
    rays = rays.astype(np.float32)
    distances, faces, weights = first_hits(mesh.vertices, mesh.faces, rays)
    corners = mesh.vertices[mesh.faces].astype(np.float64)
    for ray, distance, face, weight in zip(rays.astype(np.float64), distances, faces, weights, strict=True):
        # Solve origin + t d = w0 a + w1 b + w2 c for every face.
        systems = np.stack(
            [
                np.broadcast_to(-ray[3:], (len(corners), 3)),
                *np.moveaxis(corners[:, 1:] - corners[:, :1], 1, 0),
            ],
            -1,
        )
        determinant = np.linalg.det(systems)
        solvable = np.abs(determinant) > 1e-9
        t, w1, w2 = np.linalg.solve(systems[solvable], (ray[:3] - corners[solvable, 0])[..., None])[..., 0].T
        hit = (t > 0) & (w1 >= 0) & (w2 >= 0) & (w1 + w2 <= 1)
        nearest = t[hit].min() if hit.any() else np.inf
        assert distance == pytest.approx(nearest, rel=1e-4)
        if hit.any():
            np.testing.assert_allclose(weight @ corners[face], ray[:3] + distance * ray[3:], atol=1e-4)


def test_threads_are_limited_inside_only_and_never_against_the_user(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with one_thread():
        assert os.environ["OMP_NUM_THREADS"] == "1"
    assert "OMP_NUM_THREADS" not in os.environ
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    with one_thread():
        assert os.environ["OMP_NUM_THREADS"] == "3"
    assert os.environ["OMP_NUM_THREADS"] == "3"


def test_importing_the_stages_loads_no_heavy_package():
    heavy = "{'open3d', 'pyrender', 'OpenGL', 'trimesh', 'torch'}"
    code = f"import sys, pipeline.fuse, pipeline.bev; print(sorted({heavy} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
