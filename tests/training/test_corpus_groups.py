"""All passages of a title are held out together, or none of them."""

from collections.abc import Callable, Mapping, Sequence

import pytest

from realm.corpus.store import PassageStore
from realm.training.corpus_groups import group_key, held_out_keys, split_rows
from realm.training.sampling import is_held_out

MakeStore = Callable[[Sequence[Mapping[str, str]]], PassageStore]


def test_passages_of_one_title_stay_together(store: PassageStore) -> None:
    train, held = split_rows(store, 0.3)
    assert sorted(train + held) == list(range(len(store)))
    assert train
    assert held
    titles = [{store.title(row) for row in rows} for rows in (train, held)]
    assert not titles[0] & titles[1]
    assert titles[1] == {t for t in titles[0] | titles[1] if is_held_out(t, 0.3)}


def test_paragraphs_stored_as_articles_are_grouped_by_their_title(make_store: MakeStore) -> None:
    text = "The builder Arlo was born near the river in Tarvik."
    articles = [
        {"id": f"p{number}", "title": title, "text": text}
        for number, title in enumerate(["Arlo", "Arlo", "Bexa", ""])
    ]
    store = make_store(articles)
    assert [group_key(store, row) for row in range(4)] == ["Arlo", "Arlo", "Bexa", "p3"]


def test_a_share_of_nothing_holds_nothing_out(store: PassageStore) -> None:
    assert split_rows(store, 0.0) == (list(range(len(store))), [])


def test_where_none_would_be_held_out_the_last_one_is() -> None:
    keys = [str(n) for n in range(3)]
    assert not any(is_held_out(key, 1e-9) for key in keys)
    assert held_out_keys(keys, 1e-9) == {"2"}


def test_where_all_would_be_held_out_the_first_one_is_not() -> None:
    keys = [str(n) for n in range(3)]
    assert held_out_keys(keys, 1 - 1e-9) == {"1", "2"}


@pytest.mark.parametrize("share", [0.0, 1e-9, 0.5, 1 - 1e-9])
def test_a_single_article_is_trained_on(share: float) -> None:
    assert held_out_keys(["only", "only"], share) == set()
