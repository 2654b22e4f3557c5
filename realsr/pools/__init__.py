"""What was learnt of a camera, on disk and in memory; kernels of other programs."""
