"""nerfstudio's transforms.json, read back by the rules that its documentation gives."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from make_shards import make_release, make_sample

import scanshards
from scanshards import geometry
from scanshards.export import export
from scanshards.write import write_shard


def square_sample():
    """Recorded at 384x384: no resize, so the exported camera is exact."""
    sample = make_sample("room", seed=3)
    plan = geometry.resize_plan(384, 384)
    meta = {
        "source": {**sample.meta["source"], "depth_width": 384, "depth_height": 384},
        "resize": {"width": 384, "height": 384},
        "crop": {"x": plan.x, "y": plan.y, "width": 384, "height": 384},
        "depth_intrinsics": [[350.0, 0, 190.3], [0, 352.5, 195.8], [0, 0, 1]],
    }
    return replace(sample, meta=sample.meta | meta)


def points_of(folder: Path, meta: dict, frame: dict) -> tuple[np.ndarray, np.ndarray]:
    """World points and depth (H, W) of a frame, by the documented conventions.

    OpenGL camera (x right, y up, z backward), pixel centres at halves, transform_matrix = world from camera,
    depth along the axis in millimetres (depth_unit_scale_factor 1e-3, the default).
    """
    depth = cv2.imread(str(folder / frame["depth_file_path"]), cv2.IMREAD_UNCHANGED)
    assert depth.dtype == np.uint16 and depth.shape == (meta["h"], meta["w"])
    rows, columns = np.indices(depth.shape) + 0.5
    ray = [(columns - meta["cx"]) / meta["fl_x"], -(rows - meta["cy"]) / meta["fl_y"], -np.ones(depth.shape)]
    pose = np.array(frame["transform_matrix"])
    return (np.stack(ray, -1) * (depth[..., None] / 1000)) @ pose[:3, :3].T + pose[:3, 3], depth


@pytest.mark.parametrize(("sample", "offset"), [(square_sample(), 0.0), (make_sample("room", seed=3), 0.375)])
def test_frames_unproject_to_the_coordinates(tmp_path, sample, offset):
    path = tmp_path / "scannet-000000.tar"
    write_shard(path, [sample])
    export(path, tmp_path / "out", "nerfstudio")
    assert json.loads((tmp_path / "out" / "export.json").read_text())["max_offset_px"] == [offset, offset]
    (clip,) = scanshards.open(path)
    folder = tmp_path / "out" / "room-00"
    meta = json.loads((folder / "transforms.json").read_text())
    assert (meta["camera_model"], meta["w"], meta["h"]) == ("OPENCV", 384, 384)
    assert len(meta["frames"]) == 32
    for i, frame in enumerate(meta["frames"]):
        points, depth = points_of(folder, meta, frame)
        np.testing.assert_array_equal(depth, clip.depth[i])
        assert (folder / frame["file_path"]).read_bytes() == clip.frame_jpegs()[i]
        valid = clip.coords_valid[i]
        bound = np.hypot(offset, offset) / clip.intrinsics[0, 0] * depth[valid] / 1000 + 1e-6
        assert (np.linalg.norm(points - clip.coords[i], axis=-1)[valid] <= bound).all()


def test_every_clip_has_its_folder_and_repeated_frames_appear_once(tmp_path):
    release = make_release(tmp_path, num_train=2, num_val=1)
    assert export([release / "*.tar", release / "val" / "*.tar"], tmp_path / "out", "nerfstudio") == 3
    names = sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_dir())
    assert names == ["scene0000_00-00", "scene0001_00-00", "scene5000_00-00"]
    sample = make_sample("room")
    sample = replace(sample, meta=sample.meta | {"frame_indices": [5] * 16 + [9] * 16})
    write_shard(tmp_path / "repeated.tar", [sample])
    export(tmp_path / "repeated.tar", tmp_path / "repeated", "nerfstudio")
    meta = json.loads((tmp_path / "repeated" / "room-00" / "transforms.json").read_text())
    assert [frame["file_path"] for frame in meta["frames"]] == ["images/00005.jpg", "images/00009.jpg"]
    images = (tmp_path / "repeated" / "room-00" / "images").iterdir()
    assert sorted(path.name for path in images) == ["00005.jpg", "00009.jpg"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depth_intrinsics": [[500.0, 3, 320], [0, 500, 240], [0, 0, 1]]}, "room-00: intrinsics have skew"),
        ({"frame_indices": [-1] * 32}, "room-00: got frame -1, expected 0 or more"),
    ],
)
def test_what_the_layout_cannot_say_is_refused(tmp_path, changes, message):
    sample = make_sample("room")
    write_shard(tmp_path / "scannet-000000.tar", [replace(sample, meta=sample.meta | changes)])
    with pytest.raises(ValueError, match=message):
        export(tmp_path / "scannet-000000.tar", tmp_path / "out", "nerfstudio")
    assert not (tmp_path / "out" / "room-00").exists()
