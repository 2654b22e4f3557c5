"""A whole photo of any size through a network, tile by tile, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, NamedTuple

import torch
from torch import Tensor

from realsr.imaging.colour import match_colours
from realsr.networks.sizes import MOST_OVERLAP
from realsr.runtime.errors import InputError
from realsr.runtime.hardware import free_memory, is_out_of_memory

TILE = 384  # LR pixels kept of each tile
SMALLEST = 16  # LR pixels; smaller tiles are not halved again where memory is short
BYTES_PER_PIXEL = 12_000  # most memory for each LR pixel: RRDBNet takes 3000 by PyTorch, 11,800 by ONNX Runtime
MOST_TILES = 16  # at a time


class Part(NamedTuple):
    """A rectangle of the image in LR pixels, without its ends ``bottom`` and ``right``."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.bottom - self.top, self.right - self.left

    def inside(self, outer: Part, scale: int) -> tuple[slice, slice, slice]:
        """The index of this part in the result ``(C, scale*h, scale*w)`` of an outer one."""
        rows = slice((self.top - outer.top) * scale, (self.bottom - outer.top) * scale)
        return slice(None), rows, slice((self.left - outer.left) * scale, (self.right - outer.left) * scale)


@dataclass
class Tiles:
    """The sizes of tiles; both ``tile`` and ``batch`` shrink where memory runs out.

    Attributes:
        tile: side of the kept part of each tile, in LR pixels; 0 takes the image whole.
        overlap: LR pixels of surroundings on every side, -1 for the network's own; docs/upscaling.md measures seams.
        batch: tiles that go through the network at once; 0 takes as many as free memory holds on a GPU, and one on a
            CPU, which gains nothing by more.
        aligned: tiles start at multiples of it, unless the network has its own.

    Raises:
        InputError: a size is too small or not a whole number.
    """

    tile: int = TILE
    overlap: int = -1
    batch: int = 0
    aligned: int = 1

    def __post_init__(self) -> None:
        for name, value, least in (("tile", self.tile, 0), ("overlap", self.overlap, -1), ("batch", self.batch, 0)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InputError(f"{name}={value}: give {least} or more, a whole number")

    def fitted(self, network: object, height: int, width: int, device: torch.device) -> Tiles:
        """Tiles for a network and an image of this size that fit into free memory."""
        tile, batch, aligned = self.tile or max(height, width), self.batch, getattr(network, "aligned", self.aligned)
        overlap = self.overlap if self.overlap >= 0 else getattr(network, "overlap", MOST_OVERLAP)
        free = free_memory(device)
        needs = getattr(network, "bytes_per_pixel", BYTES_PER_PIXEL)
        room = (2**40 if free is None else free) // 2 // needs  # LR pixels; half is left to all else
        if self.tile:
            tile = min(tile, max(math.isqrt(room) - 2 * overlap, 2 * SMALLEST))
        if not batch and device.type == "cuda":
            batch = min(max(room // (tile + 2 * overlap) ** 2, 1), MOST_TILES)
        return Tiles(tile, overlap, batch or 1, aligned)

    def cuts(self, start: int, end: int, spare: int = 0) -> list[tuple[int, int]]:
        """An interval cut into nearly equal pieces of at most a tile, which start at multiples of ``aligned``.

        >>> Tiles(tile=384).cuts(0, 1000)
        [(0, 334), (334, 668), (668, 1000)]

        An interval up to ``spare`` longer than a tile stays whole: that of an image, which has no surroundings.
        """
        count = 1 if end - start <= self.tile + spare else -(-(end - start) // self.tile)
        step = -(-(end - start) // (count * self.aligned)) * self.aligned
        return [(low, min(low + step, end)) for low in range(start, end, step)]

    def split(self, part: Part, spare: int = 0) -> list[Part]:
        """A part cut into tiles; ``spare`` as in :meth:`cuts`."""
        columns = self.cuts(part.left, part.right, spare)
        return [Part(*rows, *sides) for rows in self.cuts(part.top, part.bottom, spare) for sides in columns]

    def seen(self, part: Part, height: int, width: int) -> Part:
        """The part with its surroundings, as far as they lie in an image of this size."""
        step, overlap = self.aligned, self.overlap
        top, left = (max(start - overlap, 0) // step * step for start in (part.top, part.left))
        bottom, right = (-(-(end + overlap) // step) * step for end in (part.bottom, part.right))
        return Part(top, min(bottom, height), left, min(right, width))


@torch.inference_mode()
def upscale_bands(
    network: Callable[[Tensor], Tensor],
    read: Callable[[slice, slice], Tensor],
    height: int,
    width: int,
    scale: int,
    tiles: Tiles,
    device: torch.device,
    keep_colours: bool = False,
    finish: Callable[[Tensor], Tensor] = lambda sr: sr.clamp(0, 1),
    report: Callable[[float], Any] = lambda share: None,
) -> Iterator[Tensor]:
    """Upscale in tiles with their surroundings; only the inner part of each result is kept.

    Where memory runs out, tiles go through the network one by one, and are then halved.

    Args:
        network: ``(N, 3, h, w)`` to ``(N, 3, scale*h, scale*w)``, on ``device``; may have ``overlap``, ``aligned`` and
            ``bytes_per_pixel``.
        read: returns rows and columns of the image, ``(3, h, w)`` in [0, 1] on ``device``.
        height: of the image.
        width: of the image.
        scale: of the network.
        tiles: their sizes.
        device: of the network.
        keep_colours: whether the result gets the image's colours, see :func:`realsr.imaging.colour.match_colours`.
        finish: is applied to each piece of the result, ``(3, h, w)`` on ``device``; it may change channels and type,
            so that a band takes less memory.
        report: is called after each tile with the share of the image that is done; its exceptions end the work.

    Yields:
        Bands of rows, top to bottom: ``(C, scale*rows, scale*width)`` on the CPU, as returned by ``finish``.

    Raises:
        InputError: there is no memory for the smallest tile, or the network's result has the wrong size.
    """
    tiles, done = tiles.fitted(network, height, width, device), 0
    spare = 2 * tiles.overlap
    for top, bottom in tiles.cuts(0, height, spare):
        strip = Part(top, bottom, 0, width)
        parts, band = tiles.split(strip, spare), torch.empty(0)
        while parts:
            around = [tiles.seen(part, height, width) for part in parts]
            seen = list(takewhile(lambda part: part.shape == around[0].shape, around))[: tiles.batch]  # noqa: B023
            group = parts[: len(seen)]
            try:
                lr = torch.stack([read(slice(s.top, s.bottom), slice(s.left, s.right)) for s in seen])
                sr = network(lr).float()
                if sr.shape != (wanted := (*lr.shape[:2], *(scale * side for side in lr.shape[2:]))):
                    raise InputError(f"the network gives {tuple(sr.shape)} of {tuple(lr.shape)}, not {wanted}")
                if keep_colours:
                    match_colours(sr.clamp_(0, 1), lr, scale)
                results = zip(group, seen, sr, strict=True)
                pieces = [finish(result[part.inside(tile, scale)]) for part, tile, result in results]
            except (RuntimeError, MemoryError) as e:
                if not is_out_of_memory(e):
                    raise
                parts, spare = _with_less(parts, len(group), tiles), 0
                continue
            for part, piece in zip(group, pieces, strict=True):
                if not band.numel():
                    band = piece.new_empty((len(piece), (bottom - top) * scale, width * scale), device="cpu")
                band[part.inside(strip, scale)] = piece.cpu()
            parts = parts[len(group) :]
            done += sum(part.shape[0] * part.shape[1] for part in group)
            report(done / (height * width))
        yield band


def upscale_tiled(
    network: Callable[[Tensor], Tensor],
    lr: Tensor,
    scale: int,
    tile: int = TILE,
    overlap: int = -1,
    keep_colours: bool = False,
) -> Tensor:
    """:func:`upscale_bands` of ``lr (1, 3, H, W)`` in [0, 1], as one ``(1, 3, scale*H, scale*W)`` on the CPU.

    >>> upscale_tiled(torch.nn.Upsample(scale_factor=4), torch.rand(1, 3, 20, 30), scale=4, tile=16).shape
    torch.Size([1, 3, 80, 120])
    """
    height, width = lr.shape[-2:]
    sr, done = torch.empty(1, 3, height * scale, width * scale), 0
    tiles = Tiles(tile, overlap)
    for band in upscale_bands(
        network, lambda rows, columns: lr[0, :, rows, columns], height, width, scale, tiles, lr.device, keep_colours
    ):
        sr[0, :, done : done + band.shape[1]] = band
        done += band.shape[1]
    return sr


def _with_less(parts: list[Part], failed: int, tiles: Tiles) -> list[Part]:
    """The same parts for less memory than the first ``failed`` of them take: fewer at once, then smaller ones."""
    if failed > 1:
        tiles.batch = failed // 2
        return parts
    largest = max(parts[0].shape)
    if largest <= max(SMALLEST, tiles.aligned):
        raise InputError(
            f"no memory for a tile of {largest} pixels and {tiles.overlap} around it; close other programs, give a "
            "smaller overlap=, or take accelerator=cpu"
        )
    tiles.tile = -(-largest // 2)
    return sorted(piece for part in parts for piece in tiles.split(part))  # the image is read from top to bottom
