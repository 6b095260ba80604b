"""The ledger accounts for every scan and every frame."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stage_results import add_scan, stores_of

from pipeline import ledger
from pipeline.ledger import frame_groups, frame_rows, rejections, scan_rows, write_counts


@given(st.integers(0, 60), st.data())
def test_groups_hold_every_frame_exactly_once(num_frames, data):
    frames = st.integers(0, max(0, num_frames - 1))
    used = data.draw(st.sets(frames)) if num_frames else set()
    reasons = st.sampled_from(["truncated", "decode failed: a", "decode failed: b"])
    rejected = data.draw(st.dictionaries(frames, reasons)) if num_frames else {}
    rejected = {frame: reason for frame, reason in rejected.items() if frame not in used}
    groups = frame_groups(num_frames, list(used) * 2, rejected)
    fate = {frame: (g["status"], g["reason"]) for g in groups for frame in g["frames"]}
    assert sum(len(g["frames"]) for g in groups) == len(fate) == num_frames
    for frame in range(num_frames):
        if frame in used:
            assert fate[frame] == ("used", "")
        elif frame in rejected:
            assert fate[frame] == ("rejected", rejected[frame])
        else:
            assert fate[frame] == ("not_examined", "")


def test_a_frame_both_used_and_rejected_is_a_bug():
    with pytest.raises(AssertionError, match="4 frames accounted for, the scan has 3"):
        frame_groups(3, [0, 1], {1: "truncated"})


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("ledger")
    entries = [
        add_scan(root, "scene0000_00"),
        add_scan(root, "scene0001_00", split="val"),
        add_scan(root, "scene0002_00", clips="a.sens: frame 0 of 3: cut off"),
        add_scan(root, "scene0003_00", bev="no geometry", texts="not reached"),
    ]
    return entries, stores_of(root)


def test_scan_rows_say_the_fate_of_each_scan(built):
    entries, stores = built
    rows = {row["scan_id"]: row for row in scan_rows(stores, entries)}
    assert list(rows) == [entry.scan_id for entry in entries]
    good = rows["scene0000_00"]
    assert (good["status"], good["stage"], good["reason"], good["split"]) == ("used", "", "", "train")
    assert (good["num_frames"], good["used"], good["not_examined"], good["rejected"]) == (8, 8, 0, 0)
    assert (good["bev"], good["num_texts"], good["num_objects"], good["num_clips"]) == (True, 1, 1, 1)
    lost = rows["scene0002_00"]
    assert (lost["status"], lost["stage"]) == ("rejected", "clips")
    assert lost["reason"] == "a.sens: frame 0 of 3: cut off" and lost["num_frames"] == 0
    blank = rows["scene0003_00"]
    assert (blank["status"], blank["stage"], blank["num_frames"]) == ("rejected", "bev", 8)
    for row in rows.values():
        assert row["num_frames"] == row["used"] + row["not_examined"] + row["rejected"]


def test_a_scan_that_no_stage_has_seen_is_waiting(built, tmp_path):
    entries, _ = built
    (row,) = scan_rows(stores_of(tmp_path), entries[:1])
    assert (row["status"], row["stage"]) == ("waiting", "clips")


def test_frame_rows_are_one_per_frame_in_order(built):
    entries, stores = built
    rows = frame_rows(stores, entries)
    with_clips = ("scene0000_00", "scene0001_00", "scene0003_00")
    assert [(row["scan_id"], row["frame"]) for row in rows] == [(s, f) for s in with_clips for f in range(8)]
    assert {row["status"] for row in rows} == {"used"}
    assert all(0.9 < row["valid_depth"] < 1 for row in rows)


def test_rejections_name_the_stage(built):
    entries, stores = built
    assert rejections(stores, "scene0000_00") == []
    assert rejections(stores, "scene0003_00") == [
        {"scan_id": "scene0003_00", "stage": "bev", "reason": "no geometry"}
    ]


def test_reasons_are_counted_by_kind():
    counts = ledger.count_reasons(["decode failed: a", "truncated", "decode failed: b"])
    assert counts == {"decode failed": 2, "truncated": 1}


def test_counts_add_up(built, tmp_path):
    entries, stores = built
    index = {"rejected": [1, 2], "totals": {"samples": 2, "shards": 2, "bytes": 10}}
    write_counts(tmp_path / "new" / "counts.json", index, entries, stores)
    counts = json.loads((tmp_path / "new" / "counts.json").read_text())
    assert counts["scans"] == 4 and counts["scans_rejected"] == 2
    assert counts["frames"] == {"used": 24, "not_examined": 0, "rejected": 0}
    assert (counts["texts"], counts["objects"], counts["with_bev"]) == (2, 2, 2)
