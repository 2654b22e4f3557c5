"""model.clip_norm bounds each network's gradients by themselves; what is logged are the norms before."""

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from conftest import scene
from pytorch_lightning import Trainer
from torch.utils.data import DataLoader

from realsr.imaging.resample import imresize
from realsr.networks.patch import PatchDiscriminator
from realsr.networks.rrdb import RRDBNet
from realsr.runtime.errors import InputError
from realsr.training.esrgan import ESRGAN
from realsr.training.losses import RelativisticAverage


def batch() -> dict:
    hr = torch.stack([scene(64, 64, seed) for seed in range(2)])
    return {"lr": imresize(hr, 1 / 4), "hr": hr, "index": [0, 1]}


def by_hand(generator, discriminator, lr, hr):
    """Gradients of the two losses with the weights as they are before either step."""
    fake, bce = generator(lr), F.binary_cross_entropy_with_logits
    real, judged = discriminator(hr), discriminator(fake)
    ones, zeros = torch.ones_like(judged), torch.zeros_like(judged)
    adversarial = bce(real.detach() - judged.mean(), zeros) / 2 + bce(judged - real.detach().mean(), ones) / 2
    total = 0.01 * (fake - hr).abs().mean() + 0.005 * adversarial
    judged = discriminator(fake.detach())
    loss = bce(real - judged.mean(), ones) / 2 + bce(judged - real.mean(), zeros) / 2
    return [
        torch.cat([g.flatten() for g in torch.autograd.grad(value, list(network.parameters()), retain_graph=True)])
        for value, network in ((total, generator), (loss, discriminator))
    ]


@pytest.mark.parametrize("clipped", ["both", "one", "none"])
def test_a_step_is_the_one_computed_by_hand(tmp_path, clipped):
    """With plain gradient descent of rate 1 a step is the clipped gradient."""
    torch.manual_seed(0)
    networks = RRDBNet(8, 1, 4), PatchDiscriminator(4)
    before = copy.deepcopy(networks)
    wanted = by_hand(*before, batch()["lr"], batch()["hr"])
    norms = sorted(float(gradient.norm()) for gradient in wanted)
    assert norms[1] > 3 * norms[0]
    clip_norm = {"both": norms[0] / 2, "one": (norms[0] * norms[1]) ** 0.5, "none": 2 * norms[1]}[clipped]
    how = {"optimizer": partial(torch.optim.SGD, lr=1.0), "adversarial": RelativisticAverage(), "clip_norm": clip_norm}
    module = ESRGAN(networks[0], discriminator=networks[1], **how)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "log_every_n_steps": 1}
    trainer = Trainer(accelerator="cpu", max_steps=1, default_root_dir=tmp_path, enable_model_summary=False, **quiet)
    trainer.fit(module, DataLoader([batch()], batch_size=None))
    for name, was, network, gradient in zip(("grad", "d_grad"), before, networks, wanted, strict=True):
        step = torch.cat(
            [(a - b).detach().flatten() for a, b in zip(was.parameters(), network.parameters(), strict=True)]
        )
        assert step.norm() <= clip_norm * (1 + 1e-4)
        expected = gradient * min(1, clip_norm / float(gradient.norm()))
        assert (step - expected).norm() < 1e-3 * expected.norm()  # PyTorch adds 1e-6 to the norm
        assert float(trainer.callback_metrics[f"train/{name}_norm"]) == pytest.approx(float(gradient.norm()), rel=1e-4)


def test_a_bound_that_is_none_is_refused():
    for clip_norm in (0, -1.0):
        with pytest.raises(InputError, match="null for no clipping"):
            ESRGAN(RRDBNet(8, 1, 4), torch.optim.SGD, clip_norm=clip_norm)
