"""Each loss against its equation in plain loops, values and gradients."""

import math

import pytest
import torch

from train import losses
from train.packing import pack
from train.prompt import IGNORE, Prefix, Tokens

FRAME = Prefix(Tokens([3, 4], [3, 4]), Tokens([5, 6], [5, IGNORE]))
VISITS = [
    [Tokens([7, 8, 9], [7, IGNORE, 9]), Tokens([2, 1], [IGNORE, 1])],
    [],
    [Tokens([1, 2, 3, 4], [IGNORE, IGNORE, 3, 4])],
]


def packed_with_logits():
    packed = pack(FRAME, 3, VISITS)
    places = packed.segment.numel()
    logits = torch.randn(places, 11, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return packed, logits.requires_grad_()


def slow_text_losses(logits, size):
    """Each text alone: [prefix, text], next-token cross-entropy, mean over supervised tokens."""
    found = []
    for b, texts in enumerate(VISITS):
        prefix = list(range(b * size, b * size + 7))
        at = prefix[-1] + 1
        for text in texts:
            places = prefix + list(range(at, at + len(text)))
            labels = [3, 4, IGNORE, IGNORE, IGNORE, 5, IGNORE, *text.labels]
            terms = [
                -torch.log_softmax(logits[before], 0)[label]
                for before, label in zip(places[:-1], labels[1:], strict=True)
                if label != IGNORE
            ]
            found.append(sum(terms) / len(terms))
            at += len(text)
    return torch.stack(found)


def test_text_losses_are_those_of_each_text_alone_behind_the_prefix():
    packed, logits = packed_with_logits()
    fast = losses.text_losses(logits[packed.predictor], packed)
    slow = slow_text_losses(logits, packed.segment.shape[1])
    torch.testing.assert_close(fast.double(), slow, rtol=1e-5, atol=1e-6)
    weights = torch.tensor([0.3, 1.0, 2.0])
    (gradient,) = torch.autograd.grad((fast * weights).sum(), logits)
    (wanted,) = torch.autograd.grad((slow * weights).sum(), logits)
    torch.testing.assert_close(gradient, wanted, rtol=1e-5, atol=1e-7)


def test_without_texts_there_is_no_text_loss_but_a_gradient_of_zeros():
    packed = pack(FRAME, 3, [[], []])
    logits = torch.randn(len(packed.label), 11, requires_grad=True)
    text = losses.text_losses(logits, packed)
    assert text.shape == (0,)
    text.sum().backward()
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_cross_view_is_the_mean_over_masked_views_of_each_clip():
    errors = torch.rand(3, 2, 4, 196, generator=torch.Generator().manual_seed(0))
    valid = torch.tensor([[True, True], [True, False], [False, False]])
    found = losses.cross_view_losses(errors, valid)
    wanted = [
        sum(errors[b, r, d, k].item() for r in rows for d in range(4) for k in range(196))
        / (len(rows) * 4 * 196)
        for b, rows in ((0, (0, 1)), (1, (0,)))
    ]
    assert found.tolist() == pytest.approx([*wanted, 0.0], rel=1e-5)


def test_global_view_is_the_mean_over_covered_tokens_and_never_nan():
    errors = torch.rand(2, 3, 729, generator=torch.Generator().manual_seed(0), requires_grad=True)
    covered = torch.zeros(2, 729, dtype=torch.bool)
    covered[0, [5, 700]] = True
    found = losses.global_view_losses(errors, covered)
    wanted = sum(errors[0, d, k].item() for d in range(3) for k in (5, 700)) / 6
    assert found.tolist() == pytest.approx([wanted, 0.0])
    found.sum().backward()
    assert torch.equal(errors.grad != 0, covered[:, None].expand(2, 3, 729))
    assert math.isfinite(errors.grad.sum())


def test_the_error_of_a_token_is_the_mean_square_over_its_numbers():
    predicted, noise = torch.randn(2, 2, 3, 64, generator=torch.Generator().manual_seed(0))
    wanted = [[sum((p - n) ** 2 for p, n in zip(a, b, strict=True)) / 64 for a, b in zip(x, y, strict=True)]
              for x, y in zip(predicted.tolist(), noise.tolist(), strict=True)]  # fmt: skip
    torch.testing.assert_close(losses.noise_errors(predicted, noise), torch.tensor(wanted))


def test_a_batch_weighs_reconstruction_by_the_texts_of_its_visit():
    text = torch.tensor([1.0, 2.0, 4.0])
    total = losses.total(
        text, torch.tensor([2.0, 1.0]), torch.tensor([10.0, 20.0]), torch.tensor([100.0, 0.5])
    )
    assert total.item() == 7 + 2 * (10 + 100) + 1 * (20 + 0.5)
