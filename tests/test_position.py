"""Voxel indices and sin-cos positions against the definition written out number by number."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from train.config import PositionConfig
from train.position import encode, sin_cos, voxel_index

CONFIG = PositionConfig()


def slow(index, channels):
    n = channels // 3
    values = []
    for v in index:
        for i in range(n):
            angle = np.float32(v) / np.float32(10000.0 ** (2 * (i // 2) / n))
            values.append(math.sin(angle) if i % 2 == 0 else math.cos(angle))
    return values + [0.0] * (channels - 3 * n)


@given(
    st.lists(st.integers(0, 300), min_size=3, max_size=3),
    st.sampled_from([12, 32, 128, 896, 1024, 1152, 3584]),
)
def test_positions_equal_the_definition(index, channels):
    fast = sin_cos(torch.tensor(index, dtype=torch.float32), channels)
    np.testing.assert_allclose(fast.numpy(), slow(index, channels), atol=2e-4)


def test_width_3584_has_1194_numbers_an_axis_and_two_zeros():
    code = sin_cos(torch.tensor([7.0, 8.0, 9.0]), 3584)
    for axis, value in enumerate((7.0, 8.0, 9.0)):
        assert code[1194 * axis] == pytest.approx(math.sin(value), abs=1e-6)
        assert code[1194 * axis + 1] == pytest.approx(math.cos(value), abs=1e-6)
    assert code[-2:].tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("metres", "index"),
    [
        ((0.0, 0.0, 0.0), (150, 150, 50)),
        ((-15.0, 15.0, 5.0), (0, 300, 100)),
        ((-99.0, 99.0, -99.0), (0, 300, 0)),  # clamped
        ((0.04, 0.06, -0.06), (150, 151, 49)),
        ((-14.75, -14.25, -4.75), (2, 8, 2)),  # halves go to the even neighbour
    ],
)
def test_coordinates_fall_into_voxels(metres, index):
    assert voxel_index(torch.tensor(metres), CONFIG).tolist() == list(index)


def test_a_patch_without_depth_gets_no_position_and_disturbs_no_other():
    coords = torch.tensor([[1.0, 2.0, 0.5], [float("nan")] * 3])
    code = encode(coords, 128, CONFIG)
    assert torch.equal(code[1], torch.zeros(128))
    assert torch.equal(code[0], encode(coords[:1], 128, CONFIG)[0])


def test_positions_are_float32_where_bfloat16_would_move_a_quarter_of_the_patches():
    coords = torch.rand(4000, 3, generator=torch.Generator().manual_seed(0)) * 8 - 4
    assert encode(coords[:1], 96, CONFIG).dtype == torch.float32
    offset = coords.bfloat16() - torch.tensor(
        CONFIG.min_m, dtype=torch.bfloat16
    )  # as the published code rounds
    moved = torch.round(offset / CONFIG.voxel_m) != voxel_index(coords, CONFIG)
    assert 0.15 < moved[:, :2].float().mean() < 0.40
