"""How far a photo's kernel by patch matching is to be trusted: what the photo shows, and how well its parts agree."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from torch import Tensor

from realsr.estimation.crops import CLEAR

FINE, INTERLACED = 0.08, 1.1  # the bounds of what photos have, see `NoiseModel.fineness` and `interlacing`
EDGES = 4000  # pixels with edges, under which the four parts see much the same and their agreement says little
SIGNAL, ROUND = 0.7, 0.05


@dataclass(frozen=True)
class Evidence:
    """What a photo shows of its blur.

    Attributes:
        signal: share of the detail that is no noise.
        roundness: mean square of the slopes along the direction with least, over that along the one with most.
        edges: number of pixels with edges.
        clear: share of the detail that is not beside clipped or drawn pixels.
        fineness: of the noise, see :meth:`realsr.estimation.noise_model.NoiseModel.fineness`.
        interlacing: see :func:`interlacing`.
    """

    signal: float
    roundness: float
    edges: float
    clear: float
    fineness: float
    interlacing: float

    def confidence(self, agreement: float, border: float) -> tuple[float, list[str]]:
        """How far to trust a kernel, 0 to 1, and what speaks against it.

        Args:
            agreement: the least of the correlations of the parts' kernels with the photo's.
            border: share of the kernel at its border.
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
        return max(agreement, 0.0) * evidence * max(1 - 10 * border, 0.0), [
            why for why, holds in against.items() if holds
        ]


def foreign_pixels(image: Tensor, flat: bool) -> npt.NDArray[np.bool_]:
    """Pixels ``(H, W)`` that tell nothing of the camera's blur: blown out, or drawn over the photo (text, bars).

    Args:
        image: ``(3, H, W)`` in [0, 1].
        flat: whether pixels that are the same as all around them are foreign, as where each has noise of its own.
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
