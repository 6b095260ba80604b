"""The packed layout, its mask and its attention, each against the plain definition."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from train.attention import packed_attention
from train.packing import attention_mask, pack
from train.prompt import IGNORE, Prefix, Tokens

FRAME = Prefix(Tokens([7, 8], [7, IGNORE]), Tokens([9, 10, 11], [9, IGNORE, 11]))
VISUAL = 4
START = 9


def tokens(*ids, supervised=()):
    return Tokens(list(ids), [i if place in supervised else IGNORE for place, i in enumerate(ids)])


text_lists = st.lists(
    st.lists(
        st.lists(st.integers(20, 40), min_size=1, max_size=5).flatmap(
            lambda ids: st.builds(
                lambda on: Tokens(ids, [i if o else IGNORE for i, o in zip(ids, on, strict=True)]),
                st.lists(st.booleans(), min_size=len(ids), max_size=len(ids)),
            )
        ),
        max_size=4,
    ),
    min_size=1,
    max_size=3,
)


@settings(max_examples=60, deadline=None)
@given(text_lists)
def test_every_supervised_token_is_predicted_from_what_stands_before_it(visits):
    packed = pack(FRAME, VISUAL, visits)
    size = packed.segment.shape[1]
    found = set(zip(packed.predictor.tolist(), packed.label.tolist(), packed.group.tolist(), strict=True))
    wanted, text_index, total = set(), 0, sum(map(len, visits))
    for b, texts in enumerate(visits):
        # before: 7 is first (nothing predicts it); after: 9 follows the last visual token, 11 follows 10
        wanted |= {(b * size + 5, 9, total + b), (b * size + 7, 11, total + b)}
        at = START
        for text in texts:
            for k, label in enumerate(text.labels):
                if label != IGNORE:
                    before = START - 1 if k == 0 else at + k - 1
                    wanted.add((b * size + before, label, text_index))
            at, text_index = at + len(text), text_index + 1
    assert found == wanted
    assert len(packed.label) == len(wanted)
    assert packed.visit_of_text.tolist() == [b for b, texts in enumerate(visits) for _ in texts]


@settings(max_examples=40, deadline=None)
@given(text_lists)
def test_a_token_sees_the_prefix_and_what_is_before_it_in_its_own_text(visits):
    packed = pack(FRAME, VISUAL, visits)
    mask = attention_mask(packed.segment, START)
    for b, texts in enumerate(visits):
        owner = [0] * START + [n for n, text in enumerate(texts, 1) for _ in text.ids]
        for q in range(START, len(owner)):
            seen = [owner[k] in (0, owner[q]) and k <= q for k in range(len(owner))]
            assert mask[b, 0, q - START, : len(owner)].tolist() == seen
        assert not mask[b, 0, : len(owner) - START, len(owner) :].any()
        assert mask[b, 0].any(-1).all()


def test_positions_restart_behind_the_prefix():
    packed = pack(FRAME, VISUAL, [[tokens(1, 2, 3), tokens(4, 5)], [tokens(6)]])
    assert packed.position[0].tolist() == [*range(9), 9, 10, 11, 9, 10]
    assert packed.position[1].tolist() == [*range(9), 9, 0, 0, 0, 0]
    assert packed.text_ids.tolist() == [[1, 2, 3, 4, 5], [6, 0, 0, 0, 0]]
    assert packed.before_ids.tolist() == [7, 8]
    assert packed.after_ids.tolist() == [9, 10, 11]


def test_a_visit_without_texts_is_its_prefix():
    packed = pack(FRAME, VISUAL, [[]])
    assert packed.segment.tolist() == [[0] * 9]
    assert packed.num_texts == 0
    assert packed.group.tolist() == [0, 0]


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("texts", [[[]], [[tokens(1, 2), tokens(3)], [tokens(4, 5, 6, 7)]]])
def test_attention_in_two_parts_equals_one_masked_attention(kv_heads, texts):
    generator = torch.Generator().manual_seed(0)
    packed = pack(FRAME, VISUAL, texts)
    batch, size = packed.segment.shape
    q = torch.randn(batch, 4, size, 8, generator=generator, dtype=torch.float64)
    k, v = torch.randn(2, batch, kv_heads, size, 8, generator=generator, dtype=torch.float64)
    mask = attention_mask(packed.segment, START)
    fast, _ = packed_attention(nn.Identity(), q, k, v, mask, scaling=8**-0.5, prefix=START)
    allowed = attention_mask(packed.segment, 0)
    keys, values = (x.repeat_interleave(4 // kv_heads, 1) for x in (k, v))
    scores = (q @ keys.transpose(-1, -2)) * 8**-0.5
    slow = torch.softmax(scores.masked_fill(~allowed, -np.inf), -1) @ values
    torch.testing.assert_close(fast, slow.transpose(1, 2))
