"""Every way of drawing is tried in order, the choice is proved, and each failure has a name and a fix."""

import functools
import sys

import cv2
import numpy as np
import pytest

from pipeline import bev_process, bev_renderer
from pipeline.bev_golden import difference, golden_picture
from pipeline.doctor_causes import MESA, Machine, find_cause, this_machine
from pipeline.doctor_fixes import INSTALL
from pipeline.doctor_gl import NAMES, Attempt, attempt, prove, rows
from scanshards.schema import BEV_SIZE

PROBLEMS = {
    "gpu": "NoContext: EGL lists no GPU (devices: 1)",
    "mesa": "NoContext: EGL lists no software renderer (devices: 0)",
    "osmesa": "NoContext: OSMesa cannot be loaded (ImportError: Unable to load, OSMesa: cannot open shared)",
    "raycast": "ImportError: libc++.so.1: cannot open shared object file: No such file or directory",
}
WAYS = tuple(PROBLEMS)


def attempts(*works, picture=None):
    return [Attempt(way, "" if way in works else PROBLEMS[way], f"by {way}", picture) for way in WAYS]


@pytest.mark.parametrize("works", [WAYS, WAYS[1:], ("osmesa", "raycast"), ("raycast",), ("osmesa",), ()])
def test_the_first_way_that_works_is_used_and_one_is_enough(works):
    *ways, choice = rows(attempts(*works), Machine())
    assert [row.name for row in ways] == [NAMES[way] for way in WAYS]
    lost = "optional" if works else "failed"
    assert [row.state for row in ways] == ["ok" if way in works else lost for way in WAYS]
    assert all(row.fix for row in ways if row.state != "ok")
    assert choice.state == ("ok" if works else "failed")
    if works:
        assert choice.result == f"golden picture is right; used: {NAMES[works[0]]}"


def test_the_doctor_tries_the_ways_in_the_pipelines_order():
    assert WAYS == (*bev_renderer.WAYS, "raycast") == tuple(NAMES)


def test_ray_casting_is_proved_with_the_golden_picture_here(tmp_path):
    tried = attempt("raycast")
    assert tried.problem == "" and difference(tried.rgb, golden_picture()[1]) == ""
    check = prove([Attempt("mesa", "golden picture: wrong", "", tried.rgb[::-1]), tried], tmp_path / "x.png")
    assert check.state == "ok"
    written = cv2.imread(str(tmp_path / "x.png"))[..., ::-1][-BEV_SIZE:]
    np.testing.assert_array_equal(written[:, :BEV_SIZE], tried.rgb)
    np.testing.assert_array_equal(written[:, -BEV_SIZE:], golden_picture()[0])
    assert prove(attempts(), tmp_path / "y.png").state == "failed"
    assert not (tmp_path / "y.png").exists()


NVIDIA = {"nvidia": True, "nvidia_egl": True, "nodes": ("/dev/nvidia0",)}
NOT_INITIALIZED = "NoContext: EGL_NOT_INITIALIZED in eglInitialize"
NO_GPU = PROBLEMS["gpu"]
RUN = "docker run --gpus all -e NVIDIA_DRIVER_CAPABILITIES=all …"


@pytest.mark.parametrize(
    ("way", "problem", "machine", "name", "fix"),
    [
        ("gpu", NO_GPU, {}, "no GPU here", "none needed: software takes 0.1 s a picture"),
        ("gpu", NO_GPU, {"container": True}, "no GPU here", "--device /dev/dri"),
        ("gpu", NO_GPU, {"nodes": ("/dev/dri/renderD128",)}, "no EGL driver for /dev/dri/renderD128", MESA),
        (
            *("gpu", NO_GPU, {"nodes": ("/dev/dri/renderD128",), "denied": ("/dev/dri/renderD128",)}),
            *("no permission on /dev/dri/renderD128", "usermod -aG render,video $USER"),
        ),
        (
            *("gpu", NO_GPU, {"denied": ("/dev/dri/renderD128",), "container": True}),
            *("no permission on /dev/dri/renderD128", "docker run --device /dev/dri/renderD128 --group-add"),
        ),
        (
            "mesa",
            f"{NOT_INITIALIZED} (it wrote: failed to open /dev/dri/card0: Permission denied; failed)",
            *({}, "no permission on /dev/dri/card0", "usermod -aG render,video $USER"),
        ),
        ("gpu", NO_GPU, {**NVIDIA, "container": True}, "no graphics libraries of the NVIDIA driver", RUN),
        (
            *("gpu", NO_GPU),
            {**NVIDIA, "container": True, "variables": {"NVIDIA_DRIVER_CAPABILITIES": "compute,utility"}},
            *("no graphics libraries of the NVIDIA driver", RUN),
        ),
        (
            *("gpu", NOT_INITIALIZED),
            {**NVIDIA, "container": True, "variables": {"NVIDIA_DRIVER_CAPABILITIES": "compute,graphics"}},
            *("the NVIDIA driver does not start", "nvidia-smi"),
        ),
        (
            "gpu",
            NO_GPU,
            {**NVIDIA, "nvidia_egl": False},
            "NVIDIA's EGL library is not installed",
            "libnvidia-gl",
        ),
        ("mesa", PROBLEMS["mesa"], {}, "Mesa's software driver is missing", MESA),
        (
            "mesa",
            NOT_INITIALIZED,
            {"variables": {"GALLIUM_DRIVER": "x"}},
            "GALLIUM_DRIVER",
            "unset GALLIUM_DRIVER",
        ),
        ("gpu", "NoContext: EGL_BAD_MATCH in eglCreateContext", {}, "lacks OpenGL 4.1", "update the driver"),
        ("gpu", "NoContext: EGL_BAD_ALLOC in eglCreateContext", {}, "no memory left", "nvidia-smi"),
        ("gpu", "RuntimeError: GLSL 3.30 is not supported", {}, "lacks OpenGL 4.1", "update the driver"),
        (
            *("gpu", "NoContext: x (it wrote: cannot connect to X server remote:10.0)"),
            {"variables": {"DISPLAY": "remote:10.0"}},
            *("an X display cannot be reached (DISPLAY='remote:10.0')", "unset DISPLAY"),
        ),
        ("mesa", "NoDisplay: Cannot open display", {}, "an X display cannot be reached", "unset DISPLAY"),
        ("mesa", PROBLEMS["raycast"], {}, "libc++.so is missing", "apt-get install libc++1"),
        ("osmesa", PROBLEMS["osmesa"], {}, "libOSMesa.so is missing", "apt-get install libosmesa6"),
        ("mesa", "ImportError: cannot import name 'x' from 'pyrender'", {}, "do not fit together", INSTALL),
        (
            "mesa",
            "AttributeError: `np.infty` was removed; has no attribute",
            {},
            "do not fit together",
            INSTALL,
        ),
        (
            "mesa",
            "golden picture: colours differ by up to 9 of 255",
            {},
            "draws wrongly",
            "bev.renderer=raycast",
        ),
        ("mesa", "the drawing process was ended by SIGSEGV", {}, "driver crashes", "bev.renderer=raycast"),
        ("mesa", "the drawing process was ended by SIGKILL", {}, "was killed", "dmesg"),
        ("gpu", "no picture within 120 s", {}, "driver hangs", "bev.renderer=raycast"),
        ("gpu", "Something: else", {}, "unknown problem", "bev.renderer=raycast"),
        ("raycast", "Something: else", {}, "unknown problem", INSTALL),
    ],
)
def test_each_failure_has_a_name_and_a_fix(way, problem, machine, name, fix):
    cause = find_cause(way, problem, Machine(**machine))
    assert name in cause.name
    assert fix in cause.fix


@functools.cache
def mesa_problem():
    return attempt("mesa").problem


BROKEN = "import ctypes.util, sys\n{}\nfrom pipeline import bev_child\nbev_child.main([{!r}])"


@pytest.mark.parametrize(
    ("way", "variables", "damage", "name"),
    [
        ("mesa", {}, "ctypes.util.find_library = lambda name: None", "libEGL.so is missing"),
        (
            *("mesa", {}),
            "f = ctypes.util.find_library; ctypes.util.find_library = lambda n: f(n) if n == 'EGL' else None",
            "libGL.so is missing",
        ),
        ("osmesa", {}, "ctypes.util.find_library = lambda name: None", "libOSMesa.so is missing"),
        ("mesa", {"MESA_GL_VERSION_OVERRIDE": "2.1"}, "", "the driver lacks OpenGL 4.1"),
        ("mesa", {"GALLIUM_DRIVER": "nonsense"}, "", "GALLIUM_DRIVER chooses the driver"),
        (
            "gpu",
            {"__EGL_VENDOR_LIBRARY_FILENAMES": "/dev/null"},
            "",
            "__EGL_VENDOR_LIBRARY_FILENAMES chooses",
        ),
        ("mesa", {}, "sys.modules['OpenGL'] = None", "package OpenGL"),
        ("mesa", {}, "import numpy; del numpy.float32", "do not fit together"),
        ("mesa", {}, "import os; os.abort()", "the driver crashes"),
    ],
)
def test_real_failures_of_real_libraries_are_recognised(monkeypatch, way, variables, damage, name):
    if way == "mesa" and mesa_problem():
        pytest.skip(f"no Mesa here to break: {mesa_problem()}")
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(
        bev_process, "command", lambda way: [sys.executable, "-c", BROKEN.format(damage, way)]
    )
    tried = attempt(way)
    assert name in find_cause(way, tried.problem, Machine(variables=variables)).name, tried.problem


def test_the_machine_is_read_from_its_files(tmp_path):
    assert this_machine(tmp_path, {"A": "b"}) == Machine(
        nvidia=this_machine(tmp_path, {}).nvidia, variables={"A": "b"}
    )
    for name in (
        "dev/dri/renderD128",
        "dev/nvidiactl",
        "run/.containerenv",
        "etc/glvnd/egl_vendor.d/10_nvidia.json",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = this_machine(tmp_path, {})
    assert found.nvidia and found.nvidia_egl and found.container and found.denied == ()
    assert found.nodes == (str(tmp_path / "dev/dri/renderD128"), str(tmp_path / "dev/nvidiactl"))
