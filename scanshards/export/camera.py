"""Cameras and pictures of stored clips in the terms of other projects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from scanshards import codec, geometry
from scanshards.clip import Clip
from scanshards.geometry import ResizePlan

Raster = Literal["crop", "source"]

OPENGL_FROM_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])
"""Camera axes x right, y up, z backward, from x right, y down, z forward. It is its own inverse."""


@dataclass(frozen=True)
class PinholeView:
    """A picture with one pinhole camera: integer pixel centres, intrinsics of this very picture."""

    intrinsics: NDArray[np.float64]
    """(3, 3), pixels."""
    offset_px: tuple[float, float]
    """How far a pixel may lie from the recorded one it stands for, in recorded pixels, along u and v."""


def crop_view(plan: ResizePlan, intrinsics: NDArray[np.float64]) -> PinholeView:
    """The camera of the stored 384x384 pictures, for `intrinsics` (3, 3) of the recorded depth picture.

    Stored column i shows the recorded column that the nearest rule picked, a staircase and no straight
    line. Of all lines with the resize's slope this takes the one that is nearest everywhere.
    """
    u, v = geometry.source_pixels(plan)
    return _view(u, plan.source_width / plan.width, v, plan.source_height / plan.height, intrinsics)


def resized_view(plan: ResizePlan, intrinsics: NDArray[np.float64]) -> PinholeView:
    """The same for the whole resized picture, before the crop."""
    crop = crop_view(plan, intrinsics)
    shift = np.array([[1.0, 0.0, plan.x], [0.0, 1.0, plan.y], [0.0, 0.0, 1.0]])
    return PinholeView(shift @ crop.intrinsics, crop.offset_px)


def _view(
    u: NDArray[np.int64],
    u_step: float,
    v: NDArray[np.int64],
    v_step: float,
    intrinsics: NDArray[np.float64],
) -> PinholeView:
    u_start, u_off = _middle(u - u_step * np.arange(len(u)))
    v_start, v_off = _middle(v - v_step * np.arange(len(v)))
    recorded_from_stored = np.array([[u_step, 0.0, u_start], [0.0, v_step, v_start], [0.0, 0.0, 1.0]])
    stored = np.linalg.inv(recorded_from_stored) @ np.asarray(intrinsics, np.float64)
    return PinholeView(stored, (u_off, v_off))


def _middle(values: NDArray[np.float64]) -> tuple[float, float]:
    """Middle of the values' range and half its width."""
    low, high = float(values.min()), float(values.max())
    return (low + high) / 2, (high - low) / 2


def color_at_source(rgb: NDArray[np.uint8], plan: ResizePlan) -> NDArray[np.uint8]:
    """(384, 384, 3) to (plan.height, plan.width, 3): the crop at its place, black around it."""
    canvas = np.zeros((plan.height, plan.width, 3), np.uint8)
    canvas[plan.y : plan.y + plan.size, plan.x : plan.x + plan.size] = rgb
    return canvas


def depth_at_source(depth_mm: NDArray[np.uint16], plan: ResizePlan) -> NDArray[np.uint16]:
    """(384, 384) to (source_height, source_width): each value at the pixel it was taken from, 0 elsewhere."""
    u, v = geometry.source_pixels(plan)
    canvas = np.zeros((plan.source_height, plan.source_width), np.uint16)
    canvas[v[:, None], u[None, :]] = depth_mm
    return canvas


def encode_depth_png(depth_mm: NDArray[np.uint16]) -> bytes:
    """(H, W) uint16 to a 16-bit grey PNG."""
    done, data = cv2.imencode(".png", depth_mm)
    assert done, f"OpenCV cannot encode {depth_mm.shape} {depth_mm.dtype} as PNG"
    return data.tobytes()


def matrix_text(matrix: NDArray[np.float64]) -> bytes:
    """Rows of numbers; reading them gives the same float64 back."""
    return "".join(" ".join(map(repr, row)) + "\n" for row in np.asarray(matrix, float).tolist()).encode()


def matrix4(intrinsics: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3, 3) intrinsics as the (4, 4) that ScanNet's files hold."""
    matrix = np.eye(4)
    matrix[:3, :3] = intrinsics
    return matrix


def unique_frames(clip: Clip) -> dict[int, int]:
    """Number of the frame in the scan -> its place in the clip (the first, where it repeats), rising."""
    places: dict[int, int] = {}
    for place, number in enumerate(clip.frame_indices.tolist()):
        if number < 0:
            raise ValueError(f"{clip.file}, sample {clip.key}: got frame {number}, expected 0 or more")
        places.setdefault(number, place)
    return dict(sorted(places.items()))


def scan_from_cam(clip: Clip) -> NDArray[np.float64]:
    """(32, 4, 4) poses in the scan's own frame, metres. ValueError: the alignment cannot be undone."""
    alignment = np.array(clip.meta["alignment"], np.float64)
    try:
        return np.linalg.solve(alignment, clip.world_from_cam).astype(np.float64, copy=False)
    except np.linalg.LinAlgError as error:
        raise ValueError(f"{clip.file}, sample {clip.key}: alignment is singular, expected a pose") from error


def depth_bytes(clip: Clip, place: int, raster: Raster) -> bytes:
    """The PNG of one frame's depth, millimetres."""
    depth = clip.depth[place]
    return encode_depth_png(depth if raster == "crop" else depth_at_source(depth, clip.resize_plan))


def color_files(clip: Clip, raster: Raster) -> list[bytes]:
    """The 32 JPEGs: as stored, or put in their place and encoded anew, where the picture had more."""
    plan = clip.resize_plan
    if raster == "crop" or (plan.width, plan.height) == (plan.size, plan.size):
        return clip.frame_jpegs()
    return [codec.encode_jpeg(color_at_source(frame, plan)) for frame in clip.frames]
