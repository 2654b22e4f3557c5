import numpy as np
import pytest
import torch

from realsr.training.losses.adversarial import Hinge, LeastSquares, RelativisticAverage, Vanilla

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


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_the_players_pull_against_each_other(logits, loss):
    real, fake = (x.sigmoid() for x in logits)  # between the targets of LSGAN
    (up,) = torch.autograd.grad(loss.generator(real.detach(), fake), fake)
    (down,) = torch.autograd.grad(loss.discriminator(real, fake), fake)
    assert up.sum() < 0 < down.sum()  # descent raises the fake logits for one, lowers them for the other


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_large_logits_stay_finite(loss):
    real, fake = torch.full((1, 1, 2, 2), 1e4), torch.full((1, 1, 2, 2), -1e4)
    assert loss.generator(real, fake).isfinite() and loss.discriminator(real, fake).isfinite()
