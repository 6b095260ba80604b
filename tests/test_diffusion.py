"""The noising process against diffusers' own, packs against loops, the posterior against its statistics."""

import numpy as np
import torch
import torch.nn.functional as F

from train.diffusion import add_noise, cosine_alpha_bar, pack, pack_view, sample_posterior, unpack


def test_the_schedule_and_the_noising_are_those_of_ddpm_squaredcos():
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler(num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2", clip_sample=False)
    alpha_bar = cosine_alpha_bar(1000)
    torch.testing.assert_close(alpha_bar.float(), scheduler.alphas_cumprod, rtol=2e-4, atol=1e-7)
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 5, 196, 64, generator=generator)
    t = torch.tensor([0, 1, 500, 998, 999])
    ours = add_noise(clean, noise, t, alpha_bar.float())
    torch.testing.assert_close(ours, scheduler.add_noise(clean, noise, t), rtol=1e-4, atol=1e-5)


def test_the_last_step_is_all_noise_and_the_first_almost_none():
    alpha_bar = cosine_alpha_bar(1000)
    assert alpha_bar[-1] < 1e-5
    assert alpha_bar[0] > 0.9999
    assert (alpha_bar[1:] < alpha_bar[:-1]).all()


def test_a_pack_holds_the_four_neighbours_of_each_channel():
    latents = torch.arange(2 * 3 * 4 * 6, dtype=torch.float32).view(2, 3, 4, 6)
    packed = pack(latents)
    assert packed.shape == (2, 6, 12)
    for n, token, c, i, j in np.ndindex(2, 6, 3, 2, 2):
        row, column = 2 * (token // 3) + i, 2 * (token % 3) + j
        assert packed[n, token, 4 * c + 2 * i + j] == latents[n, c, row, column]


def test_unpacking_undoes_packing():
    latents = torch.randn(3, 16, 54, 54, generator=torch.Generator().manual_seed(0))
    assert torch.equal(unpack(pack(latents), 27), latents)


def test_a_view_is_stretched_from_27_to_28_before_packing():
    latents = torch.randn(2, 16, 27, 27, generator=torch.Generator().manual_seed(0))
    tokens = pack_view(latents)
    assert tokens.shape == (2, 196, 64)
    wanted = F.interpolate(latents, size=(28, 28), mode="bilinear", align_corners=False)
    assert torch.equal(unpack(tokens, 14), wanted)


def test_the_posterior_is_sampled_before_it_is_stretched():
    """Per latent the variance is then sum of (weight^2) std^2 over its neighbours, smaller than std^2."""
    generator = torch.Generator().manual_seed(0)
    mean, std = torch.randn(1, 16, 27, 27, generator=generator), torch.full((1, 16, 27, 27), 0.5)
    stored = torch.stack([mean, std], 1)
    draws = 600
    noise = torch.randn(draws, 16, 27, 27, generator=generator)
    sampled = unpack(pack_view(sample_posterior(stored.expand(draws, -1, -1, -1, -1), noise)), 14)
    weights = F.interpolate(torch.eye(27)[None], size=28, mode="linear", align_corners=False)[0].T  # (28, 27)
    share = weights.square().sum(1)
    variance = 0.25 * share[:, None] * share[None, :]
    measured = sampled.var(0).mean(0)
    torch.testing.assert_close(measured, variance, rtol=0.08, atol=0)
    stretched = F.interpolate(mean, size=(28, 28), mode="bilinear", align_corners=False)[0]
    assert (sampled.mean(0) - stretched).abs().max() < 5 * 0.5 / draws**0.5


def test_a_codec_without_posterior_gives_its_latents_whatever_the_noise():
    stored = torch.randn(4, 1, 16, 27, 27).half()
    sampled = sample_posterior(stored, torch.randn(4, 16, 27, 27))
    assert torch.equal(sampled, stored[:, 0].float())
