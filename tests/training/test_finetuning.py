import copy

import pytest
import torch
from pytorch_lightning import Callback

from realsr.networks.patch import PatchDiscriminator
from realsr.networks.rrdb import RRDBNet
from realsr.networks.weights import read_checkpoint
from realsr.runtime.config import explain
from realsr.runtime.errors import InputError
from realsr.training.esrgan import ESRGAN
from realsr.training.losses import RelativisticAverage


@pytest.fixture
def networks():
    """A generator and a discriminator, the same ones each time that they are called for."""
    torch.manual_seed(0)
    generator = RRDBNet(features=4, blocks=1, growth=4)
    discriminator = PatchDiscriminator(features=2, layers=1)
    return lambda: (copy.deepcopy(generator), copy.deepcopy(discriminator))


def gan(networks, **options) -> ESRGAN:
    generator, discriminator = networks()
    options = {"discriminator": discriminator, "adversarial": RelativisticAverage(), **options}
    return ESRGAN(generator, lambda parameters: torch.optim.SGD(parameters, 0.1), **options)


def equal(one, other):
    """Whether two networks are, bit by bit."""
    a, b = one.state_dict(), other.state_dict()
    return all(torch.equal(a[key], b[key]) for key in {*a, *b})


class Logged(Callback):
    """The names that each step logged."""

    def __init__(self):
        self.names = []

    def on_train_batch_end(self, trainer, module, *args):
        self.names.append({name for name in trainer.callback_metrics if name.startswith("train/")})


# -- the start of the GAN --------------------------------------------------------------------------------------------


def test_warm_up_is_l1_alone_and_leaves_the_discriminator_alone(networks, train_on_noise):
    module = gan(networks, warmup_steps=4, pixel_weight=0.01)
    train_on_noise(module, 4, logged := Logged())
    plain = gan(networks, discriminator=None, pixel_weight=1.0)  # L1 of weight one
    train_on_noise(plain, 4)
    assert equal(module.generator, plain.generator) and not equal(module.generator, networks()[0])
    assert equal(module.discriminator, networks()[1])
    assert logged.names[-1] == {"train/pixel", "train/generator"}


@pytest.mark.parametrize("warmup", [0, 2])
def test_in_its_head_start_the_discriminator_learns_beside_a_generator_that_stands_still(
    networks, train_on_noise, warmup
):
    options = {"pixel_weight": 0.5, "adversarial_weight": 0.5, "warmup_steps": warmup}
    start = gan(networks, discriminator=None, **options)
    if warmup:
        train_on_noise(start, warmup)
    for steps, still in ((warmup + 3, True), (warmup + 4, False)):
        module = gan(networks, head_start=3, milestones=[warmup + 1], **options)
        trainer = train_on_noise(module, steps, logged := Logged())
        assert equal(module.generator, start.generator) == still
        assert equal(module.generator_ema, start.generator_ema) == still
        assert not equal(module.discriminator, networks()[1])
        assert ("train/adversarial" in logged.names[-1]) != still
        assert "train/discriminator" in logged.names[-1]
        assert all("train/discriminator" not in names for names in logged.names[:warmup])
        # milestones are steps of each network's own
        halved = [warmup + (not still) >= warmup + 1, steps - warmup >= warmup + 1]
        assert [o.param_groups[0]["lr"] for o in trainer.optimizers] == [0.05 if half else 0.1 for half in halved]


def test_a_head_start_is_as_many_steps_of_the_discriminator_on_the_generators_output(networks, train_on_noise):
    """It learns as a plain loop over the same pairs would teach it."""
    module = gan(networks, head_start=3)
    batches = []

    class Batches(Callback):
        def on_train_batch_start(self, trainer, module, batch, *args):
            batches.append(batch)

    train_on_noise(module, 3, Batches())
    generator, discriminator = networks()
    optimizer = torch.optim.SGD(discriminator.parameters(), 0.1)
    for batch in batches:
        real = discriminator(batch["hr"])
        with torch.no_grad():
            sr = generator(batch["lr"])
        optimizer.zero_grad()
        RelativisticAverage().discriminator(real, discriminator(sr)).backward()
        optimizer.step()
    assert equal(module.generator, networks()[0])
    for mine, its in zip(module.discriminator.parameters(), discriminator.parameters(), strict=True):
        torch.testing.assert_close(mine, its)


# -- weights to start from -------------------------------------------------------------------------------------------


@pytest.fixture
def trained(networks, train_on_noise, tmp_path):
    """A checkpoint of a GAN run, and its module."""
    module = gan(networks, adversarial_weight=0.5)
    train_on_noise(module, 4).save_checkpoint(tmp_path / "gan.ckpt")
    return tmp_path / "gan.ckpt", module


def test_a_run_starts_from_the_average_of_another_and_from_its_discriminator(networks, trained):
    path, before = trained
    assert not equal(before.generator, before.generator_ema)
    module = gan(networks, init_from=str(path), init_discriminator_from=str(path))
    assert equal(module.generator, before.generator_ema) and equal(module.generator_ema, before.generator_ema)
    assert equal(module.discriminator, before.discriminator)
    assert not equal(before.discriminator, networks()[1])


@pytest.mark.parametrize("content", [lambda s: s, lambda s: {"params": s}, lambda s: {"state_dict": s}])
def test_a_bare_file_starts_a_discriminator(networks, trained, tmp_path, content):
    _, before = trained
    torch.save(content(before.discriminator.state_dict()), tmp_path / "net_d.pth")
    module = gan(networks, init_discriminator_from=str(tmp_path / "net_d.pth"))
    assert equal(module.discriminator, before.discriminator)


def test_a_discriminator_that_does_not_fit_is_said_to_differ(networks, trained, tmp_path):
    path, before = trained
    wider = PatchDiscriminator(features=4, layers=1)
    with pytest.raises(InputError, match=r"gan.ckpt: holds another architecture .*PatchDiscriminator needs"):
        gan(networks, discriminator=wider, init_discriminator_from=str(path))
    torch.save(before.generator.state_dict(), tmp_path / "generator.pth")
    with pytest.raises(InputError, match=r"another architecture .* it lacks model\."):
        gan(networks, init_discriminator_from=str(tmp_path / "generator.pth"))
    with pytest.raises(InputError, match="there is no discriminator; choose disc=patch"):
        gan(networks, discriminator=None, init_discriminator_from=str(path))
    with pytest.raises(InputError, match="no such checkpoint"):
        gan(networks, init_discriminator_from=str(tmp_path / "none.pth"))


# -- on the command line ---------------------------------------------------------------------------------------------


def test_rates_of_the_command_line_hold_and_belong_to_the_run(fit):
    rates = "model.lr_scale={body.0:0,body.2:0.1}"
    straight = read_checkpoint(fit("straight", rates, "trainer.max_steps=6") / "checkpoints" / "last.ckpt")
    folder = fit("run", rates)
    start = read_checkpoint(folder / "checkpoints" / "last.ckpt")
    groups = [group["lr"] for group in start["optimizer_states"][0]["param_groups"]]
    assert groups == pytest.approx([1e-4, 1e-5])
    for other in ("model.lr_scale={body.0:0}", "model.lr_scale=null"):
        with pytest.raises(InputError, match=r"lr_scale=\{'body\.0': 0, 'body\.2': 0.1\}, not") as error:
            fit("run", "ckpt=last", "trainer.max_steps=6", other)
        assert "\n" not in str(error.value)
    fit("run", "ckpt=last", "trainer.max_steps=6", rates)
    state = read_checkpoint(folder / "checkpoints" / "last.ckpt")["state_dict"]
    for name, value in state.items():
        assert torch.equal(value, straight["state_dict"][name]), name
        if name.startswith("generator."):
            assert torch.equal(value, start["state_dict"][name]) == name.startswith("generator.body.0."), name


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("model.lr_scale={bodi:0}", "no part 'bodi'; it has body, upsampler"),
        ("model.lr_scale={body:fast}", "body=fast: give 0"),
        ("model.lr_scale=0.1", "model.lr_scale"),
        ("model.head_start=-1", "model.head_start=-1: give 0 or more"),
        ("model.warmup_steps=-1", "model.warmup_steps=-1: give 0 or more"),
        ("model.warmup_steps=2.5", "model.warmup_steps"),
    ],
)
def test_mistakes_of_the_command_line_are_one_line(fit, tmp_path, override, says):
    with pytest.raises(Exception) as error:
        fit("run", f"pool_dir={tmp_path}/other", override)
    line = explain(error.value)
    assert line is not None, error.getrepr()
    assert says in line and "\n" not in line
    assert not list((tmp_path / "other").rglob("*.npz"))
