"""The whole way at x2 and x3: the sample's camera, its kernels, training, enlarging, evaluation."""

from __future__ import annotations

import pytest
import torch.nn.functional as F

from realsr import load_model, upscale
from realsr.data.folders import find_pairs, read_pairs
from realsr.evaluation.evaluator import validation_means
from realsr.networks.weights import load_generator
from realsr.pools.folder import Entry
from realsr.training.run import train


@pytest.mark.parametrize("scale", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_a_model_of_the_sample_is_trained_and_enlarges_by_its_scale(compose, samples, rough_fit, tmp_path, scale):
    run = tmp_path / "run"
    cfg = compose(
        "train",
        *(f"scale={scale}", "data=samples", f"data.samples_dir={samples}", f"pool_dir={tmp_path / 'pools'}"),
        *("model=compact", "model.generator.num_feat=16", "model.generator.num_conv=1", "disc=none", "perceptual=none"),
        *("lpips=null", f"data.crop_size={24 * scale}", "data.batch_size=4"),
        *("data.num_workers=0", "data.validation.look_count=1", "estimator.iterations=50"),
        *("model.optimizer.lr=1e-3", "model.ema_decay=0.9", "trainer.max_steps=150", "trainer.val_check_interval=150"),
        *("accelerator=cpu", "callbacks.progress=null", "callbacks.pictures=null"),
    )
    train(cfg, run)
    entries = [Entry.read(path) for path in sorted((tmp_path / "pools" / "kernels").glob("*.npz"))]
    assert len(entries) == 4 and all(f"x{scale}" in entry.arrays for entry in entries)
    pairs = read_pairs(find_pairs(samples / "test_hr", samples / f"test_lr_x{scale}", scale))
    trained = validation_means(load_generator(run), scale, pairs)
    begun = validation_means(lambda lr: F.interpolate(lr, scale_factor=scale), scale, pairs)
    assert trained["psnr"] > begun["psnr"] + 0.3
    lr = pairs[0].lr[:, :31, :20]
    assert upscale(lr, load_model(run, accelerator="cpu")).shape == (3, 31 * scale, 20 * scale)
