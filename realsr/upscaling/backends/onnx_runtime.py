"""A network by ONNX Runtime."""

from __future__ import annotations

from typing import Any

import torch

from realsr.runtime.errors import InputError, package
from realsr.upscaling.backends.graphs import Run

# the providers of special wheels; CoreML, which is in the standard one of macOS, is used only if a GPU is asked for
GPUS: dict[str, dict[str, Any]] = {
    "CUDAExecutionProvider": {"cudnn_conv_algo_search": "HEURISTIC"},  # no search at each new size
    "DmlExecutionProvider": {},
    # its other formats round to 16 bits
    "CoreMLExecutionProvider": {"ModelFormat": "MLProgram", "MLComputeUnits": "CPUAndGPU"},
}


def onnx_runtime(graph: bytes, accelerator: str = "auto", index: int = 0) -> Run:
    """A session that computes an ONNX graph, with as many threads as PyTorch.

    ``accelerator`` is ``cpu``, ``gpu``, or ``auto``: a GPU where a wheel for one is installed; ``index`` is that of
    several Nvidia GPUs.

    Raises:
        InputError: ONNX Runtime or a GPU is missing.
    """
    onnxruntime = package("onnxruntime", "backend=onnxruntime", "onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # failures are reported by us, in one line
    there = [name for name in GPUS if name in onnxruntime.get_available_providers()]
    wanted = {"auto": [name for name in there if "CoreML" not in name], "cpu": [], "gpu": there}[accelerator]
    which = {"device_id": index}
    providers: list[Any] = [(name, GPUS[name] | which if "CUDA" in name else GPUS[name]) for name in wanted]
    session = onnxruntime.InferenceSession(graph, options, [*providers, "CPUExecutionProvider"])
    if accelerator == "gpu" and session.get_providers()[0] == "CPUExecutionProvider":
        raise InputError(
            "accelerator=gpu: this ONNX Runtime uses no GPU; pip install onnxruntime-gpu, or take accelerator=cpu"
        )
    (source,), (result,) = session.get_inputs(), session.get_outputs()
    return lambda lr: session.run([result.name], {source.name: lr})[0]
