"""The official annotation files about synthetic rooms: ScanRefer, Multi3DRefer, ScanQA and SQA3D.

    write_annotations(root, scenes_train, scenes_val, seed)

File names, containers and fields are those of the releases. Everything said is true by construction: it is
derived from the scene, and only where nobody could disagree (`relations`). From all true texts a subset is
chosen so that no answer dominates a type of question (see `choose`). SQA3D's `position` is in the scan's
world frame (axis-aligned, metres); its `rotation` is the quaternion about z that turns +x into the direction
that the person faces.
"""

from __future__ import annotations

import json
import math
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pipeline.synth.naming import STRUCTURE, Room, room_of
from pipeline.synth.questions import RoomQuestion, room_questions
from pipeline.synth.referring import descriptions_of, multiple_targets, no_targets, single_targets
from pipeline.synth.scene import COLORS, Scene
from pipeline.synth.situated import SituatedQuestion, situated_questions
from pipeline.synth.situations import situations
from scanshards.tasks import sqa3d_question_type
from scanshards.write import atomic_write_bytes

Item = TypeVar("Item")
Record = dict[str, Any]


@dataclass(frozen=True)
class Quota:
    """Texts per room."""

    situations: int = 24
    per_sqa3d_type: int = 10
    scanqa: int = 60
    scanrefer: int = 40
    multi3drefer: tuple[tuple[str, int], ...] = (
        ("zt_wo_d", 4),
        ("zt_w_d", 4),
        ("st_wo_d", 8),
        ("st_w_d", 14),
        ("mt", 10),
    )


TRAIN_QUOTA = Quota()
VAL_QUOTA = Quota(per_sqa3d_type=6, scanqa=36)


def write_annotations(root: Path, scenes_train: list[Scene], scenes_val: list[Scene], seed: int) -> None:
    """Write the official files of both splits below `root`; same scenes and seed, same bytes."""
    root.mkdir(parents=True, exist_ok=True)
    scenes = [*scenes_train, *scenes_val]
    labels = sorted({o.label for s in scenes for o in s.objects} - STRUCTURE)
    splits = (("train", scenes_train, TRAIN_QUOTA, 0), ("val", scenes_val, VAL_QUOTA, 100_000))
    for split, split_scenes, quota, first_id in splits:
        rooms = [room_of(scene) for scene in split_scenes]
        for name, content in _files(split, rooms, quota, (labels, first_id, seed)).items():
            atomic_write_bytes(root / name, (json.dumps(content, indent=1) + "\n").encode())


def _files(
    split: str, rooms: Sequence[Room], quota: Quota, context: tuple[list[str], int, int]
) -> dict[str, Any]:
    """File name -> content of one split; `context`: labels of all rooms, first SQA3D id, seed."""
    labels, first_id, seed = context
    rng = random.Random(f"{seed} {split}")
    questions, annotations = _sqa3d(rooms, quota, first_id, rng)
    header = {"info": {"description": "Synthetic rooms in the format of SQA3D v1.0."}, "data_type": "scannet"}
    return {
        f"v1_balanced_questions_{split}_scannetv2.json": {
            **header,
            "data_subtype": "v2",
            "task_type": "Situated question answering",
            "questions": questions,
        },
        f"v1_balanced_sqa_annotations_{split}_scannetv2.json": {
            **header,
            "data_subtype": "v2",
            "annotations": annotations,
        },
        f"ScanQA_v1.0_{split}.json": _scanqa(split, rooms, quota, rng),
        f"ScanRefer_filtered_{split}.json": _scanrefer(rooms, quota, rng),
        f"multi3drefer_{split}.json": _multi3drefer(rooms, quota, labels, rng),
    }


def choose(
    items: Sequence[Item],
    count: int,
    keys: Callable[[Item], tuple[object, ...]],
    used: Counter[object],
    rng: random.Random,
) -> list[Item]:
    """`count` of `items` (all if there are fewer), each time one whose keys are used least, first key first.

    `used` counts keys across calls, so rooms balance each other. Order within equals is random.
    """
    pool = list(items)
    rng.shuffle(pool)
    waiting: dict[tuple[object, ...], list[Item]] = {}
    for item in pool:
        waiting.setdefault(keys(item), []).append(item)
    chosen = []
    while waiting and len(chosen) < count:
        least = min(waiting, key=lambda key: [used[part] for part in key])
        chosen.append(waiting[least].pop())
        used.update(least)
        if not waiting[least]:
            del waiting[least]
    return chosen


def _sqa3d(
    rooms: Sequence[Room], quota: Quota, first_id: int, rng: random.Random
) -> tuple[list[Record], list[Record]]:
    used: Counter[object] = Counter()
    questions, annotations = [], []
    for room in rooms:
        by_type: dict[str, list[SituatedQuestion]] = {}
        found = choose(
            situations(room), quota.situations, lambda s: (len(s.anchors), s.anchors), Counter(), rng
        )
        for item in situated_questions(room, found):
            by_type.setdefault(sqa3d_question_type(item.question), []).append(item)
        for kind in sorted(by_type):
            chosen = choose(
                by_type[kind],
                quota.per_sqa3d_type,
                lambda item, kind=kind, scan_id=room.scene.scan_id: (
                    (kind, item.answer if item.answer in ("yes", "no") else "open"),
                    (kind, item.template),
                    (item.template, item.answer),
                    (scan_id, item.situation.sentences),
                ),
                used,
                rng,
            )
            for item in chosen:
                question_id = 220602000000 + first_id + len(questions)
                question, annotation = _situated_records(room.scene.scan_id, question_id, item, rng)
                questions.append(question)
                annotations.append(annotation)
    return questions, annotations


def _situated_records(
    scan_id: str, question_id: int, item: SituatedQuestion, rng: random.Random
) -> tuple[Record, Record]:
    situation, *alternatives = rng.sample(item.situation.sentences, len(item.situation.sentences))
    pose = item.situation.pose
    question = {
        "scene_id": scan_id,
        "situation": situation,
        "alternative_situation": alternatives,
        "question": item.question,
        "question_id": question_id,
    }
    annotation = {
        "scene_id": scan_id,
        "question_type": "N/A",
        "answer_type": "other",
        "question_id": question_id,
        "answers": [{"answer": item.answer, "answer_confidence": "yes", "answer_id": 1}],
        "rotation": {
            "_x": 0,
            "_y": 0,
            "_z": math.sin(pose.yaw_rad / 2),
            "_w": math.cos(pose.yaw_rad / 2),
        },
        "position": {"x": pose.x, "y": pose.y, "z": 0},
    }
    return question, annotation


def _scanqa(split: str, rooms: Sequence[Room], quota: Quota, rng: random.Random) -> list[Record]:
    """Held out: all right answers. Training: the usual one, and all of them for every tenth question."""
    used: Counter[object] = Counter()
    records = []
    for room in rooms:
        scan_id = room.scene.scan_id

        def keys(item: RoomQuestion, scan_id: str = scan_id) -> tuple[object, ...]:
            about = (scan_id, item.template, tuple(obj.instance_id for obj in item.objects))
            return (scan_id, item.template), about, (item.template, item.answers[0])

        for number, item in enumerate(choose(room_questions(room), quota.scanqa, keys, used, rng)):
            answers = item.answers if split != "train" or number % 10 == 0 else item.answers[:1]
            records.append(
                {
                    "answers": list(answers),
                    "object_ids": [obj.instance_id for obj in item.objects],
                    "object_names": [obj.label for obj in item.objects],
                    "question": item.question,
                    "question_id": f"{split}-{scan_id[:-3]}-{number}",
                    "scene_id": scan_id,
                }
            )
    return records


def _scanrefer(rooms: Sequence[Room], quota: Quota, rng: random.Random) -> list[Record]:
    used: Counter[object] = Counter()
    records = []
    for room in rooms:
        drafts = [
            (obj, rng.randrange(3), found) for obj in room.things for found in descriptions_of(room, obj)
        ]
        scan_id = room.scene.scan_id
        chosen = choose(
            drafts,
            quota.scanrefer,
            lambda draft, scan_id=scan_id: (
                (scan_id, draft[0].instance_id),
                (draft[2].relation, draft[2].order, bool(draft[2].color)),
            ),
            used,
            rng,
        )
        next_ann: Counter[int] = Counter()
        for obj, form, found in sorted(chosen, key=lambda draft: draft[0].instance_id):
            description = found.sentence(form)
            records.append(
                {
                    "scene_id": scan_id,
                    "object_id": str(obj.instance_id),
                    "object_name": obj.label.replace(" ", "_"),
                    "ann_id": str(next_ann[obj.instance_id]),
                    "description": description,
                    "token": re.findall(r"\w+|[^\w\s]", description),
                }
            )
            next_ann[obj.instance_id] += 1
    return records


def _multi3drefer(
    rooms: Sequence[Room], quota: Quota, labels: Sequence[str], rng: random.Random
) -> list[Record]:
    used: Counter[object] = Counter()
    records = []
    for room in rooms:
        groups = [*no_targets(room, labels, list(COLORS)), *single_targets(room), *multiple_targets(room)]
        number = 0
        for kind, count in quota.multi3drefer:
            chosen = choose(
                [group for group in groups if group.eval_type == kind],
                count,
                lambda group, kind=kind: ((kind, group.targets), (kind, group.label), (kind, group.spatial)),
                used,
                rng,
            )
            for group in chosen:
                records.append(
                    {
                        "scene_id": room.scene.scan_id,
                        "object_ids": list(group.targets),
                        "object_name": group.label.replace(" ", "_"),
                        "ann_id": number,
                        "description": group.description,
                        "eval_type": group.eval_type,
                        "spatial": group.spatial,
                        "color": group.color,
                        "texture": group.texture,
                        "shape": False,
                    }
                )
                number += 1
    return records
