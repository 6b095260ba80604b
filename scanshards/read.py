"""Read clips: `open(urls)` gives every sample of the shards, decoded lazily and verified.

for clip in scanshards.open("shards/scannet-*.tar"):
    clip.key, clip.frames, clip.depth, clip.coords, clip.texts
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import xxhash

from scanshards.clip import Clip, ReadOptions
from scanshards.errors import CorruptSample
from scanshards.files import SampleRef, ShardFile, Urls, list_shards, open_shard


def open(
    urls: Urls,
    *,
    verify: bool = True,
    fields: Sequence[str] | None = None,
) -> ClipReader:
    """Every clip of the shards, in stored order; may be iterated again and has a length.

    urls: path or URL, glob or brace pattern, or a list of them. verify: check hashes of what is read.
    fields: what will be asked of the clips (names as in `Clip`); None = anything, and the whole range of
    each sample is verified rather than only the members that are decoded.
    FileNotFoundError: no shard, or one is missing. CorruptSample: damage, here or while iterating.
    """
    return ClipReader(urls, ReadOptions(verify, None if fields is None else tuple(fields)))


class ClipReader:
    """The clips of some shards, in stored order."""

    def __init__(self, urls: Urls, options: ReadOptions) -> None:
        self.shards = list_shards(urls)
        self._options = options

    def __iter__(self) -> Iterator[Clip]:
        for shard in self.shards:
            file, samples = open_shard(shard)
            for sample in samples:
                yield read_clip(file, sample, self._options)

    def __len__(self) -> int:
        return sum(
            len(open_shard(shard)[1]) if shard.entry is None else len(shard.entry["samples"])
            for shard in self.shards
        )


def read_clip(file: ShardFile, sample: SampleRef, options: ReadOptions) -> Clip:
    """One clip out of an open shard, checked as far as it goes without decoding."""
    data = file.read(sample.offset, sample.num_bytes)
    if len(data) != sample.num_bytes:
        raise CorruptSample(
            file.url, sample.key, "", f"got {len(data)} bytes, expected {sample.num_bytes} from the index"
        )
    whole = options.verify and bool(sample.xxh3) and options.fields is None
    damaged = whole and xxhash.xxh3_64_hexdigest(data) != sample.xxh3
    clip = Clip(file.url, sample.key, data, options)
    if damaged:
        clip.verify_members()
        raise CorruptSample(
            file.url, sample.key, "", f"XXH3-64 of its {len(data)} bytes is not {sample.xxh3} as in the index"
        )
    return clip
