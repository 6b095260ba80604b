"""The layout of the TUM RGB-D benchmark: `rgb.txt`, `depth.txt` and `groundtruth.txt` with time stamps.

A frame is a line of `rgb.txt`, in order of time. Its depth picture is associated as the benchmark's own tool
does it: pairs of at most 0.02 s, the closest first, each picture once. Its pose is the nearest in time, at
most 0.02 s away; poses come at 100 Hz, so none is interpolated. A frame that gets no depth or no pose stays a
frame.

Depth is in 1/5000 m, 0 = missing. Poses are `tx ty tz qx qy qz qw` of the colour camera in the frame of the
motion capture, whose z points up: the world. `camera-intrinsics.txt` (3x3, pixels of the depth picture)
beside the lists or one folder up, else the camera that the benchmark documents for ROS.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ScanError
from pipeline.scans import FilesStamp, FoundScan, ScanEntry
from pipeline.sources.frame_folder import (
    INTRINSICS_NAME,
    DepthFormat,
    FrameFolder,
    Frames,
    TextFiles,
    one_camera,
)
from pipeline.sources.text_files import parse_numbers

LAYOUT = "SCAN/rgb.txt, depth.txt, groundtruth.txt (TUM RGB-D)"
ORDER = 30

LISTS = ("rgb.txt", "depth.txt", "groundtruth.txt")
LIST_FILE = re.compile("|".join(map(re.escape, LISTS)))
MAX_LIST_BYTES = 1 << 26
"""An hour of poses at 100 Hz has 25 MB."""
MAX_APART_US = 20_000
MAX_PAIRS_PER_LINE = 64
"""More candidates than this within the span are no recording of pictures."""
US_PER_S = 1e6
MAX_TIME_S = 1e11
"""In microseconds it still is a whole number in float64 and int64."""
NORM_TOLERANCE = 0.05
"""Files print four decimals; a quaternion farther from length 1 is damage."""
DOCUMENTED = (525.0, 319.5, 239.5, (640, 480))
"""Focal length, centre and size of the ROS default, as the benchmark's page gives them."""
DEPTH = DepthFormat(shift=5000.0)


def find(folder: Path) -> list[FoundScan]:
    """The scan of a folder that has the three lists; all files one level below count as its pictures."""
    if not all((folder / name).is_file() for name in LISTS):
        return []
    others = [folder / INTRINSICS_NAME, folder.parent / INTRINSICS_NAME, *sorted(folder.glob("*/*"))]
    stamp = FilesStamp.of_matching(folder, LIST_FILE, others)
    return [] if stamp is None else [FoundScan(folder.name, folder, {"frames": stamp})]


def open_scan(entry: ScanEntry) -> FrameFolder:
    """ScanError: a list, the intrinsics or `SCAN.txt` is malformed, or no picture can be read."""
    folder = Path(entry.directory)
    texts = TextFiles(folder)
    rgb_us, rgb_paths = _pictures(texts, LISTS[0])
    depth_us, depth_paths = _pictures(texts, LISTS[1])
    pose_us, poses = _poses(texts, LISTS[2])
    depth_of = associate(rgb_us, depth_us, MAX_APART_US)
    pose_of = nearest(rgb_us, pose_us, MAX_APART_US)
    frames = Frames([*rgb_paths], [None if row < 0 else depth_paths[row] for row in depth_of.tolist()])
    cameras = one_camera(frames, entry, texts, DOCUMENTED)
    with_lost = np.concatenate([poses, np.full((1, 4, 4), np.nan)])  # row -1: no pose
    return FrameFolder(frames, cameras, with_lost[pose_of], texts.alignment(entry), texts, DEPTH)


def alignment(entry: ScanEntry) -> NDArray[np.float64]:
    """(4, 4) world_from_scan: `axisAlignment` of `SCAN.txt`, else identity. ScanError: a bad file."""
    return TextFiles(Path(entry.directory)).alignment(entry)


def associate(a_us: NDArray[np.int64], b_us: NDArray[np.int64], most_us: int) -> NDArray[np.int64]:
    """(len(a),) row of b for each row of a, -1 = none; each row of b once. Times ascend, microseconds.

    Pairs at most `most_us` apart are taken in order of their distance, on ties that of the earlier a, then of
    the earlier b. ScanError: so many times lie so close that they are no recording.
    """
    first = np.searchsorted(b_us, a_us - most_us, side="left")
    counts = np.searchsorted(b_us, a_us + most_us, side="right") - first
    total = int(counts.sum())
    if total > MAX_PAIRS_PER_LINE * (len(a_us) + len(b_us)):
        raise ScanError(
            f"{LISTS[0]} and {LISTS[1]}: got {total} pairs of pictures within {most_us / US_PER_S} s, "
            f"expected at most {MAX_PAIRS_PER_LINE} a picture"
        )
    a_row = np.repeat(np.arange(len(a_us)), counts)
    b_row = np.arange(total) - np.repeat(np.cumsum(counts) - counts - first, counts)
    matched = np.full(len(a_us), -1, np.int64)
    taken = np.zeros(len(b_us), np.bool_)
    for pair in np.lexsort((b_row, a_row, np.abs(a_us[a_row] - b_us[b_row]))).tolist():
        a, b = a_row[pair], b_row[pair]
        if matched[a] < 0 and not taken[b]:
            matched[a] = b
            taken[b] = True
    return matched


def nearest(a_us: NDArray[np.int64], b_us: NDArray[np.int64], most_us: int) -> NDArray[np.int64]:
    """(len(a),) row of the b nearest in time, the earlier on ties, -1 = none within `most_us`. b ascends."""
    if len(b_us) == 0:
        return np.full(len(a_us), -1, np.int64)
    after = np.searchsorted(b_us, a_us).clip(0, len(b_us) - 1)
    before = np.maximum(after - 1, 0)
    row = np.where(np.abs(a_us - b_us[before]) <= np.abs(b_us[after] - a_us), before, after)
    return np.where(np.abs(b_us[row] - a_us) <= most_us, row, -1)


def matrices(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 4, 4) scan_from_cam from (N, 7) tx ty tz qx qy qz qw. A quaternion of no length: a lost pose."""
    quaternions = rows[:, 3:]
    with np.errstate(invalid="ignore"):
        x, y, z, w = (quaternions / np.linalg.norm(quaternions, axis=1, keepdims=True)).T
        poses = np.zeros((len(rows), 4, 4))
        poses[:, 0, :3] = np.stack([1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)], 1)
        poses[:, 1, :3] = np.stack([2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)], 1)
        poses[:, 2, :3] = np.stack([2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)], 1)
    poses[:, :3, 3] = rows[:, :3]
    poses[:, 3, 3] = 1
    return poses


def _pictures(texts: TextFiles, name: str) -> tuple[NDArray[np.int64], list[Path]]:
    """Times in microseconds, ascending, and the pictures of a list `time file`. ScanError: malformed."""
    times, paths = [], []
    for where, words in _lines(texts, name):
        if len(words) != 2:
            raise ScanError(f"{where}: got {len(words)} words, expected 2: time and file")
        relative = PurePosixPath(words[1])
        if relative.is_absolute() or ".." in relative.parts:
            raise ScanError(f"{where}: got the file {words[1][:200]!r}, expected one in the scan's folder")
        times.append(_time_us(words[0], where))
        paths.append(texts.folder / relative)
    order = np.argsort(np.array(times, np.int64), kind="stable")
    return np.array(times, np.int64)[order], [paths[row] for row in order.tolist()]


def _poses(texts: TextFiles, name: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Times in microseconds, ascending, and (N, 4, 4) scan_from_cam. ScanError: malformed."""
    times, rows = [], []
    for where, words in _lines(texts, name):
        if len(words) != 8:
            raise ScanError(f"{where}: got {len(words)} words, expected 8: time tx ty tz qx qy qz qw")
        values = parse_numbers(words[1:], where)
        norm = float(np.linalg.norm(values[3:]))
        if np.isfinite(norm) and norm > 0 and abs(norm - 1) > NORM_TOLERANCE:
            raise ScanError(f"{where}: got a quaternion of length {norm:.3f}, expected 1")
        times.append(_time_us(words[0], where))
        rows.append(values)
    order = np.argsort(np.array(times, np.int64), kind="stable")
    return np.array(times, np.int64)[order], matrices(np.array(rows, np.float64).reshape(-1, 7)[order])


def _lines(texts: TextFiles, name: str) -> Iterator[tuple[str, list[str]]]:
    """(`file line N`, words) of each line that is no comment; some exports put commas between the words."""
    text = texts.read(texts.folder / name, MAX_LIST_BYTES)
    for number, line in enumerate(text.splitlines(), 1):
        words = line.replace(",", " ").split()
        if words and not words[0].startswith("#"):
            yield f"{name} line {number}", words


def _time_us(word: str, where: str) -> int:
    (seconds,) = parse_numbers([word], where)
    if not abs(seconds) <= MAX_TIME_S:
        raise ScanError(f"{where}: got the time {word[:60]!r}, expected seconds")
    return round(seconds * US_PER_S)
