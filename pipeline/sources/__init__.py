"""Recordings of any supported layout behind one interface: `find_scans`, `open_source`, `alignment`.

**Adding a layout is one file**: a module in this folder that defines

- `LAYOUT: str`: how its scans lie on disk, in one line; told when nothing is found;
- `ORDER: int`: a folder that two layouts would claim goes to the one with the lower number (then by name);
- `find(folder: Path) -> list[FoundScan]`: the scans in one folder of `scans.root`, from names, sizes and
  times only; `[]` if the folder is of another layout;
- `open_scan(entry: ScanEntry) -> Source`: the recording, open. ScanError: it cannot be used;
- `alignment(entry: ScanEntry) -> (4, 4) float64`: world_from_scan, world z up, without decoding a picture.

There is no list to add it to: a module that defines `LAYOUT` is a layout, and its file name is the `source`
of its scans. Layouts of loose picture files need little more than `find`: see `frame_folder.py`. An example
that is run as a test stands in docs/data.md.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # pipeline/scans.py imports this package
    from pipeline.scans import FoundScan, ScanEntry

NAMES = ("ORDER", "find", "open_scan", "alignment")
"""What a module with a `LAYOUT` must define beside it."""


class Source(Protocol):
    """One recording, open for random access. Everything but the pictures is cheap."""

    num_frames: int
    """Frames that are wholly present."""
    num_frames_declared: int
    """Frames that the recording says it has; more than `num_frames` if it is cut off."""
    color_size: tuple[int, int]
    """(width, height) of the colour pictures."""
    depth_size: tuple[int, int]
    color_intrinsics: NDArray[np.float64]
    """(3, 3), pixels of the colour picture."""
    depth_intrinsics: NDArray[np.float64]
    alignment: NDArray[np.float64]
    """(4, 4) world_from_scan, rigid."""
    poses: NDArray[np.float64]
    """(num_frames, 4, 4) scan_from_cam as recorded; frames without tracking hold -inf, NaN or zeros."""

    def color(self, index: int) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB. ScanError: the frame cannot be decoded."""

    def depth(self, index: int) -> NDArray[np.uint16]:
        """(H, W) uint16 millimetres, 0 = missing. ScanError: the frame cannot be decoded."""

    def fingerprint(self, indices: list[int]) -> list[dict]:
        """[{name, bytes, xxh3}] of what these frames were made from; reads no other picture."""

    def close(self) -> None: ...

    def __enter__(self) -> Source: ...

    def __exit__(self, *_: object) -> None: ...

    # A layout may also offer `small_color(index, at_least) -> (h, w, 3) uint8 RGB`: a picture that may be
    # smaller, but no smaller than (width, height) `at_least`, if that is quicker (`payload.decode_color`).


def open_source(entry: ScanEntry) -> Source:
    """Open the recording of a scan. ScanError: it cannot be used. ValueError: no such source."""
    return _layout_of(entry).open_scan(entry)


def alignment(entry: ScanEntry) -> NDArray[np.float64]:
    """(4, 4) float64 world_from_scan, the same as `open_source(entry).alignment`; no picture is decoded.

    ScanError: the files that say it cannot be used. ValueError: no such source.
    """
    return _layout_of(entry).alignment(entry)


def find_scans(folder: Path) -> tuple[str, list[FoundScan]]:
    """The layout that knows a folder, and the scans in it; ("", []) if none does."""
    for name, layout in layouts().items():
        if found := layout.find(folder):
            return name, found
    return "", []


@functools.cache
def layouts() -> dict[str, ModuleType]:
    """All layouts by name, in the order in which they are asked."""
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    modules = {name: importlib.import_module(f"{__name__}.{name}") for name in names}
    found = {name: module for name, module in modules.items() if hasattr(module, "LAYOUT")}
    for name, module in found.items():
        missing = [wanted for wanted in NAMES if not hasattr(module, wanted)]
        if missing:
            raise TypeError(f"pipeline/sources/{name}.py: got a LAYOUT without {', '.join(missing)}")
    return dict(sorted(found.items(), key=lambda item: (item[1].ORDER, item[0])))


def _layout_of(entry: ScanEntry) -> ModuleType:
    layout = layouts().get(entry.source)
    if layout is None:
        known = ", ".join(repr(name) for name in layouts())
        raise ValueError(f"{entry.scan_id}: source {entry.source!r}, expected one of {known}")
    return layout
