"""Where a training starts: files, published weights that are downloaded once, and what is said at the end."""

from __future__ import annotations

import logging
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from omegaconf import OmegaConf

from realsr.data.datasets import Pair
from realsr.evaluation.evaluator import compare_means, validation_means
from realsr.networks.community import scale_of
from realsr.networks.starts import start_file
from realsr.networks.weights import generator_spec, load_generator
from realsr.runtime.errors import InputError
from realsr.runtime.help import conf_dir
from realsr.training.run import take_generator

ADDRESS = "https://example.org/a/net.pth"
STARTS = {path.stem: OmegaConf.load(path) for path in (Path(conf_dir()) / "start").glob("*.yaml")}


@pytest.fixture
def publisher(monkeypatch, tmp_path):
    """What the publisher has under the address, and how often it was fetched."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    offered = {"content": b"weights", "times": 0}

    def download(url, target, hash_prefix=None, progress=True):
        if offered["content"] is None:
            raise URLError("no network")
        offered["times"] += 1
        Path(target).write_bytes(offered["content"])

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    return offered


def test_a_path_is_taken_as_it_is(publisher):
    assert start_file("some/net.pth") == Path("some/net.pth")
    assert not publisher["times"]


def test_an_address_is_fetched_once(publisher, tmp_path):
    file = start_file(ADDRESS)
    assert file.read_bytes() == b"weights" and file.name == "net.pth" and tmp_path / "torch" in file.parents
    publisher["content"] = None
    assert start_file(ADDRESS) == file and publisher["times"] == 1
    with pytest.raises(InputError, match=r"other\.org/net\.pth: cannot be downloaded .*no network.*start=FILE"):
        start_file("https://other.org/net.pth")


def test_a_file_that_changed_is_refused(publisher):
    start_file(ADDRESS).write_bytes(b"others")
    with pytest.raises(InputError, match=r"net\.pth: is not what was downloaded first"):
        start_file(ADDRESS)


@pytest.mark.parametrize("name", sorted({*STARTS} - {"none"}))
def test_every_start_says_where_it_is_from_and_its_licence(name):
    start = STARTS[name].get("start", STARTS[name])
    weights = OmegaConf.to_container(start)["weights"]
    assert weights == "compact_x4" or weights.startswith("https://github.com/")
    assert start.license


def test_the_shipped_start_is_a_network_of_its_scale():
    """Small enough for the wheel, and better than nothing: it leaves a picture in its colours."""
    file = start_file("compact_x4")
    assert file.suffix == ".safetensors" and file.stat().st_size < 2.5e6
    network = load_generator(file)
    assert scale_of(network) == 4
    gray = torch.full((1, 3, 32, 32), 0.4)
    with torch.no_grad():
        assert (network(gray) - 0.4).abs().max() < 0.03
    assert generator_spec(file)["_target_"] == "spandrel.architectures.Compact.Compact"


def test_a_training_takes_the_generator_of_its_start_and_is_compared_with_it(fit, caplog):
    folder = fit("first", "trainer.max_steps=2", "degradation=bicubic", "model.generator.num_feat=6")
    last = folder / "checkpoints" / "last.ckpt"
    caplog.set_level(logging.INFO)
    second = fit(
        "second",
        *(f"start.weights={last}", "degradation=bicubic"),
        *("trainer.max_steps=1", "model.optimizer.lr=0"),
    )
    content = torch.load(second / "checkpoints" / "last.ckpt", weights_only=True)
    assert content["config"]["model"]["generator"]["num_feat"] == 6
    wanted = torch.load(last, weights_only=True)["state_dict"]
    for key, value in content["state_dict"].items():
        if key.startswith("generator_ema."):
            assert torch.equal(value, wanted[key])
    assert f"start: {last}, " in caplog.text
    [line] = [record.message for record in caplog.records if record.message.startswith("start -> adapted: PSNR ")]
    before, after = line.split("PSNR ")[1].split(",")[0].split(" -> ")
    assert before == after and "width of edges" in line


def test_a_model_that_the_start_overrules_is_named(compose, caplog):
    line = "model=esrgan: the start compact_x4 is a Compact, trained in place of RRDBNet; for that give start=none"
    for options, says in ((["model=esrgan"], [line]), (["model=compact"], []), ([], [])):
        caplog.clear()
        cfg = compose("train", "experiment=laptop", "data.source_dir=x", *options)
        take_generator(cfg)
        assert cfg.model.generator._target_ == "spandrel.architectures.Compact.Compact"
        assert caplog.messages == says


def test_the_comparison_names_the_better():
    start = {"psnr": 25.0, "lpips": 0.3, "noise": 1.0}
    assert compare_means(start, {"psnr": 26.0, "lpips": 0.2, "noise": 0.5}) == (
        "start -> adapted: PSNR 25.00 -> 26.00, LPIPS 0.3000 -> 0.2000, noise left 1.00 -> 0.50; "
        "the adapted network is better by PSNR and LPIPS"
    )
    assert compare_means(start, {"psnr": 26.0, "lpips": 0.4}).endswith(
        "the adapted network is better by PSNR, the start by LPIPS"
    )
    assert "the start is better by PSNR and LPIPS; " in compare_means(start, {"psnr": 24.0, "lpips": 0.4})
    assert compare_means({"noise": 1.0}, {"noise": 2.0}).endswith("neither is better by these")


def test_a_photo_without_edges_does_not_spoil_what_is_told_of_the_others():
    flat, edged = torch.full((3, 32, 32), 0.5), torch.zeros(3, 32, 32)
    edged[:, :, 16:] = 0.8
    photos = [Pair(lr=lr, hr=None, name=name) for name, lr in (("flat", flat), ("edged", edged))]
    enlarge = torch.nn.Upsample(scale_factor=4, mode="bicubic")
    alone, both = validation_means(enlarge, 4, photos[1:]), validation_means(enlarge, 4, photos)
    assert both["edges"] == alone["edges"] > 0
    assert "edges" not in validation_means(enlarge, 4, photos[:1])
    assert "NaN" not in compare_means(both, both)
