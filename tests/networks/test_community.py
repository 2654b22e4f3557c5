"""Networks of other architectures through spandrel, against what they compute, written here with functions."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import nearest, save_compact
from hydra.utils import get_class, instantiate
from PIL import Image
from safetensors.torch import save_file
from spandrel import ModelLoader
from torch import nn

from realsr import Tiles, load_model, upscale
from realsr.networks.community import scale_of, untold_options
from realsr.networks.rrdb import RRDBNet
from realsr.networks.weights import generator_spec, load_generator, load_weights, read_checkpoint
from realsr.runtime.errors import InputError
from realsr.upscaling.export_generator import export


def compact_state(scale=4, channels=3, features=6):
    """Real-ESRGAN's compact network (SRVGGNetCompact): convolutions and PReLUs by turns."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for index, (inputs, outputs) in enumerate([(channels, features), *[(features, features)] * 2]):
        state[f"body.{2 * index}.weight"] = 0.3 * torch.randn(outputs, inputs, 3, 3, generator=generator)
        state[f"body.{2 * index}.bias"] = 0.1 * torch.randn(outputs, generator=generator)
        state[f"body.{2 * index + 1}.weight"] = torch.rand(outputs, generator=generator)
    state["body.6.weight"] = 0.05 * torch.randn(channels * scale**2, features, 3, 3, generator=generator)
    state["body.6.bias"] = torch.zeros(channels * scale**2)
    return state


def compact_output(state, lr, scale):
    x = lr
    for index in (0, 2, 4):
        x = F.conv2d(x, state[f"body.{index}.weight"], state[f"body.{index}.bias"], padding=1)
        x = F.prelu(x, state[f"body.{index + 1}.weight"])
    x = F.pixel_shuffle(F.conv2d(x, state["body.6.weight"], state["body.6.bias"], padding=1), scale)
    return (x + F.interpolate(lr, scale_factor=float(scale), mode="nearest")).clamp(0, 1)


FILES = {
    "bare": lambda s: s,
    "params": lambda s: {"params": s},
    "params_ema": lambda s: {"params": {k: torch.zeros_like(v) for k, v in s.items()}, "params_ema": s},
    "model": lambda s: {"model": s},
    "data-parallel": lambda s: {f"module.{k}": v for k, v in s.items()},
}


def test_weights_that_are_not_finite_are_refused(tmp_path):
    state = compact_state()
    state["body.2.bias"][1] = torch.nan
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(InputError, match=r"net.pth: its weights body.2.bias are NaN or infinite"):
        load_generator(tmp_path / "net.pth")


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("name", FILES)
def test_a_published_network_gives_its_output(tmp_path, name, scale):
    state = compact_state(scale)
    torch.save(FILES[name](state), tmp_path / "net.pth")
    network = load_generator(tmp_path / "net.pth")
    assert (network.scale, network.training) == (scale, False)
    lr = torch.rand(1, 3, 7, 5)
    expected = compact_output(state, lr, scale)
    assert (expected - F.interpolate(lr, scale_factor=float(scale))).abs().mean() > 0.05
    torch.testing.assert_close(network(lr), expected, atol=1e-5, rtol=0)


def test_half_precision_weights_become_single(tmp_path):
    half = {k: v.half() for k, v in compact_state().items()}
    save_file(half, tmp_path / "net.safetensors")
    network = load_generator(tmp_path / "net.safetensors")
    assert all(p.dtype == torch.float32 for p in network.parameters())
    lr = torch.rand(1, 3, 6, 6)
    expected = compact_output({k: v.float() for k, v in half.items()}, lr, 4)
    torch.testing.assert_close(network(lr), expected, atol=1e-5, rtol=0)


class X2(RRDBNet):
    """Real-ESRGAN's x2 network: RRDBNet on four neighbours at once."""

    def __init__(self):
        super().__init__(8, 1, 32)
        self.conv_first = nn.Conv2d(12, 8, 3, padding=1)

    def forward(self, lr):
        return super().forward(F.pixel_unshuffle(lr, 2))


def test_sizes_that_a_network_does_not_take_are_padded(tmp_path):
    torch.manual_seed(0)
    reference = X2()
    torch.save({"params_ema": reference.state_dict()}, tmp_path / "x2.pth")
    network = load_generator(tmp_path / "x2.pth")
    assert network.scale == 2
    lr = torch.rand(1, 3, 7, 11)
    with torch.no_grad():
        expected = reference(F.pad(lr, (0, 1, 0, 1), mode="reflect"))[..., :14, :22].clamp(0, 1)
    torch.testing.assert_close(network(lr), expected, atol=1e-5, rtol=0)


def test_photos_are_upscaled_in_tiles_by_the_scale_of_the_network(tmp_path):
    state = compact_state(scale=2)
    torch.save(state, tmp_path / "net.pth")
    rgb = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    sr = np.asarray(upscale(Image.fromarray(rgb), load_model(tmp_path / "net.pth"), tiles=Tiles(16, 8)))
    lr = torch.from_numpy(rgb).permute(2, 0, 1)[None] / 255
    expected = compact_output(state, lr, 2)[0].permute(1, 2, 0).numpy() * 255
    assert sr.shape == (80, 100, 3)
    assert np.abs(sr - expected).max() < 0.501


def complaint(path):
    with pytest.raises(InputError) as caught:
        load_generator(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message


UNKNOWN = {"model.conv1.weight_g": torch.ones(4, 1, 1, 1), "model.conv1.weight_v": torch.ones(4, 3, 5, 5)}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (UNKNOWN, "nor any that spandrel knows (its keys: model.conv1.weight_g, model.conv1.weight_v ...)"),
        (
            compact_state(scale=1),
            "holds a RealESRGAN Compact for restoration; only those that enlarge photos are taken",
        ),
        (compact_state(channels=1), "holds a RealESRGAN Compact for 1 channels; RGB images have 3"),
        ({k: v for k, v in compact_state().items() if k != "body.2.weight"}, "spandrel cannot build it"),
        ({"body.0.weight": torch.ones(1), "body.1.weight": torch.ones(1)}, "spandrel cannot build it"),
    ],
    ids=["unknown", "no-enlarging", "gray", "damaged", "alike"],
)
def test_what_cannot_be_used_is_said_in_a_line(tmp_path, content, says):
    torch.save(content, tmp_path / "net.pth")
    assert says in complaint(tmp_path / "net.pth")


# -- trained by us ---------------------------------------------------------------------------------------------------

TINY = {  # of conf/model: small sizes
    "compact": "num_feat:8,num_conv:1",
    "span": "feature_channels:8",
    "plksr": "dim:16,n_blocks:1,kernel_size:5",
    "omnisr": "num_feat:16,res_num:1",
    "safmn": "dim:8,n_blocks:1",
    "esrgan_x2": "num_filters:8,num_blocks:1",
}


@pytest.fixture
def fit_model(fit, tiny):
    """``fit_model("name", *overrides)``: the last checkpoint of a short training of another model than ``tiny`` has."""

    def make(name, *overrides):
        tiny[:] = [option for option in tiny if not option.startswith(("model=", "model.generator="))]
        return fit("run", f"model={name}", "data.crop_size=64", *overrides) / "checkpoints" / "last.ckpt"

    return make


@pytest.mark.parametrize(
    "name", [name if name == "compact" else pytest.param(name, marks=pytest.mark.slow) for name in TINY]
)
def test_what_is_trained_is_read_back_here_and_by_spandrel_alone(fit_model, tmp_path, name):
    torch.manual_seed(0)
    # a validation lies between the steps
    steps = ["trainer.max_steps=2", "trainer.val_check_interval=1", "callbacks.last.every_n_train_steps=1"]
    ckpt = fit_model(name, f"model.generator={{{TINY[name]}}}", *steps)
    content = read_checkpoint(ckpt)
    spec, scale = content["config"]["model"]["generator"], content["config"]["scale"]
    raw, averaged = (
        {k.removeprefix(p): v for k, v in content["state_dict"].items() if k.startswith(p)}
        for p in ("generator.", "generator_ema.")
    )
    assert raw.keys() == averaged.keys() and any(not torch.equal(v, averaged[k]) for k, v in raw.items())
    trained = get_class(spec["_target_"])(**{k: v for k, v in spec.items() if k != "_target_"})
    load_weights(trained, ckpt)
    assert all(torch.equal(value, averaged[key]) for key, value in trained.state_dict().items())
    lr = torch.rand(1, 3, 16, 24)
    with torch.inference_mode():
        expected = trained.eval()(lr.clone()).clamp(0, 1)
    assert expected.shape == (1, 3, 16 * scale, 24 * scale) and expected.std() > 0.01
    back = load_generator(ckpt)
    assert (type(back.network), back.scale) == (type(trained), scale)
    assert spec.items() <= generator_spec(ckpt).items()
    alone = ModelLoader().load_from_file(export(ckpt, tmp_path / "net.safetensors"))
    assert (alone.scale, alone.purpose) == (scale, "SR")
    for network in (back, alone.eval()):
        assert torch.equal(network(lr.clone()), expected)


def test_a_published_network_for_x2_is_trained_on(fit_model, tmp_path):
    """By BasicSR's names, of which spandrel's class has none."""
    torch.manual_seed(0)
    torch.save({"params_ema": X2().state_dict()}, tmp_path / "x2.pth")
    ckpt = fit_model("esrgan_x2", f"start.weights={tmp_path / 'x2.pth'}", "model.optimizer.lr=0")
    lr = torch.rand(1, 3, 8, 12)
    assert torch.equal(load_generator(ckpt)(lr), load_generator(tmp_path / "x2.pth")(lr))


@pytest.mark.parametrize(("name", "scale"), [*itertools.product(list(TINY)[:-1], (2, 3, 4)), ("esrgan_x2", 2)])
def test_by_how_much_a_network_enlarges_is_found(compose, name, scale):
    options = [f"model={name}", f"scale={scale}", f"model.generator={{{TINY[name]}}}", "data.source_dir=x"]
    generator = instantiate(compose("train", *options).model.generator)
    assert scale_of(generator) == scale
    assert all(parameter.device.type == "cpu" for parameter in generator.parameters())


def test_networks_of_spandrels_architectures_may_be_named_and_nothing_else_of_it(tmp_path):
    path = save_compact(nearest(), tmp_path / "net.ckpt")
    lr = torch.rand(1, 3, 5, 7)
    assert torch.equal(load_generator(path)(lr), F.interpolate(lr, scale_factor=4.0))
    content = read_checkpoint(path)
    for target in ("spandrel.util.get_seq_len", "spandrel.ModelLoader", "spandrel.architectures", "os.system"):
        content["config"]["model"]["generator"] = {"_target_": target}
        torch.save(content, path)
        assert f"its generator '{target}' is none of realsr.networks" in complaint(path)


def test_options_that_weights_do_not_tell_are_found():
    compact = get_class("spandrel.architectures.Compact.Compact")
    assert untold_options(compact(num_feat=4, num_conv=1)) == []
    with pytest.raises(InputError, match=r"what model\.generator would save: holds no generator"):
        untold_options(compact(num_feat=4, num_conv=1, act_type="leakyrelu"))
    span = get_class("spandrel.architectures.SPAN.SPAN")
    assert untold_options(span(num_in_ch=3, num_out_ch=3, feature_channels=4, upscale=2, norm=False)) == []
    assert untold_options(span(num_in_ch=3, num_out_ch=3, feature_channels=4, upscale=2, img_range=1.0)) == [
        "img_range=1.0"
    ]
    assert untold_options(RRDBNet(4, 1, 4)) == []
