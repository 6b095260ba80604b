"""Who may import whom: `pipeline -> scanshards <- train <- eval`, and one door per heavy package."""

import ast
import importlib.metadata
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("scanshards", "pipeline", "train", "eval")
ALLOWED = {
    "scanshards": {"scanshards"},
    "pipeline": {"pipeline", "scanshards"},
    "train": {"train", "scanshards"},
    "eval": {"eval", "train", "scanshards"},
}
DOORS = {
    "dask": {"pipeline/jobs.py"},
    "distributed": {"pipeline/jobs.py"},
    "open3d": {"pipeline/fuse.py", "pipeline/synth/caster.py"},
    "pyrender": {"pipeline/bev_pyrender.py"},
    "OpenGL": {"pipeline/bev_pyrender.py"},
    "trimesh": {"pipeline/mesh.py"},
    "diffusers": {"pipeline/latents.py", "eval/decode.py"},
    "deepspeed": {"train/engine.py"},
    "rerun": {"scanshards/recording.py"},
}
CORE = {"numpy", "cv2", "numcodecs", "webdataset", "xxhash", "fsspec", "rich", "torch", "yaml", "scanshards"}
"""What `pip install scanshards` brings, and torch where it is installed."""
OPTIONAL = {"rerun"}
"""Imported where they are used; extras of the package."""


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Top-level names of all absolute imports in a file, lazy ones included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import, expected an absolute one"
            yield str(node.module).split(".")[0]


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_only_what_they_may(package):
    for path in modules(package):
        crossed = (set(imports(path)) & set(PACKAGES)) - ALLOWED[package]
        assert not crossed, f"{path.relative_to(ROOT)} imports {crossed}"


@pytest.mark.parametrize("heavy", DOORS)
def test_each_heavy_package_has_one_door(heavy):
    users = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in modules(package)
        if heavy in set(imports(path))
    }
    assert users == DOORS[heavy] or users < DOORS[heavy], users - DOORS[heavy]


def test_scanshards_needs_only_its_declared_dependencies():
    for path in modules("scanshards"):
        foreign = set(imports(path)) - CORE - OPTIONAL - set(sys.stdlib_module_names)
        assert not foreign, f"{path.relative_to(ROOT)} imports {foreign}"


def test_importing_scanshards_loads_neither_torch_nor_webdataset():
    code = "import sys, scanshards; print(sorted({'torch', 'webdataset', 'numcodecs'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    assert "torch" not in found.stdout
    assert "webdataset" not in found.stdout


def test_no_module_of_train_or_eval_hides_another_module():
    taken = set(sys.stdlib_module_names) | set(importlib.metadata.packages_distributions()) - set(PACKAGES)
    for package in ("train", "eval"):
        names = {path.stem for path in modules(package)} - {"__init__"}
        assert not names & taken, f"{package}/ hides {names & taken}"


def test_no_path_edits():
    for package in PACKAGES:
        for path in modules(package):
            assert "sys.path" not in path.read_text(), path
