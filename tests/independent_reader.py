"""A reader of format version 1 written from docs/format.md alone; it shares no code with scanshards.

Numbers in comments are the page's sections. Anything that breaks the format is a `Damage`.
"""

from __future__ import annotations

import ast
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import cv2
import numcodecs
import numpy as np
import xxhash

FRAMES = [f"frame{i:02d}.jpg" for i in range(32)]
MIB = 1 << 20
# 4: name -> (dtype, allowed shapes, most bytes); "" for JSON
IMAGES = {name: ("u1", [(384, 384, 3)], 4 * MIB) for name in FRAMES}
MEMBERS: dict[str, tuple[str, list[tuple[int, ...]], int]] = {
    "clip.json": ("", [], 4 * MIB),
    **IMAGES,
    "depth.npy.blosc": ("<u2", [(32, 384, 384)], 16 * MIB),
    "bev.png": ("u1", [(432, 432, 3)], 4 * MIB),
    "bev_valid.png": ("u1", [(432, 432)], MIB),
    "latents.npy": ("<f2", [(32, m, 16, 27, 27) for m in (1, 2)], 4 * MIB),
    "bev_latents.npy": ("<f2", [(m, 16, 54, 54) for m in (1, 2)], MIB),
    "objects.json": ("", [], 16 * MIB),
    "texts.json": ("", [], 64 * MIB),
    "coords.npy.blosc": ("<i2", [(32, 384, 384, 3)], 64 * MIB),
}
OPTIONAL = "coords.npy.blosc"


class Damage(Exception):
    """The bytes break the format; arguments: file, key, member, what."""


def read_release(folder: Path) -> dict[str, dict[str, Any]]:
    """7: key -> sample of every shard that index.json lists, everything checked."""
    index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    if index["format_version"] != 1:
        raise Damage("index.json", "", "", f"version {index['format_version']}, known: 1")
    rows = sorted(index["shards"], key=lambda row: row["file"])
    listing = "".join(f"{row['sha256']}  {row['file']}\n" for row in rows)
    if hashlib.sha256(listing.encode()).hexdigest() != index["root_hash"]:
        raise Damage("index.json", "", "", "root hash")
    samples: dict[str, dict[str, Any]] = {}
    for row in index["shards"]:
        path = folder / row["file"]
        data = path.read_bytes()
        if len(data) != row["bytes"] or hashlib.sha256(data).hexdigest() != row["sha256"]:
            raise Damage(row["file"], "", "", "bytes or sha256")
        for sample in row["samples"]:
            span = data[sample["offset"] : sample["offset"] + sample["bytes"]]
            if xxhash.xxh3_64_hexdigest(span) != sample["xxh3"]:
                raise Damage(row["file"], sample["key"], "", "xxh3 of its range")
        found = read_shard(path)
        if list(found) != [sample["key"] for sample in row["samples"]] or set(found) & set(samples):
            raise Damage(row["file"], "", "", "keys are not those listed")
        samples |= found
    return samples


def read_shard(path: Path) -> dict[str, dict[str, Any]]:
    """3: key -> sample of one shard, without its index."""
    data = path.read_bytes()
    contents: dict[str, dict[str, bytes]] = {}
    position = 0
    try:
        with tarfile.open(path, "r:") as archive:
            for info in archive:
                key, _, member = info.name.partition(".")
                if data[position : position + 512] != canonical_header(info.name, info.size):
                    raise Damage(path.name, key, member, "header")
                start, end = position + 512, position + 512 + -(-info.size // 512) * 512
                if (
                    member not in MEMBERS
                    or info.size > MEMBERS[member][2]
                    or any(data[start + info.size : end])
                ):
                    raise Damage(path.name, key, member, "unknown, too large, or padding not zero")
                if key not in contents and contents and key <= list(contents)[-1]:
                    raise Damage(path.name, key, member, "keys do not rise")
                if member in contents.setdefault(key, {}) or key != list(contents)[-1]:
                    raise Damage(path.name, key, member, "comes twice")
                contents[key][member] = data[start : start + info.size]
                position = end
    except (tarfile.TarError, UnicodeEncodeError) as error:
        raise Damage(path.name, "", "", str(error)) from error
    if data[position:] != bytes(1024):
        raise Damage(path.name, "", "", "end")
    return {key: read_sample(path.name, key, members) for key, members in contents.items()}


def canonical_header(name: str, size: int) -> bytes:
    """3, the table."""
    block = bytearray(512)
    fields = {
        0: name.encode("ascii"),
        100: b"0000644\0" + b"0000000\0" * 2 + b"%011o\0" % size + b"%011o\0" % 0 + b" " * 8 + b"0",
        257: b"ustar\x0000",
    }
    for offset, value in fields.items():
        block[offset : offset + len(value)] = value
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def read_sample(file: str, key: str, members: dict[str, bytes]) -> dict[str, Any]:
    """4 and 5: member name -> decoded content; clip.json under "clip.json"."""
    names = [name for name in MEMBERS if name in members or name != OPTIONAL]
    if list(members) != names:
        raise Damage(file, key, "", f"members {list(members)}")
    meta = check_clip(file, key, members)
    sample: dict[str, Any] = {"clip.json": meta}
    for name, data in list(members.items())[1:]:
        try:
            sample[name] = decode(name, data)
        except (ValueError, RuntimeError, SyntaxError, cv2.error) as error:
            raise Damage(file, key, name, str(error)) from error
    for name in ("latents", "bev_latents"):
        if sample[f"{name}.npy"].shape[-4] != 1 + meta[name]["posterior"]:
            raise Damage(file, key, f"{name}.npy", "m")
    if len({len(column) for column in sample["objects.json"].values()}) != 1:
        raise Damage(file, key, "objects.json", "columns differ in length")
    return sample


def check_clip(file: str, key: str, members: dict[str, bytes]) -> dict[str, Any]:
    raw = members["clip.json"]
    own = xxhash.xxh3_64_hexdigest(raw[:-18] + b"0" * 16 + b'"}')
    if not raw.endswith(f'"xxh3":"{own}"}}'.encode()):
        raise Damage(file, key, "clip.json", "its own hash")
    meta = json.loads(raw.decode("utf-8"))
    if meta["format_version"] != 1:
        raise Damage(file, key, "clip.json", f"version {meta['format_version']}, known: 1")
    if key.rpartition("-")[0] != meta["scan_id"]:
        raise Damage(file, key, "clip.json", "scan_id is not that of the key")
    if [row["name"] for row in meta["members"]] != list(members)[1:]:
        raise Damage(file, key, "clip.json", "list of members")
    for row in meta["members"]:
        data = members[row["name"]]
        if len(data) != row["bytes"] or xxhash.xxh3_64_hexdigest(data) != row["xxh3"]:
            raise Damage(file, key, row["name"], "size or hash")
    source, shorter = meta["source"], min(meta["source"]["depth_width"], meta["source"]["depth_height"])
    width, height = (source[f"depth_{side}"] * 384 // shorter for side in ("width", "height"))
    crop = {"x": (width - 384) // 2, "y": (height - 384) // 2, "width": 384, "height": 384}
    if (meta["resize"], meta["crop"]) != ({"width": width, "height": height}, crop):
        raise Damage(file, key, "clip.json", "resize or crop")
    return meta


def decode(name: str, data: bytes) -> Any:
    dtype, shapes, _ = MEMBERS[name]
    if name.endswith(".json"):
        return json.loads(data.decode("utf-8"))
    if name.endswith(".npy"):
        return decode_npy(data, dtype, shapes)
    if name.endswith(".blosc"):
        frame = np.frombuffer(data[:16], "<u4")  # flags, decoded size, block size, size of the frame
        most = int(np.prod(shapes[0])) * np.dtype(dtype).itemsize + 1024
        if len(data) < 16 or frame[3] != len(data) or frame[1] > most:
            raise ValueError("Blosc frame")
        return decode_npy(bytes(numcodecs.Blosc().decode(data)), dtype, shapes)
    size = jpeg_size(data) if name.endswith(".jpg") else png_size(data)
    if size != shapes[0]:
        raise ValueError(f"{size}, expected {shapes[0]}")
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None or image.shape != shapes[0]:
        raise ValueError("image")
    return image if image.ndim == 2 else image[..., ::-1]  # OpenCV gives BGR


def decode_npy(data: bytes, dtype: str, shapes: list[tuple[int, ...]]) -> np.ndarray:
    """4: the header is checked before NumPy takes memory for what it says."""
    start = 10 + int.from_bytes(data[8:10], "little")
    head = ast.literal_eval(data[10:start].decode("ascii").strip())
    if data[:8] != b"\x93NUMPY\x01\x00" or head["descr"] != dtype or head["fortran_order"] is not False:
        raise ValueError(f"npy header {head}")
    if head["shape"] not in shapes:
        raise ValueError(f"npy shape {head['shape']}")
    return np.load(io.BytesIO(data), allow_pickle=False)


def jpeg_size(data: bytes) -> tuple[int, int, int]:
    """Height, width, components by the baseline frame header (SOF0)."""
    position = 2
    while data[:2] == b"\xff\xd8" and position + 9 < len(data) and data[position] == 0xFF:
        if data[position + 1] == 0xC0:
            head = data[position + 5 : position + 10]
            return int.from_bytes(head[:2], "big"), int.from_bytes(head[2:4], "big"), head[4]
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    raise ValueError("no baseline JPEG")


def png_size(data: bytes) -> tuple[int, ...]:
    width, height = (int.from_bytes(data[i : i + 4], "big") for i in (16, 20))
    if data[:16] != b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" or data[24] != 8 or data[25] not in (0, 2) or data[28]:
        raise ValueError("no PNG of 8 bits, grey or RGB, not interlaced")
    return (height, width, 3) if data[25] == 2 else (height, width)


def coordinates(sample: dict[str, Any]) -> np.ndarray:
    """6: (32, 384, 384, 3) float64 world coordinates, metres; NaN where depth is 0."""
    meta, depth_mm = sample["clip.json"], sample["depth.npy.blosc"]
    resize, crop, source = meta["resize"], meta["crop"], meta["source"]
    steps = [1 / (resize[side] / source[f"depth_{side}"]) for side in ("width", "height")]
    u = np.minimum(np.floor((np.arange(384) + crop["x"]) * steps[0]), source["depth_width"] - 1)
    v = np.minimum(np.floor((np.arange(384) + crop["y"]) * steps[1]), source["depth_height"] - 1)
    pixels = np.stack([*np.meshgrid(u, v), np.ones((384, 384))], -1)
    rays = pixels @ np.linalg.inv(np.array(meta["depth_intrinsics"], float)).T
    world = np.full((32, 384, 384, 3), np.nan)
    for i in range(32):
        cam = np.concatenate([rays * (depth_mm[i] / 1000)[..., None], np.ones((384, 384, 1))], -1)
        world[i] = (cam @ np.array(meta["world_from_cam"][i], float).T)[..., :3]
    world[depth_mm == 0] = np.nan
    return world
