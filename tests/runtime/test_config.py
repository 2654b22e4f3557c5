import inspect
from pathlib import Path

import pytest
import torch
import torchvision
from hydra.errors import ConfigCompositionException
from hydra.utils import instantiate
from omegaconf import OmegaConf

from realsr.estimation.patch_matching import PatchMatching
from realsr.pools.sampling import KernelDraw, NoiseDraw
from realsr.runtime.config import explain
from realsr.runtime.errors import InputError
from realsr.runtime.help import conf_dir

OF_TRAINING = ("data", "degradation", "noise", "estimator", "collector", "model", "disc", "gan", "logger", "trainer")
GROUPS = {
    group: sorted(path.stem for path in (Path(conf_dir()) / group).glob("*.yaml"))
    for group in (*OF_TRAINING, "testset")
}
EXPERIMENTS = sorted(path.stem for path in (Path(conf_dir()) / "experiment").glob("*.yaml"))
ABLATIONS, RIVALS = (
    OmegaConf.load(Path(conf_dir()) / "sweep" / f"{name}.yaml").hydra.sweeper.params.ablation.split(",")
    for name in ("ablation", "rivals")
)
L1_ALONE = ("rrdb_psnr", "edsr", "edsr_baseline", "edsr_small")
SMALL = ["model=compact", "perceptual=none", "lpips=null"]


def build(cfg):
    """Instantiate all that a training would."""
    parts = {name: instantiate(cfg[name]) for name in ("data", "model")}
    trainer = instantiate(
        cfg.trainer,
        logger=[instantiate(node) for node in cfg.logger.values()],
        callbacks=[instantiate(node) for node in cfg.callbacks.values()],
    )
    OmegaConf.to_container(cfg, resolve=True)
    return parts["data"], parts["model"], trainer


@pytest.mark.parametrize(("group", "option"), [(g, o) for g in OF_TRAINING for o in GROUPS[g]])
def test_every_option_composes_and_instantiates(compose, photo_folder, group, option, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    common = [override for override in SMALL if not override.startswith(f"{group}=")]
    if option in L1_ALONE:  # brings its own: none
        common.remove("perceptual=none")
    cfg = compose("train", *common, f"data.source_dir={photo_folder('photos', 2)}", f"{group}={option}")
    _, model, trainer = build(cfg)
    assert (model.discriminator is None) == (option in ("none", *L1_ALONE))
    assert model.scale == cfg.scale == (2 if option == "esrgan_x2" else 4)
    assert trainer.max_steps == 60000


def test_the_psnr_stage_has_l1_alone(compose, photo_folder):
    cfg = compose("train", "model=rrdb_psnr", f"data.source_dir={photo_folder('photos', 2)}", "lpips=null")
    assert (cfg.model.discriminator, cfg.model.perceptual, cfg.model.pixel_weight) == (None, None, 1.0)
    assert cfg.model.optimizer.lr == 2e-4
    assert cfg.model.generator.blocks == 23


@pytest.mark.parametrize(
    ("option", "features", "blocks", "residual_scale"),
    [("edsr", 256, 32, 0.1), ("edsr_baseline", 64, 16, 1.0), ("edsr_small", 32, 8, 1.0)],
)
def test_edsr_has_its_own_size_and_l1_alone(compose, option, features, blocks, residual_scale):
    cfg = compose("train", f"model={option}", "data.source_dir=x", "lpips=null")
    size = {"features": features, "blocks": blocks, "residual_scale": residual_scale}
    assert cfg.model.generator == {"_target_": "realsr.networks.edsr.EDSR", **size}
    assert (cfg.model.discriminator, cfg.model.perceptual, cfg.model.pixel_weight) == (None, None, 1.0)
    assert (cfg.model.optimizer.lr, cfg.model.optimizer.betas) == (1e-4, [0.9, 0.999])
    assert cfg.model.milestones == [200000]


def test_a_seed_starts_the_generator_the_same_whatever_the_discriminator(compose, photo_folder):
    folder = photo_folder("photos", 2)
    starts = []
    for disc in ("patch", "vgg128", "none"):
        torch.manual_seed(3)
        model = instantiate(compose("train", *SMALL, f"data.source_dir={folder}", f"disc={disc}").model)
        starts.append(model.generator.body[0].weight)
    assert torch.equal(starts[0], starts[1])
    assert torch.equal(starts[0], starts[2])


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_composes_and_instantiates_on_given_folders(compose, photo_folder, name):
    folder = photo_folder("photos", 2)
    overrides = [f"experiment={name}", "data=folders", f"data.source_dir={folder}", f"data.clean_dir={folder}"]
    start = ["start=none"] if name == "adapt" else []  # its weights are downloaded
    data, model, _ = build(compose("train", *overrides, *start, "perceptual=none", "lpips=null"))
    assert data.source_dir == str(folder)
    assert (model.discriminator is None) == (name in ("laptop", "quickstart"))  # which have L1 and LPIPS


def test_the_published_tracks_are_set_as_their_authors_did(compose, photo_folder):
    folder = photo_folder("photos", 2)
    common = [f"data.source_dir={folder}", "perceptual=none", "lpips=null"]
    track1 = compose("train", "experiment=realsr_df2k", *common)
    assert track1.data.pools.kernel_dir is None
    assert track1.data.pools.noise_dir is not None
    assert (track1.collector.max_variance, track1.collector.min_mean) == (20, 0)
    assert track1.model.discriminator._target_.endswith("VGGDiscriminator")
    track2 = compose("train", "experiment=realsr_dped", *common)
    assert track2.data.pools.kernel_dir is not None
    assert (track2.collector.max_variance, track2.collector.min_mean) == (20, 50)
    assert track2.data.photos.source_share == 1.0
    paper = compose("train", f"data.source_dir={folder}")
    weights = (paper.model.pixel_weight, paper.model.perceptual_weight, paper.model.adversarial_weight)
    assert weights == (0.01, 1.0, 0.005)
    assert paper.model.milestones == [5000, 10000, 20000, 30000]
    assert (paper.data.batch_size, paper.data.crop_size, paper.trainer.max_steps) == (16, 128, 60000)
    assert paper.model.optimizer.lr == 1e-4


@pytest.mark.parametrize("row", ABLATIONS)
def test_ablation_rows_differ_from_the_method_in_one_factor(compose, photo_folder, row):
    folder = photo_folder("photos", 2)
    cfg = compose("train", f"data.source_dir={folder}", "+sweep=ablation", f"ablation={row}", *SMALL)
    method = {"kernel_dir": True, "noise_dir": True, "disc": "PatchDiscriminator", "degradation": "PaperDegradation"}
    this = {
        "degradation": cfg.data.degradation._target_.rpartition(".")[2],
        "kernel_dir": cfg.data.pools.kernel_dir is not None,
        "noise_dir": cfg.data.pools.noise_dir is not None,
        "disc": cfg.model.discriminator._target_.rpartition(".")[2],
    }
    differ = {key for key in method if method[key] != this[key]}
    expected = {
        "bicubic": {"kernel_dir", "noise_dir"},
        "noise": {"kernel_dir"},
        "kernel": {"noise_dir"},
        "vgg128": {"disc"},
        "patch": set(),
        "camera": {"degradation"},
    }
    assert differ == expected[row]
    assert cfg.data.validation.kernel_dir is not None
    assert cfg.data.validation.noise_dir is not None
    assert cfg.name == row
    build(cfg)


FULL = [("edsr_baseline", "EDSR", 64, 16), ("esrgan", "RRDBNet", 64, 23)]
SIZES = {  # of the rivals, EDSR's first: model, generator, its features and blocks
    None: FULL,
    "quickstart": [("edsr_small", "EDSR", 32, 8), ("compact", "Compact", 64, 16)],
    "realsr_df2k": FULL,  # whose own degradation and discriminator make way for the rows'
}


@pytest.mark.parametrize("experiment", SIZES)
@pytest.mark.parametrize("row", RIVALS)
def test_rivals_are_trained_as_their_papers_say_in_the_size_of_the_experiment(compose, experiment, row):
    given = [f"experiment={experiment}"] if experiment else []
    cfg = compose("train", "+sweep=rivals", f"ablation={row}", "data.source_dir=x", *given)
    model, kind, *size = SIZES[experiment][row != "edsr"]
    generator = cfg.model.generator
    assert (cfg.factors.model, generator._target_.rpartition(".")[2]) == (model, kind)
    names = ("num_feat", "num_conv") if kind == "Compact" else ("features", "blocks")
    assert [generator[name] for name in names] == size
    disc = cfg.model.discriminator
    assert (
        disc is None if row == "edsr" else disc._target_.endswith({"esrgan": "VGG"}.get(row, "Patch") + "Discriminator")
    )
    assert cfg.factors.degradation == ("bsrgan" if row == "bsrgan" else "bicubic")
    assert cfg.model.adversarial._target_.endswith("RelativisticAverage")
    assert (cfg.data.pools.kernel_dir, cfg.data.pools.noise_dir) == (None, None)
    assert (cfg.data.validation.kernel_dir is None, cfg.data.validation.noise_dir is None) == (False, False)
    assert (cfg.name, cfg.group) == (row, "rivals")
    if experiment == "quickstart":
        begun = cfg.start.weights is not None
        training = cfg.trainer.max_steps, cfg.data.batch_size, cfg.model.optimizer.lr
        assert (begun, *training) == ((False, 4700, 8, 1e-3) if row == "edsr" else (True, 700, 4, 1e-4))


def test_rows_keep_their_own_degradation_in_an_experiment_that_has_one(compose):
    rows = [
        compose("train", "+sweep=ablation", f"ablation={row}", "experiment=realsr_dped", "data.source_dir=x")
        for row in ABLATIONS
    ]
    factors = {
        (c.data.pools.kernel_dir, c.data.pools.jpeg_dir, c.data.pools.noise_dir, c.model.discriminator._target_)
        for c in rows
    }
    assert len(factors) == len(ABLATIONS)


@pytest.mark.parametrize("name", ["vgg", "lpips"])
def test_perceptual_losses_take_a_local_backbone(compose, photo_folder, tmp_path, name):
    net = {"vgg": "vgg19", "lpips": "squeezenet1_1"}[name]
    file = tmp_path / "backbone.pth"
    torch.save(getattr(torchvision.models, net)().features.state_dict(), file)
    extra = ["model.perceptual.net=squeeze"] if name == "lpips" else []
    cfg = compose(
        "train",
        f"data.source_dir={photo_folder('photos', 2)}",
        "model=compact",
        "lpips=null",
        f"perceptual={name}",
        f"model.perceptual.backbone={file}",
        *extra,
    )
    loss = instantiate(cfg.model).losses.perceptual
    a, b = torch.rand(2, 1, 3, 64, 64)
    assert loss(a, b) > 0
    assert loss(a, a) == 0


@pytest.mark.parametrize("name", GROUPS["testset"])
def test_test_sets_compose(compose, name):
    root = ["testset.root=x"] if name in ("df2k_val", "dped_val") else []
    cfg = OmegaConf.to_container(compose("evaluate", "ckpt=a", f"testset={name}", *root), resolve=True)
    assert {"title", "hr", "lr", "paper"} <= cfg["testset"].keys()


@pytest.mark.parametrize(("name", "option"), [("train", "testset=folder"), ("evaluate", "data=folders")])
def test_training_data_and_test_sets_are_groups_of_their_own_commands(compose, name, option):
    with pytest.raises(ConfigCompositionException) as error:
        compose(name, option)
    assert f"Could not override '{option.partition('=')[0]}'" in str(error.value)


@pytest.mark.parametrize(
    ("command", "old", "new"),
    [
        ("evaluate", "data.root", "testset.root"),
        ("evaluate", "data", "testset"),
        ("gap", "pools", "pool_dir"),
        *(("train", f"data.val_{name}", f"data.validation.{name}") for name in ("hr", "lr", "count", "seed")),
        *(("train", f"data.{name}", f"data.pools.{name}") for name in ("jpeg_required", "min_confidence")),
        *(("train", f"data.{name}", f"data.photos.{name}") for name in ("store_dir", "source_share")),
        ("train", "data.build_pools", "data.pools.build"),
    ],
)
def test_the_nearest_option_is_one_of_the_command_and_the_new_one_of_a_former(compose, command, old, new):
    with pytest.raises(Exception) as error:
        compose(command, f"{old}=x")
    assert explain(error.value, command) == f"{old}: no such option, did you mean {new}?"


def test_a_bug_is_not_explained_away():
    with pytest.raises(TypeError) as error:
        len(3)  # type: ignore[arg-type]
    assert explain(error.value) is None


def test_how_pools_are_drawn_from_is_set_on_the_command_line(compose, photo_folder):
    """Whatever the degradation: rows of an ablation validate on pools that they do not train on."""
    common = [*SMALL, f"data.source_dir={photo_folder('photos', 2)}"]
    drawn = compose("train", *common, "degradation=camera", "pool.turn=true").data.degradation.draw_kernels
    assert instantiate(drawn) == KernelDraw(turn=True)
    without = {"any_camera", "bsrgan", "camera"}  # pools, or tiles of noise
    for name in sorted(set(GROUPS["degradation"]) - without):
        plain = instantiate(compose("train", *common, f"degradation={name}").data).make_degradation()
        assert (plain.draw_kernels, plain.draw_noise) == (KernelDraw(), NoiseDraw())
    settings = ["pool.by_confidence=true", "pool.turn=true", "noise=brightness_matched"]
    settings += ["noise.detrend=plane", "degradation=kernel_noise"]
    made = instantiate(compose("train", *common, *settings).data).make_degradation()
    assert made.draw_kernels == KernelDraw(by_confidence=True, turn=True)
    assert made.draw_noise == NoiseDraw(nearest=0.1, detrend="plane")
    with pytest.raises(InputError, match=r"noise\.detrend=median: choose mean, plane"):
        compose("train", *common, "noise.detrend=median")


def test_the_commands_estimate_kernels_as_the_library_does(compose):
    option = compose("estimate", "data.source_dir=x").estimator
    given = {name: value for name, value in option.items() if not name.startswith("_")}
    default = {name: of.default for name, of in inspect.signature(PatchMatching).parameters.items()}
    assert given == {name: default[name] for name in given}
