"""The inventory of scans: which there are, which files each brings, and to which split it belongs.

It looks at names, sizes and modification times only: 1.3 TB of scans are listed in seconds. DVC and the
later stages depend on the result, `work/scans.json`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import xxhash

from pipeline.config import Config
from scanshards import schema
from scanshards.write import atomic_write_bytes

ROLES = {
    "sens": "{id}.sens",
    "meta": "{id}.txt",
    "mesh": "{id}_vh_clean_2.ply",
    "segs": "{id}_vh_clean_2.0.010000.segs.json",
    "aggregation": "{id}.aggregation.json",
}
"""File of each role in a ScanNet scan folder (layout of the release: `SCAN/SCAN_…`)."""

LABEL_TABLE = "scannetv2-labels.combined.tsv"
SPLIT_LISTS = {
    "train": "scannetv2_train.txt",
    "val": "scannetv2_val.txt",
    "test": "scannetv2_test.txt",
}


@dataclass(frozen=True)
class FileStamp:
    name: str
    bytes: int
    mtime_ns: int

    @staticmethod
    def of(path: Path, base: Path) -> FileStamp:
        stat = path.stat()
        return FileStamp(path.relative_to(base).as_posix(), stat.st_size, stat.st_mtime_ns)


@dataclass(frozen=True)
class ScanEntry:
    """One scan as found on disk; `files` maps a role of `ROLES` to what was found."""

    scan_id: str
    directory: str
    files: dict[str, FileStamp]
    split: Literal["train", "val"]
    source: str

    def path(self, role: str) -> Path | None:
        stamp = self.files.get(role)
        return None if stamp is None else Path(self.directory) / stamp.name


@dataclass(frozen=True)
class Inventory:
    scans: list[ScanEntry]
    annotations: list[FileStamp]
    """Annotation files below `texts.root`, relative to it."""
    labels: str
    """Path of the label table; empty: none was found."""
    labels_stamp: FileStamp | None


def file_fingerprint(path: Path) -> dict[str, Any]:
    """Name, size and XXH3-64 of a whole file, as `provenance.inputs` lists it."""
    stat = path.stat()
    return {
        "name": path.name,
        "bytes": stat.st_size,
        "xxh3": _file_xxh3(path, stat.st_mtime_ns, stat.st_size),
    }


@lru_cache(maxsize=256)
def _file_xxh3(path: Path, mtime_ns: int, size: int) -> str:
    # Annotation files are shared by all scans; the stamp tells when one was replaced.
    return xxhash.xxh3_64_hexdigest(path.read_bytes())


def take_inventory(config: Config) -> Inventory:
    """List the scans below `scans.root`. ValueError: no such folder, no scan in it, or a bad split list."""
    root = config.scans_dir
    if not root.is_dir():
        raise ValueError(f"scans.root: no folder {root}; set scans.root=… to the folder that holds the scans")
    held_out = _held_out(config, root)
    scans = [
        ScanEntry(folder.name, str(folder), files, "val" if folder.name in held_out else "train", "scannet")
        for folder in sorted(p for p in root.iterdir() if p.is_dir())
        if "sens" in (files := _files(folder))
    ]
    for entry in scans:
        if not schema.KEY_PATTERN.fullmatch(f"{entry.scan_id}-00"):
            raise ValueError(
                f"{entry.directory}: got the scan id {entry.scan_id!r}, expected letters, digits, _ and - "
                "only; rename the folder and the files in it"
            )
    if not scans:
        raise ValueError(f"scans.root: no scan in {root}, expected folders SCAN/SCAN.sens")
    annotations_dir = config.annotations_dir
    if annotations_dir is not None and not annotations_dir.is_dir():
        raise ValueError(f"texts.root: no folder {annotations_dir}; set texts.root= (empty) for no texts")
    annotations = (
        []
        if annotations_dir is None
        else [FileStamp.of(p, annotations_dir) for p in sorted(annotations_dir.rglob("*.json"))]
    )
    labels = _beside(root, LABEL_TABLE)
    return Inventory(
        scans,
        annotations,
        "" if labels is None else str(labels),
        None if labels is None else FileStamp.of(labels, labels.parent),
    )


def write_inventory(path: Path, inventory: Inventory) -> None:
    """Write the inventory as JSON (same scans, same bytes)."""
    atomic_write_bytes(path, (json.dumps(asdict(inventory), indent=1) + "\n").encode())


def read_inventory(path: Path) -> Inventory:
    """Read what `write_inventory` wrote. ValueError names the command that makes it."""
    if not path.exists():
        raise ValueError(f"no {path}: run `python -m pipeline.run scans` first")
    tree = json.loads(path.read_text())
    return Inventory(
        [
            ScanEntry(**{**scan, "files": {role: FileStamp(**s) for role, s in scan["files"].items()}})
            for scan in tree["scans"]
        ],
        [FileStamp(**stamp) for stamp in tree["annotations"]],
        tree["labels"],
        _stamp_or_none(tree["labels_stamp"]),
    )


def _stamp_or_none(tree: dict[str, Any] | None) -> FileStamp | None:
    return None if tree is None else FileStamp(**tree)


def _files(folder: Path) -> dict[str, FileStamp]:
    paths = {role: folder / name.format(id=folder.name) for role, name in ROLES.items()}
    return {role: FileStamp.of(path, folder) for role, path in paths.items() if path.is_file()}


def _beside(root: Path, name: str) -> Path | None:
    """A file of the release that lies in the scans folder or next to it."""
    return next((p for p in (root / name, root.parent / name) if p.is_file()), None)


def _held_out(config: Config, root: Path) -> frozenset[str]:
    """Ids of `scans.val`, else of ScanNet's val and test lists where present, else none."""
    if config.scans.val:
        path = Path(config.scans.val)
        if not path.is_file():
            raise ValueError(f"scans.val: no file {path}, expected a list of scan ids, one a line")
        if not {folder.name for folder in root.iterdir()} & set(path.read_text().split()):
            raise ValueError(f"scans.val: no id in {path} is a scan in {root}, expected one id a line")
        paths = [path]
    else:
        paths = [p for split in ("val", "test") if (p := _beside(root, SPLIT_LISTS[split])) is not None]
    return frozenset(line.strip() for path in paths for line in path.read_text().splitlines() if line.strip())
