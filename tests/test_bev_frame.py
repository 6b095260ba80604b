"""The square of a picture from above holds the whole room, and nothing that is not the room changes it."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from mesh_rooms import FLOOR, join, level, room, turned

from pipeline.bev_frame import MARGIN_M, bev_frame, facing_up
from scanshards.schema import BEV_SIZE


def square(mesh):
    """(left, right, bottom, top) of the outer edges of the picture of a mesh."""
    frame = bev_frame(facing_up(mesh))
    half, m = frame.metres_per_pixel / 2, frame.metres_per_pixel
    left, top = frame.left_m - half, frame.top_m + half
    return np.array([left, left + BEV_SIZE * m, top - BEV_SIZE * m, top])


def test_north_is_up_and_east_is_right():
    matrix = bev_frame(facing_up(room(4, 3))).world_from_bev()
    assert matrix[0, 0] > 0 > matrix[1, 1]
    assert matrix[0, 0] == -matrix[1, 1]
    assert matrix[2, 2] == 1


@settings(max_examples=40, deadline=None)
@given(st.floats(1.5, 12), st.floats(1.5, 12), st.floats(0, 6.28), st.floats(-20, 20), st.integers(1, 60))
def test_a_room_is_never_cut_off_and_fills_the_square(width, depth, angle, shift, cuts):
    mesh = turned(room(width, depth, cuts=cuts), angle, (shift, -shift / 2, 1.0))
    left, right, bottom, top = square(mesh)
    low, high = mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)
    assert left <= low[0] and high[0] <= right
    assert bottom <= low[1] and high[1] <= top
    assert right - left <= (high - low)[:2].max() + 2 * MARGIN_M + 0.2


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.floats(0.5, 30), st.integers(1, 60))
def test_stray_surface_does_not_change_the_square(seed, reach, count):
    random = np.random.default_rng(seed)
    mesh = turned(room(5, 4, cuts=20), 0.4)
    angles, radii = random.uniform(0, 6.28, count), 4.0 + reach * random.uniform(0, 1, count)
    places = np.stack([2 + radii * np.cos(angles), 3 + radii * np.sin(angles)], axis=1)
    dust = [
        level(x, x + s, y, y + s, z, FLOOR)
        for (x, y), s, z in zip(
            places, random.uniform(0.001, 0.2, count), random.uniform(-1, 3, count), strict=True
        )
    ]
    np.testing.assert_allclose(square(join(mesh, *dust)), square(mesh), atol=1e-9)


def test_a_stray_vertex_at_the_end_of_the_world_changes_nothing():
    mesh = room(5, 4, cuts=20)
    far = level(1e5, 1e5 + 0.5, -1e5, -1e5 + 0.5, 0.0, FLOOR)
    np.testing.assert_allclose(square(join(mesh, far)), square(mesh), atol=1e-9)


def test_a_streak_of_noise_does_not_shrink_the_room():
    mesh = room(5, 4, cuts=20)
    streak = level(5, 12, 1.0, 1.2, 0.5, FLOOR, cuts=20)
    np.testing.assert_allclose(square(join(mesh, streak)), square(mesh), atol=0.2)


def test_a_corridor_and_a_second_room_behind_it_are_kept():
    mesh = join(room(5, 4), level(5, 14, 1.0, 2.0, 0.0, FLOOR), level(14, 17, 0, 3, 0.0, FLOOR))
    left, right, _, _ = square(mesh)
    assert left <= 0
    assert right >= 17


def test_a_separate_room_is_kept():
    left, right, _, _ = square(join(room(5, 4), level(8, 10, 1.0, 3.0, 0.0, FLOOR)))
    assert left <= 0
    assert right >= 10


def test_a_place_of_narrow_parts_only_is_kept_whole():
    bars = [level(0, 6, y, y + 0.25, 0.0, FLOOR) for y in (0, 2, 4)]
    left, right, bottom, top = square(join(*bars))
    assert left <= 0 and right >= 6 and bottom <= 0 and top >= 4.25


def test_the_square_does_not_depend_on_how_fine_the_mesh_is():
    for angle in (0.0, 0.7):
        coarse, fine = (square(turned(room(7, 4, cuts=cuts), angle)) for cuts in (1, 150))
        np.testing.assert_allclose(coarse, fine, atol=0.11)
