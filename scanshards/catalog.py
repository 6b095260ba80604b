"""What other programs need to find their way in a release, written beside its shards.

write_catalogue("shards")

- `README.md`: a dataset card; with its front matter `datasets.load_dataset("shards")` knows splits and types;
- `croissant.json`: the same for Croissant (mlcommons.org/croissant), with a hash for every shard;
- `.nv-meta/` and `NAME.tar.idx`: metadata of NVIDIA's Megatron Energon.

All are functions of index.json alone: the same release has the same bytes.
"""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

from scanshards.catalog_card import SPLITS, Index, dataset_card, shards_of
from scanshards.catalog_croissant import croissant
from scanshards.index import load_index
from scanshards.write import atomic_write_bytes

CARD, CROISSANT, ENERGON = "README.md", "croissant.json", ".nv-meta"
ENERGON_INFO = f"{ENERGON}/.info.json"
ENERGON_VERSION = "7.4.1"
"""Of Megatron Energon, whose own preparation gives the same `.info.json` and `.tar.idx` bytes."""
INDEX_SUFFIX = ".idx"


def write_catalogue(folder: str | os.PathLike[str]) -> list[str]:
    """Bring all files of the catalogue up to date with the folder's index.json; returns those written.

    A file that is right is left alone; a `.tar.idx` of a shard that is gone is removed. Raises what
    `load_index` raises.
    """
    out = Path(folder)
    files = catalogue(load_index(out))
    for place in (out, *(out / split for split in SPLITS)):
        for path in place.glob(f"*.tar{INDEX_SUFFIX}"):
            if path.relative_to(out).as_posix() not in files:
                path.unlink()
    written = []
    for name, data in files.items():
        path = out / name
        if not path.is_file() or path.read_bytes() != data:
            path.parent.mkdir(exist_ok=True)
            atomic_write_bytes(path, data)
            written.append(name)
    return written


def retract(folder: str | os.PathLike[str]) -> None:
    """Before shards change: Energon, which has no hashes, then refuses the folder until all is written."""
    (Path(folder) / ENERGON_INFO).unlink(missing_ok=True)


def catalogue(index: Index) -> dict[str, bytes]:
    """All files of the catalogue in the order of writing: path relative to index.json -> content."""
    croissant_text = json.dumps(croissant(index), ensure_ascii=False, allow_nan=False, indent=1)
    return {
        CARD: dataset_card(index).encode(),
        CROISSANT: f"{croissant_text}\n".encode(),
        **energon(index),
    }


def energon(index: Index) -> dict[str, bytes]:
    """Megatron Energon's metadata: path -> content; last the file without which it refuses the folder.

    `dataset.yaml` gives whole samples as dicts (a cooker of the training code takes what it needs);
    `picture.yaml` gives the picture from above alone, which needs no code.
    """
    counts = {shard["file"]: len(shard["samples"]) for shard in index["shards"]}
    parts = {split: shards_of(index, split) for split in SPLITS}
    crude = {"__module__": "megatron.energon", "__class__": "CrudeWebdataset"}
    sample_type = {"__module__": "megatron.energon", "__class__": "ImageSample"}
    files = {}
    for shard in index["shards"]:
        samples = shard["samples"]
        offsets = [sample["offset"] for sample in samples]
        end = offsets[-1] + samples[-1]["bytes"]
        files[f"{shard['file']}{INDEX_SUFFIX}"] = struct.pack(f"<{len(offsets) + 1}Q", *offsets, end)
    settings = {
        f"{ENERGON}/dataset.yaml": crude,
        f"{ENERGON}/picture.yaml": {"sample_type": sample_type, "field_map": {"image": "bev.png"}},
        f"{ENERGON}/split.yaml": {"split_parts": {**parts, "test": []}, "exclude": []},
        ENERGON_INFO: {"energon_version": ENERGON_VERSION, "shard_counts": counts},
    }
    return files | {name: json.dumps(value, indent=2).encode() for name, value in settings.items()}
