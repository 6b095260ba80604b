"""Synthetic rooms as records and meshes: boxes, layout, winding, determinism."""

import itertools
from collections import defaultdict

import cv2
import numpy as np
import pytest

from pipeline.synth.camera import plan_of
from pipeline.synth.labels import NYU40
from pipeline.synth.layout import ROOM_TYPES, sample_scene
from pipeline.synth.meshing import mesh_part, mesh_scene
from pipeline.synth.outline import sample_outline
from pipeline.synth.placing import CELL_M, walk_map
from pipeline.synth.scene import COLORS, Material, Part, Scene, SceneObject

SHELL = {"floor", "ceiling", "wall"}
FLAT = {"rug", "mat"}
CASES = [(kind, 3) for kind in ROOM_TYPES]


@pytest.fixture(scope="module")
def scenes() -> dict[tuple[str, int], Scene]:
    return {(kind, seed): sample_scene("scene8000_00", seed, kind) for kind, seed in CASES}


def corners(obj: SceneObject) -> tuple[np.ndarray, np.ndarray]:
    half = np.array(obj.size) / 2
    return np.array(obj.center) - half, np.array(obj.center) + half


@pytest.mark.parametrize("case", CASES)
def test_box_of_every_object_is_that_of_its_vertices(scenes, case):
    scene = scenes[case]
    mesh = mesh_scene(scene)
    for obj in scene.objects:
        vertices = mesh.vertices[mesh.vertex_instance == obj.instance_id]
        low, high = corners(obj)
        np.testing.assert_allclose(low, vertices.min(axis=0), atol=1e-6)
        np.testing.assert_allclose(high, vertices.max(axis=0), atol=1e-6)


def assert_no_overlaps(scene: Scene) -> None:
    solid = [obj for obj in scene.objects if obj.label not in SHELL | FLAT]
    for a, b in itertools.combinations(solid, 2):
        if a.on == b.instance_id or b.on == a.instance_id:
            continue  # a pillow lies inside the box of its couch
        (a_low, a_high), (b_low, b_high) = corners(a), corners(b)
        depth = np.minimum(a_high, b_high) - np.maximum(a_low, b_low)
        assert depth.min() <= 1e-4, f"{a.label} {a.instance_id} and {b.label} {b.instance_id}: {depth}"


@pytest.mark.parametrize("case", CASES)
def test_no_two_solid_objects_overlap(scenes, case):
    assert_no_overlaps(scenes[case])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ROOM_TYPES)
def test_no_two_solid_objects_overlap_in_many_rooms(kind):
    for seed in range(100, 130):
        assert_no_overlaps(sample_scene("scene8000_00", seed, kind))


@pytest.mark.parametrize("case", CASES)
def test_everything_stands_on_the_floor_or_on_what_it_names(scenes, case):
    scene = scenes[case]
    for obj in scene.objects:
        low, high = corners(obj)
        if obj.label in SHELL:
            assert obj.on == -1
        elif obj.on == -1:
            assert 0 <= low[2] < 0.01, f"{obj.label} floats at {low[2]}"
        else:
            below = scene.objects[obj.on]
            assert below.instance_id == obj.on
            base_low, base_high = corners(below)
            gap = np.maximum(low - base_high, base_low - high)
            assert gap.max() < 0.03, f"{obj.label} is {gap} away from its {below.label}"


@pytest.mark.parametrize("case", CASES)
def test_all_objects_are_inside_the_room(scenes, case):
    scene = scenes[case]
    plan = plan_of(scene)
    for obj in scene.objects:
        low, high = corners(obj)
        if obj.label not in SHELL | {"door", "window"}:  # these reach into their niches
            assert plan.holds((low[0], low[1], high[0], high[1]), 1e-4), obj.label
        assert low[2] > -1e-6 and high[2] < scene.size_m[2] + 1e-6


@pytest.mark.parametrize("case", CASES)
def test_the_door_opens_onto_the_free_floor(scenes, case):
    scene = scenes[case]
    standing = [obj for obj in scene.objects if obj.label not in SHELL | FLAT]
    boxes = [tuple(np.concatenate(corners(obj))) for obj in standing]
    free = walk_map(plan_of(scene), boxes)
    door = next(obj for obj in scene.objects if obj.label == "door")
    ahead = np.array(door.center[:2]) + 0.5 * np.array([np.cos(door.yaw_rad), np.sin(door.yaw_rad)])
    cell = tuple(np.floor((ahead + np.array(scene.size_m[:2]) / 2) / CELL_M).astype(int))
    assert free[cell]
    _, regions = cv2.connectedComponents(free.astype(np.uint8), connectivity=4)
    assert (regions == regions[cell]).sum() > 0.7 * free.sum()
    assert free.sum() * CELL_M**2 > 0.6


@pytest.mark.parametrize("case", CASES)
def test_records_are_well_formed(scenes, case):
    scene = scenes[case]
    labels = {obj.label for obj in scene.objects}
    assert [obj.instance_id for obj in scene.objects] == list(range(len(scene.objects)))
    assert {"floor", "ceiling", "wall", "door", "window"} <= labels
    assert len(labels - SHELL) >= 10
    for obj in scene.objects:
        assert obj.nyu40_id == NYU40[obj.label]
        assert obj.color in COLORS or obj.color == ""
        assert obj.parts


def test_rooms_hold_many_classes_and_classes_hold_many_colours(scenes):
    colors = defaultdict(set)
    for scene in scenes.values():
        for obj in scene.objects:
            colors[obj.label].add(obj.color)
    assert len(set(colors) - SHELL - {"door", "window"}) >= 30
    assert len(colors["chair"]) >= 4
    assert any(
        len({obj.color for obj in scene.objects if obj.label == "chair"}) > 1 for scene in scenes.values()
    )


def test_same_seed_same_room_other_seed_other_room():
    def parts(scene: Scene) -> list:
        return [obj.parts for obj in scene.objects]

    first, again = (sample_scene("scene8000_00", 5, "bedroom") for _ in range(2))
    assert first == again and parts(first) == parts(again) and first.lights == again.lights
    assert sample_scene("scene8000_00", 6, "bedroom") != first


def test_unknown_kind_of_room_is_refused_by_name():
    with pytest.raises(ValueError, match="got 'garage', expected one of bedroom"):
        sample_scene("scene8000_00", 0, "garage")


def test_kinds_of_room_are_drawn_without_a_name():
    assert len({sample_scene("scene8000_00", seed).room_type for seed in range(7)}) >= 3


@pytest.mark.parametrize("seed", range(40))
def test_plan_is_its_rectangle_without_its_cutouts(seed):
    rng = np.random.default_rng(seed)
    size = tuple(rng.uniform(2.5, 6.0, 2))
    plan = sample_outline(rng, size)
    x, y = np.array(plan.corners).T
    area = (x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2  # positive: counter-clockwise
    cut = sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in plan.cutouts)
    assert area == pytest.approx(size[0] * size[1] - cut)
    for wall in plan.walls:
        inside = wall.at(wall.length_m / 2, 0.01)
        assert plan.holds((*inside, *inside)) and not plan.holds(2 * wall.at(wall.length_m / 2, -0.01))


@pytest.mark.parametrize("case", CASES)
def test_surfaces_face_the_room_and_furniture_faces_out(scenes, case):
    scene = scenes[case]
    mesh = mesh_scene(scene)
    a, b, c = (mesh.vertices[mesh.faces[:, k]].astype(np.float64) for k in range(3))
    normal = np.cross(b - a, c - a)
    assert (np.linalg.norm(normal, axis=1) > 0).all()
    stored = mesh.normals[mesh.faces].mean(axis=1)
    assert (np.einsum("ij,ij->i", normal, stored) > 0).mean() > 0.999
    for row, part in enumerate(mesh.parts):
        faces = mesh.face_part == row
        obj = scene.objects[mesh.part_instance[row]]
        if part.kind != "panel":
            assert np.einsum("ij,ij->", a[faces], np.cross(b[faces], c[faces])) > 0  # six times its volume
        elif obj.label in SHELL:
            towards = {"floor": (0, 0, 1), "ceiling": (0, 0, -1)}.get(
                obj.label, (np.cos(obj.yaw_rad), np.sin(obj.yaw_rad), 0)
            )
            unit = normal[faces] / np.linalg.norm(normal[faces], axis=1, keepdims=True)
            np.testing.assert_allclose(unit, np.broadcast_to(towards, unit.shape), atol=2e-3)


@pytest.mark.parametrize(
    ("kind", "detail", "volume"),
    [
        ("box", (), 0.4 * 0.6 * 0.5),
        ("cylinder", (1.0,), np.pi * 0.2 * 0.3 * 0.5),
        ("ellipsoid", (), 4 / 3 * np.pi * 0.2 * 0.3 * 0.25),
        ("drape", (0.02, 0.1), 0.4 * 0.6 * 0.5),
    ],
)
def test_closed_parts_have_their_volume_and_size(kind, detail, volume):
    part = Part(kind, (0.4, 0.6, 0.5), (1.0, 2.0, 3.0), Material("plain", (9, 9, 9)), detail=detail)
    mesh = mesh_part(part)
    a, b, c = (mesh.vertices[mesh.faces[:, k]] - part.center for k in range(3))
    assert np.einsum("ij,ij->", a, np.cross(b, c)) / 6 == pytest.approx(volume, rel=0.03)
    if kind != "drape":
        np.testing.assert_allclose(np.ptp(mesh.vertices, axis=0), part.size, rtol=0.03)


def test_panel_with_a_hole_has_the_remaining_area():
    hole = (-0.2, -0.4, 0.5, 0.1)
    panel = Part("panel", (2.0, 1.0, 0.0), (0, 0, 0), Material("plain", (9, 9, 9)), detail=hole)
    mesh = mesh_part(panel)
    a, b, c = (mesh.vertices[mesh.faces[:, k]] for k in range(3))
    assert np.cross(b - a, c - a)[:, 2].sum() / 2 == pytest.approx(2.0 - 0.7 * 0.5)
    inside = (np.abs(mesh.vertices[:, 0] - 0.15) < 0.34) & (np.abs(mesh.vertices[:, 1] + 0.15) < 0.24)
    assert not inside.any()
