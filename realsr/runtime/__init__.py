"""Hydra, errors, files, devices and worker processes, for all commands."""
