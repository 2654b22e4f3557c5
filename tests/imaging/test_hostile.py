"""Files made to harm or to mislead: refused in one line, fast and in little memory; odd but sound ones are read."""

from __future__ import annotations

import io
import re
import struct
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest
import tifffile
from image_files import chunk, png
from PIL import Image

from realsr.imaging import image_size, read_image
from realsr.runtime.errors import InputError

PIXELS = np.random.default_rng(0).integers(0, 256, (10, 14, 3)).astype(np.uint8)
OTHER = Image.fromarray(255 - PIXELS)


def directory(*entries, following=0):
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return struct.pack("<H", len(entries)) + body + struct.pack("<I", following)


def tiff(*more, following=0, width=14, height=10, behind=b""):
    """An uncompressed gray TIFF, its pixels at 1000."""
    entries = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    strips = [(273, 4, 1, 1000), (278, 4, 1, height), (279, 4, 1, 140)]
    entries += [(277, 3, 1, 1), *([] if any(entry[0] == 322 for entry in more) else strips), *more]
    data = b"II*\0\x08\0\0\0" + directory(*sorted(entries), following=following)
    return data.ljust(1000, b"\0") + PIXELS[..., 0].tobytes() + behind


def jpeg(*segments):
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "JPEG")
    data = file.getvalue()
    jfif = 4 + 2 + int.from_bytes(data[4:6], "big") - 2  # without JFIF Pillow looks for the density in EXIF
    return data[:2] + b"".join(b"\xff\xe1" + struct.pack(">H", len(s) + 2) + s for s in segments) + data[jfif:]


def exif_bomb(size):
    """A directory of 60000 values of nearly the whole block, in as many segments as it takes."""
    entries = [(n, 7, size - 800_000, 800_000) for n in range(1000, 61_000)]
    block = (b"II*\0\x08\0\0\0" + directory(*entries)).ljust(size, b"\0")
    return [b"Exif\0\0" + block[at : at + 65_000] for at in range(0, size, 65_000)]


BOMB = zlib.compress(bytes(200_000_000), 9)
FLOOD = zlib.compress(bytes(1_000_000), 9)
REFUSED = {
    "claim.png": png(PIXELS, size=(60_000, 60_000)),
    "claim16.png": png(PIXELS, size=(22_000, 22_000), bits=16),
    "none.png": png(PIXELS, size=(10, 0)),
    "short.png": png(PIXELS, rows=b"\0" * 100),
    "claim.tif": tiff(width=2**31, height=2**31),
    "none.tif": tiff(width=0),
    "short.tif": tiff(height=20_000),
    "tiles.tif": tiff((322, 4, 1, 2**30), (323, 4, 1, 2**30), (324, 4, 1, 1000), (325, 4, 1, 140)),
    "tags.tif": tiff(*[(n, 7, 2_000_000, 1000) for n in range(40_000, 40_050)], behind=bytes(2_000_000)),
    "pages.tif": tiff(following=1140, behind=directory((254, 4, 1, 0), following=8)),
    "program.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n",
    "ring_of_thumbnails.tif": tiff(following=1140, behind=directory((254, 4, 1, 1), following=1140)),
}
READ = {
    "profile.png": png(PIXELS, chunk(b"iCCP", b"icc\0\0" + BOMB)),
    "text.png": png(PIXELS, chunk(b"zTXt", b"Comment\0\0" + BOMB)),
    "international.png": png(PIXELS, chunk(b"iTXt", b"Comment\0\1\0\0\0" + BOMB)),
    "texts.png": png(PIXELS, chunk(b"zTXt", b"Comment\0\0" + FLOOD) * 300),
    "twice.tif": tiff((256, 4, 1, 4000), (257, 4, 1, 4000)),
    "turned_twice.tif": tiff((274, 3, 1, 1), (274, 3, 1, 6)),
    "flood.jpg": jpeg(*exif_bomb(2_000_000)),
    "ring.tif": tiff(following=8),
    "profile_of_numbers.tif": tiff((34675, 4, 1, 7)),
    "exif_in_itself.tif": tiff((0x8769, 4, 1, 8), (0x8825, 4, 1, 8)),
    "junk.jpg": jpeg(b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0<x"),
    "names_much.jpg": jpeg(b"Exif\0\0II*\0\x08\0\0\0" + directory((271, 2, 2**31, 8), (272, 7, 2**32 - 1, 0))),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_line(tmp_path, name):
    (tmp_path / name).write_bytes(REFUSED[name])
    started = time.perf_counter()
    with pytest.raises(InputError, match=rf"{re.escape(name)}: [^\n]*$"):
        read_image(tmp_path / name)
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize("name", READ)
@pytest.mark.filterwarnings("ignore:.*EXIF data", "ignore:Truncated File Read")
def test_read_all_the_same(tmp_path, name):
    (tmp_path / name).write_bytes(READ[name])
    photo = read_image(tmp_path / name)
    if name == "turned_twice.tif":  # decoders differ, but not by what is asked
        assert image_size(tmp_path / name) == photo.rgb.shape[:2]
        return
    assert photo.rgb.shape == (10, 14, 3) and photo.exif is None and photo.icc_profile is None
    assert image_size(tmp_path / name) == (10, 14)
    if name.endswith(".tif"):
        np.testing.assert_array_equal(photo.rgb, np.repeat(PIXELS[..., :1], 3, 2))


MEMORY = """
import resource, sys
from realsr.runtime.errors import InputError
from realsr.imaging import read_image
resident = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = resident()
for path in sys.argv[1:]:
    try:
        read_image(path)
    except InputError:
        pass
    print(path, (resident() - before) // 1024)
    before = resident()
"""


def test_little_memory(tmp_path):
    for name, data in {**REFUSED, **READ}.items():
        (tmp_path / name).write_bytes(data)
    command = [sys.executable, "-W", "ignore", "-c", MEMORY, *map(str, sorted(tmp_path.iterdir()))]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert len(lines) == len(REFUSED) + len(READ)
    for line in lines:
        assert int(line.split()[-1]) < 150, line  # MB


def test_many_pages_of_many_tags_end(tmp_path):
    """Directories that overlap: 600 KB list 18000 pages of 24672 tags each."""
    data, span = bytearray(b"`" * 600_000), 2 + 12 * 0x6060
    data[:8] = b"II*\0\x08\0\0\0"
    for page in range(18_000):
        at = 8 + 16 * page
        struct.pack_into("<I", data, at + span, at + 16)
    (tmp_path / "a.tif").write_bytes(data)
    started = time.perf_counter()
    with pytest.raises(InputError, match=r"a\.tif: holds \d+ pages; save"):
        read_image(tmp_path / "a.tif")
    assert time.perf_counter() - started < 5


def test_the_bound_can_be_raised(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"has 0 megapixels, at most 0 are read; cut .* or give max_megapixels$"):
        read_image(tmp_path / "a.png", most_pixels=139)
    assert read_image(tmp_path / "a.png", most_pixels=140).rgb.shape == (10, 14, 3)


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.gif"])
@pytest.mark.parametrize("read", [read_image, image_size])
def test_animations_are_said(tmp_path, name, read):
    Image.fromarray(PIXELS).save(tmp_path / name, save_all=True, append_images=[OTHER, OTHER.rotate(180)])
    with pytest.raises(InputError, match=r"holds 3 pictures, an animation; save the one that is meant as a file"):
        read(tmp_path / name)
    Image.fromarray(PIXELS).save(tmp_path / name, save_all=True)
    assert read_image(tmp_path / name).rgb.shape == (10, 14, 3)


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("kinds", [(0,), (0, 0, 2), (0, 1), (0, 1, 4), (0, 1, 0)])
def test_pages_are_said_but_not_thumbnails_and_masks(tmp_path, big, kinds):
    with tifffile.TiffWriter(tmp_path / "a.tif", bigtiff=big) as file:
        for page, kind in enumerate(kinds):
            if kind == 4:
                file.write(PIXELS[..., 0] > 100, subfiletype=kind, photometric="mask", metadata=None)
            else:
                file.write(PIXELS if page == 0 else PIXELS[::2], subfiletype=kind, metadata=None)
    pages = sum(kind in (0, 2) for kind in kinds)
    if pages > 1:
        with pytest.raises(InputError, match=rf"holds {pages} pages; save the one that is meant as a file of its own$"):
            read_image(tmp_path / "a.tif")
    else:
        np.testing.assert_array_equal(read_image(tmp_path / "a.tif").rgb, PIXELS)


def test_phones_put_a_second_picture_behind_the_photo(tmp_path):
    photo = Image.fromarray(np.full((32, 48, 3), (200, 120, 40), np.uint8))
    photo.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[OTHER])
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.format == "MPO" and image.n_frames == 2
    read = read_image(tmp_path / "a.jpg").rgb
    assert read.shape == (32, 48, 3) and np.abs(read.astype(int) - np.asarray(photo)).max() <= 4
