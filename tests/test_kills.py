"""Workers and whole runs die in the middle: only scans in flight are lost, and the result is the same."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from sens_room import Recording, write_scan

NUM_SCANS = 16


@pytest.fixture(scope="module")
def scans(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("scans")
    for k in range(NUM_SCANS):
        write_scan(root, f"scene{k:04d}_00", Recording(34, seed=k))
    return root


@pytest.fixture(scope="module")
def calm(scans, tmp_path_factory) -> dict[str, bytes]:
    """The store of an undisturbed run in one process."""
    work = tmp_path_factory.mktemp("calm")
    for stage in ("scans", "clips"):
        process = start(stage, scans, work, "dask.scheduler=none")
        assert process.wait() == 0
    return contents(work)


def start(stage: str, scans: Path, work: Path, *more: str) -> subprocess.Popen:
    arguments = [f"scans.root={scans}", f"work={work}", "dask.workers=2", *more]
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline.run", stage, *arguments],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def contents(work: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (work / "clips.zarr").glob("*.zip")}


def wait_for(count: int, work: Path, process: subprocess.Popen) -> None:
    """Until so many scans are done; the run must not have ended by then."""
    while len(list((work / "clips.zarr").glob("*.zip"))) < count:
        assert process.poll() is None, "the run ended before it could be disturbed"
        time.sleep(0.005)


def workers(process: subprocess.Popen) -> list[psutil.Process]:
    children = psutil.Process(process.pid).children(recursive=True)
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


def test_killed_workers_change_nothing(scans, calm, tmp_path):
    assert start("scans", scans, tmp_path).wait() == 0
    process = start("clips", scans, tmp_path)
    for done in (2, 6):
        wait_for(done, tmp_path, process)
        workers(process)[0].kill()
    assert process.wait() == 0, process.stderr.read()
    assert contents(tmp_path) == calm


def test_a_killed_run_goes_on_where_it_was(scans, calm, tmp_path):
    assert start("scans", scans, tmp_path).wait() == 0
    process = start("clips", scans, tmp_path)
    wait_for(4, tmp_path, process)
    orphans = workers(process)
    os.kill(process.pid, signal.SIGKILL)  # the client with the scheduler in it; its workers end by themselves
    process.wait()
    psutil.wait_procs(orphans, timeout=20)
    assert not any(orphan.is_running() for orphan in orphans), "workers outlive the run"
    done = contents(tmp_path)
    assert 4 <= len(done) < NUM_SCANS
    assert done == {name: calm[name] for name in done}, "a file under its own name is whole"
    process = start("clips", scans, tmp_path)
    _, output = process.communicate()
    assert f"clips: {NUM_SCANS - len(done)} built, {len(done)} up to date" in output
    assert contents(tmp_path) == calm
