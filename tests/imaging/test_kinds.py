"""Kinds of files that are easily read wrong: each against what another reader, or the array written, says."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys

import cv2
import numpy as np
import pytest
import tifffile
from image_files import chunk, png
from PIL import Image, ImageCms

from realsr.imaging import Photo, image_size, open_photo, read_image, write_image
from realsr.runtime.errors import InputError

RNG = np.random.default_rng(0)
RGB = np.clip(np.cumsum(RNG.normal(0, 1500, (40, 56, 3)), 1) + 30_000, 0, 65_535).astype(np.uint16)
ALPHA = RNG.integers(0, 65_536, (40, 56)).astype(np.uint16)
RGB8 = (RGB >> 8).astype(np.uint8)
RGBA = np.dstack([RGB, ALPHA])
SRGB = ImageCms.createProfile("sRGB")


def tiff(path, array, **options):
    tifffile.imwrite(path, array, metadata=None, **({"photometric": "rgb"} | options))


TIFFS = {
    "plain": (RGB, {}),
    "planar": (RGB.transpose(2, 0, 1), {"planarconfig": "separate"}),
    "tiles": (RGB, {"tile": (16, 32)}),
    "strips": (RGB, {"rowsperstrip": 7}),
    "deflate": (RGB, {"compression": "zlib", "predictor": True, "rowsperstrip": 7}),
    "big": (RGB, {"bigtiff": True}),
    "other order": (RGB, {"bigtiff": True, "byteorder": ">"}),
    "alpha": (RGBA, {"extrasamples": ["unassalpha"]}),
    "further": (RGBA, {"extrasamples": ["unspecified"]}),
    "further and alpha": (np.dstack([RGB, RGB[..., 0], ALPHA]), {"extrasamples": ["unspecified", "unassalpha"]}),
}


@pytest.mark.parametrize("kind", TIFFS)
def test_tiff_of_16_bits(tmp_path, kind):
    array, options = TIFFS[kind]
    tiff(tmp_path / "a.tif", array, **options)
    for photo in (read_image(tmp_path / "a.tif"), read_image(tmp_path / "a.tif")):
        np.testing.assert_array_equal(photo.rgb, RGB)
        assert (photo.alpha is not None) == ("alpha" in kind)
        if "alpha" in kind:
            np.testing.assert_array_equal(photo.alpha, ALPHA)


def test_tiff_of_lzw(tmp_path):
    cv2.imwrite(str(tmp_path / "a.tif"), RGB[..., ::-1], [cv2.IMWRITE_TIFF_COMPRESSION, 5])
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").rgb, RGB)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_white_is_0(tmp_path, dtype):
    gray = RGB[..., 0] if dtype == np.uint16 else RGB8[..., 0]
    tiff(tmp_path / "a.tif", gray, photometric="miniswhite")
    photo = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(photo.rgb[..., 0], np.iinfo(dtype).max - gray)
    assert photo.gray and photo.alpha is None


def test_colours_multiplied_by_alpha(tmp_path):
    alpha = np.maximum(ALPHA, 20_000)
    multiplied = np.round(RGB * (alpha[..., None] / 65_535)).astype(np.uint16)
    tiff(tmp_path / "a.tif", np.dstack([multiplied, alpha]), extrasamples=["assocalpha"])
    photo = read_image(tmp_path / "a.tif")
    np.testing.assert_allclose(photo.rgb, np.minimum(multiplied / (alpha[..., None] / 65_535), 65_535), atol=1)
    np.testing.assert_array_equal(photo.alpha, alpha)


def test_gray_with_alpha(tmp_path):
    tiff(tmp_path / "a.tif", RGBA[..., [0, 3]], photometric="minisblack", extrasamples=["unassalpha"])
    photo = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(photo.rgb[..., 1], RGB[..., 0])
    np.testing.assert_array_equal(photo.alpha, ALPHA)
    assert photo.gray


def test_floats_are_linear_light(tmp_path):
    linear = (RGB / 65_535).astype(np.float32)
    tiff(tmp_path / "a.tif", linear)
    curve = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    np.testing.assert_allclose(read_image(tmp_path / "a.tif").rgb, curve * 65_535, atol=40)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_cmyk_without_profile(tmp_path, dtype):
    inks = RGBA if dtype == np.uint16 else (RGBA >> 8).astype(np.uint8)
    tiff(tmp_path / "a.tif", inks, photometric="separated")
    top = np.iinfo(dtype).max
    wanted = (top - inks[..., :3].astype(float)) * (top - inks[..., 3:]) / top
    np.testing.assert_allclose(read_image(tmp_path / "a.tif").rgb, wanted, atol=1)


def test_lab_of_16_bits(tmp_path):
    """Of 8 bits in ``test_images.py``; L to 65535, a and b in 256ths (TIFF Technical Note 4)."""
    flat = Image.new("RGB", (16, 16), (200, 120, 40))
    transform = ImageCms.buildTransform(SRGB, ImageCms.createProfile("LAB"), "RGB", "LAB")
    lightness, a, b = np.moveaxis(np.asarray(ImageCms.applyTransform(flat, transform)).astype(np.int32), 2, 0)
    signed = [((channel + 128) % 256 - 128) * 256 for channel in (a, b)]
    lab = np.stack([(lightness * 257).astype(np.int32), *signed], 2).astype(np.uint16)
    tiff(tmp_path / "a.tif", lab, photometric="cielab")
    photo = read_image(tmp_path / "a.tif")
    assert np.abs(photo.rgb / 257 - np.asarray(flat)).max() <= 4


@pytest.mark.parametrize("options", [{"compression": "lzma"}, {"planarconfig": "separate", "tile": (16, 16)}])
def test_what_is_not_read_is_said_truly(tmp_path, options):
    """Neither damage nor garbage: libvips' TIFF knows no LZMA, and no planes in tiles."""
    tiff(tmp_path / "a.tif", RGB.transpose(2, 0, 1) if "tile" in options else RGB, **options)
    with pytest.raises(InputError, match=r"a\.tif: is of a kind that is not read \(.*\); save it in another$"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("channels", [1, 3])
def test_a_transparent_colour_of_16_bits(tmp_path, channels):
    array = RGB[..., :channels].copy()
    array[3, 4] = 777
    (tmp_path / "a.png").write_bytes(png(array, chunk(b"tRNS", struct.pack(">H", 777) * channels)))
    photo = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(photo.rgb, np.broadcast_to(array, RGB.shape))
    np.testing.assert_array_equal(photo.alpha == 0, (array == 777).all(2))


@pytest.mark.parametrize("kind", [0, 1])
def test_a_preview_before_the_photo(tmp_path, kind):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(RGB8[::4, ::4], subfiletype=kind, metadata=None, photometric="rgb")
        file.write(RGB8, subfiletype=0, metadata=None, photometric="rgb")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").rgb, tifffile.imread(tmp_path / "a.tif", key=1))
    assert image_size(tmp_path / "a.tif") == (40, 56)


@pytest.mark.parametrize("kind", [0, 1])
def test_the_photo_in_a_directory_below(tmp_path, kind):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(RGB8[::4, ::4], subifds=2, subfiletype=kind, metadata=None, photometric="rgb")
        file.write(RGB8[::2, ::2], subfiletype=1, metadata=None, photometric="rgb")
        file.write(RGB, subfiletype=0, metadata=None, photometric="rgb")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").rgb, RGB)


# -- colour ------------------------------------------------------------------------------------------------------------

ADOBE = (0.64, 0.33, 0.21, 0.71, 0.15, 0.06, 0.3127, 0.3290)
P3 = (0.68, 0.32, 0.265, 0.69, 0.15, 0.06, 0.3127, 0.3290)


def in_srgb(rgb, primaries, decode):
    """What colours of other primaries and curve are in sRGB, from their definitions; clipped. 8 bits."""

    def to_xyz(numbers):
        x, y = np.reshape(numbers, (4, 2)).T
        xyz = np.stack([x / y, np.ones(4), (1 - x - y) / y])
        return xyz[:, :3] * np.linalg.solve(xyz[:, :3], xyz[:, 3])

    srgb = to_xyz((0.64, 0.33, 0.30, 0.60, 0.15, 0.06, 0.3127, 0.3290))
    linear = np.clip(decode(rgb / 255) @ (np.linalg.inv(srgb) @ to_xyz(primaries)).T, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055) * 255


def shown(photo):
    """By Pillow's colour management."""
    image = Image.fromarray(photo.rgb)
    source = ImageCms.ImageCmsProfile(io.BytesIO(photo.icc_profile))
    return np.asarray(ImageCms.profileToProfile(image, source, SRGB, renderingIntent=1)).astype(float)


def chrm(primaries):
    return chunk(b"cHRM", struct.pack(">8I", *(round(v * 100_000) for v in (*primaries[6:], *primaries[:6]))))


def chromaticities(primaries):
    fractions = [(round(v * 10_000), 10_000) for v in primaries]
    return [
        (318, "2I", 2, sum(fractions[3:4] + fractions[6:], ())[2:], True),
        (319, "2I", 6, sum(fractions[:6], ()), True),
    ]


def srgb_curve(v):
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)


@pytest.mark.parametrize("way", ["cHRM", "cICP", "R03", "318", "avif", "nclx"])
def test_colour_told_by_other_means_than_a_profile(tmp_path, way):
    path, exif = tmp_path / "a.png", Image.Exif()
    primaries, decode = ADOBE, lambda v: v**2.2
    if way == "cHRM":
        path.write_bytes(png(RGB8, chunk(b"gAMA", struct.pack(">I", 45_455)) + chrm(ADOBE)))
    elif way == "cICP":
        primaries, decode = P3, srgb_curve
        path.write_bytes(png(RGB8, chunk(b"cICP", bytes([12, 13, 0, 1]))))
    elif way == "R03":
        exif[0x8769] = {40961: 65535, 40965: {1: "R03"}}
        Image.fromarray(RGB8).save(path, exif=exif)
    elif way == "318":
        path = tmp_path / "a.tif"
        tiff(path, RGB8, extratags=chromaticities(ADOBE))
    elif way == "avif":
        path, file, (primaries, decode) = tmp_path / "a.avif", io.BytesIO(), (P3, srgb_curve)
        Image.fromarray(RGB8).save(file, "AVIF", quality=100, subsampling="4:4:4")
        path.write_bytes(file.getvalue().replace(b"colrnclx\0\1\0\r", b"colrnclx\0\x0c\0\r"))
    else:
        heif, path = pytest.importorskip("pillow_heif"), tmp_path / "a.heic"
        primaries, decode = P3, srgb_curve
        options = {"color_primaries": 12, "transfer_characteristics": 13, "matrix_coefficients": 0}
        heif.from_pillow(Image.fromarray(RGB8)).save(path, quality=-1, chroma=444, **options)
    photo = read_image(path)
    assert np.abs(photo.rgb.astype(int) - RGB8).max() <= {"avif": 3, "nclx": 2}.get(way, 0)  # of their encoders
    wanted = in_srgb(photo.rgb, primaries, decode)
    assert np.abs(wanted - photo.rgb).mean() > 3  # it matters
    assert np.abs(shown(photo) - wanted).max() <= 1.5
    for suffix in (".png", ".jpg", ".tif", ".webp"):
        write_image(tmp_path / f"b{suffix}", photo)
        with Image.open(tmp_path / f"b{suffix}") as image:
            assert image.info["icc_profile"] == photo.icc_profile


def test_what_says_srgb_needs_no_profile(tmp_path):
    srgb = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06, 0.3127, 0.3290)
    ways = [[chunk(b"sRGB", b"\0"), chrm(ADOBE)], [chunk(b"gAMA", struct.pack(">I", 45_455)), chrm(srgb)]]
    ways += [[chunk(b"cICP", bytes([1, 13, 0, 1]))], [chunk(b"gAMA", struct.pack(">I", 0)), chrm((0,) * 8)], []]
    for chunks in ways:
        (tmp_path / "a.png").write_bytes(png(RGB8, b"".join(chunks)))
        assert read_image(tmp_path / "a.png").icc_profile is None


@pytest.mark.parametrize("transfer", [16, 18])
@pytest.mark.parametrize("suffix", [".png", ".heic"])
def test_hdr_is_refused(tmp_path, transfer, suffix):
    path = tmp_path / f"a{suffix}"
    if suffix == ".png":
        path.write_bytes(png(RGB8, chunk(b"cICP", bytes([9, transfer, 0, 1]))))
    else:
        heif = pytest.importorskip("pillow_heif")
        options = {"color_primaries": 9, "transfer_characteristics": transfer, "matrix_coefficients": 9}
        heif.from_pillow(Image.fromarray(RGB8)).save(path, quality=90, **options)
    with pytest.raises(InputError, match=rf"a{suffix}: is an HDR image \((PQ|HLG)\), which is not read; save"):
        read_image(path)


# -- valid files, and their notes -------------------------------------------------------------------------------------


def jpeg(**options):
    file = io.BytesIO()
    Image.fromarray(RGB8).save(file, "JPEG", quality=95, **options)
    return file.getvalue()


@pytest.mark.parametrize("lacking", [1, 2])
def test_a_jpeg_without_its_end_mark(tmp_path, lacking):
    data = jpeg()
    (tmp_path / "a.jpg").write_bytes(data[:-lacking])
    np.testing.assert_array_equal(read_image(tmp_path / "a.jpg").rgb, np.asarray(Image.open(io.BytesIO(data))))
    (tmp_path / "a.jpg").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"a\.jpg: cannot be decoded, the file is damaged"):
        read_image(tmp_path / "a.jpg")


def test_a_wrong_checksum_of_a_text(tmp_path):
    (tmp_path / "a.png").write_bytes(png(RGB8, chunk(b"tEXt", b"Comment\0hello", wrong=1)))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").rgb, RGB8)


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".mpo", ".gif", ".avif"])
def test_further_suffixes(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    kind = {".gif": "GIF", ".avif": "AVIF"}.get(suffix, "JPEG")
    Image.fromarray(RGB8).save(path, kind, **({"quality": 100, "subsampling": "4:4:4"} if kind == "AVIF" else {}))
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(read_image(path).rgb - expected).max() <= (2 if kind == "AVIF" else 0)


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6" dc:title="a hill"/></x:xmpmeta>'


@pytest.mark.parametrize("source", [".jpg", ".tif"])
@pytest.mark.parametrize("target", [".jpg", ".png", ".tif", ".webp"])
def test_xmp_and_resolution_are_kept_and_the_photo_is_turned_once(tmp_path, source, target):
    exif = Image.Exif()
    exif[0x0112] = 6
    notes = {"tiffinfo": {700: XMP, 0x0112: 6}} if source == ".tif" else {"xmp": XMP, "exif": exif}
    Image.fromarray(RGB8).save(tmp_path / f"a{source}", dpi=(300, 300), **notes)
    photo = read_image(tmp_path / f"a{source}")
    assert photo.rgb.shape == (56, 40, 3)
    write_image(tmp_path / f"b{target}", photo)
    with Image.open(tmp_path / f"b{target}") as image:
        kept = image.info.get("xmp") or image.info["XML:com.adobe.xmp"].encode()
        assert kept == XMP.replace(b'"6"', b'"1"')
        across = image.getexif()[282] if target in (".jpg", ".webp") else image.info["dpi"][0]
        assert across == pytest.approx(300, abs=0.02)
        assert image.size == (40, 56) and image.getexif().get(0x0112, 1) == 1


def test_xmp_of_pictures_that_are_not_kept_is_left_out(tmp_path):
    notes = XMP.replace(b"dc:title", b'xmlns:c="http://ns.google.com/photos/1.0/container/" dc:title')
    Image.fromarray(RGB8).save(tmp_path / "a.jpg", xmp=notes)
    assert read_image(tmp_path / "a.jpg").xmp is None


# -- rows, processes, terminals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_rows_as_they_are_asked_for(tmp_path, suffix, orientation):
    path, exif = tmp_path / f"a{suffix}", Image.Exif()
    exif[0x0112] = orientation
    large = np.tile(RGB8, (20, 3, 1))
    image = Image.fromarray(np.dstack([large, large[..., 0]]) if suffix == ".png" else large)
    image.save(path, exif=exif)
    whole, photo = read_image(path), open_photo(path)
    assert photo.rgb.shape == whole.rgb.shape and photo.rgb.dtype == whole.rgb.dtype
    height, width = whole.rgb.shape[:2]
    for rows in (slice(0, 90), slice(40, 200), slice(150, 151), slice(height - 5, height + 9), slice(10, 20)):
        np.testing.assert_array_equal(photo.rgb[rows, 3 : width - 2], whole.rgb[rows, 3 : width - 2])
        if whole.alpha is not None:
            np.testing.assert_array_equal(photo.alpha[rows, 3:9], whole.alpha[rows, 3:9])


def test_damage_is_said_when_its_rows_are_asked_for(tmp_path):
    large = RNG.integers(0, 256, (1600, 60, 3)).astype(np.uint8)
    Image.fromarray(large).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(data[: len(data) // 2])
    photo = open_photo(tmp_path / "a.png")
    np.testing.assert_array_equal(photo.rgb[:100, :], large[:100])
    with pytest.raises(InputError, match=r"a\.png: cannot be decoded, the file is damaged"):
        photo.rgb[1000:1600, :]


def test_forked_workers_read_after_their_parent_has_written(tmp_path):
    for suffix in (".png", ".jpg", ".tif"):
        write_image(tmp_path / f"a{suffix}", Photo(np.tile(RGB8, (20, 20, 1))))
        child = os.fork()
        if not child:
            read_image(tmp_path / f"a{suffix}")
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_no_lines_of_libraries_on_the_terminal(tmp_path):
    (tmp_path / "a.png").write_bytes(png(RGB8, chunk(b"tEXt", b"Comment\0hello", wrong=1))[:-30])
    (tmp_path / "b.jpg").write_bytes(jpeg()[:-40])
    tiff(tmp_path / "c.tif", RGB, compression="lzma")
    code = (
        "import logging, sys; logging.basicConfig(level=logging.INFO)\nfrom realsr.imaging import read_image\n"
        "for path in sys.argv[1:]:\n try: read_image(path)\n except ValueError: print('refused')"
    )
    command = [sys.executable, "-c", code, *map(str, sorted(tmp_path.iterdir()))]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout == "refused\n" * 3 and result.stderr == ""
