"""Instances that a detector found, as Mask3D gives them: boxes from `SCAN.mask.npz`.

The file is a sparse matrix as `scipy.sparse.save_npz` writes it, one row per instance and one column per
vertex of the scan's mesh; 1 says that the vertex belongs. Rows are in the detector's order, the best first:
the first 50 count, without threshold and without class (the published rule). A box reaches from the least to
the largest coordinate of its vertices in the world.

The arrays are parsed here, not by SciPy: sizes are checked before anything is allocated, every index before
it is used, and nothing is unpickled.
"""

from __future__ import annotations

import math
import tokenize
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from pipeline.errors import ScanError

FILE_NAME = "{id}.mask.npz"
MAX_ROWS = 50
"""So many proposals of a scan are used."""
MAX_BYTES = 128 << 20
"""Of all arrays of a file together; a hundred masks have about 10 MB."""
NO_LABEL, NO_CLASS, NO_SCORE = "", 0, 0.0
"""What proposals have instead: the file says nothing about them."""

INDEX_ARRAYS = {"csr": ("indices", "indptr"), "csc": ("indices", "indptr"), "coo": ("row", "col")}
"""Arrays beside `format`, `shape` and `data`, by the format's name."""


@dataclass(frozen=True)
class Proposals:
    boxes: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 6)))
    """(n, 6) centre and size, world, metres."""
    rows: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """(n,) row of each in the file, ascending."""
    empty: tuple[int, ...] = ()
    """Rows among the first 50 without any vertex; they have no box."""


def read_proposals(path: Path, vertices: NDArray[np.float32]) -> Proposals:
    """The boxes of one file; `vertices` (V, 3) world, metres, in the order of the mesh file.

    ScanError names the file: it is no such matrix, too large, or of another mesh.
    """
    (num_rows, num_columns), rows, columns, values = _entries(path)
    if num_columns != len(vertices):
        raise ScanError(
            f"{path.name}: masks of {num_columns} vertices, expected {len(vertices)} as in the mesh; "
            "the masks are of another mesh"
        )
    num_rows = min(num_rows, MAX_ROWS)
    rows, columns = _ones(rows, columns, values, num_rows, num_columns)
    present, starts = np.unique(rows, return_index=True)
    empty = tuple(sorted(set(range(num_rows)).difference(present.tolist())))
    if not len(present):
        return Proposals(empty=empty)
    corners = vertices[columns].astype(np.float64)  # (entries, 3)
    low, high = np.minimum.reduceat(corners, starts), np.maximum.reduceat(corners, starts)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ScanError(f"{path.name}: mesh vertices that are not finite belong to masks")
    return Proposals(np.concatenate([(low + high) / 2, high - low], axis=1), present, empty)


def append_proposals(objects: dict[str, list[Any]], proposals: Proposals) -> dict[str, list[Any]]:
    """Columns of `objects.json` with the proposals after what is there; an id is the row in the file."""
    count = len(proposals.rows)
    added = {
        "boxes": proposals.boxes.tolist(),
        "instance_ids": proposals.rows.tolist(),
        "labels": [NO_LABEL] * count,
        "nyu40_ids": [NO_CLASS] * count,
        "sources": ["pred"] * count,
        "scores": [NO_SCORE] * count,
    }
    return {name: values + added[name] for name, values in objects.items()}


def _ones(
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    values: NDArray[Any],
    num_rows: int,
    num_columns: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of the elements that are 1 in the first `num_rows` rows, sorted by row.

    Entries at one place add up, as in any sparse matrix.
    """
    first = rows < num_rows
    places, entry_of = np.unique(rows[first] * num_columns + columns[first], return_inverse=True)
    sums = np.zeros(len(places))
    np.add.at(sums, entry_of, values[first].astype(np.float64))
    return np.divmod(places[sums == 1], max(num_columns, 1))


def _entries(
    path: Path,
) -> tuple[tuple[int, int], NDArray[np.int64], NDArray[np.int64], NDArray[Any]]:
    """Shape, and row, column and value of every stored entry. ScanError: damaged, or no such matrix."""
    try:
        arrays = _read_arrays(path)
        name = bytes(arrays["format"]).decode("ascii")
        if name not in INDEX_ARRAYS:
            raise ScanError(f"{path.name}: sparse format {name!r}, expected {', '.join(INDEX_ARRAYS)}")
        shape = tuple(_integers(arrays["shape"]).tolist())
        if len(shape) != 2 or min(shape) < 0 or max(shape) >= 1 << 31:
            raise ScanError(f"{path.name}: shape {shape}, expected instances and vertices")
        values = arrays["data"]
        if values.dtype.kind not in "biuf" or values.ndim != 1:
            raise ScanError(f"{path.name}: data of {values.dtype} {values.shape}, expected a list of numbers")
        first, second = (_integers(arrays[key]) for key in INDEX_ARRAYS[name])
        if name == "coo":
            rows, columns = first, second
        else:
            outer, inner = shape if name == "csr" else shape[::-1]
            rows, columns = _expanded(second, outer, len(values)), first
            rows, columns = (rows, columns) if name == "csr" else (columns, rows)
        for what, index, size in (("row", rows, shape[0]), ("column", columns, shape[1])):
            if len(index) != len(values) or (len(index) and not 0 <= index.min() <= index.max() < size):
                raise ValueError(f"{what}s do not fit {len(values)} entries of a matrix {shape}")
    except ScanError:
        raise
    except KeyError as error:
        raise ScanError(f"{path.name}: no array {error}, expected a file of scipy.sparse.save_npz") from error
    except (OSError, ValueError, EOFError, NotImplementedError, RuntimeError) as error:
        raise ScanError(f"{path.name}: cannot be read ({error}); write or copy it again") from error
    except (zipfile.BadZipFile, zlib.error) as error:
        raise ScanError(f"{path.name}: no whole .npz file ({error}); write or copy it again") from error
    return shape, rows, columns, values


def _expanded(pointers: NDArray[np.int64], outer: int, num_entries: int) -> NDArray[np.int64]:
    """Outer index of every entry, from where each row (or column) starts."""
    counts = np.diff(pointers)
    good = len(pointers) == outer + 1 and pointers[0] == 0 and pointers[-1] == num_entries
    if not good or (counts < 0).any():
        raise ValueError(f"indptr does not part {num_entries} entries into {outer}")
    return np.repeat(np.arange(outer), counts)


def _integers(array: NDArray[Any]) -> NDArray[np.int64]:
    if array.dtype.kind not in "iu" or array.ndim != 1:
        raise ValueError(f"an index of {array.dtype} {array.shape}, expected a list of integers")
    return array.astype(np.int64)


def _read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of an .npz file; no size is believed before it is checked, nothing is unpickled."""
    arrays: dict[str, NDArray[Any]] = {}
    with zipfile.ZipFile(path) as archive:
        total = sum(member.file_size for member in archive.infolist())
        if total > MAX_BYTES:
            raise ScanError(f"{path.name}: {total} bytes unpacked, expected at most {MAX_BYTES}")
        for member in archive.infolist():
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"{member.filename} is packed in an unusual way, expected deflate")
            with archive.open(member) as file:
                arrays[member.filename.removesuffix(".npy")] = _read_array(file, member.file_size)
    return arrays


def _read_array(file: Any, size: int) -> NDArray[Any]:
    """One .npy stream of `size` bytes; its header must claim exactly what follows."""
    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f".npy version {version}, expected 1.0 or 2.0")
    read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    try:
        shape, _, dtype = read_header(file)
    except tokenize.TokenError as error:  # NumPy lets this one through
        raise ValueError(f"a broken .npy header ({error})") from error
    if dtype.hasobject:
        raise ValueError("an array of Python objects, expected numbers")
    claimed = math.prod(shape) * dtype.itemsize
    if claimed != size - file.tell():
        raise ValueError(f"{size - file.tell()} bytes for an array {shape} of {dtype}, expected {claimed}")
    return np.frombuffer(file.read(), dtype).reshape(shape)
