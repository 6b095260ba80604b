"""One recording of a room with exact geometry, written in each layout that the pipeline reads."""

from __future__ import annotations

import zlib
from pathlib import Path

import cv2
import numpy as np
from mesh_rooms import BoxRecording
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from pipeline.config import load_config
from pipeline.scans import ScanEntry, take_inventory
from pipeline.sources.sens import SensFrame, SensHeader, write_sens

LOST, HOLED = 5, 7
"""A frame without a pose, and one with a large hole in its depth."""


def box(width: int = 64, height: int = 48, steps: int = 20, color_scale: int = 2) -> BoxRecording:
    """A recording of 2 * steps frames in a 4 x 3 x 2.4 m room; depth is width x height."""
    size, color_size = (width, height), (color_scale * width, color_scale * height)
    recording = BoxRecording(
        steps=steps, lost=(LOST,) if LOST < 2 * steps else (), depth_size=size, color_size=color_size
    )
    focal = 0.6 * max(size)
    cx, cy = width / 2 - 0.37, height / 2 + 0.37  # no ray along an axis
    recording.depth_intrinsics = np.array([[focal, 0, cx], [0, focal, cy], [0, 0, 1]])
    scale, shift = color_scale, (color_scale - 1) / 2
    recording.color_intrinsics = np.array(
        [[scale * focal, 0, scale * cx + shift], [0, scale * focal, scale * cy + shift], [0, 0, 1]]
    )
    return recording


def depth_mm(recording: BoxRecording, index: int) -> NDArray[np.uint16]:
    """(H, W) exact depth, but for the hole; a frame without a pose shows what the first one does."""
    depth = recording.depth(0 if index == LOST else index)
    if index == HOLED:
        depth[: len(depth) // 2] = 0
    return depth


def jpeg(recording: BoxRecording, index: int) -> bytes:
    rgb = recording.color(0 if index == LOST else index)
    return cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))[1].tobytes()


def color_file(recording: BoxRecording, index: int, suffix: str) -> bytes:
    """The JPEG, or a PNG of the same pixels."""
    data = jpeg(recording, index)
    if suffix == "jpg":
        return data
    bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return cv2.imencode(".png", bgr)[1].tobytes()


def png(depth: NDArray[np.uint16]) -> bytes:
    return cv2.imencode(".png", depth)[1].tobytes()


def matrix_text(matrix: NDArray[np.float64]) -> str:
    """Rows of a matrix as the exporters print them, but with more decimals."""
    return "\n".join(" ".join(f"{value:.9f}" for value in row) for row in matrix) + "\n"


def write_meta(folder: Path, scan_id: str, alignment: NDArray[np.float64]) -> None:
    values = " ".join(f"{value:.6f}" for value in alignment.ravel())
    (folder / f"{scan_id}.txt").write_text(f"axisAlignment = {values}\n")


def write_scannet(root: Path, scan_id: str, recording: BoxRecording) -> Path:
    folder = root / scan_id
    folder.mkdir(parents=True)
    four = [np.eye(4, dtype=np.float32) for _ in range(2)]
    four[0][:3, :3], four[1][:3, :3] = recording.color_intrinsics, recording.depth_intrinsics
    header = SensHeader(*four, *recording.color_size, *recording.depth_size)
    frames = [
        SensFrame(
            jpeg(recording, i), zlib.compress(depth_mm(recording, i).tobytes()), pose.astype(np.float32)
        )
        for i, pose in enumerate(recording.poses)
    ]
    write_sens(folder / f"{scan_id}.sens", header, frames)
    return folder


def write_posed_images(root: Path, scan_id: str, recording: BoxRecording, step: int = 1) -> Path:
    """Frame i has the number step * i."""
    folder = root / scan_id
    folder.mkdir(parents=True)
    for name, k in (
        ("intrinsic", recording.color_intrinsics),
        ("depth_intrinsic", recording.depth_intrinsics),
    ):
        four = np.eye(4)
        four[:3, :3] = k
        (folder / f"{name}.txt").write_text(matrix_text(four))
    for i, pose in enumerate(recording.poses):
        stem = f"{step * i:05d}"
        (folder / f"{stem}.jpg").write_bytes(jpeg(recording, i))
        (folder / f"{stem}.png").write_bytes(png(depth_mm(recording, i)))
        (folder / f"{stem}.txt").write_text(matrix_text(pose))
    return folder


def write_seven_scenes(root: Path, name: str, recording: BoxRecording, suffix: str = "png") -> Path:
    """`name` may have two parts: `chess/seq-01`. Missing depth is 65535."""
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "camera-intrinsics.txt").write_text(matrix_text(recording.depth_intrinsics))
    for i, pose in enumerate(recording.poses):
        depth = depth_mm(recording, i)
        depth[depth == 0] = 65535
        (folder / f"frame-{i:06d}.color.{suffix}").write_bytes(color_file(recording, i, suffix))
        (folder / f"frame-{i:06d}.depth.png").write_bytes(png(depth))
        (folder / f"frame-{i:06d}.pose.txt").write_text(matrix_text(pose))
    return folder


def write_tum(root: Path, scan_id: str, recording: BoxRecording, suffix: str = "png") -> Path:
    """Colour at 30 Hz, depth 5 ms later, poses at 100 Hz; the lost frame lies in a gap of the poses."""
    folder = root / scan_id
    for name in ("rgb", "depth"):
        (folder / name).mkdir(parents=True)
    (folder / "camera-intrinsics.txt").write_text(matrix_text(recording.depth_intrinsics))
    rgb, depth, truth = ["# color images"], ["# depth maps"], ["# ground truth"]
    for i, pose in enumerate(recording.poses):
        time = 1305031102.1753 + i / 30
        rgb.append(f"{time:.6f} rgb/{time:.6f}.{suffix}")
        depth.append(f"{time + 0.005:.6f} depth/{time + 0.005:.6f}.png")
        (folder / "rgb" / f"{time:.6f}.{suffix}").write_bytes(color_file(recording, i, suffix))
        (folder / "depth" / f"{time + 0.005:.6f}.png").write_bytes(png(depth_mm(recording, i) * np.uint16(5)))
        if i != LOST:
            values = [*pose[:3, 3], *Rotation.from_matrix(pose[:3, :3]).as_quat()]
            truth.append(f"{time + 0.002:.4f} " + " ".join(f"{value:.9f}" for value in values))
    for name, lines in (("rgb", rgb), ("depth", depth), ("groundtruth", truth)):
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return folder


def entries(root: Path) -> list[ScanEntry]:
    return take_inventory(load_config([f"scans.root={root}"], None)).scans


def entry_of(root: Path, scan_id: str) -> ScanEntry:
    return next(entry for entry in entries(root) if entry.scan_id == scan_id)
