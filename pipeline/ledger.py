"""What happened to each scan and each frame, collected from the stores.

A frame is `used`, `not_examined` or `rejected` with a reason; every frame of a scan has exactly one of these.
The clips stage stores it grouped, because most frames of a scan share their fate:
`[{"status": …, "reason": …, "frames": [indices]}]`. A reason reads `kind: detail` or `kind`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import zarr

from pipeline.scans import ScanEntry
from scanshards.write import atomic_write_bytes

FrameStatus = Literal["used", "not_examined", "rejected"]

POSE = "pose not finite"
TRUNCATED = "truncated"
DECODE = "decode failed"
DEPTH = "depth mostly missing"
STAGE_ORDER = ("clips", "meshes", "bev", "latents", "texts")


class StoreLike(Protocol):
    """What is read of a `pipeline.store.Store`."""

    def read(self, scan_id: str) -> zarr.Group | None: ...

    def digest(self, scan_id: str) -> str: ...

    def rejection(self, scan_id: str) -> str | None: ...


def frame_groups(num_frames: int, used: Iterable[int], rejected: Mapping[int, str]) -> list[dict[str, Any]]:
    """Group the fate of frames 0 … num_frames-1; what is neither used nor rejected was not examined."""
    used = sorted(set(used))
    groups: dict[tuple[FrameStatus, str], list[int]] = {}
    if used:
        groups["used", ""] = used
    seen = set(used) | rejected.keys()
    not_examined = [frame for frame in range(num_frames) if frame not in seen]
    if not_examined:
        groups["not_examined", ""] = not_examined
    for frame in sorted(rejected):
        groups.setdefault(("rejected", rejected[frame]), []).append(frame)
    accounted = sum(len(frames) for frames in groups.values())
    assert accounted == num_frames, f"{accounted} frames accounted for, the scan has {num_frames}"
    return [{"status": s, "reason": r, "frames": frames} for (s, r), frames in groups.items()]


def reason_kind(reason: str) -> str:
    """`decode failed: a.sens: frame 3 …` -> `decode failed`."""
    return reason.partition(":")[0]


def count_reasons(reasons: Iterable[str]) -> dict[str, int]:
    """How often each kind of reason occurs, most frequent first."""
    return dict(Counter(map(reason_kind, reasons)).most_common())


def frame_rows(stores: Mapping[str, StoreLike], entries: Iterable[ScanEntry]) -> list[dict[str, Any]]:
    """One row a frame, in scan and frame order: scan_id, frame, status, reason, valid_depth.

    `valid_depth` is the share of the source picture with measured depth, None where it was not decoded. Scans
    that the clips stage rejected or has not seen have no rows; `scan_rows` accounts for them.
    """
    rows = []
    for entry in entries:
        group = stores["clips"].read(entry.scan_id)
        if group is None:
            continue
        attrs = group.attrs
        depth = dict(zip(attrs["valid_depth"]["frames"], attrs["valid_depth"]["fractions"], strict=True))
        rows += sorted(
            (
                {
                    "scan_id": entry.scan_id,
                    "frame": frame,
                    "status": part["status"],
                    "reason": part["reason"],
                    "valid_depth": depth.get(frame),
                }
                for part in attrs["frames_ledger"]
                for frame in part["frames"]
            ),
            key=lambda row: row["frame"],
        )
    return rows


def scan_rows(stores: Mapping[str, StoreLike], entries: Iterable[ScanEntry]) -> list[dict[str, Any]]:
    """One row a scan: its fate, its frame counts, and whether there are a bird's-eye view, texts, objects.

    `status` is `used` (every stage has it), `rejected` (`stage` and `reason` say by whom and why) or
    `waiting` (a stage has not run on it; `stage` names the first). Frame counts are 0 without clips.
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
    found = {stage: store.read(entry.scan_id) for stage, store in stores.items()}
    waiting = [stage for stage in STAGE_ORDER if stage in found and found[stage] is None]
    clips, bev, texts = (found.get(stage) for stage in ("clips", "bev", "texts"))
    groups = [] if clips is None else clips.attrs["frames_ledger"]
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for part in groups:
        counts[part["status"]] += len(part["frames"])
        if part["status"] == "rejected":
            reasons[reason_kind(part["reason"])] += len(part["frames"])
    return {
        "scan_id": entry.scan_id,
        "split": entry.split,
        "status": "rejected" if refused else "waiting" if waiting else "used",
        "stage": refused[0]["stage"] if refused else waiting[0] if waiting else "",
        "reason": refused[0]["reason"] if refused else "",
        "num_clips": 0 if clips is None else len(clips.attrs["clips"]),
        "num_frames": counts.total(),
        "used": counts["used"],
        "not_examined": counts["not_examined"],
        "rejected": counts["rejected"],
        "rejected_by_reason": dict(reasons.most_common()),
        "bev": bev is not None and bev.attrs["bev"]["present"],
        "num_texts": 0 if texts is None else len(texts.attrs["texts"]),
        "missing": Counter(() if texts is None else (m["what"] for m in texts.attrs["missing"])),
        "num_objects": 0 if texts is None else len(texts.attrs["objects"]["labels"]),
    }
