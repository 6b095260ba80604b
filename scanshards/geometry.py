"""Resize, crop and unprojection: pixels of a stored clip to world coordinates (docs/geometry.md).

Pixels are (u, v) = (column, row), integer at the pixel centre. Cameras look along +z, x right, y down.
Depth is uint16 millimetres along the optical axis, 0 = missing. Matrices are named `a_from_b`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from scanshards.schema import FRAME_SIZE, MISSING_COORD_MM

_MM_PER_M = 1000.0


@dataclass(frozen=True)
class ResizePlan:
    """Resize a (source_height, source_width) image to (height, width), then cut [y:y+size, x:x+size]."""

    source_width: int
    source_height: int
    width: int
    height: int
    x: int
    y: int
    size: int


def resize_plan(source_width: int, source_height: int, size: int = FRAME_SIZE) -> ResizePlan:
    """Shorter side to `size`, longer side in proportion and truncated, crop in the middle, rounded down."""
    if min(source_width, source_height, size) < 1:
        raise ValueError(f"image {source_width}x{source_height} to {size}: expected at least 1 pixel a side")
    shorter = min(source_width, source_height)
    width, height = source_width * size // shorter, source_height * size // shorter
    return ResizePlan(
        source_width, source_height, width, height, (width - size) // 2, (height - size) // 2, size
    )


def source_pixels(plan: ResizePlan) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Source column u (size,) and source row v (size,) of each column and row of the crop."""
    u = _nearest_index(plan.source_width, plan.width)[plan.x : plan.x + plan.size]
    v = _nearest_index(plan.source_height, plan.height)[plan.y : plan.y + plan.size]
    return u, v


def _nearest_index(source: int, target: int) -> NDArray[np.int64]:
    """OpenCV's INTER_NEAREST: floor(i * (1 / (target / source))) in double, at most source - 1.

    Written as OpenCV computes it: i * source / target differs from it at exact multiples.
    """
    step = 1.0 / (target / source)
    return np.minimum(np.floor(np.arange(target) * step).astype(np.int64), source - 1)


def resize_depth(depth_mm: NDArray[np.uint16], plan: ResizePlan) -> NDArray[np.uint16]:
    """(H, W) uint16 to (size, size) uint16 by the nearest rule. ValueError: not the plan's source size."""
    if depth_mm.shape != (plan.source_height, plan.source_width) or depth_mm.dtype != np.uint16:
        raise ValueError(
            f"depth: got {depth_mm.shape} {depth_mm.dtype}, "
            f"expected ({plan.source_height}, {plan.source_width}) uint16"
        )
    u, v = source_pixels(plan)
    return depth_mm[v[:, None], u[None, :]]


def resize_color(rgb: NDArray[np.uint8], plan: ResizePlan) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 of any size to (size, size, 3) uint8, area-averaged if it shrinks, else bilinear."""
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8 or rgb.size == 0:
        raise ValueError(f"colour: got {rgb.shape} {rgb.dtype}, expected (H, W, 3) uint8")
    shrinks = plan.width <= rgb.shape[1] and plan.height <= rgb.shape[0]
    filter_ = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    resized = cv2.resize(rgb, (plan.width, plan.height), interpolation=filter_)
    return np.ascontiguousarray(resized[plan.y : plan.y + plan.size, plan.x : plan.x + plan.size])


def unproject(
    depth_mm: NDArray[np.uint16],
    intrinsics: NDArray[np.float64],
    a_from_cam: NDArray[np.float64],
    u: NDArray[np.int64],
    v: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Coordinates in frame a, metres: (..., h, w, 3) float32, NaN where depth is 0.

    depth_mm (..., h, w) uint16; intrinsics (3, 3) of the image that u and v count in; a_from_cam
    (..., 4, 4); u (w,) column and v (h,) row of each pixel. Computed in float64. ValueError: shapes.
    """
    _check(depth_mm, intrinsics, a_from_cam, u, v)
    poses = np.asarray(a_from_cam, np.float64)
    rays = poses[..., :3, :3] @ np.linalg.inv(np.asarray(intrinsics, np.float64))
    centre = poses[..., :3, 3]
    coords = np.empty((*depth_mm.shape, 3), np.float32)
    for i in np.ndindex(depth_mm.shape[:-2]):  # a frame at a time stays in the processor's cache
        z_m = depth_mm[i] / _MM_PER_M
        z_m[depth_mm[i] == 0] = np.nan
        for axis in range(3):
            along_u, along_v, constant = rays[i][axis]
            ray = (along_u * u)[None, :] + (along_v * v + constant)[:, None]  # (h, w)
            coords[i][..., axis] = ray * z_m + centre[i][axis]
    return coords


def patch_coords(
    depth_mm: NDArray[np.uint16],
    intrinsics: NDArray[np.float64],
    world_from_cam: NDArray[np.float64],
    u: NDArray[np.int64],
    v: NDArray[np.int64],
    patch: int = 27,
    missing: Literal["ignore", "camera"] = "ignore",
) -> NDArray[np.float32]:
    """Mean world coordinate of each patch x patch block, metres: (n, H // patch, W // patch, 3) float32.

    depth_mm (n, H, W) uint16, world_from_cam (n, 4, 4), u (W,) and v (H,) as in `unproject`.
    `ignore`: the mean over pixels with depth, NaN where a block has none. `camera`: a pixel without depth
    counts as the camera centre, as in the published code. Rows and columns beyond the last whole block
    are left out. The mean of an affine map is the map of the means, so sums of z, u z and v z suffice.
    """
    if missing not in ("ignore", "camera"):
        raise ValueError(f"missing={missing!r}: expected 'ignore' or 'camera'")
    if depth_mm.ndim != 3 or not 1 <= patch <= min(depth_mm.shape[1:]):
        raise ValueError(f"depth: got shape {depth_mm.shape}, expected (n, H, W), sides at least {patch}")
    _check(depth_mm, intrinsics, world_from_cam, u, v)
    moments, counts = _patch_moments(depth_mm, u, v, patch)
    poses = np.asarray(world_from_cam, np.float64)
    rays = poses[:, :3, :3] @ np.linalg.inv(np.asarray(intrinsics, np.float64))
    centre = poses[:, None, None, :3, 3]
    if missing == "camera":
        counts = np.full_like(counts, patch * patch)
    counts = np.where(counts == 0, np.nan, counts)[..., None]
    means = moments / counts / _MM_PER_M  # (n, rows, columns, 3): of u z, v z, z
    return (np.einsum("nij,nrcj->nrci", rays, means) + centre).astype(np.float32)


def _patch_moments(
    depth_mm: NDArray[np.uint16], u: NDArray[np.int64], v: NDArray[np.int64], patch: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sums per block of (u z, v z, z), z in mm: (n, r, c, 3), and of pixels with depth: (n, r, c).

    All are whole numbers below 2**53, so float64 holds them exactly, in any order of addition.
    """
    num, (rows, columns) = len(depth_mm), (size // patch for size in depth_mm.shape[1:])
    height, width = rows * patch, columns * patch
    u_px = u[:width].astype(np.float64)
    down = np.ones((rows, 2, patch))  # summing down a block's rows is a product with 1 and with v
    down[:, 1] = v[:height].reshape(rows, patch)
    moments = np.zeros((num, rows, columns, 3))
    counts = np.zeros((num, rows, columns))
    for i in range(num):  # first down the rows, where memory is contiguous, then across
        depth = depth_mm[i, :height, :width].reshape(rows, patch, width)
        z_sum, vz_sum = np.moveaxis(down @ depth.astype(np.float64), 1, 0)  # (rows, width)
        valid = (depth != 0).sum(1, dtype=np.uint32)
        sums = np.stack([z_sum * u_px, vz_sum, z_sum, valid]).reshape(4, rows, columns, patch).sum(3)
        moments[i] = np.moveaxis(sums[:3], 0, -1)
        counts[i] = sums[3]
    return moments, counts


def coords_mm_from_coords(coords_m: NDArray[np.float32]) -> NDArray[np.int16]:
    """Stored form of coordinates: int16 millimetres, -32768 where missing or beyond +-32.767 m."""
    millimetres = np.rint(coords_m * np.float32(_MM_PER_M))
    kept = (np.abs(millimetres) <= -MISSING_COORD_MM - 1).all(axis=-1, keepdims=True)  # NaN compares false
    return np.where(kept, millimetres, MISSING_COORD_MM).astype(np.int16)


def _check(
    depth_mm: NDArray[np.uint16],
    intrinsics: NDArray[np.float64],
    a_from_cam: NDArray[np.float64],
    u: NDArray[np.int64],
    v: NDArray[np.int64],
) -> None:
    if depth_mm.ndim < 2 or depth_mm.dtype != np.uint16:
        raise ValueError(f"depth: got {depth_mm.shape} {depth_mm.dtype}, expected (..., h, w) uint16")
    *batch, height, width = depth_mm.shape
    shapes = (np.shape(intrinsics), np.shape(a_from_cam), np.shape(u), np.shape(v))
    expected = ((3, 3), (*batch, 4, 4), (width,), (height,))
    if shapes != expected:
        names = ("intrinsics", "a_from_cam", "u", "v")
        name, got, want = next(s for s in zip(names, shapes, expected, strict=True) if s[1] != s[2])
        raise ValueError(f"{name}: got shape {got}, expected {want} for depth {depth_mm.shape}")
