"""The embedded sample: scikit-image's colour photographs, part of them seen through a simulated camera.

The camera is ``CAMERAS["compact"]`` of :mod:`realsr.data.cameras`, a pocket camera at medium ISO: slight defocus and
motion, different in every photo; a colour mosaic with shot and read noise; sharpening; JPEG. Apart from noise all of it
together is nearly a blur. Its effective kernel is the truth that estimates are compared with.

Source photos are scenes seen at x2, so that they are as large as these pictures allow. Test photos are seen at x2, x3
and x4, so that their ground truth, in the camera's tones, is known at each scale. One camera takes both, for its
lengths are in its own pixels. Scenes have to be sharp, since no estimator can tell their blur from the camera's.
"""

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from realsr.data.cameras import CAMERAS
from realsr.estimation.kernels import Kernel
from realsr.imaging import read_image, to_float, to_uint
from realsr.imaging.resample import crop_to_multiple, imresize
from realsr.reports.pictures import save
from realsr.runtime.errors import InputError, package
from realsr.runtime.files import EXTRAS, SUFFIXES, atomic_write, write_file

SOURCE = ("motorcycle_right.png", "retina.jpg", "rocket.jpg", "hubble_deep_field.jpg")
CLEAN = ("astronaut.png", "ihc.png", "motorcycle_left.png")
TEST = ("chelsea.png", "coffee.png")
REDUCED = {"retina.jpg": 0.35, "hubble_deep_field.jpg": 0.5}  # these pictures are soft at their full size
CAMERA = CAMERAS["compact"]
SCALES = (2, 3, 4)


def make_samples(folder: Path) -> None:
    """Write ``camera/``, ``clean/``, ``test_hr/``, ``test_lr_x4/`` and the true kernels ``truth.npz`` into ``folder``.

    The pictures are always the same; test photos and kernels (``<name>_x4`` in ``truth.npz``) are there for each of
    :data:`SCALES`. ``truth.npz`` is written last and has the ``camera`` in words.

    Raises:
        InputError: scikit-image is not installed, or the folder has the sample of another camera, or other pictures.
    """
    if (folder / "truth.npz").exists():
        with np.load(folder / "truth.npz") as known:
            if str(known.get("camera")) == repr(CAMERA):
                return
        raise InputError(f"{folder}: holds the sample of another version; give another folder, or delete this one")
    check_no_photos(folder)
    scenes = {name: read_scene(name) for name in (*SOURCE, *CLEAN, *TEST)}
    truth: dict[str, Kernel] = {}
    for index, name in enumerate(SOURCE):
        _photograph(folder / "camera", name, scenes[name], 2, index)
        for scale in SCALES:
            spreads = CAMERA.spreads(scale, _draws(index))
            truth[f"{Path(name).stem}_x{scale}"] = CAMERA.effective_kernel(spreads, scale)
    for name in CLEAN:
        save(folder / "clean" / f"{Path(name).stem}.png", to_uint(scenes[name]))
    for index, name in enumerate(TEST, len(SOURCE)):
        scene = crop_to_multiple(scenes[name], math.lcm(*SCALES))
        tones = CAMERA.ideal(scene.permute(1, 2, 0).double().numpy())
        save(folder / "test_hr" / f"{Path(name).stem}.png", to_uint(torch.from_numpy(tones).movedim(-1, 0)))
        for scale in SCALES:
            _photograph(folder / f"test_lr_x{scale}", name, scene, scale, index)
    with atomic_write(folder / "truth.npz") as file:
        np.savez(file, camera=np.array(repr(CAMERA)), **truth)  # type: ignore[arg-type]


def check_no_photos(folder: Path) -> None:
    """Raise InputError if a folder holds other pictures than the sample's, before anything is written among them."""
    ours = {Path(name).stem for name in (*SOURCE, *CLEAN, *TEST)}
    for path in folder.rglob("*"):
        if path.suffix.lower() in (*SUFFIXES, *EXTRAS) and path.stem not in ours:
            raise InputError(f"{folder}: holds other pictures ({path.relative_to(folder)}); give another folder")


def read_scene(name: str) -> Tensor:
    """One of scikit-image's pictures, ``(3, H, W)`` in [0, 1]; soft ones are reduced until they are sharp."""
    skimage = package("skimage", "the embedded sample", "samples")
    scene = to_float(read_image(Path(skimage.__file__).parent / "data" / name).rgb)
    return imresize(scene, REDUCED[name]).clamp(0, 1) if name in REDUCED else scene


def _draws(index: int) -> np.random.Generator:
    """The generator of one photo: first its point spread is drawn, then its noise."""
    return np.random.default_rng([2020, index])


def _photograph(folder: Path, name: str, scene: Tensor, scale: int, index: int) -> None:
    light = crop_to_multiple(scene, scale).permute(1, 2, 0).double().numpy()
    picture = CAMERA.photograph(light, scale, _draws(index))
    write_file(folder / f"{Path(name).stem}{CAMERA.suffix}", CAMERA.file(picture))
