"""The canonical ustar layout of a shard: one header per (name, size), zero padding, zeros at the end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

BLOCK = 512
END = bytes(2 * BLOCK)
_NAME_BYTES = 100
_MAX_BYTES = 8**11 - 1
_OWNERS = b"0000644\0" + b"0000000\0" * 2
_TIME = b"%011o\0" % 0
_REST = b"0" + bytes(100) + b"ustar\x0000" + bytes(64) + bytes(16 + 155 + 12)
_FIXED_SUM = sum(_OWNERS + _TIME + b" " * 8 + _REST)
"""The checksum counts its own field as blanks."""


class TarEntry(NamedTuple):
    """One file inside a tar; `offset` is where its header starts, its content follows 512 bytes later."""

    name: str
    offset: int
    num_bytes: int

    @property
    def start(self) -> int:
        return self.offset + BLOCK

    @property
    def end(self) -> int:
        """Where the next header starts."""
        return self.start + padded(self.num_bytes)


def padded(num_bytes: int) -> int:
    return -(-num_bytes // BLOCK) * BLOCK


def header(name: str, num_bytes: int) -> bytes:
    """The 512 bytes before a file's content: ustar, mode 0644, all owners and times 0."""
    raw = name.encode("ascii")
    if not 1 <= len(raw) <= _NAME_BYTES or not 0 <= num_bytes <= _MAX_BYTES:
        raise ValueError(f"tar member {name!r} of {num_bytes} bytes: expected a name of 1 to 100 characters")
    size = b"%011o\0" % num_bytes
    checksum = _FIXED_SUM + sum(raw) + sum(size)
    return b"".join((raw.ljust(_NAME_BYTES, b"\0"), _OWNERS, size, _TIME, b"%06o\0 " % checksum, _REST))


def read_entry(data: bytes | memoryview, offset: int) -> TarEntry:
    """The file whose header is at `offset`. ValueError: the header is cut off or not the canonical one."""
    block = bytes(data[offset : offset + BLOCK])
    if len(block) < BLOCK:
        raise ValueError(f"ends inside the header at byte {offset}")
    raw_name, raw_size = block[:100].rstrip(b"\0"), block[124:135]
    try:
        name, num_bytes = raw_name.decode("ascii"), int(raw_size, 8)
        canonical = header(name, num_bytes)
    except ValueError:
        canonical = b""
    if block != canonical:
        raise ValueError(f"the header at byte {offset} is damaged or was not written by this format")
    return TarEntry(name, offset, num_bytes)


def read_entries(data: bytes | memoryview, offset: int, end: int) -> Iterator[TarEntry]:
    """The files in data[offset:end]. ValueError: damaged header, content cut off, padding not zero."""
    while offset < end:
        entry = read_entry(data, offset)
        content_end, next_offset = entry.start + entry.num_bytes, entry.end
        if next_offset > end:
            raise ValueError(f"{entry.name}: {entry.num_bytes} bytes from byte {entry.start} do not fit")
        if bytes(data[content_end:next_offset]).strip(b"\0"):
            raise ValueError(f"{entry.name}: padding after its content is not zero")
        yield entry
        offset = next_offset
