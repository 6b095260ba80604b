"""Every layout gives the clip that ScanNet's own layout gives of the same recording."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import xxhash
import zarr
from mesh_rooms import FLOOR, WALL
from sens_room import ALIGNMENT
from source_layouts import (
    HOLED,
    LOST,
    box,
    depth_mm,
    entries,
    entry_of,
    jpeg,
    png,
    write_meta,
    write_posed_images,
    write_scannet,
    write_seven_scenes,
    write_tum,
)

from pipeline import clips
from pipeline.config import load_config
from pipeline.errors import ScanError
from pipeline.sources import alignment, layouts, open_source
from scanshards.codec import decode_jpeg
from scanshards.geometry import ResizePlan, source_pixels, unproject

Writer = Callable[..., Path]
WRITERS: dict[str, Writer] = {
    "posed_images": write_posed_images,
    "seven_scenes": write_seven_scenes,
    "tum": write_tum,
}
PICTURES = {
    "posed_images": ("*.jpg", "*.png"),
    "seven_scenes": ("*.color.png", "*.depth.png"),
    "tum": ("rgb/*", "depth/*"),
}
"""Where the colour and the depth pictures of each layout lie."""


@pytest.fixture(params=WRITERS)
def layout(request) -> str:
    return request.param


def clip_of(entry) -> zarr.Group:
    group = zarr.create_group({})
    clips.build(entry, group, load_config([], None), {})
    return group


def test_the_clip_is_that_of_the_sens_file(tmp_path, layout):
    recording = box()
    write_meta(write_scannet(tmp_path / "sens", "room0000_00", recording), "room0000_00", ALIGNMENT)
    write_meta(WRITERS[layout](tmp_path / layout, "room0000_00", recording), "room0000_00", ALIGNMENT)
    (entry,) = entries(tmp_path / layout)
    assert (entry.source, entry.split, set(entry.files)) == (layout, "train", {"frames", "meta"})
    expected, group = clip_of(entry_of(tmp_path / "sens", "room0000_00")), clip_of(entry)
    (want,), (got,) = expected.attrs["clips"], group.attrs["clips"]
    for key in ("frame_indices", "source", "resize", "crop"):
        assert got[key] == want[key]
    for key in ("world_from_cam", "depth_intrinsics", "color_intrinsics", "alignment"):
        np.testing.assert_allclose(got[key], want[key], atol=1e-5, err_msg=key)
    for name in ("depth", "jpeg", "jpeg_offsets"):
        np.testing.assert_array_equal(group["00"][name][:], expected["00"][name][:])
    assert group.attrs["frames_ledger"] == expected.attrs["frames_ledger"]
    assert LOST not in got["frame_indices"]


@pytest.mark.parametrize(
    ("layout", "size"),
    [
        ("posed_images", (64, 48)),
        ("posed_images", (48, 64)),
        ("seven_scenes", (40, 80)),
        ("tum", (48, 64)),
        ("tum", (63, 63)),
    ],
    indirect=["layout"],
)
def test_coordinates_lie_on_the_walls_whatever_the_orientation(tmp_path, layout, size):
    recording = box(*size, steps=4, color_scale=3)
    write_meta(WRITERS[layout](tmp_path, "phone", recording), "phone", np.eye(4))
    group = clip_of(entry_of(tmp_path, "phone"))
    (meta,) = group.attrs["clips"]
    plan = ResizePlan(*size, **meta["resize"], x=meta["crop"]["x"], y=meta["crop"]["y"], size=384)
    assert plan.size == min(plan.width, plan.height)
    u, v = source_pixels(plan)
    poses, k = np.array(meta["world_from_cam"]), np.array(meta["depth_intrinsics"])
    coords = unproject(group["00/depth"][::4], k, poses[::4], u, v)  # each frame is there four times
    points = coords[np.isfinite(coords).all(axis=-1)]
    assert len(points) == coords.size // 3
    to_surface = np.abs(np.stack([points, points - recording.size_m], -1)).min(axis=(1, 2))
    assert to_surface.max() < 2e-3
    offsets = group["00/jpeg_offsets"][:]
    for i in range(8):  # colour fits depth
        rgb = decode_jpeg(group["00/jpeg"][offsets[4 * i] : offsets[4 * i + 1]].tobytes())
        floor = coords[i, ..., 2] < 2e-3
        if floor.any():
            assert np.median(np.abs(rgb[floor].astype(int) - FLOOR)) < 4
        wall = (coords[i, ..., 2] > 0.2) & (coords[i, ..., 2] < 2.2)
        assert np.median(np.abs(rgb[wall].astype(int) - WALL)) < 4


def test_alignment_needs_no_picture(tmp_path, layout):
    recording = box(steps=3)
    folder = WRITERS[layout](tmp_path, "room", recording)
    with open_source(entry_of(tmp_path, "room")) as source:
        expected = source.alignment
    for path in (*folder.rglob("*.png"), *folder.rglob("*.jpg")):
        path.write_bytes(b"no picture")
    np.testing.assert_array_equal(alignment(entry_of(tmp_path, "room")), expected)
    write_meta(folder, "room", ALIGNMENT)
    np.testing.assert_array_equal(alignment(entry_of(tmp_path, "room")), ALIGNMENT)


def test_files_that_are_missing_or_damaged_cost_their_frame_only(tmp_path, layout):
    folder = WRITERS[layout](tmp_path, "room", box())
    pictures = [sorted(folder.glob(PICTURES[layout][i % 2]))[i] for i in range(4)]
    pictures[0].unlink()
    pictures[1].write_bytes(png(np.full((24, 32), 900, np.uint16)))
    pictures[2].write_bytes(pictures[2].read_bytes()[:-40])
    pictures[3].write_bytes(png(np.zeros((48, 64, 3), np.uint16)))
    with open_source(entry_of(tmp_path, "room")) as source:
        assert source.num_frames == source.num_frames_declared == 40
        for index, read, message in (
            (0, source.color, "no colour picture, expected one|cannot be read .No such file"),
            (1, source.depth, r"got a picture of 32x24, expected 64x48"),
            (2, source.color, "bytes that are no whole picture"),
            (3, source.depth, r"got uint16 pixels of shape \(48, 64, 3\), expected uint16"),
        ):
            with pytest.raises(ScanError, match=message):
                read(index)
    group = clip_of(entry_of(tmp_path, "room"))
    fates = {f: part["status"] for part in group.attrs["frames_ledger"] for f in part["frames"]}
    assert [fates[i] for i in (0, 1, 2, 3, LOST)] == ["rejected"] * 5
    assert set(group.attrs["clips"][0]["frame_indices"]).isdisjoint({0, 1, 2, 3, LOST})
    assert sorted(fates) == list(range(40))


def test_frames_count_from_0_whatever_their_numbers(tmp_path):
    recording = box(steps=3)
    write_posed_images(tmp_path, "room", recording, step=10)
    with open_source(entry_of(tmp_path, "room")) as source:
        assert source.num_frames == 6
        np.testing.assert_allclose(source.poses[4], recording.poses[4], atol=1e-8)
        np.testing.assert_array_equal(source.depth(4), recording.depth(4))


def test_65535_is_missing_in_7_scenes(tmp_path):
    recording = box()
    write_seven_scenes(tmp_path, "room", recording)
    with open_source(entry_of(tmp_path, "room")) as source:
        np.testing.assert_array_equal(source.depth(HOLED), depth_mm(recording, HOLED))
        assert (source.depth(HOLED)[:24] == 0).all()


def test_sequences_are_scans_of_their_own(tmp_path):
    recording = box(steps=2)
    for name in ("chess/seq-01", "chess/seq-02", "office"):
        write_seven_scenes(tmp_path, name, recording, suffix="jpg")
    shared = tmp_path / "chess" / "camera-intrinsics.txt"
    (tmp_path / "chess" / "seq-01" / "camera-intrinsics.txt").rename(shared)
    (tmp_path / "chess" / "seq-02" / "camera-intrinsics.txt").unlink()
    found = entries(tmp_path)
    assert [entry.scan_id for entry in found] == ["chess-seq-01", "chess-seq-02", "office"]
    stamp = found[0].files["frames"]
    assert stamp.num_files == 3 * 4 + 1  # the shared intrinsics count too
    with open_source(found[1]) as source:
        np.testing.assert_allclose(source.depth_intrinsics, recording.depth_intrinsics)
        assert "../camera-intrinsics.txt" in [item["name"] for item in source.fingerprint([])]
    shutil.copytree(tmp_path / "office", tmp_path / "chess-seq-02")
    with pytest.raises(ValueError, match=r"scan id chess-seq-02: got .*, expected one folder"):
        entries(tmp_path)


def test_the_stamp_changes_with_any_frame_file_and_stays_small(tmp_path, layout):
    folder = WRITERS[layout](tmp_path, "room", box(steps=2))
    (before,) = entries(tmp_path)
    assert entries(tmp_path) == [before]
    (folder / "notes.md").write_text("not of the recording")
    assert entries(tmp_path) == [before]
    stamp = before.files["frames"]
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != "notes.md"]
    assert (stamp.num_files, stamp.bytes) == (len(paths), sum(path.stat().st_size for path in paths))
    assert before.path("frames") == folder
    for path in paths:  # an older file of the same size under the same name
        times = path.stat().st_atime_ns, path.stat().st_mtime_ns
        os.utime(path, ns=(1, 1))
        assert entries(tmp_path)[0].files["frames"].listing != stamp.listing, path
        os.utime(path, ns=times)
    assert entries(tmp_path) == [before]


def test_the_fingerprint_is_of_the_files_that_were_read(tmp_path, layout):
    folder = WRITERS[layout](tmp_path, "room", box(steps=3))
    write_meta(folder, "room", ALIGNMENT)
    with open_source(entry_of(tmp_path, "room")) as source:
        found = {item["name"]: item for item in source.fingerprint([1, 4])}
    singles = {name: item for name, item in found.items() if "*" not in name}
    for name, item in singles.items():
        data = (folder / name).read_bytes()
        assert (item["bytes"], item["xxh3"]) == (len(data), xxhash.xxh3_64_hexdigest(data))
    assert sum(name.endswith((".png", ".jpg")) for name in singles) == 4
    if layout == "seven_scenes":
        poses = b"".join(path.read_bytes() for path in sorted(folder.glob("frame-*.pose.txt")))
        assert found["frame-*.pose.txt"]["xxh3"] == xxhash.xxh3_64_hexdigest(poses)
        assert set(singles) >= {"room.txt", "camera-intrinsics.txt", "frame-000004.depth.png"}


def test_a_folder_that_two_layouts_know_goes_by_the_order(tmp_path):
    recording = box(steps=2)
    write_posed_images(tmp_path, "room", recording)
    source = write_scannet(tmp_path / "other", "room", recording)
    shutil.copy(source / "room.sens", tmp_path / "room" / "room.sens")
    assert entry_of(tmp_path, "room").source == "scannet"
    assert list(layouts()) == ["scannet", "posed_images", "seven_scenes", "tum"]


def test_what_no_layout_knows_is_told(tmp_path):
    (tmp_path / "photos").mkdir()
    with pytest.raises(ValueError, match=r"no scan in .*SCAN\.sens.*posed_images.*7-Scenes.*TUM"):
        entries(tmp_path)
    folder = write_seven_scenes(tmp_path, "room", box(steps=1))
    assert [entry.scan_id for entry in entries(tmp_path)] == ["room"]
    with pytest.raises(ValueError, match=f"got a scan, {folder}; set scans.root={tmp_path}, the folder"):
        entries(folder)


@pytest.mark.parametrize(
    ("writer", "f", "cx", "cy"), [(write_seven_scenes, 585, 320, 240), (write_tum, 525, 319.5, 239.5)]
)
def test_the_documented_camera_counts_at_its_size(tmp_path, writer, f, cx, cy):
    recording = box(640, 480, steps=1, color_scale=1)
    (writer(tmp_path, "room", recording) / "camera-intrinsics.txt").unlink()
    with open_source(entry_of(tmp_path, "room")) as source:
        assert source.depth_intrinsics.tolist() == [[f, 0, cx], [0, f, cy], [0, 0, 1]]
        np.testing.assert_allclose(source.color_intrinsics, source.depth_intrinsics, atol=1e-12)


def test_a_reduced_picture_is_offered(tmp_path, layout):
    recording = box(steps=1)
    WRITERS[layout](tmp_path, "room", recording, *(() if layout == "posed_images" else ("jpg",)))
    with open_source(entry_of(tmp_path, "room")) as source:
        assert source.small_color(0, (60, 40)).shape == (48, 64, 3)
        assert source.small_color(0, (65, 40)).shape == source.color(0).shape == (96, 128, 3)
        want = cv2.imdecode(np.frombuffer(jpeg(recording, 0), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        np.testing.assert_array_equal(source.color(0), want)
