"""Descriptions that point at things in a room (ScanRefer, Multi3DRefer), true by construction.

A description is a noun phrase, an optional place and an optional material. `denoted` says, with all margins,
which objects it means; a description is used for an object only if it surely means that one alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.synth.naming import FLAT_M, Room, covers, plural, with_article
from pipeline.synth.relations import (
    FAR_M,
    NEAR_M,
    center_distance_m,
    clear_extreme,
    clearly_less,
    gap_m,
)
from pipeline.synth.scene import SceneObject

Relation = Literal["next to", "on", "closest to", "farthest from"]
Order = Literal["", "tallest", "shortest", "largest", "smallest"]


@dataclass(frozen=True)
class Description:
    """`order color label`, then where it is and what it is made of; "" leaves a part out."""

    label: str
    color: str = ""
    order: Order = ""
    relation: Relation | Literal[""] = ""
    anchor: str = ""
    """Name of the thing that `relation` refers to."""
    anchor_id: int = -1
    material: str = ""

    def noun(self) -> str:
        return " ".join(word for word in (self.order, self.color, self.label) if word)

    def place(self) -> str:
        return f"{self.relation} the {self.anchor}" if self.relation else ""

    def sentence(self, form: int) -> str:
        """One of three ways to say it, lower case like the official files."""
        noun, place = self.noun(), self.place()
        made = f" it is made of {self.material}." if self.material else ""
        definite = bool(self.order) or self.relation in ("closest to", "farthest from")
        article = f"the {noun}" if definite else with_article(noun)
        if not place:
            texts = (f"this is {article}.", f"{article} in the room.", f"look for {article}.")
        else:
            texts = (
                f"this is {article}. it is {'the one ' if definite else ''}{place}.",
                f"the {noun} {place}.",
                f"{article} that is {place}.",
            )
        return texts[form % len(texts)] + made


def descriptions_of(room: Room, obj: SceneObject) -> list[Description]:
    """Descriptions that surely mean `obj` alone, those that need no place first."""
    if obj.label not in room.clear_labels or obj.label == plural(obj.label):
        return []
    colors = ("", obj.color) if obj.color else ("",)
    drafts = [Description(obj.label, color, material=m) for color in colors for m in ("", obj.material)]
    drafts += [
        Description(obj.label, color, order)
        for color in colors
        for order in ("tallest", "shortest", "largest", "smallest")
    ]
    drafts += [
        Description(obj.label, color, "", relation, name, anchor.instance_id)
        for color in colors
        for anchor, name in anchors(room)
        for relation in ("next to", "on", "closest to", "farthest from")
        if anchor.label != obj.label
    ]
    return [draft for draft in dict.fromkeys(drafts) if denoted(room, draft) == [obj]]


def anchors(room: Room) -> Iterator[tuple[SceneObject, str]]:
    """Things to say where something is by: named and not flat."""
    for obj in room.things:
        name = room.name_of(obj)
        if name is not None and obj.size[2] > FLAT_M and obj.label != plural(obj.label):
            yield obj, name


def denoted(room: Room, description: Description) -> list[SceneObject] | None:
    """The objects that a description surely means; None if people might not agree."""
    objects: list[SceneObject] | None = room.of_label(description.label)
    if description.label not in room.clear_labels:
        return None
    if description.color:
        if any(not obj.color for obj in objects):
            return None
        objects = [obj for obj in objects if obj.color == description.color]
    if description.material:
        objects = [obj for obj in objects if obj.material == description.material]
    if description.order:
        objects = _ordered(objects, description.order)
    if description.relation and objects is not None:
        anchor = room.scene.objects[description.anchor_id]
        objects = RELATIONS[description.relation](room, objects, anchor)
    return objects


def _ordered(objects: Sequence[SceneObject], order: Order) -> list[SceneObject] | None:
    """The one of several that is clearly the tallest …; size counts only if height does not contradict it."""
    if len(objects) < 2:
        return None
    by_height = order in ("tallest", "shortest")
    largest = order in ("tallest", "largest")
    heights = [obj.size[2] for obj in objects]
    lengths = [max(obj.size[:2]) for obj in objects]
    found = clear_extreme(objects, heights if by_height else lengths, largest)
    if found is None:
        return None
    if not by_height:
        others = [obj for obj in objects if obj is not found]
        slack = [
            clearly_less(found.size[2], o.size[2]) if largest else clearly_less(o.size[2], found.size[2])
            for o in others
        ]
        if any(slack):
            return None
    return [found]


def _next_to(room: Room, objects: Sequence[SceneObject], anchor: SceneObject) -> list[SceneObject] | None:
    """Both stand on the floor; every object of the kind is clearly near or clearly away."""
    standing = {obj.instance_id for obj in room.standing}
    if anchor.instance_id not in standing or any(obj.instance_id not in standing for obj in objects):
        return None
    gaps = [gap_m(obj, anchor) for obj in objects]
    if any(NEAR_M < gap < FAR_M for gap in gaps):
        return None
    return [obj for obj, gap in zip(objects, gaps, strict=True) if gap <= NEAR_M]


def _on(room: Room, objects: Sequence[SceneObject], anchor: SceneObject) -> list[SceneObject] | None:
    return [obj for obj in objects if obj.on == anchor.instance_id]


def _closest(room: Room, objects: Sequence[SceneObject], anchor: SceneObject) -> list[SceneObject] | None:
    return _by_distance(objects, anchor, largest=False)


def _farthest(room: Room, objects: Sequence[SceneObject], anchor: SceneObject) -> list[SceneObject] | None:
    return _by_distance(objects, anchor, largest=True)


def _by_distance(
    objects: Sequence[SceneObject], anchor: SceneObject, largest: bool
) -> list[SceneObject] | None:
    """The one of several whose box and whose centre are clearly closest (farthest)."""
    if len(objects) < 2:
        return None
    by_gap = clear_extreme(objects, [gap_m(obj, anchor) for obj in objects], largest)
    by_center = clear_extreme(objects, [center_distance_m(obj, anchor) for obj in objects], largest)
    return [by_gap] if by_gap is not None and by_gap is by_center else None


RELATIONS = {"next to": _next_to, "on": _on, "closest to": _closest, "farthest from": _farthest}


@dataclass(frozen=True)
class Group:
    """A Multi3DRefer description and what it means: none, one or several objects."""

    description: str
    label: str
    targets: tuple[int, ...]
    eval_type: Literal["zt_wo_d", "zt_w_d", "st_wo_d", "st_w_d", "mt"]
    spatial: bool = False
    color: bool = False
    texture: bool = False


def single_targets(room: Room) -> list[Group]:
    """One object; with distractors if others bear the same label."""
    groups = []
    for obj in room.things:
        kind = "st_w_d" if len(room.of_label(obj.label)) > 1 else "st_wo_d"
        for i, found in enumerate(descriptions_of(room, obj)):
            flags = (bool(found.relation), bool(found.color), bool(found.material))
            groups.append(Group(found.sentence(i), obj.label, (obj.instance_id,), kind, *flags))
    return groups


def multiple_targets(room: Room) -> list[Group]:
    """All objects of a label, of a colour, or near something, where they are two or more."""
    groups = []
    for label in room.labels():
        every = room.of_label(label)
        if len(every) < 2 or label == plural(label):
            continue
        colors = sorted({obj.color for obj in every if obj.color})
        drafts = [Description(label), *(Description(label, color) for color in colors)]
        drafts += [
            Description(label, color, "", "next to", name, anchor.instance_id)
            for anchor, name in anchors(room)
            for color in ("", *colors)
            if anchor.label != label
        ]
        for draft in drafts:
            objects = denoted(room, draft) or []
            if len(objects) < 2:
                continue
            noun = plural(draft.noun())
            where = draft.place() or "in the room"
            for text in (f"all the {noun} {where}.", f"these are the {noun} {where}."):
                flags = (bool(draft.relation), bool(draft.color))
                ids = tuple(obj.instance_id for obj in objects)
                groups.append(Group(text, label, ids, "mt", *flags))
    return groups


def no_targets(room: Room, labels: Sequence[str], colors: Sequence[str]) -> list[Group]:
    """A label that the room lacks, or a colour that no object of a label has (the others are distractors)."""
    present = {obj.label for obj in room.scene.objects}
    groups = []
    for label in labels:
        if label == plural(label):
            continue
        absent = not any(_related(label, other) for other in present)
        every = room.of_label(label)
        colored = label in room.clear_labels and all(obj.color for obj in every)
        for i, color in enumerate(("", *colors)):
            description = Description(label, color)
            if absent:
                groups.append(Group(description.sentence(i), label, (), "zt_wo_d", False, bool(color)))
            elif every and colored and color and denoted(room, description) == []:
                groups.append(Group(description.sentence(i), label, (), "zt_w_d", False, True))
    return groups


def _related(label: str, other: str) -> bool:
    """Somebody may take one for the other: equal, or they share a word."""
    shares_word = bool(set(label.split()) & set(other.split()))
    return shares_word or label in other or other in label or covers(label, other) or covers(other, label)
