"""Words -> labelled stretches of words, in batches; word vectors are computed once a word."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from realm.masking.trained.decoding import best_tags
from realm.masking.trained.features import describe_words
from realm.masking.trained.weights import load_weights

WORDS_PER_BATCH = 4_096
"""With the padding: what stays in the caches of one core."""
MAX_KNOWN_WORDS = 100_000
"""Word vectors held at a time (100 MB); beyond it all are forgotten."""


class Predictor:
    """The network of the package with the vectors of all words that it has met."""

    def __init__(self, convention: str) -> None:
        """Read the weights.

        Args:
            convention: Of annotation; one that the weights have.
        """
        weights = load_weights()
        self._network, self._tokenizer = weights.network, weights.tokenizer
        self._labels = weights.conventions[convention]
        self._head = weights.network.heads[convention]
        self._numbers: dict[str, int] = {}
        self._vectors = torch.zeros(0)

    def tag(
        self, sentences: Sequence[Sequence[str]], flags: Sequence[Sequence[int]]
    ) -> list[list[tuple[int, int, str]]]:
        """Return (first word, last word, label) of the entities of each sentence, in order.

        Args:
            sentences: Words of each sentence, at least one.
            flags: Of each word, from `flags_of`.
        """
        self._learn({word for sentence in sentences for word in sentence})
        numbers = [[self._numbers[word] for word in sentence] for sentence in sentences]
        found: list[list[tuple[int, int, str]]] = [[] for _ in sentences]
        for group in _groups([len(sentence) for sentence in sentences]):
            lengths = [len(numbers[i]) for i in group]
            scores = self._scores([numbers[i] for i in group], [flags[i] for i in group])
            for i, tags in zip(group, best_tags(scores, lengths).tolist(), strict=True):
                found[i] = list(stretches(tags, self._labels))
        return found

    @torch.inference_mode()
    def _scores(
        self, numbers: Sequence[Sequence[int]], flags: Sequence[Sequence[int]]
    ) -> np.ndarray:
        longest = max(len(row) for row in numbers)
        is_word = torch.zeros(len(numbers), longest, 1)
        for row, ids in enumerate(numbers):
            is_word[row, : len(ids)] = 1.0
        vectors = self._vectors[_padded(numbers, longest)]
        hidden = self._network.contextualise(vectors, _padded(flags, longest), is_word)
        return self._head(hidden).numpy()

    @torch.inference_mode()
    def _learn(self, words: set[str]) -> None:
        """Compute the vectors of the words that are new."""
        if len(self._numbers) + len(words) > MAX_KNOWN_WORDS:
            self._numbers, self._vectors = {}, torch.zeros(0)
        new = sorted(words - self._numbers.keys())
        if not new:
            return
        features = describe_words(new, self._tokenizer)
        vectors = self._network.words(*(torch.from_numpy(part) for part in features))
        for word in new:
            self._numbers[word] = len(self._numbers)
        self._vectors = torch.cat([self._vectors, vectors]) if len(self._vectors) else vectors


def stretches(tags: Sequence[int], labels: Sequence[str]) -> Iterator[tuple[int, int, str]]:
    """Yield (first word, last word, label) of each beginning with the insides behind it."""
    first = -1
    for place, tag in enumerate([*tags, 0]):
        if first >= 0 and (tag == 0 or tag % 2 == 1):
            yield first, place - 1, labels[(tags[first] - 1) // 2]
            first = -1
        if tag % 2 == 1:
            first = place


def _padded(rows: Sequence[Sequence[int]], longest: int) -> Tensor:
    table = np.zeros((len(rows), longest), np.int64)
    for i, row in enumerate(rows):
        table[i, : len(row)] = row
    return torch.from_numpy(table)


def _groups(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Yield numbers of sentences of about equal length, `WORDS_PER_BATCH` with the padding."""
    group: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if group and lengths[group[0]] * (len(group) + 1) > WORDS_PER_BATCH:
            yield group
            group = []
        group.append(i)
    if group:
        yield group
