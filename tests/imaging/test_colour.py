import json

import numpy as np
import pytest
import torch
from conftest import nearest, save_compact
from scipy.ndimage import gaussian_filter, map_coordinates

from realsr.evaluate import _run as run_evaluate
from realsr.imaging import colour, read_image
from realsr.imaging.colour import colour_difference, match_colours
from realsr.runtime.files import find_images
from realsr.upscale import _run as run_upscale


def cells(image, height, width):
    """Means of the rectangles of an ``(H, W, 3)`` array, whole ones only."""
    h, w = image.shape[0] // height, image.shape[1] // width
    return image[: h * height, : w * width].reshape(h, height, w, width, 3).mean((1, 3))


def array(image):
    return image[0].permute(1, 2, 0).double().numpy()


@pytest.mark.parametrize(("height", "width"), [(32, 48), (37, 20), (5, 40)])
def test_the_difference_is_that_of_means_over_16_lr_pixels(height, width):
    torch.manual_seed(0)
    lr, sr = torch.rand(1, 3, height, width), torch.rand(1, 3, 4 * height, 4 * width)
    rows, columns = min(height, 16), min(width, 16)  # a small image is one cell
    expected = np.abs(cells(array(sr), 4 * rows, 4 * columns) - cells(array(lr), rows, columns)).mean()
    assert float(colour_difference(sr, lr, 4)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("scale", "height", "width"), [(4, 33, 50), (2, 20, 14), (4, 1, 1), (4, 3, 40)])
@pytest.mark.parametrize("band", [256, 7])
def test_matching_is_scipys_gaussian_of_what_cells_lack(monkeypatch, scale, height, width, band):
    monkeypatch.setattr(colour, "BAND", band)
    torch.manual_seed(0)
    lr = torch.rand(1, 3, height, width) * 0.2 + 0.5
    sr = torch.rand(1, 3, scale * height, scale * width) * 0.2 + 0.4
    y, x = (((np.arange(scale * side) + 0.5) / scale - 0.5) for side in (height, width))
    expected = array(sr)
    for c in range(3):
        lack = array(lr)[..., c] - cells(array(sr), scale, scale)[..., c]
        smooth = [gaussian_filter(part, 4, mode="constant", truncate=3) for part in (lack, np.ones_like(lack))]
        grid = np.meshgrid(y, x, indexing="ij")
        expected[..., c] += map_coordinates(smooth[0] / smooth[1], grid, order=1, mode="nearest")
    match_colours(sr, lr, scale)
    np.testing.assert_allclose(array(sr), expected, atol=1e-5)


def test_a_tint_goes_and_detail_and_range_stay():
    torch.manual_seed(0)
    hr = torch.rand(1, 3, 1, 1).expand(1, 3, 256, 256) * 0.5 + 0.25
    detail = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(128, 128) * 0.1
    tint = torch.linspace(-0.1, 0.1, 256) * torch.tensor([1.0, 0.0, -1.0]).view(1, 3, 1, 1)
    sr = hr + tint + detail
    match_colours(sr, hr[..., ::4, ::4], 4)
    inside = (sr - hr - detail)[..., 64:-64, 64:-64]
    assert inside.abs().max() < 1e-3
    assert (sr - hr - detail).abs().max() < 0.02  # at the border the mean is of one side
    bright = torch.full((1, 3, 64, 64), 0.9) + detail[:64, :64]
    match_colours(bright, torch.full((1, 3, 16, 16), 0.97), 4)
    assert bright.max() == 1


def test_noise_of_lr_stays_out():
    generator = torch.Generator().manual_seed(0)
    sr, noise = torch.full((1, 3, 512, 512), 0.5), torch.randn(1, 3, 128, 128, generator=generator) * 8 / 255
    match_colours(sr, 0.5 + noise, 4)
    inside = sr[..., 64:-64, 64:-64]
    assert 255 * float(inside.std()) == pytest.approx(8 / (2 * np.pi**0.5 * 4), rel=0.15)


@pytest.mark.parametrize("keep", [None, True])
def test_commands_keep_colours_when_told_to(compose, photo_folder, tmp_path, keep):
    """A generator that is nearest-neighbour upscaling, and 0.05 too red."""
    save_compact(nearest((0.05, 0, 0)), tmp_path / "red.ckpt")
    hr, output = photo_folder("hr", count=2), tmp_path / "out"
    given = [f"ckpt={tmp_path / 'red.ckpt'}", "accelerator=cpu", *(["keep_colours=true"] if keep else [])]
    run_evaluate(compose("evaluate", *given, f"hr={hr}", f"output={output}", "metrics.lpips=null"))
    mean = json.loads((output / "metrics.json").read_text())["mean"]
    assert (mean["model"]["psnr"] > mean["bicubic"]["psnr"] - 1.5) == bool(keep)
    run_upscale(compose("upscale", *given, f"input={hr}", f"output={output / 'large'}"))
    for photo in find_images(hr):
        lr, sr = (read_image(path).rgb.mean((0, 1)) for path in (photo, output / "large" / photo.name))
        shift = [0, 0, 0] if keep else [0.05 * 255, 0, 0]
        np.testing.assert_allclose(sr - lr, shift, atol=1.5)
