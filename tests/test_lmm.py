"""The whole model: packing changes nothing, masked views stay hidden, no module is ever left out."""

import dataclasses
import functools

import pytest
import torch

from tests.train_shards import MICRO, Room, clip_of
from train import data, prompt
from train.config import load_config
from train.lmm import SceneModel, frame_ids
from train.prompt import Tokens

TOKENIZER = prompt.load_tokenizer()
FRAME = prompt.prefix(TOKENIZER)
CONFIG = load_config(MICRO)


def model_of(config=CONFIG, seed=0):
    """All parameters random, so that nothing hides behind a zero at the start."""
    torch.manual_seed(seed)
    model = SceneModel(config, len(TOKENIZER))
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 or "bias" in name or "no_place" in name:
            torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5 * 0.7, generator=generator)
    return model


@functools.cache
def visit_of(room=Room(), config=CONFIG):  # noqa: B008
    return data.make_visit(clip_of(room), config, TOKENIZER, 0)


def gradients(model, parts, **steps):
    """(sum of totals, flat gradient) over batches of visits, as one step accumulates them."""
    model.zero_grad()
    totals = []
    for visits in parts:
        losses = model(data.collate(visits, FRAME, model.config), **steps)
        losses.total.backward()
        totals.append(losses)
    flat = {n: p.grad.flatten().clone() for n, p in model.named_parameters() if p.grad is not None}
    return totals, flat


def with_texts(visit, texts):
    return dataclasses.replace(visit, texts=texts)


@pytest.mark.parametrize("masked_step", [True, False])
@pytest.mark.parametrize("condition", ["located", "shared"])
def test_a_packed_visit_equals_separate_runs_in_losses_and_gradients(masked_step, condition):
    config = dataclasses.replace(CONFIG, condition=condition)
    model, visit = model_of(config), visit_of()
    # a text whose very first token is supervised: it must be predicted from the prefix, not its neighbour
    first = visit.texts[1]
    texts = [visit.texts[0], Tokens(first.ids, [first.ids[0], *first.labels[1:]]), visit.texts[2]]
    packed, together = gradients(model, [[with_texts(visit, texts)]], masked_step=masked_step)
    alone, separate = gradients(model, [[with_texts(visit, [t])] for t in texts], masked_step=masked_step)
    text = torch.cat([losses.text for losses in alone])
    torch.testing.assert_close(packed[0].text, text, rtol=1e-5, atol=0)
    torch.testing.assert_close(packed[0].total, sum(losses.total for losses in alone), rtol=1e-5, atol=0)
    assert together.keys() == separate.keys()
    for name, gradient in together.items():
        error = (gradient - separate[name]).norm() / separate[name].norm().clamp(min=1e-8)
        assert error < 1e-5 or separate[name].norm() < 1e-5, f"{name}: {error}"
    everything = torch.cat([*together.values()]), torch.cat([separate[name] for name in together])
    assert (everything[0] - everything[1]).norm() / everything[1].norm() < 1e-5


def test_visits_of_a_batch_do_not_touch_each_other():
    model = model_of()
    visits = [
        visit_of(),
        visit_of(Room("scene0001_00", "green", texts=1)),
        visit_of(Room("scene0002_00", texts=0)),
    ]
    (batch,), together = gradients(model, [visits], masked_step=True)
    alone, separate = gradients(model, [[visit] for visit in visits], masked_step=True)
    for name in ("text", "cross_view", "global_view"):
        torch.testing.assert_close(
            getattr(batch, name), torch.cat([getattr(losses, name) for losses in alone]), rtol=1e-5, atol=0
        )
    for name, gradient in together.items():
        torch.testing.assert_close(gradient, separate[name], rtol=1e-3, atol=1e-6)


def test_what_a_masked_view_shows_reaches_no_loss():
    model, visit = model_of(), visit_of()
    other = visit.inputs.frames.clone()
    other[visit.draws.masked] = 255 - other[visit.draws.masked]
    changed = dataclasses.replace(visit, inputs=dataclasses.replace(visit.inputs, frames=other))
    before, after = (model(data.collate([v], FRAME, CONFIG), masked_step=True) for v in (visit, changed))
    assert torch.equal(before.total, after.total)
    before, after = (model(data.collate([v], FRAME, CONFIG), masked_step=False) for v in (visit, changed))
    assert not torch.equal(before.total, after.total)


def test_masked_views_keep_their_positions():
    model, inputs = model_of(), visit_of().inputs
    masked = torch.tensor([[False, True, False]])
    tokens = model.visual_tokens(inputs.frames[None], inputs.patch_coords[None], masked)[0].unflatten(
        0, (3, 14, 15)
    )
    assert torch.equal(tokens[1, 0, 0], model.mask_token)  # no depth there, so no position
    assert not torch.equal(tokens[1, 5, 0], tokens[1, 5, 1])
    assert torch.equal(tokens[:, :, 14], model.newline.expand(3, 14, -1))


@pytest.mark.parametrize("masked_step", [True, False])
@pytest.mark.parametrize("room", [Room(), Room(texts=0), Room(bev=False), Room(distinct_frames=1)])
def test_every_trained_parameter_gets_a_finite_gradient_in_every_step(room, masked_step):
    """ZeRO-3 hangs if one process leaves a module out."""
    model = model_of()
    (losses,), found = gradients(model, [[visit_of(room)]], masked_step=masked_step)
    assert losses.total.isfinite()
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    without_mask = {"mask_token"} if not masked_step else set()
    assert trained - found.keys() <= without_mask | set()
    assert all(gradient.isfinite().all() for gradient in found.values())


def test_no_bev_and_no_texts_count_for_nothing():
    model = model_of()
    losses = model(data.collate([visit_of(Room(bev=False, texts=0))], FRAME, CONFIG), masked_step=False)
    assert losses.text.shape == (0,)
    assert losses.total == 0


def test_a_weight_of_zero_switches_a_loss_off():
    both = model_of()
    visit = visit_of(Room(texts=0))
    batch = data.collate([visit], FRAME, CONFIG)
    for section, name in (("cross_view", "global_view"), ("global_view", "cross_view")):
        off = dataclasses.replace(getattr(CONFIG, section), weight=0.0)
        model = model_of(dataclasses.replace(CONFIG, **{section: off}))
        losses = model(batch, masked_step=True)
        torch.testing.assert_close(losses.total, getattr(both(batch, masked_step=True), name)[0])


def test_latents_without_posterior_train_too():
    losses = model_of()(data.collate([visit_of(Room(posterior=False))], FRAME, CONFIG), masked_step=True)
    assert losses.total.isfinite()
    assert losses.cross_view > 0


def test_the_prefix_is_system_turn_visual_tokens_and_instruction():
    model, inputs = model_of(), visit_of().inputs
    before, after = frame_ids(FRAME)
    prefix = model.prefix(inputs.frames[None], inputs.patch_coords[None], before, after)
    assert prefix.shape == (1, len(before) + 3 * 14 * 15 + len(after), 32)
    embed = model.language.model.embed_tokens
    assert torch.equal(prefix[0, : len(before)], embed(before))
    assert torch.equal(prefix[0, -len(after) :], embed(after))


def test_a_cached_prefix_gives_the_hidden_states_of_the_packed_run():
    model, inputs = model_of().eval(), visit_of().inputs
    ids = torch.tensor([visit_of().texts[0].ids])
    with torch.inference_mode():
        prefix = model.prefix(inputs.frames[None], inputs.patch_coords[None], *frame_ids(FRAME))
        whole = torch.cat([prefix, model.language.model.embed_tokens(ids)], 1)
        plain = model.language.model(inputs_embeds=whole, use_cache=False).last_hidden_state[
            :, prefix.shape[1] :
        ]
        visit = dataclasses.replace(visit_of(), texts=visit_of().texts[:2])
        batch = data.collate([visit], FRAME, CONFIG)
        from train.packing import attention_mask

        packed = model.language.model(
            inputs_embeds=torch.cat([prefix, model.language.model.embed_tokens(batch.packed.text_ids)], 1),
            attention_mask={"full_attention": attention_mask(batch.packed.segment, prefix.shape[1])},
            position_ids=batch.packed.position,
            prefix=prefix.shape[1],
            use_cache=False,
        ).last_hidden_state[:, prefix.shape[1] :][:, : ids.shape[1]]
    torch.testing.assert_close(packed, plain, rtol=1e-4, atol=1e-5)


def test_vision_features_come_before_the_last_layer_norm():
    model, frames = model_of(), visit_of().inputs.frames
    with torch.inference_mode():
        ours = model.vision(frames)
        tower = model.vision.model
        pixels = (frames.permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
        full = tower(pixels).last_hidden_state
        torch.testing.assert_close(tower.post_layernorm(ours), full)
    assert ours.shape == (3, 729, 32)
    assert {n for n, p in model.vision.named_parameters() if not p.requires_grad} == {
        "model.post_layernorm.weight",
        "model.post_layernorm.bias",
    }


def test_a_frozen_tower_is_not_trained():
    frozen = dataclasses.replace(CONFIG, vision=dataclasses.replace(CONFIG.vision, frozen=True))
    model = model_of(frozen)
    _, found = gradients(model, [[visit_of()]], masked_step=False)
    assert not any(name.startswith("vision.") for name in found)
    assert found["projector.0.weight"].norm() > 0


def test_checkpointing_changes_no_gradient():
    visit = visit_of()
    _, plain = gradients(model_of().train(), [[visit]], masked_step=True)
    language = dataclasses.replace(CONFIG.language, checkpointing=True)
    _, recomputed = gradients(model_of(dataclasses.replace(CONFIG, language=language)).train(), [[visit]], masked_step=True)  # fmt: skip # noqa: E501
    for name, gradient in plain.items():
        torch.testing.assert_close(recomputed[name], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("masked_step", [True, False])
def test_the_pools_see_the_patches_of_visible_frames_and_nothing_else(masked_step):
    model, visit, seen = model_of(), visit_of(), {}
    model.language.model.register_forward_hook(lambda m, i, o: seen.update(hidden=o.last_hidden_state))
    for kind, pool in model.denoiser.pools.items():
        pool.register_forward_pre_hook(lambda m, args, kind=kind: seen.update({kind: args}))
    model(data.collate([visit], FRAME, CONFIG), masked_step=masked_step)
    before = len(FRAME.before)
    places = [
        before + f * 210 + row * 15 + column for f in range(3) for row in range(14) for column in range(14)
    ]
    hidden = visit.draws.masked.tolist() if masked_step else [False] * 3
    for kind in ("view", "bev"):
        states, visible = seen[kind][:2]
        assert torch.equal(states[0], seen["hidden"][0, places])
        assert visible[0].tolist() == [not hidden[f] for f in range(3) for _ in range(196)]
    assert sum(hidden) == (1 if masked_step else 0)
