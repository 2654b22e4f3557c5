import pytest
import torch
from conftest import scene
from pytorch_lightning import Trainer
from torch.utils.data import DataLoader

from realsr.estimators.crops import CropPairs
from realsr.estimators.kernelgan.losses import boundary_mask
from realsr.estimators.kernelgan.module import KernelGAN

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
    return f"model.{index}.{what}"


@pytest.fixture
def step(golden):
    """The reference step's values, and our module with the same weights after the same forward pass."""
    data = {name: torch.from_numpy(value) for name, value in golden("kernelgan_step.npz").items()}
    module = KernelGAN(channels=16, mixed_colours=True)
    module.generator.load_state_dict({generator_name(k[2:]): v for k, v in data.items() if k.startswith("G/")})
    module.critic.load_state_dict({critic_name(k[2:]): v for k, v in data.items() if k.startswith("D/")})
    module.critic.eval()
    module.constrained = True
    kernel = module.generator.kernel()
    fake = module.generator(data["g_input"], kernel)
    verdict = module.critic(fake)
    ours = module.generator_losses(data["g_input"], kernel, fake, verdict)
    return data, module, kernel, fake, verdict, ours


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
    apart = module.generator_losses(data["g_input"], kernel, fake, verdict)
    assert apart["bicubic"].item() != pytest.approx(mixed["bicubic"].item(), rel=0.01)
    # gray input: each channel is the same problem, so one channel's error is that of all
    three = module.generator_losses(gray, kernel, module.generator(gray), verdict)["bicubic"]
    one = module.generator_losses(gray[:, :1], kernel, module.generator(gray[:, :1]), verdict)["bicubic"]
    torch.testing.assert_close(three, one)


def test_boundary_mask_is_that_of_the_reference_program(golden):
    expected = torch.from_numpy(golden("kernelgan_step.npz")["boundaries_mask"])
    torch.testing.assert_close(boundary_mask(13), expected, atol=1e-5, rtol=0)
    assert expected.max() > 1


def test_centre_and_sparsity_wait_for_the_schedule(step):
    _, module, kernel, fake, verdict, ours = step
    module.constrained = False
    early = module.generator_losses(step[0]["g_input"], kernel, fake, verdict)
    expected = ours["total"] - ours["centre"] - 5 * ours["sparsity"]
    torch.testing.assert_close(early["total"], expected)


def run_schedule(module, bicubic):
    """Weights of the bicubic loss and the constraints after each iteration with the given bicubic losses."""
    after = {}
    for iteration, loss in enumerate(bicubic, start=1):
        module.losses = {"bicubic": torch.tensor(loss)}
        module._update_weights(iteration)
        after[iteration] = (module.bicubic_weight, module.constrained)
    return after


def test_schedule_of_the_bicubic_weight():
    after = run_schedule(KernelGAN(channels=2), [1.0, 0.3, 0.3, 0.5, 0.3, 0.3, 0.3, *[9.0] * 1000])
    for iteration, (weight, constrained) in after.items():
        steps = iteration // 200
        assert weight == pytest.approx(max(5 / 100**steps, 5e-6))
        assert constrained == (weight < 5e-3) == (iteration >= 400)
    assert after[1000] == (5e-6, True)


@pytest.mark.parametrize("losses", [[1.0], [0.3, 0.3, 0.5], [0.4]])
def test_schedule_waits_for_three_agreements_in_a_row(losses):
    after = run_schedule(KernelGAN(channels=2), losses * 600)
    assert after[600] == (5.0, False)


def test_learning_rates_fall_by_ten_every_750_steps():
    module = KernelGAN(channels=2)
    optimizers, schedulers = module.configure_optimizers()
    assert [len(o.param_groups[0]["params"]) for o in optimizers] == [6, len(list(module.critic.parameters()))]
    for optimizer, scheduler in zip(optimizers, schedulers, strict=True):
        assert optimizer.defaults["betas"] == (0.5, 0.999)
        rates = []
        for _ in range(1600):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        assert [rates[i] for i in (0, 749, 750, 1499, 1500)] == pytest.approx([2e-4, 2e-4, 2e-5, 2e-5, 2e-6])


def train(iterations=8, **options):
    module = KernelGAN(iterations=iterations, channels=4, **options)
    crops = CropPairs(scene(120, 100), iterations, module.crop, module.output_size, module.scale, seed=0)
    before = crops.image.clone(), [p.detach().clone() for p in module.parameters()]
    trainer = Trainer(barebones=True, max_epochs=1, accelerator="cpu")
    trainer.fit(module, DataLoader(crops, batch_size=1))
    return module, crops, before


def test_training_moves_both_players_and_leaves_the_photo_alone():
    module, crops, (image, parameters) = train()
    assert torch.equal(crops.image, image)
    for (name, now), before in zip(module.named_parameters(), parameters, strict=True):
        assert not torch.equal(now, before), name
    assert all(p.requires_grad for p in module.parameters())
    assert {"adversarial", "bicubic", "sum", "boundary", "centre", "sparsity", "critic", "total"} == set(module.losses)


def test_the_critics_noise_is_fresh_and_not_put_into_its_input():
    module, crops, _ = train(iterations=1)
    crop = crops[0][1]
    before = crop.clone()
    noise = [module._noisy(crop) - crop for _ in range(2)]
    assert torch.equal(crop, before)
    assert not torch.equal(*noise)
    for sample in noise:
        assert sample.std().item() == pytest.approx(1 / 255, rel=0.1)
        assert abs(sample.mean().item()) < 4 / 255 / sample.numel() ** 0.5


def test_seed_decides_the_initial_weights():
    state = torch.random.get_rng_state()
    weights = [KernelGAN(channels=4, seed=seed).generator.filters[0].detach() for seed in (1, 1, 2)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert torch.equal(torch.random.get_rng_state(), state)
