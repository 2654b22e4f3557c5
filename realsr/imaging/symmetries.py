"""The eight symmetries of a square: a picture turned and mirrored, and back."""

from __future__ import annotations

import torch
from torch import Tensor

TURNS = range(8)  # four rotations, and those of the mirrored picture


def turned(image: Tensor, turn: int) -> Tensor:
    """``(..., H, W)`` rotated by ``turn % 4`` right angles counter-clockwise; turns 4 to 7 mirror it first.

    >>> turned(torch.tensor([[1, 2], [3, 4]]), 1)
    tensor([[2, 4],
            [1, 3]])
    """
    return torch.rot90(image.flip(-1) if turn >= 4 else image, turn % 4, (-2, -1))


def unturned(image: Tensor, turn: int) -> Tensor:
    """The inverse of :func:`turned`.

    >>> image = torch.rand(3, 4, 5)
    >>> all(torch.equal(unturned(turned(image, turn), turn), image) for turn in TURNS)
    True
    """
    image = torch.rot90(image, -(turn % 4), (-2, -1))
    return image.flip(-1) if turn >= 4 else image
