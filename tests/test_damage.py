"""Damage of every kind is found, and the message names file, key and member."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

import scanshards
from scanshards import codec, schema, tar
from scanshards.write import sample_bytes, write_shard
from tests.make_shards import make_release, make_sample


@pytest.fixture(scope="module")
def release(tmp_path_factory) -> Path:
    return make_release(tmp_path_factory.mktemp("release"))


@pytest.fixture
def copied(release, tmp_path) -> Path:
    return Path(shutil.copytree(release, tmp_path / "shards"))


@pytest.fixture
def lone(tmp_path) -> Path:
    """A shard of two samples without an index."""
    path = tmp_path / "lone.tar"
    write_shard(path, [make_sample("scene0000_00"), make_sample("scene0001_00")])
    return path


def read_all(urls) -> list[scanshards.Clip]:
    """Read every byte that a hash covers."""
    clips = list(scanshards.open(urls))
    for clip in clips:
        clip.verify_members()
    return clips


def flip(path: Path, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(bit // 8)
        byte = file.read(1)[0]
        file.seek(bit // 8)
        file.write(bytes([byte ^ 1 << bit % 8]))


def interesting_bytes(data: bytes) -> list[int]:
    """Bytes of headers, padding, clip.json and the end, where layout is decided."""
    positions: list[int] = []
    for entry in tar.read_entries(data, 0, len(data) - 1024):
        positions += range(entry.offset, entry.start)
        positions += range(entry.start + entry.num_bytes, entry.end)
        if entry.name.endswith("clip.json"):
            positions += range(entry.start, entry.start + entry.num_bytes)
    return positions + list(range(len(data) - 1024, len(data)))


@pytest.mark.parametrize("indexed", [True, False])
def test_every_flipped_bit_is_found(copied, lone, indexed):
    path = copied / "scannet-000000.tar" if indexed else lone
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    places = np.concatenate([rng.choice(interesting_bytes(data), 220), rng.integers(0, len(data), 80)])
    for byte in places:
        bit = int(byte) * 8 + int(rng.integers(8))
        flip(path, bit)
        with pytest.raises(scanshards.CorruptSample) as caught:
            read_all(path)
        assert caught.value.file == str(path)
        flip(path, bit)
    assert path.read_bytes() == data
    assert len(read_all(path)) == 2


@pytest.mark.parametrize("indexed", [True, False])
def test_damage_names_file_key_and_member(copied, lone, indexed):
    path = copied / "scannet-000000.tar" if indexed else lone
    data = path.read_bytes()
    for entry in tar.read_entries(data, 0, len(data) - 1024):
        key, _, member = entry.name.partition(".")
        flip(path, (entry.start + entry.num_bytes // 2) * 8)
        with pytest.raises(scanshards.CorruptSample) as caught:
            read_all(path)
        assert (caught.value.file, caught.value.key, caught.value.member) == (str(path), key, member)
        for word in (str(path), key, member):
            assert word in str(caught.value)
        flip(path, (entry.start + entry.num_bytes // 2) * 8)


def test_every_truncation_is_found_without_an_index(lone):
    data = lone.read_bytes()
    cuts = set()
    for entry in tar.read_entries(data, 0, len(data) - 1024):
        for boundary in (entry.offset, entry.start, entry.start + entry.num_bytes, entry.end):
            cuts |= {boundary - 1, boundary, boundary + 1}
    cuts |= {len(data) - n for n in (1, 511, 512, 513, 1023, 1024)}
    for cut in sorted(cuts - {-1}, reverse=True):
        with lone.open("r+b") as file:
            file.truncate(cut)
        with pytest.raises(scanshards.CorruptSample):
            read_all(lone)


def rebuilt(path: Path, order) -> None:
    """Write the shard again with its members in another order: order(list of pieces) -> list of pieces."""
    data = path.read_bytes()
    pieces = [data[e.offset : e.end] for e in tar.read_entries(data, 0, len(data) - 1024)]
    path.write_bytes(b"".join(order(pieces)) + bytes(1024))


@pytest.mark.parametrize("member", [0, 1, 5, 33, 38, 39, 40, 79])
def test_dropped_doubled_and_swapped_members_are_found(lone, member):
    data = lone.read_bytes()
    for order in (
        lambda p: p[:member] + p[member + 1 :],
        lambda p: p[: member + 1] + p[member:],
        lambda p: p[: member - 1] + p[member : member + 1] + p[member - 1 : member] + p[member + 1 :],
    ):
        rebuilt(lone, order)
        if lone.read_bytes() != data:
            with pytest.raises(scanshards.CorruptSample):
                read_all(lone)
        lone.write_bytes(data)


def test_doubled_and_swapped_samples_are_found(lone):
    data = lone.read_bytes()
    for order in (lambda p: p[40:] + p[:40], lambda p: p + p[40:], lambda p: p[:40] + p[:40]):
        rebuilt(lone, order)
        with pytest.raises(scanshards.CorruptSample, match="rising keys|twice|at its place"):
            read_all(lone)
        lone.write_bytes(data)


def test_a_dropped_sample_is_found_by_the_index(copied):
    rebuilt(copied / "scannet-000000.tar", lambda pieces: pieces[:40])
    with pytest.raises(scanshards.CorruptSample, match="expected .* as in index.json"):
        read_all(copied / "scannet-000000.tar")


def test_a_member_of_another_sample_is_found(lone):
    data = lone.read_bytes()
    other = sample_bytes(make_sample("scene0000_00", seed=1))
    foreign = next(e for e in tar.read_entries(other, 0, len(other)) if e.name.endswith("frame03.jpg"))
    name = "scene0000_00-00.frame03.jpg"
    content = other[foreign.start : foreign.end]
    piece = tar.header(name, foreign.num_bytes) + content

    def order(pieces):
        index = next(i for i, p in enumerate(pieces) if p.startswith(name.encode()))
        return [*pieces[:index], piece, *pieces[index + 1 :]]

    rebuilt(lone, order)
    assert lone.read_bytes() != data
    with pytest.raises(scanshards.CorruptSample, match=r"member frame03.jpg"):
        read_all(lone)


def test_a_newer_format_version_is_refused_by_name(lone, monkeypatch):
    monkeypatch.setattr(codec, "FORMAT_VERSION", 2)
    monkeypatch.setattr(schema, "FORMAT_VERSION", 2)
    write_shard(lone, [make_sample()])
    monkeypatch.undo()
    with pytest.raises(scanshards.CorruptSample, match="got format_version 2, expected 1; a newer"):
        read_all(lone)


def test_errors_survive_the_way_between_processes():
    error = scanshards.CorruptSample("a.tar", "k-00", "bev.png", "is wrong")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) == "a.tar, sample k-00, member bev.png: is wrong"
    assert isinstance(again, ValueError)
