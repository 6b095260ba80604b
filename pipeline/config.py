"""Parameters of the pipeline: dataclass defaults < params.yaml < `a.b=c` on the command line.

Unknown keys and wrong types are errors. Every field is documented where it is declared; `params.yaml`
holds the values a user is most likely to change.
"""

from __future__ import annotations

import dataclasses
import json
import re
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import xxhash
import yaml

EMBEDDED = "embedded"
OVERRIDE = re.compile(r"^[a-z0-9_.]+=")


@dataclass(frozen=True)
class ScansConfig:
    root: str = EMBEDDED
    """Folder that holds one folder per scan; `embedded` = the synthetic rooms that stage `synth` writes."""
    dataset: str = "scannet"
    """Recorded as `dataset` in every sample."""
    val: str = ""
    """File with the ids of held-out scans, one a line; empty: ScanNet's split lists where present."""


@dataclass(frozen=True)
class SynthConfig:
    train_rooms: int = 8
    val_rooms: int = 2
    seed: int = 0
    frames: int = 60
    """Frames recorded per room, those with lost tracking included."""
    color_width: int = 648
    color_height: int = 484
    depth_width: int = 640
    depth_height: int = 480
    depth_noise: bool = True
    """False: depth is the exact distance rounded to a millimetre."""


@dataclass(frozen=True)
class ClipsConfig:
    per_scan: int = 1
    stride: int = 1
    """Every stride-th frame with a finite pose is a candidate; 10 repeats the published frame lists."""
    min_valid_depth: float = 0.1
    """A frame with less than this share of measured depth is replaced."""


@dataclass(frozen=True)
class MeshesConfig:
    voxel_m: float = 0.02
    """Voxel edge of the TSDF fusion, metres; only for scans that bring no mesh."""
    max_depth_m: float = 4.0
    max_frames: int = 300
    """At most this many frames, evenly spread, are fused."""


@dataclass(frozen=True)
class BevConfig:
    renderer: Literal["auto", "pyrender", "raycast"] = "auto"
    """auto: pyrender where a GL context can be made, else Open3D ray casting."""
    min_valid_fraction: float = 0.02
    """A BEV that covers less of its pixels counts as absent."""


@dataclass(frozen=True)
class LatentsConfig:
    codec: Literal["tiny", "taef1", "flux"] = "tiny"
    weights: str = ""
    """Folder or hub id of the codec's weights; empty: the codec's own default."""
    batch_size: int = 8
    device: str = "auto"


@dataclass(frozen=True)
class TextsConfig:
    root: str = EMBEDDED
    """Folder with the official annotation files; `embedded` = those of the synthetic rooms; empty: none."""


@dataclass(frozen=True)
class ShardsConfig:
    out: str = "shards"
    count: int = 4
    """A scan goes to shard xxh3_64(scan_id) mod count, for train and val alike."""
    store_coords: bool = False


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


@dataclass(frozen=True)
class Config:
    work: str = "work"
    """Folder of the intermediate stores."""
    scans: ScansConfig = field(default_factory=ScansConfig)
    synth: SynthConfig = field(default_factory=SynthConfig)
    clips: ClipsConfig = field(default_factory=ClipsConfig)
    meshes: MeshesConfig = field(default_factory=MeshesConfig)
    bev: BevConfig = field(default_factory=BevConfig)
    latents: LatentsConfig = field(default_factory=LatentsConfig)
    texts: TextsConfig = field(default_factory=TextsConfig)
    shards: ShardsConfig = field(default_factory=ShardsConfig)
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

    def hash(self, *sections: str) -> str:
        """XXH3-64 hex of the named sections (all that shape the data, by default)."""
        names = sections or ("scans", "clips", "meshes", "bev", "latents", "texts", "shards")
        values = {name: dataclasses.asdict(getattr(self, name)) for name in names}
        return xxhash.xxh3_64_hexdigest(json.dumps(values, sort_keys=True).encode())


def load_config(overrides: list[str], params: Path | None = Path("params.yaml")) -> Config:
    """Defaults < params file (if it exists) < `section.key=value`; ValueError on any unknown key."""
    tree: dict[str, Any] = {}
    if params is not None and params.exists():
        tree = yaml.safe_load(params.read_text()) or {}
        if not isinstance(tree, dict):
            raise ValueError(f"{params}: got a {type(tree).__name__}, expected a mapping of sections")
    for override in overrides:
        key, _, value = override.partition("=")
        node, *rest = key.split(".")
        target = tree
        while rest:
            target = target.setdefault(node, {})
            node, *rest = rest
            if not isinstance(target, dict):
                raise ValueError(f"override {override!r}: {key} does not name a section's field")
        target[node] = yaml.safe_load(value) if value else ""
    return from_tree(Config, tree)


def from_tree(cls: type, tree: dict[str, Any], path: str = "") -> Any:
    """Build a frozen dataclass from nested dicts; a wrong key or type is a ValueError that names it."""
    if not isinstance(tree, dict):
        raise ValueError(f"{path or 'config'}: got {tree!r}, expected a section with fields")
    hints = typing.get_type_hints(cls)
    known = {f.name for f in dataclasses.fields(cls)}
    unknown = sorted(set(tree) - known)
    if unknown:
        where = f"{path}.{unknown[0]}" if path else unknown[0]
        raise ValueError(f"unknown key {where}; known here: {', '.join(sorted(known))}")
    values = {}
    for name, value in tree.items():
        where = f"{path}.{name}" if path else name
        hint = hints[name]
        values[name] = (
            from_tree(hint, value, where) if dataclasses.is_dataclass(hint) else _typed(hint, value, where)
        )
    return cls(**values)


def _typed(hint: Any, value: Any, where: str) -> Any:
    if typing.get_origin(hint) is Literal:
        choices = typing.get_args(hint)
        if value not in choices:
            raise ValueError(f"{where}: got {value!r}, expected one of {', '.join(map(str, choices))}")
        return value
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        if value is None:
            return None
        (hint,) = (a for a in typing.get_args(hint) if a is not type(None))
    if hint is float and type(value) is int:
        return float(value)
    if hint is str and value is None:
        return ""
    if type(value) is not hint:
        raise ValueError(f"{where}: got {value!r} ({type(value).__name__}), expected {hint.__name__}")
    return value
