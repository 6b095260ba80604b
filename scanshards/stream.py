"""Training order: all samples once an epoch, the same order for any number of ranks and workers.

The global order is a pure function of (seed, epoch, the samples). Position p of it belongs to rank
(p - start) mod world_size, so the samples that all ranks have taken after equal numbers of steps are always
a prefix of the order, and one number says where to go on, with any other number of ranks.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import xxhash

from scanshards.clip import Clip, ReadOptions
from scanshards.files import SampleRef, ShardFile, Urls, list_shards, open_shard
from scanshards.read import read_clip

_OPEN_SHARDS = 64


def stream(
    urls: Urls,
    *,
    seed: int = 0,
    epoch: int = 0,
    rank: int = 0,
    world_size: int = 1,
    state: dict[str, Any] | None = None,
    verify: bool = True,
    fields: Sequence[str] | None = None,
) -> ClipStream:
    """The clips of this rank for one epoch, or for the rest of the epoch that `state` describes.

    state: what `ClipStream.state()` gave; its seed and epoch are taken instead of the arguments. rank and
    world_size may differ from those it was made with. As the dataset of a torch DataLoader (torch imported
    before this call) it shares itself among the workers; batch_size None or 1 keeps the rank's order.
    ValueError: fewer samples than ranks, a bad rank, or a state of other samples.
    """
    if not 0 <= rank < world_size:
        raise ValueError(f"got rank {rank} of world_size {world_size}, expected 0 <= rank < world_size")
    options = ReadOptions(verify, None if fields is None else tuple(fields))
    samples = [sample for shard in list_shards(urls) for sample in open_shard(shard)[1]]
    fingerprint = _fingerprint(samples)
    if state is not None:
        _check_state(state, len(samples), fingerprint)
        seed, epoch = state["seed"], state["epoch"]
    elif len(samples) < world_size:
        raise ValueError(
            f"got {len(samples)} samples for {world_size} ranks, expected at least one for each: "
            "use fewer ranks or more shards"
        )
    start = {
        "seed": seed,
        "epoch": epoch,
        "position": 0 if state is None else state["position"],
        "num_samples": len(samples),
        "fingerprint": fingerprint,
    }
    cls = _torch_class() if "torch" in sys.modules else ClipStream
    return cls(global_order(samples, seed, epoch), start, (rank, world_size), options)


def global_order(samples: Sequence[SampleRef], seed: int, epoch: int) -> list[SampleRef]:
    """All samples, sorted by XXH3-128 of seed, epoch and key: the same on any machine and version."""

    def place(sample: SampleRef) -> tuple[bytes, str]:
        return xxhash.xxh3_128_digest(f"{seed} {epoch} {sample.key}".encode()), sample.shard.url

    return sorted(samples, key=place)


class ClipStream:
    """One rank's clips of one epoch. Each `iter()` begins at the stream's start."""

    def __init__(
        self,
        order: list[SampleRef],
        start: dict[str, Any],
        place: tuple[int, int],
        options: ReadOptions,
    ) -> None:
        self._order = order
        self._start = start
        self._rank, self._world_size = place
        self._options = options
        self._num_taken = 0

    def __iter__(self) -> Iterator[Clip]:
        files: OrderedDict[str, ShardFile] = OrderedDict()
        worker, num_workers = _worker()
        self._num_taken = 0
        for sample in self.samples()[worker::num_workers]:
            clip = read_clip(_file(files, sample), sample, self._options)
            self._num_taken += 1
            yield clip

    def __len__(self) -> int:
        """Clips from the stream's start to the end of this rank's share."""
        return len(self.samples())

    def samples(self) -> list[SampleRef]:
        """This rank's share from the stream's start on, in its order."""
        return self._order[self._start["position"] + self._rank :: self._world_size]

    def state(self, num_taken: int | None = None) -> dict[str, Any]:
        """Where to go on, as small JSON, once every rank has taken as many clips as this one.

        num_taken: how many clips of this stream the rank has used; None: as many as the running iteration
        gave out. Give it under a DataLoader with workers: they read ahead in other processes. Where shares
        are uneven, rank 0 takes the last clip of the epoch, so keep rank 0's state.
        """
        taken = self._num_taken if num_taken is None else num_taken
        position = min(self._start["position"] + taken * self._world_size, self._start["num_samples"])
        return {**self._start, "position": position}


@cache
def _torch_class() -> type[ClipStream]:
    from torch.utils.data import IterableDataset

    class TorchClipStream(ClipStream, IterableDataset):
        """DataLoader asks for this base class."""

        def __reduce__(self) -> tuple[Any, ...]:
            # The class is made here, so another process has to make it too.
            place = (self._rank, self._world_size)
            return _torch_stream, (self._order, self._start, place, self._options)

    return TorchClipStream


def _torch_stream(*parts: Any) -> ClipStream:
    return _torch_class()(*parts)


def _worker() -> tuple[int, int]:
    """(worker, number of workers) inside a torch DataLoader worker, else (0, 1)."""
    torch_data = sys.modules.get("torch.utils.data")
    info = torch_data.get_worker_info() if torch_data else None
    return (0, 1) if info is None else (info.id, info.num_workers)


def _file(files: OrderedDict[str, ShardFile], sample: SampleRef) -> ShardFile:
    """The sample's shard, kept open among the last few used."""
    url = sample.shard.url
    if url not in files:
        files[url] = open_shard(sample.shard)[0] if sample.xxh3 else ShardFile(url)
        if len(files) > _OPEN_SHARDS:
            files.popitem(last=False)
    files.move_to_end(url)
    return files[url]


def _fingerprint(samples: Sequence[SampleRef]) -> str:
    """Tells one set of samples from another: their keys, in whatever order and folder."""
    return xxhash.xxh3_64_hexdigest("\n".join(sorted(sample.key for sample in samples)).encode())


def _check_state(state: dict[str, Any], num_samples: int, fingerprint: str) -> None:
    kinds = {"seed": int, "epoch": int, "position": int, "num_samples": int, "fingerprint": str}
    if set(state) != set(kinds) or any(type(state[name]) is not kind for name, kind in kinds.items()):
        raise ValueError(f"state: got {state!r}, expected what ClipStream.state() gave")
    if state["fingerprint"] != fingerprint or not 0 <= state["position"] <= num_samples:
        raise ValueError(
            f"state is of {state['num_samples']} other samples (these are {num_samples}); "
            "give the shards that it was made with, or start a new epoch without a state"
        )
