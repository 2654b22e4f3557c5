import tracemalloc

import numpy as np
import pytest
import torch
from conftest import leaves
from scipy import stats

from realsr.estimation.crops import (
    CropPairs,
    PatchCrops,
    _parts,
    crop_probability,
    draw_corners,
    gradient_map,
)
from realsr.estimation.evidence import foreign_pixels, interlacing
from realsr.imaging.colour import LUMA
from realsr.imaging.detail import detailed_window


@pytest.fixture
def reference(golden):
    return golden("kernelgan_crop_probability.npz")


def photo(reference):
    return torch.from_numpy(reference["image"]).permute(2, 0, 1)


def test_gradient_map_is_that_of_the_reference_program(reference):
    ours = gradient_map(reference["image"])
    np.testing.assert_allclose(ours, reference["gradient_map"], atol=1e-5)
    assert reference["gradient_map"].max() > 2


def test_probability_is_that_of_the_reference_program(reference):
    ours = crop_probability(reference["gradient_map"], 64)
    np.testing.assert_allclose(ours.ravel(), reference["probability"], atol=1e-5 * reference["probability"].max())
    assert ours.sum() == pytest.approx(1)


@pytest.mark.parametrize("crop, height, width", [(64, 120, 100), (26, 120, 100), (25, 61, 47), (64, 64, 65)])
def test_corners_are_even_and_crops_inside(crop, height, width):
    density = np.random.default_rng(0).random((height, width))
    corners = draw_corners(crop_probability(density, crop), crop, 3000, np.random.default_rng(1))
    assert corners.shape == (3000, 2)
    assert (corners % 2 == 0).all() and (corners >= 0).all()
    assert (corners + crop <= (height, width)).all()
    assert len(np.unique(corners, axis=0)) > 1 or min(height, width) == crop


@pytest.mark.parametrize("axis", [0, 1])
def test_corners_follow_the_probability(reference, axis):
    crop, shape, count = 26, reference["gradient_map"].shape, 20000
    probability = crop_probability(reference["gradient_map"], crop)
    corners = draw_corners(probability, crop, count, np.random.default_rng(0))
    # rows (columns) of centres y and y + 1 with y - crop/2 even share a corner
    marginal = probability.sum(1 - axis)
    expected = marginal[crop // 2 : crop // 2 + (shape[axis] - crop) // 2 * 2].reshape(-1, 2).sum(1) * count
    drawn = np.bincount(corners[:, axis] // 2, minlength=len(expected))
    assert drawn[len(expected) :].sum() <= count * marginal[crop // 2 + 2 * len(expected) :].sum() + 50
    often = expected > 5
    drawn, expected = drawn[: len(expected)][often], expected[often]
    assert len(expected) > 10
    assert stats.chisquare(drawn, expected * drawn.sum() / expected.sum()).pvalue > 1e-3
    uniform = np.full(len(drawn), drawn.sum() / len(drawn))
    assert stats.chisquare(drawn, uniform).pvalue < 1e-6  # the test would notice


def test_where_nothing_happens_no_crop_is_drawn():
    image = torch.full((3, 300, 300), 0.5)
    image[:, :90, 200:] = torch.rand(3, 90, 100, generator=torch.Generator().manual_seed(0))
    crops = CropPairs(image, 500, crop=64, real=26, scale=2, seed=0)
    for size, corners in zip(crops.sizes, crops.corners, strict=True):
        centres = corners + size // 2
        assert (centres[:, 0] < 90 + size).all() and (centres[:, 1] > 200 - size).all()


def test_items_are_cuts_of_the_photo_from_minus_one_to_one(reference):
    crops = CropPairs(photo(reference), 20, crop=64, real=26, scale=2, seed=0)
    assert len(crops) == 20
    for index in range(20):
        for crop, corners in zip(crops[index], crops.corners, strict=True):
            y, x = corners[index]
            size = crop.shape[-1]
            cut = reference["image"][y : y + size, x : x + size].transpose(2, 0, 1)
            np.testing.assert_allclose(crop.numpy(), cut * 2 - 1, atol=1e-6)
    assert [tuple(crop.shape) for crop in crops[0]] == [(3, 64, 64), (3, 26, 26)]


def test_the_seed_and_nothing_else_decides(reference):
    def corners(seed):
        return np.concatenate(CropPairs(photo(reference), 50, crop=64, real=26, scale=2, seed=seed).corners)

    first = corners(3)
    np.random.seed(1)  # noqa: NPY002  (the global state must not matter)
    torch.manual_seed(1)
    assert (corners(3) == first).all()
    assert (corners(4) != first).any()


# -- crops for patch matching ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("height, width", [(121, 99), (66, 66), (70, 300)])
def test_small_crops_are_cuts_of_large_ones_and_those_of_the_photo(height, width):
    image = leaves(height, width)
    crops = PatchCrops(image, 10, crops=3, large=64, small=26, seed=0)
    gray = image.double().permute(1, 2, 0).numpy() @ LUMA
    inside = crops.small - crops.large
    assert crops.large.shape == crops.small.shape == (10, 4, 3, 2)
    assert crops.large.min() >= 0 and (crops.large + 64 <= torch.tensor([height, width])).all()
    assert inside.min() == 0 and inside.max() == 64 - 26
    for index in range(10):
        large, small = crops[index]
        assert large.shape == (4, 3, 64, 64) and small.shape == (4, 3, 26, 26)
        for part in range(4):
            for n in range(3):
                y, x = crops.large[index, part, n]
                np.testing.assert_allclose(large[part, n].numpy(), gray[y : y + 64, x : x + 64], atol=1e-6)
                y, x = inside[index, part, n]
                assert torch.equal(small[part, n], large[part, n, y : y + 26, x : x + 26])


def test_parts_are_equally_probable_and_do_not_overlap():
    height, width = 90, 140
    probability = np.random.default_rng(0).random((height, width)) * np.linspace(0, 1, width) ** 2
    probability /= probability.sum()
    parts = np.array(_parts(probability))
    np.testing.assert_allclose(parts.sum((1, 2)), 1)
    assert ((parts > 0).sum(0) == (probability > 0)).all()
    for part in parts:
        assert probability[part > 0].sum() == pytest.approx(0.25, abs=0.01)
    rows, columns = ([np.nonzero(part.any(axis))[0] for part in parts] for axis in (1, 0))
    assert rows[0].max() == rows[1].max() < rows[2].min() == rows[3].min()
    assert columns[0].max() < columns[1].min() and columns[2].max() < columns[3].min()


@pytest.mark.parametrize("edges", [np.s_[4:5, 7:8], np.s_[4:5, :], np.s_[:, 7:8]])
def test_parts_of_a_photo_with_edges_in_one_place_are_drawn_there(edges):
    probability = np.zeros((10, 12))
    probability[edges] = 1
    for part in _parts(probability):
        assert part.sum() == pytest.approx(1)
        assert not part[probability == 0].any()


def test_crops_with_drawn_pixels_are_left_out_while_there_are_others():
    image = leaves(200, 300)
    foreign = np.zeros((200, 300), bool)
    foreign[:, 250:] = True
    crops = PatchCrops(image, 100, crops=3, large=64, small=26, seed=0, foreign=foreign)
    assert 0.5 < crops.clear < 0.95
    assert crops.large[..., 1].max() + 64 <= 250 + 2
    foreign[::10] = True
    crops = PatchCrops(image, 100, crops=3, large=64, small=26, seed=0, foreign=foreign)
    assert crops.clear == 0 and crops.large[..., 1].max() + 64 > 260


def test_what_is_drawn_is_white_or_the_same_all_around():
    photo = (leaves(60, 80) + 0.02 * torch.randn(3, 60, 80, generator=torch.Generator().manual_seed(0))).clamp(0.1, 0.9)
    assert not foreign_pixels(photo, flat=True).any()
    photo[:, 10:20, 10:30] = 0.4
    photo[:, 30:40, 5:15] = 0.0
    photo[:, 50, 70] = 1.0
    drawn = np.zeros((60, 80), bool)
    drawn[50, 70] = True
    np.testing.assert_array_equal(foreign_pixels(photo, flat=False), drawn)
    drawn[10:20, 10:30] = drawn[30:40, 5:15] = True
    np.testing.assert_array_equal(foreign_pixels(photo, flat=True), drawn)


def test_interlacing_is_told_from_photos_and_noise():
    gray = leaves(200, 200)[0].numpy().astype(float)
    noise = np.random.default_rng(0).standard_normal(gray.shape)
    assert interlacing(gray) < 0.7
    assert interlacing(noise) == pytest.approx(1, abs=0.05)
    moved = gray.copy()
    moved[1::2] = np.roll(gray, 5, 1)[1::2]
    assert min(interlacing(moved), interlacing(moved.T)) > 1.2


# -- the window that is looked at ------------------------------------------------------------------------------------


@pytest.mark.parametrize("height, width", [(2048, 2048), (100, 2048), (1, 1)])
def test_a_photo_that_is_small_enough_is_looked_at_whole(height, width):
    assert detailed_window(np.zeros((height, width, 3), np.uint8), 2048) == (slice(0, height), slice(0, width))


@pytest.mark.parametrize(
    "height, width, rows, columns", [(2049, 70, 2048, 70), (70, 5001, 70, 2048), (3000, 5000, 2048, 2048)]
)
@pytest.mark.parametrize("turned", [False, True])
def test_the_window_holds_most_edges_and_lies_inside(height, width, rows, columns, turned):
    photo = np.zeros((height, width, 1), np.uint8)
    rng = np.random.default_rng(0)
    photo[:60, :60] = rng.integers(0, 200, (60, 60, 1))
    photo[-60:, -60:] = rng.integers(200, 255, (60, 60, 1))  # brighter, and less detailed
    detailed = np.zeros((height, width), bool)
    detailed[:60, :60] = True
    if turned:
        photo, detailed = photo[::-1, ::-1], detailed[::-1, ::-1]
    window = detailed_window(photo, 2048)
    assert photo[window].shape[:2] == (rows, columns)
    assert detailed[window].sum() == 60 * 60


def test_the_window_of_a_huge_photo_costs_little_memory():
    photo = np.zeros((12_000, 17_000, 3), np.uint8)  # pages of zeros take no memory
    photo[:600, -900:] = np.random.default_rng(0).integers(0, 255, (600, 900, 1))
    tracemalloc.start()
    try:
        rows, columns = detailed_window(photo, 2048)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (rows.start, rows.stop) == (0, 2048)
    assert columns.start <= 17_000 - 900 and columns.stop > 17_000 - 8  # every eighth pixel is looked at
    assert peak < photo.nbytes / 4
