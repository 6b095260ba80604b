"""Layout of ScanNet's `.sens` container (versions 3 and 4), and its writer.

Little-endian, no padding: a header of 304 + L bytes (L = length of the sensor name), F frames of 96 bytes +
colour payload + depth payload, and in version 4 a tail of IMU records (uint64 count, 128 bytes each).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.sources.payload import ColorCompression, DepthCompression

COLOR_CODES: dict[ColorCompression, int] = {"raw": 0, "png": 1, "jpeg": 2}
DEPTH_CODES: dict[DepthCompression, int] = {"raw": 0, "zlib": 1}
OCCI_CODE = 2
VERSIONS = (3, 4)

HEAD = struct.Struct("<IQ")
BODY = struct.Struct("<64f2i4IfQ")
"""Four 4x4 matrices, two compression codes, four sizes, depth shift, frame count."""
FRAME_DTYPE = np.dtype(
    [
        ("scan_from_cam", "<f4", (4, 4)),
        ("color_timestamp_us", "<u8"),
        ("depth_timestamp_us", "<u8"),
        ("color_bytes", "<u8"),
        ("depth_bytes", "<u8"),
    ]
)
SIZES_OFFSET = 80
SIZES = struct.Struct("<2Q")
IMU_DTYPE = np.dtype(
    [
        ("rotation_rate", "<f8", 3),
        ("acceleration", "<f8", 3),
        ("magnetic_field", "<f8", 3),
        ("attitude", "<f8", 3),
        ("gravity", "<f8", 3),
        ("timestamp_us", "<u8"),
    ]
)
COUNT = struct.Struct("<Q")


@dataclass(frozen=True, eq=False)
class SensHeader:
    """What the file says about all frames. Matrices (4, 4) float32; `depth_shift`: metres = value / shift."""

    color_intrinsics: NDArray[np.float32]
    depth_intrinsics: NDArray[np.float32]
    color_width: int
    color_height: int
    depth_width: int
    depth_height: int
    color_compression: ColorCompression = "jpeg"
    depth_compression: DepthCompression = "zlib"
    depth_shift: float = 1000.0
    color_extrinsics: NDArray[np.float32] | None = None
    """None: identity, as in the release; the reader always fills it."""
    depth_extrinsics: NDArray[np.float32] | None = None
    sensor_name: str = "StructureSensor"
    version: int = 4


@dataclass(frozen=True, eq=False)
class SensFrame:
    """One frame with its payloads as stored (already compressed). `scan_from_cam` (4, 4) float32."""

    color: bytes
    depth: bytes
    scan_from_cam: NDArray[np.float32]
    color_timestamp_us: int = 0
    depth_timestamp_us: int = 0


def write_sens(
    path: Path | str,
    header: SensHeader,
    frames: Iterable[SensFrame],
    imu: NDArray[np.void] | None = None,
) -> int:
    """Write a `.sens` file under a temporary name and rename it; returns the number of frames.

    `frames` is consumed one at a time. `imu`: (N,) of `IMU_DTYPE` (version 4 only; None = no records). Same
    input, same bytes.
    """
    if header.version not in VERSIONS or (header.version == 3 and imu is not None):
        raise ValueError(f"got version {header.version}, expected 4, or 3 without IMU records")
    path = Path(path)
    temporary = path.with_name(f"{path.name}.tmp")
    name = header.sensor_name.encode()
    with open(temporary, "wb") as file:
        file.write(HEAD.pack(header.version, len(name)) + name + _pack_body(header, 0))
        num_frames = 0
        for frame in frames:
            head = np.zeros((), FRAME_DTYPE)
            head["scan_from_cam"] = frame.scan_from_cam
            head["color_timestamp_us"] = frame.color_timestamp_us
            head["depth_timestamp_us"] = frame.depth_timestamp_us
            head["color_bytes"], head["depth_bytes"] = len(frame.color), len(frame.depth)
            file.write(head.tobytes() + frame.color + frame.depth)
            num_frames += 1
        if header.version >= 4:
            records = np.zeros(0, IMU_DTYPE) if imu is None else np.asarray(imu, IMU_DTYPE)
            file.write(COUNT.pack(len(records)) + records.tobytes())
        file.seek(HEAD.size + len(name))
        file.write(_pack_body(header, num_frames))
    temporary.replace(path)
    return num_frames


def _pack_body(header: SensHeader, num_frames: int) -> bytes:
    identity = np.eye(4)
    matrices = (
        header.color_intrinsics,
        identity if header.color_extrinsics is None else header.color_extrinsics,
        header.depth_intrinsics,
        identity if header.depth_extrinsics is None else header.depth_extrinsics,
    )
    return BODY.pack(
        *np.asarray(matrices, np.float32).reshape(64).tolist(),
        COLOR_CODES[header.color_compression],
        DEPTH_CODES[header.depth_compression],
        header.color_width,
        header.color_height,
        header.depth_width,
        header.depth_height,
        header.depth_shift,
        num_frames,
    )
