"""The Zarr stores between stages: one directory per stage, one group per scan.

A scan's group is written under a temporary name, synced and renamed, so a group under its own name is whole.
Its `stage` attribute holds two hashes:

- `key`: of everything the group was made from (parameters, code, input stamps, upstream digests). The same
  key means that there is nothing to do.
- `digest`: of the group's own files. Downstream keys build on it, so a rerun that gives the same bytes (a
  touched file, an edited comment) stops there.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import xxhash
import zarr

from pipeline.errors import ScanError
from scanshards.write import sync

STAGE_ATTR = "stage"
TEMPORARY = ".tmp"


class Store:
    """Groups of one stage in `path` (for example `work/clips.zarr`)."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def create(self) -> None:
        """Make the root group and drop what a killed run left under temporary names."""
        zarr.open_group(self.path, mode="a")
        shutil.rmtree(self.path / TEMPORARY, ignore_errors=True)

    def scan_ids(self) -> list[str]:
        if not self.path.is_dir():
            return []
        return sorted(p.name for p in self.path.iterdir() if p.is_dir() and p.name != TEMPORARY)

    def marker(self, scan_id: str) -> dict[str, Any] | None:
        """The `stage` attribute: key, digest, rejection ("" = none); None if the scan has no group."""
        # Read as plain JSON: opening a Zarr group costs a millisecond, and thousands of scans are asked.
        try:
            metadata = json.loads((self.path / scan_id / "zarr.json").read_bytes())
        except FileNotFoundError:
            return None
        return metadata["attributes"][STAGE_ATTR]

    def read(self, scan_id: str) -> zarr.Group | None:
        """The scan's group, read-only; None if there is none or the scan was rejected."""
        marker = self.marker(scan_id)
        if marker is None or marker["rejection"]:
            return None
        return zarr.open_group(self.path / scan_id, mode="r")

    def key(self, scan_id: str) -> str:
        """Digest of the group's content, "" if there is none: what a downstream key builds on."""
        marker = self.marker(scan_id)
        return "" if marker is None else marker["digest"]

    def rejection(self, scan_id: str) -> str | None:
        """Why this stage set the scan aside; None if it did not."""
        marker = self.marker(scan_id)
        return None if marker is None else (marker["rejection"] or None)

    def build(self, scan_id: str, key: str, fill: Callable[[zarr.Group], None]) -> str:
        """Let `fill` write the scan's group and put it in place; returns the reason of a rejection or ""."""
        temporary = self.path / TEMPORARY / f"{scan_id}.{os.getpid()}"
        shutil.rmtree(temporary, ignore_errors=True)
        rejection = ""
        try:
            fill(zarr.open_group(temporary, mode="w"))
        except ScanError as error:
            rejection = str(error)
            shutil.rmtree(temporary)
            zarr.open_group(temporary, mode="w")
        digest = _digest(temporary, rejection)
        group = zarr.open_group(temporary, mode="a")
        group.attrs[STAGE_ATTR] = {"key": key, "digest": digest, "rejection": rejection}
        _sync_tree(temporary)
        self._replace(temporary, self.path / scan_id)
        return rejection

    def remove(self, scan_id: str) -> None:
        """Drop a scan that is no longer in the inventory."""
        shutil.rmtree(self.path / scan_id)

    def _replace(self, temporary: Path, final: Path) -> None:
        # A directory cannot be renamed over a full one: the old group steps aside first. A kill in
        # between leaves no group, which the next run builds again.
        if final.exists():
            final.rename(temporary.with_suffix(".old"))
        temporary.rename(final)
        sync(self.path)
        shutil.rmtree(temporary.with_suffix(".old"), ignore_errors=True)


def _digest(folder: Path, rejection: str) -> str:
    """XXH3-64 hex over names and bytes of all files below `folder`, in sorted order."""
    digest = xxhash.xxh3_64(rejection.encode())
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _sync_tree(folder: Path) -> None:
    for path in folder.rglob("*"):
        sync(path)
    sync(folder)
