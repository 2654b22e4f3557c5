import copy
import json

import numpy as np
import pytest
import torch
from pytorch_lightning import Callback
from spandrel.architectures.Compact import Compact
from torch import nn

from realsr.evaluate import _run as run_evaluate
from realsr.imaging import read_image, to_float
from realsr.networks.patch import PatchDiscriminator
from realsr.networks.rrdb import RRDBNet
from realsr.networks.tiling import upscale_tiled
from realsr.networks.weights import load_weights, read_checkpoint
from realsr.runtime.files import find_images
from realsr.training.esrgan import ESRGAN, update_average
from realsr.training.losses import Vanilla
from realsr.upscale import _run as run_upscale


def recursion(states, decay):
    """The average that the weights ``states[0]`` (before the first step), ``states[1]``, ... come to, in NumPy."""
    average = {name: value.numpy().astype(np.float64) for name, value in states[0].items()}
    for step, state in enumerate(states[1:]):
        d = min(decay, (1 + step) / (10 + step))
        average = {name: d * average[name] + (1 - d) * value.numpy() for name, value in state.items()}
    return average


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.999])
def test_it_is_numpys_recursion_with_a_start_soon_forgotten(decay):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Linear(2, 2, bias=False)).double()
    average, states = copy.deepcopy(network), []
    for step in range(21):  # 0.5 is reached at the eighth
        states.append({name: value.detach().clone() for name, value in network.state_dict().items()})
        if step:
            update_average(average, network, decay, step - 1)
        nn.utils.vector_to_parameters(torch.randn(2 * 3 * 9 + 3 + 4).double(), network.parameters())
    for name, expected in recursion(states, decay).items():
        np.testing.assert_allclose(average.state_dict()[name], expected, rtol=1e-12)


def test_buffers_are_the_networks():
    torch.manual_seed(0)
    network = nn.BatchNorm2d(3)
    average = copy.deepcopy(network)
    network(torch.rand(2, 3, 4, 4))
    update_average(average, network, 0.999, 0)
    assert average.num_batches_tracked == 1
    assert torch.equal(average.running_mean, network.running_mean)
    assert average.running_mean.data_ptr() != network.running_mean.data_ptr()


class RawWeights(Callback):
    """What the generator was before the first step and after each."""

    def __init__(self):
        self.states = []

    def on_train_start(self, trainer, module):
        self.states.append(copy.deepcopy(module.generator.state_dict()))

    def on_train_batch_end(self, trainer, module, *args):
        self.on_train_start(trainer, module)


def test_a_checkpoint_holds_the_recursion_over_every_step_of_a_gan_run(train_on_noise, tmp_path):
    torch.manual_seed(0)
    module = ESRGAN(
        RRDBNet(features=4, blocks=1, growth=4),
        lambda parameters: torch.optim.Adam(parameters, 1e-2),
        discriminator=PatchDiscriminator(features=2, layers=1),
        adversarial=Vanilla(),
        warmup_steps=3,
        ema_decay=0.3,  # reached at the third step
    )
    trainer = train_on_noise(module, 9, raw := RawWeights())
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    state = read_checkpoint(tmp_path / "last.ckpt")["state_dict"]
    assert len(raw.states) == 10
    for name, expected in recursion(raw.states, 0.3).items():
        mine = state[f"generator_ema.{name}"].numpy()
        np.testing.assert_allclose(mine, expected, rtol=1e-4, atol=1e-6)
        assert np.abs(mine - state[f"generator.{name}"].numpy()).max() > 1e-4  # it lags behind
        assert torch.equal(state[f"generator.{name}"], raw.states[-1][name])


@pytest.mark.parametrize("averaged", [True, False])
def test_all_that_follows_takes_the_average_unless_told_otherwise(fit, compose, photo_folder, tmp_path, averaged):
    hr, lr = photo_folder("hr", count=2, height=128, width=160), photo_folder("lr", count=2, height=32, width=40)
    options = [f"data.validation.hr={hr}", f"data.validation.lr={lr}", "model.optimizer.lr=0.01"]
    folder = fit("run", *options, "ema=true" if averaged else "ema=false")
    ckpt = folder / "checkpoints" / "last.ckpt"
    psnr, pictures = {}, {}
    for ema in (True, False):
        output, given = tmp_path / f"ema_{ema}", [f"ckpt={ckpt}", "accelerator=cpu"]
        if not ema:  # the average is the default
            given.append("ema=false")
        lpips = "metrics.lpips=null"
        run_evaluate(compose("evaluate", *given, f"hr={hr}", f"lr={lr}", f"output={output}", lpips))
        run_upscale(compose("upscale", *given, f"input={lr}", f"output={output / 'large'}"))
        psnr[ema] = json.loads((output / "metrics.json").read_text())["mean"]["model"]["psnr"]
        pictures[ema] = [read_image(output / "large" / photo.name).rgb for photo in find_images(lr)]
        network = Compact(num_feat=8, num_conv=1)
        load_weights(network, ckpt, ("generator_ema." if averaged and ema else "generator.",))
        for photo, picture in zip(find_images(lr), pictures[ema], strict=True):
            expected = upscale_tiled(network, to_float(read_image(photo).rgb)[None], 4)
            # upscale computes in another order, and may round a tie to the other side
            levels = 255 * expected[0].clamp(0, 1).permute(1, 2, 0).numpy()
            np.testing.assert_allclose(picture, levels, rtol=0, atol=0.5 + 1e-3)
    validated = json.loads((folder / "metrics.json").read_text())["val/psnr"]
    assert psnr[True] == pytest.approx(validated, abs=1e-5)
    if averaged:
        assert abs(psnr[False] - psnr[True]) > 1e-3
        assert not np.array_equal(pictures[False], pictures[True])
    else:
        assert psnr[False] == psnr[True]
        assert not [key for key in read_checkpoint(ckpt)["state_dict"] if "ema" in key]


@pytest.mark.parametrize("decay", [1, -0.1])
def test_a_decay_that_forgets_nothing_or_worse_is_refused(decay):
    with pytest.raises(ValueError, match=f"model.ema_decay={decay}: give 0 to below 1; ema=false for none"):
        ESRGAN(RRDBNet(features=4, blocks=1, growth=4), torch.optim.Adam, ema_decay=decay)
