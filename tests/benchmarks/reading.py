"""Reading clips: scanshards against what one would use instead, on the same content.

    python -m tests.benchmarks.reading FOLDER [--rooms 2] [--rounds 3] [--passes 5] [--only full latents …]

The clips are embedded rooms at ScanNet's sizes, repeated under many ids, as shards, MDS, LitData and exported
files; all lies in FOLDER (2.1 GB) and stays there, so that the next run starts at once. FOLDER/venv holds the
other libraries, over this environment's packages; what cannot be installed is left out and named.

Each arm is a process of its own on one core and one thread, and arms that are compared take turns. The files
are in the page cache: the first pass of an arm, which reads them, does not count. Milliseconds are of
processor time, all threads of the process together; ratios are medians of the rounds' ratios. `loader`: two
workers of a torch DataLoader on two cores, by the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from tests.benchmarks import reading_data, reading_peers
from tests.benchmarks.one_core import ROOT, THREADS, machine, table
from tests.benchmarks.reading_arms import ARMS, INSIDE, Arm

MODULE = "tests.benchmarks.reading_arms"
PACKAGES = (
    *("mosaicml-streaming==0.13.0", "brotli", "zstd", "python-snappy", "cramjam", "catalogue"),
    *("litdata==0.2.76", "lightning-utilities", "boto3", "botocore", "s3transfer", "jmespath", "tifffile"),
)
"""Without their pins (NumPy below 2.2, torchvision): they work here without."""
NUM_SHARDS = 8
WORKERS = 2
TABLES = ("full", "latents", "copies", "verifying", "loader")
REFERENCES = {"full": "full-published", "latents": "latents-webdataset"}


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False, description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rooms", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=TABLES, default=TABLES)
    parser.add_argument("--make", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    if arguments.make:
        reading_data.make(folder, arguments.rooms, NUM_SHARDS)
        reading_peers.make(folder)
        return
    python = make_environment(folder)
    module = [str(python), "-m", "tests.benchmarks.reading", str(folder), "--make"]
    subprocess.run([*module, "--rooms", str(arguments.rooms)], cwd=ROOT, check=True, stdout=sys.stderr)
    found = versions(python)
    listed = ", ".join(f"{name} {version or 'left out'}" for name, version in found.items())
    write(f"{machine()}\n{listed}\n{sizes(folder)}\n")
    arms = {name: arm for name, arm in ARMS.items() if not arm.package or found[arm.package]}
    options = ["--passes", str(arguments.passes)]
    for group in ("full", "latents"):
        if group in arguments.only:
            names = [name for name, arm in arms.items() if arm.group == group]
            write(compare(python, folder, names, arguments.rounds, options))
    for name in INSIDE:
        if name in arguments.only:
            write(inside(name, run_arm(python, folder, name, options, cores=1)))
    if "loader" in arguments.only:
        write(loaders(python, folder, arms, arguments.rounds))


def make_environment(folder: Path) -> Path:
    """FOLDER/venv: this environment's packages and the other libraries. Returns its Python."""
    python = folder / "venv" / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
        (packages,) = (folder / "venv" / "lib").glob("*/site-packages")
        (packages / "project.pth").write_text(f"{sysconfig.get_paths()['purelib']}\n")
        for package in PACKAGES:  # one by one: a library that cannot be had must not take the others along
            command = [python, "-m", "pip", "install", "-q", "--no-deps", package]
            subprocess.run(command, check=False, stdout=sys.stderr)
    return python


def versions(python: Path) -> dict[str, str]:
    """Package -> version in the arms' environment, "" if it is not there."""
    code = "import json; from tests.benchmarks import reading_peers as p; print(json.dumps(p.versions()))"
    done = subprocess.run([python, "-c", code], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def sizes(folder: Path) -> str:
    """MB a clip in each form, MB = 10^6 bytes."""
    clips = {"shards": NUM_SHARDS * reading_data.SHARD_CLIPS, "posed_images": 0}
    clips["posed_images"] = len(list((folder / "posed_images").iterdir()))
    for peer in ("mds", "litdata"):
        clips[f"{peer}/full"] = reading_data.FULL_SHARDS * reading_data.SHARD_CLIPS
        clips[f"{peer}/latents"] = clips["shards"]
    parts = []
    for name, count in clips.items():
        total = sum(path.stat().st_size for path in (folder / name).rglob("*") if path.is_file())
        if total:
            parts.append(f"{name} {total / count / 1e6:.1f}")
    return f"MB a clip: {', '.join(parts)}\n"


def compare(python: Path, folder: Path, names: list[str], rounds: int, options: list[str]) -> str:
    """A line an arm: milliseconds, and how many times faster it is than the reference and slower than us."""
    runs: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            runs[name].append(run_arm(python, folder, name, options, cores=1)["cpu_ms"])
    group = ARMS[names[0]].group
    ours, reference = runs[f"{group}-scanshards"], runs[REFERENCES[group]]
    rows = [
        (
            ARMS[name].title,
            f"{statistics.median(found):.2f}",
            f"{ratio(found, ours):.2f}",
            f"{ratio(reference, found):.1f}",
        )
        for name, found in runs.items()
    ]
    head = (TITLES[group], "ms a clip", "times scanshards", f"faster than {ARMS[REFERENCES[group]].title}")
    return f"\n{table(head, rows)}"


def inside(name: str, found: dict[str, float]) -> str:
    if name == "copies":
        plain = next(iter(found.values()))
        rows = [(step, f"{1e3 * ms:.0f}", f"{ms / plain:.2f}") for step, ms in found.items()]
        return f"\n{table(('latents.npy (1.5 MB) as an array', 'µs a clip', 'times a copy'), rows)}"
    rows = []
    for title in dict.fromkeys(key.rpartition("|")[0] for key in found):
        checked, unchecked = found[f"{title}|True"], found[f"{title}|False"]
        rows.append((title, f"{checked:.3f}", f"{unchecked:.3f}", f"{100 * (checked / unchecked - 1):.1f} %"))
    return f"\n{table(('what is read', 'verified, ms', 'not, ms', 'cost'), rows)}"


def loaders(python: Path, folder: Path, arms: dict[str, Arm], rounds: int) -> str:
    names = [name for name, arm in arms.items() if arm.loader]
    runs: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            found = run_arm(python, folder, name, ["--workers", str(WORKERS)], cores=WORKERS)
            runs[name].append(found["clips_per_s"])
    rows = []
    for name, found in runs.items():
        ours = runs[f"{ARMS[name].group}-scanshards"]
        title = f"{TITLES[ARMS[name].group]}: {ARMS[name].title}"
        rows.append((title, f"{statistics.median(found):.1f}", f"{ratio(ours, found):.2f}"))
    return f"\n{table((f'torch DataLoader, {WORKERS} workers', 'clips/s', 'scanshards is faster by'), rows)}"


def ratio(numerators: list[float], denominators: list[float]) -> float:
    """Median of the ratios of what ran in the same round."""
    return statistics.median(a / b for a, b in zip(numerators, denominators, strict=True))


def run_arm(python: Path, folder: Path, name: str, options: list[str], cores: int) -> dict[str, Any]:
    """The JSON object that is the arm's last line of output. CalledProcessError: it failed."""
    allowed = sorted(os.sched_getaffinity(0))[-cores:]
    done = subprocess.run(
        [python, "-m", MODULE, folder, name, *options],
        cwd=ROOT,
        env=os.environ | dict.fromkeys(THREADS, "1"),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        preexec_fn=lambda: os.sched_setaffinity(0, allowed),
    )
    return json.loads(done.stdout.splitlines()[-1])


def write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


TITLES = {"full": "frames, depth, patch coordinates, latents", "latents": "latents, texts"}


if __name__ == "__main__":
    main()
