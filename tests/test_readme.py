"""Every command and every Python line of the README is run, or stands in a Makefile target that is."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
COVERED = {
    "make demo": "Makefile",
    "source .venv/bin/activate": "Makefile",
    "dvc repro": "tests/test_dvc.py",
    "python -m pipeline.run all": "tests/test_pipeline.py",
}
"""Commands too long for this test, and where their parts are run."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[str]:
    lines = [line.split("#")[0].strip() for block in blocks("bash") for line in block.splitlines()]
    return [line for line in lines if line]


def test_every_command_is_run_here_or_covered_elsewhere():
    for command in commands():
        here = command in RUN_HERE
        elsewhere = [place for start, place in COVERED.items() if command.startswith(start)]
        assert here or elsewhere, f"README command is run by no test: {command}"
        assert all((ROOT / place).exists() for place in elsewhere)


RUN_HERE = [
    "python train/run.py --shards shards/scannet-*.tar",
    "python eval/run.py --checkpoint runs/latest --shards shards/val/scannet-*.tar",
    "python -m pipeline.run report",
    "python -m pipeline.doctor",
    "python -m scanshards ls shards",
    "python -m scanshards info shards",
    "python -m scanshards verify shards",
    "python -m scanshards preview shards --out preview.html",
    "python -m scanshards preview shards --rerun --out rooms.rrd",
    "python -m scanshards info --receipt shards",
    "python -m scanshards export --to nerfstudio --out exported shards",
]
SHORT = {RUN_HERE[0]: " steps=2 frames=2 texts_per_visit=2 batch.visits=1 loader.workers=0"}
"""Added so that a command ends in seconds."""


def test_every_command_works_in_this_order(build):
    """In the folder of a finished build, with the checkout's scripts."""
    for command in RUN_HERE:
        line = (command + SHORT.get(command, "")).replace("python ", f"'{sys.executable}' ", 1)
        for script in ("train/run.py", "eval/run.py"):
            line = line.replace(script, f"'{ROOT / script}'")
        done = subprocess.run(line, shell=True, cwd=build.folder, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    assert (build.folder / "report" / "index.html").stat().st_size > 100_000
    assert (build.folder / "runs" / "latest" / "eval" / "metrics.json").exists()
    assert (build.folder / "preview.html").exists()
    assert (build.folder / "rooms.rrd").exists()


def test_the_python_example_runs(build):
    (code,) = blocks("python")
    done = subprocess.run([sys.executable, "-c", code], cwd=build.folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("(32, 384, 384, 3) (32, 384, 384, 3) (432, 432, 3)") == 2


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#]+)\)", README))))
def test_every_link_leads_somewhere(link):
    assert (ROOT / link).exists(), link
