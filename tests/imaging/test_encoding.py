"""What is written band by band is what other programs read; what a format cannot hold is said before the work."""

from __future__ import annotations

import io
import subprocess
import sys

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from realsr.imaging import Photo
from realsr.imaging.encoding import check_writes, eight_bit, write_rows
from realsr.imaging.profiles import SRGB_PRIMARIES, profile
from realsr.runtime.errors import InputError

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
LIKE = Photo(np.zeros((1, 1, 3), np.uint8), icc_profile=PROFILE)


def pixels(dtype, channels, height=37, width=29, seed=0):
    """Half noise, half a ramp, so that predictions are right, wrong and out of range."""
    rng = np.random.default_rng(seed)
    array = rng.integers(0, np.iinfo(dtype).max, (height, width, channels), endpoint=True).astype(dtype)
    array[: height // 2] = (np.arange(width) * (np.iinfo(dtype).max // width))[:, None]
    return array


def bands(array, *cuts):
    return iter(np.split(array, cuts))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("shape", [(37, 29), (1, 1), (1, 300)])
def test_what_others_read(tmp_path, suffix, dtype, channels, shape):
    array, path = pixels(dtype, channels, *shape), tmp_path / f"a{suffix}"
    write_rows(path, iter([array]), *shape, LIKE)
    if suffix == ".tif":
        page = tifffile.TiffFile(path).pages[0]
        array = array[..., [0, 0, 0, 1]] if channels == 2 and dtype == np.uint16 else array  # as programs read it
        np.testing.assert_array_equal(page.asarray().reshape(array.shape), array)
        assert (page.extrasamples == (2,)) == (channels in (2, 4))  # alpha, not multiplied
        return
    decoded = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    order = {1: [0], 2: [0, 0, 0, 1], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[channels]  # OpenCV has no gray with alpha
    np.testing.assert_array_equal(decoded.reshape(*shape, -1), array[..., order])


@pytest.mark.parametrize(("most", "big"), [(6000, False), (5000, True)])
def test_bigtiff_where_4_gb_are_too_few(tmp_path, monkeypatch, most, big):
    monkeypatch.setattr("realsr.imaging.encoding._MOST_IN_TIFF", most)
    write_rows(tmp_path / "a.tif", iter([np.zeros((40, 50, 3), np.uint8)]), 40, 50, LIKE)
    assert tifffile.TiffFile(tmp_path / "a.tif").is_bigtiff == big
    check_writes(tmp_path / "a.tif", 60_000, 60_000)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp", ".jpg", ".webp"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_write_rows_of_any_cut(tmp_path, monkeypatch, suffix, channels, dtype):
    """However the rows are cut, into bands or inside for packing, the file is the same, and shows them."""
    array = pixels(np.uint8, channels).astype(dtype) * (257 if dtype == np.uint16 else 1)
    files = []
    for cuts, band in (((), 1 << 20), ((3, 4, 20), 1 << 20), ((7, 30), 300), ((), 300)):
        monkeypatch.setattr("realsr.imaging.encoding._PIECE", band)
        path = tmp_path / f"{len(files)}{suffix}"
        write_rows(path, bands(array, *cuts), 37, 29, LIKE, quality=100)
        files.append(path.read_bytes())
    assert files[0] == files[1] == files[2] == files[3]
    with Image.open(io.BytesIO(files[0])) as image:
        as_rgb = channels > 2 or suffix == ".webp" or (suffix == ".tif" and channels == 2 and dtype == np.uint16)
        assert image.info.get("icc_profile") == (PROFILE if as_rgb and suffix != ".bmp" else None)
        shown = np.asarray(image.convert("RGBA")).astype(int)
    if suffix == ".bmp" or (suffix == ".jpg" and channels < 3):  # for PNG and TIFF see above
        colour = eight_bit(array[..., :3] if channels > 2 else array[..., [0, 0, 0]])
        assert np.abs(shown[..., :3] - colour).max() <= (3 if suffix == ".jpg" else 0)
    alpha = eight_bit(array[..., -1]) if suffix not in (".jpg", ".bmp") and channels in (2, 4) else 255
    if suffix in (".webp", ".jpg", ".bmp") or channels in (1, 3):
        np.testing.assert_array_equal(shown[..., 3], alpha)


@pytest.mark.parametrize(
    ("name", "height", "width", "line"),
    [
        ("a.jpg", 65_501, 10, r"a\.jpg: 10 x 65501 pixels are more than JPEG holds, 65500 pixels a side; use \.png or"),
        ("a.webp", 10, 16_384, r"a\.webp: .* WEBP holds, 16383 pixels a side; use \.png or \.tif$"),
        ("a.bmp", 40_000, 40_000, r"a\.bmp: .* BMP holds, 4 GB; use"),
        ("a.png", 1, 2**31, r"PNG holds, 2147483647 pixels"),
        ("a.gif", 1, 1, r"cannot write \.gif; use one of \.png"),
        ("a", 1, 1, r"cannot write a file without suffix"),
    ],
)
def test_what_a_format_cannot_hold_is_said_before_the_work(tmp_path, name, height, width, line):
    def rows():
        raise AssertionError("work has begun")
        yield

    with pytest.raises(InputError, match=line):
        check_writes(tmp_path / name, height, width)
    if height * width > 1:  # these it just holds
        check_writes(tmp_path / name, min(height, 65_500), min(width, 16_383))
    with pytest.raises(InputError, match=line):
        write_rows(tmp_path / name, rows(), height, width, LIKE)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("array", "line"),
    [
        ([np.zeros((4, 9, 3), np.uint8)], "4 rows came, not 8"),
        ([], "0 rows came, not 8"),
        ([np.zeros((9, 9, 3), np.uint8)], "is no part of"),
        ([np.zeros((8, 8, 3), np.uint8)], "is no part of"),
        ([np.zeros((4, 9, 3), np.uint8), np.zeros((4, 9, 1), np.uint8)], "is no part of"),
        ([np.zeros((4, 9, 3), np.uint16), np.zeros((4, 9, 1), np.uint8)], "is no part of"),
    ],
)
@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_bands_that_are_no_such_picture_leave_no_file(tmp_path, suffix, array, line):
    with pytest.raises(ValueError, match=line):
        write_rows(tmp_path / f"a{suffix}", iter(array), 8, 9, LIKE)
    assert not list(tmp_path.iterdir())


FULL = """
import resource, signal
import numpy as np
from realsr.imaging import Photo, write_image
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    write_image("{path}", Photo(np.random.default_rng(0).integers(0, 256, (300, 300, 3)).astype(np.uint8)))
except OSError as e:
    print(e.errno)
"""
PEAK = """
import resource, sys
import numpy as np
from realsr.imaging.encoding import write_rows
from realsr.imaging import Photo
band = np.random.default_rng(0).integers(0, 256, (64, 4000, 3)).astype(np.uint8)
band[:, 40:] = band[:, 39:40]
rows = int(sys.argv[2])
write_rows(sys.argv[1] + "/warm" + sys.argv[3], iter([band]), 64, 4000, Photo(band))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
write_rows(sys.argv[1] + "/a" + sys.argv[3], (band for _ in range(rows // 64)), rows, 4000, Photo(band))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_large_picture_takes_the_memory_of_a_band(tmp_path, suffix):
    """25.6 megapixels are 77 MB."""
    command = [sys.executable, "-c", PEAK, str(tmp_path), "6400", suffix]
    peak = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert peak < 8 * 1024  # kB
    with Image.open(tmp_path / f"a{suffix}") as image:
        assert image.size == (4000, 6400)


def test_a_profile_of_gray_is_not_put_beside_three_colours(tmp_path):
    gray = profile(SRGB_PRIMARIES, (1.8,), gray=True)
    like = Photo(np.zeros((1, 1, 3), np.uint16), icc_profile=gray)
    kept = {}
    for name, channels in (("a.png", 2), ("a.tif", 2), ("b.tif", 1), ("c.tif", 4), ("d.png", 3), ("e.jpg", 3)):
        write_rows(tmp_path / name, [pixels(np.uint16, channels)], 37, 29, like)
        with Image.open(tmp_path / name) as image:
            kept[name] = image.info.get("icc_profile")
    assert kept == {"a.png": gray, "a.tif": None, "b.tif": gray, "c.tif": None, "d.png": None, "e.jpg": None}


def test_a_profile_that_png_programs_refuse_is_said(tmp_path):
    like, picture = Photo(LIKE.rgb, icc_profile=PROFILE + bytes(2**20)), pixels(np.uint8, 3)
    with pytest.raises(InputError, match=r"a\.png: a colour profile of 1\.0 MB is more than programs read; use \.tif"):
        write_rows(tmp_path / "a.png", iter([picture]), 37, 29, like)
    assert not list(tmp_path.iterdir())
    write_rows(tmp_path / "a.tif", iter([picture]), 37, 29, like)
    with Image.open(tmp_path / "a.tif") as image:
        assert image.info["icc_profile"] == like.icc_profile


def test_a_full_disk_is_the_disk_s_own_error(tmp_path, monkeypatch):
    """As seen by a bound on the size of files."""
    code = FULL.format(path=tmp_path / "a.png")
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "27\n", result.stderr
    assert not list(tmp_path.iterdir())
