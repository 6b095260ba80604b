"""Small files in the official formats, for tests."""

import json

SCAN = "scene0001_00"


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_sqa3d(root, split, questions, answers):
    write(
        root / f"deep/er/v1_balanced_questions_{split}_scannetv2.json",
        {
            "info": {},
            "questions": [
                {
                    "scene_id": SCAN,
                    "situation": "I am main.",
                    "alternative_situation": alternatives,
                    "question": question,
                    "question_id": question_id,
                }
                for question_id, question, alternatives in questions
            ],
        },
    )
    write(
        root / f"v1_balanced_sqa_annotations_{split}_scannetv2.json",
        {
            "annotations": [
                {
                    "scene_id": SCAN,
                    "question_id": question_id,
                    "answers": [{"answer": answer, "answer_confidence": "yes", "answer_id": 1}],
                }
                for question_id, answer in answers
            ]
        },
    )


def scanrefer(object_id, ann_id, name, description="a Thing.", scene_id=SCAN):
    return {
        "scene_id": scene_id,
        "object_id": str(object_id),
        "object_name": name,
        "ann_id": str(ann_id),
        "description": description,
        "token": [],
    }


def multi3drefer(object_ids, ann_id, eval_type):
    return {
        "scene_id": SCAN,
        "object_ids": object_ids,
        "object_name": "chair",
        "ann_id": ann_id,
        "description": "All Chairs.",
        "eval_type": eval_type,
        "spatial": True,
    }
