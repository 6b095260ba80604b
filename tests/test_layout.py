"""Parts of a sample: for any fields exactly what they need, and headers as they are stored."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanshards import codec, schema, tar
from scanshards.clip import Clip, ReadOptions
from scanshards.errors import CorruptSample
from scanshards.layout import MERGE_BYTES, head_bytes, locate, read_layout, unpack
from scanshards.write import write_shard
from tests.make_shards import make_sample

KEY = "scene0000_00-00"
FIELDS = st.lists(st.sampled_from(sorted(schema.FIELD_MEMBERS)), min_size=1, unique=True)


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("shard") / "a.tar"
    write_shard(path, [make_sample()])
    return path.read_bytes()[: -len(tar.END)]


def packed(sample: bytes, fields: list[str]) -> bytes:
    return b"".join(sample[start:end] for start, end in read_layout(sample).spans(fields))


@given(FIELDS)
@settings(max_examples=60, deadline=None)
def test_what_is_put_together_from_parts_is_the_sample_but_for_what_was_not_asked(sample, fields):
    layout, data = unpack(packed(sample, fields), fields)
    assert len(data) == layout.num_bytes == len(sample)
    assert layout.is_intact(data, fields)
    wanted = {name for field in fields for name in schema.FIELD_MEMBERS[field]} | {schema.CLIP_JSON}
    fetched = 0
    for entry in layout.entries:
        assert data[entry.offset : entry.start] == sample[entry.offset : entry.start]
        got, stored = (bytes(source[entry.start : entry.end]) for source in (data, sample))
        assert got in (stored, bytes(len(stored)))
        if entry.name.partition(".")[2] in wanted:
            assert got == stored
            fetched += entry.end - entry.offset
    num_spans = len(layout.spans(fields))
    assert len(packed(sample, fields)) <= fetched + MERGE_BYTES * len(wanted)
    assert num_spans <= 4  # requests for a clip: the head, and frames, BEV and its latents lie apart
    clip = Clip("a.tar", KEY, data, ReadOptions(fields=tuple(fields)))
    for name in wanted - {schema.CLIP_JSON}:
        clip.member(name)


@given(FIELDS)
@settings(max_examples=20, deadline=None)
def test_members_found_by_the_list_are_those_found_by_walking(sample, fields):
    located = locate(memoryview(sample), KEY, fields)
    walked = Clip("a.tar", KEY, sample, ReadOptions())
    contents = located.contents(memoryview(sample))
    assert list(contents) == list(walked.member_bytes)
    assert all(contents[name] == walked.stored(name) for name in contents)
    assert Clip("a.tar", KEY, sample, ReadOptions(fields=tuple(fields))).meta == walked.meta


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("place", ["header", "padding"])
def test_damage_around_a_member_that_is_asked_for_is_named(sample, place, verify):
    entry = next(e for e in read_layout(sample).entries if e.name.endswith(".texts.json"))
    damaged = bytearray(sample)
    damaged[{"header": entry.start - 1, "padding": entry.end - 1}[place]] ^= 1
    assert locate(memoryview(damaged), KEY, ["latents"]) is not None
    with pytest.raises(CorruptSample, match="member texts.json: .*(header|padding)"):
        Clip("a.tar", KEY, damaged, ReadOptions(verify, fields=("texts",)))


def test_a_flip_in_clip_json_is_found_although_it_is_not_parsed_whole(sample):
    entry = read_layout(sample).entries[0]
    damaged = bytearray(sample)
    damaged[entry.start + sample[entry.start :].index(b"scene0000") + 8] ^= 1
    with pytest.raises(CorruptSample, match=r"member clip.json: XXH3-64 is"):
        Clip("a.tar", KEY, damaged, ReadOptions(fields=("latents",)))


def test_latents_and_texts_are_one_range_beside_the_head(sample):
    first, second = read_layout(sample).spans(["latents", "texts"])
    entries = {entry.name.partition(".")[2]: entry for entry in read_layout(sample).entries}
    assert first == (0, entries["frame00.jpg"].offset)
    assert second == (entries["latents.npy"].offset, len(sample))


def test_only_intact_parts_count_as_intact(sample):
    fields = ["latents", "texts"]
    part = packed(sample, fields)
    layout, data = unpack(part, fields)
    latents = next(entry for entry in layout.entries if entry.name.endswith(".latents.npy"))
    data[latents.start + 1000] ^= 1
    assert not layout.is_intact(data, fields)
    assert layout.is_intact(data, ["texts"])
    data[latents.start + 1000] ^= 1
    data[600] ^= 1  # in clip.json
    assert not layout.is_intact(data, ["texts"])


def with_meta(change) -> bytes:
    """The head of a sample with another clip.json."""
    meta = {"members": [{"name": name, "bytes": 1, "xxh3": "0" * 16} for name in schema.MEMBERS][1:]}
    change(meta)
    text = json.dumps(meta).encode()
    return tar.header(f"{KEY}.{schema.CLIP_JSON}", len(text)) + text.ljust(tar.padded(len(text)), b"\0")


@pytest.mark.parametrize(
    "change",
    [
        lambda meta: meta.update(members="all"),
        lambda meta: meta.update(members=[]),
        lambda meta: meta.update(members=[1, 2]),
        lambda meta: meta.update(members=meta["members"] * 1000),
        lambda meta: meta["members"][3].update(name="../../etc/passwd"),
        lambda meta: meta["members"][3].update(name=["frame03.jpg"]),
        lambda meta: meta["members"][3].update(bytes=10**15),
        lambda meta: meta["members"][3].update(bytes=-512),
        lambda meta: meta["members"][3].update(bytes=1.5),
        lambda meta: meta["members"][3].pop("bytes"),
    ],
)
def test_hostile_lists_of_members_are_refused(change):
    assert read_layout(with_meta(lambda meta: None)).num_bytes > 0
    with pytest.raises(ValueError, match="lists"):
        read_layout(with_meta(change))


def test_heads_that_begin_no_sample_are_refused(sample):
    assert head_bytes(sample, KEY) == head_bytes(sample[:512]) == read_layout(sample).entries[0].end
    most = schema.MEMBERS[schema.CLIP_JSON].max_bytes
    for wrong, match in (
        (sample[:511], "ends inside the header"),
        (bytes(1024), "damaged"),
        (tar.header(f"{KEY}.{schema.CLIP_JSON}", most + 1), f"expected at most {most}"),
        (tar.header(f"{KEY}.frame00.jpg", 5), "expected .*clip.json"),
        (tar.header("a/b-00.clip.json", 5), "expected .*clip.json"),
    ):
        with pytest.raises(ValueError, match=match):
            head_bytes(wrong)
    with pytest.raises(ValueError, match="expected other-00"):
        head_bytes(sample, "other-00")
    with pytest.raises(ValueError):
        unpack(sample[:-1], list(schema.FIELD_MEMBERS))
    with pytest.raises(ValueError):
        read_layout(tar.header(f"{KEY}.{schema.CLIP_JSON}", 5) + codec.encode_json([])[:5].ljust(512, b"\0"))
