"""Throughput of each stage with one local worker and with several, in turns in one run.

    python -m tests.benchmarks.workers FOLDER [--scans 96] [--workers 2]

Scans as in `scale.py`. Each stage is timed from its start to its end: starting workers and importing packages
in them counts.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from pathlib import Path

from pipeline.config import load_config
from pipeline.run import run
from tests.benchmarks.scale import link_scan, link_tables, make_rooms

STAGES = ("clips", "meshes", "bev", "latents", "texts", "shards")


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False, description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scans", type=int, default=96)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    rooms = make_rooms(folder, 6)
    link_tables(folder)
    for k in range(arguments.scans):
        link_scan(rooms[k % len(rooms)], folder / "scans" / f"scene{k // 10:04d}_{k % 10:02d}")
    counts = (1, arguments.workers)
    measured = {count: build(folder, count) for count in counts}
    write(f"{arguments.scans} scans; scans/s\n")
    write(f"{'stage':<10}{'1 worker':>10}{f'{counts[1]} workers':>12}{'ratio':>8}\n")
    for stage in (*STAGES, "all"):
        one, many = (arguments.scans / measured[count][stage] for count in counts)
        write(f"{stage:<10}{one:>10.2f}{many:>12.2f}{many / one:>8.2f}\n")


def build(folder: Path, workers: int) -> dict[str, float]:
    """Seconds of each stage, and of all, from nothing."""
    work = folder / f"work-{workers}"
    shutil.rmtree(work, ignore_errors=True)
    overrides = [f"scans.root={folder / 'scans'}", f"work={work}", f"shards.out={work / 'shards'}"]
    config = load_config([*overrides, "texts.root=", "shards.count=16", f"dask.workers={workers}"], None)
    seconds = {}
    list(run(["scans"], config))
    for stage in STAGES:
        start = time.perf_counter()
        list(run([stage], config))
        seconds[stage] = time.perf_counter() - start
    return seconds | {"all": sum(seconds.values())}


def write(text: str) -> None:
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
