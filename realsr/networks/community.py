"""Networks of spandrel's architectures: published ones, and those trained here."""

from __future__ import annotations

import copy
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from realsr.runtime.errors import InputError

COMMUNITY = "spandrel.architectures."  # the package of their classes
PROBE = 64  # pixels of a side; a multiple of those that any architecture asks for


def is_community(network: nn.Module) -> bool:
    """Whether a network is of one of spandrel's classes."""
    return type(network).__module__.startswith(COMMUNITY)


def scale_of(network: nn.Module) -> int:
    """The factor by which a generator enlarges: its ``scale``, which is measured for spandrel's classes.

    >>> scale_of(nn.Upsample(scale_factor=3))
    3

    Raises:
        InputError: the network cannot be computed.
    """
    if not is_community(network) and isinstance(scale := getattr(network, "scale", None), int):
        return scale
    outline = copy.deepcopy(network).to("meta")
    try:
        return int(outline(torch.zeros(1, 3, PROBE, PROBE, device="meta")).shape[-1]) // PROBE
    except RuntimeError as e:
        raise InputError(f"{type(network).__name__} computes nothing with the options that it has ({e})") from e


def untold_options(network: nn.Module) -> list[str]:
    """Options, as ``name=value``, that a spandrel network is built with and that its weights do not show to spandrel.

    Raises:
        InputError: spandrel does not recognise the architecture by its weights.
    """
    if not is_community(network):
        return []
    options: Any = network.hyperparameters
    read: Any = load_community(network.state_dict(), "what model.generator would save").network.hyperparameters
    return [f"{name}={value}" for name, value in options.items() if read.get(name) != value]


class CommunityNetwork(nn.Module):
    """A generator built by spandrel.

    Args:
        descriptor: spandrel's ``ImageModelDescriptor``.
    """

    def __init__(self, descriptor: Any) -> None:
        super().__init__()
        self.network: nn.Module = descriptor.model
        self.scale: int = descriptor.scale
        self.descriptor = descriptor

    def forward(self, lr: Tensor) -> Tensor:
        """``lr (1, 3, H, W)`` in [0, 1] to ``sr (1, 3, scale*H, scale*W)`` in [0, 1], without gradients.

        Sizes that the network does not take are padded by reflection on the right and at the bottom, and cropped again.
        """
        return self.descriptor(lr)

    def spec(self) -> dict[str, Any]:
        """``_target_``, the name under which spandrel exports the class, and the options of the network."""
        kind = type(self.network)
        package = pkgutil.resolve_name(kind.__module__.partition(".__arch")[0])
        name = next(name for name, value in vars(package).items() if value is kind)
        options: dict[str, Any] = self.network.hyperparameters  # type: ignore[assignment]
        return {"_target_": f"{package.__name__}.{name}", **options}


def load_community(content: Mapping[str, Any], path: str | Path) -> CommunityNetwork:
    """The generator of a checkpoint whose architecture spandrel recognises, in float32.

    Args:
        content: of the file, from :func:`realsr.networks.weights.read_checkpoint`.
        path: of the file, for messages.

    Raises:
        InputError: the architecture is unknown, or does something else than enlarge RGB images.
    """
    keys = ", ".join(map(str, list(content)[:2])) or "none"
    unknown = f"{path}: holds no generator of realsr, no RRDBNet and no EDSR"
    from spandrel import ImageModelDescriptor, ModelLoader, UnsupportedModelError  # two seconds

    try:
        model = ModelLoader().load_from_state_dict(dict(content))
    except UnsupportedModelError as e:
        raise InputError(f"{unknown}, nor any that spandrel knows (its keys: {keys} ...)") from e
    except Exception as e:  # weights like those of an architecture can make its reader fail in any way
        reason = " ".join(str(e).split())[:150] or type(e).__name__
        raise InputError(f"{unknown}, and spandrel cannot build it ({reason})") from e
    if odd := [key for key, value in model.model.state_dict().items() if not value.isfinite().all()]:
        raise InputError(f"{path}: its weights {odd[0]} are NaN or infinite; its training failed, or it is damaged")
    name = model.architecture.name
    if not isinstance(model, ImageModelDescriptor) or model.purpose != "SR":
        raise InputError(
            f"{path}: holds a {name} for {model.purpose.lower()}; only those that enlarge photos are taken"
        )
    if (model.input_channels, model.output_channels) != (3, 3):
        raise InputError(f"{path}: holds a {name} for {model.input_channels} channels; RGB images have 3")
    model.model.float()
    return CommunityNetwork(model)
