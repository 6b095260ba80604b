"""From URLs to shards and samples: patterns, local files by mmap, remote ones by fsspec, the index."""

from __future__ import annotations

import fnmatch
import glob
import itertools
import mmap
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scanshards import tar
from scanshards.codec import decode_json
from scanshards.errors import CorruptSample
from scanshards.index import INDEX_NAME, parse_index

Urls = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_MAX_PATTERN = 1_000_000


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
    """The bytes of an open shard: a memory map, or ranges fetched from a remote file."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._map: memoryview | None = None
        if is_remote(url):
            self._system, self._path = _filesystem(url)
            self.num_bytes = int(self._system.size(self._path) or 0)
            return
        with open(url, "rb") as file:
            self.num_bytes = os.fstat(file.fileno()).st_size
            if self.num_bytes:  # an empty file cannot be mapped
                self._map = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

    def read(self, offset: int, num_bytes: int) -> memoryview:
        """The bytes from `offset`, fewer if the file ends before."""
        end = min(offset + num_bytes, self.num_bytes)
        if offset >= end:
            return memoryview(b"")
        if self._map is not None:
            return self._map[offset:end]
        return memoryview(self._system.cat_file(self._path, start=offset, end=end))


def list_shards(urls: Urls) -> list[Shard]:
    """The shards that paths, URLs, glob and brace patterns name, in the order given, globs sorted.

    FileNotFoundError: a pattern matches nothing, or a shard that it should match is in the index and not
    there. ValueError: a folder, or a shard named twice. CorruptSample: the index is damaged or omits it.
    """
    indices: dict[str, dict[str, Any] | None] = {}
    shards: list[Shard] = []
    patterns = [urls] if isinstance(urls, str | os.PathLike) else list(urls)
    for pattern in patterns:
        for url in expand_braces(os.fspath(pattern)):
            url = url.removeprefix("file://")
            shards += [_shard(found, indices) for found in _matches(url, indices)]
    seen: set[str] = set()
    for shard in shards:
        if shard.url in seen:
            raise ValueError(f"{shard.url}: named twice, expected every shard once")
        seen.add(shard.url)
    if not shards:
        raise FileNotFoundError('no shards given, expected for example "shards/scannet-*.tar"')
    return shards


def open_shard(shard: Shard) -> tuple[ShardFile, list[SampleRef]]:
    """The shard's bytes and its samples. CorruptSample: length, end or (without an index) headers wrong."""
    file = ShardFile(shard.url)
    if shard.entry is None:
        return file, list(_scan_samples(shard, file))
    expected = shard.entry["bytes"]
    if file.num_bytes != expected:
        what = f"has {file.num_bytes} bytes, expected {expected} as in {INDEX_NAME}"
        raise CorruptSample(shard.url, "", "", what)
    samples = [
        SampleRef(shard, row["key"], row["offset"], row["bytes"], row["xxh3"])
        for row in shard.entry["samples"]
    ]
    end = samples[-1].offset + samples[-1].num_bytes
    if file.read(end, file.num_bytes - end) != tar.END:
        raise CorruptSample(shard.url, "", "", f"from byte {end}, after the last sample, expected only zeros")
    return file, samples


def expand_braces(pattern: str) -> list[str]:
    """`a{1,2}.tar` and `a{000..012}.tar` (zero padding kept) to the names they stand for, in order."""
    parts = _BRACES.split(pattern)
    choices: list[list[str]] = []
    for i, part in enumerate(parts):
        span = _RANGE.fullmatch(part)
        if i % 2 == 0:
            choices.append([part])
        elif span:
            first, last = int(span[1]), int(span[2])
            if not 0 <= last - first < _MAX_PATTERN:
                raise ValueError(f"{pattern!r}: range {{{part}}} is empty or too long")
            width = len(span[1]) if span[1].startswith("0") else 0
            choices.append([f"{number:0{width}d}" for number in range(first, last + 1)])
        else:
            choices.append(part.split(","))
    return ["".join(combination) for combination in itertools.product(*choices)]


def is_remote(url: str) -> bool:
    return "://" in url


def find_index(url: str, indices: dict[str, dict[str, Any] | None]) -> tuple[dict[str, Any], str] | None:
    """(index, the shard's `file` in it) from the shard's folder or the one above; None if there is none.

    `indices` remembers folders already looked at.
    """
    name = url.rpartition("/")[2]
    folder = _folder(url)
    above = _folder(folder)
    for place, file in ((folder, name), (above, f"{folder.rpartition('/')[2]}/{name}")):
        if place not in indices:
            indices[place] = _read_index(place)
        index = indices[place]
        if index is not None:
            return index, file
    return None


def _shard(url: str, indices: dict[str, dict[str, Any] | None]) -> Shard:
    found = find_index(url, indices)
    if found is None:
        return Shard(url, None)
    index, file = found
    entry = next((row for row in index["shards"] if row["file"] == file), None)
    if entry is None:
        what = f"not listed as {file} in its {INDEX_NAME}: no part of that release, move it elsewhere"
        raise CorruptSample(url, "", "", what)
    return Shard(url, entry)


def _matches(url: str, indices: dict[str, dict[str, Any] | None]) -> list[str]:
    """The files that one path or glob pattern means; those that the index lists must all be there."""
    if not glob.has_magic(url):
        if not is_remote(url) and not os.path.isfile(url):
            hint = f'; for training: "{url.rstrip("/")}/scannet-*.tar"' if os.path.isdir(url) else ""
            raise FileNotFoundError(f"{url}: no such shard, expected a .tar file, pattern or URL{hint}")
        return [url]
    if is_remote(url):
        return _remote_matches(url, indices)
    matches = sorted(glob.glob(url))
    if not matches:
        raise FileNotFoundError(f"{url}: no file matches")
    by_folder = {match.rpartition("/")[0]: match for match in matches}
    for match in by_folder.values():
        found = find_index(match, indices)
        for listed in _listed_beside(match, url.rpartition("/")[2], found):
            if listed not in matches:
                raise FileNotFoundError(f"{listed}: listed in {INDEX_NAME}, but the file is missing")
    return matches


def _listed_beside(url: str, pattern: str, found: tuple[dict[str, Any], str] | None) -> list[str]:
    """Shards of the index that lie in the folder of `url` and whose names match the pattern."""
    if found is None:
        return []
    index, file = found
    inside, folder = file.rpartition("/")[0], url[: len(url) - len(url.rpartition("/")[2])]
    rows = [row["file"].rpartition("/") for row in index["shards"]]
    return [folder + name for where, _, name in rows if where == inside and fnmatch.fnmatch(name, pattern)]


def _remote_matches(url: str, indices: dict[str, dict[str, Any] | None]) -> list[str]:
    """Names by the index, since web servers do not list folders; else by the file system's own glob."""
    folder, _, pattern = url.rpartition("/")
    found = find_index(url, indices) if not glob.has_magic(folder) else None
    matches = _listed_beside(url, pattern, found)
    if found is None:
        system, path = _filesystem(url)
        matches = sorted(system.unstrip_protocol(found_path) for found_path in system.glob(path))
    if not matches:
        raise FileNotFoundError(f"{url}: no file matches")
    return matches


def _scan_samples(shard: Shard, file: ShardFile) -> Iterator[SampleRef]:
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


def _folder(url: str) -> str:
    return url.rpartition("/")[0] if is_remote(url) else str(Path(url).absolute().parent)


def _read_index(folder: str) -> dict[str, Any] | None:
    where = f"{folder}/{INDEX_NAME}"
    try:
        if is_remote(where):
            if where.count("/") < 3:  # above the host or bucket
                return None
            system, path = _filesystem(where)
            data = system.cat_file(path)
        else:
            data = Path(where).read_bytes()
    except FileNotFoundError:
        return None
    try:
        value = decode_json(data)
    except ValueError as error:
        raise CorruptSample(where, "", "", f"cannot be read: {error}") from error
    if not isinstance(value, dict) or not {"root_hash", "parameter_hash"} & set(value):
        return None  # another program's index.json
    return parse_index(data, where)


def _filesystem(url: str) -> tuple[Any, str]:
    """The fsspec file system and path of a URL. ImportError, with what to install: no driver for it."""
    import fsspec

    return fsspec.core.url_to_fs(url)
