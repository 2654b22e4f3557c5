import logging
import math
import sys

import numpy as np
import pytest
import torch
from conftest import leaves, scene
from deepinv.loss.metric import NIQE as DeepinvNIQE  # noqa: N811
from scipy import ndimage
from skimage.util import view_as_blocks

from realsr.evaluation.no_reference import edge_width, load_niqe, noise_left, photo_metrics
from realsr.imaging.resample import imresize
from realsr.runtime.errors import InputError


def photo(seed, height=300, width=400, blur=0.0, noise=0.0):
    """A coloured picture of 8 bits, ``(1, 3, height, width)``."""
    image = leaves(height, width, seed=seed).numpy() * np.array([1.0, 0.9, 0.7])[:, None, None]
    image = ndimage.gaussian_filter(image, (0, blur, blur)) if blur else image
    image = image + np.random.default_rng(seed).normal(0, 1 + noise, image.shape) / 255
    return torch.from_numpy(np.round(image.clip(0, 1) * 255) / 255)[None]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Statistics of made pictures in place of the 125 photos of the paper, as the files of deepinv and BasicSR."""
    folder = tmp_path_factory.mktemp("niqe")
    mean, covariance = DeepinvNIQE(None, round_tensor=True).create_weights(
        [255 * photo(seed, 384, 576)[0].float() for seed in range(10, 14)], 0.0, folder / "niqe.pt"
    )
    np.savez(folder / "niqe.npz", mu_pris_param=mean[None], cov_pris_param=covariance, gaussian_window=0)
    return str(folder / "niqe.pt"), str(folder / "niqe.npz")


def test_large_pictures_in_less_memory(weights, monkeypatch):
    exact = load_niqe(weights[0])(photo(9, 480, 480, blur=0.5))
    monkeypatch.setattr("realsr.evaluation.no_reference.NIQE_EXACT", 480 * 480 - 1)
    value = load_niqe(weights[0])(photo(9, 480, 480, blur=0.5))
    assert value != exact and value == pytest.approx(exact, rel=0.02)


def test_niqe_ranks_blur_and_noise_behind_the_like_of_its_pristine_photos(weights):
    niqe = load_niqe(weights[1])
    clean, softer, soft, noisy = (niqe(photo(2, **how)) for how in ({}, {"blur": 1}, {"blur": 2}, {"noise": 9}))
    assert clean < softer < soft and clean < noisy


def test_niqe_takes_both_files_and_rounds_to_eight_bits(weights):
    image = photo(3)
    by_pt, by_npz = (load_niqe(file) for file in weights)
    assert by_pt(image) == by_npz(image) == by_pt(image.float()) == by_pt(image + 0.3 / 255)


def test_niqe_leaves_blank_blocks_out(weights):
    niqe, image = load_niqe(weights[0]), photo(4, 384, 400)
    value = niqe(image[..., 96:, :])
    image[..., :96, :] = 1
    assert niqe(image) == pytest.approx(value, rel=0.1)
    assert math.isnan(niqe(torch.zeros(1, 3, 192, 192)))


def test_smallest_picture_for_niqe(weights):
    niqe = load_niqe(weights[0])
    assert niqe(photo(5, 96, 192)) > 0
    for height, width in ((95, 400), (191, 191)):
        with pytest.raises(InputError, match=f"{width}x{height} pixels are too few for NIQE"):
            photo_metrics(photo(5, height, width), niqe)


def test_niqe_weights_that_are_wrong(tmp_path, weights):
    torch.save({"features": torch.ones(3)}, tmp_path / "other.pt")
    torch.save({"mu": torch.ones(36), "cov": torch.ones(18, 18)}, tmp_path / "half.pt")
    torch.save({"mu": torch.full((36,), math.nan), "cov": torch.eye(36)}, tmp_path / "nan.pt")
    np.savez(tmp_path / "other.npz", mu=np.ones(36))
    np.savez(tmp_path / "objects.npz", mu_pris_param=np.array([{}]), cov_pris_param=np.eye(36))
    (tmp_path / "damaged.npz").write_bytes(b"PK\3\4 no archive")
    (tmp_path / "page.npz").write_text("<html>404</html>")
    for name, says in {
        "missing.pt": "no such file of NIQE weights",
        "other.pt": "holds no NIQE weights, which are the arrays mu and cov",
        "half.pt": "36x36 covariances",
        "nan.pt": "all finite",
        "other.npz": "the arrays mu_pris_param and cov_pris_param",
        "objects.npz": "is no .npz file",
        "damaged.npz": "is no .npz file",
        "page.npz": "is no .npz file",
    }.items():
        with pytest.raises(InputError, match=says) as caught:
            load_niqe(str(tmp_path / name))
        assert name in str(caught.value) and "\n" not in str(caught.value)


def test_niqe_downloads_what_deepinv_offers(monkeypatch, weights):
    asked = []

    def download(url, **options):
        asked.append(url)
        return torch.load(weights[0], weights_only=True)

    monkeypatch.setattr("deepinv.loss.metric.perceptual.load_state_dict_from_url", download)
    assert load_niqe()(photo(6)) == load_niqe(weights[0])(photo(6))
    assert len(asked) == 1 and asked[0].startswith("https://") and "niqe_weights.pt" in asked[0]


def test_without_network_or_extra_niqe_is_left_out_with_one_line(monkeypatch, caplog, weights):
    def refuse(*args, **kwargs):
        raise OSError("no route to host")

    with caplog.at_level(logging.INFO):
        monkeypatch.setattr("deepinv.loss.metric.perceptual.load_state_dict_from_url", refuse)
        assert load_niqe() is None
        monkeypatch.setitem(sys.modules, "deepinv.loss.metric", None)  # as if not installed
        assert load_niqe() is None
    no_network, no_extra = (record.getMessage() for record in caplog.records)
    assert no_network.startswith("NIQE is left out: ") and "no route to host" in no_network
    assert "metrics.niqe.weights=FILE" in no_network and "pip install 'realsr[niqe]'" in no_extra
    with pytest.raises(InputError, match="pip install"):
        load_niqe(weights[0])


def noisy(image, sigma, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return image + sigma / 255 * torch.randn(image.shape, generator=generator)


@pytest.mark.parametrize("sigma", [1, 2, 5, 10])
def test_noise_that_was_added_is_found(sigma):
    values = photo_metrics(noisy(scene(480, 640, seed=1)[None], sigma))
    assert values["noise"] == pytest.approx(math.hypot(sigma, 12**-0.5), rel=0.06)  # rounding adds the other


def test_noise_is_what_is_left_of_a_plane_in_the_calmest_blocks():
    image = noisy(scene(160, 192, seed=2)[None].double(), 4)
    rows, columns = np.mgrid[:16, :16]
    plane = np.stack([np.ones(256), rows.ravel(), columns.ravel()], 1)
    variances = []
    for channel in image[0].numpy() * 255:
        for block in view_as_blocks(channel, (16, 16)).reshape(-1, 256):
            _, (squares,), *_ = np.linalg.lstsq(plane, block, rcond=None)
            variances.append(squares / 253)
    calmest = np.sort(np.reshape(variances, (3, -1)).mean(0))[:6]  # a twentieth of 120
    assert noise_left(image) == pytest.approx(np.sqrt(calmest.mean()), rel=1e-9)


def test_long_pictures_are_measured_whole():
    """In strips of 256 rows: noise that is less in the last is found; rows beyond the blocks are not seen."""
    image = noisy(torch.full((1, 3, 1038, 64), 0.5), 8)
    image[:, :, 1024:] = 0.5
    assert noise_left(image) == pytest.approx(8, rel=0.1)
    image[:, :, 1008:1024] = 0.5 + (image[:, :, 1008:1024] - 0.5) / 4
    assert noise_left(image) == pytest.approx(math.sqrt((4 * 2**2 + 9 * 7.5**2) / 13), rel=0.1)


def test_gradients_are_no_noise_and_clipped_places_are_not_looked_at():
    y, x = torch.meshgrid(torch.linspace(0.2, 0.5, 160), torch.linspace(0.1, 0.4, 192), indexing="ij")
    ramp = (y + x).expand(1, 3, -1, -1).clone()
    assert noise_left(ramp) < 1e-3
    image = noisy(ramp, 5).clamp(0, 1)
    image[..., :80, :] = 1
    image[..., 80:112, :] = 0
    assert noise_left(image) == pytest.approx(5, rel=0.1)
    assert math.isnan(noise_left(torch.ones(1, 3, 64, 64)))
    assert math.isnan(noise_left(torch.full((1, 3, 15, 64), 0.5)))


def test_noise_that_was_upscaled_is_mostly_found():
    lr = scene(120, 160, seed=3)
    grain = imresize(noisy(lr, 8), 4) - imresize(lr, 4)
    found = noise_left(imresize(noisy(lr, 8), 4)[None].clamp(0, 1))
    assert 0.65 < found / (255 * float(grain.std())) < 0.9


def blurred(image, sigma):
    return torch.from_numpy(ndimage.gaussian_filter(image.numpy(), (0, 0, sigma, sigma)))


def mosaic():
    """Squares of different grays, ``(1, 3, 480, 640)``."""
    grays = 0.1 + 0.8 * torch.rand(1, 1, 10, 14, generator=torch.Generator().manual_seed(0))
    return grays.repeat_interleave(48, 2).repeat_interleave(48, 3)[..., :640].repeat(1, 3, 1, 1)


def test_edges_grow_with_the_blur():
    image = mosaic()
    widths = [photo_metrics(blurred(image, sigma))["edges"] for sigma in (0.8, 1.2, 1.6, 2.0)]
    expected = [sigma * math.sqrt(2 * math.pi) for sigma in (0.8, 1.2, 1.6, 2.0)]
    np.testing.assert_allclose(widths, expected, rtol=0.12)


def test_strong_noise_hardly_hides_that_edges_are_soft():
    soft = blurred(mosaic(), 1.6)
    clean, grainy = edge_width(soft), noisy(soft, 12).clamp(0, 1)
    assert edge_width(grainy) < 0.75 * clean  # edges of the noise itself
    assert 0.85 * clean < edge_width(grainy, 12) < clean
    assert photo_metrics(grainy)["edges"] == pytest.approx(edge_width(grainy, 12), rel=0.05)


def test_pictures_without_an_edge():
    assert math.isnan(photo_metrics(torch.full((1, 3, 64, 64), 0.5))["edges"])
    assert math.isnan(edge_width(torch.rand(1, 3, 11, 64)))


def test_a_picture_ranks_before_its_bicubic_upscaling(weights):
    truth = photo(7, 384, 480)
    bicubic = imresize(imresize(truth[0], 0.25), 4)[None].clamp(0, 1)
    values = [photo_metrics(image, load_niqe(weights[0])) for image in (truth, bicubic)]
    assert [list(v) for v in values] == [["niqe", "noise", "edges"]] * 2
    assert values[0]["niqe"] < values[1]["niqe"] and values[0]["edges"] < 0.6 * values[1]["edges"]
    assert values[0] == photo_metrics(truth, load_niqe(weights[0]))
