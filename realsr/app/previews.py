"""Pictures small enough for a browser of a result that is not: taken from its bands of rows as they pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from realsr.images import Photo
from realsr.images.encoding import eight_bit
from realsr.pictures import sharpest_crop

Pixels = npt.NDArray[Any]
WHOLE, DETAIL = "whole photo", "detail, pixel by pixel"
MOST = 2048  # pixels of the longer side of the whole photo
SIDE = 768  # of the detail
LOOKED_AT = 1024  # pixels of the longer side, where detail is looked for


class Previews:
    """The whole result, reduced by a whole number if it is large, and then also its part with most detail.

    Args:
        photo: what is enlarged.
        height: of the result.
        width: likewise.

    Attributes:
        factor: by which the whole photo is reduced; with 1 there is no detail beside it.
    """

    def __init__(self, photo: Photo, height: int, width: int) -> None:
        self._photo, self._height, self._width = photo, height, width
        self.factor = -(-max(height, width) // MOST)
        self._factors = min(self.factor, height), min(self.factor, width)  # of a thin photo one row stays
        self._scale = height / photo.rgb.shape[0], width / photo.rgb.shape[1]
        self._reduced: list[Pixels] = []
        self._rest: Pixels | None = None
        self._detail: list[Pixels] = []
        self._top, self._left = self._place()
        self._done = 0

    def watch(self, bands: Iterable[Pixels]) -> Iterator[Pixels]:
        """The bands ``(h, W, C)`` of the result, unchanged; look at the pictures once they are through."""
        for band in bands:
            self._reduce(band)
            rows = slice(max(self._top - self._done, 0), max(self._top + SIDE - self._done, 0))
            self._detail.append(_on_white(band[rows, self._left : self._left + SIDE]))
            self._done += len(band)
            yield band

    def pictures(self) -> dict[str, tuple[Image.Image, Image.Image]]:
        """What to show: the photo by bicubic and the result, both of 8 bits on white."""
        whole = np.concatenate(self._reduced)
        name = WHOLE if self.factor == 1 else f"{WHOLE}, reduced to 1/{self.factor}"
        views = {name: (self._before(0, 0, whole, self._factors), Image.fromarray(whole))}
        if self.factor > 1:
            detail = np.concatenate(self._detail)
            views[DETAIL] = self._before(self._top, self._left, detail, (1, 1)), Image.fromarray(detail)
        return views

    def _place(self) -> tuple[int, int]:
        """Top and left of the detail, in the result."""
        step = -(-max(self._photo.rgb.shape) // LOOKED_AT)
        seen = eight_bit(self._photo.rgb[::step, ::step])
        y, x = sharpest_crop(seen, max(int(SIDE / step / max(self._scale)), 1)) if min(seen.shape[:2]) > 1 else (0, 0)
        top, left = round(y * step * self._scale[0]), round(x * step * self._scale[1])
        return max(min(top, self._height - SIDE), 0), max(min(left, self._width - SIDE), 0)

    def _reduce(self, band: Pixels) -> None:
        y, x = self._factors
        rows = band if self._rest is None else np.concatenate((self._rest, band))
        h, w = len(rows) // y, rows.shape[1] // x
        self._rest = rows[h * y :].copy()
        blocks = rows[: h * y, : w * x].reshape(h, y, w, x, -1)
        means = blocks.mean((1, 3), dtype=np.float32).round().astype(band.dtype) if self.factor > 1 else rows
        self._reduced.append(_on_white(means))

    def _before(self, top: int, left: int, after: Pixels, factors: tuple[int, int]) -> Image.Image:
        """What bicubic makes of the photo for a picture of the result that starts there and is reduced so."""
        (y, x), (height, width) = self._scale, after.shape[:2]
        channels = [self._photo.rgb] if self._photo.alpha is None else [self._photo.rgb, self._photo.alpha]
        image = Image.fromarray(_on_white(np.dstack(channels)))
        right, bottom = (left + width * factors[1]) / x, (top + height * factors[0]) / y
        box = left / x, top / y, min(right, image.width), min(bottom, image.height)
        return image.resize((width, height), Image.Resampling.BICUBIC, box)


def _on_white(pixels: Pixels) -> Pixels:
    """``(h, w, C)`` of 8 or 16 bits, C = 1 gray, 2 gray and alpha, 3 RGB, 4 RGBA, to RGB of 8 bits."""
    colours = pixels[..., : 3 if pixels.shape[2] > 2 else 1]
    if pixels.shape[2] in (2, 4):
        top = np.iinfo(pixels.dtype).max
        part = pixels[..., -1:] / np.float32(top)
        colours = (colours * part + top * (1 - part)).round().astype(pixels.dtype)
    return np.ascontiguousarray(eight_bit(np.broadcast_to(colours, (*pixels.shape[:2], 3))))
