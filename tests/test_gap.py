import json
import re
import sys

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from PIL import Image

from realsr.collect import collect_noise
from realsr.data import samples
from realsr.data.samples import CLEAN, SOURCE, TEST, camera_kernel, make_samples, photograph
from realsr.degradation import Degradation
from realsr.errors import InputError
from realsr.estimate import estimate_kernels
from realsr.estimators.patch_matching import PatchMatching
from realsr.files import find_images
from realsr.gap import cut_patches, main, measure
from realsr.images import Photo, to_uint, write_image
from realsr.pools import KernelPool, NoisePool
from realsr.resample import crop_to_multiple


class Camera:
    """The embedded camera itself, as a degradation: its true kernels and noise."""

    def __call__(self, hr, generator):
        positions = torch.randint(4, (len(hr),), generator=generator).tolist()
        return torch.stack([photograph(scene, p, 4, generator) for scene, p in zip(hr, positions, strict=True)])


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    """Scenes and the embedded camera's photos of them at x4."""
    folder = tmp_path_factory.mktemp("embedded")
    generator = torch.Generator().manual_seed(7)
    for index, name in enumerate((*SOURCE, *CLEAN, *TEST)):
        scene = crop_to_multiple(samples._scene(name), 4)
        stem = name.split(".")[0]
        write_image(folder / "hr" / f"{stem}.png", Photo(to_uint(scene)))
        write_image(folder / "photos" / f"{stem}.png", Photo(to_uint(photograph(scene, index % 4, 4, generator))))
    return folder


@pytest.fixture(scope="module")
def pools(tmp_path_factory):
    """What the quickstart learns of the embedded camera, from other photos of it."""
    folder = tmp_path_factory.mktemp("pools")
    make_samples(folder / "photos")
    photos = find_images(folder / "photos" / "camera")
    rule = {"tile_size": 32, "stride": 32, "max_variance": 25, "min_mean": 50, "keep_best": 50}
    collect_noise(photos, folder / "noise", instantiate({"_target_": "realsr.noise.NoiseRule", **rule}))
    estimate_kernels(photos, folder / "kernels", PatchMatching, 4)
    return folder


def test_the_true_camera_leaves_no_gap_and_what_was_learnt_the_least(embedded, pools):
    """The measure's claim, where the truth is known."""
    real = cut_patches(find_images(embedded / "photos"), 32, 150, seed=1)
    hr = cut_patches(find_images(embedded / "hr"), 160, 150, seed=2)
    kernels, noise = KernelPool.load(pools / "kernels", 4), NoisePool.load(pools / "noise")
    variants = {
        "bicubic": Degradation(4),
        "noise": Degradation(4, noise=noise),
        "kernel": Degradation(4, kernels),
        "kernel_noise": Degradation(4, kernels, noise),
        "true kernels": Degradation(4, KernelPool(_true_kernels(), list("abcd")), noise),
        "truth": Camera(),
    }
    gaps = measure(real, hr, variants)
    auc = {name: gap.separation.auc for name, gap in gaps.items()}
    learnt = {name: value for name, value in auc.items() if name not in ("truth", "true kernels")}
    assert min(learnt, key=learnt.get) == "kernel_noise"
    assert 0.4 < auc["truth"] < 0.6
    assert gaps["truth"].separation.low < 0.5 < gaps["truth"].separation.high
    assert auc["truth"] < auc["true kernels"] < auc["kernel_noise"] + 0.02 < 0.97 < auc["bicubic"]
    for key in ("noise", "noise_spectrum", "spectrum", "edges"):
        worst = max(gaps[name].distances[key] for name in learnt)
        assert gaps["truth"].distances[key] < 0.35 * worst


def _true_kernels():
    return torch.stack([torch.from_numpy(camera_kernel(p, 4)).float() for p in range(4)])


def _run(monkeypatch, folder, *options):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["gap", *map(str, options)])
    main()


def test_the_command_writes_table_picture_and_figures(embedded, pools, tmp_path, monkeypatch, capsys):
    _run(
        monkeypatch, tmp_path, f"data.source_dir={embedded / 'photos'}", f"data.hr={embedded / 'hr'}", f"pools={pools}",
        "patches=40", "+degradation@variants.again=kernel_noise",
    )  # fmt: skip
    told = capsys.readouterr().out
    figures = json.loads((tmp_path / "outputs/gap/gap.json").read_text())
    assert list(figures["variants"]) == ["bicubic", "noise", "kernel", "kernel_noise", "again"]
    assert figures["variants"]["again"] == figures["variants"]["kernel_noise"]
    assert re.search(rf"kernel_noise.*{figures['variants']['kernel_noise']['auc']:.3f}", told)
    picture = np.asarray(Image.open(tmp_path / "outputs/gap/gap.png"))
    assert picture.shape[2] == 3 and len(np.unique(picture.reshape(-1, 3), axis=0)) > 6


def test_the_command_sends_curves_to_wandb(embedded, pools, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    _run(
        monkeypatch, tmp_path, f"data.source_dir={embedded / 'photos'}", f"data.hr={embedded / 'hr'}", f"pools={pools}",
        "patches=20", "logger=wandb",
    )  # fmt: skip
    assert list((tmp_path / "outputs/gap").rglob("run-*.wandb"))
    assert list((tmp_path / "outputs/gap").rglob("*curves*.png"))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["data.source_dir=missing"], "no such folder"),
        (["patches=3"], "patches=3"),
        (["patch=8"], "patch=8"),
        (["pools=nothing"], "pool does not exist"),
        (["patch=400"], "needs two on each side"),
    ],
)
def test_bad_input_is_one_line(embedded, pools, tmp_path, monkeypatch, capsys, options, told):
    with pytest.raises(SystemExit) as stopped:
        _run(monkeypatch, tmp_path, f"data.source_dir={embedded / 'photos'}", f"pools={pools}", *options)
    assert stopped.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert told in lines[-1]


def test_photos_that_are_too_small_are_left_out(tmp_path):
    for side in (40, 64):
        write_image(tmp_path / f"{side}.png", Photo(np.zeros((side, side, 3), np.uint8)))
    assert list(cut_patches(find_images(tmp_path), 48, 20, seed=0)) == ["64"]


def test_one_photo_is_too_few(tmp_path):
    patches = {"a": torch.rand(20, 3, 32, 32)}
    with pytest.raises(InputError, match="two on each side"):
        measure(patches, {"a": torch.rand(20, 3, 160, 160)}, {"bicubic": Degradation(4)})
