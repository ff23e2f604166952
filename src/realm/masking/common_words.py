"""Common English words, and how often they begin a name: counted from encyclopedia text."""

from functools import cache
from importlib.resources import files

ADVERB_ENDINGS = (
    "ally", "ingly", "edly", "ously", "ively", "ably", "ibly", "fully", "ently", "antly",
)  # fmt: skip
LONG_ENDINGS = (
    "ation", "ition", "ction", "ption", "sion", "ous", "ive", "ity", "ness", "ment", "ology",
    "graphy", "ical", "ional", "ural", "ated", "ating", "izing", "ising", "ized", "ised",
)  # fmt: skip
"""Of words with at least 8 letters."""
ENDINGS = (
    ("ies", "y"), ("es", ""), ("s", ""), ("ed", ""), ("ed", "e"), ("ing", ""), ("ing", "e"),
    ("d", ""), ("ly", ""), ("er", ""), ("er", "e"), ("ers", ""), ("ers", "e"), ("ness", ""),
    ("ful", ""), ("fully", ""), ("less", ""), ("able", ""), ("able", "e"),
)  # fmt: skip


def is_common(word: str) -> bool:
    """Return whether a lower-case word, or the word that it inflects, is a common one."""
    known = common_words()
    if word in known:
        return True
    if not word.isascii():
        return False
    if word.endswith(ADVERB_ENDINGS) or (len(word) > 7 and word.endswith(LONG_ENDINGS)):
        return True
    return any(
        word.endswith(ending)
        and len(word) - len(ending) > 2
        and word[: -len(ending)] + rest in known
        for ending, rest in ENDINGS
    )


def begins_names(word: str) -> bool:
    """Return whether a common word is often the first of a name: house, black, university."""
    return common_words().get(word, False)


@cache
def common_words() -> dict[str, bool]:
    """Return words that are written in lower case -> whether they often begin a name."""
    text = files("realm.masking").joinpath("common_words.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {word.rstrip("*"): word.endswith("*") for line in lines for word in line.split()}
