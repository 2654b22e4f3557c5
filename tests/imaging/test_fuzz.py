"""Damaged and hostile files: each gives a photo of sane shape or one line that names it; no crash, hang or flood."""

from __future__ import annotations

import importlib.util
import io
import os
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import warnings
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms
from test_extras import dng, heic

from realsr.imaging import Photo, image_size, read_image, write_image
from realsr.runtime.errors import InputError

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
MOST_PIXELS = 1_000_000
MEMORY = 1 << 30  # bytes that may be asked for, beyond what the libraries take
RESIDENT = 200_000  # kB that may be used, likewise
EXTREMES = (b"\0", b"\xff", b"\x7f", b"\x80", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\xff\xff")


def exif_block():
    exif = Image.Exif()
    exif[271], exif[0x0112], exif[0x8769], exif[0x8825] = "Maker", 6, {36867: "2024:05:01 10:11:12"}, {1: "N"}
    return exif.tobytes()


def sources() -> dict[str, bytes]:
    """A small file of every kind, by name."""
    rng = np.random.default_rng(0)
    rgb = cv2.GaussianBlur(rng.integers(0, 256, (24, 40, 3)).astype(np.uint8), (0, 0), 2)
    rgba, deep = np.dstack([rgb, rgb[..., 0]]), rgb.astype(np.uint16) * 257
    exif = exif_block()
    files: dict[str, bytes] = {}

    def pillow(name, mode="RGB", **options):
        file = io.BytesIO()
        kind = Image.registered_extensions()[Path(name).suffix]
        Image.fromarray(rgba).convert(mode).save(file, kind, **options)
        files[name] = file.getvalue()

    def tiff(name, array, **options):
        file = io.BytesIO()
        tifffile.imwrite(file, array, metadata=None, **options)
        files[name] = file.getvalue()

    for mode in ("RGB", "RGBA", "L", "LA", "P", "1"):
        pillow(f"{mode}.png", mode, exif=exif, icc_profile=PROFILE if mode == "RGB" else None)
    pillow("rgb.jpg", exif=exif, icc_profile=PROFILE)
    pillow("progressive.jpg", progressive=True, exif=exif)
    pillow("cmyk.jpg", "CMYK")
    pillow("lossy.webp", exif=exif, icc_profile=PROFILE)
    pillow("lossless.webp", "RGBA", lossless=True)
    for mode in ("RGB", "L", "1"):
        pillow(f"{mode}.bmp", mode)
    pillow("raw.tif", exif=exif)
    for packed in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        pillow(f"{packed}.tif", compression=packed, tiffinfo={0x0112: 6})
    pillow("fax.tif", "1", compression="group4")
    pillow("palette.tif", "P")
    pillow("lab.tif", "LAB")
    pillow("cmyk.tif", "CMYK")
    tiff("tiles16.tif", deep, tile=(16, 16))
    tiff("planes16.tif", deep.transpose(2, 0, 1), planarconfig="separate", photometric="rgb")
    tiff("big.tif", rgb, bigtiff=True, byteorder=">")
    tiff("float.tif", rgb.astype(np.float32))
    with tempfile.TemporaryDirectory() as folder:
        for name, photo in (
            ("ours16.png", Photo(deep, deep[..., 0])),
            ("ours16.tif", Photo(deep, icc_profile=PROFILE)),
        ):
            write_image(Path(folder) / name, photo)
            files[name] = (Path(folder) / name).read_bytes()
        if importlib.util.find_spec("pillow_heif"):
            for name, array in (("rgb.heic", rgb), ("alpha10.heic", np.dstack([deep, deep[..., 0]]))):
                heic(Path(folder) / name, array)
                files[name] = (Path(folder) / name).read_bytes()
        if importlib.util.find_spec("rawpy"):
            dng(Path(folder) / "bayer.dng", (0.4, 0.25, 0.1))
            files["bayer.dng"] = (Path(folder) / "bayer.dng").read_bytes()
    return files


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """Bytes flipped, cut off, set to extremes, repeated or removed; checksums of PNGs mended in half of the cases."""
    array = bytearray(data)
    for _ in range(int(rng.choice([1, 1, 2, 4, 16]))):
        near = len(array) if rng.random() < 0.5 else min(len(array), 600)  # headers stand at the start
        at = int(rng.integers(max(near, 1)))
        way = rng.integers(6)
        if way < 2:
            array[at : at + 1] = bytes([int(rng.integers(256))])
        elif way == 2:
            extreme = EXTREMES[int(rng.integers(len(EXTREMES)))]
            array[at : at + len(extreme)] = extreme
        elif way == 3 and len(array) >= at + 2:
            array[at : at + 2] = struct.pack(
                "<H", (struct.unpack_from("<H", array, at)[0] + rng.integers(-2, 3)) % 65536
            )
        elif way == 4:
            size = int(rng.integers(1, 64))
            array[at:at] = array[at : at + size] if rng.random() < 0.5 else b""
        elif rng.random() < 0.3:
            del array[at:]
        else:
            del array[at : at + int(rng.integers(1, 64))]
    return with_checksums(bytes(array)) if rng.random() < 0.5 else bytes(array)


def with_checksums(data: bytes) -> bytes:
    """A PNG whose chunks have the checksums of their contents; other files as they are."""
    if not data.startswith(b"\x89PNG"):
        return data
    mended, at = data[:8], 8
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        body = data[at + 4 : at + 8 + size]
        mended += data[at : at + 4] + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + size
    return mended + data[at:]


class HangError(BaseException):
    """No Exception, lest it be taken for one of a decoder."""


def check(path: Path) -> str:
    """What became of a file: ``photo`` or ``refused``; anything else raises."""
    try:
        photo = read_image(path, MOST_PIXELS)
    except InputError as e:
        assert str(path) in str(e) and "\n" not in str(e), str(e)
        return "refused"
    height, width = photo.rgb.shape[:2]
    assert photo.rgb.shape == (height, width, 3) and 0 < height * width <= MOST_PIXELS
    assert photo.rgb.dtype in (np.uint8, np.uint16)
    assert photo.alpha is None or (photo.alpha.shape, photo.alpha.dtype) == ((height, width), photo.rgb.dtype)
    assert image_size(path) == (height, width)
    if photo.exif and max(height, width) <= 65500:
        write_image(path.with_name("copy.jpg"), photo)
        with Image.open(path.with_name("copy.jpg")) as image:
            assert image.size == (width, height)
    return "photo"


def run(first: int, count: int, folder: Path) -> None:
    """Check cases by their numbers, which say everything about them; the number of the current one is printed."""
    warnings.simplefilter("ignore")
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))

    def hang(*_):
        raise HangError

    signal.signal(signal.SIGALRM, hang)
    files = sources()
    names, seen = sorted(files), []
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for case in range(first, first + count):
        name = names[case % len(names)]
        print(f"\ncase {case}, {name}", end="", flush=True)
        path = folder / name
        path.write_bytes(damaged(files[name], np.random.default_rng(case)))
        signal.alarm(5)
        seen.append(check(path))
        signal.alarm(0)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - resident
    assert used < RESIDENT, used
    print(f"\n{seen.count('photo')} photos, {seen.count('refused')} refused")


@pytest.mark.skipif(sys.platform != "linux", reason="bounds memory as Linux counts it")
def test_damaged_files(tmp_path):
    command = [sys.executable, __file__, "0", "3000", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    last = done.stdout.splitlines()[-1]
    assert done.returncode == 0, f"{last}: {done.returncode}\n{done.stderr[-3000:]}"
    photos, refused = (int(word) for word in last.split() if word.isdigit())
    assert photos > 500 and refused > 500 and photos + refused == 3000


if __name__ == "__main__":
    run(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
