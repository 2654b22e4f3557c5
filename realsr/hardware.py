"""Which devices there are, how much of their memory is free, and whether an error says that there is none."""

from __future__ import annotations

import os
import re
from pathlib import Path

import torch

from realsr.errors import InputError

OUT_OF_MEMORY = (
    *("out of memory", "can't allocate memory", "not enough memory", "failed to allocate", "bad allocation"),
    "alloc_failed",  # cuDNN and cuBLAS
)


def pick_device(accelerator: str, index: int | None = None) -> torch.device:
    """``auto``, ``cpu`` or ``gpu`` to a device; ``index`` says which of several GPUs.

    Raises:
        InputError: there is no such device.
    """
    gpus = [name for name, api in (("cuda", torch.cuda), ("mps", torch.backends.mps)) if api.is_available()]
    if accelerator not in ("auto", "cpu", "gpu"):
        raise InputError(f"accelerator={accelerator}: choose auto, cpu or gpu")
    if accelerator == "gpu" and not gpus:
        raise InputError("accelerator=gpu: there is no GPU that PyTorch can use; take accelerator=cpu or auto")
    kind = gpus[0] if gpus and accelerator != "cpu" else "cpu"
    return torch.device(kind, index) if kind == "cuda" and index is not None else torch.device(kind)


def count_devices(accelerator: str, wanted: int) -> int:
    """How many devices of a kind to use; 0 wants all. The CPU may be used several times at once.

    Raises:
        InputError: there are fewer.
    """
    kind = pick_device(accelerator).type
    there = torch.cuda.device_count() if kind == "cuda" else 1
    most = max(there, os.cpu_count() or 1) if kind == "cpu" else there
    if isinstance(wanted, bool) or not isinstance(wanted, int) or not 0 <= wanted <= most:
        raise InputError(f"devices={wanted}: at most {most} of the kind {kind} can be used here; 0 takes all")
    return wanted or there


def free_memory(device: torch.device) -> int | None:
    """Bytes that can be taken on a device without harm; None where the system does not say."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # PyTorch keeps it for itself
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory()) - int(torch.mps.current_allocated_memory())
    found = re.search(r"^MemAvailable:\s*(\d+) kB", _text("/proc/meminfo"), re.MULTILINE)
    group = "/sys/fs/cgroup/memory"  # of a container
    most, used = _text(f"{group}.max").strip(), _text(f"{group}.current").strip()
    bounds = [1024 * int(found[1])] if found else []
    if most.isdigit() and used.isdigit():
        files = re.findall(r"^(?:in)?active_file (\d+)$", _text(f"{group}.stat"), re.MULTILINE)
        bounds.append(int(most) - int(used) + sum(map(int, files)))  # the system gives up what it holds of files
    return min(bounds, default=None)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether PyTorch, ONNX Runtime or Python say by it that there is no memory for what was asked."""
    return isinstance(error, MemoryError | torch.cuda.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error).lower() for words in OUT_OF_MEMORY)
    )


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
