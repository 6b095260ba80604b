"""What a check says, and which package brings a shared library that is missing (standard library only)."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from typing import Literal

APT_PACKAGES = {
    "libEGL.so": "libegl1",
    "libGL.so": "libgl1",
    "libGLU.so": "libglu1-mesa",
    "libOSMesa.so": "libosmesa6",
    "libX11.so": "libx11-6",
    "libXext.so": "libxext6",
    "libSM.so": "libsm6",
    "libxcb.so": "libxcb1",
    "libgomp.so": "libgomp1",
    "libusb-1.0.so": "libusb-1.0-0",
    "libudev.so": "libudev1",
    "libglib-2.0.so": "libglib2.0-0",
    "libgthread-2.0.so": "libglib2.0-0",
    "libstdc++.so": "libstdc++6",
    "libc++.so": "libc++1",
    "libc++abi.so": "libc++abi1",
}
MISSING = re.compile(r"(lib[A-Za-z0-9_+.-]+?\.so)[.0-9]*: cannot open shared object file")
INSTALL = f"{sys.executable} -m pip install -r requirements.txt"


@dataclass(frozen=True)
class Check:
    name: str
    state: Literal["ok", "optional", "failed"]
    """optional: does not work, but nothing that is required depends on it."""
    result: str
    fix: str = ""


def library_fix(text: str) -> str:
    """The command that brings the shared library which a loader's error names; "" if it names none."""
    found = MISSING.search(text)
    if found is None:
        return ""
    library = found.group(1)
    package = APT_PACKAGES.get(library)
    return f"apt-get install {package}" if package else f"install the package that holds {library}"


def first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".strip().splitlines()[0]
