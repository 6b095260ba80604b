"""Train the embedded `tiny` codec: `python -m pipeline.train_codec out=DIR steps=N seed=S`.

An AutoencoderKL with FLUX's latent geometry (16 channels, one eighth of the size), small enough to live in
the repository. It learns from crops of freely licensed photographs that PyPI packages ship, of rendered
rooms and of drawn leaves (docs/codec.md lists them with their licences). Needs scikit-image, scikit-learn
and matplotlib, for their pictures only. The same seed gives the same crops; a stopped run goes on from its
last checkpoint.
"""

from __future__ import annotations

import json
import math
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import nn
from torch.nn import functional

from pipeline.codec_pictures import HELD_OUT_PHOTO, PHOTOS, leaves, photos, random_crop, rooms
from pipeline.codec_start import start_linear
from pipeline.latents import new_autoencoder
from scanshards.schema import VIEW_IMAGE_SIZE
from scanshards.settings import from_tree, load_tree, split_arguments

MODEL = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (16, 32, 48, 64),
    "layers_per_block": 1,
    "latent_channels": 16,
    "norm_num_groups": 4,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
    "mid_block_add_attention": False,
    "force_upcast": False,
    "sample_size": VIEW_IMAGE_SIZE,
}
SHARES = {"photos": 0.4, "rooms": 0.4, "leaves": 0.2}
VIEW = VIEW_IMAGE_SIZE
HELD_OUT_ROOMS = 2
START_BATCHES = 12
"""Batches of crops that the linear start is fitted to."""

Pools = dict[str, list[NDArray[np.uint8]]]


@dataclass(frozen=True)
class TrainConfig:
    out: str = "runs/tiny_codec"
    steps: int = 2400
    seed: int = 0
    muon_learning_rate: float = 2e-3
    """Peak rate of the convolutions."""
    adam_learning_rate: float = 5e-4
    """Peak rate of everything else: norms, biases, first and last convolutions."""
    warmup: int = 50
    batch_size: int = 8
    crop: int = 72
    """Side of the crops, pixels."""
    view_share: float = 0.15
    """This share of the steps, the last ones, sees views of 216 pixels: group norms then meet the statistics
    of their use."""
    view_batch_size: int = 2
    kl_weight: float = 1e-4
    """Weight of the mean KL per latent value. Half of it is about the squared error that sampling adds."""
    l1_weight: float = 0.02
    rooms: int = 16
    """Rendered training rooms; 0: photographs and leaves alone."""
    room_views: int = 6
    leaves: int = 80
    """Drawn pictures of overlapping leaves."""
    checkpoint_every: int = 100


def pictures(config: TrainConfig) -> Pools:
    """Training and held-out pictures by kind; `config.out` keeps the rendered ones for a resumed run."""
    cache = Path(config.out) / "rooms.npz"
    if config.rooms and not cache.exists():
        train_rooms = rooms(range(config.rooms), config.room_views, config.seed)
        held_out = rooms(range(-HELD_OUT_ROOMS, 0), config.room_views, config.seed)
        np.savez_compressed(cache, rooms=train_rooms, held_out_rooms=held_out)
    rendered = dict(np.load(cache)) if config.rooms else {}
    shipped = photos(PHOTOS)
    return {
        "photos": shipped,
        "leaves": leaves(config.leaves, config.seed, shipped),
        "rooms": list(rendered.get("rooms", [])),
        "held_out_photo": photos(HELD_OUT_PHOTO),
        "held_out_rooms": list(rendered.get("held_out_rooms", [])),
    }


def batch(pools: Pools, step: int, config: TrainConfig) -> torch.Tensor:
    """Crops (B, 3, S, S) float32 in [-1, 1]; a function of seed and step, so a resumed run sees the same."""
    rng = np.random.default_rng([config.seed, step])
    whole = step >= config.steps * (1 - config.view_share)
    size, count = (VIEW, config.view_batch_size) if whole else (config.crop, config.batch_size)
    names = [name for name in SHARES if pools[name]]
    weights = np.array([SHARES[name] for name in names])
    chosen = rng.choice(len(names), size=count, p=weights / weights.sum())
    crops = []
    for name in (names[i] for i in chosen):
        pool = pools[name]
        crops.append(random_crop(pool[rng.integers(len(pool))], size, rng))
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 127.5 - 1


def loss_terms(
    model: nn.Module, images: torch.Tensor, noise: torch.Generator, config: TrainConfig
) -> tuple[torch.Tensor, torch.Tensor]:
    """(loss, squared error): reconstruction from a sampled latent, and the KL of its posterior to N(0, 1)."""
    with torch.autocast("cpu", torch.bfloat16):
        posterior = model.encode(images).latent_dist
        mean, log_var = posterior.mean.float(), posterior.logvar.float()
        sample = mean + (0.5 * log_var).exp() * torch.randn(mean.shape, generator=noise)
        decoded = model.decode(sample).sample
    error = decoded.float() - images
    kl = 0.5 * (mean**2 + log_var.exp() - 1 - log_var).mean()
    mse = (error**2).mean()
    return mse + config.l1_weight * error.abs().mean() + config.kl_weight * kl, mse


class Optimizer:
    """Muon for the inner convolutions, seen as (out, in·k·k) matrices, and AdamW for the rest.

    Muon (Jordan 2024) needs less than half of AdamW's steps here (docs/codec.md).
    """

    def __init__(self, model: nn.Module, config: TrainConfig) -> None:
        inner = [p for p in model.parameters() if p.ndim == 4 and min(p.shape[:2]) > 3]
        others = [p for p in model.parameters() if not any(p is q for q in inner)]
        # torch's Muon takes matrices only: these share the storage of the convolutions.
        self.pairs = [(p, nn.Parameter(p.data.flatten(1))) for p in inner]
        matrices = [matrix for _, matrix in self.pairs]
        self.parts = (
            (torch.optim.Muon(matrices, weight_decay=0.0), config.muon_learning_rate),
            (torch.optim.AdamW(others, betas=(0.9, 0.99), weight_decay=0.0), config.adam_learning_rate),
        )
        self.model = model

    def step(self, loss: torch.Tensor, rate: float) -> None:
        """One update; `rate` in [0, 1] scales the peak learning rates."""
        self.model.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for convolution, matrix in self.pairs:
            matrix.grad = convolution.grad.flatten(1)
        for part, peak in self.parts:
            part.param_groups[0]["lr"] = peak * rate
            part.step()

    def state_dict(self) -> list[dict[str, Any]]:
        return [part.state_dict() for part, _ in self.parts]

    def load_state_dict(self, state: list[dict[str, Any]]) -> None:
        for (part, _), values in zip(self.parts, state, strict=True):
            part.load_state_dict(values)


def learning_rate(step: int, config: TrainConfig) -> float:
    """Share of the peak rate: linear warm-up, then half a cosine to zero."""
    rise = min(1.0, (step + 1) / config.warmup)
    return rise * 0.5 * (1 + math.cos(math.pi * step / config.steps))


def train(model: nn.Module, pools: Pools, config: TrainConfig, console: Console) -> None:
    """Train in place from the last checkpoint in `config.out`, or from the linear start."""
    checkpoint = Path(config.out) / "checkpoint.pt"
    optimizer, first = Optimizer(model, config), 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    else:
        crops = replace(config, steps=START_BATCHES, view_share=0.0)
        start_linear(model, torch.cat([batch(pools, step, crops) for step in range(START_BATCHES)]))
        console.print(
            f"linear start: {evaluate(model, pools['held_out_photo']):.2f} dB on the held-out photo"
        )
    start, errors = time.perf_counter(), []
    for step in range(first, config.steps):
        noise = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        loss, mse = loss_terms(model, batch(pools, step, config), noise, config)
        optimizer.step(loss, learning_rate(step, config))
        errors.append(float(mse.detach()))
        if (step + 1) % config.checkpoint_every == 0 or step + 1 == config.steps:
            row = {
                "step": step + 1,
                "train_psnr_db": round(10 * math.log10(4 / float(np.mean(errors))), 2),
                "photo_psnr_db": round(evaluate(model, pools["held_out_photo"]), 2),
                "rooms_psnr_db": round(evaluate(model, pools["held_out_rooms"]), 2),
                "seconds": round(time.perf_counter() - start, 1),
            }
            with (Path(config.out) / "log.jsonl").open("a") as log:
                log.write(json.dumps(row) + "\n")
            console.print("  ".join(f"{name} {value}" for name, value in row.items()))
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}
            torch.save(state, checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").replace(checkpoint)
            errors = []


@torch.no_grad()
def evaluate(model: nn.Module, images: list[NDArray[np.uint8]]) -> float:
    """Mean PSNR in dB of encoding and decoding the images' centre squares at 216 pixels, without sampling."""
    values = []
    for image in images:
        view = center_view(image)
        decoded = model.decode(model.encode(view * 2 - 1).latent_dist.mean).sample / 2 + 0.5
        values.append(-10 * math.log10(float((decoded.clamp(0, 1) - view).square().mean())))
    return float(np.mean(values)) if values else math.nan


def center_view(image: NDArray[np.uint8]) -> torch.Tensor:
    """The centre square as (1, 3, 216, 216) in [0, 1], resized as the pipeline resizes frames."""
    side = min(image.shape[:2])
    y, x = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    square = torch.from_numpy(image[y : y + side, x : x + side].copy()).permute(2, 0, 1)[None].float() / 255
    return functional.interpolate(square, size=(VIEW, VIEW), mode="bilinear", align_corners=False)


@torch.no_grad()
def save(model: nn.Module, pools: Pools, config: TrainConfig) -> dict[str, float]:
    """Write the weights as float16, with the scale and shift that give training latents mean 0 and std 1."""
    views = [center_view(image) for name in SHARES for image in pools[name][:60]]
    posteriors = [model.encode(view * 2 - 1).latent_dist for view in views]
    means = torch.cat([posterior.mean for posterior in posteriors])
    scale, shift = 1 / float(means.std()), float(means.mean())
    noise_std = float(torch.cat([posterior.std for posterior in posteriors]).mean()) * scale
    model.register_to_config(scaling_factor=round(scale, 4), shift_factor=round(shift, 4))
    model.half().save_pretrained(config.out)
    return {"scaling_factor": scale, "shift_factor": shift, "mean_scaled_posterior_std": noise_std}


def run(config: TrainConfig, console: Console) -> None:
    """Pictures, training, weights. ValueError: a package that ships photographs is missing."""
    torch.set_num_threads(1)
    torch.manual_seed(config.seed)
    Path(config.out).mkdir(parents=True, exist_ok=True)
    pools = pictures(config)
    model = new_autoencoder(MODEL)
    train(model, pools, config, console)
    facts = save(model, pools, config)
    console.print("  ".join(f"{name} {value:.4f}" for name, value in facts.items()))


def main(argv: list[str]) -> int:
    options, overrides = split_arguments(argv)
    errors = Console(stderr=True, soft_wrap=True)
    try:
        if options:
            raise ValueError(f"unknown option {options[0]}; expected key=value")
        config = from_tree(TrainConfig, load_tree(overrides))
    except ValueError as error:
        errors.print(f"train_codec: {error}")
        return 2
    try:
        run(config, Console(soft_wrap=True))
    except ValueError as error:
        errors.print(f"train_codec: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
