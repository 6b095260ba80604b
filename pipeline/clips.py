"""Stage `clips`: chooses 32 frames of a scan, decodes them once, resizes and crops, and records poses.

Group of a scan: per clip k a subgroup `{k:02d}` with `depth` (32, 384, 384) uint16 mm, `jpeg` (bytes of the
32 JPEG files end to end) and `jpeg_offsets` (33,) int64; attributes `clips` (what clip.json needs),
`frames_ledger` and `valid_depth` (see `ledger.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec

from pipeline import ledger
from pipeline.config import Config
from pipeline.errors import ScanError
from pipeline.sampling import candidate_frames, choose_frames, has_pose
from pipeline.scans import ScanEntry
from pipeline.sources import Source, open_source
from scanshards.codec import encode_jpeg
from scanshards.geometry import ResizePlan, resize_color, resize_depth, resize_plan
from scanshards.schema import NUM_FRAMES

DEPTH_CODEC = BloscCodec(cname="lz4", clevel=5, shuffle="shuffle")
"""The store is read back twice and then only kept: speed counts more than size."""


@dataclass
class Decoded:
    """Frames that were looked at: what is kept of the good ones, and how much depth each has."""

    jpeg: dict[int, bytes] = field(default_factory=dict)
    depth: dict[int, NDArray[np.uint16]] = field(default_factory=dict)
    valid_depth: dict[int, float] = field(default_factory=dict)


def build(entry: ScanEntry, group: zarr.Group, config: Config, inputs: dict[str, zarr.Group]) -> None:
    """Fill the scan's group. ScanError: the recording cannot be used, or a clip has no usable frame."""
    with open_source(entry) as source:
        plan = resize_plan(*source.depth_size)
        decoded, rejected = Decoded(), _rejected_unseen(source)
        verdict = _verdict(source, plan, config.clips.min_valid_depth, decoded)
        candidates = candidate_frames(source.poses, config.clips.stride)
        metas, used = [], set()
        for k in range(config.clips.per_scan):
            choice = choose_frames(candidates[k :: config.clips.per_scan], NUM_FRAMES, verdict)
            rejected |= choice.rejected
            if not choice.frames:
                raise ScanError(_no_frame(entry, config, source.num_frames_declared, rejected))
            _store_clip(group.create_group(f"{k:02d}"), choice.frames, decoded)
            metas.append(_clip_meta(source, plan, choice.frames))
            used.update(choice.frames)
        group.attrs["clips"] = metas
        group.attrs["frames_ledger"] = ledger.frame_groups(source.num_frames_declared, used, rejected)
        frames = sorted(decoded.valid_depth)
        fractions = [round(decoded.valid_depth[frame], 4) for frame in frames]
        group.attrs["valid_depth"] = {"frames": frames, "fractions": fractions}


def _rejected_unseen(source: Source) -> dict[int, str]:
    """Frames that are out before any is decoded: those without a pose, and those cut off."""
    without_pose = np.flatnonzero(~has_pose(source.poses)).tolist()
    cut_off = range(source.num_frames, source.num_frames_declared)
    return dict.fromkeys(without_pose, ledger.POSE) | dict.fromkeys(cut_off, ledger.TRUNCATED)


def _verdict(
    source: Source, plan: ResizePlan, min_valid_depth: float, decoded: Decoded
) -> Callable[[int], str | None]:
    """A function that decodes one frame, keeps it in `decoded` if it is good, and says why if it is not."""

    def verdict(frame: int) -> str | None:
        try:
            depth = source.depth(frame)
            valid = np.count_nonzero(depth) / depth.size
            decoded.valid_depth[frame] = valid
            if valid < min_valid_depth:
                return f"{ledger.DEPTH}: got {valid:.3f} of the picture, expected {min_valid_depth} or more"
            color = source.color(frame)
        except ScanError as error:
            return f"{ledger.DECODE}: {error}"
        decoded.depth[frame] = resize_depth(depth, plan)
        decoded.jpeg[frame] = encode_jpeg(resize_color(color, plan))
        return None

    return verdict


def _no_frame(entry: ScanEntry, config: Config, num_frames: int, rejected: dict[int, str]) -> str:
    counts = ", ".join(f"{n} {kind}" for kind, n in ledger.count_reasons(rejected.values()).items())
    clip = "a clip" if config.clips.per_scan > 1 else "the clip"
    return f"{entry.scan_id}: no usable frame for {clip}, of {num_frames} frames: {counts or 'no candidate'}"


def _store_clip(group: zarr.Group, frames: list[int], decoded: Decoded) -> None:
    depth = np.stack([decoded.depth[frame] for frame in frames])
    files = [decoded.jpeg[frame] for frame in frames]
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
