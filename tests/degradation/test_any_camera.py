"""Cameras that are drawn anew for every image: what is drawn, and that each image gets its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import scene
from omegaconf import OmegaConf

from realsr.degradation.any_camera import AnyCamera
from realsr.degradation.sensor import degamma, gamma
from realsr.estimation.kernels import centre_index, centre_of_mass, covariance
from realsr.runtime.errors import InputError
from realsr.runtime.help import conf_dir

YAML = OmegaConf.load(Path(conf_dir()) / "degradation" / "any_camera.yaml").degradation
RANGES = {k: v for k, v in OmegaConf.to_container(YAML).items() if not k.startswith("_") and k != "scale"}
PLAIN = {"sharpening": [0, 0], "reduction": [0, 0], "chroma": [0, 0], "crosstalk": [0, 0], "quality": [100, 100]}


def camera(scale: int = 4, **changes: object) -> AnyCamera:
    return AnyCamera(scale, **{**RANGES, **changes})


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_crops_lose_their_margin_and_are_of_256_levels(scale):
    degrade = camera(scale)
    side = 24 * scale + 2 * degrade.margin
    hr = torch.stack([scene(side, side, seed) for seed in range(3)])
    lr = degrade(hr, seeded(), degrade.margin)
    assert degrade.margin % scale == 0 and lr.shape == (3, 3, 24, 24)
    torch.testing.assert_close(255 * lr, (255 * lr).round(), atol=1e-4, rtol=0)
    assert torch.equal(lr, degrade(hr, seeded(), degrade.margin))
    assert not torch.equal(lr, degrade(hr, seeded(1), degrade.margin))


def test_whole_photos_have_no_margin():
    lr = camera()(scene(64, 96)[None], seeded())
    assert lr.shape == (1, 3, 16, 24)


def test_every_image_goes_through_its_own_camera():
    """Of one gray wall the noisiest picture has ten times the noise of the cleanest, all are as bright."""
    degrade = camera()
    side = 64 + 2 * degrade.margin
    lr = 255 * degrade(torch.full((24, 3, side, side), 0.5), seeded(), degrade.margin)
    noise = lr.std((1, 2, 3))
    assert noise.max() > 10 * noise.min() and len({*noise.tolist()}) == 24
    assert (lr.mean((1, 2, 3)) - 127.5).abs().max() < 2


def test_lenses_are_as_wide_as_asked_for_and_centred():
    degrade, draws = camera(blur=[0.3, 0.3]), seeded()
    for _ in range(4):
        kernel = degrade.draw_kernel(draws).double().numpy()
        assert np.linalg.eigvalsh(covariance(kernel)) == pytest.approx([0.3 * 16] * 2, rel=0.02)
        assert centre_of_mass(kernel) == pytest.approx([centre_index(len(kernel), 4)] * 2, abs=0.02)
    degrade = camera()
    widths = np.array([np.linalg.eigvalsh(covariance(degrade.draw_kernel(draws).double().numpy())) for _ in range(200)])
    assert widths.min() > 0.9 * 0.12 * 16 and widths.max() < 1.05 * 0.9 * 16
    assert np.median(widths[:, 1] / widths[:, 0]) > 1.5


def test_noise_is_that_of_shot_and_read_on_the_sensor():
    """Where every pixel has all colours and nothing is smoothed, noise is the sensor's by the tone curve."""
    degrade = camera(**PLAIN, shot=[4e-4, 4e-4], read=[2e-3, 2e-3], gains=[1.5, 1.5])
    draws = seeded()
    drawn = (degrade.draw_development(draws) for _ in range(40))
    development = next(found for found in drawn if found.demosaicking == "none")
    for level in (0.3, 0.5, 0.7):
        light = degamma(torch.full((1, 3, 256, 256), level))
        picture = development.develop(light, torch.randn(light.shape, generator=draws))
        signal = float(light[0, 0, 0, 0])
        slope = float(gamma(torch.tensor(signal + 1e-3)) - gamma(torch.tensor(signal - 1e-3))) / 2e-3
        for colour, gain in enumerate((1.5, 1.0, 1.5)):
            sigma = (gain * 4e-4 * signal + (gain * 2e-3) ** 2) ** 0.5 * slope
            assert float(picture[0, colour].std()) == pytest.approx(sigma, rel=0.05)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"blur": [0.9, 0.1]}, r"data\.degradation\.blur=\[0\.9,0\.1\]: give 0\.08"),
        ({"quality": [0, 90]}, r"data\.degradation\.quality=\[0,90\]: give 1 to 100"),
        ({"shot": [0, 1]}, r"data\.degradation\.shot=\[0,1\]"),
        ({"noise": object()}, r"degradation=any_camera draws from no pools; give data\.pools\.noise_dir=null"),
        ({"kernels": object()}, r"give data\.pools\.kernel_dir=null"),
    ],
)
def test_mistakes_are_named(changes, says):
    with pytest.raises(InputError, match=says):
        camera(**changes)
