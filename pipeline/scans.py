"""The inventory of scans: which there are, which files each brings, and to which split it belongs.

It looks at names, sizes and modification times only: 1.3 TB of scans are listed in seconds. DVC and the
later stages depend on the result, `work/scans.json`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import xxhash

from pipeline.config import Config
from pipeline.proposals import FILE_NAME as PROPOSALS_NAME
from pipeline.sources import find_scans, layouts
from scanshards import schema
from scanshards.write import atomic_write_bytes

EXTRAS = {
    "meta": "{id}.txt",
    "mesh": "{id}_vh_clean_2.ply",
    "segs": "{id}_vh_clean_2.0.010000.segs.json",
    "aggregation": "{id}.aggregation.json",
}
"""File of each role beside the recording, whatever its layout (names of ScanNet's release)."""

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
class FilesStamp(FileStamp):
    """Many files of a folder in one stamp: bytes in all, the newest time. `name` is the folder's: `.`"""

    num_files: int
    listing: str
    """XXH3-64 of all names, sizes and times."""

    @staticmethod
    def of_matching(folder: Path, pattern: re.Pattern[str], others: Iterable[Path] = ()) -> FilesStamp | None:
        """The files in `folder` whose whole name matches, and of `others` those that exist.

        None if no name matches.
        """
        with os.scandir(folder) as listing:
            matching = [item for item in listing if pattern.fullmatch(item.name) and item.is_file()]
            found = sorted((item.name, item.stat()) for item in matching)
        if not found:
            return None
        found += [(os.path.relpath(path, folder), path.stat()) for path in others if path.is_file()]
        lines = "".join(f"{name}\0{file.st_size}\0{file.st_mtime_ns}\n" for name, file in found)
        return FilesStamp(
            name=".",
            bytes=sum(file.st_size for _, file in found),
            mtime_ns=max(file.st_mtime_ns for _, file in found),
            num_files=len(found),
            listing=xxhash.xxh3_64_hexdigest(lines.encode("utf-8", "surrogateescape")),
        )


@dataclass(frozen=True)
class FoundScan:
    """What a layout says of a scan: `files` are those of its recording."""

    scan_id: str
    directory: Path
    files: dict[str, FileStamp]


@dataclass(frozen=True)
class ScanEntry:
    """One scan as found on disk.

    `files`: what was found, by role: `sens` (a file) or `frames` (a folder of files) is the recording, the
    others are those of `EXTRAS` and `proposals`. `source` names the module of `pipeline/sources/` that reads
    it.
    """

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
    scans = _scans(root, _proposals_dir(config))
    held_out = _held_out(config, root, {entry.scan_id for entry in scans})
    scans = [replace(entry, split="val") if entry.scan_id in held_out else entry for entry in scans]
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
            ScanEntry(**{**scan, "files": {role: _stamp(s) for role, s in scan["files"].items()}})
            for scan in tree["scans"]
        ],
        [FileStamp(**stamp) for stamp in tree["annotations"]],
        tree["labels"],
        None if tree["labels_stamp"] is None else FileStamp(**tree["labels_stamp"]),
    )


def _stamp(tree: dict[str, Any]) -> FileStamp:
    return FilesStamp(**tree) if "num_files" in tree else FileStamp(**tree)


def _scans(root: Path, proposals_dir: Path | None) -> list[ScanEntry]:
    """All scans in the folders of `root`, by id, all for training as yet. ValueError: none, or a bad id."""
    entries: dict[str, ScanEntry] = {}
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        source, found = find_scans(folder)
        for scan in found:
            files = scan.files | _extras(scan, proposals_dir)
            entry = ScanEntry(scan.scan_id, str(scan.directory), files, "train", source)
            if not schema.KEY_PATTERN.fullmatch(f"{entry.scan_id}-00"):
                raise ValueError(
                    f"{entry.directory}: got the scan id {entry.scan_id!r}, expected letters, digits, _ "
                    "and - only; rename the folder and the files in it"
                )
            if other := entries.get(entry.scan_id):
                raise ValueError(
                    f"scan id {entry.scan_id}: got {other.directory} and {entry.directory}, expected one "
                    "folder; rename one of them"
                )
            entries[entry.scan_id] = entry
    if not entries:
        raise ValueError(_no_scan(root))
    return [entries[scan_id] for scan_id in sorted(entries)]


def _no_scan(root: Path) -> str:
    folder = root.resolve()
    if find_scans(folder)[1]:
        return f"scans.root: got a scan, {folder}; set scans.root={folder.parent}, the folder that holds it"
    known = "; ".join(layout.LAYOUT for layout in layouts().values())
    return f"scans.root: no scan in {root}, expected folders of one of these layouts: {known}"


def _extras(scan: FoundScan, proposals_dir: Path | None) -> dict[str, FileStamp]:
    """Files beside the recording, and the scan's file of proposals, which lies elsewhere (absolute name)."""
    paths = {role: scan.directory / name.format(id=scan.scan_id) for role, name in EXTRAS.items()}
    files = {role: FileStamp.of(path, scan.directory) for role, path in paths.items() if path.is_file()}
    if proposals_dir is not None:
        path = proposals_dir / PROPOSALS_NAME.format(id=scan.scan_id)
        if path.is_file():
            files["proposals"] = replace(FileStamp.of(path, proposals_dir), name=str(path))
    return files


def _proposals_dir(config: Config) -> Path | None:
    if not config.texts.proposals:
        return None
    folder = Path(config.texts.proposals).absolute()
    if not folder.is_dir():
        raise ValueError(f"texts.proposals: no folder {folder}, expected one with files SCAN.mask.npz")
    return folder


def _beside(root: Path, name: str) -> Path | None:
    """A file of the release that lies in the scans folder or next to it."""
    return next((p for p in (root / name, root.parent / name) if p.is_file()), None)


def _held_out(config: Config, root: Path, scan_ids: set[str]) -> frozenset[str]:
    """Ids of `scans.val`, else of ScanNet's val and test lists where present, else none."""
    if config.scans.val:
        path = Path(config.scans.val)
        if not path.is_file():
            raise ValueError(f"scans.val: no file {path}, expected a list of scan ids, one a line")
        if not scan_ids & set(path.read_text().split()):
            raise ValueError(f"scans.val: no id in {path} is a scan in {root}, expected one id a line")
        paths = [path]
    else:
        paths = [p for split in ("val", "test") if (p := _beside(root, SPLIT_LISTS[split])) is not None]
    return frozenset(line.strip() for path in paths for line in path.read_text().splitlines() if line.strip())
