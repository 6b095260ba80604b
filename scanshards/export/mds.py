"""MosaicML Streaming's MDS: OUT/train and OUT/val, each with index.json and shard.00000.mds and so on.

StreamingDataset(local="OUT", split="train")[0]["frame00"]   a PIL picture

A shard holds a fixed number of clips. Its bytes: number of samples n, n + 1 offsets (both uint32,
little-endian, from the start of the file), a JSON text of the columns, the samples. A sample: sizes of the
columns without a fixed size (uint32), then the columns, by name.
"""

from __future__ import annotations

import itertools
import json
import struct
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import xxhash

from scanshards import codec, schema
from scanshards.clip import Clip
from scanshards.export.camera import Raster
from scanshards.export.folder import ExportFolder

CLIPS_PER_SHARD = 8
"""About 100 MB. With every member at its size limit 8 clips still stay below the 4 GiB that offsets reach."""
PATCH_SIDE = schema.FRAME_SIZE // 27
VERSION = 2
HASH = "xxh3_64"

_DEPTH_SHAPE = (schema.NUM_FRAMES, schema.FRAME_SIZE, schema.FRAME_SIZE)
_PATCH_SHAPE = (schema.NUM_FRAMES, PATCH_SIDE, PATCH_SIDE, 3)


def _fixed(dtype: str, shape: tuple[int, ...]) -> tuple[str, int]:
    """Encoding and size of an array of one shape."""
    encoding = f"ndarray:{dtype}:{','.join(map(str, shape))}"
    return encoding, int(np.prod(shape)) * np.dtype(dtype).itemsize


COLUMNS: dict[str, tuple[str, int | None]] = dict(
    sorted(
        {
            "key": ("str", None),
            "meta": ("json", None),
            **{name.removesuffix(".jpg"): ("jpeg", None) for name in schema.FRAME_NAMES},
            "depth": _fixed("uint16", _DEPTH_SHAPE),
            "patch_coords": _fixed("float32", _PATCH_SHAPE),
            "bev": ("png", None),
            "bev_valid": ("png", None),
            "latents": ("ndarray:float16", None),
            "bev_latents": ("ndarray:float16", None),
            "objects": ("json", None),
            "texts": ("json", None),
        }.items()
    )
)
"""Column -> (encoding, size in bytes or None), in the order in which MDS stores them."""

_CONFIG = {
    "version": VERSION,
    "format": "mds",
    "compression": None,
    "hashes": [HASH],
    "size_limit": None,
    "column_names": list(COLUMNS),
    "column_encodings": [encoding for encoding, _ in COLUMNS.values()],
    "column_sizes": [size for _, size in COLUMNS.values()],
}


def write(clips: Iterable[Clip], folder: ExportFolder, raster: Raster) -> dict[str, Any]:
    """Write all clips in their order, each split for itself; returns what `export.json` has to say."""
    assert raster == "crop"
    pending: dict[str, list[Clip]] = {"train": [], "val": []}
    shards: dict[str, list[dict[str, Any]]] = {"train": [], "val": []}
    for clip in clips:
        batch = pending[clip.split]
        batch.append(clip)
        if len(batch) == CLIPS_PER_SHARD:
            shards[clip.split].append(_write_shard(batch, clip.split, len(shards[clip.split]), folder))
            batch.clear()
    for split, batch in pending.items():
        if batch:
            shards[split].append(_write_shard(batch, split, len(shards[split]), folder))
        if shards[split]:
            index = {"version": VERSION, "shards": shards[split]}
            folder.file(f"{split}/index.json", json.dumps(index, sort_keys=True).encode())
    return {"samples": {split: sum(row["samples"] for row in rows) for split, rows in shards.items()}}


def _write_shard(batch: list[Clip], split: str, number: int, folder: ExportFolder) -> dict[str, Any]:
    """Write one shard unless it is there; returns its row of the index."""
    basename = f"shard.{number:05d}.mds"
    name = f"{split}/{basename}"
    if folder.has(name):
        data = (folder.out / name).read_bytes()
    else:
        data = _shard_bytes([_sample_bytes(clip) for clip in batch])
        folder.file(name, data)
    file = {
        "basename": basename,
        "bytes": len(data),
        "hashes": {HASH: xxhash.xxh3_64_hexdigest(data)},
    }
    return {**_CONFIG, "samples": len(batch), "raw_data": file, "zip_data": None}


def _shard_bytes(samples: list[bytes]) -> bytes:
    config = json.dumps(_CONFIG, sort_keys=True).encode()
    start = 4 + 4 * (len(samples) + 1) + len(config)
    offsets = itertools.accumulate(map(len, samples), initial=start)
    head = struct.pack(f"<{len(samples) + 2}I", len(samples), *offsets)
    return b"".join([head, config, *samples])


def _sample_bytes(clip: Clip) -> bytes:
    values = dict(_values(clip))
    ordered = [(size, values[name]) for name, (_, size) in COLUMNS.items()]
    for size, data in ordered:
        assert size in (None, len(data)), f"{clip.key}: {len(data)} bytes in a column of {size}"
    sizes = [len(data) for size, data in ordered if size is None]
    return struct.pack(f"<{len(sizes)}I", *sizes) + b"".join(data for _, data in ordered)


def _values(clip: Clip) -> Iterator[tuple[str, bytes]]:
    """Column -> encoded value. Pictures are the stored files."""
    yield "key", clip.key.encode()
    yield "meta", codec.encode_json(clip.meta)
    for name, data in zip(schema.FRAME_NAMES, clip.frame_jpegs(), strict=True):
        yield name.removesuffix(".jpg"), data
    yield "depth", clip.depth.astype("<u2", copy=False).tobytes()
    yield "patch_coords", clip.patch_coords().astype("<f4", copy=False).tobytes()
    yield "bev", codec.encode_png(clip.bev)
    yield "bev_valid", codec.encode_png(clip.bev_valid.astype(np.uint8) * 255)
    yield "latents", _array(clip.latents)
    yield "bev_latents", _array(clip.bev_latents)
    yield "objects", codec.encode_json(clip.objects)
    yield "texts", codec.encode_json(clip.texts)


def _array(array: np.ndarray) -> bytes:
    """`ndarray:float16`: number of axes x 4 (the 0 added to it: sizes are uint8), sizes, values."""
    assert array.dtype == np.float16 and max(array.shape) < 256
    return bytes([array.ndim << 2, *array.shape]) + array.astype("<f2", copy=False).tobytes()
