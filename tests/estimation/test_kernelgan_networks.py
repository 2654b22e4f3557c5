import pytest
import torch
from benchmarks.bench_kernelgan import plain_critic, plain_generator

from realsr.estimation.kernelgan.networks import LinearGenerator, PatchCritic


@pytest.mark.parametrize("scale", [1, 2, 4])
@pytest.mark.parametrize("channels, sizes", [(16, (7, 5, 3, 1, 1, 1)), (5, (3, 1, 4)), (3, (5,))])
def test_composed_kernel_equals_the_layers(scale, channels, sizes):
    torch.manual_seed(0)
    generator = LinearGenerator(scale, channels, sizes).double()
    layers = plain_generator(generator)
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


@pytest.mark.parametrize("layers", [3, 7])
def test_critic_is_that_of_separate_layers(layers):
    torch.manual_seed(0)
    critic = PatchCritic(8, layers).double()
    plain = plain_critic(critic)
    for _ in range(3):  # each time with the power iterations of the last
        crops = [torch.randn(1, 3, 26, 31, dtype=torch.float64) for _ in range(4)]
        expected = torch.cat([plain(crop) for crop in crops]).flatten(1)
        verdicts = critic(torch.cat(crops[:1]), torch.cat(crops[1:]))
        assert verdicts.shape == (4, 20 * 25)
        torch.testing.assert_close(verdicts, expected, atol=1e-12, rtol=0)


def test_gradients_go_to_given_crops_and_come_from_taught_ones():
    torch.manual_seed(0)
    critic = PatchCritic(channels=8).double()
    plain = plain_critic(critic)
    crops = torch.randn(3, 3, 20, 20, dtype=torch.float64)
    given, taught = (part.clone().requires_grad_() for part in (crops[:1], crops[1:]))
    weight = torch.randn(3, 14 * 14, dtype=torch.float64)
    (critic(given, taught) * weight).sum().backward()
    assert taught.grad is None

    crop = crops[:1].clone().requires_grad_()
    (plain(crop).flatten(1) * weight[:1]).sum().backward()
    torch.testing.assert_close(given.grad, crop.grad, atol=1e-12, rtol=1e-9)
    plain.zero_grad()
    sum((plain(crops[i : i + 1]).flatten(1) * weight[i]).sum() for i in (1, 2)).backward()
    convs = [layer for layer in plain if isinstance(layer, torch.nn.Conv2d)]
    expected = [conv.parametrizations.weight.original.grad.flatten(1) for conv in convs]
    ours = [*critic.first.weight.grad, *critic.inner.weight.grad, critic.last.grad]
    for gradient, other in zip(ours, expected, strict=True):
        assert other.abs().max() > 0
        torch.testing.assert_close(gradient, other, atol=1e-12, rtol=1e-9)


def test_what_the_critic_leaves_out_changes_no_verdict():
    torch.manual_seed(0)
    critic = PatchCritic(channels=8).double()
    plain = plain_critic(critic)
    with torch.no_grad():
        for layer in list(plain)[:-2]:
            if isinstance(layer, torch.nn.Conv2d):
                layer.bias.normal_()
    crop = torch.randn(1, 3, 20, 20, dtype=torch.float64)
    torch.testing.assert_close(critic(crop, crop[:0]), plain(crop).flatten(1), atol=1e-12, rtol=0)


def test_critic_follows_the_spectral_norms_of_its_weights():
    torch.manual_seed(0)
    critic = PatchCritic(channels=8)
    for matrices in (critic.first, critic.inner):
        norms = matrices.norms(2, 30)
        assert norms.shape == (len(matrices.weight), 32, 1, 1)
        expected = torch.linalg.matrix_norm(matrices.weight.detach(), 2)
        torch.testing.assert_close(norms[:, -1, 0, 0].detach(), expected, atol=0, rtol=0.02)
