"""Many small synthetic scans through `dvc repro`: a first build, one with nothing to do, one with a new scan.

    python -m tests.benchmarks.scale FOLDER [--scans 1500] [--rooms 50] [--workers 2]

A few rooms are generated, and hard-linked under many ids: the pipeline cannot tell. Everything lies in FOLDER
and stays there; the same command after an interruption goes on. Each figure is a line of FOLDER/scale.jsonl.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import yaml

from pipeline.config import load_config
from pipeline.synth.build import build

ROOT = Path(__file__).resolve().parents[2]
CHECKOUT = ("scanshards", "pipeline", ".dvc/config", ".dvc/.gitignore", ".dvcignore", "dvc.yaml")
SMALL = [
    "synth.frames=36",
    "synth.color_width=96",
    "synth.color_height=72",
    "synth.depth_width=80",
    "synth.depth_height=60",
]


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False, description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scans", type=int, default=1500)
    parser.add_argument("--rooms", type=int, default=50)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    rooms = make_rooms(folder, arguments.rooms)
    link_tables(folder)
    for k in range(arguments.scans):
        link_scan(rooms[k % len(rooms)], folder / "scans" / f"scene{k // 10:04d}_{k % 10:02d}")
    checkout = make_checkout(folder, arguments.workers)
    output = repro(folder, "first build (or what was left of it)")
    (folder / "first.log").write_text(output)
    repro(folder, "nothing to do")
    before = inodes(checkout / "shards")
    link_scan(rooms[0], folder / "scans" / "scene9999_00")
    repro(folder, "one more scan")
    after = inodes(checkout / "shards")
    changed = sum(after[name] != before.get(name) for name in after)
    note(folder, {"what": "shards rewritten for one more scan", "value": changed, "of": len(after)})
    files = sum(1 for path in (checkout / "work").rglob("*") if path.is_file())
    note(folder, {"what": "files below work/", "value": files})


def make_rooms(folder: Path, count: int) -> list[Path]:
    places = [f"work={folder / 'rooms'}", f"synth.train_rooms={count}", "synth.val_rooms=0"]
    config = load_config([*SMALL, *places], None)
    build(config)
    return sorted(path for path in (config.synth_dir / "scans").iterdir() if path.is_dir())


def link_tables(folder: Path) -> None:
    """The label table; without split lists all scans train."""
    name = "scannetv2-labels.combined.tsv"
    if not (folder / name).exists():
        os.link(folder / "rooms" / "synth" / name, folder / name)


def link_scan(room: Path, target: Path) -> None:
    """The same files under the names of another scan."""
    if target.exists():
        return
    target.mkdir(parents=True)
    for path in room.iterdir():
        if path.name.startswith(room.name):
            os.link(path, target / path.name.replace(room.name, target.name))


def make_checkout(folder: Path, workers: int) -> Path:
    """What `dvc repro` needs of this checkout, with parameters for these scans."""
    checkout = folder / "checkout"
    for name in CHECKOUT:
        target = checkout / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            shutil.copy2(ROOT / name, target)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["scans"]["root"] = str(folder / "scans")
    params["texts"]["root"] = ""
    params["shards"]["count"] = 64
    params["dask"]["workers"] = workers
    (checkout / "params.yaml").write_text(yaml.safe_dump(params))
    return checkout


def repro(folder: Path, what: str) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "repro"],
        cwd=folder / "checkout",
        env=os.environ | {"PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    seconds = time.perf_counter() - start
    if done.returncode != 0:
        sys.exit(done.stdout)
    stages = [line for line in done.stdout.splitlines() if " built, " in line or " samples in " in line]
    note(folder, {"what": f"dvc repro: {what}", "seconds": round(seconds, 1), "stages": stages})
    return done.stdout


def inodes(shards: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in shards.rglob("*.tar")}


def note(folder: Path, row: dict) -> None:
    line = json.dumps({"date": time.strftime("%F %T"), **row})
    with (folder / "scale.jsonl").open("a") as file:
        file.write(f"{line}\n")
    sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    main()
