"""Pictures are drawn by another process: what happens to it harms no one else, and it outlives no one."""

import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pipeline import bev_child, bev_process
from pipeline.bev_golden import difference, golden_picture
from pipeline.bev_process import Child, ChildFailed
from pipeline.bev_renderer import WAYS, Drawer
from pipeline.errors import ScanError
from pipeline.mesh import Mesh

TIMEOUT_S = 20.0
FAKE = """
import os, signal, sys, time
import numpy as np
from pipeline import bev_child

way, golden = {way!r}, np.load({golden!r})
def render(vertices, faces, colors, size):
    os.write(1, b"a driver prints to stdout\\n")
    global golden
    if size == 432:
        {golden_body}
        return golden["rgb"], golden["heights"]
    {body}
    return np.full((size, size, 3), len(faces) % 256, np.uint8), np.full((size, size), size, np.float32)

bev_child.renderer = lambda way: (render, lambda: "fake " + way)
sys.exit(bev_child.main([way]))
"""


def mesh(num_faces=1):
    return Mesh(np.zeros((3, 3), np.float32), np.zeros((num_faces, 3), np.int32), np.zeros((3, 3), np.uint8))


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """Drivers that do `golden_body` and draw the golden picture, and do `body` before any other."""
    golden = str(tmp_path / "golden.npz")
    rgb, heights = golden_picture()
    np.savez(golden, rgb=rgb, heights=heights)

    def use(body="pass", golden_body="pass"):
        def command(way):
            text = FAKE.format(golden=golden, body=body, golden_body=golden_body, way=way)
            return [sys.executable, "-c", text]

        monkeypatch.setattr(bev_process, "command", command)

    return use


@pytest.fixture
def drawers():
    """Makes drawers that are closed at the end."""
    made = []

    def make(mode="auto", recycle_after=0, timeout_s=TIMEOUT_S):
        made.append(Drawer(mode, recycle_after, timeout_s))
        return made[-1]

    yield make
    for drawer in made:
        drawer.close()


def gone(pid, within_s=5.0):
    """Whether a process ends (a zombie has ended)."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


# --- messages


@given(
    st.lists(
        arrays.arrays(st.sampled_from(["<f4", "<i4", "|u1"]), arrays.array_shapes(min_side=0)), max_size=4
    )
)
def test_messages_come_back_as_they_were(sent):
    data = b"".join(bytes(part) for part in bev_child.pack({"size": 3}, tuple(sent)))
    at = 0

    def read(count):
        nonlocal at
        at += count
        return data[at - count : at]

    header, got = bev_child.unpack(read)
    assert header == {"size": 3} and at == len(data)
    assert [(a.dtype, a.shape, a.tobytes()) for a in got] == [(a.dtype, a.shape, a.tobytes()) for a in sent]
    with pytest.raises(EOFError):
        bev_child.unpack(read)
    data, at = data[:-1], 0
    with pytest.raises(EOFError):
        bev_child.unpack(read)


def test_drivers_get_no_display_one_thread_and_the_platform_of_their_way(monkeypatch):
    monkeypatch.setenv("DISPLAY", "nowhere:7")
    monkeypatch.setenv("PYOPENGL_PLATFORM", "glx")
    monkeypatch.delenv("LP_NUM_THREADS", raising=False)
    found = {way: bev_process.environment(way) for way in WAYS}
    assert [found[way]["PYOPENGL_PLATFORM"] for way in WAYS] == ["egl", "egl", "osmesa"]
    assert all("DISPLAY" not in env and env["LP_NUM_THREADS"] == "1" for env in found.values())
    monkeypatch.setenv("LP_NUM_THREADS", "4")
    assert bev_process.environment("mesa")["LP_NUM_THREADS"] == "4"


# --- crashes, hangs, errors


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "the drawing process was ended by SIGSEGV"),
        ("sys.stderr.write('libX: gone\\n'); os._exit(3)", "stdout; libX: gone)"),
        ("raise RuntimeError('no\\n memory')", "RuntimeError: no memory"),
        ("time.sleep(60)", "no picture within 4 s"),
    ],
)
def test_a_scan_that_fails_twice_is_set_aside_and_the_next_is_drawn(fake, drawers, caplog, body, told):
    fake(f"if len(faces) == 13: {body}")
    drawer = drawers(timeout_s=4.0)
    with pytest.raises(ScanError) as error:
        drawer.draw(mesh(13), 8)
    assert str(error.value).startswith(
        "bev: OpenGL failed 2 times on a mesh of 13 faces, expected a picture: "
    )
    assert told in str(error.value) and str(error.value).endswith("; use bev.renderer=raycast")
    assert caplog.text.count(told) == 2
    (image, heights), name = drawer.draw(mesh(5), 8)
    assert (image == 5).all() and (heights == 8).all() and name == "pyrender"


def test_a_picture_that_failed_once_is_drawn_by_a_fresh_process(fake, drawers, tmp_path, caplog):
    mark = str(tmp_path / "failed")
    fake(f"if not os.path.exists({mark!r}): open({mark!r}, 'w'); os.kill(os.getpid(), signal.SIGABRT)")
    (image, _), _ = drawers().draw(mesh(7), 8)
    assert (image == 7).all()
    assert caplog.text.count("a picture failed, its drawing process is replaced") == 1


def test_the_process_is_kept_and_replaced_after_so_many_pictures(fake, drawers):
    fake()
    drawer, pids = drawers(recycle_after=3), []
    for _ in range(8):
        drawer.draw(mesh(), 8)
        pids.append(drawer._child.pid)
    assert [pids.index(pid) for pid in pids] == [0, 0, 0, 3, 3, 3, 6, 6]
    assert all(gone(pid) for pid in set(pids[:6]))
    keeping, first = drawers(recycle_after=0), set()
    for _ in range(8):
        keeping.draw(mesh(), 8)
        first.add(keeping._child.pid)
    assert len(first) == 1


def test_threads_that_ask_at_once_get_each_their_own_picture(fake, drawers):
    fake()
    drawer, wrong = drawers(recycle_after=5), []

    def ask(number):
        for _ in range(4):
            (image, _), _ = drawer.draw(mesh(number), 64)
            if not (image == number).all():
                wrong.append(number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# --- the choice of a way


def test_the_first_way_that_draws_the_golden_picture_right_is_used(fake, drawers, caplog):
    caplog.set_level(logging.INFO)
    fake(golden_body="if way == 'gpu': golden = {name: golden[name][::-1] for name in golden}")
    drawer = drawers()
    for _ in range(2):
        drawer.draw(mesh(), 8)
    assert drawer._child.way == "mesa"
    assert caplog.messages == ["bev: drawing with pyrender on fake mesa"]
    (problem,) = drawer._problems
    assert re.fullmatch(r"gpu: golden picture: \d+ pixels covered wrongly, drawn by fake gpu", problem)


def test_where_no_way_draws_auto_casts_rays_and_says_why_and_pyrender_is_an_error(
    monkeypatch, drawers, caplog
):
    code = "import sys; sys.stderr.write('libEGL warning: no ' + {!r}); sys.exit(1)"
    monkeypatch.setattr(bev_process, "command", lambda way: [sys.executable, "-c", code.format(way)])
    auto = drawers()
    golden = bev_process.to_pixels(bev_process.facing_up(bev_process.golden_mesh()), bev_process.FRAME)
    for _ in range(2):
        picture, name = auto.draw(golden, bev_process.BEV_SIZE)
        assert difference(*picture) == "" and name == "raycast"
    (record,) = [r for r in caplog.records if r.levelname == "WARNING"]
    assert record.getMessage().startswith(
        "bev: drawing by ray casting, because OpenGL does not work here: gpu: the drawing process ended with "
        "exit status 1 (it wrote: libEGL warning: no gpu); mesa: "
    )
    with pytest.raises(
        ValueError, match=r"^bev.renderer=pyrender: gpu: .*; mesa: .*; osmesa: .*pipeline.doctor`"
    ):
        drawers("pyrender").draw(golden, bev_process.BEV_SIZE)


def test_ray_casting_starts_no_process(monkeypatch, drawers):
    monkeypatch.setattr(bev_process, "command", None)
    golden = bev_process.to_pixels(bev_process.facing_up(bev_process.golden_mesh()), bev_process.FRAME)
    picture, name = drawers("raycast").draw(golden, bev_process.BEV_SIZE)
    assert difference(*picture) == "" and name == "raycast"


def test_a_machine_whose_drivers_go_away_goes_on_by_ray_casting(fake, drawers, monkeypatch):
    fake("os._exit(1)")
    drawer = drawers()
    with pytest.raises(ScanError):
        drawer.draw(mesh(), 8)
    monkeypatch.setattr(bev_process, "command", lambda way: [sys.executable, "-c", "raise SystemExit(1)"])
    golden = bev_process.to_pixels(bev_process.facing_up(bev_process.golden_mesh()), bev_process.FRAME)
    _, name = drawer.draw(golden, bev_process.BEV_SIZE)
    assert name == "raycast"


# --- nothing is left


WORKER = """
import os, sys, time
from pipeline.bev_process import Child
child = Child("raycast", 60)
print(child.pid, flush=True)
{body}
"""


@pytest.mark.parametrize("body", ["time.sleep(60)", "sys.exit(0)", "os._exit(1)", "raise KeyboardInterrupt"])
def test_the_process_ends_with_the_worker_whatever_ends_that(body):
    with subprocess.Popen(
        [sys.executable, "-c", WORKER.format(body=body)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as worker:
        pid = int(worker.stdout.readline())
        assert not gone(pid, 0.0)
        if "sleep" in body:
            worker.send_signal(signal.SIGKILL)
        worker.wait(20)
    assert gone(pid)


def test_a_process_that_hangs_with_nobody_left_ends_by_its_alarm(fake, tmp_path):
    fake("time.sleep(60)")
    alone = subprocess.Popen(bev_process.command("mesa"), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    for part in bev_child.pack({"size": 8, "alarm_s": 0.3}, (mesh().vertices, mesh().faces, mesh().colors)):
        alone.stdin.write(part)
    alone.stdin.flush()
    assert alone.wait(10) == -signal.SIGALRM
    alone.stdin.close()
    alone.stdout.close()


def test_closing_ends_a_process_that_hangs_and_frees_its_pipes(fake):
    fake("time.sleep(60)")
    before = len(os.listdir("/proc/self/fd"))
    child = Child("mesa", 0.5)
    with pytest.raises(ChildFailed, match="no picture within 0.5 s"):
        child.draw(mesh(), 8)
    child.close()
    assert gone(child.pid)
    assert len(os.listdir("/proc/self/fd")) == before
