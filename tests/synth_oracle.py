"""A slow second opinion on synthetic texts: answers and meanings from the words and the scene alone.

It shares nothing with the makers but the plural rule and the list of words that cover others: directions come
from the quaternion in the person's frame, distances from grids of points, lines of sight from walking along.
"""

import math
import re

from pipeline.synth.naming import covers, plural, with_article
from pipeline.synth.relations import inside

SIDES = {"in front of me": "front", "to my left": "left", "behind me": "behind", "to my right": "right"}
YES = {True: "yes", False: "no"}
NUMBERS = "zero one two three four five six seven eight nine ten".split()


class Person:
    """Works in the person's own frame: metres ahead and to the left."""

    def __init__(self, scene, annotation):
        self.scene, self.distances = scene, {}
        turn = annotation["rotation"]
        assert turn["_x"] == turn["_y"] == 0 and abs(turn["_z"] ** 2 + turn["_w"] ** 2 - 1) < 1e-9
        self.x, self.y = annotation["position"]["x"], annotation["position"]["y"]
        self.ahead = (1 - 2 * turn["_z"] ** 2, 2 * turn["_z"] * turn["_w"])  # the quaternion applied to +x

    def local(self, x, y):
        dx, dy = x - self.x, y - self.y
        return dx * self.ahead[0] + dy * self.ahead[1], dy * self.ahead[0] - dx * self.ahead[1]

    def side(self, obj):
        """The side that the centre is on, which must be 15 degrees away from the next one."""
        small, large = sorted(map(abs, self.local(*obj.center[:2])))
        assert small <= math.tan(math.radians(30.001)) * large, "too close to the border between two sides"
        return self.loose_side(obj)

    def loose_side(self, obj):
        ahead, left = self.local(*obj.center[:2])
        if abs(ahead) > abs(left):
            return "front" if ahead > 0 else "behind"
        return "left" if left > 0 else "right"

    def distance(self, obj):
        """To the nearest point of the box, by trying a grid of points."""
        if obj.instance_id not in self.distances:
            nearest = min(math.dist((self.x, self.y), point) for point in grid(obj))
            self.distances[obj.instance_id] = nearest
        return self.distances[obj.instance_id]


def grid(obj, steps=20):
    (x, y, _), (dx, dy, _) = obj.center, obj.size
    return [
        (x + dx * (i / steps - 0.5), y + dy * (j / steps - 0.5))
        for i in range(steps + 1)
        for j in range(steps + 1)
    ]


def box_gap(a, b):
    """Gap between two boxes from above, by closest points of clamping."""
    x = max(abs(a.center[0] - b.center[0]) - (a.size[0] + b.size[0]) / 2, 0)
    y = max(abs(a.center[1] - b.center[1]) - (a.size[1] + b.size[1]) / 2, 0)
    return math.hypot(x, y)


def things(scene):
    return [obj for obj in scene.objects if obj.label not in ("wall", "floor", "ceiling")]


def box_bottom(obj):
    return obj.center[2] - obj.size[2] / 2


def standing(scene):
    return [
        o
        for o in things(scene)
        if o.on < 0 and o.label not in ("door", "window") and o.size[2] > 0.12 and box_bottom(o) < 0.1
    ]


def the(scene, name):
    """The one object a name means; people may say table for a desk, so `table` must not be said then."""
    found = [o for o in things(scene) if name in (o.label, f"{o.color} {o.label}")]
    assert len(found) == 1, (name, found)
    assert not any(covers(found[0].label, other.label) for other in things(scene))
    return found[0]


def members(scene, noun):
    """Objects of a plural or singular noun, with or without a colour."""
    found = [
        o
        for o in things(scene)
        if noun in (o.label, plural(o.label), f"{o.color} {o.label}", f"{o.color} {plural(o.label)}")
    ]
    assert not any(covers(o.label, other.label) for o in found for other in things(scene))
    return found


def blocker_between(person, eye_z, target, scene):
    """What a walk along the line from the eye to the target's centre comes through first, if anything."""
    start, others = (person.x, person.y, eye_z), things(scene)
    for i in range(201):
        point = [a + (b - a) * i / 200 for a, b in zip(start, target.center, strict=True)]
        if within(target, point):
            return None
        for obj in others:
            if obj.instance_id != target.on and within(obj, point):
                return obj
    raise AssertionError("the walk ends inside the target")


def within(obj, point):
    return all(abs(p - c) <= s / 2 for p, c, s in zip(point, obj.center, obj.size, strict=True))


PHRASE = "(in front of me|to my left|behind me|to my right)"
PLACE = {"front": "in front", "left": "left", "behind": "behind", "right": "right"}
WAY = {"front": "forward", "left": "left", "behind": "backward", "right": "right"}


def answer_situated(scene, person, question, situation):
    """The answer to an SQA3D question, from its words alone."""

    def match(pattern):
        return re.fullmatch(pattern, question)

    if m := match(f"What is the closest object standing on the floor {PHRASE}\\?"):
        order = sorted(standing(scene), key=person.distance)
        inside_side = [o for o in order if person.loose_side(o) == SIDES[m[1]]]
        return inside_side[0].label
    if m := match(f"What color is the (.+) {PHRASE}\\?"):
        (found,) = [o for o in members(scene, m[1]) if person.side(o) == SIDES[m[2]]]
        return found.color
    if m := match(f"Is the (.+) {PHRASE}\\?"):
        return YES[person.side(the(scene, m[1])) == SIDES[m[2]]]
    if m := match(f"Is the (.+) {PHRASE} (\\w+)\\?"):
        (found,) = [o for o in members(scene, m[1]) if person.side(o) == SIDES[m[2]]]
        return YES[found.color == m[3]]
    if m := match(r"Is the (.+) closer to me than the (.+)\?"):
        return YES[person.distance(the(scene, m[1])) < person.distance(the(scene, m[2]))]
    if m := match(f"How many (.+) are {PHRASE}\\?"):
        return NUMBERS[sum(person.side(o) == SIDES[m[2]] for o in members(scene, m[1]))]
    if m := match(r"How many (.+) are in this room\?"):
        return NUMBERS[len(members(scene, m[1]))]
    if m := match(r"Can I see the (.+) without turning around\?"):
        target = the(scene, m[1])
        side = person.side(target)
        assert side in ("front", "behind")
        if side == "front":
            eye_z = 1.15 if re.search(r"\bs(it|itting|at)\b", situation) else 1.55
            blocker = blocker_between(person, eye_z, target, scene)
            assert blocker is None or blocker.label in situation, blocker
        return YES[side == "front"]
    if m := match(r"Can I touch the (.+) without walking\?"):
        distance = person.distance(the(scene, m[1]))
        assert distance < 0.7 or distance > 1.45
        return YES[distance < 1]
    if m := match(r"Which direction should I go to reach the (.+)\?"):
        return WAY[person.side(the(scene, m[1]))]
    if m := match(r"Which is closer to me, the (.+) or the (.+)\?"):
        return min(m.groups(), key=lambda name: person.distance(the(scene, name)))
    if m := match(r"In which direction is the (.+)\?"):
        return PLACE[person.side(the(scene, m[1]))]
    if m := match(f"Are there any (.+) {PHRASE}\\?"):
        return YES[any(person.side(o) == SIDES[m[2]] for o in members(scene, m[1]))]
    if m := match(r"If I turn (left|right|around), will I face the (.+)\?"):
        turned = {"left": "left", "right": "right", "around": "behind"}[m[1]]
        return YES[person.side(the(scene, m[2])) == turned]
    raise AssertionError(f"no rule for {question!r}")


def check_situation(scene, person, sentence):
    """The sentence fits the pose: what it faces is ahead, what it turns its back to is behind."""

    def straight(name, sign):
        ahead, left = person.local(*the(scene, name).center[:2])
        assert sign * ahead > 0 and abs(left) < 0.18 * abs(ahead), (sentence, ahead, left)

    if m := re.fullmatch(
        r"I (?:am sitting|sit|just sat down) on the (.+?)(?: and look straight ahead)?\.", sentence
    ):
        seat = the(scene, m[1])
        assert math.dist(seat.center[:2], (person.x, person.y)) < 1e-9
        assert math.dist((math.cos(seat.yaw_rad), math.sin(seat.yaw_rad)), person.ahead) < 1e-9
        return
    assert inside(scene.outline, person.x, person.y)
    assert all(person.distance(obj) > 0.1 for obj in standing(scene))
    facing = [
        r"in front of the (.+) and facing it\.",
        r"I am facing the (.+), which",
        r"before the (.+) and look",
        r"facing the ([^,]+)\.",
        r"I am looking at the (.+) and the",
        r"and look at the (.+)\.",
    ]
    backing = [
        r"in front of the (.+) with my back",
        r"(?:^|and )[Tt]he ((?:(?! and ).)+) is right behind me",
        r"my back to the (.+?)(?:,| and)",
        r"standing by the (.+) with my back",
    ]
    found = 0
    for patterns, sign in ((facing, 1), (backing, -1)):
        for m in filter(None, (re.search(pattern, sentence) for pattern in patterns)):
            straight(m[1], sign)
            found += 1
    assert found, sentence


def denoted(scene, text):
    """The objects that a description means, from its words alone."""
    text, _, material = text.partition(" it is made of ")
    for opening in ("this is ", "look for ", "these are ", "all "):
        text = text.removeprefix(opening)
    noun, relation, anchor = re.fullmatch(
        r"(.+?)(?:\.? (?:it is |that is )?(?:the one )?(next to|on|closest to|farthest from) the (.+)"
        r"| in the room)?\.",
        text,
    ).groups()
    words = re.sub(r"^(the|a|an) ", "", noun).split()
    order = words.pop(0) if words[0] in ("tallest", "shortest", "largest", "smallest") else None
    found = members(scene, " ".join(words))
    if material:
        found = [o for o in found if o.material == material.rstrip(".")]
    if order in ("tallest", "shortest"):
        assert len(found) > 1
        found = sorted(found, key=lambda o: o.size[2], reverse=order == "tallest")[:1]
    elif order:
        assert len(found) > 1
        found = sorted(found, key=lambda o: max(o.size[:2]), reverse=order == "largest")[:1]
    if relation == "next to":
        assert all(not 0.35 < box_gap(o, the(scene, anchor)) < 0.9 for o in found)
        found = [o for o in found if box_gap(o, the(scene, anchor)) <= 0.35]
    elif relation == "on":
        found = [o for o in found if o.on == the(scene, anchor).instance_id]
    elif relation:
        place = the(scene, anchor)
        order = sorted(found, key=lambda o: math.dist(o.center[:2], place.center[:2]))
        found = [order[0] if relation == "closest to" else order[-1]]
    return {o.instance_id for o in found}


def answers_about_room(scene, question):
    """All answers that a ScanQA question allows, from its words alone."""

    def match(pattern):
        return re.fullmatch(pattern, question)

    def near(obj):
        gaps = [(box_gap(obj, o), o) for o in standing(scene) if o is not obj]
        assert not any(0.35 < gap < 0.9 for gap, _ in gaps)
        return [o for gap, o in gaps if gap <= 0.35]

    if m := match(r"How many (.+?) are there(?: in the room)?\?"):
        count = len(members(scene, m[1]))
        return {NUMBERS[count], str(count)}
    if m := match(r"What color is the (.+) next to the (.+)\?"):
        (found,) = [o for o in near(the(scene, m[2])) if o in members(scene, m[1])]
        return {found.color}
    if (m := match(r"What color (?:is|are) the (.+)\?")) or (m := match(r"What is the color of the (.+)\?")):
        colors = {o.color for o in members(scene, m[1])}
        assert len(colors) == 1
        return colors
    if m := match(r"What is the (.+) made of\?"):
        return {the(scene, m[1]).material}
    if (m := match(r"What is on the floor next to the (.+)\?")) or (
        m := match(r"What stands next to the (.+)\?")
    ):
        (found,) = near(the(scene, m[1]))
        return {found.label, f"{found.color} {found.label}"}
    if (m := match(r"What is on the (.+)\?")) or (m := match(r"What is placed on top of the (.+)\?")):
        there = [o for o in scene.objects if o.on == the(scene, m[1]).instance_id]
        (label,) = {o.label for o in there}
        if len(there) == 1:
            return {label, f"{there[0].color} {label}"}
        return {plural(label), f"{NUMBERS[len(there)]} {plural(label)}"}
    if (m := match(r"Where does the (.+) stand\?")) or (
        m := match(r"Where (?:is|are) the (.+?)(?: located)?\?")
    ):
        obj = the(scene, m[1])
        if obj.on >= 0:
            place, word = scene.objects[obj.on], "on"
        else:
            (place,), word = near(obj), "next to"
        return {f"{word} the {place.label}", f"{word} the {place.color} {place.label}"}
    if m := match(r"Which is taller, the (.+) or the (.+)\?"):
        return {max(m.groups(), key=lambda name: the(scene, name).size[2])}
    if m := match(r"What is the (tallest|lowest) object standing on the floor\?"):
        order = sorted(standing(scene), key=lambda o: o.size[2])
        return {order[0 if m[1] == "lowest" else -1].label}
    if match("What (kind of room is this|type of room is shown)\\?"):
        kinds = {kind.strip().lower() for kind in scene.room_type.split("/")}
        return kinds | {with_article(kind) for kind in kinds}
    raise AssertionError(f"no rule for {question!r}")
