"""The sign-flip test against Fisher's own count, brute force, and SciPy."""

import itertools

import numpy as np
import pytest
from scipy import stats
from test_student import DARWIN

from stepwise_jax.studies.statistics.sign_flip import EXACT_COUNT, sign_flip_p


def test_fishers_example():
    """The Design of Experiments, 1935, section 21: 1,726 of the 32,768 assignments are as far from 0."""
    assert sign_flip_p(DARWIN) == 1726 / 2**15


@pytest.mark.parametrize("values", [[1.0, 2.0], [3.0, 3.0, 3.0], [0.5, -0.25, 0.1, 2.0, 0.7], [0.0, 0.0], [1.0, -1.0]])
def test_all_flips_are_counted(values):
    means = [abs(np.dot(signs, values)) for signs in itertools.product((-1, 1), repeat=len(values))]
    assert sign_flip_p(values) == np.mean([mean >= abs(sum(values)) - 1e-9 for mean in means])


def test_sums_that_differ_in_their_last_bits_are_equal():
    """Both (0.1 + 0.2) - 0.3 and 0.3 - (0.1 + 0.2) count, as does the observed sum with its terms in another order."""
    values = [0.1, 0.2, 0.3, -0.3, 1e-3]
    assert sign_flip_p(values) == sign_flip_p([1000 * value for value in reversed(values)])


@pytest.mark.parametrize("seed", range(3))
def test_it_is_scipys(seed):
    values = np.random.default_rng(seed).normal(0.5, 1.0, 9)
    theirs = stats.permutation_test((values,), np.mean, permutation_type="samples", vectorized=True, n_resamples=2**9)
    assert sign_flip_p(values.tolist()) == pytest.approx(theirs.pvalue)


def test_five_seeds_cannot_reach_5_percent_and_six_can():
    assert sign_flip_p([1.0, 2.0, 3.0, 4.0, 5.0]) == 1 / 16
    assert sign_flip_p([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) == 1 / 32
    assert sign_flip_p([1.0]) is None


def test_beyond_the_exact_count_it_is_sampled_the_same_way_again():
    values = np.random.default_rng(3).normal(0.45, 1.0, EXACT_COUNT + 4).tolist()
    found = sign_flip_p(values)
    assert found == sign_flip_p(values)
    assert found == pytest.approx(float(stats.ttest_1samp(values, 0.0).pvalue), rel=0.15)  # pyright: ignore
