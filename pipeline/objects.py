"""Instances of a scan from ScanNet's segmentation: boxes, ids, labels and NYU40 classes.

Boxes follow the published preprocessing to the last bit, except that ids are stored beside them instead of
being implied by the row:

- vertices are float32 in the world frame (aligned in float64 by the caller);
- segment groups are walked in file order, so on shared segments the later group wins; a group that is wholly
  overwritten has no box;
- min and max are float32; the upper corner is min + (max - min) in float32, which can differ from the maximum
  by one rounding; centre and size are float64 from these two corners.

All classes are kept, walls and floors included.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ScanError

MAX_FILE_BYTES = 256 * 2**20
"""ScanNet's largest segment file has about 5 MB; anything beyond this cap is damage, not data."""

UNKNOWN_LABEL = "case"
"""A label that the table does not list counts as this one (the published rule)."""
OTHER_PROP = 40
"""NYU40 class of `case` in ScanNet's table; used when even that row is missing."""

COLUMNS = ("boxes", "instance_ids", "labels", "nyu40_ids", "sources", "scores")
"""Columns of `objects.json`, all of one length."""


def no_objects() -> dict[str, list[Any]]:
    """The columns of a scan without instances."""
    return {name: [] for name in COLUMNS}


def read_label_table(path: Path) -> dict[str, int]:
    """raw_category -> nyu40id of `scannetv2-labels.combined.tsv`. ValueError: not such a table."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        if not {"raw_category", "nyu40id"} <= set(rows.fieldnames or ()):
            raise ValueError(
                f"{path}: columns {rows.fieldnames}, expected raw_category and nyu40id; "
                "use scannetv2-labels.combined.tsv of the ScanNet release"
            )
        try:
            return {row["raw_category"]: int(row["nyu40id"]) for row in rows}
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path} line {rows.line_num}: {error}, expected an integer nyu40id") from error


def nyu40_of(label: str, table: Mapping[str, int]) -> int:
    """NYU40 class of a raw label; one that the table lacks counts as `case` (40, other prop)."""
    return table[label] if label in table else table.get(UNKNOWN_LABEL, OTHER_PROP)


def scan_objects(
    vertices: NDArray[np.float32], segs_path: Path, aggregation_path: Path, table: Mapping[str, int]
) -> dict[str, list[Any]]:
    """Columns of `objects.json`, instance ids ascending; all are ground truth of score 1.

    `vertices` (V, 3) float32, world, metres, in the order of the mesh file. ScanError: a file that is
    missing, too large, malformed, or of another mesh.
    """
    segments = _vertex_segments(segs_path)
    if len(segments) != len(vertices):
        raise ScanError(
            f"{segs_path.name}: {len(segments)} vertices, expected {len(vertices)} as in the mesh; "
            "the files are of different meshes"
        )
    groups = _groups(aggregation_path)
    instances = _vertex_instances(segments, groups, aggregation_path.name)
    ids, boxes = instance_boxes(vertices, instances)
    if not np.isfinite(boxes).all():
        raise ScanError(f"{segs_path.name}: mesh vertices that are not finite belong to objects")
    labels = {instance_id: label for instance_id, label, _ in groups}
    return {
        "boxes": boxes.tolist(),
        "instance_ids": ids.tolist(),
        "labels": [labels[i] for i in ids.tolist()],
        "nyu40_ids": [nyu40_of(labels[i], table) for i in ids.tolist()],
        "sources": ["gt"] * len(ids),
        "scores": [1.0] * len(ids),
    }


def instance_boxes(
    vertices: NDArray[np.float32], instances: NDArray[np.int16]
) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    """Ids present (n,) ascending and their boxes (n, 6) [cx, cy, cz, dx, dy, dz] in metres.

    `vertices` (V, 3) float32; `instances` (V,) int16, -1 = no instance.
    """
    order = np.argsort(instances, kind="stable")
    order = order[np.searchsorted(instances[order], 0) :]
    ids, starts = np.unique(instances[order], return_index=True)
    if not len(ids):
        return ids, np.zeros((0, 6))
    low = np.minimum.reduceat(vertices[order], starts, axis=0)  # (n, 3) float32
    high = np.maximum.reduceat(vertices[order], starts, axis=0)
    lower = low.astype(np.float64)
    upper = (low + (high - low)).astype(np.float64)  # the float32 corner of the published files
    return ids, np.concatenate([(lower + upper) / 2, upper - lower], axis=1)


def _vertex_segments(path: Path) -> NDArray[np.int64]:
    """`segIndices` (V,): the segment of each vertex."""
    tree = _read_json(path)
    values = tree.get("segIndices")
    if not isinstance(values, list) or not all(type(v) is int for v in values):
        raise ScanError(f"{path.name}: segIndices is no list of integers, expected one segment per vertex")
    return _int64(values, path.name)


def _groups(path: Path) -> list[tuple[int, str, NDArray[np.int64]]]:
    """(objectId, label, segments) of every group, in file order."""
    groups = _read_json(path).get("segGroups")
    if not isinstance(groups, list):
        raise ScanError(f"{path.name}: no list segGroups, expected one group per object")
    parsed = []
    for row, group in enumerate(groups):
        where = f"{path.name} segGroups[{row}]"
        if not isinstance(group, dict):
            raise ScanError(f"{where}: got {type(group).__name__}, expected an object")
        object_id, label, segments = (group.get(key) for key in ("objectId", "label", "segments"))
        if type(object_id) is not int or not 0 <= object_id < 2**15:
            raise ScanError(f"{where}: objectId {object_id!r}, expected an integer in 0..32767")
        if not isinstance(label, str):
            raise ScanError(f"{where} (objectId {object_id}): label {label!r}, expected a string")
        if not isinstance(segments, list) or not all(type(s) is int for s in segments):
            raise ScanError(f"{where} (objectId {object_id}): segments is no list of integers")
        parsed.append((object_id, label, _int64(segments, where)))
    return parsed


def _vertex_instances(
    segments: NDArray[np.int64], groups: list[tuple[int, str, NDArray[np.int64]]], name: str
) -> NDArray[np.int16]:
    """objectId per vertex (V,), -1 = none. Written per segment, which is the same as per vertex."""
    present, segment_row = np.unique(segments, return_inverse=True)
    instance_of_row = np.full(len(present), -1, np.int16)
    for object_id, _, wanted in groups:
        rows = np.minimum(np.searchsorted(present, wanted), max(len(present) - 1, 0))
        absent = wanted[present[rows] != wanted] if len(present) else wanted
        if len(absent):
            raise ScanError(
                f"{name}: objectId {object_id} has segment {absent[0]}, which no vertex belongs to; "
                "the segment file is of another mesh"
            )
        instance_of_row[rows] = object_id
    return instance_of_row[segment_row]


def _int64(values: list[int], where: str) -> NDArray[np.int64]:
    try:
        return np.array(values, np.int64)
    except OverflowError as error:
        raise ScanError(f"{where}: a segment number exceeds 64 bits") from error


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ScanError(f"{path.name}: no such file")
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise ScanError(f"{path.name}: {size} bytes, expected at most {MAX_FILE_BYTES}")
    try:
        tree = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ScanError(f"{path.name}: not JSON ({error}); copy the file again") from error
    if not isinstance(tree, dict):
        raise ScanError(f"{path.name}: got {type(tree).__name__}, expected a JSON object")
    return tree
