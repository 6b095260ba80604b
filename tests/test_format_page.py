"""docs/format.md is enough: a reader written from its text, with nothing of ours, gets the same arrays."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import cv2
import numcodecs
import numpy as np
import xxhash

import scanshards
from tests.make_shards import make_release


def members_of(shard: Path, key: str) -> dict[str, bytes]:
    """Section 3: the name up to the first dot is the key."""
    with tarfile.open(shard, "r:") as archive:
        names = [name for name in archive.getnames() if name.partition(".")[0] == key]
        return {name.partition(".")[2]: archive.extractfile(name).read() for name in names}


def array_of(data: bytes) -> np.ndarray:
    return np.load(io.BytesIO(data), allow_pickle=False)


def image_of(data: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)


def coords_of(meta: dict, depth_mm: np.ndarray, frame: int) -> np.ndarray:
    """Section 6, line by line."""
    resize, crop, source = meta["resize"], meta["crop"], meta["source"]
    i, j = np.arange(crop["width"]), np.arange(crop["height"])
    u = np.floor((i + crop["x"]) * (1 / (resize["width"] / source["depth_width"])))
    v = np.floor((j + crop["y"]) * (1 / (resize["height"] / source["depth_height"])))
    u, v = np.minimum(u, source["depth_width"] - 1), np.minimum(v, source["depth_height"] - 1)
    grid_u, grid_v = np.meshgrid(u, v)
    pixels = np.stack([grid_u, grid_v, np.ones_like(grid_u)], axis=-1)
    cam = depth_mm[frame][..., None] / 1000 * (pixels @ np.linalg.inv(meta["depth_intrinsics"]).T)
    points = np.concatenate([cam, np.ones((*cam.shape[:2], 1))], axis=-1)
    world = (points @ np.array(meta["world_from_cam"][frame]).T)[..., :3]
    world[depth_mm[frame] == 0] = np.nan
    return world


def test_a_reader_written_from_the_page_gets_the_same(tmp_path):
    release = make_release(tmp_path)
    index = json.loads((release / "index.json").read_text())
    shard = index["shards"][0]
    path = release / shard["file"]
    row = shard["samples"][1]
    data = path.read_bytes()[row["offset"] : row["offset"] + row["bytes"]]
    assert xxhash.xxh3_64_hexdigest(data) == row["xxh3"]

    members = members_of(path, row["key"])
    raw = members["clip.json"]
    meta = json.loads(raw)
    assert raw.endswith(f'"xxh3":"{meta["xxh3"]}"}}'.encode())
    assert xxhash.xxh3_64_hexdigest(raw[:-18] + b"0" * 16 + b'"}') == meta["xxh3"]
    assert [m["name"] for m in meta["members"]] == [name for name in members if name != "clip.json"]
    for member in meta["members"]:
        assert len(members[member["name"]]) == member["bytes"]
        assert xxhash.xxh3_64_hexdigest(members[member["name"]]) == member["xxh3"]

    clip = list(scanshards.open(path))[1]
    assert (clip.key, clip.meta) == (row["key"], meta)
    depth = array_of(numcodecs.Blosc().decode(members["depth.npy.blosc"]))
    np.testing.assert_array_equal(depth, clip.depth)
    for name, same in (("latents.npy", clip.latents), ("bev_latents.npy", clip.bev_latents)):
        np.testing.assert_array_equal(array_of(members[name]), same)
    np.testing.assert_array_equal(image_of(members["frame09.jpg"])[..., ::-1], clip.frames[9])
    np.testing.assert_array_equal(image_of(members["bev.png"])[..., ::-1], clip.bev)
    np.testing.assert_array_equal(image_of(members["bev_valid.png"]) == 255, clip.bev_valid)
    assert json.loads(members["texts.json"]) == clip.texts
    assert json.loads(members["objects.json"]) == clip.objects
    for frame in (0, 1, 2, 31):
        np.testing.assert_allclose(coords_of(meta, depth, frame), clip.coords[frame], atol=1e-6)
