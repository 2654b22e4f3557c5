"""The contact sheet of kernels: fixed gray scale, the least confident first, bounded, and older pools too."""

from __future__ import annotations

from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest
import wandb
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger, WandbLogger

from realsr.estimation.estimate import KernelEstimate
from realsr.estimation.kernels import gaussian_kernel
from realsr.pools.folder import Entry
from realsr.pools.kernel_sheet import CROPS, chosen, kernel_on_fixed_scale, kernel_sheet, thumbnails
from realsr.training.callbacks import PoolPictures


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "pool"


def add(folder, index, confidence=None, sides=None, reasons=()):
    """An entry whose widths tell its index."""
    arrays = {"x4": gaussian_kernel(33, (2 + 0.01 * index, 1 + 0.01 * index), 0.5, 4)}
    manifest = {"photo": f"photo{index}.png"}
    if sides:
        density = np.zeros(sides, np.uint8)
        density[: sides[0] // 2] = 255
        arrays |= {"thumbnail": np.full((*sides, 3), 200, np.uint8), "density": density}
    if confidence is not None:
        manifest |= {"confidence": confidence, "reasons": list(reasons)}
    Entry(folder / f"{index:04d}.npz", arrays, manifest).write()


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_gray_scale_is_that_of_the_scale(scale):
    """A value is the same gray in every kernel, whatever its largest: ``1 / scale**2`` is white."""
    for widths in ((0.6, 0.25), (0.5, 0.8), (1, 1)):
        kernel = gaussian_kernel(8 * scale + 1, (scale * widths[0], scale * widths[1]), 0.7, scale)
        picture = kernel_on_fixed_scale(kernel, scale)
        zoom = picture.shape[0] // kernel.shape[0]
        expected = 255 * np.sqrt(np.minimum(kernel * scale**2, 1)).repeat(zoom, 0).repeat(zoom, 1)
        gray = (picture == picture[..., :1]).all(2)  # all but the ellipse
        assert zoom >= 4 and gray.mean() > 0.9
        np.testing.assert_array_equal(picture[gray, 0], expected[gray].round())


def test_large_and_small_kernels_are_shown_at_one_size():
    small, large = gaussian_kernel(9, (1, 1.2), 0.3, 4), gaussian_kernel(61, (1, 1.2), 0.3, 4)
    shown = [kernel_on_fixed_scale(kernel, 4).astype(int) for kernel in (small, large)]
    assert shown[0].shape == shown[1].shape
    assert np.abs(shown[0] - shown[1]).mean() < 1


@pytest.mark.parametrize(
    ("sure", "limit", "expected"),
    [
        ([0.9, 0.1, 0.5], 8, [1, 2, 0]),
        ([np.inf, 0.1, np.inf], 8, [1, 0, 2]),
        ([0.5, 0.4, 0.3, 0.2, 0.1], 4, [4, 3, 2, 0]),
        ([np.inf] * 9, 5, [0, 2, 4, 6, 8]),
        ([0.5] * 3, 1, [0]),
    ],
)
def test_the_least_confident_come_first_and_half_are_shown(sure, limit, expected):
    assert chosen(sure, limit) == expected


def test_a_sheet_is_bounded(folder):
    for index in range(30):
        add(folder, index, 0.5)
    sheet, widths = kernel_sheet(folder, 4, limit=8)
    assert sheet.shape == kernel_sheet(folder, 4, limit=6)[0].shape  # two rows of four
    assert sheet.shape[0] < kernel_sheet(folder, 4)[0].shape[0]
    assert widths.shape == (30, 2)


def test_widths_of_the_kernels_that_are_kept(folder):
    for index, confidence in enumerate([0.2, 0.6, None]):
        add(folder, 10 * index, confidence)
    for least, kept in ((0.0, [0, 1, 2]), (0.5, [1, 2]), (0.7, [2])):
        widths = kernel_sheet(folder, 4, least)[1]
        np.testing.assert_allclose(widths, [(2 + 0.1 * i, 1 + 0.1 * i) for i in kept], rtol=0.01)


@pytest.mark.parametrize("least", [0.0, 1.0])
def test_every_mixture_of_what_entries_have_is_drawn(folder, least):
    add(folder, 0)
    bare = kernel_sheet(folder, 4, least)[0]
    add(folder, 1, 0.5, reasons=["a reason that is far too long for the width of a cell, so that it has to be cut"])
    rated = kernel_sheet(folder, 4, least)[0]
    add(folder, 2, 0.1, (160, 90))
    add(folder, 3, None, (1, 160))
    assert bare.shape[0] < rated.shape[0] < kernel_sheet(folder, 4, least)[0].shape[0]
    assert bare.dtype == np.uint8 and bare.shape[2] == 3


def test_a_pool_of_which_nothing_is_kept_is_still_drawn(folder):
    add(folder, 0, 0.3)
    sheet, widths = kernel_sheet(folder, 4, 0.5)
    assert widths.shape == (0, 2) and sheet.size


def test_crops_are_orange_on_the_photo(folder):
    add(folder, 0, 0.5, (160, 160))
    sheet = kernel_sheet(folder, 4)[0]
    photo = sheet[-164:-4, 12:172].astype(int)
    orange = np.abs(photo - CROPS).sum(2) < 120
    assert orange[:80].mean() > 0.9 and not orange[80:].any()


def test_kernels_of_another_program(tmp_path):
    np.save(tmp_path / "k.npy", np.stack([gaussian_kernel(21, (2, 1), a, 4) for a in (0, 1, 2)]))
    assert kernel_sheet(tmp_path, 4)[1].shape == (3, 2)


def test_loggers_get_the_sheet_and_the_widths(folder):
    for index, confidence in enumerate([0.2, 0.6, 0.9]):
        add(folder, index, confidence)
    loggers = [MagicMock(spec=WandbLogger), MagicMock(spec=TensorBoardLogger), MagicMock(spec=CSVLogger)]
    loggers[1].experiment = MagicMock()
    trainer = SimpleNamespace(loggers=loggers, is_global_zero=True, global_step=0)
    PoolPictures(str(folder), None, 4, 0.5).on_train_start(trainer, None)
    ((name, (picture,)), _) = loggers[0].log_image.call_args
    assert name == "pools/kernels" and picture.dtype == np.uint8 and picture.shape[2] == 3
    logged = {}
    for call in loggers[0].log_metrics.call_args_list:
        logged |= call.args[0]
    assert set(logged) == {"pools/width_wider", "pools/width_narrower"}
    for histogram in logged.values():
        assert isinstance(histogram, wandb.Histogram) and sum(histogram.histogram) == 2
    assert loggers[1].experiment.add_image.call_count == 1
    assert loggers[1].experiment.add_histogram.call_count == 2
    assert not loggers[2].method_calls


def test_nothing_is_read_where_no_logger_takes_pictures(tmp_path):
    trainer = SimpleNamespace(loggers=[MagicMock(spec=CSVLogger)], is_global_zero=True, global_step=0)
    PoolPictures(str(tmp_path / "missing"), str(tmp_path), 4).on_train_start(trainer, None)


def test_one_option_reaches_training_pictures_and_estimation(compose, tiny):
    cfg = compose("train", *tiny, "pool.min_confidence=0.5")
    assert cfg.data.pools.min_confidence == cfg.callbacks.pools.min_confidence == 0.5
    assert compose("estimate", "data.source_dir=photos", "pool.min_confidence=0.5").pool.min_confidence == 0.5
    assert compose("train", *tiny).data.pools.min_confidence == 0


# -- thumbnails ------------------------------------------------------------------------------------------------------


def looked_at(rows, columns, density):
    """An estimate that was made of this window."""
    return KernelEstimate(2, {}, 1.0, [], (slice(*rows), slice(*columns)), density, {}, 1)


def picture_of(height, width):
    """Smooth, and other in every corner."""
    y, x = np.indices((height, width)) / (max(height, width) - 1)
    return (255 * np.stack([y, x, 1 - y * x], -1)).astype(np.uint8)


@pytest.mark.parametrize("height, width", [(320, 640), (640, 320), (160, 160), (1280, 960), (3200, 2400)])
def test_a_thumbnail_is_the_photo_and_shows_where_crops_were(height, width):
    """Against means over blocks."""
    photo, density = picture_of(height, width), np.zeros((height, width))
    density[height // 2 :, width // 4 : width // 2] = 2.0
    thumbnail, heat = thumbnails(photo, looked_at((0, height), (0, width), density))
    block = max(height, width) // 160
    shape = height // block, block, width // block, block
    assert thumbnail.shape == (*heat.shape, 3) == (shape[0], shape[2], 3)
    assert thumbnail.dtype == heat.dtype == np.uint8
    np.testing.assert_allclose(thumbnail, photo.reshape(*shape, 3).mean((1, 3)), atol=3)
    np.testing.assert_allclose(heat, 255 * (density.reshape(shape).mean((1, 3)) > 0), atol=1)


@pytest.mark.parametrize("top, left", [(0, 0), (951, 2411), (352, 1), (952, 2752)])
def test_crops_of_a_window_are_shown_where_it_lies(top, left):
    density = np.zeros((2048, 2048))
    density[-300:, -600:] = 1
    density[:300, :300] = 1
    whole = np.zeros((3000, 4800))
    whole[top : top + 2048, left : left + 2048] = density
    photo = np.zeros((*whole.shape, 3), np.uint8)
    heat = thumbnails(photo, looked_at((top, top + 2048), (left, left + 2048), density))[1] / 255
    expected = whole.reshape(100, 30, 160, 30).mean((1, 3))
    assert heat.shape == (100, 160)
    assert np.abs(heat - expected).mean() < 0.1 * expected.mean()
    for axis in np.indices(heat.shape):
        assert (axis * heat).sum() / heat.sum() == pytest.approx((axis * expected).sum() / expected.sum(), abs=0.5)


def test_a_density_that_lacks_a_row_lies_where_its_window_begins():
    heat = thumbnails(picture_of(320, 320), looked_at((73, 320), (0, 247), np.ones((246, 246))))[1]
    assert (heat[38:158, :122] == 255).all() and not heat[:36].any() and not heat[:, 124:].any()


@pytest.mark.parametrize("height, width", [(90, 120), (1000, 700)])
def test_thumbnails_of_16_bits(height, width):
    eight, estimate = picture_of(height, width), looked_at((0, height), (0, width), np.ones((height, width)))
    expected, found = thumbnails(eight, estimate), thumbnails(eight.astype(np.uint16) * 257, estimate)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


@pytest.mark.parametrize(
    "height, width, shape", [(1, 1, (160, 160)), (1, 3000, (1, 160)), (3000, 1, (160, 1)), (70, 900, (12, 160))]
)
def test_thumbnails_of_extreme_shapes(height, width, shape):
    photo = np.full((height, width, 3), 77, np.uint8)
    for density in (np.zeros((height, width)), np.ones((height, width))):
        thumbnail, heat = thumbnails(photo, looked_at((0, height), (0, width), density))
        assert thumbnail.shape == (*shape, 3) and (thumbnail == 77).all()
        assert heat.shape == shape and (heat == 255 * density[0, 0]).all()
