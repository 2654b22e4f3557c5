import json

import numpy as np
import pytest
import torch
from conftest import last_checkpoint as last
from omegaconf import OmegaConf

from realsr.networks.weights import load_generator
from realsr.training.run import train


def test_a_run_leaves_model_metrics_pictures_and_curves(fit):
    folder = fit("run")
    content = last(folder)
    assert content["global_step"] == 4
    assert content["config"]["model"]["generator"]["num_feat"] == 8
    assert OmegaConf.create(content["config"]) == content["config"]  # plain containers
    assert isinstance(content["config"]["model"]["milestones"], list)
    assert content["versions"]["realsr"]
    assert not any(key.startswith(("frozen", "perceptual", "lpips", "metrics")) for key in content["state_dict"])
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["val/psnr"] > 10
    assert len(list((folder / "pictures").glob("*.png"))) == 2
    assert load_generator(folder / "checkpoints" / "last.ckpt")(torch.rand(1, 3, 8, 9)).shape == (1, 3, 32, 36)
    assert (folder / "checkpoints" / "best.ckpt").exists()


def test_steps_are_generator_steps(fit):
    """Also those in which the discriminator alone learns; Lightning counts the steps of all optimisers."""
    for warmup, head_start in ((0, 0), (2, 1)):
        options = [f"model.warmup_steps={warmup}", f"model.head_start={head_start}", "trainer.max_steps=6"]
        content = last(fit(f"warmup{warmup}", *options))
        assert content["global_step"] == 6
        made = [6 - head_start, 6 - warmup]
        assert [int(state["state"][0]["step"]) for state in content["optimizer_states"]] == made
        assert [schedule["last_epoch"] for schedule in content["lr_schedulers"]] == made


def test_the_psnr_stage_is_l1_alone_and_a_gan_starts_from_its_weights(compose, tiny, tmp_path, fit):
    without = [o for o in tiny if "discriminator" not in o]
    folder = tmp_path / "psnr"
    outputs = [f"callbacks.{c}.dirpath={folder}/checkpoints" for c in ("last", "best")]
    pictures = f"callbacks.pictures.folder={folder}/pictures"
    cfg = compose("train", *without, "disc=none", "degradation=kernel_noise", pictures, *outputs, "trainer.max_steps=4")
    train(cfg, folder)
    psnr = last(folder)
    assert len(psnr["optimizer_states"]) == 1
    started = fit("gan", f"model.init_from={folder}/checkpoints/last.ckpt", "model.optimizer.lr=0")
    for key, value in last(started)["state_dict"].items():
        if key.startswith("generator."):
            assert torch.equal(value, psnr["state_dict"][key.replace("generator.", "generator_ema.")])


def test_milestones_halve_the_learning_rate(fit):
    content = last(fit("run", "model.milestones=[1,3]", "model.optimizer.lr=0.008"))
    assert content["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(0.002)


def test_training_learns(fit, checkpoint):
    """It starts as nearest-neighbour upscaling, and gains on the held-out image in a few hundred steps."""
    # tiles of `tiny` are mostly gradients, which tell no sensor
    options = ["degradation=kernel_noise", "data.batch_size=8", "model.optimizer.lr=3e-3"]
    options += ["trainer.max_steps=300", "model.warmup_steps=300", f"model.init_from={checkpoint}"]
    folder = fit("run", *options, "trainer.val_check_interval=10", "trainer.log_every_n_steps=10")
    rows = np.genfromtxt(folder / "csv" / "metrics.csv", delimiter=",", names=True)
    psnr = rows["valpsnr"][~np.isnan(rows["valpsnr"])]
    assert psnr[-1] > psnr[0] + 0.5


def test_a_run_whose_time_is_over_keeps_its_last_step(fit):
    folder = fit(
        "run", "trainer.max_steps=100000", "+trainer.max_time=00:00:00:01", "callbacks.last.every_n_train_steps=0"
    )
    lines = (folder / "csv" / "metrics.csv").read_text().splitlines()
    column = lines[0].split(",").index("step")
    assert last(folder)["global_step"] == max(int(line.split(",")[column]) for line in lines[1:])
