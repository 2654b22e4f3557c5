import pytest
import torch

from realsr.networks.rrdb import RRDBNet


def test_full_network_has_every_published_key_and_shape(golden):
    published = golden("rrdbnet_x4_official_keys.json")
    with torch.device("meta"):
        network = RRDBNet()
    renamed = RRDBNet.our_names({key: torch.empty(shape, device="meta") for key, shape in published.items()})
    assert len(renamed) == len(published)
    assert {k: v.shape for k, v in renamed.items()} == {k: v.shape for k, v in network.state_dict().items()}
    assert sum(p.numel() for p in network.parameters()) == 16_697_987


def test_dense_convolutions_start_at_a_tenth_of_hes_initialisation():
    torch.manual_seed(0)
    for conv in RRDBNet(32, 1, 16).body[0].rdb2.children():
        assert conv.weight.std().item() == pytest.approx(0.1 * (2 / (9 * conv.in_channels)) ** 0.5, rel=0.05)
        assert not conv.bias.any()


@pytest.mark.parametrize("strip", [1, 3, 7, 32])
def test_strips_make_up_what_is_enlarged_at_once(strip):
    torch.manual_seed(0)
    network = RRDBNet(8, 1, 4)
    for weight in network.parameters():
        torch.nn.init.normal_(weight, 0, 0.15)
    lr = torch.rand(2, 3, 17, 5)
    with torch.no_grad():
        whole = network(lr)
        network.strip = strip
        strips = network(lr)
    assert whole.std() > 0.1
    torch.testing.assert_close(strips, whole, atol=1e-5, rtol=1e-5)
