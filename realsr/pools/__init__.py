"""Kernels, noise and JPEG tables of a camera, on disk and in memory; kernels of other programs."""
