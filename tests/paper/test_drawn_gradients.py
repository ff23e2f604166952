"""The encoder's gradient through a few drawn candidates is the same in expectation."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from realm.config import PretrainConfig
from realm.config.base import check
from realm.corpus.store import PassageStore
from realm.errors import ConfigError
from realm.model.bert import set_dropout
from realm.model.encoder import Encoder
from realm.model.likelihood import marginal_log_likelihood, token_marginal_log_likelihood
from realm.model.realm import Budget, CandidateBatch
from realm.records import MaskedExample
from realm.retrieval.batch import Lengths, candidate_batch
from realm.retrieval.candidates import MISSING_ROW, NULL_ROW
from realm.training import backward
from realm.training.backward import BackwardPass, Objective, Passed, draw

Gradients = dict[str, Tensor]
WEIGHTS = torch.tensor([0.5, 0.0, 0.1, 0.1, 0.2, 0.1])


class Fixed(np.random.Generator):
    """Draws the number it is given."""

    def __init__(self, number: float) -> None:
        super().__init__(np.random.PCG64())
        self.number = number

    def random(self, *_: object, **__: object) -> float:  # pyright: ignore
        return self.number


def grid(count: int) -> Iterator[Fixed]:
    """Numbers in [0, 1), evenly spaced: the mean over them is the expectation, nearly."""
    return (Fixed((place + 0.5) / count) for place in range(count))


@pytest.fixture
def batch(
    store: PassageStore, make_example: Callable[..., MaskedExample], lengths: Lengths
) -> CandidateBatch:
    examples = [make_example(store, 0, "1607", "Toulouse"), make_example(store, 5, "graph")]
    rows = [[NULL_ROW, 3, 7, 2, 9], [NULL_ROW, 8, 2, 4, MISSING_ROW]]
    return candidate_batch(store, examples, rows, lengths)


@pytest.fixture
def make_pass(
    make_towers: Callable[..., Any], make_encoder: Callable[..., Encoder], budget: Budget
) -> Callable[..., BackwardPass]:
    def make(objective: Objective = marginal_log_likelihood, **towers: Any) -> BackwardPass:
        return BackwardPass(
            towers=make_towers(**towers),
            encoder=make_encoder(),
            budget=budget,
            autocast="none",
            objective=objective,
        )

    return make


def gradients_of(one_pass: BackwardPass, go: Callable[[], Passed]) -> tuple[Gradients, Passed]:
    parts = {"towers": one_pass.towers, "encoder": one_pass.encoder}
    for part in parts.values():
        part.zero_grad(set_to_none=True)
    passed = go()
    return {
        f"{name}.{own}": parameter.grad.clone()
        for name, part in parts.items()
        for own, parameter in part.named_parameters()
        if parameter.grad is not None
    }, passed


def through_all(
    one_pass: BackwardPass, batch: CandidateBatch, **changed: Any
) -> tuple[Gradients, Passed]:
    settings = {"num_examples": 2, "is_frozen": False, **changed}
    return gradients_of(one_pass, lambda: one_pass.through_all(batch, **settings))


def through_drawn(
    one_pass: BackwardPass,
    batch: CandidateBatch,
    number: int,
    rng: np.random.Generator,
    **changed: Any,
) -> tuple[Gradients, Passed]:
    settings = {"num_examples": 2, "is_frozen": False, **changed}
    return gradients_of(one_pass, lambda: one_pass.through_drawn(batch, number, rng, **settings))


def only(part: str, gradients: Gradients) -> Gradients:
    return {name: one for name, one in gradients.items() if name.startswith(part)}


def mean_of(all_gradients: list[Gradients]) -> Gradients:
    names = {name for one in all_gradients for name in one}
    return {
        name: torch.stack([one[name] for one in all_gradients if name in one]).sum(0)
        / len(all_gradients)
        for name in names
    }


def distance(found: Gradients, expected: Gradients) -> float:
    """Return |found - expected| / |expected| over all parameters."""
    gap = sum(float((found[n] - expected[n]).square().sum()) for n in expected if n in found)
    gap += sum(float(expected[n].square().sum()) for n in expected if n not in found)
    return (gap / sum(float(one.square().sum()) for one in expected.values())) ** 0.5


@pytest.mark.parametrize("objective", [marginal_log_likelihood, token_marginal_log_likelihood])
def test_with_all_drawn_the_gradients_are_the_same(
    make_pass: Callable[..., BackwardPass], batch: CandidateBatch, objective: Objective
) -> None:
    one_pass = make_pass(objective)
    expected, all_passed = through_all(one_pass, batch)
    found, passed = through_drawn(one_pass, batch, 5, Fixed(0.3))
    assert found.keys() == expected.keys()
    assert distance(found, expected) < 1e-5
    for name in ("scores", "log_probs", "passages", "likelihood"):
        mine, theirs = getattr(passed, name), getattr(all_passed, name)
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)
    assert passed.posterior_drawn == pytest.approx(1.0)
    assert all_passed.posterior_drawn is None


@pytest.mark.parametrize(
    ("objective", "towers"),
    [(marginal_log_likelihood, {}), (token_marginal_log_likelihood, {"share": False})],
)
def test_the_expectation_of_the_encoders_gradient_is_that_of_all_and_the_towers_have_theirs(
    make_pass: Callable[..., BackwardPass],
    batch: CandidateBatch,
    objective: Objective,
    towers: dict[str, Any],
) -> None:
    one_pass = make_pass(objective, **towers)
    expected, _ = through_all(one_pass, batch)
    each = [through_drawn(one_pass, batch, 1, rng)[0] for rng in grid(60)]
    own = [only("encoder.", one) for one in (*each, expected)]
    assert max(distance(one, own[-1]) for one in own[:-1]) > 0.2  # one draw is another gradient
    assert distance(mean_of(own[:-1]), own[-1]) < 0.05
    for one in each:
        assert distance(only("towers.", one), only("towers.", expected)) < 1e-5


def test_only_what_is_drawn_goes_through_a_backward_pass(
    make_pass: Callable[..., BackwardPass], batch: CandidateBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_pass = make_pass()
    read: list[int] = []
    real = backward.read_masks

    def watched(encoder: Encoder, some: CandidateBatch, numbers: list[int], budget: Budget) -> Any:
        read.extend(numbers)
        return real(encoder, some, numbers, budget)

    monkeypatch.setattr(backward, "read_masks", watched)
    _, passed = through_drawn(one_pass, batch, 2, Fixed(0.3))
    assert len(read) == len(set(read)) == 4  # 2 for each of 2 queries, of 10
    assert passed.posterior_drawn is not None
    assert 0.4 < passed.posterior_drawn < 1.0


def test_a_candidate_that_is_left_out_is_never_drawn(
    make_pass: Callable[..., BackwardPass], batch: CandidateBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = 9  # the last of the second query's
    monkeypatch.setattr(backward, "read_masks", _refusing(missing))
    for rng in grid(20):
        through_drawn(make_pass(), batch, 3, rng)


def _refusing(number: int) -> Callable[..., Any]:
    real = backward.read_masks

    def refuse(encoder: Encoder, batch: CandidateBatch, numbers: list[int], budget: Budget) -> Any:
        assert number not in numbers
        return real(encoder, batch, numbers, budget)

    return refuse


def test_frozen_towers_get_no_gradients(
    make_pass: Callable[..., BackwardPass], batch: CandidateBatch
) -> None:
    found, _ = through_drawn(make_pass(), batch, 2, Fixed(0.3), is_frozen=True)
    assert found
    assert all(name.startswith("encoder.") for name in found)


def test_the_posterior_comes_without_dropout_and_gradients_with_it(
    make_pass: Callable[..., BackwardPass], batch: CandidateBatch
) -> None:
    one_pass = make_pass()
    one_pass.encoder.train()
    set_dropout(one_pass.encoder, 0.3)
    first, passed = through_drawn(one_pass, batch, 5, Fixed(0.3))
    second, again = through_drawn(one_pass, batch, 5, Fixed(0.3))
    torch.testing.assert_close(passed.log_probs, again.log_probs, rtol=0.0, atol=0.0)
    assert distance(first, second) > 0.05
    assert one_pass.encoder.training


def test_what_is_not_finite_reaches_the_gradients(
    make_pass: Callable[..., BackwardPass], batch: CandidateBatch
) -> None:
    """So that the loop stops there."""
    one_pass = make_pass()
    with torch.no_grad():
        one_pass.encoder.head.bias.fill_(torch.nan)
    found, _ = through_drawn(one_pass, batch, 1, Fixed(0.3))
    assert not all(bool(one.isfinite().all()) for one in found.values())


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(0, 100, width=32), min_size=1, max_size=12), st.integers(1, 12))
def test_each_is_drawn_as_often_as_it_says(weights: list[float], count: int) -> None:
    """The mean over the draws of 1 / chance, where it was drawn, is 1."""
    draws = torch.stack([draw(torch.tensor(weights), count, rng) for rng in grid(200)])
    counts = torch.where(draws > 0, 1 / draws, 0.0).mean(dim=0)
    chances = draws.amax(dim=0)
    for weight, mean, chance in zip(weights, counts.tolist(), chances.tolist(), strict=True):
        if weight == 0:
            assert mean == 0
        elif chance > 0.05:  # the grid is fine enough for these
            assert mean == pytest.approx(1.0, abs=0.06)


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.floats(0.0625, 100, width=32), min_size=1, max_size=12),
    st.integers(1, 12),
    st.floats(0, 0.999),
)
def test_as_many_are_drawn_as_were_asked_for(
    weights: list[float], count: int, number: float
) -> None:
    drawn = int((draw(torch.tensor(weights), count, Fixed(number)) > 0).sum())
    assert abs(drawn - min(count, len(weights))) <= 1


def test_the_heaviest_is_drawn_in_any_case() -> None:
    for rng in grid(50):
        assert draw(WEIGHTS, 3, rng)[0] == 1.0


def test_the_rest_is_drawn_in_proportion() -> None:
    chances = torch.stack([draw(WEIGHTS, 3, rng) for rng in grid(50)]).amax(dim=0)
    torch.testing.assert_close(
        chances.float(), torch.tensor([1.0, 0.0, 0.4, 0.4, 0.8, 0.4]), rtol=1e-5, atol=1e-6
    )


def test_all_are_where_no_more_have_a_weight() -> None:
    assert draw(WEIGHTS, 5, Fixed(0.9)).tolist() == [1, 0, 1, 1, 1, 1]


def test_all_are_where_a_weight_is_not_finite() -> None:
    assert draw(torch.tensor([1.0, torch.nan, 0.0]), 1, Fixed(0.9)).tolist() == [1, 1, 1]


def test_none_is_without_weight() -> None:
    assert draw(torch.zeros(3), 2, Fixed(0.9)).tolist() == [0, 0, 0]


def test_to_draw_all_or_more_is_refused() -> None:
    with pytest.raises(ConfigError, match="gradient_candidates=8 of num_candidates=8, expected"):
        check(PretrainConfig, {"gradient_candidates": 8}, section="pretrain")


def test_a_run_from_before_the_setting_goes_on() -> None:
    assert "gradient_candidates" not in PretrainConfig().identity()
    assert PretrainConfig(gradient_candidates=2).identity()["gradient_candidates"] == 2
