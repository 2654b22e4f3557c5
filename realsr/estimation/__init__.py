"""One photo's blur kernel from the photo alone.

``estimate.py`` walks from a photo to its kernels, with one of two LightningModules: ``patch_matching.py``, the
default, or ``kernelgan/``. ``crops.py`` says where they look.
"""

from realsr.estimation.estimate import KernelEstimate, estimate_kernel

__all__ = ["KernelEstimate", "estimate_kernel"]
