"""What two groups compare that built a release from the same scans and may not show each other the scans.

mine, theirs = receipt("shards"), json.load(open("theirs.json"))
for difference in compare_receipts(mine, theirs): ...

A receipt is small JSON: the root hash, versions, and for each kind of member one hash over that member in all
samples. Equal root hashes mean equal bytes. Where they differ, the hashes of the kinds say what differs, and
the receipt says of which kinds that may be: pictures drawn by a graphics driver, latents computed on a GPU.
Whoever holds both releases gets by how much from `compare_releases`.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from scanshards import schema
from scanshards.clip import Clip
from scanshards.index import load_index
from scanshards.read import open as open_clips

RECEIPT_VERSION = 1
DRAWN = ("bev.png", "bev_valid.png")
COMPUTED = ("latents.npy", "bev_latents.npy")
WHY = {
    **dict.fromkeys(DRAWN, "drawn by OpenGL: drivers round differently at edges"),
    "latents.npy": "computed by a neural network: processors and libraries round differently",
    "bev_latents.npy": "follows from bev.png and rounds as latents.npy does",
}
_APART = ("members", "xxh3", "provenance", "bev", "latents", "bev_latents")
"""Keys of clip.json that follow from other members or are compared by themselves."""
_MUST_AGREE = {
    "format_version": "",
    "dataset": "",
    "parameter_hash": "built with other parameters",
    "inputs": "the scans are not the same files, or not all of them",
    "totals": "",
    "rejected": "",
}
_LISTED = {
    "versions": "bytes of JPEG, PNG and Blosc depend on versions: build with the same",
    "renderers": "BEV pictures depend on it",
    "codecs": "latents of other weights or another form",
}
FRAMES = "frame00.jpg … frame31.jpg"
"""The 32 frames are compared as one kind."""


@dataclass(frozen=True)
class Difference:
    """One line of a comparison."""

    what: str
    """A key of the receipt, or a kind of member."""
    ours: str
    theirs: str
    may_differ: bool
    """True: expected between machines; False: the releases were not built from the same by the same."""
    why: str = ""


@dataclass(frozen=True)
class MemberDifference:
    """By how much one kind of member differs between two releases."""

    member: str
    num_samples: int
    """Samples in which its bytes differ."""
    max_abs: float
    """Largest difference of two numbers: levels, millimetres, or units of the latents; NaN for JSON."""
    mean_abs: float
    """Over all numbers of the samples that differ."""
    share: float
    """Numbers that differ, of all numbers of the samples that differ."""


def receipt(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The receipt of a release folder: a pure function of its shards and index, as JSON.

    Every clip.json is read and checked; `verify` checks the other members against the hashes that are used
    here. FileNotFoundError: no index.json, or a shard is missing. CorruptSample: damage.
    """
    index = load_index(folder)
    digests: dict[str, xxhash.xxh3_128] = {}
    inputs = xxhash.xxh3_128()
    facts: dict[str, Counter[str]] = {name: Counter() for name in ("pipeline", "renderer")}
    passports: dict[str, Counter[str]] = {"latents": Counter(), "bev_latents": Counter()}
    for clip in _clips(folder, ()):  # clip.json alone
        facts["pipeline"][clip.meta["provenance"]["pipeline_version"]] += 1
        facts["renderer"][clip.meta["bev"]["renderer"] or "none"] += 1
        for name, counts in passports.items():
            counts[json.dumps(clip.meta[name])] += 1
        inputs.update(f"{clip.scan_id} {json.dumps(clip.meta['provenance']['inputs'])}\n".encode())
        for kind, mark in _marks(clip):
            digests.setdefault(kind, xxhash.xxh3_128()).update(f"{clip.key} {mark}\n".encode())
    return {
        "receipt_version": RECEIPT_VERSION,
        **{name: index[name] for name in ("format_version", "dataset", "root_hash", "parameter_hash")},
        "inputs": inputs.hexdigest(),
        "totals": index["totals"],
        "rejected": len(index["rejected"]),
        "versions": {"pipeline": ", ".join(sorted(facts["pipeline"])), **index["versions"]},
        "renderers": dict(sorted(facts["renderer"].items())),
        "codecs": {name: [json.loads(text) for text in sorted(c)] for name, c in passports.items()},
        "members": {kind: digest.hexdigest() for kind, digest in digests.items()},
        "may_differ": {kind: WHY[kind] for kind in (*DRAWN, *COMPUTED)},
    }


def compare_receipts(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[Difference]:
    """What differs between two receipts, [] if the releases are equal byte for byte.

    ValueError: one is no receipt of this version.
    """
    for value in (ours, theirs):
        got = value.get("receipt_version") if isinstance(value, Mapping) else type(value).__name__
        if got != RECEIPT_VERSION or not isinstance(value.get("members"), Mapping):
            raise ValueError(f"got receipt_version {got!r}, expected {RECEIPT_VERSION}; make it again")
    if ours.get("root_hash") == theirs.get("root_hash"):
        return []
    found = [
        Difference(name, _short(ours.get(name)), _short(theirs.get(name)), False, why)
        for name, why in _MUST_AGREE.items()
        if ours.get(name) != theirs.get(name)
    ]
    for name, why in _LISTED.items():
        mine, other = ours.get(name, {}), theirs.get(name, {})
        for key in sorted({*mine, *other}):
            if mine.get(key) != other.get(key):
                parts = f"{name}: {key}", _short(mine.get(key)), _short(other.get(key))
                found.append(Difference(*parts, name == "renderers", why))
    members = {*ours["members"], *theirs["members"]}
    for kind in sorted(members, key=lambda kind: (kind in WHY, kind)):
        mine, other = ours["members"].get(kind), theirs["members"].get(kind)
        if mine != other:
            found.append(Difference(kind, _short(mine), _short(other), kind in WHY, WHY.get(kind, "")))
    return found


def compare_releases(
    ours: str | os.PathLike[str], theirs: str | os.PathLike[str]
) -> Iterator[MemberDifference]:
    """By how much each kind of member differs in the samples that both hold; equal kinds are left out.

    ValueError: they have no sample in common.
    """
    others = {clip.key: clip for clip in _clips(theirs)}
    gaps: dict[str, list[_Gap]] = {}
    num_common = 0
    for clip in _clips(ours):
        other = others.pop(clip.key, None)
        if other is None:
            continue
        num_common += 1
        for name in {**clip.member_bytes, **other.member_bytes}:
            gap = _gap(clip, other, name)
            if gap is not None:
                gaps.setdefault(FRAMES if name in schema.FRAME_NAMES else name, []).append(gap)
    if not num_common:
        raise ValueError(
            f"{ours} and {theirs} have no sample in common, expected two builds of the same scans"
        )
    for kind, parts in gaps.items():
        numbers = sum(part.num_numbers for part in parts) or math.nan
        yield MemberDifference(
            kind,
            len({part.key for part in parts}),
            max(part.max_abs for part in parts),
            sum(part.sum_abs for part in parts) / numbers,
            sum(part.num_other for part in parts) / numbers,
        )


@dataclass(frozen=True)
class _Gap:
    """One member of one sample that differs; without numbers (JSON, another shape) max_abs is NaN."""

    key: str
    num_numbers: int = 0
    num_other: int = 0
    max_abs: float = math.nan
    sum_abs: float = 0.0


def _gap(ours: Clip, theirs: Clip, name: str) -> _Gap | None:
    """None: the member is the same in both."""
    if name == schema.CLIP_JSON:
        return None if _own_facts(ours) == _own_facts(theirs) else _Gap(ours.key)
    if name not in ours.member_bytes or name not in theirs.member_bytes:
        return _Gap(ours.key)
    if ours.stored(name) == theirs.stored(name):
        return None
    if schema.MEMBERS[name].kind == "json":
        return _Gap(ours.key)
    mine, other = (np.asarray(clip.member(name), np.float64) for clip in (ours, theirs))
    if mine.shape != other.shape:
        return _Gap(ours.key)
    apart = np.abs(mine - other)
    return _Gap(ours.key, apart.size, int(np.count_nonzero(apart)), float(apart.max()), float(apart.sum()))


def _marks(clip: Clip) -> Iterator[tuple[str, str]]:
    """(kind of member, what stands for its content) of a sample."""
    yield schema.CLIP_JSON, json.dumps(_own_facts(clip))
    frames = [row["xxh3"] for row in clip.meta["members"] if row["name"] in schema.FRAME_NAMES]
    yield FRAMES, " ".join(frames)
    for row in clip.meta["members"]:
        if row["name"] not in schema.FRAME_NAMES:
            yield row["name"], row["xxh3"]


def _own_facts(clip: Clip) -> dict[str, Any]:
    """What clip.json says that no other member says: geometry, names, sizes."""
    return {name: value for name, value in clip.meta.items() if name not in _APART}


def _clips(folder: str | os.PathLike[str], fields: tuple[str, ...] | None = None) -> Iterator[Clip]:
    """Every clip of a release, in the order of its index."""
    rows = load_index(folder)["shards"]
    return iter(open_clips([Path(folder) / row["file"] for row in rows], fields=fields))


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else f"{text[:197]}..."
