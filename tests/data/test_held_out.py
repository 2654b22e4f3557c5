"""What validation sees, training never does; found by content, whatever files are called."""

import functools
import shutil

import albumentations as A
import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from realsr.data.datamodule import RealSRData
from realsr.data.folders import find_pairs
from realsr.data.held_out import folder_contents, held_out_lines, held_out_text, seen_in_training
from realsr.data.photos import HRPhotos
from realsr.data.run_pools import PoolBuilder, RunPools
from realsr.data.validation import Validation
from realsr.degradation.paper import PaperDegradation
from realsr.estimation.noise import NoiseRule
from realsr.pools.export_kernels import export_kernels
from realsr.pools.folder import Entry
from realsr.runtime.errors import InputError
from realsr.runtime.files import file_hash


@pytest.fixture
def data(tmp_path, photo_folder):
    """``data(hr=...)``: on three photos of the camera and three clean ones, bicubic unless pools are given.

    Options beside folders of photos are ``Validation``'s, or of the pools of training if they are in ``pools``.
    """
    folders = {"source_dir": photo_folder("camera", noise=0.02), "clean_dir": photo_folder("clean")}

    def never():
        raise AssertionError("a kernel is estimated")

    def make(pools=None, build=False, samples_dir=None, **options):
        photos = folders | {name: options.pop(name) for name in folders if name in options}
        given = dict.fromkeys(("kernel_dir", "noise_dir", "jpeg_dir")) | (pools or {})
        module = RealSRData(
            **photos,
            photos=HRPhotos(tmp_path / "hr", A.Compose([])),
            pools=RunPools(**given, builder=PoolBuilder(never, NoiseRule(16, 16)), build=build),
            degradation=functools.partial(PaperDegradation, 4),
            validation=Validation(**{**given, "size": 64, "look_count": 0, **options}),
            samples_dir=samples_dir,
            crop_size=32,
            num_workers=0,
        )
        module.prepare_data()
        module.setup("fit")
        return module

    return make


def copy_of(photo, folder, form):
    """The same pixels in another file."""
    folder.mkdir()
    target = folder / f"other.{form.split()[-1]}"
    image = Image.open(photo)
    if form == "16 bit tiff":
        cv2.imwrite(str(target), np.asarray(image).astype(np.uint16)[..., ::-1] * 257)
    elif form == "turned png":  # EXIF 6: to be shown turned right by 90 degrees
        exif = Image.Exif()
        exif[0x0112] = 6
        image.transpose(Image.Transpose.ROTATE_90).save(target, exif=exif)
    elif form == "renamed png":
        shutil.copy(photo, target)
    else:
        image.save(target)
    return folder


# -- the user's own folders


@pytest.mark.parametrize("form", ["renamed png", "tiff", "bmp", "16 bit tiff", "turned png"])
def test_a_training_photo_in_validation_hr_is_refused_in_whatever_file(data, tmp_path, form):
    val = copy_of(tmp_path / "clean" / "photo1.png", tmp_path / "val", form)
    with pytest.raises(InputError, match=r"val/other\.\w+: is a training photo.*photo1 in data.clean_dir=.*n \(1 of"):
        data(hr=val)


def test_the_whole_photo_of_a_cleaned_up_one_is_refused_before_pools_are_made(data, tmp_path):
    """Training has a source photo at half its size."""
    val = copy_of(tmp_path / "camera" / "photo2.png", tmp_path / "val", "bmp")
    with pytest.raises(InputError, match=r"val/other.bmp: is a training photo.*photo2 in data.source_dir=.*camera"):
        data(hr=val, pools={"kernel_dir": tmp_path / "kernels"}, build=True)
    assert not (tmp_path / "kernels").exists()


def test_a_training_photo_in_validation_lr_is_refused(data, tmp_path, photo_folder):
    """That its ground truth is of another camera does not help."""
    lr = copy_of(tmp_path / "camera" / "photo0.png", tmp_path / "lr", "tiff")
    hr = photo_folder("hr", 1, 640, 768)
    (hr / "photo0.png").rename(hr / "other.png")
    with pytest.raises(InputError, match=r"lr/other.tiff: is a training.*photo0 in data.source_dir=.* \(1 of the 2"):
        data(hr=hr, lr=lr)


def test_other_photos_pass_and_it_is_said(data, tmp_path, caplog):
    """One pixel makes another photo; nothing else is done to a run."""
    caplog.set_level("INFO")
    val = copy_of(tmp_path / "clean" / "photo1.png", tmp_path / "val", "bmp")
    changed = np.asarray(Image.open(val / "other.bmp")).copy()
    changed[5, 7, 2] ^= 1
    Image.fromarray(changed).save(val / "other.bmp")
    module = data(hr=val)
    assert "held out: 1 photo; none is in training (checked by content)" in caplog.text
    assert len(module.crops.clean) == len(module.crops.source) == 3
    assert module.held_out["photos"] == {"training": 6, "validation": 1, "shared": 0, "photos": ["other"]}


def test_the_embedded_sample_passes(data, tmp_path):
    pytest.importorskip("skimage")
    folders = {name: tmp_path / "s" / name for name in ("camera", "clean", "test_hr", "test_lr_x4")}
    given = dict(zip(("source_dir", "clean_dir", "hr", "lr"), folders.values(), strict=True))
    module = data(samples_dir=tmp_path / "s", **given)
    assert held_out_text(module.held_out) == "2 photos; none is in training (checked by content)"
    tests = folder_contents(find_pairs(folders["test_hr"], folders["test_lr_x4"], 4))
    assert seen_in_training(module.held_out, tests) == []
    for name in ("camera", "clean"):
        photos = folder_contents(find_pairs(None, folders[name], 4))
        assert seen_in_training(module.held_out, photos) == list(photos)


# -- what is held out of folders of training


def test_twins_of_what_is_held_out_leave_training(data, tmp_path):
    """A photo is there as PNG, as TIFF, and among the source photos."""
    for index in range(3):
        photo = tmp_path / "clean" / f"photo{index}.png"
        Image.open(photo).save(tmp_path / "clean" / f"twin{index}.tiff")
        shutil.copy(photo, tmp_path / "camera" / f"same{index}.png")
    module = data(count=1)
    (held,) = module.held_out["photos"]["photos"]
    number = held[-1]
    trained = {image.name for image in (*module.crops.source, *module.crops.clean)}
    left = {f"{name}{i}" for name in ("photo", "twin", "same") for i in {*"012"} - {number}}
    assert trained == left | {f"photo{number}"}
    assert f"photo{number}" not in {image.name for image in module.crops.clean}  # the camera's has noise
    assert module.held_out["photos"]["shared"] == 0
    hr = (module.pairs[0].hr * 255).round().byte().permute(1, 2, 0).numpy()
    y, x = ((side - 64) // 2 for side in (160, 192))
    for image in module.crops.clean:
        assert not np.array_equal(image[y : y + 64, x : x + 64], hr)


def test_copies_of_a_single_photo_are_said_to_be_in_training(data, tmp_path, caplog):
    for index in (1, 2):
        shutil.copy(tmp_path / "clean" / "photo0.png", tmp_path / "clean" / f"photo{index}.png")
    module = data(source_dir=None)
    assert "too few photos to hold one out" in caplog.text
    assert len(module.crops.clean) == 3
    assert module.held_out["photos"]["shared"] == 1
    text = "1 photo; training has 1 of the photos as well, for there are too few (checked by content)"
    assert held_out_text(module.held_out) == text


# -- pools


@pytest.fixture
def kernels(tmp_path):
    """``kernels("name", {"photo": 3}, size)``: a pool of random kernels, by number and but for rounding the same."""

    def make(name, numbers, size=13):
        for photo, number in numbers.items():
            kernel = np.random.default_rng(number).random((9, 9))
            rounded = np.round(kernel / kernel.sum(), 20 if size == 13 else 8)
            entry = {"x4": np.pad(rounded, (size - 9) // 2)}
            Entry(tmp_path / name / f"{photo}.npz", entry, {"photo": photo}).write()
        return tmp_path / name

    return make


@pytest.fixture
def tiles(tmp_path):
    """``tiles("name", {"photo": tiles})``: a noise pool."""

    def make(name, photos):
        for photo, array in photos.items():
            Entry(tmp_path / name / f"{photo}.npz", {"tiles": array}, {"photo": photo}).write()
        return tmp_path / name

    return make


def noise(seed, count=3):
    return np.random.default_rng(seed).integers(90, 110, (count, 16, 16, 3), dtype=np.uint8)


@pytest.mark.parametrize("form", ["same", "renamed", "mat"])
def test_kernels_of_validation_leave_training_whatever_they_are_called(data, kernels, tmp_path, form, caplog):
    """A copy of the pool under other names is split otherwise, and so is one in another program's format."""
    pool = kernels("kernels", {f"photo{number}": number for number in range(20)})
    step = 1 if form == "same" else 7
    val = kernels("val", {f"photo{step * number % 20}": number for number in range(20)}, 17)
    if form == "mat":
        export_kernels(val, tmp_path / "mat", "mat")
        val = tmp_path / "mat"
    module = data(pools={"kernel_dir": pool}, kernel_dir=val)
    held = module.pools.split(module.validation.folders, 0)[1].kernels.kernels[:, 2:-2, 2:-2]
    trained = module.degradation.kernels.kernels
    assert len(held) == 2
    assert min(float((one - other).abs().max()) for one in trained for other in held) > 1e-3
    record = module.held_out["kernels"]
    assert (record["training"], record["validation"], record["shared"]) == (len(trained), 2, 0)
    out = 18 - len(trained)
    assert record["left_out"] == out == (0 if form == "same" else 2)
    assert (f"{out} of 18 kernels are left out of training" in caplog.text) == (out > 0)
    if out:
        assert held_out_lines(module.held_out)[1].endswith("; left out of training for that: 2 kernels.")


def test_a_noise_tile_of_validation_leaves_training(data, tiles):
    """Another photo's file has one of the held-out tiles; tiles without noise are in both."""
    white = np.full((1, 16, 16, 3), 255, np.uint8)
    photos = {f"photo{i}": np.concatenate([noise(i), white]) for i in range(10)}
    plain = data(pools={"noise_dir": tiles("pool", photos)})
    (held,) = plain.held_out["noise"]["photos"]
    assert plain.held_out["noise"] == {"training": 36, "validation": 4, "left_out": 0, "shared": 0, "photos": [held]}
    other = next(photo for photo in photos if photo != held)
    photos[other] = np.concatenate([photos[other], photos[held][1:2]])
    module = data(pools={"noise_dir": tiles("pool", photos)})
    assert module.held_out["noise"]["left_out"] == 1
    assert torch.equal(module.degradation.noise.tiles, plain.degradation.noise.tiles)
    assert module.degradation.noise.photos == plain.degradation.noise.photos


def test_a_single_kernel_is_said_to_be_in_training(data, kernels, caplog):
    module = data(pools={"kernel_dir": kernels("kernels", {"photo": 3})})
    assert len(module.degradation.kernels) == 1
    assert "too few kernels to hold any out: validation sees those of training" in caplog.text
    assert "training has 1 of the kernels as well" in held_out_text(module.held_out)


def test_kernels_and_noise_of_photos_in_validation_lr_leave_training(data, kernels, tmp_path, photo_folder, caplog):
    """A pool of another folder's photos, of which one is a validation photo by now, under another name."""
    hr, lr = photo_folder("hr", 2, 96, 128), photo_folder("lr", 2, 24, 32)
    pool = kernels("kernels", {f"photo{number}": number for number in range(8)})
    names = data(hr=hr, lr=lr, pools={"kernel_dir": pool}).degradation.kernels.photos
    path = pool / f"{names[2]}.npz"
    Entry(path, Entry.read(path).arrays, {"photo": names[2], "sha256": file_hash(lr / "photo1.png")}).write()
    module = data(hr=hr, lr=lr, pools={"kernel_dir": pool})
    assert module.degradation.kernels.photos == [name for name in names if name != names[2]]
    assert "1 of 7 kernels are left out of training: validation has them, or their photos" in caplog.text
    text = "2 photos; none is in training (checked by content); left out of training for that: 1 kernel"
    assert held_out_text(module.held_out) == text


# -- the record


def test_a_checkpoint_knows_the_photos_that_it_was_trained_on(fit, tmp_path):
    folder = fit("run", "degradation=noise", "trainer.max_steps=2")
    record = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["held_out"]
    (held,) = record["photos"]["photos"]
    clean = folder_contents(find_pairs(tmp_path / "clean", None, 4))
    assert seen_in_training(record, clean) == sorted({*clean} - {held})
    renamed = copy_of(tmp_path / "camera" / "photo1.png", tmp_path / "val", "bmp")
    assert seen_in_training(record, folder_contents(find_pairs(None, renamed, 4))) == ["other"]
    pairs = folder_contents(find_pairs(tmp_path / "clean", tmp_path / "camera", 1))
    assert {name: len(contents) for name, contents in pairs.items()} == {f"photo{i}": 2 for i in range(3)}
    assert seen_in_training(record, pairs) == list(pairs)  # if only as LR
    tiles = record["noise"]
    held = f"1 photo, {tiles['validation']} noise tiles"
    assert held_out_lines(record) == [
        f"Trained on: 5 photos, {tiles['training']} noise tiles.",
        f"Held out for validation: {held}; none is in training (checked by content).",
    ]
