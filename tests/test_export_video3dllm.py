"""The Video-3D-LLM / ROSS3D folder, read back as the published loader and our own pipeline read it."""

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from make_shards import make_objects, make_sample, make_texts
from PIL import Image
from source_layouts import entries

import scanshards
from pipeline.sources import open_source
from scanshards import codec, geometry
from scanshards.export import camera, export, llava
from scanshards.tasks import new_text
from scanshards.write import Sample, write_shard

SIZES = [(640, 480), (480, 640), (384, 384), (160, 120), (1023, 767), (301, 900)]
TURN = np.array([[0.6, -0.8, 0, 1.5], [0.8, 0.6, 0, -2.0], [0, 0, 1, 0.25], [0, 0, 0, 1]])


def sized_sample(scan_id: str, size: tuple[int, int] = (640, 480), **changes) -> Sample:
    """A sample whose depth was recorded at `size`, in a scan that is turned against the world."""
    sample = make_sample(scan_id, seed=1)
    plan = geometry.resize_plan(*size)
    focal = 0.9 * max(size)
    meta = {
        "source": {**sample.meta["source"], "depth_width": size[0], "depth_height": size[1]},
        "resize": {"width": plan.width, "height": plan.height},
        "crop": {"x": plan.x, "y": plan.y, "width": plan.size, "height": plan.size},
        "depth_intrinsics": [[focal, 0, size[0] / 2 - 3.7], [0, 1.02 * focal, size[1] / 2 + 2.3], [0, 0, 1]],
        "alignment": TURN.tolist(),
    }
    return replace(sample, meta=sample.meta | meta | changes)


def shard_of(folder: Path, *samples: Sample) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "scannet-000000.tar"
    write_shard(path, samples)
    return path


def with_json(sample: Sample, **members) -> Sample:
    encoded = {f"{name}.json": codec.encode_json(value) for name, value in members.items()}
    return replace(sample, members=sample.members | encoded)


def loaded(out: Path, name: str):
    return json.loads((out / name).read_text())


def frames_of(out: Path, split: str = "train"):
    """What the published loader takes from the files: per frame colour, depth, intrinsics, world_from_cam."""
    (info,) = loaded(out, f"embodiedscan/embodiedscan_infos_{split}.json")["data_list"]
    scan = out / "scannet" / "posed_images" / info["sample_idx"].partition("/")[2]
    intrinsics = np.loadtxt(scan / "depth_intrinsic.txt")
    np.testing.assert_array_equal(intrinsics, info["depth_cam2img"])
    np.testing.assert_array_equal(np.loadtxt(scan / "intrinsic.txt"), info["cam2img"])
    for image in info["images"]:
        path = out / image["img_path"]
        depth = cv2.imread(str(out / image["depth_path"]), cv2.IMREAD_UNCHANGED)
        pose = np.loadtxt(path.with_suffix(".txt"))
        np.testing.assert_array_equal(pose, image["cam2global"])
        yield path, depth, intrinsics, np.array(info["axis_align_matrix"]) @ pose


def unprojected(depth: np.ndarray, intrinsics: np.ndarray, world_from_cam: np.ndarray) -> np.ndarray:
    """As published: integer pixel indices, z = depth / 1000; NaN where there is no depth."""
    v, u = np.indices(depth.shape)
    z = np.where(depth > 0, depth / 1000, np.nan)
    x = (u - intrinsics[0, 2]) / intrinsics[0, 0] * z
    y = (v - intrinsics[1, 2]) / intrinsics[1, 1] * z
    return np.stack([x, y, z], -1) @ world_from_cam[:3, :3].T + world_from_cam[:3, 3]


@pytest.mark.parametrize("size", SIZES)
def test_the_stored_crops_unproject_to_within_the_stated_part_of_a_recorded_pixel(tmp_path, size):
    path = shard_of(tmp_path / "shards", sized_sample("room", size))
    export(path, tmp_path / "out", "video3dllm")
    stated = np.array(loaded(tmp_path / "out", "export.json")["max_offset_px"])
    assert (stated <= 0.5).all()
    (clip,) = scanshards.open(path)
    largest = np.zeros(2)
    for i, (_, depth, intrinsics, pose) in enumerate(frames_of(tmp_path / "out")):
        np.testing.assert_array_equal(depth, clip.depth[i])
        got = unprojected(depth, intrinsics, pose)
        # The difference along the camera's own axes, in recorded pixels at that depth.
        apart = (got - clip.coords[i]) @ clip.world_from_cam[i][:3, :3] / (depth[..., None] / 1000 + 1e-9)
        valid = clip.coords_valid[i]
        if valid.any():
            focal = clip.intrinsics[[0, 1], [0, 1]]
            largest = np.maximum(largest, np.abs(apart[valid][:, :2] * focal).max(axis=0))
            assert np.abs(apart[valid][:, 2]).max() < 1e-6
    np.testing.assert_allclose(largest, stated, atol=2e-3)  # float32 coordinates: 1e-3 of a pixel


@pytest.mark.parametrize("size", [(640, 480), (384, 384), (1023, 767)])
def test_at_the_recorded_place_the_published_arithmetic_gives_our_coordinates(tmp_path, size):
    path = shard_of(tmp_path / "shards", sized_sample("room", size))
    export(path, tmp_path / "out", "video3dllm", raster="source")
    (clip,) = scanshards.open(path)
    for i, (file, depth, intrinsics, pose) in enumerate(frames_of(tmp_path / "out")):
        assert depth.shape == size[::-1]
        width = int(depth.shape[1] * 384 / depth.shape[0])
        x = (width - 384) // 2
        coords = cv2.resize(
            unprojected(depth, intrinsics, pose), (width, 384), interpolation=cv2.INTER_NEAREST
        )
        np.testing.assert_allclose(coords[:, x : x + 384], clip.coords[i], atol=2e-6, rtol=0)
        # The loader's resize to (width, 384) changes nothing, and its crop cuts out the stored frame.
        canvas = np.pad(clip.frame(i), ((0, 0), (x, width - 384 - x), (0, 0)))
        expected = clip.frame_jpegs()[i] if width == 384 else codec.encode_jpeg(canvas)
        assert file.read_bytes() == expected


def test_pictures_are_the_stored_files(tmp_path):
    path = shard_of(tmp_path / "shards", sized_sample("room"))
    export(path, tmp_path / "out", "video3dllm")
    (clip,) = scanshards.open(path)
    files = [file for file, *_ in frames_of(tmp_path / "out")]
    assert [file.stem for file in files] == [f"{number:05d}" for number in range(0, 320, 10)]
    assert [file.read_bytes() for file in files] == clip.frame_jpegs()
    with Image.open(tmp_path / "out" / "scannet" / "scans" / "room" / "view_0.jpg") as image:
        top = np.asarray(image.resize((576, 432)).crop((72, 0, 504, 432)))
    assert np.abs(top.astype(int) - clip.bev).mean() < 3


def test_our_pipeline_reads_the_export_as_a_scan(tmp_path):
    path = shard_of(tmp_path / "shards", sized_sample("room"))
    export(path, tmp_path / "out", "video3dllm", raster="source")
    scan = tmp_path / "out" / "scannet" / "posed_images" / "room"
    shutil.copy(tmp_path / "out" / "scannet" / "scans" / "room" / "room.txt", scan)
    (entry,) = entries(scan.parent)
    assert (entry.scan_id, entry.source) == ("room", "posed_images")
    (clip,) = scanshards.open(path)
    with open_source(entry) as source:
        np.testing.assert_array_equal(source.depth_intrinsics, clip.intrinsics)
        np.testing.assert_allclose(source.alignment @ source.poses, clip.world_from_cam, atol=1e-12)
        plan = geometry.resize_plan(*source.depth_size)
        for i in range(0, 32, 7):
            np.testing.assert_array_equal(geometry.resize_depth(source.depth(i), plan), clip.depth[i])


def test_repeated_frames_are_written_once_and_clips_of_one_scan_together(tmp_path):
    numbers = [n // 2 for n in range(32)]
    poses = np.repeat(make_sample().meta["world_from_cam"][:16], 2, axis=0)
    repeated = sized_sample("room", frame_indices=numbers, world_from_cam=poses)
    pictures = {f"frame{i:02d}.jpg": repeated.members[f"frame{i // 2:02d}.jpg"] for i in range(32)}
    depth = codec.decode_npy_blosc(repeated.members["depth.npy.blosc"], "<u2", (32, 384, 384))
    depth = codec.encode_npy_blosc(np.repeat(depth[:16], 2, axis=0))
    first = replace(repeated, members=repeated.members | pictures | {"depth.npy.blosc": depth})
    second = replace(
        sized_sample("room", frame_indices=list(range(32))), key="room-01", members=repeated.members
    )
    export(shard_of(tmp_path / "shards", first, second), tmp_path / "out", "video3dllm")
    files = list(frames_of(tmp_path / "out"))
    assert [file.name for file, *_ in files] == [f"{number:05d}.jpg" for number in range(32)]
    assert len(loaded(tmp_path / "out", "processed/sqa_task/sqa3d_train_llava_style.json")) == 1
    assert loaded(tmp_path / "out", "export.json")["scans"] == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frame_indices": list(range(32))}, "room-01: frame 10 is not as in an earlier clip"),
        ({"alignment": np.eye(4).tolist()}, "room-01: alignment differs from room-00"),
    ],
)
def test_clips_of_a_scan_that_contradict_each_other_are_refused(tmp_path, changes, message):
    second = replace(sized_sample("room", **changes), key="room-01")
    path = shard_of(tmp_path / "shards", sized_sample("room"), second)
    with pytest.raises(ValueError, match=message):
        export(path, tmp_path / "out", "video3dllm")


def test_clips_of_a_scan_that_are_apart_are_refused(tmp_path):
    names = [("a", "a-00"), ("a-00", "a-00-00"), ("a", "a-01")]
    samples = [replace(sized_sample(scan_id), key=key) for scan_id, key in names]
    with pytest.raises(ValueError, match="^a: its clips are not next to each other"):
        export(shard_of(tmp_path / "shards", *samples), tmp_path / "out", "video3dllm")


def test_a_singular_alignment_is_refused(tmp_path):
    flat = np.diag([1.0, 1.0, 0.0, 1.0]).tolist()
    path = shard_of(tmp_path / "shards", sized_sample("room", alignment=flat))
    with pytest.raises(ValueError, match="room-00: alignment is singular"):
        export(path, tmp_path / "out", "video3dllm")


QUESTION = {"question": "what Is it", "answers": ["A Chair", "seat"], "target_ids": [1]}
ROOM_BOXES = dict(enumerate(make_objects()["boxes"]))
HELD_OUT_BOX = [0.5, 0.25, 0.4, 0.5, 0.5, 0.8]


def record_of(task: str, split: str, proposals=(), **fields):
    text = new_text(task, fields.pop("id", "7"), **fields)
    return llava.records(text, "scene0000_00", split, ROOM_BOXES, proposals)


def test_questions_are_records_as_published():
    turns = [
        {
            "value": "<image> I sit. what Is it Answer the question using a single word or phrase.",
            "from": "human",
        },
        {"value": "A Chair", "from": "gpt"},
    ]
    for text_id, number in (("220602000000", 220602000000), ("220602000000-2", 220602000000), ("q7", "q7")):
        (record,) = record_of(
            "sqa3d", "train", id=text_id, situation="I sit.", question_type="what", **QUESTION
        )
        assert record == {
            "id": number,
            "video": "scannet/scene0000_00",
            "conversations": turns,
            "metadata": {"dataset": "sqa3d", "question_type": "what"},
        }
    train = record_of("scanqa", "train", id="train-scene0000-0", **QUESTION)
    assert [record["id"] for record in train] == ["scanqa_train-scene0000-0_0", "scanqa_train-scene0000-0_1"]
    assert [record["conversations"][1]["value"] for record in train] == ["A Chair", "seat"]
    assert train[0]["metadata"] == {"dataset": "scanQA", "question_type": "unknow"}
    human = "<image> what Is it Answer the question simply."
    assert train[1]["conversations"][0] == {"value": human, "from": "human"}
    (held_out,) = record_of("scanqa", "val", id="val-scene0011-0", **QUESTION)
    assert held_out["id"] == "scanqa_val-scene0011-0_0"
    assert held_out["metadata"]["answers"] == ["A Chair", "seat"]
    assert record_of("sqa3d", "train", question="what") == []
    assert record_of("sqa3d", "val", question="what")[0]["conversations"][1]["value"] == ""


def test_captions_are_records_as_published():
    fields = {"answers": ["The RED chair. ", "second"], "target_ids": [0], "box": HELD_OUT_BOX}
    (train,) = record_of("scan2cap", "train", id="scene0000_00|0|3", question_type="unique", **fields)
    prompt = "<image> Given an object located at <coord> , describe the object in detail."
    assert train == {
        "video": "scannet/scene0000_00",
        "conversations": [
            {"value": prompt, "from": "human"},
            {"value": "The red chair. ", "from": "gpt"},
        ],
        "metadata": {"dataset": "scan2cap", "question_type": "unique", "ann_id": "3", "object_id": "0"},
        "gt_box": HELD_OUT_BOX,
        "box_input": HELD_OUT_BOX,
    }
    fields["id"] = "scene0000_00|0|chair"
    (plain,) = record_of("scan2cap", "val", **fields)
    assert (plain["box_input"], plain["annotations"]) == (HELD_OUT_BOX, ["The RED chair. ", "second"])
    near, far = [*HELD_OUT_BOX[:5], 0.9], [9.0, 9, 9, 1, 1, 1]
    (found,) = record_of("scan2cap", "val", [far, near, list(near)], **fields)
    assert (found["box_input"], found["gt_box"]) == (near, HELD_OUT_BOX)
    (lost,) = record_of("scan2cap", "val", [far], **fields)
    assert lost["box_input"] is None


def test_grounding_is_records_as_published():
    asked = "<image>Identify the object according to the following description.\nThe red chair"
    (one,) = record_of("scanrefer", "train", question="the RED chair", target_ids=[1], question_type="unique")
    assert one == {
        "video": "scannet/scene0000_00",
        "conversations": [{"value": asked, "from": "human"}, {"value": "<ground>", "from": "gpt"}],
        "metadata": {"dataset": "scanrefer", "question_type": "unique", "object_id": "1"},
        "box": ROOM_BOXES[1],
    }
    more = "\nThere may be no corresponding object, or there may be one or more objects."
    (many,) = record_of(
        "multi3drefer", "train", question="the RED chair", target_ids=[2, 0], question_type="mt"
    )
    assert many["conversations"][0]["value"] == asked + more
    assert (many["metadata"]["object_id"], many["box"]) == ([2, 0], [ROOM_BOXES[2], ROOM_BOXES[0]])
    (none,) = record_of("multi3drefer", "train", question="a dog")
    assert (none["metadata"]["object_id"], none["box"]) == ([], [])
    with pytest.raises(ValueError, match=r"scene0000_00, scanrefer text '7': object 9 has no box"):
        record_of("scanrefer", "train", question="x", target_ids=[9])
    with pytest.raises(ValueError, match=r"got objects \[1, 2\], expected exactly one"):
        record_of("scanrefer", "train", question="x", target_ids=[1, 2])


def test_overlap_of_boxes():
    assert llava.iou([0, 0, 0, 2, 2, 2], [0, 0, 0, 2, 2, 2]) == 1
    assert llava.iou([0, 0, 0, 2, 2, 2], [1, 0, 0, 2, 2, 2]) == pytest.approx(1 / 3)
    assert llava.iou([0, 0, 0, 2, 2, 2], [3, 0, 0, 2, 2, 2]) == 0
    assert llava.iou([0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]) == 0


def test_files_of_records_and_boxes(tmp_path):
    columns = {name: values[:2] for name, values in make_objects().items()} | {"instance_ids": [3, 1]}
    gaps = with_json(sized_sample("a"), objects=columns, texts=[])
    found = {name: values * 20 for name, values in make_objects().items()}
    found |= {"instance_ids": list(range(60)), "sources": ["pred"] * 60, "scores": [0.5] * 60}
    both = {name: make_objects()[name] + found[name] for name in found}
    held_out = with_json(sized_sample("c", split="val"), objects=both, texts=make_texts())
    bare = with_json(sized_sample("d", split="val"), texts=make_texts())
    path = shard_of(
        tmp_path / "shards", gaps, with_json(sized_sample("b"), texts=make_texts()), held_out, bare
    )
    export(path, tmp_path / "out", "video3dllm")
    boxes = make_objects()["boxes"]
    assert loaded(tmp_path / "out", "metadata/scannet_train_gt_box.json") == {
        "scannet/a": [[0.0] * 6, boxes[1], [0.0] * 6, boxes[0]],
        "scannet/b": boxes,
    }
    proposals = loaded(tmp_path / "out", "metadata/scannet_val_pred_box.json")
    assert proposals == {"scannet/c": (boxes * 20)[:50]}
    captions = loaded(tmp_path / "out", "processed/scan2cap/scan2cap_val_llava_style.json")
    assert [(row["id"], row["video"]) for row in captions] == [(0, "scannet/c"), (1, "scannet/d")]
    facts = loaded(tmp_path / "out", "export.json")
    assert facts["boxes_filled"] == 2
    assert facts["texts"] == {
        f"processed/{file}_{split}_llava_style.json": count
        for split, count in (("train", 1), ("val", 2))
        for file in ("sqa_task/sqa3d", "scan2cap/scan2cap", "multi3drefer/multi3drefer")
    }
    infos = loaded(tmp_path / "out", "embodiedscan/embodiedscan_infos_val.json")
    assert [row["sample_idx"] for row in infos["data_list"]] == ["scannet/c", "scannet/d"]


@pytest.mark.parametrize("ids", [[0, 0], [-1, 0], [0, 10_000]])
def test_object_ids_that_are_no_row_numbers_are_refused(tmp_path, ids):
    columns = {name: values[:2] for name, values in make_objects().items()} | {"instance_ids": ids}
    path = shard_of(tmp_path / "shards", with_json(sized_sample("room"), objects=columns))
    with pytest.raises(ValueError, match=r"room-00: got gt object -?\d+, expected every id once, from 0 to"):
        export(path, tmp_path / "out", "video3dllm")


def test_numbers_in_text_files_are_exact():
    matrix = np.random.default_rng(0).normal(size=(4, 4)) * 10.0 ** np.arange(-8, 8).reshape(4, 4)
    np.testing.assert_array_equal(np.loadtxt(io.BytesIO(camera.matrix_text(matrix))), matrix)
