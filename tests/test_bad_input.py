"""The promise to users: one line that says what, where and how to mend it; exit code 2; nothing computed is lost."""

import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import call, nearest
from forked import Command, run_forked
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from realsr.collect import _run as run_collect
from realsr.data.folders import find_pairs
from realsr.estimate import _run as run_estimate
from realsr.evaluate import _run as run_evaluate
from realsr.imaging import read_image
from realsr.pools.folder import Entry
from realsr.runtime.command_line import quote_paths
from realsr.runtime.config import explain
from realsr.runtime.errors import InputError, at_least
from realsr.runtime.files import check_writable
from realsr.runtime.hardware import pick_device
from realsr.training.loggers import wandb_logger
from realsr.training.run import train
from realsr.upscale import _run as run_upscale
from realsr.upscaling.backends.pytorch import TorchNetwork
from realsr.upscaling.files import upscale_file, upscale_files

COLLECT = ["collector=df2k", "collector.tile_size=16", "collector.stride=16", "collector.keep_best=20"]
ESTIMATE = ["estimator.iterations=10", "accelerator=cpu"]


def line_of(run, *arguments, command="train") -> str:
    """The one line that a mistake would end a command with."""
    with pytest.raises(Exception) as error:
        run(*arguments)
    line = explain(error.value, command)
    assert line is not None, error.getrepr()
    assert "\n" not in line
    return line


@pytest.fixture
def mistake(compose, tiny, tmp_path, monkeypatch):
    """``mistake("train", *overrides)``: the line that the command would print, run in this process."""
    monkeypatch.chdir(tmp_path)
    runs = {
        "train": lambda cfg: train(cfg, tmp_path / "run"),
        "estimate": run_estimate,
        "collect": run_collect,
        "upscale": run_upscale,
        "evaluate": run_evaluate,
    }

    def make(name: str, *overrides: str) -> str:
        given = [*tiny, "accelerator=cpu"] if name == "train" else []
        return line_of(lambda: runs[name](compose(name, *given, *quote_paths(overrides))), command=name)

    return make


@pytest.fixture
def model(checkpoint):
    """A checkpoint that upscales to the nearest neighbour."""
    return checkpoint


def failed(*arguments, cwd, run=run_forked) -> str:
    """Run to the end, which has to be one line and exit code 2."""
    done = run(*arguments, cwd=cwd, check=False)
    assert done.returncode == 2, done.stdout + done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    return done.stderr


# -- folders and images ----------------------------------------------------------------------------------------------


def damage(folder: Path) -> None:
    """A truncated file, a text, an empty file, and a PNG that is called JPEG, beside what is there."""
    whole = (folder / "photo0.png").read_bytes()
    (folder / "truncated.png").write_bytes(whole[: len(whole) // 2])
    (folder / "text.jpg").write_text("no image")
    (folder / "empty.png").write_bytes(b"")
    Image.open(folder / "photo0.png").rotate(180).save(folder / "mislabelled.jpg", "PNG")


@pytest.mark.parametrize("name", ["estimate", "collect", "train"])
def test_folders_that_are_missing_empty_or_without_images_are_named(mistake, tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("x")
    for folder, says in (("missing", "no such folder"), ("empty", "holds no image"), ("texts", "holds no image")):
        line = mistake(name, f"data.source_dir={folder}")
        assert says in line and folder in line
    assert "no such folder" in mistake(name, "data.source_dir=texts/a.txt")


def test_damaged_photos_are_skipped_with_a_count_where_others_are_left(
    compose, tiny, photo_folder, tmp_path, caplog, capsys
):
    caplog.set_level("INFO")
    photos = photo_folder("photos", 2, noise=0.02)
    damage(photos)
    options = [*tiny, f"data.source_dir={photos}", f"pool_dir={tmp_path}/p2", "accelerator=cpu"]
    outputs = [f"callbacks.{c}.dirpath={tmp_path}/run/checkpoints" for c in ("last", "best")]
    train(compose("train", *options, *outputs, f"callbacks.pictures.folder={tmp_path}/pictures"), tmp_path / "run")
    assert "3 kernels, 3 photos skipped" in caplog.text
    assert "of 3 photos, 3 photos skipped" in caplog.text
    assert "skipped 3 of 9 photos that cannot be read" in caplog.text  # 6 of the camera and 3 clean ones
    for name in ("truncated.png", "text.jpg", "empty.png"):
        assert name in caplog.text
    assert "training on 3 cleaned-up source and 2 clean images" in caplog.text
    assert len(list((tmp_path / "p2" / "hr").glob("*.strips"))) == 6


def test_a_damaged_photo_is_an_error_where_it_is_the_only_one(mistake, photo_folder, model, tmp_path):
    photos = photo_folder("photos", 1)
    damage(photos)
    for path in photos.iterdir():
        if path.name != "truncated.png":
            path.unlink()
    assert "truncated.png" in mistake("estimate", f"data.source_dir={photos}", *ESTIMATE)
    assert "truncated.png" in mistake("train", f"data.source_dir={photos}", "pool_dir=other")
    assert "truncated.png" in mistake("collect", f"data.source_dir={photos}", *COLLECT)
    line = mistake("upscale", f"ckpt={model}", f"input={photos}", "output=out", "accelerator=cpu")
    assert "truncated.png: cannot be decoded" in line
    line = mistake("evaluate", f"ckpt={model}", f"hr={photos}", "metrics.lpips=null", "accelerator=cpu")
    assert "truncated.png: cannot be decoded" in line


def test_upscale_does_the_others_before_it_complains(model, mistake, photo_folder, tmp_path):
    photos = photo_folder("photos", 2, 20, 24)
    (photos / "a_text.png").write_text("no image")
    line = mistake("upscale", f"ckpt={model}", f"input={photos}", "output=out", "accelerator=cpu")
    assert line.startswith("1 of 3 files failed") and "a_text.png" in line
    assert len(list((tmp_path / "out").glob("*.png"))) == 2


@pytest.mark.parametrize(
    ("height", "width", "says"), [(1, 1, "1x1"), (20, 20, "20x20 pixels are too few, a photo needs 66 on both sides")]
)
def test_photos_smaller_than_a_crop(mistake, photo_folder, height, width, says):
    photos = photo_folder("small", 2, height, width)
    line = mistake("estimate", f"data.source_dir={photos}", *ESTIMATE)
    assert says in line and "photo0.png" in line
    assert "collector.tile_size" in mistake("collect", f"data.source_dir={photos}")
    line = mistake("train", f"data.source_dir={photos}", "pool_dir=other", "degradation=kernel")
    assert "no kernel from 2 photos" in line


def test_crops_larger_than_all_photos(mistake):
    assert "lower data.crop_size" in mistake("train", "degradation=bicubic", "data.crop_size=512")


def test_black_photos(mistake, tmp_path):
    (tmp_path / "black").mkdir()
    for index in range(2):
        Image.new("RGB", (160, 120)).save(tmp_path / "black" / f"{index}.png")
    assert "the photo is flat" in mistake("estimate", "data.source_dir=black", *ESTIMATE)
    assert "54 clipped; add photos of this camera" in mistake("collect", "data.source_dir=black")


@pytest.mark.parametrize("clean", [True, False])
def test_a_single_photo_is_enough(compose, tiny, photo_folder, tmp_path, clean, caplog):
    photos = photo_folder("one", 1, 128, 160, 0.02)
    source = ["degradation=bicubic", "data.source_dir=null", f"data.clean_dir={photos}"]
    options = source if clean else [f"data.source_dir={photos}", "data.clean_dir=null"]
    outputs = [f"callbacks.{c}.dirpath={tmp_path}/run/checkpoints" for c in ("last", "best")]
    outputs += [f"callbacks.pictures.folder={tmp_path}/pictures", f"pool_dir={tmp_path}/p1"]
    metrics = train(compose("train", *tiny, *outputs, *options), tmp_path / "run")
    assert metrics["val/psnr"] > 5
    assert "validation sees a photo of training" in caplog.text


# -- pools -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kernel", "says"),
    [
        (np.full((33, 33), np.nan), "NaN"),
        (np.zeros((33, 33)), "sums to 0"),
        (np.ones((3, 5)), "square"),
        (np.array(["text"]), "x4 is no array of real numbers"),
        (np.ones((3, 3), complex), "x4 is no array of real numbers"),
        (None, "is empty"),
    ],
)
def test_kernel_pools_that_are_of_no_use(mistake, tmp_path, kernel, says):
    folder = tmp_path / "own" / "kernels"
    folder.mkdir(parents=True)
    if kernel is not None:
        Entry(folder / "a.npz", {"x4": kernel}, {}).write()
    line = mistake("train", "degradation=kernel", "pool_dir=own", "data.pools.build=false")
    assert says in line and "own/kernels" in line


@pytest.mark.parametrize(
    ("tiles", "says"),
    [
        (np.zeros((0, 16, 16, 3), np.uint8), "has no tile"),
        (np.full((2, 16, 16, 3), np.nan), "no noise pool file"),
        (np.zeros((2, 16, 8, 3), np.uint8), "no noise pool file"),
        (None, "is empty"),
    ],
)
def test_noise_pools_that_are_of_no_use(mistake, tmp_path, tiles, says):
    folder = tmp_path / "own" / "noise"
    folder.mkdir(parents=True)
    if tiles is not None:
        Entry(folder / "a.npz", {"tiles": tiles}, {}).write()
    line = mistake("train", "degradation=noise", "pool_dir=own", "data.pools.build=false")
    assert says in line and "own/noise" in line


@pytest.mark.parametrize("option", ["data.pools.kernel_dir", "data.pools.noise_dir", "data.validation.kernel_dir"])
def test_a_folder_given_for_a_pool_has_to_hold_one(mistake, tmp_path, option):
    (tmp_path / "empty").mkdir()
    assert f"{option}=mistyped: no such folder; give one" in mistake("train", f"{option}=mistyped")
    assert f"{option}=empty: holds no pool" in mistake("train", f"{option}=empty")
    assert f"{option}=pools/kernls: no such" in mistake("train", "pool_dir=pools", f"{option}=pools/kernls")
    assert f"{option} is empty; give a folder" in mistake("train", f"{option}=")
    assert not (tmp_path / "mistyped").exists() and not (tmp_path / "pools").exists()


def test_a_pool_that_is_there_is_filled_where_it_is(compose, tiny, tmp_path):
    arrays = {"x4": np.ones((33, 33))}
    for name in ("elsewhere", "pools/kernels"):
        Entry(tmp_path / name / "other-12345678.npz", arrays, {"photo": "other"}).write()
    given = [f"data.validation.kernel_dir={tmp_path / 'elsewhere'}", "estimator.iterations=5"]
    instantiate(compose("train", *tiny, *given, f"pool_dir={tmp_path}/x/../pools").data).prepare_data()
    for name in ("elsewhere", "pools/kernels"):
        assert len(list((tmp_path / name).glob("*.npz"))) == 4


@pytest.mark.parametrize("kind", ["kernels", "noise"])
def test_a_pool_that_cannot_be_written_to_can_be_trained_with(mistake, tmp_path, monkeypatch, kind):
    def refuse(folder, **options):
        raise PermissionError(13, "Permission denied")

    real = Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", lambda p, b: refuse(p) if p.parent.name == kind else real(p, b))
    options = ["estimator.iterations=5", f"pool_dir={tmp_path}/pools"]
    line = mistake("train", *options, "degradation=kernel" if kind == "kernels" else "degradation=noise")
    assert f"pools/{kind}: cannot be written to (Permission denied)" in line and "data.pools.build=false" in line


@pytest.mark.parametrize("name", ["estimate", "collect", "train"])
def test_a_folder_without_a_name_is_not_this_one(mistake, tmp_path, photo_folder, name):
    photo_folder("photos", 1)
    line = mistake(name, "data.source_dir=")
    assert "data.source_dir is empty" in line if name == "train" else "give data.source_dir=DIR" in line
    if name != "train":
        assert "name of their folder is empty" in mistake(name, "data.source_dir=", f"pool_dir={tmp_path}/pools")


def test_damaged_files_of_a_pool_are_named_with_the_way_out(mistake, compose, tmp_path, photo_folder):
    photos = photo_folder("photos", 1, 96, 96, 0.02)
    run_collect(compose("collect", f"data.source_dir={photos}", f"pool_dir={tmp_path}/own", *COLLECT))
    file = next((tmp_path / "own" / "noise").glob("*.npz"))
    file.write_bytes(file.read_bytes()[:100])
    line = mistake("collect", f"data.source_dir={photos}", f"pool_dir={tmp_path}/own", *COLLECT)
    assert str(file) in line and "delete it" in line


# -- checkpoints -----------------------------------------------------------------------------------------------------


def test_files_that_are_no_checkpoint(mistake, photo_folder, tmp_path):
    photos = photo_folder("photos", 1, 20, 24)
    (tmp_path / "folder.ckpt").mkdir()
    (tmp_path / "text.ckpt").write_text("hello, I am not a checkpoint\n")
    (tmp_path / "empty.ckpt").write_bytes(b"")
    torch.save({"generator.filters.0": torch.zeros(3)}, tmp_path / "kernelgan.ckpt")
    torch.save([1, 2], tmp_path / "list.ckpt")
    says = {
        "missing": "no such",
        "folder": "no such",
        "text": "no checkpoint",
        "empty": "no checkpoint",
        "kernelgan": "holds no generator",
        "list": "it holds a list",
    }
    for name, text in says.items():
        line = mistake("upscale", f"ckpt={name}.ckpt", f"input={photos}", "output=out", "accelerator=cpu")
        assert f"{name}.ckpt" in line and text in line
    for name in ("missing", "folder", "text", "kernelgan"):
        assert f"{name}.ckpt" in mistake("train", f"ckpt={name}.ckpt")
        assert f"{name}.ckpt" in mistake("train", f"model.init_from={name}.ckpt")
    assert "nothing to go on from" in mistake("train", "ckpt=last")


def test_init_from_another_architecture(mistake, model):
    assert "another architecture" in mistake("train", f"model.init_from={model}", "model.generator.num_feat=12")


def test_a_run_is_resumed_with_its_own_model_only(mistake, compose, tiny, tmp_path):
    outputs = [f"callbacks.{c}.dirpath={tmp_path}/run/checkpoints" for c in ("last", "best")]
    outputs += [f"callbacks.pictures.folder={tmp_path}/pictures", "degradation=bicubic", "accelerator=cpu"]
    cfg = compose("train", *tiny, *outputs, "trainer.max_steps=3", "callbacks.last.every_n_train_steps=0")
    metrics = train(cfg, tmp_path / "run")
    assert torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 3
    same = ["degradation=bicubic", "ckpt=last"]
    assert "model.generator.num_conv=1, not 2" in mistake("train", *same, "model.generator.num_conv=2")
    assert "model.discriminator.features=4, not 8" in mistake("train", *same, "model.discriminator.features=8")
    line = mistake("train", *same, "model.optimizer={_target_:torch.optim.SGD,lr:0.1}", "~model.optimizer.betas")
    assert "torch.optim.Adam, not torch.optim.SGD" in line
    assert "holds a run already" in mistake("train", "degradation=bicubic")
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    content = torch.load(last, weights_only=True)
    shutil.copy(last, tmp_path / "other.ckpt")  # of another run, in whose place this one's would be written
    line = mistake("train", "degradation=bicubic", f"ckpt={tmp_path}/other.ckpt", "trainer.max_steps=5")
    assert "holds a run already, which would be lost" in line
    for config in (None, {}, {"model": {}}):
        torch.save({**content, "config": config}, last.with_name("foreign.ckpt"))
        line = mistake("train", "degradation=bicubic", f"ckpt={last.with_name('foreign.ckpt')}")
        assert "foreign.ckpt" in line and "holds weights but no training to go on with" in line
    half = last.stat().st_size // 2
    for size, says in (
        (0, "it is empty: copy or download it again"),
        (half, f"cut off after {half} bytes: copy or download it again"),
    ):
        last.with_name("cut.ckpt").write_bytes(last.read_bytes()[:size])
        line = mistake("train", "degradation=bicubic", f"ckpt={last.with_name('cut.ckpt')}")
        assert f"cut.ckpt: is no checkpoint that can be read ({says})" in line
    cfg = compose("train", *tiny, *outputs, "trainer.max_steps=3", "ckpt=last")
    assert train(cfg, tmp_path / "run") == pytest.approx(metrics)  # a finished run keeps its metrics


# -- options ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "override", "says"),
    [
        ("train", "modle=esrgan", "did you mean model?"),
        (
            "train",
            "model=esrgn",
            "Could not find 'model/esrgn' Available options in 'model': compact edsr",
        ),
        ("train", "+debug=fsat", "Could not find 'debug/fsat' Available options in 'debug': fast"),
        ("train", "+model.optimizer.lrr=1", "Adam has no such option, did you mean lr?"),
        ("train", "+trainer.max_step=3", "trainer.max_step: Trainer has no such option, did you mean max_steps?"),
        ("train", "+scael=3", "scael: no such option of realsr.train, did you mean scale?"),
        ("train", "data.cleanup=1", "data.cleanup: no such option, did you mean data.photos.cleanup?"),
        ("train", "data.noise_dir=x", "did you mean data.pools.noise_dir or data.validation.noise_dir?"),
        ("train", "+callbacks.last.every_n_step=1", "LastCheckpoint has no such option, did you mean every_n"),
        ("train", "gan=null", "gan=null: choose hinge, lsgan, ragan, vanilla"),
        ("train", "start=null", "start=null: choose compact, none, realesr_general, "),
        ("train", "augment=null", "augment=null: choose flips, none"),
        ("train", "augment=3", "augment=3: choose flips, none"),
        ("train", "model.generator._target_=3", "model.generator._target_=3: no such class or function"),
        ("train", "foo", "is no option; write key=value"),
        ("train", "data.crop_size=[3", "is no option; write key=value"),
        ("evaluate", "report.side=a(b", "write key=value, and \"key='value'\" with"),
        ("train", "~data.foo", "data.foo"),
        ("train", "~data.photos", "data.photos is missing; leave ~data.photos out"),
        ("train", "data.degradation._target_=torch.nn.Identity", "._target_=Identity: is no Degradation; choose degr"),
        ("train", "+callbacks.lsat.every_n_train_steps=5", "callbacks.lsat: has no _target_, did you mean last?"),
        ("train", "+callbacks.lsat=5", "callbacks.lsat: has no _target_, did you mean last?"),
        ("train", "model.optimizer.lrr=1", "model.optimizer.lrr: no such option, did you mean model.optimizer.lr?"),
        ("train", "model.optimizer.amsgrad=true", "no such option in conf/; +model.optimizer.amsgrad=VALUE gives"),
        ("evaluate", "metrics.niqe={a:1}", "metrics.niqe.a: no such option"),
        ("train", "=3", "group override must be a string"),
        ("train", "disc=none", "model.discriminator.features: no such option beside the other options"),  # of tiny
        ("train", "name=../x", "name=../x: leads out of outputs"),
        (
            "train",
            "data.val_noise_dir=x",
            "data.val_noise_dir: no such option, did you mean data.validation.noise_dir?",
        ),
        ("train", "data.estimate_workers=2", "did you mean data.pools.builder.workers?"),
        ("train", "model.optimizer._target_=torch.optim.Adamm", "torch.optim.Adamm: no such class"),
        ("evaluate", "testset=photos", "Could not find 'testset/photos' Available options in 'testset': df2k_val"),
        ("upscale", "inptu=photos", "did you mean input?"),
        (
            "estimate",
            "estimator.channels=8",
            "estimator.channels: no such option but with estimator=kernelgan",
        ),
        ("estimate", "estimator.iteration=3", "did you mean estimator.iterations?"),
        ("collect", "collector.tile_siz=3", "did you mean collector.tile_size?"),
        ("collect", "collector.max_variance=40", "collector.max_variance: no such option but with collector=df2k"),
        ("upscale", "output=out", "ckpt is not set"),
        ("estimate", "accelerator=cpu", "data.source_dir is not set"),
        ("train", "data.source_dir=null", "no photos"),
    ],
)
def test_unknown_and_missing_options(mistake, name, override, says):
    extra = ["data.clean_dir=null"] if override == "data.source_dir=null" else []
    assert says in mistake(name, override, *extra)


def test_a_group_that_a_command_has_in_places_is_told_with_a_place(compose):
    line = line_of(compose, "gap", "data.source_dir=x", "degradation=bsrgan", command="gap")
    assert line == "degradation: no such option, did you mean degradation@variants.bicubic?"


def test_a_class_that_is_not_ours_says_itself_what_it_lacks(compose):
    cfg = compose("train", "data.source_dir=x", "+callbacks.mine={_target_:torch.nn.Linear,in_features:3}")
    assert "callbacks.mine: Linear.__init__() missing 1 required" in line_of(instantiate, cfg.callbacks)


@pytest.mark.parametrize(
    ("name", "override", "says"),
    [
        ("train", "data.crop_size=big", "data.crop_size=big: must be int"),
        ("train", "data.crop_size=32.5", "must be int"),
        ("train", "data.photos=null", "data.photos=null: has options of its own, give data.photos.OPTION=VALUE"),
        ("train", "scale=four", "scale=four: must be int"),
        ("train", "seed=abc", "seed=abc: must be int"),
        ("train", "seed=-1", "seed=-1: give 0 to"),
        ("train", "seed=99999999999999999999", "give 0 to"),
        ("train", "name=null", "name=null: must be str"),
        ("train", "model.optimizer.lr=fast", "model.optimizer.lr=fast: must be float"),
        ("train", "model.optimizer.lr=-1", "learning rate: -1"),
        ("train", "model.milestones=abc", "model.milestones=abc: must be"),
        ("train", "model.milestones=[a,b]", "must be"),
        ("train", "model.discriminator.features={a:1}", "must be int"),
        ("train", "model.generator.num_feat={a:1}", "model.generator: "),
        ("train", "model.generator.num_feat=many", "model.generator: "),
        ("train", "model.generator.num_feat=0", "SRVGGNetCompact computes nothing with the options that it has ("),
        ("train", "trainer.precision=17", "trainer.precision=17: choose 64, 32, 16"),
        ("train", "optimized_metric=val/psnrr", "choose one of val/psnr"),
        ("train", "optimized_metric=val/lpips", "choose one of val/psnr"),
        ("train", "trainer.precision=fp8", "trainer.precision=fp8: choose 64, 32, 16, transformer-engine"),
        ("train", "model.lr_scale=[1,2]", "model.lr_scale=[1, 2]: must be"),
        ("train", "model.optimizer.betas=[0.9]", "model.optimizer.betas=[0.9]: must be tuple"),
        ("upscale", "tile=big", "tile=big: must be int"),
        ("upscale", "tile=2.5", "tile=2.5: must be int"),
        ("upscale", "input=null", "input=null: must be str"),
        ("evaluate", "methods=bicubic", "methods=bicubic: must be a list; write methods=[bicubic]"),
        ("evaluate", "methods=null", "methods=null: must be a list; write methods=[]"),
        ("evaluate", "metrics=null", "metrics=null: has options of its own, give metrics.OPTION=VALUE"),
        ("evaluate", "report=3", "report=3: has options of its own"),
        ("evaluate", "testset.paper=null", "testset.paper=null: has options of its own"),
        ("train", "~estimator", "estimator: has no _target_; leave ~estimator out"),
        ("train", "model.optimizer=null", "model.optimizer: must have a _target_ and _partial_: true"),
        ("train", "data.degradation._partial_=false", "data.degradation: must have a _target_ and _partial_: true"),
        ("estimate", "workers=abc", "workers=abc: must be int"),
        ("estimate", "workers=1.5", "workers=1.5: must be int"),
        ("estimate", "shard=x", "shard=x: must be int"),
    ],
)
def test_values_of_a_wrong_type(mistake, name, override, says):
    given = {
        "upscale": ["ckpt=a", "input=b", "output=c"],
        "evaluate": [],
        "estimate": ["data.source_dir=a"],
    }.get(name, [])
    assert says in mistake(name, *given, override)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("data.crop_size=0", "data.crop_size=0: give 1 or more"),
        ("data.crop_size=-32", "give 1 or more"),
        ("data.crop_size=30", "no multiple of the scale 4"),
        ("data.crop_size=4", "data.crop_size=4 pixels"),
        ("data.crop_size=100000", "lower data.crop_size"),
        ("data.validation.noise_dir=null", "degradation=camera needs a noise pool; give data.pools"),
        ("degradation=bsrgan data.pools.noise_dir=x", "degradation=bsrgan draws from no pools"),
        ("degradation=bsrgan ~data.degradation.shot", "data.degradation: missing a required argument: 'shot'; leave ~"),
        ("data.degradation.without=[lens]", "data.degradation.without=['lens']: give some of [kernel,linear,mosaic,"),
        ("data.batch_size=0", "data.batch_size=0: give 1 or more"),
        ("data.seed=-1", "data.seed=-1: give 0 or more"),
        ("data.pools.scale=2", "data.pools.scale=2: must be that of the network, 4"),
        ("data.num_workers=-1", "data.num_workers=-1: give 0 or more"),
        ("data.pools.builder.workers=-1", "data.pools.builder.workers=-1: give 0 or more"),
        ("data.validation.count=0", "give 1 or more"),
        ("data.validation.size=2", "give 4 or more"),
        ("data.validation.look_size=0", "give 4 or more"),
        ("data.validation.look_count=-1", "give 0 or more"),
        ("data.photos.source_share=2", "give 0 to 1"),
        ("data.photos.cleanup=0", "give 0 to 1"),
        ("data.photos.cleanup=-0.5", "give 0 to 1"),
        ("scale=0", "scale=0"),
        ("model.generator.upscale=2", "the generator enlarges by 2"),
        ("scale=8", "scale=8: PatchMatching gives kernels for x2, x3, x4 only"),
        ("trainer.max_steps=0", "trainer.max_steps=0: give 1 or more"),
        ("trainer.max_steps=-1", "give 1 or more"),
        ("trainer.max_epochs=0", "give 1 or more"),
        ("trainer.val_check_interval=0", "give 1 or more"),
        ("trainer.log_every_n_steps=0", "give 1 or more"),
        ("trainer.devices=0", "devices=0"),
        ("trainer.devices=-1", "trainer: `devices`"),
        ("trainer.devices=[0,1]", "trainer: `devices`"),
        ("trainer.devices=2", "trainer=ddp"),
        ("+trainer.strategy=ddp", "trainer=ddp"),
        ("+trainer.strategy=ddp_spawn", "trainer=ddp"),
        ("trainer.accelerator=tpu", "trainer: Requirement 'torch_xla"),
        ("trainer.precision=64-true", "trainer.precision=64-true: choose 32-true, bf16-mixed, 16-mixed"),
        ("trainer.precision=bf16-true", "choose 32-true, bf16-mixed, 16-mixed"),
        ("trainer.precision=transformer-engine", "trainer: Requirement 'transformer_engine"),
        ("+trainer.overfit_batches=1", "trainer.overfit_batches=1: does not go with this training; every step draws"),
        ("+trainer.gradient_clip_val=1", "give model.clip_norm"),
        ("+trainer.accumulate_grad_batches=2", "give a larger data.batch_size"),
        ("callbacks.last.every_n_train_steps=-1", "callbacks.last.every_n_train_steps=-1: give 0 or more"),
        ("callbacks.pictures.size=0", "callbacks.pictures.size=0: give 4 or more"),
        ("callbacks.pictures.count=-1", "callbacks.pictures.count=-1: give 0 or more"),
        ("data.validation.seed=-1", "data.validation.seed=-1: give 0 or more"),
        ("data.validation.seed=99999999999999999999", "give 0 to 9223372036854775807"),
        (f"data.validation.seed=1{'0' * 400}", "give 0 to 9223372036854775807"),
        ("model.clip_norm=nan", "model.clip_norm=nan: give more than 0"),
        ("model.milestones=[5,-1]", "model.milestones=-1: give 0 or more"),
        ("model.pixel_weight=-1", "model.pixel_weight=-1: give 0 or more"),
        ("model.adversarial_weight=nan", "model.adversarial_weight=nan: give 0 or more"),
        ("model.pattern_weight=inf", "model.pattern_weight=inf: give a number that is not infinite"),
        ("estimator.iterations=0", "estimator.iterations=0: give 1 or more"),
        ("collector.tile_size=8", "collector.tile_size=8: give 16 or more"),
        ("collector.stride=0", "collector.stride=0: give 1 or more"),
        ("model.discriminator.layers=9", "PatchDiscriminator cannot take crops"),
        ("data.validation.lr=x", "no such folder"),
    ],
)
def test_numbers_out_of_range_are_refused_before_anything_is_made(mistake, tmp_path, override, says):
    assert says in mistake("train", *override.split())
    assert not list((tmp_path / "pools").rglob("*.npz"))


def test_bounds_of_a_degradation_are_told_before_photos_are_decoded(mistake, tmp_path):
    line = mistake("train", "degradation=bsrgan", "data.degradation.noise_level=[30,3]")
    assert "data.degradation.noise_level=[30,3]: give 0 to 255, the smaller first" in line
    assert not (tmp_path / "pools").exists()


def test_validation_images_are_large_enough_to_be_measured(mistake, photo_folder):
    small = photo_folder("small", 2, 18, 40)
    line = mistake("train", "degradation=bicubic", f"data.validation.hr={small}", "trainer.val_check_interval=1000")
    assert "photo0 has 40x16 pixels, and 19 on a side are needed" in line and "data.validation.hr" in line
    assert "18x18 pixels" in mistake("train", "degradation=bicubic", "data.validation.size=18")


@pytest.mark.parametrize(("text", "mode"), [("", "offline"), ("a/b", "offline"), ("\xff", "offline"), ("a", "of")])
def test_wandb_is_told_no_nonsense(mistake, tmp_path, monkeypatch, text, mode):
    monkeypatch.setenv("WANDB_MODE", mode)
    (tmp_path / "wandb_id.txt").write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=r"wandb_id.txt: holds no name of a run|WANDB_MODE=of: choose online, offline"):
        wandb_logger("realsr", "run", str(tmp_path), ckpt="last")
    monkeypatch.setenv("WANDB_MODE", "offline")
    line = mistake("train", "degradation=bicubic", "logger=wandb", "logger.wandb.project=a/b")
    assert "Invalid project name 'a/b'" in line


@pytest.mark.parametrize(
    ("name", "override", "says"),
    [
        ("estimate", "estimator.iterations=-5", "give 1 or more"),
        ("estimate", "pool.min_confidence=80", "pool.min_confidence=80: give 0 to 1"),
        ("train", "pool.min_confidence=-1", "pool.min_confidence=-1: give 0 to 1"),
        ("estimate", "estimator=kernelgan estimator.channels=0", "give 1 or more"),
        ("estimate", "estimator.crop=20", "estimator.crop=20: give 41 or more"),
        ("estimate", "estimator=kernelgan estimator.crop=20", "estimator.crop=20: give 27 or more"),
        ("estimate", "estimator=kernelgan estimator.scale=0", "give 2 or more"),
        ("estimate", "estimator.learning_rate=-1", "give 0 or more"),
        ("estimate", "scale=5", "scale=5: PatchMatching gives"),
        ("estimate", "estimator=kernelgan scale=3", "for x2, x4 only; with estimator.scale=3 for x3"),
        ("estimate", "accelerator=gpuu", "choose auto, cpu or gpu"),
        ("estimate", "workers=-1", "workers=-1: give 0 or more"),
        ("estimate", "shards=0", "shards=0: give 1 or more"),
        ("estimate", "shard=2", "shard=2 shards=1: shards count from 0 to 0; give shards=N as well"),
        ("estimate", "shard=-1", "shards count from 0"),
        ("collect", "collector.stride=-3", "give 1 or more"),
        ("collect", "collector.tile_size=8", "collector.tile_size=8: give 16 or more"),
        ("collect", "collector.tolerance=0.5", "collector.tolerance=0.5: give 1 or more"),
        ("collect", "collector.per_photo=0", "collector.per_photo=0: give 1 or more"),
        ("collect", "collector=df2k collector.tile_size=8", "collector.tile_size=8: give 16 or more"),
        ("collect", "collector=df2k collector.keep_best=-3", "give 0 or more"),
        ("collect", "collector=dped collector.max_variance=-1", "give 0 or more"),
    ],
)
def test_numbers_out_of_range_in_the_pools_commands(mistake, photo_folder, tmp_path, name, override, says):
    photos = photo_folder("photos", 1, 96, 96)
    assert says in mistake(name, f"data.source_dir={photos}", *override.split())
    assert not list((tmp_path / "pools").rglob("*.npz"))


@pytest.mark.parametrize("group", ["logger=tensorboard", "logger=wandb", "callbacks.last.dirpath=x", "lpips=null"])
def test_options_that_are_right_pass(compose, group):
    compose("train", "data.source_dir=x", group)


@pytest.mark.parametrize(("override", "least"), [("tile=-1", 0), ("overlap=-2", -1)])
def test_tiles_are_not_negative(mistake, model, photo_folder, override, least):
    photos = photo_folder("photos", 1, 20, 24)
    common = [f"ckpt={model}", "accelerator=cpu", override]
    assert f"{override}: give {least} or more" in mistake("upscale", *common, f"input={photos}", "output=out")
    assert f"{override}: give {least} or more" in mistake("evaluate", *common, f"hr={photos}", "metrics.lpips=null")


def test_a_cluster_that_is_not_there(photo_folder, tmp_path):
    if shutil.which("srun"):
        pytest.skip("it is there")
    options = [f"data.source_dir={photo_folder('photos', 1)}", "hydra/launcher=submitit_slurm"]
    err = failed("realsr.estimate", "-m", "shard=0,1", *options, cwd=tmp_path)
    assert 'Could not detect "srun", are you indeed on a slurm cluster?' in err


def test_at_least_names_the_number():
    at_least(0, a=0, b=1.5)
    with pytest.raises(InputError, match=r"data\.x=nan: give 1 or more"):
        at_least(1, "data.", x=float("nan"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("name", ["train", "estimate"])
def test_a_gpu_that_is_not_there(mistake, photo_folder, name):
    photos = photo_folder("photos", 1, 96, 96)
    assert "there is no GPU" in mistake(name, f"data.source_dir={photos}", "accelerator=gpu")
    with pytest.raises(InputError, match="choose auto, cpu or gpu"):
        pick_device("tpu")


NAMES = ["größer", "写真", "large(2)", "it's", "a=b", "2024", "1.50", "1e3", "true", "Null", "sp ace", "a,b", "[x] {y}"]
NAMES += ["(", "'", 'q"uote', "back\\slash\\", "a\\'b", "two\nlines", "#1", "a:b", "-1", "x%y", "@", "+plus"]


@pytest.fixture
def given(compose):
    """``given("upscale", name, "ckpt", ...)``: what the options are that are all given this name."""

    def read(command, name, *keys):
        options = quote_paths([f"{key}={name}" for key in keys])
        cfg = compose(command, *options, *(["data.source_dir=x"] if command == "train" else []))
        return [OmegaConf.select(cfg, "start.weights" if key == "start" else key) for key in keys]

    return read


def test_names_of_files_and_folders_may_hold_any_character(given):
    """Whether they exist or not, in every option that is one."""
    train = ["data.validation.hr", "data.validation.lr", "data.pools.kernel_dir", "data.clean_dir", "pool_dir"]
    train += ["ckpt", "start", "model.init_from", "lpips.backbone", "callbacks.last.dirpath", "name", "group"]
    evaluate = ["hr", "lr", "output", "metrics.niqe.weights"]
    options = {"train": train, "evaluate": evaluate, "upscale": ["ckpt", "input", "output"]}
    names = ["a'(\n,b=c", "写真"]  # the others by the cheapest command
    for command, keys in options.items():
        for name in NAMES if command == "upscale" else names:
            assert given(command, name, *keys) == [name] * len(keys)


def test_values_that_are_no_names_are_left_to_hydra():
    others = ["data.clean_dir=null", "output=", "input='a b'", "-m", "start=none"]
    for option in ("seed=3", "model.optimizer.lr=1e-4", *others):
        assert quote_paths([option]) == [option]
    assert quote_paths(["start=compat"]) == ["start=compat"]  # Hydra lists what there is
    assert quote_paths(["methods=[bicubic,a:~/x (1).pth]"]) == [f"methods=[bicubic,'a:{Path.home()}/x (1).pth']"]
    assert quote_paths(["methods=[bicubic,'a:x,y.pth',b:it's]"]) == [r"methods=[bicubic,'a:x,y.pth','b:it\'s']"]
    assert quote_paths(["output=~/new"]) == [f"output={Path.home()}/new"]  # as some shells do
    assert quote_paths(["ckpt=a (1),b", "-m", "start=none,x.pth"])[0] == "ckpt='a (1)',b"


def test_a_mistyped_name_is_said_to_be_none(mistake):
    for name in ("größer", "a=b", "2024"):
        assert f"{name}: no such folder" in mistake("train", f"data.source_dir={name}")
        assert f"{name}.pth: no such" in mistake("train", f"start={name}.pth")
        assert f"{name}: no such" in mistake("upscale", f"ckpt={name}", "input=x", "output=y")


# -- places to write to ----------------------------------------------------------------------------------------------


def test_an_output_that_is_a_file_is_refused_at_the_start(mistake, model, photo_folder, tmp_path):
    photos = photo_folder("photos", 1, 96, 96)
    (tmp_path / "file").write_text("x")
    (tmp_path / "run").write_text("x")
    common = [f"ckpt={model}", "accelerator=cpu"]
    for line in (
        mistake("estimate", f"data.source_dir={photos}", "pool_dir=file"),
        mistake("collect", f"data.source_dir={photos}", "pool_dir=file"),
        mistake("upscale", *common, f"input={photos}", "output=file/x"),
        mistake("evaluate", *common, f"hr={photos}", "output=file", "metrics.lpips=null"),
        mistake("train"),
    ):
        assert "cannot be written to" in line and "choose another folder" in line


@pytest.fixture
def tiny_disk(tmp_path):
    """A disk of 2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("needs root to mount a small disk")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], check=False).returncode:
        pytest.skip("mount is not allowed here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_disk_that_is_full_is_refused_at_the_start(tiny_disk, mistake, photo_folder):
    photos = photo_folder("photos", 1, 96, 96)
    assert "make room" in mistake("estimate", f"data.source_dir={photos}", f"pool_dir={tiny_disk}")
    subprocess.run(["mount", "-o", "remount,ro", tiny_disk], check=True)
    assert "cannot be written to" in mistake("collect", f"data.source_dir={photos}", f"pool_dir={tiny_disk}")


def test_a_disk_that_fills_up_leaves_the_old_file(tiny_disk):
    from realsr.training.checkpoints import WholeCheckpoints

    path = tiny_disk / "last.ckpt"
    WholeCheckpoints().save_checkpoint({"x": torch.zeros(1000)}, path)
    line = line_of(WholeCheckpoints().save_checkpoint, {"x": torch.zeros(1_000_000)}, path)
    assert "last.ckpt: No space left on device; make room" in line
    assert len(torch.load(path, weights_only=True)["x"]) == 1000
    assert [p.name for p in tiny_disk.iterdir()] == ["last.ckpt"]


def test_a_writable_folder_is_left_as_it_was(tmp_path):
    check_writable(tmp_path / "new")
    assert not list((tmp_path / "new").iterdir())
    with pytest.raises(InputError, match="are needed; make room"):
        check_writable(tmp_path, need_bytes=2**60)


# -- upscale and evaluate --------------------------------------------------------------------------------------------


def test_results_never_take_the_place_of_photos_nor_are_upscaled_again(model, mistake, photo_folder, tmp_path):
    photos = photo_folder("photos", 2, 20, 24)
    Image.open(photos / "photo0.png").save(photos / "photo0.jpg")
    before = {path: path.read_bytes() for path in photos.iterdir()}
    network = TorchNetwork(nearest(), torch.device("cpu"))
    for overwrite in (False, True):
        written = upscale_files([partial(upscale_file, model=network)], photos, photos / "out", overwrite=overwrite)
        assert sorted(path.name for path in written) == ["photo0.jpg.png", "photo0.png.png", "photo1.png"]
    common = [f"ckpt={model}", "accelerator=cpu"]
    for source in (photos, photos / "photo0.png"):
        line = mistake("upscale", *common, f"input={source}", f"output={photos}")
        assert "would be overwritten" in line
    assert {path: path.read_bytes() for path in photos.iterdir() if path.is_file()} == before


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("scale=1e-9", "scale=1e-09: give a number from 0.01 to 100"),
        ("scale=1000", "scale=1000: give"),
        ("scale=nan", "scale=nan: give"),
        ("quality=0", "quality=0: give 1 to 100"),
        ("quality=101", "quality=101: give"),
        ("max_megapixels=0", "max_megapixels=0: give 1 or more"),
        ("input=", "input= is empty"),
        ("output=", "output= is empty"),
        ("ckpt=", "ckpt= is empty"),
    ],
)
def test_options_of_upscale_are_refused_before_anything_is_made(model, mistake, photo_folder, tmp_path, option, says):
    photos = photo_folder("photos", 1, 20, 24)
    given = [f"ckpt={model}", "accelerator=cpu", f"input={photos}", "output=out"]
    name = option.partition("=")[0]
    assert says in mistake("upscale", *(o for o in given if not o.startswith(f"{name}=")), option)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("upscale", ["ckpt", "input", "output"]),
        ("evaluate", ["ckpt", "hr", "lr", "output"]),
        ("train", ["ckpt", "name", "pool_dir", "start"]),
        ("gap", ["name", "pool_dir"]),
        ("collect", ["pool_dir"]),
        ("export", ["ckpt", "output"]),
    ],
)
def test_names_that_are_empty(compose, name, keys):
    needed = {
        "upscale": ["ckpt=a", "input=b", "output=c"],
        "export": ["ckpt=a"],
        "evaluate": [],
    }.get(name, ["data.source_dir=a"])
    for key in keys:
        line = line_of(compose, name, *quote_paths([*needed, f"{key}="]))
        assert line == f"{key}= is empty; give a name, or leave {key}= out"


@pytest.fixture
def enlarge(monkeypatch):
    """``enlarge(source, output, ...)``: the files written."""
    network = TorchNetwork(nearest(), torch.device("cpu"))
    return partial(upscale_files, [partial(upscale_file, model=network)])


def test_no_two_results_have_one_name(enlarge, photo_folder):
    photos = photo_folder("photos", 1, 20, 24)
    for name in ("b.jpg", "b.png", "b.jpg.png", "b.jpg.png.webp"):
        Image.open(photos / "photo0.png").save(photos / name)
    written = enlarge(photos, photos.parent / "out")
    assert len({str(path).lower() for path in written}) == len(list((photos.parent / "out").iterdir())) == 5


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pipes among files, and other lengths of names")
def test_what_fails_at_one_result_does_not_end_the_others(enlarge, photo_folder, tmp_path):
    photos, out = photo_folder("photos", 2, 20, 24), tmp_path / "out"
    (out / "photo0.png").mkdir(parents=True)  # where a result would be
    (photos / ("x" * 251 + ".png")).write_bytes((photos / "photo1.png").read_bytes())
    os.mkfifo(photos / "pipe.png")
    with pytest.raises(InputError, match=r"1 of 3 files failed: .*photo0\.png: is a folder, where the result of"):
        enlarge(photos, out)
    assert sorted(path.name[:8] for path in out.iterdir()) == ["photo0.p", "photo1.p", "xxxxxxxx"]
    with pytest.raises(InputError, match=r"1 of 3 files failed: .* cannot be written \(File name too long\)"):
        enlarge(photos, out, ".jpeg")
    assert (out / "photo0.jpeg").is_file() and (out / "photo1.jpeg").is_file()
    with pytest.raises(InputError, match="is neither a file nor a folder"):
        enlarge(photos / "pipe.png", out)
    with pytest.raises(InputError, match="is no file"):
        read_image(photos / "pipe.png")


def test_names_that_are_no_folders_for_results(enlarge, photo_folder, tmp_path):
    photos = photo_folder("photos", 1, 20, 24)
    for output, says in (("a.gif", r"a\.gif: cannot write \.gif; use one of \.png"), ("a.dng", "cannot write")):
        with pytest.raises(InputError, match=says):
            enlarge(photos / "photo0.png", tmp_path / output)
    with pytest.raises(InputError, match=r"a\.png: is the name of a picture, and .*photos a folder"):
        enlarge(photos, tmp_path / "a.png")
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]
    assert enlarge(photos / "photo0.png", tmp_path / "v1.5") == [tmp_path / "v1.5" / "photo0.png"]


def test_photos_inside_the_output_folder(enlarge, photo_folder, tmp_path):
    photos = photo_folder("all/photos", 2, 20, 24)
    assert enlarge(photos, tmp_path / "all") == [tmp_path / "all" / f"photo{i}.png" for i in range(2)]
    before = {path: path.read_bytes() for path in photos.iterdir()}
    (photos / "photos").mkdir()
    (photos / "photos" / "photo0.png").write_bytes(before[photos / "photo0.png"])  # whose result is photos/photo0.png
    for overwrite in (False, True):
        with pytest.raises(InputError, match=r"the result .*photo0\.png would lie among the photos"):
            enlarge(photos, tmp_path / "all", overwrite=overwrite)
    assert {path: path.read_bytes() for path in photos.iterdir() if path.is_file()} == before


def test_a_damaged_photo_is_named_once(enlarge, photo_folder, tmp_path):
    photos = photo_folder("two\nlines", 1, 64, 64)
    whole = (photos / "photo0.png").read_bytes()
    for length, says in ((len(whole) // 2, "damaged ("), (30, "damaged"), (0, "is empty")):
        (photos / "photo0.png").write_bytes(whole[:length])
        line = line_of(enlarge, photos / "photo0.png", tmp_path / "out")
        assert line.count("photo0.png") == 1 and says in line and "()" not in line


def test_a_name_with_line_breaks_is_one_line(enlarge, tmp_path, caplog):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "two\nlines\x1b[31m.png").write_text("no picture")
    assert r"two\nlines\x1b[31m.png: its content" in line_of(enlarge, tmp_path / "in", tmp_path / "out")
    assert all("\n" not in record.getMessage() for record in caplog.records)


def test_pairs_that_do_not_match(photo_folder, tmp_path):
    hr, lr, other = photo_folder("hr", 2, 80, 96), photo_folder("lr", 2, 20, 24), photo_folder("other", 1, 20, 24)
    assert len(find_pairs(hr, lr, 4)) == 2
    for given, says in (
        ((hr, other), "photo1.png has no"),
        ((hr, hr), "96x80 pixels times 4 are not the 96x80"),
    ):
        assert says in line_of(find_pairs, *given, 4)
    assert "no test images" in line_of(find_pairs, None, None, 4)
    pixel = photo_folder("pixel", 1, 1, 1)
    assert "photo0.png: 1x1 pixels are too few" in line_of(find_pairs, pixel, None, 4)
    assert find_pairs(None, pixel, 4)[0].read().lr.shape == (3, 1, 1)
    shutil.copy(lr / "photo0.png", lr / "photo0.webp")
    for given in ((None, lr), (lr, None), (hr, lr)):
        line = line_of(find_pairs, *given, 4)
        assert "photo0.png" in line and "photo0.webp" in line


# -- as processes ----------------------------------------------------------------------------------------------------


def test_an_experiment_file_of_the_users_own_is_checked(tiny, tmp_path):
    folder = tmp_path / "conf" / "experiment"
    folder.mkdir(parents=True)
    files = {
        "typo": (
            "# @package _global_\ndata: {crop_sise: 32}\n",
            "RealSRData has no such option, did you mean crop_size?",
        ),
        "yaml": ("# @package _global_\ndata: {crop_size: [32\n", "is no YAML"),
        "header": ("data: {crop_size: 32}\n", "# @package _global_"),
    }
    for name, (text, says) in files.items():
        (folder / f"{name}.yaml").write_text(text)
        options = [*tiny, f"experiment={name}", f"name={name}"]
        assert says in failed("realsr.train", "--config-dir", tmp_path / "conf", *options, cwd=tmp_path)


def test_mistakes_end_a_command_with_one_line_and_exit_code_2(tmp_path, model, photo_folder):
    photos = photo_folder("photos", 1, 20, 24)
    assert "no photos; give data.source_dir" in failed("realsr.train", cwd=tmp_path, run=call)
    (tmp_path / "file").write_text("x")
    assert "file" in failed("realsr.train", f"data.source_dir={photos}", "hydra.run.dir=file", cwd=tmp_path)
    (tmp_path / "a,b [c]='d'").mkdir()
    options = [f"ckpt={model}", "input=a,b [c]='d'", "output=out"]
    assert "holds no image" in failed("realsr.upscale", *options, cwd=tmp_path)


def test_names_that_the_terminal_cannot_show(tmp_path, photo_folder, monkeypatch):
    photos = photo_folder("photos", 2, 96, 96)
    (photos / "\u65e5.png").write_bytes((photos / "photo0.png").read_bytes()[:2000])
    monkeypatch.setenv("PYTHONIOENCODING", "cp1252")
    options = [f"hr={photos}", "metrics.lpips=null"]
    assert "\\u65e5.png: cannot be decoded" in failed("realsr.evaluate", *options, cwd=tmp_path, run=call)


def wait_for(process, path: Path, pattern: str) -> None:
    for _ in range(4800):  # on a busy machine a camera's fit alone takes a minute
        if process.poll() is not None or list(path.glob(pattern)):
            break
        time.sleep(0.05)
    assert process.poll() is None, process.communicate()
    assert list(path.glob(pattern))


def stopped(process, number: signal.Signals) -> str:
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    assert "Traceback" not in out + err
    assert "realsr: interrupted" in err
    return err


@pytest.mark.parametrize(
    ("error", "line"),
    [(InputError("set: no shard; give another"), "set: no shard; give another"), (OSError(5, "bad", "a"), "bad: 'a'")],
)
def test_an_error_in_a_worker_is_one_line_as_well(error, line):
    class Broken(Dataset):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            raise error

    assert line_of(next, iter(DataLoader(Broken(), num_workers=1))).endswith(line)


def test_a_connection_that_a_killed_worker_leaves_is_explained_as_well():
    assert "a process that reads photos was killed" in explain(ConnectionResetError(104, "Connection reset by peer"))


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="children are found by Linux's /proc")
def test_a_worker_that_is_killed_ends_the_training(tiny, tmp_path):
    """As by a machine that is out of memory. The other worker hears no SIGTERM, and was waited for without end."""
    options = [*tiny, "degradation=bicubic", "trainer.max_steps=100000", "trainer.val_check_interval=50000"]
    process = Command("realsr.train", *options, "data.num_workers=2", f"hydra.run.dir={tmp_path}/run", cwd=tmp_path)
    wait_for(process, tmp_path / "run", "csv/metrics.csv")
    own, workers = Path(f"/proc/{process.pid}/cmdline").read_bytes(), []
    for _ in range(600):  # the list of children may leave some out while others begin or end
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        workers = [pid for pid in children if Path(f"/proc/{pid}/cmdline").read_bytes() == own]  # forked from it
        if len(workers) == 2:
            break
        time.sleep(0.05)
    os.kill(int(workers[0]), signal.SIGKILL)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 2, out + err
    assert "a process that reads photos was killed" in err and "Traceback" not in out + err
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_training_keeps_its_last_step_and_goes_on(tiny, compose, tmp_path, number):
    run = tmp_path / "run"
    options = ["degradation=bicubic", "trainer.max_steps=100000", "trainer.val_check_interval=50000"]
    options += ["callbacks.last.every_n_train_steps=0", "trainer.log_every_n_steps=1"]
    process = Command("realsr.train", *tiny, *options, f"hydra.run.dir={run}", cwd=tmp_path)
    wait_for(process, run, "csv/metrics.csv")
    assert "go on with ckpt=auto" in stopped(process, number)
    steps = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    assert steps > 0
    if number is signal.SIGINT:
        outputs = [f"callbacks.{c}.dirpath={run}/checkpoints" for c in ("last", "best")]
        outputs += [f"callbacks.pictures.folder={tmp_path}/pictures", "ckpt=last", f"trainer.max_steps={steps + 2}"]
        train(compose("train", *tiny, *options, *outputs), run)
        assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == steps + 2


@pytest.mark.parametrize(
    ("name", "side", "options", "kind"),
    [
        ("estimate", 96, ["estimator.iterations=300", "accelerator=cpu", "workers=1"], "kernels"),
        ("collect", 320, ["collector.tile_size=16", "collector.stride=2"], "noise"),
    ],
)
def test_interrupted_pools_keep_what_is_made(photo_folder, tmp_path, name, side, options, kind):
    photos = photo_folder("photos", 4, side, side)
    process = Command(f"realsr.{name}", f"data.source_dir={photos}", "pool_dir=pools", *options, cwd=tmp_path)
    wait_for(process, tmp_path / "pools" / kind, "photo*.npz")
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "pools" / kind).glob("photo*.npz")}
    assert "the same command goes on" in stopped(process, signal.SIGINT if name == "estimate" else signal.SIGTERM)
    left = list((tmp_path / "pools" / kind).iterdir())
    assert 1 <= len(left) < 4
    assert {path: path.stat().st_mtime_ns for path in made} == made
    for path in left:
        Entry.read(path)
