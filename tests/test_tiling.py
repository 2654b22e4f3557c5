import pytest
import torch
from torch import nn

from realsr.networks.compact import CompactRRDBNet
from realsr.tiling import upscale_tiled

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


def test_output_is_clamped_float32_without_gradient():
    sr = upscale_tiled(lambda lr: (lr.double() * 4 - 2).repeat_interleave(2, 2).repeat_interleave(2, 3), LR, 2, 4)
    assert sr.dtype == torch.float32 and not sr.requires_grad
    assert sr.min() == 0 and sr.max() == 1


LR = torch.rand(1, 3, 6, 7, generator=torch.Generator().manual_seed(0))


def test_a_real_network_with_the_default_overlap():
    torch.manual_seed(0)
    network = CompactRRDBNet(8, 1, 8, 8).eval()
    nn.init.normal_(network.conv_last.weight, std=0.1)
    lr = torch.rand(1, 3, 70, 50)
    error = (upscale_tiled(network, lr, 4, tile=32) - whole(network, lr)).abs().max()
    assert error < 0.2 / 255
