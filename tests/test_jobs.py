"""All items are tried, results keep their order, a failure names its item."""

import os
import time

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


ITEMS = [(f"scan{i}", (i,)) for i in range(6)]


@pytest.mark.parametrize("scheduler", ["none", "processes"])
def test_results_keep_the_order_of_the_items(scheduler):
    config = DaskConfig(scheduler=scheduler, workers=2)
    assert jobs.run(square, ITEMS, config, "test") == [i * i for i in range(6)]


@pytest.mark.parametrize("scheduler", ["none", "processes"])
def test_a_failure_names_its_item_and_the_others_are_done(scheduler):
    items = [("good", (2,)), ("bad", (-3,)), ("late", (4,))]
    with pytest.raises(jobs.JobsFailed, match=r"1 of 3 failed(.|\n)*bad(.|\n)*negative: -3"):
        jobs.run(square, items, DaskConfig(scheduler=scheduler, workers=2), "test")


def test_local_workers_are_other_processes():
    found = set(jobs.run(process_id, ITEMS[:4], DaskConfig(workers=2), "test"))
    assert os.getpid() not in found
    assert len(found) == 2
