"""The up direction is found exactly where cameras are level, and sensibly where they are not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from sens_room import ALIGNMENT
from source_layouts import box, entry_of, write_meta, write_posed_images, write_seven_scenes

from pipeline.sources import alignment, open_source
from pipeline.sources.gravity import up_direction, world_from_scan, world_unless_upright

ANGLES = st.floats(-3.1, 3.1)


def cameras(yaws, pitches, rolls) -> np.ndarray:
    """(N, 4, 4) world_from_cam, z up: yaw about z, then pitch up, then roll about the view."""
    level = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]])  # looks along +y
    yaws, pitches, rolls = (np.reshape(angles, (-1, 1)) for angles in (yaws, pitches, rolls))
    turns = Rotation.from_euler("z", yaws) * Rotation.from_matrix(level)
    poses = np.tile(np.eye(4), (len(yaws), 1, 1))
    tilts = Rotation.from_euler("x", pitches) * Rotation.from_euler("z", rolls)
    poses[:, :3, :3] = (turns * tilts).as_matrix()
    return poses


def track(seed: int, spread: float, pitch: float, roll: float, num: int = 200) -> np.ndarray:
    random = np.random.default_rng(seed)
    return cameras(
        random.uniform(-spread, spread, num), random.normal(pitch, 0.2, num), random.normal(0, roll, num)
    )


def in_scan(poses, gravity: Rotation) -> np.ndarray:
    """The same cameras in a frame in which the world's z axis is gravity.apply([0, 0, 1])."""
    turned = poses.copy()
    turned[:, :3, :3] = gravity.as_matrix() @ poses[:, :3, :3]
    return turned


@given(st.tuples(ANGLES, ANGLES, ANGLES), st.floats(-1.2, 0.6), st.floats(0.3, 3.1), st.integers(0, 99))
def test_level_cameras_give_the_exact_direction(euler, pitch, spread, seed):
    gravity = Rotation.from_euler("zyx", euler)
    poses = in_scan(track(seed, spread, pitch, roll=0.0), gravity)
    np.testing.assert_allclose(up_direction(poses), gravity.apply([0, 0, 1]), atol=1e-7)
    matrix = world_from_scan(poses)
    np.testing.assert_allclose(matrix[:3, :3] @ gravity.apply([0, 0, 1]), [0, 0, 1], atol=1e-7)
    np.testing.assert_allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3), atol=1e-8)
    assert np.linalg.det(matrix[:3, :3]) > 0
    np.testing.assert_array_equal(matrix[:3, 3], 0)
    np.testing.assert_array_equal(world_from_scan(poses), matrix)


@pytest.mark.parametrize("pitch", [-1.0, -0.5, 0.0, 0.5])
def test_unsteady_hands_cost_a_degree_or_two(pitch):
    """Rolls of 6 degrees; a mean of the pictures' up would be off by the pitch."""
    for seed in range(5):
        gravity = Rotation.random(random_state=seed)
        up = up_direction(in_scan(track(seed, 3.1, pitch, roll=0.1), gravity))
        assert np.degrees(np.arccos(up @ gravity.apply([0, 0, 1]))) < 2


def test_cameras_that_all_face_one_way_give_the_mean_of_their_up():
    gravity = Rotation.random(random_state=3)
    poses = in_scan(track(0, 0.02, -0.4, roll=0.01), gravity)
    mean = -poses[:, :3, 1].mean(axis=0)
    np.testing.assert_allclose(up_direction(poses), mean / np.linalg.norm(mean), atol=1e-12)
    single = in_scan(cameras([1.0], [0.0], [0.0]), gravity)
    np.testing.assert_allclose(up_direction(single), gravity.apply([0, 0, 1]), atol=1e-12)


def test_cameras_that_tumble_give_the_mean_of_their_up():
    poses = np.tile(np.eye(4), (500, 1, 1))
    poses[:, :3, :3] = Rotation.random(500, random_state=2).as_matrix()
    mean = -poses[:, :3, 1].mean(axis=0)
    np.testing.assert_allclose(up_direction(poses), mean / np.linalg.norm(mean), atol=1e-12)


@pytest.mark.parametrize("tilt", [0.0, 1e-9, 0.5, 2.0, 3.0, np.pi - 1e-6, np.pi])
def test_it_is_the_smallest_rotation(tilt):
    for seed in range(5):
        axis = [*np.random.default_rng(seed).normal(size=2), 0]
        gravity = Rotation.from_rotvec(tilt * np.array(axis) / np.linalg.norm(axis))
        matrix = world_from_scan(in_scan(track(seed, 3.1, -0.3, roll=0.0), gravity))[:3, :3]
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-8)
        np.testing.assert_allclose(matrix @ gravity.apply([0, 0, 1]), [0, 0, 1], atol=1e-7)
        np.testing.assert_allclose(Rotation.from_matrix(matrix).magnitude(), tilt, atol=1e-6)


def test_without_a_pose_nothing_is_turned():
    np.testing.assert_array_equal(world_from_scan(np.zeros((0, 4, 4))), np.eye(4))


def test_a_recording_of_7_scenes_stands_upright(tmp_path):
    recording = box()
    tilt = np.eye(4)
    tilt[:3, :3] = Rotation.random(random_state=5).as_matrix()
    found = np.isfinite(recording.poses).all(axis=(1, 2))
    recording.poses[found] = tilt @ recording.poses[found]
    folder = write_seven_scenes(tmp_path, "room", recording)
    entry = entry_of(tmp_path, "room")
    with open_source(entry) as source:
        np.testing.assert_allclose((source.alignment @ tilt)[2], [0, 0, 1, 0], atol=1e-6)
        np.testing.assert_array_equal(alignment(entry), source.alignment)
    write_meta(folder, "room", ALIGNMENT)
    np.testing.assert_array_equal(alignment(entry_of(tmp_path, "room")), ALIGNMENT)
    (folder / "room.txt").write_text("sceneType = Office\n")  # no alignment in it
    np.testing.assert_allclose((alignment(entry_of(tmp_path, "room")) @ tilt)[2], [0, 0, 1, 0], atol=1e-6)


@pytest.mark.parametrize(
    ("lean_deg", "stays"), [(0, True), (29, True), (31, False), (90, False), (180, False)]
)
def test_a_frame_meant_to_be_upright_is_turned_only_if_it_lies(tmp_path, lean_deg, stays):
    lean = np.eye(4)
    lean[:3, :3] = Rotation.from_euler("x", lean_deg, degrees=True).as_matrix()
    recording = box()
    found = np.isfinite(recording.poses).all(axis=(1, 2))
    recording.poses[found] = lean @ recording.poses[found]
    write_posed_images(tmp_path, "room", recording)
    got = alignment(entry_of(tmp_path, "room"))
    if stays:
        np.testing.assert_array_equal(got, np.eye(4))
    else:
        np.testing.assert_allclose((got @ lean)[2], [0, 0, 1, 0], atol=1e-6)


def test_a_frame_meant_to_be_upright_is_kept_where_cameras_say_nothing():
    lying = in_scan(cameras([1.0] * 9, [0.0] * 9, [0.0] * 9), Rotation.from_euler("x", 90, degrees=True))
    np.testing.assert_array_equal(world_unless_upright(lying), np.eye(4))
    np.testing.assert_array_equal(world_unless_upright(np.zeros((0, 4, 4))), np.eye(4))
