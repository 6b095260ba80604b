"""The package is typed: a user's program that uses all public names passes mypy, a wrong one does not."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import scanshards

PROGRAM = """
from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

import scanshards
from scanshards.receipt import compare_receipts, receipt
from scanshards.verify import verify

options = scanshards.RemoteOptions(cache_dir="cache", cache_bytes=10**9)
clips = scanshards.open(["a.tar", "b.tar"], fields=["frames", "coords"], remote=options)
assert_type(clips, scanshards.ClipReader)
assert_type(len(clips), int)
for clip in clips:
    assert_type(clip, scanshards.Clip)
    assert_type(clip.frames, NDArray[np.uint8])
    assert_type(clip.depth, NDArray[np.uint16])
    assert_type(clip.coords, NDArray[np.float32])
    assert_type(clip.coords_valid, NDArray[np.bool_])
    assert_type(clip.latents, NDArray[np.float16])
    assert_type(clip.patch_coords(27, missing="camera"), NDArray[np.float32])
    assert_type(clip.world_from_cam, NDArray[np.float64])
    assert_type(clip.texts, list[dict[str, Any]])
    assert_type(clip.key, str)
stream = scanshards.stream("a.tar", seed=1, rank=0, world_size=2)
assert_type(stream, scanshards.ClipStream)
state: dict[str, Any] = stream.state(3)
mixed = scanshards.mix({"a": ("a.tar", 3), "b": (["b.tar"], 0.5)}, state=state, length=100)
assert_type(mixed, scanshards.ClipStream)
try:
    assert_type([clip.key for clip in mixed], list[str])
except scanshards.CorruptSample as error:
    assert_type((error.file, error.key, error.member), tuple[str, str, str])
compare_receipts(receipt("shards"), receipt("other"))
verify("shards").problems
"""
WRONG = """
import scanshards

for clip in scanshards.open("a.tar", fields="frames", verfy=True):
    clip.depht
    clip.patch_coords(27, missing="camra")
scanshards.stream("a.tar", seed="1")
"""


def mypy(folder: Path, program: str) -> list[str]:
    pytest.importorskip("mypy")
    path = folder / "program.py"
    path.write_text(program)
    root = str(Path(scanshards.__file__).parents[1])
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(folder / "cache"), str(path)]
    done = subprocess.run(
        command, cwd=folder, env={"MYPYPATH": root}, capture_output=True, text=True, timeout=240
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return [line for line in done.stdout.splitlines() if line.startswith("program.py")]


def test_a_user_s_program_passes_mypy_and_mistakes_are_found(tmp_path):
    assert mypy(tmp_path, PROGRAM) == []
    found = "\n".join(mypy(tmp_path, WRONG))
    for line, code in ((4, "call-arg"), (5, "attr-defined"), (6, "arg-type"), (7, "arg-type")):
        assert re.search(rf"program.py:{line}: error: .*\[{code}\]", found), found


def test_the_package_says_that_it_is_typed_and_what_is_public():
    assert (Path(scanshards.__file__).parent / "py.typed").is_file()
    assert all(getattr(scanshards, name).__doc__ for name in scanshards.__all__ if name != "__version__")
    public = {name for name in vars(scanshards) if not name.startswith("_")} - set(scanshards.__all__)
    assert all(f"scanshards.{name}" in sys.modules for name in public), public
