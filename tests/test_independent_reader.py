"""docs/format.md is enough: a reader written from its text, with nothing of ours, gets the same arrays."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

import numpy as np
import pytest

import scanshards
from scanshards import tar
from tests import independent_reader
from tests.independent_reader import Damage, coordinates, read_release, read_shard
from tests.make_shards import make_release

GOLDEN = Path(__file__).parent / "golden" / "v1"


@pytest.fixture(scope="module")
def release(tmp_path_factory) -> Path:
    return make_release(tmp_path_factory.mktemp("release"), num_train=1, num_val=1)


def same(sample: dict, clip: scanshards.Clip) -> None:
    assert list(sample) == list(clip.member_bytes)
    assert sample["clip.json"] == clip.meta
    for name in clip.member_bytes:
        ours = clip.member(name)
        if isinstance(ours, np.ndarray):
            assert (sample[name].dtype, sample[name].shape) == (ours.dtype, ours.shape), name
            np.testing.assert_array_equal(sample[name], ours, err_msg=name)
        else:
            assert sample[name] == ours, name
    coords = coordinates(sample)
    np.testing.assert_array_equal(np.isfinite(coords).all(-1), clip.coords_valid)
    np.testing.assert_allclose(coords, clip.coords, atol=1e-6, rtol=0)


def test_it_reads_a_release_as_scanshards_does(release):
    clips = scanshards.open([release / "scannet-*.tar", release / "val/scannet-*.tar"])
    ours = {clip.key: clip for clip in clips}
    theirs = read_release(release)
    assert set(theirs) == set(ours) and len(ours) == 2
    for key, sample in theirs.items():
        same(sample, ours[key])


def test_it_reads_the_golden_shard_with_and_without_its_index(tmp_path):
    (clip,) = scanshards.open(GOLDEN / "scannet-*.tar")
    same(read_release(GOLDEN)[clip.key], clip)
    shutil.copy(GOLDEN / "scannet-000000.tar", tmp_path)
    same(read_shard(tmp_path / "scannet-000000.tar")[clip.key], clip)


def test_both_refuse_the_same_damage(tmp_path):
    """A flipped bit in a content, a header, padding and the end: the page says what to check."""
    path = tmp_path / "scannet-000000.tar"
    good = (GOLDEN / "scannet-000000.tar").read_bytes()
    entries = list(tar.read_entries(good, 0, len(good) - 1024))
    places = [entry.start + entry.num_bytes // 2 for entry in entries]
    places += [entry.offset + 150 for entry in entries[::7]]
    places += [entry.end - 1 for entry in entries if entry.num_bytes % 512]
    for place in [*places, len(good) - 1]:
        path.write_bytes(good[:place] + bytes([good[place] ^ 16]) + good[place + 1 :])
        with pytest.raises(Damage):
            read_shard(path)
        with pytest.raises(scanshards.CorruptSample):
            [clip.verify_members() for clip in scanshards.open(path)]


def test_it_shares_no_code_with_scanshards():
    tree = ast.parse(Path(independent_reader.__file__).read_text())
    names = {
        (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name).partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    libraries = {"cv2", "numcodecs", "numpy", "xxhash"}
    standard = {"__future__", "ast", "hashlib", "io", "json", "pathlib", "tarfile", "typing"}
    assert names == libraries | standard
