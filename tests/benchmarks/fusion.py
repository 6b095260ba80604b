"""What makes TSDF fusion fast, and whether its surface is still right: small blocks, every second pixel.

    python -m tests.benchmarks.fusion [--scans FOLDER]

FOLDER holds scans, the first is fused; without it an embedded room with a noisy sensor, whose exact mesh is
known: then the distances of the fused vertices to it are shown. One core, the fastest of four rounds.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tests.benchmarks.one_core import finish_arm, limit_libraries, machine, run_arm, table

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.mesh import Mesh
    from pipeline.scans import ScanEntry

MODULE = "tests.benchmarks.fusion"
ARMS = (("blocks of 16, every pixel", 16, 1), ("blocks of 8, every pixel", 8, 1), ("as built", 8, 2))
"""Name, voxels a side of a block, step between pixels."""
REPEATS = 4
QUANTILES = (0.5, 0.9, 0.99)


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False, description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--scans", type=Path)
    parser.add_argument("--arm", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.arm:
        arm(arguments.scans, arguments.arm)
        return
    with tempfile.TemporaryDirectory() as folder:
        scans = [] if arguments.scans is None else ["--scans", str(arguments.scans.resolve())]
        result = run_arm(MODULE, *scans, "--arm", folder)
    head = ("fusion", "seconds", "vertices", "BEV cover", *(f"{q:.0%} within, mm" for q in QUANTILES))
    sys.stdout.write(f"{result['scan']}; {machine()}\n\n{table(head, result['rows'])}")


def arm(scans: Path | None, folder: Path) -> None:
    from pipeline import bev, fuse
    from pipeline import run as pipeline_run
    from pipeline.config import BevConfig, load_config
    from pipeline.scans import read_inventory
    from pipeline.sources import open_source

    limit_libraries()
    source = ["synth.train_rooms=1", "synth.val_rooms=0"] if scans is None else [f"scans.root={scans}"]
    config = load_config([*source, f"work={folder}", "dask.scheduler=none"], None)
    list(pipeline_run.run(["synth", "scans"], config))
    entry = read_inventory(config.work_dir / "scans.json").scans[0]
    grid_as_built = fuse.pixel_grid
    fuse.open3d()

    def every_pixel(size, intrinsics, meshes):
        """The grid for voxels so small that no pixel can be left out, with Open3D's own stride."""
        return replace(grid_as_built(size, intrinsics, replace(meshes, voxel_m=1e-6)), stride=4)

    seconds: dict[str, list[float]] = {name: [] for name, *_ in ARMS}
    meshes = {}
    with open_source(entry) as recording:
        for name, block, step in ARMS * REPEATS:
            fuse.BLOCK_VOXELS = block
            fuse.pixel_grid = grid_as_built if step == 2 else every_pixel
            start = time.perf_counter()
            meshes[name] = fuse.fuse(recording, config.meshes).mesh
            seconds[name].append(time.perf_counter() - start)
        sizes = f"{recording.num_frames} frames, colour {recording.color_size}, depth {recording.depth_size}"
    rows = []
    for name, mesh in meshes.items():
        cover = bev.look_down(mesh, BevConfig(renderer="raycast")).valid.mean()
        row = (name, f"{min(seconds[name]):.2f}", str(len(mesh.vertices)), f"{cover:.1%}")
        rows.append((*row, *distances_mm(mesh, entry)))
    finish_arm({"scan": f"{entry.scan_id}, {sizes}", "rows": rows})


def distances_mm(mesh: Mesh, entry: ScanEntry) -> list[str]:
    """Quantiles of the distances from fused vertices to the scan's own mesh; dashes where there is none."""
    if entry.path("mesh") is None:
        return ["-"] * len(QUANTILES)
    from pipeline import fuse
    from pipeline.mesh import load_mesh
    from pipeline.sources import alignment

    exact = load_mesh(entry, None, alignment(entry))
    o3d = fuse.open3d()
    scene = o3d.t.geometry.RaycastingScene(nthreads=1)
    scene.add_triangles(o3d.core.Tensor(exact.vertices), o3d.core.Tensor(exact.faces.astype(np.uint32)))
    found: NDArray[np.float32] = scene.compute_distance(o3d.core.Tensor(mesh.vertices), nthreads=1).numpy()
    return [f"{1000 * value:.1f}" for value in np.quantile(found, QUANTILES)]


if __name__ == "__main__":
    main()
