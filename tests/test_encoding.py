"""What is written band by band is what other programs read; what a format cannot hold is said before the work."""

from __future__ import annotations

import io
import subprocess
import sys
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from realsr.encoding import check_writes, eight_bit, write_rows
from realsr.errors import InputError
from realsr.images import Photo
from realsr.png import png_pieces
from realsr.tiff import write_tiff

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


def tiff(array, strip_rows=5, exif=None):
    file = io.BytesIO()
    strips = (array[top : top + strip_rows] for top in range(0, len(array), strip_rows))
    write_tiff(file, strips, *array.shape, 8 * array.itemsize, strip_rows, PROFILE, exif)
    return file.getvalue()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("shape", [(37, 29), (1, 1), (1, 40), (40, 1)])
def test_png_as_others_read_it(dtype, channels, shape):
    array = pixels(dtype, channels, *shape)
    cuts = (1, 2, 20) if shape[0] > 20 else ()
    data = b"".join(png_pieces(bands(array, *cuts), *array.shape, 8 * array.itemsize))
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    order = {1: [0], 2: [0, 0, 0, 1], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[channels]  # OpenCV has no gray with alpha
    np.testing.assert_array_equal(decoded.reshape(*shape, -1), array[..., order])
    with Image.open(io.BytesIO(data)) as image:
        image.verify()  # checksums of the chunks
    if dtype == np.uint8:
        with Image.open(io.BytesIO(data)) as image:
            np.testing.assert_array_equal(np.asarray(image).reshape(array.shape), array)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_tiff_as_others_read_it(dtype, channels):
    array = pixels(dtype, channels)
    data = tiff(array)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages[0]
        np.testing.assert_array_equal(page.asarray().reshape(array.shape), array)
        assert page.tags[34675].value == PROFILE and len(file.pages) == 1
        assert page.tags["RowsPerStrip"].value == 5 and len(page.dataoffsets) == 8
        assert (channels in (2, 4)) == ("ExtraSamples" in page.tags)
    if dtype == np.uint8:
        with Image.open(io.BytesIO(data)) as image:
            assert image.mode == {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels]
            np.testing.assert_array_equal(np.asarray(image).reshape(array.shape), array)
    if channels != 2:
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED).reshape(array.shape)
        np.testing.assert_array_equal(decoded, array[..., {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[channels]])


def test_tiff_beyond_4_gb_has_offsets_of_64_bits():
    """A file of that size is a matter of the claimed height alone; the strips that come are few."""
    array = pixels(np.uint16, 3, 8)
    file = io.BytesIO()
    write_tiff(file, iter([array]), 2**32, 29, 3, 16, 8)
    assert file.getvalue()[:4] == b"II\x2b\0"
    with tifffile.TiffFile(file) as back:
        page = back.pages[0]
        assert back.is_bigtiff and page.shape == (2**32 if False else page.shape[0], 29, 3)
        packed = file.getvalue()[page.dataoffsets[0] : page.dataoffsets[0] + page.databytecounts[0]]
    differences = np.frombuffer(zlib.decompress(packed), np.uint16).reshape(array.shape)
    np.testing.assert_array_equal(differences.cumsum(1, dtype=np.uint16), array)
