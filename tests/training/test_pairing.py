"""Which passage tells the same as a masked sentence, by strings alone."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from realm.config import MaskConfig
from realm.corpus.store import PassageStore
from realm.masking.examples import mask
from realm.masking.store import ExampleStore
from realm.masking.taggers import Tagger
from realm.training.pairing import Pair, pair_examples

MakeStore = Callable[..., PassageStore]
Masked = Callable[..., tuple[PassageStore, ExampleStore, list[Pair]]]


@pytest.fixture
def masked(make_store: MakeStore, tmp_path: Path, tagger: Tagger) -> Masked:
    def make(
        texts: Sequence[tuple[str, str]],
        **settings: Any,
    ) -> tuple[PassageStore, ExampleStore, list[Pair]]:
        articles: list[Mapping[str, str]] = [
            {"id": str(n), "title": title, "text": text} for n, (title, text) in enumerate(texts)
        ]
        store = make_store(articles, max_wordpieces=288)
        config = MaskConfig(min_sentence_wordpieces=4, query_wordpieces=64, **settings)
        chosen = tagger if config.scheme == "salient" else None
        mask(store, tmp_path / "examples", config=config, tagger=chosen)
        examples = ExampleStore.open(tmp_path / "examples")
        return store, examples, pair_examples(examples, store)

    return make


def rows(examples: ExampleStore, pairs: Sequence[Pair]) -> dict[tuple[int, str], int]:
    """(origin, masked span) -> row that it is read with."""
    found: dict[tuple[int, str], int] = {}
    for pair in pairs:
        example = examples[pair.example]
        assert example.origin == pair.origin
        span = example.sentence[example.span_start : example.span_end]
        found[pair.origin, span] = pair.row
    return found


def test_a_passage_with_the_span_and_another_span_of_the_sentence_is_taken(masked: Masked) -> None:
    _, examples, pairs = masked(
        [
            ("one", "the builder Arlo was born in Tarvik near the river."),
            ("two", "people say that Arlo made a sail in Tarvik."),
            ("three", "people say that Arlo made a clock in Ulmer."),
        ]
    )
    found = rows(examples, pairs)
    assert found[0, "Arlo"] == 1  # shares Tarvik; passage 2 shares nothing else
    assert found[0, "Tarvik"] == 1
    assert (2, "Arlo") not in found  # nobody else knows of Arlo in Ulmer
    assert (2, "Ulmer") not in found


def test_the_same_title_is_enough_but_a_shared_span_counts_more(masked: Masked) -> None:
    _, examples, pairs = masked(
        [
            ("Arlo", "the builder Arlo was born in Tarvik near the river."),
            ("Arlo", "people say that Arlo made a sail out of wood."),
            ("else", "the hall of Tarvik has a clock that Arlo made."),
        ]
    )
    found = rows(examples, pairs)
    assert found[0, "Arlo"] == 2
    assert found[1, "Arlo"] == 0  # no other span in the sentence: the title decides


def test_the_passage_that_holds_the_very_sentence_is_never_taken(masked: Masked) -> None:
    same = "the builder Arlo was born in Tarvik near the river."
    store, examples, pairs = masked(
        [
            ("one", same),
            ("two", f"{same} There is more."),
            ("three", "the hall of Tarvik has what Arlo made."),
        ]
    )
    assert pairs
    for pair in pairs:
        assert pair.row != pair.origin
        assert examples[pair.example].sentence not in store[pair.row].text
    assert rows(examples, pairs)[0, "Arlo"] == 2


def test_a_span_that_stands_everywhere_tells_nothing(
    masked: Masked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("realm.training.pairing.COMMON", 2)
    _, examples, pairs = masked(
        [
            ("one", "the builder Arlo was born in Tarvik near the river."),
            ("two", "people say that Arlo made a sail in Tarvik."),
            ("three", "the hall of Ulmer has a clock that Arlo made."),
        ]
    )
    assert {span for _, span in rows(examples, pairs)} == {"Tarvik"}


def test_case_does_not_matter(masked: Masked) -> None:
    _, examples, pairs = masked(
        [
            ("one", "the builder Arlo was born in Tarvik near the river."),
            ("two", "in the hall of Tarvik the clock was made by Arlo."),
        ]
    )
    assert rows(examples, pairs) == {
        (0, "Arlo"): 1,
        (0, "Tarvik"): 1,
        (1, "Tarvik"): 0,
        (1, "Arlo"): 0,
    }


def test_every_pair_of_a_corpus_keeps_the_rules(
    store: PassageStore, examples: ExampleStore
) -> None:
    pairs = pair_examples(examples, store)
    assert len(pairs) > 10
    for pair in pairs:
        example = examples[pair.example]
        span = example.sentence[example.span_start : example.span_end].lower()
        assert pair.row != pair.origin
        assert span in store[pair.row].text.lower()
        assert example.sentence not in store[pair.row].text


@pytest.mark.parametrize("scheme", ["token", "span"])
def test_random_masks_have_no_span_to_look_for(masked: Masked, scheme: str) -> None:
    _, examples, pairs = masked(
        [
            ("Arlo", "the builder Arlo was born in Tarvik near the river."),
            ("Arlo", "people say that Arlo made a sail out of wood."),
        ],
        scheme=scheme,
    )
    assert len(examples)
    assert pairs == []
