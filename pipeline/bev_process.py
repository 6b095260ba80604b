"""A child process that draws: asked over pipes, given up after a time, gone with the process that asks."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline import bev_child
from pipeline.bev_frame import facing_up, to_pixels
from pipeline.bev_golden import FRAME, golden_mesh
from pipeline.mesh import Mesh
from scanshards.schema import BEV_SIZE

Picture = tuple[NDArray[np.uint8], NDArray[np.float32]]
"""Colours (size, size, 3) and heights in metres (size, size) of the highest surface at each pixel's centre;
black and NaN where there is none. Vertex colours, no light, one sample per pixel."""

ROOT = Path(__file__).resolve().parents[1]
ENDING_S = 5.0
"""A process that was killed is waited for so long; one that hangs in the kernel stays."""
ALARM_EXTRA_S = 5.0
"""The child ends itself so long after it should have been killed, if nobody is left to do so."""
CHUNK = 1 << 20
MAX_LINES, MAX_WORDS = 3, 400
"""So many lines and characters of what a driver wrote are told."""


class ChildFailed(RuntimeError):
    """No picture came. The message says what happened, with the last words of the driver."""


class Child:
    """One drawing process. `draw` starts it at the first picture, contexts included; `close` ends it."""

    def __init__(self, way: str, timeout_s: float) -> None:
        self.way, self.timeout_s = way, timeout_s
        self.num_pictures = 0
        self.by = ""
        """What drew the last picture: vendor, renderer and version of the driver."""
        self._errors = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            command(way),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=ROOT,
            env=environment(way),
            bufsize=0,
        )
        self._requests, self._answers = self._process.stdin.fileno(), self._process.stdout.fileno()
        for pipe in (self._requests, self._answers):
            os.set_blocking(pipe, False)

    @property
    def pid(self) -> int:
        return self._process.pid

    def draw(self, mesh: Mesh, size: int) -> Picture:
        """The picture of a mesh with vertices (column, row, height in metres). ChildFailed; close it then."""
        deadline = time.monotonic() + self.timeout_s
        header = {"size": size, "alarm_s": self.timeout_s + ALARM_EXTRA_S}
        try:
            for part in bev_child.pack(header, (mesh.vertices, mesh.faces, mesh.colors)):
                self._write(memoryview(part), deadline)
            answer, arrays = bev_child.unpack(lambda count: self._read(count, deadline))
        except TimeoutError:
            raise ChildFailed(f"no picture within {self.timeout_s:g} s{self._last_words()}") from None
        except (EOFError, BrokenPipeError):
            raise ChildFailed(self._ending()) from None
        if answer["error"]:
            raise ChildFailed(answer["error"] + self._last_words())
        self.num_pictures += 1
        self.by = answer["by"]
        return tuple(arrays)

    def draw_golden(self) -> Picture:
        """The scene whose picture is known (`bev_golden.difference` judges it). ChildFailed."""
        return self.draw(to_pixels(facing_up(golden_mesh()), FRAME), BEV_SIZE)

    def close(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            pipe.close()
        try:
            self._process.wait(ENDING_S)
        except subprocess.TimeoutExpired:
            pass  # stuck in the kernel, which ends it when it lets go

    def _write(self, data: memoryview, deadline: float) -> None:
        while len(data):
            _wait(self._requests, select.POLLOUT, deadline)
            data = data[os.write(self._requests, data[:CHUNK]) :]

    def _read(self, count: int, deadline: float) -> bytearray:
        data = bytearray(count)
        got = 0
        while got < count:
            _wait(self._answers, select.POLLIN, deadline)
            piece = os.read(self._answers, min(count - got, CHUNK))
            if not piece:
                return data[:got]
            data[got : got + len(piece)] = piece
            got += len(piece)
        return data

    def _ending(self) -> str:
        """How the process ended, in words."""
        try:
            code = self._process.wait(ENDING_S)
        except subprocess.TimeoutExpired:
            return f"the drawing process closed its pipes{self._last_words()}"
        if code < 0:
            return f"the drawing process was ended by {signal.Signals(-code).name}{self._last_words()}"
        return f"the drawing process ended with exit status {code}{self._last_words()}"

    def _last_words(self) -> str:
        """The last lines that the process wrote to stderr, in brackets."""
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - CHUNK))
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return f" (it wrote: {'; '.join(map(str.strip, lines[-MAX_LINES:]))[-MAX_WORDS:]})" if lines else ""


def command(way: str) -> list[str]:
    return [sys.executable, "-m", bev_child.__name__, way]


def environment(way: str) -> dict[str, str]:
    """The child's environment."""
    # Without a display set, no driver tries to reach an X server that is not there or not ours.
    kept = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    # Mesa's threads would fight over the cores with the other worker processes.
    threads = kept.get("LP_NUM_THREADS", "1")
    return {**kept, "PYOPENGL_PLATFORM": "osmesa" if way == "osmesa" else "egl", "LP_NUM_THREADS": threads}


def _wait(pipe: int, event: int, deadline: float) -> None:
    """Until a pipe can be used, or its other end is gone. TimeoutError."""
    poll = select.poll()
    poll.register(pipe, event)
    if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        raise TimeoutError
