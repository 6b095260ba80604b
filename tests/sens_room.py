"""A tiny recording made in code: a camera that looks at the plane z = 2 m, 64x48."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.scans import FileStamp, ScanEntry
from pipeline.sources.sens import IMU_DTYPE, SensFrame, SensHeader, write_sens

WIDTH, HEIGHT, FOCAL = 64, 48, 60.0
ALIGNMENT = np.array([[0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]], np.float64)


@dataclass(frozen=True)
class Recording:
    """What to write; the defaults give a good recording."""

    num_frames: int = 5
    color_size: tuple[int, int] = (WIDTH, HEIGHT)
    color_compression: str = "jpeg"
    depth_compression: str = "zlib"
    depth_shift: float = 1000.0
    version: int = 4
    num_imu: int = 3
    seed: int = 0


def header_of(recording: Recording) -> SensHeader:
    intrinsics = np.array(
        [[FOCAL, 0, WIDTH / 2, 0], [0, FOCAL, HEIGHT / 2, 0], [0, 0, 1, 0], [0, 0, 0, 1]], np.float32
    )
    return SensHeader(
        color_intrinsics=intrinsics,
        depth_intrinsics=intrinsics,
        color_width=recording.color_size[0],
        color_height=recording.color_size[1],
        depth_width=WIDTH,
        depth_height=HEIGHT,
        color_compression=recording.color_compression,
        depth_compression=recording.depth_compression,
        depth_shift=recording.depth_shift,
        sensor_name="abc",
        version=recording.version,
    )


def pose_of(index: int) -> NDArray[np.float32]:
    """The camera moves along x, 10 cm a frame."""
    pose = np.eye(4, dtype=np.float32)
    pose[0, 3] = 0.1 * index
    return pose


def depth_of(index: int, shift: float = 1000.0) -> NDArray[np.uint16]:
    """(48, 64) the plane at 2 m with a hole, and the frame's index in one corner."""
    depth = np.full((HEIGHT, WIDTH), round(2 * shift), np.uint16)
    depth[10:20, 10:20] = 0
    depth[0, 0] = index + 1
    return depth


def color_of(recording: Recording, index: int) -> NDArray[np.uint8]:
    """(H, W, 3) smooth colours that differ from frame to frame."""
    width, height = recording.color_size
    rgb = np.zeros((height, width, 3), np.uint8)
    rgb[..., 0] = np.linspace(0, 255, width).astype(np.uint8)
    rgb[..., 1] = np.linspace(0, 255, height).astype(np.uint8)[:, None]
    rgb[..., 2] = (40 * index + recording.seed) % 256
    return rgb


def frame_of(recording: Recording, index: int) -> SensFrame:
    rgb, depth = color_of(recording, index), depth_of(index, recording.depth_shift)
    if recording.color_compression == "raw":
        color = rgb.tobytes()
    else:
        kind = ".png" if recording.color_compression == "png" else ".jpg"
        color = cv2.imencode(kind, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))[1].tobytes()
    raw = depth.tobytes()
    payload = zlib.compress(raw) if recording.depth_compression == "zlib" else raw
    return SensFrame(color, payload, pose_of(index), 1000 * index, 1000 * index + 1)


def frames_of(recording: Recording) -> list[SensFrame]:
    return [frame_of(recording, index) for index in range(recording.num_frames)]


def write_recording(
    path: Path, recording: Recording = Recording(), frames: list[SensFrame] | None = None
) -> Path:
    imu = None
    if recording.version == 4:
        imu = np.zeros(recording.num_imu, IMU_DTYPE)
        imu["gravity"] = (0, 0, -9.8)
        imu["timestamp_us"] = np.arange(recording.num_imu)
    write_sens(path, header_of(recording), frames_of(recording) if frames is None else frames, imu)
    return path


def with_pose(frame: SensFrame, value: float) -> SensFrame:
    """The frame with every entry of its pose set to `value`."""
    return replace(frame, scan_from_cam=np.full((4, 4), value, np.float32))


def write_scan(
    root: Path, scan_id: str, recording: Recording = Recording(), frames: list[SensFrame] | None = None
) -> ScanEntry:
    """A scan folder in ScanNet's layout, and its inventory entry."""
    folder = root / scan_id
    folder.mkdir(parents=True)
    write_recording(folder / f"{scan_id}.sens", recording, frames)
    values = " ".join(f"{value:.6f}" for value in ALIGNMENT.ravel())
    (folder / f"{scan_id}.txt").write_text(f"sceneType = Office\naxisAlignment = {values} \n")
    files = {
        role: FileStamp.of(folder / f"{scan_id}.{suffix}", folder)
        for role, suffix in (("sens", "sens"), ("meta", "txt"))
    }
    return ScanEntry(scan_id, str(folder), files, "train", "scannet")
