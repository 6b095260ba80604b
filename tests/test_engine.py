"""DeepSpeed takes the step that plain PyTorch would take on the loss as it is defined."""

import dataclasses

import pytest
import torch

from tests.train_shards import MICRO, Room, clip_of
from train import data, engine, prompt
from train.config import load_config
from train.lmm import SceneModel

TOKENIZER = prompt.load_tokenizer()
FRAME = prompt.prefix(TOKENIZER)
ROOMS = (Room(texts=3), Room("scene0001_00", "green", texts=1), Room("scene0002_00", "blue", texts=0), Room("scene0003_00", "white", texts=2))  # fmt: skip # noqa: E501
STEPS = {"masked_step": True, "global_step": True}


@pytest.fixture(autouse=True)
def processes():
    engine.start_processes(load_config(MICRO))
    yield
    engine.stop_processes()


def model_of(config):
    torch.manual_seed(0)
    return SceneModel(config, len(TOKENIZER))


def batches(config):
    visits = [data.make_visit(clip_of(room), config, TOKENIZER, 0) for room in ROOMS]
    size = config.batch.micro
    return [data.collate(visits[i : i + size], FRAME, config) for i in range(0, len(visits), size)]


def plain_step(config, progress):
    """L = (1/T) sum over visits, one optimiser step; T counts a clip without texts as one."""
    model = model_of(config)
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad],
        lr=config.optimizer.learning_rate * progress,
        weight_decay=config.optimizer.weight_decay,
    )
    count = 3 + 1 + 1 + 2
    loss = sum(model(batch, **STEPS).total for batch in batches(config)) / count
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.optimizer.clip)
    optimizer.step()
    return model, float(norm)


@pytest.mark.parametrize(("zero_stage", "micro"), [(0, 1), (0, 2), (1, 2), (2, 1), (3, 2)])
def test_a_step_equals_plain_pytorch(zero_stage, micro):
    config = load_config(
        [*MICRO, "batch.visits=4", f"batch.micro={micro}", f"engine.zero_stage={zero_stage}",
         "optimizer.weight_decay=0.01"]
    )  # fmt: skip
    wanted, norm = plain_step(config, progress=0.5)
    runner = engine.Engine(model_of(config), config)
    micro_batches = batches(config)
    count = runner.count(micro_batches)
    assert count == 7
    for batch in micro_batches:
        runner.forward_backward(batch, count, **STEPS)
    assert runner.step(0.5) == pytest.approx(norm, rel=1e-4)
    weights = runner.weights()
    assert set(weights) == {name for name, _ in wanted.named_parameters()}
    for name, parameter in wanted.named_parameters():
        torch.testing.assert_close(weights[name], parameter.detach(), rtol=0, atol=2e-5, msg=name)


def test_the_denoiser_may_learn_at_its_own_rate():
    config = load_config([*MICRO, "optimizer.denoiser_learning_rate=1e-4"])
    rest, denoiser = engine.parameter_groups(model_of(config), config)
    assert (rest["peak"], denoiser["peak"]) == (2e-3, 1e-4)
    model = model_of(config)
    trained = sum(p.requires_grad for p in model.parameters())
    assert len(rest["params"]) + len(denoiser["params"]) == trained
    assert sum(p.numel() for p in denoiser["params"]) == sum(p.numel() for p in model.denoiser.parameters())


def test_under_bf16_the_denoiser_still_computes_in_float32():
    config = load_config([*MICRO, "engine.precision=bf16", "batch.visits=4"])
    runner = engine.Engine(model_of(config), config)
    seen = {}
    runner.model.denoiser.last.register_forward_hook(lambda m, i, o: seen.update(denoiser=o.dtype))
    runner.model.language.lm_head.register_forward_hook(lambda m, i, o: seen.update(language=o.dtype))
    for batch in batches(config):
        losses = runner.forward_backward(batch, 7.0, **STEPS)
    assert seen == {"denoiser": torch.float32, "language": torch.bfloat16}
    assert losses.total.isfinite()
    assert runner.step(1.0) > 0
    assert all(weight.dtype == torch.float32 for weight in runner.weights().values())


@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_saved_state_is_read_back_without_running_pickled_code(tmp_path, monkeypatch, zero_stage):
    config = load_config([*MICRO, "batch.visits=1", f"engine.zero_stage={zero_stage}"])
    (batch,) = batches(dataclasses.replace(config, batch=dataclasses.replace(config.batch, micro=4)))
    first = engine.Engine(model_of(config), config)
    first.forward_backward(batch, 7.0, **STEPS)
    first.step(1.0)
    first.save(tmp_path)
    loads = []
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda *a, **k: loads.append(k.get("weights_only")) or load(*a, **k))
    second = engine.Engine(model_of(config), config)
    second.load(tmp_path)
    assert loads
    assert all(loads)
    for runner in (first, second):
        runner.forward_backward(batch, 7.0, **STEPS)
        runner.step(0.7)
    a, b = first.weights(), second.weights()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_no_state_is_named(tmp_path):
    config = load_config([*MICRO])
    with pytest.raises(ValueError, match="no optimizer state there"):
        engine.Engine(model_of(config), config).load(tmp_path)
