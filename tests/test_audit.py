"""The full audit: injected jumps and blur are found exactly, and nothing else."""

from __future__ import annotations

import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from sens_room import Recording, frames_of, with_pose, write_scan

from pipeline import clips, fates
from pipeline.audit import jumps, relative_sharpness, sharpness
from pipeline.config import AuditConfig, load_config
from pipeline.scans import ScanEntry, take_inventory
from pipeline.sources.sens import SensReader, write_sens

CONFIG = AuditConfig()
FULL = "scans.full_audit=true"


def turn(axis: int, degrees: float) -> np.ndarray:
    a, b = [i for i in range(3) if i != axis]
    matrix = np.eye(4)
    matrix[[a, a, b, b], [a, b, a, b]] = np.cos(t := np.radians(degrees)), -np.sin(t), np.sin(t), np.cos(t)
    return matrix


def walk(num: int, step_m: float, turn_deg: float, seed: int = 0) -> np.ndarray:
    """(num, 4, 4) a hand-held camera: steps and turns of changing size about the given means."""
    random = np.random.default_rng(seed)
    poses = [np.eye(4)]
    for _ in range(num - 1):
        step = np.eye(4)
        step[:3, 3] = random.normal(size=3) * step_m * random.uniform(0, 1.5)
        poses.append(poses[-1] @ turn(random.integers(3), turn_deg * random.uniform(0, 2)) @ step)
    return np.array(poses)


def all_frames(poses: np.ndarray) -> np.ndarray:
    return np.arange(len(poses))


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_injected_jumps_are_found_and_nothing_else(data):
    draw = data.draw
    rate = draw(st.sampled_from([(0.01, 1.0), (0.0, 0.0), (0.25, 12.0)]))
    poses = walk(120, *rate, seed=draw(st.integers(0, 99)))
    bad: set[int] = set()
    for slot in draw(st.sets(st.integers(0, 8), max_size=6)):  # with seven good frames or more between
        start, length = 12 * slot + 6, draw(st.integers(1, 5))
        far, round_about = np.eye(4), turn(draw(st.integers(0, 2)), 180.0)
        far[draw(st.integers(0, 2)), 3] = 30.0
        move = draw(st.sampled_from([far, round_about, far @ round_about]))
        poses[start : start + length] = poses[start : start + length] @ move
        bad |= set(range(start, start + length))
    assert jumps(poses, all_frames(poses), CONFIG) == sorted(bad)


def test_lost_frames_allow_for_the_way_between():
    poses = walk(60, 0.05, 0.0)
    poses[30:, 0, 3] += 5.0
    frames = all_frames(poses)
    assert jumps(poses, frames, CONFIG) == []  # two long runs: nobody knows which is wrong
    poses[33:, 0, 3] -= 5.0
    assert jumps(poses, frames, CONFIG) == [30, 31, 32]
    assert jumps(poses, np.delete(frames, [29, 33]), CONFIG) == [30, 31, 32]
    assert jumps(poses, np.delete(frames, [*range(12, 30), *range(33, 51)]), CONFIG) == []  # 5 m in 18 frames


def test_the_limits_are_those_of_the_config():
    poses = np.tile(np.eye(4), (20, 1, 1))
    poses[:, 0, 3] = 0.02 * np.arange(20)
    for shift, factor, least, found in ((0.3, 10, 0.3, [7]), (0.27, 10, 0.3, []), (0.3, 20, 0.3, [])):
        moved = poses.copy()
        moved[7, 1, 3] = shift
        assert jumps(moved, all_frames(moved), AuditConfig(jump_factor=factor, jump_min_m=least)) == found
    for degrees, found in ((31, [7]), (29, [])):
        turned = poses.copy()
        turned[7] = turned[7] @ turn(1, degrees)
        assert jumps(turned, all_frames(turned), CONFIG) == found


def test_a_track_of_short_pieces_tells_nothing():
    poses = np.tile(np.eye(4), (20, 1, 1))
    poses[:, 0, 3] = 50.0 * (np.arange(20) // 5)
    assert jumps(poses, all_frames(poses), CONFIG) == []
    assert jumps(poses[:2], np.arange(2), CONFIG) == jumps(poses[:0], np.arange(0), CONFIG) == []


def picture(seed: int = 0, contrast: float = 60.0) -> np.ndarray:
    """(248, 328, 3) patches of random grey with sharp edges and a little noise."""
    random = np.random.default_rng(seed)
    coarse = random.normal(128, contrast, (16, 21))
    grey = cv2.resize(coarse, (336, 256), interpolation=cv2.INTER_NEAREST)[:248, :328]
    return np.clip(grey + random.normal(0, 1, grey.shape), 0, 255).astype(np.uint8)[..., None].repeat(3, 2)


def motion(rgb: np.ndarray, length_px: int, across: bool) -> np.ndarray:
    return cv2.blur(rgb, (length_px, 1) if across else (1, length_px))


def test_sharpness_is_second_over_first_differences():
    grey = np.random.default_rng(0).integers(0, 256, (50, 70)).astype(np.uint8)
    rows, columns = sharpness(grey[..., None].repeat(3, 2))
    g = grey.astype(float)
    first, second = g[:, 1:] - g[:, :-1], g[:, 2:] - 2 * g[:, 1:-1] + g[:, :-2]
    assert rows == pytest.approx((second**2).mean() / (first**2).mean(), rel=1e-5)
    first, second = g[1:] - g[:-1], g[2:] - 2 * g[1:-1] + g[:-2]
    assert columns == pytest.approx((second**2).mean() / (first**2).mean(), rel=1e-5)


def test_contrast_does_not_count_and_blur_does():
    sharp, dull = sharpness(picture()), sharpness(picture(contrast=12.0))
    assert np.allclose(sharp, dull, rtol=0.25)
    across, down = sharpness(motion(picture(), 13, True)), sharpness(motion(picture(), 13, False))
    assert across[0] < 0.3 * sharp[0] and across[1] > 0.9 * sharp[1]
    assert down[1] < 0.3 * sharp[1] and down[0] > 0.9 * sharp[0]


def test_a_wall_is_not_blurred():
    ramp = np.linspace(120, 140, 328)[None, :].repeat(248, 0)
    shaded = np.rint(ramp).astype(np.uint8)[..., None].repeat(3, 2)
    assert np.isnan(sharpness(shaded)).all()
    noisy = ramp[..., None] + np.random.default_rng(0).normal(0, 6, (248, 328, 3))
    assert min(sharpness(noisy.astype(np.uint8))) > max(sharpness(picture()))
    values = np.array([(2.0, 1.0), (4.0, np.nan), (1.0, 2.0), (np.nan, np.nan)])
    assert relative_sharpness(values).tolist() == [1.0 / 1.5, 2.0, 0.5, 1.0]
    assert relative_sharpness(np.empty((0, 2))).tolist() == []


def build(entry: ScanEntry, *overrides: str) -> zarr.Group:
    group = zarr.create_group({})
    clips.build(entry, group, load_config(list(overrides), None), {})
    return group


def rejected(group: zarr.Group) -> dict[int, str]:
    return {
        frame: fates.reason_kind(part["reason"])
        for part in group.attrs["frames_ledger"]
        if part["status"] == "rejected"
        for frame in part["frames"]
    }


def audited_recording(tmp_path, bad: bool) -> ScanEntry:
    """60 frames of textured pictures; if `bad`, one of everything that the audit can find."""
    recording = Recording(60, color_size=(328, 248), color_compression="png")
    frames = []
    for index, frame in enumerate(frames_of(replace(recording, color_compression="raw"))):
        rgb = picture(index)
        if index == 3:  # a wall, at which a camera may well look
            rgb = np.full_like(rgb, 200)
        if bad and index in (20, 41):
            rgb = motion(rgb, 13, across=index == 20)
        png = cv2.imencode(".png", rgb[..., ::-1])[1].tobytes()
        frames.append(replace(frame, color=png))
    if bad:
        frames[9] = with_pose(frames[9], -np.inf)
        frames[11] = replace(frames[11], color=b"broken")
        frames[12] = replace(frames[12], depth=b"broken")
        pose = frames[30].scan_from_cam.copy()
        pose[1, 3] += 2
        frames[30] = replace(frames[30], scan_from_cam=pose)
        frames[41] = replace(frames[41], scan_from_cam=pose)  # a jump and blurred: the jump is told
    return write_scan(tmp_path, "scene0000_00", recording, frames)


@pytest.mark.parametrize("sampling", ["uniform", "max_coverage"])
def test_the_audit_finds_what_was_injected_and_every_frame_is_examined(tmp_path, sampling):
    group = build(audited_recording(tmp_path, bad=True), FULL, f"clips.sampling={sampling}")
    assert rejected(group) == {
        9: fates.POSE,
        11: fates.DECODE,
        12: fates.DECODE,
        20: fates.BLUR,
        30: fates.JUMP,
        41: fates.JUMP,
    }
    chosen = set(group.attrs["clips"][0]["frame_indices"])
    assert len(chosen) == 32 and not chosen & rejected(group).keys()
    counts = {(g["status"], g["reason"]): len(g["frames"]) for g in group.attrs["frames_ledger"][:2]}
    assert counts == {("used", ""): 32, ("not_examined", fates.SPARE): 22}
    sharp = group.attrs["sharpness"]
    assert sharp["frames"] == [f for f in range(60) if f != 11]
    relative = dict(zip(sharp["frames"], sharp["relative"], strict=True))
    assert relative[20] < 0.3 and relative[3] == 1.0


def test_a_clean_recording_passes_whole(tmp_path):
    entry = audited_recording(tmp_path, bad=False)
    group = build(entry, FULL)
    assert rejected(group) == {}
    plain = build(entry)
    assert plain.attrs["clips"] == group.attrs["clips"] and "sharpness" not in plain.attrs


def test_the_real_room_passes_whole_and_blur_in_it_is_found(shared_dir, tmp_path):
    name = "scene9000_00"
    (entry,) = take_inventory(load_config([f"scans.root={shared_dir / 'scans'}"], None)).scans
    assert rejected(build(entry, FULL)) == {}
    injected = range(2, 125, 13)
    with SensReader(entry.path("sens")) as reader:
        frames = []
        for index in range(reader.num_frames):
            color = reader.color_bytes(index)
            if index in injected:
                rgb = motion(reader.color(index), 21, across=index % 2 == 0)
                color = cv2.imencode(".jpg", rgb[..., ::-1])[1].tobytes()
            frames.append((color, reader.depth_bytes(index), reader.poses[index]))
        (tmp_path / name).mkdir()
        write_sens(tmp_path / name / f"{name}.sens", reader.header, _as_frames(frames), None)
    shutil.copy(entry.path("meta"), tmp_path / name)
    group = build(replace(entry, directory=str(tmp_path / name)), FULL)
    assert rejected(group) == dict.fromkeys(injected, fates.BLUR)


def _as_frames(parts: list[tuple]) -> list:
    (template,) = frames_of(Recording(1))
    return [replace(template, color=c, depth=d, scan_from_cam=p) for c, d, p in parts]
