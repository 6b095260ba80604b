"""Check a whole release: root hash, shard hashes, every sample, every member decoded."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from scanshards import geometry, schema
from scanshards.clip import Clip, ReadOptions
from scanshards.errors import CorruptSample
from scanshards.files import Urls, list_shards
from scanshards.index import INDEX_NAME, load_index
from scanshards.read import read_clip
from scanshards.shardfile import SampleRef, Shard, ShardFile, open_shard

_CHUNK_BYTES = 1 << 24


@dataclass
class Report:
    """What was looked at and what was found."""

    num_shards: int = 0
    num_samples: int = 0
    num_bytes: int = 0
    root_hash: str = ""
    """Of the release, "" if shards were named rather than a release folder."""
    problems: list[CorruptSample] = field(default_factory=list)


def verify(urls: Urls, on_shard: Callable[[str], None] = lambda url: None) -> Report:
    """Check shards, or every shard of a release folder; problems are collected, not raised.

    A release folder is checked from its root hash: all listed shards are there and no others. on_shard is
    called with the name of each shard before it is read. Raises what `open` raises for names that do not
    exist and for a damaged index.
    """
    report = Report()
    shards = []
    for url in [urls] if isinstance(urls, str | Path) else list(urls):
        if Path(url).is_dir():
            report.root_hash = load_index(url)["root_hash"]
            report.problems += strangers(Path(url))
            shards += release_shards(Path(url))
        else:
            shards += list_shards(url)
    for shard in shards:
        on_shard(shard.url)
        report.num_shards += 1
        report.problems += _verify_shard(shard, report)
    return report


def release_shards(folder: Path) -> list[Shard]:
    """All shards that the folder's index lists, held-out ones too."""
    return [Shard(str(folder / row["file"]), row) for row in load_index(folder)["shards"]]


def strangers(folder: Path) -> Iterator[CorruptSample]:
    """Tars in the release that its index does not list: a glob would read them."""
    listed = {shard.url for shard in release_shards(folder)}
    for path in sorted([*folder.glob("*.tar"), *folder.glob("val/*.tar")]):
        if str(path) not in listed:
            yield CorruptSample(str(path), "", "", f"not listed in {INDEX_NAME}")


def _verify_shard(shard: Shard, report: Report) -> Iterator[CorruptSample]:
    try:
        file, samples = open_shard(shard)
    except CorruptSample as problem:
        yield problem
        return
    except FileNotFoundError:
        yield CorruptSample(shard.url, "", "", f"listed in {INDEX_NAME}, but the file is missing")
        return
    report.num_bytes += file.num_bytes
    if shard.entry is not None:
        got = _sha256(file)
        if got != shard.entry["sha256"]:
            yield CorruptSample(shard.url, "", "", f"SHA-256 is {got}, expected {shard.entry['sha256']}")
    for sample in samples:
        report.num_samples += 1
        yield from _verify_sample(file, sample)


def _verify_sample(file: ShardFile, sample: SampleRef) -> Iterator[CorruptSample]:
    try:
        clip = read_clip(file, sample, ReadOptions())
        clip.verify_members()
        check_content(clip)
    except CorruptSample as problem:
        yield problem
        return
    entry = sample.shard.entry
    if entry is not None and entry["split"] != clip.split:
        what = f"split is {clip.split!r}, expected {entry['split']!r} as in {INDEX_NAME}"
        yield CorruptSample(file.url, clip.key, schema.CLIP_JSON, what)


def check_content(clip: Clip) -> None:
    """Decode all members, check what types and sizes cannot say. CorruptSample: the first that is wrong."""
    _check_cameras(clip)
    for i in range(schema.NUM_FRAMES):
        clip.frame(i)
    for name in ("latents", "bev_latents"):
        values = clip.member(f"{name}.npy")
        num_moments, posterior = values.shape[-4], clip.meta[name]["posterior"]
        _require(clip, f"{name}.npy", bool(np.isfinite(values).all()), "holds NaN or infinity")
        what = f"m = {num_moments}, but the passport has posterior {posterior}"
        _require(clip, f"{name}.npy", num_moments == 1 + posterior, what)
    mask, present = clip.member("bev_valid.png"), clip.meta["bev"]["present"]
    _require(clip, "bev_valid.png", bool(np.isin(mask, (0, 255)).all()), "holds values other than 0 and 255")
    _require(clip, "bev_valid.png", present or not mask.any(), "is not zero, but there is no BEV")
    _require(clip, "bev.png", not clip.bev[mask == 0].any(), "is not black where bev_valid.png is 0")
    _require(
        clip, "bev_latents.npy", present or not clip.bev_latents.any(), "is not zero, but there is no BEV"
    )
    if schema.COORDS_NAME in clip.member_bytes:
        derived = geometry.coords_mm_from_coords(clip.coords)
        same = np.array_equal(clip.member(schema.COORDS_NAME), derived)
        _require(clip, schema.COORDS_NAME, same, "differs from the coordinates that follow from depth")
    for name in ("objects.json", "texts.json"):
        clip.member(name)


def _check_cameras(clip: Clip) -> None:
    """The corners of every frame have a coordinate at the largest depth."""
    far = np.full((schema.NUM_FRAMES, 2, 2), 65535, np.uint16)
    u, v = (ends[[0, -1]] for ends in geometry.source_pixels(clip.resize_plan))
    with np.errstate(over="ignore", invalid="ignore"):
        coords = geometry.unproject(far, clip.intrinsics, clip.world_from_cam, u, v)
    finite = bool(np.isfinite(coords).all())
    _require(clip, schema.CLIP_JSON, finite, "depth_intrinsics and world_from_cam give no finite coordinates")
    affine = np.array_equal(clip.world_from_cam[:, 3], [[0, 0, 0, 1]] * schema.NUM_FRAMES)
    _require(clip, schema.CLIP_JSON, affine, "the last row of a world_from_cam is not 0 0 0 1")


def _require(clip: Clip, member: str, holds: bool, what: str) -> None:
    if not holds:
        raise CorruptSample(clip.file, clip.key, member, what)


def _sha256(file: ShardFile) -> str:
    digest = hashlib.sha256()
    for offset in range(0, file.num_bytes, _CHUNK_BYTES):
        digest.update(file.read(offset, _CHUNK_BYTES))
    return digest.hexdigest()
