"""What counts as right: answer normalisation, matches, recall, and how sure a mean is."""

import re
import string
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from realm.records import Question

Rules = Literal["orqa", "squad"]
"""Whose normalisation: that of ORQA and REALM (NQ-open), or SQuAD's own, which lacks NFD."""
NORMALIZERS: Mapping[Rules, str] = {"orqa": "squad-orqa-v1", "squad": "squad-v1"}
"""Name and version of `normalize_answer` by its rules; scores under two of them do not compare."""

_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_DRAWS_AT_ONCE = 4_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A mean over questions and its interval."""

    mean: float
    low: float
    high: float


def normalize_answer(text: str, rules: Rules = "orqa") -> str:
    """Return `text` as exact match compares it.

    Lower case, ASCII punctuation deleted with no space put back, the words a, an and the
    replaced by a space, white space collapsed: in this order, as both official scripts do it.
    ORQA's decomposes the text first (NFD): accents come apart, they do not go away.

    Args:
        text: an answer.
        rules: "orqa" scores NQ-open, WebQuestions and the paper; "squad" is SQuAD's own script.
    """
    whole = unicodedata.normalize("NFD", text) if rules == "orqa" else text
    return " ".join(_ARTICLES.sub(" ", whole.lower().translate(_WITHOUT_PUNCTUATION)).split())


def exact_match(prediction: str, question: Question, rules: Rules = "orqa") -> bool:
    """Return whether the prediction equals one of the answers, both normalised.

    A prediction of white space is wrong: it is how an answerer says that it found nothing.
    """
    if not prediction.strip():
        return False
    normalized = normalize_answer(prediction, rules)
    return any(normalized == normalize_answer(answer, rules) for answer in question.answers)


def token_f1(prediction: str, question: Question, rules: Rules = "orqa") -> float:
    """Return SQuAD's F1 of normalised words against the answer that fits best.

    Where one side has no word left ("The"), 1 if the other has none either, as SQuAD 2.0; a
    prediction of white space scores 0.
    """
    if not prediction.strip():
        return 0.0
    words = normalize_answer(prediction, rules).split()
    told = (normalize_answer(answer, rules).split() for answer in question.answers)
    return max((_f1(words, gold) for gold in told), default=0.0)


def regex_match(
    prediction: str, patterns: Iterable[str], mode: Literal["match", "search"] = "match"
) -> bool:
    """Return whether one of the patterns fits the prediction (CuratedTREC).

    Args:
        prediction: the answer as given, not normalised; white space is wrong.
        patterns: regexes; case is ignored, ^ and $ match at line breaks; a bad one fits nothing.
        mode: "match" is anchored at the start and free at the end, as released; "search" finds
            the pattern anywhere.
    """
    if not prediction.strip():
        return False
    compiled = [regex for pattern in patterns if (regex := compile_pattern(pattern))]
    if mode == "match":
        return any(regex.match(prediction) for regex in compiled)
    return any(regex.search(prediction) for regex in compiled)


def compile_pattern(pattern: str) -> re.Pattern[str] | None:
    """Return an answer pattern as the official scorer compiles it, None for a bad one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "possible nested set": legal, and not ours to mend
        try:
            return re.compile(pattern, re.IGNORECASE | re.UNICODE | re.MULTILINE)
        except (re.error, OverflowError, RecursionError):
            return None


def has_answer(text: str, question: Question) -> bool:
    """Return whether an answer stands in the text, as DPR counts answer recall.

    Strings: the answer's words are consecutive words of the text, after NFD and lower case;
    each punctuation mark is a word, so "US" is not in "USSR". Patterns: found anywhere. To ask
    this of many passages make `answer_finder(question)` once.
    """
    return answer_finder(question)(text)


def answer_finder(question: Question) -> Callable[[str], bool]:
    """Return a function that says whether a text holds an answer to `question`."""
    told = [tokens for answer in question.answers if (tokens := _tokens(_decompose(answer)))]
    wanted = [(max(tokens, key=len), f" {' '.join(tokens)} ") for tokens in told]
    patterns = [
        regex
        for pattern in question.answer_patterns
        if (regex := compile_pattern(unicodedata.normalize("NFD", pattern)))
    ]

    def found(text: str) -> bool:
        lowered = _decompose(text)
        # Most passages hold not even one word: only the others are worth splitting.
        near = [words for longest, words in wanted if longest in lowered]
        if near:
            line = f" {' '.join(_tokens(lowered))} "
            if any(words in line for words in near):
                return True
        return bool(patterns) and any(
            regex.search(unicodedata.normalize("NFD", text)) for regex in patterns
        )

    return found


def recall_at_k(ranks: Sequence[int | None], k: int) -> float:
    """Return the share of questions with an answer in their first `k` passages.

    Args:
        ranks: for each question the rank of the first passage with an answer, from 1; None
            where no retrieved passage has one.
        k: passages that count.
    """
    return fmean(hits_at_k(ranks, k))


def hits_at_k(ranks: Sequence[int | None], k: int) -> list[float]:
    """Return 1 for each question whose rank is at most `k`, else 0."""
    return [float(rank is not None and rank <= k) for rank in ranks]


def mean_reciprocal_rank(ranks: Sequence[int | None]) -> float:
    """Return the mean of 1 / rank, 0 where no retrieved passage has an answer."""
    return fmean(reciprocal_ranks(ranks))


def reciprocal_ranks(ranks: Sequence[int | None]) -> list[float]:
    """Return 1 / rank of each question, 0 where there is none."""
    return [0.0 if rank is None else 1.0 / rank for rank in ranks]


def bootstrap_interval(
    values: Sequence[float] | NDArray[np.float64],
    *,
    samples: int,
    seed: int,
    level: float = 0.95,
) -> Interval:
    """Return the mean and its percentile bootstrap interval over questions.

    Args:
        values: one number for each question, at least one.
        samples: how often as many questions are drawn anew, with replacement.
        seed: equal seeds give equal intervals.
        level: how much of the drawn means lies inside.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.size == 0:
        raise ValueError("bootstrap_interval needs at least one value")
    random = np.random.default_rng(seed)
    at_once = max(1, _DRAWS_AT_ONCE // numbers.size)
    means = np.concatenate(
        [
            numbers[random.integers(numbers.size, size=(rows, numbers.size))].mean(axis=1)
            for start in range(0, samples, at_once)
            for rows in [min(at_once, samples - start)]
        ]
    )
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean=float(numbers.mean()), low=float(low), high=float(high))


def wilson_interval(right: int, total: int, *, level: float = 0.95) -> Interval:
    """Return a share and its Wilson score interval, which stays wide where questions are few.

    A bootstrap of one question, or of questions that are all wrong, would be sure of itself.

    Args:
        right: how many of them.
        total: questions, at least one.
        level: how often such an interval holds the true share.
    """
    share, z = right / total, NormalDist().inv_cdf((1 + level) / 2)
    shrink = 1 + z**2 / total
    center = (share + z**2 / (2 * total)) / shrink
    half = z / shrink * (share * (1 - share) / total + (z / (2 * total)) ** 2) ** 0.5
    # Rounded, the ends of 0 and 1 would miss the share by a hair.
    low, high = min(share, center - half), max(share, center + half)
    return Interval(mean=share, low=max(0.0, low), high=min(1.0, high))


def _f1(words: list[str], gold: list[str]) -> float:
    if not words or not gold:
        return float(words == gold)
    common = (Counter(words) & Counter(gold)).total()
    return 2 * common / (len(words) + len(gold))


def _decompose(text: str) -> str:
    return (text if text.isascii() else unicodedata.normalize("NFD", text)).lower()


def _tokens(text: str) -> list[str]:
    return text.translate(_SPACED).split()


class _Spaced(dict[int, str]):
    r"""How DPR's tokeniser cuts: `[\p{L}\p{N}\p{M}]+|[^\p{Z}\p{C}]`, filled as characters come.

    Letters, digits and accents stay, spaces and controls part words, all else stands alone.
    """

    def __missing__(self, code: int) -> str:
        character = chr(code)
        kind = unicodedata.category(character)[0]
        spaced = character if kind in "LNM" else " " if kind in "ZC" else f" {character} "
        self[code] = spaced
        return spaced


_SPACED = _Spaced()
