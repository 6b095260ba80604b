"""`index.json`: what a folder of shards holds, with a hash for every byte of it (docs/format.md)."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numcodecs
import numpy as np

import scanshards
from scanshards import codec, schema
from scanshards.conform import conform
from scanshards.errors import CorruptSample
from scanshards.tar import END
from scanshards.write import atomic_write_bytes

INDEX_NAME = "index.json"

_FILE_PATTERN = re.compile(r"(?:\w[\w.-]*/)?\w[\w.-]*\.tar", re.ASCII)


def build_index(
    dataset: str,
    parameter_hash: str,
    shards: Iterable[Mapping[str, Any]],
    rejected: Iterable[Mapping[str, Any]],
) -> dict[str, Any]:
    """The content of index.json, shards by file name, rejected scans by id.

    A shard is the entry that `write_shard` returned with `file` relative to the index, `split` and
    `inputs`. ValueError: entries do not have the format's keys or contradict themselves.
    """
    shards = sorted((dict(shard) for shard in shards), key=lambda shard: shard["file"])
    samples = [sample for shard in shards for sample in shard["samples"]]
    index = {
        "format_version": schema.FORMAT_VERSION,
        "dataset": dataset,
        "parameter_hash": parameter_hash,
        "versions": _versions(),
        "shards": shards,
        "totals": {
            "shards": len(shards),
            "samples": len(samples),
            "scans": len({sample["key"].rpartition("-")[0] for sample in samples}),
            "bytes": sum(shard["bytes"] for shard in shards),
        },
        "rejected": sorted((dict(scan) for scan in rejected), key=lambda scan: scan["scan_id"]),
        "root_hash": root_hash(shards),
    }
    index = conform(schema.INDEX_FIELDS, index, INDEX_NAME, strict=True)
    _check(index)
    return index


def root_hash(shards: Iterable[Mapping[str, Any]]) -> str:
    """SHA-256 hex of the lines `{sha256}  {file}\\n`, sorted by file: the listing that `sha256sum` prints."""
    lines = [f"{s['sha256']}  {s['file']}\n" for s in sorted(shards, key=lambda shard: shard["file"])]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def write_index(directory: str | os.PathLike[str], index: Mapping[str, Any]) -> None:
    """Put index.json into the folder, whole or not at all."""
    text = json.dumps(index, ensure_ascii=False, allow_nan=False, indent=1)
    atomic_write_bytes(Path(directory) / INDEX_NAME, f"{text}\n".encode())


def load_index(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """Read and check index.json of a local folder. FileNotFoundError: none; CorruptSample: damaged."""
    path = Path(directory) / INDEX_NAME
    if not path.is_file():
        raise FileNotFoundError(
            f"{directory}: got no {INDEX_NAME}, expected the folder of a release; name its shards instead"
        )
    return parse_index(path.read_bytes(), str(path))


def parse_index(data: bytes, where: str) -> dict[str, Any]:
    """index.json from its bytes. CorruptSample: not JSON, another format version, contradicts itself."""
    try:
        value = codec.decode_json(data)
        version = value.get("format_version") if isinstance(value, dict) else None
        if version != schema.FORMAT_VERSION:
            raise ValueError(
                f"got format_version {version!r}, expected {schema.FORMAT_VERSION}; "
                "a newer scanshards may read it (pip install -U scanshards)"
            )
        index = conform(schema.INDEX_FIELDS, value, INDEX_NAME)
        _check(index)
    except ValueError as error:
        raise CorruptSample(where, "", "", str(error)) from error
    return index


def _check(index: Mapping[str, Any]) -> None:
    """ValueError: sample ranges do not fill their shard, a name repeats, the root hash is another."""
    files: set[str] = set()
    keys: set[str] = set()
    for shard in index["shards"]:
        file = shard["file"]
        if not _FILE_PATTERN.fullmatch(file) or file in files:
            raise ValueError(f"shard file {file!r}: expected a new name NAME.tar or FOLDER/NAME.tar")
        files.add(file)
        if not schema.SHA256_PATTERN.fullmatch(shard["sha256"]) or shard["split"] not in ("train", "val"):
            raise ValueError(f"{file}: got sha256 {shard['sha256']!r} and split {shard['split']!r}")
        _check_samples(shard, keys)
    got = root_hash(index["shards"])
    if got != index["root_hash"]:
        raise ValueError(f"root_hash is {index['root_hash']}, expected {got} from the shard hashes")
    totals = {
        "shards": len(files),
        "samples": len(keys),
        "scans": len({key.rpartition("-")[0] for key in keys}),
        "bytes": sum(shard["bytes"] for shard in index["shards"]),
    }
    if totals != index["totals"]:
        raise ValueError(f"totals are {index['totals']}, expected {totals}")


def _check_samples(shard: Mapping[str, Any], keys: set[str]) -> None:
    end = 0
    for sample in shard["samples"]:
        key = sample["key"]
        if not schema.KEY_PATTERN.fullmatch(key) or key in keys:
            raise ValueError(f"{shard['file']}: got sample key {key!r}, expected a new, valid one")
        if sample["offset"] != end or sample["bytes"] < 1:
            raise ValueError(f"{shard['file']}: sample {key} at byte {sample['offset']}, expected {end}")
        if not schema.HASH_PATTERN.fullmatch(sample["xxh3"]):
            raise ValueError(f"{shard['file']}: sample {key} has xxh3 {sample['xxh3']!r}")
        keys.add(key)
        end += sample["bytes"]
    if not shard["samples"] or shard["bytes"] != end + len(END):
        raise ValueError(f"{shard['file']}: {shard['bytes']} bytes, its samples call for {end + len(END)}")


def _versions() -> dict[str, str]:
    return {
        "scanshards": scanshards.__version__,
        "cv2": cv2.__version__,
        "numcodecs": numcodecs.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
    }
