"""Files behind a URL: what a user may set, attempts with back-off, and fsspec's file systems.

http and https are read by `scanshards/httprange.py` with the standard library alone; s3, gs, hf and others by
fsspec and its drivers.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

_MIN_BYTES_PER_S = 100_000
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 8.0
_PERMANENT = (AttributeError, ImportError, NotImplementedError, TypeError)
_RANDOM = random.SystemRandom()  # no state: a user's seed and forked workers are left alone

T = TypeVar("T")


@dataclass(frozen=True)
class RemoteOptions:
    """How shards behind a URL are read. Local files need none of it."""

    timeout_s: float = 60.0
    """A read that has not succeeded by then is a `RemoteError`; a second more for every 100 kB received."""
    request_timeout_s: float = 15.0
    """The longest silence of a server before one attempt counts as failed."""
    read_ahead: int = 4
    """Samples that are fetched at the same time, before they are asked for; 0 = each when it is asked for."""
    cache_dir: str | None = None
    """A folder on a local disk that keeps what was fetched, for any number of processes of one user."""
    cache_bytes: int = 50_000_000_000
    """The cache never grows beyond it: what was used longest ago goes first."""
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    """Sent to the host of an http(s) URL, for example {"Authorization": "Bearer ..."}; to no other host."""
    storage_options: dict[str, Any] = field(default_factory=dict, repr=False)
    """For fsspec's driver, for example {"anon": True} for a public s3 bucket."""

    def __post_init__(self) -> None:
        for name, least in (("timeout_s", 0.01), ("request_timeout_s", 0.01), ("cache_bytes", 1)):
            if not getattr(self, name) >= least:
                raise ValueError(f"{name}: got {getattr(self, name)!r}, expected at least {least}")
        if not 0 <= self.read_ahead <= 256:
            raise ValueError(f"read_ahead: got {self.read_ahead!r}, expected 0 to 256 samples")


class RemoteError(OSError):
    """A server that cannot be read from: dead, hanging, refusing, or not able to serve ranges."""


class Transient(Exception):
    """One attempt failed in a way that may pass; `wait_s`: how long the server asks to be left alone."""

    def __init__(self, what: str, wait_s: float = 0.0) -> None:
        self.wait_s = wait_s
        super().__init__(what)


class RemoteFile(Protocol):
    """One file behind a URL."""

    @property
    def num_bytes(self) -> int:
        """Its size."""

    def read(self, offset: int, num_bytes: int) -> memoryview:
        """The bytes from `offset`, fewer only if the file ends before."""

    def read_all(self, max_bytes: int) -> bytes:
        """The whole file. RemoteError: it is larger than `max_bytes`."""

    def identity(self) -> str:
        """Changes when the file does; "" if the server does not say."""


def is_remote(url: str) -> bool:
    return "://" in url


def is_http(url: str) -> bool:
    return url.lower().startswith(("http://", "https://"))


def open_remote(url: str, options: RemoteOptions) -> RemoteFile:
    """The file behind a URL; nothing is asked of the server yet.

    ImportError, with what to install: fsspec has no driver for it. ValueError: no such protocol.
    """
    if is_http(url):
        from scanshards.httprange import HttpFile  # the standard library's http takes 20 ms to import

        return HttpFile(url, options)
    return FsspecFile(url, options)


class Patience:
    """The time that one read may take over all its attempts."""

    def __init__(self, url: str, options: RemoteOptions) -> None:
        self._url = url
        self._options = options
        self._began = time.monotonic()
        self._received = 0
        self._num_attempts = 1
        self._num_in_vain = 0

    def progress(self, num_bytes: int) -> None:
        """Bytes that were not there before. Transient: they come too slowly."""
        self._received += num_bytes
        self._num_in_vain = 0
        if self.left_s() <= 0:
            raise Transient(f"only {self._received} bytes in {self._options.timeout_s:g} s")

    def left_s(self) -> float:
        """Seconds until the read is given up."""
        allowed = self._options.timeout_s + self._received / _MIN_BYTES_PER_S
        return self._began + allowed - time.monotonic()

    def attempt_s(self) -> float:
        """Seconds that the server may be silent within this attempt."""
        return max(0.01, min(self._options.request_timeout_s, self.left_s()))

    def back_off(self, failure: Transient) -> None:
        """Wait before the next attempt, jittered, twice as long after each that brought nothing.

        RemoteError: time is over.
        """
        wait = min(_FIRST_WAIT_S * 2**self._num_in_vain, _LONGEST_WAIT_S)
        wait = max(wait * _RANDOM.uniform(0.5, 1.0), failure.wait_s)
        if wait >= self.left_s():
            spent = time.monotonic() - self._began
            raise RemoteError(
                f"{self._url}: given up after {self._num_attempts} attempts in {spent:.1f} s, the last one: "
                f"{failure}; check that the server is up and can be reached from here, then run again "
                f"(RemoteOptions(timeout_s={self._options.timeout_s:g}) says how long to try)"
            ) from failure
        time.sleep(wait)
        self._num_attempts += 1
        self._num_in_vain += 1


def persist(url: str, options: RemoteOptions, attempt: Callable[[Patience], T]) -> T:
    """The result of the first attempt that is not `Transient`. RemoteError: none within the time."""
    patience = Patience(url, options)
    while True:
        try:
            return attempt(patience)
        except Transient as failure:
            patience.back_off(failure)


class FsspecFile:
    """A file of an fsspec file system: one request for its size, one for each range."""

    def __init__(self, url: str, options: RemoteOptions) -> None:
        from fsspec.core import url_to_fs

        self.url = url
        self._options = options
        self._system, self._path = url_to_fs(url, **options.storage_options)
        self._num_bytes: int | None = None

    @property
    def num_bytes(self) -> int:
        if self._num_bytes is None:
            self._num_bytes = int(self._ask(lambda: self._system.size(self._path)) or 0)
        return self._num_bytes

    def read(self, offset: int, num_bytes: int) -> memoryview:
        end = min(offset + num_bytes, self.num_bytes)
        if offset >= end:
            return memoryview(b"")
        return memoryview(self._ask(lambda: self._range(offset, end)))

    def read_all(self, max_bytes: int) -> bytes:
        if self.num_bytes > max_bytes:
            raise RemoteError(f"{self.url}: got {self.num_bytes} bytes, expected at most {max_bytes}")
        return bytes(self.read(0, self.num_bytes))

    def identity(self) -> str:
        return str(self._ask(lambda: self._system.ukey(self._path)))

    def names(self) -> list[str]:
        """URLs that the path matches as a glob pattern, sorted."""
        found = self._ask(lambda: self._system.glob(self._path))
        return sorted(self._system.unstrip_protocol(path) for path in found)

    def _range(self, offset: int, end: int) -> bytes:
        data = self._system.cat_file(self._path, start=offset, end=end)
        if len(data) != end - offset:
            raise OSError(f"got {len(data)} bytes from byte {offset}, expected {end - offset}")
        return data

    def _ask(self, call: Callable[[], T]) -> T:
        return persist(self.url, self._options, lambda patience: self._attempt(call, patience))

    def _attempt(self, call: Callable[[], T], patience: Patience) -> T:
        seconds = patience.attempt_s()
        try:
            return _bounded(call, seconds)
        except FutureTimeout as error:
            raise Transient(f"no answer within {seconds:.1f} s") from error
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{self.url}: no such file, check the URL") from error
        except PermissionError as error:
            raise PermissionError(f"{self.url}: access refused ({error}), check the credentials") from error
        except _PERMANENT:
            raise
        except Exception as error:  # drivers have errors of their own for a broken connection
            raise Transient(f"{type(error).__name__}: {error}") from error


def _bounded(call: Callable[[], T], seconds: float) -> T:
    """The call's result. FutureTimeout: none by then; its thread, if it never ends, keeps no one alive."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future.result(seconds)
