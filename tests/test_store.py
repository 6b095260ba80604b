"""A scan's group is either whole under its own name or not there."""

import warnings
import zipfile

import numpy as np
import pytest
import zarr

from pipeline.errors import ScanError
from pipeline.store import Store


@pytest.fixture
def store(tmp_path) -> Store:
    store = Store(tmp_path / "clips.zarr")
    store.create()
    return store


def fill(group: zarr.Group, value: int = 1) -> None:
    group.create_array("depth", data=np.full((4, 4), value, np.uint16))
    group.create_group("00").create_array("more", data=np.arange(value))
    group.attrs["clips"] = [{"value": value}]


def test_what_was_filled_is_read_back(store):
    assert store.build("scene0000_00", "key", fill) == ""
    group = store.read("scene0000_00")
    assert (group["depth"][:] == 1).all()
    np.testing.assert_array_equal(group["00"]["more"][:], [0])
    assert group.attrs["clips"] == [{"value": 1}]
    assert store.attrs("scene0000_00") == {"clips": [{"value": 1}]}
    assert store.marker("scene0000_00")["key"] == "key"
    assert store.scan_ids() == ["scene0000_00"]


def test_what_was_read_cannot_be_written(store):
    store.build("a", "key", fill)
    with pytest.raises((ValueError, TypeError), match="read"):
        store.read("a").attrs["clips"] = []


def test_the_file_is_a_zarr_zip_store_that_zarr_opens_itself(store):
    store.build("a", "key", lambda group: fill(group, 7))
    with warnings.catch_warnings(), zarr.storage.ZipStore(store.path / "a.zip", mode="r") as archive:
        warnings.simplefilter("error")
        group = zarr.open_group(archive, mode="r")
        assert (group["depth"][:] == 7).all()
        assert sorted(group.keys()) == ["00", "depth"]


def test_the_digest_is_of_the_content_and_not_of_the_key(store):
    store.build("a", "one", fill)
    store.build("b", "two", fill)
    store.build("c", "one", lambda group: fill(group, 2))
    assert store.digest("a") == store.digest("b") != store.digest("c")


def test_same_content_gives_the_same_file(store):
    store.build("a", "one", fill)
    before = (store.path / "a.zip").read_bytes()
    store.build("a", "one", fill)
    assert (store.path / "a.zip").read_bytes() == before


def test_a_rejected_scan_keeps_its_reason_and_its_ledger_and_no_data(store):
    groups = [{"status": "rejected", "reason": "pose not finite", "frames": [0, 1]}]

    def reject(group):
        fill(group)
        raise ScanError("scene0001_00: no finite pose", ledger=groups)

    assert store.build("scene0001_00", "key", reject) == "scene0001_00: no finite pose"
    assert store.read("scene0001_00") is None
    assert store.rejection("scene0001_00") == "scene0001_00: no finite pose"
    assert store.marker("scene0001_00")["key"] == "key"
    assert store.attrs("scene0001_00") == {"frames_ledger": groups}
    assert zipfile.ZipFile(store.path / "scene0001_00.zip").namelist() == ["zarr.json"]


def test_a_scan_can_be_set_aside_from_outside(store):
    store.build("a", "one", fill)
    store.reject("a", "two", ScanError("a: killed its worker twice"))
    assert store.rejection("a") == "a: killed its worker twice"
    assert store.attrs("a") == {}


def test_a_huge_reason_is_cut(store):
    store.reject("a", "one", ScanError("é" * 100_000))
    assert store.rejection("a").endswith("(100000 characters)")


def test_a_bug_leaves_the_old_group_in_place(store):
    store.build("a", "one", fill)

    def bug(group):
        fill(group, 2)
        raise TypeError("bug")

    with pytest.raises(TypeError):
        store.build("a", "two", bug)
    assert store.marker("a")["key"] == "one"
    assert (store.read("a")["depth"][:] == 1).all()


def test_what_a_killed_run_left_is_dropped(store):
    store.build("a", "one", fill)
    torn = store.path / ".tmp" / "b.host.1.zip"
    torn.write_bytes(b"PK")
    assert store.scan_ids() == ["a"]
    store.create()
    assert not torn.exists()
    assert store.marker("a")["key"] == "one"


def test_damage_is_found_on_reading(store):
    store.build("a", "one", lambda group: fill(group, 9))
    path = store.path / "a.zip"
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("depth/c/0/0")
    data[info.header_offset + 30 + len(info.filename)] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.zip: damaged \(Bad CRC.*; remove it and run that stage again"):
        store.read("a")
    path.write_bytes(data[:-3])
    with pytest.raises(ValueError, match=r"a\.zip: damaged .*, expected what stage clips wrote"):
        store.marker("a")


def test_a_scan_without_group_has_no_digest_and_no_rejection(store):
    assert store.read("x") is None
    assert store.attrs("x") is None
    assert store.digest("x") == ""
    assert store.rejection("x") is None


def test_a_rebuilt_group_replaces_the_old_one(store):
    store.build("a", "one", fill)
    store.build("a", "two", lambda group: fill(group, 7))
    assert (store.read("a")["depth"][:] == 7).all()
    assert store.scan_ids() == ["a"]
    assert store.marker("a")["key"] == "two"
