"""Masked examples are drawn uniformly over a passage's spans; held-out articles never."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from realm.config import MaskConfig
from realm.corpus.store import PassageStore
from realm.errors import ConfigError
from realm.masking.examples import mask
from realm.masking.store import ExampleStore
from realm.tokenizer import SPECIAL_TOKENS, WordpieceTokenizer
from realm.training.examples import ExampleSampler, check_examples
from realm.training.sampling import is_held_out

MakeStore = Callable[[Sequence[Mapping[str, str]]], PassageStore]


def sampler(
    examples: ExampleStore, store: PassageStore, *, held_out: float = 0.3, num_eval: int = 4
) -> ExampleSampler:
    return ExampleSampler(examples, store, held_out=held_out, num_eval=num_eval, seed=0)


def titles_drawn(drawn: ExampleSampler, store: PassageStore, steps: int) -> set[str]:
    return {store.title(e.origin) for step in range(steps) for e in drawn.batch(step, 8)}


def test_held_out_articles_are_never_trained_on(
    examples: ExampleStore, store: PassageStore
) -> None:
    """Where X is Z, by title: as `ict` and `mlm` hold them out."""
    drawn = sampler(examples, store)
    trained = titles_drawn(drawn, store, 30)
    assert trained == {store.title(row) for row in range(len(store))} - {
        title for row in range(len(store)) if is_held_out(title := store.title(row), 0.3)
    }
    assert {is_held_out(store.title(e.origin), 0.3) for e in drawn.held_out} == {True}


def test_in_a_tiny_corpus_the_whole_last_article_is_held_out(
    examples: ExampleStore, store: PassageStore
) -> None:
    """Not only its last passage, whose neighbours tell the same."""
    drawn = sampler(examples, store, held_out=1e-9)
    last = store.title(len(store) - 1)
    assert {store.title(e.origin) for e in drawn.held_out} == {last}
    assert last not in titles_drawn(drawn, store, 30)


def test_of_another_corpus_articles_are_held_out_by_their_id(
    examples: ExampleStore, make_store: MakeStore
) -> None:
    """X is not Z: the rows of X say nothing about the passages of Z."""
    other = make_store([{"id": "z", "title": "Zed", "text": "The builder Zed was born in Tarvik."}])
    drawn = sampler(examples, other)
    trained = {e.article_id for step in range(30) for e in drawn.batch(step, 8)}
    assert trained
    assert not any(is_held_out(article, 0.3) for article in trained)
    assert all(is_held_out(e.article_id, 0.3) for e in drawn.held_out)


def test_a_pass_draws_one_example_of_every_passage(
    examples: ExampleStore, store: PassageStore
) -> None:
    drawn = sampler(examples, store, held_out=0.0)
    origins = Counter(e.origin for step in range(examples.num_groups) for e in drawn.batch(step, 1))
    assert set(origins.values()) == {1}
    assert len(origins) == examples.num_groups


def test_spans_of_a_passage_are_drawn_alike(examples: ExampleStore, store: PassageStore) -> None:
    """Section 4 of the release: uniformly over distinct spans, drawn again at every pass."""
    drawn = sampler(examples, store, held_out=0.0)
    steps = 40 * examples.num_groups
    counts = Counter(e.row for step in range(steps) for e in drawn.batch(step, 1))
    group = max((examples.group(n) for n in range(examples.num_groups)), key=len)
    shares = [counts[row] / 40 for row in group]
    assert sum(shares) == pytest.approx(1.0)
    assert min(shares) > 0.3 / len(group)


def test_a_step_draws_the_same_examples_again(examples: ExampleStore, store: PassageStore) -> None:
    first, second = sampler(examples, store), sampler(examples, store)
    assert [e.row for e in first.batch(7, 8)] == [e.row for e in second.batch(7, 8)]
    assert [e.row for e in first.held_out] == [e.row for e in second.held_out]


def test_at_most_num_eval_examples_are_measured(
    examples: ExampleStore, store: PassageStore
) -> None:
    assert len(sampler(examples, store, num_eval=2).held_out) == 2


def test_longer_queries_than_the_run_reads_are_refused(
    examples: ExampleStore, store: PassageStore
) -> None:
    """They would be cut, and their masks would point into the passage."""
    check_examples(examples, store, query_wordpieces=32)
    with pytest.raises(ConfigError, match="up to 32 wordpieces, query_wordpieces is 31"):
        check_examples(examples, store, query_wordpieces=31)


def test_examples_of_another_vocabulary_are_refused(store: PassageStore, tmp_path: Path) -> None:
    """Their wordpieces would mean other words."""
    tokens = [store.tokenizer.token(number) for number in range(store.tokenizer.vocab_size)]
    swapped = [*SPECIAL_TOKENS, *reversed([t for t in tokens if t not in SPECIAL_TOKENS])]

    class Swapped:
        fingerprint = store.fingerprint
        tokenizer = WordpieceTokenizer.from_vocabulary(swapped)

        def __len__(self) -> int:
            return len(store)

        def __getitem__(self, row: int):  # noqa: ANN204
            return store[row]

    mask(Swapped(), tmp_path / "out", config=MaskConfig(scheme="token", query_wordpieces=32))
    with pytest.raises(ConfigError, match="another tokenizer"):
        check_examples(ExampleStore.open(tmp_path / "out"), store, query_wordpieces=32)
