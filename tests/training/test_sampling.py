"""What each step trains on is a function of (seed, step)."""

from hypothesis import given
from hypothesis import strategies as st

from realm.training.sampling import batch_at, is_held_out, sample, step_rng


@given(
    num_items=st.integers(1, 60),
    batch_size=st.integers(1, 70),
    seed=st.integers(0, 5),
)
def test_every_pass_covers_each_item_once(num_items: int, batch_size: int, seed: int) -> None:
    """A batch that spans two passes takes an item of both once; nothing else is drawn twice."""
    num_passes = 3
    num_steps = -(-num_passes * num_items // batch_size)
    batches = [
        batch_at(step, num_items=num_items, batch_size=batch_size, seed=seed)
        for step in range(num_steps)
    ]
    counts = [0] * num_items
    dropped = 0
    for step, batch in enumerate(batches):
        assert len(set(batch)) == len(batch)
        spans_passes = step * batch_size // num_items != ((step + 1) * batch_size - 1) // num_items
        assert len(batch) == batch_size or spans_passes
        dropped += batch_size - len(batch)
        for item in batch:
            counts[item] += 1
    if num_items % batch_size == 0:
        assert counts == [num_passes] * num_items
        assert dropped == 0
    elif batch_size < num_items:
        assert min(counts) >= 1
        assert sum(counts) == num_steps * batch_size - dropped


def test_a_pass_is_shuffled_anew_and_by_the_seed() -> None:
    def first_pass(seed: int, number: int) -> list[int]:
        return batch_at(number, num_items=50, batch_size=50, seed=seed)

    assert first_pass(0, 0) == first_pass(0, 0)
    assert sorted(first_pass(0, 0)) == list(range(50))
    assert first_pass(0, 0) != first_pass(0, 1)
    assert first_pass(0, 0) != first_pass(1, 0)


def test_no_items_are_asked_for_no_items_come() -> None:
    assert batch_at(3, num_items=5, batch_size=0, seed=0) == []


def test_random_numbers_belong_to_a_step() -> None:
    assert step_rng(1, 2).random() == step_rng(1, 2).random()
    assert len({step_rng(seed, step).random() for seed in range(3) for step in range(3)}) == 9


def test_about_the_share_of_the_articles_is_held_out_and_always_the_same() -> None:
    held = [is_held_out(f"article {number}", 0.2) for number in range(2_000)]
    assert 0.17 < sum(held) / len(held) < 0.23
    assert held == [is_held_out(f"article {number}", 0.2) for number in range(2_000)]
    assert not any(is_held_out(f"article {number}", 0.0) for number in range(100))


def test_a_larger_share_holds_out_the_same_articles_and_more() -> None:
    small = {n for n in range(500) if is_held_out(str(n), 0.1)}
    large = {n for n in range(500) if is_held_out(str(n), 0.3)}
    assert small < large


@given(st.lists(st.integers(), max_size=30, unique=True), st.integers(0, 40), st.integers(0, 3))
def test_a_sample_keeps_the_order_and_draws_nothing_twice(
    items: list[int], count: int, seed: int
) -> None:
    drawn = sample(items, count, seed)
    assert len(drawn) == min(count, len(items))
    assert [item for item in items if item in set(drawn)] == drawn
    assert drawn == sample(items, count, seed)
