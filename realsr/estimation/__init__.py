"""What one photo tells: its noise and its blur kernel.

``estimate.py`` goes from a photo to its kernels with one of two LightningModules: ``patch_matching/``, the default,
or ``kernelgan/``. ``crops.py`` chooses the crops. ``noise.py`` and ``auto_rule.py`` choose tiles of noise.
"""

from realsr.estimation.estimate import KernelEstimate, estimate_kernel

__all__ = ["KernelEstimate", "estimate_kernel"]
