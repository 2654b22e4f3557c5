"""Writes a generator as a file that other programs open without our code."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from realsr import __version__
from realsr.networks.community import CommunityNetwork, scale_of
from realsr.networks.names import State
from realsr.networks.onnx_graph import architecture, first_reason, onnx_graph
from realsr.networks.rrdb import RRDBNet
from realsr.networks.sizes import padded, sizes_of
from realsr.networks.weights import checkpoint_file, generator_of, inside, load_generator, read_checkpoint, spec_of
from realsr.runtime.config_check import nearest
from realsr.runtime.errors import InputError, package
from realsr.runtime.files import check_writable
from realsr.upscaling.backends import load_model
from realsr.upscaling.backends.graphs import GraphNetwork
from realsr.upscaling.backends.ncnn_graph import ncnn_graph
from realsr.upscaling.backends.ncnn_net import load_ncnn

log = logging.getLogger(__name__)

SIZES = [(1, 24, 20), (2, 33, 17), (1, 1, 1), (1, 7, 1), (1, 1, 30)]  # images, LR height, LR width
LIMIT, HALF_LIMIT = 1e-4, 0.02  # largest error relative to the network's largest output, or to 1 if that is less

Forward = Callable[[Tensor], Tensor]  # ``(N, 3, h, w)`` to ``(N, 3, scale*h, scale*w)``, float32 on the CPU


class Export(NamedTuple):
    """A format: ``write`` puts a network, in float16 or not, and its description into a file; ``open`` reads it."""

    suffix: str
    write: Callable[[nn.Module, bool, Mapping[str, str], Path], Any]
    open: Callable[[Path], Forward]
    instead: str  # advice for networks that this format cannot hold
    weights: bool = False  # alone, so that readers have to know the architecture
    half: bool = False  # always float16
    twin: str | None = None  # suffix of a second file that belongs to it


def _state(network: nn.Module, half: bool) -> State:
    """The weights by the names of BasicSR, which ours are; every reader of RRDBNets knows them."""
    inner = network.network if isinstance(network, CommunityNetwork) else network
    weights = {key: value.detach().cpu().clone().contiguous() for key, value in inner.state_dict().items()}
    return {key: value.half() if half and value.is_floating_point() else value for key, value in weights.items()}


def _write_safetensors(network: nn.Module, half: bool, about: Mapping[str, str], file: Path) -> None:
    save_file(_state(network, half), file, dict(about))


def _write_pth(network: nn.Module, half: bool, about: Mapping[str, str], file: Path) -> None:
    """Tensors alone, for ``weights_only``, under the key of RealESRGAN_x4plus.pth, which its own program expects."""
    torch.save({"params_ema": _state(network, half)}, file)


def _write_onnx(network: nn.Module, half: bool, about: Mapping[str, str], file: Path) -> None:
    package("onnxruntime", "format=onnx", "onnx")  # to compare the file
    file.write_bytes(onnx_graph(network, half, about))


def _write_ncnn(network: nn.Module, half: bool, about: Mapping[str, str], file: Path) -> None:
    """The two files of ncnn, which have no place for the description."""
    package("ncnn", "format=ncnn", "ncnn")  # to compare the file
    layers, weights = ncnn_graph(onnx_graph(network), half)
    file.write_text(layers)
    file.with_suffix(".bin").write_bytes(weights)


def _open_ncnn(path: Path) -> Forward:
    return GraphNetwork(load_ncnn(path), path)


EXPORTS = {
    "safetensors": Export(".safetensors", _write_safetensors, load_generator, "format=onnx", True),
    "pth": Export(".pth", _write_pth, load_generator, "format=safetensors, which says how its network is built", True),
    "onnx": Export(".onnx", _write_onnx, partial(load_model, accelerator="cpu"), "format=safetensors"),
    "ncnn": Export(".param", _write_ncnn, _open_ncnn, "format=onnx", half=True, twin=".bin"),
}


def export(
    ckpt: str | Path,
    output: str | Path | None = None,
    format: str = "safetensors",
    half: bool = False,
    ema: bool = True,
    overwrite: bool = False,
) -> Path:
    """Write the generator of a checkpoint in another format, read it back and compare the outputs.

    Args:
        ckpt: anything that :func:`realsr.networks.weights.load_generator` opens.
        output: the file; None is beside ``ckpt`` with the suffix of the format.
        format: key of :data:`EXPORTS`.
        half: whether to write float16.
        ema: whether to take the averaged weights, if there are some.
        overwrite: whether to replace an existing file.

    Returns:
        The file.

    Raises:
        InputError: the file cannot be written, or computes something else; then no file is left.
    """
    if format not in EXPORTS:
        raise InputError(f"format={format}: choose {', '.join(EXPORTS)}{nearest(format, EXPORTS)}")
    ckpt = checkpoint_file(ckpt)
    content = read_checkpoint(ckpt)
    kind = EXPORTS[format]
    generator = generator_of(content, ckpt, ema)
    # Upscayl reads the scale from the name
    ending = f"-x{scale_of(generator)}" if format == "ncnn" else "-fp16" if half else ""
    target = _target(ckpt, Path(output) if output is not None else None, format, ending, overwrite)
    half = half or kind.half
    check_writable(target.parent, 10_000_000 + 4 * sum(p.numel() for p in generator.parameters()))
    # the file gets its name after the comparison
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
        file = Path(folder) / target.name
        kind.write(generator, half, about(generator, content, half), file)
        parts = sorted(Path(folder).iterdir())
        size = sum(part.stat().st_size for part in parts)
        hint = "half=false" if half and not kind.half else kind.instead
        try:
            worst = difference(generator, kind.open(file))
        except Exception as e:  # the reader's own, at foreign networks
            reason = str(e).removeprefix(f"{file}: ") if isinstance(e, InputError) else first_reason(e)
            raise InputError(f"{target}: not written, read back it does not run ({reason}); take {hint}") from e
        if not worst <= (HALF_LIMIT if half else LIMIT):  # nor NaN
            raise InputError(f"{target}: not written, it would differ by {worst:.2g} from the network; take {hint}")
        for part in parts:
            part.replace(target.parent / part.name)
    name, precision = f"{architecture(generator)} x{scale_of(generator)}", "float16" if half else "float32"
    what = f"{name}, {precision}, {size / 1e6:.1f} MB"
    compared = f"differs by {worst:.1g} at most" if worst else "does not differ"
    log.info("%s: %s; read back, it %s from the network", target, what, compared)
    if advice := _advice(generator, kind.weights):
        log.warning(advice)
    return target


def _target(ckpt: Path, output: Path | None, format: str, ending: str, overwrite: bool) -> Path:
    """The file to write."""
    suffix, twin = EXPORTS[format].suffix, EXPORTS[format].twin
    target = output if output is not None else ckpt.with_name(f"{ckpt.stem}{ending}{suffix}")
    if target.suffix != suffix:
        raise InputError(f"output={target}: format={format} is a {suffix} file; give such a name or another format")
    for file in (target, *([target.with_suffix(twin)] if twin else [])):
        if file.is_dir():
            raise InputError(f"output={file}: is a folder; give the name of a file")
        if file.exists() and file.samefile(ckpt):
            raise InputError(f"{file}: is the checkpoint itself; choose another output=FILE")
        if file.exists() and not overwrite:
            raise InputError(f"{file}: is there already; overwrite=true replaces it, output=FILE writes another")
    return target


def about(generator: nn.Module, content: Mapping[str, Any], half: bool) -> dict[str, str]:
    """Description of a network for its file: version, architecture, scale, precision, degradation of its training.

    The ``content`` of its checkpoint tells the degradation; those of other programs do not.
    """
    metadata = {"realsr": __version__, "architecture": architecture(generator), "scale": str(scale_of(generator))}
    metadata["precision"] = "float16" if half else "float32"
    if spec := spec_of(content):
        metadata["generator"] = json.dumps(spec)
    data = inside(content, "config", "data")
    target, pools = inside(data, "degradation", "_target_"), inside(data, "pools")
    if target and pools is not None:
        drawn = [name for name in ("kernel", "noise", "jpeg") if inside(pools, f"{name}_dir")]
        name = str(target).rpartition(".")[2]
        metadata["degradation"] = " + ".join(drawn) or (
            "bicubic" if name in ("PaperDegradation", "Degradation") else name
        )
    return metadata


@torch.inference_mode()
def difference(network: nn.Module, other: Forward) -> float:
    """Largest difference of two networks on noise of :data:`SIZES`, relative to the first's largest output, or to 1.

    Raises:
        ValueError: the second network gives another size.

    >>> nearest = nn.Upsample(scale_factor=2)
    >>> difference(nearest, nearest), round(difference(nearest, lambda lr: nearest(lr) + 0.25), 3)
    (0.0, 0.25)
    """
    generator = torch.Generator().manual_seed(0)
    found = []
    for count, height, width in SIZES:
        lr = padded(torch.rand(count, 3, height, width, generator=generator), sizes_of(network))
        sr, result = network(lr.clone()), other(lr.clone())  # some networks change their input
        if result.shape != sr.shape:
            raise ValueError(f"{tuple(lr.shape)} gives {tuple(result.shape)}, not {tuple(sr.shape)}")
        found.append((result - sr).abs().max() / sr.abs().max().clamp(min=1))
    return float(torch.stack(found).max())


def _advice(network: nn.Module, weights: bool) -> str:
    """What other programs cannot do with the file, if anything; ``weights``: it holds weights alone."""
    if weights:
        # spandrel finds the number of features and blocks in a file, and assumes the paper's growth
        known = isinstance(network, CommunityNetwork) or (type(network) is RRDBNet and network.growth == 32)
        new = "chaiNNer, ComfyUI and what else reads with spandrel do not know this network; "
        return "" if known else new + "format=onnx brings it along"
    sizes = sizes_of(network)
    sides = f"it takes images whose sides are multiples of {sizes.multiple}, from {sizes.minimum} pixels on"
    said = f"{sides}; realsr.upscale pads others, elsewhere pad them first"
    return said if sizes.minimum * sizes.multiple > 2 else ""  # spandrel asks for two pixels of RRDBNets
