"""Recordings of loose files, a colour picture, a depth picture and a pose per frame: what such layouts share.

A frame is anything that has a colour or a depth picture; what it lacks makes it a frame that cannot be
decoded or has no pose, so that it is accounted for. Frames count from 0 in the order of their names: an
export of every 10th frame has frames 0, 1, 2 …

Colour and depth count as one camera, as everywhere here; their sizes may differ. The size of the first
picture that can be read is that of all; a frame of another size cannot be decoded.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import xxhash
from numpy.typing import NDArray

from pipeline.errors import ScanError
from pipeline.sampling import has_pose
from pipeline.scans import ScanEntry
from pipeline.sources import gravity
from pipeline.sources.depth_units import MM_PER_M, depth_mm_from_units
from pipeline.sources.meta import axis_alignment
from pipeline.sources.payload import PNG_START, decode_color, jpeg_size, png_size
from pipeline.sources.text_files import MAX_SIDE_PX, MAX_TEXT_BYTES, parse_intrinsics, parse_pose, read_bytes

MAX_PIXELS = 1 << 26
MAX_PICTURE_BYTES = 3 * MAX_PIXELS
"""As in a `.sens` file: far above any recording."""
PICTURE_SLACK = 1 << 20
INTRINSICS_NAME = "camera-intrinsics.txt"

Size = tuple[int, int]
"""(width, height), pixels."""


@dataclass(frozen=True)
class Frames:
    """The files of each frame; None: the frame has none."""

    color: list[Path | None]
    depth: list[Path | None]


@dataclass(frozen=True)
class DepthFormat:
    """What the numbers of a 16-bit depth picture mean: metres = value / shift; 0 and `missing` = none."""

    shift: float = MM_PER_M
    missing: int = 0


@dataclass(frozen=True, eq=False)
class Cameras:
    color_size: Size
    depth_size: Size
    color_intrinsics: NDArray[np.float64]  # (3, 3)
    depth_intrinsics: NDArray[np.float64]


class TextFiles:
    """Reads the small text files of a recording and remembers their hashes for the fingerprint."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.inputs: list[dict] = []

    def read(self, path: Path, max_bytes: int = MAX_TEXT_BYTES) -> str:
        """ScanError: unreadable or too large."""
        data = read_bytes(path, max_bytes)
        self.inputs.append(fingerprint_of(os.path.relpath(path, self.folder), data))
        return data.decode("utf-8", "replace")

    def poses(self, paths: Sequence[Path | None], name: str) -> NDArray[np.float64]:
        """(N, 4, 4) scan_from_cam, one file a frame; NaN where there is none. ScanError: a malformed file.

        Their bytes are hashed one after the other, as one input `name`.
        """
        poses = np.full((len(paths), 4, 4), np.nan)
        digest, num_bytes = xxhash.xxh3_64(), 0
        for row, path in enumerate(paths):
            if path is not None:
                data = read_bytes(path, MAX_TEXT_BYTES)
                poses[row] = parse_pose(data.decode("utf-8", "replace"), path.name)
                digest.update(data)
                num_bytes += len(data)
        self.inputs.append({"name": name, "bytes": num_bytes, "xxh3": digest.hexdigest()})
        return poses

    def alignment(
        self, entry: ScanEntry, default: Callable[[], NDArray[np.float64]] = lambda: np.eye(4)
    ) -> NDArray[np.float64]:
        """(4, 4) world_from_scan: `axisAlignment` of `SCAN.txt`, else the default. ScanError: a bad file."""
        path = entry.path("meta")
        matrix = axis_alignment(path)
        if path is not None:
            self.read(path)
        return default() if matrix is None else matrix


class FrameFolder:
    """See `pipeline.sources.Source`."""

    def __init__(
        self,
        frames: Frames,
        cameras: Cameras,
        poses: NDArray[np.float64],
        alignment: NDArray[np.float64],
        texts: TextFiles,
        depth_format: DepthFormat = DepthFormat(),
    ) -> None:
        self.num_frames = self.num_frames_declared = len(frames.color)
        self.color_size, self.depth_size = cameras.color_size, cameras.depth_size
        self.color_intrinsics, self.depth_intrinsics = cameras.color_intrinsics, cameras.depth_intrinsics
        self.alignment, self.poses = alignment, poses
        self._frames, self._texts, self._depth_format = frames, texts, depth_format

    def __enter__(self) -> FrameFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing stays open."""

    def color(self, index: int, at_least: Size | None = None) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB, with `at_least` perhaps smaller. ScanError: the frame cannot be decoded."""
        path = self._path("colour", self._frames.color, index)
        data = _read_picture(path, self.color_size)
        compression = "png" if data.startswith(PNG_START) else "jpeg"
        try:
            return decode_color(data, compression, *self.color_size, at_least)
        except ScanError as error:
            raise ScanError(f"{path.name}: {error}") from None

    def small_color(self, index: int, at_least: Size) -> NDArray[np.uint8]:
        """(h, w, 3) uint8 RGB, perhaps reduced, no smaller than (width, height) `at_least`."""
        return self.color(index, at_least)

    def depth(self, index: int) -> NDArray[np.uint16]:
        """(H, W) uint16 millimetres, 0 = missing. ScanError: the frame cannot be decoded."""
        path = self._path("depth", self._frames.depth, index)
        try:
            stored = decode_depth_png(_read_picture(path, self.depth_size), *self.depth_size)
        except ScanError as error:
            raise ScanError(f"{path.name}: {error}") from None
        if self._depth_format.missing:
            stored[stored == self._depth_format.missing] = 0
        return depth_mm_from_units(stored, self._depth_format.shift)

    def fingerprint(self, indices: list[int]) -> list[dict]:
        """Hashes of the pictures of these frames, each by its name, and of all text files that were read."""
        found = []
        for index in indices:
            for path in (self._frames.color[index], self._frames.depth[index]):
                if path is not None:
                    name = os.path.relpath(path, self._texts.folder)
                    found.append(fingerprint_of(name, read_bytes(path, MAX_PICTURE_BYTES)))
        return found + self._texts.inputs

    def _path(self, what: str, paths: list[Path | None], index: int) -> Path:
        path = paths[index]
        if path is None:
            raise ScanError(f"frame {index}: no {what} picture, expected one")
        return path


def numbered_files(
    folder: Path, pattern: re.Pattern[str], kinds: Sequence[str]
) -> dict[str, dict[int, Path]]:
    """Files of each kind by frame number; `pattern` has the number and the kind as its groups.

    ScanError: the folder cannot be read.
    """
    found: dict[str, dict[int, Path]] = {kind: {} for kind in kinds}
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise ScanError(f"{folder.name}: cannot be read ({error.strerror})") from None
    for name in names:
        if match := pattern.fullmatch(name):
            found[match[2]][int(match[1])] = folder / name
    return found


def fingerprint_of(name: str, data: bytes) -> dict:
    return {"name": name, "bytes": len(data), "xxh3": xxhash.xxh3_64_hexdigest(data)}


def decode_depth_png(data: bytes, width: int, height: int) -> NDArray[np.uint16]:
    """(height, width) uint16 as stored. ScanError: no whole PNG of that size with one channel of 16 bits."""
    size = png_size(data)
    if size is None:
        raise ScanError(f"got {len(data)} bytes that are no whole PNG, expected 16-bit depth")
    if size != (width, height):
        raise ScanError(f"got a picture of {size[0]}x{size[1]}, expected {width}x{height}")
    try:
        depth = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        depth = None
    if depth is None:
        raise ScanError(f"got {len(data)} bytes that do not decode, expected a PNG of 16-bit depth")
    if depth.dtype != np.uint16 or depth.shape != (height, width):
        raise ScanError(f"got {depth.dtype} pixels of shape {depth.shape}, expected uint16 {height, width}")
    return depth


def common_size(paths: Sequence[Path | None], what: str, entry: ScanEntry) -> Size:
    """Size of the first picture whose header can be read. ScanError: none can, or it is beyond reason."""
    for path in paths:
        if path is None:
            continue
        try:
            data = read_bytes(path, MAX_PICTURE_BYTES)
        except ScanError:
            continue  # the frame is rejected when it is decoded
        size = png_size(data) or jpeg_size(data)
        if size is None:
            continue
        width, height = size
        if not (0 < width <= MAX_SIDE_PX and 0 < height <= MAX_SIDE_PX and width * height <= MAX_PIXELS):
            raise ScanError(
                f"{path.name}: got a picture of {width}x{height}, expected sides of 1 to {MAX_SIDE_PX} and "
                f"at most {MAX_PIXELS} pixels"
            )
        return size
    count = sum(path is not None for path in paths)
    raise ScanError(
        f"{entry.scan_id}: got {count} {what} pictures, none that can be read; expected PNG or JPEG"
    )


def one_camera(
    frames: Frames,
    entry: ScanEntry,
    texts: TextFiles,
    documented: tuple[float, float, float, Size] | None = None,
) -> Cameras:
    """Cameras from `camera-intrinsics.txt` in the folder or its parent, in pixels of the depth picture.

    Without it the layout's `documented` focal length, centre and picture size (f, cx, cy, size) count, for
    pictures of that size only. Colour of another size has the same view. ScanError: neither fits, or a bad
    file.
    """
    color_size = common_size(frames.color, "colour", entry)
    depth_size = common_size(frames.depth, "depth", entry)
    path = intrinsics_path(texts.folder)
    if path is not None:
        k = parse_intrinsics(texts.read(path), path.name)
    elif documented is not None and documented[3] == depth_size:
        focal, cx, cy, _ = documented
        k = np.array([[focal, 0, cx], [0, focal, cy], [0, 0, 1]])
    else:
        only = "" if documented is None else f" (a camera is documented for {documented[3]} only)"
        raise ScanError(
            f"{entry.scan_id}: no {INTRINSICS_NAME} for depth of {depth_size}{only}, "
            "expected 3x3 numbers, pixels, beside the frames or one folder up"
        )
    return Cameras(color_size, depth_size, scaled_intrinsics(k, depth_size, color_size), k)


def intrinsics_path(folder: Path) -> Path | None:
    """`camera-intrinsics.txt` in the folder or beside it."""
    paths = (folder / INTRINSICS_NAME, folder.parent / INTRINSICS_NAME)
    return next((path for path in paths if path.is_file()), None)


def scaled_intrinsics(k: NDArray[np.float64], size: Size, new_size: Size) -> NDArray[np.float64]:
    """(3, 3) of the same view in pictures of another size; pixel centres are whole numbers."""
    scale = np.diag([new_size[0] / size[0], new_size[1] / size[1], 1.0])
    to_corner, to_centre = np.eye(3), np.eye(3)
    to_corner[:2, 2], to_centre[:2, 2] = 0.5, -0.5
    return to_centre @ scale @ to_corner @ k


def level(poses: NDArray[np.float64], unless_upright: bool = False) -> NDArray[np.float64]:
    """(4, 4) rotation to a world with z up, from the cameras that have a pose (`gravity.py`)."""
    posed = poses[has_pose(poses)]
    return gravity.world_unless_upright(posed) if unless_upright else gravity.world_from_scan(posed)


def _read_picture(path: Path, size: Size) -> bytes:
    """ScanError: unreadable, or more bytes than any picture of that size has."""
    return read_bytes(path, 6 * size[0] * size[1] + PICTURE_SLACK)
