"""Spatial predicates over scene objects that leave out every borderline case.

World frame, metres. A person is a `Pose`: a position and the world direction it faces. A predicate that two
people might answer differently gives None or False on both sides: angles keep 15 degrees from the borders of
the four sectors, compared lengths differ by at least 20 % and 10 cm, near means a gap of at most 0.35 m where
everything else has at least 0.9 m.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from pipeline.synth.scene import Scene, SceneObject, Vec3

Side = Literal["front", "left", "behind", "right"]
SIDES: tuple[Side, ...] = ("front", "left", "behind", "right")
"""Counter-clockwise from above, a quarter turn each."""

BORDER_DEG = 15.0
"""A centre this close to the border between two sectors belongs to neither."""
NEAR_M = 0.35
FAR_M = 0.9
RATIO = 1.2
DIFFERENCE_M = 0.1
EYE_STANDING_M = 1.55
EYE_SITTING_M = 1.15

Item = TypeVar("Item")


@dataclass(frozen=True)
class Pose:
    """Where a person is and which world direction (cos yaw, sin yaw) it faces."""

    x: float
    y: float
    yaw_rad: float
    eye_m: float = EYE_STANDING_M


def clearly_less(a: float, b: float) -> bool:
    """a is smaller than b by 20 % and 10 cm at least."""
    return a * RATIO <= b and b - a >= DIFFERENCE_M


def clear_extreme(items: Sequence[Item], values: Sequence[float], largest: bool = False) -> Item | None:
    """The item of the smallest (largest) value, if that value is clearly apart from all others."""
    if not items:
        return None
    order = sorted(range(len(items)), key=lambda i: values[i], reverse=largest)
    if len(items) > 1:
        first, second = values[order[0]], values[order[1]]
        if not (clearly_less(second, first) if largest else clearly_less(first, second)):
            return None
    return items[order[0]]


def box_xy(obj: SceneObject) -> tuple[float, float, float, float]:
    """(x low, y low, x high, y high) of the axis-aligned box."""
    (x, y, _), (dx, dy, _) = obj.center, obj.size
    return x - dx / 2, y - dy / 2, x + dx / 2, y + dy / 2


def gap_m(a: SceneObject, b: SceneObject) -> float:
    """Horizontal distance between two boxes; 0 where they overlap from above."""
    ax0, ay0, ax1, ay1 = box_xy(a)
    bx0, by0, bx1, by1 = box_xy(b)
    return math.hypot(max(bx0 - ax1, ax0 - bx1, 0.0), max(by0 - ay1, ay0 - by1, 0.0))


def reach_m(pose: Pose, obj: SceneObject) -> float:
    """Horizontal distance from the person to the object's box."""
    x0, y0, x1, y1 = box_xy(obj)
    return math.hypot(max(x0 - pose.x, pose.x - x1, 0.0), max(y0 - pose.y, pose.y - y1, 0.0))


def center_distance_m(a: SceneObject, b: SceneObject) -> float:
    """Horizontal distance between two centres."""
    return math.hypot(a.center[0] - b.center[0], a.center[1] - b.center[1])


def person_distance_m(pose: Pose, obj: SceneObject) -> float:
    """Horizontal distance from the person to the object's centre."""
    return math.hypot(obj.center[0] - pose.x, obj.center[1] - pose.y)


def clearly_closer(pose: Pose, a: SceneObject, b: SceneObject) -> bool:
    """a is closer than b, whether measured to the box or to the centre."""
    return clearly_less(reach_m(pose, a), reach_m(pose, b)) and clearly_less(
        person_distance_m(pose, a), person_distance_m(pose, b)
    )


def bearing_deg(pose: Pose, x: float, y: float) -> float:
    """Angle from the facing direction to a point, in (-180, 180], positive to the left."""
    angle = math.degrees(math.atan2(y - pose.y, x - pose.x) - pose.yaw_rad)
    return 180.0 - (180.0 - angle) % 360.0


def side_of(pose: Pose, obj: SceneObject) -> Side | None:
    """The sector the object is in; None if the person stands in its box or it is near a sector border.

    The centre keeps BORDER_DEG from the border; no corner of the box reaches further than that beyond it.
    """
    if reach_m(pose, obj) < 0.05:
        return None
    center = bearing_deg(pose, obj.center[0], obj.center[1])
    quarter = round(center / 90.0)
    x0, y0, x1, y1 = box_xy(obj)
    corners = [bearing_deg(pose, x, y) for x in (x0, x1) for y in (y0, y1)]
    if abs(center - 90.0 * quarter) > 45.0 - BORDER_DEG:
        return None
    if any(abs(_wrapped(corner - 90.0 * quarter)) > 45.0 + BORDER_DEG for corner in corners):
        return None
    return SIDES[quarter % 4]


def neighbours(obj: SceneObject, others: Sequence[SceneObject]) -> list[SceneObject] | None:
    """Objects next to `obj`; None if for some object it is unclear whether it is next to it."""
    gaps = [(gap_m(obj, other), other) for other in others if other.instance_id != obj.instance_id]
    if any(NEAR_M < gap < FAR_M for gap, _ in gaps):
        return None
    return [other for gap, other in gaps if gap <= NEAR_M]


def inside(outline: Sequence[tuple[float, float]], x: float, y: float) -> bool:
    """Even-odd rule: the point lies in the polygon."""
    crossings = 0
    for (x0, y0), (x1, y1) in zip(outline, [*outline[1:], outline[0]], strict=True):
        if (y0 > y) != (y1 > y) and x < x0 + (y - y0) * (x1 - x0) / (y1 - y0):
            crossings += 1
    return crossings % 2 == 1


def is_free(scene: Scene, pose: Pose, standing: Sequence[SceneObject], clearance_m: float = 0.15) -> bool:
    """A person can stand there: inside the outline and outside all boxes, with some clearance."""
    offsets = (-clearance_m, clearance_m)
    if not all(inside(scene.outline, pose.x + dx, pose.y + dy) for dx in offsets for dy in offsets):
        return False
    return all(reach_m(pose, obj) >= clearance_m for obj in standing)


def is_in_sight(scene: Scene, pose: Pose, target: SceneObject, blockers: Sequence[SceneObject]) -> bool:
    """Nothing comes near the line from the eye to the target's box, and the line stays in the room."""
    eye = (pose.x, pose.y, pose.eye_m)
    end = _entry(target, eye, target.center, 0.0)
    if end is None or any(
        (hit := _entry(obj, eye, target.center, 0.1)) is not None and hit <= end
        for obj in blockers
        if obj.instance_id != target.instance_id
    ):
        return False
    steps = max(2, math.ceil(person_distance_m(pose, target) / 0.1))
    shares = (end * i / steps for i in range(steps))
    return all(
        inside(
            scene.outline,
            pose.x + share * (target.center[0] - pose.x),
            pose.y + share * (target.center[1] - pose.y),
        )
        for share in shares
    )


def _entry(obj: SceneObject, start: Vec3, end: Vec3, margin_m: float) -> float | None:
    """Share of the way from start to end at which the segment enters the grown box; None if it does not."""
    low, high = 0.0, 1.0
    for a, b, center, size in zip(start, end, obj.center, obj.size, strict=True):
        half = size / 2 + margin_m
        if abs(b - a) < 1e-12:
            if abs(a - center) > half:
                return None
            continue
        near, far = sorted(((center - half - a) / (b - a), (center + half - a) / (b - a)))
        low, high = max(low, near), min(high, far)
    return low if low <= high else None


def _wrapped(angle_deg: float) -> float:
    return 180.0 - (180.0 - angle_deg) % 360.0
