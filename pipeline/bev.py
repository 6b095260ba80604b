"""Stage `bev`: the room seen straight from above, its mask, and the way back to the world.

Group of a scan: `bev` (432, 432, 3) uint8 RGB, black where nothing is; `valid` (432, 432) bool, the pixels
that geometry covers; attribute `bev`, the dict of that name in clip.json; attribute `reason`, why there is no
picture, else "".
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

import numpy as np
import zarr
from numpy.typing import NDArray

from pipeline import bev_pyrender, bev_raycast
from pipeline.bev_frame import BevFrame, bev_frame, facing_up, to_pixels
from pipeline.bev_golden import FRAME, difference, golden_mesh
from pipeline.config import BevConfig, Config
from pipeline.mesh import Mesh, load_mesh
from pipeline.scans import ScanEntry
from pipeline.sources.scannet import read_alignment
from scanshards.schema import BEV_SIZE, NO_BEV

log = logging.getLogger(__name__)

Render = Callable[[Mesh, int], tuple[NDArray[np.uint8], NDArray[np.float32]]]
"""(mesh with vertices (column, row, height in metres), size) -> colours (size, size, 3) and heights
(size, size) of the highest surface at each pixel's centre; black and NaN where there is none. Vertex colours,
no light, one sample per pixel. The mesh holds only faces that may be seen, and at least one."""


@dataclass(frozen=True, eq=False)
class Bev:
    image: NDArray[np.uint8]
    """(432, 432, 3) RGB."""
    heights_m: NDArray[np.float32]
    """(432, 432) world z of what is seen; NaN where nothing is."""
    frame: BevFrame | None
    renderer: str
    reason: str = ""
    """Why there is no picture."""

    @property
    def valid(self) -> NDArray[np.bool_]:
        return np.isfinite(self.heights_m)

    def record(self) -> dict[str, Any]:
        """The dict `bev` of clip.json; the same keys and types with and without a picture."""
        if self.frame is None:
            return dict(NO_BEV)
        return {
            "present": True,
            "metres_per_pixel": self.frame.metres_per_pixel,
            "world_from_bev": self.frame.world_from_bev().tolist(),
            "height_range_m": [float(np.nanmin(self.heights_m)), float(np.nanmax(self.heights_m))],
            "valid_fraction": float(self.valid.mean()),
            "renderer": self.renderer,
        }


def build(entry: ScanEntry, group: zarr.Group, config: Config, inputs: dict[str, zarr.Group]) -> None:
    """Fill the scan's group; where nothing is to be seen the BEV is absent. ScanError: unusable mesh."""
    meshes = inputs["meshes"]
    if meshes.attrs["num_faces"] == 0:
        bev = no_bev(str(meshes.attrs["reason"]))
    else:
        bev = look_down(load_mesh(entry, meshes, read_alignment(entry.path("meta"))), config.bev)
    group.create_array("bev", data=bev.image, chunks=bev.image.shape)
    group.create_array("valid", data=bev.valid, chunks=bev.valid.shape)
    group.attrs.update({"bev": bev.record(), "reason": bev.reason})


def look_down(mesh: Mesh, config: BevConfig) -> Bev:
    """The picture of a mesh (world frame) from above, absent if it would show next to nothing."""
    visible = facing_up(mesh)
    frame = bev_frame(visible)
    if frame is None:
        return no_bev("no surface that faces up")
    module = renderer(config.renderer)
    image, heights_m = module.render(to_pixels(visible, frame), BEV_SIZE)
    bev = Bev(image, heights_m, frame, module.NAME)
    fraction = bev.valid.mean()
    if fraction < config.min_valid_fraction:
        least = config.min_valid_fraction
        return no_bev(f"covers {fraction:.2%} of the pixels, expected {least:.2%} or more")
    return bev


def no_bev(reason: str) -> Bev:
    size = (BEV_SIZE, BEV_SIZE)
    return Bev(np.zeros((*size, 3), np.uint8), np.full(size, np.nan, np.float32), None, "", reason)


@functools.cache
def renderer(mode: Literal["auto", "pyrender", "raycast"]) -> ModuleType:
    """The module whose `render` draws here, chosen once per process. ValueError: `pyrender` cannot draw."""
    if mode == "raycast":
        return bev_raycast
    problem = self_test(bev_pyrender.render)
    if not problem:
        log.info("bev: drawing with pyrender on %s", bev_pyrender.describe())
        return bev_pyrender
    if mode == "pyrender":
        raise ValueError(
            f"bev.renderer=pyrender: {problem}; run `python -m pipeline.doctor`, or use bev.renderer=auto"
        )
    log.warning("bev: drawing by ray casting, because OpenGL does not work here: %s", problem)
    return bev_raycast


def self_test(render: Render) -> str:
    """Draw the golden scene; returns what is wrong, or "" if the picture is right."""
    try:
        return difference(*render(to_pixels(facing_up(golden_mesh()), FRAME), BEV_SIZE))
    except Exception as error:  # a driver can fail in any call, and ray casting is there instead
        return f"{type(error).__name__}: {error}".strip().splitlines()[0]
