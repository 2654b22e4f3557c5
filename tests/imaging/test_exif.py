"""EXIF: what the camera says is kept in every format, what holds for its pixels alone is not; broken is dropped."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import tifffile
from PIL import Image, TiffImagePlugin

from realsr.imaging import Photo, read_image, write_image
from realsr.imaging.tags import Tags, camera_name, clean_exif

EXIF, GPS, RESOLUTION = 0x8769, 0x8825, (282, 283, 296)
MAIN = {
    270: "a hill",
    271: "Maker",
    272: "Model 7",
    282: TiffImagePlugin.IFDRational(300),
    283: TiffImagePlugin.IFDRational(300),
    296: 2,
    305: "firmware",
    306: "2024:05:01 10:11:12",
    315: "someone",
    33432: "(c)",
}
TAKEN = {
    33434: TiffImagePlugin.IFDRational(1, 250),
    34855: 200,
    36867: "2024:05:01 10:11:12",
    37386: TiffImagePlugin.IFDRational(35, 1),
    37510: b"ASCII\0\0\0a comment",
    42036: "Lens 35 mm",
}
PLACE = {
    1: "N",
    2: tuple(TiffImagePlugin.IFDRational(n) for n in (47, 30, 7)),
    3: "E",
    4: tuple(TiffImagePlugin.IFDRational(n) for n in (8, 1, 2)),
}
OUTDATED = {37500: b"maker's notes", 40962: 14, 40963: 10, 41486: TiffImagePlugin.IFDRational(3000), 37396: (5, 5)}


def camera_exif(order="<", orientation=6):
    exif = Image.Exif()
    exif.endian = order
    exif.update(MAIN)
    exif[0x0112], exif[256], exif[257] = orientation, 14, 10
    exif[EXIF] = TAKEN | OUTDATED
    exif[GPS] = PLACE
    block = exif.tobytes().removeprefix(b"Exif\0\0")
    mark = b"II*\0" if order == "<" else b"MM\0*"
    assert block.startswith(mark)
    return block


def pixels(height=10, width=14, dtype=np.uint8):
    array = np.random.default_rng(0).integers(0, 256, (height, width, 3))
    return (array * (257 if dtype == np.uint16 else 1)).astype(dtype)


def found(source):
    """What Pillow finds: main directory, Exif and GPS."""
    exif = Image.Exif()
    if isinstance(source, bytes):
        exif.load(source)
    else:
        with Image.open(source) as image:
            exif = image.getexif()
            return dict(exif), dict(exif.get_ifd(EXIF)), dict(exif.get_ifd(GPS)), exif.get_ifd(1)
    return dict(exif), dict(exif.get_ifd(EXIF)), dict(exif.get_ifd(GPS)), exif.get_ifd(1)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("source", ["a.jpg", "a.png", "a.webp"])
@pytest.mark.parametrize("target", ["b.jpg", "b.png", "b.webp", "b.tif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_what_the_camera_says_is_kept(tmp_path, order, source, target, dtype):
    Image.fromarray(pixels()).save(tmp_path / source, exif=b"Exif\0\0" + camera_exif(order))
    photo = read_image(tmp_path / source)
    assert photo.rgb.shape[:2] == (14, 10)
    write_image(tmp_path / target, Photo(pixels(56, 40, dtype), exif=photo.exif, resolution=photo.resolution))
    main, taken, place, thumbnail = found(tmp_path / target)
    assert {tag: main.get(tag) for tag in MAIN} == MAIN
    told = TAKEN | {40962: 40, 40963: 56}
    assert {tag: taken.get(tag) for tag in told} == told and not OUTDATED.keys() & taken.keys() - told.keys()
    assert place == PLACE
    assert main.get(0x0112, 1) == 1 and not thumbnail
    if target != "b.tif":
        assert set(main) == {*MAIN, EXIF, GPS, 0x0112}
    back = read_image(tmp_path / target)
    assert back.rgb.shape == (56, 40, 3)
    assert set(found(photo.exif)[0]) <= set(found(back.exif)[0])
    if target in ("b.png", "b.tif"):
        np.testing.assert_array_equal(back.rgb, pixels(56, 40, dtype))


@pytest.mark.parametrize("big", [False, True])
def test_tags_of_a_tiff_s_structure_stay_there(tmp_path, big):
    extra = [(271, "s", 0, "Maker", True), (33432, "s", 0, "(c)", True)]
    tifffile.imwrite(tmp_path / "a.tif", pixels(), bigtiff=big, extratags=extra, tile=(16, 16), metadata=None)
    photo = read_image(tmp_path / "a.tif")
    assert set(found(photo.exif)[0]) <= {271, 305, 33432}
    assert found(photo.exif)[0][271] == "Maker"
    write_image(tmp_path / "b.jpg", photo)
    assert found(tmp_path / "b.jpg")[1].items() >= {40962: 14, 40963: 10}.items()


def test_tiff_by_pillow(tmp_path):
    """EXIF in a TIFF of another program, with the directories Exif and GPS."""
    Image.fromarray(pixels()).save(tmp_path / "a.tif", exif=camera_exif())
    photo = read_image(tmp_path / "a.tif")
    main, taken, place, _ = found(photo.exif)
    assert main.items() >= {tag: MAIN[tag] for tag in MAIN if tag not in RESOLUTION}.items()
    assert place == PLACE and taken == TAKEN and photo.resolution == pytest.approx((300 / 25.4, 300 / 25.4))


def test_exif_in_bigtiff(tmp_path, monkeypatch):
    monkeypatch.setattr("realsr.imaging.encoding._MOST_IN_TIFF", 0)
    block = clean_exif(Tags(camera_exif()))
    write_image(tmp_path / "a.tif", Photo(pixels(), exif=block))
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        tags = file.pages[0].tags
        assert file.is_bigtiff and tags["Model"].value == "Model 7"
        assert tags["ExifTag"].value["LensModel"] == "Lens 35 mm" and tags["ExifTag"].value["PixelXDimension"] == 14
        assert tags["GPSTag"].value["GPSLatitude"] == (47, 1, 30, 1, 7, 1)
        np.testing.assert_array_equal(file.asarray(), pixels())
    assert found(read_image(tmp_path / "a.tif").exif)[2] == PLACE


def test_bmp_has_no_exif(tmp_path):
    write_image(tmp_path / "a.bmp", Photo(pixels(), exif=clean_exif(Tags(camera_exif()))))
    assert read_image(tmp_path / "a.bmp").exif is None


def directory(order, *entries, following=0):
    body = b"".join(struct.pack(f"{order}HHI4s", tag, kind, count, value) for tag, kind, count, value in entries)
    return struct.pack(f"{order}H", len(entries)) + body + struct.pack(f"{order}I", following)


HEADER = b"II*\0\x08\0\0\0"
LOOP = HEADER + directory("<", (EXIF, 4, 1, struct.pack("<I", 8)), (GPS, 4, 1, struct.pack("<I", 8)), following=8)


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"II",
        b"garbage, but long enough to be a header",
        HEADER,
        b"II*\0\xff\xff\xff\xff",
        b"MM\0*\0\0\0\x08\xff\xff",
        HEADER + directory("<", (271, 2, 2**31, b"\x08\0\0\0")),
        HEADER + directory("<", (271, 2, 20, b"\xff\xff\xff\x7f")),
        HEADER + directory("<", (271, 99, 1, b"abcd")),
        HEADER + directory("<", (256, 3, 1, b"\1\0\0\0")),
        HEADER + directory("<", (EXIF, 4, 1, b"\xff\xff\xff\xff")),
        HEADER + directory("<", (EXIF, 2, 1, b"a\0\0\0")),
        LOOP,
    ],
)
def test_broken_exif_is_dropped(block):
    assert clean_exif(Tags(block)) is None and camera_name(Tags(block)) == ""


def test_exif_of_any_size_fits_a_jpeg(tmp_path):
    """Values too long are left out, and so are those beyond the room for all; the short ones before them stay."""
    far, inner, place = 20_000, 1000, 15_000
    many = [(38_000 + n, 2, 500, struct.pack("<I", far)) for n in range(600)]
    taken = directory("<", (37510, 7, 30_000, struct.pack("<I", far)), (42036, 2, 5, struct.pack("<I", far)), *many)
    pointers = [(tag, 4, 1, struct.pack("<I", at)) for tag, at in ((EXIF, inner), (GPS, place))]
    main = directory("<", (271, 2, 6, struct.pack("<I", far)), *pointers)
    source = bytearray(60_000)
    source[:8], source[8 : 8 + len(main)], source[inner : inner + len(taken)] = HEADER, main, taken
    source[far:] = b"Maker\0".ljust(40_000, b"y")
    source[place : place + 12 * 300 + 6] = directory("<", *((n, 2, 900, struct.pack("<I", far)) for n in range(300)))
    block = clean_exif(Tags(bytes(source)))
    assert len(block) < 65_000
    main, taken, _, _ = found(block)
    assert main[271] == "Maker" and taken[42036] == "Maker" and 37510 not in taken
    write_image(tmp_path / "a.jpg", Photo(pixels(), exif=block))
    assert found(tmp_path / "a.jpg")[0][271] == "Maker"
