"""Runs one function over many items with Dask, showing progress (the only file that knows Dask).

State lives in the stores, not here: whatever happens to a worker, the scheduler or this process, the next run
finds what is done by its key and goes on.
"""

from __future__ import annotations

import functools
import logging
import os
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from pipeline.config import DaskConfig

Item = tuple[str, tuple[Any, ...]]
"""(name for people, arguments) of a call."""
Items = Sequence[Item]
MAX_LISTED = 5
"""So many failures are told in full; what fails for one scan often fails for all."""


class JobsFailed(RuntimeError):
    """Some calls raised something that no scan can be blamed for; the message names them."""


@dataclass(frozen=True)
class Failure:
    """A call that raised."""

    error: str


@dataclass(frozen=True)
class Killed:
    """A call whose worker process died under it, twice; the second time it ran alone."""

    reason: str


def run(
    function: Callable[..., Any],
    items: Items,
    config: DaskConfig,
    label: str,
    needs: Mapping[str, float] | None = None,
) -> Iterator[tuple[str, Any]]:
    """Call `function(*arguments)` for every item; yields (name, result or `Killed`) in the order they end.

    All items are tried. JobsFailed at the end if any raised. `needs`: Dask resources that a call occupies,
    say {"GPU": 1}. With `dask.scheduler=none` the calls run in this process, and nothing outlives a crash.
    """
    failures: list[tuple[str, str]] = []
    columns = (TextColumn("{task.description:<8}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task(label, total=len(items))
        for name, outcome in _outcomes(function, items, config, needs or {}):
            progress.advance(bar)
            if isinstance(outcome, Failure):
                failures.append((name, outcome.error))
            else:
                yield name, outcome
    if failures:
        listed = "\n".join(f"{name}: {error}" for name, error in failures[:MAX_LISTED])
        if more := [name for name, _ in failures[MAX_LISTED:]]:
            listed += f"\n… and {len(more)} more: {', '.join(more)}"
        raise JobsFailed(f"{label}: {len(failures)} of {len(items)} failed, the others are done\n{listed}")


def _outcomes(
    function: Callable[..., Any], items: Items, config: DaskConfig, needs: Mapping[str, float]
) -> Iterator[tuple[str, Any]]:
    if config.scheduler == "none":
        for name, arguments in items:
            try:
                yield name, function(*arguments)
            except Exception:
                yield name, Failure(traceback.format_exc())
        return
    if not items:
        return
    with _client(config, len(items), needs) as client:
        submit = functools.partial(
            client.submit, _single_threaded, function, pure=False, resources=dict(needs) or None
        )
        suspects = []
        for item, outcome in _ended(submit, items):
            if isinstance(outcome, Killed):
                suspects.append(item)
            else:
                yield item[0], outcome
        # Whoever was on a worker that died may be innocent. Alone with a worker, only the guilty kills it.
        for item in suspects:
            for (name, _), outcome in _ended(submit, [item]):
                if isinstance(outcome, Killed):
                    outcome = Killed(f"{name}: {outcome.reason} (dask.memory_limit={config.memory_limit})")
                yield name, outcome


def _ended(submit: Callable[..., Any], items: Items) -> Iterator[tuple[Item, Any]]:
    """Submit all items; yields each with its outcome when it ends."""
    from dask.distributed import as_completed

    futures = {submit(*item[1]): item for item in items}
    completed = as_completed(list(futures))
    for future in completed:
        if future.status in ("finished", "error", "cancelled"):
            yield futures[future], _outcome(future)
            future.release()
        else:  # its result died with a worker and is being made again
            completed.add(future)


def _outcome(future: Any) -> Any:
    from dask.distributed import CancelledError, KilledWorker

    try:
        return future.result()
    except CancelledError:
        return Failure("the Dask scheduler went away; start it and run the same command again")
    except KilledWorker:
        return Killed(
            "killed its worker process twice, expected it to end; it crashed, or needed more memory than a "
            "worker has"
        )
    except Exception:
        return Failure(traceback.format_exc())


@contextmanager
def _client(config: DaskConfig, num_items: int, needs: Mapping[str, float]) -> Iterator[Any]:
    """A client of local processes or of a running scheduler (`tcp://…`, or a scheduler file)."""
    import dask
    from dask.distributed import Client, LocalCluster

    if config.scheduler != "processes":
        with _connect(config.scheduler) as client:
            yield client
        return
    _check_size(config.memory_limit)
    dask.config.set(_LOCAL)
    # A worker that is slow to leave is killed, with a warning; it has nothing to lose.
    logging.getLogger("distributed.nanny").setLevel(logging.ERROR)
    workers = 1 if needs else min(config.workers or os.cpu_count() or 1, num_items)
    with (
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            memory_limit=config.memory_limit,
            resources=dict(needs),
            dashboard_address=None,
            # It serves its metrics even so: at any free port, or two runs at once would give warnings.
            scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
            host="127.0.0.1",
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def _connect(scheduler: str) -> Any:
    """A client of a running scheduler. ValueError: it is no address and no file. OSError: nobody answers."""
    from dask.distributed import Client

    is_file = Path(scheduler).is_file()
    if not is_file and ":" not in scheduler:
        raise ValueError(
            f"dask.scheduler: got {scheduler!r}, expected processes, none, tcp://HOST:PORT or an existing "
            "scheduler file"
        )
    try:
        return Client(scheduler_file=scheduler) if is_file else Client(scheduler)
    except OSError as error:
        raise OSError(
            f"dask.scheduler={scheduler}: {error}; start it with `dask scheduler`, or set "
            "dask.scheduler=processes"
        ) from error


def _check_size(memory_limit: str) -> None:
    from dask.utils import parse_bytes

    try:
        if memory_limit != "auto":
            parse_bytes(memory_limit)
    except ValueError:
        raise ValueError(
            f"dask.memory_limit: got {memory_limit!r}, expected auto or a size, say 4GB"
        ) from None


_LOCAL = {
    # Only the call that runs is blamed for its worker's death, and at once.
    "distributed.scheduler.worker-saturation": 1.0,
    "distributed.scheduler.allowed-failures": 0,
    # Dask has its workers give freed memory back at once, so that every large array faults its pages in anew:
    # a third of the time of rendering.
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": 1 << 28,
    "distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": 1 << 28,
}


def _single_threaded(function: Callable[..., Any], *arguments: Any) -> Any:
    """One thread per worker process: the processes share the cores."""
    import cv2

    cv2.setNumThreads(1)
    return function(*arguments)
