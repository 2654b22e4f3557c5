"""``report.html`` beside a camera's pools: their pictures, what each photo gave, what was left out and why."""

from __future__ import annotations

import logging
from pathlib import Path

from realsr.report.kernels import kernel_part
from realsr.report.noise import noise_part
from realsr.report.page import element, write_page

log = logging.getLogger(__name__)


def report_pools(kernels: Path, noise: Path) -> None:
    """Write ``report.html`` beside the pools, and say where it is.

    It is made anew from what lies in their folders, and depends on nothing else.

    Args:
        kernels: folder of the kernel pool; it may be missing.
        noise: folder of the noise pool beside it; likewise.
    """
    path = kernels.parent / "report.html"
    lead = "How a camera blurs, and what its noise looks like: what realsr learnt from its photos, and trains on."
    parts = [element("p", lead), *kernel_part(kernels), *noise_part(noise)]
    try:
        write_page(path, f"Pools of {path.parent.resolve().name}", parts)
    except OSError as e:
        log.warning("no report: %s", e)  # the pools are there all the same
    else:
        log.info("report: %s", path)
