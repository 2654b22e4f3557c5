"""Draws that are not the paper's: kernels turned, widened, by confidence; noise by brightness, without planes."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from scipy import ndimage

from realsr.estimation.kernels import centre_index, centre_of_mass, gaussian_kernel
from realsr.pools.folder import Entry
from realsr.pools.pool import KernelPool, NoisePool, brightness, hold_out
from realsr.pools.sampling import KernelDraw, NoiseDraw, without_slope
from realsr.runtime.errors import InputError


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise_for(images: torch.Tensor, pool: NoisePool, seed: int = 0, **how: object) -> torch.Tensor:
    draw = NoiseDraw(**how)
    return draw.noise(pool, draw.draw(pool, len(images), images.shape[-2:], seeded(seed)), images)


def off_centre(size: int) -> torch.Tensor:
    """A kernel without symmetries that is nowhere zero."""
    values = np.random.default_rng(size).random((size, size))
    return torch.from_numpy(values / values.sum()).float()


def moments(kernel: torch.Tensor, scale: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance ``(row, column)`` about the point that a kernel belongs on."""
    k = kernel.double().numpy()
    place = np.arange(len(k)) - centre_index(len(k), scale)
    points = np.stack(np.meshgrid(place, place, indexing="ij"))
    mean = (points * k).sum((1, 2)) / k.sum()
    away = points - mean[:, None, None]
    return mean, np.einsum("iyx,jyx,yx->ij", away, away, k) / k.sum()


def test_the_default_draws_are_the_papers_to_the_bit():
    pool = KernelPool(torch.stack([off_centre(9) * (i + 1) for i in range(5)]), list("abcde"), torch.rand(5).double())
    expected = pool.kernels[torch.randint(5, (40,), generator=seeded(1))]
    assert torch.equal(KernelDraw().sample(pool, 40, 4, seeded(1)), expected)
    tiles = torch.randint(0, 256, (20, 3, 16, 16), generator=seeded(), dtype=torch.uint8)
    generator = seeded(2)
    index, top, left = (torch.randint(n, (7,), generator=generator) for n in (20, 9, 5))
    cuts = [tiles[i, :, y : y + 8, x : x + 12].float() for i, y, x in zip(index, top, left, strict=True)]
    expected = torch.stack([(cut - cut.mean((1, 2), keepdim=True)) / 255 for cut in cuts])
    drawn = noise_for(torch.rand(7, 3, 8, 12), NoisePool(tiles, ["a"] * 20), 2)
    torch.testing.assert_close(drawn, expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize(("size", "scale"), [(9, 4), (8, 4), (9, 2), (7, 3)])
def test_turns_are_the_squares_symmetries_about_the_centre_of_the_phase(size, scale):
    """Nothing is cut off, though the kernel fills its frame; numpy turns a frame about that centre the same."""
    kernel = off_centre(size)
    ours = KernelDraw(turn=True).sample(KernelPool(kernel[None], ["a"]), 100, scale, seeded())
    grow = KernelDraw(turn=True).grow(size, scale)
    padded, frame = np.pad(kernel.numpy(), grow), size + 2 * grow
    start = 2 * (frame // 2) + scale - frame  # from there on, the centre is the middle of the array
    assert start + (frame - start - 1) / 2 == centre_index(frame, scale)
    inner = padded[start:, start:]
    expected = {np.rot90(k, n).tobytes() for n in range(4) for k in (inner, inner.T)}
    assert {k[start:, start:].numpy().tobytes() for k in ours} == expected
    assert any(np.array_equal(k, padded) for k in ours)
    assert len(expected) == 8
    torch.testing.assert_close(ours.sum((1, 2)), torch.ones(100))


def test_turned_kernels_stay_centred_and_their_covariance_turns():
    kernel = torch.from_numpy(gaussian_kernel(33, (2.5, 1.5), 0.4, 4)).float()
    drawn = KernelDraw(turn=True).sample(KernelPool(kernel[None], ["a"]), 400, 4, seeded())
    _, ((yy, xy), (_, xx)) = moments(kernel, 4)
    seen = []
    for turn in drawn.unique(dim=0):
        assert np.abs(centre_of_mass(turn.numpy()) - centre_index(turn.shape[-1], 4)).max() < 1e-4
        seen.append(moments(turn, 4)[1][[0, 0, 1], [0, 1, 1]])
    expected = [(a, sign * xy, b) for a, b in ((yy, xx), (xx, yy)) for sign in (1, -1)]
    for covariance in seen:
        assert min(np.abs(covariance - np.array(e)).max() for e in expected) < 1e-3
    for e in expected:
        assert min(np.abs(covariance - np.array(e)).max() for covariance in seen) < 1e-3


def test_kernels_are_drawn_in_proportion_to_their_confidence(tmp_path):
    confidence = {"a": 0.1, "b": 0.3, "c": None, "d": 0.6, "e": 0.0}
    for i, (name, value) in enumerate(confidence.items()):
        manifest = {"photo": name} if value is None else {"photo": name, "confidence": value}
        Entry(tmp_path / f"{name}.npz", {"x4": gaussian_kernel(9, (1.0 + i, 1.0), 0, 4)}, manifest).write()
    pool = KernelPool.load(tmp_path, 4)

    def shares(pool, draws=20000):
        drawn = pool.sample(draws, seeded(), by_confidence=True)
        return [float((drawn == kernel).all((1, 2)).sum()) / draws for kernel in pool.kernels]

    np.testing.assert_allclose(shares(pool), np.array([0.1, 0.3, 1, 0.6, 0]) / 2, atol=0.015)
    for part in hold_out(pool, 0.4, seed=0):
        weights = np.array([1.0 if confidence[name] is None else confidence[name] for name in part.photos])
        np.testing.assert_allclose(shares(part), weights / weights.sum(), atol=0.015)
    nothing = KernelPool(pool.kernels, pool.photos, torch.zeros(5).double())
    np.testing.assert_allclose(shares(nothing), 0.2, atol=0.015)


def coloured_pool(count: int = 200) -> NoisePool:
    """Tiles of random colours whose noise tells which tile it is: one pixel, that of the tile's index, is brighter."""
    tiles = torch.randint(20, 200, (count, 3, 1, 1), generator=seeded(), dtype=torch.uint8).repeat(1, 1, 16, 16)
    tiles.flatten(2)[range(count), :, range(count)] += 50
    return NoisePool(tiles, [f"photo{i // 5}" for i in range(count)])


@pytest.mark.parametrize(("nearest", "count"), [(0.1, 200), (0.01, 200), (0.9, 200), (0.1, 5)])
def test_noise_is_of_the_tiles_nearest_in_brightness(nearest, count):
    pool = coloured_pool(count)
    images = torch.linspace(0, 1, 6).view(-1, 1, 1, 1).repeat(1, 3, 16, 16)
    images[:, 0] *= 0.5
    weights = np.array([0.299, 0.587, 0.114])
    levels = (pool.tiles.double().numpy() / 255).mean((2, 3)) @ weights
    wanted = images.double().numpy().mean((2, 3)) @ weights
    drawn = noise_for(images.repeat(600, 1, 1, 1), pool, nearest=nearest)
    which = drawn[:, 0].flatten(1).argmax(1).view(600, 6).numpy()
    among = min(max(round(nearest * count), 8), count)
    for image in range(6):
        expected = np.argsort(np.abs(levels - wanted[image]), kind="stable")[:among]
        assert set(which[:, image]) <= set(expected)
        assert len(set(which[:, image])) > 0.9 * among
    again = noise_for(images.repeat(600, 1, 1, 1), pool, nearest=nearest)
    assert torch.equal(again, drawn)


def test_brightness_is_matched_after_hold_out():
    for part in hold_out(coloured_pool(), 0.3, seed=0):
        levels = brightness(part.tiles / 255)
        dark = torch.zeros(50, 3, 16, 16)
        drawn = noise_for(dark, part, nearest=0.01)
        darkest = [part.tiles[i].float() / 255 for i in levels.argsort()[:8]]
        darkest = torch.stack([tile - tile.mean((1, 2), keepdim=True) for tile in darkest])
        assert torch.cdist(drawn.flatten(1), darkest.flatten(1)).min(1).values.max() < 1e-3


def test_a_pool_is_pickled_and_moves_with_its_brightness():
    pool, images = coloured_pool(), torch.full((3, 3, 16, 16), 0.4)
    expected = noise_for(images, pool, nearest=0.1)
    assert len([*pool.buffers()]) == 3 and not pool.state_dict()
    again = pickle.loads(pickle.dumps(pool))
    assert again.photos == pool.photos and torch.equal(noise_for(images, again, nearest=0.1), expected)
    assert noise_for(images.to("meta"), again.to("meta"), nearest=0.1).device.type == "meta"


@pytest.mark.parametrize("size", [(16, 16), (9, 14), (1, 12), (24, 20)])
def test_planes_are_taken_away_and_nothing_else(size):
    noise = torch.randn(4, 3, *size, generator=seeded(), dtype=torch.float64).numpy()
    rows, columns = np.mgrid[: size[0], : size[1]]
    sloped = noise + 0.3 * rows - np.arange(3)[:, None, None] * columns + 5
    basis = np.stack([np.ones(size), rows, columns]).reshape(3, -1).T
    expected = noise.reshape(12, -1).T
    expected = (expected - basis @ np.linalg.lstsq(basis, expected, rcond=None)[0]).T.reshape(noise.shape)
    zero_mean = torch.from_numpy(sloped - sloped.mean((2, 3), keepdims=True))
    np.testing.assert_allclose(without_slope(zero_mean), expected, atol=1e-5)


def test_a_pool_of_gradients_gives_no_noise_without_planes():
    tiles = torch.arange(32, dtype=torch.uint8).expand(2, 3, 32, 32) + torch.tensor([3, 90], dtype=torch.uint8).view(
        2, 1, 1, 1
    )
    pool = NoisePool(tiles, ["a", "b"])
    images = torch.rand(5, 3, 12, 12)
    assert noise_for(images, pool).abs().max() > 5 / 255
    assert noise_for(images, pool, detrend="plane").abs().max() < 1e-6


def test_values_out_of_range_are_refused():
    for nearest in (0.0, 1.5):
        with pytest.raises(InputError, match=rf"noise\.nearest={nearest}: give more than 0, up to 1"):
            NoiseDraw(nearest=nearest)


def test_correlation_with_a_turned_kernel_moves_nothing():
    """A spot stays where it is, by scipy's correlation in the module's phase convention."""
    pool = KernelPool(torch.from_numpy(gaussian_kernel(21, (3.0, 1.0), 0.3, 4)).float()[None], ["a"])
    spot = np.zeros((96, 96))
    spot[46:50, 46:50] = 1
    for kernel in KernelDraw(turn=True).sample(pool, 16, 4, seeded()):
        blurred = ndimage.correlate(spot, kernel.numpy(), mode="constant")
        # sampled at 4i it lies where 4i + 1.5 of the scene does
        assert np.abs(centre_of_mass(blurred) + 1.5 - 47.5).max() < 0.01
