import io

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from realsr import quickstart
from realsr.data.samples import CAMERA, CLEAN, SCALES, SOURCE, TEST, are_outdated, make_samples
from realsr.estimation.kernels import max_normalised_correlation
from realsr.imaging import read_image
from realsr.runtime.files import find_images


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("samples")
    make_samples(folder)
    return folder


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


def test_samples_are_made_once_and_anew_for_another_camera(samples, tmp_path):
    photo = samples / "camera" / "rocket.jpg"
    before = photo.stat().st_mtime_ns
    make_samples(samples)
    assert photo.stat().st_mtime_ns == before
    old = tmp_path / "old"
    (old / "camera").mkdir(parents=True)
    (old / "camera" / "rocket.png").write_bytes(b"by the former camera")
    np.savez(old / "truth.npz", rocket_x2=np.ones((17, 17)))  # as it was before the camera was named there
    assert are_outdated(old) and not are_outdated(samples) and not are_outdated(tmp_path / "none")
    make_samples(old)
    assert not are_outdated(old)
    assert sorted(p.name for p in find_images(old / "camera")) == sorted(
        p.name for p in find_images(samples / "camera")
    )
    assert (old / "camera" / "rocket.jpg").read_bytes() == photo.read_bytes()


def test_a_truth_of_the_users_own_is_not_taken_for_ours(samples, tmp_path):
    ours = dict(np.load(samples / "truth.npz"))
    for theirs in ({}, {"kernel": ours["rocket_x2"]}, {**ours, "camera": np.array("another"), "notes": np.ones(1)}):
        np.savez(tmp_path / "truth.npz", **theirs)
        assert not are_outdated(tmp_path)
    np.savez(tmp_path / "truth.npz", **{**ours, "camera": np.array("another")})
    assert are_outdated(tmp_path)


def test_the_quickstart_removes_its_own_alone_and_what_tells_so_last(tmp_path, monkeypatch):
    for name in ("photos/camera", "pools/noise", "pools/nikon/noise", "run_seed3", "results_seed3", "run_of_mine"):
        (tmp_path / name).mkdir(parents=True)
    np.savez(tmp_path / "photos" / "truth.npz", rocket_x2=np.ones((17, 17)))  # of a former camera

    def stopped(*options: str) -> None:
        raise KeyboardInterrupt

    removed = []
    monkeypatch.setattr(quickstart.shutil, "rmtree", lambda path, **_: removed.append(path))
    monkeypatch.setattr(quickstart, "_train", stopped)
    with pytest.raises(KeyboardInterrupt):
        quickstart._run(OmegaConf.create({"folder": str(tmp_path), "seed": 0, "options": []}))
    gone = {path.relative_to(tmp_path).as_posix() for path in removed if path.exists()}
    assert gone == {"photos", "pools/noise", "run_seed3", "results_seed3"}
    assert removed[-1] == tmp_path / "photos"  # interrupted before, it goes on with the rest
