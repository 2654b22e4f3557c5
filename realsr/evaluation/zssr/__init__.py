"""Zero-shot super-resolution (ZSSR; Shocher, Cohen and Irani, CVPR 2018): a small network trained on one photo.

The photo (the "father") is downscaled by the camera's kernel to its "son"; the network learns to enlarge sons to
fathers and then enlarges the photo. With bicubic downscaling it is the rival ``zssr`` of the paper's table, with
KernelGAN's kernel (Bell-Kligler et al., NeurIPS 2019) ``k_zssr``. ``pairs.py`` makes the pairs, ``module.py`` trains,
``upscale.py`` does both and enlarges.
"""

from realsr.evaluation.zssr.module import ZSSR
from realsr.evaluation.zssr.upscale import zero_shot

__all__ = ["ZSSR", "zero_shot"]
