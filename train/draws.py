"""Everything random about a visit, and what the denoiser draws: a pure function of (seed, epoch, clip key).

So a run that is interrupted, or that is spread over other processes, meets the same masks, steps and noise.
Made in the loader's workers with numpy; the model receives tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor

from scanshards.geometry import source_pixels
from train import diffusion
from train.config import BEV_GRID, BEV_TOKENS, TOKEN_GRID, Config

_BEV_HEIGHT_M = 0.0
"""All BEV cells are taken at this height, so that queries say where, not what."""


@dataclass(frozen=True)
class Draws:
    """Of one visit; with a leading B once stacked. R = most views that can be masked, D = draws of a view."""

    masked: Tensor
    """(F,) bool: frames that a masking step hides."""
    view_clean: Tensor
    """(R, 196, 64) float32: latents of the masked views, sampled from their posterior, packed."""
    view_valid: Tensor
    """(R,) bool; False where a clip with repeated frames masks fewer."""
    view_cells: Tensor
    """(R, 196, 3) float32: mean world coordinate of each token's pixels, metres; NaN without depth."""
    view_t: Tensor
    """(R, D) int64 diffusion steps."""
    view_noise: Tensor
    """(R, D, 196, 64) float32."""
    bev_clean: Tensor
    """(729, 64) float32."""
    bev_covered: Tensor
    """(729,) bool: tokens that count."""
    bev_cells: Tensor
    """(729, 3) float32: world coordinate of each token's centre; NaN without a BEV."""
    bev_t: Tensor
    """(D',) int64."""
    bev_noise: Tensor
    """(D', 729, 64) float32."""


def stack(visits: Sequence[Draws]) -> Draws:
    return Draws(**{f.name: torch.stack([getattr(v, f.name) for v in visits]) for f in fields(Draws)})


def generator(seed: int, epoch: int, key: str) -> np.random.Generator:
    return np.random.default_rng([seed, epoch, xxhash.xxh3_64_intdigest(key.encode())])


def draw(clip: Any, frames: NDArray[np.int64], config: Config, epoch: int) -> Draws:
    """Mask, targets, steps and noise of one visit of a `scanshards.Clip`, of which `frames` are used."""
    rng = generator(config.seed, epoch, clip.key)
    source_frames = np.asarray(clip.frame_indices)[frames]
    masked, targets = mask_frames(source_frames, config.cross_view.mask_ratio, rng)
    most = max_masked(len(frames), config.cross_view.mask_ratio)
    rows = np.resize(targets, most) if len(targets) else np.zeros(most, np.int64)  # repeats only fill up
    stored = frames[rows]
    view_latents = torch.from_numpy(np.asarray(clip.latents)[stored])
    bev_latents = torch.from_numpy(np.asarray(clip.bev_latents)[None])
    timesteps, view, bev = config.denoiser.timesteps, config.cross_view, config.global_view
    view_clean = diffusion.pack_view(_sample(rng, view_latents))
    bev_clean = diffusion.pack(_sample(rng, bev_latents))[0]
    return Draws(
        masked=torch.from_numpy(masked),
        view_clean=view_clean,
        view_valid=torch.arange(most) < len(targets),
        view_cells=torch.from_numpy(view_cells(clip, stored)),
        view_t=torch.from_numpy(rng.integers(0, timesteps, (most, view.draws_per_view))),
        view_noise=_normal(rng, (most, view.draws_per_view, *view_clean.shape[1:])),
        bev_clean=bev_clean,
        bev_covered=torch.from_numpy(bev_covered(clip, bev.min_cover)),
        bev_cells=torch.from_numpy(bev_cells(clip)),
        bev_t=torch.from_numpy(rng.integers(0, timesteps, bev.draws)),
        bev_noise=_normal(rng, (bev.draws, *bev_clean.shape)),
    )


def max_masked(num_frames: int, ratio: float) -> int:
    """How many of so many distinct views are masked, as published: n - int(n * (1 - ratio))."""
    return num_frames - int(num_frames * (1 - ratio))


def mask_frames(
    source_frames: NDArray[np.int64], ratio: float, rng: np.random.Generator
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """(masked (F,) bool, targets (r,) index of one copy of each masked frame).

    Copies of one source frame are masked together, or the model could look the answer up; at least one
    distinct frame stays visible.
    """
    distinct, first = np.unique(source_frames, return_index=True)
    count = min(max_masked(len(distinct), ratio), len(distinct) - 1)
    chosen = np.sort(rng.permutation(len(distinct))[:count])
    return np.isin(source_frames, distinct[chosen]), first[chosen]


def view_cells(clip: Any, frames: NDArray[np.int64]) -> NDArray[np.float32]:
    """(R, 196, 3) mean world coordinate of the 14x14 cells of whole 384-pixel frames; NaN without depth.

    A latent token spans 384 / 14 pixels (the visual tokens span 27, of a 378-pixel crop); a pixel belongs to
    the cell that its left upper corner is in. The mean of an affine map is the map of the mean pixel.
    """
    depth = clip.depth[frames].astype(np.float64)  # (R, 384, 384) mm
    u, v = (axis.astype(np.float64) for axis in source_pixels(clip.resize_plan))
    size = depth.shape[-1]
    starts = -(-np.arange(TOKEN_GRID) * size // TOKEN_GRID)

    def cell_sums(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.add.reduceat(np.add.reduceat(values, starts, axis=-1), starts, axis=-2)

    counts = cell_sums((depth > 0).astype(np.float64))
    sums = [cell_sums(depth * u), cell_sums(depth * v[:, None]), cell_sums(depth)]
    means = np.stack(sums, -1) / np.where(counts == 0, np.nan, counts)[..., None] / 1000.0  # of u z, v z, z
    world_from_cam = np.asarray(clip.world_from_cam, np.float64)[frames]
    rays = world_from_cam[:, :3, :3] @ np.linalg.inv(clip.intrinsics)
    world = np.einsum("rij,rhwj->rhwi", rays, means) + world_from_cam[:, None, None, :3, 3]
    return world.reshape(len(depth), -1, 3).astype(np.float32)


def bev_cells(clip: Any) -> NDArray[np.float32]:
    """(729, 3) world coordinate of the centre of each BEV token at one constant height; NaN without a BEV."""
    if not clip.meta["bev"]["present"]:
        return np.full((BEV_TOKENS, 3), np.nan, np.float32)
    pixels = clip.bev_valid.shape[0] // BEV_GRID
    centre = np.arange(BEV_GRID) * pixels + (pixels - 1) / 2
    v, u = np.meshgrid(centre, centre, indexing="ij")
    points = np.stack([u, v, np.full_like(u, _BEV_HEIGHT_M), np.ones_like(u)], -1).reshape(-1, 4)
    world_from_bev = np.asarray(clip.meta["bev"]["world_from_bev"], np.float64)
    return (points @ world_from_bev.T)[:, :3].astype(np.float32)


def bev_covered(clip: Any, min_cover: float) -> NDArray[np.bool_]:
    """(729,) bool: tokens of which at least `min_cover` of the pixels are covered by geometry."""
    if not clip.meta["bev"]["present"]:
        return np.zeros(BEV_TOKENS, bool)
    pixels = clip.bev_valid.shape[0] // BEV_GRID
    cells = clip.bev_valid.reshape(BEV_GRID, pixels, BEV_GRID, pixels)
    return (cells.mean((1, 3)) >= min_cover).reshape(-1)


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(rng.standard_normal(shape, np.float32))


def _sample(rng: np.random.Generator, latents: Tensor) -> Tensor:
    noise = _normal(rng, (latents.shape[0], *latents.shape[2:]))
    return diffusion.sample_posterior(latents, noise)
