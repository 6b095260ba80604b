"""The ledger accounts for every scan and every frame."""

from __future__ import annotations

import json
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stage_results import add_scan, stores_of

from pipeline import fates, ledger
from pipeline.errors import ScanError
from pipeline.fates import count_reasons, frame_groups
from pipeline.ledger import rejections, scan_rows, write_counts, write_ledger


@given(st.integers(0, 60), st.data())
def test_groups_hold_every_frame_exactly_once(num_frames, data):
    frames = st.integers(0, max(0, num_frames - 1))
    used = data.draw(st.sets(frames)) if num_frames else set()
    examined = data.draw(st.sets(frames)) if num_frames else set()
    reasons = st.sampled_from(["truncated", "decode failed: a", "decode failed: b"])
    rejected = data.draw(st.dictionaries(frames, reasons)) if num_frames else {}
    rejected = {frame: reason for frame, reason in rejected.items() if frame not in used}
    groups = frame_groups(num_frames, list(used) * 2, rejected, examined)
    fate = {frame: (g["status"], g["reason"]) for g in groups for frame in g["frames"]}
    assert sum(len(g["frames"]) for g in groups) == len(fate) == num_frames
    for frame in range(num_frames):
        if frame in used:
            assert fate[frame] == ("used", "")
        elif frame in rejected:
            assert fate[frame] == ("rejected", rejected[frame])
        else:
            assert fate[frame] == ("not_examined", fates.SPARE if frame in examined else "")


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
        add_scan(root, "scene0004_00", clips="stands for the next line"),
    ]
    stores = stores_of(root)
    lost = {**dict.fromkeys(range(4), fates.POSE), 4: f"{fates.DECODE}: s.sens: frame 4 depth: got: bad"}
    error = ScanError("scene0004_00: no usable frame", ledger=frame_groups(6, (), lost, [5]))
    stores["clips"].reject("scene0004_00", "key", error)
    return entries, stores


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
    bad = rows["scene0004_00"]
    assert (bad["status"], bad["num_frames"], bad["not_examined"], bad["rejected"]) == ("rejected", 6, 1, 5)
    assert bad["rejected_by_reason"] == {fates.POSE: 4, fates.DECODE: 1}
    for row in rows.values():
        assert row["num_frames"] == row["used"] + row["not_examined"] + row["rejected"]


def test_a_scan_that_no_stage_has_seen_is_waiting(built, tmp_path):
    entries, _ = built
    (row,) = scan_rows(stores_of(tmp_path), entries[:1])
    assert (row["status"], row["stage"]) == ("waiting", "clips")


def test_the_frames_file_has_one_row_a_frame_in_order(built, tmp_path):
    entries, stores = built
    write_ledger(tmp_path / "ledger", entries, stores)
    table = pq.read_table(tmp_path / "ledger" / "frames.parquet")
    rows = table.to_pylist()
    scans = {"scene0000_00": 8, "scene0001_00": 8, "scene0003_00": 8, "scene0004_00": 6}
    assert [(row["scan_id"], row["frame"]) for row in rows] == [
        (s, f) for s in scans for f in range(scans[s])
    ]
    for row in rows[:24]:
        assert (row["status"], row["reason"], row["detail"], row["sharpness"]) == ("used", "", "", None)
        assert 0.9 < row["valid_depth"] < 1
    assert [(row["status"], row["reason"], row["detail"]) for row in rows[24:]] == [
        *[("rejected", fates.POSE, "")] * 4,
        ("rejected", fates.DECODE, "s.sens: frame 4 depth: got: bad"),
        ("not_examined", fates.SPARE, ""),
    ]
    for name in ("scan_id", "status", "reason", "detail"):
        assert pa.types.is_dictionary(table.schema.field(name).type), name


def test_the_scans_file_holds_the_scan_rows(built, tmp_path):
    entries, stores = built
    write_ledger(tmp_path, entries, stores)
    found = pq.read_table(tmp_path / "scans.parquet").to_pylist(maps_as_pydicts="strict")
    assert found == [dict(row) for row in scan_rows(stores, entries)]


def test_same_stores_give_the_same_bytes_whatever_the_group_size(built, tmp_path, monkeypatch):
    entries, stores = built
    for name in ("a", "b"):
        write_ledger(tmp_path / name, entries, stores)
    for file in ("frames.parquet", "scans.parquet"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    monkeypatch.setattr(ledger, "ROWS_PER_GROUP", 9)
    write_ledger(tmp_path / "c", entries, stores)
    small = pq.ParquetFile(tmp_path / "c" / "frames.parquet")
    assert [small.metadata.row_group(k).num_rows for k in range(small.num_row_groups)] == [16, 14]
    assert small.read().to_pylist() == pq.read_table(tmp_path / "a" / "frames.parquet").to_pylist()


def test_an_empty_ledger_has_its_columns(tmp_path):
    write_ledger(tmp_path, [], stores_of(tmp_path))
    frames, scans = (pq.read_table(tmp_path / f"{name}.parquet") for name in ("frames", "scans"))
    assert len(frames) == len(scans) == 0
    assert {"status", "reason", "valid_depth"} < set(frames.column_names)
    assert {"num_frames", "used", "not_examined", "rejected"} < set(scans.column_names)


@pytest.mark.parametrize(
    ("groups", "chosen", "message"),
    [
        ([("used", [0, 1]), ("rejected", [1, 2])], [0, 1], "scene0009_00: a frame has no fate, or two"),
        ([("used", [0, 1]), ("rejected", [3])], [0, 1], "scene0009_00: a frame has no fate, or two"),
        (
            [("used", [0, 1]), ("rejected", [2])],
            [0, 2],
            r"scene0009_00: frames \[1, 2\] are used or in a clip",
        ),
    ],
)
def test_frames_that_do_not_add_up_name_their_scan(tmp_path, groups, chosen, message):
    entry = replace(add_scan(tmp_path / "other", "scene0000_00"), scan_id="scene0009_00")
    attrs = {
        "frames_ledger": [{"status": s, "reason": "", "frames": frames} for s, frames in groups],
        "clips": [{"frame_indices": chosen}],
    }
    stores = stores_of(tmp_path)
    stores["clips"].build("scene0009_00", "key", lambda group: group.attrs.update(attrs))
    for act in (write_ledger, lambda _, entries, stores: scan_rows(stores, entries)):
        with pytest.raises(AssertionError, match=message):
            act(tmp_path / "ledger", [entry], stores)


def test_rejections_name_the_stage(built):
    entries, stores = built
    assert rejections(stores, "scene0000_00") == []
    assert rejections(stores, "scene0003_00") == [
        {"scan_id": "scene0003_00", "stage": "bev", "reason": "no geometry"}
    ]


def test_reasons_are_counted_by_kind():
    counts = count_reasons(["decode failed: a", "truncated", "decode failed: b"])
    assert counts == {"decode failed": 2, "truncated": 1}


def test_counts_add_up(built, tmp_path):
    entries, stores = built
    index = {"rejected": [1, 2], "totals": {"samples": 2, "shards": 2, "bytes": 10}}
    write_counts(tmp_path / "new" / "counts.json", index, entries, stores)
    counts = json.loads((tmp_path / "new" / "counts.json").read_text())
    assert counts["scans"] == 5 and counts["scans_rejected"] == 2
    assert counts["frames"] == {"used": 24, "not_examined": 1, "rejected": 5}
    assert (counts["texts"], counts["objects"], counts["with_bev"]) == (2, 2, 2)
