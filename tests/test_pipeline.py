"""Scans to shards as a whole: coordinates are where the room is, and the index tells what happened."""

import json
import shutil

import numpy as np
import pytest
import trimesh

import scanshards
from pipeline.config import load_config
from pipeline.run import main, run
from scanshards.index import load_index
from tests.conftest import STAGES


def surface(build, scan_id: str):
    """The scan's own mesh in world coordinates, read without our code, as a distance query."""
    import open3d

    folder = build.config.scans_dir / scan_id
    mesh = trimesh.load(folder / f"{scan_id}_vh_clean_2.ply", process=False)
    line = next(x for x in (folder / f"{scan_id}.txt").read_text().splitlines() if "axisAlignment" in x)
    alignment = np.array(line.split("=")[1].split(), np.float64).reshape(4, 4)
    vertices = mesh.vertices @ alignment[:3, :3].T + alignment[:3, 3]
    scene = open3d.t.geometry.RaycastingScene()
    tensor = open3d.core.Tensor
    scene.add_triangles(tensor(np.array(vertices, np.float32)), tensor(np.array(mesh.faces, np.uint32)))
    return lambda points: scene.compute_distance(tensor(np.array(points, np.float32))).numpy()


def test_coordinates_of_synthetic_scans_lie_on_the_room(build):
    for clip in scanshards.open(build.train):
        points = clip.coords[clip.coords_valid]
        distances = surface(build, clip.scan_id)(points[:: max(1, len(points) // 20000)])
        assert np.median(distances) < 0.001, "metres"
        assert np.quantile(distances, 0.99) < 0.005


def test_every_room_is_in_its_split_with_texts_objects_and_bev(build):
    train, val = list(scanshards.open(build.train)), list(scanshards.open(build.val))
    assert [clip.key for clip in val] == ["scene8100_00-00"]
    assert sorted(clip.key for clip in train) == ["scene8000_00-00", "scene8001_00-00"]
    for clip in train + val:
        assert clip.meta["bev"]["present"]
        assert clip.bev_valid.mean() == pytest.approx(clip.meta["bev"]["valid_fraction"], abs=1e-6)
        assert len(clip.objects["boxes"]) >= 10
        assert {text["task"] for text in clip.texts} >= {"sqa3d", "scanqa", "scanrefer", "multi3drefer"}
        assert set(clip.frame_indices) <= set(range(36))
        assert np.isfinite(clip.latents.astype(np.float32)).all()


def test_a_rebuild_gives_the_same_root_hash(build, tmp_path):
    places = [f"work={tmp_path / 'work'}", f"shards.out={tmp_path / 'shards'}"]
    config = load_config(
        [
            *(f"scans.root={build.config.scans_dir}", f"texts.root={build.config.annotations_dir}"),
            *(*places, "shards.count=2", "dask.scheduler=processes", "dask.workers=2"),
        ],
        None,
    )
    list(run(STAGES, config))
    ours, theirs = load_index(tmp_path / "shards"), load_index(build.folder / "shards")
    assert ours["root_hash"] == theirs["root_hash"]


def test_a_broken_scan_is_set_aside_and_the_others_are_built(build, tmp_path, capsys, monkeypatch):
    scans = tmp_path / "scans"
    for scan_id in ("scene8000_00", "scene8001_00"):
        shutil.copytree(build.config.scans_dir / scan_id, scans / scan_id)
    shutil.copy(build.config.synth_dir / "scannetv2-labels.combined.tsv", scans)
    broken = scans / "scene8001_00" / "scene8001_00.sens"
    broken.write_bytes(b"\x07" + broken.read_bytes()[1:])
    monkeypatch.chdir(tmp_path)
    arguments = [f"scans.root={scans}", "texts.root=", "dask.scheduler=none"]
    codes = [main([stage, *arguments]) for stage in STAGES]
    assert codes == [0, 0, 0, 0, 0, 0, 1], "only the last stage fails, past limits.max_rejected=0"
    error = " ".join(capsys.readouterr().err.split())
    assert "1 scans were rejected, expected at most 0" in error
    assert "limits.max_rejected=1" in error
    index = json.loads((tmp_path / "shards" / "index.json").read_text())
    (row,) = index["rejected"]
    assert row["scan_id"] == "scene8001_00"
    assert "version" in row["reason"]
    assert [s["key"] for shard in index["shards"] for s in shard["samples"]] == ["scene8000_00-00"]
    assert main(["shards", *arguments, "limits.max_rejected=1"]) == 0


def test_overlapping_views_of_the_real_room_agree(shared_dir, tmp_path):
    """Points of one view, seen from another: the other's own coordinate there is less than 2 cm away."""
    config = load_config(
        [f"scans.root={shared_dir / 'scans'}", f"work={tmp_path}", f"shards.out={tmp_path / 's'}"], None
    )
    list(run(STAGES, config))
    (clip,) = scanshards.open(str(tmp_path / "s" / "scannet-*.tar"))
    assert clip.bev_valid.mean() >= 0.35
    assert clip.texts == []
    errors = np.concatenate([disagreement(clip, i, i + 1) for i in range(31)])
    assert len(errors) > 100_000
    assert np.median(errors) < 0.02


def disagreement(clip, i: int, j: int) -> np.ndarray:
    """Distances (m) between view i's points and what view j measured there; occluded points left out."""
    points = clip.coords[i][clip.coords_valid[i]].astype(np.float64)
    cam_from_world = np.linalg.inv(clip.world_from_cam[j])
    in_cam = points @ cam_from_world[:3, :3].T + cam_from_world[:3, 3]
    points, in_cam = points[in_cam[:, 2] > 0.1], in_cam[in_cam[:, 2] > 0.1]
    px = in_cam @ clip.intrinsics.T
    plan = clip.resize_plan
    scale = plan.width / plan.source_width
    column = np.rint((px[:, 0] / px[:, 2]) * scale).astype(int) - plan.x
    row = np.rint((px[:, 1] / px[:, 2]) * scale).astype(int) - plan.y
    inside = (column >= 0) & (column < 384) & (row >= 0) & (row < 384)
    seen = clip.coords[j][row[inside], column[inside]]
    distances = np.linalg.norm(seen - points[inside], axis=1)
    return distances[np.isfinite(distances) & (distances < 0.3)]


def test_shards_are_not_made_of_stages_that_do_not_belong_together(build):
    """Other parameters than the stores were built with: an error that names the stage to run again."""
    config = load_config(
        [f"work={build.config.work}", f"shards.out={build.config.shards.out}", "clips.stride=2"], None
    )
    with pytest.raises(ValueError, match=r"clips of scene8000_00 was made from other .*pipeline.run clips"):
        list(run(["shards"], config))


def test_a_stage_before_its_input_is_an_error(build, tmp_path):
    config = load_config([f"scans.root={build.config.scans_dir}", "texts.root=", f"work={tmp_path}"], None)
    with pytest.raises(ValueError, match=r"latents: got no clips of scene8000_00; run .*pipeline.run clips"):
        list(run(["scans", "latents"], config))


def test_a_value_that_is_not_yaml_is_a_usage_error(capsys):
    assert main(["scans", "work=[1"]) == 2
    assert "override 'work=[1': got something that is not YAML" in " ".join(capsys.readouterr().err.split())
