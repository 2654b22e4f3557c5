"""Zero-shot super-resolution (ZSSR; Shocher, Cohen and Irani, CVPR 2018): a small network taught by the one photo.

A photo that is shrunk gives pairs: the "father" is the photo, the "son" what the camera's kernel makes of it. What the
network learns from them, it then does to the photo. With bicubic shrinking it is the rival ``zssr`` of the paper's
table; with the kernel that KernelGAN found (Bell-Kligler et al., NeurIPS 2019) ``k_zssr``. ``pairs.py`` makes the
pairs, ``module.py`` learns from them, ``upscale.py`` does all of it.
"""

from realsr.evaluation.zssr.module import ZSSR
from realsr.evaluation.zssr.upscale import zero_shot

__all__ = ["ZSSR", "zero_shot"]
