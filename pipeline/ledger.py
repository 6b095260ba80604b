"""What happened to each scan and each frame, collected from the stores (a frame's fates: `fates.py`).

Only attributes are read, a scan at a time: 1,500 scans of 2,000 frames are written in seconds and in little
memory.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, get_args

import numpy as np
import zarr

from pipeline.fates import FrameStatus, reason_kind
from pipeline.scans import ScanEntry
from scanshards.write import atomic_write_bytes

if TYPE_CHECKING:
    import pyarrow as pa

FRAMES_FILE, SCANS_FILE = "frames.parquet", "scans.parquet"
ROWS_PER_GROUP = 1 << 17
"""Rows of frames.parquet that are held before they are written."""
STAGE_ORDER = ("clips", "meshes", "bev", "latents", "texts")


class StoreLike(Protocol):
    """What is read of a `pipeline.store.Store`."""

    def read(self, scan_id: str) -> zarr.Group | None: ...

    def attrs(self, scan_id: str) -> dict[str, Any] | None: ...

    def digest(self, scan_id: str) -> str: ...

    def rejection(self, scan_id: str) -> str | None: ...


def write_ledger(folder: Path, entries: Iterable[ScanEntry], stores: Mapping[str, StoreLike]) -> None:
    """Write `frames.parquet` (one row a frame) and `scans.parquet` (one row a scan); same stores, same bytes.

    AssertionError names a scan whose frames are not accounted for exactly once.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    entries = list(entries)
    folder.mkdir(parents=True, exist_ok=True)
    for name, schema, tables in (
        (FRAMES_FILE, _frames_schema(), _frame_tables(entries, stores["clips"])),
        (SCANS_FILE, _scans_schema(), [_scan_table(scan_rows(stores, entries))]),
    ):
        sink = pa.BufferOutputStream()
        with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
            for table in tables:
                writer.write_table(table)
        atomic_write_bytes(folder / name, sink.getvalue().to_pybytes())


def scan_rows(stores: Mapping[str, StoreLike], entries: Iterable[ScanEntry]) -> list[dict[str, Any]]:
    """One row a scan: its fate, its frame counts, and whether there are a bird's-eye view, texts, objects.

    `status` is `used` (every stage has it), `rejected` (`stage` and `reason` say by whom and why) or
    `waiting` (a stage has not run on it; `stage` names the first). `num_frames` = used +
    not_examined + rejected; it is 0 for a recording that cannot be opened. AssertionError: a scan's frames do
    not add up.
    """
    return [_scan_row(stores, entry) for entry in entries]


def rejections(stores: Mapping[str, StoreLike], scan_id: str) -> list[dict[str, str]]:
    """[{scan_id, stage, reason}] of the stages that set this scan aside, in stage order."""
    return [
        {"scan_id": scan_id, "stage": stage, "reason": reason}
        for stage in STAGE_ORDER
        if stage in stores and (reason := stores[stage].rejection(scan_id))
    ]


def write_counts(
    path: Path, index: Mapping[str, Any], entries: Iterable[ScanEntry], stores: Mapping[str, StoreLike]
) -> None:
    """Write the counts of a finished build as JSON (the metric that DVC shows)."""
    rows = scan_rows(stores, entries)
    frames = {status: sum(row[status] for row in rows) for status in get_args(FrameStatus)}
    assert sum(frames.values()) == sum(row["num_frames"] for row in rows)
    counts = {
        "scans": len(rows),
        "scans_rejected": len(index["rejected"]),
        "samples": index["totals"]["samples"],
        "shards": index["totals"]["shards"],
        "shard_bytes": index["totals"]["bytes"],
        "texts": sum(row["num_texts"] for row in rows),
        "objects": sum(row["num_objects"] for row in rows),
        "missing_for_texts": dict(sum((row["missing"] for row in rows), Counter())),
        "with_bev": sum(row["bev"] for row in rows),
        "frames": frames,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_bytes(path, (json.dumps(counts, indent=1) + "\n").encode())


def _scan_row(stores: Mapping[str, StoreLike], entry: ScanEntry) -> dict[str, Any]:
    refused = rejections(stores, entry.scan_id)
    found = {stage: store.attrs(entry.scan_id) for stage, store in stores.items()}
    waiting = [stage for stage in STAGE_ORDER if stage in found and found[stage] is None]
    clips, bev, texts = (found.get(stage) or {} for stage in ("clips", "bev", "texts"))
    groups = _groups(entry.scan_id, clips)
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for group in groups:
        counts[group["status"]] += len(group["frames"])
        if group["status"] == "rejected":
            reasons[reason_kind(group["reason"])] += len(group["frames"])
    return {
        "scan_id": entry.scan_id,
        "split": entry.split,
        "status": "rejected" if refused else "waiting" if waiting else "used",
        "stage": refused[0]["stage"] if refused else waiting[0] if waiting else "",
        "reason": refused[0]["reason"] if refused else "",
        "num_clips": len(clips.get("clips", ())),
        "num_frames": counts.total(),
        **{status: counts[status] for status in get_args(FrameStatus)},
        "rejected_by_reason": dict(reasons.most_common()),
        "bev": bool(bev.get("bev", {}).get("present")),
        "num_texts": len(texts.get("texts", ())),
        "missing": Counter(missing["what"] for missing in texts.get("missing", ())),
        "num_objects": len(texts["objects"]["labels"]) if "objects" in texts else 0,
    }


def _groups(scan_id: str, clips: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The scan's frames by fate. AssertionError unless each has one, and those in clips are the used ones."""
    groups = clips.get("frames_ledger", [])
    frames = sorted(frame for group in groups for frame in group["frames"])
    assert frames == list(range(len(frames))), f"{scan_id}: a frame has no fate, or two"
    in_clips = {frame for clip in clips.get("clips", ()) for frame in clip["frame_indices"]}
    used = {frame for group in groups if group["status"] == "used" for frame in group["frames"]}
    odd = sorted(used ^ in_clips)
    assert not odd, f"{scan_id}: frames {odd} are used or in a clip, expected both"
    return groups


def _frame_tables(entries: list[ScanEntry], clips: StoreLike) -> Iterator[pa.Table]:
    """The rows of frames.parquet in scan and frame order, many scans at a time."""
    import pyarrow as pa

    waiting: list[pa.Table] = []
    for entry in entries:
        waiting.append(_frame_table(entry.scan_id, clips.attrs(entry.scan_id) or {}))
        if sum(map(len, waiting)) >= ROWS_PER_GROUP:
            yield pa.concat_tables(waiting).unify_dictionaries()
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting).unify_dictionaries()


def _frame_table(scan_id: str, clips: Mapping[str, Any]) -> pa.Table:
    """One row a frame of one scan; `valid_depth` and `sharpness` are null where they were not measured."""
    import pyarrow as pa

    groups = _groups(scan_id, clips)
    group_of = np.zeros(sum(len(group["frames"]) for group in groups), np.int32)
    for row, group in enumerate(groups):
        group_of[group["frames"]] = row
    reasons = [group["reason"].partition(": ") for group in groups]
    strings = {
        "scan_id": [scan_id] * len(groups),
        "status": [group["status"] for group in groups],
        "reason": [kind for kind, _, _ in reasons],
        "detail": [detail for _, _, detail in reasons],
    }
    columns = {name: _encoded(values, group_of) for name, values in strings.items()}
    columns["frame"] = np.arange(len(group_of), dtype=np.int32)
    for name, attribute, values in (
        ("valid_depth", "valid_depth", "fractions"),
        ("sharpness", "sharpness", "relative"),
    ):
        measured = clips.get(attribute, {"frames": [], values: []})
        numbers = np.full(len(group_of), np.nan)
        numbers[measured["frames"]] = measured[values]
        columns[name] = pa.array(numbers, from_pandas=True)
    schema = _frames_schema()
    return pa.table([columns[name] for name in schema.names], schema=schema)


def _encoded(values: list[str], rows: np.ndarray) -> pa.DictionaryArray:
    """values[rows] as a dictionary-encoded column."""
    import pyarrow as pa

    words = list(dict.fromkeys(values))
    codes = np.array([words.index(value) for value in values], np.int32)
    return pa.DictionaryArray.from_arrays(pa.array(codes[rows], pa.int32()), pa.array(words, pa.string()))


def _scan_table(rows: list[dict[str, Any]]) -> pa.Table:
    import pyarrow as pa

    counters = ("rejected_by_reason", "missing")
    rows = [row | {name: sorted(row[name].items()) for name in counters} for row in rows]
    return pa.Table.from_pylist(rows, schema=_scans_schema())


def _frames_schema() -> pa.Schema:
    import pyarrow as pa

    word = pa.dictionary(pa.int32(), pa.string())
    strings = [(name, word) for name in ("status", "reason", "detail")]
    numbers = [(name, pa.float64()) for name in ("valid_depth", "sharpness")]
    return pa.schema([("scan_id", word), ("frame", pa.int32()), *strings, *numbers])


def _scans_schema() -> pa.Schema:
    import pyarrow as pa

    counts = pa.map_(pa.string(), pa.int64())
    strings = [(name, pa.string()) for name in ("scan_id", "split", "status", "stage", "reason")]
    numbers = ["num_clips", "num_frames", *get_args(FrameStatus)]
    return pa.schema(
        [
            *strings,
            *((name, pa.int64()) for name in numbers),
            ("rejected_by_reason", counts),
            ("bev", pa.bool_()),
            ("num_texts", pa.int64()),
            ("missing", counts),
            ("num_objects", pa.int64()),
        ]
    )
