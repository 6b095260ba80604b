"""Maximum coverage against a slow reference of Python sets, and through the stage."""

from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from mesh_rooms import level
from sens_room import ALIGNMENT, FOCAL, HEIGHT, WIDTH, Recording, frames_of, with_pose, write_scan

from pipeline import clips, fates
from pipeline.config import load_config
from pipeline.coverage import Coverage, frame_voxels, mesh_voxels, voxel_keys
from pipeline.errors import ScanError
from pipeline.mesh import transform
from pipeline.scans import FileStamp
from pipeline.sources import open_source


def slow_keys(points) -> set[tuple[int, int, int]]:
    """Python's round is half to even."""
    return {tuple(round(float(c / np.float32(0.1))) for c in p) for p in points if not np.isnan(p).any()}


def unpacked(keys) -> list[tuple[int, int, int]]:
    mask, offset = (1 << 21) - 1, 1 << 20
    return [((k >> 42) - offset, (k >> 21 & mask) - offset, (k & mask) - offset) for k in keys.tolist()]


def slow_pick(seen: dict[int, set], candidates, count: int, bad: set[int]) -> tuple[list[int], set[int]]:
    """Greedy by looking at every candidate each time; fewer than `count` repeat by linspace."""
    covered, picked, rejected = set(), [], set()
    left = sorted(candidates)
    while left and len(picked) < count:
        best = max(left, key=lambda frame: (len(seen[frame] - covered), -frame))
        left.remove(best)
        if best in bad:
            rejected.add(best)
        else:
            picked.append(best)
            covered |= seen[best]
    picked.sort()
    return [picked[int(p)] for p in np.linspace(0, len(picked) - 1, count)] if picked else [], rejected


@given(st.lists(st.tuples(*[st.floats(-200, 200, width=32)] * 3), max_size=60), st.data())
@settings(max_examples=100, deadline=None)
def test_voxels_are_the_rounded_points(points, data):
    halves = data.draw(st.lists(st.tuples(*[st.integers(-9, 9)] * 3), max_size=20))
    points = np.array(points + [tuple(0.05 * i for i in half) for half in halves], np.float32).reshape(-1, 3)
    keys = voxel_keys(points)
    assert unpacked(keys) == sorted(slow_keys(points))
    holes = np.concatenate([points, np.full((3, 3), np.nan, np.float32)])
    np.testing.assert_array_equal(voxel_keys(holes), keys)


def test_points_beyond_a_key_are_left_out():
    far = np.float32(0.1) * (1 << 20)
    points = np.array([[1, 2, 3], [far, 0, 0], [0, -far, 0], [0, 0, np.inf], [0, 1e30, 0]], np.float32)
    assert unpacked(voxel_keys(points)) == [(10, 20, 30)]
    assert len(voxel_keys(np.empty((0, 3), np.float32))) == 0


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_picks_equal_the_slow_greedy_reference(data):
    draw = data.draw
    frames = draw(st.lists(st.integers(0, 60), unique=True, max_size=14))
    seen = {frame: draw(st.sets(st.integers(0, 25), max_size=12)) for frame in frames}
    scene = draw(st.none() | st.sets(st.integers(0, 30), max_size=25))
    bad = draw(st.sets(st.sampled_from(frames))) if frames else set()
    candidates = draw(st.sets(st.sampled_from(frames))) if frames else set()
    count = draw(st.integers(1, 16))

    def keys(values):
        return np.array(sorted(values), np.int64)

    cover = Coverage({f: keys(v) for f, v in seen.items()}, None if scene is None else keys(scene))
    everything = set().union(*seen.values())
    inside = {f: v if scene is None else v & scene for f, v in seen.items()}
    assert cover.num_scene == len(everything if scene is None else scene)
    assert cover.num_seen == len(set().union(*inside.values()))
    choice = cover.pick(sorted(candidates), count, lambda frame: "bad" if frame in bad else None)
    want, rejected = slow_pick(inside, candidates, count, bad)
    assert choice.frames == want
    assert choice.rejected == dict.fromkeys(rejected, "bad")
    assert cover.covered(choice.frames) == len(set().union(*(inside[f] for f in want)))


def test_each_frame_is_decoded_for_the_clip_only_once_picked():
    asked = []
    cover = Coverage({f: np.arange(3 * f, 3 * f + 3) for f in range(40)}, None)
    choice = cover.pick(list(range(40)), 32, lambda frame: asked.append(frame))
    assert sorted(asked) == choice.frames == list(range(32)), "ties go to the lower frame"


def build(entry, *overrides: str) -> zarr.Group:
    group = zarr.create_group({})
    clips.build(entry, group, load_config(["clips.sampling=max_coverage", *overrides], None), {})
    return group


def fates_of(group: zarr.Group) -> dict[int, tuple[str, str]]:
    return {
        frame: (part["status"], fates.reason_kind(part["reason"]))
        for part in group.attrs["frames_ledger"]
        for frame in part["frames"]
    }


def frame_set(recording: Recording, frame: int, depth: np.ndarray, x_m: float) -> set:
    """Voxels of a frame of `sens_room`, from the formulas alone."""
    found = set()
    for v, u in zip(*np.nonzero(depth), strict=True):
        z = depth[v, u] / 1000
        scan = np.array([(u - WIDTH / 2) * z / FOCAL + x_m, (v - HEIGHT / 2) * z / FOCAL, z, 1])
        found.add(tuple(round(float(np.float32(c) / np.float32(0.1))) for c in (ALIGNMENT @ scan)[:3]))
    return found


def test_a_clip_is_the_greedy_choice_of_every_second_frame(tmp_path):
    recording = Recording(80)
    random = np.random.default_rng(1)
    frames, depths = frames_of(recording), []
    for index in range(80):  # mostly holes, and patches of very different size
        depth = np.zeros((HEIGHT, WIDTH), np.uint16)
        rows, columns = random.integers(12, HEIGHT), random.integers(20, WIDTH)
        depth[:rows:4, :columns] = 1500 + 10 * random.integers(0, 60)
        depths.append(depth)
        frames[index] = replace(frames[index], depth=zlib.compress(depth.tobytes()))
    group = build(write_scan(tmp_path, "scene0000_00", recording, frames), "clips.min_valid_depth=0.02")
    seen = {f: frame_set(recording, f, depths[f], 0.1 * f) for f in range(0, 80, 2)}
    want, _ = slow_pick(seen, seen, 32, set())
    assert group.attrs["clips"][0]["frame_indices"] == want
    everything = len(set().union(*seen.values()))
    assert group.attrs["coverage"] == [
        {
            "selected_voxels": len(set().union(*(seen[f] for f in want))),
            "seen_voxels": everything,
            "scene_voxels": everything,
        }
    ]
    found = fates_of(group)
    assert all(found[f] == ("not_examined", "") for f in range(1, 80, 2))
    assert {f for f in seen if found[f] == ("not_examined", fates.SPARE)} == seen.keys() - set(want)


def test_all_frames_are_candidates_where_every_second_leaves_too_few(tmp_path):
    frames = frames_of(Recording(64))
    assert set(fates_of(build(write_scan(tmp_path, "s", Recording(64), frames))).values()) == {
        ("used", ""),
        ("not_examined", ""),
    }
    frames[10] = with_pose(frames[10], -np.inf)  # every second posed one: 0 … 8, 11, 13 … 63, so 32
    frames[21] = replace(frames[21], depth=b"broken")  # and now 31
    group = build(write_scan(tmp_path, "t", Recording(64), frames))
    found = fates_of(group)
    assert len(set(group.attrs["clips"][0]["frame_indices"])) == 32
    assert ("not_examined", "") not in found.values()
    assert found[10] == ("rejected", fates.POSE) and found[21] == ("rejected", fates.DECODE)


def test_bad_frames_are_never_picked_and_the_next_best_takes_their_place(tmp_path):
    frames = frames_of(Recording(40))
    good = build(write_scan(tmp_path, "good", Recording(40), frames)).attrs["clips"][0]["frame_indices"]
    first = good[0]
    frames[first] = replace(frames[first], color=b"broken")
    frames[5] = replace(frames[5], depth=zlib.compress(bytes(2 * WIDTH * HEIGHT)))
    group = build(write_scan(tmp_path, "bad", Recording(40), frames))
    found, chosen = fates_of(group), group.attrs["clips"][0]["frame_indices"]
    assert found[first] == ("rejected", fates.DECODE) and found[5] == ("rejected", fates.DEPTH)
    assert len(set(chosen)) == 32 and not {first, 5} & set(chosen)


def test_few_good_frames_repeat_as_in_the_uniform_choice(tmp_path):
    group = build(write_scan(tmp_path, "scene0000_00", Recording(5)))
    assert group.attrs["clips"][0]["frame_indices"] == [int(x) for x in np.linspace(0, 4, 32)]


def test_clips_of_one_scan_share_no_frame_and_each_covers_anew(tmp_path):
    group = build(write_scan(tmp_path, "scene0000_00", Recording(200)), "clips.per_scan=3")
    first, second, third = (set(meta["frame_indices"]) for meta in group.attrs["clips"])
    assert len(first) == len(second) == len(third) == 32
    assert not first & second and not first & third and not second & third
    voxels = [clip["selected_voxels"] for clip in group.attrs["coverage"]]
    seen = group.attrs["coverage"][0]["seen_voxels"]
    assert voxels[0] >= voxels[1] >= voxels[2] > 0.5 * seen


def test_few_frames_are_shared_evenly_among_the_clips(tmp_path):
    group = build(write_scan(tmp_path, "scene0000_00", Recording(20)), "clips.per_scan=2")
    first, second = (set(meta["frame_indices"]) for meta in group.attrs["clips"])
    assert len(first) == len(second) == 10 and not first & second


def test_the_vertices_of_the_scans_own_mesh_are_the_surface(tmp_path):
    trimesh = pytest.importorskip("trimesh")
    entry = write_scan(tmp_path, "scene0000_00", Recording(100))
    mesh = level(2, 4, -0.5, 0.5, 2.0, (9, 9, 9), cuts=60)
    path = tmp_path / "scene0000_00" / "scene0000_00_vh_clean_2.ply"
    colors = np.column_stack([mesh.colors, np.full(len(mesh.colors), 255)])
    trimesh.Trimesh(mesh.vertices, mesh.faces, vertex_colors=colors, process=False).export(path)
    entry = replace(entry, files=entry.files | {"mesh": FileStamp.of(path, path.parent)})
    keys = mesh_voxels(entry, ALIGNMENT)
    assert unpacked(keys) == sorted(slow_keys(transform(mesh, ALIGNMENT).vertices))
    (found,) = build(entry).attrs["coverage"]
    assert found["scene_voxels"] == len(keys)
    assert found["selected_voxels"] == found["seen_voxels"] == len(keys), "the cameras pass over all of it"


def test_more_surface_is_seen_than_by_the_uniform_choice(tmp_path):
    """A camera that stands still for 300 of 400 frames."""
    frames = frames_of(Recording(400))
    still = [replace(frame, scan_from_cam=frames[0].scan_from_cam) for frame in frames[:300]]
    entry = write_scan(tmp_path, "scene0000_00", Recording(400), still + frames[300:])
    uniform = zarr.create_group({})
    clips.build(entry, uniform, load_config([], None), {})
    spread, best = (g.attrs["clips"][0]["frame_indices"] for g in (uniform, build(entry)))
    with open_source(entry) as source:
        cover = Coverage({f: frame_voxels(source, f, source.depth(f)) for f in range(400)}, None)
    assert sum(frame < 300 for frame in spread) > 20 > sum(frame < 300 for frame in best)
    assert cover.covered(spread) < cover.covered(best)
    assert cover.covered(best) > 0.95 * cover.num_seen


def test_a_scan_set_aside_for_its_mesh_accounts_for_its_frames(tmp_path):
    frames = frames_of(Recording(6))
    frames[4] = with_pose(frames[4], -np.inf)
    entry = write_scan(tmp_path, "scene0000_00", Recording(6), frames)
    path = tmp_path / "scene0000_00" / "scene0000_00_vh_clean_2.ply"
    path.write_bytes(b"no mesh")
    entry = replace(entry, files=entry.files | {"mesh": FileStamp.of(path, path.parent)})
    with pytest.raises(ScanError, match=r"_vh_clean_2\.ply: cannot be read as PLY") as caught:
        build(entry)
    assert caught.value.ledger == [
        {"status": "not_examined", "reason": "", "frames": [0, 1, 2, 3, 5]},
        {"status": "rejected", "reason": fates.POSE, "frames": [4]},
    ]
