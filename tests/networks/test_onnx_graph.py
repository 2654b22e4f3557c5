"""ONNX of our networks and of spandrel's, computed by ONNX Runtime against PyTorch at sizes that tracing never saw."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import weighted
from spandrel.architectures.Compact import Compact
from torch import nn

from realsr.networks.community import scale_of
from realsr.networks.edsr import EDSR
from realsr.networks.onnx_graph import onnx_graph
from realsr.networks.rrdb import RRDBNet
from realsr.networks.weights import load_generator
from realsr.runtime.errors import InputError

SIZES = [(1, 24, 20), (1, 1, 1), (3, 7, 1), (2, 33, 41), (1, 1, 50)]


def community(tmp_path):
    """Real-ESRGAN's compact network for x2, which spandrel builds."""
    torch.save(weighted(Compact(num_feat=6, num_conv=1, upscale=2), 0).state_dict(), tmp_path / "net.pth")
    return load_generator(tmp_path / "net.pth")


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("name", ["rrdb", "compact", "edsr", "community"])
def test_onnx_runtime_computes_the_same_at_every_size(tmp_path, name, half):
    torch.manual_seed(0)
    networks = {
        "rrdb": lambda: RRDBNet(8, 1, 4),
        "compact": lambda: Compact(num_feat=8, num_conv=1, upscale=3),
        "edsr": lambda: EDSR(8, 2, 0.3),
        "community": lambda: community(tmp_path),
    }
    network = networks[name]().eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    graph = onnx_graph(network, half)
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    differences = []
    for count, height, width in SIZES:
        lr = torch.rand(count, 3, height, width)
        with torch.no_grad():
            sr = torch.cat([network(one[None]) for one in lr]).numpy()
        (result,) = session.run(["sr"], {"lr": lr.numpy()})
        assert result.dtype == np.float32
        assert result.shape == (count, 3, scale_of(network) * height, scale_of(network) * width)
        differences.append(np.abs(result - sr).max())
    assert max(differences) < (1e-2 if half else 1e-5)
    assert (max(differences) > 1e-6) == half  # otherwise nothing was computed in half precision
    assert session.get_modelmeta().custom_metadata_map["scale"] == str(scale_of(network))
    assert all(
        value.dtype == torch.float32 and torch.equal(value, before[k]) for k, value in network.state_dict().items()
    )


def test_the_file_says_what_it_takes_and_nothing_of_this_machine():
    graph = onnx_graph(RRDBNet(8, 1, 4), about={"degradation": "kernels"})
    model = onnx.load_from_string(graph)
    onnx.checker.check_model(model, full_check=True)
    (given,), (result,) = model.graph.input, model.graph.output
    shapes = [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in (given, result)]
    assert shapes == [["batch", 3, "height", "width"], ["batch", 3, "4*height", "4*width"]]
    kinds = {node.op_type for node in model.graph.node}
    assert kinds == {"Conv", "LeakyRelu", "Concat", "Mul", "Add", "Resize"}  # what small readers know
    assert (given.name, result.name, model.opset_import[0].version) == ("lr", "sr", 18)
    assert {p.key: p.value for p in model.metadata_props}["degradation"] == "kernels"
    for text in (b".py", b"realsr/networks", b"site-packages", b"/home"):
        assert text not in graph


class _Bessel(nn.Module):
    scale = 1

    def forward(self, lr):
        return torch.special.bessel_j0(lr)


def test_what_onnx_cannot_express_is_one_clear_line():
    with pytest.raises(InputError, match=r"_Bessel cannot be written as ONNX \(.*bessel_j0") as error:
        onnx_graph(_Bessel())
    assert "\n" not in str(error.value)


def test_a_network_that_works_in_strips_is_traced_whole():
    network = RRDBNet(8, 1, 4).eval()
    network.strip = 5
    session = onnxruntime.InferenceSession(onnx_graph(network))
    lr = torch.rand(1, 3, 40, 9)
    with torch.no_grad():
        expected = network(lr).numpy()
    np.testing.assert_allclose(session.run(None, {"lr": lr.numpy()})[0], expected, atol=1e-4)
    assert network.strip == 5
