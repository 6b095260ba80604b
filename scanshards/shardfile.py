"""The bytes of one shard: a memory map, or ranges fetched from a server and kept in the cache."""

from __future__ import annotations

import itertools
import mmap
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import xxhash

from scanshards import tar
from scanshards.cache import Cache
from scanshards.errors import CorruptSample
from scanshards.index import INDEX_NAME
from scanshards.layout import HEAD_BYTES, MAX_SAMPLE_BYTES, head_bytes, read_layout, unpack
from scanshards.remote import RemoteFile, RemoteOptions, is_remote, open_remote

LOCAL = RemoteOptions()


@dataclass(frozen=True)
class Shard:
    """A shard by path or URL; `entry` is its row in the index, None if there is no index."""

    url: str
    entry: dict[str, Any] | None


@dataclass(frozen=True)
class SampleRef:
    """Where a sample lies; `xxh3` of its range, "" if there is no index."""

    shard: Shard
    key: str
    offset: int
    num_bytes: int
    xxh3: str


class ShardFile:
    """The bytes of an open shard. A remote one holds no connection and may be used by several threads."""

    def __init__(self, url: str, remote: RemoteOptions = LOCAL) -> None:
        self.url = url
        self._map: memoryview | None = None
        self._remote: RemoteFile | None = None
        self._cache = None
        if is_remote(url):
            self._remote = open_remote(url, remote)
            self._cache = _cache(remote.cache_dir, remote.cache_bytes) if remote.cache_dir else None
            return
        with open(url, "rb") as file:
            self._num_bytes = os.fstat(file.fileno()).st_size
            if self._num_bytes:  # an empty file cannot be mapped
                self._map = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

    @property
    def num_bytes(self) -> int:
        return self._num_bytes if self._remote is None else self._remote.num_bytes

    def read(self, offset: int, num_bytes: int) -> memoryview:
        """The bytes from `offset`, fewer if the file ends before."""
        if self._remote is not None:
            return self._remote.read(offset, num_bytes)
        end = min(offset + num_bytes, self._num_bytes)
        return self._map[offset:end] if self._map is not None and offset < end else memoryview(b"")

    def read_sample(self, sample: SampleRef, fields: Sequence[str] | None) -> memoryview:
        """The sample's range; fewer bytes if the file ends before.

        With `fields` a remote shard is asked for clip.json and for the members of these fields: one request
        for the first and one for each group of the others. Members that were not fetched have their headers
        and zeros for content. CorruptSample: larger than any sample can be.
        """
        if self._remote is None:
            return self.read(sample.offset, sample.num_bytes)
        if sample.num_bytes > MAX_SAMPLE_BYTES:
            what = f"{sample.num_bytes} bytes, expected at most {MAX_SAMPLE_BYTES}"
            raise CorruptSample(self.url, sample.key, "", what)
        whole = self._cached(sample, "all")
        if whole is not None:
            return whole
        if fields is not None:
            part = self._read_fields(sample, fields)
            if part is not None:
                return part
        data = self.read(sample.offset, sample.num_bytes)
        if self._cache is not None and sample.xxh3 and xxhash.xxh3_64_hexdigest(data) == sample.xxh3:
            self._keep(sample, "all", data)
        return data

    def read_head(self, offset: int, key: str = "") -> memoryview:
        """The sample at `offset` from its first byte to beyond clip.json, fewer if the file ends before.

        ValueError: no sample (of this key) starts there.
        """
        head = self.read(offset, HEAD_BYTES)
        missing = head_bytes(head, key) - len(head)
        if missing <= 0:
            return head
        return memoryview(bytes(head) + self.read(offset + len(head), missing))

    def _read_fields(self, sample: SampleRef, fields: Sequence[str]) -> memoryview | None:
        """The sample with the members of these fields; None: its head is damaged, so read it whole."""
        name = ",".join(sorted(set(fields)))
        kept = self._cached(sample, name)
        try:
            packed = self._fetch(sample, fields) if kept is None else kept
            layout, data = unpack(packed, fields)
        except ValueError:
            return None  # what is wrong is for `Clip` to say, from the whole range
        if kept is None and self._cache is not None and layout.is_intact(data, fields):
            self._keep(sample, name, packed)
        return data

    def _fetch(self, sample: SampleRef, fields: Sequence[str]) -> bytes:
        """The spans of these fields, one after the other. ValueError: the head is damaged."""
        head = self.read_head(sample.offset, sample.key)
        layout = read_layout(head)
        if layout.num_bytes != sample.num_bytes:
            raise ValueError(f"{layout.num_bytes} bytes by clip.json, {sample.num_bytes} by the index")
        parts: list[bytes | memoryview] = []
        for start, end in layout.spans(fields):
            known = head[start:end]
            start += len(known)
            parts += [known, self.read(sample.offset + start, end - start) if start < end else b""]
        return b"".join(parts)

    def _key(self, sample: SampleRef, name: str) -> str:
        """What an entry of the cache is of; "" if a file that changes could not be told from it.

        The URL is part of it: another server cannot put its content in the place of this one's.
        """
        assert self._remote is not None
        entry = sample.shard.entry
        identity = entry["sha256"] if entry else self._remote.identity()
        return identity and f"{self.url} {identity} {sample.offset} {sample.num_bytes} {sample.xxh3} {name}"

    def _cached(self, sample: SampleRef, name: str) -> memoryview | None:
        key = self._key(sample, name) if self._cache else ""
        return self._cache.get(key) if self._cache and key else None

    def _keep(self, sample: SampleRef, name: str, data: bytes | memoryview) -> None:
        """Only what has passed its hash: what was damaged on its way must not stay."""
        key = self._key(sample, name) if self._cache else ""
        if self._cache and key:
            self._cache.put(key, data)


@lru_cache
def _cache(folder: str, max_bytes: int) -> Cache:
    return Cache(folder, max_bytes)


def open_shard(shard: Shard, remote: RemoteOptions = LOCAL) -> tuple[ShardFile, list[SampleRef]]:
    """The shard's bytes and its samples. CorruptSample: length, end or (without an index) headers wrong."""
    file = ShardFile(shard.url, remote)
    if shard.entry is None:
        scan = _scan_remote if is_remote(shard.url) else _scan_local
        return file, list(scan(shard, file))
    samples = indexed_samples(shard)
    end = samples[-1].offset + samples[-1].num_bytes
    tail = file.read(end, len(tar.END) + 1)  # the one request that also says how long a remote shard is
    expected = shard.entry["bytes"]
    if file.num_bytes != expected:
        what = f"has {file.num_bytes} bytes, expected {expected} as in {INDEX_NAME}"
        raise CorruptSample(shard.url, "", "", what)
    if tail != tar.END:
        raise CorruptSample(shard.url, "", "", f"from byte {end}, after the last sample, expected only zeros")
    return file, samples


def indexed_samples(shard: Shard) -> list[SampleRef]:
    """The samples of a shard as its row in the index has them."""
    assert shard.entry is not None
    rows = shard.entry["samples"]
    return [SampleRef(shard, row["key"], row["offset"], row["bytes"], row["xxh3"]) for row in rows]


def _scan_local(shard: Shard, file: ShardFile) -> Iterator[SampleRef]:
    """Without an index: the samples by their headers. CorruptSample: anything but the canonical layout."""
    data, end = file.read(0, file.num_bytes), file.num_bytes - len(tar.END)
    entries: list[tar.TarEntry] = []
    try:
        if end <= 0 or data[end:] != tar.END:
            raise ValueError(f"{file.num_bytes} bytes, expected samples and {len(tar.END)} zeros at the end")
        entries.extend(tar.read_entries(data, 0, end))
        previous = ""
        for key, members in itertools.groupby(entries, lambda entry: entry.name.partition(".")[0]):
            first, *rest = members
            if key <= previous:
                raise ValueError(f"sample {key} after {previous}, expected rising keys")
            last = rest[-1] if rest else first
            yield SampleRef(shard, key, first.offset, last.end - first.offset, "")
            previous = key
    except ValueError as error:
        key, _, member = entries[-1].name.partition(".") if entries else ("", "", "")
        raise CorruptSample(shard.url, key, member, f"here or after it: {error}") from error


def _scan_remote(shard: Shard, file: ShardFile) -> Iterator[SampleRef]:
    """Without an index: from clip.json to clip.json, one request a sample; the rest is checked when read."""
    offset, key = 0, ""
    try:
        while offset == 0 or offset != file.num_bytes - len(tar.END):
            layout = read_layout(file.read_head(offset))
            found = layout.entries[0].name.partition(".")[0]
            if found <= key:
                raise ValueError(f"sample {found} after {key}, expected rising keys")
            key = found
            yield SampleRef(shard, key, offset, layout.num_bytes, "")
            offset += layout.num_bytes
        if file.read(offset, len(tar.END)) != tar.END:
            raise ValueError(f"expected {len(tar.END)} zeros from byte {offset} to the end")
    except ValueError as error:
        raise CorruptSample(shard.url, key, "", f"here or after it: {error}") from error
