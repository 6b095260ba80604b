"""All items are tried, a failure names its item, and a killer is found among the innocent."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline import jobs
from pipeline.config import DaskConfig


def square(value: int) -> int:
    if value < 0:
        raise TypeError(f"negative: {value}")
    time.sleep(0.01 * (5 - value % 5))
    return value * value


def process_id(_: int) -> int:
    time.sleep(0.3)
    return os.getpid()


def square_or_die(value: int, log: Path) -> int:
    with log.open("a") as file:
        file.write(f"{value}\n")
    if value == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.05)
    return value * value


def die_once(value: int, log: Path) -> int:
    """Stands for a worker that something else kills while it works on an innocent item."""
    first = not log.exists()
    log.touch()
    if first:
        os.kill(os.getpid(), signal.SIGKILL)
    return value


def hoard(megabytes: int) -> int:
    kept = bytearray(megabytes << 20)
    for start in range(0, len(kept), 4096):
        kept[start] = 1
    time.sleep(3 if megabytes > 100 else 0)
    return megabytes


ITEMS = [(f"scan{i}", (i,)) for i in range(6)]


@pytest.mark.parametrize("scheduler", ["none", "processes"])
def test_every_item_gets_its_result(scheduler):
    config = DaskConfig(scheduler=scheduler, workers=2)
    assert dict(jobs.run(square, ITEMS, config, "test")) == {f"scan{i}": i * i for i in range(6)}


@pytest.mark.parametrize("scheduler", ["none", "processes"])
def test_a_failure_names_its_item_and_the_others_are_done(scheduler):
    items = [("good", (2,)), ("bad", (-3,)), ("late", (4,))]
    done = {}
    with pytest.raises(jobs.JobsFailed, match=r"1 of 3 failed(.|\n)*bad(.|\n)*negative: -3"):
        for name, result in jobs.run(square, items, DaskConfig(scheduler=scheduler, workers=2), "test"):
            done[name] = result
    assert done == {"good": 4, "late": 16}


def test_many_failures_are_all_named_and_few_told_in_full():
    items = [(f"scan{i:02d}", (-i,)) for i in range(1, 31)]
    with pytest.raises(jobs.JobsFailed) as failed:
        list(jobs.run(square, items, DaskConfig(scheduler="none"), "test"))
    message = str(failed.value)
    assert message.startswith("test: 30 of 30 failed")
    assert all(name in message for name, _ in items)
    assert message.count("Traceback") == jobs.MAX_LISTED


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (DaskConfig(scheduler="process"), r"dask.scheduler: got 'process', expected processes, none, tcp://"),
        (DaskConfig(scheduler="gone.json"), r"dask.scheduler: got 'gone.json', .*existing scheduler file"),
        (DaskConfig(memory_limit="4XB"), r"dask.memory_limit: got '4XB', expected auto or a size, say 4GB"),
    ],
)
def test_a_wrong_setting_is_named(config, message):
    with pytest.raises(ValueError, match=message):
        list(jobs.run(square, ITEMS, config, "test"))


def test_local_workers_are_other_processes():
    found = set(dict(jobs.run(process_id, ITEMS[:4], DaskConfig(workers=2), "test")).values())
    assert os.getpid() not in found
    assert len(found) == 2


def test_who_kills_its_worker_twice_is_named_and_the_others_are_done(tmp_path):
    log = tmp_path / "log"
    items = [(f"scan{i}", (i, log)) for i in range(8)]
    results = dict(jobs.run(square_or_die, items, DaskConfig(workers=2), "test"))
    killed = results.pop("scan3")
    assert isinstance(killed, jobs.Killed)
    assert "scan3: killed its worker process twice" in killed.reason
    assert results == {f"scan{i}": i * i for i in range(8) if i != 3}
    assert log.read_text().split().count("3") == 2


def test_a_single_item_cannot_kill_the_run(tmp_path):
    results = dict(jobs.run(square_or_die, [("scan3", (3, tmp_path / "log"))], DaskConfig(), "test"))
    assert isinstance(results["scan3"], jobs.Killed)


def test_who_lost_a_worker_once_is_done_at_the_second_try(tmp_path):
    results = dict(jobs.run(die_once, [("scan0", (7, tmp_path / "log"))], DaskConfig(), "test"))
    assert results == {"scan0": 7}


def test_who_needs_more_memory_than_a_worker_has_is_named():
    config = DaskConfig(workers=1, memory_limit="700MB")
    results = dict(jobs.run(hoard, [("big", (900,)), ("small", (1,))], config, "test"))
    assert "dask.memory_limit=700MB" in results["big"].reason
    assert results["small"] == 1


def test_calls_that_need_a_resource_run_where_it_is():
    assert dict(jobs.run(square, ITEMS[:2], DaskConfig(), "test", {"GPU": 1})) == {"scan0": 0, "scan1": 1}


@pytest.fixture
def cluster(tmp_path):
    """A scheduler and two workers in processes of their own, as on a cluster: (scheduler file, processes)."""
    file = tmp_path / "scheduler.json"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    common = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": environment}
    python = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
    options = ["--scheduler-file", file, "--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
    processes = [subprocess.Popen([*python, *options], **common)]
    while not file.exists():
        time.sleep(0.05)
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", file]
    worker += ["--nthreads", "1", "--no-dashboard", "--host", "127.0.0.1", "--local-directory", tmp_path]
    processes += [subprocess.Popen(worker, **common) for _ in range(2)]
    yield file, processes
    for process in processes:
        process.kill()
        process.wait()


def test_a_scheduler_file_names_a_cluster(cluster):
    file, _ = cluster
    found = dict(jobs.run(process_id, ITEMS, DaskConfig(scheduler=str(file)), "test"))
    assert len(found) == len(ITEMS)
    assert os.getpid() not in found.values()


def test_a_scheduler_that_dies_ends_the_run_with_a_message(cluster):
    file, (scheduler, *_) = cluster
    with pytest.raises(jobs.JobsFailed, match=r"the Dask scheduler went away; .* run the same command again"):
        for _ in jobs.run(process_id, ITEMS * 3, DaskConfig(scheduler=str(file)), "test"):
            scheduler.kill()
