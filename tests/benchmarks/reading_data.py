"""What `reading.py` reads: the same clips as shards, exported files, MDS and LitData, all below FOLDER.

    rooms/         shards of a few embedded rooms at ScanNet's sizes, made by the pipeline
    shards/        their samples under many ids, as many scans would give them
    posed_images/  the chosen frames of the rooms as the published exporter writes them
    mds/ litdata/  full/ (what the shards hold) and latents/ (latents and texts alone)

What is there is kept, so that a second run starts at once.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

import scanshards
from pipeline.config import load_config
from pipeline.run import run
from pipeline.scans import read_inventory
from pipeline.sources import open_source
from scanshards import schema
from scanshards.clip import Clip
from scanshards.export import export
from scanshards.index import build_index, write_index
from scanshards.write import Sample, write_shard

SHARD_CLIPS = 16
FULL_SHARDS = 2
"""Whole clips are read from the first two shards (webdataset gives each loader worker shards of its own)."""
EXPORTED_JPEG_QUALITY = 75
"""What imageio and Pillow write when they are not told (docs/data.md)."""
COLOR = (1296, 968)


def make(folder: Path, num_rooms: int, num_shards: int) -> None:
    """Make what is missing. Rendering takes about half a minute a room."""
    if not (folder / "rooms" / "index.json").exists():
        make_rooms(folder, num_rooms)
    rooms = list(scanshards.open(folder / "rooms" / "*.tar"))
    once(folder / "shards", lambda out: repeat_rooms(rooms, out, num_shards))
    once(folder / "posed_images", lambda out: export_frames(rooms, folder / "work" / "scans.json", out))
    once(folder / "mds" / "full", lambda out: export(full_shards(folder), out, "mds"))


def full_shards(folder: Path) -> list[str]:
    return all_shards(folder)[:FULL_SHARDS]


def all_shards(folder: Path) -> list[str]:
    return sorted(map(str, (folder / "shards").glob("*.tar")))


def make_rooms(folder: Path, count: int) -> None:
    sizes = [f"synth.color_width={COLOR[0]}", f"synth.color_height={COLOR[1]}"]
    places = [f"work={folder / 'work'}", f"shards.out={folder / 'rooms'}", "dask.scheduler=none"]
    counts = [f"synth.train_rooms={count}", "synth.val_rooms=0", "shards.count=1"]
    stages = ["synth", "scans", "clips", "meshes", "bev", "latents", "texts", "shards"]
    for _ in run(stages, load_config([*sizes, *places, *counts], None)):
        pass


def repeat_rooms(rooms: list[Clip], out: Path, num_shards: int) -> None:
    """Shards of `SHARD_CLIPS` samples: the rooms' in turn, each under an id of its own."""
    out.mkdir()
    entries = []
    for number in range(num_shards):
        names = range(number * SHARD_CLIPS, (number + 1) * SHARD_CLIPS)
        entry = write_shard(
            out / f"scannet-{number:06d}.tar", (rename(rooms[k % len(rooms)], k) for k in names)
        )
        entries.append({**entry, "split": "train", "inputs": "0" * 16})
    write_index(out, build_index("benchmark", "0" * 16, entries, []))


def rename(clip: Clip, number: int) -> Sample:
    """The sample of another scan with the same content."""
    scan_id = f"scene{number:04d}_00"
    meta = {k: v for k, v in clip.meta.items() if k not in ("format_version", "members", "xxh3")}
    names = [name for name in clip.member_bytes if name != schema.CLIP_JSON]
    members = {name: bytes(clip.stored(name)) for name in names}
    return Sample(f"{scan_id}-00", {**meta, "scan_id": scan_id}, members)


def export_frames(rooms: list[Clip], inventory: Path, out: Path) -> None:
    """OUT/{room}/00000.jpg, .png and .txt of each chosen frame, the depth intrinsics and the alignment."""
    entries = {entry.scan_id: entry for entry in read_inventory(inventory).scans}
    for number, clip in enumerate(rooms):
        room = out / str(number)
        room.mkdir(parents=True)
        with open_source(entries[clip.scan_id]) as recording:
            for index in map(int, clip.frame_indices):
                Image.fromarray(recording.color(index)).save(
                    room / f"{index:05d}.jpg", quality=EXPORTED_JPEG_QUALITY
                )
                cv2.imwrite(str(room / f"{index:05d}.png"), recording.depth(index))
                np.savetxt(room / f"{index:05d}.txt", recording.poses[index], "%f")
            np.savetxt(room / "depth_intrinsic.txt", recording.depth_intrinsics)
            np.savetxt(room / "alignment.txt", recording.alignment)


def full_samples(folder: Path) -> Iterator[dict]:
    """What is read of whole clips: encoded pictures, raw arrays, texts as JSON."""
    for clip in scanshards.open(full_shards(folder)):
        yield {
            "key": clip.key,
            **dict(zip(schema.FRAME_NAMES, clip.frame_jpegs(), strict=True)),
            "depth": clip.depth,
            "patch_coords": clip.patch_coords(),
            **_latent_columns(clip),
        }


def latent_samples(folder: Path) -> Iterator[dict]:
    """Latents and texts of all clips."""
    for clip in scanshards.open(all_shards(folder)):
        yield {"key": clip.key, **_latent_columns(clip)}


def _latent_columns(clip: Clip) -> dict:
    return {"latents": clip.latents, "texts": json.dumps(clip.texts)}


def once(out: Path, make_it) -> None:
    """Make a folder under another name and rename it when it is whole."""
    if out.exists():
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f"{out.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    make_it(temporary)
    temporary.replace(out)
