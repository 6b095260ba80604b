"""Stores with small made-up results of every stage, for tests of what joins them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
import zarr
from sens_room import Recording, write_scan

from pipeline import clips
from pipeline.config import Config, load_config
from pipeline.errors import ScanError
from pipeline.scans import ScanEntry
from pipeline.store import Store

STAGES = ("clips", "meshes", "bev", "latents", "texts")
BEV = {
    "present": True,
    "metres_per_pixel": 0.02,
    "world_from_bev": [[0.02, 0, 0, -4], [0, -0.02, 0, 4], [0, 0, 1, 0], [0, 0, 0, 1]],
    "height_range_m": [0.0, 2.5],
    "valid_fraction": 0.5,
    "renderer": "made up",
}
TEXT = {
    "id": "q0",
    "task": "sqa3d",
    "question_type": "what",
    "situation": "I stand here.",
    "question": "What is left of me?",
    "answers": ["table"],
    "target_ids": [],
    "box": [],
}
OBJECTS = {
    "boxes": [[0.0, 0.0, 0.5, 1.0, 1.0, 1.0]],
    "instance_ids": [3],
    "labels": ["table"],
    "nyu40_ids": [7],
    "sources": ["gt"],
    "scores": [1.0],
}


def passport(size: int) -> dict[str, Any]:
    return {
        "codec": "tiny",
        "model_id": "made up",
        "weights_sha256": "0" * 64,
        "scaling_factor": 1.0,
        "shift_factor": 0.0,
        "input_width": size,
        "input_height": size,
        "filter": "bilinear",
        "dtype": "float32",
        "posterior": True,
    }


def config_of(root: Path, *overrides: str) -> Config:
    places = [f"work={root / 'work'}", f"shards.out={root / 'shards'}", "dask.scheduler=none"]
    return load_config([*places, *overrides], None)


def stores_of(root: Path) -> dict[str, Store]:
    stores = {name: Store(root / "work" / f"{name}.zarr") for name in STAGES}
    for store in stores.values():
        store.create()
    return stores


def rng_of(scan_id: str) -> np.random.Generator:
    return np.random.default_rng(xxhash.xxh3_64_intdigest(scan_id.encode()))


def add_scan(root: Path, scan_id: str, *, split: str = "train", **bad: str) -> ScanEntry:
    """A scan that has been through all stages; `stage="reason"` makes that stage reject it."""
    stores = stores_of(root)
    seed = int(rng_of(scan_id).integers(200))
    entry = replace(write_scan(root / "scans", scan_id, Recording(8, seed=seed)), split=split)
    fills = {
        "clips": lambda group: clips.build(entry, group, config_of(root), {}),
        "meshes": lambda group: group.attrs.update({"source": "scannet"}),
        "bev": lambda group: fill_bev(group, scan_id),
        "latents": lambda group: fill_latents(group, scan_id),
        "texts": lambda group: fill_texts(group, scan_id),
    }
    for name, fill in fills.items():
        if name in bad:
            stores[name].build(scan_id, "key", refuse(bad[name]))
            if name in ("clips", "meshes", "bev"):
                break
        else:
            stores[name].build(scan_id, "key", fill)
    return entry


def refuse(reason: str):
    def fill(group: zarr.Group) -> None:
        raise ScanError(reason)

    return fill


def fill_bev(group: zarr.Group, scan_id: str, present: bool = True) -> None:
    rng = rng_of(scan_id)
    valid = np.zeros((432, 432), bool)
    valid[100:300, 50:400] = True
    picture = rng.integers(0, 255, (432, 432, 3), np.uint8) * valid[..., None]
    group.create_array("bev", data=picture.astype(np.uint8), chunks=picture.shape)
    group.create_array("valid", data=valid, chunks=valid.shape)
    group.attrs["bev"] = BEV | {"present": present}


def fill_latents(group: zarr.Group, scan_id: str, num_clips: int = 1) -> None:
    rng = rng_of(scan_id)
    for k in range(num_clips):
        views = rng.normal(size=(32, 2, 16, 27, 27)).astype(np.float16)
        group.create_group(f"{k:02d}").create_array("latents", data=views, chunks=views.shape)
    bev = rng.normal(size=(2, 16, 54, 54)).astype(np.float16)
    group.create_array("bev_latents", data=bev, chunks=bev.shape)
    group.attrs["passport"] = passport(216)
    group.attrs["bev_passport"] = passport(432)


def fill_texts(group: zarr.Group, scan_id: str) -> None:
    group.attrs["texts"] = [TEXT | {"id": f"{scan_id}-q0"}]
    group.attrs["objects"] = OBJECTS
    group.attrs["inputs"] = [{"name": "ScanQA.json", "bytes": 10, "xxh3": "0" * 16}]
    group.attrs["missing"] = []
