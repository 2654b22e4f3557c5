"""Upscaling as a library, ``from realsr import load_model, upscale``: tensors, Pillow images, files."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from realsr.imaging import Photo, image_of, photo_of, read_image, to_float
from realsr.imaging.resample import imresize, resize_bands, resized_length
from realsr.imaging.symmetries import TURNS, turned, unturned
from realsr.networks.tiling import Tiles, upscale_bands
from realsr.runtime.errors import InputError
from realsr.upscaling.backends import Network

Picture = Image.Image | str | Path
MARGIN = 4  # LR pixels around a band, at least as many as bicubic needs
SCALES = (0.01, 100)  # smallest and largest scale of a result


@overload
def upscale(
    image: Tensor, model: Network, scale: float | None = None, tiles: Tiles | None = None, keep_colours: bool = False
) -> Tensor: ...
@overload
def upscale(
    image: Picture, model: Network, scale: float | None = None, tiles: Tiles | None = None, keep_colours: bool = False
) -> Image.Image: ...
def upscale(
    image: Any, model: Network, scale: float | None = None, tiles: Tiles | None = None, keep_colours: bool = False
) -> Tensor | Image.Image:
    """Enlarge an image of any size, in bounded memory on the model's device.

    Args:
        image: a tensor ``(3, H, W)`` or ``(N, 3, H, W)`` in [0, 1], on any device; a Pillow image; or a file.
        model: from :func:`realsr.load_model`; ``realsr.Ensemble(model)`` is its self-ensemble, a little better.
        scale: of the result; None is the model's own, others are reached by bicubic resizing of its output.
        tiles: how the image is cut, see :class:`realsr.networks.tiling.Tiles`.
        keep_colours: whether the result gets the image's colours, see :func:`realsr.imaging.colour.match_colours`.

    Returns:
        For a tensor one of the same type and device in [0, 1]; else a Pillow image of the same mode (gray or RGB, with
        or without alpha), with the ICC profile and EXIF in ``info``. It has 8 bits:
        :func:`realsr.upscaling.files.upscale_file` keeps 16, and does not hold the result in memory.

    Raises:
        InputError: the file cannot be read, or image or model are of another type.

    >>> from realsr.networks.edsr import EDSR
    >>> from realsr.upscaling.backends.pytorch import TorchNetwork
    >>> model = TorchNetwork(EDSR(features=4, blocks=1), torch.device("cpu"))
    >>> upscale(torch.rand(3, 8, 6), model).shape, upscale(Image.new("L", (6, 8)), model, scale=3).size
    (torch.Size([3, 32, 24]), (18, 24))
    """
    if not (hasattr(model, "scale") and hasattr(model, "device")):
        raise InputError(f"model: a {type(model).__name__} is none; take realsr.load_model(FILE)")
    if isinstance(image, Tensor):
        return _upscale_tensor(image, model, scale, tiles, keep_colours)
    if not isinstance(image, Image.Image | str | os.PathLike):
        raise InputError(f"{type(image).__name__} is no image: give a tensor, an image of Pillow's or a path")
    photo = photo_of(image) if isinstance(image, Image.Image) else read_image(Path(image))
    height, width = result_size(photo.rgb.shape, model, scale)
    return image_of(photo_bands(photo, model, scale, tiles, keep_colours), height, width, photo)


class Ensemble:
    """Mean of a network's outputs on a tile in all eight orientations, transformed back (EDSR, section 3.4).

    Args:
        network: that is applied eight times.

    >>> from realsr.upscaling.backends.graphs import GraphNetwork
    >>> Ensemble(GraphNetwork(lambda lr: lr.repeat(2, 2).repeat(2, 3), "nearest"))(Tensor([[[[1.0, 2.0]]]]))
    tensor([[[[1., 1., 2., 2.],
              [1., 1., 2., 2.]]]])
    """

    def __init__(self, network: Network) -> None:
        self.network, self.scale, self.device = network, network.scale, network.device
        self.overlap, self.aligned, self.bytes_per_pixel = network.overlap, network.aligned, network.bytes_per_pixel

    def __call__(self, lr: Tensor) -> Tensor:
        """``lr (N, 3, h, w)`` to ``sr (N, 3, scale*h, scale*w)``."""
        total = self.network(lr)
        for index in TURNS[1:]:
            total = total + unturned(self.network(turned(lr, index).contiguous()), index)
        return total / len(TURNS)


def result_size(shape: Sequence[int], model: Network, scale: float | None = None) -> tuple[int, int]:
    """Height and width of the result of an image of shape ``(H, W, ...)``.

    Raises:
        InputError: the scale lies outside :data:`SCALES`.
    """
    check_result_scale(scale)
    ratio = (scale or model.scale) / model.scale
    height, width = (resized_length(side * model.scale, ratio) for side in shape[:2])
    return height, width


def check_result_scale(scale: float | None) -> None:
    """Raise InputError for a scale outside :data:`SCALES`; None is the model's own."""
    if scale is not None and not (isinstance(scale, int | float) and SCALES[0] <= scale <= SCALES[1]):
        raise InputError(f"scale={scale}: give a number from {SCALES[0]} to {SCALES[1]}")


def photo_bands(
    photo: Photo,
    model: Network,
    scale: float | None = None,
    tiles: Tiles | None = None,
    keep_colours: bool = False,
    report: Callable[[float], Any] = lambda share: None,
) -> Iterator[npt.NDArray[Any]]:
    """Enlarge a photo, colours by the network and alpha by bicubic; gray and bit depth are kept.

    The arguments are those of :func:`upscale` and of :func:`realsr.networks.tiling.upscale_bands`.

    Yields:
        Bands of rows, top to bottom: ``(h, W, C)`` of the photo's type, C = 1 for gray, 3 for RGB, one more with alpha.
    """
    height, width = photo.rgb.shape[:2]
    ratio = (scale or model.scale) / model.scale

    def read(rows: slice, columns: slice) -> Tensor:
        seen = photo.rgb[rows, columns]
        seen = seen if photo.alpha is None else spread_colours(seen, photo.alpha[rows, columns])
        return to_float(seen).to(model.device)

    def finish(sr: Tensor) -> Tensor:
        sr = clamp_finite(sr).mean(0, keepdim=True) if photo.gray else clamp_finite(sr)
        return sr if ratio != 1 else _levels(sr, photo)

    options = model.scale, tiles or Tiles(), model.device, keep_colours, finish, report
    bands = _with_alpha(upscale_bands(model, read, height, width, *options), photo, model.scale, ratio)
    if ratio != 1:
        bands = (_levels(band, photo) for band in resize_bands(bands, height * model.scale, ratio))
    for band in bands:
        yield band.permute(1, 2, 0).numpy()


def spread_colours(rgb: npt.NDArray[Any], alpha: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Give pixels of alpha 0, whose colours are arbitrary, the colour of the nearest visible pixel; ``(h, w, 3)``.

    >>> spread_colours(np.array([[[9, 9, 9], [1, 2, 3]]]), np.array([[0, 255]])).tolist()
    [[[1, 2, 3], [1, 2, 3]]]
    """
    hidden = alpha == 0
    if not hidden.any() or hidden.all():
        return rgb
    rows, columns = distance_transform_edt(hidden, return_distances=False, return_indices=True)
    return np.asarray(rgb[rows, columns])


def clamp_finite(sr: Tensor) -> Tensor:
    """Clamp a network's output to [0, 1].

    Raises:
        InputError: it has NaN, which would become black, or infinite values.
    """
    if not math.isfinite(sr.sum()):
        raise InputError("the network gives NaN or infinite values; take precision=32-true, or else another network")
    return sr.clamp(0, 1)


def _levels(sr: Tensor, photo: Photo) -> Tensor:
    """[0, 1] to values of the photo's type; those of 16 bits on the CPU, since not every device has uint16."""
    dtype, sr = photo.rgb.dtype, sr.clamp(0, 1)
    if dtype.kind == "f":
        return sr
    levels = sr.mul(np.iinfo(dtype).max).round()
    return levels.to(torch.uint8) if dtype == np.uint8 else levels.cpu().to(torch.uint16)


def _with_alpha(bands: Iterator[Tensor], photo: Photo, scale: int, ratio: float) -> Iterator[Tensor]:
    """Append the photo's alpha, if there is one, enlarged by bicubic as the last channel of the bands."""
    top = 0
    for band in bands:
        bottom = top + band.shape[1] // scale
        if photo.alpha is not None:
            start = max(top - MARGIN, 0)
            seen = imresize(to_float(photo.alpha[start : bottom + MARGIN, :][..., None]), scale)
            alpha = seen[:, (top - start) * scale : (bottom - start) * scale].clamp(0, 1)
            band = torch.cat((band, alpha if ratio != 1 else _levels(alpha, photo)))
        yield band
        top = bottom


def _upscale_tensor(
    images: Tensor, model: Network, scale: float | None, tiles: Tiles | None, keep_colours: bool
) -> Tensor:
    if images.ndim not in (3, 4) or images.shape[-3] != 3 or not images.is_floating_point() or not images.numel():
        kind = f"{images.dtype} of shape {tuple(images.shape)}"
        raise InputError(f"{kind} is no image: give floats (3, H, W) or (N, 3, H, W) in [0, 1]")
    if not torch.isfinite(images).all():
        raise InputError("the image has NaN or infinite values; give numbers from 0 to 1")
    batch = images if images.ndim == 4 else images[None]
    results = images.new_empty(len(batch), 3, *result_size(images.shape[-2:], model, scale))
    for image, result in zip(batch, results, strict=True):
        photo, top = Photo(image.detach().float().permute(1, 2, 0).cpu().numpy()), 0
        for band in photo_bands(photo, model, scale, tiles, keep_colours):
            result[:, top : top + len(band)] = torch.from_numpy(band).permute(2, 0, 1)
            top += len(band)
    return results if images.ndim == 4 else results[0]
