"""Bytes changed at random: a reader gives whole arrays or says what is wrong, and does nothing else."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

import scanshards
from scanshards import codec, schema, tar
from scanshards.clip import Clip, ReadOptions
from scanshards.write import clip_json
from tests.small_shards import golden_members, sealed, small_sample

EDITS = st.lists(
    st.tuples(
        st.floats(0, 1), st.sampled_from(["set", "cut", "insert", "end"]), st.binary(min_size=1, max_size=9)
    ),
    min_size=1,
    max_size=5,
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def edited(data: bytes, edits: list[tuple[float, str, bytes]]) -> bytes:
    for where, kind, value in edits:
        at = int(where * len(data))
        if kind == "end":
            data = data[:at]
        else:
            data = (
                data[:at]
                + (b"" if kind == "cut" else value)
                + data[at + (0 if kind == "insert" else len(value)) :]
            )
    return data


def check_whole_or_refused(data: bytes) -> None:
    """Either arrays of the format's types and shapes, or CorruptSample: nothing else is ever raised."""
    try:
        clip = Clip("fuzz.tar", "small0-00", data, ReadOptions())
        for name in clip.member_bytes:
            value, row = clip.member(name), schema.MEMBERS[name]
            if row.kind != "json":
                assert value.dtype == row.dtype
                assert value.ndim == len(row.shape)
        assert clip.world_from_cam.shape == (32, 4, 4)
    except scanshards.CorruptSample as error:
        assert error.key == "small0-00"


def pieces_of(members: dict[str, bytes]) -> bytes:
    parts: list[bytes] = []
    for name, data in members.items():
        parts += [tar.header(f"small0-00.{name}", len(data)), data, bytes(-len(data) % tar.BLOCK)]
    return b"".join(parts)


def sample_with(name: str, data: bytes) -> bytes:
    """A sample's bytes with true hashes and any content in one member."""
    sample = small_sample()
    sample.members[name] = data
    return pieces_of({schema.CLIP_JSON: clip_json(sample), **sample.members})


@given(name=st.sampled_from(["frame05.jpg", "bev.png", "bev_valid.png", "depth.npy.blosc"]), edits=EDITS)
@settings(max_examples=150, deadline=None)
def test_fuzzed_pictures_and_depth_never_do_more_than_fail(name, edits):
    row = schema.MEMBERS[name]
    try:
        value = codec.decode(row, edited(golden_members()[name], edits))
    except ValueError:
        return
    assert value.dtype == row.dtype and value.shape == row.shape


@given(name=st.sampled_from(sorted(golden_members())), edits=EDITS)
@settings(max_examples=60, deadline=None)
def test_fuzzed_members_with_true_hashes_are_whole_or_refused(name, edits):
    check_whole_or_refused(sample_with(name, edited(golden_members()[name], edits)))


@given(edits=EDITS)
@settings(max_examples=100, deadline=None)
def test_fuzzed_samples_are_whole_or_refused(edits):
    check_whole_or_refused(edited(sample_with("bev.png", golden_members()["bev.png"]), edits))


@given(name=st.sampled_from(["clip.json", "texts.json", "objects.json"]), value=VALUES, data=st.data())
@settings(max_examples=60, deadline=None)
def test_json_with_any_value_in_any_place_is_whole_or_refused(name, value, data):
    sample = small_sample()
    first = clip_json(sample)
    tree = codec.decode_json(first if name == schema.CLIP_JSON else sample.members[name])
    node = {"": tree}
    key: Any = ""
    while isinstance(node[key], dict | list) and node[key] and data.draw(st.integers(0, 3)):
        node = node[key]
        key = data.draw(st.sampled_from(range(len(node)) if isinstance(node, list) else sorted(node)))
    if node == {"": tree}:
        tree = value
    else:
        node[key] = value
    if name != schema.CLIP_JSON:
        check_whole_or_refused(sample_with(name, codec.encode_json(tree)))
    elif isinstance(tree, dict):
        check_whole_or_refused(pieces_of({name: sealed(tree), **sample.members}))


def test_what_is_edited_was_whole():
    sample = small_sample()
    data = pieces_of({schema.CLIP_JSON: clip_json(sample), **sample.members})
    clip = Clip("fuzz.tar", sample.key, data, ReadOptions())
    assert len([clip.member(name) for name in clip.member_bytes]) == 41
