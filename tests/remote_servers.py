"""Servers for tests on this machine: a real nginx, and one that behaves as badly as it is told to."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import socketserver
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from scanshards import Clip, schema
from scanshards.httprange import HttpFile
from scanshards.remote import RemoteError, RemoteOptions

NGINX = "/usr/sbin/nginx"
SENTINEL = "end-of-log-"
DATA = random.Random(0).randbytes(300_000)
HASTY = RemoteOptions(timeout_s=1.0, request_timeout_s=0.4)

_CONF = """
worker_processes 1;
daemon off;
{user}
pid {work}/nginx.pid;
error_log {work}/error.log;
events {{ worker_connections 64; }}
http {{
  log_format asked '$request_method $uri $status $http_range';
  access_log {work}/access.log asked;
  client_body_temp_path {work}/body; proxy_temp_path {work}/proxy; fastcgi_temp_path {work}/fastcgi;
  uwsgi_temp_path {work}/uwsgi; scgi_temp_path {work}/scgi;
  server {{
    listen 127.0.0.1:{port};
    root {root};
    location /slow/ {{ alias {root}/; limit_rate 6m; }}
    location /moved/ {{ rewrite ^/moved/(.*)$ /$1 redirect; }}
    location /private/ {{ deny all; }}
  }}
}}
"""


def stored(clip: Clip, fields: Sequence[str] = tuple(schema.FIELD_MEMBERS)) -> list[object]:
    """The bytes of clip.json and of the members of these fields."""
    names = dict.fromkeys(name for field in fields for name in schema.FIELD_MEMBERS[field])
    return [clip.key, *(bytes(clip.stored(name)) for name in (schema.CLIP_JSON, *names))]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Nginx:
    """Serves `root`; may be killed and started again on the same port."""

    def __init__(self, root: Path, work: Path) -> None:
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        self._port, self._work = port, work
        user = "user root;" if os.getuid() == 0 else ""
        (work / "nginx.conf").write_text(_CONF.format(user=user, work=work, port=port, root=root))
        self._process: subprocess.Popen[bytes] | None = None
        self._num_asked = 0

    def start(self) -> None:
        command = [NGINX, "-p", str(self._work), "-c", str(self._work / "nginx.conf")]
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
        until = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self._port), 1).close()
                return
            except OSError:
                if time.monotonic() > until or self._process.poll() is not None:
                    raise
                time.sleep(0.02)

    def kill(self) -> None:
        """Master and worker at once, connections cut."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def asked(self) -> list[str]:
        """One line a request: method, path, status, range; from the last call of `forget` on.

        nginx answers first and then writes the line. It does so in order: once a last request of our own
        stands there, so do all before it.
        """
        self._num_asked += 1
        last = f"{SENTINEL}{self._num_asked} "
        with contextlib.suppress(urllib.error.HTTPError):
            urllib.request.urlopen(f"{self.url}/{last.strip()}", timeout=10).close()
        deadline = time.monotonic() + 10
        while last not in (text := (self._work / "access.log").read_text()):
            assert time.monotonic() < deadline, "nginx wrote no log"
            time.sleep(0.01)
        return [line for line in text.splitlines() if SENTINEL not in line]

    def forget(self) -> None:
        self.asked()
        (self._work / "access.log").write_text("")


class Request:
    """What a client asked of the bad server, and how to answer it."""

    def __init__(
        self, handler: socketserver.StreamRequestHandler, path: str, headers: dict[str, str]
    ) -> None:
        self.path, self.headers = path, headers
        self._handler = handler

    @property
    def span(self) -> tuple[int, int]:
        """First byte and the one after the last of the range that is asked for."""
        first, last = self.headers["range"].removeprefix("bytes=").split("-")
        return int(first), int(last) + 1

    def send(self, data: bytes) -> None:
        self._handler.wfile.write(data)

    def answer(self, status: str, body: bytes = b"", **headers: object) -> None:
        lines = {
            "Content-Length": len(body),
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self.send(f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body)

    def answer_range(self, data: bytes, **headers: object) -> None:
        """As an honest server would."""
        start, stop = self.span
        part = data[start:stop]
        if not part:
            return self.answer("416 Range Not Satisfiable", Content_Range=f"bytes */{len(data)}")
        spec = f"bytes {start}-{start + len(part) - 1}/{len(data)}"
        self.answer("206 Partial Content", part, **({"Content_Range": spec} | headers))


class BadServer:
    """Answers each request as `behave(request)` does; cuts the connection if that returns True."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.requests: list[Request] = []
        self.is_closing = threading.Event()
        self.behave: Callable[[Request], object] = lambda request: request.answer("404 Not Found")


@contextmanager
def bad_server(tls: ssl.SSLContext | None = None) -> Iterator[BadServer]:
    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            try:
                while line := self.rfile.readline():
                    headers = {}
                    while (header := self.rfile.readline().strip()) != b"":
                        name, _, value = header.decode().partition(": ")
                        headers[name.lower()] = value
                    request = Request(self, line.split()[1].decode(), headers)
                    server.requests.append(request)
                    if server.behave(request):
                        return
            except OSError:
                return  # the client hung up

    class Threading(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True

        def handle_error(self, *args: object) -> None:
            """A client that does not like the certificate."""

    with Threading(("127.0.0.1", 0), Handler) as running:
        if tls is not None:
            running.socket = tls.wrap_socket(running.socket, server_side=True)
        server = BadServer(f"http{'s' if tls else ''}://127.0.0.1:{running.server_address[1]}")
        threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.is_closing.set()
        running.shutdown()


def honest(request: Request) -> None:
    """Serves `DATA`."""
    request.answer_range(DATA)


def read(server: BadServer, start: int = 1000, stop: int = 250_000, options: RemoteOptions = HASTY) -> bytes:
    return bytes(HttpFile(f"{server.url}/x.tar", options).read(start, stop - start))


def fails_in_time(server: BadServer, match: str, error: type[Exception] = RemoteError) -> str:
    """The message, within the stated second (and half a second of a busy machine)."""
    began = time.monotonic()
    with pytest.raises(error, match=match) as caught:
        read(server)
    assert time.monotonic() - began < 1.5
    assert f"{server.url}/x.tar" in str(caught.value)
    return str(caught.value)
