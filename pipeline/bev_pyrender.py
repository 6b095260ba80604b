"""The view from above by pyrender in an EGL context (the only file that knows pyrender and OpenGL).

One context per process, made at first use and released at exit: making one costs more than a picture.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.mesh import Mesh

NAME = "pyrender"
NEAR = 0.5
"""Distance of the near plane in metres; the highest surface is at 1."""


class NoContext(RuntimeError):
    """No OpenGL context can be made here; the message is the loader's or the driver's own."""


def render(mesh: Mesh, size: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """See `bev.Render`: colours and heights at integer (column, row), the pixel centres. NoContext."""
    platform, renderer = _context(), _renderer(size)
    import pyrender

    # GL's axes: x right, y up, looking along -z. Units of a pixel, the origin in the middle of the picture.
    column, row, height = mesh.vertices.T
    top, bottom = float(height.max()), float(height.min())
    middle, far = (size - 1) / 2, top - bottom + 2.0
    positions = np.stack([column - middle, middle - row, height - (top + 1.0)], axis=1)
    primitive = pyrender.Primitive(positions, color_0=mesh.colors, indices=mesh.faces)
    camera = pyrender.OrthographicCamera(xmag=size / 2, ymag=size / 2, znear=NEAR, zfar=far)
    scene = pyrender.Scene(bg_color=(0.0, 0.0, 0.0, 1.0))
    scene.add_node(pyrender.Node(mesh=pyrender.Mesh([primitive])))
    scene.add_node(pyrender.Node(camera=camera))
    platform.make_current()
    rgb, distance = renderer.render(scene, pyrender.RenderFlags.FLAT | pyrender.RenderFlags.OFFSCREEN)
    covered = distance > 0
    heights = np.full(distance.shape, np.nan, np.float32)
    heights[covered] = top + 1.0 - _orthographic(distance[covered].astype(np.float64), far)
    return np.where(covered[..., None], rgb, np.uint8(0)), heights


def describe() -> str:
    """Vendor, renderer and version of the context. NoContext."""
    _context()
    from OpenGL.GL import GL_RENDERER, GL_VENDOR, GL_VERSION, glGetString

    return ", ".join(glGetString(name).decode() for name in (GL_VENDOR, GL_RENDERER, GL_VERSION))


def _orthographic(distance: NDArray[np.float64], far: float) -> NDArray[np.float64]:
    """pyrender turns depth into distance as if every camera had perspective; this takes it back, metres."""
    ndc = (far + NEAR - 2 * NEAR * far / distance) / (far - NEAR)
    return (ndc * (far - NEAR) + far + NEAR) / 2


@functools.cache
def _context() -> Any:
    """A current EGL context, of the first device that gives one: drivers list GPUs before software."""
    # The first is read when PyOpenGL is imported, the second when Mesa makes the context: its threads would
    # fight over the cores with the other worker processes.
    os.environ["PYOPENGL_PLATFORM"] = "egl"
    os.environ.setdefault("LP_NUM_THREADS", "1")
    failures = []
    for device in _devices():
        try:
            platform = device()
            platform.init_context()
        except Exception as error:  # loaders and drivers raise anything, AssertionError included
            failures.append(f"{type(error).__name__}: {error}".strip(": "))
        else:
            return platform
    raise NoContext("; ".join(dict.fromkeys(failures)) or "EGL lists no device")


def _devices() -> Iterator[Any]:
    """Constructors of a context's platform, one per EGL device. NoContext: EGL cannot be loaded."""
    try:
        from pyrender.platforms import egl
    except Exception as error:
        raise NoContext(f"EGL cannot be loaded ({type(error).__name__}: {error})") from None
    try:
        devices = egl.query_devices()
    except RuntimeError:  # an EGL without the extension that lists devices
        devices = [egl.EGLDevice()]
    for device in devices:
        yield functools.partial(egl.EGLPlatform, 1, 1, device=device)


@functools.cache
def _renderer(size: int) -> Any:
    """A renderer of size × size pixels with one sample per pixel."""
    import pyrender
    from OpenGL import GL

    renderer = pyrender.Renderer(size, size)
    # pyrender draws into buffers with four samples per pixel and averages them. That mixes edges with the
    # black background and takes other points than the pixel centres, so ray casting (and the mask) could not
    # agree with it. Giving the same buffers one sample makes the averaging a copy. They live as long as the
    # renderer keeps its size.
    renderer._configure_main_framebuffer()
    buffers = ((renderer._main_cb_ms, GL.GL_RGBA), (renderer._main_db_ms, GL.GL_DEPTH_COMPONENT24))
    for buffer, storage in buffers:
        GL.glBindRenderbuffer(GL.GL_RENDERBUFFER, buffer)
        GL.glRenderbufferStorage(GL.GL_RENDERBUFFER, storage, size, size)
    return renderer
