"""Evidence of an answer -> the chance that it is right: a small logistic regression.

z(e) = w . (features(e) - mean) / scale + b, fitted with an L2 penalty on w to answers with and
without an answer to be found; then P(right | e) = sigmoid(z(e) / T + s), where T and s are fitted
to the questions as they are asked.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from realm.records import Evidence

SURE = 1e-6
"""Probabilities are kept so far from 0 and 1 before their log odds are taken."""
MAX_NEWTON_STEPS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrator:
    """P(the best answer is right) from its evidence."""

    names: tuple[str, ...]
    """The features, in the order of the numbers below."""
    means: tuple[float, ...]
    scales: tuple[float, ...]
    weights: tuple[float, ...]
    bias: float
    temperature: float = 1.0
    """Divides the logit; above 1 the regression was too sure."""
    shift: float = 0.0
    """Added to the logit after that."""

    def logit(self, evidence: Evidence) -> float:
        """Return z, before temperature and shift."""
        features = evidence_features(evidence)
        standard = (
            weight * (features[name] - mean) / scale
            for name, mean, scale, weight in zip(
                self.names, self.means, self.scales, self.weights, strict=True
            )
        )
        return sum(standard) + self.bias

    def probability(self, evidence: Evidence) -> float:
        """Return P(right), between 0 and 1."""
        return sigmoid(self.logit(evidence) / self.temperature + self.shift)

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values, for `calibrator_from`."""
        return asdict(self)


def calibrator_from(value: dict[str, Any]) -> Calibrator:
    """Return the calibrator that `Calibrator.as_json` describes.

    Raises:
        KeyError: a number is missing.
        ValueError: lists of different lengths, something that is no number, or T not above 0.
        TypeError: something that is no list or no number.
    """
    names = tuple(str(name) for name in value["names"])
    lists = {
        key: tuple(_finite(number) for number in value[key])
        for key in ("means", "scales", "weights")
    }
    if {len(names)} != {len(numbers) for numbers in lists.values()}:
        raise ValueError(f"{len(names)} names with other numbers of values")
    temperature = _finite(value["temperature"])
    if temperature <= 0 or min(lists["scales"], default=1.0) <= 0:
        raise ValueError("a temperature or a scale that is not above 0")
    if unknown := set(names) - {*FEATURES, NULL}:
        raise ValueError(f"unknown features {sorted(unknown)}")
    return Calibrator(
        names=names,
        **lists,
        bias=_finite(value["bias"]),
        temperature=temperature,
        shift=_finite(value["shift"]),
    )


FEATURES = ("log_odds", "margin", "best_logit", "score", "score_gap", "agreement", "overlap")
NULL = "null_log_odds"
"""The one more of a reader with a null logit."""


def evidence_features(evidence: Evidence) -> dict[str, float]:
    """Return the regression's inputs: probabilities as log odds, the rest as it is."""
    features = {
        "log_odds": log_odds(evidence.probability),
        "margin": evidence.margin,
        "best_logit": evidence.best_logit,
        "score": evidence.score,
        "score_gap": evidence.score_gap,
        "agreement": evidence.agreement,
        "overlap": evidence.overlap,
    }
    if evidence.p_null is not None:
        features[NULL] = log_odds(evidence.p_null)
    return features


def fit_calibrator(
    evidence: Sequence[Evidence],
    is_right: Sequence[bool],
    is_asked: Sequence[bool],
    *,
    l2: float = 1.0,
) -> Calibrator:
    """Return the calibrator of these answers; the same input gives the same numbers.

    Args:
        evidence: of each answer, at least one.
        is_right: whether the answer is right.
        is_asked: False where the passages with an answer were taken away: such a case teaches the
            weights what the lack of an answer looks like, but not how often that happens.
        l2: penalty on the squared weights of the standardised features.
    """
    rows = [evidence_features(one) for one in evidence]
    names = tuple(rows[0])
    features = torch.tensor([[row[name] for name in names] for row in rows], dtype=torch.float64)
    means = features.mean(dim=0)
    scales = features.std(dim=0, correction=0)
    scales = torch.where(scales > 1e-9, scales, torch.ones_like(scales))  # a constant says nothing
    right = torch.tensor(is_right, dtype=torch.float64)
    weights, bias = fit_logistic((features - means) / scales, right, l2=l2)
    logits = (features - means) / scales @ weights + bias
    asked = torch.tensor(is_asked)
    temperature, shift = fit_temperature(logits[asked], right[asked])
    return Calibrator(
        names=names,
        means=tuple(means.tolist()),
        scales=tuple(scales.tolist()),
        weights=tuple(weights.tolist()),
        bias=bias,
        temperature=temperature,
        shift=shift,
    )


def fit_temperature(
    logits: Float[Tensor, " cases"], is_right: Float[Tensor, " cases"], *, with_shift: bool = True
) -> tuple[float, float]:
    """Return (T, s) with which sigmoid(logit / T + s) fits best.

    A logit that says nothing, or the contrary of what is right, gets a very high temperature:
    it then makes no difference, and s alone tells the share that is right.

    Args:
        logits: one a case.
        is_right: 1 or 0.
        with_shift: False: s is 0, plain temperature scaling.
    """
    slope, shift = fit_logistic(logits[:, None], is_right, l2=1e-3, with_bias=with_shift)
    if float(slope[0]) > SURE:
        return 1 / float(slope[0]), shift
    # That shift belongs to the slope that is not taken
    nothing = torch.zeros_like(logits)[:, None]
    return 1 / SURE, fit_logistic(nothing, is_right, l2=1e-3, with_bias=with_shift)[1]


def fit_logistic(
    features: Float[Tensor, "cases features"],
    is_right: Float[Tensor, " cases"],
    *,
    l2: float,
    with_bias: bool = True,
) -> tuple[Float[Tensor, " features"], float]:
    """Return (weights, bias) of the logistic regression, by Newton's method with step halving.

    Args:
        features: in 64 bits.
        is_right: 1 or 0.
        l2: half of it times the squared weights is added to the summed log loss.
        with_bias: False: the bias is 0. A bias is held back very little: with cases of one kind
            only it stays finite.
    """
    ones = torch.full((len(features), 1), float(with_bias), dtype=features.dtype)
    inputs = torch.cat([features, ones], dim=1)
    penalty = torch.full((inputs.shape[1],), l2, dtype=features.dtype)
    penalty[-1] = 1e-2

    def loss(parameters: Tensor) -> float:
        logits = inputs @ parameters
        errors = torch.nn.functional.softplus(logits) - is_right * logits
        return float(errors.sum() + 0.5 * (penalty * parameters**2).sum())

    parameters = torch.zeros(inputs.shape[1], dtype=features.dtype)
    for _ in range(MAX_NEWTON_STEPS):
        told = torch.sigmoid(inputs @ parameters)
        gradient = inputs.T @ (told - is_right) + penalty * parameters
        hessian = (inputs.T * (told * (1 - told))) @ inputs + torch.diag(penalty)
        step = torch.linalg.solve(hessian, gradient)
        before = loss(parameters)
        rate = 1.0
        while loss(parameters - rate * step) > before and rate > SURE:
            rate /= 2
        parameters = parameters - rate * step
        if float(step.abs().max()) < 1e-9:
            break
    return parameters[:-1], float(parameters[-1])


def scale_factor(raw: float, calibrated: float) -> float:
    """Return by what p(y|x) of the other strings is multiplied beside a calibrated best one.

    The largest factor with which none of them passes the best, and all together stay within 1.

    Args:
        raw: p(y|x) of the best string.
        calibrated: its calibrated probability.
    """
    rest = 1 - raw
    return min(calibrated / max(raw, SURE), (1 - calibrated) / rest if rest > SURE else math.inf)


def log_odds(probability: float) -> float:
    """Return log(p / (1 - p)), finite for 0 and 1, too."""
    kept = min(max(probability, SURE), 1 - SURE)
    return math.log(kept / (1 - kept))


def sigmoid(logit: float) -> float:
    """Return 1 / (1 + exp(-logit)), for any logit."""
    if logit < 0:
        return math.exp(logit) / (1 + math.exp(logit))
    return 1 / (1 + math.exp(-logit))


def _finite(value: object) -> float:
    number = float(str(value))
    if not math.isfinite(number):
        raise ValueError(f"{value!r} is no finite number")
    return number
