"""ScanNet's layout as a source: meta file, depth units, fingerprints."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import xxhash
from sens_room import ALIGNMENT, Recording, depth_of, frames_of, pose_of, write_scan

from pipeline.errors import ScanError
from pipeline.scans import FileStamp, ScanEntry
from pipeline.sources import alignment, open_source
from pipeline.sources.depth_units import depth_mm_from_units
from pipeline.sources.meta import read_alignment, read_meta


def test_source_gives_what_the_files_say(tmp_path):
    with open_source(write_scan(tmp_path, "scene0000_00")) as source:
        assert (source.num_frames, source.num_frames_declared) == (5, 5)
        assert source.color_size == source.depth_size == (64, 48)
        np.testing.assert_allclose(source.alignment, ALIGNMENT, atol=1e-6)
        np.testing.assert_array_equal(source.poses, [pose_of(i) for i in range(5)])
        assert source.poses.dtype == source.alignment.dtype == np.float64
        assert source.depth_intrinsics.tolist() == [[60, 0, 32], [0, 60, 24], [0, 0, 1]]
        np.testing.assert_array_equal(source.depth(3), depth_of(3))
        assert source.color(3).shape == (48, 64, 3)


def test_depth_units_become_millimetres(tmp_path):
    with open_source(write_scan(tmp_path, "scene0000_00", Recording(depth_shift=4000.0))) as source:
        depth = source.depth(0)
    assert depth[30, 30] == 2000 and depth[15, 15] == 0
    units = np.array([[0, 1, 5, 40000, 65535]], np.uint16)
    assert depth_mm_from_units(units, 500.0).tolist() == [[0, 2, 10, 0, 0]]
    assert depth_mm_from_units(units, 1000.0) is units


def test_a_cut_off_recording_says_how_many_frames_are_missing(tmp_path):
    entry = write_scan(tmp_path, "scene0000_00")
    path = entry.path("sens")
    path.write_bytes(path.read_bytes()[: -(3 * 128 + 8 + 10)])
    with open_source(entry) as source:
        assert (source.num_frames, source.num_frames_declared) == (4, 5)
        assert len(source.poses) == 4


def test_fingerprint_depends_on_the_chosen_frames_and_the_meta_file_only(tmp_path):
    entry = write_scan(tmp_path, "scene0000_00")
    with open_source(entry) as source:
        first = source.fingerprint([1, 3])
        assert source.fingerprint([1, 2]) != first
    frames = frames_of(Recording())
    header = entry.path("sens").read_bytes()[:307]
    pieces = [header]
    for frame in (frames[1], frames[3]):
        times = np.array([frame.color_timestamp_us, frame.depth_timestamp_us], "<u8")
        sizes = np.array([len(frame.color), len(frame.depth)], "<u8")
        pieces += [frame.scan_from_cam.tobytes(), times.tobytes(), sizes.tobytes(), frame.color, frame.depth]
    hashed = b"".join(pieces)
    assert first[0] == {
        "name": "scene0000_00.sens#header+frames",
        "bytes": len(hashed),
        "xxh3": xxhash.xxh3_64_hexdigest(hashed),
    }
    assert first[1]["name"] == "scene0000_00.txt"
    frames[2] = replace(frames[2], scan_from_cam=np.full((4, 4), 7, np.float32))
    with open_source(write_scan(tmp_path / "changed", "scene0000_00", frames=frames)) as source:
        assert source.fingerprint([1, 3]) == first


def test_meta_lines_are_split_at_the_first_equals_sign(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("sceneType = A = B\n\nno pair here\naxisAlignment=1 2\n")
    assert read_meta(path) == {"sceneType": "A = B", "axisAlignment": "1 2"}


def test_alignment_defaults_to_identity(tmp_path):
    (tmp_path / "a.txt").write_text("sceneType = Office\n")
    np.testing.assert_array_equal(read_alignment(tmp_path / "a.txt"), np.eye(4))
    np.testing.assert_array_equal(read_alignment(None), np.eye(4))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 0 0", "got 3 numbers, expected 16"),
        ("one two", "got 'one two', expected 16 numbers"),
        (" ".join(["nan"] * 16), "expected a finite rigid transform"),
        ("2 0 0 0 0 2 0 0 0 0 2 0 0 0 0 1", "expected a finite rigid transform"),
        ("-1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1", "expected a finite rigid transform"),
        ("1 0 0 0 0 1 0 0 0 0 1 0 0 0 1 1", "expected a finite rigid transform"),
    ],
)
def test_a_bad_alignment_is_a_scan_error(tmp_path, text, message):
    entry = write_scan(tmp_path, "scene0000_00")
    entry.path("meta").write_text(f"axisAlignment = {text}\n")
    with pytest.raises(ScanError, match=f"scene0000_00.txt: axisAlignment: .*{message}"):
        open_source(entry)
    with pytest.raises(ScanError, match=f"scene0000_00.txt: axisAlignment: .*{message}"):
        alignment(entry)


def test_alignment_reads_the_meta_file_alone(tmp_path):
    entry = write_scan(tmp_path, "scene0000_00")
    entry.path("sens").write_bytes(b"no recording")
    np.testing.assert_array_equal(alignment(entry), ALIGNMENT)


def test_unknown_source_and_missing_file_are_named(tmp_path):
    entry = write_scan(tmp_path, "scene0000_00")
    with pytest.raises(ValueError, match="source 'other', expected one of 'scannet', 'posed_images'"):
        open_source(replace(entry, source="other"))
    with pytest.raises(ScanError, match=r"scene0000_00: no \.sens file"):
        open_source(replace(entry, files={}))


def test_real_room_is_a_source(shared_dir):
    folder = shared_dir / "scans" / "scene9000_00"
    files = {
        role: FileStamp.of(folder / f"scene9000_00.{suffix}", folder)
        for role, suffix in (("sens", "sens"), ("meta", "txt"))
    }
    with open_source(ScanEntry("scene9000_00", str(folder), files, "train", "scannet")) as source:
        assert source.num_frames == 125
        assert np.isfinite(source.poses).all()
        assert source.alignment[2, 3] == 1.6437
