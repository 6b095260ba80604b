"""Frame choice against slow references written straight from the contract."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.sampling import (
    candidate_frames,
    choose_frames,
    has_pose,
    nearest_first,
    uniform_positions,
)


def slow_choice(candidates: list[int], count: int, bad: set[int]) -> tuple[list[int], set[int]]:
    """(frames, rejected) by searching the whole list at each step."""
    step = [int(x) for x in np.linspace(0, len(candidates) - 1, count)]
    wanted = [candidates[p] for p in step]
    examined = set(wanted)
    instead = {}
    for frame in sorted(examined & bad):
        while left := [c for c in candidates if c not in examined]:
            nearest = min(left, key=lambda c: (abs(c - frame), c))
            examined.add(nearest)
            if nearest not in bad:
                instead[frame] = nearest
                break
    good = examined - bad
    if not good:
        return [], examined
    for frame in set(wanted) & bad - instead.keys():
        instead[frame] = min(good, key=lambda g: (abs(g - frame), g))
    return sorted(instead.get(f, f) for f in wanted), examined & bad


@given(
    st.lists(st.integers(0, 200), unique=True, min_size=1, max_size=60),
    st.integers(1, 40),
    st.floats(0, 1),
    st.randoms(use_true_random=False),
)
@settings(max_examples=300, deadline=None)
def test_choice_equals_the_slow_reference(frames, count, share, random):
    candidates = sorted(frames)
    bad = {frame for frame in candidates if random.random() < share}
    calls: list[int] = []

    def verdict(frame: int) -> str | None:
        calls.append(frame)
        return "bad" if frame in bad else None

    choice = choose_frames(np.array(candidates), count, verdict)
    want_frames, want_rejected = slow_choice(candidates, count, bad)
    assert choice.frames == want_frames
    assert set(choice.rejected) == want_rejected
    assert len(calls) == len(set(calls)), "a frame was examined twice"
    if len(candidates) - len(bad) >= count:
        assert len(set(choice.frames)) == count, "frames repeat although enough are good"


@given(st.lists(st.integers(0, 50), unique=True, max_size=30), st.integers(-5, 55))
def test_nearest_first_is_sorting_by_distance_then_index(frames, frame):
    want = sorted(frames, key=lambda c: (abs(c - frame), c))
    assert list(nearest_first(np.array(sorted(frames), np.int64), frame)) == want


@pytest.mark.parametrize("n", [1, 2, 31, 32, 33, 100, 125, 1653, 5578])
def test_uniform_positions_are_truncated_linspace(n):
    want = [int(x) for x in np.linspace(0, n - 1, 32)]
    got = uniform_positions(n, 32)
    assert got.tolist() == want
    assert got[0] == 0 and got[-1] == n - 1
    assert len(set(want)) == min(n, 32)


def test_few_candidates_repeat_and_each_is_examined_once():
    calls = []
    choice = choose_frames(np.array([3, 8, 9]), 32, lambda frame: calls.append(frame))
    assert sorted(calls) == [3, 8, 9]
    assert choice.frames == sorted(choice.frames) and set(choice.frames) == {3, 8, 9}
    assert choice.rejected == {}


def test_no_candidate_gives_an_empty_choice():
    assert choose_frames(np.array([], np.int64), 32, lambda frame: None).frames == []


def test_the_lower_index_wins_a_tie():
    choice = choose_frames(np.arange(7), 3, lambda frame: "bad" if frame == 3 else None)
    assert choice.frames == [0, 2, 6]


def test_a_pose_must_be_finite_everywhere_and_not_all_zero():
    poses = np.tile(np.eye(4, dtype=np.float32), (6, 1, 1))
    poses[1] = -np.inf
    poses[2, 3, 3] = np.nan
    poses[3] = 0
    poses[4, 0, 3] = np.inf
    assert has_pose(poses).tolist() == [True, False, False, False, False, True]


def test_a_pose_that_cannot_be_inverted_is_none():
    poses = np.tile(np.eye(4), (3, 1, 1))
    poses[1, 2, :3] = poses[1, 1, :3]
    assert has_pose(poses).tolist() == [True, False, True]


def test_stride_counts_raw_indices():
    poses = np.tile(np.eye(4), (25, 1, 1))
    poses[[0, 5, 10]] = -np.inf
    assert candidate_frames(poses, 10).tolist() == [20]
    assert candidate_frames(poses, 5).tolist() == [15, 20]
    assert len(candidate_frames(poses)) == 22
