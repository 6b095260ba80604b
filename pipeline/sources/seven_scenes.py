"""The layout of 7-Scenes and 3DMatch: `frame-000000.color.png` (or `.jpg`), `.depth.png`, `.pose.txt`.

A folder of `scans.root` is a scan, and so is each of its folders `seq-…` (`chess/seq-01` has the id
`chess-seq-01`). Depth is in 16-bit millimetres, 0 and 65535 are missing; a pose is scan_from_cam, 4x4.
`camera-intrinsics.txt` (3x3, pixels of the depth picture) lies beside the frames or one folder up; 7-Scenes
ships none, its documented camera is used. Nothing says which way is up: unless there is a `SCAN.txt` with
`axisAlignment`, it is estimated from the cameras (`gravity.py`).
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.scans import FilesStamp, FoundScan, ScanEntry
from pipeline.sources.frame_folder import (
    INTRINSICS_NAME,
    DepthFormat,
    FrameFolder,
    Frames,
    TextFiles,
    level,
    numbered_files,
    one_camera,
)

LAYOUT = "SCAN/frame-000000.color.png or SCAN/seq-01/frame-000000.color.png (7-Scenes, 3DMatch)"
ORDER = 20

KINDS = ("color.jpg", "color.png", "depth.png", "pose.txt")
FRAME_FILE = re.compile(rf"frame-(\d{{1,9}})\.({'|'.join(map(re.escape, KINDS))})")
SEQUENCE = re.compile(r"seq-[\w-]+")
POSES_NAME = "frame-*.pose.txt"
DOCUMENTED = (585.0, 320.0, 240.0, (640, 480))
"""Focal length, centre and size of 7-Scenes' depth camera, as its page gives them."""
DEPTH = DepthFormat(missing=65535)


def find(folder: Path) -> list[FoundScan]:
    """The folder itself, if it has frames, and its folders `seq-…` that have."""
    places = {folder.name: folder}
    for sub in sorted(path for path in folder.iterdir() if SEQUENCE.fullmatch(path.name) and path.is_dir()):
        places[f"{folder.name}-{sub.name}"] = sub
    found = []
    for scan_id, place in places.items():
        others = [place / INTRINSICS_NAME, place.parent / INTRINSICS_NAME]
        stamp = FilesStamp.of_matching(place, FRAME_FILE, others)
        if stamp is not None:
            found.append(FoundScan(scan_id, place, {"frames": stamp}))
    return found


def open_scan(entry: ScanEntry) -> FrameFolder:
    """ScanError: a pose, the intrinsics or `SCAN.txt` cannot be read, or no picture can."""
    frames, pose_paths = _frames(entry)
    texts = TextFiles(Path(entry.directory))
    cameras = one_camera(frames, entry, texts, DOCUMENTED)
    poses = texts.poses(pose_paths, POSES_NAME)
    return FrameFolder(frames, cameras, poses, texts.alignment(entry, lambda: level(poses)), texts, DEPTH)


def alignment(entry: ScanEntry) -> NDArray[np.float64]:
    """(4, 4) world_from_scan: `axisAlignment` of `SCAN.txt`, else the rotation that makes the cameras level.

    ScanError: a bad file.
    """
    texts = TextFiles(Path(entry.directory))
    return texts.alignment(entry, lambda: level(texts.poses(_frames(entry)[1], POSES_NAME)))


def _frames(entry: ScanEntry) -> tuple[Frames, list[Path | None]]:
    """Pictures and pose file of each frame, in the order of the frames' numbers."""
    jpeg, png, depth, pose = numbered_files(Path(entry.directory), FRAME_FILE, KINDS).values()
    color = jpeg | png  # lossless first
    numbers = sorted(color.keys() | depth.keys())
    frames = Frames([color.get(n) for n in numbers], [depth.get(n) for n in numbers])
    return frames, [pose.get(n) for n in numbers]
