"""Small valid samples, shards and releases, made in code; the same arguments give the same bytes.

release = make_release(tmp_path, num_train=3, num_val=1)
for clip in scanshards.open(release / "scannet-*.tar"): ...
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from scanshards import codec, geometry, schema
from scanshards.index import build_index, write_index
from scanshards.write import Sample, write_shard

INTRINSICS = [[577.87, 0.0, 319.5], [0.0, 577.87, 239.5], [0.0, 0.0, 1.0]]
COLOR_INTRINSICS = [[1170.19, 0.0, 647.75], [0.0, 1170.19, 483.75], [0.0, 0.0, 1.0]]
IDENTITY = np.eye(4).tolist()


def make_texts() -> list[dict[str, Any]]:
    """One text of each kind: a question with a situation, a caption with a box, a grounding expression."""
    blank = {"question_type": "", "situation": "", "question": "", "answers": [], "target_ids": [], "box": []}
    return [
        {
            "id": "220602000000",
            "task": "sqa3d",
            **blank,
            "question_type": "what",
            "situation": "I am facing the door.",
            "question": "What is behind me?",
            "answers": ["a red chair"],
        },
        {
            "id": "0-0",
            "task": "scan2cap",
            **blank,
            "answers": ["The red chair is beside the table."],
            "target_ids": [0],
            "box": [0.5, 0.25, 0.4, 0.5, 0.5, 0.8],
        },
        {
            "id": "0-1",
            "task": "multi3drefer",
            **blank,
            "question": "the tables – both",
            "target_ids": [1, 2],
        },
    ]


def make_objects() -> dict[str, list[Any]]:
    return {
        "boxes": [
            [0.5, 0.25, 0.4, 0.5, 0.5, 0.8],
            [1.0, 1.0, 0.4, 1.2, 0.8, 0.7],
            [2.0, 1.0, 0.4, 1.2, 0.8, 0.7],
        ],
        "instance_ids": [0, 1, 2],
        "labels": ["chair", "table", "table"],
        "nyu40_ids": [5, 7, 7],
        "sources": ["gt", "gt", "gt"],
        "scores": [1.0, 1.0, 1.0],
    }


def make_meta(scan_id: str, *, split: str = "train", dataset: str = "made") -> dict[str, Any]:
    """clip.json without format_version, members and hash: a camera that circles the room's middle."""
    plan = geometry.resize_plan(640, 480)
    angles = np.linspace(0, 2 * np.pi, schema.NUM_FRAMES, endpoint=False)
    passport = {
        "codec": "tiny",
        "model_id": "made",
        "weights_sha256": "0" * 64,
        "scaling_factor": 1.0,
        "shift_factor": 0.0,
        "input_width": schema.VIEW_IMAGE_SIZE,
        "input_height": schema.VIEW_IMAGE_SIZE,
        "filter": "bilinear",
        "dtype": "float32",
        "posterior": True,
    }
    return {
        "scan_id": scan_id,
        "dataset": dataset,
        "split": split,
        "frame_indices": list(range(0, 10 * schema.NUM_FRAMES, 10)),
        "source": {"color_width": 1296, "color_height": 968, "depth_width": 640, "depth_height": 480},
        "resize": {"width": plan.width, "height": plan.height},
        "crop": {"x": plan.x, "y": plan.y, "width": plan.size, "height": plan.size},
        "depth_intrinsics": INTRINSICS,
        "color_intrinsics": COLOR_INTRINSICS,
        "world_from_cam": [camera_pose(angle).tolist() for angle in angles],
        "alignment": IDENTITY,
        "bev": {
            "present": True,
            "metres_per_pixel": 0.01,
            "world_from_bev": [[0.01, 0, 0, -2.16], [0, -0.01, 0, 2.16], [0, 0, 1, 0], [0, 0, 0, 1]],
            "height_range_m": [0.0, 2.5],
            "valid_fraction": 0.25,
            "renderer": "made",
        },
        "latents": passport,
        "bev_latents": {
            **passport,
            "filter": "none",
            "input_width": schema.BEV_SIZE,
            "input_height": schema.BEV_SIZE,
        },
        "provenance": {
            "pipeline_version": "0.1.0",
            "parameter_hash": "0123456789abcdef",
            "inputs": [{"name": f"{scan_id}.sens", "bytes": 1, "xxh3": "0" * 16}],
        },
    }


def camera_pose(yaw_rad: float, height_m: float = 1.4) -> np.ndarray:
    """(4, 4) world_from_cam: level, looking along (cos yaw, sin yaw), 0.5 m from the middle."""
    forward = np.array([np.cos(yaw_rad), np.sin(yaw_rad), 0.0])
    right = np.array([np.sin(yaw_rad), -np.cos(yaw_rad), 0.0])
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, [0.0, 0.0, -1.0], forward], axis=1)
    pose[:3, 3] = 0.5 * forward + [0, 0, height_m]
    return pose


def make_depth(seed: int = 0) -> np.ndarray:
    """(32, 384, 384) uint16 mm: tilted planes with noise; frame 1 has holes, frame 2 nothing at all."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:384, :384]
    slopes = rng.uniform(-1, 1, (schema.NUM_FRAMES, 2, 1, 1))
    depth = 2500 + slopes[:, 0] * columns + slopes[:, 1] * rows
    depth = (depth + rng.integers(-5, 6, depth.shape[1:])).astype(np.uint16)
    depth[1][rng.random((384, 384)) < 0.4] = 0
    depth[1, 54:81, 27:54] = 0  # a whole patch
    depth[2] = 0
    return depth


def make_arrays(seed: int = 0, num_moments: int = 2) -> dict[str, np.ndarray]:
    """frames, depth, bev, bev_valid (bool), latents, bev_latents of one sample."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (schema.NUM_FRAMES, 12, 12, 3), dtype=np.uint8)
    bev = np.kron(rng.integers(0, 256, (36, 36, 3)), np.ones((12, 12, 1))).astype(np.uint8)
    valid = np.zeros((schema.BEV_SIZE, schema.BEV_SIZE), bool)
    valid[108:324, 108:324] = True
    bev[~valid] = 0
    view, top = schema.VIEW_LATENT_SIZE, schema.BEV_LATENT_SIZE
    channels = schema.LATENT_CHANNELS
    return {
        "frames": coarse.repeat(32, axis=1).repeat(32, axis=2),
        "depth": make_depth(seed),
        "bev": bev,
        "bev_valid": valid,
        "latents": rng.normal(size=(schema.NUM_FRAMES, num_moments, channels, view, view)).astype(np.float16),
        "bev_latents": rng.normal(size=(num_moments, channels, top, top)).astype(np.float16),
    }


@lru_cache(maxsize=8)
def make_members(seed: int = 0, num_moments: int = 2) -> dict[str, bytes]:
    """The encoded members of one sample, all but clip.json."""
    arrays = make_arrays(seed, num_moments)
    return {
        **dict(zip(schema.FRAME_NAMES, map(codec.encode_jpeg, arrays["frames"]), strict=True)),
        "depth.npy.blosc": codec.encode_npy_blosc(arrays["depth"]),
        "bev.png": codec.encode_png(arrays["bev"]),
        "bev_valid.png": codec.encode_png(arrays["bev_valid"].astype(np.uint8) * 255),
        "latents.npy": codec.encode_npy(arrays["latents"]),
        "bev_latents.npy": codec.encode_npy(arrays["bev_latents"]),
        "objects.json": codec.encode_json(make_objects()),
        "texts.json": codec.encode_json(make_texts()),
    }


def make_sample(scan_id: str = "scene0000_00", *, split: str = "train", seed: int = 0) -> Sample:
    return Sample(f"{scan_id}-00", make_meta(scan_id, split=split), dict(make_members(seed)))


def make_release(folder: Path, num_train: int = 3, num_val: int = 1, per_shard: int = 2) -> Path:
    """Shards of `per_shard` samples and their index in folder/shards; returns that folder."""
    out = folder / "shards"
    entries = []
    for split, num_scans, inside in (("train", num_train, ""), ("val", num_val, "val/")):
        (out / inside).mkdir(parents=True, exist_ok=True)
        first = 0 if split == "train" else 5000
        ids = [f"scene{first + i:04d}_00" for i in range(num_scans)]
        for number in range(0, num_scans, per_shard):
            path = out / inside / f"scannet-{number // per_shard:06d}.tar"
            samples = [make_sample(s, split=split, seed=0) for s in ids[number : number + per_shard]]
            entry = write_shard(path, samples)
            entries.append({**entry, "file": f"{inside}{path.name}", "split": split, "inputs": ""})
    rejected = [{"scan_id": "scene0999_00", "reason": "all poses are -inf"}]
    write_index(out, build_index("made", "0123456789abcdef", entries, rejected))
    return out
