"""Defaults < preset < overrides; what is wrong is named; the saved config is the config."""

import dataclasses

import pytest

from train.config import Config, load_config, save_config


def test_the_defaults_are_the_method_s_numbers():
    config = Config()
    assert config.visual_tokens == 6720
    assert (config.frames, config.vision.num_layers, config.vision.hidden_size) == (32, 26, 1152)
    assert (config.cross_view.mask_ratio, config.cross_view.interval, config.cross_view.draws_per_view) == (
        0.25,
        4,
        4,
    )
    assert (config.denoiser.num_blocks, config.denoiser.width, config.denoiser.num_heads) == (3, 1024, 16)
    assert config.batch.visits * config.texts_per_visit == 256
    assert (config.optimizer.learning_rate, config.optimizer.warmup) == (1e-5, 0.03)


def test_overrides_win_over_the_preset():
    config = load_config(["steps=3", "optimizer.learning_rate=2e-4", "tasks=[sqa3d]"])
    assert (config.steps, config.optimizer.learning_rate, config.tasks) == (3, 2e-4, ("sqa3d",))
    assert config.frames == 8


def test_a_saved_config_is_read_back_equal(tmp_path):
    config = load_config(
        ["condition=shared", "optimizer.denoiser_learning_rate=1e-4", "position.voxel_m=0.2"]
    )
    save_config(config, tmp_path / "config.yaml")
    assert load_config(path=tmp_path / "config.yaml") == config
    assert load_config(name=str(tmp_path / "config.yaml")) == config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stepz=3", "unknown key stepz; known here: .*steps"),
        ("cross_view.ratio=0.5", "unknown key cross_view.ratio"),
        ("condition=lost", "condition: got 'lost', expected one of located, shared"),
        ("steps=many", r"steps: got 'many' \(str\), expected int"),
        ("frames=33", "frames: got 33, expected 1 to 32"),
        ("tasks=[scanrefer]", "tasks: got .*scanrefer.*, expected a list out of sqa3d, scanqa"),
        ("position.min_m=[0, 0]", "position.min_m: got 2 values, expected 3"),
        ("cross_view.mask_ratio=1.0", "mask_ratio: got 1.0, expected between 0 and 1"),
    ],
)
def test_a_wrong_override_is_named(override, message):
    with pytest.raises(ValueError, match=message):
        load_config([override])


def test_an_unknown_preset_is_named_with_those_that_exist():
    with pytest.raises(ValueError, match=r"--config: got 'huge', expected one of .*tiny.* or a YAML file"):
        load_config(name="huge")


@pytest.mark.parametrize(("visits", "micro", "world", "passes"), [(64, 1, 8, 8), (4, 2, 2, 1), (0, 1, 3, 1)])
def test_a_batch_is_shared_out_over_processes(visits, micro, world, passes):
    assert load_config([f"batch.visits={visits}", f"batch.micro={micro}"]).accumulation(world) == passes


def test_a_batch_that_does_not_divide_names_one_that_does():
    with pytest.raises(
        ValueError, match="batch.visits=3 does not divide over 2 processes.*try batch.visits=4"
    ):
        load_config(["batch.visits=3"]).accumulation(2)


def test_every_field_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        load_config().steps = 3
