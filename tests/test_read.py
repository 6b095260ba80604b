"""Reading: what was written comes back, only what is asked for is decoded, damage never passes."""

from __future__ import annotations

import pickle
import shutil
import statistics
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import webdataset

import scanshards
from scanshards import codec, geometry, schema
from scanshards.files import expand_braces
from scanshards.write import write_shard
from tests.make_shards import (
    make_arrays,
    make_members,
    make_meta,
    make_objects,
    make_release,
    make_sample,
    make_texts,
)


@pytest.fixture(scope="module")
def release(tmp_path_factory) -> Path:
    return make_release(tmp_path_factory.mktemp("release"))


@pytest.fixture
def lone(tmp_path) -> Path:
    """A shard of two samples without an index."""
    path = tmp_path / "lone.tar"
    write_shard(path, [make_sample("scene0000_00"), make_sample("scene0001_00")])
    return path


# --- what comes back ---


def test_clip_gives_back_what_was_written(release):
    clip = next(iter(scanshards.open(release / "scannet-000000.tar")))
    arrays, meta = make_arrays(), make_meta("scene0000_00")
    assert (clip.key, clip.scan_id, clip.split) == ("scene0000_00-00", "scene0000_00", "train")
    assert {key: clip.meta[key] for key in meta} == meta
    np.testing.assert_array_equal(clip.depth, arrays["depth"])
    np.testing.assert_array_equal(clip.bev, arrays["bev"])
    np.testing.assert_array_equal(clip.bev_valid, arrays["bev_valid"])
    np.testing.assert_array_equal(clip.latents, arrays["latents"])
    np.testing.assert_array_equal(clip.bev_latents, arrays["bev_latents"])
    np.testing.assert_array_equal(clip.world_from_cam, np.array(meta["world_from_cam"]))
    np.testing.assert_array_equal(clip.intrinsics, np.array(meta["depth_intrinsics"]))
    np.testing.assert_array_equal(clip.frame_indices, meta["frame_indices"])
    assert (clip.objects, clip.texts) == (make_objects(), make_texts())
    assert clip.resize_plan == geometry.resize_plan(640, 480)
    assert np.abs(clip.frames.astype(int) - arrays["frames"]).mean() < 3


def test_dtypes_and_shapes_are_those_of_the_contract(release):
    clip = next(iter(scanshards.open(release / "scannet-*.tar")))
    found = {
        name: (getattr(clip, name).dtype.name, getattr(clip, name).shape)
        for name in ("frames", "depth", "coords", "coords_valid", "world_from_cam", "intrinsics")
    }
    assert found == {
        "frames": ("uint8", (32, 384, 384, 3)),
        "depth": ("uint16", (32, 384, 384)),
        "coords": ("float32", (32, 384, 384, 3)),
        "coords_valid": ("bool", (32, 384, 384)),
        "world_from_cam": ("float64", (32, 4, 4)),
        "intrinsics": ("float64", (3, 3)),
    }
    assert clip.latents.dtype == clip.bev_latents.dtype == np.float16
    assert clip.bev_valid.dtype == bool
    assert clip.patch_coords().shape == (32, 14, 14, 3)


def test_missing_depth_has_no_coordinate(release):
    clip = next(iter(scanshards.open(release / "scannet-*.tar")))
    np.testing.assert_array_equal(clip.coords_valid, clip.depth > 0)
    np.testing.assert_array_equal(np.isnan(clip.coords).any(-1), ~clip.coords_valid)
    assert not clip.coords_valid[2].any()


def test_patch_coords_are_means_of_coords_for_all_or_some_frames(release):
    clip = next(iter(scanshards.open(release / "scannet-*.tar")))
    blocks = clip.coords[:, :378, :378].astype(np.float64).reshape(32, 14, 27, 14, 27, 3)
    count = np.isfinite(blocks[..., 0]).sum((2, 4))[..., None]
    total = np.nansum(blocks, axis=(2, 4))
    means = clip.patch_coords(27)
    np.testing.assert_array_equal(np.isnan(means), np.broadcast_to(count == 0, means.shape))
    np.testing.assert_allclose(np.nan_to_num(means), total / np.maximum(count, 1), atol=1e-5, rtol=0)
    centres = clip.world_from_cam[:, None, None, :3, 3]
    expected = (total + centres * (729 - count)) / 729
    np.testing.assert_allclose(clip.patch_coords(27, missing="camera"), expected, atol=1e-5, rtol=0)
    np.testing.assert_array_equal(clip.patch_coords(27, frames=[5, 1]), means[[5, 1]])


def test_stored_coordinates_agree_with_derived_ones(tmp_path, release):
    clip = next(iter(scanshards.open(release / "scannet-*.tar")))
    stored = codec.encode_npy_blosc(geometry.coords_mm_from_coords(clip.coords))
    sample = make_sample()
    write_shard(tmp_path / "c.tar", [replace(sample, members=sample.members | {schema.COORDS_NAME: stored})])
    (again,) = scanshards.open(tmp_path / "c.tar")
    millimetres = again.member(schema.COORDS_NAME)
    seen = again.coords_valid
    assert np.abs(millimetres[seen] / 1000.0 - again.coords[seen]).max() <= 0.501e-3
    assert (millimetres[~seen] == schema.MISSING_COORD_MM).all()


def test_single_frames_equal_all_frames_and_the_stored_files(release):
    clip = next(iter(scanshards.open(release / "scannet-*.tar")))
    assert clip.frame_jpegs() == [make_members()[name] for name in schema.FRAME_NAMES]
    np.testing.assert_array_equal(clip.frame(31), clip.frames[31])


def test_arrays_are_decoded_once_on_first_use(release, monkeypatch):
    decoded = []
    decode = codec.decode
    monkeypatch.setattr(
        codec, "decode", lambda member, data: decoded.append(member.name) or decode(member, data)
    )
    clip = next(iter(scanshards.open(release / "scannet-*.tar")))
    assert decoded == ["clip.json"]
    assert clip.latents is clip.latents
    assert clip.coords is clip.coords
    clip.patch_coords()
    clip.frame(3)
    assert decoded == ["clip.json", "latents.npy", "depth.npy.blosc", "frame03.jpg"]


def test_fields_limit_what_may_be_read(release):
    clip = next(iter(scanshards.open(release / "scannet-*.tar", fields=["latents", "coords"])))
    assert clip.latents.shape == (32, 2, 16, 27, 27)
    assert clip.patch_coords().shape == (32, 14, 14, 3)
    with pytest.raises(ValueError, match=r"texts.json is not in fields=\['latents', 'coords'\]"):
        _ = clip.texts
    with pytest.raises(ValueError, match="fields: got 'image', expected some of frames"):
        scanshards.open(release / "scannet-*.tar", fields=["image"])


def test_a_clip_goes_through_pickle_as_stored(release):
    clip = next(iter(scanshards.open(release / "scannet-*.tar")))
    assert clip.coords.any()
    data = pickle.dumps(clip)
    assert len(data) < 1.01 * sum(clip.member_bytes.values()) + 1000 * len(clip.member_bytes)
    again = pickle.loads(data)
    assert (again.key, again.file) == (clip.key, clip.file)
    np.testing.assert_array_equal(again.coords, clip.coords)


# --- names, patterns, order ---


def keys(urls) -> list[str]:
    return [clip.key for clip in scanshards.open(urls)]


def test_globs_lists_and_braces_name_the_same_clips(release):
    expected = [f"scene{i:04d}_00-00" for i in range(3)]
    assert keys(str(release / "scannet-*.tar")) == expected
    assert keys(release / "scannet-{000000..000001}.tar") == expected
    assert keys([release / "scannet-000000.tar", str(release / "scannet-000001.tar")]) == expected
    assert keys(f"file://{release}/scannet-00000{{0,1}}.tar") == expected
    assert keys([release / "scannet-*.tar", release / "val/*.tar"]) == [*expected, "scene5000_00-00"]
    assert len(scanshards.open(release / "scannet-*.tar")) == 3


def test_a_reader_may_be_iterated_again(release):
    clips = scanshards.open(release / "scannet-*.tar")
    assert [clip.key for clip in clips] == [clip.key for clip in clips]


def test_relative_names_find_the_index_too(release, monkeypatch):
    monkeypatch.chdir(release / "val")
    (clip,) = scanshards.open("scannet-000000.tar")
    assert clip.split == "val"
    monkeypatch.chdir(release)
    assert len(keys("scannet-*.tar")) == 3


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a.tar", ["a.tar"]),
        ("a{1,x}.tar", ["a1.tar", "ax.tar"]),
        ("a{08..11}", ["a08", "a09", "a10", "a11"]),
        ("a{8..11}", ["a8", "a9", "a10", "a11"]),
        ("{a,b}{0..1}", ["a0", "a1", "b0", "b1"]),
    ],
)
def test_braces_expand_in_order(pattern, names):
    assert expand_braces(pattern) == names


def test_names_that_mean_nothing_are_errors(release):
    for urls, message in (
        (release / "scannet-*.zip", "no file matches"),
        (release / "none.tar", "no such shard"),
        (release, r'for training: ".*/shards/scannet-\*\.tar"'),
        (release / "scannet-{000000..000002}.tar", "scannet-000002.tar: no such shard"),
        ([], "no shards given"),
    ):
        with pytest.raises(FileNotFoundError, match=message):
            scanshards.open(urls)
    with pytest.raises(ValueError, match="named twice"):
        scanshards.open([release / "scannet-000000.tar", release / "scannet-*.tar"])
    with pytest.raises(ValueError, match="empty or too long"):
        scanshards.open("a{9..1}.tar")


def test_plain_webdataset_reads_the_same_members(release):
    url = str(release / "scannet-000000.tar")
    samples = list(webdataset.WebDataset(url, shardshuffle=False, empty_check=False))
    assert [sample["__key__"] for sample in samples] == ["scene0000_00-00", "scene0001_00-00"]
    for sample, clip in zip(samples, scanshards.open(url), strict=True):
        stored = {name: sample[name] for name in sample if not name.startswith("__")}
        assert list(stored) == list(clip.member_bytes)
        assert {name: stored[name] for name in make_members()} == make_members()


def test_webdataset_decodes_what_it_knows(release):
    url = str(release / "scannet-000000.tar")
    sample = next(iter(webdataset.WebDataset(url, shardshuffle=False, empty_check=False).decode("rgb8")))
    clip = next(iter(scanshards.open(url)))
    np.testing.assert_array_equal(sample["latents.npy"], clip.latents)
    np.testing.assert_array_equal(sample["bev.png"], clip.bev)
    assert sample["texts.json"] == clip.texts
    assert np.abs(sample["frame00.jpg"].astype(int) - clip.frame(0)).max() <= 3  # another JPEG decoder


# --- the index around a shard ---


@pytest.fixture
def copied(release, tmp_path) -> Path:
    return Path(shutil.copytree(release, tmp_path / "shards"))


def test_a_missing_shard_is_an_error_not_a_shorter_epoch(copied):
    (copied / "scannet-000001.tar").unlink()
    with pytest.raises(FileNotFoundError, match=r"scannet-000001.tar: listed in index.json, but"):
        scanshards.open(copied / "scannet-*.tar")


def test_a_shard_that_the_index_does_not_list_is_an_error(copied):
    shutil.copy(copied / "scannet-000000.tar", copied / "scannet-000009.tar")
    with pytest.raises(scanshards.CorruptSample, match=r"scannet-000009.tar: not listed"):
        scanshards.open(copied / "scannet-*.tar")


def test_a_held_out_shard_is_found_in_the_index_above(copied):
    path = copied / "val" / "scannet-000000.tar"
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 512)
    with pytest.raises(scanshards.CorruptSample, match="expected .* as in index.json"):
        list(scanshards.open(path))


def test_another_program_s_index_is_not_ours(lone):
    (lone.parent / "index.json").write_text('{"version": 2, "shards": []}')
    assert len(keys(lone)) == 2


def test_a_damaged_index_is_an_error(copied):
    index = copied / "index.json"
    index.write_bytes(index.read_bytes()[:-20])
    with pytest.raises(scanshards.CorruptSample, match=r"index.json: cannot be read"):
        scanshards.open(copied / "scannet-*.tar")


def test_a_shorter_or_longer_shard_is_an_error_with_and_without_verify(copied):
    path = copied / "scannet-000000.tar"
    data = path.read_bytes()
    for changed in (data[:-512], data + bytes(512), b""):
        path.write_bytes(changed)
        for verify in (True, False):
            with pytest.raises(
                scanshards.CorruptSample, match=f"has {len(changed)} bytes, expected {len(data)}"
            ):
                list(scanshards.open(path, verify=verify))


def test_without_verify_hashes_are_not_checked(copied):
    path = copied / "scannet-000000.tar"
    clip = next(iter(scanshards.open(path)))
    start = path.read_bytes().index(make_members()["latents.npy"]) + 1000
    with path.open("r+b") as file:
        file.seek(start)
        file.write(b"\x00\x01\x02\x03")
    with pytest.raises(scanshards.CorruptSample, match="member latents.npy: XXH3-64 is"):
        next(iter(scanshards.open(path)))
    unchecked = next(iter(scanshards.open(path, verify=False)))
    assert (unchecked.latents != make_arrays()["latents"]).sum() in (1, 2)
    assert clip.key == unchecked.key


@pytest.mark.slow
def test_verification_costs_at_most_a_twentieth_of_decoding(release):
    """Medians of pairs, processor time: about 1 % here."""

    def seconds(verify: bool) -> float:
        began = time.process_time()
        for clip in scanshards.open(release / "scannet-000000.tar", verify=verify):
            _ = [getattr(clip, name) for name in ("frames", "depth", "bev", "bev_valid", "objects", "texts")]
            _ = clip.latents, clip.bev_latents, clip.patch_coords()
        return time.process_time() - began

    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    pairs = [(seconds(True), seconds(False)) for _ in range(30)]
    cv2.setNumThreads(threads)
    more = statistics.median(verified - plain for verified, plain in pairs)
    assert more <= 0.05 * statistics.median(plain for _, plain in pairs)
