"""nerfstudio's data folder of each clip: OUT/KEY/transforms.json, images/00000.jpg, depth/00000.png.

`depth` is millimetres, nerfstudio's own default unit; 0 = missing. Poses have the world's axes and metres.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from scanshards import schema
from scanshards.clip import Clip
from scanshards.export import camera
from scanshards.export.camera import OPENGL_FROM_OPENCV, Raster
from scanshards.export.folder import ExportFolder

PIXEL_CENTRE = 0.5
"""nerfstudio puts the centre of the first pixel at 0.5, this project at 0."""


def write(clips: Iterable[Clip], folder: ExportFolder, raster: Raster) -> dict[str, Any]:
    """Write a folder for every clip; returns what `export.json` has to say."""
    assert raster == "crop"
    largest = [0.0, 0.0]
    for clip in clips:
        offset = camera.crop_view(clip.resize_plan, clip.intrinsics).offset_px
        largest = [max(pair) for pair in zip(largest, offset, strict=True)]
        if not folder.has(clip.key):
            _write_clip(clip, folder)
    return {"max_offset_px": largest}


def _write_clip(clip: Clip, folder: ExportFolder) -> None:
    colors = clip.frame_jpegs()
    with folder.folder(clip.key) as place:
        (place / "images").mkdir()
        (place / "depth").mkdir()
        for number, i in camera.unique_frames(clip).items():
            (place / f"images/{number:05d}.jpg").write_bytes(colors[i])
            (place / f"depth/{number:05d}.png").write_bytes(camera.depth_bytes(clip, i, "crop"))
        text = json.dumps(transforms(clip), indent=1, allow_nan=False)
        (place / "transforms.json").write_text(f"{text}\n", encoding="utf-8")


def transforms(clip: Clip) -> dict[str, Any]:
    """The content of transforms.json. ValueError: skewed axes, which the format cannot say."""
    (fx, skew, cx), (_, fy, cy), _ = camera.crop_view(clip.resize_plan, clip.intrinsics).intrinsics.tolist()
    if skew:
        raise ValueError(f"{clip.file}, sample {clip.key}: intrinsics have skew {skew}, expected 0")
    poses = clip.world_from_cam @ OPENGL_FROM_OPENCV
    return {
        "camera_model": "OPENCV",
        "w": schema.FRAME_SIZE,
        "h": schema.FRAME_SIZE,
        "fl_x": fx,
        "fl_y": fy,
        "cx": cx + PIXEL_CENTRE,
        "cy": cy + PIXEL_CENTRE,
        "k1": 0.0,
        "k2": 0.0,
        "p1": 0.0,
        "p2": 0.0,
        "frames": [
            {
                "file_path": f"images/{number:05d}.jpg",
                "depth_file_path": f"depth/{number:05d}.png",
                "transform_matrix": poses[i].tolist(),
            }
            for number, i in camera.unique_frames(clip).items()
        ],
    }
