"""The report's parts about frames: how good depth and pictures are, and what became of every frame."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape
from typing import get_args

import numpy as np

from pipeline import report_page as html
from pipeline.fates import FrameStatus
from pipeline.report_charts import histogram, shares
from pipeline.report_facts import DEPTH_BIN_MM, NUM_DEPTH_BINS, POINT_STRIDE, Sampled, ScanFacts

SHARE_EDGES = np.linspace(0, 1, 21)
SHARPNESS_EDGES = np.linspace(0, 3, 31)
MM_PER_M = 1000
MAX_OPEN_ROWS = 40
"""A longer table is folded away."""
FATES = {status: status.replace("_", " ") for status in get_args(FrameStatus)}
"""Column of the ledger -> its name on the page; every frame has exactly one of these fates."""


def quality_section(facts: Sequence[ScanFacts], sampled: Sampled) -> str:
    """Distributions over all scans (depth: over the sampled ones); "" where no scan has clips."""
    if not sampled.num_scans:
        return ""
    valid = [share for one in facts for frame, share in one.valid_depth.items() if frame in one.used]
    charts = [
        _share_chart("Measured depth", "per cent of used frames, by the share of their pixels", valid),
        _depth_chart(sampled),
        _share_chart(
            "Plan seen by a clip",
            f"per cent of {len(sampled.plan_seen):,} sampled clips, by the share of the BEV's 10 cm cells "
            "with a point of the 32 frames",
            list(sampled.plan_seen.values()),
        ),
    ]
    surface = [share for one in facts for share in one.surface_seen]
    if surface:
        note = "per cent of clips, by the share of the scene's 10 cm voxels that the 32 frames see"
        charts.append(_share_chart("Surface seen by a clip", note, surface))
    sharpness = [value for one in facts for value in one.sharpness]
    if sharpness:
        counts, _ = np.histogram(np.minimum(sharpness, SHARPNESS_EDGES[-1]), SHARPNESS_EDGES)
        note = (
            f"per cent of {len(sharpness):,} frames, 1 = the median of the scan; the last bin holds the rest"
        )
        charts.append(histogram("Sharpness", note, SHARPNESS_EDGES.tolist(), counts.tolist()))
    return (
        '<section id="quality"><h2>Frames and depth</h2>'
        f'<div class="charts">{"".join(charts)}</div></section>'
    )


def depth_percentile_m(counts: Sequence[int], percent: float) -> float:
    """The depth in metres below which so much of the counted pixels lies, linear inside a bin."""
    total = np.cumsum([0, *counts])
    edges = np.arange(NUM_DEPTH_BINS + 1) * DEPTH_BIN_MM / MM_PER_M
    return float(np.interp(percent / 100 * total[-1], total, edges))


def _share_chart(title: str, note: str, values: Sequence[float]) -> str:
    counts, _ = np.histogram(values, SHARE_EDGES)
    median = f"; median {np.median(values):.0%}" if len(values) else ""
    return histogram(title, f"{note}{median}", SHARE_EDGES.tolist(), counts.tolist())


def _depth_chart(sampled: Sampled) -> str:
    counts = sampled.depth_counts.tolist()
    ranks = [depth_percentile_m(counts, percent) for percent in (5, 50, 95)]
    ends = "{:.1f} m at 5 %, {:.1f} m in the middle, {:.1f} m at 95 %".format(*ranks)
    note = (
        f"per cent of measured pixels, by metres, of {sampled.num_scans:,} sampled clips (every "
        f"{POINT_STRIDE}th row and column; beyond 8 m in the last bin)"
    )
    edges = np.arange(NUM_DEPTH_BINS + 1) * DEPTH_BIN_MM / MM_PER_M
    return histogram("Depth", f"{note}; {ends}" if sum(counts) else note, edges.tolist(), counts)


def frames_section(facts: Sequence[ScanFacts]) -> str:
    """What became of the frames: over all scans as a bar, and scan by scan; "" without scans."""
    if not facts:
        return ""
    total: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for one in facts:
        total.update({name: one.row[name] for name in FATES})
        reasons.update(one.row["rejected_by_reason"])
    fates = {name: total[fate] for fate, name in FATES.items() if fate != "rejected"}
    bar = shares(fates | {f"rejected: {reason}": count for reason, count in reasons.most_common()})
    sums = " + ".join(f"{total[fate]:,} {name}" for fate, name in FATES.items())
    num_frames = sum(one.row["num_frames"] for one in facts)
    rows = [
        (
            one.scan_id,
            one.row["split"],
            one.row["status"],
            one.row["num_frames"],
            *(one.row[fate] for fate in FATES),
            ", ".join(f"{count} {reason}" for reason, count in one.row["rejected_by_reason"].items()),
        )
        for one in facts
    ]
    head = ("scan", "split", "status", "frames in", *FATES.values(), "why rejected")
    state = " open" if len(rows) <= MAX_OPEN_ROWS else ""
    return (
        f'<section id="frames"><h2>Frames</h2>{bar}<p class="facts">'
        f"{num_frames:,} frames in = {escape(sums)}. Used: in a clip. Not examined: no clip needed it, "
        "whether it was decoded or not</p>"
        f"<details{state}><summary>Scan by scan</summary>{html.bare_table(head, rows)}</details></section>"
    )


def rejected_section(rejected: Sequence[dict[str, str]], facts: Sequence[ScanFacts]) -> str:
    """The scans that the index lists as rejected, and the frames that go with them where the ledger knows."""
    frames_of = {one.scan_id: one.row["num_frames"] for one in facts}
    rows = [(row["scan_id"], frames_of.get(row["scan_id"], ""), row["reason"]) for row in rejected]
    head = ("scan", "frames", "stage, and why")
    return html.table("Rejected scans", head, rows or [("none", "", "")], "rejected")
