"""Every synthetic text is derived a second time, by slow and different means, from scene and words."""

import json
from collections import Counter, defaultdict

import pytest
from synth_oracle import Person, answer_situated, answers_about_room, check_situation, denoted, things
from synth_rooms import random_scene

from pipeline.annotations import load_annotations
from pipeline.scans import ScanEntry
from pipeline.synth.layout import sample_scene
from pipeline.synth.texts import write_annotations
from pipeline.texts import scan_texts


@pytest.fixture(scope="module")
def scenes():
    train = [random_scene(f"scene80{i:02d}_00") for i in range(3)]
    train += [sample_scene(f"scene80{i:02d}_00", seed=i) for i in range(3, 8)]
    val = [random_scene("scene8100_00"), sample_scene("scene8101_00", seed=100)]
    return train, val


@pytest.fixture(scope="module")
def folder(tmp_path_factory, scenes):
    path = tmp_path_factory.mktemp("annotations")
    write_annotations(path, *scenes, seed=5)
    return path


def by_id(scenes):
    return {scene.scan_id: scene for scene in (*scenes[0], *scenes[1])}


def records(folder, name, container=None):
    rows = []
    for split in ("train", "val"):
        tree = json.loads((folder / name.format(split=split)).read_text())
        rows += tree[container] if container else tree
    return rows


def test_every_situated_answer_is_derived_again(folder, scenes):
    questions = records(folder, "v1_balanced_questions_{split}_scannetv2.json", "questions")
    annotations = records(folder, "v1_balanced_sqa_annotations_{split}_scannetv2.json", "annotations")
    assert len(questions) == len(annotations) > 400
    for question, annotation in zip(questions, annotations, strict=True):
        assert question["question_id"] == annotation["question_id"]
        scene = by_id(scenes)[question["scene_id"]]
        person = Person(scene, annotation)
        for sentence in (question["situation"], *question["alternative_situation"]):
            check_situation(scene, person, sentence)
        found = answer_situated(scene, person, question["question"], question["situation"])
        assert found == annotation["answers"][0]["answer"], question
    assert len({q["question_id"] for q in questions}) == len(questions)


def test_every_room_answer_is_derived_again(folder, scenes):
    rows = records(folder, "ScanQA_v1.0_{split}.json")
    assert len(rows) > 400
    for row in rows:
        allowed = answers_about_room(by_id(scenes)[row["scene_id"]], row["question"])
        assert set(row["answers"]) <= allowed, row
        assert len(row["answers"]) == len(set(row["answers"]))


def test_every_description_means_its_objects_and_no_others(folder, scenes):
    rows = records(folder, "ScanRefer_filtered_{split}.json")
    assert len(rows) > 250
    for row in rows:
        assert denoted(by_id(scenes)[row["scene_id"]], row["description"]) == {int(row["object_id"])}, row
        assert "".join(row["token"]) == row["description"].replace(" ", "")
    for row in records(folder, "multi3drefer_{split}.json"):
        scene = by_id(scenes)[row["scene_id"]]
        assert denoted(scene, row["description"]) == set(row["object_ids"]), row
        same = [o for o in things(scene) if o.label == row["object_name"].replace("_", " ")]
        assert row["eval_type"] == {
            0: "zt_w_d" if same else "zt_wo_d",
            1: "st_w_d" if len(same) > 1 else "st_wo_d",
        }.get(len(row["object_ids"]), "mt")


def test_no_answer_dominates_and_yes_balances_no(folder):
    questions = records(folder, "v1_balanced_questions_{split}_scannetv2.json", "questions")
    annotations = records(folder, "v1_balanced_sqa_annotations_{split}_scannetv2.json", "annotations")
    answers = defaultdict(Counter)
    for question, annotation in zip(questions, annotations, strict=True):
        answers[question["question"].split()[0]][annotation["answers"][0]["answer"]] += 1
    for word in ("Is", "Can"):
        assert set(answers[word]) == {"yes", "no"}
        assert 0.45 < answers[word]["yes"] / answers[word].total() < 0.55
    for word in ("What", "How", "Which"):
        assert answers[word].most_common(1)[0][1] < 0.4 * answers[word].total(), answers[word]
    rows = records(folder, "ScanQA_v1.0_{split}.json")
    common = Counter(row["answers"][0] for row in rows).most_common(1)[0][1]
    assert common < 0.15 * len(rows)


def test_answers_cannot_be_guessed_from_the_first_word_of_the_question(folder):
    questions = records(folder, "v1_balanced_questions_{split}_scannetv2.json", "questions")
    annotations = records(folder, "v1_balanced_sqa_annotations_{split}_scannetv2.json", "annotations")
    wordings = defaultdict(Counter)
    for question, annotation in zip(questions, annotations, strict=True):
        wordings[question["question"].split()[0]][annotation["answers"][0]["answer"]] += 1
    guessed = sum(counts.most_common(1)[0][1] for counts in wordings.values())
    assert guessed < 0.5 * len(questions)


def test_same_scenes_and_seed_give_the_same_bytes(scenes, tmp_path):
    few = (scenes[0][:1], scenes[1][:1])
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        write_annotations(tmp_path / name, *few, seed=seed)
    a, b, c = ({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in "abc")
    assert a == b
    assert all(a[name] != c[name] for name in a)


def test_files_are_read_by_the_reader_of_the_official_ones(folder, scenes):
    annotations = load_annotations(folder)
    for split, part in zip(("train", "val"), scenes, strict=True):
        for scene in part:
            ids = [o.instance_id for o in scene.objects]
            objects = {"instance_ids": ids, "boxes": [[0.0] * 6 for _ in ids]}
            scan = ScanEntry(scene.scan_id, "", {}, split, "scannet")
            texts, missing = scan_texts(scan, annotations, objects, {})
            assert missing == []
            assert {t["task"] for t in texts} == {"sqa3d", "scanqa", "scan2cap", "scanrefer", "multi3drefer"}
            assert len({(t["task"], t["id"]) for t in texts}) == len(texts)


def test_texts_are_many_enough(folder, scenes):
    per_room = Counter(r["scene_id"] for r in records(folder, "ScanQA_v1.0_{split}.json"))
    assert min(per_room[s.scan_id] for s in scenes[0]) >= 30
    per_room = Counter(
        r["scene_id"] for r in records(folder, "v1_balanced_questions_{split}_scannetv2.json", "questions")
    )
    assert min(per_room[s.scan_id] for s in scenes[0]) >= 50
