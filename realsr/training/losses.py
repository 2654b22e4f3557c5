"""The losses of generator and discriminator.

``sr`` and ``hr`` are ``(N, 3, H, W)`` in [0, 1], logits tensors of any shape, losses scalars. ``real`` and ``fake`` are
the discriminator's logits of ``hr`` and of ``sr``.
"""

from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from realsr.runtime.errors import at_least

CELLS = 4  # side of the windows in which patterns are measured, in cells of scale x scale pixels


class AdversarialLoss(Protocol):
    """Losses of a GAN's two networks."""

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Scalar, small when ``fake`` looks real; only gradients of ``fake`` are used."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Scalar, small when the discriminator tells ``real`` from ``fake``."""


class ESRGANLoss:
    """The weighted sum of pixel, perceptual, adversarial and pattern loss (ESRGAN, section 3.3; RealSR, section 3.3).

    A plain class and no nn.Module, so that the frozen network of the perceptual loss stays out of checkpoints and of
    DistributedDataParallel.

    >>> losses = ESRGANLoss(scale=4, pixel_weight=1.0, adversarial_weight=0.5, adversarial=Hinge())
    >>> sr, hr, fake = torch.full((1, 3, 8, 8), 0.25), torch.full((1, 3, 8, 8), 0.75), torch.tensor([0.5])
    >>> losses.generator(sr, hr, real=torch.tensor([2.0]), fake=fake)
    (tensor(0.2500), {'pixel': tensor(0.5000), 'adversarial': tensor(-0.5000)})

    Args:
        scale: of the generator, the period of the patterns.
        perceptual: loss of ``(sr, hr)``, frozen; None leaves the perceptual loss out.
        adversarial: None leaves the adversarial loss out.
        pixel_weight: of L1, as the others are of their losses.
        pattern_weight: of :func:`pattern_loss`, which is not computed at 0.

    Raises:
        InputError: a weight is negative, infinite or NaN.
    """

    def __init__(
        self,
        scale: int,
        perceptual: nn.Module | None = None,
        adversarial: AdversarialLoss | None = None,
        pixel_weight: float = 0.01,
        perceptual_weight: float = 1.0,
        adversarial_weight: float = 0.005,
        pattern_weight: float = 0.0,
    ) -> None:
        self.scale, self.perceptual, self.adversarial = scale, perceptual, adversarial
        self.weights = {"pixel": pixel_weight, "perceptual": perceptual_weight, "pattern": pattern_weight}
        self.weights["adversarial"] = adversarial_weight
        at_least(0, "model.", **{f"{name}_weight": weight for name, weight in self.weights.items()})

    def generator(
        self, sr: Tensor, hr: Tensor, real: Tensor | None = None, fake: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The generator's loss, and its terms unweighted and detached; without logits there is no adversarial term."""
        terms = {"pixel": F.l1_loss(sr, hr)}
        if self.perceptual is not None:
            terms["perceptual"] = self.perceptual(sr, hr)
        if self.weights["pattern"]:
            terms["pattern"] = pattern_loss(sr, hr, self.scale)
        if self.adversarial is not None and real is not None and fake is not None:
            terms["adversarial"] = self.adversarial.generator(real.detach(), fake)
        total: Any = sum(self.weights[name] * term for name, term in terms.items())
        return total, {name: term.detach() for name, term in terms.items()}

    def discriminator(self, real: Tensor, fake: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The discriminator's loss; the loss and the mean logits, detached."""
        assert self.adversarial is not None
        loss = self.adversarial.discriminator(real, fake)
        terms = {"discriminator": loss, "d_real": real.mean(), "d_fake": fake.mean()}
        return loss, {name: term.detach() for name, term in terms.items()}


class Vanilla:
    """Binary cross-entropy, in the non-saturating form for the generator (Goodfellow et al., NeurIPS 2014)."""

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """``BCE(fake, 1)``."""
        return _bce(fake, 1.0)

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """``BCE(real, 1) + BCE(fake, 0)``."""
        return _bce(real, 1.0) + _bce(fake, 0.0)


class LeastSquares:
    """LSGAN: squared distance of the logits to 1 and 0 (Mao et al., ICCV 2017)."""

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """``mean((fake - 1)^2)``."""
        return ((fake - 1) ** 2).mean()

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """``mean((real - 1)^2) + mean(fake^2)``."""
        return ((real - 1) ** 2).mean() + (fake**2).mean()


class Hinge:
    """Hinge loss, usual with spectral normalisation (Lim and Ye 2017; Miyato et al., ICLR 2018).

    Real logits above 1 and fake ones below -1 have no gradient for the discriminator.
    """

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """``-mean(fake)``."""
        return -fake.mean()

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """``mean(max(0, 1 - real)) + mean(max(0, 1 + fake))``."""
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


class RelativisticAverage:
    """RaGAN: each logit is compared with the mean of the other kind (Jolicoeur-Martineau, ICLR 2019).

    Both losses are halved, as in the released code of RealSR.
    """

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """``(BCE(real - mean fake, 0) + BCE(fake - mean real, 1)) / 2``."""
        return (_bce(real - fake.mean(), 0.0) + _bce(fake - real.mean(), 1.0)) / 2

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """``(BCE(real - mean fake, 1) + BCE(fake - mean real, 0)) / 2``."""
        return (_bce(real - fake.mean(), 1.0) + _bce(fake - real.mean(), 0.0)) / 2


def _bce(logits: Tensor, target: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


def by_place(images: Tensor, scale: int) -> Tensor:
    """Local detail of the gray images by place in cells of ``scale x scale`` pixels, a channel for each place.

    ``(N, C, H, W)`` to ``(N, scale**2, H/scale, W/scale)``. A mean over cells keeps what repeats from cell to cell.
    """
    gray = images.mean(1, keepdim=True)
    return F.pixel_unshuffle(gray - F.avg_pool2d(gray, 2 * scale + 1, 1, scale, count_include_pad=False), scale)


def pattern(images: Tensor, scale: int) -> Tensor:
    """Strength of patterns with a period of ``scale`` pixels in ``(N, C, H, W)`` images, in windows of CELLS cells.

    H and W are multiples of the scale, at least CELLS of them. The result, ``(N, h, w)``, has standard deviations
    over the places in the cell, in [0, 1]; windows overlap by half.
    """
    return (F.avg_pool2d(by_place(images, scale), CELLS, CELLS // 2).var(1) + 1e-8).sqrt()


def pattern_loss(sr: Tensor, hr: Tensor, scale: int) -> Tensor:
    """Mean strength of the patterns that ``sr`` has beyond those of ``hr``, both ``(N, C, H, W)`` in [0, 1].

    Pixel-shuffle networks draw patterns with the period of the scale, and LPIPS rewards them.

    >>> hr = torch.full((1, 3, 16, 16), 0.5)
    >>> sr = hr.clone()
    >>> sr[..., ::4, ::4] += 0.2
    >>> print(f"{pattern_loss(hr, hr, 4):.3f} {pattern_loss(sr, hr, 4):.3f}")
    0.000 0.048
    """
    return F.relu(pattern(sr, scale) - pattern(hr, scale)).mean()
