"""Image files: what is written is read back; what Pillow reads, we read the same; what is broken is named."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from image_files import chunk, png
from PIL import Image, ImageCms, ImageOps

from realsr.imaging import Photo, image_size, quantize, read_image, to_float, to_uint, write_image
from realsr.imaging.profiles import SRGB_PRIMARIES, profile
from realsr.runtime.errors import InputError
from realsr.runtime.files import atomic_write, find_images

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
GRAY_PROFILE = profile(SRGB_PRIMARIES, (1.8,), gray=True)
ORIENTATION = 0x0112


def pixels(dtype=np.uint8, channels=3, height=10, width=14, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, np.iinfo(dtype).max, (height, width, channels), endpoint=True).astype(dtype)


def exif(orientation):
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    return tags.tobytes().removeprefix(b"Exif\0\0")


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("gray", [False, True])
def test_lossless_round_trip(tmp_path, suffix, dtype, alpha, gray):
    rgb = np.repeat(pixels(dtype, 1), 3, 2) if gray else pixels(dtype)
    stays = gray and not (alpha and dtype == np.uint16 and suffix != ".png")  # kept as RGBA
    used = GRAY_PROFILE if stays else PROFILE
    photo = Photo(rgb, pixels(dtype, 1, seed=1)[..., 0] if alpha else None, gray, used)
    write_image(tmp_path / f"new/photo{suffix}", photo)
    back = read_image(tmp_path / f"new/photo{suffix}")
    assert back.rgb.dtype == dtype
    np.testing.assert_array_equal(back.rgb, photo.rgb)
    if alpha:
        np.testing.assert_array_equal(back.alpha, photo.alpha)
    else:
        assert back.alpha is None
    assert back.icc_profile == used and back.gray == stays


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".bmp"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_formats_of_8_bit(tmp_path, suffix, dtype):
    smooth = cv2.GaussianBlur(pixels(np.uint8, 3, 32, 48), (0, 0), 6)
    photo = Photo(smooth.astype(dtype) * (257 if dtype == np.uint16 else 1), icc_profile=PROFILE)
    write_image(tmp_path / f"photo{suffix}", photo)
    back = read_image(tmp_path / f"photo{suffix}")
    assert back.rgb.dtype == np.uint8 and back.alpha is None
    assert np.abs(back.rgb.astype(int) - smooth).max() <= (0 if suffix == ".bmp" else 6)
    assert back.icc_profile == (None if suffix == ".bmp" else PROFILE)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bit_png_of_another_program(tmp_path, channels):
    array = pixels(np.uint16, channels)
    (tmp_path / "photo.png").write_bytes(png(array))
    photo = read_image(tmp_path / "photo.png")
    assert photo.rgb.dtype == np.uint16
    colour = array[..., :3] if channels > 2 else np.repeat(array[..., :1], 3, 2)
    np.testing.assert_array_equal(photo.rgb, colour)
    if channels in (2, 4):
        np.testing.assert_array_equal(photo.alpha, array[..., -1])
    else:
        assert photo.alpha is None


@pytest.mark.parametrize(
    ("mode", "options", "alpha", "gray"),
    [
        ("P", {}, False, False),
        ("P", {"transparency": 0}, True, False),  # black in the web palette
        ("RGB", {"transparency": (1, 2, 3)}, True, False),
        ("L", {"transparency": 7}, True, True),
        ("1", {}, False, True),
        ("LA", {}, True, True),
    ],
)
def test_png_modes_as_pillow_shows_them(tmp_path, mode, options, alpha, gray):
    rgb = pixels()
    rgb[0, 0] = {"L": (7, 7, 7), "P": (0, 0, 0)}.get(mode, (1, 2, 3))
    Image.fromarray(rgb).convert(mode).save(tmp_path / "photo.png", **options)
    with Image.open(tmp_path / "photo.png") as image:
        expected = np.asarray(image.convert("RGBA"))
    photo = read_image(tmp_path / "photo.png")
    np.testing.assert_array_equal(photo.rgb, expected[..., :3])
    assert photo.gray == gray and (photo.alpha is not None) == alpha
    if alpha:
        np.testing.assert_array_equal(photo.alpha, expected[..., 3])
        assert mode == "LA" or photo.alpha.min() == 0


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk_becomes_rgb(tmp_path, suffix):
    flat = np.full((16, 16, 3), (200, 120, 40), np.uint8)
    Image.fromarray(flat).convert("CMYK").save(tmp_path / f"photo{suffix}", quality=95)
    photo = read_image(tmp_path / f"photo{suffix}")
    assert np.abs(photo.rgb.astype(int) - flat).max() <= 4
    assert photo.alpha is None and photo.icc_profile is None


def test_the_a_of_lab_is_no_alpha(tmp_path):
    flat = Image.new("RGB", (16, 16), (200, 120, 40))
    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    ImageCms.applyTransform(flat, to_lab).save(tmp_path / "photo.tif")
    photo = read_image(tmp_path / "photo.tif")
    assert photo.alpha is None and photo.icc_profile is None
    assert np.abs(photo.rgb.astype(int) - np.asarray(flat)).max() <= 4


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["rgb.jpg", "rgb.png", "rgb.webp", "rgb.tif", "gray.tif", "gray16.png", "gray16.tif"])
def test_orientation_as_pillow_turns_it(tmp_path, name, orientation):
    path = tmp_path / name
    array = pixels(np.uint16 if "16" in name else np.uint8)
    image = Image.fromarray(array if "rgb" in name else array[..., 0])
    if path.suffix == ".tif":
        image.save(path, tiffinfo={ORIENTATION: orientation})
    else:
        image.save(path, exif=b"Exif\0\0" + exif(orientation))
    with Image.open(io.BytesIO(path.read_bytes())) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    assert expected.shape[:2] == ((10, 14) if orientation < 5 else (14, 10))
    photo = read_image(path)
    np.testing.assert_array_equal(photo.rgb if "rgb" in name else photo.rgb[..., 0], expected)
    assert image_size(path) == photo.rgb.shape[:2]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("place", ["before", "behind"])
def test_orientation_of_16_bit_rgb_png(tmp_path, orientation, place):
    """Pillow has no 16-bit RGB, so its turned 8-bit picture times 257 is what ours has to be."""
    path, array = tmp_path / "photo.png", pixels()
    path.write_bytes(png(array.astype(np.uint16) * 257, **{place: chunk(b"eXIf", exif(orientation))}))
    tagged = Image.fromarray(array)
    tagged.getexif()[ORIENTATION] = orientation
    expected = np.asarray(ImageOps.exif_transpose(tagged)).astype(np.uint16) * 257
    np.testing.assert_array_equal(read_image(path).rgb, expected)
    assert image_size(path) == expected.shape[:2]


def test_image_size_of_a_png_decodes_nothing(tmp_path):
    """Folders of thousands of PNGs are sized at the start of a run: pixels that cannot be decoded are not missed."""
    whole = png(pixels(np.uint16, 3, 64, 96))
    (tmp_path / "photo.png").write_bytes(whole[:200])
    assert image_size(tmp_path / "photo.png") == (64, 96)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp", ".webp"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_truncated_file_is_named(tmp_path, suffix, dtype):
    path = tmp_path / f"cut{suffix}"
    write_image(path, Photo(pixels(dtype, 3, 100, 100)))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=path.name):
        read_image(path)


@pytest.mark.parametrize("read", [read_image, image_size])
def test_what_is_no_image_is_named(tmp_path, read):
    (tmp_path / "text.png").write_text("no image at all")
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    for name in ("text.png", "empty.jpg", "folder.png", "missing.png"):
        with pytest.raises(InputError, match=name):
            read(tmp_path / name)


TEXT_IN_PLACE_OF_A_NUMBER = exif(1).replace(b"\x01\x12\x00\x03", b"\x01\x12\x00\x02")


@pytest.mark.parametrize("value", [exif(0), exif(9), TEXT_IN_PLACE_OF_A_NUMBER])
@pytest.mark.parametrize("name", ["photo.jpg", "photo.png"])
def test_senseless_orientation_is_upright(tmp_path, name, value):
    Image.fromarray(pixels()).save(tmp_path / name, exif=b"Exif\0\0" + value)
    assert read_image(tmp_path / name).rgb.shape[:2] == image_size(tmp_path / name) == (10, 14)


@pytest.mark.parametrize("name", ["photo.jpg", "photo.png", "photo.webp"])
def test_damaged_exif_is_dropped(tmp_path, name):
    Image.fromarray(pixels()).save(tmp_path / name, exif=b"Exif\0\0garbage!")
    photo = read_image(tmp_path / name)
    assert photo.exif is None and photo.rgb.shape[:2] == image_size(tmp_path / name) == (10, 14)


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_32_bit_tiff_is_refused(tmp_path, dtype):
    path = tmp_path / "deep.tif"
    Image.fromarray(pixels(channels=1)[..., 0].astype(dtype)).save(path)
    with pytest.raises(InputError, match=r"deep\.tif.*convert"):
        read_image(path)


def test_find_images(tmp_path):
    root = tmp_path / ".cache" / "photos"  # a hidden folder above does not count
    for name in ("b.png", "a/z.JPG", "a/y.tiff", "c.bmp", ".hidden.png", ".trash/d.png", "a/.x/e.png", "notes.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (root / "folder.png").mkdir()
    assert find_images(root) == [root / name for name in ("a/y.tiff", "a/z.JPG", "b.png", "c.bmp")]
    assert find_images(str(root)) == find_images(root)


def test_atomic_write_replaces_whole(tmp_path):
    path = tmp_path / "new" / "file.bin"
    for content in (b"old", b"new"):
        with atomic_write(path) as file:
            file.write(content)
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_atomic_write_leaves_nothing_behind(tmp_path, error):
    def write(path):
        with atomic_write(path) as file:
            file.write(b"half")
            raise error

    with pytest.raises(error):
        write(tmp_path / "file.bin")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file.bin").write_bytes(b"old")
    with pytest.raises(error):
        write(tmp_path / "file.bin")
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"old"]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_to_float_and_back(dtype):
    array = pixels(dtype)
    image = to_float(array)
    assert image.dtype == torch.float32 and image.shape == (3, 10, 14)
    np.testing.assert_allclose(image.permute(1, 2, 0), array / np.iinfo(dtype).max, atol=1e-6)
    np.testing.assert_array_equal(to_uint(image, dtype), array)


def test_quantize_is_saving_and_reading(tmp_path):
    image = torch.rand(3, 8, 9, generator=torch.Generator().manual_seed(0)) * 1.4 - 0.2
    write_image(tmp_path / "photo.png", Photo(to_uint(image)))
    torch.testing.assert_close(quantize(image), to_float(read_image(tmp_path / "photo.png").rgb), rtol=0, atol=1e-6)


def test_scans_are_larger_than_pillows_bound(tmp_path, monkeypatch, recwarn):
    """Pillow reads the header of BMPs and of JPEG's tables for us, and would warn."""
    (tmp_path / "scan.png").write_bytes(png(pixels(channels=1), size=(10_000, 20_000)))
    assert image_size(tmp_path / "scan.png") == (10_000, 20_000)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    Image.new("RGB", (60, 50), (1, 2, 3)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").rgb.shape == (50, 60, 3)
    assert Image.MAX_IMAGE_PIXELS == 100 and not recwarn.list


@pytest.mark.parametrize("kind", ["ICO", "PPM"])
def test_a_kind_that_is_not_read_names_those_that_are(tmp_path, kind):
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png", kind)
    with pytest.raises(InputError, match=r"a\.png: its content is no image that can be read \(PNG, JPEG, "):
        read_image(tmp_path / "a.png")


def test_a_file_that_may_not_be_read_says_so(tmp_path, monkeypatch):
    Image.new("RGB", (6, 5)).save(tmp_path / "a.png")

    def refuse(path, *_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError, match=r"a\.png: cannot be read \(Permission denied\)$"):
        read_image(tmp_path / "a.png")


def test_photos_of_kinds_that_are_not_read_are_counted(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("realsr.runtime.files._installed", lambda package: False)
    for name in ("a.HEIC", "b.heic", "c.NEF"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(InputError, match=r"no image \(.*\) but 2 \.heic, 1 \.nef; pip install 'realsr\[heic,raw\]'"):
        find_images(tmp_path)
    (tmp_path / "d.jpg").write_bytes(b"")
    for _ in range(3):
        assert find_images(tmp_path) == [tmp_path / "d.jpg"]
    assert caplog.text.count("left out 2 .heic, 1 .nef; pip install") == 1


def test_kinds_of_files_in_a_folder(tmp_path, caplog):
    read = ["a.jfif", "b.jpe", "c.avif", "d.gif", "e.mpo", "f.png"]
    for name in (*read, "g.jp2", "h.JP2", "i.psd", "@eaDir/f.png", "x/@eaDir/f.png/THUMB.jpg", ".thumbnails/f.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert find_images(tmp_path) == [tmp_path / name for name in read]
    assert "left out 2 .jp2, 1 .psd; save the others as PNG or TIFF" in caplog.text


def test_what_the_commands_have_written_is_no_photo(tmp_path, monkeypatch):
    names = ["a.png", "b/pools/c.png", "b/outputs.png"]
    written = ["pools/x/kernels/contact_sheet.png", "pools/y.png", "outputs/run/pictures/z.png", "quickstart/q.png"]
    for name in (*names, *written, "b/contact_sheet.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    for folder in (Path(), tmp_path, Path("b/..")):
        assert {path.resolve() for path in find_images(folder)} == {tmp_path / name for name in names}
    assert find_images("outputs/run") == [Path("outputs/run/pictures/z.png")]
    assert len(find_images("quickstart")) == 1


def test_a_broken_profile_of_a_cmyk_file_is_left_out(tmp_path):
    Image.new("CMYK", (6, 5), (10, 200, 30, 40)).save(tmp_path / "a.jpg", icc_profile=b"no profile")
    photo = read_image(tmp_path / "a.jpg")
    assert photo.rgb.shape == (5, 6, 3) and photo.icc_profile is None
