"""The one error of reading: bytes are not what the shard's writer wrote."""

from __future__ import annotations


class CorruptSample(ValueError):
    """A shard, a sample, a member or an index is damaged or breaks the format.

    `file`: path or URL; `key` and `member`: "" where the damage lies outside one.
    """

    def __init__(self, file: str, key: str, member: str, what: str) -> None:
        self.file, self.key, self.member, self.what = file, key, member, what
        places = [file, f"sample {key}" if key else "", f"member {member}" if member else ""]
        super().__init__(f"{', '.join(place for place in places if place)}: {what}")

    def __reduce__(self) -> tuple[type[CorruptSample], tuple[str, str, str, str]]:
        return CorruptSample, (self.file, self.key, self.member, self.what)
