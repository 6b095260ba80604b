"""Remote shards: the same clips as local ones, from a real nginx, from s3 and from other file systems."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

import scanshards
from scanshards import schema
from scanshards.remote import RemoteError, RemoteOptions
from tests.make_shards import make_release
from tests.remote_servers import NGINX, Nginx, free_port, stored

HASTY = RemoteOptions(timeout_s=1.0, request_timeout_s=0.5)
BOTH = ("latents", "texts")


@pytest.fixture(scope="module")
def release(tmp_path_factory) -> Path:
    return make_release(tmp_path_factory.mktemp("release"))


@pytest.fixture(scope="module")
def running(release, tmp_path_factory) -> Iterator[Nginx]:
    if not os.path.exists(NGINX):
        pytest.skip(f"{NGINX} is not installed")
    nginx = Nginx(release, tmp_path_factory.mktemp("nginx"))
    nginx.start()
    yield nginx
    nginx.kill()


@pytest.fixture
def nginx(running) -> Nginx:
    running.forget()
    return running


def test_clips_over_http_equal_local_ones_byte_for_byte_at_one_request_each(nginx, release):
    remote = list(map(stored, scanshards.open(f"{nginx.url}/scannet-*.tar")))
    assert remote == list(map(stored, scanshards.open(release / "scannet-*.tar")))
    files = [line.split()[1] for line in nginx.asked()]
    assert files.count("/index.json") == 1
    assert files.count("/scannet-000000.tar") == 1 + 2  # its end, which says its length, and two clips
    assert files.count("/scannet-000001.tar") == 1 + 1
    assert all(line.split()[2] in ("200", "206") for line in nginx.asked())


def test_fields_fetch_only_their_ranges_at_two_requests_a_clip(nginx, release):
    clips = list(scanshards.open(f"{nginx.url}/scannet-000000.tar", fields=BOTH))
    for clip, same in zip(clips, scanshards.open(release / "scannet-000000.tar"), strict=True):
        assert clip.texts == same.texts
        assert clip.latents.tobytes() == same.latents.tobytes()
        with pytest.raises(ValueError, match="add its field"):
            clip.frame(0)
    spans = [line.split("bytes=")[1].split("-") for line in nginx.asked() if "bytes=" in line]
    assert len(spans) == 1 + 2 * 2
    wanted = sum(clip.member_bytes[f"{name}.npy"] for clip in clips for name in ("latents", "bev_latents"))
    assert sum(int(last) + 1 - int(first) for first, last in spans) < wanted + 50_000


@pytest.mark.parametrize("field", schema.FIELD_MEMBERS)
def test_every_field_alone_is_the_same_as_local(nginx, release, field):
    options = RemoteOptions(read_ahead=0)
    (clip,) = scanshards.open(f"{nginx.url}/val/scannet-000000.tar", fields=[field], remote=options)
    (same,) = scanshards.open(release / "val/scannet-000000.tar")
    assert stored(clip, [field]) == stored(same, [field])


def test_the_index_above_a_held_out_shard_is_found(nginx):
    (clip,) = scanshards.open(f"{nginx.url}/val/scannet-{{000000..000000}}.tar")
    assert clip.split == "val"


def test_streams_have_the_order_of_local_ones(nginx, release):
    remote = [clip.key for clip in scanshards.stream(f"{nginx.url}/scannet-*.tar", seed=3)]
    assert remote == [clip.key for clip in scanshards.stream(release / "scannet-*.tar", seed=3)]


def test_redirects_are_followed_once(nginx, release):
    clips = list(map(stored, scanshards.open(f"{nginx.url}/moved/scannet-000000.tar")))
    assert clips == list(map(stored, scanshards.open(release / "scannet-000000.tar")))
    moved = [line for line in nginx.asked() if line.split()[1].endswith("000000.tar") and " 302 " in line]
    assert len(moved) == 1


def test_missing_and_refused_files_are_errors_at_once_that_name_the_url(nginx):
    began = time.monotonic()
    with pytest.raises(FileNotFoundError, match="other-.*: no file matches"):
        scanshards.open(f"{nginx.url}/other-*.tar")
    with pytest.raises(scanshards.CorruptSample, match="not listed as nowhere/scannet-000000.tar"):
        scanshards.open(f"{nginx.url}/nowhere/scannet-000000.tar")
    with pytest.raises(FileNotFoundError, match=r"/a/b/x\.tar: the server answers 404 Not Found"):
        list(scanshards.open(f"{nginx.url}/a/b/x.tar"))
    with pytest.raises(FileNotFoundError, match=r"no index\.json there .* name them all"):
        scanshards.open(f"{nginx.url}/a/b/*.tar")
    with pytest.raises(FileNotFoundError, match=r'no such shard, .*training: "http.*/scannet-\*\.tar"'):
        scanshards.open(f"{nginx.url}/")
    with pytest.raises(PermissionError, match=r"/private/index\.json: the server answers 403"):
        scanshards.open(f"{nginx.url}/private/private/x.tar")
    assert time.monotonic() - began < 2


def test_escapes_in_a_url_reach_no_local_file(nginx, tmp_path):
    (tmp_path / "secret.tar").write_bytes(b"secret")
    for path in ("..%2f", "%2e%2e/", "../" * 9):
        with pytest.raises((OSError, ValueError)) as caught:
            list(scanshards.open(f"{nginx.url}/x/{path}{tmp_path}/secret.tar", remote=HASTY))
        assert "secret" not in str(caught.value).replace("secret.tar", "")


def test_a_listed_shard_that_is_shorter_is_found_before_its_first_clip(nginx, release):
    path = release / "scannet-000001.tar"
    whole = path.read_bytes()
    try:
        path.write_bytes(whole[:-512])
        with pytest.raises(
            scanshards.CorruptSample, match=f"has {len(whole) - 512} bytes, expected {len(whole)}"
        ):
            list(scanshards.open(f"{nginx.url}/scannet-000001.tar"))
        path.write_bytes(whole[:3000])
        with pytest.raises(scanshards.CorruptSample, match=f"has 3000 bytes, expected {len(whole)}"):
            list(scanshards.open(f"{nginx.url}/scannet-000001.tar"))
    finally:
        path.write_bytes(whole)


def test_without_an_index_samples_are_found_by_one_request_each(nginx, release):
    (release / "bare").mkdir(exist_ok=True)
    name = "bare/deep/scannet-000000.tar"
    (release / "bare/deep").mkdir(exist_ok=True)
    shutil.copy(release / "scannet-000000.tar", release / name)
    clips = scanshards.open(f"{nginx.url}/{name}")
    assert len(clips) == 2
    assert len([line for line in nginx.asked() if name in line]) == 3  # two samples and the end
    assert list(map(stored, clips)) == list(map(stored, scanshards.open(release / "scannet-000000.tar")))


def test_a_damaged_shard_without_an_index_is_found(nginx, release):
    (release / "cut/deep").mkdir(parents=True, exist_ok=True)
    whole = (release / "scannet-000000.tar").read_bytes()
    for damaged in (
        whole[:-512],
        whole[:-1024],
        whole[: len(whole) // 2],
        whole[:700],
        b"",
        whole + bytes(512),
    ):
        (release / "cut/deep/a.tar").write_bytes(damaged)
        with pytest.raises(scanshards.CorruptSample, match=r"cut/deep/a\.tar"):
            list(scanshards.open(f"{nginx.url}/cut/deep/a.tar"))


def test_a_server_killed_in_mid_answer_and_started_again_is_gone_on_with(nginx, release):
    local = list(map(stored, scanshards.open(release / "scannet-*.tar")))
    clips = []

    def restart() -> None:
        nginx.kill()
        time.sleep(0.4)
        nginx.start()

    reader = scanshards.open([f"{nginx.url}/slow/scannet-00000{i}.tar" for i in range(2)])
    killer = threading.Timer(0.6, restart)
    killer.start()
    for clip in reader:
        clips.append(stored(clip))
    killer.join()
    assert clips == local
    begun = {int(line.split("bytes=")[1].split("-")[0]) for line in nginx.asked() if "bytes=" in line}
    samples = {row["offset"] for shard in reader.shards for row in shard.entry["samples"]}
    ends = {shard.entry["bytes"] - 1024 for shard in reader.shards}
    assert begun - samples - ends, "no answer was gone on with in its middle"


def test_a_dead_server_is_an_error_after_the_stated_time():
    url = f"http://127.0.0.1:{free_port()}/x/scannet-*.tar"
    began = time.monotonic()
    with pytest.raises(
        RemoteError, match=rf"{url.rpartition('/')[0]}/index.json: given up after \d+ attempts in"
    ) as caught:
        scanshards.open(url, remote=HASTY)
    assert 0.3 < time.monotonic() - began < 2
    for part in ("Connection refused", "check that the server is up", "timeout_s=1"):
        assert part in str(caught.value)


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


@pytest.fixture(scope="module")
def bucket(release) -> Iterator[RemoteOptions]:
    """The release in an s3 bucket of a server on this machine: s3://lab/shards."""
    server_module = pytest.importorskip("moto.server")
    s3fs = pytest.importorskip("s3fs")
    server = server_module.ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    storage = {"key": "k", "secret": "s", "client_kwargs": {"endpoint_url": f"http://{host}:{port}"}}
    system = s3fs.S3FileSystem(**storage, skip_instance_cache=True)
    system.mkdir("lab")
    system.put(str(release), "lab/shards", recursive=True)
    yield RemoteOptions(storage_options=storage)
    server.stop()


def test_clips_from_s3_equal_local_ones_byte_for_byte(bucket, release):
    remote = list(map(stored, scanshards.open("s3://lab/shards/scannet-*.tar", remote=bucket)))
    assert remote == list(map(stored, scanshards.open(release / "scannet-*.tar")))


def test_fields_from_s3_equal_local_ones(bucket, release):
    clips = scanshards.open("s3://lab/shards/val/scannet-000000.tar", fields=BOTH, remote=bucket)
    (clip,), (same,) = clips, scanshards.open(release / "val/scannet-000000.tar")
    assert clip.texts == same.texts
    assert clip.latents.tobytes() == same.latents.tobytes()


def test_what_is_missing_in_s3_is_an_error_at_once(bucket):
    with pytest.raises(FileNotFoundError, match=r"s3://lab/shards/other-\*.tar: no file matches"):
        scanshards.open("s3://lab/shards/other-*.tar", remote=bucket)
    with pytest.raises(FileNotFoundError, match="s3://lab/a/b/x.tar: no such file"):
        list(scanshards.open("s3://lab/a/b/x.tar", remote=bucket))


def test_a_dead_s3_endpoint_is_an_error_after_the_stated_time():
    pytest.importorskip("s3fs")
    storage = {
        "key": "k",
        "secret": "s",
        "client_kwargs": {"endpoint_url": f"http://127.0.0.1:{free_port()}"},
    }
    options = RemoteOptions(timeout_s=1.0, request_timeout_s=0.6, storage_options=storage)
    began = time.monotonic()
    with pytest.raises(RemoteError, match=r"s3://lab/index.json: given up after \d+ attempts"):
        list(scanshards.open("s3://lab/x.tar", remote=options))
    assert time.monotonic() - began < 3
