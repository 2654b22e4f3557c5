import json
import re
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from realsr.data.samples import CAMERA, CLEAN, SOURCE, TEST, read_scene
from realsr.degradation.camera import CameraDegradation
from realsr.degradation.camera_fit import fit_development
from realsr.degradation.paper import PaperDegradation
from realsr.evaluation.gap import Gap, advice, choose_photos, cut_patches, measure
from realsr.evaluation.separation import Separation
from realsr.gap import main
from realsr.imaging import Photo, read_image, to_uint, write_image
from realsr.imaging.resample import crop_to_multiple
from realsr.pools.jpeg_tables import JpegPool
from realsr.pools.pool import KernelPool, NoisePool
from realsr.runtime.errors import InputError
from realsr.runtime.files import find_images

LEARNT = ["bicubic", "noise", "kernel", "kernel_noise"]


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    """Scenes, and two photos of each at x4 by the embedded sample's camera."""
    folder = tmp_path_factory.mktemp("embedded")
    for index, name in enumerate((*SOURCE, *CLEAN, *TEST)):
        scene = crop_to_multiple(read_scene(name), 4)
        stem = name.split(".")[0]
        write_image(folder / "hr" / f"{stem}.png", Photo(to_uint(scene)))
        for shot in ("photos", "again"):
            (folder / shot).mkdir(exist_ok=True)
            picture = CAMERA.photograph(scene.permute(1, 2, 0).double().numpy(), 4, _draws(shot, index))
            (folder / shot / f"{stem}.jpg").write_bytes(CAMERA.file(picture))
    return folder


def _draws(shot, index):
    return np.random.default_rng([index, len(shot)])


@pytest.fixture(scope="module", autouse=True)
def fits_once():
    """A camera is fitted once to the same pools, which takes seconds each time."""

    def fit(noise, tables, without=()):
        key = noise.tiles.numpy().tobytes(), None if tables is None else tables.tables.numpy().tobytes(), tuple(without)
        if key not in found:
            found[key] = fit_development(noise, tables, without)
        return found[key]

    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("realsr.degradation.camera.fit_development", fit)
        yield


@pytest.fixture(scope="module")
def pools(sample_pools):
    """What the quickstart learns of the embedded camera, from other photos of it."""
    return sample_pools


def test_the_true_camera_leaves_no_gap_and_what_was_learnt_the_least(embedded, pools):
    """The measure's claim, where the truth is known."""
    real = cut_patches(find_images(embedded / "photos"), 32, 150, seed=1)
    hr = cut_patches(find_images(embedded / "hr"), 160, 150, seed=2)
    kernels, noise = KernelPool.load(pools / "kernels", 4), NoisePool.load(pools / "noise")
    tables = JpegPool.load(pools / "jpeg")
    variants = {
        "bicubic": PaperDegradation(4),
        "noise": PaperDegradation(4, noise=noise),
        "kernel": PaperDegradation(4, kernels),
        "kernel_noise": PaperDegradation(4, kernels, noise),
        "kernel_noise_jpeg": PaperDegradation(4, kernels, noise, tables),
        "camera": CameraDegradation(4, kernels, noise, tables),
    }
    gaps = measure(real, hr, variants)
    again = cut_patches(find_images(embedded / "again"), 40, 150, seed=3)
    gaps |= measure(real, again, {"truth": lambda photos, generator: photos})
    auc = {name: gap.separation.auc for name, gap in gaps.items()}
    assert min(variants, key=auc.get) == "camera"
    assert 0.4 < auc["truth"] < 0.6
    assert gaps["truth"].separation.low < 0.5 < gaps["truth"].separation.high
    assert auc["truth"] < auc["camera"] < auc["kernel_noise_jpeg"] - 0.05 < auc["bicubic"], auc
    for key in ("noise", "noise_spectrum", "spectrum", "edges"):
        worst = max(gaps[name].distances[key] for name in variants)
        assert gaps["truth"].distances[key] < 0.35 * worst


def _run(monkeypatch, folder, *options):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["gap", *map(str, options)])
    main()


def test_the_command_writes_table_picture_and_figures(embedded, pools, tmp_path, monkeypatch, capsys):
    _run(
        monkeypatch, tmp_path, f"data.source_dir={embedded / 'photos'}", f"data.hr={embedded / 'hr'}",
        f"pool_dir={pools}", "patches=40", "+degradation@variants.again=kernel_noise",
    )  # fmt: skip
    told = capsys.readouterr().out
    figures = json.loads((tmp_path / "outputs/gap/gap.json").read_text())
    assert list(figures["variants"]) == [*LEARNT, "kernel_noise_jpeg", "camera", "again"]
    assert figures["variants"]["again"] == figures["variants"]["kernel_noise"]
    count = len(find_images(embedded / "photos"))
    first, *_, where, train = told.splitlines()
    assert first == f"comparing {count} photos in {embedded / 'photos'} with LR"
    assert where == "picture: outputs/gap/gap.png, figures: outputs/gap/gap.json; next:"
    train_it = (
        f"experiment=laptop degradation=camera name=camera data.source_dir={embedded / 'photos'} pool_dir={pools}"
    )
    assert train == f"  python -m realsr.train {train_it}"
    assert "nearest is camera" in told and "train with degradation=camera" in told
    assert "part of that comes from the scenes and not from the degradation" in told
    assert re.search(rf"kernel_noise.*{figures['variants']['kernel_noise']['auc']:.3f}", told)
    picture = np.asarray(Image.open(tmp_path / "outputs/gap/gap.png"))
    assert picture.shape[2] == 3 and len(np.unique(picture.reshape(-1, 3), axis=0)) > 6


def test_variants_with_jpeg_are_left_out_where_the_photos_are_none(embedded, pools, tmp_path, monkeypatch, capsys):
    for photo in find_images(embedded / "photos"):
        write_image(tmp_path / "photos" / f"{photo.stem}.png", read_image(photo))
    few = ["data.source_dir=photos", f"data.hr={embedded / 'hr'}", "patches=20", "photos=2"]
    _run(monkeypatch, tmp_path, *few, f"pool_dir={pools}")
    assert "not compared, since the photos are no JPEG files: kernel_noise_jpeg" in capsys.readouterr().out
    assert list(json.loads((tmp_path / "outputs/gap/gap.json").read_text())["variants"]) == [*LEARNT, "camera"]


def _gap(auc):
    return Gap(Separation(auc, auc - 0.05, auc + 0.05), {}, None)


ADVICE = "nearest is jpeg, AUC 0.800: train with degradation=kernel_noise_jpeg"


@pytest.mark.parametrize(
    ("noise", "content", "told"),
    [
        (0.97, 0.6, ADVICE),
        (0.97, 0.7, ADVICE),
        (0.97, 0.78, rf"{ADVICE}; LR can hardly come nearer by another: give data.clean_dir .*"),
        (0.89, 0.6, f"{ADVICE}; not clearly different from it, since the intervals overlap: kernel_noise"),
    ],
)
def test_the_advice_names_the_nearest_and_those_as_near_and_blames_scenes_if_they_alone_are_left(noise, content, told):
    gaps = {"kernel_noise": _gap(noise), "jpeg": _gap(0.8)}
    assert re.fullmatch(told, advice(gaps, _gap(content).separation, "jpeg", "kernel_noise_jpeg"))


def test_the_command_sends_curves_to_wandb(embedded, pools, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    _run(
        monkeypatch, tmp_path, f"data.source_dir={embedded / 'photos'}", f"data.hr={embedded / 'hr'}",
        f"pool_dir={pools}", "patches=20", "photos=2", "~degradation@variants.camera", "logger=wandb",
    )  # fmt: skip
    assert list((tmp_path / "outputs/gap").rglob("run-*.wandb"))
    assert list((tmp_path / "outputs/gap").rglob("*curves*.png"))


VARIANTS = ("bicubic", "noise", "kernel", "kernel_noise", "kernel_noise_jpeg", "camera")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["data.source_dir=missing"], "no such folder"),
        (["patches=3"], "patches=3"),
        (["patch=8"], "patch=8"),
        (["pool.min_confidence=2"], "pool.min_confidence=2: give 0 to 1"),
        (["data.hr={hr}", *(f"~variants.{name}" for name in VARIANTS)], "variants: none is left to compare"),
        (["scale=0"], "scale=0: give 1 or more"),
        (["+variants.foo=3", "data.hr={hr}"], "variants.foo=3: give +degradation@variants.foo=DEGRADATION"),
        (["data.clean_dir=missing", "pool_dir=nothing"], "missing: no such folder"),  # before pools are looked at
        (["pool_dir=nothing", "data.hr={hr}"], "pool does not exist"),
        (["patch=400", "pool_dir=nothing"], "needs two on each side"),
    ],
)
def test_bad_input_is_one_line(embedded, pools, tmp_path, monkeypatch, capsys, options, told):
    given = [option.format(hr=embedded / "hr") for option in options]
    with pytest.raises(SystemExit) as stopped:
        _run(monkeypatch, tmp_path, f"data.source_dir={embedded / 'photos'}", f"pool_dir={pools}", *given)
    assert stopped.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert told in lines[-1]
    assert not (tmp_path / "nothing").exists()


def test_photos_that_are_too_small_are_left_out(tmp_path):
    for side in (40, 64):
        write_image(tmp_path / f"{side}.png", Photo(np.zeros((side, side, 3), np.uint8)))
    assert [path.stem for path in choose_photos(str(tmp_path), 9, 48)] == ["64"]
    assert not choose_photos(str(tmp_path), 9, 48, factor=0.5)


def test_one_photo_is_too_few(tmp_path):
    patches = {"a": torch.rand(20, 3, 32, 32)}
    with pytest.raises(InputError, match="two on each side"):
        measure(patches, {"a": torch.rand(20, 3, 160, 160)}, {"bicubic": PaperDegradation(4)})
