"""The view from above of computed rooms: the highest surface that faces up is seen, at its place."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mesh_rooms import FLOOR, crate, flipped, join, level, room, turned

from pipeline.bev import look_down
from pipeline.bev_sides import wrong_side
from pipeline.config import BevConfig
from pipeline.mesh import Mesh
from scanshards.schema import BEV_SIZE

GREY = (90, 90, 95)
MODES = ("auto", "raycast")


def without_ceiling(mesh):
    """The faces that do not look straight down."""
    edges = mesh.vertices[mesh.faces][:, 1:, :2] - mesh.vertices[mesh.faces][:, :1, :2]
    down = edges[:, 0, 0] * edges[:, 1, 1] - edges[:, 0, 1] * edges[:, 1, 0] < -1e-6
    return Mesh(mesh.vertices, mesh.faces[~down], mesh.colors)


def two_sided(mesh):
    return Mesh(mesh.vertices, np.concatenate([mesh.faces, mesh.faces[:, ::-1]]), mesh.colors)


def check(picture, rectangles, angle, shift):
    """Each pixel shows the highest of the level rectangles (x0, x1, y0, y1, z, colour) there, or nothing.

    Pixels within half a pixel of an edge are left out: there, rounding decides.
    """
    record = picture.record()
    assert record["present"]
    column, row = np.meshgrid(np.arange(BEV_SIZE), np.arange(BEV_SIZE))
    flat = np.stack([column, row, np.zeros_like(row), np.ones_like(row)], axis=-1)
    x, y = np.moveaxis((flat @ np.array(record["world_from_bev"]).T)[..., :2] - shift[:2], -1, 0)
    x, y = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    heights = np.full(x.shape, -np.inf)
    colors = np.zeros((*x.shape, 3), np.uint8)
    border = np.zeros(x.shape, bool)
    reach = record["metres_per_pixel"] / 2
    for x0, x1, y0, y1, z, color in rectangles:
        depth = np.minimum.reduce([x - x0, x1 - x, y - y0, y1 - y])
        border |= np.abs(depth) <= reach
        higher = (depth > 0) & (z > heights)
        heights[higher], colors[higher] = z, color
    covered = np.isfinite(heights)
    inner = ~border
    np.testing.assert_array_equal(picture.valid[inner], covered[inner])
    seen = inner & covered
    np.testing.assert_allclose(picture.heights_m[seen], heights[seen] + shift[2], atol=2e-3)
    assert np.abs(picture.image[seen].astype(int) - colors[seen]).max() <= 1
    assert (picture.image[~picture.valid] == 0).all()
    tops = [z for *_, z, _ in rectangles]
    low, high = record["height_range_m"]
    assert min(tops) - 2e-3 <= low - shift[2] <= high - shift[2] <= max(tops) + 2e-3
    assert record["valid_fraction"] == pytest.approx(covered.mean(), abs=border.mean())


def meshed(rectangles):
    return join(*(level(*rectangle) for rectangle in rectangles))


STAIRS = [(0, 4, 0, 4, 0.0, FLOOR), (6, 10, 0, 4, 1.5, GREY)] + [
    (4 + 0.2 * i, 4.2 + 0.2 * i, 1, 3, 0.15 * (i + 1), (20 * i, 200 - 10 * i, 30)) for i in range(10)
]
"""A split level: a floor, ten steps, and a floor 1.5 m higher."""
CORRIDOR = [(0, 30, 0, 3, 0.0, FLOOR), (12, 13, 1, 2, 0.8, GREY), (26, 27, 0.5, 1.0, 0.4, (200, 30, 30))]
STOREYS = [
    (0, 8, 0, 6, 0.0, FLOOR),
    (0, 4, 0, 6, 2.8, GREY),
    (5, 6, 1, 2, 0.7, (9, 99, 9)),
    (1, 2, 1, 2, 3.5, FLOOR),
]
"""A ground floor with a table, and over half of it an upper floor with a table: that hides what is below."""


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("rectangles", [STAIRS, CORRIDOR, STOREYS], ids=["stairs", "corridor", "storeys"])
@pytest.mark.parametrize(
    ("angle", "shift"), [(0.0, (0.0, 0.0, 0.0)), (0.6, (12.0, -7.0, 480.0)), (-2.2, (0.3, 5.0, -300.0))]
)
def test_the_highest_surface_that_faces_up_is_seen_at_its_place(mode, rectangles, angle, shift):
    mesh = turned(meshed(rectangles), angle, shift)
    check(look_down(mesh, BevConfig(mode)), rectangles, angle, np.array(shift))


@pytest.mark.parametrize("mode", MODES)
def test_a_corridor_of_ten_to_one_is_whole_at_any_angle(mode):
    for angle in np.linspace(0, np.pi, 7):
        picture = look_down(turned(meshed(CORRIDOR), angle, (3.0, 1.0, 0.0)), BevConfig(mode))
        m = picture.frame.metres_per_pixel
        assert picture.valid.sum() * m**2 == pytest.approx(90.0, abs=66.0 * m / 2)  # half a pixel all around


@settings(max_examples=8, deadline=None)
@given(st.floats(0, 6.28), st.floats(2, 9), st.floats(2, 9), st.floats(2.0, 4.0), st.floats(-50, 50))
def test_a_ceiling_changes_no_pixel(angle, width, depth, height, z):
    furniture = crate(0.5, 1.5, 0.4, 1.6, 0.0, 0.75)
    mesh = turned(join(room(width, depth, height, cuts=10), furniture), angle, (1.0, 2.0, z))
    with_ceiling, without = (look_down(m, BevConfig("auto")) for m in (mesh, without_ceiling(mesh)))
    assert len(without_ceiling(mesh).faces) < len(mesh.faces)
    assert with_ceiling.image.tobytes() == without.image.tobytes()
    assert with_ceiling.record()["present"] and without.record()["present"]
    np.testing.assert_allclose(with_ceiling.heights_m, without.heights_m, atol=1e-3)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("z", [1e6, -1e6, 3e3])
def test_a_stray_face_far_above_or_below_takes_no_precision(mode, z):
    mesh = join(meshed(STAIRS), level(1.0, 1.4, 1.0, 1.4, z, (255, 0, 255)))
    picture, clean = (look_down(m, BevConfig(mode)) for m in (mesh, meshed(STAIRS)))
    assert picture.image.tobytes() == clean.image.tobytes()
    np.testing.assert_array_equal(picture.heights_m, clean.heights_m)


# --- fronts and backs


def furnished(width, depth, cuts=20):
    table = join(level(1, 2, 1, 1.6, 0.72, GREY), flipped(level(1, 2, 1, 1.6, 0.70, GREY)))
    bed = crate(0.1, 0.1 + width / 4, depth / 2, depth / 2 + 1, 0.2, 0.5, (150, 40, 60))
    return join(room(width, depth, cuts=cuts), table, bed)


ANGLES = st.floats(0, 6.28)


@settings(max_examples=15, deadline=None)
@given(ANGLES, st.floats(3, 9), st.floats(3, 9), st.integers(1, 60), st.floats(-500, 500))
def test_rooms_pass_and_rooms_inside_out_are_named(angle, width, depth, cuts, z):
    mesh = turned(furnished(width, depth, cuts), angle, (4.0, -3.0, z))
    for proper in (mesh, without_ceiling(mesh), join(mesh, turned(mesh, 0.0, (0, 0, 2.8)))):
        assert wrong_side(proper) == ""
    assert "the mesh is inside out" in wrong_side(flipped(mesh))


def test_a_room_inside_out_without_a_ceiling_is_named_not_blank():
    picture = look_down(flipped(without_ceiling(furnished(5, 4))), BevConfig())
    assert not picture.record()["present"] and "the mesh is inside out" in picture.reason


def test_two_sided_faces_are_a_fault_only_under_a_ceiling():
    mesh = furnished(5, 4)
    assert "the faces are two-sided" in wrong_side(two_sided(mesh))
    open_above = join(level(0, 5, 0, 4, 0.0, FLOOR, 20), crate(1, 2, 1, 2, 0.0, 0.8))
    assert wrong_side(two_sided(open_above)) == ""
    one, both = (look_down(m, BevConfig("raycast")) for m in (open_above, two_sided(open_above)))
    assert one.image.tobytes() == both.image.tobytes()


def test_slabs_with_an_underside_are_no_room_inside_out():
    slab = join(crate(0, 6, 0, 4, -0.25, 0.0, FLOOR), crate(1, 2, 1, 2, 0.0, 0.8))
    assert wrong_side(slab) == ""


def test_a_mesh_of_walls_or_of_nothing_level_is_no_mistake_of_sides():
    walls = room(4, 3)
    assert wrong_side(Mesh(walls.vertices, walls.faces[:8], walls.colors)) == ""
    degenerate = Mesh(
        np.zeros((3, 3), np.float32), np.array([[0, 1, 2]], np.int32), np.zeros((3, 3), np.uint8)
    )
    assert wrong_side(degenerate) == ""
