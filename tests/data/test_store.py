"""The store of HR images: what is in it, what is made again, and when it says no."""

import json
import multiprocessing
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from realsr.data.store import INDEX, STRIP, StoredImage, prepare_hr, stored_hr, write_strips
from realsr.imaging import Photo, read_image, write_image
from realsr.runtime.errors import InputError
from realsr.runtime.files import find_images


@pytest.fixture
def picture():
    def make(height, width, dtype=np.uint8):
        return np.random.default_rng(height * width).integers(0, np.iinfo(dtype).max, (height, width, 3), dtype=dtype)

    return make


@pytest.fixture
def fill(tmp_path):
    """Fill the store from the photos of a folder; gives what is in it then."""

    def run(photos, factor=1.0, min_size=16, limit=None, workers=1):
        found = find_images(photos)
        prepare_hr([(found, factor)], tmp_path / "store", min_size, limit, workers)
        return stored_hr(found, tmp_path / "store", factor, min_size)

    return run


@pytest.fixture
def decoded(monkeypatch):
    """Names of the photos that were decoded."""
    names = []

    def read(path):
        names.append(path.name)
        return read_image(path)

    monkeypatch.setattr("realsr.data.store.read_image", read)
    return names


def whole(image):
    return image[:, :]


@pytest.mark.parametrize("width", [1, STRIP - 1, STRIP, 2 * STRIP, 2 * STRIP + 45])
def test_any_part_of_a_stored_image_is_that_of_the_array(tmp_path, picture, width):
    rgb = picture(50, width)
    write_strips(tmp_path / "a.strips", rgb)
    image = StoredImage(tmp_path / "a.strips", rgb.shape)
    assert (tmp_path / "a.strips").stat().st_size == rgb.nbytes
    np.testing.assert_array_equal(image[:, :], rgb)
    rng = np.random.default_rng(0)
    for _ in range(100):
        y, x = rng.integers(-3, 55, 2), rng.integers(-3, width + 5, 2)
        np.testing.assert_array_equal(image[y[0] : y[1], x[0] : x[1]], rgb[y[0] : y[1], x[0] : x[1]])


def test_the_store_cleans_up_by_bicubic(tmp_path, photo_folder, fill):
    photos = photo_folder("photos", 1, 64, 300)
    (image,) = fill(photos, 0.5)
    photo = Image.open(photos / "photo0.png")
    reference = np.asarray(photo.resize((150, 32), Image.Resampling.BICUBIC), dtype=int)
    difference = np.abs(whole(image).astype(int) - reference)
    assert difference[4:-4, 4:-4].max() <= 1  # at the border Pillow leaves taps out where we mirror
    assert image.name == "photo0"


def test_any_clean_up_factor_gives_the_size_that_was_foreseen(photo_folder, fill):
    """20 * 0.55 is a little more than 11 in floating point."""
    (image,) = fill(photo_folder("photos", 1, 20, 50), 0.55, min_size=8)
    assert image.shape == whole(image).shape == (11, 28, 3)


def test_deep_and_gray_photos_are_stored_as_8_bit_rgb(tmp_path, picture, fill):
    deep = picture(40, 50, np.uint16)
    write_image(tmp_path / "photos" / "a.png", Photo(deep))
    gray = picture(40, 50)[..., 0]
    Image.fromarray(gray).save(tmp_path / "photos" / "b.png")
    first, second = fill(tmp_path / "photos")
    assert np.abs(whole(first) - deep / 257).max() <= 0.5001
    np.testing.assert_array_equal(whole(second), gray[..., None].repeat(3, 2))


def test_moved_renamed_and_copied_photos_are_not_decoded_again(tmp_path, photo_folder, fill, decoded):
    photos = photo_folder("photos", 2, 40, 50)
    before = [whole(image) for image in fill(photos)]
    assert decoded == ["photo0.png", "photo1.png"]
    photos = photos.rename(tmp_path / "moved")
    (photos / "photo0.png").rename(photos / "a.png")
    shutil.copy(photos / "a.png", photos / "b.png")
    images = fill(photos)
    assert [image.name for image in images] == ["a", "b", "photo1"]
    for image, pixels in zip(images, [before[0], before[0], before[1]], strict=True):
        np.testing.assert_array_equal(whole(image), pixels)
    assert len(decoded) == 2


def test_changed_photos_are_decoded_again(photo_folder, fill, picture):
    photos = photo_folder("photos", 1, 40, 50)
    fill(photos)
    Image.fromarray(picture(40, 50)).save(photos / "photo0.png")
    assert stored_hr(find_images(photos), photos.parent / "store", 1.0, 16) == []
    np.testing.assert_array_equal(whole(fill(photos)[0]), picture(40, 50))


def test_a_second_run_neither_hashes_nor_writes(tmp_path, photo_folder, fill, monkeypatch):
    photos = photo_folder("photos", 3, 40, 50)
    first = fill(photos)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").iterdir()}
    monkeypatch.setattr("realsr.data.store.file_hash", None)
    assert fill(photos) == first
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "store").iterdir()}


@pytest.mark.parametrize("content", ["", "{", "[1]", "null", '{"a": 3}', "stale", "cut off"])
def test_a_bad_index_does_no_harm(tmp_path, photo_folder, fill, decoded, content):
    photos = photo_folder("photos", 2, 40, 50)
    first = [whole(image) for image in fill(photos)]
    index = tmp_path / "store" / INDEX
    if content == "stale":  # entries of photos that are no more, and of other times
        content = json.dumps({key.replace("|", "1|", 1): value for key, value in json.loads(index.read_text()).items()})
    elif content == "cut off":
        content = index.read_text()[:-9]
    index.write_text(content)
    for image, pixels in zip(fill(photos), first, strict=True):
        np.testing.assert_array_equal(whole(image), pixels)
    assert len(decoded) == 2


@pytest.mark.parametrize("keep", [0, 100, -1])
def test_a_truncated_image_is_never_used_but_made_again(tmp_path, photo_folder, fill, keep):
    photos = photo_folder("photos", 1, 40, 50)
    (image,) = fill(photos)
    pixels = whole(image)
    image.path.write_bytes(image.path.read_bytes()[:keep])
    assert stored_hr(find_images(photos), tmp_path / "store", 1.0, 16) == []
    with pytest.raises(InputError, match="gone or damaged; the same command makes it again"):
        whole(image)
    np.testing.assert_array_equal(whole(fill(photos)[0]), pixels)


def test_a_write_that_is_killed_leaves_nothing_that_is_used(tmp_path, photo_folder, fill, monkeypatch):
    photos = photo_folder("photos", 2, 40, 50)

    def full_disk(handle):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full_disk)
        with pytest.raises(OSError, match="No space left"):
            fill(photos)
    assert [path.name for path in (tmp_path / "store").iterdir()] == [INDEX]
    killed = tmp_path / "store" / ".abc.strips.xyz"  # what SIGKILL leaves, an hour ago
    killed.write_bytes(b"half")
    os.utime(killed, (0, 0))
    assert len(fill(photos)) == 2
    assert not killed.exists()


def test_the_limit_is_honoured_before_anything_is_written(tmp_path, photo_folder, fill, caplog):
    caplog.set_level("INFO")
    photos = photo_folder("photos", 4, 40, 50)  # 24 kB decoded
    with pytest.raises(
        InputError, match=r"4 decoded HR images need 2.4e-05 GB; 0 GB .* data.photos.store_limit=2e-05: set"
    ):
        fill(photos, limit=20e-6)
    assert not list((tmp_path / "store").glob("*.strips"))
    assert "4 decoded HR images take 2.4e-05 GB" in caplog.text
    assert len(fill(photos, limit=25e-6)) == 4
    assert len(fill(photos, limit=0)) == 4  # nothing is missing
    more = photo_folder("more", 1, 60, 50)
    with pytest.raises(InputError, match=r"1 decoded HR images need 9e-06 GB; 2.4e-05 GB are there already"):
        fill(more, limit=25e-6)


def test_a_disk_without_room_is_named(tmp_path, photo_folder, fill, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=24_000))
    with pytest.raises(InputError, match=r"set pool_dir or data.photos.store_dir to a larger disk"):
        fill(photo_folder("photos", 4, 40, 50))


def test_workers_store_the_same(tmp_path, photo_folder, fill, caplog):
    """Two processes; a photo that cannot be decoded and one that is too small are named, and left out."""
    photos = photo_folder("photos", 4, 40, 50)
    one = {image.path.name: whole(image) for image in fill(photos, 0.5)}
    shutil.rmtree(tmp_path / "store")
    broken = (photos / "photo1.png").read_bytes()
    (photos / "broken.png").write_bytes(broken[: len(broken) // 2])
    Image.fromarray(np.zeros((8, 50, 3), np.uint8)).save(photos / "flat.png")
    two = {image.path.name: whole(image) for image in fill(photos, 0.5, workers=2)}
    assert one.keys() == two.keys()
    assert all(np.array_equal(one[name], two[name]) for name in one)
    assert "skipped 1 of 6 photos that cannot be read" in caplog.text and "broken.png" in caplog.text
    assert (
        "no HR images of 1 of 6 photos, smaller than the crop of 16 pixels once scaled by 0.5: flat.png" in caplog.text
    )


def test_two_programs_may_fill_one_store_at_once(tmp_path, photo_folder, fill, decoded):
    photos = photo_folder("photos", 8, 300, 400)
    arguments = [(find_images(photos), 0.5)], tmp_path / "store", 16
    running = [multiprocessing.get_context("forkserver").Process(target=prepare_hr, args=arguments) for _ in range(2)]
    for process in running:
        process.start()
    for process in running:
        process.join()
    assert [process.exitcode for process in running] == [0, 0]
    both = {image.path: whole(image) for image in fill(photos, 0.5)}
    assert decoded == []
    assert {*(tmp_path / "store").iterdir()} == {*both, tmp_path / "store" / INDEX}
    shutil.rmtree(tmp_path / "store")
    assert all(np.array_equal(both[image.path], whole(image)) for image in fill(photos, 0.5))
    assert len(decoded) == 8
