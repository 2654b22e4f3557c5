"""The embedded sample: scikit-image's colour photographs, part of them seen through a simulated camera.

The camera. Its point spread is one of four anisotropic Gaussians (one per "lens position"), given as x2 kernels
``CAMERA_SIGMAS``; the x4 kernel of the same point spread is twice as wide, since pixels of the x4 scene are half as
large. Its sensor has noise of variance ``READ_NOISE + SHOT_NOISE * I`` in squared 8-bit levels at
intensity ``I`` in [0, 255], independent per pixel and colour, and stores 8 bits.

Source photos are scenes seen at x2, so that they are as large as these pictures allow; the test photos are seen at
x4, so that their ground truth is known at the scale that is asked for. Both come from the one camera: what counts
is its point spread measured in its own pixels, which is the same. Scenes have to be sharp, since no estimator can
tell their blur from the camera's.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from realsr.errors import InputError
from realsr.files import atomic_write
from realsr.images import Photo, quantize, read_image, to_float, to_uint, write_image
from realsr.kernels import Kernel, gaussian_kernel
from realsr.resample import blur_subsample, crop_to_multiple, imresize

SOURCE = ("motorcycle_right.png", "retina.jpg", "rocket.jpg", "hubble_deep_field.jpg")
CLEAN = ("astronaut.png", "ihc.png", "motorcycle_left.png")
TEST = ("chelsea.png", "coffee.png")
CAMERA_SIGMAS = ((1.7, 0.9), (1.4, 1.0), (1.6, 0.8), (1.3, 0.9))  # pixels of the x2 scene, along and across
CAMERA_ANGLES = (0.3, 1.1, 1.9, 2.7)  # radians
READ_NOISE, SHOT_NOISE = 9.0, 0.18
REDUCED = {"retina.jpg": 0.35, "hubble_deep_field.jpg": 0.5}  # these pictures are soft at their full size


def camera_kernel(position: int, scale: int) -> Kernel:
    """The true kernel of a lens position, for scale 2 ``(17, 17)`` or 4 ``(33, 33)``."""
    widen = scale / 2
    along, across = CAMERA_SIGMAS[position]
    return gaussian_kernel(8 * scale + 1, (along * widen, across * widen), CAMERA_ANGLES[position], scale)


def photograph(scene: Tensor, position: int, scale: int, generator: torch.Generator) -> Tensor:
    """What the camera makes of a scene ``(3, H, W)`` in [0, 1]: ``(3, H/scale, W/scale)``, 8-bit levels."""
    kernel = torch.from_numpy(camera_kernel(position, scale)).to(scene.dtype)
    light = blur_subsample(scene[None], kernel[None], scale)[0].clamp(0, 1) * 255
    noise = torch.randn(light.shape, generator=generator) * (READ_NOISE + SHOT_NOISE * light).sqrt()
    return quantize((light + noise) / 255)


def make_samples(folder: Path) -> None:
    """Write ``camera/``, ``clean/``, ``test_lr/``, ``test_hr/`` and the true kernels ``truth.npz`` into ``folder``.

    The pictures are always the same. ``truth.npz`` holds for each camera photo ``<name>_x2`` and ``<name>_x4``.

    Raises:
        InputError: scikit-image is not installed.
    """
    if (folder / "truth.npz").exists():
        return
    generator = torch.Generator().manual_seed(2020)
    truth: dict[str, Kernel] = {}
    for position, name in enumerate(SOURCE):
        scene = crop_to_multiple(_scene(name), 2)
        _write(folder / "camera", name, photograph(scene, position, 2, generator))
        truth |= {f"{Path(name).stem}_x{scale}": camera_kernel(position, scale) for scale in (2, 4)}
    for name in CLEAN:
        _write(folder / "clean", name, _scene(name))
    for position, name in enumerate(TEST):
        scene = crop_to_multiple(_scene(name), 4)
        _write(folder / "test_hr", name, scene)
        _write(folder / "test_lr", name, photograph(scene, position, 4, generator))
    with atomic_write(folder / "truth.npz") as file:
        np.savez(file, **truth)  # type: ignore[arg-type]


def _scene(name: str) -> Tensor:
    try:
        import skimage
    except ImportError as e:
        raise InputError("the sample photographs come with scikit-image: pip install 'realsr[samples]'") from e
    scene = to_float(read_image(Path(skimage.__file__).parent / "data" / name).rgb)
    return imresize(scene, REDUCED[name]).clamp(0, 1) if name in REDUCED else scene


def _write(folder: Path, name: str, image: Tensor) -> None:
    write_image(folder / f"{Path(name).stem}.png", Photo(to_uint(image)))
