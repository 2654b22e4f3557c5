"""What networks ask of tiles: how far they look, and on what grid tiles have to start."""

import onnx
import pytest
import torch
from spandrel.architectures.Compact import Compact
from spandrel.architectures.SwinIR import SwinIR
from torch import nn

from realsr import load_model
from realsr.networks.edsr import EDSR
from realsr.networks.onnx_graph import onnx_graph
from realsr.networks.rrdb import RRDBNet
from realsr.networks.sizes import MOST_OVERLAP, Sizes, padded, sizes_of
from realsr.networks.tiling import Tiles, upscale_bands
from realsr.networks.weights import load_generator


def changed(network, side):
    """LR pixels around the middle in which the result changes when one pixel does."""
    torch.manual_seed(0)
    lr = torch.rand(1, 3, side, side)
    other = lr.clone()
    other[..., side // 2, side // 2] = 5
    with torch.no_grad():
        rows = (network(other) != network(lr)).any(dim=(0, 1, 3)).nonzero() // network.scale
    return int(max(side // 2 - rows.min(), rows.max() - side // 2))


def test_networks_of_convolutions_look_as_far_as_is_said(tmp_path):
    torch.manual_seed(0)
    torch.save(Compact(num_feat=4, num_conv=3, upscale=2).state_dict(), tmp_path / "net.pth")
    compact, edsr = load_generator(tmp_path / "net.pth"), EDSR(4, 2, 1.0).eval()
    assert sizes_of(compact) == Sizes(5, 1, 1, 1)
    assert changed(compact, 31) == 5
    assert changed(edsr, 31) <= sizes_of(edsr).overlap < changed(edsr, 31) + 3  # some see pixels that are smaller
    assert sizes_of(RRDBNet(4, 23, 4)).overlap == MOST_OVERLAP


class Unshuffled(RRDBNet):
    """Real-ESRGAN's network for x2, which reads squares of four pixels as channels."""

    def __init__(self):
        super().__init__(8, 1, 32)
        self.conv_first = nn.Conv2d(12, 8, 3, padding=1)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """That network, as a checkpoint, as ONNX of ours, and as ONNX that says nothing of sizes."""
    torch.manual_seed(0)
    folder, network = tmp_path_factory.mktemp("x2"), Unshuffled()
    for weight in network.parameters():
        weight.data = torch.randn(weight.shape) * (weight[0].numel() ** -0.5 if weight.ndim == 4 else 0.1)
    network.conv_last.weight.data *= 3
    network.conv_last.bias.data += 0.5
    torch.save({"params_ema": network.state_dict()}, folder / "net.pth")
    graph = onnx.load_from_string(onnx_graph(load_generator(folder / "net.pth")))
    onnx.save(graph, folder / "ours.onnx")
    del graph.metadata_props[:]
    onnx.save(graph, folder / "foreign.onnx")
    return folder


@pytest.mark.parametrize(
    ("name", "overlap", "aligned"), [("net.pth", 42, 4), ("ours.onnx", 42, 4), ("foreign.onnx", 42, 16)]
)
def test_tiles_start_where_squares_of_pixels_do(files, name, overlap, aligned):
    """Tiles of 770x514 differed by 124 levels from the whole."""
    network = load_model(files / name)
    assert (network.scale, network.aligned) == (2, aligned)
    lr = torch.rand(3, 53, 139, generator=torch.Generator().manual_seed(0))
    bands = upscale_bands(
        network, lambda rows, columns: lr[:, rows, columns], 53, 139, 2, Tiles(25, overlap), network.device
    )
    whole = network(lr[None])[0]
    assert whole.shape == (3, 106, 278)
    assert whole.clamp(0, 1).std() > 0.1
    torch.testing.assert_close(torch.cat(list(bands), 1), whole.clamp(0, 1), atol=1e-4, rtol=0)
    if name == "ours.onnx":  # spandrel pads to four pixels, where two would do
        torch.testing.assert_close(whole.clamp(0, 1), load_model(files / "net.pth")(lr[None])[0], atol=1e-4, rtol=0)


def test_windows_are_kept_whole(tmp_path):
    torch.manual_seed(0)
    network = SwinIR(
        img_size=16, embed_dim=12, depths=[2], num_heads=[2], window_size=8, upscale=2, upsampler="pixelshuffle"
    )
    torch.save(network.state_dict(), tmp_path / "net.pth")
    sizes = sizes_of(load_generator(tmp_path / "net.pth"))
    assert (sizes.aligned, sizes.minimum) == (8, 16)


@pytest.mark.parametrize(("side", "wanted"), [(1, 8), (3, 8), (7, 8), (8, 8), (9, 12)])
def test_images_are_padded_by_reflection(side, wanted):
    lr = torch.rand(1, 3, side, 8)
    result = padded(lr, Sizes(0, 1, 4, 8))
    assert result.shape == (1, 3, wanted, 8)
    assert torch.equal(result[:, :, :side], lr)
    if wanted < 2 * side:
        assert torch.equal(result, nn.functional.pad(lr, (0, 0, 0, wanted - side), "reflect"))
    assert padded(lr, Sizes(0, 1, 1, 1)) is lr
