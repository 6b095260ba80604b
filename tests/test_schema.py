"""The format's tables: docs/format.md repeats them, `conform` enforces them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from scanshards import schema
from scanshards.conform import conform
from scanshards.schema import Field, Member

FORMAT_DOC = Path(__file__).resolve().parents[1] / "docs" / "format.md"
TYPES = {"int": "integer", "float": "number", "string": "string", "bool": "boolean"}


def field_row(field: Field) -> str:
    """A row of a JSON table as docs/format.md has it."""
    sizes = "".join(f"[{'N' if size is None else size}]" for size in field.shape)
    return f"| `{field.path}` | {TYPES[field.type]}{sizes} | {field.meaning} |"


def member_row(member: Member) -> str:
    """A row of the member table as docs/format.md has it."""
    sizes = [f"{s[0]} or {s[1]}" if isinstance(s, tuple) else str(s) for s in member.shape]
    array = f"`{member.dtype}` [{', '.join(sizes)}]" if sizes else "JSON"
    name = f"`{member.name}`" + (" (may be absent)" if member.optional else "")
    return f"| {name} | {array} | {member.max_bytes >> 20} | {member.meaning} |"


def frames_row() -> str:
    """The rows of the 32 frames in one."""
    row = member_row(schema.MEMBERS["frame00.jpg"])
    return row.replace("`frame00.jpg`", "`frame00.jpg` … `frame31.jpg`").replace("frame 0,", "frame 0 … 31,")


def test_format_page_holds_every_member_in_order():
    page = FORMAT_DOC.read_text()
    rows = [member_row(m) for m in schema.MEMBERS.values() if m.kind != "jpeg"]
    rows.insert(1, frames_row())
    assert "\n".join(rows) in page


@pytest.mark.parametrize("name", schema.TABLES)
def test_format_page_holds_every_field_in_order(name):
    page = FORMAT_DOC.read_text()
    assert "\n".join(map(field_row, schema.TABLES[name])) in page


def test_member_order_and_sizes_are_those_of_the_contract():
    names = list(schema.MEMBERS)
    assert names[0] == "clip.json"
    assert names[1:33] == [f"frame{i:02d}.jpg" for i in range(32)]
    assert names[33:] == [
        "depth.npy.blosc",
        "bev.png",
        "bev_valid.png",
        "latents.npy",
        "bev_latents.npy",
        "objects.json",
        "texts.json",
        "coords.npy.blosc",
    ]
    assert [name for name, member in schema.MEMBERS.items() if member.optional] == ["coords.npy.blosc"]


def test_every_field_names_members_that_exist():
    for members in schema.FIELD_MEMBERS.values():
        assert set(members) <= set(schema.MEMBERS)


def test_longest_key_and_member_fit_a_ustar_name():
    longest = "s" * 76 + "-000"
    assert schema.KEY_PATTERN.fullmatch(longest)
    assert max(len(f"{longest}.{name}") for name in schema.MEMBERS) <= 100


TABLE = (
    Field("a", "int", (), ""),
    Field("b.c", "float", (2, None), ""),
    Field("d[].e", "string", (), ""),
    Field("d[].f", "bool", (), ""),
)
VALUE = {"a": 1, "b": {"c": [[1.5], []]}, "d": [{"e": "x", "f": True}]}


def test_conform_orders_keys_and_makes_floats():
    shuffled = {"d": [{"f": True, "e": "x"}], "b": {"c": [[1], []]}, "a": 1}
    result = conform(TABLE, shuffled, "v")
    assert result == {"a": 1, "b": {"c": [[1.0], []]}, "d": [{"e": "x", "f": True}]}
    assert list(result) == ["a", "b", "d"]
    assert list(result["d"][0]) == ["e", "f"]
    assert type(result["b"]["c"][0][0]) is float


def test_conform_takes_arrays_and_numpy_numbers():
    value = {**VALUE, "a": np.int64(3), "b": {"c": np.ones((2, 3), np.float32)}}
    assert conform(TABLE, value, "v")["b"] == {"c": [[1.0] * 3] * 2}


def test_unknown_keys_are_dropped_on_reading_and_refused_on_writing():
    value = {**VALUE, "new": 1}
    assert conform(TABLE, value, "v") == VALUE
    with pytest.raises(ValueError, match="v: unknown key 'new', expected a, b, d"):
        conform(TABLE, value, "v", strict=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a": "1"}, "v.a: got '1', expected int"),
        ({"a": True}, "v.a: got True, expected int"),
        ({"a": 1.0}, "v.a: got 1.0, expected int"),
        ({"a": 2**53}, "expected int"),
        ({"b": 3}, "v.b: got 3, expected an object with c"),
        ({"b": {}}, "v.b: key 'c' is missing"),
        ({"b": {"c": [[1.0]]}}, "expected a list of 2 floats"),
        ({"b": {"c": [[float("nan")], []]}}, "expected finite float"),
        ({"b": {"c": [[10**400], []]}}, "expected finite float"),
        ({"b": {"c": [["1"], []]}}, "got '1', expected finite float"),
        ({"d": {}}, "v.d: got {}, expected a list"),
        ({"d": [{"e": None, "f": True}]}, r"v.d\[0\].e: got None, expected string"),
        ({"d": [{"e": "", "f": 1}]}, r"v.d\[0\].f: got 1, expected bool"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        conform(TABLE, {**VALUE, **change}, "v")
