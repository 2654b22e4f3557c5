"""Files for other programs: opened by those, in a process that cannot import realsr, and compared with our network."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import weighted
from forked import run_forked
from PIL import Image
from safetensors import safe_open
from spandrel.architectures.Compact import Compact
from torch import nn

from realsr import __version__
from realsr.export import _run
from realsr.networks.edsr import EDSR
from realsr.networks.patch import PatchDiscriminator
from realsr.networks.rrdb import RRDBNet
from realsr.networks.weights import load_generator, read_checkpoint
from realsr.runtime.config import explain
from realsr.runtime.errors import InputError
from realsr.upscaling.export_generator import EXPORTS, export

SIZES = [(11, 14), (1, 1), (2, 37)]
SPECS = {
    "rrdb": {"_target_": "realsr.networks.rrdb.RRDBNet", "features": 8, "blocks": 2, "growth": 32},
    "compact": {"_target_": "spandrel.architectures.Compact.Compact", "num_feat": 24, "num_conv": 1},
    "edsr": {"_target_": "realsr.networks.edsr.EDSR", "features": 8, "blocks": 2, "residual_scale": 0.3},
}
KNOWN = ("rrdb", "compact")  # to programs that read with spandrel
NETWORKS = {"rrdb": RRDBNet, "compact": Compact, "edsr": EDSR}
# Opens each file as its programs do, and saves what it gives for the inputs; nothing of ours can be imported.
OPENER = """
import json, sys, warnings
class NoRealsr:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "realsr":
            raise ImportError("realsr is not here")
sys.meta_path.insert(0, NoRealsr())
warnings.simplefilter("ignore")
import numpy, torch
files, given, results = sys.argv[1:-2], numpy.load(sys.argv[-2]), {}
torch.set_grad_enabled(False)
for file in files:
    if file.endswith(".onnx"):
        import onnxruntime
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        network = lambda lr: session.run(None, {session.get_inputs()[0].name: lr})[0]
    elif file.endswith(".param"):
        import ncnn
        net = ncnn.Net()
        assert not net.load_param(file) and not net.load_model(file.replace(".param", ".bin"))
        def network(lr):
            results = []
            for one in lr:
                extractor = net.create_extractor()
                extractor.input("data", ncnn.Mat(one).clone())
                results.append(extractor.extract("output")[1].numpy().copy())
            return numpy.stack(results)
    else:
        import spandrel
        model = spandrel.ModelLoader().load_from_file(file)
        kind = "Compact" if "compact" in file else "ESRGAN"
        assert (model.scale, model.purpose, model.architecture.id) == (4, "SR", kind)
        network = lambda lr: model(torch.from_numpy(lr)).numpy()
    results.update({f"{file}|{name}": network(given[name]) for name in given.files})
assert "realsr" not in sys.modules
numpy.savez(sys.argv[-1], **results)
"""


def checkpoint(path, name, seed=0):
    """One of ours with raw and averaged weights, of random networks whose outputs are spread over [0, 1]."""
    state = {}
    for part, number in (("generator", seed + 1), ("generator_ema", seed)):
        torch.manual_seed(number)
        network = NETWORKS[name](**{k: v for k, v in SPECS[name].items() if k != "_target_"})
        for parameter in network.parameters():
            nn.init.normal_(parameter, 0, 0.1) if parameter.ndim > 1 else nn.init.normal_(parameter, 0.02, 0.02)
        state |= {f"{part}.{k}": v for k, v in network.state_dict().items()}
    state |= {f"discriminator.{k}": v for k, v in PatchDiscriminator(4).state_dict().items()}
    degradation = {"_target_": "realsr.degradation.paper.PaperDegradation", "scale": 4}
    pools = {"kernel_dir": "/home/anna/pools/k", "noise_dir": "n", "jpeg_dir": None}
    data = {"degradation": degradation, "pools": pools}
    torch.save({"state_dict": state, "config": {"model": {"generator": SPECS[name]}, "data": data}}, path)
    return path


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(1)
    return {f"{h}x{w}": torch.rand(1 + (h == 1), 3, h, w, generator=generator) for h, w in SIZES}


def outputs(network, inputs):
    with torch.no_grad():
        return {name: network(lr.clone()).numpy() for name, lr in inputs.items()}


def opened_elsewhere(files, inputs, tmp_path):
    np.savez(tmp_path / "in.npz", **{name: lr.numpy() for name, lr in inputs.items()})
    arguments = [*map(str, files), str(tmp_path / "in.npz"), str(tmp_path / "out.npz")]
    done = subprocess.run([sys.executable, "-I", "-c", OPENER, *arguments], cwd="/", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "out.npz") as arrays:
        return {file: {name: arrays[f"{file}|{name}"] for name in inputs} for file in map(str, files)}


def test_other_programs_open_the_files_without_us(tmp_path, inputs):
    files, expected = {}, {}
    for name in NETWORKS:
        source = checkpoint(tmp_path / f"{name}.ckpt", name)
        expected[name] = outputs(load_generator(source), inputs)
        for format in EXPORTS:
            for half in (False, True):
                if format == "ncnn" and not half:  # it has float16 alone
                    continue
                if name in KNOWN or format in ("onnx", "ncnn"):
                    files[str(export(source, format=format, half=half))] = (name, format, half)
    assert len(files) == 7 + 7 + 3
    results = opened_elsewhere(files, inputs, tmp_path)
    for file, (name, format, half) in files.items():
        for size, sr in results[file].items():
            wanted = expected[name][size]
            assert wanted.std() > 0.03 or "1x1" in size
            if format in ("pth", "safetensors"):
                if name == "rrdb" and "1" in size.split("x"):
                    continue  # spandrel pads what is under two pixels
                wanted = wanted.clip(0, 1)
            worst = np.abs(sr - wanted).max()
            assert worst < (5e-3 if half else 1e-5), (file, size)
        assert Path(file).stem == (f"{name}-x4" if format == "ncnn" else f"{name}-fp16" if half else name)
    sizes = {key: Path(file).stat().st_size for file, key in files.items()}
    for (name, format, half), size in sizes.items():
        assert not half or format == "ncnn" or size < 0.75 * sizes[name, format, False]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("format", ["pth", "safetensors"])
def test_weights_open_here_again(tmp_path, inputs, name, format):
    source = checkpoint(tmp_path / "a.ckpt", name)
    expected = outputs(load_generator(source), inputs)
    if (name, format) == ("edsr", "pth"):  # a factor of the residuals which no tensor holds
        with pytest.raises(InputError, match=r"a\.pth: not written, it would differ by .*; take format=safetensors"):
            export(source, format=format)
        assert [path.name for path in tmp_path.iterdir()] == ["a.ckpt"]
        return
    back = load_generator(export(source, format=format))
    assert (type(getattr(back, "network", back)), back.scale) == (NETWORKS[name], 4)
    assert all(np.array_equal(sr, expected[size]) for size, sr in outputs(back, inputs).items())
    raw = load_generator(export(source, tmp_path / f"raw.{format}", format, ema=False))
    assert all(
        np.array_equal(sr, outputs(load_generator(source, ema=False), inputs)[k])
        for k, sr in outputs(raw, inputs).items()
    )
    assert not torch.equal(next(raw.parameters()), next(back.parameters()))


def test_the_community_s_own_files_are_rewritten(tmp_path, inputs):
    """A published RRDBNet by its first release's names, and a network that spandrel alone knows."""
    torch.manual_seed(0)
    net = RRDBNet(8, 1, 32).eval()
    torch.save({"params": net.state_dict()}, tmp_path / "published.pth")
    wanted = outputs(net, inputs)
    with pytest.raises(InputError, match="is the checkpoint itself"):
        export(tmp_path / "published.pth", format="pth", overwrite=True)
    back = load_generator(export(tmp_path / "published.pth", format="safetensors"))
    assert all(np.array_equal(sr, wanted[size]) for size, sr in outputs(back, inputs).items())

    torch.save(weighted(Compact(num_feat=6, num_conv=1, upscale=2), 0).state_dict(), tmp_path / "compact.pth")
    wanted = outputs(load_generator(tmp_path / "compact.pth"), inputs)
    files = [export(tmp_path / "compact.pth", format=format) for format in ("onnx", "ncnn")]
    for results in opened_elsewhere(files, inputs, tmp_path).values():
        assert all(np.abs(sr - wanted[size]).max() < 5e-3 for size, sr in results.items())
    back = load_generator(export(tmp_path / "compact.pth", format="safetensors"))
    assert back.scale == 2
    assert all(np.array_equal(sr, wanted[size]) for size, sr in outputs(back, inputs).items())


def test_files_say_what_they_are_and_nothing_of_this_machine(tmp_path):
    source = checkpoint(tmp_path / "a.ckpt", "compact")
    files = [export(source, format=format) for format in EXPORTS]
    with safe_open(files[0], "pt") as file:
        says = file.metadata()
    assert says["realsr"] == __version__
    assert (says["architecture"], says["scale"], says["precision"]) == ("RealESRGAN Compact", "4", "float32")
    assert says["degradation"] == "kernel + noise"
    assert json.loads(says["generator"]) == SPECS["compact"]
    content = read_checkpoint(files[1])
    assert list(content) == ["params_ema"]
    assert all(isinstance(value, torch.Tensor) for value in content["params_ema"].values())
    for file in files:
        for text in (b"/home", b"anna", b"discriminator", b"site-packages", bytes(Path(__file__).parents[2])):
            assert text not in file.read_bytes(), (file, text)


@pytest.mark.parametrize("format", EXPORTS)
def test_a_file_that_disagrees_is_not_left(tmp_path, format, monkeypatch):
    source = checkpoint(tmp_path / "a.ckpt", "rrdb")
    other = load_generator(source)
    kind = EXPORTS[format]
    other.conv_last.bias.data[1] += (wrong := 0.1 if kind.half else 2e-3)
    monkeypatch.setitem(EXPORTS, format, kind._replace(write=lambda network, *rest: kind.write(other, *rest)))
    with pytest.raises(InputError, match=rf"a\S*\.\w+: not written, it would differ by {wrong} from the network"):
        export(source, format=format)
    other.conv_last.bias.data[1] = torch.nan
    says = r"does not run \(its weights conv_last\.bias are NaN" if kind.weights else "it would differ by nan"
    with pytest.raises(InputError, match=rf"not written, .*{says}"):
        export(source, format=format, half=True)
    assert [path.name for path in tmp_path.iterdir()] == ["a.ckpt"]


def test_weights_beyond_half_precision_are_refused(tmp_path):
    torch.manual_seed(0)
    net = RRDBNet(8, 1, 32)
    net.conv_hr.weight.data *= 1e7
    net.conv_last.weight.data /= 1e7
    torch.save(net.state_dict(), tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"a-fp16\.onnx: not written, .*; take half=false"):
        export(tmp_path / "a.pth", format="onnx", half=True)


def test_a_small_network_of_ours_says_what_opens_it(tmp_path, caplog):
    caplog.set_level("INFO")
    export(checkpoint(tmp_path / "a.ckpt", "rrdb"))
    assert "RRDBNet x4, float32, " in caplog.text
    assert "does not differ from the network" in caplog.text
    export(checkpoint(tmp_path / "b.ckpt", "compact"))
    assert "spandrel" not in caplog.text
    export(checkpoint(tmp_path / "c.ckpt", "edsr"))
    assert "do not know this network; format=onnx" in caplog.text


def test_what_spandrel_would_pad_is_said(tmp_path, caplog):
    """Real-ESRGAN's network for x2 reads squares of pixels as channels."""
    torch.manual_seed(0)
    state = RRDBNet(8, 1, 32).state_dict() | {"conv_first.weight": torch.randn(8, 12, 3, 3) / 10}
    torch.save(state, tmp_path / "x2.pth")
    network = load_generator(tmp_path / "x2.pth")
    assert network.scale == 2
    export(tmp_path / "x2.pth", format="onnx")
    assert "multiples of 4, from 4 pixels on; realsr.upscale pads others" in caplog.text


@pytest.fixture
def mistake(compose, tmp_path):
    """The one line that a mistake would end with."""
    checkpoint(tmp_path / "a.ckpt", "compact")

    def make(*overrides):
        with pytest.raises(Exception) as error:
            _run(compose("export", *overrides))
        line = explain(error.value)
        assert line is not None, error.getrepr()
        assert "\n" not in line
        return line

    return make


def test_mistakes_are_one_clear_line(mistake, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("there.onnx").write_bytes(b"mine")
    Path("folder.onnx").mkdir()
    Path("file").write_bytes(b"")
    torch.save(PatchDiscriminator(4).state_dict(), "disc.pth")
    Path("broken.pth").write_bytes(Path("a.ckpt").read_bytes()[:1000])
    Path("link.safetensors").symlink_to("weights.safetensors")
    export("a.ckpt", "weights.safetensors")
    torch.jit.save(torch.jit.script(nn.ReLU()), "program.pt")
    export("a.ckpt", "program.onnx", "onnx")
    before = sorted(Path().iterdir())
    for program in ("program.pt", "program.onnx"):
        assert f"{program}: is no checkpoint that can be read (a network in a program" in mistake(f"ckpt={program}")
    assert mistake("ckpt=a.ckpt", "format=onxx") == (
        "format=onxx: choose safetensors, pth, onnx, ncnn, did you mean onnx?"
    )
    assert mistake("ckpt=none.ckpt") == "none.ckpt: no such checkpoint"
    assert "folder.onnx: no such checkpoint (the folder holds no checkpoints/last" in mistake("ckpt=folder.onnx")
    assert "broken.pth: is no checkpoint that can be read" in mistake("ckpt=broken.pth")
    assert "disc.pth: holds no generator" in mistake("ckpt=disc.pth")
    assert "is the checkpoint itself" in mistake("ckpt=weights.safetensors", "overwrite=true")
    assert "is the checkpoint itself" in mistake(
        "ckpt=weights.safetensors", "output=link.safetensors", "overwrite=true"
    )
    assert "output=x.onnx: format=safetensors is a .safetensors file" in mistake("ckpt=a.ckpt", "output=x.onnx")
    assert "output=x: format=onnx is a .onnx file" in mistake("ckpt=a.ckpt", "format=onnx", "output=x")
    assert "there.onnx: is there already; overwrite=true" in mistake("ckpt=a.ckpt", "format=onnx", "output=there.onnx")
    assert "folder.onnx: is a folder" in mistake("ckpt=a.ckpt", "format=onnx", "output=folder.onnx")
    assert "file: cannot be written to" in mistake("ckpt=a.ckpt", "output=file/x.safetensors")
    assert sorted(Path().iterdir()) == before
    assert Path("there.onnx").read_bytes() == b"mine"
    export("a.ckpt", "there.onnx", "onnx", overwrite=True)
    assert Path("there.onnx").stat().st_size > 1000


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_without_the_extra_the_line_names_it(mistake, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    line = mistake(f"ckpt={tmp_path / 'a.ckpt'}", "format=onnx")
    assert "pip install 'realsr[onnx]'" in line
    assert [path.name for path in tmp_path.iterdir()] == ["a.ckpt"]


# What docs/upscaling.md says to those who have ONNX Runtime alone, where neither torch nor realsr can be imported.
PAGE = (Path(__file__).parents[2] / "docs" / "upscaling.md").read_text(encoding="utf-8")
EXAMPLE = PAGE.split("```python\n")[1].split("```")[0]
ALONE = 'import sys\nsys.modules["torch"] = sys.modules["realsr"] = None\n' + EXAMPLE


def test_onnx_runtime_alone_enlarges_a_photo(tmp_path):
    source = checkpoint(tmp_path / "a.ckpt", "compact")
    export(source, tmp_path / "model.onnx", "onnx")
    photo = np.random.default_rng(0).integers(0, 256, (7, 12, 3), dtype=np.uint8)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    done = subprocess.run([sys.executable, "-I", "-c", ALONE], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        sr = load_generator(source)(torch.from_numpy(photo).permute(2, 0, 1)[None] / 255)[0].clamp(0, 1)
    large = np.asarray(Image.open(tmp_path / "large.png"), np.float32)
    assert np.abs(large - 255 * sr.permute(1, 2, 0).numpy()).max() < 0.51


def test_the_command_writes_a_file_and_says_how_far_it_is(tmp_path):
    checkpoint(tmp_path / "a.ckpt", "compact")
    start = [sys.executable, "-m", "realsr.export", "ckpt=a.ckpt", "format=onnx"]
    done = subprocess.run(start, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "a.onnx: RealESRGAN Compact x4, float32, 0.1 MB; read back, it differs by" in done.stdout
    first, _, where, upscale = done.stdout.splitlines()
    assert first == "writing the network of a.ckpt as format=onnx and reading it back"
    assert where == "a.onnx is for ONNX Runtime and programs that have it, and for us; next:"
    assert upscale == "  python -m realsr.upscale ckpt=a.onnx input=photos output=large"
    again = run_forked(*start[2:], cwd=tmp_path, check=False)
    assert again.returncode == 2
    assert again.stderr == "realsr: a.onnx: is there already; overwrite=true replaces it, output=FILE writes another\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.ckpt", "a.onnx"]
