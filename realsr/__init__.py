"""Blind x4 super-resolution for photos of your own camera.

The way of the data, and the room where each step lives::

    source photos --collect---> noise pool  --+              estimation/, pools/
    source photos --estimate--> kernel pool --+              estimation/, pools/
    source photos --collect---> JPEG tables --+              imaging/jpeg.py, pools/
    source photos --clean up--+               |              data/store.py
    clean photos -------------+-> HR crops -> degradation -> (lr, hr)     data/, degradation/
    (lr, hr) -> ESRGAN (generator, discriminator, losses) -> checkpoint   networks/, training/
    checkpoint -> upscale (photos), export (files for other programs)     upscaling/
    checkpoints and rivals -> evaluate (table, report)       evaluation/

Rooms import one way: runtime, imaging, networks, reports, estimation, pools, degradation, data, upscaling, evaluation,
training, and then the commands, which compose a config, call and report.

Conventions that hold everywhere: images are float32 RGB, NCHW, in [0, 1]; kernels are applied by
*correlation* and placed by the phase convention of :mod:`realsr.imaging.resample`; ``lr`` is the small image, ``hr``
the large clean one, ``sr`` the network's estimate of it.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from realsr.runtime.help import print_help

if TYPE_CHECKING:
    from realsr.networks.tiling import Tiles as Tiles
    from realsr.upscaling.backends import load_model as load_model
    from realsr.upscaling.library import Ensemble as Ensemble
    from realsr.upscaling.library import upscale as upscale

__version__ = "0.2.0"
__all__ = ["Ensemble", "Tiles", "load_model", "upscale"]

# Threads that wait sleep at once; with GCC's OpenMP, which PyTorch has on Linux, after a short spin, since a core at
# rest takes long to wake up
WAITING = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "1000"}


def _before_a_command() -> None:
    """In our commands, print help before anything is imported, handle Ctrl-C, and let waiting PyTorch threads sleep.

    Waiting threads would otherwise spin and keep the core from the thread that they wait for; a training beside another
    program takes several times as long (tests/benchmarks/bench_train_step.py --busy). OpenMP reads :data:`WAITING`
    once, when PyTorch is imported. What is already set is kept.
    """
    if not (sys.argv[:1] == ["-m"] or Path(*sys.argv[:1]).name.startswith("realsr-")):  # while -m looks for its module
        return
    print_help(sys.orig_argv)
    sys.excepthook = _in_a_line
    if not WAITING.keys() & os.environ.keys() and "torch" not in sys.modules:
        os.environ.update(WAITING)


def _in_a_line(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print one line for Ctrl-C during imports, and other errors as Python does."""
    if issubclass(kind, KeyboardInterrupt):
        print("realsr: interrupted", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


_before_a_command()


def __getattr__(name: str) -> Any:
    """Import the library's names on first use, since PyTorch takes seconds."""
    homes = {
        "load_model": "upscaling.backends",
        "upscale": "upscaling.library",
        "Tiles": "networks.tiling",
        "Ensemble": "upscaling.library",
    }
    if name in homes:
        return getattr(importlib.import_module(f"realsr.{homes[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
