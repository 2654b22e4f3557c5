import numpy as np
import pytest
import torch

from realsr.data.samples import CAMERA_SIGMAS, CLEAN, SOURCE, TEST, camera_kernel, make_samples, photograph
from realsr.files import find_images
from realsr.images import read_image, to_float
from realsr.kernels import covariance


@pytest.mark.parametrize("position", range(4))
def test_the_point_spread_is_the_same_in_the_cameras_pixels(position):
    spread = {scale: covariance(camera_kernel(position, scale)) / scale**2 for scale in (2, 4)}
    np.testing.assert_allclose(spread[4], spread[2], atol=0.01)


def test_the_sensors_noise_is_as_documented():
    for level in (40, 160):
        scene = torch.full((3, 400, 400), level / 255)
        photo = photograph(scene, 0, 2, torch.Generator().manual_seed(1)) * 255
        assert photo.mean().item() == pytest.approx(level, abs=0.1)
        # 1/12 is what rounding to 8 bits adds
        assert photo.var().item() == pytest.approx(9 + 0.18 * level + 1 / 12, rel=0.02)


def test_the_folders_hold_what_the_truth_file_says(tmp_path):
    make_samples(tmp_path)
    names = {kind: [p.name for p in find_images(tmp_path / kind)] for kind in ("camera", "clean", "test_hr", "test_lr")}
    assert len(names["camera"]) == len(SOURCE) == len(CAMERA_SIGMAS)
    assert len(names["clean"]) == len(CLEAN)
    assert names["test_hr"] == names["test_lr"]
    assert not set(SOURCE) & set(TEST)
    assert not set(CLEAN) & set(TEST)
    for name in names["test_hr"]:
        hr, lr = (to_float(read_image(tmp_path / kind / name).rgb) for kind in ("test_hr", "test_lr"))
        assert hr.shape[1:] == (4 * lr.shape[1], 4 * lr.shape[2])
    truth = np.load(tmp_path / "truth.npz")
    assert set(truth.files) == {f"{p.rpartition('.')[0]}_x{s}" for p in names["camera"] for s in (2, 4)}
    before = (tmp_path / "camera" / names["camera"][0]).stat().st_mtime_ns
    make_samples(tmp_path)
    assert (tmp_path / "camera" / names["camera"][0]).stat().st_mtime_ns == before
