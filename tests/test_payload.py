"""Pictures and depth that are not what the recording's header says are refused, cheaply."""

from __future__ import annotations

import time
import zlib
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sens_room import HEIGHT, WIDTH, Recording, depth_of, frame_of, write_recording

from pipeline.errors import ScanError
from pipeline.sources.payload import decode_color
from pipeline.sources.sens import SensReader


def picture(kind: str, width: int, height: int) -> bytes:
    return cv2.imencode(kind, np.full((height, width, 3), 100, np.uint8))[1].tobytes()


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"", "got 0 bytes that are no whole picture"),
        (picture(".jpg", WIDTH + 1, HEIGHT), "got a picture of 65x48, expected 64x48"),
        (picture(".jpg", WIDTH, HEIGHT)[:-200], "no whole picture"),
        (picture(".png", WIDTH, HEIGHT), "no whole picture, expected jpeg"),
        (b"\xff\xd8" + b"\xff" * 5000 + b"\xff\xd9", "no whole picture"),
    ],
)
def test_a_bad_picture_is_refused_before_decoding(tmp_path, payload, message):
    frame = replace(frame_of(Recording(), 0), color=payload)
    with SensReader(write_recording(tmp_path / "a.sens", frames=[frame])) as reader:
        with pytest.raises(ScanError, match=f"a.sens: frame 0 color: .*{message}"):
            reader.color(0)


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_a_png_that_is_cut_off_is_refused(tmp_path, cut):
    recording = Recording(1, color_compression="png")
    frame = frame_of(recording, 0)
    frame = replace(frame, color=frame.color[:-cut])
    with SensReader(write_recording(tmp_path / "a.sens", recording, [frame])) as reader:
        with pytest.raises(ScanError, match="frame 0 color: .*no whole picture"):
            reader.color(0)


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"", r"stops after 0 bytes, expected 6144"),
        (b"not zlib at all", "bad zlib data"),
        (zlib.compress(bytes(6142)), "got 6142 bytes of depth, expected 6144"),
        (zlib.compress(bytes(6146)), "got more than 6144 bytes of depth"),
        (zlib.compress(bytes(6144))[:-3], "stops after 6144 bytes"),
        (zlib.compress(depth_of(0).tobytes())[:-30], r"stops after \d+ bytes"),
    ],
)
def test_depth_of_another_length_is_refused(tmp_path, payload, message):
    frame = replace(frame_of(Recording(), 0), depth=payload)
    with SensReader(write_recording(tmp_path / "a.sens", frames=[frame])) as reader:
        with pytest.raises(ScanError, match=f"a.sens: frame 0 depth: .*{message}"):
            reader.depth(0)


def test_a_zlib_bomb_is_not_inflated(tmp_path):
    deflate = zlib.compressobj(9)
    bomb = b"".join(deflate.compress(bytes(1 << 20)) for _ in range(100)) + deflate.flush()
    frame = replace(frame_of(Recording(), 0), depth=bomb)
    with SensReader(write_recording(tmp_path / "a.sens", frames=[frame])) as reader:
        start = time.perf_counter()
        with pytest.raises(ScanError, match="more than 6144 bytes"):
            reader.depth(0)
        assert time.perf_counter() - start < 0.1


def test_raw_payloads_must_have_the_exact_size(tmp_path):
    recording = Recording(1, color_compression="raw", depth_compression="raw")
    good = frame_of(recording, 0)
    for bad in (replace(good, color=good.color[:-1]), replace(good, depth=good.depth + b"\0\0")):
        with pytest.raises(ScanError, match=r"frame 0 (color|depth) byte count: got"):
            SensReader(write_recording(tmp_path / "a.sens", recording, [bad]))


@given(
    size=st.tuples(st.integers(1, 130), st.integers(1, 130)),
    at_least=st.tuples(st.integers(1, 130), st.integers(1, 130)),
)
def test_a_reduced_picture_is_the_smallest_whole_fraction_that_is_large_enough(size, at_least):
    rgb = decode_color(picture(".jpg", *size), "jpeg", *size, at_least=at_least)
    fractions = [(size[0] / n, size[1] / n) for n in (8, 4, 2, 1)]
    whole = [f for f in fractions if f[0].is_integer() and f[1].is_integer()]
    fits = [f for f in whole if f[0] >= at_least[0] and f[1] >= at_least[1]]
    width, height = fits[0] if fits else size
    assert rgb.shape == (height, width, 3)
    assert (np.abs(rgb.astype(int) - 100) <= 1).all()


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_a_reduced_picture_shows_what_the_whole_shows_without_a_shift(factor):
    width, height = 512, 384
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    bgr = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2 * factor), None, 20, 235, cv2.NORM_MINMAX)
    data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
    small = decode_color(data, "jpeg", width, height, at_least=(width // factor, height // factor))
    shrunk = cv2.resize(bgr[..., ::-1].copy(), small.shape[1::-1], interpolation=cv2.INTER_AREA)
    for channel in range(3):
        pair = (small[..., channel].astype(np.float32), shrunk[..., channel].astype(np.float32))
        shift, _ = cv2.phaseCorrelate(*pair)
        assert np.abs(shift).max() < 0.05
        assert np.abs(pair[0] - pair[1]).mean() < 1.0


@pytest.mark.parametrize("compression", ["png", "raw"])
def test_only_jpeg_is_reduced(compression):
    rgb = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    data = cv2.imencode(".png", rgb[..., ::-1])[1].tobytes() if compression == "png" else rgb.tobytes()
    np.testing.assert_array_equal(decode_color(data, compression, 64, 48, at_least=(8, 6)), rgb)


def test_the_reader_reduces_on_request_only(tmp_path):
    with SensReader(write_recording(tmp_path / "a.sens")) as reader:
        assert reader.color(0).shape == (HEIGHT, WIDTH, 3)
        assert reader.color(0, at_least=(WIDTH // 4, HEIGHT // 4)).shape == (HEIGHT // 4, WIDTH // 4, 3)
        whole, shrunk = reader.color(1).astype(int), reader.color(1, at_least=(WIDTH // 2, HEIGHT // 2))
        blocks = whole.reshape(HEIGHT // 2, 2, WIDTH // 2, 2, 3).mean(axis=(1, 3))
        assert np.abs(blocks - shrunk).mean() < 2
