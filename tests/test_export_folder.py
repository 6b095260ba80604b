"""What all exports share: atomic, resumable, repeatable, and never into a folder of something else."""

import json
from pathlib import Path

import pytest
from make_shards import make_release, make_sample

import scanshards
from scanshards.export import TARGETS, export, folder
from scanshards.write import write_shard


@pytest.fixture(scope="module")
def urls(tmp_path_factory) -> list[str]:
    release = make_release(tmp_path_factory.mktemp("release"), num_train=1, num_val=1)
    return [str(release / "scannet-*.tar"), str(release / "val" / "*.tar")]


def files_of(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}


class Killed(BaseException):
    """Stands for the end of the process."""


def die_after(monkeypatch, num_changes: int) -> None:
    """From now on the process ends when one more than so many files or folders take their place."""
    left = iter(range(num_changes))

    def dying(step):
        def change(self, target):
            if next(left, None) is None:
                raise Killed
            return step(self, target)

        return change

    monkeypatch.setattr(Path, "rename", dying(Path.rename))
    monkeypatch.setattr(Path, "replace", dying(Path.replace))


@pytest.mark.parametrize("to", TARGETS)
def test_an_interrupted_export_equals_an_uninterrupted_one(tmp_path, urls, to, monkeypatch):
    assert export(urls, tmp_path / "whole", to) == 2
    expected = files_of(tmp_path / "whole")
    out = tmp_path / "out"
    for number in range(100):  # each run gets further than the one before
        try:
            with monkeypatch.context() as patch:
                die_after(patch, number)
                export(urls, out, to)
            break
        except Killed:
            assert not (out / folder.DONE).exists()
            assert all(expected[name] == data for name, data in whole(out).items())
    assert number > 2
    assert files_of(out) == expected


def whole(out: Path) -> dict[str, bytes]:
    """Files at their places: all but what is marked as unfinished."""
    return {
        name: data
        for name, data in files_of(out).items()
        if not name.startswith(folder.TEMPORARY) and name != folder.UNFINISHED and ".tmp" not in name
    }


def test_a_finished_export_is_left_alone(tmp_path, urls, monkeypatch):
    export(urls, tmp_path / "out", "nerfstudio")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    seen = []
    assert export(urls, tmp_path / "out", "nerfstudio", on_clip=seen.append) == 2
    assert not seen
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before


def test_foreign_folders_and_other_exports_are_refused(tmp_path, urls):
    (tmp_path / "photo.jpg").write_bytes(b"mine")
    with pytest.raises(ValueError, match="holds files of something else"):
        export(urls, tmp_path, "mds")
    with pytest.raises(ValueError, match="is a file, expected a folder"):
        export(urls, tmp_path / "photo.jpg", "mds")
    assert files_of(tmp_path) == {"photo.jpg": b"mine"}
    export(urls, tmp_path / "out", "video3dllm")
    with pytest.raises(ValueError, match="target 'video3dllm', expected 'mds' to go on; remove it or choose"):
        export(urls, tmp_path / "out", "mds")
    with pytest.raises(ValueError, match="clips 2, expected 1"):
        export(urls[0], tmp_path / "out", "video3dllm")
    with pytest.raises(ValueError, match="raster 'crop', expected 'source'"):
        export(urls, tmp_path / "out", "video3dllm", raster="source")
    (tmp_path / "out" / folder.DONE).write_text("{")
    with pytest.raises(ValueError, match=r"export.json: .*; remove the folder"):
        export(urls, tmp_path / "out", "video3dllm")


def test_other_contents_under_the_same_keys_are_another_export(tmp_path):
    for name, seed in (("a", 0), ("b", 1)):
        (tmp_path / name).mkdir()
        write_shard(tmp_path / name / "scannet-000000.tar", [make_sample(seed=seed)])
    export(tmp_path / "a" / "scannet-000000.tar", tmp_path / "out", "nerfstudio")
    with pytest.raises(ValueError, match="contents"):
        export(tmp_path / "b" / "scannet-000000.tar", tmp_path / "out", "nerfstudio")


def test_unknown_targets_and_rasters_are_named(tmp_path, urls):
    with pytest.raises(ValueError, match="to='zip', raster='crop', expected one of video3dllm, mds, nerf"):
        export(urls, tmp_path / "out", "zip")
    with pytest.raises(ValueError, match="only video3dllm has it"):
        export(urls, tmp_path / "out", "mds", raster="source")
    assert not (tmp_path / "out").exists()


def test_clips_that_cannot_live_in_one_export_are_refused(tmp_path):
    write_shard(tmp_path / "a.tar", [make_sample("room")])
    write_shard(tmp_path / "b.tar", [make_sample("room")])
    with pytest.raises(ValueError, match="b.tar: sample room-00 was there before"):
        export([tmp_path / "a.tar", tmp_path / "b.tar"], tmp_path / "out", "mds")


def test_damage_stops_the_export_and_leaves_it_unfinished(tmp_path):
    path = tmp_path / "scannet-000000.tar"
    write_shard(path, [make_sample("room")])
    data = bytearray(path.read_bytes())
    data[data.index(b"frame31.jpg", 20_000) + 1_000] ^= 1
    path.write_bytes(data)
    for to in TARGETS:
        with pytest.raises(scanshards.CorruptSample, match=r"room-00, member frame31\.jpg"):
            export(path, tmp_path / to, to)
        assert json.loads((tmp_path / to / folder.UNFINISHED).read_text())["target"] == to
        assert not (tmp_path / to / folder.DONE).exists()
