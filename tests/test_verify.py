"""`verify`: a whole release from its root hash, every problem listed."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scanshards import codec, schema
from scanshards.index import build_index, load_index, write_index
from scanshards.verify import verify
from scanshards.write import Sample, write_shard
from tests.make_shards import make_arrays, make_members, make_release, make_sample


@pytest.fixture(scope="module")
def release(tmp_path_factory) -> Path:
    return make_release(tmp_path_factory.mktemp("release"))


@pytest.fixture
def copied(release, tmp_path) -> Path:
    return Path(shutil.copytree(release, tmp_path / "shards"))


def test_a_good_release_has_no_problem(release):
    seen = []
    report = verify(release, seen.append)
    assert report.problems == []
    assert (report.num_shards, report.num_samples) == (3, 4)
    assert report.num_bytes == load_index(release)["totals"]["bytes"]
    assert report.root_hash == load_index(release)["root_hash"]
    assert seen == [str(release / row["file"]) for row in load_index(release)["shards"]]


def test_shards_may_be_named_one_by_one(release):
    report = verify([str(release / "scannet-*.tar")])
    assert (report.problems, report.num_samples, report.root_hash) == ([], 3, "")


def test_all_problems_are_listed_not_only_the_first(copied):
    first = copied / "scannet-000000.tar"
    data = bytearray(first.read_bytes())
    data[data.index(b"scene0001_00-00.frame07.jpg") + 700] ^= 4
    first.write_bytes(data)
    (copied / "scannet-000001.tar").unlink()
    shutil.copy(first, copied / "val" / "scannet-000007.tar")
    found = {(Path(p.file).relative_to(copied).as_posix(), p.key, p.member) for p in verify(copied).problems}
    assert found == {
        ("scannet-000000.tar", "", ""),  # the shard's SHA-256
        ("scannet-000000.tar", "scene0001_00-00", "frame07.jpg"),
        ("scannet-000001.tar", "", ""),
        ("val/scannet-000007.tar", "", ""),
    }


def test_a_file_replaced_together_with_its_index_entry_breaks_the_root_hash(copied):
    index = load_index(copied)
    index["shards"][0]["sha256"] = "0" * 64
    (copied / "index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="root_hash is"):
        verify(copied)


def build(folder: Path, sample: Sample, split: str = "train") -> Path:
    """A release of one sample, whatever it holds, with true hashes."""
    folder.mkdir()
    entry = write_shard(folder / "scannet-000000.tar", [sample])
    write_index(folder, build_index("made", "0" * 16, [{**entry, "split": split, "inputs": ""}], []))
    return folder


def with_members(**members: bytes) -> Sample:
    sample = make_sample()
    names = {name.replace("__", "."): data for name, data in members.items()}
    return replace(sample, members=sample.members | names)


def nan_latents() -> bytes:
    latents = make_arrays()["latents"].copy()
    latents[3, 0, 2, 1, 1] = np.nan
    return codec.encode_npy(latents)


def png(shape: tuple[int, ...]) -> bytes:
    return codec.encode_png(np.full(shape, 9, np.uint8))


NO_BEV = make_sample().meta["bev"] | {"present": False}


@pytest.mark.parametrize(
    ("sample", "member", "message"),
    [
        (with_members(latents__npy=nan_latents()), "latents.npy", "NaN or infinity"),
        (
            with_members(bev__png=codec.encode_png(np.full((432, 432, 3), 9, np.uint8))),
            "bev.png",
            "not black",
        ),
        (with_members(bev_valid__png=png((432, 432))), "bev_valid.png", "0 and 255"),
        (
            with_members(bev_latents__npy=codec.encode_npy(np.zeros((1, 16, 54, 54), np.float16))),
            "bev_latents.npy",
            "m = 1, but the passport has posterior True",
        ),
        (
            replace(make_sample(), meta=make_sample().meta | {"bev": NO_BEV}),
            "bev_valid.png",
            "there is no BEV",
        ),
        (
            with_members(frame05__jpg=make_members()["frame05.jpg"][:700]),
            "frame05.jpg",
            "cut off",
        ),
        (
            with_members(coords__npy__blosc=codec.encode_npy_blosc(np.zeros((32, 384, 384, 3), np.int16))),
            schema.COORDS_NAME,
            "follow from depth",
        ),
    ],
)
def test_content_that_hashes_cannot_judge_is_checked(tmp_path, sample, member, message):
    report = verify(build(tmp_path / "shards", sample))
    assert [problem.member for problem in report.problems] == [member]
    assert message in report.problems[0].what


def test_a_sample_in_the_wrong_split_is_found(tmp_path):
    (problem,) = verify(build(tmp_path / "shards", make_sample(split="val"), split="train")).problems
    assert problem.member == "clip.json"
    assert problem.what == "split is 'val', expected 'train' as in index.json"
