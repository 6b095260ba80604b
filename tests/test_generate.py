"""Cached answers behind a shared prefix equal those of one full forward pass per token and question."""

from __future__ import annotations

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from eval.generate import greedy, prefix_cache

VOCABULARY = 97
STOP = frozenset({5, 6})


@pytest.fixture(scope="module")
def language() -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        attn_implementation="sdpa",
    )
    model = Qwen2ForCausalLM(config).eval()
    for parameter in model.parameters():  # the usual small start would make every question answer alike
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.35)
    return model


@pytest.fixture(scope="module")
def embedded() -> torch.Tensor:
    """A prefix of 41 tokens, as embeddings."""
    return torch.randn(1, 41, 32, generator=torch.Generator().manual_seed(1))


def questions(count: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(2)
    lengths = torch.randint(1, 12, (count,), generator=generator).tolist()
    return [torch.randint(7, VOCABULARY, (length,), generator=generator).tolist() for length in lengths]


@torch.inference_mode()
def one_at_a_time(language, embedded, question, max_new_tokens) -> list[int]:
    """No cache, no mask of our own: the whole sequence again for every token."""
    answer: list[int] = []
    while len(answer) < max_new_tokens:
        words = language.model.embed_tokens(torch.tensor([question + answer]))
        hidden = language.model(inputs_embeds=torch.cat([embedded, words], 1), use_cache=False)
        answer.append(int(language.lm_head(hidden.last_hidden_state[:, -1]).argmax()))
        if answer[-1] in STOP:
            break
    return answer


def test_batched_cached_answers_equal_full_forward_passes(language, embedded):
    asked = questions(13)
    expected = [one_at_a_time(language, embedded, question, 20) for question in asked]
    assert len({tuple(answer) for answer in expected}) == len(asked), "the questions do not differ enough"
    assert {len(answer) for answer in expected} > {20}, "no answer stops before the limit"
    assert greedy(language, prefix_cache(language, embedded), asked, STOP, 20) == expected


def test_cache_is_the_prefix_again_after_each_batch(language, embedded):
    asked = questions(7)
    cache = prefix_cache(language, embedded)
    before = [layer.keys.clone() for layer in cache.layers]
    together = greedy(language, cache, asked, STOP, 9)
    assert all(torch.equal(layer.keys, keys) for layer, keys in zip(cache.layers, before, strict=True))
    apart = [answer for question in asked for answer in greedy(language, cache, [question], STOP, 9)]
    assert apart == together


def test_answers_do_not_depend_on_their_neighbours(language, embedded):
    asked = questions(6)
    cache = prefix_cache(language, embedded)
    forward = greedy(language, cache, asked, STOP, 12)
    assert greedy(language, cache, asked[::-1], STOP, 12) == forward[::-1]
