"""BSRGAN's degradation: each piece against another program's, and the whole where it draws, groups and cuts."""

from __future__ import annotations

import dataclasses
import io
import math
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import leaves, scene
from omegaconf import OmegaConf
from PIL import Image
from scipy import ndimage

from realsr import bsrgan
from realsr.bsrgan import STEPS, BSRGANDegradation, noise_mixing, shuffled
from realsr.config import conf_dir
from realsr.errors import InputError
from realsr.jpeg import jpeg, standard_tables
from realsr.pools import KernelPool
from realsr.resample import blur, imresize, nearest_matrix, resize_matrix
from realsr.sensor import Camera, degamma, demosaic, gamma, mosaic, photographed, toned, untoned

YAML = OmegaConf.load(Path(conf_dir()) / "degradation" / "bsrgan.yaml").degradation
RANGES = {k: v for k, v in OmegaConf.to_container(YAML).items() if not k.startswith("_") and k != "scale"}
# nothing but blurs and a resize, and next to nothing lost by the last JPEG
GEOMETRY = {"noise_level": [0, 0], "jpeg_share": 0, "sensor_share": 0, "quality": [100, 100]}
SHARP = {"kernel_sizes": [3, 3], "isotropic": [0.1, 0.1], "anisotropic": [0.01, 0.01], "nearest_blur": [0.1, 0.1]}


def degradation(scale: int = 4, **changes: object) -> BSRGANDegradation:
    return BSRGANDegradation(scale, **{**RANGES, **changes})


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def hr() -> torch.Tensor:
    return torch.stack([scene(96, 112, seed) for seed in range(8)])


# -- pieces ------------------------------------------------------------------------------------------------------------


def test_tables_are_pillows():
    """Of every quality; Pillow links libjpeg."""
    ours = standard_tables(torch.arange(1, 101))
    for quality, tables in zip(range(1, 101), ours.flatten(2).tolist(), strict=True):
        file = io.BytesIO()
        Image.new("RGB", (8, 8)).save(file, "JPEG", quality=quality)
        written = Image.open(file).quantization
        assert tables == [list(written[0]), list(written[1])]


def test_blur_is_scipys_correlation(hr):
    kernels = torch.rand(8, 9, 9, generator=seeded())
    kernels = kernels / kernels.sum((1, 2), keepdim=True)
    for image, kernel, ours in zip(hr.numpy(), kernels.numpy(), blur(hr, kernels), strict=True):
        expected = [ndimage.correlate(plane, kernel, mode="reflect") for plane in image]
        np.testing.assert_allclose(ours, expected, atol=2e-6)


@pytest.mark.parametrize(("kind", "pillow"), [("bilinear", Image.BILINEAR), ("bicubic", Image.BICUBIC)])
@pytest.mark.parametrize("out", [24, 37, 95, 96, 131, 200])
def test_resizing_is_pillows(hr, kind, pillow, out):
    """Pillow weighs the pixels inside the picture only, so the border differs."""
    plane = hr[0, 0]
    ours = resize_matrix(96, out, kind) @ plane
    expected = np.asarray(Image.fromarray(plane.numpy()).resize((112, out), pillow))
    rim = math.ceil(2 * max(out / 96, 1)) + 1
    np.testing.assert_allclose(ours[rim:-rim], expected[rim:-rim], atol=1e-5)
    torch.testing.assert_close(resize_matrix(96, out, kind).sum(1), torch.ones(out))


@pytest.mark.parametrize("out", [24, 37, 48, 95])
def test_area_is_opencvs(hr, out):
    ours = resize_matrix(96, out, "area") @ hr[0, 0]
    np.testing.assert_allclose(ours, cv2.resize(hr[0, 0].numpy(), (112, out), interpolation=cv2.INTER_AREA), atol=1e-5)


def test_bicubic_is_the_projects(hr):
    ours = resize_matrix(96, 24, "bicubic") @ hr @ resize_matrix(112, 28, "bicubic").T
    torch.testing.assert_close(ours, imresize(hr, 1 / 4), atol=1e-5, rtol=0)


@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize("sigma", [0.1, 0.8, 2.4])
def test_nearest_is_a_moved_gaussian_and_a_stride(hr, factor, sigma):
    """As the paper says it: a 2-D kernel, moved by linear interpolation; every pixel of the factor."""
    plane = hr[0, 0].double().numpy()
    kernel = np.zeros((27, 27))
    kernel[13, 13] = 1
    offset = np.arange(27) - 13
    gauss = np.where(abs(offset) <= 10, np.exp(-0.5 * (offset / sigma) ** 2), 0)
    moved = ndimage.shift(np.outer(gauss, gauss), (factor - 1) / 2, order=1)
    expected = ndimage.correlate(plane, moved / moved.sum(), mode="reflect")[::factor, ::factor]
    ours = nearest_matrix(96, factor, sigma, 21) @ hr[0, 0] @ nearest_matrix(112, factor, sigma, 21).T
    size = 96 // factor, 112 // factor
    np.testing.assert_allclose(ours, expected[: size[0], : size[1]], atol=1e-5)


@pytest.mark.parametrize("kind", range(3))
def test_noise_has_the_covariance_that_was_drawn(kind):
    """Of any covariance, white, gray; the level is the root mean square over the colours."""
    level = torch.tensor([3.0, 10, 20]) / 255
    mixing = noise_mixing(level, [float(i == kind) for i in range(3)], seeded(1))
    plan = degradation().draw(3, seeded(), cut=False)
    plan = dataclasses.replace(plan, mixing=mixing, order=[["noise"]] * 3)
    noise = (shuffled(torch.full((3, 3, 200, 200), 0.5), plan) - 0.5).flatten(2).double().numpy()
    for field, one, wanted in zip(noise, mixing.double().numpy(), level.double().numpy(), strict=True):
        found = np.cov(field)
        np.testing.assert_allclose(found, one @ one.T, atol=0.03 * wanted**2)
        assert math.isclose(np.trace(found) / 3, wanted**2, rel_tol=0.02)
        correlation = np.corrcoef(field)[np.triu_indices(3, 1)]
        if kind == 0:
            assert abs(correlation).max() > 0.1
            assert np.diag(found).max() > 1.1 * np.diag(found).min()
        else:
            np.testing.assert_allclose(correlation, kind - 1, atol=0.02)
        assert abs(np.corrcoef(field[0, 1:], field[0, :-1])[0, 1]) < 0.02  # of neighbouring pixels


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


def cameras(count: int, seed: int = 0) -> Camera:
    return Camera.draw(count, *(RANGES[name] for name in ("exposure", "gains", "shot")), seeded(seed))


def test_cameras_are_as_the_papers_say():
    drawn = cameras(20_000)
    assert (drawn.matrix.sum(2) - 1).abs().max() < 1e-5
    stops = drawn.gains[:, 1].log2()
    np.testing.assert_allclose([stops.min(), stops.max()], [-0.1, 0.3], atol=1e-3)
    for colour in (0, 2):
        gain = drawn.gains[:, colour] / drawn.gains[:, 1]
        np.testing.assert_allclose([gain.min(), gain.mean(), gain.max()], [1.2, 1.8, 2.4], atol=0.01)
    log_shot, log_read = drawn.shot.double().log().numpy(), drawn.read.double().log().numpy()
    np.testing.assert_allclose([log_shot.min(), log_shot.max()], np.log([1e-4, 0.012]), atol=0.01)
    slope, start = np.polyfit(log_shot, log_read, 1)
    np.testing.assert_allclose([slope, start], [2.18, 1.20], atol=0.03)
    np.testing.assert_allclose(np.std(log_read - slope * log_shot - start), 0.26, atol=0.01)


def test_without_noise_a_camera_gives_the_picture_back():
    """All but what demosaicing loses: nothing of plain colours, little of a smooth picture."""
    colours = torch.rand(64, 3, 1, 1, generator=seeded()).expand(-1, -1, 12, 12)
    zero = torch.zeros(64, 1, 12, 12)
    torch.testing.assert_close(photographed(colours, cameras(64), zero), colours, atol=1e-3, rtol=0)
    extremes = torch.tensor([[0.0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]])[:, :, None, None]
    extremes = extremes.expand(-1, -1, 12, 12)
    torch.testing.assert_close(photographed(extremes, cameras(5), zero[:5]), extremes, atol=2e-3, rtol=0)
    smooth = 0.2 + 0.6 * imresize(torch.rand(4, 3, 3, 3, generator=seeded()), 32).clamp(0, 1)
    back = photographed(smooth, cameras(4), torch.zeros(4, 1, 96, 96))
    assert (back - smooth).abs().mean() < 1 / 255


def test_sensor_noise_grows_with_the_signal():
    """Of a camera that changes nothing: at the pixels that are red themselves, shot * signal + read."""
    shot, read = 0.004, 1e-4
    plain = Camera(torch.eye(3)[None], torch.ones(1, 3), torch.tensor([shot]), torch.tensor([read]))
    for level in (0.3, 0.5, 0.7):
        signal = float(untoned(degamma(torch.tensor(level))))
        field = torch.randn(1, 1, 400, 400, generator=seeded())
        made = photographed(torch.full((1, 3, 400, 400), level), plain, field)
        red = untoned(degamma(made[0, 0, ::2, ::2])).double().numpy()
        assert math.isclose(red.var(), shot * signal + read, rel_tol=0.03)
        assert math.isclose(red.mean(), signal, abs_tol=0.002)


# -- the whole ---------------------------------------------------------------------------------------------------------


def test_every_order_occurs_and_shares_are_the_papers():
    every = degradation(jpeg_share=1, sensor_share=1, halve=0).draw(8_000, seeded(), cut=True)
    counts = Counter(map(tuple, every.order))
    assert len(counts) == math.factorial(len(STEPS))
    assert max(counts.values()) < 35  # of 11 expected
    plan = degradation().draw(4_000, seeded(), cut=True)
    share = {step: sum(step in order for order in plan.order) / 4_000 for step in (*STEPS, "halve")}
    expected = {"isotropic": 1, "anisotropic": 1, "resize": 1, "noise": 1, "jpeg": 0.75, "sensor": 0.25, "halve": 0.25}
    assert share == pytest.approx(expected, abs=0.02)
    assert all("halve" not in order[1:] for order in plan.order)
    assert [4 // factor for factor in plan.factor] == [1 + ("halve" in order) for order in plan.order]
    assert {way: n / 4_000 for way, n in Counter(plan.resize).items()} == pytest.approx(
        dict.fromkeys(("nearest", "bilinear", "bicubic", "down_up"), 0.25), abs=0.02
    )
    assert sorted({(b > 0).any(0).sum().item() for b in plan.kernels["anisotropic"][:300]}) == list(range(7, 22, 2))
    assert plan.phase.unique().tolist() == list(range(16))
    assert degradation().draw(50, seeded(), cut=False).phase.unique().tolist() == [0]
    assert degradation(scale=2).draw(500, seeded(), cut=False).factor == [2] * 500


def test_draws_fill_the_papers_ranges(monkeypatch):
    blurs: list[tuple[float, float, float]] = []

    def watched(size, sigmas, angle, scale):
        blurs.append((*sigmas, angle))
        return np.ones((size, size))

    monkeypatch.setattr(bsrgan, "gaussian_kernel", watched)
    plan = degradation(halve=0.5).draw(4_000, seeded(), cut=False)
    isotropic, anisotropic = np.array(blurs[:4_000]), np.array(blurs[4_000:])
    assert (isotropic[:, 0] == isotropic[:, 1]).all()

    def spans(values, low, high):
        np.testing.assert_allclose(np.quantile(values, [0, 0.5, 1]), [low, (low + high) / 2, high], atol=0.03 * high)

    spans(isotropic[:, 0], 0.1, 2.8)
    for axis in (0, 1):
        spans(anisotropic[:, axis] ** 2, 0.5, 8)
    assert abs(np.corrcoef(anisotropic.T)[np.triu_indices(3, 1)]).max() < 0.05
    spans(anisotropic[:, 2], 0, math.pi)
    factor, nearest, up = (np.array(x) for x in (plan.factor, plan.nearest, plan.up))
    for one in (2, 4):
        spans(nearest[factor == one], 0.1, 0.6 * one)
        spans(up[factor == one], 0.5, one)
    spans(plan.mixing.square().sum((1, 2)).div(3).sqrt() * 255, 1, 25)
    assert set(plan.tables[1, :, 0, 7, 7].tolist()) == set(standard_tables(torch.arange(30, 96))[:, 0, 7, 7].tolist())


@pytest.mark.parametrize(("up", "steps"), [(0.5, (1 / 8, 2)), (1.0, (1 / 4,)), (2.0, (1 / 2, 1 / 2))])
def test_down_up_resizes_twice(hr, up, steps):
    plan = degradation(resizes=["down_up"], halve=0).draw(8, seeded(), cut=False)
    plan = dataclasses.replace(plan, order=[["resize"]] * 8, up=[up] * 8, ways=[["bicubic", "bicubic"]] * 8)
    expected = hr
    for step in steps:
        expected = imresize(expected, step)
    torch.testing.assert_close(shuffled(hr, plan), expected.clamp(0, 1), atol=1e-5, rtol=0)


def test_every_image_has_a_camera_and_fields_of_its_own(hr):
    plan = degradation(sensor_share=1).draw(8, seeded(), cut=False)
    plan = dataclasses.replace(plan, order=[["sensor"]] * 8)
    for i, ours in enumerate(shuffled(hr, plan)):
        camera = plan.camera.of([i], hr.device)
        field = torch.empty(1, 1, 96, 112).normal_(generator=seeded(plan.seeds[i][1]))
        torch.testing.assert_close(ours, photographed(hr[i : i + 1], camera, field)[0], atol=1e-4, rtol=0)
    assert len({seed for seeds in plan.seeds for seed in seeds}) == 16


def test_images_take_their_steps_in_their_order(hr, monkeypatch):
    plan = degradation().draw(8, seeded(3), cut=False)
    taken: list[list[str]] = [[] for _ in range(8)]
    step = bsrgan._step

    def watched(name, batch, plan, members):
        for i in members:
            taken[i].append(name)
        return step(name, batch, plan, members)

    monkeypatch.setattr(bsrgan, "_step", watched)
    shuffled(hr, plan)
    assert taken == plan.order
    assert len({tuple(order) for order in taken}) == 8


def test_equals_the_steps_by_hand(hr):
    """Of every image by itself, blurs by scipy, and a last JPEG."""
    degrade = degradation(resizes=["bicubic"], sensor_share=0)
    ours = degrade(hr, seeded(5))
    plan = degrade.draw(8, seeded(5), cut=False)
    kinds = torch.tensor([[2, 2]])
    for i, image in enumerate(hr):
        for step in plan.order[i]:
            if step in plan.kernels:
                kernel = plan.kernels[step][i].double().numpy()
                planes = [ndimage.correlate(plane, kernel, mode="reflect") for plane in image.double().numpy()]
                image = torch.from_numpy(np.stack(planes)).float()
            elif step == "noise":
                field = torch.empty(image.shape).normal_(generator=seeded(plan.seeds[i][0]))
                image = image + torch.einsum("ij,jhw->ihw", plan.mixing[i], field)
            elif step == "jpeg":
                image = jpeg(image[None], plan.tables[0, i : i + 1], kinds)[0]
            elif step == "resize":
                image = imresize(image, 1 / plan.factor[i])
            elif plan.halve[i] == "bicubic":
                image = imresize(image, 1 / 2)
            else:
                for axis in (1, 2):  # a tent over four pixels
                    image = ndimage.correlate1d(image, [1 / 8, 3 / 8, 3 / 8, 1 / 8], axis=axis, mode="reflect")
                image = torch.from_numpy(image[:, 1::2, 1::2])
            image = image.clamp(0, 1)
        expected = jpeg(image[None], plan.tables[1, i : i + 1], kinds)[0]
        difference = (ours[i] - expected).abs() * 255
        assert difference.mean() < 0.3, plan.order[i]  # rounding error tips a coefficient of JPEG here and there


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
    image = dot(24)
    plan = degradation(resizes=[way], **GEOMETRY).draw(24, seeded(), cut=True)
    shift = position(shuffled(image, plan)) - (position(image) - 1.5) / 4
    assert shift.abs().max() < (0.05 if way == "down_up" else 1e-3)  # LR pixels; linear interpolation on a coarse grid
    assert shift.mean(0).abs().max() < 5e-3


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


@pytest.mark.parametrize("way", ["nearest", "bilinear", "bicubic", "area"])
def test_margin_covers_blurs_and_resize_in_hr(way):
    """Where the blurs come first, a crop with the margin is the crop of the whole.

    After the resize blurs reach further than the margin, and ``down_up``'s middle grid hangs on the picture's size.
    """
    whole = torch.stack([scene(192, 208, seed) for seed in range(4)])
    degrade = degradation(resizes=[way], halve=0, **GEOMETRY)
    margin = degrade.margin
    assert margin == 32
    plan = degrade.draw(4, seeded(), cut=True)
    plan = dataclasses.replace(plan, order=[["isotropic", "anisotropic", "resize"]] * 4)
    start, side = (40, 60), 64
    crop = whole[..., start[0] - margin : start[0] + side + margin, start[1] - margin : start[1] + side + margin]
    ours = shuffled(crop, plan)[..., margin // 4 : -margin // 4, margin // 4 : -margin // 4]
    expected = shuffled(whole, plan)[..., start[0] // 4 :, start[1] // 4 :][..., : side // 4, : side // 4]
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)


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


def test_an_image_depends_on_no_other(hr):
    others = torch.cat([hr[:3], 1 - hr[3:]])
    ours, theirs = (degradation()(images, seeded(2)) for images in (hr, others))
    torch.testing.assert_close(ours[:3], theirs[:3], atol=1.01 / 255, rtol=0)
    assert (ours[:3] != theirs[:3]).float().mean() < 1e-3  # rounding error of another place in a batched FFT
    assert not torch.equal(ours[3:], theirs[3:])


def test_the_last_jpeg_is_last(hr):
    degrade = degradation()
    plan = degrade.draw(8, seeded(1), cut=True)
    before = shuffled(hr, plan)[..., 4:-4, 4:-4]
    expected = jpeg(before, plan.tables[1], torch.full((8, 2), 2), plan.phase[1])
    assert torch.equal(degrade(hr, seeded(1), 16), expected)
    assert not torch.equal(before, expected)


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


def test_no_value_is_asked_from_the_device():
    """On the meta device, which computes nothing: an operation that mixed devices or asked for a value would fail."""
    plan = degradation(sensor_share=1, jpeg_share=1).draw(6, seeded(), cut=True)
    assert shuffled(torch.empty(6, 3, 64, 48, device="meta"), plan).shape == (6, 3, 16, 12)


def test_with_next_to_nothing_it_is_bicubic():
    """The pieces that remain change little: the ranges do reach the steps."""
    hr = torch.stack([leaves(96, 112, seed) for seed in range(8)])  # gray: chroma is subsampled
    degrade = degradation(resizes=["bicubic"], halve=0, **GEOMETRY, **SHARP)
    difference = (degrade(hr, seeded()) - imresize(hr, 1 / 4).clamp(0, 1)).abs().mean()
    assert difference < 1 / 255
    assert (degradation()(hr, seeded()) - imresize(hr, 1 / 4)).abs().mean() > 10 * difference


def test_pools_are_refused():
    pool = KernelPool(torch.full((1, 9, 9), 1 / 81), ["a"])
    with pytest.raises(InputError, match=r"draws from no pools; give data\.kernel_dir=null.*data\.val_hr"):
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
