"""Resize, crop and unprojection against OpenCV and against the slow way."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanshards import geometry
from scanshards.geometry import resize_plan
from tests.make_shards import INTRINSICS, camera_pose

SIZES = [(640, 480), (480, 640), (1296, 968), (641, 479), (384, 384), (320, 240), (500, 333), (257, 400)]


def full_coords(depth_mm: np.ndarray, intrinsics: np.ndarray, world_from_cam: np.ndarray) -> np.ndarray:
    """(H, W, 3) float64: every recorded pixel, one formula, no shortcut."""
    v, u = np.mgrid[: depth_mm.shape[0], : depth_mm.shape[1]]
    z = depth_mm / 1000.0
    x = (u - intrinsics[0, 2]) * z / intrinsics[0, 0]
    y = (v - intrinsics[1, 2]) * z / intrinsics[1, 1]
    points = np.stack([x, y, z, np.ones_like(z)], axis=-1) @ world_from_cam.T
    points[depth_mm == 0] = np.nan
    return points[..., :3]


def random_depth(width: int, height: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    depth = rng.integers(400, 6000, (height, width), dtype=np.uint16)
    depth[rng.random(depth.shape) < 0.2] = 0
    return depth


def random_pose(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    pose = camera_pose(rng.uniform(0, 6)) @ camera_pose(rng.uniform(0, 6))
    pose[:3, 3] = rng.uniform(-8, 8, 3)
    return pose


def test_scannet_images_become_512x384_with_64_columns_cut_left():
    assert resize_plan(640, 480) == geometry.ResizePlan(640, 480, 512, 384, 64, 0, 384)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_plan_follows_its_three_rules(width, height):
    plan = resize_plan(width, height)
    assert min(plan.width, plan.height) == 384
    assert max(plan.width, plan.height) == int(max(width, height) * 384 / min(width, height))
    assert (plan.x, plan.y) == ((plan.width - 384) // 2, (plan.height - 384) // 2)


@given(source=st.integers(1, 3000), target=st.integers(1, 1200))
@settings(max_examples=300, deadline=None)
def test_nearest_index_is_that_of_opencv(source, target):
    columns = np.arange(source, dtype=np.float64)[None, :]
    expected = cv2.resize(columns, (target, 1), interpolation=cv2.INTER_NEAREST)[0]
    np.testing.assert_array_equal(geometry._nearest_index(source, target), expected)


def test_nearest_index_is_that_of_opencv_for_all_usual_sizes():
    for source in range(200, 1400, 7):
        for other in (480, 640, 968):
            plan = resize_plan(source, other)
            columns = np.arange(source, dtype=np.float64)[None, :]
            resized = cv2.resize(columns, (plan.width, 1), interpolation=cv2.INTER_NEAREST)[0]
            u, _ = geometry.source_pixels(plan)
            np.testing.assert_array_equal(u, resized[plan.x : plan.x + 384])


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_depth_equals_opencv_nearest_then_crop(width, height):
    depth, plan = random_depth(width, height), resize_plan(width, height)
    resized = cv2.resize(depth, (plan.width, plan.height), interpolation=cv2.INTER_NEAREST)
    expected = resized[plan.y : plan.y + 384, plan.x : plan.x + 384]
    np.testing.assert_array_equal(geometry.resize_depth(depth, plan), expected)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_coords_equal_full_unprojection_then_nearest_resize(width, height):
    depth, plan = random_depth(width, height), resize_plan(width, height)
    intrinsics, pose = np.array(INTRINSICS), random_pose()
    u, v = geometry.source_pixels(plan)
    coords = geometry.unproject(geometry.resize_depth(depth, plan), intrinsics, pose, u, v)
    full = full_coords(depth, intrinsics, pose).astype(np.float32)
    resized = cv2.resize(full, (plan.width, plan.height), interpolation=cv2.INTER_NEAREST)
    expected = resized[plan.y : plan.y + 384, plan.x : plan.x + 384]
    assert coords.dtype == np.float32
    np.testing.assert_array_equal(np.isnan(coords), np.isnan(expected))
    np.testing.assert_array_max_ulp(coords[np.abs(coords) > 1e-3], expected[np.abs(coords) > 1e-3], maxulp=1)
    np.testing.assert_allclose(coords, expected, atol=2e-9, rtol=1.2e-7)


def test_a_wall_ahead_lies_where_it_should():
    depth = np.full((384, 384), 2000, np.uint16)
    u, v = geometry.source_pixels(resize_plan(640, 480))
    coords = geometry.unproject(depth, np.array(INTRINSICS), camera_pose(0.0), u, v)
    np.testing.assert_allclose(coords[..., 0], 2.5, atol=1e-6)  # 2 m ahead along +x, camera at x = 0.5
    assert (np.diff(coords[..., 1], axis=1) < 0).all()  # to the right is -y
    assert (np.diff(coords[..., 2], axis=0) < 0).all()  # down is down
    expected_y = -(float(u[10]) - 319.5) * 2.0 / 577.87
    np.testing.assert_allclose(coords[0, 10, 1], expected_y, atol=1e-6)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_projecting_coordinates_back_gives_pixel_and_depth(seed):
    pose, intrinsics = random_pose(seed), np.array(INTRINSICS)
    depth = random_depth(24, 16, seed)
    u, v = np.arange(100, 124), np.arange(50, 66)
    coords = geometry.unproject(depth, intrinsics, pose, u, v).astype(np.float64)
    seen = depth > 0
    cam = (coords[seen] - pose[:3, 3]) @ pose[:3, :3]
    pixel = cam @ intrinsics.T
    grid_v, grid_u = np.meshgrid(v, u, indexing="ij")
    np.testing.assert_allclose(cam[:, 2] * 1000, depth[seen], atol=0.01)
    np.testing.assert_allclose(pixel[:, 0] / pixel[:, 2], grid_u[seen], atol=0.01)
    np.testing.assert_allclose(pixel[:, 1] / pixel[:, 2], grid_v[seen], atol=0.01)


def test_batched_unprojection_equals_one_by_one():
    depth = np.stack([random_depth(20, 12, seed) for seed in range(6)]).reshape(2, 3, 12, 20)
    poses = np.stack([random_pose(seed) for seed in range(6)]).reshape(2, 3, 4, 4)
    u, v, intrinsics = np.arange(20) * 3, np.arange(12) * 2, np.array(INTRINSICS)
    batched = geometry.unproject(depth, intrinsics, poses, u, v)
    for index in np.ndindex(2, 3):
        single = geometry.unproject(depth[index], intrinsics, poses[index], u, v)
        np.testing.assert_array_equal(batched[index], single)


@pytest.mark.parametrize("missing", ["ignore", "camera"])
@pytest.mark.parametrize("patch", [27, 14, 100])
def test_patch_coords_equal_the_slow_masked_mean(missing, patch):
    plan = resize_plan(640, 480)
    depth = np.stack([geometry.resize_depth(random_depth(640, 480, seed), plan) for seed in range(3)])
    depth[1, : 2 * patch, :patch] = 0  # patches without any depth
    depth[2] = 0
    intrinsics, poses = np.array(INTRINSICS), np.stack([random_pose(seed) for seed in range(3)])
    u, v = geometry.source_pixels(plan)
    coords = geometry.unproject(depth, intrinsics, poses, u, v).astype(np.float64)
    if missing == "camera":
        coords = np.where(np.isnan(coords), poses[:, None, None, :3, 3], coords)
    count = 384 // patch
    expected = np.full((3, count, count, 3), np.nan)
    for n, r, c in np.ndindex(3, count, count):
        block = coords[n, r * patch : (r + 1) * patch, c * patch : (c + 1) * patch].reshape(-1, 3)
        seen = block[~np.isnan(block[:, 0])]
        if len(seen):
            expected[n, r, c] = seen.mean(axis=0)
    got = geometry.patch_coords(depth, intrinsics, poses, u, v, patch, missing)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(expected))
    np.testing.assert_allclose(got, expected, atol=1e-5, rtol=0)
    assert np.isnan(got[1, 0, 0]).all() == (missing == "ignore")
    if missing == "camera":
        np.testing.assert_allclose(got[2], np.broadcast_to(poses[2, :3, 3], got[2].shape), atol=1e-6)


@given(seed=st.integers(0, 1000), far=st.integers(1, 65535))
@settings(max_examples=20, deadline=None)
def test_patch_moments_are_exact(seed, far):
    rng = np.random.default_rng(seed)
    depth = rng.integers(0, far, (1, 54, 81), dtype=np.uint16)
    u, v = np.sort(rng.integers(0, 16384, 81)), np.sort(rng.integers(0, 16384, 54))
    moments, counts = geometry._patch_moments(depth, u, v, 27)
    for r, c in np.ndindex(2, 3):
        block = depth[0, 27 * r : 27 * r + 27, 27 * c : 27 * c + 27].astype(object)
        u_block, v_block = u[27 * c : 27 * c + 27].astype(object), v[27 * r : 27 * r + 27].astype(object)
        expected = [(block * u_block).sum(), (block * v_block[:, None]).sum(), block.sum()]
        assert [int(value) for value in moments[0, r, c]] == expected
        assert counts[0, r, c] == (block > 0).sum()


def test_color_shrinks_by_area_and_grows_bilinearly():
    rng = np.random.default_rng(0)
    plan = resize_plan(640, 480)
    for (width, height), filter_ in (((1296, 968), cv2.INTER_AREA), ((320, 240), cv2.INTER_LINEAR)):
        rgb = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        expected = cv2.resize(rgb, (512, 384), interpolation=filter_)[:, 64:448]
        np.testing.assert_array_equal(geometry.resize_color(rgb, plan), expected)


def test_color_of_the_target_size_is_only_cropped():
    rgb = np.random.default_rng(0).integers(0, 256, (384, 512, 3), dtype=np.uint8)
    np.testing.assert_array_equal(geometry.resize_color(rgb, resize_plan(640, 480)), rgb[:, 64:448])


def test_stored_coordinates_are_whole_millimetres_and_mark_what_is_missing():
    coords = np.array([[1.2344, -0.0006, 32.767], [np.nan] * 3, [0, 0, 32.7676], [-40, 0, 0]], np.float32)
    stored = geometry.coords_mm_from_coords(coords)
    missing = [-32768] * 3
    assert stored.dtype == np.int16
    assert stored.tolist() == [[1234, -1, 32767], missing, missing, missing]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth_mm": np.zeros((1, 4, 6), np.int32)}, "int32, expected .* uint16"),
        ({"intrinsics": np.eye(4)}, r"intrinsics: got shape \(4, 4\), expected \(3, 3\)"),
        ({"a_from_cam": np.eye(4)}, r"a_from_cam: got shape \(4, 4\), expected \(1, 4, 4\)"),
        ({"u": np.arange(4)}, r"u: got shape \(4,\), expected \(6,\)"),
    ],
)
def test_wrong_shapes_are_named(change, message):
    arguments = {
        "depth_mm": np.zeros((1, 4, 6), np.uint16),
        "intrinsics": np.eye(3),
        "a_from_cam": np.eye(4)[None],
        "u": np.arange(6),
        "v": np.arange(4),
    }
    with pytest.raises(ValueError, match=message):
        geometry.unproject(**(arguments | change))


def test_wrong_images_and_modes_are_named():
    plan = resize_plan(640, 480)
    with pytest.raises(ValueError, match=r"got \(480, 641\) uint16, expected \(480, 640\) uint16"):
        geometry.resize_depth(np.zeros((480, 641), np.uint16), plan)
    with pytest.raises(ValueError, match=r"expected \(H, W, 3\) uint8"):
        geometry.resize_color(np.zeros((480, 640), np.uint8), plan)
    with pytest.raises(ValueError, match="at least 1 pixel"):
        resize_plan(0, 480)
    empty = np.zeros((1, 27, 27), np.uint16)
    with pytest.raises(ValueError, match="expected 'ignore' or 'camera'"):
        geometry.patch_coords(empty, np.eye(3), np.eye(4)[None], np.arange(27), np.arange(27), 27, "mean")
