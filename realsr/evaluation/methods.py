"""The methods that an evaluation compares: bicubic, zero-shot learning on the photo itself, networks from files."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor

from realsr.estimation.estimate import Estimator, estimate_kernel
from realsr.estimation.kernels import Kernel
from realsr.evaluation.zssr import ZSSR, check_zero_shot_scale, zero_shot
from realsr.imaging.resample import imresize
from realsr.networks.tiling import TILE, upscale_tiled
from realsr.networks.weights import checkpoint_file, read_checkpoint
from realsr.pools.estimate import plain_settings
from realsr.runtime.errors import InputError
from realsr.runtime.files import file_hash
from realsr.runtime.hardware import pick_device
from realsr.upscaling.backends import Accelerator, load_model
from realsr.upscaling.library import clamp_finite

log = logging.getLogger(__name__)

WITHOUT_FILE = ("bicubic", "zssr", "k_zssr")
COMPARE = "compare"  # a folder beside those of the methods
RESERVED = (*WITHOUT_FILE, COMPARE, "report.html", "table.md", "images.csv", "metrics.json")


class Enlarged(NamedTuple):
    """A method's result: ``(3, s*H, s*W)`` in [0, 1] on the CPU, and the photo's kernel where it is estimated."""

    sr: Tensor
    kernel: Kernel | None = None


@dataclass(frozen=True)
class Method:
    """A method that enlarges photos.

    Attributes:
        name: in tables, and of the folder of its results.
        run: enlarges ``(3, H, W)`` in [0, 1] on the CPU.
        made_by: all that the result depends on besides the photo and the version of realsr, as plain values.
        checkpoint: what its file says of its training, without tensors.
    """

    name: str
    run: Callable[[Tensor], Enlarged]
    made_by: Mapping[str, Any]
    checkpoint: Mapping[str, Any] = field(default_factory=dict)


def bicubic(scale: int) -> Method:
    """The baseline.

    >>> import torch
    >>> bicubic(4).run(torch.rand(3, 8, 6)).sr.shape
    torch.Size([3, 32, 24])
    """
    made_by = {"method": "bicubic", "scale": scale}
    return Method("bicubic", lambda lr: Enlarged(imresize(lr, scale).clamp(0, 1)), made_by)


def network(
    name: str,
    path: str | Path,
    scale: int,
    ema: bool = True,
    tile: int = TILE,
    overlap: int = -1,
    keep_colours: bool = False,
    accelerator: Accelerator = "cpu",
) -> Method:
    """A generator from a file; raises InputError if it holds none, or one of another scale.

    See :func:`realsr.upscaling.backends.load_model` and :mod:`realsr.networks.tiling`.
    """
    path = checkpoint_file(path)
    model = load_model(path, accelerator=accelerator, ema=ema)
    content = {} if path.suffix.lower() == ".onnx" else read_checkpoint(path)
    if model.scale != scale:
        raise InputError(f"{path}: enlarges by {model.scale}, not by {scale}; give scale={model.scale}")

    def run(lr: Tensor) -> Enlarged:
        try:
            sr = upscale_tiled(model, lr[None].to(model.device), scale, tile, overlap, keep_colours)[0]
            return Enlarged(clamp_finite(sr))
        except (RuntimeError, MemoryError) as e:  # no memory; a community's network that does not take such a size
            reason = " ".join(str(e).split())[:150] or type(e).__name__
            raise InputError(f"the network fails ({reason}); for less memory give tile=64") from e

    made_by = {"method": "network", "weights": file_hash(path), "ema": ema, "tile": tile, "keep_colours": keep_colours}
    made_by |= {"overlap": model.overlap if overlap < 0 else overlap, "device": pick_device(accelerator).type}
    training = {key: value for key, value in content.items() if key in ("config", "pools", "versions", "held_out")}
    return Method(name, run, made_by, training)


def zssr(
    scale: int, module: partial[ZSSR], accelerator: str = "auto", estimator: partial[Estimator] | None = None
) -> Method:
    """ZSSR (Shocher et al., CVPR 2018), or with an estimator K-ZSSR (Bell-Kligler et al., NeurIPS 2019).

    Raises:
        InputError: an option or the scale is wrong.
    """
    check_zero_shot_scale(scale)
    name, device = "zssr" if estimator is None else "k_zssr", pick_device(accelerator).type
    made_by = {"method": name, "scale": scale, "zssr": plain_settings(module), "device": device}
    module()  # checks its options
    if estimator is not None:
        estimator()
        made_by["estimator"] = plain_settings(estimator)

    def run(lr: Tensor) -> Enlarged:
        if estimator is None:
            return Enlarged(zero_shot(lr, scale, module, None, accelerator))
        estimate = estimate_kernel(lr, 2, estimator, accelerator)
        if estimate.reasons:
            log.warning("k_zssr: kernel of confidence %.2f, %s", estimate.confidence, "; ".join(estimate.reasons))
        return Enlarged(zero_shot(lr, scale, module, estimate.kernels, accelerator), estimate.kernels.get(scale))

    return Method(name, run, made_by)


def split_names(specs: Sequence[str]) -> list[tuple[str, str | None]]:
    """Split ``bicubic``, ``zssr``, ``k_zssr`` or ``NAME:FILE`` into name and file.

    >>> split_names(["bicubic", "mine:run/last.ckpt"])
    [('bicubic', None), ('mine', 'run/last.ckpt')]
    """
    found: list[tuple[str, str | None]] = []
    for spec in specs:
        name, colon, path = str(spec).partition(":")
        if not colon and name not in WITHOUT_FILE:
            raise InputError(
                f"methods: {spec!r} is none of bicubic, zssr, k_zssr; a network is given as NAME:FILE, in quotes where "
                "the file has a comma in its name: \"methods=[bicubic,'NAME:a,b.ckpt']\""
            )
        if colon and (not path or not re.fullmatch(r"\w[\w.+-]*", name) or name.lower() in RESERVED):
            raise InputError(f"methods: {spec!r}: give NAME:FILE, with a NAME of letters and digits of its own")
        if name.lower() in (other.lower() for other, _ in found):  # one folder, where file names have no cases
            raise InputError(f"methods: there are two of the name {name!r}; give each a NAME of its own")
        found.append((name, path or None))
    return found


def build_methods(cfg: DictConfig) -> list[Method]:
    """The methods of a config: ``methods``, and ``model`` for ``ckpt``."""
    specs = [*map(str, cfg.methods), *([] if cfg.ckpt is None else [f"model:{cfg.ckpt}"])]
    options = cfg.ema, cfg.tile, cfg.overlap, cfg.keep_colours, cfg.accelerator
    methods = []
    for name, path in split_names(specs):
        if path is not None:
            methods.append(network(name, path, cfg.scale, *options))
        elif name == "bicubic":
            methods.append(bicubic(cfg.scale))
        else:
            estimator = instantiate(cfg.estimator) if name == "k_zssr" else None
            methods.append(zssr(cfg.scale, instantiate(cfg.zssr), cfg.accelerator, estimator))
    return methods
