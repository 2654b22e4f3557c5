"""What is said before a person waits."""

import pytest
import torch

from realsr.networks.tiling import Tiles
from realsr.upscaling.files import long_wait, seconds_a_megapixel


class Network:
    """Takes its time."""

    scale, device, overlap, aligned = 2, torch.device("cpu"), 64, 1

    def __init__(self, clock):
        self.clock = clock

    def __call__(self, lr):
        self.clock[0] += 1e-4 * lr.shape[-1] * lr.shape[-2]  # 100 seconds a megapixel
        return lr.repeat_interleave(2, -1).repeat_interleave(2, -2)


def test_the_pace_is_that_of_the_network(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("realsr.upscaling.files.time.perf_counter", lambda: clock[0])
    assert seconds_a_megapixel(Network(clock)) == pytest.approx(100)
    assert clock[0] < 1  # a trial, no more


@pytest.mark.parametrize(
    ("height", "width", "says"),
    [
        (384, 384, None),  # 15 seconds
        (2448, 3672, "9.0 megapixels, about 26 min at 100 s a megapixel"),
        (9000, 12000, "108.0 megapixels, about 5.3 h at 100 s a megapixel"),
    ],
)
def test_what_takes_long_is_said_with_the_surroundings_that_tiles_see(height, width, says):
    line = long_wait(100, Network([0.0]), Tiles(), height, width)
    assert line.startswith(says) if says else not line
    assert ("the compact network" in line) == bool(says)
    assert "compact" not in long_wait(30, Network([0.0]), Tiles(), 2448, 3672)


def test_without_surroundings_it_is_the_photo_s_own_pixels():
    assert "about 15 min" in long_wait(100, Network([0.0]), Tiles(384, 0), 3000, 3000)
