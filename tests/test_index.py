"""index.json: complete, consistent, and refused when it is not."""

from __future__ import annotations

import copy
import hashlib
import json
import re
import subprocess
from pathlib import Path

import pytest

import scanshards
from scanshards import schema
from scanshards.index import build_index, load_index, parse_index, root_hash, write_index
from tests.make_shards import make_release

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def release(tmp_path_factory) -> Path:
    return make_release(tmp_path_factory.mktemp("release"))


def test_index_lists_shards_and_samples_with_totals(release):
    index = load_index(release)
    files = ["scannet-000000.tar", "scannet-000001.tar", "val/scannet-000000.tar"]
    assert [shard["file"] for shard in index["shards"]] == files
    assert [shard["split"] for shard in index["shards"]] == ["train", "train", "val"]
    assert index["totals"] == {
        "shards": 3,
        "samples": 4,
        "scans": 4,
        "bytes": sum((release / file).stat().st_size for file in files),
    }
    assert index["rejected"] == [{"scan_id": "scene0999_00", "reason": "all poses are -inf"}]
    assert index["format_version"] == schema.FORMAT_VERSION
    assert set(index["versions"]) == {"scanshards", "cv2", "numcodecs", "numpy", "python", "platform"}


def test_root_hash_is_the_hash_of_sha256sum_s_listing(release):
    listing = "".join(
        f"{hashlib.sha256((release / file).read_bytes()).hexdigest()}  {file}\n"
        for file in ("scannet-000000.tar", "scannet-000001.tar", "val/scannet-000000.tar")
    )
    assert load_index(release)["root_hash"] == hashlib.sha256(listing.encode()).hexdigest()


def test_the_shell_line_of_the_format_page_gives_the_root_hash(release):
    page = (ROOT / "docs" / "format.md").read_text()
    line = re.search(r"`(LC_ALL=C; cd shards; [^`]+)`", page)[1]
    printed = subprocess.run(
        line, shell=True, executable="/bin/sh", cwd=release.parent, capture_output=True, text=True, check=True
    )
    assert printed.stdout.split()[0] == load_index(release)["root_hash"]


def test_root_hash_ignores_the_order_of_shards(release):
    shards = load_index(release)["shards"]
    assert root_hash(shards) == root_hash(reversed(shards))


def test_index_does_not_depend_on_the_order_in_which_shards_were_built(release):
    index = load_index(release)
    again = build_index("made", "0123456789abcdef", reversed(index["shards"]), reversed(index["rejected"]))
    assert again == index


def test_written_index_is_the_loaded_one(release, tmp_path):
    write_index(tmp_path, load_index(release))
    assert load_index(tmp_path) == load_index(release)
    assert (tmp_path / "index.json").read_bytes() == (release / "index.json").read_bytes()


def test_an_index_without_shards_is_possible():
    index = build_index("made", "0" * 16, [], [{"scan_id": "scene0000_00", "reason": "truncated"}])
    assert index["totals"] == {"shards": 0, "samples": 0, "scans": 0, "bytes": 0}


def set_at(index: dict, path: str, value: object) -> None:
    *parents, last = path.split("/")
    for name in parents:
        index = index[int(name)] if isinstance(index, list) else index[name]
    index[last] = value


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("format_version", 2, "got format_version 2, expected 1; a newer scanshards may read it"),
        ("root_hash", "0" * 64, "root_hash is 0000"),
        ("shards/0/sha256", "0" * 64, "root_hash is"),
        ("shards/0/sha256", "zz", "got sha256 'zz'"),
        ("shards/0/bytes", 1, "1 bytes, its samples call for"),
        ("shards/0/split", "test", "split 'test'"),
        ("shards/0/file", "../scannet-000000.tar", "expected a new name"),
        ("shards/0/file", "/etc/passwd.tar", "expected a new name"),
        ("shards/0/file", "scannet-000001.tar", "expected a new name"),
        ("shards/0/samples", [], "bytes, its samples call for"),
        ("shards/0/samples/0/key", "scene0001_00-00", "sample key"),
        ("shards/0/samples/0/key", "../x-00", "sample key"),
        ("shards/0/samples/1/offset", 0, "at byte 0, expected"),
        ("shards/0/samples/0/xxh3", "ABC", "has xxh3 'ABC'"),
        ("totals/samples", 3, "totals are"),
    ],
)
def test_an_index_that_contradicts_itself_is_refused(release, path, value, message):
    index = copy.deepcopy(load_index(release))
    set_at(index, path, value)
    with pytest.raises(scanshards.CorruptSample, match=re.escape(message)) as caught:
        parse_index(json.dumps(index).encode(), "here/index.json")
    assert caught.value.file == "here/index.json"


def test_every_truncation_of_an_index_is_refused(release):
    data = (release / "index.json").read_bytes().rstrip()
    for length in range(0, len(data), 97):
        with pytest.raises(scanshards.CorruptSample):
            parse_index(data[:length], "index.json")


def test_a_shard_entry_without_its_split_is_refused(release):
    shard = {k: v for k, v in load_index(release)["shards"][0].items() if k != "split"}
    with pytest.raises(ValueError, match="'split' is missing"):
        build_index("made", "0" * 16, [shard], [])


def test_the_package_says_its_version_once():
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]
    assert version == scanshards.__version__
