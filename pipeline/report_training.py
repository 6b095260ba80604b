"""The report's part about a training run: curves from `log.jsonl`, scores and answers from `eval/`.

Only files are read; nothing of train/ or eval/ is imported. A file that is not there leaves its part out.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from pipeline.report_charts import Curve, chart

QUANTITIES = (
    Curve("Text loss", "supervised tokens", "text_loss", log=True),
    Curve("Cross-view loss", "masked views", "cross_view_loss", log=True),
    Curve("Global-view loss", "BEV, black left out", "global_view_loss", log=True),
    Curve("Learning rate", "", "learning_rate", smooth=False),
    Curve("Tokens per second", "", "tokens_per_s"),
    Curve("Data wait", "share of the step", "data_wait"),
)
"""What is drawn of a log row."""

MAX_ANSWERS = 14


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a JSONL file; [] if there is none. A last line cut short by a kill is left out."""
    if not path.is_file():
        return []
    rows = []
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise ValueError(f"{path} line {number}: {error}, expected one JSON object a line") from error
    return rows


def is_of(run_dir: Path, shards_hash: str) -> bool:
    """Whether the run was trained on these shards; a run that does not say is believed."""
    path = run_dir / "versions.json"
    recorded = json.loads(path.read_text()).get("shards_hash") if path.is_file() else None
    return recorded in (None, shards_hash)


def training_section(run_dir: Path, shards_hash: str) -> str:
    """Curves of the run in `run_dir`; "" if it has no log, a note if it is of other shards."""
    rows = read_rows(run_dir / "log.jsonl")
    if not rows:
        return ""
    if not is_of(run_dir, shards_hash):
        return (
            f'<section id="training"><h2>Training</h2><p class="facts">The run in {escape(str(run_dir))} was '
            "trained on other shards, or on a part of these; set report.run to the run to show</p></section>"
        )
    charts = []
    for curve in QUANTITIES:
        known = [(row["step"], row[curve.field]) for row in rows if row.get(curve.field) is not None]
        if known:
            charts.append(chart(curve, *zip(*known, strict=True)))
    return (
        f'<section id="training"><h2>Training</h2><p class="facts">{escape(str(run_dir))} · {len(rows)}'
        f" logged steps, the last is {rows[-1]['step']}. Thin: each step; bold: running mean</p>"
        f'<div class="charts">{"".join(charts)}</div></section>'
    )


def scores_section(run_dir: Path, shards_hash: str) -> str:
    """Scores and some answers of `run_dir`/eval; "" if it was not evaluated or is of other shards."""
    metrics_path = run_dir / "eval" / "metrics.json"
    if not metrics_path.is_file() or not is_of(run_dir, shards_hash):
        return ""
    metrics = json.loads(metrics_path.read_text())
    summary_path = run_dir / "eval" / "summary.json"
    summary = json.loads(summary_path.read_text())["tasks"] if summary_path.is_file() else {}
    blocks = [
        _task_scores(task, protocol, values, summary.get(task, {}))
        for task, protocols in metrics.items()
        for protocol, values in protocols.items()
    ]
    answers = _answers(read_rows(run_dir / "eval" / "predictions.jsonl"))
    return (
        '<section id="scores"><h2>Scores on held-out clips</h2>'
        f'<div class="scores">{"".join(blocks)}</div>{answers}</section>'
    )


def _task_scores(task: str, protocol: str, values: dict[str, float], summary: dict[str, Any]) -> str:
    """One bar per metric, with the majority answer's value as a tick on it."""
    majority = summary.get("majority", {})
    baseline = majority.get("metrics", {}).get(protocol, {})
    rows = []
    for name, percent in values.items():
        tick = f'<i class="tick" style="left:{_clip(baseline[name])}%"></i>' if name in baseline else ""
        beside = f"{baseline[name]:.1f}" if name in baseline else ""
        rows.append(
            f"<tr><th>{escape(name)}</th><td class='bar'><div><i style='width:{_clip(percent)}%'></i>{tick}"
            f"</div></td><td class='number'>{percent:.1f}</td><td class='number quiet'>{beside}</td></tr>"
        )
    facts = f"{summary['items']} questions, protocol {protocol}" if summary else f"protocol {protocol}"
    answer = majority.get("answer")
    note = (
        f'<p class="quiet">Tick and right column: always answering “{escape(answer)}”, the majority answer '
        "of these references</p>"
        if answer is not None
        else ""
    )
    return (
        f'<div class="card"><h3>{escape(task)} <small>{escape(facts)}</small></h3>'
        f"<table class='bars'>{''.join(rows)}</table>{note}</div>"
    )


def _clip(percent: float) -> str:
    return f"{min(100.0, max(0.0, float(percent))):.2f}"


def _shortened(text: str, limit: int = 90) -> str:
    return text if len(text) <= limit else text[:limit] + " …"


def _answers(rows: Sequence[dict[str, Any]]) -> str:
    """Answers drawn at random (the same ones each time), in file order, right ones marked."""
    if not rows:
        return ""
    count = min(MAX_ANSWERS, len(rows))
    drawn = sorted(random.Random(0).sample(range(len(rows)), count))
    shown = "".join(
        f"<tr class='{'right' if row['exact'] else 'wrong'}'><td>{'✓' if row['exact'] else '✗'}</td>"
        f"<td>{escape(row['prompt'].removeprefix('<image>').strip())}</td>"
        f"<td>{escape(_shortened(row['pred_response']))}</td><td>{escape(' / '.join(row['answers']))}</td>"
        f"<td class='quiet'>{escape(row['video'])}</td></tr>"
        for row in (rows[i] for i in drawn)
    )
    return (
        f"<details open><summary>Some of the {len(rows)} answers</summary><div class='scroll'><table>"
        "<thead><tr><th></th><th>asked</th><th>answered</th><th>right</th><th>scan</th></tr></thead>"
        f"{shown}</table></div></details>"
    )
