"""Work ahead of its use: the next samples are fetched while one is being decoded."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import TypeVar

from scanshards.remote import RemoteOptions, is_remote
from scanshards.shardfile import Shard, ShardFile, open_shard

_OPEN_SHARDS = 64

T = TypeVar("T")
R = TypeVar("R")


def ahead(function: Callable[[T], R], items: Iterable[T], depth: int) -> Iterator[R]:
    """function(item) of each item, in order; `depth` threads are up to that many items ahead.

    0: none, each is computed when it is asked for. An error is raised in its item's place. When the iterator
    is closed, items not begun are dropped; threads that wait for a server do not keep the program alive.
    """
    if depth < 1:
        yield from map(function, items)
        return
    jobs: SimpleQueue[tuple[Future[R], T] | None] = SimpleQueue()
    for _ in range(depth):
        threading.Thread(target=_work, args=(function, jobs), daemon=True).start()
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(Future())
            jobs.put((waiting[-1], item))
            if len(waiting) > depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
        for _ in range(depth):
            jobs.put(None)


def _work(function: Callable[[T], R], jobs: SimpleQueue[tuple[Future[R], T] | None]) -> None:
    while (job := jobs.get()) is not None:
        future, item = job
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(function(item))
            except BaseException as error:
                future.set_exception(error)
        del job, future  # a thread that waits must not hold the last sample


@dataclass
class _Slot:
    lock: threading.Lock = field(default_factory=threading.Lock)
    file: ShardFile | None = None


class OpenShards:
    """Shards opened and checked on first use, by any thread, each once; local ones are kept while in use."""

    def __init__(self, remote: RemoteOptions) -> None:
        self._remote = remote
        self._lock = threading.Lock()
        self._slots: OrderedDict[str, _Slot] = OrderedDict()

    def file(self, shard: Shard) -> ShardFile:
        """CorruptSample: its length or end is not as in the index."""
        with self._lock:
            slot = self._slots.setdefault(shard.url, _Slot())
            self._slots.move_to_end(shard.url)
            if len(self._slots) > _OPEN_SHARDS and not is_remote(
                shard.url
            ):  # a remote one holds nothing open
                self._slots.popitem(last=False)
        with slot.lock:
            if slot.file is None:
                indexed = shard.entry is not None
                slot.file = (
                    open_shard(shard, self._remote)[0] if indexed else ShardFile(shard.url, self._remote)
                )
        return slot.file
