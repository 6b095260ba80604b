"""Stage `latents`: frames and BEV as latents of a frozen image codec. The pipeline's only door to diffusers.

Three codecs behind one interface, all with 16 channels at one eighth of the size:

- `flux`: the AutoencoderKL of FLUX (a folder, or hub id `black-forest-labs/FLUX.1-schnell`, subfolder `vae`);
- `taef1`: its small distilled sibling, an AutoencoderTiny without a posterior (hub id `madebyollin/taef1`);
- `tiny`: the embedded AutoencoderKL of `pipeline/assets/tiny_codec` (docs/codec.md).

Group of a scan: per clip k a subgroup `{k:02d}` with `latents` (32, m, 16, 27, 27) float16; `bev_latents`
(m, 16, 54, 54) float16, zeros where there is no BEV; attributes `passport` and `bev_passport`. With a
posterior m = 2: ((mean - shift) · scale, std · scale); without one m = 1: the scaled latents.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from numpy.typing import NDArray
from torch.nn import functional

from pipeline.config import Config, LatentsConfig
from pipeline.errors import ScanError
from pipeline.scans import ScanEntry
from scanshards import schema
from scanshards.codec import decode_jpeg

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


@dataclass(frozen=True, eq=False)
class Codec:
    """A frozen autoencoder in float32. Images are (N, 3, H, W) in [0, 1], H and W multiples of 8."""

    name: str
    model_id: str
    weights_sha256: str
    scaling_factor: float
    shift_factor: float
    posterior: bool
    """True: the encoder gives a mean and a standard deviation."""
    model: torch.nn.Module
    batch_size: int

    @torch.inference_mode()
    def encode(self, images: torch.Tensor) -> NDArray[np.float16]:
        """(N, 3, H, W) float32 in [0, 1] -> (N, m, 16, H/8, W/8).

        What float16 cannot hold becomes infinite; `build` refuses it.
        """
        parts = []
        for batch in self._batches(images):
            encoded = self.model.encode(batch * 2 - 1)
            if self.posterior:
                mean = (encoded.latent_dist.mean - self.shift_factor) * self.scaling_factor
                latents = torch.stack([mean, encoded.latent_dist.std * self.scaling_factor], dim=1)
            else:
                latents = ((encoded.latents - self.shift_factor) * self.scaling_factor)[:, None]
            parts.append(latents.half().cpu())  # (B, m, 16, H/8, W/8)
        return torch.cat(parts).numpy()

    @torch.inference_mode()
    def decode(self, latents: torch.Tensor) -> NDArray[np.uint8]:
        """(N, 16, h, w) scaled latents (means or samples) -> (N, 8h, 8w, 3) RGB."""
        parts = []
        for batch in self._batches(latents.float()):
            images = self.model.decode(batch / self.scaling_factor + self.shift_factor).sample / 2 + 0.5
            parts.append((images.clamp(0, 1) * 255).round().byte().cpu())  # (B, 3, 8h, 8w)
        return torch.cat(parts).permute(0, 2, 3, 1).contiguous().numpy()

    def passport(self, width: int, height: int) -> dict[str, Any]:
        """What clip.json says about latents of images resized to (width, height)."""
        return {
            "codec": self.name,
            "model_id": self.model_id,
            "weights_sha256": self.weights_sha256,
            "scaling_factor": self.scaling_factor,
            "shift_factor": self.shift_factor,
            "input_width": width,
            "input_height": height,
            "filter": "bilinear",
            "dtype": "float16",
            "posterior": self.posterior,
        }

    def _batches(self, tensor: torch.Tensor) -> Iterator[torch.Tensor]:
        # On a GPU, TF32 would round the convolutions to 10 bits.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            for batch in tensor.split(self.batch_size):
                yield batch.to(next(self.model.parameters()).device)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Several threads sum and resize differently in the last bit: equal scans would give other bytes.

    Worker processes keep the cores busy.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@_one_thread()
def build(entry: ScanEntry, group: zarr.Group, config: Config, inputs: dict[str, zarr.Group]) -> None:
    """Fill the scan's group. ScanError: a picture's latents do not fit float16."""
    codec = load_codec(config.latents)
    clips = inputs["clips"]
    for k, meta in enumerate(clips.attrs["clips"]):
        images = resize_views(_frames(clips[f"{k:02d}"]))
        latents = codec.encode(images)
        names = [f"clip {k:02d} frame {index}" for index in meta["frame_indices"]]
        _check_finite(latents, entry.scan_id, names)
        assert latents.shape[2:] == (schema.LATENT_CHANNELS, schema.VIEW_LATENT_SIZE, schema.VIEW_LATENT_SIZE)
        group.create_group(f"{k:02d}").create_array("latents", data=latents, chunks=latents.shape)
    bev = _bev_latents(codec, inputs["bev"])
    _check_finite(bev[None], entry.scan_id, ["BEV"])
    group.create_array("bev_latents", data=bev, chunks=bev.shape)
    group.attrs["passport"] = codec.passport(schema.VIEW_IMAGE_SIZE, schema.VIEW_IMAGE_SIZE)
    group.attrs["bev_passport"] = codec.passport(schema.BEV_SIZE, schema.BEV_SIZE) | {"filter": "none"}


def resize_views(frames: NDArray[np.uint8]) -> torch.Tensor:
    """(N, H, W, 3) RGB -> (N, 3, 216, 216) float32 in [0, 1]; bilinear without antialias, as published."""
    images = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
    size = (schema.VIEW_IMAGE_SIZE, schema.VIEW_IMAGE_SIZE)
    return functional.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=False)


def load_codec(config: LatentsConfig) -> Codec:
    """The codec that the parameters name, loaded once per process. WeightsError: it cannot be had."""
    return _load(config.codec, config.weights, config.device, config.batch_size)


def on_gpu(config: LatentsConfig) -> bool:
    """Whether the codec runs on a GPU here: then one process a GPU encodes, and Dask has to know it."""
    return _device(config.device).startswith("cuda")


def weights_key(config: LatentsConfig) -> str:
    """Changes with the weights: hash of config and weights. Downloads them first if a hub id asks for it."""
    folder = _find(config.codec, config.weights)[0]
    _checked_config(config.codec, folder)  # a wrong kind is told here, before any scan is tried
    return hashlib.sha256((folder / "config.json").read_bytes()).hexdigest() + _sha256(folder / WEIGHTS)


def new_autoencoder(config: dict[str, Any]) -> torch.nn.Module:
    """A randomly initialised AutoencoderKL of diffusers."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(**config)


def _device(device: str) -> str:
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


@functools.lru_cache(maxsize=1)
def _load(name: str, weights: str, device: str, batch_size: int) -> Codec:
    import diffusers

    # At its default level it reports settings of other versions that these files carry.
    diffusers.utils.logging.set_verbosity_error()
    folder, model_id = _find(name, weights)
    config = _checked_config(name, folder)
    model = getattr(diffusers, CLASSES[name]).from_pretrained(
        folder,
        torch_dtype=torch.float32,
        use_safetensors=True,
        local_files_only=True,
        low_cpu_mem_usage=False,
    )
    return Codec(
        name=name,
        model_id=model_id,
        weights_sha256=_sha256(folder / WEIGHTS),
        scaling_factor=float(config["scaling_factor"]),
        shift_factor=float(config.get("shift_factor") or 0.0),
        posterior=CLASSES[name] == "AutoencoderKL",
        model=model.eval().requires_grad_(False).to(_device(device)),
        batch_size=batch_size,
    )


def _find(name: str, weights: str) -> tuple[Path, str]:
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


def _checked_config(name: str, folder: Path) -> dict[str, Any]:
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


def _frames(clip: zarr.Group) -> NDArray[np.uint8]:
    """(32, 384, 384, 3): the stored JPEGs, decoded."""
    files, offsets = clip["jpeg"][:], clip["jpeg_offsets"][:]
    pairs = zip(offsets[:-1], offsets[1:], strict=True)
    frames = [decode_jpeg(files[a:b].tobytes(), (schema.FRAME_SIZE, schema.FRAME_SIZE, 3)) for a, b in pairs]
    assert len(frames) == schema.NUM_FRAMES
    return np.stack(frames)


def _bev_latents(codec: Codec, bev: zarr.Group) -> NDArray[np.float16]:
    """(m, 16, 54, 54); zeros where the scan has no BEV."""
    if not bev.attrs["bev"]["present"]:
        shape = (1 + codec.posterior, schema.LATENT_CHANNELS, schema.BEV_LATENT_SIZE, schema.BEV_LATENT_SIZE)
        return np.zeros(shape, np.float16)
    image = torch.from_numpy(bev["bev"][:]).permute(2, 0, 1)[None].float() / 255
    return codec.encode(image)[0]


def _check_finite(latents: NDArray[np.float16], scan_id: str, names: list[str]) -> None:
    for picture, name in zip(latents, names, strict=True):
        if not np.isfinite(picture).all():
            count = int(np.count_nonzero(~np.isfinite(picture)))
            raise ScanError(
                f"{scan_id} {name}: {count} latent values are NaN or beyond float16, expected finite values "
                f"below 65,504; check latents.weights"
            )


def _sha256(path: Path) -> str:
    # Read as a whole: FLUX's weights are 335 MB, which the model takes as well.
    return hashlib.sha256(path.read_bytes()).hexdigest()
