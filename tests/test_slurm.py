"""The worked example for SLURM, with a stand-in for `sbatch` that runs the job script on this machine."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sens_room import Recording, write_scan

ROOT = Path(__file__).resolve().parents[1]
SBATCH = """#!/bin/bash
number=$$
cp "$1" "$JOBS/$number.sh"
setsid bash "$JOBS/$number.sh" >"$JOBS/$number.out" 2>&1 &
echo $! >"$JOBS/$number.pid"
echo "Submitted batch job $number"
"""
SCANCEL = """#!/bin/bash
for number in "$@"; do kill -- -$(cat "$JOBS/$number.pid"); done
"""


@pytest.fixture
def slurm(tmp_path):
    """Environment in which `sbatch` and `scancel` are found."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "jobs").mkdir()
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        path = tmp_path / "bin" / name
        path.write_text(text)
        path.chmod(0o755)
    return os.environ | {
        "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "JOBS": str(tmp_path / "jobs"),
        "PYTHONPATH": str(ROOT),
    }


def test_a_stage_runs_on_the_workers_of_slurm_jobs(slurm, tmp_path):
    for k in range(4):
        write_scan(tmp_path / "scans", f"scene{k:04d}_00", Recording(8, seed=k))
    scheduler_file = tmp_path / "scheduler.json"
    example = [sys.executable, str(ROOT / "docs/examples/slurm_cluster.py"), "2", str(scheduler_file)]
    cluster = subprocess.Popen(example, env=slurm, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    try:
        while not scheduler_file.exists():
            assert cluster.poll() is None, cluster.stderr.read()
            time.sleep(0.05)
        places = [f"scans.root={tmp_path / 'scans'}", f"work={tmp_path / 'work'}"]
        for stage in ("scans", "clips"):
            command = [
                sys.executable,
                "-m",
                "pipeline.run",
                stage,
                *places,
                f"dask.scheduler={scheduler_file}",
            ]
            done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=slurm)
            assert done.returncode == 0, done.stderr
        assert "clips: 4 built" in done.stderr
        scripts = [path.read_text() for path in sorted((tmp_path / "jobs").glob("*.sh"))]
        assert len(scripts) == 2
        assert all(
            "#SBATCH --mem=6G" in script and "#SBATCH --cpus-per-task=1" in script for script in scripts
        )
    finally:
        cluster.send_signal(signal.SIGINT)
        cluster.wait(20)
    pids = [int(path.read_text()) for path in (tmp_path / "jobs").glob("*.pid")]
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids), "the jobs outlive the cluster"
