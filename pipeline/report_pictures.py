"""Pictures of one clip for the report: strips of frames, false colours, the room seen from a corner.

Images are (H, W, 3) uint8 RGB. World coordinates are metres, z up.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from scanshards import Clip

Image = NDArray[np.uint8]

BACKGROUND = (24, 26, 31)
"""Behind the corner view: dark in both colour schemes, so that white walls show."""


@dataclass(frozen=True)
class Bounds:
    """The box that holds all but the outermost points of a room, metres."""

    low_m: NDArray[np.float64]
    high_m: NDArray[np.float64]


FLAGS = {"jpeg": cv2.IMWRITE_JPEG_QUALITY, "webp": cv2.IMWRITE_WEBP_QUALITY}


def data_uri(image: Image, quality: int = 74, kind: Literal["jpeg", "webp"] = "jpeg") -> str:
    """The image inside a `data:` address. A small picture takes 40 % less as WebP."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    ok, payload = cv2.imencode(f".{kind}", bgr, [FLAGS[kind], quality])
    assert ok
    return f"data:image/{kind};base64,{base64.b64encode(payload.tobytes()).decode()}"


def room_bounds(coords: NDArray[np.float32]) -> Bounds:
    """Bounds of (…, 3) world points by percentiles, so that stray points do not stretch them.

    Points that are NaN are left out; without any point, a cube of one metre.
    """
    points = coords.reshape(-1, 3)[::17]
    points = points[np.isfinite(points[:, 0])]
    if not len(points):
        return Bounds(np.zeros(3), np.ones(3))
    low, high = np.percentile(points.astype(np.float64), (0.5, 99.5), axis=0)
    return Bounds(low, np.maximum(high, low + 0.01))


def depth_picture(depth_mm: NDArray[np.uint16], far_mm: float) -> Image:
    """(H, W) millimetres in viridis, near bright and `far_mm` dark; missing depth is black."""
    near = 1.0 - np.clip(depth_mm / far_mm, 0.0, 1.0)
    colors = cv2.applyColorMap((near * 255).astype(np.uint8), cv2.COLORMAP_VIRIDIS)
    colors[depth_mm == 0] = 0
    return cv2.cvtColor(colors, cv2.COLOR_BGR2RGB)


def coords_picture(coords: NDArray[np.float32], bounds: Bounds) -> Image:
    """(H, W, 3) world metres as red = x, green = y, blue = z over the room's bounds; missing is black."""
    share = (coords - bounds.low_m) / (bounds.high_m - bounds.low_m)
    return np.nan_to_num(np.clip(share, 0.0, 1.0) * 215 + 40, nan=0.0).astype(np.uint8)


def strip(images: Sequence[Image], size_px: int, gap_px: int = 4) -> Image:
    """Square images side by side, each `size_px` wide, on white."""
    width = len(images) * (size_px + gap_px) - gap_px
    row = np.full((size_px, width, 3), 255, np.uint8)
    for index, image in enumerate(images):
        smaller = image.shape[0] > size_px
        scaled = cv2.resize(
            image, (size_px, size_px), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
        )
        left = index * (size_px + gap_px)
        row[:, left : left + size_px] = scaled
    return row


def psnr_db(image: Image, reference: Image) -> float:
    """Peak signal-to-noise ratio of two uint8 images of one shape, dB; infinite if they are equal."""
    error = np.mean((image.astype(np.float64) - reference.astype(np.float64)) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(255.0**2 / error))


def corner_view(clip: Clip, bounds: Bounds, size_px: tuple[int, int] = (720, 540)) -> Image:
    """The room's points as seen from a corner above; parallel projection, the nearest point wins.

    Surfaces that face away are left out, as in the BEV: so ceiling and near walls do not hide the room.
    """
    right, up, toward = _corner_axes()
    coords = clip.coords[:, ::2, ::2]
    shown = _faces_eye(coords, toward)
    points = coords[:, :-1, :-1][shown].astype(np.float64)
    shades = clip.frames[:, ::2, ::2][:, :-1, :-1][shown]
    inside = ((points >= bounds.low_m - 0.1) & (points <= bounds.high_m + 0.1)).all(axis=1)
    points, shades = points[inside], shades[inside]
    plane = np.stack([points @ right, -(points @ up)], axis=1)  # (n, 2) metres, right and down
    if not len(plane):
        return _splat(plane.astype(np.int64), plane[:, 0], shades, size_px)
    low, high = np.percentile(plane, (0.1, 99.9), axis=0)
    pixels_per_metre = 0.94 * np.min(np.array(size_px) / np.maximum(high - low, 0.01))
    pixels = np.array(size_px) / 2 + (plane - (low + high) / 2) * pixels_per_metre
    return _splat(np.round(pixels).astype(np.int64), points @ toward, shades, size_px)


def _faces_eye(coords: NDArray[np.float32], toward: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(n, h-1, w-1) bool: the surface seen at the pixel, which faces its camera, also faces `toward`.

    Edges where depth jumps (neighbours more than 15 cm apart) belong to no surface. Normals are averaged over
    9 x 9 pixels: depth noise tilts those of single pixels by any angle.
    """
    here = coords[:, :-1, :-1]
    along_u, along_v = coords[:, :-1, 1:] - here, coords[:, 1:, :-1] - here
    is_surface = np.maximum(np.abs(along_u).max(axis=-1), np.abs(along_v).max(axis=-1)) < 0.15
    # columns run right and rows down in every camera, so down x right points at it
    normals = np.where(is_surface[..., None], np.cross(along_v, along_u), np.float32(0))
    averaged = np.stack([cv2.blur(normal, (9, 9)) for normal in normals])
    return is_surface & (averaged @ toward.astype(np.float32) > 0)


def _corner_axes() -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Right, up and toward-the-eye for an eye at azimuth -60° and 48° above the floor."""
    azimuth, elevation = np.radians(-60.0), np.radians(48.0)
    toward = np.array(
        [np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)]
    )
    right = np.array([-np.sin(azimuth), np.cos(azimuth), 0.0])
    return right, np.cross(toward, right), toward


def _splat(
    pixels: NDArray[np.int64], nearness: NDArray[np.float64], shades: Image, size_px: tuple[int, int]
) -> Image:
    """Draw points as squares of 2 pixels, far to near."""
    canvas = np.full((size_px[1], size_px[0], 3), BACKGROUND, np.uint8)
    inside = ((pixels >= 0) & (pixels < np.array(size_px) - 1)).all(axis=1)
    order = np.flatnonzero(inside)[np.argsort(nearness[inside], kind="stable")]
    squares = pixels[order, None] + np.array([[0, 0], [1, 0], [0, 1], [1, 1]])  # (n, 4, 2)
    # where a pixel is written more than once the last, nearest, value stays
    canvas[squares[..., 1].ravel(), squares[..., 0].ravel()] = np.repeat(shades[order], 4, axis=0)
    return canvas


def mask_outline(mask: NDArray[np.bool_], tolerance_px: float = 0.8) -> list[NDArray[np.int32]]:
    """Outlines of the covered area, each (n, 2) pixels (column, row); specks below 12 pixels are left out."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    kept = [contour for contour in contours if cv2.contourArea(contour) >= 12]
    return [cv2.approxPolyDP(contour, tolerance_px, True)[:, 0, :] for contour in kept]
