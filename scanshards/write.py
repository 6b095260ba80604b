"""Write one shard: the same samples give the same bytes; the file appears whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import xxhash

from scanshards import codec, schema, tar

_XXH3_ZEROS = b"0" * 16
_XXH3_TAIL = len(_XXH3_ZEROS) + len(b'"}')


@dataclass(frozen=True)
class Sample:
    """One sample before it is written."""

    key: str
    """`{scan_id}-{clip:02d}`"""
    meta: dict[str, Any]
    """clip.json without `format_version`, `members` and `xxh3`; arrays may stand for nested lists."""
    members: dict[str, bytes]
    """The encoded members in schema order, all but clip.json."""


def write_shard(path: str | os.PathLike[str], samples: Iterable[Sample]) -> dict[str, Any]:
    """Write the samples (keys increasing) to a tar at `path`; returns its entry for the index.

    The entry holds file (name only), bytes, sha256 and samples (key, offset, bytes, xxh3); the caller adds
    split and inputs. ValueError: a sample breaks the format, keys do not increase, there is no sample.
    """
    path = Path(path)
    digest = hashlib.sha256()
    entries: list[dict[str, Any]] = []
    offset = 0
    with _replacing(path) as file:
        for sample in samples:
            if entries and sample.key <= entries[-1]["key"]:
                last = entries[-1]["key"]
                raise ValueError(f"{path}: got sample {sample.key} after {last}, expected rising keys")
            data = sample_bytes(sample)
            entries.append(
                {
                    "key": sample.key,
                    "offset": offset,
                    "bytes": len(data),
                    "xxh3": xxhash.xxh3_64_hexdigest(data),
                }
            )
            file.write(data)
            digest.update(data)
            offset += len(data)
        if not entries:
            raise ValueError(f"{path}: got no sample, expected at least one; empty shards are not written")
        file.write(tar.END)
        digest.update(tar.END)
    size = offset + len(tar.END)
    return {"file": path.name, "bytes": size, "sha256": digest.hexdigest(), "samples": entries}


def sample_bytes(sample: Sample) -> bytes:
    """The sample as it stands in a shard: header, content and zero padding of each member, in order."""
    _check_sample(sample)
    parts: list[bytes] = []
    for name, data in [(schema.CLIP_JSON, clip_json(sample)), *sample.members.items()]:
        parts += [tar.header(f"{sample.key}.{name}", len(data)), data, bytes(-len(data) % tar.BLOCK)]
    return b"".join(parts)


def clip_json(sample: Sample) -> bytes:
    """The sample's clip.json with the hashes of the other members and, last, its own."""
    members = [
        {"name": name, "bytes": len(data), "xxh3": xxhash.xxh3_64_hexdigest(data)}
        for name, data in sample.members.items()
    ]
    meta = {
        "format_version": schema.FORMAT_VERSION,
        **sample.meta,
        "members": members,
        "xxh3": _XXH3_ZEROS.decode(),
    }
    where = f"sample {sample.key}, {schema.CLIP_JSON}"
    meta = codec.check_json(schema.CLIP_JSON, meta, where, strict=True)
    try:
        codec.check_clip(meta, sample.key)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    data = codec.encode_json(meta)
    return data[:-_XXH3_TAIL] + own_hash(data).encode() + data[-2:]


def own_hash(clip_json_bytes: bytes) -> str:
    """XXH3-64 hex of clip.json with the 16 digits at its end replaced by zeros."""
    digest = xxhash.xxh3_64(clip_json_bytes[:-_XXH3_TAIL])
    digest.update(_XXH3_ZEROS + clip_json_bytes[-2:])
    return digest.hexdigest()


def atomic_write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a whole file: temporary name in the same folder, fsync, rename, fsync of the folder."""
    with _replacing(Path(path)) as file:
        file.write(data)


def _check_sample(sample: Sample) -> None:
    """ValueError: a bad key, or members that are not exactly those of the format in its order."""
    if not schema.KEY_PATTERN.fullmatch(sample.key):
        raise ValueError(
            f"sample key {sample.key!r}: expected scan id, '-' and two digits, "
            "of letters, digits, '_' and '-', at most 80 characters"
        )
    names = tuple(sample.members)
    allowed = tuple(
        name
        for name, member in schema.MEMBERS.items()
        if name != schema.CLIP_JSON and (not member.optional or name in names)
    )
    if names != allowed:
        wrong = next((n for n in allowed if n not in names), None) or next(
            n for n, a in zip(names, (*allowed, ""), strict=False) if n != a
        )
        raise ValueError(f"sample {sample.key}: member {wrong!r} is missing, unknown or out of order")
    for name, data in sample.members.items():
        where = f"sample {sample.key}, {name}"
        try:
            codec.peek(schema.MEMBERS[name], data)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        if name in schema.TABLES:
            codec.check_json(name, codec.decode_json(data), where, strict=True)


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of `path` when the block ends, or leaves no trace if it fails."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)
