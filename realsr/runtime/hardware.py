"""Devices, their memory, errors that mean it has run out; versions."""

import contextlib
import ctypes
import os
import platform
import re
from importlib import metadata
from pathlib import Path

import torch
from torch import Tensor

from realsr import __version__
from realsr.runtime.errors import InputError, at_least

MMAP_MAX, TRIM_THRESHOLD = -4, -1  # of glibc's malloc.h
OUT_OF_MEMORY = (
    *("out of memory", "can't allocate memory", "not enough memory", "failed to allocate", "bad allocation"),
    "alloc_failed",  # cuDNN and cuBLAS
)


def pick_device(accelerator: str, index: int | None = None) -> torch.device:
    """The device for ``auto``, ``cpu`` or ``gpu``; ``index`` chooses among several GPUs.

    Raises:
        InputError: there is no such device.

    >>> pick_device("cpu")
    device(type='cpu')
    """
    gpus = [name for name, api in (("cuda", torch.cuda), ("mps", torch.backends.mps)) if api.is_available()]
    if accelerator not in ("auto", "cpu", "gpu"):
        raise InputError(f"accelerator={accelerator}: choose auto, cpu or gpu")
    if accelerator == "gpu" and not gpus:
        raise InputError("accelerator=gpu: there is no GPU that PyTorch can use; take accelerator=cpu or auto")
    kind = gpus[0] if gpus and accelerator != "cpu" else "cpu"
    return torch.device(kind, index) if kind == "cuda" and index is not None else torch.device(kind)


def count_devices(accelerator: str, wanted: int, by_torch: bool = True) -> int:
    """How many devices of a kind to use; 0 takes all. The CPU may be used several times at once.

    Other runtimes (``by_torch`` is false) know GPUs that PyTorch does not, by Vulkan or DirectML. These are not
    counted: 0 takes one, and the runtime itself refuses one that is not there.

    Raises:
        InputError: there are fewer.
    """
    if accelerator == "gpu" and not by_torch and pick_device("auto").type == "cpu":
        at_least(0, devices=wanted)
        return wanted or 1
    kind = pick_device(accelerator).type
    there = torch.cuda.device_count() if kind == "cuda" else 1
    most = max(there, os.cpu_count() or 1) if kind == "cpu" else there
    if not 0 <= wanted <= most:
        raise InputError(f"devices={wanted}: at most {most} of the kind {kind} can be used here; 0 takes all")
    return wanted or there


def free_memory(device: torch.device) -> int | None:
    """Free memory of a device in bytes; None where the system does not tell."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # in PyTorch's cache
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory()) - int(torch.mps.current_allocated_memory())
    found = re.search(r"^MemAvailable:\s*(\d+) kB", _text("/proc/meminfo"), re.MULTILINE)
    group = "/sys/fs/cgroup/memory"  # of a container
    most, used = _text(f"{group}.max").strip(), _text(f"{group}.current").strip()
    bounds = [1024 * int(found[1])] if found else []
    if most.isdigit() and used.isdigit():
        files = re.findall(r"^(?:in)?active_file (\d+)$", _text(f"{group}.stat"), re.MULTILINE)
        bounds.append(int(most) - int(used) + sum(map(int, files)))  # the system frees its cache of files
    return min(bounds, default=None)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a small CPU tensor to a device without waiting for the device.

    A plain ``.to(device)`` waits until the device has done all its work, and leaves it idle in every step. CUDA copies
    small tensors at once, so that they need no pinned memory; Apple's MPS does not.
    """
    return tensor.to(device, non_blocking=device.type not in ("cpu", "mps"))


def keep_memory() -> None:
    """Let this process keep up to 2 GB of freed CPU memory for the next layer or tile.

    Otherwise Linux takes back every large tensor and clears its pages for the next one, half of the time of a large
    tile. It changes the whole process, so commands call it and the library does not. Without glibc nothing changes.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(MMAP_MAX, 0)
        libc.mallopt(TRIM_THRESHOLD, 2**31 - 1)


def versions() -> dict[str, str]:
    """Versions of the packages that results depend on, by name; with a GPU also ``cuda``, ``cudnn`` and ``gpu``."""
    found = {name: metadata.version(name) for name in ("torch", "numpy", "pytorch-lightning")}
    found |= {"realsr": __version__, "python": platform.python_version()}
    if torch.cuda.is_available():
        cudnn = str(torch.backends.cudnn.version())  # type: ignore[no-untyped-call]
        found |= {"cuda": str(torch.version.cuda), "cudnn": cudnn, "gpu": torch.cuda.get_device_name()}
    return found


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of PyTorch, ONNX Runtime or Python means that memory has run out.

    >>> is_out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"))
    True
    """
    return isinstance(error, MemoryError | torch.cuda.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error).lower() for words in OUT_OF_MEMORY)
    )


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
