"""Two processes with gloo on the CPU. Where processes that Lightning starts would say no more, they are forked."""

import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric.plugins.environments.lightning import find_free_network_port
from pytorch_lightning import Callback
from pytorch_lightning.strategies import DDPStrategy

from realsr.data.datamodule import RealSRData
from realsr.data.datasets import StepSampler, share
from realsr.estimation.kernels import gaussian_kernel
from realsr.imaging import Photo, write_image
from realsr.pools.folder import Entry
from realsr.runtime.errors import InputError
from realsr.training.esrgan import ESRGAN
from realsr.training.run import train

TWO = ["trainer=ddp", "trainer.devices=2", "accelerator=cpu"]
FORKED = [*TWO, "+trainer.strategy.start_method=fork"]  # nothing is imported anew: seconds less
SGD = ["model.optimizer._target_=torch.optim.SGD", "~model.optimizer.betas", "model.optimizer.lr=3"]


class Record(Callback):
    """What each process saw and ended with, in ``folder/<rank>.pt``."""

    def __init__(self, folder: str) -> None:
        self.folder, self.batches = Path(folder), []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        data = trainer.datamodule
        size = data.crop_size + 2 * data.margin
        same = {"hr": torch.arange(size * size).view(1, 1, size, size).expand(1, 3, -1, -1) % 251.0}
        degraded = data.on_after_batch_transfer({**same, "index": batch["index"]}, 0)["lr"]
        self.batches.append({**batch, "degraded": degraded})

    def on_train_end(self, trainer, module):
        state = {"weights": module.state_dict(), "optimizers": [o.state_dict() for o in trainer.optimizers]}
        torch.save({**state, "batches": self.batches}, self.folder / f"{trainer.global_rank}.pt")


def with_rrdb(tiny):
    """The options of ``tiny``, but for a small RRDBNet and the paper's degradation."""
    network = ["model=esrgan", "model.generator={features:8,blocks:1,growth:4}", "degradation=kernel_noise"]
    return [option for option in tiny if not option.startswith(("model=", "model.generator="))] + network


@pytest.fixture
def fit(made_pools, compose, tiny, tmp_path):
    """``fit("name", *overrides)``: train; gives ``last.ckpt``."""

    def make(name, *overrides):
        folder = tmp_path / name
        outputs = [f"callbacks.{c}.dirpath={folder}/checkpoints" for c in ("last", "best")]
        outputs.append(f"callbacks.pictures.folder={folder}/pictures")
        train(compose("train", *with_rrdb(tiny), *outputs, "trainer.max_steps=3", *overrides), folder)
        return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)

    return make


@pytest.fixture
def recorded(fit, tmp_path):
    """``recorded("name", *overrides)``: what the two processes saw."""

    def make(name, *overrides):
        folder = tmp_path / f"{name}-ranks"
        folder.mkdir()
        fit(name, *FORKED, f"+callbacks.record={{_target_: test_ddp.Record, folder: {folder}}}", *overrides)
        return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in (0, 1)]

    return make


def differences(fit, gan):
    """How far two processes come from what one makes of the same batches, of how far each weight has moved at most.

    Bicubic LR has no draws, so that it is the same. disc=patch would differ: on a CPU, each process normalises the
    discriminator's features by its own images (BatchNorm). Adam would hide a gradient that is twice what it should be.
    """
    options = [
        "disc=unet",
        f"gan={gan}",
        "degradation=bicubic",
        "data.batch_size=4",
        "model.adversarial_weight=1",
        "trainer.max_steps=2",  # the third step at this rate is an explosion, which enlarges rounding
        *SGD,
    ]
    start, one, two = (
        fit(name, *options, *overrides)["state_dict"]
        for name, overrides in (("start", ("model.optimizer.lr=0",)), ("one", ()), ("two", FORKED))
    )
    assert one.keys() == two.keys()
    moved = {key: float((one[key] - start[key]).abs().max()) for key in one}
    last = "discriminator.conv9.bias"  # cancels out in ragan, but for rounding
    moved = {key: most for key, most in moved.items() if most > 1e-5 and not (gan == "ragan" and key == last)}
    assert len(moved) > 0.9 * len(one)
    return {key: float((one[key] - two[key]).abs().max()) / most for key, most in moved.items()}


@pytest.fixture(autouse=True)
def has_written(tmp_path):
    """Processes that are forked from one that has written a photo lack the threads of libvips."""
    write_image(tmp_path / "written.tif", Photo(np.zeros((8, 8, 3), np.uint8)))


@pytest.mark.parametrize("gan", ["ragan", "vanilla"])
def test_two_processes_train_as_one_with_the_same_batch(fit, gan):
    found = differences(fit, gan)
    assert max(found.values()) < 1e-4, max(found.items(), key=lambda item: item[1])


def test_relativistic_losses_compare_with_the_images_of_all_processes(fit, monkeypatch):
    """Without them the gradients are others: the control of the test before."""
    monkeypatch.setattr(ESRGAN, "all_gather", lambda self, logits, **_: logits[None])
    assert max(differences(fit, "ragan").values()) > 1e-3  # .0047, where 2.5e-5 is rounding


def test_processes_see_different_images_and_stay_identical(recorded, made_pools):
    """Bit by bit, in weights, averages and moments; kernels and noise are drawn anew for each."""
    for sigma, path in enumerate(sorted(made_pools.glob("kernels/*.npz")), 1):
        Entry(path, {"x4": gaussian_kernel(33, (sigma, sigma), 0, 4)}, {"photo": path.stem}).write()
    for pools in ("degradation=kernel", "degradation=noise"):
        options = ["disc=unet", "data.batch_size=4", "data.pools.build=false"]
        ranks = recorded(pools[12:], pools, *options)
        for name in ("lr", "hr"):
            images = [image.numpy().tobytes() for rank in ranks for batch in rank["batches"] for image in batch[name]]
            assert len({*images}) == 3 * 4
        one, other = (torch.stack([batch["degraded"] for batch in rank["batches"]]) for rank in ranks)
        assert not torch.equal(one, other)
        same_weights(*ranks)
    drawn = [index for rank in ranks for batch in rank["batches"] for index in batch["index"]]
    assert sorted(drawn) == list(range(3 * 4))


def same_weights(one, other):
    assert one["weights"].keys() == other["weights"].keys()
    assert any(key.startswith("generator_ema") for key in one["weights"])
    for key, value in one["weights"].items():
        assert torch.equal(value, other["weights"][key]), key
    for mine, its in zip(one["optimizers"], other["optimizers"], strict=True):
        for index, state in mine["state"].items():
            for key, value in state.items():
                assert torch.equal(value, its["state"][index][key]), key


def test_a_run_on_two_processes_goes_on_bit_for_bit(fit):
    """Also in one process: with the same crops."""
    straight = fit("straight", *FORKED)
    fit("halved", *FORKED, "trainer.max_steps=2")
    halved = fit("halved", *FORKED, "ckpt=last")
    assert halved["global_step"] == straight["global_step"] == 3
    for key, value in straight["state_dict"].items():
        assert torch.equal(value, halved["state_dict"][key]), key
    for one, other in zip(straight["optimizer_states"], halved["optimizer_states"], strict=True):
        for index, state in one["state"].items():
            assert all(torch.equal(value, other["state"][index][key]) for key, value in state.items())
    assert fit("halved", "ckpt=last", "trainer.max_steps=4")["global_step"] == 4


class Hasty(DDPStrategy):
    """For nothing does it wait as long as here for prepare_data."""

    def __init__(self, **options):
        super().__init__(timeout=timedelta(seconds=5), **options)


@pytest.mark.slow
def test_prepare_data_is_waited_for_as_long_as_it_takes(fit, monkeypatch, tmp_path):
    """Once, in the first process; pools of thousands of photos take hours."""

    def slow(data):
        time.sleep(10)
        with (tmp_path / "prepared").open("a") as file:
            file.write(f"{data.trainer.global_rank} ")
        prepare(data)

    prepare = RealSRData.prepare_data
    monkeypatch.setattr(RealSRData, "prepare_data", slow)
    assert fit("run", *FORKED, "trainer.strategy._target_=test_ddp.Hasty", "trainer.max_steps=2")["global_step"] == 2
    assert {*(tmp_path / "prepared").read_text().split()} == {"0"}


def test_the_samples_of_a_step_are_the_same_on_any_number_of_devices():
    for step in range(3):
        for devices in (1, 2, 3, 6):
            each = share(6, devices)
            drawn = [list(StepSampler(step, 5, each, rank, devices))[:each] for rank in range(devices)]
            assert [*itertools.chain(*drawn)] == list(range(6 * step, 6 * step + 6))


def test_a_batch_that_does_not_divide_is_refused_before_anything_is_made(fit, tmp_path):
    options = [*FORKED, "trainer.devices=3", f"pool_dir={tmp_path}/other"]
    with pytest.raises(InputError, match=r"batch_size=16 over 3 devices.*batch_size=15 or 18, or 2 or 1 devices"):
        fit("run", *options, "data.batch_size=16")
    with pytest.raises(InputError, match=r"batch_size=2 over 3 devices.*batch_size=3, or 2 or 1 devices"):
        fit("run", *options, "data.batch_size=2")
    assert not (tmp_path / "other").exists()


# -- the command, as a user gives it


FAILS = """
import os
from realsr.data.datasets import HRCrops
from realsr.runtime.errors import InputError
from realsr.train import main

read = HRCrops.__getitem__

def read_or_fail(crops, index):
    if os.environ.get("LOCAL_RANK") == "1" and index > 3:
        raise InputError("this crop cannot be read")
    return read(crops, index)

HRCrops.__getitem__ = read_or_fail
main()
"""


def command(*options, starter=(sys.executable,), program=("-m", "realsr.train"), **environment):
    arguments = [*starter, *program, *options]
    environment = {**os.environ, **environment}
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def test_an_error_on_one_device_ends_all_and_is_told_once(tiny, made_pools, tmp_path):
    (tmp_path / "fails.py").write_text(FAILS)
    shutil.rmtree(made_pools / "hr")
    options = [*tiny, *TWO, "degradation=kernel_noise", f"hydra.run.dir={tmp_path / 'run'}"]
    process = command(*options, program=(str(tmp_path / "fails.py"),))
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 2, output
    assert output.count("this crop cannot be read") == output.count("the other devices stop as well") == 1, output
    assert "Traceback" not in output
    assert output.count("perceptual=none") == output.count("training on 3 cleaned-up") == 1, output
    index = (tmp_path / "pools" / "hr" / "index.jsonl").read_text().split("\n")
    assert all(json.loads(line) for line in index[1:])


def test_processes_and_devices_have_to_be_as_many(fit, monkeypatch):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    with pytest.raises(InputError, match=r"2 processes for 1 device: torchrun or srun has to start as many"):
        fit("run")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    with pytest.raises(InputError, match=r"1 process for 2 devices: torchrun or srun has to start as many"):
        fit("run", *TWO)


@pytest.mark.slow
def test_rows_of_a_sweep_are_commands_of_their_own(tiny, tmp_path):
    """Two rows, of which the second fails; processes that Lightning starts would run both rows anew."""
    options = [
        *tiny,
        *TWO,
        "data.batch_size=2,3",
        f"hydra.sweep.dir={tmp_path / 'sweep'}",
        "hydra.sweep.subdir='${hydra:job.num} x'",
    ]
    process = command("-m", *options)
    output = process.communicate(timeout=500)[0]
    assert process.returncode == 2, output
    assert output.count("training on ") == output.count("data.batch_size=3 over 2 devices") == 1, output
    assert "Traceback" not in output
    first = tmp_path / "sweep" / "0 x"
    assert torch.load(first / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 4
    assert json.loads((first / "metrics.json").read_text())["val/psnr"] > 10


SLURM = {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_STEP_NUM_TASKS": "2", "SLURM_NNODES": "1"}
SLURM |= {"SLURM_NODEID": "0", "SLURM_JOB_ID": "4321", "SLURM_JOB_NAME": "realsr", "SLURM_NODELIST": "localhost"}


@pytest.mark.slow
def test_torchrun_and_srun_start_what_lightning_starts(tiny, tmp_path, fit):
    """One node of two processes, two nodes of one, and the variables that srun sets; the weights are bitwise alike."""
    port = str(find_free_network_port())
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--master-addr=127.0.0.1", f"--master-port={port}")
    nodes = [(*torchrun, "--nnodes=2", f"--node-rank={node}") for node in (0, 1)]
    slurm = [{**SLURM, "MASTER_PORT": port, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)} for rank in (0, 1)]
    weights = fit("forked", *FORKED)["state_dict"]

    def check(name, how, *options):
        arguments = (*with_rrdb(tiny), *TWO, "trainer.max_steps=3", f"hydra.run.dir={tmp_path / name}", *options)
        processes = [command(*arguments, **one) for one in how]
        outputs = [process.communicate(timeout=500)[0] for process in processes]
        assert not any(process.returncode for process in processes), (name, outputs)
        assert sum(output.count("done: ") for output in outputs) == 1, (name, outputs)
        found = torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        assert all(torch.equal(value, found[key]) for key, value in weights.items()), name

    check("lightning", [{}])
    check("torchrun", [{"starter": (*torchrun, "--nproc-per-node=2")}])
    check("nodes", [{"starter": node} for node in nodes], "trainer.devices=1", "trainer.num_nodes=2")
    check("srun", slurm)
