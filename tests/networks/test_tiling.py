from types import SimpleNamespace

import pytest
import torch
from torch import nn

from realsr.networks.rrdb import RRDBNet
from realsr.networks.tiling import BYTES_PER_PIXEL, Tiles, upscale_bands, upscale_tiled
from realsr.runtime.errors import InputError
from realsr.runtime.hardware import free_memory, is_out_of_memory

REACH = 3  # LR pixels to each side that three 3x3 convolutions see


@pytest.fixture(scope="module")
def networks():
    """Two x4 networks whose receptive field is known."""
    torch.manual_seed(0)
    trunk = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()]
    shuffle = nn.Sequential(*trunk, nn.Conv2d(8, 48, 3, padding=1), nn.PixelShuffle(4), nn.Sigmoid())
    nearest = nn.Sequential(*trunk, nn.Conv2d(8, 3, 3, padding=1), nn.Upsample(scale_factor=4), nn.Sigmoid())
    return {"shuffle": shuffle.eval(), "nearest": nearest.eval()}


def whole(network, lr):
    with torch.no_grad():
        return network(lr).clamp(0, 1)


@pytest.mark.parametrize("name", ["shuffle", "nearest"])
@pytest.mark.parametrize("tile", [0, 1, 5, 8, 16, 17, 23, 24, 100])
def test_tiles_make_up_the_whole_image(networks, name, tile):
    lr = torch.rand(1, 3, 17, 24)
    sr = upscale_tiled(networks[name], lr, 4, tile, overlap=REACH)
    assert sr.shape == (1, 3, 68, 96)
    torch.testing.assert_close(sr, whole(networks[name], lr), atol=1e-5, rtol=0)


@pytest.mark.parametrize("overlap", [0, REACH - 1])
def test_too_small_an_overlap_shows_at_the_seams_only(networks, overlap):
    lr = torch.rand(1, 3, 16, 16)
    error = (upscale_tiled(networks["shuffle"], lr, 4, 8, overlap) - whole(networks["shuffle"], lr)).abs().amax((0, 1))
    reach = 4 * REACH
    seam = torch.zeros(64, 64, dtype=torch.bool)
    seam[32 - reach : 32 + reach, :] = seam[:, 32 - reach : 32 + reach] = True
    assert error[seam].max() > 1e-4
    assert error[~seam].max() < 1e-5


@pytest.mark.parametrize("height, width", [(1, 1), (1, 9), (9, 1), (3, 40)])
def test_thin_images(networks, height, width):
    lr = torch.rand(1, 3, height, width)
    sr = upscale_tiled(networks["shuffle"], lr, 4, tile=4, overlap=REACH)
    torch.testing.assert_close(sr, whole(networks["shuffle"], lr), atol=1e-5, rtol=0)


@pytest.mark.parametrize("tile, largest", [(8, 8 + 2 * REACH), (0, 40)])
def test_the_network_never_sees_more_than_a_tile_and_its_surroundings(networks, tile, largest):
    seen = []

    def network(lr):
        seen.append(max(lr.shape[-2:]))
        return networks["nearest"](lr)

    upscale_tiled(network, torch.rand(1, 3, 30, 40), 4, tile, REACH)
    assert max(seen) == largest


@pytest.mark.parametrize(("width", "calls"), [(8, 1), (14, 1), (15, 2)])
def test_what_is_no_larger_than_a_tile_with_its_surroundings_stays_whole(networks, width, calls):
    network = Scarce(networks["shuffle"], 10**9)
    sr = upscale_tiled(network, lr := torch.rand(1, 3, 14, width), 4, 8, REACH)
    assert len(network.calls) == calls
    assert max(side for call in network.calls for side in call[2:]) <= 8 + 2 * REACH
    torch.testing.assert_close(sr, whole(networks["shuffle"], lr), atol=1e-5, rtol=0)


def test_output_is_clamped_float32_without_gradient():
    sr = upscale_tiled(lambda lr: (lr.double() * 4 - 2).repeat_interleave(2, 2).repeat_interleave(2, 3), LR, 2, 4)
    assert sr.dtype == torch.float32 and not sr.requires_grad
    assert sr.min() == 0 and sr.max() == 1


LR = torch.rand(1, 3, 6, 7, generator=torch.Generator().manual_seed(0))


def test_a_real_network_with_the_default_overlap():
    torch.manual_seed(0)
    network = RRDBNet(8, 1, 8).eval()
    lr = torch.rand(1, 3, 20, 300)
    error = (upscale_tiled(network, lr, 4, tile=32) - whole(network, lr)).abs().max()
    assert error < 0.2 / 255


class Scarce:
    """A network on a device that holds so many LR pixels at once."""

    def __init__(self, network, pixels):
        self.network, self.pixels, self.calls = network, pixels, []

    def __call__(self, lr):
        self.calls.append(tuple(lr.shape))
        if lr.shape[0] * lr.shape[2] * lr.shape[3] > self.pixels:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return self.network(lr)


def bands(network, lr, tiles):
    def read(rows, columns):
        return lr[0, :, rows, columns]

    return list(upscale_bands(network, read, *lr.shape[-2:], 4, tiles, lr.device))


def test_bands_come_top_to_bottom_as_wide_as_the_image(networks):
    lr = torch.rand(1, 3, 50, 40)
    pieces = bands(networks["shuffle"], lr, Tiles(20, REACH))
    assert [tuple(piece.shape) for piece in pieces] == [(3, 68, 160), (3, 68, 160), (3, 64, 160)]
    torch.testing.assert_close(torch.cat(pieces, 1)[None], whole(networks["shuffle"], lr), atol=1e-5, rtol=0)


def test_tiles_of_one_size_go_through_together(networks):
    network = Scarce(networks["shuffle"], 10**9)
    lr = torch.rand(1, 3, 16, 160)
    pieces = bands(network, lr, Tiles(16, REACH, batch=4))
    assert [call[0] for call in network.calls] == [1, 4, 4, 1]  # those at the ends see less
    torch.testing.assert_close(torch.cat(pieces, 1)[None], whole(networks["shuffle"], lr), atol=1e-5, rtol=0)


@pytest.mark.parametrize("pixels", [5 * 38 * 38, 38 * 38, 1000, 600])
def test_less_memory_means_fewer_tiles_then_smaller_ones(networks, pixels):
    network = Scarce(networks["shuffle"], pixels)
    lr = torch.rand(1, 3, 70, 260)
    pieces = bands(network, lr, Tiles(32, REACH, batch=8))
    torch.testing.assert_close(torch.cat(pieces, 1)[None], whole(networks["shuffle"], lr), atol=1e-5, rtol=0)
    fails = sum(n * h * w > pixels for n, _, h, w in network.calls)
    assert 0 < fails <= 4  # what does not fit is not tried at every tile


def test_no_memory_for_the_smallest_tile_is_one_line(networks):
    with pytest.raises(InputError, match="no memory for a tile of 16 pixels"):
        bands(Scarce(networks["shuffle"], 100), torch.rand(1, 3, 64, 64), Tiles(64, REACH))


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    calls = []

    def network(lr):
        calls.append(lr)
        raise RuntimeError("sizes do not match")

    with pytest.raises(RuntimeError, match="sizes do not match"):
        bands(network, torch.rand(1, 3, 64, 64), Tiles(32))
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("free", "tile"), [(10**12, 384), (2 * BYTES_PER_PIXEL * 512**2, 384), (10**9, 76), (1, 32), (0, 32)]
)
def test_tiles_fit_into_free_memory(monkeypatch, free, tile):
    monkeypatch.setattr("realsr.networks.tiling.free_memory", lambda device: free)
    assert Tiles().fitted(None, 1000, 1000, torch.device("cpu")) == Tiles(tile, 64, 1)
    assert Tiles(0).fitted(None, 1000, 900, torch.device("cpu")).tile == 1000  # asked for: the image whole
    gpu = Tiles().fitted(None, 1000, 1000, torch.device("cuda"))
    assert gpu.batch == min(max(free // 2 // BYTES_PER_PIXEL // (gpu.tile + 128) ** 2, 1), 16)


def test_a_network_that_takes_more_memory_gets_smaller_tiles(monkeypatch):
    monkeypatch.setattr("realsr.networks.tiling.free_memory", lambda device: 2 * BYTES_PER_PIXEL * 512**2)
    network = SimpleNamespace(overlap=64, bytes_per_pixel=4 * BYTES_PER_PIXEL)
    assert Tiles().fitted(network, 1000, 1000, torch.device("cpu")).tile == 256 - 2 * 64


def test_free_memory_is_what_the_system_says():
    free = free_memory(torch.device("cpu"))
    assert free is None or 10**6 < free < 10**14
    assert is_out_of_memory(MemoryError()) and is_out_of_memory(torch.cuda.OutOfMemoryError("no"))
    assert is_out_of_memory(RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"))
    assert not is_out_of_memory(ValueError("out of memory")) and not is_out_of_memory(RuntimeError("no such op"))
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize(("used", "free"), [(600_000_000, 3_900_000_000), (3_900_000_000, 600_000_000)])
def test_what_a_container_holds_of_files_is_free(monkeypatch, used, free):
    files = {
        "/proc/meminfo": "MemTotal: 9000000 kB\nMemAvailable: 8000000 kB\n",
        "/sys/fs/cgroup/memory.max": "4000000000\n",
        "/sys/fs/cgroup/memory.current": f"{used}\n",
        "/sys/fs/cgroup/memory.stat": "file 9\ninactive_anon 7\ninactive_file 300000000\nactive_file 200000000\n",
    }
    monkeypatch.setattr("realsr.runtime.hardware._text", files.__getitem__)
    assert free_memory(torch.device("cpu")) == free
    files["/sys/fs/cgroup/memory.max"] = "max\n"
    assert free_memory(torch.device("cpu")) == 8_192_000_000


@pytest.mark.parametrize("wrong", [{"tile": -1}, {"overlap": -2}, {"batch": 1.5}, {"tile": True}])
def test_sizes_of_tiles_are_whole_numbers(wrong):
    with pytest.raises(InputError, match=r"give (0|-1) or more"):
        Tiles(**wrong)
