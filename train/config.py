"""Parameters of training: dataclass defaults < configs/NAME.yaml or a file < `a.b=c` on the command line.

The defaults are the method's numbers. Unknown keys and wrong types are errors. The resolved config is saved
in the run directory, so that `load_config(path=RUN_DIR/config.yaml)` gives it back.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import yaml

from scanshards.settings import from_tree, load_tree

CONFIG_DIR = Path(__file__).resolve().parent / "configs"

IMAGE_SIZE = 384
PATCH_SIZE = 14
PATCH_GRID = 27
"""SigLIP patches per side: 384 // 14."""
TOKEN_GRID = 14
"""Visual tokens per side after pooling."""
VIEW_TOKENS = TOKEN_GRID * TOKEN_GRID
"""Denoiser tokens of a view: 28x28 latents in 2x2 packs."""
BEV_GRID = 27
BEV_TOKENS = BEV_GRID * BEV_GRID
"""Denoiser tokens of a BEV: 54x54 latents in 2x2 packs."""
LATENT_TOKEN = 64
"""Numbers of one denoiser token: 16 channels x 2 x 2."""


@dataclass(frozen=True)
class VisionConfig:
    """SigLIP tower (so400m/14-384 without its last layer) and the projector behind it."""

    hidden_size: int = 1152
    intermediate_size: int = 4304
    num_layers: int = 26
    num_heads: int = 16
    frozen: bool = True
    """False trains the tower too; needed where it starts from random weights."""


@dataclass(frozen=True)
class LanguageConfig:
    """Qwen2."""

    hidden_size: int = 3584
    intermediate_size: int = 18944
    num_layers: int = 28
    num_heads: int = 28
    num_kv_heads: int = 4
    rope_theta: float = 1e6
    max_positions: int = 32768
    tie_embeddings: bool = False
    checkpointing: bool = False
    """Recompute activations in the backward pass."""


@dataclass(frozen=True)
class PositionConfig:
    """Coordinates are clamped to [min_m, max_m], divided by voxel_m and rounded half to even."""

    voxel_m: float = 0.1
    min_m: tuple[float, float, float] = (-15.0, -15.0, -5.0)
    max_m: tuple[float, float, float] = (15.0, 15.0, 5.0)


@dataclass(frozen=True)
class DenoiserConfig:
    width: int = 1024
    num_heads: int = 16
    num_blocks: int = 3
    timesteps: int = 1000


@dataclass(frozen=True)
class CrossViewConfig:
    weight: float = 1.0
    """0 trains without this loss."""
    interval: int = 4
    """Views are masked at optimiser steps divisible by this."""
    mask_ratio: float = 0.25
    draws_per_view: int = 4
    """(t, noise) draws for each masked view."""


@dataclass(frozen=True)
class GlobalViewConfig:
    weight: float = 1.0
    """0 trains without this loss."""
    interval: int = 1
    """The loss counts at optimiser steps divisible by this (the paper says 4, its code does 1)."""
    min_cover: float = 0.5
    """A BEV token counts if at least this share of its 16x16 pixels is covered by geometry."""
    draws: int = 1
    """(t, noise) draws for each BEV."""


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with linear warm-up and cosine decay to 0."""

    learning_rate: float = 1e-5
    denoiser_learning_rate: float | None = None
    """Of the denoiser; empty: as the rest."""
    warmup: float = 0.03
    """Share of the steps."""
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    clip: float = 1.0
    """Gradient norm is clipped at this; 0 = never."""


@dataclass(frozen=True)
class BatchConfig:
    visits: int = 64
    """Clip visits per optimiser step, over all processes; each carries `texts_per_visit` texts. 0: one
    forward pass of each process, however many there are."""
    micro: int = 1
    """Visits per forward pass of a process."""


@dataclass(frozen=True)
class LoaderConfig:
    workers: int = 2
    """Worker processes per process; 0 = load in the training process."""
    prefetch: int = 4
    """Visits that each worker holds ready."""


@dataclass(frozen=True)
class EngineConfig:
    """DeepSpeed."""

    zero_stage: Literal[0, 1, 2, 3] = 3
    offload_optimizer: bool = False
    precision: Literal["fp32", "bf16"] = "bf16"
    """bf16: autocast over float32 weights; the denoiser computes in float32 always."""


@dataclass(frozen=True)
class CheckpointConfig:
    every: int = 100
    """Steps; the last step always writes one."""
    keep: int = 2


@dataclass(frozen=True)
class Config:
    out: str = "runs/latest"
    """Run directory; `runs/latest` is a link to a fresh dated folder beside it."""
    seed: int = 0
    steps: int = 872
    """Optimiser steps."""
    threads: int = 0
    """CPU threads of the model; 0 = the cores shared out among the processes of this machine."""
    tokenizer: str = ""
    """Folder or hub id; empty: the embedded tiny tokenizer."""
    frames: int = 32
    """Frames per clip, spread evenly over the stored 32."""
    tasks: tuple[str, ...] = ("sqa3d", "scanqa")
    """Tasks whose texts are trained on; question answering only, for now."""
    texts_per_visit: int = 4
    """Texts behind one visual prefix."""
    condition: Literal["located", "shared"] = "located"
    """located: the denoiser's queries know where they lie; shared: as published, all views alike."""
    vision: VisionConfig = field(default_factory=VisionConfig)
    language: LanguageConfig = field(default_factory=LanguageConfig)
    position: PositionConfig = field(default_factory=PositionConfig)
    denoiser: DenoiserConfig = field(default_factory=DenoiserConfig)
    cross_view: CrossViewConfig = field(default_factory=CrossViewConfig)
    global_view: GlobalViewConfig = field(default_factory=GlobalViewConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)

    @property
    def visual_tokens(self) -> int:
        """Visual tokens of a clip: 14 rows of 14 patches and a newline for each frame."""
        return self.frames * TOKEN_GRID * (TOKEN_GRID + 1)

    def accumulation(self, world_size: int) -> int:
        """Forward passes per optimiser step of each process. ValueError: the batch does not divide."""
        share = world_size * self.batch.micro
        if self.batch.visits == 0:
            return 1
        if self.batch.visits % share:
            raise ValueError(
                f"batch.visits={self.batch.visits} does not divide over {world_size} processes x"
                f" batch.micro={self.batch.micro}; try batch.visits={-(-self.batch.visits // share) * share}"
            )
        return self.batch.visits // share


def load_config(overrides: Sequence[str] = (), name: str = "tiny", path: Path | None = None) -> Config:
    """Config of a preset (`tiny`) or YAML file (`name` may be either; `path` is a file) under overrides.

    ValueError: no such preset or file, an unknown key, a wrong type or a value out of range.
    """
    config = from_tree(Config, load_tree(overrides, path or _config_path(name)))
    _check(config)
    return config


def save_config(config: Config, path: Path) -> None:
    """Write the resolved config as YAML that `load_config` reads."""
    tree = dataclasses.asdict(
        config, dict_factory=lambda items: {k: list(v) if isinstance(v, tuple) else v for k, v in items}
    )
    path.write_text(yaml.safe_dump(tree, sort_keys=False))


def _config_path(name: str) -> Path:
    preset, file = CONFIG_DIR / f"{name}.yaml", Path(name)
    if preset.is_file():
        return preset
    if file.is_file():
        return file
    presets = ", ".join(sorted(p.stem for p in CONFIG_DIR.glob("*.yaml")))
    raise ValueError(f"--config: got {name!r}, expected one of {presets} or a YAML file")


def _check(config: Config) -> None:
    rules = (
        ("steps", config.steps, config.steps >= 1, "at least 1"),
        ("frames", config.frames, 1 <= config.frames <= 32, "1 to 32"),
        ("texts_per_visit", config.texts_per_visit, config.texts_per_visit >= 1, "at least 1"),
        ("batch.visits", config.batch.visits, config.batch.visits >= 0, "at least 0"),
        ("batch.micro", config.batch.micro, config.batch.micro >= 1, "at least 1"),
        ("cross_view.interval", config.cross_view.interval, config.cross_view.interval >= 1, "at least 1"),
        ("global_view.interval", config.global_view.interval, config.global_view.interval >= 1, "at least 1"),
        ("cross_view.draws_per_view", config.cross_view.draws_per_view, config.cross_view.draws_per_view >= 1,
         "at least 1"),
        ("global_view.draws", config.global_view.draws, config.global_view.draws >= 1, "at least 1"),
        ("cross_view.mask_ratio", config.cross_view.mask_ratio, 0 < config.cross_view.mask_ratio < 1,
         "between 0 and 1"),
        ("optimizer.warmup", config.optimizer.warmup, 0 <= config.optimizer.warmup <= 1, "0 to 1"),
        ("checkpoint.every", config.checkpoint.every, config.checkpoint.every >= 1, "at least 1"),
        ("checkpoint.keep", config.checkpoint.keep, config.checkpoint.keep >= 1, "at least 1"),
        ("tasks", config.tasks, set(config.tasks) <= {"sqa3d", "scanqa"}, "a list out of sqa3d, scanqa"),
    )  # fmt: skip
    for key, got, good, expected in rules:
        if not good:
            raise ValueError(f"{key}: got {got!r}, expected {expected}")
