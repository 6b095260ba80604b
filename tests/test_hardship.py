"""The scan with every hardship: its ledger frame by frame, and no missing depth in its sample."""

from __future__ import annotations

import numpy as np
import pytest
import zarr
from hardship import (
    BAD,
    COLOR_SIZE,
    DECLARED,
    DEPTH_SIZE,
    NO_DEPTH,
    ROOM_M,
    WHOLE,
    depth_of,
    world_from_cam,
    write_hardship,
)
from stage_results import config_of, fill_bev, fill_latents, fill_texts, stores_of
from test_sampling import slow_choice

import scanshards
from pipeline import clips, fates
from pipeline.config import load_config
from pipeline.shards import build_shards
from scanshards.geometry import resize_depth, resize_plan

SCAN = "scene0000_00"


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    return write_hardship(tmp_path_factory.mktemp("hardship"), SCAN)


def ledger_of(scan, *overrides: str) -> tuple[list[tuple[str, str]], list[int]]:
    """(status, kind of reason) of each frame, and the frames of the clip."""
    group = zarr.create_group({})
    clips.build(scan, group, load_config(list(overrides), None), {})
    fate = {
        frame: (part["status"], fates.reason_kind(part["reason"]))
        for part in group.attrs["frames_ledger"]
        for frame in part["frames"]
    }
    assert sorted(fate) == list(range(DECLARED))
    depth, (meta,) = group["00/depth"][:], group.attrs["clips"]
    plan = resize_plan(*DEPTH_SIZE)
    for slot, frame in enumerate(meta["frame_indices"]):
        np.testing.assert_array_equal(depth[slot], resize_depth(depth_of(frame), plan))
        np.testing.assert_array_equal(meta["world_from_cam"][slot], world_from_cam(frame))
    assert (meta["source"]["color_width"], meta["source"]["color_height"]) == COLOR_SIZE
    return [fate[frame] for frame in range(DECLARED)], meta["frame_indices"]


def test_the_ledger_of_the_uniform_choice(scan):
    candidates = [frame for frame in range(WHOLE) if BAD.get(frame) != fates.POSE]
    decoding = {frame for frame in candidates if frame in BAD}
    chosen, met = slow_choice(candidates, 32, decoding)
    assert len(met) > 3 and met < decoding, "the choice must meet some of the bad frames, not all"
    found, frames = ledger_of(scan)
    assert frames == chosen
    unseen = {frame for frame in BAD if frame not in decoding}
    assert found == [
        ("used", "") if f in chosen
        else ("rejected", BAD[f]) if f in met | unseen
        else ("not_examined", "")
        for f in range(DECLARED)
    ]  # fmt: skip


@pytest.mark.parametrize("sampling", ["uniform", "max_coverage"])
def test_the_ledger_of_the_full_audit(scan, sampling):
    found, frames = ledger_of(scan, "scans.full_audit=true", f"clips.sampling={sampling}")
    assert len(set(frames)) == 32 and not set(frames) & BAD.keys()
    assert found == [
        ("used", "") if f in frames
        else ("rejected", BAD[f]) if f in BAD
        else ("not_examined", fates.SPARE)
        for f in range(DECLARED)
    ]  # fmt: skip


def test_the_ledger_of_maximum_coverage(scan):
    found, frames = ledger_of(scan, "clips.sampling=max_coverage")
    posed = [frame for frame in range(WHOLE) if BAD.get(frame) != fates.POSE]
    candidates = posed[::2]
    assert sum(frame not in BAD for frame in candidates) >= 32
    color = {f for f in candidates if BAD.get(f) == fates.DECODE and found[f][0] != "rejected"}
    assert all(found[f] == ("not_examined", fates.SPARE) for f in color), "decoded only if picked"
    assert len(set(frames)) == 32 and set(frames) <= set(candidates) - BAD.keys()
    for f in range(DECLARED):
        if f in frames:
            assert found[f] == ("used", "")
        elif f in BAD and (f in candidates or f not in posed) and f not in color:
            assert found[f] == ("rejected", BAD[f])
        else:
            assert found[f] == ("not_examined", fates.SPARE if f in candidates else "")


def test_missing_depth_never_leaks_into_coordinates_or_patches(scan, tmp_path):
    """Every coordinate of the sample lies on a wall; no mean of a patch is nearer than the nearest."""
    config = config_of(tmp_path, "clips.min_valid_depth=0")  # so that frames without any depth are used
    stores = stores_of(tmp_path)
    for name, fill in (
        ("clips", lambda group: clips.build(scan, group, config, {})),
        ("meshes", lambda group: None),
        ("bev", lambda group: fill_bev(group, SCAN)),
        ("latents", lambda group: fill_latents(group, SCAN)),
        ("texts", lambda group: fill_texts(group, SCAN)),
    ):
        assert stores[name].build(SCAN, "key", fill) == ""
    build_shards([scan], stores, config)
    (clip,) = scanshards.open(tmp_path / "shards" / "scannet-*.tar")
    assert set(NO_DEPTH) & set(clip.meta["frame_indices"])

    valid, coords, nearest_m = clip.depth > 0, clip.coords, clip.depth[clip.depth > 0].min() / 1000
    np.testing.assert_array_equal(clip.coords_valid, valid)
    np.testing.assert_array_equal(np.isfinite(coords).all(-1), valid)
    np.testing.assert_array_equal(np.isnan(coords).all(-1), ~valid)
    off_wall = np.minimum(np.abs(coords), np.abs(coords - ROOM_M)).min(-1)
    assert off_wall[valid].max() < 0.002, "depth is rounded to a millimetre"
    assert camera_depth(clip, coords)[valid].min() >= nearest_m - 1e-4 > 0.5

    blocks = valid[:, :378, :378].reshape(32, 14, 27, 14, 27).any((2, 4))
    patches = clip.patch_coords(27)
    np.testing.assert_array_equal(np.isfinite(patches).all(-1), blocks)
    assert not blocks.all() and camera_depth(clip, patches)[blocks].min() >= nearest_m - 1e-4
    published = clip.patch_coords(27, missing="camera")
    assert camera_depth(clip, published).min() < 1e-4, "the published mode leaks, and says so"


def camera_depth(clip, points) -> np.ndarray:
    """(32, …) metres along the optical axis of each frame's camera."""
    centre, forward = clip.world_from_cam[:, :3, 3], clip.world_from_cam[:, :3, 2]
    shape = (32, *[1] * (points.ndim - 2), 3)
    return ((points - centre.reshape(shape)) * forward.reshape(shape)).sum(-1)
