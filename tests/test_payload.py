"""Pictures and depth that are not what the recording's header says are refused, cheaply."""

from __future__ import annotations

import time
import zlib
from dataclasses import replace

import cv2
import numpy as np
import pytest
from sens_room import HEIGHT, WIDTH, Recording, depth_of, frame_of, write_recording

from pipeline.errors import ScanError
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
