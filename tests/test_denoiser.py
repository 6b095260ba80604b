"""The denoiser's parts against plain loops; where training starts; what the condition may know."""

import math

import pytest
import torch
import torch.nn.functional as F

from train.config import DenoiserConfig, PositionConfig
from train.denoiser import AttentionPool, Block, Denoiser, grid_positions, time_waves
from train.position import encode

CONFIG = DenoiserConfig(width=24, num_heads=3, num_blocks=2)
STATES = 20


def randomise(module, seed=0, std=0.3):
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=std, generator=generator)
    return module.double()


def rand(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_attention(q, k, v, heads):
    """One sequence, one head and one query at a time."""
    size = q.shape[-1] // heads
    out = torch.zeros_like(q)
    for h in range(heads):
        part = slice(h * size, (h + 1) * size)
        for i in range(len(q)):
            weights = torch.softmax(k[:, part] @ q[i, part] / math.sqrt(size), 0)
            out[i, part] = weights @ v[:, part]
    return out


def norm(x):
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-6).sqrt()


def test_a_block_is_its_equations():
    block = randomise(Block(CONFIG))
    x, c = rand(2, 7, 24), rand(2, 7, 24, seed=2)
    out = block(x, c)
    for n in range(2):
        m = F.silu(c[n]) @ block.modulation.weight.T + block.modulation.bias
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = m.split(24, -1)
        y = norm(x[n]) * (1 + scale_a) + shift_a
        q, k, v = (y @ block.qkv.weight.T + block.qkv.bias).split(24, -1)
        attended = slow_attention(q, k, v, 3) @ block.out.weight.T + block.out.bias
        h = x[n] + gate_a * attended
        y = norm(h) * (1 + scale_m) + shift_m
        torch.testing.assert_close(out[n], h + gate_m * block.mlp(y))


@pytest.mark.parametrize("located", [True, False])
def test_the_pool_is_its_equations_over_visible_states_only(located):
    pool = randomise(AttentionPool(STATES, 5, CONFIG, located))
    states, places = rand(2, 11, STATES), rand(2, 3, 5, 24, seed=3)
    visible = torch.rand(2, 11, generator=torch.Generator().manual_seed(4)) > 0.4
    known = torch.rand(2, 3, 5, generator=torch.Generator().manual_seed(5)) > 0.3
    z = pool(states, visible, places, known)
    assert z.shape == (2, 3, 5, 24)
    for b in range(2):
        x = pool.proj(states[b][visible[b]])
        for r in range(3):
            q = pool.query[0]
            if located:
                rows = [
                    pool.place.weight @ p if k else pool.no_place
                    for p, k in zip(places[b, r], known[b, r], strict=True)
                ]
                q = q + torch.stack(rows)
            slow = slow_attention(q, x @ pool.k.weight.T, x @ pool.v.weight.T, 3) @ pool.linear.weight.T
            torch.testing.assert_close(z[b, r], slow)


def test_hidden_states_of_masked_views_do_not_reach_the_condition():
    pool = randomise(AttentionPool(STATES, 5, CONFIG, located=True))
    states, places = rand(1, 11, STATES), rand(1, 2, 5, 24)
    visible, known = torch.arange(11)[None] < 6, torch.ones(1, 2, 5, dtype=torch.bool)
    z = pool(states, visible, places, known)
    states[:, 6:] = 1e3
    assert torch.equal(pool(states, visible, places, known), z)


def test_located_queries_start_as_the_shared_ones_and_then_tell_views_apart():
    torch.manual_seed(0)
    located = AttentionPool(STATES, 5, CONFIG, located=True)
    shared = AttentionPool(STATES, 5, CONFIG, located=False)
    shared.load_state_dict(located.state_dict(), strict=False)
    states, places = torch.randn(1, 11, STATES), torch.randn(1, 3, 5, 24)
    visible, known = torch.ones(1, 11, dtype=torch.bool), torch.ones(1, 3, 5, dtype=torch.bool)
    z = located(states, visible, places, known)
    assert torch.equal(z, shared(states, visible, places, known))
    assert torch.equal(z[:, 0], z[:, 1])
    torch.nn.init.normal_(located.place.weight)
    z = located(states, visible, places, known)
    assert (z[:, 0] - z[:, 1]).abs().max() > 1e-4
    assert torch.equal(
        shared(states, visible, places, known)[:, 0], shared(states, visible, places, known)[:, 2]
    )


def test_the_first_prediction_is_zero_noise_and_blocks_start_as_identity():
    denoiser = Denoiser(STATES, CONFIG, located=True)
    x, c = torch.randn(2, 7, 24), torch.randn(2, 7, 24)
    assert torch.equal(denoiser.blocks[0](x, c), x)
    for kind, tokens in (("view", 196), ("bev", 729)):
        noise = denoiser(kind, torch.randn(2, tokens, 64), torch.tensor([3, 900]), torch.randn(2, tokens, 24))
        assert torch.equal(noise, torch.zeros(2, tokens, 64))


def test_each_token_is_modulated_by_its_own_condition():
    """Only by attention may one token's condition touch another: without it, changes stay where they are."""
    denoiser = randomise(Denoiser(STATES, CONFIG, located=True))
    for block in denoiser.blocks:
        torch.nn.init.zeros_(block.out.weight)
    noised, t, z = rand(1, 196, 64), torch.tensor([5]), rand(1, 196, 24)
    before = denoiser("view", noised, t, z)
    z[0, 17] += 1
    changed = (denoiser("view", noised, t, z) - before).abs().amax(-1)[0] > 1e-9
    assert changed.nonzero().flatten().tolist() == [17]


def test_grid_positions_are_sines_and_cosines_of_column_and_row():
    positions = grid_positions(4, 16)[0]
    assert positions.shape == (16, 16)
    for row in range(4):
        for column in range(4):
            wanted = [
                f(value * 10000.0 ** (-i / 4))
                for value in (column, row)
                for f in (math.sin, math.cos)
                for i in range(4)
            ]
            assert positions[4 * row + column].tolist() == pytest.approx(wanted, abs=1e-6)


def test_time_waves_are_cosines_then_sines():
    waves = time_waves(torch.tensor([0, 37]))
    assert waves.shape == (2, 256)
    for i in (0, 1, 64, 127):
        angle = 37 * 10000.0 ** (-i / 128)
        assert waves[1, i] == pytest.approx(math.cos(angle), abs=1e-4)
        assert waves[1, 128 + i] == pytest.approx(math.sin(angle), abs=1e-4)


def test_a_place_is_the_position_of_a_coordinate():
    places = encode(torch.tensor([[1.0, 2.0, 0.5], [-1.0, 0.0, 0.0]]), 24, PositionConfig())
    assert places.shape == (2, 24)
    assert not torch.equal(places[0], places[1])
