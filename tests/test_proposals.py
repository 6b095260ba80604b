"""Proposals equal a dense walk over SciPy's matrix, and no file can do harm."""

import io
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from pipeline import proposals
from pipeline.errors import ScanError
from pipeline.proposals import append_proposals, read_proposals


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("proposals")


def slow_proposals(path, vertices):
    """As the preprocessing is described: dense, the first 50 rows, one mask after the other."""
    boxes, rows, empty = [], [], []
    for row, mask in enumerate(np.asarray(sparse.load_npz(path).todense())[:50]):
        own = [vertex for vertex, value in zip(vertices.tolist(), mask, strict=True) if value == 1]
        if not own:
            empty.append(row)
            continue
        low, high = ([pick(v[a] for v in own) for a in range(3)] for pick in (min, max))
        boxes.append([(a + b) / 2 for a, b in zip(low, high, strict=True)])
        boxes[-1] += [b - a for a, b in zip(low, high, strict=True)]
        rows.append(row)
    return boxes, rows, tuple(empty)


@settings(max_examples=80, deadline=None)
@given(
    name=st.sampled_from(["csr", "csc", "coo"]),
    dtype=st.sampled_from([np.float64, np.float32, np.int64, np.uint8, np.bool_]),
    shape=st.tuples(st.integers(0, 60), st.integers(0, 30)),
    seed=st.integers(0, 2**32 - 1),
    compressed=st.booleans(),
)
def test_boxes_equal_a_dense_walk(name, dtype, shape, seed, compressed, folder):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(0, 3 * shape[1] + 1)) if min(shape) else 0
    # entries at one place add up, and values other than 1 mark nothing
    rows, columns = (rng.integers(0, max(size, 1), count) for size in shape)
    values = rng.choice([1, 1, 1, 0, 2], count).astype(dtype)
    matrix = sparse.coo_matrix((values, (rows, columns)), shape, dtype)
    if dtype == np.bool_:
        matrix.sum_duplicates()  # SciPy's sum of booleans depends on the format
    path = folder / "scene.mask.npz"
    sparse.save_npz(path, matrix.asformat(name), compressed=compressed)
    vertices = rng.uniform(-9, 9, (shape[1], 3)).astype(np.float32)
    found = read_proposals(path, vertices)
    assert (found.boxes.tolist(), found.rows.tolist(), found.empty) == slow_proposals(path, vertices)


def test_rows_behind_the_first_fifty_do_not_count_and_an_empty_one_loses_nothing_else(folder):
    masks = np.eye(60)
    masks[7] = 0
    sparse.save_npz(folder / "m.npz", sparse.csr_matrix(masks))
    vertices = np.arange(180, dtype=np.float32).reshape(60, 3)
    found = read_proposals(folder / "m.npz", vertices)
    assert found.rows.tolist() == [row for row in range(50) if row != 7]
    assert found.empty == (7,)
    assert found.boxes[:, :3].tolist() == vertices[found.rows].tolist()
    assert not found.boxes[:, 3:].any()


def test_proposals_follow_the_annotated_objects_and_keep_their_row(folder):
    gt = {
        "boxes": [[0.0, 0.0, 0.5, 1.0, 1.0, 1.0]],
        "instance_ids": [9],
        "labels": ["table"],
        "nyu40_ids": [7],
        "sources": ["gt"],
        "scores": [1.0],
    }
    sparse.save_npz(folder / "m.npz", sparse.csr_matrix([[0, 0], [1, 1]]))
    found = read_proposals(folder / "m.npz", np.array([[0, 0, 0], [2, 4, 6]], np.float32))
    assert append_proposals(gt, found) == {
        "boxes": [[0.0, 0.0, 0.5, 1.0, 1.0, 1.0], [1.0, 2.0, 3.0, 2.0, 4.0, 6.0]],
        "instance_ids": [9, 1],
        "labels": ["table", ""],
        "nyu40_ids": [7, 0],
        "sources": ["gt", "pred"],
        "scores": [1.0, 0.0],
    }


def arrays_of(**changed):
    arrays = {
        "format": np.array(b"csr"),
        "shape": np.array([2, 3]),
        "data": np.ones(2),
        "indices": np.array([0, 2]),
        "indptr": np.array([0, 1, 2]),
    }
    return {name: array for name, array in (arrays | changed).items() if array is not None}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"shape": np.array([2, 4])}, "masks of 4 vertices, expected 3 as in the mesh"),
        ({"shape": np.array([2, 3, 1])}, r"shape \(2, 3, 1\), expected instances and vertices"),
        ({"shape": np.array([-1, 3])}, "shape"),
        ({"shape": np.array([2**40, 3])}, "shape"),
        ({"shape": np.array([2.0, 3.0])}, "an index of float64"),
        ({"indices": np.array([0, 3])}, "columns do not fit 2 entries"),
        ({"indices": np.array([-1, 2])}, "columns do not fit 2 entries"),
        ({"indices": np.array([0])}, "columns do not fit 2 entries"),
        ({"indptr": np.array([0, 3, 2])}, "indptr does not part 2 entries into 2"),
        ({"indptr": np.array([0, 1])}, "indptr does not part"),
        ({"indptr": np.array([1, 1, 2])}, "indptr does not part"),
        ({"indptr": np.array([[0, 1, 2]])}, r"an index of int64 \(1, 3\)"),
        ({"data": np.array(["a", "b"])}, "expected a list of numbers"),
        ({"data": np.ones((2, 1))}, "expected a list of numbers"),
        ({"data": None}, "no array 'data', expected a file of scipy.sparse.save_npz"),
        ({"format": np.array(b"dia")}, "sparse format 'dia', expected csr, csc, coo"),
        ({"format": np.array(b"\xff")}, "cannot be read"),
        ({"data": np.array([1, None], object)}, "Python objects, expected numbers"),
    ],
)
def test_what_is_no_such_matrix_is_refused_by_name(folder, changed, message):
    path = folder / "scene0001_00.mask.npz"
    np.savez(path, **arrays_of(**changed))
    with pytest.raises(ScanError, match=rf"scene0001_00\.mask\.npz: .*{message}"):
        read_proposals(path, np.zeros((3, 3), np.float32))


def test_vertices_that_are_not_finite_are_refused(folder):
    np.savez(folder / "m.npz", **arrays_of())
    with pytest.raises(ScanError, match="not finite"):
        read_proposals(folder / "m.npz", np.full((3, 3), np.inf, np.float32))


def header(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


@pytest.mark.parametrize(
    "data",
    [
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }\n"),
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (-8,), }\n") + b"\0" * 64,
        header("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n") + b"cos\nsystem\n",
        header("{'descr': (('<f8', 4), "),
        header("(" * 300),
        b"\x93NUMPY\x03\x00",
        b"",
    ],
)
def test_a_header_that_lies_allocates_nothing(folder, data):
    path = folder / "m.npz"
    np.savez(path, **arrays_of(data=None))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("data.npy", data)
    with pytest.raises(ScanError, match="m.npz: cannot be read"):
        read_proposals(path, np.zeros((3, 3), np.float32))


def test_a_zip_bomb_is_refused_before_it_is_unpacked(folder, monkeypatch):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.npy", bytes(2 << 20))
    (folder / "m.npz").write_bytes(buffer.getvalue())
    monkeypatch.setattr(proposals, "MAX_BYTES", 1 << 20)
    monkeypatch.setattr(zipfile.ZipFile, "open", None)
    with pytest.raises(ScanError, match="2097152 bytes unpacked, expected at most 1048576"):
        read_proposals(folder / "m.npz", np.zeros((3, 3), np.float32))


@settings(max_examples=300, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255), cut=st.booleans())
@pytest.mark.filterwarnings("ignore:Reading")
def test_damage_is_a_scan_error_or_harmless(place, flip, cut, folder):
    path = folder / "d.npz"
    np.savez_compressed(path, **arrays_of())
    data = bytearray(path.read_bytes())
    position = int(place * len(data))
    data[position] ^= flip
    path.write_bytes(data[:position] if cut else data)
    vertices = np.array([[0, 0, 0], [1, 2, 3], [4, 5, 6]], np.float32)
    try:
        found = read_proposals(path, vertices)
    except ScanError as error:
        assert str(error).startswith("d.npz: ")
    else:
        assert set(found.rows.tolist()) | set(found.empty) <= {0, 1}
