"""Writes `report/index.html`: one page that shows what was built, read back through the public reader.

    python -m pipeline.run report [shards.out=… work=…]

The page holds all it needs; it loads nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

import scanshards
from pipeline import latents
from pipeline import report_page as html
from pipeline.config import Config
from pipeline.report_checks import checks_section
from pipeline.report_facts import read_facts, sample_depth
from pipeline.report_gallery import bev_gallery
from pipeline.report_quality import MAX_OPEN_ROWS, frames_section, quality_section, rejected_section
from pipeline.report_scan import Decode, Section, scan_section
from pipeline.report_times import times_section
from pipeline.report_training import scores_section, training_section
from pipeline.stages import stores
from scanshards import Clip
from scanshards.index import load_index, root_hash
from scanshards.write import atomic_write_bytes

MAX_SHOWN = 12
"""So many clips are shown in full; the others are rows of a table."""
MAX_HELD_OUT_SHOWN = 4
LINKS = {
    "checks": "Before you train",
    "quality": "Quality",
    "bevs": "From above",
    "frames": "Frames",
    "rejected": "Rejected",
    "times": "Times",
    "scans": "Scans",
    "training": "Training",
    "scores": "Scores",
    "others": "All clips",
}
"""Anchor of each part -> its name in the head of the page."""


def build_report(
    config: Config, out: Path = Path("report"), run_dir: Path | None = Path("runs/latest")
) -> Path:
    """Write the page about the shards of `config` and the run in `run_dir`, if any; returns its path.

    ValueError: there are no shards. CorruptSample: a shard that is shown is damaged.
    """
    root = Path(config.shards.out)
    if not (root / "index.json").is_file():
        raise ValueError(f"no shards in {root}: got no index.json; run `python -m pipeline.run all` first")
    index = load_index(root)
    sections, meta = _sections(root, index, config)
    facts = read_facts(config)
    sampled = sample_depth(facts, config)
    shown = {section.key for section in sections}
    parts = {
        "checks": checks_section(facts, sampled),
        "quality": quality_section(facts, sampled),
        "bevs": bev_gallery(facts, stores(config)["bev"], shown),
        "frames": frames_section(facts),
        "rejected": rejected_section(index["rejected"], facts),
        "times": times_section(config.work_dir / "times"),
        "scans": html.gallery(sections),
        "training": training_section(run_dir, _train_hash(index)) if run_dir else "",
        "scores": scores_section(run_dir, _train_hash(index)) if run_dir else "",
        "clips": "".join(section.html for section in sections),
        "others": _other_samples(index, shown),
    }
    links = {anchor: name for anchor, name in LINKS.items() if parts[anchor]}
    title = f"{index['dataset']} as shards"
    head = html.header(title, _lead(index), _totals(index), _details(root, index, meta), links)
    out.mkdir(parents=True, exist_ok=True)
    path = out / "index.html"
    atomic_write_bytes(path, html.page(title, [head, *parts.values()]).encode())
    return path


def _train_hash(index: dict[str, Any]) -> str:
    """Root hash of the shards for training alone, as a run that took them all records it."""
    return root_hash(shard for shard in index["shards"] if shard["split"] == "train")


def _sections(root: Path, index: dict[str, Any], config: Config) -> tuple[list[Section], dict[str, Any]]:
    """Sections of the clips that are shown, and clip.json of the first of them."""
    num_val = sum(len(shard["samples"]) for shard in index["shards"] if shard["split"] == "val")
    num_train = index["totals"]["samples"] - num_val
    held_out = min(num_val, max(MAX_HELD_OUT_SHOWN, MAX_SHOWN - num_train))
    clips = chain(
        _first_clips(root, index, "val", held_out), _first_clips(root, index, "train", MAX_SHOWN - held_out)
    )
    sections: list[Section] = []
    meta: dict[str, Any] = {}
    decode: Decode | str = ""
    total = min(MAX_SHOWN, index["totals"]["samples"])
    for clip in track(clips, "report", total=total, console=Console(stderr=True)):
        if not meta:
            meta = clip.meta
            decode = _decoder(config, meta["latents"])
        sections.append(scan_section(clip, decode))
    return sorted(sections, key=lambda section: (section.split == "train", section.key)), meta


def _first_clips(root: Path, index: dict[str, Any], split: str, count: int) -> Iterator[Clip]:
    """The first clips of a split, one at a time; only the shards that hold them are opened."""
    files = (str(root / shard["file"]) for shard in index["shards"] if shard["split"] == split)
    yield from islice(chain.from_iterable(scanshards.open(file) for file in files), count)


def _decoder(config: Config, passport: dict[str, Any]) -> Decode | str:
    """A function from latents to pictures, or why there is none (another codec would show nonsense)."""
    try:
        codec = latents.load_codec(config.latents)
    except (ValueError, OSError) as error:
        return str(error)
    own = codec.passport(passport["input_width"], passport["input_height"])
    if own["weights_sha256"] != passport["weights_sha256"]:
        return (
            f"the shards hold latents of {passport['codec']} ({passport['weights_sha256'][:12]}), the"
            f" parameters name {own['codec']} ({own['weights_sha256'][:12]}); set latents.codec and"
            " latents.weights"
        )

    def decode(stored: NDArray[np.float16]) -> NDArray[np.uint8]:
        return codec.decode(torch.from_numpy(stored.astype(np.float32)))

    return decode


def _lead(index: dict[str, Any]) -> str:
    return (
        f"Built by scanshards {index['versions']['scanshards']}; this page reads it back through its reader."
    )


def _totals(index: dict[str, Any]) -> dict[str, str]:
    totals = index["totals"]
    return {
        "scans": f"{totals['scans']:,}",
        "clips of 32 frames": f"{totals['samples']:,}",
        "shards": f"{totals['shards']:,}",
        "in all": html.size_text(totals["bytes"]),
        "rejected scans": f"{len(index['rejected']):,}",
    }


def _details(root: Path, index: dict[str, Any], meta: dict[str, Any]) -> dict[str, str]:
    details = {
        "folder": str(root),
        "root hash": index["root_hash"][:16],
        "parameters": index["parameter_hash"],
    }
    if meta:
        details["codec"] = f"{meta['latents']['codec']} ({meta['latents']['model_id']})"
        details["BEV by"] = meta["bev"]["renderer"] or "none"
    return details | index["versions"]


def _other_samples(index: dict[str, Any], shown: Collection[str]) -> str:
    rows = [
        (sample["key"], shard["split"], shard["file"], html.size_text(sample["bytes"]))
        for shard in index["shards"]
        for sample in shard["samples"]
        if sample["key"] not in shown
    ]
    if not rows:
        return ""
    table = html.bare_table(("clip", "split", "shard", "size"), rows)
    state = " open" if len(rows) <= MAX_OPEN_ROWS else ""
    return (
        f'<section id="others"><h2>Clips not shown in full</h2><details{state}><summary>{len(rows):,} clips'
        f"</summary>{table}</details></section>"
    )
