"""`SCAN.txt`, ScanNet's meta file, of which `axisAlignment` is used; a scan of any layout may have one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ScanError
from pipeline.sources.text_files import read_text

RIGID_TOLERANCE = 1e-3
"""Meta files print six decimals; a real shear or scale is far above this."""


def read_meta(path: Path) -> dict[str, str]:
    """`key = value` lines of a `SCAN.txt`. ScanError: not readable as that."""
    pairs = (line.split("=", 1) for line in read_text(path).splitlines() if "=" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def read_alignment(path: Path | None) -> NDArray[np.float64]:
    """(4, 4) `axisAlignment` of a meta file; identity where there is none (ScanNet's test scans).

    ScanError: not 16 finite numbers, or not a rigid transform.
    """
    matrix = axis_alignment(path)
    return np.eye(4) if matrix is None else matrix


def axis_alignment(path: Path | None) -> NDArray[np.float64] | None:
    """(4, 4) `axisAlignment`; None where there is no file or no such line. ScanError as above."""
    text = None if path is None else read_meta(path).get("axisAlignment")
    if text is None:
        return None
    try:
        values = np.array([float(word) for word in text.split()])
    except ValueError:
        raise ScanError(f"{path.name}: axisAlignment: got {text[:60]!r}, expected 16 numbers") from None
    if values.shape != (16,):
        raise ScanError(f"{path.name}: axisAlignment: got {values.size} numbers, expected 16")
    matrix = values.reshape(4, 4)
    if not is_rigid(matrix):
        raise ScanError(
            f"{path.name}: axisAlignment: got {matrix.tolist()}, expected a finite rigid transform"
        )
    return matrix


def is_rigid(matrix: NDArray[np.float64]) -> bool:
    """Whether a (4, 4) matrix is finite, a proper rotation and a translation."""
    if not np.isfinite(matrix).all():
        return False
    rotation = matrix[:3, :3]
    return (
        np.allclose(rotation @ rotation.T, np.eye(3), atol=RIGID_TOLERANCE)
        and np.linalg.det(rotation) > 0
        and np.allclose(matrix[3], [0, 0, 0, 1], atol=RIGID_TOLERANCE)
    )
