"""One sample as arrays: split into members and checked when made, decoded on first use."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import xxhash
from numpy.typing import NDArray

from scanshards import codec, geometry, schema, tar
from scanshards.errors import CorruptSample
from scanshards.layout import locate
from scanshards.remote import RemoteOptions
from scanshards.write import own_hash


@dataclass(frozen=True)
class ReadOptions:
    """How clips are read."""

    verify: bool = True
    fields: tuple[str, ...] | None = None
    remote: RemoteOptions = RemoteOptions()

    def __post_init__(self) -> None:
        known = schema.FIELD_MEMBERS
        unknown = sorted(set(self.fields or ()) - set(known))
        if unknown:
            raise ValueError(f"fields: got {unknown[0]!r}, expected some of {', '.join(known)}")

    @classmethod
    def of(cls, verify: bool, fields: Sequence[str] | None, remote: RemoteOptions | None) -> ReadOptions:
        """From the arguments of `open` and `stream`. ValueError: an unknown field."""
        return cls(verify, None if fields is None else tuple(fields), remote or RemoteOptions())


class Clip:
    """One sample. Arrays are decoded on first use and kept; docs/geometry.md explains frames and units."""

    def __init__(self, file: str, key: str, data: bytes | memoryview, options: ReadOptions) -> None:
        self.file = file
        self.key = key
        self._options = options
        self._data = memoryview(data)
        if not schema.KEY_PATTERN.fullmatch(key):  # others build file names from it
            raise self._corrupt("", "expected a key of letters, digits, '_' and '-' that ends in '-NN'")
        layout = None if options.fields is None else locate(self._data, key, options.fields)
        self._members = self._split() if layout is None else layout.contents(self._data)
        if layout is None:
            self.meta  # noqa: B018 - it is checked at once
            return
        if options.verify:
            self._check_own_hash()
        self._hashes = dict(zip([*self._members][1:], layout.hashes, strict=True))

    def __repr__(self) -> str:
        return f"Clip({self.key!r} of {self.file!r})"

    def __reduce__(self) -> tuple[type[Clip], tuple[str, str, bytes, ReadOptions]]:
        # To another process goes what is stored, not what was decoded, nor a server's password.
        options = ReadOptions(self._options.verify, self._options.fields)
        return Clip, (self.file, self.key, bytes(self._data), options)

    @cached_property
    def meta(self) -> dict[str, Any]:
        """clip.json"""
        return self._read_meta()

    @property
    def scan_id(self) -> str:
        return self.meta["scan_id"]

    @property
    def split(self) -> Literal["train", "val"]:
        return self.meta["split"]

    @cached_property
    def frame_indices(self) -> NDArray[np.int64]:
        """(32,) number of each frame in the scan."""
        return np.array(self.meta["frame_indices"], np.int64)

    @cached_property
    def intrinsics(self) -> NDArray[np.float64]:
        """(3, 3) of the recorded depth image."""
        return np.array(self.meta["depth_intrinsics"], np.float64)

    @cached_property
    def world_from_cam(self) -> NDArray[np.float64]:
        """(32, 4, 4) metres."""
        return np.array(self.meta["world_from_cam"], np.float64)

    @cached_property
    def resize_plan(self) -> geometry.ResizePlan:
        """From recorded depth pixels to stored ones."""
        source, resize, crop = (self.meta[name] for name in ("source", "resize", "crop"))
        return geometry.ResizePlan(
            source["depth_width"],
            source["depth_height"],
            resize["width"],
            resize["height"],
            crop["x"],
            crop["y"],
            crop["width"],
        )

    @cached_property
    def frames(self) -> NDArray[np.uint8]:
        """(32, 384, 384, 3) RGB"""
        frames = np.zeros((schema.NUM_FRAMES, schema.FRAME_SIZE, schema.FRAME_SIZE, 3), np.uint8)
        for i in range(schema.NUM_FRAMES):
            frames[i] = self.frame(i)
        return frames

    def frame(self, i: int) -> NDArray[np.uint8]:
        """(384, 384, 3) RGB of frame i alone."""
        return self.member(schema.FRAME_NAMES[i])

    def frame_jpegs(self) -> list[bytes]:
        """The 32 JPEG files as stored."""
        return [bytes(self.stored(name)) for name in schema.FRAME_NAMES]

    @cached_property
    def depth(self) -> NDArray[np.uint16]:
        """(32, 384, 384) millimetres, 0 = missing"""
        return self.member("depth.npy.blosc")

    @cached_property
    def coords(self) -> NDArray[np.float32]:
        """(32, 384, 384, 3) world, metres; NaN where depth is missing"""
        u, v = geometry.source_pixels(self.resize_plan)
        return geometry.unproject(self.depth, self.intrinsics, self.world_from_cam, u, v)

    @cached_property
    def coords_valid(self) -> NDArray[np.bool_]:
        """(32, 384, 384) True where there is a coordinate"""
        return self.depth > 0

    def patch_coords(
        self,
        patch: int = 27,
        *,
        missing: Literal["ignore", "camera"] = "ignore",
        frames: Sequence[int] | None = None,
    ) -> NDArray[np.float32]:
        """(n, 384 // patch, 384 // patch, 3) mean world coordinate of each patch, metres.

        `ignore`: over pixels with depth, NaN where there is none; `camera`: a pixel without depth counts as
        the camera centre. frames: only these of the 32.
        """
        chosen = slice(None) if frames is None else list(frames)
        u, v = geometry.source_pixels(self.resize_plan)
        return geometry.patch_coords(
            self.depth[chosen], self.intrinsics, self.world_from_cam[chosen], u, v, patch, missing
        )

    @cached_property
    def bev(self) -> NDArray[np.uint8]:
        """(432, 432, 3) RGB from above, black = unseen"""
        return self.member("bev.png")

    @cached_property
    def bev_valid(self) -> NDArray[np.bool_]:
        """(432, 432) True where geometry covers the pixel"""
        return self.member("bev_valid.png") > 0

    @cached_property
    def latents(self) -> NDArray[np.float16]:
        """(32, m, 16, 27, 27); m = 2: mean and std, m = 1: no posterior; `meta["latents"]` says of what"""
        return self.member("latents.npy")

    @cached_property
    def bev_latents(self) -> NDArray[np.float16]:
        """(m, 16, 54, 54)"""
        return self.member("bev_latents.npy")

    @cached_property
    def objects(self) -> dict[str, list[Any]]:
        """Columns boxes, instance_ids, labels, nyu40_ids, sources, scores"""
        return self.member("objects.json")

    @cached_property
    def texts(self) -> list[dict[str, Any]]:
        """Questions, captions and referring expressions about the scan"""
        return self.member("texts.json")

    def member(self, name: str) -> Any:
        """Any member, decoded as stored; not kept. KeyError: the sample does not have it."""
        data = self.stored(name)
        try:
            return codec.decode(schema.MEMBERS[name], data)
        except ValueError as error:
            raise self._corrupt(name, str(error)) from error

    def stored(self, name: str) -> memoryview:
        """Any member's bytes as stored, verified. KeyError: the sample does not have it."""
        fields = self._options.fields
        if name not in self._members:
            raise KeyError(f"{name!r}: expected one of {', '.join(self._members)}")
        allowed = [member for field in fields or () for member in schema.FIELD_MEMBERS[field]]
        if fields is not None and name not in (schema.CLIP_JSON, *allowed):
            raise ValueError(f"{name} is not in fields={list(fields)}: add its field where clips are opened")
        if self._options.verify:
            self._check_hash(name)
        return self._members[name]

    @property
    def member_bytes(self) -> dict[str, int]:
        """Size of each member, in stored order."""
        return {name: len(data) for name, data in self._members.items()}

    def verify_members(self) -> None:
        """Check the hash of every member. CorruptSample: the first that differs."""
        for name in self._members:
            self._check_hash(name)

    def _corrupt(self, member: str, what: str) -> CorruptSample:
        return CorruptSample(self.file, self.key, member, what)

    def _split(self) -> dict[str, memoryview]:
        """Member name -> content, checked against the format's list, order and sizes."""
        members: dict[str, memoryview] = {}
        expected = iter(schema.MEMBERS.values())
        entries = tar.read_entries(self._data, 0, len(self._data))
        while True:
            row = next(expected, None)
            name = row.name if row else ""
            try:
                entry = next(entries, None)
            except ValueError as error:
                raise self._corrupt(name, str(error)) from error
            if entry is None and (row is None or row.optional):
                return members
            got = None if entry is None else entry.name
            if row is None or entry is None or got != f"{self.key}.{name}":
                raise self._corrupt(name, f"got {got!r} at its place, expected {self.key}.{name}")
            if entry.num_bytes > row.max_bytes:
                raise self._corrupt(name, f"got {entry.num_bytes} bytes, expected at most {row.max_bytes}")
            members[name] = self._data[entry.start : entry.start + entry.num_bytes]

    def _read_meta(self) -> dict[str, Any]:
        name = schema.CLIP_JSON
        if self._options.verify:
            self._check_own_hash()
        try:
            meta = codec.decode(schema.MEMBERS[name], self._members[name])
            codec.check_clip(meta, self.key)
        except ValueError as error:
            raise self._corrupt(name, str(error)) from error
        listed = [(row["name"], row["bytes"]) for row in meta["members"]]
        stored = [(member, len(data)) for member, data in self._members.items() if member != name]
        for got, expected in itertools.zip_longest(stored, listed):
            if got != expected:
                wrong = got[0] if got else name
                raise self._corrupt(wrong, f"got (name, bytes) {got}, expected {expected} as in {name}")
        return meta

    def _check_own_hash(self) -> None:
        data = bytes(self._members[schema.CLIP_JSON])
        got = own_hash(data)
        if not data.endswith(f'"xxh3":"{got}"}}'.encode()):
            raise self._corrupt(schema.CLIP_JSON, f"XXH3-64 is {got}, expected {data[-18:-2]!r} at its end")

    @cached_property
    def _hashes(self) -> dict[str, str]:
        return {row["name"]: row["xxh3"] for row in self.meta["members"]}

    def _check_hash(self, name: str) -> None:
        if name == schema.CLIP_JSON:
            return self._check_own_hash()
        got = xxhash.xxh3_64_hexdigest(self._members[name])
        if got != self._hashes[name]:
            raise self._corrupt(name, f"XXH3-64 is {got}, expected {self._hashes[name]}")
