"""A stage's key follows its code, its parameters and its inputs; DVC watches the same files."""

from pathlib import Path

import pytest
import yaml

from pipeline.code_files import code_files
from pipeline.config import load_config
from pipeline.scans import Inventory
from pipeline.stages import STAGES, _constant_key

ROOT = Path(__file__).resolve().parents[1]


def relative(module: str) -> set[str]:
    return {path.relative_to(ROOT).as_posix() for path in code_files(module)}


def test_code_files_follow_imports_and_leave_out_infrastructure():
    clips = relative("pipeline.clips")
    assert {"pipeline/clips.py", "pipeline/sampling.py", "pipeline/sources/sens_format.py"} <= clips
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
    assert set(STAGES[name].sections) <= set(stage["params"])


@pytest.mark.parametrize(
    ("name", "override", "changes"),
    [
        ("clips", "clips.stride=2", True),
        ("clips", "bev.renderer=raycast", False),
        ("clips", "dask.workers=5", False),
        ("bev", "bev.renderer=raycast", True),
        ("latents", "latents.batch_size=4", True),
        ("texts", "texts.root=elsewhere", True),
    ],
)
def test_a_key_follows_the_parameters_of_its_stage(name, override, changes):
    nothing = Inventory([], [], "", None)
    keys = [_constant_key(STAGES[name], nothing, load_config(o, None)) for o in ([], [override])]
    assert (keys[0] != keys[1]) == changes
