"""docs/quickstart.md: every Python block runs on a real build, and what the page says of arrays is so."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from remote_servers import Request, bad_server

import scanshards

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "quickstart.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = "".join(re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)).splitlines()
ROWS = re.findall(r"^\| `clip\.(\w+)` \| \(?([^|]*?)\)? \| (\w+) \|", PAGE, re.MULTILINE)
CHECKS = """
assert len(clips) == 2
np.testing.assert_allclose(z_m, depth_m, atol=1e-5)
assert len(z_m) > 10_000
assert 0 <= column < 432 and 0 <= row < 432 and 0 < height_m < 4
assert positions.shape == (32, 14, 14, 3) and finer.shape == (32, 27, 27, 3)
assert has_position.any() and np.isfinite(published).all()
assert prompt.startswith("<image>") and len(answers) >= 1
assert sample.shape == (32, 16, 27, 27) and 0 < abs(sample - mean).mean() < 1
assert [clip.key for clip in remote] == [clip.key for clip in clips]
assert batch["positions"].shape == (1, 32, 14, 14, 3) and batch["latents"].shape == (1, 32, 2, 16, 27, 27)
keys = [sample.key for sample in stream.samples()]
assert len(keys) == 2 and [clip.key for clip in rest] == keys[1:]
assert len(drawn) == 8 and drawn.count("scene8100_00") == 2
"""
"""About the names that the blocks leave behind."""


@pytest.fixture
def server(build) -> Iterator[str]:
    """The release behind http, with ranges."""

    def behave(request: Request) -> None:
        path = build.folder / request.path.removeprefix("/rooms/")
        if not path.is_file():
            request.answer("404 Not Found")
        elif "range" in request.headers:
            request.answer_range(path.read_bytes())
        else:
            request.answer("200 OK", path.read_bytes())

    with bad_server() as server:
        server.behave = behave
        yield server.url


def test_every_python_block_runs_in_order(build, server, tmp_path):
    code = "\n".join(PYTHON)
    for placeholder, real in (("https://example.org", server), ("/data/cache", str(tmp_path / "cache"))):
        assert placeholder in code
        code = code.replace(placeholder, real)
    script = tmp_path / "page.py"
    script.write_text(f"{code}\n{CHECKS}")
    done = subprocess.run([sys.executable, script], cwd=build.folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[0] == "2 clips"
    assert any((tmp_path / "cache").iterdir())


def test_the_commands_are_those_of_the_command_line(build, tmp_path):
    commands = [line.split("#")[0].split() for line in COMMANDS]
    assert commands[0] == ["pip", "install", "."], "tests/test_package.py does this"
    for command in commands[1:]:
        arguments = [str(tmp_path / "page.html") if word == "preview.html" else word for word in command[1:]]
        done = subprocess.run([sys.executable, *arguments], cwd=build.folder, capture_output=True, text=True)
        assert command[0] == "python" and done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("name", "shape", "kind"), ROWS)
def test_the_table_of_arrays_is_true(build, name, shape, kind):
    clip = next(iter(scanshards.open(build.train)))
    value = getattr(clip, name)
    if isinstance(value, np.ndarray):
        sizes = tuple(2 if size == "m" else int(size) for size in re.findall(r"\w+", shape))
        assert (value.shape, str(value.dtype)) == (sizes, kind)
    else:
        assert type(value).__name__ == kind


def test_the_table_has_every_array_of_a_clip():
    public = {name for name in vars(scanshards.Clip) if not name.startswith("_")}
    explained_elsewhere = {"frame", "frame_jpegs", "patch_coords", "member", "stored", "member_bytes"}
    explained_elsewhere |= {"verify_members", "resize_plan", "scan_id", "split"}
    assert {name for name, _, _ in ROWS} | {"meta"} == public - explained_elsewhere | {"meta"}


def test_missing_coordinates_are_as_the_page_says(build):
    for clip in scanshards.open(build.train):
        np.testing.assert_array_equal(np.isnan(clip.coords).any(axis=-1), ~clip.coords_valid)
        np.testing.assert_array_equal(clip.coords_valid, clip.depth > 0)
        assert not clip.bev[~clip.bev_valid].any()
