"""The ScanNet files of a synthetic room, read back by other means than the pipeline's."""

import dataclasses
import hashlib
import io
import json
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import trimesh

from pipeline.config import Config, DaskConfig, SynthConfig
from pipeline.synth import build as build_module
from pipeline.synth.build import MARKER, build, make_scene, plan_rooms, write_scan
from pipeline.synth.labels import COLUMNS, NYU40, label_table
from pipeline.synth.scene import Scene

SMALL = SynthConfig(
    frames=12, color_width=162, color_height=121, depth_width=160, depth_height=120, depth_noise=False
)
SCAN = "scene8005_00"


@pytest.fixture(scope="module")
def scene() -> Scene:
    return make_scene(SCAN, "bathroom", SMALL)


@pytest.fixture(scope="module")
def folder(scene, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("first") / SCAN
    write_scan(scene, path, SMALL)
    return path


def read_sens(path: Path) -> dict:
    """A second reader of the format, by struct alone; asserts that the file ends with the IMU tail."""
    data = io.BytesIO(path.read_bytes())

    def take(form: str) -> tuple:
        return struct.unpack("<" + form, data.read(struct.calcsize("<" + form)))

    version, length = take("IQ")
    assert version == 4
    data.read(length)
    matrices = np.array(take("64f")).reshape(4, 4, 4)
    assert take("2i") == (2, 1)  # JPEG colour, zlib depth
    sizes = take("4I")
    (shift,), (count,) = take("f"), take("Q")
    frames = []
    for _ in range(count):
        pose = np.array(take("16f")).reshape(4, 4)
        color_us, depth_us, color_bytes, depth_bytes = take("4Q")
        frames.append((pose, color_us, depth_us, data.read(color_bytes), data.read(depth_bytes)))
    (records,) = take("Q")
    imu = [take("15dQ") for _ in range(records)]
    assert data.read() == b""
    return {"matrices": matrices, "sizes": sizes, "shift": shift, "frames": frames, "imu": imu}


def read_meta(folder: Path) -> dict[str, str]:
    return dict(line.split(" = ") for line in (folder / f"{SCAN}.txt").read_text().splitlines())


def alignment_of(folder: Path) -> np.ndarray:
    return np.array(read_meta(folder)["axisAlignment"].split(), float).reshape(4, 4)


def world_vertices(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Vertices in the world (product in float64, then float32), and faces, read by trimesh."""
    mesh = trimesh.load(folder / f"{SCAN}_vh_clean_2.ply", process=False)
    matrix = alignment_of(folder)
    return (mesh.vertices @ matrix[:3, :3].T + matrix[:3, 3]).astype(np.float32), mesh.faces


def instance_ids(folder: Path) -> np.ndarray:
    """Per vertex, from segments and groups; later groups win."""
    segments = np.array(
        json.loads((folder / f"{SCAN}_vh_clean_2.0.010000.segs.json").read_text())["segIndices"]
    )
    ids = np.full(len(segments), -1)
    for group in json.loads((folder / f"{SCAN}.aggregation.json").read_text())["segGroups"]:
        ids[np.isin(segments, group["segments"])] = group["objectId"]
    return ids


def test_two_writes_give_the_same_bytes(scene, folder, tmp_path):
    write_scan(make_scene(SCAN, "bathroom", SMALL), tmp_path / SCAN, SMALL)
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted(path.name for path in (tmp_path / SCAN).iterdir()) and len(names) == 6
    for name in names:
        roots = (folder, tmp_path / SCAN)
        digests = [hashlib.sha256((root / name).read_bytes()).hexdigest() for root in roots]
        assert digests[0] == digests[1], name


def test_sens_holds_frames_lost_poses_and_an_imu_tail(folder):
    sens = read_sens(folder / f"{SCAN}.sens")
    assert sens["sizes"] == (162, 121, 160, 120) and sens["shift"] == 1000.0
    assert len(sens["frames"]) == 12
    lost = [np.isneginf(frame[0]).all() for frame in sens["frames"]]
    assert sum(lost) == 1 and not lost[0]
    times = [frame[1] for frame in sens["frames"]]
    assert (np.diff(times) > 0).all()
    for pose, _, _, color, depth in sens["frames"]:
        assert np.isfinite(pose).all() or np.isneginf(pose).all()
        assert cv2.imdecode(np.frombuffer(color, np.uint8), cv2.IMREAD_COLOR).shape == (121, 162, 3)
        assert len(zlib.decompress(depth)) == 160 * 120 * 2
    imu = np.array([record[:15] for record in sens["imu"]])
    assert len(imu) == 48 and np.isfinite(imu).all()
    np.testing.assert_allclose(np.linalg.norm(imu[:, 12:15], axis=1), 1, atol=1e-6)  # gravity
    assert np.abs(imu[:, :3]).max() < 3  # rad/s


def test_meta_file_agrees_with_the_sens_header(folder):
    meta, sens = read_meta(folder), read_sens(folder / f"{SCAN}.sens")
    keys = (
        "colorWidth colorHeight depthWidth depthHeight fx_color fy_color mx_color my_color fx_depth fy_depth "
        "mx_depth my_depth colorToDepthExtrinsics axisAlignment deviceId deviceName sceneLabel sceneType "
        "numDepthFrames numColorFrames numIMUmeasurements"
    )
    assert list(meta) == keys.split()
    assert (int(meta["numColorFrames"]), int(meta["numIMUmeasurements"])) == (12, 48)
    for matrix, name in ((sens["matrices"][0], "color"), (sens["matrices"][2], "depth")):
        values = [matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]]
        stored = [float(meta[f"{key}_{name}"]) for key in ("fx", "fy", "mx", "my")]
        np.testing.assert_allclose(values, stored, rtol=1e-6)


def test_alignment_is_a_real_turn_about_z(folder):
    matrix = alignment_of(folder)
    np.testing.assert_allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3), atol=2e-6)
    angle = np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0])) % 90
    assert 9.9 < angle < 80.1
    assert np.linalg.norm(matrix[:2, 3]) > 0.1


def test_boxes_from_the_files_are_those_of_the_scene(scene, folder):
    vertices, _ = world_vertices(folder)
    ids = instance_ids(folder)
    assert set(ids) == {obj.instance_id for obj in scene.objects}
    for obj in scene.objects:
        own = vertices[ids == obj.instance_id].astype(np.float64)
        low, high = own.min(axis=0), own.max(axis=0)
        np.testing.assert_allclose((low + high) / 2, obj.center, atol=2e-6)
        np.testing.assert_allclose(high - low, obj.size, atol=4e-6)


def test_segments_belong_to_one_instance_and_are_small(folder):
    aggregation = json.loads((folder / f"{SCAN}.aggregation.json").read_text())
    members = [segment for group in aggregation["segGroups"] for segment in group["segments"]]
    assert len(members) == len(set(members)) > 3 * len(aggregation["segGroups"])
    assert [group["objectId"] for group in aggregation["segGroups"]] == list(
        range(len(aggregation["segGroups"]))
    )
    assert all(group["label"] in NYU40 for group in aggregation["segGroups"])


def test_depth_lies_on_the_mesh_of_the_files(folder):
    sens = read_sens(folder / f"{SCAN}.sens")
    vertices, faces = world_vertices(folder)
    triangles = vertices[faces].astype(np.float64)
    k = sens["matrices"][2]
    rng = np.random.default_rng(1)
    distances = []
    for pose, _, _, _, payload in sens["frames"][:6]:
        if not np.isfinite(pose).all():
            continue
        depth = np.frombuffer(zlib.decompress(payload), "<u2").reshape(120, 160) / 1000.0
        world_from_cam = alignment_of(folder) @ pose
        for _ in range(12):
            u, v = int(rng.integers(160)), int(rng.integers(120))
            z = depth[v, u]
            at = world_from_cam @ ((u - k[0, 2]) * z / k[0, 0], (v - k[1, 2]) * z / k[1, 1], z, 1.0)
            near = np.abs(triangles.mean(axis=1) - at[:3]).max(axis=1) < 0.3
            closest = trimesh.triangles.closest_point(triangles[near], np.tile(at[:3], (near.sum(), 1)))
            distances.append(np.linalg.norm(closest - at[:3], axis=1).min())
    assert np.median(distances) < 0.0005
    assert np.max(distances) < 0.002


def test_mesh_has_colours_and_one_segment_per_vertex(folder):
    mesh = trimesh.load(folder / f"{SCAN}_vh_clean_2.ply", process=False)
    assert len(instance_ids(folder)) == len(mesh.vertices)
    header = (folder / f"{SCAN}_vh_clean_2.ply").read_bytes()[:400].decode("latin1")
    assert "format binary_little_endian 1.0" in header and "property uchar alpha" in header
    colors = mesh.visual.vertex_colors
    assert (colors[:, 3] == 255).all() and colors[:, :3].std() > 20


def test_label_table_maps_every_class():
    lines = [line.split("\t") for line in label_table().splitlines()]
    assert tuple(lines[0]) == COLUMNS and {len(line) for line in lines} == {17}
    assert {line[1]: int(line[4]) for line in lines[1:]} == NYU40
    names = {line[1]: line[7] for line in lines[1:]}
    assert (names["nightstand"], names["couch"], names["cup"]) == ("night stand", "sofa", "otherprop")


@pytest.fixture
def quick(monkeypatch) -> list[str]:
    """Replace sampling and rendering by one small file; returns the scans that were written."""
    written = []

    def write(scene: Scene, folder: Path, config: SynthConfig) -> None:
        written.append(scene.scan_id)
        (folder / f"{scene.scan_id}.sens").write_text(str(config.frames))

    def empty_room(scan_id: str, seed: int, room_type: str) -> Scene:
        return Scene(scan_id, room_type, (3.0, 3.0, 2.5), (), (), seed)

    monkeypatch.setattr(build_module, "sample_scene", empty_room)
    monkeypatch.setattr("pipeline.synth.scannet_files.write_scan_files", write)
    monkeypatch.setattr(build_module, "write_annotations", lambda *_: None)
    return written


def config_for(work: Path, **changes) -> Config:
    return Config(
        work=str(work),
        synth=dataclasses.replace(SMALL, train_rooms=2, val_rooms=1, **changes),
        dask=DaskConfig(scheduler="none"),
    )


def test_build_writes_only_what_is_due_and_leaves_foreign_scans(quick, tmp_path):
    config = config_for(tmp_path)
    build(config)
    assert quick == ["scene8000_00", "scene8001_00", "scene8100_00"]
    foreign = tmp_path / "synth" / "scans" / "scene0000_00"
    foreign.mkdir()
    (foreign / "scene0000_00.sens").write_text("theirs")
    torn = tmp_path / "synth" / "scans" / ".scene8001_00.tmp"
    torn.mkdir()
    quick.clear()
    assert "0 scans written, 3 up to date, 0 removed" in build(config)
    assert quick == [] and not torn.exists()
    more = dataclasses.replace(config, synth=dataclasses.replace(config.synth, train_rooms=3))
    build(more)
    assert quick == ["scene8002_00"]
    assert "1 removed" in build(config)
    assert not (tmp_path / "synth" / "scans" / "scene8002_00").exists()
    assert (foreign / "scene0000_00.sens").read_text() == "theirs"


def test_other_parameters_rewrite_the_scans(quick, tmp_path):
    build(config_for(tmp_path))
    quick.clear()
    build(config_for(tmp_path, seed=1))
    assert len(quick) == 3


def test_split_lists_and_label_table_lie_beside_the_scans(quick, tmp_path):
    build(config_for(tmp_path))
    root = tmp_path / "synth"
    assert (root / "scannetv2_train.txt").read_text() == "scene8000_00\nscene8001_00\n"
    assert (root / "scannetv2_val.txt").read_text() == "scene8100_00\n"
    assert (root / "scannetv2-labels.combined.tsv").read_text() == label_table()
    assert (root / "scans" / "scene8000_00" / MARKER).is_file()


def test_too_many_rooms_are_refused_by_name():
    with pytest.raises(ValueError, match="synth.train_rooms: got 101, expected 0 to 100"):
        plan_rooms(SynthConfig(train_rooms=101))


def test_rooms_take_turns_and_ids_do_not_depend_on_their_number():
    few, many = plan_rooms(SynthConfig(train_rooms=2)), plan_rooms(SynthConfig(train_rooms=8))
    assert set(few) <= set(many)
    assert len({kind for scan, kind in many if scan.startswith("scene80")}) == 6
