"""Stage `clips`: chooses 32 frames of a scan, decodes them once, resizes and crops, and records poses.

Group of a scan: per clip k a subgroup `{k:02d}` with `depth` (32, 384, 384) uint16 mm, `jpeg` (bytes of the
32 JPEG files end to end) and `jpeg_offsets` (33,) int64; attributes

- `clips`: what clip.json needs;
- `frames_ledger`: what became of each frame (`fates.py`);
- `valid_depth`: the share of measured depth of each frame whose depth was decoded (`frames`, `fractions`);
- `coverage`, with `clips.sampling=max_coverage`: per clip how many voxels of 0.1 m its frames see, all
  candidates see, and the scene has (`selected_voxels`, `seen_voxels`, `scene_voxels`);
- `sharpness`, with `scans.full_audit`: in units of the scan's median (`frames`, `relative`; `audit.py`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec

from pipeline import audit, coverage, fates
from pipeline.config import AuditConfig, Config
from pipeline.errors import ScanError
from pipeline.sampling import candidate_frames, choose_frames, has_pose
from pipeline.scans import ScanEntry
from pipeline.sources import Source, open_source
from pipeline.timing import part
from scanshards.codec import encode_jpeg
from scanshards.geometry import ResizePlan, resize_color, resize_depth, resize_plan
from scanshards.schema import NUM_FRAMES

DEPTH_CODEC = BloscCodec(cname="lz4", clevel=5, shuffle="shuffle")
"""The store is read back twice and then only kept: speed counts more than size."""


class Frames:
    """The frames of a recording as far as they were looked at: their fates, and what is kept of good ones."""

    def __init__(self, source: Source, min_valid_depth: float) -> None:
        self.source = source
        self.plan = resize_plan(*source.depth_size)
        self.min_valid_depth = min_valid_depth
        without_pose = np.flatnonzero(~has_pose(source.poses)).tolist()
        cut_off = range(source.num_frames, source.num_frames_declared)
        self.rejected = dict.fromkeys(without_pose, fates.POSE) | dict.fromkeys(cut_off, fates.TRUNCATED)
        """Reason by frame."""
        self.valid_depth: dict[int, float] = {}
        self.jpeg: dict[int, bytes] = {}
        self.depth: dict[int, NDArray[np.uint16]] = {}

    def candidates(self, stride: int) -> NDArray[np.int64]:
        """Frames with a pose that nothing speaks against so far, every `stride`-th by raw index."""
        posed = candidate_frames(self.source.poses, stride)
        return posed[[frame not in self.rejected for frame in posed.tolist()]]

    def reject(self, frame: int, reason: str) -> None:
        """The first reason counts."""
        self.rejected.setdefault(frame, reason)

    def read_depth(self, frame: int) -> NDArray[np.uint16] | None:
        """(H, W) uint16 mm at full size; None, and the frame is rejected, if it is bad or mostly missing."""
        try:
            with part("decode depth"):
                depth = self.source.depth(frame)
        except ScanError as error:
            self.reject(frame, f"{fates.DECODE}: {error}")
            return None
        valid = np.count_nonzero(depth) / depth.size
        self.valid_depth[frame] = valid
        if valid < self.min_valid_depth:
            want = f"expected {self.min_valid_depth} or more"
            self.reject(frame, f"{fates.DEPTH}: got {valid:.3f} of the picture, {want}")
            return None
        return depth

    def read_color(self, frame: int) -> NDArray[np.uint8] | None:
        """(H, W, 3) uint8 RGB; None, and the frame is rejected, if it does not decode."""
        try:
            with part("decode colour"):
                return self.source.color(frame)
        except ScanError as error:
            self.reject(frame, f"{fates.DECODE}: {error}")
            return None

    def keep(self, frame: int) -> str | None:
        """Decode a frame and keep it as a clip stores it; says why if it is not usable."""
        depth = self.read_depth(frame)
        color = None if depth is None else self.read_color(frame)
        if depth is None or color is None:
            return self.rejected[frame]
        with part("resize and JPEG"):
            self.depth[frame] = resize_depth(depth, self.plan)
            self.jpeg[frame] = encode_jpeg(resize_color(color, self.plan))
        return None

    def groups(self, used: set[int]) -> list[dict[str, Any]]:
        """The scan's `frames_ledger`."""
        return fates.frame_groups(self.source.num_frames_declared, used, self.rejected, self.valid_depth)


def build(entry: ScanEntry, group: zarr.Group, config: Config, inputs: dict[str, zarr.Group]) -> None:
    """Fill the scan's group. ScanError: the recording cannot be used, or a clip has no usable frame."""
    with open_source(entry) as source:
        frames = Frames(source, config.clips.min_valid_depth)
        try:
            if config.scans.full_audit:
                group.attrs["sharpness"] = examine_all(frames, config.audit)
            used = _build_clips(entry, group, config, frames)
        except ScanError as error:
            raise ScanError(str(error), ledger=frames.groups(set())) from error
        group.attrs["frames_ledger"] = frames.groups(used)
        decoded = sorted(frames.valid_depth)
        fractions = [round(frames.valid_depth[frame], 4) for frame in decoded]
        group.attrs["valid_depth"] = {"frames": decoded, "fractions": fractions}


def examine_all(frames: Frames, config: AuditConfig) -> dict[str, list]:
    """Decode every whole frame and reject the bad ones; returns how sharp those are that decode."""
    sharp: dict[int, tuple[float, float]] = {}
    for frame in range(frames.source.num_frames):
        frames.read_depth(frame)
        color = frames.read_color(frame)
        if color is not None:
            with part("sharpness"):
                sharp[frame] = audit.sharpness(color)
    posed = candidate_frames(frames.source.poses)
    for frame in audit.jumps(frames.source.poses, posed, config):
        frames.reject(frame, fates.JUMP)
    relative = audit.relative_sharpness(np.array(list(sharp.values())).reshape(-1, 2))
    for frame, value in zip(sharp, relative.tolist(), strict=True):
        if value < config.blur_ratio:
            want = f"expected {config.blur_ratio} or more"
            frames.reject(frame, f"{fates.BLUR}: got {value:.3f} of the scan's median sharpness, {want}")
    return {"frames": list(sharp), "relative": [round(value, 4) for value in relative.tolist()]}


def _build_clips(entry: ScanEntry, group: zarr.Group, config: Config, frames: Frames) -> set[int]:
    """Choose and store the clips; returns the frames that they use."""
    per_scan = config.clips.per_scan
    candidates = frames.candidates(config.clips.stride)
    cover = None
    if config.clips.sampling == "max_coverage":
        cover = _coverage(entry, frames, candidates, NUM_FRAMES * per_scan)
    metas: list[dict[str, Any]] = []
    used: set[int] = set()
    for k in range(per_scan):
        if cover is None:
            choice = choose_frames(candidates[k::per_scan], NUM_FRAMES, frames.keep)
        else:
            left = [frame for frame in cover.frames if frame not in used and frame not in frames.rejected]
            choice = cover.pick(left, NUM_FRAMES, frames.keep, per_scan - k)
        if not choice.frames:
            raise ScanError(_no_frame(entry, config, frames))
        _store_clip(group.create_group(f"{k:02d}"), choice.frames, frames)
        metas.append(_clip_meta(frames.source, frames.plan, choice.frames))
        used.update(choice.frames)
    group.attrs["clips"] = metas
    if cover is not None:
        selected = [cover.covered(meta["frame_indices"]) for meta in metas]
        whole = {"seen_voxels": cover.num_seen, "scene_voxels": cover.num_scene}
        group.attrs["coverage"] = [{"selected_voxels": voxels, **whole} for voxels in selected]
    return used


def _coverage(
    entry: ScanEntry, frames: Frames, candidates: NDArray[np.int64], wanted: int
) -> coverage.Coverage:
    """What the candidates see: every second one, and the others too where that leaves fewer than wanted."""
    with part("read mesh"):
        scene = coverage.mesh_voxels(entry, frames.source.alignment)
    seen: dict[int, NDArray[np.int64]] = {}
    for half in (candidates[::2], candidates[1::2]):
        if len(seen) >= wanted:
            break
        for frame in half.tolist():
            depth = frames.read_depth(frame)
            if depth is not None:
                with part("voxels"):
                    seen[frame] = coverage.frame_voxels(frames.source, frame, depth)
    return coverage.Coverage(seen, scene)


def _no_frame(entry: ScanEntry, config: Config, frames: Frames) -> str:
    reasons = fates.count_reasons(frames.rejected.values())
    counts = ", ".join(f"{n} {kind}" for kind, n in reasons.items()) or "no candidate"
    clip = "a clip" if config.clips.per_scan > 1 else "the clip"
    total = frames.source.num_frames_declared
    return f"{entry.scan_id}: no usable frame for {clip}, of {total} frames: {counts}"


def _store_clip(group: zarr.Group, frames: list[int], kept: Frames) -> None:
    depth = np.stack([kept.depth[frame] for frame in frames])
    files = [kept.jpeg[frame] for frame in frames]
    offsets = np.cumsum([0, *map(len, files)], dtype=np.int64)
    jpeg = np.frombuffer(b"".join(files), np.uint8)
    group.create_array("depth", data=depth, chunks=depth.shape, compressors=DEPTH_CODEC)
    group.create_array("jpeg", data=jpeg, chunks=jpeg.shape, compressors=None)
    group.create_array("jpeg_offsets", data=offsets, chunks=offsets.shape, compressors=None)


def _clip_meta(source: Source, plan: ResizePlan, frames: list[int]) -> dict[str, Any]:
    """The part of clip.json that the recording decides, and the hashes of what was read."""
    (color_width, color_height), (depth_width, depth_height) = source.color_size, source.depth_size
    return {
        "frame_indices": frames,
        "source": {
            "color_width": color_width,
            "color_height": color_height,
            "depth_width": depth_width,
            "depth_height": depth_height,
        },
        "resize": {"width": plan.width, "height": plan.height},
        "crop": {"x": plan.x, "y": plan.y, "width": plan.size, "height": plan.size},
        "depth_intrinsics": source.depth_intrinsics.tolist(),
        "color_intrinsics": source.color_intrinsics.tolist(),
        "world_from_cam": (source.alignment @ source.poses[frames]).tolist(),
        "alignment": source.alignment.tolist(),
        "inputs": source.fingerprint(sorted(set(frames))),
    }
