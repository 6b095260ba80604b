"""Training of the tiny codec: where it starts, that it can be resumed, and what it writes."""

import json

import numpy as np
import pytest
import torch
from rich.console import Console

from pipeline import train_codec
from pipeline.codec_pictures import leaves, random_crop
from pipeline.codec_start import start_linear
from pipeline.config import LatentsConfig
from pipeline.latents import load_codec, new_autoencoder
from pipeline.train_codec import MODEL, TrainConfig, batch, evaluate, learning_rate, main, train

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def drawn():
    """Pictures with edges and shading, made from nothing."""
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (300, 300, 3), dtype=np.uint8).repeat(2, axis=1) for _ in range(2)]
    return leaves(6, 0, noise)


@pytest.fixture
def pools(drawn):
    return {
        "photos": [],
        "rooms": [],
        "leaves": drawn[1:],
        "held_out_photo": drawn[:1],
        "held_out_rooms": [],
    }


def config_of(tmp_path, **fields):
    return TrainConfig(out=str(tmp_path), crop=32, batch_size=2, warmup=2, view_share=0.0, **fields)


def test_the_start_codes_blocks_nearly_as_well_as_their_principal_components(drawn):
    crops = [random_crop(p, 64, np.random.default_rng([i, 1])) for i in range(6) for p in drawn]
    images = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2) / 127.5 - 1
    torch.manual_seed(0)
    model = new_autoencoder(MODEL)
    start_linear(model, images)
    blocks = torch.nn.functional.unfold(images, 8, stride=8).transpose(1, 2).reshape(-1, 192)
    _, _, components = torch.linalg.svd(blocks - blocks.mean(0), full_matrices=False)
    rest = blocks - blocks.mean(0)
    rest = rest - rest @ components[:16].T @ components[:16]
    with torch.no_grad():
        posterior = model.encode(images).latent_dist
        error = model.decode(posterior.mean).sample - images
    # Linear, whitened latents; a decoder of 3x3 convolutions cannot quite invert them.
    std, mean = torch.std_mean(posterior.mean, dim=(0, 2, 3))
    torch.testing.assert_close(std, torch.ones(16), atol=0.1, rtol=0)
    torch.testing.assert_close(mean, torch.zeros(16), atol=0.05, rtol=0)
    assert error.square().mean() < 1.6 * rest.square().mean()


def test_crops_depend_on_seed_and_step_alone(pools, tmp_path):
    config = config_of(tmp_path)
    first = batch(pools, 7, config)
    assert first.shape == (2, 3, 32, 32) and first.min() >= -1 and first.max() <= 1
    assert torch.equal(first, batch(pools, 7, config))
    assert not torch.equal(first, batch(pools, 8, config))
    assert not torch.equal(first, batch(pools, 7, config_of(tmp_path, seed=1)))


def test_the_last_steps_see_whole_views(pools, tmp_path):
    config = TrainConfig(out=str(tmp_path), steps=100, view_share=0.1, crop=32)
    assert batch(pools, 89, config).shape[2:] == (32, 32)
    assert batch(pools, 90, config).shape[2:] == (216, 216)


def test_the_rate_rises_then_falls_to_zero():
    config = TrainConfig(steps=100, warmup=10)
    rates = [learning_rate(step, config) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert np.argmax(rates) == 9
    assert all(a > b for a, b in zip(rates[9:], rates[10:], strict=False))
    assert rates[-1] < 1e-3


def test_an_interrupted_run_equals_an_uninterrupted_one(pools, tmp_path, monkeypatch):
    def run(out):
        torch.manual_seed(0)
        model = new_autoencoder(MODEL)
        out.mkdir(exist_ok=True)
        train(model, pools, config_of(out, steps=4, checkpoint_every=2), Console(quiet=True))
        return model.state_dict()

    def interrupted(step, config):
        if step == 3:
            raise KeyboardInterrupt
        return learning_rate(step, config)

    whole = run(tmp_path / "whole")
    monkeypatch.setattr(train_codec, "learning_rate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts")
    monkeypatch.undo()
    resumed = run(tmp_path / "parts")
    rows = [json.loads(line) for line in (tmp_path / "parts" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4]
    for name, weight in whole.items():
        assert torch.equal(weight, resumed[name]), name


def test_training_lowers_the_error_and_writes_a_codec_that_loads(pools, tmp_path, monkeypatch):
    monkeypatch.setattr(train_codec, "pictures", lambda config: pools)
    monkeypatch.setattr(train_codec, "START_BATCHES", 40)
    arguments = [f"out={tmp_path}", "steps=6", "crop=32", "batch_size=4", "warmup=2", "view_share=0"]
    assert main([*arguments, "checkpoint_every=3"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [3, 6]
    codec = load_codec(LatentsConfig(weights=str(tmp_path), device="cpu"))
    assert codec.model_id == tmp_path.name
    # Loaded from float16, it shows the held-out picture as the trained weights did.
    assert evaluate(codec.model, pools["held_out_photo"]) == pytest.approx(
        rows[-1]["photo_psnr_db"], abs=0.05
    )
    views = [train_codec.center_view(image) for image in pools["leaves"]]
    means = codec.encode(torch.cat(views))[:, 0].astype(np.float32)
    assert means.mean() == pytest.approx(0, abs=0.01)
    assert means.std() == pytest.approx(1, abs=0.01)


def test_a_wrong_argument_is_a_usage_error(capsys):
    assert main(["stepz=3"]) == 2
    assert "unknown key stepz" in capsys.readouterr().err
