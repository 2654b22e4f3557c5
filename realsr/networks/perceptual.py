"""Perceptual losses: VGG19 features as in ESRGAN, or LPIPS, with a downloaded backbone or one from a file."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torchmetrics import MeanMetric

from realsr.imaging import quantize
from realsr.networks.names import find_state
from realsr.networks.weights import read_checkpoint
from realsr.runtime.errors import InputError

log = logging.getLogger(__name__)
VGG19_CONV5_4 = 34  # index of conv5_4 in torchvision's vgg19().features; the ReLU behind it is left out
BACKBONES = {"alex": "alexnet", "vgg": "vgg16", "squeeze": "squeezenet1_1"}  # of LPIPS, torchvision's names


class VGGLoss(nn.Module):
    """L1 between VGG19 conv5_4 features before the ReLU, of ImageNet-normalised images (ESRGAN, section 3.3).

    Args:
        backbone: a file with torchvision's VGG19 weights (the whole network or its ``features``); None downloads
            them into torch's cache.

    Raises:
        InputError: the weights can be neither downloaded nor read.
    """

    def __init__(self, backbone: str | None = None) -> None:
        super().__init__()
        self.features = _backbone("vgg19", backbone).features[: VGG19_CONV5_4 + 1]
        self.requires_grad_(False).eval()
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Scalar loss of two ``(N, 3, H, W)`` batches in [0, 1]; the gradient flows to ``sr`` alone."""
        with torch.no_grad():
            wanted = self.features((hr - self.mean) / self.std)
        return nn.functional.l1_loss(self.features((sr - self.mean) / self.std), wanted)


class LPIPSLoss(nn.Module):
    """Learned perceptual distance (Zhang et al., CVPR 2018) by the ``lpips`` package, as a loss or a metric.

    Args:
        net: ``alex`` (the field's metric), ``vgg`` (its loss) or ``squeeze``.
        backbone: a file with torchvision's weights of that network; None downloads them into torch's cache.

    Raises:
        InputError: the weights can be neither downloaded nor read. A random network is never used.
    """

    def __init__(self, net: str = "alex", backbone: str | None = None) -> None:
        super().__init__()
        if net not in BACKBONES:
            raise InputError(f"LPIPS has no backbone {net!r}; choose one of {', '.join(BACKBONES)}")
        import lpips

        model = _backbone(BACKBONES[net], backbone)
        # `pnet_rand` keeps lpips from downloading by itself; its random layers are all replaced below
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # lpips calls torchvision by its old arguments
            self.distance = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
        for part in self.distance.net.children():
            for index, layer in part.named_children():
                layer.load_state_dict(model.features[int(index)].state_dict())
        self.requires_grad_(False).eval()

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Mean distance of two ``(N, 3, H, W)`` batches in [0, 1], on any device; 0 for equal images."""
        device = next(self.parameters()).device
        distance: Tensor = self.distance(sr.to(device) * 2 - 1, hr.to(device) * 2 - 1)
        return distance.mean()


class LPIPSMetric(MeanMetric):
    """Mean LPIPS over images.

    >>> LPIPSMetric(lambda sr, hr: (sr - hr).abs().mean())(torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8))
    tensor(1.)

    Args:
        distance: ``LPIPSLoss.forward``; the module itself would be a submodule, and its weights in checkpoints.
    """

    def __init__(self, distance: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.distance = distance

    def update(self, sr: Tensor, hr: Tensor) -> None:  # type: ignore[override]
        """Add two ``(N, 3, H, W)`` batches in [0, 1], rounded to 8 bits, to the mean."""
        super().update(self.distance(quantize(sr), quantize(hr)).to(self.device), len(sr))


def load_lpips(net: str, backbone: str | None = None) -> LPIPSLoss | None:
    """LPIPS if its backbone can be downloaded; otherwise None, and one line in the log says why.

    Raises:
        InputError: a backbone file was given and is wrong, or ``net`` is unknown.
    """
    try:
        return LPIPSLoss(net, backbone)
    except InputError as e:
        if backbone is not None or net not in BACKBONES:
            raise
        log.warning("LPIPS by %s is left out: %s", net, e)
        return None


def _backbone(name: str, file: str | None) -> Any:
    """A torchvision classifier with its ImageNet weights."""
    with torch.device("meta"):  # no random weights: they cost seconds, and draw from the global RNG
        model = getattr(torchvision.models, name)()
    if file is None:
        weights = torchvision.models.get_model_weights(name).IMAGENET1K_V1
        try:
            model.load_state_dict(weights.get_state_dict(progress=False), assign=True)
        except (OSError, RuntimeError) as e:
            raise InputError(
                f"cannot download the {name} weights ({getattr(e, 'reason', e)}); download "
                f"{weights.url} elsewhere and put the file into {torch.hub.get_dir()}/checkpoints"
            ) from e
        return model
    state = find_state(read_checkpoint(file))
    features = {k.removeprefix("features."): v.float() for k, v in state.items() if not k.startswith("classifier.")}
    wanted = model.features.state_dict()
    wrong = [k for k, v in wanted.items() if k not in features or features[k].shape != v.shape]
    if wrong:
        raise InputError(f"{file}: is not torchvision's {name}: features.{wrong[0]} is missing or of another shape")
    model.features.load_state_dict({k: features[k] for k in wanted}, assign=True)
    return model
