"""The cache: never beyond its limit, shared by processes that may die, and never trusted."""

from __future__ import annotations

import fcntl
import logging
import multiprocessing
import os
import random
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import scanshards
from scanshards.cache import Cache
from scanshards.remote import RemoteOptions
from tests.make_shards import make_release
from tests.remote_servers import BadServer, bad_server, stored

LIMIT = 10_000


def entries(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.name != "lock"]


def num_bytes(folder: Path) -> int:
    total = 0
    for path in entries(folder):
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            pass  # thrown away or renamed by another process just now
    return total


def content(number: int, size: int = 500) -> bytes:
    return random.Random(number).randbytes(size)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 12_000)), max_size=60))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_it_stays_within_its_limit_and_gives_back_what_was_put(tmp_path_factory, puts):
    folder = tmp_path_factory.mktemp("cache")
    cache, known = Cache(folder, LIMIT), {}
    for number, size in puts:
        key = f"key {number}"
        got = cache.get(key)
        assert got is None or bytes(got) == known[key]
        if got is None:
            known[key] = content(number, size)
            cache.put(key, known[key])
            kept = cache.get(key)
            assert (kept is not None) == (size + 16 <= LIMIT)
        assert num_bytes(folder) <= LIMIT


def test_the_longest_unused_go_first(tmp_path):
    cache = Cache(tmp_path, LIMIT)
    for number in range(19):  # 516 bytes each
        cache.put(f"{number}", content(number))
        time.sleep(0.002)
    for number in (0, 1, 2):
        assert cache.get(f"{number}") is not None
        time.sleep(0.002)
    cache.put("more", content(99))
    left = [number for number in range(19) if cache.get(f"{number}") is not None]
    assert left[:3] == [0, 1, 2]
    assert left[3:] == list(range(19 - len(left[3:]), 19))
    assert cache.get("more") is not None


@pytest.mark.parametrize("damage", ["flip", "flip digest", "cut", "empty", "longer", "swap"])
def test_a_damaged_entry_counts_as_none_and_is_removed(tmp_path, damage, caplog):
    cache = Cache(tmp_path, LIMIT)
    cache.put("a", content(1))
    (path,) = entries(tmp_path)
    data = bytearray(path.read_bytes())
    if damage == "swap":  # a whole entry under another's name
        cache.put("b", content(2))
        (other,) = set(entries(tmp_path)) - {path}
        data = bytearray(other.read_bytes())
    elif damage.startswith("flip"):
        data[5 if damage == "flip digest" else 300] ^= 1
    path.write_bytes({"cut": data[:-1], "empty": b"", "longer": data + b"\0"}.get(damage, data))
    assert cache.get("a") is None
    assert "damaged cache entry, fetched again" in caplog.text
    assert not path.exists()
    cache.put("a", content(1))
    assert bytes(cache.get("a")) == content(1)


def work(folder: Path, seed: int) -> None:
    cache, rng = Cache(folder, 50 * LIMIT), random.Random(seed)
    for _ in range(150):
        number = rng.randrange(100)
        size = 5_000 + 100 * number
        got = cache.get(f"{number}")
        assert got is None or bytes(got) == content(number, size)
        if got is None:
            cache.put(f"{number}", content(number, size))


def test_processes_share_it_and_keep_the_limit_together(tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=work, args=(tmp_path, seed)) for seed in range(4)]
    for worker in workers:
        worker.start()
    most = 0
    while any(worker.is_alive() for worker in workers):
        most = max(most, num_bytes(tmp_path))
        time.sleep(0.002)
    most = max(most, num_bytes(tmp_path))
    assert [worker.exitcode for worker in workers] == [0] * 4
    one_entry = 15_016
    assert 30 * LIMIT < most <= 50 * LIMIT + one_entry  # the sizes are not read at one moment
    assert num_bytes(tmp_path) <= 50 * LIMIT
    assert not [path for path in entries(tmp_path) if path.suffix != ".entry"]


@pytest.mark.parametrize("where", ["write", "replace"])
def test_a_process_killed_while_it_writes_leaves_no_lock_no_wrong_entry_and_no_growth(tmp_path, where):
    child = os.fork()
    if not child:
        import scanshards.cache

        if where == "replace":
            scanshards.cache.os.replace = lambda *_: os._exit(9)
        else:
            scanshards.cache._digest = lambda *_: ExitingBytes(16)
        Cache(tmp_path, LIMIT).put("a", content(1))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    cache = Cache(tmp_path, LIMIT)
    assert cache.get("a") is None
    cache.put("a", content(1))
    assert bytes(cache.get("a")) == content(1)
    for number in range(40):
        cache.put(f"{number}", content(number))
        assert num_bytes(tmp_path) <= LIMIT
    assert not [path for path in entries(tmp_path) if path.suffix != ".entry"]


class ExitingBytes(bytes):
    """A buffer that ends the process when its length is asked for, which is after the lock was taken."""

    def __len__(self) -> int:
        os._exit(9)


def test_a_sum_that_is_lost_or_nonsense_is_found_out_anew(tmp_path):
    cache = Cache(tmp_path, LIMIT)
    for number in range(15):
        cache.put(f"{number}", content(number))
    for nonsense in (b"", b"x" * 20, b"7"):
        (tmp_path / "scanshards-1" / "lock").write_bytes(nonsense)
        for number in range(20, 40):
            cache.put(f"{nonsense!r} {number}", content(number))
            assert num_bytes(tmp_path) <= LIMIT


def test_other_files_in_its_folder_are_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    cache = Cache(tmp_path, LIMIT)
    (tmp_path / "scanshards-1" / "aa").mkdir(exist_ok=True)
    (tmp_path / "scanshards-1" / "aa" / "notes.txt").write_text("mine too")
    for number in range(100):
        cache.put(f"{number}", content(number))
    assert (tmp_path / "thesis.tex").read_text() == "mine"
    assert (tmp_path / "scanshards-1" / "aa" / "notes.txt").read_text() == "mine too"


def test_a_cache_that_cannot_be_written_is_said_once_and_done_without(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("scanshards.cache._LOCK_S", 0.05)
    cache = Cache(tmp_path, LIMIT)
    cache.put("a", content(1))
    with open(tmp_path / "scanshards-1" / "lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for key in "bcd":
            cache.put(key, content(2))
    assert cache.get("b") is None
    assert bytes(cache.get("a")) == content(1)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "going on without: another process holds" in caplog.text
    cache.put("b", content(2))
    assert bytes(cache.get("b")) == content(2)


def test_a_folder_that_cannot_be_made_is_an_error_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        Cache(tmp_path / "file" / "cache", LIMIT)


@pytest.fixture
def served(tmp_path):
    """A server with a release of one shard, and where its files are."""
    release = make_release(tmp_path, num_train=2, num_val=0)

    def behave(request):
        data = (release / request.path.removeprefix("/shards/")).read_bytes()
        if "range" in request.headers:
            return request.answer_range(data, ETag='"1"')
        return request.answer("200 OK", data)

    with bad_server() as server:
        server.behave = behave
        yield server, release


def asked(server: BadServer) -> int:
    """Requests for samples since the last time."""
    count = len([request for request in server.requests if "range" in request.headers])
    server.requests.clear()
    return count


@pytest.mark.parametrize("fields", [None, ("latents", "texts"), ("frames", "depth")])
def test_what_was_fetched_once_is_not_fetched_again(served, tmp_path, fields):
    server, release = served
    options = RemoteOptions(timeout_s=5, cache_dir=str(tmp_path / "cache"))
    url = f"{server.url}/shards/scannet-*.tar"

    def read() -> list[list[object]]:
        clips = scanshards.open(url, fields=fields, remote=options)
        return [stored(clip, fields or ["frames", "latents", "texts", "bev"]) for clip in clips]

    first = read()
    assert asked(server) == (1 + 2 if fields is None else 1 + 2 * 2)
    assert read() == first
    assert asked(server) == 1  # the shard's end: is it still the file of the index?
    for path in entries(tmp_path / "cache"):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    assert read() == first
    assert asked(server) == (1 + 2 if fields is None else 1 + 2 * 2)
    assert read() == first
    assert asked(server) == 1


def test_whole_samples_in_the_cache_serve_any_fields(served, tmp_path):
    server, _ = served
    options = RemoteOptions(timeout_s=5, cache_dir=str(tmp_path / "cache"))
    url = f"{server.url}/shards/scannet-*.tar"
    list(scanshards.open(url, remote=options))
    asked(server)
    assert [len(clip.texts) for clip in scanshards.open(url, fields=["texts"], remote=options)] == [3, 3]
    assert asked(server) == 1


@pytest.mark.parametrize("fields", [None, ("latents",)])
def test_what_is_damaged_on_its_way_is_an_error_and_not_kept(served, tmp_path, fields):
    server, release = served
    options = RemoteOptions(timeout_s=5, read_ahead=0, cache_dir=str(tmp_path / "cache"))
    url = f"{server.url}/shards/scannet-*.tar"
    path = release / "scannet-000000.tar"
    whole = path.read_bytes()
    damaged = bytearray(whole)
    place = whole.index(b"-00.latents.npy\0") + 5000
    damaged[place] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(scanshards.CorruptSample, match=r"scene0000_00-00, member latents\.npy"):
        for clip in scanshards.open(url, fields=fields, remote=options):
            assert clip.latents.size
    path.write_bytes(whole)
    for clip in scanshards.open(url, fields=fields, remote=options):
        assert clip.latents.size


def test_a_shard_without_index_is_cached_only_if_the_server_tells_when_it_changes(served, tmp_path):
    server, release = served
    index = release / "index.json"
    index.unlink()
    behave = server.behave
    server.behave = lambda request: (
        request.answer("404 Not Found") if "index" in request.path else behave(request)
    )
    options = RemoteOptions(timeout_s=5, cache_dir=str(tmp_path / "cache"))
    url = f"{server.url}/shards/scannet-000000.tar"
    keys = [clip.key for clip in scanshards.open(url, fields=["texts"], remote=options)]
    assert keys == ["scene0000_00-00", "scene0001_00-00"]
    assert len(entries(tmp_path / "cache")) == 2


def test_another_server_cannot_put_its_content_in_the_place_of_this_ones(served, tmp_path):
    server, release = served
    options = RemoteOptions(timeout_s=5, cache_dir=str(tmp_path / "cache"))
    behave = server.behave
    with bad_server() as other:
        other.behave = behave
        list(scanshards.open(f"{other.url}/shards/scannet-*.tar", remote=options))
        list(scanshards.open(f"{server.url}/shards/scannet-*.tar", remote=options))
        assert asked(server) == 1 + 2
