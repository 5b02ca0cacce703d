import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from torch.nn.functional import cross_entropy

from vtray.classify.calibration import bin_numbers, expected_calibration_error, fit_temperature, log_probabilities
from vtray.classify.metrics import Tally
from vtray.errors import WeightsError


def drawn(seed, sharpness, num_rows=3000, num_classes=5):
    """Labels drawn from softmax(z), and logits z * sharpness: perfectly calibrated at T = sharpness."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(num_rows, num_classes, generator=generator, dtype=torch.float64) * 2
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    return logits * sharpness, labels


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 2.5, 6.0])
def test_the_temperature_that_was_put_in_is_found(sharpness):
    temperature = fit_temperature(*drawn(1, sharpness))
    assert temperature == pytest.approx(sharpness, rel=0.05)


@pytest.mark.parametrize(
    ("seed", "num_rows", "sharpness"), [(1, 3000, 2.5), (2, 20, 1.0), (3, 6, 4.0), (4, 300, 0.2)]
)
def test_no_other_temperature_has_a_lower_nll(seed, num_rows, sharpness):
    logits, labels = drawn(seed, sharpness, num_rows)
    found = minimize_scalar(
        lambda log_t: float(cross_entropy(logits / math.exp(log_t), labels)),
        bounds=(math.log(0.1), math.log(10)),
        method="bounded",
        options={"xatol": 1e-9},
    )
    assert fit_temperature(logits, labels) == pytest.approx(math.exp(found.x), rel=1e-5)


def test_two_rows_with_a_known_answer():
    """One of four rows of logits (2, 0) is wrong: softmax must say 3/4, so T = 2 / log 3."""
    temperature = fit_temperature(np.array([[2.0, 0.0]] * 4), np.array([0, 0, 0, 1]))
    assert temperature == pytest.approx(2 / math.log(3), rel=1e-11)


def test_calibration_lowers_the_error_of_an_overconfident_model():
    logits, labels = drawn(5, 3.0)
    temperature = fit_temperature(logits[:1500], labels[:1500])
    before, after = Tally.of(logits[1500:], labels[1500:]), Tally.of(logits[1500:] / temperature, labels[1500:])
    assert before.ece > 0.1
    assert after.ece < 0.05
    assert after.top1 == before.top1


@pytest.mark.parametrize(
    ("logits", "labels", "temperature"),
    [
        ([[5.0, 0.0], [0.0, 5.0]], [0, 1], 0.1),  # all right: the surer the better
        ([[5.0, 0.0], [0.0, 5.0]], [1, 0], 10.0),  # all wrong
        ([[1000.0, 0.0]], [0], 1.0),  # nothing left to gain in float64
        ([[0.0, 0.0]], [0], 1.0),
        ([[3.0]], [0], 1.0),
    ],
)
def test_without_a_minimum_between_the_bounds_the_better_bound_is_taken(logits, labels, temperature):
    assert fit_temperature(np.array(logits), np.array(labels)) == temperature


def test_the_same_rows_give_the_same_bits_as_tensor_or_array():
    logits, labels = drawn(6, 2.0, 200)
    temperature = fit_temperature(logits, labels)
    assert fit_temperature(logits.numpy(), labels.numpy()) == temperature
    assert fit_temperature(logits + 100, labels) == pytest.approx(temperature, rel=1e-9)


def test_what_cannot_be_fitted_is_refused():
    with pytest.raises(ValueError, match="needs images"):
        fit_temperature(np.empty((0, 3)), np.empty(0, np.int64))
    with pytest.raises(WeightsError, match="1 of 2 images"):
        fit_temperature(np.array([[0.0, math.inf], [0.0, 0.0]]), np.array([0, 1]))


def test_log_probabilities_equal_torch_in_any_dtype():
    logits = drawn(7, 1.0, 50)[0]
    np.testing.assert_allclose(log_probabilities(logits), logits.log_softmax(1), atol=1e-14)
    halves = logits.bfloat16()
    np.testing.assert_allclose(log_probabilities(halves), halves.double().log_softmax(1), atol=1e-14)


def test_bins_hold_their_upper_edge():
    assert bin_numbers(np.array([0.0, 0.2, 0.2001, 0.4, 0.99, 1.0]), 5).tolist() == [0, 0, 1, 1, 4, 4]


def test_calibration_error_by_hand():
    shares = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.3, 0.7]])
    labels = np.array([0, 1, 1, 0])
    # bins (0.5, 0.75]: 0.6 right, 0.7 wrong -> |1 - 1.3|; (0.75, 1]: 0.9 right, 0.9 wrong -> |1 - 1.8|
    assert expected_calibration_error(shares, labels, bins=4) == pytest.approx((0.3 + 0.8) / 4)
    assert math.isnan(expected_calibration_error(np.empty((0, 2)), np.empty(0, np.int64)))
