"""HEIC and raw files: read where their extra is installed, named where it is not."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import tifffile
from PIL import Image

from realsr.imaging import image_size, read_image, write_image
from realsr.runtime.errors import InputError
from realsr.runtime.files import find_images

# linear sRGB to XYZ at D65 (IEC 61966-2-1)
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
KINDS = [(np.uint8, 1), (np.uint8, 3), (np.uint8, 4), (np.uint16, 1), (np.uint16, 4)]


def exif(orientation):
    tags = Image.Exif()
    tags[271], tags[0x0112] = "Maker", orientation
    return tags.tobytes()


def picture(dtype=np.uint8, channels=3):
    array = np.full((64, 96, channels), 255)
    array[:20, :30] = (200, 30, 40, 90)[:channels]
    return (array * (257 if dtype == np.uint16 else 1)).astype(dtype)


def heic(path, array, **options):
    heif = pytest.importorskip("pillow_heif")
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[array.shape[2]] + (";16" if array.dtype == np.uint16 else "")
    size = array.shape[1::-1]
    heif.from_bytes(mode=mode, size=size, data=array.tobytes()).save(path, quality=-1, chroma=444, **options)


def dng(path, linear, orientation=1, neutral=(1.0, 1.0, 1.0)):
    """A Bayer pattern of one colour ``linear`` in [0, 1], of a camera whose primaries are those of sRGB."""
    pattern = np.empty((64, 96), np.uint16)
    red, green, blue = np.round(np.array(linear) * 65535).astype(np.uint16)
    pattern[::2, ::2], pattern[::2, 1::2], pattern[1::2, ::2], pattern[1::2, 1::2] = red, green, green, blue

    def rationals(values):
        return sum(((round(value * 10000), 10000) for value in np.ravel(values)), ())

    tags = [
        (50706, "B", 4, (1, 4, 0, 0), True),  # DNGVersion
        (50708, "s", 0, "Camera", True),
        (33421, "H", 2, (2, 2), True),  # CFARepeatPatternDim
        (33422, "B", 4, (0, 1, 1, 2), True),  # CFAPattern
        (50714, "H", 1, 0, True),  # BlackLevel
        (50717, "H", 1, 65535, True),  # WhiteLevel
        (50721, "2i", 9, rationals(np.linalg.inv(TO_XYZ)), True),  # ColorMatrix1
        (50728, "2I", 3, rationals(neutral), True),  # AsShotNeutral
        (50778, "H", 1, 21, True),  # CalibrationIlluminant1: D65
        (274, "H", 1, orientation, True),
        (271, "s", 0, "Maker", True),
    ]
    tifffile.imwrite(path, pattern, photometric=32803, extratags=tags, metadata=None, software=None)


@pytest.mark.parametrize(("dtype", "channels"), KINDS)
def test_heic(tmp_path, dtype, channels):
    """Without loss but for the conversion to YCbCr of 8 or 10 bits, which costs a level or two of each."""
    array = picture(dtype, channels)
    heic(tmp_path / "a.heic", array)
    photo = read_image(tmp_path / "a.heic")
    assert photo.rgb.dtype == dtype and photo.gray == (channels == 1) and photo.rgb.max() == np.iinfo(dtype).max
    level = 1 if dtype == np.uint8 else 64
    assert np.abs(photo.rgb.astype(int) - array[..., :3]).max() <= 2 * level
    assert (photo.alpha is None) == (channels != 4)
    if channels == 4:
        assert np.abs(photo.alpha.astype(int) - array[..., 3]).max() <= level


@pytest.mark.parametrize("orientation", range(1, 9))
def test_heic_is_turned_once(tmp_path, orientation):
    """The encoder puts EXIF's orientation into the file's own rotation, which decoders apply."""
    heif = pytest.importorskip("pillow_heif")
    source = Image.fromarray(picture())
    heif.from_pillow(source).save(tmp_path / "a.heic", quality=-1, chroma=444, exif=exif(orientation))
    tagged = source.copy()
    tagged.save(tmp_path / "a.png", exif=exif(orientation))
    expected = read_image(tmp_path / "a.png").rgb
    photo = read_image(tmp_path / "a.heic")
    assert photo.rgb.shape == expected.shape and image_size(tmp_path / "a.heic") == expected.shape[:2]
    assert np.abs(photo.rgb.astype(int) - expected).max() <= 2
    write_image(tmp_path / "b.jpg", photo)
    with Image.open(tmp_path / "b.jpg") as image:
        assert image.getexif()[271] == "Maker" and image.getexif().get(0x0112, 1) == 1


def test_heic_is_told_by_its_content(tmp_path):
    heic(tmp_path / "a.jpg", picture())
    assert read_image(tmp_path / "a.jpg").rgb.shape == (64, 96, 3)
    Image.fromarray(picture()).save(tmp_path / "b.heic", "JPEG")
    assert read_image(tmp_path / "b.heic").rgb.shape == (64, 96, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("neutral", [(1.0, 1.0, 1.0), (0.5, 1.0, 0.8)])
def test_dng(tmp_path, orientation, neutral):
    """White balance divides by what the camera calls neutral; then the curve of sRGB, and nothing else."""
    pytest.importorskip("rawpy")
    linear = np.array([0.4, 0.25, 0.1])
    dng(tmp_path / "a.dng", linear, orientation, neutral)
    photo = read_image(tmp_path / "a.dng")
    shape = (64, 96, 3) if orientation < 5 else (96, 64, 3)
    assert photo.rgb.dtype == np.uint16 and photo.rgb.shape == shape and image_size(tmp_path / "a.dng") == shape[:2]
    balanced = linear / neutral
    expected = np.where(balanced <= 0.0031308, 12.92 * balanced, 1.055 * balanced ** (1 / 2.4) - 0.055) * 65535
    assert np.abs(photo.rgb - expected).max() <= 8
    write_image(tmp_path / "b.png", photo)
    with Image.open(tmp_path / "b.png") as image:
        assert image.getexif()[271] == "Maker" and image.getexif().get(0x0112, 1) == 1


@pytest.mark.parametrize("name", ["a.heic", "a.dng"])
def test_bounds_and_damage(tmp_path, name):
    pytest.importorskip("pillow_heif" if name == "a.heic" else "rawpy")
    if name == "a.heic":
        heic(tmp_path / name, picture())
    else:
        dng(tmp_path / name, (0.4, 0.25, 0.1))
    with pytest.raises(InputError, match=rf"{name}: has 0 megapixels, at most 0 are read"):
        read_image(tmp_path / name, most_pixels=64 * 96 - 1)
    data = (tmp_path / name).read_bytes()
    for read, size in ((read_image, 300), (image_size, 20)):
        (tmp_path / name).write_bytes(data[:size])
        with pytest.raises(InputError, match=rf"{name}: cannot be decoded, the file is damaged"):
            read(tmp_path / name)
    for read in (read_image, image_size):
        with pytest.raises(InputError, match=rf"no{name}: no such file$"):
            read(tmp_path / f"no{name}")


def test_without_the_extras(tmp_path, monkeypatch):
    (tmp_path / "b.jpg").write_bytes(b"\0\0\0\x18ftypheic")
    (tmp_path / "c.dng").write_bytes(b"II*\0")
    (tmp_path / "d.png").write_bytes(b"")
    monkeypatch.setattr("realsr.runtime.files._installed", lambda package: True)
    assert [path.name for path in find_images(tmp_path)] == ["b.jpg", "c.dng", "d.png"]
    monkeypatch.setattr("realsr.runtime.files._installed", lambda package: False)
    assert [path.name for path in find_images(tmp_path)] == ["b.jpg", "d.png"]
    for read in (read_image, image_size):
        with pytest.raises(InputError, match=r"b\.jpg: cannot be read yet; pip install 'realsr\[heic\]'$"):
            read(tmp_path / "b.jpg")
        with pytest.raises(InputError, match=r"c\.dng: cannot be read yet; pip install 'realsr\[raw\]'$"):
            read(tmp_path / "c.dng")


def test_extras_are_loaded_when_they_are_needed():
    code = "import realsr.imaging, sys; print({'pillow_heif', 'rawpy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
