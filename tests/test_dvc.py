"""`dvc repro` on a fresh copy of the checkout: builds, then does nothing, then does only what is new."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import SMALL

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("scanshards", "pipeline", ".dvc/config", ".dvc/.gitignore", ".dvcignore", "dvc.yaml", "params.yaml")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """What `dvc repro` needs of the checkout, with params.yaml set to small rooms."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in COPIED:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, target)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    for override in [*SMALL, "dask.scheduler=none"]:
        key, value = override.split("=")
        section, name = key.split(".")
        params[section][name] = yaml.safe_load(value)
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    repro(folder)
    return folder


def repro(folder: Path) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "repro"],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def shard_inodes(folder: Path) -> dict[str, int]:
    return {str(p.relative_to(folder)): p.stat().st_ino for p in sorted(folder.rglob("shards/**/*.tar"))}


def scan_ids(folder: Path) -> list[str]:
    index = json.loads((folder / "shards" / "index.json").read_text())
    return sorted(sample["key"] for shard in index["shards"] for sample in shard["samples"])


def test_a_second_repro_builds_nothing(checkout):
    before = shard_inodes(checkout)
    output = repro(checkout)
    assert "Running stage 'scans'" in output, "the inventory is always taken"
    assert [line for line in output.splitlines() if "Running stage" in line] == ["Running stage 'scans':"]
    assert shard_inodes(checkout) == before


def test_shards_share_their_bytes_with_the_dvc_cache(checkout):
    """No second copy: each file of shards/ is a file of the cache (tests/test_dvc_share.py goes on)."""
    cached = {p.stat().st_ino for p in (checkout / ".dvc" / "cache").rglob("*") if p.is_file()}
    inodes = {p.stat().st_ino for p in (checkout / "shards").rglob("*") if p.is_file()}
    assert inodes and inodes <= cached


def test_an_added_scan_is_the_only_one_that_is_built(checkout):
    scans = checkout / "work" / "synth" / "scans"
    known = scan_ids(checkout)
    source = sorted(scans.iterdir())[0]
    added = scans / "scene8200_00"
    shutil.copytree(source, added)
    for path in added.iterdir():
        path.rename(added / path.name.replace(source.name, added.name))
    before = shard_inodes(checkout)
    output = repro(checkout)
    assert "clips: 1 built, 3 up to date" in output
    assert "latents: 1 built, 3 up to date" in output
    assert set(scan_ids(checkout)) == {*known, "scene8200_00-00"}
    after = shard_inodes(checkout)
    changed = {name for name in after if after[name] != before.get(name)}
    assert len(changed) == 1
