"""Damage of every kind is found, and the message names file, key and member."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import scanshards
from scanshards import codec, schema, tar
from scanshards.write import sample_bytes, write_shard
from tests.make_shards import make_sample
from tests.small_shards import golden_members, small_release, small_sample

NUM_FLIPS = 1500
NUM_MEMBERS = 41


@pytest.fixture(scope="module")
def release(tmp_path_factory) -> Path:
    return small_release(tmp_path_factory.mktemp("release")).parent


@pytest.fixture
def indexed(release, tmp_path) -> Path:
    """A shard of two samples beside its index."""
    return Path(shutil.copytree(release, tmp_path / "shards")) / "scannet-000000.tar"


@pytest.fixture
def lone(release, tmp_path) -> Path:
    """A shard of two samples without an index."""
    return Path(shutil.copy(release / "scannet-000000.tar", tmp_path / "lone.tar"))


def read_all(urls) -> list[scanshards.Clip]:
    """Read every byte that a hash covers."""
    clips = list(scanshards.open(urls))
    for clip in clips:
        clip.verify_members()
    return clips


def found_in(path: Path) -> scanshards.CorruptSample:
    with pytest.raises(scanshards.CorruptSample) as caught:
        read_all(path)
    error = caught.value
    assert error.file == str(path)
    assert all(part in str(error) for part in (error.file, error.key, error.member))
    return error


def flip(path: Path, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(bit // 8)
        byte = file.read(1)[0]
        file.seek(bit // 8)
        file.write(bytes([byte ^ 1 << bit % 8]))


def entries_of(data: bytes) -> list[tar.TarEntry]:
    return list(tar.read_entries(data, 0, len(data) - 1024))


def interesting_bytes(data: bytes) -> list[int]:
    """Bytes of headers, padding, clip.json and the end, where layout is decided."""
    positions: list[int] = []
    for entry in entries_of(data):
        positions += range(entry.offset, entry.start)
        positions += range(entry.start + entry.num_bytes, entry.end)
        if entry.name.endswith("clip.json"):
            positions += range(entry.start, entry.start + entry.num_bytes)
    return positions + list(range(len(data) - 1024, len(data)))


def named_by(error: scanshards.CorruptSample, data: bytes, byte: int, has_index: bool) -> bool:
    """Whether the error names the sample and the member that the byte is of.

    Without an index a damaged header or padding is found before it is known whose it is: then the error
    names the last member that was whole and says that the damage is there or after it.
    """
    entries = entries_of(data)
    number = next((i for i, entry in enumerate(entries) if entry.offset <= byte < entry.end), None)
    if number is None:
        return error.key == "" or "here or after it" in error.what
    places = [entries[number].name]
    if (
        not has_index
        and not entries[number].start <= byte < entries[number].start + entries[number].num_bytes
    ):
        places = [entries[number - 1].name if number else "."]
        assert "here or after it" in error.what
    return f"{error.key}.{error.member}" in places


@pytest.mark.parametrize("has_index", [True, False], ids=["index", "no index"])
def test_every_flipped_bit_is_found_and_placed(indexed, lone, has_index):
    path = indexed if has_index else lone
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    some = rng.choice(interesting_bytes(data), NUM_FLIPS * 3 // 4)
    for byte in (*some, *rng.integers(0, len(data), NUM_FLIPS // 4)):
        bit = int(byte) * 8 + int(rng.integers(8))
        flip(path, bit)
        error = found_in(path)
        assert named_by(error, data, int(byte), has_index), (int(byte), error)
        flip(path, bit)
    assert path.read_bytes() == data
    assert len(read_all(path)) == 2


@pytest.mark.parametrize("has_index", [True, False], ids=["index", "no index"])
def test_a_flipped_bit_in_any_content_names_its_member(indexed, lone, has_index):
    path = indexed if has_index else lone
    for entry in entries_of(path.read_bytes()):
        key, _, member = entry.name.partition(".")
        for byte in (entry.start, entry.start + entry.num_bytes // 2, entry.start + entry.num_bytes - 1):
            flip(path, byte * 8)
            error = found_in(path)
            assert (error.key, error.member) == (key, member)
            flip(path, byte * 8)


@pytest.mark.parametrize("has_index", [True, False], ids=["index", "no index"])
def test_every_truncation_is_found(indexed, lone, has_index):
    path = indexed if has_index else lone
    data = path.read_bytes()
    cuts = {len(data) - n for n in (1, 511, 512, 513, 1023, 1024)} | {0, 1}
    for entry in entries_of(data):
        for boundary in (entry.offset, entry.start, entry.start + entry.num_bytes, entry.end):
            cuts |= {boundary - 1, boundary, boundary + 1}
    for cut in sorted(cuts - {-1}, reverse=True):
        with path.open("r+b") as file:
            file.truncate(cut)
        assert "bytes" in found_in(path).what


@pytest.mark.parametrize("num_bytes", [1, 512, 1024, 10240])
def test_bytes_after_the_end_are_found(indexed, lone, num_bytes):
    for path in (indexed, lone):
        for more in (bytes(num_bytes), b"\1" * num_bytes):
            data = path.read_bytes()
            path.write_bytes(data + more)
            found_in(path)
            path.write_bytes(data)


Pieces = list[bytes]


def rebuilt(path: Path, order: Callable[[Pieces], Pieces]) -> bool:
    """Write the shard again with its members in another order; False if that changes nothing."""
    data = path.read_bytes()
    pieces = [data[e.offset : e.end] for e in entries_of(data)]
    changed = b"".join(order(pieces)) + bytes(1024)
    path.write_bytes(changed)
    return changed != data


ORDERS: dict[str, Callable[[Pieces, int], Pieces]] = {
    "dropped": lambda p, i: p[:i] + p[i + 1 :],
    "doubled": lambda p, i: p[: i + 1] + p[i:],
    "doubled at the end": lambda p, i: [*p, p[i]],
    "swapped": lambda p, i: p[: i - 1] + p[i : i + 1] + p[i - 1 : i] + p[i + 1 :],
    "moved to the front": lambda p, i: [p[i], *p[:i], *p[i + 1 :]],
    "replaced by its neighbour": lambda p, i: [*p[:i], p[i - 1], *p[i + 1 :]],
}


@pytest.mark.parametrize("change", ORDERS)
def test_dropped_doubled_and_reordered_members_are_found(lone, indexed, change):
    for path, step in ((lone, 1), (indexed, 5)):
        data = path.read_bytes()
        for i in range(NUM_MEMBERS, 2 * NUM_MEMBERS, step):
            if rebuilt(path, lambda pieces, i=i: ORDERS[change](pieces, i)):
                found_in(path)
            path.write_bytes(data)


@pytest.mark.parametrize(
    "order",
    [
        lambda p: p[NUM_MEMBERS:] + p[:NUM_MEMBERS],
        lambda p: p + p[NUM_MEMBERS:],
        lambda p: p[:NUM_MEMBERS] * 2,
        lambda p: [],
    ],
    ids=["swapped", "doubled", "replaced", "none"],
)
def test_doubled_swapped_and_missing_samples_are_found(lone, indexed, order):
    for path in (lone, indexed):
        rebuilt(path, order)
        found_in(path)


def test_a_dropped_sample_is_found_by_the_index(indexed):
    rebuilt(indexed, lambda pieces: pieces[:NUM_MEMBERS])
    assert "as in index.json" in found_in(indexed).what


def test_members_of_two_samples_that_change_places_are_found(lone):
    """Same name, size and place: only the hash in clip.json can tell."""
    write_shard(lone, [small_sample("small0"), small_sample("small1")])
    other = sample_bytes(make_sample("small0", seed=1))
    foreign = next(e for e in tar.read_entries(other, 0, len(other)) if e.name.endswith("frame03.jpg"))
    name = "small0-00.frame03.jpg"
    piece = tar.header(name, foreign.num_bytes) + other[foreign.start : foreign.end]
    at = 1 + schema.FRAME_NAMES.index("frame03.jpg")
    assert rebuilt(lone, lambda pieces: [*pieces[:at], piece, *pieces[at + 1 :]])
    error = found_in(lone)
    assert (error.key, error.member) == ("small0-00", "frame03.jpg")


def test_damage_in_a_member_that_is_not_asked_for_is_found_when_everything_is_read(indexed):
    """With fields= only what is decoded is checked; without, the whole range."""
    data = indexed.read_bytes()
    flip(indexed, (data.index(golden_members()["bev.png"]) + 9) * 8)
    assert [clip.latents.shape[0] for clip in scanshards.open(indexed, fields=["latents"])] == [32, 32]
    with pytest.raises(scanshards.CorruptSample, match="member bev.png"):
        next(iter(scanshards.open(indexed)))
    with pytest.raises(scanshards.CorruptSample, match="member bev.png"):
        _ = next(iter(scanshards.open(indexed, fields=["bev"]))).bev


def test_a_newer_format_version_is_refused_by_name(lone, monkeypatch):
    sample = small_sample()
    monkeypatch.setattr(codec, "FORMAT_VERSION", 2)
    monkeypatch.setattr(schema, "FORMAT_VERSION", 2)
    write_shard(lone, [sample])
    monkeypatch.undo()
    assert "got format_version 2, expected 1; a newer" in found_in(lone).what


def test_errors_survive_the_way_between_processes():
    error = scanshards.CorruptSample("a.tar", "k-00", "bev.png", "is wrong")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) == "a.tar, sample k-00, member bev.png: is wrong"
    assert isinstance(again, ValueError)
