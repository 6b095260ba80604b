"""The inventory sees each scan once, with its files and its split, and reads none of them."""

import os

import pytest

from pipeline.config import load_config
from pipeline.scans import read_inventory, take_inventory, write_inventory


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "release" / "scans"
    for scan_id in ("scene0000_00", "scene0000_01", "scene0001_00"):
        folder = root / scan_id
        folder.mkdir(parents=True)
        (folder / f"{scan_id}.sens").write_bytes(b"s" * 10)
        (folder / f"{scan_id}.txt").write_text("sceneType = Office")
    (root / "scene0001_00" / "scene0001_00_vh_clean_2.ply").write_bytes(b"ply")
    (root / "not_a_scan").mkdir()
    return root


def inventory(root, *overrides):
    return take_inventory(load_config([f"scans.root={root}", *overrides], None))


def test_scans_are_folders_with_a_sens_file(root):
    found = inventory(root)
    assert [entry.scan_id for entry in found.scans] == ["scene0000_00", "scene0000_01", "scene0001_00"]
    assert set(found.scans[0].files) == {"sens", "meta"}
    assert set(found.scans[2].files) == {"sens", "meta", "mesh"}
    assert found.scans[2].path("mesh").read_bytes() == b"ply"
    assert found.scans[0].path("mesh") is None
    assert found.scans[0].files["sens"].bytes == 10


def test_without_lists_all_scans_train(root):
    assert {entry.split for entry in inventory(root).scans} == {"train"}


def test_scannets_lists_beside_the_scans_give_the_split(root):
    (root.parent / "scannetv2_val.txt").write_text("scene0001_00\n")
    (root.parent / "scannetv2_train.txt").write_text("scene0000_00\nscene0000_01\n")
    assert [entry.split for entry in inventory(root).scans] == ["train", "train", "val"]


def test_a_list_of_ones_own_wins(root, tmp_path):
    (root.parent / "scannetv2_val.txt").write_text("scene0001_00\n")
    (tmp_path / "mine.txt").write_text("scene0000_00\n\n")
    entries = inventory(root, f"scans.val={tmp_path / 'mine.txt'}").scans
    assert [entry.split for entry in entries] == ["val", "train", "train"]


def test_the_inventory_survives_its_file(root, tmp_path):
    (root.parent / "scannetv2-labels.combined.tsv").write_text("id\n")
    found = inventory(root)
    write_inventory(tmp_path / "scans.json", found)
    assert read_inventory(tmp_path / "scans.json") == found
    assert found.labels_stamp.bytes == 3


def test_a_changed_scan_changes_the_inventory_and_nothing_else_does(root):
    before = inventory(root)
    assert inventory(root) == before
    path = root / "scene0000_00" / "scene0000_00.sens"
    os.utime(path, ns=(1, 1))
    after = inventory(root)
    assert after.scans[0] != before.scans[0]
    assert after.scans[1:] == before.scans[1:]


def test_annotation_files_are_stamped(root, tmp_path):
    folder = tmp_path / "texts" / "scanqa"
    folder.mkdir(parents=True)
    (folder / "ScanQA_v1.0_val.json").write_text("[]")
    found = inventory(root, f"texts.root={tmp_path / 'texts'}")
    assert [stamp.name for stamp in found.annotations] == ["scanqa/ScanQA_v1.0_val.json"]
    assert inventory(root).annotations == []


def test_proposals_are_stamped_where_there_are_some(root, tmp_path):
    folder = tmp_path / "mask3d"
    folder.mkdir()
    (folder / "scene0000_01.mask.npz").write_bytes(b"npz")
    found = inventory(root, f"texts.proposals={folder}")
    assert ["proposals" in entry.files for entry in found.scans] == [False, True, False]
    entry = found.scans[1]
    assert entry.path("proposals").read_bytes() == b"npz"
    assert entry.files["proposals"].bytes == 3
    write_inventory(tmp_path / "scans.json", found)
    assert read_inventory(tmp_path / "scans.json") == found


def test_a_recording_of_many_files_has_one_stamp(root, tmp_path):
    folder = root / "room"
    folder.mkdir()
    (folder / "depth_intrinsic.txt").write_text("1")
    for number in range(300):
        (folder / f"{number:05d}.jpg").touch()
    found = inventory(root)
    (entry,) = (entry for entry in found.scans if entry.source == "posed_images")
    assert entry.files["frames"].num_files == 301
    write_inventory(tmp_path / "scans.json", found)
    assert (tmp_path / "scans.json").stat().st_size < 4000
    assert read_inventory(tmp_path / "scans.json") == found


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("texts.proposals=/no/masks", "texts.proposals: no folder /no/masks"),
        ("scans.root=/no/such/folder", "scans.root: no folder /no/such/folder; set scans.root="),
        ("scans.val=/no/list.txt", "scans.val: no file /no/list.txt"),
        ("texts.root=/no/texts", "texts.root: no folder /no/texts"),
    ],
)
def test_a_wrong_place_is_named(root, override, message):
    with pytest.raises(ValueError, match=message):
        inventory(root, override)


def test_a_folder_without_scans_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no scan in"):
        inventory(tmp_path)


def test_a_scan_id_that_no_shard_can_name_is_refused_at_once(root):
    (root / "my.scan").mkdir()
    (root / "my.scan" / "my.scan.sens").write_bytes(b"s")
    with pytest.raises(ValueError, match="scan id 'my.scan', expected letters, digits"):
        inventory(root)
