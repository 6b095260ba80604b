"""A sample in a shard, read with nothing but tarfile and the codec, holds what the stages stored."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from stage_results import (
    BEV,
    OBJECTS,
    TEXT,
    add_scan,
    config_of,
    fill_bev,
    fill_latents,
    rng_of,
    stores_of,
)

from pipeline import clips
from pipeline.samples import NO_BEV
from pipeline.shards import build_shards, plan_shards
from scanshards import codec, geometry
from scanshards.schema import MEMBERS

SCAN = "scene0000_00"


@pytest.fixture
def scan(tmp_path):
    return tmp_path, [add_scan(tmp_path, SCAN)]


def build(root: Path, entries, *overrides: str) -> dict:
    return build_shards(entries, stores_of(root), config_of(root, "shards.count=3", *overrides))


def members(root: Path, file: str) -> dict[str, bytes]:
    with tarfile.open(root / "shards" / file) as archive:
        return {info.name: archive.extractfile(info).read() for info in archive}


def test_a_sample_holds_what_the_stages_stored(scan):
    root, entries = scan
    index = build(root, entries)
    shard = next(s for s in index["shards"] if any(x["key"].startswith(SCAN) for x in s["samples"]))
    files = members(root, shard["file"])
    names = [name for name in MEMBERS if not MEMBERS[name].optional]
    assert [name for name in files if name.startswith(SCAN)] == [f"{SCAN}-00.{n}" for n in names]
    sample = {name: codec.decode(MEMBERS[name], files[f"{SCAN}-00.{name}"]) for name in names}

    stores = stores_of(root)
    group = stores["clips"].read(SCAN)
    np.testing.assert_array_equal(sample["depth.npy.blosc"], group["00/depth"][:])
    np.testing.assert_array_equal(sample["bev.png"], stores["bev"].read(SCAN)["bev"][:])
    np.testing.assert_array_equal(sample["bev_valid.png"] == 255, stores["bev"].read(SCAN)["valid"][:])
    rng = rng_of(SCAN)
    np.testing.assert_array_equal(
        sample["latents.npy"], rng.normal(size=(32, 2, 16, 27, 27)).astype(np.float16)
    )
    np.testing.assert_array_equal(
        sample["bev_latents.npy"], rng.normal(size=(2, 16, 54, 54)).astype(np.float16)
    )
    jpeg, offsets = group["00/jpeg"][:].tobytes(), group["00/jpeg_offsets"][:]
    assert files[f"{SCAN}-00.frame07.jpg"] == jpeg[offsets[7] : offsets[8]]
    assert sample["objects.json"] == OBJECTS
    assert sample["texts.json"] == [TEXT | {"id": f"{SCAN}-q0"}]
    meta = sample["clip.json"]
    assert meta["bev"] == BEV
    assert meta["world_from_cam"] == group.attrs["clips"][0]["world_from_cam"]
    assert [item["name"] for item in meta["provenance"]["inputs"]] == [
        f"{SCAN}.sens#header+frames",
        f"{SCAN}.txt",
        "ScanQA.json",
    ]
    assert meta["provenance"]["parameter_hash"] == index["parameter_hash"]


def test_a_scan_without_a_picture_gets_a_black_one(scan):
    root, entries = scan
    stores_of(root)["bev"].build(SCAN, "key", lambda group: fill_bev(group, SCAN, present=False))
    build(root, entries[:1])
    files = members(root, next(iter(plan_shards(entries[:1], 3))))
    sample = {
        n: codec.decode(MEMBERS[n], files[f"{SCAN}-00.{n}"]) for n in MEMBERS if n[:3] in ("bev", "cli")
    }
    assert sample["clip.json"]["bev"] == NO_BEV
    for name in ("bev.png", "bev_valid.png", "bev_latents.npy"):
        assert not sample[name].any(), name


def test_stages_that_do_not_exist_leave_neutral_members(scan):
    root, entries = scan
    stores = {name: store for name, store in stores_of(root).items() if name in ("clips", "latents")}
    build_shards(entries[:1], stores, config_of(root, "shards.count=3"))
    files = members(root, next(iter(plan_shards(entries[:1], 3))))
    assert json.loads(files[f"{SCAN}-00.texts.json"]) == []
    assert json.loads(files[f"{SCAN}-00.objects.json"])["boxes"] == []
    assert json.loads(files[f"{SCAN}-00.clip.json"])["bev"]["present"] is False


def test_several_clips_of_a_scan_lie_side_by_side(scan):
    root, entries = scan
    config = config_of(root, "shards.count=3", "clips.per_scan=2")
    stores = stores_of(root)
    stores["clips"].build(SCAN, "key", lambda group: clips.build(entries[0], group, config, {}))
    stores["latents"].build(SCAN, "key", lambda group: fill_latents(group, SCAN, 2))
    index = build_shards(entries[:1], stores, config)
    assert [sample["key"] for sample in index["shards"][0]["samples"]] == [f"{SCAN}-00", f"{SCAN}-01"]
    files = members(root, index["shards"][0]["file"])
    metas = [json.loads(files[f"{SCAN}-{k:02d}.clip.json"]) for k in range(2)]
    assert [set(meta["frame_indices"]) for meta in metas] == [{0, 2, 4, 6}, {1, 3, 5, 7}]
    assert files[f"{SCAN}-00.latents.npy"] != files[f"{SCAN}-01.latents.npy"]


def test_stored_coordinates_are_the_derived_ones(scan):
    root, entries = scan
    build(root, entries[:1], "shards.store_coords=true")
    files = members(root, next(iter(plan_shards(entries[:1], 3))))
    meta = json.loads(files[f"{SCAN}-00.clip.json"])
    name = "coords.npy.blosc"
    stored = codec.decode(MEMBERS[name], files[f"{SCAN}-00.{name}"])
    depth = codec.decode(MEMBERS["depth.npy.blosc"], files[f"{SCAN}-00.depth.npy.blosc"])
    u, v = geometry.source_pixels(geometry.resize_plan(64, 48))
    coords = geometry.unproject(
        depth, np.array(meta["depth_intrinsics"]), np.array(meta["world_from_cam"]), u, v
    )
    assert (stored[depth == 0] == -32768).all()
    assert np.abs(stored[depth > 0] / 1000 - coords[depth > 0]).max() <= 0.000501
    assert list(files)[-1].endswith(name)
