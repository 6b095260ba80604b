"""Official annotation files: damage is named, files are found by name and read once."""

import pytest
from annotation_files import SCAN, scanrefer, write, write_sqa3d

from pipeline.annotations import load_annotations, read_records
from scanshards.tasks import TASKS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"object_id": "x1"}, r"train\.json record 1: object_id is 'x1', expected an integer id"),
        ({"object_id": 1.5}, r"record 1: object_id is 1\.5, expected str or int"),
        ({"description": None}, "record 1: description is None, expected str"),
        ({"scene_id": ["a"]}, r"record 1: scene_id is \['a'\], expected str"),
    ],
)
def test_a_malformed_record_is_named(tmp_path, change, message):
    rows = [scanrefer(0, 0, "chair"), {**scanrefer(0, 1, "chair"), **change}]
    write(tmp_path / "ScanRefer_filtered_train.json", rows)
    with pytest.raises(ValueError, match=message):
        load_annotations(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[{", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 200_000, "not JSON"),
        (b'{"a": 1}', "expected a list of records"),
        (b"[3]", "record 0: got int, expected an object"),
    ],
)
def test_a_damaged_file_is_a_clear_error(tmp_path, content, message):
    path = tmp_path / "ScanRefer_filtered_val.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_records(path, TASKS["scanrefer"].files[0])


def test_questions_without_their_answers_file_and_double_files_are_refused(tmp_path):
    write_sqa3d(tmp_path, "train", [], [])
    write(tmp_path / "copy" / "v1_balanced_sqa_annotations_train_scannetv2.json", {"annotations": []})
    with pytest.raises(ValueError, match=r"scannetv2\.json lies in .* and .*; keep one"):
        load_annotations(tmp_path)
    (tmp_path / "copy" / "v1_balanced_sqa_annotations_train_scannetv2.json").unlink()
    (tmp_path / "v1_balanced_sqa_annotations_train_scannetv2.json").unlink()
    with pytest.raises(ValueError, match="needs v1_balanced_sqa_annotations_train_scannetv2.json"):
        load_annotations(tmp_path)


def test_files_are_read_once_until_they_change(tmp_path):
    path = tmp_path / "ScanRefer_filtered_train.json"
    write(path, [scanrefer(0, 0, "chair")])
    first = load_annotations(tmp_path)
    assert load_annotations(tmp_path) is first
    write(path, [scanrefer(0, 0, "chair"), scanrefer(0, 1, "chair")])
    assert len(load_annotations(tmp_path).of(SCAN)["scanrefer", "train"]) == 2
