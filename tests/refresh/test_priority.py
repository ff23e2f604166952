"""What a rolling refresh embeds next."""

import pytest
import torch

from realm.refresh.priority import NUM_HOT, Demand, DemandCounter, next_rows, nothing_retrieved

NUM_PASSAGES = 400


def zipf(num_passages: int) -> Demand:
    return Demand(
        rows=torch.arange(num_passages),
        retrievals=1_000.0 / torch.arange(1.0, num_passages + 1.0),
        drift=torch.ones(num_passages),
    )


def simulate(order: str, demand: Demand, steps: int = 4_000) -> tuple[torch.Tensor, torch.Tensor]:
    """Embed ten passages a step; return (visits, mean age) of each, after a while."""
    row_steps = torch.zeros(NUM_PASSAGES, dtype=torch.int32)
    visits, ages = torch.zeros(NUM_PASSAGES), torch.zeros(NUM_PASSAGES)
    for step in range(1, steps + 1):
        rows = next_rows(row_steps, step, demand, 10, order)
        row_steps[rows] = step
        if step > 500:
            visits[rows] += 1
            ages += step - row_steps
    return visits, ages / (steps - 500)


def test_visits_follow_the_root_of_the_rate_and_no_passage_is_forgotten() -> None:
    demand = zipf(NUM_PASSAGES)
    visits, ages = simulate("hottest", demand)
    rate = demand.retrievals + 0.2 * demand.retrievals.sum() / NUM_PASSAGES
    expected = rate.sqrt() / rate.sqrt().sum()
    # The very hottest would come more often than once a step.
    torch.testing.assert_close((visits / visits.sum())[5:], expected[5:], rtol=0.15, atol=0.0)
    assert visits.min() > 0
    assert ages.max() < 200


def test_what_is_retrieved_is_fresher_than_with_the_oldest_first() -> None:
    demand = zipf(NUM_PASSAGES)
    share = demand.retrievals / demand.retrievals.sum()
    _, oldest = simulate("oldest", demand, steps=1_500)
    _, hottest = simulate("hottest", demand, steps=1_500)
    assert (share * hottest).sum() < 0.7 * (share * oldest).sum()


def test_the_oldest_come_in_turn_and_rows_of_the_newest_parameters_not_at_all() -> None:
    steps = torch.tensor([3, 1, 5, 2, 5], dtype=torch.int32)
    assert next_rows(steps, 5, nothing_retrieved(), 2, "oldest").tolist() == [1, 3]
    assert next_rows(steps, 5, nothing_retrieved(), 9, "oldest").tolist() == [0, 1, 3]
    assert next_rows(steps.clamp_min(5), 5, nothing_retrieved(), 9, "hottest").tolist() == []


def test_drift_counts_where_it_is_asked_for() -> None:
    demand = Demand(
        rows=torch.tensor([0, 1]),
        retrievals=torch.tensor([5.0, 4.0]),
        drift=torch.tensor([0.1, 2.0]),
    )
    steps = torch.zeros(4, dtype=torch.int32)
    assert next_rows(steps, 1, demand, 1, "hottest").tolist() == [0]
    assert next_rows(steps, 1, demand, 1, "drifted").tolist() == [1]


def test_demand_is_counted_and_fades() -> None:
    counter = DemandCounter(6)
    counter.count(torch.tensor([1, 1, 4]), torch.tensor([2.0, 2.0, float("nan")]))
    demand = counter.take()
    assert demand.rows.tolist() == [1, 4]
    assert demand.retrievals.tolist() == [2.0, 1.0]
    assert demand.drift.tolist() == [1.0, 0.0]
    assert counter.take().retrievals.tolist() == [1.0, 0.5]
    for _ in range(6):
        counter.take()
    assert counter.take().rows.tolist() == []


def test_only_the_hottest_of_very_many_are_published() -> None:
    counter = DemandCounter(NUM_HOT + 5)
    counter.count(torch.arange(NUM_HOT + 5), torch.full((NUM_HOT + 5,), float("nan")))
    counter.count(torch.tensor([NUM_HOT + 4]), torch.tensor([float("nan")]))
    demand = counter.take()
    assert len(demand.rows) == NUM_HOT
    assert float(demand.retrievals.max()) == pytest.approx(2.0)
