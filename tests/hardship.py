"""A scan with every hardship: a closed room with a ceiling, recorded badly.

No mesh, no alignment, odd sizes, lost poses, frames without depth, payloads that do not decode, a tail that
is cut off. Depth is exact: each pixel's distance to the walls, rounded to a millimetre.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline import fates
from pipeline.scans import FileStamp, ScanEntry
from pipeline.sources.sens import SensFrame, SensHeader, write_sens

ROOM_M = np.array([4.0, 3.0, 2.5])
"""From (0, 0, 0); the floor and the ceiling are recorded as the walls are."""
DEPTH_SIZE, COLOR_SIZE, FOCAL = (83, 61), (131, 97), 70.0
WHOLE, DECLARED = 90, 100
LOST = {4: -np.inf, 5: -np.inf, 6: np.nan, 7: 0.0}
NO_DEPTH, LITTLE_DEPTH = (10, 11, 12, 30, 44), 20
BAD_COLOR, BAD_DEPTH = 33, 47
BAD = {
    **dict.fromkeys(LOST, fates.POSE),
    **dict.fromkeys((*NO_DEPTH, LITTLE_DEPTH), fates.DEPTH),
    **dict.fromkeys((BAD_COLOR, BAD_DEPTH), fates.DECODE),
    **dict.fromkeys(range(WHOLE, DECLARED), fates.TRUNCATED),
}
"""Why each bad frame is bad."""


def intrinsics() -> NDArray[np.float64]:
    return np.array([[FOCAL, 0, 40.5], [0, FOCAL, 29.75], [0, 0, 1]])


def world_from_cam(index: int) -> NDArray[np.float64]:
    """The camera turns about itself and nods, so that it sees floor, walls and ceiling."""
    yaw, pitch = 0.15 * index, 0.8 * np.sin(0.31 * index)
    forward = np.array([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)])
    right = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    pose[:3, 3] = (1.6 + 0.004 * index, 1.4, 1.3)
    return pose.astype(np.float32).astype(np.float64)  # as the file stores it


def depth_of(index: int) -> NDArray[np.uint16]:
    """(61, 83) distance along the optical axis to the walls, mm, with a hole."""
    pose = world_from_cam(index)
    u, v = np.meshgrid(np.arange(DEPTH_SIZE[0]), np.arange(DEPTH_SIZE[1]))
    rays = np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(intrinsics()).T @ pose[:3, :3].T
    ahead = np.where(rays > 0, ROOM_M - pose[:3, 3], -pose[:3, 3])
    with np.errstate(divide="ignore"):
        depth = np.rint(1000 * (ahead / rays).min(-1)).astype(np.uint16)
    depth[5:25, index % 50 : index % 50 + 30] = 0
    if index in NO_DEPTH:
        depth[:] = 0
    if index == LITTLE_DEPTH:
        depth[3:] = 0
    return depth


def write_hardship(root: Path, scan_id: str) -> ScanEntry:
    """The scan in ScanNet's layout, without the meta file that would hold its alignment."""
    camera = np.eye(4, dtype=np.float32)
    camera[:3, :3] = intrinsics()
    header = SensHeader(camera, camera, *COLOR_SIZE, *DEPTH_SIZE)
    frames = []
    for index in range(DECLARED):
        rgb = np.random.default_rng(index).integers(0, 256, (*COLOR_SIZE[::-1], 3), np.uint8)
        color = b"\xff\xd8 broken" if index == BAD_COLOR else cv2.imencode(".jpg", rgb)[1].tobytes()
        depth = b"broken" if index == BAD_DEPTH else zlib.compress(depth_of(index).tobytes())
        pose = np.full((4, 4), LOST[index]) if index in LOST else world_from_cam(index)
        frames.append(SensFrame(color, depth, pose.astype(np.float32)))
    path = root / scan_id / f"{scan_id}.sens"
    path.parent.mkdir(parents=True)
    write_sens(path, header, frames, None)
    record = struct.calcsize("<16f4Q")
    cut = sum(record + len(f.color) + len(f.depth) for f in frames[WHOLE:]) - record - 100
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - 8 - cut])  # within frame WHOLE's colour; 8: the number of IMU records
    stamp = FileStamp.of(path, path.parent)
    return ScanEntry(scan_id, str(path.parent), {"sens": stamp}, "train", "scannet")
