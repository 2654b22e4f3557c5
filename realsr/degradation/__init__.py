"""LR from HR: as in the paper, as a camera makes it, as BSRGAN does."""
