"""ZSSR's training pairs: the photo at some sizes (fathers), and each downscaled by the camera's kernel (sons)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from realsr.estimation.kernels import Kernel
from realsr.imaging.resample import blur_subsample, crop_to_multiple, imresize
from realsr.imaging.symmetries import TURNS, turned, unturned
from realsr.runtime.errors import InputError

LEAST = 16  # smallest side of a photo in pixels


def shrunk(image: Tensor, scale: int, kernel: Tensor | None = None) -> Tensor:
    """Downscale ``(..., 3, H, W)`` to ``(..., 3, H/scale, W/scale)`` by a kernel ``(K, K)``, or by bicubic.

    >>> shrunk(torch.ones(3, 8, 12), 2, torch.full((3, 3), 1 / 9)).shape
    torch.Size([3, 4, 6])
    """
    if kernel is None:
        return imresize(image, 1 / scale)
    images = image.reshape(-1, *image.shape[-3:])
    return blur_subsample(images, kernel[None], scale).view(*image.shape[:-2], *(n // scale for n in image.shape[-2:]))


def kernel_symmetries(kernel: Tensor | None) -> list[int]:
    """The symmetries of a square under which the kernel is invariant: all eight of bicubic, two of a slanted Gaussian.

    The network learns the orientation of the kernel, ``(K, K)`` for x2 or None for bicubic, so its self-ensemble can
    use no others. A transformed kernel of norm 1 may differ by 0.1 in L1.
    """
    if kernel is None:
        return list(TURNS)
    end = 3 - kernel.shape[-1] % 2  # an even frame, in whose middle the centre of a x2 kernel lies
    framed = F.pad(kernel, (1, end, 1, end))
    return [turn for turn in TURNS if float((turned(framed, turn) - framed).abs().sum()) <= 0.1]


def second_kernel(two: Kernel, four: Kernel) -> Tensor | None:
    """The kernel that the second doubling inverts, so that both invert the x4 kernel: the x2 kernel, or bicubic (None).

    KernelGAN's x4 kernel is x2 twice (:func:`realsr.estimation.kernels.x4_from_x2`). Patch matching's camera blurs
    once, as wide in its own pixels at x4 as at x2, so the intermediate image is sharp and bicubic makes it. Which of
    the two a x4 kernel means is decided on white noise.
    """
    noise = torch.randn(3, 128, 128, generator=torch.Generator().manual_seed(0))
    kernel = torch.from_numpy(two).float()
    wanted = shrunk(noise, 4, torch.from_numpy(four).float())
    errors = [float((shrunk(shrunk(noise, 2, k), 2, kernel) - wanted).square().mean()) for k in (kernel, None)]
    return kernel if errors[0] <= errors[1] else None


class FathersAndSons(torch.utils.data.Dataset[tuple[Tensor, Tensor]]):
    """One item per iteration: a crop of a son, enlarged by bicubic, and the father's crop (ZSSR, section 3.2).

    Fathers are the photo and smaller versions of it, drawn by area, in all eight orientations. They are transformed
    *before* they are downscaled, so that the kernel has the same orientation in the sons as in the photo.

    Args:
        photo: ``(3, H, W)`` in [0, 1].
        kernel: correlation kernel ``(K, K)`` for x2; None is bicubic.
        iterations: number of items.
        crop: side of the crops in the father's pixels, even; smaller fathers are taken whole.
        sizes, noise, seed: see :class:`realsr.evaluation.zssr.ZSSR`.
    """

    def __init__(
        self,
        photo: Tensor,
        kernel: Tensor | None,
        iterations: int,
        crop: int,
        sizes: Sequence[float],
        noise: float,
        seed: int,
    ) -> None:
        if min(photo.shape[-2:]) < LEAST:
            size = f"{photo.shape[2]}x{photo.shape[1]}"
            raise InputError(f"{size} pixels are too few for ZSSR: give {LEAST} or more on both sides")
        self.iterations, self.crop, self.noise, self.seed = iterations, crop, noise, seed
        self.fathers = [crop_to_multiple(photo if size == 1 else imresize(photo, size), 2) for size in sizes]
        # stored in the father's orientation, so that both are cropped at one place
        self.sons = [
            [unturned(shrunk(turned(father, turn), 2, kernel), turn) for turn in TURNS] for father in self.fathers
        ]
        areas = np.array([father[0].numel() for father in self.fathers])
        self.shares = areas / areas.sum()

    def __len__(self) -> int:
        return self.iterations

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """``(3, h, w)`` twice, of the same size, in [0, 1]; depends on ``index`` alone."""
        rng = np.random.default_rng((self.seed, index))
        which, turn = rng.choice(len(self.shares), p=self.shares), rng.choice(len(TURNS))
        father, son = self.fathers[which], self.sons[which][turn]
        height, width = (min(self.crop // 2, side) for side in son.shape[1:])
        y, x = rng.integers(0, son.shape[1] - height + 1), rng.integers(0, son.shape[2] - width + 1)
        father = turned(father[:, 2 * y : 2 * (y + height), 2 * x : 2 * (x + width)], turn)
        son = turned(son[:, y : y + height, x : x + width], turn)
        if self.noise:
            son = son + torch.from_numpy(self.noise / 255 * rng.standard_normal(son.shape)).to(son.dtype)
        return imresize(son, 2), father
