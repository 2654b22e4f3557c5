"""A step gives the device its work and goes on: it waits for nothing but whether the losses are finite."""

import contextlib
import functools
import os
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from conftest import jpeg_pool, kernel_pool, noise_pool, scene, seeded
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

import realsr
from realsr.degradation.camera import CameraDegradation
from realsr.degradation.paper import PaperDegradation
from realsr.imaging.jpeg import _dct
from realsr.pools.sampling import KernelDraw, NoiseDraw
from realsr.training.esrgan import ESRGAN

OURS, ADAM = (str(Path(module.__file__).parent) + os.sep for module in (realsr, torch.optim))
READS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2")  # the host needs their results


class Far(torch.Tensor):
    """A tensor of a device that is not there; holds its values on the CPU."""

    @staticmethod
    def __new__(cls, held):
        how = dict(strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype, device="meta")
        far = torch.Tensor._make_wrapper_subclass(cls, held.size(), **how)
        far.held = held
        return far

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise AssertionError(f"{func} outside of FarDevice")


class FarDevice(TorchDispatchMode):
    """Makes "meta" a device that computes, and notes what the host would wait for it in."""

    def __init__(self):
        super().__init__()
        self.waits = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        tensors = []
        tree_map(lambda x: tensors.append(x) if isinstance(x, torch.Tensor) else None, (args, kwargs))
        name, given, kwargs = func.overloadpacket.__name__, args, dict(kwargs or {})
        from_far = to_far = any(isinstance(x, Far) for x in tensors)
        if (device := kwargs.get("device")) is not None:
            to_far, kwargs["device"] = torch.device(device).type == "meta", "cpu"
        if name == "_to_copy" and from_far != to_far and not kwargs.get("non_blocking"):
            self.waits.append("a copy that blocks")
        elif from_far and (name in READS or any(x.ndim and not isinstance(x, Far) for x in tensors)):
            self.waits.append(name)
        elif name.startswith("index") and any(x.dtype == torch.bool for x in tensors[1:]):
            self.waits.append("an index of unknown length")
        held = tree_map(lambda x: x.held if isinstance(x, Far) else x, (given, kwargs))
        made = func(*held[0], **held[1])
        return tree_map(lambda x: Far(x) if to_far and isinstance(x, torch.Tensor) else x, made)


def test_the_far_device_notes_what_a_host_waits_for():
    with FarDevice() as device:
        x = torch.rand(3, 4).to("meta", non_blocking=True)
        assert x.sum(0).add(torch.arange(4, device="meta")).device.type == "meta" and not device.waits
        for wait in (lambda: float(x.sum()), lambda: x[torch.tensor([0])], lambda: x.cpu(), lambda: x[x > 0.5]):
            before = len(device.waits)
            wait()
            assert len(device.waits) > before


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (PaperDegradation, {"noise": None, "kernels": None}),
        (PaperDegradation, {}),
        (PaperDegradation, {"jpeg": jpeg_pool()}),
        (
            PaperDegradation,
            {
                "draw_kernels": KernelDraw(by_confidence=True, turn=True),
                "draw_noise": NoiseDraw(nearest=0.5, detrend="plane"),
            },
        ),
        (CameraDegradation, {"jpeg": jpeg_pool()}),
    ],
    ids=["bicubic", "paper", "jpeg", "draws", "camera"],
)
def test_the_degradation_does_not_wait_for_the_device(monkeypatch, kind, options):
    monkeypatch.setattr(
        "realsr.imaging.jpeg._dct", functools.lru_cache(_dct.__wrapped__)
    )  # not to be met by other tests
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # there is none of "meta"
    make = {"kernels": kernel_pool(), "noise": noise_pool(), **options}
    hr = torch.stack([scene(96, 96, seed) for seed in range(3)])
    degradation = kind(4, **make)
    wanted = degradation(hr, seeded(), margin=16)
    with FarDevice() as device:
        hr = hr.to("meta")
        first = degradation(hr, seeded(), margin=16)  # takes the pools along
        device.waits.clear()
        again = degradation(hr, seeded(), margin=16)
        assert not device.waits
    assert torch.equal(first.held, wanted) and torch.equal(again.held, wanted)


class Reads(TorchDispatchMode):
    """Where tensors are read by the host, step by step."""

    def __init__(self):
        super().__init__()
        self.step, self.steps = None, {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__ in READS:
            self.note()
        return func(*args, **(kwargs or {}))

    def note(self):
        frame, names = sys._getframe(1), []
        while frame is not None and len(names) < 40:
            names.append((frame.f_code.co_filename, frame.f_code.co_name))
            frame = frame.f_back
        # Adam counts its steps in tensors that stay on the CPU
        if not any(file.startswith(ADAM) for file, _ in names[:8]):
            ours = next((name for file, name in names if file.startswith(OURS)), names[3][1])
            self.steps.setdefault(self.step, Counter())[ours] += 1


@pytest.mark.parametrize("options", [[], ["model.clip_norm=1"], ["disc=unet"]])
def test_a_step_that_is_not_logged_reads_nothing_but_whether_losses_are_finite(fit, monkeypatch, options):
    reads = Reads()
    for name in ("tolist", "numpy", "cpu"):
        monkeypatch.setattr(torch.Tensor, name, _noted(getattr(torch.Tensor, name), reads))
    monkeypatch.setattr(ESRGAN, "on_train_batch_start", lambda _, batch, index: setattr(reads, "step", index))
    options = [*options, "callbacks.progress={_target_: realsr.training.callbacks.StepProgress}"]
    options += ["callbacks.last.every_n_train_steps=0", "trainer.val_check_interval=9", "trainer.log_every_n_steps=4"]
    with reads:
        fit("run", *options, "trainer.max_steps=9")
    for step in (1, 2, 4, 5, 6):
        # sample numbers are taken from the next batch while it is on the CPU
        assert reads.steps[step] == {"found": 2, "on_before_batch_transfer": 1}, step
    assert reads.steps[3].total() > 3  # the fourth step is logged, so this can see reads


def _noted(method, reads):
    def call(tensor, *args, **kwargs):
        reads.note()
        return method(tensor, *args, **kwargs)

    return call
