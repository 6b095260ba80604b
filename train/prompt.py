r"""Token ids and labels of the chat frame around a clip.

Training:    <|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n [visual tokens]
             \n{SPATIAL}\n {human value without <image>}<|im_end|>\n
             <|im_start|>assistant\n{answer}<|im_end|>\n
Evaluation:  the same, up to and with "assistant\n"; the published evaluation leaves the spatial sentence out.

All that comes before the human value is the same for every text of a clip: the *prefix*. Concatenated ids
equal those of the whole string. Supervised are the whole assistant turn and, anywhere, every newline,
<|im_start|> and <|im_end|>, as published.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

IMAGE = "<image>"
GROUND = "<ground>"
COORD = "<coord>"
IM_START = "<|im_start|>"
IM_END = "<|im_end|>"
PAD = "<|endoftext|>"
IGNORE = -100
"""Label of a token that is not supervised."""

SPATIAL = (
    "The video captures 3D spatial information of a scene. Please focus on the spatial relationships in the"
    " video and answer the following questions."
)
TINY_TOKENIZER = Path(__file__).resolve().parent / "assets" / "tiny_tokenizer"

_BEFORE = f"{IM_START}system\nYou are a helpful assistant.{IM_END}\n{IM_START}user\n"
_ASSISTANT = f"{IM_START}assistant\n"
_END = f"{IM_END}\n"


@dataclass(frozen=True)
class Tokens:
    """Ids and, of the same length, labels (an id or IGNORE)."""

    ids: list[int]
    labels: list[int]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Prefix:
    """What stands before and after the visual tokens of a clip."""

    before: Tokens
    after: Tokens


def load_tokenizer(path: str = "") -> PreTrainedTokenizerBase:
    """Tokenizer of a folder or hub id ("": the embedded tiny one), with <image>, <ground>, <coord> added.

    ValueError: it lacks the chat tokens, or its newline is not one token.
    """
    tokenizer = AutoTokenizer.from_pretrained(path or str(TINY_TOKENIZER))
    known = tokenizer.get_vocab()
    missing = [token for token in (IM_START, IM_END, PAD) if token not in known]
    if missing:
        raise ValueError(f"tokenizer {path!r}: no {missing[0]}, expected a Qwen2 tokenizer")
    added = [token for token in (IMAGE, GROUND, COORD) if token not in known]
    if added:
        tokenizer.add_special_tokens({"additional_special_tokens": added}, replace_extra_special_tokens=False)
    if len(encode(tokenizer, "\n")) != 1:
        raise ValueError(f"tokenizer {path!r}: a newline is not one token, expected a Qwen2 tokenizer")
    return tokenizer


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def prefix(tokenizer: PreTrainedTokenizerBase, spatial: bool = True) -> Prefix:
    """The shared frame; `spatial` puts the sentence of training after the visual tokens."""
    after = f"\n{SPATIAL}\n" if spatial else "\n"
    return Prefix(
        before=_turns(tokenizer, encode(tokenizer, _BEFORE)),
        after=_turns(tokenizer, encode(tokenizer, after)),
    )


def training_text(tokenizer: PreTrainedTokenizerBase, human: str, answer: str) -> Tokens:
    """Tokens that follow the prefix in training: the rest of the user turn and the assistant turn.

    ValueError: the human value starts with a line break, which would merge with the prefix.
    """
    user = _turns(tokenizer, encode(tokenizer, _question(human)))
    answered = encode(tokenizer, f"{_ASSISTANT}{answer}{_END}")
    return Tokens(user.ids + answered, user.labels + answered)


def question_ids(tokenizer: PreTrainedTokenizerBase, human: str) -> list[int]:
    """Ids that follow the prefix at evaluation, up to where the answer starts."""
    return encode(tokenizer, _question(human) + _ASSISTANT)


def _question(human: str) -> str:
    text = human.replace(IMAGE, "")
    if text[:1] in ("\n", "\r"):
        raise ValueError(f"human value {human!r}: starts with a line break, expected text after {IMAGE}")
    return text + _END


def _turns(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> Tokens:
    """System and user turns: only newlines and turn marks are supervised."""
    newline = encode(tokenizer, "\n")[0]
    marks = {newline, *tokenizer.convert_tokens_to_ids([IM_START, IM_END])}
    return Tokens(ids, [token if token in marks else IGNORE for token in ids])
