"""Where the training of the tiny codec starts: at the best linear codec, not at noise.

Every residual branch is silenced (its last convolution is zero), which leaves one linear path through
encoder and decoder. The encoder's strided convolutions get the principal components of 2x2 blocks of the
level above, so that the latents are close to the 16 principal components of 8x8 pixel blocks. The decoder's
convolutions are the least-squares maps back, level by level. The last normalisation and SiLU of each half
are made linear: channels come in pairs (x, -x), as SiLU(x) - SiLU(-x) = x, and each group holds constants
so large that its norm is fixed. From random weights it takes more than 500 steps to come to the same error
(docs/codec.md).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

CONSTANT = 10.0
"""Size of the constants beside channels of standard deviation 1 in the last group norms."""
MAX_EQUATIONS = 100_000
SHIFTS = ((0, 1), (0, -1), (1, 0), (-1, 0))


@torch.no_grad()
def start_linear(model: nn.Module, images: Tensor) -> None:
    """Set the weights of a fresh AutoencoderKL in place from sample crops (N, 3, S, S) in [-1, 1]."""
    for name, module in model.named_modules():
        if name.endswith("conv2"):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    levels = _start_encoder(model.encoder, images)
    latents = model.encoder(images)[:, : model.config.latent_channels]
    _start_decoder(model.decoder, latents, levels)


def _start_encoder(encoder: nn.Module, images: Tensor) -> list[Tensor]:
    """Linear encoder; returns the features of each level, (N, C, S, S) images first."""
    _copy_channels(encoder.conv_in, 3)
    levels = [images]
    for block in encoder.down_blocks[:-1]:
        count = levels[-1].shape[1]
        if block.resnets[0].conv_shortcut is not None:
            _copy_channels(block.resnets[0].conv_shortcut, count)
        conv = block.downsamplers[0].conv
        filters = _principal_filters(levels[-1], conv.out_channels)
        conv.weight[: len(filters)] = 0
        conv.weight[: len(filters), :count, :2, :2] = filters
        conv.bias[: len(filters)] = 0
        levels.append(functional.conv2d(levels[-1], filters, stride=2))
    features = levels[-1]
    scale = 1 / features.std(dim=(0, 2, 3))
    offset = -features.mean(dim=(0, 2, 3)) * scale
    shortcut, out = encoder.down_blocks[-1].resnets[0].conv_shortcut, encoder.conv_out
    latents = out.out_channels // 2
    _pair_channels(shortcut, encoder.conv_norm_out, out, (scale[:latents], offset[:latents]))
    # A posterior that starts at std 1 would drown the signal.
    out.weight[latents:] = 0
    out.bias[latents:] = -4.0
    return levels


def _start_decoder(decoder: nn.Module, latents: Tensor, levels: list[Tensor]) -> None:
    """Linear decoder: each upsampling convolution predicts the encoder's features one level up."""
    conv = decoder.conv_in
    _copy_channels(conv, latents.shape[1])
    for row, (channel, (dy, dx)) in enumerate(
        _shifted(latents.shape[1], conv.out_channels), latents.shape[1]
    ):
        conv.weight[row] = 0
        conv.weight[row, channel, 1 + dy, 1 + dx] = 1
    features = conv(latents)
    for block, target in zip(decoder.up_blocks[:-1], reversed(levels[:-1]), strict=True):
        shortcut, conv = block.resnets[0].conv_shortcut, block.upsamplers[0].conv
        if shortcut is not None:
            _copy_channels(shortcut, shortcut.out_channels)
            features = features[:, : shortcut.out_channels]
        features = functional.interpolate(features, scale_factor=2.0, mode="nearest")
        _fit(conv, features, target)
        features = conv(features)
    ones, zeros = torch.ones(3), torch.zeros(3)
    _pair_channels(
        decoder.up_blocks[-1].resnets[0].conv_shortcut, decoder.conv_norm_out, decoder.conv_out, (ones, zeros)
    )


def _copy_channels(conv: nn.Conv2d, count: int) -> None:
    """Output c = input c for the first `count` channels."""
    middle = conv.kernel_size[0] // 2
    conv.weight[:count] = 0
    conv.bias[:count] = 0
    for channel in range(count):
        conv.weight[channel, channel, middle, middle] = 1


def _principal_filters(features: Tensor, limit: int) -> Tensor:
    """The leading principal components of 2x2 blocks as filters (K, C, 2, 2), K <= limit."""
    count = features.shape[1]
    blocks = functional.unfold(features, 2, stride=2).transpose(1, 2).reshape(-1, 4 * count)
    _, vectors = torch.linalg.eigh(torch.cov(blocks.T))
    return vectors.flip(1)[:, :limit].T.reshape(-1, count, 2, 2)


def _pair_channels(
    first: nn.Conv2d, norm: nn.GroupNorm, last: nn.Conv2d, affine: tuple[Tensor, Tensor]
) -> None:
    """Make `first`, group norm, SiLU, `last` the identity on scale·x + offset for the leading channels x.

    The channels go round robin into the groups, each as a pair (x, -x); each group also gets (c, -c).
    """
    size = norm.num_channels // norm.num_groups
    first.weight *= 0.1
    last.weight *= 0.1
    last.bias.zero_()
    slots = [group * size for group in range(norm.num_groups)]
    for channel, (scale, offset) in enumerate(zip(*affine, strict=True)):
        slot = slots[channel % norm.num_groups]
        slots[channel % norm.num_groups] += 2
        last.weight[channel] = 0
        for row, sign in ((slot, 1.0), (slot + 1, -1.0)):
            first.weight[row] = 0
            first.weight[row, channel] = sign * scale
            first.bias[row] = sign * offset
            last.weight[channel, row, 1, 1] = sign
    for group, slot in enumerate(slots):
        first.weight[slot : slot + 2] = 0
        first.bias[slot : slot + 2] = torch.tensor([CONSTANT, -CONSTANT])
        pairs = slot - group * size
        norm.weight[group * size : slot] = ((2 * CONSTANT**2 + pairs) / size) ** 0.5


def _shifted(channels: int, total: int) -> list[tuple[int, tuple[int, int]]]:
    """What the channels beyond the first `channels` hold: neighbours of the leading ones."""
    return [(number // len(SHIFTS), SHIFTS[number % len(SHIFTS)]) for number in range(total - channels)]


def _fit(conv: nn.Conv2d, features: Tensor, target: Tensor) -> None:
    """Least-squares 3x3 convolution from `features` to `target` and its shifted leading channels."""
    channels = target.shape[1]
    extra = [(c, s) for c, s in _shifted(channels, conv.out_channels) if c < channels]
    wanted = torch.cat(
        [target] + [target[:, c : c + 1].roll((-dy, -dx), (2, 3)) for c, (dy, dx) in extra], dim=1
    )
    inner = (slice(None), slice(None), slice(2, -2), slice(2, -2))
    inputs = functional.unfold(features, 3, padding=1).unflatten(2, features.shape[2:])[inner]
    inputs = inputs.flatten(2).transpose(1, 2).reshape(-1, 9 * features.shape[1])
    inputs = torch.cat([inputs, torch.ones(len(inputs), 1, dtype=torch.double)], dim=1)
    outputs = wanted[inner].flatten(2).transpose(1, 2).reshape(-1, wanted.shape[1])
    # A random choice: an even stride would see one of the two phases of the upsampling only.
    chosen = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(0))[:MAX_EQUATIONS]
    inputs, outputs = inputs[chosen].double(), outputs[chosen].double()
    normal = inputs.T @ inputs / len(inputs)
    normal += 1e-4 * normal.diagonal().mean() * torch.eye(len(normal), dtype=torch.double)
    solution = torch.linalg.solve(normal, inputs.T @ outputs / len(inputs)).float()
    conv.weight[: wanted.shape[1]] = solution[:-1].T.reshape(-1, features.shape[1], 3, 3)
    conv.bias[: wanted.shape[1]] = solution[-1]
