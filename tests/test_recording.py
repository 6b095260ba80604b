"""The Rerun recording, read back by Rerun's own reader, holds the numbers of the clips."""

from __future__ import annotations

import builtins
import os
import subprocess
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import scanshards
from scanshards import codec, geometry
from scanshards.__main__ import main
from scanshards.recording import POINT_STRIDE, stored_pinhole, write_recording
from scanshards.write import write_shard
from tests.make_shards import make_objects, make_sample

rrd = pytest.importorskip("rerun.chunk")


def read_back(path):
    """(entity, component) -> values of its rows in order of `clip_frame`, each with its times."""
    found: dict[tuple[str, str], list] = {}
    for chunk in rrd.RrdReader(path).stream():
        batch = chunk.to_record_batch()
        columns = {name: batch.column(name).to_pylist() for name in batch.schema.names}
        for name in columns:
            if ":" in name:
                frames = columns.get("clip_frame", [None] * chunk.num_rows)
                sources = columns.get("source_frame", frames)
                rows = zip(frames, sources, columns[name], strict=True)
                found.setdefault((chunk.entity_path, name), []).extend(rows)
    return {key: sorted(rows, key=lambda row: row[0] or 0) for key, rows in found.items()}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A clip with a proposal beside its annotated objects, and its recording as read back."""
    folder = tmp_path_factory.mktemp("recording")
    sample = make_sample()
    added = {
        "boxes": [[1.5, 2.5, 0.5, 1.0, 2.0, 3.0]],
        "instance_ids": [7],
        "labels": [""],
        "nyu40_ids": [0],
        "sources": ["pred"],
        "scores": [0.0],
    }
    objects = {name: values + added[name] for name, values in make_objects().items()}
    members = sample.members | {"objects.json": codec.encode_json(objects)}
    write_shard(folder / "a.tar", [replace(sample, members=members)])
    out = folder / "a.rrd"
    assert main(["preview", "--rerun", "--out", str(out), str(folder / "a.tar")]) == 0
    (clip,) = scanshards.open(folder / "a.tar")
    return clip, read_back(out), out


def static(values, path, component):
    ((frame, _, value),) = values[f"/scene0000_00-00/{path}", component]
    assert frame is None
    return value


def test_points_are_the_coordinates_with_their_colours_frame_by_frame(recorded):
    clip, values, _ = recorded
    positions = values["/scene0000_00-00/world/points", "Points3D:positions"]
    colors = values["/scene0000_00-00/world/points", "Points3D:colors"]
    assert [row[:2] for row in positions] == list(enumerate(clip.frame_indices.tolist()))
    every = slice(POINT_STRIDE // 2, None, POINT_STRIDE)
    for k in (0, 1, 2, 31):
        valid = clip.depth[k, every, every] > 0
        assert np.array_equal(
            np.array(positions[k][2], np.float32).reshape(-1, 3), clip.coords[k, every, every][valid]
        )
        rgba = np.array(colors[k][2], np.uint32)
        assert np.array_equal(
            np.stack([rgba >> 24, rgba >> 16 & 255, rgba >> 8 & 255], axis=1).reshape(-1, 3),
            clip.frame(k)[every, every][valid],
        )
    assert positions[2][2] == []  # no depth at all: no point at the camera or anywhere else


def test_cameras_stand_where_the_clip_says_and_show_the_stored_pictures(recorded):
    clip, values, _ = recorded
    camera = "/scene0000_00-00/world/camera"
    places = [np.ravel(row[2]) for row in values[camera, "Transform3D:translation"]]
    turns = [np.reshape(row[2], (3, 3)).T for row in values[camera, "Transform3D:mat3x3"]]  # column-major
    assert np.array_equal(places, clip.world_from_cam[:, :3, 3].astype(np.float32))
    assert np.array_equal(turns, clip.world_from_cam[:, :3, :3].astype(np.float32))
    pictures = values[f"{camera}/image", "EncodedImage:blob"]
    assert [bytes(np.ravel(row[2]).astype(np.uint8)) for row in pictures] == clip.frame_jpegs()
    (strip,) = static(values, "world/path", "LineStrips3D:strips")
    assert np.array_equal(strip, clip.world_from_cam[:, :3, 3].astype(np.float32))


def test_the_pinhole_maps_points_to_the_pixels_they_came_from(recorded):
    """Depth is taken by the nearest rule, which floors: at most a source pixel, here 0.8 of a stored one."""
    clip, values, _ = recorded
    pinhole = np.reshape(static(values, "world/camera/image", "Pinhole:image_from_camera"), (3, 3)).T
    rows, columns = np.nonzero(clip.depth[0])
    points = clip.coords[0][rows, columns].astype(np.float64)
    cam_from_world = np.linalg.inv(clip.world_from_cam[0])
    pixels = (points @ cam_from_world[:3, :3].T + cam_from_world[:3, 3]) @ pinhole.T
    pixels = pixels[:, :2] / pixels[:, 2:] - 0.5  # Rerun counts from the corner
    offset = pixels - np.stack([columns, rows], axis=1)
    assert np.abs(offset).max() < 0.85
    assert np.abs(offset.mean(axis=0)).max() < 0.5


def test_boxes_carry_class_and_id_and_proposals_are_told_apart(recorded):
    clip, values, _ = recorded
    boxes = np.array(clip.objects["boxes"], np.float32)
    for name, rows, labels in (
        ("annotated", slice(0, 3), ["chair 0", "table 1", "table 2"]),
        ("proposed", slice(3, 4), ["proposal 7"]),
    ):
        path = f"world/boxes/{name}"
        assert np.array_equal(static(values, path, "Boxes3D:centers"), boxes[rows, :3])
        assert np.array_equal(static(values, path, "Boxes3D:half_sizes"), boxes[rows, 3:] / 2)
        assert static(values, path, "Boxes3D:labels") == labels


def test_the_world_is_z_up_and_the_bev_is_the_stored_one(recorded):
    clip, values, _ = recorded
    assert np.ravel(static(values, "world", "ViewCoordinates:xyz")).tolist() == [
        3,
        5,
        1,
    ]  # right, forward, up
    blob = np.ravel(static(values, "bev", "EncodedImage:blob")).astype(np.uint8)
    assert np.array_equal(cv2.cvtColor(cv2.imdecode(blob, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB), clip.bev)


def test_the_file_holds_one_recording_and_how_to_lay_it_out(recorded):
    reader = rrd.RrdReader(recorded[2])
    assert [entry.application_id for entry in reader.recordings()] == ["scanshards"]
    assert len(reader.blueprints()) == 1
    assert list(recorded[2].parent.glob(".*")) == []


def test_a_clip_without_bev_and_objects_has_neither(tmp_path):
    sample = make_sample()
    empty = {name: [] for name in make_objects()}
    meta = sample.meta | {"bev": sample.meta["bev"] | {"present": False}}
    members = sample.members | {"objects.json": codec.encode_json(empty)}
    write_shard(tmp_path / "a.tar", [replace(sample, meta=meta, members=members)])
    assert write_recording(tmp_path / "a.tar", tmp_path / "a.rrd") == 1
    entities = {entity.removeprefix("/scene0000_00-00/") for entity, _ in read_back(tmp_path / "a.rrd")}
    assert not any("boxes" in entity or "bev" in entity for entity in entities)
    assert "world/points" in entities


@given(
    st.integers(40, 2000),
    st.integers(40, 2000),
    st.tuples(st.floats(50, 2000), st.floats(50, 2000)),
    st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_corners_of_the_stored_picture_keep_their_rays(width, height, focal, middle):
    """The corners of the crop are points of the recorded picture: both pinholes see them in one direction."""
    plan = geometry.resize_plan(width, height)
    intrinsics = np.array([[focal[0], 0, width * middle[0]], [0, focal[1], height * middle[1]], [0, 0, 1]])
    stored = stored_pinhole(intrinsics, plan)
    for x, y in ((0, 0), (plan.size, plan.size)):
        ray = np.linalg.inv(stored) @ [x, y, 1]
        source = np.array([(x + plan.x) * width / plan.width, (y + plan.y) * height / plan.height]) - 0.5
        assert np.allclose(ray, np.linalg.inv(intrinsics) @ [*source, 1], atol=1e-9)


def test_without_rerun_the_error_says_what_to_install(tmp_path, monkeypatch, capsys):
    real = builtins.__import__

    def no_rerun(name, *rest):
        if name == "rerun":
            raise ImportError("No module named 'rerun'")
        return real(name, *rest)

    write_shard(tmp_path / "a.tar", [make_sample()])
    monkeypatch.setattr(builtins, "__import__", no_rerun)
    assert main(["preview", "--rerun", "--out", str(tmp_path / "a.rrd"), str(tmp_path / "a.tar")]) == 1
    assert "run `pip install 'scanshards[rerun]'`" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar"]


def test_damage_leaves_no_half_recording(tmp_path, capsys):
    write_shard(tmp_path / "a.tar", [make_sample()])
    data = bytearray((tmp_path / "a.tar").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "a.tar").write_bytes(data)
    assert main(["preview", "--rerun", "--out", str(tmp_path / "a.rrd"), str(tmp_path / "a.tar")]) == 1
    assert "a.tar" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar"]


def test_nothing_listens_and_a_switched_off_rerun_is_told(tmp_path):
    write_shard(tmp_path / "a.tar", [make_sample()])
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from scanshards.recording import write_recording\n"
        "write_recording(sys.argv[1], Path(sys.argv[2]))\n"
        "links = [os.readlink(f'/proc/self/fd/{fd}') for fd in os.listdir('/proc/self/fd')\n"
        "         if os.path.lexists(f'/proc/self/fd/{fd}')]\n"
        "own = {link[8:-1] for link in links if link.startswith('socket:')}\n"
        "for table in ('tcp', 'tcp6', 'udp', 'udp6'):\n"
        "    rows = Path(f'/proc/self/net/{table}').read_text().splitlines()[1:]\n"
        "    assert not own & {row.split()[9] for row in rows}, table\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a.tar"), str(tmp_path / "a.rrd")]
    subprocess.run(command, check=True)
    off = subprocess.run(command, env=os.environ | {"RERUN": "off"}, capture_output=True, text=True)
    assert off.returncode == 1
    assert "Rerun is switched off by RERUN=off" in off.stderr
