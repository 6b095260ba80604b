"""ScanNet's own layout: `SCAN.sens` and, if there is one, `SCAN.txt` with `axisAlignment`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xxhash
from numpy.typing import NDArray

from pipeline.errors import ScanError
from pipeline.scans import FileStamp, FoundScan, ScanEntry
from pipeline.sources.depth_units import depth_mm_from_units
from pipeline.sources.meta import read_alignment
from pipeline.sources.sens import SensReader

LAYOUT = "SCAN/SCAN.sens (ScanNet)"
ORDER = 0
"""First: beside its `.sens`, a folder may hold pictures that were exported from it."""


def find(folder: Path) -> list[FoundScan]:
    """The scan of a folder that holds a `.sens` file of the folder's name."""
    path = folder / f"{folder.name}.sens"
    return [FoundScan(folder.name, folder, {"sens": FileStamp.of(path, folder)})] if path.is_file() else []


def open_scan(entry: ScanEntry) -> ScannetSource:
    """ScanError: no usable `.sens` file, or a bad meta file."""
    return ScannetSource(entry)


def alignment(entry: ScanEntry) -> NDArray[np.float64]:
    """(4, 4) world_from_scan as the meta file says; identity if it does not."""
    return read_alignment(entry.path("meta"))


class ScannetSource:
    """See `pipeline.sources.Source`. A file that is cut off gives the frames that are wholly present."""

    def __init__(self, entry: ScanEntry) -> None:
        sens_path, self._meta_path = entry.path("sens"), entry.path("meta")
        if sens_path is None:
            raise ScanError(f"{entry.scan_id}: no .sens file, expected {entry.scan_id}.sens")
        self.alignment = alignment(entry)
        self._reader = SensReader(sens_path, strict=False)
        try:
            header = self._reader.header
            self.num_frames = self._reader.num_frames
            self.num_frames_declared = self._reader.num_frames_declared
            self.color_size = (header.color_width, header.color_height)
            self.depth_size = (header.depth_width, header.depth_height)
            self.color_intrinsics = self._intrinsics("color", header.color_intrinsics)
            self.depth_intrinsics = self._intrinsics("depth", header.depth_intrinsics)
            self.poses = self._reader.poses.astype(np.float64)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> ScannetSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._reader.close()

    def color(self, index: int) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB. ScanError: the frame cannot be decoded."""
        return self._reader.color(index)

    def small_color(self, index: int, at_least: tuple[int, int]) -> NDArray[np.uint8]:
        """(h, w, 3) uint8 RGB, perhaps reduced, no smaller than (width, height) `at_least`."""
        return self._reader.color(index, at_least)

    def depth(self, index: int) -> NDArray[np.uint16]:
        """(H, W) uint16 millimetres, 0 = missing. ScanError: the frame cannot be decoded."""
        return depth_mm_from_units(self._reader.depth(index), self._reader.header.depth_shift)

    def fingerprint(self, indices: list[int]) -> list[dict]:
        """Hashes of the `.sens` header with the records of these frames, in this order, and of the meta file.

        The part of the `.sens` that is hashed goes by the name `SCAN.sens#header+frames`; `bytes` counts what
        was hashed.
        """
        digest = xxhash.xxh3_64(self._reader.header_bytes())
        num_bytes = len(self._reader.header_bytes())
        for index in indices:
            record = self._reader.record(index)
            digest.update(record)
            num_bytes += len(record)
        name = f"{self._reader.path.name}#header+frames"
        inputs = [{"name": name, "bytes": num_bytes, "xxh3": digest.hexdigest()}]
        if self._meta_path is not None:
            data = self._meta_path.read_bytes()
            inputs.append(
                {
                    "name": self._meta_path.name,
                    "bytes": len(data),
                    "xxh3": xxhash.xxh3_64_hexdigest(data),
                }
            )
        return inputs

    def _intrinsics(self, name: str, matrix: NDArray[np.float32]) -> NDArray[np.float64]:
        k = matrix[:3, :3].astype(np.float64)
        if not (np.isfinite(k).all() and k[0, 0] > 0 and k[1, 1] > 0):
            raise self._reader.error(f"{name} intrinsics", str(k.tolist()), "finite, focal lengths above 0")
        return k
