"""Patch matching: kernels that are known are found, and every part of it against numpy and scipy."""

import re
from dataclasses import replace
from functools import cache, partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import leaves
from PIL import Image, ImageDraw, ImageFont
from scipy import linalg, ndimage, optimize

from realsr.degradation.development import Development
from realsr.estimation.estimate import estimate_kernel
from realsr.estimation.evidence import Evidence
from realsr.estimation.kernels import (
    HR_BLUR,
    bicubic_kernel,
    centre_index,
    centre_of_mass,
    covariance,
    developed,
    gaussian_kernel,
    kernel_psnr,
    max_normalised_correlation,
    widths_and_angle,
)
from realsr.estimation.noise_model import NoiseModel, noise_level
from realsr.estimation.patch_matching import PatchMatching
from realsr.estimation.patch_matching.functions import gaussians, sorted_distance
from realsr.imaging import to_uint
from realsr.imaging.resample import blur, blur_subsample

SLANTED, ROUND = ((2.4, 1.0), 0.6), ((1.5, 1.5), 0.0)
NOISE = 8 / 255
GRAY = np.linalg.norm([0.299, 0.587, 0.114])  # of noise of its own in each colour
# log widths and shear of four parts: round, wide and slanted, narrow and high, wide and slanted the other way
THETA = torch.tensor([[0.3, 0.3, 0.0], [0.8, 0.1, 0.7], [-0.5, 0.5, 0.0], [0.9, 0.9, -0.5]])


def photo(shape, noise):
    """What a camera with a Gaussian kernel makes of a scene: ``(3, 200, 200)``."""
    truth = torch.from_numpy(gaussian_kernel(25, *shape, scale=2))[None].float()
    lr = blur_subsample(leaves(400, 400)[None], truth, 2)[0]
    return lr + noise * torch.randn(lr.shape, generator=torch.Generator().manual_seed(1))


@cache
def estimate(shape, noise):
    return estimate_kernel(photo(shape, noise), accelerator="cpu")


def with_blur(theta, signal=1.0, edges=1e5, **options):
    """The module as it would be after a fit."""
    module = PatchMatching(**options)
    module.means, module.evidence = [theta], Evidence(signal, 0.5, edges, 1.0, 1.0, 0.4)
    return module


def test_sharpening_that_the_noise_tells_is_in_the_kernel_and_not_in_the_lens():
    """A photo that was sharpened: without its response, the lens is taken for wider than it is, without a halo."""
    response = Development("none", sharpening=0.8, radius=1.0).response()
    truth = gaussian_kernel(25, *ROUND, scale=2)
    plain = photo(ROUND, 0.01)
    sharp = blur(plain[None], torch.from_numpy(response).float()[None])[0]
    tiles = np.stack([to_uint(0.5 + 0.01 * torch.randn(3, 32, 32)) for _ in range(50)])
    model = NoiseModel.of_tiles(tiles).filtered(response)
    known = estimate_kernel(sharp, 2, accelerator="cpu", noise=replace(model, response=response))
    unknown = estimate_kernel(sharp, 2, accelerator="cpu", noise=model)
    whole = developed(truth, response, 2)
    assert known.kernel.min() < -1e-3 and unknown.kernel.min() > -1e-9
    assert kernel_psnr(known.kernel, whole) > kernel_psnr(unknown.kernel, whole) + 3
    assert known.response is not None and known.response.shape == (11, 11)


# -- what comes out --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [0.0, NOISE])
@pytest.mark.parametrize("shape", [SLANTED, ROUND])
def test_a_known_kernel_is_found(shape, noise):
    found, truth, bicubic = estimate(shape, noise).kernel, gaussian_kernel(25, *shape, scale=2), bicubic_kernel(2)
    assert kernel_psnr(found, truth) > kernel_psnr(bicubic, truth) + 10
    assert max_normalised_correlation(found, truth) > 0.93 > max_normalised_correlation(bicubic, truth) + 0.1
    wide, narrow, angle = widths_and_angle(found)
    assert np.sqrt(wide * narrow) == pytest.approx(np.sqrt(np.prod(shape[0])), rel=0.15)
    if shape == ROUND:
        assert wide / narrow < 1.15
    else:
        assert wide / narrow > 1.2
        assert angle == pytest.approx(shape[1], abs=0.25)


@pytest.mark.parametrize("noise", [0.0, NOISE])
def test_a_good_photo_gives_confidence(noise):
    assert estimate(SLANTED, noise).confidence > 0.8
    assert estimate(SLANTED, noise).reasons == []


def test_the_seed_and_nothing_else_decides():
    picture = photo(SLANTED, NOISE)

    def kernel(seed, threads):
        torch.set_num_threads(threads)
        run = partial(PatchMatching, iterations=20, seed=seed)
        return estimate_kernel(picture, estimator=run, accelerator="cpu").kernel

    before = torch.get_num_threads()
    try:
        torch.manual_seed(1)
        first = kernel(3, 1)
        torch.manual_seed(2)
        state = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
        assert np.array_equal(kernel(3, 2), first)
        assert torch.get_num_threads() == 2
        assert torch.equal(torch.random.get_rng_state(), state[0])
        assert (np.random.get_state()[1] == state[1]).all()  # noqa: NPY002
        assert not np.allclose(kernel(4, 1), first)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("settled", "iterations"), [(10, 100), (0, 130)])
def test_a_fit_that_has_settled_ends(settled, iterations):
    run = partial(PatchMatching, iterations=130, settled=settled, crops_per_part=1, projections=4)
    assert estimate_kernel(photo(ROUND, 0), estimator=run, accelerator="cpu").iterations == iterations


@pytest.mark.parametrize("spread", ["normal", "uniform"])
def test_a_photo_of_noise_gives_no_confidence(spread):
    values = getattr(np.random.default_rng(0), spread)(size=(1, 120, 120))
    found = estimate_kernel(
        torch.from_numpy(0.5 + 0.1 * (values - values.mean())),
        estimator=partial(PatchMatching, iterations=20),
        accelerator="cpu",
    )
    assert found.confidence < 0.4
    assert any("of the detail is noise" in reason for reason in found.reasons)


def gray(values):
    return np.round(255 * np.clip(values, 0, 1)).astype(np.uint8)[..., None].repeat(3, 2)


def hostile():
    """Photos that say nothing of their blur, though their parts agree."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((300, 300))
    point = np.full((300, 300), 0.5)
    point[150, 120] = 1
    return {
        "a point": (gray(point), r"edges in \d+ pixels only"),
        "a stamp": (gray(leaves(66, 66)[0].numpy()), r"edges in \d+ pixels only"),
        "black and white noise": (gray(noise > 0), "of the detail is noise"),
        "clipped noise": (gray(0.5 + 0.6 * noise), "of the detail is noise"),
        "dithered": (gray(leaves(300, 300)[0].numpy() + rng.uniform(-0.5, 0.5, (300, 300)) > 0.5), "is noise"),
    }


@pytest.mark.parametrize("name", hostile())
def test_what_says_nothing_of_the_blur_gives_no_confidence(name):
    picture, says = hostile()[name]
    found = estimate_kernel(picture, estimator=partial(PatchMatching, iterations=100), accelerator="cpu")
    assert found.confidence < 0.4
    assert any(re.search(says, reason) for reason in found.reasons)


def test_a_dark_photo_is_whitened_as_a_bright_one():
    """As of a night, with as much less noise."""
    dark, bright = PatchMatching(iterations=1), PatchMatching(iterations=1)
    dark.crops(photo(SLANTED, NOISE / 10) / 100)
    bright.crops(photo(SLANTED, NOISE / 10))
    powers = [(module.whitening @ module.whitening.T).numpy() for module in (dark, bright)]
    np.testing.assert_allclose(powers[0] / 100**2, powers[1], rtol=1e-3, atol=1e-3 * powers[1].max())


# -- noise and damage --------------------------------------------------------------------------------------------------


def camera_noise(height, width, seed):
    """Noise as cameras leave it, smooth over two pixels, of the standard deviation NOISE: ``(3, height, width)``."""
    white = np.random.default_rng(seed).standard_normal((height + 16, width + 16))
    noise = ndimage.gaussian_filter(white, 0.6)[8:-8, 8:-8]
    return torch.from_numpy(NOISE * noise / noise.std()).float().expand(3, -1, -1)


@cache
def smooth_noise():
    """The model of it, of flat tiles."""
    return NoiseModel.of_tiles(np.stack([to_uint(0.5 + camera_noise(32, 32, seed)) for seed in range(200)]))


class TakesNoiseForWhite(PatchMatching):
    """As an earlier version did."""

    def set_noise(self, noise):
        super().set_noise(NoiseModel.white(noise_level(self.gray)))

    def crops(self, image, noise=None):
        self.gray = image[0].double().numpy()
        return super().crops(image, noise)


def test_smooth_noise_is_not_taken_for_detail_where_its_spectrum_is_known():
    """In a scene of little contrast; taken for white the kernel comes out much too narrow."""
    picture = 0.5 + 0.4 * (photo(ROUND, 0) - 0.5) + camera_noise(200, 200, 1)
    white, known = (
        estimate_kernel(picture, estimator=estimator, accelerator="cpu", noise=smooth_noise()).kernel
        for estimator in (partial(TakesNoiseForWhite, smooth=0), PatchMatching)
    )
    truth = gaussian_kernel(25, *ROUND, scale=2)
    assert max_normalised_correlation(known, truth) > 0.98
    assert max_normalised_correlation(white, truth) < 0.9
    assert widths_and_angle(white)[0] < 1 < 1.2 < widths_and_angle(known)[0]


def test_a_photo_looks_for_its_noise_itself():
    picture = torch.cat([photo(ROUND, 0), torch.full((3, 200, 120), 0.5)], 2) + camera_noise(200, 320, 1)
    module = PatchMatching(iterations=1)
    module.crops(picture)
    assert module.covariance.shape == (13, 13)
    assert module.covariance.max().sqrt().item() == pytest.approx(NOISE, rel=0.1)
    truth = gaussian_kernel(25, *ROUND, scale=2)
    assert max_normalised_correlation(estimate_kernel(picture, accelerator="cpu").kernel, truth) > 0.97


def test_without_a_flat_tile_noise_is_taken_for_white():
    module = PatchMatching(iterations=1)
    module.crops(photo(ROUND, NOISE / 4))
    assert module.covariance.shape == (1, 1)
    assert module.covariance.item() ** 0.5 == pytest.approx(GRAY * NOISE / 4, rel=0.15)


def test_a_photo_of_less_noise_than_the_camera_has_room_for_its_own():
    module = PatchMatching(iterations=1)
    module.crops(photo(ROUND, NOISE / 4), NoiseModel.white(4 * NOISE))
    assert 1 < module.covariance.item() ** 0.5 / (GRAY * NOISE / 4) < 2
    assert module.evidence.signal > 0.8


@pytest.mark.parametrize("strength", [0.5, 3])
def test_noise_of_another_iso_speed_is_as_strong_as_in_the_photo(strength):
    noise = strength * camera_noise(200, 320, 1)
    module = PatchMatching(iterations=1)
    module.crops(torch.cat([photo(ROUND, 0), torch.full((3, 200, 120), 0.5)], 2) + noise, smooth_noise())
    assert module.covariance.max().sqrt().item() == pytest.approx(strength * NOISE, rel=0.1)


def test_missing_noise_is_as_strong_as_brightness_has_it():
    covariance = smooth_noise().covariance
    module = PatchMatching(smooth=0)
    module.draws, module.whitening = torch.Generator().manual_seed(0), torch.eye(49) / NOISE
    module.set_noise(NoiseModel(covariance, np.array([0.2, 0.8]), covariance[6, 6] * np.array([1.75, 0.25])))
    dark, light = torch.full((4, 4, 64, 64), 0.2), torch.full((4, 4, 64, 64), 0.8)
    flat = torch.full((4, 4, 26, 26), 0.2), torch.full((4, 4, 26, 26), 0.8)
    with torch.no_grad():
        strengths = [
            module.distance(large, small).mean().item() for large, small in zip((dark, light), flat, strict=True)
        ]
    assert strengths[0] / strengths[1] == pytest.approx(7, rel=0.3)


def damaged():
    """A photo with noise, and what it is told by, after what often happens to photos."""
    picture = to_uint(photo(ROUND, 0) + camera_noise(200, 200, 1))
    wide = np.concatenate([picture, to_uint(0.5 + camera_noise(200, 100, 2))], 1)
    moved, text = wide.copy(), Image.fromarray(wide)
    moved[1::2] = np.roll(wide, 5, 1)[1::2]
    for y in range(0, 200, 24):
        ImageDraw.Draw(text).text((-5, y), "SAMPLE SAMPLE SAMPLE SAMPLE", "white", ImageFont.load_default(20))
    return {
        "interlaced": (moved, "every other row differs"),
        "text": (np.asarray(text), "beside clipped or drawn pixels"),
        "enlarged": (np.asarray(Image.fromarray(wide).resize((600, 400), Image.Resampling.BICUBIC)), "was enlarged"),
    }


@pytest.mark.parametrize("name", damaged())
def test_damage_is_told(name):
    picture, says = damaged()[name]
    found = estimate_kernel(picture, estimator=partial(PatchMatching, iterations=50), accelerator="cpu")
    assert found.confidence < 0.5
    assert any(says in reason for reason in found.reasons)


@pytest.mark.parametrize("where", ["stamp", "bars"])
def test_what_is_drawn_in_a_corner_does_no_harm(where):
    picture = to_uint(photo(ROUND, 0) + camera_noise(200, 200, 1))
    if where == "stamp":
        ImageDraw.Draw(image := Image.fromarray(picture)).text(
            (110, 170), "2026 11", (255, 150, 0), ImageFont.load_default(22)
        )
        picture = np.asarray(image)
    else:
        picture[:30] = picture[-30:] = 0
    module = PatchMatching()
    found = estimate_kernel(picture, estimator=lambda: module, accelerator="cpu", noise=smooth_noise())
    assert max_normalised_correlation(found.kernel, gaussian_kernel(25, *ROUND, scale=2)) > 0.97
    assert found.confidence > 0.8


# -- from parameters to kernels and confidence -----------------------------------------------------------------------


@pytest.mark.parametrize("theta", [THETA, THETA.flip(1) * 0.5 + 0.2])
def test_kernels_of_all_scales_are_of_one_blur(theta):
    """That of the geometric mean of the parts; in HR pixels, and less what sharp photos have themselves."""
    blur = []
    for x, y, shear in theta.double().numpy():
        root = np.array([[np.exp(y), shear], [0, np.exp(x)]])  # rows before columns, as covariance()
        blur.append(root @ root.T / 3)
    mean = linalg.expm(np.mean([linalg.logm(part) for part in blur], 0))
    for scale, kernel in with_blur(theta, kernel_size=21, crop=64).kernels().items():
        np.testing.assert_allclose(covariance(kernel) + HR_BLUR * np.eye(2), scale**2 * mean, rtol=0.01, atol=0.02)
        assert kernel.sum() == pytest.approx(1)
        assert centre_of_mass(kernel) == pytest.approx([centre_index(len(kernel), scale)] * 2, abs=0.01)


def test_sizes_of_the_kernels():
    assert {scale: kernel.shape for scale, kernel in with_blur(THETA).kernels().items()} == {
        2: (17, 17),
        3: (25, 25),
        4: (33, 33),
    }


def test_a_photo_without_any_blur_gets_the_narrowest_kernel():
    for kernel in with_blur(torch.tensor([[-3.0, -3.0, 0.0]]).expand(4, -1)).kernels().values():
        assert np.isfinite(kernel).all() and kernel.sum() == pytest.approx(1)
        assert max(widths_and_angle(kernel)[:2]) < 0.6


@pytest.mark.parametrize(
    ("theta", "signal", "says"),
    [
        (THETA[:1].expand(4, -1), 1.0, None),
        (THETA * 3 - 1, 1.0, r"parts of the photo disagree \(0\.\d\d\)"),
        (THETA[:1].expand(4, -1), 0.4, "60% of the detail is noise"),
        (torch.tensor([[1.8, 1.8, 0.0]]).expand(4, -1), 1.0, r"\d+% of the kernel is at its border"),
    ],
)
def test_confidence_and_what_speaks_against_it(theta, signal, says):
    confidence, reasons = with_blur(theta, signal).confidence()
    if says is None:
        assert confidence == pytest.approx(1, abs=0.01) and not reasons
    else:
        assert 0 <= confidence < 0.8 and len(reasons) == 1
        assert re.fullmatch(says, reasons[0])


# -- the distance ----------------------------------------------------------------------------------------------------


def test_the_distance_is_that_of_the_best_assignment():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(5, 40)), rng.normal(0.5, 2, size=(5, 40))
    ours = sorted_distance(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    for row in range(5):
        cost = (a[row, :, None] - b[row]) ** 2
        np.testing.assert_allclose(ours[row], cost[optimize.linear_sum_assignment(cost)])


def test_the_gradient_of_the_distance():
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(3, 20, generator=generator, dtype=torch.float64) for _ in range(2))
    assert torch.autograd.gradcheck(lambda x: sorted_distance(x, b), a.requires_grad_())


def test_gaussians_are_those_of_kernels():
    ours = gaussians(torch.tensor([[np.log(2.0), np.log(1.2), 0.0]]).double(), 17)[0].numpy()
    np.testing.assert_allclose(ours, gaussian_kernel(17, (2.0, 1.2), 0.0, 2), atol=1e-9)
    for theta, kernel in zip(THETA.double(), gaussians(THETA.double(), 61), strict=True):
        root = np.array([[theta[1].exp(), theta[2]], [0, theta[0].exp()]])
        np.testing.assert_allclose(covariance(kernel.numpy()), root @ root.T, atol=0.01)


def autocovariance(images, y, x):
    """Of ``(N, H, W)`` at a distance of ``y`` rows and ``x >= 0`` columns."""
    height, width = images.shape[1:]
    a, b = images[:, max(y, 0) : height + min(y, 0), x:], images[:, max(-y, 0) : height - max(y, 0), : width - x]
    return (a * b).mean()


def test_noise_that_is_smaller_is_white_again_with_what_it_lacks():
    module = PatchMatching()
    module.set_noise(NoiseModel.white(1))
    module.draws = torch.Generator().manual_seed(0)
    kernels = gaussians(THETA, 13)
    noise = torch.randn(4, 600, 64, 64, generator=torch.Generator().manual_seed(1))
    small = F.conv2d(noise.transpose(0, 1), kernels[:, None], stride=2, groups=4).transpose(0, 1)
    white = (small + module._missing_noise(kernels, small.shape)).double().numpy()
    assert white.shape == (4, 600, 26, 26)
    for part, lacking in zip(white, small.double().numpy(), strict=True):
        assert autocovariance(lacking, 0, 0) < 0.2
        assert max(autocovariance(lacking, *distance) for distance in ((0, 1), (1, 0))) > 0.01
        assert autocovariance(part, 0, 0) == pytest.approx(1, abs=0.01)
        for distance in ((0, 1), (1, 0), (1, 1), (-1, 1), (2, 0), (0, 2), (2, 1), (5, 6)):
            assert autocovariance(part, *distance) == pytest.approx(0, abs=0.008)


def test_noise_is_matched_at_the_photos_level():
    generator = torch.Generator().manual_seed(0)
    large, small = (0.5 + NOISE * torch.randn(4, 8, side, side, generator=generator) for side in (64, 26))
    distances = {}
    for level in (0.0, 0.5, 1.0, 1.5):
        module = PatchMatching()
        module.draws = torch.Generator().manual_seed(0)
        module.set_noise(NoiseModel.white(level * NOISE))
        module.whitening = torch.eye(49) / NOISE
        distances[level] = module.distance(large, small).mean().item()
    assert distances[1.0] < 0.02
    assert min(distances[level] for level in (0.0, 0.5, 1.5)) > 5 * distances[1.0]


def test_patches_are_whitened():
    picture = photo(SLANTED, NOISE)
    module = PatchMatching(iterations=1)
    module.crops(picture)
    gray = picture.numpy().astype(float).transpose(1, 2, 0) @ [0.299, 0.587, 0.114]
    patches = np.lib.stride_tricks.sliding_window_view(gray, (7, 7)).reshape(-1, 49)
    white = np.cov(patches @ module.whitening.numpy(), rowvar=False)
    np.testing.assert_allclose(white, np.eye(49), atol=0.02)
    assert np.ptp(np.linalg.eigvalsh(np.cov(patches, rowvar=False))) > 0.1


def test_edges_of_one_direction_are_no_evidence_for_the_other():
    photo = torch.full((3, 160, 160), 0.2)
    photo[:, :, 80:] = 0.8
    estimate = estimate_kernel(photo, estimator=partial(PatchMatching, iterations=50), accelerator="cpu")
    assert "edges run in one direction only" in estimate.reasons
    assert estimate.confidence < 0.1
