"""Which way of drawing is used here, and what happens when it fails.

The ways are tried in the order of `WAYS`; the first that draws the golden picture right is used until it
fails to. OpenGL draws in a child process, one per process of ours, replaced after a number of pictures and
when it fails.
"""

from __future__ import annotations

import atexit
import functools
import logging
import threading
from typing import Literal

from pipeline import bev_pyrender, bev_raycast
from pipeline.bev_golden import difference
from pipeline.bev_process import Child, ChildFailed, Picture
from pipeline.config import BevConfig
from pipeline.errors import ScanError
from pipeline.mesh import Mesh

log = logging.getLogger(__name__)

WAYS = ("gpu", "mesa", "osmesa")
"""OpenGL by EGL on a GPU, by EGL in Mesa's software, by OSMesa; ray casting comes after them."""
TRIES = 2
"""A picture that failed is drawn once more by a fresh process."""


class Drawer:
    """Draws pictures; any number of threads may ask."""

    def __init__(
        self, mode: Literal["auto", "pyrender", "raycast"], recycle_after: int, timeout_s: float
    ) -> None:
        self._mode, self._recycle_after, self._timeout_s = mode, recycle_after, timeout_s
        self._ways = list(WAYS) if mode != "raycast" else []
        self._problems: list[str] = []
        self._child: Child | None = None
        self._lock = threading.Lock()

    def draw(self, mesh: Mesh, size: int) -> tuple[Picture, str]:
        """(picture, name of what drew it) of a mesh with vertices (column, row, height in metres).

        ScanError: OpenGL draws the golden picture, but not this one. ValueError: it does not draw at all, and
        the mode is `pyrender`.
        """
        with self._lock:
            for _ in range(TRIES):
                child = self._proven_child()
                if child is None:
                    return bev_raycast.render(mesh.vertices, mesh.faces, mesh.colors, size), bev_raycast.NAME
                try:
                    return child.draw(mesh, size), bev_pyrender.NAME
                except ChildFailed as error:
                    failure = error
                    log.warning("bev: a picture failed, its drawing process is replaced: %s", error)
                    self.close()
        raise ScanError(
            f"bev: OpenGL failed {TRIES} times on a mesh of {len(mesh.faces)} faces, expected a picture: "
            f"{failure}; use bev.renderer=raycast"
        )

    def close(self) -> None:
        """End the child process; the next picture starts another."""
        if self._child is not None:
            self._child.close()
            self._child = None

    def _proven_child(self) -> Child | None:
        """A child process that has drawn the golden picture right; None: rays are to be cast."""
        # One of its pictures is the golden one.
        if self._child is not None and 0 < self._recycle_after < self._child.num_pictures:
            self.close()
        while self._child is None and self._ways:
            try:
                self._child = prove(self._ways[0], self._timeout_s)
            except ChildFailed as error:
                self._give_up_way(f"{self._ways[0]}: {error}")
            else:
                log.info("bev: drawing with pyrender on %s", self._child.by)
        if self._child is None and self._mode == "pyrender":
            raise ValueError(
                f"bev.renderer=pyrender: {'; '.join(self._problems)}; run `python -m pipeline.doctor`, or "
                "use bev.renderer=auto"
            )
        return self._child

    def _give_up_way(self, problem: str) -> None:
        self._problems.append(problem)
        del self._ways[0]
        if not self._ways and self._mode == "auto":
            log.warning(
                "bev: drawing by ray casting, because OpenGL does not work here: %s",
                "; ".join(self._problems),
            )


def prove(way: str, timeout_s: float) -> Child:
    """A child process that has drawn the golden picture right. ChildFailed: it cannot."""
    child = Child(way, timeout_s)
    try:
        problem = difference(*child.draw_golden())
        if problem:
            raise ChildFailed(f"{problem}, drawn by {child.by}")
    except BaseException:
        child.close()
        raise
    return child


def drawer(config: BevConfig) -> Drawer:
    """The drawer of this process."""
    return _drawer(config.renderer, config.recycle_after, config.timeout_s)


@functools.cache
def _drawer(mode: Literal["auto", "pyrender", "raycast"], recycle_after: int, timeout_s: float) -> Drawer:
    made = Drawer(mode, recycle_after, timeout_s)
    atexit.register(made.close)
    return made
