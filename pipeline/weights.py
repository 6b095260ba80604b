"""The weights of a codec: where they lie or how they are had, and whether they are of the right kind."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from pipeline.config import LatentsConfig
from scanshards import schema

TINY_FOLDER = Path(__file__).resolve().parent / "assets" / "tiny_codec"
DEFAULT_WEIGHTS = {
    "tiny": str(TINY_FOLDER),
    "taef1": "madebyollin/taef1",
    "flux": "black-forest-labs/FLUX.1-schnell",
}
CLASSES = {"tiny": "AutoencoderKL", "taef1": "AutoencoderTiny", "flux": "AutoencoderKL"}
LEVELS = 4
"""Resolutions of an autoencoder that divides sizes by 2³ = 8."""
HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[\w.-]+$")
WEIGHTS = "diffusion_pytorch_model.safetensors"
HUB_FILES = [f"{folder}{name}" for folder in ("", "vae/") for name in ("config.json", WEIGHTS)]


class WeightsError(ValueError):
    """The codec's weights are missing or of another kind; the message says what to download and how."""


def weights_key(config: LatentsConfig) -> str:
    """Changes with the weights: hash of config and weights. Downloads them first if a hub id asks for it."""
    folder = find_weights(config.codec, config.weights)[0]
    checked_config(config.codec, folder)  # a wrong kind is told here, before any scan is tried
    return hashlib.sha256((folder / "config.json").read_bytes()).hexdigest() + file_sha256(folder / WEIGHTS)


def find_weights(name: str, weights: str) -> tuple[Path, str]:
    """(folder with config.json and weights, model id: hub id or name of the folder)."""
    where = weights or DEFAULT_WEIGHTS[name]
    path = Path(where).expanduser()
    is_folder = path.is_dir() or not HUB_ID.match(where) or path.parent.is_dir()
    root = path if is_folder else _hub_folder(name, where)
    for folder in (root, root / "vae"):
        if (folder / "config.json").is_file() and (folder / WEIGHTS).is_file():
            return folder, path.resolve().name if is_folder else where
    state = f"no config.json with {WEIGHTS}, nor in its subfolder vae" if root.is_dir() else "no such folder"
    raise WeightsError(f"latents.weights={where}: {state}; {_how_to_get(name)}")


def _hub_folder(name: str, hub_id: str) -> Path:
    """The snapshot in Hugging Face's cache; only what is not there yet is downloaded."""
    from huggingface_hub import snapshot_download

    try:
        cached = Path(snapshot_download(hub_id, allow_patterns=HUB_FILES, local_files_only=True))
        if any((cached / folder / WEIGHTS).is_file() for folder in ("", "vae")):
            return cached
    except OSError:
        pass  # not in the cache: download it
    try:
        return Path(snapshot_download(hub_id, allow_patterns=HUB_FILES))
    except (OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].split(". ")[0]
        raise WeightsError(
            f"weights {hub_id} are neither in the cache nor can they be downloaded ({reason}); "
            f"{_how_to_get(name)}"
        ) from error


def _how_to_get(name: str) -> str:
    if name == "tiny":
        return (
            "expected a folder that `python -m pipeline.train_codec out=DIR` wrote, or latents.weights empty"
        )
    options, licence = "", ""
    if name == "flux":
        options, licence = " --include 'vae/*'", " (its licence must be accepted on its page first)"
    command = f"hf download {DEFAULT_WEIGHTS[name]} --local-dir DIR{options}"
    return f"where there is a network run `{command}`{licence}, then set latents.weights=DIR"


def checked_config(name: str, folder: Path) -> dict[str, Any]:
    """config.json of the weights; WeightsError: another kind of autoencoder, or another latent geometry."""
    config = json.loads((folder / "config.json").read_text())
    kind, expected = config.get("_class_name"), CLASSES[name]
    if kind != expected:
        names = [n for n, c in CLASSES.items() if c == kind and n != "tiny"]
        hint = f"set latents.codec={names[0]}" if names else _how_to_get(name)
        raise WeightsError(f"{folder}: got weights of {kind}, expected {expected} for codec {name}; {hint}")
    levels = len(config.get("block_out_channels") or config.get("encoder_block_out_channels") or [])
    geometry = (config.get("latent_channels"), levels)
    if geometry != (schema.LATENT_CHANNELS, LEVELS):
        raise WeightsError(
            f"{folder}: got {geometry[0]} latent channels on {geometry[1]} levels, expected "
            f"{schema.LATENT_CHANNELS} on {LEVELS} (FLUX's geometry); {_how_to_get(name)}"
        )
    return config


def file_sha256(path: Path) -> str:
    # Read as a whole: FLUX's weights are 335 MB, which the model takes as well.
    return hashlib.sha256(path.read_bytes()).hexdigest()
