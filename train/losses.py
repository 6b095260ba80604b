"""The three losses, each as small as its equation; weights and sums over the batch are in `total`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from train.packing import Packed


def text_losses(logits: Tensor, packed: Packed) -> Tensor:
    """(T,) loss of each text: mean cross-entropy over its supervised tokens and those of its visit's prefix.

    logits (M, vocabulary) at `packed.predictor`. Exactly what a text alone behind the same prefix would get.
    """
    entropy = F.cross_entropy(logits.float(), packed.label, reduction="none")  # (M,)
    groups = packed.num_texts + int(packed.segment.shape[0])
    sums = entropy.new_zeros(groups).index_add(0, packed.group, entropy)
    counts = entropy.new_zeros(groups).index_add(0, packed.group, torch.ones_like(entropy))
    own, prefix = slice(0, packed.num_texts), packed.num_texts + packed.visit_of_text
    return (sums[own] + sums[prefix]) / (counts[own] + counts[prefix])


def noise_errors(predicted: Tensor, noise: Tensor) -> Tensor:
    """(..., tokens, 64) -> (..., tokens): squared error of the noise, mean over a token's numbers."""
    return (predicted - noise).square().mean(-1)


def cross_view_losses(errors: Tensor, valid: Tensor) -> Tensor:
    """(B, R, draws, tokens) errors of R masked views -> (B,): mean over the valid views; 0 without any."""
    return _mean_where(errors.mean((2, 3)), valid)


def global_view_losses(errors: Tensor, covered: Tensor) -> Tensor:
    """(B, draws, tokens) errors of a BEV -> (B,): mean over covered tokens; 0 without any (never 0/0)."""
    return _mean_where(errors.mean(1), covered)


def total(text: Tensor, weight: Tensor, cross_view: Tensor, global_view: Tensor) -> Tensor:
    """Sum over visits of [sum of text losses + n (cross + global)]; cross and global (B,) already weighted.

    Divided by the number of texts of the *global* batch this is the loss of a step; `weight` (B,) is n, the
    texts of a visit, or 1 for a clip without texts.
    """
    return text.sum() + (weight * (cross_view + global_view)).sum()


def _mean_where(values: Tensor, chosen: Tensor) -> Tensor:
    """(B, K) -> (B,): mean of the chosen values; 0 where none is, with a gradient path of zeros."""
    count = chosen.sum(1).clamp(min=1)
    return (values * chosen).sum(1) / count
