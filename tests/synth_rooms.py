"""Rooms of boxes put down at random, for tests of texts."""

import math
import random

from pipeline.synth.relations import inside
from pipeline.synth.scene import Scene, SceneObject

FURNITURE = {  # label: size, on the floor?
    "chair": (0.5, 0.5, 0.9),
    "office chair": (0.6, 0.6, 1.0),
    "desk": (0.7, 1.4, 0.75),
    "table": (0.9, 1.2, 0.72),
    "couch": (0.9, 2.0, 0.85),
    "bookshelf": (0.35, 0.9, 1.9),
    "nightstand": (0.4, 0.45, 0.5),
    "trash can": (0.3, 0.3, 0.4),
    "stool": (0.35, 0.35, 0.5),
    "bed": (2.0, 1.5, 0.6),
    "rug": (1.4, 1.0, 0.02),
}
SMALL = {"lamp": (0.25, 0.25, 0.45), "books": (0.2, 0.25, 0.15), "monitor": (0.2, 0.6, 0.45)}
COLORS = ("red", "blue", "brown", "white", "orange")


def random_scene(scan_id):
    """An L-shaped room with boxes put down at random: as unfair as layouts get."""
    rng = random.Random(scan_id)
    outline = ((0.0, 0.0), (7.0, 0.0), (7.0, 3.5), (4.5, 3.5), (4.5, 6.0), (0.0, 6.0))
    objects = [SceneObject(0, "floor", 2, "brown", "wood", (3.5, 3.0, -0.01), (7.0, 6.0, 0.02), 0.0)]
    for (x0, y0), (x1, y1) in zip(outline, [*outline[1:], outline[0]], strict=True):
        center, size = ((x0 + x1) / 2, (y0 + y1) / 2, 1.25), (abs(x1 - x0), abs(y1 - y0), 2.5)
        objects.append(SceneObject(len(objects), "wall", 1, "white", "", center, size, 0.0))
    door = SceneObject(
        len(objects), "door", 8, "white", "wood", (2.0, 0.05, 1.0), (0.9, 0.1, 2.0), math.pi / 2
    )
    objects.append(door)
    for _ in range(200):
        label = rng.choice(list(FURNITURE))
        quarter = rng.randrange(4)
        dx, dy, dz = (value * rng.uniform(0.9, 1.3) for value in FURNITURE[label])
        if quarter % 2:
            dx, dy = dy, dx
        x, y = rng.uniform(dx / 2, 7 - dx / 2), rng.uniform(dy / 2, 6 - dy / 2)
        corners = [(x + i * dx / 2, y + j * dy / 2) for i in (-1, 1) for j in (-1, 1)]
        apart = all(
            abs(x - o.center[0]) > (dx + o.size[0]) / 2 + 0.05
            or abs(y - o.center[1]) > (dy + o.size[1]) / 2 + 0.05
            for o in objects
            if o.label not in ("floor", "wall")
        )
        if not apart or not all(inside(outline, *corner) for corner in corners) or len(objects) > 26:
            continue
        color = rng.choice((*COLORS, "")) if label != "desk" else "brown"
        host = SceneObject(
            len(objects), label, 39, color, "wood", (x, y, dz / 2), (dx, dy, dz), quarter * math.pi / 2
        )
        objects.append(host)
        if label in ("desk", "table", "nightstand") and rng.random() < 0.8:
            small = rng.choice(list(SMALL))
            size = SMALL[small]
            center = (x, y, dz + size[2] / 2)
            number = len(objects)
            objects.append(
                SceneObject(
                    number, small, 40, rng.choice(COLORS), "metal", center, size, 0.0, host.instance_id
                )
            )
    return Scene(scan_id, "Bedroom / Hotel", (7.0, 6.0, 2.5), outline, tuple(objects))
