"""Shards made to do harm: nothing is executed, no path is followed, memory is bounded, errors are clear."""

from __future__ import annotations

import pickle
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import scanshards
from scanshards import codec, schema
from scanshards.verify import verify
from scanshards.write import clip_json, own_hash
from tests.small_shards import golden_members, raw_shard, small_sample, write_pieces

EXTRA_MEMORY = 512 << 20


class Executed(Exception):
    """Raised by unpickling `Payload`."""


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("raise __import__('tests.test_attacks').test_attacks.Executed()",)


def npy(
    descr: str, shape: str, content: bytes = b"", *, order: str = "False", version: bytes = b"\1\0"
) -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY" + version + struct.pack("<H", len(header)) + header + content


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, *, bits: int = 8, color: int = 2, content: bytes = b"") -> bytes:
    head = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(content)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def jpeg(width: int, height: int) -> bytes:
    """The golden frame 0 with another size in its header."""
    data = bytearray(golden_members()["frame00.jpg"])
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def blosc(num_bytes: int, block: int, rest: bytes = bytes(100), flags: int = 0x21) -> bytes:
    return struct.pack("<4B3I", 2, 1, flags, 2, num_bytes, block, 16 + len(rest)) + rest


PROGRESSIVE = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
DEPTH_BYTES = 32 * 384 * 384 * 2 + 128
MEMBER_ATTACKS: dict[str, dict[str, bytes]] = {
    "pickle as latents": {"latents_npy": pickle.dumps(Payload())},
    "object array": {"latents_npy": npy("'|O'", "(1,)", pickle.dumps(Payload()))},
    "code in the header": {"latents_npy": npy("__import__('os').system('true')", "(1,)")},
    "deep header": {"latents_npy": npy("(" * 400 + ")" * 400, "(1,)")},
    "structured dtype": {"latents_npy": npy("[('a', '<f2'), ('b', '|O')]", "(1,)")},
    "a terabyte of latents": {"latents_npy": npy("'<f2'", f"(32, 1, 16, 27, {1 << 40})")},
    "negative shape": {"latents_npy": npy("'<f2'", "(32, -1, 16, 27, -27)")},
    "shape of truth values": {"latents_npy": npy("'<f2'", "(32, True, 16, 27, 27)", bytes(746496))},
    "too little content": {"latents_npy": npy("'<f2'", "(32, 1, 16, 27, 27)", bytes(746494))},
    "too much content": {"latents_npy": npy("'<f2'", "(32, 1, 16, 27, 27)", bytes(746498))},
    "Fortran order": {"latents_npy": npy("'<f2'", "(32, 1, 16, 27, 27)", bytes(746496), order="True")},
    "npy version 2": {"latents_npy": npy("'<f2'", "(32, 1, 16, 27, 27)", bytes(746496), version=b"\2\0")},
    "big endian": {"latents_npy": npy("'>f2'", "(32, 1, 16, 27, 27)", bytes(746496))},
    "empty file": {"latents_npy": b""},
    "4 GB in a Blosc frame": {"depth_npy_blosc": blosc(0xFFFFFFFF, 1 << 20)},
    "Blosc frame of noise": {"depth_npy_blosc": blosc(DEPTH_BYTES, 1 << 20, bytes(range(256)) * 40)},
    "Blosc blocks of size 0": {"depth_npy_blosc": blosc(DEPTH_BYTES, 0)},
    "Blosc blocks beyond the frame": {"depth_npy_blosc": blosc(DEPTH_BYTES, 1 << 12, b"\xff" * 40000)},
    "stored Blosc frame without content": {"depth_npy_blosc": blosc(DEPTH_BYTES, 1 << 20, flags=0x23)},
    "Blosc frame of another length": {"depth_npy_blosc": golden_members()["depth.npy.blosc"] + b"\0"},
    "Blosc frame of an object array": {"depth_npy_blosc": codec.encode_npy_blosc(np.zeros(9, np.uint8))},
    "PNG of 65535 x 65535": {"bev_png": png(65535, 65535)},
    "PNG of 2^31 x 1": {"bev_png": png((1 << 31) - 1, 1)},
    "PNG of 16 bits": {"bev_png": png(432, 432, bits=16)},
    "PNG with a palette": {"bev_png": png(432, 432, color=3)},
    "PNG with alpha": {"bev_png": png(432, 432, color=6)},
    "grey PNG for colour": {"bev_png": golden_members()["bev_valid.png"]},
    "PNG without content": {"bev_png": png(432, 432)},
    "JPEG of 65535 x 65535": {"frame05_jpg": jpeg(65535, 65535)},
    "JPEG of one pixel more": {"frame05_jpg": jpeg(385, 384)},
    "JPEG without an end": {"frame05_jpg": golden_members()["frame05.jpg"][:-2]},
    "JPEG without picture data": {"frame05_jpg": golden_members()["frame05.jpg"][:200] + b"\xff\xd9"},
    "progressive JPEG": {
        "frame05_jpg": cv2.imencode(".jpg", np.zeros((384, 384, 3), np.uint8), PROGRESSIVE)[1].tobytes()
    },
    "grey JPEG": {"frame05_jpg": cv2.imencode(".jpg", np.zeros((384, 384), np.uint8))[1].tobytes()},
    "20 million empty lists": {"texts_json": b"[" + b"[]," * 20_000_000 + b"[]]"},
    "20 million empty objects": {"texts_json": b"[" + b"{}," * 20_000_000 + b"{}]"},
    "PNG for a JPEG": {"frame05_jpg": golden_members()["bev.png"]},
    "deep JSON": {"texts_json": b"[" * (8 << 20)},
    "deep objects": {"texts_json": b'{"a":' * (1 << 20)},
    "a number of a million digits": {"texts_json": b"[" + b"9" * 1_000_000 + b"]"},
    "NaN": {"objects_json": golden_members()["objects.json"].replace(b"0.75", b"NaN")},
    "infinity": {"objects_json": golden_members()["objects.json"].replace(b"0.75", b"-Infinity")},
    "infinity by exponent": {"objects_json": golden_members()["objects.json"].replace(b"0.75", b"1e999")},
    "columns of two lengths": {"objects_json": golden_members()["objects.json"].replace(b"[5,0]", b"[5]")},
    "truth value for a number": {
        "objects_json": golden_members()["objects.json"].replace(b"[5,0]", b"[5,true]")
    },
    "no UTF-8": {"texts_json": b'["\xff"]'},
    "byte order mark": {"texts_json": b"\xef\xbb\xbf[]"},
    "object for a list": {"texts_json": b"{}"},
    "list of nulls": {"texts_json": b"[null]"},
}


def read_all(path: Path) -> None:
    """Decode all that the shard holds."""
    for clip in scanshards.open(path):
        for name in clip.member_bytes:
            clip.member(name)


def refused(path: Path) -> scanshards.CorruptSample:
    """What the reader and `verify` both say."""
    with pytest.raises(scanshards.CorruptSample) as caught:
        read_all(path)
    (problem, *_) = verify(path).problems
    assert (problem.file, problem.key, problem.member) == (str(path), caught.value.key, caught.value.member)
    return caught.value


@pytest.mark.parametrize("attack", MEMBER_ATTACKS)
def test_a_member_that_breaks_the_format_is_refused_by_name(tmp_path, attack):
    (member,) = MEMBER_ATTACKS[attack]
    error = refused(raw_shard(tmp_path / "a.tar", small_sample(**MEMBER_ATTACKS[attack])))
    assert error.key == "small0-00"
    assert error.member.replace(".", "_") == member


LIMITED = """
import resource, sys
import scanshards
from tests.test_attacks import read_all

num_bytes = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (num_bytes + int(sys.argv[1]),) * 2)
for path in sys.argv[2:]:
    try:
        read_all(path)
    except scanshards.CorruptSample:
        continue
    sys.exit(f"{path} was accepted")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_attack_takes_much_memory(tmp_path):
    """All in one process that may take half a gigabyte more than it has after its imports."""
    paths = []
    for number, members in enumerate(MEMBER_ATTACKS.values()):
        paths.append(str(raw_shard(tmp_path / f"{number}.tar", small_sample(**members))))
    command = [sys.executable, "-c", LIMITED, str(EXTRA_MEMORY), *paths]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]


META_ATTACKS: dict[str, dict[str, Any]] = {
    "path as scan": {"scan_id": "../../etc/passwd"},
    "split that is a path": {"split": "../train"},
    "no focal length": {"depth_intrinsics": [[0, 0, 1], [0, 500, 1], [0, 0, 1]]},
    "negative focal length": {"color_intrinsics": [[500, 0, 1], [0, -500, 1], [0, 0, 1]]},
    "a projection for intrinsics": {"depth_intrinsics": [[500, 0, 1], [0, 500, 1], [0, 0, 0]]},
    "empty source": {"source": {"color_width": 0, "color_height": 1, "depth_width": 1, "depth_height": 1}},
    "endless source": {
        "source": {"color_width": 1, "color_height": 1, "depth_width": 1 << 40, "depth_height": 1}
    },
    "another crop": {"crop": {"x": 63, "y": 0, "width": 384, "height": 384}},
    "33 poses": {"world_from_cam": [np.eye(4).tolist()] * 33},
    "poses that are text": {"world_from_cam": "0" * 512},
    "version as text": {"format_version": "1"},
    "no members": {"members": []},
    "members that are numbers": {"members": [1, 2, 3]},
    "a list of lists": {"members": [[["clip.json"]]]},
}


@pytest.mark.parametrize("attack", META_ATTACKS)
def test_a_clip_json_that_breaks_the_format_is_refused(tmp_path, attack):
    error = refused(raw_shard(tmp_path / "a.tar", small_sample(), meta=META_ATTACKS[attack]))
    assert error.key == "small0-00"


def test_a_member_that_clip_json_lists_twice_is_refused(tmp_path):
    sample = small_sample()
    rows = codec.decode_json(clip_json(sample))["members"]
    for members in (rows + rows[-1:], [*rows[:3], rows[2], *rows[4:]], rows[:-1]):
        path = raw_shard(tmp_path / "a.tar", sample, meta={"members": members})
        assert "as in clip.json" in refused(path).what


@pytest.mark.parametrize("value", ["1e999", "NaN", "-Infinity"])
def test_a_camera_that_is_not_finite_is_refused(tmp_path, value):
    sample = small_sample()
    first = clip_json(sample).replace(b'"world_from_cam":[[[0.0', b'"world_from_cam":[[[' + value.encode())
    assert value.encode() in first
    first = first[:-18] + own_hash(first).encode() + first[-2:]
    write_pieces(tmp_path / "a.tar", sample.key, {schema.CLIP_JSON: first, **sample.members})
    error = refused(tmp_path / "a.tar")
    assert error.member == schema.CLIP_JSON


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("depth_intrinsics", [[1e-300, 0, 1], [0, 1e-300, 1], [0, 0, 1]]),
        ("world_from_cam", [[[1e308] * 4] * 3 + [[0, 0, 0, 1]]] * 32),
        ("world_from_cam", [[*np.eye(4)[:3].tolist(), [0, 0, 0.5, 1]]] * 32),
    ],
)
def test_verify_finds_cameras_that_give_no_coordinates(tmp_path, field, value):
    path = raw_shard(tmp_path / "a.tar", small_sample(), meta={field: value})
    (problem,) = verify(path).problems
    assert problem.member == schema.CLIP_JSON
    assert field in problem.what
