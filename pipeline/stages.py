"""The per-scan stages: what each reads, what its result depends on, and how one scan goes through it."""

from __future__ import annotations

import functools
import importlib
import json
import resource
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import xxhash

from pipeline import jobs, timing
from pipeline.code_files import code_files
from pipeline.config import Config
from pipeline.errors import ScanError
from pipeline.scans import Inventory, ScanEntry
from pipeline.store import SUFFIX, Store
from pipeline.weights import weights_key
from scanshards.write import atomic_write_bytes

Times = dict[str, Any]
"""`seconds` that a scan took, of these the seconds of each of its `parts` by name, and `peak_mb`, the most
memory that its worker process has held so far."""
Todo = list[tuple[str, tuple[str, ScanEntry, Config, str]]]
"""Items of `jobs.run`: (scan id, arguments of `build_scan`)."""


@dataclass(frozen=True)
class Stage:
    """One stage; its function is `build` in module `pipeline.<module>`."""

    name: str
    module: str
    sections: tuple[str, ...]
    """Sections of the parameters that shape the result, and single fields (`section.field`)."""
    roles: tuple[str, ...]
    """Files of the scan that are read."""
    upstream: tuple[str, ...]
    """Stages whose groups are read; a scan that one of them rejected is not tried here."""


KB_PER_MB = 1024
BEV_FIELDS = ("bev.renderer", "bev.min_valid_fraction", "bev.max_black", "bev.max_one_color")
"""The others say how the renderer is run, and rebuild nothing."""
MAX_LISTED = 20
"""So many rejections are told when a stage ends; the index, the ledger and the report list all."""
RECORDING = ("sens", "frames", "meta")
INSTANCES = ("segs", "aggregation", "proposals")

STAGES = {
    stage.name: stage
    for stage in (
        Stage("clips", "clips", ("clips", "audit", "scans.full_audit"), (*RECORDING, "mesh"), ()),
        Stage("meshes", "fuse", ("meshes",), (*RECORDING, "mesh"), ()),
        Stage("bev", "bev", BEV_FIELDS, ("meta", "frames", "mesh"), ("meshes",)),
        Stage("latents", "latents", ("latents",), (), ("clips", "bev")),
        Stage("texts", "texts", ("texts",), ("meta", "frames", "mesh", *INSTANCES), ()),
    )
}


def stores(config: Config) -> dict[str, Store]:
    return {name: Store(config.work_dir / f"{name}.zarr") for name in STAGES}


def run_stage(name: str, inventory: Inventory, config: Config) -> str:
    """Bring one stage's store up to date; returns a line that says what was done."""
    start = time.perf_counter()
    stage, all_stores = STAGES[name], stores(config)
    store = all_stores[name]
    store.create()
    known = {entry.scan_id for entry in inventory.scans}
    for stale in set(store.scan_ids()) - known:
        store.remove(stale)
    constant = _constant_key(stage, inventory, config)
    todo: Todo = []
    waiting = 0
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
    times = _build(todo, store, config, _needs(name, config))
    _record_times(config.work_dir / "times" / f"{name}.json", times, known)
    rejected = [
        (entry.scan_id, reason) for entry in inventory.scans if (reason := store.rejection(entry.scan_id))
    ]
    line = f"{name}: {len(todo)} built, {len(inventory.scans) - len(todo) - waiting} up to date"
    line += f", {waiting} set aside before" if waiting else ""
    line += f" ({_speed(times, time.perf_counter() - start)})" if times else ""
    line += "".join(f"\n  rejected {scan_id}: {reason}" for scan_id, reason in rejected[:MAX_LISTED])
    more = len(rejected) - MAX_LISTED
    return f"{line}\n  … and {more} more rejected" if more > 0 else line


def _build(todo: Todo, store: Store, config: Config, needs: dict[str, float]) -> dict[str, Times]:
    """Build the groups that are due; returns where the time of each scan went."""
    times = {}
    keys = {scan_id: key for scan_id, (_, _, _, key) in todo}
    for scan_id, outcome in jobs.run(build_scan, todo, config.dask, store.path.stem, needs):
        if isinstance(outcome, jobs.Killed):
            again = f"to try it again remove {store.path.name}/{scan_id}{SUFFIX} from `work`"
            store.reject(scan_id, keys[scan_id], ScanError(f"{outcome.reason}; {again}"))
        else:
            times[scan_id] = outcome
    return times


def _needs(name: str, config: Config) -> dict[str, float]:
    """Dask resources of one scan in this stage."""
    if name == "latents" and importlib.import_module("pipeline.latents").on_gpu(config.latents):
        return {"GPU": 1}
    return {}


def _speed(times: dict[str, Times], wall_s: float) -> str:
    """Scans per second of the clock, seconds per scan of a worker, and the largest parts of these."""
    total = sum(entry["seconds"] for entry in times.values())
    parts: Counter[str] = Counter()
    for entry in times.values():
        parts.update(entry["parts"])
    shares = ", ".join(f"{name} {s / total:.0%}" for name, s in parts.most_common(4) if s >= 0.005 * total)
    peak_mb = max(entry["peak_mb"] for entry in times.values())
    speed = f"{len(times) / wall_s:.2f} scans/s, {peak_mb} MB at most, {total / len(times):.2f} s a scan"
    return f"{speed}: {shares}" if shares else speed


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


def build_scan(name: str, entry: ScanEntry, config: Config, key: str) -> Times:
    """Run one stage on one scan (in a worker process); returns where the time went."""
    stage, all_stores = STAGES[name], stores(config)
    build = importlib.import_module(f"pipeline.{stage.module}").build
    timing.take()  # what an earlier scan left when it was set aside
    start = time.perf_counter()
    with timing.part("read store"):
        inputs = {up: all_stores[up].read(entry.scan_id) for up in stage.upstream}
    all_stores[name].build(entry.scan_id, key, lambda group: build(entry, group, config, inputs))
    seconds = time.perf_counter() - start
    parts = {part: round(spent, 4) for part, spent in timing.take().items()}
    return {"seconds": round(seconds, 4), "parts": parts, "peak_mb": _peak_mb()}


def _peak_mb() -> int:
    """The most memory that this process has held."""
    status = Path("/proc/self/status")
    if status.exists():  # what the system call says on Linux starts with the parent's memory at the fork
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) // KB_PER_MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // KB_PER_MB


def _constant_key(stage: Stage, inventory: Inventory, config: Config) -> str:
    """The part of the key that all scans share: parameters, code, label table, annotations, codec weights."""
    digest = xxhash.xxh3_64(config.hash(*stage.sections).encode())
    digest.update(_code_hash(f"pipeline.{stage.module}").encode())
    if stage.name == "texts":
        stamps = [asdict(s) for s in (*inventory.annotations, inventory.labels_stamp) if s is not None]
        digest.update(json.dumps(stamps).encode())
    if stage.name == "latents":
        digest.update(weights_key(config.latents).encode())
    return digest.hexdigest()


def _key(constant: str, stage: Stage, entry: ScanEntry, all_stores: dict[str, Store]) -> str:
    stamps = [asdict(entry.files[role]) for role in stage.roles if role in entry.files]
    parts = {
        "constant": constant,
        "files": stamps,
        "split": entry.split if stage.name == "texts" else "",
        # Its own source alone: a module for another layout rebuilds nothing.
        "source": _code_hash(f"pipeline.sources.{entry.source}") if stamps else "",
        "upstream": [all_stores[up].digest(entry.scan_id) for up in stage.upstream],
    }
    return xxhash.xxh3_64_hexdigest(json.dumps(parts, sort_keys=True).encode())


@functools.cache
def _code_hash(module: str) -> str:
    """Hash of a module's source and of what it imports; cached, because what runs is what was imported."""
    digest = xxhash.xxh3_64()
    for path in code_files(module):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _record_times(path: Path, times: dict[str, Times], known: set[str]) -> None:
    """Keep where the time of the last build of each scan went, for the report."""
    merged = (json.loads(path.read_text()) if path.exists() else {}) | times
    kept = {scan_id: merged[scan_id] for scan_id in sorted(merged) if scan_id in known}
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_bytes(path, (json.dumps(kept, indent=1) + "\n").encode())
