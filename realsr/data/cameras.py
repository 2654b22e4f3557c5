"""Simulated cameras whose truth is known.

A camera does to a scene, in this order: blur in linear light (defocus, diffraction, motion, the pixel's own area), one
colour a pixel, shot and read noise, white balance, demosaicking, colours, tone curve, noise reduction, sharpening,
JPEG. The embedded sample is seen through one of them, and ``tests/benchmarks/bench_camera.py`` measures the method on
all. They share colour matrices with :mod:`realsr.degradation.development`, no code: OpenCV and Pillow do the rest.
"""

import functools
import io
import math
from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
import torch
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image
from scipy import linalg, signal

from realsr.degradation.sensor import CAMERA_FROM_XYZ, XYZ_FROM_SRGB, demosaic
from realsr.estimation.kernels import Array, Kernel, normalise
from realsr.imaging.colour import LUMA

Levels = npt.NDArray[np.uint8]
OVER = 9  # samples along a pixel's side when a lens' disks and lines are drawn; odd, so that one is in the middle


@dataclass(frozen=True)
class Camera:
    """A camera and its settings. Lengths are in its own pixels, so that it is one camera at any scale.

    >>> camera, rng = Camera(), np.random.default_rng(0)
    >>> camera.photograph(np.full((64, 96, 3), 0.5), scale=4, rng=rng).shape
    (16, 24, 3)

    Attributes:
        core: standard deviation of the lens' core (diffraction and aberrations).
        defocus: bounds of the radius of the disk of defocus, drawn for every photo.
        motion: bounds of the length of the line of motion, drawn for every photo.
        tail: share of the light in a halo around the core, three times as wide.
        corners: how much wider the core is in the corners than in the middle; 1 for none.
        shot: variance of the noise for each unit of raw signal in [0, 1].
        read: standard deviation of the noise in the dark.
        gains: white balance of red, green and blue: raw signals of white are their inverses.
        matrix: which of :data:`realsr.degradation.sensor.CAMERA_FROM_XYZ` the sensor has; None: sRGB's.
        demosaic: how the mosaic is filled in.
        tone: ``srgb``; ``gamma`` (a power of 1/2.2); ``film`` (more contrast, then sRGB's).
        reduction: strength of the noise reduction, of edge-preserving kind, in standard deviations of the noise.
        sharpening: amount of unsharp masking in display values.
        radius: standard deviation of its blur.
        quality: of JPEG; None stores 8 bits without loss.
        subsampling: of chroma.
    """

    core: float = 0.37
    defocus: tuple[float, float] = (0.12, 0.4)
    motion: tuple[float, float] = (0.0, 0.5)
    tail: float = 0.0
    corners: float = 1.0
    shot: float = 9e-4
    read: float = 3e-3
    gains: tuple[float, float, float] = (1.9, 1.0, 1.6)
    matrix: int | None = None
    demosaic: Literal["bilinear", "malvar", "edge_aware"] = "edge_aware"
    tone: Literal["srgb", "gamma", "film"] = "gamma"
    reduction: float = 0.0
    sharpening: float = 0.4
    radius: float = 0.9
    quality: int | None = 92
    subsampling: Literal["4:4:4", "4:2:0"] = "4:2:0"

    @property
    def suffix(self) -> str:
        """Suffix of the files that the camera writes."""
        return ".png" if self.quality is None else ".jpg"

    def spreads(self, scale: int, rng: np.random.Generator) -> list[Kernel]:
        """Point spreads of one photo in pixels of a scene ``scale`` times as large, of odd side: middle, corners.

        The pixel's own area is not in them.
        """
        radius, length = rng.uniform(*self.defocus), rng.uniform(*self.motion)
        angle = rng.uniform(0, math.pi)
        return [self._spread(scale, core, radius, length, angle) for core in (self.core, self.core * self.corners)]

    def _spread(self, scale: int, core: float, radius: float, length: float, angle: float) -> Kernel:
        reach = math.ceil(scale * (radius + length / 2 + 3.5 * core * (3 if self.tail else 1))) + 1
        fine = (np.arange((2 * reach + 1) * OVER) + 0.5) / OVER - reach - 0.5
        x, y = np.meshgrid(fine, -fine)
        gaussians = [share * np.exp(-(x**2 + y**2) / (2 * (s * scale) ** 2)) / s**2
                     for share, s in ((1 - self.tail, core), (self.tail, 3 * core)) if share]  # fmt: skip
        spread = np.sum(gaussians, axis=0)
        along, across = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
        disk = np.hypot(x, y) <= max(radius * scale, 1 / OVER)
        line = (np.abs(along) <= max(length * scale / 2, 1 / OVER)) & (np.abs(across) <= 1 / OVER)
        for shape in (disk, line):
            spread = signal.fftconvolve(spread, shape / shape.sum(), mode="same")
        side = 2 * reach + 1
        return normalise(spread.clip(0).reshape(side, OVER, side, OVER).sum((1, 3)))

    def expose(self, scene: Array, scale: int, spreads: list[Kernel]) -> Array:
        """Linear light on the sensor, ``(h, w, 3)`` in [0, 1], of a scene ``(h*scale, w*scale, 3)`` sRGB in [0, 1]."""
        light = _linear(scene)
        middle, corner = (cv2.filter2D(light, -1, spread, borderType=cv2.BORDER_REFLECT) for spread in spreads)
        if self.corners != 1:
            y, x = np.ogrid[-1 : 1 : light.shape[0] * 1j, -1 : 1 : light.shape[1] * 1j]
            middle += (corner - middle) * ((y**2 + x**2) / 2)[..., None]
        return np.asarray(middle.reshape(len(light) // scale, scale, -1, scale, 3).mean((1, 3)))

    def develop(self, light: Array, rng: np.random.Generator | None) -> Array:
        """The camera's picture of :meth:`expose`, sRGB in [0, 1], before JPEG; without noise where ``rng`` is None."""
        matrix = self.matrix
        to_camera = np.eye(3) if matrix is None else (CAMERA_FROM_XYZ[matrix] @ XYZ_FROM_SRGB).double().numpy()
        to_camera /= to_camera.sum(1, keepdims=True)  # white stays white
        balanced, gains = light @ to_camera.T, np.array(self.gains)
        raw, gain = _mosaic(balanced / gains), _mosaic(np.broadcast_to(gains, light.shape))
        if rng is not None:
            raw = raw + rng.standard_normal(raw.shape) * np.sqrt(self.shot * raw.clip(0) + self.read**2)
        raw = (raw * gain).clip(0, 1)
        if self.demosaic == "malvar":
            colours = demosaic(torch.from_numpy(raw)[None, None])[0].movedim(0, -1).numpy()
        else:
            code = cv2.COLOR_BayerRGGB2RGB if self.demosaic == "bilinear" else cv2.COLOR_BayerRGGB2RGB_EA
            colours = cv2.cvtColor((raw * 65535).round().astype(np.uint16), code) / 65535.0
        linear = (colours @ np.linalg.inv(to_camera).T).clip(0, 1)
        display = self._toned(linear)
        if self.reduction:
            # the noise of a gray of a half, in display values, is what the filter tells from edges
            sigma = self.reduction * math.sqrt(self.shot * 0.21 + self.read**2)
            display = cv2.bilateralFilter(display.astype(np.float32), 5, 2 * sigma, 1.0).astype(np.float64)
        if self.sharpening:
            soft = cv2.GaussianBlur(display, (0, 0), self.radius, borderType=cv2.BORDER_REFLECT)
            display = display + self.sharpening * (display - soft)
        return np.asarray(display.clip(0, 1))

    def _toned(self, linear: Array) -> Array:
        if self.tone == "gamma":
            return np.asarray(linear ** (1 / 2.2))
        if self.tone == "film":
            linear = linear * (0.6 + 0.4 * linear * (3 - 2 * linear))
        return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 1e-8) ** (1 / 2.4) - 0.055)

    def ideal(self, scene: Array) -> Array:
        """The scene ``(h, w, 3)`` in the camera's tones, without blur, mosaic and noise: the HR truth."""
        return self._toned(_linear(scene))

    def file(self, picture: Array) -> bytes:
        """The picture as the file that the camera writes, JPEG or PNG."""
        buffer, image = io.BytesIO(), Image.fromarray((picture * 255).round().astype(np.uint8))
        options = {} if self.quality is None else {"quality": self.quality, "subsampling": self.subsampling}
        image.save(buffer, "JPEG" if options else "PNG", **options)
        return buffer.getvalue()

    def stored(self, picture: Array) -> Levels:
        """The picture as the camera's file holds it, ``(h, w, 3)`` uint8."""
        return np.asarray(Image.open(io.BytesIO(self.file(picture))))

    def photograph(self, scene: Array, scale: int, rng: np.random.Generator) -> Array:
        """The camera's picture ``(h, w, 3)`` of a scene ``(h*scale, w*scale, 3)``, both sRGB in [0, 1]."""
        return self.develop(self.expose(scene, scale, self.spreads(scale, rng)), rng)

    def effective_kernel(self, spreads: list[Kernel], scale: int) -> Kernel:
        """The correlation kernel that comes nearest, in display values, to the camera with all it does, 33x33 for x4.

        It is fitted by least squares to pictures of charts of low contrast (natural photos are too badly conditioned),
        blurred by the field's mean spread, without noise, noise reduction and JPEG.

        Args:
            spreads: of the photo, from :meth:`spreads`.
            scale: of the scene.
        """
        size = 8 * scale + 1
        plain = replace(self, reduction=0.0, corners=1.0)
        mean = [spreads[0] * 2 / 3, spreads[1] / 3]  # the mean over the field of the weight of `expose`
        frame = max(len(spread) for spread in mean)
        spread = np.sum([np.pad(k, (frame - len(k)) // 2) for k in mean], axis=0)
        rim = size // scale + 2  # pixels of the picture at each side that are left out
        charts, normal = _charts(scale, size, rim)
        right: Array = np.zeros((size, size))
        for chart, around in charts:
            picture = plain.develop(plain.expose(np.repeat(chart[..., None], 3, 2), scale, [spread, spread]), None)
            luma = (picture @ LUMA)[rim:-rim, rim:-rim]
            spaced = np.zeros((scale * (len(luma) - 1) + 1,) * 2)
            spaced[::scale, ::scale] = luma - luma.mean()
            right += signal.correlate(around, spaced, mode="valid", method="fft")
        return normalise(linalg.cho_solve(normal, right.ravel()).reshape(size, size))


@functools.lru_cache(maxsize=3)
def _charts(scale: int, size: int, rim: int, side: int = 128) -> tuple[list[tuple[Array, Array]], tuple[Array, bool]]:
    """Charts, each with the part that a kernel sees, and the factor of the normal equations of a kernel's fit."""
    seen = slice(rim * scale - size // 2, (side - rim - 1) * scale + size // 2 + 1)
    charts = [0.5 + 0.04 * np.random.default_rng(seed).standard_normal((side * scale,) * 2) for seed in range(3)]
    around = [chart[seen, seen] - 0.5 for chart in charts]
    normal: Array = np.zeros((size**2, size**2))
    for part in around:
        rows = sliding_window_view(part, (size, size))[::scale, ::scale].reshape(-1, size**2)
        normal += rows.T @ rows
    return list(zip(charts, around, strict=True)), linalg.cho_factor(normal)


def _mosaic(colours: Array) -> Array:
    """One colour a pixel, RGGB, of ``(h, w, 3)``."""
    raw = colours[..., 1].copy()
    raw[::2, ::2], raw[1::2, 1::2] = colours[::2, ::2, 0], colours[1::2, 1::2, 2]
    return raw


def _linear(encoded: Array) -> Array:
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


# Point spread, sensitivity, demosaicking, tone, noise reduction, sharpening and JPEG differ; each is of a kind in use.
CAMERAS = {
    # a pocket camera at medium ISO, the quickstart's
    "compact": Camera(),
    # a phone in the evening: small pixels, much sharpening after light noise reduction
    "phone": Camera(core=0.33, defocus=(0.1, 0.3), tail=0.15, shot=1.0e-3, read=3e-3, matrix=2, demosaic="bilinear",
                    tone="film", reduction=1.0, sharpening=0.9, radius=1.1, quality=90),
    # a system camera at low ISO, stored without loss, with the lens' corners soft
    "system": Camera(core=0.28, defocus=(0.05, 0.2), motion=(0.0, 0.2), corners=1.8, shot=1.2e-4, read=8e-4, matrix=0,
                     demosaic="malvar", tone="srgb", sharpening=0.0, quality=None),
    # a surveillance camera: out of focus, high ISO, no sharpening
    "cctv": Camera(core=0.4, defocus=(0.5, 0.9), motion=(0.0, 0.3), shot=1.4e-3, read=5e-3, demosaic="bilinear",
                   tone="srgb", reduction=0.8, sharpening=0.0, quality=80),
    # a drone: medium ISO, sharpened, little compression
    "drone": Camera(core=0.3, defocus=(0.1, 0.25), motion=(0.1, 0.6), corners=1.5, shot=3e-4, read=1.5e-3, matrix=1,
                    demosaic="malvar", tone="film", sharpening=0.5, radius=0.8, quality=97, subsampling="4:4:4"),
    # held in the hand in poor light: every photo is moved and focused otherwise
    "hand": Camera(core=0.35, defocus=(0.05, 0.9), motion=(0.0, 2.0), shot=1.0e-3, read=4e-3, tone="gamma",
                   sharpening=0.2, quality=85),
}  # fmt: skip
