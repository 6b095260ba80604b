"""One sample (docs/format.md) out of what the stages stored about a scan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from pipeline.scans import ScanEntry
from scanshards import __version__, codec, geometry
from scanshards.schema import BEV_SIZE, FRAME_NAMES, MEMBERS, NO_BEV, NUM_FRAMES, OBJECT_FIELDS
from scanshards.write import Sample

OBJECT_COLUMNS = tuple(field.path for field in OBJECT_FIELDS)
CLIP_KEYS = (
    "frame_indices",
    "source",
    "resize",
    "crop",
    "depth_intrinsics",
    "color_intrinsics",
    "world_from_cam",
    "alignment",
)
"""What clip.json takes as it stands from the clips stage."""

Groups = Mapping[str, zarr.Group | None]
"""Group of the scan by stage; `clips` and `latents` must be there."""


def samples(
    entry: ScanEntry, groups: Groups, dataset: str, parameter_hash: str, store_coords: bool
) -> Iterator[Sample]:
    """The scan's samples in clip order, assembled one at a time."""
    bev = _bev(groups)
    objects, texts = _objects_and_texts(groups)
    for k, clip in enumerate(groups["clips"].attrs["clips"]):
        members = {
            **_frames(groups["clips"][f"{k:02d}"], clip, store_coords),
            **bev,
            **_latents(groups, k),
            "objects.json": objects,
            "texts.json": texts,
        }
        meta = {
            "scan_id": entry.scan_id,
            "dataset": dataset,
            "split": entry.split,
            **{key: clip[key] for key in CLIP_KEYS},
            "bev": _bev_meta(groups),
            "latents": groups["latents"].attrs["passport"],
            "bev_latents": groups["latents"].attrs["bev_passport"],
            "provenance": {
                "pipeline_version": __version__,
                "parameter_hash": parameter_hash,
                "inputs": _inputs(groups, clip),
            },
        }
        ordered = {name: members[name] for name in MEMBERS if name in members}
        yield Sample(f"{entry.scan_id}-{k:02d}", meta, ordered)


def _frames(group: zarr.Group, clip: dict[str, Any], store_coords: bool) -> dict[str, bytes]:
    """JPEG and depth members, and coordinates where asked for."""
    jpeg, offsets = group["jpeg"][:].tobytes(), group["jpeg_offsets"][:]
    files = [jpeg[offsets[i] : offsets[i + 1]] for i in range(NUM_FRAMES)]
    depth = np.asarray(group["depth"][:])
    members = dict(zip(FRAME_NAMES, files, strict=True)) | {"depth.npy.blosc": codec.encode_npy_blosc(depth)}
    if store_coords:
        members["coords.npy.blosc"] = codec.encode_npy_blosc(_coords_mm(depth, clip))
    return members


def _coords_mm(depth: NDArray[np.uint16], clip: dict[str, Any]) -> NDArray[np.int16]:
    """(32, 384, 384, 3) int16 world millimetres, a frame at a time."""
    source = clip["source"]
    u, v = geometry.source_pixels(geometry.resize_plan(source["depth_width"], source["depth_height"]))
    intrinsics, poses = np.array(clip["depth_intrinsics"]), np.array(clip["world_from_cam"])
    coords = np.zeros((*depth.shape, 3), np.int16)
    for i in range(len(depth)):
        coords[i] = geometry.coords_mm_from_coords(geometry.unproject(depth[i], intrinsics, poses[i], u, v))
    return coords


def _bev_meta(groups: Groups) -> dict[str, Any]:
    """clip.json's `bev`; the neutral one where there is no picture."""
    group = groups.get("bev")
    meta = NO_BEV if group is None else group.attrs["bev"]
    return meta if meta["present"] else NO_BEV


def _bev(groups: Groups) -> dict[str, bytes]:
    picture = np.zeros((BEV_SIZE, BEV_SIZE, 3), np.uint8)
    valid = np.zeros((BEV_SIZE, BEV_SIZE), bool)
    if _bev_meta(groups)["present"]:
        picture, valid = np.asarray(groups["bev"]["bev"][:]), np.asarray(groups["bev"]["valid"][:])
    mask = np.where(valid, np.uint8(255), np.uint8(0))
    return {"bev.png": codec.encode_png(picture), "bev_valid.png": codec.encode_png(mask)}


def _latents(groups: Groups, k: int) -> dict[str, bytes]:
    """Latents of clip k and of the bird's-eye view: zeros of the same shape where there is no picture."""
    group = groups["latents"]
    bev = np.asarray(group["bev_latents"][:])
    if not _bev_meta(groups)["present"]:
        bev = np.zeros_like(bev)
    views = np.asarray(group[f"{k:02d}"]["latents"][:])
    return {"latents.npy": codec.encode_npy(views), "bev_latents.npy": codec.encode_npy(bev)}


def _objects_and_texts(groups: Groups) -> tuple[bytes, bytes]:
    group = groups.get("texts")
    if group is None:
        return codec.encode_json({column: [] for column in OBJECT_COLUMNS}), codec.encode_json([])
    objects = {column: group.attrs["objects"][column] for column in OBJECT_COLUMNS}
    return codec.encode_json(objects), codec.encode_json(group.attrs["texts"])


def _inputs(groups: Groups, clip: dict[str, Any]) -> list[dict[str, Any]]:
    """What the clip, the mesh and the texts were read from, each name once."""
    found = list(clip["inputs"])
    for stage in ("meshes", "texts"):
        group = groups.get(stage)
        found += [] if group is None else group.attrs.get("inputs", [])
    by_name: dict[str, dict[str, Any]] = {}
    for item in found:
        by_name.setdefault(item["name"], item)
    return list(by_name.values())
