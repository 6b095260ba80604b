"""Writing: canonical bytes, honest hashes, all or nothing on disk."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from dataclasses import replace

import numpy as np
import pytest
import xxhash

from scanshards import codec, schema, tar
from scanshards.write import Sample, atomic_write_bytes, clip_json, sample_bytes, write_shard
from tests.make_shards import make_members, make_meta, make_objects, make_sample, make_texts


def two_samples() -> list[Sample]:
    return [make_sample("scene0000_00"), make_sample("scene0001_00", seed=1)]


def test_the_same_samples_give_the_same_bytes(tmp_path):
    entries = [write_shard(tmp_path / f"{name}.tar", two_samples()) for name in "ab"]
    first, second = ((tmp_path / f"{name}.tar").read_bytes() for name in "ab")
    assert first == second
    assert entries[0] | {"file": ""} == entries[1] | {"file": ""}


def test_entry_describes_the_file(tmp_path):
    path = tmp_path / "scannet-000000.tar"
    entry = write_shard(path, two_samples())
    data = path.read_bytes()
    assert entry["file"] == path.name
    assert entry["bytes"] == len(data)
    assert entry["sha256"] == hashlib.sha256(data).hexdigest()
    assert [sample["key"] for sample in entry["samples"]] == ["scene0000_00-00", "scene0001_00-00"]
    end = 0
    for sample in entry["samples"]:
        assert sample["offset"] == end
        end += sample["bytes"]
        assert sample["xxh3"] == xxhash.xxh3_64_hexdigest(data[sample["offset"] : end])
    assert data[end:] == bytes(1024)


def test_tarfile_lists_the_members_in_order_with_fixed_attributes(tmp_path):
    write_shard(tmp_path / "a.tar", [make_sample()])
    with tarfile.open(tmp_path / "a.tar", "r:") as archive:
        members = archive.getmembers()
        names = [name for name in schema.MEMBERS if name != schema.COORDS_NAME]
        assert [member.name for member in members] == [f"scene0000_00-00.{name}" for name in names]
        stored = {m.name.partition(".")[2]: archive.extractfile(m).read() for m in members}
    assert {(m.mode, m.uid, m.gid, m.mtime, m.uname, m.gname, m.type) for m in members} == {
        (0o644, 0, 0, 0, "", "", b"0")
    }
    assert {name: stored[name] for name in make_members()} == make_members()


@pytest.mark.parametrize("num_bytes", [0, 1, 511, 512, 513, 8**11 - 1])
def test_header_is_what_tarfile_writes_for_ustar(num_bytes):
    info = tarfile.TarInfo("scene0000_00-00.depth.npy.blosc")
    info.size, info.mode = num_bytes, 0o644
    assert tar.header(info.name, num_bytes) == info.tobuf(tarfile.USTAR_FORMAT)


def test_clip_json_has_the_format_s_keys_in_order_and_true_hashes():
    sample = make_sample()
    data = clip_json(sample)
    meta = json.loads(data)
    expected = dict.fromkeys(field.path.partition(".")[0].removesuffix("[]") for field in schema.CLIP_FIELDS)
    assert list(meta) == list(expected)
    assert meta["members"] == [
        {"name": name, "bytes": len(content), "xxh3": xxhash.xxh3_64_hexdigest(content)}
        for name, content in sample.members.items()
    ]
    digits = meta["xxh3"].encode()
    assert data.endswith(b'"xxh3":"' + digits + b'"}')
    assert data.count(digits) == 1
    assert xxhash.xxh3_64_hexdigest(data.replace(digits, b"0" * 16)) == meta["xxh3"]
    assert {key: meta[key] for key in sample.meta} == sample.meta


def test_arrays_in_the_meta_are_written_like_lists():
    sample = make_sample()
    arrays = {name: np.array(sample.meta[name]) for name in ("world_from_cam", "alignment", "frame_indices")}
    assert clip_json(replace(sample, meta=sample.meta | arrays)) == clip_json(sample)


def test_whole_numbers_are_written_as_floats_where_the_table_says_float():
    sample = make_sample()
    whole = sample.meta | {"alignment": np.eye(4, dtype=int).tolist()}
    assert b'"alignment":[[1.0,0.0,0.0,0.0],' in clip_json(replace(sample, meta=whole))


def test_stored_coordinates_come_last():
    coords = np.zeros((32, 384, 384, 3), np.int16)
    sample = make_sample()
    data = sample_bytes(
        replace(sample, members=sample.members | {schema.COORDS_NAME: codec.encode_npy_blosc(coords)})
    )
    names = [entry.name.partition(".")[2] for entry in tar.read_entries(data, 0, len(data))]
    assert names == list(schema.MEMBERS)


def changed(**members: bytes) -> dict[str, bytes]:
    return make_members() | {name.replace("__", "."): data for name, data in members.items()}


def reordered() -> dict[str, bytes]:
    members = make_members()
    return {"bev.png": members["bev.png"], **members}


def texts_with(**fields: object) -> bytes:
    return codec.encode_json([make_texts()[0] | fields])


def objects_with(**columns: object) -> bytes:
    return codec.encode_json(make_objects() | columns)


def latents_of(num_moments: int, dtype: type) -> bytes:
    return codec.encode_npy(np.zeros((32, num_moments, 16, 27, 27), dtype))


SMALL_PNG = codec.encode_png(np.zeros((16, 16, 3), np.uint8))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({k: v for k, v in make_members().items() if k != "bev.png"}, "member 'bev.png' is missing"),
        (changed(evil__pickle=b""), "member 'evil.pickle' is missing, unknown"),
        (reordered(), "out of order"),
        (changed(bev__png=SMALL_PNG), r"bev.png: PNG: got shape \(16"),
        (changed(frame07__jpg=b"no image"), "frame07.jpg: .* expected a JPEG"),
        (changed(latents__npy=latents_of(3, np.float16)), r"latents.npy: npy: got shape \(32, 3"),
        (changed(latents__npy=latents_of(2, np.float32)), "'<f4', expected '<f2'"),
        (changed(texts__json=texts_with(hint="")), r"texts.json\[0\]: unknown key 'hint'"),
        (changed(texts__json=texts_with(box=None)), "box: got None"),
        (changed(objects__json=objects_with(scores=[])), "expected one length"),
        (changed(objects__json=objects_with(sources=["gt", "gt", "?"])), "'gt' or 'pred'"),
        (changed(frame00__jpg=make_members()["frame00.jpg"] + bytes(5 << 20)), "expected at most 4194304"),
    ],
)
def test_members_that_break_the_format_are_refused_by_name(members, message):
    with pytest.raises(ValueError, match=message):
        sample_bytes(replace(make_sample(), members=members))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scan_id": "other"}, "expected 'scene0000_00' as in the key"),
        ({"split": "test"}, "train or val"),
        ({"crop": {"x": 63, "y": 0, "width": 384, "height": 384}}, "resize and crop: got .*63"),
        ({"depth_intrinsics": [[0, 0, 1], [0, 1, 1], [0, 0, 1]]}, "depth_intrinsics"),
        ({"world_from_cam": np.full((32, 4, 4), -np.inf)}, r"world_from_cam: got -inf, expected finite"),
        ({"frame_indices": list(range(31))}, "expected a list of 32 ints"),
        ({"extra": 1}, "unknown key 'extra'"),
    ],
)
def test_meta_that_breaks_the_format_is_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        clip_json(replace(make_sample(), meta=make_meta("scene0000_00") | change))


@pytest.mark.parametrize(
    "key", ["scene0000.00-00", "scene0000_00", "scene/../x-00", "-00", "s" * 90 + "-00", "ü-00"]
)
def test_bad_keys_are_refused(key):
    with pytest.raises(ValueError, match="expected scan id"):
        sample_bytes(replace(make_sample(), key=key))


def test_keys_must_rise(tmp_path):
    with pytest.raises(ValueError, match="scene0000_00-00 after scene0001_00-00, expected rising keys"):
        write_shard(tmp_path / "a.tar", reversed(two_samples()))
    with pytest.raises(ValueError, match="expected rising keys"):
        write_shard(tmp_path / "a.tar", [make_sample(), make_sample()])
    assert list(tmp_path.iterdir()) == []


def test_an_empty_shard_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="got no sample"):
        write_shard(tmp_path / "a.tar", [])
    assert list(tmp_path.iterdir()) == []


def test_a_failure_midway_leaves_the_published_shard_and_nothing_else(tmp_path):
    path = tmp_path / "a.tar"
    write_shard(path, [make_sample()])
    before = path.read_bytes()

    def breaks():
        yield make_sample("scene0005_00")
        raise RuntimeError("the disk of the scans went away")

    with pytest.raises(RuntimeError, match="went away"):
        write_shard(path, breaks())
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.tar"]


def test_a_shard_is_replaced_not_changed(tmp_path):
    path = tmp_path / "a.tar"
    write_shard(path, [make_sample()])
    with path.open("rb") as reading:
        before = path.read_bytes()
        write_shard(path, [make_sample("scene0007_00")])
        assert reading.read() == before
    assert path.read_bytes() != before


def test_atomic_write_replaces_whole_files(tmp_path):
    path = tmp_path / "index.json"
    for data in (b"first", b"2"):
        atomic_write_bytes(path, data)
        assert path.read_bytes() == data
    assert [p.name for p in tmp_path.iterdir()] == ["index.json"]


def test_gnu_rules_for_the_end_of_an_archive_hold(tmp_path):
    write_shard(tmp_path / "a.tar", [make_sample()])
    data = (tmp_path / "a.tar").read_bytes()
    assert len(data) % 512 == 0
    with tarfile.open(fileobj=io.BytesIO(data), mode="r|", errorlevel=2) as archive:
        assert sum(1 for _ in archive) == 40
