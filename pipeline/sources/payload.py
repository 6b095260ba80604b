"""Compressed pictures of a recording -> arrays, checked before they are decoded.

The recording's size is compared with the size that the picture's own header states, and zlib output is
bounded: no payload can ask for more memory than the recording's size calls for. Errors say got and expected;
the caller puts file and frame in front.
"""

from __future__ import annotations

import struct
import zlib
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ScanError

ColorCompression = Literal["raw", "png", "jpeg"]
DepthCompression = Literal["raw", "zlib"]

PNG_START = b"\x89PNG\r\n\x1a\n"
PNG_END = b"IEND\xaeB`\x82"
JPEG_START = b"\xff\xd8"
JPEG_END = b"\xff\xd9"
JPEG_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
JPEG_BARE_MARKERS = frozenset({0x01, *range(0xD0, 0xD8)})
REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
END_WINDOW = 1024
"""Some encoders pad: the end mark is looked for in this many last bytes."""


def decode_color(
    data: bytes,
    compression: ColorCompression,
    width: int,
    height: int,
    at_least: tuple[int, int] | None = None,
) -> NDArray[np.uint8]:
    """(height, width, 3) uint8 RGB. ScanError: cut off, another size, or not decodable.

    With `at_least` (width, height) a JPEG comes at 1/2, 1/4 or 1/8 of its size, if that is whole and no
    smaller. The decoder then leaves out high frequencies: faster than to decode and shrink, but another
    picture, no nearer to it than JPEG's own loss (docs/benchmarks.md). Frames of a clip are decoded whole.
    """
    if compression == "raw":
        if len(data) != 3 * width * height:
            raise ScanError(f"got {len(data)} raw bytes, expected {3 * width * height}")
        return np.frombuffer(data, np.uint8).reshape(height, width, 3)
    size = jpeg_size(data) if compression == "jpeg" else png_size(data)
    if size is None:
        raise ScanError(f"got {len(data)} bytes that are no whole picture, expected {compression}")
    if size != (width, height):
        raise ScanError(f"got a picture of {size[0]}x{size[1]}, expected {width}x{height}")
    factor = 1 if at_least is None or compression != "jpeg" else _reduction(width, height, at_least)
    try:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), REDUCED[factor] | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        bgr = None
    if bgr is None or bgr.shape != (height // factor, width // factor, 3):
        raise ScanError(f"got {len(data)} bytes that do not decode, expected {compression}")
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def decode_depth(data: bytes, compression: DepthCompression, width: int, height: int) -> NDArray[np.uint16]:
    """(height, width) uint16 as stored. ScanError: another size, or bad zlib data."""
    expected = 2 * width * height
    if compression == "zlib":
        inflate = zlib.decompressobj()
        try:
            data = inflate.decompress(data, expected + 1)
        except zlib.error as error:
            raise ScanError(f"got bad zlib data ({error}), expected {expected} bytes deflated") from None
        if len(data) <= expected and not inflate.eof:
            raise ScanError(f"got a zlib stream that stops after {len(data)} bytes, expected {expected}")
    if len(data) != expected:
        got = f"more than {expected}" if len(data) > expected else str(len(data))
        raise ScanError(f"got {got} bytes of depth, expected {expected}")
    return np.frombuffer(data, "<u2").reshape(height, width).astype(np.uint16, copy=False)


def _reduction(width: int, height: int, at_least: tuple[int, int]) -> int:
    """Largest of 1, 2, 4, 8 that divides both sides and leaves them no smaller than `at_least`."""
    fits = (
        factor
        for factor in REDUCED
        if width % factor == height % factor == 0
        and width // factor >= at_least[0]
        and height // factor >= at_least[1]
    )
    return max(fits, default=1)


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) from the frame header; None if there is none or the picture is cut off."""
    if not data.startswith(JPEG_START) or data.rfind(JPEG_END, max(0, len(data) - END_WINDOW)) < 0:
        return None
    at = len(JPEG_START)
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker in JPEG_BARE_MARKERS:
            at += 2
        elif marker in JPEG_FRAME_MARKERS:
            height, width = struct.unpack_from(">2H", data, at + 5)
            return width, height
        else:
            at += 2 + max(2, struct.unpack_from(">H", data, at + 2)[0])
    return None


def png_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) from the IHDR chunk; None if there is none or the picture is cut off."""
    if len(data) < 33 or not data.startswith(PNG_START) or data[12:16] != b"IHDR":
        return None
    if data.rfind(PNG_END, max(0, len(data) - END_WINDOW)) < 0:
        return None
    return struct.unpack_from(">2I", data, 16)
