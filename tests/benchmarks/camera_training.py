"""Short trainings of bench_camera.py: a network goes on with LR of any making, and is measured on test photos."""

import copy
import time

import numpy as np
import torch
import torch.nn.functional as F
from spandrel.architectures.Compact import Compact
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from realsr.imaging import to_float, to_uint
from realsr.imaging.metrics import image_metrics
from realsr.imaging.resample import imresize
from realsr.networks.community import CommunityNetwork
from realsr.networks.weights import load_generator
from realsr.reports.pictures import grid, sharpest_crop
from realsr.training.losses import by_place, pattern_loss

CROPS, SIDE = 4, 128  # of a step: HR crops, and their side in pixels
MEASURED = 192  # LR pixels of a test photo's side, from its middle, that count


def start_network(file, seed=0):
    """The network of a file, with gradients; without a file a compact one with random weights."""
    torch.manual_seed(seed)
    network = Compact() if file is None else load_generator(file)
    network = network.network if isinstance(network, CommunityNetwork) else network
    return network.requires_grad_()


def crops_by(degradation, scenes, side=SIDE, crops=CROPS):
    """``draw(generator) -> lr, hr``: crops of clean scenes ``(H, W, 3)`` uint8, LR made by a degradation."""
    margin = degradation.margin

    def draw(generator):
        hr = torch.stack([_crop(_any(scenes, generator), side + 2 * margin, 1, generator)[0] for _ in range(crops)])
        return degradation(hr, generator, margin), hr[..., margin : margin + side, margin : margin + side]

    return draw


def crops_of(shots, scale):
    """``draw(generator) -> lr, hr``: crops of a camera's photos and of what they show, pairs of ``(H, W, 3)`` uint8."""

    def draw(generator):
        pairs = []
        for _ in range(CROPS):
            lr, hr = _any(shots, generator)
            large, (y, x) = _crop(hr, SIDE, scale, generator)
            y, x, side = y // scale, x // scale, SIDE // scale
            pairs.append((to_float(lr[y : y + side, x : x + side]), large))
        return tuple(torch.stack(side) for side in zip(*pairs, strict=True))

    return draw


def _any(items, generator):
    return items[int(torch.randint(len(items), (1,), generator=generator))]


def _crop(picture, side, step, generator):
    """A crop in [0, 1] at a random multiple of ``step``, and where it is."""
    y, x = (step * int(torch.randint((n - side) // step + 1, (1,), generator=generator)) for n in picture.shape[:2])
    return to_float(np.ascontiguousarray(picture[y : y + side, x : x + side])), (y, x)


def adapt(network, draw, minutes=None, steps=None, lpips=None, rate=1e-4, seed=0, weight=0.1, pattern=0):
    """A copy of the network after so many CPU minutes or steps, whichever end first, and how many steps it had.

    Adam, whose rate falls to zero in the second half; L1, ``weight`` LPIPS if given, and ``pattern`` times the
    loss against patterns of four pixels; the weights' moving average.
    """
    network = copy.deepcopy(network).train()
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.99))
    optimizer = torch.optim.Adam(network.parameters(), rate)
    generator, began, done = torch.Generator().manual_seed(seed), time.process_time(), 0
    while (spent := max((time.process_time() - began) / (60 * (minutes or 1e9)), done / (steps or 1e9))) < 1:
        optimizer.param_groups[0]["lr"] = rate * min(1, 2 - 2 * spent)
        lr, hr = draw(generator)
        sr = network(lr)
        loss = F.l1_loss(sr, hr) + (0 if lpips is None else weight * lpips(sr, hr))
        if pattern:
            loss = loss + pattern * pattern_loss(sr, hr, hr.shape[-1] // lr.shape[-1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        average.update_parameters(network)
        done += 1
    return average.module.eval(), done


def bicubic(lr, scale):
    return imresize(lr, scale)


@torch.inference_mode()
def enlarged(method, tests):
    """``{name: (h, w, 3) uint8}`` of the test photos' middles, ``{name: (lr, hr)}``."""
    return {name: to_uint(method(to_float(lr)[None])[0].clamp(0, 1)) for name, (lr, hr) in tests.items()}


def middles(tests, scale):
    """The part of each pair that is measured."""
    cut = {}
    for name, (lr, hr) in tests.items():
        y, x = (max(n - MEASURED, 0) // 2 for n in lr.shape[:2])
        small = np.ascontiguousarray(lr[y : y + MEASURED, x : x + MEASURED])
        rows, columns = (slice(scale * at, scale * (at + n)) for at, n in zip((y, x), small.shape[:2], strict=True))
        cut[name] = small, np.ascontiguousarray(hr[rows, columns])
    return cut


def scores(pictures, tests, scale, lpips):
    """Mean of the metrics over the test photos, and of the mesh."""
    rows = []
    for name, (_, hr) in tests.items():
        made = to_float(pictures[name])[None]
        rows.append({**image_metrics(made, to_float(hr)[None], scale, lpips), "mesh": mesh(made, scale)})
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}


def mesh(picture, scale):
    """How strong a pattern of ``scale`` pixels lies all over ``(1, 3, H, W)``, in levels: none where HR has none."""
    return 255 * float(by_place(picture, scale).mean((2, 3)).std())


def sheet_row(label, pictures, tests, number, side=224):
    """Crops of one test photo, where it is sharpest, by all methods and as it is, with their labels."""
    name = sorted(tests)[number % len(tests)]
    hr = tests[name][1]
    y, x = sharpest_crop(hr, side)
    cells = {**{method: made[name] for method, made in pictures.items()}, "HR": hr}
    return [cell[y : y + side, x : x + side] for cell in cells.values()], [f"{label} {method}" for method in cells]


def sheet(rows):
    return grid([cells for cells, _ in rows], [labels for _, labels in rows])
