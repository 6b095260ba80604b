"""Greedy answers to all questions about a clip, behind one visual prefix.

The prefix (about 1,700 tokens in `tiny`, 6,800 in the published model) runs once and its keys and values are
kept once. Questions are laid end to end behind it, as texts are in training (`train/packing.py`): each looks
at the prefix and at itself, and its positions go on from the end of the prefix. So a question gets what it
would get alone, nothing is padded, and no copy of the prefix is made per question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedTokenizerBase, Qwen2ForCausalLM

from scanshards.tasks import human_value
from train import prompt
from train.data import clip_inputs
from train.lmm import SceneModel, frame_ids


@dataclass(frozen=True)
class Generation:
    prompt: Literal["training", "published"] = "training"
    """published: without the spatial sentence, as the published evaluation asks (it trains with it)."""
    batch: int = 16
    """Questions that are answered together."""
    max_new_tokens: int = 64
    """An answer is cut after so many tokens."""

    def __post_init__(self) -> None:
        for name in ("batch", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected at least 1")


@dataclass(frozen=True)
class Answer:
    text: str
    cut: bool
    """True: `max_new_tokens` ended it, not the model."""


@torch.inference_mode()
def answer_clip(
    model: SceneModel,
    tokenizer: PreTrainedTokenizerBase,
    clip: Any,
    texts: Sequence[dict[str, Any]],
    settings: Generation,
) -> list[Answer]:
    """Answers to `texts` about a `scanshards.Clip`, in their order."""
    device = next(model.parameters()).device
    inputs = clip_inputs(clip, model.config)
    frame = prompt.prefix(tokenizer, spatial=settings.prompt == "training")
    before, after = (ids.to(device) for ids in frame_ids(frame))
    embedded = model.prefix(
        inputs.frames[None].to(device), inputs.patch_coords[None].to(device), before, after
    )
    cache = prefix_cache(model.language, embedded)
    questions = [prompt.question_ids(tokenizer, human_value(text)) for text in texts]
    stop = frozenset(tokenizer.convert_tokens_to_ids([prompt.IM_END, prompt.PAD]))
    answers: list[Answer] = []
    for start in range(0, len(questions), settings.batch):
        some = questions[start : start + settings.batch]
        for ids in greedy(model.language, cache, some, stop, settings.max_new_tokens):
            text = tokenizer.decode(ids, skip_special_tokens=True).strip()
            answers.append(Answer(text, cut=ids[-1] not in stop))
    return answers


def prefix_cache(language: Qwen2ForCausalLM, embedded: Tensor) -> DynamicCache:
    """Keys and values of a prefix, given as embeddings (1, P, D)."""
    cache = DynamicCache(config=language.config)
    language.model(inputs_embeds=embedded, cache=cache, use_cache=True)
    return cache


@torch.inference_mode()
def greedy(
    language: Qwen2ForCausalLM,
    cache: DynamicCache,
    questions: Sequence[Sequence[int]],
    stop: frozenset[int],
    max_new_tokens: int,
) -> list[list[int]]:
    """The most likely ids after each question, up to and with the first of `stop`.

    `cache` holds the prefix; it grows meanwhile and is cut back to the prefix at the end.
    """
    device, start = language.device, cache.get_seq_length()
    lengths = torch.tensor([len(question) for question in questions], device=device)  # (n,)
    owner = torch.repeat_interleave(torch.arange(len(questions), device=device), lengths)  # (K,) of each key
    ends = lengths.cumsum(0) - 1
    position = start + torch.arange(len(owner), device=device) - (ends - lengths + 1)[owner]
    ids = torch.tensor([token for question in questions for token in question], device=device)
    mask = (owner[:, None] == owner) & torch.ones(len(ids), len(ids), dtype=torch.bool, device=device).tril()
    hidden = _run(language, cache, ids, position, mask)[ends]  # (n, D)
    answers: list[list[int]] = [[] for _ in questions]
    active = torch.arange(len(questions), device=device)
    for step in range(max_new_tokens):
        ids = language.lm_head(hidden).argmax(-1)  # (a,)
        for index, token in zip(active.tolist(), ids.tolist(), strict=True):
            answers[index].append(token)
        going_on = torch.tensor([answers[index][-1] not in stop for index in active.tolist()], device=device)
        active, ids = active[going_on], ids[going_on]
        if not len(active) or step + 1 == max_new_tokens:
            break
        owner = torch.cat([owner, active])
        hidden = _run(language, cache, ids, start + lengths[active] + step, active[:, None] == owner)
    cache.crop(start - cache.get_seq_length())
    return answers


def _run(
    language: Qwen2ForCausalLM, cache: DynamicCache, ids: Tensor, position: Tensor, sees: Tensor
) -> Tensor:
    """Hidden states (a, D) of a tokens behind the cache.

    `sees` (a, K) bool: which of the K keys behind the prefix a token looks at, its own among them; all look
    at the whole prefix.
    """
    prefix = sees.new_ones(len(ids), cache.get_seq_length() + len(ids) - sees.shape[1])
    return language.model(
        inputs_embeds=language.model.embed_tokens(ids)[None],
        attention_mask=torch.cat([prefix, sees], 1)[None, None],  # (1, 1, a, P + K)
        position_ids=position[None],
        cache=cache,
        use_cache=True,
    ).last_hidden_state[0]
