"""The report: exact pictures, honest curves, and a page that stands alone."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stage_results import TEXT, add_scan, config_of, stores_of

from pipeline import report, report_charts, report_pictures
from pipeline.report import build_report
from pipeline.report_charts import Curve, chart, nice_ticks, running_mean
from pipeline.report_pictures import Bounds
from pipeline.report_scan import bev_pixels
from pipeline.scans import Inventory, write_inventory
from pipeline.shards import build_shards
from scanshards import CorruptSample

VOID = frozenset({"meta", "img", "input", "br"})


class Page(HTMLParser):
    """Collects tags and attributes, and fails on tags that do not close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def values(self, name: str) -> list[str]:
        return [value for _, attribute, value in self.attributes if attribute == name]


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with shards of two scans and a rejected one, a run with hostile answers, and the page."""
    root = tmp_path_factory.mktemp("report")
    entries = [
        add_scan(root, "scene0001_00"),
        add_scan(root, "scene0002_00", split="val"),
        add_scan(root, "scene0003_00", meshes="scene0003_00: <b>no</b> surface"),
    ]
    store = stores_of(root)["texts"]
    hostile = TEXT | {"id": "x", "question": "<script>alert(1)</script>", "answers": ["a & b", "<i>"]}
    asks = TEXT | {"id": "y", "task": "scanrefer", "question": "Which?", "answers": [], "target_ids": [0]}

    def fill(group):
        group.attrs.update({"texts": [hostile, asks], "inputs": [], "missing": []})
        group.attrs["objects"] = {
            "boxes": [[0.5, 1.0, 0.5, 2.0, 1.0, 1.0], [0, 0, 1, 9, 9, 2], [1, 1, 1, 0.5, 0.5, 0.5]],
            "instance_ids": [0, 1, 0],
            "labels": ["<img src=x>", "wall", ""],
            "nyu40_ids": [7, 1, 0],
            "sources": ["gt", "gt", "pred"],
            "scores": [1.0, 1.0, 0.0],
        }

    store.build("scene0002_00", "key2", fill)
    write_inventory(root / "work" / "scans.json", Inventory(entries, [], "", None))
    (root / "work" / "times").mkdir()
    (root / "work" / "times" / "clips.json").write_text(
        json.dumps({f"scene000{k}_00": {"seconds": s, "parts": {}} for k, s in ((1, 1.25), (2, 0.75))})
    )
    build_shards(entries, stores_of(root), config_of(root))
    write_run(root / "run")
    build_report(config_of(root), root / "report", root / "run")
    return root


def write_run(folder: Path) -> None:
    (folder / "eval").mkdir(parents=True)
    rows = [
        {
            "step": i,
            "text_loss": 5.0 / i,
            "cross_view_loss": 1.0 / i if i % 4 == 1 else None,
            "tokens_per_s": 7e3,
        }
        for i in range(1, 41)
    ]
    log = "".join(json.dumps(row) + "\n" for row in rows) + '{"step": 41, "text_l'
    (folder / "log.jsonl").write_text(log)
    metrics = {"sqa3d": {"reference": {"EM": 62.5, "EM-R": 75.0, "EM/what": 50.0}}}
    (folder / "eval" / "metrics.json").write_text(json.dumps(metrics))
    majority = {"answer": "<u>yes</u>", "metrics": {"reference": {"EM": 12.5, "EM-R": 25.0, "EM/what": 0.0}}}
    summary = {"tasks": {"sqa3d": {"items": 8, "cut": 0, "majority": majority}}}
    (folder / "eval" / "summary.json").write_text(json.dumps(summary))
    answer = {
        "prompt": "<image> Where?",
        "pred_response": "<b>there",
        "gt_response": "here",
        "video": "scannet/s",
    }
    (folder / "eval" / "predictions.jsonl").write_text(
        json.dumps(answer | {"answers": ["here"], "exact": False}) + "\n"
    )


def test_page_is_whole_and_loads_nothing(built):
    text = (built / "report" / "index.html").read_text()
    page = Page(text)
    kinds = {value.partition(",")[0] for value in page.values("src")}
    assert kinds == {"data:image/jpeg;base64", "data:image/webp;base64"}
    assert [value for value in page.values("href") if not value.startswith(("#", "data:"))] == []
    assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org)", text)
    anchors, ids = {v[1:] for v in page.values("href") if v.startswith("#")}, page.values("id")
    assert anchors <= set(ids)
    assert len(ids) == len(set(ids))


def test_page_shows_every_scan_what_was_rejected_and_where_time_went(built):
    page = Page((built / "report" / "index.html").read_text())
    assert {"scene0001_00-00", "scene0002_00-00"} <= set(page.values("id"))
    for shown in (
        "scene0003_00: <b>no</b> surface",
        "Latents not decoded",
        "1.25",
        "What is left of me?",
        "sqa3d 8 questions, protocol reference",
        "62.5",
    ):
        assert shown in page.text, shown
    curves = [label for label in page.values("aria-label") if label.startswith("Text loss: 5 at step 1, ")]
    assert len(curves) == 1 and curves[0].endswith(" at step 40")


def test_whatever_data_says_stays_text(built):
    text = (built / "report" / "index.html").read_text()
    page = Page(text)
    tags = {tag for tag, _, _ in page.attributes}
    assert "script" not in text.replace("&lt;script&gt;", "").replace("&lt;/script&gt;", "")
    assert "x" not in page.values("src")
    assert "u" not in tags
    for shown in ("<script>alert(1)</script>", "a & b / <i>", "<u>yes</u>", "<b>there", "<img src=x> (gt)"):
        assert shown in page.text, shown


def test_proposals_are_drawn_apart_and_texts_mean_annotated_objects(built):
    page = Page((built / "report" / "index.html").read_text())
    assert page.values("class").count("pred") == 1
    assert "(pred), 0.50 × 0.50 × 0.50 m" in page.text
    assert "1 objects, 1 classes · 1 proposals · 2 texts" in page.text
    assert "Which?<img src=x> 0" in page.text


def test_what_to_look_at_before_training_comes_first(built):
    text = (built / "report" / "index.html").read_text()
    page = Page(text)
    assert page.values("id")[0] == "checks"
    assert "2 of 3 are in the shards; 1 are rejectedscene0003_00" in page.text.replace(" scene", "scene")
    assert "2 of 2 scans have a BEV" in page.text
    assert '<a href="#scene0001_00-00"><img src="data:image/webp' in text
    assert "scene0003_008meshes: scene0003_00: <b>no</b> surface" in page.text


def test_frames_of_every_scan_are_accounted_for(built):
    page = Page((built / "report" / "index.html").read_text())
    assert re.search(r"scene0001_00train\s*used8", page.text.replace("\n", ""))


def test_latents_of_the_same_codec_are_decoded_beside_the_original(built, monkeypatch, tmp_path):
    class Codec:
        def passport(self, width, height):
            return {"codec": "tiny", "weights_sha256": "0" * 64}

        def decode(self, latents):
            count, channels, height, width = latents.shape
            assert channels == 16
            return np.full((count, 8 * height, 8 * width, 3), 128, np.uint8)

    monkeypatch.setattr(report.latents, "load_codec", lambda config: Codec())
    text = build_report(config_of(built), tmp_path, None).read_text()
    frames = re.findall(r"PSNR ([\d.]+) dB over the frames shown", text)
    bev = re.findall(r"<figcaption>BEV decoded from its latents, PSNR ([\d.]+) dB", text)
    assert len(frames) == len(bev) == 2
    assert all(3 < float(value) < 30 for value in frames + bev)


def test_only_some_clips_are_shown_in_full_and_the_others_listed(built, monkeypatch, tmp_path):
    monkeypatch.setattr(report, "MAX_SHOWN", 1)
    monkeypatch.setattr(report, "MAX_HELD_OUT_SHOWN", 1)
    page = Page(build_report(config_of(built), tmp_path, None).read_text())
    assert "scene0002_00-00" in page.values("id")
    assert "scene0001_00-00" not in page.values("id")
    assert "scene0001_00-00trainscannet-" in page.text


def test_no_shards_says_what_to_run(tmp_path):
    with pytest.raises(ValueError, match="no index.json; run `python -m pipeline.run all` first"):
        build_report(config_of(tmp_path), tmp_path / "report")


def test_damage_is_not_reported_as_a_picture(built, tmp_path):
    shutil.copytree(built / "shards", tmp_path / "shards")
    shard = next((tmp_path / "shards").glob("scannet-*.tar"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    with pytest.raises(CorruptSample):
        build_report(config_of(tmp_path), tmp_path / "report")
    assert not (tmp_path / "report" / "index.html").exists()


def test_chromium_draws_the_page(built, tmp_path):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1000,2400", "--hide-scrollbars"]
    shot = tmp_path / "shot.png"
    page = (built / "report" / "index.html").as_uri()
    subprocess.run([*command, f"--screenshot={shot}", page], check=True, capture_output=True, timeout=60)
    picture = cv2.imread(str(shot))
    rows_with_content = (picture.std(axis=1).max(axis=-1) > 1).mean()
    assert rows_with_content > 0.5
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 1000


def test_missing_depth_and_coordinates_are_black_and_the_rest_is_not():
    depth = np.array([[0, 1, 500, 60000]], np.uint16)
    assert (report_pictures.depth_picture(depth, 4000.0).max(axis=-1) > 0).tolist() == [
        [False, True, True, True]
    ]
    coords = np.array([[[np.nan] * 3, [0, 0, 0], [2, 4, 8]]], np.float32)
    bounds = Bounds(np.zeros(3), np.array([2.0, 4.0, 8.0]))
    shown = report_pictures.coords_picture(coords, bounds)
    assert shown.tolist() == [[[0, 0, 0], [40, 40, 40], [255, 255, 255]]]


@given(st.integers(0, 431), st.integers(0, 431), st.floats(0.001, 0.1), st.floats(-5, 5))
def test_bev_pixels_undo_the_stored_affine(u, v, metres, x0):
    world_from_bev = np.array([[metres, 0, 0, x0], [0, -metres, 0, 1.5], [0, 0, 1, 0], [0, 0, 0, 1]])
    point = (world_from_bev @ [u, v, 0.7, 1])[None, :3]
    assert np.allclose(bev_pixels(point, world_from_bev), [[u, v]], atol=1e-6)


@pytest.mark.parametrize(("looks", "seen"), [("down", True), ("up", False)])
def test_corner_view_draws_a_noisy_floor_and_not_the_ceiling(looks, seen):
    """A plane 2 m ahead of a camera that looks straight down or up; noise as large as the spacing."""
    u, v = np.meshgrid(np.linspace(-1, 1, 96), np.linspace(-1, 1, 96))
    noise = np.random.default_rng(0).normal(0, 0.02, u.shape)
    sign = -1.0 if looks == "down" else 1.0  # OpenCV camera: x right, y down, z ahead
    coords = np.stack([u, sign * v, sign * (2 + noise)], axis=-1)[None].astype(np.float32)
    clip = SimpleNamespace(coords=coords, frames=np.full((1, 96, 96, 3), 200, np.uint8))
    bounds = Bounds(np.array([-1.0, -1.0, -3.0]), np.array([1.0, 1.0, 3.0]))
    drawn = (report_pictures.corner_view(clip, bounds, (90, 70)) == 200).all(axis=-1)
    assert (drawn.mean() > 0.2) == seen
    assert drawn.any() == seen


def test_psnr_of_a_known_error():
    black = np.zeros((4, 4, 3), np.uint8)
    assert report_pictures.psnr_db(black, black) == float("inf")
    assert report_pictures.psnr_db(black, black + np.uint8(255)) == 0.0
    assert report_pictures.psnr_db(black, black + np.uint8(16)) == pytest.approx(20 * np.log10(255 / 16))


@settings(max_examples=60)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=90))
def test_running_mean_equals_a_plain_loop(values):
    half = max(1, len(values) // 20)
    slow = [np.mean(values[max(0, i - half) : i + half + 1]) for i in range(len(values))]
    assert np.allclose(running_mean(values), slow, rtol=1e-9, atol=1e-6)


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_lie_inside_evenly_and_are_few(low, span):
    ticks = nice_ticks(low, low + span)
    slack = 1e-6 * span + 1e-9 * abs(low)
    assert 1 <= len(ticks) <= 6
    assert low - slack <= ticks[0] and ticks[-1] <= low + span + slack
    assert np.allclose(np.diff(ticks), np.diff(ticks)[:1], rtol=1e-3) if len(ticks) > 2 else True


def test_chart_leaves_out_what_cannot_be_drawn():
    curve = Curve("Loss", "", "loss", log=True)
    drawn = chart(curve, [1, 2, 3, 4, 5], [1.0, float("nan"), 0.0, float("inf"), 0.1])
    assert "nan" not in drawn and "inf" not in drawn
    assert drawn.count("<path") == 2
    assert "fewer than two values" in chart(replace(curve, log=False), [1], [1.0])


def test_chart_places_values_on_a_straight_line_in_log_scale():
    drawn = chart(Curve("Loss", "", "loss", log=True), range(5), [10.0**-i for i in range(5)])
    raw = re.search(r'class="raw" d="M([^"]*)"', drawn)[1]
    points = np.array([[float(v) for v in pair.split()] for pair in raw.split("L")])
    slopes = np.diff(points[:, 1]) / np.diff(points[:, 0])
    assert np.allclose(slopes, slopes[0], atol=0.01) and slopes[0] > 0
    assert points[0, 0] == report_charts.LEFT


def test_a_run_on_other_shards_is_not_shown_as_this_ones(built, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "log.jsonl").write_text('{"step": 1, "text_loss": 2.5}\n')
    (run / "versions.json").write_text('{"shards_hash": "of other shards"}')
    text = build_report(config_of(built), tmp_path, run).read_text()
    assert "trained on other shards" in text
    assert "Text loss" not in text
