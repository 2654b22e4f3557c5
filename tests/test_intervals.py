import math

import numpy as np
import pytest
from scipy import stats

from realsr.intervals import bootstrap_interval, paired_interval

PSNR = np.random.default_rng(3).gamma(4, 1.5, 40) + 22  # skewed, as those of photos are


def scipys(values, **options):
    """By scipy, with draws of its own."""
    found = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=40_000, rng=5, **options)
    return found.confidence_interval


def test_equals_scipy():
    low, high = bootstrap_interval(PSNR.tolist(), draws=40_000)
    expected = scipys(PSNR)
    assert low == pytest.approx(expected.low, abs=0.02 * (expected.high - expected.low))
    assert high == pytest.approx(expected.high, abs=0.02 * (expected.high - expected.low))


def test_covers_the_true_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    intervals = [bootstrap_interval(rng.normal(7, 2, 50).tolist(), draws=500) for _ in range(400)]
    assert 0.9 < np.mean([low <= 7 <= high for low, high in intervals]) < 0.98


def test_is_drawn_from_the_seed():
    values = PSNR.tolist()
    assert bootstrap_interval(values) == bootstrap_interval(values, seed=0) != bootstrap_interval(values, seed=1)


def test_infinity_makes_only_the_bounds_infinite_that_it_reaches():
    low, high = bootstrap_interval([*PSNR, math.inf])  # in a third of the draws there is none
    assert 22 < low < PSNR.mean() + 2 and high == math.inf
    assert bootstrap_interval([math.inf] * 3) == (math.inf, math.inf)
    assert all(map(math.isnan, bootstrap_interval([math.inf, -math.inf, 1.0])))


def test_nan_is_an_image_without_a_value():
    assert bootstrap_interval([*PSNR[:7], math.nan, *PSNR[7:]]) == bootstrap_interval(PSNR.tolist())


@pytest.mark.parametrize("values", [[], [27.0], [27.0, math.nan]])
def test_nothing_is_said_of_fewer_than_two_images(values):
    assert all(map(math.isnan, bootstrap_interval(values)))


def test_equal_values_have_no_spread():
    assert bootstrap_interval([27.5] * 5) == (27.5, 27.5)


def test_pairs_are_told_apart_where_single_intervals_overlap():
    better = PSNR + 0.3 + np.random.default_rng(1).normal(0, 0.2, len(PSNR))
    ours, others = bootstrap_interval(better.tolist()), bootstrap_interval(PSNR.tolist())
    assert ours[0] < others[1]
    low, high = paired_interval(better.tolist(), PSNR.tolist(), draws=40_000)
    expected = scipys(better - PSNR)
    assert low > 0 and low == pytest.approx(expected.low, abs=0.005) and high == pytest.approx(expected.high, abs=0.005)
    swapped = paired_interval(PSNR.tolist(), better.tolist(), draws=40_000)
    assert swapped == pytest.approx((-high, -low))


def test_pairs_with_infinities_and_gaps():
    inf, nan = math.inf, math.nan
    assert paired_interval([inf, inf, 30.0], [inf, inf, 30.0]) == (0, 0)
    assert paired_interval([inf, 31.0], [30.0, 30.0]) == (1, inf)
    assert paired_interval([31.0, nan, 32.0, 5.0], [30.0, 1.0, 31.0, nan]) == (1, 1)
    with pytest.raises(ValueError, match="3 and 2 values"):
        paired_interval([1.0, 2.0, 3.0], [1.0, 2.0])
