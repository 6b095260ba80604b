"""The denoiser: a small diffusion transformer that must draw what the language model has seen.

Written from the equations of "Scalable Diffusion Models with Transformers" (Peebles & Xie 2023, section 3.2,
adaLN-Zero) and of ROSS3D. Two kinds of picture, views (14x14 tokens) and BEVs (27x27), share the blocks. The
condition z of each token is an attention pool over the language model's hidden states; c = embed(t) + z
modulates every block, token by token. Everything here runs in float32.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train.config import BEV_GRID, LATENT_TOKEN, TOKEN_GRID, DenoiserConfig

Kind = Literal["view", "bev"]
GRIDS = {"view": TOKEN_GRID, "bev": BEV_GRID}
TIME_CHANNELS = 256


class AttentionPool(nn.Module):
    """z = W_o attention(q, W_k x, W_v x), x = proj(SiLU(states)); q is learned per token, plus its place."""

    def __init__(self, states_size: int, tokens: int, config: DenoiserConfig, located: bool):
        super().__init__()
        width = config.width
        self.heads = config.num_heads
        self.proj = nn.Sequential(nn.SiLU(), nn.Linear(states_size, width))
        self.k = nn.Linear(width, width, bias=False)
        self.v = nn.Linear(width, width, bias=False)
        self.linear = nn.Linear(width, width, bias=False)
        self.query = nn.Parameter(torch.randn(1, tokens, width) * 0.02)
        self.located = located
        if located:  # zero: training starts with queries that know nothing of their place, as published
            self.place = nn.Linear(width, width, bias=False)
            nn.init.zeros_(self.place.weight)
            self.no_place = nn.Parameter(torch.zeros(width))

    def forward(self, states: Tensor, visible: Tensor, places: Tensor, known: Tensor) -> Tensor:
        """Pool B sets of states for R pictures each.

        states (B, K, D); visible (B, K) bool: which states may be looked at; places (B, R, tokens, width)
        float32 sin-cos positions of the tokens; known (B, R, tokens) bool, False where a token has no place.
        -> z (B, R, tokens, width).
        """
        batch, pictures, tokens, width = places.shape
        x = self.proj(states)  # (B, K, width)
        query = self.query.expand(batch, pictures, -1, -1)
        if self.located:
            query = query + torch.where(known[..., None], self.place(places), self.no_place)
        q, k, v = (_split(y, self.heads) for y in (query.flatten(1, 2), self.k(x), self.v(x)))
        z = F.scaled_dot_product_attention(q, k, v, attn_mask=visible[:, None, None, :])
        return self.linear(_merge(z)).unflatten(1, (pictures, tokens))


class Block(nn.Module):
    """x += gate * attention(modulate(norm(x))); x += gate * mlp(modulate(norm(x))); gates start at zero."""

    def __init__(self, config: DenoiserConfig):
        super().__init__()
        width = config.width
        self.heads = config.num_heads
        self.modulation = nn.Linear(width, 6 * width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width)
        )
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """(N, tokens, width) each -> (N, tokens, width)."""
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.modulation(F.silu(c)).chunk(6, -1)
        qkv = self.qkv(_modulate(x, shift_a, scale_a)).chunk(3, -1)
        attended = F.scaled_dot_product_attention(*(_split(y, self.heads) for y in qkv))
        x = x + gate_a * self.out(_merge(attended))
        return x + gate_m * self.mlp(_modulate(x, shift_m, scale_m))


class Denoiser(nn.Module):
    """Predicts the noise in noised latent tokens of views or BEVs."""

    def __init__(self, states_size: int, config: DenoiserConfig, located: bool):
        super().__init__()
        width = config.width
        self.embed = nn.ModuleDict({kind: nn.Linear(LATENT_TOKEN, width) for kind in GRIDS})
        self.pools = nn.ModuleDict(
            {kind: AttentionPool(states_size, grid**2, config, located) for kind, grid in GRIDS.items()}
        )
        for kind, grid in GRIDS.items():
            self.register_buffer(f"positions_{kind}", grid_positions(grid, width), persistent=False)
        self.time = nn.Sequential(nn.Linear(TIME_CHANNELS, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_blocks))
        self.last_modulation = nn.Linear(width, 2 * width)
        self.last = nn.Linear(width, LATENT_TOKEN)
        for layer in (self.last_modulation, self.last):  # the first prediction is zero noise
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, kind: Kind, noised: Tensor, t: Tensor, z: Tensor) -> Tensor:
        """noised (N, tokens, 64), t (N,) steps, z (N, tokens, width) -> predicted noise (N, tokens, 64)."""
        x = self.embed[kind](noised) + getattr(self, f"positions_{kind}")  # (N, tokens, width)
        c = self.time(time_waves(t).to(z.dtype))[:, None] + z  # (N, tokens, width)
        for block in self.blocks:
            x = block(x, c)
        shift, scale = self.last_modulation(F.silu(c)).chunk(2, -1)
        return self.last(_modulate(x, shift, scale))


def time_waves(t: Tensor) -> Tensor:
    """(N,) steps -> (N, 256) float32: cosines then sines of t * 10000^(-i / 128)."""
    half = TIME_CHANNELS // 2
    rates = torch.exp(-math.log(10000.0) * torch.arange(half, device=t.device) / half)
    angle = t.float()[:, None] * rates
    return torch.cat([angle.cos(), angle.sin()], -1)


def grid_positions(grid: int, width: int) -> Tensor:
    """(1, grid * grid, width) float32 fixed positions: half the channels for the column, half for the row."""
    quarter = width // 4
    rates = 10000.0 ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
    waves = torch.arange(grid, dtype=torch.float64)[:, None] * rates
    axis = torch.cat([waves.sin(), waves.cos()], -1)  # (grid, width / 2)
    columns, rows = axis.repeat(grid, 1), axis.repeat_interleave(grid, 0)
    return torch.cat([columns, rows], -1).float()[None]


def _modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift


def _split(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)  # (N, heads, tokens, width / heads)


def _merge(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)
