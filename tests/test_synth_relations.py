"""Predicates and names behind the synthetic texts: margins kept, one name for one thing."""

import math
import random
from collections import Counter

import pytest

from pipeline.synth.naming import plural, room_of
from pipeline.synth.relations import (
    Pose,
    bearing_deg,
    clear_extreme,
    clearly_less,
    is_in_sight,
    neighbours,
    side_of,
)
from pipeline.synth.scene import Scene, SceneObject
from pipeline.synth.texts import choose


def obj(x, y, size=0.5, label="chair", **more):
    return SceneObject(1, label, 5, "red", "wood", (x, y, 0.5), (size, size, 1.0), 0.0, **more)


@pytest.mark.parametrize(
    ("angle_deg", "expected"),
    [
        (0, "front"),
        (29, "front"),
        (31, None),
        (45, None),
        (59, None),
        (61, "left"),
        (90, "left"),
        (119, "left"),
    ]
    + [
        (121, None),
        (180, "behind"),
        (-180, "behind"),
        (-151, "behind"),
        (-149, None),
        (-90, "right"),
        (-31, None),
    ],
)
@pytest.mark.parametrize("yaw_deg", [0, 37, 180, -100])
def test_sides_keep_fifteen_degrees_from_their_borders(angle_deg, expected, yaw_deg):
    pose = Pose(1.0, -2.0, math.radians(yaw_deg))
    angle = math.radians(angle_deg + yaw_deg)
    target = obj(1.0 + 3 * math.cos(angle), -2.0 + 3 * math.sin(angle), size=0.2)
    assert side_of(pose, target) == expected
    assert abs((bearing_deg(pose, *target.center[:2]) - angle_deg + 180) % 360 - 180) < 1e-9


def test_a_thing_around_the_person_or_around_the_corner_is_on_no_side():
    assert side_of(Pose(0, 0, 0), obj(0.1, 0.1)) is None
    assert side_of(Pose(0, 0, 0), obj(1.5, 0, size=2.8)) is None


def test_comparisons_need_a_fifth_and_ten_centimetres():
    assert clearly_less(1.0, 1.2)
    assert not clearly_less(1.0, 1.19)
    assert not clearly_less(0.1, 0.19)
    assert clear_extreme("ab", [1.0, 1.1]) is None
    assert clear_extreme("abc", [1.0, 1.5, 2.0]) == "a"
    assert clear_extreme("abc", [1.0, 1.5, 2.0], largest=True) == "c"


def test_names_mean_one_thing_only():
    def scene(*labels_colors):
        objects = [
            SceneObject(i, label, 5, color, "", (i, 0, 0.5), (0.5, 0.5, 1.0), 0.0)
            for i, (label, color) in enumerate(labels_colors)
        ]
        return room_of(Scene("s", "Office", (9, 9, 3), ((0, 0), (9, 0), (9, 9)), tuple(objects)))

    assert scene(("chair", "red"), ("desk", "")).names == {0: "chair", 1: "desk"}
    assert scene(("chair", "red"), ("chair", "blue")).names == {0: "red chair", 1: "blue chair"}
    assert scene(("chair", "red"), ("chair", "red")).names == {}
    assert scene(("chair", "red"), ("chair", "")).names == {}
    assert scene(("chair", "red"), ("office chair", "blue")).names == {1: "office chair"}
    assert scene(("table", "red"), ("desk", "blue")).names == {1: "desk"}


@pytest.mark.parametrize(
    ("label", "expected"),
    [("chair", "chairs"), ("bookshelf", "bookshelves"), ("couch", "couches"), ("trash can", "trash cans")]
    + [("box", "boxes"), ("books", "books"), ("tv", "tvs"), ("library", "libraries"), ("tray", "trays")],
)
def test_plurals(label, expected):
    assert plural(label) == expected


def test_choice_takes_the_least_used_first():
    used = Counter()
    items = ["yes"] * 50 + ["no"] * 3 + ["maybe"]
    chosen = choose(items, 8, lambda item: (item,), used, random.Random(0))
    assert Counter(chosen) == {"yes": 4, "no": 3, "maybe": 1}
    assert Counter(choose(items, 3, lambda item: (item,), used, random.Random(0))) == {
        "maybe": 1,
        "no": 1,
        "yes": 1,
    }


L_SHAPE = ((0.0, 0.0), (6.0, 0.0), (6.0, 2.0), (2.0, 2.0), (2.0, 6.0), (0.0, 6.0))


def placed(instance_id, x, y, size=0.5):
    return SceneObject(instance_id, "chair", 5, "", "", (x, y, 0.5), (size, size, 1.0), 0.0)


def test_sight_stops_at_things_in_between_and_at_the_corner_of_the_room():
    scene = Scene("s", "Office", (6.0, 6.0, 3.0), L_SHAPE, ())
    pose = Pose(0.5, 1.0, 0.0, eye_m=1.0)
    target, between, aside = placed(0, 4.0, 1.0), placed(1, 2.0, 1.0), placed(2, 2.0, 1.6)
    assert is_in_sight(scene, pose, target, [target])
    assert is_in_sight(scene, pose, target, [target, aside])
    assert not is_in_sight(scene, pose, target, [target, between])
    assert is_in_sight(scene, pose, between, [target, between])
    assert not is_in_sight(scene, Pose(1.0, 5.5, 0.0), target, [target])


def test_neighbours_are_unknown_where_a_gap_is_neither_small_nor_large():
    center = placed(0, 0.0, 0.0)
    near, unclear, far = placed(1, 0.8, 0.0), placed(2, 1.1, 0.0), placed(3, 0.0, 3.0)
    assert neighbours(center, [center, near, far]) == [near]
    assert neighbours(center, [center, far]) == []
    assert neighbours(center, [center, near, unclear]) is None
