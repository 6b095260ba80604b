"""A folder that keeps what was fetched: limited in size, shared by processes, verified on every use.

An entry is one file, named by the hash of its key: 16 bytes of XXH3-128 over key and content, then the
content. It is written under a temporary name and renamed. Entries are made and thrown away under one file
lock, whose file holds the running sum of their sizes, so the limit holds for all processes together.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import xxhash

_LOG = logging.getLogger("scanshards")
_FOLDER = "scanshards-1"
_SUFFIX, _TEMPORARY = ".entry", ".tmp"
_DIGEST_BYTES = 16
_LOCK_S = 5.0
_KEPT = 0.9
"""Share of the limit that throwing away leaves, so that not every new entry looks through the folder."""


class Cache:
    """Content by key. The least recently used go first when `max_bytes` would be passed."""

    def __init__(self, folder: str | os.PathLike[str], max_bytes: int) -> None:
        """ImportError: no file locks here. OSError: the folder cannot be made or written."""
        try:
            import fcntl
        except ImportError as error:
            what = "cache_dir: expected a system with fcntl locks (Linux, macOS); leave it out here"
            raise ImportError(what) from error
        self._flock, self._lock_kind = fcntl.flock, fcntl.LOCK_EX | fcntl.LOCK_NB
        self._folder = Path(folder).absolute() / _FOLDER
        self._max_bytes = max_bytes
        self._is_failing = False
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._locked():
            pass

    def get(self, key: str) -> memoryview | None:
        """The content, None if there is none; a damaged entry is removed and counts as none."""
        path = self._path(key)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        content = memoryview(data)[_DIGEST_BYTES:]
        if data[:_DIGEST_BYTES] != _digest(key, content):
            _LOG.warning("%s: damaged cache entry, fetched again", path)
            path.unlink(missing_ok=True)  # its size stays in the sum until the folder is next looked through
            return None
        with suppress(FileNotFoundError):  # just thrown away by another process
            os.utime(path)
        return content

    def put(self, key: str, content: bytes | memoryview) -> None:
        """Keep the content; larger than the limit: not kept.

        A cache that cannot be written (disk full, lock held) costs time, not data: it is logged once.
        """
        size = _DIGEST_BYTES + len(content)
        if size > self._max_bytes:
            return
        try:
            with self._locked() as lock:
                self._store(lock, self._path(key), _digest(key, content), content)
        except OSError as error:
            if not self._is_failing:
                _LOG.warning("%s: cannot keep what is fetched, going on without: %s", self._folder, error)
            self._is_failing = True

    def _store(self, lock: int, path: Path, digest: bytes, content: bytes | memoryview) -> None:
        if path.exists():  # another process was faster
            return
        size = len(digest) + len(content)
        total = self._total(lock)
        if total is None or total + size > self._max_bytes:
            total = self._make_room(min(int(self._max_bytes * _KEPT), self._max_bytes - size))
        # The sum first: a crash in between makes it too large, and the next look through the folder right.
        os.pwrite(lock, b"%20d" % (total + size), 0)
        path.parent.mkdir(exist_ok=True)
        temporary = path.with_suffix(_TEMPORARY)
        try:
            with open(temporary, "wb") as file:
                file.write(digest)
                file.write(content)
            os.replace(temporary, path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise

    def _make_room(self, target: int) -> int:
        """Throw away leftovers of crashes and the longest unused entries; returns the bytes that are left."""
        entries: list[tuple[int, int, str]] = []
        for folder in [entry.path for entry in os.scandir(self._folder) if entry.is_dir()]:
            for entry in os.scandir(folder):
                if entry.name.endswith(_SUFFIX):
                    with suppress(FileNotFoundError):  # damaged, and removed by its reader just now
                        stat = entry.stat()
                        entries.append((stat.st_mtime_ns, stat.st_size, entry.path))
                elif entry.name.endswith(_TEMPORARY):  # no one else writes while the lock is held
                    os.unlink(entry.path)
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= target:
                break
            Path(path).unlink(missing_ok=True)
            total -= size
        return total

    def _total(self, lock: int) -> int | None:
        """The sum of sizes as noted, None if it has to be found out."""
        text = os.pread(lock, 20, 0)
        return int(text) if len(text) == 20 and text.strip().isdigit() else None

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """The lock file, held. TimeoutError: another process does not let go of it."""
        lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            until = time.monotonic() + _LOCK_S
            while True:
                try:
                    self._flock(lock, self._lock_kind)
                    break
                except BlockingIOError:
                    if time.monotonic() > until:
                        raise TimeoutError(f"another process holds {self._folder / 'lock'}") from None
                    time.sleep(0.005)
            yield lock
        finally:
            os.close(lock)

    def _path(self, key: str) -> Path:
        name = xxhash.xxh3_128_hexdigest(key.encode())
        return self._folder / name[:2] / f"{name[2:]}{_SUFFIX}"


def _digest(key: str, content: bytes | memoryview) -> bytes:
    """The key too, so that a file under another's name is not taken for it."""
    digest = xxhash.xxh3_128(key.encode())
    digest.update(content)
    return digest.digest()
