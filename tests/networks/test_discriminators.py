import pytest
import torch

from realsr.networks.patch import PatchDiscriminator
from realsr.networks.vgg128 import VGGDiscriminator
from realsr.runtime.errors import InputError


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_patch_output_is_that_of_the_reference_network(golden, mode):
    data = {name: torch.from_numpy(value) for name, value in golden("patch_discriminator.npz").items()}
    network = PatchDiscriminator(features=8)
    network.load_state_dict({k.removeprefix("state/"): v for k, v in data.items() if k.startswith("state/")})
    network.train(mode == "train")
    with torch.no_grad():
        torch.testing.assert_close(network(data["x"]), data[f"y_{mode}"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("layers, field", [(3, 70), (2, 34), (1, 16)])
def test_a_patch_logit_sees_its_receptive_field(layers, field):
    torch.manual_seed(0)
    network = PatchDiscriminator(features=2, layers=layers).double().eval()
    image = torch.rand(1, 3, 160, 160, dtype=torch.float64, requires_grad=True)
    logits = network(image)
    logits[0, 0, logits.shape[2] // 2, logits.shape[3] // 2].backward()
    seen = image.grad[0].abs().sum(0) > 0
    for axis in (0, 1):
        touched = seen.any(axis).nonzero()
        assert touched.max() - touched.min() + 1 == field


def test_vgg_output_is_that_of_the_reference_network(golden):
    reference = golden("vgg128_discriminator.json")
    network = VGGDiscriminator()
    state = {k.removeprefix("features."): list(v.shape) for k, v in network.state_dict().items()}
    assert state == reference["keys"]
    # filled as the golden's `how` says
    for p, parameter in enumerate(network.parameters()):
        i = torch.arange(parameter.numel(), dtype=torch.float64)
        parameter.data = (0.05 * torch.sin(0.37 * i + p)).float().view(parameter.shape)
    i = torch.arange(2 * 3 * 128 * 128, dtype=torch.float64)
    x = (0.5 + 0.5 * torch.sin(0.013 * i)).view(2, 3, 128, 128)
    x[1] = 1 - x[1] ** 2
    with torch.no_grad():
        y = network(x.float())
    torch.testing.assert_close(y, torch.tensor(reference["y"]).view(2, 1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [32, 96, 160])
def test_vgg_is_built_for_other_crop_sizes(size):
    network = VGGDiscriminator(features=2, input_size=size)
    assert network(torch.rand(2, 3, size, size)).shape == (2, 1)


@pytest.mark.parametrize("size", [0, 16, 100, 127])
def test_vgg_refuses_sizes_it_cannot_halve_five_times(size):
    with pytest.raises(InputError, match=f"multiple of 32, not {size}; set data.crop_size"):
        VGGDiscriminator(input_size=size)


@pytest.mark.parametrize("height, width", [(64, 32), (32, 64), (64, 64)])
def test_vgg_refuses_crops_of_another_size(height, width):
    with pytest.raises(ValueError, match=rf"\({height}, {width}\), was built for 32"):
        VGGDiscriminator(features=2, input_size=32)(torch.rand(1, 3, height, width))
