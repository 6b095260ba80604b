"""SigLIP tower and projector: frames to patch features in the language model's width."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import SiglipVisionConfig, SiglipVisionModel

from train.config import IMAGE_SIZE, PATCH_GRID, PATCH_SIZE, TOKEN_GRID, VisionConfig


class VisionTower(nn.Module):
    """transformers' SigLIP; features are the last hidden state *before* the final layer norm."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        self.model = SiglipVisionModel(
            SiglipVisionConfig(
                hidden_size=config.hidden_size,
                intermediate_size=config.intermediate_size,
                num_hidden_layers=config.num_layers,
                num_attention_heads=config.num_heads,
                image_size=IMAGE_SIZE,
                patch_size=PATCH_SIZE,
                vision_use_head=False,
                attn_implementation="sdpa",
            )
        )
        self.frozen = config.frozen
        self.model.requires_grad_(not config.frozen)
        self.model.post_layernorm.requires_grad_(False)  # never run: published features come before it

    def forward(self, frames: Tensor) -> Tensor:
        """(N, 384, 384, 3) uint8 RGB -> (N, 729, C)."""
        weight = self.model.embeddings.patch_embedding.weight
        pixels = frames.permute(0, 3, 1, 2).to(weight.dtype) / 127.5 - 1.0  # (N, 3, 384, 384) in [-1, 1]
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            embedded = self.model.embeddings(pixels)
            return self.model.encoder(inputs_embeds=embedded).last_hidden_state  # (N, 729, C)


def projector(vision_size: int, language_size: int) -> nn.Sequential:
    """mlp2x_gelu: two linear layers with an exact GELU between."""
    return nn.Sequential(
        nn.Linear(vision_size, language_size), nn.GELU(), nn.Linear(language_size, language_size)
    )


def pool(features: Tensor) -> Tensor:
    """(N, 729, D) patch features -> (N, 14, 14, D) tokens by bilinear resizing (stride 2, no antialias)."""
    grid = features.unflatten(1, (PATCH_GRID, PATCH_GRID)).permute(0, 3, 1, 2)  # (N, D, 27, 27)
    pooled = F.interpolate(grid, size=(TOKEN_GRID, TOKEN_GRID), mode="bilinear", align_corners=False)
    return pooled.permute(0, 2, 3, 1)
