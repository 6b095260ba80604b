"""Seconds per stage and part for one scan on one core, from its files to its shard.

    python -m tests.benchmarks.stages [--scans FOLDER] [--repeats 5]

FOLDER holds scans, the first is taken; without it an embedded room at ScanNet's sizes. The scan goes through
all stages several times in one process. The first time has what a process does once (imports, the renderer's
self test, codec weights; Open3D's import is taken out and shown by itself); of the others the median counts.
`latents` is run, because shards need it, but does not count.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tests.benchmarks.one_core import finish_arm, limit_libraries, machine, run_arm, table

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.scans import ScanEntry

MODULE = "tests.benchmarks.stages"
NOT_COUNTED = "latents"
ROOM = ["synth.train_rooms=1", "synth.val_rooms=0", "synth.color_width=1296", "synth.color_height=968"]


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False, description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--scans", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--arm", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.arm:
        arm(arguments.scans, arguments.arm, arguments.repeats)
        return
    with tempfile.TemporaryDirectory() as folder:
        scans = [] if arguments.scans is None else ["--scans", str(arguments.scans.resolve())]
        result = run_arm(MODULE, *scans, "--arm", folder, "--repeats", str(arguments.repeats))
    sys.stdout.write(f"{result['scan']}; {machine()}\n\n{report(result['runs'])}")
    sys.stdout.write(f"\nimport of Open3D, once per process: {result['import_s']:.2f} s\n")


def arm(scans: Path | None, folder: Path, repeats: int) -> None:
    from pipeline import run as pipeline_run
    from pipeline.config import load_config
    from pipeline.fuse import open3d
    from pipeline.scans import read_inventory
    from pipeline.sources import open_source

    limit_libraries()
    start = time.perf_counter()
    open3d()
    import_s = time.perf_counter() - start
    source = ROOM if scans is None else [f"scans.root={scans}", "texts.root="]
    config = load_config([*source, f"work={folder / 'work'}", "dask.scheduler=none"], None)
    list(pipeline_run.run(["synth", "scans"], config))
    entry = read_inventory(config.work_dir / "scans.json").scans[0]
    runs = []
    for k in range(repeats + 1):
        out = replace(config.shards, out=str(folder / "shards" / str(k)))
        runs.append(one_run(entry, replace(config, shards=out), f"run {k}"))
    with open_source(entry) as recording:
        sizes = ["x".join(map(str, size)) for size in (recording.color_size, recording.depth_size)]
        frames = f"{recording.num_frames} frames, colour {sizes[0]}, depth {sizes[1]}"
    finish_arm({"scan": f"{entry.scan_id}, {frames}", "import_s": import_s, "runs": runs})


def one_run(entry: ScanEntry, config: Config, key: str) -> dict[str, dict[str, float]]:
    """Take the scan through all stages: stage -> seconds by part, `all` is the whole stage."""
    from pipeline import shards, stages, timing

    found = {}
    stores = stages.stores(config)
    for name, store in stores.items():
        store.create()
        times = stages.build_scan(name, entry, config, key)
        found[name] = {"all": times["seconds"], **times["parts"]}
        if reason := store.rejection(entry.scan_id):
            raise ValueError(f"{name} of {entry.scan_id}: got a rejection ({reason}), expected a usable scan")
    timing.take()
    start = time.perf_counter()
    shards.build_shards([entry], stores, config)
    return found | {"shards": {"all": time.perf_counter() - start, **timing.take()}}


def report(runs: list[dict[str, dict[str, float]]]) -> str:
    """The table: a line a stage, its parts below it."""
    rows = []
    totals: Counter[str] = Counter()
    for name in runs[0]:
        for part in runs[-1][name]:
            first = runs[0][name].get(part, 0.0)
            later = statistics.median(run[name].get(part, 0.0) for run in runs[1:])
            label = f"  {part}" if part != "all" else f"{name} (not counted)" if name == NOT_COUNTED else name
            rows.append((label, f"{first:.2f}", f"{later:.3f}"))
            if part == "all" and name != NOT_COUNTED:
                totals.update(first=first, later=later)
    rows.append(("whole scan without latents", f"{totals['first']:.2f}", f"{totals['later']:.3f}"))
    return table(("stage", "first scan, s", "further scans, s"), rows)


if __name__ == "__main__":
    main()
