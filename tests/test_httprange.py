"""Servers that hang, break off, lie or lead astray: the right bytes or a clear error, in the stated time."""

from __future__ import annotations

import gzip
import pickle
import random
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import scanshards
from scanshards.httprange import HttpFile
from scanshards.remote import Patience, RemoteError, RemoteOptions, Transient
from tests.make_shards import make_release
from tests.remote_servers import DATA, HASTY, BadServer, Request, bad_server, fails_in_time, honest, read


@pytest.fixture
def server() -> Iterator[BadServer]:
    with bad_server() as running:
        yield running


@given(st.lists(st.integers(0, 249_000), max_size=5), st.integers(0, 299_999), st.integers(1, 250_000))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_connections_cut_anywhere_lose_and_repeat_no_byte(server, cuts, start, length):
    left = list(cuts)
    server.requests.clear()

    def behave(request: Request) -> bool:
        first, stop = request.span
        stop = min(stop, len(DATA))
        if not left:
            honest(request)
            return False
        head = f"Content-Range: bytes {first}-{stop - 1}/{len(DATA)}\r\nContent-Length: {stop - first}\r\n"
        request.send(f"HTTP/1.1 206 Partial Content\r\n{head}\r\n".encode())
        request.send(DATA[first : min(stop, first + left.pop())])
        return True

    server.behave = behave
    patient = RemoteOptions(timeout_s=30, request_timeout_s=5)
    assert read(server, start, start + length, patient) == DATA[start : start + length]
    begins = [request.span[0] for request in server.requests]
    assert begins == sorted(begins)  # each goes on where the one before was cut


def test_one_connection_serves_all_ranges_and_the_size_comes_with_them(server):
    server.behave = honest
    file = HttpFile(f"{server.url}/x.tar", HASTY)
    assert bytes(file.read(299_999, 5)) == DATA[-1:]
    assert bytes(file.read(300_000, 5)) == bytes(file.read(400_000, 1)) == b""
    assert file.num_bytes == 300_000
    assert [request.path for request in server.requests] == ["/x.tar"] * 3


def test_a_hanging_server_is_an_error_after_the_stated_time(server):
    server.behave = lambda request: server.is_closing.wait(20)
    message = fails_in_time(server, r"given up after \d attempts in \d\.\d s")
    for part in ("no answer within", "check that the server is up", "RemoteOptions(timeout_s=1)"):
        assert part in message
    assert len(server.requests) >= 2


@pytest.mark.parametrize("what", ["headers", "body", "chunks"])
def test_a_dripping_server_is_an_error_after_the_stated_time(server, what):
    def behave(request: Request) -> bool:
        if what == "body":
            request.send(
                b"HTTP/1.1 206 OK\r\nContent-Range: bytes 1000-249999/300000\r\n"
                b"Content-Length: 249000\r\n\r\n"
            )
        if what == "chunks":
            request.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not server.is_closing.wait(0.05):
            request.send(b"1")
        return True

    server.behave = behave
    if what != "chunks":
        fails_in_time(server, "given up after")
        return
    began = time.monotonic()
    with pytest.raises(RemoteError, match="given up after"):
        HttpFile(f"{server.url}/x.tar", HASTY).read_all(1 << 20)
    assert time.monotonic() - began < 1.5


@pytest.mark.parametrize(
    "status", ["500 Internal Server Error", "503 Busy", "429 Too Many Requests", "408 Slow"]
)
def test_passing_failures_are_tried_again(server, status):
    left = [status] * 2
    server.behave = lambda request: request.answer(left.pop(), b"wait") if left else honest(request)
    assert read(server) == DATA[1000:250_000]
    assert len(server.requests) == 3


def test_a_server_that_asks_to_wait_is_waited_for(server):
    left = ["429 Too Many Requests"]
    server.behave = lambda request: request.answer(left.pop(), Retry_After="1") if left else honest(request)
    began = time.monotonic()
    assert read(server, options=RemoteOptions(timeout_s=5)) == DATA[1000:250_000]
    assert 1.0 <= time.monotonic() - began < 2.5


def test_lasting_failures_are_errors_at_once(server):
    for status, error, match in (
        ("404 Not Found", FileNotFoundError, "404 Not Found, check the URL"),
        ("403 Forbidden", PermissionError, "403 Forbidden; .*Authorization"),
        ("418 Teapot", RemoteError, "answers 418 Teapot.* expected 206"),
    ):
        server.requests.clear()
        server.behave = lambda request, status=status: request.answer(status)
        fails_in_time(server, match, error)
        assert len(server.requests) == 1


def test_a_server_that_ignores_ranges_is_found_before_it_sends_the_shard(server):
    sent = []

    def behave(request: Request) -> bool:
        request.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        for _ in range(1000):
            request.send(bytes(1_000_000))
            sent.append(1)
        return True

    server.behave = behave
    fails_in_time(server, "ignores byte ranges .*answers 200, expected 206.* use a server with ranges")
    assert len(server.requests) == 1
    assert len(sent) < 50  # what fits into the sockets' buffers


@pytest.mark.parametrize(
    "lie",
    [
        {"Content_Range": "bytes 0-248999/300000"},
        {"Content_Range": "bytes 1000-249999/200000"},
        {"Content_Range": "bytes 1000-249998/300000"},
        {"Content_Range": "bytes 1000-999999999999/9999999999999"},
        {"Content_Length": 248_000},
        {"Content_Length": 10**15},
    ],
)
def test_lies_about_range_and_length_are_errors(server, lie):
    server.behave = lambda request: request.answer_range(DATA, **lie)
    fails_in_time(server, "asked for bytes 1000 to 249999, got Content-Range")


@pytest.mark.parametrize(
    "lie",
    ["", "bytes */*", "bytes 1000-249999/*", "items 1000-249999/300000", "bytes ١-٢/٣", "bytes -5-9/10"],
)
def test_answers_that_do_not_say_what_they_hold_are_errors(server, lie):
    server.behave = lambda request: request.answer_range(DATA, Content_Range=lie)
    fails_in_time(server, "expected 206 with a Content-Range")


def test_content_that_is_encoded_or_not_http_is_an_error(server):
    server.behave = lambda request: request.answer_range(gzip.compress(DATA), Content_Encoding="gzip")
    fails_in_time(server, "sent as 'gzip', expected the bytes as they are stored")
    server.behave = lambda request: request.send(b"SSH-2.0-OpenSSH_9.7\r\n") or True
    fails_in_time(server, "BadStatusLine")
    server.behave = lambda request: (
        request.send(b"HTTP/1.1 206 OK\r\n" + b"a: b\r\n" * 1000 + b"\r\n") or True
    )
    fails_in_time(server, "got more than 100 headers")


def test_a_file_that_is_replaced_while_it_is_read_is_an_error(server):
    server.behave = honest
    file = HttpFile(f"{server.url}/x.tar", HASTY)
    file.read(0, 10)
    server.behave = lambda request: request.answer_range(DATA[:-1])
    with pytest.raises(RemoteError, match="has 299999 bytes now, had 300000 before: it was replaced"):
        file.read(0, 10)


def test_a_whole_file_is_read_whole_or_not_at_all(server):
    file = HttpFile(f"{server.url}/index.json", HASTY)
    cuts = [100, 200_000]

    def behave(request: Request) -> bool:
        request.send(f"HTTP/1.1 200 OK\r\nContent-Length: {len(DATA)}\r\n\r\n".encode())
        request.send(DATA[: cuts.pop()] if cuts else DATA)
        return bool(cuts) or len(server.requests) < 3

    server.behave = behave
    assert file.read_all(len(DATA)) == DATA
    assert len(server.requests) == 3
    with pytest.raises(RemoteError, match="more than 299999 bytes"):
        file.read_all(len(DATA) - 1)


def test_waits_grow_are_jittered_and_end_with_the_time(monkeypatch):
    slept: list[float] = []
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    monkeypatch.setattr(
        "time.sleep", lambda seconds: (slept.append(seconds), clock.__setitem__(0, clock[0] + seconds))
    )
    random.seed(1)
    before = random.getstate()
    patience = Patience("http://x", RemoteOptions(timeout_s=60))
    with pytest.raises(RemoteError, match="given up after"):
        while True:
            patience.back_off(Transient("refused"))
    for i, wait in enumerate(slept):
        most = min(0.1 * 2**i, 8.0)
        assert most / 2 <= wait <= most
    assert 50 < sum(slept) < 60
    assert random.getstate() == before


def test_a_hostile_index_names_no_file_elsewhere(server, tmp_path):
    release = make_release(tmp_path, num_train=1, num_val=0)
    text = (release / "index.json").read_text()
    for name in (
        "../../etc/passwd.tar",
        "..%2fx.tar",
        "/etc/x.tar",
        "file:///x.tar",
        "a/../x.tar",
        "http://a/x.tar",
    ):
        hostile = text.replace("scannet-000000.tar", name).encode()
        server.behave = lambda request, hostile=hostile: request.answer("200 OK", hostile)
        with pytest.raises(scanshards.CorruptSample, match=r"index\.json: shard file"):
            scanshards.open(f"{server.url}/shards/scannet-*.tar")


def test_an_absurdly_long_sample_is_refused_before_memory_is_taken(server, tmp_path):
    release = make_release(tmp_path, num_train=1, num_val=0)
    index = (release / "index.json").read_text()
    size = (release / "scannet-000000.tar").stat().st_size
    huge = 10**13
    index = index.replace(str(size - 1024), str(huge - 1024)).replace(str(size), str(huge)).encode()

    def behave(request: Request) -> None:
        if "index" in request.path:
            return request.answer("200 OK", index)
        start, stop = request.span
        part = bytes(min(stop, huge) - start)
        request.answer("206 OK", part, Content_Range=f"bytes {start}-{start + len(part) - 1}/{huge}")

    server.behave = behave
    with pytest.raises(scanshards.CorruptSample, match=f"{huge - 1024} bytes, expected at most"):
        list(scanshards.open(f"{server.url}/shards/scannet-*.tar"))


def test_options_that_make_no_sense_are_refused_and_the_rest_travel():
    for wrong in (
        {"timeout_s": 0},
        {"request_timeout_s": float("nan")},
        {"cache_bytes": 0},
        {"read_ahead": -1},
    ):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))}: got"):
            RemoteOptions(**wrong)
    assert pickle.loads(pickle.dumps(HASTY)) == HASTY
    error = pickle.loads(pickle.dumps(RemoteError("http://x: gone")))
    assert isinstance(error, OSError) and str(error) == "http://x: gone"
