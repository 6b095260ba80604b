"""From what a driver, a loader or a binding says to its cause and the command that helps."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.doctor_fixes import INSTALL, MISSING, library_fix

MESA = "apt-get install libegl1 libgl1 libgl1-mesa-dri"
OSMESA = (
    "none needed where another way works; else apt-get install libosmesa6 (Mesa 25.1 and newer have none)"
)
CAST = "bev.renderer=raycast draws without it"
STEERING = (
    "__EGL_VENDOR_LIBRARY_FILENAMES",
    "__EGL_VENDOR_LIBRARY_DIRS",
    "EGL_PLATFORM",
    "LIBGL_DRIVERS_PATH",
    "MESA_LOADER_DRIVER_OVERRIDE",
    "GALLIUM_DRIVER",
)
"""Variables that say which driver is loaded."""
VERSIONS = ("MESA_GL_VERSION_OVERRIDE", "MESA_GLSL_VERSION_OVERRIDE")
GRAPHICS = {"all", "graphics", "display"}
"""NVIDIA_DRIVER_CAPABILITIES that bring EGL into a container; its default is compute,utility."""


@dataclass(frozen=True)
class Cause:
    name: str
    fix: str


@dataclass(frozen=True)
class Machine:
    """What is known without touching a driver."""

    nvidia: bool = False
    """NVIDIA's kernel driver is loaded."""
    nvidia_egl: bool = False
    """NVIDIA's EGL library is registered with the loader (a vendor file names it)."""
    container: bool = False
    nodes: tuple[str, ...] = ()
    """GPU devices below /dev."""
    denied: tuple[str, ...] = ()
    """Those that this user may not open."""
    variables: Mapping[str, str] = field(default_factory=dict)


def this_machine(root: Path = Path("/"), variables: Mapping[str, str] = os.environ) -> Machine:
    """Look around; `root` stands for the file system."""
    folders = ("usr/share/glvnd/egl_vendor.d", "etc/glvnd/egl_vendor.d")
    vendors = [file.name for folder in folders for file in sorted((root / folder).glob("*.json"))]
    nodes = [*sorted((root / "dev/dri").glob("renderD*")), *sorted((root / "dev").glob("nvidia[0-9c]*"))]
    proc = root / "proc/driver/nvidia/version"
    return Machine(
        nvidia=proc.exists() or (root / "dev/nvidiactl").exists() or shutil.which("nvidia-smi") is not None,
        nvidia_egl=any("nvidia" in name for name in vendors),
        container=any((root / name).exists() for name in (".dockerenv", "run/.containerenv")),
        nodes=tuple(map(str, nodes)),
        denied=tuple(str(node) for node in nodes if not os.access(node, os.R_OK | os.W_OK)),
        variables=dict(variables),
    )


def find_cause(way: str, problem: str, machine: Machine) -> Cause:
    """The first rule that knows the problem of a way of drawing, most telling rules first."""
    for rule in (_picture, _library, _package, _display, _permission, _steered, _memory, _version, _device):
        if (cause := rule(way, problem, machine)) is not None:
            return cause
    return Cause("unknown problem", INSTALL if way == "raycast" else f"{MESA}; {CAST}")


def _picture(way: str, problem: str, machine: Machine) -> Cause | None:
    if "golden picture" in problem:
        return Cause("the driver draws wrongly", f"update the driver; until then {CAST}")
    if "SIGKILL" in problem:
        return Cause("the process was killed", "mostly for want of memory: `dmesg | tail` says so")
    if "ended by SIG" in problem:
        return Cause("the driver crashes", f"update the driver; until then {CAST}")
    if "no picture within" in problem:
        return Cause(
            "the driver hangs", f"look for a hanging GPU (`dmesg | tail`), restart; until then {CAST}"
        )
    return None


def _library(way: str, problem: str, machine: Machine) -> Cause | None:
    """Loaders name the file; PyOpenGL the bare name, or a function of the library that it did not get."""
    if found := MISSING.search(problem):
        return Cause(f"{found[1]} is missing", library_fix(problem))
    if "OSMesa: cannot open" in problem or (way == "osmesa" and "'NoneType' object" in problem):
        return Cause("libOSMesa.so is missing", OSMESA)
    if "EGL: cannot open" in problem or re.search(r"'NoneType' object has no attribute 'egl[A-Z]", problem):
        return Cause("libEGL.so is missing", "apt-get install libegl1")
    if "GL: cannot open" in problem or re.search(r"'NoneType' object has no attribute 'gl[A-Z]", problem):
        return Cause("libGL.so is missing", "apt-get install libgl1")
    return None


def _package(way: str, problem: str, machine: Machine) -> Cause | None:
    if found := re.search(r"No module named '([\w.]+)'", problem):
        return Cause(f"package {found[1]} is missing", INSTALL)
    if re.search(
        r"has no attribute|cannot import name|undefined function|unexpected keyword|unhashable", problem
    ):
        return Cause("PyOpenGL, pyrender and numpy do not fit together", INSTALL)
    return None


def _display(way: str, problem: str, machine: Machine) -> Cause | None:
    """`bev_process` hides DISPLAY from drivers; some find one all the same."""
    if not re.search(
        r"(open|connect)( to)?( the)? (X )?(display|server)|NoSuchDisplay|xcb|Xlib", problem, re.I
    ):
        return None
    display = machine.variables.get("DISPLAY", "")
    return Cause(
        f"an X display cannot be reached (DISPLAY={display!r})", "unset DISPLAY WAYLAND_DISPLAY XAUTHORITY"
    )


def _permission(way: str, problem: str, machine: Machine) -> Cause | None:
    if "Permission denied" not in problem and not (way == "gpu" and machine.denied):
        return None
    node = re.search(r"/dev/[\w/]+", problem)
    device = node[0] if node else machine.denied[0] if machine.denied else "/dev/dri"
    fix = "usermod -aG render,video $USER, then log in again"
    if machine.container:
        fix = f"docker run --device {device} --group-add $(stat -c %g {device}) …"
    return Cause(f"no permission on {device}", fix)


def _steered(way: str, problem: str, machine: Machine) -> Cause | None:
    named = [name for name in STEERING if machine.variables.get(name)]
    if (
        way == "raycast"
        or not named
        or not re.search(r"EGL lists|EGL_NOT_INIT|EGL_BAD_(PARAM|DISPLAY)", problem)
    ):
        return None
    return Cause(f"{', '.join(named)} chooses the driver", f"unset {' '.join(named)}")


def _memory(way: str, problem: str, machine: Machine) -> Cause | None:
    if not re.search(r"EGL_BAD_ALLOC|OUT_OF_MEMORY|out of memory", problem, re.I):
        return None
    return Cause("the GPU has no memory left", f"end what holds it (`nvidia-smi` lists it), or {CAST}")


def _version(way: str, problem: str, machine: Machine) -> Cause | None:
    if not re.search(r"EGL_BAD_(MATCH|CONFIG|ATTRIBUTE)|GLSL|core context|#version", problem):
        return None
    named = [name for name in VERSIONS if machine.variables.get(name)]
    fix = (
        f"unset {' '.join(named)}"
        if named
        else f"update the driver (Mesa 11.2, NVIDIA 340 or newer), or {CAST}"
    )
    return Cause("the driver lacks OpenGL 4.1", fix)


def _device(way: str, problem: str, machine: Machine) -> Cause | None:
    if not re.search(r"EGL lists|EGL_NOT_INIT|EGL_BAD_(PARAM|DISPLAY)|AssertionError", problem):
        return None
    causes: dict[str, Callable[[Machine], Cause]] = {"gpu": _gpu, "mesa": _mesa}
    return causes[way](machine) if way in causes else None


def _mesa(machine: Machine) -> Cause:
    return Cause("Mesa's software driver is missing", MESA)


def _gpu(machine: Machine) -> Cause:
    if machine.nvidia:
        capabilities = set(machine.variables.get("NVIDIA_DRIVER_CAPABILITIES", "").split(","))
        if machine.container and not capabilities & GRAPHICS:
            return Cause(
                "the container has no graphics libraries of the NVIDIA driver",
                "docker run --gpus all -e NVIDIA_DRIVER_CAPABILITIES=all …",
            )
        if not machine.nvidia_egl:
            return Cause(
                "NVIDIA's EGL library is not installed (no 10_nvidia.json in /usr/share/glvnd/egl_vendor.d)",
                "apt-get install libnvidia-gl-VERSION, the version that `nvidia-smi` shows",
            )
        return Cause("the NVIDIA driver does not start", "`nvidia-smi` must work; after an update, restart")
    if machine.nodes:
        return Cause(f"no EGL driver for {machine.nodes[0]}", MESA)
    hint = "; in a container, for a GPU of the host: --device /dev/dri" if machine.container else ""
    return Cause("no GPU here", f"none needed: software takes 0.1 s a picture{hint}")
