"""Make the embedded tiny tokenizer: Qwen2's rules and special tokens over a small vocabulary.

    python train/tokenizer.py ANNOTATIONS.json … [--size 2048] [--out train/assets/tiny_tokenizer]

Byte-level BPE, trained on the prompts and on every string of the annotation files given (the shipped one: on
those of 65 synthetic rooms). Texts are split into words by Qwen2's rule before merging, so prompts break at
the same places as with the real tokenizer, and a newline is one token.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from scanshards.tasks import TASKS
from train import prompt

SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
"""Qwen2's pattern, from its published tokenizer.json."""
SPECIAL = (prompt.PAD, prompt.IM_START, prompt.IM_END, prompt.IMAGE, prompt.GROUND, prompt.COORD)
PROMPT_REPEATS = 200
"""Prompts surround every text, so each of their words becomes one token."""


def strings(value: Any) -> Iterator[str]:
    """Every string value in a JSON tree."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)


def train(texts: Iterable[str], size: int) -> Tokenizer:
    """Tokenizer of at most `size` tokens, special ones last, as in Qwen2."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=False))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(SPECIAL),
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return tokenizer


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """Write the two files that AutoTokenizer reads."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": prompt.IM_END,
        "pad_token": prompt.PAD,
        "additional_special_tokens": [t for t in SPECIAL if t not in (prompt.PAD, prompt.IM_END)],
        "clean_up_tokenization_spaces": False,
        "model_max_length": 32768,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")


def corpus(files: Iterable[Path]) -> Iterator[str]:
    for file in files:
        for text in strings(json.loads(file.read_text())):
            yield f" {text}"  # a question follows a blank
            yield text
    frame = [prompt.SPATIAL, "system\nYou are a helpful assistant.", "user\n", "assistant\n"]
    for text in (*frame, *(task.prompt for task in TASKS.values())):
        yield from [text] * PROMPT_REPEATS


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python train/tokenizer.py", description=__doc__, allow_abbrev=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("annotations", nargs="+", type=Path)
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--out", type=Path, default=prompt.TINY_TOKENIZER)
    options = parser.parse_args(argv)
    console = Console(stderr=True)
    try:
        tokenizer = train(corpus(options.annotations), options.size)
    except (OSError, ValueError) as error:
        console.print(f"error: {error}", style="red", markup=False, highlight=False)
        return 1
    save(tokenizer, options.out)
    console.print(f"{tokenizer.get_vocab_size()} tokens in {options.out}", highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
