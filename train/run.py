"""Train on shards.

    python train/run.py --shards shards/scannet-*.tar [--config tiny|FILE] [key=value …]
    python train/run.py --resume RUN_DIR [key=value …]
    torchrun --nproc_per_node=2 train/run.py --shards shards/scannet-*.tar

Runs alone on a CPU or one GPU, and under torchrun or deepspeed on many. Keys are those of train/config.py,
for example out=RUN_DIR steps=N seed=S. All about the run goes to RUN_DIR (default: runs/latest).
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from scanshards.settings import split_arguments
from train import checkpoint, data, metrics, prompt, rundir
from train.config import Config, load_config
from train.engine import Engine, from_first, rank, start_processes, stop_processes, world_size
from train.lmm import build_model

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class UsageError(ValueError):
    """The command line is wrong."""


@dataclass(frozen=True)
class Request:
    """What the command line asks for."""

    config: Config
    urls: list[str]
    resume: Path | None
    """Folder of the run that goes on."""


@dataclass(frozen=True)
class Start:
    """Where the loop begins."""

    step: int
    clips: int
    """Clips that all processes have taken before."""
    total: int
    """Clips of an epoch."""


def main(argv: list[str] | None = None) -> int:
    console = Console(stderr=True, soft_wrap=True)
    try:
        request = parse(sys.argv[1:] if argv is None else argv)
    except UsageError as error:
        console.print(f"error: {error}", style="red", highlight=False, markup=False)
        return 2
    try:
        run_dir = run(request)
    except (ValueError, OSError) as error:
        console.print(f"error: {error}", style="red", highlight=False, markup=False)
        return 1
    except KeyboardInterrupt:
        where = request.resume or request.config.out
        console.print(
            f"stopped; go on with: python train/run.py --resume {where}", style="yellow", markup=False
        )
        return 1
    if os.environ["RANK"] == "0":
        console.print(f"trained: {run_dir}", highlight=False, markup=False)
    return 0


def parse(argv: list[str]) -> Request:
    """The request of a command line. UsageError: it makes no sense."""
    options, overrides = split_arguments(argv)
    parser = argparse.ArgumentParser("python train/run.py", allow_abbrev=False, description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--shards", nargs="+", metavar="TAR", default=[], help="files, patterns or URLs")
    parser.add_argument("--config", metavar="NAME|FILE", help="a preset or a YAML file (default: tiny)")
    parser.add_argument("--resume", metavar="RUN_DIR", type=Path, help="go on with a run, exactly")
    parser.add_argument("--local_rank", type=int, help=argparse.SUPPRESS)  # the deepspeed launcher passes it
    chosen = parser.parse_args(options)
    try:
        if chosen.resume is None:
            if not chosen.shards:
                raise UsageError("no shards given, expected --shards shards/scannet-*.tar")
            return Request(load_config(overrides, chosen.config or "tiny"), chosen.shards, None)
        if chosen.config is not None:
            raise UsageError("--config and --resume together: a resumed run keeps its config; leave one out")
        run_dir = chosen.resume.resolve()
        known = rundir.described(run_dir)
        config = load_config(overrides, path=run_dir / rundir.CONFIG_FILE)
    except (ValueError, OSError) as error:
        raise UsageError(str(error)) from error
    return Request(config, chosen.shards or known["shards"], run_dir)


def run(request: Request) -> Path:
    """Train to the end; returns the run directory."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # loader workers are forked
    total = data.count_clips(request.urls)
    start_processes(request.config)
    try:
        return train(request, total)
    finally:
        stop_processes()


def train(request: Request, total: int) -> Path:
    """Set up or go on with a run, do its steps; `total` clips are an epoch."""
    config = request.config
    config.accumulation(world_size())  # before anything is written
    run_dir = agreed(request)
    tokenizer = prompt.load_tokenizer(str(run_dir / "tokenizer") if request.resume else config.tokenizer)
    engine = Engine(build_model(config, len(tokenizer)), config)
    start = Start(0, 0, total)
    if request.resume is not None:
        start = resume(engine, run_dir, request.urls, total)
    elif rank() == 0:
        rundir.describe(run_dir, config, request.urls, world_size(), tokenizer)
    log = metrics.Log(run_dir, config.steps, start.step) if rank() == 0 else None
    try:
        loop(engine, load(request.urls, config, tokenizer, start), run_dir, start, log)
    finally:
        if log is not None:
            log.close()
    return run_dir


def loop(
    engine: Engine, batches: Iterator[data.Batch], run_dir: Path, start: Start, log: metrics.Log | None
) -> None:
    """The steps, one after the other."""
    config = engine.config
    for step in range(start.step, config.steps):
        row = train_step(engine, batches, step)
        if log is not None:
            log.write(row)
        done = step + 1
        if done % config.checkpoint.every == 0 or done == config.steps:
            clips = start.clips + (done - start.step) * engine.clips_per_step
            save(engine, run_dir, done, {"step": done, "clips": clips, "clips_per_epoch": start.total})


def train_step(engine: Engine, batches: Iterator[data.Batch], step: int) -> metrics.Row:
    """One optimiser step, of `accumulation` micro-steps."""
    config = engine.config
    masked_step = config.cross_view.weight > 0 and step % config.cross_view.interval == 0
    global_step = config.global_view.weight > 0 and step % config.global_view.interval == 0
    meter = metrics.Meter(engine.device)
    micro = [next(batches).to(engine.device) for _ in range(engine.accumulation)]
    meter.waited = time.perf_counter() - meter.started
    count = engine.count(micro)
    for batch in micro:
        losses = engine.forward_backward(batch, count, masked_step=masked_step, global_step=global_step)
        meter.add(batch, losses, masked_step)
    share = metrics.learning_rate_share(step, config.steps, config.optimizer.warmup)
    grad_norm = engine.step(share)
    return meter.row(engine.sum(meter.sums), step + 1, grad_norm, share * config.optimizer.learning_rate)


def load(
    urls: list[str], config: Config, tokenizer: PreTrainedTokenizerBase, start: Start
) -> Iterator[data.Batch]:
    """This process's batches from where the run stands."""
    place = data.Place(rank(), world_size(), start.total, start.clips)
    return data.batches(data.visits(urls, config, tokenizer, place), prompt.prefix(tokenizer), config)


def save(engine: Engine, run_dir: Path, step: int, state: dict[str, int]) -> None:
    """Write a checkpoint; all processes take part."""
    folder = run_dir / "checkpoints" / f".step-{step:06d}"
    if rank() == 0:
        checkpoint.begin(run_dir, step)
    engine.barrier()
    engine.save(folder / "engine")
    weights = engine.weights()
    engine.barrier()
    if weights is not None:
        checkpoint.save_weights(weights, folder / checkpoint.MODEL_FILE)
        checkpoint.finish(folder, {**state, "processes": world_size()}, engine.config.checkpoint.keep)
    engine.barrier()


def resume(engine: Engine, run_dir: Path, urls: list[str], total: int) -> Start:
    """Put the engine where the last whole checkpoint left it. ValueError: other shards, other processes."""
    folder = checkpoint.latest(run_dir)
    state, known = checkpoint.read_state(folder), rundir.described(run_dir)
    if rundir.shards_hash(urls) != known["shards_hash"] or total != state["clips_per_epoch"]:
        raise ValueError(
            f"--resume {run_dir}: the shards are not those it was trained on; give those with --shards"
        )
    if world_size() != state["processes"]:
        raise ValueError(
            f"--resume {run_dir}: got {world_size()} processes, expected {state['processes']} as before"
        )
    engine.load(folder / "engine")
    if rank() == 0:
        metrics.cut_log(run_dir, state["step"])
    return Start(state["step"], state["clips"], total)


def agreed(request: Request) -> Path:
    """The run directory, made by the first process and told to the others."""
    if request.resume is not None:
        return request.resume
    made: str | ValueError = ""
    if rank() == 0:
        try:
            made = str(rundir.make(request.config.out))
        except ValueError as error:
            made = error
    made = from_first(made)
    if isinstance(made, ValueError):
        raise made
    return Path(made)


if __name__ == "__main__":
    sys.exit(main())
