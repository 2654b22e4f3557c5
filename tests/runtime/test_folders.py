"""Test images by folder: sizes that do not fit, and what is read."""

import logging

import pytest
import torch
from conftest import scene

from realsr.data.folders import find_pairs, read_pairs, say_cropped
from realsr.imaging import Photo, quantize, to_uint, write_image
from realsr.imaging.resample import imresize
from realsr.runtime.errors import InputError


def write(path, height, width, seed=0):
    image = quantize(scene(height, width, seed))
    write_image(path, Photo(to_uint(image)))
    return image


@pytest.mark.parametrize(
    ("lr", "hr", "used"),
    [((20, 24), (80, 96), (20, 24)), ((20, 24), (83, 97), (20, 24)), ((21, 25), (83, 97), (20, 24))],
)
def test_sizes_that_do_not_fit_are_cropped_at_the_end_and_said(tmp_path, caplog, lr, hr, used):
    small, large = write(tmp_path / "lr" / "ax4.png", *lr), write(tmp_path / "hr" / "a.png", *hr)
    with caplog.at_level(logging.INFO):
        (files,) = find_pairs(tmp_path / "hr", tmp_path / "lr", 4)
        say_cropped([files])
    assert files.size == used and files.name == "a"
    said = [record.getMessage() for record in caplog.records]
    exact = (lr, hr) == ((20, 24), (80, 96))
    assert said == ([] if exact else ["1 of 1 images are cropped to fit x4, a to 24x20 and 96x80 pixels"])
    pair = files.read()
    torch.testing.assert_close(pair.lr, small[:, :20, :24])
    torch.testing.assert_close(pair.hr, large[:, :80, :96])


@pytest.mark.parametrize(
    ("lr", "hr", "way"),
    [
        ((20, 24), (76, 96), "cut them"), ((20, 24), (84, 96), "cut them"), ((1, 1), (3, 3), "give scale=3"),
        ((22, 24), (83, 96), "cut them"), ((20, 24), (40, 48), "give scale=2"),
    ],
)  # fmt: skip
def test_sizes_that_differ_by_more_are_refused(tmp_path, lr, hr, way):
    write(tmp_path / "lr" / "a.png", *lr)
    write(tmp_path / "hr" / "a.png", *hr)
    says = rf"lr/a\.png: {lr[1]}x{lr[0]} pixels times 4 are not the {hr[1]}x{hr[0]} .*; {way}"
    with pytest.raises(InputError, match=says):
        find_pairs(tmp_path / "hr", tmp_path / "lr", 4)


def test_truth_alone_gets_bicubic_lr(tmp_path, caplog):
    hr = write(tmp_path / "hr" / "a.png", 41, 50)
    with caplog.at_level(logging.INFO):
        (pair,) = read_pairs(find_pairs(tmp_path / "hr", None, 4))
    assert "a to 12x10 and 48x40 pixels" in caplog.text
    torch.testing.assert_close(pair.lr, quantize(imresize(hr[:, :40, :48], 0.25)))
    torch.testing.assert_close(pair.hr, hr[:, :40, :48])


def test_photos_alone_have_no_truth(tmp_path):
    write(tmp_path / "lr" / "a_LR.png", 5, 7)
    (pair,) = read_pairs(find_pairs(None, tmp_path / "lr", 4))
    assert pair.hr is None and pair.lr.shape == (3, 5, 7) and pair.name == "a_LR"


@pytest.mark.parametrize(
    ("hr", "lr"),
    [
        ("0801", "0801x4d"), ("0801", "0801x4w2"), ("Canon_001_HR", "Canon_001_LR4"), ("img_001", "img_001_bicLRx4"),
        ("0801_gt", "0801_lq"), ("img_001_SRF_4_HR", "img_001_SRF_4_LR"), ("baby", "babyx4"), ("a_HRx4", "a_LRBI_x4"),
        ("cat_x1", "cat_x4"), ("photo_lr", "photo_lr"), ("b-GT", "b"), ("a", "a_bicubic"),
    ],
)  # fmt: skip
def test_names_match_as_data_sets_spell_them(tmp_path, hr, lr):
    for folder, name, side in (("hr", hr, 8), ("hr", "other", 8), ("lr", lr, 2), ("lr", "other", 2)):
        write(tmp_path / folder / f"{name}.png", side, side)
    assert {(pair.hr.stem, pair.lr.stem) for pair in find_pairs(tmp_path / "hr", tmp_path / "lr", 4)} == {
        (hr, lr), ("other", "other"),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["alq", "agt", "ax", "a_4", "a_sr", "a_x4_b"])
def test_a_file_without_a_partner_is_named_with_the_spellings_that_were_tried(tmp_path, name):
    write(tmp_path / "hr" / "a.png", 8, 8)
    write(tmp_path / "lr" / f"{name}.png", 2, 2)
    with pytest.raises(
        InputError,
        match=r"hr/a\.png has no partner in .*lr \(2 such names\); tried a, and a alone or with x4, x4d.*_gt",
    ):
        find_pairs(tmp_path / "hr", tmp_path / "lr", 4)


def test_names_that_match_whole_may_end_as_pairs_do(tmp_path):
    for name in ("a", "a_lr"):
        write(tmp_path / "hr" / f"{name}.png", 8, 8)
        write(tmp_path / "lr" / f"{name}.png", 2, 2)
    assert [pair.name for pair in find_pairs(tmp_path / "hr", tmp_path / "lr", 4)] == ["a", "a_lr"]
