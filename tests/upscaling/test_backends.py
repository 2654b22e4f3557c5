"""Every backend against the generator itself, of every architecture; and what it says to what it cannot do."""

import subprocess
import sys
import tempfile
import textwrap

import ncnn
import onnx
import pytest
import torch
from conftest import weighted
from onnx import TensorProto, helper
from spandrel.architectures.Compact import Compact

from realsr.networks.edsr import EDSR
from realsr.networks.onnx_graph import onnx_graph
from realsr.networks.rrdb import RRDBNet
from realsr.networks.weights import load_generator
from realsr.runtime.errors import InputError
from realsr.upscaling.backends import load_model

BACKENDS = ["torch", "onnxruntime", "ncnn"]
SIZES = [(1, 24, 20), (1, 1, 1), (3, 7, 1), (2, 33, 41), (1, 1, 50)]
NETWORKS = {
    "rrdb": (RRDBNet, {"features": 16, "blocks": 2, "growth": 8}),
    "edsr": (EDSR, {"features": 8, "blocks": 2, "residual_scale": 0.3}),
}


def installed(backend):
    """What a test of a backend begins with."""
    if backend != "torch":
        pytest.importorskip(backend, reason=f"backend={backend} needs pip install 'realsr[{backend}]'")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A file of each architecture."""
    folder = tmp_path_factory.mktemp("checkpoints")
    files = {}
    for name, (kind, options) in NETWORKS.items():
        spec = {"_target_": f"{kind.__module__}.{kind.__name__}", **options}
        state = {f"generator.{key}": value for key, value in weighted(kind(**options), 0).state_dict().items()}
        files[name] = folder / f"{name}.ckpt"
        torch.save({"config": {"model": {"generator": spec}}, "state_dict": state}, files[name])
    files["community"] = folder / "community.pth"
    torch.save(weighted(Compact(num_feat=6, num_conv=1, upscale=3), 0).state_dict(), files["community"])
    return files


def compare(network, path, sizes=SIZES):
    """Whether a network computes what the generator of a file does, up to 1e-4 of outputs that are not trivial."""
    generator = load_generator(path)
    spread = []
    assert network.scale == generator.scale
    for count, height, width in sizes:
        lr = torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(height))
        with torch.no_grad():
            expected = torch.cat([generator(one[None]) for one in lr])
        before = lr.clone()
        sr = network(lr.to(network.device))
        assert (sr.dtype, sr.device, lr.equal(before)) == (torch.float32, network.device, True)
        torch.testing.assert_close(sr, expected, atol=1e-4, rtol=0)
        spread.append(float(expected.std()))
    assert max(spread) > 0.1


@pytest.fixture(scope="module")
def onnx_files(checkpoints):
    """The same as ``.onnx``, which takes seconds each."""
    files = {}
    for name, path in checkpoints.items():
        files[name] = path.with_suffix(".ONNX")
        files[name].write_bytes(onnx_graph(load_generator(path)))
    return files


@pytest.mark.parametrize("name", [*NETWORKS, "community"])
@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
def test_a_backend_computes_what_the_generator_does(checkpoints, onnx_files, backend, name):
    installed("onnxruntime" if backend == "auto" else backend)
    file = checkpoints[name] if backend == "torch" else onnx_files[name]
    compare(load_model(file, backend, "cpu"), checkpoints[name])


@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_a_backend_takes_checkpoints(checkpoints, backend):
    installed(backend)
    compare(load_model(checkpoints["rrdb"], backend, "cpu"), checkpoints["rrdb"], SIZES[:3])


@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_onnx_files_of_one_image_at_a_time_take_batches(checkpoints, onnx_files, tmp_path, backend):
    installed(backend)
    model = onnx.load(onnx_files["rrdb"])
    del model.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1  # as many programs write them
    onnx.save(model, tmp_path / "net.onnx")
    compare(load_model(tmp_path / "net.onnx", backend, "cpu"), checkpoints["rrdb"])


def test_ncnn_leaves_nothing_behind(checkpoints, onnx_files, tmp_path, monkeypatch):
    installed("ncnn")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    network = load_model(onnx_files["rrdb"], "ncnn")
    assert not list(tmp_path.iterdir())
    compare(network, checkpoints["rrdb"])


@pytest.mark.parametrize("backend", ["torch", "onnxruntime"])
def test_averaged_weights_are_taken_unless_told(tmp_path, backend):
    installed(backend)
    kind, options = NETWORKS["rrdb"]
    raw = weighted(kind(**options), 0).state_dict()
    state = {f"generator.{key}": value for key, value in raw.items()}
    state |= {f"generator_ema.{key}": value / 2 for key, value in raw.items()}
    spec = {"_target_": f"{kind.__module__}.{kind.__name__}", **options}
    torch.save({"config": {"model": {"generator": spec}}, "state_dict": state}, tmp_path / "net.ckpt")
    lr = torch.rand(1, 3, 9, 9)
    for ema in (True, False):
        with torch.no_grad():
            expected = load_generator(tmp_path / "net.ckpt", ema)(lr)
        torch.testing.assert_close(load_model(tmp_path / "net.ckpt", backend, ema=ema)(lr), expected, atol=1e-4, rtol=0)


def test_bfloat16_is_near_and_not_the_same(checkpoints):
    """Nearer than if what the blocks add up were rounded too."""
    lr, rounded = torch.rand(1, 3, 24, 24), load_generator(checkpoints["rrdb"]).bfloat16()
    with torch.no_grad():
        expected = load_generator(checkpoints["rrdb"])(lr)
        wrong = (rounded(lr.bfloat16()).float() - expected).abs()
    error = (load_model(checkpoints["rrdb"], "torch", "cpu", "bf16-true")(lr) - expected).abs()
    assert 1e-4 < error.max() < 0.05 * expected.abs().max()
    assert error.mean() < 0.6 * wrong.mean()


@pytest.mark.parametrize(("ratio", "said"), [(9.0, True), (1.0, False)])
def test_a_cpu_without_instructions_for_bfloat16_is_said(checkpoints, monkeypatch, caplog, ratio, said):
    monkeypatch.setattr("realsr.upscaling.backends.pytorch._bfloat16_to_float32", lambda: ratio)
    load_model(checkpoints["rrdb"], "torch", "cpu", "bf16-true")
    assert ("this CPU takes 9 times as long with it; leave it out" in caplog.text) == said


def apart(code, path):
    """Run in a process of its own: once PyTorch has compiled, processes cannot be forked any more (test_ddp.py)."""
    preface = (
        "import sys, torch\nfrom realsr.upscaling.backends import load_model\nfrom realsr.networks.weights import *\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", preface + textwrap.dedent(code), str(path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_compiled_once_for_tiles_of_all_sizes(checkpoints):
    apart(
        """
        network = load_model(sys.argv[1], "torch", "cpu", compile=True)
        plain = load_generator(sys.argv[1])
        for size in [(24, 20), (33, 41), (16, 50), (37, 19), (64, 64), *((50, 40 + i) for i in range(20))]:
            lr = torch.rand(1, 3, *size)
            with torch.no_grad():
                torch.testing.assert_close(network(lr), plain(lr), atol=1e-4, rtol=0)
        graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        assert graphs <= 5, graphs  # oneDNN has other layouts for small images
        """,
        checkpoints["rrdb"],
    )


def test_without_a_compiler_one_line_says_so(checkpoints, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    apart(
        r"""
        import re, torch._inductor.config
        from realsr.runtime.errors import InputError
        torch._inductor.config.cpp.cxx = (None, "/no/compiler")
        try:
            load_model(sys.argv[1], "torch", "cpu", compile=True)(torch.rand(1, 3, 8, 8))
        except InputError as e:
            assert re.fullmatch(r"compile=true: .*No working C\+\+ compiler.*leave it out", str(e)), e
        else:
            raise AssertionError("compiled without a compiler")
        """,
        checkpoints["community"],
    )


def test_vulkan_computes_the_same(checkpoints):
    if not ncnn.get_gpu_count():
        pytest.skip("no Vulkan here (Mesa's llvmpipe is enough: mesa-vulkan-drivers)")
    lr = torch.rand(1, 3, 24, 20)
    wanted = load_model(checkpoints["rrdb"], accelerator="cpu")(lr)
    assert (load_model(checkpoints["rrdb"], "ncnn", "gpu")(lr) - wanted).abs().max() < 1e-4
    assert (load_model(checkpoints["rrdb"], "ncnn", "gpu", "16-true")(lr) - wanted).abs().max() < 0.05


@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_a_missing_package_is_named(onnx_files, monkeypatch, backend):
    monkeypatch.setitem(sys.modules, backend, None)
    with pytest.raises(InputError) as caught:
        load_model(onnx_files["rrdb"], backend)
    assert str(caught.value) == f"backend={backend} needs the package {backend}: pip install 'realsr[{backend}]'"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"backend": "onnx"}, "backend=onnx: choose auto, torch, onnxruntime, ncnn, did you mean"),
        ({"accelerator": "cuda"}, "accelerator=cuda: choose auto, cpu, gpu"),
        ({"precision": "fp16"}, "precision=fp16: choose 32-true, bf16-true, 16-true"),
        ({"precision": "16-true", "accelerator": "cpu"}, "CPUs compute it slower"),
        ({"precision": "16-true", "backend": "onnxruntime"}, "CPUs compute it slower"),
        ({"precision": "bf16-true", "backend": "onnxruntime"}, "backend=onnxruntime has 32-true, 16-true"),
        ({"precision": "16-true", "backend": "ncnn"}, "CPUs compute it slower"),
        ({"precision": "bf16-true", "backend": "ncnn"}, "backend=ncnn has 32-true, 16-true"),
        ({"compile": True, "backend": "ncnn"}, "compile=true: is PyTorch's"),
        ({"accelerator": "gpu", "backend": "ncnn"}, "there is no GPU that ncnn can use"),
        ({"accelerator": "gpu", "backend": "onnxruntime"}, "accelerator=gpu: this ONNX Runtime uses no GPU"),
    ],
)
def test_what_there_is_not_is_said_in_a_line(checkpoints, options, says, monkeypatch):
    monkeypatch.setattr(ncnn, "get_gpu_count", lambda: 0)
    with pytest.raises(InputError) as caught:
        load_model(checkpoints["rrdb"], **options)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def a_model(nodes, tensors=(), shape=("n", 3, "h", "w"), kind=TensorProto.FLOAT, domains=("",), outputs=1):
    """An ONNX graph from ``lr`` to ``sr``."""
    values = [helper.make_tensor_value_info(f"sr{i or ''}", kind, None) for i in range(outputs)]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("lr", kind, shape)], values, list(tensors))
    opsets = [helper.make_opsetid(domain, 18 if not domain else 1) for domain in domains]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def elsewhere(location):
    """A tensor whose values are in another file."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    return tensor


ENLARGE = helper.make_node("Resize", ["lr", "", "scales"], ["sr"], mode="nearest")
SCALES = helper.make_tensor("scales", TensorProto.FLOAT, [4], [1.0, 1.0, 2.0, 2.0])
TRUE = helper.make_tensor("t", TensorProto.BOOL, [], [True])
BRANCH = helper.make_graph([helper.make_node("Relu", ["w"], ["r"])], "b", [], [], [elsewhere("weights.bin")])
BAD_FILES = {
    "empty": (b"", "it is empty: copy or download it again"),
    "garbage": (b"no network at all" * 50, "is no ONNX file that can be read"),
    "cut": (a_model([ENLARGE], [SCALES])[:-40], "is no ONNX file that can be read"),
    "custom": (a_model([helper.make_node("Evil", ["lr"], ["sr"], domain="my.ops")], domains=("", "my.ops")), "Evil"),
    "unknown": (a_model([helper.make_node("NoSuch", ["lr"], ["sr"])]), "NoSuch"),
    "external": (a_model([helper.make_node("Add", ["lr", "w"], ["sr"])], [elsewhere("weights.bin")]), "in other files"),
    "external constant": (
        a_model(
            [
                helper.make_node("Constant", [], ["w"], value=elsewhere("a.bin")),
                helper.make_node("Add", ["lr", "w"], ["sr"]),
            ]
        ),
        "in other files",
    ),
    "external branch": (
        a_model([helper.make_node("If", ["t"], ["sr"], then_branch=BRANCH, else_branch=BRANCH)], [TRUE]),
        "in other files",
    ),
    "outputs": (a_model([helper.make_node("Split", ["lr"], ["sr", "sr1"], axis=1, num_outputs=2)], outputs=2), "2 out"),
    "gray": (a_model([ENLARGE], [SCALES], shape=("n", 1, "h", "w")), r"shape \[0, 1, 0, 0\]"),
    "rows": (a_model([ENLARGE], [SCALES], shape=(3, "h", "w")), r"shape \[3, 0, 0\]"),
    "half": (a_model([ENLARGE], [SCALES], kind=TensorProto.FLOAT16), "takes float16"),
    "fixed": (a_model([ENLARGE], [SCALES], shape=(1, 3, 64, 48)), "images of 48x64 alone"),
    "same size": (a_model([helper.make_node("Relu", ["lr"], ["sr"])]), "only networks that enlarge"),
}


@pytest.mark.parametrize("name", BAD_FILES)
@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_onnx_files_that_cannot_be_used_are_said_in_a_line(tmp_path, backend, name):
    installed(backend)
    content, says = BAD_FILES[name]
    (tmp_path / "net.onnx").write_bytes(content)
    with pytest.raises(InputError, match=says) as caught:
        load_model(tmp_path / "net.onnx", backend, "cpu")
    assert "\n" not in str(caught.value)


def test_onnx_files_and_other_options(tmp_path):
    path = tmp_path / "net.onnx"
    with pytest.raises(InputError, match=r"net\.onnx: no such file$"):
        load_model(path)
    path.write_bytes(a_model([ENLARGE], [SCALES]))
    assert load_model(path).scale == 2
    with pytest.raises(InputError, match=r"opens no \.onnx files"):
        load_model(path, "torch")
    with pytest.raises(InputError, match="has its precision inside"):
        load_model(path, "onnxruntime", "gpu", "16-true")


def test_memory_that_there_is_not_is_a_memory_error(tmp_path):
    from realsr.upscaling.backends.graphs import GraphNetwork

    def run(lr):
        if lr.shape[-1] > 100:
            raise RuntimeError("[ONNXRuntimeError] : 6 : Failed to allocate memory for requested buffer of size 8")
        return lr.repeat(2, -1).repeat(2, -2)

    network = GraphNetwork(run, "net.onnx")
    assert network(torch.rand(2, 3, 8, 9)).shape == (2, 3, 16, 18)
    with pytest.raises(MemoryError):
        network(torch.rand(1, 3, 8, 101))


def test_onnx_files_that_trick_are_said_in_a_line(tmp_path, capfd):
    """Levels where numbers from 0 to 1 should be, which would be black; a constant of 4 TB."""
    installed("onnxruntime")
    levels = [helper.make_node("Resize", ["lr", "", "scales"], ["u"], mode="nearest")]
    levels.append(helper.make_node("Cast", ["u"], ["sr"], to=TensorProto.UINT8))
    huge = [
        helper.make_node("ConstantOfShape", ["sides"], ["c"]),
        helper.make_node("ReduceSum", ["c"], ["r"], keepdims=0),
    ]
    huge += [helper.make_node("Resize", ["lr", "", "scales"], ["u"], mode="nearest")]
    huge.append(helper.make_node("Add", ["u", "r"], ["sr"]))
    sides = helper.make_tensor("sides", TensorProto.INT64, [2], [2**20, 2**20])
    for nodes, tensors, says in ((levels, [SCALES], "gives torch.uint8"), (huge, [SCALES, sides], "cannot take it")):
        graph = onnx.load_from_string(a_model(nodes, tensors))
        if says.startswith("gives"):
            graph.graph.output[0].type.tensor_type.elem_type = TensorProto.UINT8
        (tmp_path / "a.onnx").write_bytes(graph.SerializeToString())
        with pytest.raises(InputError, match=says):
            load_model(tmp_path / "a.onnx", "onnxruntime", "cpu")
    assert not capfd.readouterr().err  # where runtimes write their own lines
