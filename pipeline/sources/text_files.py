"""Small text files of recordings: matrices and lists. Sizes are checked before anything is read."""

from __future__ import annotations

import re
import stat
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ScanError

MAX_TEXT_BYTES = 1 << 20
MAX_SIDE_PX = 16384
"""As in a `.sens` file; a focal length or centre far beyond it is damage."""
MATRIX_TOLERANCE = 1e-3
WINDOWS_NAN = re.compile(r"[+-]?\d+\.?\d*#(?:IND|INF|QNAN|SNAN)\d*", re.IGNORECASE)
"""How old Windows programs print what is not a number (`-1.#IND`)."""


def read_bytes(path: Path, max_bytes: int) -> bytes:
    """A whole file. ScanError: it is no plain file, cannot be read, or has more than `max_bytes`."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a named pipe would block
            raise ScanError(f"{path.name}: got no plain file, expected one")
        with open(path, "rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise ScanError(f"{path.name}: cannot be read ({error.strerror})") from None
    if len(data) > max_bytes:
        raise ScanError(f"{path.name}: got more than {max_bytes} bytes, expected at most that")
    return data


def read_text(path: Path, max_bytes: int = MAX_TEXT_BYTES) -> str:
    """A text file; what is not UTF-8 becomes U+FFFD. ScanError as in `read_bytes`."""
    return read_bytes(path, max_bytes).decode("utf-8", "replace")


def parse_numbers(words: Sequence[str], where: str) -> list[float]:
    """Numbers, which may be inf or NaN. ScanError names `where` and the word that is none."""
    numbers = []
    for word in words:
        try:
            numbers.append(float("nan" if WINDOWS_NAN.fullmatch(word) else word))
        except ValueError:
            raise ScanError(f"{where}: got {word[:60]!r}, expected a number") from None
    return numbers


def parse_pose(text: str, name: str) -> NDArray[np.float64]:
    """(4, 4) scan_from_cam from 16 numbers in rows. Lost frames hold -inf, NaN or zeros.

    ScanError: another count, a word that is no number, or a last row other than 0 0 0 1.
    """
    values = parse_numbers(text.split(), name)
    if len(values) != 16:
        raise ScanError(f"{name}: got {len(values)} numbers, expected 16: the pose, 4x4")
    pose = np.array(values).reshape(4, 4)
    lost = not np.isfinite(pose).all() or not pose.any()
    if not lost and np.abs(pose[3] - [0, 0, 0, 1]).max() > MATRIX_TOLERANCE:
        raise ScanError(
            f"{name}: got the last row {pose[3].tolist()}, expected 0 0 0 1; is the pose transposed?"
        )
    return pose


def parse_intrinsics(text: str, name: str) -> NDArray[np.float64]:
    """(3, 3) camera matrix in pixels, from 3x3 or 4x4 numbers in rows. ScanError: no such matrix."""
    values = parse_numbers(text.split(), name)
    side = {9: 3, 16: 4}.get(len(values))
    if side is None:
        raise ScanError(f"{name}: got {len(values)} numbers, expected 9 or 16: the intrinsics, 3x3 or 4x4")
    k = np.array(values).reshape(side, side)[:3, :3]
    finite = np.isfinite(k).all() and np.abs(k).max() <= 8 * MAX_SIDE_PX
    if not (finite and k[0, 0] > 0 and k[1, 1] > 0 and k[2].tolist() == [0, 0, 1]):
        raise ScanError(f"{name}: got {k.tolist()}, expected [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] in pixels")
    return k
