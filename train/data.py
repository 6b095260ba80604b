"""Shards to batches: which clip comes when, which texts it carries, and the tensors of it.

The order is `scanshards.stream`'s, epoch after epoch without end; process r of W takes every W-th clip of
it. What a visit carries is a pure function of (seed, epoch, clip key), so the number of clips that the whole
run has taken is all that resuming needs.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from transformers import PreTrainedTokenizerBase

from scanshards.clip import ReadOptions
from scanshards.read import read_clip
from scanshards.readahead import OpenShards
from scanshards.remote import RemoteOptions
from scanshards.schema import NUM_FRAMES
from scanshards.stream import stream
from scanshards.tasks import human_value, train_target, train_targets
from train import prompt
from train.config import Config
from train.draws import Draws, draw, generator, stack
from train.packing import Packed, pack
from train.prompt import Tokens

_FIELDS = ("frames", "depth", "patch_coords", "bev_valid", "latents", "bev_latents", "texts")
"""Members that training reads; only what is read is verified."""


@dataclass(frozen=True)
class ClipInputs:
    frames: Tensor
    """(F, 384, 384, 3) uint8 RGB."""
    patch_coords: Tensor
    """(F, 14, 14, 3) float32 world metres; NaN where a patch has no depth."""


@dataclass(frozen=True)
class Visit:
    """One clip with the texts it carries this time."""

    key: str
    inputs: ClipInputs
    texts: list[Tokens]
    draws: Draws


@dataclass(frozen=True)
class Batch:
    """B visits, ready for the model."""

    keys: list[str]
    frames: Tensor
    """(B, F, 384, 384, 3) uint8."""
    patch_coords: Tensor
    """(B, F, 14, 14, 3) float32."""
    packed: Packed
    weight: Tensor
    """(B,) float32: n, the texts of each visit; 1 for a clip without texts."""
    draws: Draws

    def to(self, device: torch.device) -> Batch:
        return _to(self, device)

    @property
    def num_tokens(self) -> int:
        """Tokens that the language model reads, padding left out."""
        return int((self.packed.segment >= 0).sum())


def used_frames(config: Config) -> NDArray[np.int64]:
    """(F,) which of the stored frames the model sees: evenly spread, truncated to int."""
    return np.linspace(0, NUM_FRAMES - 1, config.frames).astype(np.int64)


def clip_inputs(clip: Any, config: Config) -> ClipInputs:
    """What the model sees of a `scanshards.Clip`; decodes only the frames that are used."""
    frames = used_frames(config)
    coords = clip.patch_coords(27, missing="ignore", frames=frames)
    return ClipInputs(
        torch.from_numpy(np.stack([clip.frame(int(i)) for i in frames])), torch.from_numpy(np.asarray(coords))
    )


def training_records(texts: Sequence[dict[str, Any]], tasks: Sequence[str]) -> list[tuple[str, str]]:
    """(human value, answer) of every training record of the texts of these tasks."""
    return [
        (human_value(text), train_target(text, index))
        for text in texts
        if text["task"] in tasks
        for index in range(len(train_targets(text)))
    ]


def choose(count: int, wanted: int, seed: int, epoch: int, key: str) -> list[int]:
    """Which of `count` records visit `epoch` of a clip carries: a window that moves on through a fixed
    shuffle, so that ceil(count / wanted) epochs show every record."""
    if count == 0:
        return []
    order = generator(seed, 0, f"{key}/texts").permutation(count)
    wanted = min(wanted, count)
    return [int(order[(epoch * wanted + i) % count]) for i in range(wanted)]


def make_visit(clip: Any, config: Config, tokenizer: PreTrainedTokenizerBase, epoch: int) -> Visit:
    records = training_records(clip.texts, config.tasks)
    chosen = choose(len(records), config.texts_per_visit, config.seed, epoch, clip.key)
    texts = [prompt.training_text(tokenizer, *records[i]) for i in chosen]
    return Visit(clip.key, clip_inputs(clip, config), texts, draw(clip, used_frames(config), config, epoch))


def collate(visits: Sequence[Visit], frame: prompt.Prefix, config: Config) -> Batch:
    return Batch(
        keys=[visit.key for visit in visits],
        frames=torch.stack([visit.inputs.frames for visit in visits]),
        patch_coords=torch.stack([visit.inputs.patch_coords for visit in visits]),
        packed=pack(frame, config.visual_tokens, [visit.texts for visit in visits]),
        weight=torch.tensor([float(max(len(visit.texts), 1)) for visit in visits]),
        draws=stack([visit.draws for visit in visits]),
    )


@dataclass(frozen=True)
class Failure:
    """Why a worker stopped; exceptions themselves lose their type on the way between processes."""

    message: str


@dataclass(frozen=True)
class Place:
    """Which part of the endless order (epoch after epoch, `total` clips each) a process takes."""

    rank: int
    world_size: int
    total: int
    start: int = 0
    """Clips that all processes together have taken before."""

    def of_worker(self, worker: int, workers: int) -> Place:
        """The share of one loader worker; taking turns, the workers give the process's order."""
        rank = self.rank + self.world_size * worker
        return Place(rank, self.world_size * workers, self.total, self.start)

    def indices(self, epoch: int) -> range:
        """Places in an epoch's order: in the endless order they are start + rank + k * world_size."""
        begins = max(epoch * self.total, self.start)
        first = begins + (self.start + self.rank - begins) % self.world_size
        return range(first - epoch * self.total, self.total, self.world_size)


class Visits(IterableDataset):
    """Visits of one process without end; shares itself among loader workers."""

    def __init__(
        self, urls: Sequence[str], config: Config, tokenizer: PreTrainedTokenizerBase, place: Place
    ) -> None:
        self.urls, self.config, self.tokenizer, self.place = list(urls), config, tokenizer, place

    def __iter__(self) -> Iterator[Visit | Failure]:
        try:
            yield from self._visits()
        except (ValueError, OSError) as error:
            yield Failure(str(error))

    def _visits(self) -> Iterator[Visit]:
        info = get_worker_info()
        place = self.place if info is None else self.place.of_worker(info.id, info.num_workers)
        files = OpenShards(RemoteOptions())
        for epoch in itertools.count(place.start // place.total):
            order = stream(self.urls, seed=self.config.seed, epoch=epoch).samples()
            for index in place.indices(epoch):
                clip = read_clip(files.file(order[index].shard), order[index], ReadOptions(fields=_FIELDS))
                yield make_visit(clip, self.config, self.tokenizer, epoch)


def count_clips(urls: Sequence[str]) -> int:
    """Clips of an epoch. FileNotFoundError: no such shard."""
    return len(stream(list(urls)))


def visits(
    urls: Sequence[str], config: Config, tokenizer: PreTrainedTokenizerBase, place: Place
) -> Iterator[Visit]:
    """Visits without end, made by worker processes ahead of time. ValueError: a clip cannot be used."""
    workers = config.loader.workers
    loader = DataLoader(
        Visits(urls, config, tokenizer, place),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=config.loader.prefetch if workers else None,
    )
    for item in loader:
        if isinstance(item, Failure):
            raise ValueError(item.message)
        yield item


def batches(source: Iterator[Visit], frame: prompt.Prefix, config: Config) -> Iterator[Batch]:
    """Micro-batches of `batch.micro` visits."""
    while True:
        yield collate([next(source) for _ in range(config.batch.micro)], frame, config)


def _to(value: Any, device: torch.device) -> Any:
    """Copy of a dataclass with its tensors, nested ones too, on a device."""
    moved = {}
    for field in fields(value):
        item = getattr(value, field.name)
        if isinstance(item, Tensor):
            item = item.to(device, non_blocking=True)
        elif hasattr(item, "__dataclass_fields__"):
            item = _to(item, device)
        moved[field.name] = item
    return type(value)(**moved)
