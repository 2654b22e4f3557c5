"""A network by OpenVINO."""

from __future__ import annotations

from typing import Any

import torch

from realsr.backends.graphs import Run, missing
from realsr.errors import InputError

PRECISIONS = {"32-true": "f32", "bf16-true": "bf16", "16-true": "f16"}


def open_vino(graph: bytes, accelerator: str = "auto", precision: str = "32-true") -> Run:
    """What computes an ONNX graph, with as many threads as PyTorch has.

    Args:
        graph: the content of an ``.onnx`` file.
        accelerator: ``auto`` and ``cpu``: the CPU; ``gpu``: Intel's.
        precision: key of :data:`PRECISIONS`.

    Raises:
        InputError: OpenVINO, a GPU or the precision is missing.
    """
    try:
        import openvino
    except ImportError as e:
        raise missing("openvino", e) from e
    core, device = openvino.Core(), "GPU" if accelerator == "gpu" else "CPU"
    if device == "GPU" and not any(name.startswith("GPU") for name in core.available_devices):
        raise InputError("accelerator=gpu: there is no GPU that OpenVINO can use; take accelerator=cpu or auto")
    options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": PRECISIONS[precision], "PERFORMANCE_HINT": "LATENCY"}
    if device == "CPU":  # not pinned: several processes would share the first cores
        options |= {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "ENABLE_CPU_PINNING": False}
    model = core.compile_model(core.read_model(graph), device, options)
    return lambda lr: model(lr)[0].copy()
