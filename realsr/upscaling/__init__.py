"""Photos through a network: what computes it, the library, files for other programs."""
