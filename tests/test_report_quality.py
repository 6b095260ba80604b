"""What the report says about all scans: exact sums, named scans, nothing left out, and a light page."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stage_results import BEV, add_scan, config_of, fill_bev, stores_of

from pipeline.errors import ScanError
from pipeline.fates import frame_groups
from pipeline.report_charts import histogram, shares
from pipeline.report_checks import all_checks, checks_section
from pipeline.report_facts import (
    CELL_M,
    DEPTH_BIN_MM,
    NUM_DEPTH_BINS,
    Sampled,
    ScanFacts,
    plan_coverage,
    read_facts,
    sample_depth,
    spread,
)
from pipeline.report_gallery import bev_gallery
from pipeline.report_quality import depth_percentile_m, frames_section, quality_section, rejected_section
from pipeline.report_times import times_section
from pipeline.scans import Inventory, write_inventory

ROW = {
    "scan_id": "scene0000_00",
    "split": "train",
    "status": "used",
    "stage": "",
    "reason": "",
    "num_clips": 1,
    "num_frames": 100,
    "used": 32,
    "not_examined": 60,
    "rejected": 8,
    "rejected_by_reason": {"pose not finite": 5, "blurred": 3},
    "bev": True,
    "num_texts": 4,
    "missing": Counter(),
    "num_objects": 3,
}
FRAMES = range(32)
GOOD = ScanFacts(ROW, (32,), dict.fromkeys(FRAMES, 0.9), frozenset(FRAMES), bev=BEV)
NOTHING = Sampled(np.zeros(NUM_DEPTH_BINS, np.int64), {}, 0)
SEEN = Sampled(np.ones(NUM_DEPTH_BINS, np.int64), {"scene0000_00": 0.8}, 1)


def with_row(**changed) -> ScanFacts:
    return replace(GOOD, row=ROW | changed)


def check(title, facts, sampled=SEEN):
    (found,) = (one for one in all_checks(facts, sampled) if one.title == title)
    return found


def test_a_scan_whose_cameras_lean_is_named():
    lying = check("Upright", [GOOD, replace(GOOD, row=ROW | {"scan_id": "lying"}, lean_deg=88.0)])
    assert (lying.state, lying.scan_ids) == ("look", ("lying",))
    assert check("Upright", [replace(GOOD, lean_deg=2.0)]).state == "good"


def test_a_good_scan_passes_every_check():
    assert [one.state for one in all_checks([GOOD], SEEN)] == ["good"] * 10
    assert checks_section([], NOTHING) == ""


@pytest.mark.parametrize(
    ("title", "state", "odd", "text"),
    [
        ("Scans", "look", with_row(status="rejected"), "1 of 2 are in the shards; 1 are rejected"),
        ("Scans", "bad", with_row(status="waiting"), "1 have not been through all stages"),
        ("Frames accounted for", "bad", with_row(not_examined=59), "1 scans have frames without a fate"),
        ("Bad frames", "look", with_row(rejected=21, not_examined=47), "29 of 200 (14.5%)"),
        ("Repeated frames", "look", replace(GOOD, distinct_frames=(32, 31)), "fewer than 32 good frames"),
        (
            "Measured depth",
            "look",
            replace(GOOD, valid_depth={f: 0.49 if f < 17 else 0.99 for f in FRAMES}),
            "1 below 50%",
        ),
        ("BEV", "look", replace(GOOD, bev=None), "1 of 2 scans have one; the global-view loss skips"),
        ("BEV", "look", replace(GOOD, bev=BEV | {"present": False}), "1 of 2 scans have one"),
        ("Texts", "look", with_row(num_texts=0), "4 about 1 of 2 scans"),
        ("Annotations", "look", with_row(missing=Counter(object=3, empty_mask=2)), "3 object, 2 empty mask"),
    ],
)
def test_each_check_names_the_odd_scan_and_only_that(title, state, odd, text):
    odd = replace(odd, row=odd.row | {"scan_id": "scene0666_00"})
    found = check(title, [GOOD, odd])
    assert (found.state, found.scan_ids) == (state, ("scene0666_00",))
    assert text in found.text
    page = checks_section([GOOD, odd], SEEN)
    assert re.search(rf'class="{state}".*?<b>{title}</b>.*?<small>scene0666_00</small>', page)


def test_checks_are_still_good_at_their_borders():
    assert check("Bad frames", [with_row(rejected=20, not_examined=48)]).state == "good"
    assert check("Measured depth", [replace(GOOD, valid_depth=dict.fromkeys(FRAMES, 0.5))]).state == "good"
    assert check("Coverage", [GOOD], replace(SEEN, plan_seen={"a": 0.5})).state == "good"
    low = check("Coverage", [GOOD], replace(SEEN, plan_seen={"a": 0.499, "b": 0.9}))
    assert (low.state, low.scan_ids) == ("look", ("a",))
    measured = [replace(GOOD, surface_seen=(0.6, 0.8)), replace(GOOD, surface_seen=(0.65,))]
    assert "and 65% of the surface of its mesh" in check("Coverage", measured).text


def test_many_odd_scans_are_counted_and_some_named():
    odd = [with_row(num_texts=0, scan_id=f"scene{i:04d}_00") for i in range(1000)]
    page = checks_section(odd, SEEN)
    assert "scene0005_00 and 994 more" in page
    assert "scene0006_00" not in page


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    metres=st.floats(0.01, 0.3),
    corner=st.tuples(st.floats(-20, 20), st.floats(-20, 20)),
)
def test_plan_coverage_equals_a_walk_over_cells(seed, metres, corner):
    rng = np.random.default_rng(seed)
    valid = rng.random((12, 12)) < rng.random()
    bev = {
        "world_from_bev": [[metres, 0, 0, corner[0]], [0, -metres, 0, corner[1]], [0, 0, 1, 0], [0, 0, 0, 1]]
    }
    points = np.column_stack(
        [corner[0] + 12 * metres * rng.random(30), corner[1] - 12 * metres * rng.random(30), rng.random(30)]
    )
    plan = {
        (np.floor((metres * u + corner[0]) / CELL_M), np.floor((corner[1] - metres * v) / CELL_M))
        for v in range(12)
        for u in range(12)
        if valid[v, u]
    }
    seen = {(np.floor(x / CELL_M), np.floor(y / CELL_M)) for x, y, _ in points}
    slow = len(plan & seen) / len(plan) if plan else 0.0
    assert plan_coverage(points, valid, bev) == pytest.approx(slow, abs=1e-12)


def test_depth_percentiles_are_those_of_an_even_spread_inside_bins():
    counts = [0] * NUM_DEPTH_BINS
    counts[4], counts[8] = 1, 3
    bin_m = DEPTH_BIN_MM / 1000
    assert depth_percentile_m(counts, 12.5) == pytest.approx(4.5 * bin_m)
    assert depth_percentile_m(counts, 62.5) == pytest.approx(8.5 * bin_m)
    assert depth_percentile_m(counts, 40) == pytest.approx(8.2 * bin_m)


@settings(max_examples=50)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=30))
def test_bars_are_as_high_as_their_share(counts):
    drawn = histogram("T", "n", list(range(len(counts) + 1)), counts)
    if not sum(counts):
        assert "nothing to show" in drawn
        return
    bars = re.findall(r'<rect x="([\d.]+)"[^>]*height="([\d.]+)"><title>(\d+) to \d+: ([\d.]+) %', drawn)
    assert [int(low) for _, _, low, _ in bars] == [i for i, count in enumerate(counts) if count]
    heights = np.array([float(height) for _, height, _, _ in bars])
    wanted = np.array([count for count in counts if count]) / sum(counts)
    assert np.allclose(heights / heights.sum(), wanted, atol=0.01)
    assert np.allclose([float(value) for *_, value in bars], 100 * wanted, atol=0.051)


@given(st.dictionaries(st.text(max_size=5), st.floats(0.001, 1e6), min_size=1, max_size=12))
def test_parts_fill_the_bar(amounts):
    widths = [float(width) for width in re.findall(r'style="width:([\d.]+)%"', shares(amounts))]
    total = sum(amounts.values())
    assert np.allclose(widths, [100 * value / total for value in amounts.values()], atol=0.0051)


def test_shares_show_what_is_small_and_leave_out_what_is_not_there():
    drawn = shares({"a": 999, "b": 1, "c": 0})
    assert "a 100 %" in drawn and "b &lt; 1 %" in drawn.replace("< 1", "&lt; 1")
    assert drawn.count("<i ") == 2
    assert shares({"a": 0}) == ""


def test_times_tell_speed_and_where_they_go(tmp_path):
    times = {
        "scene0001_00": {"seconds": 3.0, "parts": {"decode": 1.5, "<b>": 0.5}, "peak_mb": 210},
        "scene0002_00": {"seconds": 1.0, "parts": {"decode": 0.5}, "peak_mb": 340},
    }
    (tmp_path / "clips.json").write_text(json.dumps(times))
    (tmp_path / "texts.json").write_text(json.dumps({"s": {"seconds": 0.0, "parts": {}}}))
    page = times_section(tmp_path)
    row = re.search(r"<tr><th>clips</th>(.*?)</tr>", page)[1]
    assert re.findall(r'<td class="number">([^<]*)</td>', row) == ["2", "4.0", "2.00", "0.50", "3.00", "340"]
    assert "<td>scene0001_00</td>" in row
    assert re.findall(r"width:([\d.]+)%", row) == ["50.00", "12.50", "37.50"]
    assert "decode 50 %" in row and "&lt;b&gt; 12 %" in row and "other 38 %" in row
    assert "<tr><th>texts</th>" in page and "<tr><th>bev</th>" not in page
    assert times_section(tmp_path / "none") == ""


@pytest.fixture(scope="module")
def room(tmp_path_factory) -> Path:
    """Stores of three scans: one good, one without a BEV, one rejected together with its frames."""
    root = tmp_path_factory.mktemp("facts")
    entries = [add_scan(root, f"scene000{i}_00") for i in (1, 2, 3)]
    stores = stores_of(root)

    def no_bev(group):
        fill_bev(group, "scene0002_00", present=False)
        group.attrs["reason"] = "all <black>"

    def no_frames(group):
        raise ScanError("no usable frame", ledger=frame_groups(9, [], dict.fromkeys(range(4), "blurred: x")))

    stores["bev"].build("scene0002_00", "other", no_bev)
    stores["clips"].build("scene0003_00", "other", no_frames)
    for stage in ("meshes", "bev", "latents", "texts"):
        stores[stage].remove("scene0003_00")
    write_inventory(root / "work" / "scans.json", Inventory(entries, [], "", None))
    return root


def test_facts_are_those_of_the_stores(room):
    config = config_of(room)
    one, two, three = read_facts(config)
    assert (one.distinct_frames, one.used, one.has_bev) == ((8,), frozenset(range(8)), True)
    assert set(one.valid_depth) == set(range(8))
    assert one.valid_depth[3] == pytest.approx(1 - 100 / (64 * 48), abs=1e-4)
    assert (two.has_bev, two.no_bev) == (False, "all <black>")
    assert (three.distinct_frames, three.bev, three.row["rejected"]) == ((), None, 4)
    sampled = sample_depth([one, two, three], config)
    assert sampled.num_scans == 2
    # the plane at 2 m: every sampled pixel but those in the hole lies in one bin
    assert np.flatnonzero(sampled.depth_counts).tolist() in ([8], [0, 8])
    assert list(sampled.plan_seen) == ["scene0001_00"]
    assert read_facts(config_of(room / "nowhere")) == []


def test_every_frame_of_every_scan_is_in_the_table_rejected_scans_too(room):
    facts = read_facts(config_of(room))
    page = frames_section(facts)
    assert "25 frames in = 16 used + 5 not examined + 4 rejected" in page
    rows = re.findall(r"<tr><td>(scene\d+_00)</td>(.*?)</tr>", page)
    numbers = {scan_id: [int(n) for n in re.findall(r">(\d+)</td>", rest)] for scan_id, rest in rows}
    assert numbers == {
        "scene0001_00": [8, 8, 0, 0],
        "scene0002_00": [8, 8, 0, 0],
        "scene0003_00": [9, 0, 5, 4],
    }
    assert "4 blurred" in page
    assert "rejected: blurred 16 %" in page
    rejected = rejected_section([{"scan_id": "scene0003_00", "reason": "clips: no <usable> frame"}], facts)
    assert '<td>scene0003_00</td><td class="number">9</td><td>clips: no &lt;usable&gt; frame</td>' in rejected
    assert "<td>none</td>" in rejected_section([], facts)


def test_gallery_shows_every_bev_and_why_there_is_none(room):
    facts = read_facts(config_of(room))
    page = bev_gallery(facts, stores_of(room)["bev"], {"scene0001_00-00"})
    assert re.findall(r'alt="BEV of (\w+)"', page) == ["scene0001_00"]
    assert '<a href="#scene0001_00-00">' in page
    assert "<td>scene0002_00</td><td>all &lt;black&gt;</td>" in page
    assert "1 of 2 scans have a BEV" in page
    assert "50% · 9 m" in page  # 432 pixels of 2 cm
    assert '<a href="#' not in bev_gallery(facts, stores_of(room)["bev"], set())


def test_charts_about_audits_and_coverage_show_only_where_they_were_made(room):
    config = config_of(room)
    facts = read_facts(config)
    sampled = sample_depth(facts, config)
    page = quality_section(facts, sampled)
    assert "Measured depth" in page and "Sharpness" not in page and "Surface seen" not in page
    audited = [replace(one, sharpness=(1.0, 9.0), surface_seen=(0.5,)) for one in facts]
    page = quality_section(audited, sampled)
    assert "per cent of 6 frames" in page and "Surface seen" in page
    assert quality_section([], NOTHING) == ""


def test_the_page_of_a_whole_benchmark_stays_light(room):
    """1,513 scans whose BEVs are noise, which compresses worse than any room."""
    group = stores_of(room)["bev"].read("scene0001_00")
    arrays = {"bev": np.asarray(group["bev"][:])}

    class Store:
        def read(self, scan_id):
            return arrays

    facts = [replace(GOOD, row=ROW | {"scan_id": f"scene{i:04d}_00"}) for i in range(1513)]
    gallery = bev_gallery(facts, Store(), set())
    assert gallery.count("<img ") == 1513
    assert len(gallery) + len(frames_section(facts)) + len(checks_section(facts, SEEN)) < 3.5e6
    more = bev_gallery(facts * 2, Store(), set())
    assert more.count("<img ") == 2000 and "2,000 of them, evenly spread, are shown" in more


@given(st.integers(0, 200), st.integers(2, 60))
def test_spread_keeps_order_ends_and_number(total, count):
    chosen = spread(range(total), count)
    assert len(chosen) == min(total, count) == len(set(chosen))
    assert chosen == sorted(chosen)
    assert total == 0 or (chosen[0], chosen[-1]) == (0, total - 1)
