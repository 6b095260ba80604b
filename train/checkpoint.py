"""Run directories and checkpoints.

    RUN_DIR/config.yaml          the resolved config          RUN_DIR/versions.json   what made the run
    RUN_DIR/tokenizer/           as trained with              RUN_DIR/log.jsonl       a row per step
    RUN_DIR/checkpoints/step-000120/
        model.safetensors        weights                      engine/                 DeepSpeed's state
        run.json                 step, clips taken, size and XXH3-64 of each file

A checkpoint is written under a temporary name, synced and renamed: what bears its final name is whole.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from scanshards.write import sync
from train.config import Config, load_config
from train.lmm import SceneModel
from train.prompt import load_tokenizer

MODEL_FILE = "model.safetensors"
STATE_FILE = "run.json"
_READ = 1 << 22


def load_run(run_dir: str | Path) -> tuple[SceneModel, PreTrainedTokenizerBase, Config]:
    """(model, tokenizer, config) of a run's last whole checkpoint; eval mode, CPU, float32.

    `run_dir` may be one checkpoint's folder too. ValueError: no checkpoint, or its weights do not fit.
    """
    run_dir = Path(run_dir)
    if run_dir.parent.name == "checkpoints":
        folder, run_dir = run_dir, run_dir.parents[1]
    else:
        folder = latest(run_dir)
    config = load_config(path=run_dir / "config.yaml")
    tokenizer = load_tokenizer(str(run_dir / "tokenizer"))
    model = SceneModel(config, len(tokenizer))
    load_weights(model, folder / MODEL_FILE)
    return model.eval(), tokenizer, config


def checkpoints(run_dir: Path) -> list[Path]:
    """Folders of whole checkpoints, oldest first."""
    return sorted(path.parent for path in (run_dir / "checkpoints").glob(f"step-*/{STATE_FILE}"))


def latest(run_dir: Path) -> Path:
    """The newest checkpoint whose files are as they were written. ValueError: there is none.

    A damaged one is passed over, with a warning that names it.
    """
    for folder in reversed(checkpoints(run_dir)):
        damage = find_damage(folder)
        if damage is None:
            return folder
        warnings.warn(f"checkpoint {folder} is damaged ({damage}); the one before it is used", stacklevel=2)
    raise ValueError(f"{run_dir}: no whole checkpoint, expected {run_dir}/checkpoints/step-*; train it first")


def find_damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint's files, or None."""
    try:
        files = read_state(folder)["files"].items()
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{STATE_FILE} cannot be read: {error}"
    for name, wanted in files:
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        got = {"bytes": path.stat().st_size, "xxh3": _file_hash(path)}
        if got != wanted:
            return f"{name}: got {got}, expected {wanted}"
    return None


def read_state(folder: Path) -> dict[str, Any]:
    return json.loads((folder / STATE_FILE).read_text())


def save_weights(weights: dict[str, Tensor], path: Path) -> None:
    save_file(
        {name: tensor.contiguous() for name, tensor in weights.items()}, path, metadata={"format": "pt"}
    )


def load_weights(model: SceneModel, path: Path) -> None:
    """Fill a model; every tensor must be there and fit, ValueError names the first that does not."""
    wanted = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    with safe_open(path, framework="pt") as file:
        got = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
    for name in sorted(wanted.keys() | got.keys()):
        if wanted.get(name) != got.get(name):
            raise ValueError(f"{path}: {name} is {got.get(name)}, expected {wanted.get(name)}")
    tensors = load_file(path)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tensors[name])


def begin(run_dir: Path, step: int) -> Path:
    """An empty temporary folder for the checkpoint of a step, which `finish` makes final."""
    folder = run_dir / "checkpoints" / f".step-{step:06d}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def finish(folder: Path, state: dict[str, Any], keep: int) -> Path:
    """Hash and sync the files, write the state, rename; then delete all but the last `keep` checkpoints."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    listed = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "xxh3": _file_hash(path)}
        for path in files
    }
    (folder / STATE_FILE).write_text(json.dumps({**state, "files": listed}, indent=1) + "\n")
    for path in (*files, folder / STATE_FILE, *{path.parent for path in files}):
        sync(path)
    final = folder.with_name(folder.name.removeprefix("."))
    shutil.rmtree(final, ignore_errors=True)
    os.replace(folder, final)
    sync(final.parent)
    for old in checkpoints(final.parents[1])[:-keep]:
        shutil.rmtree(old)
    return final


def _file_hash(path: Path) -> str:
    digest = xxhash.xxh3_64()
    with path.open("rb") as file:
        while block := file.read(_READ):
            digest.update(block)
    return digest.hexdigest()
