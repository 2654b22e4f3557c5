import pytest
import torch
from torch import nn

from realsr.estimators.kernelgan.networks import LinearGenerator, PatchCritic


def layered(generator):
    """The same network as its paper draws it: one convolution after the other."""
    weights = list(generator.filters)
    layers = []
    for weight in weights:
        stride = generator.scale if weight is weights[-1] else 1
        conv = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[-1], stride=stride, bias=False).double()
        conv.weight.data = weight.detach().clone()
        layers.append(conv)
    return nn.Sequential(*layers)


@pytest.mark.parametrize("scale", [1, 2, 4])
@pytest.mark.parametrize("channels, sizes", [(16, (7, 5, 3, 1, 1, 1)), (5, (3, 1, 4)), (3, (5,))])
def test_composed_kernel_equals_the_layers(scale, channels, sizes):
    torch.manual_seed(0)
    generator = LinearGenerator(scale, channels, sizes).double()
    layers = layered(generator)
    crops = [torch.randn(2, 3, 27, 34, dtype=torch.float64).requires_grad_() for _ in range(2)]
    crops[1].data.copy_(crops[0].data)
    ours = generator(crops[0])
    theirs = torch.cat([layers(crops[1][:, colour : colour + 1]) for colour in range(3)], 1)
    torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=1e-10)

    target = torch.randn(ours.shape, dtype=torch.float64)
    for output in (ours, theirs):
        (output * target).sum().backward()
    torch.testing.assert_close(crops[0].grad, crops[1].grad, atol=1e-10, rtol=1e-10)
    for weight, conv in zip(generator.filters, layers, strict=True):
        assert weight.grad.abs().sum() > 0
        torch.testing.assert_close(weight.grad, conv.weight.grad, atol=1e-10, rtol=1e-10)


def test_the_papers_kernel_is_13_by_13_and_what_an_impulse_gives():
    torch.manual_seed(0)
    generator = LinearGenerator(scale=1, channels=8)
    kernel = generator.kernel()
    assert kernel.shape == (13, 13) and generator.kernel_size == 13
    impulse = torch.zeros(1, 3, 25, 25)
    impulse[:, :, 12, 12] = 1
    # correlation shows the kernel turned around
    torch.testing.assert_close(generator(impulse)[0, 1].flip(0, 1), kernel)


def test_filters_start_xavier_normal_with_gain_a_tenth():
    torch.manual_seed(0)
    for weight in LinearGenerator().filters:
        area = weight.shape[-1] ** 2
        std = 0.1 * (2 / ((weight.shape[0] + weight.shape[1]) * area)) ** 0.5
        assert weight.std().item() == pytest.approx(std, rel=4 / (2 * weight.numel()) ** 0.5)


def test_critic_judges_every_patch_of_seven():
    torch.manual_seed(0)
    critic = PatchCritic(channels=8)
    verdict = critic(torch.rand(2, 3, 26, 31) * 2 - 1)
    assert verdict.shape == (2, 1, 20, 25)
    assert verdict.min() > 0 and verdict.max() < 1
    extreme = critic(torch.randn(1, 3, 26, 26) * 1e4)
    assert extreme.min() >= 0 and extreme.max() <= 1

    crop = torch.rand(1, 3, 20, 20, requires_grad=True)
    critic.eval()(crop)[0, 0, 5, 8].backward()
    seen = crop.grad[0].abs().sum(0).nonzero()
    assert seen.min(0).values.tolist() == [5, 8] and seen.max(0).values.tolist() == [11, 14]


def test_critic_has_seven_layers_of_spectral_norm_one():
    torch.manual_seed(0)
    critic = PatchCritic(channels=8)
    for _ in range(30):  # a power iteration each
        critic(torch.rand(1, 3, 8, 8))
    convs = [module for module in critic.modules() if isinstance(module, nn.Conv2d)]
    assert len(convs) == 7
    for conv in convs:
        assert torch.linalg.matrix_norm(conv.weight.detach().flatten(1), 2).item() == pytest.approx(1, abs=0.02)
