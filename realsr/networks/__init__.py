"""Generators, discriminators, VGG and LPIPS; weights from files; a network run in tiles."""
