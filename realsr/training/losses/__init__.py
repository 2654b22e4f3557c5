"""What the generator is trained towards besides the pixels: adversarial and perceptual losses."""
