"""The JPEG round trip against Pillow's (libjpeg-turbo), and the pool of the tables that headers hold."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
import torch
from conftest import scene
from PIL import Image

from realsr.imaging.jpeg import jpeg, read_compression
from realsr.pools.jpeg_tables import JpegPool, collect_tables, require_tables
from realsr.pools.pool import hold_out
from realsr.runtime.errors import InputError

# ITU-T T.81, tables K.1 and K.2, as they are printed: the first two rows
LUMA = [[16, 11, 10, 16, 24, 40, 51, 61], [12, 12, 14, 19, 26, 58, 60, 55]]
CHROMA = [[17, 18, 24, 47, 99, 99, 99, 99], [18, 21, 26, 66, 99, 99, 99, 99]]
SUBSAMPLING = {"4:4:4": (1, 1), "4:2:2": (1, 2), "4:2:0": (2, 2)}
SIZES = [(64, 96), (61, 83), (33, 32), (17, 50), (40, 23)]


def picture(height: int, width: int, seed: int = 0, gray: bool = False) -> torch.Tensor:
    """A scene with noise, in 8 bits."""
    noise = 0.03 * torch.randn(3, height, width, generator=torch.Generator().manual_seed(seed))
    image = (scene(height, width, seed) + noise).clamp(0, 1).mul(255).round().div(255)
    return image[:1].expand(3, -1, -1) if gray else image


def levels(image: torch.Tensor) -> np.ndarray:
    return image.mul(255).round().byte().permute(1, 2, 0).numpy()


def pillow(image: torch.Tensor, **options: object) -> tuple[torch.Tensor, torch.Tensor]:
    """Pillow's round trip, and the tables that it wrote."""
    file = io.BytesIO()
    picture = Image.fromarray(levels(image))
    (picture.convert("L") if options.pop("gray", False) else picture).save(file, "JPEG", **options)
    read = Image.open(file)
    tables = torch.tensor([read.quantization[0], read.quantization.get(1, read.quantization[0])]).view(1, 2, 8, 8)
    return torch.from_numpy(np.array(read.convert("RGB"))).permute(2, 0, 1).float(), tables


@pytest.mark.parametrize("kind", [*SUBSAMPLING, "gray"])
@pytest.mark.parametrize("quality", [10, 30, 50, 75, 90, 95])
def test_is_pillows_round_trip(kind, quality):
    """libjpeg's integer DCT rounds some coefficients to the other step; all else would show in the mean."""
    differences = []
    for seed, size in enumerate(SIZES):
        image = picture(*size, seed, gray=kind == "gray")
        options = {"gray": True} if kind == "gray" else {"subsampling": kind}
        theirs, tables = pillow(image, quality=quality, **options)
        ours = jpeg(image[None], tables, torch.tensor([SUBSAMPLING.get(kind, (1, 1))]))[0] * 255
        differences.append((ours - theirs).abs().flatten())
        assert (image * 255 - theirs).abs().mean() > 5 * differences[-1].mean()  # of what compression does
    difference = torch.cat(differences)
    assert difference.mean() < 0.4
    assert (difference > 2).float().mean() < 0.05


@pytest.mark.parametrize("kind", SUBSAMPLING)
def test_smooth_pictures_agree_to_a_level(kind):
    """Few coefficients, none near a half: colours, edges, averages and interpolation alone are left to differ."""
    rows, columns = np.mgrid[:45, :58] / 58
    image = torch.from_numpy(np.stack([rows, columns, 1 - rows * columns])).float()
    theirs, tables = pillow(image, qtables=[[1] * 64, [1] * 64], subsampling=kind)
    ours = jpeg(image[None], tables, torch.tensor([SUBSAMPLING[kind]]))[0] * 255
    assert (ours - theirs).abs().max() <= 3
    assert (ours - theirs).abs().mean() < 0.3


def test_each_image_has_its_own_tables_subsampling_and_phase():
    images = torch.stack([picture(32, 40, seed) for seed in range(6)])
    tables = torch.stack([pillow(images[0], quality=quality)[1][0] for quality in (20, 40, 60, 80, 90, 95)])
    subsampling = torch.tensor([(1, 1), (2, 2), (1, 2), (2, 1), (2, 2), (1, 1)])
    phase = torch.tensor([(0, 0), (3, 5), (7, 15), (9, 1), (15, 15), (6, 2)])
    batch = jpeg(images, tables, subsampling, phase)
    for i, one in enumerate(batch):
        alone = jpeg(images[i : i + 1], tables[i : i + 1], subsampling[i : i + 1], phase[i : i + 1])[0]
        assert torch.equal(one, alone)
    assert len({tuple(one.flatten().tolist()) for one in batch}) == 6


@pytest.mark.parametrize("factors", [(1, 1), (1, 2), (2, 1), (2, 2)])
def test_the_phase_moves_the_grid(factors):
    """Of a photo that is cut to start within a block, the whole blocks inside come out as they do in the photo."""
    photo, tables = picture(96, 96), pillow(picture(8, 8), quality=30)[1]
    subsampling = torch.tensor([factors])
    whole = jpeg(photo[None], tables, subsampling)
    cut = jpeg(photo[None, :, 5:87, 11:90], tables, subsampling, torch.tensor([[5, 11]]))
    inner = cut[..., 16 - 5 : 80 - 5, 16 - 11 : 80 - 11]
    reach = slice(1, -1)  # interpolation looks over the edge of a block
    torch.testing.assert_close(inner[..., reach, reach], whole[..., 16:80, 16:80][..., reach, reach])
    unaware = jpeg(photo[None, :, 5:87, 11:90], tables, subsampling)
    assert not torch.equal(unaware[..., 11:75, 5:69], inner)


@pytest.mark.parametrize("quality", [50, 90])
def test_rows_alone_subsampled_are_as_in_opencvs_files(quality):
    """4:4:0, which Pillow reads but does not write: photos on their side that were turned without loss."""
    image = picture(61, 50)
    options = [
        cv2.IMWRITE_JPEG_QUALITY,
        quality,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440,
    ]
    read = Image.open(io.BytesIO(cv2.imencode(".jpg", levels(image)[..., ::-1], options)[1].tobytes()))
    tables = torch.tensor([read.quantization[0], read.quantization[1]]).view(1, 2, 8, 8)
    assert read.layer[0][1:3] == (1, 2)
    theirs = torch.from_numpy(np.array(read)).permute(2, 0, 1)
    ours = jpeg(image[None], tables, torch.tensor([(2, 1)]))[0] * 255
    assert (ours - theirs).abs().mean() < 0.4
    assert (jpeg(image[None], tables, torch.tensor([(1, 2)]))[0] * 255 - theirs).abs().mean() > 1


def test_flat_pictures_fall_to_the_step_that_libjpeg_takes():
    """Their one coefficient often lies on the half between two steps."""
    for value in range(0, 256, 5):
        image = torch.full((3, 16, 16), value / 255)
        theirs, tables = pillow(image, quality=50, subsampling="4:4:4")
        assert torch.equal(jpeg(image[None], tables, torch.tensor([(1, 1)]))[0] * 255, theirs)


@pytest.mark.parametrize("kind", [*SUBSAMPLING, "gray"])
def test_headers_give_tables_in_natural_order(tmp_path, kind):
    options = {} if kind == "gray" else {"subsampling": kind}
    Image.new("RGB" if options else "L", (20, 30)).save(tmp_path / "a.jpg", quality=50, **options)
    compression = read_compression(tmp_path / "a.jpg")
    assert compression.subsampling == SUBSAMPLING.get(kind, (1, 1))
    assert compression.tables[:, :2].tolist() == [LUMA, CHROMA if options else LUMA]  # a gray file has one table


def test_a_portrait_photo_has_its_tables_turned(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 30)).save(tmp_path / "a.jpg", quality=50, subsampling="4:2:2", exif=exif)
    compression = read_compression(tmp_path / "a.jpg")
    assert compression.subsampling == (2, 1)
    assert compression.tables[:, :, :2].transpose(0, 2, 1).tolist() == [LUMA, CHROMA]


def test_the_header_is_enough(tmp_path):
    file = io.BytesIO()
    Image.fromarray(levels(picture(64, 64))).save(file, "JPEG", quality=50)
    (tmp_path / "cut.jpg").write_bytes(file.getvalue()[:700])  # the pixels are missing
    assert read_compression(tmp_path / "cut.jpg").tables[0, 0].tolist() == LUMA[0]


@pytest.mark.parametrize(
    ("name", "mode", "says"),
    [("a.png", "RGB", "no JPEG file but PNG"), ("cmyk.jpg", "CMYK", "JPEG file of CMYK")],
)
def test_files_without_tables_for_luma_and_chroma_say_so(tmp_path, name, mode, says):
    Image.new(mode, (20, 30)).save(tmp_path / name)
    with pytest.raises(InputError, match=rf"{name}: .*{says}"):
        read_compression(tmp_path / name)


def test_rgb_and_damaged_files_say_so(tmp_path):
    """Adobe's marker says that the three channels are not transformed."""
    Image.new("RGB", (20, 30)).save(tmp_path / "rgb.jpg")
    start, rest = (tmp_path / "rgb.jpg").read_bytes()[:2], (tmp_path / "rgb.jpg").read_bytes()[2:]
    (tmp_path / "rgb.jpg").write_bytes(start + b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00" + rest)
    with pytest.raises(InputError, match=r"rgb\.jpg: is a JPEG file of RGB"):
        read_compression(tmp_path / "rgb.jpg")
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(InputError, match=r"bad\.jpg"):
        read_compression(tmp_path / "bad.jpg")


@pytest.fixture
def photos(tmp_path):
    """Three JPEG photos of different qualities and a PNG."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for index, quality in enumerate((40, 60, 80)):
        image = Image.fromarray(levels(picture(40, 48, index)))
        image.save(folder / f"{index}.jpg", quality=quality, subsampling=index)
    image.save(folder / "3.png")
    return sorted(folder.iterdir())


def test_the_pool_holds_every_jpeg_photo(photos, tmp_path, caplog):
    caplog.set_level("INFO")
    assert collect_tables(photos, tmp_path / "jpeg") == 3
    assert "3 of 4 photos" in caplog.text
    pool = JpegPool.load(tmp_path / "jpeg")
    assert pool.photos == ["0.jpg", "1.jpg", "2.jpg"]
    assert pool.subsampling.tolist() == [[1, 1], [1, 2], [2, 2]]
    for photo, tables in zip(photos, pool.tables, strict=False):
        with Image.open(photo) as image:
            assert tables.flatten(1).tolist() == [image.quantization[0], image.quantization[1]]
    assert len(list((tmp_path / "jpeg").iterdir())) == 3
    written = [path.stat().st_mtime_ns for path in (tmp_path / "jpeg").iterdir()]
    collect_tables(photos, tmp_path / "jpeg")
    assert [path.stat().st_mtime_ns for path in (tmp_path / "jpeg").iterdir()] == written


def test_a_folder_without_jpeg_says_what_to_do(photos, tmp_path):
    with pytest.raises(
        InputError, match=r"none of 1 photos is a JPEG file.*without jpeg.*data.pools.jpeg_dir="
    ) as error:
        require_tables(photos[3:], tmp_path / "jpeg")
    assert "\n" not in str(error.value)
    require_tables(photos[:3], tmp_path / "jpeg")
    require_tables(photos[3:], tmp_path / "jpeg")  # a pool of other files will do
    assert len(JpegPool.load(tmp_path / "jpeg")) == 3


@pytest.mark.parametrize(
    "arrays",
    [{"tiles": np.zeros((1, 4, 4, 3), np.uint8)}, {"tables": np.full((2, 8, 8), np.inf), "subsampling": [2, 2]}],
)
def test_files_of_another_pool_are_named(tmp_path, arrays):
    with pytest.raises(InputError, match="JPEG pool does not exist"):
        JpegPool.load(tmp_path / "none")
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(InputError, match=r"a\.npz: is no JPEG pool file"):
        JpegPool.load(tmp_path)


def test_draws_are_of_the_generator_alone(photos, tmp_path):
    collect_tables(photos, tmp_path / "jpeg")
    pool = JpegPool.load(tmp_path / "jpeg")
    one, again = (pool.sample(400, torch.Generator().manual_seed(1), cut=True) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    _, counts = one[0].unique(dim=0, return_counts=True)
    assert len(counts) == 3
    assert counts.min() > 90  # of 133 expected
    assert {tuple(phase) for phase in one[2].tolist()} <= {(y, x) for y in range(16) for x in range(16)}
    assert one[2].unique(dim=0).shape[0] > 150
    assert pool.sample(4, torch.Generator(), cut=False)[2] is None


def test_held_out_photos_keep_their_tables_to_themselves(photos, tmp_path):
    collect_tables(photos, tmp_path / "jpeg")
    train, held = hold_out(JpegPool.load(tmp_path / "jpeg"), 0.1, 0)
    assert len(train) == 2
    assert len(held) == 1
    assert not (train.tables == held.tables).flatten(1).all(1).any()
