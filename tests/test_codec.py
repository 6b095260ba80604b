"""Bytes <-> arrays: round trips, stable bytes, and refusal of what does not fit."""

from __future__ import annotations

import io
import json
import pickle

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numcodecs import blosc

from scanshards import codec, schema
from tests.make_shards import make_arrays, make_depth, make_members

DTYPES = st.sampled_from(["<u1", "|u1", "<u2", "<i2", "<f2", "<f4", "<f8", "<i8", "|b1"])


@given(array=hnp.arrays(DTYPES, hnp.array_shapes(min_dims=0, max_dims=5, max_side=6)))
@settings(max_examples=150, deadline=None)
def test_npy_round_trips_and_numpy_reads_and_writes_the_same(array):
    data = codec.encode_npy(array)
    decoded = codec.decode_npy(data, array.dtype.str, array.shape)
    np.testing.assert_array_equal(decoded, array)
    assert decoded.dtype == array.dtype
    assert decoded.flags.writeable
    np.testing.assert_array_equal(np.load(io.BytesIO(data), allow_pickle=False), array)
    by_numpy = io.BytesIO()
    np.save(by_numpy, array)
    np.testing.assert_array_equal(codec.decode_npy(by_numpy.getvalue(), array.dtype.str, array.shape), array)


def test_npy_is_little_endian_and_in_c_order_whatever_comes_in():
    array = np.asfortranarray(np.arange(12, dtype=">u2").reshape(3, 4))
    data = codec.encode_npy(array)
    np.testing.assert_array_equal(codec.decode_npy(data, "<u2", (3, 4)), array)


def test_npy_blosc_round_trips_and_is_the_same_on_repeat():
    depth = make_depth()
    data = codec.encode_npy_blosc(depth)
    assert data == codec.encode_npy_blosc(depth)
    decoded = codec.decode_npy_blosc(data, "<u2", depth.shape)
    np.testing.assert_array_equal(decoded, depth)
    assert decoded.flags.writeable


def test_blosc_frame_is_zstd_with_byte_shuffle_of_two_bytes():
    data = codec.encode_npy_blosc(make_depth())
    flags, type_size = data[2], data[3]
    assert type_size == 2
    assert flags & 0b1  # byte shuffle
    assert flags >> 5 == 4  # zstd
    assert blosc.use_threads is False


def test_png_round_trips_in_color_and_grey():
    arrays = make_arrays()
    mask = arrays["bev_valid"].astype(np.uint8) * 255
    for image in (arrays["bev"], mask):
        np.testing.assert_array_equal(codec.decode_png(codec.encode_png(image), image.shape), image)


def test_jpeg_keeps_red_red_and_is_near():
    rgb = np.zeros((384, 384, 3), np.uint8)
    rgb[..., 0] = np.linspace(0, 255, 384)[:, None]
    rgb[..., 2] = 40
    decoded = codec.decode_jpeg(codec.encode_jpeg(rgb), (384, 384, 3))
    assert np.abs(decoded.astype(int) - rgb).max() <= 6
    assert codec.encode_jpeg(rgb) == codec.encode_jpeg(rgb)


def test_jpeg_size_is_read_behind_other_segments():
    data = codec.encode_jpeg(np.zeros((16, 24, 3), np.uint8))
    comment = b"\xff\xfe\x00\x06abcd"
    assert codec.decode_jpeg(data[:2] + comment + data[2:], (16, 24, 3)).shape == (16, 24, 3)


def test_a_cut_jpeg_is_refused_rather_than_filled_with_grey():
    data = make_members()["frame00.jpg"]
    assert codec.decode_jpeg(data + bytes(3), (384, 384, 3)).shape == (384, 384, 3)
    for length in range(0, len(data) - 1, 97):
        with pytest.raises(ValueError, match="JPEG"):
            codec.decode_jpeg(data[:length])


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=8))
@settings(max_examples=40, deadline=None)
def test_json_round_trips_compactly(value):
    data = codec.encode_json(value)
    assert codec.decode_json(data) == value
    assert data == json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def test_json_keeps_key_order_and_letters():
    assert codec.encode_json({"b": "Tür", "a": 1.5}) == '{"b":"Tür","a":1.5}'.encode()


@pytest.mark.parametrize("data", [b"NaN", b'{"a":-Infinity}', b"{", b"\xff", b"[" * 100_000, b""])
def test_bad_json_is_a_value_error(data):
    with pytest.raises(ValueError):
        codec.decode_json(data)


def test_json_refuses_to_write_nan():
    with pytest.raises(ValueError, match="JSON"):
        codec.encode_json([float("nan")])


def npy_of(descr: str, shape: str, content: bytes, order: str = "False") -> bytes:
    return npy_with(f"{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}", content)


def npy_with(header: str, content: bytes = b"") -> bytes:
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + content


OBJECT_NPY = io.BytesIO()
np.save(OBJECT_NPY, np.array([{"a": 1}], object), allow_pickle=True)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (OBJECT_NPY.getvalue(), r"got dtype '\|O', expected '<u2'"),
        (
            npy_of("<u2", "(4,)", b"12345678"),
            r"got shape \(4,\)",
        ),
        (
            npy_of("<u2", "(2,)", b"123"),
            "got 3 bytes of content",
        ),
        (npy_of("<u2", "(2,)", b"1234", "True"), "in C order"),
        (npy_of(">u2", "(2,)", b"1234"), "expected '<u2'"),
        (npy_of("<u2", "(2.0,)", b"1234"), "whole numbers"),
        (npy_of("<u2", "(True,)", b"12"), "whole numbers"),
        (npy_with("__import__('os').system('false')"), "no dict of descr"),
        (npy_with("(" * 110), "no dict of descr"),
        (npy_with("[1, 2]"), "no dict of descr"),
        (b"\x93NUMPY\x01\x00\xff\xff", "header ends at byte 65545"),
        (b"\x93NUMPY\x02\x00\x00\x00\x00\x00", "version 1.0"),
        (pickle.dumps([1, 2]), "expected a .npy file"),
        (b"", "expected a .npy file"),
    ],
)
def test_other_npy_files_are_refused_by_their_header(data, message):
    with pytest.raises(ValueError, match=message):
        codec.decode_npy(data, "<u2", (2,))


def test_a_blosc_bomb_is_refused_before_memory_is_taken():
    bomb = bytes(blosc.compress(np.zeros(1 << 26, np.uint8), b"zstd", 5, blosc.SHUFFLE))
    with pytest.raises(ValueError, match="decode to at most"):
        codec.decode_npy_blosc(bomb, "<u2", (4, 4))
    with pytest.raises(ValueError, match="expected"):
        codec.decode_npy_blosc(codec.encode_npy_blosc(np.zeros((4, 4), np.uint16))[:-1], "<u2", (4, 4))


def png_of_size(width: int, height: int) -> bytes:
    data = bytearray(codec.encode_png(np.zeros((4, 4), np.uint8)))
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    return bytes(data)


def test_image_bombs_are_refused_by_their_header():
    with pytest.raises(ValueError, match=r"got shape \(50000, 60000\)"):
        codec.decode_png(png_of_size(60000, 50000), (432, 432))
    with pytest.raises(ValueError, match="at most 67108864 in all"):
        codec.decode_png(png_of_size(60000, 50000))
    jpeg = codec.encode_jpeg(np.zeros((8, 16, 3), np.uint8))
    with pytest.raises(ValueError, match=r"got shape \(8, 16, 3\), expected \(384, 384, 3\)"):
        codec.decode_jpeg(jpeg, (384, 384, 3))


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8", b"\xff\xd8\xff", b"GIF89a" + bytes(40), b"\xff\xd8" + bytes(99)]
)
def test_what_is_no_image_is_a_value_error(data):
    for decode in (codec.decode_jpeg, codec.decode_png):
        with pytest.raises(ValueError):
            decode(data)


def test_sixteen_bit_and_alpha_pngs_are_refused():
    for image in (np.zeros((4, 4), np.uint16), np.zeros((4, 4, 4), np.uint8)):
        data = cv2.imencode(".png", image)[1].tobytes()
        with pytest.raises(ValueError, match="expected 8 bits, grey"):
            codec.decode_png(data)


@given(data=st.binary(max_size=400))
@settings(max_examples=100, deadline=None)
def test_random_bytes_are_a_value_error_for_every_member(data):
    for member in schema.MEMBERS.values():
        with pytest.raises(ValueError):
            codec.decode(member, data)


@given(data=st.data())
@settings(max_examples=80, deadline=None)
def test_damaged_members_decode_or_raise_value_error(data):
    """Without hashes too: a flipped bit gives another array or a ValueError, nothing else."""
    name = data.draw(
        st.sampled_from(["frame00.jpg", "depth.npy.blosc", "bev.png", "latents.npy", "texts.json"])
    )
    damaged = bytearray(make_members()[name])
    position = data.draw(st.integers(0, len(damaged) * 8 - 1))
    damaged[position // 8] ^= 1 << position % 8
    cut = data.draw(st.integers(1, len(damaged)))
    for candidate in (bytes(damaged), bytes(damaged[:cut])):
        try:
            codec.decode(schema.MEMBERS[name], candidate)
        except ValueError:
            continue


def test_encoders_refuse_other_arrays():
    with pytest.raises(ValueError, match=r"expected \(H, W, 3\) uint8"):
        codec.encode_jpeg(np.zeros((4, 4), np.uint8))
    with pytest.raises(ValueError, match=r"expected \(H, W\) or"):
        codec.encode_png(np.zeros((4, 4), np.uint16))
    with pytest.raises(ValueError, match="expected a number type"):
        codec.encode_npy(np.array(["a"]))
