"""Old shards stay readable: the committed shard of each format version gives what it was made from."""

from __future__ import annotations

import hashlib
import json
import platform
from pathlib import Path
from typing import Any

import cv2
import numcodecs
import numpy as np
import pytest

import scanshards
from scanshards import codec, schema
from scanshards.index import load_index
from scanshards.verify import verify
from scanshards.write import Sample, write_shard

GOLDEN = Path(__file__).parent / "golden"
OWN_KEYS = ("format_version", "members", "xxh3")
"""What the writer adds to clip.json."""


def versions() -> list[Path]:
    return sorted(GOLDEN.glob("v*"))


def expected_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "expected.json").read_text(encoding="utf-8"))


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_there_is_a_shard_of_every_version():
    assert [folder.name for folder in versions()] == [f"v{n + 1}" for n in range(schema.FORMAT_VERSION)]


@pytest.mark.parametrize("folder", versions(), ids=lambda folder: folder.name)
def test_the_files_are_those_that_were_committed(folder):
    expected = expected_of(folder)
    (shard,) = folder.glob("*.tar")
    assert sha256(shard.read_bytes()) == expected["shard_sha256"]
    index = load_index(folder)
    assert (index["root_hash"], index["totals"]["samples"]) == (expected["root_hash"], 1)
    assert f"v{index['format_version']}" == folder.name
    assert verify(folder).problems == []


@pytest.mark.parametrize("folder", versions(), ids=lambda folder: folder.name)
def test_clips_hold_what_they_were_made_from(folder):
    expected = expected_of(folder)
    (clip,) = scanshards.open(folder / "scannet-*.tar")
    assert clip.key == expected["key"]
    assert {name: clip.meta[name] for name in clip.meta if name not in OWN_KEYS} == expected["meta"]
    assert (clip.objects, clip.texts) == (expected["objects"], expected["texts"])
    arrays = {
        "depth": clip.depth,
        "bev": clip.bev,
        "bev_valid_png": clip.member("bev_valid.png"),
        "latents": clip.latents,
        "bev_latents": clip.bev_latents,
        "coords_mm": clip.member("coords.npy.blosc"),
    }
    assert {name: sha256(array.tobytes()) for name, array in arrays.items()} == expected["sha256"]
    colors = np.array(expected["colors"])[:, None, None]
    assert np.abs(clip.frames - colors).max() <= 2  # a flat picture survives JPEG but for colour rounding
    for frame, row, column, point in expected["coords"]:
        np.testing.assert_allclose(clip.coords[frame, row, column], point, atol=1e-6, rtol=0)
    assert clip.coords_valid.sum((1, 2)).tolist() == expected["num_valid"]


def test_the_writer_still_gives_version_1_byte_for_byte(tmp_path):
    """From the stored members: tar, clip.json and the formats of our own do not depend on any library."""
    folder = GOLDEN / "v1"
    (clip,) = scanshards.open(folder / "scannet-*.tar")
    stored = {name: bytes(clip.stored(name)) for name in clip.member_bytes if name != "clip.json"}
    meta = {name: value for name, value in clip.meta.items() if name not in OWN_KEYS}
    entry = write_shard(tmp_path / "scannet-000000.tar", [Sample(clip.key, meta, stored)])
    assert entry["sha256"] == expected_of(folder)["shard_sha256"]
    assert codec.encode_npy(clip.latents) == stored["latents.npy"]
    assert codec.encode_npy(clip.bev_latents) == stored["bev_latents.npy"]


def test_the_same_libraries_encode_version_1_byte_for_byte():
    folder = GOLDEN / "v1"
    made_with = load_index(folder)["versions"]
    here = {
        "cv2": cv2.__version__,
        "numcodecs": numcodecs.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
    }
    other = {name: made_with[name] for name in here if made_with[name] != here[name]}
    if other:
        pytest.skip(f"golden shard was encoded by {other}, here is {here}: bytes may differ")
    (clip,) = scanshards.open(folder / "scannet-*.tar")
    colors = np.array(expected_of(folder)["colors"], np.uint8)
    for name, rgb in zip(schema.FRAME_NAMES, colors, strict=True):
        flat = np.ascontiguousarray(np.broadcast_to(rgb, (384, 384, 3)))
        assert codec.encode_jpeg(flat) == clip.stored(name)
    assert codec.encode_npy_blosc(clip.depth) == clip.stored("depth.npy.blosc")
    assert codec.encode_npy_blosc(clip.member("coords.npy.blosc")) == clip.stored("coords.npy.blosc")
    assert codec.encode_png(clip.bev) == clip.stored("bev.png")
    assert codec.encode_png(clip.member("bev_valid.png")) == clip.stored("bev_valid.png")
