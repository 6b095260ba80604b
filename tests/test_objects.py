"""Instance boxes equal a slow walk over vertices, and bad files are refused by name."""

import json
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import objects
from pipeline.errors import ScanError
from pipeline.objects import COLUMNS, no_objects, nyu40_of, read_label_table, scan_objects

TABLE = {"chair": 5, "case": 40, "wall": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("objects")


def write(folder, segments, groups):
    segs, aggregation = folder / "s_vh_clean_2.0.010000.segs.json", folder / "s.aggregation.json"
    segs.write_text(json.dumps({"sceneId": "s", "segIndices": segments}))
    rows = [
        {"id": row, "objectId": object_id, "segments": wanted, "label": label}
        for row, (object_id, label, wanted) in enumerate(groups)
    ]
    aggregation.write_text(json.dumps({"sceneId": "s", "segGroups": rows}))
    return segs, aggregation


def slow_objects(vertices, segments, groups, table):
    """One vertex and one corner at a time, as the preprocessing is described."""
    instances = [-1] * len(vertices)
    for object_id, _, wanted in groups:
        for i, segment in enumerate(segments):
            if segment in wanted:
                instances[i] = object_id
    rows = []
    for object_id in sorted(set(instances) - {-1}):
        own = [vertices[i] for i, instance in enumerate(instances) if instance == object_id]
        low = [min(v[axis] for v in own) for axis in range(3)]
        high = [max(v[axis] for v in own) for axis in range(3)]
        corners = [
            [np.float32(low[a] + np.float32(high[a] - low[a]) * np.float32(bits[a])) for a in range(3)]
            for bits in product((0, 1), repeat=3)
        ]
        ends = [(min(float(c[a]) for c in corners), max(float(c[a]) for c in corners)) for a in range(3)]
        label = [name for other, name, _ in groups if other == object_id][-1]
        box = [(a + b) / 2 for a, b in ends] + [b - a for a, b in ends]
        rows.append((box, object_id, label, table.get(label, 40), "gt", 1.0))
    return {name: [row[i] for row in rows] for i, name in enumerate(COLUMNS)}


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_boxes_equal_a_slow_walk_over_vertices(data, folder):
    segments = data.draw(st.lists(st.integers(0, 7).map(lambda s: s * 13), min_size=1, max_size=40))
    coordinate = st.floats(-20, 20, width=32)
    vertices = np.array(
        [[data.draw(coordinate) for _ in range(3)] for _ in segments],
        np.float32,
    )
    groups = data.draw(
        st.lists(
            st.tuples(
                st.integers(0, 5),
                st.sampled_from(["chair", "wall", "strange thing"]),
                st.lists(st.sampled_from(sorted(set(segments))), max_size=4, unique=True),
            ),
            max_size=6,
        )
    )
    segs, aggregation = write(folder, segments, groups)
    found = scan_objects(vertices, segs, aggregation, TABLE)
    assert found == slow_objects(vertices, segments, groups, TABLE)
    assert list(found) == list(COLUMNS)


def test_the_later_group_wins_and_a_vanished_group_has_no_box(folder):
    vertices = np.array([[0, 0, 0], [1, 1, 1], [4, 4, 4], [6, 5, 5]], np.float32)
    segs, aggregation = write(
        folder, [3, 3, 9, 9], [(4, "wall", [9]), (0, "chair", [3, 9]), (7, "table?", [9])]
    )
    found = scan_objects(vertices, segs, aggregation, TABLE)
    assert found["instance_ids"] == [0, 7]
    assert found["boxes"] == [[0.5, 0.5, 0.5, 1.0, 1.0, 1.0], [5.0, 4.5, 4.5, 2.0, 1.0, 1.0]]
    assert found["labels"] == ["chair", "table?"]
    assert found["nyu40_ids"] == [5, 40]


def test_the_upper_corner_keeps_the_rounding_of_float32(folder):
    low, high = np.float32(-7.3), np.float32(0.1)
    corner = np.float32(low + np.float32(high - low))
    assert corner != high
    vertices = np.array([[low] * 3, [high] * 3], np.float32)
    segs, aggregation = write(folder, [1, 1], [(0, "chair", [1])])
    box = scan_objects(vertices, segs, aggregation, TABLE)["boxes"][0]
    assert box == [(float(low) + float(corner)) / 2] * 3 + [float(corner) - float(low)] * 3


def test_no_vertices_and_no_groups_give_empty_columns(folder):
    assert scan_objects(np.zeros((0, 3), np.float32), *write(folder, [], []), TABLE) == no_objects()
    assert scan_objects(np.zeros((2, 3), np.float32), *write(folder, [1, 2], []), TABLE) == no_objects()


@pytest.mark.parametrize(
    ("segments", "groups", "message"),
    [
        ([1], [], r"segs.json: 1 vertices, expected 2 as in the mesh"),
        ([1, 2.5], [], "segIndices is no list of integers"),
        ([1, True], [], "segIndices is no list of integers"),
        ({"a": 1}, [], "segIndices is no list of integers"),
        ([1, 2**70], [], "exceeds 64 bits"),
        ([1, 2], [(0, "chair", [1, 5])], "objectId 0 has segment 5, which no vertex belongs to"),
        ([1, 2], [(-1, "chair", [1])], "objectId -1, expected an integer in 0..32767"),
        ([1, 2], [(40000, "chair", [1])], "objectId 40000"),
        ([1, 2], [("0", "chair", [1])], "objectId '0'"),
        ([1, 2], [(3, None, [1])], r"segGroups\[0\] \(objectId 3\): label None, expected a string"),
        ([1, 2], [(3, "chair", "12")], "segments is no list of integers"),
    ],
)
def test_malformed_content_is_refused_with_what_is_wrong(folder, segments, groups, message):
    with pytest.raises(ScanError, match=message):
        scan_objects(np.zeros((2, 3), np.float32), *write(folder, segments, groups), TABLE)


@pytest.mark.parametrize("content", [b"", b"[1]", b'{"segIndices": [1,', b"\xff\xfe", b"[" * 200_000])
def test_damaged_files_are_refused_and_never_crash(folder, content):
    segs, aggregation = write(folder, [1], [])
    segs.write_bytes(content)
    with pytest.raises(ScanError, match=r"segs\.json: "):
        scan_objects(np.zeros((1, 3), np.float32), segs, aggregation, TABLE)


def test_vertices_that_are_not_finite_are_refused(folder):
    segs, aggregation = write(folder, [1], [(0, "chair", [1])])
    with pytest.raises(ScanError, match="not finite"):
        scan_objects(np.full((1, 3), np.nan, np.float32), segs, aggregation, TABLE)


def test_missing_and_oversized_files_are_refused(folder, monkeypatch):
    segs, aggregation = write(folder, [1], [])
    aggregation.unlink()
    with pytest.raises(ScanError, match=r"s\.aggregation\.json: no such file"):
        scan_objects(np.zeros((1, 3), np.float32), segs, aggregation, TABLE)
    monkeypatch.setattr(objects, "MAX_FILE_BYTES", 3)
    with pytest.raises(ScanError, match="expected at most 3"):
        scan_objects(np.zeros((1, 3), np.float32), segs, aggregation, TABLE)


def test_label_table_maps_raw_category_to_nyu40(folder):
    path = folder / "labels.tsv"
    path.write_text('id\traw_category\tcategory\tcount\tnyu40id\n1\tchair\tchair\t9\t5\n2\t"odd\tx\t1\t7\n')
    table = read_label_table(path)
    assert table == {"chair": 5, '"odd': 7}
    assert nyu40_of("chair", table) == 5
    assert nyu40_of("never seen", table) == 40
    assert nyu40_of("never seen", {**table, "case": 39}) == 39


@pytest.mark.parametrize(
    ("content", "message"),
    [("a\tb\n", "expected raw_category and nyu40id"), ("raw_category\tnyu40id\nchair\tx\n", "line 2")],
)
def test_a_bad_label_table_is_refused_by_line(folder, content, message):
    path = folder / "bad.tsv"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        read_label_table(path)
