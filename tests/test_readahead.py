"""Work ahead of its use: in order, as far ahead as told, and stopped when no one asks any more."""

from __future__ import annotations

import threading
import time

import pytest

import scanshards
from scanshards.files import list_shards
from scanshards.readahead import OpenShards, ahead
from scanshards.remote import RemoteOptions
from tests.make_shards import make_release
from tests.remote_servers import bad_server


@pytest.mark.parametrize("depth", [0, 1, 3, 8])
def test_results_come_in_order_and_no_further_ahead_than_told(depth):
    begun: list[int] = []

    def work(item: int) -> int:
        begun.append(item)
        time.sleep(0.001 * (item % 3))
        return item * item

    for number, result in enumerate(ahead(work, range(40), depth)):
        assert result == number * number
        assert len(begun) <= number + 1 + depth
    assert sorted(begun) == list(range(40))


def test_waits_overlap():
    began = time.monotonic()
    assert list(ahead(lambda item: time.sleep(0.1) or item, range(20), 10)) == list(range(20))
    assert time.monotonic() - began < 0.8


def test_an_error_is_raised_in_its_place_and_ends_the_work():
    begun: list[int] = []

    def work(item: int) -> int:
        begun.append(item)
        if item == 3:
            raise ValueError("three")
        return item

    results = []
    with pytest.raises(ValueError, match="three"):
        for result in ahead(work, range(100), 2):
            results.append(result)
    assert results == [0, 1, 2]
    assert max(begun) <= 6


def test_closing_drops_what_has_not_begun_and_ends_the_threads():
    before = set(threading.enumerate())  # those of earlier tests may end meanwhile
    begun: list[int] = []
    results = ahead(lambda item: begun.append(item) or time.sleep(0.02), range(100), 4)
    next(results)
    results.close()
    until = time.monotonic() + 5
    while set(threading.enumerate()) - before and time.monotonic() < until:
        time.sleep(0.01)
    assert not set(threading.enumerate()) - before
    assert len(begun) <= 6


def test_a_shard_is_opened_once_by_many_threads(tmp_path):
    release = make_release(tmp_path, num_train=2, num_val=0)
    shard = (release / "scannet-000000.tar").read_bytes()

    def behave(request):
        if "range" not in request.headers:
            return request.answer("200 OK", (release / "index.json").read_bytes())
        time.sleep(0.05)
        return request.answer_range(shard)

    with bad_server() as server:
        server.behave = behave
        options = RemoteOptions(timeout_s=10)
        (found,) = list_shards(f"{server.url}/shards/scannet-*.tar", options)
        files = OpenShards(options)
        assert len(set(map(id, ahead(lambda _: files.file(found), range(16), 8)))) == 1
        assert len(server.requests) == 2  # the index, and the shard's end
        server.requests.clear()
        began = time.monotonic()
        clips = list(scanshards.open(f"{server.url}/shards/scannet-*.tar", fields=["texts"], remote=options))
        assert len(clips) == 2
        assert len(server.requests) == 2 + 2 * 2
        assert time.monotonic() - began < 5 * 0.05 + 2
