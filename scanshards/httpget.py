"""One GET over kept-alive connections: proxies, time limits, and bodies of unknown honesty."""

from __future__ import annotations

import base64
import os
import socket
import ssl
import threading
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from urllib.parse import SplitResult, quote, urlsplit

from scanshards.remote import Patience, RemoteError, Transient

_IDLE_CONNECTIONS = 16
_URL_CHARACTERS = "/%:@!$&'()*+,;=~?"


@dataclass
class Line:
    """A connection to a server, or to the proxy before it."""

    connection: HTTPConnection
    prefix: str = ""
    """Before the path of each request: a proxy wants to know the host."""
    headers: dict[str, str] = field(default_factory=dict)
    is_used: bool = False


class Answer:
    """The answer to a GET, its body not yet read."""

    def __init__(self, response: HTTPResponse, sock: socket.socket, patience: Patience) -> None:
        self.status, self.reason = response.status, response.reason
        self.length: int | None = response.length
        """Length of the body by its header, None if that does not say."""
        self._num_read = 0
        self._response, self._sock, self._patience = response, sock, patience

    def header(self, name: str) -> str:
        return self._response.getheader(name) or ""

    def next(self, max_bytes: int) -> bytes:
        """The next bytes of the body, b"" at its end. Transient: the connection breaks or ends too early."""
        left = max_bytes if self.length is None else min(max_bytes, self.length - self._num_read)
        if not left:
            return b""
        try:
            if self._response.chunked:  # many small reads, each within the socket's own time limit
                with _hung_up_after(self._sock, self._patience.attempt_s()):
                    chunk = self._response.read1(left)
            else:
                chunk = self._response.read1(left)
        except (OSError, HTTPException) as error:
            raise Transient(f"{_described(error)} after {self._num_read} bytes of the answer") from error
        if not chunk and self.length is not None:
            raise Transient(f"the answer ended after {self._num_read} of {self.length} bytes")
        self._num_read += len(chunk)
        return chunk

    @property
    def is_reusable(self) -> bool:
        """True if the connection can take another request: the body was read to its stated end."""
        return self._num_read == self.length and not self._response.will_close

    def close(self) -> None:
        self._response.close()


class Pool:
    """Idle connections by scheme and host; any thread may take one. A forked process starts without."""

    def __init__(self) -> None:
        self.clear()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.clear)

    def clear(self) -> None:
        self._lock = threading.Lock()
        self._idle: defaultdict[tuple[str, str], list[Line]] = defaultdict(list)

    def take(self, origin: tuple[str, str]) -> Line | None:
        with self._lock:
            return self._idle[origin].pop() if self._idle[origin] else None

    def give_back(self, origin: tuple[str, str], line: Line) -> None:
        line.is_used = True
        with self._lock:
            idle = self._idle[origin]
            idle.append(line)
            oldest = idle.pop(0) if len(idle) > _IDLE_CONNECTIONS else None
        if oldest is not None:
            oldest.connection.close()


POOL = Pool()


@contextmanager
def get(url: str, headers: dict[str, str], patience: Patience) -> Iterator[Answer]:
    """One request, no redirects. Transient: it failed in a way that may pass; RemoteError: in another."""
    parts = urlsplit(url)
    origin = (parts.scheme, parts.netloc)
    line, answer = _exchange(parts, headers, patience)
    try:
        yield answer
    finally:
        answer.close()
        if answer.is_reusable:
            POOL.give_back(origin, line)
        else:
            line.connection.close()


def _exchange(parts: SplitResult, headers: dict[str, str], patience: Patience) -> tuple[Line, Answer]:
    """Send the request; on an idle connection if there is one that the server has not closed since."""
    while True:
        line = POOL.take((parts.scheme, parts.netloc))
        try:
            line = line or _new_line(parts, patience)
            return line, _answer(line, parts, headers, patience)
        except (OSError, HTTPException, ValueError) as error:
            if line is not None:
                line.connection.close()
            if line is not None and line.is_used and isinstance(error, ConnectionError | HTTPException):
                continue
            is_unknown = isinstance(error, socket.gaierror) and error.errno == socket.EAI_NONAME
            if is_unknown or isinstance(error, ssl.SSLCertVerificationError | ValueError):
                raise RemoteError(f"{parts.geturl()}: {_described(error)}; check the URL") from error
            raise Transient(_described(error)) from error


def _new_line(parts: SplitResult, patience: Patience) -> Line:
    """A connection that opens with its first request; through the proxy that the environment names."""
    host, port, scheme = parts.hostname or "", parts.port, parts.scheme
    kind = HTTPSConnection if scheme == "https" else HTTPConnection
    proxy = None if urllib.request.proxy_bypass(host) else urllib.request.getproxies().get(scheme)
    if proxy is None:
        return Line(kind(host, port, timeout=patience.attempt_s()))
    via = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    login = base64.b64encode(f"{via.username}:{via.password or ''}".encode()).decode()
    headers = {"Proxy-Authorization": f"Basic {login}"} if via.username else {}
    connection = kind(via.hostname or "", via.port or 80, timeout=patience.attempt_s())
    if scheme == "https":
        connection.set_tunnel(host, port, headers)
        return Line(connection)
    return Line(connection, f"http://{parts.netloc}", headers)


def _answer(line: Line, parts: SplitResult, headers: dict[str, str], patience: Patience) -> Answer:
    connection, seconds = line.connection, patience.attempt_s()
    path = parts.path or "/"
    target = quote(f"{path}?{parts.query}" if parts.query else path, safe=_URL_CHARACTERS)
    connection.timeout = seconds
    if connection.sock is None:
        connection.connect()
    sock = connection.sock
    sock.settimeout(seconds)
    with _hung_up_after(sock, seconds):  # headers may come byte by byte, each within the socket's time limit
        connection.request("GET", line.prefix + target, headers=headers | line.headers)
        return Answer(connection.getresponse(), sock, patience)


@contextmanager
def _hung_up_after(sock: socket.socket, seconds: float) -> Iterator[None]:
    """Shut the connection if what is inside takes longer. TimeoutError: it did."""
    is_late = threading.Event()

    def hang_up() -> None:
        is_late.set()
        with suppress(OSError):  # closed already
            sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, hang_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    except (OSError, HTTPException) as error:
        if is_late.is_set():
            raise TimeoutError(f"no answer within {seconds:.1f} s") from error
        raise
    finally:
        timer.cancel()


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
