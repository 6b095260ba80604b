"""Seconds per stage and part for one scan on one core, from its files to its shard.

    python -m tests.benchmarks.stages [--scans FOLDER] [--repeats 5]

FOLDER holds scans in ScanNet's layout, the first is taken; without it an embedded room of ScanNet's sizes. The
scan goes through all stages several times in one process. The first time has what a process does once (imports,
Open3D, the renderer's self test, codec weights); of the others the median is shown. `latents` is run, because
shards need it, but does not count.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.benchmarks.one_core import finish_arm, limit_libraries, machine, run_arm, table

MODULE = "tests.benchmarks.stages"
STAGES = ("clips", "meshes", "bev", "latents", "texts", "shards")
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
    sys.stdout.write(f"{result['scan']}, {result['frames']}; {machine()}\n\n{report(result['runs'])}")


def arm(scans: Path | None, folder: Path, repeats: int) -> None:
    from pipeline import run as pipeline_run
    from pipeline import scans as inventories
    from pipeline.config import load_config
    from pipeline.sources import open_source

    limit_libraries()
    source = ["texts.root=embedded", *ROOM] if scans is None else [f"scans.root={scans}", "texts.root="]
    places = [f"work={folder / 'work'}", f"shards.out={folder / 'shards'}", "dask.scheduler=none"]
    config = load_config([*source, *places], None)
    list(pipeline_run.run(["synth"], config))
    found = inventories.take_inventory(config)
    entry = found.scans[0]
    runs = [one_run(entry, config) for _ in range(repeats + 1)]
    with open_source(entry) as recording:
        sizes = f"colour {recording.color_size}, depth {recording.depth_size}"
        frames = f"{recording.num_frames} frames, {sizes}"
    finish_arm({"scan": entry.scan_id, "frames": frames, "runs": runs})


def one_run(entry, config) -> dict[str, dict[str, float]]:
    """Stage -> seconds by part; `all` is the whole stage."""
    from pipeline import shards, stages, timing

    found = {}
    for name in STAGES:
        if name == "shards":
            timing.take()
            start = time.perf_counter()
            out = Path(config.shards.out)
            for path in out.glob("*") if out.is_dir() else ():
                path.unlink() if path.is_file() else None
            shards.build_shards([entry], stages.stores(config), config)
            found[name] = {"all": time.perf_counter() - start, **timing.take()}
        else:
            stages.stores(config)[name].create()
            times = stages.build_scan(name, entry, config, f"{time.monotonic_ns()}")
            found[name] = {"all": times["seconds"], **times["parts"]}
    return found


def report(runs: list[dict[str, dict[str, float]]]) -> str:
    """The table: a line a stage, its parts below it."""
    rows = []
    totals: Counter[str] = Counter()
    for name in STAGES:
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
