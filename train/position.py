"""Sin-cos positions of world coordinates.

A coordinate in metres is clamped, divided into voxels and rounded half to even; the *index* of the voxel, not
the metre, goes through sines and cosines. All in float32 whatever the model's dtype: bfloat16 would move a
quarter of the patches to another voxel.
"""

from __future__ import annotations

import torch
from torch import Tensor

from train.config import PositionConfig


def voxel_index(coords_m: Tensor, config: PositionConfig) -> Tensor:
    """(..., 3) world coordinates in metres -> (..., 3) float32 voxel indices, NaN kept."""
    low = torch.tensor(config.min_m, dtype=torch.float32, device=coords_m.device)
    high = torch.tensor(config.max_m, dtype=torch.float32, device=coords_m.device)
    clamped = torch.minimum(torch.maximum(coords_m.float(), low), high)
    return torch.round((clamped - low) / config.voxel_m)


def sin_cos(index: Tensor, channels: int) -> Tensor:
    """(..., 3) indices -> (..., channels) float32.

    Each axis gets n = channels // 3 numbers: entry i is sin (even i) or cos (odd i) of
    index / 10000^(2 * floor(i / 2) / n). Axes are laid end to end; channels left over are 0.
    """
    n = channels // 3
    i = torch.arange(n, device=index.device)
    denominator = 10000.0 ** (2 * (i // 2).float() / n)
    angle = index.float()[..., None] / denominator  # (..., 3, n)
    waves = torch.where(i % 2 == 0, angle.sin(), angle.cos())
    return torch.nn.functional.pad(waves.flatten(-2), (0, channels - 3 * n))  # (..., channels)


def encode(coords_m: Tensor, channels: int, config: PositionConfig) -> Tensor:
    """(..., 3) metres -> (..., channels) float32; zeros where a coordinate is NaN (no position)."""
    index = voxel_index(coords_m, config)
    known = ~index.isnan().any(-1, keepdim=True)
    return sin_cos(index.nan_to_num(0.0), channels) * known
