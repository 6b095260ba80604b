"""What is random about a visit: repeatable, and right against plain definitions."""

import dataclasses

import numpy as np
import pytest
import torch

from scanshards.schema import NUM_FRAMES
from tests.train_shards import MICRO, Room, clip_of
from train.config import load_config
from train.data import used_frames
from train.draws import bev_cells, bev_covered, draw, generator, mask_frames, max_masked, view_cells

CONFIG = load_config([*MICRO, "frames=8"])


def draws_of(room=Room(), epoch=0, config=CONFIG):  # noqa: B008
    return draw(clip_of(room), used_frames(config), config, epoch)


def test_draws_are_a_function_of_seed_epoch_and_key():
    first, again = draws_of(), draws_of()
    others = [
        draws_of(epoch=1),
        draws_of(Room("scene0004_00")),
        draws_of(config=dataclasses.replace(CONFIG, seed=1)),
    ]
    for field in dataclasses.fields(first):
        mine, same = (getattr(draws, field.name) for draws in (first, again))
        assert torch.equal(mine.nan_to_num(), same.nan_to_num()), field.name
    for other in others:
        assert not torch.equal(first.view_noise, other.view_noise)
        assert not torch.equal(first.bev_t, other.bev_t) or not torch.equal(first.view_t, other.view_t)


@pytest.mark.parametrize(("frames", "masked"), [(32, 8), (8, 2), (16, 4), (3, 1), (1, 1)])
def test_a_quarter_of_the_views_is_masked_as_published(frames, masked):
    assert max_masked(frames, 0.25) == masked


@pytest.mark.parametrize("distinct", [32, 9, 5, 2])
def test_copies_of_a_frame_are_masked_together_and_drawn_once(distinct):
    source = np.sort(np.arange(32) % distinct) * 10
    seen = set()
    for epoch in range(20):
        masked, targets = mask_frames(source, 0.25, generator(0, epoch, "k"))
        hidden = set(source[masked])
        assert not hidden & set(source[~masked])
        assert sorted(source[targets]) == sorted(hidden)
        assert len(targets) == min(max_masked(distinct, 0.25), distinct - 1)
        seen |= hidden
    assert seen == set(source)  # every view gets its turn


def test_a_clip_of_one_frame_over_and_over_masks_nothing():
    masked, targets = mask_frames(np.zeros(8, np.int64), 0.25, generator(0, 0, "k"))
    assert not masked.any()
    assert len(targets) == 0
    assert not draws_of(Room(distinct_frames=1)).view_valid.any()


def test_targets_are_the_masked_frames_latents():
    config = load_config([*MICRO, "frames=8", "cross_view.draws_per_view=2"])
    draws = draws_of(Room(posterior=False), config=config)
    clip, frames = clip_of(Room(posterior=False)), used_frames(config)
    from train.diffusion import pack_view

    stored = torch.from_numpy(clip.latents[frames[draws.masked.numpy()]][:, 0]).float()
    assert torch.equal(draws.view_clean, pack_view(stored))
    assert draws.view_noise.shape == (2, 2, 196, 64)
    assert draws.view_t.shape == (2, 2)


def test_the_posterior_is_sampled_anew_each_time():
    first, second = draws_of().bev_clean, draws_of(epoch=1).bev_clean
    difference = (first - second).std()
    assert difference == pytest.approx(0.1 * 2**0.5, rel=0.03)


def test_view_cells_are_the_mean_coordinates_of_their_pixels():
    clip, frames = clip_of(Room()), np.array([3, 30])
    fast = view_cells(clip, frames)
    cell = np.arange(384) * 14 // 384
    coords = clip.coords[frames]
    for i, row, column in [(0, 1, 0), (0, 7, 9), (1, 13, 13), (1, 2, 5)]:
        pixels = coords[i][np.ix_(cell == row, cell == column)].reshape(-1, 3)
        wanted = np.nanmean(pixels, axis=0)
        np.testing.assert_allclose(fast[i, 14 * row + column], wanted, atol=2e-6)
    assert np.isnan(fast[:, :14]).all()  # the fixture has no depth in the first 40 rows
    assert np.isfinite(fast[:, 28:]).all()


def test_bev_cells_are_the_centres_of_their_pixels_at_one_height():
    clip = clip_of(Room())
    cells = bev_cells(clip)
    world_from_bev = np.array(clip.meta["bev"]["world_from_bev"])
    for row, column in [(0, 0), (5, 20), (26, 26)]:
        pixels = [
            (world_from_bev @ [u, v, 0.0, 1.0])[:3]
            for u in range(16 * column, 16 * column + 16)
            for v in range(16 * row, 16 * row + 16)
        ]
        np.testing.assert_allclose(cells[27 * row + column], np.mean(pixels, axis=0), atol=1e-6)
    assert np.ptp(cells[:, 2]) == 0


def test_a_bev_token_counts_if_half_of_its_pixels_are_covered():
    clip = clip_of(Room())
    covered = bev_covered(clip, 0.5)
    for row, column in np.ndindex(27, 27):
        share = clip.bev_valid[16 * row : 16 * row + 16, 16 * column : 16 * column + 16].mean()
        assert covered[27 * row + column] == (share >= 0.5)
    assert 0 < covered.sum() < 729


def test_no_bev_covers_nothing_and_has_no_place():
    clip = clip_of(Room(bev=False))
    assert not bev_covered(clip, 0.5).any()
    assert np.isnan(bev_cells(clip)).all()


def test_steps_are_uniform_over_the_schedule():
    t = torch.cat([draws_of(epoch=epoch).view_t.flatten() for epoch in range(60)])
    assert t.min() >= 0
    assert t.max() < 1000
    assert t.float().mean() == pytest.approx(500, abs=60)
    assert NUM_FRAMES == 32
