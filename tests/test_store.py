"""A scan's group is either whole under its own name or not there."""

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
    group.attrs["clips"] = [{"value": value}]


def test_what_was_filled_is_read_back(store):
    assert store.build("scene0000_00", "key", fill) == ""
    group = store.read("scene0000_00")
    assert (group["depth"][:] == 1).all()
    assert group.attrs["clips"] == [{"value": 1}]
    assert store.marker("scene0000_00")["key"] == "key"
    assert store.scan_ids() == ["scene0000_00"]


def test_the_digest_is_of_the_content_and_not_of_the_key(store):
    store.build("a", "one", fill)
    store.build("b", "two", fill)
    store.build("c", "one", lambda group: fill(group, 2))
    assert store.key("a") == store.key("b") != store.key("c")


def test_a_rejected_scan_keeps_its_reason_and_no_data(store):
    def reject(group):
        fill(group)
        raise ScanError("scene0001_00: no finite pose")

    assert store.build("scene0001_00", "key", reject) == "scene0001_00: no finite pose"
    assert store.read("scene0001_00") is None
    assert store.rejection("scene0001_00") == "scene0001_00: no finite pose"
    assert store.marker("scene0001_00")["key"] == "key"
    assert not list((store.path / "scene0001_00").glob("depth*"))


def test_a_bug_leaves_the_old_group_in_place(store):
    store.build("a", "one", fill)

    def bug(group):
        fill(group, 2)
        raise TypeError("bug")

    with pytest.raises(TypeError):
        store.build("a", "two", bug)
    assert store.marker("a")["key"] == "one"
    assert (store.read("a")["depth"][:] == 1).all()
    store.create()
    assert not (store.path / ".tmp").exists()


def test_a_scan_without_group_has_no_key_and_no_rejection(store):
    assert store.read("x") is None
    assert store.key("x") == ""
    assert store.rejection("x") is None


def test_a_rebuilt_group_replaces_the_old_one(store):
    store.build("a", "one", fill)
    store.build("a", "two", lambda group: fill(group, 7))
    assert (store.read("a")["depth"][:] == 7).all()
    assert store.scan_ids() == ["a"]
