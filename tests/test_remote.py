"""Remote shards: the same clips over http with range requests and over fsspec's other file systems."""

from __future__ import annotations

import http.server
import re
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import fsspec
import pytest

import scanshards
from tests.make_shards import make_release


class RangeHandler(http.server.BaseHTTPRequestHandler):
    """Serves files of `folder` and honours Range; lists no folders, as most servers."""

    folder = Path()
    ranges: list[tuple[str, int]] = []

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        path = self.folder / self.path.lstrip("/")
        if not path.is_file():
            self.send_error(404)
            return
        data = path.read_bytes()
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        start, end = (int(asked[1]), int(asked[2]) + 1) if asked else (0, len(data))
        part = data[start:end]
        if body:
            self.ranges.append((path.name, len(part)))
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Accept-Ranges", "bytes")
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
        self.end_headers()
        if body:
            self.wfile.write(part)

    def log_message(self, *args):
        """Quiet."""


@dataclass
class Server:
    url: str
    ranges: list[tuple[str, int]]
    """Name and length of every part that was sent."""


@pytest.fixture(scope="module")
def release(tmp_path_factory) -> Path:
    return make_release(tmp_path_factory.mktemp("release"))


@pytest.fixture
def server(release) -> Iterator[Server]:
    pytest.importorskip("aiohttp")
    handler = type("Handler", (RangeHandler,), {"folder": release, "ranges": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield Server(f"http://127.0.0.1:{running.server_port}", handler.ranges)
        running.shutdown()


def test_http_globs_go_by_the_index_and_samples_by_ranges(server, release):
    clips = list(scanshards.open(f"{server.url}/scannet-*.tar"))
    local = list(scanshards.open(release / "scannet-*.tar"))
    assert [clip.key for clip in clips] == [clip.key for clip in local]
    for clip, same in zip(clips, local, strict=True):
        assert clip.texts == same.texts
        assert (clip.depth == same.depth).all()
    sizes = [size for name, size in server.ranges if name.endswith(".tar")]
    whole = (release / "scannet-000000.tar").stat().st_size
    assert max(sizes) < whole


def test_http_finds_the_index_above_a_held_out_shard(server):
    (clip,) = scanshards.open(f"{server.url}/val/scannet-{{000000..000000}}.tar")
    assert clip.split == "val"


def test_http_streams_in_the_same_order_as_local(server, release):
    remote = [clip.key for clip in scanshards.stream(f"{server.url}/scannet-*.tar", seed=3)]
    assert remote == [clip.key for clip in scanshards.stream(release / "scannet-*.tar", seed=3)]


def test_missing_remote_shards_are_errors(server):
    with pytest.raises(FileNotFoundError, match="no file matches"):
        scanshards.open(f"{server.url}/other-*.tar")
    with pytest.raises(scanshards.CorruptSample, match="not listed as nowhere/scannet-000000.tar"):
        scanshards.open(f"{server.url}/nowhere/scannet-000000.tar")


def test_damage_on_a_remote_file_system_is_found(release, tmp_path):
    copied = Path(shutil.copytree(release, tmp_path / "shards"))
    path = copied / "scannet-000000.tar"
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)
    memory = fsspec.filesystem("memory")
    memory.put(str(copied), "/damaged", recursive=True)
    with pytest.raises(scanshards.CorruptSample, match=r"memory://.*000000.tar, sample scene0000_00-00"):
        list(scanshards.open("memory://damaged/scannet-*.tar"))


def test_other_file_systems_work_without_an_index(release):
    memory = fsspec.filesystem("memory")
    for path in release.glob("*.tar"):
        memory.put(str(path), f"/bare/{path.name}")
    clips = list(scanshards.open("memory://bare/scannet-*.tar"))
    assert [clip.key for clip in clips] == [f"scene{i:04d}_00-00" for i in range(3)]
    assert clips[2].latents.shape == (32, 2, 16, 27, 27)
