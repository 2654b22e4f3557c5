"""KernelGAN (Bell-Kligler et al., NeurIPS 2019): one photo's blur kernel from the photo alone."""
