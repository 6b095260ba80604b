"""A checkpoint is whole or not there; damage is seen; weights go back into the model bit for bit."""

import json

import pytest
import torch

from tests.train_shards import MICRO
from train import checkpoint, prompt
from train.config import load_config, save_config
from train.lmm import SceneModel

TOKENIZER = prompt.load_tokenizer()


def make_run(run_dir, steps=(2, 4), keep=5, overrides=()):
    config = load_config([*MICRO, *overrides])
    torch.manual_seed(len(steps))
    model = SceneModel(config, len(TOKENIZER))
    for step in steps:
        with torch.no_grad():
            model.newline.fill_(step)
        folder = checkpoint.begin(run_dir, step)
        (folder / "engine").mkdir()
        (folder / "engine" / "state.pt").write_bytes(b"optimizer" * step)
        checkpoint.save_weights(dict(model.named_parameters()), folder / checkpoint.MODEL_FILE)
        checkpoint.finish(folder, {"step": step}, keep)
    save_config(config, run_dir / "config.yaml")
    TOKENIZER.save_pretrained(run_dir / "tokenizer")
    return model


def test_load_run_gives_the_last_weights_bit_for_bit(tmp_path):
    wanted = make_run(tmp_path)
    model, tokenizer, config = checkpoint.load_run(tmp_path)
    assert not model.training
    assert config == load_config(MICRO)
    assert tokenizer.get_vocab() == TOKENIZER.get_vocab()
    for (name, parameter), (_, other) in zip(
        model.named_parameters(), wanted.named_parameters(), strict=True
    ):
        assert torch.equal(parameter, other), name
    assert torch.equal(model.alpha_bar, wanted.alpha_bar)


def test_load_run_takes_one_checkpoint_by_its_folder(tmp_path):
    make_run(tmp_path)
    model, _, _ = checkpoint.load_run(tmp_path / "checkpoints" / "step-000002")
    assert model.newline[0] == 2


def test_tied_embeddings_are_stored_once_and_stay_tied(tmp_path):
    make_run(tmp_path, overrides=["language.tie_embeddings=true"])
    model, _, _ = checkpoint.load_run(tmp_path)
    assert model.language.lm_head.weight is model.language.model.embed_tokens.weight
    with checkpoint.safe_open(tmp_path / "checkpoints/step-000004/model.safetensors", "pt") as file:
        assert "language.lm_head.weight" not in file.keys()


def test_only_the_last_are_kept(tmp_path):
    make_run(tmp_path, steps=(1, 2, 3, 4), keep=2)
    assert [path.name for path in checkpoint.checkpoints(tmp_path)] == ["step-000003", "step-000004"]


def test_a_checkpoint_that_was_not_finished_is_not_there(tmp_path):
    make_run(tmp_path, steps=(2,))
    folder = checkpoint.begin(tmp_path, 4)
    (folder / "model.safetensors").write_bytes(b"half")
    assert checkpoint.latest(tmp_path).name == "step-000002"
    assert checkpoint.begin(tmp_path, 4) == folder
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_checkpoint_is_passed_over_loudly(tmp_path, damage):
    make_run(tmp_path)
    path = tmp_path / "checkpoints" / "step-000004" / "engine" / "state.pt"
    content = path.read_bytes()
    if damage == "flip":
        path.write_bytes(content[:-1] + b"X")
    elif damage == "cut":
        path.write_bytes(content[:-1])
    else:
        path.unlink()
    with pytest.warns(
        UserWarning, match=r"step-000004 is damaged \(engine/state.pt.*the one before it is used"
    ):
        assert checkpoint.latest(tmp_path).name == "step-000002"


def test_without_a_checkpoint_the_message_says_what_to_do(tmp_path):
    with pytest.raises(ValueError, match="no whole checkpoint, expected .*step-.*; train it first"):
        checkpoint.latest(tmp_path)


def test_weights_that_do_not_fit_are_named(tmp_path):
    make_run(tmp_path)
    other = SceneModel(load_config([*MICRO, "denoiser.width=64"]), len(TOKENIZER))
    path = tmp_path / "checkpoints" / "step-000004" / "model.safetensors"
    with pytest.raises(ValueError, match=r"denoiser\..* is \(.*\), expected \(.*256.*\)"):
        checkpoint.load_weights(other, path)


def test_the_state_lists_every_file(tmp_path):
    make_run(tmp_path, steps=(2,))
    state = json.loads((tmp_path / "checkpoints" / "step-000002" / "run.json").read_text())
    assert state["step"] == 2
    assert set(state["files"]) == {"engine/state.pt", "model.safetensors"}
