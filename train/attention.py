"""Attention of packed sequences without an S x S mask: the prefix causally, then the texts.

Registered with transformers under `PACKED`; a Qwen2 with this implementation runs as with `sdpa` unless it is
called with `prefix=P`, the length of the prefix. Causal attention skips the upper half of the prefix's block,
so with long prefixes and short texts this costs about half of one masked attention over everything.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

PACKED = "packed"


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """query (B, H, S, d), key and value (B, H_kv, S, d) -> (B, S, H, d).

    With `prefix` among the keywords, attention_mask (B, 1, L, S) bool says what each of the L = S - prefix
    tokens of texts may look at; without, this is transformers' `sdpa`.
    """
    start = kwargs.pop("prefix", None)
    if start is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    groups = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(groups, 1) for x in (key, value))
    scale = kwargs.get("scaling")
    head = (x[:, :, :start] for x in (query, key, value))
    parts = [F.scaled_dot_product_attention(*head, is_causal=True, scale=scale)]
    if query.shape[2] > start:
        tail = query[:, :, start:]
        parts.append(F.scaled_dot_product_attention(tail, key, value, attn_mask=attention_mask, scale=scale))
    return torch.cat(parts, 2).transpose(1, 2), None


AttentionInterface.register(PACKED, packed_attention)
AttentionMaskInterface.register(PACKED, sdpa_mask)
