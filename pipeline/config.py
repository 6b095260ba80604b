"""Parameters of the pipeline: dataclass defaults < params.yaml < `a.b=c` on the command line.

Unknown keys, wrong types and numbers out of range are errors. Every field is documented where it is declared;
`params.yaml` holds the values a user is most likely to change.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import xxhash

from scanshards.settings import from_tree, load_tree

EMBEDDED = "embedded"


SHAPING = ("scans", "audit", "clips", "meshes", "bev", "latents", "texts", "shards")
PLACES = (
    ("scans", "root"),
    ("scans", "val"),
    ("bev", "recycle_after"),
    ("bev", "timeout_s"),
    ("latents", "weights"),
    ("latents", "batch_size"),
    ("latents", "device"),
    ("texts", "root"),
    ("texts", "proposals"),
    ("shards", "out"),
)
"""Fields that say where something lies or how it is run; the codec's weights are named by their SHA-256."""


@dataclass(frozen=True)
class ScansConfig:
    root: str = EMBEDDED
    """Folder that holds one folder per scan; `embedded` = the synthetic rooms that stage `synth` writes."""
    dataset: str = "scannet"
    """Recorded as `dataset` in every sample."""
    val: str = ""
    """File with the ids of held-out scans, one a line; empty: ScanNet's split lists where present."""
    full_audit: bool = False
    """Decode every frame and also reject those with a jump of the pose or with blur (section `audit`)."""


@dataclass(frozen=True)
class AuditConfig:
    """What `scans.full_audit` counts as bad (criteria: pipeline/audit.py)."""

    jump_factor: float = 10.0
    """A pose jumps if its step from both sides is so many times the scan's median step …"""
    jump_min_m: float = 0.3
    """… and above so many metres a frame (9 m/s at 30 frames a second),"""
    jump_min_deg: float = 30.0
    """or the same of its turn, with this floor in degrees a frame."""
    jump_max_frames: int = 5
    """So many frames in a row can be one jump; more are another part of the track."""
    blur_ratio: float = 0.35
    """A frame is blurred below this share of the scan's median sharpness (0 = never)."""


@dataclass(frozen=True)
class SynthConfig:
    """The embedded scans; the same numbers give the same bytes."""

    train_rooms: int = 8
    """Rooms for training, one scan each,"""
    val_rooms: int = 2
    """and rooms that are held out."""
    seed: int = 0
    """Another seed gives other rooms, walks, noise and texts."""
    frames: int = 48
    """Frames recorded per room, those with lost tracking included."""
    color_width: int = 648
    """Size of the colour pictures,"""
    color_height: int = 484
    depth_width: int = 640
    """and of the depth pictures."""
    depth_height: int = 480
    depth_noise: bool = True
    """False: depth is the exact distance rounded to a millimetre."""


@dataclass(frozen=True)
class ClipsConfig:
    per_scan: int = 1
    """Clips of 32 frames that each scan gives; they share its candidates."""
    stride: int = 1
    """Every stride-th frame with a finite pose is a candidate; 10 repeats the published frame lists."""
    min_valid_depth: float = 0.1
    """A frame with less than this share of measured depth is replaced."""
    sampling: Literal["uniform", "max_coverage"] = "uniform"
    """uniform: evenly spread over the candidates; max_coverage: greedily those that see most new surface."""


@dataclass(frozen=True)
class MeshesConfig:
    voxel_m: float = 0.025
    """Voxel edge of the TSDF fusion, metres; only for scans that bring no mesh."""
    max_depth_m: float = 4.0
    """What a frame measures beyond this is not fused: noise grows with the square of the distance."""
    max_frames: int = 300
    """At most this many frames, evenly spread, are fused."""


@dataclass(frozen=True)
class BevConfig:
    renderer: Literal["auto", "pyrender", "raycast"] = "auto"
    """auto: pyrender where a GL context can be made, else Open3D ray casting."""
    min_valid_fraction: float = 0.02
    """A BEV that covers less of its pixels counts as absent,"""
    max_black: float = 0.95
    """and so does one that is black over more of what it covers,"""
    max_one_color: float = 0.99
    """or has one colour over more of it."""
    recycle_after: int = 200
    """The process that draws with OpenGL is replaced after so many pictures; 0 = never."""
    timeout_s: float = 120.0
    """… and when a picture takes longer than this (its start included)."""


@dataclass(frozen=True)
class LatentsConfig:
    codec: Literal["tiny", "taef1", "flux"] = "tiny"
    """tiny: the embedded one; taef1, flux: see `pipeline/latents.py`."""
    weights: str = ""
    """Folder or hub id of the codec's weights; empty: the codec's own default."""
    batch_size: int = 8
    """Pictures that are encoded at once."""
    device: str = "auto"
    """A torch device (`cpu`, `cuda`); auto: a GPU where there is one."""


@dataclass(frozen=True)
class TextsConfig:
    root: str = EMBEDDED
    """Folder with the official annotation files; `embedded` = those of the synthetic rooms; empty: none."""
    proposals: str = ""
    """Folder with `SCAN.mask.npz` files (instances found by a detector, say Mask3D); empty: none."""


@dataclass(frozen=True)
class ShardsConfig:
    out: str = "shards"
    """Folder of the shards and their index."""
    count: int = 4
    """A scan goes to shard xxh3_64(scan_id) mod count, for train and val alike."""
    store_coords: bool = False
    """Also store each pixel's world coordinates: 8 MB more a clip, no quicker to read than to derive."""


@dataclass(frozen=True)
class ReportConfig:
    out: str = "report"
    """Folder of index.html."""
    run: str = "runs/latest"
    """Training run whose curves and scores are shown, if it was trained on these shards."""


@dataclass(frozen=True)
class VerifyConfig:
    """What `verify-latents` re-encodes, and what it lets pass."""

    samples: int = 8
    """So many samples, drawn by `seed`; 0 = all."""
    seed: int = 0
    min_psnr_db: float = 0.0
    """Every decoded picture is at least so like the stored one; 0 = what the codec can be held to."""
    max_difference: float = 0.02
    """Stored latents differ from new ones by at most this share (pipeline/verify_latents.py)."""


@dataclass(frozen=True)
class LimitsConfig:
    max_rejected: int = 0
    """More rejected scans than this end the run with exit status 1 (what could be built is built)."""


@dataclass(frozen=True)
class DaskConfig:
    scheduler: str = "processes"
    """`processes`: local worker processes; `none`: in this process; `tcp://…` or a scheduler file."""
    workers: int = 0
    """Local worker processes; 0 = one per core."""
    memory_limit: str = "auto"
    """Of each local worker, say `4GB`; one that needs more is killed. auto: an equal share of the memory."""


@dataclass(frozen=True)
class Config:
    work: str = "work"
    """Folder of the intermediate stores."""
    scans: ScansConfig = field(default_factory=ScansConfig)
    synth: SynthConfig = field(default_factory=SynthConfig)
    audit: AuditConfig = field(default_factory=AuditConfig)
    clips: ClipsConfig = field(default_factory=ClipsConfig)
    meshes: MeshesConfig = field(default_factory=MeshesConfig)
    bev: BevConfig = field(default_factory=BevConfig)
    latents: LatentsConfig = field(default_factory=LatentsConfig)
    texts: TextsConfig = field(default_factory=TextsConfig)
    shards: ShardsConfig = field(default_factory=ShardsConfig)
    report: ReportConfig = field(default_factory=ReportConfig)
    verify: VerifyConfig = field(default_factory=VerifyConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    dask: DaskConfig = field(default_factory=DaskConfig)

    @property
    def work_dir(self) -> Path:
        return Path(self.work)

    @property
    def synth_dir(self) -> Path:
        return self.work_dir / "synth"

    @property
    def scans_dir(self) -> Path:
        return self.synth_dir / "scans" if self.scans.root == EMBEDDED else Path(self.scans.root)

    @property
    def annotations_dir(self) -> Path | None:
        """Where annotation files are looked for; None: there are none."""
        if self.texts.root == EMBEDDED:
            return self.synth_dir / "annotations" if self.scans.root == EMBEDDED else None
        return Path(self.texts.root) if self.texts.root else None

    def hash(self, *names: str) -> str:
        """XXH3-64 hex of the named sections and single fields (`section.field`): a part of stages' keys."""
        tree = dataclasses.asdict(self)
        values = {}
        for name in names:
            section, _, field_name = name.partition(".")
            values[name] = tree[section][field_name] if field_name else tree[section]
        return _hash(values)

    def parameter_hash(self) -> str:
        """XXH3-64 hex of what shapes the shards, wherever things lie: the same in two labs that agree."""
        values = {name: dataclasses.asdict(getattr(self, name)) for name in SHAPING}
        for section, field_name in PLACES:
            del values[section][field_name]
        return _hash(values)


def _hash(values: dict[str, Any]) -> str:
    return xxhash.xxh3_64_hexdigest(json.dumps(values, sort_keys=True).encode())


RANGES: dict[str, tuple[float, float]] = {
    "audit.jump_factor": (0, math.inf),
    "audit.jump_min_m": (0, math.inf),
    "audit.jump_min_deg": (0, math.inf),
    "audit.jump_max_frames": (0, math.inf),
    "audit.blur_ratio": (0, 1),
    "synth.seed": (0, math.inf),
    "synth.frames": (1, math.inf),
    "synth.color_width": (1, math.inf),
    "synth.color_height": (1, math.inf),
    "synth.depth_width": (1, math.inf),
    "synth.depth_height": (1, math.inf),
    "clips.per_scan": (1, 1000),
    "clips.stride": (1, math.inf),
    "clips.min_valid_depth": (0, 1),
    "meshes.voxel_m": (0.001, 1),
    "meshes.max_depth_m": (0.1, 65.535),
    "meshes.max_frames": (1, math.inf),
    "bev.min_valid_fraction": (0, 1),
    "bev.max_black": (0, 1),
    "bev.max_one_color": (0, 1),
    "bev.recycle_after": (0, math.inf),
    "bev.timeout_s": (1, math.inf),
    "latents.batch_size": (1, math.inf),
    "shards.count": (1, 1_000_000),
    "verify.samples": (0, math.inf),
    "verify.seed": (0, math.inf),
    "verify.min_psnr_db": (0, math.inf),
    "verify.max_difference": (0, math.inf),
    "limits.max_rejected": (0, math.inf),
    "dask.workers": (0, math.inf),
}
"""Least and most of each number, by key (how many rooms there can be: `pipeline/synth/build.py`)."""


def load_config(overrides: list[str], params: Path | None = Path("params.yaml")) -> Config:
    """Defaults < params file (if it exists) < `section.key=value`.

    ValueError: an unknown key, a wrong type, a number out of its range.
    """
    path = params if params is not None and params.exists() else None
    config = from_tree(Config, load_tree(overrides, path))
    for key, (least, most) in RANGES.items():
        section, name = key.split(".")
        value = getattr(getattr(config, section), name)
        if not least <= value <= most:  # NaN is not either
            expected = f"at least {least:g}" if most == math.inf else f"{least:g} to {most:g}"
            raise ValueError(f"{key}: got {value!r}, expected {expected}")
    return config
