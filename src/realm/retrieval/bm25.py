"""The lexical retriever: BM25 over passages with the library bm25s, cached on disk."""

import re
import shutil
import unicodedata
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from realm.errors import ArtifactError, ConfigError, CorpusError
from realm.readable import counted
from realm.records import Passage, Progress
from realm.storage import (
    Request,
    fingerprint,
    fingerprint_of,
    locked,
    open_folder,
    publish,
    unreadable,
)

_TOKENIZER = "words-s-v1"
"""Name and version of `words`; an index made with another one is made again."""
K1 = 0.9
"""How soon a repeated word counts no more (Anserini)."""
B = 0.4
"""How much long passages are held back, 0 to 1 (Anserini)."""
_TELL_EVERY = 1_000
_PATIENCE_SECONDS = 3_600.0
"""How long to wait for another process that builds the same index; its lock ends with it."""
_WORD = re.compile(r"\w+")


@runtime_checkable
class StoredPassages(Protocol):
    """Passages in row order, such as a PassageStore."""

    @property
    def fingerprint(self) -> str:
        """Hash of all passages."""
        ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Passage]: ...


@runtime_checkable
class Lexical(Protocol):
    """Scores all passages by the words of a question."""

    def scores(self, question: str) -> NDArray[np.float32]:
        """Return the score of every row; 0 where it shares no word with the question."""
        ...

    def best(self, scores: NDArray[np.float32], k: int) -> tuple[list[int], list[float]]:
        """Return (rows, scores) of the k best that share a word, best first."""
        ...


class Bm25Retriever:
    """BM25 (Lucene's variant) over title and text of each passage."""

    name = "bm25"
    score_weight = 0.0
    """Its scores are on another scale than the reader's logits: the reader decides alone."""

    def __init__(self, index: Any) -> None:  # noqa: ANN401 - bm25s has no types
        self._index = index

    @classmethod
    def open(
        cls,
        passages: StoredPassages,
        *,
        cache: Path | None = None,
        k1: float = K1,
        b: float = B,
        progress: Progress | None = None,
    ) -> "Bm25Retriever":
        """Return a retriever, loaded from `cache` where an equal one was built before.

        Args:
            passages: what is searched.
            cache: a folder for built indexes, one for each set of passages and settings; a
                damaged one is built again. None: build, keep nothing.
            k1: how soon a repeated word counts no more.
            b: how much long passages are held back, 0 to 1.
            progress: called with (rows read, rows).

        Raises:
            ConfigError: bm25s is not installed, or k1 or b is impossible.
            CorpusError: the passages hold no word.
            ArtifactError: the cache cannot be written.
            UnreadableError: it cannot be read.
        """
        bm25s = _import_bm25s()
        if k1 < 0 or not 0 <= b <= 1:
            raise ConfigError(f"BM25: found k1 {k1} and b {b}, expected k1 >= 0 and b from 0 to 1")

        def build() -> Any:  # noqa: ANN401 - bm25s has no types
            index = bm25s.BM25(k1=k1, b=b, method="lucene", backend="numpy")
            index.index(_tokenize(passages, progress), show_progress=False)
            return index

        if cache is None:
            return cls(build())
        request = Request(
            kind="bm25",
            settings={"k1": k1, "b": b, "tokenizer": _TOKENIZER, "bm25s": bm25s.__version__},
            inputs={"passages": passages.fingerprint},
        )
        folder = cache / f"bm25-{fingerprint_of(request.as_json())[:16]}"
        if not _is_whole(folder, request):
            with locked(folder, wait_seconds=_PATIENCE_SECONDS):
                if not _is_whole(folder, request):  # another process may have just built it
                    _save(build(), folder, request)
        try:
            return cls(bm25s.BM25.load(folder, allow_pickle=False, show_progress=False))
        except OSError as error:  # in the midst of a file it names none
            raise unreadable(Path(error.filename or folder), error) from None

    def retrieve(self, questions: Sequence[str], k: int) -> list[tuple[list[int], list[float]]]:
        """Return the best rows and their scores for each question, best first.

        Equal scores stand in row order. Passages that share no word with the question are left
        out, so there may be fewer than `k`.
        """
        return [self._retrieve(question, k) for question in questions]

    def scores(self, question: str) -> NDArray[np.float32]:
        """Return the score of every row; 0 where it shares no word with the question."""
        tokens = self._index.get_tokens_ids(words(question))
        if not tokens:
            return np.zeros(self._index.scores["num_docs"], dtype=np.float32)
        return self._index.get_scores_from_ids(tokens)

    def best(self, scores: NDArray[np.float32], k: int) -> tuple[list[int], list[float]]:
        """Return (rows, scores) of the k best that share a word, as `retrieve` does."""
        return best_rows(scores, k)

    def _retrieve(self, question: str, k: int) -> tuple[list[int], list[float]]:
        return self.best(self.scores(question), k)


def open_lexical(
    run: Path, passages: StoredPassages, *, progress: Progress | None = None
) -> Bm25Retriever:
    """Return BM25 over these passages, kept in a run's folder."""
    return Bm25Retriever.open(passages, cache=run / "bm25", progress=progress)


def _import_bm25s() -> ModuleType:
    try:
        return import_module("bm25s")
    except ImportError:
        raise ConfigError(
            "BM25 needs the library bm25s, which is not installed: pip install bm25s"
        ) from None


def words(text: str) -> list[str]:
    """Return lower-case words without accents, a plural -s cut off (Harman's S-stemmer)."""
    if not text.isascii():
        decomposed = unicodedata.normalize("NFKD", text)
        text = "".join(letter for letter in decomposed if not unicodedata.combining(letter))
    return [_singular(word) for word in _WORD.findall(text.lower())]


def _singular(word: str) -> str:
    if not word.endswith("s") or len(word) < 4 or word.endswith(("us", "ss")):
        return word
    if word.endswith("ies") and not word.endswith(("eies", "aies")):
        return word[:-3] + "y"
    return word[:-1]


def _tokenize(
    passages: StoredPassages, progress: Progress | None
) -> tuple[list[list[int]], dict[str, int]]:
    """Return each row's words as numbers, and the number of each word."""
    numbers: dict[str, int] = {}
    rows: list[list[int]] = []
    for passage in passages:
        found = words(f"{passage.title}\n{passage.text}")
        rows.append([numbers.setdefault(word, len(numbers)) for word in found])
        if progress is not None and (len(rows) % _TELL_EVERY == 0 or len(rows) == len(passages)):
            progress(len(rows), len(passages))
    if not numbers:
        raise CorpusError(
            f"found no word in {counted(len(rows), 'passage')}, expected text to search"
        )
    return rows, numbers


def best_rows(scores: NDArray[np.float32], k: int) -> tuple[list[int], list[float]]:
    """Return (rows, scores) of the k largest scores above 0, equal ones in row order."""
    if k <= 0:
        return [], []
    rows = np.flatnonzero(scores > 0)
    if rows.size > k:
        least = np.partition(scores[rows], -k)[-k]
        rows = rows[scores[rows] >= least]
    rows = rows[np.argsort(-scores[rows], kind="stable")][:k]
    return rows.tolist(), scores[rows].tolist()


def _is_whole(folder: Path, request: Request) -> bool:
    try:
        return open_folder(folder, request.kind).get("fingerprint") == fingerprint(folder)
    except (ArtifactError, OSError):  # also one that cannot be read
        return False


def _save(index: Any, folder: Path, request: Request) -> None:  # noqa: ANN401
    shutil.rmtree(folder, ignore_errors=True)  # a damaged one; all of it can be built again
    with publish(folder, request) as scratch:
        index.save(scratch, allow_pickle=False, show_progress=False)
