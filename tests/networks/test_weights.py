import os
import random
import re
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from realsr.networks.edsr import EDSR
from realsr.networks.patch import PatchDiscriminator
from realsr.networks.rrdb import RRDBNet
from realsr.networks.weights import load_generator, load_weights, read_checkpoint
from realsr.runtime.errors import InputError
from realsr.upscaling.backends import load_model

BASICSR = [("RRDB_trunk.", "body."), (".RDB", ".rdb"), ("trunk_conv", "conv_body"), ("upconv", "conv_up")]
BASICSR += [("HRconv", "conv_hr")]
OLD_ARCH = [("conv_first", "model.0"), ("RRDB_trunk.", "model.1.sub."), ("trunk_conv", "model.1.sub.2")]
OLD_ARCH += [("upconv1", "model.3"), ("upconv2", "model.6"), ("HRconv", "model.8"), ("conv_last", "model.10")]


@pytest.fixture
def published(golden):
    """Input, output and state, under RealSR's key names, of a small network of the reference program."""
    data = {name: torch.from_numpy(value) for name, value in golden("rrdbnet.npz").items()}
    state = {k.removeprefix("state/"): v for k, v in data.items() if k.startswith("state/")}
    return data["x"], data["y"], state


def spelled(state, spelling):
    """RealSR's key names in another spelling."""
    renamed = {}
    for key, value in state.items():
        for old, new in {"basicsr": BASICSR, "old": OLD_ARCH}.get(spelling, []):
            key = key.replace(old, new)
        renamed[re.sub(r"(RDB\d\.conv\d)", r"\1.0", key) if spelling == "old" else key] = value
    return renamed


def lightning(state):
    others = {"discriminator.model.0.weight": torch.ones(1), "critic_seen": torch.ones(1)}
    config = {"_target_": "realsr.networks.rrdb.RRDBNet", "features": 8, "blocks": 2, "growth": 4}
    return {
        "state_dict": {**{f"generator.{k}": v for k, v in state.items()}, **others},
        "config": {"model": {"generator": config, "_target_": "realsr.training.esrgan.ESRGAN"}, "seed": 1},
        "optimizer_states": [{"state": {}, "param_groups": [{"lr": 1e-4}]}],
    }


FILES = {
    "new-arch": lambda s: s,
    "old-arch": lambda s: spelled(s, "old"),
    "basicsr": lambda s: spelled(s, "basicsr"),
    "params": lambda s: {"params": spelled(s, "basicsr")},
    "params_ema": lambda s: {"params": {"of": torch.zeros(1)}, "params_ema": spelled(s, "basicsr")},
    "data-parallel": lambda s: {f"module.{k}": v for k, v in s.items()},
    "lightning": lambda s: lightning(spelled(s, "basicsr")),
    "lightning-without-config": lambda s: {"state_dict": lightning(spelled(s, "basicsr"))["state_dict"]},
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ["generator", "weights"])
def test_every_spelling_gives_the_published_output(tmp_path, published, name, how):
    x, y, state = published
    torch.save(FILES[name](state), tmp_path / "net.pth")
    if how == "generator":
        network = load_generator(tmp_path / "net.pth")
        assert not network.training
    else:
        network = RRDBNet(8, 2, 4)
        load_weights(network, tmp_path / "net.pth")
    with torch.no_grad():
        torch.testing.assert_close(network(x), y, atol=1e-5, rtol=0)


@pytest.mark.parametrize("spelling", ["new", "old", "basicsr"])
def test_safetensors(tmp_path, published, spelling):
    x, y, state = published
    save_file(spelled(state, spelling), tmp_path / "net.safetensors")
    with torch.no_grad():
        torch.testing.assert_close(load_generator(tmp_path / "net.safetensors")(x), y, atol=1e-5, rtol=0)


@pytest.mark.parametrize("spelling", ["new", "old", "basicsr"])
def test_half_precision_weights_are_rounded_and_nothing_else(tmp_path, published, spelling):
    x, y, state = published
    half = {k: v.half() for k, v in spelled(state, spelling).items()}
    torch.save(half, tmp_path / "half.pth")
    network = load_generator(tmp_path / "half.pth")
    assert all(p.dtype == torch.float32 for p in network.parameters())
    torch.testing.assert_close(network.conv_first.weight.data, state["conv_first.weight"].half().float())
    with torch.no_grad():
        torch.testing.assert_close(network(x), y, atol=1e-2, rtol=0)


def test_our_checkpoint_builds_the_network_it_names(tmp_path):
    torch.manual_seed(0)
    source = EDSR(8, 2, 0.3).eval()
    spec = {"_target_": "realsr.networks.edsr.EDSR", "features": 8, "blocks": 2, "residual_scale": 0.3}
    state = {f"generator.{k}": v for k, v in source.state_dict().items()}
    torch.save({"state_dict": state, "config": {"model": {"generator": spec}}}, tmp_path / "last.ckpt")
    lr = torch.rand(1, 3, 9, 7)
    with torch.no_grad():
        assert torch.equal(load_generator(tmp_path / "last.ckpt")(lr), source(lr))


def complaint(load, path):
    """What is said about a wrong file: one line that names it."""
    with pytest.raises(InputError) as caught:
        load(path)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    return message


def into(network):
    return lambda path: load_weights(network, path)


@pytest.mark.parametrize(
    "network, says",
    [
        (RRDBNet(16, 2, 4), "conv_first.weight is (8, 3, 3, 3), RRDBNet needs (16, 3, 3, 3)"),
        (RRDBNet(8, 3, 4), "it lacks body.2.rdb1.conv1.weight"),
        (RRDBNet(8, 1, 4), "body.1.rdb1.conv1.weight is of no use here"),
        (PatchDiscriminator(8), "it lacks model.0.weight"),
    ],
    ids=["features", "missing", "extra", "another"],
)
def test_another_architecture_is_said_to_differ(tmp_path, published, network, says):
    torch.save(published[2], tmp_path / "net.pth")
    before = {k: v.clone() for k, v in network.state_dict().items()}
    message = complaint(into(network), tmp_path / "net.pth")
    assert says in message and type(network).__name__ in message
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


@pytest.mark.parametrize("load", [load_generator, into(RRDBNet(8, 2, 4))], ids=["generator", "weights"])
@pytest.mark.parametrize(
    "change, says",
    [
        (lambda s: s.pop("conv_last.bias"), "it lacks conv_last.bias"),
        (lambda s: s.update(gamma=torch.ones(1)), "gamma is of no use here"),
        (lambda s: s.update({"HRconv.weight": torch.ones(8, 12, 3, 3)}), "RRDBNet needs (8, 8, 3, 3)"),
    ],
    ids=["missing", "extra", "shape"],
)
def test_a_wrong_key_is_named(tmp_path, published, load, change, says):
    change(published[2])
    torch.save(published[2], tmp_path / "net.pth")
    assert says in complaint(load, tmp_path / "net.pth")


BYTES = {
    "empty": (b"", "it is empty: copy or download it again"),
    "text": (b"hello world\nthis is text", ""),
    "html": (b"\n<!DOCTYPE html>\n<html></html>", "it is a web page, not the file behind it"),
    "xml": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "it is a web page"),
    "git-lfs": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 66929193\n",
        "it is a Git-LFS pointer to the file: git lfs pull brings that",
    ),
    "zeros": (bytes(100), ""),
}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("name", BYTES)
def test_files_that_are_no_checkpoints(tmp_path, name, suffix):
    path, (content, says) = tmp_path / f"net{suffix}", BYTES[name]
    path.write_bytes(content)
    message = complaint(load_generator, path)
    assert f"no checkpoint that can be read ({says}" in message
    assert "run code" not in message  # nothing in these files could
    if says:
        path.rename(tmp_path / "net.onnx")
        assert f"net.onnx: is no checkpoint that can be read ({says}" in complaint(load_model, tmp_path / "net.onnx")


@pytest.mark.parametrize("part", [0.02, 0.5, 0.99])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_truncated_files(tmp_path, published, part, suffix):
    path = tmp_path / f"net{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(published[2], path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    wanted = rf"no checkpoint that can be read \((cut off after {path.stat().st_size} bytes|damaged, or not written to)"
    assert re.search(wanted, complaint(load_generator, path))


def test_any_rubbish_is_an_input_error(tmp_path):
    path = tmp_path / "net.pth"
    for seed in range(300):
        path.write_bytes(random.Random(seed).randbytes(60))
        complaint(read_checkpoint, path)


def test_missing_file(tmp_path):
    assert "no such checkpoint" in complaint(load_generator, tmp_path / "net.pth")
    assert "no such checkpoint" in complaint(load_generator, tmp_path)


@pytest.mark.parametrize(
    "content, says",
    [
        ([torch.ones(2)], "holds a list"),
        (torch.ones(2), "holds a Tensor"),
        ({}, "holds no"),
        ({"epoch": 3}, "holds no"),
        ({0: torch.ones(1)}, "holds no"),
        ({"model.0.weight": torch.ones(1)}, "holds no generator"),
    ],
)
def test_content_that_is_no_network(tmp_path, content, says):
    torch.save(content, tmp_path / "net.pth")
    assert says in complaint(load_generator, tmp_path / "net.pth")


class Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_file_is_not_run(tmp_path, zipped):
    path, marker = tmp_path / "net.pth", tmp_path / "ran"
    content = {"conv_first.weight": torch.ones(1), "extra": Evil(marker)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    assert "could run code" in complaint(load_generator, path)
    assert not marker.exists()
    torch.load(path, weights_only=False)  # it would have
    assert marker.exists()


def test_code_in_a_config_is_not_run(tmp_path, published, monkeypatch):
    monkeypatch.setenv("HYDRA_INSTANTIATE_ALLOWLIST", "os.system")  # not Hydra's list is to save us: 1.3.2 has none
    path, marker = tmp_path / "net.ckpt", tmp_path / "ran"
    call = {"_target_": "os.system", "command": f"touch {marker}"}
    through_a_module = {"_target_": "realsr.networks.weights.torch.os.system", "command": f"touch {marker}"}
    through_hydra = {"_target_": "realsr.networks.weights.instantiate", "config": call}
    as_an_option = {"_target_": "realsr.networks.rrdb.RRDBNet", "features": call}
    for spec in (call, through_a_module, through_hydra, as_an_option):
        content = lightning(spelled(published[2], "basicsr"))
        content["config"]["model"]["generator"] = spec
        torch.save(content, path)
        assert str(spec["_target_"]) in complaint(load_generator, path)
        assert not marker.exists()


@pytest.mark.parametrize(
    "spec, says",
    [
        ({"_target_": "realsr.networks.rrdb.RRDBNet", "colours": 3}, "colours"),
        ({"_target_": "realsr.networks.rrdb.RRDBNet", "features": "many"}, "RRDBNet"),
        ({"_target_": "realsr.networks.rrdb.Nothing"}, "Nothing"),
        ({"_target_": "realsr.networks.nothing.RRDBNet"}, "nothing"),
        ({"_target_": "realsr.networks.weights.load_weights"}, "load_weights"),
        ({"_target_": "torch.nn.Conv2d"}, "torch.nn.Conv2d"),
        ({}, "None"),
    ],
)
def test_a_config_that_builds_nothing_of_ours(tmp_path, published, spec, says):
    content = lightning(spelled(published[2], "basicsr"))
    content["config"]["model"]["generator"] = spec
    torch.save(content, tmp_path / "net.ckpt")
    assert says in complaint(load_generator, tmp_path / "net.ckpt")


@pytest.mark.parametrize("config", [None, "esrgan", {"model": None}, {"model": {"generator": None}}, {}])
def test_a_config_without_generator_leaves_the_shapes_to_tell(tmp_path, published, config):
    x, y, state = published
    torch.save({**lightning(spelled(state, "basicsr")), "config": config}, tmp_path / "net.ckpt")
    with torch.no_grad():
        torch.testing.assert_close(load_generator(tmp_path / "net.ckpt")(x), y, atol=1e-5, rtol=0)


@pytest.mark.parametrize("says", ["somebody's program", '"text"', '{"name": "x"}', "[" * 100_000, "", "7"])
def test_what_other_programs_say_in_a_header_is_not_for_us(tmp_path, published, says):
    x, y, state = published
    save_file(spelled(state, "basicsr"), tmp_path / "a.safetensors", {"generator": says})
    torch.testing.assert_close(load_generator(tmp_path / "a.safetensors")(x), y)


def test_a_header_names_networks_of_ours_alone(tmp_path, published):
    save_file(published[2], tmp_path / "a.safetensors", {"generator": '{"_target_": "os.system", "command": "true"}'})
    with pytest.raises(InputError, match=r"its generator 'os\.system' is none of realsr\.networks"):
        load_generator(tmp_path / "a.safetensors")


ODD = {
    "NaN": lambda v: v * torch.nan,
    "infinite": lambda v: v + torch.inf,
    "whole": lambda v: (100 * v).int(),
    "complex": lambda v: v.to(torch.complex64),
    "sparse": lambda v: v.to_sparse(),
    "nowhere": lambda v: v.to("meta"),
    "one number": lambda v: torch.zeros(1).expand(v.shape),
}


@pytest.mark.filterwarnings("error")  # beside the line, that would be a second one
@pytest.mark.parametrize("name", ODD)
def test_weights_that_are_no_numbers_to_compute_with(tmp_path, published, name):
    state = spelled(published[2], "basicsr")
    key = "conv_body.weight"
    torch.save({**state, key: ODD[name](state[key])}, tmp_path / "a.pth")
    assert f"its weights {key} are NaN, infinite or no plain numbers" in complaint(load_generator, tmp_path / "a.pth")


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16, torch.float16])
def test_weights_of_other_precisions_are_taken(tmp_path, published, kind):
    x, y, state = published
    torch.save({key: value.to(kind) for key, value in spelled(state, "basicsr").items()}, tmp_path / "a.pth")
    with torch.no_grad():
        torch.testing.assert_close(load_generator(tmp_path / "a.pth")(x), y, atol=0.1, rtol=0.1)


@pytest.mark.parametrize("options", [{"blocks": 10**9}, {"features": 2**40}, {"growth": 10**6, "features": 10**6}])
def test_a_config_does_not_make_a_network_larger_than_its_weights(tmp_path, published, options):
    content = lightning(spelled(published[2], "basicsr"))
    content["config"]["model"]["generator"] = {"_target_": "realsr.networks.rrdb.RRDBNet", **options}
    torch.save(content, tmp_path / "net.ckpt")
    assert "is more than its weights have" in complaint(load_generator, tmp_path / "net.ckpt")


def test_shapes_without_numbers_do_not_take_the_memory_of_a_network(tmp_path, published):
    """Half a kilobyte that says to be an RRDBNet of a terabyte."""
    names = ("conv_first", "body.0.rdb1.conv1", "conv_up1", "conv_up2", "conv_last")
    shape = torch.zeros(1).expand(200_000, 3, 3, 3)
    torch.save({f"{name}.weight": shape for name in names}, tmp_path / "a.pth")
    assert "holds another architecture" in complaint(load_generator, tmp_path / "a.pth")


def test_a_discriminator_enlarges_nothing(tmp_path):
    network = PatchDiscriminator(features=4)
    spec = {"_target_": "realsr.networks.patch.PatchDiscriminator", "features": 4}
    state = {f"generator.{key}": value for key, value in network.state_dict().items()}
    torch.save({"config": {"model": {"generator": spec}}, "state_dict": state}, tmp_path / "a.ckpt")
    assert "it enlarges nothing" in complaint(load_generator, tmp_path / "a.ckpt")


def test_a_packed_file_is_not_unpacked_to_a_thousand_times_its_size(tmp_path, published):
    torch.save(published[2], tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth") as file, zipfile.ZipFile(tmp_path / "b.pth", "w", 8) as bomb:
        for entry in file.infolist():
            data = bytes(20_000_000) if entry.filename.endswith("/data/0") else file.read(entry)
            bomb.writestr(entry.filename, data)
    assert "would be unpacked to 20 MB" in complaint(load_generator, tmp_path / "b.pth")
