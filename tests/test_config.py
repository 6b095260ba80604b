"""Defaults < params.yaml < overrides; nothing unknown or of the wrong type gets through."""

import dataclasses
from pathlib import Path

import pytest
import yaml

from pipeline.config import RANGES, Config, load_config


def test_overrides_win_over_the_file_and_the_file_over_defaults(tmp_path):
    params = tmp_path / "params.yaml"
    params.write_text("clips: {stride: 10, min_valid_depth: 0.2}\nwork: w\n")
    config = load_config(["clips.stride=3", "scans.root=/data"], params)
    assert (config.clips.stride, config.clips.min_valid_depth, config.work) == (3, 0.2, "w")
    assert config.scans_dir == Path("/data")
    assert config.clips.per_scan == Config().clips.per_scan


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("clips.strid=3", r"unknown key clips.strid; known here: .*stride"),
        ("clip.stride=3", r"unknown key clip; known here: .*clips"),
        ("clips.stride=fast", r"clips.stride: got 'fast' \(str\), expected int"),
        ("clips=3", r"clips: got 3, expected a section"),
        ("work.x=3", r"work: got \{'x': 3\} \(dict\), expected str"),
        ("latents.codec=vq", r"latents.codec: got 'vq', expected one of tiny, taef1, flux"),
        ("clips.per_scan=0", r"clips.per_scan: got 0, expected 1 to 1000"),
        ("clips.stride=0", r"clips.stride: got 0, expected at least 1"),
        ("clips.min_valid_depth=.nan", r"clips.min_valid_depth: got nan, expected 0 to 1"),
        ("meshes.voxel_m=0", r"meshes.voxel_m: got 0.0, expected 0.001 to 1"),
        ("dask.workers=-1", r"dask.workers: got -1, expected at least 0"),
    ],
)
def test_a_wrong_override_is_named(override, message):
    with pytest.raises(ValueError, match=message):
        load_config([override], None)


def test_every_number_has_a_range():
    fields = {
        f"{section.name}.{field.name}": field.type
        for section in dataclasses.fields(Config)
        if dataclasses.is_dataclass(section.default_factory)
        for field in dataclasses.fields(section.default_factory)
    }
    numbers = {key for key, kind in fields.items() if kind in ("int", "float")}
    assert numbers - {"synth.train_rooms", "synth.val_rooms"} == RANGES.keys()


def test_the_shipped_params_file_states_the_defaults():
    path = Path(__file__).resolve().parents[1] / "params.yaml"
    assert load_config([], path) == Config()
    known = dataclasses.asdict(Config())
    for section, values in yaml.safe_load(path.read_text()).items():
        if isinstance(values, dict):
            assert set(values) <= set(known[section])


def test_the_parameter_hash_follows_the_data_and_not_places_or_workers():
    elsewhere = ["dask.workers=7", "work=w", "scans.root=/data", "shards.out=s", "latents.device=cuda"]
    assert Config().parameter_hash() == load_config(elsewhere, None).parameter_hash()
    for override in ("clips.stride=2", "latents.codec=flux", "shards.count=7", "scans.dataset=other"):
        assert Config().parameter_hash() != load_config([override], None).parameter_hash()


def test_a_sections_hash_follows_that_section_alone():
    assert Config().hash("bev") == load_config(["clips.stride=2"], None).hash("bev")
    assert Config().hash("clips") != load_config(["clips.stride=2"], None).hash("clips")
