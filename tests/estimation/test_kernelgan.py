import copy

import pytest
import torch
from benchmarks.bench_kernelgan import PlainKernelGAN, exact, fit, pairs, plain_critic
from conftest import scene

from realsr.estimation.kernelgan.losses import bicubic_matrix, bicubic_target, boundary_mask
from realsr.estimation.kernelgan.module import BLOCK, KernelGAN
from realsr.imaging.resample import imresize

LOSSES = {  # the reference program's names and ours
    "bicubic": "bicubic",
    "sum2one": "sum",
    "boundaries": "boundary",
    "centralized": "centre",
    "sparse": "sparsity",
}


def generator_name(key):
    """The reference program's name of a filter to ours."""
    order = ["first_layer.weight", *(f"feature_block.{i}.weight" for i in range(4)), "final_layer.weight"]
    return f"filters.{order.index(key)}"


def critic_name(key):
    layer, _, what = key.rpartition(".")
    if layer == "first_layer":
        index = 0
    elif layer == "final_layer.0":
        index = 16
    else:
        index = 1 + int(layer.split(".")[1])
    spectral = {"weight_orig": "original", "weight_u": "0._u", "weight_v": "0._v"}
    what = f"parametrizations.weight.{spectral[what]}" if what in spectral else what
    return f"{index}.{what}"


@pytest.fixture
def step(golden):
    """The reference step's values, and our module with the same weights after the same forward pass.

    The reference critic judged with its running statistics, which ours does not have; the plain one does.
    """
    data = {name: torch.from_numpy(value) for name, value in golden("kernelgan_step.npz").items()}
    module = KernelGAN(channels=16, mixed_colours=True)
    module.generator.load_state_dict({generator_name(k[2:]): v for k, v in data.items() if k.startswith("G/")})
    critic = plain_critic(module.critic).eval()
    critic.load_state_dict({critic_name(k[2:]): v for k, v in data.items() if k.startswith("D/")})
    module.constrained = True
    kernel = module.generator.kernel()
    fake = module.generator(data["g_input"], kernel)
    verdict = critic(fake)
    return data, module, kernel, fake, verdict, generator_losses(module, data["g_input"], kernel, fake, verdict)


def generator_losses(module, crop, kernel, fake, verdict):
    target = bicubic_target(crop, module.bicubic, module.mixed_colours)
    return module.generator_losses(kernel, fake, target, verdict.mean())


def test_outputs_are_those_of_the_reference_program(step):
    data, _, kernel, fake, verdict, _ = step
    torch.testing.assert_close(kernel, data["kernel"], atol=1e-5, rtol=0)
    torch.testing.assert_close(fake, data["g_output"], atol=1e-5, rtol=0)
    torch.testing.assert_close(verdict, data["d_output"], atol=1e-5, rtol=0)


def test_losses_are_those_of_the_reference_program(step):
    data, *_, ours = step
    assert ours["adversarial"].item() == pytest.approx(data["gan"].item(), abs=1e-5)
    for theirs, name in LOSSES.items():
        assert ours[name].item() == pytest.approx(data[f"loss/{theirs}"].item(), abs=1e-5, rel=1e-5), name
    assert ours["total"].item() == pytest.approx(data["total"].item(), rel=1e-5)


def test_gradients_are_those_of_the_reference_program(step):
    data, module, *_, ours = step
    ours["total"].backward()
    gradients = {name: parameter.grad for name, parameter in module.generator.named_parameters()}
    for key, expected in data.items():
        if key.startswith("grad/"):
            ours = gradients.pop(generator_name(key[5:]))
            assert expected.abs().max() > 0
            torch.testing.assert_close(ours, expected, atol=1e-3 * expected.abs().max().item(), rtol=0)
    assert not gradients


def test_the_papers_bicubic_target_keeps_colours_apart(step):
    data, module, kernel, fake, verdict, mixed = step
    module.mixed_colours = False
    gray = data["g_input"].mean(1, keepdim=True).expand_as(data["g_input"])
    apart = generator_losses(module, data["g_input"], kernel, fake, verdict)
    assert apart["bicubic"].item() != pytest.approx(mixed["bicubic"].item(), rel=0.01)
    # gray input: each channel is the same problem, so one channel's error is that of all
    three = generator_losses(module, gray, kernel, module.generator(gray), verdict)["bicubic"]
    one = generator_losses(module, gray[:, :1], kernel, module.generator(gray[:, :1]), verdict)["bicubic"]
    torch.testing.assert_close(three, one)


def test_boundary_mask_is_that_of_the_reference_program(golden):
    expected = torch.from_numpy(golden("kernelgan_step.npz")["boundaries_mask"])
    torch.testing.assert_close(boundary_mask(13), expected, atol=1e-5, rtol=0)
    assert expected.max() > 1


def test_centre_and_sparsity_wait_for_the_schedule(step):
    _, module, kernel, fake, verdict, ours = step
    module.constrained = False
    early = generator_losses(module, step[0]["g_input"], kernel, fake, verdict)
    expected = ours["total"] - ours["centre"] - 5 * ours["sparsity"]
    torch.testing.assert_close(early["total"], expected)


@pytest.mark.parametrize("scale, crop, out_size", [(2, 64, 26), (2, 67, 28), (3, 60, 16), (4, 64, 13)])
def test_bicubic_target_is_the_centre_of_the_bicubic_downscale(scale, crop, out_size):
    image = torch.randn(2, 3, crop, crop, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    small = imresize(image, 1 / scale)
    cut = (small.shape[-1] - out_size) // 2
    expected = small[..., cut : cut + out_size, cut : cut + out_size]
    ours = bicubic_target(image, bicubic_matrix(crop, out_size, scale), mixed_colours=False)
    torch.testing.assert_close(ours, expected, atol=1e-12, rtol=0)


def run_schedule(module, bicubic):
    """Weight of the bicubic loss and whether the constraints count, after every block, with these bicubic losses."""
    after = []
    for start in range(0, len(bicubic), BLOCK):
        module._update_weights(bicubic[start : start + BLOCK])
        after.append((module.bicubic_weight, module.constrained))
    return after


def test_schedule_of_the_bicubic_weight():
    after = run_schedule(KernelGAN(channels=2), [1.0, 0.3, 0.3, 0.5, 0.3, 0.3, 0.3, *[9.0] * 1143])
    expected = [5e-2, 5e-4, 5e-6, 5e-6, 5e-6, 5e-6]  # divided by a hundred every 200 iterations
    assert [weight for weight, _ in after] == pytest.approx([*expected[:5], 5e-6])
    assert [constrained for _, constrained in after] == [False, *[True] * 5]
    assert BLOCK == 200


@pytest.mark.parametrize("losses", [[1.0], [0.3, 0.3, 0.5], [0.4]])
def test_schedule_waits_for_three_agreements_in_a_row(losses):
    assert run_schedule(KernelGAN(channels=2), losses * 600)[-1] == (5.0, False)


def test_three_agreements_may_lie_in_two_blocks_and_count_from_the_next_iteration():
    assert run_schedule(KernelGAN(channels=2), [9.0] * 199 + [0.3] * 2 + [9.0] * 199)[-1] == (5.0, False)
    after = run_schedule(KernelGAN(channels=2), [9.0] * 198 + [0.3] * 3 + [9.0] * 199)
    assert [weight for weight, _ in after] == [5.0, 0.05]
    late = run_schedule(KernelGAN(channels=2), [9.0] * 197 + [0.3] * 3)
    assert late == [(5.0, False)]  # the 200th iteration completes them, so the change is that of the 400th


def test_learning_rates_fall_by_ten_every_750_steps():
    module = KernelGAN(channels=2)
    (optimizer,), (scheduler,) = module.configure_optimizers()
    assert {id(p) for p in optimizer.param_groups[0]["params"]} == {id(p) for p in module.parameters()}
    assert optimizer.defaults["betas"] == (0.5, 0.999)
    rates = []
    for _ in range(1600):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert [rates[i] for i in (0, 749, 750, 1499, 1500)] == pytest.approx([2e-4, 2e-4, 2e-5, 2e-5, 2e-6])


@pytest.mark.parametrize("constrained", [False, True])
@pytest.mark.parametrize("scale, crop", [(2, 64), (3, 61)])
def test_training_is_that_of_the_plain_formulation(constrained, scale, crop):
    module = exact(scale=scale, crop=crop, channels=16)
    module.constrained = constrained
    plain = PlainKernelGAN(copy.deepcopy(module))
    # the gradient of sparsity has poles, so that rounding errors grow
    crops = pairs(module, scene(120, 100).double(), 10 if constrained else 40)
    before = module.kernel()
    fit(module, crops)
    plain.train(crops)
    assert abs(module.kernel() - before).max() > 0.01 * abs(before).max()
    torch.testing.assert_close(torch.from_numpy(module.kernel()), plain.kernel().detach(), atol=1e-11, rtol=0)
    for ours, theirs in zip(module.generator.filters, plain.generator.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=0)
    ours = {name: weight.detach() for name, weight in module.critic.named_parameters()}
    theirs = plain_weights(plain.critic)
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        torch.testing.assert_close(weight, theirs[name], atol=1e-9, rtol=0, msg=name)


def plain_weights(critic):
    """The weights of the plain critic in our layout."""
    convs = [layer for layer in critic if isinstance(layer, torch.nn.Conv2d)]
    norms = [layer for layer in critic if isinstance(layer, torch.nn.BatchNorm2d)]
    weights = [conv.parametrizations.weight.original.detach().flatten(1) for conv in convs]
    return {
        "first.weight": weights[0][None],
        "inner.weight": torch.stack(weights[1:-1]),
        "last": weights[-1],
        "bias": convs[-1].bias.detach(),
        "gain": torch.stack([norm.weight.detach() for norm in norms]),
        "shift": torch.stack([norm.bias.detach() for norm in norms]),
    }


def train(iterations=8, **options):
    module = KernelGAN(iterations=iterations, channels=4, **options)
    crops = pairs(module, scene(120, 100), iterations)
    before = crops.image.clone(), [p.detach().clone() for p in module.parameters()]
    fit(module, crops)
    return module, crops, before


def test_training_moves_both_players_and_leaves_the_photo_alone():
    module, crops, (image, parameters) = train()
    assert torch.equal(crops.image, image)
    for (name, now), before in zip(module.named_parameters(), parameters, strict=True):
        assert not torch.equal(now, before), name
    assert module.iterations_done == 8
    assert not any(loss.requires_grad for loss in module.losses.values())
    assert {"adversarial", "bicubic", "sum", "boundary", "centre", "sparsity", "critic", "total"} == set(module.losses)


def test_the_players_losses_move_each_its_own_player():
    module = KernelGAN(channels=4)
    crop, target, real = (torch.rand(1, 3, size, size) for size in (64, 26, 26))
    losses = module.both_losses(crop, target, real, torch.zeros(2, 3, 26, 26))
    players = list(module.generator.parameters()), list(module.critic.parameters())
    for name, own, other in (("total", *players), ("critic", *reversed(players))):
        gradients = torch.autograd.grad(losses[name], own + other, retain_graph=True, allow_unused=True)
        assert all(gradient.abs().sum() > 0 for gradient in gradients[: len(own)]), name
        assert all(gradient is None or not gradient.any() for gradient in gradients[len(own) :]), name


def test_the_critics_noise_is_fresh_and_the_generators_input_clean(monkeypatch):
    seen = []
    both_losses = KernelGAN.both_losses

    def spy(module, g_crop, target, d_crop, noise):
        seen.append((g_crop, d_crop, noise))
        return both_losses(module, g_crop, target, d_crop, noise)

    monkeypatch.setattr(KernelGAN, "both_losses", spy)
    _, crops, _ = train(iterations=8)
    assert len(seen) == 8
    for (g_crop, d_crop, _), (g_expected, d_expected) in zip(seen, crops, strict=True):
        assert torch.equal(g_crop[0], g_expected) and torch.equal(d_crop[0], d_expected)
    noise = torch.stack([noise for _, _, noise in seen]).flatten(0, 1)
    assert len(noise.flatten(1).unique(dim=0)) == 16
    assert noise.std().item() == pytest.approx(1 / 255, rel=0.05)
    assert abs(noise.mean().item()) < 4 / 255 / noise.numel() ** 0.5


def settle(iterations=170, **options):
    """How many iterations a training took whose kernel moves by the learning rate alone."""
    module = KernelGAN(iterations=iterations, channels=2, crop=27, **options)
    module.agreements = 3
    fit(module, pairs(module, scene(120, 100), iterations))
    return module.iterations_done


def test_training_ends_when_the_kernel_has_settled(monkeypatch):
    for module in ("realsr.estimation.kernelgan.module", "benchmarks.bench_kernelgan"):
        monkeypatch.setattr(f"{module}.BLOCK", 50)
    assert settle(settled=0.02, learning_rate=0.0) == 150  # the constraints count after two blocks
    assert settle(settled=0, learning_rate=0.0) == 170
    assert settle(settled=1e-9) == 170
