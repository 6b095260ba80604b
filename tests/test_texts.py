"""Texts from official files: real counts, forms for training and evaluation, ids, what is missing."""

import struct
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from annotation_files import SCAN, multi3drefer, scanrefer, write, write_sqa3d
from scipy import sparse

from pipeline.annotations import load_annotations
from pipeline.config import Config, from_tree
from pipeline.errors import ScanError
from pipeline.objects import no_objects
from pipeline.scans import ScanEntry, take_inventory, write_inventory
from pipeline.texts import build, missing_scans, scan_texts
from scanshards.tasks import human_value, train_target, train_targets

LABELS = {"chair": 5, "office chair": 5, "desk": 14, "lamp": 35, "vase": 40, "case": 40}
OBJECTS = {
    "boxes": [[float(i), 0.0, 0.0, 1.0, 1.0, 1.0] for i in (0, 2, 3, 7)],
    "instance_ids": [0, 2, 3, 7],
    "labels": ["chair", "chair", "lamp", "desk"],
    "nyu40_ids": [5, 5, 35, 14],
    "sources": ["gt"] * 4,
    "scores": [1.0] * 4,
}


def entry(split="train", scan_id=SCAN, directory="", files=None):
    return ScanEntry(scan_id, directory, files or {}, split, "scannet")


def texts_of(root, split="train", scan_id=SCAN, objects=OBJECTS):
    return scan_texts(entry(split, scan_id), load_annotations(root), objects, LABELS)


def test_real_files_give_the_counts_of_the_benchmarks(shared_dir):
    annotations = load_annotations(shared_dir / "annotations")
    texts, missing = [], []
    for scan_id in annotations.scan_ids():
        found, lost = scan_texts(entry("val", scan_id), annotations, no_objects(), {})
        texts += found
        missing += lost
    counts = Counter((text["task"], text["question_type"]) for text in texts)
    assert counts == {
        ("sqa3d", "what"): 1147,
        ("sqa3d", "is"): 652,
        ("sqa3d", "how"): 465,
        ("sqa3d", "can"): 338,
        ("sqa3d", "which"): 351,
        ("sqa3d", "others"): 566,
        ("scanqa", ""): 4675,
    }
    assert len({(text["task"], text["id"]) for text in texts}) == len(texts) == 3519 + 4675
    scans = Counter(task for scan_id in annotations.scan_ids() for task, _ in annotations.of(scan_id))
    assert scans == {"sqa3d": 67, "scanqa": 71}
    answers = Counter(len(text["answers"]) for text in texts if text["task"] == "scanqa")
    assert answers == {2: 4649, 3: 12, 4: 9, 5: 1, 6: 2, 7: 1, 8: 1}
    assert sum(len(train_targets(text)) for text in texts if text["task"] == "scanqa") == 9402
    assert {row["what"] for row in missing} == {"object"}


def test_real_records_keep_their_words(shared_dir):
    annotations = load_annotations(shared_dir / "annotations")
    texts, _ = scan_texts(entry("val", "scene0050_00"), annotations, no_objects(), {})
    text = next(t for t in texts if t["id"] == "220602000002")
    assert human_value(text) == (
        "<image> I am standing by the ottoman on my right facing a couple of toolboxes. What instrument in "
        "front of me is ebony and ivory? Answer the question using a single word or phrase."
    )
    assert train_target(text) == "piano"


def test_alternative_situations_come_before_the_main_one_in_training_only(tmp_path):
    write_sqa3d(
        tmp_path, "train", [(7, "Is it?", ["I am A.", "I am B."]), (8, "Why?", [])], [(7, "yes"), (8, "no")]
    )
    texts, missing = texts_of(tmp_path)
    assert [(t["id"], t["situation"], t["question_type"], t["answers"]) for t in texts] == [
        ("7-1", "I am A.", "is", ["yes"]),
        ("7-2", "I am B.", "is", ["yes"]),
        ("7", "I am main.", "is", ["yes"]),
        ("8", "I am main.", "others", ["no"]),
    ]
    assert [t["id"] for t in texts_of(tmp_path, "val")[0]] == ["7", "8"]
    assert missing == []


@pytest.mark.parametrize("split", ["val", "test"])
def test_held_out_files_never_reach_a_training_scan(tmp_path, split):
    write_sqa3d(tmp_path, split, [(7, "Is it?", ["I am A."])], [(7, "yes")])
    assert [t["id"] for t in texts_of(tmp_path, "val")[0]] == ["7"]
    texts, missing = texts_of(tmp_path, "train")
    assert texts == []
    assert missing == [{"task": "sqa3d", "id": SCAN, "what": "held_out", "value": f"1 records of {split}"}]


def test_questions_and_answers_are_matched_by_id_and_losses_are_listed(tmp_path):
    write_sqa3d(
        tmp_path,
        "train",
        [(1, "Is it?", []), (2, "Is it?", []), (3, "Is it?", [])],
        [(3, "three"), (1, "one"), (9, "nine")],
    )
    texts, missing = texts_of(tmp_path)
    assert {t["id"]: t["answers"] for t in texts} == {"1": ["one"], "3": ["three"]}
    assert missing == [
        {"task": "sqa3d", "id": "2", "what": "answer", "value": "2"},
        {"task": "sqa3d", "id": "9", "what": "question", "value": "9"},
    ]


def test_object_ids_are_ids_and_never_rows(tmp_path):
    write(tmp_path / "ScanRefer_filtered_train.json", [scanrefer(7, 0, "desk"), scanrefer(1, 4, "chair")])
    texts, missing = texts_of(tmp_path)
    assert [(t["task"], t["id"], t["target_ids"], t["box"]) for t in texts] == [
        ("scan2cap", f"{SCAN}|7|0", [7], [7.0, 0.0, 0.0, 1.0, 1.0, 1.0]),
        ("scanrefer", f"{SCAN}|7|0", [7], []),
    ]
    assert missing == [
        {"task": task, "id": f"{SCAN}|1|4", "what": "object", "value": "1"}
        for task in ("scan2cap", "scanrefer")
    ]


def test_scan2cap_groups_descriptions_when_held_out(tmp_path):
    rows = [
        scanrefer(0, 3, "office_chair", "First."),
        scanrefer(7, 0, "desk", "Other."),
        scanrefer(0, 1, "office_chair", "Second."),
        scanrefer(0, 2, "chair", "Renamed."),
    ]
    write(tmp_path / "ScanRefer_filtered_val.json", rows)
    captions = [t for t in texts_of(tmp_path, "val")[0] if t["task"] == "scan2cap"]
    assert [(t["id"], t["answers"], t["box"][0]) for t in captions] == [
        (f"{SCAN}|0|office_chair", ["First.", "Second."], 0.0),
        (f"{SCAN}|7|desk", ["Other."], 7.0),
        (f"{SCAN}|0|chair", ["Renamed."], 0.0),
    ]
    write(tmp_path / "ScanRefer_filtered_val.json", [])
    write(tmp_path / "ScanRefer_filtered_train.json", rows)
    captions = [t for t in texts_of(tmp_path)[0] if t["task"] == "scan2cap"]
    assert [t["answers"] for t in captions] == [["First."], ["Other."], ["Second."], ["Renamed."]]


def test_unique_counts_annotated_objects_by_nyu40_class(tmp_path):
    write(
        tmp_path / "ScanRefer_filtered_train.json",
        [
            scanrefer(0, 0, "chair"),
            scanrefer(2, 0, "office_chair"),
            scanrefer(7, 0, "desk"),
            scanrefer(7, 1, "desk"),
            scanrefer(3, 0, "vase"),
        ],
    )
    types = {t["id"]: t["question_type"] for t in texts_of(tmp_path)[0] if t["task"] == "scanrefer"}
    assert types == {
        f"{SCAN}|0|0": "multiple",
        f"{SCAN}|2|0": "multiple",
        f"{SCAN}|7|0": "unique",
        f"{SCAN}|7|1": "unique",
        f"{SCAN}|3|0": "unique",
    }
    write(
        tmp_path / "ScanRefer_filtered_train.json", [scanrefer(3, 0, "vase"), scanrefer(7, 0, "lamp shade")]
    )
    others = [t["question_type"] for t in texts_of(tmp_path)[0] if t["task"] == "scanrefer"]
    assert others == ["multiple", "multiple"]


def test_multi3drefer_keeps_zero_targets_and_drops_incomplete_ones(tmp_path):
    write(
        tmp_path / "multi3drefer_train.json",
        [multi3drefer([], 5, "zt_w_d"), multi3drefer([2, 0], 6, "mt"), multi3drefer([2, 1], 6, "mt")],
    )
    texts, missing = texts_of(tmp_path)
    assert [(t["id"], t["target_ids"], t["question_type"]) for t in texts] == [
        (f"{SCAN}|5", [], "zt_w_d"),
        (f"{SCAN}|6", [2, 0], "mt"),
    ]
    assert missing == [{"task": "multi3drefer", "id": f"{SCAN}|6", "what": "object", "value": "1"}]


def test_repeated_ids_are_told_apart(tmp_path):
    write(tmp_path / "multi3drefer_train.json", [multi3drefer([], 5, "zt_w_d")] * 3)
    assert [t["id"] for t in texts_of(tmp_path)[0]] == [f"{SCAN}|5", f"{SCAN}|5+2", f"{SCAN}|5+3"]


def test_scanqa_keeps_all_answers_and_known_objects(tmp_path):
    record = {
        "scene_id": SCAN,
        "question_id": "train-scene0001-4",
        "question": "How many?",
        "answers": ["2", "two"],
        "object_ids": [2, 9],
        "object_names": ["chair", "chair"],
    }
    write(
        tmp_path / "ScanQA_v1.0_train.json",
        [record, {**record, "question_id": "train-scene0001-5", "answers": []}],
    )
    texts, missing = texts_of(tmp_path)
    assert [(t["id"], t["answers"], t["target_ids"]) for t in texts] == [
        ("train-scene0001-4", ["2", "two"], [2])
    ]
    assert [(row["what"], row["value"]) for row in missing] == [
        ("object", "9"),
        ("answer", "train-scene0001-5"),
    ]


def test_scans_without_a_folder_are_listed(tmp_path):
    write(
        tmp_path / "ScanRefer_filtered_train.json",
        [scanrefer(0, 0, "chair"), scanrefer(0, 0, "chair", scene_id="scene0002_00")],
    )
    rows = missing_scans(load_annotations(tmp_path), [SCAN])
    assert [(row["task"], row["value"]) for row in rows] == [
        ("scan2cap", "scene0002_00"),
        ("scanrefer", "scene0002_00"),
    ]


def write_scan(root, with_table=True):
    """A scan folder with a mesh of four vertices: two for a chair, two for no object."""
    folder = root / "scans" / SCAN
    folder.mkdir(parents=True)
    vertices = np.array([[0, 0, 0], [1, 2, 4], [5, 5, 5], [6, 6, 6]], np.float32)
    header = (
        "ply\nformat binary_little_endian 1.0\nelement vertex 4\n"
        + "".join(f"property float {axis}\n" for axis in "xyz")
        + "".join(f"property uchar {name}\n" for name in ("red", "green", "blue", "alpha"))
        + "element face 1\nproperty list uchar int vertex_indices\nend_header\n"
    )
    body = b"".join(struct.pack("<3f4B", *vertex.tolist(), 9, 9, 9, 255) for vertex in vertices)
    body += struct.pack("<B3i", 3, 0, 1, 2)
    (folder / f"{SCAN}_vh_clean_2.ply").write_bytes(header.encode() + body)
    (folder / f"{SCAN}.sens").write_bytes(b"")
    (folder / f"{SCAN}.txt").write_text("axisAlignment = 0 -1 0 10 1 0 0 20 0 0 1 30 0 0 0 1\n")
    write(folder / f"{SCAN}_vh_clean_2.0.010000.segs.json", {"segIndices": [4, 4, 8, 8]})
    group = {"id": 0, "objectId": 0, "label": "chair", "segments": [4]}
    write(folder / f"{SCAN}.aggregation.json", {"segGroups": [group]})
    if with_table:
        (root / "scans" / "scannetv2-labels.combined.tsv").write_text("raw_category\tnyu40id\nchair\t5\n")
    write(root / "annotations" / "ScanRefer_filtered_train.json", [scanrefer(0, 0, "chair")])
    config = from_tree(
        Config,
        {
            "work": str(root / "work"),
            "scans": {"root": str(root / "scans")},
            "texts": {"root": str(root / "annotations")},
        },
    )
    inventory = take_inventory(config)
    (root / "work").mkdir()
    write_inventory(Path(config.work) / "scans.json", inventory)
    return inventory.scans[0], config


def test_the_stage_stores_objects_in_the_aligned_frame_and_what_it_read(tmp_path):
    scan, config = write_scan(tmp_path)
    group = zarr.open_group(tmp_path / "texts.zarr", mode="w")
    build(scan, group, config, {})
    attrs = zarr.open_group(tmp_path / "texts.zarr", mode="r").attrs.asdict()
    assert attrs["objects"]["boxes"] == [[9.0, 20.5, 32.0, 2.0, 1.0, 4.0]]
    assert [t["task"] for t in attrs["texts"]] == ["scan2cap", "scanrefer"]
    assert attrs["texts"][0]["box"] == attrs["objects"]["boxes"][0]
    assert [row["name"] for row in attrs["inputs"]] == [
        f"{SCAN}_vh_clean_2.ply",
        f"{SCAN}_vh_clean_2.0.010000.segs.json",
        f"{SCAN}.aggregation.json",
        "scannetv2-labels.combined.tsv",
        "ScanRefer_filtered_train.json",
    ]
    assert attrs["missing"] == []


def test_instances_without_a_label_table_set_the_scan_aside_with_the_remedy(tmp_path):
    scan, config = write_scan(tmp_path, with_table=False)
    with pytest.raises(ScanError, match=r"no scannetv2-labels\.combined\.tsv lies in or beside the scans"):
        build(scan, zarr.open_group(tmp_path / "texts.zarr", mode="w"), config, {})


def with_masks(root, config, masks):
    """The scan with a file of proposals, and the parameters that name its folder."""
    folder = root / "masks"
    folder.mkdir()
    sparse.save_npz(folder / f"{SCAN}.mask.npz", sparse.csr_matrix(masks))
    config = replace(config, texts=replace(config.texts, proposals=str(folder)))
    (scan,) = take_inventory(config).scans
    return scan, config


def test_proposals_follow_the_annotated_objects_and_texts_do_not_mean_them(tmp_path):
    _, config = write_scan(tmp_path)
    scan, config = with_masks(tmp_path, config, [[0, 0, 0, 0], [0, 0, 1, 1], [1, 0, 0, 0]])
    group = zarr.open_group(tmp_path / "texts.zarr", mode="w")
    build(scan, group, config, {})
    attrs = zarr.open_group(tmp_path / "texts.zarr", mode="r").attrs.asdict()
    objects = attrs["objects"]
    assert list(zip(objects["sources"], objects["instance_ids"], objects["labels"], strict=True)) == [
        ("gt", 0, "chair"),
        ("pred", 1, ""),
        ("pred", 2, ""),
    ]
    assert objects["boxes"][1:] == [[4.5, 25.5, 35.5, 1.0, 1.0, 1.0], [10.0, 20.0, 30.0, 0.0, 0.0, 0.0]]
    assert [text["target_ids"] for text in attrs["texts"]] == [[0], [0]]
    assert attrs["texts"][0]["box"] == objects["boxes"][0]
    assert attrs["missing"] == [{"task": "", "id": f"{SCAN}.mask.npz", "what": "empty_mask", "value": "0"}]
    names = [row["name"] for row in attrs["inputs"]]
    assert names[0] == f"{SCAN}_vh_clean_2.ply" and f"{SCAN}.mask.npz" in names
    assert len(set(names)) == len(names) == 6


def test_proposals_alone_need_no_label_table(tmp_path):
    _, config = write_scan(tmp_path, with_table=False)
    scan, config = with_masks(tmp_path, config, [[0, 1, 0, 0]])
    files = {role: stamp for role, stamp in scan.files.items() if role != "segs"}
    group = zarr.open_group(tmp_path / "texts.zarr", mode="w")
    build(replace(scan, files=files), group, config, {})
    assert group.attrs["objects"]["sources"] == ["pred"]
    names = [row["name"] for row in group.attrs["inputs"]]
    assert names[:2] == [f"{SCAN}_vh_clean_2.ply", f"{SCAN}.mask.npz"]


def test_masks_without_their_mesh_and_an_old_inventory_are_told(tmp_path):
    old, without = write_scan(tmp_path)
    config = without
    scan, config = with_masks(tmp_path, config, [[0, 1, 0, 0]])
    group = zarr.open_group(tmp_path / "texts.zarr", mode="w")
    files = {role: stamp for role, stamp in scan.files.items() if role != "mesh"}
    with pytest.raises(ScanError, match=rf"{SCAN}\.mask\.npz: masks of a mesh's vertices, but .* no mesh"):
        build(replace(scan, files=files), group, config, {})
    for found, parameters in ((old, config), (scan, without)):
        with pytest.raises(ValueError, match="run `python -m pipeline.run scans`") as caught:
            build(found, group, parameters, {})
        assert not isinstance(caught.value, ScanError)
