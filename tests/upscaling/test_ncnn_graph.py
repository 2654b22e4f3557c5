"""ncnn's layers, each against ONNX Runtime's answer to the same node."""

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from realsr.runtime.errors import InputError
from realsr.upscaling.backends.ncnn_graph import ncnn_graph
from realsr.upscaling.backends.ncnn_net import ncnn_net

pytest.importorskip("ncnn", reason="backend=ncnn needs pip install 'realsr[ncnn]'")

RNG = np.random.default_rng(0)
WEIGHT, BIAS = RNG.normal(size=(8, 4, 3, 5)).astype(np.float32), RNG.normal(size=8).astype(np.float32)
CHANNELS = RNG.uniform(0.5, 2, (1, 4, 1, 1)).astype(np.float32)
SCALES = np.array([1, 1, 3, 2], np.float32)


def a_graph(nodes, **constants):
    """From ``x (1, 4, h, w)`` to ``y``."""
    tensors = [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in constants.items()]
    source = helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 4, "h", "w"))
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", [source], [result], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def one(kind, *inputs, **options):
    return [helper.make_node(kind, list(inputs), ["y"], **options)]


def two_readers():
    """Blobs with several readers, names that would meet, a layer that ncnn computes in place on what is read later."""
    return [
        helper.make_node("LeakyRelu", ["x"], ["a"], alpha=0.3),
        helper.make_node("Mul", ["a", "two"], ["a_0"]),
        helper.make_node("Concat", ["a", "a_0", "x"], ["a 1"], axis=1),
        helper.make_node("Conv", ["a 1", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Add", ["c", "r"], ["y"]),
    ]


def resize(mode, how):
    return one("Resize", "x", "", "scales", mode=mode, coordinate_transformation_mode=how, nearest_mode="floor")


GRAPHS = {
    "convolution": a_graph(one("Conv", "x", "w", "b", pads=[1, 2, 1, 2]), w=WEIGHT, b=BIAS),
    "no padding": a_graph(one("Conv", "x", "w"), w=WEIGHT),
    "uneven padding": a_graph(one("Conv", "x", "w", pads=[0, 1, 2, 3]), w=WEIGHT),
    "strides": a_graph(one("Conv", "x", "w", strides=[2, 3], dilations=[2, 1], pads=[2] * 4), w=WEIGHT),
    "fused": a_graph(
        [helper.make_node("Conv", ["x", "w", "b"], ["c"]), *one("LeakyRelu", "c", alpha=0.2)], w=WEIGHT, b=BIAS
    ),
    "fused relu": a_graph([helper.make_node("Conv", ["x", "w"], ["c"]), *one("Relu", "c")], w=WEIGHT),
    "relu": a_graph(one("Relu", "x")),
    "leaky by default": a_graph(one("LeakyRelu", "x")),
    "sigmoid": a_graph(one("Sigmoid", "x")),
    "prelu": a_graph(one("PRelu", "x", "s"), s=CHANNELS[0]),
    "clip": a_graph(one("Clip", "x", "low", "high"), low=-0.3, high=0.4),
    "concatenation": a_graph(one("Concat", "x", "x", axis=1)),
    "shuffle": a_graph(one("DepthToSpace", "x", blocksize=2, mode="CRD")),
    "shuffle by depth": a_graph(
        [helper.make_node("Concat", ["x", "x"], ["c"], axis=1), *one("DepthToSpace", "c", blocksize=2)]
    ),
    "nearest": a_graph(resize("nearest", "asymmetric"), scales=SCALES),
    "bilinear": a_graph(resize("linear", "half_pixel"), scales=SCALES),
    "other names": a_graph(
        [
            helper.make_node("Identity", ["b"], ["bias"]),
            helper.make_node("Identity", ["x"], ["same"]),
            helper.make_node("Conv", ["same", "w", "bias"], ["c"]),
            *one("Identity", "c"),
        ],
        w=WEIGHT,
        b=BIAS,
    ),
    "two readers": a_graph(two_readers(), two=2.0, w=RNG.normal(size=(4, 12, 3, 3)) / 10),
    **{f"{kind} itself": a_graph(one(kind, "x", "x")) for kind in ("Add", "Sub", "Mul")},
    **{f"{kind} a number": a_graph(one(kind, "x", "n"), n=1.7) for kind in ("Add", "Sub", "Mul", "Div")},
    **{f"a number {kind}": a_graph(one(kind, "n", "x"), n=1.7) for kind in ("Add", "Sub", "Mul", "Div")},
    **{f"{kind} by channel": a_graph(one(kind, "x", "n"), n=CHANNELS) for kind in ("Add", "Sub", "Mul", "Div")},
}


@pytest.mark.parametrize("name", GRAPHS)
def test_a_layer_computes_what_the_node_does(name):
    graph = GRAPHS[name].SerializeToString()
    run, session = ncnn_net(graph), onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    for height, width in ((9, 8), (17, 23)):
        x = RNG.normal(size=(1, 4, height, width)).astype(np.float32)
        x = np.where(np.abs(x) < 0.1, 0.1, x).astype(np.float32)  # to divide by
        (expected,) = session.run(["y"], {"x": x})
        np.testing.assert_allclose(run(x.copy()), expected, atol=2e-5, rtol=2e-5)


OTHERS = {
    "MaxPool": a_graph(one("MaxPool", "x", kernel_shape=[2, 2])),
    "Conv": a_graph(one("Conv", "x", "w", group=2), w=RNG.normal(size=(4, 2, 3, 3))),
    "Concat": a_graph(one("Concat", "x", "x", axis=3)),
    "Conv by itself": a_graph(one("Conv", "x", "x")),
    "Resize": a_graph(resize("cubic", "half_pixel"), scales=SCALES),
    "Sub": a_graph(one("Sub", "n", "x"), n=CHANNELS),
    "Add": a_graph(one("Add", "x", "n"), n=np.ones((1, 1, 1, 8))),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_not_translated_is_said_in_a_line(kind):
    name = kind.split()[0]
    with pytest.raises(InputError, match=rf"^backend=ncnn: .*{name} .*; take another backend$"):
        ncnn_graph(OTHERS[kind].SerializeToString())
