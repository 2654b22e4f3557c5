import math

import numpy as np
import pytest
import torch

from realsr.imaging.metrics import image_metrics, metric_objects, ssim, y_view
from realsr.runtime.errors import InputError


@pytest.fixture
def pair(golden):
    """``(1, 3, H, W)`` float64 in [0, 1]: sr, hr."""
    images = golden("metrics_images.npz")
    return [torch.from_numpy(images[name]).permute(2, 0, 1)[None].double() / 255 for name in ("sr", "hr")]


def test_equals_the_reference_program(golden, pair):
    reference = golden("metrics.json")
    whole, shaved = image_metrics(*pair, border=0), image_metrics(*pair, border=4)
    assert whole["psnr"] == pytest.approx(reference["psnr_rgb"], abs=2e-5)
    assert whole["ssim"] == pytest.approx(reference["ssim_rgb_bug"], abs=2e-5)
    assert shaved["psnr"] == pytest.approx(reference["psnr_rgb_crop4"], abs=2e-5)
    assert shaved["psnr_y"] == pytest.approx(reference["psnr_y_crop4"], abs=2e-5)
    assert shaved["ssim_y"] == pytest.approx(reference["ssim_y_crop4"], abs=2e-5)
    assert shaved["ssim"] == pytest.approx(reference["ssim_rgb_crop4_mean_of_channels"], abs=2e-5)


def test_every_image_of_a_batch_has_its_own_value(pair):
    sr, hr = pair
    batch = torch.cat([sr, (sr + 3 * hr) / 4]), torch.cat([hr, hr])
    both = ssim(*batch)
    assert both.shape == (2,) and both[1] > both[0]
    torch.testing.assert_close(both[:1], ssim(sr, hr))


def test_luma_spans_the_studio_range():
    black_and_white = torch.stack([torch.zeros(3, 2, 2), torch.ones(3, 2, 2)])
    torch.testing.assert_close(y_view(black_and_white, 0)[:, 0, 0, 0] * 255, torch.tensor([16.0, 235.0]))


def test_sr_is_rounded_to_eight_bits_and_clipped(pair):
    hr = torch.ones(1, 3, 32, 32) * 100 / 255
    assert image_metrics(hr + 0.4 / 255, hr, 0)["psnr"] == math.inf
    assert image_metrics(hr + 0.6 / 255, hr, 0)["psnr"] == pytest.approx(20 * np.log10(255), abs=1e-5)
    white = torch.ones(1, 3, 32, 32)
    assert image_metrics(white * 1.5, white, 0)["psnr"] == math.inf


def test_sizes_that_differ(pair):
    with pytest.raises(InputError, match="sr is 160x124 pixels, hr 160x128"):
        image_metrics(pair[0][..., :-4, :], pair[1], 4)


@pytest.mark.parametrize("height, width, border, fits", [(11, 11, 0, True), (10, 30, 0, False), (30, 18, 4, False)])
def test_smallest_image(height, width, border, fits):
    image = torch.rand(1, 3, height, width)
    if fits:
        assert image_metrics(image, image, border)["ssim"] == pytest.approx(1)
    else:
        with pytest.raises(InputError, match=f"{width}x{height} pixels are too few"):
            image_metrics(image, image, border)


def test_lpips_sees_the_whole_rounded_image(pair):
    def stand_in(sr, hr):
        assert sr.dtype == hr.dtype == torch.float32 and sr.shape == pair[0].shape
        torch.testing.assert_close(sr * 255, (sr * 255).round(), atol=1e-4, rtol=0)
        return (sr - hr).abs().mean()

    value = image_metrics(pair[0] + 0.3 / 255, pair[1], 4, stand_in)["lpips"]
    assert value == pytest.approx(float((pair[0] - pair[1]).abs().mean()), abs=1e-6)
    assert "lpips" not in image_metrics(*pair, 4)


def test_large_pictures_are_compared_in_strips(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    hr = torch.rand(2, 3, 75, 40, generator=generator)
    sr = (hr + 0.1 * torch.randn(hr.shape, generator=generator)).clamp(0, 1)
    whole = ssim(sr, hr)
    for rows in (1, 20, 65):  # of 65 that the window fits
        monkeypatch.setattr("realsr.imaging.metrics.SSIM_STRIP", rows * 40)
        torch.testing.assert_close(ssim(sr, hr), whole, rtol=1e-6, atol=0)


def test_objects_take_the_mean_over_images_of_any_size(pair):
    sr, hr = (image.float() for image in pair)
    batches = [(sr, hr), ((sr + 3 * hr)[..., 20:90, :70] / 4, hr[..., 20:90, :70])]
    objects, each = metric_objects(4, "val/"), [image_metrics(*batch, border=4) for batch in batches]
    for batch, values in zip(batches, each, strict=True):
        assert {key: float(value) for key, value in objects(*batch).items()} == pytest.approx(
            {f"val/{key}": value for key, value in values.items()}, rel=1e-6
        )
    expected = {f"val/{key}": np.mean([values[key] for values in each]) for key in each[0]}
    assert {key: float(value) for key, value in objects.compute().items()} == pytest.approx(expected, rel=1e-6)
