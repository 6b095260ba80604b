"""docs/sharing.md, run: a lab builds and pushes, others get, import, pull and update; nothing lies twice."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from scanshards.verify import verify
from tests.conftest import SMALL
from tests.test_dvc import COPIED

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "sharing.md").read_text()
URL, REMOTE = "https://github.com/lab/rooms", "/mnt/lab/remote"
BLOCKS = re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
SECTIONS = {title: re.findall(r"```bash\n(.*?)```", text, re.DOTALL) for title, text in BLOCKS}
GIT = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    **{f"GIT_{who}_{what}": "lab@example" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
}


class World:
    """Folders of a lab and of others, and what their shells do."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lab = root / "lab"

    def sh(self, where: str, script: str, *, fails: bool = False) -> str:
        """Run a block of the page in a folder, its placeholders filled in; what it printed."""
        script = script.replace(URL, f"file://{self.root}/rooms.git").replace(REMOTE, f"{self.root}/remote")
        (self.root / where).mkdir(exist_ok=True)
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        # What a user's own DVC settings and caches hold must not decide this test.
        env = {**os.environ, **GIT, "PATH": path, "HOME": str(self.root / "home"), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            ["bash", "-ec", script], cwd=self.root / where, env=env, capture_output=True, text=True
        )
        assert (done.returncode != 0) == fails, f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def block(self, where: str, title: str, number: int = 0, instead: dict[str, str] | None = None) -> str:
        script = SECTIONS[title][number]
        for command, other in (instead or {}).items():
            assert command in script
            script = script.replace(command, other)
        return self.sh(where, script)


@pytest.fixture(scope="module")
def world(tmp_path_factory, build) -> World:
    """A lab with a finished small build, its git repository, and the page's first section done."""
    world = World(tmp_path_factory.mktemp("world"))
    for name in (*COPIED, ".gitignore"):
        target = world.lab / name
        target.parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, target)
    params = yaml.safe_load((world.lab / "params.yaml").read_text())
    for override in [*SMALL, "dask.scheduler=none"]:
        key, value = override.split("=")
        section, name = key.split(".")
        params[section][name] = yaml.safe_load(value)
    (world.lab / "params.yaml").write_text(yaml.safe_dump(params))
    for name in ("shards", "work"):
        shutil.copytree(build.folder / name, world.lab / name)
    world.sh("rooms.git", "git init --quiet --bare")
    world.sh(
        "lab", "git init --quiet; git add .; git commit --quiet -m code; git remote add origin ../rooms.git"
    )
    assert "dvc.lock" not in world.sh("lab", "git ls-files")
    # The build is there already: it is recorded as `dvc repro` would (tests/test_dvc.py runs that).
    world.block("lab", "The lab that builds", instead={"dvc repro\n": "dvc commit --quiet --force\n"})
    return world


def files(folder: Path) -> dict[str, bytes]:
    found = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".gitignore")
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def release(world: World, rev: str) -> dict[str, bytes]:
    """The lab's shards at a tag, kept beside."""
    kept = world.root / f"kept_{rev}"
    if not kept.exists():
        shutil.copytree(world.lab / "shards", kept)
    return files(kept)


def assert_one_copy(project: Path) -> None:
    """Every file of shards/ is a file of the cache, and the cache holds no other bytes but listings."""
    shards = [path.stat() for path in (project / "shards").rglob("*") if path.is_file()]
    cache = [path.stat() for path in (project / ".dvc" / "cache" / "files").rglob("*") if path.is_file()]
    cached = {stat.st_ino for stat in cache}
    assert shards and {stat.st_ino for stat in shards} <= cached
    assert all(stat.st_mode & 0o222 == 0 for stat in shards), "a shared file can be written to"
    blocks = {stat.st_ino: stat.st_blocks * 512 for stat in (*shards, *cache)}
    assert sum(blocks.values()) < 1.02 * sum(stat.st_size for stat in shards) + 100_000


def test_a_release_is_shared_and_nothing_lies_twice(world):
    """The page's sections in order; each builds on those before."""
    first = release(world, "v1")
    assert_one_copy(world.lab)
    pushed = files(world.root / "remote")
    assert sorted(pushed.values(), key=len)[-3:] == sorted(tars(first), key=len), "the shards, each once"
    assert len(pushed) == len({*first.values()}) + 1, "and one listing; nothing of work/"

    printed = world.block("getter", "Another group: the files")
    assert json.loads(first["index.json"])["root_hash"] in re.sub(r"\s", "", printed)
    world.block("getter", "Another group: the files", 1)
    assert files(world.root / "getter" / "shards") == first
    assert sorted(os.listdir(world.root / "getter")) == ["held_out", "shards"]
    assert verify(str(world.root / "getter" / "held_out" / "scannet-*.tar")).problems == []

    world.sh("project", "git init --quiet; dvc init --quiet; git commit --quiet -m start")
    world.block("project", "Another group: in its own DVC project")
    assert files(world.root / "project" / "shards") == first
    assert_one_copy(world.root / "project")

    world.block("elsewhere", "Another machine of the lab")
    assert files(world.root / "elsewhere" / "rooms" / "shards") == first
    assert_one_copy(world.root / "elsewhere" / "rooms")

    colleague = world.sh("colleague", "git clone --quiet ../project . && dvc pull")
    assert files(world.root / "colleague" / "shards") == first, colleague


def test_the_next_release_carries_only_what_changed(world):
    """A scan is withdrawn: its shard goes, the others are neither sent nor fetched again."""
    first, before = release(world, "v1"), files(world.root / "remote")
    if not (world.root / "project").exists():
        world.sh("project", "git init --quiet; dvc init --quiet; git commit --quiet -m start")
        world.block("project", "Another group: in its own DVC project")
    kept = inodes(world.lab)
    shutil.rmtree(world.lab / "work" / "synth" / "scans" / "scene8001_00")
    build_again = "python -m pipeline.run scans; dvc repro --single-item --force --quiet shards\n"
    world.block("lab", "The next release", instead={"dvc repro\n": build_again})
    second = release(world, "v2")
    (withdrawn,) = set(first) - set(second) - {name for name in first if name.endswith(".idx")}
    assert withdrawn.endswith(".tar")
    assert inodes(world.lab) == {name: inode for name, inode in kept.items() if name != withdrawn}
    new = dict(files(world.root / "remote").items() - before.items())
    assert new and max(map(len, new.values())) < 20_000, "the index and the catalogue"

    world.block("lab", "The next release", 1)
    assert_one_copy(world.lab)
    world.block("project", "The next release", 2)
    assert files(world.root / "project" / "shards") == second
    assert verify(world.root / "project" / "shards").problems == []
    world.sh("past", f"dvc get {URL} shards --rev v1")
    assert files(world.root / "past" / "shards") == first


def inodes(lab: Path) -> dict[str, int]:
    shards = lab / "shards"
    return {str(path.relative_to(shards)): path.stat().st_ino for path in shards.rglob("*.tar")}


def test_what_goes_wrong_says_what_the_page_lists(world):
    (world.root / "remote").rename(world.root / "away")
    printed = world.sh("empty", f"dvc get {URL} shards", fails=True)
    assert "failed to load directory ('shards',)" in printed and "`failed to load directory" in PAGE
    printed = world.sh("unreachable", f"git clone --quiet {URL} .; dvc pull", fails=True)
    assert "Missing cache files" in printed and "`Missing cache files`" in PAGE
    (world.root / "away").rename(world.root / "remote")

    world.sh("rooms_without_lock", f"git clone --quiet {URL} .; git rm --quiet dvc.lock; git commit -qm x")
    printed = world.sh("empty", "dvc get ../rooms_without_lock shards", fails=True)
    assert "No storage files available: 'shards'" in printed
    assert "`No storage files available: 'shards'`" in PAGE


def tars(content: dict[str, bytes]) -> list[bytes]:
    return [data for name, data in content.items() if name.endswith(".tar")]


def test_every_command_of_the_page_is_run():
    run = {(title, number) for title, blocks in SECTIONS.items() for number in range(len(blocks))}
    assert run == {
        ("The lab that builds", 0),
        ("Another group: the files", 0),
        ("Another group: the files", 1),
        ("Another group: in its own DVC project", 0),
        ("Another machine of the lab", 0),
        ("The next release", 0),
        ("The next release", 1),
        ("The next release", 2),
    }
