"""The scan with every hardship, a damaged one and a real room go through the whole pipeline."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from hardship import BAD, DECLARED, write_hardship

import scanshards
from pipeline.bev import look_down
from pipeline.config import load_config
from pipeline.fates import reason_kind
from pipeline.mesh import Mesh
from pipeline.run import run
from pipeline.store import Store
from scanshards.index import load_index
from tests.conftest import STAGES

REAL = "scene9000_00"


@pytest.fixture(scope="module")
def built(shared_dir, tmp_path_factory):
    root = tmp_path_factory.mktemp("hardship")
    write_hardship(root / "scans", "scene0001_00")
    (root / "scans" / "scene0002_00").mkdir()
    (root / "scans" / "scene0002_00" / "scene0002_00.sens").write_bytes(b"\x04\0\0\0 no recording")
    (root / "scans" / REAL).symlink_to(shared_dir / "scans" / REAL)
    places = [f"scans.root={root / 'scans'}", f"work={root / 'work'}", f"shards.out={root / 'shards'}"]
    config = load_config([*places, "texts.root=", "limits.max_rejected=1", "dask.scheduler=none"], None)
    list(run(STAGES, config))
    return root, config


def test_every_frame_is_accounted_for(built):
    root, _ = built
    frames = pq.read_table(root / "work" / "ledger" / "frames.parquet").to_pylist()
    hard = [row for row in frames if row["scan_id"] == "scene0001_00"]
    assert [row["frame"] for row in hard] == list(range(DECLARED))
    (clip,) = [c for c in scanshards.open(str(root / "shards" / "*.tar")) if c.scan_id == "scene0001_00"]
    chosen = set(clip.meta["frame_indices"])
    assert {row["frame"] for row in hard if row["status"] == "used"} == chosen
    for row in hard:
        if row["status"] == "rejected":
            assert row["reason"] == reason_kind(BAD[row["frame"]])
        else:
            # Bad pixels are only found in frames that were looked at; without a pose or cut off none is.
            assert row["frame"] not in BAD or reason_kind(BAD[row["frame"]]) in (
                "decode failed",
                "depth mostly missing",
            )
    real = [row for row in frames if row["scan_id"] == REAL]
    assert [row["status"] for row in real].count("used") == 32
    assert [row["status"] for row in real].count("not_examined") == 125 - 32


def test_the_scans_add_up_and_the_damaged_one_is_listed(built):
    root, _ = built
    rows = {row["scan_id"]: row for row in pq.read_table(root / "work/ledger/scans.parquet").to_pylist()}
    assert {scan_id: row["status"] for scan_id, row in rows.items()} == {
        "scene0001_00": "used",
        "scene0002_00": "rejected",
        REAL: "used",
    }
    for row in rows.values():
        assert row["num_frames"] == row["used"] + row["not_examined"] + row["rejected"]
    (rejected,) = load_index(root / "shards")["rejected"]
    assert rejected["scan_id"] == "scene0002_00"
    assert rejected["reason"].startswith("clips, meshes: scene0002_00.sens: ")


def test_one_rejection_more_than_allowed_ends_with_an_error(built):
    _, config = built
    strict = load_config(
        [f"scans.root={config.scans.root}", f"work={config.work}", f"shards.out={config.shards.out}"]
        + ["texts.root=", "limits.max_rejected=0", "dask.scheduler=none"],
        None,
    )
    with pytest.raises(ValueError, match=r"1 scans were rejected, expected at most 0; (.|\n)*scene0002_00"):
        list(run(["shards"], strict))


def test_the_hard_room_is_seen_from_above_without_its_ceiling(built):
    root, config = built
    clips = {clip.scan_id: clip for clip in scanshards.open(str(root / "shards" / "*.tar"))}
    assert all(clip.meta["bev"]["present"] for clip in clips.values())
    assert abs(clips["scene0001_00"].meta["bev"]["height_range_m"][0]) < 0.1, "the floor is at 0 m"
    store = Store(config.work_dir / "meshes.zarr").read("scene0001_00")
    mesh = Mesh(*(np.asarray(store[name][:]) for name in ("vertices", "faces", "colors")))
    assert mesh.vertices[:, 2].max() > 2.4, "the ceiling is in the mesh"
    heights_m = look_down(mesh, config.bev).heights_m
    assert np.nanmedian(heights_m) < 0.1
    assert np.nanmean(heights_m > 2.0) < 0.1, "but for the walls' upper edges"
