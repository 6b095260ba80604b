"""Prompts and targets letter for letter, and the rules of the table."""

import ast
import json
import sys
from pathlib import Path

import pytest

import scanshards.tasks as tasks
from scanshards.tasks import TASKS, human_value, new_text, sqa3d_question_type, train_target, train_targets

PROMPTS = {
    "sqa3d": "<image> I sit. What {is} it? Answer the question using a single word or phrase.",
    "scanqa": "<image> What {is} it? Answer the question simply.",
    "scan2cap": "<image> Given an object located at <coord> , describe the object in detail.",
    "scanrefer": "<image>Identify the object according to the following description.\nWhat {is} it?",
    "multi3drefer": "<image>Identify the object according to the following description.\nWhat {is} it?"
    "\nThere may be no corresponding object, or there may be one or more objects.",
}


def text_of(task, **fields):
    return new_text(task, "1", **{"question": "What {is} it?", "situation": "I sit.", **fields})


@pytest.mark.parametrize("task", PROMPTS)
def test_human_value_is_the_published_string(task):
    assert human_value(text_of(task)) == PROMPTS[task]


def test_every_row_of_the_table_has_its_prompt_tested():
    assert list(TASKS) == list(PROMPTS)
    assert all(name == task.name for name, task in TASKS.items())


def test_grounding_descriptions_are_capitalised_and_questions_are_not():
    assert human_value(text_of("scanrefer", question="the TV. It is Black")).endswith("\nThe tv. it is black")
    assert human_value(text_of("scanqa", question="what TV")) == "<image> what TV Answer the question simply."


@pytest.mark.parametrize(
    ("task", "targets"),
    [
        ("sqa3d", ["Two chairs"]),
        ("scanqa", ["Two chairs", "2"]),
        ("scan2cap", ["Two chairs"]),
        ("scanrefer", ["<ground>"]),
        ("multi3drefer", ["<ground>"]),
    ],
)
def test_only_scanqa_has_one_record_per_answer(task, targets):
    text = text_of(task, answers=["Two chairs", "2"])
    assert train_targets(text) == targets
    assert [train_target(text, i) for i in range(4)] == [targets[i % len(targets)] for i in range(4)]


def test_captions_are_capitalised():
    assert train_target(text_of("scan2cap", answers=["this is a TV. It is Black."])) == (
        "This is a tv. it is black."
    )


def test_a_text_without_answers_has_no_record():
    text = text_of("scanqa")
    assert train_targets(text) == []
    with pytest.raises(ValueError, match="scanqa text '1': no answer"):
        train_target(text)


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("What is it?", "what"),
        ("  is it?", "is"),
        ("Island or table?", "is"),
        ("HOW many", "how"),
        ("Canister?", "can"),
        ("which way", "which"),
        ("Whatever", "what"),
        ("Are there", "others"),
        ("In which", "others"),
        ("", "others"),
    ],
)
def test_question_type_is_a_prefix_rule(question, expected):
    assert sqa3d_question_type(question) == expected


def test_texts_survive_json_and_keep_key_order():
    text = new_text(
        "scan2cap",
        "a|1|0",
        answers=("ö",),
        target_ids=(3,),
        box=(1, 2, 3, 4, 5, 6),
        question_type="unique",
    )
    assert json.loads(json.dumps(text)) == text
    assert list(text) == list(tasks.Text.__annotations__)


def test_unknown_tasks_and_fields_are_refused_by_name():
    with pytest.raises(ValueError, match="unknown task or field 'vqa'"):
        new_text("vqa", "1")
    with pytest.raises(ValueError, match=r"unknown task or field \['boxes'\]"):
        new_text("scanqa", "1", boxes=[])
    with pytest.raises(ValueError, match="text 'x': task 'vqa', expected one of sqa3d"):
        human_value({"id": "x", "task": "vqa"})


def test_the_table_needs_the_standard_library_only():
    tree = ast.parse(Path(tasks.__file__).read_text())
    modules = {
        alias.name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    } | {node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert modules <= sys.stdlib_module_names
