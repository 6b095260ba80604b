"""Small shards for the trainer's tests: flat rooms of one colour, of which something can be learnt.

The frames of a room show its colour, its latents follow from it, and its questions ask for it.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scanshards import codec
from scanshards.clip import Clip, ReadOptions
from scanshards.index import build_index, write_index
from scanshards.schema import BEV_SIZE, NUM_FRAMES
from scanshards.tasks import new_text
from scanshards.write import Sample, sample_bytes, write_shard

COLORS = {"red": (200, 30, 30), "green": (30, 180, 40), "blue": (30, 50, 210), "white": (230, 230, 230)}


@dataclass(frozen=True)
class Room:
    scan_id: str = "scene0000_00"
    color: str = "red"
    texts: int = 6
    posterior: bool = True
    bev: bool = True
    distinct_frames: int = NUM_FRAMES
    depth: bool = True


MICRO = (
    "frames=3",
    "threads=1",
    "vision.hidden_size=32",
    "vision.intermediate_size=48",
    "vision.num_layers=1",
    "language.hidden_size=32",
    "language.intermediate_size=48",
    "language.num_layers=2",
    "denoiser.width=32",
    "denoiser.num_blocks=2",
    "loader.workers=0",
    "texts_per_visit=3",
)
"""Overrides of `tiny` for a model that runs in a fraction of a second, with the full token geometry."""


@cache
def shared_shards() -> tuple[str, ...]:
    """Five rooms in three shards, written once per test session."""
    folder = Path(tempfile.mkdtemp(prefix="train-shards-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return tuple(write_shards(folder, rooms(5)))


@cache
def clip_of(room: Room) -> Clip:
    data = sample_bytes(sample(room))
    return Clip("memory", f"{room.scan_id}-00", data, ReadOptions())


def rooms(count: int) -> list[Room]:
    names = list(COLORS)
    return [Room(f"scene{i:04d}_00", names[i % len(names)]) for i in range(count)]


def write_shards(folder: Path, shown: list[Room], per_shard: int = 2) -> list[str]:
    """Write rooms as shards with an index; returns the shard files."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for number, first in enumerate(range(0, len(shown), per_shard)):
        samples = [sample(room) for room in shown[first : first + per_shard]]
        entry = write_shard(folder / f"scannet-{number:06d}.tar", samples)
        entries.append({**entry, "split": "train", "inputs": ""})
    write_index(folder, build_index("synthetic", "0" * 16, entries, []))
    return [str(folder / entry["file"]) for entry in entries]


def sample(room: Room) -> Sample:
    color = np.array(COLORS[room.color], np.uint8)
    rng = np.random.default_rng(int(room.scan_id[5:9]))
    jpegs = [codec.encode_jpeg(_picture(color, i)) for i in range(NUM_FRAMES)]
    valid = np.zeros((BEV_SIZE, BEV_SIZE), np.uint8)
    valid[64:384, 48:400] = 255 * room.bev
    depth = np.full((NUM_FRAMES, 384, 384), 2000 if room.depth else 0, np.uint16)
    depth[:, :40] = 0
    members = {f"frame{i:02d}.jpg": jpeg for i, jpeg in enumerate(jpegs)}
    members |= {
        "depth.npy.blosc": codec.encode_npy_blosc(depth),
        "bev.png": codec.encode_png(np.where(valid[..., None] > 0, color, 0).astype(np.uint8)),
        "bev_valid.png": codec.encode_png(valid),
        "latents.npy": codec.encode_npy(_latents(color, (NUM_FRAMES,), 27, room.posterior, rng)),
        "bev_latents.npy": codec.encode_npy(
            _latents(color, (), 54, room.posterior, rng) * np.float16(room.bev)
        ),
        "objects.json": codec.encode_json(
            {k: [] for k in ("boxes", "instance_ids", "labels", "nyu40_ids", "sources", "scores")}
        ),
        "texts.json": codec.encode_json(texts(room)),
    }
    return Sample(f"{room.scan_id}-00", _meta(room), members)


def texts(room: Room) -> list[dict]:
    made = [
        new_text(
            ("sqa3d", "scanqa")[i % 2],
            str(i),
            question=f"What color is wall {i}?",
            answers=[room.color],
            situation="I stand here." if i % 2 == 0 else "",
        )
        for i in range(room.texts)
    ]
    return [dict(text) for text in [*made, new_text("scanrefer", "r0", question="the wall", target_ids=[1])]]


def _picture(color: NDArray[np.uint8], i: int) -> NDArray[np.uint8]:
    stripes = (
        np.linspace(0.6, 1.0, 384)[None, :, None] * np.roll(np.linspace(1.0, 0.7, 384), 12 * i)[:, None, None]
    )
    return (color * stripes).astype(np.uint8)


def _latents(
    color: NDArray[np.uint8], shape: tuple[int, ...], size: int, posterior: bool, rng: np.random.Generator
) -> NDArray[np.float16]:
    tint = (color.astype(np.float32) / 128 - 1)[np.arange(16) % 3]
    waves = np.sin(np.linspace(0, 6, size))[:, None] * np.cos(np.linspace(0, 4, size))[None, :]
    mean = np.broadcast_to((tint[:, None, None] + 0.5 * waves), (*shape, 16, size, size))
    parts = [mean + 0.05 * rng.standard_normal(mean.shape)]
    if posterior:
        parts.append(np.full(mean.shape, 0.1))
    return np.stack(parts, axis=-4).astype(np.float16)


def _meta(room: Room) -> dict:
    poses = np.tile(np.eye(4), (NUM_FRAMES, 1, 1))
    poses[:, 0, 3] = np.linspace(-2, 2, NUM_FRAMES)
    poses[:, 2, 3] = 0.5
    intrinsics = [[577.87, 0, 319.5], [0, 577.87, 239.5], [0, 0, 1]]
    passport = {
        "codec": "tiny",
        "model_id": "test",
        "weights_sha256": "0" * 64,
        "scaling_factor": 1.0,
        "shift_factor": 0.0,
        "input_width": 216,
        "input_height": 216,
        "filter": "bilinear",
        "dtype": "float32",
        "posterior": room.posterior,
    }
    metres = 0.02 if room.bev else 0.0
    world_from_bev = [[metres, 0, 0, -4.3], [0, -metres, 0, 4.3], [0, 0, 1, 0], [0, 0, 0, 1]]
    frame_indices = (np.arange(NUM_FRAMES) * room.distinct_frames // NUM_FRAMES * 10).tolist()
    return {
        "scan_id": room.scan_id,
        "dataset": "synthetic",
        "split": "train",
        "frame_indices": frame_indices,
        "source": {"color_width": 1296, "color_height": 968, "depth_width": 640, "depth_height": 480},
        "resize": {"width": 512, "height": 384},
        "crop": {"x": 64, "y": 0, "width": 384, "height": 384},
        "depth_intrinsics": intrinsics,
        "color_intrinsics": intrinsics,
        "world_from_cam": poses,
        "alignment": np.eye(4),
        "bev": {
            "present": room.bev,
            "metres_per_pixel": metres,
            "world_from_bev": world_from_bev if room.bev else np.eye(4),
            "height_range_m": [0.0, 2.0 * room.bev],
            "valid_fraction": float(room.bev) * 0.6,
            "renderer": "none",
        },
        "latents": passport,
        "bev_latents": {**passport, "input_width": BEV_SIZE, "input_height": BEV_SIZE},
        "provenance": {"pipeline_version": "0", "parameter_hash": "0" * 16, "inputs": []},
    }
