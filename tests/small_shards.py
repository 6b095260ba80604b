"""Small whole samples for tests that read thousands of times: the golden shard's members under new keys."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import scanshards
from scanshards import codec, schema, tar
from scanshards.index import build_index, write_index
from scanshards.write import Sample, clip_json, own_hash, write_shard

GOLDEN = Path(__file__).parent / "golden" / "v1" / "scannet-000000.tar"


@cache
def golden_members() -> dict[str, bytes]:
    """All but clip.json."""
    (clip,) = scanshards.open(GOLDEN)
    return {name: bytes(clip.stored(name)) for name in clip.member_bytes if name != schema.CLIP_JSON}


def small_sample(scan_id: str = "small0", **members: bytes) -> Sample:
    """One megabyte; members by name with `_` for `.` replaced, in whatever state they are."""
    (clip,) = scanshards.open(GOLDEN)
    stored = dict(golden_members())
    for name, data in members.items():
        (target,) = (known for known in stored if known.replace(".", "_") == name)
        stored[target] = data
    meta = {
        name: value for name, value in clip.meta.items() if name not in ("format_version", "members", "xxh3")
    }
    return Sample(f"{scan_id}-00", meta | {"scan_id": scan_id}, stored)


def small_release(folder: Path) -> Path:
    """A release of one shard with two samples; returns the shard."""
    path = folder / "scannet-000000.tar"
    entry = write_shard(path, [small_sample("small0"), small_sample("small1")])
    write_index(folder, build_index("golden", "0" * 16, [entry | {"split": "train", "inputs": ""}], []))
    return path


def raw_shard(path: Path, sample: Sample, *, meta: dict[str, Any] | None = None) -> Path:
    """Write a sample with true hashes whatever its members hold; meta: put into clip.json as it is."""
    first = clip_json(sample)
    if meta is not None:
        first = sealed(codec.decode_json(first) | meta)
    write_pieces(path, sample.key, {schema.CLIP_JSON: first, **sample.members})
    return path


def sealed(meta: dict[str, Any]) -> bytes:
    """clip.json with its own hash at the end."""
    data = codec.encode_json({**{k: v for k, v in meta.items() if k != "xxh3"}, "xxh3": "0" * 16})
    return data[:-18] + own_hash(data).encode() + data[-2:]


def write_pieces(path: Path, key: str, members: dict[str, bytes]) -> None:
    """A shard of one sample with these members in this order."""
    parts = []
    for name, data in members.items():
        parts += [tar.header(f"{key}.{name}", len(data)), data, bytes(-len(data) % tar.BLOCK)]
    path.write_bytes(b"".join(parts) + tar.END)
