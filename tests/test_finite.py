"""A loss that is not finite stops the run or is left out, said in one line; what was good stays as it was."""

import copy
import csv
import json
import re
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch

from realsr.config import explain
from realsr.data.datamodule import RealSRData
from realsr.errors import InputError
from realsr.esrgan import ESRGAN
from realsr.finite import PATIENCE, FiniteCheck, NonFinite, require_finite
from realsr.images import Photo, write_image
from realsr.losses.adversarial import RelativisticAverage


def finite(path):
    """A checkpoint whose tensors, optimisers' too, are all finite."""
    content = torch.load(path, weights_only=True)
    tensors = list(content["state_dict"].values())
    tensors += [v for o in content["optimizer_states"] for state in o["state"].values() for v in state.values()]
    assert len(tensors) > 100 and all(tensor.isfinite().all() for tensor in tensors)
    return content


@pytest.fixture
def spoil(monkeypatch):
    """``spoil(3, 5)``: the batches of these steps (counted from 0) have one pixel that is NaN."""

    def make(*steps):
        transfer = RealSRData.on_after_batch_transfer

        def on_after_batch_transfer(data, batch, dataloader_idx):
            batch = transfer(data, batch, dataloader_idx)
            if isinstance(batch, dict) and data.trainer.global_step in steps:
                batch["hr"] = batch["hr"].clone()
                batch["hr"][-1, 0, 3, 4] = torch.nan
            return batch

        monkeypatch.setattr(RealSRData, "on_after_batch_transfer", on_after_batch_transfer)

    return make


@pytest.fixture
def watch(monkeypatch):
    """Everything that a step may change, before the first step and after each; and the samples of each."""
    states, samples = [], []
    training_step = ESRGAN.training_step

    def state(module):
        optimizers = [copy.deepcopy(o.state_dict()["state"]) for o in module.trainer.optimizers]
        names = ("generator's optimizer", "discriminator's optimizer")
        return {k: v.clone() for k, v in module.state_dict().items()}, dict(zip(names, optimizers, strict=True))

    def step(module, batch, batch_idx):
        if not states:
            states.append(state(module))
        training_step(module, batch, batch_idx)
        states.append(state(module))
        samples.append(batch["index"])

    monkeypatch.setattr(ESRGAN, "training_step", step)
    return states, samples


def changed(before, after):
    """The networks and the optimisers of which not every bit is the same."""
    networks = {k.split(".")[0] for k, v in after[0].items() if not torch.equal(v, before[0][k])}
    return networks | {k for k, v in after[1].items() if not _same(v, before[1][k])}


def _same(one, other):
    return one.keys() == other.keys() and all(
        torch.equal(value, other[index][key]) for index, state in one.items() for key, value in state.items()
    )


MOVING = {"generator", "generator_ema", "generator's optimizer"}
ALL = {*MOVING, "discriminator", "discriminator's optimizer"}


def test_stop_names_the_loss_and_the_file_and_keeps_the_last_good_checkpoint(fit, monkeypatch, tmp_path):
    """Photos of one gray each: the pixels of a batch tell which it is from."""
    grays = {f"gray{level}": level for level in range(40, 240, 40)}
    for name, level in grays.items():
        write_image(tmp_path / "grays" / f"{name}.png", Photo(np.full((160, 192, 3), level, np.uint8)))
    seen = []
    transfer = RealSRData.on_after_batch_transfer

    def on_after_batch_transfer(data, batch, dataloader_idx):
        batch = transfer(data, batch, dataloader_idx)
        if isinstance(batch, dict) and data.trainer.global_step == 5:
            seen.append(round(float(batch["hr"].mean()) * 255))
            batch["hr"] = batch["hr"] * torch.nan
        return batch

    monkeypatch.setattr(RealSRData, "on_after_batch_transfer", on_after_batch_transfer)
    options = [f"data.clean_dir={tmp_path}/grays", "data.source_share=0", "data.batch_size=1", "trainer.max_steps=9"]
    with pytest.raises(InputError) as error:
        fit("run", *options)
    line = explain(error.value)
    assert "\n" not in line and line.startswith("step 5: pixel and adversarial not finite")
    assert re.findall(r"gray\d+", line) == [name for name, level in grays.items() if level in seen]
    assert "model.non_finite=skip" in line and "ckpt=auto" in line
    assert finite(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"] == 4
    finite(tmp_path / "run" / "checkpoints" / "best.ckpt")
    monkeypatch.setattr(RealSRData, "on_after_batch_transfer", transfer)
    fit("run", *options, "ckpt=last")
    assert finite(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"] == 9


def test_the_command_ends_with_one_line_and_exit_code_2(tiny, tmp_path):
    """Without a trick: a learning rate that throws the weights out of float32."""
    options = ["model.optimizer.lr=1e25", "trainer.max_steps=8", f"hydra.run.dir={tmp_path}/run"]
    done = subprocess.run([sys.executable, "-m", "realsr.train", *tiny, *options], capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert re.match(r"realsr: step [12]: .* not finite, in a batch from (source|clean)/photo\d", last), last


def test_a_step_that_is_skipped_changes_no_bit_and_the_run_goes_on(fit, watch, spoil, caplog):
    spoil(2, 3, 6)
    folder = fit("run", "model.non_finite=skip", "model.clip_norm=1", "trainer.max_steps=8")
    states, samples = watch
    steps = [changed(before, after) for before, after in pairwise(states)]
    assert steps == [set() if step in (2, 3, 6) else ALL for step in range(8)]
    batch = len(samples[0])
    assert samples == [list(range(step * batch, (step + 1) * batch)) for step in range(8)]
    content = finite(folder / "checkpoints" / "last.ckpt")
    assert content["global_step"] == 8
    assert [int(state["state"][0]["step"]) for state in content["optimizer_states"]] == [5, 5]
    assert [schedule["last_epoch"] for schedule in content["lr_schedulers"]] == [8, 8]
    lines = [record.message for record in caplog.records if "is skipped" in record.message]
    assert [line.split(":")[0] for line in lines] == ["step 2", "step 3", "step 6"]
    assert all("pixel" in line and re.search(r"(source|clean)/photo\d", line) for line in lines)
    rows = list(csv.DictReader(next((folder / "csv").rglob("metrics.csv")).open()))
    assert [float(row["train/skipped"]) for row in rows if row["train/skipped"]] == [0, 0, 1, 2, 2, 2, 3, 3]


def test_skipping_is_given_up_after_many_in_a_row(fit, spoil, tmp_path):
    spoil(*range(1, 1 + PATIENCE - 1), *range(PATIENCE + 1, 100))
    with pytest.raises(InputError, match=f"step {2 * PATIENCE}: .*{PATIENCE} in a row"):
        fit("run", "model.non_finite=skip", "trainer.max_steps=100", "trainer.val_check_interval=50")
    assert finite(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"] == 2 * PATIENCE


@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_the_discriminators_loss_alone(fit, watch, monkeypatch, policy, tmp_path):
    loss, calls = RelativisticAverage.discriminator, []

    def discriminator(*logits):
        calls.append(1)
        return loss(*logits) * (torch.inf if len(calls) == 3 else 1)

    monkeypatch.setattr(RelativisticAverage, "discriminator", discriminator)
    if policy == "stop":
        with pytest.raises(InputError, match="step 2: discriminator not finite"):
            fit("run")
        assert finite(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"] == 2
        return
    finite(fit("run", "model.non_finite=skip") / "checkpoints" / "last.ckpt")
    states, _ = watch
    steps = [changed(before, after) for before, after in pairwise(states)]
    assert steps == [ALL, ALL, MOVING, ALL]


@pytest.mark.parametrize("network", ["generator", "generator_ema", "discriminator"])
def test_weights_that_are_not_finite_take_no_checkpoints_place(fit, monkeypatch, tmp_path, network):
    """They become so in the last step before one is due, so that no loss can tell."""

    def poison(module, *_):
        if module.global_step == 4:
            with torch.no_grad():
                next(getattr(module, network).parameters()).view(-1)[0] = torch.inf

    monkeypatch.setattr(ESRGAN, "on_train_batch_start", lambda *_: None)
    monkeypatch.setattr(ESRGAN, "training_step", _then(ESRGAN.training_step, poison))
    with pytest.raises(InputError, match=r"weights are not finite.*last good one is kept"):
        fit("run", "trainer.max_steps=8")
    for name in ("last", "best"):
        assert finite(tmp_path / "run" / "checkpoints" / f"{name}.ckpt")["global_step"] == 2


def _then(first, second):
    def both(*arguments):
        first(*arguments)
        second(*arguments)

    return both


def test_processes_skip_a_step_together_and_name_the_files_of_all(fit, monkeypatch, tmp_path):
    """Only the second one's batch is spoilt."""
    transfer, skip, samples = RealSRData.on_after_batch_transfer, NonFinite.skip, []

    def on_after_batch_transfer(data, batch, dataloader_idx):
        batch = transfer(data, batch, dataloader_idx)
        if isinstance(batch, dict) and data.trainer.global_step == 1:
            samples.extend(data.crops.files(batch["index"]))
            if data.trainer.global_rank == 1:
                batch["hr"] = batch["hr"] * torch.nan
        return batch

    def noted(policy, step, losses, files):
        (tmp_path / f"{torch.distributed.get_rank()}.json").write_text(json.dumps([step, files, samples]))
        return skip(policy, step, losses, files)

    monkeypatch.setattr(RealSRData, "on_after_batch_transfer", on_after_batch_transfer)
    monkeypatch.setattr(NonFinite, "skip", noted)
    forked = ["trainer=ddp", "trainer.devices=2", "accelerator=cpu", "+trainer.strategy.start_method=fork"]
    content = finite(fit("run", *forked, "model.non_finite=skip") / "checkpoints" / "last.ckpt")
    assert content["global_step"] == 4
    assert [int(state["state"][0]["step"]) for state in content["optimizer_states"]] == [3, 3]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first[0] == second[0] == 1
    assert first[1] == second[1] == first[2] + second[2]


def test_every_loss_is_looked_at_and_named():
    losses = {"a": torch.tensor(1.0), "b": torch.tensor(torch.nan), "c": torch.tensor(-torch.inf, dtype=torch.bfloat16)}
    assert FiniteCheck(losses, lambda flags: flags).found() == ["b", "c"]
    assert FiniteCheck({"a": losses["a"]}, lambda flags: flags).found() == []
    # another process's: its flags are the larger ones
    assert FiniteCheck({"a": losses["a"]}, torch.ones_like).found() == ["a"]


def test_patience_is_for_steps_not_for_optimisers():
    policy = NonFinite("skip")
    for step in range(PATIENCE - 1):
        policy.skip(step, ["pixel"], ["a", "a", "b"])
        policy.end_step()
    assert policy.skipped == PATIENCE - 1
    with pytest.raises(InputError, match=r"from a, b; .*in a row"):
        policy.skip(PATIENCE - 1, ["pixel"], ["a", "a", "b"])
    policy.end_step()
    policy.end_step()
    assert "is skipped" in policy.skip(PATIENCE, ["pixel"], ["a"])


def test_require_finite_names_what_is_not():
    network = torch.nn.Linear(2, 2)
    require_finite(network, "generator")
    network.bias.data[1] = -torch.inf
    with pytest.raises(InputError, match="the generator's weights are not finite"):
        require_finite(network, "generator")
