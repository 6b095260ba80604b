"""The five benchmarks as one table, and the texts made from them (standard library only).

A *text* is one question, caption or referring expression about a scan: a plain dict of fixed keys and types,
as stored in `texts.json`. Prompts and targets are never stored; they follow from the text and the table:

    human_value(text)      what the user turn says, starting with "<image>"
    train_targets(text)    what the assistant turn may say in training: one record each

A text keeps all its answers. The published mixtures hold one record per answer for ScanQA and one record per
text otherwise; `train_targets` gives exactly those, so expanding a text is

    records = [(human_value(text), target) for target in train_targets(text)]

and a trainer that wants one record takes `train_target(text, index)`, index modulo the number of records.

Official files, prompts and rules are those of Video-3D-LLM and ROSS3D, as released.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

GROUND = "<ground>"
COORD = "<coord>"

Kind = Literal["qa", "caption", "grounding"]
Target = Literal["first", "each", "caption", "ground"]
TypeRule = Literal["first_word", "none", "multiplicity", "eval_type"]


class Text(TypedDict):
    """One text, keys in stored order; strings and lists are empty rather than null."""

    id: str
    """Unique within its task and scan; made of official ids, never of row numbers."""
    task: str
    question_type: str
    situation: str
    question: str
    """The question or description as the official file spells it; "" for captions."""
    answers: list[str]
    """All accepted answers or captions as the official file spells them; [] for grounding."""
    target_ids: list[int]
    """Instance ids (`objects.json`) that are asked for, described, or that the answer is about."""
    box: list[float]
    """Captions: the object's box [cx, cy, cz, dx, dy, dz], metres, world; otherwise []."""


@dataclass(frozen=True)
class OfficialFile:
    """One kind of official annotation file."""

    name: str
    """File name; `{split}` stands for the split."""
    container: str
    """Key of the list of records; "" when the file itself is that list."""
    fields: Mapping[str, tuple[type, ...]]
    """Fields that are read, with the types that the official files use."""

    def file_name(self, split: str) -> str:
        return self.name.format(split=split)


@dataclass(frozen=True)
class Task:
    """One benchmark: one row of the table."""

    name: str
    kind: Kind
    files: tuple[OfficialFile, ...]
    splits: tuple[str, ...]
    """Splits whose official files carry answers; all but `train` are held out."""
    prompt: str
    """Human value; `{situation}` and `{question}` are replaced, the latter capitalised if `capitalize`."""
    capitalize: bool
    """Apply str.capitalize() to the description or caption: first letter upper, all others lower case."""
    target: Target
    """first: answers[0]; each: a record per answer; caption: the first description, capitalised;
    ground: the token whose hidden state is matched with the candidate boxes."""
    type_rule: TypeRule
    """Where question_type comes from: first_word = `sqa3d_question_type`; none = "" (published files
    spell it `unknow`); multiplicity = unique/multiple by the objects of the class in the split file;
    eval_type = that field."""


_GROUNDING_PROMPT = "<image>Identify the object according to the following description.\n{question}"

_SCANREFER_FILE = OfficialFile(
    "ScanRefer_filtered_{split}.json",
    "",
    {
        "scene_id": (str,),
        "object_id": (str, int),
        "object_name": (str,),
        "ann_id": (str, int),
        "description": (str,),
    },
)

_ROWS = (
    Task(
        name="sqa3d",
        kind="qa",
        files=(
            OfficialFile(
                "v1_balanced_questions_{split}_scannetv2.json",
                "questions",
                {
                    "scene_id": (str,),
                    "question_id": (int, str),
                    "situation": (str,),
                    "alternative_situation": (list,),
                    "question": (str,),
                },
            ),
            OfficialFile(
                "v1_balanced_sqa_annotations_{split}_scannetv2.json",
                "annotations",
                {"scene_id": (str,), "question_id": (int, str), "answers": (list,)},
            ),
        ),
        splits=("train", "val", "test"),
        prompt="<image> {situation} {question} Answer the question using a single word or phrase.",
        capitalize=False,
        target="first",
        type_rule="first_word",
    ),
    Task(
        name="scanqa",
        kind="qa",
        files=(
            OfficialFile(
                "ScanQA_v1.0_{split}.json",
                "",
                {
                    "scene_id": (str,),
                    "question_id": (str,),
                    "question": (str,),
                    "answers": (list,),
                    "object_ids": (list,),
                },
            ),
        ),
        splits=("train", "val"),
        prompt="<image> {question} Answer the question simply.",
        capitalize=False,
        target="each",
        type_rule="none",
    ),
    Task(
        name="scan2cap",
        kind="caption",
        files=(_SCANREFER_FILE,),
        splits=("train", "val"),
        prompt=f"<image> Given an object located at {COORD} , describe the object in detail.",
        capitalize=True,
        target="caption",
        type_rule="multiplicity",
    ),
    Task(
        name="scanrefer",
        kind="grounding",
        files=(_SCANREFER_FILE,),
        splits=("train", "val"),
        prompt=_GROUNDING_PROMPT,
        capitalize=True,
        target="ground",
        type_rule="multiplicity",
    ),
    Task(
        name="multi3drefer",
        kind="grounding",
        files=(
            OfficialFile(
                "multi3drefer_{split}.json",
                "",
                {
                    "scene_id": (str,),
                    "object_ids": (list,),
                    "object_name": (str,),
                    "ann_id": (int, str),
                    "description": (str,),
                    "eval_type": (str,),
                },
            ),
        ),
        splits=("train", "val"),
        prompt=_GROUNDING_PROMPT
        + "\nThere may be no corresponding object, or there may be one or more objects.",
        capitalize=True,
        target="ground",
        type_rule="eval_type",
    ),
)

TASKS: Mapping[str, Task] = {row.name: row for row in _ROWS}
"""Task name -> row, in the order of the published mixture."""

SQA3D_TYPES = ("what", "is", "how", "can", "which")
"""Prefixes in the order in which they are tested; anything else is `others`."""


def task_of(text: Mapping[str, Any]) -> Task:
    """The table row of a text. ValueError: a task that this version does not know."""
    if text["task"] not in TASKS:
        raise ValueError(f"text {text['id']!r}: task {text['task']!r}, expected one of {', '.join(TASKS)}")
    return TASKS[text["task"]]


def new_text(
    task: str,
    text_id: str,
    *,
    question: str = "",
    answers: Sequence[str] = (),
    target_ids: Sequence[int] = (),
    **more: Any,
) -> Text:
    """A Text in stored key order with the right types; `more`: question_type, situation, box."""
    unknown = sorted(set(more) - {"question_type", "situation", "box"})
    if task not in TASKS or unknown:
        raise ValueError(f"text {text_id!r}: unknown task or field {unknown or task!r}")
    return Text(
        id=str(text_id),
        task=task,
        question_type=str(more.get("question_type", "")),
        situation=str(more.get("situation", "")),
        question=str(question),
        answers=[str(answer) for answer in answers],
        target_ids=[int(target) for target in target_ids],
        box=[float(value) for value in more.get("box", ())],
    )


def sqa3d_question_type(question: str) -> str:
    """what / is / how / can / which by prefix (not whole word: "Island" is "is"), else others."""
    start = question.lstrip().lower()
    return next((prefix for prefix in SQA3D_TYPES if start.startswith(prefix)), "others")


def human_value(text: Mapping[str, Any]) -> str:
    """What the human says, in training and evaluation alike; it starts with "<image>"."""
    task = task_of(text)
    question = text["question"].capitalize() if task.capitalize else text["question"]
    return task.prompt.format(situation=text["situation"], question=question)


def train_targets(text: Mapping[str, Any]) -> list[str]:
    """The assistant's turns, one per training record of this text; [] when it has no answer."""
    task = task_of(text)
    if task.target == "ground":
        return [GROUND]
    answers = [answer.capitalize() if task.capitalize else answer for answer in text["answers"]]
    return answers if task.target == "each" else answers[:1]


def train_target(text: Mapping[str, Any], index: int = 0) -> str:
    """The assistant's turn of training record `index` (taken modulo their number). ValueError: no answer."""
    targets = train_targets(text)
    if not targets:
        raise ValueError(f"{text['task']} text {text['id']!r}: no answer, expected at least one to train on")
    return targets[index % len(targets)]
