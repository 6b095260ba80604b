"""Recordings of any supported layout behind one interface: `open_source(entry)`.

A new layout is one module with a class that follows `Source`, and one line in `open_source`.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.scans import ScanEntry
from pipeline.sources.scannet import ScannetSource


class Source(Protocol):
    """One recording, open for random access. Everything but `color` and `depth` is cheap."""

    num_frames: int
    """Frames that are wholly present."""
    num_frames_declared: int
    """Frames that the recording says it has; more than `num_frames` if it is cut off."""
    color_size: tuple[int, int]
    """(width, height) of the colour pictures."""
    depth_size: tuple[int, int]
    color_intrinsics: NDArray[np.float64]
    """(3, 3), pixels of the colour picture."""
    depth_intrinsics: NDArray[np.float64]
    alignment: NDArray[np.float64]
    """(4, 4) world_from_scan, rigid."""
    poses: NDArray[np.float64]
    """(num_frames, 4, 4) scan_from_cam as recorded; frames without tracking hold -inf, NaN or zeros."""

    def color(self, index: int) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB. ScanError: the frame cannot be decoded."""

    def depth(self, index: int) -> NDArray[np.uint16]:
        """(H, W) uint16 millimetres, 0 = missing. ScanError: the frame cannot be decoded."""

    def fingerprint(self, indices: list[int]) -> list[dict]:
        """[{name, bytes, xxh3}] of what these frames were made from; reads no other frame."""

    def close(self) -> None: ...

    def __enter__(self) -> Source: ...

    def __exit__(self, *_: object) -> None: ...


def open_source(entry: ScanEntry) -> Source:
    """Open the recording of a scan. ScanError: it cannot be used. ValueError: no such source."""
    if entry.source == "scannet":
        return ScannetSource(entry)
    raise ValueError(f"{entry.scan_id}: source {entry.source!r}, expected 'scannet'")
