"""Stage `shards`: joins what the other stages stored into shards and their index (docs/format.md).

A scan's shard is XXH3-64(scan_id) mod `shards.count`, for train and val alike; a scan that any stage set
aside is in none. A shard is rewritten only if something it is made from changed: its entry in the index keeps
a hash of all that (`inputs`).

A kill at any moment leaves no index that names a wrong file, because of the order of the steps:

1. index.json is replaced by one that names only the shards that stay as they are (removed, if none does);
2. shards that no longer belong are deleted, as are temporary files of a killed run;
3. each new shard is put in place by a rename, and only then index.json is replaced by one that names it too.

So index.json names a part of what is there at any time, and all of it at the end. The next run keeps what is
named and current.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import xxhash

from pipeline import jobs, ledger, samples
from pipeline.config import Config
from pipeline.ledger import StoreLike
from pipeline.scans import ScanEntry
from scanshards import codec, conform, geometry, schema, tar, write
from scanshards.catalog import retract, write_catalogue
from scanshards.errors import CorruptSample
from scanshards.index import INDEX_NAME, build_index, load_index, write_index
from scanshards.write import Sample, write_shard

Stores = Mapping[str, StoreLike]

PREFIX = "scannet"
"""Names the input format; every shard's file name starts with it."""
FOLDERS = {"train": "", "val": "val/"}
DECIDE_BYTES = ("scanshards", "cv2", "numcodecs")
"""Another version of these calls for new shards: it is written in them, or encodes their members."""


def build_shards(entries: Iterable[ScanEntry], stores: Stores, config: Config) -> dict[str, Any]:
    """Bring the shards in `shards.out` up to date; returns the content of index.json.

    `rejected` lists each scan that a stage set aside, with `stage: reason`. ValueError: a scan has not been
    through all stages of `stores` (the message names the command).
    """
    entries = list(entries)
    out = Path(config.shards.out)
    for folder in FOLDERS.values():
        (out / folder).mkdir(parents=True, exist_ok=True)
    rejected = _rejected(stores, entries)
    aside = {row["scan_id"] for row in rejected}
    plan = plan_shards([entry for entry in entries if entry.scan_id not in aside], config.shards.count)
    inputs = _inputs_by_file(plan, stores, config)
    old = _old_index(out)
    done = [shard for shard in old["shards"] if _is_current(out, shard, inputs)] if old else []

    published = old

    def publish() -> dict[str, Any]:
        nonlocal published
        index = build_index(config.scans.dataset, config.parameter_hash(), done, rejected)
        if index != published:
            write_index(out, index)
        published = index
        return index

    todo = [file for file in plan if file not in {shard["file"] for shard in done}]
    if old is None or todo or len(done) < len(old["shards"]):
        retract(out)
    if done:
        publish()
    else:
        (out / INDEX_NAME).unlink(missing_ok=True)
        published = None
    _remove_strangers(out, plan)
    items = [(file, (out / file, plan[file], stores, config)) for file in todo]
    for file, entry in jobs.run(_write, items, config.dask, "shards"):
        if isinstance(entry, jobs.Killed):
            raise jobs.JobsFailed(entry.reason)
        done.append(entry | {"file": file, "split": plan[file][0].split, "inputs": inputs[file]})
        publish()
    index = publish()
    write_catalogue(out)
    return index


def plan_shards(entries: Iterable[ScanEntry], count: int) -> dict[str, list[ScanEntry]]:
    """Scans of each shard that is not empty, by file name relative to the index; both in sorted order."""
    plan: dict[str, list[ScanEntry]] = {}
    for entry in sorted(entries, key=lambda entry: f"{entry.scan_id}-00"):  # the order of the samples' keys
        number = xxhash.xxh3_64_intdigest(entry.scan_id.encode()) % count
        plan.setdefault(f"{FOLDERS[entry.split]}{PREFIX}-{number:06d}.tar", []).append(entry)
    return dict(sorted(plan.items()))


def _rejected(stores: Stores, entries: list[ScanEntry]) -> list[dict[str, str]]:
    """One row per scan that is set aside: by which stages, and why."""
    rows = []
    for entry in entries:
        stages_of: dict[str, list[str]] = {}
        for row in ledger.rejections(stores, entry.scan_id):
            stages_of.setdefault(row["reason"], []).append(row["stage"])
        if stages_of:
            reasons = [f"{', '.join(stages)}: {reason}" for reason, stages in stages_of.items()]
            rows.append({"scan_id": entry.scan_id, "reason": "; ".join(reasons)})
    return rows


def _inputs_by_file(plan: dict[str, list[ScanEntry]], stores: Stores, config: Config) -> dict[str, str]:
    """Per shard a hash of all that decides its bytes: parameters, code, versions, digests of the groups."""
    versions = build_index(config.scans.dataset, config.parameter_hash(), [], [])["versions"]
    constant = {
        "dataset": config.scans.dataset,
        "parameter_hash": config.parameter_hash(),
        "store_coords": config.shards.store_coords,
        "versions": {name: versions[name] for name in DECIDE_BYTES},
        "code": [_file_hash(module) for module in (samples, codec, conform, geometry, schema, tar, write)],
    }
    found = {}
    for file, entries in plan.items():
        digests = {entry.scan_id: _digests(entry, stores) for entry in entries}
        text = json.dumps({**constant, "scans": digests}, sort_keys=True)
        found[file] = xxhash.xxh3_64_hexdigest(text.encode())
    return found


@functools.cache
def _file_hash(module: ModuleType) -> str:
    """Hash of a module's source; cached, because what runs is what was imported."""
    return xxhash.xxh3_64_hexdigest(Path(module.__file__).read_bytes())


def _digests(entry: ScanEntry, stores: Stores) -> dict[str, str]:
    digests = {stage: store.digest(entry.scan_id) for stage, store in stores.items()}
    for stage, digest in digests.items():
        if not digest:
            raise ValueError(
                f"{entry.scan_id}: stage {stage} has nothing about it, expected a result or a rejection; "
                f"run `python -m pipeline.run {stage}`"
            )
    return digests


def _old_index(out: Path) -> dict[str, Any] | None:
    """The index of an earlier run; None if there is none or it is damaged (then every shard is written)."""
    try:
        return load_index(out)
    except (FileNotFoundError, CorruptSample):
        return None


def _is_current(out: Path, shard: dict[str, Any], inputs: dict[str, str]) -> bool:
    """Whether a shard is planned, made from the same, and on disk in full length."""
    path = out / shard["file"]
    return (
        inputs.get(shard["file"]) == shard["inputs"]
        and path.is_file()
        and path.stat().st_size == shard["bytes"]
    )


def _remove_strangers(out: Path, plan: dict[str, list[ScanEntry]]) -> None:
    """Delete shards that are not planned, and what a killed run left under temporary names."""
    for folder in FOLDERS.values():
        for path in (out / folder).glob(f"{PREFIX}-*.tar"):
            if f"{folder}{path.name}" not in plan:
                path.unlink()
        for path in (out / folder).glob(f".{PREFIX}-*.tar.*.tmp"):
            path.unlink()


def _write(path: Path, entries: list[ScanEntry], stores: Stores, config: Config) -> dict[str, Any]:
    """Write one shard (in a worker process); returns its entry of the index."""
    return write_shard(path, _samples(entries, stores, config))


def _samples(entries: list[ScanEntry], stores: Stores, config: Config) -> Iterator[Sample]:
    """Samples of a shard, assembled one at a time."""
    for entry in entries:
        groups = {stage: store.read(entry.scan_id) for stage, store in stores.items()}
        yield from samples.samples(
            entry, groups, config.scans.dataset, config.parameter_hash(), config.shards.store_coords
        )
