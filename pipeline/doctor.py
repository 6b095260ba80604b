"""Checks what the pipeline needs of this machine; names each problem and its fix.

    python -m pipeline.doctor [--quiet] [--picture FILE.png]

Exit status 0: everything that is required works; 1: something does not. Packages with native code are probed
in processes of their own, because a broken driver may crash or hang.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pipeline.doctor_fixes import INSTALL, Check, first_line, library_fix

try:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text
except ModuleNotFoundError:
    sys.exit(
        f"error: {sys.executable} lacks the packages; run `make install`, then `source .venv/bin/activate`"
    )

MIN_PYTHON = (3, 10)
MIN_FREE_GB = 3.0
"""The embedded scans with their stores, shards and training run take about half of it."""
PROBE_TIMEOUT_S = 120.0
LIGHT = ("numpy", "cv2", "numcodecs", "xxhash", "fsspec", "yaml", "scipy", "zarr", "dask", "trimesh", "rich")
"""Imported for real."""
HEAVY = ("torch", "transformers", "diffusers", "deepspeed", "webdataset", "dvc", "distributed", "pyrender")
"""Only looked for: importing them takes long."""


@dataclass(frozen=True)
class Probe:
    """Outcome of a piece of Python in a process of its own; `problem` is empty if it worked."""

    output: str
    problem: str


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        "python -m pipeline.doctor", description="Checks this machine.", allow_abbrev=False
    )
    parser.add_argument("--quiet", action="store_true", help="show only what does not work")
    text = "write the golden picture as it is drawn here, beside what is expected"
    parser.add_argument("--picture", type=Path, metavar="FILE.png", help=text)
    options = parser.parse_args(argv)
    if (picture := options.picture) is not None and (picture.suffix != ".png" or not picture.parent.is_dir()):
        parser.error(f"--picture: got {picture}, expected a name that ends in .png in a folder that exists")
    checks = run_checks(picture)
    console = Console()
    shown = [check for check in checks if not options.quiet or check.state == "failed"]
    if shown:
        console.print(_table(shown))
    failed = [check.name for check in checks if check.state == "failed"]
    if failed:
        console.print(f"[red]Not ready[/red]: {', '.join(failed)}. Apply the fixes above and run this again.")
        return 1
    missing = [check.name for check in checks if check.state == "optional"]
    without = f" Without: {', '.join(missing)}." if missing else ""
    console.print(f"This machine is ready.{without}", soft_wrap=True)
    return 0


def run_checks(picture: Path | None = None) -> list[Check]:
    """All checks, the slow ones at the same time."""
    drawing = functools.partial(check_drawing, picture)
    slow: tuple[Callable[[], list[Check]], ...] = (check_open3d, drawing, check_cuda, check_java)
    with ThreadPoolExecutor(len(slow)) as pool:
        running = [pool.submit(function) for function in slow]
        checks = [check_python(), *check_packages(), check_disk(Path.cwd())]
        for future in running:
            checks += future.result()
    return checks


def check_python(version: tuple[int, ...] = sys.version_info[:3]) -> Check:
    got, least = ".".join(map(str, version)), ".".join(map(str, MIN_PYTHON))
    if version >= MIN_PYTHON:
        return Check("Python", "ok", got)
    return Check("Python", "failed", f"{got}, expected {least} or newer", f"make demo PYTHON=python{least}")


def check_packages(light: tuple[str, ...] = LIGHT, heavy: tuple[str, ...] = HEAVY) -> list[Check]:
    """One row if all packages are there, else one per package that is not."""
    failed = []
    for name in light:
        try:
            importlib.import_module(name)
        except Exception as error:  # a broken package may raise anything
            failed.append(Check(name, "failed", first_line(error), library_fix(str(error)) or INSTALL))
    failed += [
        Check(name, "failed", "not installed", INSTALL)
        for name in heavy
        if importlib.util.find_spec(name) is None
    ]
    return failed or [Check("Python packages", "ok", f"{len(light) + len(heavy)} found")]


def check_open3d() -> list[Check]:
    probe = probe_python("from pipeline.fuse import open3d; print(open3d().__version__)")
    if not probe.problem:
        return [Check("Open3D", "ok", probe.output)]
    return [Check("Open3D", "failed", probe.problem, library_fix(probe.problem) or INSTALL)]


def check_drawing(picture: Path | None = None) -> list[Check]:
    """Every way of drawing, and the one that is used; `picture`: where to write what that one drew."""
    try:
        from pipeline import doctor_gl  # numpy, OpenCV and Zarr may be what is broken
    except Exception as error:
        return [Check("Drawing", "failed", first_line(error), library_fix(str(error)) or INSTALL)]
    return doctor_gl.check_drawing(picture)


def check_cuda() -> list[Check]:
    code = (
        "import torch; from torch import cuda; "
        "names = [cuda.get_device_name(i) for i in range(cuda.device_count())]; "
        "print(', '.join(names) if cuda.is_available() else 'none: torch ' + torch.__version__)"
    )
    probe = probe_python(code)
    if probe.problem:
        return [Check("CUDA", "failed", probe.problem, library_fix(probe.problem) or INSTALL)]
    if not probe.output.startswith("none: "):
        return [Check("CUDA", "ok", probe.output)]
    text = f"no GPU for {probe.output.removeprefix('none: ')}"
    if shutil.which("nvidia-smi"):
        fix = "nvidia-smi is here: install a CUDA build of torch (pytorch.org)"
        return [Check("CUDA", "optional", text, fix)]
    return [Check("CUDA", "optional", text, "none needed: everything runs on the CPU")]


def check_java() -> list[Check]:
    """Only METEOR and the PTB tokeniser of the caption metrics need it."""
    fix = "apt-get install default-jre-headless (needed for METEOR and PTB tokens only)"
    path = shutil.which("java")
    if path is None:
        return [Check("Java", "optional", "not found", fix)]
    try:
        done = subprocess.run([path, "-version"], capture_output=True, text=True, timeout=PROBE_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return [Check("Java", "optional", first_line(error), fix)]
    line = ((done.stderr or done.stdout).splitlines() or ["no answer"])[0]
    if done.returncode != 0:
        return [Check("Java", "optional", line, fix)]
    return [Check("Java", "ok", line)]


def check_disk(folder: Path, min_free_gb: float = MIN_FREE_GB) -> Check:
    free_gb = shutil.disk_usage(folder).free / 1e9
    text = f"{free_gb:.1f} GB free in {folder}"
    if free_gb >= min_free_gb:
        return Check("Disk", "ok", text)
    fix = "free some space, or put work= and shards.out= on another disk"
    return Check("Disk", "failed", f"{text}, expected {min_free_gb:.0f} GB", fix)


def probe_python(code: str, timeout_s: float = PROBE_TIMEOUT_S) -> Probe:
    """Run code in a new Python from the checkout's root; `output` is its last line."""
    root = Path(__file__).resolve().parents[1]
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=timeout_s, cwd=root
        )
    except subprocess.TimeoutExpired:
        return Probe("", f"no answer within {timeout_s:.0f} s")
    if done.returncode == 0:
        return Probe((done.stdout.strip().splitlines() or [""])[-1], "")
    if done.returncode < 0:
        return Probe("", f"the process was killed by signal {-done.returncode}")
    return Probe("", (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1])


def _table(checks: list[Check]) -> Table:
    marks = {"ok": "[green]ok[/green]", "optional": "[yellow]–[/yellow]", "failed": "[red]FAILED[/red]"}
    table = Table("", "check", "result", "fix")
    for check in checks:
        table.add_row(marks[check.state], check.name, Text(check.result), Text(check.fix))
    return table


if __name__ == "__main__":
    sys.exit(main())
