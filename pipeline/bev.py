"""Stage `bev`: the room seen straight from above, its mask, and the way back to the world.

Group of a scan: `bev` (432, 432, 3) uint8 RGB, black where nothing is; `valid` (432, 432) bool, the pixels
that geometry covers; attribute `bev`, the dict of that name in clip.json; attribute `reason`, why there is no
picture, else "".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from pipeline.bev_frame import BevFrame, bev_frame, facing_up, to_pixels
from pipeline.bev_renderer import drawer
from pipeline.bev_sides import wrong_side
from pipeline.config import BevConfig, Config
from pipeline.errors import ScanError
from pipeline.mesh import Mesh, load_mesh
from pipeline.scans import ScanEntry
from pipeline.sources import alignment
from pipeline.timing import part
from scanshards.schema import BEV_SIZE, NO_BEV

BLACK_LEVEL = 8
"""A pixel is black if no channel is above this. The darkest things in a lit room are at 10 to 20."""
SAME_COLOR = 4
"""A pixel has the picture's one colour if each channel is so close to the median. Light alone varies more."""


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
        with part("read mesh"):
            mesh = load_mesh(entry, meshes, alignment(entry))
        try:
            bev = look_down(mesh, config.bev)
        except ScanError as error:
            raise ScanError(f"{entry.scan_id}: {error}") from None
    group.create_array("bev", data=bev.image, chunks=bev.image.shape)
    group.create_array("valid", data=bev.valid, chunks=bev.valid.shape)
    group.attrs.update({"bev": bev.record(), "reason": bev.reason})


def look_down(mesh: Mesh, config: BevConfig) -> Bev:
    """The picture of a mesh (world frame) from above; absent if it would show next to nothing, or no room.

    ScanError: it cannot be drawn.
    """
    with part("plan"):
        visible = facing_up(mesh)
        reason = wrong_side(mesh)
        frame = None if reason else bev_frame(visible)
    if frame is None:
        return no_bev(reason or "no surface that faces up, larger than specks")
    with part("draw"):
        (image, heights_m), name = drawer(config).draw(to_pixels(visible, frame), BEV_SIZE)
    reason = blank(image, np.isfinite(heights_m), config)
    return no_bev(reason) if reason else Bev(image, heights_m, frame, name)


def blank(image: NDArray[np.uint8], valid: NDArray[np.bool_], config: BevConfig) -> str:
    """Why a picture (S, S, 3) RGB with its mask (S, S) shows next to nothing, else ""."""
    fraction = valid.mean()
    if fraction < config.min_valid_fraction:
        least = config.min_valid_fraction
        return f"covers {fraction:.2%} of the pixels, expected {least:.2%} or more"
    colors = image[valid].astype(np.int16)
    black = (colors.max(axis=1) <= BLACK_LEVEL).mean()
    if black > config.max_black:
        return f"{black:.2%} of what it shows is black, expected {config.max_black:.2%} or less"
    same = (np.abs(colors - np.median(colors, axis=0)) <= SAME_COLOR).all(axis=1).mean()
    if same > config.max_one_color:
        return f"{same:.2%} of what it shows has one colour, expected {config.max_one_color:.2%} or less"
    return ""


def no_bev(reason: str) -> Bev:
    size = (BEV_SIZE, BEV_SIZE)
    return Bev(np.zeros((*size, 3), np.uint8), np.full(size, np.nan, np.float32), None, "", reason)
