"""Which passages belong together: same title, or same article where there is no title."""

from collections.abc import Sequence

from realm.corpus.store import PassageStore
from realm.training.sampling import is_held_out


def group_key(store: PassageStore, row: int) -> str:
    """Return what a passage shares with its neighbours: its title, else its article.

    Some corpora (squad_open) store each paragraph as an article of its own under a common title.
    """
    title = store.title(row)
    return title or store.article_id(row)


def split_rows(store: PassageStore, share: float) -> tuple[list[int], list[int]]:
    """Return (training rows, held-out rows); all passages of one title stay together."""
    keys = [group_key(store, row) for row in range(len(store))]
    held = held_out_keys(keys, share)
    train = [row for row, key in enumerate(keys) if key not in held]
    return train, [row for row, key in enumerate(keys) if key in held]


def held_out_keys(keys: Sequence[str], share: float) -> set[str]:
    """Return which titles (or articles) are held out.

    In tiny corpora, where by chance none would be, the last one is; where all would be, the first
    one is not.
    """
    distinct = set(keys)
    held = {key for key in distinct if is_held_out(key, share)}
    if share and not held and len(distinct) > 1:
        held = {keys[-1]}
    return held - {keys[0]} if held == distinct and keys else held
