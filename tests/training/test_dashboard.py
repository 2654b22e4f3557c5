"""What W&B shows of a run, read back from the files that an offline run leaves; no server, no network."""

import io
import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision
import wandb
from conftest import csv_rows
from offline_run import OfflineRun, read_picture
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from realsr.data import datasets
from realsr.data.datasets import HRCrops
from realsr.reports.pictures import GAP, LABEL_HEIGHT
from realsr.training import callbacks
from realsr.training.esrgan import ESRGAN
from realsr.training.loggers import log_picture, log_table, run_id, wandb_logger

LOSSES = ("pixel", "perceptual", "adversarial", "discriminator", "generator", "d_real", "d_fake")


def offline_runs(folder: Path) -> list[OfflineRun]:
    """By time."""
    return [OfflineRun(path) for path in sorted(folder.glob("wandb/offline-run-*"))]


@pytest.fixture(scope="module")
def trained():
    """The run of :func:`dashboard`, once it is there."""
    return []


@pytest.fixture
def dashboard(trained, fit, monkeypatch, tmp_path):
    """The folder of a run of four steps that went on to six, validated at every second one, with every loss."""
    if trained:
        return trained[0]
    monkeypatch.setenv("WANDB_MODE", "offline")
    backbone = tmp_path / "squeeze.pth"
    torch.save(torchvision.models.squeezenet1_1().features.state_dict(), backbone)
    options = ["logger=wandb", f"logger.wandb.save_dir={tmp_path}/run", f"logger.csv.save_dir={tmp_path}/run"]
    options += ["perceptual=lpips", "model.perceptual.net=squeeze", f"model.perceptual.backbone={backbone}"]
    options += [
        f"lpips={{_target_:realsr.networks.perceptual.load_lpips,net:squeeze,backbone:{backbone}}}",
        "group=mine",
        "seed=3",
    ]
    options.append("degradation=camera")
    fit("run", *options)
    trained.append(fit("run", *options, "ckpt=last", "trainer.max_steps=6"))
    return trained[0]


def test_every_curve_is_over_generator_steps_and_nothing_is_dropped(dashboard):
    """The CSV logger got the same numbers by itself."""
    first, second = offline_runs(dashboard)
    assert first.run.run_id == second.run.run_id == (dashboard / "wandb_id.txt").read_text()
    for run in (first, second):
        steps = [row["_step"] for row in run.rows]
        assert steps == list(range(len(steps)))  # W&B's own count, which has to grow
    curves, other = {}, {}
    for run in (first, second):
        for row in run.rows:
            for key, value in row.items():
                if not key.startswith(("_", "trainer/")) and isinstance(value, int | float):
                    curves.setdefault(key, {})[row["trainer/global_step"]] = value
    for row in csv_rows(dashboard):
        step = int(row.pop("step"))
        for key, value in row.items():
            if value:
                other.setdefault(key, {})[step] = float(value)
    assert curves == other
    assert all(math.isfinite(value) for curve in curves.values() for value in curve.values())
    speed = ("speed/images_per_second", "speed/waiting")
    for key in (*(f"train/{name}" for name in LOSSES), *speed):
        assert list(curves[key]) == [1, 2, 3, 4, 5, 6], key
    for key in ("val/psnr", "val/psnr_y", "val/ssim", "val/ssim_y", "val/lpips"):
        assert list(curves[key]) == [2, 4, 6], key
    rates = [key for key in curves if key.startswith("lr")]
    assert len(rates) == 2
    assert all(list(curves[key]) == [0, 1, 2, 3, 4, 5] for key in rates)  # of the step after


def test_pictures_and_a_table_by_photo_are_those_of_the_run(dashboard):
    runs = offline_runs(dashboard)
    tables = [table for run in runs for table in run.tables()]
    grids = {step: picture for run in runs for step, picture in run.pictures("val/pictures").items()}
    psnr = {step: value for run in runs for step, value in run.logged("val/psnr").items()}
    assert [step for run in runs for step in run.logged("val/photos")] == list(grids) == [2, 4, 6]
    for (step, picture), table in zip(grids.items(), tables, strict=True):
        np.testing.assert_array_equal(picture, read_picture(dashboard / f"pictures/{step:06d}.png"))
        with_truth = [row for row in table if row["hr"] is not None]
        assert np.mean([row["psnr"] for row in with_truth]) == pytest.approx(psnr[step], rel=1e-6)
        assert {"ssim", "psnr_y", "ssim_y", "lpips"} <= table[0].keys()
        assert len(with_truth) == 1 and len(table) == 4  # photos to look at have no truth
        assert len({row["photo"] for row in table if row["hr"] is None}) == 3
        assert all(row["psnr"] is None for row in table if row["hr"] is None)
        width = max(row["sr"].shape[1] for row in table) + GAP
        height = max(row["sr"].shape[0] for row in table) + GAP + LABEL_HEIGHT
        for r, row in enumerate(table):
            assert row["step"] == step
            for c, name in enumerate(("bicubic", "sr", "hr")):
                if row[name] is not None:
                    y, x = r * height + GAP + LABEL_HEIGHT, c * width + GAP
                    h, w, _ = row[name].shape
                    np.testing.assert_array_equal(row[name], picture[y : y + h, x : x + w])
                    assert row[name].std() > 10
    for name, size in (("bicubic", (64, 64, 3)), ("sr", (64, 64, 3)), ("hr", (64, 64, 3))):
        assert tables[0][0][name].shape == size
    assert all(
        run.folder.parent in Path(e.local_path).parents for run in runs for e in run.artifacts[0].manifest.contents
    )


def test_pools_are_shown_with_the_widths_of_the_kernels(dashboard):
    for run, step in zip(offline_runs(dashboard), (0, 4), strict=True):
        (kernels,) = run.pictures("pools/kernels").values()
        (noise,) = run.pictures("pools/noise").values()
        np.testing.assert_array_equal(noise, read_picture(dashboard.parent / "pools/noise/contact_sheet.png"))
        np.testing.assert_array_equal(kernels, read_picture(dashboard.parent / "pools/kernels/contact_sheet.png"))
        for name in ("wider", "narrower"):
            (histogram,) = run.logged(f"pools/width_{name}").values()
            assert sum(histogram["values"]) == 3
        assert list(run.logged("pools/noise")) == [step]


def test_what_runs_differ_in_is_in_columns_and_checkpoints(dashboard):
    expected = {
        "ablation": None,
        "model": "compact",
        "degradation": "camera",
        "blur": True,
        "noise": True,
        "jpeg": True,
        "draws": "uniform",
        "disc": "patch",
        "gan": "ragan",
        "perceptual": "lpips",
        "seed": 3,
    }
    for run in offline_runs(dashboard):
        assert run.config["factors"] == expected
        assert run.config["model"]["generator"]["num_feat"] == 8
        assert run.run.run_group == "mine"
    assert torch.load(dashboard / "checkpoints/last.ckpt", weights_only=True)["config"]["factors"] == expected


@pytest.mark.parametrize(
    ("row", "blur", "noise", "disc"),
    [
        ("bicubic", False, False, "patch"),
        ("noise", False, True, "patch"),
        ("kernel", True, False, "patch"),
        ("vgg128", True, True, "vgg128"),
        ("patch", True, True, "patch"),
    ],
)
def test_the_rows_of_the_ablation_are_told_apart_by_their_factors(compose, row, blur, noise, disc):
    factors = compose("train", "data.source_dir=x", "+sweep=ablation", f"ablation={row}", "+factors.mine=4").factors
    assert (factors.ablation, factors.blur, factors.noise, factors.disc) == (row, blur, noise, disc)
    assert factors.mine == 4


@pytest.mark.slow
def test_runs_of_a_sweep_are_a_group_each_with_an_id_and_files_of_its_own(tiny, tmp_path):
    """Two runs in one process, which says nothing of W&B."""
    sweep = [
        *tiny,
        "trainer.max_steps=2",
        "logger=wandb",
        "seed=0,1",
        f"hydra.sweep.dir={tmp_path}/noise_study",
        "hydra.sweep.subdir=${seed}",
    ]
    env = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
    done = subprocess.run(
        [sys.executable, "-m", "realsr.train", "-m", *sweep],
        env={**env, "WANDB_MODE": "offline", "HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "wandb:" not in done.stdout + done.stderr
    runs = [run for seed in (0, 1) for run in offline_runs(tmp_path / "noise_study" / str(seed))]
    assert [run.run.run_group for run in runs] == ["noise_study"] * 2
    assert [run.config["factors"]["seed"] for run in runs] == [0, 1]
    assert len({run.run.run_id for run in runs}) == 2
    for run in runs:
        assert len(run.tables()) == 1
        for entry in run.artifacts[0].manifest.contents:
            assert run.folder.parent in Path(entry.local_path).parents


def test_a_run_that_starts_anew_in_a_folder_is_another_for_wandb(tmp_path):
    file = tmp_path / "wandb_id.txt"
    first = run_id(file, new=True)
    assert run_id(file, new=False) == first
    assert run_id(file, new=True) != first
    assert run_id(tmp_path / "other" / "wandb_id.txt", new=False) not in (first, "")


@pytest.mark.parametrize(("mode", "files"), [("disabled", 0), ("offline", 1)])
def test_wandb_mode_decides(monkeypatch, tmp_path, mode, files):
    monkeypatch.setenv("WANDB_MODE", mode)
    logger = wandb_logger("realsr", "run", str(tmp_path))
    row = {"photo": "a", "sr": np.full((8, 8, 3), 99, np.uint8)}
    log_picture([logger], "val/pictures", row["sr"], 3)
    log_table([logger], "val/photos", [row], 3)
    wandb.finish()
    assert len(list(tmp_path.rglob("*.wandb"))) == files
    assert os.environ["WANDB_MODE"] == mode


def test_speed_is_of_training_alone_and_waiting_is_for_data(fit, monkeypatch, caplog):
    """By a clock that passes 2 s while a batch is read, 3 s in a step, and 40 s in a validation."""
    clock = SimpleNamespace(now=0.0)
    for module in (callbacks, datasets):
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: clock.now))

    def slow(owner, name, seconds):
        function = getattr(owner, name)

        def call(*arguments):
            clock.now += seconds
            return function(*arguments)

        monkeypatch.setattr(owner, name, call)

    slow(HRCrops, "__getitem__", 1)  # two in a batch
    slow(ESRGAN, "training_step", 3)
    slow(ESRGAN, "validation_step", 10)
    caplog.set_level("INFO")
    folder = fit("run", "trainer.max_steps=12", "trainer.val_check_interval=3", "trainer.log_every_n_steps=6")
    rows = [row for row in csv_rows(folder) if row["speed/images_per_second"]]
    assert [int(row["step"]) for row in rows] == [6, 12]
    # no clock runs before the first batch is there, nor before the first after a validation
    seconds = 6 * 3 + 4 * 2
    for row in rows:
        assert float(row["speed/images_per_second"]) == pytest.approx(6 * 2 / seconds)
        assert float(row["speed/waiting"]) == pytest.approx(4 * 2 / seconds)
    assert [line for line in caplog.messages if "to go" in line] == ["about 0:00:26 to go, without validations"]


def test_tensorboard_shows_the_same(fit, tmp_path):
    options = [
        "logger=tensorboard",
        f"logger.tensorboard.save_dir={tmp_path}/run",
        f"logger.csv.save_dir={tmp_path}/run",
    ]
    folder = fit("run", *options)
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    tags = events.Tags()
    rows = csv_rows(folder)
    curves = "train/generator", "train/d_real", "val/psnr", "speed/images_per_second", "speed/waiting", "lr/generator"
    for key in curves:
        got = {event.step: event.value for event in events.Scalars(key)}
        assert got == pytest.approx({int(row["step"]): float(row[key]) for row in rows if row[key]}), key
    assert {"val/pictures", "pools/kernels", "pools/noise"} <= set(tags["images"])
    assert set(tags["histograms"]) == {"pools/width_wider", "pools/width_narrower"}
    assert [event.step for event in events.Images("val/pictures")] == [2, 4]
    shown = Image.open(io.BytesIO(events.Images("val/pictures")[1].encoded_image_string)).convert("RGB")
    np.testing.assert_array_equal(np.asarray(shown), read_picture(folder / "pictures/000004.png"))
