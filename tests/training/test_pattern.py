"""A pattern with the period of the scale costs, a natural picture and other periods do not."""

import pytest
import torch
from conftest import leaves

from realsr.training.losses.pattern import pattern, pattern_loss


def weave(side, period, strength):
    """One dark pixel in each cell of ``period`` pixels."""
    image = torch.zeros(1, 3, side, side)
    image[..., ::period, ::period] = strength
    return image


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_strength_is_the_deviation_of_the_pattern(scale):
    cell = torch.zeros(scale * scale)
    cell[0] = 0.1
    found = pattern(0.5 - weave(16 * scale, scale, 0.1), scale)
    middle = found[:, 1:-1, 1:-1]  # the border has another local mean, which is taken off and has some of it
    torch.testing.assert_close(middle, cell.std().expand_as(middle), rtol=0.15, atol=0)


def test_a_natural_picture_and_another_period_have_none_of_it():
    hr = leaves(128, 128)[None]
    wanted = float(pattern_loss(hr - weave(128, 4, 0.1), hr, 4))
    assert float(pattern_loss(hr, hr, 4)) == 0
    assert float(pattern_loss(hr - weave(128, 5, 0.1), hr, 4)) < wanted / 4
    assert wanted > 0.01


def test_its_gradient_takes_the_pattern_away():
    hr = leaves(64, 64)[None]
    sr = (hr - weave(64, 4, 0.1)).requires_grad_()
    loss = pattern_loss(sr, hr, 4)
    loss.backward()
    assert pattern_loss(sr - 50 * sr.grad, hr, 4) < loss
