"""The .sens reader and writer: round trips, and damage of every kind."""

from __future__ import annotations

import mmap
import struct
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sens_room import (
    HEIGHT,
    WIDTH,
    Recording,
    color_of,
    depth_of,
    frame_of,
    frames_of,
    header_of,
    pose_of,
    with_pose,
    write_recording,
)

from pipeline.errors import ScanError
from pipeline.sources import sens_format
from pipeline.sources.sens import SensFrame, SensReader, write_sens

VERSION_AT, NAME_AT = 0, 4
BODY_AT = 15
"""Start of the matrices in a file whose sensor name has 3 letters."""
CODES_AT, SIZES_AT, SHIFT_AT, COUNT_AT = BODY_AT + 256, BODY_AT + 264, BODY_AT + 280, BODY_AT + 284
FRAMES_AT = 307


def patch(path: Path, at: int, fmt: str, *values: float) -> Path:
    data = bytearray(path.read_bytes())
    struct.pack_into(fmt, data, at, *values)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("color", ["raw", "png", "jpeg"])
@pytest.mark.parametrize("depth", ["raw", "zlib"])
@pytest.mark.parametrize("color_size", [(WIDTH, HEIGHT), (97, 31)])
def test_what_is_written_is_read_back(tmp_path, color, depth, color_size):
    recording = Recording(3, color_size, color, depth)
    with SensReader(write_recording(tmp_path / "a.sens", recording)) as reader:
        assert reader.num_frames == reader.num_frames_declared == 3
        np.testing.assert_array_equal(reader.poses, [pose_of(i) for i in range(3)])
        np.testing.assert_array_equal(reader.frames["color_timestamp_us"], [0, 1000, 2000])
        for index in (2, 0, 1):
            np.testing.assert_array_equal(reader.depth(index), depth_of(index))
            got, want = reader.color(index).astype(int), color_of(recording, index).astype(int)
            assert np.abs(got - want).max() <= (12 if color == "jpeg" else 0)
        assert reader.imu()["timestamp_us"].tolist() == [0, 1, 2]
        assert reader.imu()["gravity"].tolist() == [[0, 0, -9.8]] * 3


def test_header_survives_the_round_trip(tmp_path):
    header = replace(
        header_of(Recording(depth_shift=4000.0)), color_extrinsics=np.diag([1, 2, 3, 1]).astype(np.float32)
    )
    write_sens(tmp_path / "a.sens", header, [])
    with SensReader(tmp_path / "a.sens") as reader:
        for name, value in vars(header).items():
            want = np.eye(4) if value is None else value
            np.testing.assert_array_equal(getattr(reader.header, name), want)


def test_two_frames_have_the_size_of_the_format(tmp_path):
    recording = Recording(2, num_imu=0)
    path = write_recording(tmp_path / "a.sens", recording)
    payloads = sum(len(f.color) + len(f.depth) for f in frames_of(recording))
    assert path.stat().st_size == 304 + 3 + 2 * 96 + payloads + 8
    assert sens_format.IMU_DTYPE.itemsize == 128


def test_same_input_gives_same_bytes(tmp_path):
    first = write_recording(tmp_path / "a.sens").read_bytes()
    assert write_recording(tmp_path / "b.sens").read_bytes() == first


def test_version_3_has_no_imu_tail(tmp_path):
    with SensReader(write_recording(tmp_path / "a.sens", Recording(2, version=3))) as reader:
        assert (reader.num_frames, reader.num_imu) == (2, 0)
        np.testing.assert_array_equal(reader.depth(1), depth_of(1))


def test_version_4_may_end_after_its_last_frame(tmp_path):
    path = write_recording(tmp_path / "a.sens", Recording(2, num_imu=0))
    path.write_bytes(path.read_bytes()[:-8])
    with SensReader(path) as reader:
        assert (reader.num_frames, len(reader.imu())) == (2, 0)


def test_poses_without_tracking_are_read_as_they_are(tmp_path):
    frames = [with_pose(frame_of(Recording(), 0), -np.inf), frame_of(Recording(), 1)]
    with SensReader(write_recording(tmp_path / "a.sens", frames=frames)) as reader:
        assert np.isneginf(reader.poses[0]).all()
        np.testing.assert_array_equal(reader.poses[1], pose_of(1))


def test_real_room_reads(shared_dir):
    with SensReader(shared_dir / "scans" / "scene9000_00" / "scene9000_00.sens") as reader:
        assert (reader.num_frames, reader.num_imu) == (125, 0)
        assert reader.color(124).shape == (360, 540, 3)
        assert 0.5 < np.count_nonzero(reader.depth(124)) / (360 * 540) <= 1


@pytest.mark.parametrize(
    ("at", "fmt", "values", "message"),
    [
        (VERSION_AT, "<I", (2,), r"version: got 2 \(the file begins with b'.*'\), expected 3 or 4"),
        (NAME_AT, "<Q", (1 << 60,), "sensor name length: got 1152921504606846976"),
        (CODES_AT, "<i", (-1,), "color compression: got -1, expected raw"),
        (CODES_AT + 4, "<i", (2,), r"depth compression: got occi \(2\)"),
        (CODES_AT + 4, "<i", (7,), "depth compression: got 7, expected raw"),
        (SIZES_AT, "<I", (1 << 31,), "color size: got 2147483648x48"),
        (SIZES_AT + 8, "<2I", (16384, 16384), "depth size: got 16384x16384"),
        (SIZES_AT + 12, "<I", (0,), "depth size: got 64x0"),
        (SHIFT_AT, "<f", (0.0,), "depth shift: got 0.0"),
        (SHIFT_AT, "<f", (float("nan"),), "depth shift: got nan"),
        (COUNT_AT, "<Q", (1 << 50,), "number of frames: got 1125899906842624"),
        (COUNT_AT, "<Q", (4,), "number of IMU records"),
        (FRAMES_AT + 80, "<Q", (1 << 63,), "frame 0 color byte count: got 9223372036854775808"),
        (FRAMES_AT + 88, "<Q", (1 << 40,), "frame 0 depth byte count: got 1099511627776"),
    ],
)
@pytest.mark.parametrize("strict", [True, False])
def test_a_bad_number_is_named_with_got_and_expected(tmp_path, at, fmt, values, message, strict):
    path = patch(write_recording(tmp_path / "bad.sens"), at, fmt, *values)
    with pytest.raises(ScanError, match=f"bad.sens: {message}"):
        SensReader(path, strict=strict)


def test_missing_empty_and_foreign_files_are_scan_errors(tmp_path):
    (tmp_path / "empty.sens").write_bytes(b"")
    (tmp_path / "short.sens").write_bytes(b"\4\0\0")
    with pytest.raises(ScanError, match=r"none.sens: cannot be opened \(No such file"):
        SensReader(tmp_path / "none.sens")
    with pytest.raises(ScanError, match="empty.sens: size: got 0 bytes"):
        SensReader(tmp_path / "empty.sens")
    with pytest.raises(ScanError, match="short.sens: header: got 3 bytes"):
        SensReader(tmp_path / "short.sens")


def test_bytes_after_the_tail_are_an_error(tmp_path):
    path = write_recording(tmp_path / "a.sens")
    path.write_bytes(path.read_bytes() + b"\0")
    for strict in (True, False):
        with pytest.raises(ScanError, match=r"end of the file: got byte \d+, expected byte \d+ \(3 IMU"):
            SensReader(path, strict=strict)


def test_every_truncation_keeps_exactly_the_whole_frames(tmp_path):
    recording = Recording(4)
    path = write_recording(tmp_path / "a.sens", recording)
    whole = path.read_bytes()
    ends = [FRAMES_AT]
    for frame in frames_of(recording):
        ends.append(ends[-1] + 96 + len(frame.color) + len(frame.depth))
    for size in range(FRAMES_AT, len(whole), 13):
        path.write_bytes(whole[:size])
        if size != ends[-1]:
            with pytest.raises(ScanError, match=f"{size}"):
                SensReader(path)
        with SensReader(path, strict=False) as reader:
            assert reader.num_frames == sum(end <= size for end in ends[1:])
            assert reader.num_frames_declared == 4
            for index in range(reader.num_frames):
                np.testing.assert_array_equal(reader.depth(index), depth_of(index))
    for size in range(FRAMES_AT):
        path.write_bytes(whole[:size])
        with pytest.raises(ScanError, match="a.sens: "):
            SensReader(path, strict=False)


def test_indexing_many_frames_does_not_read_their_payloads(tmp_path):
    """2,000 frames of 1 MB each, sparse on disk: the walk takes no time per payload byte."""
    path, recording = tmp_path / "big.sens", Recording(1, num_imu=0, color_size=(1296, 968))
    num_frames, color_bytes = 2000, 1_000_000
    write_recording(path, recording, [SensFrame(b"x", b"x", pose_of(0))])
    head = path.read_bytes()[:FRAMES_AT]
    frame = np.zeros((), sens_format.FRAME_DTYPE)
    frame["color_bytes"], frame["depth_bytes"] = color_bytes, 1
    with open(path, "wb") as file:
        file.write(head)
        for _ in range(num_frames):
            file.write(frame.tobytes())
            file.seek(color_bytes + 1, 1)
        file.write(bytes(8))
    patch_count = struct.pack("<Q", num_frames)
    with open(path, "r+b") as file:
        file.seek(COUNT_AT)
        file.write(patch_count)
    start = time.perf_counter()
    with SensReader(path) as reader:
        assert reader.num_frames == num_frames
    assert path.stat().st_size > 2_000_000_000
    assert time.perf_counter() - start < 1.0


@given(st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_files_read_right_or_say_why(tmp_path, data):
    compression = data.draw(st.sampled_from([("jpeg", "zlib"), ("png", "raw"), ("raw", "zlib")]))
    recording = Recording(3, (16, 12), *compression)
    path = write_recording(tmp_path / "a.sens", recording)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.just(len(content)) | st.integers(0, len(content)))])
    for strict in (True, False):
        try:
            with SensReader(path, strict=strict) as reader:
                read_all(reader)
        except ScanError as error:
            assert str(error).startswith("a.sens: ")


def read_all(reader: SensReader) -> None:
    """Every frame has the header's size or a reason."""
    h = reader.header
    reader.imu()
    for index in range(reader.num_frames):
        try:
            assert reader.color(index).shape == (h.color_height, h.color_width, 3)
        except ScanError as error:
            assert f"frame {index} color" in str(error)
        try:
            assert reader.depth(index).shape == (h.depth_height, h.depth_width)
        except ScanError as error:
            assert f"frame {index} depth" in str(error)


def test_a_payload_is_asked_for_in_whole_pages_before_it_is_read(tmp_path):
    asked = []

    class Spy(SensReader):
        def _advise(self, advice, *pages):
            asked.append((advice, *pages))
            super()._advise(advice, *pages)

    with Spy(write_recording(tmp_path / "a.sens", Recording(40))) as reader:
        for index in range(reader.num_frames):
            asked.clear()
            data = reader.record(index)
            start = int(reader._offsets[index])
            ((advice, first, length),) = asked
            assert advice == "MADV_WILLNEED"
            assert first % mmap.PAGESIZE == 0
            assert start - mmap.PAGESIZE < first <= start
            assert first + length == start + len(data)


def test_an_empty_payload_at_the_end_of_a_last_full_page_is_empty(tmp_path):
    recording = Recording(1, version=3)
    frame = replace(frame_of(recording, 0), depth=b"")
    size = write_recording(tmp_path / "a.sens", recording, [frame]).stat().st_size
    frame = replace(frame, color=frame.color + bytes(-size % mmap.PAGESIZE))
    path = write_recording(tmp_path / "a.sens", recording, [frame])
    assert path.stat().st_size % mmap.PAGESIZE == 0
    with SensReader(path) as reader:
        assert reader.depth_bytes(0) == b""
        assert reader.color_bytes(0) == frame.color
