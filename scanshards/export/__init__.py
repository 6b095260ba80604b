"""Convert shards to the layouts of other projects (docs/export.md says what each holds).

    from scanshards.export import export

    export("shards/*.tar", "out", "nerfstudio")

An export is written piece by piece under temporary names and ends with `export.json`. Started again after an
interruption it goes on; the same shards and options give the same bytes. Clips are verified as they are read.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

import xxhash

from scanshards.clip import Clip
from scanshards.export import mds, nerfstudio, video3dllm
from scanshards.export.camera import Raster
from scanshards.export.folder import ExportFolder
from scanshards.files import Urls
from scanshards.read import open as open_clips

Target = Literal["video3dllm", "mds", "nerfstudio"]

TARGETS: tuple[Target, ...] = get_args(Target)
RASTERS: tuple[Raster, ...] = get_args(Raster)

_WRITERS = {"video3dllm": video3dllm.write, "mds": mds.write, "nerfstudio": nerfstudio.write}


def export(
    urls: Urls,
    out: str | os.PathLike[str],
    to: Target,
    *,
    raster: Raster = "crop",
    on_clip: Callable[[Clip], None] = lambda clip: None,
) -> int:
    """Write all clips of the shards to the folder `out` in the layout `to`; returns their number.

    raster: "crop" keeps the stored 384x384 pictures as they are and adjusts the intrinsics; "source" puts
    them back at their place in the recorded picture, which makes the geometry exact (video3dllm only).
    on_clip is called with each clip before it is written. ValueError: an unknown target or raster, `out`
    holds something else, clips that cannot live in one export. CorruptSample: damage.
    """
    if to not in TARGETS or raster not in RASTERS:
        raise ValueError(
            f"got to={to!r}, raster={raster!r}, expected one of {', '.join(TARGETS)} and {', '.join(RASTERS)}"
        )
    if raster == "source" and to != "video3dllm":
        raise ValueError(f"raster='source' with to={to!r}: only video3dllm has it, expected raster='crop'")
    num_clips, contents = _contents(urls)
    request = {"target": to, "raster": raster, "clips": num_clips, "contents": contents}
    folder = ExportFolder(Path(out), request)
    if not folder.finished:
        clips = (_told(clip, on_clip) for clip in open_clips(urls))
        folder.finish(_WRITERS[to](clips, folder, raster))
    return num_clips


def _contents(urls: Urls) -> tuple[int, str]:
    """Number of clips and a hash over them. ValueError: a key twice, clips of one scan that are apart."""
    digest = xxhash.xxh3_128()
    keys: set[str] = set()
    scans: set[str] = set()
    clips = open_clips(urls, fields=())
    for scan_id, members in itertools.groupby(clips, lambda clip: clip.scan_id):
        for clip in members:
            if clip.key in keys:
                raise ValueError(f"{clip.file}: sample {clip.key} was there before, expected every clip once")
            keys.add(clip.key)
            digest.update(f"{clip.key} {clip.meta['xxh3']}\n".encode())
        if scan_id in scans:
            raise ValueError(f"{scan_id}: its clips are not next to each other, expected one shard per scan")
        scans.add(scan_id)
    return len(keys), digest.hexdigest()


def _told(clip: Clip, on_clip: Callable[[Clip], None]) -> Clip:
    on_clip(clip)
    return clip
