"""How tests/golden/v1 was made: one shard of format version 1 and what must be read from it.

python -m tests.golden.make_v1 FOLDER

The committed files are never made again: they stand for shards that others hold. The arrays are formulas, and
expected.json is computed from these, not by reading the shard.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from scanshards import codec
from scanshards.index import build_index, write_index
from scanshards.write import Sample, write_shard

KEY = "golden_v1-00"
FOCAL, CENTRE_U, CENTRE_V = 512.0, 320.5, 239.5
WINDOW = 16
"""Side of the square that has depth, pixels; it moves down a row and right two columns with each frame."""
PIXELS = ((0, 100, 200), (0, 115, 215), (1, 101, 202), (7, 120, 220), (30, 145, 275), (31, 131, 262))
"""(frame, row, column) of pixels whose coordinates are expected; all have depth."""
TURNS = ((1, 0), (0, 1), (-1, 0), (0, -1))
"""(cos, sin) of the yaw of frames 0, 1, 2, 3 and again."""


def color(frame: int) -> tuple[int, int, int]:
    """RGB of a whole frame."""
    return 8 * frame, 255 - 8 * frame, 100


def depth() -> np.ndarray:
    """(32, 384, 384) uint16 mm: a slope inside the window, 0 outside."""
    out = np.zeros((32, 384, 384), np.uint16)
    for i in range(32):
        rows, columns = np.mgrid[:WINDOW, :WINDOW]
        out[i, 100 + i : 100 + i + WINDOW, 200 + 2 * i : 200 + 2 * i + WINDOW] = 1000 + 50 * i + rows
    return out


def latents(shape: tuple[int, ...]) -> np.ndarray:
    """float16: multiples of 1/32 in [-1, 1), by the sum of weighted indices."""
    grid = np.indices(shape)
    return ((np.tensordot(np.arange(1, len(shape) + 1), grid, 1) % 64) / 32 - 1).astype(np.float16)


def bev() -> tuple[np.ndarray, np.ndarray]:
    """(432, 432, 3) uint8 RGB and (432, 432) uint8 0/255: a square seen from above."""
    picture, mask = np.zeros((432, 432, 3), np.uint8), np.zeros((432, 432), np.uint8)
    picture[100:200, 150:350] = 10, 200, 30
    mask[100:200, 150:350] = 255
    return picture, mask


def pose(frame: int) -> list[list[float]]:
    """World from camera: level, turned about z, moved on by a quarter of a metre a frame."""
    cos, sin = TURNS[frame % 4]
    return [[sin, 0, cos, 0.25 * frame], [-cos, 0, sin, -0.5], [0, -1, 0, 1.5], [0, 0, 0, 1]]


def source_pixel(row: int, column: int) -> tuple[int, int]:
    """(u, v) in the 640×480 depth image: 640 -> 512 and 480 -> 384 is 5/4, 64 columns are cut off."""
    return (column + 64) * 5 // 4, row * 5 // 4


def coordinate(frame: int, row: int, column: int) -> list[float]:
    """World coordinate of a pixel of the window, metres."""
    z = (1000 + 50 * frame + (row - 100 - frame)) / 1000
    u, v = source_pixel(row, column)
    cam = ((u - CENTRE_U) / FOCAL * z, (v - CENTRE_V) / FOCAL * z, z)
    return [sum(a * b for a, b in zip(line, (*cam, 1), strict=True)) for line in pose(frame)[:3]]


def coords_mm() -> np.ndarray:
    """(32, 384, 384, 3) int16."""
    out = np.full((32, 384, 384, 3), -32768, np.int16)
    for i, row, column in np.argwhere(depth()):
        metres = np.float32(coordinate(int(i), int(row), int(column)))
        out[i, row, column] = np.rint(metres * np.float32(1000))
    return out


def objects() -> dict[str, list[Any]]:
    return {
        "boxes": [[1, 2, 0.5, 0.5, 0.25, 1], [-1.5, 0, 0.75, 2, 1, 1.5]],
        "instance_ids": [3, 0],
        "labels": ["chair", "canapé"],
        "nyu40_ids": [5, 0],
        "sources": ["gt", "pred"],
        "scores": [1, 0.5],
    }


def texts() -> list[dict[str, Any]]:
    rows = (
        ("1", "sqa3d", "what", "I face the door.", "What is behind me?", ["a chair", "chair"], [], []),
        ("2", "scanqa", "", "", "Où est la chaise ?", ["à gauche"], [3], []),
        ("3", "scan2cap", "", "", "", ["A chair."], [3], [1, 2, 0.5, 0.5, 0.25, 1]),
        ("4", "scanrefer", "", "", "the chair", [], [3], []),
        ("5", "multi3drefer", "zt_wo_d", "", "the lamps", [], [], []),
    )
    names = ("id", "task", "question_type", "situation", "question", "answers", "target_ids", "box")
    return [dict(zip(names, row, strict=True)) for row in rows]


def meta() -> dict[str, Any]:
    passport = {
        "codec": "tiny",
        "model_id": "golden",
        "weights_sha256": "ab" * 32,
        "scaling_factor": 0.5,
        "shift_factor": 0.125,
        "input_width": 216,
        "input_height": 216,
        "filter": "bilinear",
        "dtype": "float32",
        "posterior": False,
    }
    return {
        "scan_id": "golden_v1",
        "dataset": "golden",
        "split": "train",
        "frame_indices": [3 * i for i in range(32)],
        "source": {"color_width": 1296, "color_height": 968, "depth_width": 640, "depth_height": 480},
        "resize": {"width": 512, "height": 384},
        "crop": {"x": 64, "y": 0, "width": 384, "height": 384},
        "depth_intrinsics": [[FOCAL, 0, CENTRE_U], [0, FOCAL, CENTRE_V], [0, 0, 1]],
        "color_intrinsics": [[1170, 0, 647.5], [0, 1170, 483.5], [0, 0, 1]],
        "world_from_cam": [pose(i) for i in range(32)],
        "alignment": [[0, -1, 0, 2], [1, 0, 0, 3], [0, 0, 1, -0.25], [0, 0, 0, 1]],
        "bev": {
            "present": True,
            "metres_per_pixel": 0.03125,
            "world_from_bev": [[0.03125, 0, 0, -6.75], [0, -0.03125, 0, 6.75], [0, 0, 1, 0], [0, 0, 0, 1]],
            "height_range_m": [0, 2.5],
            "valid_fraction": 20000 / 432**2,
            "renderer": "golden",
        },
        "latents": passport,
        "bev_latents": passport | {"filter": "none", "input_width": 432, "input_height": 432},
        "provenance": {
            "pipeline_version": "0.1.0",
            "parameter_hash": "0123456789abcdef",
            "inputs": [{"name": "golden_v1.sens", "bytes": 12345, "xxh3": "fedcba9876543210"}],
        },
    }


def sha256(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def main(folder: Path) -> None:
    picture, mask = bev()
    view, top = latents((32, 1, 16, 27, 27)), latents((1, 16, 54, 54))
    jpegs = {
        f"frame{i:02d}.jpg": codec.encode_jpeg(np.full((384, 384, 3), color(i), np.uint8)) for i in range(32)
    }
    members = {
        **jpegs,
        "depth.npy.blosc": codec.encode_npy_blosc(depth()),
        "bev.png": codec.encode_png(picture),
        "bev_valid.png": codec.encode_png(mask),
        "latents.npy": codec.encode_npy(view),
        "bev_latents.npy": codec.encode_npy(top),
        "objects.json": codec.encode_json(objects()),
        "texts.json": codec.encode_json(texts()),
        "coords.npy.blosc": codec.encode_npy_blosc(coords_mm()),
    }
    entry = write_shard(folder / "scannet-000000.tar", [Sample(KEY, meta(), members)])
    rejected = [{"scan_id": "golden_v0", "reason": "all poses are lost"}]
    write_index(
        folder,
        build_index("golden", "0123456789abcdef", [{**entry, "split": "train", "inputs": ""}], rejected),
    )
    shard = hashlib.sha256((folder / "scannet-000000.tar").read_bytes()).hexdigest()
    arrays = {"depth": depth(), "bev": picture, "bev_valid_png": mask, "latents": view, "bev_latents": top}
    expected = {
        "key": KEY,
        "shard_sha256": shard,
        "root_hash": hashlib.sha256(f"{shard}  scannet-000000.tar\n".encode()).hexdigest(),
        "colors": [color(i) for i in range(32)],
        "coords": [[*pixel, coordinate(*pixel)] for pixel in PIXELS],
        "num_valid": [WINDOW**2] * 32,
        "sha256": {name: sha256(array) for name, array in arrays.items()}
        | {"coords_mm": sha256(coords_mm())},
        "meta": meta(),
        "objects": objects(),
        "texts": texts(),
    }
    text = json.dumps(expected, ensure_ascii=False, indent=1)
    (folder / "expected.json").write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
