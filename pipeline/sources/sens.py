"""Reader of ScanNet's `.sens` files over a memory map (layout and writer: `sens_format.py`).

Opening walks the frame headers only: one page per frame, no payload. Frames are then decoded at random. Every
number of the file is checked before it is used, so a damaged file gives a `ScanError`, not a crash or a huge
allocation.

A file that ends too early is *truncated*; everything else that does not fit is *damaged*. Damage is always an
error. Truncation is an error with `strict=True` (the default); with `strict=False` the frames that are wholly
present are usable: `num_frames` counts them, `num_frames_declared` is what the header says, and the caller
accounts for the difference. A version 4 file that ends right after its last frame has no IMU tail; that is
accepted, because exporters write such files.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ScanError
from pipeline.sources.payload import decode_color, decode_depth
from pipeline.sources.sens_format import (
    BODY,
    COLOR_CODES,
    COUNT,
    DEPTH_CODES,
    FRAME_DTYPE,
    HEAD,
    IMU_DTYPE,
    OCCI_CODE,
    SIZES,
    SIZES_OFFSET,
    VERSIONS,
    SensFrame,
    SensHeader,
    write_sens,
)

__all__ = ["IMU_DTYPE", "SensFrame", "SensHeader", "SensReader", "write_sens"]

# Far above any recording, far below what hurts: a number beyond these is damage.
MAX_NAME_BYTES = 4096
MAX_SIDE_PX = 16384
MAX_PIXELS = 1 << 26
MAX_FRAMES = 1_000_000
MAX_IMU = 10_000_000
PAYLOAD_SLACK = 1 << 20
PAGES_PER_DROP = 256
"""While indexing, mapped pages are given back after this many frames, so that memory stays flat."""


class SensReader:
    """A `.sens` file open for random access; a context manager.

    ScanError: not a `.sens` file of version 3 or 4, `occi` depth, damage, or (strict) truncation.
    """

    def __init__(self, path: Path | str, *, strict: bool = True) -> None:
        self.path = Path(path)
        try:
            with open(self.path, "rb") as file:
                self.size = os.fstat(file.fileno()).st_size
                if self.size == 0:
                    raise self.error("size", "0 bytes", "a .sens file")
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise ScanError(f"{self.path.name}: cannot be opened ({error.strerror})") from None
        try:
            self._advise("MADV_RANDOM")  # no read-ahead into payloads
            self.header, self.num_frames_declared, self._frames_start = self._read_header()
            self.frames, self._offsets = self._index(strict)
            self.num_imu = self._check_tail(strict)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> SensReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._map.close()

    @property
    def num_frames(self) -> int:
        """Frames that are wholly present."""
        return len(self.frames)

    @property
    def poses(self) -> NDArray[np.float32]:
        """(num_frames, 4, 4) scan_from_cam as stored; frames without tracking hold -inf."""
        return self.frames["scan_from_cam"]

    def header_bytes(self) -> bytes:
        return self._map[: self._frames_start]

    def record(self, index: int) -> bytes:
        """Frame header and payloads of one frame, as stored."""
        frame, start = self._frame(index)
        return self._bytes(start, FRAME_DTYPE.itemsize + int(frame["color_bytes"] + frame["depth_bytes"]))

    def color_bytes(self, index: int) -> bytes:
        """Stored colour payload of one frame."""
        frame, start = self._frame(index)
        return self._bytes(start + FRAME_DTYPE.itemsize, int(frame["color_bytes"]))

    def depth_bytes(self, index: int) -> bytes:
        """Stored depth payload of one frame."""
        frame, start = self._frame(index)
        start += FRAME_DTYPE.itemsize + int(frame["color_bytes"])
        return self._bytes(start, int(frame["depth_bytes"]))

    def color(self, index: int, at_least: tuple[int, int] | None = None) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB. ScanError if the payload does not decode to the header's size.

        With `at_least` (width, height) it may come smaller, but no smaller than that (`decode_color`).
        """
        h, data = self.header, self.color_bytes(index)
        try:
            return decode_color(data, h.color_compression, h.color_width, h.color_height, at_least)
        except ScanError as error:
            raise ScanError(f"{self.path.name}: frame {index} color: {error}") from None

    def depth(self, index: int) -> NDArray[np.uint16]:
        """(H, W) uint16 as stored (metres = value / depth_shift), 0 = missing. ScanError as `color`."""
        h, data = self.header, self.depth_bytes(index)
        try:
            return decode_depth(data, h.depth_compression, h.depth_width, h.depth_height)
        except ScanError as error:
            raise ScanError(f"{self.path.name}: frame {index} depth: {error}") from None

    def imu(self) -> NDArray[np.void]:
        """(num_imu,) records of `IMU_DTYPE`."""
        stop = self.size if self.num_imu else 0
        return np.frombuffer(self._map[stop - self.num_imu * IMU_DTYPE.itemsize : stop], IMU_DTYPE)

    def error(self, field: str, got: str, expected: str) -> ScanError:
        return ScanError(f"{self.path.name}: {field}: got {got}, expected {expected}")

    def _frame(self, index: int) -> tuple[np.void, int]:
        if not 0 <= index < self.num_frames:
            raise IndexError(f"{self.path.name}: frame {index}, the file has {self.num_frames}")
        return self.frames[index], int(self._offsets[index])

    def _bytes(self, start: int, length: int) -> bytes:
        """Part of the file, read at once: without the advice it would come page by page."""
        if length:
            first_page = start - start % mmap.PAGESIZE
            self._advise("MADV_WILLNEED", first_page, start + length - first_page)
        return self._map[start : start + length]

    def _advise(self, advice: str, *pages: int) -> None:
        """Tell the system how the map, or a part of it (first byte, length), will be used."""
        if hasattr(mmap, advice):
            self._map.madvise(getattr(mmap, advice), *pages)

    def _read_header(self) -> tuple[SensHeader, int, int]:
        if self.size < HEAD.size:
            raise self.error("header", f"{self.size} bytes", "304 or more")
        version, name_bytes = HEAD.unpack_from(self._map, 0)
        if version not in VERSIONS:
            got = f"{version} (the file begins with {bytes(self._map[:4])!r})"
            raise self.error("version", got, "3 or 4 (a .sens file)")
        if name_bytes > MAX_NAME_BYTES:
            raise self.error("sensor name length", str(name_bytes), f"at most {MAX_NAME_BYTES}")
        start = HEAD.size + name_bytes
        if self.size < start + BODY.size:
            raise self.error("header", f"{self.size} bytes", f"{start + BODY.size} or more")
        *floats, color_code, depth_code, cw, ch, dw, dh, shift, num_frames = BODY.unpack_from(
            self._map, start
        )
        for name, width, height in (("color", cw, ch), ("depth", dw, dh)):
            if not (0 < width <= MAX_SIDE_PX and 0 < height <= MAX_SIDE_PX and width * height <= MAX_PIXELS):
                raise self.error(f"{name} size", f"{width}x{height}", f"1x1 to {MAX_PIXELS} pixels")
        if not (np.isfinite(shift) and shift > 0):
            raise self.error("depth shift", str(shift), "a positive number")
        if num_frames > MAX_FRAMES:
            raise self.error("number of frames", str(num_frames), f"at most {MAX_FRAMES}")
        matrices = np.array(floats, np.float32).reshape(4, 4, 4)
        header = SensHeader(
            color_intrinsics=matrices[0],
            color_extrinsics=matrices[1],
            depth_intrinsics=matrices[2],
            depth_extrinsics=matrices[3],
            color_width=cw,
            color_height=ch,
            depth_width=dw,
            depth_height=dh,
            color_compression=self._compression("color", color_code, COLOR_CODES),
            depth_compression=self._compression("depth", depth_code, DEPTH_CODES),
            depth_shift=float(shift),
            sensor_name=self._map[HEAD.size : start].decode("utf-8", "replace"),
            version=version,
        )
        return header, num_frames, start + BODY.size

    def _index(self, strict: bool) -> tuple[NDArray[np.void], NDArray[np.int64]]:
        """Walk the frame headers: (num_frames,) `FRAME_DTYPE` and the byte at which each frame starts."""
        limits = _payload_limits(self.header)
        heads, offsets = [], []
        at = self._frames_start
        for index in range(self.num_frames_declared):
            stop = at + FRAME_DTYPE.itemsize
            if stop <= self.size:
                head = self._map[at:stop]
                sizes = SIZES.unpack_from(head, SIZES_OFFSET)
                for name, size, (least, most) in zip(("color", "depth"), sizes, limits, strict=True):
                    if size and not least <= size <= most:
                        want = str(most) if least == most else f"at most {most}"
                        raise self.error(f"frame {index} {name} byte count", str(size), want)
                stop += sum(sizes)
            if stop > self.size:
                if strict:
                    got = f"the end of the file at byte {self.size}"
                    raise self.error(
                        f"frame {index} of {self.num_frames_declared}", got, f"{stop} bytes or more"
                    )
                break
            heads.append(head)
            offsets.append(at)
            at = stop
            if index % PAGES_PER_DROP == PAGES_PER_DROP - 1:
                self._advise("MADV_DONTNEED")
        self._frames_stop = at
        return np.frombuffer(b"".join(heads), FRAME_DTYPE), np.array(offsets, np.int64)

    def _check_tail(self, strict: bool) -> int:
        """Number of IMU records, after comparing the file's end with what the header and the tail declare."""
        if self.num_frames < self.num_frames_declared:
            return 0
        num_imu, stop = 0, self._frames_stop
        if self.header.version >= 4 and self.size > stop:
            if self.size >= stop + COUNT.size:
                (num_imu,) = COUNT.unpack_from(self._map, stop)
                if num_imu > MAX_IMU:
                    raise self.error("number of IMU records", str(num_imu), f"at most {MAX_IMU}")
            stop += COUNT.size + num_imu * IMU_DTYPE.itemsize
        if self.size > stop or (strict and self.size < stop):
            raise self.error("end of the file", f"byte {self.size}", f"byte {stop} ({num_imu} IMU records)")
        return num_imu if self.size == stop else 0

    def _compression(self, name: str, code: int, codes: dict[Any, int]) -> Any:
        if name == "depth" and code == OCCI_CODE:
            raise self.error("depth compression", "occi (2)", "raw (0) or zlib (1); occi is not supported")
        for mode, known in codes.items():
            if code == known:
                return mode
        raise self.error(f"{name} compression", str(code), ", ".join(f"{m} ({c})" for m, c in codes.items()))


def _payload_limits(header: SensHeader) -> tuple[tuple[int, int], tuple[int, int]]:
    """(least, most) bytes of a colour and of a depth payload; beyond them a byte count is damage."""
    color = 3 * header.color_width * header.color_height
    depth = 2 * header.depth_width * header.depth_height
    return (
        (color, color) if header.color_compression == "raw" else (1, 2 * color + PAYLOAD_SLACK),
        (depth, depth) if header.depth_compression == "raw" else (1, 2 * depth + PAYLOAD_SLACK),
    )
