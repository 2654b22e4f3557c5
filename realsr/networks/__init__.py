"""Generators and discriminators: plain `nn.Module`s, and the loading of other programs' weights."""
