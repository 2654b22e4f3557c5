"""Photos in, photos out: names, formats, sizes, what is kept, what is skipped, bands that are written as they go."""

import _thread
import contextlib
import gc
import os
import shutil
import threading
import time
import weakref
from functools import partial

import ncnn
import numpy as np
import pytest
import torch
from conftest import nearest, save_compact
from PIL import Image, ImageCms
from torch import nn

import realsr
from realsr import Ensemble, Tiles, load_model, upscale
from realsr.imaging import Photo, read_image, to_float, write_image
from realsr.imaging.resample import imresize
from realsr.networks.tiling import upscale_tiled
from realsr.runtime.errors import InputError
from realsr.upscale import _run as run_upscale
from realsr.upscaling.backends.pytorch import TorchNetwork
from realsr.upscaling.files import upscale_file, upscale_files
from realsr.upscaling.output_paths import MADE_BY

CPU = torch.device("cpu")
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


class Odd(nn.Module):
    """A x4 network that is another one for a turned photo, and sees two pixels far."""

    scale = 4

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 48, 5, padding=2)

    def forward(self, lr):
        return nn.functional.pixel_shuffle(self.conv(lr), 4) * 0.3 + 0.5


def changed(change):
    """:class:`Odd` whose results are changed by a function of LR and SR."""

    class Changed(Odd):
        def forward(self, lr):
            return change(lr, super().forward(lr))

    return TorchNetwork(Changed(), CPU)


@pytest.fixture(scope="module")
def network():
    return TorchNetwork(Odd(), CPU)


def photo(height=30, width=41, dtype=np.uint8, **kept):
    top = np.iinfo(dtype).max
    rgb = np.random.default_rng(0).integers(0, top, (height, width, 3), dtype, endpoint=True)
    return Photo(rgb, **kept)


def expected(network, rgb, top):
    sr = network(to_float(rgb)[None])[0].clamp(0, 1).mul(top).round()
    return sr.permute(1, 2, 0).numpy()


@pytest.mark.parametrize(("dtype", "suffix"), [(np.uint8, ".png"), (np.uint16, ".png"), (np.uint16, ".tif")])
def test_a_file_is_what_the_network_makes_of_it_whole(network, tmp_path, dtype, suffix):
    image = photo(dtype=dtype)
    write_image(tmp_path / "a.png", image)
    upscale_file(tmp_path / "a.png", tmp_path / f"b{suffix}", network, tiles=Tiles(8, 2))
    result = read_image(tmp_path / f"b{suffix}").rgb
    assert result.dtype == dtype and result.shape == (120, 164, 3)
    assert np.abs(result - expected(network, image.rgb, np.iinfo(dtype).max)).max() <= 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("scale", [None, 2, 3, 1.37, 5.5])
def test_gray_and_alpha_stay_at_any_scale(network, tmp_path, dtype, scale):
    shade = photo(dtype=dtype).rgb[..., 0]
    kept = Photo(np.repeat(shade[..., None], 3, 2), np.maximum(shade[::-1], 1), True)  # nothing is hidden
    write_image(tmp_path / "a.png", kept)
    upscale_file(tmp_path / "a.png", tmp_path / "b.png", network, scale, Tiles(7, 2))
    result = read_image(tmp_path / "b.png")
    assert result.gray and result.rgb.dtype == dtype
    top, ratio = np.iinfo(dtype).max, (scale or 4) / 4
    with torch.no_grad():
        sr = network(to_float(kept.rgb)[None])[0].clamp(0, 1).mean(0, keepdim=True)
    alpha = imresize(to_float(kept.alpha[..., None]), 4).clamp(0, 1)
    for got, large in ((result.rgb[..., 0], sr), (result.alpha, alpha)):
        wanted = (imresize(large, ratio) if ratio != 1 else large).clamp(0, 1)[0].numpy() * top
        assert got.shape == wanted.shape
        assert np.abs(got - wanted).max() <= 1


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_what_transparency_hides_does_not_leak(network, tmp_path, suffix):
    """A disc whose surroundings are white, black or as itself below alpha 0 has one and the same rim."""
    y, x = np.mgrid[:40, :50]
    alpha = ((y - 20) ** 2 + (x - 25) ** 2 < 150).astype(np.uint8) * 255
    results = []
    for hidden in (0, 255, 90):
        rgb = np.where(alpha[..., None] > 0, np.uint8(90), np.uint8(hidden)).repeat(3, 2)
        write_image(tmp_path / "a.png", Photo(rgb, alpha))
        upscale_file(tmp_path / "a.png", tmp_path / f"b{suffix}", network, tiles=Tiles(16, 8), quality=100)
        results.append(read_image(tmp_path / f"b{suffix}"))
    for result in results[:2]:
        np.testing.assert_array_equal(result.alpha, results[2].alpha)
        seen = result.alpha > 0
        np.testing.assert_array_equal(result.rgb[seen], results[2].rgb[seen])


def test_profile_and_exif_are_kept_and_the_photo_is_turned_once(network, tmp_path):
    image = Image.fromarray(photo().rgb)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "A camera"
    exif.get_ifd(0x8769)[0xA002] = 41
    image.save(tmp_path / "a.jpg", exif=exif, icc_profile=PROFILE, quality=100, subsampling=0)
    for suffix in (".png", ".jpg", ".webp", ".tif"):
        upscale_file(tmp_path / "a.jpg", tmp_path / f"b{suffix}", network)
        with Image.open(tmp_path / f"b{suffix}") as result:
            assert result.size == (120, 164)
            assert result.info["icc_profile"] == PROFILE
            found = result.getexif()
            assert found.get(0x0112, 1) == 1 and found[0x010F] == "A camera"
            assert found.get_ifd(0x8769)[0xA002] == 120


def folder_of(path, *names):
    for index, name in enumerate(names):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        write_image(path / name, photo(10 + index, 12))
    return path


def test_results_that_are_there_are_skipped(network, tmp_path, caplog):
    photos = folder_of(tmp_path / "in", "a.png", "sub/b.jpg")
    make = [partial(upscale_file, model=network)]
    caplog.set_level("INFO")
    assert len(upscale_files(make, photos, tmp_path / "out")) == 2
    (tmp_path / "out" / "a.png").write_bytes(b"mine")
    (tmp_path / "out" / "sub" / "b.png").unlink()
    assert upscale_files(make, photos, tmp_path / "out") == [tmp_path / "out" / "sub" / "b.png"]
    assert (tmp_path / "out" / "a.png").read_bytes() == b"mine"
    assert "1 photo written" in caplog.text and "1 were there already" in caplog.text
    assert len(upscale_files(make, photos, tmp_path / "out", overwrite=True)) == 2
    assert read_image(tmp_path / "out" / "a.png").rgb.shape == (40, 48, 3)


@pytest.mark.parametrize(
    ("suffix", "names"), [(".webp", ["a.webp", "b.webp"]), (None, ["a.png", "b.jpg"]), (".tif", ["a.tif", "b.tif"])]
)
def test_formats_of_the_results(network, tmp_path, suffix, names):
    photos = folder_of(tmp_path / "in", "a.png", "b.jpg")
    written = upscale_files([partial(upscale_file, model=network)], photos, tmp_path / "out", suffix)
    assert [path.name for path in written] == names
    for path in written:
        with Image.open(path) as image:
            assert image.format.lower()[:3] in (path.suffix[1:], "jpe" * (path.suffix == ".jpg"), "web")


def test_quality_changes_the_size(network, tmp_path):
    photos = folder_of(tmp_path, "a.png")
    sizes = []
    for quality in (20, 95):
        upscale_file(photos / "a.png", tmp_path / "b.jpg", network, quality=quality)
        sizes.append((tmp_path / "b.jpg").stat().st_size)
    assert sizes[0] < 0.6 * sizes[1]


def test_a_single_photo_goes_to_a_file_or_a_folder(network, tmp_path):
    photos = folder_of(tmp_path / "in", "a.png")
    make = [partial(upscale_file, model=network)]
    assert upscale_files(make, photos / "a.png", tmp_path / "large.jpg") == [tmp_path / "large.jpg"]
    assert upscale_files(make, photos / "a.png", tmp_path / "out") == [tmp_path / "out" / "a.png"]
    before = (photos / "a.png").read_bytes()
    with pytest.raises(InputError, match="is the photo itself"):
        upscale_files(make, photos / "a.png", photos / "a.png", overwrite=True)
    (photos / "other.png").hardlink_to(photos / "a.png")  # as on a disk that takes capitals for small letters
    with pytest.raises(InputError, match="is the photo itself"):
        upscale_files(make, photos / "a.png", photos / "other.png", overwrite=True)
    assert (photos / "a.png").read_bytes() == before


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_nothing_is_written_outside_the_output_folder(network, tmp_path):
    photos = folder_of(tmp_path / "in", "sub/a.png", "b.png")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sub").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="leads out of"):
        upscale_files([partial(upscale_file, model=network)], photos, tmp_path / "out")
    assert not list((tmp_path / "elsewhere").iterdir())
    (tmp_path / "out" / "sub").unlink()
    (tmp_path / "precious.png").write_bytes(b"mine")
    (tmp_path / "out" / "b.png").symlink_to(tmp_path / "precious.png")
    upscale_files([partial(upscale_file, model=network)], photos, tmp_path / "out", overwrite=True)
    assert (tmp_path / "precious.png").read_bytes() == b"mine"
    assert read_image(tmp_path / "out" / "b.png").rgb.shape == (44, 48, 3)


def test_a_failing_network_is_one_line_and_leaves_no_file(tmp_path):
    def fail(lr, sr):
        if lr.shape[-1] < 10:
            raise RuntimeError("sides must be\n  multiples of 8")
        return sr

    photos = folder_of(tmp_path / "in", "a.png")
    with pytest.raises(InputError, match=r"a\.png: cannot be upscaled \(sides must be multiples of 8\)"):
        upscale_file(photos / "a.png", tmp_path / "b.png", changed(fail), tiles=Tiles(8, 0))
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda lr, sr: sr * torch.nan, "gives NaN or infinite values; take precision=32-true"),
        (lambda lr, sr: sr[..., :-4], r"gives \(1, 3, 40, 44\) of \(1, 3, 10, 12\), not \(1, 3, 40, 48\)"),
        (lambda lr, sr: sr[:, :1], r"gives \(1, 1, 40, 48\)"),
    ],
)
def test_a_network_that_gives_no_picture_is_one_line(tmp_path, answer, says):
    photos = folder_of(tmp_path / "in", "a.png")
    with pytest.raises(InputError, match=rf"a\.png: the network {says}"):
        upscale_file(photos / "a.png", tmp_path / "b.png", changed(answer))
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def to_a_full_disk(path, rows, *_):
    next(iter(rows))
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("side", ["network", "disk"])
def test_a_failure_does_not_hold_the_photo_in_memory(tmp_path, monkeypatch, side):
    """Nor wait for the collector of rings, which counts objects and not their bytes."""
    photos, seen = folder_of(tmp_path / "in", "a.png"), []

    def watched(lr, sr):
        seen.append(weakref.ref(lr))
        if side == "network":
            raise RuntimeError("no")
        return sr

    if side == "disk":
        monkeypatch.setattr("realsr.upscaling.files.write_rows", to_a_full_disk)
    gc.disable()
    try:
        with contextlib.suppress(InputError, OSError):
            upscale_file(photos / "a.png", tmp_path / "b.png", changed(watched))
        assert [ref() for ref in seen] == [None]
    finally:
        gc.enable()


def test_a_full_disk_ends_the_work_at_the_first_band(network, tmp_path, monkeypatch):
    photos = folder_of(tmp_path / "in", "a.png")
    seen = []
    monkeypatch.setattr("realsr.upscaling.files.write_rows", to_a_full_disk)
    with pytest.raises(OSError, match="No space"):
        upscale_file(photos / "a.png", tmp_path / "b.png", network, tiles=Tiles(1, 2), report=seen.append)
    assert max(seen) < 0.5  # of ten bands: one in the queue, one in the making


def test_ctrl_c_leaves_no_part_of_a_file(network, tmp_path):
    photos = folder_of(tmp_path / "in", "a.png")

    def interrupt(share):
        if share > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        upscale_file(photos / "a.png", tmp_path / "out" / "b.png", network, tiles=Tiles(1, 2), report=interrupt)
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.timeout(30)
def test_a_second_ctrl_c_while_rows_are_written_ends_both_threads(network, tmp_path, monkeypatch):
    photos = folder_of(tmp_path / "in", "a.png")
    pressed = threading.Event()
    ended = []

    def write(path, rows, *_):
        try:
            for _ in rows:
                pressed.wait(10)  # rows that take long
        finally:
            ended.append(threading.current_thread())

    def press():
        _thread.interrupt_main()
        time.sleep(0.5)
        _thread.interrupt_main()
        time.sleep(0.5)
        pressed.set()

    monkeypatch.setattr("realsr.upscaling.files.write_rows", write)
    timer = threading.Timer(0.5, press)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        upscale_file(photos / "a.png", tmp_path / "b.png", network, tiles=Tiles(1, 2))
    timer.join()
    while not ended:
        time.sleep(0.01)
    ended[0].join()


def test_several_devices_share_the_photos(network, tmp_path):
    photos = folder_of(tmp_path / "in", *(f"{index}.png" for index in range(6)), "text.png")
    (photos / "text.png").write_text("no picture")
    both, users = threading.Barrier(2, timeout=30), set()

    def make(source, target, report):
        if threading.get_ident() not in users:
            users.add(threading.get_ident())
            both.wait()  # each waits for the other: they work at the same time
        upscale_file(source, target, network, report=report)

    with pytest.raises(InputError, match=r"1 of 7 files failed.*text\.png"):
        upscale_files([make, make], photos, tmp_path / "out")
    assert len(users) == 2 and len(list((tmp_path / "out").iterdir())) == 6


def test_an_error_of_one_device_ends_the_others(network, tmp_path):
    photos = folder_of(tmp_path / "in", *(f"{index}.png" for index in range(20)))

    def broken(source, target, report):
        to_a_full_disk(target, [source])

    def slowly(source, target, report):
        time.sleep(0.1)
        upscale_file(source, target, network, report=report)

    for number, make in enumerate(([broken, slowly], [slowly, broken])):
        with pytest.raises(OSError, match="No space"):
            upscale_files(make, photos, tmp_path / f"out{number}")
        assert len(list((tmp_path / f"out{number}").glob("*.png"))) < 10


def test_the_command_with_its_options(compose, checkpoint, tmp_path, monkeypatch):
    photos = folder_of(tmp_path / "in", "a.png", "b.png")
    common = [f"ckpt={checkpoint}", f"input={photos}", "accelerator=cpu"]
    options = ["format=jpg", "scale=2", "tta=true", "devices=2", "quality=80", "tile=8", "overlap=12"]
    run_upscale(compose("upscale", *common, f"output={tmp_path / 'out'}", *options))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [MADE_BY, "a.jpg", "b.jpg"]
    assert read_image(tmp_path / "out" / "b.jpg").rgb.shape == (22, 24, 3)
    for option, says in (
        ("format=gif", "format=gif: choose same, png"),
        ("devices=1000", "devices=1000"),
        ("max_megapixels=0.0001", "max_megapixels"),
    ):
        with pytest.raises(InputError, match=says):
            run_upscale(compose("upscale", *common, f"output={tmp_path / 'other'}", option))
    monkeypatch.setattr(ncnn, "get_gpu_count", lambda: 0)
    by_vulkan = ["backend=ncnn", "accelerator=gpu", "devices=0"]  # which PyTorch knows nothing of
    with pytest.raises(InputError, match="no GPU that ncnn can use"):
        run_upscale(compose("upscale", *common, f"output={tmp_path / 'other'}", *by_vulkan))


def test_results_made_otherwise_are_no_results(compose, checkpoint, tmp_path, caplog):
    photos, out = folder_of(tmp_path / "in", "a.png", "b.png"), tmp_path / "out"
    other = save_compact(nearest((0.1, 0, 0)), tmp_path / "other.ckpt")

    def run(ckpt, *options):
        run_upscale(compose("upscale", f"ckpt={ckpt}", f"input={photos}", f"output={out}", "accelerator=cpu", *options))
        return {path.name: path.read_bytes() for path in out.glob("*.png")}

    made = run(checkpoint)
    (out / MADE_BY).open("a").write('\n{"a.png": 3}\n{"a.png": {"ck')  # as a full disk leaves it
    copy = shutil.copy(checkpoint, tmp_path / "copy.ckpt")
    assert run(copy, "tile=64", "quality=50") == made  # which are the same picture
    for ckpt, option in ((other, "tta=false"), (checkpoint, "scale=2"), (checkpoint, "tta=true")):
        with pytest.raises(InputError, match=r"out: holds 2 results that were made otherwise, with ckpt=.*model\.ckpt"):
            run(ckpt, option)
    (out / "b.png").unlink()
    with pytest.raises(InputError, match="holds 1 results that"):
        run(other)
    assert not (out / "b.png").exists()
    anew = run(other, "overwrite=true")
    assert anew["a.png"] != made["a.png"] and run(other) == anew
    (out / MADE_BY).unlink()  # results of a release before, or of another program
    assert run(checkpoint) == anew


# -- as a library ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("shape", [(3, 9, 14), (2, 3, 9, 14)])
@pytest.mark.parametrize("scale", [None, 3])
def test_tensors(network, kind, shape, scale):
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(kind)
    results = upscale(images, network, scale, Tiles(5, 2))
    wanted = network(images.float().reshape(-1, 3, 9, 14)).clamp(0, 1)
    wanted = (imresize(wanted, 0.75) if scale else wanted).clamp(0, 1).view(*shape[:-2], *results.shape[-2:])
    assert results.dtype == kind
    torch.testing.assert_close(results.float(), wanted, atol=1e-5 if kind != torch.float16 else 1e-3, rtol=0)


@pytest.mark.parametrize("wrong", [torch.zeros(3, 4, 4, dtype=torch.uint8), torch.zeros(1, 4, 4), torch.zeros(3, 0, 4)])
def test_tensors_that_are_no_images(network, wrong):
    with pytest.raises(InputError, match="is no image: give floats"):
        upscale(wrong, network)


def test_what_is_no_image_or_no_model(network, tmp_path):
    image = torch.rand(3, 5, 6)
    for wrong in (image.numpy(), None, 3, b"a.png"):
        with pytest.raises(InputError, match="is no image: give a tensor"):
            upscale(wrong, network)
    for wrong in (None, lambda lr: lr, nn.Identity(), Odd()):
        with pytest.raises(InputError, match=r"model: a .* is none; take realsr\.load_model"):
            upscale(image, wrong)
    with pytest.raises(InputError, match="the image has NaN"):
        upscale(image * torch.nan, network)
    with pytest.raises(InputError, match="has no pixels"):
        upscale(Image.new("RGB", (0, 5)), network)
    with pytest.raises(InputError, match="is no file"):
        upscale(tmp_path, network)


@pytest.mark.parametrize("gray", [False, True])
def test_a_network_that_overshoots_is_cut_off_before_the_resize(tmp_path, gray):
    network, image = changed(lambda lr, sr: sr * 6 - 2.5), photo()
    if gray:
        image = Photo(np.repeat(image.rgb[..., :1], 3, 2), gray=True)
    write_image(tmp_path / "a.png", image)
    upscale_file(tmp_path / "a.png", tmp_path / "b.png", network, 2)
    sr = network(to_float(image.rgb)[None])[0].clamp(0, 1)
    wanted = imresize(sr.mean(0, keepdim=True) if gray else sr, 0.5).clamp(0, 1) * 255
    result = read_image(tmp_path / "b.png").rgb
    assert np.abs(result - wanted.permute(1, 2, 0).numpy()).max() <= 1


@pytest.mark.parametrize("mode", ["RGB", "L", "LA", "RGBA", "P", "1", "I;16"])
def test_pillow_images_and_paths(network, tmp_path, mode):
    image = Image.fromarray(np.dstack([photo().rgb, photo().rgb[::-1, :, 0]]))
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    elif mode != "RGBA":
        image = image.convert("RGB" if mode in ("RGB", "P") else "LA" if mode == "LA" else "L").convert(mode)
    image.save(tmp_path / "a.png")
    image.info["exif"] = None  # as some programs leave it
    results = [upscale(given, network) for given in (image, tmp_path / "a.png", str(tmp_path / "a.png"))]
    assert [r.mode for r in results] == [{"P": "RGB", "1": "L", "I;16": "L"}.get(mode, mode)] * 3
    assert results[0].size == (164, 120)
    assert all(np.array_equal(results[0], r) for r in results[1:])


def test_the_package_gives_both_the_function_and_the_command(checkpoint):
    import realsr.upscale as module

    lr = torch.rand(1, 3, 8, 9)
    model = load_model(checkpoint, accelerator="cpu")
    wanted = upscale_tiled(model, lr, 4)
    for function in (upscale, realsr.upscale, module):  # the attribute is the module once that is imported
        torch.testing.assert_close(function(lr, model), wanted)
    with pytest.raises(AttributeError, match="no attribute 'upscal'"):
        realsr.upscal  # noqa: B018


def test_the_mean_of_eight_turns(network):
    lr = torch.rand(2, 3, 9, 14, generator=torch.Generator().manual_seed(0))
    answers = []
    for mirrored in (False, True):
        for quarter in range(4):
            seen = torch.rot90(lr.flip(3) if mirrored else lr, quarter, (2, 3))
            answer = torch.rot90(network(seen), -quarter, (2, 3))
            answers.append(answer.flip(3) if mirrored else answer)
    wanted = torch.stack(answers).mean(0)
    assert (wanted - answers[0]).abs().max() > 0.01
    torch.testing.assert_close(Ensemble(network)(lr), wanted)
