"""Small pictures and folders that tests share; everything is made here, nothing is downloaded."""

from __future__ import annotations

import csv
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Small operations only lose by threads, and bitwise comparisons of processes need the same number in both.
os.environ["OMP_NUM_THREADS"] = "1"

import hydra
import numpy as np
import pytest
import torch
from filelock import FileLock
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import open_dict
from pytorch_lightning import Callback, LightningModule, Trainer
from spandrel.architectures.Compact import Compact
from torch import nn
from torch.utils.data import DataLoader

from realsr.data.cameras import Camera
from realsr.data.samples import make_samples
from realsr.degradation import camera_fit
from realsr.estimation.auto_rule import AutoRule
from realsr.estimation.kernels import gaussian_kernel
from realsr.estimation.patch_matching import PatchMatching
from realsr.imaging import Photo, to_uint, write_image
from realsr.imaging.resample import imresize
from realsr.pools.estimate import estimate_kernels
from realsr.pools.jpeg_tables import JpegPool
from realsr.pools.pool import KernelPool, NoisePool
from realsr.runtime.config_check import check_config
from realsr.runtime.files import find_images
from realsr.runtime.help import conf_dir
from realsr.training.run import train

# A shell starts its background jobs deaf to Ctrl-C, and commands under test would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

DATA = Path(__file__).parent / "data"


@pytest.fixture
def golden():
    """``golden("name.npz")`` or ``golden("name.json")``: output of a reference program."""

    def load(name: str):
        path = DATA / name
        return json.loads(path.read_text()) if path.suffix == ".json" else dict(np.load(path))

    return load


def call(*arguments, cwd, check=True):
    """Run ``python -m`` with these arguments in another process."""
    done = subprocess.run([sys.executable, "-m", *map(str, arguments)], cwd=cwd, capture_output=True, text=True)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def kernel_pool() -> KernelPool:
    kernels = [gaussian_kernel(13, (1.0 + i, 2.0), 0.4 * i, 4) for i in range(4)]
    return KernelPool(torch.from_numpy(np.stack(kernels)).float(), list("abcd"))


def noise_pool() -> NoisePool:
    tiles = torch.randint(80, 120, (4, 3, 32, 32), generator=seeded(), dtype=torch.uint8)
    return NoisePool(tiles, list("abcd"))


def jpeg_pool() -> JpegPool:
    tables = torch.randint(1, 40, (4, 2, 8, 8), generator=seeded()).float()
    return JpegPool(tables, torch.tensor([(1, 1), (1, 2), (2, 1), (2, 2)]), list("abcd"))


def scene(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """A picture with edges, gradients and flat parts, ``(3, height, width)`` in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(3, height // 16 + 2, width // 16 + 2, generator=generator)
    image = imresize(coarse, 16)[:, :height, :width] * 0.6 + 0.2
    for _ in range(24):
        y, x = (int(torch.randint(side, (1,), generator=generator)) for side in (height, width))
        h, w = (int(torch.randint(4, max(side // 3, 5), (1,), generator=generator)) for side in (height, width))
        image[:, y : y + h, x : x + w] = torch.rand(3, 1, 1, generator=generator)
    return image.clamp(0.05, 0.95)


def weighted(network: nn.Module, seed: int) -> nn.Module:
    """With random weights that keep the size of what goes through, so that every layer shows in the output."""
    generator = torch.Generator().manual_seed(seed)
    for weight in network.parameters():
        std = weight[0].numel() ** -0.5 if weight.ndim == 4 else 0.1
        weight.data.copy_(std * torch.randn(weight.shape, generator=generator))
    return network.eval()


def flat_picture(camera: Camera, level: float, side: int, rng: np.random.Generator) -> np.ndarray:
    """The camera's file of an evenly gray wall, ``(side, side, 3)`` uint8, about ``level`` of [0, 1] bright."""
    light = ((level + 0.055) / 1.055) ** 2.4  # sRGB's, above its straight part
    return camera.stored(camera.develop(np.full((side, side, 3), light), rng))


def leaves(height: int, width: int, seed: int = 0, count: int = 4000) -> torch.Tensor:
    """Gray disks upon disks, as many of every size as cover the same area: alike at all scales, ``(3, height, width)``.

    Drawn twice as large, so that their edges are as sharp as those of a good photograph.
    """
    rng = np.random.default_rng(seed)
    image = np.full((2 * height, 2 * width), 0.5)
    for radius in 4 / np.sqrt(rng.uniform((4 / max(height, width)) ** 2, 1, count)):
        y, x = rng.uniform(0, image.shape)
        top, left = max(int(y - radius), 0), max(int(x - radius), 0)
        part = image[top : int(y + radius) + 2, left : int(x + radius) + 2]
        rows, columns = np.ogrid[: part.shape[0], : part.shape[1]]
        part[(rows + top - y) ** 2 + (columns + left - x) ** 2 < radius**2] = rng.uniform(0.1, 0.9)
    gray = image.reshape(height, 2, width, 2).mean((1, 3))
    return torch.from_numpy(gray).float().expand(3, -1, -1)


@pytest.fixture
def photo_folder(tmp_path):
    """``photo_folder("name", count, height, width, noise)``: a folder of PNG photos."""

    def make(name: str, count: int = 3, height: int = 160, width: int = 192, noise: float = 0.0) -> Path:
        return write_photos(tmp_path / name, count, height, width, noise)

    return make


def write_photos(folder: Path, count: int = 3, height: int = 160, width: int = 192, noise: float = 0.0) -> Path:
    """A folder of PNG photos."""
    for index in range(count):
        image = scene(height, width, seed=index)
        image = image + noise * torch.randn(image.shape, generator=torch.Generator().manual_seed(index))
        write_image(folder / f"photo{index}.png", Photo(to_uint(image)))
    return folder


@pytest.fixture
def compose(tmp_path):
    """``compose("train", "model=esrgan", ...)``: the config a command would see, with its output in ``tmp_path``."""

    def make(name: str, *overrides: str):
        cfg = hydra.compose(name, list(overrides), return_hydra_config=True)
        with open_dict(cfg):
            cfg.hydra.runtime.output_dir = str(tmp_path / "run")
            cfg.hydra.job.num = 0
        HydraConfig.instance().set_config(cfg)
        cfg = cfg.copy()
        with open_dict(cfg):
            del cfg["hydra"]
        check_config(cfg, name)
        return cfg

    with hydra.initialize_config_dir(conf_dir(), version_base="1.3"):
        yield make
    HydraConfig.instance().cfg = None


@pytest.fixture
def rough_fit(monkeypatch):
    """A camera is fitted to the noise of a few tiles, with few choices, in a fiftieth of the time."""
    fit_roughly(monkeypatch)


def fit_roughly(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(camera_fit, "WALLS", 4)
    for part, values in camera_fit.CHOICES.items():
        patch.setitem(camera_fit.CHOICES, part, values[:2])


@pytest.fixture
def tiny(rough_fit, tmp_path):
    """Overrides for a training that takes seconds on small photos of its own."""
    return tiny_training(tmp_path)


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """``shared("name", make)``: a folder that ``make(folder)`` fills, once for the processes of all tests."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def folder(name: str, make: Callable[[Path], object]) -> Path:
        with FileLock(base / f"{name}.lock"):
            if not (base / name).exists():
                make(base / f"{name}.part")
                (base / f"{name}.part").rename(base / name)
        return base / name

    return folder


@pytest.fixture(scope="session")
def samples(shared):
    """The embedded sample's photos; not to be changed."""
    return shared("samples", make_samples)


@pytest.fixture(scope="session")
def sample_pools(samples, shared):
    """Pools of the embedded sample's photos; not to be changed."""

    def make(folder):
        photos = find_images(samples / "camera")
        noise = functools.partial(camera_fit.camera_noise, photos, folder / "noise", AutoRule())
        estimate_kernels(photos, folder / "kernels", PatchMatching, 4, noise=noise)

    return shared("sample_pools", make)


@pytest.fixture(scope="session")
def tiny_pools(shared):
    """The pools that trainings on the photos of ``tiny`` would each make; not to be changed."""

    def make(folder):
        with hydra.initialize_config_dir(conf_dir(), version_base="1.3"), pytest.MonkeyPatch.context() as patch:
            fit_roughly(patch)
            instantiate(hydra.compose("train", tiny_training(folder)).data).prepare_data()

    return shared("tiny", make) / "pools"


def tiny_training(folder: Path) -> list[str]:
    """Photos in ``folder``, and the options."""
    return [
        f"data.source_dir={write_photos(folder / 'camera', noise=0.02)}",
        f"data.clean_dir={write_photos(folder / 'clean')}",
        f"pool_dir={folder / 'pools'}",
        "model=compact",
        "model.generator={num_feat:8,num_conv:1}",
        "model.discriminator.features=4",
        "perceptual=none",
        "lpips=null",
        "data.crop_size=32",
        "data.validation.size=64",
        "data.validation.look_size=32",
        "data.pools.builder.workers=1",
        "estimator.iterations=50",
        "collector=df2k",
        *("collector.tile_size=16", "collector.stride=16", "collector.keep_best=20"),
        "callbacks.progress=null",
        "+debug=fast",
    ]


@pytest.fixture
def made_pools(tiny_pools, tmp_path):
    """The folder that trainings of ``tiny`` make their pools in, when all of them are there."""
    return shutil.copytree(tiny_pools, tmp_path / "pools")


@pytest.fixture
def fit(made_pools, compose, tiny, tmp_path):
    """``fit("name", *overrides)``: train in this process; gives the run's folder.

    By the paper's degradation, which needs no fit of the camera, unless told otherwise.
    """

    def make(name: str, *overrides: str) -> Path:
        folder = tmp_path / name
        outputs = [f"callbacks.{c}.dirpath={folder}/checkpoints" for c in ("last", "best")]
        outputs += [f"callbacks.pictures.folder={folder}/pictures", f"logger.csv.save_dir={folder}"]
        cfg = compose("train", *tiny, "degradation=kernel_noise", *outputs, *overrides)
        train(cfg, folder)
        return folder

    return make


@pytest.fixture
def train_on_noise():
    """``train_on_noise(module, steps, *callbacks)``: steps on random pairs, always the same ones; gives the Trainer."""

    def make(module: LightningModule, steps: int, *callbacks: Callback, precision: Any = "32-true") -> Trainer:
        generator = torch.Generator().manual_seed(0)
        sides = {"lr": 8, "hr": 32}
        pairs = [{n: torch.rand(2, 3, s, s, generator=generator) for n, s in sides.items()} for _ in range(steps)]
        quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
        options = {"accelerator": "cpu", "precision": precision, "max_steps": steps, "log_every_n_steps": 1}
        trainer = Trainer(**options, callbacks=list(callbacks), **quiet)
        trainer.fit(module, DataLoader(pairs, batch_size=None))
        assert module.global_step == steps
        return trainer

    return make


def nearest(offset: tuple[float, float, float] = (0, 0, 0)) -> Compact:
    """The compact generator of ``tiny`` as nearest-neighbour upscaling, with ``offset`` added to R, G and B."""
    network = Compact(num_feat=8, num_conv=1)
    nn.init.zeros_(network.body[-1].weight)
    network.body[-1].bias.data = torch.tensor(offset, dtype=torch.float32).repeat_interleave(16)  # before the shuffle
    return network


def save_compact(network: Compact, path: Path) -> Path:
    """A compact generator as a checkpoint of a training."""
    options = {key: network.hyperparameters[key] for key in ("num_feat", "num_conv", "upscale")}
    node = {"_target_": "spandrel.architectures.Compact.Compact", **options}
    state = {f"generator.{key}": value for key, value in network.state_dict().items()}
    torch.save({"config": {"model": {"generator": node}}, "state_dict": state}, path)
    return path


def last_checkpoint(folder: Path, name: str = "last") -> dict[str, Any]:
    """What a run's ``last.ckpt`` holds, or its ``best.ckpt``."""
    return torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)


def csv_rows(folder: Path) -> list[dict[str, str]]:
    """The curves of a run, however often it was started."""
    return list(csv.DictReader((folder / "csv" / "metrics.csv").read_text().splitlines()))


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint of ``nearest()``."""
    return save_compact(nearest(), tmp_path / "model.ckpt")
