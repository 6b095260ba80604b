"""How much of a scan's surface 32 frames see: `clips.sampling` uniform against max_coverage.

    python -m tests.benchmarks.coverage [--scans FOLDER]

The scans of FOLDER (ScanNet's layout) and two embedded rooms of ScanNet's sizes and 480 frames. Surface is
counted in voxels of 0.1 m; 100 % is all that any posed frame of the scan sees (and, where the scan has a
mesh, that the mesh has). Both samplings go through the stage `clips` itself, with default parameters.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import zarr

from pipeline import clips, coverage
from pipeline.config import ScansConfig, load_config
from pipeline.run import run
from pipeline.sampling import candidate_frames
from pipeline.scans import ScanEntry, read_inventory
from pipeline.sources import open_source
from tests.benchmarks.one_core import limit_libraries, machine, table

ROOMS = ["synth.train_rooms=2", "synth.val_rooms=0", "synth.frames=480", "dask.scheduler=none"]
SAMPLINGS = ("uniform", "max_coverage")


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False, description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--scans", type=Path)
    scans = parser.parse_args().scans
    limit_libraries()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, root in (("given", scans), ("rooms", ScansConfig.root)):
            if root is not None:
                work = f"work={Path(folder) / name}"
                config = load_config([*ROOMS, f"scans.root={root}", "texts.root=", work], None)
                list(run(["synth", "scans"], config))
                for entry in read_inventory(config.work_dir / "scans.json").scans:
                    rows.append(measure(entry))
    head = ("scan", "frames", "voxels", "uniform", "max_coverage", "uniform, s", "max_coverage, s")
    sys.stdout.write(f"{machine()}\n\n{table(head, rows)}")


def measure(entry: ScanEntry) -> tuple[str, ...]:
    """One row of the table."""
    with open_source(entry) as source:
        posed = candidate_frames(source.poses).tolist()
        seen = {frame: coverage.frame_voxels(source, frame, source.depth(frame)) for frame in posed}
        cover = coverage.Coverage(seen, coverage.mesh_voxels(entry, source.alignment))
    shares, seconds = [], []
    for sampling in SAMPLINGS:
        group = zarr.create_group({})
        start = time.perf_counter()
        clips.build(entry, group, load_config([f"clips.sampling={sampling}"], None), {})
        seconds.append(f"{time.perf_counter() - start:.2f}")
        frames = group.attrs["clips"][0]["frame_indices"]
        shares.append(f"{cover.covered(frames) / cover.num_seen:.1%}")
    return entry.scan_id, str(len(posed)), str(cover.num_seen), *shares, *seconds


if __name__ == "__main__":
    main()
