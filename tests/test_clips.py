"""The clips stage on tiny recordings: exact geometry, replacement, accounting."""

from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np
import pytest
import zarr
from sens_room import (
    ALIGNMENT,
    FOCAL,
    HEIGHT,
    WIDTH,
    Recording,
    color_of,
    depth_of,
    frames_of,
    pose_of,
    with_pose,
    write_scan,
)

from pipeline import clips, fates
from pipeline.config import load_config
from pipeline.errors import ScanError
from pipeline.sources.scannet import ScannetSource
from scanshards.codec import decode_jpeg
from scanshards.geometry import resize_color, resize_depth, resize_plan, source_pixels, unproject

PLAN = resize_plan(WIDTH, HEIGHT)


def build(entry, *overrides: str) -> zarr.Group:
    group = zarr.create_group({})
    clips.build(entry, group, load_config(list(overrides), None), {})
    return group


def pictures(group: zarr.Group, k: int = 0) -> list[np.ndarray]:
    jpeg, offsets = group[f"{k:02d}/jpeg"][:].tobytes(), group[f"{k:02d}/jpeg_offsets"][:]
    return [decode_jpeg(jpeg[a:b]) for a, b in zip(offsets[:-1], offsets[1:], strict=True)]


def fate_of(group: zarr.Group) -> dict[int, tuple[str, str]]:
    """Status and kind of reason by frame."""
    return {
        frame: (part["status"], fates.reason_kind(part["reason"]))
        for part in group.attrs["frames_ledger"]
        for frame in part["frames"]
    }


def test_a_clip_holds_the_uniform_frames_resized_and_cropped(tmp_path):
    recording = Recording(40)
    group = build(write_scan(tmp_path, "scene0000_00", recording))
    (meta,) = group.attrs["clips"]
    frames = [int(x) for x in np.linspace(0, 39, 32)]
    assert meta["frame_indices"] == frames
    depth, rgb = group["00/depth"][:], pictures(group)
    assert depth.shape == (32, 384, 384) and depth.dtype == np.uint16
    for slot, frame in enumerate(frames):
        np.testing.assert_array_equal(depth[slot], resize_depth(depth_of(frame), PLAN))
        want = resize_color(color_of(recording, frame), PLAN).astype(int)
        assert np.abs(rgb[slot].astype(int) - want).mean() < 4


def test_coordinates_lie_on_the_plane_that_was_recorded(tmp_path):
    group = build(write_scan(tmp_path, "scene0000_00", Recording(40)))
    (meta,) = group.attrs["clips"]
    u, v = source_pixels(PLAN)
    depth = group["00/depth"][:]
    intrinsics, poses = np.array(meta["depth_intrinsics"]), np.array(meta["world_from_cam"])
    coords = unproject(depth, intrinsics, poses, u, v)
    for slot, frame in enumerate(meta["frame_indices"]):
        scan_from_px = np.stack(
            np.broadcast_arrays(
                (u - WIDTH / 2) * 2 / FOCAL + 0.1 * frame, (v[:, None] - HEIGHT / 2) * 2 / FOCAL, 2.0
            ),
            -1,
        )
        world = scan_from_px @ ALIGNMENT[:3, :3].T + ALIGNMENT[:3, 3]
        plane = depth[slot] == 2000
        np.testing.assert_allclose(coords[slot][plane], world[plane], atol=1e-5)
        assert np.isnan(coords[slot][depth[slot] == 0]).all()


def test_meta_says_what_the_recording_was(tmp_path):
    group = build(write_scan(tmp_path, "scene0000_00", Recording(40, color_size=(97, 31))))
    (meta,) = group.attrs["clips"]
    assert meta["source"] == {"color_width": 97, "color_height": 31, "depth_width": 64, "depth_height": 48}
    assert meta["resize"] == {"width": 512, "height": 384}
    assert meta["crop"] == {"x": 64, "y": 0, "width": 384, "height": 384}
    assert meta["alignment"] == ALIGNMENT.tolist()
    np.testing.assert_array_equal(meta["world_from_cam"][3], ALIGNMENT @ pose_of(meta["frame_indices"][3]))
    assert [item["name"] for item in meta["inputs"]] == [
        "scene0000_00.sens#header+frames",
        "scene0000_00.txt",
    ]


def test_every_frame_has_one_fate(tmp_path):
    frames = frames_of(Recording(50))
    frames[7] = with_pose(frames[7], -np.inf)
    frames[8] = with_pose(frames[8], 0)
    frames[0] = replace(frames[0], color=b"\xff\xd8 broken")
    frames[49] = replace(frames[49], depth=b"broken")
    entry = write_scan(tmp_path, "scene0000_00", Recording(50), frames)
    group = build(entry)
    found, chosen = fate_of(group), group.attrs["clips"][0]["frame_indices"]
    assert sorted(found) == list(range(50))
    assert found[7] == found[8] == ("rejected", fates.POSE)
    assert found[0] == found[49] == ("rejected", fates.DECODE)
    assert {frame for frame, fate in found.items() if fate[0] == "used"} == set(chosen)
    assert len(set(chosen)) == 32 and not {0, 7, 8, 49} & set(chosen)
    assert 1 in chosen or 2 in chosen, "the nearest candidate not examined takes the place"


def test_frames_with_little_depth_are_replaced(tmp_path):
    frames = frames_of(Recording(40))
    few = np.zeros((HEIGHT, WIDTH), np.uint16)
    few.flat[: int(0.09 * few.size)] = 1000
    enough = np.zeros((HEIGHT, WIDTH), np.uint16)
    enough.flat[: int(0.11 * enough.size)] = 1000
    frames[0] = replace(frames[0], depth=zlib.compress(few.tobytes()))
    frames[39] = replace(frames[39], depth=zlib.compress(enough.tobytes()))
    group = build(write_scan(tmp_path, "scene0000_00", Recording(40), frames))
    assert fate_of(group)[0] == ("rejected", fates.DEPTH)
    assert fate_of(group)[39] == ("used", "")
    depth = group.attrs["valid_depth"]
    assert dict(zip(depth["frames"], depth["fractions"], strict=True))[0] == pytest.approx(0.09, abs=1e-3)


def test_a_truncated_recording_is_used_as_far_as_it_goes(tmp_path):
    entry = write_scan(tmp_path, "scene0000_00", Recording(40))
    path = entry.path("sens")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    group = build(entry)
    cut = [frame for frame, fate in fate_of(group).items() if fate == ("rejected", fates.TRUNCATED)]
    assert sorted(fate_of(group)) == list(range(40))
    assert cut == list(range(cut[0], 40)) and 8 <= len(cut) <= 12
    assert max(group.attrs["clips"][0]["frame_indices"]) == cut[0] - 1


def test_each_frame_is_decoded_once_even_if_it_repeats(tmp_path, monkeypatch):
    calls: list[int] = []
    color = ScannetSource.color
    monkeypatch.setattr(ScannetSource, "color", lambda self, i: (calls.append(i), color(self, i))[1])
    group = build(write_scan(tmp_path, "scene0000_00", Recording(5)))
    assert sorted(calls) == list(range(5))
    frames = group.attrs["clips"][0]["frame_indices"]
    assert frames == [int(x) for x in np.linspace(0, 4, 32)]
    for slot, frame in enumerate(frames):
        np.testing.assert_array_equal(group["00/depth"][slot], resize_depth(depth_of(frame), PLAN))


def test_clips_of_one_scan_share_no_frame(tmp_path):
    group = build(write_scan(tmp_path, "scene0000_00", Recording(100)), "clips.per_scan=3")
    chosen = [set(meta["frame_indices"]) for meta in group.attrs["clips"]]
    assert len(chosen) == 3
    for k, frames in enumerate(chosen):
        assert {frame % 3 for frame in frames} == {k}
        assert group[f"{k:02d}/depth"].shape == (32, 384, 384)
    used = {frame for frame, fate in fate_of(group).items() if fate[0] == "used"}
    assert used == set.union(*chosen)


def test_stride_leaves_the_frames_between_alone(tmp_path):
    group = build(write_scan(tmp_path, "scene0000_00", Recording(45)), "clips.stride=10")
    assert set(group.attrs["clips"][0]["frame_indices"]) == {0, 10, 20, 30, 40}
    assert fate_of(group)[11] == ("not_examined", "")


def test_a_scan_without_a_usable_frame_is_rejected_with_counted_reasons(tmp_path):
    frames = [with_pose(frame, -np.inf) for frame in frames_of(Recording(6))]
    good = frames_of(Recording(6))
    frames[:2] = [replace(frame, depth=b"x") for frame in good[:2]]
    entry = write_scan(tmp_path, "scene0000_00", Recording(6), frames)
    expected = "scene0000_00: no usable frame for the clip, of 6 frames: 4 pose not finite, 2 decode failed"
    with pytest.raises(ScanError, match=expected) as caught:
        build(entry)
    fate = {frame: part["reason"] for part in caught.value.ledger for frame in part["frames"]}
    assert {frame: fates.reason_kind(reason) for frame, reason in fate.items()} == {
        **dict.fromkeys((0, 1), fates.DECODE),
        **dict.fromkeys((2, 3, 4, 5), fates.POSE),
    }
    with pytest.raises(ScanError, match="of 0 frames: no candidate"):
        build(write_scan(tmp_path, "scene0001_00", Recording(0)))


def test_same_scan_gives_same_arrays_and_attributes(tmp_path):
    entry = write_scan(tmp_path, "scene0000_00", Recording(40))
    first, second = build(entry), build(entry)
    assert dict(first.attrs) == dict(second.attrs)
    for name in ("depth", "jpeg", "jpeg_offsets"):
        np.testing.assert_array_equal(first[f"00/{name}"][:], second[f"00/{name}"][:])
