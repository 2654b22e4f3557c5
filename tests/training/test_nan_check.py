"""A loss that is not finite stops the run, said in one line; what was good stays as it was."""

import json
import re

import numpy as np
import pytest
import torch
from forked import run_forked

from realsr.data.datamodule import RealSRData
from realsr.imaging import Photo, write_image
from realsr.runtime.config import explain
from realsr.runtime.errors import InputError
from realsr.training import nan_check
from realsr.training.esrgan import ESRGAN
from realsr.training.losses import RelativisticAverage
from realsr.training.nan_check import FiniteCheck, require_finite


def finite(path):
    """A checkpoint whose tensors, optimisers' too, are all finite."""
    content = torch.load(path, weights_only=True)
    tensors = list(content["state_dict"].values())
    tensors += [v for o in content["optimizer_states"] for state in o["state"].values() for v in state.values()]
    assert len(tensors) > 100 and all(tensor.isfinite().all() for tensor in tensors)
    return content


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
    options = [
        f"data.clean_dir={tmp_path}/grays",
        "data.photos.source_share=0",
        "data.batch_size=1",
        "trainer.max_steps=9",
    ]
    with pytest.raises(InputError) as error:
        fit("run", *options)
    line = explain(error.value)
    assert "\n" not in line and line.startswith("step 5: pixel and adversarial not finite")
    assert re.findall(r"gray\d+", line) == [name for name, level in grays.items() if level in seen]
    assert "model.clip_norm=1" in line and "ckpt=auto" in line
    assert finite(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"] == 4
    finite(tmp_path / "run" / "checkpoints" / "best.ckpt")
    monkeypatch.setattr(RealSRData, "on_after_batch_transfer", transfer)
    fit("run", *options, "ckpt=last")
    assert finite(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"] == 9


def test_the_command_ends_with_one_line_and_exit_code_2(tiny, made_pools, tmp_path):
    """Without a trick: a learning rate that throws the weights out of float32."""
    options = ["model.optimizer.lr=1e25", "trainer.max_steps=8", f"hydra.run.dir={tmp_path}/run"]
    done = run_forked("realsr.train", *tiny, "degradation=kernel_noise", *options, cwd=tmp_path, check=False)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert re.match(r"realsr: step [12]: .* not finite, in a batch from (source|clean)/photo\d", last), last


def test_the_discriminators_loss_alone(fit, monkeypatch, tmp_path):
    loss, calls = RelativisticAverage.discriminator, []

    def discriminator(*logits):
        calls.append(1)
        return loss(*logits) * (torch.inf if len(calls) == 3 else 1)

    monkeypatch.setattr(RelativisticAverage, "discriminator", discriminator)
    with pytest.raises(InputError, match="step 2: discriminator not finite"):
        fit("run")
    assert finite(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"] == 2


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


def test_processes_stop_together_and_name_the_files_of_all(fit, monkeypatch, tmp_path):
    """Only the second one's batch is spoilt."""
    transfer, gathered = RealSRData.on_after_batch_transfer, nan_check.of_all_processes

    def on_after_batch_transfer(data, batch, dataloader_idx):
        batch = transfer(data, batch, dataloader_idx)
        if isinstance(batch, dict) and data.trainer.global_rank == 1 and data.trainer.global_step == 1:
            batch["hr"] = batch["hr"] * torch.nan
        return batch

    def noted(files):
        named = gathered(files)
        (tmp_path / f"{torch.distributed.get_rank()}.json").write_text(json.dumps([files, named]))
        return named

    monkeypatch.setattr(RealSRData, "on_after_batch_transfer", on_after_batch_transfer)
    monkeypatch.setattr(nan_check, "of_all_processes", noted)
    forked = ["trainer=ddp", "trainer.devices=2", "accelerator=cpu", "+trainer.strategy.start_method=fork"]
    with pytest.raises(Exception, match="step 1: pixel and adversarial not finite"):
        fit("run", *forked, "data.batch_size=4")
    (first, named), (second, same) = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert named == same == ", ".join(dict.fromkeys(first + second))


def test_every_loss_is_looked_at_and_named():
    losses = {"a": torch.tensor(1.0), "b": torch.tensor(torch.nan), "c": torch.tensor(-torch.inf, dtype=torch.bfloat16)}
    assert FiniteCheck(losses, lambda flags: flags).found() == ["b", "c"]
    assert FiniteCheck({"a": losses["a"]}, lambda flags: flags).found() == []
    # another process's: its flags are the larger ones
    assert FiniteCheck({"a": losses["a"]}, torch.ones_like).found() == ["a"]


def test_require_finite_tells():
    network = torch.nn.Linear(2, 2)
    require_finite(network)
    network.bias.data[1] = -torch.inf
    with pytest.raises(InputError, match="the network's weights are not finite"):
        require_finite(network)
