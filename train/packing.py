"""Several texts behind one visual prefix: one sequence per visit.

    [prefix: system turn, user turn start, visual tokens, spatial sentence] [text 0] [text 1] ... [padding]

A text attends to the prefix and to itself; its positions go on from the end of the prefix. So the packed
sequence gives each text what it would get alone. Two details carry that over to the loss: the first token of
a text is predicted from the last token of the *prefix*, not from its neighbour in the sequence; and the
supervised tokens of the prefix count in the sum and in the number of every text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from train.prompt import IGNORE, Prefix, Tokens

PREFIX, PADDING = 0, -1
"""Segments that are no text; texts of a visit are segments 1, 2, ..."""


@dataclass(frozen=True)
class Packed:
    """B visits of P prefix tokens and L text places (padded), S = P + L; T texts, M supervised tokens."""

    before_ids: Tensor
    """(p0,) int64: ids ahead of the visual tokens."""
    after_ids: Tensor
    """(p1,) int64: ids of the prefix behind the visual tokens."""
    text_ids: Tensor
    """(B, L) int64; 0 in padding."""
    segment: Tensor
    """(B, S) int64."""
    position: Tensor
    """(B, S) int64: rotary positions."""
    predictor: Tensor
    """(M,) int64: index into (B * S) of the token whose hidden state predicts this one."""
    label: Tensor
    """(M,) int64: token id to predict."""
    group: Tensor
    """(M,) int64: t < T of a text's own token, T + b of a prefix token of visit b."""
    visit_of_text: Tensor
    """(T,) int64."""

    @property
    def num_texts(self) -> int:
        return len(self.visit_of_text)

    def to(self, device: torch.device) -> Packed:
        return Packed(**{f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)})


def pack(prefix: Prefix, visual_tokens: int, visits: Sequence[Sequence[Tokens]]) -> Packed:
    """Lay out the texts of each visit behind a prefix with so many visual tokens."""
    # nothing predicts the very first token
    head = [IGNORE, *prefix.before.labels[1:], *[IGNORE] * visual_tokens, *prefix.after.labels]
    start = len(head)
    width = max((sum(map(len, texts)) for texts in visits), default=0)
    total = sum(map(len, visits))
    ids = np.zeros((len(visits), width), np.int64)
    segment = np.full((len(visits), start + width), PADDING, np.int64)
    position = np.zeros((len(visits), start + width), np.int64)
    segment[:, :start] = PREFIX
    position[:, :start] = np.arange(start)
    supervised = []
    text_index = 0
    for b, texts in enumerate(visits):
        offset = b * (start + width)
        supervised.append(_supervised(head, offset, offset, total + b))
        at = start
        for number, text in enumerate(texts, start=1):
            end = at + len(text)
            ids[b, at - start : end - start] = text.ids
            segment[b, at:end] = number
            position[b, at:end] = np.arange(start, start + len(text))
            supervised.append(_supervised(text.labels, offset + at, offset + start - 1, text_index))
            at, text_index = end, text_index + 1
    predictor, label, group = np.concatenate(supervised, axis=1)
    owner = np.repeat(np.arange(len(visits)), [len(texts) for texts in visits])
    return Packed(
        torch.tensor(prefix.before.ids),
        torch.tensor(prefix.after.ids),
        *map(torch.from_numpy, (ids, segment, position, predictor, label, group, owner)),
    )


def _supervised(labels: Sequence[int], at: int, first_predictor: int, group: int) -> np.ndarray:
    """(3, m) predictor, label, group of the supervised tokens of a run that starts at flat index `at`."""
    values = np.asarray(labels, np.int64)
    places = np.flatnonzero(values != IGNORE)
    predictor = np.where(places == 0, first_predictor, at + places - 1)
    return np.stack([predictor, values[places], np.full_like(places, group)])


def attention_mask(segment: Tensor, start: int) -> Tensor:
    """(B, 1, L, S) bool: what each token behind a prefix of length `start` (rows) may look at.

    Padding looks at what is before it, unused.
    """
    size = segment.shape[1]
    order = torch.arange(size, device=segment.device)
    causal = order[start:, None] >= order
    rows, keys = segment[:, None, start:, None], segment[:, None, None, :]
    return causal & ((keys == PREFIX) | (keys == rows))
