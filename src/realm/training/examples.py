"""Masked examples, drawn as the released code draws them: uniformly over a passage's spans."""

from collections.abc import Callable

from realm.corpus.store import PassageStore
from realm.errors import CorpusError
from realm.masking.store import ExampleStore
from realm.records import MaskedExample
from realm.training.corpus_groups import group_key
from realm.training.sampling import batch_at, is_held_out, sample, step_rng


class ExampleSampler:
    """One pass draws one example of every passage of X; held-out articles are never drawn."""

    def __init__(
        self, examples: ExampleStore, store: PassageStore, *, held_out: float, num_eval: int, seed: int
    ) -> None:
        self.examples = examples
        self.seed = seed
        key = _group_keys(examples, store)
        groups = range(examples.num_groups)
        kept_out = [n for n in groups if is_held_out(key(n), held_out)]
        if held_out and not kept_out and examples.num_groups > 1:
            kept_out = [examples.num_groups - 1]
        out = set(kept_out)
        self.train_groups = [n for n in groups if n not in out]
        if not self.train_groups:
            raise CorpusError(
                f"{examples.folder} has no passage left to train on with held_out={held_out}; "
                "expected at least two passages with masked examples"
            )
        self.held_out = [self._one(n, 0) for n in sample(kept_out, num_eval, seed)]

    def batch(self, step: int, batch_size: int) -> list[MaskedExample]:
        """Return the examples of one step, a function of (seed, step)."""
        numbers = batch_at(
            step, num_items=len(self.train_groups), batch_size=batch_size, seed=self.seed
        )
        return [self._one(self.train_groups[number], step + 1) for number in numbers]

    def _one(self, group: int, step: int) -> MaskedExample:
        rows = self.examples.group(group)
        rng = step_rng(self.seed, step * 1_000_003 + group)
        return self.examples[rows[int(rng.integers(len(rows)))]]


def _group_keys(examples: ExampleStore, store: PassageStore) -> Callable[[int], str]:
    """Return group -> what it is held out by: its title where X is Z, else its article."""
    if examples.passages_fingerprint != store.fingerprint:
        return examples.group_article
    return lambda number: group_key(store, examples[examples.group(number)[0]].origin)
