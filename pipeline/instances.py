"""All objects of a scan: the annotated ones, then those that a detector proposes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from pipeline.errors import ScanError
from pipeline.mesh import Mesh, load_mesh
from pipeline.objects import no_objects, read_label_table, scan_objects
from pipeline.proposals import FILE_NAME, append_proposals, read_proposals
from pipeline.scans import LABEL_TABLE, ScanEntry, read_inventory
from pipeline.sources import alignment


@dataclass(frozen=True)
class Instances:
    annotated: dict[str, list[Any]]
    """Columns of `objects.json`, source `gt` alone: what texts refer to."""
    objects: dict[str, list[Any]]
    """The same with the proposals (source `pred`) behind."""
    paths: list[Path] = field(default_factory=list)
    """The files that they were made from."""
    missing: list[dict[str, str]] = field(default_factory=list)
    """Masks without a vertex, in the form of attribute `missing`."""


def scan_instances(
    entry: ScanEntry, labels: Mapping[str, int], table_path: Path | None, proposals_folder: str
) -> Instances:
    """Objects of a scan. ScanError: a file that does not fit the mesh. ValueError: see `_masks_path`.

    `labels`: raw category -> NYU40 id, of the table at `table_path` (None: there is none).
    """
    masks_path = _masks_path(entry, proposals_folder)
    mesh = _mesh(entry, masks_path)
    if mesh is None:
        return Instances(no_objects(), no_objects())
    annotated = _annotated(entry, mesh, labels, table_path)
    roles = ("mesh", "segs", "aggregation") if annotated["boxes"] else ("mesh",)
    paths = [path for role in roles if (path := entry.path(role)) is not None]
    paths += [table_path] if annotated["boxes"] and table_path is not None else []
    if masks_path is None:
        return Instances(annotated, annotated, paths if annotated["boxes"] else [])
    found = read_proposals(masks_path, mesh.vertices)
    missing = [
        {"task": "", "id": masks_path.name, "what": "empty_mask", "value": str(row)} for row in found.empty
    ]
    return Instances(annotated, append_proposals(annotated, found), [*paths, masks_path], missing)


def label_table(inventory_path: Path) -> tuple[dict[str, int], Path | None]:
    """Raw category -> NYU40 id of the table that the inventory names, and its path; {} and None without one.

    Both files are read once per process as long as they stay the same.
    """
    path = _label_table_path(str(inventory_path), *_stamp(inventory_path))
    return ({} if path is None else _label_table(str(path), *_stamp(path))), path


def _masks_path(entry: ScanEntry, folder: str) -> Path | None:
    """The scan's file of masks as the inventory found it; None: it has none.

    ValueError: the inventory was taken with another folder of proposals; what it does not list is in no key.
    """
    path = entry.path("proposals")
    now = Path(folder).absolute() / FILE_NAME.format(id=entry.scan_id) if folder else None
    if path != (now if now is not None and now.is_file() else None):
        raise ValueError(
            f"texts.proposals: the inventory lists {path} for {entry.scan_id}, expected {now} if that is a "
            "file; run `python -m pipeline.run scans` with the same parameters first"
        )
    return path


def _mesh(entry: ScanEntry, masks_path: Path | None) -> Mesh | None:
    """The scan's own mesh; None where nothing refers to its vertices."""
    if entry.path("mesh") is None and masks_path is not None:
        raise ScanError(
            f"{masks_path.name}: masks of a mesh's vertices, but {entry.scan_id} brings no mesh; "
            "copy the mesh to the scan, or take the file out of texts.proposals"
        )
    annotated = entry.path("segs") is not None and entry.path("aggregation") is not None
    if entry.path("mesh") is None or not (annotated or masks_path):
        return None
    return load_mesh(entry, None, alignment(entry))


def _annotated(
    entry: ScanEntry, mesh: Mesh, labels: Mapping[str, int], table_path: Path | None
) -> dict[str, list[Any]]:
    segs, aggregation = entry.path("segs"), entry.path("aggregation")
    if segs is None or aggregation is None:
        return no_objects()
    if table_path is None:
        raise ScanError(
            f"{entry.scan_id}: has instances, but no {LABEL_TABLE} lies in or beside the scans; copy it there"
        )
    return scan_objects(mesh.vertices, segs, aggregation, labels)


def _stamp(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size


@lru_cache(maxsize=4)
def _label_table_path(inventory_path: str, mtime_ns: int, size: int) -> Path | None:
    labels = read_inventory(Path(inventory_path)).labels
    return Path(labels) if labels else None


@lru_cache(maxsize=4)
def _label_table(path: str, mtime_ns: int, size: int) -> dict[str, int]:
    return read_label_table(Path(path))
