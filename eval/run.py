"""Answers the questions about held-out clips with a trained model and scores the answers.

    python eval/run.py --checkpoint runs/latest --shards shards/val/scannet-*.tar [--tasks sqa3d] [--out DIR]

Writes into DIR (default RUN_DIR/eval):

    predictions.jsonl   one object a line: dataset, video, sample_id, prompt, pred_response, gt_response,
                        model_id, question_type, answers (all that are right), exact (right by EM, reference)
    metrics.json        task -> protocol -> metric -> percent
    summary.json        what was run, number of questions, and the score of always giving the majority answer

Settings (`key=value`): prompt=training|published batch=N max_new_tokens=N, see `eval.generate.Generation`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import scanshards
from eval.generate import Answer, Generation, answer_clip
from eval.text_metrics import METRICS, Answered, answered_alike, majority_answer, score
from scanshards.settings import from_tree, load_tree, split_arguments
from scanshards.tasks import human_value
from scanshards.write import atomic_write_bytes
from train.checkpoint import load_run


@dataclass(frozen=True)
class Prediction:
    """One answered question."""

    task: str
    row: dict[str, Any]
    """Its line of predictions.jsonl."""
    cut: bool

    @property
    def answered(self) -> Answered:
        return Answered(self.row["pred_response"], tuple(self.row["answers"]), self.row["question_type"])


def main(argv: list[str] | None = None) -> int:
    options, overrides = split_arguments(sys.argv[1:] if argv is None else argv)
    arguments = _parser().parse_args(options)
    console = Console(stderr=True, soft_wrap=True)
    try:
        settings = from_tree(Generation, load_tree(overrides))
    except ValueError as error:
        console.print(f"error: {error}", style="red", highlight=False, markup=False)
        return 2
    try:
        evaluate(arguments, settings, Console())
    except (ValueError, OSError) as error:
        console.print(f"error: {error}", style="red", highlight=False, markup=False)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python eval/run.py", allow_abbrev=False, description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="RUN_DIR")
    parser.add_argument("--shards", nargs="+", required=True, metavar="TAR")
    parser.add_argument(
        "--tasks", nargs="+", choices=METRICS, help="default: all that have texts in the shards"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: RUN_DIR/eval")
    return parser


def evaluate(arguments: argparse.Namespace, settings: Generation, console: Console) -> None:
    """Answer, score, write, show. ValueError: no checkpoint, or no questions of a task that was asked for."""
    model, tokenizer, _ = load_run(arguments.checkpoint)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    start = time.perf_counter()
    predictions = _answer_all(model, tokenizer, arguments, settings)
    seconds = time.perf_counter() - start
    wanted = arguments.tasks or list(METRICS)
    by_task = {task: [p for p in predictions if p.task == task] for task in wanted}
    missing = [task for task, of_task in by_task.items() if not of_task]
    if missing and (arguments.tasks or not predictions):
        raise ValueError(
            f"no questions of {', '.join(missing)} in {' '.join(arguments.shards)}; build shards with texts "
            "(texts.root=…), or name the shards of scans that have them"
        )
    scores = {
        task: score(task, [p.answered for p in of_task]) for task, of_task in by_task.items() if of_task
    }
    summary = {
        "model_id": _model_id(arguments.checkpoint),
        "shards": list(arguments.shards),
        "settings": dataclasses.asdict(settings),
        "seconds": round(seconds, 2),
        "tasks": {task: _task_summary(task, of_task) for task, of_task in by_task.items() if of_task},
    }
    out = arguments.out or arguments.checkpoint / "eval"
    _write(out, predictions, scores, summary)
    console.print(_table(scores, summary))
    console.print(
        f"{len(predictions)} answers in {seconds:.1f} s: {out / 'predictions.jsonl'}", highlight=False
    )


def _answer_all(
    model: Any, tokenizer: Any, arguments: argparse.Namespace, settings: Generation
) -> list[Prediction]:
    """Predictions in the order of the shards; a text that several clips of its scan carry is asked once."""
    tasks = frozenset(arguments.tasks or METRICS)
    model_id = _model_id(arguments.checkpoint)
    asked: set[tuple[str, str, str]] = set()
    predictions: list[Prediction] = []
    columns = (
        TextColumn("answering"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("clips"),
        TimeElapsedColumn(),
    )
    clips = scanshards.open(arguments.shards, fields=("frames", "patch_coords", "texts"))
    with Progress(*columns, console=Console(stderr=True)) as progress:
        for clip in progress.track(clips):
            texts = [text for text in clip.texts if text["task"] in tasks and text["answers"]]
            texts = [text for text in texts if (clip.scan_id, text["task"], text["id"]) not in asked]
            asked.update((clip.scan_id, text["task"], text["id"]) for text in texts)
            if texts:
                answers = answer_clip(model, tokenizer, clip, texts, settings)
                rows = zip(texts, answers, strict=True)
                predictions += [_prediction(clip, text, answer, model_id) for text, answer in rows]
    return predictions


def _prediction(clip: Any, text: dict[str, Any], answer: Answer, model_id: str) -> Prediction:
    row = {
        "dataset": text["task"],
        "video": f"{clip.meta['dataset']}/{clip.scan_id}",
        "sample_id": text["id"],
        "prompt": human_value(text),
        "pred_response": answer.text,
        "gt_response": text["answers"][0],
        "model_id": model_id,
        "question_type": text["question_type"],
        "answers": text["answers"],
    }
    alone = score(text["task"], [Answered(answer.text, tuple(text["answers"]), text["question_type"])])
    return Prediction(text["task"], row | {"exact": alone["reference"]["EM"] == 100.0}, answer.cut)


def _model_id(checkpoint: Path) -> str:
    """The run's folder name; a link such as `runs/latest` is followed, so that the name stays true."""
    return checkpoint.resolve().name


def _task_summary(task: str, predictions: Sequence[Prediction]) -> dict[str, Any]:
    items = [prediction.answered for prediction in predictions]
    answer = majority_answer(items)
    return {
        "items": len(items),
        "cut": sum(prediction.cut for prediction in predictions),
        "majority": {"answer": answer, "metrics": score(task, answered_alike(items, answer))},
    }


def _write(
    out: Path, predictions: Sequence[Prediction], scores: dict[str, Any], summary: dict[str, Any]
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(prediction.row, ensure_ascii=False) + "\n" for prediction in predictions)
    atomic_write_bytes(out / "predictions.jsonl", lines.encode())
    atomic_write_bytes(out / "metrics.json", (json.dumps(scores, indent=1) + "\n").encode())
    atomic_write_bytes(
        out / "summary.json", (json.dumps(summary, indent=1, ensure_ascii=False) + "\n").encode()
    )


def _table(scores: dict[str, Any], summary: dict[str, Any]) -> Table:
    table = Table(title=f"exact match, percent: {summary['model_id']}", title_justify="left")
    table.add_column("task")
    table.add_column("protocol")
    table.add_column("metric")
    table.add_column("model", justify="right")
    table.add_column("majority", justify="right")
    table.add_column("questions", justify="right")
    for task, protocols in scores.items():
        facts = summary["tasks"][task]
        for protocol, metrics in protocols.items():
            majority = facts["majority"]["metrics"][protocol]
            for name, percent in metrics.items():
                items = str(facts["items"]) if "/" not in name else ""
                table.add_row(task, protocol, name, f"{percent:.2f}", f"{majority[name]:.2f}", items)
            table.add_section()
    answers = ", ".join(f"{task} “{facts['majority']['answer']}”" for task, facts in summary["tasks"].items())
    table.caption = f"majority: always the answer that is right most often here ({answers})"
    table.caption_justify = "left"
    return table


if __name__ == "__main__":
    sys.exit(main())
