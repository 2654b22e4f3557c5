"""How much memory is free, and whether an error says that there is none."""

from __future__ import annotations

import re
from pathlib import Path

import torch

OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "failed to allocate", "bad allocation")


def free_memory(device: torch.device) -> int | None:
    """Bytes that can be taken on a device without harm; None where the system does not say."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # PyTorch keeps it for itself
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory()) - int(torch.mps.current_allocated_memory())
    found = re.search(r"^MemAvailable:\s*(\d+) kB", _text("/proc/meminfo"), re.MULTILINE)
    most, used = _text("/sys/fs/cgroup/memory.max").strip(), _text("/sys/fs/cgroup/memory.current").strip()
    bounds = [1024 * int(found[1])] if found else []
    if most.isdigit() and used.isdigit():  # of a container
        bounds.append(int(most) - int(used))
    return min(bounds, default=None)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether PyTorch, ONNX Runtime or Python say by it that there is no memory for what was asked."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error).lower() for words in OUT_OF_MEMORY)
    )


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
