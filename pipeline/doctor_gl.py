"""Tries every way of drawing in the pipeline's order, and proves its choice with a picture."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline import bev_raycast
from pipeline.bev_golden import difference, golden_picture
from pipeline.bev_process import Child, ChildFailed
from pipeline.bev_renderer import WAYS
from pipeline.doctor_causes import Machine, find_cause, this_machine
from pipeline.doctor_fixes import Check
from scanshards.schema import BEV_SIZE
from scanshards.write import atomic_write_bytes

NAMES = {
    "gpu": "OpenGL on a GPU (EGL)",
    "mesa": "OpenGL in software (EGL, Mesa)",
    "osmesa": "OpenGL in software (OSMesa)",
    bev_raycast.NAME: "Ray casting (Open3D)",
}
TIMEOUT_S = 120.0
GAP_PX = 16
CAPTION_PX = 40
TEXT_SCALE = 0.45
WHITE, BLACK = 255, (0, 0, 0)


@dataclass(frozen=True, eq=False)
class Attempt:
    """What came of drawing the golden scene in one way; `problem` is empty if it is right."""

    way: str
    problem: str
    by: str = ""
    rgb: NDArray[np.uint8] | None = None
    """(432, 432, 3), right or wrong; None: nothing was drawn."""


def check_drawing(picture: Path | None = None) -> list[Check]:
    """A row per way, and one that names the first that works; `picture`: PNG of what that one drew."""
    ways = (*WAYS, bev_raycast.NAME)
    with ThreadPoolExecutor(len(ways)) as pool:
        attempts = list(pool.map(attempt, ways))
    checks = rows(attempts, this_machine())
    if picture is not None:
        checks.append(prove(attempts, picture))
    return checks


def attempt(way: str, timeout_s: float = TIMEOUT_S) -> Attempt:
    """Draw the golden scene in a process of its own: drivers crash and hang."""
    child = Child(way, timeout_s)
    try:
        rgb, heights = child.draw_golden()
    except ChildFailed as error:
        return Attempt(way, str(error))
    finally:
        child.close()
    return Attempt(way, difference(rgb, heights), child.by, rgb)


def rows(attempts: list[Attempt], machine: Machine) -> list[Check]:
    """Ways that fail matter only if all do."""
    works = [attempt for attempt in attempts if not attempt.problem]
    checks = []
    for tried in attempts:
        name = NAMES[tried.way]
        if not tried.problem:
            checks.append(Check(name, "ok", tried.by))
            continue
        cause = find_cause(tried.way, tried.problem, machine)
        state = "optional" if works else "failed"
        checks.append(Check(name, state, f"{cause.name} ({tried.problem})", cause.fix))
    if works:
        checks.append(Check("Drawing", "ok", f"golden picture is right; used: {NAMES[works[0].way]}"))
    else:
        checks.append(
            Check("Drawing", "failed", "no way of drawing works", "one of the fixes above is enough")
        )
    return checks


def prove(attempts: list[Attempt], path: Path) -> Check:
    """Write what was drawn in the way that is used, else in any, beside what is expected."""
    drawn = [tried for tried in attempts if tried.rgb is not None]
    if not drawn:
        return Check("Golden picture", "failed", f"nothing was drawn, {path} is not written", "see above")
    shown = min(drawn, key=lambda tried: tried.problem != "")
    canvas = np.full((BEV_SIZE + CAPTION_PX, 2 * BEV_SIZE + GAP_PX, 3), WHITE, np.uint8)
    captions = (f"drawn: {shown.way}, {shown.problem or 'right'}", "expected")
    for i, (rgb, caption) in enumerate(zip((shown.rgb, golden_picture()[0]), captions, strict=True)):
        left = i * (BEV_SIZE + GAP_PX)
        canvas[CAPTION_PX:, left : left + BEV_SIZE] = rgb
        place = (left + GAP_PX // 2, CAPTION_PX - GAP_PX)
        cv2.putText(canvas, caption, place, cv2.FONT_HERSHEY_SIMPLEX, TEXT_SCALE, BLACK, 1, cv2.LINE_AA)
    atomic_write_bytes(path, cv2.imencode(".png", canvas[..., ::-1])[1].tobytes())
    return Check("Golden picture", "ok", f"{shown.way}, beside what is expected: {path}")
