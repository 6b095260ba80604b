"""`python -m scanshards`: output for people and machines, exit status 0, 1 and 2."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from scanshards.__main__ import main
from scanshards.index import load_index
from tests.make_shards import make_release


@pytest.fixture(scope="module")
def release(tmp_path_factory) -> Path:
    return make_release(tmp_path_factory.mktemp("release"))


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")


def test_ls_lists_every_clip_of_a_release(release, capsys):
    assert main(["ls", str(release)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [
        "key",
        *(f"scene{i:04d}_00-00" for i in (0, 1, 2, 5000)),
    ]
    assert lines[1].split()[1:6] == ["train", "0–310", "3", "3", "25%"]


def test_ls_cuts_nothing_off_in_a_narrow_terminal(release, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    assert main(["ls", str(release)]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split()[-1] == "shard"
    assert [line.split()[-1] for line in lines] == [
        str(release / name) for name in (*["scannet-000000.tar"] * 2, "scannet-000001.tar")
    ] + [str(release / "val/scannet-000000.tar")]


def test_ls_json_is_for_machines(release, capsys):
    assert main(["ls", "--json", str(release / "val/scannet-*.tar")]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["key"] == "scene5000_00-00"
    assert (row["split"], row["texts"], row["objects"], row["bev_present"]) == ("val", 3, 3, True)
    assert row["file"] == str(release / "val/scannet-000000.tar")


def test_info_tells_of_the_release_and_its_clips(release, capsys):
    assert main(["info", str(release), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    index = load_index(release)
    assert summary["root_hash"] == index["root_hash"]
    assert summary["totals"]["samples"] == 4
    assert summary["rejected"] == index["rejected"]
    assert summary["clips"] == {"train": 3, "val": 1}
    assert summary["texts"] == {"sqa3d": 4, "scan2cap": 4, "multi3drefer": 4}
    assert summary["latents"]["codec"] == "tiny"
    assert main(["info", str(release)]) == 0
    shown = capsys.readouterr().out
    assert index["root_hash"] in shown
    assert "scene0999_00: all poses are -inf" in shown


def test_info_of_single_shards_has_no_root_hash(release, capsys):
    assert main(["info", str(release / "scannet-000000.tar"), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert "root_hash" not in summary
    assert summary["clips"] == {"train": 2}


def test_verify_says_yes_with_status_0(release, capsys):
    assert main(["verify", str(release)]) == 0
    out = capsys.readouterr().out
    assert "3 shards, 4 samples" in out
    assert load_index(release)["root_hash"] in out


def test_verify_names_damage_with_status_1(tmp_path, capsys):
    out = make_release(tmp_path, num_train=1, num_val=0)
    path = out / "scannet-000000.tar"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert main(["verify", str(out)]) == 1
    shown = capsys.readouterr().out
    assert f"{path}, sample scene0000_00-00, member depth.npy.blosc: XXH3-64 is" in shown
    assert "2 problems" in shown


def test_errors_are_one_line_with_status_1(tmp_path, capsys):
    assert main(["ls", str(tmp_path / "none.tar")]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "none.tar: no such shard" in captured.err


@pytest.mark.parametrize("options", [[], ["--rerun"]])
def test_preview_into_no_folder_names_the_folder(release, tmp_path, capsys, options):
    out = tmp_path / "none" / "p.out"
    assert main(["preview", str(release), *options, "--out", str(out)]) == 1
    assert f"--out {out}: there is no folder {tmp_path / 'none'}; make it first" in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["look"],
        ["ls"],
        ["ls", "--js", "a.tar"],
        ["preview", "a", "--limit", "x"],
        ["preview", "a", "--limit", "0"],
        ["preview", "a", "--limit", "-1"],
    ],
)
def test_wrong_usage_is_status_2_and_options_are_not_abbreviated(argv, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(argv)
    assert exit_.value.code == 2


def test_the_module_runs_without_importing_torch(release):
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['scanshards', 'ls', {str(release)!r}]\n"
        "try:\n    runpy.run_module('scanshards', run_name='__main__')\n"
        "except SystemExit as done:\n    assert done.code == 0\n"
        "assert not {'torch', 'webdataset'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
