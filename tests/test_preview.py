"""The gallery: one file, nothing from outside, nothing executed, right colours."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

import scanshards
from scanshards import codec
from scanshards.__main__ import main
from scanshards.preview import bev_with_cameras, coords_colors, depth_colors, write_preview
from scanshards.write import write_shard
from tests.make_shards import make_objects, make_release, make_sample, make_texts


class Tags(HTMLParser):
    """Counts tags and collects addresses."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.counts: dict[str, int] = {}
        self.sources: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.sources += [value for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def parsed(page: str) -> Tags:
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    return tags


def test_page_shows_every_clip_and_needs_nothing_else(tmp_path):
    release = make_release(tmp_path)
    out = tmp_path / "preview.html"
    assert main(["preview", str(release), "--out", str(out)]) == 0
    page = out.read_text()
    tags = parsed(page)
    assert tags.counts["section"] == 4
    assert tags.counts["img"] == 4 * (3 * 7 + 2)
    assert all(source.startswith("data:image/jpeg;base64,") for source in tags.sources)
    assert "script" not in tags.counts
    for word in ("scene0000_00-00", "scene5000_00-00", "I am facing the door.", "a red chair", "chair"):
        assert word in page
    assert "http" not in re.sub(r"data:image/[^\"]+", "", page)


def test_limit_is_kept(tmp_path):
    release = make_release(tmp_path)
    assert write_preview(release / "scannet-*.tar", tmp_path / "p.html", limit=1) == 1
    with pytest.raises(ValueError, match="at least 1 clip"):
        write_preview(release / "scannet-*.tar", tmp_path / "p.html", limit=0)


def test_text_from_shards_is_shown_not_run(tmp_path):
    evil = "<script>alert('$key')</script>"
    texts = [make_texts()[0] | {"question": evil, "answers": [evil]}]
    sample = make_sample()
    sample = replace(sample, members=sample.members | {"texts.json": codec.encode_json(texts)})
    write_shard(tmp_path / "a.tar", [sample])
    write_preview(tmp_path / "a.tar", tmp_path / "p.html")
    page = (tmp_path / "p.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(&#x27;$key&#x27;)" in page


def test_proposals_have_no_class_and_are_counted(tmp_path):
    sample = make_sample()
    objects = make_objects() | {"labels": ["chair", "", ""], "sources": ["gt", "pred", "pred"]}
    members = sample.members | {"objects.json": codec.encode_json(objects)}
    write_shard(tmp_path / "a.tar", [replace(sample, members=members)])
    write_preview(tmp_path / "a.tar", tmp_path / "p.html")
    tags = re.findall(r"<span class='tag'>(\w+) <b>(\d)</b>", (tmp_path / "p.html").read_text())
    assert sorted(tags) == [("chair", "1"), ("proposal", "2")]


def test_a_clip_without_anything_can_be_shown(tmp_path):
    sample = make_sample()
    empty = {"boxes": [], "instance_ids": [], "labels": [], "nyu40_ids": [], "sources": [], "scores": []}
    members = sample.members | {
        "texts.json": b"[]",
        "objects.json": codec.encode_json(empty),
        "depth.npy.blosc": codec.encode_npy_blosc(np.zeros((32, 384, 384), np.uint16)),
    }
    bev = sample.meta["bev"] | {"present": False}
    write_shard(tmp_path / "a.tar", [replace(sample, meta=sample.meta | {"bev": bev}, members=members)])
    write_preview(tmp_path / "a.tar", tmp_path / "p.html")
    page = (tmp_path / "p.html").read_text()
    assert "no texts" in page
    assert "no objects" in page
    parsed(page)


def test_near_is_red_far_is_blue_missing_is_black():
    depth = np.tile(np.linspace(500, 5000, 64).astype(np.uint16), (1, 8, 1))
    depth[0, 0, 0] = 0
    (picture,) = depth_colors(depth)
    assert picture[4, 4, 0] > picture[4, 4, 2]
    assert picture[4, 60, 2] > picture[4, 60, 0]
    assert picture[0, 0].tolist() == [0, 0, 0]


def test_coordinates_are_shown_as_red_green_blue():
    coords = np.stack(np.meshgrid(np.arange(32.0), np.arange(32.0), [1.0], indexing="ij"), axis=-1)
    coords = coords.reshape(1, 32, 32, 3).astype(np.float32)
    coords[0, 0, 0] = np.nan
    (picture,) = coords_colors(coords)
    assert (np.diff(picture[1:, 5, 0].astype(int)) >= 0).all()
    assert picture[31, 5, 0] - picture[1, 5, 0] > 150
    assert picture[5, 31, 1] - picture[5, 0, 1] > 150
    assert picture[0, 0].tolist() == [0, 0, 0]


def test_cameras_are_drawn_where_they_stood(tmp_path):
    write_shard(tmp_path / "a.tar", [make_sample()])
    (clip,) = scanshards.open(tmp_path / "a.tar")
    changed = (bev_with_cameras(clip) != clip.bev).any(axis=2)
    rows, columns = np.nonzero(changed)
    for u, v in ((266, 216), (216, 166), (166, 216), (216, 266)):  # 0.5 m around the middle, 1 cm a pixel
        assert changed[v, u]
    assert 160 <= columns.min() <= columns.max() <= 272
    assert 160 <= rows.min() <= rows.max() <= 272
