"""The folder that Video-3D-LLM and ROSS3D read (their `data/`), without its pickles.

OUT/scannet/posed_images/SCAN/00000.jpg .png .txt, intrinsic.txt, depth_intrinsic.txt
OUT/scannet/scans/SCAN/view_0.jpg, SCAN.txt      from above, in the middle of 576x432; axisAlignment
OUT/processed/sqa_task/sqa3d_train_llava_style.json and so on, by task and split
OUT/metadata/scannet_train_gt_box.json, scannet_val_pred_box.json
OUT/embodiedscan/embodiedscan_infos_train.json, ..._val.json
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from scanshards import codec, schema
from scanshards.clip import Clip
from scanshards.export import camera, llava
from scanshards.export.camera import Raster
from scanshards.export.folder import ExportFolder, JsonLists

BEV_WIDTH = 576
"""The published loader stretches any picture to 576x432 and cuts 432x432 out of its middle."""
MAX_PROPOSALS = 50
"""Rows of a scan that the published preprocessing keeps."""
MAX_OBJECT_ID = 9_999
"""Boxes are found by row number, so a large id would call for as many rows."""
NO_BOX = [0.0] * 6
"""A row whose object does not exist: no pixel is inside it."""


@dataclass
class Scan:
    """What is gathered of a scan while its clips go by."""

    first: Clip
    objects: dict[str, list[Any]] = field(default_factory=dict)
    texts: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    """By (task, id): clips of one scan repeat the scan's texts."""
    images: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Frame number -> its row in the info file."""
    contents: dict[int, str] = field(default_factory=dict)
    """Frame number -> hash of what was written for it."""


def write(clips: Iterable[Clip], folder: ExportFolder, raster: Raster) -> dict[str, Any]:
    """Write all clips, a folder a scan; returns what `export.json` has to say."""
    facts: dict[str, Any] = {"scans": 0, "texts": {}, "boxes_filled": 0, "max_offset_px": [0.0, 0.0]}
    with folder.lists() as lists:
        for _, members in itertools.groupby(clips, lambda clip: clip.scan_id):
            scan = _write_scan(members, folder, raster)
            offset = camera.crop_view(scan.first.resize_plan, scan.first.intrinsics).offset_px
            if raster == "crop":
                facts["max_offset_px"] = [
                    max(pair) for pair in zip(facts["max_offset_px"], offset, strict=True)
                ]
            facts["scans"] += 1
            _write_info(scan, lists, raster)
            facts["boxes_filled"] += _write_boxes(scan, lists)
            _write_texts(scan, lists, facts["texts"])
    return facts


def _write_scan(members: Iterator[Clip], folder: ExportFolder, raster: Raster) -> Scan:
    """Pictures, poses and intrinsics of one scan, unless they are there; its texts are always read."""
    scan = Scan(next(members))
    scan.objects = scan.first.objects
    scan_id = scan.first.scan_id
    _write_scan_files(scan.first, folder)
    name = f"scannet/posed_images/{scan_id}"
    frames = contextlib.nullcontext() if folder.has(name) else folder.folder(name)
    with frames as place:
        if place is not None:
            for file, matrix in zip(
                ("intrinsic.txt", "depth_intrinsic.txt"), _intrinsics(scan.first, raster), strict=True
            ):
                (place / file).write_bytes(camera.matrix_text(matrix))
        for clip in itertools.chain([scan.first], members):
            _check_alike(clip, scan.first)
            _add_texts(clip, scan.texts)
            if place is not None:
                _write_frames(clip, place, raster, scan.contents)
            poses = camera.scan_from_cam(clip)
            for number, i in camera.unique_frames(clip).items():
                path = f"{name}/{number:05d}"
                scan.images[number] = {
                    "img_path": f"{path}.jpg",
                    "depth_path": f"{path}.png",
                    "cam2global": poses[i].tolist(),
                }
    return scan


def _add_texts(clip: Clip, texts: dict[tuple[str, str], dict[str, Any]]) -> None:
    """ValueError: two texts with one id."""
    for text in clip.texts:
        if texts.setdefault((text["task"], text["id"]), text) != text:
            raise ValueError(
                f"{clip.file}, sample {clip.key}: {text['task']} text {text['id']!r} is there twice and "
                "differs, expected one text for an id"
            )


def _check_alike(clip: Clip, first: Clip) -> None:
    """ValueError: clips of one scan that cannot share a folder."""
    for name in ("split", "source", "depth_intrinsics", "color_intrinsics", "alignment", "bev"):
        if clip.meta[name] != first.meta[name]:
            raise ValueError(
                f"{clip.file}, sample {clip.key}: {name} differs from {first.key}, expected one for a scan"
            )


def _write_frames(clip: Clip, place: Path, raster: Raster, contents: dict[int, str]) -> None:
    """One colour picture, depth picture and pose a frame. ValueError: two clips disagree about a frame."""
    colors, poses = camera.color_files(clip, raster), camera.scan_from_cam(clip)
    for number, i in camera.unique_frames(clip).items():
        files = {
            "jpg": colors[i],
            "png": camera.depth_bytes(clip, i, raster),
            "txt": camera.matrix_text(poses[i]),
        }
        content = xxhash.xxh3_64_hexdigest(b"".join(files.values()))
        if contents.setdefault(number, content) != content:
            raise ValueError(
                f"{clip.file}, sample {clip.key}: frame {number} is not as in an earlier clip of the scan"
            )
        for suffix, data in files.items():
            (place / f"{number:05d}.{suffix}").write_bytes(data)


def _write_scan_files(clip: Clip, folder: ExportFolder) -> None:
    """The alignment, and the view from above (black where there is none: the loader needs one of all)."""
    name = f"scannet/scans/{clip.scan_id}"
    if folder.has(name):
        return
    canvas = np.zeros((schema.BEV_SIZE, BEV_WIDTH, 3), np.uint8)
    margin = (BEV_WIDTH - schema.BEV_SIZE) // 2
    canvas[:, margin : margin + schema.BEV_SIZE] = clip.bev
    alignment = " ".join(repr(value) for row in clip.meta["alignment"] for value in row)
    with folder.folder(name) as place:
        (place / "view_0.jpg").write_bytes(codec.encode_jpeg(canvas))
        (place / f"{clip.scan_id}.txt").write_text(f"axisAlignment = {alignment}\n")


def _intrinsics(clip: Clip, raster: Raster) -> tuple[np.ndarray, np.ndarray]:
    """(4, 4) of the exported colour and depth pictures."""
    plan = clip.resize_plan
    if raster == "crop":
        crop = camera.matrix4(camera.crop_view(plan, clip.intrinsics).intrinsics)
        return crop, crop
    color = camera.resized_view(plan, clip.intrinsics).intrinsics
    return camera.matrix4(color), camera.matrix4(clip.intrinsics)


def _write_info(scan: Scan, lists: JsonLists, raster: Raster) -> None:
    """The scan's row of EmbodiedScan's info file, with the keys that the loader looks at."""
    color, depth = _intrinsics(scan.first, raster)
    row = {
        "sample_idx": f"scannet/{scan.first.scan_id}",
        "axis_align_matrix": scan.first.meta["alignment"],
        "cam2img": color.tolist(),
        "depth_cam2img": depth.tolist(),
        "images": [scan.images[number] for number in sorted(scan.images)],
    }
    file = f"embodiedscan/embodiedscan_infos_{scan.first.split}.json"
    lists.add(file, row, '{"metainfo": {}, "data_list": ', "}")


def _write_boxes(scan: Scan, lists: JsonLists) -> int:
    """Annotated boxes of a training scan, the row being the object's id; proposals of a held-out one.

    Returns how many rows had to be filled because no object has that id.
    """
    name = f"scannet/{scan.first.scan_id}"
    if scan.first.split != "train":
        proposals = _boxes(scan, "pred")
        if proposals:
            lists.put("metadata/scannet_val_pred_box.json", name, list(proposals.values())[:MAX_PROPOSALS])
        return 0
    boxes = _boxes(scan, "gt")
    rows = [boxes.get(i, NO_BOX) for i in range(max(boxes, default=-1) + 1)]
    lists.put("metadata/scannet_train_gt_box.json", name, rows)
    return len(rows) - len(boxes)


def _boxes(scan: Scan, source: str) -> dict[int, list[float]]:
    """Boxes of annotated (`gt`) or detected (`pred`) objects by their id, in stored order."""
    columns = (scan.objects[name] for name in ("sources", "instance_ids", "boxes"))
    boxes: dict[int, list[float]] = {}
    for kind, object_id, box in zip(*columns, strict=True):
        if kind != source:
            continue
        if object_id in boxes or not 0 <= object_id <= MAX_OBJECT_ID:
            raise ValueError(
                f"{scan.first.file}, sample {scan.first.key}: got {source} object {object_id}, "
                f"expected every id once, from 0 to {MAX_OBJECT_ID}"
            )
        boxes[object_id] = box
    return boxes


def _write_texts(scan: Scan, lists: JsonLists, counts: dict[str, int]) -> None:
    """Records of all texts, by task and split; rows without an official id are numbered from 0."""
    boxes, proposals = _boxes(scan, "gt"), list(_boxes(scan, "pred").values())
    for (task, _), text in scan.texts.items():
        file = llava.file_name(task, scan.first.split)
        made = llava.records(text, scan.first.scan_id, scan.first.split, boxes, proposals[:MAX_PROPOSALS])
        for record in made:
            number = counts.get(file, 0)
            counts[file] = number + 1
            lists.add(file, {"id": number, **record})
