import copy

import pytest
import torch

from realsr.networks.rates import parameter_groups
from realsr.networks.rrdb import RRDBNet
from realsr.runtime.errors import InputError
from realsr.training.esrgan import ESRGAN

PARTS = ["conv_first", "body", "conv_body", "conv_up1", "conv_up2", "conv_hr", "conv_last"]


def names(network, parameters):
    """Of parameters of a network."""
    known = {id(parameter): name for name, parameter in network.named_parameters()}
    return {known[id(parameter)] for parameter in parameters}


def test_the_longest_name_wins_and_no_other_is_meant():
    network = RRDBNet(features=2, blocks=11, growth=2)
    factors = {"body": 0.5, "body.1": 0.1, "body.0.rdb1": 2, "conv_last": 0.5, "conv_first": 0}
    groups = parameter_groups(network, factors)
    assert next(factor for factor, _ in groups) == 1
    mine = {name: factor for factor, parameters in groups for name in names(network, parameters)}

    def expected(name):
        if name.startswith("body.1."):  # and not body.10
            return 0.1
        if name.startswith("body.0.rdb1."):
            return 2
        return 0.5 if name.startswith(("body.", "conv_last.")) else 1

    trained = [name for name, _ in network.named_parameters() if not name.startswith("conv_first.")]
    assert mine == {name: expected(name) for name in trained}
    assert sum(len(parameters) for _, parameters in groups) == len(trained)  # none of them twice
    assert {name for name, p in network.named_parameters() if not p.requires_grad} == {
        "conv_first.weight",
        "conv_first.bias",
    }


def test_without_factors_all_are_in_one_group():
    network = RRDBNet(features=2, blocks=1, growth=2)
    ((factor, parameters),) = parameter_groups(network, {})
    assert factor == 1 and names(network, parameters) == {name for name, _ in network.named_parameters()}


@pytest.mark.parametrize(
    ("factors", "says"),
    [
        ({"conv_firs": 0}, "no part 'conv_firs'; it has conv_first, body"),
        ({"bod": 0.1}, "no part 'bod'"),
        ({"body.1": 0.1}, "no part 'body.1'"),
        ({"conv_first.weight": 0.1}, "no part 'conv_first.weight'"),
        ({"": 0.1}, "no part ''"),
        ({"body": -0.1}, "body=-0.1: give 0"),
        ({"body": float("nan")}, "body=nan: give 0"),
        ({"body": "slow"}, "body=slow: give 0"),
        ({"body": None}, "body=None: give 0"),
        (dict.fromkeys(PARTS, 0), "all of the generator is frozen"),
    ],
)
def test_mistakes_are_named(factors, says):
    with pytest.raises(InputError, match=r"model\.lr_scale: ") as error:
        parameter_groups(RRDBNet(features=2, blocks=1, growth=2), factors)
    assert says in str(error.value)


@pytest.mark.parametrize(("steps", "lr"), [(1, 1000.0), (3, 0.5)])
def test_frozen_layers_stay_and_slow_ones_move_by_their_factor(train_on_noise, steps, lr):
    torch.manual_seed(0)
    start = RRDBNet(features=4, blocks=2, growth=4)
    results = {}
    for key, factors in {"plain": None, "tuned": {"conv_first": 0, "body": 0.1, "body.1": 0.5}}.items():
        module = ESRGAN(copy.deepcopy(start), lambda p: torch.optim.SGD(p, lr), lr_scale=factors, milestones=[2])
        trainer = train_on_noise(module, steps)
        results[key] = module
        rates = [group["lr"] for group in trainer.optimizers[0].param_groups]
        halved = lr if steps < 2 else lr / 2
        assert rates == pytest.approx([halved * f for f in ([1] if factors is None else [1, 0.1, 0.5])])
    plain, tuned, ema = (
        dict(network.named_parameters())
        for network in (results["plain"].generator, results["tuned"].generator, results["tuned"].generator_ema)
    )
    for name, before in start.named_parameters():
        if name.startswith("conv_first."):
            assert torch.equal(tuned[name], before) and tuned[name].grad is None
            assert torch.equal(ema[name], before)
            assert not torch.equal(plain[name], before)
        elif steps == 1:
            factor = 0.5 if name.startswith("body.1.") else 0.1 if name.startswith("body.") else 1
            torch.testing.assert_close(tuned[name] - before, factor * (plain[name] - before), atol=2e-7, rtol=1e-3)
            assert (plain[name] - before).abs().max() > 1e-5
