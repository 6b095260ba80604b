"""From paths, URLs and patterns to shards and their samples, by the index where there is one."""

from __future__ import annotations

import fnmatch
import glob
import itertools
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from scanshards.codec import decode_json
from scanshards.errors import CorruptSample
from scanshards.index import INDEX_NAME, parse_index
from scanshards.remote import FsspecFile, RemoteOptions, is_http, is_remote, open_remote
from scanshards.shardfile import LOCAL, Shard

Urls = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_MAX_PATTERN = 1_000_000
_MAX_INDEX_BYTES = 1 << 29


def list_shards(urls: Urls, remote: RemoteOptions = LOCAL) -> list[Shard]:
    """The shards that paths, URLs, glob and brace patterns name, in the order given, globs sorted.

    FileNotFoundError: a pattern matches nothing, or a shard that it should match is in the index and not
    there. ValueError: a folder, or a shard named twice. CorruptSample: the index is damaged or omits it.
    PermissionError, RemoteError: a server refuses, or cannot be reached.
    """
    indices = Indices(remote)
    shards: list[Shard] = []
    patterns = [urls] if isinstance(urls, str | os.PathLike) else list(urls)
    for pattern in patterns:
        for url in expand_braces(os.fspath(pattern)):
            url = url.removeprefix("file://")
            shards += [indices.shard(found) for found in _matches(url, indices)]
    seen: set[str] = set()
    for shard in shards:
        if shard.url in seen:
            raise ValueError(f"{shard.url}: named twice, expected every shard once")
        seen.add(shard.url)
    if not shards:
        raise FileNotFoundError('no shards given, expected for example "shards/scannet-*.tar"')
    return shards


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


class Indices:
    """The index.json files of the folders looked at so far."""

    def __init__(self, remote: RemoteOptions) -> None:
        self.remote = remote
        self._known: dict[str, dict[str, Any] | None] = {}

    def find(self, url: str) -> tuple[dict[str, Any], str] | None:
        """(index, the shard's `file` in it) from the shard's folder or the one above; None if there is none.

        PermissionError: there may be one, but it cannot be read.
        """
        name, folder = _name(url), _folder(url)
        refused: list[PermissionError] = []
        for place, file in ((folder, name), (_folder(folder), f"{_name(folder)}/{name}")):
            try:
                index = self._at(place)
            except PermissionError as error:  # what some stores say of a file that does not exist
                refused.append(error)
                continue
            if index is not None:
                return index, file
        if refused:
            raise refused[0]
        return None

    def shard(self, url: str) -> Shard:
        """The shard with its row. CorruptSample: its index does not list it."""
        found = self.find(url)
        if found is None:
            return Shard(url, None)
        index, file = found
        entry = next((row for row in index["shards"] if row["file"] == file), None)
        if entry is None:
            what = f"not listed as {file} in its {INDEX_NAME}: no part of that release, move it elsewhere"
            raise CorruptSample(url, "", "", what)
        return Shard(url, entry)

    def _at(self, folder: str) -> dict[str, Any] | None:
        if folder not in self._known:
            self._known[folder] = _read_index(folder, self.remote)
        return self._known[folder]


def _matches(url: str, indices: Indices) -> list[str]:
    """The files that one path or glob pattern means; those that the index lists must all be there."""
    if not _is_pattern(url):
        is_folder = url.endswith("/") if is_remote(url) else os.path.isdir(url)
        if is_folder or (not is_remote(url) and not os.path.isfile(url)):
            hint = f'; for training: "{url.rstrip("/")}/scannet-*.tar"' if is_folder else ""
            raise FileNotFoundError(f"{url}: no such shard, expected a .tar file, pattern or URL{hint}")
        return [url]
    if is_remote(url):
        return _remote_matches(url, indices)
    matches = sorted(glob.glob(url))
    if not matches:
        raise FileNotFoundError(f"{url}: no file matches")
    by_folder = {match.rpartition("/")[0]: match for match in matches}
    for match in by_folder.values():
        found = indices.find(match)
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


def _remote_matches(url: str, indices: Indices) -> list[str]:
    """Names by the index, since web servers do not list folders; else by the file system's own glob."""
    folder, _, pattern = url.rpartition("/")
    found = None if _is_pattern(folder) else indices.find(url)
    if found is not None:
        matches = _listed_beside(url, pattern, found)
    elif is_http(url):
        what = f"got a pattern, but no {INDEX_NAME} there says which shards exist"
        raise FileNotFoundError(f'{url}: {what}; name them all, as in "scannet-{{000000..000012}}.tar"')
    else:
        matches = FsspecFile(url, indices.remote).names()
    if not matches:
        raise FileNotFoundError(f"{url}: no file matches")
    return matches


def _is_pattern(url: str) -> bool:
    if not is_remote(url):
        return glob.has_magic(url)
    path = "/".join(url.split("/")[3:])  # [::1] is a host
    return bool(set(path) & set("*[" if is_http(url) else "*[?"))


def _name(url: str) -> str:
    return _path(url).rpartition("/")[2]


def _folder(url: str) -> str:
    return _path(url).rpartition("/")[0] if is_remote(url) else str(Path(url).absolute().parent)


def _path(url: str) -> str:
    """Without the query of an http URL."""
    return url.partition("?")[0] if is_http(url) else url


def _read_index(folder: str, remote: RemoteOptions) -> dict[str, Any] | None:
    where = f"{folder}/{INDEX_NAME}"
    if is_remote(where) and where.count("/") < 3:  # above the host or bucket
        return None
    try:
        if is_remote(where):
            data = open_remote(where, remote).read_all(_MAX_INDEX_BYTES)
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
