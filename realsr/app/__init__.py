"""A page to try a model on photos: ``python -m realsr.app``."""
