"""Where a person may stand or sit in a room, and sentences from which that follows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.synth.naming import Room
from pipeline.synth.relations import EYE_SITTING_M, Pose, is_free, reach_m
from pipeline.synth.scene import SceneObject

SEATS = ("chair", "office chair", "armchair", "sofa chair", "stool", "couch", "sofa", "bench", "toilet")
FRONTED = (
    "door",
    "window",
    "couch",
    "sofa",
    "bookshelf",
    "cabinet",
    "kitchen cabinet",
    "file cabinet",
    "wardrobe",
    "dresser",
    "tv stand",
    "refrigerator",
    "stove",
    "sink",
    "toilet",
    "bathtub",
    "whiteboard",
)
"""Labels whose front everybody agrees on."""

STANDOFF_M = 0.6
"""A person stands this far from the thing that the situation names."""


@dataclass(frozen=True)
class Situation:
    pose: Pose
    sentences: tuple[str, ...]
    """Several ways to say where the person is and which way it faces."""
    anchors: frozenset[int]
    """Instances that the sentences name: not asked about where that would give the answer away."""


def situations(room: Room) -> list[Situation]:
    """Poses in the room that a person can take and that a sentence determines."""
    found = [*_in_front(room), *_seated(room), *_between(room)]
    return [s for s in found if _fits(room, s)]


def _fits(room: Room, situation: Situation) -> bool:
    seated = situation.pose.eye_m == EYE_SITTING_M
    obstacles = [o for o in room.standing if not (seated and o.instance_id in situation.anchors)]
    return is_free(room.scene, situation.pose, obstacles, 0.0 if seated else 0.15)


def _front_point(obj: SceneObject, distance_m: float) -> tuple[float, float]:
    """A point straight before the object's front, `distance_m` from its box."""
    cos, sin = math.cos(obj.yaw_rad), math.sin(obj.yaw_rad)
    reach = (abs(cos) * obj.size[0] + abs(sin) * obj.size[1]) / 2 + distance_m
    return obj.center[0] + cos * reach, obj.center[1] + sin * reach


def _in_front(room: Room) -> Iterator[Situation]:
    for obj in room.things:
        name = room.name_of(obj)
        if name is None or obj.label not in FRONTED:
            continue
        x, y = _front_point(obj, STANDOFF_M)
        anchors = frozenset((obj.instance_id,))
        facing = (
            f"I am standing in front of the {name} and facing it.",
            f"I am facing the {name}, which is right in front of me.",
            f"I stand before the {name} and look straight at it.",
        )
        yield Situation(Pose(x, y, obj.yaw_rad + math.pi), facing, anchors)
        away = (
            f"I am standing in front of the {name} with my back to it.",
            f"The {name} is right behind me and I look away from it.",
            f"I stand with my back to the {name}, looking straight ahead.",
        )
        yield Situation(Pose(x, y, obj.yaw_rad), away, anchors)


def _seated(room: Room) -> Iterator[Situation]:
    for obj in room.standing:
        name = room.name_of(obj)
        if name is None or obj.label not in SEATS or room.on_top_of(obj):
            continue
        sentences = (
            f"I am sitting on the {name}.",
            f"I sit on the {name} and look straight ahead.",
            f"I just sat down on the {name}.",
        )
        pose = Pose(obj.center[0], obj.center[1], obj.yaw_rad, EYE_SITTING_M)
        yield Situation(pose, sentences, frozenset((obj.instance_id,)))


def _between(room: Room) -> Iterator[Situation]:
    named = [obj for obj in room.standing if obj.instance_id in room.names]
    for back in named:
        for front in named:
            dx, dy = (front.center[i] - back.center[i] for i in (0, 1))
            length = math.hypot(dx, dy)
            if back is front or length < 1.0:
                continue
            leave = min(back.size[i] / 2 / abs(d) for i, d in enumerate((dx, dy)) if abs(d) > 1e-9)
            step = leave + STANDOFF_M / length
            pose = Pose(
                back.center[0] + dx * step,
                back.center[1] + dy * step,
                math.atan2(dy, dx),
            )
            if step >= 1 or reach_m(pose, front) < 0.5 or reach_m(pose, back) > STANDOFF_M + 0.1:
                continue
            a, b = room.name_of(back), room.name_of(front)
            sentences = (
                f"I am standing by the {a} with my back to it, facing the {b}.",
                f"I am looking at the {b} and the {a} is right behind me.",
                f"I stand with my back to the {a} and look at the {b}.",
            )
            yield Situation(pose, sentences, frozenset((back.instance_id, front.instance_id)))
