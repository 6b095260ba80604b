"""The noising process and what it is applied to: latents, as packs of 2x2.

x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps, with the cosine schedule abar (Nichol & Dhariwal 2021, eq. 17);
the denoiser predicts eps. Latents are stored as mean and spread of the codec's posterior, so x_0 is sampled
afresh at every use, at the codec's own size and *before* resizing, as with the codec in the loop.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_BETA = 0.999
LATENT_GRID = 28
"""View latents are 27x27; resized to this they split into 14x14 packs of 2x2."""


def cosine_alpha_bar(timesteps: int) -> Tensor:
    """(timesteps,) float64: share of signal left after each step, betas capped at MAX_BETA."""

    def alpha_bar(u: float) -> float:
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    betas = [
        min(1 - alpha_bar((i + 1) / timesteps) / alpha_bar(i / timesteps), MAX_BETA) for i in range(timesteps)
    ]
    return torch.cumprod(1.0 - torch.tensor(betas, dtype=torch.float64), 0)


def add_noise(clean: Tensor, noise: Tensor, t: Tensor, alpha_bar: Tensor) -> Tensor:
    """x_t of (N, ...) clean latents at (N,) steps t; `alpha_bar` as of `cosine_alpha_bar`."""
    kept = alpha_bar[t].view(-1, *[1] * (clean.dim() - 1))
    return (kept.sqrt() * clean + (1 - kept).sqrt() * noise).to(clean.dtype)


def sample_posterior(latents: Tensor, noise: Tensor) -> Tensor:
    """(N, m, 16, h, w) stored latents -> (N, 16, h, w) float32.

    m = 2: mean + spread * noise; m = 1 (a codec without posterior): the latents themselves.
    """
    latents = latents.float()
    return latents[:, 0] + latents[:, 1] * noise if latents.shape[1] == 2 else latents[:, 0]


def pack_view(latents: Tensor) -> Tensor:
    """(N, 16, 27, 27) -> (N, 196, 64): resized to 28x28 (bilinear), then 2x2 packs in row order."""
    resized = F.interpolate(latents, size=(LATENT_GRID, LATENT_GRID), mode="bilinear", align_corners=False)
    return pack(resized)


def pack(latents: Tensor) -> Tensor:
    """(N, C, 2h, 2w) -> (N, h * w, 4C); within a pack the channel is slowest, then row, then column."""
    return F.pixel_unshuffle(latents, 2).flatten(2).transpose(1, 2)


def unpack(tokens: Tensor, size: int) -> Tensor:
    """(N, size * size, 4C) -> (N, C, 2 size, 2 size): the inverse of `pack`."""
    return F.pixel_shuffle(tokens.transpose(1, 2).unflatten(2, (size, size)), 2)
