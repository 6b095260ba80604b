"""A benchmark's arm in a process of its own: one core, one thread, and its own peak of memory."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LP_NUM_THREADS", "BLOSC_NTHREADS")
KEPT_MEMORY = dict.fromkeys(("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"), str(1 << 28))
"""As pipeline/jobs.py sets them for its workers, here for all arms."""


def run_arm(module: str, *arguments: str) -> dict[str, Any]:
    """Run `python -m module arguments` on one core; returns the JSON object that is its last line of output.

    CalledProcessError: it failed; what it wrote to stderr has been shown.
    """
    environment = os.environ | dict.fromkeys(THREADS, "1") | KEPT_MEMORY
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True, preexec_fn=_pin
    )
    return json.loads(done.stdout.splitlines()[-1])


def finish_arm(result: dict[str, Any]) -> None:
    """Called by the arm at its end: hands the result to `run_arm`."""
    sys.stdout.write(f"{json.dumps(result)}\n")


def limit_libraries() -> None:
    """For libraries that heed no environment variable. Call it in the arm before any work."""
    import cv2

    cv2.setNumThreads(1)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def peak_mb() -> float:
    """Most memory that this process has had resident, mapped files included, MB = 10^6 bytes.

    Not `ru_maxrss`: that starts with what the parent had when it forked.
    """
    status = Path("/proc/self/status").read_text()
    kib = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(kib) * 1024 / 1e6


def machine() -> str:
    """One line about where and when this ran."""
    cpu = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return f"{time.strftime('%F')}, {os.cpu_count()} cores, {cpu}, Python {platform.python_version()}"


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Plain text columns, the first to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = []
    for row in (head, tuple("-" * width for width in widths), *rows):
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        cells[0] = row[0].ljust(widths[0])
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines) + "\n"


def _pin() -> None:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
