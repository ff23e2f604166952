"""Masked examples, drawn as the released code draws them: uniformly over a passage's spans."""

from collections.abc import Callable

from realm.corpus.store import PassageStore
from realm.errors import ConfigError, CorpusError
from realm.masking.store import ExampleStore
from realm.records import MaskedExample
from realm.training.corpus_groups import group_key, held_out_keys
from realm.training.sampling import batch_at, sample, step_rng


def check_examples(examples: ExampleStore, store: PassageStore, *, query_wordpieces: int) -> None:
    """Refuse examples whose wordpieces or masks a run could not read.

    Raises:
        ConfigError: another tokenizer than the passages', or queries longer than the run's.
    """
    examples.check_tokenizer(store.tokenizer, store.folder)
    longest = int(examples.manifest["settings"]["query_wordpieces"])
    if longest > query_wordpieces:
        raise ConfigError(
            f"{examples.folder} has queries of up to {longest} wordpieces, query_wordpieces is "
            f"{query_wordpieces}, which would cut masks off; set query_wordpieces={longest} or "
            "run `realm mask` with a smaller one"
        )


class ExampleSampler:
    """One pass draws one example of every passage of X; held-out articles are never drawn."""

    def __init__(
        self,
        examples: ExampleStore,
        store: PassageStore,
        *,
        held_out: float,
        num_eval: int,
        seed: int,
    ) -> None:
        self.examples = examples
        self.seed = seed
        if not examples.num_groups:
            raise CorpusError(
                f"{examples.folder} has no masked examples; expected at least one. Run "
                "`realm mask` again"
            )
        key = _group_keys(examples, store)
        keys = [key(number) for number in range(examples.num_groups)]
        held = held_out_keys(keys, held_out)
        self.train_groups = [number for number, own in enumerate(keys) if own not in held]
        kept_out = [number for number, own in enumerate(keys) if own in held]
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
    return lambda number: group_key(store, int(examples.origin[examples.group(number).start]))
