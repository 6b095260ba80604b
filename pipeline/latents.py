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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import zarr
from numpy.typing import NDArray
from torch.nn import functional

from pipeline.config import Config, LatentsConfig
from pipeline.errors import ScanError
from pipeline.scans import ScanEntry
from pipeline.timing import part
from pipeline.weights import CLASSES, WEIGHTS, checked_config, file_sha256, find_weights
from scanshards import schema
from scanshards.codec import decode_jpeg


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
def one_thread() -> Iterator[None]:
    """Several threads sum and resize differently in the last bit: equal scans would give other bytes.

    Worker processes keep the cores busy.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@one_thread()
def build(entry: ScanEntry, group: zarr.Group, config: Config, inputs: dict[str, zarr.Group]) -> None:
    """Fill the scan's group. ScanError: a picture's latents do not fit float16."""
    with part("load codec"):
        codec = load_codec(config.latents)
    clips = inputs["clips"]
    for k, meta in enumerate(clips.attrs["clips"]):
        with part("decode and resize"):
            images = resize_views(_frames(clips[f"{k:02d}"]))
        with part("encode views"):
            latents = codec.encode(images)
        names = [f"clip {k:02d} frame {index}" for index in meta["frame_indices"]]
        _check_finite(latents, entry.scan_id, names)
        assert latents.shape[2:] == (schema.LATENT_CHANNELS, schema.VIEW_LATENT_SIZE, schema.VIEW_LATENT_SIZE)
        group.create_group(f"{k:02d}").create_array("latents", data=latents, chunks=latents.shape)
    with part("encode BEV"):
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
    folder, model_id = find_weights(name, weights)
    config = checked_config(name, folder)
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
        weights_sha256=file_sha256(folder / WEIGHTS),
        scaling_factor=float(config["scaling_factor"]),
        shift_factor=float(config.get("shift_factor") or 0.0),
        posterior=CLASSES[name] == "AutoencoderKL",
        model=model.eval().requires_grad_(False).to(_device(device)),
        batch_size=batch_size,
    )


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
