"""BSRGAN's degradation: each piece against another program's, and the whole where it draws, groups and cuts."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import leaves, scene
from omegaconf import OmegaConf
from scipy import ndimage

from realsr.degradation import bsrgan
from realsr.degradation.bsrgan import STEPS, BSRGANDegradation, interpolated, moved_gaussian, noise_mixing
from realsr.degradation.development import Development
from realsr.degradation.sensor import degamma, demosaic, gamma, mosaic, toned, untoned
from realsr.estimation.kernels import centre_index, centre_of_mass, covariance, gaussian_kernel
from realsr.imaging.jpeg import jpeg
from realsr.imaging.resample import imresize
from realsr.pools.pool import KernelPool
from realsr.runtime.errors import InputError
from realsr.runtime.help import conf_dir

YAML = OmegaConf.load(Path(conf_dir()) / "degradation" / "bsrgan.yaml").degradation
RANGES = {k: v for k, v in OmegaConf.to_container(YAML).items() if not k.startswith("_") and k != "scale"}
# nothing but blurs and a resize, and next to nothing lost by the last JPEG
GEOMETRY = {"noise_level": [0, 0], "jpeg_share": 0, "sensor_share": 0, "quality": [100, 100]}
SHARP = {"kernel_sizes": [3, 3], "isotropic": [0.1, 0.1], "anisotropic": [0.01, 0.01], "nearest_blur": [0.1, 0.1]}


def degradation(scale: int = 4, **changes: object) -> BSRGANDegradation:
    return BSRGANDegradation(scale, **{**RANGES, **changes})


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shuffled(degrade, images: torch.Tensor, order, rng, cut: bool) -> torch.Tensor:
    """The images through these steps, drawn once."""
    for step in degrade.steps(order, images.shape[-2:], rng, cut):
        images = step(images).clamp(0, 1)
    return images


@pytest.fixture(scope="module")
def hr() -> torch.Tensor:
    return torch.stack([scene(96, 112, seed) for seed in range(8)])


# -- pieces ------------------------------------------------------------------------------------------------------------


def drawn(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("way", ["bilinear", "bicubic", "area"])
def test_resizing_is_bicubics_or_the_mean_of_what_is_covered(hr, way):
    ours = interpolated(hr, [24, 28], way)[..., 3:-3, 3:-3]  # borders are the library's
    if way == "bicubic":
        torch.testing.assert_close(ours, imresize(hr, 1 / 4)[..., 3:-3, 3:-3], atol=1e-5, rtol=0)
    means = hr.unflatten(3, (28, 4)).unflatten(2, (24, 4)).mean((3, 5))[..., 3:-3, 3:-3]
    assert (ours - means).abs().max() < (1e-5 if way == "area" else 0.3)


@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize("sigma", [0.1, 0.8, 2.4])
def test_nearest_is_a_gaussian_moved_by_linear_interpolation(factor, sigma):
    """So its variance is the Gaussian's, and a quarter more along each axis where it moves by half a pixel."""
    kernel = moved_gaussian(sigma, factor)
    assert kernel.sum() == pytest.approx(1)
    np.testing.assert_allclose(centre_of_mass(kernel), centre_index(len(kernel), factor), atol=1e-9)
    variance = covariance(gaussian_kernel(21, (sigma, sigma), 0, 1))[0, 0]
    np.testing.assert_allclose(covariance(kernel), (variance + (factor % 2 == 0) / 4) * np.eye(2), atol=1e-9)


@pytest.mark.parametrize("kind", range(3))
def test_noise_has_the_covariance_that_was_drawn(kind, monkeypatch):
    """Of any covariance, white, gray; the level is the root mean square over the colours."""
    mixings = []
    monkeypatch.setattr(bsrgan, "noise_mixing", lambda *a: mixings.append(noise_mixing(*a)) or mixings[-1])
    for level in (3, 10, 20):
        degrade = degradation(noise_level=[level, level], noise_kinds=[float(i == kind) for i in range(3)])
        field = shuffled(degrade, torch.full((1, 3, 200, 200), 0.5), ["noise"], drawn(level), False)[0] - 0.5
        one, wanted = mixings[-1].double().numpy(), level / 255
        found = np.cov(field.flatten(1).double().numpy())
        np.testing.assert_allclose(found, one @ one.T, atol=0.03 * wanted**2)
        assert math.isclose(np.trace(found) / 3, wanted**2, rel_tol=0.02)
        correlation = np.corrcoef(field.flatten(1))[np.triu_indices(3, 1)]
        if kind == 0:
            assert abs(correlation).max() > 0.1
            assert np.diag(found).max() > 1.1 * np.diag(found).min()
        else:
            np.testing.assert_allclose(correlation, kind - 1, atol=0.02)
        assert abs(np.corrcoef(field[0, 1:].flatten(), field[0, :-1].flatten())[0, 1]) < 0.02  # of neighbouring pixels


def test_sensor_curves():
    """Values of IEC 61966-2-1 and of 3 x^2 - 2 x^3; inverses undo them."""
    x = torch.linspace(0, 1, 1001)
    torch.testing.assert_close(degamma(gamma(x)), x, atol=1e-5, rtol=0)
    torch.testing.assert_close(untoned(toned(x)), x, atol=2e-3, rtol=0)
    torch.testing.assert_close(toned(untoned(x)), x, atol=1e-5, rtol=0)
    torch.testing.assert_close(gamma(torch.tensor([0.001, 0.18, 0.5])), torch.tensor([0.01292, 0.46136, 0.73536]))
    assert toned(torch.tensor(0.25)) == 0.15625


def test_demosaicing_adds_the_other_colours_curvature():
    """Malvar et al., equations 1 to 4, gains 1/2 and 3/4: neighbours' mean plus a share of a Laplacian."""
    raw = torch.rand(1, 1, 12, 14, generator=seeded())
    image, x = demosaic(raw)[0].numpy(), raw[0, 0].numpy()
    for row in range(2, 10):
        for column in range(2, 12):
            own = x[row, column]
            cross = (x[row - 1, column] + x[row + 1, column] + x[row, column - 1] + x[row, column + 1]) / 4
            diagonal = (x[row - 1 : row + 2 : 2, column - 1 : column + 2 : 2]).mean()
            far = (x[row - 2, column] + x[row + 2, column] + x[row, column - 2] + x[row, column + 2]) / 4
            if row % 2 == column % 2:  # red or blue
                colour = 2 * (row % 2)
                expected = {colour: own, 1: cross + 0.5 * (own - far), 2 - colour: diagonal + 0.75 * (own - far)}
            else:
                expected = {1: own}
                beside = (x[row, column - 1] + x[row, column + 1]) / 2
                above = (x[row - 1, column] + x[row + 1, column]) / 2
                along = (x[row, column - 2] + x[row, column + 2]) / 8 + diagonal / 2
                over = (x[row - 2, column] + x[row + 2, column]) / 16
                side = (x[row - 2, column] + x[row + 2, column]) / 8 + diagonal / 2
                left = (x[row, column - 2] + x[row, column + 2]) / 16
                expected[2 * (row % 2)] = beside + 5 / 8 * own - along + over
                expected[2 - 2 * (row % 2)] = above + 5 / 8 * own - side + left
            for colour, value in expected.items():
                assert math.isclose(image[colour, row, column], value, abs_tol=1e-5), (row, column, colour)


def test_demosaicing_keeps_plain_colours_and_beats_bilinear():
    flat = torch.tensor([0.2, 0.5, 0.9])[None, :, None, None].expand(1, 3, 9, 10)
    torch.testing.assert_close(demosaic(mosaic(flat)), flat)
    picture = (
        ndimage.zoom(leaves(64, 64).numpy(), (1, 2, 2), order=3).clip(0, 1) * np.array([0.9, 0.8, 0.6])[:, None, None]
    )
    picture = torch.from_numpy(picture).float().mul(255).round()
    raw = mosaic(picture[None])
    ours = demosaic(raw)[0]
    opencv = cv2.cvtColor(raw[0, 0].byte().numpy(), cv2.COLOR_BayerRGGB2RGB).transpose(2, 0, 1)
    inner = (slice(None), slice(4, -4), slice(4, -4))
    errors = [(torch.as_tensor(x.astype(np.float32)) - picture)[inner].pow(2).mean() for x in (ours.numpy(), opencv)]
    assert errors[0] < 0.6 * errors[1]


def test_cameras_are_as_the_papers_say():
    """Of noise in the dark and in white, which has gone through the gains of white balance and exposure."""
    rng, degrade = drawn(), degradation()
    every = [degrade._camera(rng) for _ in range(3_000)]
    dark, bright = (np.exp([[noise[knot] for noise in one.noise] for one in every]) for knot in (0, -1))
    # gain^2 * read in the dark, gain * shot more in white
    ratio = (bright - dark) / (bright - dark)[:, 1:2]  # of the gains, to that of green
    for colour in (0, 2):
        gain = ratio[:, colour]
        np.testing.assert_allclose([gain.min(), gain.mean(), gain.max()], [1.2, 1.8, 2.4], atol=0.02)
        np.testing.assert_allclose(dark[:, colour] / dark[:, 1], gain**2, rtol=1e-4)
    low, high = np.log([1e-4, 0.012]) + np.log(2) * np.array([-0.1, 0.3])  # shot noise times the exposure
    log_shot = np.log((bright - dark)[:, 1])
    assert low < log_shot.min() < low + 0.15 and high - 0.15 < log_shot.max() < high
    slope, start = np.polyfit(log_shot, np.log(dark[:, 1]), 1)
    np.testing.assert_allclose([slope, start], [2.18, 1.20], atol=0.1)


def test_without_noise_a_camera_gives_the_picture_back():
    """All but what demosaicing loses: nothing of plain colours, little of a smooth picture."""
    degrade = degradation(shot=[1e-9, 1e-9])
    plain = torch.rand(16, 3, 1, 1, generator=seeded())
    plain = torch.cat([plain, torch.tensor([[0.0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]])[..., None, None]])
    plain = plain.expand(-1, -1, 12, 12)
    torch.testing.assert_close(shuffled(degrade, plain, ["sensor"], drawn(), False), plain, atol=3e-3, rtol=0)
    smooth = 0.2 + 0.6 * imresize(torch.rand(4, 3, 3, 3, generator=seeded()), 32).clamp(0, 1)
    assert (shuffled(degrade, smooth, ["sensor"], drawn(), False) - smooth).abs().mean() < 1 / 255


def test_sensor_noise_grows_with_the_signal(monkeypatch):
    """Of a camera that changes no colours: at the pixels that are red themselves, shot * signal + read."""
    shot = 0.004
    read = 0.2 * shot
    degrade = degradation()
    plain = Development(noise=Development.sensor_noise(shot, read, [1, 1, 1]))
    monkeypatch.setattr(degrade, "_camera", lambda rng: plain)
    for level in (0.3, 0.5, 0.7):
        signal = float(untoned(degamma(torch.tensor(level))))
        made = shuffled(degrade, torch.full((1, 3, 400, 400), level), ["sensor"], drawn(), False)
        red = untoned(degamma(made[0, 0, ::2, ::2])).double().numpy()
        assert math.isclose(red.var(), shot * signal + read, rel_tol=0.03)
        assert math.isclose(red.mean(), signal, abs_tol=0.002)


# -- the whole ---------------------------------------------------------------------------------------------------------


def test_every_order_occurs_and_shares_are_the_papers():
    rng, every = drawn(1), degradation(jpeg_share=1, sensor_share=1, halve=0)
    counts = Counter(tuple(every.order(rng)) for _ in range(8_000))
    assert len(counts) == math.factorial(len(STEPS))
    assert max(counts.values()) < 35  # of 11 expected
    orders = [degradation().order(rng) for _ in range(4_000)]
    share = {step: sum(step in order for order in orders) / 4_000 for step in (*STEPS, "halve")}
    expected = {"isotropic": 1, "anisotropic": 1, "resize": 1, "noise": 1, "jpeg": 0.75, "sensor": 0.25, "halve": 0.25}
    assert share == pytest.approx(expected, abs=0.02)
    assert all("halve" not in order[1:] for order in orders)
    assert not any("halve" in degradation(scale=2).order(rng) for _ in range(100))
    assert degradation().draw(500, (16, 16), seeded(), margin=4).coding[2].unique().tolist() == list(range(16))
    assert degradation().draw(50, (16, 16), seeded()).coding[2].unique().tolist() == [0]


def test_draws_fill_the_papers_ranges(monkeypatch):
    """Watched on their way into the functions that they are for."""
    seen: dict[str, list[tuple]] = {}

    def watch(name, answer):
        def watched(*given, **named):
            given = *given, *named.values()
            seen.setdefault(name, []).append(given)
            return answer(*given)

        monkeypatch.setattr(bsrgan, name, watched)

    def spans(values, low, high):
        np.testing.assert_allclose(np.quantile(values, [0, 0.5, 1]), [low, (low + high) / 2, high], atol=0.04 * high)

    watch("gaussian_kernel", lambda size, *_: np.ones((size, size)))
    watch("blur", lambda image, _: image)
    watch("moved_gaussian", lambda *_: np.ones((1, 1)))
    watch("downscaled", lambda image, *_: image)
    watch("jpeg", lambda image, *_: image)
    watch("noise_mixing", lambda *_: torch.zeros(3, 3))
    watch("interpolated", lambda image, *_: image)
    watch("standard_tables", lambda quality: torch.ones(len(quality), 2, 8, 8))
    rng, image = drawn(), torch.full((1, 3, 32, 32), 0.5)
    ways = {factor: degradation(resizes=["nearest", "down_up"], halve=0) for factor in (2, 4)}
    for _ in range(1_500):
        for step in ("isotropic", "anisotropic", "noise", "jpeg"):
            shuffled(ways[4], image, [step], rng, cut=False)
        for factor, degrade in ways.items():
            shuffled(degrade, image, ["halve"] * (factor == 2) + ["resize"], rng, cut=False)
    sizes, sigmas, angles = (np.array([given[i] for given in seen["gaussian_kernel"]]) for i in range(3))
    assert sorted(set(sizes)) == list(range(7, 22, 2))
    assert (sigmas[::2, 0] == sigmas[::2, 1]).all()
    spans(sigmas[::2, 0], 0.1, 2.8)
    for axis in (0, 1):
        spans(sigmas[1::2, axis] ** 2, 0.5, 8)
    assert abs(np.corrcoef(np.column_stack([sigmas[1::2], angles[1::2]]).T)[np.triu_indices(3, 1)]).max() < 0.08
    spans(angles, 0, math.pi)
    for factor in (2, 4):
        spans([sigma for sigma, of in seen["moved_gaussian"] if of == factor], 0.1, 0.6 * factor)
        ups = [size[0] * factor / 32 for _, size, _ in seen["interpolated"] if size[0] not in (16, 32 // factor)]
        assert min(ups) < 0.6 and max(ups) > 0.95 * factor / 2
    spans([255 * level for level, *_ in seen["noise_mixing"]], 1, 25)
    assert {int(quality[0]) for (quality,) in seen["standard_tables"]} == set(range(30, 96))


def test_down_up_resizes_twice(hr, monkeypatch):
    sizes = []
    monkeypatch.setattr(
        bsrgan, "interpolated", lambda image, size, way: sizes.append(size) or interpolated(image, size, way)
    )
    lr = shuffled(degradation(resizes=["down_up"], up_least=4), hr, ["resize"], drawn(), False)
    assert sizes == [[96, 112], [24, 28]]  # up by four is the size that it had
    torch.testing.assert_close(lr, interpolated(hr, [24, 28], "bicubic"), atol=0.2, rtol=0)
    shuffled(degradation(resizes=["down_up"]), hr, ["resize"], drawn(), False)
    assert 12 <= sizes[2][0] <= 96 and sizes[3] == [24, 28]


def test_steps_are_taken_in_their_order(hr):
    """All of them are what one after the other, of the same draws, makes."""
    degrade = degradation(jpeg_share=1, sensor_share=1)
    for seed, image in enumerate(hr.split(1)):
        order, rng = degrade.order(drawn(seed)), drawn(seed)
        whole = shuffled(degrade, image, order, drawn(seed), False)
        assert whole.shape == (1, 3, 24, 28)
        for step in order:
            steps = ["halve"] if step == "halve" else [step]
            if step == "resize" and "halve" in order:
                image = shuffled(degradation(scale=2), image, steps, rng, False)
            else:
                image = shuffled(degrade, image, steps, rng, False)
        assert torch.equal(image, whole), order


def test_blurs_are_scipys_and_noise_is_added(hr, monkeypatch):
    kernels, mixings = [], []
    monkeypatch.setattr(bsrgan, "gaussian_kernel", lambda *a: kernels.append(gaussian_kernel(*a)) or kernels[-1])
    monkeypatch.setattr(bsrgan, "noise_mixing", lambda *a: mixings.append(noise_mixing(*a)) or mixings[-1])
    for step in ("isotropic", "anisotropic"):
        ours = shuffled(degradation(), hr[:1], [step], drawn(), False)[0]
        expected = [ndimage.correlate(plane, kernels[-1], mode="reflect") for plane in hr[0].double().numpy()]
        np.testing.assert_allclose(ours, np.clip(expected, 0, 1), atol=1e-5)
    ours = shuffled(degradation(), hr[:1], ["noise"], drawn(3), False)[0] - hr[0]
    inside = ((hr[0] > 0.2) & (hr[0] < 0.8)).all(0)
    field = torch.linalg.lstsq(mixings[-1].double(), ours[:, inside].double()).solution
    assert float((mixings[-1].double() @ field - ours[:, inside]).abs().max()) < 1e-6


def position(image: torch.Tensor) -> torch.Tensor:
    """Centre of mass of what is brighter than the background, ``(N, 2)``, in pixels."""
    mass = (image.mean(1) - 0.25).double()
    rows, columns = (torch.arange(side, dtype=torch.float64) for side in mass.shape[1:])
    total = mass.sum((1, 2))
    return torch.stack([(mass.sum(2) * rows).sum(1) / total, (mass.sum(1) * columns).sum(1) / total], 1)


def dot(count: int) -> torch.Tensor:
    """A soft dot on gray, off the middle, and so wide that no resize aliases."""
    rows, columns = torch.meshgrid(torch.arange(192.0), torch.arange(192.0), indexing="ij")
    blob = torch.exp(-0.5 * ((rows - 92.3) ** 2 + (columns - 101.8) ** 2) / 5**2)
    return (0.25 + 0.5 * blob).expand(count, 3, -1, -1)


@pytest.mark.parametrize("way", ["nearest", "bilinear", "bicubic", "area", "down_up"])
def test_resizing_moves_nothing(way):
    """Pixel i of LR lies at 4i + 1.5 of HR, as bicubic's, whatever is drawn."""
    image, rng, degrade = dot(1), drawn(), degradation(resizes=[way], **GEOMETRY)
    lr = torch.cat([shuffled(degrade, image, degrade.order(rng), rng, cut=True) for _ in range(24)])
    shift = position(lr) - (position(image) - 1.5) / 4
    assert shift.abs().max() < (0.05 if way == "down_up" else 1e-3)  # LR pixels; linear interpolation on a coarse grid
    assert shift.mean(0).abs().max() < 5e-3


@pytest.mark.parametrize("way", ["nearest", "bilinear", "bicubic", "area"])
def test_margin_covers_blurs_and_resize_in_hr(way):
    """Where the blurs come first, a crop with the margin is the crop of the whole.

    After the resize blurs reach further than the margin, and ``down_up``'s middle grid hangs on the picture's size.
    """
    whole = torch.stack([scene(192, 208, seed) for seed in range(4)])
    degrade = degradation(resizes=[way], halve=0, **GEOMETRY)
    margin = degrade.margin
    assert margin == 32
    order, start, side = ["isotropic", "anisotropic", "resize"], (40, 60), 64
    crop = whole[..., start[0] - margin : start[0] + side + margin, start[1] - margin : start[1] + side + margin]
    ours = shuffled(degrade, crop, order, drawn(), True)[..., margin // 4 : -margin // 4, margin // 4 : -margin // 4]
    expected = shuffled(degrade, whole, order, drawn(), True)[..., start[0] // 4 :, start[1] // 4 :]
    torch.testing.assert_close(ours, expected[..., : side // 4, : side // 4], atol=1e-5, rtol=0)


def test_an_image_depends_on_no_other(hr):
    others = torch.cat([hr[:3], 1 - hr[3:]])
    ours, theirs = (degradation()(images, seeded(2)) for images in (hr, others))
    assert torch.equal(ours[:3], theirs[:3])
    assert not torch.equal(ours[3:], theirs[3:])


def test_the_last_jpeg_is_last(hr):
    degrade = degradation()
    drawn = degrade.draw(8, hr.shape[-2:], seeded(1), 16)
    before = degrade.uncompressed(hr, drawn, 16)
    expected = jpeg(before, *drawn.coding)
    assert torch.equal(degrade(hr, seeded(1), 16), expected)
    assert not torch.equal(before, expected)


def test_no_value_is_asked_from_the_device():
    """On the meta device, which computes nothing: an operation that mixed devices or asked for a value would fail."""
    degrade, rng = degradation(sensor_share=1, jpeg_share=1), drawn()
    for _ in range(12):
        image = torch.empty(1, 3, 64, 48, device="meta")
        assert shuffled(degrade, image, degrade.order(rng), rng, cut=True).shape == (1, 3, 16, 12)


def test_nothing_moves_on_the_whole():
    """Noise, JPEG and all: over many draws, LR lies where bicubic's does, by Lucas and Kanade's least squares."""
    image = dot(300)
    bicubic = imresize(image[0].mean(0), 1 / 4).double()
    difference = degradation()(image, seeded(), 32).double().mean(1) - bicubic[8:-8, 8:-8]
    slopes = torch.stack(torch.gradient(bicubic))[:, 8:-8, 8:-8].flatten(1)
    shift = torch.linalg.lstsq(slopes.T, -difference.flatten(1).T).solution.T
    spread = shift.std(0) / math.sqrt(300)
    assert (shift.mean(0).abs() < 3 * spread).all()
    assert (3 * spread < 0.1).all()


def test_draws_are_of_the_generator_alone(hr):
    degrade = degradation()
    first = degrade(hr, seeded(5), 16)
    assert first.shape == (8, 3, 16, 20)
    assert torch.equal(degrade(hr, seeded(5), 16), first)
    assert not torch.equal(degrade(hr, seeded(6), 16), first)
    assert torch.equal(degrade.eval()(hr, seeded(5), 16), first)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(degrade(hr, seeded(5), 16), first)
    same = degrade(hr[:1].expand(8, -1, -1, -1), seeded(5))
    assert len(same.flatten(1).unique(dim=0)) == 8


@pytest.mark.parametrize("value", [0.0, 1.0, 0.5])
def test_extremes_stay_finite_and_in_range(value):
    images = torch.full((32, 3, 64, 80), value)
    images[:16, 0] = 1 - value
    images[::2, :, ::8] = value
    lr = degradation(sensor_share=1)(images, seeded(), 0)
    assert lr.isfinite().all()
    assert lr.min() >= 0
    assert lr.max() <= 1
    torch.testing.assert_close(lr * 255, (lr * 255).round(), atol=1e-3, rtol=0)


def test_input_of_half_precision_comes_back_in_full_and_no_gradient_flows(hr):
    assert degradation()(hr.to(torch.bfloat16), seeded()).dtype == torch.float32
    assert not degradation()(hr.clone().requires_grad_(), seeded()).requires_grad
    assert not degradation().state_dict()


def test_with_next_to_nothing_it_is_bicubic():
    """The pieces that remain change little: the ranges do reach the steps."""
    hr = torch.stack([leaves(96, 112, seed) for seed in range(8)])  # gray: chroma is subsampled
    degrade = degradation(resizes=["bicubic"], halve=0, **GEOMETRY, **SHARP)
    difference = (degrade(hr, seeded()) - imresize(hr, 1 / 4).clamp(0, 1)).abs().mean()
    assert difference < 1 / 255
    assert (degradation()(hr, seeded()) - imresize(hr, 1 / 4)).abs().mean() > 10 * difference


def test_pools_are_refused():
    pool = KernelPool(torch.full((1, 9, 9), 1 / 81), ["a"])
    with pytest.raises(
        InputError, match=r"draws from no pools; give data\.pools\.kernel_dir=null.*data\.validation\.hr"
    ):
        degradation(kernels=pool)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"quality": [30, 101]}, r"data\.degradation\.quality=\[30,101\]: give 1 to 100"),
        ({"isotropic": [2, 1]}, r"isotropic=\[2,1\]: give 0\.01 to inf, the smaller first"),
        ({"halve": 1.5}, r"halve=1\.5: give 0 to 1"),
        ({"up_least": 5.0}, r"up_least=5: give 0\.01 to 4"),
        ({"kernel_sizes": [8, 21]}, "odd kernel_sizes"),
        ({"resizes": []}, "some resizes"),
        ({"noise_kinds": [0, 0, 0]}, "some noise_kinds"),
    ],
)
def test_bounds_that_make_no_sense_are_named(change, says):
    with pytest.raises(InputError, match=says):
        degradation(**change)
