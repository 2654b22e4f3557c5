import io

import numpy as np
import pytest
from PIL import Image

from realsr import quickstart
from realsr.data.samples import CAMERA, CLEAN, SCALES, SOURCE, TEST, check_no_photos, make_samples
from realsr.estimation.kernels import max_normalised_correlation
from realsr.imaging import read_image
from realsr.runtime.errors import InputError
from realsr.runtime.files import find_images


def test_the_folders_hold_what_the_truth_file_says(samples):
    tests = {scale: f"test_lr_x{scale}" for scale in SCALES}
    files = {kind: find_images(samples / kind) for kind in ("camera", "clean", "test_hr", *tests.values())}
    assert len(files["camera"]) == len(SOURCE)
    assert len(files["clean"]) == len(CLEAN)
    assert not set(SOURCE) & set(TEST)
    assert not set(CLEAN) & set(TEST)
    assert {p.suffix for p in files["camera"] + files["test_lr_x4"]} == {".jpg"}
    for scale, folder in tests.items():
        for large, small in zip(files["test_hr"], files[folder], strict=True):
            hr, lr = read_image(large).rgb, read_image(small).rgb
            assert large.stem == small.stem and hr.shape[:2] == (scale * lr.shape[0], scale * lr.shape[1])
    truth = np.load(samples / "truth.npz")
    assert set(truth.files) == {"camera", *(f"{p.stem}_x{s}" for p in files["camera"] for s in SCALES)}


def test_the_photos_are_the_cameras_own_files(samples):
    """Their quantisation tables are those of its quality, their chroma is subsampled as it does."""
    for photo in find_images(samples / "camera"):
        with Image.open(photo) as image, Image.open(_file_of(CAMERA)) as other:
            assert image.quantization == other.quantization
            assert image.layer == other.layer


def _file_of(camera):
    return io.BytesIO(camera.file(np.full((16, 16, 3), 0.5)))


def test_the_true_kernels_are_of_one_point_spread_at_both_scales(samples):
    truth = np.load(samples / "truth.npz")
    for name in (path.stem for path in find_images(samples / "camera")):
        x2, x4 = truth[f"{name}_x2"], truth[f"{name}_x4"]
        assert x2.shape == (17, 17) and x4.shape == (33, 33)
        assert x2.sum() == pytest.approx(1) and x4.sum() == pytest.approx(1)
        wider = np.kron(x2, np.full((2, 2), 0.25))
        assert max_normalised_correlation(wider, x4) > 0.97 > max_normalised_correlation(x2, x4) + 0.1


def test_samples_are_made_once_and_those_of_another_camera_refused(samples, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in samples.rglob("*")}
    make_samples(samples)
    assert {path: path.stat().st_mtime_ns for path in samples.rglob("*")} == before
    ours = dict(np.load(samples / "truth.npz"))
    for theirs in ({}, {"rocket_x2": ours["rocket_x2"]}, {**ours, "camera": np.array("another")}):
        np.savez(tmp_path / "truth.npz", **theirs)
        with pytest.raises(InputError, match="holds the sample of another version; give another folder, or delete"):
            make_samples(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["truth.npz"]


def test_nothing_is_written_among_other_pictures(compose, tmp_path):
    (tmp_path / "camera").mkdir()
    (tmp_path / "camera" / "rocket.jpg").touch()  # of a sample that was not finished
    check_no_photos(tmp_path)
    (tmp_path / "camera" / "IMG_1.JPG").touch()
    cfg = compose("quickstart", f"folder={tmp_path}", "lpips=null")
    for write in (lambda: make_samples(tmp_path), lambda: quickstart._run(cfg)):
        with pytest.raises(InputError, match=r"holds other pictures \(camera.IMG_1.JPG\); give another folder"):
            write()
    assert [path.name for path in tmp_path.iterdir()] == ["camera"]


@pytest.mark.parametrize(("option", "says"), [("seed=-1", "seed=-1: give 0"), ("lpips.net=foo", "no backbone 'foo'")])
def test_the_quickstart_refuses_its_options_before_it_says_or_makes_anything(compose, tmp_path, caplog, option, says):
    caplog.set_level("INFO")
    with pytest.raises(Exception, match=says):
        quickstart._run(compose("quickstart", f"folder={tmp_path / 'q'}", option))
    assert not caplog.messages and not (tmp_path / "q").exists()


def test_the_training_refuses_its_options_before_the_quickstart_makes_anything(compose, tmp_path, monkeypatch):
    def refuse(*options):
        raise InputError("the training stopped")

    monkeypatch.setattr(quickstart, "_train", refuse)
    with pytest.raises(InputError, match="the training stopped"):
        quickstart._run(compose("quickstart", f"folder={tmp_path}", "lpips=null", "options=['data.crop_sise=3']"))
    assert not list(tmp_path.iterdir())
