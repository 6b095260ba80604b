"""The sample format, version 1, as tables: members of a sample and fields of its JSON (docs/format.md).

The tables of docs/format.md repeat these; a test compares them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

FORMAT_VERSION = 1
NUM_FRAMES = 32
FRAME_SIZE = 384
BEV_SIZE = 432
LATENT_CHANNELS = 16
VIEW_IMAGE_SIZE = 216
VIEW_LATENT_SIZE = 27
BEV_LATENT_SIZE = 54
JPEG_QUALITY = 95
MISSING_COORD_MM = -32768

KEY_PATTERN = re.compile(r"[A-Za-z0-9_-]{1,76}-[0-9]{2,3}")
"""A sample's key: scan id, `-`, clip number; short enough for a ustar name with any member."""
HASH_PATTERN = re.compile(r"[0-9a-f]{16}")
SHA256_PATTERN = re.compile(r"[0-9a-f]{64}")

NO_BEV: dict[str, Any] = {
    "present": False,
    "metres_per_pixel": 0.0,
    "world_from_bev": [[float(row == column) for column in range(4)] for row in range(4)],
    "height_range_m": [0.0, 0.0],
    "valid_fraction": 0.0,
    "renderer": "",
}
"""`bev` in clip.json of a clip without a bird's-eye view."""

_MIB = 1 << 20


@dataclass(frozen=True)
class Member:
    """One file of a sample."""

    name: str
    kind: Literal["json", "jpeg", "png", "npy", "npy.blosc"]
    dtype: str
    """NumPy dtype string of the decoded array; "" for JSON."""
    shape: tuple[int | tuple[int, ...], ...]
    """Decoded shape; a tuple in place of a size lists the allowed sizes."""
    max_bytes: int
    """A larger member is refused before anything is decoded."""
    meaning: str
    optional: bool = False


CLIP_JSON = "clip.json"
COORDS_NAME = "coords.npy.blosc"
FRAME_NAMES = tuple(f"frame{i:02d}.jpg" for i in range(NUM_FRAMES))

_MAP = (NUM_FRAMES, FRAME_SIZE, FRAME_SIZE)
_COLOR = (FRAME_SIZE, FRAME_SIZE, 3)
_BEV = (BEV_SIZE, BEV_SIZE)
_VIEW_LATENTS = (NUM_FRAMES, (1, 2), LATENT_CHANNELS, VIEW_LATENT_SIZE, VIEW_LATENT_SIZE)
_BEV_LATENTS = ((1, 2), LATENT_CHANNELS, BEV_LATENT_SIZE, BEV_LATENT_SIZE)

_MEMBERS = (
    Member(CLIP_JSON, "json", "", (), 4 * _MIB, "what the clip is: see below"),
    *(
        Member(name, "jpeg", "u1", _COLOR, 4 * _MIB, f"colour of frame {i}, RGB, JPEG quality 95")
        for i, name in enumerate(FRAME_NAMES)
    ),
    Member("depth.npy.blosc", "npy.blosc", "<u2", _MAP, 16 * _MIB, "depth, millimetres, 0 = missing"),
    Member("bev.png", "png", "u1", (*_BEV, 3), 4 * _MIB, "bird's-eye view, RGB, black = unseen"),
    Member("bev_valid.png", "png", "u1", _BEV, _MIB, "255 where geometry covers the pixel, else 0"),
    Member("latents.npy", "npy", "<f2", _VIEW_LATENTS, 4 * _MIB, "latents of the frames"),
    Member("bev_latents.npy", "npy", "<f2", _BEV_LATENTS, _MIB, "latents of the bird's-eye view"),
    Member("objects.json", "json", "", (), 16 * _MIB, "objects of the scan: see below"),
    Member("texts.json", "json", "", (), 64 * _MIB, "texts about the scan: see below"),
    Member(
        COORDS_NAME,
        "npy.blosc",
        "<i2",
        (*_MAP, 3),
        64 * _MIB,
        "world coordinates, millimetres, -32768 = missing",
        optional=True,
    ),
)

MEMBERS: dict[str, Member] = {member.name: member for member in _MEMBERS}
"""Member name -> row, in the order in which members are stored."""

FIELD_MEMBERS: dict[str, tuple[str, ...]] = {
    "frames": FRAME_NAMES,
    "depth": ("depth.npy.blosc",),
    "coords": ("depth.npy.blosc",),
    "coords_valid": ("depth.npy.blosc",),
    "patch_coords": ("depth.npy.blosc",),
    "bev": ("bev.png",),
    "bev_valid": ("bev_valid.png",),
    "latents": ("latents.npy",),
    "bev_latents": ("bev_latents.npy",),
    "objects": ("objects.json",),
    "texts": ("texts.json",),
}
"""What a `Clip` offers -> the members that it is decoded from (`clip.json` is always read)."""


@dataclass(frozen=True)
class Field:
    """One JSON value. `a.b`: field b of object a; `a[].b`: field b of each object in list a."""

    path: str
    type: Literal["int", "float", "string", "bool"]
    shape: tuple[int | None, ...]
    """() for one value; sizes of nested lists, None = any length."""
    meaning: str


_M4 = (4, 4)


def _passport(name: str, what: str) -> tuple[Field, ...]:
    return (
        Field(f"{name}.codec", "string", (), f"codec of the {what} latents: `flux`, `taef1` or `tiny`"),
        Field(f"{name}.model_id", "string", (), "hub id or name of the weights"),
        Field(f"{name}.weights_sha256", "string", (), "SHA-256 of the weights file, 64 hex digits"),
        Field(f"{name}.scaling_factor", "float", (), "`scale` in (z - shift) · scale"),
        Field(f"{name}.shift_factor", "float", (), "`shift` in (z - shift) · scale"),
        Field(f"{name}.input_width", "int", (), "width of the encoded image, pixels"),
        Field(f"{name}.input_height", "int", (), "height of the encoded image, pixels"),
        Field(f"{name}.filter", "string", (), "how the stored image was resized to it; `none` = not at all"),
        Field(f"{name}.dtype", "string", (), "number type of the stored latents"),
        Field(f"{name}.posterior", "bool", (), "true: m = 2, mean and std are stored; false: m = 1"),
    )


CLIP_FIELDS: tuple[Field, ...] = (
    Field("format_version", "int", (), "1"),
    Field("scan_id", "string", (), "id of the scan, no dot"),
    Field("dataset", "string", (), "where the scan comes from"),
    Field("split", "string", (), "`train` or `val`"),
    Field("frame_indices", "int", (NUM_FRAMES,), "number of each frame in the scan; may repeat"),
    Field("source.color_width", "int", (), "colour width as recorded, pixels"),
    Field("source.color_height", "int", (), "colour height as recorded, pixels"),
    Field("source.depth_width", "int", (), "depth width as recorded, pixels"),
    Field("source.depth_height", "int", (), "depth height as recorded, pixels"),
    Field("resize.width", "int", (), "width after resizing, before the crop, pixels"),
    Field("resize.height", "int", (), "height after resizing, before the crop, pixels"),
    Field("crop.x", "int", (), "first column of the crop in the resized image"),
    Field("crop.y", "int", (), "first row of the crop in the resized image"),
    Field("crop.width", "int", (), "384"),
    Field("crop.height", "int", (), "384"),
    Field("depth_intrinsics", "float", (3, 3), "of the recorded depth image, pixels"),
    Field("color_intrinsics", "float", (3, 3), "of the recorded colour image, pixels"),
    Field("world_from_cam", "float", (NUM_FRAMES, *_M4), "pose of each frame, metres, alignment applied"),
    Field("alignment", "float", _M4, "world from the scan's own frame, already in `world_from_cam`"),
    Field("bev.present", "bool", (), "false: black image, zero mask, zero latents, identity, zeros"),
    Field("bev.metres_per_pixel", "float", (), "metres"),
    Field("bev.world_from_bev", "float", _M4, "[x y z 1] from [u v h 1], metres"),
    Field("bev.height_range_m", "float", (2,), "lowest and highest height that was drawn, metres"),
    Field("bev.valid_fraction", "float", (), "share of pixels that `bev_valid.png` covers"),
    Field("bev.renderer", "string", (), "what drew it"),
    *_passport("latents", "view"),
    *_passport("bev_latents", "bird's-eye view"),
    Field("provenance.pipeline_version", "string", (), "version of the program that built the sample"),
    Field("provenance.parameter_hash", "string", (), "hash of its parameters"),
    Field("provenance.inputs[].name", "string", (), "what was read of the scan"),
    Field("provenance.inputs[].bytes", "int", (), "its size"),
    Field("provenance.inputs[].xxh3", "string", (), "its XXH3-64, 16 hex digits"),
    Field("members[].name", "string", (), "every member but `clip.json`, in stored order"),
    Field("members[].bytes", "int", (), "its size"),
    Field("members[].xxh3", "string", (), "its XXH3-64, 16 hex digits"),
    Field("xxh3", "string", (), "XXH3-64 of this member with these 16 digits replaced by `0`"),
)

OBJECT_FIELDS: tuple[Field, ...] = (
    Field("boxes", "float", (None, 6), "centre x y z, size x y z; world, metres, axis-aligned"),
    Field(
        "instance_ids",
        "int",
        (None,),
        "of `gt`: the object's id in the annotation; of `pred`: its row in the detector's file",
    ),
    Field("labels", "string", (None,), "raw category; empty for a `pred` without a class"),
    Field("nyu40_ids", "int", (None,), "NYU40 class, 0 = none"),
    Field("sources", "string", (None,), "`gt` (annotated) or `pred` (proposed)"),
    Field("scores", "float", (None,), "confidence; 1 for `gt`, 0 for a `pred` without one"),
)
"""All columns have the same length N."""

TEXT_FIELDS: tuple[Field, ...] = (
    Field("[].id", "string", (), "unique within task and scan"),
    Field("[].task", "string", (), "`sqa3d`, `scanqa`, `scan2cap`, `scanrefer` or `multi3drefer`"),
    Field("[].question_type", "string", (), "class of the question, empty where the task has none"),
    Field("[].situation", "string", (), "where one stands, empty where the task has none"),
    Field("[].question", "string", (), "question or description as published; empty for captions"),
    Field("[].answers", "string", (None,), "all accepted answers or captions; empty for grounding"),
    Field("[].target_ids", "int", (None,), "ids of the `gt` objects that are meant"),
    Field("[].box", "float", (None,), "captions: centre and size of the object, metres; else empty"),
)

INDEX_FIELDS: tuple[Field, ...] = (
    Field("format_version", "int", (), "1"),
    Field("dataset", "string", (), "as in every sample"),
    Field("parameter_hash", "string", (), "as in every sample's provenance"),
    Field("versions.scanshards", "string", (), "version of the writer"),
    Field("versions.cv2", "string", (), "OpenCV: JPEG and PNG bytes depend on it"),
    Field("versions.numcodecs", "string", (), "Blosc bytes depend on it"),
    Field("versions.numpy", "string", (), "NumPy"),
    Field("versions.python", "string", (), "Python"),
    Field("versions.platform", "string", (), "operating system and processor"),
    Field("shards[].file", "string", (), "path relative to `index.json`, `/` between parts"),
    Field("shards[].split", "string", (), "`train` or `val`"),
    Field("shards[].bytes", "int", (), "size of the file"),
    Field("shards[].sha256", "string", (), "SHA-256 of the file, 64 hex digits"),
    Field("shards[].inputs", "string", (), "the builder's own mark of what the shard was made from"),
    Field("shards[].samples[].key", "string", (), "key of the sample"),
    Field("shards[].samples[].offset", "int", (), "where its first header starts in the file"),
    Field("shards[].samples[].bytes", "int", (), "length of its range: headers, contents, padding"),
    Field("shards[].samples[].xxh3", "string", (), "XXH3-64 of that range, 16 hex digits"),
    Field("totals.shards", "int", (), "number of shards"),
    Field("totals.samples", "int", (), "number of samples"),
    Field("totals.scans", "int", (), "number of scans in them"),
    Field("totals.bytes", "int", (), "bytes of all shards"),
    Field("rejected[].scan_id", "string", (), "a scan that is not in the shards"),
    Field("rejected[].reason", "string", (), "why"),
    Field("root_hash", "string", (), "SHA-256 over the shard hashes, see below"),
)

TABLES: dict[str, tuple[Field, ...]] = {
    CLIP_JSON: CLIP_FIELDS,
    "objects.json": OBJECT_FIELDS,
    "texts.json": TEXT_FIELDS,
    "index.json": INDEX_FIELDS,
}
