"""What things in a scene are called, and when a name means one thing only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.synth.scene import Scene, SceneObject

STRUCTURE = frozenset(("wall", "floor", "ceiling"))
"""Never asked about by name."""
OPENINGS = frozenset(("door", "window"))
FLAT_M = 0.12
"""What is lower than this lies on the floor (a rug) and is no obstacle and no neighbour."""

COVERS = {
    "cabinet": ("wardrobe", "dresser", "nightstand", "tv stand"),
    "chair": ("armchair",),
    "couch": ("sofa", "loveseat"),
    "lamp": ("ceiling light",),
    "mat": ("rug",),
    "ottoman": ("stool",),
    "rug": ("mat",),
    "shelf": ("bookshelf",),
    "stool": ("ottoman",),
    "table": ("desk", "nightstand", "tv stand", "kitchen counter"),
    "tv": ("monitor",),
}
"""Labels that a person may also call by the general word; `X Y` is always also a `Y`."""

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")

IRREGULAR = {"bookshelf": "bookshelves", "shelf": "shelves"}


@dataclass(frozen=True)
class Room:
    """A scene with what the question makers look up again and again."""

    scene: Scene
    things: tuple[SceneObject, ...]
    """All but walls, floor and ceiling."""
    standing: tuple[SceneObject, ...]
    """Things that stand on the floor: no doors, windows, rugs, nor what lies or hangs on something."""
    names: dict[int, str]
    """Instance id -> a name that means this object only ("desk", "red chair"); absent where there is none."""
    clear_labels: frozenset[str]
    """Labels that surely mean their own objects and no others of the scene."""

    def name_of(self, obj: SceneObject) -> str | None:
        return self.names.get(obj.instance_id)

    def of_label(self, label: str) -> list[SceneObject]:
        return [obj for obj in self.things if obj.label == label]

    def on_top_of(self, obj: SceneObject) -> list[SceneObject]:
        return [other for other in self.things if other.on == obj.instance_id]

    def labels(self) -> list[str]:
        """Clear labels in the order of first occurrence."""
        return [label for label in dict.fromkeys(o.label for o in self.things) if label in self.clear_labels]


def room_of(scene: Scene) -> Room:
    """Look up the names of a scene once."""
    things = tuple(obj for obj in scene.objects if obj.label not in STRUCTURE)
    labels = {obj.label for obj in things}
    clear = frozenset(label for label in labels if not any(covers(label, other) for other in labels))
    per_label = Counter(obj.label for obj in things)
    per_color = Counter((obj.color, obj.label) for obj in things)
    uncolored = {obj.label for obj in things if not obj.color}
    names = {}
    for obj in things:
        if obj.label not in clear:
            continue
        if per_label[obj.label] == 1:
            names[obj.instance_id] = obj.label
        elif obj.color and per_color[obj.color, obj.label] == 1 and obj.label not in uncolored:
            names[obj.instance_id] = f"{obj.color} {obj.label}"
    standing = tuple(
        obj
        for obj in things
        if obj.on == -1
        and obj.label not in OPENINGS
        and obj.size[2] > FLAT_M
        and obj.center[2] - obj.size[2] / 2 < 0.1
    )
    return Room(scene, things, standing, names, clear)


def covers(general: str, label: str) -> bool:
    """A person may call an object of `label` by the other label `general`."""
    return general != label and (label.endswith(f" {general}") or label in COVERS.get(general, ()))


def plural(label: str) -> str:
    """Plural of a label; labels that are plural already (books, curtains) stay."""
    head, _, last = label.rpartition(" ")
    word = IRREGULAR.get(last) or _regular_plural(last)
    return f"{head} {word}".strip()


def _regular_plural(word: str) -> str:
    if word.endswith("s") and not word.endswith("ss"):
        return word
    if word.endswith(("ss", "x", "ch", "sh")):
        return word + "es"
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return word[:-1] + "ies"
    return word + "s"


def with_article(phrase: str) -> str:
    """a chair, an orange chair; plural labels (books, curtains) go without."""
    if phrase == plural(phrase):
        return phrase
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def colored(obj: SceneObject, color: str | None = None) -> str:
    """`red chair`, or the label alone for an object without a colour."""
    return f"{obj.color if color is None else color} {obj.label}".strip()


def number_word(count: int) -> str:
    return NUMBERS[count] if count < len(NUMBERS) else str(count)


def shared(values: Sequence[str]) -> str:
    """The one value that all share; "" if they differ or there is none."""
    return values[0] if values and len(set(values)) == 1 else ""
