"""Answer metrics: the golden values of the published evaluators on the real files, and the cleaning rules."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval import text_metrics
from eval.text_metrics import Answered, clean_sqa3d, matches_refined, score
from scanshards.tasks import SQA3D_TYPES, sqa3d_question_type


@pytest.fixture(scope="module")
def sqa3d(shared_dir: Path) -> list[tuple[str, str]]:
    """(gold answer, question type) of the 3,519 test questions."""
    folder = shared_dir / "annotations" / "sqa3d"
    questions = json.loads((folder / "v1_balanced_questions_test_scannetv2.json").read_text())["questions"]
    rows = json.loads((folder / "v1_balanced_sqa_annotations_test_scannetv2.json").read_text())
    answers = {row["question_id"]: row["answers"][0]["answer"] for row in rows["annotations"]}
    return [(answers[q["question_id"]], sqa3d_question_type(q["question"])) for q in questions]


@pytest.fixture(scope="module")
def scanqa(shared_dir: Path) -> list[tuple[str, ...]]:
    """Answers of the 4,675 validation questions, file order."""
    path = shared_dir / "annotations" / "scanqa" / "ScanQA_v1.0_val.json"
    return [tuple(row["answers"]) for row in json.loads(path.read_text())]


SQA3D_GOLDEN = {
    "gold": (lambda gold: gold, 100.0, 100.0),
    "gold capitalised with a period": (lambda gold: gold.capitalize() + ".", 100.0, 100.0),
    "empty": (lambda gold: "", 0.0, 100.0),
    "a": (lambda gold: "a", 0.0, 23.9841),
    "e": (lambda gold: "e", 0.0, 54.4757),
    "yes": (lambda gold: "yes", 10.9406, 10.9974),
    "no": (lambda gold: "no", 8.0421, 8.4683),
    "sentence": (lambda gold: f"The answer is {gold}.", 0.0, 100.0),
}


@pytest.mark.parametrize("name", SQA3D_GOLDEN)
def test_sqa3d_golden_values_to_four_decimals(sqa3d, name):
    answer, exact, refined = SQA3D_GOLDEN[name]
    metrics = score("sqa3d", [Answered(answer(gold), (gold,), group) for gold, group in sqa3d])["reference"]
    assert (round(metrics["EM"], 4), round(metrics["EM-R"], 4)) == (exact, refined)
    if name == "yes":
        by_type = {group: round(metrics[f"EM/{group}"], 4) for group in ("can", "is", "others")}
        assert by_type == {"can": 54.7337, "is": 12.8834, "others": 20.4947}


def test_sqa3d_types_average_to_the_whole(sqa3d):
    items = [Answered("yes", (gold,), group) for gold, group in sqa3d]
    counts = {group: sum(item.group == group for item in items) for group in (*SQA3D_TYPES, "others")}
    assert counts == {"what": 1147, "is": 652, "how": 465, "can": 338, "which": 351, "others": 566}
    metrics = score("sqa3d", items)["reference"]
    weighted = math.fsum(metrics[f"EM/{group}"] * count for group, count in counts.items()) / len(items)
    assert math.isclose(weighted, metrics["EM"], abs_tol=1e-9)


def test_cleaning_changes_no_gold_answer_of_the_test_set(sqa3d):
    assert [gold for gold, _ in sqa3d if clean_sqa3d(gold) != gold] == []


def test_scanqa_golden_exact_match(scanqa):
    def exact(predictions: list[str]) -> float:
        items = [Answered(p, answers) for p, answers in zip(predictions, scanqa, strict=True)]
        return round(score("scanqa", items)["reference"]["EM"], 4)

    assert exact([scanqa[index - 1][0] for index in range(len(scanqa))]) == 3.2727
    assert exact([answers[-1] for answers in scanqa]) == 100.0
    assert exact([answers[0].capitalize() + "." for answers in scanqa]) == 0.0


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("  Two   Chairs. ", "two chairs"),
        ("none", "zero"),
        ("0", "zero"),
        ("23", "twenty-three"),
        ("21", "21"),
        ("mat2", "mat"),
        ("mat12", "mat12"),
        ("the the lamp", "the lamp"),
        ("a lamp on the table", "lamp on table"),
        ("the", "the"),
        ("10 oclock", "ten o'clock"),
        ("6 o' clock", "six o'clock"),
        ("TV", "TV"),
        ("rigth-backwards", "right-backward"),
        ("caf\u00e9 (left)!", "caf left"),
    ],
)
def test_cleaning_rules(text, cleaned):
    assert clean_sqa3d(text) == cleaned


@given(st.text(alphabet="ab 1the.-'", max_size=20), st.text(alphabet="ab 1the.-'", max_size=20))
def test_refined_match_is_symmetric_and_holds_wherever_exact_match_does(left, right):
    assert matches_refined(left, right) == matches_refined(right, left)
    assert matches_refined(left, left)
    assert matches_refined("", right)


def test_scanqa_is_case_sensitive_and_keeps_the_period():
    items = [
        Answered("brown", ("brown", "dark brown")),
        Answered("Brown", ("brown",)),
        Answered("brown.", ("brown",)),
    ]
    assert score("scanqa", items)["reference"]["EM"] == pytest.approx(100 / 3)


def test_majority_answer_is_the_best_constant_for_exact_match():
    items = [Answered("", answers) for answers in (("x", "y"), ("y",), ("z", "z", "z"), ("y", "x"))]
    best = text_metrics.majority_answer(items)
    scores = {
        answer: score("scanqa", text_metrics.answered_alike(items, answer))["reference"]["EM"]
        for answer in "xyz"
    }
    assert best == "y"
    assert scores[best] == max(scores.values()) == 75.0


def test_unknown_task_and_no_items_are_named():
    with pytest.raises(
        ValueError, match="task 'riddles' has no answer metric, expected one of sqa3d, scanqa"
    ):
        score("riddles", [Answered("a", ("a",))])
    with pytest.raises(ValueError, match="sqa3d: got no answers"):
        score("sqa3d", [])
