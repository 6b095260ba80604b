"""Exact-match scores of short answers, by task and protocol.

`METRICS` is the one table: task -> protocol -> function from items to {metric name: percent}. Protocol
`reference` computes what the published code computes, quirks included: an empty answer is right by EM-R, and
ScanQA's EM is case-sensitive.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from scanshards.tasks import SQA3D_TYPES


@dataclass(frozen=True)
class Answered:
    """One question with what was answered and what is right."""

    prediction: str
    answers: tuple[str, ...]
    """All right answers; SQA3D has exactly one."""
    group: str = ""
    """Question type (`what` … `others` for SQA3D), "" for none."""


Metric = Callable[[Sequence[Answered]], dict[str, float]]

_MISSPELLED = {
    "letf": "left",
    "let": "left",
    "tehre": "there",
    "rigth": "right",
    "rght": "right",
    "behine": "behind",
    "tv": "TV",
    "chai": "chair",
    "wasing": "washing",
    "waslked": "walked",
    "oclock": "o'clock",
    "o' clock": "o'clock",
}
_NUMBER_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
    " seventeen eighteen nineteen twenty"
).split()
_NUMBERS = {str(value): word for value, word in enumerate(_NUMBER_WORDS)} | {
    "none": "zero",
    "23": "twenty-three",
}
_WHOLE_WORDS = [(re.compile(rf"\b{word}\b"), right) for word, right in (_MISSPELLED | _NUMBERS).items()]
_DELETED = re.compile(r"[^a-zA-Z0-9,'\s\-:]+")
_TRAILING_DIGIT = re.compile(r"\b([a-zA-Z]+)[0-9]\b")
_ARTICLES = [re.compile(rf"\b{article}\b ([a-zA-Z]+)") for article in ("a", "an", "the")]
_BACKWARDS = re.compile(r"\bbackwards\b")


def clean_sqa3d(text: str) -> str:
    """An SQA3D answer as the published evaluator compares it (both sides go through this).

    Of two adjacent articles of one kind only the first goes, since its match consumes the word after it.
    """
    text = re.sub(" {2,}", " ", text.lower().strip(" "))
    text = _DELETED.sub("", text)
    for pattern, right in _WHOLE_WORDS:
        text = pattern.sub(right, text)
    text = _TRAILING_DIGIT.sub(r"\1", text)
    for pattern in _ARTICLES:
        text = pattern.sub(r"\1", text)
    return _BACKWARDS.sub("backward", text)


def matches_refined(prediction: str, answer: str) -> bool:
    """EM-R of two cleaned strings: equal, or one inside the other once all white space is gone."""
    left, right = "".join(prediction.split()), "".join(answer.split())
    return prediction == answer or left in right or right in left


def sqa3d_reference(items: Sequence[Answered]) -> dict[str, float]:
    """`EM`, `EM-R` and EM per question type (`EM/what` …); percent, plain means over items."""
    cleaned = [
        replace(item, prediction=clean_sqa3d(item.prediction), answers=tuple(map(clean_sqa3d, item.answers)))
        for item in items
    ]
    exact = [item.prediction in item.answers for item in cleaned]
    refined = [any(matches_refined(item.prediction, answer) for answer in item.answers) for item in cleaned]
    present = {item.group for item in items}
    by_group = {
        f"EM/{group}": _percent(hit for hit, item in zip(exact, items, strict=True) if item.group == group)
        for group in (*SQA3D_TYPES, "others")
        if group in present
    }
    return {"EM": _percent(exact), "EM-R": _percent(refined)} | by_group


def scanqa_reference(items: Sequence[Answered]) -> dict[str, float]:
    """`EM`: the prediction, as it is, is literally one of the answers; percent."""
    return {"EM": _percent(item.prediction in item.answers for item in items)}


METRICS: dict[str, dict[str, Metric]] = {
    "sqa3d": {"reference": sqa3d_reference},
    "scanqa": {"reference": scanqa_reference},
}


def score(task: str, items: Sequence[Answered]) -> dict[str, dict[str, float]]:
    """protocol -> metric -> percent for one task. ValueError: an unknown task, or no items."""
    if task not in METRICS:
        raise ValueError(f"task {task!r} has no answer metric, expected one of {', '.join(METRICS)}")
    if not items:
        raise ValueError(f"{task}: got no answers to score, expected at least one")
    return {protocol: metric(items) for protocol, metric in METRICS[task].items()}


def majority_answer(items: Sequence[Answered]) -> str:
    """The answer that is right for most of the items; ties go to the one met first."""
    counts = Counter(answer for item in items for answer in dict.fromkeys(item.answers))
    return counts.most_common(1)[0][0]


def answered_alike(items: Sequence[Answered], prediction: str) -> list[Answered]:
    """The same questions, each answered with `prediction`: the baseline that sees nothing."""
    return [replace(item, prediction=prediction) for item in items]


def _percent(hits: Iterable[bool]) -> float:
    values = list(hits)
    return 100.0 * sum(values) / len(values)
