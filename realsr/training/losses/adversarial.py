"""Adversarial losses on logits: vanilla (Goodfellow 2014), LSGAN (Mao 2017), hinge (Lim & Ye 2017), RaGAN
(Jolicoeur-Martineau 2019).

All take ``real`` and ``fake`` logits of any equal shape and average over the batch and the map. The relativistic
one compares each logit with the mean of the other kind; like the released code of RealSR it halves both sides.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class AdversarialLoss(Protocol):
    """What a GAN needs: a loss for each player."""

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Scalar; small when ``fake`` looks real. ``real`` carries no gradient that is of use here."""
        ...

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Scalar; small when the two are told apart."""
        ...


def _bce(logits: Tensor, target: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


class Vanilla:
    """Binary cross-entropy, with the non-saturating form for the generator."""

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """``BCE(fake, 1)``."""
        return _bce(fake, 1.0)

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """``BCE(real, 1) + BCE(fake, 0)``."""
        return _bce(real, 1.0) + _bce(fake, 0.0)


class LeastSquares:
    """LSGAN: squared distance of the logits to 1 and 0."""

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """``mean((fake - 1)^2)``."""
        return ((fake - 1) ** 2).mean()

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """``mean((real - 1)^2) + mean(fake^2)``."""
        return ((real - 1) ** 2).mean() + (fake**2).mean()


class Hinge:
    """Hinge loss, the usual one with spectral norm (Miyato et al. 2018): logits beyond 1 and -1 teach D no more."""

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """``-mean(fake)``."""
        return -fake.mean()

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """``mean(max(0, 1 - real)) + mean(max(0, 1 + fake))``."""
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


class RelativisticAverage:
    """RaGAN: is this one more real than the others are on average?"""

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """``(BCE(real - mean fake, 0) + BCE(fake - mean real, 1)) / 2``."""
        return (_bce(real - fake.mean(), 0.0) + _bce(fake - real.mean(), 1.0)) / 2

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """``(BCE(real - mean fake, 1) + BCE(fake - mean real, 0)) / 2``."""
        return (_bce(real - fake.mean(), 1.0) + _bce(fake - real.mean(), 0.0)) / 2
