"""TUM RGB-D: association by time against the benchmark's rule written out, quaternions, malformed lists."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from source_layouts import box, entry_of, write_tum

from pipeline.errors import ScanError
from pipeline.sources import open_source
from pipeline.sources.tum import associate, matrices, nearest

TIMES = st.lists(st.integers(0, 300_000), max_size=25).map(sorted)
MOST = 20_000


def reference(a: list[int], b: list[int]) -> list[int]:
    """The benchmark's rule: all pairs within the span, the closest first, each time once."""
    pairs = sorted((abs(x - y), i, j) for i, x in enumerate(a) for j, y in enumerate(b) if abs(x - y) <= MOST)
    matched = [-1] * len(a)
    free_a, free_b = set(range(len(a))), set(range(len(b)))
    for _, i, j in pairs:
        if i in free_a and j in free_b:
            matched[i] = j
            free_a.remove(i)
            free_b.remove(j)
    return matched


@given(TIMES, TIMES)
def test_pictures_are_associated_as_the_benchmark_does(a, b):
    got = associate(np.array(a, np.int64), np.array(b, np.int64), MOST)
    assert got.tolist() == reference(a, b)


@given(TIMES, TIMES)
def test_the_nearest_pose_is_the_nearest(a, b):
    got = nearest(np.array(a, np.int64), np.array(b, np.int64), MOST)
    for time, row in zip(a, got.tolist(), strict=True):
        near = [(abs(time - other), j) for j, other in enumerate(b) if abs(time - other) <= MOST]
        if not near:
            assert row == -1
        else:
            assert (abs(time - b[row]), b[row]) == min((distance, b[j]) for distance, j in near)


def test_times_that_are_no_recording_are_refused_before_they_fill_the_memory():
    times = np.zeros(100_000, np.int64)
    with pytest.raises(
        ScanError, match="got 10000000000 pairs of pictures within 0.02 s, expected at most 64"
    ):
        associate(times, times, MOST)


def test_quaternions_are_rotations():
    rotations = Rotation.random(50, random_state=1)
    shifts = np.random.default_rng(1).normal(size=(50, 3))
    rows = np.concatenate([shifts, 1.01 * rotations.as_quat()], axis=1)
    rows[7, 3:] = 0
    rows[8, 2] = np.nan
    got = matrices(rows)
    good = np.delete(np.arange(50), [7, 8])
    np.testing.assert_allclose(got[good, :3, :3], rotations.as_matrix()[good], atol=1e-12)
    np.testing.assert_array_equal(got[good, :3, 3], shifts[good])
    assert (got[good, 3] == [0, 0, 0, 1]).all()
    assert not np.isfinite(got[[7, 8]]).all(axis=(1, 2)).any()


def test_a_frame_without_depth_or_pose_stays_a_frame(tmp_path):
    recording = box(steps=3)
    folder = write_tum(tmp_path, "desk", recording)
    depth = (folder / "depth.txt").read_text().splitlines()
    (folder / "depth.txt").write_text("\n".join(line for i, line in enumerate(depth) if i != 3))
    truth = (folder / "groundtruth.txt").read_text().splitlines()
    (folder / "groundtruth.txt").write_text("\n".join(reversed(truth[:-1])))  # in any order
    with open_source(entry_of(tmp_path, "desk")) as source:
        assert source.num_frames == 6
        with pytest.raises(ScanError, match="frame 2: no depth picture"):
            source.depth(2)
        np.testing.assert_array_equal(source.depth(3), recording.depth(3))
        lost = ~np.isfinite(source.poses).all(axis=(1, 2))
        assert lost.tolist() == [False, False, False, False, True, True]
        np.testing.assert_allclose(source.poses[1], recording.poses[1], atol=1e-7)


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("rgb.txt", "1.0", r"rgb.txt line 14: got 1 words, expected 2"),
        ("rgb.txt", "1.0 /etc/passwd", r"rgb.txt line 14: got the file '/etc/passwd', expected one in the"),
        ("rgb.txt", "1.0 rgb/../../x.png", r"rgb.txt line 14: got the file"),
        ("depth.txt", "now depth/1.png", r"depth.txt line 14: got 'now', expected a number"),
        ("depth.txt", "nan depth/1.png", r"depth.txt line 14: got the time 'nan', expected seconds"),
        ("depth.txt", "1e300 depth/1.png", r"depth.txt line 14: got the time '1e300'"),
        ("groundtruth.txt", "1.0 0 0 0", r"groundtruth.txt line 13: got 4 words, expected 8"),
        (
            "groundtruth.txt",
            "1.0 0 0 0 0 0 0 2",
            r"groundtruth.txt line 13: got a quaternion of length 2.000",
        ),
    ],
)
def test_a_malformed_line_is_named(tmp_path, name, line, message):
    folder = write_tum(tmp_path, "desk", box(steps=6))
    with open(folder / name, "a") as file:
        file.write(line + "\n")
    with pytest.raises(ScanError, match=message):
        open_source(entry_of(tmp_path, "desk"))
