"""The backbones' ImageNet weights are not at hand in tests: random ones of the right shapes stand in for them."""

from urllib.error import URLError

import lpips
import pytest
import torch
import torchvision
from torch import nn

from realsr.networks.perceptual import BACKBONES, LPIPSLoss, VGGLoss, load_lpips
from realsr.runtime.errors import InputError

NETS = ["alex", "squeeze"]  # vgg is the same code and half a gigabyte


def stand_in(name):
    """A torchvision classifier's state that keeps the signal alive through every layer, with biases."""
    torch.manual_seed(0)
    model = getattr(torchvision.models, name)()
    for module in model.features.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
            nn.init.uniform_(module.bias, -0.1, 0.1)
    return {k: v for k, v in model.state_dict().items() if k.startswith("features.")}


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """``backbone(name)``: the stand-in's state and its file."""
    folder, made = tmp_path_factory.mktemp("backbones"), {}

    def get(name):
        if name not in made:
            made[name] = stand_in(name), str(folder / f"{name}.pth")
            torch.save(*made[name])
        return made[name]

    return get


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(2, 3, 64, 72, generator=generator) for _ in range(2)]


@pytest.fixture
def no_net(monkeypatch):
    def refuse(*args, **kwargs):
        raise URLError("Name or service not known")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", refuse)


def conv5_4(state, image):
    """VGG19 by hand: 16 convolutions, pooled after the 2nd, 4th, 8th and 12th; the 16th without its ReLU."""
    x = torchvision.transforms.functional.normalize(image, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    layers = sorted({int(key.split(".")[1]) for key in state})
    for count, layer in enumerate(layers, start=1):
        x = nn.functional.conv2d(x, state[f"features.{layer}.weight"], state[f"features.{layer}.bias"], padding=1)
        if count == 16:
            return x
        x = x.relu()
        if count in (2, 4, 8, 12):
            x = nn.functional.max_pool2d(x, 2)


def test_vgg_loss_is_the_l1_of_conv5_4_before_its_relu(backbone, images):
    state, file = backbone("vgg19")
    with torch.no_grad():
        sr, hr = (conv5_4(state, image) for image in images)
        assert (sr < 0).any()  # else the ReLU would not matter
        torch.testing.assert_close(VGGLoss(file)(*images), (sr - hr).abs().mean(), atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:::torchvision")  # about the arguments that lpips uses
@pytest.mark.parametrize("net", NETS)
def test_lpips_loss_is_the_packages_own_distance(backbone, images, monkeypatch, net):
    state, file = backbone(BACKBONES[net])
    whole = getattr(torchvision.models, BACKBONES[net])().state_dict() | state
    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", lambda *args, **kwargs: whole)
    theirs = lpips.LPIPS(net=net, verbose=False)  # with the "download" above
    with torch.no_grad():
        expected = theirs(*images, normalize=True).mean()  # normalize: from [0, 1]
        assert expected > 1e-3
        torch.testing.assert_close(LPIPSLoss(net, file)(*images), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("net", NETS)
def test_lpips_of_equal_images_is_zero(backbone, images, net):
    assert LPIPSLoss(net, backbone(BACKBONES[net])[1])(images[0], images[0]) == 0


CASES = [(VGGLoss, "vgg19"), *((lambda file, net=net: LPIPSLoss(net, file), BACKBONES[net]) for net in NETS)]
cases = pytest.mark.parametrize("build, name", CASES, ids=["VGGLoss", *NETS])


@cases
def test_gradients_reach_sr_alone_and_nothing_trains(backbone, images, build, name):
    loss = build(backbone(name)[1])
    sr = images[0].requires_grad_()
    loss(sr, images[1]).backward()
    assert sr.grad.isfinite().all() and sr.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in loss.parameters())
    assert not any(module.training for module in loss.modules())


def test_vgg_gives_hr_no_gradient(backbone, images):
    hr = images[1].requires_grad_()
    value = VGGLoss(backbone("vgg19")[1])(images[0].requires_grad_(), hr)
    assert torch.autograd.grad(value, hr, allow_unused=True) == (None,)


@cases
def test_features_alone_are_a_backbone_too(tmp_path, backbone, images, build, name):
    state, file = backbone(name)
    torch.save({k.removeprefix("features."): v for k, v in state.items()}, tmp_path / "features.pth")
    with torch.no_grad():
        assert torch.equal(build(file)(*images), build(str(tmp_path / "features.pth"))(*images))


@cases
@pytest.mark.parametrize("wrong", ["another", "missing", "text", "cut"])
def test_a_wrong_backbone_file_is_an_input_error(tmp_path, backbone, build, name, wrong):
    path = tmp_path / "backbone.pth"
    state = dict(backbone(name)[0])
    if wrong == "another":
        torch.save(torchvision.models.squeezenet1_0().state_dict(), path)
    elif wrong == "cut":
        state.pop(list(state)[-1])
        torch.save(state, path)
    elif wrong == "text":
        path.write_text("not found")
    with pytest.raises(InputError, match=r"backbone\.pth") as caught:
        build(str(path))
    assert "\n" not in str(caught.value)
    if wrong in ("another", "cut"):
        assert f"is not torchvision's {name}: features." in str(caught.value)


@cases
def test_a_missing_download_says_which_file_goes_where(no_net, build, name):
    where = rf"download https.*/{name}-.+pth elsewhere and put the file into /.+"
    with pytest.raises(InputError, match=rf"cannot download the {name} weights .* {where}"):
        build(None)


def test_building_leaves_the_global_random_state_alone(backbone):
    before = torch.random.get_rng_state()
    VGGLoss(backbone("vgg19")[1])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_unknown_lpips_network():
    with pytest.raises(InputError, match="no backbone 'resnet'; choose one of alex, vgg, squeeze"):
        LPIPSLoss("resnet")
    with pytest.raises(InputError, match="no backbone 'resnet'"):
        load_lpips("resnet")


def test_lpips_is_left_out_with_one_line_where_it_cannot_be_downloaded(no_net, caplog):
    assert load_lpips("alex") is None
    (record,) = caplog.records
    message = record.getMessage()
    assert message.startswith("LPIPS by alex is left out: ") and "service not known" in message and "\n" not in message


def test_a_given_lpips_file_is_taken_or_refused(tmp_path, backbone):
    assert isinstance(load_lpips("squeeze", backbone("squeezenet1_1")[1]), LPIPSLoss)
    torch.save({"features.0.weight": torch.ones(3)}, tmp_path / "wrong.pth")
    with pytest.raises(InputError, match="is not torchvision's alexnet"):
        load_lpips("alex", str(tmp_path / "wrong.pth"))
    with pytest.raises(InputError, match="no such checkpoint"):
        load_lpips("alex", str(tmp_path / "missing.pth"))
