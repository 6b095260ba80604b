"""Records of the "LLaVA-style" files of Video-3D-LLM and ROSS3D, made from texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scanshards.tasks import TASKS, human_value, task_of, train_targets

FILES = {
    "sqa3d": "sqa_task/sqa3d",
    "scanqa": "scanqa/scanqa",
    "scan2cap": "scan2cap/scan2cap",
    "scanrefer": "scanrefer/scanrefer_vg",
    "multi3drefer": "multi3drefer/multi3drefer",
}
"""Task -> folder and start of the file's name below `processed/`."""
assert FILES.keys() == TASKS.keys()

MIN_IOU = 0.5
"""A held-out caption's box is the best proposal, if it overlaps the object this much."""

_DATASETS = {"scanqa": "scanQA"}
"""Spelled as in the published files; the others as the task."""
_NO_TYPE = "unknow"
"""What the published files say where a task has no question types."""

Box = list[float]


def file_name(task: str, split: str) -> str:
    return f"processed/{FILES[task]}_{split}_llava_style.json"


def records(
    text: Mapping[str, Any],
    scan_id: str,
    split: str,
    boxes: Mapping[int, Box],
    proposals: Sequence[Box],
) -> list[dict[str, Any]]:
    """The records of one text, without `id` where the published files number their rows.

    boxes: annotated ones by instance id; proposals: detected ones. A training text without an answer has
    no record. ValueError: a grounding text asks for an object that has no box, or for no single one.
    """
    targets = train_targets(text)
    if split != "train":
        targets = targets[:1] or [""]
    where = f"{scan_id}, {text['task']} text {text['id']!r}"
    made = []
    for number, target in enumerate(targets):
        record: dict[str, Any] = {
            "video": f"scannet/{scan_id}",
            "conversations": [
                {"value": human_value(text), "from": "human"},
                {"value": target, "from": "gpt"},
            ],
            "metadata": {
                "dataset": _DATASETS.get(text["task"], text["task"]),
                "question_type": text["question_type"] or _NO_TYPE,
            },
        }
        if text["task"] == "sqa3d":
            record = {"id": _official_id(text["id"]), **record}
        elif text["task"] == "scanqa":
            record = {"id": f"scanqa_{text['id']}_{number}", **record}
            if split != "train":
                record["metadata"]["answers"] = list(text["answers"])
        elif task_of(text).kind == "caption":
            _add_caption(record, text, split, proposals)
        else:
            _add_grounding(record, text, boxes, where)
        made.append(record)
    return made


def _official_id(text_id: str) -> int | str:
    """SQA3D's question id: without the number of the alternative situation, a number where it is one."""
    official = text_id.partition("-")[0].partition("+")[0]
    return int(official) if official.isascii() and official.isdigit() else text_id


def _add_caption(
    record: dict[str, Any], text: Mapping[str, Any], split: str, proposals: Sequence[Box]
) -> None:
    _, is_row, last = text["id"].rpartition("|")
    metadata = record["metadata"]
    metadata["ann_id"] = last if is_row and split == "train" else ""
    metadata["object_id"] = str(text["target_ids"][0]) if text["target_ids"] else ""
    box: Box | None = list(text["box"]) or None
    record["gt_box"] = box
    record["box_input"] = box
    if split != "train":
        record["annotations"] = list(text["answers"])
        if proposals and box is not None:
            record["box_input"] = _best_proposal(box, proposals)


def _add_grounding(
    record: dict[str, Any], text: Mapping[str, Any], boxes: Mapping[int, Box], where: str
) -> None:
    ids = list(text["target_ids"])
    missing = [i for i in ids if i not in boxes]
    if missing:
        raise ValueError(f"{where}: object {missing[0]} has no box, expected an annotated object")
    if text["task"] == "multi3drefer":
        record["metadata"]["object_id"] = ids
        record["box"] = [boxes[i] for i in ids]
        return
    if len(ids) != 1:
        raise ValueError(f"{where}: got objects {ids}, expected exactly one")
    record["metadata"]["object_id"] = str(ids[0])
    record["box"] = boxes[ids[0]]


def _best_proposal(box: Box, proposals: Sequence[Box]) -> Box | None:
    """The proposal with the highest overlap, the first of equals; None if it is below MIN_IOU."""
    best = max(proposals, key=lambda proposal: iou(box, proposal))
    return best if iou(box, best) >= MIN_IOU else None


def iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two boxes (centre x y z, size x y z)."""
    common = 1.0
    for axis in range(3):
        low = max(box[axis] - box[axis + 3] / 2 for box in (a, b))
        high = min(box[axis] + box[axis + 3] / 2 for box in (a, b))
        common *= max(0.0, high - low)
    volumes = a[3] * a[4] * a[5] + b[3] * b[4] * b[5]
    return common / (volumes - common) if volumes > common else 0.0
