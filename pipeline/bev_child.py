"""Draws pictures in a process of its own, because a driver can crash or hang (asked by `bev_process.py`).

    python -m pipeline.bev_child gpu|mesa|osmesa|raycast

Requests come on stdin, answers go to stdout; the end of stdin ends it, so it does not outlive who started it.
A message is the length of its JSON header (4 bytes, little-endian), the header, and the bytes of the arrays
that the header lists. Imports are late and few: the process is started anew now and then.
"""

from __future__ import annotations

import functools
import json
import math
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
LENGTH_BYTES = 4
MAX_SAID = 400
"""Characters of an error that are told."""


def main(argv: list[str] | None = None) -> int:
    """Answer requests until stdin ends."""
    (way,) = sys.argv[1:] if argv is None else argv
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # drivers print; their words must not get among the answers
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who asks; the end of stdin follows
    render, describe = renderer(way)
    return serve(sys.stdin.buffer.read, answers, render, describe)


def renderer(way: str) -> tuple[Callable[..., tuple[Array, Array]], Callable[[], str]]:
    """(render(vertices, faces, colors, size), what draws in words) of a way of drawing."""
    if way == "raycast":
        from pipeline import bev_raycast

        return bev_raycast.render, lambda: "Open3D"
    from pipeline import bev_pyrender

    return functools.partial(bev_pyrender.render, way), functools.partial(bev_pyrender.describe, way)


def serve(read: Callable[[int], bytes], answers: Any, render: Any, describe: Callable[[], str]) -> int:
    """Answer requests until `read` gives no more; exit status 1 if nobody takes the answers."""
    while True:
        try:
            header, arrays = unpack(read)
        except EOFError:
            return 0
        # The alarm ends the process, even inside a driver that hangs and with nobody left to kill it.
        signal.alarm(math.ceil(header["alarm_s"]))
        try:
            picture = render(*arrays, header["size"])
            answer = pack({"error": "", "by": describe()}, picture)
        except Exception as error:  # drivers and their bindings raise anything
            answer = pack({"error": said(error), "by": ""}, ())
        signal.alarm(0)
        try:
            for part in answer:
                answers.write(part)
            answers.flush()
        except BrokenPipeError:
            return 1


def said(error: BaseException) -> str:
    """An error in one line; PyOpenGL's are written over many."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:MAX_SAID].removesuffix(":")


def pack(header: dict[str, Any], arrays: tuple[Array, ...]) -> list[bytes | memoryview]:
    """The parts of a message."""
    arrays = tuple(np.ascontiguousarray(array) for array in arrays)
    listed = [[array.dtype.str, array.shape] for array in arrays]
    text = json.dumps({**header, "arrays": listed}).encode()
    return [
        len(text).to_bytes(LENGTH_BYTES, "little"),
        text,
        *(a.reshape(-1).view(np.uint8).data for a in arrays),
    ]


def unpack(read: Callable[[int], bytes | bytearray]) -> tuple[dict[str, Any], list[Array]]:
    """The next message; `read(n)` gives n bytes, fewer only at the end. EOFError: none, or half of one."""

    def exactly(count: int) -> bytes | bytearray:
        data = read(count)
        if len(data) < count:
            raise EOFError(f"got {len(data)} bytes, expected {count}")
        return data

    header = json.loads(exactly(int.from_bytes(exactly(LENGTH_BYTES), "little")))
    arrays = []
    for name, shape in header.pop("arrays"):
        dtype = np.dtype(name)
        arrays.append(np.frombuffer(exactly(dtype.itemsize * math.prod(shape)), dtype).reshape(shape))
    return header, arrays


if __name__ == "__main__":
    sys.exit(main())
