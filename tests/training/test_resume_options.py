"""A run that goes on: what is given now is in force and stored, or refused; a run that is done does nothing."""

import copy
import json
import logging
import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch
from conftest import csv_rows
from conftest import last_checkpoint as read

from realsr.evaluation.methods import network
from realsr.networks.patch import PatchDiscriminator
from realsr.networks.weights import load_generator
from realsr.runtime.config import FAILED, METRICS, OPTIONS
from realsr.runtime.errors import InputError
from realsr.training.esrgan import ESRGAN
from realsr.training.resume import apply_options, changes, check_same
from realsr.training.run import train
from realsr.upscaling.backends import load_model
from realsr.upscaling.export_generator import export

SOON = ["trainer.max_steps=8", "trainer.val_check_interval=8"]
OPTIMIZERS = ("optimizer", "discriminator_optimizer")


def in_force(caplog):
    """The lines since the last call that tell of changes."""
    lines = [r.getMessage() for r in caplog.records if "in force" in r.getMessage()]
    caplog.clear()
    return lines


def rates(folder, name):
    """The learning rates that were logged, in the order of the steps."""
    found = [(int(row["step"]), float(row[f"lr/{name}"])) for row in csv_rows(folder) if row.get(f"lr/{name}")]
    return [rate for _, rate in sorted(found)]


@pytest.fixture(autouse=True)
def info(caplog):
    caplog.set_level(logging.INFO, "realsr")


@pytest.fixture
def module():
    """``module(lr=0.1, ...)``: a small training module with options of Adam's; ``milestones`` are its own."""

    def make(milestones=(2, 4), lr_scale=None, build=torch.optim.Adam, **options):
        torch.manual_seed(0)
        generator = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 3), torch.nn.Conv2d(3, 3, 3))
        generator.scale = 4
        module = ESRGAN(generator, lambda parameters: build(parameters, **options), lr_scale=lr_scale)
        module.discriminator = PatchDiscriminator(features=4)
        module.milestones = milestones
        return module

    return make


def state_after(module, *steps):
    """What a checkpoint keeps of its optimisers and schedules after so many steps of each."""
    optimizers, schedules = module.configure_optimizers()
    for optimizer, schedule, count in zip(optimizers, schedules, steps, strict=True):
        for _ in range(count):
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = torch.ones_like(parameter)
            optimizer.step()
            schedule["scheduler"].step()
    return {
        "optimizer_states": copy.deepcopy([optimizer.state_dict() for optimizer in optimizers]),
        "lr_schedulers": copy.deepcopy([schedule["scheduler"].state_dict() for schedule in schedules]),
    }


def groups(content, key):
    return [[group[key] for group in state["param_groups"]] for state in content["optimizer_states"]]


# -- options that are applied ------------------------------------------------------------------------------------------


def test_a_rate_and_milestones_become_what_they_had_been_from_the_start(module):
    """At step 5 of the generator and 3 of the discriminator, with a part that learns at a tenth."""
    tenth = {"0": 0.1}
    content = state_after(module(lr=0.4, lr_scale=tenth), 5, 3)
    assert groups(content, "lr") == [pytest.approx([0.1, 0.01]), [pytest.approx(0.2)]]
    new = {"lr": 0.08, "milestones": (1, 3, 5, 6), "betas": [0.5, 0.9], "eps": 1e-6, "weight_decay": 0.01}
    apply_options(module(**new, lr_scale=tenth), content)
    straight = state_after(module(**new, lr_scale=tenth), 5, 3)
    for key in ("lr", "initial_lr", "betas", "eps", "weight_decay"):
        assert groups(content, key) == groups(straight, key), key
    for mine, its in zip(content["lr_schedulers"], straight["lr_schedulers"], strict=True):
        assert {k: mine[k] for k in its if k != "_step_count"} == {k: its[k] for k in its if k != "_step_count"}
    assert groups(content, "lr") == [pytest.approx([0.01, 0.001]), [pytest.approx(0.02)]]


def test_what_did_not_change_is_the_same_to_the_bit(module):
    options = {"lr": 0.3, "betas": [0.9, 0.999], "milestones": tuple(range(1, 60, 2)), "lr_scale": {"0": 0.7}}
    content = state_after(module(**options), 40, 33)
    before = copy.deepcopy(content)
    apply_options(module(**options), content)
    assert content["lr_schedulers"] == before["lr_schedulers"]
    for state, other in zip(content["optimizer_states"], before["optimizer_states"], strict=True):
        assert state["param_groups"] == other["param_groups"]


@pytest.mark.slow
def test_a_run_with_other_milestones_equals_one_that_always_had_them(fit):
    straight = read(fit("straight", *SOON, "model.milestones=[6]"))
    fit("run", "model.milestones=[5,7]")
    assert read(fit("run", *SOON, "model.milestones=[6]", "ckpt=last"))["global_step"] == 8
    ours = read(fit("run", *SOON[1:], "trainer.max_steps=9", "model.milestones=[6]", "ckpt=last"))
    theirs = read(fit("straight", *SOON[1:], "trainer.max_steps=9", "model.milestones=[6]", "ckpt=last"))
    assert len(straight["state_dict"]) == len(ours["state_dict"])
    for key, value in theirs["state_dict"].items():
        assert torch.equal(value, ours["state_dict"][key]), key
    assert groups(ours, "lr") == groups(theirs, "lr") == [[5e-5], [5e-5]]
    assert ours["lr_schedulers"] == theirs["lr_schedulers"]


def test_options_of_the_command_line_are_in_force_and_stored_and_told_whenever_they_change(fit, caplog):
    folder = fit("run", "model.optimizer.lr=0.008", "model.milestones=[1,3]")
    assert in_force(caplog) == []
    options = ["model.optimizer.lr=0.001", "model.milestones=[2,6]", "model.optimizer.betas=[0.5,0.9]"]
    options += ["model.pixel_weight=0.5"]
    fit("run", *SOON, *options, "ckpt=last")
    (line,) = in_force(caplog)
    assert line.startswith("in force from step 4: model.discriminator_optimizer.betas=[0.5, 0.9], was [0.9, 0.999]; ")
    for told in (
        "model.optimizer.lr=0.001, was 0.008",
        "model.milestones=[2, 6], was [1, 3]",
        "model.pixel_weight=0.5, was 1.0",
        "trainer.max_steps=8, was 4",
        "the run will not go on exactly as it began",
    ):
        assert f"; {told}" in line
    for name in ("generator", "discriminator"):
        assert rates(folder, name)[-4:] == pytest.approx([0.0005, 0.0005, 0.00025, 0.00025])
    content = read(folder)
    assert groups(content, "lr") == [[0.00025]] * 2
    assert [list(betas) for (betas,) in groups(content, "betas")] == [[0.5, 0.9]] * 2
    assert [schedule["milestones"] for schedule in content["lr_schedulers"]] == [Counter([2, 6])] * 2
    stored = content["config"]["model"]
    assert [stored[name]["lr"] for name in OPTIMIZERS] == [0.001, 0.001]
    assert (stored["milestones"], stored["optimizer"]["betas"]) == ([2, 6], [0.5, 0.9])
    fit("run", *options, "trainer.max_steps=9", SOON[1], "ckpt=last")
    assert in_force(caplog) == ["in force from step 8: trainer.max_steps=9, was 8"]
    fit("run", *options[1:], "trainer.max_steps=10", SOON[1], "ckpt=last")  # what is left out is as in conf/
    (line,) = in_force(caplog)
    assert "model.optimizer.lr=0.0001, was 0.001" in line and "betas" not in line
    assert groups(read(folder), "lr") == [[0.000025]] * 2


def test_a_rate_of_nothing_moves_nothing(fit):
    before = read(fit("run"))["state_dict"]
    after = read(fit("run", *SOON, "model.optimizer.lr=0", "ckpt=last"))
    assert after["global_step"] == 8
    moved = [name for name, value in after["state_dict"].items() if not torch.equal(value, before[name])]
    assert {name.partition(".")[0] for name in moved} <= {"generator_ema", "discriminator"}
    assert not [name for name in moved if name.startswith("discriminator") and "running" not in name.rpartition(".")[2]
                and "num_batches" not in name]  # fmt: skip


def test_intervals_are_in_force_and_leave_the_run_exact(fit, caplog):
    fit("run", "trainer.val_check_interval=4")
    options = ["trainer.max_steps=9", "trainer.val_check_interval=3", "callbacks.last.every_n_train_steps=5"]
    folder = fit("run", *options, "ckpt=last")
    (line,) = in_force(caplog)
    assert "callbacks.last.every_n_train_steps=5, was 2; " in line and "trainer.val_check_interval=3, was 4" in line
    assert "exactly" not in line
    assert sorted(path.stem for path in folder.glob("pictures/*.png")) == ["000004", "000006", "000009"]


def test_a_best_of_another_metric_is_no_measure(fit):
    folder = fit("run")
    scores = [read(folder)["callbacks"]["BestCheckpoint"]["score"]]
    fit("run", "trainer.max_steps=6", "optimized_metric=val/ssim", "ckpt=last")
    scores.append(read(folder)["callbacks"]["BestCheckpoint"]["score"])
    assert scores[0] > 10 and 0 < scores[1] <= 1
    assert torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["global_step"] == 6


def test_a_class_that_was_renamed_is_no_change():
    was, now = ({"data": {"degradation": {"_target_": f"realsr.degradation.paper.{name}"}}}
                for name in ("Degradation", "PaperDegradation"))  # fmt: skip
    assert changes(was, now) == changes(now, was) == {}


def test_an_option_that_is_off_is_no_change_to_one_that_is_left_out():
    was, now, on = ({"model": {"optimizer": {"lr": 1, **more}}} for more in ({}, {"amsgrad": False}, {"amsgrad": True}))
    assert changes(was, now) == changes(now, was) == {}
    assert changes(was, on) == {"model.optimizer.amsgrad": (True, None)}


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_what_cannot_be_applied_is_refused_before_data_are_read(fit, tmp_path):
    folder = fit("run")
    last = folder / "checkpoints" / "last.ckpt"
    before = last.read_bytes()
    weights = shutil.copy(last, tmp_path / "weights.ckpt")
    shutil.rmtree(tmp_path / "pools")
    for option, says in {
        "+model.optimizer.amsgrad=true": "optimizer.amsgrad=None, not True; give what it was",
        "model.optimizer._target_=torch.optim.AdamW": "_target_=torch.optim.Adam, not torch.optim.AdamW; give",
        "ema=false": "was trained with model.ema=True, not False",
        "model.lr_scale={body:0.1}": "was trained with model.lr_scale=None, not {'body': 0.1}",
        f"model.init_from={weights}": f"was trained with model.init_from=None, not {weights}",
    }.items():
        with pytest.raises(InputError) as error:
            fit("run", *SOON, option, "ckpt=last")
        line = str(error.value)
        assert says in line and "\n" not in line
        assert line.endswith(f"begin another run (name=...) with start={last} in place of ckpt")
    assert last.read_bytes() == before
    assert not (tmp_path / "pools").exists()


def test_momentum_that_an_optimiser_has_kept_none_of_is_refused():
    was, now = ({"model": {"generator": {}, "optimizer": {"momentum": momentum}}} for momentum in (0, 0.9))
    with pytest.raises(InputError, match=r"last.ckpt: was trained with model.optimizer.momentum=0, not 0.9; give"):
        check_same(Path("last.ckpt"), {"config": was}, now)


def test_weights_are_no_run_and_a_run_keeps_its_start(fit, checkpoint, tmp_path, caplog):
    with pytest.raises(InputError, match=rf"holds weights but no training to go on with; use start={checkpoint}"):
        fit("other", f"ckpt={checkpoint}")
    weights = tmp_path / "start.ckpt"
    shutil.copy(fit("first") / "checkpoints" / "last.ckpt", weights)
    fit("run", f"model.init_from={weights}")
    weights.unlink()  # it is not needed any more
    folder = fit("run", *SOON, "ckpt=last")
    assert read(folder)["config"]["model"]["init_from"] == str(weights)
    assert not any("init_from" in line for line in in_force(caplog))


# -- a run that is done ------------------------------------------------------------------------------------------------


def test_a_finished_run_says_so_and_reads_nothing(fit, compose, tiny, caplog, tmp_path):
    folder = fit("run")
    metrics = json.loads((folder / METRICS).read_text())
    (folder / FAILED).write_text("a row of a sweep that could not be run again")
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != FAILED}
    for name in ("pools", "camera", "clean"):
        shutil.rmtree(tmp_path / name)
    unread = ["perceptual=vgg", "model.perceptual.backbone=missing.pth", f"data.samples_dir={tmp_path}/samples"]
    outputs = [f"callbacks.{c}.dirpath={folder}/checkpoints" for c in ("last", "best")]
    for ckpt in ("last", "auto", folder, folder / "checkpoints" / "last.ckpt"):
        caplog.clear()
        options = [*tiny, *unread, *outputs, f"ckpt={ckpt}"]
        assert train(compose("train", *options, "degradation=kernel_noise"), folder) == metrics
        assert caplog.messages == ["nothing left to do: 4 of 4 steps; give trainer.max_steps=..."]
    caplog.clear()
    assert train(compose("train", *options, "degradation=noise"), folder) == metrics
    assert "the network was trained otherwise: data.pools.kernel_dir=None, was " in caplog.messages[1]
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == files
    assert not (tmp_path / "samples").exists()
    with pytest.raises(Exception, match="camera: no such folder"):
        fit("run", "ckpt=last", "trainer.max_steps=5")
    with pytest.raises(InputError, match="ckpt has made 4 steps already; give a larger"):
        fit("another", f"ckpt={folder}")


def test_a_resumed_run_that_is_refused_is_still_done(fit, tmp_path):
    folder = fit("run")
    files = {name: (folder / name).read_bytes() for name in (METRICS, OPTIONS)}
    with pytest.raises(InputError, match="nothing: no such folder"):
        fit("run", "ckpt=last", "trainer.max_steps=6", f"data.pools.kernel_dir={tmp_path / 'nothing'}")
    assert {name: (folder / name).read_bytes() for name in files} == files


def test_a_run_that_was_killed_in_its_last_validation_makes_up_for_it(fit, caplog):
    folder = fit("run", "trainer.val_check_interval=3")
    metrics = json.loads((folder / METRICS).read_text())
    for left in (None, "{", "[]"):  # metrics.json may also be damaged
        (folder / METRICS).unlink() if left is None else (folder / METRICS).write_text(left)
        fit("run", "trainer.val_check_interval=3", "ckpt=last")
        assert json.loads((folder / METRICS).read_text()) == pytest.approx(metrics)
    assert "nothing left" not in caplog.text


# -- the folder of a run is its last checkpoint ------------------------------------------------------------------------


def test_a_folder_of_a_run_is_its_last_checkpoint_everywhere(fit, tmp_path):
    folder = fit("run")
    last = folder / "checkpoints" / "last.ckpt"
    lr = torch.rand(1, 3, 8, 9)
    sr = load_generator(last)(lr)
    assert torch.equal(load_generator(folder)(lr), sr)
    assert torch.allclose(load_model(folder, accelerator="cpu")(lr), sr, atol=1e-5)
    assert network("ours", folder, 4).made_by == network("ours", last, 4).made_by
    assert export(folder) == last.with_suffix(".safetensors")
    other = read(fit("other", f"ckpt={folder}", "trainer.max_steps=6"))
    assert other["global_step"] == 6
    assert read(fit("started", f"model.init_from={folder}", "model.optimizer.lr=0"))["global_step"] == 4
    with pytest.raises(InputError, match=f"{tmp_path}: no such checkpoint"):
        load_generator(tmp_path)
