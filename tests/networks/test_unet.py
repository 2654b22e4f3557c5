import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from realsr.networks.rrdb import RRDBNet
from realsr.networks.unet import UNetDiscriminator
from realsr.networks.weights import load_weights
from realsr.runtime.errors import InputError
from realsr.training.esrgan import ESRGAN
from realsr.training.losses import Hinge, Vanilla
from realsr.training.run import check_model

# The published discriminator (Real-ESRGAN, ICCVW 2021): inputs, outputs in units of its features (0: RGB), kernel size
LAYERS = [(0, 1, 3), (1, 2, 4), (2, 4, 4), (4, 8, 4), (8, 4, 3), (4, 2, 3), (2, 1, 3), (1, 1, 3), (1, 1, 3), (1, 0, 3)]
NORMED = [f"conv{index}" for index in range(1, 9)]


class Published(nn.Module):
    """It again, with the spectral norm of its time, whose weights are stored under other names."""

    def __init__(self, n):
        super().__init__()
        for index, (inputs, outputs, size) in enumerate(LAYERS):
            ends = index in (0, 9)
            conv = nn.Conv2d(inputs * n or 3, outputs * n or 1, size, size // 2, padding=1, bias=ends)
            conv.stride = (2, 2) if size == 4 else (1, 1)
            setattr(self, f"conv{index}", conv if ends else nn.utils.spectral_norm(conv))

    def forward(self, x):
        def after(index, x):
            return F.leaky_relu(getattr(self, f"conv{index}")(x), 0.2)

        skips = []
        for index in range(3):
            x = after(index, x)
            skips.append(x)
        x = after(3, x)
        for index in range(4, 7):
            x = F.interpolate(x, size=skips[-1].shape[-2:], mode="bilinear", align_corners=False)
            x = after(index, x) + skips.pop()
        return self.conv9(after(8, after(7, x)))


def sigma(layer):
    """Largest singular value of a convolution's weights, a row for each output."""
    weight = layer.weight.detach().numpy()
    return np.linalg.svd(weight.reshape(len(weight), -1), compute_uv=False)[0]


def test_it_has_the_published_layers():
    count = sum((64 * i or 3) * (64 * o or 1) * k * k for i, o, k in LAYERS) + 64 + 1  # biases of the first, the last
    network = UNetDiscriminator()
    assert sum(p.numel() for p in network.parameters()) == count == 4_376_897


def test_weights_are_normalised_while_they_change():
    torch.manual_seed(0)
    network = UNetDiscriminator(features=4)
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    for _ in range(5):
        optimizer.zero_grad()
        network(torch.rand(1, 3, 16, 16)).mean().backward()
        optimizer.step()
    with torch.no_grad():
        for name in NORMED:
            getattr(network, name).parametrizations.weight.original.mul_(7)
        for _ in range(300):  # one power iteration each
            network(torch.rand(1, 3, 16, 16))
    network.eval()
    for name in NORMED:
        layer = getattr(network, name)
        assert sigma(layer) == pytest.approx(1, abs=2e-3), name
        raw = layer.parametrizations.weight.original.detach().flatten(1).numpy()
        np.testing.assert_allclose(layer.weight.detach().flatten(1), raw / np.linalg.svd(raw)[1][0], rtol=0, atol=1e-3)


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("content", [lambda s: s, lambda s: {"params": s}], ids=["bare", "params"])
def test_published_weights_give_the_published_logits(tmp_path, mode, content):
    torch.manual_seed(0)
    published, image = Published(4), torch.rand(2, 3, 24, 32)
    for _ in range(500):  # the two take the power iteration's halves in different order: equal when it is at its end
        published(image[:1, :, :8, :8])
    assert {"conv1.weight_orig", "conv8.weight_u", "conv8.weight_v"} <= published.state_dict().keys()
    torch.save(content(published.state_dict()), tmp_path / "net_d.pth")
    network = UNetDiscriminator(features=4)
    load_weights(network, tmp_path / "net_d.pth", ("discriminator.",))
    for one in (network, published):
        one.train(mode == "train")
    torch.testing.assert_close(network(image), published(image), atol=1e-6, rtol=1e-5)


def test_the_gradient_of_logits_of_hr_outlives_those_of_sr():
    """D judges hr, then sr twice, which moves the vectors of its power iteration, and only then goes back."""
    torch.manual_seed(0)
    network, alone = UNetDiscriminator(features=4), UNetDiscriminator(features=4)
    alone.load_state_dict(network.state_dict())
    real, fake = torch.rand(2, 1, 3, 16, 16)
    logits = network(real)
    network(fake)
    logits.square().mean().backward()
    alone(real).square().mean().backward()
    for mine, its in zip(network.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, its.grad)


def test_crops_that_cannot_be_halved_three_times_are_refused_before_anything_is_made():
    model = ESRGAN(
        RRDBNet(features=4, blocks=1, growth=4),
        torch.optim.Adam,
        discriminator=UNetDiscriminator(features=2),
        adversarial=Hinge(),
    )
    check_model(model, 4, 32, 2)
    with pytest.raises(InputError, match=r"UNetDiscriminator cannot .*data.crop_size=36 .*no multiples of 8") as error:
        check_model(model, 4, 36, 2)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_it_learns_beside_a_generator(train_on_noise, precision):
    torch.manual_seed(0)
    discriminator = UNetDiscriminator(features=4)
    before = {name: value.clone() for name, value in discriminator.state_dict().items()}
    model = ESRGAN(
        RRDBNet(features=4, blocks=1, growth=4),
        torch.optim.Adam,
        discriminator=discriminator,
        adversarial=Vanilla(),  # under Hinge the last bias has no gradient while all are within the margin
    )
    train_on_noise(model, 3, precision=precision)
    for name, value in discriminator.state_dict().items():
        assert value.dtype == torch.float32 and value.isfinite().all()
        assert not torch.equal(value, before[name]), name
    for name in NORMED:
        assert sigma(getattr(discriminator.eval(), name)) == pytest.approx(1, abs=0.05)
