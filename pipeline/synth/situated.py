"""Questions of a person who stands or sits somewhere in a room (SQA3D), true by construction.

Questions are asked only where `relations` is sure, and about things that the situation does not name (else
the answer would be given away). `situated_questions` gives them all; texts.py chooses.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.synth.naming import Room, number_word, plural
from pipeline.synth.relations import (
    SIDES,
    Pose,
    Side,
    clear_extreme,
    clearly_closer,
    clearly_less,
    is_in_sight,
    reach_m,
    side_of,
)
from pipeline.synth.scene import SceneObject
from pipeline.synth.situations import Situation

TOUCH_M = 0.65
"""An arm reaches this far; what is further than TOO_FAR_M surely cannot be touched."""
TOO_FAR_M = 1.5
OVERHEAD_M = 1.9
"""What hangs higher has no direction that people would name."""

PHRASES: dict[Side, str] = {
    "front": "in front of me",
    "left": "to my left",
    "behind": "behind me",
    "right": "to my right",
}
WAYS: dict[Side, str] = {"front": "forward", "left": "left", "behind": "backward", "right": "right"}
PLACES: dict[Side, str] = {"front": "in front", "left": "left", "behind": "behind", "right": "right"}


@dataclass(frozen=True)
class SituatedQuestion:
    situation: Situation
    template: str
    """Which kind of question it is, for balance."""
    question: str
    answer: str


def situated_questions(room: Room, chosen: Sequence[Situation]) -> list[SituatedQuestion]:
    """All sure questions from the given situations."""
    questions = []
    for situation in chosen:
        sides = {obj.instance_id: side_of(situation.pose, obj) for obj in room.things}
        view = View(room, situation, sides)
        for template, maker in TEMPLATES.items():
            questions += [
                SituatedQuestion(situation, template, question, answer) for question, answer in maker(view)
            ]
    return questions


@dataclass(frozen=True)
class View:
    """A room as seen from one situation."""

    room: Room
    situation: Situation
    sides: dict[int, Side | None]

    @property
    def pose(self) -> Pose:
        return self.situation.pose

    def side(self, obj: SceneObject) -> Side | None:
        return self.sides[obj.instance_id]

    def others(self) -> list[tuple[SceneObject, str]]:
        """Named things that the situation does not name; no ceiling lamps, no names in the plural."""
        return [
            (obj, name)
            for obj in self.room.things
            if (name := self.room.name_of(obj))
            and obj.instance_id not in self.situation.anchors
            and obj.label != plural(obj.label)
            and obj.center[2] - obj.size[2] / 2 < OVERHEAD_M
        ]

    def placed(self) -> list[tuple[SceneObject, str, Side]]:
        """Those of `others` that are surely on one side."""
        return [(obj, name, side) for obj, name in self.others() if (side := self.side(obj))]

    def groups(self) -> Iterator[tuple[str, list[SceneObject], dict[Side, list[SceneObject]]]]:
        """Clear labels all of whose objects are surely on a side: label, objects, objects by side."""
        for label in self.room.labels():
            members = self.room.of_label(label)
            if all(self.side(obj) for obj in members) and label != plural(label):
                yield label, members, {side: [o for o in members if self.side(o) == side] for side in SIDES}


def _what_closest(view: View) -> Iterator[tuple[str, str]]:
    for side, phrase in PHRASES.items():
        possible = [obj for obj in view.room.standing if view.side(obj) in (side, None)]
        nearest = clear_extreme(possible, [reach_m(view.pose, obj) for obj in possible])
        if nearest is None or view.side(nearest) != side or nearest.instance_id in view.situation.anchors:
            continue
        if all(clearly_closer(view.pose, nearest, obj) for obj in possible if obj is not nearest):
            yield f"What is the closest object standing on the floor {phrase}?", nearest.label


def _what_color(view: View) -> Iterator[tuple[str, str]]:
    for label, _, by_side in view.groups():
        for side, there in by_side.items():
            if len(there) == 1 and there[0].color:
                yield f"What color is the {label} {PHRASES[side]}?", there[0].color


def _is_it_there(view: View) -> Iterator[tuple[str, str]]:
    for _, name, side in view.placed():
        for asked, phrase in PHRASES.items():
            yield f"Is the {name} {phrase}?", _yes(asked == side)


def _is_color(view: View) -> Iterator[tuple[str, str]]:
    colors = sorted({obj.color for obj in view.room.things if obj.color})
    for label, _, by_side in view.groups():
        for side, there in by_side.items():
            if len(there) == 1 and there[0].color:
                for color in colors:
                    yield f"Is the {label} {PHRASES[side]} {color}?", _yes(color == there[0].color)


def _is_closer(view: View) -> Iterator[tuple[str, str]]:
    for closer, farther in _compared(view):
        yield f"Is the {closer} closer to me than the {farther}?", "yes"
        yield f"Is the {farther} closer to me than the {closer}?", "no"


def _how_many(view: View) -> Iterator[tuple[str, str]]:
    for label, members, by_side in view.groups():
        for side, there in by_side.items():
            if len(members) > 1:
                yield f"How many {plural(label)} are {PHRASES[side]}?", number_word(len(there))


def _how_many_in_room(view: View) -> Iterator[tuple[str, str]]:
    for label in view.room.labels():
        members = view.room.of_label(label)
        if len(members) > 1 and label != plural(label):
            yield f"How many {plural(label)} are in this room?", number_word(len(members))


def _can_see(view: View) -> Iterator[tuple[str, str]]:
    for obj, name, side in view.placed():
        if side == "behind":
            yield f"Can I see the {name} without turning around?", "no"
        elif side == "front" and obj.size[2] > 0.12:
            ignored = {obj.on, *view.situation.anchors}
            blockers = [o for o in view.room.things if o.instance_id not in ignored]
            if is_in_sight(view.room.scene, view.pose, obj, blockers):
                yield f"Can I see the {name} without turning around?", "yes"


def _can_touch(view: View) -> Iterator[tuple[str, str]]:
    for obj, name in view.others():
        low, high = obj.center[2] - obj.size[2] / 2, obj.center[2] + obj.size[2] / 2
        reach = reach_m(view.pose, obj)
        if reach <= TOUCH_M and low < 1.3 and high > 0.4:
            yield f"Can I touch the {name} without walking?", "yes"
        elif reach >= TOO_FAR_M:
            yield f"Can I touch the {name} without walking?", "no"


def _which_way(view: View) -> Iterator[tuple[str, str]]:
    for obj, name, side in view.placed():
        if clearly_less(0.4, reach_m(view.pose, obj)):
            yield f"Which direction should I go to reach the {name}?", WAYS[side]


def _which_closer(view: View) -> Iterator[tuple[str, str]]:
    for closer, farther in _compared(view):
        for first, second in ((closer, farther), (farther, closer)):
            yield f"Which is closer to me, the {first} or the {second}?", closer


def _in_which_direction(view: View) -> Iterator[tuple[str, str]]:
    for _, name, side in view.placed():
        yield f"In which direction is the {name}?", PLACES[side]


def _are_there(view: View) -> Iterator[tuple[str, str]]:
    for label, _, by_side in view.groups():
        for side, there in by_side.items():
            yield f"Are there any {plural(label)} {PHRASES[side]}?", _yes(bool(there))


def _if_i_turn(view: View) -> Iterator[tuple[str, str]]:
    for _, name, side in view.placed():
        for turned, phrase in (("left", "left"), ("right", "right"), ("behind", "around")):
            yield f"If I turn {phrase}, will I face the {name}?", _yes(turned == side)


TEMPLATES = {
    "what closest": _what_closest,
    "what color": _what_color,
    "is there": _is_it_there,
    "is color": _is_color,
    "is closer": _is_closer,
    "how many": _how_many,
    "how many in room": _how_many_in_room,
    "can see": _can_see,
    "can touch": _can_touch,
    "which way": _which_way,
    "which closer": _which_closer,
    "in which direction": _in_which_direction,
    "are there": _are_there,
    "if turn": _if_i_turn,
}


def _compared(view: View) -> Iterator[tuple[str, str]]:
    """(closer, farther) names of things whose distances surely differ."""
    others = view.others()
    for a, closer in others:
        for b, farther in others:
            if a is not b and clearly_closer(view.pose, a, b):
                yield closer, farther


def _yes(value: bool) -> str:
    return "yes" if value else "no"
