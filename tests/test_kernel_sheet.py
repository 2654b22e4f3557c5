"""The contact sheet of kernels: fixed gray scale, the least confident first, bounded, and older pools too."""

from __future__ import annotations

from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest
import wandb
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger, WandbLogger

from realsr.callbacks import PoolPictures
from realsr.kernel_sheet import CROPS, _choice, kernel_on_fixed_scale, kernel_sheet
from realsr.kernels import gaussian_kernel
from realsr.pools import Entry


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
    assert _choice(sure, limit) == expected


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
    photo = sheet[-210:-36, 4:164].astype(int)
    orange = np.abs(photo - CROPS).sum(2) < 120
    assert orange[20:80].mean() > 0.9 and not orange[110:160].any()


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
    assert cfg.data.min_confidence == cfg.callbacks.pools.min_confidence == 0.5
    assert compose("estimate", "data.source_dir=photos", "pool.min_confidence=0.5").pool.min_confidence == 0.5
    assert compose("train", *tiny).data.min_confidence == 0
