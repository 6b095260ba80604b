"""Training order: all samples once an epoch, the same order for any number of ranks and workers.

The global order is a pure function of (seed, epoch, the samples). Position p of it belongs to rank
(p - start) mod world_size, so the samples that all ranks have taken after equal numbers of steps are always
a prefix of the order, and one number says where to go on, with any other number of ranks.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from functools import cache, cached_property
from typing import Any, Protocol

import xxhash

from scanshards.clip import Clip, ReadOptions
from scanshards.files import Urls, list_shards
from scanshards.read import read_clips, shard_samples
from scanshards.remote import RemoteOptions, is_remote
from scanshards.shardfile import SampleRef

_STATE = {
    "seed": int,
    "epoch": int,
    "position": int,
    "ahead": list,
    "num_samples": int,
    "fingerprint": str,
}


class Order(Protocol):
    """The samples of an epoch by position."""

    def __len__(self) -> int: ...

    def __getitem__(self, position: int, /) -> SampleRef: ...


def stream(
    urls: Urls,
    *,
    seed: int = 0,
    epoch: int = 0,
    rank: int = 0,
    world_size: int = 1,
    state: dict[str, Any] | None = None,
    batch_size: int = 1,
    verify: bool = True,
    fields: Sequence[str] | None = None,
    remote: RemoteOptions | None = None,
) -> ClipStream:
    """The clips of this rank for one epoch, or for the rest of the epoch that `state` describes.

    state: what `ClipStream.state()` gave; its seed and epoch are taken instead of the arguments. rank and
    world_size may differ from those it was made with. As the dataset of a torch DataLoader (torch imported
    before this call) it shares itself among the workers; batch_size: the loader's (1 also for its None),
    then any number of workers gives the rank's order.
    ValueError: fewer samples than ranks, a bad rank, or a state of other samples.
    """
    options = ReadOptions.of(verify, fields, remote)
    samples = list_samples(urls, options.remote)
    start = start_of(len(samples), fingerprint(samples), seed, epoch, state)
    order = global_order(samples, start["seed"], start["epoch"])
    return new_stream(order, start, (rank, world_size), options, batch_size)


def list_samples(urls: Urls, remote: RemoteOptions) -> list[SampleRef]:
    """The samples of some shards, in stored order."""
    return [sample for shard in list_shards(urls, remote) for sample in shard_samples(shard, remote)]


def global_order(samples: Sequence[SampleRef], seed: int, epoch: int) -> list[SampleRef]:
    """All samples, sorted by XXH3-128 of seed, epoch and key: the same on any machine and version."""

    def place(sample: SampleRef) -> tuple[bytes, str, str]:
        # Releases that are read together may have a key in common: their content tells them apart.
        digest = xxhash.xxh3_128_digest(f"{seed} {epoch} {sample.key}".encode())
        return digest, sample.xxh3, sample.shard.url

    return sorted(samples, key=place)


class ClipStream:
    """One rank's clips of one epoch. Each `iter()` begins at the stream's start."""

    def __init__(
        self,
        order: Order,
        start: dict[str, Any],
        place: tuple[int, int],
        options: ReadOptions,
        batch_size: int = 1,
    ) -> None:
        self._order = order
        self._start = start
        self._rank, self._world_size = place
        self._options = options
        self._batch_size = batch_size
        self._num_taken = 0

    def __iter__(self) -> Iterator[Clip]:
        mine = self.worker_samples(*_worker())
        self._num_taken = 0
        any_remote = any(is_remote(sample.shard.url) for sample in mine)
        for clip in read_clips(mine, self._options, any_remote):
            self._num_taken += 1
            yield clip
        # Who asks for one clip more is at a step that ranks with a longer share have taken.
        self._num_taken = -(-len(self._rest) // self._world_size)

    def __len__(self) -> int:
        """Clips from the stream's start to the end of this rank's share."""
        return len(self._share())

    def samples(self) -> list[SampleRef]:
        """This rank's share from the stream's start on, in its order."""
        return [self._order[position] for position in self._share()]

    def worker_samples(self, worker: int, num_workers: int) -> list[SampleRef]:
        """The part of `samples()` that a loader's worker reads: every num_workers-th batch."""
        batches = [number // self._batch_size % num_workers for number in range(len(self))]
        return [s for s, turn in zip(self.samples(), batches, strict=True) if turn == worker]

    def state(self, num_taken: int | Sequence[int] | None = None) -> dict[str, Any]:
        """Where to go on, as small JSON: everything that has not been taken, in the same order.

        num_taken: how many clips of this stream every rank has used. None: as many as the running iteration
        gave out; under a DataLoader with workers give the number, for they read ahead in other processes.
        A sequence: how many each rank has used, where ranks stopped at different steps.
        ValueError: a sequence that has not one number for each rank, or a negative number.
        """
        world, rest = self._world_size, self._rest
        taken = self._num_taken if num_taken is None else num_taken
        counts = [taken] * world if isinstance(taken, int) else list(taken)
        if len(counts) != world or min(counts) < 0:
            raise ValueError(f"num_taken: got {num_taken!r}, expected {world} numbers, or one for all")
        first = min(count * world + rank for rank, count in enumerate(counts))
        position = rest[first] if first < len(rest) else self._start["num_samples"]
        steps = range(first // world, max(counts))
        used = [step * world + rank for step in steps for rank in range(world) if step < counts[rank]]
        ahead = {rest[i] for i in used if first < i < len(rest)} | set(self._start["ahead"])
        return {**self._start, "position": position, "ahead": sorted(p for p in ahead if p > position)}

    @cached_property
    def _rest(self) -> Sequence[int]:
        """Positions of the order that were not taken when the stream started."""
        rest, ahead = range(self._start["position"], self._start["num_samples"]), set(self._start["ahead"])
        return [position for position in rest if position not in ahead] if ahead else rest

    def _share(self) -> Sequence[int]:
        return self._rest[self._rank :: self._world_size]


def start_of(
    num_samples: int, fingerprint: str, seed: int, epoch: int, state: dict[str, Any] | None
) -> dict[str, Any]:
    """The state at which a stream of these samples begins: the epoch's start, or the given one, checked."""
    if state is None:
        state = {"seed": seed, "epoch": epoch, "position": 0, "ahead": []}
        return {**state, "num_samples": num_samples, "fingerprint": fingerprint}
    if set(state) != set(_STATE) or any(type(state[name]) is not kind for name, kind in _STATE.items()):
        raise ValueError(f"state: got {state!r}, expected what ClipStream.state() gave")
    if (state["fingerprint"], state["num_samples"]) != (fingerprint, num_samples):
        raise ValueError(
            f"state is of {state['num_samples']} other samples (these are {num_samples}); "
            "give the shards that it was made with, or start a new epoch without a state"
        )
    places = [state["position"], *state["ahead"]]
    if any(type(place) is not int or not 0 <= place <= num_samples for place in places):
        raise ValueError(f"state: got positions {places!r}, expected 0 to {num_samples}")
    return dict(state)


def new_stream(
    order: Order, start: dict[str, Any], place: tuple[int, int], options: ReadOptions, batch_size: int
) -> ClipStream:
    """A stream that is a torch dataset if torch is there. ValueError: bad rank, fewer samples than ranks."""
    rank, world_size = place
    if not 0 <= rank < world_size:
        raise ValueError(f"got rank {rank} of world_size {world_size}, expected 0 <= rank < world_size")
    if len(order) < world_size:
        raise ValueError(
            f"got {len(order)} samples for {world_size} ranks, expected at least one for each: "
            "use fewer ranks or more shards"
        )
    if batch_size < 1:
        raise ValueError(f"batch_size: got {batch_size}, expected at least 1")
    cls = _torch_class() if "torch" in sys.modules else ClipStream
    return cls(order, start, place, options, batch_size)


def fingerprint(samples: Sequence[SampleRef]) -> str:
    """Tells one set of samples from another: their keys, in whatever order and folder."""
    return xxhash.xxh3_64_hexdigest("\n".join(sorted(sample.key for sample in samples)).encode())


@cache
def _torch_class() -> type[ClipStream]:
    from torch.utils.data import IterableDataset

    class TorchClipStream(ClipStream, IterableDataset):
        """DataLoader asks for this base class."""

        def __reduce__(self) -> tuple[Any, ...]:
            # The class is made here, so another process has to make it too.
            place = (self._rank, self._world_size)
            return _torch_stream, (self._order, self._start, place, self._options, self._batch_size)

    return TorchClipStream


def _torch_stream(*parts: Any) -> ClipStream:
    return _torch_class()(*parts)


def _worker() -> tuple[int, int]:
    """(worker, number of workers) inside a torch DataLoader worker, else (0, 1)."""
    torch_data = sys.modules.get("torch.utils.data")
    info = torch_data.get_worker_info() if torch_data else None
    return (0, 1) if info is None else (info.id, info.num_workers)
