"""The report's part about time: scans per second and where the time of each stage goes."""

from __future__ import annotations

import json
from collections import Counter
from html import escape
from pathlib import Path
from typing import Any

from pipeline.report_charts import shares
from pipeline.stages import STAGES

HEAD = ("stage", "scans", "in all, s", "a scan, s", "scans/s", "slowest, s", "which", "memory, MB")
OTHER = "other"
"""The time of a stage that no part names."""


def times_section(folder: Path) -> str:
    """A row per stage from `folder`/STAGE.json (`stages.Times` by scan); "" where there is none."""
    rows = []
    for name in STAGES:
        path = folder / f"{name}.json"
        times = json.loads(path.read_text()) if path.is_file() else {}
        if times:
            rows.append(_row(name, times))
    if not rows:
        return ""
    heads = "".join(
        f"<th{' class=number' if name not in ('stage', 'which') else ''}>{name}</th>" for name in HEAD
    )
    return (
        '<section id="times"><h2>Time of each stage</h2><p class="facts">Last build of each scan, in one '
        'worker process; scans/s is for one worker</p><div class="scroll"><table class="times"><thead><tr>'
        f"{heads}<th>where it goes</th></tr></thead>{''.join(rows)}</table></div></section>"
    )


def _row(name: str, times: dict[str, dict[str, Any]]) -> str:
    seconds = {scan_id: entry["seconds"] for scan_id, entry in times.items()}
    total, slowest = sum(seconds.values()), max(seconds, key=seconds.__getitem__)
    per_scan = total / len(seconds)
    peak_mb = max(entry.get("peak_mb", 0) for entry in times.values())
    numbers = [f"{len(seconds):,}", f"{total:,.1f}", f"{per_scan:,.2f}"]
    numbers += [f"{1 / per_scan:,.2f}" if per_scan else "", f"{seconds[slowest]:,.2f}"]
    cells = "".join(f'<td class="number">{value}</td>' for value in numbers)
    memory = f'<td class="number">{peak_mb:,}</td>' if peak_mb else '<td class="number"></td>'
    parts: Counter[str] = Counter()
    for entry in times.values():
        parts.update(entry["parts"])
    named = dict(parts.most_common())
    rest = total - sum(named.values())
    where = shares(named | ({OTHER: rest} if rest > 0.005 * total else {})) if named else ""
    return f"<tr><th>{escape(name)}</th>{cells}<td>{escape(slowest)}</td>{memory}<td>{where}</td></tr>"
