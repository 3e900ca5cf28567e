"""Arithmetic that graphs share, against NumPy, with what is no number among the values."""

import numpy as np

from graphs.arithmetic import LARGEST, are_numbers, is_number, lerp, unit_length
from tests.graphs.evaluation import evaluate

VALUES = np.array(
    [[0.0, -3.5, 999_999.0], [np.nan, 1.0, 2.0], [1.0, np.inf, 2.0], [1.0, -LARGEST, 2.0]],
    np.float32,
)


def test_what_is_no_number_or_too_large_is_told_value_by_value():
    found = evaluate(lambda op, values: is_number(op, values), VALUES)[0]
    expected = [[True] * 3, [False, True, True], [True, False, True], [True, False, True]]
    np.testing.assert_array_equal(found, expected)


def test_one_bad_value_spoils_its_row_and_no_other():
    found = evaluate(lambda op, values: are_numbers(op, values, [1]), VALUES)[0]
    np.testing.assert_array_equal(found, [[True], [False], [False], [False]])


def test_a_weight_of_0_gives_the_first_value_bit_for_bit():
    random = np.random.default_rng(1)
    first, second = (random.uniform(-255, 255, 100).astype(np.float32) for _ in range(2))
    weight = np.where(np.arange(100) < 50, 0.0, random.uniform(0, 1, 100)).astype(np.float32)
    found = evaluate(lerp, first, second, weight)[0]
    np.testing.assert_array_equal(found[:50], first[:50])
    exact = first.astype(np.float64) * (1 - weight) + second.astype(np.float64) * weight
    # three roundings of numbers up to 510: 510 * 2^-24 each
    np.testing.assert_allclose(found, exact, atol=1e-4)


def test_rows_become_unit_length_and_zeros_stay_zeros():
    vectors = np.random.default_rng(2).normal(0, 30, (3, 512)).astype(np.float32)
    vectors[1] = 0.0
    found = evaluate(unit_length, vectors)[0]
    np.testing.assert_array_equal(found[1], np.zeros(512))
    # float32 sums of 512 squares
    np.testing.assert_allclose(np.linalg.norm(found[[0, 2]], axis=1), 1.0, atol=1e-6)
