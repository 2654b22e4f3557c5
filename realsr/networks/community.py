"""Published networks of other architectures through spandrel, an extra: to be compared with and used, not trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from realsr.errors import InputError


class CommunityNetwork(nn.Module):
    """A generator that spandrel has built.

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

        Sizes that the network does not take are padded, by reflection on the right and at the bottom, and cut again.
        """
        return self.descriptor(lr)


def load_community(content: Mapping[str, Any], path: str | Path) -> CommunityNetwork:
    """The generator of a checkpoint whose architecture spandrel recognises, in float32.

    Args:
        content: of the file, read without running code (:func:`realsr.networks.weights.read_checkpoint`).
        path: of the file, for messages.

    Raises:
        InputError: no architecture that is known, one that does something else than to enlarge RGB images, or spandrel
            is not installed.
    """
    keys = ", ".join(map(str, list(content)[:2])) or "none"
    unknown = f"{path}: holds no generator of realsr, no RRDBNet and no EDSR"
    try:
        from spandrel import ImageModelDescriptor, ModelLoader, UnsupportedModelError
    except ImportError as e:
        hint = "other published ones are opened after pip install -e '.[community]'"
        raise InputError(f"{unknown} (its keys: {keys} ...); {hint}") from e
    try:
        model = ModelLoader().load_from_state_dict(dict(content))
    except UnsupportedModelError as e:
        raise InputError(f"{unknown}, nor any that spandrel knows (its keys: {keys} ...)") from e
    except Exception as e:  # weights that only look like those of an architecture can trip its reader in any way
        reason = " ".join(str(e).split())[:150] or type(e).__name__
        raise InputError(f"{unknown}, and spandrel cannot build it ({reason})") from e
    name = model.architecture.name
    if not isinstance(model, ImageModelDescriptor) or model.purpose != "SR":
        raise InputError(
            f"{path}: holds a {name} for {model.purpose.lower()}; only those that enlarge photos are taken"
        )
    if (model.input_channels, model.output_channels) != (3, 3):
        raise InputError(f"{path}: holds a {name} for {model.input_channels} channels; RGB images have 3")
    model.model.float()
    return CommunityNetwork(model)
