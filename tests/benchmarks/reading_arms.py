"""The arms of `reading.py`: each reads clips in one way, in a process of its own.

python -m tests.benchmarks.reading_arms FOLDER ARM [--passes 5] [--workers 2]
"""

from __future__ import annotations

import argparse
import itertools
import mmap
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

import scanshards
from scanshards import codec, schema
from tests.benchmarks import reading_data, reading_files, reading_peers
from tests.benchmarks.one_core import finish_arm, limit_libraries

FULL = ("frames", "depth", "patch_coords", "latents")
LATENTS = ("latents", "texts")
NUM_FILE_CLIPS = 4
"""Clips a pass where one takes seconds."""
LOADER_EPOCHS = 2


@dataclass(frozen=True)
class Arm:
    group: str
    title: str
    open: Callable[[Path], Iterable[Any]]
    """FOLDER to the clips of one pass; may be iterated again."""
    package: str = ""
    """Left out where this is not installed."""
    loader: bool = True
    """Also timed in a DataLoader."""


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False, description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("folder", type=Path)
    parser.add_argument("arm", choices=[*ARMS, *INSIDE])
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--workers", type=int, default=0)
    arguments = parser.parse_args()
    limit_libraries()
    if arguments.arm in INSIDE:
        finish_arm(INSIDE[arguments.arm](arguments.folder, arguments.passes))
    elif arguments.workers:
        finish_arm(loader(ARMS[arguments.arm].open(arguments.folder), arguments.workers))
    else:
        finish_arm(passes(ARMS[arguments.arm].open(arguments.folder), arguments.passes))


def passes(clips: Iterable[Any], count: int) -> dict[str, float]:
    """Milliseconds a clip, median of `count` passes after one that does not count."""
    wall, cpu = [], []
    for _ in range(count + 1):
        start, start_cpu = time.perf_counter(), time.process_time()
        num = sum(1 for _ in clips)
        wall.append((time.perf_counter() - start) / num)
        cpu.append((time.process_time() - start_cpu) / num)
    return {"wall_ms": 1e3 * statistics.median(wall[1:]), "cpu_ms": 1e3 * statistics.median(cpu[1:])}


def loader(clips: Iterable[Any], workers: int) -> dict[str, float]:
    """Clips a second out of a torch DataLoader, over some epochs after one that does not count."""
    from torch.utils.data import DataLoader, IterableDataset

    class Decoded(IterableDataset):
        def __iter__(self) -> Iterator[Any]:
            return iter(clips)

    # MDS and LitData share themselves among workers by being the loader's data set itself.
    dataset = clips if isinstance(clips, IterableDataset) else Decoded()
    batches = DataLoader(dataset, batch_size=None, num_workers=workers, persistent_workers=True)
    num = sum(1 for _ in batches)
    start = time.perf_counter()
    num = sum(1 for _ in range(LOADER_EPOCHS) for _ in batches)
    return {"clips_per_s": num / (time.perf_counter() - start)}


@dataclass(frozen=True)
class Ours:
    """Clips by `scanshards.stream`, in its order."""

    urls: list[str]
    fields: tuple[str, ...]
    verify: bool = True

    def __iter__(self) -> Iterator[Any]:
        for clip in scanshards.stream(self.urls, fields=self.fields, verify=self.verify):
            yield take(clip, self.fields)


def take(clip: scanshards.Clip, fields: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(clip.patch_coords() if name == "patch_coords" else getattr(clip, name) for name in fields)


def ours_full(folder: Path, verify: bool = True) -> Iterable[Any]:
    return Ours(reading_data.full_shards(folder), FULL, verify)


def ours_latents(folder: Path, verify: bool = True) -> Iterable[Any]:
    return Ours(reading_data.all_shards(folder), LATENTS, verify)


@dataclass(frozen=True)
class Files:
    """Clips assembled from the exported files."""

    read: Callable[[Path, int], Iterator[Any]]
    folder: Path

    def __iter__(self) -> Iterator[Any]:
        return self.read(self.folder, NUM_FILE_CLIPS)


WDS, MDS, LITDATA = reading_peers.PACKAGES
ARMS = {
    "full-scanshards": Arm("full", "scanshards", ours_full),
    "full-unverified": Arm(
        "full", "scanshards, verify=False", partial(ours_full, verify=False), loader=False
    ),
    "full-webdataset": Arm("full", "webdataset", reading_peers.webdataset_full, WDS),
    "full-webdataset-bare": Arm(
        "full",
        "webdataset, no coordinates",
        partial(reading_peers.webdataset_full, coords=False),
        WDS,
        loader=False,
    ),
    "full-mds": Arm("full", "MosaicML Streaming", reading_peers.mds_full, MDS),
    "full-litdata": Arm("full", "LitData", reading_peers.litdata_full, LITDATA),
    "full-published": Arm("full", "96 files, as published", partial(Files, reading_files.published)),
    "full-opencv": Arm("full", "96 files, with OpenCV", partial(Files, reading_files.opencv), loader=False),
    "latents-scanshards": Arm("latents", "scanshards", ours_latents),
    "latents-unverified": Arm(
        "latents", "scanshards, verify=False", partial(ours_latents, verify=False), loader=False
    ),
    "latents-webdataset": Arm("latents", "webdataset", reading_peers.webdataset_latents, WDS),
    "latents-mds": Arm("latents", "MosaicML Streaming", reading_peers.mds_latents_of_full, MDS),
    "latents-litdata": Arm("latents", "LitData", reading_peers.litdata_latents_of_full, LITDATA),
    "latents-mds-alone": Arm(
        "latents", "MosaicML Streaming, copy with these alone", reading_peers.mds_latents, MDS, loader=False
    ),
    "latents-litdata-alone": Arm(
        "latents", "LitData, copy with these alone", reading_peers.litdata_latents, LITDATA, loader=False
    ),
}


def copies(folder: Path, count: int) -> dict[str, float]:
    """CPU milliseconds a clip to get latents.npy as an array: a plain copy, and what reading adds to it.

    Every pass maps the shards anew and reads each clip once.
    """
    urls = reading_data.all_shards(folder)
    member = schema.MEMBERS["latents.npy"]
    ranges = [latent_ranges(url) for url in urls]

    def over_maps(function: Callable[[memoryview, str], Any]) -> None:
        for url, rows in zip(urls, ranges, strict=True):
            with open(url, "rb") as file:
                data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            for start, end, xxh3 in rows:
                function(data[start:end], xxh3)

    def verified(data: memoryview, xxh3: str) -> None:
        assert xxhash.xxh3_64_hexdigest(data) == xxh3
        codec.decode(member, data)

    def clips(verify: bool) -> None:
        for clip in scanshards.open(urls, fields=("latents",), verify=verify):
            clip.latents  # noqa: B018

    steps = {
        "plain copy of the bytes": lambda: over_maps(lambda data, _: np.frombuffer(data, np.uint8).copy()),
        "decoded": lambda: over_maps(lambda data, _: codec.decode(member, data)),
        "verified and decoded": lambda: over_maps(verified),
        "as a clip, verify=False": partial(clips, verify=False),
        "as a clip": partial(clips, verify=True),
    }
    return in_turns(steps, sum(map(len, ranges)), 3 * count)


def latent_ranges(url: str) -> list[tuple[int, int, str]]:
    """(first byte, end, XXH3-64) of each latents.npy in a shard."""
    from scanshards import tar

    rows = []
    data = Path(url).read_bytes()
    hashes = [clip.meta["members"] for clip in scanshards.open(url)]
    entries = tar.read_entries(data, 0, len(data) - len(tar.END))
    latents = [entry for entry in entries if entry.name.endswith(".latents.npy")]
    for entry, members in zip(latents, hashes, strict=True):
        xxh3 = next(row["xxh3"] for row in members if row["name"] == "latents.npy")
        rows.append((entry.start, entry.start + entry.num_bytes, xxh3))
    return rows


def verifying(folder: Path, count: int) -> dict[str, float]:
    """CPU milliseconds a clip, verified and not, in turns."""
    fields: dict[str, tuple[list[str], tuple[str, ...] | None]] = {
        "frames, depth, patch coordinates, latents": (reading_data.full_shards(folder), FULL),
        "the same, fields=None": (reading_data.full_shards(folder), None),
        "latents, texts": (reading_data.all_shards(folder), LATENTS),
    }

    def read(urls: list[str], names: tuple[str, ...] | None, verify: bool) -> None:
        for clip in scanshards.open(urls, fields=names, verify=verify):
            take(clip, names or FULL)

    found = {}
    for title, (urls, names) in fields.items():
        steps = {f"{title}|{verify}": partial(read, urls, names, verify) for verify in (True, False)}
        num = len(scanshards.open(urls))
        found |= in_turns(steps, num, 3 * count)
    return found


def in_turns(steps: dict[str, Callable[[], None]], num: int, count: int) -> dict[str, float]:
    """Name -> CPU milliseconds a clip, median of `count` rounds after one that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for name, step in itertools.chain.from_iterable([steps.items()] * (count + 1)):
        start = time.thread_time()
        step()
        seconds[name].append((time.thread_time() - start) / num)
    return {name: 1e3 * statistics.median(found[1:]) for name, found in seconds.items()}


INSIDE = {"copies": copies, "verifying": verifying}
"""Arms that compare steps within one process."""


if __name__ == "__main__":
    main()
