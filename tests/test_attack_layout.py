"""Tars and indices made to do harm: other kinds of entries, paths, sizes, members are refused."""

from __future__ import annotations

import json
import pickle

import pytest

import scanshards
from scanshards import schema, tar
from scanshards.index import load_index, root_hash
from scanshards.verify import verify
from scanshards.write import clip_json
from tests.small_shards import small_release, small_sample, write_pieces
from tests.test_attacks import Payload, read_all, refused

CANONICAL = tar.header("small0-00.clip.json", 4)


def header_with(**fields: tuple[int, bytes]) -> bytes:
    """A header with other bytes at some offsets and a true checksum."""
    block = bytearray(CANONICAL)
    for offset, value in fields.values():
        block[offset : offset + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


HEADERS = {
    "path upwards": header_with(name=(0, b"../../../etc/passwd\0")),
    "absolute path": header_with(name=(0, b"/etc/passwd-00.clip.json\0")),
    "path in a key": header_with(name=(0, b"a/b-00.clip.json\0\0\0\0")),
    "device": header_with(kind=(156, b"3")),
    "symbolic link": header_with(kind=(156, b"2"), target=(157, b"/etc/passwd")),
    "hard link": header_with(kind=(156, b"1"), target=(157, b"../x")),
    "folder": header_with(kind=(156, b"5")),
    "pax header": header_with(kind=(156, b"x")),
    "GNU long name": header_with(kind=(156, b"L")),
    "GNU sparse file": header_with(kind=(156, b"S")),
    "8 GB": header_with(size=(124, b"77777777777\0")),
    "size in base 256": header_with(size=(124, b"\x80" + b"\xff" * 11)),
    "negative size": header_with(size=(124, b"-0000000004\0")),
    "size with an underscore": header_with(size=(124, b"0000000_004\0")),
    "setuid": header_with(mode=(100, b"0004755\0")),
    "another owner": header_with(uid=(108, b"0000001\0")),
    "ustar prefix": header_with(prefix=(345, b"../../etc")),
    "no ASCII": header_with(name=(0, b"\xff")),
}


@pytest.mark.parametrize("attack", HEADERS)
@pytest.mark.parametrize("has_index", [True, False], ids=["index", "no index"])
def test_headers_of_other_kinds_are_refused(tmp_path, attack, has_index):
    path = small_release(tmp_path)
    data = path.read_bytes()
    path.write_bytes(HEADERS[attack] + data[512:])
    if not has_index:
        (tmp_path / "index.json").unlink()
    with pytest.raises(scanshards.CorruptSample) as caught:
        read_all(path)
    assert caught.value.file == str(path)


@pytest.mark.parametrize("place", [0, 20, 41])
def test_a_member_that_the_format_does_not_know_is_refused(tmp_path, place):
    sample = small_sample()
    pieces = list({schema.CLIP_JSON: clip_json(sample), **sample.members}.items())
    pieces.insert(place, ("evil.pkl", pickle.dumps(Payload())))
    write_pieces(tmp_path / "a.tar", sample.key, dict(pieces))
    assert "evil.pkl" in refused(tmp_path / "a.tar").what


@pytest.mark.parametrize(
    "name", ["../x.tar", "/etc/x.tar", "a/b/x.tar", "..\\x.tar", "val/../x.tar", "x.tar\0"]
)
def test_an_index_that_points_elsewhere_is_refused(tmp_path, name):
    small_release(tmp_path)
    index = load_index(tmp_path)
    index["shards"][0]["file"] = name
    index["root_hash"] = root_hash(index["shards"])
    (tmp_path / "index.json").write_text(json.dumps(index))
    for act in (load_index, verify):
        with pytest.raises(scanshards.CorruptSample, match="expected a new name"):
            act(tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [("offset", -1), ("offset", 1), ("bytes", 1 << 52), ("bytes", 0), ("key", "../x-00"), ("xxh3", "../x")],
)
def test_an_index_that_contradicts_itself_is_refused(tmp_path, field, value):
    path = small_release(tmp_path)
    index = load_index(tmp_path)
    index["shards"][0]["samples"][0][field] = value
    (tmp_path / "index.json").write_text(json.dumps(index))
    with pytest.raises(scanshards.CorruptSample) as caught:
        scanshards.open(path)
    assert caught.value.file == str(tmp_path / "index.json")
