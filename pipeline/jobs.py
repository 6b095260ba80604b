"""Runs one function over many items with Dask, showing progress (the only file that knows Dask).

State lives in the stores, not here: whatever happens to a worker, the scheduler or this process, the next run
finds what is done by its key and goes on.
"""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from pipeline.config import DaskConfig

Items = Sequence[tuple[str, tuple[Any, ...]]]
"""(name for people, arguments) per call."""


class JobsFailed(RuntimeError):
    """Some calls raised something that no scan can be blamed for; the message lists them."""


@dataclass(frozen=True)
class Failure:
    name: str
    error: str


def run(function: Callable[..., Any], items: Items, config: DaskConfig, label: str) -> list[Any]:
    """Call `function(*arguments)` for every item; results in the order of `items`.

    All items are tried. JobsFailed afterwards if any raised. One item, or `dask.scheduler=none`, runs in this
    process: starting workers costs seconds.
    """
    console = Console(stderr=True)
    results: dict[str, Any] = {}
    failures: list[Failure] = []
    columns = (TextColumn("{task.description:<8}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task(label, total=len(items))
        for name, outcome in _outcomes(function, items, config):
            if isinstance(outcome, Failure):
                failures.append(outcome)
            else:
                results[name] = outcome
            progress.advance(bar)
    if failures:
        listed = "\n".join(f"{failure.name}: {failure.error}" for failure in failures)
        raise JobsFailed(f"{label}: {len(failures)} of {len(items)} failed, the others are done\n{listed}")
    return [results[name] for name, _ in items]


def _outcomes(function: Callable[..., Any], items: Items, config: DaskConfig) -> Iterator[tuple[str, Any]]:
    if config.scheduler == "none" or (config.scheduler == "processes" and len(items) <= 1):
        for name, arguments in items:
            try:
                yield name, function(*arguments)
            except Exception:
                yield name, Failure(name, traceback.format_exc())
        return
    from dask.distributed import as_completed

    with _client(config, len(items)) as client:
        futures = {
            client.submit(_single_threaded, function, *arguments, pure=False): name
            for name, arguments in items
        }
        for future in as_completed(list(futures)):
            name = futures[future]
            if future.status == "finished":
                yield name, future.result()
            else:
                yield name, Failure(name, "".join(traceback.format_exception(future.exception())))
            future.release()


@contextmanager
def _client(config: DaskConfig, num_items: int) -> Iterator[Any]:
    """A client of local processes or of a running scheduler (`tcp://…`, or a scheduler file)."""
    import dask
    from dask.distributed import Client, LocalCluster

    if config.scheduler != "processes":
        is_file = Path(config.scheduler).exists()
        with Client(
            **({"scheduler_file": config.scheduler} if is_file else {"address": config.scheduler})
        ) as client:
            yield client
        return
    # Dask has its workers give freed memory back at once, so that every large array faults its pages in anew:
    # a third of the time of rendering.
    environment = {f"MALLOC_{kind}_THRESHOLD_": 1 << 28 for kind in ("TRIM", "MMAP")}
    dask.config.set({f"distributed.nanny.pre-spawn-environ.{name}": n for name, n in environment.items()})
    # A worker that is slow to leave is killed, with a warning; it has nothing to lose.
    logging.getLogger("distributed.nanny").setLevel(logging.ERROR)
    workers = min(config.workers or os.cpu_count() or 1, num_items)
    with (
        LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1"
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def _single_threaded(function: Callable[..., Any], *arguments: Any) -> Any:
    """One thread per worker process: the processes share the cores."""
    import cv2

    cv2.setNumThreads(1)
    return function(*arguments)
