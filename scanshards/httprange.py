"""Files on web servers by ranges. A server is not trusted, and redirects stay on the web."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urljoin, urlsplit

from scanshards.httpget import Answer, get
from scanshards.remote import Patience, RemoteError, RemoteOptions, Transient, persist

_CHUNK_BYTES = 1 << 20
_MAX_REDIRECTS = 5
_DRAINED_BYTES = 1 << 16
_REDIRECTS = (301, 302, 303, 307, 308)
_PASSING = (408, 425, 429, 500, 502, 503, 504)
_REFUSED = (401, 403, 407)
_GONE = (404, 410)
_PARTIAL = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})", re.ASCII)
_SECONDS = re.compile(r"\d{1,6}", re.ASCII)
_UNSATISFIED = re.compile(r"bytes \*/(\d{1,18})", re.ASCII)


class HttpFile:
    """A file on a web server. Its size comes with the first range, so it costs no request of its own."""

    def __init__(self, url: str, options: RemoteOptions) -> None:
        if "@" in urlsplit(url).netloc:
            hint = 'RemoteOptions(headers={"Authorization": ...})'
            raise ValueError(f"got a URL with a name or password in it; give them as {hint}")
        self.url = url
        self._options = options
        self._num_bytes: int | None = None
        self._validator = ""
        self._target = url  # where redirects led to: each costs a round trip

    @property
    def num_bytes(self) -> int:
        if self._num_bytes is None:
            self.read(0, 1)
        assert self._num_bytes is not None  # every answer to a range says it
        return self._num_bytes

    def identity(self) -> str:
        return f"{self.url} {self.num_bytes} {self._validator}" if self._validator else ""

    def read(self, offset: int, num_bytes: int) -> memoryview:
        """The bytes from `offset`, fewer only if the file ends before. A broken answer is gone on with."""
        data, done = bytearray(num_bytes), 0

        def attempt(patience: Patience) -> memoryview:
            nonlocal done
            start, stop = offset + done, offset + num_bytes
            with self._answer({"Range": f"bytes={start}-{stop - 1}"}, patience) as answer:
                length = self._range_length(answer, start, stop)
                while length and (chunk := answer.next(_CHUNK_BYTES)):
                    data[done : done + len(chunk)] = chunk
                    done += len(chunk)
                    patience.progress(len(chunk))
            return memoryview(data)[:done]

        return persist(self.url, self._options, attempt)

    def read_all(self, max_bytes: int) -> bytes:
        """The whole file by one request without a range. RemoteError: it is larger than `max_bytes`."""
        most = 0

        def attempt(patience: Patience) -> bytes:
            nonlocal most
            data = bytearray()
            with self._answer({}, patience) as answer:
                if answer.status != 200:
                    raise self._unexpected(answer, "200")
                while chunk := answer.next(_CHUNK_BYTES):
                    data += chunk
                    patience.progress(max(0, len(data) - most))
                    most = max(most, len(data))
                    if most > max_bytes:
                        raise RemoteError(f"{self.url}: more than {max_bytes} bytes, expected at most that")
            return bytes(data)

        return persist(self.url, self._options, attempt)

    def _range_length(self, answer: Answer, start: int, stop: int) -> int:
        """Length of the answer's range, checked against what was asked for; 0 if the file ends before."""
        content_range = answer.header("Content-Range")
        if answer.status == 200 and answer.length != 0:
            raise RemoteError(
                f"{self.url}: the server ignores byte ranges (answers 200, expected 206), so every sample "
                "would cost the whole shard; use a server with ranges (nginx, S3), or copy the shards here"
            )
        if answer.status in (200, 416):  # an empty file, or one that ends before `start`
            match = _UNSATISFIED.fullmatch(content_range if answer.status == 416 else "bytes */0")
            if match is None or int(match[1]) > start:
                raise self._unexpected(answer, "206")
            self._note(answer, int(match[1]))
            return 0
        match = _PARTIAL.fullmatch(content_range)
        if answer.status != 206 or match is None:
            raise self._unexpected(answer, "206 with a Content-Range")
        first, last, total = (int(number) for number in match.groups())
        if first != start or last != min(stop, total) - 1 or answer.length != last - first + 1:
            got = f"Content-Range {content_range!r} and Content-Length {answer.length}"
            raise Transient(f"asked for bytes {start} to {stop - 1}, got {got}")
        self._note(answer, total)
        return last - first + 1

    def _note(self, answer: Answer, num_bytes: int) -> None:
        if self._num_bytes not in (None, num_bytes):
            what = f"has {num_bytes} bytes now, had {self._num_bytes} before"
            raise RemoteError(f"{self.url}: {what}: it was replaced while being read, open it again")
        self._num_bytes = num_bytes
        self._validator = answer.header("ETag") or answer.header("Last-Modified")

    @contextmanager
    def _answer(self, headers: dict[str, str], patience: Patience) -> Iterator[Answer]:
        """The answer of the server to which redirects lead, if its status is none of failure."""
        url = self._target
        for _ in range(_MAX_REDIRECTS + 1):
            with get(url, headers | self._own_headers(url), patience) as answer:
                if answer.status not in _REDIRECTS:
                    self._check_status(answer, url)
                    self._target = url
                    yield answer
                    return
                url = self._redirected(url, answer.header("Location"))
                if answer.length is not None and answer.length <= _DRAINED_BYTES:
                    while answer.next(_DRAINED_BYTES):  # so that the connection can be used again
                        pass
        raise RemoteError(f"{self.url}: more than {_MAX_REDIRECTS} redirects, the last one to {url}")

    def _redirected(self, url: str, location: str) -> str:
        """Where a redirect leads: http or https, and never from https to http."""
        try:
            to = urljoin(url, location)
            parts = urlsplit(to)
        except ValueError as error:
            raise RemoteError(f"{self.url}: redirects to {location[:200]!r}: {error}") from error
        is_downgrade = urlsplit(url).scheme == "https" and parts.scheme != "https"
        if not location or parts.scheme not in ("http", "https") or is_downgrade or "@" in parts.netloc:
            expected = "an address on the web that is no less secure"
            raise RemoteError(f"{self.url}: redirects to {location[:200]!r}, expected {expected}")
        return to

    def _own_headers(self, url: str) -> dict[str, str]:
        """The user's headers, credentials among them: only for the host that the user named."""
        is_same = urlsplit(url)[:2] == urlsplit(self.url)[:2]
        return {"User-Agent": "scanshards"} | (self._options.headers if is_same else {})

    def _check_status(self, answer: Answer, url: str) -> None:
        status = f"{answer.status} {answer.reason}"
        if url != self.url and url == self._target and answer.status in (*_REFUSED, *_GONE):
            self._target = self.url  # a redirect that has run out, as signed addresses do
            raise Transient(f"{status} at {url}, where redirects led before")
        if answer.status in _GONE:
            raise FileNotFoundError(f"{self.url}: the server answers {status}, check the URL")
        if answer.status in _REFUSED:
            hint = 'check the URL, or give RemoteOptions(headers={"Authorization": ...})'
            raise PermissionError(f"{self.url}: the server answers {status}; {hint}")
        if answer.status in _PASSING:
            wait = answer.header("Retry-After")
            raise Transient(f"the server answers {status}", int(wait) if _SECONDS.fullmatch(wait) else 0)
        encoding = answer.header("Content-Encoding") or "identity"
        if encoding != "identity":
            raise RemoteError(f"{self.url}: sent as {encoding[:20]!r}, expected the bytes as they are stored")

    def _unexpected(self, answer: Answer, expected: str) -> RemoteError:
        got = f"{answer.status} {answer.reason}, Content-Range {answer.header('Content-Range')[:60]!r}"
        return RemoteError(f"{self.url}: the server answers {got}; expected {expected}")
