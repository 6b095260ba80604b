"""The dataset card of a release: README.md with front matter for Hugging Face."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from scanshards import schema
from scanshards.schema import Field

Index = Mapping[str, Any]

SPLITS = ("train", "val")

_SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M")
"""Hugging Face's classes of size: below 1,000, and so on by tens."""
_HF_TYPES = {"int": "int64", "float": "float64", "string": "string", "bool": "bool"}


def dataset_card(index: Index) -> str:
    """README.md: front matter for Hugging Face, then what the release is and how it is read."""
    num_samples = index["totals"]["samples"]
    matter: dict[str, Any] = {
        "pretty_name": index["dataset"],
        "license": "other",
        "size_categories": [_SIZES[min(max(len(str(num_samples)) - 3, 0), len(_SIZES) - 1)]],
        "tags": ["3D", "RGB-D", "webdataset"],
        "configs": [{"config_name": "default", "data_files": _data_files(index)}],
        "dataset_info": {"features": hf_features()},
    }
    # JSON is YAML, and one line a key stays readable.
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in matter.items()]
    return "\n".join(["---", *lines, "---", "", *_card_body(index)]) + "\n"


def hf_features() -> list[dict[str, Any]]:
    """Columns of Hugging Face's webdataset loader, in the form of a card's `dataset_info.features`.

    Without them the types are guessed from the first samples, where a list may be empty. A member that is
    absent is null.
    """
    features: list[dict[str, Any]] = []
    for name, member in schema.MEMBERS.items():
        if member.kind == "json":
            features.append({"name": name, **_hf_json(schema.TABLES[name])})
        elif member.kind == "npy":
            features.append({"name": name, **_hf_lists(len(member.shape), "float16")})
        else:
            kind = "image" if member.kind in ("jpeg", "png") else "binary"
            features.append({"name": name, "dtype": kind})
    return [*features, *({"name": name, "dtype": "string"} for name in ("__key__", "__url__"))]


def _hf_json(fields: Sequence[Field]) -> dict[str, Any]:
    """The type of a JSON member."""
    if fields[0].path.startswith("[]."):
        return {"list": _hf_struct([(field.path[3:], field) for field in fields])}
    return {"struct": _hf_struct([(field.path, field) for field in fields])}


def _hf_struct(paths: list[tuple[str, Field]]) -> list[dict[str, Any]]:
    """Fields of one object; paths are relative to it."""
    groups: dict[str, list[tuple[str, Field]]] = {}
    for path, field in paths:
        head, _, rest = path.partition(".")
        groups.setdefault(head, []).append((rest, field))
    columns: list[dict[str, Any]] = []
    for head, members in groups.items():
        rest, field = members[0]
        if not rest:
            columns.append({"name": head, **_hf_lists(len(field.shape), _HF_TYPES[field.type])})
        elif head.endswith("[]"):
            columns.append({"name": head[:-2], "list": _hf_struct(members)})
        else:
            columns.append({"name": head, "struct": _hf_struct(members)})
    return columns


def _hf_lists(depth: int, dtype: str) -> dict[str, Any]:
    """Lists in lists of a number type."""
    if depth == 0:
        return {"dtype": dtype}
    return {"list": dtype if depth == 1 else _hf_lists(depth - 1, dtype)}


def _data_files(index: Index) -> list[dict[str, Any]]:
    return [{"split": split, "path": shards_of(index, split)} for split in SPLITS if shards_of(index, split)]


def shards_of(index: Index, split: str) -> list[str]:
    """Files of a split, in the order of the index."""
    return [shard["file"] for shard in index["shards"] if shard["split"] == split]


def summary(index: Index) -> str:
    """What the release is, in one sentence."""
    totals = index["totals"]
    return (
        f"{totals['samples']} clips of {totals['scans']} RGB-D scans in {totals['shards']} shards: 32 posed "
        "frames each with depth, a view from above, latents, objects and texts, for 3D multimodal language "
        "models."
    )


def _card_body(index: Index) -> list[str]:
    clips = Counter(dict.fromkeys(SPLITS, 0))
    for shard in index["shards"]:
        clips[shard["split"]] += len(shard["samples"])
    rows = [f"| {split} | {len(shards_of(index, split))} | {clips[split]} |" for split in SPLITS]
    versions = ", ".join(f"{name} {version}" for name, version in index["versions"].items())
    first = index["shards"][0]["file"] if index["shards"] else "scannet-000000.tar"
    return [
        f"# {index['dataset']}",
        "",
        summary(index),
        "",
        "| split | shards | clips |",
        "|---|---|---|",
        *rows,
        "",
        f"- bytes: {index['totals']['bytes']}",
        f"- scans set aside: {len(index['rejected'])} (`index.json` says why)",
        f"- format version: {index['format_version']}",
        f"- parameter hash: `{index['parameter_hash']}`",
        f"- root hash: `{index['root_hash']}`",
        f"- written with {versions}",
        "",
        "The licence is that of the scans that this was made from; it goes with every copy.",
        "",
        "## Reading",
        "",
        "```python",
        "import scanshards                                    # verified, lazy, with coordinates",
        f'clip = next(iter(scanshards.open("{first}")))',
        "clip.frames, clip.depth, clip.coords, clip.texts",
        "```",
        "",
        "The same files are read by plain `webdataset`, by `datasets.load_dataset` and by Megatron Energon.",
        "The format is described in `docs/format.md` of scanshards.",
    ]
