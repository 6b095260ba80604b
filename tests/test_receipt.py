"""Receipts: equal builds have equal ones, different builds are told apart, by what and by how much."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scanshards import codec, schema
from scanshards.index import build_index, load_index, write_index
from scanshards.receipt import FRAMES, WHY, compare_receipts, compare_releases, receipt
from scanshards.write import Sample, write_shard
from tests.small_shards import GOLDEN, golden_members, small_sample


def build(folder: Path, *samples: Sample, parameters: str = "0" * 16) -> Path:
    folder.mkdir()
    entry = write_shard(folder / "scannet-000000.tar", samples)
    write_index(folder, build_index("golden", parameters, [entry | {"split": "train", "inputs": ""}], []))
    return folder


def pair(**members: bytes) -> list[Sample]:
    """Two samples, the second with other members."""
    return [small_sample("small0"), small_sample("small1", **members)]


@pytest.fixture
def ours(tmp_path) -> Path:
    return build(tmp_path / "ours", *pair())


def brighter_bev() -> bytes:
    picture = codec.decode_png(golden_members()["bev.png"]).copy()
    picture[150, 200] += 3
    picture[160, 210, 0] += 5
    return codec.encode_png(picture)


def noisy_latents() -> bytes:
    row = schema.MEMBERS["latents.npy"]
    latents = codec.decode(row, golden_members()["latents.npy"])
    latents[4, 0, 3] += np.float16(0.125)
    return codec.encode_npy(latents)


def test_equal_builds_have_equal_receipts(ours, tmp_path):
    mine, other = receipt(ours), receipt(build(tmp_path / "theirs", *pair()))
    assert mine == other == json.loads(json.dumps(mine))
    assert compare_receipts(mine, other) == []
    assert list(compare_releases(ours, tmp_path / "theirs")) == []
    assert mine["root_hash"] == load_index(ours)["root_hash"]


def test_a_receipt_says_what_built_the_release(ours):
    mine = receipt(ours)
    assert mine["versions"] == {"pipeline": "0.1.0", **load_index(ours)["versions"]}
    assert mine["renderers"] == {"golden": 2}
    assert [passport["model_id"] for passport in mine["codecs"]["latents"]] == ["golden"]
    frames = [name for name in golden_members() if name not in schema.FRAME_NAMES]
    assert sorted(mine["members"]) == sorted([FRAMES, "clip.json", *frames])
    assert mine["may_differ"] == WHY
    assert len(json.dumps(mine)) < 4000


def test_drawn_and_computed_members_may_differ_and_nothing_else(ours, tmp_path):
    theirs = build(tmp_path / "theirs", *pair(bev_png=brighter_bev(), latents_npy=noisy_latents()))
    found = compare_receipts(receipt(ours), receipt(theirs))
    assert [(line.what, line.may_differ) for line in found] == [("bev.png", True), ("latents.npy", True)]
    assert all(line.why and line.ours != line.theirs for line in found)


def test_releases_say_by_how_much_members_differ(ours, tmp_path):
    theirs = build(tmp_path / "theirs", *pair(bev_png=brighter_bev(), latents_npy=noisy_latents()))
    bev, latents = compare_releases(ours, theirs)
    assert (bev.member, bev.num_samples, bev.max_abs) == ("bev.png", 1, 5.0)
    assert bev.share == 4 / (432 * 432 * 3)
    assert bev.mean_abs == (3 * 3 + 5) / (432 * 432 * 3)
    assert (latents.member, latents.num_samples, latents.max_abs) == ("latents.npy", 1, 0.125)
    assert math.isclose(latents.share, 1 / (32 * 16))
    assert math.isclose(latents.mean_abs, 0.125 / (32 * 16))


def test_other_scans_parameters_and_geometry_may_not_differ(ours, tmp_path):
    first, second = pair()
    moved = np.array(second.meta["world_from_cam"])
    moved[5, 0, 3] += 0.001
    provenance = second.meta["provenance"] | {"inputs": [{"name": "a.sens", "bytes": 1, "xxh3": "0" * 16}]}
    changed = replace(second, meta=second.meta | {"world_from_cam": moved, "provenance": provenance})
    theirs = build(tmp_path / "theirs", first, changed, parameters="1" * 16)
    found = compare_receipts(receipt(ours), receipt(theirs))
    names = [line.what for line in found if line.what != "totals"]  # clip.json may be a block longer
    assert names == ["parameter_hash", "inputs", "clip.json"]
    assert not any(line.may_differ for line in found)
    (gap,) = compare_releases(ours, theirs)
    assert (gap.member, gap.num_samples) == ("clip.json", 1)
    assert math.isnan(gap.max_abs) and math.isnan(gap.share)


def test_frames_are_compared_as_one(ours, tmp_path):
    frames = {"frame03_jpg": golden_members()["frame04.jpg"], "frame09_jpg": golden_members()["frame08.jpg"]}
    theirs = build(tmp_path / "theirs", *pair(**frames))
    (line,) = [line for line in compare_receipts(receipt(ours), receipt(theirs)) if line.what != "totals"]
    assert (line.what, line.may_differ) == (FRAMES, False)
    (gap,) = compare_releases(ours, theirs)
    changes = [(3, 4), (9, 8)]
    pictures = [codec.decode_jpeg(golden_members()[f"frame{i:02d}.jpg"]).astype(int) for i in range(10)]
    most = max(np.abs(pictures[a] - pictures[b]).max() for a, b in changes)
    assert (gap.member, gap.num_samples, gap.max_abs) == (FRAMES, 1, most)


def test_renderers_versions_and_codecs_are_compared_one_by_one(ours):
    mine = receipt(ours)
    theirs = json.loads(json.dumps(mine)) | {"root_hash": "0" * 64}
    theirs["versions"]["cv2"] = "4.9.0"
    theirs["renderers"] = {"llvmpipe": 2}
    theirs["codecs"]["bev_latents"][0]["scaling_factor"] = 2.0
    found = [(line.what, line.may_differ) for line in compare_receipts(mine, theirs)]
    assert found == [
        ("versions: cv2", False),
        ("renderers: golden", True),
        ("renderers: llvmpipe", True),
        ("codecs: bev_latents", False),
    ]


def test_what_cannot_be_compared_is_an_error(ours, tmp_path):
    for other, got in (({}, "None"), ([], "'list'"), ({"receipt_version": 1}, "1")):
        with pytest.raises(ValueError, match=f"got receipt_version {got}, expected 1"):
            compare_receipts(receipt(ours), other)
    with pytest.raises(ValueError, match="no sample in common, expected two builds of the same scans"):
        list(compare_releases(ours, GOLDEN.parent))
