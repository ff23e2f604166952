"""Which passages belong together: same title, or same article where there is no title."""

from realm.corpus.store import PassageStore
from realm.training.sampling import is_held_out


def group_key(store: PassageStore, row: int) -> str:
    """Return what a passage shares with its neighbours: its title, else its article.

    Some corpora (squad_open) store each paragraph as an article of its own under a common title.
    """
    title = store.title(row)
    return title or store.article_id(row)


def split_rows(store: PassageStore, share: float) -> tuple[list[int], list[int]]:
    """Return (training rows, held-out rows); all passages of one title stay together.

    Where nothing would be held out (tiny corpora) the last title is.
    """
    keys = [group_key(store, row) for row in range(len(store))]
    held = {key for key in set(keys) if is_held_out(key, share)}
    if share and not held and len(set(keys)) > 1:
        held = {keys[-1]}
    train = [row for row, key in enumerate(keys) if key not in held]
    return train, [row for row, key in enumerate(keys) if key in held]
