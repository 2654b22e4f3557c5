"""What every command stands on: Hydra, errors, files, devices."""
