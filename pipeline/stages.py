"""The per-scan stages: what each reads, what its result depends on, and how one scan goes through it."""

from __future__ import annotations

import importlib
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import xxhash

from pipeline import jobs
from pipeline.code_files import code_files
from pipeline.config import Config
from pipeline.scans import Inventory, ScanEntry
from pipeline.store import Store
from scanshards.write import atomic_write_bytes


@dataclass(frozen=True)
class Stage:
    """One stage; its function is `build` in module `pipeline.<module>`."""

    name: str
    module: str
    sections: tuple[str, ...]
    """Sections of the parameters that shape the result."""
    roles: tuple[str, ...]
    """Files of the scan that are read."""
    upstream: tuple[str, ...]
    """Stages whose groups are read; a scan that one of them rejected is not tried here."""


STAGES = {
    stage.name: stage
    for stage in (
        Stage("clips", "clips", ("clips",), ("sens", "meta"), ()),
        Stage("meshes", "fuse", ("meshes",), ("sens", "meta", "mesh"), ()),
        Stage("bev", "bev", ("bev",), ("meta", "mesh"), ("meshes",)),
        Stage("latents", "latents", ("latents",), (), ("clips", "bev")),
        Stage("texts", "texts", ("texts",), ("meta", "mesh", "segs", "aggregation"), ()),
    )
}


def stores(config: Config) -> dict[str, Store]:
    return {name: Store(config.work_dir / f"{name}.zarr") for name in STAGES}


def run_stage(name: str, inventory: Inventory, config: Config) -> str:
    """Bring one stage's store up to date; returns a line that says what was done."""
    stage, all_stores = STAGES[name], stores(config)
    store = all_stores[name]
    store.create()
    known = {entry.scan_id for entry in inventory.scans}
    for stale in set(store.scan_ids()) - known:
        store.remove(stale)
    constant = _constant_key(stage, inventory, config)
    todo, waiting = [], 0
    for entry in inventory.scans:
        if _set_aside(stage, entry, all_stores):
            waiting += 1
            if store.marker(entry.scan_id) is not None:
                store.remove(entry.scan_id)
            continue
        key = _key(constant, stage, entry, all_stores)
        marker = store.marker(entry.scan_id)
        if marker is None or marker["key"] != key:
            todo.append((entry.scan_id, (name, entry, config, key)))
    results = jobs.run(build_scan, todo, config.dask, name) if todo else []
    _record_times(config.work_dir / "times" / f"{name}.json", todo, results, known)
    rejected = [
        (entry.scan_id, reason) for entry in inventory.scans if (reason := store.rejection(entry.scan_id))
    ]
    line = f"{name}: {len(todo)} built, {len(inventory.scans) - len(todo) - waiting} up to date"
    line += f", {waiting} set aside before" if waiting else ""
    return line + "".join(f"\n  rejected {scan_id}: {reason}" for scan_id, reason in rejected)


def check_current(inventory: Inventory, config: Config) -> None:
    """ValueError unless every store holds what these parameters, this code and these files give."""
    all_stores = stores(config)
    for stage in STAGES.values():
        constant = _constant_key(stage, inventory, config)
        for entry in inventory.scans:
            if _set_aside(stage, entry, all_stores):
                continue
            marker = all_stores[stage.name].marker(entry.scan_id)
            if marker is None or marker["key"] != _key(constant, stage, entry, all_stores):
                state = "is missing" if marker is None else "was made from other parameters, code or files"
                raise ValueError(
                    f"{stage.name} of {entry.scan_id} {state}; run `python -m pipeline.run {stage.name}` "
                    "(and the stages after it) with the same parameters first"
                )


def _set_aside(stage: Stage, entry: ScanEntry, all_stores: dict[str, Store]) -> bool:
    """Whether a stage before this one rejected the scan. ValueError: one has not seen it yet."""
    markers = {up: all_stores[up].marker(entry.scan_id) for up in stage.upstream}
    for up, marker in markers.items():
        if marker is None and not _set_aside(STAGES[up], entry, all_stores):
            raise ValueError(
                f"{stage.name}: got no {up} of {entry.scan_id}; run `python -m pipeline.run {up}` first"
            )
    return any(marker is None or marker["rejection"] for marker in markers.values())


def build_scan(name: str, entry: ScanEntry, config: Config, key: str) -> float:
    """Run one stage on one scan (in a worker process); returns the seconds it took."""
    stage, all_stores = STAGES[name], stores(config)
    build = importlib.import_module(f"pipeline.{stage.module}").build
    inputs = {up: all_stores[up].read(entry.scan_id) for up in stage.upstream}
    start = time.perf_counter()
    all_stores[name].build(entry.scan_id, key, lambda group: build(entry, group, config, inputs))
    return time.perf_counter() - start


def _constant_key(stage: Stage, inventory: Inventory, config: Config) -> str:
    """The part of the key that all scans share: parameters, code, label table, annotations, codec weights."""
    digest = xxhash.xxh3_64(config.hash(*stage.sections).encode())
    for path in code_files(f"pipeline.{stage.module}"):
        digest.update(path.read_bytes())
    if stage.name == "texts":
        stamps = [asdict(s) for s in (*inventory.annotations, inventory.labels_stamp) if s is not None]
        digest.update(json.dumps(stamps).encode())
    if stage.name == "latents":
        digest.update(importlib.import_module("pipeline.latents").weights_key(config.latents).encode())
    return digest.hexdigest()


def _key(constant: str, stage: Stage, entry: ScanEntry, all_stores: dict[str, Store]) -> str:
    stamps = [asdict(entry.files[role]) for role in stage.roles if role in entry.files]
    parts = {
        "constant": constant,
        "files": stamps,
        "split": entry.split if stage.name == "texts" else "",
        "upstream": [all_stores[up].key(entry.scan_id) for up in stage.upstream],
    }
    return xxhash.xxh3_64_hexdigest(json.dumps(parts, sort_keys=True).encode())


def _record_times(path: Path, todo: jobs.Items, results: list[float], known: set[str]) -> None:
    """Keep the seconds per scan of the last build, for the report."""
    times = json.loads(path.read_text()) if path.exists() else {}
    times.update({scan_id: round(seconds, 4) for (scan_id, _), seconds in zip(todo, results, strict=True)})
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {scan_id: times[scan_id] for scan_id in sorted(times) if scan_id in known}
    atomic_write_bytes(path, (json.dumps(kept, indent=1) + "\n").encode())
