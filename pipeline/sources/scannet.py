"""ScanNet's own layout as a `Source`: `SCAN.sens` and, if there is one, `SCAN.txt` with `axisAlignment`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xxhash
from numpy.typing import NDArray

from pipeline.errors import ScanError
from pipeline.scans import ScanEntry
from pipeline.sources.sens import SensReader

MAX_META_BYTES = 1 << 20
RIGID_TOLERANCE = 1e-3
"""Meta files print six decimals; a real shear or scale is far above this."""
MM_PER_M = 1000.0


class ScannetSource:
    """See `pipeline.sources.Source`. A file that is cut off gives the frames that are wholly present."""

    def __init__(self, entry: ScanEntry) -> None:
        sens_path, self._meta_path = entry.path("sens"), entry.path("meta")
        if sens_path is None:
            raise ScanError(f"{entry.scan_id}: no .sens file, expected {entry.scan_id}.sens")
        self.alignment = read_alignment(self._meta_path)
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


def depth_mm_from_units(depth: NDArray[np.uint16], depth_shift: float) -> NDArray[np.uint16]:
    """(H, W) uint16 millimetres from stored units (metres = value / shift); beyond 65.535 m is missing."""
    if depth_shift == MM_PER_M:
        return depth
    depth_mm = np.rint(depth * (MM_PER_M / depth_shift))
    return np.where(depth_mm <= np.iinfo(np.uint16).max, depth_mm, 0).astype(np.uint16)


def read_meta(path: Path) -> dict[str, str]:
    """`key = value` lines of a `SCAN.txt`. ScanError: not readable as that."""
    try:
        if path.stat().st_size > MAX_META_BYTES:
            raise ScanError(f"{path.name}: got {path.stat().st_size} bytes, expected a small text file")
        text = path.read_text("utf-8", "replace")
    except OSError as error:
        raise ScanError(f"{path.name}: cannot be read ({error.strerror})") from None
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def read_alignment(path: Path | None) -> NDArray[np.float64]:
    """(4, 4) `axisAlignment` of a meta file; identity where there is none (ScanNet's test scans).

    ScanError: not 16 finite numbers, or not a rigid transform.
    """
    text = None if path is None else read_meta(path).get("axisAlignment")
    if text is None:
        return np.eye(4)
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
