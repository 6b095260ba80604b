"""Where the members of a sample lie, from its first kilobytes: what to fetch for some fields alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import xxhash

from scanshards import codec, schema, tar
from scanshards.write import own_hash

HEAD_BYTES = 16_384
"""Fetched first: the header and, as a rule, all of clip.json."""
MERGE_BYTES = 1 << 18
"""A gap so small is fetched with what lies around it: a request costs more."""
MAX_SAMPLE_BYTES = sum(row.max_bytes + 2 * tar.BLOCK for row in schema.MEMBERS.values())
"""No sample of the format is larger."""

_MEMBERS_MARK = b',"members":['
_MEMBER_LISTS = ([*schema.MEMBERS], [name for name, row in schema.MEMBERS.items() if not row.optional])

Span = tuple[int, int]
"""First byte and the one after the last, counted from the sample's first header."""


@dataclass(frozen=True)
class Layout:
    """The members of one sample, as its clip.json lists them; not verified."""

    entries: tuple[tar.TarEntry, ...]
    hashes: tuple[str, ...]
    """XXH3-64 of each member but the first, clip.json."""

    @property
    def num_bytes(self) -> int:
        return self.entries[-1].end

    def contents(self, data: memoryview) -> dict[str, memoryview]:
        """Member name -> content, out of the sample's range."""
        return {
            entry.name.partition(".")[2]: data[entry.start : entry.start + entry.num_bytes]
            for entry in self.entries
        }

    def spans(self, fields: Sequence[str]) -> list[Span]:
        """What these fields need: clip.json, and headers and contents of their members, near ones joined."""
        wanted = {name for field in fields for name in schema.FIELD_MEMBERS[field]}
        spans = [(0, self.entries[0].end)]
        for entry in self.entries[1:]:
            if entry.name.partition(".")[2] not in wanted:
                continue
            if len(spans) > 1 and entry.offset - spans[-1][1] <= MERGE_BYTES:
                spans[-1] = spans[-1][0], entry.end
            else:
                spans.append((entry.offset, entry.end))
        return spans

    def is_intact(self, data: memoryview, fields: Sequence[str]) -> bool:
        """True if clip.json and all members that were fetched for the fields have their written hashes."""
        contents = [data[entry.start : entry.start + entry.num_bytes] for entry in self.entries]
        meta, spans = bytes(contents[0]), self.spans(fields)
        return meta.endswith(f'"xxh3":"{own_hash(meta)}"}}'.encode()) and all(
            xxhash.xxh3_64_hexdigest(content) == expected
            for entry, content, expected in zip(self.entries[1:], contents[1:], self.hashes, strict=True)
            if any(start <= entry.offset < end for start, end in spans)
        )


def head_bytes(start: bytes | memoryview, key: str = "") -> int:
    """Where the second member of a sample begins, from its first 512 bytes.

    ValueError: what starts here is not the clip.json of the sample `key` ("": of any).
    """
    first = tar.read_entry(start, 0)
    found, _, member = first.name.partition(".")
    if member != schema.CLIP_JSON or (key and found != key) or not schema.KEY_PATTERN.fullmatch(found):
        raise ValueError(f"got {first.name!r}, expected {key or 'a key'}.{schema.CLIP_JSON}")
    most = schema.MEMBERS[schema.CLIP_JSON].max_bytes
    if first.num_bytes > most:
        raise ValueError(f"{first.name}: got {first.num_bytes} bytes, expected at most {most}")
    return first.end


def read_layout(head: bytes | memoryview) -> Layout:
    """The layout of the sample that begins with these bytes. ValueError: damaged, or no sample."""
    first = tar.read_entry(head, 0)
    if first.num_bytes > schema.MEMBERS[schema.CLIP_JSON].max_bytes:
        raise ValueError(f"{first.name}: got {first.num_bytes} bytes, which is too large")
    rows = _listed_members(bytes(head[first.start : first.start + first.num_bytes]))
    if not isinstance(rows, list) or not 0 < len(rows) < len(schema.MEMBERS):
        raise ValueError(f"{first.name} lists no members")
    key, entries = first.name.partition(".")[0], [first]
    for row in rows:
        name, num_bytes = (row.get("name"), row.get("bytes")) if isinstance(row, dict) else (None, None)
        member = schema.MEMBERS.get(name) if isinstance(name, str) else None
        if member is None or type(num_bytes) is not int or not 0 <= num_bytes <= member.max_bytes:
            raise ValueError(f"{first.name} lists a member {str(row)[:60]}, expected those of the format")
        entries.append(tar.TarEntry(f"{key}.{name}", entries[-1].end, num_bytes))
    return Layout(tuple(entries), tuple(str(row.get("xxh3")) for row in rows))


def locate(data: memoryview, key: str, fields: Sequence[str]) -> Layout | None:
    """The layout of a whole sample, with a look at the headers and padding of what these fields need alone.

    None: something is not as this package writes it; who goes through all members finds out what.
    """
    try:
        layout = read_layout(data)
    except ValueError:
        return None
    names = [entry.name.partition(".")[2] for entry in layout.entries]
    first = layout.entries[0].name
    if (first, layout.num_bytes) != (f"{key}.{schema.CLIP_JSON}", len(data)) or names not in _MEMBER_LISTS:
        return None
    wanted = {schema.CLIP_JSON, *(name for field in fields for name in schema.FIELD_MEMBERS[field])}
    for name, entry in zip(names, layout.entries, strict=True):
        if name not in wanted:
            continue
        padding = bytes(data[entry.start + entry.num_bytes : entry.end])
        header = tar.header(entry.name, entry.num_bytes)
        if data[entry.offset : entry.start] != header or padding.strip(b"\0"):
            return None
    return layout


def _listed_members(clip_json: bytes) -> Any:
    """`members` of clip.json. As written they are its end, and the far longer beginning need not be parsed.

    A quote inside a JSON string is escaped, so the mark is none of a string. ValueError: not JSON.
    """
    start = clip_json.rfind(_MEMBERS_MARK)
    meta = codec.decode_json(b"{" + clip_json[start + 1 :] if start > 0 else clip_json)
    return meta.get("members") if isinstance(meta, dict) else None


def unpack(packed: bytes | memoryview, fields: Sequence[str]) -> tuple[Layout, memoryview]:
    """The range of a sample from its `spans` alone, one after the other. ValueError: not these.

    Members outside the spans get their headers, which follow from name and size, and zeros for content.
    """
    layout = read_layout(packed)
    spans = layout.spans(fields)
    if len(packed) != sum(end - start for start, end in spans):
        raise ValueError(f"got {len(packed)} bytes for {spans}")
    data, position = bytearray(layout.num_bytes), 0
    for entry in layout.entries:
        data[entry.offset : entry.start] = tar.header(entry.name, entry.num_bytes)
    for start, end in spans:
        data[start:end] = packed[position : position + end - start]
        position += end - start
    return layout, memoryview(data)
