"""What a step is told to the user: one line, one row of log.jsonl, TensorBoard."""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from rich.console import Console
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from train.data import Batch
from train.lmm import Losses

LOG_FILE = "log.jsonl"


@dataclass(frozen=True)
class Row:
    """One step; null where a loss had nothing to count."""

    step: int
    """Optimiser steps done, from 1."""
    text_loss: float | None
    """Mean over the texts of the global batch."""
    cross_view_loss: float | None
    """Mean over the masked clips; null on steps without masking."""
    global_view_loss: float | None
    """Mean over the clips with a BEV."""
    grad_norm: float
    """Before clipping."""
    learning_rate: float
    step_s: float
    data_wait: float
    """Share of the step spent waiting for batches."""
    tokens_per_s: float
    """Tokens read by the language model, all processes."""
    texts_per_s: float
    clips_per_s: float
    memory_mb: float
    """Of the first process: GPU peak, or resident memory on the CPU."""


class Meter:
    """Sums of a step, kept as tensors so that nothing waits for the device before the step ends."""

    def __init__(self, device: torch.device):
        self.sums = torch.zeros(8, dtype=torch.float64, device=device)
        self.started = time.perf_counter()
        self.waited = 0.0

    def add(self, batch: Batch, losses: Losses, masked_step: bool) -> None:
        has_view = batch.draws.view_valid.any(1) & masked_step
        has_bev = batch.draws.bev_covered.any(1)
        parts = (
            losses.text.sum(),
            losses.cross_view.sum(),
            has_view.sum(),
            losses.global_view.sum(),
            has_bev.sum(),
        )
        counts = (len(losses.text), batch.num_tokens, len(batch.keys))
        on_device = torch.stack([part.double() for part in parts])
        self.sums += torch.cat(
            [on_device, torch.tensor(counts, dtype=torch.float64, device=on_device.device)]
        )

    def row(self, sums: Tensor, step: int, grad_norm: float, learning_rate: float) -> Row:
        """The step's row; `sums`: `self.sums` over all processes."""
        text, view, views, bev, bevs, texts, tokens, clips = sums.tolist()
        seconds = time.perf_counter() - self.started
        return Row(
            step=step,
            text_loss=text / texts if texts else None,
            cross_view_loss=view / views if views else None,
            global_view_loss=bev / bevs if bevs else None,
            grad_norm=grad_norm,
            learning_rate=learning_rate,
            step_s=seconds,
            data_wait=self.waited / seconds,
            tokens_per_s=tokens / seconds,
            texts_per_s=texts / seconds,
            clips_per_s=clips / seconds,
            memory_mb=_memory_mb(),
        )


class Log:
    """Writes rows to the terminal, log.jsonl and TensorBoard."""

    def __init__(self, run_dir: Path, steps: int, done: int = 0):
        """done: steps that were taken before; later ones of a run that was stopped are written anew."""
        self.steps = steps
        self.console = Console(stderr=True, soft_wrap=True)
        self.file = (run_dir / LOG_FILE).open("a", encoding="utf-8")
        self.board = SummaryWriter(str(run_dir / "tensorboard"), purge_step=done + 1)
        self.console.print(header(), style="bold", highlight=False)

    def write(self, row: Row) -> None:
        values = asdict(row)
        self.file.write(json.dumps(values) + "\n")
        self.file.flush()
        for name, value in values.items():
            if name != "step" and value is not None:
                self.board.add_scalar(name, value, row.step)
        self.console.print(line(row, self.steps), highlight=False, markup=False)

    def close(self) -> None:
        self.file.close()
        self.board.close()


def cut_log(run_dir: Path, step: int) -> None:
    """Drop rows after `step`: a resumed run writes them again."""
    path = run_dir / LOG_FILE
    if path.is_file():
        rows = [text for text in path.read_text().splitlines() if _step_of(text) <= step]
        path.write_text("".join(f"{text}\n" for text in rows))


def header() -> str:
    return (
        f"{'step':>11}  {'text':>7} {'cross':>7} {'global':>7}  {'grad':>7} {'lr':>8}  "
        f"{'s':>6} {'wait':>5} {'tok/s':>7} {'text/s':>6} {'MB':>6}"
    )


def line(row: Row, steps: int) -> str:
    losses = (row.text_loss, row.cross_view_loss, row.global_view_loss)
    shown = " ".join("      -" if value is None else f"{value:7.4f}" for value in losses)
    speed = f"{row.step_s:6.2f} {row.data_wait:5.1%} {row.tokens_per_s:7.0f} {row.texts_per_s:6.1f}"
    return (
        f"{row.step:>5}/{steps:<5}  {shown}  {row.grad_norm:7.3f} {row.learning_rate:8.1e}  "
        f"{speed} {row.memory_mb:6.0f}"
    )


def learning_rate_share(step: int, steps: int, warmup: float) -> float:
    """Share of the peak at a step (from 0): linear over the first `warmup` of the steps, then cosine to 0."""
    warm = round(warmup * steps)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(steps - warm, 1)))


def _step_of(text: str) -> float:
    try:
        value: Any = json.loads(text)["step"]
    except (ValueError, KeyError):  # a line cut short when the run was killed
        return math.inf
    return value


def _memory_mb() -> float:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return psutil.Process().memory_info().rss / 2**20
