"""EDSR and its published files, against what the paper's program does, written here with nothing but functions."""

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from realsr.networks.edsr import EDSR
from realsr.networks.weights import load_generator, load_weights
from realsr.runtime.errors import InputError

MEAN = [0.4488, 0.4371, 0.4040]


def official_shapes(features, blocks, scale=4):
    """Every key of a file of the EDSR program, with its shape."""
    f = features
    shapes = {f"{name}_mean.weight": (3, 3, 1, 1) for name in ("sub", "add")}
    shapes |= {f"{name}_mean.bias": (3,) for name in ("sub", "add")}
    convolutions = {"head.0": (f, 3), **{f"body.{i}.body.{k}": (f, f) for i in range(blocks) for k in (0, 2)}}
    convolutions[f"body.{blocks}"] = (f, f)
    steps = {2: {"tail.0.0": 4}, 3: {"tail.0.0": 9}, 4: {"tail.0.0": 4, "tail.0.2": 4}}[scale]
    convolutions |= {name: (factor * f, f) for name, factor in steps.items()}
    convolutions["tail.1"] = (3, f)
    for name, (outputs, inputs) in convolutions.items():
        shapes |= {f"{name}.weight": (outputs, inputs, 3, 3), f"{name}.bias": (outputs,)}
    return shapes


def official_state(features, blocks, scale=4, levels=255.0):
    """Random weights in such a file."""
    generator = torch.Generator().manual_seed(features + blocks)
    state = {}
    for name, shape in official_shapes(features, blocks, scale).items():
        fan_in = 9 * shape[1] if len(shape) == 4 else 9 * features
        state[name] = (2 * torch.rand(shape, generator=generator) - 1) * (3 / fan_in) ** 0.5
    for name, sign in (("sub", -1), ("add", 1)):
        state[f"{name}_mean.weight"] = torch.eye(3).view(3, 3, 1, 1)
        state[f"{name}_mean.bias"] = sign * levels * torch.tensor(MEAN)
    return state


def official_output(state, lr, residual_scale):
    """What the EDSR program computes: it takes and gives images in [0, 255]."""

    def convolve(x, name):
        weight = state[f"{name}.weight"]
        return F.conv2d(x, weight, state[f"{name}.bias"], padding=weight.shape[-1] // 2)

    blocks = len({name.split(".")[1] for name in state if name.startswith("body.")}) - 1
    x = head = convolve(convolve(255 * lr, "sub_mean"), "head.0")
    for i in range(blocks):
        x = x + residual_scale * convolve(F.relu(convolve(x, f"body.{i}.body.0")), f"body.{i}.body.2")
    x = convolve(x, f"body.{blocks}") + head
    for step in ("tail.0.0", "tail.0.2"):
        x = F.pixel_shuffle(convolve(x, step), 2)
    return convolve(convolve(x, "tail.1"), "add_mean") / 255


def basicsr(state):
    """The same weights under BasicSR's names, which has no mean in its files."""
    blocks = max(int(name.split(".")[1]) for name in state if name.startswith("body."))
    names = {"head.0": "conv_first", f"body.{blocks}": "conv_after_body", "tail.1": "conv_last"}
    names |= {"tail.0.0": "upsample.0", "tail.0.2": "upsample.2"}
    names |= {f"body.{i}.body.{k}": f"body.{i}.conv{1 + k // 2}" for i in range(blocks) for k in (0, 2)}
    return {f"{names[n]}.{kind}": state[f"{n}.{kind}"] for n in names if f"{n}.weight" in state for kind in KINDS}


KINDS = ("weight", "bias")
FILES = {
    "official": lambda s: s,
    "without-mean": lambda s: {k: v for k, v in s.items() if "_mean" not in k},
    "data-parallel": lambda s: {f"module.{k}": v for k, v in s.items()},
    "basicsr": basicsr,
    "params": lambda s: {"params": basicsr(s)},
    "mean-as-buffer": lambda s: {**basicsr(s), "mean": torch.tensor(MEAN).view(1, 3, 1, 1)},
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ["generator", "weights"])
def test_every_spelling_gives_what_the_program_of_the_paper_computes(tmp_path, name, how):
    state = official_state(features=8, blocks=3)
    torch.save(FILES[name](state), tmp_path / "edsr.pt")
    if how == "generator":
        network = load_generator(tmp_path / "edsr.pt")
        assert not network.training
    else:
        network = EDSR(8, 3)
        load_weights(network, tmp_path / "edsr.pt")
    lr = torch.rand(2, 3, 7, 9)
    expected = official_output(state, lr, residual_scale=1)
    assert expected.std() > 0.1
    with torch.no_grad():
        torch.testing.assert_close(network(lr), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("features", "residual_scale"), [(256, 0.1), (255, 1.0)])
def test_the_residual_scale_is_that_of_the_published_networks(tmp_path, features, residual_scale):
    state = official_state(features, blocks=1)
    save_file(state, tmp_path / "edsr.safetensors")
    lr = torch.rand(1, 3, 4, 5)
    with torch.no_grad():
        sr = load_generator(tmp_path / "edsr.safetensors")(lr)
    torch.testing.assert_close(sr, official_output(state, lr, residual_scale), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("features", "blocks", "tensors", "parameters"),
    [(64, 16, 16 * 4 + 2 * 5 + 4, 1_517_571), (256, 32, 32 * 4 + 2 * 5 + 4, 43_089_923)],
)
def test_the_published_networks_have_every_key_and_shape(features, blocks, tensors, parameters):
    shapes = official_shapes(features, blocks)
    assert len(shapes) == tensors
    with torch.device("meta"):
        network = EDSR(features, blocks)
    state = {key: torch.zeros(1).expand(shape) for key, shape in shapes.items()}
    for name, sign in (("sub", -1), ("add", 1)):
        state[f"{name}_mean.weight"] = torch.eye(3).view(3, 3, 1, 1)
        state[f"{name}_mean.bias"] = sign * 255 * torch.tensor(MEAN)
    renamed = EDSR.our_names(state)
    assert {k: v.shape for k, v in renamed.items()} == {k: v.shape for k, v in network.state_dict().items()}
    assert sum(p.numel() for p in network.parameters()) == parameters


def test_half_precision_weights_are_rounded_and_nothing_else(tmp_path):
    state = official_state(8, 2)
    torch.save({k: v.half() for k, v in state.items()}, tmp_path / "half.pt")
    network = load_generator(tmp_path / "half.pt")
    assert all(p.dtype == torch.float32 for p in network.parameters())
    rounded = {k: v if "_mean" in k else v.half().float() for k, v in state.items()}
    lr = torch.rand(1, 3, 6, 6)
    with torch.no_grad():
        torch.testing.assert_close(network(lr), official_output(rounded, lr, 1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("spelling", [dict, basicsr])
@pytest.mark.parametrize("scale", [2, 3])
def test_other_scales_are_told(tmp_path, scale, spelling):
    path = tmp_path / "edsr.pt"
    torch.save(spelling(official_state(8, 2, scale)), path)
    with pytest.raises(InputError) as caught:
        load_generator(path)
    assert str(caught.value) == f"{path}: holds an EDSR for x{scale}; only those for x4 are taken"


def test_weights_for_images_of_another_range_are_not_taken_for_ours(tmp_path):
    path = tmp_path / "edsr.pt"
    torch.save(official_state(8, 2, levels=1.0), path)
    with pytest.raises(InputError, match=r"sub_mean\.bias is of no use here"):
        load_generator(path)


def test_a_key_that_is_missing_is_named(tmp_path):
    path = tmp_path / "edsr.pt"
    state = official_state(8, 2)
    del state["tail.1.bias"]
    torch.save(state, path)
    with pytest.raises(InputError, match=r"another architecture than model=EDSR: it lacks conv_last\.bias"):
        load_generator(path)


def test_it_learns_with_all_it_has():
    network = EDSR(4, 2)
    network(torch.rand(1, 3, 8, 8)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
