"""The view from above by pyrender (the only file that knows pyrender and OpenGL).

Runs in the child process of `bev_child.py`, for one way of drawing: `PYOPENGL_PLATFORM` is read once, when
PyOpenGL is imported. The context is made at first use; making one costs more than a picture.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

NAME = "pyrender"
NEAR = 0.5
"""Distance of the near plane in metres; the highest surface is at 1."""
EGL_EXTENSIONS = 0x3055
MAX_DEVICES = 64
SOFTWARE = b"EGL_MESA_device_software"
"""EGL extension of devices that draw on the CPU."""
EGL_ERRORS = {
    0x3000 + i: f"EGL_{name}"
    for i, name in enumerate(
        "SUCCESS NOT_INITIALIZED BAD_ACCESS BAD_ALLOC BAD_ATTRIBUTE BAD_CONFIG BAD_CONTEXT "
        "BAD_CURRENT_SURFACE BAD_DISPLAY BAD_MATCH BAD_NATIVE_PIXMAP BAD_NATIVE_WINDOW BAD_PARAMETER "
        "BAD_SURFACE CONTEXT_LOST".split()
    )
}
"""EGL/egl.h."""
OPENGL = (4, 1)
"""The version that pyrender's EGL contexts ask for; its shaders are GLSL 3.30 and more."""


class NoContext(RuntimeError):
    """No OpenGL context can be made this way; the message is the loader's or the driver's own."""


def render(
    way: str, vertices: NDArray[np.float32], faces: NDArray[np.int32], colors: NDArray[np.uint8], size: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """`bev_process.Picture` of a mesh with vertices (column, row, height): pixel centres are whole numbers.

    NoContext; anything else that a driver or PyOpenGL raises.
    """
    platform, renderer = _context(way), _renderer(size)
    import pyrender

    # GL's axes: x right, y up, looking along -z. Units of a pixel, the origin in the middle of the picture.
    column, row, height = vertices.T
    top, bottom = float(height.max()), float(height.min())
    middle, far = (size - 1) / 2, top - bottom + 2.0
    positions = np.stack([column - middle, middle - row, height - (top + 1.0)], axis=1)
    primitive = pyrender.Primitive(positions, color_0=colors, indices=faces)
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


def describe(way: str) -> str:
    """Vendor, renderer and version of the context. NoContext."""
    _context(way)
    from OpenGL.GL import GL_RENDERER, GL_VENDOR, GL_VERSION, glGetString

    return ", ".join(glGetString(name).decode() for name in (GL_VENDOR, GL_RENDERER, GL_VERSION))


def _orthographic(distance: NDArray[np.float64], far: float) -> NDArray[np.float64]:
    """pyrender turns depth into distance as if every camera had perspective; this takes it back, metres."""
    ndc = (far + NEAR - 2 * NEAR * far / distance) / (far - NEAR)
    return (ndc * (far - NEAR) + far + NEAR) / 2


@functools.cache
def _context(way: str) -> Any:
    """A current context, of the first device of this way that gives one."""
    failures = []
    for platform in [OSMesa()] if way == "osmesa" else _egl_platforms(software=way == "mesa"):
        try:
            platform.init_context()
        except Exception as error:  # loaders and drivers raise anything, AssertionError included
            failures.append(_words(error))
        else:
            return platform
    raise NoContext("; ".join(dict.fromkeys(failures)))


def _words(error: Exception) -> str:
    """An error of a loader or a driver; PyOpenGL gives EGL's as numbers, and some in several strings."""
    if (name := EGL_ERRORS.get(getattr(error, "err", None))) is not None:
        return f"{name} in {error.baseOperation.__name__}"
    text = ", ".join(str(argument) for argument in error.args[:2])
    return text if isinstance(error, NoContext) else f"{type(error).__name__}: {text}".removesuffix(": ")


def _egl_platforms(software: bool) -> list[Any]:
    """Platforms, without a context yet, of the EGL devices that are GPUs, or are not. NoContext: none."""
    listed = _egl_devices()
    if listed is None:  # one device, of whatever kind
        wanted = [] if software else [0]
    else:
        wanted = [i for i, is_software in enumerate(listed) if is_software == software]
    if not wanted:
        kind = "software renderer" if software else "GPU"
        raise NoContext(f"EGL lists no {kind} (devices: {'unknown' if listed is None else len(listed)})")
    try:
        from pyrender.platforms import egl

        devices = [egl.EGLDevice()] if listed is None else egl.query_devices()
    except Exception as error:
        raise NoContext(f"EGL cannot be loaded ({_words(error)})") from None
    return [egl.EGLPlatform(1, 1, device=devices[i]) for i in wanted]


def _egl_devices() -> list[bool] | None:
    """Whether each device that EGL lists draws on the CPU; None: this EGL cannot list any. NoContext.

    By hand, because importing pyrender takes a second, and most machines without a GPU end here.
    """
    try:
        library = ctypes.CDLL(ctypes.util.find_library("EGL") or "libEGL.so.1")
        address_of = library.eglGetProcAddress
    except (OSError, AttributeError) as error:
        raise NoContext(f"EGL cannot be loaded ({_words(error)})") from None
    address_of.restype, address_of.argtypes = ctypes.c_void_p, [ctypes.c_char_p]
    query, describe_device = (
        address_of(name) for name in (b"eglQueryDevicesEXT", b"eglQueryDeviceStringEXT")
    )
    if not query or not describe_device:
        return None
    pointers = ctypes.POINTER(ctypes.c_void_p)
    query = ctypes.CFUNCTYPE(ctypes.c_uint, ctypes.c_int, pointers, ctypes.POINTER(ctypes.c_int))(query)
    describe_device = ctypes.CFUNCTYPE(ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int)(describe_device)
    devices, count = (ctypes.c_void_p * MAX_DEVICES)(), ctypes.c_int()
    if not query(MAX_DEVICES, devices, ctypes.byref(count)):
        return []
    found = [describe_device(device, EGL_EXTENSIONS) or b"" for device in devices[: count.value]]
    return [SOFTWARE in extensions.split() for extensions in found]


class OSMesa:
    """What pyrender's own class does, which asks PyOpenGL for a function that its pinned version lacks."""

    # GL/osmesa.h: format RGBA, core profile, least version, depth bits; then the end of the list.
    ATTRIBUTES = (0x22, 0x1908, 0x33, 0x34, 0x36, OPENGL[0], 0x37, OPENGL[1], 0x30, 24, 0)
    UNSIGNED_BYTE = 0x1401

    def init_context(self) -> None:
        """Make the context and make it current. NoContext."""
        try:
            from OpenGL import platform
        except Exception as error:
            raise NoContext(f"OSMesa cannot be loaded ({_words(error)})") from None
        library = platform.PLATFORM.OSMesa
        # PyOpenGL files what it knows by context, and takes this one for a structure, which is no key.
        library.OSMesaGetCurrentContext.restype = ctypes.c_void_p
        create, self._make_current = library.OSMesaCreateContextAttribs, library.OSMesaMakeCurrent
        create.restype, create.argtypes = ctypes.c_void_p, [ctypes.POINTER(ctypes.c_int), ctypes.c_void_p]
        self._make_current.argtypes = [
            ctypes.c_void_p,
            ctypes.c_void_p,
            ctypes.c_uint,
            ctypes.c_int,
            ctypes.c_int,
        ]
        self._make_current.restype = ctypes.c_ubyte
        self._context = create((ctypes.c_int * len(self.ATTRIBUTES))(*self.ATTRIBUTES), None)
        if not self._context:
            raise NoContext(f"OSMesa gives no OpenGL {OPENGL[0]}.{OPENGL[1]} core context")
        # A context needs some buffer of its own; pictures are drawn into pyrender's.
        self._buffer = (ctypes.c_ubyte * 4)()
        self.make_current()

    def make_current(self) -> None:
        if not self._make_current(self._context, self._buffer, self.UNSIGNED_BYTE, 1, 1):
            raise NoContext("OSMesaMakeCurrent failed")


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
