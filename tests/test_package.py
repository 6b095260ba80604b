"""The package alone: wheel and sdist hold what they need, and nothing else has to be installed.

`bare` is an environment with the wheel and exactly the distributions that it declares, linked from the tests'
own environment, so that no network is needed; the slow test lets pip fetch them.
"""

from __future__ import annotations

import ast
import email
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from make_shards import make_release
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from test_readme import blocks

import scanshards

ROOT = Path(__file__).resolve().parents[1]
BROUGHT = {
    "numpy",
    "opencv-python-headless",
    "numcodecs",
    "webdataset",
    "xxhash",
    "fsspec",
    "rich",
    # what these bring
    "typing-extensions",
    "braceexpand",
    "pyyaml",
    "markdown-it-py",
    "mdurl",
    "pygments",
}
"""Everything that `pip install scanshards` installs."""
IF_PRESENT = {"torch", "rerun"}
"""Imported where they are used; torch is the user's own, rerun an extra."""


@pytest.fixture(scope="module")
def dist(tmp_path_factory) -> Path:
    """Folder with the wheel and the sdist."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(out), "-t", "sdist", "-t", "wheel"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return out


@pytest.fixture(scope="module")
def wheel(dist) -> Path:
    (path,) = dist.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def bare(wheel, tmp_path_factory) -> Path:
    """Python of an environment with the wheel and its declared dependencies alone."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    install = ["--python", str(python), "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True, capture_output=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    for name in BROUGHT:
        link(importlib.metadata.distribution(name), site)
    return python


def link(distribution: importlib.metadata.Distribution, site: Path) -> None:
    """Make an installed distribution importable from another site-packages."""
    for name in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
        (site / name).symlink_to(Path(str(distribution.locate_file(name))).resolve())


def run(python: Path, *arguments: str, cwd: Path) -> str:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"COLUMNS": "200"}
    done = subprocess.run([str(python), *arguments], cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def metadata(wheel: Path) -> email.message.Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_string(archive.read(name).decode())


def requirements(wheel: Path) -> list[Requirement]:
    return [Requirement(text) for text in metadata(wheel).get_all("Requires-Dist", [])]


def closure(requirements: list[Requirement]) -> set[str]:
    """Canonical names of all that these bring, by the metadata of the installed distributions."""
    found: set[str] = set()
    todo = [one for one in requirements if one.marker is None or one.marker.evaluate({"extra": ""})]
    while todo:
        name = canonicalize_name(todo.pop().name)
        if name not in found:
            found.add(name)
            needed = map(Requirement, importlib.metadata.requires(name) or [])
            todo += [one for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    return found


def sources() -> dict[str, bytes]:
    """The package as it stands in the checkout, by path from the root."""
    paths = (path for path in (ROOT / "scanshards").rglob("*") if path.is_file())
    return {
        str(path.relative_to(ROOT)): path.read_bytes() for path in paths if "__pycache__" not in path.parts
    }


# --- what is in them


def test_the_wheel_is_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        content = {n: archive.read(n) for n in archive.namelist() if ".dist-info/" not in n}
    assert content == sources()
    assert "scanshards/py.typed" in content
    assert wheel.name == f"scanshards-{scanshards.__version__}-py3-none-any.whl"
    assert wheel.stat().st_size < 300_000


def test_the_sdist_builds_the_same_wheel(dist, wheel, tmp_path):
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        archive.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    names = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    extra = {"README.md", "LICENSE", "pyproject.toml", "docs/format.md", "PKG-INFO", ".gitignore"}
    assert names == sources().keys() | extra
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(tmp_path / "again"), "-t", "wheel"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    assert (tmp_path / "again" / wheel.name).read_bytes() == wheel.read_bytes()


def test_the_metadata_brings_small_dependencies_alone(wheel):
    assert closure(requirements(wheel)) == BROUGHT
    found = metadata(wheel)
    assert found["Requires-Python"] == ">=3.10"
    assert found["License-Expression"] == "Apache-2.0"
    assert "import scanshards" in found.get_payload(), "the README is the long description"


def test_whatever_the_package_imports_is_brought():
    owners = importlib.metadata.packages_distributions()
    for name, source in sources().items():
        if name.endswith(".py"):
            for module in imported(source) - set(sys.stdlib_module_names) - IF_PRESENT - {"scanshards"}:
                distributions = {canonicalize_name(owner) for owner in owners[module]}
                assert distributions & BROUGHT, f"{name} imports {module} of {distributions}"


def imported(source: bytes) -> set[str]:
    """Top-level modules of all imports, lazy ones included."""
    nodes = list(ast.walk(ast.parse(source)))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.partition(".")[0] for name in names}


# --- what it does, alone


@pytest.fixture(scope="module")
def release(tmp_path_factory) -> Path:
    """Folder with `shards/`: two clips for training, one held out."""
    folder = tmp_path_factory.mktemp("release")
    make_release(folder, num_train=2, num_val=1)
    return folder


def test_the_example_of_the_readme_runs(bare, release):
    (code,) = blocks("python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 5
    printed = run(bare, "-c", code, cwd=release).splitlines()
    shapes = "(32, 384, 384, 3) (32, 384, 384, 3) (432, 432, 3) (32, 2, 16, 27, 27) 3"
    assert printed == [f"scene000{i}_00-00 {shapes}" for i in range(2)]


def test_the_commands_run(bare, release):
    keys = ["scene0000_00-00", "scene0001_00-00", "scene5000_00-00"]
    listed = run(bare, "-m", "scanshards", "ls", "shards", cwd=release)
    assert [line.split()[0] for line in listed.splitlines()[1:]] == keys
    summary = json.loads(run(bare, "-m", "scanshards", "info", "--json", "shards", cwd=release))
    assert summary["clips"] == {"train": 2, "val": 1}
    said = run(bare, "-m", "scanshards", "verify", "shards", cwd=release)
    assert re.match(r"2 shards, 3 samples, [\d.]+ MB: all is as written, root hash", said)
    run(bare, "-m", "scanshards", "preview", "shards", "--out", "page.html", cwd=release)
    assert (release / "page.html").stat().st_size > 10_000


def test_streams_work_where_torch_is_not_installed(bare, release):
    code = """
import importlib.util, scanshards
print([m for m in ("torch", "dask", "open3d", "transformers", "zarr") if importlib.util.find_spec(m)])
print(sorted(clip.key for clip in scanshards.stream("shards/scannet-*.tar", seed=1)))
"""
    expected = [[], ["scene0000_00-00", "scene0001_00-00"]]
    assert run(bare, "-c", code, cwd=release).splitlines() == [str(line) for line in expected]


def test_importing_loads_only_what_decodes(tmp_path):
    """Where torch, zarr and all the rest are installed too (how long it takes: docs/quickstart.md)."""
    code = """
import sys
before = set(sys.modules)
import scanshards
print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
"""
    loaded = set(run(Path(sys.executable), "-c", code, cwd=tmp_path).split()) - set(sys.stdlib_module_names)
    heavy = {"torch", "webdataset", "dask", "zarr", "open3d", "transformers", "fsspec", "rich", "yaml"}
    assert {"numpy", "cv2", "xxhash"} < loaded
    assert not loaded & heavy


@pytest.mark.slow
def test_pip_installs_it_into_an_empty_environment(wheel, release, tmp_path):
    """From the package index, with the newest versions that it has."""
    venv.create(tmp_path / "empty", with_pip=True)
    python = tmp_path / "empty" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", str(wheel), cwd=tmp_path)
    installed = json.loads(run(python, "-m", "pip", "list", "--format=json", cwd=tmp_path))
    names = {canonicalize_name(row["name"]) for row in installed} - {"pip", "setuptools", "wheel"}
    assert names == BROUGHT | {"scanshards"}
    run(python, "-m", "pip", "check", cwd=tmp_path)
    (code,) = blocks("python")
    assert run(python, "-c", code, cwd=release).count("(32, 384, 384, 3)") == 4
    run(python, "-m", "scanshards", "verify", "shards", cwd=release)
