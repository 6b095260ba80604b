"""Bytes <-> arrays, one pair per kind of member. Nothing here unpickles or executes what it reads.

Decoders that are told the expected shape check it in the header, before anything is allocated. All of them
raise ValueError on bytes that they cannot decode.
"""

from __future__ import annotations

import ast
import json
import math
import struct
from typing import Any

import cv2
import numpy as np
from numcodecs import blosc
from numpy.typing import NDArray

from scanshards.conform import conform
from scanshards.geometry import resize_plan
from scanshards.schema import FORMAT_VERSION, JPEG_QUALITY, TABLES, Member

Shape = tuple[int | tuple[int, ...], ...]
Buffer = bytes | memoryview

# Threaded encoding gives other bytes on each run; with this, c-blosc is called without shared state.
blosc.use_threads = False

_BLOSC_HEADER = struct.Struct("<4B3I")
_NPY_MAGIC = b"\x93NUMPY\x01\x00"
_NPY_HEADER_MAX = 1024
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_PNG_COMPRESSION = 6
_MAX_PIXELS = 1 << 26
_MAX_SIDE = 1 << 14
_MAX_JSON_VALUES = 1 << 22
_JPEG_END = b"\xff\xd9"
_JPEG_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_BASELINE = 0xC0


def encode_jpeg(rgb: NDArray[np.uint8], quality: int = JPEG_QUALITY) -> bytes:
    """(H, W, 3) uint8 RGB to a JPEG file."""
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
        raise ValueError(f"JPEG: got {rgb.shape} {rgb.dtype}, expected (H, W, 3) uint8")
    return _encode_image(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])


def decode_jpeg(data: Buffer, shape: Shape | None = None) -> NDArray[np.uint8]:
    """A JPEG file to (H, W, 3) uint8 RGB; EXIF orientation is not applied."""
    _check_shape("JPEG", _jpeg_size(data), shape)
    if bytes(data[-2:]) != _JPEG_END and _JPEG_END not in bytes(data):
        # OpenCV would fill the rest with grey. The marker never occurs inside picture data.
        raise ValueError(f"JPEG of {len(data)} bytes is cut off: no end marker")
    return _decode_image("JPEG", data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """(H, W, 3) RGB or (H, W) grey uint8 to a PNG file."""
    if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)):
        raise ValueError(f"PNG: got {image.shape} {image.dtype}, expected (H, W) or (H, W, 3) uint8")
    pixels = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return _encode_image(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, _PNG_COMPRESSION])


def decode_png(data: Buffer, shape: Shape | None = None) -> NDArray[np.uint8]:
    """An 8-bit PNG file to (H, W) uint8 if it is grey, (H, W, 3) uint8 RGB if it is RGB."""
    png_shape = _png_shape(data)
    _check_shape("PNG", png_shape, shape)
    grey = len(png_shape) == 2
    return _decode_image("PNG", data, cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR)


def encode_npy(array: NDArray[Any]) -> bytes:
    """A little-endian number array, any shape, to a .npy file, version 1.0, C order."""
    array = np.asarray(array)
    if array.dtype.hasobject or array.dtype.kind not in "biuf":
        raise ValueError(f"npy: got dtype {array.dtype}, expected a number type")
    dtype = array.dtype.newbyteorder("<")
    header = f"{{'descr': '{dtype.str}', 'fortran_order': False, 'shape': {array.shape}, }}"
    padding = -(len(_NPY_MAGIC) + 2 + len(header) + 1) % 64
    text = header.encode() + b" " * padding + b"\n"
    content = array.astype(dtype, copy=False).tobytes()
    return _NPY_MAGIC + struct.pack("<H", len(text)) + text + content


def decode_npy(data: Buffer, dtype: str, shape: Shape) -> NDArray[Any]:
    """A .npy file, version 1.0, of exactly this dtype and shape to a new array (a tuple = allowed sizes)."""
    return _npy_view(data, dtype, shape).copy()


def encode_npy_blosc(array: NDArray[Any]) -> bytes:
    """A .npy file inside one Blosc frame: zstd, level 5, byte shuffle at the array's item size."""
    file = np.frombuffer(encode_npy(array), f"u{array.dtype.itemsize}")  # Blosc shuffles by this item size
    return bytes(blosc.compress(file, b"zstd", 5, blosc.SHUFFLE))


def decode_npy_blosc(data: Buffer, dtype: str, shape: Shape) -> NDArray[Any]:
    """One Blosc frame that holds a .npy file of exactly this dtype and shape to a new array."""
    content = math.prod(max(s) if isinstance(s, tuple) else s for s in shape) * np.dtype(dtype).itemsize
    num_bytes = _blosc_size(data, content + _NPY_HEADER_MAX)
    file = np.zeros(num_bytes, np.uint8)
    try:
        blosc.decompress(data, file)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"Blosc frame cannot be decoded: {error}") from error
    return _npy_view(file.data, dtype, shape)


def encode_json(value: Any) -> bytes:
    """Compact UTF-8 JSON, keys in the order given. ValueError: NaN or infinity."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def decode_json(data: Buffer, max_values: int | None = None) -> Any:
    """UTF-8 JSON without NaN and infinity. `max_values` bounds memory: `[[],[],…` takes 25 times its size."""
    data = bytes(data)
    # Counting takes as long as a quarter of the parsing, and a text has fewer values than bytes.
    if max_values is not None and len(data) > max_values < sum(map(data.count, (b",", b"[", b"{"))):
        raise ValueError(f"JSON of {len(data)} bytes: expected at most {max_values} values")
    try:
        return json.loads(data.decode("utf-8"), parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError("JSON is nested too deeply") from error


def peek(member: Member, data: Buffer) -> None:
    """Check kind, size and shape of a member by its header alone, decoding nothing. ValueError: wrong."""
    if len(data) > member.max_bytes:
        raise ValueError(f"got {len(data)} bytes, expected at most {member.max_bytes}")
    if member.kind == "jpeg":
        _check_shape("JPEG", _jpeg_size(data), member.shape)
    elif member.kind == "png":
        _check_shape("PNG", _png_shape(data), member.shape)
    elif member.kind == "npy":
        _npy_header(data, member.dtype, member.shape)
    elif member.kind == "npy.blosc":
        _blosc_size(data, math.prod(member.shape) * np.dtype(member.dtype).itemsize + _NPY_HEADER_MAX)


def decode(member: Member, data: Buffer) -> Any:
    """Decode a member as its row in the table says."""
    if len(data) > member.max_bytes:
        raise ValueError(f"got {len(data)} bytes, expected at most {member.max_bytes}")
    if member.kind == "jpeg":
        return decode_jpeg(data, member.shape)
    if member.kind == "png":
        return decode_png(data, member.shape)
    if member.kind == "npy":
        return decode_npy(data, member.dtype, member.shape)
    if member.kind == "npy.blosc":
        return decode_npy_blosc(data, member.dtype, member.shape)
    return check_json(member.name, decode_json(data, _MAX_JSON_VALUES), member.name)


def check_json(name: str, value: Any, where: str, *, strict: bool = False) -> Any:
    """A JSON member with exactly its table's keys and types; `strict` refuses others. ValueError: no fit."""
    if name == "clip.json":
        version = value.get("format_version") if isinstance(value, dict) else None
        if version != FORMAT_VERSION:
            raise ValueError(
                f"got format_version {version!r}, expected {FORMAT_VERSION}; "
                "a newer scanshards may read it (pip install -U scanshards)"
            )
    value = conform(TABLES[name], value, where, strict=strict)
    if name == "objects.json":
        lengths = {column: len(values) for column, values in value.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"{where}: got columns of lengths {lengths}, expected one length")
        wrong = sorted(set(value["sources"]) - {"gt", "pred"})
        if wrong:
            raise ValueError(f"{where}: got source {wrong[0]!r}, expected 'gt' or 'pred'")
    return value


def check_clip(meta: dict[str, Any], key: str) -> None:
    """The rules for clip.json that its table cannot say. ValueError: one is broken."""
    if key.rpartition("-")[0] != meta["scan_id"] or meta["split"] not in ("train", "val"):
        raise ValueError(
            f"got scan_id {meta['scan_id']!r} and split {meta['split']!r}, "
            f"expected {key.rpartition('-')[0]!r} as in the key {key!r}, and train or val"
        )
    if not all(1 <= size <= _MAX_SIDE for size in meta["source"].values()):
        raise ValueError(f"source: got {meta['source']}, expected 1 to {_MAX_SIDE} pixels a side")
    plan = resize_plan(meta["source"]["depth_width"], meta["source"]["depth_height"])
    expected = (plan.width, plan.height, plan.x, plan.y, plan.size, plan.size)
    got = (*meta["resize"].values(), *meta["crop"].values())
    if got != expected:
        raise ValueError(f"resize and crop: got {got}, expected {expected} for this depth size")
    for name in ("depth_intrinsics", "color_intrinsics"):
        (fx, _, _), (below, fy, _), last = meta[name]
        if fx <= 0 or fy <= 0 or below != 0 or last != [0, 0, 1]:
            raise ValueError(f"{name}: got {meta[name]}, expected [[fx, s, cx], [0, fy, cy], [0, 0, 1]]")


def _encode_image(suffix: str, pixels: NDArray[np.uint8], options: list[int]) -> bytes:
    done, data = cv2.imencode(suffix, pixels, options)
    if not done:
        raise ValueError(f"OpenCV cannot encode {pixels.shape} as {suffix}")
    return data.tobytes()


def _decode_image(kind: str, data: Buffer, flags: int) -> NDArray[np.uint8]:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise ValueError(f"{kind} cannot be decoded: {error}") from error
    if image is None:
        raise ValueError(f"{kind} of {len(data)} bytes cannot be decoded")
    return image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _jpeg_size(data: Buffer) -> tuple[int, int, int]:
    """(height, width, components) from the baseline frame header; the segments before it are stepped over.

    A progressive file of 4 MB can ask for 300,000 passes over the picture, half a minute; it is refused.
    """
    position = 2
    if bytes(data[:2]) != b"\xff\xd8":
        raise ValueError(f"got {bytes(data[:2])!r} at the start, expected a JPEG file")
    while position + 10 <= len(data) and data[position] == 0xFF:
        marker, length = data[position + 1], int.from_bytes(data[position + 2 : position + 4], "big")
        if marker in _JPEG_FRAME_MARKERS:
            if marker != _JPEG_BASELINE:
                raise ValueError(
                    f"JPEG has frame marker {marker:#x}, expected {_JPEG_BASELINE:#x} (baseline)"
                )
            height, width, components = struct.unpack(">HHB", bytes(data[position + 5 : position + 10]))
            return height, width, components
        position += 1 if marker == 0xFF else 2 + length
    raise ValueError(f"JPEG of {len(data)} bytes has no frame header")


def _png_shape(data: Buffer) -> tuple[int, ...]:
    """(H, W) for grey, (H, W, 3) for RGB; any other PNG is refused."""
    head = bytes(data[:26])
    if len(head) < 26 or head[:8] != _PNG_MAGIC or head[12:16] != b"IHDR":
        raise ValueError(f"got {head[:8]!r} at the start, expected a PNG file")
    width, height, bits, color = struct.unpack(">IIBB", head[16:])
    if bits != 8 or color not in (0, 2):
        raise ValueError(f"PNG has {bits} bits and colour type {color}, expected 8 bits, grey (0) or RGB (2)")
    return (height, width) if color == 0 else (height, width, 3)


def _npy_header(data: Buffer, dtype: str, shape: Shape) -> tuple[int, tuple[int, ...]]:
    """(start of the content, shape) of a .npy file with the expected dtype and shape."""
    head = bytes(data[: len(_NPY_MAGIC) + 2])
    if len(head) < 10 or head[:8] != _NPY_MAGIC:
        raise ValueError(f"got {head!r} at the start, expected a .npy file of version 1.0")
    start = 10 + int.from_bytes(head[8:], "little")
    if start > min(len(data), _NPY_HEADER_MAX):
        raise ValueError(f"npy: header ends at byte {start}, expected at most {_NPY_HEADER_MAX}")
    try:
        header = ast.literal_eval(bytes(data[10:start]).decode("latin-1").strip())
    except (SyntaxError, ValueError, RecursionError, MemoryError, TypeError) as error:
        raise ValueError("npy: header is no dict of descr, fortran_order, shape") from error
    if not isinstance(header, dict) or set(header) != {"descr", "fortran_order", "shape"}:
        raise ValueError("npy: header is no dict of descr, fortran_order, shape")
    if header["descr"] != dtype or header["fortran_order"] is not False:
        raise ValueError(f"npy: got dtype {header['descr']!r}, expected {dtype!r} in C order")
    got = header["shape"]
    if not isinstance(got, tuple) or any(type(size) is not int for size in got):
        raise ValueError("npy: shape is no tuple of whole numbers")
    _check_shape("npy", got, shape)
    return start, got


def _npy_view(data: Buffer, dtype: str, shape: Shape) -> NDArray[Any]:
    """The array inside a .npy file, sharing its memory."""
    start, got = _npy_header(data, dtype, shape)
    num_bytes = math.prod(got) * np.dtype(dtype).itemsize
    if len(data) - start != num_bytes:
        raise ValueError(f"npy: got {len(data) - start} bytes of content, expected {num_bytes} for {got}")
    return np.frombuffer(data, np.dtype(dtype), offset=start).reshape(got)


def _blosc_size(data: Buffer, max_bytes: int) -> int:
    """Decoded size by the frame's header, checked against the cap and the frame's own length."""
    if len(data) < _BLOSC_HEADER.size:
        raise ValueError(f"got {len(data)} bytes, expected a Blosc frame")
    *_, num_bytes, _, frame_bytes = _BLOSC_HEADER.unpack_from(data)
    if frame_bytes != len(data) or num_bytes > max_bytes:
        raise ValueError(
            f"Blosc frame: got {frame_bytes} bytes that decode to {num_bytes}, "
            f"expected {len(data)} that decode to at most {max_bytes}"
        )
    return num_bytes


def _check_shape(kind: str, got: tuple[int, ...], expected: Shape | None) -> None:
    if expected is None:
        if math.prod(got[:2]) > _MAX_PIXELS:
            raise ValueError(f"{kind}: got {got[0]}x{got[1]} pixels, expected at most {_MAX_PIXELS} in all")
        return
    allowed = [size if isinstance(size, tuple) else (size,) for size in expected]
    if len(got) != len(allowed) or any(g not in a for g, a in zip(got, allowed, strict=True)):
        raise ValueError(f"{kind}: got shape {got}, expected {expected}")


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"JSON holds {name}, expected finite numbers")
