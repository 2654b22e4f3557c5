"""Pictures for people: every cell where it belongs, crops where methods differ."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from realsr.imaging import Photo, write_image
from realsr.reports.pictures import (
    DETAIL,
    GAP,
    LABEL_HEIGHT,
    MOST,
    SIDE,
    before_and_after,
    contact_sheet,
    grid,
    noise_picture,
    sharpest_crop,
    view_files,
)


def flat(value: int, height: int = 10, width: int = 12) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


@pytest.mark.parametrize("labels", [None, [["one", "two"], ["three"]]])
def test_grid_places_cells(labels):
    cells = [[flat(10), flat(20, 6, 20)], [flat(30, 14, 8)]]
    sheet, above = grid(cells, labels), LABEL_HEIGHT if labels else 0
    assert sheet.shape == (2 * (14 + above + GAP) + GAP, 2 * (20 + GAP) + GAP, 3)
    for r, row in enumerate(cells):
        for c, cell in enumerate(row):
            y, x = GAP + r * (14 + above + GAP) + above, GAP + c * (20 + GAP)
            window = sheet[y : y + cell.shape[0], x : x + cell.shape[1]]
            np.testing.assert_array_equal(window, cell)
            sheet = sheet.copy()
            sheet[y : y + cell.shape[0], x : x + cell.shape[1]] = 255
            written = (sheet[y - above : y, x : x + 20] < 128).any() if labels else False
            assert written == bool(labels)
    if not labels:
        assert (sheet == 255).all()


def test_labels_stay_in_their_cell():
    """A long name loses its middle, not the end that tells photos apart."""
    long = [["IMG_20240101_a_very_long_name_0001", "b"]]
    sheet = grid([[flat(255, 10, 60), flat(255, 10, 60)]], long)
    assert (sheet[:, GAP + 60 : GAP + 60 + GAP] == 255).all()
    ends = [grid([[flat(255, 10, 90)]], [[f"IMG_20240101_a_very_long_name_000{i}"]]) for i in (1, 2)]
    assert not np.array_equal(*ends)
    assert ImageDraw.Draw(Image.new("RGB", (1, 1))).textlength(long[0][0]) > 90


@pytest.mark.parametrize(
    ("count", "limit", "columns", "expected"),
    [
        (5, 64, 8, [[0, 1, 2, 3, 4]]),
        (5, 64, 2, [[0, 1], [2, 3], [4]]),
        (21, 5, 3, [[0, 5, 10], [15, 20]]),
        (10, 1, 8, [[0]]),
    ],
)
def test_contact_sheet_picks_evenly(count, limit, columns, expected):
    sheet = contact_sheet(range(count), lambda i: flat(10 * i, 40, 50), [f"{i}" for i in range(count)], columns, limit)
    step_y, step_x = 40 + LABEL_HEIGHT + GAP, 50 + GAP
    assert sheet.shape[:2] == (len(expected) * step_y + GAP, len(expected[0]) * step_x + GAP)
    middles = sheet[GAP + LABEL_HEIGHT + 20 :: step_y, GAP + 25 :: step_x, 0] // 10
    for row, shown in zip(expected, middles.tolist(), strict=True):
        assert shown[: len(row)] == row


def test_noise_picture_is_gray_on_average_and_amplified():
    tile = np.random.default_rng(0).integers(90, 110, (200, 300, 3)).astype(np.uint8) + np.array([0, 50, 100], np.uint8)
    picture = noise_picture(tile, 64, gain=3)
    assert picture.shape == (64, 64, 3)
    np.testing.assert_allclose(picture.mean((0, 1)), 128, atol=0.5)
    np.testing.assert_allclose(picture.std((0, 1)), 3 * tile[:64, :64].std((0, 1)), rtol=0.02)


@pytest.mark.parametrize(("shape", "expected"), [((20, 40), (32, 64)), ((60, 20), (64, 21)), ((100, 1), (64, 1))])
def test_a_noise_picture_keeps_the_aspect(shape, expected):
    assert noise_picture(flat(0, *shape), 64).shape == (*expected, 3)


@pytest.mark.parametrize("corner", [(0, 0), (0, 96), (64, 0), (64, 96), (32, 40)])
def test_sharpest_crop_finds_the_busy_corner(corner):
    image = flat(100, 96, 128)
    y, x = corner
    image[y : y + 32, x : x + 32] = np.random.default_rng(0).integers(0, 256, (32, 32, 3))
    found = sharpest_crop(image, 32)
    assert np.abs(np.subtract(found, corner)).max() <= 4
    assert found[0] % 4 == found[1] % 4 == 0  # so that the LR has the same crop
    assert image[found[0] :, found[1] :][:32, :32].shape == (32, 32, 3)


@pytest.mark.parametrize("shape", [(20, 128), (96, 20), (32, 32), (8, 8)])
def test_sharpest_crop_of_a_small_image(shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
    y, x = sharpest_crop(image, 32)
    assert (shape[0] > 32 or y == 0) and (shape[1] > 32 or x == 0)
    assert x <= max(shape[1] - 32, 0)


def test_pictures_of_a_large_result_are_its_means_and_its_part_with_most_detail(tmp_path):
    rng = np.random.default_rng(0)
    lr = np.full((300, 400, 4), 40000, np.uint16)
    lr[160:290, 220:350, :3] = rng.integers(0, 65535, (130, 130, 3))
    lr[..., 3] = 65535
    lr[:100, :, 3] = 0  # seen through: white
    large = lr.repeat(6, 0).repeat(6, 1)
    for name, pixels in (("lr", lr), ("large", large)):
        write_image(tmp_path / f"{name}.png", Photo(pixels[..., :3], pixels[..., 3]))
    assert before_and_after(tmp_path / "lr.png", tmp_path / "large.png") == (
        (2400, 1800),
        ["whole photo, reduced to 1/2", DETAIL],
    )
    (before, after), (zoomed, detail) = ([Image.open(file) for file in view_files(tmp_path, i)] for i in (0, 1))
    assert max(after.size) <= MOST
    assert before.size == after.size == (1200, 900)
    white = large[..., :3].astype(np.float64) / 257
    white[: 100 * 6] = 255
    assert np.abs(np.asarray(after, float) - white.reshape(900, 2, 1200, 2, 3).mean((1, 3))).max() <= 1
    # the detail is in the noise but for some pixels, not reduced, and what bicubic makes is of the same place
    zoomed, detail = np.asarray(zoomed, float), np.asarray(detail, float)
    assert zoomed.shape == detail.shape == (SIDE, SIDE, 3)
    assert len(np.unique(detail.reshape(-1, 3), axis=0)) > 120**2
    assert np.any(np.diff(detail, axis=1), axis=(0, 2)).sum() == pytest.approx(SIDE / 6, abs=1)
    assert np.abs(detail - zoomed).mean() < 0.4 * detail.std() < np.abs(detail - zoomed[::-1]).mean()
