"""The losses of both networks, each by itself and in their weighted sum."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import leaves
from torch import nn

from realsr.runtime.errors import InputError
from realsr.training.losses import (
    ESRGANLoss,
    Hinge,
    LeastSquares,
    RelativisticAverage,
    Vanilla,
    pattern,
    pattern_loss,
)

LOSSES = [Vanilla(), LeastSquares(), Hinge(), RelativisticAverage()]


@pytest.fixture
def logits():
    generator = torch.Generator().manual_seed(0)
    shape = (2, 1, 3, 5)
    return [torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(2)]


@pytest.mark.parametrize("loss, prefix", [(RelativisticAverage(), ""), (Vanilla(), "vanilla_")])
@pytest.mark.parametrize("player", ["generator", "discriminator"])
def test_equals_the_reference_program(golden, loss, prefix, player):
    data = golden("gan_losses.json")
    real, fake = (torch.tensor(data[f"{kind}_logits"]).view(data["shape"]) for kind in ("real", "fake"))
    assert float(getattr(loss, player)(real, fake)) == pytest.approx(data[prefix + player], abs=1e-5)


def test_least_squares_equals_numpy(logits):
    real, fake = (x.detach().numpy() for x in logits)
    assert LeastSquares().generator(*logits).item() == pytest.approx(np.mean((fake - 1) ** 2))
    expected = np.mean((real - 1) ** 2) + np.mean(fake**2)
    assert LeastSquares().discriminator(*logits).item() == pytest.approx(expected)


def test_hinge_equals_numpy(logits):
    real, fake = (x.detach().numpy() for x in logits)
    assert (real > 1).any() and (fake < -1).any()  # some are beyond the margin
    assert Hinge().generator(*logits).item() == pytest.approx(-np.mean(fake))
    expected = np.mean(np.maximum(1 - real, 0)) + np.mean(np.maximum(1 + fake, 0))
    assert Hinge().discriminator(*logits).item() == pytest.approx(expected)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize("player", ["generator", "discriminator"])
def test_gradients_are_those_of_the_whole_expression(logits, loss, player):
    # numerically, so a mean that were detached would show
    assert torch.autograd.gradcheck(getattr(loss, player), logits)


@pytest.mark.parametrize("loss", [Vanilla(), LeastSquares(), Hinge()], ids=lambda loss: type(loss).__name__)
def test_the_generator_does_not_look_at_real_logits(logits, loss):
    real, fake = logits
    gradients = torch.autograd.grad(loss.generator(real, fake), (real, fake), allow_unused=True)
    assert gradients[0] is None and gradients[1].abs().min() > 0


# -- patterns with the period of the scale -----------------------------------------------------------------------------


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


# -- the weighted sum --------------------------------------------------------------------------------------------------


class Perceptual(nn.Module):
    """L2 of a layer with random weights; the gradient flows to ``sr``."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3).requires_grad_(False)

    def forward(self, sr, hr):
        return (self.layer(sr) - self.layer(hr)).square().mean()


@pytest.fixture
def batch():
    """``sr, hr, real, fake`` of two images."""
    torch.manual_seed(0)
    sr, hr = torch.rand(2, 2, 3, 16, 16)
    return sr.requires_grad_(), hr, *(torch.randn(2, 1, 2, 2, requires_grad=True) for _ in range(2))


def test_the_generators_loss_is_the_weighted_sum_of_its_terms(batch):
    """Weights that have no common factor, so that none can stand for another."""
    sr, hr, real, fake = batch
    perceptual, adversarial = Perceptual(), RelativisticAverage()
    total, terms = ESRGANLoss(4, perceptual, adversarial, 0.7, 1.1, 0.13, 0.17).generator(*batch)
    wanted = {
        "pixel": (sr - hr).abs().mean(),
        "perceptual": perceptual(sr, hr),
        "pattern": pattern_loss(sr, hr, 4),
        "adversarial": adversarial.generator(real.detach(), fake),
    }
    assert terms.keys() == wanted.keys() and not any(term.requires_grad for term in terms.values())
    for name, term in wanted.items():
        torch.testing.assert_close(terms[name], term.detach())
    expected = sum(weight * wanted[name] for name, weight in zip(wanted, (0.7, 1.1, 0.17, 0.13), strict=True))
    torch.testing.assert_close(total, expected)
    gradients = [torch.autograd.grad(loss, (sr, fake), retain_graph=True) for loss in (total, expected)]
    for mine, its in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, its)
    assert torch.autograd.grad(total, real, allow_unused=True) == (None,)


def test_the_papers_weights_are_the_defaults():
    """RealSR: 0.01 L1 + 1 perceptual + 0.005 adversarial."""
    assert ESRGANLoss(4).weights == {"pixel": 0.01, "perceptual": 1.0, "pattern": 0.0, "adversarial": 0.005}


def test_terms_are_left_out_without_their_parts(batch):
    sr, hr, real, fake = batch
    pixel = F.l1_loss(sr, hr)
    for losses, logits in ((ESRGANLoss(4, None, Hinge(), 0.5), ()), (ESRGANLoss(4, None, None, 0.5), (real, fake))):
        total, terms = losses.generator(sr, hr, *logits)
        assert terms == {"pixel": pixel} and torch.equal(total, 0.5 * pixel)
    _, terms = ESRGANLoss(4, Perceptual(), Hinge(), 0, 0, 0).generator(*batch)
    assert terms.keys() == {"pixel", "perceptual", "adversarial"}  # shown, whatever their weights


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_the_discriminators_loss_has_no_weight(batch, loss):
    *_, real, fake = batch
    total, terms = ESRGANLoss(4, adversarial=loss, adversarial_weight=0.005).discriminator(real, fake)
    assert torch.equal(total, loss.discriminator(real, fake))
    assert terms == {"discriminator": total, "d_real": real.mean(), "d_fake": fake.mean()}
    assert total.requires_grad and not any(term.requires_grad for term in terms.values())


@pytest.mark.parametrize("name", ["pixel", "perceptual", "adversarial", "pattern"])
def test_weights_that_are_none_are_refused(name):
    for weight in (-0.1, math.nan, math.inf):
        with pytest.raises(InputError, match=rf"model\.{name}_weight={weight}: give"):
            ESRGANLoss(4, **{f"{name}_weight": weight})
