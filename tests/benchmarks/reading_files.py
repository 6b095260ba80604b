"""A clip from 32 JPEG, 32 PNG and 32 text files, the way the published code assembles every training sample.

Written from its description: the pictures are decoded whole, all 640x480 pixels of each depth map are
unprojected, and the coordinate map is resized and cropped. `published` uses Pillow and torch as it does;
`opencv` is the same rewritten for speed: OpenCV alone, one frame at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

WIDTH, HEIGHT, CROP = 512, 384, 384
LEFT = (WIDTH - CROP) // 2
PATCH, PATCHES = 27, 14

Arrays = tuple[NDArray[np.uint8], NDArray[np.uint16], NDArray[np.float32]]
"""frames (32, 384, 384, 3), depth (32, 384, 384), patch coordinates (32, 14, 14, 3)"""


def published(folder: Path, count: int) -> Iterator[Arrays]:
    """`count` clips, the rooms in turn."""
    for room in _rooms(folder, count):
        yield published_clip(room)


def opencv(folder: Path, count: int) -> Iterator[Arrays]:
    for room in _rooms(folder, count):
        yield opencv_clip(room)


def published_clip(room: Path) -> Arrays:
    import torch

    names = sorted(path.with_suffix("") for path in room.glob("*.jpg"))
    frames, depths, poses = [], [], []
    alignment = np.loadtxt(room / "alignment.txt")
    for name in names:
        with Image.open(name.with_suffix(".jpg")) as image:
            picture = image.convert("RGB").resize((WIDTH, HEIGHT))
        frames.append(np.asarray(picture)[:, LEFT : LEFT + CROP])
        with Image.open(name.with_suffix(".png")) as image:
            depths.append(np.asarray(image).astype(np.uint16))
        poses.append(alignment @ np.loadtxt(name.with_suffix(".txt")))
    depth = np.stack(depths)
    (fx, _, cx), (_, fy, cy), _ = np.loadtxt(room / "depth_intrinsic.txt")
    z = torch.from_numpy(depth.astype(np.float32)) / 1000
    v, u = torch.meshgrid(*(torch.arange(size, dtype=torch.float32) for size in z.shape[1:]), indexing="ij")
    in_camera = torch.stack([(u - cx) * z / fx, (v - cy) * z / fy, z, torch.ones_like(z)], dim=-1)
    world_from_cam = torch.from_numpy(np.stack(poses).astype(np.float32))
    world = in_camera.flatten(1, 2) @ world_from_cam.transpose(1, 2)
    maps = world[..., :3].reshape(*z.shape, 3).numpy()
    coords = torch.from_numpy(np.stack([_shrink(one) for one in maps]))
    whole = coords[:, : PATCH * PATCHES, : PATCH * PATCHES].permute(0, 3, 1, 2)
    patches = torch.nn.functional.avg_pool2d(whole, PATCH).permute(0, 2, 3, 1).numpy()
    return np.stack(frames), np.stack([_shrink(one) for one in depth]), patches


def opencv_clip(room: Path) -> Arrays:
    names = sorted(path.with_suffix("") for path in room.glob("*.jpg"))
    alignment, intrinsics = np.loadtxt(room / "alignment.txt"), np.loadtxt(room / "depth_intrinsic.txt")
    frames = np.zeros((len(names), CROP, CROP, 3), np.uint8)
    depths = np.zeros((len(names), CROP, CROP), np.uint16)
    patches = np.zeros((len(names), PATCHES, PATCHES, 3), np.float32)
    for i, name in enumerate(names):
        picture = cv2.imread(f"{name}.jpg", cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        picture = cv2.resize(picture, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
        frames[i] = cv2.cvtColor(picture[:, LEFT : LEFT + CROP], cv2.COLOR_BGR2RGB)
        depth = cv2.imread(f"{name}.png", cv2.IMREAD_UNCHANGED)
        depths[i] = _shrink(depth)
        world_from_cam = alignment @ np.loadtxt(f"{name}.txt")
        coords = _shrink(_unproject(depth, intrinsics, world_from_cam))
        blocks = coords[: PATCH * PATCHES, : PATCH * PATCHES].reshape(PATCHES, PATCH, PATCHES, PATCH, 3)
        patches[i] = blocks.mean(axis=(1, 3))
    return frames, depths, patches


def _unproject(depth: NDArray, intrinsics: NDArray, world_from_cam: NDArray) -> NDArray[np.float32]:
    """(H, W, 3) world, metres; a pixel without depth is at the camera centre."""
    rays = (world_from_cam[:3, :3] @ np.linalg.inv(intrinsics)).astype(np.float32)
    height, width = depth.shape
    u, v = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
    z = depth.astype(np.float32) / 1000
    ray = rays[:, 0] * u[None, :, None] + (rays[:, 1] * v[..., None] + rays[:, 2])
    return ray * z[..., None] + world_from_cam[:3, 3].astype(np.float32)


def _shrink(image: NDArray) -> NDArray:
    """Nearest, and the middle cut out."""
    return cv2.resize(image, (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST)[:, LEFT : LEFT + CROP]


def _rooms(folder: Path, count: int) -> list[Path]:
    rooms = sorted((folder / "posed_images").iterdir())
    return [rooms[k % len(rooms)] for k in range(count)]
