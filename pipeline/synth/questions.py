"""Questions about a room as a whole (ScanQA), true by construction.

`room_questions(room)` gives all that have one sure answer; texts.py chooses.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.synth.naming import OPENINGS, Room, colored, number_word, plural, shared, with_article
from pipeline.synth.relations import clear_extreme, clearly_less, neighbours
from pipeline.synth.scene import SceneObject

OPEN_SHELVES = ("bookshelf", "shelf")
"""Their own parts (books) also lie on them, so nobody is asked what is on them."""


@dataclass(frozen=True)
class RoomQuestion:
    template: str
    """Which kind of question it is, for balance."""
    question: str
    answers: tuple[str, ...]
    """All right; the first is the usual one."""
    objects: tuple[SceneObject, ...]
    """What the question is about."""


def room_questions(room: Room) -> list[RoomQuestion]:
    """All questions about the room that have one sure answer."""
    return [
        RoomQuestion(template, question, answers, tuple(objects))
        for template, maker in TEMPLATES.items()
        for question, answers, objects in maker(room)
    ]


Draft = tuple[str, tuple[str, ...], list[SceneObject]]


def _count(room: Room) -> Iterator[Draft]:
    for label in room.labels():
        objects = room.of_label(label)
        if label != plural(label):
            answers = (number_word(len(objects)), str(len(objects)))
            yield f"How many {plural(label)} are there in the room?", answers, objects
            yield f"How many {plural(label)} are there?", answers, objects


def _color(room: Room) -> Iterator[Draft]:
    for label in room.labels():
        objects = room.of_label(label)
        color = shared([obj.color for obj in objects])
        if not color:
            continue
        if len(objects) == 1 and label != plural(label):
            yield f"What color is the {label}?", (color,), objects
            yield f"What is the color of the {label}?", (color,), objects
        else:
            yield f"What color are the {plural(label)}?", (color,), objects


def _color_by_place(room: Room) -> Iterator[Draft]:
    """What color is the chair next to the desk? Only where one chair is and all others are clearly away."""
    for place in room.standing:
        name, near = room.name_of(place), neighbours(place, room.standing)
        for obj in near or ():
            alone = sum(other.label == obj.label for other in near or ()) == 1
            if name and obj.color and alone and _is_one_of_many(room, obj) and place.label != obj.label:
                yield f"What color is the {obj.label} next to the {name}?", (obj.color,), [obj]


def _is_one_of_many(room: Room, obj: SceneObject) -> bool:
    return obj.label in room.clear_labels and len(room.of_label(obj.label)) > 1


def _material(room: Room) -> Iterator[Draft]:
    for obj in room.things:
        name = room.name_of(obj)
        if name and obj.material and obj.label != plural(obj.label):
            yield f"What is the {name} made of?", (obj.material,), [obj]


def _on(room: Room) -> Iterator[Draft]:
    for support in room.things:
        name, there = room.name_of(support), room.on_top_of(support)
        label = shared([obj.label for obj in there])
        if not name or not label or support.label in OPEN_SHELVES:
            continue
        if len(there) == 1:
            answers = (label, *((colored(there[0]),) if there[0].color else ()))
        else:
            answers = (plural(label), f"{number_word(len(there))} {plural(label)}")
        yield f"What is on the {name}?", answers, there
        yield f"What is placed on top of the {name}?", answers, there


def _where_on(room: Room) -> Iterator[Draft]:
    for obj in room.things:
        name = room.name_of(obj)
        if not name or obj.on < 0 or obj.label in OPENINGS:
            continue
        support = room.scene.objects[obj.on]
        specific = room.name_of(support) or support.label
        answers = tuple(dict.fromkeys((f"on the {specific}", f"on the {support.label}")))
        verb = "are" if obj.label == plural(obj.label) else "is"
        yield f"Where {verb} the {name}?", answers, [obj]
        yield f"Where {verb} the {name} located?", answers, [obj]


def _next_to(room: Room) -> Iterator[Draft]:
    for obj in room.standing:
        name, near = room.name_of(obj), neighbours(obj, room.standing)
        if name and near is not None and len(near) == 1:
            answers = (near[0].label, *((colored(near[0]),) if near[0].color else ()))
            yield f"What stands next to the {name}?", answers, near
            yield f"What is on the floor next to the {name}?", answers, near


def _where_next_to(room: Room) -> Iterator[Draft]:
    for obj in room.standing:
        name, near = room.name_of(obj), neighbours(obj, room.standing)
        if name and near is not None and len(near) == 1 and (place := room.name_of(near[0])):
            answers = tuple(dict.fromkeys((f"next to the {place}", f"next to the {near[0].label}")))
            yield f"Where is the {name}?", answers, [obj]
            yield f"Where does the {name} stand?", answers, [obj]


def _taller(room: Room) -> Iterator[Draft]:
    named = [(obj, room.name_of(obj)) for obj in room.standing]
    for a, higher in named:
        for b, lower in named:
            if higher and lower and a.label != b.label and clearly_less(b.size[2], a.size[2]):
                yield f"Which is taller, the {higher} or the {lower}?", (higher,), [a, b]
                yield f"Which is taller, the {lower} or the {higher}?", (higher,), [a, b]


def _extreme(room: Room) -> Iterator[Draft]:
    clear = [obj for obj in room.standing if obj.label in room.clear_labels]
    if len(clear) < len(room.standing):
        return
    for word, largest in (("tallest", True), ("lowest", False)):
        obj = clear_extreme(clear, [o.size[2] for o in clear], largest)
        if obj is not None:
            yield f"What is the {word} object standing on the floor?", (obj.label,), [obj]


def _room_type(room: Room) -> Iterator[Draft]:
    kinds = tuple(part.strip().lower() for part in room.scene.room_type.split("/"))
    for question in ("What kind of room is this?", "What type of room is shown?"):
        yield question, (*kinds, *(with_article(kind) for kind in kinds)), []


TEMPLATES = {
    "count": _count,
    "color": _color,
    "color by place": _color_by_place,
    "material": _material,
    "on": _on,
    "where on": _where_on,
    "next to": _next_to,
    "where next to": _where_next_to,
    "taller": _taller,
    "extreme": _extreme,
    "room type": _room_type,
}
