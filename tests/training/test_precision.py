"""Mixed precision, channels_last and compilation: runs whose losses agree with those of float32 from the same seed.

Tolerances are of the largest relative difference of any loss, in 16 steps and in the first two, at a learning rate at
which the generator moves far from where it starts. Measured, with AVX-512: bf16 4e-3, channels_last 2e-7, compiled
5e-4, of which the first two steps have 2e-7: Adam makes as much of a gradient that is rounding as of a large one.
"""

import shutil

import pytest
import torch
from conftest import csv_rows, nearest, save_compact
from conftest import last_checkpoint as state
from forked import run_forked
from spandrel.architectures.Compact import Compact

from realsr.networks.weights import load_generator

STEPS = 16
LOSSES = ("pixel", "adversarial", "discriminator", "generator")
ADAM = "_target_: torch.optim.Adam, _partial_: true, _convert_: all, betas: [0.9, 0.999]"
OPTIONS = [
    f"trainer.max_steps={STEPS}",
    f"trainer.val_check_interval={STEPS}",
    "data.validation.look_count=0",
    f"model.discriminator_optimizer={{{ADAM}, lr: 1e-4}}",
    "model.optimizer.lr=2e-3",
    "degradation=camera",
]
compiler = pytest.mark.skipif(not shutil.which("g++") and not shutil.which("clang++"), reason="no C++ compiler here")


def curves(folder):
    """``(steps, losses)`` of a run."""
    rows = [row for row in csv_rows(folder) if row.get("train/pixel")]
    return torch.tensor([[float(row[f"train/{name}"]) for name in LOSSES] for row in rows], dtype=torch.float64)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return save_compact(nearest(), tmp_path_factory.mktemp("start") / "model.ckpt")


@pytest.fixture
def reference(fit, start, made={}):  # noqa: B006  (kept on purpose)
    """Losses and last checkpoint of the run in float32; made once."""
    if not made:
        folder = fit("reference", *OPTIONS, f"model.init_from={start}")
        made["run"] = curves(folder), state(folder)
    return made["run"]


def check(fit, reference, start, options, first, most):
    wanted, other = reference
    run = fit("run", *OPTIONS, f"model.init_from={start}", *options)
    got, content = curves(run), state(run)
    assert wanted.shape == (STEPS, len(LOSSES))
    difference = ((got - wanted).abs() / wanted.abs()).amax(1)
    assert difference[:2].max() <= first and difference.max() <= most
    if "trainer.precision=bf16-mixed" in options:
        assert difference.max() > 1e-4  # it is really used
    assert other["state_dict"]["generator.body.4.weight"].abs().max() > 0.01  # it starts at zero
    assert content["state_dict"].keys() == other["state_dict"].keys()
    for key, value in content["state_dict"].items():
        assert value.dtype == other["state_dict"][key].dtype and value.shape == other["state_dict"][key].shape
    assert load_generator(run / "checkpoints" / "last.ckpt")(torch.rand(1, 3, 8, 8)).isfinite().all()


@pytest.mark.parametrize(
    ("options", "first", "most"),
    [
        (["trainer.precision=bf16-mixed"], 1e-2, 1e-2),
        (["trainer.precision=16-mixed"], 1e-2, 1e-2),  # on a CPU Lightning takes bf16 for it
        (["model.channels_last=true"], 1e-6, 1e-4),
        (["model.channels_last=true", "trainer.precision=bf16-mixed"], 1e-2, 1e-2),
    ],
    ids=["bf16", "fp16", "channels_last", "both"],
)
def test_losses_agree_with_float32(fit, reference, start, options, first, most):
    check(fit, reference, start, options, first, most)


@pytest.mark.slow
@compiler
@pytest.mark.parametrize(
    ("options", "first", "most"),
    [([], 1e-6, 2e-3), (["model.channels_last=true", "trainer.precision=bf16-mixed"], 1e-2, 1e-2)],
)
def test_losses_of_compiled_networks_agree_with_float32(fit, reference, start, options, first, most):
    check(fit, reference, start, ["model.compile=true", *options], first, most)


def test_validation_is_in_float32_whatever_the_precision(fit, monkeypatch):
    seen = set()
    forward = Compact.forward

    def noted(network, lr):
        sr = forward(network, lr)
        if lr.device.type != "meta":
            seen.add((network.training, lr.dtype, sr.dtype))
        return sr

    monkeypatch.setattr(Compact, "forward", noted)
    fit("run", "trainer.precision=bf16-mixed")
    assert seen == {(True, torch.float32, torch.bfloat16), (False, torch.float32, torch.float32)}


def test_compiling_without_a_compiler_ends_with_one_line(tiny, monkeypatch, tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("CXX", "CC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    options = ["degradation=bicubic", "model.compile=true", f"hydra.run.dir={tmp_path}/run"]
    done = run_forked("realsr.train", *tiny, *options, cwd=tmp_path, check=False)
    line = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert line.startswith("realsr: model.compile=true: nothing can be compiled here"), line
    assert "C++ compiler" in line and "model.compile=false" in line
