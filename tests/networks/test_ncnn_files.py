"""ncnn's files read into our networks: against ncnn itself, and as published files are written."""

import re
import struct

import numpy as np
import pytest
import torch
from conftest import weighted
from spandrel.architectures.Compact import Compact
from torch import nn

from realsr.networks.edsr import EDSR
from realsr.networks.onnx_graph import onnx_graph
from realsr.networks.rrdb import RRDBNet
from realsr.networks.weights import generator_spec, load_generator
from realsr.runtime.errors import InputError
from realsr.upscaling.backends.ncnn_graph import ncnn_graph
from realsr.upscaling.backends.ncnn_net import load_ncnn

pytest.importorskip("ncnn", reason="format=ncnn needs pip install 'realsr[ncnn]'")

LR = torch.rand(1, 3, 9, 14, generator=torch.Generator().manual_seed(0))


NETWORKS = {
    "rrdb": lambda: weighted(RRDBNet(8, 2, 4), 1),
    "compact": lambda: weighted(Compact(num_feat=8, num_conv=2, upscale=4), 1),
    "compact x2": lambda: weighted(Compact(num_feat=8, num_conv=1, upscale=2), 1),
}


def written(folder, network, half=False):
    layers, weights = ncnn_graph(onnx_graph(network), half)
    (folder / "net.param").write_text(layers)
    (folder / "net.bin").write_bytes(weights)
    return folder / "net.param"


def computed(network):
    with torch.no_grad():
        return network(LR.clone())


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Each network with its two files."""
    made = {}
    for name, make in NETWORKS.items():
        network = make()
        made[name] = network, written(tmp_path_factory.mktemp("net"), network)
    return made


@pytest.mark.parametrize("name", NETWORKS)
def test_either_file_gives_the_network_back(files, name):
    network, graph = files[name]
    for file in (graph, graph.with_suffix(".bin")):
        back = load_generator(file)
        state = getattr(back, "network", back).state_dict()
        assert type(getattr(back, "network", back)) is type(network)
        assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
        assert generator_spec(file)["_target_"].endswith("RRDBNet" if name == "rrdb" else "Compact")
    assert computed(network).std() > 0.05


def test_float16_is_read_as_ncnn_reads_it(tmp_path):
    network = NETWORKS["rrdb"]()
    network.conv_first = nn.Conv2d(3, 8, 3, padding=1)
    file = written(tmp_path, network, half=True)
    assert file.with_suffix(".bin").stat().st_size < 0.6 * 4 * sum(p.numel() for p in network.parameters())
    back = load_generator(file)
    torch.testing.assert_close(computed(back), torch.from_numpy(load_ncnn(file)(LR.numpy())), atol=1e-5, rtol=0)
    error = (computed(back) - computed(network)).abs().max()
    assert 1e-5 < error < 5e-3


def test_files_as_they_are_published(files, tmp_path):
    """Sums with factors in one layer, sides named once, activations apart: as ncnn's own tools write them."""
    network, graph = files["rrdb"]
    text = graph.read_text()
    number = r"2\.0+3?e-01"
    text, sums = re.subn(
        rf"BinaryOp (\S+) 1 1 (\S+) (\S+) 0=2 1=1 2={number}\nBinaryOp \S+ 2 1 (\S+) (\S+) (\S+) 0=0\n",
        r"Eltwise \1 2 1 \2 OTHER(\3,\4,\5) \6 0=1 -23301=2,2.000000e-01,1.000000e+00" + "\n",
        text,
    )
    assert sums == 8  # of six dense blocks and two around them
    text = re.sub(r"OTHER\((\S+),(\S+),(\S+)\)", lambda m: m[3] if m[1] == m[2] else m[2], text)
    text = text.replace(" 11=3 2=1 12=1 3=1 13=1 4=1 14=1 15=1 16=1 ", " 4=1 ").replace(" 0=0\n", "\n")
    text, apart = re.subn(
        rf"(Convolution \S+ 1 1 \S+) (\S+) (.*) 9=2 -23310=1,{number}\n",
        r"\1 \2_ \3" + "\n" + r"ReLU relu_\2 1 1 \2_ \2 0=2.000000e-01" + "\n",
        text,
        count=1,
    )
    lines = text.splitlines()
    blobs = sum(int(line.split()[3]) for line in lines[2:])
    lines[1] = f"{len(lines) - 2} {blobs}"
    (tmp_path / "x4.param").write_text("\n".join([*lines, ""]))
    (tmp_path / "x4.bin").write_bytes(graph.with_suffix(".bin").read_bytes())
    assert apart == 1
    expected = computed(network)
    np.testing.assert_allclose(load_ncnn(tmp_path / "x4.param")(LR.numpy()), expected.numpy(), atol=1e-4)
    assert torch.equal(computed(load_generator(tmp_path / "x4.param")), expected)


def test_numbers_are_as_short_as_every_ncnn_reads_them(files):
    """Until 2026-10 it took 15 characters of a number, and crashed on what was left."""
    for _, graph in files.values():
        options = re.findall(r" -?\d+=(\S+)", graph.read_text())
        numbers = [number for option in options for number in option.split(",")]
        assert max(map(len, numbers)) <= 15
    slopes = set(re.findall(r"-23310=1,(\S+)", files["rrdb"][1].read_text()))
    assert {np.float32(slope) for slope in slopes} == {np.float32(0.2)}
    assert all("." in slope for slope in slopes)  # ncnn takes numbers without a point for integers


def complaint(path):
    with pytest.raises(InputError) as caught:
        load_generator(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_cannot_be_read_is_said_in_a_line(files, tmp_path):
    _, graph = files["rrdb"]
    text, weights = graph.read_text(), graph.with_suffix(".bin").read_bytes()
    (tmp_path / "a.param").write_text(text)
    assert "a.bin is not beside it" in complaint(tmp_path / "a.param")
    for content in (weights[:-4], weights + b"more", struct.pack("<I", 0x000D4B38) + weights[4:]):  # the last: int8
        (tmp_path / "a.bin").write_bytes(content)
        assert "a.param and a.bin do not fit together, or are damaged" in complaint(tmp_path / "a.param")
    (tmp_path / "a.bin").write_bytes(weights)
    for wrong in (
        text.replace("7767517", "7767518"),
        text[: len(text) // 2],
        text.replace("0=8 ", "0=9 "),
        "7767517\n",
    ):
        (tmp_path / "a.param").write_text(wrong)
        assert "a.bin: " in complaint(tmp_path / "a.bin")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (r" 6=\d+", " 6=1e30"),  # as many weights
        (r" 6=\d+", " 6=nan"),
    ],
)
def test_numbers_that_no_graph_has_are_damage(files, tmp_path, before, after):
    _, graph = files["rrdb"]
    text, count = re.subn(before, after, graph.read_text())
    assert count
    (tmp_path / "a.param").write_text(text)
    (tmp_path / "a.bin").write_bytes(graph.with_suffix(".bin").read_bytes())
    assert "do not fit together, or are damaged" in complaint(tmp_path / "a.param")


@pytest.mark.parametrize("kind", ["Tile", "Deconvolution"])
def test_other_graphs_are_not_taken_for_ours(files, tmp_path, kind):
    _, graph = files["rrdb"]
    (tmp_path / "a.param").write_text(graph.read_text().replace("Interp", kind, 1))
    (tmp_path / "a.bin").write_bytes(graph.with_suffix(".bin").read_bytes())
    assert "is neither RRDBNet x4 nor Real-ESRGAN's compact network" in complaint(tmp_path / "a.param")


def test_networks_that_are_neither_are_said(tmp_path):
    file = written(tmp_path, weighted(EDSR(8, 2, 0.3), 1))
    assert re.search(r"graph \(.*PixelShuffle.*\) is neither RRDBNet x4 nor", complaint(file))


def test_a_bin_without_a_param_is_pytorch_s(files, tmp_path):
    network, _ = files["rrdb"]
    torch.save(network.state_dict(), tmp_path / "pytorch_model.bin")
    assert torch.equal(computed(load_generator(tmp_path / "pytorch_model.bin")), computed(network))
