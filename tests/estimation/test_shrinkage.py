"""A pool's kernels: what scenes do is averaged away, what the camera does stays."""

import numpy as np
import pytest
from scipy.linalg import expm, logm

from realsr.estimation.shrinkage import SCENE, shrunk_blurs


def blurs(truth, errors, seed=0):
    """Estimates: ``truth (N, 2, 2)`` times errors of these standard deviations, in logarithms."""
    noise = np.random.default_rng(seed).standard_normal((len(truth), 2, 2)) * np.asarray(errors).reshape(-1, 1, 1)
    noise = (noise + noise.swapaxes(1, 2)) / 2 * np.array([[1, np.sqrt(0.5)], [np.sqrt(0.5), 1]])
    return np.array([expm(logm(t) + e) for t, e in zip(truth, noise, strict=True)])


def error(found, truth):
    return np.sqrt(np.mean([np.sum((logm(f) - logm(t)) ** 2) for f, t in zip(found, truth, strict=True)]))


def test_kernels_that_differ_by_their_scenes_become_nearly_one():
    truth = np.tile([[0.6, 0.1], [0.1, 0.4]], (30, 1, 1))
    made = blurs(truth, np.full(30, SCENE))
    found = shrunk_blurs(made, np.ones(30))
    assert error(found, truth) < 0.5 * error(made, truth)
    assert np.std(found[:, 0, 0]) < 0.5 * np.std(made[:, 0, 0])


def test_a_real_variety_survives():
    truth = blurs(np.tile(0.5 * np.eye(2), (40, 1, 1)), np.full(40, 0.6), seed=2)
    made = blurs(truth, np.full(40, SCENE), seed=3)
    found = shrunk_blurs(made, np.ones(40))
    assert error(found, truth) < error(made, truth)
    for axis in (0, 1):
        spread, real = np.log(found[:, axis, axis]).std(), np.log(truth[:, axis, axis]).std()
        assert spread == pytest.approx(real, rel=0.15)
        assert np.corrcoef(found[:, axis, axis], truth[:, axis, axis])[0, 1] > 0.9


def test_the_less_sure_the_nearer_to_the_mean():
    truth = np.tile(0.5 * np.eye(2), (20, 1, 1))
    made = blurs(truth, np.full(20, 0.4))
    made[0] = made[1] = 3 * np.eye(2)
    sure = np.ones(20)
    sure[0] = 0.1
    found = shrunk_blurs(made, sure)
    assert found[0, 0, 0] < 1 < found[1, 0, 0] < 3


@pytest.mark.parametrize("count", [1, 2, 5])
def test_equal_kernels_stay(count):
    blur = np.array([[0.6, 0.1], [0.1, 0.4]])
    np.testing.assert_allclose(
        shrunk_blurs(np.tile(blur, (count, 1, 1)), np.full(count, 0.5)), np.tile(blur, (count, 1, 1))
    )
