"""Confidence in a kernel by patch matching: from what the photo shows and how well its parts agree."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from torch import Tensor

from realsr.estimation.crops import CLEAR

FINE, INTERLACED = 0.08, 1.1  # bounds of photos' `NoiseModel.fineness` and `interlacing`
EDGES = 4000  # pixels with edges, under which the four parts overlap so much that their agreement means little
SIGNAL, ROUND = 0.7, 0.05  # least `signal` and `roundness` of a sure kernel


@dataclass(frozen=True)
class Evidence:
    """Evidence that a photo gives for its blur.

    Attributes:
        signal: share of the detail that is not noise.
        roundness: smallest over largest mean square of the gradients along a direction.
        edges: number of pixels with edges.
        clear: share of the detail that is not beside clipped or drawn pixels.
        fineness: of the noise, see :meth:`realsr.estimation.noise_model.NoiseModel.fineness`.
        interlacing: see :func:`interlacing`.

    >>> Evidence(signal=0.35, roundness=0.5, edges=9000, clear=1, fineness=1, interlacing=0.5).confidence(0.98, 0.0)
    (0.49, ['65% of the detail is noise'])
    """

    signal: float
    roundness: float
    edges: float
    clear: float
    fineness: float
    interlacing: float

    def confidence(self, agreement: float, border: float) -> tuple[float, list[str]]:
        """Confidence in [0, 1] and the reasons that lower it.

        ``agreement`` is the smallest correlation of a part's kernel with the photo's, ``border`` the share of the
        kernel at its border.
        """
        against = {
            f"parts of the photo disagree ({agreement:.2f})": agreement < 0.9,
            f"{1 - self.signal:.0%} of the detail is noise": self.signal < SIGNAL,
            "edges run in one direction only": self.roundness < ROUND,
            f"edges in {self.edges:.0f} pixels only": self.edges < EDGES,
            f"{border:.0%} of the kernel is at its border": border > 0.01,
            f"{1 - self.clear:.0%} of the detail is beside clipped or drawn pixels": self.clear < CLEAR,
            "its noise is smooth, the photo was enlarged": self.fineness < FINE,
            "every other row differs, as in interlaced video": self.interlacing > INTERLACED,
        }
        bounds = (self.signal, SIGNAL), (self.roundness, ROUND), (self.edges, EDGES), (self.clear, CLEAR)
        evidence = math.prod(min(value / bound, 1.0) for value, bound in bounds)
        evidence *= 0.3 ** ((self.fineness < FINE) + (self.interlacing > INTERLACED))
        confidence = max(agreement, 0.0) * evidence * max(1 - 10 * border, 0.0)
        return confidence, [reason for reason, holds in against.items() if holds]


def foreign_pixels(image: Tensor, flat: bool) -> npt.NDArray[np.bool_]:
    """Pixels ``(H, W)`` of ``(3, H, W)`` in [0, 1] that are blown out, or drawn over the photo (text, bars).

    ``flat`` adds pixels that equal all their neighbours, which is right for photos with noise.
    """
    white = (image.amin(0) >= 254 / 255).numpy()
    if not flat:
        return np.asarray(white)
    levels = (image * 255).round().byte().numpy()
    same = np.all([ndimage.maximum_filter(c, 3) == ndimage.minimum_filter(c, 3) for c in levels], axis=0)
    return np.asarray(white | ndimage.maximum_filter(same, 3))


def interlacing(gray: npt.NDArray[np.float64]) -> float:
    """Mean squared difference of neighbouring rows over that of rows two apart, or of columns; the larger.

    Under 0.6 in photos and 1 in noise; 1.2 to 5 where every other row is of another moment.
    """

    def ratio(rows: npt.NDArray[np.float64]) -> float:
        near, far = (((rows[step:] - rows[:-step]) ** 2).mean() for step in (1, 2))
        return float(near / max(far, 1e-12))

    return max(ratio(gray), ratio(gray.T))
