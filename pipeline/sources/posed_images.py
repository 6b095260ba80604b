"""The layout that ScanNet's code for language models reads: `posed_images/SCAN/00000.jpg`, `.png`, `.txt`.

Per frame a picture, 16-bit depth in millimetres and a 4x4 pose (scan_from_cam); `intrinsic.txt` (colour) and
`depth_intrinsic.txt`, 4x4. The numbers are those of ScanNet's frames, mostly every 10th.

The layout has no `axisAlignment`: it comes from a `SCAN.txt` beside the frames. Without one the world is the
scan's own frame, where ScanNet has z up and walls askew; if the cameras say that another axis is up, as in
other exports, it is turned (`gravity.py`).
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ScanError
from pipeline.scans import FilesStamp, FoundScan, ScanEntry
from pipeline.sources.frame_folder import (
    Cameras,
    FrameFolder,
    Frames,
    TextFiles,
    common_size,
    level,
    numbered_files,
)
from pipeline.sources.text_files import parse_intrinsics

LAYOUT = "SCAN/depth_intrinsic.txt with 00000.jpg, 00000.png, 00000.txt (posed_images)"
ORDER = 10

COLOR_INTRINSICS, DEPTH_INTRINSICS = "intrinsic.txt", "depth_intrinsic.txt"
KINDS = ("jpg", "png", "txt")
FRAME_FILE = re.compile(rf"(\d{{4,9}})\.({'|'.join(KINDS)})")
POSES_NAME = "[0-9]*.txt"


def find(folder: Path) -> list[FoundScan]:
    """The scan of a folder that has `depth_intrinsic.txt` and frames."""
    intrinsics = folder / DEPTH_INTRINSICS
    if not intrinsics.is_file():
        return []
    stamp = FilesStamp.of_matching(folder, FRAME_FILE, [folder / COLOR_INTRINSICS, intrinsics])
    return [] if stamp is None else [FoundScan(folder.name, folder, {"frames": stamp})]


def open_scan(entry: ScanEntry) -> FrameFolder:
    """ScanError: intrinsics, a pose or `SCAN.txt` cannot be read, or no picture can."""
    frames, pose_paths = _frames(entry)
    texts = TextFiles(Path(entry.directory))
    cameras = Cameras(
        common_size(frames.color, "colour", entry),
        common_size(frames.depth, "depth", entry),
        *(_intrinsics(texts, texts.folder / name) for name in (COLOR_INTRINSICS, DEPTH_INTRINSICS)),
    )
    poses = texts.poses(pose_paths, POSES_NAME)
    world_from_scan = texts.alignment(entry, lambda: level(poses, unless_upright=True))
    return FrameFolder(frames, cameras, poses, world_from_scan, texts)


def alignment(entry: ScanEntry) -> NDArray[np.float64]:
    """(4, 4) world_from_scan: `axisAlignment` of `SCAN.txt`, else identity, or a rotation if z is not up.

    ScanError: a bad file.
    """
    texts = TextFiles(Path(entry.directory))
    return texts.alignment(
        entry, lambda: level(texts.poses(_frames(entry)[1], POSES_NAME), unless_upright=True)
    )


def _frames(entry: ScanEntry) -> tuple[Frames, list[Path | None]]:
    """Pictures and pose file of each frame, in the order of the frames' numbers."""
    color, depth, pose = numbered_files(Path(entry.directory), FRAME_FILE, KINDS).values()
    numbers = sorted(color.keys() | depth.keys())
    frames = Frames([color.get(n) for n in numbers], [depth.get(n) for n in numbers])
    return frames, [pose.get(n) for n in numbers]


def _intrinsics(texts: TextFiles, path: Path) -> NDArray[np.float64]:
    if not path.is_file():
        raise ScanError(f"{texts.folder.name}: no {path.name}, expected 4x4 numbers, pixels")
    return parse_intrinsics(texts.read(path), path.name)
