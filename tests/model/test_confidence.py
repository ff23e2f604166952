"""Logistic regression and temperature find what they were drawn from."""

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from realm.model.confidence import (
    FEATURES,
    calibrator_from,
    evidence_features,
    fit_calibrator,
    fit_logistic,
    fit_temperature,
    log_odds,
    scale_factor,
    sigmoid,
)
from realm.records import Evidence

PROBABILITIES = st.floats(0, 1)


def evidence(probability: float = 0.5, *, p_null: float | None = None) -> Evidence:
    return Evidence(
        probability=probability,
        margin=probability / 2,
        best_logit=3.0,
        score=1.0,
        score_gap=0.5,
        agreement=0.2,
        overlap=0.6,
        p_null=p_null,
    )


def drawn(count: int, slope: float, shift: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits from -4 to 4, right with probability sigmoid(slope * logit + shift)."""
    logits = torch.linspace(-4, 4, count, dtype=torch.float64)
    random = torch.rand(count, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return logits, (random < torch.sigmoid(slope * logits + shift)).double()


def test_logistic_regression_finds_the_weights_that_the_cases_were_drawn_with() -> None:
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(20_000, 3, generator=generator, dtype=torch.float64)
    weights = torch.tensor([1.5, -0.5, 0.0], dtype=torch.float64)
    random = torch.rand(20_000, generator=generator, dtype=torch.float64)
    right = (random < torch.sigmoid(features @ weights - 1)).double()
    found, bias = fit_logistic(features, right, l2=1.0)
    assert found.tolist() == pytest.approx(weights.tolist(), abs=0.08)
    assert bias == pytest.approx(-1, abs=0.08)


def test_its_gradient_is_zero_where_it_ends() -> None:
    features = torch.tensor([[1.0, 2.0], [0.0, -1.0], [2.0, 0.5]], dtype=torch.float64)
    right = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)
    weights, bias = fit_logistic(features, right, l2=0.5)
    told = torch.sigmoid(features @ weights + bias)
    gradient = features.T @ (told - right) + 0.5 * weights
    assert gradient.tolist() == pytest.approx([0, 0], abs=1e-8)


def test_separable_cases_and_cases_of_one_kind_have_a_finite_fit() -> None:
    features = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    for right in ([0.0, 1.0], [1.0, 1.0], [0.0, 0.0]):
        weights, bias = fit_logistic(features, torch.tensor(right, dtype=torch.float64), l2=1.0)
        assert math.isfinite(float(weights[0]) + bias)


def test_temperature_undoes_what_is_too_sure() -> None:
    logits, right = drawn(20_000, slope=0.5, shift=0.0)
    assert fit_temperature(logits, right, with_shift=False) == (pytest.approx(2, abs=0.1), 0)
    logits, right = drawn(20_000, slope=0.5, shift=-1.0)
    assert fit_temperature(logits, right) == (pytest.approx(2, abs=0.1), pytest.approx(-1, abs=0.1))


def test_a_logit_that_tells_the_contrary_makes_no_difference() -> None:
    logits, right = drawn(1_000, slope=-1.0, shift=0.0)
    temperature, shift = fit_temperature(logits, right)
    assert sigmoid(4 / temperature + shift) == pytest.approx(
        sigmoid(-4 / temperature + shift), abs=1e-4
    )


def test_where_the_logit_makes_no_difference_the_share_that_is_right_is_told() -> None:
    """Also where the logits are far from 0: the shift of the slope left out told 0.98 here."""
    logits, right = drawn(1_000, slope=-1.0, shift=-1.0)
    temperature, shift = fit_temperature(logits + 5, right)
    told = sigmoid(5 / temperature + shift)
    assert told == pytest.approx(float(right.mean()), abs=1e-3)


def test_calibrated_probabilities_are_those_of_the_questions_as_they_are_asked() -> None:
    """A hundred hopeless cases teach the weights, but do not make the asked ones less probable."""
    asked = [evidence(0.1 + 0.008 * number) for number in range(100)]
    right = [number % 2 == 0 for number in range(100)]
    hopeless = [evidence(0.05)] * 100
    fitted = fit_calibrator(
        [*asked, *hopeless], [*right, *[False] * 100], [*[True] * 100, *[False] * 100]
    )
    told = [fitted.probability(one) for one in asked]
    assert sum(told) / 100 == pytest.approx(0.5, abs=0.02)
    assert fitted.probability(evidence(0.9)) > fitted.probability(evidence(0.05))


def test_evidence_that_never_changes_says_nothing() -> None:
    fitted = fit_calibrator([evidence(0.2), evidence(0.8)] * 20, [False, True] * 20, [True] * 40)
    weights = dict(zip(fitted.names, fitted.weights, strict=True))
    assert weights["log_odds"] > 0
    assert [weights["score"], weights["agreement"]] == pytest.approx([0, 0])


def test_the_null_probability_is_one_more_feature_where_it_is_told() -> None:
    assert tuple(evidence_features(evidence())) == FEATURES
    cases = [evidence(0.5, p_null=0.9), evidence(0.5, p_null=0.1)] * 20
    fitted = fit_calibrator(cases, [False, True] * 20, [True] * 40)
    assert fitted.names == (*FEATURES, "null_log_odds")
    assert fitted.probability(cases[1]) > 0.8
    assert fitted.probability(cases[0]) < 0.2


def test_a_calibrator_survives_json() -> None:
    fitted = fit_calibrator([evidence(0.2), evidence(0.8)] * 20, [False, True] * 20, [True] * 40)
    assert calibrator_from(json.loads(json.dumps(fitted.as_json()))) == fitted


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("weights", [1.0]),
        ("scales", [0.0] * len(FEATURES)),
        ("means", ["x"] * len(FEATURES)),
        ("temperature", 0),
        ("bias", "nan"),
        ("names", ["height"] * len(FEATURES)),
    ],
)
def test_damaged_numbers_are_refused(key: str, value: object) -> None:
    fitted = fit_calibrator([evidence(0.2), evidence(0.8)] * 20, [False, True] * 20, [True] * 40)
    with pytest.raises((KeyError, TypeError, ValueError)):
        calibrator_from({**fitted.as_json(), key: value})


@given(calibrated=PROBABILITIES, parts=st.lists(PROBABILITIES, min_size=1, max_size=5))
def test_beside_a_calibrated_best_no_other_passes_it_and_all_stay_within_one(
    calibrated: float, parts: list[float]
) -> None:
    total = sum(parts) or 1.0
    best, *others = sorted((part / max(1.0, total) for part in parts), reverse=True)
    factor = scale_factor(best, calibrated)
    scaled = [min(calibrated, other * factor) for other in others]
    assert all(0 <= one <= calibrated for one in scaled)
    assert calibrated + sum(scaled) <= 1 + 1e-6


@given(probability=PROBABILITIES)
def test_log_odds_are_finite_and_undone_by_the_sigmoid(probability: float) -> None:
    assert sigmoid(log_odds(probability)) == pytest.approx(probability, abs=1e-5)


def test_no_logit_is_too_large() -> None:
    assert (sigmoid(-1e6), sigmoid(1e6)) == (0.0, 1.0)
