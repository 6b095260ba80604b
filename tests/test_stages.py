"""A stage's key follows its code, its parameters and its inputs; DVC watches the same files."""

import json
import re
from pathlib import Path

import pytest
import yaml
from sens_room import Recording, write_scan

from pipeline import jobs
from pipeline.code_files import code_files
from pipeline.config import load_config
from pipeline.scans import Inventory
from pipeline.stages import STAGES, _constant_key, run_stage, stores

ROOT = Path(__file__).resolve().parents[1]


def relative(module: str) -> set[str]:
    return {path.relative_to(ROOT).as_posix() for path in code_files(module)}


def test_code_files_follow_imports_and_leave_out_infrastructure():
    clips = relative("pipeline.clips")
    assert {"pipeline/clips.py", "pipeline/sampling.py", "pipeline/sources/__init__.py"} <= clips
    assert "pipeline/sources/sens_format.py" in relative("pipeline.sources.scannet")
    assert {"scanshards/geometry.py", "scanshards/codec.py"} <= clips
    assert not {"pipeline/store.py", "pipeline/jobs.py", "pipeline/bev.py"} & clips


MODULES = {**{name: stage.module for name, stage in STAGES.items()}, "shards": "shards"}


@pytest.mark.parametrize("name", MODULES)
def test_dvc_watches_every_source_file_of_a_stage(name):
    stage = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"][name]
    watched = {dep for dep in stage["deps"] if not dep.startswith("${")}
    assert all((ROOT / dep).exists() for dep in watched), "dvc.yaml names a file that is gone"
    for file in relative(f"pipeline.{MODULES[name]}"):
        covered = file in watched or any(file.startswith(f"{dep}/") for dep in watched)
        assert covered or file == "pipeline/__init__.py", f"dvc.yaml stage {name} lacks {file}"


@pytest.mark.parametrize("name", STAGES)
def test_dvc_watches_the_sections_that_shape_a_stage(name):
    stage = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"][name]
    for field in STAGES[name].sections:
        assert {field, field.partition(".")[0]} & set(stage["params"]), field


@pytest.mark.parametrize(
    ("name", "override", "changes"),
    [
        ("clips", "clips.stride=2", True),
        ("clips", "bev.renderer=raycast", False),
        ("clips", "dask.workers=5", False),
        ("bev", "bev.renderer=raycast", True),
        ("bev", "bev.recycle_after=7", False),
        ("latents", "latents.batch_size=4", True),
        ("texts", "texts.root=elsewhere", True),
    ],
)
def test_a_key_follows_the_parameters_of_its_stage(name, override, changes):
    nothing = Inventory([], [], "", None)
    keys = [_constant_key(STAGES[name], nothing, load_config(o, None)) for o in ([], [override])]
    assert (keys[0] != keys[1]) == changes


def test_a_scan_that_kills_its_worker_is_set_aside_and_not_tried_again(tmp_path, monkeypatch):
    """`jobs` finds such scans (test_jobs.py); here it says that the second of three is one."""
    entries = [write_scan(tmp_path / "scans", f"scene{k:04d}_00", Recording(8, seed=k)) for k in range(3)]
    config = load_config([f"work={tmp_path}", "dask.scheduler=none"], None)
    run = jobs.run

    def with_a_killer(function, items, *rest):
        for name, _ in [item for item in items if item[0] == "scene0001_00"]:
            yield name, jobs.Killed(f"{name}: killed its worker process twice")
        yield from run(function, [item for item in items if item[0] != "scene0001_00"], *rest)

    monkeypatch.setattr(jobs, "run", with_a_killer)
    inventory = Inventory(entries, [], "", None)
    line = run_stage("clips", inventory, config)
    assert "clips: 3 built, 0 up to date" in line
    assert "rejected scene0001_00: scene0001_00: killed its worker process twice" in line
    assert "to try it again remove clips.zarr/scene0001_00.zip" in line
    assert stores(config)["clips"].rejection("scene0002_00") is None
    assert "clips: 0 built, 3 up to date" in run_stage("clips", inventory, config)


def test_a_stage_says_where_its_time_went(tmp_path):
    entries = [write_scan(tmp_path / "scans", "scene0000_00", Recording(8))]
    config = load_config([f"work={tmp_path}", "dask.scheduler=none"], None)
    line = run_stage("clips", Inventory(entries, [], "", None), config)
    assert re.search(r"1 built, 0 up to date \([\d.]+ scans/s, \d+ MB at most, [\d.]+ s a scan: \w", line)
    times = json.loads((tmp_path / "times" / "clips.json").read_text())["scene0000_00"]
    assert 0 < sum(times["parts"].values()) <= times["seconds"]
