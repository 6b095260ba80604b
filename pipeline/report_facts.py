"""What the report says about all scans: read from the stores' attributes, and pictures of a sample of scans.

Attributes are small, so those of every scan are read. Depth and BEV pictures are read scan by scan and only
sums and small pictures are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from pipeline import ledger, scans
from pipeline.config import Config
from pipeline.sources import gravity
from pipeline.stages import stores
from pipeline.store import Store
from scanshards import geometry

MAX_SAMPLED = 48
"""Of so many scans, evenly spread, the depth of a clip is decoded."""
DEPTH_BIN_MM = 250
NUM_DEPTH_BINS = 32
"""Up to 8 m; what lies beyond is counted in the last bin."""
CELL_M = 0.1
"""Edge of the cells of the plan in which a clip's points are looked for."""
POINT_STRIDE = 4
"""Every fourth row and column of the stored depth: 3 cm apart at 3 m."""


@dataclass(frozen=True)
class ScanFacts:
    """One scan as the stages left it."""

    row: dict[str, Any]
    """Its row of the ledger (`ledger.scan_rows`)."""
    distinct_frames: tuple[int, ...] = ()
    """Per clip, how many different frames it has (32 where none had to be repeated)."""
    valid_depth: dict[int, float] = field(default_factory=dict)
    """Share of measured depth of each frame whose depth was decoded."""
    used: frozenset[int] = frozenset()
    """The frames that are in clips."""
    sharpness: tuple[float, ...] = ()
    """Of each frame, in units of the scan's median; empty without a full audit."""
    surface_seen: tuple[float, ...] = ()
    """Per clip, the share of the scene's voxels that its frames see; only with sampling=max_coverage."""
    lean_deg: float | None = None
    """Between the world's z and the direction that the cameras of the first clip take for up."""
    bev: dict[str, Any] | None = None
    """The record of the BEV; None where the stage did not get to it."""
    no_bev: str = ""
    """Why there is no BEV."""

    @property
    def scan_id(self) -> str:
        return self.row["scan_id"]

    @property
    def has_bev(self) -> bool:
        return self.bev is not None and self.bev["present"]


@dataclass(frozen=True, eq=False)
class Sampled:
    """What the depth of the sampled scans gave."""

    depth_counts: NDArray[np.int64]
    """(NUM_DEPTH_BINS,) pixels by depth."""
    plan_seen: dict[str, float]
    """Scan id -> share of the plan's cells with a point of its first clip; only scans with a BEV."""
    num_scans: int


def read_facts(config: Config) -> list[ScanFacts]:
    """Facts about every scan of the inventory; [] where inventory and stores are not at hand."""
    inventory = config.work_dir / "scans.json"
    if not inventory.is_file():
        return []
    all_stores = stores(config)
    rows = ledger.scan_rows(all_stores, scans.read_inventory(inventory).scans)
    return [scan_facts(row, all_stores["clips"], all_stores["bev"]) for row in rows]


def scan_facts(row: dict[str, Any], clips_store: Store, bev_store: Store) -> ScanFacts:
    """Facts about one scan out of its row and the attributes of its clips and its BEV."""
    clips = clips_store.attrs(row["scan_id"]) or {}
    bev = bev_store.attrs(row["scan_id"]) or {}
    depth = clips.get("valid_depth", {"frames": [], "fractions": []})
    frames = [clip["frame_indices"] for clip in clips.get("clips", ())]
    return ScanFacts(
        row,
        tuple(len(set(indices)) for indices in frames),
        dict(zip(depth["frames"], depth["fractions"], strict=True)),
        frozenset(frame for indices in frames for frame in indices),
        tuple(clips.get("sharpness", {}).get("relative", ())),
        tuple(
            row["selected_voxels"] / row["scene_voxels"]
            for row in clips.get("coverage", ())
            if row["scene_voxels"]
        ),
        gravity.lean_deg(np.array(clips["clips"][0]["world_from_cam"])) if frames else None,
        bev.get("bev"),
        bev_store.rejection(row["scan_id"]) or bev.get("reason", ""),
    )


def sample_depth(facts: Sequence[ScanFacts], config: Config) -> Sampled:
    """Read the first clip of some scans, evenly spread over those that have one."""
    all_stores = stores(config)
    counts = np.zeros(NUM_DEPTH_BINS, np.int64)
    plan_seen: dict[str, float] = {}
    chosen = spread([one for one in facts if one.distinct_frames], MAX_SAMPLED)
    for one in chosen:
        group = all_stores["clips"].read(one.scan_id)
        assert group is not None, f"{one.scan_id}: clips without a group"
        depth = np.asarray(group["00"]["depth"][:])[:, ::POINT_STRIDE, ::POINT_STRIDE]
        bins = np.minimum(depth[depth > 0] // DEPTH_BIN_MM, NUM_DEPTH_BINS - 1)
        counts += np.bincount(bins, minlength=NUM_DEPTH_BINS)
        if one.has_bev:
            bev = all_stores["bev"].read(one.scan_id)
            points = clip_points(group, depth)
            plan_seen[one.scan_id] = plan_coverage(points, np.asarray(bev["valid"][:]), one.bev)
    return Sampled(counts, plan_seen, len(chosen))


def spread(items: Sequence[Any], count: int) -> list[Any]:
    """At most `count` items, evenly spread, in order."""
    if len(items) <= count:
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, count).astype(int)]


def clip_points(group: zarr.Group, depth: NDArray[np.uint16]) -> NDArray[np.float32]:
    """(n, 3) world points of the first clip, metres; `depth` (32, h, w) is its depth, thinned as above."""
    clip = group.attrs["clips"][0]
    source = clip["source"]
    u, v = geometry.source_pixels(geometry.resize_plan(source["depth_width"], source["depth_height"]))
    coords = geometry.unproject(
        depth,
        np.array(clip["depth_intrinsics"]),
        np.array(clip["world_from_cam"]),
        u[::POINT_STRIDE],
        v[::POINT_STRIDE],
    )
    return coords[depth > 0]


def plan_coverage(points_m: NDArray[np.floating], valid: NDArray[np.bool_], bev: dict[str, Any]) -> float:
    """Share of the plan's cells of 10 cm with at least one of the (n, 3) points over or under them.

    `valid` (432, 432): the pixels of the BEV that geometry covers; `bev` its record.
    """
    rows, columns = np.nonzero(valid)
    if not len(rows):
        return 0.0
    pixels = np.stack([columns, rows, np.zeros_like(rows), np.ones_like(rows)], axis=1)
    plan = _cells(pixels @ np.array(bev["world_from_bev"]).T)
    return float(np.isin(plan, _cells(points_m)).mean())


def _cells(points_m: NDArray[np.floating]) -> NDArray[np.int64]:
    """Numbers of the cells that (n, 2 or more) world points lie in, each once."""
    cells = np.floor(points_m[:, :2].astype(np.float64) / CELL_M).astype(np.int64)
    return np.unique((cells[:, 0] << 32) + cells[:, 1])
