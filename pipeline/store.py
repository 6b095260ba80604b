"""The Zarr stores between stages: one directory per stage, one Zarr group in one zip file per scan.

`work/clips.zarr/scene0000_00.zip` is a Zarr zip store; its marker is the zip file's comment. A file per scan
makes its replacement one rename, and keeps the files few: 1,500 scans of five stages are 7,500, not 50,000.
It is written under a temporary name, synced and renamed, so a file under its own name is whole.

The marker is JSON with

- `key`: hash of everything the group was made from (parameters, code, input stamps, upstream digests). The
  same key means that there is nothing to do;
- `digest`: hash of the group's own content. Downstream keys build on it, so a rerun that gives the same bytes
  (a touched file, an edited comment) stops there;
- `rejection`: why the stage set the scan aside, "" if it did not.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import xxhash
import zarr
from zarr.buffer.cpu import Buffer
from zarr.storage import MemoryStore

from pipeline import timing
from pipeline.errors import ScanError
from scanshards.write import sync

ROOT = "zarr.json"
MAX_REASON = 4000
"""Characters; a zip file's comment has at most 65,535 bytes."""
TEMPORARY = ".tmp"
SUFFIX = ".zip"


class Store:
    """Groups of one stage in `path` (for example `work/clips.zarr`)."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def create(self) -> None:
        """Make the directory and drop what a killed run left under temporary names."""
        self.path.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self.path / TEMPORARY, ignore_errors=True)

    def scan_ids(self) -> list[str]:
        """Ids of all scans that have a group or a rejection here, sorted."""
        if not self.path.is_dir():
            return []
        return sorted(path.stem for path in self.path.iterdir() if path.suffix == SUFFIX)

    def marker(self, scan_id: str) -> dict[str, Any] | None:
        """The scan's marker: key, digest, rejection; None if the scan has none."""
        try:
            with self._opened(scan_id) as archive:
                return json.loads(archive.comment)
        except FileNotFoundError:
            return None

    def attrs(self, scan_id: str) -> dict[str, Any] | None:
        """Attributes of the scan's group, without its arrays; None if there is none.

        A rejected scan has only what the rejection brought along (`ScanError.ledger` as `frames_ledger`).
        """
        try:
            with self._opened(scan_id) as archive:
                return json.loads(archive.read(ROOT))["attributes"]
        except FileNotFoundError:
            return None

    def read(self, scan_id: str) -> zarr.Group | None:
        """The scan's group in memory, read-only; None if there is none or the scan was rejected."""
        marker = self.marker(scan_id)
        if marker is None or marker["rejection"]:
            return None
        with self._opened(scan_id) as archive:
            members = {name: Buffer.from_bytes(archive.read(name)) for name in archive.namelist()}
        return zarr.open_group(MemoryStore(members, read_only=True), mode="r")

    def digest(self, scan_id: str) -> str:
        """Digest of the group's content, "" if there is none: what a downstream key builds on."""
        marker = self.marker(scan_id)
        return "" if marker is None else marker["digest"]

    def rejection(self, scan_id: str) -> str | None:
        """Why this stage set the scan aside; None if it did not."""
        marker = self.marker(scan_id)
        return None if marker is None else (marker["rejection"] or None)

    def build(self, scan_id: str, key: str, fill: Callable[[zarr.Group], None]) -> str:
        """Let `fill` write the scan's group and put it in place; returns the reason of a rejection or ""."""
        members: dict[str, Buffer] = {}
        try:
            fill(zarr.open_group(MemoryStore(members), mode="w"))
        except ScanError as error:
            return self.reject(scan_id, key, error)
        self._put(scan_id, key, members, "")
        return ""

    def reject(self, scan_id: str, key: str, error: ScanError) -> str:
        """Set the scan aside: its group holds nothing but the ledger of its frames; returns the reason."""
        members: dict[str, Buffer] = {}
        group = zarr.open_group(MemoryStore(members), mode="w")
        if error.ledger:
            group.attrs["frames_ledger"] = error.ledger
        reason = str(error)
        if len(reason) > MAX_REASON:
            reason = f"{reason[:MAX_REASON]} … ({len(reason)} characters)"
        self._put(scan_id, key, members, reason)
        return reason

    def remove(self, scan_id: str) -> None:
        """Drop a scan that is no longer in the inventory."""
        self._path(scan_id).unlink()

    @contextmanager
    def _opened(self, scan_id: str) -> Iterator[zipfile.ZipFile]:
        """The scan's file. FileNotFoundError: it has none. ValueError: damaged (no kill leaves one so)."""
        try:
            with zipfile.ZipFile(self._path(scan_id)) as archive:
                yield archive
        except (zipfile.BadZipFile, EOFError, KeyError, ValueError) as error:
            raise ValueError(
                f"{self._path(scan_id)}: damaged ({error}), expected what stage {self.path.stem} wrote; "
                "remove it and run that stage again"
            ) from error

    def _path(self, scan_id: str) -> Path:
        return self.path / f"{scan_id}{SUFFIX}"

    def _put(self, scan_id: str, key: str, members: dict[str, Buffer], rejection: str) -> None:
        contents = {name: members[name].to_bytes() for name in sorted(members)}
        marker = {"key": key, "digest": _digest(contents, rejection), "rejection": rejection}
        (self.path / TEMPORARY).mkdir(exist_ok=True)
        # Workers of a cluster share the folder: the name says whose file it is.
        temporary = self.path / TEMPORARY / f"{scan_id}.{socket.gethostname()}.{os.getpid()}{SUFFIX}"
        with timing.part("write store"):
            with zipfile.ZipFile(temporary, "w") as archive:  # stored: Zarr has compressed what is worth it
                archive.comment = json.dumps(marker).encode()
                for name, data in contents.items():
                    archive.writestr(zipfile.ZipInfo(name), data)
            sync(temporary)
            temporary.replace(self._path(scan_id))
            sync(self.path)


def _digest(contents: dict[str, bytes], rejection: str) -> str:
    """XXH3-64 hex over names and bytes of a group's members, in sorted order."""
    digest = xxhash.xxh3_64(rejection.encode())
    for name, data in contents.items():
        digest.update(name.encode())
        digest.update(data)
    return digest.hexdigest()
