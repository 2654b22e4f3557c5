import inspect
from functools import partial
from itertools import pairwise
from pathlib import Path

import hydra
import numpy as np
import pytest
import torch
from conftest import leaves, scene
from scipy import ndimage
from torchmetrics.functional.image import peak_signal_noise_ratio

from realsr.estimation.kernels import bicubic_kernel, gaussian_kernel, x4_from_x2
from realsr.evaluation import zssr
from realsr.evaluation.zssr import (
    LOOKS,
    ZSSR,
    back_projected,
    has_settled,
    self_ensemble,
    zero_shot,
)
from realsr.evaluation.zssr_pairs import FathersAndSons, kernel_symmetries, second_kernel, shrunk
from realsr.imaging.resample import imresize
from realsr.imaging.symmetries import TURNS, turned
from realsr.runtime.errors import InputError
from realsr.runtime.help import conf_dir
from realsr.runtime.single_photo import fit_photo

TINY = partial(ZSSR, iterations=2, again=2, channels=4, layers=2, crop=8)
OBLIQUE = gaussian_kernel(17, (2.0, 0.8), 0.6, 2)


def as_tensor(kernel):
    return torch.from_numpy(kernel).float()


def lopsided():
    kernel = np.random.default_rng(0).random((7, 7)) ** 3
    return kernel / kernel.sum()


def decibel(sr, hr, border=4):
    inside = np.s_[None, :, border:-border, border:-border]
    return float(peak_signal_noise_ratio(sr.clamp(0, 1)[inside], hr[inside], data_range=1.0))


def test_eight_turns_are_all_there_are():
    image = torch.rand(3, 5, 5)
    seen = {turned(image, turn).numpy().tobytes() for turn in TURNS}
    assert len(seen) == 8
    assert turned(torch.eye(3)[:2], 4).tolist() == [[0, 0, 1], [0, 1, 0]]


def test_sons_are_what_the_kernel_makes_of_turned_fathers():
    """By scipy's correlation; a kernel that is turned or flipped would give another picture."""
    photo, kernel = scene(40, 50), lopsided()
    data = FathersAndSons(photo, as_tensor(kernel), 8, 16, (1.0,), 0.0, 0)
    for turn in TURNS:
        father = turned(photo, turn).numpy()
        # scipy's centre of a kernel of 7 is index 3, as is ours; its "reflect" repeats the edge pixel
        expected = np.stack([ndimage.correlate(colour, kernel, mode="reflect")[::2, ::2] for colour in father])
        np.testing.assert_allclose(turned(data.sons[0][turn], turn).numpy(), expected, atol=1e-5)


def items(data):
    return [data[index] for index in range(len(data))]


def test_pairs_show_the_same_part():
    """A ramp stays one when it is shrunk and enlarged, up to the borders."""
    ramp = torch.linspace(0, 1, 64).repeat(3, 64, 1)
    for son, father in items(FathersAndSons(ramp, None, 40, 16, (1.0, 0.7), 0.0, 0)):
        assert son.shape == father.shape == (3, 16, 16)
        inside = np.s_[:, 4:-4, 4:-4]
        torch.testing.assert_close(son[inside], father[inside], atol=2e-3, rtol=0)


def test_fathers_are_drawn_by_their_area_and_whole_if_small():
    data = FathersAndSons(scene(24, 40), None, 300, 24, (1.0, 0.5), 0.0, 0)
    shapes = [tuple(sorted(father.shape[1:])) for _, father in items(data)]
    assert set(shapes) == {(24, 24), (12, 20)}
    assert shapes.count((12, 20)) == pytest.approx(300 / 5, abs=25)


def test_noise_is_on_the_sons_alone():
    flat = torch.full((3, 64, 64), 0.5)
    data = FathersAndSons(flat, None, 20, 64, (1.0,), 5.0, 0)
    assert all(torch.equal(father, flat) for _, father in items(data))
    noise = torch.stack([son for son, _ in items(data)]) - 0.5
    # what bicubic makes of white noise: each axis has four taps at each of two places
    share = np.sum((np.array([-9, 111, 29, -3]) / 128) ** 2)
    assert float(noise.std()) * 255 == pytest.approx(5 * share, rel=0.02)
    assert float(noise.mean()) * 255 == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize("kernel", [None, OBLIQUE])
def test_back_projection_brings_the_small_picture_back(kernel):
    hr = scene(60, 44)
    kernel = None if kernel is None else as_tensor(kernel)
    lr = shrunk(hr, 2, kernel)
    sr, errors = imresize(lr, 2), []
    for _ in range(6):
        errors.append(float((shrunk(sr, 2, kernel) - lr).abs().mean()))
        sr = back_projected(sr, lr, 2, kernel)
    assert all(later < 0.95 * before for before, later in pairwise(errors))
    assert decibel(sr, hr) > decibel(imresize(lr, 2), hr) + 0.3


def test_back_projection_leaves_what_is_right():
    hr, kernel = scene(32, 32).double(), torch.from_numpy(OBLIQUE)
    assert torch.equal(back_projected(hr, shrunk(hr, 2, kernel), 2, kernel, times=3), hr)


def test_back_projection_wants_the_kernel_as_it_lies():
    hr, kernel = scene(64, 64), as_tensor(OBLIQUE)
    lr = shrunk(hr, 2, kernel)
    right, mirrored = (back_projected(imresize(lr, 2), lr, 2, k, times=8) for k in (kernel, kernel.flip(1).roll(1, 1)))
    assert decibel(right, hr) > decibel(mirrored, hr) + 1


def test_ensemble_turns_with_its_photo():
    convolution = torch.nn.Conv2d(3, 3, 3, padding=1)

    def network(image):
        with torch.no_grad():
            return convolution(image[None])[0]

    image = torch.rand(3, 9, 6)
    result = self_ensemble(network, image).mean(0)
    for turn in TURNS:
        torch.testing.assert_close(self_ensemble(network, turned(image, turn)).mean(0), turned(result, turn))
    assert not torch.allclose(turned(network(image), 1), network(turned(image, 1)), atol=1e-3)


@pytest.mark.parametrize(
    ("kernel", "turns"),
    [
        (bicubic_kernel(2), [0, 1, 2, 3, 4, 5, 6, 7]),
        (gaussian_kernel(17, (1.5, 1.5), 0, 2), [0, 1, 2, 3, 4, 5, 6, 7]),
        (gaussian_kernel(18, (2.5, 1), 0, 2), [0, 2, 4, 6]),
        (gaussian_kernel(17, (2.5, 1), np.pi / 4, 2), [0, 2, 5, 7]),
        (OBLIQUE, [0, 2]),
        (lopsided(), [0]),
    ],
)
def test_turns_that_are_kept_are_those_that_the_kernel_does_not_see(kernel, turns):
    assert kernel_symmetries(None) == list(TURNS)
    assert kernel_symmetries(as_tensor(kernel)) == turns
    photo, kernel = scene(64, 48).double(), torch.from_numpy(kernel)
    differences = [
        (shrunk(turned(photo, t), 2, kernel) - turned(shrunk(photo, 2, kernel), t)).abs().max() for t in TURNS
    ]
    assert [turn for turn in TURNS if differences[turn] < 1e-3] == turns


def test_what_the_second_doubling_undoes():
    """KernelGAN's x4 kernel is x2 twice; a camera's is bicubic, then what it is at x2: twice as wide."""
    kernel = as_tensor(OBLIQUE)
    torch.testing.assert_close(second_kernel(OBLIQUE, x4_from_x2(OBLIQUE)), kernel)
    wide = gaussian_kernel(33, (4.0, 1.6), 0.6, 4)
    assert second_kernel(OBLIQUE, wide) is None
    hr, inside = scene(128, 128), np.s_[:, 8:-8, 8:-8]
    for four, between in ((x4_from_x2(OBLIQUE), kernel), (wide, None)):
        torch.testing.assert_close(
            shrunk(shrunk(hr, 2, between), 2, kernel)[inside], shrunk(hr, 4, as_tensor(four))[inside], atol=0.01, rtol=0
        )


def test_settled_when_errors_scatter_more_than_they_fall():
    scatter = np.array([1.0, -1.0, -1.0, 1.0, 1.0, -1.0, -1.0, 1.0])  # along which no line falls or rises
    fall = np.linspace(7, 0, 8)
    assert has_settled(list(fall + 10.6 * scatter), looks=8, factor=1.5)
    assert not has_settled(list(fall + 10.4 * scatter), looks=8, factor=1.5)
    assert has_settled(list(-fall), looks=8)  # they rise
    assert not has_settled(list(-fall[:7]), looks=8)
    assert has_settled([*range(80, 20, -10), *(5 * scatter)], looks=8)  # only the last ones count


@pytest.mark.parametrize(("learning_rate", "stops"), [(1e-3, [96, 136, 160]), (0.03, None)])
def test_rates_get_their_share_and_fall_sooner_where_nothing_is_gained(learning_rate, stops, monkeypatch):
    iterations, seen = (160, []) if stops else (1200, [])
    monkeypatch.setattr(zssr, "LOOK", 20 if stops else 4)
    module = TINY(iterations=iterations, learning_rate=learning_rate)
    step = module.training_step

    def training_step(batch, batch_idx):
        seen.append(module.trainer.optimizers[0].param_groups[0]["lr"])
        return step(batch, batch_idx)

    monkeypatch.setattr(module, "training_step", training_step)
    fit_photo(module, module.pairs(scene(32, 32)), "cpu")
    assert sorted(set(seen), reverse=True) == pytest.approx([learning_rate / 10**n for n in range(3)])
    if stops:
        assert [seen.count(rate) for rate in dict.fromkeys(seen)] == list(np.diff([0, *stops]))
    else:
        assert 3 * LOOKS * 4 <= len(seen) < iterations / 2


@pytest.fixture(scope="module")
def picture():
    return leaves(120, 144)


SMALL = partial(ZSSR, iterations=150, channels=16, layers=5, crop=32)


def test_beats_bicubic_where_small_things_look_like_large_ones(picture):
    lr = shrunk(picture, 2)
    sr = zero_shot(lr, 2, partial(SMALL, iterations=240), accelerator="cpu")
    assert decibel(sr, picture) > decibel(imresize(lr, 2), picture) + 1
    alone = back_projected(imresize(lr, 2), lr, 2, times=16)
    assert decibel(sr, picture) > decibel(alone, picture) + 0.3


def test_what_is_learnt_is_the_kernel_as_it_lies(picture):
    """Without back-projection, which knows the kernel too."""
    lr, learner = shrunk(picture, 2, as_tensor(OBLIQUE)), partial(SMALL, back_projections=0)
    right, mirrored, bicubic = (
        decibel(zero_shot(lr, 2, learner, kernels, accelerator="cpu"), picture)
        for kernels in ({2: OBLIQUE}, {2: np.roll(OBLIQUE[:, ::-1], 1, 1).copy()}, None)
    )
    assert right > bicubic + 0.7
    assert right > mirrored + 0.5


def test_same_seed_same_photo_and_nothing_else_is_touched():
    lr, before, threads = scene(21, 26), torch.get_rng_state(), torch.get_num_threads()
    torch.manual_seed(1)
    first = zero_shot(lr, 2, TINY)
    torch.manual_seed(2)
    assert torch.equal(zero_shot(lr, 2, TINY), first)
    assert not torch.equal(zero_shot(lr, 2, partial(TINY, seed=1)), first)
    torch.manual_seed(2)
    assert torch.get_num_threads() == threads
    state = torch.get_rng_state()
    zero_shot(lr, 2, TINY)
    assert torch.equal(torch.get_rng_state(), state)
    torch.set_rng_state(before)


@pytest.mark.parametrize("kernels", [None, {2: OBLIQUE, 4: x4_from_x2(OBLIQUE)}])
@pytest.mark.parametrize("scale", [2, 4])
def test_odd_sizes(kernels, scale):
    lr = (torch.linspace(0.1, 0.6, 17)[:, None] + torch.linspace(0, 0.3, 23)).repeat(3, 1, 1)
    sr = zero_shot(lr, scale, TINY, kernels, accelerator="cpu")
    assert sr.shape == (3, 17 * scale, 23 * scale)
    assert sr.dtype == torch.float32
    assert 0 <= sr.min() <= sr.max() <= 1
    assert decibel(sr, imresize(lr, scale)) > 35


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("iterations", 0, "zssr.iterations=0: give 1 or more"),
        ("channels", 0, "zssr.channels=0"),
        ("layers", 1, "zssr.layers=1: give 2 or more"),
        ("crop", 9, "zssr.crop=9: give an even number"),
        ("learning_rate", -1.0, "zssr.learning_rate=-1.0"),
        ("sizes", [], r"zssr.sizes=\[\]: give numbers from 0.25 to 1"),
        ("sizes", [1, 2], r"zssr.sizes=\[1, 2\]"),
        ("noise", float("nan"), "zssr.noise=nan"),
        ("back_projections", -1, "zssr.back_projections=-1"),
        ("seed", -1, "zssr.seed=-1"),
    ],
)
def test_bad_options(option, value, message):
    with pytest.raises(InputError, match=message):
        ZSSR(**{option: value})


@pytest.mark.parametrize(
    ("lr", "scale", "kernels", "message"),
    [
        (torch.rand(3, 15, 40), 2, None, "40x15 pixels are too few"),
        (torch.rand(3, 40, 40), 3, None, "scale=3"),
        (torch.rand(3, 40, 40), 4, {4: np.ones((3, 3)) / 9}, "no kernel for x2"),
    ],
)
def test_bad_photos(lr, scale, kernels, message):
    with pytest.raises(InputError, match=message) as error:
        zero_shot(lr, scale, TINY, kernels, accelerator="cpu")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("option", sorted(path.stem for path in (Path(conf_dir()) / "zssr").glob("*.yaml")))
def test_every_option_builds_a_module(option):
    with hydra.initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = hydra.compose(f"zssr/{option}")
    build = hydra.utils.instantiate(cfg.zssr)
    assert build.func is ZSSR
    assert set(build.keywords) == set(inspect.signature(ZSSR).parameters)
    assert build().dataset.keywords["noise"] == (0 if option == "clean" else 5)


def test_training_that_diverges_says_so():
    with pytest.raises(InputError, match=r"lower zssr\.learning_rate"):
        zero_shot(scene(20, 20), 2, partial(TINY, iterations=20, layers=8, learning_rate=1e30), accelerator="cpu")
