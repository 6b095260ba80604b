"""The model: SigLIP, projector, Qwen2, positions, and the denoiser that the reconstruction losses go through.

Training calls `forward` (losses of a batch). For answers:

    model, tokenizer, config = train.checkpoint.load_run(run_dir)   # eval mode, on CPU, float32
    inputs = train.data.clip_inputs(clip, config)                   # .frames, .patch_coords of one clip
    frame = train.prompt.prefix(tokenizer, spatial=True)            # spatial=False: as published
    with torch.inference_mode():
        embeddings = model.prefix(inputs.frames[None], inputs.patch_coords[None], *frame_ids(frame))
        cached = model.language.model(inputs_embeds=embeddings, use_cache=True)  # for all its questions
        ids = train.prompt.question_ids(tokenizer, human_value(text))   # ends where the answer starts
        # feed ids behind the cache, then greedy: model.language.lm_head(hidden[:, -1])

`model.language` is transformers' Qwen2ForCausalLM.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import Qwen2Config, Qwen2ForCausalLM

from train import diffusion, losses
from train.attention import PACKED
from train.config import TOKEN_GRID, VIEW_TOKENS, Config
from train.data import Batch
from train.denoiser import Denoiser, Kind
from train.packing import attention_mask
from train.position import encode
from train.prompt import Prefix
from train.vision import VisionTower, pool, projector


class Losses(NamedTuple):
    """Of a batch of B visits with T texts; all but `total` are for the log."""

    total: Tensor
    """() sum, see `losses.total`; not yet divided by the texts of the global batch."""
    text: Tensor
    """(T,)"""
    cross_view: Tensor
    """(B,) without weight; 0 on steps without masking."""
    global_view: Tensor
    """(B,) without weight."""


class SceneModel(nn.Module):
    def __init__(self, config: Config, vocabulary: int):
        super().__init__()
        self.config = config
        size = config.language.hidden_size
        self.vision = VisionTower(config.vision)
        self.projector = projector(config.vision.hidden_size, size)
        self.language = Qwen2ForCausalLM(_language_config(config, vocabulary))
        if config.language.checkpointing:
            self.language.gradient_checkpointing_enable()
        self.newline = nn.Parameter(torch.randn(size) / size**0.5)
        self.mask_token = nn.Parameter(torch.randn(size) / size**0.5)
        self.denoiser = Denoiser(size, config.denoiser, config.condition == "located")
        alpha_bar = diffusion.cosine_alpha_bar(config.denoiser.timesteps).float()
        self.register_buffer("alpha_bar", alpha_bar, persistent=False)

    def forward(self, batch: Batch, masked_step: bool, global_step: bool = True) -> Losses:
        """Losses of a batch. `masked_step`: views are masked and the cross-view loss counts; `global_step`:
        the global-view loss counts. Every module runs whatever these are (ZeRO-3 needs it), at little cost.
        """
        packed, draws = batch.packed, batch.draws
        masked = draws.masked if masked_step else torch.zeros_like(draws.masked)  # (B, F)
        prefix = self.prefix(batch.frames, batch.patch_coords, packed.before_ids, packed.after_ids, masked)
        words = self.language.model.embed_tokens(packed.text_ids)
        hidden = self.language.model(
            inputs_embeds=torch.cat([prefix, words], 1),
            attention_mask={"full_attention": attention_mask(packed.segment, prefix.shape[1])},
            position_ids=packed.position,
            use_cache=False,
            prefix=prefix.shape[1],
        ).last_hidden_state  # (B, S, D)
        logits = self.language.lm_head(hidden.flatten(0, 1)[packed.predictor])  # (M, vocabulary)
        text = losses.text_losses(logits, packed)
        states = self._patch_states(hidden, len(packed.before_ids))  # (B, F * 196, D)
        visible = ~masked.repeat_interleave(VIEW_TOKENS, 1)
        with torch.autocast(hidden.device.type, enabled=False):
            cross_view = self._cross_view(states.float(), visible, batch, masked_step)
            global_view = self._global_view(states.float(), visible, batch)
        total = losses.total(
            text,
            batch.weight,
            cross_view * (self.config.cross_view.weight * masked_step),
            global_view * (self.config.global_view.weight * global_step),
        )
        return Losses(total, text.detach(), cross_view.detach() * masked_step, global_view.detach())

    def prefix(
        self,
        frames: Tensor,
        patch_coords: Tensor,
        before_ids: Tensor,
        after_ids: Tensor,
        masked: Tensor | None = None,
    ) -> Tensor:
        """Embeddings (B, P, D) of all that every text of a clip shares.

        frames (B, F, 384, 384, 3) uint8; patch_coords (B, F, 14, 14, 3) metres, NaN = unknown; before_ids and
        after_ids: what stands around the visual tokens; masked (B, F) bool: frames the mask token replaces.
        """
        embed = self.language.model.embed_tokens
        visual = self.visual_tokens(frames, patch_coords, masked)
        around = [embed(ids).expand(len(frames), -1, -1) for ids in (before_ids, after_ids)]
        return torch.cat([around[0], visual.to(around[0].dtype), around[1]], 1)

    def visual_tokens(self, frames: Tensor, patch_coords: Tensor, masked: Tensor | None = None) -> Tensor:
        """(B, F * 14 * 15, D): patches with their positions, a newline at the end of each row."""
        batch, num_frames = frames.shape[:2]
        patches = pool(self.projector(self.vision(frames.flatten(0, 1))))  # (B * F, 14, 14, D)
        patches = patches.unflatten(0, (batch, num_frames))
        if masked is not None:
            patches = torch.where(masked[:, :, None, None, None], self.mask_token.to(patches.dtype), patches)
        patches = patches + encode(patch_coords, patches.shape[-1], self.config.position).to(patches.dtype)
        newline = self.newline.to(patches.dtype).expand(batch, num_frames, TOKEN_GRID, 1, -1)
        return torch.cat([patches, newline], 3).flatten(1, 3)

    def _patch_states(self, hidden: Tensor, before: int) -> Tensor:
        """Hidden states of the patches, newlines left out: (B, S, D) -> (B, F * 196, D)."""
        visual = hidden[:, before : before + self.config.visual_tokens]
        return visual.unflatten(1, (-1, TOKEN_GRID + 1))[:, :, :-1].flatten(1, 2)

    def _cross_view(self, states: Tensor, visible: Tensor, batch: Batch, masked_step: bool) -> Tensor:
        """(B,) loss of the masked views; on other steps one view and one draw, to no weight."""
        draws = batch.draws
        rows = slice(None) if masked_step else slice(1)
        clean, cells, valid = draws.view_clean[:, rows], draws.view_cells[:, rows], draws.view_valid[:, rows]
        noise, t = draws.view_noise[:, rows, rows], draws.view_t[:, rows, rows]
        errors = self._errors("view", states, visible, (clean, noise, t, cells))
        return losses.cross_view_losses(errors, valid)

    def _global_view(self, states: Tensor, visible: Tensor, batch: Batch) -> Tensor:
        draws = batch.draws
        picture = (
            draws.bev_clean[:, None],
            draws.bev_noise[:, None],
            draws.bev_t[:, None],
            draws.bev_cells[:, None],
        )
        errors = self._errors("bev", states, visible, picture)[:, 0]  # one picture per clip
        return losses.global_view_losses(errors, draws.bev_covered)

    def _errors(
        self, kind: Kind, states: Tensor, visible: Tensor, picture: tuple[Tensor, Tensor, Tensor, Tensor]
    ) -> Tensor:
        """(B, R, draws, tokens) squared errors of predicted noise.

        picture: clean (B, R, tokens, 64), noise (B, R, draws, tokens, 64), t (B, R, draws) and cells
        (B, R, tokens, 3), the world coordinate of each token.
        """
        clean, noise, t, cells = picture
        places = encode(cells, self.config.denoiser.width, self.config.position)
        z = self.denoiser.pools[kind](states, visible, places, ~cells.isnan().any(-1))
        draws = noise.shape[2]
        clean, z = (x[:, :, None].expand(-1, -1, draws, -1, -1).flatten(0, 2) for x in (clean, z))
        flat = noise.flatten(0, 2)
        noised = diffusion.add_noise(clean, flat, t.flatten(), self.alpha_bar)
        predicted = self.denoiser(kind, noised, t.flatten(), z)
        return losses.noise_errors(predicted, flat).unflatten(0, noise.shape[:3])


def build_model(config: Config, vocabulary: int) -> SceneModel:
    """A model with the random weights of the config's seed, the same in every process."""
    torch.manual_seed(config.seed)
    return SceneModel(config, vocabulary)


def frame_ids(frame: Prefix) -> tuple[Tensor, Tensor]:
    """(before_ids, after_ids) of a prompt's prefix, as `SceneModel.prefix` takes them."""
    return torch.tensor(frame.before.ids), torch.tensor(frame.after.ids)


def _language_config(config: Config, vocabulary: int) -> Qwen2Config:
    language = config.language
    return Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=language.hidden_size,
        intermediate_size=language.intermediate_size,
        num_hidden_layers=language.num_layers,
        num_attention_heads=language.num_heads,
        num_key_value_heads=language.num_kv_heads,
        max_position_embeddings=language.max_positions,
        rope_parameters={"rope_type": "default", "rope_theta": language.rope_theta},
        tie_word_embeddings=language.tie_embeddings,
        attn_implementation=PACKED,
    )
