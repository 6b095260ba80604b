"""Read clips: `open(urls)` gives every sample of the shards, decoded lazily and verified.

for clip in scanshards.open("shards/scannet-*.tar"):
    clip.key, clip.frames, clip.depth, clip.coords, clip.texts
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import xxhash

from scanshards.clip import Clip, ReadOptions
from scanshards.errors import CorruptSample
from scanshards.files import Urls, list_shards
from scanshards.readahead import OpenShards, ahead
from scanshards.remote import RemoteOptions, is_remote
from scanshards.shardfile import SampleRef, Shard, ShardFile, indexed_samples, open_shard


def open(
    urls: Urls,
    *,
    verify: bool = True,
    fields: Sequence[str] | None = None,
    remote: RemoteOptions | None = None,
) -> ClipReader:
    """Every clip of the shards, in stored order; may be iterated again and has a length.

    urls: path or URL, glob or brace pattern, or a list of them. verify: check hashes of what is read.
    fields: what will be asked of the clips (names as in `Clip`); None = anything, and the whole range of
    each sample is verified rather than only the members that are decoded. remote: time limits, read-ahead
    and cache of shards behind a URL.
    FileNotFoundError: no shard, or one is missing. CorruptSample: damage, here or while iterating.
    RemoteError: a server does not answer in time.
    """
    return ClipReader(urls, ReadOptions.of(verify, fields, remote))


class ClipReader:
    """The clips of some shards, in stored order."""

    def __init__(self, urls: Urls, options: ReadOptions) -> None:
        self.shards = list_shards(urls, options.remote)
        self._options = options

    def __iter__(self) -> Iterator[Clip]:
        any_remote = any(is_remote(shard.url) for shard in self.shards)
        samples = (sample for shard in self.shards for sample in shard_samples(shard, self._options.remote))
        return read_clips(samples, self._options, any_remote)

    def __len__(self) -> int:
        return sum(
            len(shard_samples(shard, self._options.remote))
            if shard.entry is None
            else len(shard.entry["samples"])
            for shard in self.shards
        )


def shard_samples(shard: Shard, remote: RemoteOptions) -> list[SampleRef]:
    """The shard's samples in stored order. A remote one with an index is asked nothing before it is read.

    CorruptSample: what `open_shard` finds.
    """
    if is_remote(shard.url) and shard.entry is not None:
        return indexed_samples(shard)
    return open_shard(shard, remote)[1]


def read_clips(samples: Iterable[SampleRef], options: ReadOptions, any_remote: bool) -> Iterator[Clip]:
    """The clips of these samples in this order; the next ones are fetched ahead if some are remote."""
    files = OpenShards(options.remote)

    def fetch(sample: SampleRef) -> Clip:
        return read_clip(files.file(sample.shard), sample, options)

    return ahead(fetch, samples, options.remote.read_ahead if any_remote else 0)


def read_clip(file: ShardFile, sample: SampleRef, options: ReadOptions) -> Clip:
    """One clip out of an open shard, checked as far as it goes without decoding."""
    data = file.read_sample(sample, options.fields)
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
