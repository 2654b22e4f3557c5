"""Photos of all kinds and sizes through both estimators; only a few iterations of each."""

from functools import partial

import numpy as np
import pytest
import torch
from conftest import leaves
from PIL import Image

from realsr.estimation.estimate import estimate_kernel
from realsr.estimation.kernelgan.module import KernelGAN
from realsr.estimation.patch_matching import PatchMatching
from realsr.imaging import to_uint
from realsr.runtime.errors import InputError

QUICK = partial(PatchMatching, iterations=5, crops_per_part=1)
GAN = partial(KernelGAN, iterations=5, channels=4)
BOTH = pytest.mark.parametrize("estimator", [QUICK, GAN], ids=["patch_matching", "kernelgan"])


def run(photo, estimator=QUICK, scale=2):
    return estimate_kernel(photo, scale, estimator, "cpu")


def refused(photo, estimator=QUICK, scale=2):
    """The one line that says why."""
    with pytest.raises(InputError) as error:
        run(photo, estimator, scale)
    assert "\n" not in str(error.value)
    return str(error.value)


def same(one, other):
    assert one.kernels.keys() == other.kernels.keys()
    for scale, kernel in one.kernels.items():
        assert np.array_equal(kernel, other.kernels[scale])
    assert one.confidence == other.confidence and one.losses == other.losses


@BOTH
@pytest.mark.parametrize(("height", "width"), [(1, 1), (65, 200), (200, 64), (5, 3000)])
def test_a_small_photo(estimator, height, width):
    assert "pixels are too few" in refused(torch.rand(3, height, width), estimator)


@BOTH
@pytest.mark.parametrize(("height", "width"), [(66, 66), (67, 66), (70, 900), (901, 70), (66, 2101)])
def test_a_photo_at_the_limit_or_far_from_square(estimator, height, width):
    found = run(leaves(height, width), estimator)
    assert {2, 4} <= set(found.kernels)
    for kernel in found.kernels.values():
        assert np.isfinite(kernel).all() and kernel.sum() == pytest.approx(1)
    assert found.density.mean() == pytest.approx(1, rel=0.05)
    rows, columns = found.window
    assert rows.stop == height and columns.stop - columns.start == min(width, 2048)


@BOTH
@pytest.mark.parametrize("colour", [(0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (0.3, 0.7, 1 / 3)])
def test_a_flat_photo(estimator, colour):
    photo = torch.tensor(colour).view(3, 1, 1).expand(3, 120, 100)
    assert "no edges to estimate a kernel from" in refused(photo, estimator)


def test_a_photo_with_a_single_pixel_that_is_not_flat():
    photo = torch.full((1, 2048, 2048), 0.5)
    photo[:, 300, 150] = 0.52
    assert "hardly an edge to estimate a kernel from" in refused(photo)


def test_a_photo_that_is_clipped_but_for_a_part():
    photo = torch.ones(3, 300, 300)
    photo[:, 60:260, 40:260] = leaves(200, 220)
    found = run(photo)
    assert found.confidence > 0.5
    assert found.density[:40].max() == 0 < found.density[70:250, 50:250].mean()


@BOTH
def test_gray_is_its_colour_copy(estimator):
    gray = leaves(80, 90)[:1].contiguous()
    same(run(gray, estimator), run(gray.repeat(3, 1, 1), estimator))
    same(run(to_uint(gray), estimator), run(to_uint(gray).repeat(3, 2), estimator))


@BOTH
def test_bits_and_layout_do_not_matter(estimator):
    colour = leaves(80, 90) * torch.tensor([1.0, 0.8, 0.6]).view(3, 1, 1)
    eight = to_uint(colour)
    tensor = torch.from_numpy(eight.astype(np.float32) / 255).permute(2, 0, 1)
    expected = run(tensor, estimator)
    same(run(eight, estimator), expected)
    same(run(eight.astype(np.uint16) * 257, estimator), expected)
    same(run(np.ascontiguousarray(eight[::-1, :, ::-1])[::-1, :, ::-1], estimator), expected)
    same(run(tensor.double(), estimator), expected)
    same(run(tensor.contiguous().requires_grad_(), estimator), expected)
    read_only = eight.copy()
    read_only.setflags(write=False)
    same(run(read_only, estimator), expected)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_pixels_that_are_not_finite(value):
    photo = leaves(80, 90).contiguous()
    photo[1, 40, 50] = value
    assert refused(photo) == "the photo has NaN or infinite pixels"


@pytest.mark.parametrize(
    "photo",
    [
        torch.rand(80, 90, 3),
        torch.rand(2, 80, 90),
        torch.rand(4, 80, 90),
        torch.rand(80, 90),
        torch.rand(1, 3, 80, 90),
        torch.tensor(1.0),
        torch.rand(3, 80, 90).half(),
        torch.rand(3, 80, 90).bfloat16(),
        torch.zeros(3, 80, 90, dtype=torch.uint8),
        np.zeros((80, 90), np.uint8),
        np.zeros((3, 80, 90), np.uint8),
        np.zeros((80, 90, 4), np.uint8),
        np.zeros((80, 90, 3), np.float32),
        np.zeros((80, 90, 3), np.int64),
    ],
    ids=lambda photo: f"{photo.dtype} {tuple(photo.shape)}",
)
def test_what_is_no_photo(photo):
    line = refused(photo)
    assert line.startswith(f"{photo.dtype} of shape {tuple(photo.shape)} is no photo: give a float tensor (3, H, W)")


def test_pillows_images_are_taken():
    eight = to_uint(leaves(80, 90))
    same(run(Image.fromarray(eight)), run(eight))
    assert refused(Image.fromarray(eight).convert("L")).startswith("uint8 of shape (80, 90) is no photo")
    assert refused(None).startswith("object of shape () is no photo")


@pytest.mark.parametrize("accelerator", ["cuda", "tpu", "abc"])
def test_an_accelerator_that_is_not_there(accelerator):
    if accelerator == "cuda" and torch.cuda.is_available():
        pytest.skip("it is there")
    with pytest.raises(InputError, match=rf"^accelerator={accelerator}: [^\n]*; take cpu or auto$"):
        estimate_kernel(leaves(80, 90), 2, QUICK, accelerator)


def test_a_photo_that_does_not_end_at_one():
    assert refused(leaves(80, 90) * 255).endswith("must be in [0, 1]")
    run(leaves(80, 90) * 1.2)  # as with noise


@pytest.mark.parametrize(
    ("estimator", "scale"), [(QUICK, 5), (QUICK, 1), (GAN, 3), (partial(KernelGAN, scale=3, crop=70), 2)]
)
def test_a_scale_that_is_not_offered(estimator, scale):
    assert refused(leaves(80, 90), estimator, scale).startswith(f"scale={scale}: {estimator.func.__name__} gives")


@pytest.mark.parametrize(("estimator", "scale"), [(QUICK, 2), (QUICK, 3), (QUICK, 4), (GAN, 4)])
def test_the_kernel_is_that_of_the_scale(estimator, scale):
    found = run(leaves(80, 90), estimator, scale)
    assert found.kernel is found.kernels[scale] and found.scale == scale


@pytest.mark.parametrize("estimator", [partial(QUICK, iterations=1), QUICK, partial(GAN, iterations=30)])
def test_a_learning_rate_with_which_it_diverges(estimator):
    line = refused(leaves(80, 90), partial(estimator, learning_rate=1e6))
    assert "training diverged" in line and "lower estimator.learning_rate" in line


def test_a_large_photo_is_looked_at_where_its_edges_are():
    photo = np.full((3000, 5000, 3), 128, np.uint8)
    photo[2000:2600, 4000:4600] = np.tile(to_uint(leaves(300, 300)), (2, 2, 1))
    found = run(photo)
    rows, columns = found.window
    assert rows.stop - rows.start == columns.stop - columns.start == 2048
    assert rows.start <= 2000 and rows.stop >= 2600 and columns.start <= 4000 and columns.stop >= 4600
    assert found.density.shape == (2048, 2048)
    y, x = (axis.mean() for axis in np.nonzero(found.density))
    assert (y + rows.start, x + columns.start) == pytest.approx((2300, 4300), abs=20)
