"""From pairs to a checkpoint: the LightningModule, its losses, what a long run shows and keeps."""
