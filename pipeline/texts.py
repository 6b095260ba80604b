"""Stage `texts`: the objects of a scan and the texts about it, from the official annotation files.

The files of ScanRefer, Multi3DRefer, ScanQA and SQA3D are found by their official names anywhere below
`texts.root`; Scan2Cap is derived from ScanRefer. A scan's texts come from whichever files list it.

- A scan of the train split with records of a train file gets training texts: every alternative situation of
  SQA3D before the main one, one caption per ScanRefer row.
- A held-out scan gets evaluation texts: main situations, one caption item per (scene, object, name) with all
  its descriptions. Its box is the ground-truth box.
- Records of held-out files for a scan of the train split are left out and reported: training on them would
  spoil the benchmark.

What a record refers to is found by id. An object, answer or question that is not there is listed in `missing`
as {task, id, what, value}; grounding and caption texts without their objects are left out.

Where `texts.proposals` has a file of the scan, what the detector found follows the annotated objects as rows
of source `pred`. Texts never refer to these. A mask without a vertex has no box and is listed in `missing`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import zarr

from pipeline.annotations import Annotations, Record, load_annotations
from pipeline.config import Config
from pipeline.instances import label_table, scan_instances
from pipeline.scans import ScanEntry, file_fingerprint
from pipeline.timing import part
from scanshards.tasks import TASKS, Text, new_text, sqa3d_question_type

VALID_NYU40 = frozenset((*range(1, 13), 14, 16, 24, 28, 33, 34, 36, 39))
"""NYU40 classes that unique/multiple tells apart; all others count as one class, OTHER_FURNITURE."""
OTHER_FURNITURE = 39


@dataclass(frozen=True)
class Context:
    """What the texts of one scan and benchmark are made with."""

    scan_id: str
    training: bool
    boxes: Mapping[int, list[float]]
    """Instance id -> box."""
    labels: Mapping[str, int]
    """Raw category -> NYU40 id."""
    missing: list[dict[str, str]] = field(default_factory=list)

    def report(self, task: str, text_id: str, what: str, value: object) -> None:
        self.missing.append({"task": task, "id": text_id, "what": what, "value": str(value)})

    def known(self, task: str, text_id: str, object_ids: Sequence[int]) -> list[int]:
        """The ids that are objects of the scan; the others are reported."""
        for object_id in object_ids:
            if object_id not in self.boxes:
                self.report(task, text_id, "object", object_id)
        return [object_id for object_id in object_ids if object_id in self.boxes]


def build(entry: ScanEntry, group: zarr.Group, config: Config, inputs: dict[str, zarr.Group]) -> None:
    """Fill attrs `texts`, `objects`, `inputs`, `missing`. ScanError: instance files that do not fit the mesh.

    ValueError: an annotation file or label table that is not what its name says, no folder of proposals.
    """
    with part("objects"):
        labels, table_path = label_table(config.work_dir / "scans.json")
        instances = scan_instances(entry, labels, table_path, config.texts.proposals)
    with part("annotations"):
        folder = config.annotations_dir
        annotations = Annotations() if folder is None else load_annotations(folder)
        texts, missing = scan_texts(entry, annotations, instances.annotated, labels)
    with part("hash inputs"):
        paths = [*instances.paths, *annotations.files_of(entry.scan_id)]
        hashes = [file_fingerprint(path) for path in paths]
    group.attrs.update(
        {
            "texts": texts,
            "objects": instances.objects,
            "inputs": hashes,
            "missing": missing + instances.missing,
        }
    )


def scan_texts(
    entry: ScanEntry,
    annotations: Annotations,
    objects: Mapping[str, list[Any]],
    labels: Mapping[str, int],
) -> tuple[list[Text], list[dict[str, str]]]:
    """Texts of one scan, tasks in table order and records in file order, and what they miss."""
    boxes = dict(zip(objects["instance_ids"], objects["boxes"], strict=True))
    texts: list[Text] = []
    missing: list[dict[str, str]] = []
    for (task, split), records in annotations.of(entry.scan_id).items():
        held_out = split != "train"
        context = Context(entry.scan_id, not held_out and entry.split == "train", boxes, labels, missing)
        if held_out and entry.split == "train":
            context.report(task, entry.scan_id, "held_out", f"{len(records)} records of {split}")
            continue
        texts += _unique_ids(BUILDERS[task](records, context))
    return texts, missing


def missing_scans(annotations: Annotations, scan_ids: Sequence[str]) -> list[dict[str, str]]:
    """Annotated scans that are not among `scan_ids`, in the form of `missing`."""
    known = set(scan_ids)
    return [
        {"task": task, "id": split, "what": "scan", "value": scan_id}
        for scan_id in annotations.scan_ids()
        if scan_id not in known
        for task, split in annotations.of(scan_id)
    ]


def _sqa3d(records: list[Record], context: Context) -> list[Text]:
    texts = []
    for record in records:
        text_id = str(record["question_id"])
        if "question" not in record:
            context.report("sqa3d", text_id, "question", text_id)
            continue
        if not record["answers"]:
            context.report("sqa3d", text_id, "answer", text_id)
            continue
        alternatives = record["alternative_situation"] if context.training else []
        situations = [(f"{text_id}-{i}", situation) for i, situation in enumerate(alternatives, 1)]
        texts += [
            new_text(
                "sqa3d",
                situation_id,
                question=record["question"],
                answers=record["answers"],
                situation=situation,
                question_type=sqa3d_question_type(record["question"]),
            )
            for situation_id, situation in [*situations, (text_id, record["situation"])]
        ]
    return texts


def _scanqa(records: list[Record], context: Context) -> list[Text]:
    texts = []
    for record in records:
        text_id = record["question_id"]
        if not record["answers"]:
            context.report("scanqa", text_id, "answer", text_id)
            continue
        targets = context.known("scanqa", text_id, record["object_ids"])
        texts.append(
            new_text(
                "scanqa",
                text_id,
                question=record["question"],
                answers=record["answers"],
                target_ids=targets,
            )
        )
    return texts


def _scanrefer(records: list[Record], context: Context) -> list[Text]:
    texts = []
    types = _multiplicity(records, context.labels)
    for record in records:
        text_id = f"{context.scan_id}|{record['object_id']}|{record['ann_id']}"
        targets = context.known("scanrefer", text_id, [record["object_id"]])
        if targets:
            texts.append(
                new_text(
                    "scanrefer",
                    text_id,
                    question=record["description"],
                    target_ids=targets,
                    question_type=types[record["object_name"]],
                )
            )
    return texts


def _scan2cap(records: list[Record], context: Context) -> list[Text]:
    """Training: a text per row; held out: one per (scene, object, name), in order of first occurrence."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        last = record["ann_id"] if context.training else record["object_name"]
        groups.setdefault(f"{context.scan_id}|{record['object_id']}|{last}", []).append(record)
    texts = []
    types = _multiplicity(records, context.labels)
    for text_id, rows in groups.items():
        targets = context.known("scan2cap", text_id, [rows[0]["object_id"]])
        if targets:
            texts.append(
                new_text(
                    "scan2cap",
                    text_id,
                    answers=[row["description"] for row in rows],
                    target_ids=targets,
                    box=context.boxes[targets[0]],
                    question_type=types[rows[0]["object_name"]],
                )
            )
    return texts


def _multi3drefer(records: list[Record], context: Context) -> list[Text]:
    texts = []
    for record in records:
        text_id = f"{context.scan_id}|{record['ann_id']}"
        targets = context.known("multi3drefer", text_id, record["object_ids"])
        if len(targets) == len(record["object_ids"]):
            texts.append(
                new_text(
                    "multi3drefer",
                    text_id,
                    question=record["description"],
                    target_ids=targets,
                    question_type=record["eval_type"],
                )
            )
    return texts


BUILDERS = {
    "sqa3d": _sqa3d,
    "scanqa": _scanqa,
    "scan2cap": _scan2cap,
    "scanrefer": _scanrefer,
    "multi3drefer": _multi3drefer,
}
assert BUILDERS.keys() == TASKS.keys()


def _multiplicity(records: list[Record], labels: Mapping[str, int]) -> dict[str, str]:
    """Object name -> unique/multiple: how many annotated objects of the scan in the file share its class."""

    def class_of(name: str) -> int:
        nyu40 = labels.get(name.replace("_", " "), OTHER_FURNITURE)
        return nyu40 if nyu40 in VALID_NYU40 else OTHER_FURNITURE

    first_name: dict[int, str] = {}
    for record in records:
        first_name.setdefault(record["object_id"], record["object_name"])
    counts = Counter(class_of(name) for name in first_name.values())
    names = {record["object_name"] for record in records}
    return {name: "unique" if counts[class_of(name)] == 1 else "multiple" for name in names}


def _unique_ids(texts: list[Text]) -> list[Text]:
    """The second text of one id gets `+2` behind its id, and so on: official ids are not promised unique."""
    seen: Counter[str] = Counter()
    for text in texts:
        seen[text["id"]] += 1
        if seen[text["id"]] > 1:
            text["id"] += f"+{seen[text['id']]}"
    return texts
