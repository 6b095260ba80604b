"""Damaged recordings of loose files: the file is named, and nothing is read or allocated that it asks for."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import zarr
from source_layouts import (
    LOST,
    box,
    entries,
    entry_of,
    png,
    write_posed_images,
    write_seven_scenes,
    write_tum,
)

from pipeline import clips
from pipeline.config import load_config
from pipeline.errors import ScanError
from pipeline.sources import open_source


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("depth_intrinsic.txt", "1 2 3", r"depth_intrinsic.txt: got 3 numbers, expected 9 or 16"),
        ("depth_intrinsic.txt", "0 " * 16, r"depth_intrinsic.txt: got \[\[0.0.*, expected \[\[fx"),
        ("intrinsic.txt", "a b", r"^intrinsic.txt: got 'a', expected a number"),
        ("00003.txt", "1 0 0", r"00003.txt: got 3 numbers, expected 16"),
        ("00003.txt", "1 0 0 0 0 1 0 0 0 0 1 0 5 5 5 1", r"00003.txt: got the last row .*transposed"),
        ("00003.txt", "x" * (1 << 21), r"00003.txt: got more than 1048576 bytes"),
        ("room.txt", "axisAlignment = 1 2", r"room.txt: axisAlignment: got 2 numbers"),
    ],
)
def test_a_malformed_text_file_is_named(tmp_path, name, text, message):
    folder = write_posed_images(tmp_path, "room", box(steps=2))
    (folder / name).write_text(text)
    with pytest.raises(ScanError, match=message):
        open_source(entry_of(tmp_path, "room"))


def test_missing_intrinsics_are_named(tmp_path):
    folder = write_posed_images(tmp_path, "a", box(steps=1))
    (folder / "intrinsic.txt").unlink()
    with pytest.raises(ScanError, match=r"a: no intrinsic\.txt, expected 4x4 numbers"):
        open_source(entry_of(tmp_path, "a"))
    (write_tum(tmp_path, "b", box(steps=1)) / "camera-intrinsics.txt").unlink()
    with pytest.raises(
        ScanError, match=r"b: no camera-intrinsics\.txt for depth of \(64, 48\) \(a camera is documented"
    ):
        open_source(entry_of(tmp_path, "b"))


@pytest.mark.parametrize("write", [write_posed_images, write_seven_scenes, write_tum])
def test_a_folder_that_vanished_is_a_scan_error(tmp_path, write):
    folder = write(tmp_path, "room", box(steps=1))
    (entry,) = entries(tmp_path)
    shutil.rmtree(folder)
    with pytest.raises(ScanError, match=r"cannot be read \(No such file"):
        open_source(entry)


def test_lost_poses_are_read_as_lost(tmp_path):
    folder = write_seven_scenes(tmp_path, "room", box(steps=3))
    texts = ("-inf " * 16, "nan " * 16, "-1.#IND " * 16, "0 " * 16)
    for i, text in enumerate(texts):
        (folder / f"frame-{i:06d}.pose.txt").write_text(text)
    (folder / "frame-000004.pose.txt").unlink()
    with open_source(entry_of(tmp_path, "room")) as source:
        assert not np.isfinite(source.poses[[0, 1, 2, 4, LOST]]).any()
        assert not source.poses[3].any()
    with pytest.raises(ScanError, match="of 6 frames: 6 pose not finite"):
        clips.build(entry_of(tmp_path, "room"), zarr.create_group({}), load_config([], None), {})


def test_a_picture_that_claims_a_huge_size_is_not_decoded(tmp_path):
    folder = write_seven_scenes(tmp_path, "room", box(steps=1), suffix="jpg")
    bomb = bytearray(png(np.ones((48, 64), np.uint16)))
    bomb[16:24] = (60000).to_bytes(4, "big") * 2
    (folder / "frame-000001.depth.png").write_bytes(bomb)
    with open_source(entry_of(tmp_path, "room")) as source, pytest.raises(ScanError, match="of 60000x60000"):
        source.depth(1)
    (folder / "frame-000000.depth.png").write_bytes(bomb)
    with pytest.raises(
        ScanError, match=r"frame-000000\.depth\.png: got a picture of 60000x60000, expected sides"
    ):
        open_source(entry_of(tmp_path, "room"))
    for path in folder.glob("*.depth.png"):
        path.write_bytes(b"")
    with pytest.raises(ScanError, match="room: got 2 depth pictures, none that can be read"):
        open_source(entry_of(tmp_path, "room"))
